//! `layerize plan`: which store paths share a layer, why, and what an update would re-send.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::image::{self, Recipe};
use crate::layer::partition::{self, Explanation, Fleet, FleetCost, Graph, LayerPlan, PlanOptions, Replan};

use super::complete;
use super::context::Context;
use super::error::advised;
use super::flags::BuildFlags;
use super::flags::ImageFlags;
use super::outcome::Outcome;
use super::places::Names;
use super::text::size;
use crate::project::layer_plan::{self, PlanFile};
use crate::project::{self, Draft, PlatformChoice};
use crate::project::{releases, work};

/// Names that a layer's line shows before it counts the rest.
const NAMES_SHOWN: usize = 6;

/// Arguments of `layerize plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Images or store paths [default: all images]
    #[arg(add = complete::images())]
    targets: Vec<String>,
    /// Plan this closure graph: JSON of `nix path-info --json`, exportReferencesGraph, or the like
    #[arg(long, value_name = "FILE", conflicts_with = "targets")]
    graph: Option<PathBuf>,
    /// Learn what tends to change from a directory of earlier graphs or plans, oldest first by name
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,
    /// Write each image's plan to the file that its `layers.plan` names, starting from what that holds
    #[arg(long, group = "question", conflicts_with = "graph")]
    save: bool,
    /// Explain why this path is in its layer and what changing it would re-send
    #[arg(long, value_name = "PATH", group = "question")]
    explain: Option<String>,
    /// Replay a directory of graphs, oldest first by name, and compare what each strategy sends
    #[arg(long, value_name = "DIR", group = "question", conflicts_with_all = ["targets", "graph"])]
    simulate: Option<PathBuf>,
    #[command(flatten)]
    image: ImageFlags,
    #[command(flatten)]
    flags: BuildFlags,
}

impl PlanArgs {
    /// The arguments that may name a spec elsewhere.
    pub fn names(&mut self) -> (Names<'_>, &mut BuildFlags) {
        (Names::Several(&mut self.targets), &mut self.flags)
    }
}

/// Plans what the arguments name and prints the plan, or answers a question about it.
pub fn run(args: &PlanArgs, context: &Context) -> anyhow::Result<Outcome> {
    if let Some(dir) = &args.simulate {
        simulate(dir, &options(args, None, context)?, context)?;
    } else if let Some(file) = &args.graph {
        let graph = releases::read_graph(file)?;
        let options = options(args, Some(&graph), context)?;
        let plan = partition::partition(&graph, &options)?;
        match &args.explain {
            Some(path) => print_explanation(&partition::explain(&plan, &graph, path)?, context)?,
            None => show(&plan, context)?,
        }
        if options.previous.is_some() && args.explain.is_none() {
            advise(partition::replan(&plan, &graph, &options)?, context);
        }
    } else {
        of_targets(args, context)?;
    }
    Ok(Outcome::Done)
}

fn of_targets(args: &PlanArgs, context: &Context) -> anyhow::Result<()> {
    let options = args.flags.options_for(args.image.platforms(PlatformChoice::All));
    let work = work::prepare(&args.targets, &options, &context.environment)?;
    let mut drafts = project::all_drafts(&work, &args.image.options()?, &context.environment)?;
    context.ui.clear();
    if drafts.is_empty() {
        return Err(advised(
            "there is no image to plan",
            "name an image of the spec, or a store path",
        ));
    }
    if let Some(elsewhere) = context.environment.elsewhere.as_ref().filter(|_| args.save) {
        return Err(advised(
            format!("nothing is written beside the spec of `{}`", elsewhere.place),
            "leave out `--save`, or get the repository and plan there",
        ));
    }
    if args.save {
        drafts.iter().try_for_each(|draft| place(draft).map(drop))?;
    }
    let together = drafts.len() > 1;
    if args.save || together || args.history.is_some() {
        drafts.iter_mut().for_each(Draft::plan_anew);
    }
    if let Some(dir) = &args.history {
        let earlier = releases::read_dir(dir)?;
        for draft in &mut drafts {
            draft.recipe.history = releases::learn(&earlier, &image::closure_graph(&draft.recipe)?);
        }
    }
    let recipes: Vec<Recipe> = drafts.iter().map(|draft| draft.recipe.clone()).collect();
    let plans = match &recipes[..] {
        [recipe] => vec![of_one(args, recipe, context)?],
        _ => of_fleet(args, &recipes, context)?,
    };
    if args.save {
        for (draft, plan) in drafts.iter().zip(&plans) {
            place(draft)?.keep(plan, context.ui)?;
        }
    }
    Ok(())
}

/// Plans one image and prints the plan, or why a path is where it is.
fn of_one(args: &PlanArgs, recipe: &Recipe, context: &Context) -> anyhow::Result<LayerPlan> {
    let plan = image::plan(recipe)?;
    if let Some(path) = &args.explain {
        print_explanation(&image::explain(recipe, &plan, path)?, context)?;
        return Ok(plan);
    }
    show(&plan, context)?;
    if recipe.previous.is_some() || recipe.plan.is_some() {
        advise(image::replan(recipe, &plan)?, context);
    }
    Ok(plan)
}

/// Plans several images together and prints all plans, with what sharing costs and saves.
fn of_fleet(args: &PlanArgs, recipes: &[Recipe], context: &Context) -> anyhow::Result<Vec<LayerPlan>> {
    if args.explain.is_some() {
        return Err(advised(
            format!("`--explain` is about one image, and {} are planned", recipes.len()),
            "name the image, and of one for several platforms one in `--platform`",
        ));
    }
    let fleet = image::plan_fleet(recipes)?;
    for (recipe, plan) in recipes.iter().zip(&fleet.plans) {
        if !context.ui.json() {
            context.ui.data(&format!("{}:", title(recipe, recipes)))?;
        }
        show(plan, context)?;
    }
    context.ui.note(&trade_off(&fleet));
    Ok(fleet.plans)
}

