//! A *fleet* is several images planned together, so that they share layers in the registry.
//!
//! Invariant: each image's plan holds exactly the paths of its closure; a layer that several images hold is the same
//! in all of them.
//!
//! Paths that the same images hold are planned together, each such set by itself, so that no layer holds a path
//! that one of its images lacks. Every set gets layers in proportion to what merging costs it: the budget of the
//! fullest image is spent where one more layer saves most.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::file::{LayerPlan, PLAN_FORMAT};
use super::graph::{Graph, Node};
use super::model::{Group, Model};
use super::{PlanError, PlanOptions, Strategy, churn, layer_limit, partition, planned, reason};

/// Plans of several images, and what planning them together costs and saves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// A plan for each image.
    pub plans: Vec<LayerPlan>,
    /// Planned together and each by itself.
    pub together: FleetCost,
    /// Each image planned by itself.
    pub apart: FleetCost,
}

/// What a fleet's plans send to one registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FleetCost {
    /// Bytes of all images' layers, each layer counted once.
    pub first_push: u64,
    /// Bytes expected to be re-sent at a release.
    pub per_release: u64,
}

/// Plans images together; `options` hold for each of them (`groups` and `previous` are not used).
pub fn plan_fleet(images: &[Graph], options: &PlanOptions) -> Result<Fleet, PlanError> {
    let limit = layer_limit(options)?;
    let union = union(images)?;
    let weights = super::given_weights(&union, &options.weights)?;
    let model = Model::new(&union, &weights, &options.history, 1);
    let members = membership(images, &union);
    let mut sets: BTreeMap<&BTreeSet<usize>, Vec<Group>> = BTreeMap::new();
    for (node, images) in members.iter().enumerate() {
        sets.entry(images).or_default().push(model.single(node));
    }
    merge_to_fit(&model, &mut sets, images.len(), limit)?;
    let plans = (0..images.len()).map(|image| {
        let held = sets.iter().filter(|(images, _)| images.contains(&image));
        let mut groups: Vec<&Group> = held.flat_map(|(_, groups)| groups).collect();
        groups.sort_by(|a, b| (a.weight, &a.members).cmp(&(b.weight, &b.members)));
        let layers = groups
            .into_iter()
            .map(|group| planned(&union, group, reason(&model, options, group)));
        LayerPlan {
            format: PLAN_FORMAT,
            history: options.history.clone(),
            layers: layers.collect(),
            strategy: Strategy::Churn.name().to_owned(),
        }
    });
    let plans: Vec<LayerPlan> = plans.collect();
    let scratch = PlanOptions {
        strategy: Strategy::Churn,
        groups: Vec::new(),
        previous: None,
        ..options.clone()
    };
    let known = |graph: &Graph| PlanOptions {
        weights: options
            .weights
            .iter()
            .filter(|(name, _)| !graph.named(name).is_empty())
            .map(|(name, &weight)| (name.clone(), weight))
            .collect(),
        ..scratch.clone()
    };
    let apart = images
        .iter()
        .map(|graph| partition(graph, &known(graph)))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Fleet {
        together: cost(&model, &plans),
        apart: cost(&model, &apart),
        plans,
    })
}

/// All images' paths in one graph.
fn union(images: &[Graph]) -> Result<Graph, PlanError> {
    let mut nodes: BTreeMap<&str, &Node> = BTreeMap::new();
    for node in images.iter().flat_map(Graph::nodes) {
        nodes.insert(&node.path, node);
    }
    Graph::new(nodes.into_values().cloned().collect())
}

/// By node of the union: the images that hold it.
fn membership(images: &[Graph], union: &Graph) -> Vec<BTreeSet<usize>> {
    let index: BTreeMap<&str, usize> = union
        .nodes()
        .iter()
        .enumerate()
        .map(|(at, node)| (node.path.as_str(), at))
        .collect();
    let mut members = vec![BTreeSet::new(); union.len()];
    for (image, graph) in images.iter().enumerate() {
        for node in graph.nodes() {
            members[index[node.path.as_str()]].insert(image);
        }
    }
    members
}

/// Merges groups within sets until no image has more than `limit` layers: each time in the set, among those of an image
/// with too many, where one layer fewer costs least.
fn merge_to_fit(
    model: &Model<'_>,
    sets: &mut BTreeMap<&BTreeSet<usize>, Vec<Group>>,
    images: usize,
    limit: usize,
) -> Result<(), PlanError> {
    loop {
        let count = |image: usize| {
            sets.iter()
                .filter(|(held, _)| held.contains(&image))
                .map(|(_, groups)| groups.len())
                .sum::<usize>()
        };
        let full: BTreeSet<usize> = (0..images).filter(|&image| count(image) > limit).collect();
        let Some(&fullest) = full
            .iter()
            .max_by_key(|&&image| (count(image), std::cmp::Reverse(image)))
        else {
            return Ok(());
        };
        let most = count(fullest);
        let candidates = sets
            .iter()
            .filter(|(held, groups)| held.contains(&fullest) && groups.len() > 1);
        let tried = candidates.map(|(held, groups)| {
            // One step at a time only when nearly there: a large set first loses a tenth of its surplus.
            let fewer = ((most - limit) / 10).clamp(1, groups.len() - 1);
            let merged = churn::merge_down(model, groups.clone(), groups.len() - fewer);
            let total = |groups: &[Group]| groups.iter().map(|group| model.cost(group)).sum::<i128>();
            let each = (total(&merged) - total(groups)) / fewer as i128;
            (each, (*held).clone(), merged)
        });
        let Some((_, held, merged)) = tried.min_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1))) else {
            return Err(PlanError::TooMany { needed: most, limit });
        };
        if let Some(groups) = sets.get_mut(&held) {
            *groups = merged;
        }
    }
}

fn cost(model: &Model<'_>, plans: &[LayerPlan]) -> FleetCost {
    let index: BTreeMap<&str, usize> = model
        .graph
        .nodes()
        .iter()
        .enumerate()
        .map(|(at, node)| (node.path.as_str(), at))
        .collect();
    let layers: BTreeSet<&Vec<String>> = plans
        .iter()
        .flat_map(|plan| &plan.layers)
        .map(|layer| &layer.paths)
        .collect();
    let mut total = FleetCost {
        first_push: 0,
        per_release: 0,
    };
    for paths in layers {
        let group = model.group(
            paths
                .iter()
                .filter_map(|path| index.get(path.as_str()).copied())
                .collect(),
        );
        total.first_push += group.size;
        let expected =
            u128::from(group.size) * u128::from(group.weight.min(super::MILLION)) / u128::from(super::MILLION);
        total.per_release += u64::try_from(expected).unwrap_or(u64::MAX);
    }
    total
}
