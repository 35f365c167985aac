//! The *address* of a builder: `grpc://HOST:PORT[/INSTANCE]`, or `grpcs://` for TLS.
//!
//! Invariant: what was parsed names a host and a port, and prints as it was written.

use std::fmt;
use std::str::FromStr;

use url::{Host, Url};

/// Where a builder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuilderAddress {
    /// Whether it is spoken to through TLS.
    pub is_secure: bool,
    /// Host, an address of IPv6 in its brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The instance there: empty where it has but one.
    pub instance: String,
}

/// Why a text is no address of a builder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no builder: {reason}")]
pub struct BuilderAddressError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl BuilderAddressError {
    /// What to write instead.
    pub fn help(&self) -> Option<String> {
        Some(
            "write `grpc://HOST:PORT`, with TLS `grpcs://HOST:PORT`, with `/INSTANCE` where it has several; `ssh://HOST` for \
             another machine with layerize; or the name of a `[builders.NAME]` of the configuration"
                .to_owned(),
        )
    }
}

impl BuilderAddress {
    /// Host and port as a registry's are written, by which certificates are found.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Whether a text is meant to be an address and no name.
    pub fn is_meant_by(text: &str) -> bool {
        text.contains("://")
    }
}

impl FromStr for BuilderAddress {
    type Err = BuilderAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason: &str| BuilderAddressError {
            text: text.to_owned(),
            reason: reason.to_owned(),
        };
        let url = Url::parse(text).map_err(|parsed| error(&parsed.to_string()))?;
        let is_secure = match url.scheme() {
            "grpc" => false,
            "grpcs" => true,
            _ => {
                return Err(error(
                    "it begins neither with `grpc://` or `grpcs://` nor with `ssh://`",
                ));
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(error(
                "it holds a login; name a file with `token-file` in the configuration",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(error("it holds a `?` or a `#`"));
        }
        // Of schemes that it does not know, the library leaves hosts as they are.
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| error("it names no host"))?;
        let host = Host::parse(host)
            .map_err(|parsed| error(&parsed.to_string()))?
            .to_string();
        let port = url
            .port()
            .filter(|&port| port != 0)
            .ok_or_else(|| error("it names no port"))?;
        let instance = url.path().trim_matches('/').to_owned();
        // By these words the names of blobs are told from the name of the instance.
        let words = [
            "blobs",
            "uploads",
            "actions",
            "actionResults",
            "operations",
            "capabilities",
            "compressed-blobs",
        ];
        if let Some(word) = instance.split('/').find(|part| words.contains(part)) {
            return Err(error(&format!("no instance is called `{word}`")));
        }
        Ok(Self {
            is_secure,
            host,
            port,
            instance,
        })
    }
}

impl fmt::Display for BuilderAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "grpcs" } else { "grpc" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)?;
        match self.instance.is_empty() {
            true => Ok(()),
            false => write!(f, "/{}", self.instance),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for (text, secure, host, port, instance) in [
            ("grpc://farm:8980", false, "farm", 8980, ""),
            ("grpcs://farm.example:443/main", true, "farm.example", 443, "main"),
            ("grpc://127.0.0.1:1/a/b", false, "127.0.0.1", 1, "a/b"),
            ("grpc://[::1]:50051", false, "[::1]", 50051, ""),
        ] {
            let address: BuilderAddress = text.parse().unwrap();
            assert_eq!(
                (
                    address.is_secure,
                    address.host.as_str(),
                    address.port,
                    address.instance.as_str()
                ),
                (secure, host, port, instance)
            );
            assert_eq!(address.to_string(), text);
        }
        let address: BuilderAddress = "grpc://farm:8980/".parse().unwrap();
        assert_eq!(address.to_string(), "grpc://farm:8980");
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (text, reason) in [
            ("farm:8980", "neither"),
            ("http://farm:80", "neither"),
            ("grpc://farm", "no port"),
            ("grpc://:80", "host"),
            ("grpc://farm:99999", "port"),
            ("grpc://me:secret@farm:80", "login"),
            ("grpc://farm:80/?x", "`?`"),
            ("grpc://farm:80/a/blobs", "`blobs`"),
            ("", "relative"),
        ] {
            let error = text.parse::<BuilderAddress>().unwrap_err();
            assert!(error.reason.contains(reason), "{text}: {}", error.reason);
        }
    }
}
