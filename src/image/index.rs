//! An *index* is a list of images, one for each platform, as one immutable value with its raw bytes.
//!
//! Invariant: `digest` is that of exactly `bytes`, which list exactly `images`. One that layerize makes is canonical JSON
//! (OCI image-spec, image-index.md): the images sorted by platform, each platform once, read from the images' configs.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Image;
use crate::digest::Digest;
use crate::oci::{MediaType, Platform, PlatformError, canonical_json};

/// Several images, ready for a sink.
#[derive(Debug, Clone)]
pub struct Index {
    /// The index's bytes.
    pub bytes: Vec<u8>,
    /// Digest of `bytes`.
    pub digest: Digest,
    /// Media type of the index: OCI's, or Docker's of one that was read.
    pub media_type: String,
    /// What it lists, in its order.
    pub images: Vec<Image>,
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
    /// A config says something that is no platform.
    #[error("the config of image {digest} names no platform")]
    Platform {
        /// The image.
        digest: Digest,
        /// What is wrong.
        source: PlatformError,
    },
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
            Self::NoPlatform { .. } | Self::Platform { .. } => {
                Some("only images with `os` and `architecture` in their config can stand in an index".to_owned())
            }
        }
    }
}

impl Index {
    /// The index of images, in any order, with annotations of its own. The same image given twice stands there once.
    pub fn new(images: Vec<Image>, annotations: &BTreeMap<String, String>) -> Result<Self, IndexError> {
        let mut by_platform: BTreeMap<Platform, Image> = BTreeMap::new();
        for image in images {
            let platform = platform_of(&image)?;
            match by_platform.get(&platform) {
                Some(first) if first.digest != image.digest => {
                    return Err(IndexError::Twice {
                        platform: platform.to_string(),
                        first: first.digest,
                        second: image.digest,
                    });
                }
                _ => by_platform.insert(platform, image),
            };
        }
        if by_platform.is_empty() {
            return Err(IndexError::Empty);
        }
        let manifests: Vec<Value> = by_platform
            .iter()
            .map(|(platform, image)| entry(platform, image))
            .collect();
        let mut index = json!({ "schemaVersion": 2, "mediaType": MediaType::INDEX, "manifests": manifests });
        if !annotations.is_empty() {
            index["annotations"] = json!(annotations);
        }
        let bytes = canonical_json(&index);
        Ok(Self {
            digest: Digest::of(&bytes),
            bytes,
            media_type: MediaType::INDEX.to_owned(),
            images: by_platform.into_values().collect(),
        })
    }

    /// The annotations of an index, of its own making or read.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        #[derive(Deserialize)]
        struct Annotated {
            annotations: Option<BTreeMap<String, String>>,
        }
        let read = serde_json::from_slice::<Annotated>(&self.bytes).ok();
        read.and_then(|index| index.annotations).unwrap_or_default()
    }
}

/// The platform that an image's config names.
pub fn platform_of(image: &Image) -> Result<Platform, IndexError> {
    #[derive(Deserialize)]
    struct Config {
        os: Option<String>,
        architecture: Option<String>,
        variant: Option<String>,
    }
    let digest = image.digest;
    let config = serde_json::from_slice::<Config>(&image.config).ok();
    let Some((os, architecture, variant)) =
        config.and_then(|config| Some((config.os?, config.architecture?, config.variant)))
    else {
        return Err(IndexError::NoPlatform { digest });
    };
    let variant = variant.as_deref().filter(|variant| !variant.is_empty());
    Platform::new(&os, &architecture, variant).map_err(|source| IndexError::Platform { digest, source })
}

fn entry(platform: &Platform, image: &Image) -> Value {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    let typed = serde_json::from_slice::<Typed>(&image.manifest).ok();
    let media_type = typed.and_then(|manifest| manifest.media_type);
    let mut entry = json!({
        "mediaType": media_type.as_deref().unwrap_or(MediaType::MANIFEST),
        "digest": image.digest,
        "size": image.manifest.len(),
        "platform": { "architecture": platform.architecture(), "os": platform.os() },
    });
    if let Some(variant) = platform.variant() {
        entry["platform"]["variant"] = json!(variant);
    }
    entry
}
