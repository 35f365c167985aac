//! *Mending*: a registered path whose tree is not what was registered is made again, in place.
//!
//! Invariant: a damaged path is not valid to those who ask for it, so whoever needs it makes it again; its registration,
//! and with it whatever refers to it, stays, for what is made again has the same content or is not taken.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Store;
use super::add::{move_away, move_tree};
use super::database::{Addressing, Registration};
use super::error::StoreError;
use crate::fsio::{IoContext, sync_parent};
use crate::store_path::{PathInfo, StorePath};

/// What a store knows of damage to its trees.
#[derive(Default)]
pub(super) struct Damage(Mutex<MendState>);

#[derive(Default)]
struct MendState {
    /// Registered, and not what was registered.
    damaged: BTreeSet<StorePath>,
    /// Made again since.
    mended: BTreeSet<StorePath>,
}

impl Damage {
    fn state(&self) -> MutexGuard<'_, MendState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Takes note that the tree of `path` is not what was registered: from now on the path is not valid, until it is
    /// made again.
    pub fn note_damage(&self, path: &StorePath) {
        self.damage.state().damaged.insert(path.clone());
    }

    /// Whether the tree of `path` is known not to be what was registered.
    pub fn is_damaged(&self, path: &StorePath) -> bool {
        self.damage.state().damaged.contains(path)
    }

    /// The paths that were damaged and made again since this was last asked.
    pub fn take_mended(&self) -> BTreeSet<StorePath> {
        std::mem::take(&mut self.damage.state().mended)
    }

    /// Looks whether a registered path has a tree at all. What is in it is read when it is needed.
    pub(super) fn is_there(&self, path: &StorePath) -> Result<bool, StoreError> {
        let tree = self.physical(path);
        match fs::symlink_metadata(&tree) {
            Ok(_) => Ok(!self.is_damaged(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.note_damage(path);
                Ok(false)
            }
            Err(error) => Ok(Err(error).context("read the attributes of", &tree)?),
        }
    }

    /// Puts `tree` in the place of a damaged one. To be called with the store's lock held exclusively.
    pub(super) fn replace(
        &self,
        tree: &std::path::Path,
        old: &Registration,
        new: &Registration,
    ) -> Result<PathInfo, StoreError> {
        let changed = old.nar_hash != new.nar_hash;
        if changed && new.addressing != Addressing::Derivation {
            return Err(StoreError::Collision { path: new.path.clone() });
        }
        let session = self.session()?;
        let physical = self.physical(&new.path);
        let away = session.fresh_path();
        let was_there = move_away(&physical, &away)?;
        move_tree(tree, &physical)?;
        sync_parent(&physical)?;
        if changed {
            self.database.replace(new)?;
        }
        {
            let mut state = self.damage.state();
            state.damaged.remove(&new.path);
            state.mended.insert(new.path.clone());
        }
        if was_there {
            self.discard(&away);
        }
        Ok(new.info())
    }

    /// Nothing is known of damage to what was forgotten.
    pub(super) fn forget_damage(&self, paths: &BTreeSet<StorePath>) {
        self.damage.state().damaged.retain(|path| !paths.contains(path));
    }
}
