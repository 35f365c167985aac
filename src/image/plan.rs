//! A *layer plan* of an image says which packages of `root` and which store paths share a layer.
//!
//! Invariant: pure; a function of the recipe's hashes, names, sizes and references, never of a file on disk.
//!
//! Packages at `/` and store paths never share a layer: the first are files of the image, the second trees of their own.
//! So there are two plans in one, each made by [`partition()`]. The image's layers are shared out between them by
//! their sizes, at least one each; what one part cannot use goes to the other. In the plan a package of `root` is named
//! `/HASH-NAME`, a path at the root, and a store path by its whole path: a Debian package may be both.

use super::error::ImageError;
use super::program::similar;
use super::recipe::{Recipe, RootPackage};
use crate::layer::partition::{
    self, Explanation, Fleet, FleetCost, Graph, LayerPlan, Node, PLAN_FORMAT, PlanError, PlanOptions, Replan, partition,
};
use crate::oci::{LayerLimit, LayerStrategy};

/// The plan of an image: the recipe's own where it has one, checked, else one made as the spec's `layers` say.
pub fn plan(recipe: &Recipe) -> Result<LayerPlan, ImageError> {
    let parts = parts(recipe)?;
    if let Some(given) = &recipe.plan {
        return given_plan(recipe, given, &parts);
    }
    let mut plan = empty(recipe);
    for half in &parts {
        add(&mut plan, partition(&half.graph, &half.options)?);
    }
    Ok(plan)
}

/// Plans of several images that share layers where that saves bytes; one that comes with a plan of its own keeps it.
pub fn plan_fleet(recipes: &[Recipe]) -> Result<Fleet, ImageError> {
    let mut fleet = Fleet {
        plans: Vec::new(),
        together: FleetCost::default(),
        apart: FleetCost::default(),
    };
    let mut halves = Vec::new();
    for (image, recipe) in recipes.iter().enumerate() {
        let given = recipe.plan.as_ref().map(|_| plan(recipe)).transpose()?;
        if given.is_none() {
            halves.extend(parts(recipe)?.into_iter().map(|half| (image, half)));
        }
        fleet.plans.push(given.unwrap_or_else(|| empty(recipe)));
    }
    for part in [PlanPart::Root, PlanPart::Store] {
        let members = halves.iter().filter(|(_, half)| half.part == part);
        let (images, members): (Vec<usize>, Vec<_>) = members
            .map(|(image, half)| (image, (&half.graph, half.options.clone())))
            .unzip();
        let made = partition::plan_fleet(&members)?;
        for (image, plan) in images.into_iter().zip(made.plans) {
            add(&mut fleet.plans[image], plan);
        }
        fleet.together.add(made.together);
        fleet.apart.add(made.apart);
    }
    Ok(fleet)
}

/// What it would cost and save to plan the image from scratch in place of `plan`; `None` where it would save nothing.
pub fn replan(recipe: &Recipe, plan: &LayerPlan) -> Result<Option<Replan>, ImageError> {
    let mut total: Option<Replan> = None;
    for half in parts(recipe)? {
        if let Some(found) = partition::replan(&only(plan, half.part), &half.graph, &half.options)? {
            let total = total.get_or_insert_default();
            total.bytes_now += found.bytes_now;
            total.saved_per_release += found.saved_per_release;
        }
    }
    Ok(total)
}

/// Why a store path or a package of `root` is in its layer of `plan`.
pub fn explain(recipe: &Recipe, plan: &LayerPlan, path: &str) -> Result<Explanation, ImageError> {
    let parts = parts(recipe)?;
    let all = parts.iter().flat_map(|half| half.graph.keys());
    let unknown = || PlanError::Unknown {
        name: path.to_owned(),
        similar: similar(path, all.map(String::as_str)),
    };
    let half = parts.iter().find(|half| !half.graph.named(path).is_empty());
    let half = half.ok_or_else(unknown)?;
    Ok(partition::explain(plan, &half.graph, path)?)
}

