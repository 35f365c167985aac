//! A *canonical* tree has modes 0444 and 0555, modification times of one second after the epoch, and no extended
//! attributes: nothing in it differs that its archive does not tell.
//!
//! Invariant: canonicalising changes no file outside the tree (a file with hard links elsewhere is copied
//! first), and refuses what has no archive (sockets, fifos, devices) before it changes anything.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::error::StoreError;
use crate::fsio::{IoContext, PathError, owner_at, sorted_names};
use crate::nar::{self, EntryKind, NarError};

/// Modification time of everything in a store path, in seconds since the epoch. Zero is what some tools take for
/// "missing", so it is the second after.
pub const MTIME: i64 = 1;

/// Extended attributes that belong to the system's security policy and cannot be removed.
const POLICY_ATTRIBUTES: [&[u8]; 2] = [b"security.selinux", b"system.nfs4_acl"];

/// Most bytes that the names of one file's extended attributes take (Linux's `XATTR_LIST_MAX`).
const MAX_ATTRIBUTES: usize = 64 * 1024;

/// Makes the tree at `root` canonical, which will be at a path of `place` bytes.
pub(super) fn canonicalise(root: &Path, place: usize) -> Result<(), StoreError> {
    for (count, paths) in survey(root, place)?.into_values() {
        if count > paths.len() as u64 {
            for path in paths {
                break_link(&path)?;
            }
        }
    }
    seal_tree(root)
}

/// Files by device and inode that have more than one link: how many, and the paths in the tree.
type Shared = BTreeMap<(u64, u64), (u64, Vec<PathBuf>)>;

/// Looks at the whole tree at `root`, which will be at a path of `place` bytes, before anything is changed: refuses what
/// has no archive, opens directories up, notes hard links.
pub(super) fn survey(root: &Path, place: usize) -> Result<Shared, StoreError> {
    let mut survey = TreeSurvey {
        elsewhere: place.cast_signed() - root.as_os_str().len().cast_signed(),
        shared: BTreeMap::new(),
    };
    survey.look_at(root, 0)?;
    Ok(survey.shared)
}

struct TreeSurvey {
    /// How many bytes longer paths will be where the tree will be.
    elsewhere: isize,
    shared: Shared,
}

impl TreeSurvey {
    fn look_at(&mut self, path: &Path, depth: usize) -> Result<(), StoreError> {
        nar::check_length(path, self.elsewhere)?;
        let metadata = fs::symlink_metadata(path).context("read the attributes of", path)?;
        if metadata.is_dir() {
            if depth >= nar::MAX_DEPTH {
                return Err(NarError::TooDeep { path: path.to_owned() }.into());
            }
            take_over(path, &metadata)?;
            if metadata.mode() & 0o700 != 0o700 {
                fs::set_permissions(path, Permissions::from_mode(0o700)).context("make readable", path)?;
            }
            for name in sorted_names(path)? {
                self.look_at(&path.join(name), depth + 1)?;
            }
        } else if metadata.is_file() {
            if metadata.nlink() > 1 {
                let links = self.shared.entry((metadata.dev(), metadata.ino())).or_default();
                links.0 = metadata.nlink();
                links.1.push(path.to_owned());
            }
        } else if !metadata.is_symlink() {
            // The walk knows how to say what it is.
            nar::walk(path).next().transpose()?;
        }
        Ok(())
    }
}

/// Replaces a file by a copy of its own.
fn break_link(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let mut source = File::open(path).context("open", path)?;
    let mode = source.metadata().context("read the attributes of", path)?.mode();
    let mut copy = tempfile::Builder::new()
        .prefix(".layerize-")
        .tempfile_in(parent)
        .context("create a temporary file in", parent)?;
    io::copy(&mut source, copy.as_file_mut()).context("copy", path)?;
    copy.as_file()
        .set_permissions(Permissions::from_mode(mode & 0o777))
        .context("set the mode of", path)?;
    copy.persist(path)
        .map_err(|error| error.error)
        .context("replace", path)?;
    Ok(())
}

