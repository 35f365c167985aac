//! *Content* is what a name stands for in a place: an image, or an index of images.
//!
//! Invariant: the bytes of index, manifests and configs are those that the place holds, each verified against its
//! descriptor; layers stay where they are and are read when somebody wants their bytes.

use std::io::{self, Read};
use std::sync::Arc;

use super::{Source, TransportError, read_blob, read_config};
use crate::digest::{ContentDigest, DiffId, Digest};
use crate::image::{Image, Index, Layer};
use crate::layer::{Blob, Origin};
use crate::oci::{self, CONFIG_SIZE_MAX, Config, ConfigDocument, Document, Manifest, Raw};

/// Most images that an index may list; real ones have some thirty.
const IMAGES_MAX: usize = 1000;

/// What a name stands for.
#[derive(Debug, Clone)]
pub enum Content {
    /// One image.
    Image(Image),
    /// Several.
    Index(Index),
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
    pub fn images(&self) -> &[Image] {
        match self {
            Self::Image(image) => std::slice::from_ref(image),
            Self::Index(index) => &index.images,
        }
    }

    /// Every blob and document of it with its size, each once.
    pub fn blobs(&self) -> Vec<(ContentDigest, u64)> {
        let mut blobs = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for image in self.images() {
            let documents = [
                (image.config.digest(), image.config.size()),
                (image.manifest.digest(), image.manifest.size()),
            ];
            let layers = image.layers.iter().map(|layer| (layer.digest(), layer.size()));
            blobs.extend(layers.chain(documents).filter(|(digest, _)| seen.insert(*digest)));
        }
        if let Self::Index(index) = self {
            blobs.push((index.document.digest(), index.document.size()));
        }
        blobs
    }
}

/// Opens what a source gives: with [`ReadOptions::whole`](super::ReadOptions::whole) that may be an index.
pub fn open(source: &Arc<dyn Source>) -> Result<Content, TransportError> {
    match source.document()? {
        Document::Index(index) => open_index(source, index).map(Content::Index),
        Document::Manifest(manifest) => open_image(source, manifest).map(Content::Image),
    }
}

fn open_index(source: &Arc<dyn Source>, document: Raw<oci::Index>) -> Result<Index, TransportError> {
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
    if document.manifests.len() > IMAGES_MAX {
        return Err(malformed(format!("it lists more than {IMAGES_MAX} images")));
    }
    let mut images = Vec::new();
    for descriptor in &document.manifests {
        match source.listed(descriptor)? {
            Document::Manifest(manifest) => images.push(open_image(source, manifest)?),
            Document::Index(_) => return Err(malformed(format!("`{}` in it is an index again", descriptor.digest))),
        }
    }
    Ok(Index { document, images })
}

fn open_image(source: &Arc<dyn Source>, manifest: Raw<Manifest>) -> Result<Image, TransportError> {
    let config = config(source, &manifest)?;
    let diff_ids = diff_ids(&manifest, &config, source.place())?;
    let origin = origin(source);
    let layers = manifest.layers.iter().zip(diff_ids).map(|(descriptor, diff_id)| Layer {
        descriptor: descriptor.clone(),
        diff_id,
        content: Blob::Elsewhere {
            origin: origin.clone(),
            digest: descriptor.digest,
            len: descriptor.size,
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
