//! A *referrer* is an artifact that names an image as its subject: a bill of materials, a signature.
//!
//! Invariant: a manifest is a referrer only if its own `subject` says so, whatever the list says that it was found in.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::TransportError;
use super::document::{self, Descriptor};
use crate::digest::Digest;

/// Most manifests of a place that are looked at for being referrers.
pub const REFERRERS_MAX: usize = 1000;

/// An artifact that was found beside an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrer {
    /// Digest of its manifest.
    pub digest: Digest,
    /// What kind of artifact it is: its `artifactType`, else its config's media type.
    pub artifact_type: String,
    /// Its manifest's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its blobs, to be read through the image's source.
    pub blobs: Vec<Descriptor>,
}

impl Referrer {
    /// The referrer whose manifest `bytes` are, if its subject is `subject`.
    pub fn parse(bytes: &[u8], subject: &Digest, place: &str) -> Result<Option<Self>, TransportError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Manifest {
            #[serde(default)]
            artifact_type: Option<String>,
            #[serde(default)]
            config: Option<Descriptor>,
            #[serde(default)]
            layers: Option<Vec<Descriptor>>,
            #[serde(default)]
            subject: Option<Descriptor>,
            #[serde(default)]
            annotations: Option<BTreeMap<String, String>>,
        }
        let manifest: Manifest = document::parse(bytes, place, "a manifest")?;
        if manifest.subject.is_none_or(|found| found.digest != *subject) {
            return Ok(None);
        }
        let own = manifest.artifact_type.filter(|kind| !kind.is_empty());
        let of_config = manifest.config.map(|config| config.media_type);
        Ok(Some(Self {
            digest: Digest::of(bytes),
            artifact_type: own.or(of_config).unwrap_or_default(),
            annotations: manifest.annotations.unwrap_or_default(),
            blobs: manifest.layers.unwrap_or_default(),
        }))
    }
}
