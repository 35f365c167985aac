//! A *root* is a file system tree composed of Debian packages' store paths.
//!
//! Invariant: the result depends on the packages' contents and their order alone; where two packages bring
//! different files of one name it is an error that names both, except alternatives (highest priority wins).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::escape::shown_bytes;
use crate::fsio::{self, IoContext, PathError};

mod alternatives;
mod record;
#[cfg(test)]
mod tests;

pub use alternatives::{Trees, alternatives};
pub use record::{Ownership, PackageRecord, RECORDS_DIR};

/// Top-level directories whose content stands below `usr` in every package's store path (Debian's merged `/usr`,
/// file-hierarchy(7)); a composed root has links of these names to `usr/NAME`.
pub const MERGED_DIRS: &[&str] = &["bin", "lib", "lib32", "lib64", "libo32", "libx32", "sbin"];

/// Where a Debian package's store path keeps its `update-alternatives --install` lines, one file a package.
///
/// A file holds lines of words separated by single spaces: `install LINK NAME TARGET PRIORITY`, then for each
/// of its slaves `slave LINK NAME TARGET`. `LINK` and `TARGET` are absolute and merged below `/usr`.
pub const ALTERNATIVES_DIR: &str = "var/lib/dpkg/alternatives.d";

/// Why packages cannot make up one tree.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Reading a file or directory failed.
    #[error(transparent)]
    Io(#[from] PathError),
    /// Two packages bring different things of one name.
    #[error("`{first}` and `{second}` both contain `/{path}`: {reason}", reason = CollisionKind::text(*.kinds))]
    Collision {
        /// The path in the root, without leading slash.
        path: String,
        /// The package that came first.
        first: String,
        /// The package that came later.
        second: String,
        /// What each of them has there.
        kinds: (CollisionKind, CollisionKind),
    },
    /// A package holds a socket, device or the like.
    #[error("`{package}` holds `/{path}`, which is neither a file, a directory nor a symlink")]
    Special {
        /// The package.
        package: String,
        /// The path, without leading slash.
        path: String,
    },
    /// A package's record of alternatives does not follow the format of [`ALTERNATIVES_DIR`].
    #[error("line {line} of `{}` is not a line of alternatives: `{text}`", path.display())]
    Alternatives {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// A package's record does not follow the format of [`RECORDS_DIR`].
    #[error("`{}` is not a record of a package: {reason}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl RootError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Io(_) => None,
            Self::Collision { first, second, .. } => Some(format!(
                "leave out `{first}` or `{second}`: they cannot be installed side by side"
            )),
            Self::Special { .. } | Self::Alternatives { .. } | Self::Record { .. } => {
                Some("mend the store with `layerize store verify --repair`".to_owned())
            }
        }
    }
}

/// What a package has at a path where another has something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CollisionKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symlink.
    Symlink,
}

impl CollisionKind {
    fn text(kinds: (Self, Self)) -> String {
        match kinds {
            (Self::File, Self::File) => "the two files differ".to_owned(),
            (Self::Symlink, Self::Symlink) => "the two symlinks have different targets".to_owned(),
            (first, second) => format!("{} in one, {} in the other", first.name(), second.name()),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Directory => "a directory",
            Self::File => "a file",
            Self::Symlink => "a symlink",
        }
    }
}

/// An entry of a composed root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootEntry {
    /// A directory.
    Directory,
    /// A regular file on disk.
    File {
        /// Where its content is.
        physical: PathBuf,
        /// Size in bytes.
        size: u64,
        /// Whether it is executable.
        executable: bool,
        /// Index of the package it is from.
        package: usize,
    },
    /// A symlink.
    Symlink {
        /// Its target.
        target: Vec<u8>,
    },
}

impl RootEntry {
    fn kind(&self) -> CollisionKind {
        match self {
            Self::Directory => CollisionKind::Directory,
            Self::File { .. } => CollisionKind::File,
            Self::Symlink { .. } => CollisionKind::Symlink,
        }
    }
}

