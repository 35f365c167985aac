//! A *store path* is `<store dir>/<32 base32 characters>-<name>`: the address of an immutable tree.
//!
//! Invariant: a [`StorePath`] is always well formed (20 hash bytes, a legal name) and never holds its
//! store directory; content-addressed paths follow Nix's published fingerprint scheme (Nix manual,
//! "Store Path Specification"), so that real Nix computes the same path for the same tree. Pure.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, Hasher};

/// Nix's base32 alphabet: digits and lower-case letters without `e`, `o`, `t` and `u`.
pub const BASE32_ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// Number of base32 characters in a store path's hash part.
pub const HASH_CHARS: usize = 32;

/// Longest name, in bytes, so that `<hash>-<name>.lock` still fits a file name.
pub const NAME_MAX: usize = 211;

/// The directory under which store paths are named; part of every path's hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreDir(String);

impl StoreDir {
    /// The logical prefix of layerize's own store paths.
    pub const LAYERIZE: &'static str = "/layerize/store";
    /// The store directory of Nix.
    pub const NIX: &'static str = "/nix/store";

    /// layerize's own store directory.
    pub fn layerize() -> Self {
        Self(Self::LAYERIZE.to_owned())
    }

    /// Nix's store directory.
    pub fn nix() -> Self {
        Self(Self::NIX.to_owned())
    }

    /// The directory as an absolute path without trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The absolute logical path of `path`.
    pub fn join(&self, path: &StorePath) -> String {
        format!("{}/{path}", self.0)
    }

    /// Where `path` is in an image.
    pub fn logical(&self, path: &StorePath) -> LogicalPath {
        LogicalPath {
            text: self.join(path),
            path: path.clone(),
        }
    }

    /// Parses an absolute path *at or below* a store path: the store path, and what follows it.
    pub fn split<'a>(&self, absolute: &'a str) -> Option<(StorePath, &'a str)> {
        let rest = absolute.strip_prefix(self.0.as_str())?.strip_prefix('/')?;
        let (base, below) = rest.split_once('/').unwrap_or((rest, ""));
        Some((base.parse().ok()?, below))
    }
}

/// The 160-bit hash part of a store path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreHash([u8; 20]);

impl StoreHash {
    /// Takes the 20 bytes.
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The 20 bytes.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// Parses 32 base32 characters.
    pub fn parse(text: &[u8]) -> Option<Self> {
        base32_decode(text)?.try_into().ok().map(Self)
    }
}

impl fmt::Display for StoreHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32_encode(&self.0))
    }
}

impl fmt::Debug for StoreHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreHash({self})")
    }
}

/// `<hash>-<name>`: a store path without its directory. Ordered as its text is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StorePath {
    hash: StoreHash,
    name: String,
}

impl StorePath {
    /// Joins a hash and a name that passes [`check_name`].
    pub fn new(hash: StoreHash, name: &str) -> Result<Self, StorePathError> {
        check_name(name)?;
        Ok(Self {
            hash,
            name: name.to_owned(),
        })
    }

    /// The hash part.
    pub fn hash(&self) -> StoreHash {
        self.hash
    }

    /// The name part, with its version if it has one.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl PartialOrd for StorePath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for StorePath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // The text's first character holds the hash's highest bits: base32 prints the bytes from the last.
        let bytes = |path: &Self| path.hash.0.iter().rev().copied().collect::<Vec<_>>();
        bytes(self).cmp(&bytes(other)).then_with(|| self.name.cmp(&other.name))
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.hash, self.name)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StorePath({self})")
    }
}

impl FromStr for StorePath {
    type Err = StorePathError;

    fn from_str(text: &str) -> Result<Self, StorePathError> {
        let malformed = || StorePathError::Malformed { text: text.to_owned() };
        let bytes = text.as_bytes();
        if bytes.get(HASH_CHARS) != Some(&b'-') {
            return Err(malformed());
        }
        let hash = StoreHash::parse(&bytes[..HASH_CHARS]).ok_or_else(malformed)?;
        Self::new(hash, &text[HASH_CHARS + 1..])
    }
}

impl Serialize for StorePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StorePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Where a store path is in an image: the absolute path that its store's directory gives it.
///
/// Printed, compared, ordered and serialised as that text.
#[derive(Clone)]
pub struct LogicalPath {
    text: String,
    path: StorePath,
}

