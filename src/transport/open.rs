//! *Content* is what a name stands for in a place: an image, or an index of images.
//!
//! Invariant: the bytes of index, manifests and configs are those that the place holds, each verified against its
//! descriptor; layers stay where they are and are read when somebody wants their bytes.

use std::io::{self, Read};
use std::sync::Arc;

use super::{Source, TransportError, read_blob, read_config};
use crate::digest::{ContentDigest, DiffId, Digest};
use crate::image::{Image, Index, STORE_PATHS_ANNOTATION};
use crate::layer::{Blob, Layer, Origin};
use crate::oci::{
    self, CONFIG_SIZE_MAX, Compression, Config, Descriptor, Document, LayerCodec, Manifest, MediaType, Raw,
};

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
    match source.document()? {
        Document::Index(index) => open_index(source, &index).map(Content::Index),
        Document::Manifest(manifest) => open_image(source, &manifest).map(Content::Image),
    }
}

fn open_index(source: &Arc<dyn Source>, index: &Raw<oci::Index>) -> Result<Index, TransportError> {
    let malformed = |reason: String| TransportError::Malformed {
        place: source.place().to_owned(),
        what: "the index".to_owned(),
        reason,
    };
    if let Some(entry) = index.unknown.first() {
        return Err(malformed(format!(
            "`{}` in it cannot be checked",
            entry.digest.escape_debug()
        )));
    }
    if index.manifests.len() > IMAGES_MAX {
        return Err(malformed(format!("it lists more than {IMAGES_MAX} images")));
    }
    let mut images = Vec::new();
    for descriptor in &index.manifests {
        match source.listed(descriptor)? {
            Document::Manifest(manifest) => images.push(open_image(source, &manifest)?),
            Document::Index(_) => return Err(malformed(format!("`{}` in it is an index again", descriptor.digest))),
        }
    }
    Ok(Index {
        digest: sha256(index.digest(), source.place())?,
        bytes: index.bytes().to_vec(),
        media_type: index.media_type().to_owned(),
        images,
    })
}

fn open_image(source: &Arc<dyn Source>, manifest: &Raw<Manifest>) -> Result<Image, TransportError> {
    let place = source.place();
    let (config, diff_ids) = config(source, manifest)?;
    let origin: Arc<dyn Origin> = Arc::new(SourceOrigin(source.clone()));
    let layers = manifest.layers.iter().zip(diff_ids);
    Ok(Image {
        digest: sha256(manifest.digest(), place)?,
        manifest: manifest.bytes().to_vec(),
        config,
        config_digest: sha256(manifest.config.digest, place)?,
        layers: layers
            .map(|(layer, diff_id)| open_layer(layer, diff_id, &origin, place))
            .collect::<Result<_, _>>()?,
    })
}

/// The SHA-256 of what is copied or told of: documents that layerize writes name nothing by another digest.
pub fn sha256(digest: ContentDigest, place: &str) -> Result<Digest, TransportError> {
    digest.sha256().ok_or_else(|| TransportError::Unsupported {
        action: "take a SHA-512 digest from",
        place: place.to_owned(),
        instead: "`inspect`, `verify`, `diff` and `explain` read it; copy it with `skopeo copy`".to_owned(),
    })
}

/// The config's bytes and the diffIDs of an image. An artifact, whose config is another document, has no diffIDs: its
/// blobs stand for themselves.
fn config(source: &Arc<dyn Source>, manifest: &Raw<Manifest>) -> Result<(Vec<u8>, Vec<DiffId>), TransportError> {
    let place = source.place();
    let descriptor = &manifest.config;
    let read = if manifest.is_image() {
        read_config(&**source, descriptor)?
    } else {
        let bytes = read_blob(&**source, descriptor, CONFIG_SIZE_MAX, "the config")?;
        match Raw::<Config>::read(bytes.clone()) {
            Ok(config) => config,
            Err(_) => {
                let layers = manifest.layers.iter().map(|layer| sha256(layer.digest, place));
                let diff_ids = layers.map(|digest| Ok(DiffId::from_bytes(*digest?.as_bytes())));
                return Ok((bytes, diff_ids.collect::<Result<_, TransportError>>()?));
            }
        }
    };
    if read.diff_ids.len() != manifest.layers.len() {
        return Err(TransportError::Malformed {
            place: place.to_owned(),
            what: "the config".to_owned(),
            reason: format!(
                "it has {} diffIDs for {} layers",
                read.diff_ids.len(),
                manifest.layers.len()
            ),
        });
    }
    Ok((read.bytes().to_vec(), read.diff_ids.clone()))
}

fn open_layer(
    layer: &Descriptor,
    diff_id: DiffId,
    origin: &Arc<dyn Origin>,
    place: &str,
) -> Result<Layer, TransportError> {
    let paths = layer.annotation(STORE_PATHS_ANNOTATION).unwrap_or_default();
    let digest = sha256(layer.digest, place)?;
    Ok(Layer {
        diff_id,
        digest,
        size: layer.size,
        tar_size: 0,
        compression: match layer.kind() {
            MediaType::Layer(LayerCodec::Gzip) => Compression::default(),
            MediaType::Layer(LayerCodec::Zstd) => Compression::Zstd(oci::DEFAULT_ZSTD_LEVEL),
            _ => Compression::None,
        },
        store_paths: paths.split_whitespace().map(str::to_owned).collect(),
        comment: String::new(),
        blob: Blob::Elsewhere {
            origin: origin.clone(),
            digest,
            len: layer.size,
        },
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
    fn open(&self, digest: &Digest, len: u64) -> io::Result<Box<dyn Read + Send>> {
        self.0.blob(&(*digest).into(), len).map_err(io::Error::other)
    }

    fn repository(&self) -> Option<(&str, &str)> {
        self.0.repository()
    }
}