/// Whether a plan is one of exactly this image, by the spec's strategy and with its groups, in no more layers than the
/// image may have.
pub fn fits(recipe: &Recipe, plan: &LayerPlan) -> Result<bool, ImageError> {
    let parts = parts(recipe)?;
    let few = plan.layers.len() + others(recipe) <= own_layers(recipe)?;
    if !few || plan.strategy != empty(recipe).strategy || given_plan(recipe, plan, &parts).is_err() {
        return Ok(false);
    }
    for half in &parts {
        if !partition::has_groups(&only(plan, half.part), &half.graph, &half.options.groups)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn empty(recipe: &Recipe) -> LayerPlan {
    LayerPlan {
        format: PLAN_FORMAT,
        history: Default::default(),
        layers: Vec::new(),
        strategy: strategy_of(recipe).name().to_owned(),
    }
}

fn strategy_of(recipe: &Recipe) -> LayerStrategy {
    let strategy = recipe.spec.layers.strategy.as_ref();
    strategy.map(|strategy| strategy.value).unwrap_or_default()
}

fn add(plan: &mut LayerPlan, half: LayerPlan) {
    plan.history.extend(&half.history);
    plan.layers.extend(half.layers);
}

/// What a plan calls a package of `root`.
pub fn root_path(package: &RootPackage) -> String {
    format!("/{}", package.logical.store_path())
}

/// One of the two plans in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PlanPart {
    Root,
    Store,
}

impl PlanPart {
    fn of(path: &str) -> Self {
        match path.rfind('/') {
            Some(0) => Self::Root,
            _ => Self::Store,
        }
    }
}

/// One of the two, ready to be planned.
struct Half {
    part: PlanPart,
    graph: Graph,
    options: PlanOptions,
}

/// What is to be planned; a part without any path is left out.
fn parts(recipe: &Recipe) -> Result<Vec<Half>, ImageError> {
    let (root, store) = graphs(recipe)?;
    let (root_share, store_share) = shares(recipe)?;
    if recipe.plan.is_none() {
        check_names(recipe, &root, &store)?;
    }
    let mut parts = Vec::new();
    for (part, graph, share) in [
        (PlanPart::Root, root, root_share),
        (PlanPart::Store, store, store_share),
    ] {
        if !graph.is_empty() {
            let options = options(recipe, part, &graph, share)?;
            parts.push(Half { part, graph, options });
        }
    }
    Ok(parts)
}

fn graphs(recipe: &Recipe) -> Result<(Graph, Graph), ImageError> {
    let packages = recipe.root.iter().map(|package| Node {
        size: package.nar_size,
        origin: package.origin,
        ..Node::new(root_path(package))
    });
    Ok((Graph::new(packages.collect())?, closure_graph(recipe)?))
}

/// The store paths of an image as the planner sees them.
pub fn closure_graph(recipe: &Recipe) -> Result<Graph, PlanError> {
    let members = recipe.closure.iter().map(|member| Node {
        size: member.nar_size,
        references: member.references.iter().map(ToString::to_string).collect(),
        origin: member.origin,
        ..Node::new(member.logical.to_string())
    });
    Graph::new(members.collect())
}

/// How many layers the packages of `root` and the store paths may have; one more is for everything else.
fn shares(recipe: &Recipe) -> Result<(usize, usize), ImageError> {
    let max = own_layers(recipe)?;
    let (packages, paths) = (recipe.root.len(), recipe.closure.len());
    let budget = max - others(recipe);
    if packages == 0 || paths == 0 {
        return Ok((packages.min(budget), paths.min(budget)));
    }
    let root_size: u128 = recipe.root.iter().map(|package| u128::from(package.nar_size)).sum();
    let store_size: u128 = recipe.closure.iter().map(|member| u128::from(member.nar_size)).sum();
    let fair = budget as u128 * root_size / (root_size + store_size).max(1);
    let share = usize::try_from(fair).unwrap_or(budget).clamp(1, budget - 1);
    let root_share = share.min(packages).max(budget.saturating_sub(paths).min(packages));
    Ok((root_share, (budget - root_share).min(paths)))
}

/// How many layers the image may have over its base. Where the spec names no limit, the usual one gives way to a base of
/// many layers as far as Docker allows.
fn own_layers(recipe: &Recipe) -> Result<usize, ImageError> {
    let least = others(recipe) + usize::from(!recipe.root.is_empty()) + usize::from(!recipe.closure.is_empty());
    let base = base_layers(recipe);
    let mut max = max_layers(recipe);
    if recipe.spec.layers.max.is_none() {
        max = max.max(base + least);
    }
    let too_many = max > LayerLimit::DOCKER.get() && !recipe.spec.layers.beyond_docker;
    if too_many || max < base + least {
        return Err(match base {
            0 => ImageError::LayersMax { max, least },
            _ => ImageError::BaseLayers { base, least, max },
        });
    }
    Ok(max - base)
}

/// How many layers are for other things than packages and store paths: what maintainer scripts made, and everything else.
fn others(recipe: &Recipe) -> usize {
    1 + usize::from(recipe.configured.is_some())
}

fn base_layers(recipe: &Recipe) -> usize {
    recipe.base.as_ref().map_or(0, |base| base.image.layers.len())
}

fn max_layers(recipe: &Recipe) -> usize {
    let max = recipe.spec.layers.max.as_ref();
    max.map_or(LayerLimit::DEFAULT, |max| max.value).get()
}

fn options(recipe: &Recipe, part: PlanPart, graph: &Graph, share: usize) -> Result<PlanOptions, ImageError> {
    let layers = &recipe.spec.layers;
    let is_ours = |name: &String| !graph.named(name).is_empty();
    let groups = layers
        .groups
        .iter()
        .map(|group| group.iter().filter(|name| is_ours(name)).cloned().collect());
    let weights = layers.weights.iter().filter(|(name, _)| is_ours(name));
    let max_layers = own_layers(recipe)?;
    Ok(PlanOptions {
        strategy: strategy_of(recipe),
        max_layers,
        other_layers: max_layers.saturating_sub(share),
        groups: groups.filter(|group: &Vec<String>| !group.is_empty()).collect(),
        weights: weights.map(|(name, &weight)| (name.clone(), weight)).collect(),
        beyond_docker: layers.beyond_docker,
        history: recipe.history.clone(),
        previous: recipe.previous.as_ref().map(|previous| only(previous, part)),
        carried: recipe.previous.is_some() || layers.plan.is_some(),
    })
}

/// Checks that what groups and weights name is in one of the parts; each part's options leave the other's out.
fn check_names(recipe: &Recipe, root: &Graph, store: &Graph) -> Result<(), PlanError> {
    let layers = &recipe.spec.layers;
    let mut names = layers.groups.iter().flatten().chain(layers.weights.keys());
    match names.find(|name| root.named(name).is_empty() && store.named(name).is_empty()) {
        None => Ok(()),
        Some(name) => Err(PlanError::Unknown {
            name: name.clone(),
            similar: similar(name, root.keys().iter().chain(store.keys()).map(String::as_str)),
        }),
    }
}

/// A plan without the paths of the other part.
fn only(plan: &LayerPlan, part: PlanPart) -> LayerPlan {
    let mut plan = plan.clone();
    for layer in &mut plan.layers {
        layer.paths.retain(|path| PlanPart::of(path) == part);
    }
    plan.layers.retain(|layer| !layer.paths.is_empty());
    plan
}

/// A plan that is to be used as it is. A layer with paths of both parts becomes two.
fn given_plan(recipe: &Recipe, given: &LayerPlan, parts: &[Half]) -> Result<LayerPlan, ImageError> {
    let mut layers = Vec::new();
    for part in [PlanPart::Root, PlanPart::Store] {
        let mut half = only(given, part);
        let none = Graph::new(Vec::new())?;
        let found = parts.iter().find(|half| half.part == part);
        half.check(found.map_or(&none, |half| &half.graph))?;
        layers.extend(half.layers);
    }
    let all = base_layers(recipe) + layers.len() + others(recipe);
    if all > LayerLimit::DOCKER.get() && !recipe.spec.layers.beyond_docker {
        return Err(ImageError::PlanLayers { layers: all });
    }
    Ok(LayerPlan {
        layers,
        ..given.clone()
    })
}
