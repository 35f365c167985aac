//! A *tar entry* as it stands in an archive: what it says, how it says it (its [`Form`]), and where its body is.
//!
//! Invariant: memory is bounded whatever the archive claims; every number is checked before it is used; no entry
//! is interpreted as a path of this machine. All dialects are read: v7, ustar (POSIX.1-1988), pax
//! (POSIX.1-2001, `x` and `g` records) and GNU (`L`, `K`, base-256 numbers, `S`).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use crate::digest::{Digest, Hasher};

mod header;
mod input;
#[cfg(test)]
mod tests;

use header::{RawHeader, SIZE, apply_pax, pax_records, trim_nul};
pub use input::{Seekable, Skip, Streamed};

/// Bytes of a tar block.
pub const BLOCK: u64 = 512;

/// Largest body of a pax or GNU long-name header.
const EXTENSION_MAX: u64 = 1 << 20;

/// Why an archive cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// Reading failed.
    #[error("at byte {offset}")]
    Io {
        /// Position in the tar.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The bytes are no tar.
    #[error("at byte {offset}: {reason}")]
    Malformed {
        /// Position of the header in the tar.
        offset: u64,
        /// Which rule is broken.
        reason: &'static str,
    },
}

/// What kind of file an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// Anything else, by its type flag.
    Other(u8),
}

impl Kind {
    /// A word for people.
    pub fn name(self) -> String {
        match self {
            Self::File => "file".to_owned(),
            Self::HardLink => "hard link".to_owned(),
            Self::Symlink => "symlink".to_owned(),
            Self::CharDevice => "character device".to_owned(),
            Self::BlockDevice => "block device".to_owned(),
            Self::Directory => "directory".to_owned(),
            Self::Fifo => "fifo".to_owned(),
            Self::Other(flag) => format!("type {:?}", char::from(flag)),
        }
    }

    /// Whether a body may follow the header; Go's and GNU's readers ignore the size of all others.
    fn has_body(self) -> bool {
        matches!(self, Self::File | Self::Other(_))
    }
}

/// The magic field of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Magic {
    /// None: Unix v7.
    V7,
    /// `ustar`, NUL, `00`.
    Ustar,
    /// `ustar`, two spaces, NUL.
    Gnu,
}

/// *How* an entry is written: everything about its header blocks that is not its meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// The header's magic.
    pub magic: Magic,
    /// Keys of its own pax records.
    pub pax: BTreeSet<String>,
    /// Those of its pax records that say nothing which is read here: times of access, comments and so on.
    pub pax_other: BTreeMap<String, Vec<u8>>,
    /// A GNU `L` entry holds the path.
    pub gnu_long_name: bool,
    /// A GNU `K` entry holds the link target.
    pub gnu_long_link: bool,
    /// Digest of all header blocks, extension headers with their bodies included.
    pub headers: Digest,
    /// Digest of the last header block alone, which no extension header is.
    pub header: Digest,
}

/// An entry of a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path as written, with any `./` and trailing `/`.
    pub path: Vec<u8>,
    /// What it makes.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Owner's name, often empty.
    pub uname: Vec<u8>,
    /// Group's name, often empty.
    pub gname: Vec<u8>,
    /// Seconds since the epoch, and nanoseconds.
    pub mtime: (i64, u32),
    /// Bytes of the body.
    pub size: u64,
    /// Target of a hard or symbolic link.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: Option<(u64, u64)>,
    /// Extended attributes (pax `SCHILY.xattr.*`, `LIBARCHIVE.xattr.*`).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// How it is written.
    pub form: Form,
    /// Position of its first header block in the tar.
    pub header_offset: u64,
    /// Position of its body in the tar.
    pub body_offset: u64,
}

impl Entry {
    /// The path without leading `/` and `./`, without empty and `.` components and trailing `/`.
    pub fn clean_path(&self) -> Vec<u8> {
        clean(&self.path)
    }
}

/// `path` without leading `/`, empty and `.` components; `..` stays, to be refused by whoever resolves.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path
        .split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    parts.join(&b'/')
}

/// What follows the last entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Bytes after the last entry's padding.
    pub bytes: u64,
    /// Whether all of them are zero.
    pub zero: bool,
}

