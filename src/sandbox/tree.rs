//! A small *tree of our own* on disk: directories, texts and links that a sandbox needs besides packages.
//!
//! Invariant: modes are those given here whatever the umask, and missing parents are directories of mode 0755.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::copy::{STORE_TIME, set_time_to};
use crate::fsio::{IoContext, PathError, walk_upwards};

/// A tree being written below a directory.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    dir: PathBuf,
}

impl Tree {
    /// Starts with an empty directory, which must not exist.
    pub(crate) fn create(dir: PathBuf) -> Result<Self, PathError> {
        make_dir(&dir, 0o755)?;
        Ok(Self { dir })
    }

    /// Where the tree is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A directory with its parents; gives where it is.
    pub(crate) fn directory(&self, below: &str) -> Result<PathBuf, PathError> {
        let mut path = self.dir.clone();
        for part in below.split('/').filter(|part| !part.is_empty()) {
            path.push(part);
            if !path.is_dir() {
                make_dir(&path, 0o755)?;
            }
        }
        Ok(path)
    }

    /// A regular file.
    pub(crate) fn file(&self, below: &str, text: &str, mode: u32) -> Result<PathBuf, PathError> {
        let path = self.prepare(below)?;
        fs::write(&path, text).context("write", &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).context("set the mode of", &path)?;
        Ok(path)
    }

    /// A program.
    pub(crate) fn program(&self, below: &str, bytes: &[u8]) -> Result<PathBuf, PathError> {
        let path = self.prepare(below)?;
        fs::write(&path, bytes).context("write", &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).context("set the mode of", &path)?;
        Ok(path)
    }

    /// Gives everything in it the time that the store's files have: when it was made is nothing to a build.
    pub(crate) fn settle(&self) -> Result<(), PathError> {
        settle(&self.dir)
    }

    /// A symlink.
    pub(crate) fn link(&self, below: &str, target: &str) -> Result<(), PathError> {
        let path = self.prepare(below)?;
        symlink(target, &path).context("create the link", &path)
    }

    fn prepare(&self, below: &str) -> Result<PathBuf, PathError> {
        let (parent, name) = below.rsplit_once('/').unwrap_or(("", below));
        Ok(self.directory(parent)?.join(name))
    }
}

fn settle(path: &Path) -> Result<(), PathError> {
    walk_upwards(path).try_for_each(|entry| set_time_to(entry?.path(), STORE_TIME))
}

/// Creates a directory of exactly this mode.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<(), PathError> {
    fs::create_dir(path).context("create directory", path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).context("set the mode of", path)
}

/// Closes a directory to other users: nobody may meddle with a build's `/tmp`, or use what it makes before its modes
/// are the store's.
pub(crate) fn close_to_others(path: &Path) -> Result<(), PathError> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).context("close to others", path)
}
