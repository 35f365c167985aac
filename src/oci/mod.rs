//! *OCI documents*: manifests, indexes and configs, typed and raw, and the vocabulary of what stands in them (OCI
//! image-spec v1.1). Pure.
//!
//! Invariant: bytes that are hashed come from [`canonical_json`]; a document that was read keeps its bytes
//! ([`Raw`]) and is never serialised again; a value that was parsed is a type and is never parsed again.

mod artifact;
mod choice;
mod compression;
mod compression_format;
mod config;
mod json;
mod layer_limit;
mod layer_strategy;
mod manifest;
mod media_type;
mod platform;
mod port;
mod raw;
mod reference;
pub mod shape;
mod stop_signal;
mod tar_profile;

pub use artifact::{Artifact, Subject};
pub use choice::{NoChoice, choose};
pub use compression::{Compression, DEFAULT_GZIP_LEVEL, DEFAULT_ZSTD_LEVEL, ParseCompressionError};
pub use compression_format::{CompressionFormat, UnknownCompressionFormat};
pub use config::{CONFIG_SIZE_MAX, Config, Execution, History};
pub use json::{INTEGER_MAX, JsonError, canonical_json, parse_json, try_canonical_json};
pub use layer_limit::{LayerLimit, LayerLimitError};
pub use layer_strategy::{LayerStrategy, LayerStrategyError};
pub use manifest::{
    ATTESTATION, ATTESTED, Annotations, CONTAINERD_NAME, Descriptor, INDEX_DEPTH_MAX, INDEX_SIZE_MAX, Index,
    MANIFEST_SIZE_MAX, Manifest, REF_NAME, UnknownEntry, is_fallback_tag, is_index,
};
pub use media_type::{DocumentKind, LayerCodec, MediaType};
pub use platform::{Platform, PlatformError};
pub use port::{Port, PortError};
pub use raw::{ConfigDocument, Document, DocumentError, Fault, Raw, Typed};
pub use reference::{DEFAULT_REGISTRY, DEFAULT_TAG, NAME_MAX, Reference, ReferenceError};
pub use stop_signal::{StopSignal, StopSignalError};
pub use tar_profile::{TarProfile, TarProfileError};

#[cfg(test)]
mod fuzz {
    use super::{Config, Index, Manifest, Raw, Reference};

    #[test]
    fn fuzz_documents() {
        crate::testing::fuzz("documents", |bytes| {
            let _ = Raw::<Manifest>::read(bytes.to_vec());
            let _ = Raw::<Index>::read(bytes.to_vec());
            let _ = Raw::<Config>::read(bytes.to_vec());
        });
    }

    #[test]
    fn fuzz_reference() {
        crate::testing::fuzz("reference", |bytes| {
            if let Ok(reference) = String::from_utf8_lossy(bytes).parse::<Reference>() {
                assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        });
    }
}
