//! A *partition* of a closure into layers: which store paths go together.
//!
//! Invariant: pure; the plan is a function of the graph, the options and the plan before, the same for any order
//! of its input, on every machine. Ties go by package name, never by hash.
//!
//! From scratch a plan is made by a [`LayerStrategy`]; the default, `churn`, minimises the bytes expected to be re-sent.
//! With the plan of the release before ([`PlanOptions::previous`]) it is updated instead: what did not
//! change stays, what changed is arranged anew, with all that was seen to change so far.

mod advice;
mod baselines;
mod churn;
mod file;
mod fleet;
mod graph;
mod history;
mod model;
mod order;
mod origin;
mod polish;
mod simulate;
mod update;
mod weights;

use std::collections::{BTreeMap, BTreeSet};

pub use advice::{Explanation, Replan, explain, replan};
pub use file::{LayerPlan, PLAN_FORMAT, PlannedLayer};
pub use fleet::{Fleet, FleetCost, plan_fleet};
pub use graph::{Graph, Node};
pub use history::{History, Observed};
pub use model::{MILLION, PRIOR, STRENGTH};
pub use origin::Origin;
pub use simulate::{PlanningMethod, Simulated, simulate};

use crate::oci::{LayerLimit, LayerStrategy};
use model::{Group, Model, Outlook};

/// Why the paths of a group of the user's stand together.
const GROUPED: &str = "grouped by the spec";

/// What a plan is made by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanOptions {
    /// How, where there is no previous plan.
    pub strategy: LayerStrategy,
    /// Most layers that the image may have in all.
    pub max_layers: usize,
    /// How many of these are not for this closure: a base image's, and one of other files.
    pub other_layers: usize,
    /// Allows more than [`LayerLimit::DOCKER`].
    pub beyond_docker: bool,
    /// Groups of package names (or paths) that stand together in a layer of their own.
    pub groups: Vec<Vec<String>>,
    /// Probability of change between two releases by package name, in parts per million.
    pub weights: BTreeMap<String, u32>,
    /// What was seen to change, from elsewhere than `previous`.
    pub history: History,
    /// The plan of the release before, to start from.
    pub previous: Option<LayerPlan>,
    /// The plan is to be kept for the next release: worth some more thought. From scratch a plan that is not kept
    /// is better a little coarser, since a finer one changes more when the closure does.
    pub carried: bool,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            strategy: LayerStrategy::Churn,
            max_layers: LayerLimit::DEFAULT.get(),
            other_layers: 0,
            beyond_docker: false,
            groups: Vec::new(),
            weights: BTreeMap::new(),
            history: History::default(),
            previous: None,
            carried: false,
        }
    }
}

impl PlanOptions {
    fn outlook(&self) -> Outlook {
        match (&self.previous, self.carried) {
            (Some(_), _) => Outlook::Update,
            (None, true) => Outlook::First,
            (None, false) => Outlook::Once,
        }
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A plan or graph that is not JSON of the right form.
    #[error("cannot read the JSON")]
    Json {
        /// Where and why.
        source: serde_json::Error,
    },
    /// A graph's JSON has another form.
    #[error("cannot read `{at}` of the graph: {reason}")]
    Shape {
        /// Which part.
        at: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A plan of a form that this version does not know.
    #[error("the plan has format {found}, and this version knows format {PLAN_FORMAT}")]
    Format {
        /// Its format.
        found: u32,
    },
    /// A graph of more paths than can be planned.
    #[error("the graph has more than {limit} paths")]
    TooLarge {
        /// Most paths.
        limit: usize,
    },
    /// A reference out of the graph.
    #[error("`{path}` refers to `{reference}`, which is not in the graph")]
    Open {
        /// The path.
        path: String,
        /// What it refers to.
        reference: String,
    },
    /// A path that stands in a graph or plan twice.
    #[error("`{path}` appears in it twice")]
    Twice {
        /// The path.
        path: String,
    },
    /// A path of the closure that no layer of the plan holds.
    #[error("no layer of the plan contains `{path}`")]
    Missing {
        /// The path.
        path: String,
    },
    /// A path of the plan that is not in the closure.
    #[error("the plan lists `{path}`, which is not in the closure")]
    Foreign {
        /// The path.
        path: String,
    },
    /// A name that is not a package of the closure.
    #[error("`{name}` is not a package of the closure")]
    Unknown {
        /// The name.
        name: String,
        /// The most similar package.
        similar: Option<String>,
    },
    /// A package in two groups.
    #[error("`{name}` is in two groups")]
    Grouped {
        /// The package.
        name: String,
    },
    /// A weight above one.
    #[error("the weight of `{name}` is {weight} parts per million, which is more than the maximum of 1000000")]
    Weight {
        /// The package.
        name: String,
        /// The weight.
        weight: u32,
    },
    /// More layers than may be.
    #[error("{needed} layers are needed, and at most {limit} are allowed")]
    TooMany {
        /// Layers needed.
        needed: usize,
        /// Layers allowed.
        limit: usize,
    },
    /// A limit above Docker's.
    #[error("{asked} layers are more than Docker's limit of {}", LayerLimit::DOCKER)]
    BeyondDocker {
        /// Layers asked for.
        asked: usize,
    },
}

impl PlanError {
    /// What to write instead.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Open { .. } => {
                Some("give the whole closure, for instance from `nix path-info --json --recursive`".to_owned())
            }
            Self::Unknown { similar, .. } => similar.as_ref().map(|name| format!("did you mean `{name}`?")),
            Self::TooMany { .. } => Some("allow more layers, or give fewer groups".to_owned()),
            Self::BeyondDocker { .. } => Some(
                "set `beyond-docker = true` (or `--beyond-docker`) if nobody loads the image with Docker".to_owned(),
            ),
            Self::Foreign { .. } | Self::Missing { .. } => {
                Some("make the plan anew with `layerize plan --previous`".to_owned())
            }
            _ => None,
        }
    }
}

