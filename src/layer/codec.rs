//! A *block* is the unit of compression: some tar bytes, compressed by themselves into bytes that can follow any
//! other block's.
//!
//! Invariant: a block's packed bytes are a function of its tar bytes and the engine alone; every block is
//! compressed with a fresh state and no dictionary, by whichever thread. (zlib-rs and zlib-ng give other bytes
//! when a reused state meets a dictionary, ISA-L gives other bytes on other CPUs: neither is used so.)
//!
//! # The bytes (format 1)
//!
//! * `gzip`: one member per block of at most 1 MiB (RFC 1952), by libdeflate: flags 0, time 0, no name,
//!   extra flags 4 at level 1, 2 from level 8 and 0 between, system 255.
//! * `gzip`, single member: one header as above with extra flags 0; per block a raw deflate stream by zlib-rs
//!   that ends in a sync flush; an empty final block (`03 00`), the CRC and the size. Levels above 9 are 9.
//! * `zstd`: one frame per block of at most 2 MiB (RFC 8878), its content size in the header, no checksum, no
//!   skippable frames (a leading one breaks podman).
//! * `none`: the tar's own bytes.
//!
//! Each store path begins a new block, so that its packed bytes can be kept and joined with any others.

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use libdeflater::{CompressionLvl, Compressor, Decompressor};

use crate::oci::Compression;

/// Version of the gzip engine, as pinned in `Cargo.toml`.
const LIBDEFLATE: &str = "libdeflate-1.26.1";
/// Version of the engine of single-member gzip, as pinned in `Cargo.toml`.
const ZLIB_RS: &str = "zlib-rs-0.6.8";
/// Version of the zstd engine (zstd-sys of the pinned zstd crate).
const ZSTD: &str = "zstd-1.5.7";

/// Header of a single-member gzip file (RFC 1952).
pub(super) const SINGLE_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// The empty final deflate block that ends a single-member gzip file's data.
pub(super) const SINGLE_FINAL: [u8; 2] = [3, 0];

/// An engine failed, or packed bytes are not what the engine made.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{engine} failed: {message}")]
pub struct CodecError {
    /// Engine with its version.
    pub engine: &'static str,
    /// What it said.
    pub message: String,
}

/// A compression with its framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Engine {
    pub compression: Compression,
    pub single_member: bool,
}

impl Engine {
    /// Takes a compression; `single_member` only matters to gzip.
    pub fn new(compression: Compression, single_member: bool) -> Self {
        Self {
            compression,
            single_member: single_member && matches!(compression, Compression::Gzip(_)),
        }
    }

    /// Most tar bytes in a block.
    pub fn block_size(self) -> usize {
        match self.compression {
            Compression::Gzip(_) => 1 << 20,
            Compression::Zstd(_) => 2 << 20,
            Compression::None => 1 << 18,
        }
    }

    /// Engine and version.
    pub fn name(self) -> &'static str {
        match (self.compression, self.single_member) {
            (Compression::Gzip(_), false) => LIBDEFLATE,
            (Compression::Gzip(_), true) => ZLIB_RS,
            (Compression::Zstd(_), _) => ZSTD,
            (Compression::None, _) => "none",
        }
    }

    /// Whether packed bytes are the tar bytes.
    pub fn is_identity(self) -> bool {
        self.compression == Compression::None
    }

    fn error(self, message: impl ToString) -> CodecError {
        CodecError {
            engine: self.name(),
            message: message.to_string(),
        }
    }
}

/// A thread's engines, made when first needed.
#[derive(Default)]
pub(super) struct Codec {
    deflate: Option<(u8, Compressor)>,
    inflate: Option<Decompressor>,
}

impl Codec {
    /// Compresses a block's tar bytes into `packed`, replacing what it held.
    pub fn pack(&mut self, engine: Engine, tar: &[u8], packed: &mut Vec<u8>) -> Result<(), CodecError> {
        match engine.compression {
            Compression::Gzip(level) if engine.single_member => pack_single(engine, level, tar, packed),
            Compression::Gzip(level) => self.pack_member(engine, level, tar, packed),
            Compression::Zstd(level) => {
                packed.clear();
                packed.reserve(zstd::zstd_safe::compress_bound(tar.len()));
                zstd::bulk::Compressor::new(i32::from(level))
                    .and_then(|mut fresh| fresh.compress_to_buffer(tar, packed))
                    .map_err(|error| engine.error(error))?;
                Ok(())
            }
            Compression::None => {
                packed.clear();
                packed.extend_from_slice(tar);
                Ok(())
            }
        }
    }

