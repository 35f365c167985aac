//! *Things of caches* that may go at any time, and when each was used last: its modification time, which nothing else needs.
//!
//! Invariant: what cannot be noted or measured costs room or time, and never more: a use that is not noted makes a thing go
//! earlier, and a size is only taken for as long as nobody had use for the thing since it was measured.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};

use super::{PathError, TEMPORARY_PREFIX, read_limited, sorted_names, walk, write_atomic};

/// A file or directory of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disposable {
    /// Where it is.
    pub path: PathBuf,
    /// What it takes up in bytes.
    pub bytes: u64,
    /// When it was used last.
    pub used: SystemTime,
}

/// Notes that a file, directory or link is used now; false where that cannot be done.
pub fn note_use(path: &Path) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// The files below a directory, sorted, but for those that are being written; none where it is missing. What goes meanwhile
/// is left out. `go_on` is asked before each, and ends the list.
pub fn disposable_files(dir: &Path, go_on: &dyn Fn() -> bool) -> Vec<Disposable> {
    let entries = walk(dir).take_while(|_| go_on()).filter_map(Result::ok);
    let files = entries.filter_map(|entry| {
        let metadata = entry.path().symlink_metadata().ok()?;
        let is_temporary = entry.file_name().as_bytes().starts_with(TEMPORARY_PREFIX.as_bytes());
        (metadata.is_file() && !is_temporary).then(|| Disposable {
            bytes: metadata.len(),
            used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            path: entry.into_path(),
        })
    });
    files.collect()
}

/// Largest note of a size, in bytes.
const NOTE_MAX: u64 = 100;

/// The directory `dir` of a cache that was used last at `used`, with its size, which `note` keeps for as long as that stays
/// so; `None` where it is gone or `go_on` said no.
pub fn disposable_tree(dir: &Path, used: SystemTime, note: &Path, go_on: &dyn Fn() -> bool) -> Option<Disposable> {
    let bytes = match noted(note, used) {
        Some(bytes) => bytes,
        None => measure(dir, used, note, go_on)?,
    };
    Some(Disposable {
        path: dir.to_owned(),
        bytes,
        used,
    })
}

/// Nanoseconds since 1970.
fn stamp(moment: SystemTime) -> u128 {
    moment
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_nanos()
}

fn noted(note: &Path, used: SystemTime) -> Option<u64> {
    let text = String::from_utf8(read_limited(note, NOTE_MAX).ok()?).ok()?;
    let (bytes, at) = text.trim_end().split_once(' ')?;
    (at.parse() == Ok(stamp(used))).then(|| bytes.parse().ok())?
}

fn measure(dir: &Path, used: SystemTime, note: &Path, go_on: &dyn Fn() -> bool) -> Option<u64> {
    let mut bytes = 0;
    for entry in walk(dir) {
        if !go_on() {
            return None;
        }
        // What goes meanwhile takes up nothing.
        let metadata = entry.ok().and_then(|entry| entry.path().symlink_metadata().ok());
        bytes += metadata
            .filter(fs::Metadata::is_file)
            .map_or(0, |metadata| metadata.len());
    }
    // Where it cannot be noted it is measured again.
    let _ = write_atomic(note, format!("{bytes} {}\n", stamp(used)).as_bytes());
    Some(bytes)
}

/// Bytes that are free for this user on the file system of `path`.
pub fn free_bytes(path: &Path) -> Result<u64, PathError> {
    use super::IoContext;
    let stat = rustix::fs::statvfs(path).map_err(std::io::Error::from);
    let stat = stat.context("look at the file system of", path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Whether two paths are on one file system, as far as can be told.
pub fn on_one_disk(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev());
    matches!((device(one), device(other)), (Ok(one), Ok(other)) if one == other)
}

/// When a file was used last; `None` where it is gone.
pub fn last_use(path: &Path) -> Option<SystemTime> {
    path.symlink_metadata().ok()?.modified().ok()
}

/// The names in a directory of a cache; none where it is missing.
pub fn cached_names(dir: &Path) -> Result<Vec<String>, PathError> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let names = sorted_names(dir)?.into_iter();
    Ok(names.filter_map(|name| name.into_string().ok()).collect())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_was_measured_counts_until_the_next_use() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, note) = (dir.path().join("tree"), dir.path().join("size"));
        fs::create_dir_all(tree.join("sub")).unwrap();
        fs::write(tree.join("sub/a"), "four").unwrap();
        let used = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_234_567_890_123);
        let size = |used| disposable_tree(&tree, used, &note, &|| true).unwrap().bytes;
        assert_eq!(size(used), 4);
        fs::write(tree.join("b"), "more").unwrap();
        assert_eq!(size(used), 4, "nobody had use for it since");
        assert_eq!(size(used + Duration::from_nanos(1)), 8);
        for damage in ["", "x", "8", "8 x", &"9".repeat(200)] {
            fs::write(&note, damage).unwrap();
            assert_eq!(size(used), 8, "{damage}");
        }
        assert_eq!(
            disposable_tree(&tree, used - Duration::from_nanos(1), &note, &|| false),
            None
        );
    }

    #[test]
    fn files_are_listed_but_for_those_on_their_way() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("ab")).unwrap();
        for name in ["ab/c", "ab/.layerize-x", "d"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let names = |go_on: &dyn Fn() -> bool| -> Vec<(PathBuf, u64)> {
            let files = disposable_files(dir.path(), go_on).into_iter();
            files
                .map(|file| (file.path.strip_prefix(dir.path()).unwrap().to_owned(), file.bytes))
                .collect()
        };
        assert_eq!(names(&|| true), [("ab/c".into(), 4), ("d".into(), 1)]);
        let left = Cell::new(5);
        assert_eq!(names(&|| left.replace(left.get() - 1) > 1).len(), 1);
        assert_eq!(disposable_files(&dir.path().join("missing"), &|| true), []);
    }

    #[test]
    fn a_use_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(old)
            .unwrap();
        assert_eq!(last_use(&file), Some(old));
        assert!(note_use(&file) && last_use(&file) > Some(old));
        assert!(!note_use(&dir.path().join("missing")));
    }
}
