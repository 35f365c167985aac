//! *Verification* compares what the database says with what is on disk.
//!
//! Invariant: it changes nothing, takes no lock for long, and a problem names the path and, where the disk still
//! tells, the file in it. What cannot be mended (see [`Store::note_damage`]) is forgotten, and built again when it is
//! needed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use super::add::move_away;
use super::canonical::deviation;
use super::database::{Addressing, Registration};
use super::error::StoreError;
use super::evidence::printable;
use super::modulo::ModuloHasher;
use super::{Store, session};
use crate::digest::{Digest, HashingWriter};
use crate::fsio::{IoContext, LockKind, sorted_names};
use crate::nar::{self, EntryKind, NarError};
use crate::store_path::{StoreDir, StorePath, content_addressed, fixed_file};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreProblem {
    /// SQLite found something wrong with its file.
    Database {
        /// What, in one sentence.
        finding: String,
    },
    /// A valid path's tree is gone.
    Missing {
        /// The path.
        path: StorePath,
    },
    /// A valid path's tree cannot be read: nobody can say what it is.
    Unreadable {
        /// The path.
        path: StorePath,
        /// Why.
        how: String,
    },
    /// A valid path's tree is not what was registered.
    Modified {
        /// The path.
        path: StorePath,
        /// The first file in it that shows that it was written to, where one does.
        file: Option<String>,
        /// How it differs.
        how: String,
    },
    /// Something in `store/` is not a valid path.
    Unregistered {
        /// Its name.
        name: String,
    },
    /// A path refers to one that is not valid.
    BadReference {
        /// The path.
        path: StorePath,
        /// What it refers to.
        target: StorePath,
    },
    /// A path is not the one that its content gives.
    WrongAddress {
        /// The path.
        path: StorePath,
        /// The path that it should have.
        expected: StorePath,
    },
}

impl fmt::Display for StoreProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database { finding } => write!(f, "the database is damaged: {finding}"),
            Self::Missing { path } => write!(f, "`{path}` is missing on disk"),
            Self::Unreadable { path, how } => write!(f, "`{path}` cannot be read: {how}"),
            Self::Modified { path, file: None, how } => write!(f, "`{path}` was modified: {how}"),
            Self::Modified {
                path,
                file: Some(file),
                how,
            } => write!(f, "`{path}` was modified: `{file}`: {how}"),
            Self::Unregistered { name } => write!(f, "`{name}` is in the store, but no valid path"),
            Self::BadReference { path, target } => write!(f, "`{path}` refers to `{target}`, which is not valid"),
            Self::WrongAddress { path, expected } => write!(f, "`{path}` has the content of `{expected}`"),
        }
    }
}

impl StoreProblem {
    /// The valid path that is not as it should be.
    pub fn path(&self) -> Option<&StorePath> {
        match self {
            Self::Missing { path }
            | Self::Unreadable { path, .. }
            | Self::Modified { path, .. }
            | Self::BadReference { path, .. }
            | Self::WrongAddress { path, .. } => Some(path),
            Self::Database { .. } | Self::Unregistered { .. } => None,
        }
    }

    /// The path whose registration is right and whose tree is not: made again, all is well.
    pub fn mendable(&self) -> Option<&StorePath> {
        match self {
            Self::Missing { path } | Self::Unreadable { path, .. } | Self::Modified { path, .. } => Some(path),
            _ => None,
        }
    }
}

impl Store {
    /// Compares everything that is registered with the disk: that it is there and that modes and times say that
    /// nothing wrote to it; with `contents` also every byte. Problems come sorted by path.
    pub fn verify(&self, contents: bool) -> Result<Vec<StoreProblem>, StoreError> {
        let findings = self.database.check()?.into_iter();
        let mut problems: Vec<StoreProblem> = findings.map(|finding| StoreProblem::Database { finding }).collect();
        let all = self.database.registrations()?;
        for registration in all.values() {
            self.verify_path(registration, &all, contents, &mut problems)?;
        }
        problems.extend(self.foreign(&all)?);
        Ok(problems)
    }

