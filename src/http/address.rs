//! An *address* is a URL that an answer gave (`Location`, `realm`, `Link`), resolved and judged before it is used.
//!
//! Invariant: no address leads from a host of the world to one of this machine or its network, from TLS to plain HTTP, or
//! carries a login.

use std::net::IpAddr;

use url::{Host, Url};

/// Scheme, host and port: what a login belongs to.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host() == b.host() && a.port_or_known_default() == b.port_or_known_default()
}

/// Host and port as image names have them.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Resolves `text` against the URL that the answer came from, and judges it as an address of the host at `home`.
/// The error is a sentence about the address.
pub(crate) fn resolve(text: &str, from: &Url, home: &Url) -> Result<Url, String> {
    let url = from
        .join(text.trim())
        .map_err(|error| format!("its address is malformed ({error})"))?;
    judge(url, home)
}

/// Judges an address that the host at `home` gave; a plain `http:` of a host that was asked over TLS is TLS again.
pub(crate) fn judge(mut url: Url, home: &Url) -> Result<Url, String> {
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(format!("it leads to an address of the kind `{}:`", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it leads to an address with a login in it".to_owned());
    }
    if home.scheme() == "https" && url.scheme() == "http" {
        // Servers behind a proxy that ends TLS do not know better (distribution#479).
        if url.host() != home.host() {
            return Err(format!("it leads from TLS to plain HTTP at `{}`", host_of(&url)));
        }
        let port = if url.port().is_none() || url.port() == Some(80) {
            home.port()
        } else {
            url.port()
        };
        let upgraded = url.set_scheme("https").and_then(|()| url.set_port(port));
        upgraded.map_err(|()| "its address is malformed".to_owned())?;
    }
    let (there, here) = (reach(&url), reach(home));
    let allowed = there == Reach::World || url.host() == home.host() || (there == Reach::Network && here == there);
    if !allowed {
        return Err(format!(
            "it leads to `{}`, into this machine or its network",
            host_of(&url)
        ));
    }
    url.set_fragment(None);
    Ok(url)
}

/// Whether a URL's host is this very machine: `localhost`, 127.0.0.0/8 or `::1`. No name is looked up.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}

/// How far away a host is, as far as its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    World,
    /// Private addresses.
    Network,
    /// Loopback, link-local (where clouds keep their credentials) and unspecified addresses.
    Machine,
}

fn reach(url: &Url) -> Reach {
    let ip = match url.host() {
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
        Some(Host::Ipv6(ip)) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            let local = name == "localhost" || name.ends_with(".localhost");
            return if local { Reach::Machine } else { Reach::World };
        }
        None => return Reach::Machine,
    };
    let (machine, network) = match ip {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            (
                ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_broadcast(),
                ip.is_private() || shared,
            )
        }
        IpAddr::V6(ip) => (
            ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local(),
            ip.is_unique_local(),
        ),
    };
    match (machine, network) {
        (true, _) => Reach::Machine,
        (_, true) => Reach::Network,
        _ => Reach::World,
    }
}

/// The address with one more parameter in its query; what is there stays as it is.
pub(crate) fn with_query(url: &Url, name: &str, value: &str) -> Url {
    let mut url = url.clone();
    let pair = url::form_urlencoded::Serializer::new(String::new())
        .append_pair(name, value)
        .finish();
    let query = match url.query() {
        Some(query) if !query.is_empty() => format!("{query}&{pair}"),
        _ => pair,
    };
    url.set_query(Some(&query));
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn row_17_locations_of_every_form_are_resolved() {
        let from = url("https://r.example:5000/v2/a/blobs/uploads/");
        for (text, expected) in [
            (
                "/v2/a/blobs/uploads/1?_state=x%2Fy",
                "https://r.example:5000/v2/a/blobs/uploads/1?_state=x%2Fy",
            ),
            ("uuid", "https://r.example:5000/v2/a/blobs/uploads/uuid"),
            ("//up.example/x", "https://up.example/x"),
            ("https://up.example/x#f", "https://up.example/x"),
            ("?_state=z", "https://r.example:5000/v2/a/blobs/uploads/?_state=z"),
        ] {
            assert_eq!(resolve(text, &from, &from).unwrap().as_str(), expected);
        }
        let at = with_query(&url("https://r/x?_state=a%2Fb"), "digest", "sha256:00");
        assert_eq!(at.as_str(), "https://r/x?_state=a%2Fb&digest=sha256%3A00");
        assert_eq!(with_query(&url("https://r/x"), "a", "b").as_str(), "https://r/x?a=b");
    }

    #[test]
    fn row_09_addresses_that_lead_inside_are_refused() {
        let home = url("https://r.example/");
        for text in [
            "http://169.254.169.254/latest/meta-data",
            "https://127.0.0.1/x",
            "https://[::1]/x",
            "https://[::ffff:127.0.0.1]/x",
            "https://[fe80::1]/x",
            "https://[fd00::1]/x",
            "https://10.0.0.1/x",
            "https://192.168.1.1/x",
            "https://100.64.0.1/x",
            "https://0.0.0.0/x",
            "https://localhost/x",
            "https://a.localhost./x",
            "http://other.example/x",
            "https://user:secret@r.example/x",
            "https://user@r.example/x",
            "file:///etc/passwd",
            "https://",
        ] {
            let error = resolve(text, &home, &home).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(resolve("https://s3.example/x?sig=1", &home, &home).is_ok());
        let upgraded = resolve("http://r.example/v2/x?a=b", &home, &home).unwrap();
        assert_eq!(upgraded.as_str(), "https://r.example/v2/x?a=b");
        let port = url("https://r.example:8443/");
        assert_eq!(
            resolve("http://r.example/x", &port, &port).unwrap().as_str(),
            "https://r.example:8443/x"
        );
        // A registry of the machine or the network may name its own.
        let local = url("http://127.0.0.1:5000/");
        assert!(resolve("http://127.0.0.1:5001/token", &local, &local).is_ok());
        assert!(resolve("http://169.254.169.254/", &local, &local).is_err());
        let network = url("https://10.0.0.1/");
        assert!(resolve("https://10.0.0.2/x", &network, &network).is_ok());
        assert!(resolve("https://127.0.0.1/x", &network, &network).is_err());
    }
}
