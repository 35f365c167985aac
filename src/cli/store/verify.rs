//! `layerize store verify`: whether the store is what was recorded, and how it becomes so again.
//!
//! Invariant: exit status 0 says that nothing is wrong any more.

use std::collections::BTreeSet;

use clap::Args;

use crate::project::{self, Repair, WorkOptions};
use crate::store::{Store, StoreProblem};
use crate::store_path::{StoreDir, StorePath};

use crate::cli::context::Context;
use crate::cli::error::advised;
use crate::cli::outcome::Outcome;

/// Arguments of `layerize store verify`.
#[derive(Debug, Args)]
pub struct StoreVerifyArgs {
    /// Store paths [default: all]
    paths: Vec<String>,
    /// Only check that everything exists
    #[arg(long)]
    no_contents: bool,
    /// Rebuild what is damaged, by the project here or the store's records, and forget what cannot be rebuilt
    #[arg(long)]
    repair: bool,
}

/// Verifies, and repairs where that is asked for.
pub fn run(args: &StoreVerifyArgs, stores: &[Store], context: &Context) -> anyhow::Result<Outcome> {
    let (mut found, mut paths) = (Vec::new(), 0);
    for (store, wanted) in stores.iter().zip(by_store(&args.paths, stores)?) {
        let problems = match &wanted {
            None => store.verify(!args.no_contents)?,
            Some(wanted) => store.verify_paths(wanted, !args.no_contents)?,
        };
        paths += match wanted {
            None => store.list()?.len(),
            Some(wanted) => wanted.len(),
        };
        found.push((store, problems));
    }
    let count: usize = found.iter().map(|(_, problems)| problems.len()).sum();
    for problem in found.iter().flat_map(|(_, problems)| problems) {
        context.ui.data(&problem.to_string())?;
    }
    context.ui.line(&match count {
        0 => format!("{paths} store paths, all as they were recorded."),
        count => format!("{paths} store paths, {count} problems."),
    });
    let mut well = count == 0;
    if args.repair && !well {
        well = true;
        for (store, problems) in found.iter().filter(|(_, problems)| !problems.is_empty()) {
            well &= repair(store, problems, context)?;
        }
    }
    Ok(if well { Outcome::Done } else { Outcome::No })
}

/// For each store the paths that are to be looked at; `None`: all.
fn by_store(arguments: &[String], stores: &[Store]) -> anyhow::Result<Vec<Option<BTreeSet<StorePath>>>> {
    if arguments.is_empty() {
        return Ok(stores.iter().map(|_| None).collect());
    }
    let mut wanted: Vec<BTreeSet<StorePath>> = stores.iter().map(|_| BTreeSet::new()).collect();
    for argument in arguments {
        let text = argument.trim_end_matches('/');
        let in_dir = |dir: &StoreDir| dir.split(text).filter(|(_, below)| below.is_empty());
        let place = stores.iter().position(|store| in_dir(store.store_dir()).is_some());
        let (index, path) = match place {
            Some(index) => (index, in_dir(stores[index].store_dir()).map(|(path, _)| path)),
            // A path without its directory is layerize's own.
            None => (0, text.parse().ok()),
        };
        let path = path.ok_or_else(|| {
            advised(
                format!("`{argument}` is not a store path"),
                "`layerize store ls` lists what there is",
            )
        })?;
        wanted[index].insert(path);
    }
    Ok(wanted.into_iter().map(Some).collect())
}

/// Repairs a store and says what became of what was wrong; whether all is well now.
fn repair(store: &Store, problems: &[StoreProblem], context: &Context) -> anyhow::Result<bool> {
    let Repair {
        made,
        forgotten,
        failed,
    } = project::repair(store, problems, &WorkOptions::default(), &context.environment)?;
    for path in &forgotten {
        let path = store.store_dir().join(path);
        context.ui.line(&format!(
            "forgotten: {path}; the next build that needs it makes it again"
        ));
    }
    for (path, error) in &failed {
        let path = store.store_dir().join(path);
        context.ui.line(&format!("cannot make {path} again: {error}"));
    }
    context.ui.line(&format!(
        "{} made again, {} forgotten, {} could not be made.",
        made.len(),
        forgotten.len(),
        failed.len()
    ));
    let damaged: BTreeSet<&StorePath> = failed.iter().map(|(path, _)| path).collect();
    let beyond = problems.iter().any(|problem| match problem {
        StoreProblem::Database { .. } => true,
        StoreProblem::Unregistered { name } => name.parse::<StorePath>().is_err(),
        _ => false,
    });
    Ok(damaged.is_empty() && !beyond)
}
