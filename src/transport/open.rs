//! *Content* is what a name stands for in a place: an image, or an index of images.
//!
//! Invariant: the bytes of index, manifests and configs are those that the place holds, each verified against its
//! descriptor; layers stay where they are and are read when somebody wants their bytes.

use std::io::{self, Read};
use std::sync::Arc;

use serde_json::Value;

use super::document::{self, Descriptor, Manifest};
use super::{Source, TransportError, read_blob};
use crate::digest::{DiffId, Digest};
use crate::image::{Image, Index, STORE_PATHS_ANNOTATION};
use crate::layer::{Blob, Layer, Origin};
use crate::oci::{Compression, DocumentKind, LayerCodec, MediaType};

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
            Self::Image(image) => image.digest,
            Self::Index(index) => index.digest,
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
    pub fn blobs(&self) -> Vec<(Digest, u64)> {
        let mut blobs = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for image in self.images() {
            let documents = [
                (image.config_digest, image.config.len() as u64),
                (image.digest, image.manifest.len() as u64),
            ];
            let layers = image.layers.iter().map(|layer| (layer.digest, layer.size));
            blobs.extend(layers.chain(documents).filter(|(digest, _)| seen.insert(*digest)));
        }
        if let Self::Index(index) = self {
            blobs.push((index.digest, index.bytes.len() as u64));
        }
        blobs
    }
}

/// Opens what a source gives: with [`ReadOptions::whole`](super::ReadOptions::whole) that may be an index.
pub fn open(source: &Arc<dyn Source>) -> Result<Content, TransportError> {
    let (bytes, media_type) = source.manifest()?;
    if document::is_index(&media_type) {
        return open_index(source, bytes, media_type).map(Content::Index);
    }
    open_image(source, bytes).map(Content::Image)
}

fn open_index(source: &Arc<dyn Source>, bytes: Vec<u8>, media_type: String) -> Result<Index, TransportError> {
    let malformed = |reason: String| TransportError::Malformed {
        place: source.place().to_owned(),
        what: "the index".to_owned(),
        reason,
    };
    let list: document::Index = document::parse(&bytes, source.place(), "the index")?;
    if list.manifests.len() > IMAGES_MAX {
        return Err(malformed(format!("it lists more than {IMAGES_MAX} images")));
    }
    let mut images = Vec::new();
    for descriptor in &list.manifests {
        if document::is_index(&descriptor.media_type) {
            return Err(malformed(format!("`{}` in it is an index again", descriptor.digest)));
        }
        images.push(open_image(source, source.listed(descriptor)?)?);
    }
    Ok(Index {
        digest: Digest::of(&bytes),
        bytes,
        media_type,
        images,
    })
}

fn open_image(source: &Arc<dyn Source>, bytes: Vec<u8>) -> Result<Image, TransportError> {
    let place = source.place();
    let manifest: Manifest = document::parse(&bytes, place, "the manifest")?;
    let config = read_blob(&**source, &manifest.config, document::CONFIG_MAX, "the config")?;
    let diff_ids = diff_ids(&manifest, &config, place)?;
    let origin: Arc<dyn Origin> = Arc::new(SourceOrigin(source.clone()));
    let layers = manifest.layers.iter().zip(diff_ids);
    Ok(Image {
        digest: Digest::of(&bytes),
        manifest: bytes,
        config,
        config_digest: manifest.config.digest,
        layers: layers
            .map(|(layer, diff_id)| open_layer(layer, diff_id, &origin))
            .collect(),
    })
}

/// The diffIDs of an image. An artifact, whose config is another document, has none: its blobs stand for themselves.
fn diff_ids(manifest: &Manifest, config: &[u8], place: &str) -> Result<Vec<DiffId>, TransportError> {
    let is_image = matches!(
        MediaType::parse(&manifest.config.media_type),
        MediaType::Document(DocumentKind::Config)
    );
    let config: Value = document::parse(config, place, "the config").or_else(|error| match is_image {
        true => Err(error),
        false => Ok(Value::Null),
    })?;
    if !is_image && config.get("rootfs").is_none() {
        let layers = manifest.layers.iter();
        return Ok(layers
            .map(|layer| DiffId::from_bytes(*layer.digest.as_bytes()))
            .collect());
    }
    let links: document::ConfigLinks = serde_json::from_value(config).map_err(|source| TransportError::Json {
        place: place.to_owned(),
        what: "the config".to_owned(),
        source,
    })?;
    let diff_ids = links.rootfs.diff_ids.unwrap_or_default();
    if diff_ids.len() == manifest.layers.len() {
        return Ok(diff_ids);
    }
    Err(TransportError::Malformed {
        place: place.to_owned(),
        what: "the config".to_owned(),
        reason: format!("it has {} diffIDs for {} layers", diff_ids.len(), manifest.layers.len()),
    })
}

fn open_layer(layer: &Descriptor, diff_id: DiffId, origin: &Arc<dyn Origin>) -> Layer {
    let paths = layer.annotation(STORE_PATHS_ANNOTATION).unwrap_or_default();
    Layer {
        diff_id,
        digest: layer.digest,
        size: layer.size,
        tar_size: 0,
        compression: match MediaType::parse(&layer.media_type) {
            MediaType::Layer(LayerCodec::Gzip) => Compression::default(),
            MediaType::Layer(LayerCodec::Zstd) => Compression::Zstd(crate::oci::DEFAULT_ZSTD_LEVEL),
            _ => Compression::None,
        },
        store_paths: paths.split_whitespace().map(str::to_owned).collect(),
        comment: String::new(),
        blob: Blob::Elsewhere {
            origin: origin.clone(),
            digest: layer.digest,
            len: layer.size,
        },
    }
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
    fn open(&self, digest: &Digest, len: u64) -> io::Result<Box<dyn Read + Send>> {
        self.0.blob(digest, len).map_err(io::Error::other)
    }

    fn repository(&self) -> Option<(&str, &str)> {
        self.0.repository()
    }
}
