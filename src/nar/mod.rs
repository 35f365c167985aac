//! The *canonical archive* (NAR) of a file tree: its bytes, its hash, and the ordered walk they follow.
//!
//! Invariant: one tree has one archive; entries come in byte order of their names, directory by directory.
//!
//! # The view of a tree
//! A tree is a sequence of [`Entry`]s: the root first, each directory before what is in it, the names of one
//! directory in byte order. An entry is a directory, a symlink with its target, or a regular file with its
//! contents and one bit of its mode, "executable by its owner". Nothing else of a file system is seen: not
//! owners, not times, not the other mode bits, not hard links, not extended attributes. Sockets, fifos and
//! devices have no archive.
//!
//! Both a tree on disk ([`visit`]) and an archive ([`read`]) give that sequence, and whatever takes it (the
//! [`NarEncoder`], [`restore()`], a scanner) works on either.
//!
//! # The format
//! Fixed for ever (Nix manual, "Nix Archive Format"). Everything is a string: its length in bytes as a
//! little-endian 64-bit integer, its bytes, and zero bytes up to a multiple of eight. In that alphabet:
//!
//! ```text
//! archive = "nix-archive-1" node
//! node    = "(" "type" ( "regular" [ "executable" "" ] "contents" bytes
//!                      | "symlink" "target" bytes
//!                      | "directory" { "entry" "(" "name" bytes "node" node ")" } ) ")"
//! ```
//!
//! with the entries' names strictly ascending, so that no two archives say the same tree.

mod decode;
mod encode;
#[cfg(test)]
pub(crate) mod oracle;
mod restore;
#[cfg(test)]
mod tests;
mod walk;

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use decode::read;
pub use encode::NarEncoder;
pub use restore::restore;
pub use walk::{Walk, visit, walk};

use crate::digest::{Digest, HashingWriter};

/// Most directories that may lie in one another, so that no archive exhausts the stack of who handles the tree.
pub const MAX_DEPTH: usize = 1024;

/// Longest name of an entry in bytes (Linux's `NAME_MAX`).
pub const MAX_NAME: usize = 255;

/// Longest target of a symlink in bytes (Linux's `PATH_MAX` without its final zero).
pub const MAX_TARGET: usize = 4095;

/// Longest path by which anything can be opened, in bytes (the same).
pub const MAX_PATH: usize = 4095;

/// One node of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Names from the root of the tree, joined by `/`; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
}

/// What a node of a tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory; what is in it follows.
    Directory,
    /// A regular file.
    File {
        /// Whether its owner may execute it.
        executable: bool,
        /// Size in bytes.
        size: u64,
    },
    /// A symlink.
    Symlink {
        /// Where it points, uninterpreted.
        target: Vec<u8>,
    },
}

impl Entry {
    /// The last name of its path; empty for the root.
    pub fn name(&self) -> &[u8] {
        let start = self
            .path
            .iter()
            .rposition(|&byte| byte == b'/')
            .map_or(0, |slash| slash + 1);
        self.path.get(start..).unwrap_or_default()
    }

    /// Number of directories above it: 0 for the root.
    pub fn depth(&self) -> usize {
        if self.path.is_empty() {
            return 0;
        }
        1 + self.path.iter().filter(|&&byte| byte == b'/').count()
    }

    /// Where it is on disk when the tree is at `root`.
    pub fn below(&self, root: &Path) -> PathBuf {
        if self.path.is_empty() {
            return root.to_owned();
        }
        root.join(OsStr::from_bytes(&self.path))
    }
}

