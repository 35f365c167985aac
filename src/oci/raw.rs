//! A *raw* document is a manifest, index or config with the very bytes that it was read from or is written as.
//!
//! Invariant: the digest is that of exactly the bytes, and the typed value is what a strict reader finds in them. Strict
//! means that no two readers see two documents: no key twice at any depth, none that differs from a field's in case
//! alone, schema version 2, and one kind of document only (the confusion of manifest and index, CVE-2021-41190 and
//! image-spec v1.1). Reading is lenient where a tool is known to leave something out or write `null`: see
//! [`super::shape`]. Every document that comes from anywhere is read here and nowhere else.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::canonical_json;
use super::config::Config;
use super::json::{JsonError, parse_json};
use super::manifest::{Index, Manifest};
use super::media_type::{DocumentKind, MediaType};
use super::shape::{self, Shape};
use crate::digest::{ContentDigest, Digest, VerifyError};

/// A kind of document that can be read.
pub trait Typed: Sized {
    /// Which one.
    const KIND: DocumentKind;
    /// Its fields.
    const SHAPE: Shape;
    /// Fields of other kinds that make it ambiguous.
    const FOREIGN: &'static [&'static str];
    /// The most bytes that one may have.
    const SIZE_MAX: u64;

    /// Reads the value of a document that was checked.
    fn from_json(value: Value) -> Result<Self, DocumentError>;
}

/// A document, what it says and its bytes. A clone is the same one.
pub struct Raw<T>(Arc<Inner<T>>);

struct Inner<T> {
    bytes: Vec<u8>,
    digest: ContentDigest,
    value: T,
}

impl<T: Typed> Raw<T> {
    /// Reads a document, whose digest is then its SHA-256.
    pub fn read(bytes: Vec<u8>) -> Result<Self, DocumentError> {
        let digest = Digest::of(&bytes).into();
        Self::checked(bytes, digest)
    }

    /// Reads the document that something names by `digest`, which it must have.
    pub fn read_named(bytes: Vec<u8>, digest: ContentDigest) -> Result<Self, DocumentError> {
        check_digest(&bytes, digest)?;
        Self::checked(bytes, digest)
    }

    fn checked(bytes: Vec<u8>, digest: ContentDigest) -> Result<Self, DocumentError> {
        check_size(T::KIND, &bytes, T::SIZE_MAX)?;
        let value = parse(T::KIND, &bytes)?;
        Self::of_value(bytes, digest, value)
    }

    fn of_value(bytes: Vec<u8>, digest: ContentDigest, value: Value) -> Result<Self, DocumentError> {
        check_size(T::KIND, &bytes, T::SIZE_MAX)?;
        check_kind::<T>(&value)?;
        let faults = Fault::all(&value, T::SHAPE);
        let value = T::from_json(value).map_err(|error| match error {
            DocumentError::Field { kind, .. } if !faults.is_empty() => DocumentError::Shape { kind, faults },
            error => error,
        })?;
        Ok(Self(Arc::new(Inner { bytes, digest, value })))
    }
}

impl<T: Typed + Serialize> Raw<T> {
    /// Writes a document canonically. One that is larger than what is read anywhere is an error.
    pub fn write(value: T) -> Result<Self, DocumentError> {
        let bytes = canonical_json(&value);
        check_size(T::KIND, &bytes, T::SIZE_MAX)?;
        let digest = Digest::of(&bytes).into();
        Ok(Self(Arc::new(Inner { bytes, digest, value })))
    }
}

impl Raw<()> {
    /// Bytes that no type here describes: what an artifact has in the place of a config.
    pub fn opaque(bytes: Vec<u8>, digest: ContentDigest) -> Self {
        let value = ();
        Self(Arc::new(Inner { bytes, digest, value }))
    }
}

impl<T> Raw<T> {
    /// The bytes, as they were read or are written.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Number of the bytes.
    pub fn size(&self) -> u64 {
        self.0.bytes.len() as u64
    }

    /// The digest of the bytes, by the algorithm by which something else names the document.
    pub fn digest(&self) -> ContentDigest {
        self.0.digest
    }

    /// The whole document as JSON, with what no type knows.
    pub fn json(&self) -> Value {
        parse_json(&self.0.bytes).unwrap_or_default()
    }
}

impl<T> std::ops::Deref for Raw<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> Clone for Raw<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: fmt::Debug> fmt::Debug for Raw<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.0.digest, self.0.value)
    }
}

