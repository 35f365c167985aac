//! A *Nix store*, read only: which of its paths are valid, what they refer to, and where they are on disk.
//!
//! Invariant: nothing below the store's directory is ever written, created or locked, and no daemon is needed. What is
//! told of a path comes from one source, the first of these that is there: a closure graph that the user names, the
//! database, `nix path-info` (where the database may not be read), or the paths themselves, searched and hashed. A path
//! that is not valid there may be among those that layerize fetched from binary caches, and then that is where it is.
//!
//! | below the root of the file system | what |
//! |---|---|
//! | `nix/store/HASH-NAME` | the trees |
//! | `nix/var/nix/db/db.sqlite` | the database, in SQLite's WAL mode |
//! | `nix/var/nix/profiles` | profiles: chains of symlinks that end in the store |
//!
//! A *chroot store* (`nix-build --store DIR`) has the same below `DIR`.

mod command;
mod database;
mod error;
mod graph;
mod hash;
mod link;
mod register;
mod scan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

pub use error::NixError;
pub use hash::parse_hash;
pub use link::Linked;
pub use register::{StateEntry, StateKind, state_directory};

use super::evidence::Evidence;
use super::{ReadStore, Store, StoreError};
use crate::digest::Digest;
use crate::store_path::{PathInfo, StoreDir, StorePath};
use database::NixDatabase;
use scan::Scanner;

/// Largest closure graph that is read, in bytes: some 100,000 paths.
const GRAPH_BYTES_MAX: u64 = 512 << 20;

/// Everything that is known of a path of a Nix store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NixPath {
    /// What identifies it.
    pub info: PathInfo,
    /// Absolute logical path of the derivation that made it.
    pub deriver: Option<String>,
    /// What its path is computed from, if that is its content: `fixed:r:sha256:…`, `text:sha256:…`.
    pub content_address: Option<String>,
    /// `KEY:SIGNATURE`, as the binary caches that it came from gave them.
    pub signatures: Vec<String>,
}

impl NixPath {
    fn new(info: PathInfo) -> Self {
        Self {
            info,
            deriver: None,
            content_address: None,
            signatures: Vec::new(),
        }
    }
}

/// Where paths are looked up.
#[derive(Debug)]
enum Knowledge {
    Graph(BTreeMap<StorePath, NixPath>),
    Database(Box<NixDatabase>),
    /// `nix path-info`, asked for a closure at a time.
    Command,
    Scan(Box<Scanner>),
    /// The machine has no Nix store.
    Nothing,
}

/// What is known of a valid path, and whether it is one that layerize fetched.
#[derive(Debug, Clone)]
struct KnownPath {
    path: NixPath,
    fetched: bool,
}

/// An open Nix store.
pub struct NixStore {
    root: PathBuf,
    knowledge: Knowledge,
    /// Paths from binary caches.
    fetched: Option<Store>,
    /// What was asked for before.
    known: Mutex<BTreeMap<StorePath, Option<KnownPath>>>,
}

impl std::fmt::Debug for NixStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NixStore({})", self.root.display())
    }
}

impl NixStore {
    /// Opens the store whose `nix/store` is below `root`: `/`, or the directory of a chroot store. With `graph`, a file
    /// of JSON as `nix path-info --json --recursive` or `exportReferencesGraph` write it, the database is not looked at.
    pub fn open(root: &Path, graph: Option<&Path>) -> Result<Self, StoreError> {
        let root = match root.join("nix/store").is_dir() {
            true => root.canonicalize().unwrap_or_else(|_| root.to_owned()),
            false => return Err(NixError::NoStore { dir: root.to_owned() }.into()),
        };
        let knowledge = match graph {
            Some(file) => Knowledge::Graph(read_graph(file)?),
            None => Self::choose(&root)?,
        };
        Ok(Self {
            root,
            knowledge,
            fetched: None,
            known: Mutex::new(BTreeMap::new()),
        })
    }

    /// Nothing but the paths that were fetched into `store`, which belongs to layerize's store in `dir`.
    pub fn of_fetched(dir: &Path, store: Store) -> Self {
        Self {
            root: dir.to_owned(),
            knowledge: Knowledge::Nothing,
            fetched: Some(store),
            known: Mutex::new(BTreeMap::new()),
        }
    }

