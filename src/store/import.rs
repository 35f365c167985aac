//! An *import* takes a path over from another store, as an archive and what is said of it.
//!
//! Invariant: what is said is believed only as far as it can be checked here: the archive must have the announced
//! hash and size, and a path that is said to come from its content must be computed from that content. Whether the
//! rest (references, a path that comes from a derivation) is to be believed is the caller's to know.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::Path;

use super::canonical::canonicalise;
use super::database::{Addressing, Registration};
use super::error::StoreError;
use super::evidence::Evidence;
use super::session::StagingDir;
use super::strip::ANY_REFERENCE;
use super::verify::{differing_address, expected_path};
use super::{NewOutput, Store};
use crate::digest::Hasher;
use crate::execution::Execution;
use crate::fsio::IoContext;
use crate::nar;
use crate::store_path::{PathInfo, StorePath};
use crate::walls::Walls;

/// What others said of a path, kept to be said again; of a path that was made here, who signed it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attestation {
    /// Base name of the derivation that made it.
    pub deriver: Option<String>,
    /// What the path is computed from, as Nix writes it (`fixed:r:sha256:…`).
    pub content_address: Option<String>,
    /// `NAME:BASE64`, each an Ed25519 signature.
    pub signatures: BTreeSet<String>,
}

/// What is said of a path that is to be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNar {
    /// What its archive must be, and what it refers to.
    pub info: PathInfo,
    /// What its path is computed from.
    pub addressing: Addressing,
    /// The rest.
    pub attestation: Attestation,
}

/// What is said of a path that comes from another store of layerize.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedPath {
    /// What is said of it as of any path.
    pub nar: NewNar,
    /// References that were declared rather than found, each with the path through which.
    pub declared: BTreeMap<StorePath, StorePath>,
    /// What it was built behind.
    pub walls: Walls,
    /// How the programs ran that made it.
    pub execution: Execution,
}

/// An imported tree that waits for what it refers to; dropped, it is gone.
pub struct StagedNar {
    staging: StagingDir,
    registration: Registration,
    entries: u64,
}

impl StagedNar {
    /// The path that it will be.
    pub fn path(&self) -> &StorePath {
        &self.registration.path
    }
}

impl Store {
    /// Unpacks and checks an archive, read to its end; no more of it is read than was announced. Nothing is
    /// registered yet.
    pub fn stage_nar(&self, new: &NewNar, archive: &mut dyn Read) -> Result<StagedNar, StoreError> {
        let registration = registration(new);
        if let Some(expected) = expected_path(&self.store_dir, &registration)?.filter(|path| *path != new.info.path) {
            return Err(StoreError::WrongAddress {
                path: new.info.path.clone(),
                expected,
            });
        }
        let staging = self.stage()?;
        let tree = staging.path().join("tree");
        restore_announced(&new.info, archive, &tree)?;
        canonicalise(&tree, self.place_length(new.info.path.name()))?;
        if let Some(how) = differing_address(&tree, &registration)? {
            let path = new.info.path.clone();
            return Err(StoreError::WrongContent { path, how });
        }
        Ok(StagedNar {
            staging,
            registration,
            entries: nar::walk(&tree).count() as u64,
        })
    }

    /// Makes a staged path valid; everything that it refers to must be valid by now.
    pub fn register_nar(&self, staged: StagedNar) -> Result<PathInfo, StoreError> {
        let tree = staged.staging.path().join("tree");
        self.publish(&tree, staged.registration, staged.entries)
    }

