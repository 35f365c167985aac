//! A reader of *tar* archives that nobody trusts: POSIX ustar and pax (IEEE 1003.1, "pax Interchange Format"),
//! GNU long names, base-256 numbers and sparse files (GNU tar manual, "Basic Tar Format").
//!
//! Invariant: an entry is given only when its header's checksum is right; metadata is bounded by
//! [`METADATA_MAX`], content by what the header says, and content that ends too early is an error.
//!
//! It is our own because the choice of what a header means must be one place's (two readers that disagree
//! about an entry's size are a known way to smuggle entries), and because it must bound what it reads.

use std::io::{self, Read};

use super::UnpackError;

mod sparse;

use sparse::SparseMap;

/// Size of a header and unit of all sizes, in bytes.
pub(crate) const BLOCK: usize = 512;

/// Most bytes of long names and pax records before one entry.
const METADATA_MAX: u64 = 1 << 20;

/// Most bytes that may follow the end of an archive: tapes are padded to 10 KiB, some programs pad to a MiB.
const TRAILING_MAX: u64 = 64 << 20;

/// An entry, its content still to be read from [`TarReader::data`].
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its name as the archive spells it.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    sparse: Option<SparseMap>,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    /// A regular file of `size` bytes (holes of a sparse one included).
    File {
        executable: bool,
        size: u64,
    },
    Symlink {
        target: Vec<u8>,
    },
    /// Another name of an earlier entry.
    HardLink {
        target: Vec<u8>,
    },
    /// What has no place in a tree, as it is called in messages.
    Special {
        kind: &'static str,
    },
}

/// Whether an archive that starts with `bytes` is a tar: a header with a right checksum, or an empty one.
pub(crate) fn looks_like_tar(bytes: &[u8]) -> bool {
    match <&[u8; BLOCK]>::try_from(bytes) {
        Ok(block) => is_zero(block) || Header(*block).checksum_is_right(),
        Err(_) => false,
    }
}

/// Reads the entries of a tar in order.
pub(crate) struct TarReader<R> {
    inner: R,
    /// Content of the current entry that has not been read, and the padding after it.
    left: u64,
    padding: u64,
    ended: bool,
}

/// What pax records and GNU long names say about the next entry.
#[derive(Debug, Default)]
struct Overrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: sparse::Records,
    /// Bytes of metadata read so far.
    metadata: u64,
}

