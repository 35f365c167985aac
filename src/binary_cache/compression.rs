//! *Compression* of archives in a binary cache.
//!
//! Invariant: equal archives give equal bytes: one thread, fixed settings.

use std::io::{self, Write};

use liblzma::stream::Check;
use liblzma::write::XzEncoder;

use crate::oci::CompressionFormat;

/// Preset of xz: its default, as Nix has it.
const XZ_PRESET: u32 = 6;

/// Level of zstd: what unpacks as fast as any other and is written but once.
const ZSTD_LEVEL: i32 = 12;

/// A compressing writer.
pub(super) enum Encoder<W: Write> {
    None(W),
    Xz(Box<XzEncoder<W>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, W>>),
}

impl<W: Write> Encoder<W> {
    /// Compresses into `sink`; bzip2 and gzip are only read.
    pub(super) fn new(format: CompressionFormat, sink: W) -> io::Result<Self> {
        match format {
            CompressionFormat::None => Ok(Self::None(sink)),
            CompressionFormat::Xz => {
                let stream = liblzma::stream::Stream::new_easy_encoder(XZ_PRESET, Check::Crc64)?;
                Ok(Self::Xz(Box::new(XzEncoder::new_stream(sink, stream))))
            }
            CompressionFormat::Zstd => Ok(Self::Zstd(Box::new(zstd::stream::write::Encoder::new(
                sink, ZSTD_LEVEL,
            )?))),
            CompressionFormat::Bzip2 | CompressionFormat::Gzip => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{format} is only read"),
            )),
        }
    }

    /// Writes what is left and gives the sink back.
    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::None(sink) => Ok(sink),
            Self::Xz(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(sink) => sink.write(bytes),
            Self::Xz(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None(sink) => sink.flush(),
            Self::Xz(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}
