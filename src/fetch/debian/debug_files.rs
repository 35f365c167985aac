//! *Debug files* of Debian packages: the packages that have them, where the configured sources know any.
//!
//! Invariant: none of them is needed. What is locked is of the very version that the package is locked in, and stays while that
//! does; archives are asked only where they were asked for something else.

use std::collections::BTreeMap;

use super::apt::Apt;
use super::archives::Archives;
use super::solve::{Debs, Request, locked, records_of};
use super::sources::{AptSources, Kind};
use crate::fetch::{FetchError, LockEntry};

/// Adds to `debs` those packages of `wanted` (by the package whose debug files they have) that there are.
pub(in crate::fetch) fn add(
    debs: &mut Debs,
    wanted: &BTreeMap<String, String>,
    request: &Request<'_>,
) -> Result<(), FetchError> {
    let mut missing = BTreeMap::new();
    for (name, files) in wanted {
        let Some(version) = debs.debs.get(name).map(|deb| deb.version.clone()) else {
            continue;
        };
        let set = vec![files.clone()];
        let known = debs.debs.get(files).or_else(|| request.old.debs.get(files));
        let known = known.filter(|deb| deb.version == version && !request.update.takes(LockEntry::Deb(files)));
        match known.cloned() {
            Some(deb) => {
                debs.debs.entry(files.clone()).or_insert(deb);
                debs.deb_sets.insert(set, vec![files.clone()]);
            }
            None => drop(missing.insert(files.clone(), version)),
        }
    }
    if missing.is_empty() || !debs.asked {
        return Ok(());
    }
    let sources = AptSources {
        architecture: debs.architecture.clone(),
        ..request.sources.clone()
    };
    // Its lists are those that were just fetched.
    let apt = Apt::open(&request.config.apt_state, &sources, Kind::Binary)?;
    let found = records_of(&apt, &missing)?.readable;
    missing.retain(|files, _| found.contains_key(files));
    let archives = Archives::read(&apt)?.carrying(&apt, &missing)?;
    for (files, record) in found {
        let mut deb = locked(&record);
        deb.archive = archives.get(&files).cloned();
        debs.debs.insert(files.clone(), deb);
        debs.deb_sets.insert(vec![files.clone()], vec![files]);
    }
    Ok(())
}
