//! `layerize closure`: what a package, an image or a store path needs at run time, and why.

use std::collections::BTreeSet;

use clap::Args;
use serde_json::json;

use crate::closure::{self, Chain, Closure};
use crate::store::Evidence;
use crate::store_path::{StoreDir, StorePath};

use super::Outcome;
use super::build::BuildFlags;
use super::context::Context;
use super::error::advised;
use super::pipeline::{self, Work};
use super::text::size;

/// Arguments of `layerize closure`.
#[derive(Debug, Args)]
pub struct ClosureArgs {
    /// Images, packages or store paths [default: all images]
    targets: Vec<String>,
    /// Show who needs whom
    #[arg(long, group = "form")]
    tree: bool,
    /// Print a graph for Graphviz
    #[arg(long, group = "form")]
    dot: bool,
    /// Show why this store path (or name of one) is in the closure: the file and offset that name it
    #[arg(long, group = "form", value_name = "PATH")]
    why: Option<String>,
    #[command(flatten)]
    flags: BuildFlags,
}

/// Realises the targets and prints their closure.
pub fn run(args: &ClosureArgs, context: &Context) -> anyhow::Result<Outcome> {
    let work = pipeline::prepare(&args.targets, &args.flags, context)?;
    context.ui.clear();
    let roots: BTreeSet<StorePath> = work.targets.iter().flat_map(|target| work.roots(target)).collect();
    let closure = closure::compute(&work.store, &roots)?;
    if let Some(wanted) = &args.why {
        return why(wanted, &roots, &closure, &work, context);
    }
    let text = if args.tree {
        closure.tree().to_string()
    } else if args.dot {
        closure.dot()
    } else if context.ui.json() {
        serde_json::to_string(&closure.report())?
    } else {
        let dir = StoreDir::layerize();
        let lines = closure
            .members
            .iter()
            .map(|info| format!("{}\t{}", dir.join(&info.path), size(info.nar_size)));
        lines.collect::<Vec<_>>().join("\n")
    };
    context.ui.data(text.trim_end())?;
    context.ui.note(&format!(
        "{} store paths, {}.",
        closure.members.len(),
        size(closure.nar_size())
    ));
    Ok(Outcome::Done)
}

fn why(
    wanted: &str,
    roots: &BTreeSet<StorePath>,
    closure: &Closure,
    work: &Work,
    context: &Context,
) -> anyhow::Result<Outcome> {
    let targets: Vec<&StorePath> = closure
        .members
        .iter()
        .map(|info| &info.path)
        .filter(|path| names(wanted, path))
        .collect();
    if targets.is_empty() {
        let help = "`layerize closure` lists what is in it";
        return Err(advised(format!("nothing named `{wanted}` is in the closure"), help));
    }
    for target in targets {
        for chain in closure::why(&work.store, roots, target)? {
            let text = if context.ui.json() {
                json!(chain).to_string()
            } else {
                render_chain(&chain)
            };
            context.ui.data(&text)?;
        }
    }
    Ok(Outcome::Done)
}

/// Whether the user means this path: the whole of it, its name, or its name without version.
fn names(wanted: &str, path: &StorePath) -> bool {
    let name = path.name();
    StoreDir::layerize().join(path) == wanted
        || path.to_string() == wanted
        || name == wanted
        || name.strip_prefix(wanted).is_some_and(|rest| {
            rest.strip_prefix('-')
                .is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
        })
}

/// A chain for people, a line a step.
pub fn render_chain(chain: &Chain) -> String {
    let dir = StoreDir::layerize();
    let mut lines = vec![dir.join(&chain.root)];
    for (depth, step) in chain.steps.iter().enumerate() {
        let because = match &step.evidence {
            Evidence::Found(place) => place.to_string(),
            Evidence::Declared { via } => format!("declared by {}", via.name()),
        };
        lines.push(format!("{}└─ {} ({because})", "   ".repeat(depth), dir.join(&step.to)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_named_with_or_without_version() {
        let path: StorePath = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-libc6-2.36".parse().unwrap();
        for wanted in ["libc6", "libc6-2.36", "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-libc6-2.36"] {
            assert!(names(wanted, &path), "{wanted}");
        }
        assert!(names(&StoreDir::layerize().join(&path), &path));
        for wanted in ["libc", "libc6-2", "2.36", ""] {
            assert!(!names(wanted, &path), "{wanted}");
        }
    }
}
