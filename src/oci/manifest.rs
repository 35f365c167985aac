//! *Manifests* name a config and layers, *indexes* name manifests; both by descriptors (OCI image-spec, manifest.md,
//! image-index.md, descriptor.md). Docker's schema 2 has the same fields.
//!
//! Invariant: every digest that is kept can be checked, and every map is in the order of its keys. The fields are read by
//! `oci-spec`'s types; those here hold what was parsed and are what is written.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::media_type::{DocumentKind, MediaType};
use super::platform::Platform;
use super::raw::{DocumentError, Typed};
use super::shape::{self, Shape};
use crate::digest::ContentDigest;

/// Largest manifest in bytes: what registries must accept and most refuse to exceed (distribution-spec).
pub const MANIFEST_SIZE_MAX: u64 = 4 << 20;
/// Largest index in bytes: a layout's `index.json` may list many images.
pub const INDEX_SIZE_MAX: u64 = 16 << 20;

/// Deepest nesting of indexes that is followed.
pub const INDEX_DEPTH_MAX: usize = 4;

/// Annotation that names an image for containerd, in full.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// Annotation that names an image in a layout, mostly by its tag alone.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation by which Docker marks the attestations beside an image.
pub const ATTESTATION: &str = "vnd.docker.reference.type";

/// Annotation by which Docker says of which image in the same index an attestation is.
pub const ATTESTED: &str = "vnd.docker.reference.digest";

/// Annotations of whatever has them.
pub type Annotations = BTreeMap<String, String>;

/// What names content: its type, digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the content; empty where the document does not say.
    pub media_type: String,
    /// Digest of the content.
    pub digest: ContentDigest,
    /// Size of the content in bytes.
    pub size: u64,
    /// Where else the content may be had.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// The content itself, in base 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// What the content runs on, where that is said and can be understood.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "Platform::as_object")]
    pub platform: Option<Platform>,
    /// What kind of artifact it is, where it is none of an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Free-form facts about the content.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
}

impl Descriptor {
    /// A descriptor that says nothing beyond what it must.
    pub fn new(media_type: impl Into<String>, digest: impl Into<ContentDigest>, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest: digest.into(),
            size,
            urls: Vec::new(),
            data: None,
            platform: None,
            artifact_type: None,
            annotations: Annotations::new(),
        }
    }

    /// What its media type means.
    pub fn kind(&self) -> MediaType {
        MediaType::parse(&self.media_type)
    }

    /// Whether it is said to name an index.
    pub fn is_index(&self) -> bool {
        self.kind() == MediaType::Document(DocumentKind::Index)
    }

    /// The most bytes that the document may have which it names.
    pub fn document_size_max(&self) -> u64 {
        match self.is_manifest() {
            true => MANIFEST_SIZE_MAX,
            false => INDEX_SIZE_MAX,
        }
    }

    /// Whether it is said to name a manifest.
    pub fn is_manifest(&self) -> bool {
        self.kind() == MediaType::Document(DocumentKind::Manifest)
    }

    /// Whether it says where else the content may be had (descriptor.md, "urls"), so that a place may do without it:
    /// layers of Windows, which only their vendor hands out.
    pub fn is_kept_elsewhere(&self) -> bool {
        !self.urls.is_empty()
    }

    /// Whether it names a layer that only its vendor hands out: layers of this kind "SHOULD NOT be uploaded" (layer.md,
    /// "Non-Distributable Layers").
    pub fn is_non_distributable(&self) -> bool {
        matches!(self.kind(), MediaType::ForeignLayer(_)) && self.is_kept_elsewhere()
    }

    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// Whether it is what stands beside images and is none to run: a build attestation of Docker's, an artifact with a
    /// subject, or the list of such artifacts under an image's fallback tag.
    pub fn is_attestation(&self) -> bool {
        let unknown = self
            .platform
            .as_ref()
            .is_some_and(|platform| platform.os() == "unknown");
        unknown
            || self.annotation(ATTESTATION).is_some()
            || self.is_artifact()
            || self.annotation(REF_NAME).is_some_and(is_fallback_tag)
    }

    /// Whether it says to be an artifact; of an image, some say the type of its config.
    fn is_artifact(&self) -> bool {
        let kind = self.artifact_type.as_deref().unwrap_or_default();
        !kind.is_empty() && MediaType::parse(kind) != MediaType::Document(DocumentKind::Config)
    }

    fn read(kind: DocumentKind, spec: &oci_spec::image::Descriptor) -> Result<Self, DocumentError> {
        let digest = spec.digest().to_string();
        Ok(Self {
            digest: digest.parse().map_err(|_| DocumentError::Algorithm { kind, digest })?,
            media_type: spec.media_type().to_string(),
            size: spec.size(),
            urls: spec.urls().clone().unwrap_or_default(),
            data: spec.data().clone(),
            platform: spec.platform().as_ref().and_then(platform),
            artifact_type: spec.artifact_type().as_ref().map(ToString::to_string),
            annotations: sorted(spec.annotations().as_ref()),
        })
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

/// Whether a media type is that of an index, in OCI's or Docker's form.
pub fn is_index(media_type: &str) -> bool {
    MediaType::parse(media_type) == MediaType::Document(DocumentKind::Index)
}

/// One image, or an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    schema_version: u32,
    media_type: Option<String>,
    /// What kind of artifact it is, where it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// What the image runs, or whatever an artifact has in its place.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// What an artifact is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form facts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
}

