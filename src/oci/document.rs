//! A *document* is a manifest, index or config that was read: typed by `oci-spec`, bounded, strict, with its bytes kept.
//!
//! Invariant: what these functions accept has schema version 2, no key twice, and is one kind of document only (the
//! confusion of manifest and index is refused, as image-spec v1.1 and CVE-2021-41190 ask). `oci-spec`'s maps iterate
//! in random order: go through [`sorted`] before anything is printed.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::json::{JsonError, Raw, parse_json};
use super::media_type::{DocumentKind, MediaType};
use crate::digest::Digest;

pub use oci_spec::image::{Descriptor, ImageConfiguration as Config, ImageIndex as Index, ImageManifest as Manifest};

/// Largest manifest in bytes: what registries must accept and most refuse to exceed (distribution-spec).
pub const MANIFEST_SIZE_MAX: u64 = 4 << 20;
/// Largest index in bytes; an image layout's `index.json` may list many images.
pub const INDEX_SIZE_MAX: u64 = 16 << 20;
/// Largest config in bytes; the history of 127 layers with long comments stays far below.
pub const CONFIG_SIZE_MAX: u64 = 8 << 20;

/// A manifest or an index, as a reference may lead to either.
#[derive(Debug, Clone)]
pub enum Document {
    /// One image.
    Manifest(Raw<Manifest>),
    /// A list of images.
    Index(Raw<Index>),
}

/// Why bytes are not the document they should be.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// More bytes than the kind may have.
    #[error("the image {kind} is {size} bytes long, more than the {limit} that are allowed")]
    Size {
        /// `manifest`, `index`, `config`.
        kind: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// Not JSON, or fields missing or of the wrong type.
    #[error("cannot read the image {kind}")]
    Json {
        /// `manifest`, `index`, `config`.
        kind: &'static str,
        /// What is wrong.
        #[source]
        source: JsonError,
    },
    /// Another schema than Docker's schema 2 and OCI's.
    #[error("the image {kind} has schema version {version}; only version 2 is supported")]
    SchemaVersion {
        /// `manifest`, `index`.
        kind: &'static str,
        /// What it says.
        version: String,
    },
    /// Its fields say one kind, its media type or other fields another.
    #[error("the image {kind} also has {other}: it could be read as two different images")]
    Ambiguous {
        /// `manifest`, `index`.
        kind: &'static str,
        /// What does not belong there.
        other: String,
    },
    /// Neither manifest nor index.
    #[error("the document is neither an image manifest nor an index: it has neither `layers` nor `manifests`")]
    Unknown,
    /// A digest by another algorithm than SHA-256.
    #[error("the digest `{digest}` is not supported: only sha256 is")]
    Algorithm {
        /// The digest.
        digest: String,
    },
}

/// Reads a manifest, or an index, whichever it is.
pub fn read_document(bytes: Vec<u8>) -> Result<Document, DocumentError> {
    check_size("document", &bytes, INDEX_SIZE_MAX)?;
    let value: Value = parse_json(&bytes).map_err(|source| DocumentError::Json {
        kind: "document",
        source,
    })?;
    if value.get("manifests").is_some() {
        return read_index(bytes).map(Document::Index);
    }
    if value.get("layers").is_some() || value.get("config").is_some() || value.get("fsLayers").is_some() {
        return read_manifest(bytes).map(Document::Manifest);
    }
    Err(DocumentError::Unknown)
}

/// Reads a manifest of at most [`MANIFEST_SIZE_MAX`] bytes.
pub fn read_manifest(bytes: Vec<u8>) -> Result<Raw<Manifest>, DocumentError> {
    check_size("manifest", &bytes, MANIFEST_SIZE_MAX)?;
    check_kind(&bytes, "manifest", DocumentKind::Manifest, &["manifests", "fsLayers"])?;
    read(bytes, "manifest")
}

/// Reads an index, or Docker's manifest list, of at most [`INDEX_SIZE_MAX`] bytes.
pub fn read_index(bytes: Vec<u8>) -> Result<Raw<Index>, DocumentError> {
    check_size("index", &bytes, INDEX_SIZE_MAX)?;
    check_kind(&bytes, "index", DocumentKind::Index, &["config", "layers", "fsLayers"])?;
    read(bytes, "index")
}

/// Reads a config of at most [`CONFIG_SIZE_MAX`] bytes.
pub fn read_config(bytes: Vec<u8>) -> Result<Raw<Config>, DocumentError> {
    check_size("config", &bytes, CONFIG_SIZE_MAX)?;
    read(bytes, "config")
}

/// The digest of what a descriptor points to.
pub fn digest_of(descriptor: &Descriptor) -> Result<Digest, DocumentError> {
    let text: &str = descriptor.digest().as_ref();
    text.parse().map_err(|_| DocumentError::Algorithm {
        digest: text.to_owned(),
    })
}

