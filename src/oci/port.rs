//! A *port* is what a container listens on: a number and a protocol (OCI image-spec, config.md, `ExposedPorts`).
//!
//! Invariant: a number from 1 to 65535; printed with its protocol, so that two spellings never give two digests.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A port with its protocol. Parsed from `80`, `80/tcp`, `53/udp`; printed `80/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    number: u16,
    protocol: Protocol,
}

/// The protocols that Docker and Podman publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// A text that is no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a port: {reason}")]
pub struct PortError {
    /// What was to be parsed.
    pub text: String,
    /// Which rule it breaks.
    pub reason: &'static str,
}

impl Port {
    /// A TCP port; 0 is none.
    pub fn tcp(number: u16) -> Option<Self> {
        let protocol = Protocol::Tcp;
        (number != 0).then_some(Self { number, protocol })
    }

    /// Its number, of a TCP port.
    pub fn tcp_number(&self) -> Option<u16> {
        (self.protocol == Protocol::Tcp).then_some(self.number)
    }

    /// Parses what the configs of other tools have: a port, or a range of them (`8000-8010/tcp`), as `EXPOSE` of a
    /// Dockerfile takes it and some tools keep it although config.md knows no ranges.
    pub fn parse_range(text: &str) -> Result<Vec<Self>, PortError> {
        let (ports, rest) = match text.split_once('/') {
            Some((ports, protocol)) => (ports, format!("/{protocol}")),
            None => (text, String::new()),
        };
        let Some((from, to)) = ports.split_once('-') else {
            return Ok(vec![text.parse()?]);
        };
        let from: Self = format!("{from}{rest}").parse()?;
        let to: Self = format!("{to}{rest}").parse()?;
        if from.number > to.number {
            return Err(PortError {
                text: text.to_owned(),
                reason: "the range ends before it begins",
            });
        }
        let numbers = from.number..=to.number;
        Ok(numbers.map(|number| Self { number, ..from }).collect())
    }
}

impl PortError {
    /// What to write instead.
    pub fn help(&self) -> Option<String> {
        let (number, protocol) = self.text.split_once('/').unwrap_or((&self.text, "tcp"));
        if let Some((_, inner)) = number.split_once(':') {
            return Some(format!(
                "write `\"{inner}/{protocol}\"`; the outer one is given to `docker run -p`"
            ));
        }
        let tcp = format!("{number}/tcp");
        if tcp.parse::<Port>().is_ok() {
            return Some(format!("write `\"{tcp}\"`"));
        }
        Some("write a number from 1 to 65535, or `\"53/udp\"`".to_owned())
    }
}

impl FromStr for Port {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let error = |reason| PortError {
            text: text.to_owned(),
            reason,
        };
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        if number.contains(':') {
            return Err(error("an image names only the port inside"));
        }
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(error("the protocol must be `tcp`, `udp` or `sctp`")),
        };
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        match number.parse() {
            Ok(number) if digits && number != 0 => Ok(Self { number, protocol }),
            _ => Err(error("it must be a number from 1 to 65535")),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        write!(f, "{}/{protocol}", self.number)
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_port_are_one_value() {
        for (text, printed) in [
            ("80", "80/tcp"),
            ("0443/tcp", "443/tcp"),
            ("53/UDP", "53/udp"),
            ("65535/sctp", "65535/sctp"),
        ] {
            let port: Port = text.parse().unwrap();
            assert_eq!(port.to_string(), printed, "{text}");
            assert_eq!(printed.parse::<Port>().unwrap(), port);
        }
        assert_eq!(Port::tcp(80), Some("80".parse().unwrap()));
        assert_eq!(Port::tcp(0), None);
    }

    #[test]
    fn other_texts_are_refused_with_advice_that_works() {
        let number = "write a number from 1 to 65535, or `\"53/udp\"`";
        for (text, help) in [
            ("", number),
            ("0", number),
            ("65536", number),
            ("-1", number),
            ("+1", number),
            ("http", number),
            ("80-90", number),
            ("80/", "write `\"80/tcp\"`"),
            ("80/http", "write `\"80/tcp\"`"),
            (
                "8080:80",
                "write `\"80/tcp\"`; the outer one is given to `docker run -p`",
            ),
        ] {
            assert_eq!(text.parse::<Port>().unwrap_err().help().unwrap(), help, "{text}");
        }
    }

    #[test]
    fn ranges_of_foreign_configs_are_single_ports() {
        let range = |text| Port::parse_range(text).map(|ports| ports.iter().map(Port::to_string).collect::<Vec<_>>());
        assert_eq!(range("33060-33061/tcp").unwrap(), ["33060/tcp", "33061/tcp"]);
        assert_eq!(range("7-7/udp").unwrap(), ["7/udp"]);
        assert_eq!(range("80").unwrap(), ["80/tcp"]);
        assert_eq!(range("1-65535").unwrap().len(), 65535);
        for text in ["2-1", "0-1", "1-", "-1", "1-2-3", "1-70000", "a-b/tcp", "1-2/x"] {
            assert!(range(text).is_err(), "{text}");
        }
    }
}
