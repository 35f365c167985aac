//! *Tar*: read entry by entry with all that its headers say, and written header by header.
//!
//! Invariant: memory is bounded whatever the archive claims; every number is checked before it is used; no entry
//! is interpreted as a path of this machine. All dialects are read: v7, ustar (POSIX.1-1988), pax (POSIX.1-2001), star
//! and GNU (`L`, `K`, base-256 numbers, `S`).
//!
//! Where programs differ in which bytes belong to which name, an archive could show one tree here and another to a
//! container engine: such headers are errors. Where nobody is misled, Go's `archive/tar` is followed, which the engines
//! read with: global pax headers say nothing of the entries after them. (The `tar` crate gives the fields' layout;
//! it would not do for reading, as it has no view of the raw headers, passes over pax sparse files, and reads names of
//! any length into memory.)

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use super::Kind;
use crate::capability;
use crate::digest::{Digest, Hasher};

mod header;
mod input;
mod pax;
mod sparse;
#[cfg(test)]
mod tests;
mod write;

use header::RawHeader;
pub use input::{Seekable, Skip, Streamed};
use sparse::{Next, SparseFile};
pub use write::{HeaderFields, ID_MAX, NAME_MAX, PREFIX_MAX, SIZE_MAX, append_record, append_with_content, padding};

/// Size of a header and unit of all sizes, in bytes.
pub const BLOCK: usize = 512;

/// Number of NULs that end an archive.
pub const TRAILER: usize = 2 * BLOCK;

/// A sparse file as GNU wrote them before pax.
pub const GNU_SPARSE: Kind = Kind::Other(b'S');

/// Most bytes of extension headers before one entry.
const METADATA_MAX: u64 = 1 << 20;

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
    /// Its holes are not stored.
    pub sparse: bool,
    /// Digest of all header blocks, extension headers with their bodies and maps of sparse files included.
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
    /// Bytes of the file, the holes of a sparse one included.
    pub size: u64,
    /// Target of a hard or symbolic link.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: Option<(u64, u64)>,
    /// Extended attributes (pax `SCHILY.xattr.*`).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// How it is written.
    pub form: Form,
    /// Position of its first header block in the tar.
    pub header_offset: u64,
    /// Position of what is stored of it in the tar, after the map of a sparse file.
    pub body_offset: u64,
}

impl Entry {
    /// The path without leading `/` and `./`, without empty and `.` components and trailing `/`.
    pub fn clean_path(&self) -> Vec<u8> {
        super::clean(&self.path)
    }

    /// The attribute that holds the capabilities of a file, as readers of images see it.
    pub fn capability(&self) -> Option<&[u8]> {
        self.xattrs.get(capability::ATTRIBUTE.as_bytes()).map(Vec::as_slice)
    }

    /// The same in an archive of whatever program.
    pub fn any_capability(&self) -> Option<Vec<u8>> {
        let of_libarchive = || {
            let key = format!("LIBARCHIVE.xattr.{}", capability::ATTRIBUTE);
            pax::of_libarchive(self.form.pax_other.get(&key)?)
        };
        self.capability().map(<[u8]>::to_vec).or_else(of_libarchive)
    }
}

/// What follows the last entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Bytes after the last entry's padding.
    pub bytes: u64,
    /// Whether all of them are zero.
    pub zero: bool,
}

/// Where the readers of an archive are to be more lenient or stricter than the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TarPolicy {
    /// The padding of the last entry may be missing.
    pub unpadded_end: bool,
    /// Headers of type `X`, as Solaris wrote them, are pax headers.
    pub solaris_pax: bool,
    /// Most bytes after the last entry.
    pub trailing_max: u64,
}

impl TarPolicy {
    /// An archive whose content is known by digests.
    pub const IMAGE: Self = Self {
        unpadded_end: false,
        solaris_pax: false,
        trailing_max: u64::MAX,
    };

    /// A layer, whose digest tells whether it is whole: the padding of its last entry may be missing, as
    /// `umoci insert` (0.4) leaves it.
    pub const LAYER: Self = Self {
        unpadded_end: true,
        ..Self::IMAGE
    };

    /// An archive of whatever program, about which nothing is known. Tapes are padded to 10 KiB, some programs pad to
    /// a MiB.
    pub const SOURCE: Self = Self {
        unpadded_end: false,
        solaris_pax: true,
        trailing_max: 64 << 20,
    };
}

/// Whether an archive that starts with `bytes` is a tar: a header with a right checksum, or an empty one.
pub fn looks_like_tar(bytes: &[u8]) -> bool {
    match bytes.first_chunk::<BLOCK>() {
        Some(block) => is_zero(block) || header::checksum_is_right(::tar::Header::from_byte_slice(block)),
        None => false,
    }
}

/// Reads a tar entry by entry; between two calls of [`next_entry`](Self::next_entry) it reads the current entry's
/// file, with its holes.
pub struct TarReader<R> {
    inner: R,
    policy: TarPolicy,
    position: u64,
    /// Stored bytes of the current file not yet read.
    stored: u64,
    /// Zero bytes that fill the current file's last block.
    padding: u64,
    sparse: Option<SparseFile>,
    trailer: Option<Trailer>,
}

