//! A *compression format* is what compressed bytes are, told by the first of them and never by a name.
//!
//! Invariant: one enum for all that is read or written: layers, image archives, sources, packages, binary caches.

use std::fmt;
use std::str::FromStr;

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CompressionFormat {
    /// Not at all.
    None,
    /// gzip (RFC 1952), of one or many members.
    Gzip,
    /// Zstandard (RFC 8878), of one or many frames.
    Zstd,
    /// The .xz file format 1.1.
    Xz,
    /// bzip2.
    Bzip2,
}

/// The text names no compression format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a known compression; known are none, xz, zstd, bzip2 and gzip", .0.chars().take(50).collect::<String>().escape_debug())]
pub struct UnknownCompressionFormat(String);

impl CompressionFormat {
    /// How many bytes [`sniff`](Self::sniff) looks at.
    pub const MAGIC_MAX: usize = 6;

    /// The format of a file that begins with these bytes.
    pub fn sniff(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame, whose magic's first byte has 16 values (RFC 8878, section 3.1.2).
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            _ => Self::None,
        }
    }

    /// The word for it in media types, in Nix's binary caches and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        }
    }

    /// The end of a file's name.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
            Self::Xz => ".xz",
            Self::Bzip2 => ".bz2",
        }
    }
}

impl fmt::Display for CompressionFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CompressionFormat {
    type Err = UnknownCompressionFormat;

    fn from_str(text: &str) -> Result<Self, UnknownCompressionFormat> {
        [Self::None, Self::Gzip, Self::Zstd, Self::Xz, Self::Bzip2]
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| UnknownCompressionFormat(text.to_owned()))
    }
}
