//! *Sparse files* in a tar: where the stored bytes belong, zeros between them. GNU's own format (type `S`) and
//! its pax formats 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files").
//!
//! Invariant: the pieces of a map are in order, do not overlap, lie within the file and use up the stored bytes.

use std::io::{self, Read};

use super::{BLOCK, Content, METADATA_MAX, TarReader, decimal, number};
use crate::fetch::unpack::UnpackError;

/// Where the stored bytes of a file belong.
#[derive(Debug)]
pub(super) struct SparseMap {
    /// Offset and length of each piece.
    pieces: Vec<(u64, u64)>,
    size: u64,
}

impl SparseMap {
    fn new(pieces: Vec<(u64, u64)>, size: u64, stored: u64) -> Result<Self, UnpackError> {
        let (mut end, mut sum) = (0, 0u64);
        for &(offset, length) in &pieces {
            let next = offset.checked_add(length).filter(|&next| offset >= end && next <= size);
            end = next.ok_or_else(|| malformed("overlap or lie outside of it"))?;
            sum += length;
        }
        if sum != stored {
            return Err(malformed("do not match what is stored"));
        }
        Ok(Self { pieces, size })
    }

    /// Size of the file with its holes, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The file with its holes from its stored bytes.
    pub(super) fn expand<R: Read>(&self, stored: R) -> Expanded<'_, R> {
        Expanded {
            map: self,
            stored,
            piece: 0,
            position: 0,
        }
    }
}

/// Reads a sparse file with its holes.
pub(super) struct Expanded<'a, R> {
    map: &'a SparseMap,
    stored: R,
    piece: usize,
    position: u64,
}

impl<R: Read> Read for Expanded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let pieces = &self.map.pieces;
        while pieces
            .get(self.piece)
            .is_some_and(|(offset, length)| self.position >= offset + length)
        {
            self.piece += 1;
        }
        let (hole_end, data_end) = match pieces.get(self.piece) {
            Some(&(offset, length)) => (offset, offset + length),
            None => (self.map.size, self.map.size),
        };
        let in_hole = self.position < hole_end;
        let end = if in_hole { hole_end } else { data_end };
        let want = buffer
            .len()
            .min(usize::try_from(end - self.position).unwrap_or(usize::MAX));
        let count = if in_hole {
            buffer[..want].fill(0);
            want
        } else {
            self.stored.read(&mut buffer[..want])?
        };
        self.position += count as u64;
        Ok(count)
    }
}

/// The pax records `GNU.sparse.*` of an entry.
#[derive(Debug, Default)]
pub(super) struct Records {
    major: Option<u64>,
    minor: Option<u64>,
    name: Option<Vec<u8>>,
    size: Option<u64>,
    map: Option<Vec<u8>>,
    format_0_0: bool,
}

impl Records {
    pub(super) fn read(&mut self, key: &[u8], value: &[u8]) -> Result<(), UnpackError> {
        match key {
            b"GNU.sparse.major" => self.major = Some(decimal(value)?),
            b"GNU.sparse.minor" => self.minor = Some(decimal(value)?),
            b"GNU.sparse.name" => self.name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.size = Some(decimal(value)?),
            b"GNU.sparse.map" => self.map = Some(value.to_vec()),
            b"GNU.sparse.offset" => self.format_0_0 = true,
            _ => {}
        }
        Ok(())
    }

    /// The map of an entry with these records and `stored` bytes; `None` for an ordinary file. The map of
    /// format 1.0 is read from the start of the content; the real name replaces `path`.
    pub(super) fn into_map<R: Read>(
        self,
        stored: u64,
        archive: &mut TarReader<R>,
        path: &mut Vec<u8>,
    ) -> Result<Option<SparseMap>, UnpackError> {
        let version = (self.major, self.minor);
        if version == (None, None) && self.size.is_none() && self.map.is_none() && !self.format_0_0 {
            return Ok(None);
        }
        let size = self.size.ok_or_else(|| malformed("have no size"))?;
        if let Some(name) = self.name {
            *path = name;
        }
        let pieces = match (version, self.map) {
            ((Some(1), Some(0)), _) => read_1_0(archive)?,
            ((None, None) | (Some(0), Some(1)), Some(map)) => {
                let numbers = map.split(|&byte| byte == b',').filter(|text| !text.is_empty());
                pairs(numbers.map(decimal).collect::<Result<_, _>>()?)?
            }
            _ => return Err(malformed("are in a version of the format that is not supported")),
        };
        let stored = if version == (Some(1), Some(0)) {
            archive.left
        } else {
            stored
        };
        SparseMap::new(pieces, size, stored).map(Some)
    }
}

/// Reads the map that format 1.0 puts before the content: decimal numbers on lines of their own, the number of
/// pieces first, padded to a block.
fn read_1_0<R: Read>(archive: &mut TarReader<R>) -> Result<Vec<(u64, u64)>, UnpackError> {
    let mut numbers = Vec::new();
    let mut text = Vec::new();
    let mut total = 0;
    loop {
        let mut block = [0; BLOCK];
        Content { archive }
            .read_exact(&mut block)
            .map_err(|source| UnpackError::Damaged { source })?;
        total += BLOCK as u64;
        if total > METADATA_MAX {
            return Err(malformed("are too many"));
        }
        for byte in block {
            if byte != b'\n' {
                text.push(byte);
                continue;
            }
            numbers.push(decimal(&text)?);
            text.clear();
            if numbers.len() as u64 == numbers[0].saturating_mul(2).saturating_add(1) {
                return pairs(numbers.split_off(1));
            }
        }
    }
}

/// Reads the map of GNU's own format: four pieces in the header, more in blocks that follow it.
pub(super) fn read_gnu<R: Read>(header: &[u8; BLOCK], archive: &mut TarReader<R>) -> Result<SparseMap, UnpackError> {
    let stored = archive.left;
    let size = number(&header[483..495])?;
    let mut pieces = Vec::new();
    gnu_pieces(&header[386..482], &mut pieces)?;
    let mut more = header[482] != 0;
    while more {
        let mut block = [0; BLOCK];
        archive
            .inner
            .read_exact(&mut block)
            .map_err(|source| UnpackError::Damaged { source })?;
        gnu_pieces(&block[..504], &mut pieces)?;
        more = block[504] != 0;
        if pieces.len() as u64 > METADATA_MAX {
            return Err(malformed("are too many"));
        }
    }
    SparseMap::new(pieces, size, stored)
}

fn gnu_pieces(field: &[u8], pieces: &mut Vec<(u64, u64)>) -> Result<(), UnpackError> {
    for piece in field.chunks_exact(24).filter(|piece| piece[0] != 0) {
        pieces.push((number(&piece[..12])?, number(&piece[12..])?));
    }
    Ok(())
}

fn pairs(numbers: Vec<u64>) -> Result<Vec<(u64, u64)>, UnpackError> {
    if !numbers.len().is_multiple_of(2) {
        return Err(malformed("are not pairs of numbers"));
    }
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

fn malformed(what: &str) -> UnpackError {
    UnpackError::malformed(format!("the pieces of a sparse file {what}"))
}
