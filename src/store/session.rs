//! A *session* is one open store of one process: its staging directories, and the paths it relies on.
//!
//! Invariant: as long as a session lives it holds an exclusive lock on `tmp/session-X.lock`, so whoever can take
//! that lock knows that the session is dead and that everything named `tmp/session-X.*` is debris. The file's
//! lines are the session's temporary roots: the paths that it was told are valid and that the garbage
//! collector must therefore keep; after [`BUILDING`], a path that is not a valid one, at which it builds; after [`LINKING`], one
//! whose directories may be other than they should be.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::error::StoreError;
use crate::fsio::{FileLock, IoContext, LockKind, PathError, give, read_limited, remove_tree, sorted_names};
use crate::store_path::StorePath;

const PREFIX: &str = "session-";

/// What precedes the path of a build place in a session's file.
const BUILDING: &str = "building ";

/// What precedes a path in which files are becoming links.
const LINKING: &str = "linking ";

/// Largest file of a session that is read after a crash, in bytes.
const NOTES_MAX: u64 = 64 << 20;

/// An open session; dead when dropped.
pub(super) struct Session {
    /// `DIR/tmp`.
    tmp: PathBuf,
    /// `session-X`.
    name: String,
    lock: FileLock,
    state: Mutex<SessionState>,
}

#[derive(Default)]
struct SessionState {
    protected: BTreeSet<StorePath>,
    staged: u64,
}

impl Session {
    /// Starts a session below the store's `tmp`.
    pub(super) fn start(tmp: &Path) -> Result<Arc<Self>, StoreError> {
        loop {
            let unique = tempfile::Builder::new()
                .prefix(PREFIX)
                .suffix(".lock")
                .tempfile_in(tmp)
                .context("create a temporary file in", tmp)?
                .into_temp_path();
            let path = unique.keep().map_err(|error| error.error).context("keep", tmp)?;
            give(&path)?;
            let lock = FileLock::acquire(&path, LockKind::Exclusive)?;
            // Between the two calls another process may have taken the file for a dead session's and removed it.
            if is_linked(lock.file(), &path)? {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                return Ok(Arc::new(Self {
                    tmp: tmp.to_owned(),
                    name,
                    lock,
                    state: Mutex::default(),
                }));
            }
        }
    }

    /// Whether `path` was protected before.
    pub(super) fn protects(&self, path: &StorePath) -> bool {
        self.state().protected.contains(path)
    }

    /// Makes `path` a temporary root. To be called with the store's lock held, so that no collector runs meanwhile.
    pub(super) fn protect(&self, path: &StorePath) -> Result<(), StoreError> {
        let mut state = self.state();
        if !state.protected.contains(path) {
            self.note(&path.to_string())?;
            state.protected.insert(path.clone());
        }
        Ok(())
    }

    /// Says that what lies at `path`, which is not valid, is being built there. To be called as [`protect`](Self::protect).
    pub(super) fn build_at(&self, path: &StorePath) -> Result<(), StoreError> {
        let _state = self.state();
        self.note(&format!("{BUILDING}{path}"))
    }

    /// Says that files of `path` are becoming links; on disk before anything is changed.
    pub(super) fn note_linking(&self, path: &StorePath) -> Result<(), StoreError> {
        let _state = self.state();
        self.note(&format!("{LINKING}{path}"))?;
        Ok(self.lock.file().sync_data().context("sync", self.lock_path())?)
    }

    fn note(&self, line: &str) -> Result<(), StoreError> {
        let mut file = self.lock.file();
        Ok(file
            .write_all(format!("{line}\n").as_bytes())
            .context("write", self.lock_path())?)
    }

    /// A name in `tmp` that was not used before and that nothing stands at.
    pub(super) fn fresh_path(&self) -> PathBuf {
        let mut state = self.state();
        state.staged += 1;
        self.tmp.join(format!("{}.{}", self.name, state.staged))
    }

    fn lock_path(&self) -> PathBuf {
        self.tmp.join(format!("{}.lock", self.name))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, SessionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Removed while the lock is held; whoever waits for it sees that the file is gone. A failure leaves a dead
        // session's file, which the next run removes.
        let _ = fs::remove_file(self.lock_path());
    }
}

/// A temporary directory on the store's file system, removed when dropped (or by the next run after a crash).
pub struct StagingDir {
    path: PathBuf,
    /// Keeps others from taking the directory for debris, where it is in the store.
    _session: Option<Arc<Session>>,
}

impl StagingDir {
    pub(super) fn create(session: &Arc<Session>) -> Result<Self, StoreError> {
        let path = session.fresh_path();
        fs::create_dir(&path).context("create directory", &path)?;
        Ok(Self {
            path,
            _session: Some(Arc::clone(session)),
        })
    }

