//! A *fleet* is several images planned together, so that they share layers in the registry.
//!
//! Invariant: each image's plan holds exactly the paths of its closure; a layer that several images hold is the same
//! in all of them; and what is planned together is never expected to cost more than each image planned by itself.
//!
//! Paths that the same images hold are planned together, each such set by itself, so that no layer holds a path
//! that one of its images lacks. Layers of the plans before stand as they are where nothing in them changed and all
//! of their paths are of one set. While an image has too many layers, one layer less is made where that costs least.
//! What an image groups by hand it has as it says, shared only with an image that groups the same.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::file::{LayerPlan, PLAN_FORMAT};
use super::graph::{Graph, Node};
use super::history::Changes;
use super::model::{self, Group, HORIZON, MILLION, Model, Outlook};
use super::{
    GROUPED, PlanError, PlanOptions, churn, fixed_groups, given_weights, layer_limit, learned, order, partition,
    planned, reason, update,
};
use crate::oci::LayerStrategy;

/// Plans of several images, and what they cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// A plan for each image, in their order.
    pub plans: Vec<LayerPlan>,
    /// What these plans cost.
    pub together: FleetCost,
    /// What each image planned by itself would cost.
    pub apart: FleetCost,
}

/// What a fleet's plans send to one registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FleetCost {
    /// Bytes of all images' layers that no plan before has, each layer counted once.
    pub push: u64,
    /// Bytes expected to be re-sent at a release.
    pub per_release: u64,
}

impl FleetCost {
    /// Both costs together.
    pub fn add(&mut self, other: Self) {
        self.push += other.push;
        self.per_release += other.per_release;
    }

    /// Bytes over the releases that a plan is expected to serve.
    fn total(self) -> u128 {
        u128::from(self.push) + u128::from(self.per_release) * u128::from(HORIZON)
    }
}

/// Plans images together, each with options of its own. An image of another strategy than `churn` is planned by itself,
/// and so are all if their sets of shared paths are too many for the layers allowed, or if sharing would not pay.
pub fn plan_fleet(images: &[(&Graph, PlanOptions)]) -> Result<Fleet, PlanError> {
    let mut order: Vec<usize> = (0..images.len()).collect();
    let paths = |image: usize| images[image].0.nodes().iter().map(|node| &node.path);
    order.sort_by(|&a, &b| paths(a).cmp(paths(b)));
    let sorted: Vec<_> = order.iter().map(|&image| images[image].clone()).collect();
    let fleet = plan_sorted(&sorted)?;
    let mut plans: Vec<(usize, LayerPlan)> = order.into_iter().zip(fleet.plans).collect();
    plans.sort_by_key(|&(image, _)| image);
    let plans = plans.into_iter().map(|(_, plan)| plan).collect();
    Ok(Fleet { plans, ..fleet })
}

/// The same of images in an order that does not depend on how they were given.
fn plan_sorted(images: &[(&Graph, PlanOptions)]) -> Result<Fleet, PlanError> {
    let apart = images
        .iter()
        .map(|(graph, options)| partition(graph, options))
        .collect::<Result<Vec<_>, _>>()?;
    let union = union(images)?;
    let outlooks: Vec<Outlook> = images.iter().map(|(_, options)| options.outlook()).collect();
    let outlook = [Outlook::Update, Outlook::First]
        .into_iter()
        .find(|outlook| outlooks.contains(outlook));
    let model = Model::of_weights(&union.graph, weights(images, &union)?, outlook.unwrap_or(Outlook::Once));
    let sent: BTreeSet<&Vec<String>> = images
        .iter()
        .filter_map(|(_, options)| options.previous.as_ref())
        .flat_map(|previous| previous.layers.iter().map(|layer| &layer.paths))
        .collect();
    let cost_apart = union.cost(&model, &apart, &sent);
    let joined: Vec<bool> = images
        .iter()
        .map(|(_, options)| options.strategy == LayerStrategy::Churn)
        .collect();
    let sharing = Sharing {
        images,
        union: &union,
        model: &model,
        joined,
    };
    let shared = match sharing.plans(&apart) {
        Ok(plans) => plans,
        Err(PlanError::TooMany { .. }) => apart.clone(),
        Err(error) => return Err(error),
    };
    let cost_shared = union.cost(&model, &shared, &sent);
    let (plans, together) = match cost_shared.total() < cost_apart.total() {
        true => (shared, cost_shared),
        false => (apart, cost_apart),
    };
    Ok(Fleet {
        plans,
        together,
        apart: cost_apart,
    })
}

/// All images' paths in one graph.
struct Union {
    graph: Graph,
    index: BTreeMap<String, usize>,
}

