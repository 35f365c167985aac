//! The *toolchain* that a project asks for, beside the one that it gets: Debian's, as `layerize.lock` pins it.
//!
//! Invariant: what cannot be compiled is an error before anything is; what is only another version than the project's own
//! tools would take is told.

use super::workspace::CargoWorkspace;
use crate::lang::{LangError, SourceTree};
use crate::spec::Lock;

/// The Debian package whose version is the compiler's.
const COMPILER: &str = "rustc-web";

/// What rustup reads, the first that is there.
const FILES: &[&str] = &["rust-toolchain", "rust-toolchain.toml"];

/// A version of Rust: up to three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RustVersion([u32; 3]);

impl RustVersion {
    /// Reads the numbers at the start of a text: of `1.96.0+dfsg1-2`, of `1.90`, of `1.85-beta`.
    fn parse(text: &str) -> Option<Self> {
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let mut numbers = [0; 3];
        let mut parts = text[..end].split('.');
        for (index, number) in numbers.iter_mut().enumerate() {
            match parts.next() {
                Some(part) => *number = part.parse().ok()?,
                None if index > 0 => break,
                None => return None,
            }
        }
        Some(Self(numbers))
    }

    /// The compiler of a lock; `None` where it has none yet.
    pub(super) fn of_lock(lock: &Lock) -> Option<Self> {
        // What stands before the colon is Debian's epoch.
        let version = lock.debs.get(COMPILER)?.version.as_str();
        Self::parse(version.split_once(':').map_or(version, |(_, version)| version))
    }
}

impl std::fmt::Display for RustVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// Whether a member says that it needs a newer compiler (`rust-version`) than the lock has.
pub(super) fn check(workspace: &CargoWorkspace<'_>, lock: &Lock) -> Result<(), LangError> {
    let Some(own) = RustVersion::of_lock(lock) else {
        return Ok(());
    };
    for (place, wanted) in workspace.rust_versions() {
        if RustVersion::parse(wanted).is_some_and(|wanted| wanted > own) {
            let message = format!("it needs Rust {wanted}, and the lock's `{COMPILER}` is {own}");
            let help = format!(
                "`layerize lock --update {COMPILER} cargo-web` takes the newest that Debian has; else lower `rust-version`, \
                 or have a toolchain of your own among `tools` and a `script` that calls it"
            );
            return Err(LangError::at(format!("`{place}`, `rust-version`"), message, help));
        }
    }
    Ok(())
}

/// What is to be told of a toolchain file of the source: that another compiler than it names is used.
pub(super) fn told(source: &SourceTree, root: &str, lock: &Lock) -> Result<Option<String>, LangError> {
    let Some(own) = RustVersion::of_lock(lock) else {
        return Ok(None);
    };
    for file in FILES {
        let path = match root {
            "" => (*file).to_owned(),
            root => format!("{root}/{file}"),
        };
        let Some(text) = source.text(&path)? else { continue };
        let channel = channel(&text);
        let is_same = RustVersion::parse(&channel) == Some(own) || channel == "stable";
        return Ok((!is_same && !channel.is_empty()).then(|| {
            let newer = match RustVersion::parse(&channel) {
                Some(wanted) if wanted > own => ", which is older",
                Some(_) => "",
                None => ", which has no features that are not stable",
            };
            format!("`{path}` asks for Rust {channel}; it is compiled with the lock's `{COMPILER}` {own}{newer}")
        }));
    }
    Ok(None)
}

/// The channel that a toolchain file names: a table, or in the old form the name alone.
fn channel(text: &str) -> String {
    let table: Option<toml::Table> = toml::from_str(text).ok();
    let named = table
        .as_ref()
        .and_then(|table| table.get("toolchain")?.get("channel")?.as_str());
    let old = text
        .lines()
        .find(|line| !line.trim().is_empty())
        .filter(|_| table.is_none());
    named.or(old).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let parse = |text| RustVersion::parse(text);
        assert_eq!(parse("1.96.0+dfsg1-2~deb12u1"), Some(RustVersion([1, 96, 0])));
        assert_eq!(parse("1.90"), Some(RustVersion([1, 90, 0])));
        assert!(parse("1.100") > parse("1.99.9"));
        for none in ["nightly", "", "stable", ".1"] {
            assert_eq!(parse(none), None, "{none}");
        }
    }

    #[test]
    fn both_forms_of_a_toolchain_file_are_read() {
        for (text, expected) in [
            ("[toolchain]\nchannel = \"1.98.0\"\n", "1.98.0"),
            ("nightly-2026-01-01\n", "nightly-2026-01-01"),
            ("[toolchain]\ncomponents = []\n", ""),
            ("", ""),
        ] {
            assert_eq!(channel(text), expected);
        }
    }
}
