//! *Unpacking*: archives from outside become trees, whatever is in them.
//!
//! Invariant: nothing is written outside the new directory, nothing is written through a symlink of the
//! archive, sizes are bounded, and a failure leaves nothing behind. Modes are normalised (0755 and 0644),
//! owners and times are dropped: the same archive gives the same tree on every machine.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::FetchError;
use crate::fsio::{IoContext, PathError};

pub(super) mod compression;
pub(super) mod tar;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
pub(super) mod tree;
mod zip;

use compression::Compression;
use tree::{Duplicates, TreeWriter};

/// Why an archive cannot be unpacked. `entry` is a name as the archive spells it.
#[expect(missing_docs, reason = "the fields are what the variant's message names")]
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Reading or writing a file of the machine failed.
    #[error(transparent)]
    Io(#[from] PathError),
    /// The archive's bytes cannot be read: damaged compression, a file that ends too early.
    #[error("its content is damaged or cut off")]
    Damaged { source: io::Error },
    /// The archive does not follow its format.
    #[error("it is malformed: {reason}")]
    Malformed { reason: String },
    /// Neither a tar (compressed or not) nor a zip.
    #[error("it is {kind}, not an archive")]
    NoArchive { kind: String },
    /// An entry's name leads out of the tree.
    #[error("entry `{entry}` leads out of the archive: {reason}")]
    Escape { entry: String, reason: &'static str },
    /// An entry below something that is not a directory.
    #[error("entry `{entry}` lies below `{parent}`, which the archive makes a {kind}")]
    NotDirectory {
        entry: String,
        parent: String,
        kind: &'static str,
    },
    /// Two entries of one name that cannot both be had.
    #[error("entry `{entry}` comes twice, {reason}")]
    Duplicate { entry: String, reason: &'static str },
    /// A hard link to what is no earlier file of the archive.
    #[error("entry `{entry}` is a hard link to `{target}`, which is no earlier file of the archive")]
    HardLink { entry: String, target: String },
    /// A device node, named pipe or something else that has no place in a tree.
    #[error("entry `{entry}` is {kind}")]
    Special { entry: String, kind: String },
    /// An entry that is encrypted or compressed in a way that is not supported.
    #[error("entry `{entry}` cannot be read")]
    Unsupported {
        entry: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// More than the bounds allow: a bomb, or something that does not belong into a package.
    #[error("it unpacks to more than {limit}")]
    TooLarge { limit: String },
    /// The destination is there already.
    #[error("`{dest}` is there already")]
    Exists { dest: String },
    /// A `.deb` or source package that is not what it should be.
    #[error("{reason}")]
    Package { reason: String },
}

impl UnpackError {
    pub(super) fn malformed(reason: impl Into<String>) -> Self {
        Self::Malformed { reason: reason.into() }
    }

    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NoArchive { .. } => Some("set `unpack = false` to use the file as it is".to_owned()),
            Self::Damaged { .. } | Self::Malformed { .. } => Some(
                "check that the address gives the archive itself and that its sha256 is the publisher's".to_owned(),
            ),
            Self::Special { .. } => Some("device nodes, pipes and sockets cannot be part of a package".to_owned()),
            _ => None,
        }
    }
}

/// Unpacks an archive (tar, tar.gz, tar.xz, tar.zst, tar.bz2, zip; by content, not by name) into `dest`, a new
/// directory; `name` is what messages call it.
///
/// `strip` leading directories are dropped (entries that have no more are left out); `None` drops one where
/// everything is in one top-level directory. Of several tar entries of one name the last one counts, as tar has
/// it; in a zip they are an error unless they are the same. Entries that escape, lie below a symlink, are device
/// nodes and the like are errors that leave nothing behind.
pub fn unpack_archive(archive: &Path, name: &str, strip: Option<u32>, dest: &Path) -> Result<(), FetchError> {
    unpack(archive, strip, dest).map_err(|source| FetchError::Unpack {
        name: name.to_owned(),
        source: Box::new(source),
    })
}

/// [`unpack_archive`] without the name.
pub(super) fn unpack(archive: &Path, strip: Option<u32>, dest: &Path) -> Result<(), UnpackError> {
    let file = File::open(archive).context("open", archive)?;
    let size = file.metadata().context("read", archive)?.len();
    let (magic, content) = peek(&file, compression::MAGIC_MAX).context("read", archive)?;
    if magic.starts_with(b"PK\x03\x04") || magic.starts_with(b"PK\x05\x06") {
        let mut tree = TreeWriter::new(dest, size, Duplicates::MustBeEqual)?;
        zip::unpack(&file, strip.unwrap_or(0), &mut tree)?;
        return tree.publish(strip.is_none());
    }
    let compression = Compression::sniff(&magic);
    let decoder = compression.decoder(BufReader::with_capacity(1 << 17, content))?;
    let (block, content) = peek(decoder, tar::BLOCK).map_err(|source| UnpackError::Damaged { source })?;
    if !tar::looks_like_tar(&block) {
        return Err(UnpackError::NoArchive {
            kind: compression.describe_file().to_owned(),
        });
    }
    let mut tree = TreeWriter::new(dest, size, Duplicates::LastWins)?;
    unpack_tar(content, strip.unwrap_or(0), &mut tree)?;
    tree.publish(strip.is_none())
}

/// Puts the entries of a tar into `tree`, each without its first `strip` directories.
fn unpack_tar(reader: impl Read, strip: u32, tree: &mut TreeWriter) -> Result<(), UnpackError> {
    let mut archive = tar::TarReader::new(reader);
    while let Some(entry) = archive.next_entry()? {
        let Some(path) = tree::EntryPath::parse(&entry.path)?.strip(strip) else {
            let tar::Kind::File { size, .. } = entry.kind else {
                tree.skip_entry(0)?;
                continue;
            };
            tree.skip_entry(size)?;
            continue;
        };
        match entry.kind {
            tar::Kind::Directory => tree.directory(&path)?,
            tar::Kind::File { executable, size } => tree.file(&path, executable, size, &mut archive.data(&entry)?)?,
            tar::Kind::Symlink { target } => tree.symlink(&path, &target)?,
            tar::Kind::HardLink { target } => {
                let target = tree::EntryPath::parse(&target)?;
                match target.strip(strip) {
                    Some(stripped) => tree.hard_link(&path, &stripped)?,
                    None => {
                        return Err(UnpackError::HardLink {
                            entry: path.display(),
                            target: target.display(),
                        });
                    }
                }
            }
            tar::Kind::Special { kind } => {
                return Err(UnpackError::Special {
                    entry: path.display(),
                    kind: kind.to_owned(),
                });
            }
        }
    }
    archive.finish()
}

/// The first `count` bytes (fewer where there are fewer), and the whole content including them.
fn peek<R: Read>(mut reader: R, count: usize) -> io::Result<(Vec<u8>, impl Read)> {
    let mut head = Vec::with_capacity(count);
    reader.by_ref().take(count as u64).read_to_end(&mut head)?;
    Ok((head.clone(), io::Cursor::new(head).chain(reader)))
}