/// Partitions a closure into layers, lowest first: what is large and steady first, what is small or changes often last,
/// so that little lies above a layer that changes.
pub fn partition(graph: &Graph, options: &PlanOptions) -> Result<LayerPlan, PlanError> {
    let limit = layer_limit(options)?;
    let history = learned(graph, options);
    let weights = given_weights(graph, &options.weights)?;
    let model = Model::new(graph, &weights, &history, options.outlook());
    let fixed = fixed_groups(graph, &options.groups)?;
    let grouped: BTreeSet<usize> = fixed.iter().flatten().copied().collect();
    let rest: Vec<usize> = (0..graph.len()).filter(|node| !grouped.contains(node)).collect();
    let needed = fixed.len() + usize::from(!rest.is_empty());
    if needed > limit {
        return Err(PlanError::TooMany { needed, limit });
    }
    let mut layers: Vec<(Group, String)> = Vec::new();
    for members in fixed {
        layers.push((model.group(members), GROUPED.to_owned()));
    }
    for group in arrange(&model, options, &rest, limit - layers.len())? {
        let reason = reason(&model, options, &group);
        layers.push((group, reason));
    }
    let layers = order::order(&model, layers);
    Ok(LayerPlan {
        format: PLAN_FORMAT,
        history,
        layers: layers
            .into_iter()
            .map(|(group, reason)| planned(graph, &group, reason))
            .collect(),
        strategy: options.strategy.name().to_owned(),
    })
}

/// What was seen to change up to `graph`, of its paths alone.
fn learned(graph: &Graph, options: &PlanOptions) -> History {
    let mut history = options.history.clone();
    if let Some(previous) = &options.previous {
        history.extend(&previous.history);
        history.observe(previous, graph);
    }
    history.retain(graph.keys());
    history
}

fn layer_limit(options: &PlanOptions) -> Result<usize, PlanError> {
    if options.max_layers > LayerLimit::DOCKER.get() && !options.beyond_docker {
        return Err(PlanError::BeyondDocker {
            asked: options.max_layers,
        });
    }
    match options.max_layers.checked_sub(options.other_layers) {
        None | Some(0) => Err(PlanError::TooMany {
            needed: options.other_layers + 1,
            limit: options.max_layers,
        }),
        Some(limit) => Ok(limit),
    }
}

