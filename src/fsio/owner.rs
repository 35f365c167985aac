//! The *owner* of a place keeps what root makes there: a user's store that `sudo layerize` ran in stays the user's.
//!
//! Invariant: only where this process is root, only below directories that were named by [`keep_owner`], and only what it
//! makes itself and what is to stay: what is being built is whose the builder is.

use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{IoContext, PathError};

/// User and group.
pub type Owner = (u32, u32);

/// The directory of a place in which everything is for a while only.
const SCRATCH: &str = "tmp";

/// Places of other users, and who they are.
static PLACES: Mutex<Vec<(PathBuf, Owner)>> = Mutex::new(Vec::new());

/// From now on, what this process makes below `dir` is given to the owner of `dir`, where that is somebody else and this
/// process may give things away.
pub fn keep_owner(dir: &Path) {
    let Ok(metadata) = dir.metadata() else { return };
    let owner = (metadata.uid(), metadata.gid());
    if nix::unistd::geteuid().is_root() && metadata.uid() != 0 {
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (dir.to_owned(), owner);
        if !places.contains(&place) {
            places.push(place);
        }
    }
}

/// Who gets what this process makes at `path`; `None`: it keeps it.
pub fn owner_at(path: &Path) -> Option<Owner> {
    let places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut places = places.iter().rev();
    places.find(|(dir, _)| path.starts_with(dir)).map(|(_, owner)| *owner)
}

/// As [`give`] but for what is made to be worked in.
pub(super) fn give_lasting(path: &Path) -> Result<(), PathError> {
    let places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    let scratch = places.iter().map(|(dir, _)| dir.join(SCRATCH));
    let is_scratch = scratch
        .into_iter()
        .any(|scratch| path != scratch && path.starts_with(scratch));
    drop(places);
    if is_scratch { Ok(()) } else { give(path) }
}

/// Gives what was just made at `path` to whoever the place belongs to; one that is gone again needs no owner.
pub fn give(path: &Path) -> Result<(), PathError> {
    let Some((user, group)) = owner_at(path) else {
        return Ok(());
    };
    match lchown(path, Some(user), Some(group)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.context("change the owner of", path),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::{AtomicFile, FileLock, LockKind, create_dir_all, write_atomic};
    use super::*;

    fn owner(path: &Path) -> Owner {
        let metadata = path.symlink_metadata().unwrap();
        (metadata.uid(), metadata.gid())
    }

    #[test]
    fn what_root_makes_in_a_user_s_place_is_the_user_s() {
        if !nix::unistd::geteuid().is_root() {
            return crate::testing::skip("only root can give files away");
        }
        let dir = tempfile::tempdir().unwrap();
        let (theirs, ours) = (dir.path().join("theirs"), dir.path().join("ours"));
        create_dir_all(&theirs).unwrap();
        create_dir_all(&ours).unwrap();
        lchown(&theirs, Some(4242), Some(4243)).unwrap();
        for place in [&theirs, &ours] {
            keep_owner(place);
            create_dir_all(&place.join("a/b")).unwrap();
            write_atomic(&place.join("a/file"), b"").unwrap();
            drop(FileLock::acquire(&place.join("lock"), LockKind::Exclusive).unwrap());
            symlink("nowhere", place.join("link")).unwrap();
            give(&place.join("link")).unwrap();
            give(&place.join("missing")).unwrap();
            create_dir_all(&place.join("tmp/work")).unwrap();
            drop(AtomicFile::create(&place.join("unpublished")).unwrap());
        }
        assert_eq!(owner(&theirs.join("tmp/work")), (0, 0), "a build of root works there");
        for name in ["a", "a/b", "a/file", "lock", "link"] {
            assert_eq!(owner(&theirs.join(name)), (4242, 4243), "{name}");
            assert_eq!(owner(&ours.join(name)), (0, 0), "{name}");
        }
        assert_eq!(
            owner_at(&dir.path().join("theirs-not")),
            None,
            "whole names are compared"
        );
    }
}
