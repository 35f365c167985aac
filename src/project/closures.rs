//! The *closures* of what was asked for, one for each store in which there is anything of it.

use std::collections::BTreeSet;

use crate::closure::{self, Closure};
use crate::store::ReadStore;
use crate::store_path::{StoreDir, StorePath};

use super::error::ProjectError;
use super::mention::mentions;
use super::target::Target;
use super::work::Work;

/// A closure, with the store that has it.
pub struct StoredClosure<'a> {
    /// The store.
    pub store: &'a dyn ReadStore,
    /// The closure.
    pub closure: Closure,
}

impl Work {
    /// The closures of all targets for all their platforms together, one for each store in which there is anything of them: the own one, then Nix's.
    ///
    /// # Errors
    ///
    /// A path that a store lacks, and a store that cannot be asked.
    pub fn closures(&self) -> Result<Vec<StoredClosure<'_>>, ProjectError> {
        let (mut own, mut in_nix) = (BTreeSet::new(), BTreeSet::new());
        let targets = self
            .everywhere()
            .flat_map(|work| work.targets.iter().map(move |target| (work, target)));
        for (work, target) in targets {
            own.extend(work.roots(target));
            in_nix.extend(work.nix_roots(target)?);
            if let (Target::Image(name), Some(project)) = (target, &work.project) {
                for mention in mentions(&project.workspace.images[name]) {
                    match mention.nix {
                        true => in_nix.insert(mention.path),
                        false => own.insert(mention.path),
                    };
                }
            }
        }
        let mut closures: Vec<StoredClosure<'_>> = Vec::new();
        if !own.is_empty() || in_nix.is_empty() {
            closures.push(StoredClosure {
                store: &self.store,
                closure: closure::compute(&self.store, &own)?,
            });
        }
        if !in_nix.is_empty() {
            closures.push(StoredClosure {
                store: self.nix.get()?,
                closure: self.nix.closure(&in_nix)?,
            });
        }
        Ok(closures)
    }
}

impl StoredClosure<'_> {
    /// The members that a user means by a text: the whole path, its name, or its name without version.
    pub fn named<'a>(&'a self, wanted: &'a str) -> impl Iterator<Item = &'a StorePath> {
        let members = self.closure.members.iter().map(|info| &info.path);
        members.filter(|path| names(wanted, path, &self.closure.dir))
    }

    /// The ways from the targets to a member.
    ///
    /// # Errors
    ///
    /// A store that cannot be asked.
    pub fn why(&self, member: &StorePath) -> Result<Vec<closure::Chain>, ProjectError> {
        let roots: BTreeSet<StorePath> = self.closure.roots.iter().cloned().collect();
        Ok(closure::why(self.store, &roots, member)?)
    }
}

fn names(wanted: &str, path: &StorePath, dir: &StoreDir) -> bool {
    let name = path.name();
    dir.join(path) == wanted
        || path.to_string() == wanted
        || name == wanted
        || name.strip_prefix(wanted).is_some_and(|rest| {
            rest.strip_prefix('-')
                .is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_named_with_or_without_version() {
        let path: StorePath = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-libc6-2.36".parse().unwrap();
        let dir = StoreDir::layerize();
        for wanted in ["libc6", "libc6-2.36", "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-libc6-2.36"] {
            assert!(names(wanted, &path, &dir), "{wanted}");
        }
        assert!(names(&dir.join(&path), &path, &dir));
        for wanted in ["libc", "libc6-2", "2.36", ""] {
            assert!(!names(wanted, &path, &dir), "{wanted}");
        }
    }
}