    /// Takes note that somebody has use for those of `paths` that were fetched: what was used of late is collected last.
    pub fn note_use<'a>(&self, paths: impl IntoIterator<Item = &'a StorePath>) -> Result<(), StoreError> {
        self.fetched.as_ref().map_or(Ok(()), |store| store.note_use(paths))
    }

    /// The same with the paths that were fetched into `store`, where they are not valid here.
    pub fn and_fetched(self, store: Store) -> Self {
        Self {
            fetched: Some(store),
            ..self
        }
    }

    fn choose(root: &Path) -> Result<Knowledge, StoreError> {
        match NixDatabase::open(root) {
            Ok(Some(database)) => Ok(Knowledge::Database(Box::new(database))),
            Ok(None) => Ok(Knowledge::Scan(Box::new(Scanner::new(&root.join("nix/store"))?))),
            // A database that we may not read the daemon may.
            Err(NixError::Unreadable { .. }) if command::is_there() => Ok(Knowledge::Command),
            Err(error) => Err(error.into()),
        }
    }

    /// Where what is told of paths comes from, in a few words.
    pub fn source(&self) -> &'static str {
        match &self.knowledge {
            Knowledge::Graph(_) => "the closure graph",
            Knowledge::Database(_) => "the database",
            Knowledge::Command => "`nix path-info`",
            Knowledge::Scan(_) => "its files, as it has no database",
            Knowledge::Nothing => "what was fetched from binary caches",
        }
    }

    /// Whether NAR hashes were recorded when the paths were made, and not just now from what is on disk.
    pub fn has_records(&self) -> bool {
        !matches!(self.knowledge, Knowledge::Scan(_))
    }

    /// The directory that `nix/store` is in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Everything that is known of `path`; `None` where it is not valid.
    pub fn details(&self, path: &StorePath) -> Result<Option<NixPath>, StoreError> {
        Ok(self.find(path)?.map(|found| found.path))
    }

    fn find(&self, path: &StorePath) -> Result<Option<KnownPath>, StoreError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(path) {
            return Ok(found.clone());
        }
        let here = |path| KnownPath { path, fetched: false };
        let mut found = match &self.knowledge {
            Knowledge::Graph(graph) => graph.get(path).cloned().map(here),
            Knowledge::Database(database) => database.path(path)?.map(here),
            Knowledge::Command => {
                let closure = command::path_info(&self.root, path)?;
                known.extend(closure.into_iter().map(|(path, found)| (path, Some(here(found)))));
                known.get(path).cloned().flatten()
            }
            Knowledge::Scan(scanner) => scanner.path(path)?.map(here),
            Knowledge::Nothing => None,
        };
        if let (None, Some(store)) = (&found, &self.fetched) {
            found = fetched(store, path)?.map(|path| KnownPath { path, fetched: true });
        }
        known.insert(path.clone(), found.clone());
        Ok(found)
    }

    /// The files of `path` that show that someone wrote to it after Nix had registered it: Nix leaves every file with
    /// the time 1 and without write permission. At most `limit`, in the order of their paths; relative to `path`.
    pub fn suspects(&self, path: &StorePath, limit: usize) -> Result<Vec<String>, StoreError> {
        scan::suspects(&self.physical(path), limit)
    }

    /// The digest of what a closure consists of: of `PATH NAR-HASH` of each member, a line each, sorted.
    pub fn closure_digest<'a>(members: impl IntoIterator<Item = &'a PathInfo>) -> Digest {
        let mut lines: Vec<String> = members
            .into_iter()
            .map(|info| format!("{} {}\n", info.path, info.nar_hash.hex()))
            .collect();
        lines.sort();
        Digest::of(lines.concat().as_bytes())
    }
}

impl ReadStore for NixStore {
    fn store_dir(&self) -> StoreDir {
        StoreDir::nix()
    }

    fn physical(&self, path: &StorePath) -> PathBuf {
        match (&self.fetched, self.find(path)) {
            (Some(store), Ok(Some(KnownPath { fetched: true, .. }))) => store.physical(path),
            _ => self.root.join("nix/store").join(path.to_string()),
        }
    }

    fn info(&self, path: &StorePath) -> Result<Option<PathInfo>, StoreError> {
        Ok(self.details(path)?.map(|found| found.info))
    }

    /// Nix does not record where a reference was found: the referrer is searched for it now.
    fn evidence(&self, referrer: &StorePath, target: &StorePath) -> Result<Option<Evidence>, StoreError> {
        let refers = self
            .info(referrer)?
            .is_some_and(|info| info.references.contains(target) || (referrer == target && info.self_reference));
        if !refers {
            return Ok(None);
        }
        let found = scan::place(&self.physical(referrer), target)?;
        // Nix lets a derivation name references that its output does not hold.
        Ok(Some(found.map_or_else(
            || Evidence::Declared { via: referrer.clone() },
            Evidence::Found,
        )))
    }
}

/// What is known of a path that was fetched.
fn fetched(store: &Store, path: &StorePath) -> Result<Option<NixPath>, StoreError> {
    let Some(info) = store.info(path)? else { return Ok(None) };
    let attestation = store.attestation(path)?;
    Ok(Some(NixPath {
        info,
        deriver: attestation.deriver.map(|name| format!("{}/{name}", StoreDir::NIX)),
        content_address: attestation.content_address,
        signatures: attestation.signatures.into_iter().collect(),
    }))
}

fn read_graph(file: &Path) -> Result<BTreeMap<StorePath, NixPath>, StoreError> {
    let bytes = crate::fsio::read_limited(file, GRAPH_BYTES_MAX)?;
    let wrong = |reason: String| NixError::Graph {
        file: file.to_owned(),
        reason,
    };
    let text = String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
    Ok(graph::parse(&text).map_err(wrong)?)
}
