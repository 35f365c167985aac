//! The hash of a *filtered* tree's canonical archive (NAR), taken where the tree lies.
//!
//! The format is that of the Nix manual, "Nix Archive Format": strings are their length as a little-endian 64-bit
//! integer, their bytes, and zeros up to a multiple of eight.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::read_exactly;
use crate::digest::{Digest, Hasher};
use crate::fetch::FetchError;

/// One node of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Names from the root of the tree, joined by `/`; empty for the root itself.
    pub path: Vec<u8>,
    pub kind: EntryKind,
}

/// What a node of a tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EntryKind {
    Directory,
    File { executable: bool, size: u64 },
    Symlink { target: Vec<u8> },
}

impl Entry {
    /// Where it is on disk when the tree is at `root`.
    pub(super) fn below(&self, root: &Path) -> PathBuf {
        match self.path.is_empty() {
            true => root.to_owned(),
            false => root.join(OsStr::from_bytes(&self.path)),
        }
    }

    fn depth(&self) -> usize {
        match self.path.is_empty() {
            true => 0,
            false => 1 + self.path.iter().filter(|&&byte| byte == b'/').count(),
        }
    }
}

/// Hash of the archive of `entries` (each directory before what is in it, names in byte order), files read below
/// `root`.
pub(super) fn hash(root: &Path, entries: &[Entry]) -> Result<Digest, FetchError> {
    let mut hasher = Hasher::new();
    let mut open = 0;
    strings(&mut hasher, &[b"nix-archive-1"]);
    for entry in entries {
        close(&mut hasher, &mut open, entry.depth());
        if !entry.path.is_empty() {
            let name = entry.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
            strings(&mut hasher, &[b"entry", b"(", b"name", name, b"node"]);
        }
        strings(&mut hasher, &[b"(", b"type"]);
        match &entry.kind {
            EntryKind::Directory => strings(&mut hasher, &[b"directory"]),
            EntryKind::Symlink { target } => strings(&mut hasher, &[b"symlink", b"target", target]),
            EntryKind::File { executable, size } => {
                strings(&mut hasher, &[b"regular"]);
                if *executable {
                    strings(&mut hasher, &[b"executable", b""]);
                }
                strings(&mut hasher, &[b"contents"]);
                hasher.update(&size.to_le_bytes());
                read_exactly(&entry.below(root), *size, |bytes| hasher.update(bytes))?;
                pad(&mut hasher, *size);
            }
        }
        open += 1;
    }
    close(&mut hasher, &mut open, 0);
    Ok(hasher.digest())
}

/// Ends the nodes that are open at `depth` or deeper: the node's own parenthesis, and that of its directory entry.
fn close(hasher: &mut Hasher, open: &mut usize, depth: usize) {
    while *open > depth {
        *open -= 1;
        strings(hasher, if *open == 0 { &[b")"] } else { &[b")", b")"] });
    }
}

fn strings(hasher: &mut Hasher, strings: &[&[u8]]) {
    for string in strings {
        let size = string.len() as u64;
        hasher.update(&size.to_le_bytes());
        hasher.update(string);
        pad(hasher, size);
    }
}

fn pad(hasher: &mut Hasher, size: u64) {
    let count = (size.next_multiple_of(8) - size) as usize;
    hasher.update(&[0; 8][..count]);
}
