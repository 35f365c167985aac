//! An in-toto *statement* binds a predicate to the digests that it is about (in-toto Attestation Framework, Statement v1).
//!
//! Invariant: what is written is canonical JSON; what is read is hostile: bounded by the caller, none of the fields that
//! are read twice, and the predicate not kept in memory as a value.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::digest::Digest;
use crate::oci::canonical_json;

/// `_type` of what is written.
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// What else is read: version 0.1 has the same fields.
const STATEMENT_TYPE_0_1: &str = "https://in-toto.io/Statement/v0.1";

/// Predicate of a statement that says nothing but that its signer signed the image (cosign 3).
pub const SIGNATURE_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// A statement as it is read.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<StatementSubject>,
    /// What kind of thing it states.
    pub predicate_type: String,
}

#[derive(Debug, Clone, Deserialize)]
struct StatementSubject {
    #[serde(default)]
    digest: Digests,
}

/// The digests of a subject, of which one algorithm is read.
#[derive(Debug, Clone, Default, Deserialize)]
struct Digests {
    #[serde(default)]
    sha256: Option<String>,
}

impl Statement {
    /// Reads a statement; the error says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let statement: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match statement.kind.as_str() {
            STATEMENT_TYPE | STATEMENT_TYPE_0_1 => Ok(statement),
            other => Err(format!("its `_type` is `{}`", super::bundle::shown(other))),
        }
    }

    /// Whether it is about `digest`.
    pub fn is_about(&self, digest: &Digest) -> bool {
        let hex = digest.hex();
        let mut subjects = self.subject.iter();
        subjects.any(|subject| subject.digest.sha256.as_ref() == Some(&hex))
    }
}

/// The predicate of a statement that was parsed before; the error says what is wrong with it.
pub(super) fn predicate_of<T: DeserializeOwned>(statement: &[u8]) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Predicated<T> {
        predicate: T,
    }
    let parsed: Result<Predicated<T>, _> = serde_json::from_slice(statement);
    parsed.map(|found| found.predicate).map_err(|error| error.to_string())
}

/// A statement about an image alone, as canonical JSON.
pub fn statement(digest: &Digest, predicate_type: &str, predicate: &Value) -> Vec<u8> {
    canonical_json(&json!({
        "_type": STATEMENT_TYPE,
        "subject": [{ "digest": { "sha256": digest.hex() } }],
        "predicateType": predicate_type,
        "predicate": predicate,
    }))
}

/// A statement about several things, as canonical JSON.
pub(super) fn statement_of(subjects: &[Value], predicate_type: &str, predicate: &Value) -> Vec<u8> {
    canonical_json(&json!({
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": predicate_type,
        "predicate": predicate,
    }))
}

#[cfg(test)]
mod fuzz {
    use serde_json::Value;

    #[test]
    fn fuzz_statement() {
        crate::testing::fuzz("statement", |bytes| {
            if let Ok(statement) = super::Statement::parse(bytes) {
                let _ = statement.is_about(&crate::digest::Digest::of(b""));
            }
            let _ = super::predicate_of::<Value>(bytes);
        });
    }
}
