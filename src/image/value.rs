//! The *value* of an image: its documents as they were read or written, and its layers with where their bytes are.
//!
//! Invariant: what an image of ours says of a layer was computed from the layer's bytes, what a foreign one says was read
//! from its documents; nothing that nobody said stands in either.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::digest::{ContentDigest, DiffId, Digest, VerifyingReader};
use crate::layer::{Blob, BlobReader, LayerError, PackedLayer};
use crate::oci::{ConfigDocument, Descriptor, LayerCodec, Manifest, MediaType, Raw};

/// A whole image, or an artifact, ready for a sink.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest.
    pub manifest: Raw<Manifest>,
    /// The config.
    pub config: ConfigDocument,
    /// The layers, lowest first; of an artifact, its blobs.
    pub layers: Vec<ImageLayer>,
}

impl Image {
    /// SHA-256 of the manifest: by what an image is known, also where it was found by another algorithm.
    pub fn digest(&self) -> Digest {
        sha256(self.manifest.digest(), self.manifest.bytes())
    }

    /// SHA-256 of the config: the image ID that Docker shows.
    pub fn config_digest(&self) -> Digest {
        sha256(self.config.digest(), self.config.bytes())
    }
}

fn sha256(digest: ContentDigest, bytes: &[u8]) -> Digest {
    match digest {
        ContentDigest::Sha256(digest) => digest,
        ContentDigest::Sha512(_) => Digest::of(bytes),
    }
}

/// A layer of an image, ours or foreign, or a blob of an artifact.
#[derive(Debug, Clone)]
pub struct ImageLayer {
    /// What the manifest says of it.
    pub descriptor: Descriptor,
    /// Digest of its uncompressed tar; `None` of an artifact's blob, for which nothing says one.
    pub diff_id: Option<DiffId>,
    /// Where its bytes as stored are.
    pub content: Blob,
}

impl ImageLayer {
    /// A packed layer and what the manifest says of it.
    pub(super) fn packed(descriptor: Descriptor, layer: PackedLayer) -> Self {
        Self {
            descriptor,
            diff_id: Some(layer.diff_id),
            content: layer.blob,
        }
    }

    /// Digest of its bytes as stored.
    pub fn digest(&self) -> ContentDigest {
        self.descriptor.digest
    }

    /// Number of its bytes as stored.
    pub fn size(&self) -> u64 {
        self.descriptor.size
    }

    /// How its media type says that it is compressed; `None` where the media type is no layer's.
    pub fn codec(&self) -> Option<LayerCodec> {
        match self.descriptor.kind() {
            MediaType::Layer(codec) | MediaType::ForeignLayer(codec) => Some(codec),
            _ => None,
        }
    }

    /// Whether its bytes are not where the image is: see [`Descriptor::is_kept_elsewhere`].
    pub fn is_absent(&self) -> bool {
        matches!(self.content, Blob::Absent { .. })
    }

    /// A reader of its bytes as stored that fails at end of file if they are not what the descriptor says.
    pub fn open(&self) -> VerifyingReader<BlobReader> {
        self.content.open_verified(self.digest(), self.size())
    }

    /// Writes its bytes as stored to a file: see [`Blob::copy_to`].
    pub fn copy_to(&self, file: &File, at: u64, dest: &Path) -> Result<(), LayerError> {
        self.content.copy_to(self.digest(), self.size(), file, at, dest)
    }

    /// The same layer with sound bytes: see [`Blob::packed_anew`].
    pub fn packed_anew(&self) -> Result<Self, LayerError> {
        let content = self.content.packed_anew(self.digest())?;
        Ok(Self {
            content,
            ..self.clone()
        })
    }

    /// What a failure of [`open`](Self::open)'s reader means: see [`Blob::read_error`].
    pub fn read_error(&self, error: io::Error) -> LayerError {
        self.content.read_error(self.digest(), error)
    }
}
