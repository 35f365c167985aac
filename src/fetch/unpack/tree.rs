//! A *tree* being written from the entries of an archive that nobody trusts.
//!
//! Invariant: the writer knows every node it made, so that whether a parent is a real directory is looked up
//! and not asked of the file system; symlinks are made last of all, when nothing is written any more. So no
//! write can go through a symlink, whatever the order of the entries. The tree appears under its final name by
//! rename, whole, or not at all.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Remarks, UnpackError};
use crate::capability;
use crate::escape::shown_bytes;
use crate::fsio::IoContext;

/// Most bytes a tree may hold.
const BYTES_MAX: u64 = 64 << 30;
/// Most entries an archive may have.
const ENTRIES_MAX: u64 = 2_000_000;
/// Most bytes of tree for one byte of archive, once the tree is larger than [`RATIO_FREE`]. Real trees stay
/// below 100; zeros compressed by zstd reach 20,000.
const RATIO_MAX: u64 = 1000;
/// Bytes of tree that no ratio limits: real test data of a few hundred MB of zeros is legitimate.
const RATIO_FREE: u64 = 2 << 30;
/// Most files with capabilities that are told of; no real archive has a hundred.
const CAPABLE_MAX: usize = 1000;
/// Longest path of an entry in bytes (Linux' `PATH_MAX`).
const PATH_MAX: usize = 4096;

/// The path of an entry: relative, `/`-separated, without empty, `.` or `..` parts. Empty for the tree itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryPath(Vec<u8>);

impl EntryPath {
    /// Checks the name of an entry as the archive spells it; the slash that begins an absolute one goes.
    pub(crate) fn parse(raw: &[u8]) -> Result<Self, UnpackError> {
        let escape = |reason| UnpackError::Escape {
            entry: shown_bytes(raw),
            reason,
        };
        if raw.contains(&0) {
            return Err(UnpackError::malformed(format!(
                "the name `{}` holds a NUL byte",
                shown_bytes(raw)
            )));
        }
        if raw.len() > PATH_MAX {
            return Err(UnpackError::malformed(format!(
                "a name is longer than {PATH_MAX} bytes"
            )));
        }
        let mut parts = Vec::new();
        for part in raw.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(escape("its name holds `..`")),
                part => parts.push(part),
            }
        }
        Ok(Self(parts.join(&b'/')))
    }

    /// Without its first `count` parts; `None` where it has no more than those.
    pub(crate) fn strip(&self, count: u32) -> Option<Self> {
        let mut rest = self.0.as_slice();
        for _ in 0..count {
            let slash = rest.iter().position(|&byte| byte == b'/')?;
            rest = &rest[slash + 1..];
        }
        Some(Self(rest.to_vec()))
    }

    /// Number of directories that it lies below.
    fn depth(&self) -> usize {
        self.0.iter().filter(|&&byte| byte == b'/').count()
    }

    /// Wraps a path that is known to be relative and normal.
    pub(crate) fn trusted(path: Vec<u8>) -> Self {
        Self(path)
    }

    /// The bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// For messages.
    pub(crate) fn display(&self) -> String {
        shown_bytes(&self.0)
    }
}

/// A node of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Directory,
    File,
    /// With its target; not on disk before the tree is published.
    Symlink(Vec<u8>),
}

/// What to do with two entries of one name, directories aside (they merge).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duplicates {
    /// The later replaces the earlier.
    LastWins,
    /// They must have the same content.
    MustBeEqual,
}

/// Writes a tree beside its destination.
pub(crate) struct TreeWriter {
    /// Removed with all that is in it when dropped.
    work: TempDir,
    /// The tree, in `work`.
    root: PathBuf,
    dest: PathBuf,
    nodes: BTreeMap<Vec<u8>, Node>,
    duplicates: Duplicates,
    bytes_left: u64,
    bytes_max: u64,
    entries_left: u64,
    /// Most directories that a path lay below which was stripped away.
    deepest_stripped: Option<usize>,
    /// What the user should know of the names and the files.
    remarks: Remarks,
    buffer: Vec<u8>,
}

