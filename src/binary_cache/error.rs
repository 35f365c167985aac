//! Why paths could not be taken from a *binary cache* or written to one, and what to type next.

use crate::digest::VerifyError;
use crate::fetch::FetchError;
use crate::fsio::PathError;
use crate::nar::NarError;
use crate::store::StoreError;
use crate::store_path::StorePath;

use super::key::KeyError;
use super::narinfo::NarInfoError;

/// Why paths could not be taken from a binary cache or written to one. `cache` and `url` are addresses, `path` is a
/// store path.
#[expect(missing_docs, reason = "the fields are what the variant's message names")]
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A transfer failed.
    #[error(transparent)]
    Fetch(Box<FetchError>),
    /// The store could not do what was asked.
    #[error(transparent)]
    Store(Box<StoreError>),
    /// Reading or writing a file failed.
    #[error(transparent)]
    Io(#[from] PathError),
    /// A tree could not be archived.
    #[error(transparent)]
    Nar(Box<NarError>),
    /// A text is not a key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is no `nix-cache-info`.
    #[error("`{cache}` is not a binary cache: it has no `nix-cache-info`")]
    NotACache { cache: String },
    /// The cache's description makes no sense.
    #[error("the `nix-cache-info` of `{cache}` is malformed: {reason}")]
    CacheInfo { cache: String, reason: String },
    /// The cache holds paths of another store.
    #[error("`{cache}` has paths of {found}, not of {wanted}")]
    StoreDir {
        cache: String,
        found: String,
        wanted: String,
    },
    /// A narinfo makes no sense.
    #[error("`{url}` is malformed")]
    NarInfo {
        url: String,
        #[source]
        source: NarInfoError,
    },
    /// A narinfo is about another path than the one asked for.
    #[error("`{url}` is about `{found}`, not `{path}`")]
    WrongPath {
        url: String,
        path: StorePath,
        found: Box<StorePath>,
    },
    /// A narinfo is about other content than a path has.
    #[error("`{cache}` has other content for `{path}`")]
    OtherContent { cache: String, path: StorePath },
    /// Nobody who is trusted vouches for a path.
    #[error("`{path}` from `{cache}` is not trusted: {reason}")]
    Untrusted {
        path: StorePath,
        cache: String,
        reason: String,
    },
    /// No cache has a path.
    #[error("no cache has `{path}`{}", needed_by.as_ref().map_or_else(String::new, |by| format!(" (needed by `{by}`)")))]
    Missing {
        path: StorePath,
        needed_by: Option<Box<StorePath>>,
        /// What was asked.
        caches: Vec<String>,
    },
    /// An archive's place is not below its cache.
    #[error("`{url}` says that its archive is at `{place}`, which is outside the cache")]
    Place { url: String, place: String },
    /// A compressed archive is not the one announced.
    #[error("`{url}` does not match its narinfo")]
    File {
        url: String,
        #[source]
        source: Box<VerifyError>,
    },
    /// A compressed archive cannot be unpacked.
    #[error("cannot unpack `{url}`")]
    Unpack {
        url: String,
        #[source]
        source: std::io::Error,
    },
    /// An archive is not what it should be.
    #[error("cannot take `{path}` from `{url}`")]
    Archive {
        path: StorePath,
        url: String,
        #[source]
        source: Box<StoreError>,
    },
    /// Paths that refer to each other in a circle: no store can register them.
    #[error("`{cache}` says that `{path}` depends on itself through other paths")]
    Circle { path: StorePath, cache: String },
    /// More paths than anything may have.
    #[error("the closure has more than {limit} paths")]
    TooManyPaths { limit: usize },
    /// A path on disk is not what the store says.
    #[error("`{path}` changed since it was registered: it is not exported")]
    Changed { path: StorePath },
    /// The cache to be written is not in a directory of this machine.
    #[error("`{cache}` cannot be written to: only `file:DIR` can")]
    NotWritable { cache: String },
}

impl CacheError {
    /// What the user can do about it: what to type next.
    pub fn help(&self) -> Option<String> {
        let help = match self {
            Self::Fetch(error) => return error.help(),
            Self::Store(error) => return error.help(),
            Self::Key(error) => return error.help(),
            Self::Archive { source, .. } if !matches!(**source, StoreError::Tree(_)) => return source.help(),
            Self::Unpack { .. } | Self::File { .. } | Self::Archive { .. } => {
                "the file is damaged; nothing of it was registered: try again, or another cache with `--from`"
            }
            Self::NotACache { .. } => {
                "name the directory or address above the `.narinfo` files, as `file:/DIR` or `https://…`"
            }
            Self::StoreDir { .. } => "name paths of the store that the cache is of",
            Self::Untrusted { .. } => {
                "trust a key of whoever made the cache with `--trusted-key NAME:BASE64` (or `[nix] trusted-keys` in \
                 the configuration), or take everything as it is with `--no-check-sigs`"
            }
            Self::Missing { caches, .. } => {
                return Some(format!(
                    "asked: {}; name another with `--from CACHE`",
                    caches.join(", ")
                ));
            }
            Self::Changed { path } => {
                return Some(format!(
                    "`layerize store verify {path}` shows what changed, `--repair` makes it again"
                ));
            }
            Self::NotWritable { .. } => "write to a directory, `file:DIR`, and serve that by any web server",
            Self::CacheInfo { .. }
            | Self::NarInfo { .. }
            | Self::WrongPath { .. }
            | Self::OtherContent { .. }
            | Self::Place { .. }
            | Self::Circle { .. } => {
                "the cache is damaged or hostile; nothing of it was registered: name another with `--from`"
            }
            Self::Io(_) | Self::Nar(_) | Self::TooManyPaths { .. } => return None,
        };
        Some(help.to_owned())
    }
}

impl From<FetchError> for CacheError {
    fn from(error: FetchError) -> Self {
        Self::Fetch(Box::new(error))
    }
}

impl From<StoreError> for CacheError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

impl From<NarError> for CacheError {
    fn from(error: NarError) -> Self {
        Self::Nar(Box::new(error))
    }
}
