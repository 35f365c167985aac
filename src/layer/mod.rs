//! A *layer* is a deterministic tar of store paths or other entries, compressed, with both its digests.
//!
//! Invariant: its bytes depend on its entries and the numbered format alone: never on the clock, the machine,
//! the umask, the number of threads or the order in which anything was listed.

mod blob;
mod cache;
mod codec;
mod each;
mod pack;
pub mod partition;
mod profile;
mod size;
pub mod tar;
#[cfg(test)]
pub(crate) mod testing;
mod tree;

use std::path::PathBuf;

pub use blob::{Blob, BlobReader, CachedLayer, Keep, Origin};
pub use cache::{LayerCache, Trimmed};
pub use codec::CodecError;
pub use each::for_each_layer;
pub use pack::{Attribute, LayerContent, LayerInput, PackOptions, StoreEntry, pack};
pub use size::human_size;
pub use tar::TarError;
pub use tree::{FileContent, PARENT_MODE, Tree, TreeEntry, TreePath, compare_paths};

use crate::digest::{ContentDigest, DiffId, Digest};
use crate::nar::NarError;
use crate::oci::Compression;
use crate::store_path::{LogicalPath, StoreDir};

/// Number of the rules that a layer's bytes follow: tar dialect, order, compressors with their versions.
pub const FORMAT: u32 = 1;

/// Why a layer could not be packed or read.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Reading or writing a file failed.
    #[error(transparent)]
    Io(#[from] crate::fsio::PathError),
    /// An entry cannot stand in a layer.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A compressor failed.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A store path's content is not what was recorded.
    #[error(
        "`{path}` changed since it was registered: its archive is {actual} ({actual_size} bytes), not {expected} ({expected_size} bytes)"
    )]
    Changed {
        /// The store path.
        path: Box<LogicalPath>,
        /// Recorded NAR hash.
        expected: Digest,
        /// NAR hash of what was read.
        actual: Digest,
        /// Recorded NAR size in bytes.
        expected_size: u64,
        /// NAR size of what was read.
        actual_size: u64,
    },
    /// A file has another size than was given.
    #[error("`{}` has {actual} bytes, not {expected}: it changed while the image was being built", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Size given in bytes.
        expected: u64,
        /// Size on disk in bytes.
        actual: u64,
    },
    /// A file ended early.
    #[error("`{}` shrank while it was being packed", path.display())]
    Shrunk {
        /// The file.
        path: PathBuf,
    },
    /// A file of a kind that layers do not hold.
    #[error("`{}` is a {kind}: a layer can only contain files, directories and symbolic links", path.display())]
    Special {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A store path is not a tree that can be archived.
    #[error(transparent)]
    Tree(NarError),
    /// A store path was given twice.
    #[error("`{path}` appears in more than one layer")]
    Twice {
        /// The store path.
        path: LogicalPath,
    },
    /// A layer's stored bytes are not those that were packed.
    #[error("the stored bytes of layer `{digest}` are damaged")]
    Damaged {
        /// The layer.
        digest: ContentDigest,
        /// What was found.
        source: std::io::Error,
    },
    /// A layer's stored bytes cannot be read.
    #[error("cannot read the stored bytes of layer `{digest}`")]
    Blob {
        /// The layer.
        digest: ContentDigest,
        /// Why.
        source: std::io::Error,
    },
}

impl LayerError {
    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Changed { path, .. } if path.in_store(StoreDir::NIX).is_some() => Some(format!(
                "`nix-store --repair-path {path}` restores it from a binary cache, or delete it and build it again"
            )),
            Self::Changed { path, .. } => Some(format!(
                "`layerize store verify {path}` shows what changed, `--repair` makes it again"
            )),
            Self::Tar(TarError::Whiteout { .. }) => Some("rename the file, or leave it out of the package".to_owned()),
            Self::Special { .. } => Some("remove it at the end of the build script".to_owned()),
            Self::Damaged { .. } => Some("run the command again: the damaged entry is packed again".to_owned()),
            _ => None,
        }
    }
}

impl From<NarError> for LayerError {
    fn from(error: NarError) -> Self {
        match error {
            NarError::Io(error) => Self::Io(error),
            NarError::Unsupported { path, kind } => Self::Special { path, kind },
            error => Self::Tree(error),
        }
    }
}

/// A packed layer.
#[derive(Debug, Clone)]
pub struct PackedLayer {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Digest of the blob as stored.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Size of the uncompressed tar in bytes.
    pub tar_size: u64,
    /// How it is compressed.
    pub compression: Compression,
    /// Store paths in it, in its order; empty for a layer of other entries.
    pub store_paths: Vec<LogicalPath>,
    /// One line that says what it holds, for the image's history.
    pub comment: String,
    /// Where its bytes are.
    pub blob: Blob,
}
