//! A *bundle* is a signature with all that is needed to check it but the key (sigstore protobuf-specs, bundle v0.3).
//!
//! Invariant: nothing of a bundle is believed before the signature over it was verified with the caller's key; the
//! hint in it names a key for people and decides nothing. There is no certificate, no log and no time: the key alone
//! is trusted.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::digest::Digest;
use crate::oci::canonical_json;

use super::AttestError;
use super::dsse::{IN_TOTO_TYPE, pae};
use super::key::{PrivateKey, PublicKey};
use super::statement::Statement;
use super::summary::{self, SUMMARY_TYPE};

/// Media type of a bundle, and type of its artifact.
pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// The same in the older spelling.
const BUNDLE_TYPE_OLD: &str = "application/vnd.dev.sigstore.bundle+json;version=0.3";

/// Largest bundle that is read, in bytes: a bill of materials of a whole distribution fits.
pub const BUNDLE_MAX: u64 = 64 << 20;

/// Why a bundle does not vouch for an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It is not a bundle, or not one of the form that is read.
    #[error("it is not a bundle that can be checked: {0}")]
    Malformed(String),
    /// It was made by a certificate.
    #[error("it is signed with a certificate, not a key")]
    Certificate,
    /// The payload is no in-toto statement.
    #[error("its payload is `{0}`, not an in-toto statement")]
    PayloadType(String),
    /// The signature is another key's.
    #[error("it is signed by another key: {0}")]
    OtherKey(String),
    /// The signature is not of these bytes.
    #[error("the signature does not match: the payload or the signature was changed, or it was made with another key")]
    Signature,
    /// The signature is right, but it is about something else.
    #[error("it is about another image")]
    OtherSubject,
    /// The signature is right, but something else is stated.
    #[error("it states `{0}`")]
    Predicate(String),
    /// It sums up a check by another policy than the wanted one.
    #[error("it summarises a check by another policy, `{0}`")]
    Policy(String),
    /// It sums up a check that the image did not pass.
    #[error("it summarises a check whose result is `{0}`, not `PASSED`")]
    Result(String),
}

/// What a bundle has to vouch for.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedStatement<'a> {
    /// The image, by its manifest's digest.
    pub image: Digest,
    /// Whose signature counts.
    pub keys: &'a [PublicKey],
    /// Type of the predicate; `None` takes any.
    pub predicate: Option<&'a str>,
    /// Of verification summaries: URI of the policy that was checked; `None` takes any.
    pub policy: Option<&'a str>,
}

/// What a bundle vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Type of the statement's predicate.
    pub predicate_type: String,
    /// The statement's bytes as they were signed.
    pub statement: Vec<u8>,
    /// Which of the wanted keys signed it.
    pub key: usize,
}

/// Signs a statement; the bundle as canonical JSON.
pub fn sign(statement: &[u8], key: &PrivateKey) -> Result<Vec<u8>, AttestError> {
    let signature = key.sign(&pae(IN_TOTO_TYPE, statement))?;
    Ok(canonical_json(&json!({
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": { "publicKey": { "hint": key.public().hint() } },
        "dsseEnvelope": {
            "payload": STANDARD.encode(statement),
            "payloadType": IN_TOTO_TYPE,
            "signatures": [{ "sig": STANDARD.encode(signature) }],
        },
    })))
}