/// A composed root; paths are relative to `/` without leading slash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Composed {
    /// What there is.
    pub entries: BTreeMap<Vec<u8>, RootEntry>,
    /// Modes and owners that are not the usual ones.
    pub attributes: BTreeMap<Vec<u8>, Ownership>,
    /// Capabilities that packages bring, as `getcap` prints them.
    pub capabilities: BTreeMap<Vec<u8>, String>,
    /// Paths of one package that are one file, in groups of two and more.
    pub links: Vec<Vec<Vec<u8>>>,
}

/// The merged tree of `packages` (name, physical path).
///
/// Directories merge, the first package that brings one giving mode and owner, as dpkg has it. What a package diverts stands
/// where it says, unless it is its own. A path that two packages bring is taken from the first where both have the same content
/// (files: bytes and executable bit; symlinks: what the target means), and an error otherwise. Where `usr/bin`
/// and the like exist, `bin` and the like are symlinks to them ([`MERGED_DIRS`]). The packages' records of
/// alternatives are left out: what they ask for is [`alternatives()`], the caller's to add.
pub fn compose(packages: &[(String, PathBuf)]) -> Result<Composed, RootError> {
    let mut composer = Composer {
        packages,
        entries: BTreeMap::new(),
        owners: BTreeMap::new(),
        diversions: BTreeMap::new(),
    };
    let mut records = Vec::new();
    for (index, (_, physical)) in packages.iter().enumerate() {
        for record in PackageRecord::read_all(physical)?.into_values() {
            for (from, to) in &record.diversions {
                let diversion = (to.clone().into_bytes(), index);
                composer
                    .diversions
                    .entry(from.clone().into_bytes())
                    .or_insert(diversion);
            }
            records.push((index, record));
        }
    }
    for index in 0..packages.len() {
        composer.add_directory(index, &[])?;
    }
    let mut composed = Composed::default();
    for (package, record) in records {
        composer.add_record(package, record, &mut composed);
    }
    let mut entries = composer.entries;
    for name in MERGED_DIRS {
        let merged = format!("usr/{name}");
        if entries.contains_key(merged.as_bytes()) {
            entries
                .entry(name.as_bytes().to_vec())
                .or_insert_with(|| RootEntry::Symlink {
                    target: merged.into_bytes(),
                });
        }
    }
    composed.entries = entries;
    Ok(composed)
}

struct Composer<'a> {
    packages: &'a [(String, PathBuf)],
    entries: BTreeMap<Vec<u8>, RootEntry>,
    /// Which package first brought a directory or symlink; files know theirs.
    owners: BTreeMap<Vec<u8>, usize>,
    /// Where files go that stand at a path, and the package whose own do not.
    diversions: BTreeMap<Vec<u8>, (Vec<u8>, usize)>,
}

