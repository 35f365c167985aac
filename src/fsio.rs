//! File-system *operations with their paths*: every error names what was being done to which path.
//!
//! Invariant: a published file or directory appears whole under its final name or not at all (written
//! beside it, synced, renamed). What the user names as an output goes through `output`, which tells files from devices,
//! pipes and links. This is the only module that may list a directory, and it lists sorted.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

mod output;
mod owner;
mod remove;
mod stamp;
mod sweep;
mod used;
mod walk;

pub use output::{Target, is_standard_output, write_output};
pub use owner::{Owner, give, keep_owner, owner_at};
pub use remove::{remove_tree, remove_tree_while};
pub use stamp::Stamp;
pub use sweep::{is_temporary, sweep};
pub use used::{
    Disposable, cached_names, disposable_files, disposable_tree, free_bytes, last_use, note_use, on_one_disk,
};
pub use walk::{walk, walk_upwards};

/// A path without `.` and, where a name stands before it, `..`; no link is looked at. `..` at the root leads nowhere.
pub fn normalize(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(normal.components().next_back(), Some(Component::Normal(_))) => {
                normal.pop();
            }
            Component::ParentDir if normal.has_root() => {}
            component => normal.push(component),
        }
    }
    normal
}

/// An I/O error with what was being done and to which path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", path.display())]
pub struct PathError {
    /// What was being done, as an infinitive: "read", "create directory".
    pub action: &'static str,
    /// The path it was done to.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

impl PathError {
    /// The kind of the I/O error behind it.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

/// The text of an error with those of its causes: `cannot read `x`: no such file`. A cause that says the same as the error
/// before it, as transparent ones do, is said once.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in std::iter::successors(Some(error), |error| error.source()) {
        let text = cause.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
    }
    texts.join(": ")
}

/// Adds the action and the path to an I/O result.
pub trait IoContext<T> {
    /// `file.read(..).context("read", &path)?`
    fn context(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, PathError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, PathError> {
        self.map_err(|source| PathError {
            action,
            path: path.as_ref().to_owned(),
            source,
        })
    }
}

impl<T> IoContext<T> for nix::Result<T> {
    fn context(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, PathError> {
        self.map_err(io::Error::from).context(action, path)
    }
}

/// Copies a file and its mode.
pub fn copy_file(from: &Path, to: &Path) -> Result<(), PathError> {
    match fs::copy(from, to) {
        Ok(_) => Ok(()),
        Err(error) => Err(copy_error(error, from, to)),
    }
}

/// The error of a copy: it names what could not be written to where that is full, and else what was to be copied.
pub fn copy_error(source: io::Error, from: &Path, to: &Path) -> PathError {
    let is_full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let (action, path) = if is_full { ("write", to) } else { ("copy", from) };
    PathError {
        action,
        path: path.to_owned(),
        source,
    }
}

/// The names in a directory, sorted by bytes.
pub fn sorted_names(dir: &Path) -> Result<Vec<OsString>, PathError> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that lists a directory; it sorts"
    )]
    let entries = fs::read_dir(dir).context("list directory", dir)?;
    let mut names = entries
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<Vec<_>>>()
        .context("list directory", dir)?;
    names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(names)
}

/// Creates a directory and its missing parents.
pub fn create_dir_all(dir: &Path) -> Result<(), PathError> {
    let missing = dir
        .ancestors()
        .take_while(|place| owner_at(place).is_some() && !place.exists());
    let missing: Vec<&Path> = missing.collect();
    fs::create_dir_all(dir).context("create directory", dir)?;
    missing.into_iter().try_for_each(owner::give_lasting)
}

/// Reads a whole file of at most `limit` bytes; a larger one is an error, not a truncation.
pub fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, PathError> {
    use std::io::Read;
    let file = File::open(path).context("open", path)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).context("read", path)?;
    if bytes.len() as u64 > limit {
        let error = io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes"));
        return Err(error).context("read", path);
    }
    Ok(bytes)
}