/// Checks that one of the keys signed a statement about the image, of the kind that is wanted. A verification summary
/// counts only if it says `PASSED`.
pub fn verify(bundle: &[u8], wanted: &ExpectedStatement<'_>) -> Result<Verified, Rejection> {
    let opened = OpenedBundle::parse(bundle)?;
    if opened.payload_type != IN_TOTO_TYPE {
        return Err(Rejection::PayloadType(shown(&opened.payload_type)));
    }
    let signed = pae(&opened.payload_type, &opened.payload);
    let Some(key) = wanted
        .keys
        .iter()
        .position(|key| key.verifies(&signed, &opened.signature))
    else {
        return Err(match opened.hint {
            Some(hint) if wanted.keys.iter().all(|key| hint != key.hint()) => Rejection::OtherKey(shown(&hint)),
            _ => Rejection::Signature,
        });
    };
    let statement = Statement::parse(&opened.payload).map_err(Rejection::Malformed)?;
    if !statement.is_about(&wanted.image) {
        return Err(Rejection::OtherSubject);
    }
    if wanted.predicate.is_some_and(|kind| kind != statement.predicate_type) {
        return Err(Rejection::Predicate(shown(&statement.predicate_type)));
    }
    if statement.predicate_type == SUMMARY_TYPE {
        summary::check(&opened.payload, wanted.policy)?;
    }
    Ok(Verified {
        predicate_type: statement.predicate_type,
        statement: opened.payload,
        key,
    })
}

/// Whether a media type is that of a bundle that is read.
pub(super) fn is_bundle(media_type: &str) -> bool {
    matches!(media_type, BUNDLE_TYPE | BUNDLE_TYPE_OLD)
}

/// The payload of a bundle, not verified: to say what it claims to be.
pub(super) fn payload_of(bundle: &[u8]) -> Option<Vec<u8>> {
    OpenedBundle::parse(bundle).ok().map(|opened| opened.payload)
}

/// A bundle taken apart.
struct OpenedBundle {
    payload_type: String,
    payload: Vec<u8>,
    signature: Vec<u8>,
    hint: Option<String>,
}

/// The fields that are read; all else is passed over without being kept.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BundleFields<'a> {
    media_type: String,
    verification_material: Material,
    #[serde(default, borrow)]
    dsse_envelope: Option<Envelope<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    #[serde(default)]
    certificate: Option<IgnoredAny>,
    #[serde(default)]
    x509_certificate_chain: Option<IgnoredAny>,
    #[serde(default)]
    public_key: Option<Hint>,
}

#[derive(Deserialize)]
struct Hint {
    #[serde(default)]
    hint: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

impl OpenedBundle {
    fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        let malformed = |reason: &str| Rejection::Malformed(reason.to_owned());
        let bundle: BundleFields<'_> =
            serde_json::from_slice(bytes).map_err(|error| Rejection::Malformed(error.to_string()))?;
        if !is_bundle(&bundle.media_type) {
            let reason = format!("its media type is `{}`", shown(&bundle.media_type));
            return Err(Rejection::Malformed(reason));
        }
        let material = bundle.verification_material;
        if material.certificate.is_some() || material.x509_certificate_chain.is_some() {
            return Err(Rejection::Certificate);
        }
        let Some(envelope) = bundle.dsse_envelope else {
            return Err(malformed("it has no DSSE envelope"));
        };
        // Sigstore allows one signature in an envelope, so that no other is taken for it.
        let [Signature { sig }] = envelope.signatures.as_slice() else {
            return Err(malformed("it has not exactly one signature"));
        };
        let payload = decode(&envelope.payload).ok_or_else(|| malformed("the payload is not base64"))?;
        let signature = decode(sig).ok_or_else(|| malformed("the signature is not base64"))?;
        Ok(Self {
            payload_type: envelope.payload_type,
            payload,
            signature,
            hint: material.public_key.and_then(|key| key.hint),
        })
    }
}

/// Base64 as JSON forms of protocol buffers have it: either alphabet, with or without padding.
fn decode(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = match text.contains(['-', '_']) {
        true => alphabet::URL_SAFE,
        false => alphabet::STANDARD,
    };
    GeneralPurpose::new(&alphabet, config).decode(text).ok()
}

/// A text from outside, short and without control characters.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(100).collect();
    crate::escape::shown(&short).into_owned()
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_bundle() {
        crate::testing::fuzz("bundle", |bytes| {
            let wanted = super::ExpectedStatement {
                image: crate::digest::Digest::of(b""),
                keys: &[],
                predicate: None,
                policy: None,
            };
            assert!(super::verify(bytes, &wanted).is_err());
            let _ = super::super::kind_of(bytes);
        });
    }
}
