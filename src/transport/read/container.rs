//! A *container* is a directory or a tar that holds an image's files by name.
//!
//! Invariant: a name is only ever looked up among the container's own entries: links of an archive are followed
//! inside the archive, and a target outside it is an error; nothing is unpacked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::TransportError;
use crate::archive::tar::{Seekable, TarError, TarPolicy, TarReader};
use crate::archive::{Kind, clean};
use crate::fsio::IoContext;

/// Most entries of an image archive: two for each of a few thousand layers are far below.
const ENTRIES_MAX: usize = 100_000;
/// Most links followed for one name.
const LINKS_MAX: usize = 8;

/// A file's bytes and their number.
pub(super) type Opened = (Box<dyn Read + Send>, u64);

/// Where an image's files are.
pub struct Container {
    place: String,
    files: ImageFiles,
}

enum ImageFiles {
    Dir(PathBuf),
    Tar {
        file: Arc<File>,
        entries: BTreeMap<Vec<u8>, StoredFile>,
    },
}

enum StoredFile {
    File {
        offset: u64,
        size: u64,
    },
    /// Another entry's clean path.
    Link(Vec<u8>),
    /// A link that leads out of the archive.
    Escape(Vec<u8>),
}

impl Container {
    /// Whether it is a directory, not an archive.
    pub(super) fn is_dir(&self) -> bool {
        matches!(self.files, ImageFiles::Dir(_))
    }

    /// A directory; nothing of it is read yet.
    pub fn dir(path: &Path, place: &str) -> Self {
        Self {
            place: place.to_owned(),
            files: ImageFiles::Dir(path.to_owned()),
        }
    }

    /// An uncompressed tar, whose entries are listed now.
    pub fn tar(file: File, place: &str) -> Result<Self, TransportError> {
        let entries = index(&file, place)?;
        Ok(Self {
            place: place.to_owned(),
            files: ImageFiles::Tar {
                file: Arc::new(file),
                entries,
            },
        })
    }

    /// Whether a file of this name is there.
    pub fn has(&self, name: &str) -> bool {
        match &self.files {
            ImageFiles::Dir(dir) => dir.join(name).is_file(),
            ImageFiles::Tar { entries, .. } => entries.contains_key(&clean(name.as_bytes())),
        }
    }

    /// Opens a file: its bytes and their number; `None` where no such file is.
    pub fn open(&self, name: &str) -> Result<Option<Opened>, TransportError> {
        match &self.files {
            ImageFiles::Dir(dir) => open_regular(&dir.join(name)),
            ImageFiles::Tar { file, entries } => {
                let found = self.resolve(entries, name)?;
                Ok(found.map(|(offset, size)| {
                    let section = FileSection {
                        file: file.clone(),
                        position: offset,
                        left: size,
                    };
                    (Box::new(section) as Box<dyn Read + Send>, size)
                }))
            }
        }
    }

    /// Where a file's bytes are, and their number: equal for two names that lead to one file.
    pub fn position(&self, name: &str) -> Result<Option<(u64, u64)>, TransportError> {
        match &self.files {
            ImageFiles::Dir(dir) => {
                let metadata = std::fs::metadata(dir.join(name))
                    .ok()
                    .filter(std::fs::Metadata::is_file);
                Ok(metadata.map(|metadata| (metadata.ino(), metadata.len())))
            }
            ImageFiles::Tar { entries, .. } => self.resolve(entries, name),
        }
    }

    /// What messages call it.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// A whole file of at most `limit` bytes.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, TransportError> {
        let Some((reader, size)) = self.open(name)? else {
            return Ok(None);
        };
        let (place, what) = (self.place.clone(), format!("`{name}`"));
        if size > limit {
            return Err(TransportError::TooLarge { place, what, limit });
        }
        let mut bytes = Vec::new();
        match reader.take(limit).read_to_end(&mut bytes) {
            Ok(_) => Ok(Some(bytes)),
            Err(source) => Err(TransportError::Read { place, what, source }),
        }
    }

    fn resolve(
        &self,
        entries: &BTreeMap<Vec<u8>, StoredFile>,
        name: &str,
    ) -> Result<Option<(u64, u64)>, TransportError> {
        let malformed = |reason: String| TransportError::Malformed {
            place: self.place.clone(),
            what: format!("`{name}`"),
            reason,
        };
        let mut key = clean(name.as_bytes());
        for _ in 0..LINKS_MAX {
            match entries.get(&key) {
                None => return Ok(None),
                Some(StoredFile::File { offset, size }) => return Ok(Some((*offset, *size))),
                Some(StoredFile::Link(target)) => key.clone_from(target),
                Some(StoredFile::Escape(target)) => {
                    let target = String::from_utf8_lossy(target);
                    return Err(malformed(format!("it is a link to `{target}`, outside the archive")));
                }
            }
        }
        Err(malformed(format!("more than {LINKS_MAX} links lead on from it")))
    }
}

