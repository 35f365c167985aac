//! A *narinfo* says what a binary cache has of one store path: `HASH.narinfo`, a few lines `Key: value`.
//!
//! Invariant: what is parsed is well formed (paths, hashes, one of each key) and of the store directory asked for;
//! what is printed is what Nix prints. Nothing in it is to be believed before [`Trust`](super::Trust) was asked.
//!
//! The format is described in the Nix manual only by example; this follows what Nix 2.8 writes and accepts. Keys
//! that are not known are left out of account, as Nix does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::digest::Digest;
use crate::oci::{CompressionFormat, UnknownCompressionFormat};
use crate::store::nix_store;
use crate::store::{Addressing, Attestation};
use crate::store_path::{PathInfo, StoreDir, StorePath, base32_encode, content_addressed, fixed_file};

/// What a binary cache has of a store path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarInfo {
    /// The path and its archive.
    pub info: PathInfo,
    /// Where the compressed archive is, relative to the cache.
    pub url: String,
    /// How it is compressed.
    pub compression: CompressionFormat,
    /// SHA-256 of the compressed archive.
    pub file_hash: Option<Digest>,
    /// Size of the compressed archive in bytes.
    pub file_size: Option<u64>,
    /// Who made and signed the path.
    pub attestation: Attestation,
}

/// Where a text is not a narinfo.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct NarInfoError {
    /// Number of the line, from 1; 0 for the text as a whole.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// Keys that may stand once.
const SINGLE: [&str; 10] = [
    "StorePath",
    "URL",
    "Compression",
    "FileHash",
    "FileSize",
    "NarHash",
    "NarSize",
    "References",
    "Deriver",
    "CA",
];

impl NarInfo {
    /// Parses a narinfo of a store whose directory is `dir`.
    pub fn parse(text: &str, dir: &StoreDir) -> Result<Self, NarInfoError> {
        let lines = Lines::split(text)?;
        let path = lines.parse("StorePath", |value| absolute(value, dir))?;
        let all: BTreeSet<StorePath> = match lines.get("References") {
            Some((line, value)) => value
                .split(' ')
                .filter(|name| !name.is_empty())
                .map(|name| name.parse().map_err(|error| wrong(line, error)))
                .collect::<Result<_, _>>()?,
            None => BTreeSet::new(),
        };
        let (self_reference, references) = (
            all.contains(&path),
            all.into_iter().filter(|other| *other != path).collect(),
        );
        let deriver = match lines.get("Deriver").filter(|(_, value)| *value != "unknown-deriver") {
            Some((line, value)) => {
                let deriver: StorePath = value.parse().map_err(|error| wrong(line, error))?;
                Some(deriver.to_string())
            }
            None => None,
        };
        Ok(Self {
            info: PathInfo {
                nar_hash: lines.parse("NarHash", parse_hash)?,
                nar_size: lines.parse("NarSize", number)?,
                path,
                references,
                self_reference,
            },
            url: lines.parse("URL", |value| Ok(value.to_owned()))?,
            compression: match lines.get("Compression") {
                Some((line, value)) => value
                    .parse()
                    .map_err(|error: UnknownCompressionFormat| wrong(line, error.to_string()))?,
                // What Nix takes it to be, since its first caches did not say.
                None => CompressionFormat::Bzip2,
            },
            file_hash: lines.optional("FileHash", parse_hash)?,
            file_size: lines.optional("FileSize", number)?,
            attestation: Attestation {
                deriver,
                content_address: lines.get("CA").map(|(_, value)| value.to_owned()),
                signatures: lines.signatures,
            },
        })
    }