/// Writes `bytes` to `path` so that a reader sees the old file or the whole new one, also after a crash. For files of our
/// own: what a user names goes through [`write_output`].
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), PathError> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).context("write", path)?;
    file.publish()
}

/// Files that exist under a temporary name, for [`remove_temporaries`].
static TEMPORARIES: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Removes every file that is being written at this moment: for a process that is about to exit on a signal,
/// when nothing is dropped.
pub fn remove_temporaries() {
    for path in lock_temporaries().iter() {
        // Nothing better can be done on the way out.
        let _ = fs::remove_file(path);
    }
}

fn lock_temporaries() -> std::sync::MutexGuard<'static, BTreeSet<PathBuf>> {
    TEMPORARIES.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What the names of files begin with that are being written; a process that was killed leaves them, until they are
/// [swept](sweep()).
pub const TEMPORARY_PREFIX: &str = ".layerize-";

/// How often a temporary file is made anew that others took for a killed process's.
const ATTEMPTS_MAX: usize = 100;

/// A file being written beside its final name; dropped unpublished, it leaves nothing behind.
pub struct AtomicFile {
    temp: Option<tempfile::NamedTempFile>,
    path: PathBuf,
}

impl AtomicFile {
    /// Starts a new file that will be named `path`, with the permissions of the file that it replaces, or else those that
    /// the umask gives to new files. What killed processes left in its directory goes.
    pub fn create(path: &Path) -> Result<Self, PathError> {
        let replaced = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file);
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        sweep(parent);
        let temp = locked_temporary(parent)?;
        lock_temporaries().insert(temp.path().to_owned());
        let file = Self {
            temp: Some(temp),
            path: path.to_owned(),
        };
        if let (Some(replaced), Some(temp)) = (replaced, &file.temp) {
            let mode = fs::Permissions::from_mode(replaced.permissions().mode() & 0o777);
            temp.as_file()
                .set_permissions(mode)
                .context("set the permissions of", path)?;
        }
        Ok(file)
    }

    /// The open file, to be written to.
    pub fn file(&mut self) -> &mut File {
        self.temp().as_file_mut()
    }

    fn temp(&mut self) -> &mut tempfile::NamedTempFile {
        self.temp
            .as_mut()
            .expect("taken only by publishing, which consumes the value")
    }

    /// Syncs the file, renames it to its final name and syncs the directory.
    pub fn publish(mut self) -> Result<(), PathError> {
        self.temp().as_file().sync_data().context("sync", &self.path)?;
        self.rename()?;
        sync_parent(&self.path)
    }

    /// As [`publish`](Self::publish) under a name in the same directory that depends on what was written.
    pub fn publish_as(mut self, path: &Path) -> Result<(), PathError> {
        path.clone_into(&mut self.path);
        self.publish()
    }

    /// As [`publish`](Self::publish) without waiting for the disk: for caches that verify what they read.
    pub fn publish_unsynced(mut self) -> Result<(), PathError> {
        self.rename()
    }

    fn rename(&mut self) -> Result<(), PathError> {
        let temp = self.temp.take().expect("taken only here");
        let name = temp.path().to_owned();
        let result = temp.persist(&self.path).map_err(|error| error.error);
        lock_temporaries().remove(&name);
        result.map(drop).context("rename a temporary file to", &self.path)
    }
}

/// A new temporary file in `dir`, locked where the file system has locks: that tells [`sweep()`] that it is being written.
fn locked_temporary(dir: &Path) -> Result<tempfile::NamedTempFile, PathError> {
    for _ in 0..ATTEMPTS_MAX {
        let temp = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .rand_bytes(sweep::RANDOM)
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(dir)
            .context("create a temporary file in", dir)?;
        let is_ours = match temp.as_file().try_lock() {
            // A sweeper may have removed it before it was locked, or be about to.
            Ok(()) => temp.as_file().metadata().is_ok_and(|metadata| metadata.nlink() > 0),
            Err(fs::TryLockError::WouldBlock) => false,
            Err(fs::TryLockError::Error(_)) => true,
        };
        if is_ours {
            owner::give_lasting(temp.path())?;
            return Ok(temp);
        }
    }
    let error = io::Error::other("other processes remove it at once, each time");
    Err(error).context("create a temporary file in", dir)
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(temp) = self.temp.take() {
            let name = temp.path().to_owned();
            drop(temp);
            lock_temporaries().remove(&name);
        }
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temp().as_file_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temp().as_file_mut().flush()
    }
}

