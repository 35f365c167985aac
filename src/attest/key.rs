//! *Keys* that sign documents: Ed25519 (RFC 8032) or ECDSA on P-256 with SHA-256, in PEM files as OpenSSL has them.
//!
//! Invariant: private keys are PKCS #8 without password, public keys SubjectPublicKeyInfo (RFC 8410, RFC 5480), and
//! nothing else is read; a private key is written once, for its owner alone, and shown nowhere.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::digest::Digest;
use crate::fsio::{self, IoContext};

use super::AttestError;

/// Largest key file that is read, in bytes.
const FILE_MAX: u64 = 64 << 10;

/// PKCS #8 version 1 of an Ed25519 key, before its 32 bytes (RFC 8410, section 7). ring's own form is version 2, which
/// OpenSSL before 3.2 does not read.
const ED25519_PKCS8: &[u8] = &[
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// SubjectPublicKeyInfo of an Ed25519 key, before its 32 bytes (RFC 8410, section 4).
const ED25519_SPKI: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// SubjectPublicKeyInfo of a P-256 key, before its uncompressed point of 65 bytes (RFC 5480, section 2).
const P256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Ed25519: equal documents have equal signatures.
    Ed25519,
    /// ECDSA on P-256 with SHA-256: cosign's default. Each signature has a random part.
    P256,
}

/// A key that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: KeyKind,
    /// 32 bytes, or an uncompressed point of 65.
    bytes: Vec<u8>,
}

/// A key that signs.
pub struct PrivateKey {
    pair: SigningKeyPair,
}

enum SigningKeyPair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

/// Makes a key pair in two new files, `PREFIX.key` (mode 0600) and `PREFIX.pub`, and gives their names.
pub fn generate(kind: KeyKind, prefix: &Path) -> Result<(PathBuf, PathBuf), AttestError> {
    let random = SystemRandom::new();
    let failed = |_| AttestError::Crypto { action: "make a key" };
    let pkcs8 = match kind {
        KeyKind::Ed25519 => {
            let mut seed = [0; 32];
            random.fill(&mut seed).map_err(failed)?;
            [ED25519_PKCS8, &seed].concat()
        }
        KeyKind::P256 => {
            let document = EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &random);
            document.map_err(failed)?.as_ref().to_vec()
        }
    };
    let pair = SigningKeyPair::parse(&pkcs8).ok_or(AttestError::Crypto { action: "make a key" })?;
    let file = |extension| {
        let mut name = prefix.as_os_str().to_owned();
        name.push(extension);
        PathBuf::from(name)
    };
    let (private, public) = (file(".key"), file(".pub"));
    // Neither file may be there: half of a pair that was overwritten is of no use to anybody.
    if public.symlink_metadata().is_ok() {
        return Err(AttestError::Exists { path: public });
    }
    write_new(&private, 0o600, &pem("PRIVATE KEY", &pkcs8))?;
    write_new(&public, 0o644, &pair.public().pem())?;
    Ok((private, public))
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), AttestError> {
    let opened = File::options().write(true).create_new(true).mode(mode).open(path);
    let mut file = match opened {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(AttestError::Exists { path: path.to_owned() });
        }
        opened => opened.context("create", path)?,
    };
    file.write_all(text.as_bytes()).context("write", path)?;
    Ok(file.sync_all().context("write", path)?)
}

impl PrivateKey {
    /// Reads a PEM file.
    pub fn read(path: &Path) -> Result<Self, AttestError> {
        let wanted = "private key";
        let der = read_pem(path, "PRIVATE KEY", wanted)?;
        let pair = SigningKeyPair::parse(&der).ok_or_else(|| AttestError::Key {
            path: path.to_owned(),
            wanted,
            reason: "it is neither an Ed25519 nor a P-256 key in PKCS #8",
            advice: Some("make one with `layerize key generate PREFIX`"),
        })?;
        Ok(Self { pair })
    }

    /// Signs bytes.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, AttestError> {
        match &self.pair {
            SigningKeyPair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            SigningKeyPair::P256(pair) => match pair.sign(&SystemRandom::new(), message) {
                Ok(signature) => Ok(signature.as_ref().to_vec()),
                Err(_) => Err(AttestError::Crypto { action: "sign" }),
            },
        }
    }

    /// The other half.
    pub fn public(&self) -> PublicKey {
        self.pair.public()
    }
}

