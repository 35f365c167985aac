//! *Trust*: whose word on what a step made is taken.
//!
//! Invariant: a signature is of one text alone: the kind of statement, then what is stated. That of one entry is none of
//! another.

use crate::binary_cache::{NixPublicKey, SecretKey};
use crate::digest::Digest;
use crate::oci::Annotations;
use crate::walls::Walls;

/// The annotation that holds signatures, `NAME:BASE64` each, separated by spaces.
const SIGNATURES: &str = "dev.layerize.signatures";

/// The annotation that says what an image was built behind, where that is less than namespaces.
const WALLS: &str = "dev.layerize.walls";

/// Most signatures that are looked at.
const SIGNATURES_MAX: usize = 32;

/// Longest signature of somebody else that is kept, in bytes: a name, and the Base64 of 64 bytes.
const SIGNATURE_MAX: usize = 512;

/// Whom to believe.
#[derive(Debug, Clone, Default)]
pub struct CacheTrust {
    /// Keys, one of which must have signed an entry.
    pub keys: Vec<NixPublicKey>,
    /// Believe entries that nobody signed, too.
    pub unsigned: bool,
    /// The weakest walls behind which what is taken may have been built.
    pub least: Walls,
}

/// What is signed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Statement<'a> {
    /// The config of an entry.
    Build(&'a Digest),
    /// That an image is what is asked for under a key, and what it was built behind.
    Image {
        key: &'a Digest,
        image: &'a Digest,
        walls: Walls,
    },
}

impl Statement<'_> {
    fn text(&self) -> String {
        match self {
            Self::Build(config) => format!("layerize-build-1\n{config}"),
            Self::Image {
                key,
                image,
                walls: Walls::Namespaces,
            } => format!("layerize-image-1\n{key}\n{image}"),
            Self::Image { key, image, walls } => format!("layerize-image-1\n{key}\n{image}\n{walls}"),
        }
    }

    /// The annotations of a document that states this, signed by all keys. `held` are those of documents that state the same:
    /// what others signed stays, as far as there is room. Whether a signature is one is found out by who reads it.
    pub(super) fn signed<'a>(
        &self,
        keys: &[SecretKey],
        held: impl IntoIterator<Item = &'a Annotations>,
    ) -> Annotations {
        let text = self.text();
        let mut signatures: Vec<String> = keys.iter().map(|key| key.sign(&text)).collect();
        let others = held.into_iter().filter_map(|held| held.get(SIGNATURES));
        for other in others.flat_map(|text| text.split_whitespace()) {
            // One's own is the same again; another key may have the same name.
            let is_there = signatures.iter().any(|signature| signature == other);
            if !is_there && other.len() <= SIGNATURE_MAX && signatures.len() < SIGNATURES_MAX {
                signatures.push(other.to_owned());
            }
        }
        let mut annotations = Annotations::new();
        if !signatures.is_empty() {
            annotations.insert(SIGNATURES.to_owned(), signatures.join(" "));
        }
        if let Self::Image { walls, .. } = self
            && *walls != Walls::Namespaces
        {
            annotations.insert(WALLS.to_owned(), walls.to_string());
        }
        annotations
    }
}

/// What an image was built behind, as the annotations of its index say.
pub(super) fn walls_in(annotations: &Annotations) -> Result<Walls, String> {
    let walls = annotations.get(WALLS).map(|name| name.parse());
    walls
        .unwrap_or(Ok(Walls::Namespaces))
        .map_err(|error| error.to_string())
}

impl CacheTrust {
    /// Why what was built behind these walls is not taken; nothing where it is.
    pub(super) fn check_walls(&self, walls: Walls) -> Result<(), String> {
        match walls >= self.least {
            true => Ok(()),
            false => Err(format!(
                "it was built behind `{walls}`, which is less than `{}`: `[build] require = \"{walls}\"` takes it",
                self.least
            )),
        }
    }

    /// Whether the statement in a document with these annotations is believed; if not, why.
    pub(super) fn check(&self, statement: &Statement<'_>, annotations: &Annotations) -> Result<(), String> {
        match self.unsigned {
            true => Ok(()),
            false => self.check_signed(statement, annotations),
        }
    }

    /// Whether one of the keys has signed the statement; if not, why it is not believed.
    pub(super) fn check_signed(&self, statement: &Statement<'_>, annotations: &Annotations) -> Result<(), String> {
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
        let signed = build.signed(std::slice::from_ref(&key), None);
        assert_eq!(trust.check(&build, &signed), Ok(()));
        for other in [
            Statement::Build(&two),
            Statement::Image {
                key: &one,
                image: &one,
                walls: Walls::Namespaces,
            },
            Statement::Image {
                key: &one,
                image: &two,
                walls: Walls::Chroot,
            },
        ] {
            let reason = trust.check(&other, &signed).unwrap_err();
            assert!(reason.contains("its signature by `ci-1` is wrong"), "{reason}");
        }
        let reason = trust.check(&build, &Annotations::new()).unwrap_err();
        assert_eq!(reason, "nobody signed it");
        let stranger = SecretKey::generate("other-1").unwrap();
        let reason = trust.check(&build, &build.signed(&[stranger], None)).unwrap_err();
        assert!(reason.contains("`other-1`, which is not a trusted key"), "{reason}");
        let impostor = SecretKey::generate("ci-1").unwrap();
        assert!(trust.check(&build, &build.signed(&[impostor], None)).is_err());
    }

    #[test]
    fn what_others_signed_stays_and_ones_own_is_made_anew() {
        let [one, two] = ["ci-1", "ci-2"].map(|name| SecretKey::generate(name).unwrap());
        let trusting = |key: &SecretKey| CacheTrust {
            keys: vec![key.public()],
            ..CacheTrust::default()
        };
        let (digest, other) = (Digest::of(b"1"), Digest::of(b"2"));
        let build = Statement::Build(&digest);
        let first = build.signed(std::slice::from_ref(&one), None);
        let both = build.signed(std::slice::from_ref(&two), Some(&first));
        for key in [&one, &two] {
            assert_eq!(trusting(key).check(&build, &both), Ok(()));
        }
        // Signing again adds nothing, whoever does it.
        let again = build.signed(&[one, two], Some(&both));
        assert_eq!(again[SIGNATURES].split(' ').count(), 2);
        // There is an end to what strangers may leave.
        let many: Vec<String> = (0..100).map(|number| format!("k{number}:AAAA")).collect();
        let long = format!("{} {}", "x".repeat(SIGNATURE_MAX + 1), many.join(" "));
        let key = SecretKey::generate("ci-3").unwrap();
        let held = Annotations::from([(SIGNATURES.to_owned(), long)]);
        let kept = build.signed(std::slice::from_ref(&key), Some(&held));
        assert_eq!(kept[SIGNATURES].split(' ').count(), SIGNATURES_MAX);
        assert_eq!(trusting(&key).check(&build, &kept), Ok(()));
        assert!(trusting(&key).check(&Statement::Build(&other), &kept).is_err());
    }
}
