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

/// Whose answers are followed, and how far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Home<'a> {
    /// The address that the user named.
    pub(crate) url: &'a Url,
    /// What its host is called where it is configured.
    pub(crate) host: &'a str,
    /// Whether it may lead into this machine's network.
    pub(crate) may_lead_inside: bool,
}

/// Why an address is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stray {
    #[error("its address is malformed")]
    Malformed,
    #[error("it leads to an address of the kind `{0}:`")]
    Kind(String),
    #[error("it leads to an address with a login in it")]
    Login,
    #[error("it leads from TLS to plain HTTP at `{0}`")]
    Downgrade(String),
    #[error("it leads to `{there}`, into this machine or its network")]
    Inside {
        /// Host and port.
        there: String,
        /// For which host that can be allowed; `None`: for none.
        home: Option<String>,
    },
}

impl Stray {
    /// What the user can do about it, where anything can be said.
    pub(crate) fn help(&self) -> Option<String> {
        let Self::Inside { home: Some(home), .. } = self else {
            return None;
        };
        Some(format!(
            "if `{home}` is of your own network and means that, allow it: `--private-network {home}`, or \
             `[registries.\"{home}\"] private-network = true` in layerize's config.toml"
        ))
    }
}

/// Resolves `text` against the URL that the answer came from, and judges it as an address that `home` gave.
pub(crate) fn resolve(text: &str, from: &Url, home: Home<'_>) -> Result<Url, Stray> {
    let url = from.join(text.trim()).map_err(|_| Stray::Malformed)?;
    judge(url, home)
}

/// Judges an address that `home` gave; a plain `http:` of a host that was asked over TLS is TLS again.
pub(crate) fn judge(mut url: Url, home: Home<'_>) -> Result<Url, Stray> {
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(Stray::Kind(url.scheme().to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Stray::Login);
    }
    // The names of loopback are one machine, whichever of them an answer prefers.
    let both_here = is_loopback(&url) && is_loopback(home.url);
    if home.url.scheme() == "https" && url.scheme() == "http" && !(both_here && url.host() != home.url.host()) {
        // Servers behind a proxy that ends TLS do not know better (distribution#479).
        if url.host() != home.url.host() {
            return Err(Stray::Downgrade(host_of(&url)));
        }
        let port = if url.port().is_none() || url.port() == Some(80) {
            home.url.port()
        } else {
            url.port()
        };
        let upgraded = url.set_scheme("https").and_then(|()| url.set_port(port));
        upgraded.map_err(|()| Stray::Malformed)?;
    }
    let (there, here) = (scope(&url), scope(home.url));
    let is_near = url.host() == home.url.host() || both_here || (there == AddressScope::Private && here == there);
    let can_be_allowed = there == AddressScope::Private || is_loopback(&url);
    if there != AddressScope::Global && !is_near && !(home.may_lead_inside && can_be_allowed) {
        return Err(Stray::Inside {
            there: host_of(&url),
            home: can_be_allowed.then(|| home.host.to_owned()),
        });
    }
    url.set_fragment(None);
    Ok(url)
}

/// Whether a URL's host is this very machine: `localhost` and what is below it (RFC 6761, 6.3), 127.0.0.0/8 or `::1`. No
/// name is looked up.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.to_ipv4_mapped().map_or(ip.is_loopback(), |ip| ip.is_loopback()),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        None => false,
    }
}

/// How far away a host is, as far as its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AddressScope {
    /// Public names and addresses.
    Global,
    /// Private addresses.
    Private,
    /// Loopback, link-local (where clouds keep their credentials) and unspecified addresses.
    Local,
}