    /// The text, as Nix writes it.
    pub fn print(&self, dir: &StoreDir) -> String {
        let mut text = format!(
            "StorePath: {}\nURL: {}\nCompression: {}\n",
            dir.join(&self.info.path),
            self.url,
            self.compression
        );
        let mut line = |key: &str, value: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{key}: {value}");
        };
        if let Some(hash) = &self.file_hash {
            line("FileHash", &print_hash(hash));
        }
        if let Some(size) = self.file_size {
            line("FileSize", &size.to_string());
        }
        line("NarHash", &print_hash(&self.info.nar_hash));
        line("NarSize", &self.info.nar_size.to_string());
        let references: Vec<String> = all_references(&self.info).iter().map(ToString::to_string).collect();
        line("References", &references.join(" "));
        if let Some(deriver) = &self.attestation.deriver {
            line("Deriver", deriver);
        }
        for signature in &self.attestation.signatures {
            line("Sig", signature);
        }
        if let Some(address) = &self.attestation.content_address {
            line("CA", address);
        }
        text
    }

    /// What the path is computed from, where the narinfo proves that by the path itself; else the derivation.
    pub fn addressing(&self, dir: &StoreDir) -> Addressing {
        let proven = self.attestation.content_address.as_deref().and_then(parse_address);
        proven
            .filter(|addressing| address_path(addressing, &self.info, dir).as_ref() == Some(&self.info.path))
            .unwrap_or(Addressing::Derivation)
    }
}

/// The text that a signature of a path signs.
pub fn fingerprint(info: &PathInfo, dir: &StoreDir) -> String {
    let references: Vec<String> = all_references(info).iter().map(|path| dir.join(path)).collect();
    format!(
        "1;{};{};{};{}",
        dir.join(&info.path),
        print_hash(&info.nar_hash),
        info.nar_size,
        references.join(",")
    )
}

/// What a path is computed from, as Nix writes it; `None` where that is a derivation.
pub fn print_address(addressing: &Addressing) -> Option<String> {
    match addressing {
        Addressing::Tree(hash) => Some(format!("fixed:r:{}", print_hash(hash))),
        Addressing::File(hash) => Some(format!("fixed:{}", print_hash(hash))),
        Addressing::Derivation => None,
    }
}

/// Content addresses by SHA-256; others (by older hashes, of texts) are as good as none: such paths need a signature.
fn parse_address(text: &str) -> Option<Addressing> {
    let rest = text.strip_prefix("fixed:")?;
    match rest.strip_prefix("r:") {
        Some(hash) => parse_hash(hash).ok().map(Addressing::Tree),
        None => parse_hash(rest).ok().map(Addressing::File),
    }
}

fn address_path(addressing: &Addressing, info: &PathInfo, dir: &StoreDir) -> Option<StorePath> {
    let name = info.path.name();
    match addressing {
        Addressing::Tree(hash) => content_addressed(dir, name, hash, &info.references, info.self_reference).ok(),
        // The address does not cover references: there can be none.
        Addressing::File(_) if info.self_reference || !info.references.is_empty() => None,
        Addressing::File(hash) => fixed_file(dir, name, hash).ok(),
        Addressing::Derivation => None,
    }
}

fn all_references(info: &PathInfo) -> BTreeSet<&StorePath> {
    info.references
        .iter()
        .chain(info.self_reference.then_some(&info.path))
        .collect()
}

/// `sha256:` and Nix's base 32.
pub fn print_hash(hash: &Digest) -> String {
    format!("sha256:{}", base32_encode(hash.as_bytes()))
}

/// A SHA-256 as Nix writes it: `sha256:` and base 32, base 16 or base 64, or `sha256-` and base 64.
pub fn parse_hash(text: &str) -> Result<Digest, String> {
    let named = text.starts_with("sha256:") || text.starts_with("sha256-");
    named
        .then(|| nix_store::parse_hash(text))
        .flatten()
        .ok_or_else(|| format!("`{}` is not a SHA-256", shown(text)))
}

fn absolute(text: &str, dir: &StoreDir) -> Result<StorePath, String> {
    match dir.split(text) {
        Some((path, "")) if dir.join(&path) == text => Ok(path),
        _ => Err(format!("`{}` is not a path of the store {}", shown(text), dir.as_str())),
    }
}