fn union(images: &[(&Graph, PlanOptions)]) -> Result<Union, PlanError> {
    let mut nodes: BTreeMap<&str, &Node> = BTreeMap::new();
    for node in images.iter().flat_map(|(graph, _)| graph.nodes()) {
        nodes.insert(&node.path, node);
    }
    let graph = Graph::new(nodes.into_values().cloned().collect())?;
    let paths = graph.nodes().iter().enumerate();
    let index = paths.map(|(at, node)| (node.path.clone(), at)).collect();
    Ok(Union { graph, index })
}

impl Union {
    /// Where a node of an image's graph is.
    fn node(&self, graph: &Graph, node: usize) -> usize {
        self.index[&graph.nodes()[node].path]
    }

    fn cost(&self, model: &Model<'_>, plans: &[LayerPlan], sent: &BTreeSet<&Vec<String>>) -> FleetCost {
        let layers = plans.iter().flat_map(|plan| &plan.layers).map(|layer| &layer.paths);
        let mut total = FleetCost::default();
        for paths in layers.collect::<BTreeSet<_>>() {
            let group = model.group(paths.iter().map(|path| self.index[path]).collect());
            let expected = u128::from(group.size) * u128::from(group.weight.min(MILLION)) / u128::from(MILLION);
            total.add(FleetCost {
                push: if sent.contains(paths) { 0 } else { group.size },
                per_release: u64::try_from(expected).unwrap_or(u64::MAX),
            });
        }
        total
    }
}

/// Probability of change by node of the union: the highest that an image gives, else by the image that has seen most.
fn weights(images: &[(&Graph, PlanOptions)], union: &Union) -> Result<Vec<u64>, PlanError> {
    let mut given: BTreeMap<usize, u64> = BTreeMap::new();
    let mut best: Vec<(u32, u64)> = vec![(0, 0); union.graph.len()];
    for (graph, options) in images {
        for (node, weight) in given_weights(graph, &options.weights)? {
            let highest = given.entry(union.node(graph, node)).or_default();
            *highest = weight.max(*highest);
        }
        let history = learned(graph, options);
        let weights = model::learned_weights(graph, &history, options.outlook());
        for (node, (key, weight)) in graph.keys().iter().zip(weights).enumerate() {
            let best = &mut best[union.node(graph, node)];
            *best = (history.observed(key).seen, weight).max(*best);
        }
    }
    let chosen = best.into_iter().enumerate();
    Ok(chosen
        .map(|(node, (_, weight))| given.get(&node).copied().unwrap_or(weight))
        .collect())
}

/// The planning of what images share.
struct Sharing<'f> {
    images: &'f [(&'f Graph, PlanOptions)],
    union: &'f Union,
    model: &'f Model<'f>,
    /// By image: whether it takes part.
    joined: Vec<bool>,
}

/// Groups of nodes by the images that hold these nodes.
type Sets = BTreeMap<BTreeSet<usize>, Vec<Group>>;

