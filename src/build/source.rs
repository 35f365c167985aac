//! The *writable copy* of a source in which a script works.
//!
//! Invariant: the copy's modes and times do not depend on the machine or the clock. All times are equal, so that
//! `make` does not take a generated file of a release for older than what it was generated from.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::tree::make_dir;
use crate::fsio::{IoContext, PathError, sorted_names};

/// Modification time of all that a script finds in its source, and `SOURCE_DATE_EPOCH`: 1980-01-01, the oldest
/// time that a zip archive can hold.
pub(super) const SOURCE_DATE_EPOCH: i64 = 315_532_800;

/// Copies the directory `source` to `dest`, or the file `source` to `dest/NAME`; `dest` must not exist.
pub(super) fn copy_writable(source: &Path, name: &str, dest: &Path) -> Result<(), PathError> {
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
        fs::copy(source, dest).context("copy", source)?;
        let mode = if metadata.permissions().mode() & 0o111 != 0 {
            0o755
        } else {
            0o644
        };
        fs::set_permissions(dest, fs::Permissions::from_mode(mode)).context("set the mode of", dest)?;
    }
    set_time(dest)
}

fn set_time(path: &Path) -> Result<(), PathError> {
    let time = Timespec {
        tv_sec: SOURCE_DATE_EPOCH,
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