impl LogicalPath {
    /// The absolute path.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path without its leading slash, as tar names it.
    pub fn relative(&self) -> &str {
        &self.text[1..]
    }

    /// The store path, without its directory.
    pub fn store_path(&self) -> &StorePath {
        &self.path
    }

    /// The directory of its store.
    pub fn dir(&self) -> &str {
        let base = HASH_CHARS + 1 + self.path.name().len();
        &self.text[..self.text.len() - base - 1]
    }

    /// The store path, where it is one of the store at `dir`.
    pub fn in_store(&self, dir: &str) -> Option<&StorePath> {
        (self.dir() == dir).then_some(&self.path)
    }
}

impl PartialEq for LogicalPath {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for LogicalPath {}

impl PartialOrd for LogicalPath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for LogicalPath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl Borrow<str> for LogicalPath {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for LogicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for LogicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogicalPath({})", self.text)
    }
}

impl FromStr for LogicalPath {
    type Err = StorePathError;

    /// Parses the absolute path of a store path itself, in a store at any place.
    fn from_str(text: &str) -> Result<Self, StorePathError> {
        let found = text.rsplit_once('/').filter(|(dir, _)| dir.starts_with('/'));
        let (_, base) = found.ok_or_else(|| StorePathError::Malformed { text: text.to_owned() })?;
        Ok(Self {
            path: base.parse()?,
            text: text.to_owned(),
        })
    }
}

impl Serialize for LogicalPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that is not a store path, or a name that cannot be part of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorePathError {
    /// Not `<32 base32 characters>-<name>`.
    #[error(
        "`{text}` is not a store path: it must be 32 characters of `0-9a-z` without e, o, t, u, then `-` and a name"
    )]
    Malformed {
        /// What was to be parsed.
        text: String,
    },
    /// The name is empty, too long, starts with a dot, or holds another character than the allowed ones.
    #[error("`{name}` cannot name a store path: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
}

/// Checks the name part of a store path: 1 to [`NAME_MAX`] of `0-9 a-z A-Z + - . _ ? =`, not starting with a dot.
pub fn check_name(name: &str) -> Result<(), StorePathError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte);
    let reason = match name.as_bytes() {
        [] => "it is empty",
        [b'.', ..] => "it starts with a dot",
        bytes if bytes.len() > NAME_MAX => "it is longer than 211 bytes",
        bytes if !bytes.iter().all(|&byte| allowed(byte)) => "only ASCII letters, digits and `+ - . _ ? =` are allowed",
        _ => return Ok(()),
    };
    Err(StorePathError::Name {
        name: name.to_owned(),
        reason,
    })
}

/// What is known of a valid store path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    /// The path.
    pub path: StorePath,
    /// SHA-256 of its canonical archive (NAR).
    pub nar_hash: Digest,
    /// Size of that archive in bytes.
    pub nar_size: u64,
    /// The store paths it refers to, itself left out.
    pub references: BTreeSet<StorePath>,
    /// Whether it holds its own hash.
    pub self_reference: bool,
}

/// Path of a tree or file added by its NAR hash (`nix-store --add`, `--add-fixed --recursive sha256`).
///
/// `nar_hash` is taken modulo self-references; `references` leaves the path itself out.
pub fn content_addressed(
    dir: &StoreDir,
    name: &str,
    nar_hash: &Digest,
    references: &BTreeSet<StorePath>,
    self_reference: bool,
) -> Result<StorePath, StorePathError> {
    let mut kind = with_references("source", dir, references);
    if self_reference {
        kind.push_str(":self");
    }
    make_store_path(dir, &kind, nar_hash, name)
}

/// `KIND:REFERENCE:REFERENCE…`
fn with_references(kind: &str, dir: &StoreDir, references: &BTreeSet<StorePath>) -> String {
    let references = references.iter().map(|reference| dir.join(reference));
    std::iter::once(kind.to_owned())
        .chain(references)
        .collect::<Vec<_>>()
        .join(":")
}

/// Path of a single file added by the SHA-256 of its bytes (`nix-store --add-fixed sha256 FILE`).
pub fn fixed_file(dir: &StoreDir, name: &str, file_hash: &Digest) -> Result<StorePath, StorePathError> {
    let inner = Digest::of(format!("fixed:out:sha256:{}:", file_hash.hex()).as_bytes());
    make_store_path(dir, "output:out", &inner, name)
}

