//! A *layer plan* is a partition of a closure's paths into ordered layers: a file to read, keep and compare.
//!
//! Invariant: printed canonically (keys and paths sorted, no white space, one line), so that equal plans are equal
//! bytes; [`LayerPlan::check`] lets no plan pass that does not hold every path of its graph exactly once.
//!
//! `{"format":1,"history":{…},"layers":[{"paths":[…],"reason":…,"size":…},…],"strategy":…}`. A plan written by
//! hand needs `layers` with `paths` only. `history` is what was seen to change, by package name:
//! `{"libc6":{"changed":1,"seen":9}}`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::PlanError;
use super::graph::{Graph, package_name, unique_keys};
use super::history::History;

/// Number of the plan file's form.
pub const PLAN_FORMAT: u32 = 1;

/// Layers of a closure, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerPlan {
    /// Form of the file.
    #[serde(default = "current_format")]
    pub format: u32,
    /// What was seen to change up to this plan.
    #[serde(default, skip_serializing_if = "History::is_empty")]
    pub history: History,
    /// The layers, lowest first.
    pub layers: Vec<PlannedLayer>,
    /// Name of the strategy that made it.
    #[serde(default = "by_hand")]
    pub strategy: String,
}

/// One layer of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedLayer {
    /// Absolute store paths, sorted.
    pub paths: Vec<String>,
    /// Why they stand together.
    #[serde(default)]
    pub reason: String,
    /// Sum of their sizes in bytes.
    #[serde(default)]
    pub size: u64,
}

fn current_format() -> u32 {
    PLAN_FORMAT
}

/// What the strategy of a plan that names none is called.
const BY_HAND: &str = "by-hand";

fn by_hand() -> String {
    BY_HAND.to_owned()
}

impl LayerPlan {
    /// Parses a plan file.
    pub fn parse(json: &str) -> Result<Self, PlanError> {
        let mut plan: Self = serde_json::from_str(json).map_err(|source| PlanError::Json { source })?;
        if plan.format != PLAN_FORMAT {
            return Err(PlanError::Format { found: plan.format });
        }
        plan.layers.iter_mut().for_each(|layer| layer.paths.sort_unstable());
        Ok(plan)
    }

    /// Whether a person wrote it: no strategy made it.
    pub fn is_by_hand(&self) -> bool {
        self.strategy == BY_HAND
    }

    /// The canonical bytes, with a newline at the end.
    pub fn print(&self) -> String {
        // A `Value`'s keys are sorted; nothing in a plan can fail to become one.
        let value = serde_json::to_value(self).expect("a plan is plain data");
        format!("{value}\n")
    }

    /// Checks that every path of `graph` stands in exactly one layer and nothing else does, and fills in sizes.
    pub fn check(&mut self, graph: &Graph) -> Result<(), PlanError> {
        let mut missing: BTreeMap<&str, u64> = graph
            .nodes()
            .iter()
            .map(|node| (node.path.as_str(), node.size))
            .collect();
        let mut placed = std::collections::BTreeSet::new();
        for layer in &mut self.layers {
            layer.size = 0;
            for path in &layer.paths {
                if !placed.insert(path.clone()) {
                    return Err(PlanError::Twice { path: path.clone() });
                }
                let size = missing.remove(path.as_str());
                layer.size += size.ok_or_else(|| PlanError::Foreign { path: path.clone() })?;
            }
        }
        match missing.first_key_value() {
            Some((path, _)) => Err(PlanError::Missing {
                path: (*path).to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// Every path with its layer and its key.
    pub(super) fn keyed_paths(&self) -> Vec<(usize, String, &str)> {
        let mut paths: Vec<(usize, &str)> = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            paths.extend(layer.paths.iter().map(|path| (index, path.as_str())));
        }
        paths.sort_by_key(|&(_, path)| (package_name(path), super::graph::full_name(path), path));
        let keys = unique_keys(paths.iter().map(|&(_, path)| (package_name(path), path)));
        paths
            .into_iter()
            .zip(keys)
            .map(|((layer, path), key)| (layer, key, path))
            .collect()
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_layer_plan() {
        crate::testing::fuzz("layer-plan", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let plan = super::LayerPlan::parse(&text);
            let _ = plan.map(|plan| plan.print());
        });
    }
}
