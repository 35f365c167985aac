//! *Compression* is how a layer's tar is stored: which engine, at which level.
//!
//! Invariant: its text is canonical (`gzip:6` prints as `gzip:6`, `gzip` as the default level), and every
//! value names one engine whose bytes are pinned by the format.

use std::fmt;
use std::str::FromStr;

use super::media_type::LayerCodec;

/// The fastest libdeflate level whose output is at most 1.05 times that of `gzip -6` on real closures.
///
/// Measured: 1.044 times at level 2, 1.089 times at level 1 (`benches/README.md`).
pub const DEFAULT_GZIP_LEVEL: u8 = 2;

/// zstd's own default.
pub const DEFAULT_ZSTD_LEVEL: u8 = 3;

const GZIP_LEVELS: std::ops::RangeInclusive<u8> = 1..=12;
const ZSTD_LEVELS: std::ops::RangeInclusive<u8> = 1..=19;

/// How a layer's tar is compressed. Parsed from `gzip`, `gzip:6`, `zstd`, `zstd:3`, `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// Members of 1 MiB by libdeflate at this level, 1 to 12.
    Gzip(u8),
    /// Frames of 2 MiB by zstd at this level, 1 to 19.
    Zstd(u8),
    /// The tar itself.
    None,
}

/// The text names no compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a compression: {reason}")]
pub struct ParseCompressionError {
    /// What was to be parsed.
    pub text: String,
    /// Which rule it breaks.
    pub reason: &'static str,
}

impl ParseCompressionError {
    /// What to write instead.
    pub fn help(&self) -> Option<String> {
        Some("write `gzip`, `gzip:1` to `gzip:12`, `zstd`, `zstd:1` to `zstd:19`, or `none`".to_owned())
    }
}

impl Compression {
    /// The way in which a layer is compressed, whatever the level.
    pub const fn codec(self) -> LayerCodec {
        match self {
            Self::Gzip(_) => LayerCodec::Gzip,
            Self::Zstd(_) => LayerCodec::Zstd,
            Self::None => LayerCodec::None,
        }
    }

    /// The media type of a layer stored so (OCI image-spec, layer.md).
    pub const fn media_type(self) -> &'static str {
        self.codec().media_type()
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self::Gzip(DEFAULT_GZIP_LEVEL)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gzip(DEFAULT_GZIP_LEVEL) => f.write_str("gzip"),
            Self::Gzip(level) => write!(f, "gzip:{level}"),
            Self::Zstd(DEFAULT_ZSTD_LEVEL) => f.write_str("zstd"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
            Self::None => f.write_str("none"),
        }
    }
}

impl FromStr for Compression {
    type Err = ParseCompressionError;

    fn from_str(text: &str) -> Result<Self, ParseCompressionError> {
        let error = |reason| ParseCompressionError {
            text: text.to_owned(),
            reason,
        };
        let (engine, level) = match text.split_once(':') {
            None => (text, None),
            Some((engine, digits)) => (
                engine,
                Some(parse_level(digits).ok_or_else(|| error("its level is not a number"))?),
            ),
        };
        match (engine, level) {
            ("gzip", None) => Ok(Self::default()),
            ("gzip", Some(level)) if GZIP_LEVELS.contains(&level) => Ok(Self::Gzip(level)),
            ("gzip", Some(_)) => Err(error("gzip's levels are 1 to 12")),
            ("zstd", None) => Ok(Self::Zstd(DEFAULT_ZSTD_LEVEL)),
            ("zstd", Some(level)) if ZSTD_LEVELS.contains(&level) => Ok(Self::Zstd(level)),
            ("zstd", Some(_)) => Err(error("zstd's levels are 1 to 19")),
            ("none", None) => Ok(Self::None),
            ("none", Some(_)) => Err(error("`none` has no level")),
            _ => Err(error("its name is not known")),
        }
    }
}

/// A level in plain decimal digits; `u8::from_str` alone would also take a sign.
fn parse_level(digits: &str) -> Option<u8> {
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_parse_and_print() {
        for (text, value, printed) in [
            ("gzip", Compression::Gzip(DEFAULT_GZIP_LEVEL), "gzip"),
            ("gzip:1", Compression::Gzip(1), "gzip:1"),
            ("gzip:12", Compression::Gzip(12), "gzip:12"),
            ("zstd", Compression::Zstd(3), "zstd"),
            ("zstd:3", Compression::Zstd(3), "zstd"),
            ("zstd:19", Compression::Zstd(19), "zstd:19"),
            ("none", Compression::None, "none"),
        ] {
            assert_eq!(text.parse::<Compression>().unwrap(), value);
            assert_eq!(value.to_string(), printed);
            assert_eq!(printed.parse::<Compression>().unwrap(), value);
        }
    }

    #[test]
    fn other_texts_are_refused_with_advice() {
        for text in [
            "", "gz", "gzip:", "gzip:0", "gzip:13", "gzip:+6", "zstd:20", "zstd:-1", "zstd:300", "none:1", "GZIP",
        ] {
            let error = text.parse::<Compression>().unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("`{text}` is not a compression: "))
            );
            assert!(error.help().unwrap().contains("`gzip:12`"));
        }
    }
}