impl TreeWriter {
    /// Starts an empty tree that will become `dest`; `archive_size` in bytes bounds its size.
    pub(crate) fn new(dest: &Path, archive_size: u64, duplicates: Duplicates) -> Result<Self, UnpackError> {
        if fs::symlink_metadata(dest).is_ok() {
            return Err(UnpackError::Exists {
                dest: dest.display().to_string(),
            });
        }
        let parent = match dest.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let work = tempfile::Builder::new()
            .prefix(".layerize-unpack-")
            .tempdir_in(parent)
            .context("create a temporary directory in", parent)?;
        let root = work.path().join("tree");
        make_directory(&root)?;
        let bytes_max = archive_size.saturating_mul(RATIO_MAX).clamp(RATIO_FREE, BYTES_MAX);
        Ok(Self {
            work,
            root,
            dest: dest.to_owned(),
            nodes: BTreeMap::new(),
            duplicates,
            bytes_left: bytes_max,
            bytes_max,
            entries_left: ENTRIES_MAX,
            deepest_stripped: None,
            remarks: Remarks::default(),
            buffer: vec![0; 1 << 17],
        })
    }

    /// The path of an entry without its first `strip` directories; `None` where it has no more.
    pub(crate) fn stripped(&mut self, raw: &[u8], strip: u32) -> Result<Option<EntryPath>, UnpackError> {
        let path = EntryPath::parse(raw)?;
        if raw.starts_with(b"/") && self.remarks.note.is_none() {
            self.remarks.note = Some(format!(
                "absolute names such as `{}` were unpacked without their first slash",
                shown_bytes(raw)
            ));
        }
        let stripped = path.strip(strip);
        if stripped.is_none() {
            self.deepest_stripped = self.deepest_stripped.max(Some(path.depth()));
        }
        Ok(stripped)
    }

    /// Most directories that an entry lay below which [`stripped`](Self::stripped) left out.
    pub(crate) fn deepest_stripped(&self) -> Option<usize> {
        self.deepest_stripped
    }

    /// Takes note of the capabilities that a file has in the archive.
    pub(crate) fn note_capability(&mut self, path: &EntryPath, value: &[u8]) {
        let capabilities = &mut self.remarks.capabilities;
        if capabilities.len() < CAPABLE_MAX {
            capabilities.insert(path.display(), capability::shown(value));
        }
    }

    /// Counts an entry of `size` bytes that leaves no node: reading past it is work too.
    pub(crate) fn skip_entry(&mut self, size: u64) -> Result<(), UnpackError> {
        self.count_entry()?;
        self.take_bytes(size)
    }

    fn count_entry(&mut self) -> Result<(), UnpackError> {
        self.entries_left = self.entries_left.checked_sub(1).ok_or_else(|| UnpackError::TooLarge {
            limit: format!("{ENTRIES_MAX} entries"),
        })?;
        Ok(())
    }

    /// All nodes but the top directory, by path.
    pub(crate) fn nodes(&self) -> &BTreeMap<Vec<u8>, Node> {
        &self.nodes
    }

