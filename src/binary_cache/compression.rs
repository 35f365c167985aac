//! *Compression* of archives in a binary cache.
//!
//! Invariant: equal archives give equal bytes: one thread, fixed settings.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use liblzma::stream::Check;
use liblzma::write::XzEncoder;

use crate::fetch::ArchiveCompression;

/// Preset of xz: its default, as Nix has it.
const XZ_PRESET: u32 = 6;

/// Level of zstd: what unpacks as fast as any other and is written but once.
const ZSTD_LEVEL: i32 = 12;

/// How an archive in a binary cache is compressed; the names are Nix's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NarCompression {
    /// Not at all.
    None,
    /// xz (RFC-less; the .xz file format 1.1).
    #[default]
    Xz,
    /// Zstandard (RFC 8878).
    Zstd,
    /// bzip2; only read.
    Bzip2,
    /// gzip (RFC 1952); only read.
    Gzip,
}

impl NarCompression {
    /// The end of the file's name, after `.nar`.
    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Xz => ".xz",
            Self::Zstd => ".zst",
            Self::Bzip2 => ".bz2",
            Self::Gzip => ".gz",
        }
    }

    /// The same as the code knows it that unpacks archives.
    pub(super) fn archive(self) -> ArchiveCompression {
        match self {
            Self::None => ArchiveCompression::None,
            Self::Xz => ArchiveCompression::Xz,
            Self::Zstd => ArchiveCompression::Zstd,
            Self::Bzip2 => ArchiveCompression::Bzip2,
            Self::Gzip => ArchiveCompression::Gzip,
        }
    }

    /// A writer that compresses into `sink`.
    pub(super) fn encoder<W: Write>(self, sink: W) -> io::Result<Encoder<W>> {
        match self {
            Self::None => Ok(Encoder::None(sink)),
            Self::Xz => {
                let stream = liblzma::stream::Stream::new_easy_encoder(XZ_PRESET, Check::Crc64)?;
                Ok(Encoder::Xz(Box::new(XzEncoder::new_stream(sink, stream))))
            }
            Self::Zstd => Ok(Encoder::Zstd(Box::new(zstd::stream::write::Encoder::new(
                sink, ZSTD_LEVEL,
            )?))),
            Self::Bzip2 | Self::Gzip => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{self} is only read"),
            )),
        }
    }
}

impl fmt::Display for NarCompression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Gzip => "gzip",
        })
    }
}

impl FromStr for NarCompression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "xz" => Ok(Self::Xz),
            "zstd" => Ok(Self::Zstd),
            "bzip2" => Ok(Self::Bzip2),
            "gzip" => Ok(Self::Gzip),
            other => Err(format!(
                "`{}` is no known compression; known are none, xz, zstd, bzip2 and gzip",
                other.chars().take(50).collect::<String>().escape_debug()
            )),
        }
    }
}

/// A compressing writer.
pub(super) enum Encoder<W: Write> {
    None(W),
    Xz(Box<XzEncoder<W>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, W>>),
}

impl<W: Write> Encoder<W> {
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