    /// As [`verify`](Self::verify) for these paths alone; one that is not registered is an error.
    pub fn verify_paths(&self, paths: &BTreeSet<StorePath>, contents: bool) -> Result<Vec<StoreProblem>, StoreError> {
        let all = self.database.registrations()?;
        let mut problems = Vec::new();
        for path in paths {
            let registration = all.get(path).ok_or_else(|| StoreError::NotValid {
                path: path.clone(),
                needed_by: None,
            })?;
            self.verify_path(registration, &all, contents, &mut problems)?;
        }
        Ok(problems)
    }

    fn verify_path(
        &self,
        registration: &Registration,
        all: &BTreeMap<StorePath, Registration>,
        contents: bool,
        problems: &mut Vec<StoreProblem>,
    ) -> Result<(), StoreError> {
        let path = &registration.path;
        for target in registration
            .references
            .keys()
            .filter(|&target| !all.contains_key(target))
        {
            problems.push(StoreProblem::BadReference {
                path: path.clone(),
                target: target.clone(),
            });
        }
        if let Some(expected) = expected_path(&self.store_dir, registration)?.filter(|expected| expected != path) {
            problems.push(StoreProblem::WrongAddress {
                path: path.clone(),
                expected,
            });
        }
        let tree = self.physical(path);
        let problem = match fs::symlink_metadata(&tree) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(StoreProblem::Missing { path: path.clone() }),
            _ => self.lasting(|| examine(&tree, registration, contents))?,
        };
        // A collection that runs meanwhile is no problem.
        if let Some(problem) = problem
            && self.database.info(path)?.is_some()
        {
            problems.push(problem);
        }
        Ok(())
    }

    /// What lies in `store/` without being a valid path.
    fn foreign(&self, all: &BTreeMap<StorePath, Registration>) -> Result<Vec<StoreProblem>, StoreError> {
        // Nobody is just about to register a tree while this is held.
        let _lock = if self.database.read_only() {
            None
        } else {
            Some(self.lock(LockKind::Shared)?)
        };
        let building = match self.database.read_only() {
            true => BTreeSet::new(),
            false => session::building(&self.tmp())?,
        };
        let expected = |path: StorePath| all.contains_key(&path) || building.contains(&path);
        let valid = |name: &str| name.parse().is_ok_and(expected);
        let mut problems = Vec::new();
        for name in sorted_names(&self.dir.join("store"))? {
            let name = name.to_string_lossy().into_owned();
            if valid(&name) {
                continue;
            }
            // It may have become valid since `all` was read.
            let registered = match name.parse() {
                Ok(path) => self.database.info(&path)?.is_some(),
                Err(_) => false,
            };
            if !registered {
                problems.push(StoreProblem::Unregistered { name });
            }
        }
        Ok(problems)
    }

    /// Forgets the paths of `problems` and all paths that refer to them, and removes trees that are no valid
    /// paths; gives the paths forgotten. They are built again when they are needed.
    pub fn repair(&self, problems: &[StoreProblem]) -> Result<BTreeSet<StorePath>, StoreError> {
        let session = self.session()?;
        let mut doomed = Vec::new();
        let forgotten = {
            let _lock = self.lock(LockKind::Exclusive)?;
            let all = self.database.registrations()?;
            let broken = problems
                .iter()
                .filter_map(StoreProblem::path)
                .filter(|&path| all.contains_key(path));
            let forgotten = with_referrers(&all, broken.cloned().collect());
            self.database.forget(&forgotten)?;
            self.forget_damage(&forgotten);
            for path in forgotten.iter().cloned().chain(self.unregistered()?) {
                let away = session.fresh_path();
                if move_away(&self.physical(&path), &away)? {
                    doomed.push(away);
                }
            }
            forgotten
        };
        for tree in doomed {
            self.discard(&tree);
        }
        Ok(forgotten)
    }
}

/// `paths` and everything that refers to them, directly or not.
fn with_referrers(all: &BTreeMap<StorePath, Registration>, mut paths: BTreeSet<StorePath>) -> BTreeSet<StorePath> {
    loop {
        let before = paths.len();
        for registration in all.values() {
            if registration.references.keys().any(|target| paths.contains(target)) {
                paths.insert(registration.path.clone());
            }
        }
        if paths.len() == before {
            return paths;
        }
    }
}