/// What an image is called among others: one of several platforms by its platform too.
fn title(recipe: &Recipe, all: &[Recipe]) -> String {
    let name = &recipe.spec.name.value;
    match all.iter().filter(|other| other.spec.name.value == *name).count() {
        1 => name.clone(),
        _ => format!("{name} ({})", recipe.platform),
    }
}

/// Where a plan is saved.
fn place(draft: &Draft) -> anyhow::Result<&PlanFile> {
    draft.kept.as_ref().ok_or_else(|| {
        let name = draft.name();
        advised(
            format!("image `{name}` has no plan file, or one that was written by hand"),
            format!("write `layers = {{ plan = \"{name}.plan.json\" }}` in its section of the spec"),
        )
    })
}

fn options(args: &PlanArgs, graph: Option<&Graph>, context: &Context) -> anyhow::Result<PlanOptions> {
    let mut options = PlanOptions {
        beyond_docker: args.image.beyond_docker,
        ..PlanOptions::default()
    };
    if let Some(strategy) = args.image.strategy {
        options.strategy = strategy;
    }
    if let Some(max) = args.image.max_layers {
        options.max_layers = max.get();
    }
    options.previous = layer_plan::read_previous(args.image.previous.as_deref(), &[], &context.environment)?;
    options.carried = options.previous.is_some();
    if let (Some(dir), Some(graph)) = (&args.history, graph) {
        options.history = releases::learn(&releases::read_dir(dir)?, graph);
    }
    Ok(options)
}

/// Says when planning from scratch would pay.
fn advise(replan: Option<Replan>, context: &Context) {
    if let Some(replan) = replan {
        context.ui.note(&format!(
            "planning from scratch would re-send {} now and save {} a release: it pays after {} releases",
            size(replan.bytes_now),
            size(replan.saved_per_release),
            replan.releases(),
        ));
    }
}

fn show(plan: &LayerPlan, context: &Context) -> anyhow::Result<()> {
    if context.ui.json() {
        return Ok(context.ui.data(plan.print().trim_end())?);
    }
    for (index, layer) in plan.layers.iter().enumerate() {
        let names: Vec<&str> = layer.paths.iter().map(|path| name_of(path)).collect();
        let shown = names.iter().take(NAMES_SHOWN).copied().collect::<Vec<_>>().join(", ");
        let rest = names.len().saturating_sub(NAMES_SHOWN);
        let more = if rest > 0 {
            format!(" and {rest} more")
        } else {
            String::new()
        };
        context.ui.data(&format!(
            "{index:>3}  {:>10}  {shown}{more}  ({})",
            size(layer.size),
            layer.reason
        ))?;
    }
    Ok(())
}

/// The name part of an absolute store path.
fn name_of(path: &str) -> &str {
    let base = path.rsplit('/').next().unwrap_or(path);
    base.split_once('-').map_or(base, |(_, name)| name)
}

fn print_explanation(explanation: &Explanation, context: &Context) -> anyhow::Result<()> {
    if context.ui.json() {
        return Ok(context.ui.data(&serde_json::to_string(explanation)?)?);
    }
    let per_mille = |millionths: u64| format!("{:.1} %", millionths as f64 / 10_000.0);
    let others: Vec<&str> = explanation.together_with.iter().map(|path| name_of(path)).collect();
    let lines = [
        explanation.path.clone(),
        format!(
            "  layer       {}: {} ({})",
            explanation.layer,
            size(explanation.layer_size),
            explanation.reason
        ),
        format!(
            "  with        {}",
            if others.is_empty() {
                "nothing else".to_owned()
            } else {
                others.join(", ")
            }
        ),
        format!(
            "  changes     expected in {} of releases, its layer in {}",
            per_mille(explanation.expected_changes),
            per_mille(explanation.layer_expected_changes),
        ),
        format!(
            "  a change    rebuilds {} paths and re-sends {} layers, {} (at least {})",
            explanation.rebuilds,
            explanation.resends_layers,
            size(explanation.resends_bytes),
            size(explanation.least_bytes),
        ),
    ];
    Ok(context.ui.data(&lines.join("\n"))?)
}

fn trade_off(fleet: &Fleet) -> String {
    let Fleet { together, apart, .. } = fleet;
    let cost = |cost: &FleetCost| {
        format!(
            "{} to push now, {} expected at a release",
            size(cost.push),
            size(cost.per_release)
        )
    };
    match together == apart {
        true => format!("planned together: {}; each by itself: the same", cost(together)),
        false => format!("planned together: {}; each by itself: {}", cost(together), cost(apart)),
    }
}

fn simulate(dir: &Path, options: &PlanOptions, context: &Context) -> anyhow::Result<()> {
    for (how, result) in releases::simulate(dir, options)? {
        let line = if context.ui.json() {
            json!({ "way": how.name(), "first": result.first, "steps": result.steps, "resent": result.resent(), "loads": result.loads, "loaded": result.loaded() })
                .to_string()
        } else {
            let megabytes = |bytes: u64| bytes as f64 / 1e6;
            let steps: Vec<String> = result
                .steps
                .iter()
                .map(|step| format!("{:.0}", megabytes(*step)))
                .collect();
            format!(
                "{:<17} first {:>7.1} MB  re-sent {:>8.1} MB  loaded {:>8.1} MB  ({})",
                how.name(),
                megabytes(result.first),
                megabytes(result.resent()),
                megabytes(result.loaded()),
                steps.join(" "),
            )
        };
        context.ui.data(&line)?;
    }
    Ok(())
}