/// What a manifest has as its config: an image's, or the document that an artifact has in its place.
#[derive(Debug, Clone)]
pub enum ConfigDocument {
    /// What a container of the image runs.
    Image(Raw<Config>),
    /// Whatever the kind of artifact wants.
    Artifact(Raw<()>),
}

impl ConfigDocument {
    /// The bytes as they were read or are written.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Image(config) => config.bytes(),
            Self::Artifact(document) => document.bytes(),
        }
    }

    /// Number of the bytes.
    pub fn size(&self) -> u64 {
        self.bytes().len() as u64
    }

    /// The digest of the bytes, by the algorithm by which the manifest names them.
    pub fn digest(&self) -> ContentDigest {
        match self {
            Self::Image(config) => config.digest(),
            Self::Artifact(document) => document.digest(),
        }
    }

    /// The config of an image; an artifact has none.
    pub fn image(&self) -> Option<&Raw<Config>> {
        match self {
            Self::Image(config) => Some(config),
            Self::Artifact(_) => None,
        }
    }
}

/// A manifest or an index, as a reference may lead to either.
#[derive(Debug, Clone)]
pub enum Document {
    /// One image, or an artifact.
    Manifest(Raw<Manifest>),
    /// A list of them.
    Index(Raw<Index>),
}

impl Document {
    /// Reads a manifest or index, whichever it is; `said` is the media type by which a descriptor or an HTTP header
    /// announced it, empty where none did, and `digest` what it must have.
    pub fn read(bytes: Vec<u8>, said: &str, digest: Option<ContentDigest>) -> Result<Self, DocumentError> {
        if let Some(digest) = digest {
            check_digest(&bytes, digest)?;
        }
        check_size(DocumentKind::Index, &bytes, Index::SIZE_MAX)?;
        let digest = digest.unwrap_or_else(|| Digest::of(&bytes).into());
        let value = parse(DocumentKind::Manifest, &bytes)?;
        let document = match kind_of(&value, said)? {
            DocumentKind::Index => Self::Index(Raw::of_value(bytes, digest, value)?),
            _ => Self::Manifest(Raw::of_value(bytes, digest, value)?),
        };
        match MediaType::parse(said) {
            MediaType::Document(announced) if announced != document.kind() => Err(DocumentError::Ambiguous {
                kind: document.kind(),
                other: format!("been announced as `{said}`"),
            }),
            _ => Ok(document),
        }
    }

    /// Which of the two.
    pub fn kind(&self) -> DocumentKind {
        match self {
            Self::Manifest(_) => DocumentKind::Manifest,
            Self::Index(_) => DocumentKind::Index,
        }
    }

    /// The bytes as they were read.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Manifest(manifest) => manifest.bytes(),
            Self::Index(index) => index.bytes(),
        }
    }

    /// The digest of the bytes.
    pub fn digest(&self) -> ContentDigest {
        match self {
            Self::Manifest(manifest) => manifest.digest(),
            Self::Index(index) => index.digest(),
        }
    }

    /// Its media type: its own word, else OCI's for its kind.
    pub fn media_type(&self) -> &str {
        match self {
            Self::Manifest(manifest) => manifest.media_type(),
            Self::Index(index) => index.media_type(),
        }
    }
}

/// A field of a document that is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where it is: `layers[1].size`.
    pub field: String,
    /// What is wrong, as a sentence about `it`.
    pub text: String,
}

/// Most faults of a document that are told.
const FAULTS_MAX: usize = 20;

impl Fault {
    fn all(value: &Value, shape: Shape) -> Vec<Self> {
        let mut faults = Vec::new();
        shape::check_types(value, shape, &mut |field, text| {
            if faults.len() < FAULTS_MAX {
                let field = field.to_owned();
                faults.push(Self { field, text });
            }
        });
        faults
    }
}

