//! A *why-chain* leads from a root to one of its closure's members, each step with its evidence.
//!
//! Invariant: a chain is as short as any; of equally short ones it is the first in the order of paths.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::compute;
use crate::store::{Evidence, ReadStore, StoreError};
use crate::store_path::StorePath;

/// How a root comes to have a path in its closure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// Where it starts.
    pub root: StorePath,
    /// The references to follow; none where the root is the path itself.
    pub steps: Vec<ChainStep>,
}

/// One reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainStep {
    /// The path that refers.
    pub from: StorePath,
    /// What it refers to.
    pub to: StorePath,
    /// Why.
    pub evidence: Evidence,
}

/// For each of `roots` that has `target` in its closure, the shortest chain of references to it.
pub fn why(store: &dyn ReadStore, roots: &BTreeSet<StorePath>, target: &StorePath) -> Result<Vec<Chain>, StoreError> {
    let closure = compute(store, roots)?;
    let mut referrers: BTreeMap<&StorePath, Vec<&StorePath>> = BTreeMap::new();
    for member in &closure.members {
        for reference in &member.references {
            referrers.entry(reference).or_default().push(&member.path);
        }
    }
    let Some(target) = closure.get(target).map(|member| &member.path) else {
        return Ok(Vec::new());
    };
    // Number of steps to the target, nearest first.
    let mut distance: BTreeMap<&StorePath, usize> = BTreeMap::from([(target, 0)]);
    let mut level = BTreeSet::from([target]);
    for steps in 1.. {
        let next = level.iter().flat_map(|path| referrers.get(path).into_iter().flatten());
        level = next.copied().filter(|path| !distance.contains_key(path)).collect();
        if level.is_empty() {
            break;
        }
        distance.extend(level.iter().map(|&path| (path, steps)));
    }
    let mut chains = Vec::new();
    for root in &closure.roots {
        let Some(&length) = distance.get(root) else {
            continue;
        };
        let mut steps = Vec::new();
        let mut from = root;
        for left in (0..length).rev() {
            let references = closure.get(from).into_iter().flat_map(|member| &member.references);
            let mut nearer = references.filter(|&reference| distance.get(reference) == Some(&left));
            let Some(to) = nearer.next() else { break };
            // Only a collection in between could have forgotten it, and what we looked at is not collected.
            let Some(evidence) = store.evidence(from, to)? else {
                break;
            };
            steps.push(ChainStep {
                from: from.clone(),
                to: to.clone(),
                evidence,
            });
            from = to;
        }
        chains.push(Chain {
            root: root.clone(),
            steps,
        });
    }
    Ok(chains)
}