/// Path at which every output of this name is built, before its own is known.
///
/// It depends on nothing else, so whatever a build computes over a file that holds the path (a build ID, a checksum)
/// is the same whichever of its inputs changed, as long as the rest of the file is. No valid path is ever named so:
/// no other fingerprint begins with `placeholder:`.
pub fn placeholder(dir: &StoreDir, name: &str) -> Result<StorePath, StorePathError> {
    make_store_path(dir, "placeholder", &Digest::of(b""), name)
}

/// Path of an output that names itself where that cannot be rewritten, so that it must be built at its own path: from
/// what it was when it was built at its [`placeholder`].
///
/// `first` is the NAR hash of that, modulo the placeholder where it can be rewritten; `references` leaves the path
/// itself out. Equal first outputs have one path, whatever was built to get them.
pub fn built_in_place(
    dir: &StoreDir,
    name: &str,
    first: &Digest,
    references: &BTreeSet<StorePath>,
) -> Result<StorePath, StorePathError> {
    make_store_path(dir, &with_references("output:self", dir, references), first, name)
}

/// `<kind>:sha256:<hex>:<store dir>:<name>`, hashed and folded to 160 bits.
fn make_store_path(dir: &StoreDir, kind: &str, inner: &Digest, name: &str) -> Result<StorePath, StorePathError> {
    let mut fingerprint = Hasher::new();
    fingerprint.update(format!("{kind}:{inner}:{}:{name}", dir.as_str()).as_bytes());
    let digest = fingerprint.digest();
    let mut folded = [0; 20];
    for (index, byte) in digest.as_bytes().iter().enumerate() {
        folded[index % 20] ^= byte;
    }
    StorePath::new(StoreHash(folded), name)
}

/// Prints bytes in Nix's base32: little-endian bit order, most significant character first, no padding.
pub fn base32_encode(bytes: &[u8]) -> String {
    let chars = (bytes.len() * 8).div_ceil(5);
    (0..chars)
        .rev()
        .map(|n| {
            let (byte, shift) = (n * 5 / 8, n * 5 % 8);
            let low = u16::from(bytes[byte]);
            let high = u16::from(bytes.get(byte + 1).copied().unwrap_or(0));
            let value = (high << 8 | low) >> shift & 31;
            char::from(BASE32_ALPHABET[usize::from(value)])
        })
        .collect()
}