impl SigningKeyPair {
    fn parse(pkcs8: &[u8]) -> Option<Self> {
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8) {
            return Some(Self::Ed25519(pair));
        }
        let kind = &signature::ECDSA_P256_SHA256_ASN1_SIGNING;
        let pair = EcdsaKeyPair::from_pkcs8(kind, pkcs8, &SystemRandom::new());
        pair.ok().map(Self::P256)
    }

    fn public(&self) -> PublicKey {
        match self {
            Self::Ed25519(pair) => PublicKey {
                kind: KeyKind::Ed25519,
                bytes: pair.public_key().as_ref().to_vec(),
            },
            Self::P256(pair) => PublicKey {
                kind: KeyKind::P256,
                bytes: pair.public_key().as_ref().to_vec(),
            },
        }
    }
}

impl PublicKey {
    /// Reads a PEM file.
    pub fn read(path: &Path) -> Result<Self, AttestError> {
        let wanted = "public key";
        let der = read_pem(path, "PUBLIC KEY", wanted)?;
        Self::parse(&der).ok_or_else(|| AttestError::Key {
            path: path.to_owned(),
            wanted,
            reason: "it is neither an Ed25519 nor a P-256 key",
            advice: None,
        })
    }

    fn parse(spki: &[u8]) -> Option<Self> {
        let key = |kind, bytes: &[u8]| Self {
            kind,
            bytes: bytes.to_vec(),
        };
        if let Some(bytes) = spki.strip_prefix(ED25519_SPKI) {
            return (bytes.len() == 32).then(|| key(KeyKind::Ed25519, bytes));
        }
        let point = spki.strip_prefix(P256_SPKI)?;
        (point.len() == 65 && point[0] == 4).then(|| key(KeyKind::P256, point))
    }

    /// SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> Vec<u8> {
        let prefix = match self.kind {
            KeyKind::Ed25519 => ED25519_SPKI,
            KeyKind::P256 => P256_SPKI,
        };
        [prefix, &self.bytes].concat()
    }

    /// The PEM file's text.
    pub fn pem(&self) -> String {
        pem("PUBLIC KEY", &self.spki())
    }

    /// What a bundle names the key by: SHA-256 of its SubjectPublicKeyInfo, in base64 (as sigstore-go has it).
    pub fn hint(&self) -> String {
        STANDARD.encode(Digest::of(&self.spki()).as_bytes())
    }

    /// Whether the signature is this key's over the message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn signature::VerificationAlgorithm = match self.kind {
            KeyKind::Ed25519 => &signature::ED25519,
            KeyKind::P256 => &signature::ECDSA_P256_SHA256_ASN1,
        };
        let key = UnparsedPublicKey::new(algorithm, &self.bytes);
        key.verify(message, signature).is_ok()
    }
}

/// PEM (RFC 7468): lines of 64 characters.
fn pem(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let lines: Vec<&str> = (0..encoded.len())
        .step_by(64)
        .map(|start| &encoded[start..(start + 64).min(encoded.len())])
        .collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// The bytes of the only block of a PEM file, which must be labelled `label`.
fn read_pem(path: &Path, label: &str, wanted: &'static str) -> Result<Vec<u8>, AttestError> {
    let error = |reason, advice| AttestError::Key {
        path: path.to_owned(),
        wanted,
        reason,
        advice,
    };
    let text = fsio::read_limited(path, FILE_MAX)?;
    let text = String::from_utf8(text).map_err(|_| error("it is not text", None))?;
    let found = text.lines().find_map(|line| line.trim().strip_prefix("-----BEGIN "));
    let found = found.map(|rest| rest.trim_end_matches('-'));
    if found != Some(label) {
        return Err(match found {
            Some(other) if other.starts_with("ENCRYPTED") => error(
                "it is encrypted",
                Some("a passphrase is not asked for: decrypt it with `openssl pkcs8 -in FILE -out FILE.plain`"),
            ),
            Some("EC PRIVATE KEY" | "EC PARAMETERS") => error(
                "it is in the older form SEC 1",
                Some("convert it with `openssl pkcs8 -topk8 -nocrypt -in FILE -out FILE.pkcs8`"),
            ),
            Some("PRIVATE KEY") => error("it is a private key", Some("name the `.pub` file")),
            Some("PUBLIC KEY") => error("it is a public key", Some("name the `.key` file")),
            Some(_) => error("it is a PEM file of something else", None),
            None => error("it is not a PEM file", None),
        });
    }
    let body = text.lines().skip_while(|line| !line.starts_with("-----BEGIN ")).skip(1);
    let body: String = body
        .take_while(|line| !line.starts_with("-----END "))
        .map(str::trim)
        .collect();
    STANDARD
        .decode(body)
        .map_err(|_| error("its base64 is malformed", None))
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_signing_key() {
        crate::testing::fuzz("signing-key", |bytes| {
            let _ = super::SigningKeyPair::parse(bytes);
            let _ = super::PublicKey::parse(bytes);
        });
    }
}