impl<R: Read> TarReader<R> {
    /// Starts at the first header.
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            left: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The next entry; what was not read of the last one is skipped. `None` at the end of the archive.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut overrides = Overrides::default();
        loop {
            self.skip()?;
            let Some(header) = self.read_header()? else {
                if overrides.metadata > 0 {
                    return Err(UnpackError::malformed("it ends after the long name of an entry"));
                }
                return Ok(None);
            };
            let size = header.size()?;
            match header.type_flag() {
                b'L' => overrides.path = Some(self.metadata(&mut overrides.metadata, size)?),
                b'K' => overrides.link = Some(self.metadata(&mut overrides.metadata, size)?),
                b'x' | b'X' => {
                    let records = self.metadata(&mut overrides.metadata, size)?;
                    overrides.read_pax(&records)?;
                }
                b'g' => {
                    let records = self.metadata(&mut overrides.metadata, size)?;
                    check_global_pax(&records)?;
                }
                // A volume's label.
                b'V' => self.expect_content(size),
                _ => return self.entry(&header, size, overrides).map(Some),
            }
        }
    }

    /// The content of the entry just given.
    pub(crate) fn data<'a>(&'a mut self, entry: &'a Entry) -> Result<Box<dyn Read + 'a>, UnpackError> {
        let stored = Content { archive: self };
        Ok(match &entry.sparse {
            None => Box::new(stored),
            Some(map) => Box::new(map.expand(stored)),
        })
    }

    /// Reads to the end of the input, so that the checksums of a compressed one are checked; what follows the end of
    /// the archive must be little, as it is padding at most.
    pub(crate) fn finish(self) -> Result<(), UnpackError> {
        let rest = io::copy(&mut self.inner.take(TRAILING_MAX + 1), &mut io::sink())
            .map_err(|source| UnpackError::Damaged { source })?;
        match rest > TRAILING_MAX {
            true => Err(UnpackError::malformed("far too much follows its end")),
            false => Ok(()),
        }
    }

    fn entry(&mut self, header: &Header, size: u64, overrides: Overrides) -> Result<Entry, UnpackError> {
        let path = overrides.path.unwrap_or_else(|| header.path());
        let link = overrides.link.unwrap_or_else(|| header.link());
        let stored = overrides.size.unwrap_or(size);
        let mut entry = Entry {
            path,
            sparse: None,
            kind: Kind::Directory,
        };
        let executable = header.mode()? & 0o111 != 0;
        entry.kind = match header.type_flag() {
            // Before POSIX, a directory was a file whose name ends with a slash.
            b'0' | 0 | b'7' if entry.path.ends_with(b"/") => {
                self.expect_content(stored);
                Kind::Directory
            }
            flag @ (b'0' | 0 | b'7' | b'S') => {
                self.expect_content(stored);
                let map = match flag {
                    b'S' => Some(sparse::read_gnu(&header.0, self)?),
                    _ => overrides.sparse.into_map(stored, self, &mut entry.path)?,
                };
                let size = map.as_ref().map_or(stored, SparseMap::size);
                entry.sparse = map;
                Kind::File { executable, size }
            }
            b'1' => Kind::HardLink { target: link },
            b'2' => Kind::Symlink { target: link },
            b'3' => Kind::Special {
                kind: "a character device",
            },
            b'4' => Kind::Special { kind: "a block device" },
            b'5' => Kind::Directory,
            b'6' => Kind::Special { kind: "a named pipe" },
            _ => Kind::Special {
                kind: "of a kind that is unknown",
            },
        };
        Ok(entry)
    }

    /// The next header; `None` at a block of zeros or the end of the input.
    fn read_header(&mut self) -> Result<Option<Header>, UnpackError> {
        if self.ended {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => break,
                Ok(0) => {
                    return Err(UnpackError::Damaged {
                        source: io::ErrorKind::UnexpectedEof.into(),
                    });
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(UnpackError::Damaged { source }),
            }
        }
        if filled == 0 || is_zero(&block) {
            self.ended = true;
            return Ok(None);
        }
        let header = Header(block);
        if !header.checksum_is_right() {
            return Err(UnpackError::malformed("the checksum of a tar header is wrong"));
        }
        Ok(Some(header))
    }

    /// Says that `size` bytes of content follow, and their padding.
    fn expect_content(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn skip(&mut self) -> Result<(), UnpackError> {
        let count = self.left.saturating_add(self.padding);
        let skipped = io::copy(&mut self.inner.by_ref().take(count), &mut io::sink())
            .map_err(|source| UnpackError::Damaged { source })?;
        if skipped < count {
            let source = io::ErrorKind::UnexpectedEof.into();
            return Err(UnpackError::Damaged { source });
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// Content that describes the next entry, up to its first NUL where it is a name.
    fn metadata(&mut self, total: &mut u64, size: u64) -> Result<Vec<u8>, UnpackError> {
        *total = total.saturating_add(size);
        if *total > METADATA_MAX {
            let reason = format!("an entry's name or pax records are longer than {METADATA_MAX} bytes");
            return Err(UnpackError::malformed(reason));
        }
        self.expect_content(size);
        let mut bytes = Vec::new();
        Content { archive: self }
            .read_to_end(&mut bytes)
            .map_err(|source| UnpackError::Damaged { source })?;
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        Ok(bytes)
    }
}

/// The content of an entry as stored; ending early is an error.
struct Content<'a, R> {
    archive: &'a mut TarReader<R>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer
            .len()
            .min(usize::try_from(self.archive.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let count = self.archive.inner.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.archive.left -= count as u64;
        Ok(count)
    }
}

impl Overrides {
    fn read_pax(&mut self, records: &[u8]) -> Result<(), UnpackError> {
        for record in PaxRecords(records) {
            let (key, value) = record?;
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(decimal(value)?),
                _ => self.sparse.read(key, value)?,
            }
        }
        Ok(())
    }
}

/// Global records may hold comments (git writes its commit there); one that names entries makes no sense.
fn check_global_pax(records: &[u8]) -> Result<(), UnpackError> {
    for record in PaxRecords(records) {
        let (key, _) = record?;
        if matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.") {
            let key = String::from_utf8_lossy(key);
            return Err(UnpackError::malformed(format!("a global pax header sets `{key}`")));
        }
    }
    Ok(())
}

