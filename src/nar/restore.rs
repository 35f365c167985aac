//! A *restore* unpacks an archive to disk.
//!
//! Invariant: it writes nowhere but below its destination, which it makes itself, and a restore that fails
//! leaves nothing there.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::{Entry, EntryKind, NarError, check_length, read};
use crate::fsio::{IoContext, remove_tree};

/// Unpacks an archive to `dest`, which must not exist; hostile archives are errors that leave nothing.
///
/// Files get mode 0644 or 0755, directories what the umask leaves of 0777.
pub fn restore(source: &mut dyn Read, dest: &Path) -> Result<(), NarError> {
    if fs::symlink_metadata(dest).is_ok() {
        Err(io::Error::from(io::ErrorKind::AlreadyExists)).context("unpack an archive to", dest)?;
    }
    read(source, &mut |entry, contents| make(entry, contents, dest)).inspect_err(|_| {
        // The first error is the one worth telling.
        let _ = remove_tree(dest);
    })
}

/// Makes one entry. Every directory above it was made here, so no symlink can lead elsewhere.
fn make(entry: &Entry, contents: &mut dyn Read, dest: &Path) -> Result<(), NarError> {
    let path = entry.below(dest);
    check_length(&path, 0)?;
    match &entry.kind {
        EntryKind::Directory => fs::create_dir(&path).context("create directory", &path)?,
        EntryKind::Symlink { target } => {
            symlink(OsStr::from_bytes(target), &path).context("create the symlink", &path)?;
        }
        EntryKind::File { executable, .. } => {
            let mut file = File::create_new(&path).context("create", &path)?;
            io::copy(contents, &mut file).context("write", &path)?;
            let mode = if *executable { 0o755 } else { 0o644 };
            file.set_permissions(Permissions::from_mode(mode))
                .context("set the mode of", &path)?;
        }
    }
    Ok(())
}