/// The path that the registered hashes give; `None` where the path does not come from its content.
pub(super) fn expected_path(dir: &StoreDir, registration: &Registration) -> Result<Option<StorePath>, StoreError> {
    let name = registration.path.name();
    let info = registration.info();
    Ok(match &registration.addressing {
        Addressing::Tree(hash) => Some(content_addressed(
            dir,
            name,
            hash,
            &info.references,
            info.self_reference,
        )?),
        Addressing::File(hash) => Some(fixed_file(dir, name, hash)?),
        Addressing::Derivation => None,
    })
}

/// What is wrong with a tree. That it cannot be read is one of the things that can be.
fn examine(tree: &Path, registration: &Registration, contents: bool) -> Option<StoreProblem> {
    let examined = first_deviation(tree).and_then(|deviation| match deviation {
        None if contents => Ok(differing_contents(tree, registration)?.map(|how| (None, how))),
        other => Ok(other),
    });
    let path = registration.path.clone();
    match examined {
        Ok(None) => None,
        Ok(Some((file, how))) => Some(StoreProblem::Modified { path, file, how }),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            let how = format!("{error}{}", cause.unwrap_or_default());
            // What has no archive cannot have been registered; what the disk does not give may be as it was, and so may
            // what cannot be opened since the whole store was moved to a longer path.
            Some(match error {
                StoreError::Tree(NarError::TooLong { .. }) => StoreProblem::Unreadable { path, how },
                StoreError::Tree(_) => StoreProblem::Modified { path, file: None, how },
                _ => StoreProblem::Unreadable { path, how },
            })
        }
    }
}

/// The first entry that something wrote to, as far as modes and times tell.
fn first_deviation(tree: &Path) -> Result<Option<(Option<String>, String)>, StoreError> {
    for entry in nar::walk(tree) {
        let entry = entry?;
        if let Some(how) = deviation(&entry.below(tree), &entry.kind)? {
            return Ok(Some((
                Some(printable(&entry.path)).filter(|file| !file.is_empty()),
                how,
            )));
        }
    }
    Ok(None)
}

/// How a tree's bytes differ from the registered ones.
fn differing_contents(tree: &Path, registration: &Registration) -> Result<Option<String>, StoreError> {
    let (hash, size) = nar::hash(tree)?;
    if (hash, size) != (registration.nar_hash, registration.nar_size) {
        return Ok(Some(format!(
            "its archive has hash {hash} and {size} bytes, not {} and {}",
            registration.nar_hash, registration.nar_size
        )));
    }
    differing_address(tree, registration)
}

/// How a tree, whose archive has the registered hash, is not what its path is computed from.
pub(super) fn differing_address(tree: &Path, registration: &Registration) -> Result<Option<String>, StoreError> {
    let (expected, actual) = match &registration.addressing {
        Addressing::Derivation => return Ok(None),
        Addressing::File(expected) => (expected, file_hash(tree)?),
        Addressing::Tree(expected) if !registration.info().self_reference => (expected, registration.nar_hash),
        Addressing::Tree(expected) => {
            let mut hasher = ModuloHasher::new(Some(registration.path.hash()));
            nar::write(tree, &mut hasher)?;
            (expected, hasher.finish().hash)
        }
    };
    Ok((actual != *expected).then(|| format!("its address comes from {expected}, but its content gives {actual}")))
}

/// Hash of the bytes of the one file that a tree is (of all of them one after the other, where it is more).
fn file_hash(tree: &Path) -> Result<Digest, StoreError> {
    let mut sink = HashingWriter::new(io::sink());
    nar::visit(tree, &mut |entry, contents| {
        if matches!(entry.kind, EntryKind::File { .. }) {
            io::copy(contents, &mut sink).context("read", entry.below(tree))?;
        }
        Ok(())
    })?;
    Ok(sink.finish().1.digest())
}
