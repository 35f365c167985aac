//! *Trust*: whose word on what a step made is taken.
//!
//! Invariant: a signature is of one text alone: the kind of statement, then what is stated. That of one entry is none of
//! another.

use crate::binary_cache::{NixPublicKey, SecretKey};
use crate::digest::Digest;
use crate::oci::Annotations;

/// The annotation that holds signatures, `NAME:BASE64` each, separated by spaces.
const SIGNATURES: &str = "dev.layerize.signatures";

/// Most signatures that are looked at.
const SIGNATURES_MAX: usize = 32;

/// Whom to believe.
#[derive(Debug, Clone, Default)]
pub struct CacheTrust {
    /// Keys, one of which must have signed an entry.
    pub keys: Vec<NixPublicKey>,
    /// Believe entries that nobody signed, too.
    pub unsigned: bool,
    /// Take what was built without a sandbox.
    pub unwalled: bool,
}

/// What is signed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Statement<'a> {
    /// The config of an entry.
    Build(&'a Digest),
    /// That an image is what is asked for under a key.
    Image { key: &'a Digest, image: &'a Digest },
}

impl Statement<'_> {
    fn text(&self) -> String {
        match self {
            Self::Build(config) => format!("layerize-build-1\n{config}"),
            Self::Image { key, image } => format!("layerize-image-1\n{key}\n{image}"),
        }
    }

    /// The annotations of a document that states this, signed by all keys.
    pub(super) fn signed(&self, keys: &[SecretKey]) -> Annotations {
        let text = self.text();
        let signatures: Vec<String> = keys.iter().map(|key| key.sign(&text)).collect();
        match signatures.is_empty() {
            true => Annotations::new(),
            false => Annotations::from([(SIGNATURES.to_owned(), signatures.join(" "))]),
        }
    }
}

impl CacheTrust {
    /// Whether the statement in a document with these annotations is believed; if not, why.
    pub(super) fn check(&self, statement: &Statement<'_>, annotations: &Annotations) -> Result<(), String> {
        if self.unsigned {
            return Ok(());
        }
        let text = statement.text();
        let signatures = annotations.get(SIGNATURES).map(String::as_str).unwrap_or_default();
        let signatures: Vec<&str> = signatures.split_whitespace().take(SIGNATURES_MAX).collect();
        let mut bad = None;
        for key in &self.keys {
            for signature in &signatures {
                if key.verifies(&text, signature) {
                    return Ok(());
                }
                if signature.split(':').next() == Some(key.name()) {
                    bad = Some(key.name());
                }
            }
        }
        Err(match (bad, signatures.as_slice()) {
            (Some(name), _) => format!("its signature by `{name}` is wrong: it or what it signs was changed"),
            (None, []) => "nobody signed it".to_owned(),
            (None, [first, ..]) => {
                let name = first.split(':').next().unwrap_or_default();
                format!("it is signed by `{name}`, which is not a trusted key")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_of_one_statement_alone() {
        let key = SecretKey::generate("ci-1").unwrap();
        let trust = CacheTrust {
            keys: vec![key.public()],
            ..CacheTrust::default()
        };
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let build = Statement::Build(&one);
        let signed = build.signed(std::slice::from_ref(&key));
        assert_eq!(trust.check(&build, &signed), Ok(()));
        for other in [
            Statement::Build(&two),
            Statement::Image { key: &one, image: &one },
            Statement::Image { key: &one, image: &two },
        ] {
            let reason = trust.check(&other, &signed).unwrap_err();
            assert!(reason.contains("its signature by `ci-1` is wrong"), "{reason}");
        }
        let reason = trust.check(&build, &Annotations::new()).unwrap_err();
        assert_eq!(reason, "nobody signed it");
        let stranger = SecretKey::generate("other-1").unwrap();
        let reason = trust.check(&build, &build.signed(&[stranger])).unwrap_err();
        assert!(reason.contains("`other-1`, which is not a trusted key"), "{reason}");
        let impostor = SecretKey::generate("ci-1").unwrap();
        assert!(trust.check(&build, &build.signed(&[impostor])).is_err());
    }
}