fn number(text: &str) -> Result<u64, String> {
    // No sign, and a size that any file system could hold.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text
        .parse()
        .ok()
        .filter(|&number: &u64| digits && number <= i64::MAX as u64);
    number.ok_or_else(|| format!("`{}` is not a size in bytes", shown(text)))
}

/// The beginning of a text from outside, for a message.
fn shown(text: &str) -> String {
    text.chars().take(200).collect::<String>().escape_debug().to_string()
}

fn wrong(line: usize, reason: impl ToString) -> NarInfoError {
    NarInfoError {
        line,
        reason: reason.to_string(),
    }
}

/// The lines by key, with their numbers.
struct Lines<'t> {
    single: BTreeMap<&'t str, (usize, &'t str)>,
    signatures: BTreeSet<String>,
}

impl<'t> Lines<'t> {
    fn split(text: &'t str) -> Result<Self, NarInfoError> {
        let mut lines = Self {
            single: BTreeMap::new(),
            signatures: BTreeSet::new(),
        };
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let Some((key, value)) = line.split_once(':') else {
                return Err(wrong(number, format!("`{}` is not `Key: value`", shown(line))));
            };
            let value = value.strip_prefix(' ').unwrap_or(value);
            if key == "Sig" {
                lines.signatures.insert(value.to_owned());
            } else if SINGLE.contains(&key) && lines.single.insert(key, (number, value)).is_some() {
                return Err(wrong(number, format!("`{key}` appears twice")));
            }
        }
        Ok(lines)
    }

    fn get(&self, key: &str) -> Option<(usize, &'t str)> {
        self.single.get(key).copied()
    }

    fn parse<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, NarInfoError> {
        let found = self.optional(key, parse)?;
        found.ok_or_else(|| wrong(0, format!("there is no `{key}`")))
    }

    fn optional<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, NarInfoError> {
        let value = self.get(key);
        value
            .map(|(line, value)| parse(value).map_err(|reason| wrong(line, reason)))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// Made by Nix 2.8 (`nix copy --to file://…`).
    const NIX: &str = include_str!("../../fixtures/binary-cache/nix-2.8.narinfo");

    #[test]
    fn what_nix_prints_is_parsed_and_printed() {
        let dir = StoreDir::nix();
        let parsed = NarInfo::parse(NIX, &dir).unwrap();
        assert_eq!(parsed.print(&dir), NIX);
        assert_eq!(parsed.info.nar_size, 480);
        assert!(matches!(parsed.addressing(&dir), Addressing::Tree(hash) if hash == parsed.info.nar_hash));
        assert_eq!(
            fingerprint(&parsed.info, &dir),
            "1;/nix/store/hmsx4asx8zppgw0hbrfhcmnrr1an0370-t;\
             sha256:0hc7x4mami1jj3iay66b0qs9lm2ipl1hhsckccbxcn882rk6f1s5;480;"
        );
        let key: super::super::NixPublicKey = "k-1:k8sgMF5/fQavr/RSkY3nXDua5rCypF4dILbVq5qegB0=".parse().unwrap();
        let signature = parsed.attestation.signatures.first().unwrap();
        assert!(key.verifies(&fingerprint(&parsed.info, &dir), signature));
    }

    #[test]
    fn hashes_are_read_in_every_form() {
        let hash = Digest::of(b"");
        for text in [
            print_hash(&hash),
            format!("sha256:{}", hash.hex()),
            format!("sha256:{}", STANDARD.encode(hash.as_bytes())),
            format!("sha256-{}", STANDARD.encode(hash.as_bytes())),
        ] {
            assert_eq!(parse_hash(&text), Ok(hash), "{text}");
        }
        for text in ["", "sha256:", "sha256:e", "md5:00", "sha256-!!", &"sha256:0".repeat(9)] {
            assert!(parse_hash(text).is_err(), "{text}");
        }
    }

    #[test]
    fn references_are_signed_sorted_and_with_the_path_itself() {
        let dir = StoreDir::nix();
        let own = "hmsx4asx8zppgw0hbrfhcmnrr1an0370-t";
        let (before, after) = (
            "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-a",
            "zmdqa9w1p6cmli6976v4wi0sw9r4p5pr-b",
        );
        let text = NIX.replace("References: ", &format!("References: {after} {own} {before}"));
        let parsed = NarInfo::parse(&text, &dir).unwrap();
        assert!(parsed.info.self_reference && parsed.info.references.len() == 2);
        assert!(
            fingerprint(&parsed.info, &dir)
                .ends_with(&format!("480;/nix/store/{before},/nix/store/{own},/nix/store/{after}"))
        );
        assert_eq!(parsed.addressing(&dir), Addressing::Derivation, "another path");
    }

    #[test]
    fn malformed_ones_are_errors_that_name_the_line() {
        for (from, to, message) in [
            (
                "StorePath: /nix",
                "StorePath: /gnu",
                "line 1: `/gnu/store/hmsx4asx8zppgw0hbrfhcmnrr1an0370-t` is not a path of the store /nix/store",
            ),
            (
                "-t\nURL",
                "-t/../x\nURL",
                "line 1: `/nix/store/hmsx4asx8zppgw0hbrfhcmnrr1an0370-t/../x` is not a path",
            ),
            ("URL: ", "UR: ", "line 0: there is no `URL`"),
            ("Compression: xz", "Compression: br", "line 3: `br`"),
            ("NarSize: 480", "NarSize: -480", "line 7: `-480` is not a size in bytes"),
            ("NarSize: 480", "NarSize: +480", "line 7: `+480` is not a size in bytes"),
            (
                "NarSize: 480",
                "NarSize: 480\nNarSize: 481",
                "line 8: `NarSize` appears twice",
            ),
            ("NarHash: sha256:0", "NarHash: sha1:0", "line 6: `sha1:0"),
            (
                "References: ",
                "References: ../../etc/passwd",
                "line 8: `../../etc/passwd` is not a store path",
            ),
            ("References: ", "no colon", "line 8: `no colon` is not `Key: value`"),
        ] {
            let text = NIX.replace(from, to);
            let error = NarInfo::parse(&text, &StoreDir::nix()).unwrap_err().to_string();
            assert!(error.starts_with(message), "{to}: {error}");
        }
    }

    #[test]
    fn a_file_that_claims_references_is_not_addressed_by_its_content() {
        let dir = StoreDir::nix();
        let hash = Digest::of(b"x");
        let path = fixed_file(&dir, "f", &hash).unwrap();
        let mut parsed = NarInfo::parse(NIX, &dir).unwrap();
        parsed.info.path = path.clone();
        parsed.attestation.content_address = print_address(&Addressing::File(hash));
        assert_eq!(parsed.addressing(&dir), Addressing::File(hash));
        parsed
            .info
            .references
            .insert("0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-a".parse().unwrap());
        assert_eq!(parsed.addressing(&dir), Addressing::Derivation);
    }

    proptest! {
        #[test]
        fn damaged_ones_are_refused_or_mean_what_they_say(at in 0..NIX.len(), text in "[ -~\n]{0,6}", cut in 0usize..6) {
            let mut damaged = NIX.to_owned();
            damaged.replace_range(at..(at + cut).min(NIX.len()), &text);
            let dir = StoreDir::nix();
            if let Ok(parsed) = NarInfo::parse(&damaged, &dir) {
                prop_assert_eq!(NarInfo::parse(&parsed.print(&dir), &dir), Ok(parsed));
            }
        }
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_narinfo() {
        crate::testing::fuzz("narinfo", |bytes| {
            let dir = crate::store_path::StoreDir::nix();
            if let Ok(info) = super::NarInfo::parse(&String::from_utf8_lossy(bytes), &dir) {
                let _ = info.print(&dir);
            }
        });
    }
}
