//! A *platform* is the operating system and processor an image is for: `linux/amd64`, `linux/arm/v7`.
//!
//! Invariant: normal form. Names that mean one platform (`x86_64`, `aarch64`, `arm64/v8`) are one value, as in
//! containerd, so that two spellings never give two digests; never taken from the machine.
//!
//! Names, normal forms and what runs on what follow containerd's `platforms` package, with its way to write a version of
//! Windows (`windows(10.0.17763)/amd64`). One rule is left out: containerd takes an image for another processor where
//! none for the wanted one is there (`386` for `amd64`, `arm` for `arm64`), which a copy or a base must not.

use std::fmt;
use std::str::FromStr;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Operating system and processor, by Go's names (OCI image-spec, config.md). Printed
/// `OS[(VERSION)]/ARCHITECTURE[/VARIANT]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
    os_version: Option<String>,
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

/// Debian's names and the platforms that its packages run on (OCI image-spec, image-index.md, "Platform Variants").
const DEBIAN: &[(&str, &str)] = &[
    ("amd64", "linux/amd64"),
    ("arm64", "linux/arm64"),
    ("armel", "linux/arm/v5"),
    ("armhf", "linux/arm/v7"),
    ("i386", "linux/386"),
    ("loong64", "linux/loong64"),
    ("mips64el", "linux/mips64le"),
    ("ppc64el", "linux/ppc64le"),
    ("riscv64", "linux/riscv64"),
    ("s390x", "linux/s390x"),
];

impl Platform {
    /// Debian's names of architectures that have a platform.
    pub const DEBIAN_ARCHITECTURES: [&'static str; DEBIAN.len()] = {
        let mut names = [""; DEBIAN.len()];
        let mut index = 0;
        while index < names.len() {
            names[index] = DEBIAN[index].0;
            index += 1;
        }
        names
    };

    /// The platforms of all Debian architectures.
    pub fn debian() -> impl Iterator<Item = Self> {
        DEBIAN.iter().filter_map(|(_, text)| text.parse().ok())
    }

