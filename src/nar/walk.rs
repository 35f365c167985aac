//! The *ordered walk* of a tree on disk: depth first, names in byte order inside each directory.
//!
//! Invariant: the sequence depends on the tree alone, not on the order in which the file system lists it; with
//! `/` taken to sort before every other byte, paths ascend.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Entry, EntryKind, MAX_DEPTH, NarError, Visitor, check_length};
use crate::fsio::{IoContext, sorted_names};

/// An iterator over a tree; see [`walk`].
pub struct Walk {
    root: PathBuf,
    /// Before the first step: the root is still to come.
    fresh: bool,
    /// The open directories, outermost first: length of its path, and its names still to come.
    open: Vec<(usize, std::vec::IntoIter<OsString>)>,
    /// Path of the current entry.
    path: Vec<u8>,
    failed: bool,
}

/// Walks the tree at `root`, which may itself be a file or a symlink (symlinks are never followed).
///
/// An entry that is neither file, directory nor symlink is an error that names it; after an error the walk ends.
pub fn walk(root: &Path) -> Walk {
    Walk {
        root: root.to_owned(),
        fresh: true,
        open: Vec::new(),
        path: Vec::new(),
        failed: false,
    }
}

/// Walks the tree at `root` and hands every entry with its contents to `visitor`.
pub fn visit(root: &Path, visitor: &mut Visitor<'_>) -> Result<(), NarError> {
    for entry in walk(root) {
        let entry = entry?;
        let EntryKind::File { size, .. } = entry.kind else {
            visitor(&entry, &mut io::empty())?;
            continue;
        };
        let path = entry.below(root);
        let mut contents = FileContents::open(&path, size)?;
        let result = visitor(&entry, &mut contents);
        match contents.failure {
            Some(WalkFailure::Changed) => return Err(NarError::Changed { path }),
            Some(WalkFailure::Io(error)) => Err(error).context("read", &path)?,
            None => result?,
        }
    }
    Ok(())
}

impl Iterator for Walk {
    type Item = Result<Entry, NarError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let result = if std::mem::take(&mut self.fresh) {
            Some(self.enter())
        } else {
            self.advance().map(|()| self.enter())
        };
        self.failed = matches!(result, Some(Err(_)));
        result
    }
}

impl Walk {
    /// Makes the next name the current path; `None` at the end.
    fn advance(&mut self) -> Option<()> {
        loop {
            let (length, names) = self.open.last_mut()?;
            self.path.truncate(*length);
            if let Some(name) = names.next() {
                if !self.path.is_empty() {
                    self.path.push(b'/');
                }
                self.path.extend_from_slice(name.as_bytes());
                return Some(());
            }
            self.open.pop();
        }
    }

    /// The entry at the current path; lists it where it is a directory.
    fn enter(&mut self) -> Result<Entry, NarError> {
        let mut entry = Entry {
            path: self.path.clone(),
            kind: EntryKind::Directory,
        };
        let physical = entry.below(&self.root);
        check_length(&physical, 0)?;
        let metadata = fs::symlink_metadata(&physical).context("read the attributes of", &physical)?;
        entry.kind = kind(&physical, &metadata)?;
        if entry.kind == EntryKind::Directory {
            if self.open.len() >= MAX_DEPTH {
                return Err(NarError::TooDeep { path: physical });
            }
            self.open.push((self.path.len(), sorted_names(&physical)?.into_iter()));
        }
        Ok(entry)
    }
}

fn kind(path: &Path, metadata: &Metadata) -> Result<EntryKind, NarError> {
    let file_type = metadata.file_type();
    if file_type.is_dir() {
        return Ok(EntryKind::Directory);
    }
    if file_type.is_file() {
        return Ok(EntryKind::File {
            executable: metadata.permissions().mode() & 0o100 != 0,
            size: metadata.len(),
        });
    }
    if file_type.is_symlink() {
        let target = fs::read_link(path).context("read the symlink", path)?;
        return Ok(EntryKind::Symlink {
            target: target.into_os_string().into_vec(),
        });
    }
    let kind = match () {
        () if file_type.is_socket() => "socket",
        () if file_type.is_fifo() => "fifo",
        () => "device",
    };
    Err(NarError::Unsupported {
        path: path.to_owned(),
        kind,
    })
}

/// A file's contents that must be as many bytes as were announced.
struct FileContents {
    file: File,
    left: u64,
    /// Why reading failed; whoever was reading has seen no more than a copy of it.
    failure: Option<WalkFailure>,
}

enum WalkFailure {
    Changed,
    Io(io::Error),
}

impl FileContents {
    fn open(path: &Path, size: u64) -> Result<Self, NarError> {
        let file = File::options()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
            .context("open", path)?;
        Ok(Self {
            file,
            left: size,
            failure: None,
        })
    }

    fn read_expected(&mut self, buffer: &mut [u8]) -> Result<usize, WalkFailure> {
        if self.left == 0 {
            // One more byte is asked for, which must not be there.
            return match self.file.read(&mut [0]).map_err(WalkFailure::Io)? {
                0 => Ok(0),
                _ => Err(WalkFailure::Changed),
            };
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        match self.file.read(&mut buffer[..most]).map_err(WalkFailure::Io)? {
            0 => Err(WalkFailure::Changed),
            count => {
                self.left -= count as u64;
                Ok(count)
            }
        }
    }
}

impl Read for FileContents {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.read_expected(buffer).map_err(|failure| {
            let kind = match &failure {
                WalkFailure::Io(error) => error.kind(),
                WalkFailure::Changed => io::ErrorKind::Other,
            };
            self.failure = Some(failure);
            io::Error::from(kind)
        })
    }
}
