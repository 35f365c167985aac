//! An *index* is a list of images, one for each platform, as one immutable value with its raw bytes.
//!
//! Invariant: the document lists exactly `entries`, of which some may be indexes again (image-index.md, "manifests"). One
//! that layerize makes is canonical JSON (OCI image-spec, image-index.md): the images sorted by platform, each platform
//! once, read from the images' configs, and no index among them: Docker finds no image in it, and podman stops. After them come
//! the attestations that Docker's builds list beside their images, each of an image that is there.

use std::collections::BTreeMap;

use super::Image;
use crate::digest::{ContentDigest, Digest};
use crate::oci::{self, ATTESTED, Annotations, Descriptor, DocumentError, Platform, Raw};

/// Several images, ready for a sink.
#[derive(Debug, Clone)]
pub struct ImageIndex {
    /// The index.
    pub document: Raw<oci::Index>,
    /// What it lists, in its order.
    pub entries: Vec<Listed>,
}

/// What an index lists.
#[derive(Debug, Clone)]
pub enum Listed {
    /// An image.
    Image(Image),
    /// An index of further ones.
    Index(ImageIndex),
}

impl Listed {
    /// Digest by which the index lists it.
    pub fn digest(&self) -> ContentDigest {
        match self {
            Self::Image(image) => image.manifest.digest(),
            Self::Index(index) => index.document.digest(),
        }
    }
}

/// Why images do not make up an index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// An index of nothing.
    #[error("an index needs an image")]
    Empty,
    /// A config does not say what the image is for.
    #[error("the config of image {digest} names no platform")]
    NoPlatform {
        /// The image.
        digest: Digest,
    },
    /// More images than an index can list.
    #[error("cannot write the index")]
    Document(#[from] DocumentError),
    /// Two images for one platform.
    #[error("the images {first} and {second} are both for `{platform}`")]
    Twice {
        /// The platform.
        platform: String,
        /// The one.
        first: Digest,
        /// The other.
        second: Digest,
    },
}

impl IndexError {
    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Twice { .. } => Some("leave one of them out; `layerize index add` replaces".to_owned()),
            Self::Empty => None,
            Self::NoPlatform { .. } => {
                Some("only images with `os` and `architecture` in their config can be in an index".to_owned())
            }
            Self::Document(_) => Some("make two indexes of them".to_owned()),
        }
    }
}

/// An image on its way into an index.
#[derive(Debug, Clone)]
pub struct IndexPart {
    /// The image.
    pub image: Image,
    /// How the index lists it that it comes from.
    pub entry: Option<Descriptor>,
}

impl IndexPart {
    /// The image of which it is an attestation, as Docker's builds list them; `None` of what is to be run.
    pub fn attests(&self) -> Option<&str> {
        self.entry
            .as_ref()
            .filter(|entry| entry.is_attestation())?
            .annotation(ATTESTED)
    }

    /// What it is for: what its config says, with the version of an operating system that only its entry tells.
    pub fn platform(&self) -> Result<Platform, IndexError> {
        let own = platform_of(&self.image)?;
        let listed = self.entry.as_ref().and_then(|entry| entry.platform.as_ref());
        let listed = listed.filter(|listed| own.os_version().is_none() && own.rank(listed) == Some(0));
        Ok(listed.cloned().unwrap_or(own))
    }
}

impl ImageIndex {
    /// The index of images, in any order, with annotations of its own. The same image given twice stands there once.
    pub fn new(images: Vec<Image>, annotations: Annotations) -> Result<Self, IndexError> {
        let parts = images.into_iter().map(|image| IndexPart { image, entry: None });
        Self::of_parts(parts.collect(), annotations)
    }

    /// As [`new`](Self::new), of images as other indexes list them, with those of their attestations whose images are among
    /// them.
    pub fn of_parts(parts: Vec<IndexPart>, annotations: Annotations) -> Result<Self, IndexError> {
        let mut by_platform: BTreeMap<Platform, Image> = BTreeMap::new();
        let (attestations, parts): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| part.attests().is_some());
        for part in parts {
            let platform = part.platform()?;
            let image = part.image;
            match by_platform.get(&platform) {
                Some(first) if first.digest() != image.digest() => {
                    return Err(IndexError::Twice {
                        platform: platform.to_string(),
                        first: first.digest(),
                        second: image.digest(),
                    });
                }
                _ => by_platform.insert(platform, image),
            };
        }
        if by_platform.is_empty() {
            return Err(IndexError::Empty);
        }
        let mut beside: BTreeMap<(usize, Digest), IndexPart> = BTreeMap::new();
        for part in attestations {
            let attested = part.attests().unwrap_or_default();
            let of = by_platform
                .values()
                .position(|image| image.digest().to_string() == attested);
            beside.extend(of.map(|of| ((of, part.image.digest()), part.clone())));
        }
        let images = by_platform.iter().map(|(platform, image)| entry(platform, image));
        let entries = images.chain(beside.values().filter_map(|part| part.entry.clone()));
        let document = Raw::write(oci::Index::new(entries.collect(), annotations))?;
        let images = by_platform.into_values();
        Ok(Self {
            document,
            entries: images
                .chain(beside.into_values().map(|part| part.image))
                .map(Listed::Image)
                .collect(),
        })
    }

    /// The images that it lists, each as it is listed, and in place of an index in it those of that one.
    pub fn parts(&self) -> Vec<IndexPart> {
        let listed = self.entries.iter().zip(&self.document.manifests);
        let parts = listed.flat_map(|(entry, descriptor)| match entry {
            Listed::Image(image) => vec![IndexPart {
                image: image.clone(),
                entry: Some(descriptor.clone()),
            }],
            Listed::Index(index) => index.parts(),
        });
        parts.collect()
    }

    /// The images that it lists, and in place of an index in it those of that one.
    pub fn images(&self) -> Vec<&Image> {
        let images = self.entries.iter().flat_map(|entry| match entry {
            Listed::Image(image) => vec![image],
            Listed::Index(index) => index.images(),
        });
        images.collect()
    }

    /// This index and those in it, each after all that it lists.
    pub fn indexes(&self) -> Vec<&Self> {
        let nested = self.entries.iter().filter_map(|entry| match entry {
            Listed::Image(_) => None,
            Listed::Index(index) => Some(index.indexes()),
        });
        nested.flatten().chain([self]).collect()
    }

    /// SHA-256 of the index: by what it is known.
    pub fn digest(&self) -> Digest {
        Digest::of(self.document.bytes())
    }
}

/// The platform that an image's config names.
pub fn platform_of(image: &Image) -> Result<Platform, IndexError> {
    let platform = image.config.image().and_then(|config| config.platform());
    platform.ok_or_else(|| IndexError::NoPlatform { digest: image.digest() })
}

fn entry(platform: &Platform, image: &Image) -> Descriptor {
    let manifest = &image.manifest;
    Descriptor {
        platform: Some(platform.clone()),
        ..Descriptor::new(manifest.media_type(), image.digest(), manifest.size())
    }
}
