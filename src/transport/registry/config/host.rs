//! A *host* is a registry as image names have it: a name or an address, with a port or without.
//!
//! Invariant: Docker Hub has one name here, `docker.io`, whatever it is called in files of credentials.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::oci::Reference;

use super::error::ConfigError;

/// Docker Hub in image names.
pub(super) const HUB: &str = "docker.io";

/// Where Docker Hub's API answers.
const HUB_SERVER: &str = "registry-1.docker.io";

/// What docker keeps the credentials of Docker Hub under.
pub(super) const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What all names of Docker Hub are compared as.
const HUB_NORMAL: &str = "index.docker.io";

/// Host and port that are connected to.
pub(super) fn server(host: &str) -> &str {
    if host == HUB { HUB_SERVER } else { host }
}

/// What docker asks helpers for and writes into `auths`.
pub(super) fn docker_key(host: &str) -> &str {
    if host == HUB { HUB_KEY } else { host }
}

/// The name or address without the port; an IPv6 address without brackets.
pub(super) fn name(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

/// Whether it is this very machine: `localhost`, 127.0.0.0/8 or `::1`. No name is looked up.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = name(host);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || name.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
}

/// That `host` is what an image name can begin with, so that it can neither leave a directory nor change a URL.
pub fn check(host: &str) -> Result<(), ConfigError> {
    let error = |reason| ConfigError::Host {
        text: host.to_owned(),
        reason,
    };
    match format!("{host}/x/y").parse::<Reference>() {
        Ok(reference) if reference.registry() == host => Ok(()),
        Ok(_) if host == HUB_NORMAL => Err(error("Docker Hub is written `docker.io`")),
        Ok(_) => Err(error(
            "a name without a dot needs a port, else it is part of a repository",
        )),
        Err(_) => Err(error("it is not a host name or address with an optional port")),
    }
}

/// The keys under which a repository's credentials may be, longest first: `host/ns/repo`, `host/ns`, `host`.
pub(super) fn namespaces(host: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut name = format!("{host}/{repository}");
    name.truncate(name.trim_end_matches('/').len());
    while let Some(slash) = name.rfind('/') {
        keys.push(name.clone());
        name.truncate(slash);
    }
    keys.push(host.to_owned());
    keys
}

/// A key of `auths` as a bare host, as docker and podman compare them: the scheme goes, a path that followed a scheme
/// goes (in `.dockercfg` any path), and the names of Docker Hub are one.
pub(super) fn normal_key(key: &str, legacy: bool) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let bare = match bare {
        Some(bare) => bare.split('/').next().unwrap_or(bare),
        None if legacy => key.split('/').next().unwrap_or(key),
        None => key,
    };
    match bare {
        HUB | HUB_SERVER => HUB_NORMAL,
        _ => bare,
    }
}

/// A registry that holds copies of another's images, below a path of its own: `mirror.example:5000/hub`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Host and port.
    pub host: String,
    /// What repositories there begin with, without slashes at its ends; may be empty.
    pub prefix: String,
}

impl FromStr for Mirror {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let error = |reason| ConfigError::Host {
            text: text.to_owned(),
            reason,
        };
        if text.contains("://") {
            return Err(error(
                "a mirror is written without `https://`; `plain-http` is a key of its own",
            ));
        }
        let (host, prefix) = text.split_once('/').unwrap_or((text, ""));
        check(host)?;
        let prefix = prefix.trim_end_matches('/');
        let whole = format!("{host}/{}", if prefix.is_empty() { "x" } else { prefix });
        match whole.parse::<Reference>() {
            Ok(reference) if reference.tag().is_none() && reference.digest().is_none() => Ok(Self {
                host: host.to_owned(),
                prefix: prefix.to_owned(),
            }),
            _ => Err(error("its path is not a repository")),
        }
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        if self.prefix.is_empty() {
            return Ok(());
        }
        write!(f, "/{}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in [
            "localhost",
            "LOCALHOST:5000",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "127.evil.example",
            "localhost.example",
            "128.0.0.1",
            "[::2]:5000",
            "10.0.0.1",
            "docker.io",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn hosts_that_could_leave_a_directory_or_change_a_url_are_refused() {
        for host in [
            "registry.example",
            "r:5000",
            "localhost",
            "[::1]:5000",
            "docker.io",
            "10.0.0.1:80",
        ] {
            check(host).unwrap();
        }
        for host in [
            "",
            "..",
            "a/b.example",
            "user@host.example",
            "h.example?x",
            "h.example#x",
            "bare",
            "index.docker.io",
            "h.example:x",
            "h\n.example",
        ] {
            assert!(check(host).is_err(), "{host}");
        }
    }

    #[test]
    fn keys_go_from_the_repository_to_the_host() {
        assert_eq!(namespaces("h:1", "a/b"), ["h:1/a/b", "h:1/a", "h:1"]);
        assert_eq!(namespaces("h:1", ""), ["h:1"]);
    }

    #[test]
    fn mirrors_parse_and_print() {
        for text in ["mirror.example", "mirror.example:5000/hub", "localhost/a/b"] {
            assert_eq!(text.parse::<Mirror>().unwrap().to_string(), text);
        }
        for text in [
            "https://m.example",
            "m.example/x:1",
            "m.example//x",
            "bare",
            "m.example/UP",
            "",
        ] {
            let error = text.parse::<Mirror>().unwrap_err();
            assert!(error.help().is_some(), "{text}");
        }
    }
}