    /// Takes a path over from another store of layerize; everything that it refers to must be valid. One that is said to come
    /// from its content must do so, and is searched for what it refers to as if it had been built here; whether another is to
    /// be believed is the caller's to know.
    pub fn add_copied(&self, new: &CopiedPath, archive: &mut dyn Read) -> Result<PathInfo, StoreError> {
        let info = &new.nar.info;
        self.check_room(info.nar_size)?;
        let Addressing::Tree(_) = new.nar.addressing else {
            let mut staged = self.stage_nar(&new.nar, archive)?;
            (staged.registration.walls, staged.registration.execution) = (new.walls, new.execution);
            return self.register_nar(staged);
        };
        // Before it is read: what it refers to must be there, whatever it holds.
        for reference in &info.references {
            if self.info(reference)?.is_none() {
                return Err(StoreError::NotValid {
                    path: reference.clone(),
                    needed_by: Some(info.path.clone()),
                });
            }
        }
        let staging = self.stage()?;
        let tree = staging.path().join("tree");
        restore_announced(info, archive, &tree)?;
        let via = |reference: &StorePath| new.declared.get(reference).unwrap_or(&info.path).clone();
        let output = NewOutput {
            name: info.path.name(),
            tree: &tree,
            candidates: &info.references,
            declare: &|found| {
                let missing = info.references.difference(found);
                missing.map(|reference| (reference.clone(), via(reference))).collect()
            },
            derivation: None,
            policy: &ANY_REFERENCE,
            walls: new.walls,
            execution: new.execution,
        };
        let added = self.add_proved(&output, info)?;
        for signature in &new.nar.attestation.signatures {
            self.database.add_signature(&info.path, signature)?;
        }
        Ok(added)
    }

    /// That there is room for so many bytes more.
    pub fn check_room(&self, bytes: u64) -> Result<(), StoreError> {
        let stat = rustix::fs::statvfs(&self.dir).map_err(io::Error::from);
        let stat = stat.context("look for room in", &self.dir)?;
        let room = stat.f_bavail.saturating_mul(stat.f_frsize);
        match bytes <= room {
            true => Ok(()),
            false => Err(StoreError::NoRoom {
                dir: self.dir.clone(),
                needed: bytes,
                room,
            }),
        }
    }

    /// What others said of `path`.
    pub fn attestation(&self, path: &StorePath) -> Result<Attestation, StoreError> {
        self.database.attestation(path)
    }

    /// Keeps a signature (`NAME:BASE64`) of the valid path `path`.
    pub fn add_signature(&self, path: &StorePath, signature: &str) -> Result<(), StoreError> {
        self.check_writable()?;
        if self.database.add_signature(path, signature)? {
            return Ok(());
        }
        Err(StoreError::NotValid {
            path: path.clone(),
            needed_by: None,
        })
    }
}

/// Writes the tree in an archive to `dest`, which is not there yet; no more is read than was announced, and an archive that is
/// another than the announced one is an error.
pub fn restore_announced(info: &PathInfo, archive: &mut dyn Read, dest: &Path) -> Result<(), StoreError> {
    let mut announced = Announced::new(archive, info.nar_size);
    nar::restore(&mut announced, dest)?;
    let actual = (announced.hasher.digest(), announced.size);
    if actual != (info.nar_hash, info.nar_size) {
        return Err(StoreError::ArchiveMismatch {
            path: info.path.clone(),
            how: format!(
                "it is {} ({} bytes), not {} ({} bytes)",
                actual.0, actual.1, info.nar_hash, info.nar_size
            ),
        });
    }
    Ok(())
}

fn registration(new: &NewNar) -> Registration {
    let PathInfo {
        path,
        nar_hash,
        nar_size,
        references,
        self_reference,
    } = &new.info;
    let own = self_reference.then_some(path);
    // Whoever says what the path is says what it refers to.
    let declared = |reference: &StorePath| (reference.clone(), Evidence::Declared { via: path.clone() });
    Registration {
        path: path.clone(),
        nar_hash: *nar_hash,
        nar_size: *nar_size,
        addressing: new.addressing,
        derivation: None,
        walls: Walls::Namespaces,
        execution: Execution::Native,
        references: references.iter().chain(own).map(declared).collect::<BTreeMap<_, _>>(),
        unscanned: Vec::new(),
        attestation: new.attestation.clone(),
    }
}

/// A reader that hashes, and fails where there is more than was announced.
struct Announced<'a> {
    inner: &'a mut dyn Read,
    hasher: Hasher,
    size: u64,
    announced: u64,
}

impl<'a> Announced<'a> {
    fn new(inner: &'a mut dyn Read, announced: u64) -> Self {
        Self {
            inner,
            hasher: Hasher::new(),
            size: 0,
            announced,
        }
    }
}

impl Read for Announced<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.size += count as u64;
        if self.size > self.announced {
            let message = format!("it is larger than the {} bytes announced", self.announced);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