impl Composer<'_> {
    fn add_directory(&mut self, package: usize, dir: &[u8]) -> Result<(), RootError> {
        let physical = self.physical(package, dir);
        for name in fsio::sorted_names(&physical)? {
            let mut path = dir.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            if [ALTERNATIVES_DIR, RECORDS_DIR].iter().any(|dir| path == dir.as_bytes()) {
                continue;
            }
            let entry = self.read_entry(package, &path)?;
            let is_directory = entry == RootEntry::Directory;
            let place = match is_directory {
                true => path.clone(),
                false => self.diverted(package, &path),
            };
            self.merge(package, &place, entry)?;
            if is_directory {
                self.add_directory(package, &path)?;
            }
        }
        Ok(())
    }

    fn physical(&self, package: usize, path: &[u8]) -> PathBuf {
        self.packages[package].1.join(OsStr::from_bytes(path))
    }

    fn read_entry(&self, package: usize, path: &[u8]) -> Result<RootEntry, RootError> {
        let physical = self.physical(package, path);
        let metadata = fs::symlink_metadata(&physical).context("read", &physical)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            Ok(RootEntry::Directory)
        } else if kind.is_symlink() {
            let target = fs::read_link(&physical).context("read the symlink", &physical)?;
            Ok(RootEntry::Symlink {
                target: target.as_os_str().as_bytes().to_vec(),
            })
        } else if kind.is_file() {
            Ok(RootEntry::File {
                size: metadata.len(),
                executable: metadata.permissions().mode() & 0o111 != 0,
                physical,
                package,
            })
        } else {
            Err(RootError::Special {
                package: self.packages[package].0.clone(),
                path: shown_bytes(path),
            })
        }
    }

    /// Where a package's file goes.
    fn diverted(&self, package: usize, path: &[u8]) -> Vec<u8> {
        match self.diversions.get(path) {
            Some((to, owner)) if *owner != package => to.clone(),
            _ => path.to_vec(),
        }
    }

    /// Adds what a package says of what it brought itself, and brought first.
    fn add_record(&self, package: usize, record: PackageRecord, composed: &mut Composed) {
        let place = |path: &str| {
            let place = self.diverted(package, path.as_bytes());
            (self.owners.get(&place) == Some(&package)).then_some(place)
        };
        let attributes = record.attributes.iter();
        let attributes = attributes.filter_map(|(path, ownership)| Some((place(path)?, *ownership)));
        composed.attributes.extend(attributes);
        let capabilities = record.capabilities.iter();
        let capabilities = capabilities.filter_map(|(path, text)| Some((place(path)?, text.clone())));
        composed.capabilities.extend(capabilities);
        let is_file = |path: &Vec<u8>| matches!(self.entries.get(path), Some(RootEntry::File { .. }));
        let links = record
            .links
            .iter()
            .map(|group| group.iter().filter_map(|path| place(path)).filter(is_file));
        let links = links
            .map(Iterator::collect)
            .filter(|group: &Vec<Vec<u8>>| group.len() > 1);
        composed.links.extend(links);
    }

    fn merge(&mut self, package: usize, path: &[u8], entry: RootEntry) -> Result<(), RootError> {
        let Some(present) = self.entries.get(path) else {
            self.entries.insert(path.to_vec(), entry);
            self.owners.insert(path.to_vec(), package);
            return Ok(());
        };
        if same(path, present, &entry)? {
            return Ok(());
        }
        let first = self.owners.get(path).copied().unwrap_or(package);
        Err(RootError::Collision {
            path: shown_bytes(path),
            first: self.packages[first].0.clone(),
            second: self.packages[package].0.clone(),
            kinds: (present.kind(), entry.kind()),
        })
    }
}

/// Whether two packages' entries of one path are the same thing.
fn same(path: &[u8], first: &RootEntry, second: &RootEntry) -> Result<bool, PathError> {
    match (first, second) {
        (RootEntry::Directory, RootEntry::Directory) => Ok(true),
        (RootEntry::Symlink { target: a }, RootEntry::Symlink { target: b }) => {
            let dir = parent(path);
            Ok(a == b || resolve(dir, a) == resolve(dir, b))
        }
        (
            RootEntry::File {
                physical: a,
                size: size_a,
                executable: x_a,
                ..
            },
            RootEntry::File {
                physical: b,
                size: size_b,
                executable: x_b,
                ..
            },
        ) => Ok(size_a == size_b && x_a == x_b && same_bytes(a, b)?),
        _ => Ok(false),
    }
}

fn same_bytes(first: &Path, second: &Path) -> Result<bool, PathError> {
    let mut a = File::open(first).context("open", first)?;
    let mut b = File::open(second).context("open", second)?;
    let (mut buffer_a, mut buffer_b) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let count = read_full(&mut a, &mut buffer_a).context("read", first)?;
        if count != read_full(&mut b, &mut buffer_b).context("read", second)? {
            return Ok(false);
        }
        if buffer_a[..count] != buffer_b[..count] {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The directory part of a path without leading slash; empty for a top-level name.
pub fn parent(path: &[u8]) -> &[u8] {
    path.iter()
        .rposition(|&byte| byte == b'/')
        .map_or(&[], |slash| &path[..slash])
}

/// What a symlink in directory `dir` (relative to the root, no leading slash) with `target` means, relative to
/// the root: by the text alone, `..` stopping at the root as the kernel has it.
pub fn resolve(dir: &[u8], target: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    let base = if target.starts_with(b"/") { &[][..] } else { dir };
    for part in base
        .split(|&byte| byte == b'/')
        .chain(target.split(|&byte| byte == b'/'))
    {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}
