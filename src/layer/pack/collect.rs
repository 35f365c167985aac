//! A layer being *collected*: its blocks in order become a digest and stored bytes.
//!
//! Invariant: bytes arrive in the order in which they stand in the blob; what is kept is exactly what was hashed.

use std::io::Write;
use std::path::PathBuf;

use libdeflater::Crc;

use super::PackError;
use super::pool::Block;
use crate::digest::{Digest, Hasher};
use crate::fsio::{AtomicFile, IoContext, PathError};
use crate::layer::LayerError;
use crate::layer::cache::{LayerCache, LayerRecord, PartRecord, PieceIndex};
use crate::layer::codec::CodecError;

/// What the next blocks belong to.
pub(super) enum Piece {
    /// Few bytes that are the same in many layers: kept with the layer's record.
    Inline,
    /// Read from its source; kept under this key where there is a cache.
    Fresh(Digest),
    /// Read from the cache.
    Cached(Digest, PieceIndex),
}

/// Where packed bytes are kept.
pub(super) enum Output<'c> {
    /// In the cache, a file for each piece.
    Cache(&'c LayerCache),
    /// In one temporary file.
    Spool(tempfile::NamedTempFile),
    /// Not at all.
    Nowhere,
}

/// Everything collected of a layer.
pub(super) struct Collected {
    pub record: LayerRecord,
    /// The whole blob, where it is not in the cache.
    pub spool: Option<tempfile::TempPath>,
}

pub(super) struct Collector<'c> {
    output: Output<'c>,
    identity: bool,
    digest: Hasher,
    crc: Crc,
    tar_size: u64,
    size: u64,
    parts: Vec<PartRecord>,
    open: Option<Open>,
}

/// The piece that blocks are added to.
struct Open {
    piece: Piece,
    file: Option<AtomicFile>,
    bytes: Vec<u8>,
    crc: Crc,
    index: PieceIndex,
}

impl<'c> Collector<'c> {
    /// `identity`: packed bytes are the tar bytes.
    pub fn new(output: Output<'c>, identity: bool) -> Self {
        Self {
            output,
            identity,
            digest: Hasher::new(),
            crc: Crc::new(),
            tar_size: 0,
            size: 0,
            parts: Vec::new(),
            open: None,
        }
    }

    /// Whether the open piece is from the cache.
    pub fn is_cached(&self) -> bool {
        matches!(&self.open, Some(open) if matches!(open.piece, Piece::Cached(..)))
    }

    /// CRC of the tar so far (RFC 1952).
    pub fn crc(&self) -> u32 {
        self.crc.sum()
    }

    /// Tar bytes so far.
    pub fn tar_size(&self) -> u64 {
        self.tar_size
    }

    /// Begins a piece.
    pub fn begin(&mut self, piece: Piece) -> Result<(), PackError> {
        let file = match (&self.output, &piece) {
            (Output::Cache(cache), Piece::Fresh(key)) => Some(cache.create_piece(key).map_err(PackError::CacheWrite)?),
            _ => None,
        };
        self.open = Some(Open {
            piece,
            file,
            bytes: Vec::new(),
            crc: Crc::new(),
            index: PieceIndex {
                size: 0,
                crc32: 0,
                tar_size: 0,
                blocks: Vec::new(),
            },
        });
        Ok(())
    }

    /// Takes a block of the open piece.
    pub fn block(&mut self, block: &Block, single_member: bool) -> Result<(), PackError> {
        let tar = &block.tar[..block.filled];
        self.tar_size += tar.len() as u64;
        if single_member {
            self.crc.update(tar);
        }
        if let Some(open) = &mut self.open {
            open.index.tar_size += tar.len() as u64;
        }
        self.packed(if self.identity { tar } else { &block.packed })
    }

    /// Takes packed bytes that stand for no tar bytes, or those of a block.
    pub fn packed(&mut self, packed: &[u8]) -> Result<(), PackError> {
        if !self.identity {
            self.digest.update(packed);
        }
        self.size += packed.len() as u64;
        let Some(open) = &mut self.open else { return Ok(()) };
        open.index.size += packed.len() as u64;
        open.index.blocks.push(u32::try_from(packed.len()).unwrap_or(u32::MAX));
        match (&mut self.output, &open.piece) {
            (Output::Spool(file), _) => {
                let written = file.as_file_mut().write_all(packed);
                written.context("write", file.path()).map_err(LayerError::from)?;
            }
            (Output::Nowhere, _) => {}
            (Output::Cache(_), Piece::Inline) => open.bytes.extend_from_slice(packed),
            (Output::Cache(cache), Piece::Fresh(key)) => {
                open.crc.update(packed);
                if let Some(file) = &mut open.file {
                    let path = || cache.piece_path(key);
                    file.write_all(packed)
                        .map_err(|source| PackError::CacheWrite(path_error(path(), source)))?;
                }
            }
            (Output::Cache(_), Piece::Cached(..)) => open.crc.update(packed),
        }
        Ok(())
    }

    /// A block of the open piece could not be packed or unpacked.
    pub fn blame(&self, error: CodecError) -> PackError {
        match self.open.as_ref().map(|open| &open.piece) {
            Some(Piece::Cached(key, _)) => PackError::Corrupt(*key),
            _ => LayerError::from(error).into(),
        }
    }

    /// Ends the open piece.
    pub fn end(&mut self) -> Result<(), PackError> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        let Output::Cache(cache) = &self.output else {
            return Ok(());
        };
        open.index.crc32 = open.crc.sum();
        let (key, file_size) = match (open.piece, open.file) {
            (Piece::Inline, _) => {
                self.parts.push(PartRecord::Bytes(to_hex(&open.bytes)));
                return Ok(());
            }
            (Piece::Fresh(key), Some(file)) => {
                let published = cache.publish_piece(file, &key, &open.index);
                (key, published.map_err(PackError::CacheWrite)?)
            }
            (Piece::Cached(key, index), _) if index == open.index => {
                let metadata = std::fs::metadata(cache.piece_path(&key));
                (key, metadata.map_err(|_| PackError::Corrupt(key))?.len())
            }
            (Piece::Fresh(key) | Piece::Cached(key, _), _) => return Err(PackError::Corrupt(key)),
        };
        self.parts.push(PartRecord::Piece {
            key,
            size: open.index.size,
            file_size,
        });
        Ok(())
    }

    /// Ends the layer, whose tar has the hash `diff`.
    pub fn finish(self, diff: Hasher) -> Collected {
        let digest = if self.identity {
            diff.clone().digest()
        } else {
            self.digest.digest()
        };
        let spool = match self.output {
            Output::Cache(_) | Output::Nowhere => None,
            Output::Spool(file) => Some(file.into_temp_path()),
        };
        Collected {
            record: LayerRecord {
                diff_id: diff.diff_id(),
                digest,
                size: self.size,
                tar_size: self.tar_size,
                parts: self.parts,
            },
            spool,
        }
    }
}

fn path_error(path: PathBuf, source: std::io::Error) -> PathError {
    PathError {
        action: "write",
        path,
        source,
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
