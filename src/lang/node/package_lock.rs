//! `package-lock.json` and `npm-shrinkwrap.json` of versions 2 and 3: `packages` names every place in every `node_modules`.
//!
//! Invariant: what comes out has the places of the file and no others; a place that would lead out of the project, or through
//! a link, is an error.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::locked::{Flags, MODULES, Node, NodeKind, Nodes};
use super::platform::Wanted;
use crate::lang::LangError;
use crate::spec::is_npm_name;

/// The versions that are read.
const VERSIONS: std::ops::RangeInclusive<u64> = 2..=3;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LockFile {
    lockfile_version: Option<u64>,
    packages: Option<Unique<Entry>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    name: Option<String>,
    version: Option<String>,
    resolved: Option<String>,
    integrity: Option<String>,
    link: bool,
    in_bundle: bool,
    has_install_script: bool,
    dev: bool,
    optional: bool,
    dev_optional: bool,
    peer: bool,
    bin: Bin,
    os: OneOrMany,
    cpu: OneOrMany,
    libc: OneOrMany,
    dependencies: BTreeMap<String, String>,
    dev_dependencies: BTreeMap<String, String>,
    optional_dependencies: BTreeMap<String, String>,
    peer_dependencies: BTreeMap<String, String>,
    peer_dependencies_meta: BTreeMap<String, PeerMeta>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PeerMeta {
    optional: bool,
}

/// `bin`: one program of the package's name, or some by their names.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Bin {
    One(String),
    Named(BTreeMap<String, String>),
}

impl Default for Bin {
    fn default() -> Self {
        Self::Named(BTreeMap::new())
    }
}

/// A list, of which one element may stand for itself.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    pub(super) fn list(&self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one.clone()],
            Self::Many(many) => many.clone(),
        }
    }
}

/// An object in which no key stands twice: which of them npm takes would depend on its version.
pub(super) struct Unique<T>(pub(super) BTreeMap<String, T>);

impl<T> Default for Unique<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Pairs<T> {
            type Value = Unique<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, T>()? {
                    let twice = format!("`{}` stands there twice", key.escape_debug());
                    if pairs.insert(key, value).is_some() {
                        return Err(A::Error::custom(twice));
                    }
                }
                Ok(Unique(pairs))
            }
        }
        deserializer.deserialize_map(Pairs(PhantomData))
    }
}

/// What the lock file says; `wanted` is what `package.json` depends on.
pub(super) fn parse(text: &str, file: &str, wanted: &BTreeMap<String, String>) -> Result<Nodes, LangError> {
    let read: LockFile = serde_json::from_str(text).map_err(|error| {
        let place = format!("`{file}`, line {}", error.line());
        LangError::at(
            place,
            format!("`{file}` cannot be read: {error}"),
            "run `npm install --package-lock-only`",
        )
    })?;
    let version = read.lockfile_version.unwrap_or(1);
    let packages = match read.packages {
        Some(Unique(packages)) if VERSIONS.contains(&version) => packages,
        _ => {
            let message = format!("it is of version {version}, and versions 2 and 3 are read");
            let help = "run `npm install --package-lock-only` with npm 7 or newer, which writes it anew with the same versions";
            return Err(LangError::at(format!("`{file}`"), message, help));
        }
    };
    check_manifest(&packages, file, wanted)?;
    let mut nodes = Nodes::new();
    for (place, entry) in &packages {
        nodes.insert(place.clone(), node(place, entry, &packages, file)?);
    }
    // What a link leads to says what programs there are.
    let linked: Vec<_> = nodes
        .iter()
        .filter_map(|(place, node)| match &node.kind {
            NodeKind::Link(target) => Some((place.clone(), nodes.get(target)?.bins.clone())),
            _ => None,
        })
        .collect();
    for (place, bins) in linked {
        if let Some(node) = nodes.get_mut(&place) {
            node.bins = bins;
        }
    }
    Ok(nodes)
}

/// The lock file is of these dependencies, as npm has it before it installs from one.
fn check_manifest(
    packages: &BTreeMap<String, Entry>,
    file: &str,
    wanted: &BTreeMap<String, String>,
) -> Result<(), LangError> {
    let stale = |message: String| {
        let help = "run `npm install --package-lock-only`, and commit the lock file with the manifest";
        Err(LangError::at(format!("`{file}`"), message, help))
    };
    let Some(root) = packages.get("") else {
        return stale("it does not say which project it is of".to_owned());
    };
    let locked: BTreeMap<&String, &String> = [
        &root.dependencies,
        &root.dev_dependencies,
        &root.peer_dependencies,
        &root.optional_dependencies,
    ]
    .into_iter()
    .flatten()
    .collect();
    for (name, range) in wanted {
        match locked.get(name) {
            Some(locked) if *locked == range => {}
            Some(locked) => {
                return stale(format!(
                    "`package.json` wants `{name}` {range}, and it is locked for {locked}"
                ));
            }
            None => return stale(format!("`package.json` wants `{name}` {range}, which is not locked")),
        }
    }
    match locked.keys().find(|name| !wanted.contains_key(**name)) {
        Some(name) => stale(format!("it is locked for `{name}`, which `package.json` does not want")),
        None => Ok(()),
    }
}

