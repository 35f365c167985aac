//! *Zip*, by its directory at the end (APPNOTE.TXT 6.3).
//!
//! Invariant: a member's content has the size and checksum that the archive says, or reading it is an error; memory is
//! bounded (`LZMA_DICTIONARY_MAX`).

use std::io::{self, Read, Seek};

use ::zip::result::ZipError as CrateError;
use ::zip::{CompressionMethod, System, ZipArchive};

use super::Kind;

/// First bytes of an archive, and of one without members.
const MAGICS: [&[u8]; 2] = [b"PK\x03\x04", b"PK\x05\x06"];

/// Largest dictionary of a member that LZMA compressed, in bytes: more than any preset asks for.
const LZMA_DICTIONARY_MAX: u32 = 256 << 20;

/// Why an archive or a member cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ZipError {
    /// Damaged, cut off, or reading failed.
    #[error(transparent)]
    Damaged(#[from] io::Error),
    /// Encrypted, or compressed in a way that is not supported.
    #[error("{0}")]
    Unsupported(String),
}

impl From<CrateError> for ZipError {
    fn from(error: CrateError) -> Self {
        match error {
            CrateError::UnsupportedArchive(_) | CrateError::CompressionMethodNotSupported(_) => {
                Self::Unsupported(error.to_string())
            }
            error => Self::Damaged(error.into()),
        }
    }
}

/// What the directory says of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, with `/` between directories whatever system made the archive.
    pub name: String,
    /// Its name as it is stored.
    pub raw_name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, where they are known.
    pub mode: Option<u32>,
    /// Bytes of its content.
    pub size: u64,
    /// CRC-32 of its content.
    pub crc32: u32,
    /// Modification time, as text.
    pub modified: Option<String>,
}

/// Whether a file that begins with these bytes is a zip.
pub fn looks_like_zip(head: &[u8]) -> bool {
    MAGICS.iter().any(|magic| head.starts_with(magic))
}

/// Reads the members of an archive by their numbers.
pub struct ZipReader<R>(ZipArchive<R>);

impl<R: Read + Seek> ZipReader<R> {
    /// Reads the directory.
    pub fn new(inner: R) -> Result<Self, ZipError> {
        Ok(Self(ZipArchive::new(inner)?))
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a member is, whether or not its content can be read.
    pub fn member(&mut self, index: usize) -> Result<Member, ZipError> {
        let entry = self.0.by_index_raw(index)?;
        let mut name = entry.name()?.into_owned();
        // As Info-ZIP has it: some programs of Windows write its own separator, which APPNOTE 4.4.17.1 forbids.
        if !matches!(entry.system(), System::Unix | System::OsDarwin) && !name.contains('/') {
            name = name.replace('\\', "/");
        }
        let mode = entry.unix_mode();
        Ok(Member {
            kind: kind(&name, mode.unwrap_or(0)),
            name,
            raw_name: entry.name_raw().to_vec(),
            mode: mode.map(|mode| mode & 0o7777),
            size: entry.size(),
            crc32: entry.crc32(),
            modified: entry.last_modified().map(|time| time.to_string()),
        })
    }

    /// The content of a member.
    pub fn content(&mut self, index: usize) -> Result<impl Read, ZipError> {
        self.check_dictionary(index)?;
        let entry = self.0.by_index(index)?;
        Ok(SizedContent {
            left: entry.size(),
            inner: entry,
        })
    }

    /// The decoder of LZMA takes as much memory as the member asks for, up to 4 GiB.
    fn check_dictionary(&mut self, index: usize) -> Result<(), ZipError> {
        let mut entry = self.0.by_index_raw(index)?;
        if entry.compression() != CompressionMethod::Lzma {
            return Ok(());
        }
        // Version, size of the properties, and the properties: a byte and the dictionary's size (APPNOTE 5.8.8).
        let mut header = [0; 9];
        entry.read_exact(&mut header)?;
        let [.., a, b, c, d] = header;
        if u32::from_le_bytes([a, b, c, d]) > LZMA_DICTIONARY_MAX {
            let message = format!(
                "its dictionary of LZMA is larger than {} MiB",
                LZMA_DICTIONARY_MAX >> 20
            );
            return Err(ZipError::Unsupported(message));
        }
        Ok(())
    }
}

/// Content of the announced size.
struct SizedContent<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for SizedContent<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buffer)?;
        if count == 0 && self.left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let left = self.left.checked_sub(count as u64);
        self.left =
            left.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a member is longer than it says"))?;
        Ok(count)
    }
}

/// The kind of a member by its name, or by the mode that a Unix system kept (inode(7)).
fn kind(name: &str, mode: u32) -> Kind {
    if name.ends_with('/') {
        return Kind::Directory;
    }
    match mode & 0o170_000 {
        0 | 0o100_000 => Kind::File,
        0o040_000 => Kind::Directory,
        0o120_000 => Kind::Symlink,
        0o020_000 => Kind::CharDevice,
        0o060_000 => Kind::BlockDevice,
        0o010_000 => Kind::Fifo,
        _ => Kind::Other(b's'),
    }
}
