//! A *file hash* is what a lock knows a file from outside by: SHA-256, SHA-512, or one of Go's hashes.
//!
//! Invariant: one hash has one value, whatever spelling it was read from; a spelling that is not strict is none. A Go
//! hash and a digest are never equal, even where their bits are.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ContentDigest, Digest, Hasher};

/// What a file from outside is verified against.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileHash {
    /// A digest of the file's bytes.
    Content(ContentDigest),
    /// Go's hash of the files in a module's zip: two zips of the same files have one.
    GoModule(GoHash),
    /// Go's hash of a `go.mod` file.
    GoMod(GoHash),
}

/// Go's `h1:`: the SHA-256 of a list of files, each with its own SHA-256 (golang.org/x/mod/sumdb/dirhash, `Hash1`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoHash([u8; 32]);

/// The text is not a hash of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not the hash of a file: {reason}", text.escape_debug())]
pub struct ParseFileHashError {
    /// What was to be parsed.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Prefix of Go's hash in `go.sum`.
const H1: &str = "h1:";
/// Prefix of the text of Go's hash of a `go.mod`.
const GO_MOD: &str = "go.mod:";

impl FileHash {
    /// Parses Subresource Integrity metadata (3.1 and 3.5): hashes in base 64 with their algorithms, separated by white
    /// space, each perhaps with options after `?`. Of several algorithms the strongest counts.
    ///
    /// Two hashes by the strongest algorithm would both be right, so that it is not known which file is meant: an error.
    pub fn from_sri(text: &str) -> Result<Self, ParseFileHashError> {
        let wrong = |reason| ParseFileHashError {
            text: text.to_owned(),
            reason,
        };
        let (mut sha512, mut sha256) = (Vec::new(), Vec::new());
        for word in text.split_ascii_whitespace() {
            let hash = word.split('?').next().unwrap_or_default();
            match hash.split_once('-') {
                Some(("sha512", bits)) => sha512.push(
                    from_base64(bits)
                        .map(ContentDigest::Sha512)
                        .ok_or_else(|| wrong("what follows `sha512-` must be 64 bytes in base 64"))?,
                ),
                Some(("sha256", bits)) => sha256.push(
                    from_base64(bits)
                        .map(|bytes| Digest::from_bytes(bytes).into())
                        .ok_or_else(|| wrong("what follows `sha256-` must be 32 bytes in base 64"))?,
                ),
                Some(("sha1" | "sha384" | "md5", _)) => {}
                _ => return Err(wrong("write `sha512-` or `sha256-` and the hash in base 64")),
            }
        }
        let mut strongest = if sha512.is_empty() { sha256 } else { sha512 };
        strongest.sort_unstable();
        strongest.dedup();
        match strongest.as_slice() {
            [hash] => Ok(Self::Content(*hash)),
            [] => Err(wrong("a SHA-512 or a SHA-256 is needed")),
            _ => Err(wrong("it names two files")),
        }
    }

    /// The name of the kind of hash, as derivations and the download cache have it.
    pub const fn scheme(&self) -> &'static str {
        match self {
            Self::Content(digest) => digest.algorithm(),
            Self::GoModule(_) => "go-h1",
            Self::GoMod(_) => "go-mod-h1",
        }
    }

    /// The hash in lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        match self {
            Self::Content(digest) => digest.hex(),
            Self::GoModule(hash) | Self::GoMod(hash) => super::to_hex(&hash.0),
        }
    }

    /// The hash of a [`scheme`](Self::scheme), from hexadecimal digits.
    pub fn from_hex(scheme: &str, hex: &str) -> Option<Self> {
        Some(match scheme {
            "sha256" => Self::Content(Digest::from_hex(hex).ok()?.into()),
            "sha512" => Self::Content(ContentDigest::Sha512(super::from_hex(hex)?)),
            "go-h1" => Self::GoModule(GoHash(super::from_hex(hex)?)),
            "go-mod-h1" => Self::GoMod(GoHash(super::from_hex(hex)?)),
            _ => return None,
        })
    }

    /// The digest of the file's bytes, where it is one.
    pub const fn content(&self) -> Option<ContentDigest> {
        match self {
            Self::Content(digest) => Some(*digest),
            Self::GoModule(_) | Self::GoMod(_) => None,
        }
    }

    /// The SHA-256 of the file's bytes, where it is that.
    pub const fn sha256(&self) -> Option<Digest> {
        match self {
            Self::Content(digest) => digest.sha256(),
            Self::GoModule(_) | Self::GoMod(_) => None,
        }
    }
}

