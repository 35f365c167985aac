//! A *history* is what was seen to change, by key.
//!
//! Invariant: it counts what changed *on its own*. A path whose references changed changes with them and says
//! nothing of itself, unless its version changed too.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::file::LayerPlan;
use super::graph::{Graph, full_name};
use super::model::{MILLION, STRENGTH};

/// Observed changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(pub(super) BTreeMap<String, Observed>);

/// What was seen of one package.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// Releases in which it changed on its own.
    pub changed: u32,
    /// Releases in which it could have.
    pub seen: u32,
}

/// How a graph differs from the plan before it.
pub(super) struct Changes {
    /// By node: whether the very path was there before.
    pub same: Vec<bool>,
    /// By node: the layer in which its key was.
    pub layer: Vec<Option<usize>>,
}

impl Changes {
    /// Compares a graph with a plan.
    pub fn between(previous: &LayerPlan, graph: &Graph) -> Self {
        let mut before = BTreeMap::new();
        for (layer, key, path) in previous.keyed_paths() {
            before.insert(key, (layer, path));
        }
        let found = |node: usize| before.get(graph.keys()[node].as_str()).copied();
        Self {
            same: (0..graph.len())
                .map(|node| found(node).is_some_and(|(_, path)| path == graph.nodes()[node].path))
                .collect(),
            layer: (0..graph.len())
                .map(|node| found(node).map(|(layer, _)| layer))
                .collect(),
        }
    }
}

impl History {
    /// Adds what a new graph shows against the plan of the release before it. The same closure again is no release
    /// and teaches nothing.
    pub fn observe(&mut self, previous: &LayerPlan, graph: &Graph) {
        let changes = Changes::between(previous, graph);
        let before: usize = previous.layers.iter().map(|layer| layer.paths.len()).sum();
        if before == graph.len() && changes.same.iter().all(|&same| same) {
            return;
        }
        let mut versions = BTreeMap::new();
        for (_, key, path) in previous.keyed_paths() {
            versions.insert(key, full_name(path).to_owned());
        }
        for node in (0..graph.len()).filter(|&node| changes.layer[node].is_some()) {
            let key = &graph.keys()[node];
            let rebuilt = !changes.same[node];
            // A reference that is new is the node's own doing; one that changed is not.
            let pulled = graph
                .references(node)
                .iter()
                .any(|&other| !changes.same[other] && changes.layer[other].is_some());
            let other_version = versions
                .get(key)
                .is_some_and(|version| version != full_name(&graph.nodes()[node].path));
            let observed = self.0.entry(key.clone()).or_default();
            observed.seen = observed.seen.saturating_add(1);
            if rebuilt && (!pulled || other_version) {
                observed.changed = observed.changed.saturating_add(1);
            }
        }
    }

    /// Adds another history's counts.
    pub fn extend(&mut self, other: &Self) {
        for (key, observed) in &other.0 {
            let mine = self.0.entry(key.clone()).or_default();
            mine.seen = mine.seen.saturating_add(observed.seen);
            mine.changed = mine.changed.saturating_add(observed.changed);
        }
    }

    /// What was seen of a key.
    pub fn observed(&self, key: &str) -> Observed {
        self.0.get(key).copied().unwrap_or_default()
    }

    /// Probability that a key changes on its own between two releases: the mean between what was observed and `prior`.
    /// Both in parts per million.
    pub(super) fn probability(&self, key: &str, prior: u64) -> u64 {
        let Observed { changed, seen } = self.observed(key);
        let (changed, seen) = (u64::from(changed.min(seen)), u64::from(seen));
        (changed * MILLION + prior * STRENGTH) / (seen + STRENGTH)
    }

    /// Forgets keys that are not among these.
    pub(super) fn retain(&mut self, keys: &[String]) {
        let keys: BTreeSet<&str> = keys.iter().map(String::as_str).collect();
        self.0.retain(|key, _| keys.contains(key.as_str()));
    }

    /// Whether nothing was observed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