impl<R: Skip> TarReader<R> {
    /// Starts before the first entry.
    pub fn new(inner: R, policy: TarPolicy) -> Self {
        Self {
            inner,
            policy,
            position: 0,
            stored: 0,
            padding: 0,
            sparse: None,
            trailer: None,
        }
    }

    /// The next entry, passing over what is left of the current one's file; `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.trailer.is_some() {
            return Ok(None);
        }
        self.sparse = None;
        self.skip(self.stored)?;
        if !self.pass_padding()? {
            self.trailer = Some(Trailer { bytes: 0, zero: true });
            return Ok(None);
        }
        (self.stored, self.padding) = (0, 0);
        let start = self.position;
        let mut extensions = Extensions::default();
        loop {
            let offset = self.position;
            let Some(block) = self.header_block()? else {
                return match extensions.bytes {
                    0 => Ok(None),
                    _ => Err(malformed(offset, "an extension header without its entry")),
                };
            };
            extensions.hasher.update(&block);
            let header = RawHeader::check(&block, offset)?;
            match header.flag() {
                b'L' => extensions.name = Some(self.extension_name(&header, offset, &mut extensions)?),
                b'K' => extensions.link = Some(self.extension_name(&header, offset, &mut extensions)?),
                b'g' => self.global_header(&header, offset, &mut extensions)?,
                b'x' => self.pax_header(&header, offset, &mut extensions)?,
                b'X' if self.policy.solaris_pax => self.pax_header(&header, offset, &mut extensions)?,
                _ => return self.entry(&header, extensions, start, offset).map(Some),
            }
        }
    }

    /// Reads to the end of the tar and says what follows the last entry.
    pub fn finish(mut self) -> Result<(R, Trailer), TarError> {
        while self.next_entry()?.is_some() {}
        let trailer = self.trailer.unwrap_or(Trailer { bytes: 0, zero: true });
        Ok((self.inner, trailer))
    }

    fn pax_header(&mut self, header: &RawHeader, offset: u64, extensions: &mut Extensions) -> Result<(), TarError> {
        if extensions.pax.is_some() {
            return Err(malformed(
                offset,
                "two pax headers before one entry, of which readers take one or both",
            ));
        }
        let records = self.extension(header, offset, extensions)?;
        extensions.pax = Some(pax::Records::parse(&records, offset)?);
        Ok(())
    }

    /// Global records may hold comments (git writes its commit there); one that names entries makes no sense.
    fn global_header(&mut self, header: &RawHeader, offset: u64, extensions: &mut Extensions) -> Result<(), TarError> {
        if extensions.bytes > 0 {
            return Err(malformed(
                offset,
                "a global pax header between an extension header and its entry",
            ));
        }
        let records = self.extension(header, offset, extensions)?;
        extensions.bytes = 0;
        if pax::Records::parse(&records, offset)?.decides_what_entries_are() {
            return Err(malformed(
                offset,
                "a global pax header that sets the names or sizes of entries",
            ));
        }
        Ok(())
    }

    fn entry(&mut self, header: &RawHeader, ext: Extensions, start: u64, offset: u64) -> Result<Entry, TarError> {
        let (pax, mut hasher) = (ext.pax.unwrap_or_default(), ext.hasher);
        for (key, name) in [("path", &ext.name), ("linkpath", &ext.link)] {
            if let (Some(text), Some(name)) = (pax.get(key), name)
                && text != name
            {
                return Err(malformed(
                    offset,
                    "two names for one entry, by a pax record and by GNU's long name",
                ));
            }
        }
        let mut entry = header.entry(offset)?;
        if entry.kind.has_body() {
            self.stored = match pax.number("size", offset)? {
                Some(size) => size,
                None => header.size(offset)?,
            };
        }
        if self.stored > i64::MAX as u64 {
            return Err(malformed(offset, "a size beyond 63 bits"));
        }
        self.padding = self.stored.next_multiple_of(BLOCK as u64) - self.stored;
        self.sparse = self.sparse_file(header, entry.kind, &pax, &mut hasher, offset)?;
        entry.header_offset = start;
        entry.body_offset = self.position;
        entry.size = self.sparse.as_ref().map_or(self.stored, |file| file.size);
        entry.form.sparse = self.sparse.is_some();
        entry.form.gnu_long_name = ext.name.is_some();
        entry.form.gnu_long_link = ext.link.is_some();
        entry.form.headers = hasher.digest();
        entry.path = ext.name.unwrap_or(entry.path);
        entry.link = ext.link.unwrap_or(entry.link);
        let real_name = pax.get("GNU.sparse.name").map(<[u8]>::to_vec);
        pax.apply(&mut entry, offset)?;
        if let (true, Some(name)) = (entry.form.sparse, real_name) {
            entry.path = name;
        }
        // Before POSIX, a directory was a file whose name ends with a slash.
        if header.flag() == 0 && entry.path.ends_with(b"/") {
            if self.stored > 0 {
                return Err(malformed(
                    offset,
                    "a directory with content, which some readers take for headers",
                ));
            }
            entry.kind = Kind::Directory;
        }
        if entry.path.is_empty() {
            return Err(malformed(offset, "an entry without a path"));
        }
        Ok(entry)
    }

    fn sparse_file(
        &mut self,
        header: &RawHeader,
        kind: Kind,
        pax: &pax::Records,
        hasher: &mut Hasher,
        offset: u64,
    ) -> Result<Option<SparseFile>, TarError> {
        if kind == GNU_SPARSE {
            let header = header
                .gnu()
                .ok_or_else(|| malformed(offset, "a sparse file that is not GNU's"))?;
            return sparse::of_gnu(header, self, hasher, offset).map(Some);
        }
        let file = sparse::of_pax(pax, self, hasher, offset)?;
        if file.is_some() && kind != Kind::File {
            return Err(malformed(offset, "a map of a sparse file for what is not a file"));
        }
        Ok(file)
    }

    /// Passes over the padding of the current file; `false` where the tar ends without it and may.
    fn pass_padding(&mut self) -> Result<bool, TarError> {
        if !self.policy.unpadded_end {
            return self.skip(self.padding).map(|()| true);
        }
        let mut padding = [0; BLOCK];
        let wanted = &mut padding[..usize::try_from(self.padding).unwrap_or_default()];
        let got = read_full(&mut self.inner, wanted).map_err(|source| self.io(source))?;
        self.position += got as u64;
        Ok(got as u64 == self.padding)
    }

    /// The next 512 bytes, or `None` at the end, which is a zero block or the end of the input.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let got = read_full(&mut self.inner, &mut block).map_err(|source| self.io(source))?;
        self.position += got as u64;
        if got == block.len() && !is_zero(&block) {
            return Ok(Some(block));
        }
        if got != 0 && got != block.len() && block[..got].iter().any(|&byte| byte != 0) {
            return Err(self.io(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut trailer = Trailer {
            bytes: got as u64,
            zero: true,
        };
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = read_full(&mut self.inner, &mut buffer).map_err(|source| self.io(source))?;
            if count == 0 {
                self.trailer = Some(trailer);
                return Ok(None);
            }
            trailer.bytes += count as u64;
            trailer.zero &= buffer[..count].iter().all(|&byte| byte == 0);
            if trailer.bytes > self.policy.trailing_max {
                return Err(malformed(self.position, "far too much follows the end of the archive"));
            }
        }
    }

    /// The name in the body of a GNU extension header.
    fn extension_name(&mut self, header: &RawHeader, offset: u64, ext: &mut Extensions) -> Result<Vec<u8>, TarError> {
        let body = self.extension(header, offset, ext)?;
        Ok(header::until_nul(&body).to_vec())
    }

    /// The body of an extension header, hashed with its padding.
    fn extension(&mut self, header: &RawHeader, offset: u64, ext: &mut Extensions) -> Result<Vec<u8>, TarError> {
        let size = header.size(offset)?;
        ext.bytes = ext.bytes.saturating_add(size).saturating_add(BLOCK as u64);
        if ext.bytes > METADATA_MAX {
            return Err(malformed(offset, "extension headers of an entry larger than 1 MiB"));
        }
        let mut body = vec![0; size.next_multiple_of(BLOCK as u64) as usize];
        self.read_metadata(&mut body)?;
        ext.hasher.update(&body);
        body.truncate(size as usize);
        Ok(body)
    }

    fn read_metadata(&mut self, buffer: &mut [u8]) -> Result<(), TarError> {
        self.inner.read_exact(buffer).map_err(|source| self.io(source))?;
        self.position += buffer.len() as u64;
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

    /// Reads what is stored of the current file; ending early is an error.
    fn read_stored(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.stored).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.stored -= count as u64;
        self.position += count as u64;
        Ok(count)
    }
}

impl<R: Skip> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut file) = self.sparse.take() else {
            return self.read_stored(buffer);
        };
        let count = match file.next(buffer.len()) {
            Next::Hole(count) => {
                buffer[..count].fill(0);
                Ok(count)
            }
            Next::Data(count) => self.read_stored(&mut buffer[..count]),
        };
        file.advance(*count.as_ref().unwrap_or(&0));
        self.sparse = Some(file);
        count
    }
}

/// What extension headers said about the entry that follows them.
#[derive(Default)]
struct Extensions {
    /// Bytes of them so far.
    bytes: u64,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<pax::Records>,
    hasher: Hasher,
}

/// Whether a tar with an entry may begin with these bytes.
pub fn begins_with_entry(bytes: &[u8]) -> bool {
    let block = bytes.first_chunk::<BLOCK>();
    block.is_some_and(|block| header::RawHeader::check(block, 0).is_ok())
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

fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|&byte| byte == 0)
}

fn malformed(offset: u64, reason: &'static str) -> TarError {
    TarError::Malformed { offset, reason }
}
