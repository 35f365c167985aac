//! The *units* of a build: which crates Cargo may compile, and what each is made of.
//!
//! Invariant: a crate has another closure as soon as it or any crate below it has another file.

use std::collections::{BTreeMap, BTreeSet};

use super::cargo_lock::{CargoLock, LockedCrate, PackageKey};
use super::{BUILD, BUILD_DEPENDENCIES, directory};
use crate::digest::Digest;
use crate::lang::{Members, Unit, UnitKind, Units};
use crate::spec::Lock;

/// Number of the rules by which units are told from each other and laid.
const FORMAT: u32 = 1;

/// Number of the rules by which those of packages of the source are.
const MEMBERS_FORMAT: u32 = 2;

/// The units of a step over `skeleton`, whose directories `.cargo` hold what is configured.
pub(super) fn units(lock: &CargoLock, pins: &Lock, skeleton: &BTreeMap<String, Vec<u8>>) -> Units {
    let configured = skeleton
        .iter()
        .filter(|(path, _)| path.split('/').any(|part| part == ".cargo"));
    let configured: String = configured
        .map(|(path, content)| format!("{path} {}\n", Digest::of(content).hex()))
        .collect();
    let scope = format!("{FORMAT}\n{BUILD_DEPENDENCIES}\n{configured}");
    let hashes = hashes(lock);
    let mut crates = BTreeMap::new();
    for of in &lock.crates {
        let key = (of.name.clone(), of.version.clone(), Some(of.source.0.clone()));
        let at = format!("{}/{}-{}", directory(&of.source), of.name, of.version);
        let unit = closure(lock, pins, &key, &hashes).map(|closure| Unit {
            own: of.checksum,
            closure,
            at: Some(at),
        });
        crates.extend(unit.map(|unit| (format!("{}#{}@{}", of.source.0, of.name, of.version), unit)));
    }
    for repository in &lock.repositories {
        for (name, version) in &repository.packages {
            let source = repository.source();
            let key = (
                name.clone(),
                version.clone(),
                Some(format!("{source}#{}", repository.tree.commit)),
            );
            let Some(closure) = closure(lock, pins, &key, &hashes) else {
                continue;
            };
            // Cargo leaves out the name where the address ends in it.
            let id = match repository.ends_in(name) {
                true => format!("{source}#{version}"),
                false => format!("{source}#{name}@{version}"),
            };
            let unit = Unit {
                own: closure,
                closure,
                at: None,
            };
            crates.insert(id, unit);
        }
    }
    Units {
        kind: UnitKind::Cargo,
        scope: Digest::of(scope.as_bytes()),
        crates,
        members: None,
    }
}

/// The units of the step that compiles the packages of the source, over the same crates.
pub(super) fn of_members(crates: &Units, members: Members) -> Units {
    let scope = format!("{MEMBERS_FORMAT}\n{BUILD}\n{}", crates.scope.hex());
    Units {
        scope: Digest::of(scope.as_bytes()),
        members: Some(members),
        ..crates.clone()
    }
}

/// The hashes of the registries' crates.
pub(super) fn hashes(lock: &CargoLock) -> BTreeMap<PackageKey, Digest> {
    let crates = lock.crates.iter();
    let key = |of: &LockedCrate| (of.name.clone(), of.version.clone(), Some(of.source.0.clone()));
    crates.map(|of| (key(of), of.checksum)).collect()
}

/// What a package and all that it needs are made of; `None` where some of it is in the source of the project.
fn closure(lock: &CargoLock, pins: &Lock, key: &PackageKey, hashes: &BTreeMap<PackageKey, Digest>) -> Option<Digest> {
    let members = lock.closures.get(key)?.iter();
    let lines: BTreeSet<String> = members
        .map(|member| line(pins, member, hashes))
        .collect::<Option<_>>()?;
    Some(Digest::of(lines.into_iter().collect::<String>().as_bytes()))
}

/// What a package is made of that is not in the source of the project.
pub(super) fn line(pins: &Lock, key: &PackageKey, hashes: &BTreeMap<PackageKey, Digest>) -> Option<String> {
    let (name, version, source) = key;
    let source = source.as_deref()?;
    let hash = match hashes.get(key) {
        Some(hash) => *hash,
        None => {
            let commit = source.rsplit_once('#')?.1;
            let mut pinned = pins.commits.iter();
            pinned.find(|(known, _)| known.as_str() == commit)?.1.nar_hash
        }
    };
    Some(format!("{name} {version} {source} {}\n", hash.hex()))
}
