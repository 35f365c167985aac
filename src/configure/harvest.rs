//! The *harvest*: what maintainer scripts made or changed, told from what was there before.
//!
//! Invariant: two runs that left the same files give the same tree and record, whatever times and inode numbers say. A file
//! that a script only gave another mode or owner is recorded, and not copied.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::ConfigureError;
use super::record::{Entry, Maker, TREE};
use crate::fsio::{IoContext, copy_file, sorted_names};
use crate::sandbox::{CAPABILITY_ATTRIBUTE, OWNER_ATTRIBUTE};

/// Something in the directory that takes the changes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Harvested {
    /// What changes whenever it does.
    fingerprint: Fingerprint,
    /// Whose scripts made or changed it.
    by: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fingerprint {
    mode: u32,
    owner: Option<(u32, u32)>,
    /// Of what is not a directory: inode, size, time of the last change in nanoseconds.
    content: Option<(u64, u64, i128)>,
}

/// The directory that takes the changes, watched from script to script.
pub(super) struct Upper {
    dir: PathBuf,
    seen: BTreeMap<String, Harvested>,
}

impl Upper {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            seen: BTreeMap::new(),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes note of what changed since this was last called: scripts of the packages `by` did it.
    pub(super) fn look(&mut self, by: &BTreeSet<String>) -> Result<(), ConfigureError> {
        let mut found = BTreeMap::new();
        walk(&self.dir, "", &mut found)?;
        let known = std::mem::take(&mut self.seen);
        for (path, fingerprint) in found {
            let by = match known.get(&path) {
                None => by.clone(),
                Some(seen) if seen.fingerprint == fingerprint => seen.by.clone(),
                Some(seen) => seen.by.union(by).cloned().collect(),
            };
            self.seen.insert(path, Harvested { fingerprint, by });
        }
        Ok(())
    }

    /// What differs from the layers below, with its attributes. The record of the tools says what those are in their
    /// output, which is one of the layers.
    pub(super) fn changes(
        &self,
        lower: &[PathBuf],
        known: &BTreeMap<String, Entry>,
    ) -> Result<BTreeMap<String, Change>, ConfigureError> {
        let mut changes = BTreeMap::new();
        for (path, seen) in &self.seen {
            let place = self.dir.join(path);
            let metadata = fs::symlink_metadata(&place).context("read", &place)?;
            let below = lower.iter().map(|layer| layer.join(path));
            let below = below.into_iter().find(|place| place.symlink_metadata().is_ok());
            if metadata.file_type().is_char_device() {
                if below.is_some() {
                    let by = seen.by.clone();
                    changes.insert(path.clone(), Change::Removed { by });
                }
                continue;
            }
            let (uid, gid) = seen.fingerprint.owner.unwrap_or((0, 0));
            let entry = Entry {
                mode: image_mode(&metadata),
                uid,
                gid,
                capability: capability(&place),
                maker: Maker::Scripts,
                by: seen.by.clone(),
            };
            let is_new = match &below {
                None => true,
                Some(below) => !same(&place, &metadata, below)?,
            };
            let usual = known.get(path).map(|entry| (entry.mode, entry.uid, entry.gid));
            let of_below = below.as_ref().and_then(|below| below.symlink_metadata().ok());
            let before = usual.or_else(|| of_below.map(|metadata| (usual_mode(&metadata), 0, 0)));
            let same_attributes = before == Some((entry.mode, entry.uid, entry.gid)) && entry.capability.is_none();
            if is_new || !same_attributes {
                changes.insert(path.clone(), Change::Made { entry, is_new, place });
            }
        }
        Ok(changes)
    }
}

/// What scripts did to a path.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// They removed what a layer below has.
    Removed {
        /// The packages whose scripts did.
        by: BTreeSet<String>,
    },
    /// They made or changed it.
    Made {
        entry: Entry,
        /// Whether more than its attributes is new.
        is_new: bool,
        /// Where it is on disk.
        place: PathBuf,
    },
}

fn walk(dir: &Path, below: &str, found: &mut BTreeMap<String, Fingerprint>) -> Result<(), ConfigureError> {
    for name in sorted_names(dir)? {
        let place = dir.join(&name);
        let name = name.into_string().map_err(|name| ConfigureError::Name {
            path: crate::escape::shown_bytes(name.as_bytes()),
        })?;
        let path = if below.is_empty() {
            name
        } else {
            format!("{below}/{name}")
        };
        let metadata = fs::symlink_metadata(&place).context("read", &place)?;
        let time = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
        if metadata.is_dir() && metadata.mode() & 0o500 != 0o500 {
            // A directory that its owner may not list is the scripts' wish; ours is to look into it.
            let mode = metadata.mode();
            fs::set_permissions(&place, fs::Permissions::from_mode(mode | 0o700)).context("open", &place)?;
            walk(&place, &path, found)?;
            fs::set_permissions(&place, fs::Permissions::from_mode(mode)).context("close", &place)?;
        } else if metadata.is_dir() {
            walk(&place, &path, found)?;
        }
        let fingerprint = Fingerprint {
            mode: metadata.mode(),
            owner: owner(&place, &metadata),
            content: (!metadata.is_dir()).then(|| (metadata.ino(), metadata.len(), time)),
        };
        found.insert(path, fingerprint);
    }
    Ok(())
}

