//! A *closure* is the least set of store paths that holds its roots and every reference of its members.
//!
//! Invariant: sorted by path, references before referrers where `topological` says so; the answer depends
//! on the store's references alone.

mod render;
#[cfg(test)]
mod tests;
mod why;

use std::collections::{BTreeMap, BTreeSet};

pub use render::{ClosureReport, ClosureTree, PathReport, TreeNode};
pub use why::{Chain, ChainStep, why};

use crate::graph;
use crate::store::{ReadStore, StoreError};
use crate::store_path::{PathInfo, StoreDir, StorePath};

/// A set of paths closed under references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closure {
    /// The logical directory of its paths.
    pub dir: StoreDir,
    /// The roots it was asked for, sorted.
    pub roots: Vec<StorePath>,
    /// All members, sorted by path.
    pub members: Vec<PathInfo>,
}

/// The closure of `roots`; an invalid path among them or their references is an error that names it.
pub fn compute(store: &dyn ReadStore, roots: &BTreeSet<StorePath>) -> Result<Closure, StoreError> {
    let mut members: BTreeMap<StorePath, PathInfo> = BTreeMap::new();
    graph::try_closure(roots.iter().cloned(), |path| {
        let Some(info) = store.info(path)? else {
            let mut needed_by = members.values().filter(|info| info.references.contains(path));
            return Err(StoreError::NotValid {
                path: path.clone(),
                needed_by: needed_by.next().map(|info| info.path.clone()),
            });
        };
        let references = info.references.clone();
        members.insert(path.clone(), info);
        Ok(references)
    })?;
    Ok(Closure {
        dir: store.store_dir(),
        roots: roots.iter().cloned().collect(),
        members: members.into_values().collect(),
    })
}

impl Closure {
    /// The member `path`.
    pub fn get(&self, path: &StorePath) -> Option<&PathInfo> {
        self.index(path).map(|index| &self.members[index])
    }

    /// Sizes of all members' archives in bytes.
    pub fn nar_size(&self) -> u64 {
        self.members.iter().map(|member| member.nar_size).sum()
    }

    /// All members, each after what it refers to. Members that refer to each other in a circle come one after the other.
    pub fn topological(&self) -> Vec<&PathInfo> {
        let order = graph::dependency_order(&self.edges());
        order.into_iter().map(|index| &self.members[index]).collect()
    }

    /// For each member, the sizes of all archives of its own closure in bytes.
    pub fn closure_sizes(&self) -> BTreeMap<&StorePath, u64> {
        let closures = graph::closures(&self.edges());
        let sums = closures
            .iter()
            .map(|closure| closure.iter().map(|index| self.members[index].nar_size).sum());
        self.members.iter().map(|member| &member.path).zip(sums).collect()
    }

    fn index(&self, path: &StorePath) -> Option<usize> {
        self.members.binary_search_by(|member| member.path.cmp(path)).ok()
    }

    /// For each member, the members it refers to, both by index.
    fn edges(&self) -> Vec<Vec<usize>> {
        let references = |member: &PathInfo| member.references.iter().filter_map(|path| self.index(path)).collect();
        self.members.iter().map(references).collect()
    }
}