/// Flushes the directory that holds `path`, so that a rename in it survives a crash.
pub fn sync_parent(path: &Path) -> Result<(), PathError> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .context("sync directory", parent)
}

/// Flushes all written data of the file system that holds `path`.
pub fn sync_file_system(path: &Path) -> Result<(), PathError> {
    let dir = File::open(path).context("open", path)?;
    rustix::fs::syncfs(&dir)
        .map_err(io::Error::from)
        .context("sync the file system of", path)
}

/// An advisory lock on a file, between processes and threads; released when dropped.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

/// Whether others may hold the lock at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Many holders, no exclusive one.
    Shared,
    /// One holder.
    Exclusive,
}

impl FileLock {
    /// Waits for the lock on `path`, creating the file where it is missing.
    pub fn acquire(path: &Path, kind: LockKind) -> Result<Self, PathError> {
        let file = Self::open(path)?;
        match kind {
            LockKind::Shared => file.lock_shared(),
            LockKind::Exclusive => file.lock(),
        }
        .context("lock", path)?;
        Ok(Self { file })
    }

    /// Takes the lock if that is possible without waiting.
    pub fn try_acquire(path: &Path, kind: LockKind) -> Result<Option<Self>, PathError> {
        let file = Self::open(path)?;
        let result = match kind {
            LockKind::Shared => file.try_lock_shared(),
            LockKind::Exclusive => file.try_lock(),
        };
        match result {
            Ok(()) => Ok(Some(Self { file })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error).context("lock", path),
        }
    }

    fn open(path: &Path) -> Result<File, PathError> {
        let mut options = File::options();
        let file = options.create(true).truncate(false).read(true).write(true).open(path);
        let file = file.context("open the lock file", path)?;
        owner::give_lasting(path)?;
        Ok(file)
    }

    /// The locked file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_by_bytes() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a", "Z", "ä", "a-b"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(sorted_names(dir.path()).unwrap(), ["Z", "a", "a-b", "b", "ä"]);
    }

    #[test]
    fn read_only_trees_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("sub")).unwrap();
        fs::write(tree.join("sub/file"), "x").unwrap();
        fs::set_permissions(tree.join("sub"), fs::Permissions::from_mode(0o555)).unwrap();
        fs::set_permissions(&tree, fs::Permissions::from_mode(0o555)).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        remove_tree(&tree).unwrap();
    }

    #[test]
    fn an_unpublished_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = AtomicFile::create(&dir.path().join("f")).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(sorted_names(dir.path()).unwrap(), Vec::<OsString>::new());
        assert!(lock_temporaries().iter().all(|path| !path.starts_with(dir.path())));
        write_atomic(&dir.path().join("f"), b"whole").unwrap();
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"whole");
    }

    #[test]
    fn errors_name_action_and_path() {
        let error = read_limited(Path::new("/nonexistent/x"), 10).unwrap_err();
        assert_eq!(error.to_string(), "cannot open `/nonexistent/x`");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_over_the_limit_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_limited(&path, 5).unwrap(), b"12345");
        assert_eq!(read_limited(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn an_exclusive_lock_excludes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = FileLock::acquire(&path, LockKind::Exclusive).unwrap();
        assert!(FileLock::try_acquire(&path, LockKind::Shared).unwrap().is_none());
        drop(held);
        let shared = FileLock::acquire(&path, LockKind::Shared).unwrap();
        assert!(FileLock::try_acquire(&path, LockKind::Shared).unwrap().is_some());
        drop(shared);
    }
}
