//! A *simulation* replays a sequence of closures and counts the bytes that each way of planning sends.
//!
//! Invariant: the plan of a release uses only what came before it. A layer is sent once: the registry keeps it.

use std::collections::BTreeSet;

use serde::Serialize;

use super::file::LayerPlan;
use super::graph::Graph;
use super::{PlanError, PlanOptions, partition};
use crate::oci::LayerStrategy;

/// How the releases of a sequence are planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanningMethod {
    /// Each from scratch.
    Scratch(LayerStrategy),
    /// Each from the plan before it, the first by `churn`.
    Carried,
    /// Every path by itself, whatever the limit: no plan can send less.
    Bound,
}

impl PlanningMethod {
    /// Its name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scratch(strategy) => strategy.name(),
            Self::Carried => "churn --previous",
            Self::Bound => "per-path bound",
        }
    }
}

/// What a planning method sent, in bytes of tar content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Simulated {
    /// The first release.
    pub first: u64,
    /// Each further release.
    pub steps: Vec<u64>,
    /// What Docker loads at each further release: it knows a layer only together with all that is below it.
    pub loads: Vec<u64>,
}

impl Simulated {
    /// All further releases together.
    pub fn resent(&self) -> u64 {
        self.steps.iter().sum()
    }

    /// What Docker loads at all further releases together.
    pub fn loaded(&self) -> u64 {
        self.loads.iter().sum()
    }
}

/// Replays `releases`, oldest first; `options` give the limit, groups and weights.
pub fn simulate(releases: &[Graph], method: PlanningMethod, options: &PlanOptions) -> Result<Simulated, PlanError> {
    let mut sent: BTreeSet<Vec<String>> = BTreeSet::new();
    let mut bytes = Vec::with_capacity(releases.len());
    let mut loads = Vec::with_capacity(releases.len());
    let mut loaded: Option<LayerPlan> = None;
    let mut previous: Option<LayerPlan> = None;
    for graph in releases {
        let plan = match method {
            PlanningMethod::Scratch(strategy) => {
                let scratch = PlanOptions {
                    strategy,
                    previous: None,
                    ..options.clone()
                };
                partition(graph, &scratch)?
            }
            PlanningMethod::Carried => {
                let carried = PlanOptions {
                    strategy: LayerStrategy::Churn,
                    previous: previous.take(),
                    carried: true,
                    ..options.clone()
                };
                partition(graph, &carried)?
            }
            PlanningMethod::Bound => {
                let bound = PlanOptions {
                    strategy: LayerStrategy::PerPath,
                    max_layers: graph.len().max(1),
                    other_layers: 0,
                    beyond_docker: true,
                    ..PlanOptions::default()
                };
                partition(graph, &bound)?
            }
        };
        let new = plan.layers.iter().filter(|layer| sent.insert(layer.paths.clone()));
        bytes.push(new.map(|layer| layer.size).sum());
        if let Some(loaded) = &loaded {
            loads.push(loaded_after(loaded, &plan));
        }
        loaded = Some(plan.clone());
        previous = Some(plan);
    }
    let mut bytes = bytes.into_iter();
    Ok(Simulated {
        first: bytes.next().unwrap_or(0),
        steps: bytes.collect(),
        loads,
    })
}

/// Bytes of the layers from the lowest that differs.
fn loaded_after(before: &LayerPlan, after: &LayerPlan) -> u64 {
    let paths =
        |plan: &LayerPlan| -> Vec<Vec<String>> { plan.layers.iter().map(|layer| layer.paths.clone()).collect() };
    let same = paths(before)
        .iter()
        .zip(paths(after))
        .take_while(|(a, b)| *a == b)
        .count();
    after.layers[same..].iter().map(|layer| layer.size).sum()
}
