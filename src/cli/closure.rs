//! `layerize closure`: what a package, an image or a store path needs at run time, and why.

use std::collections::BTreeSet;

use clap::Args;
use serde_json::json;

use crate::closure::{self, Closure, ClosureReport};
use crate::store::ReadStore;
use crate::store_path::{StoreDir, StorePath};

use super::context::Context;
use super::error::advised;
use super::flags::BuildFlags;
use super::outcome::Outcome;
use super::text::{render_chain, size};
use crate::project::mentions;
use crate::project::work;
use crate::project::{Target, Work};

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
    let work = work::prepare(&args.targets, &args.flags.options(), &context.environment)?;
    context.ui.clear();
    let closures = closures(&work)?;
    if let Some(wanted) = &args.why {
        return why(wanted, &closures, context);
    }
    let text = if context.ui.json() && !args.tree && !args.dot {
        let reports = closures.iter().map(|(_, closure)| closure.report());
        serde_json::to_string(&reports.reduce(ClosureReport::and))?
    } else {
        let texts = closures.iter().map(|(_, closure)| match (args.tree, args.dot) {
            (true, _) => closure.tree().to_string(),
            (_, true) => closure.dot(),
            _ => list(closure),
        });
        texts.collect::<Vec<_>>().concat()
    };
    context.ui.data(text.trim_end())?;
    let paths: usize = closures.iter().map(|(_, closure)| closure.members.len()).sum();
    let bytes: u64 = closures.iter().map(|(_, closure)| closure.nar_size()).sum();
    context.ui.note(&format!("{paths} store paths, {}.", size(bytes)));
    Ok(Outcome::Done)
}

/// The closures of all targets, one for each store in which there is anything of it.
fn closures(work: &Work) -> anyhow::Result<Vec<(&dyn ReadStore, Closure)>> {
    let (mut own, mut in_nix) = (BTreeSet::new(), BTreeSet::new());
    for target in &work.targets {
        own.extend(work.roots(target));
        in_nix.extend(work.nix_roots(target)?);
        if let (Target::Image(name), Some(project)) = (target, &work.project) {
            for mention in mentions(&project.workspace.images[name]) {
                match mention.nix {
                    true => in_nix.insert(mention.path),
                    false => own.insert(mention.path),
                };
            }
        }
    }
    let mut closures: Vec<(&dyn ReadStore, Closure)> = Vec::new();
    if !own.is_empty() || in_nix.is_empty() {
        closures.push((&work.store, closure::compute(&work.store, &own)?));
    }
    if !in_nix.is_empty() {
        let store = work.nix.get()?;
        closures.push((store, work.nix.closure(&in_nix)?));
    }
    Ok(closures)
}

fn list(closure: &Closure) -> String {
    let lines = closure
        .members
        .iter()
        .map(|info| format!("{}\t{}\n", closure.dir.join(&info.path), size(info.nar_size)));
    lines.collect()
}

fn why(wanted: &str, closures: &[(&dyn ReadStore, Closure)], context: &Context) -> anyhow::Result<Outcome> {
    let mut found = false;
    for (store, closure) in closures {
        let roots: BTreeSet<StorePath> = closure.roots.iter().cloned().collect();
        let members = closure.members.iter().map(|info| &info.path);
        for target in members.filter(|path| names(wanted, path, &closure.dir)) {
            found = true;
            for chain in closure::why(*store, &roots, target)? {
                let text = if context.ui.json() {
                    json!(chain).to_string()
                } else {
                    render_chain(&chain, &closure.dir)
                };
                context.ui.data(&text)?;
            }
        }
    }
    if !found {
        let help = "`layerize closure` lists what is in it";
        return Err(advised(format!("nothing named `{wanted}` is in the closure"), help));
    }
    Ok(Outcome::Done)
}

/// Whether the user means this path: the whole of it, its name, or its name without version.
fn names(wanted: &str, path: &StorePath, dir: &StoreDir) -> bool {
    let name = path.name();
    dir.join(path) == wanted
        || path.to_string() == wanted
        || name == wanted
        || name.strip_prefix(wanted).is_some_and(|rest| {
            rest.strip_prefix('-')
                .is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_named_with_or_without_version() {
        let path: StorePath = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-libc6-2.36".parse().unwrap();
        let dir = StoreDir::layerize();
        for wanted in ["libc6", "libc6-2.36", "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-libc6-2.36"] {
            assert!(names(wanted, &path, &dir), "{wanted}");
        }
        assert!(names(&dir.join(&path), &path, &dir));
        for wanted in ["libc", "libc6-2", "2.36", ""] {
            assert!(!names(wanted, &path, &dir), "{wanted}");
        }
    }
}
