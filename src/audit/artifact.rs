//! An *artifact* is a manifest whose blobs are no layers of an image: a chart, a signature, a bill of materials (OCI
//! image-spec, manifest.md, "Guidelines for Artifact Usage").
//!
//! Invariant: nothing but the manifest is read, and where that is needed to tell it from an image, the config.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::{AuditError, human_size};
use crate::digest::ContentDigest;
use crate::escape::shown;
use crate::oci::{Descriptor, Manifest, Raw};
use crate::transport::{Source, TransportError};

/// Annotation of a blob: the file name for whoever downloads it.
const TITLE: &str = "org.opencontainers.image.title";

/// What an artifact is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArtifactReport {
    /// Where it is.
    pub place: String,
    /// Its names there.
    pub names: Vec<String>,
    /// Digest of the manifest.
    pub digest: ContentDigest,
    /// Media type of the manifest.
    pub media_type: String,
    /// What kind of artifact it is: its `artifactType`, else its config's media type.
    pub artifact_type: String,
    /// Its config.
    pub config: BlobReport,
    /// Digest of the manifest that it is about.
    pub subject: Option<ContentDigest>,
    /// The manifest's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its blobs, in their order.
    pub blobs: Vec<BlobReport>,
    /// Bytes of all blobs.
    pub size: u64,
}

/// A blob of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlobReport {
    /// Digest.
    pub digest: ContentDigest,
    /// Media type.
    pub media_type: String,
    /// Bytes.
    pub size: u64,
    /// The descriptor's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Where else it may be had.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

impl BlobReport {
    fn of(descriptor: &Descriptor) -> Self {
        Self {
            digest: descriptor.digest,
            media_type: descriptor.media_type.clone(),
            size: descriptor.size,
            annotations: descriptor.annotations.clone(),
            urls: descriptor.urls.clone(),
        }
    }
}

/// What an artifact is; `None` where the source is an image, sound or not.
pub fn inspect_artifact(source: &dyn Source) -> Result<Option<ArtifactReport>, AuditError> {
    let manifest: Raw<Manifest> = source.manifest()?;
    if !is_artifact(source, &manifest) {
        return Ok(None);
    }
    Ok(Some(ArtifactReport {
        place: source.place().to_owned(),
        names: source.names().to_vec(),
        digest: manifest.digest(),
        media_type: manifest.media_type().to_owned(),
        artifact_type: manifest.kind_of_artifact().to_owned(),
        config: BlobReport::of(&manifest.config),
        subject: manifest.subject.as_ref().map(|subject| subject.digest),
        annotations: manifest.annotations.clone(),
        blobs: manifest.layers.iter().map(BlobReport::of).collect(),
        size: manifest.layers.iter().map(|layer| layer.size).sum(),
    }))
}

/// Whether a manifest is an artifact's. Images have been seen whose config has an odd type.
pub(super) fn is_artifact(source: &dyn Source, manifest: &Manifest) -> bool {
    !manifest.is_image() && matches!(source.config(), Err(TransportError::Artifact { .. }))
}

impl ArtifactReport {
    /// The report for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut line = |label: &str, value: &str| {
            let _ = writeln!(text, "{label:<13}{}", shown(value));
        };
        line("artifact", &self.place);
        self.names.iter().for_each(|name| line("name", name));
        line("digest", &self.digest.to_string());
        line("type", &self.artifact_type);
        line("media type", &self.media_type);
        line("config", &format!("{} {}", self.config.digest, self.config.media_type));
        if let Some(subject) = &self.subject {
            line("subject", &subject.to_string());
        }
        for (key, value) in &self.annotations {
            line("annotation", &format!("{key}={value}"));
        }
        line("blobs", &format!("{}, {}", self.blobs.len(), human_size(self.size)));
        for (index, blob) in self.blobs.iter().enumerate() {
            let title = blob.annotations.get(TITLE).map(|title| format!(", {title}"));
            let _ = writeln!(
                text,
                "  {index:>3}  {}  {}, {}{}",
                blob.digest,
                human_size(blob.size),
                shown(&blob.media_type),
                shown(&title.unwrap_or_default())
            );
            for url in &blob.urls {
                let _ = writeln!(text, "       at {}", shown(url));
            }
        }
        text
    }
}