fn node(place: &str, entry: &Entry, packages: &BTreeMap<String, Entry>, file: &str) -> Result<Node, LangError> {
    let refused = |message: String| {
        let help = "let `npm install --package-lock-only` write the lock file";
        Err(LangError::at(
            format!("`{file}`, `{}`", place.escape_debug()),
            message,
            help,
        ))
    };
    let Some((around, name)) = parts_of(place) else {
        return refused("this is no place in the project".to_owned());
    };
    let kind = match (name, &entry.resolved) {
        (None, _) => NodeKind::Own,
        (Some(_), Some(target)) if entry.link => NodeKind::Link(link_target(target, place, file)?),
        (Some(name), None) if entry.link => return refused(format!("`{name}` is a link that leads nowhere")),
        (Some(_), _) if entry.in_bundle && around.contains(MODULES) => NodeKind::Bundled,
        (Some(_), _) => NodeKind::Package,
    };
    match packages.get(around) {
        Some(around) if around.link => return refused("it lies below a link".to_owned()),
        None if name.is_some() => return refused(format!("it lies below `{around}`, which is not there")),
        _ => {}
    }
    let is_outside = matches!(kind, NodeKind::Package);
    let names = name.into_iter().chain(entry.name.as_deref().filter(|_| is_outside));
    if let Some(name) = names.into_iter().find(|name| !is_npm_name(name)) {
        return refused(format!("`{}` is no name of npm's", name.escape_debug()));
    }
    let name = entry.name.as_deref().or(name).unwrap_or_default();
    let version = entry.version.as_deref().unwrap_or_default();
    if is_outside && !is_version(version) {
        return refused(format!("`{}` is no version of `{name}`", version.escape_debug()));
    }
    Ok(Node {
        name: name.to_owned(),
        version: version.to_owned(),
        kind,
        integrity: entry.integrity.clone(),
        resolved: entry.resolved.clone(),
        bins: bins(name, &entry.bin),
        reads_bins: false,
        has_scripts: Some(entry.has_install_script),
        wanted: Wanted {
            os: entry.os.list(),
            cpu: entry.cpu.list(),
            libc: entry.libc.list(),
        },
        flags: Flags {
            dev: entry.dev,
            optional: entry.optional,
            dev_optional: entry.dev_optional,
            peer: entry.peer,
        },
        needs: needs(entry),
    })
}

/// The place around a place, and the name of the package there; `None` for the name where it is a directory of the project's
/// own, and for all where the place is none.
fn parts_of(place: &str) -> Option<(&str, Option<&str>)> {
    if place.is_empty() {
        return Some(("", None));
    }
    if !is_inside(place) {
        return None;
    }
    let found = match place.rfind("/node_modules/") {
        Some(slash) => Some((&place[..slash], slash + 1)),
        None if place.starts_with("node_modules/") => Some(("", 0)),
        None => None,
    };
    Some(match found {
        Some((around, start)) => (around, Some(&place[start + MODULES.len() + 1..])),
        None => ("", None),
    })
}

/// Whether a path leads to something below where it begins.
pub(super) fn is_inside(path: &str) -> bool {
    let is_plain =
        |part: &str| !matches!(part, "" | "." | "..") && !part.contains(|c: char| c.is_control() || c == '\\');
    path.split('/').all(is_plain)
}

fn link_target(target: &str, place: &str, file: &str) -> Result<String, LangError> {
    if target.is_empty() || is_inside(target) {
        return Ok(target.to_owned());
    }
    let message = format!(
        "it is a link to `{}`, which is outside the project",
        target.escape_debug()
    );
    let help = "make the directory that holds both the `source`, and name the lock file in it";
    Err(LangError::at(format!("`{file}`, `{place}`"), message, help))
}

/// Whether a text may be a version: it stands in names of files.
pub(super) fn is_version(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-+".contains(c);
    text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(plain)
}

/// Programs as npm has them: names without directories, paths that do not lead out (`npm-normalize-package-bin`).
pub(super) fn bins(package: &str, bin: &Bin) -> BTreeMap<String, String> {
    let named: Vec<(&str, &str)> = match bin {
        Bin::One(target) => vec![(package, target)],
        Bin::Named(named) => named
            .iter()
            .map(|(name, target)| (name.as_str(), target.as_str()))
            .collect(),
    };
    let normal = |(name, target): (&str, &str)| {
        let name = name.rsplit(['/', '\\', ':']).next().unwrap_or_default();
        let mut parts = Vec::new();
        for part in target.split(['/', '\\']) {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let is_one = !matches!(name, "" | "." | "..") && !parts.is_empty();
        is_one.then(|| (name.to_owned(), parts.join("/")))
    };
    named.into_iter().filter_map(normal).collect()
}

fn needs(entry: &Entry) -> BTreeMap<String, bool> {
    let optional_peer = |name: &String| entry.peer_dependencies_meta.get(name).is_some_and(|meta| meta.optional);
    let peers = entry
        .peer_dependencies
        .keys()
        .map(|name| (name.clone(), optional_peer(name)));
    let needed = entry.dependencies.keys().chain(entry.dev_dependencies.keys());
    let needed = needed.map(|name| (name.clone(), false));
    let optional = entry.optional_dependencies.keys().map(|name| (name.clone(), true));
    peers.chain(needed).chain(optional).collect()
}
