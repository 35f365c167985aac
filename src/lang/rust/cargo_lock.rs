//! A *Cargo.lock*: the crates that it pins, with where each comes from and its checksum.
//!
//! Invariant: a crate that comes back has a checksum, or is of a commit; names and versions are fit to be part of a path. Versions 1 to 4 of
//! the format are read.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::git::GitRepository;
use crate::digest::Digest;
use crate::lang::{LangError, read_toml};

/// How the name ends that lock files give to the registry that a crate is from unless a manifest says otherwise.
const DEFAULT_REGISTRY: &str = "/rust-lang/crates.io-index";

/// The newest format that is known.
const VERSION_MAX: u32 = 4;

/// The first format in which what is wanted of a repository is percent-encoded.
const VERSION_ENCODED: u32 = 4;

/// What a lock file pins, without the members of the workspace itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CargoLock {
    /// From registries, sorted by name and version.
    pub(super) crates: Vec<LockedCrate>,
    /// Repositories that crates are taken from, sorted by how the lock file names them.
    pub(super) repositories: Vec<GitRepository>,
    /// Whether one of them depends on a package of the source, as where `[patch]` replaces a crate by a directory.
    pub(super) crates_need_source: bool,
    /// What all its packages are called, those of the source among them.
    pub(super) names: BTreeSet<String>,
    /// The packages that each needs, transitively and itself among them, by name, version and source.
    pub(super) closures: BTreeMap<PackageKey, BTreeSet<PackageKey>>,
}

/// Name, version and source of a package; those of the source of the project have none.
pub(super) type PackageKey = (String, String, Option<String>);

/// A crate of a registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LockedCrate {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) source: CrateSource,
    /// SHA-256 of its file.
    pub(super) checksum: Digest,
}

/// Where a crate comes from, as the lock names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CrateSource(pub(super) String);

impl CrateSource {
    /// Whether it is Rust's own registry.
    pub(super) fn is_default(&self) -> bool {
        let url = self.0.strip_prefix("registry+");
        url.is_some_and(|url| url.ends_with(DEFAULT_REGISTRY))
    }
}

#[derive(Deserialize)]
struct Document {
    version: Option<u32>,
    #[serde(default)]
    package: Vec<LockEntry>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct LockEntry {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
    #[serde(default)]
    dependencies: Vec<String>,
}

impl CargoLock {
    /// Reads the text of `file`.
    pub(super) fn parse(text: &str, file: &str) -> Result<Self, LangError> {
        let document: Document = read_toml(text, file, "run `cargo generate-lockfile`")?;
        if let Some(version) = document.version.filter(|version| *version > VERSION_MAX) {
            let message = format!("version {version} of the lock file's format is not known");
            let help = format!("let `cargo` write version {VERSION_MAX}, or use a newer layerize");
            return Err(LangError::at(format!("`{file}`"), message, help));
        }
        let crates_need_source = crates_need_source(&document.package);
        let names = document.package.iter().map(|entry| entry.name.clone()).collect();
        let closures = closures(&document.package);
        let mut crates = BTreeSet::new();
        let mut repositories = BTreeMap::new();
        for entry in document.package {
            let place = check_entry(&entry, file)?;
            match entry.source.as_deref().and_then(|source| source.strip_prefix("git+")) {
                Some(source) => {
                    let source = source.to_owned();
                    let known = match repositories.entry(source) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(new) => {
                            let encoded = document.version.is_some_and(|version| version >= VERSION_ENCODED);
                            let read = GitRepository::parse(new.key(), encoded).map_err(|reason| {
                                let message = format!("the repository of `{}` cannot be taken: {reason}", entry.name);
                                LangError::at(place, message, "let `cargo` write the lock file anew")
                            })?;
                            new.insert(read)
                        }
                    };
                    known.packages.insert((entry.name, entry.version));
                }
                None => crates.extend(read_entry(entry, place, &document.metadata)?),
            }
        }
        Ok(Self {
            crates: crates.into_iter().collect(),
            repositories: repositories.into_values().collect(),
            crates_need_source,
            names,
            closures,
        })
    }

    /// Where the crates come from, without repetition.
    pub(super) fn sources(&self) -> BTreeSet<&CrateSource> {
        self.crates.iter().map(|of| &of.source).collect()
    }
}