/// Why a tree cannot be archived, or an archive not be read.
#[derive(Debug, thiserror::Error)]
pub enum NarError {
    /// Reading or writing a file of the tree failed.
    #[error(transparent)]
    Io(#[from] crate::fsio::PathError),
    /// The tree holds something that is not a file, directory or symlink.
    #[error("`{}` is a {kind}: only files, directories and symlinks can be archived", path.display())]
    Unsupported {
        /// Where it is.
        path: PathBuf,
        /// What it is: "socket", "fifo", "device".
        kind: &'static str,
    },
    /// A file's size was another one when it was read than when it was listed.
    #[error("`{}` changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// More directories lie in one another than [`MAX_DEPTH`].
    #[error("`{}` is more than {MAX_DEPTH} directories deep", abridged(path))]
    TooDeep {
        /// The first entry that does.
        path: PathBuf,
    },
    /// A path is longer than [`MAX_PATH`], or would be where the tree is to lie.
    #[error(
        "`{}` is {length} bytes long with the directories above it, and the system takes {MAX_PATH}",
        abridged(path)
    )]
    TooLong {
        /// The first entry that is.
        path: PathBuf,
        /// How long it is, or would be.
        length: usize,
    },
    /// The archive could not be written to where it goes.
    #[error("cannot write the archive")]
    Sink(#[source] io::Error),
    /// The archive could not be read from where it comes.
    #[error("cannot read the archive at byte {offset}")]
    Source {
        /// How many bytes had been read.
        offset: u64,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The bytes are no archive.
    #[error("the archive is malformed at byte {offset}: {reason}")]
    Malformed {
        /// Where the offending string begins.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
}

impl NarError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Unsupported { path, kind } => Some(format!(
                "remove the {kind} `{}` before the tree is added; a program makes such things when it runs",
                path.display()
            )),
            Self::Changed { .. } => Some("wait until nothing writes to the tree and try again".to_owned()),
            Self::Malformed { .. } => Some("the archive is damaged or none at all: fetch it again".to_owned()),
            Self::TooDeep { .. } | Self::TooLong { .. } => Some(
                "make fewer directories in one another, or give them shorter names; a store in a shorter directory \
                 (`--store DIR`) leaves longer paths to what is in it"
                    .to_owned(),
            ),
            Self::Io(_) | Self::Sink(_) | Self::Source { .. } => None,
        }
    }
}

/// An error where `path` is too long to be opened; `elsewhere` is how many bytes longer it will be at its final place.
pub fn check_length(path: &Path, elsewhere: isize) -> Result<(), NarError> {
    let here = path.as_os_str().len();
    let length = here.max(here.saturating_add_signed(elsewhere));
    if length > MAX_PATH {
        let path = path.to_owned();
        return Err(NarError::TooLong { path, length });
    }
    Ok(())
}

/// The beginning and the end of a path that is too long to be shown.
fn abridged(path: &Path) -> String {
    const SHOWN: usize = 60;
    let text = path.to_string_lossy();
    let length = text.chars().count();
    if length <= 2 * SHOWN {
        return text.into_owned();
    }
    let start: String = text.chars().take(SHOWN).collect();
    let end: String = text.chars().skip(length - SHOWN).collect();
    format!("{start}…{end}")
}

/// Writes the archive of the tree at `path`, with memory that depends on its directories alone.
pub fn write(path: &Path, sink: &mut dyn Write) -> Result<(), NarError> {
    let mut encoder = NarEncoder::new(sink)?;
    visit(path, &mut |entry, contents| encoder.entry(entry, contents))?;
    encoder.finish()?;
    Ok(())
}

/// Hash and size in bytes of the archive of the tree at `path`.
pub fn hash(path: &Path) -> Result<(Digest, u64), NarError> {
    let mut sink = HashingWriter::new(io::sink());
    write(path, &mut sink)?;
    let (_, hasher, size) = sink.finish();
    Ok((hasher.digest(), size))
}

/// Takes an [`Entry`] and, where it is a file, its contents (else nothing): exactly as many bytes as its size.
///
/// Contents that are left unread are skipped.
pub type Visitor<'a> = dyn FnMut(&Entry, &mut dyn Read) -> Result<(), NarError> + 'a;

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_nar() {
        crate::testing::fuzz("nar", |bytes| {
            let mut source = bytes;
            let _ = super::read(&mut source, &mut |_, content| {
                let _ = std::io::copy(content, &mut std::io::sink());
                Ok(())
            });
        });
    }
}