    /// Where a node is on disk while the tree is being written.
    pub(crate) fn physical(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path))
    }

    /// Makes a directory, or finds it there.
    pub(crate) fn directory(&mut self, path: &EntryPath) -> Result<(), UnpackError> {
        self.count_entry()?;
        self.parents(path)?;
        self.ensure_directory(path.as_bytes(), path)
    }

    /// Writes a file of `size` bytes from `content`.
    pub(crate) fn file(
        &mut self,
        path: &EntryPath,
        executable: bool,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), UnpackError> {
        self.count_entry()?;
        self.parents(path)?;
        self.take_bytes(size)?;
        if self.replaces(path)? == ExistingEntry::Compare {
            let twin = self.work.path().join("twin");
            self.write(&twin, executable, size, content)?;
            let equal = same_file(&twin, &self.physical(path.as_bytes())).context("compare", &twin)?;
            fs::remove_file(&twin).context("remove", &twin)?;
            return equal.then_some(()).ok_or_else(|| different(path));
        }
        let physical = self.physical(path.as_bytes());
        self.write(&physical, executable, size, content)?;
        self.nodes.insert(path.as_bytes().to_vec(), Node::File);
        Ok(())
    }

    /// Notes a symlink; any target will do, as nothing follows it here.
    pub(crate) fn symlink(&mut self, path: &EntryPath, target: &[u8]) -> Result<(), UnpackError> {
        self.count_entry()?;
        self.parents(path)?;
        if target.is_empty() || target.contains(&0) || target.len() >= PATH_MAX {
            let reason = format!("the symlink `{}` has a target that no symlink can have", path.display());
            return Err(UnpackError::malformed(reason));
        }
        let node = Node::Symlink(target.to_vec());
        if self.replaces(path)? == ExistingEntry::Compare {
            let equal = self.nodes.get(path.as_bytes()) == Some(&node);
            return equal.then_some(()).ok_or_else(|| different(path));
        }
        self.nodes.insert(path.as_bytes().to_vec(), node);
        Ok(())
    }

    /// Makes a copy of an earlier file or symlink of the archive.
    pub(crate) fn hard_link(&mut self, path: &EntryPath, target: &EntryPath) -> Result<(), UnpackError> {
        let not_earlier = || UnpackError::HardLink {
            entry: path.display(),
            target: target.display(),
        };
        if path == target {
            return Err(not_earlier());
        }
        match self.nodes.get(target.as_bytes()).cloned() {
            Some(Node::Symlink(target)) => self.symlink(path, &target),
            Some(Node::File) => {
                let source = self.physical(target.as_bytes());
                let mut file = File::open(&source).context("open", &source)?;
                let metadata = file.metadata().context("read", &source)?;
                let executable = metadata.permissions().mode() & 0o111 != 0;
                self.file(path, executable, metadata.len(), &mut file)
            }
            Some(Node::Directory) | None => Err(not_earlier()),
        }
    }

    /// Gives a symlink that has been noted another target.
    pub(crate) fn retarget(&mut self, path: &[u8], target: Vec<u8>) {
        if let Some(Node::Symlink(old)) = self.nodes.get_mut(path) {
            *old = target;
        }
    }

    /// Takes back a symlink that has been noted.
    pub(crate) fn forget_symlink(&mut self, path: &EntryPath) {
        if let Some(Node::Symlink(_)) = self.nodes.get(path.as_bytes()) {
            self.nodes.remove(path.as_bytes());
        }
    }

    /// Makes the symlinks and renames the tree to its destination; with `flatten`, its only top-level directory
    /// where there is nothing beside it. Gives what the user should know of the names and the files.
    pub(crate) fn publish(mut self, flatten: bool) -> Result<Remarks, UnpackError> {
        for (path, node) in &self.nodes {
            if let Node::Symlink(target) = node {
                let physical = self.physical(path);
                symlink(OsStr::from_bytes(target), &physical).context("create the symlink", &physical)?;
            }
        }
        let mut top = self.nodes.iter().filter(|(path, _)| !path.contains(&b'/'));
        let tree = match (flatten, top.next(), top.next()) {
            (true, Some((only, Node::Directory)), None) => {
                let dropped = format!("{}/", shown_bytes(only));
                let capable = std::mem::take(&mut self.remarks.capabilities).into_iter();
                self.remarks.capabilities = capable
                    .map(|(path, text)| (path.strip_prefix(&dropped).unwrap_or(&path).to_owned(), text))
                    .collect();
                self.physical(only)
            }
            _ => self.root.clone(),
        };
        fs::rename(&tree, &self.dest).context("rename an unpacked tree to", &self.dest)?;
        Ok(std::mem::take(&mut self.remarks))
    }

    fn take_bytes(&mut self, size: u64) -> Result<(), UnpackError> {
        self.bytes_left = self.bytes_left.checked_sub(size).ok_or_else(|| UnpackError::TooLarge {
            limit: format!("{} MiB", self.bytes_max >> 20),
        })?;
        Ok(())
    }

    /// Makes the directories above `path` that are missing.
    fn parents(&mut self, path: &EntryPath) -> Result<(), UnpackError> {
        let bytes = path.as_bytes();
        for slash in (0..bytes.len()).filter(|&index| bytes[index] == b'/') {
            self.ensure_directory(&bytes[..slash], path)?;
        }
        Ok(())
    }

    fn ensure_directory(&mut self, dir: &[u8], entry: &EntryPath) -> Result<(), UnpackError> {
        if dir.is_empty() {
            return Ok(());
        }
        let kind = match self.nodes.get(dir) {
            Some(Node::Directory) => return Ok(()),
            None => {
                make_directory(&self.physical(dir))?;
                self.nodes.insert(dir.to_vec(), Node::Directory);
                return Ok(());
            }
            Some(Node::File) => "file",
            Some(Node::Symlink(_)) => "symlink",
        };
        if dir == entry.as_bytes() {
            let reason = "once as a directory and once not";
            return Err(UnpackError::Duplicate {
                entry: entry.display(),
                reason,
            });
        }
        Err(UnpackError::NotDirectory {
            entry: entry.display(),
            parent: shown_bytes(dir),
            kind,
        })
    }

    /// Prepares the place of a file or symlink: free, or still taken by what the new one must equal.
    fn replaces(&mut self, path: &EntryPath) -> Result<ExistingEntry, UnpackError> {
        let existing = match self.nodes.get(path.as_bytes()) {
            _ if path.as_bytes().is_empty() => {
                return Err(UnpackError::malformed("the top directory is not a directory"));
            }
            None => return Ok(ExistingEntry::Free),
            Some(Node::Directory) => {
                return Err(UnpackError::Duplicate {
                    entry: path.display(),
                    reason: "once as a directory and once not",
                });
            }
            Some(existing) => existing.clone(),
        };
        match (self.duplicates, existing) {
            (Duplicates::MustBeEqual, _) => Ok(ExistingEntry::Compare),
            (Duplicates::LastWins, Node::File) => {
                let physical = self.physical(path.as_bytes());
                fs::remove_file(&physical).context("remove", &physical)?;
                self.nodes.remove(path.as_bytes());
                Ok(ExistingEntry::Free)
            }
            (Duplicates::LastWins, _) => {
                self.nodes.remove(path.as_bytes());
                Ok(ExistingEntry::Free)
            }
        }
    }

    fn write(
        &mut self,
        physical: &Path,
        executable: bool,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), UnpackError> {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(physical)
            .context("create", physical)?;
        let mut left = size;
        while left > 0 {
            let want = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = match content.read(&mut self.buffer[..want]) {
                Ok(0) => {
                    let source = io::ErrorKind::UnexpectedEof.into();
                    return Err(UnpackError::Damaged { source });
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(UnpackError::Damaged { source }),
            };
            file.write_all(&self.buffer[..count]).context("write", physical)?;
            left -= count as u64;
        }
        // Where a checksum follows the content, this checks it.
        match content
            .read(&mut [0])
            .map_err(|source| UnpackError::Damaged { source })?
        {
            0 => {}
            _ => return Err(UnpackError::malformed("a file is longer than it says")),
        }
        let mode = if executable { 0o755 } else { 0o644 };
        file.set_permissions(Permissions::from_mode(mode))
            .context("set the mode of", physical)?;
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExistingEntry {
    Free,
    Compare,
}

/// Creates a directory of mode 0755, whatever the umask.
fn make_directory(path: &Path) -> Result<(), UnpackError> {
    fs::create_dir(path).context("create directory", path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755)).context("set the mode of", path)?;
    Ok(())
}

/// Whether two regular files have the same bytes and the same executable bit; no symlink is followed.
fn same_file(first: &Path, second: &Path) -> io::Result<bool> {
    let (a, b) = (fs::symlink_metadata(first)?, fs::symlink_metadata(second));
    let Ok(b) = b else { return Ok(false) };
    if !b.is_file() || a.len() != b.len() || a.permissions() != b.permissions() {
        return Ok(false);
    }
    let (mut a, mut b) = (
        io::BufReader::new(File::open(first)?),
        io::BufReader::new(File::open(second)?),
    );
    loop {
        let count = {
            use io::BufRead;
            let (x, y) = (a.fill_buf()?, b.fill_buf()?);
            let count = x.len().min(y.len());
            if x[..count] != y[..count] {
                return Ok(false);
            }
            count
        };
        if count == 0 {
            return Ok(true);
        }
        io::BufRead::consume(&mut a, count);
        io::BufRead::consume(&mut b, count);
    }
}

fn different(path: &EntryPath) -> UnpackError {
    UnpackError::Duplicate {
        entry: path.display(),
        reason: "with different content",
    }
}
