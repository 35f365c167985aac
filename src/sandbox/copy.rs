//! The *writable copy* of a source in which a script works.
//!
//! Invariant: the copy's modes and times do not depend on the machine or the clock. All times are equal, so that
//! `make` does not take a generated file of a release for older than what it was generated from.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::tree::make_dir;
use crate::fsio::{IoContext, PathError, copy_file, sorted_names};

/// Modification time of all that a script finds in its source, and `SOURCE_DATE_EPOCH`: 1980-01-01, the oldest
/// time that a zip archive can hold.
pub(crate) const SOURCE_DATE_EPOCH: i64 = 315_532_800;

/// Modification time of all that is in a store.
pub(super) const STORE_TIME: i64 = 1;

/// Copies the directory `source` to `dest`, or the file `source` to `dest/NAME`; `dest` must not exist.
pub(crate) fn copy_writable(source: &Path, name: &str, dest: &Path) -> Result<(), PathError> {
    let kind = fs::symlink_metadata(source).context("read", source)?.file_type();
    if kind.is_dir() {
        return copy(source, dest);
    }
    make_dir(dest, 0o755)?;
    copy(source, &dest.join(name))?;
    set_time(dest)
}

fn copy(source: &Path, dest: &Path) -> Result<(), PathError> {
    let metadata = fs::symlink_metadata(source).context("read", source)?;
    if metadata.is_dir() {
        make_dir(dest, 0o755)?;
        for name in sorted_names(source)? {
            copy(&source.join(&name), &dest.join(&name))?;
        }
    } else if metadata.is_symlink() {
        let target = fs::read_link(source).context("read the link", source)?;
        symlink(target, dest).context("create the link", dest)?;
    } else {
        copy_file(source, dest)?;
        let mode = if metadata.permissions().mode() & 0o111 != 0 {
            0o755
        } else {
            0o644
        };
        fs::set_permissions(dest, fs::Permissions::from_mode(mode)).context("set the mode of", dest)?;
    }
    set_time(dest)
}

/// What a copy looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// As a script's own files do: it can write to them.
    Writable,
    /// As a tree of the store does: modes as they are, and the time of all that is in a store.
    Sealed,
}

/// Gives a copy the mode of what it was copied from, and the time of the store's files.
fn seal(source: &Path, dest: &Path) -> Result<(), PathError> {
    let metadata = fs::symlink_metadata(source).context("read", source)?;
    if !metadata.is_symlink() {
        let mode = fs::Permissions::from_mode(metadata.permissions().mode() & 0o777);
        fs::set_permissions(dest, mode).context("set the mode of", dest)?;
    }
    set_time_to(dest, STORE_TIME)
}

/// Copies what is in `source` into the empty directory `dest` in such an order that `dest` and all below it are listed
/// the other way round: for file systems that list what was created in some order, first to last or last to first.
pub(crate) fn copy_in_other_order(source: &Path, dest: &Path, look: Look) -> Result<(), PathError> {
    let probes = ["1", "2"].map(|name| dest.join(name));
    for probe in &probes {
        fs::write(probe, "").context("write", probe)?;
    }
    let oldest_first = listed(dest)?.first().is_some_and(|name| name == "1");
    for probe in &probes {
        fs::remove_file(probe).context("remove", probe)?;
    }
    copy_entries(source, dest, oldest_first, look)?;
    match look {
        Look::Writable => Ok(()),
        Look::Sealed => seal(source, dest),
    }
}

fn copy_entries(source: &Path, dest: &Path, oldest_first: bool, look: Look) -> Result<(), PathError> {
    let mut names = listed(source)?;
    if oldest_first {
        names.reverse();
    }
    for name in names {
        let (from, to) = (source.join(&name), dest.join(&name));
        let metadata = fs::symlink_metadata(&from).context("read", &from)?;
        match metadata.is_dir() {
            true => {
                make_dir(&to, metadata.permissions().mode() & 0o7777 | 0o700)?;
                copy_entries(&from, &to, oldest_first, look)?;
                set_time(&to)?;
            }
            false => copy(&from, &to)?,
        }
        if look == Look::Sealed {
            seal(&from, &to)?;
        }
    }
    Ok(())
}

/// The names in a directory in the file system's own order.
#[expect(clippy::disallowed_methods, reason = "the file system's order is what is asked for")]
fn listed(dir: &Path) -> Result<Vec<OsString>, PathError> {
    let entries = fs::read_dir(dir).context("list", dir)?;
    entries
        .map(|entry| Ok(entry.context("list", dir)?.file_name()))
        .collect()
}

fn set_time(path: &Path) -> Result<(), PathError> {
    set_time_to(path, SOURCE_DATE_EPOCH)
}

/// Sets both times of a file, or of a symlink itself.
pub(super) fn set_time_to(path: &Path, seconds: i64) -> Result<(), PathError> {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path.as_os_str().as_bytes(), &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(std::io::Error::from)
        .context("set the time of", path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_read_only_tree_becomes_writable_with_equal_times() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("s");
        fs::create_dir_all(source.join("sub")).unwrap();
        fs::write(source.join("sub/tool"), "x").unwrap();
        fs::write(source.join("text"), "y").unwrap();
        symlink("missing", source.join("link")).unwrap();
        for (path, mode) in [("sub/tool", 0o555), ("text", 0o444), ("sub", 0o555)] {
            fs::set_permissions(source.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        let dest = dir.path().join("d");
        copy_writable(&source, "unused", &dest).unwrap();
        for (path, mode) in [("", 0o755), ("sub", 0o755), ("sub/tool", 0o755), ("text", 0o644)] {
            let metadata = fs::metadata(dest.join(path)).unwrap();
            assert_eq!(
                (metadata.mode() & 0o7777, metadata.mtime()),
                (mode, SOURCE_DATE_EPOCH),
                "{path}"
            );
        }
        assert_eq!(fs::read_link(dest.join("link")).unwrap(), Path::new("missing"));
        assert_eq!(
            fs::symlink_metadata(dest.join("link")).unwrap().mtime(),
            SOURCE_DATE_EPOCH
        );
    }

    #[test]
    fn a_single_file_is_placed_in_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "x").unwrap();
        copy_writable(&dir.path().join("f"), "hello.c", &dir.path().join("d")).unwrap();
        assert_eq!(sorted_names(&dir.path().join("d")).unwrap(), ["hello.c"]);
    }
}
