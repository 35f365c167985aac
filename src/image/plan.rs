//! A *layer plan* of an image says which packages of `root` and which store paths share a layer.
//!
//! Invariant: pure; a function of the request's hashes, names, sizes and references, never of a file on disk.
//!
//! Packages at `/` and store paths never share a layer: the first are files of the image, the second trees of their own.
//! So there are two plans in one, each made by [`partition`]. The image's layers are shared out between them by
//! their sizes, at least one each; what one part cannot use goes to the other. In the plan a package of `root` is named
//! `/HASH-NAME`, a path at the root, and a store path by its whole path: a Debian package may be both.

use super::error::ImageError;
use super::program::similar;
use super::request::{ImageRequest, RootPackage};
use crate::layer::partition::{
    DEFAULT_MAX_LAYERS, DOCKER_LIMIT, Graph, LayerPlan, Node, PLAN_FORMAT, PlanError, PlanOptions, partition,
};

/// The plan of an image: the request's own where it has one, checked, else one made as the spec's `layers` say.
pub fn plan(request: &ImageRequest<'_>) -> Result<LayerPlan, ImageError> {
    let (root, store) = graphs(request)?;
    let (root_share, store_share) = shares(request)?;
    if let Some(given) = &request.plan {
        return given_plan(given, base_layers(request), &root, &store);
    }
    check_names(request, &root, &store)?;
    let strategy = request.spec.layers.strategy.as_ref();
    let mut plan = LayerPlan {
        format: PLAN_FORMAT,
        history: Default::default(),
        layers: Vec::new(),
        strategy: strategy.map_or_else(
            || PlanOptions::default().strategy.name().to_owned(),
            |strategy| strategy.value.clone(),
        ),
    };
    for (part, graph, share) in [(Part::Root, &root, root_share), (Part::Store, &store, store_share)] {
        if !graph.is_empty() {
            let made = partition(graph, &options(request, part, graph, share)?)?;
            plan.history.extend(&made.history);
            plan.layers.extend(made.layers);
        }
    }
    Ok(plan)
}

/// Everything that [`plan`] depends on beside the closure and the packages, for the image cache's key.
pub(super) fn identity(request: &ImageRequest<'_>) -> String {
    let layers = &request.spec.layers;
    let strategy = layers.strategy.as_ref().map(|strategy| &strategy.value);
    let max = layers.max.as_ref().map(|max| max.value);
    let given = request.plan.as_ref().map(LayerPlan::print);
    let previous = request.previous.as_ref().map(LayerPlan::print);
    format!(
        "{strategy:?} {max:?} {:?} {:?} {given:?} {previous:?}",
        layers.groups, layers.weights
    )
}

/// What a plan calls a package of `root`.
pub fn root_path(package: &RootPackage) -> String {
    format!("/{}", package.logical.rsplit('/').next().unwrap_or(&package.logical))
}

/// One of the two plans in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Root,
    Store,
}

impl Part {
    fn of(path: &str) -> Self {
        match path.rfind('/') {
            Some(0) => Self::Root,
            _ => Self::Store,
        }
    }
}

fn graphs(request: &ImageRequest<'_>) -> Result<(Graph, Graph), ImageError> {
    let packages = request.root.iter().map(|package| Node {
        name: String::new(),
        path: root_path(package),
        size: package.nar_size,
        references: Vec::new(),
    });
    let members = request.closure.iter().map(|member| Node {
        name: String::new(),
        path: member.logical.clone(),
        size: member.nar_size,
        references: member.references.iter().cloned().collect(),
    });
    Ok((Graph::new(packages.collect())?, Graph::new(members.collect())?))
}