impl Manifest {
    /// The manifest of an image, in OCI's form.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>, annotations: Annotations) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MediaType::MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations,
        }
    }

    /// Its media type: its own word, else OCI's.
    pub fn media_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or(MediaType::MANIFEST)
    }

    /// Whether it says its media type itself.
    pub fn says_media_type(&self) -> bool {
        self.media_type.is_some()
    }

    /// What kind of artifact it is: its `artifactType`, else its config's media type (manifest.md, "Guidelines for
    /// Artifact Usage").
    pub fn kind_of_artifact(&self) -> &str {
        let own = self.artifact_type.as_deref().filter(|kind| !kind.is_empty());
        own.unwrap_or(&self.config.media_type)
    }

    /// Whether it is in Docker's form.
    pub fn is_docker(&self) -> bool {
        self.media_type() == MediaType::DOCKER_MANIFEST
    }

    /// Whether its config is that of an image to run.
    pub fn is_image(&self) -> bool {
        self.config.kind() == MediaType::Document(DocumentKind::Config)
    }
}

impl Typed for Manifest {
    const KIND: DocumentKind = DocumentKind::Manifest;
    const SHAPE: Shape = shape::MANIFEST;
    const FOREIGN: &'static [&'static str] = &["manifests", "fsLayers"];
    const SIZE_MAX: u64 = MANIFEST_SIZE_MAX;

    fn from_json(mut value: Value) -> Result<Self, DocumentError> {
        shape::settle(&mut value, Self::SHAPE);
        let spec: oci_spec::image::ImageManifest =
            serde_json::from_value(value).map_err(DocumentError::field(Self::KIND))?;
        let read = |descriptor| Descriptor::read(Self::KIND, descriptor);
        Ok(Self {
            schema_version: spec.schema_version(),
            media_type: spec.media_type().as_ref().map(ToString::to_string),
            artifact_type: spec.artifact_type().as_ref().map(ToString::to_string),
            config: read(spec.config())?,
            layers: spec.layers().iter().map(read).collect::<Result<_, _>>()?,
            subject: spec.subject().as_ref().map(read).transpose()?,
            annotations: sorted(spec.annotations().as_ref()),
        })
    }
}

/// A list of images, one for each platform, or of anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    schema_version: u32,
    media_type: Option<String>,
    /// What it lists.
    pub manifests: Vec<Descriptor>,
    /// What it lists by digests that cannot be checked.
    #[serde(skip)]
    pub unknown: Vec<UnknownEntry>,
    /// Free-form facts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
}

/// An entry of an index whose digest is by an algorithm that is not registered: it can be listed and not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownEntry {
    /// The digest's text.
    pub digest: String,
    /// What it runs on, where that is said.
    pub platform: Option<Platform>,
}

impl Index {
    /// An index in OCI's form.
    pub fn new(manifests: Vec<Descriptor>, annotations: Annotations) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MediaType::INDEX.to_owned()),
            manifests,
            unknown: Vec::new(),
            annotations,
        }
    }

    /// Its media type: its own word, else OCI's.
    pub fn media_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or(MediaType::INDEX)
    }

    /// Whether it says its media type itself.
    pub fn says_media_type(&self) -> bool {
        self.media_type.is_some()
    }
}

impl Typed for Index {
    const KIND: DocumentKind = DocumentKind::Index;
    const SHAPE: Shape = shape::INDEX;
    const FOREIGN: &'static [&'static str] = &["config", "layers", "fsLayers"];
    const SIZE_MAX: u64 = INDEX_SIZE_MAX;

    fn from_json(mut value: Value) -> Result<Self, DocumentError> {
        // A list that is `null` is empty, one that is not there at all is some other document's.
        if value.get("manifests").is_none() {
            return Err(DocumentError::Unknown);
        }
        shape::settle(&mut value, Self::SHAPE);
        let spec: oci_spec::image::ImageIndex =
            serde_json::from_value(value).map_err(DocumentError::field(Self::KIND))?;
        let (mut manifests, mut unknown) = (Vec::new(), Vec::new());
        for entry in spec.manifests() {
            match Descriptor::read(Self::KIND, entry) {
                Ok(descriptor) => manifests.push(descriptor),
                Err(DocumentError::Algorithm { digest, .. }) => unknown.push(UnknownEntry {
                    digest,
                    platform: entry.platform().as_ref().and_then(platform),
                }),
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            schema_version: spec.schema_version(),
            media_type: spec.media_type().as_ref().map(ToString::to_string),
            manifests,
            unknown,
            annotations: sorted(spec.annotations().as_ref()),
        })
    }
}

fn platform(spec: &oci_spec::image::Platform) -> Option<Platform> {
    let variant = spec.variant().as_deref();
    let os = spec.os().to_string();
    Platform::read(
        &os,
        &spec.architecture().to_string(),
        variant,
        spec.os_version().as_deref(),
    )
}

/// One of `oci-spec`'s maps, whose order is random.
pub(super) fn sorted<'a>(map: Option<impl IntoIterator<Item = (&'a String, &'a String)>>) -> Annotations {
    let members = map.into_iter().flatten();
    members.map(|(key, value)| (key.clone(), value.clone())).collect()
}
