//! The *members* of a build: the packages of the source of which Cargo's units may be kept, and what each needs.
//!
//! Invariant: none are named where something of the source or the spec lets what Cargo compiles depend on files that no
//! compiler tells of: a script of the user's own, the configuration's linkers and flags, variables of Cargo and its compiler.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::cargo_lock::{CargoLock, PackageKey};
use super::units;
use super::workspace::CargoWorkspace;
use crate::digest::Digest;
use crate::lang::{Member, Members, Request};

/// Tables of Cargo's configuration that have no say in what a compiler is told.
const HARMLESS: &[&str] = &[
    "alias",
    "cache",
    "cargo-new",
    "future-incompat-report",
    "http",
    "install",
    "net",
    "profile",
    "registries",
    "registry",
    "resolver",
    "source",
    "term",
];

/// What variables that Cargo or its compiler reads begin with, and those of them that name no files.
const VARIABLES: &[&str] = &["CARGO", "RUST"];
const HARMLESS_VARIABLES: &[&str] = &["CARGO_PROFILE_", "CARGO_TERM_", "RUST_BACKTRACE", "RUST_LOG"];

/// The members of a package whose files Cargo reads as `workspace` and `skeleton` say; `None` where there is but one, or where
/// not everything is known that their units depend on.
pub(super) fn members(
    request: &Request<'_>,
    (root, lock): (&str, &CargoLock),
    workspace: &CargoWorkspace<'_>,
    skeleton: &BTreeMap<String, Vec<u8>>,
) -> Option<Members> {
    let package = request.package;
    let mut variables = package.env.keys();
    if lock.crates_need_source
        || package.script.is_some()
        || !package.cache_dirs.is_empty()
        || variables.any(|name| counts(name))
        || !skeleton.iter().all(|(path, text)| is_harmless(path, text))
    {
        return None;
    }
    let dirs = workspace.packages();
    let own: BTreeMap<&str, &PackageKey> = (lock.closures.keys())
        .filter(|(_, _, source)| source.is_none())
        .map(|key| (key.0.as_str(), key))
        .collect();
    let mut names = lock.closures.keys().map(|(name, _, _)| name);
    // Cargo's units are told from each other by the names of their packages.
    let is_ambiguous = names.any(|name| own.contains_key(name.as_str()) && names_of(lock, name) > 1);
    let repeated = dirs.values().collect::<BTreeSet<_>>().len() < dirs.len();
    let is_known = own.keys().all(|name| dirs.values().any(|known| known == name));
    if is_ambiguous || repeated || !is_known || own.len() < 2 {
        return None;
    }
    let shared = workspace.shared_text();
    let hashes = units::hashes(lock);
    let mut packages = BTreeMap::new();
    for (dir, name) in &dirs {
        let Some(key) = own.get(name.as_str()) else { continue };
        let mut text = format!("{shared}\n{name}\n");
        for below in lock.closures.get(*key)? {
            let line = match below.2 {
                Some(_) => units::line(request.lock, below, &hashes)?,
                None => format!("{} {}\n", below.0, below.1),
            };
            let _ = write!(text, "{line}");
        }
        let member = Member {
            dir: dir.clone(),
            closure: Digest::of(text.as_bytes()),
        };
        packages.insert(name.clone(), member);
    }
    Some(Members {
        root: root.to_owned(),
        dirs: dirs.into_keys().collect(),
        packages,
        needs: Arc::new(needs(lock)),
    })
}

fn names_of(lock: &CargoLock, name: &str) -> usize {
    lock.closures.keys().filter(|key| key.0 == name).count()
}

/// The names of all that each package of the lock file needs, its own among them.
fn needs(lock: &CargoLock) -> BTreeMap<String, BTreeSet<String>> {
    let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for ((name, _, _), closure) in &lock.closures {
        let names = closure.iter().map(|(name, _, _)| name.clone());
        needs.entry(name.clone()).or_default().extend(names);
    }
    needs
}

/// Whether a variable may name files that a compiler reads.
fn counts(variable: &str) -> bool {
    let begins = |with: &[&str]| with.iter().any(|start| variable.starts_with(start));
    begins(VARIABLES) && !begins(HARMLESS_VARIABLES)
}

/// Whether a file is none by which Cargo's configuration changes what a compiler is told.
fn is_harmless(path: &str, text: &[u8]) -> bool {
    let configuration = [".cargo/config", ".cargo/config.toml"];
    if !configuration
        .iter()
        .any(|name| path == *name || path.ends_with(&format!("/{name}")))
    {
        return true;
    }
    let table = std::str::from_utf8(text)
        .ok()
        .and_then(|text| toml::from_str::<toml::Table>(text).ok());
    table.is_some_and(|table| table.keys().all(|key| HARMLESS.contains(&key.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_compiler_is_told_of_counts() {
        for (name, expected) in [
            ("RUSTFLAGS", true),
            ("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER", true),
            ("CARGO_ENCODED_RUSTFLAGS", true),
            ("RUSTC", true),
            ("CARGO_PROFILE_RELEASE_LTO", false),
            ("RUST_BACKTRACE", false),
            ("GREETING", false),
        ] {
            assert_eq!(counts(name), expected, "{name}");
        }
        for (path, text, expected) in [
            (
                ".cargo/config.toml",
                "[alias]\nxtask = \"run\"\n[net]\nretry = 3\n",
                true,
            ),
            (
                ".cargo/config.toml",
                "[build]\nrustflags = [\"-Clink-arg=-Tx\"]\n",
                false,
            ),
            ("api/.cargo/config", "[target.'cfg(unix)']\nlinker = \"x\"\n", false),
            ("api/.cargo/config.toml", "[env]\nX = { value = \"x\" }\n", false),
            (".cargo/config.toml", "[broken", false),
            (".cargo/other.toml", "[build]\n", true),
            ("Cargo.toml", "[build]\n", true),
        ] {
            assert_eq!(is_harmless(path, text.as_bytes()), expected, "{path} {text}");
        }
    }
}