/// `LENGTH KEY=VALUE\n`, again and again.
struct PaxRecords<'a>(&'a [u8]);

impl<'a> Iterator for PaxRecords<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), UnpackError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.split_record();
        if record.is_none() {
            self.0 = &[];
        }
        Some(record.ok_or_else(|| UnpackError::malformed("a pax record is malformed")))
    }
}

impl<'a> PaxRecords<'a> {
    fn split_record(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let space = self.0.iter().take(20).position(|&byte| byte == b' ')?;
        let length = usize::try_from(decimal(&self.0[..space]).ok()?).ok()?;
        let record = self.0.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        self.0 = &self.0[length..];
        Some((&record[..equals], &record[equals + 1..]))
    }
}

/// A header block.
struct Header([u8; BLOCK]);

impl Header {
    fn type_flag(&self) -> u8 {
        self.0[156]
    }

    fn size(&self) -> Result<u64, UnpackError> {
        match self.type_flag() {
            // Links and directories have no content, whatever old programs write there.
            b'1'..=b'6' => Ok(0),
            _ => number(&self.0[124..136]),
        }
    }

    fn mode(&self) -> Result<u64, UnpackError> {
        number(&self.0[100..108])
    }

    fn path(&self) -> Vec<u8> {
        let name = until_nul(&self.0[..100]);
        let prefix = until_nul(&self.0[345..500]);
        if &self.0[257..263] != b"ustar\0" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    fn link(&self) -> Vec<u8> {
        until_nul(&self.0[157..257]).to_vec()
    }

    /// The sum of all bytes, the checksum itself taken as spaces; some old programs summed signed bytes.
    fn checksum_is_right(&self) -> bool {
        let Ok(expected) = number(&self.0[148..156]) else {
            return false;
        };
        let bytes = self.0.iter().enumerate().map(|(index, &byte)| match index {
            148..156 => b' ',
            _ => byte,
        });
        let unsigned: u64 = bytes.clone().map(u64::from).sum();
        let signed: i64 = bytes.map(|byte| i64::from(byte.cast_signed())).sum();
        expected == unsigned || i64::try_from(expected) == Ok(signed)
    }
}

/// A number of a header: octal digits, or big-endian base 256 where the highest bit is set.
fn number(field: &[u8]) -> Result<u64, UnpackError> {
    let malformed = || UnpackError::malformed("a number in a tar header is malformed");
    match field {
        [0x80, rest @ ..] => {
            let (high, low) = rest.split_at(rest.len().saturating_sub(8));
            if high.iter().any(|&byte| byte != 0) {
                return Err(malformed());
            }
            Ok(low.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
        }
        _ => {
            let text = until_nul(field).trim_ascii();
            text.iter().try_fold(0u64, |value, &digit| match digit {
                b'0'..=b'7' => Ok(value << 3 | u64::from(digit - b'0')),
                _ => Err(malformed()),
            })
        }
    }
}

fn decimal(text: &[u8]) -> Result<u64, UnpackError> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits
        .then(|| std::str::from_utf8(text).ok()?.parse().ok())
        .flatten()
        .ok_or_else(|| UnpackError::malformed("a number in a pax record is malformed"))
}

fn until_nul(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    &field[..end]
}

fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|&byte| byte == 0)
}
