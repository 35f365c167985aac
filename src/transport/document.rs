//! The *documents* of an image as they are read: index, manifest and the few config fields that reading needs.
//!
//! Invariant: read leniently (unknown fields are ignored), bounded in size, and never written back: the bytes that
//! were read stay the document. (The stricter types of `oci` are for documents that layerize writes; here anyone's are
//! read, with fields missing or null as Docker and old tools have them.) Formats: OCI image-spec v1.1 and Docker's image manifest version 2 schema 2.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::TransportError;
use crate::digest::{DiffId, Digest};
use crate::oci::MediaType;

/// Largest index or manifest in bytes; registries cap them at 4 MiB.
pub const MANIFEST_MAX: u64 = 4 << 20;
/// Largest config in bytes: what podman, skopeo and buildah read (containers/image, `iolimits`).
pub const CONFIG_MAX: u64 = crate::oci::CONFIG_SIZE_MAX;

/// Media type of an OCI index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of Docker's manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of Docker's manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Annotation that names an image for containerd, in full.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// Annotation that names an image in a layout, mostly by its tag alone.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A descriptor (image-spec, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the content; empty where the document does not say.
    #[serde(default)]
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size of the content in bytes.
    pub size: u64,
    /// Free-form facts about the content.
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
    /// What the content runs on.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// What kind of artifact it is, where it is none of an image.
    #[serde(default)]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether it is what stands beside images and is none to run: a build attestation of Docker's, an artifact with a
    /// subject, or the list of such artifacts under an image's fallback tag.
    pub fn is_attestation(&self) -> bool {
        let unknown = self.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
        unknown
            || self.annotation("vnd.docker.reference.type").is_some()
            || self.is_artifact()
            || self.annotation(REF_NAME).is_some_and(is_fallback_tag)
    }

    /// Whether it says to be an artifact; of an image, some say the type of its config.
    fn is_artifact(&self) -> bool {
        let kind = self.artifact_type.as_deref().unwrap_or_default();
        !kind.is_empty() && kind != MediaType::CONFIG && kind != MediaType::DOCKER_CONFIG
    }
}

/// Whether a tag is one of those under which the referrers of an image are listed, `sha256-HEX`, or where cosign 2 and
/// before kept a signature, `sha256-HEX.sig` (distribution-spec, "Referrers Tag Schema").
pub fn is_fallback_tag(tag: &str) -> bool {
    let Some(rest) = tag.strip_prefix("sha256-") else {
        return false;
    };
    let (hex, after) = rest.split_at_checked(64).unwrap_or((rest, ""));
    hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) && (after.is_empty() || after.starts_with('.'))
}

/// A platform (image-spec, image-index.md).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Platform {
    /// Operating system, as Go calls it.
    #[serde(default)]
    pub os: String,
    /// Processor architecture, as Go calls it.
    #[serde(default)]
    pub architecture: String,
    /// Variant of the architecture.
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    /// Whether `wanted`, `os/arch[/variant]`, means this platform; without variant every variant will do.
    pub fn matches(&self, wanted: &str) -> bool {
        let mut parts = wanted.splitn(3, '/');
        let (os, architecture, variant) = (parts.next(), parts.next(), parts.next());
        os == Some(&self.os)
            && architecture == Some(&self.architecture)
            && variant.is_none_or(|variant| self.variant.as_deref() == Some(variant))
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

/// An index or manifest list.
#[derive(Debug, Clone, Deserialize)]
pub struct Index {
    /// What it lists.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
}

/// An image manifest.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type, if it says.
    #[serde(default)]
    pub media_type: Option<String>,
    /// What kind of artifact it is, where it is none of an image.
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// The config.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Free-form facts.
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// The fields of a config that tie it to layers and platform.
#[derive(Debug, Clone, Deserialize)]
pub struct ConfigLinks {
    /// Processor architecture.
    #[serde(default)]
    pub architecture: String,
    /// Operating system.
    #[serde(default)]
    pub os: String,
    /// Variant of the architecture.
    #[serde(default)]
    pub variant: Option<String>,
    /// The layers' diffIDs.
    pub rootfs: RootFs,
    /// How the layers came about.
    #[serde(default)]
    pub history: Option<Vec<History>>,
}

impl ConfigLinks {
    /// The platform the config names.
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
        }
    }
}

/// `rootfs` of a config.
#[derive(Debug, Clone, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The layers' diffIDs, lowest first.
    #[serde(default)]
    pub diff_ids: Option<Vec<DiffId>>,
}

/// An element of a config's `history`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct History {
    /// When.
    #[serde(default)]
    pub created: Option<String>,
    /// By which command.
    #[serde(default)]
    pub created_by: Option<String>,
    /// A remark.
    #[serde(default)]
    pub comment: Option<String>,
    /// Whether it made no layer.
    #[serde(default)]
    pub empty_layer: bool,
}

/// Parses a document; the error names it.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], place: &str, what: impl Into<String>) -> Result<T, TransportError> {
    serde_json::from_slice(bytes).map_err(|source| TransportError::Json {
        place: place.to_owned(),
        what: what.into(),
        source,
    })
}

/// Whether the media type is that of an index of manifests.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, INDEX | DOCKER_LIST)
}

/// Whether the media type is that of an image manifest.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, MANIFEST | DOCKER_MANIFEST)
}
