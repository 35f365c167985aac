//! *Keys* sign store paths: Ed25519, in the text forms that Nix uses.
//!
//! Invariant: a secret key never appears in a message. `NAME:BASE64` is a public key (32 bytes), a secret key (the
//! seed of 32 bytes, then the public key) or a signature (64 bytes); which one, its place says (Nix manual,
//! "nix-store --generate-binary-cache-key").

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

const SEED: usize = 32;
const PUBLIC: usize = 32;
const SIGNATURE: usize = 64;

/// A text that is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` is not a {kind}: {reason}")]
pub struct KeyError {
    /// The text, or of a secret key its name alone.
    shown: String,
    kind: &'static str,
    reason: &'static str,
}

impl KeyError {
    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        Some("keys look like `cache.example.org-1:BASE64`; `layerize store key generate NAME` makes a pair".to_owned())
    }
}

/// The public half of a key: whom to trust.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NixPublicKey {
    name: String,
    key: [u8; PUBLIC],
}

impl NixPublicKey {
    /// What signatures call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether `signature` (`NAME:BASE64`) is this key's signature of `message`.
    pub fn verifies(&self, message: &str, signature: &str) -> bool {
        let Ok((name, bytes)) = split::<SIGNATURE>(signature, "signature") else {
            return false;
        };
        let key = UnparsedPublicKey::new(&ED25519, &self.key);
        name == self.name && key.verify(message.as_bytes(), &bytes).is_ok()
    }
}

impl FromStr for NixPublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, key) = split(text, "public key")?;
        let name = name.to_owned();
        Ok(Self { name, key })
    }
}

impl fmt::Display for NixPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, STANDARD.encode(self.key))
    }
}

/// A key that signs.
pub struct SecretKey {
    name: String,
    seed: [u8; SEED],
    pair: Ed25519KeyPair,
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.name)
    }
}

impl SecretKey {
    /// Makes a new key from the system's randomness.
    pub fn generate(name: &str) -> Result<Self, KeyError> {
        let failed = |reason| KeyError {
            shown: name.to_owned(),
            kind: "name of a key",
            reason,
        };
        check_name(name).map_err(failed)?;
        let mut seed = [0; SEED];
        let random = SystemRandom::new().fill(&mut seed);
        random.map_err(|_| failed("the system has no randomness"))?;
        Self::from_seed(name, seed).ok_or_else(|| failed("the system's randomness is unusable"))
    }

    /// Parses the text of a secret key's file; a final newline is no matter.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, bytes) = split::<{ SEED + PUBLIC }>(text.trim_end(), "secret key").map_err(|error| KeyError {
            // The rest is secret.
            shown: text
                .split(':')
                .next()
                .filter(|_| text.contains(':'))
                .unwrap_or("…")
                .to_owned(),
            ..error
        })?;
        let mut seed = [0; SEED];
        seed.copy_from_slice(&bytes[..SEED]);
        Self::from_seed(name, seed)
            .filter(|key| key.pair.public_key().as_ref() == &bytes[SEED..])
            .ok_or_else(|| KeyError {
                shown: name.to_owned(),
                kind: "secret key",
                reason: "its halves do not fit each other",
            })
    }

    fn from_seed(name: &str, seed: [u8; SEED]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).ok()?;
        let name = name.to_owned();
        Some(Self { name, seed, pair })
    }

    /// The text of its file, with a final newline. It is secret.
    pub fn to_text(&self) -> String {
        let bytes = [&self.seed[..], self.pair.public_key().as_ref()].concat();
        format!("{}:{}\n", self.name, STANDARD.encode(bytes))
    }

    /// Its public half.
    pub fn public(&self) -> NixPublicKey {
        let mut key = [0; PUBLIC];
        key.copy_from_slice(self.pair.public_key().as_ref());
        let name = self.name.clone();
        NixPublicKey { name, key }
    }

    /// Signs `message`: the same signature each time.
    pub fn sign(&self, message: &str) -> String {
        let signature = self.pair.sign(message.as_bytes());
        format!("{}:{}", self.name, STANDARD.encode(signature.as_ref()))
    }
}

/// Whom a signature is by; `None` where it is none.
pub fn signer(signature: &str) -> Option<&str> {
    split::<SIGNATURE>(signature, "signature").ok().map(|(name, _)| name)
}

/// `NAME:BASE64` of so many bytes.
fn split<'a, const SIZE: usize>(text: &'a str, kind: &'static str) -> Result<(&'a str, [u8; SIZE]), KeyError> {
    let wrong = |reason| KeyError {
        shown: text.chars().take(200).collect(),
        kind,
        reason,
    };
    let (name, encoded) = text
        .split_once(':')
        .ok_or_else(|| wrong("there is no `:` after its name"))?;
    check_name(name).map_err(wrong)?;
    let bytes = STANDARD
        .decode(encoded)
        .map_err(|_| wrong("what follows its name is not base64"))?;
    let bytes = bytes.try_into().map_err(|_| wrong("it has the wrong length"))?;
    Ok((name, bytes))
}

fn check_name(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("its name is empty"),
        name if name.len() > 200 => Err("its name is longer than 200 bytes"),
        name if !name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b':' && byte != b'/') =>
        {
            Err("its name holds a space, a colon, a slash or a byte outside ASCII")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_text_and_signs() {
        let key = SecretKey::generate("cache-1").unwrap();
        let again = SecretKey::parse(&key.to_text()).unwrap();
        let public: NixPublicKey = key.public().to_string().parse().unwrap();
        assert_eq!(public, again.public());
        let signature = key.sign("text");
        assert_eq!(signature, again.sign("text"));
        assert!(public.verifies("text", &signature));
        assert!(!public.verifies("other text", &signature));
        assert!(!public.verifies("text", &signature.replace("cache-1", "cache-2")));
        assert_eq!(signer(&signature), Some("cache-1"));
        assert!(!format!("{key:?}").contains(key.to_text().split(':').nth(1).unwrap()));
    }

    #[test]
    fn what_is_no_key_is_refused_and_no_secret_shown() {
        for (text, reason) in [
            ("", "there is no `:` after its name"),
            ("name", "there is no `:` after its name"),
            (":AAAA", "its name is empty"),
            ("a b:AAAA", "holds a space"),
            ("name:!", "is not base64"),
            ("name:AAAA", "it has the wrong length"),
        ] {
            let error = text.parse::<NixPublicKey>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(SecretKey::parse(text).is_err(), "{text}");
        }
        let error = SecretKey::parse("name:SECRET").unwrap_err().to_string();
        assert!(!error.contains("SECRET"), "{error}");
        let other = SecretKey::generate("name").unwrap();
        let mut text = SecretKey::generate("name").unwrap().to_text();
        text.replace_range(60.., &other.to_text()[60..]);
        assert!(SecretKey::parse(&text).is_err());
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_nix_key() {
        crate::testing::fuzz("nix-key", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let _ = text.parse::<super::NixPublicKey>();
            let _ = super::SecretKey::parse(&text);
        });
    }
}
