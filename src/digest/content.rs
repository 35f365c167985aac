//! A *content digest* is the name of content in an OCI descriptor: an algorithm and a hash.
//!
//! Invariant: only the algorithms that the image specification registers (descriptor.md, "Registered algorithms"), each
//! with a hash of its own length in lower-case hexadecimal digits.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

use super::{Digest, Hasher, from_hex, to_hex};

/// What a descriptor calls its content by. layerize itself writes SHA-256 alone; other tools may have chosen SHA-512.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContentDigest {
    /// `sha256:` and 64 digits.
    Sha256(Digest),
    /// `sha512:` and 128 digits.
    Sha512([u8; 64]),
}

/// The text is not the digest of a registered algorithm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a supported digest: it must be `sha256:` and 64, or `sha512:` and 128 lower-case hexadecimal digits"
)]
pub struct ParseContentDigestError {
    /// What was to be parsed.
    pub text: String,
}

impl ContentDigest {
    /// The algorithm's registered name, the first part of its text and of its path in an image layout.
    pub const fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::Sha512(_) => "sha512",
        }
    }

    /// The hash in lower-case hexadecimal digits, without the algorithm.
    pub fn hex(&self) -> String {
        match self {
            Self::Sha256(digest) => digest.hex(),
            Self::Sha512(bytes) => to_hex(bytes),
        }
    }

    /// The SHA-256, where it is one.
    pub const fn sha256(&self) -> Option<Digest> {
        match self {
            Self::Sha256(digest) => Some(*digest),
            Self::Sha512(_) => None,
        }
    }

    /// The digest of `bytes` by the same algorithm.
    pub fn same_algorithm(&self, bytes: &[u8]) -> Self {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digests of what `source` reads, by each of the algorithms.
    pub fn all_of(source: &mut dyn Read) -> io::Result<[Self; 2]> {
        let mut hashers = [
            ContentHasher::Sha256(Hasher::new()),
            ContentHasher::Sha512(Box::default()),
        ];
        let mut buffer = vec![0; 1 << 17];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return Ok(hashers.map(ContentHasher::finish)),
                Ok(count) => hashers.iter_mut().for_each(|hasher| hasher.update(&buffer[..count])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A running hash of the same algorithm.
    pub(super) fn hasher(&self) -> ContentHasher {
        match self {
            Self::Sha256(_) => ContentHasher::Sha256(Hasher::new()),
            Self::Sha512(_) => ContentHasher::Sha512(Box::default()),
        }
    }
}

impl From<Digest> for ContentDigest {
    fn from(digest: Digest) -> Self {
        Self::Sha256(digest)
    }
}

impl PartialEq<Digest> for ContentDigest {
    fn eq(&self, other: &Digest) -> bool {
        matches!(self, Self::Sha256(digest) if digest == other)
    }
}

impl PartialEq<ContentDigest> for Digest {
    fn eq(&self, other: &ContentDigest) -> bool {
        other == self
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentDigest({self})")
    }
}

impl FromStr for ContentDigest {
    type Err = ParseContentDigestError;

    fn from_str(text: &str) -> Result<Self, ParseContentDigestError> {
        let parsed = match text.split_once(':') {
            Some(("sha256", hex)) => from_hex(hex).map(|bytes| Self::Sha256(Digest::from_bytes(bytes))),
            Some(("sha512", hex)) => from_hex(hex).map(Self::Sha512),
            _ => None,
        };
        parsed.ok_or_else(|| ParseContentDigestError { text: text.to_owned() })
    }
}

impl Serialize for ContentDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A running hash by one of the algorithms.
pub(super) enum ContentHasher {
    Sha256(Hasher),
    Sha512(Box<sha2::Sha512>),
}

impl ContentHasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub(super) fn finish(self) -> ContentDigest {
        match self {
            Self::Sha256(hasher) => ContentDigest::Sha256(hasher.digest()),
            Self::Sha512(hasher) => ContentDigest::Sha512(hasher.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4's example of SHA-512 for `abc`.
    const ABC: &str = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                       2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    #[test]
    fn both_registered_algorithms_are_parsed_printed_and_computed() {
        let sha512: ContentDigest = ABC.parse().unwrap();
        assert_eq!(sha512.to_string(), ABC);
        assert_eq!(sha512.same_algorithm(b"abc"), sha512);
        let sha256 = ContentDigest::from(Digest::of(b"abc"));
        assert_eq!(sha256.to_string().parse::<ContentDigest>().unwrap(), sha256);
        assert_eq!(sha256, Digest::of(b"abc"));
        assert_eq!(serde_json::to_string(&sha256).unwrap(), format!("\"{sha256}\""));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "sha512:",
            "sha384:00",
            &ABC.to_uppercase(),
            &ABC[..134],
            "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        ] {
            assert_eq!(text.parse::<ContentDigest>().unwrap_err().text, text);
        }
    }
}