/// Parses Nix's base32; `None` for a character outside the alphabet or bits that do not fit whole bytes.
pub fn base32_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0u8; text.len() * 5 / 8];
    for (n, character) in text.iter().rev().enumerate() {
        let value = BASE32_ALPHABET.iter().position(|c| c == character)? as u16;
        let (byte, shift) = (n * 5 / 8, n * 5 % 8);
        let bits = value << shift;
        match bytes.get_mut(byte) {
            Some(target) => *target |= bits as u8,
            None if bits as u8 != 0 => return None,
            None => {}
        }
        match bytes.get_mut(byte + 1) {
            Some(target) => *target |= (bits >> 8) as u8,
            None if bits >> 8 != 0 => return None,
            None => {}
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_matches_nix() {
        // `nix-hash --type sha1 --to-base32 0c2d7fbf…` and the SHA-256 of nothing, as Nix prints them.
        let empty = Digest::of(b"");
        assert_eq!(
            base32_encode(empty.as_bytes()),
            "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"
        );
        assert_eq!(
            base32_decode(b"0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73").unwrap(),
            empty.as_bytes()
        );
        assert_eq!(base32_decode(b"zz"), None, "the highest bit does not fit one byte");
        assert_eq!(base32_decode(b"0e"), None);
    }

    #[test]
    fn paths_parse_print_and_order_as_text() {
        let texts = [
            "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-a",
            "1mdqa9w1p6cmli6976v4wi0sw9r4p5pr-a",
            "1mdqa9w1p6cmli6976v4wi0sw9r4p5pr-b-1.0",
        ];
        let paths = texts.map(|text| text.parse::<StorePath>().unwrap());
        assert_eq!(paths.clone().map(|path| path.to_string()), texts);
        assert!(paths.is_sorted());
    }

    #[test]
    fn malformed_paths_are_refused() {
        for text in [
            "",
            "abc",
            "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr",
            "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-",
            "0mdqa9w1p6cmli6976v4wi0sw9r4p5pe-a",
            "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-a/b",
            "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-.a",
            "ä mdqa9w1p6cmli6976v4wi0sw9r4p5-a",
        ] {
            assert!(text.parse::<StorePath>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_below_a_store_path_is_split() {
        let dir = StoreDir::layerize();
        let (path, below) = dir
            .split("/layerize/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-a/bin/x")
            .unwrap();
        assert_eq!((path.name(), below), ("a", "bin/x"));
        assert!(
            dir.split("/layerize/storehouse/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-a")
                .is_none()
        );
        assert!(dir.split("/nix/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-a").is_none());
    }

    #[test]
    fn references_are_part_of_the_address() {
        let dir = StoreDir::layerize();
        let hash = Digest::of(b"");
        let one: StorePath = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-a".parse().unwrap();
        let two: StorePath = "1mdqa9w1p6cmli6976v4wi0sw9r4p5pr-b".parse().unwrap();
        // From the published scheme, by hand: `source[:REFERENCE…][:self]:sha256:HEX:/layerize/store:x`, hashed,
        // folded to 160 bits by exclusive or, in base 32 (computed independently, in Python).
        for (references, own, expected) in [
            (vec![], false, "j6zb3nc1i8gv2sglf5yyzmmsvwssmsra"),
            (vec![&one], false, "3rk8rss93dwnny2s3gzn4abkanisnpwr"),
            (vec![&two, &one], false, "23qi92b750kn9sskf1kcanhbqd9jj3ad"),
            (vec![&one, &two], true, "lfi9rhn1qqlkdyrzcy66chv5bw0hrpsf"),
            (vec![], true, "5m3vnfq8yz24zbnqc8gnm4k3h48ay342"),
        ] {
            let references = references.into_iter().cloned().collect();
            let path = content_addressed(&dir, "x", &hash, &references, own).unwrap();
            assert_eq!(path.hash().to_string(), expected);
        }
    }

    #[test]
    fn where_an_output_is_built_depends_on_its_name_alone() {
        let dir = StoreDir::layerize();
        // `placeholder:sha256:HEX:/layerize/store:NAME` with the hash of nothing; computed independently, in Python.
        for (name, expected) in [
            ("x", "pi93ryff8riwrv9gn1i79dz45379sq57"),
            ("hello-2.10", "p6shg3ic97895q80sic9n06zqyzk4194"),
        ] {
            assert_eq!(placeholder(&dir, name).unwrap().hash().to_string(), expected);
        }
        // `output:self[:REFERENCE…]:sha256:HEX:/layerize/store:x`, as above.
        let references = [
            "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-a",
            "1mdqa9w1p6cmli6976v4wi0sw9r4p5pr-b",
        ];
        for (references, expected) in [
            (&references[..0], "y0snkpy55gd79hk7wc4q3hdik3vvwjd5"),
            (&references[..], "rfbqqvcsdf3x4bzbnibksr5mggr171qx"),
        ] {
            let references = references.iter().map(|text| text.parse().unwrap()).collect();
            let path = built_in_place(&dir, "x", &Digest::of(b""), &references).unwrap();
            assert_eq!(path.hash().to_string(), expected);
        }
    }

    #[test]
    fn logical_paths_are_those_of_store_paths_alone() {
        let base = "1mdqa9w1p6cmli6976v4wi0sw9r4p5pr-hello-2.10";
        for dir in [StoreDir::LAYERIZE, StoreDir::NIX, "/home/me/nix/store"] {
            let text = format!("{dir}/{base}");
            let logical: LogicalPath = text.parse().unwrap();
            assert_eq!((logical.as_str(), logical.relative()), (text.as_str(), &text[1..]));
            assert_eq!((logical.dir(), logical.to_string()), (dir, text));
            assert_eq!(logical.store_path().to_string(), base);
            assert_eq!(logical.in_store(StoreDir::NIX).is_some(), dir == StoreDir::NIX);
        }
        let joined = StoreDir::nix().logical(&base.parse().unwrap());
        assert_eq!(joined, format!("/nix/store/{base}").parse().unwrap());
        for wrong in [
            "",
            "/nix/store",
            base,
            &format!("nix/store/{base}"),
            &format!("/nix/store/{base}/bin"),
            &format!("/nix/store/{base}/"),
            "/nix/store/short-x",
        ] {
            assert!(wrong.parse::<LogicalPath>().is_err(), "{wrong}");
        }
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_store_path() {
        crate::testing::fuzz("store-path", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            if let Ok(path) = text.parse::<super::StorePath>() {
                assert_eq!(path.to_string(), text);
            }
        });
    }
}