/// How many layers the packages of `root` and the store paths may have; one more is for everything else.
fn shares(request: &ImageRequest<'_>) -> Result<(usize, usize), ImageError> {
    let max = own_layers(request)?;
    let (packages, paths) = (request.root.len(), request.closure.len());
    let budget = max - 1;
    if packages == 0 || paths == 0 {
        return Ok((packages.min(budget), paths.min(budget)));
    }
    let root_size: u128 = request.root.iter().map(|package| u128::from(package.nar_size)).sum();
    let store_size: u128 = request.closure.iter().map(|member| u128::from(member.nar_size)).sum();
    let fair = budget as u128 * root_size / (root_size + store_size).max(1);
    let share = usize::try_from(fair).unwrap_or(budget).clamp(1, budget - 1);
    let root_share = share.min(packages).max(budget.saturating_sub(paths).min(packages));
    Ok((root_share, (budget - root_share).min(paths)))
}

/// How many layers the image may have over its base. Where the spec names no limit, the usual one gives way to a base of
/// many layers as far as Docker allows.
fn own_layers(request: &ImageRequest<'_>) -> Result<usize, ImageError> {
    let least = 1 + usize::from(!request.root.is_empty()) + usize::from(!request.closure.is_empty());
    let base = base_layers(request);
    let mut max = max_layers(request);
    if request.spec.layers.max.is_none() {
        max = max.max(base + least);
    }
    if max > DOCKER_LIMIT || max < base + least {
        return Err(match base {
            0 => ImageError::LayersMax { max, least },
            _ => ImageError::BaseLayers { base, least, max },
        });
    }
    Ok(max - base)
}

fn base_layers(request: &ImageRequest<'_>) -> usize {
    request.base.as_ref().map_or(0, |base| base.image.layers.len())
}

fn max_layers(request: &ImageRequest<'_>) -> usize {
    let max = request.spec.layers.max.as_ref();
    max.map_or(DEFAULT_MAX_LAYERS, |max| {
        usize::try_from(max.value).unwrap_or(usize::MAX)
    })
}

fn options(request: &ImageRequest<'_>, part: Part, graph: &Graph, share: usize) -> Result<PlanOptions, ImageError> {
    let layers = &request.spec.layers;
    let is_ours = |name: &String| !graph.named(name).is_empty();
    let groups = layers
        .groups
        .iter()
        .map(|group| group.iter().filter(|name| is_ours(name)).cloned().collect());
    let weights = layers.weights.iter().filter(|(name, _)| is_ours(name));
    let defaults = PlanOptions::default();
    let strategy = layers
        .strategy
        .as_ref()
        .map(|strategy| strategy.value.parse())
        .transpose()?;
    let max_layers = own_layers(request)?;
    Ok(PlanOptions {
        strategy: strategy.unwrap_or(defaults.strategy),
        max_layers,
        other_layers: max_layers.saturating_sub(share),
        groups: groups.filter(|group: &Vec<String>| !group.is_empty()).collect(),
        weights: weights.map(|(name, &weight)| (name.clone(), weight)).collect(),
        previous: request.previous.as_ref().map(|previous| only(previous, part)),
        carried: request.previous.is_some() || layers.plan.is_some(),
        ..defaults
    })
}

/// Checks that what groups and weights name is in one of the parts; each part's options leave the other's out.
fn check_names(request: &ImageRequest<'_>, root: &Graph, store: &Graph) -> Result<(), PlanError> {
    let layers = &request.spec.layers;
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
fn only(plan: &LayerPlan, part: Part) -> LayerPlan {
    let mut plan = plan.clone();
    for layer in &mut plan.layers {
        layer.paths.retain(|path| Part::of(path) == part);
    }
    plan.layers.retain(|layer| !layer.paths.is_empty());
    plan
}

/// A plan that is to be used as it is. A layer with paths of both parts becomes two.
fn given_plan(given: &LayerPlan, base: usize, root: &Graph, store: &Graph) -> Result<LayerPlan, ImageError> {
    let mut layers = Vec::new();
    for (part, graph) in [(Part::Root, root), (Part::Store, store)] {
        let mut half = only(given, part);
        half.check(graph)?;
        layers.extend(half.layers);
    }
    if base + layers.len() + 1 > DOCKER_LIMIT {
        return Err(ImageError::PlanLayers {
            layers: base + layers.len() + 1,
        });
    }
    Ok(LayerPlan {
        layers,
        ..given.clone()
    })
}
