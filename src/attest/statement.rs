//! An in-toto *statement* binds a predicate to the digests that it is about (in-toto Attestation Framework, Statement v1).
//!
//! Invariant: what is written is canonical JSON; what is read is hostile: bounded by the caller, no key twice.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::digest::Digest;
use crate::oci::{canonical_json, parse_json};

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
    subject: Vec<Subject>,
    /// What kind of thing it states.
    pub predicate_type: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Subject {
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

impl Statement {
    /// Reads a statement; the error says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let statement: Self = parse_json(bytes).map_err(|error| match std::error::Error::source(&error) {
            Some(source) => source.to_string(),
            None => error.to_string(),
        })?;
        match statement.kind.as_str() {
            STATEMENT_TYPE | STATEMENT_TYPE_0_1 => Ok(statement),
            other => Err(format!("its `_type` is `{}`", other.escape_debug())),
        }
    }

    /// Whether it is about `digest`.
    pub fn is_about(&self, digest: &Digest) -> bool {
        let hex = digest.hex();
        let mut subjects = self.subject.iter();
        subjects.any(|subject| subject.digest.get("sha256") == Some(&hex))
    }
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
