//! Layers that are *kept elsewhere*: an image's place does without them, as registries do with layers that only their
//! vendor hands out (image-spec, layer.md, "Non-Distributable Layers").
//!
//! Invariant: such a layer is neither damage nor passed over in silence: what was not read is said.

use std::fmt::Write as _;

use serde::Serialize;

use super::AuditError;
use crate::digest::ContentDigest;
use crate::escape::shown;
use crate::oci::Descriptor;
use crate::transport::{Source, TransportError};

/// A layer that was not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptElsewhere {
    /// Index of the layer, from 0, lowest first.
    pub layer: usize,
    /// Digest of its blob.
    pub digest: ContentDigest,
    /// Bytes as stored.
    pub size: u64,
    /// Where it may be had, as the manifest says.
    pub urls: Vec<String>,
}

impl KeptElsewhere {
    /// The layer, if that is why it could not be read.
    pub(super) fn of(error: &AuditError, layer: usize, descriptor: &Descriptor) -> Option<Self> {
        let is_elsewhere = matches!(error, AuditError::Transport(TransportError::Elsewhere { .. }));
        is_elsewhere.then(|| Self::new(layer, descriptor))
    }

    /// The layer, if its place does without it.
    pub(super) fn in_place(source: &dyn Source, layer: usize, descriptor: &Descriptor) -> Option<Self> {
        let is_elsewhere =
            descriptor.is_kept_elsewhere() && matches!(source.layer(descriptor), Err(TransportError::Elsewhere { .. }));
        is_elsewhere.then(|| Self::new(layer, descriptor))
    }

    fn new(layer: usize, descriptor: &Descriptor) -> Self {
        Self {
            layer,
            digest: descriptor.digest,
            size: descriptor.size,
            urls: descriptor.urls.clone(),
        }
    }

    /// A line for people.
    pub(super) fn render(&self, text: &mut String) {
        let urls = self.urls.join(", ");
        let layer = self.layer;
        let _ = writeln!(
            text,
            "layer {layer}: it is kept elsewhere and was not read: {}",
            shown(&urls)
        );
    }
}
