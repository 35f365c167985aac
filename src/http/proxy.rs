//! A *proxy* stands between this machine and others, as the environment says.
//!
//! Invariant: this machine itself is never asked for through a proxy; a proxy's password is in no message.
//!
//! `HTTPS_PROXY` is for `https:`, `HTTP_PROXY` for `http:`, `ALL_PROXY` for what the others leave out; in upper case
//! before lower case, as docker and podman read them. Proxies speak `http:`, `https:`, `socks5:` (names are looked up here),
//! `socks5h:` (by the proxy), `socks4:` or `socks4a:`. `NO_PROXY` is a list of `*`, `example.org` (with what is below
//! it), `.example.org` and `*.example.org` (only what is below it), addresses and networks (`10.0.0.0/8`), each but a
//! network with a `:port` or without.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

use super::error::SetupError;

/// What the environment says about proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyVariables {
    /// `HTTPS_PROXY`.
    pub https: Option<ProxyVariable>,
    /// `HTTP_PROXY`.
    pub http: Option<ProxyVariable>,
    /// `ALL_PROXY`.
    pub all: Option<ProxyVariable>,
    /// `NO_PROXY`.
    pub no_proxy: String,
}

/// An environment variable with the address of a proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyVariable {
    /// The variable.
    pub name: &'static str,
    /// Its value, which may hold a password.
    pub value: String,
}

/// Without user and password.
impl fmt::Debug for ProxyVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, without_user(&self.value))
    }
}

/// Which proxy is used for what.
#[derive(Clone)]
pub(crate) struct Proxies {
    https: Option<Url>,
    http: Option<Url>,
    none_for: Vec<Exception>,
}

impl Proxies {
    /// Reads the variables' values.
    pub(crate) fn new(variables: &ProxyVariables) -> Result<Self, SetupError> {
        let parse = |variable: &Option<ProxyVariable>| variable.as_ref().map(parse).transpose();
        let all = parse(&variables.all)?;
        Ok(Self {
            https: parse(&variables.https)?.or_else(|| all.clone()),
            http: parse(&variables.http)?.or(all),
            none_for: variables
                .no_proxy
                .split([',', ' '])
                .filter_map(Exception::parse)
                .collect(),
        })
    }

    /// The proxy for a URL; `None`: it is asked for directly.
    pub(crate) fn choose(&self, url: &Url) -> Option<&Url> {
        let proxy = match url.scheme() {
            "https" => self.https.as_ref()?,
            "http" => self.http.as_ref()?,
            _ => return None,
        };
        let host = url.host()?;
        let here = match &host {
            Host::Domain(name) => name.eq_ignore_ascii_case("localhost"),
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        };
        let port = url.port_or_known_default();
        let excepted = self.none_for.iter().any(|exception| exception.holds(&host, port));
        (!here && !excepted).then_some(proxy)
    }
}

/// A proxy's address as it may be shown.
pub(crate) fn shown(url: &Url) -> String {
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

fn parse(variable: &ProxyVariable) -> Result<Url, SetupError> {
    let error = |reason| SetupError::Proxy {
        variable: variable.name,
        value: without_user(&variable.value),
        reason,
    };
    let text = match variable.value.contains("://") {
        true => variable.value.clone(),
        false => format!("http://{}", variable.value),
    };
    let url = Url::parse(&text).map_err(|_| error("it is not a URL"))?;
    match url.scheme() {
        "http" | "https" | "socks4" | "socks4a" | "socks5" | "socks5h" => match url.host_str() {
            Some(host) if !host.is_empty() => Ok(url),
            _ => Err(error("it has no host")),
        },
        _ => Err(error("a proxy speaks `http:`, `https:`, `socks5:` or `socks5h:`")),
    }
}

/// A proxy's address without user, password, path and query, whether or not it is a URL.
fn without_user(value: &str) -> String {
    let (scheme, rest) = match value.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), value),
    };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}\u{2026}@{}", authority(host)),
        None => format!("{scheme}{}", authority(rest)),
    }
}

fn authority(rest: &str) -> &str {
    rest.split(['/', '?', '#']).next().unwrap_or(rest)
}

/// An item of `NO_PROXY`.
#[derive(Debug, Clone)]
struct Exception {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, Clone)]
enum Hosts {
    All,
    /// The address and how many of its bits count.
    Network(IpAddr, u32),
    /// `.example.org`, and whether `example.org` itself is meant too.
    Domain(String, bool),
}

impl Exception {
    /// `None` for what is not an item: it is passed over, as others do.
    fn parse(item: &str) -> Option<Self> {
        let item = item.trim().to_ascii_lowercase();
        let any_port = |hosts| Some(Self { hosts, port: None });
        if item == "*" {
            return any_port(Hosts::All);
        }
        if let Some((address, bits)) = item.split_once('/') {
            let address: IpAddr = address.parse().ok()?;
            let bits = bits.parse().ok().filter(|&bits| bits <= width(address))?;
            return any_port(Hosts::Network(address, bits));
        }
        if let Ok(address) = item.parse::<IpAddr>() {
            return any_port(Hosts::Network(address, width(address)));
        }
        let (host, port) = match item.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().ok()?)),
            _ => (item.as_str(), None),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let hosts = match bare.parse::<IpAddr>() {
            Ok(address) => Hosts::Network(address, width(address)),
            Err(_) => match host.strip_prefix('*').unwrap_or(host) {
                "" | "." => return None,
                below if below.starts_with('.') => Hosts::Domain(below.to_owned(), false),
                domain => Hosts::Domain(format!(".{domain}"), true),
            },
        };
        Some(Self { hosts, port })
    }

    fn holds(&self, host: &Host<&str>, port: Option<u16>) -> bool {
        if self.port.is_some() && self.port != port {
            return false;
        }
        match (&self.hosts, host) {
            (Hosts::All, _) => true,
            (Hosts::Network(network, bits), Host::Ipv4(address)) => in_network(*network, *bits, (*address).into()),
            (Hosts::Network(network, bits), Host::Ipv6(address)) => in_network(*network, *bits, (*address).into()),
            (Hosts::Domain(suffix, itself), Host::Domain(name)) => {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                name.ends_with(suffix) || (*itself && name == suffix[1..])
            }
            _ => false,
        }
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn in_network(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    let same = |a: u128, b: u128, width: u32| bits == 0 || (a ^ b) >> (width - bits) == 0;
    match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_proxy() {
        crate::testing::fuzz("proxy", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let (value, item) = text.split_once('\n').unwrap_or((&text, "*.example.org:80"));
            let variable = super::ProxyVariable {
                name: "ALL_PROXY",
                value: value.to_owned(),
            };
            if let Err(error) = super::parse(&variable) {
                let _ = error.to_string();
            }
            if let Some(exception) = super::Exception::parse(item) {
                for address in ["http://a.example.org", "http://10.1.2.3", "http://[fe80::1]"] {
                    let url = super::Url::parse(address).unwrap();
                    let _ = exception.holds(&url.host().unwrap(), Some(80));
                }
            }
        });
    }
}
