//! A *build place* is where a script without a sandbox makes its output: in the store itself, at the path that is its
//! `$out`.
//!
//! Invariant: a valid path is never touched, whoever registers it meanwhile; nobody else builds there as long as the
//! place is held, and neither a collector nor another run takes what lies there for debris.

use std::path::Path;

use super::Store;
use super::add::move_away;
use super::error::StoreError;
use crate::digest::Digest;
use crate::fsio::{FileLock, LockKind};
use crate::store_path::StorePath;

/// A path of the store that is held for a build; given back, with what lies there, when dropped.
pub struct BuildPlace<'a> {
    store: &'a Store,
    path: StorePath,
    _lock: FileLock,
}

impl Store {
    /// Waits until nobody else builds at `path`, and removes what lies there.
    pub fn build_place(&self, path: &StorePath) -> Result<BuildPlace<'_>, StoreError> {
        let place = BuildPlace {
            store: self,
            path: path.clone(),
            _lock: self.lock_build(&Digest::of(path.to_string().as_bytes()))?,
        };
        {
            let _lock = self.lock(LockKind::Shared)?;
            self.session()?.build_at(path)?;
        }
        place.clear()?;
        Ok(place)
    }
}

impl BuildPlace<'_> {
    /// Moves what was built to `tree`, which nothing stands at. Where the path has become valid it is an error.
    pub fn take(&self, tree: &Path) -> Result<(), StoreError> {
        let _lock = self.store.lock(LockKind::Exclusive)?;
        if self.store.database.info(&self.path)?.is_none() && move_away(&self.store.physical(&self.path), tree)? {
            return Ok(());
        }
        Err(StoreError::PlaceTaken {
            path: self.path.clone(),
        })
    }

    fn clear(&self) -> Result<(), StoreError> {
        let away = self.store.session()?.fresh_path();
        match self.take(&away) {
            Ok(()) => {
                self.store.discard(&away);
                Ok(())
            }
            // There is nothing, or nothing that may be removed.
            Err(StoreError::PlaceTaken { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Drop for BuildPlace<'_> {
    fn drop(&mut self) {
        // What cannot be removed now is removed when garbage is collected.
        let _ = self.clear();
    }
}