fn arrange(model: &Model<'_>, options: &PlanOptions, nodes: &[usize], limit: usize) -> Result<Vec<Group>, PlanError> {
    if nodes.is_empty() {
        return Ok(Vec::new());
    }
    let graph = model.graph;
    let groups = match options.strategy {
        LayerStrategy::Churn => return Ok(churn(model, options, nodes, limit)),
        LayerStrategy::SizeFirst => baselines::size_first(graph, nodes, limit),
        LayerStrategy::Popularity => baselines::popularity(graph, nodes, limit),
        LayerStrategy::Biggest => baselines::biggest(graph, nodes, limit),
        LayerStrategy::Dominator => baselines::dominator(graph, nodes, limit),
        LayerStrategy::PerPath if nodes.len() > limit => {
            return Err(PlanError::TooMany {
                needed: nodes.len(),
                limit,
            });
        }
        LayerStrategy::PerPath => nodes.iter().map(|&node| vec![node]).collect(),
        LayerStrategy::Single => vec![nodes.to_vec()],
    };
    Ok(groups.into_iter().map(|members| model.group(members)).collect())
}

fn churn(model: &Model<'_>, options: &PlanOptions, nodes: &[usize], limit: usize) -> Vec<Group> {
    if let Some(previous) = &options.previous {
        return update::update(model, previous, nodes, limit);
    }
    let singles = nodes.iter().map(|&node| model.single(node)).collect();
    let groups = churn::merge_down(model, singles, limit);
    if options.carried {
        polish::polish(model, groups, limit, &[])
    } else {
        groups
    }
}

fn planned(graph: &Graph, group: &Group, reason: String) -> PlannedLayer {
    let mut paths: Vec<String> = group
        .members
        .iter()
        .map(|&node| graph.nodes()[node].path.clone())
        .collect();
    paths.sort_unstable();
    PlannedLayer {
        paths,
        reason,
        size: group.size,
    }
}

fn reason(model: &Model<'_>, options: &PlanOptions, group: &Group) -> String {
    if options.strategy != LayerStrategy::Churn {
        return format!("by `{}`", options.strategy);
    }
    let what = if group.members.len() == 1 { "alone" } else { "together" };
    let often = match group.weight / (MILLION / 100) {
        100.. => "changes with nearly every release".to_owned(),
        percent => format!("about {percent} changes in 100 releases"),
    };
    match advice::main_cause(model, group) {
        Some(cause) => format!("{what}: {often}, mostly through {cause}"),
        None => format!("{what}: {often}"),
    }
}

/// Nodes of the user's groups.
fn fixed_groups(graph: &Graph, groups: &[Vec<String>]) -> Result<Vec<Vec<usize>>, PlanError> {
    let mut taken = BTreeSet::new();
    let mut fixed = Vec::new();
    for group in groups {
        let mut members = Vec::new();
        for name in group {
            for node in lookup(graph, name)? {
                if !taken.insert(node) {
                    return Err(PlanError::Grouped { name: name.clone() });
                }
                members.push(node);
            }
        }
        if !members.is_empty() {
            fixed.push(members);
        }
    }
    Ok(fixed)
}

/// Whether a plan has a layer for each of these groups, with the group's paths and no others.
pub fn has_groups(plan: &LayerPlan, graph: &Graph, groups: &[Vec<String>]) -> Result<bool, PlanError> {
    let layers: BTreeSet<BTreeSet<&String>> = plan.layers.iter().map(|layer| layer.paths.iter().collect()).collect();
    let paths = |members: Vec<usize>| members.into_iter().map(|node| &graph.nodes()[node].path).collect();
    let mut groups = fixed_groups(graph, groups)?.into_iter();
    Ok(groups.all(|members| layers.contains(&paths(members))))
}

fn given_weights(graph: &Graph, weights: &BTreeMap<String, u32>) -> Result<BTreeMap<usize, u64>, PlanError> {
    let mut given = BTreeMap::new();
    for (name, &weight) in weights {
        if u64::from(weight) > MILLION {
            return Err(PlanError::Weight {
                name: name.clone(),
                weight,
            });
        }
        for node in lookup(graph, name)? {
            given.insert(node, u64::from(weight));
        }
    }
    Ok(given)
}

/// The nodes a user's text names.
fn lookup(graph: &Graph, name: &str) -> Result<Vec<usize>, PlanError> {
    let found = graph.named(name);
    if found.is_empty() {
        let close = graph
            .keys()
            .iter()
            .map(|key| (strsim::normalized_damerau_levenshtein(name, key), key));
        let best = close
            .filter(|(score, _)| *score > 0.6)
            .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(a.1)));
        return Err(PlanError::Unknown {
            name: name.to_owned(),
            similar: best.map(|(_, key)| key.clone()),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
