//! *Advice* on a plan: why a path is where it is, what a change of it would re-send, and whether to plan anew.
//!
//! Invariant: the numbers come from the same model as the plan.

use std::collections::BTreeMap;

use serde::Serialize;

use super::file::LayerPlan;
use super::graph::Graph;
use super::history::Observed;
use super::model::{Group, MILLION, Model, Outlook};
use super::{PlanError, PlanOptions, lookup, partition};

/// Why a path is in its layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The path.
    pub path: String,
    /// Its layer, counted from the lowest, which is 0.
    pub layer: usize,
    /// The layer's reason.
    pub reason: String,
    /// The other paths of the layer.
    pub together_with: Vec<String>,
    /// The layer's size in bytes.
    pub layer_size: u64,
    /// Expected changes of the path per million releases, through anything in its closure.
    pub expected_changes: u64,
    /// The same of the whole layer.
    pub layer_expected_changes: u64,
    /// What was seen of the path.
    pub observed: Observed,
    /// Paths that a change of this one rebuilds, itself included.
    pub rebuilds: usize,
    /// Layers that a change of it re-sends.
    pub resends_layers: usize,
    /// Bytes of these layers.
    pub resends_bytes: u64,
    /// Bytes that would be re-sent if every path had a layer of its own.
    pub least_bytes: u64,
}

/// Explains the place of a path (or package name) in a plan that was checked against `graph`.
pub fn explain(plan: &LayerPlan, graph: &Graph, path: &str) -> Result<Explanation, PlanError> {
    let node = lookup(graph, path)?[0];
    let placed = layer_of(plan, graph)?;
    // A plan that has learned is one that is kept.
    let outlook = if plan.history.is_empty() {
        Outlook::Once
    } else {
        Outlook::First
    };
    let model = Model::new(graph, &BTreeMap::new(), &plan.history, outlook);
    let layer = placed[node];
    let members: Vec<usize> = (0..graph.len()).filter(|&other| placed[other] == layer).collect();
    let rebuilt: Vec<usize> = (0..graph.len())
        .filter(|&other| graph.closure(other).contains(node))
        .collect();
    let mut layers: Vec<usize> = rebuilt.iter().map(|&other| placed[other]).collect();
    layers.sort_unstable();
    layers.dedup();
    let size = |node: &usize| graph.nodes()[*node].size;
    let in_layers = (0..graph.len()).filter(|&other| layers.contains(&placed[other]));
    let path_of = |node: usize| graph.nodes()[node].path.clone();
    Ok(Explanation {
        path: path_of(node),
        layer,
        reason: plan.layers[layer].reason.clone(),
        together_with: members
            .iter()
            .filter(|&&other| other != node)
            .map(|&other| path_of(other))
            .collect(),
        layer_size: members.iter().map(size).sum(),
        expected_changes: model.weights.sum(graph.closure(node)),
        layer_expected_changes: model.group(members).weight,
        observed: plan.history.observed(&graph.keys()[node]),
        rebuilds: rebuilt.len(),
        resends_layers: layers.len(),
        resends_bytes: in_layers.map(|other| size(&other)).sum(),
        least_bytes: rebuilt.iter().map(size).sum(),
    })
}

/// What planning from scratch would cost and save.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Replan {
    /// Bytes that it would re-send at once.
    pub bytes_now: u64,
    /// Bytes that it is expected to save at each release.
    pub saved_per_release: u64,
}

impl Replan {
    /// After how many releases it has paid.
    pub fn releases(&self) -> u64 {
        self.bytes_now.div_ceil(self.saved_per_release.max(1))
    }
}

/// Compares `plan`, which holds `graph`, with one made from scratch with what it has learned; `None` where that
/// would save nothing.
pub fn replan(plan: &LayerPlan, graph: &Graph, options: &PlanOptions) -> Result<Option<Replan>, PlanError> {
    let scratch = PlanOptions {
        previous: None,
        carried: true,
        history: plan.history.clone(),
        ..options.clone()
    };
    let fresh = partition(graph, &scratch)?;
    let model = Model::new(
        graph,
        &super::given_weights(graph, &options.weights)?,
        &plan.history,
        Outlook::First,
    );
    let before = expected_bytes(&model, plan)?;
    let after = expected_bytes(&model, &fresh)?;
    let old: std::collections::BTreeSet<&Vec<String>> = plan.layers.iter().map(|layer| &layer.paths).collect();
    let new = fresh.layers.iter().filter(|layer| !old.contains(&layer.paths));
    let saved = before.saturating_sub(after);
    Ok((saved > 0).then(|| Replan {
        bytes_now: new.map(|layer| layer.size).sum(),
        saved_per_release: saved,
    }))
}

/// Bytes that a plan is expected to re-send at each release.
fn expected_bytes(model: &Model<'_>, plan: &LayerPlan) -> Result<u64, PlanError> {
    let placed = layer_of(plan, model.graph)?;
    let mut members = vec![Vec::new(); plan.layers.len()];
    placed
        .iter()
        .enumerate()
        .for_each(|(node, &layer)| members[layer].push(node));
    let bytes = members.into_iter().map(|members| {
        let group = model.group(members);
        u128::from(group.size) * u128::from(group.weight.min(MILLION)) / u128::from(MILLION)
    });
    Ok(u64::try_from(bytes.sum::<u128>()).unwrap_or(u64::MAX))
}

/// By node: the index of its layer.
fn layer_of(plan: &LayerPlan, graph: &Graph) -> Result<Vec<usize>, PlanError> {
    let mut layers = BTreeMap::new();
    for (index, layer) in plan.layers.iter().enumerate() {
        layers.extend(layer.paths.iter().map(|path| (path.as_str(), index)));
    }
    let placed = graph.nodes().iter().map(|node| {
        let layer = layers.get(node.path.as_str()).copied();
        layer.ok_or_else(|| PlanError::Missing {
            path: node.path.clone(),
        })
    });
    placed.collect()
}

/// The package through which a group is most often expected to change, if one stands out.
pub(super) fn main_cause(model: &Model<'_>, group: &Group) -> Option<String> {
    let cause = group
        .closure
        .iter()
        .max_by_key(|&node| (model.weights.of(node), std::cmp::Reverse(node)))?;
    let stands_out = model.weights.of(cause) * 2 > group.weight && group.closure.count() > 1;
    stands_out.then(|| format!("`{}`", model.graph.keys()[cause]))
}
