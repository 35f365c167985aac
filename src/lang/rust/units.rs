//! The *units* of a build: which crates Cargo may compile, and what each is made of.
//!
//! Invariant: a crate has another closure as soon as it or any crate below it has another file.

use std::collections::{BTreeMap, BTreeSet};

use super::cargo_lock::{CargoLock, PackageKey};
use super::{BUILD_DEPENDENCIES, directory};
use crate::digest::Digest;
use crate::lang::{Unit, UnitKind, Units};
use crate::spec::Lock;

/// Number of the rules by which units are told from each other and laid.
const FORMAT: u32 = 1;

/// The units of a step over `skeleton`, whose directories `.cargo` hold what is configured.
pub(super) fn units(lock: &CargoLock, pins: &Lock, skeleton: &BTreeMap<String, Vec<u8>>) -> Units {
    let configured = skeleton
        .iter()
        .filter(|(path, _)| path.split('/').any(|part| part == ".cargo"));
    let configured: String = configured
        .map(|(path, content)| format!("{path} {}\n", Digest::of(content).hex()))
        .collect();
    let scope = format!("{FORMAT}\n{BUILD_DEPENDENCIES}\n{configured}");
    let mut hashes = BTreeMap::new();
    for of in &lock.crates {
        let source = Some(of.source.0.clone());
        hashes.insert((of.name.clone(), of.version.clone(), source), of.checksum);
    }
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
    }
}

/// What a package and all that it needs are made of; `None` where some of it is in the source of the project.
fn closure(lock: &CargoLock, pins: &Lock, key: &PackageKey, hashes: &BTreeMap<PackageKey, Digest>) -> Option<Digest> {
    let mut lines = BTreeSet::new();
    for member in lock.closures.get(key)? {
        let hash = match hashes.get(member) {
            Some(hash) => *hash,
            None => {
                let commit = member.2.as_deref()?.rsplit_once('#')?.1;
                pins.commits
                    .iter()
                    .find(|(known, _)| known.as_str() == commit)?
                    .1
                    .nar_hash
            }
        };
        let (name, version, source) = member;
        lines.insert(format!("{name} {version} {} {}\n", source.as_deref()?, hash.hex()));
    }
    Some(Digest::of(lines.into_iter().collect::<String>().as_bytes()))
}