    /// Normalises the parts; each must be made of letters, digits, `_`, `.` and `-`.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Result<Self, PlatformError> {
        let parts = || [os, architecture].into_iter().chain(variant);
        if !parts().all(is_part) {
            return Err(PlatformError {
                text: parts().collect::<Vec<_>>().join("/"),
                reason: "its parts must be made of letters, digits, `_`, `.` and `-`",
            });
        }
        let (architecture, variant) = normalise(&architecture.to_ascii_lowercase(), variant);
        let os = match os.to_ascii_lowercase() {
            os if os == "macos" => "darwin".to_owned(),
            os => os,
        };
        Ok(Self {
            os,
            architecture,
            variant,
            os_version: None,
        })
    }

    /// The platform that a document names, where it names one; what is empty there is not said.
    pub(super) fn read(os: &str, architecture: &str, variant: Option<&str>, os_version: Option<&str>) -> Option<Self> {
        let variant = variant.filter(|variant| !variant.is_empty());
        let os_version = os_version.filter(|version| is_part(version)).map(str::to_owned);
        Some(Self {
            os_version,
            ..Self::new(os, architecture, variant).ok()?
        })
    }

    /// How well an image for `offered` serves who wants this platform: 0 is best, `None` is not at all. A processor
    /// runs what is made for its own variant and for those below it; a version of the operating system is a prefix
    /// of the offered one (`10.0.17763` takes `10.0.17763.6054`), and without one any will do.
    pub fn rank(&self, offered: &Self) -> Option<usize> {
        let version = |wanted: &str| {
            let rest = offered.os_version.as_deref().unwrap_or_default().strip_prefix(wanted);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let same = self.os == offered.os && self.architecture == offered.architecture;
        if !same || !self.os_version.as_deref().is_none_or(version) {
            return None;
        }
        let variants = variants(&self.architecture, self.variant.as_deref());
        variants.iter().position(|variant| *variant == offered.variant)
    }

    /// Writes it as a descriptor has it, an object of its parts (image-index.md).
    pub(super) fn as_object<S: Serializer>(platform: &Option<Self>, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(platform) = platform else {
            return serializer.serialize_none();
        };
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("architecture", &platform.architecture)?;
        object.serialize_entry("os", &platform.os)?;
        for (key, value) in [("os.version", &platform.os_version), ("variant", &platform.variant)] {
            if let Some(value) = value {
                object.serialize_entry(key, value)?;
            }
        }
        object.end()
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

    /// The version of the operating system, where it matters: Windows' own must fit the machine's.
    pub fn os_version(&self) -> Option<&str> {
        self.os_version.as_deref()
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

/// Whether a text can stand between the slashes of a platform.
fn is_part(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    !text.is_empty() && text.bytes().all(legal)
}

/// The variants whose programs a processor of this variant runs, the best first (containerd, `platforms/compare.go`).
fn variants(architecture: &str, variant: Option<&str>) -> Vec<Option<String>> {
    let own = || vec![variant.map(str::to_owned)];
    let number = |text: &str| text.strip_prefix('v')?.parse::<u32>().ok();
    // Each with the normal form of a name: `v1` of amd64 and `v8` of arm64 are not written.
    let named = |name: String| normalise(architecture, Some(&name)).1;
    match (architecture, variant) {
        ("amd64", Some(variant)) => match number(variant) {
            Some(level @ 2..=9) => (1..=level).rev().map(|level| named(format!("v{level}"))).collect(),
            _ => own(),
        },
        ("arm", Some(variant)) => match number(variant) {
            Some(version @ 5..=9) => (5..=version)
                .rev()
                .map(|version| named(format!("v{version}")))
                .collect(),
            _ => own(),
        },
        ("arm64", Some(variant)) => {
            let (major, minor) = variant.split_once('.').unwrap_or((variant, "0"));
            let minors = |major: u32, from: u32| {
                let name = move |minor| match minor {
                    0 => format!("v{major}"),
                    minor => format!("v{major}.{minor}"),
                };
                (0..=from).rev().map(name)
            };
            match (number(major), minor.parse()) {
                (Some(8), Ok(minor @ 0..=9)) => minors(8, minor).map(named).collect(),
                // Version 9.0 has all that 8.5 has, and so on up to 9.4 and 8.9.
                (Some(9), Ok(minor @ 0..=9)) => {
                    let below = minors(8, (minor + 5).min(9));
                    minors(9, minor).chain(below).map(named).collect()
                }
                _ => own(),
            }
        }
        _ => own(),
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
        let error = |reason| PlatformError {
            text: text.to_owned(),
            reason,
        };
        let mut parts = text.split('/');
        let (Some(os), Some(architecture), variant, None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(error(
                "it must be `OS/ARCHITECTURE` or `OS/ARCHITECTURE/VARIANT`, such as `linux/amd64`",
            ));
        };
        let (os, version) = match os.strip_suffix(')').and_then(|os| os.split_once('(')) {
            Some((os, version)) => (os, Some(version)),
            None => (os, None),
        };
        if version.is_some_and(|version| !is_part(version)) {
            return Err(error(
                "the version of its operating system must be made of letters, digits, `_`, `.` and `-`",
            ));
        }
        Ok(Self {
            os_version: version.map(str::to_owned),
            ..Self::new(os, architecture, variant)?
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if let Some(version) = &self.os_version {
            write!(f, "({version})")?;
        }
        write!(f, "/{}", self.architecture)?;
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
            ("macOS/arm64", "darwin/arm64"),
            ("windows(10.0.17763.6054)/amd64", "windows(10.0.17763.6054)/amd64"),
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
            "windows()/amd64",
            "windows(10/amd64",
            "windows(1 0)/amd64",
        ] {
            assert_eq!(text.parse::<Platform>().unwrap_err().text, text);
        }
    }

    /// Compared with containerd's `platforms.Only`, but for other processors.
    #[test]
    fn the_best_of_what_is_offered_is_taken() {
        let cases: &[(&str, &[&str], Option<&str>)] = &[
            ("linux/amd64", &["linux/amd64/v2", "linux/amd64"], Some("linux/amd64")),
            (
                "linux/amd64",
                &["linux/amd64/v1", "linux/arm64"],
                Some("linux/amd64/v1"),
            ),
            ("linux/amd64", &["linux/amd64/v2"], None),
            ("linux/x86_64", &["linux/386", "linux/amd64"], Some("linux/amd64")),
            ("linux/amd64", &["linux/386"], None),
            (
                "linux/amd64/v3",
                &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"],
                Some("linux/amd64/v2"),
            ),
            ("linux/amd64/v3", &["linux/x86_64"], Some("linux/x86_64")),
            ("linux/arm64", &["linux/arm64/v8"], Some("linux/arm64/v8")),
            ("linux/arm64/v8", &["linux/aarch64"], Some("linux/aarch64")),
            ("linux/aarch64", &["linux/arm64", "linux/arm/v7"], Some("linux/arm64")),
            (
                "linux/arm64/v8.2",
                &["linux/arm64", "linux/arm64/v8.1"],
                Some("linux/arm64/v8.1"),
            ),
            (
                "linux/arm64/v9",
                &["linux/arm64/v8.6", "linux/arm64/v8.5", "linux/arm64"],
                Some("linux/arm64/v8.5"),
            ),
            ("linux/arm64", &["linux/arm/v7"], None),
            ("linux/arm", &["linux/arm/v7"], Some("linux/arm/v7")),
            ("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6"], Some("linux/arm/v6")),
            ("linux/arm/v7", &["linux/arm"], Some("linux/arm")),
            ("linux/armhf", &["linux/arm/v7", "linux/arm/v6"], Some("linux/arm/v7")),
            ("linux/arm/v6", &["linux/arm/v7"], None),
            ("linux/riscv64", &["linux/riscv64"], Some("linux/riscv64")),
            (
                "windows/amd64",
                &["linux/amd64", "windows(10.0.1)/amd64"],
                Some("windows(10.0.1)/amd64"),
            ),
            (
                "windows(10.0.17763)/amd64",
                &[
                    "windows(10.0.177631)/amd64",
                    "windows(10.0.17763.6054)/amd64",
                    "windows/amd64",
                ],
                Some("windows(10.0.17763.6054)/amd64"),
            ),
            ("windows(10.0.20348.2762)/amd64", &["windows(10.0.20348)/amd64"], None),
        ];
        for (wanted, offered, expected) in cases {
            let wanted: Platform = wanted.parse().unwrap();
            let ranked = offered
                .iter()
                .filter_map(|text| Some((wanted.rank(&text.parse().unwrap())?, *text)));
            assert_eq!(ranked.min().map(|(_, text)| text), *expected, "{wanted} of {offered:?}");
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