/// What each package needs, transitively and itself among it.
fn closures(packages: &[LockEntry]) -> BTreeMap<PackageKey, BTreeSet<PackageKey>> {
    let mut by_name: BTreeMap<&str, Vec<&LockEntry>> = BTreeMap::new();
    for package in packages {
        by_name.entry(&package.name).or_default().push(package);
    }
    let key = |entry: &LockEntry| (entry.name.clone(), entry.version.clone(), entry.source.clone());
    let closure = |start: &LockEntry| {
        let mut found = BTreeSet::from([key(start)]);
        let mut waiting = vec![start];
        while let Some(package) = waiting.pop() {
            for dependency in &package.dependencies {
                let mut words = dependency.splitn(3, ' ');
                let (name, version, source) = (words.next().unwrap_or_default(), words.next(), words.next());
                let source = source.map(|source| without_commit(source.trim_start_matches('(').trim_end_matches(')')));
                // Of several that may be meant all count.
                let meant = by_name.get(name).into_iter().flatten();
                let meant = meant.filter(|other| version.is_none_or(|version| version == other.version));
                let is_source = |other: &LockEntry| {
                    let own = other.source.as_deref().map(without_commit);
                    source.is_none_or(|source| own == Some(source))
                };
                waiting.extend(
                    meant
                        .filter(|other| is_source(other))
                        .filter(|other| found.insert(key(other))),
                );
            }
        }
        found
    };
    packages
        .iter()
        .map(|package| (key(package), closure(package)))
        .collect()
}

fn without_commit(source: &str) -> &str {
    source.split_once('#').map_or(source, |(source, _)| source)
}

/// Whether a package from elsewhere depends on one of the source. A dependency is written as its name, with its version and
/// where it comes from as far as that is needed to tell it from others.
fn crates_need_source(packages: &[LockEntry]) -> bool {
    let own = |dependency: &String| {
        let mut words = dependency.split(' ');
        let (name, version, source) = (words.next(), words.next(), words.next());
        let meant = packages.iter().filter(|package| Some(package.name.as_str()) == name);
        let mut meant = meant.filter(|package| version.is_none_or(|version| version == package.version));
        source.is_none() && meant.any(|package| package.source.is_none())
    };
    let others = packages.iter().filter(|package| package.source.is_some());
    others.flat_map(|package| &package.dependencies).any(own)
}

/// Sees to it that a name and a version are fit to be part of a path; gives the entry's place in the lock file.
fn check_entry(entry: &LockEntry, file: &str) -> Result<String, LangError> {
    let place = format!("`{file}`, package `{} {}`", entry.name, entry.version);
    let plain =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_+.".contains(&b));
    if !plain(&entry.name) || !plain(&entry.version) || entry.name.starts_with('.') {
        let message = "a package's name or version holds what neither can hold";
        return Err(LangError::at(place, message, "let `cargo` write the lock file anew"));
    }
    Ok(place)
}

/// The crate of an entry; `None` for one that is part of the source itself.
fn read_entry(
    entry: LockEntry,
    place: String,
    metadata: &BTreeMap<String, String>,
) -> Result<Option<LockedCrate>, LangError> {
    let Some(source) = entry.source else { return Ok(None) };
    if source.contains(|c: char| c.is_control() || c == '"' || c == '\\') {
        let message = "the place that a package comes from is not an address";
        return Err(LangError::at(place, message, "let `cargo` write the lock file anew"));
    }
    // The first format keeps checksums apart.
    let apart = metadata.get(&format!("checksum {} {} ({source})", entry.name, entry.version));
    let Some(checksum) = entry.checksum.as_ref().or(apart) else {
        let message = format!("`{} {}` has no checksum", entry.name, entry.version);
        return Err(LangError::at(
            place,
            message,
            "run `cargo update` with a registry that states checksums",
        ));
    };
    let Ok(checksum) = Digest::from_hex(checksum) else {
        let message = format!("the checksum of `{} {}` is no SHA-256", entry.name, entry.version);
        return Err(LangError::at(place, message, "let `cargo` write the lock file anew"));
    };
    Ok(Some(LockedCrate {
        name: entry.name,
        version: entry.version,
        source: CrateSource(source),
        checksum,
    }))
}
