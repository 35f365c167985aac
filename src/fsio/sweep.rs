//! To *sweep* is to remove the temporary files that killed processes left beside what they were writing.
//!
//! Invariant: whoever writes a temporary file holds its lock from before its first byte until it has its name, so that one
//! whose lock can be taken is nobody's. Where a file system has no locks, nothing is swept.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::OFlag;

use super::{TEMPORARY_PREFIX, sorted_names};

/// Letters and digits after [`TEMPORARY_PREFIX`].
pub(super) const RANDOM: usize = 6;

/// Directories that this process has swept: once is enough, and they may be large.
static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Removes from `dir` what killed writers left, the first time that it is asked to. What cannot be removed stays: what
/// a command was asked to do does not depend on it.
pub fn sweep(dir: &Path) {
    let Ok(place) = dir.canonicalize() else { return };
    let mut swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if swept.insert(place.clone()) {
        drop(swept);
        sweep_now(&place);
    }
}

fn sweep_now(dir: &Path) {
    for name in sorted_names(dir).unwrap_or_default() {
        let path = dir.join(&name);
        if is_temporary(&name)
            && let Some(_lock) = lock_nobodys(&path)
        {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Whether a name is one that temporary files get.
pub fn is_temporary(name: &OsStr) -> bool {
    let random = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY_PREFIX));
    random.is_some_and(|random| random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// The lock of a file that nobody writes any more. It is held until the file is removed: a writer that has made its file and
/// not locked it yet finds it locked, or gone, and begins again.
fn lock_nobodys(path: &Path) -> Option<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path).ok()?;
    let opened = file.metadata().ok()?;
    if !opened.is_file() || file.try_lock().is_err() {
        return None;
    }
    // Its writer may have given it its name, and let go, before it was locked here.
    let named = fs::symlink_metadata(path).ok()?;
    ((opened.dev(), opened.ino()) == (named.dev(), named.ino())).then_some(file)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use super::super::{AtomicFile, write_atomic};
    use super::*;

    #[test]
    fn what_a_killed_writer_left_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let own = AtomicFile::create(&dir.path().join("own")).unwrap();
        for name in [
            ".layerize-Ab3dEf",
            ".layerize-a_b_c_",
            ".layerize-ABCDE",
            ".layerize-a.cdef",
            "file",
        ] {
            fs::write(dir.path().join(name), "half").unwrap();
        }
        fs::create_dir(dir.path().join(".layerize-direct")).unwrap();
        symlink("file", dir.path().join(".layerize-symlnk")).unwrap();
        let locked = File::create(dir.path().join(".layerize-locked")).unwrap();
        locked.lock().unwrap();
        sweep_now(dir.path());
        let names: Vec<_> = sorted_names(dir.path()).unwrap();
        let of_own = names.iter().filter(|name| is_temporary(name)).count();
        assert_eq!(
            of_own, 4,
            "the one being written, the locked one, a directory, a link: {names:?}"
        );
        assert!(!names.contains(&".layerize-Ab3dEf".into()) && names.contains(&".layerize-a_b_c_".into()));
        assert!(names.contains(&".layerize-ABCDE".into()) && names.contains(&".layerize-a.cdef".into()));
        drop(own);
    }

    #[test]
    fn the_next_writer_to_a_directory_sweeps_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".layerize-Ab3dEf"), "half").unwrap();
        write_atomic(&dir.path().join("file"), b"whole").unwrap();
        assert_eq!(sorted_names(dir.path()).unwrap(), ["file"]);
    }

    /// A writer whose file is swept between its making and its locking begins again.
    #[test]
    fn writers_and_sweepers_at_one_time_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let dir = dir.path();
                scope.spawn(move || {
                    for number in 0..50 {
                        let path = dir.join(format!("{writer}-{number}"));
                        let mut file = AtomicFile::create(&path).unwrap();
                        file.write_all(b"x").unwrap();
                        file.publish_unsynced().unwrap();
                        sweep_now(dir);
                    }
                });
            }
        });
        assert_eq!(sorted_names(dir.path()).unwrap().len(), 200);
    }
}
