//! A *digest* is the SHA-256 of some bytes, taken once, while they stream past.
//!
//! Invariant: [`Digest`] (bytes as stored) and [`DiffId`] (a layer's uncompressed tar) are two types with
//! no conversion between them, and a reader of outside bytes verifies digest and size at end of file. What other tools
//! wrote may name its content by another algorithm: that is a [`ContentDigest`]; and what a lock knows a file from outside by
//! is a [`FileHash`].

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod content;
mod file_hash;
mod sha256;
mod two_lanes;

pub use content::{ContentDigest, ParseContentDigestError};
pub use file_hash::{FileHash, GoHash, ParseFileHashError};
pub use sha256::Hasher;

use content::ContentHasher;

/// SHA-256 of bytes as they are stored or sent, printed `sha256:<64 hex>` (OCI image-spec, descriptor.md#digests).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// SHA-256 of a layer's *uncompressed* tar (OCI image-spec, config.md#layer-diffid).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiffId([u8; 32]);

/// The text is not `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a digest: it must be `sha256:` and 64 lower-case hexadecimal digits")]
pub struct ParseDigestError {
    /// What was to be parsed.
    pub text: String,
}

macro_rules! sha256_newtype {
    ($name:ident) => {
        impl $name {
            /// Takes the 32 bytes of a finished hash.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes of the hash.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The 64 lower-case hexadecimal digits, without the algorithm.
            pub fn hex(&self) -> String {
                to_hex(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "sha256:{}", to_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), to_hex(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, ParseDigestError> {
                text.strip_prefix("sha256:")
                    .and_then(from_hex)
                    .map(Self)
                    .ok_or_else(|| ParseDigestError {
                        text: text.to_owned(),
                    })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

sha256_newtype!(Digest);
sha256_newtype!(DiffId);

impl Digest {
    /// Hashes bytes that are all in memory.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.digest()
    }

    /// Parses 64 hexadecimal digits without the `sha256:` prefix, as `sha256sum` prints them.
    pub fn from_hex(text: &str) -> Result<Self, ParseDigestError> {
        from_hex(text)
            .map(Self)
            .ok_or_else(|| ParseDigestError { text: text.to_owned() })
    }

    /// Parses `sha256-` and the hash in base 64, as npm's locks and Nix print it (Subresource Integrity, 3.1).
    pub fn from_sri(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.strip_prefix("sha256-")?).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }
}

/// A writer that hashes and counts what passes through it.
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Wraps `inner`, with nothing hashed yet.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Hasher::new(),
            size: 0,
        }
    }

    /// Gives back the writer, the hash so far and the number of bytes that passed.
    pub fn finish(self) -> (W, Hasher, u64) {
        (self.inner, self.hasher, self.size)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The bytes read are not the ones that were announced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// More bytes than announced, or fewer at end of file.
    #[error("expected {expected} bytes, got {actual}")]
    Size {
        /// Announced size in bytes.
        expected: u64,
        /// Bytes seen (at least this many when there were more than announced).
        actual: u64,
    },
    /// All bytes arrived and hash to something else.
    #[error(transparent)]
    Digest(Box<DigestMismatch>),
}

/// Bytes that hash to something else than was announced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, got {actual}")]
pub struct DigestMismatch {
    /// Announced hash.
    pub expected: FileHash,
    /// Hash of what was read.
    pub actual: FileHash,
}

impl VerifyError {
    /// The error of bytes with another digest.
    pub fn digest(expected: impl Into<FileHash>, actual: impl Into<FileHash>) -> Self {
        Self::Digest(Box::new(DigestMismatch {
            expected: expected.into(),
            actual: actual.into(),
        }))
    }
}

/// A reader of bytes from outside that fails past the announced size and verifies size and digest at end of file.
///
/// Failures are [`io::ErrorKind::InvalidData`] with a [`VerifyError`] inside. Read to the end: what was
/// read before end of file is unverified.
pub struct VerifyingReader<R> {
    inner: R,
    hasher: Option<ContentHasher>,
    expected: ContentDigest,
    expected_size: Option<u64>,
    size: u64,
}

impl<R: Read> VerifyingReader<R> {
    /// Wraps `inner`; `size` in bytes where it is known.
    pub fn new(inner: R, expected: impl Into<ContentDigest>, size: Option<u64>) -> Self {
        let expected = expected.into();
        Self {
            inner,
            hasher: Some(expected.hasher()),
            expected,
            expected_size: size,
            size: 0,
        }
    }

    fn check_end(&mut self) -> Result<(), VerifyError> {
        let Some(hasher) = self.hasher.take() else {
            return Ok(());
        };
        if let Some(expected) = self.expected_size.filter(|&expected| expected != self.size) {
            return Err(VerifyError::Size {
                expected,
                actual: self.size,
            });
        }
        let actual = hasher.finish();
        if actual != self.expected {
            return Err(VerifyError::digest(self.expected, actual));
        }
        Ok(())
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buffer)?;
        self.size += count as u64;
        if let Some(expected) = self.expected_size.filter(|&expected| self.size > expected) {
            return Err(invalid(VerifyError::Size {
                expected,
                actual: self.size,
            }));
        }
        match (count, &mut self.hasher) {
            (0, _) => self.check_end().map_err(invalid)?,
            (_, Some(hasher)) => hasher.update(&buffer[..count]),
            (_, None) => {}
        }
        Ok(count)
    }
}

fn invalid(error: VerifyError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_value(pair[0])? << 4 | hex_value(pair[1])?;
    }
    Some(bytes)
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn parse_and_print_are_inverse() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
    }

    #[test]
    fn malformed_digests_are_refused() {
        for text in [
            "",
            "sha256:",
            &EMPTY[7..],
            &EMPTY.to_uppercase(),
            &EMPTY[..70],
            "sha512:00",
            &format!("{EMPTY}0"),
        ] {
            assert_eq!(text.parse::<Digest>().unwrap_err().text, text);
        }
    }

    #[test]
    fn hashing_writer_counts_and_hashes() {
        let mut writer = HashingWriter::new(Vec::new());
        writer.write_all(b"ab").unwrap();
        writer.write_all(b"c").unwrap();
        let (bytes, hasher, size) = writer.finish();
        assert_eq!(
            (bytes.as_slice(), hasher.digest(), size),
            (&b"abc"[..], Digest::of(b"abc"), 3)
        );
    }

    fn read_verified(bytes: &[u8], expected: impl Into<ContentDigest>, size: Option<u64>) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        VerifyingReader::new(bytes, expected, size)
            .read_to_end(&mut out)
            .map(|_| out)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn verifying_reader_accepts_only_the_announced_bytes() {
        let digest = Digest::of(b"abc");
        assert_eq!(read_verified(b"abc", digest, Some(3)).unwrap(), b"abc");
        assert_eq!(read_verified(b"abc", digest, None).unwrap(), b"abc");
        assert_eq!(
            read_verified(b"ab", digest, Some(3)).unwrap_err(),
            "expected 3 bytes, got 2"
        );
        assert!(
            read_verified(b"abcd", digest, Some(3))
                .unwrap_err()
                .starts_with("expected 3 bytes, got ")
        );
        assert!(
            read_verified(b"abd", digest, Some(3))
                .unwrap_err()
                .starts_with("expected sha256:ba7816bf")
        );
        let sha512 = ContentDigest::Sha512([0; 64]).same_algorithm(b"abc");
        assert_eq!(read_verified(b"abc", sha512, Some(3)).unwrap(), b"abc");
        assert!(
            read_verified(b"abd", sha512, None)
                .unwrap_err()
                .starts_with("expected sha512:ddaf35a1")
        );
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_digest() {
        crate::testing::fuzz("digest", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let _ = super::Digest::from_hex(&text);
            let _ = super::Digest::from_sri(&text);
            let _ = text.parse::<super::Digest>();
        });
    }
}
