//! *Compression* of archives, known by the first bytes and undone while streaming.

use std::io::{BufRead, Read};

use liblzma::stream::{CONCATENATED, Stream};

use super::UnpackError;

/// How many bytes [`Compression::sniff`] looks at.
pub(crate) const MAGIC_MAX: usize = 6;

/// Most memory that a decoder of xz may use, in bytes: `xz -9` asks for 65 MiB, a hostile file for anything.
const XZ_MEMORY_MAX: u64 = 256 << 20;

/// How the bytes of an archive are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
    Bzip2,
}

impl Compression {
    /// The compression that a file with these first bytes has.
    pub(crate) fn sniff(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame: RFC 8878 §3.1.2.
            [low, 0x2a, 0x4d, 0x18, ..] if low & 0xf0 == 0x50 => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            _ => Self::None,
        }
    }

    /// A reader of the uncompressed bytes; several members or frames in a row are one content.
    pub(crate) fn decoder<'a>(self, reader: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>, UnpackError> {
        let damaged = |source| UnpackError::Damaged { source };
        Ok(match self {
            Self::None => Box::new(reader),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
            Self::Xz => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY_MAX, CONCATENATED)
                    .map_err(|error| damaged(std::io::Error::other(error)))?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(reader, stream))
            }
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(reader).map_err(damaged)?),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
        })
    }

    /// What a file of this compression is called that holds no tar.
    pub(super) fn describe_file(self) -> &'static str {
        match self {
            Self::None => "a plain file",
            Self::Gzip => "a single file compressed with gzip",
            Self::Xz => "a single file compressed with xz",
            Self::Zstd => "a single file compressed with zstd",
            Self::Bzip2 => "a single file compressed with bzip2",
        }
    }
}
