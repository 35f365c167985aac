//! *OCI documents*: media types, descriptors, artifacts, references, platforms and canonical JSON (OCI image-spec v1.1). Pure.
//!
//! Invariant: bytes that are hashed come from [`canonical_json`]; a document that was read keeps its bytes
//! ([`Raw`]) and is never serialised again.

mod artifact;
mod document;
mod json;
mod media_type;
mod platform;
mod reference;

pub use artifact::{Artifact, Subject};
pub use document::{
    CONFIG_SIZE_MAX, Config, Descriptor, Document, DocumentError, INDEX_SIZE_MAX, Index, MANIFEST_SIZE_MAX, Manifest,
    digest_of, read_config, read_document, read_index, read_manifest, sorted,
};
pub use json::{INTEGER_MAX, JsonError, Raw, canonical_json, parse_json, try_canonical_json};
pub use media_type::{DocumentKind, LayerCodec, MediaType};
pub use platform::{Platform, PlatformError};
pub use reference::{DEFAULT_REGISTRY, DEFAULT_TAG, NAME_MAX, Reference, ReferenceError};
