//! *Sparse files*: where the stored bytes belong, zeros between them. GNU's own format (type `S`) and its pax formats
//! 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files").
//!
//! Invariant: the pieces of a map are in order, do not overlap, lie within the file and use up the stored bytes; their
//! number is bounded by [`METADATA_MAX`].

use std::io::Read;

use super::header::number;
use super::pax::{self, Records};
use super::{BLOCK, METADATA_MAX, Skip, TarError, TarReader, malformed};
use crate::digest::Hasher;

/// Where the stored bytes of a file belong, and how far it has been read.
pub(super) struct SparseFile {
    /// Offset and length of each piece.
    pieces: Vec<(u64, u64)>,
    /// Size with the holes, in bytes.
    pub(super) size: u64,
    piece: usize,
    position: u64,
}

/// What comes next in a sparse file, and how many bytes of it at the most.
pub(super) enum Next {
    Hole(usize),
    Data(usize),
}

impl SparseFile {
    fn new(pieces: Vec<(u64, u64)>, size: u64, stored: u64, offset: u64) -> Result<Self, TarError> {
        let (mut end, mut sum) = (0, 0u64);
        for &(start, length) in &pieces {
            let next = start.checked_add(length).filter(|&next| start >= end && next <= size);
            end = next.ok_or_else(|| malformed(offset, "the pieces of a sparse file overlap or lie outside of it"))?;
            sum += length;
        }
        if sum != stored {
            return Err(malformed(
                offset,
                "the pieces of a sparse file do not match what is stored",
            ));
        }
        Ok(Self {
            pieces,
            size,
            piece: 0,
            position: 0,
        })
    }

    /// What comes next, at most `max` bytes of it.
    pub(super) fn next(&mut self, max: usize) -> Next {
        while self
            .pieces
            .get(self.piece)
            .is_some_and(|(start, length)| self.position >= start + length)
        {
            self.piece += 1;
        }
        let (hole_end, data_end) = match self.pieces.get(self.piece) {
            Some(&(start, length)) => (start, start + length),
            None => (self.size, self.size),
        };
        let up_to = |end: u64| max.min(usize::try_from(end - self.position).unwrap_or(usize::MAX));
        if self.position < hole_end {
            Next::Hole(up_to(hole_end))
        } else {
            Next::Data(up_to(data_end))
        }
    }

    /// Notes that so many bytes were read.
    pub(super) fn advance(&mut self, count: usize) {
        self.position += count as u64;
    }
}

/// The map of an entry with these records and `stored` bytes; `None` for an ordinary file. That of format 1.0 is read
/// from the start of the content.
pub(super) fn of_pax<R: Skip>(
    records: &Records,
    archive: &mut TarReader<R>,
    hasher: &mut Hasher,
    offset: u64,
) -> Result<Option<SparseFile>, TarError> {
    let number = |key| records.number(key, offset);
    let version = (number("GNU.sparse.major")?, number("GNU.sparse.minor")?);
    let size = match number("GNU.sparse.size")? {
        None => number("GNU.sparse.realsize")?,
        size => size,
    };
    let map = records.get("GNU.sparse.map");
    if version == (None, None) && size.is_none() && map.is_none() {
        return Ok(None);
    }
    let size = size.ok_or_else(|| malformed(offset, "a sparse file without its size"))?;
    let pieces = match (version, map) {
        ((Some(1), Some(0)), _) => read_1_0(archive, hasher, offset)?,
        ((None, None) | (Some(0), Some(0 | 1)), Some(map)) => {
            let numbers = map.split(|&byte| byte == b',').filter(|text| !text.is_empty());
            pairs(numbers.map(pax::decimal).collect::<Option<_>>(), offset)?
        }
        _ => {
            return Err(malformed(
                offset,
                "a sparse file in a version of the format that is not known",
            ));
        }
    };
    SparseFile::new(pieces, size, archive.stored, offset).map(Some)
}

/// Reads the map that format 1.0 puts before the content: decimal numbers on lines of their own, the number of
/// pieces first, padded to a block.
fn read_1_0<R: Skip>(
    archive: &mut TarReader<R>,
    hasher: &mut Hasher,
    offset: u64,
) -> Result<Vec<(u64, u64)>, TarError> {
    let mut numbers: Vec<u64> = Vec::new();
    let mut text = Vec::new();
    for _ in 0..METADATA_MAX / BLOCK as u64 {
        let mut block = [0; BLOCK];
        archive.read_exact(&mut block).map_err(|source| archive.io(source))?;
        hasher.update(&block);
        for byte in block {
            if byte != b'\n' {
                text.push(byte);
                continue;
            }
            let number = pax::decimal(&text);
            numbers.push(number.ok_or_else(|| malformed(offset, "a map of a sparse file that holds no numbers"))?);
            text.clear();
            if numbers.len() as u64 == numbers[0].saturating_mul(2).saturating_add(1) {
                return pairs(Some(numbers.split_off(1)), offset);
            }
        }
    }
    Err(malformed(offset, "a map of a sparse file larger than 1 MiB"))
}

/// Reads the map of GNU's own format: four pieces in the header, more in blocks that follow it.
pub(super) fn of_gnu<R: Skip>(
    header: &::tar::GnuHeader,
    archive: &mut TarReader<R>,
    hasher: &mut Hasher,
    offset: u64,
) -> Result<SparseFile, TarError> {
    let size = number(&header.realsize, offset)?;
    let mut pieces = Vec::new();
    gnu_pieces(&header.sparse, &mut pieces, offset)?;
    let mut more = header.isextended != [0];
    while more {
        let mut block = ::tar::GnuExtSparseHeader::new();
        archive.read_metadata(block.as_mut_bytes())?;
        hasher.update(block.as_bytes());
        gnu_pieces(block.sparse(), &mut pieces, offset)?;
        more = block.isextended != [0];
        if pieces.len() as u64 > METADATA_MAX / 16 {
            return Err(malformed(offset, "a map of a sparse file larger than 1 MiB"));
        }
    }
    SparseFile::new(pieces, size, archive.stored, offset)
}

fn gnu_pieces(fields: &[::tar::GnuSparseHeader], pieces: &mut Vec<(u64, u64)>, offset: u64) -> Result<(), TarError> {
    for field in fields.iter().take_while(|field| field.offset[0] != 0) {
        pieces.push((number(&field.offset, offset)?, number(&field.numbytes, offset)?));
    }
    Ok(())
}

fn pairs(numbers: Option<Vec<u64>>, offset: u64) -> Result<Vec<(u64, u64)>, TarError> {
    let numbers = numbers.filter(|numbers| numbers.len().is_multiple_of(2));
    let numbers = numbers.ok_or_else(|| malformed(offset, "the pieces of a sparse file are not pairs of numbers"))?;
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}
