//! The *roots* of an image's closure, in layerize's store and in a Nix store.
//!
//! Invariant: all that leads into a store is a root: what the user names as content, and what the image's own settings
//! mention.

use std::collections::BTreeSet;

use crate::closure::Closure;
use crate::derive;
use crate::image::{ClosureMember, ContentRoot, Generated, GeneratedKind};
use crate::spec;
use crate::store::nix_store::{self, StateKind};
use crate::store::{ReadStore, Store};
use crate::store_path::{StoreDir, StorePath};

use super::error::ProjectError;
use super::mention::{Mention, mentions};
use super::origins::Origins;
use super::work::Work;

/// The roots of an image's closure, in either store.
#[derive(Debug, Default)]
pub struct Roots {
    /// In layerize's own.
    pub own: BTreeSet<StorePath>,
    /// In the Nix store.
    pub nix: BTreeSet<StorePath>,
}

impl Roots {
    /// Adds a content of layerize's store.
    pub fn add_own(&mut self, name: &str, path: &StorePath) -> ContentRoot {
        self.own.insert(path.clone());
        ContentRoot {
            name: name.to_owned(),
            logical: StoreDir::layerize().logical(path),
        }
    }

    /// Adds a content of the Nix store.
    pub fn add_nix(&mut self, name: &str, path: &StorePath) -> ContentRoot {
        self.nix.insert(path.clone());
        ContentRoot {
            name: name.to_owned(),
            logical: StoreDir::nix().logical(path),
        }
    }

    /// Adds what the image's settings lead into.
    pub fn add_mentions(&mut self, image: &spec::Image, work: &Work) -> Result<(), ProjectError> {
        for Mention { nix, path, field } in mentions(image) {
            let store: &dyn ReadStore = match nix {
                true => work.nix.get()?,
                false => &work.store,
            };
            if store.info(&path)?.is_none() {
                let logical = store.store_dir().logical(&path);
                return Err(ProjectError::Mention { field, logical });
            }
            match nix {
                true => self.nix.insert(path),
                false => self.own.insert(path),
            };
        }
        Ok(())
    }

    /// The Nix database of an image that wants one.
    pub fn database(&self, image: &spec::Image, work: &Work) -> Result<Vec<Generated>, ProjectError> {
        if !image.nix_db {
            return Ok(Vec::new());
        }
        if self.nix.is_empty() {
            return Err(ProjectError::NixDatabase);
        }
        let closure = work.nix.closure(&self.nix)?;
        let entries = nix_store::state_directory(&closure.members, &self.nix)?;
        let generated = entries.into_iter().map(|entry| Generated {
            path: entry.path,
            kind: match entry.kind {
                StateKind::Directory(mode) => GeneratedKind::Directory(mode),
                StateKind::File(bytes) => GeneratedKind::File(bytes.into()),
                StateKind::Symlink(target) => GeneratedKind::Symlink(target),
            },
        });
        Ok(generated.collect())
    }

    /// Both closures.
    pub fn members(&self, work: &Work, origins: &Origins) -> Result<Vec<ClosureMember>, ProjectError> {
        let own = crate::closure::compute(&work.store, &self.own)?;
        let mut built = self.own.clone();
        for info in &own.members {
            if is_built(&info.path, &work.store)? {
                built.insert(info.path.clone());
            }
        }
        let mut members = closure_members(&own, &work.store, &built, origins);
        if !self.nix.is_empty() {
            let nix = work.nix.closure(&self.nix)?;
            members.extend(closure_members(
                &nix,
                work.nix.get()?,
                &BTreeSet::new(),
                &Origins::default(),
            ));
        }
        Ok(members)
    }
}

fn closure_members(
    closure: &Closure,
    store: &dyn ReadStore,
    built: &BTreeSet<StorePath>,
    origins: &Origins,
) -> Vec<ClosureMember> {
    let members = closure.members.iter();
    members
        .map(|info| {
            let is_built = built.contains(&info.path);
            let origin = origins.of(info.path.name());
            ClosureMember::new(info, &closure.dir, store.physical(&info.path), is_built, origin)
        })
        .collect()
}

/// Whether a script made a path, as far as is known here.
fn is_built(path: &StorePath, store: &Store) -> Result<bool, ProjectError> {
    let details = store.info_full(path)?;
    let derivation = details.and_then(|details| details.derivation_json);
    Ok(derivation.is_some_and(|json| derive::recorded(&json).is_some()))
}

/// What an image is called that is made of a store path of this name: the name without version, as registries take it.
pub fn image_name(name: &str) -> Option<String> {
    let end = name.match_indices('-').find(|(at, _)| {
        let next = name.as_bytes().get(at + 1);
        next.is_some_and(u8::is_ascii_digit)
    });
    let bare = end.map_or(name, |(at, _)| &name[..at]).to_ascii_lowercase();
    let words = bare
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    let name = words.collect::<Vec<_>>().join("-");
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_called_as_its_path_without_version() {
        for (path, name) in [
            ("hello-2.10", Some("hello")),
            ("Python3.11-x", Some("python3-11-x")),
            ("gcc-12-base-12.2", Some("gcc")),
            ("a__b..c", Some("a-b-c")),
            ("+-", None),
        ] {
            assert_eq!(image_name(path).as_deref(), name, "{path}");
        }
    }
}