/// Gives everything its canonical owner, mode and time, contents of a directory before the directory itself.
fn seal_tree(path: &Path) -> Result<(), StoreError> {
    let metadata = fs::symlink_metadata(path).context("read the attributes of", path)?;
    if metadata.is_dir() {
        for name in sorted_names(path)? {
            seal_tree(&path.join(name))?;
        }
    } else {
        take_over(path, &metadata)?;
    }
    if !metadata.is_symlink() && metadata.mode() & 0o400 == 0 {
        // Without it the extended attributes of a file cannot be listed.
        fs::set_permissions(path, Permissions::from_mode(metadata.mode() & 0o777 | 0o400))
            .context("make readable", path)?;
    }
    drop_attributes(path)?;
    let kind = if metadata.is_symlink() {
        EntryKind::Symlink { target: Vec::new() }
    } else if metadata.is_dir() {
        EntryKind::Directory
    } else {
        EntryKind::File {
            executable: metadata.mode() & 0o100 != 0,
            size: metadata.len(),
        }
    };
    seal(path, &kind)
}

/// Gives one entry its canonical mode and time.
pub(super) fn seal(path: &Path, kind: &EntryKind) -> Result<(), StoreError> {
    if let Some(mode) = mode(kind) {
        fs::set_permissions(path, Permissions::from_mode(mode)).context("set the mode of", path)?;
    }
    let time = TimeSpec::new(MTIME, 0);
    utimensat(
        nix::fcntl::AT_FDCWD,
        path,
        &time,
        &time,
        UtimensatFlags::NoFollowSymlink,
    )
    .context("set the time of", path)?;
    Ok(())
}

/// The canonical mode of an entry; symlinks have none.
fn mode(kind: &EntryKind) -> Option<u32> {
    match kind {
        EntryKind::Symlink { .. } => None,
        EntryKind::Directory | EntryKind::File { executable: true, .. } => Some(0o555),
        EntryKind::File { executable: false, .. } => Some(0o444),
    }
}

/// What of an entry is not canonical; `None` where all is.
pub(super) fn deviation(path: &Path, kind: &EntryKind) -> Result<Option<String>, PathError> {
    let metadata = fs::symlink_metadata(path).context("read the attributes of", path)?;
    let actual = metadata.mode() & 0o7777;
    if let Some(expected) = mode(kind).filter(|&expected| expected != actual) {
        return Ok(Some(format!("its mode is {actual:04o}, not {expected:04o}")));
    }
    if metadata.mtime() != MTIME {
        return Ok(Some(
            "its modification time is not 1, so something wrote to it".to_owned(),
        ));
    }
    Ok(None)
}

/// Where we are root, makes us the owner of what a build's user owns, so that only root can change it later: or whoever the
/// store belongs to.
fn take_over(path: &Path, metadata: &fs::Metadata) -> Result<(), StoreError> {
    let (user, group) = owner_at(path).unwrap_or((0, 0));
    if nix::unistd::geteuid().is_root() && (metadata.uid(), metadata.gid()) != (user, group) {
        std::os::unix::fs::lchown(path, Some(user), Some(group)).context("change the owner of", path)?;
    }
    Ok(())
}

/// Removes extended attributes, access control lists and file capabilities among them.
fn drop_attributes(path: &Path) -> Result<(), StoreError> {
    let mut names = vec![0; 1024];
    let length = loop {
        match rustix::fs::llistxattr(path, &mut names[..]) {
            Ok(length) => break length,
            // The file system has no such thing.
            Err(rustix::io::Errno::NOTSUP) => return Ok(()),
            Err(rustix::io::Errno::RANGE) if names.len() < MAX_ATTRIBUTES => names.resize(MAX_ATTRIBUTES, 0),
            Err(error) => Err(io::Error::from(error)).context("list the extended attributes of", path)?,
        }
    };
    for name in names[..length].split_inclusive(|&byte| byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        if POLICY_ATTRIBUTES.contains(&name.to_bytes()) {
            continue;
        }
        rustix::fs::lremovexattr(path, name)
            .map_err(io::Error::from)
            .context("remove the extended attributes of", path)?;
    }
    Ok(())
}
