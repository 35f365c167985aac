//! A *platform* is the operating system and processor an image is for: `linux/amd64`, `linux/arm/v7`.
//!
//! Invariant: normal form. Names that mean one platform (`x86_64`, `aarch64`, `arm64/v8`) are one value, as in
//! containerd, so that two spellings never give two digests; never taken from the machine.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Operating system and processor, by Go's names (OCI image-spec, config.md). Printed `OS/ARCHITECTURE[/VARIANT]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a platform: {reason}")]
pub struct PlatformError {
    /// What was to be parsed.
    pub text: String,
    /// Which rule it breaks.
    pub reason: &'static str,
}

/// Go's names of processors that containers run on.
const ARCHITECTURES: &[&str] = &[
    "386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x", "wasm",
];

/// Debian's names and the platforms that its official images have for them.
const DEBIAN: &[(&str, &str)] = &[
    ("amd64", "linux/amd64"),
    ("arm64", "linux/arm64"),
    ("armel", "linux/arm/v5"),
    ("armhf", "linux/arm/v7"),
    ("i386", "linux/386"),
    ("mips64el", "linux/mips64le"),
    ("ppc64el", "linux/ppc64le"),
    ("riscv64", "linux/riscv64"),
    ("s390x", "linux/s390x"),
];

impl Platform {
    /// Normalises the parts; each must be made of letters, digits, `_`, `.` and `-`.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Result<Self, PlatformError> {
        let text = || {
            [os, architecture]
                .into_iter()
                .chain(variant)
                .collect::<Vec<_>>()
                .join("/")
        };
        let part = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        };
        if ![os, architecture].into_iter().chain(variant).all(part) {
            return Err(PlatformError {
                text: text(),
                reason: "its parts must be made of letters, digits, `_`, `.` and `-`",
            });
        }
        let (architecture, variant) = normalise(&architecture.to_ascii_lowercase(), variant);
        Ok(Self {
            os: os.to_ascii_lowercase(),
            architecture,
            variant,
        })
    }

    /// The platform of a Debian architecture (`armhf` is `linux/arm/v7`).
    pub fn from_debian(architecture: &str) -> Option<Self> {
        let (_, text) = DEBIAN.iter().find(|(debian, _)| *debian == architecture)?;
        text.parse().ok()
    }

    /// Debian's name of the processor, where it has one.
    pub fn debian_architecture(&self) -> Option<&'static str> {
        let text = self.to_string();
        DEBIAN
            .iter()
            .find(|(_, platform)| *platform == text)
            .map(|(debian, _)| *debian)
    }

    /// `linux`.
    pub fn os(&self) -> &str {
        &self.os
    }

    /// `amd64`, by Go's name.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// `v7`, where the processor comes in variants that matter.
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// Whether containers run on it as far as this program knows; an index that was read may name others.
    pub fn is_known(&self) -> bool {
        self.os == "linux" && ARCHITECTURES.contains(&self.architecture.as_str())
    }

    /// The known processor names, for advice.
    pub fn known_architectures() -> &'static [&'static str] {
        ARCHITECTURES
    }
}

/// containerd's rules (`platforms/database.go`): one name a processor, a variant only where it is not the default.
fn normalise(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let variant = variant.map(str::to_ascii_lowercase);
    let (architecture, variant) = match (architecture, variant.as_deref()) {
        ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386", None),
        ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
        ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
        ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
        ("aarch64" | "arm64", other) => ("arm64", other),
        ("armhf", _) => ("arm", Some("v7")),
        ("armel", _) => ("arm", Some("v6")),
        ("arm", None | Some("" | "7")) => ("arm", Some("v7")),
        ("arm", Some("5")) => ("arm", Some("v5")),
        ("arm", Some("6")) => ("arm", Some("v6")),
        ("arm", Some("8")) => ("arm", Some("v8")),
        ("ppc64el", other) => ("ppc64le", other),
        other => other,
    };
    (architecture.to_owned(), variant.map(str::to_owned))
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(os), Some(architecture), variant, None) => Self::new(os, architecture, variant),
            _ => Err(PlatformError {
                text: text.to_owned(),
                reason: "it must be `OS/ARCHITECTURE` or `OS/ARCHITECTURE/VARIANT`, such as `linux/amd64`",
            }),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl Serialize for Platform {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_platform_are_one_value() {
        let cases = [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/i686", "linux/386"),
            ("unknown/unknown", "unknown/unknown"),
        ];
        for (text, expected) in cases {
            let platform: Platform = text.parse().unwrap();
            assert_eq!(platform.to_string(), expected, "{text}");
            assert_eq!(expected.parse::<Platform>().unwrap(), platform, "{text}");
        }
    }

    #[test]
    fn what_is_no_platform_is_refused() {
        for text in [
            "",
            "linux",
            "linux/",
            "/amd64",
            "linux/amd64/",
            "linux/amd64/v1/x",
            "li nux/amd64",
            "linux/ämd64",
        ] {
            assert_eq!(text.parse::<Platform>().unwrap_err().text, text);
        }
    }

    #[test]
    fn debian_names_go_both_ways() {
        for (debian, platform) in DEBIAN {
            let parsed = Platform::from_debian(debian).unwrap();
            assert_eq!(parsed.to_string(), *platform);
            assert_eq!(parsed.debian_architecture(), Some(*debian));
            assert!(parsed.is_known());
        }
        assert_eq!(Platform::from_debian("m68k"), None);
        assert!(!"linux/amd46".parse::<Platform>().unwrap().is_known());
    }
}
