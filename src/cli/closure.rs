//! `layerize closure`: what a package, an image or a store path needs at run time, and why.

use clap::Args;
use serde_json::json;

use crate::closure::{Closure, ClosureReport};
use crate::project::{PlatformChoice, StoredClosure, work};

use super::complete;
use super::context::Context;
use super::error::advised;
use super::flags::{BuildFlags, PlatformOrAll, value};
use super::outcome::Outcome;
use super::places::Names;
use super::text::{render_chain, size};

/// Arguments of `layerize closure`.
#[derive(Debug, Args)]
pub struct ClosureArgs {
    /// Images, packages or store paths [default: all images]
    #[arg(add = complete::targets())]
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
    /// Show what is for these platforms, separated by commas, or `all` [default: this machine's]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', value_parser = value::<PlatformOrAll>)]
    platform: Vec<PlatformOrAll>,
    #[command(flatten)]
    flags: BuildFlags,
}

impl ClosureArgs {
    /// The arguments that may name a spec elsewhere.
    pub fn names(&mut self) -> (Names<'_>, &mut BuildFlags) {
        (Names::Several(&mut self.targets), &mut self.flags)
    }
}

/// Realises the targets and prints their closure.
pub fn run(args: &ClosureArgs, context: &Context) -> anyhow::Result<Outcome> {
    let work = work::prepare(
        &args.targets,
        &args
            .flags
            .options_for(PlatformOrAll::choice(&args.platform, PlatformChoice::Own)),
        &context.environment,
    )?;
    context.ui.clear();
    let closures = work.closures()?;
    if let Some(wanted) = &args.why {
        return why(wanted, &closures, context);
    }
    let all = || closures.iter().map(|stored| &stored.closure);
    let text = if context.ui.json() && !args.tree && !args.dot {
        serde_json::to_string(&all().map(Closure::report).reduce(ClosureReport::and))?
    } else {
        let texts = all().map(|closure| match (args.tree, args.dot) {
            (true, _) => closure.tree().to_string(),
            (_, true) => closure.dot(),
            _ => list(closure),
        });
        texts.collect::<Vec<_>>().concat()
    };
    context.ui.data(text.trim_end())?;
    let paths: usize = all().map(|closure| closure.members.len()).sum();
    let bytes: u64 = all().map(Closure::nar_size).sum();
    context.ui.note(&format!("{paths} store paths, {}.", size(bytes)));
    Ok(Outcome::Done)
}

fn list(closure: &Closure) -> String {
    let lines = closure
        .members
        .iter()
        .map(|info| format!("{}\t{}\n", closure.dir.join(&info.path), size(info.nar_size)));
    lines.collect()
}

fn why(wanted: &str, closures: &[StoredClosure<'_>], context: &Context) -> anyhow::Result<Outcome> {
    let mut found = false;
    for stored in closures {
        for target in stored.named(wanted) {
            found = true;
            for chain in stored.why(target)? {
                let text = match context.ui.json() {
                    true => json!(chain).to_string(),
                    false => render_chain(&chain, &stored.closure.dir),
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
