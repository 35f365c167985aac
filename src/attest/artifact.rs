//! The *kinds* of documents that are attached to images, recognised by what is in them.
//!
//! Invariant: the types are those of cosign's bundle specification, of ORAS and of the document's own registration
//! with IANA, so that other tools find what layerize attaches and the other way round.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::digest::Digest;
use crate::fsio::with_causes;
use crate::oci::{Artifact, Subject, parse_json, try_canonical_json};
use crate::transport::Source;

use super::bundle::{BUNDLE_MAX, BUNDLE_TYPE, payload_of};
use super::dsse::IN_TOTO_TYPE;
use super::error::AttestError;
use super::provenance::PROVENANCE_TYPE;
use super::statement::{SIGNATURE_PREDICATE, Statement, statement};
use super::summary::SUMMARY_TYPE;

/// Media type of an SPDX document in JSON.
const SPDX_TYPE: &str = "application/spdx+json";
/// Media type of a CycloneDX document in JSON.
const CYCLONEDX_TYPE: &str = "application/vnd.cyclonedx+json";

/// Predicate type of a statement that holds an SPDX document.
const SPDX_PREDICATE: &str = "https://spdx.dev/Document";
/// Predicate type of a statement that holds a CycloneDX document.
const CYCLONEDX_PREDICATE: &str = "https://cyclonedx.org/bom";

/// Short names of predicate types, as cosign has them, with their URIs.
const PREDICATES: [(&str, &str); 5] = [
    ("signature", SIGNATURE_PREDICATE),
    ("spdx", SPDX_PREDICATE),
    ("cyclonedx", CYCLONEDX_PREDICATE),
    ("provenance", PROVENANCE_TYPE),
    ("vsa", SUMMARY_TYPE),
];

/// What a document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachmentKind {
    /// An SPDX document.
    Spdx,
    /// A CycloneDX document.
    CycloneDx,
    /// An in-toto statement with this predicate, not signed.
    Statement(String),
    /// A sigstore bundle around a statement with this predicate.
    Bundle(Option<String>),
    /// Something else, by the media type that the user gave.
    Other(String),
}

/// Reads a document, and tells what it is: by what the user says, else by what is in it.
pub fn read_document(path: &Path, kind: Option<&str>) -> Result<(AttachmentKind, Vec<u8>), AttestError> {
    let document = crate::fsio::read_limited(path, BUNDLE_MAX)?;
    let kind = match kind {
        Some("spdx") => Some(AttachmentKind::Spdx),
        Some("cyclonedx") => Some(AttachmentKind::CycloneDx),
        Some(other) if other.contains('/') => Some(AttachmentKind::Other(other.to_owned())),
        Some(other) => return Err(AttestError::Kind { kind: other.to_owned() }),
        None => kind_of(&document),
    };
    let kind = kind.ok_or_else(|| AttestError::Document {
        path: path.to_owned(),
        reason: "its kind is not known".to_owned(),
    })?;
    Ok((kind, document))
}

/// What is to be signed about an image, as a statement: the document in a file, with what the user says that it states
/// (the URI of a predicate) or else with what is found by looking.
///
/// # Errors
///
/// A file that is not JSON, whose kind is not known, that is about another image, or that is signed already.
pub fn statement_of(path: &Path, predicate: Option<&str>, image: &Digest) -> Result<Vec<u8>, AttestError> {
    let (kind, document) = match predicate {
        // Any kind will do where the user names the predicate.
        Some(uri) => {
            let document = crate::fsio::read_limited(path, BUNDLE_MAX)?;
            (AttachmentKind::Other(uri.to_owned()), document)
        }
        None => read_document(path, None)?,
    };
    let path = || path.to_owned();
    let predicate_type = match &kind {
        AttachmentKind::Statement(_) => {
            let statement =
                Statement::parse(&document).map_err(|reason| AttestError::Document { path: path(), reason })?;
            // The very bytes: whoever made the statement decided how it is written.
            return match statement.is_about(image) {
                true => Ok(document),
                false => Err(AttestError::OtherSubject {
                    path: path(),
                    digest: *image,
                }),
            };
        }
        AttachmentKind::Bundle(_) => return Err(AttestError::Signed { path: path() }),
        AttachmentKind::Other(uri) => uri.as_str(),
        AttachmentKind::Spdx => SPDX_PREDICATE,
        AttachmentKind::CycloneDx => CYCLONEDX_PREDICATE,
    };
    let not_json = |error: &dyn std::error::Error| AttestError::Document {
        path: path(),
        reason: with_causes(error),
    };
    let predicate: Value = parse_json(&document).map_err(|error| not_json(&error))?;
    try_canonical_json(&predicate).map_err(|error| not_json(&error))?;
    Ok(statement(image, predicate_type, &predicate))
}

/// The manifest of an image as the subject of an artifact.
pub fn subject_of(source: &dyn Source) -> Result<Subject, AttestError> {
    let manifest = source.manifest()?;
    if source.synthesized() {
        let place = source.place().to_owned();
        return Err(AttestError::NoManifest { place });
    }
    Ok(Subject {
        media_type: manifest.media_type().to_owned(),
        digest: Digest::of(manifest.bytes()),
        size: manifest.size(),
    })
}

/// What a document is, by its own fields; `None` where it has none that are known.
pub fn kind_of(document: &[u8]) -> Option<AttachmentKind> {
    let value: Value = serde_json::from_slice(document).ok()?;
    if value.get("spdxVersion").is_some() {
        return Some(AttachmentKind::Spdx);
    }
    if value["bomFormat"] == "CycloneDX" {
        return Some(AttachmentKind::CycloneDx);
    }
    if value.get("_type").is_some() {
        let statement = Statement::parse(document).ok()?;
        return Some(AttachmentKind::Statement(statement.predicate_type));
    }
    if value["mediaType"].as_str().is_some_and(super::bundle::is_bundle) {
        let statement = payload_of(document).and_then(|payload| Statement::parse(&payload).ok());
        return Some(AttachmentKind::Bundle(
            statement.map(|statement| statement.predicate_type),
        ));
    }
    None
}

/// The URI of the predicate type that people call by a short name; `None` for other names.
pub(super) fn predicate_of_name(name: &str) -> Option<&'static str> {
    let known = PREDICATES.iter().find(|(short, _)| *short == name);
    known.map(|(_, uri)| *uri)
}

impl AttachmentKind {
    /// Media type of the document and type of its artifact.
    pub fn media_type(&self) -> &str {
        match self {
            Self::Spdx => SPDX_TYPE,
            Self::CycloneDx => CYCLONEDX_TYPE,
            Self::Statement(_) => IN_TOTO_TYPE,
            Self::Bundle(_) => BUNDLE_TYPE,
            Self::Other(media_type) => media_type,
        }
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        let pairs: Vec<(&str, &str)> = match self {
            Self::Statement(predicate) => vec![("in-toto.io/predicate-type", predicate)],
            Self::Bundle(predicate) => [("dev.sigstore.bundle.content", "dsse-envelope")]
                .into_iter()
                .chain(
                    predicate
                        .iter()
                        .map(|predicate| ("dev.sigstore.bundle.predicateType", predicate.as_str())),
                )
                .collect(),
            Self::Spdx | Self::CycloneDx | Self::Other(_) => Vec::new(),
        };
        let pairs = pairs.into_iter();
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

/// A document as an artifact of `subject`; `file_name` is what whoever downloads it may call it.
pub fn artifact(kind: &AttachmentKind, document: Vec<u8>, subject: Subject, file_name: &str) -> Artifact {
    Artifact::new(subject, kind.media_type(), kind.annotations(), document, file_name)
}