impl GoHash {
    /// The hash of files with these names and digests. A name that holds a line feed has none.
    pub fn of_files(files: impl IntoIterator<Item = (String, Digest)>) -> Option<Self> {
        let mut files: Vec<(String, Digest)> = files.into_iter().collect();
        files.sort_unstable();
        let mut hasher = Hasher::new();
        for (name, digest) in &files {
            if name.contains('\n') {
                return None;
            }
            hasher.update(format!("{}  {name}\n", digest.hex()).as_bytes());
        }
        Some(Self(*hasher.digest().as_bytes()))
    }

    /// The hash of a `go.mod` with this digest.
    pub fn of_go_mod(file: Digest) -> Self {
        Self::of_files([("go.mod".to_owned(), file)]).expect("the name has no line feed")
    }
}

impl fmt::Display for GoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{H1}{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for GoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GoHash({self})")
    }
}

impl FromStr for GoHash {
    type Err = ParseFileHashError;

    /// Parses `h1:` and 32 bytes in base 64, as `go.sum` has it.
    fn from_str(text: &str) -> Result<Self, ParseFileHashError> {
        let bytes = text.strip_prefix(H1).and_then(from_base64);
        bytes.map(Self).ok_or_else(|| ParseFileHashError {
            text: text.to_owned(),
            reason: "it must be `h1:` and 32 bytes in base 64",
        })
    }
}

impl From<ContentDigest> for FileHash {
    fn from(digest: ContentDigest) -> Self {
        Self::Content(digest)
    }
}

impl From<Digest> for FileHash {
    fn from(digest: Digest) -> Self {
        Self::Content(digest.into())
    }
}

impl PartialEq<Digest> for FileHash {
    fn eq(&self, other: &Digest) -> bool {
        self.sha256().as_ref() == Some(other)
    }
}

/// `sha256:HEX`, `sha512:HEX`, `h1:BASE64`, `go.mod:h1:BASE64`.
impl fmt::Display for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content(digest) => digest.fmt(f),
            Self::GoModule(hash) => hash.fmt(f),
            Self::GoMod(hash) => write!(f, "{GO_MOD}{hash}"),
        }
    }
}

impl fmt::Debug for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileHash({self})")
    }
}

impl FromStr for FileHash {
    type Err = ParseFileHashError;

    fn from_str(text: &str) -> Result<Self, ParseFileHashError> {
        if let Some(hash) = text.strip_prefix(GO_MOD) {
            return hash.parse().map(Self::GoMod);
        }
        if text.starts_with(H1) {
            return text.parse().map(Self::GoModule);
        }
        text.parse().map(Self::Content).map_err(|_| ParseFileHashError {
            text: text.to_owned(),
            reason: "it must be `sha256:` and 64, or `sha512:` and 128 lower-case hexadecimal digits",
        })
    }
}