    /// Gives back the tar bytes of a block; `tar` has the length that they must have.
    pub fn unpack(&mut self, engine: Engine, packed: &[u8], tar: &mut [u8]) -> Result<(), CodecError> {
        let size = match engine.compression {
            Compression::Gzip(_) if engine.single_member => unpack_single(engine, packed, tar)?,
            Compression::Gzip(_) => self
                .inflate
                .get_or_insert_with(Decompressor::new)
                .gzip_decompress(packed, tar)
                .map_err(|error| engine.error(error))?,
            Compression::Zstd(_) => {
                zstd::bulk::decompress_to_buffer(packed, tar).map_err(|error| engine.error(error))?
            }
            Compression::None if packed.len() == tar.len() => {
                tar.copy_from_slice(packed);
                tar.len()
            }
            Compression::None => packed.len(),
        };
        if size == tar.len() {
            Ok(())
        } else {
            Err(engine.error("a block has another size than recorded"))
        }
    }

    fn pack_member(&mut self, engine: Engine, level: u8, tar: &[u8], packed: &mut Vec<u8>) -> Result<(), CodecError> {
        if self.deflate.as_ref().is_none_or(|(current, _)| *current != level) {
            let pinned = CompressionLvl::new(i32::from(level)).map_err(|_| engine.error("it has no such level"))?;
            self.deflate = Some((level, Compressor::new(pinned)));
        }
        let (_, compressor) = self.deflate.as_mut().expect("it was made above");
        packed.resize(compressor.gzip_compress_bound(tar.len()), 0);
        let size = compressor
            .gzip_compress(tar, packed)
            .map_err(|error| engine.error(error))?;
        packed.truncate(size);
        Ok(())
    }
}

fn pack_single(engine: Engine, level: u8, tar: &[u8], packed: &mut Vec<u8>) -> Result<(), CodecError> {
    let mut fresh = Compress::new(flate2::Compression::new(u32::from(level.min(9))), false);
    packed.clear();
    packed.reserve(tar.len() + tar.len() / 1000 + 64);
    loop {
        let consumed = usize::try_from(fresh.total_in()).expect("a block fits memory");
        let before = packed.len();
        fresh
            .compress_vec(&tar[consumed..], packed, FlushCompress::Sync)
            .map_err(|error| engine.error(error))?;
        let done = fresh.total_in() == tar.len() as u64;
        if done && packed.len() < packed.capacity() {
            return Ok(());
        }
        if packed.len() == before && packed.len() < packed.capacity() {
            return Err(engine.error("it made no progress"));
        }
        packed.reserve(tar.len() / 8 + 64);
    }
}

fn unpack_single(engine: Engine, packed: &[u8], tar: &mut [u8]) -> Result<usize, CodecError> {
    let mut fresh = Decompress::new(false);
    let status = fresh
        .decompress(packed, tar, FlushDecompress::Sync)
        .map_err(|error| engine.error(error))?;
    if status == Status::StreamEnd || fresh.total_in() != packed.len() as u64 {
        return Err(engine.error("a block ends early"));
    }
    usize::try_from(fresh.total_out()).map_err(|error| engine.error(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engines() -> Vec<Engine> {
        vec![
            Engine::new(Compression::Gzip(1), false),
            Engine::new(Compression::Gzip(6), false),
            Engine::new(Compression::Gzip(12), false),
            Engine::new(Compression::Gzip(6), true),
            Engine::new(Compression::Zstd(3), true),
            Engine::new(Compression::None, false),
        ]
    }

    /// Bytes of every kind: constant, text-like and incompressible runs.
    fn sample(len: usize) -> Vec<u8> {
        let mut state = 1u32;
        (0..len)
            .map(|index| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                match index / 5000 % 3 {
                    0 => 0,
                    1 => b'a' + (state >> 28) as u8,
                    _ => (state >> 24) as u8,
                }
            })
            .collect()
    }

    #[test]
    fn blocks_come_back() {
        for engine in engines() {
            for len in [0, 1, 511, 100_000, engine.block_size()] {
                let tar = sample(len);
                let (mut codec, mut packed) = (Codec::default(), Vec::new());
                codec.pack(engine, &tar, &mut packed).unwrap();
                let mut back = vec![0; len];
                codec.unpack(engine, &packed, &mut back).unwrap();
                assert!(back == tar, "{engine:?} {len}");
                let first = packed.clone();
                codec.pack(engine, &tar, &mut packed).unwrap();
                assert!(first == packed, "{engine:?} {len}: a reused codec gives the same bytes");
            }
        }
    }

    #[test]
    fn damaged_blocks_are_errors() {
        for engine in engines().into_iter().filter(|engine| !engine.is_identity()) {
            let tar = sample(50_000);
            let (mut codec, mut packed) = (Codec::default(), Vec::new());
            codec.pack(engine, &tar, &mut packed).unwrap();
            let cut = &packed[..packed.len() - 10];
            assert!(
                codec.unpack(engine, cut, &mut vec![0; tar.len()]).is_err(),
                "{engine:?}"
            );
            assert!(
                codec.unpack(engine, &packed, &mut vec![0; tar.len() + 1]).is_err(),
                "{engine:?}"
            );
        }
    }
}