/// The entries of one of `oci-spec`'s maps (annotations, labels), in the order of their keys.
pub fn sorted<'a, M>(map: Option<M>) -> BTreeMap<&'a str, &'a str>
where
    M: IntoIterator<Item = (&'a String, &'a String)>,
{
    map.into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

fn check_size(kind: &'static str, bytes: &[u8], limit: u64) -> Result<(), DocumentError> {
    let size = bytes.len() as u64;
    if size > limit {
        return Err(DocumentError::Size { kind, size, limit });
    }
    Ok(())
}

fn read<T: DeserializeOwned>(bytes: Vec<u8>, kind: &'static str) -> Result<Raw<T>, DocumentError> {
    Raw::parse(bytes).map_err(|source| DocumentError::Json { kind, source })
}

fn check_kind(bytes: &[u8], kind: &'static str, expected: DocumentKind, foreign: &[&str]) -> Result<(), DocumentError> {
    let value: Value = parse_json(bytes).map_err(|source| DocumentError::Json { kind, source })?;
    match value.get("schemaVersion") {
        Some(version) if version.as_u64() != Some(2) => {
            return Err(DocumentError::SchemaVersion {
                kind,
                version: version.to_string(),
            });
        }
        // A missing version is reported with the other missing fields.
        _ => {}
    }
    if let Some(key) = foreign.iter().find(|key| value.get(**key).is_some()) {
        return Err(DocumentError::Ambiguous {
            kind,
            other: format!("`{key}`"),
        });
    }
    match value.get("mediaType").and_then(Value::as_str) {
        Some(text) if MediaType::parse(text) != MediaType::Document(expected) => Err(DocumentError::Ambiguous {
            kind,
            other: format!("the media type `{text}`"),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(extra: &str) -> Vec<u8> {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.docker.container.image.v1+json","size":1,"digest":"{SHA}"}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":2,"digest":"{SHA}"}}]{extra}}}"#
        )
        .into_bytes()
    }

    #[test]
    fn manifests_and_indexes_are_told_apart_by_their_fields() {
        let Document::Manifest(read) = read_document(manifest("")).unwrap() else {
            panic!("a manifest")
        };
        assert_eq!(read.bytes(), manifest(""));
        assert_eq!(digest_of(read.value().config()).unwrap(), Digest::of(b""));
        assert_eq!(read.value().layers()[0].size(), 2);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"x/y","size":1,"digest":"{SHA}"}}]}}"#);
        assert!(matches!(read_document(index.into_bytes()).unwrap(), Document::Index(_)));
    }

    #[test]
    fn what_could_be_read_as_two_images_is_refused() {
        let cases = [
            (manifest(r#","manifests":[]"#), "the image index also has `config`"),
            (
                manifest(&format!(r#","mediaType":"{}""#, MediaType::INDEX)),
                "the image manifest also has the media type",
            ),
            (br#"{"schemaVersion":1,"fsLayers":[]}"#.to_vec(), "has schema version 1"),
            (
                br#"{"schemaVersion":"2","layers":[]}"#.to_vec(),
                "has schema version \"2\"",
            ),
            (
                br#"{"schemaVersion":2}"#.to_vec(),
                "neither an image manifest nor an index",
            ),
            (
                br#"{"schemaVersion":2,"layers":[]}"#.to_vec(),
                "cannot read the image manifest",
            ),
            (manifest(r#","schemaVersion":2"#), "cannot read the image document"),
            (
                vec![b' '; (INDEX_SIZE_MAX + 1) as usize],
                "more than the 16777216 that are allowed",
            ),
        ];
        for (bytes, expected) in cases {
            let error = read_document(bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let padded = [manifest(""), vec![b' '; MANIFEST_SIZE_MAX as usize]].concat();
        assert!(matches!(read_document(padded), Err(DocumentError::Size { .. })));
    }

    #[test]
    fn docker_documents_with_nulls_are_read() {
        let text = br#"{"architecture":"amd64","os":"linux","created":"2020-01-01T00:00:00.123Z","container":"x",
            "config":{"Hostname":"","Env":["A=b"],"Cmd":null,"Volumes":null,"Entrypoint":null,"OnBuild":null,"Labels":{"b":"2","a":"1"}},
            "rootfs":{"type":"layers","diff_ids":["sha256:00"]},"history":[{"created_by":"x","empty_layer":true}]}"#;
        let raw = read_config(text.to_vec()).unwrap();
        let config = raw.value().config().as_ref().unwrap();
        assert_eq!(config.env().as_deref(), Some(&["A=b".to_owned()][..]));
        let labels: Vec<_> = sorted(config.labels().as_ref()).into_iter().collect();
        assert_eq!(labels, [("a", "1"), ("b", "2")]);
        assert_eq!(raw.bytes(), text);
    }

    #[test]
    fn only_sha256_is_a_digest_here() {
        let sha512 = format!("sha512:{}", "0".repeat(128));
        let text = String::from_utf8(manifest("")).unwrap().replace(SHA, &sha512);
        let raw = read_manifest(text.into_bytes()).unwrap();
        assert!(matches!(
            digest_of(raw.value().config()),
            Err(DocumentError::Algorithm { .. })
        ));
    }
}