/// Reads a tar entry by entry; between two calls of [`next_entry`](Self::next_entry) it reads the current entry's body.
pub struct TarReader<R> {
    inner: R,
    position: u64,
    /// Bytes of the current body not yet read.
    body: u64,
    /// Zero bytes that fill the current body's last block.
    padding: u64,
    /// Whether the last entry's padding may be missing.
    unpadded: bool,
    globals: BTreeMap<String, Vec<u8>>,
    trailer: Option<Trailer>,
}

impl<R: Skip> TarReader<R> {
    /// Starts before the first entry.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            position: 0,
            body: 0,
            padding: 0,
            unpadded: false,
            globals: BTreeMap::new(),
            trailer: None,
        }
    }

    /// The same for a layer, whose digest tells whether it is whole: the padding of its last entry may be missing, as
    /// `umoci insert` (0.4) leaves it.
    pub fn of_layer(inner: R) -> Self {
        Self {
            unpadded: true,
            ..Self::new(inner)
        }
    }

    /// The next entry, passing over what is left of the current one's body; `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.trailer.is_some() {
            return Ok(None);
        }
        self.skip(self.body)?;
        if !self.pass_padding()? {
            self.trailer = Some(Trailer { bytes: 0, zero: true });
            return Ok(None);
        }
        (self.body, self.padding) = (0, 0);
        let start = self.position;
        let mut pending = Pending::default();
        loop {
            let offset = self.position;
            let Some(block) = self.header_block()? else {
                return if pending.any {
                    Err(malformed(offset, "an extension header without its entry"))
                } else {
                    Ok(None)
                };
            };
            pending.hasher.update(&block);
            let header = RawHeader::check(&block, offset)?;
            match header.flag() {
                b'x' => {
                    let records = self.extension(&header, offset, &mut pending)?;
                    pax_records(&records, offset, &mut pending.pax)?;
                }
                b'g' => {
                    let any = pending.any;
                    let records = self.extension(&header, offset, &mut pending)?;
                    pax_records(&records, offset, &mut self.globals)?;
                    pending.any = any;
                }
                b'L' => pending.name = Some(trim_nul(self.extension(&header, offset, &mut pending)?)),
                b'K' => pending.link = Some(trim_nul(self.extension(&header, offset, &mut pending)?)),
                _ => return self.entry(&header, pending, start, offset).map(Some),
            }
        }
    }

    /// Passes over the padding of the current entry; `false` where the tar ends without it and may.
    fn pass_padding(&mut self) -> Result<bool, TarError> {
        if !self.unpadded {
            return self.skip(self.padding).map(|()| true);
        }
        let mut padding = [0; BLOCK as usize];
        let wanted = &mut padding[..usize::try_from(self.padding).unwrap_or_default()];
        let got = read_full(&mut self.inner, wanted).map_err(|source| self.io(source))?;
        self.position += got as u64;
        Ok(got as u64 == self.padding)
    }

    /// Reads to the end of the tar and says what follows the last entry.
    pub fn finish(mut self) -> Result<(R, Trailer), TarError> {
        while self.next_entry()?.is_some() {}
        let trailer = self.trailer.unwrap_or(Trailer { bytes: 0, zero: true });
        Ok((self.inner, trailer))
    }

    fn entry(&mut self, header: &RawHeader, mut pending: Pending, start: u64, offset: u64) -> Result<Entry, TarError> {
        if header.flag() == b'S' {
            self.sparse_blocks(header, &mut pending)?;
        }
        let mut entry = header.entry(offset)?;
        entry.header_offset = start;
        entry.form.gnu_long_name = pending.name.is_some();
        entry.form.gnu_long_link = pending.link.is_some();
        if let Some(name) = pending.name {
            entry.path = name;
        }
        if let Some(link) = pending.link {
            entry.link = link;
        }
        for (key, value) in &self.globals {
            if !pending.pax.contains_key(key) {
                apply_pax(&mut entry, key, value, offset)?;
            }
        }
        for (key, value) in &pending.pax {
            apply_pax(&mut entry, key, value, offset)?;
        }
        let others = (pending.pax.iter()).filter(|(key, _)| !header::is_known(key));
        entry.form.pax_other = others.map(|(key, value)| (key.clone(), value.clone())).collect();
        entry.form.pax = pending.pax.into_keys().collect();
        entry.form.headers = pending.hasher.digest();
        if entry.kind == Kind::File && entry.path.ends_with(b"/") && entry.form.magic == Magic::V7 {
            entry.kind = Kind::Directory;
        }
        if !entry.kind.has_body() {
            entry.size = 0;
        }
        if entry.path.is_empty() {
            return Err(malformed(offset, "an entry without a path"));
        }
        if entry.size > i64::MAX as u64 {
            return Err(malformed(offset, "a size beyond 63 bits"));
        }
        entry.body_offset = self.position;
        self.body = entry.size;
        self.padding = entry.size.next_multiple_of(BLOCK) - entry.size;
        Ok(entry)
    }

    /// The next 512 bytes, or `None` at the end, which is a zero block or the end of the input.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK as usize]>, TarError> {
        let mut block = [0; BLOCK as usize];
        let got = read_full(&mut self.inner, &mut block).map_err(|source| self.io(source))?;
        self.position += got as u64;
        if got == block.len() && block.iter().any(|&byte| byte != 0) {
            return Ok(Some(block));
        }
        if got != 0 && got != block.len() && block[..got].iter().any(|&byte| byte != 0) {
            return Err(self.io(io::ErrorKind::UnexpectedEof.into()));
        }
        let rest = self.trailing().map_err(|source| self.io(source))?;
        self.trailer = Some(Trailer {
            bytes: got as u64 + rest.bytes,
            ..rest
        });
        Ok(None)
    }

    /// Everything to the end of the input.
    fn trailing(&mut self) -> io::Result<Trailer> {
        let mut trailer = Trailer { bytes: 0, zero: true };
        let mut buffer = vec![0; 64 << 10];
        loop {
            match read_full(&mut self.inner, &mut buffer)? {
                0 => return Ok(trailer),
                count => {
                    trailer.bytes += count as u64;
                    trailer.zero &= buffer[..count].iter().all(|&byte| byte == 0);
                }
            }
        }
    }

    /// The body of an extension header, hashed with its padding into the entry's form.
    fn extension(&mut self, header: &RawHeader, offset: u64, pending: &mut Pending) -> Result<Vec<u8>, TarError> {
        pending.any = true;
        let size = header.number(SIZE, offset)?;
        if size > EXTENSION_MAX {
            return Err(malformed(offset, "an extension header larger than 1 MiB"));
        }
        let padded = size.next_multiple_of(BLOCK);
        let mut body = vec![0; padded as usize];
        self.inner.read_exact(&mut body).map_err(|source| self.io(source))?;
        self.position += padded;
        pending.hasher.update(&body);
        body.truncate(size as usize);
        Ok(body)
    }

    /// Extension blocks of an old GNU sparse header, which follow it while their flag says so.
    fn sparse_blocks(&mut self, header: &RawHeader, pending: &mut Pending) -> Result<(), TarError> {
        const HEADER_FLAG: usize = 482;
        const BLOCK_FLAG: usize = 504;
        let mut more = header.0[HEADER_FLAG] != 0;
        while more {
            let mut block = [0; BLOCK as usize];
            self.inner.read_exact(&mut block).map_err(|source| self.io(source))?;
            self.position += BLOCK;
            pending.hasher.update(&block);
            more = block[BLOCK_FLAG] != 0;
        }
        Ok(())
    }

    fn skip(&mut self, count: u64) -> Result<(), TarError> {
        if count > 0 {
            self.inner.skip(count).map_err(|source| self.io(source))?;
            self.position += count;
        }
        Ok(())
    }

    fn io(&self, source: io::Error) -> TarError {
        TarError::Io {
            offset: self.position,
            source,
        }
    }
}

impl<R: Skip> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.body).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.body -= count as u64;
        self.position += count as u64;
        Ok(count)
    }
}

/// What extension headers said about the entry that follows them.
#[derive(Default)]
struct Pending {
    any: bool,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: BTreeMap<String, Vec<u8>>,
    hasher: Hasher,
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn malformed(offset: u64, reason: &'static str) -> TarError {
    TarError::Malformed { offset, reason }
}
