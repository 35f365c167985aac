//! *Content* is what a name stands for in a place: an image, or an index of images.
//!
//! Invariant: the bytes of index, manifests and configs are those that the place holds, each verified against its
//! descriptor; layers stay where they are and are read when somebody wants their bytes.

use std::io::{self, Read};
use std::sync::Arc;

use super::{Source, TransportError, read_blob, read_config};
use crate::digest::{ContentDigest, DiffId, Digest};
use crate::image::{Image, ImageIndex, ImageLayer, Listed};
use crate::layer::{Blob, Origin};
use crate::oci::{self, CONFIG_SIZE_MAX, Config, ConfigDocument, Descriptor, Document, INDEX_DEPTH_MAX, Manifest, Raw};

/// Most images and indexes that an index may list, those in its indexes included; real ones have some thirty.
const ENTRIES_MAX: usize = 1000;

/// What a name stands for.
#[derive(Debug, Clone)]
pub enum Content {
    /// One image.
    Image(Image),
    /// Several.
    Index(ImageIndex),
}

impl Content {
    /// Digest of the manifest or of the index.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Image(image) => image.digest(),
            Self::Index(index) => index.digest(),
        }
    }

    /// The images, one or several.
    pub fn images(&self) -> Vec<&Image> {
        match self {
            Self::Image(image) => vec![image],
            Self::Index(index) => index.images(),
        }
    }

    /// Every blob and document of it that is there, with its size, each once.
    pub fn blobs(&self) -> Vec<(ContentDigest, u64)> {
        let mut blobs = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for image in self.images() {
            let documents = [
                (image.config.digest(), image.config.size()),
                (image.manifest.digest(), image.manifest.size()),
            ];
            let layers = image.layers.iter().filter(|layer| !layer.is_absent());
            let layers = layers.map(|layer| (layer.digest(), layer.size()));
            blobs.extend(layers.chain(documents).filter(|(digest, _)| seen.insert(*digest)));
        }
        if let Self::Index(index) = self {
            let indexes = index.indexes().into_iter();
            let documents = indexes.map(|index| (index.document.digest(), index.document.size()));
            blobs.extend(documents.filter(|(digest, _)| seen.insert(*digest)));
        }
        blobs
    }
}

/// Opens what a source gives: with [`ReadOptions::whole`](super::ReadOptions::whole) that may be an index.
pub fn open(source: &Arc<dyn Source>) -> Result<Content, TransportError> {
    match source.document()? {
        Document::Index(index) => {
            let mut left = ENTRIES_MAX;
            open_index(source, index, 1, &mut left).map(Content::Index)
        }
        Document::Manifest(manifest) => open_image(source, manifest).map(Content::Image),
    }
}

/// Opens an index that is `depth` deep, itself included; `left` more entries are read. The list of a layout, in which an
/// index stands in the end, is one more: what is copied can be read again.
fn open_index(
    source: &Arc<dyn Source>,
    document: Raw<oci::Index>,
    depth: usize,
    left: &mut usize,
) -> Result<ImageIndex, TransportError> {
    if depth >= INDEX_DEPTH_MAX {
        return Err(TransportError::nested_too_deep(source.place()));
    }
    let malformed = |reason: String| TransportError::Malformed {
        place: source.place().to_owned(),
        what: "the index".to_owned(),
        reason,
    };
    if let Some(entry) = document.unknown.first() {
        return Err(malformed(format!(
            "`{}` in it cannot be checked",
            entry.digest.escape_debug()
        )));
    }
    let Some(rest) = left.checked_sub(document.manifests.len()) else {
        return Err(malformed(format!("it lists more than {ENTRIES_MAX} images")));
    };
    *left = rest;
    let mut entries = Vec::new();
    for descriptor in &document.manifests {
        entries.push(match source.listed(descriptor)? {
            Document::Manifest(manifest) => Listed::Image(open_image(source, manifest)?),
            Document::Index(index) => Listed::Index(open_index(source, index, depth + 1, left)?),
        });
    }
    Ok(ImageIndex { document, entries })
}

fn open_image(source: &Arc<dyn Source>, manifest: Raw<Manifest>) -> Result<Image, TransportError> {
    let config = config(source, &manifest)?;
    let diff_ids = diff_ids(&manifest, &config, source.place())?;
    let origin = origin(source);
    // What cannot be asked now is told when somebody wants the bytes.
    let is_absent = |descriptor: &Descriptor| {
        descriptor.is_kept_elsewhere() && matches!(source.layer(descriptor), Err(TransportError::Elsewhere { .. }))
    };
    let layers = manifest
        .layers
        .iter()
        .zip(diff_ids)
        .map(|(descriptor, diff_id)| ImageLayer {
            descriptor: descriptor.clone(),
            diff_id,
            content: match is_absent(descriptor) {
                true => Blob::Absent { len: descriptor.size },
                false => Blob::Elsewhere {
                    origin: origin.clone(),
                    digest: descriptor.digest,
                    len: descriptor.size,
                },
            },
        });
    let layers = layers.collect();
    Ok(Image {
        manifest,
        config,
        layers,
    })
}

/// The config of an image, also of one whose manifest calls it something else, or what an artifact has in its place.
fn config(source: &Arc<dyn Source>, manifest: &Manifest) -> Result<ConfigDocument, TransportError> {
    let descriptor = &manifest.config;
    if manifest.is_image() {
        return read_config(&**source, descriptor).map(ConfigDocument::Image);
    }
    let bytes = read_blob(&**source, descriptor, CONFIG_SIZE_MAX, "the config")?;
    Ok(match Raw::<Config>::read_named(bytes.clone(), descriptor.digest) {
        Ok(config) => ConfigDocument::Image(config),
        Err(_) => ConfigDocument::Artifact(Raw::opaque(bytes, descriptor.digest)),
    })
}

/// The diffIDs of an image's layers. The blobs of an artifact, whose config is another document, have none.
fn diff_ids(manifest: &Manifest, config: &ConfigDocument, place: &str) -> Result<Vec<Option<DiffId>>, TransportError> {
    let layers = manifest.layers.len();
    let Some(config) = config.image() else {
        return Ok(vec![None; layers]);
    };
    if config.diff_ids.len() == layers {
        return Ok(config.diff_ids.iter().copied().map(Some).collect());
    }
    Err(TransportError::Malformed {
        place: place.to_owned(),
        what: "the config".to_owned(),
        reason: format!("it has {} diffIDs for {layers} layers", config.diff_ids.len()),
    })
}

/// A source as where blobs are read from.
pub fn origin(source: &Arc<dyn Source>) -> Arc<dyn Origin> {
    Arc::new(SourceOrigin(source.clone()))
}

/// A source as the origin of blobs.
struct SourceOrigin(Arc<dyn Source>);

impl std::fmt::Debug for SourceOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SourceOrigin({})", self.0.place())
    }
}

impl Origin for SourceOrigin {
    fn open(&self, digest: &ContentDigest, len: u64) -> io::Result<Box<dyn Read + Send>> {
        self.0.blob(digest, len).map_err(io::Error::other)
    }

    fn repository(&self) -> Option<(&str, &str)> {
        self.0.repository()
    }
}