fn scope(url: &Url) -> AddressScope {
    let ip = match url.host() {
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
        Some(Host::Ipv6(ip)) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
        Some(Host::Domain(_)) if is_loopback(url) => return AddressScope::Local,
        Some(Host::Domain(_)) => return AddressScope::Global,
        None => return AddressScope::Local,
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
        (true, _) => AddressScope::Local,
        (_, true) => AddressScope::Private,
        _ => AddressScope::Global,
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

    fn home(url: &Url) -> Home<'_> {
        Home {
            url,
            host: "r.example",
            may_lead_inside: false,
        }
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
            assert_eq!(resolve(text, &from, home(&from)).unwrap().as_str(), expected);
        }
        let at = with_query(&url("https://r/x?_state=a%2Fb"), "digest", "sha256:00");
        assert_eq!(at.as_str(), "https://r/x?_state=a%2Fb&digest=sha256%3A00");
        assert_eq!(with_query(&url("https://r/x"), "a", "b").as_str(), "https://r/x?a=b");
    }

    /// Where clouds keep credentials, and addresses that are no host's: whatever is allowed.
    const NEVER: [&str; 5] = [
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/",
        "https://[fe80::1]/x",
        "https://0.0.0.0/x",
        "https://255.255.255.255/x",
    ];

    /// Addresses of this machine and its network, in every spelling.
    const INSIDE: [&str; 12] = [
        "https://127.0.0.1/x",
        "https://127.8.8.8/x",
        "https://0x7f000001/x",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://localhost/x",
        "https://LOCALHOST./x",
        "https://[fd00::1]/x",
        "https://10.0.0.1/x",
        "https://172.17.0.1/x",
        "https://192.168.1.1/x",
        "https://100.64.0.1/x",
    ];

    #[test]
    fn row_09_addresses_that_lead_inside_are_refused_unless_that_is_allowed() {
        let from = url("https://r.example/");
        let allowed = Home {
            may_lead_inside: true,
            ..home(&from)
        };
        for text in INSIDE {
            let error = resolve(text, &from, home(&from)).unwrap_err();
            let help = error.help().unwrap();
            assert!(help.contains("`--private-network r.example`"), "{help}");
            assert!(resolve(text, &from, allowed).is_ok(), "{text}");
        }
        for text in NEVER {
            // Over TLS all the same: the first of them leads from TLS to plain HTTP besides.
            let text = text.replace("http:", "https:");
            for home in [home(&from), allowed] {
                let error = resolve(&text, &from, home).unwrap_err();
                assert!(matches!(error, Stray::Inside { home: None, .. }), "{text}: {error}");
                assert_eq!(error.help(), None);
            }
        }
        for text in [
            "http://other.example/x",
            "http://10.0.0.1/x",
            "https://user:secret@r.example/x",
            "https://user@r.example/x",
            "file:///etc/passwd",
            "https://",
            "https://a.localhost./x",
        ] {
            let error = resolve(text, &from, home(&from)).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(resolve("https://s3.example/x?sig=1", &from, home(&from)).is_ok());
        let upgraded = resolve("http://r.example/v2/x?a=b", &from, home(&from)).unwrap();
        assert_eq!(upgraded.as_str(), "https://r.example/v2/x?a=b");
        let port = url("https://r.example:8443/");
        assert_eq!(
            resolve("http://r.example/x", &port, home(&port)).unwrap().as_str(),
            "https://r.example:8443/x"
        );
    }

    #[test]
    fn the_names_of_loopback_are_one_machine() {
        let names = ["localhost", "127.0.0.1", "127.9.9.9", "[::1]", "LOCALHOST"];
        for here in names {
            for there in names {
                for scheme in ["http", "https"] {
                    let from = url(&format!("{scheme}://{here}:5000/"));
                    let text = format!("{scheme}://{there}:5001/token");
                    assert_eq!(resolve(&text, &from, home(&from)).unwrap(), url(&text), "{here}");
                }
            }
            // And none of them is the machine's network, or the world.
            let from = url(&format!("http://{here}:5000/"));
            for text in NEVER {
                assert!(resolve(text, &from, home(&from)).is_err(), "{here} {text}");
            }
            assert!(resolve("http://10.0.0.1/", &from, home(&from)).is_err());
            assert!(resolve("http://world.example/", &from, home(&from)).is_ok());
        }
        // TLS ends nowhere on the way to the machine itself.
        let from = url("https://localhost:5000/");
        let token = resolve("http://127.0.0.1:5001/token", &from, home(&from)).unwrap();
        assert_eq!(token.as_str(), "http://127.0.0.1:5001/token");
    }

    #[test]
    fn a_host_of_the_network_may_name_another_one_there() {
        let network = url("https://10.0.0.1/");
        assert!(resolve("https://10.0.0.2/x", &network, home(&network)).is_ok());
        assert!(resolve("https://127.0.0.1/x", &network, home(&network)).is_err());
    }
}

#[cfg(test)]
mod fuzz {
    use url::Url;

    #[test]
    fn fuzz_address() {
        crate::testing::fuzz("address", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let (there, from) = text.split_once('\n').unwrap_or((&text, "https://registry.example/v2/"));
            if let Ok(from) = Url::parse(from) {
                let host = super::host_of(&from);
                let home = super::Home {
                    url: &from,
                    host: &host,
                    may_lead_inside: false,
                };
                if let Ok(url) = super::resolve(there, &from, home) {
                    assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
                    assert!(
                        !(from.scheme() == "https" && url.scheme() == "http" && !super::is_loopback(&url)),
                        "{url}"
                    );
                }
            }
        });
    }
}