impl Sharing<'_> {
    /// Plans of all images; of those that take no part the ones given.
    fn plans(&self, apart: &[LayerPlan]) -> Result<Vec<LayerPlan>, PlanError> {
        let fixed = self.fixed()?;
        let limits = self.limits(&fixed)?;
        let mut sets = self.sets(&fixed);
        merge_to_fit(self.model, &mut sets, &limits)?;
        let plans = (0..self.images.len()).map(|image| {
            if !self.joined[image] {
                return apart[image].clone();
            }
            let options = &self.images[image].1;
            let held = sets.iter().filter(|(images, _)| images.contains(&image));
            let held = held.flat_map(|(_, groups)| groups);
            let mut layers: Vec<(Group, String)> = held
                .map(|group| (group.clone(), reason(self.model, options, group)))
                .collect();
            let fixed = fixed[image].iter();
            layers.extend(fixed.map(|members| (self.model.group(members.clone()), GROUPED.to_owned())));
            let layers = order::order(self.model, layers).into_iter();
            LayerPlan {
                format: PLAN_FORMAT,
                history: apart[image].history.clone(),
                layers: layers
                    .map(|(group, reason)| planned(&self.union.graph, &group, reason))
                    .collect(),
                strategy: options.strategy.name().to_owned(),
            }
        });
        Ok(plans.collect())
    }

    /// By image: the groups that it wants, as nodes of the union.
    fn fixed(&self) -> Result<Vec<Vec<Vec<usize>>>, PlanError> {
        let fixed = self.images.iter().map(|(graph, options)| {
            let groups = fixed_groups(graph, &options.groups)?.into_iter();
            let in_union = |members: Vec<usize>| members.iter().map(|&node| self.union.node(graph, node)).collect();
            Ok(groups.map(in_union).collect())
        });
        fixed.collect()
    }

    /// By image: how many layers are left for what it does not group.
    fn limits(&self, fixed: &[Vec<Vec<usize>>]) -> Result<Vec<usize>, PlanError> {
        let limits = self.images.iter().zip(fixed).map(|((_, options), groups)| {
            let limit = layer_limit(options)?;
            limit.checked_sub(groups.len()).ok_or(PlanError::TooMany {
                needed: groups.len(),
                limit,
            })
        });
        limits.collect()
    }

    /// Paths by the images that hold them without grouping them: layers that stand, and all others alone.
    fn sets(&self, fixed: &[Vec<Vec<usize>>]) -> Sets {
        let mut holders: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.union.graph.len()];
        for (image, (graph, _)) in self.images.iter().enumerate().filter(|&(image, _)| self.joined[image]) {
            let grouped: BTreeSet<usize> = fixed[image].iter().flatten().copied().collect();
            for node in (0..graph.len()).map(|node| self.union.node(graph, node)) {
                if !grouped.contains(&node) {
                    holders[node].insert(image);
                }
            }
        }
        let mut sets = Sets::new();
        let mut free: BTreeSet<usize> = (0..holders.len()).filter(|&node| !holders[node].is_empty()).collect();
        for members in self.standing() {
            let same = members.iter().all(|&node| holders[node] == holders[members[0]]);
            if same && members.iter().all(|node| free.contains(node)) {
                for node in &members {
                    free.remove(node);
                }
                let mut group = self.model.group(members);
                group.standing = true;
                sets.entry(holders[group.members[0]].clone()).or_default().push(group);
            }
        }
        for node in free {
            sets.entry(holders[node].clone())
                .or_default()
                .push(self.model.single(node));
        }
        sets
    }

    /// Layers of the plans before in which nothing changed, those that most images have first, then the largest.
    fn standing(&self) -> Vec<Vec<usize>> {
        let mut counted: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
        for (graph, options) in self.images {
            let Some(previous) = &options.previous else { continue };
            let changes = Changes::between(previous, graph);
            let nodes: Vec<usize> = (0..graph.len()).collect();
            for layer in update::standing_layers(previous, &changes, &nodes) {
                let mut members: Vec<usize> = layer.iter().map(|&node| self.union.node(graph, node)).collect();
                members.sort_unstable();
                *counted.entry(members).or_default() += 1;
            }
        }
        let mut layers: Vec<(Vec<usize>, usize)> = counted.into_iter().collect();
        let size = |members: &Vec<usize>| {
            members
                .iter()
                .map(|&node| self.union.graph.nodes()[node].size)
                .sum::<u64>()
        };
        layers.sort_by_cached_key(|(members, count)| (Reverse(*count), Reverse(size(members)), members.clone()));
        layers.into_iter().map(|(members, _)| members).collect()
    }
}

/// Merges groups within sets until every image has at most as many layers as its limit: each time in the set, among
/// those of the image that has most too many, where one layer fewer costs least.
fn merge_to_fit(model: &Model<'_>, sets: &mut Sets, limits: &[usize]) -> Result<(), PlanError> {
    loop {
        let count = |image: usize| {
            let held = sets.iter().filter(|(images, _)| images.contains(&image));
            held.map(|(_, groups)| groups.len()).sum::<usize>()
        };
        let surplus = |image: usize| count(image).saturating_sub(limits[image]);
        let fullest = (0..limits.len()).max_by_key(|&image| (surplus(image), Reverse(image)));
        let Some(fullest) = fullest.filter(|&image| surplus(image) > 0) else {
            return Ok(());
        };
        let candidates = sets
            .iter()
            .filter(|(images, groups)| images.contains(&fullest) && groups.len() > 1);
        let tried = candidates.map(|(images, groups)| {
            // One step at a time only when nearly there: a large set first loses a tenth of its surplus.
            let fewer = (surplus(fullest) / 10).clamp(1, groups.len() - 1);
            let merged = churn::merge_down(model, groups.clone(), groups.len() - fewer);
            let total = |groups: &[Group]| groups.iter().map(|group| model.cost(group)).sum::<i128>();
            let each = (total(&merged) - total(groups)) / fewer as i128;
            (each, images.clone(), merged)
        });
        let Some((_, images, merged)) = tried.min_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1))) else {
            return Err(PlanError::TooMany {
                needed: count(fullest),
                limit: limits[fullest],
            });
        };
        sets.insert(images, merged);
    }
}
