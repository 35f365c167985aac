//! The *hosts* that clients may call the registry by.
//!
//! Invariant: a web page of somebody else, whose name was made to lead to this machine (DNS rebinding), is answered nothing: a
//! browser says the page's name. Names of this machine that nobody else can have are answered always. Pure.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::Uri;
use hyper::header::HOST;

/// Names by which the registry is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    names: Vec<String>,
    /// Whether it may be called by any.
    any: bool,
}

impl Hosts {
    /// Those of loopback, and these: names or addresses without a port.
    pub fn of_loopback_and(names: impl IntoIterator<Item = String>) -> Self {
        let plain = |name: String| bare(&name).to_ascii_lowercase();
        Self {
            names: names.into_iter().map(plain).collect(),
            any: false,
        }
    }

    /// Any: for a registry whose clients show a token, which no page has.
    pub fn any() -> Self {
        Self {
            names: Vec::new(),
            any: true,
        }
    }

    /// The name by which a request calls the registry, where it may not be called so.
    pub(super) fn stranger(&self, uri: &Uri, headers: &HeaderMap) -> Option<String> {
        if self.any {
            return None;
        }
        // A request to a proxy names the host in front of the path; then it is that one (RFC 9112, 3.2.2).
        let own = uri.authority().map(|authority| authority.as_str().to_owned());
        let said = headers.get_all(HOST).iter().map(|value| {
            let text = value.to_str().ok().map(str::to_owned);
            text.unwrap_or_else(|| String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        own.into_iter().chain(said).find(|name| !self.has(name))
    }

    fn has(&self, authority: &str) -> bool {
        let host = bare(without_port(authority)).to_ascii_lowercase();
        let name = host.strip_suffix('.').unwrap_or(&host);
        let is_loopback = match name.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            // RFC 6761, 6.3: names below `localhost` lead nowhere else.
            Err(_) => name == "localhost" || name.ends_with(".localhost"),
        };
        is_loopback || self.names.iter().any(|own| own == name)
    }
}

/// `[::1]:5000` → `[::1]`, `host:5000` → `host`
fn without_port(authority: &str) -> &str {
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match authority.rsplit_once(':') {
        Some((host, port)) if is_number(port) && (!host.contains(':') || host.ends_with(']')) => host,
        _ => authority,
    }
}

/// An address without the brackets that it has in a URL.
fn bare(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn called(hosts: &Hosts, host: &str) -> Option<String> {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_str(host).unwrap())]);
        hosts.stranger(&Uri::from_static("/v2/"), &headers)
    }

    #[test]
    fn names_of_this_machine_are_its_own_and_others_are_strangers() {
        let hosts = Hosts::of_loopback_and(["Registry.Example".to_owned(), "[fd00::1]".to_owned()]);
        for own in [
            "localhost",
            "LOCALHOST:5000",
            "localhost.:5000",
            "a.localhost:1",
            "127.0.0.1:5000",
            "127.9.9.9",
            "[::1]:5000",
            "[::1]",
            "[::ffff:127.0.0.1]:80",
            "registry.example:5000",
            "registry.example.",
            "[fd00::1]:5000",
        ] {
            assert_eq!(called(&hosts, own), None, "{own}");
        }
        for other in [
            "evil.example",
            "localhost.evil.example",
            "evillocalhost",
            "127.0.0.1.evil.example:5000",
            "192.168.1.2:5000",
            "[fd00::2]:5000",
            "0.0.0.0:5000",
            "registry.example.evil",
            "",
            ":5000",
            "a@localhost",
        ] {
            assert_eq!(called(&hosts, other).as_deref(), Some(other), "{other}");
            assert_eq!(called(&Hosts::any(), other), None);
        }
    }

    #[test]
    fn every_name_in_a_request_counts() {
        let hosts = Hosts::default();
        let local = HeaderValue::from_static("localhost");
        let headers = HeaderMap::from_iter([(HOST, local.clone())]);
        let uri = Uri::from_static("http://evil.example/v2/");
        assert_eq!(hosts.stranger(&uri, &headers).as_deref(), Some("evil.example"));
        let mut both = HeaderMap::new();
        both.append(HOST, local);
        both.append(HOST, HeaderValue::from_static("evil.example"));
        assert!(hosts.stranger(&Uri::from_static("/v2/"), &both).is_some());
        // As HTTP/1.0 had it, and no browser has.
        assert_eq!(hosts.stranger(&Uri::from_static("/v2/"), &HeaderMap::new()), None);
    }
}
