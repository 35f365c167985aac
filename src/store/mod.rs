//! The *store* holds immutable trees by their store paths, with what is known of them in SQLite.
//!
//! Invariant: a path appears by rename, its row in the database last; a path never changes; a crash leaves
//! at worst an unregistered path, which the next run removes.
//!
//! # On disk
//! | below the store's directory | what |
//! |---|---|
//! | `store/HASH-NAME` | the trees, read-only |
//! | `db/db.sqlite` | what is known of them |
//! | `tmp/session-X.lock` | one for each process that has the store open: its lock, and the paths it relies on |
//! | `tmp/session-X.N` | staging directories |
//! | `trash/` | trees that were valid and are being deleted |
//! | `locks/store` | held shared to rely on a path, exclusively to add one or to collect garbage; never for long |
//! | `locks/build-HASH` | held while a derivation is built |
//! | `roots/NAME` | symlinks to what must stay |
//! | `cache/`, `log/` | other modules' |
//! | `nix/` | a store of the same form for paths named `/nix/store/…` (see [`Store::open_nix`]) |

mod add;
mod build_place;
mod canonical;
mod database;
mod error;
mod evidence;
mod gc;
mod import;
mod inspect;
mod mend;
mod modulo;
pub mod nix_store;
mod optimise;
mod query;
mod roots;
mod scan;
mod session;
mod strip;
/// Under what the note lies that a realisation is unvouched for: beside the realisations, where no derivation's hash is.
fn unvouched(derivation: &Digest) -> Digest {
    Digest::of(format!("unvouched\n{derivation}").as_bytes())
}

#[cfg(test)]
mod tests;
mod verify;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use add::Rewritten;
pub use build_place::BuildPlace;
pub use canonical::MTIME;
pub use database::Addressing;
pub use error::StoreError;
pub use evidence::{Evidence, Place, PlaceKind};
pub use gc::{GcOptions, GcReport, Kept, KeptBy, SurveyedPath};
pub use import::{Attestation, CopiedPath, NewNar, StagedNar, restore_announced};
pub use optimise::Optimised;
pub use query::{PathDetails, Provenance};
pub use roots::{Root, RootOwner};
pub use session::StagingDir;
pub use strip::{ANY_REFERENCE, ReferencePolicy};
pub use verify::StoreProblem;

use crate::digest::Digest;
use crate::execution::Execution;
use crate::fsio::{FileLock, IoContext, LockKind, PathError, create_dir_all, keep_owner, remove_tree};
use crate::store_path::{PathInfo, StoreDir, StorePath};
use crate::walls::Walls;
use database::Database;
use session::Session;

/// A store that can be looked into: layerize's own, or a Nix store.
pub trait ReadStore {
    /// The logical directory of its paths.
    fn store_dir(&self) -> StoreDir;

    /// Where the tree of `path` is on disk (whether or not it is valid).
    fn physical(&self, path: &StorePath) -> PathBuf;

    /// What is known of `path`; `None` where it is not valid.
    fn info(&self, path: &StorePath) -> Result<Option<PathInfo>, StoreError>;

    /// Why `referrer` refers to `target`; `None` where it does not.
    fn evidence(&self, referrer: &StorePath, target: &StorePath) -> Result<Option<Evidence>, StoreError>;
}

impl ReadStore for Store {
    fn store_dir(&self) -> StoreDir {
        self.store_dir.clone()
    }

    fn physical(&self, path: &StorePath) -> PathBuf {
        Store::physical(self, path)
    }

    fn info(&self, path: &StorePath) -> Result<Option<PathInfo>, StoreError> {
        Store::info(self, path)
    }

    fn evidence(&self, referrer: &StorePath, target: &StorePath) -> Result<Option<Evidence>, StoreError> {
        Store::evidence(self, referrer, target)
    }
}

/// The directories of a store.
const DIRECTORIES: [&str; 8] = ["store", "db", "locks", "roots", "tmp", "trash", "cache", "log"];

/// An open store, to be shared by all threads of a process.
///
/// What it says is valid stays valid until it is dropped: no garbage collector, in whatever process, removes
/// it. A store that the user may not write to is opened for looking up alone.
pub struct Store {
    dir: PathBuf,
    store_dir: StoreDir,
    database: Database,
    /// Started when first needed.
    session: Mutex<Option<Arc<Session>>>,
    damage: mend::Damage,
    /// What could not be removed, to be told.
    left_behind: Mutex<Vec<PathError>>,
}

/// A tree to be moved into the store, by [`Store::add_output`] and its like.
pub struct NewOutput<'a> {
    /// Name part of its store path.
    pub name: &'a str,
    /// Where it is.
    pub tree: &'a Path,
    /// Paths whose hashes are searched for.
    pub candidates: &'a BTreeSet<StorePath>,
    /// Called with what the scan found; gives the references to add: (reference, declared through).
    pub declare: &'a Declare<'a>,
    /// The resolved derivation's hash, where one made the path.
    pub derivation: Option<Digest>,
    /// What it may refer to.
    pub policy: &'a ReferencePolicy,
    /// What it was built behind.
    pub walls: Walls,
    /// How the programs of its script ran.
    pub execution: Execution,
}

