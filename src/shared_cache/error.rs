//! A *shared cache error* says which place could not be used, for what, and what to type next.

use crate::binary_cache::CacheError;
use crate::digest::Digest;
use crate::fetch::FetchError;
use crate::fsio::PathError;
use crate::layer::LayerError;
use crate::oci::DocumentError;
use crate::store::StoreError;
use crate::store_path::StorePath;
use crate::transport::TransportError;

/// Why a shared cache could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SharedCacheError {
    /// Reading or writing a file failed.
    #[error(transparent)]
    Io(#[from] PathError),
    /// The place failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The store could not do what was asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer could not be packed.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A layer could not be unpacked.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A binary cache failed.
    #[error(transparent)]
    Nix(#[from] CacheError),
    /// A binary cache keeps no images.
    #[error("`{place}` is a binary cache, which keeps no images")]
    NoImages {
        /// The place.
        place: String,
    },
    /// A text is no place of a shared cache.
    #[error("`{text}` is not a place for a shared cache: {reason}")]
    Place {
        /// What the user wrote.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An entry cannot be used.
    #[error("the entry `{tag}` of `{place}` is refused: {reason}")]
    Refused {
        /// The place.
        place: String,
        /// Its tag.
        tag: String,
        /// Why.
        reason: String,
    },
    /// A blob that an entry names is not there.
    #[error("`{place}` does not have the blob `{digest}`")]
    Missing {
        /// The place.
        place: String,
        /// The blob.
        digest: Digest,
    },
    /// A layer holds something else than the path that it is said to hold.
    #[error("the layer `{digest}` does not hold `{path}` alone")]
    OtherContent {
        /// The layer.
        digest: Digest,
        /// What it should hold.
        path: StorePath,
    },
    /// An image cannot be listed.
    #[error("cannot write the index of an image")]
    Index {
        /// Why.
        source: crate::image::IndexError,
    },
    /// An entry cannot be dated.
    #[error("cannot write the date of an entry")]
    Date {
        /// Why.
        source: DocumentError,
    },
    /// A closure is too large for a manifest.
    #[error("the entry of `{output}` is too large")]
    TooLarge {
        /// What was built.
        output: StorePath,
        /// By how much.
        source: DocumentError,
    },
}

impl SharedCacheError {
    /// What to type next.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Transport(error) => error.help(),
            Self::Store(error) => error.help(),
            Self::Layer(error) => error.help(),
            Self::Nix(error) => error.help(),
            Self::Place { .. } => Some(
                "write `docker://HOST/NAME`, `oci:DIR`, or for a binary cache `file:DIR` or `https://HOST/PATH`"
                    .to_owned(),
            ),
            Self::NoImages { .. } => Some("name a registry or a layout".to_owned()),
            Self::Io(_)
            | Self::Fetch(_)
            | Self::Refused { .. }
            | Self::Missing { .. }
            | Self::Index { .. }
            | Self::Date { .. }
            | Self::OtherContent { .. }
            | Self::TooLarge { .. } => None,
        }
    }
}
