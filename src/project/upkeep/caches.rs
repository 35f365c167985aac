//! The *caches* beside the store: what is in them, and an end to single things of it.
//!
//! Invariant: what is removed is what was listed and what nobody used since; what is in use, of which each cache has a way to
//! know, stays.

use std::collections::BTreeMap;

use crate::build;
use crate::container::Roots;
use crate::fetch::{self, FetchConfig};
use crate::fsio::{Disposable, disposable_files, last_use, remove_tree};
use crate::layer::LayerCache;
use crate::project::error::ProjectError;
use crate::store::Store;

/// A cache whose things may go one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheKind {
    /// Files from outside.
    Downloads,
    /// Repositories that files from outside are taken from.
    Repositories,
    /// What scripts left for their next run.
    BuildCaches,
    /// Compiled crates, and modules of Go.
    Units,
    /// Packed layers.
    Layers,
    /// How images were cut into layers.
    Images,
    /// What local sources hash to.
    Sources,
    /// Roots of images that were run.
    ImageRoots,
}

impl CacheKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Downloads,
        Self::Repositories,
        Self::BuildCaches,
        Self::Units,
        Self::Layers,
        Self::Images,
        Self::Sources,
        Self::ImageRoots,
    ];

    /// What its things are called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Downloads => "downloads",
            Self::Repositories => "git repositories",
            Self::BuildCaches => "build caches",
            Self::Units => "compiled crates and modules",
            Self::Layers => "packed layers",
            Self::Images => "records of images",
            Self::Sources => "records of sources",
            Self::ImageRoots => "roots of images that were run",
        }
    }

    /// Whether it lies in the store's directory; what does not is shared by all stores of the user.
    pub(super) fn is_of_store(self) -> bool {
        !matches!(self, Self::Downloads | Self::Repositories)
    }

    /// What is in it; nothing where there is none.
    pub(super) fn list(
        self,
        store: &Store,
        fetch: &FetchConfig,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<Disposable>, ProjectError> {
        let dir = store.dir().join("cache");
        Ok(match self {
            Self::Downloads => fetch::stored_downloads(fetch)?,
            Self::Repositories => fetch::stored_repositories(fetch, go_on)?,
            Self::BuildCaches => build::stored_build_caches(store, go_on)?,
            Self::Units => build::stored_units(store)?,
            Self::Layers => disposable_files(&dir.join("layers/pieces"), go_on)
                .into_iter()
                .chain(disposable_files(&dir.join("layers/layers"), go_on))
                .collect(),
            Self::Images => disposable_files(&dir.join("images"), go_on),
            Self::Sources => disposable_files(&dir.join("sources"), go_on),
            Self::ImageRoots => Roots::stored(&dir.join("roots"), go_on)?,
        })
    }

    /// Removes things of it, as long as `go_on` says so; gives those that are gone.
    pub(super) fn remove(
        self,
        things: Vec<Disposable>,
        store: &Store,
        fetch: &FetchConfig,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Vec<Disposable>, ProjectError> {
        if self == Self::Layers {
            let mut cache = LayerCache::open(&store.dir().join("cache/layers"))?;
            return Ok(match cache.remove(&things)? {
                true => things,
                false => Vec::new(),
            });
        }
        let mut gone = Vec::new();
        for thing in things {
            if !go_on() {
                break;
            }
            let is_gone = match self {
                Self::Downloads => fetch::remove_download(fetch, &thing)?,
                Self::Repositories => fetch::remove_repository(&thing)?,
                Self::BuildCaches => build::remove_build_cache(&thing)?,
                Self::Units => build::remove_unit(&thing)?,
                Self::ImageRoots => Roots::remove(&thing)?,
                Self::Layers | Self::Images | Self::Sources => {
                    let is_unused = last_use(&thing.path) == Some(thing.used);
                    if is_unused {
                        remove_tree(&thing.path)?;
                    }
                    is_unused
                }
            };
            gone.extend(is_gone.then_some(thing));
        }
        Ok(gone)
    }
}

/// Numbers and bytes of things by their caches.
pub type Counted = BTreeMap<CacheKind, (u64, u64)>;

/// Adds one of these bytes.
pub(super) fn count(counted: &mut Counted, kind: CacheKind, bytes: u64) {
    let (number, sum) = counted.entry(kind).or_default();
    *number += 1;
    *sum += bytes;
}