    /// One among the machine's temporary files.
    pub(super) fn elsewhere() -> Result<Self, StoreError> {
        let dir = tempfile::Builder::new().prefix("layerize-").tempdir();
        Ok(Self {
            path: dir.context("create a directory in", std::env::temp_dir())?.keep(),
            _session: None,
        })
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for StagingDir {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next run.
        let _ = remove_tree(&self.path);
    }
}

/// Removes the debris of dead sessions, and gives those that did not end well: crashes. What cannot be removed stays, and
/// goes to `failed`.
///
/// The file of a dead session stays until the caller [`forget`](Dead::forget)s it, that is, until what else the
/// crash may have left is removed too; so a crash of the caller loses nothing.
pub(super) fn bury(tmp: &Path, failed: &mut Vec<PathError>) -> Result<Vec<Dead>, StoreError> {
    // A session makes its file before anything else and removes it last: debris that is listed before the
    // sessions are, and whose session is not alive then, is nobody's.
    let debris = sorted_names(tmp)?;
    let mut live = BTreeSet::new();
    let mut dead = Vec::new();
    for name in session_files(tmp)? {
        let path = tmp.join(format!("{name}.lock"));
        match holder(&path)? {
            Holder::Live => {
                live.insert(name);
            }
            Holder::Dead(lock) => dead.push(Dead { path, _lock: lock }),
            Holder::Gone => {}
        }
    }
    for name in debris {
        let text = name.to_string_lossy();
        let session = text.split('.').next().unwrap_or_default();
        if live.contains(session) || text.ends_with(".lock") {
            continue;
        }
        failed.extend(remove_tree(&tmp.join(&name)).err());
    }
    Ok(dead)
}

/// A session that died, and the lock that says so.
pub(super) struct Dead {
    path: PathBuf,
    _lock: File,
}

impl Dead {
    /// The path in which files were becoming links at last.
    pub(super) fn linking(&self) -> Option<StorePath> {
        let notes = read_limited(&self.path, NOTES_MAX).ok()?;
        let notes = String::from_utf8_lossy(&notes);
        notes
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix(LINKING))?
            .parse()
            .ok()
    }

    /// Removes its file: nothing of it is left.
    pub(super) fn forget(self) -> Result<(), StoreError> {
        Ok(fs::remove_file(&self.path).context("remove", &self.path)?)
    }
}

/// The temporary roots of all live sessions. To be called with the store's lock held exclusively.
pub(super) fn protected(tmp: &Path) -> Result<BTreeSet<StorePath>, StoreError> {
    noted(tmp, "")
}

/// Where live sessions build. To be called with the store's lock held exclusively.
pub(super) fn building(tmp: &Path) -> Result<BTreeSet<StorePath>, StoreError> {
    noted(tmp, BUILDING)
}

/// The paths that stand in the files of live sessions after `prefix`.
fn noted(tmp: &Path, prefix: &str) -> Result<BTreeSet<StorePath>, StoreError> {
    let mut paths = BTreeSet::new();
    let parse = |line: &str| line.strip_prefix(prefix)?.parse::<StorePath>().ok();
    for name in session_files(tmp)? {
        let path = tmp.join(format!("{name}.lock"));
        if !matches!(holder(&path)?, Holder::Live) {
            continue;
        }
        match fs::read_to_string(&path) {
            Ok(text) => paths.extend(text.lines().filter_map(parse)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => Err(error).context("read", &path)?,
        }
    }
    Ok(paths)
}

/// The names of all sessions that have a file.
fn session_files(tmp: &Path) -> Result<Vec<String>, StoreError> {
    let names = sorted_names(tmp)?.into_iter();
    Ok(names
        .filter_map(|name| {
            let name = name.to_str()?.strip_suffix(".lock")?;
            name.starts_with(PREFIX).then(|| name.to_owned())
        })
        .collect())
}

enum Holder {
    /// Somebody holds its lock.
    Live,
    /// Nobody held its lock, which is now held.
    Dead(File),
    /// It ended while we looked.
    Gone,
}

fn holder(path: &Path) -> Result<Holder, StoreError> {
    let file = match File::options().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Gone),
        other => other.context("open the lock file", path)?,
    };
    match file.try_lock() {
        Ok(()) if is_linked(&file, path)? => Ok(Holder::Dead(file)),
        Ok(()) => Ok(Holder::Gone),
        Err(fs::TryLockError::WouldBlock) => Ok(Holder::Live),
        Err(fs::TryLockError::Error(error)) => Ok(Err(error).context("lock", path)?),
    }
}

/// Removes a lock file, unless somebody holds the lock.
pub(super) fn remove_unheld(path: &Path) -> Result<(), StoreError> {
    if let Holder::Dead(_lock) = holder(path)? {
        fs::remove_file(path).context("remove", path)?;
    }
    Ok(())
}

/// Whether an open lock file still has its name: a lock on one without is no lock.
pub(super) fn is_linked(file: &File, path: &Path) -> Result<bool, StoreError> {
    Ok(file.metadata().context("read the attributes of", path)?.nlink() > 0)
}