/// From the references that the scan found to those to add: (reference, declared through).
pub type Declare<'a> = dyn Fn(&BTreeSet<StorePath>) -> Vec<(StorePath, StorePath)> + 'a;

impl Store {
    /// Opens the store whose physical files are below `dir`, creating it where it is missing, and removes what a
    /// crash left behind.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_as(dir, StoreDir::layerize())
    }

    /// Opens the store of Nix's paths that belongs to the store in `dir`: `dir/nix`, a store of the same form whose
    /// paths are named `/nix/store/…`. Nix itself never sees it.
    pub fn open_nix(dir: &Path) -> Result<Self, StoreError> {
        Self::open_as(&dir.join("nix"), StoreDir::nix())
    }

    fn open_as(dir: &Path, store_dir: StoreDir) -> Result<Self, StoreError> {
        let dir = std::path::absolute(dir).context("find", dir)?;
        if is_read_only(&dir) {
            let database = Database::open_read_only(&dir)?;
            return Ok(Self::new(dir, store_dir, database));
        }
        keep_owner(&dir);
        for name in DIRECTORIES {
            let path = dir.join(name);
            if !path.is_dir() {
                create_dir_all(&path)?;
            }
        }
        let database = Database::open(&dir)?;
        let store = Self::new(dir, store_dir, database);
        store.recover()?;
        Ok(store)
    }

    fn new(dir: PathBuf, store_dir: StoreDir, database: Database) -> Self {
        Self {
            dir,
            store_dir,
            database,
            session: Mutex::new(None),
            damage: mend::Damage::default(),
            left_behind: Mutex::default(),
        }
    }

    /// The physical directory given to [`open`](Self::open), absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory under which its paths are named.
    pub fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    /// Where the tree of `path` is on disk (whether or not it is valid).
    pub fn physical(&self, path: &StorePath) -> PathBuf {
        self.dir.join("store").join(path.to_string())
    }

    /// What is known of `path`; `None` where it is not valid. A valid path stays so as long as this store is open.
    ///
    /// One whose tree is gone from the disk, or is known to be damaged, is not valid: it is to be made again.
    pub fn info(&self, path: &StorePath) -> Result<Option<PathInfo>, StoreError> {
        if self.database.read_only() {
            return self.whole(self.database.info(path)?);
        }
        let session = self.session()?;
        if session.protects(path) {
            return Ok(self.database.info(path)?.filter(|_| !self.is_damaged(path)));
        }
        let _lock = self.lock(LockKind::Shared)?;
        let info = self.whole(self.database.info(path)?)?;
        if info.is_some() {
            session.protect(path)?;
        }
        Ok(info)
    }

    fn whole(&self, info: Option<PathInfo>) -> Result<Option<PathInfo>, StoreError> {
        match info {
            Some(info) if self.is_there(&info.path)? => Ok(Some(info)),
            _ => Ok(None),
        }
    }

    /// A new empty directory for what is not to become a path of the store, removed when dropped: also where the store is
    /// somebody else's.
    pub fn scratch(&self) -> Result<StagingDir, StoreError> {
        match self.is_read_only() {
            true => StagingDir::elsewhere(),
            false => self.stage(),
        }
    }

    /// Whether there is a store in `dir` that this user may not write to.
    pub fn is_foreign(dir: &Path) -> bool {
        is_read_only(dir)
    }

    /// A new empty directory on the store's file system, removed when dropped (or by the next run after a crash).
    pub fn stage(&self) -> Result<StagingDir, StoreError> {
        StagingDir::create(&self.session()?)
    }

    /// The path that a resolved derivation made, whether or not it is still valid: enough to resolve what takes it in.
    pub fn known_output(&self, derivation: &Digest) -> Result<Option<StorePath>, StoreError> {
        self.database.realisation(derivation)
    }

    /// The output that a resolved derivation made, if it is still valid.
    pub fn realisation(&self, derivation: &Digest) -> Result<Option<StorePath>, StoreError> {
        let Some(path) = self.database.realisation(derivation)? else {
            return Ok(None);
        };
        Ok(self.info(&path)?.map(|info| info.path))
    }

    /// Takes note that somebody has use for `paths`: what was used of late is collected last.
    pub fn note_use<'a>(&self, paths: impl IntoIterator<Item = &'a StorePath>) -> Result<(), StoreError> {
        match self.is_read_only() {
            true => Ok(()),
            false => self.database.note_use(paths),
        }
    }

    /// Records that a resolved derivation (its canonical JSON kept for later questions) made `path`.
    pub fn record_realisation(&self, derivation: &Digest, json: &str, path: &StorePath) -> Result<(), StoreError> {
        self.check_writable()?;
        if self.database.record_realisation(derivation, json, path)? {
            self.database.forget_realisation(&unvouched(derivation))?;
            return Ok(());
        }
        Err(StoreError::NotValid {
            path: path.clone(),
            needed_by: None,
        })
    }

    /// Takes note that what a resolved derivation made was learned from somebody who did not sign it: who signs what is in
    /// this store must not vouch for that. Recording the realisation again, from who built or signed it, clears the note.
    pub fn note_unvouched(&self, derivation: &Digest, path: &StorePath) -> Result<(), StoreError> {
        self.record_planned(&unvouched(derivation), path)
    }

    /// Whether [`note_unvouched`](Self::note_unvouched) was called for a resolved derivation.
    pub fn is_unvouched(&self, derivation: &Digest) -> Result<bool, StoreError> {
        Ok(self.database.realisation(&unvouched(derivation))?.is_some())
    }

    /// Records that the step with this plan key made `path`: enough to find it where the step's inputs are not known.
    pub fn record_planned(&self, plan_key: &Digest, path: &StorePath) -> Result<(), StoreError> {
        self.check_writable()?;
        self.database.record_planned(plan_key, path)
    }

    /// Waits until no other process or thread builds `derivation`. Check [`realisation`](Self::realisation) again after.
    pub fn lock_build(&self, derivation: &Digest) -> Result<FileLock, StoreError> {
        self.check_writable()?;
        let path = self.dir.join("locks").join(format!("build-{}", derivation.hex()));
        loop {
            let lock = FileLock::acquire(&path, LockKind::Exclusive)?;
            // The collector removes such files when nobody holds them.
            if session::is_linked(lock.file(), &path)? {
                return Ok(lock);
            }
        }
    }

    /// Takes `locks/store`. Locks are taken in one order: this one, a session's mutex, the database's mutex; whoever
    /// holds one of the mutexes waits for no other lock.
    fn lock(&self, kind: LockKind) -> Result<FileLock, StoreError> {
        Ok(FileLock::acquire(&self.dir.join("locks/store"), kind)?)
    }

    fn session(&self) -> Result<Arc<Session>, StoreError> {
        self.check_writable()?;
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        match &*session {
            Some(session) => Ok(Arc::clone(session)),
            None => Ok(Arc::clone(session.insert(Session::start(&self.tmp())?))),
        }
    }

    fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    fn trash(&self) -> PathBuf {
        self.dir.join("trash")
    }

    /// Whether nothing can be written: whoever owns it decides what stays in it.
    pub fn is_read_only(&self) -> bool {
        self.database.read_only()
    }

    /// That something can be written.
    ///
    /// # Errors
    ///
    /// The store belongs to somebody else, or is on a disk that is read-only.
    pub fn check_writable(&self) -> Result<(), StoreError> {
        if self.database.read_only() {
            return Err(StoreError::ReadOnly { dir: self.dir.clone() });
        }
        Ok(())
    }

    /// Removes what sessions that did not end well left behind.
    fn recover(&self) -> Result<(), StoreError> {
        let dead = session::bury(&self.tmp(), &mut self.left_behind())?;
        if dead.is_empty() {
            return Ok(());
        }
        let path = self.dir.join("locks/store");
        // Somebody is busy: then the dead session's file stays, and with it the task for the next run.
        if let Some(_lock) = FileLock::try_acquire(&path, LockKind::Exclusive)? {
            for path in self.unregistered()? {
                self.discard(&self.physical(&path));
            }
            for session in &dead {
                self.reseal(session)?;
            }
            for session in dead {
                session.forget()?;
            }
        }
        Ok(())
    }

    /// Removes what nobody needs. Where that fails it stays for the next run to try, and is [told](Self::take_left_behind):
    /// what a command was asked to do does not depend on it.
    fn discard(&self, path: &Path) {
        if let Err(error) = remove_tree(path) {
            self.left_behind().push(error);
        }
    }

    /// Whether the disk was full when the store was opened: a reserve was given up to open it at all.
    pub fn was_full(&self) -> bool {
        self.database.was_full()
    }

    /// What could not be removed since this was last asked.
    pub fn take_left_behind(&self) -> Vec<PathError> {
        std::mem::take(&mut self.left_behind())
    }

    fn left_behind(&self) -> std::sync::MutexGuard<'_, Vec<PathError>> {
        self.left_behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Trees in `store/` that are no valid paths, but for those that a build is making there (see [`BuildPlace`]). To
    /// be called with the store's lock held exclusively.
    fn unregistered(&self) -> Result<Vec<StorePath>, StoreError> {
        let names = crate::fsio::sorted_names(&self.dir.join("store"))?;
        let paths = names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
        let mut paths = self.database.unregistered(paths)?;
        if !paths.is_empty() {
            let building = session::building(&self.tmp())?;
            paths.retain(|path| !building.contains(path));
        }
        Ok(paths)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Where there is room again, the next collection has its reserve.
        if self.database.was_full() {
            self.database.reserve();
        }
    }
}

/// Whether there is a store that the user may not write to.
fn is_read_only(dir: &Path) -> bool {
    let database = dir.join("db/db.sqlite");
    let writable = |path: &Path| {
        let access = rustix::fs::access(path, rustix::fs::Access::WRITE_OK);
        // What is missing will be made.
        matches!(access, Ok(()) | Err(rustix::io::Errno::NOENT))
    };
    database.exists()
        && !["db/db.sqlite", "db", "tmp", "locks", "."]
            .iter()
            .all(|name| writable(&dir.join(name)))
}