/// Why bytes are not the document they should be.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// More bytes than the kind may have.
    #[error("the image {kind} has {size} bytes, more than the {limit} that clients and registries take")]
    Size {
        /// Which document.
        kind: DocumentKind,
        /// Its size in bytes.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// Not what it was named as.
    #[error("the document is not what its digest says")]
    Digest(#[source] VerifyError),
    /// Not JSON, or a key twice.
    #[error("cannot read the image {kind}")]
    Json {
        /// Which document.
        kind: DocumentKind,
        /// What is wrong.
        #[source]
        source: JsonError,
    },
    /// Fields missing, or of the wrong type.
    #[error("cannot read the image {kind}: `{}`: {}", .faults[0].field, .faults[0].text)]
    Shape {
        /// Which document.
        kind: DocumentKind,
        /// What is wrong, at least one thing.
        faults: Vec<Fault>,
    },
    /// What no shape tells of.
    #[error("cannot read the image {kind}")]
    Field {
        /// Which document.
        kind: DocumentKind,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Another schema than Docker's schema 2 and OCI's.
    #[error("the image {kind} has schema version {version}; only version 2 is supported")]
    SchemaVersion {
        /// Which document.
        kind: DocumentKind,
        /// What it says.
        version: String,
    },
    /// Its fields say one kind, its media type, other fields or whoever announced it another.
    #[error("the image {kind} also has {other}: it could be read as two different documents")]
    Ambiguous {
        /// Which document.
        kind: DocumentKind,
        /// What does not belong there.
        other: String,
    },
    /// Neither manifest nor index.
    #[error("the document is neither an image manifest nor an index: it has neither `layers` nor `manifests`")]
    Unknown,
    /// A digest by an algorithm that is not registered, or a malformed one.
    #[error("`{digest}` in the image {kind} is not a digest that can be checked: sha256 and sha512 are")]
    Algorithm {
        /// Which document.
        kind: DocumentKind,
        /// The digest.
        digest: String,
    },
}

impl DocumentError {
    /// A field that cannot be read as it should.
    pub(super) fn field(kind: DocumentKind) -> impl Fn(serde_json::Error) -> Self {
        move |source| Self::Field { kind, source }
    }
}

fn parse(kind: DocumentKind, bytes: &[u8]) -> Result<Value, DocumentError> {
    parse_json(bytes).map_err(|source| DocumentError::Json { kind, source })
}

fn check_size(kind: DocumentKind, bytes: &[u8], limit: u64) -> Result<(), DocumentError> {
    match bytes.len() as u64 {
        size if size > limit => Err(DocumentError::Size { kind, size, limit }),
        _ => Ok(()),
    }
}

fn check_digest(bytes: &[u8], expected: ContentDigest) -> Result<(), DocumentError> {
    match expected.same_algorithm(bytes) {
        actual if actual != expected => Err(DocumentError::Digest(VerifyError::digest(expected, actual))),
        _ => Ok(()),
    }
}

/// Which of manifest and index a document is, by its fields; where these do not tell, by what is said of it.
fn kind_of(value: &Value, said: &str) -> Result<DocumentKind, DocumentError> {
    let has = |names: &[&str]| {
        names
            .iter()
            .any(|name| value.get(name).is_some_and(|field| !field.is_null()))
    };
    if has(&["manifests"]) {
        return Ok(DocumentKind::Index);
    }
    if has(&["layers", "config", "fsLayers"]) {
        return Ok(DocumentKind::Manifest);
    }
    let own = value.get("mediaType").and_then(Value::as_str).unwrap_or(said);
    match MediaType::parse(own) {
        MediaType::Document(kind @ (DocumentKind::Manifest | DocumentKind::Index)) => Ok(kind),
        _ if value.get("manifests").is_some() => Ok(DocumentKind::Index),
        _ => Err(DocumentError::Unknown),
    }
}

fn check_kind<T: Typed>(value: &Value) -> Result<(), DocumentError> {
    let kind = T::KIND;
    let ambiguous = |other: String| Err(DocumentError::Ambiguous { kind, other });
    if kind != DocumentKind::Config {
        match value.get("schemaVersion") {
            Some(version) if version.as_u64() != Some(2) => {
                let version = version.to_string();
                return Err(DocumentError::SchemaVersion { kind, version });
            }
            // A missing version is reported with the other missing fields.
            _ => {}
        }
        let own = value.get("mediaType").and_then(Value::as_str);
        if let Some(text) = own.filter(|text| MediaType::parse(text) != MediaType::Document(kind)) {
            return ambiguous(format!("the media type `{text}`"));
        }
    }
    let is_there = |key: &&&str| value.get(**key).is_some_and(|field| !field.is_null());
    if let Some(key) = T::FOREIGN.iter().find(is_there) {
        return ambiguous(format!("`{key}`"));
    }
    match shape::misspelled(value, T::SHAPE, T::FOREIGN) {
        Some(key) => ambiguous(format!("`{key}`, which some readers take for another field")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