fn owner(place: &Path, metadata: &Metadata) -> Option<(u32, u32)> {
    if metadata.is_symlink() {
        return None;
    }
    let mut text = [0; 32];
    let size = rustix::fs::getxattr(place, OWNER_ATTRIBUTE, &mut text[..]).ok()?;
    let (user, group) = std::str::from_utf8(&text[..size]).ok()?.split_once(':')?;
    Some((user.parse().ok()?, group.parse().ok()?))
}

fn capability(place: &Path) -> Option<String> {
    let mut value = [0; 64];
    let size = rustix::fs::lgetxattr(place, CAPABILITY_ATTRIBUTE, &mut value[..]).ok()?;
    Some(value[..size].iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The mode that what is in a store path has in an image.
pub(super) fn usual_mode(metadata: &Metadata) -> u32 {
    match () {
        () if metadata.is_symlink() => 0o777,
        () if metadata.is_dir() || metadata.mode() & 0o111 != 0 => 0o755,
        () => 0o644,
    }
}

/// The mode that scripts meant: what was copied from a store path has its mode, which nobody chose.
fn image_mode(metadata: &Metadata) -> u32 {
    match metadata.mode() & 0o7777 {
        _ if metadata.is_symlink() => 0o777,
        0o444 => 0o644,
        0o555 => 0o755,
        mode => mode,
    }
}

/// Whether two entries are of one kind and have the same content.
fn same(a: &Path, metadata: &Metadata, b: &Path) -> Result<bool, ConfigureError> {
    let other = fs::symlink_metadata(b).context("read", b)?;
    if metadata.file_type() != other.file_type() {
        return Ok(false);
    }
    if metadata.is_symlink() {
        return Ok(fs::read_link(a).context("read the link", a)? == fs::read_link(b).context("read the link", b)?);
    }
    if !metadata.is_file() {
        return Ok(metadata.is_dir());
    }
    if metadata.len() != other.len() {
        return Ok(false);
    }
    same_bytes(a, b)
}

/// Whether two files have the same bytes; neither is held in memory, as packages have files of any size.
fn same_bytes(a: &Path, b: &Path) -> Result<bool, ConfigureError> {
    let open = |path: &Path| File::open(path).map(BufReader::new).context("open", path);
    let (mut one, mut other) = (open(a)?, open(b)?);
    loop {
        let (left, right) = (one.fill_buf().context("read", a)?, other.fill_buf().context("read", b)?);
        let size = left.len().min(right.len());
        if left[..size] != right[..size] {
            return Ok(false);
        }
        if size == 0 {
            return Ok(left.len() == right.len());
        }
        one.consume(size);
        other.consume(size);
    }
}

/// Copies an entry into the tree that becomes a store path; of a directory, the directory alone.
pub(super) fn copy_into(output: &Path, path: &str, source: &Path) -> Result<(), ConfigureError> {
    let dest = output.join(TREE).join(path);
    let metadata = fs::symlink_metadata(source).context("read", source)?;
    if metadata.is_dir() {
        return Ok(fs::create_dir_all(&dest).context("create", &dest)?);
    }
    if let Some(parent) = dest.parent() {
        fs::create_dir_all(parent).context("create", parent)?;
    }
    if metadata.is_symlink() {
        let target = fs::read_link(source).context("read the link", source)?;
        return Ok(symlink(OsStr::from_bytes(target.as_os_str().as_bytes()), &dest).context("create the link", &dest)?);
    }
    if !metadata.is_file() {
        // Sockets and pipes are made by whoever uses them.
        return Ok(());
    }
    if metadata.mode() & 0o400 == 0 {
        fs::set_permissions(source, fs::Permissions::from_mode(metadata.mode() | 0o400)).context("open", source)?;
    }
    copy_file(source, &dest)?;
    let mode = if metadata.mode() & 0o111 != 0 { 0o755 } else { 0o644 };
    Ok(fs::set_permissions(&dest, fs::Permissions::from_mode(mode)).context("set the mode of", &dest)?)
}