/// Opens a regular file without ever waiting for a fifo's writer; anything else counts as malformed.
fn open_regular(path: &Path) -> Result<Option<Opened>, TransportError> {
    let nonblocking = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let file = match File::options().read(true).custom_flags(nonblocking).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.context("open", path)?,
    };
    let metadata = file.metadata().context("read the attributes of", path)?;
    if !metadata.is_file() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
        return Err(Err::<(), _>(error)
            .context("read", path)
            .expect_err("it was made an error")
            .into());
    }
    Ok(Some((Box::new(file), metadata.len())))
}

/// Lists an archive's files and links by clean path.
fn index(file: &File, place: &str) -> Result<BTreeMap<Vec<u8>, StoredFile>, TransportError> {
    let tar = |source| TransportError::Tar {
        place: place.to_owned(),
        source,
    };
    let malformed = |path: &[u8], reason: &str| TransportError::Malformed {
        place: place.to_owned(),
        what: format!("the entry `{}`", String::from_utf8_lossy(path)),
        reason: reason.to_owned(),
    };
    let input = file.try_clone().and_then(Seekable::new);
    let mut reader = TarReader::new(
        input.map_err(|source| tar(TarError::Io { offset: 0, source }))?,
        TarPolicy::IMAGE,
    );
    let mut entries = BTreeMap::new();
    while let Some(entry) = reader.next_entry().map_err(tar)? {
        let path = entry.clean_path();
        if path.split(|&byte| byte == b'/').any(|part| part == b"..") {
            return Err(malformed(&entry.path, "its path leads out of the archive"));
        }
        let stored = match entry.kind {
            Kind::File if entry.form.sparse => {
                let reason = "it is stored as a sparse file, which cannot be read in place: pack the archive anew without `--sparse`";
                return Err(malformed(&entry.path, reason));
            }
            Kind::File => StoredFile::File {
                offset: entry.body_offset,
                size: entry.size,
            },
            Kind::HardLink => link(b"", &entry.link),
            Kind::Symlink => {
                let parent = path
                    .iter()
                    .rposition(|&byte| byte == b'/')
                    .map_or(&path[..0], |slash| &path[..slash]);
                link(parent, &entry.link)
            }
            _ => continue,
        };
        if entries.contains_key(&path) {
            let reason = "it appears twice, and consumers differ in which one they take";
            return Err(malformed(&path, reason));
        }
        entries.insert(path, stored);
        if entries.len() > ENTRIES_MAX {
            return Err(malformed(b"", "an image archive has at most 100000 entries"));
        }
    }
    // Unpacked, what is below a link goes to where the link leads, in place of what stands there.
    let below = entries
        .keys()
        .find(|path| ancestors(path).any(|dir| entries.contains_key(dir)));
    match below {
        Some(path) => Err(malformed(path, "it is below an entry that is not a directory")),
        None => Ok(entries),
    }
}

/// The directories that a clean path is in, the innermost first.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let above = |path: &'_ [u8]| path.iter().rposition(|&byte| byte == b'/');
    std::iter::successors(above(path), move |&at| above(&path[..at])).map(|at| &path[..at])
}

/// Where a link in directory `parent` of the archive leads, by names alone.
fn link(parent: &[u8], target: &[u8]) -> StoredFile {
    if target.starts_with(b"/") {
        return StoredFile::Escape(target.to_owned());
    }
    let mut parts: Vec<&[u8]> = parent
        .split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty())
        .collect();
    for part in target.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if parts.pop().is_none() {
                    return StoredFile::Escape(target.to_owned());
                }
            }
            part => parts.push(part),
        }
    }
    StoredFile::Link(parts.join(&b'/'))
}

/// A part of a file, read at its own position so that many can be read at once.
struct FileSection {
    file: Arc<File>,
    position: u64,
    left: u64,
}

impl Read for FileSection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let count = self.file.read_at(&mut buffer[..want], self.position)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