impl Serialize for FileHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Bytes in base 64 with padding, in its one canonical form.
fn from_base64<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl dgst -sha512 -binary | base64` of `abc`.
    const ABC_512: &str =
        "sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==";
    const ABC_256: &str = "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";

    #[test]
    fn the_strongest_hash_of_integrity_metadata_counts() {
        let sha512 = FileHash::from(ContentDigest::Sha512([0; 64]).same_algorithm(b"abc"));
        let sha256 = FileHash::from(Digest::of(b"abc"));
        assert_eq!(FileHash::from_sri(ABC_512), Ok(sha512));
        assert_eq!(FileHash::from_sri(ABC_256), Ok(sha256));
        for (text, expected) in [
            (format!("{ABC_256} {ABC_512}"), sha512),
            (format!("sha1-qZk+NkcGgWq6PiVxeFDCbJzQ2J0= {ABC_512} {ABC_256}"), sha512),
            (format!("{ABC_512} {ABC_512}"), sha512),
            (format!(" {ABC_512}?size=3 "), sha512),
            (format!("sha384-anything {ABC_256}"), sha256),
        ] {
            assert_eq!(FileHash::from_sri(&text), Ok(expected), "{text}");
        }
        let other = "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==";
        for (text, reason) in [
            (String::new(), "a SHA-512 or a SHA-256 is needed"),
            (
                "sha1-qZk+NkcGgWq6PiVxeFDCbJzQ2J0=".to_owned(),
                "a SHA-512 or a SHA-256 is needed",
            ),
            (format!("{ABC_512} {other}"), "it names two files"),
            (
                ABC_512.trim_end_matches('=').to_owned(),
                "what follows `sha512-` must be 64 bytes in base 64",
            ),
            // The same bits with bits behind them that count for nothing: one hash has one spelling.
            (
                ABC_512.replace("nw==", "nx=="),
                "what follows `sha512-` must be 64 bytes in base 64",
            ),
            (
                ABC_256.replace("sha256", "sha512"),
                "what follows `sha512-` must be 64 bytes in base 64",
            ),
            (
                ABC_512.to_uppercase(),
                "write `sha512-` or `sha256-` and the hash in base 64",
            ),
            (
                "deadbeef".to_owned(),
                "write `sha512-` or `sha256-` and the hash in base 64",
            ),
        ] {
            let error = FileHash::from_sri(&text).unwrap_err();
            assert_eq!((error.text.as_str(), error.reason), (text.as_str(), reason));
        }
    }

    #[test]
    fn texts_and_keys_are_read_back_and_kinds_are_kept_apart() {
        let go = GoHash([7; 32]);
        let all = [
            FileHash::from(Digest::from_bytes([7; 32])),
            FileHash::from(ContentDigest::Sha512([7; 64])),
            FileHash::GoModule(go),
            FileHash::GoMod(go),
        ];
        for (index, hash) in all.into_iter().enumerate() {
            assert_eq!(hash.to_string().parse::<FileHash>(), Ok(hash));
            assert_eq!(FileHash::from_hex(hash.scheme(), &hash.hex()), Some(hash));
            let json = serde_json::to_string(&hash).unwrap();
            assert_eq!(json, format!("\"{hash}\""));
            assert_eq!(serde_json::from_str::<FileHash>(&json).unwrap(), hash);
            assert_eq!(all.iter().filter(|other| **other == hash).count(), 1, "{index}");
        }
        for text in [
            "",
            "h1:",
            "h1:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc",
            "h1:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwd=",
            "H1:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
            "h2:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
            "go.mod:sha256:0",
            "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
        ] {
            assert_eq!(
                text.parse::<FileHash>().unwrap_err().text,
                text.trim_start_matches("go.mod:")
            );
        }
    }

    /// Lines of real `go.sum` files, and lists made by hand.
    #[test]
    fn go_s_hash_is_go_s() {
        for (go_mod, expected) in [
            (
                "module golang.org/x/text\n",
                "h1:NqM8EUOU14njkJ3fqMW+pc6Ldnwhi/IjpwHt7yyuwOQ=",
            ),
            (
                "module \"rsc.io/quote\"\n\nrequire \"rsc.io/sampler\" v1.3.0\n",
                "h1:LzX7hefJvL54yjefDEDHNONDjII0t9xZLPXsUe+TKr0=",
            ),
        ] {
            assert_eq!(GoHash::of_go_mod(Digest::of(go_mod.as_bytes())).to_string(), expected);
        }
        let file = |name: &str| (name.to_owned(), Digest::of(name.as_bytes()));
        let hash = |names: &[&str]| GoHash::of_files(names.iter().map(|name| file(name)));
        assert_eq!(hash(&["b", "a", "a/b"]), hash(&["a", "a/b", "b"]));
        assert_ne!(hash(&["a"]), hash(&["b"]));
        let empty = hash(&[]).unwrap().to_string();
        assert_eq!(empty, "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        assert_eq!(hash(&["a\nb"]), None);
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_file_hash() {
        crate::testing::fuzz("file-hash", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let _ = super::FileHash::from_sri(&text);
            if let Ok(hash) = text.parse::<super::FileHash>() {
                assert_eq!(hash.to_string(), text);
            }
        });
    }
}
