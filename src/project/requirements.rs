//! What *requirements* leave open: the file of each Python project, which the lock names.
//!
//! Invariant: a file that is pinned stays as long as its requirement allows it and it fits; what was restored from what is
//! kept beside an image has its lock as it was, and no sources to read.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Event, Reporter};
use crate::fetch::local::LocalSource;
use crate::fetch::{self, FetchConfig, Listing, LockEntry, Update};
use crate::lang::{self, OpenProject, Request, SourceTree};
use crate::spec::{Diagnostics, Lock, LockedPython, PackageName};

use super::{Project, ProjectError};

/// Why the lock does not name the files that requirements leave open, a line each. The lock must be current otherwise. What
/// was restored from what is kept beside an image has its lock as it was, and no sources to read.
pub(super) fn stale(project: &Project) -> Result<Vec<String>, ProjectError> {
    let mut wrong = Vec::new();
    if project.is_restored() {
        return Ok(wrong);
    }
    let mut needed = BTreeSet::new();
    for (package, open) in open(project, &project.lock)? {
        let (name, version) = (open.name.clone(), &open.version);
        let key = (package, name);
        if !project.lock.python.get(&key).is_some_and(|pin| open.is_settled_by(pin)) {
            wrong.push(format!(
                "missing: the file of Python's `{} {version}` for package `{}`",
                key.1, key.0
            ));
        }
        needed.insert(key);
    }
    let superfluous = project.lock.python.keys().filter(|key| !needed.contains(key));
    let superfluous = superfluous
        .map(|(package, name)| format!("no longer needed: the file of Python's `{name}` for package `{package}`"));
    wrong.extend(superfluous);
    Ok(wrong)
}

/// Pins the files that requirements leave open in a lock that has all else: what is pinned stays unless `update` takes it
/// or it does not fit any more.
pub(super) fn pin(
    project: &Project,
    lock: &mut Lock,
    update: &Update,
    config: &FetchConfig,
    reporter: &dyn Reporter,
) -> Result<(), ProjectError> {
    if project.is_restored() {
        return Ok(());
    }
    let (mut pinned, mut wanted) = (BTreeMap::new(), Vec::new());
    for (package, open) in open(project, lock)? {
        let key = (package, open.name.clone());
        match lock.python.get(&key).filter(|pin| open.is_settled_by(pin)) {
            Some(pin) if !update.takes(LockEntry::Other(&key.1)) => {
                pinned.insert(key, pin.clone());
            }
            _ => wanted.push((key, open)),
        }
    }
    let projects: Vec<_> = wanted
        .iter()
        .map(|(_, open)| (open.name.clone(), open.indexes.clone()))
        .collect();
    let listings = fetch::list_python_files(&projects, config, reporter)?;
    let mut errors = Vec::new();
    for ((key, open), listing) in wanted.into_iter().zip(listings) {
        let files: Vec<_> = listing
            .files
            .iter()
            .map(|file| (file.name.as_str(), &file.hashes))
            .collect();
        let asked = listing.asked.iter().map(|(place, answer)| match answer {
            Some(answer) => format!("{place} ({answer})"),
            None => place.clone(),
        });
        match open.choose(&files, &asked.collect::<Vec<_>>().join(", ")) {
            Ok(pin) => {
                warn_if_withdrawn(&listing, &pin, &open, reporter);
                pinned.insert(key, pin);
            }
            Err(error) => errors.push(error.diagnostic(&project.workspace.packages[&key.0])),
        }
    }
    if !errors.is_empty() {
        return Err(Diagnostics::new(errors, project.workspace.files.clone()).into());
    }
    lock.python = pinned;
    Ok(())
}

/// Says that a file was withdrawn (yanked), which hinders nobody who has pinned it.
fn warn_if_withdrawn(listing: &Listing, pin: &LockedPython, open: &OpenProject, reporter: &dyn Reporter) {
    let file = listing
        .files
        .iter()
        .find(|file| file.name == pin.file && file.hashes.contains(&pin.hash));
    if let Some(why) = file.and_then(|file| file.withdrawn.as_ref()) {
        let why = if why.is_empty() {
            String::new()
        } else {
            format!(": {why}")
        };
        let text = format!(
            "`{} {}` was withdrawn by its project{why}; lock another version",
            open.name, open.version
        );
        reporter.report(Event::Warning { text });
    }
}

/// What the requirements of all packages leave open, read where the sources are on this machine.
fn open(project: &Project, lock: &Lock) -> Result<Vec<(PackageName, OpenProject)>, ProjectError> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for (name, package) in &project.workspace.packages {
        let (Some(language), Some(source)) = (&package.language, LocalSource::of(package)) else {
            continue;
        };
        let request = Request {
            package,
            language: &language.value,
            lock,
            source: &SourceTree::new(source.dir.join(source.path)),
        };
        match lang::open_projects(&request) {
            Ok(open) => found.extend(open.into_iter().map(|open| (name.clone(), open))),
            Err(error) => errors.push(error.diagnostic(package)),
        }
    }
    match errors.is_empty() {
        true => Ok(found),
        false => Err(Diagnostics::new(errors, project.workspace.files.clone()).into()),
    }
}
