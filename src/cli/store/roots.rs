//! `layerize store roots`: what the garbage collector keeps, for whom, and an end to it.
//!
//! Invariant: only roots go, and only those that are named; what they kept goes with the next collection.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::escape::shown;
use crate::fsio::normalize;
use crate::store::{Root, RootOwner, Store};
use crate::store_path::StoreDir;

use crate::cli::context::Context;
use crate::cli::error::advised;
use crate::cli::outcome::Outcome;

/// Arguments of `layerize store roots`.
#[derive(Debug, Args)]
pub struct RootsArgs {
    #[command(subcommand)]
    command: Option<RootsCommand>,
}

#[derive(Debug, Subcommand)]
enum RootsCommand {
    /// Remove roots: what they kept goes with a later `layerize store gc`
    Remove {
        /// Names of roots as `layerize store roots --verbose` shows them, or folders of projects
        #[arg(required = true, value_name = "NAME|DIR")]
        names: Vec<String>,
    },
}

/// Lists roots or removes them.
pub fn run(args: &RootsArgs, store: &Store, context: &Context) -> anyhow::Result<Outcome> {
    match &args.command {
        None => list(store, context),
        Some(RootsCommand::Remove { names }) => remove(names, store, context),
    }
}

/// A line for each target of each project, and for each root of which it is not known for whom it is; with `--verbose` one
/// for each root.
fn list(store: &Store, context: &Context) -> anyhow::Result<Outcome> {
    let mut of_targets: BTreeMap<&RootOwner, Vec<&Root>> = BTreeMap::new();
    let roots = store.roots()?;
    for root in &roots {
        match &root.owner {
            Some(owner) if !context.ui.json() && !context.ui.verbose() => {
                of_targets.entry(owner).or_default().push(root);
            }
            _ => context.ui.data(&match context.ui.json() {
                true => value(root).to_string(),
                false => line(root),
            })?,
        }
    }
    for (owner, roots) in of_targets {
        let vanished = if roots[0].has_vanished() {
            " (the folder is gone)"
        } else {
            ""
        };
        context
            .ui
            .data(&format!("{}{vanished}: {} roots", of_target(owner), roots.len()))?;
    }
    Ok(Outcome::Done)
}

fn of_target(owner: &RootOwner) -> String {
    let folder = owner.folder.display().to_string();
    format!("{} {} in {}", shown(&owner.kind), shown(&owner.target), shown(&folder))
}

fn line(root: &Root) -> String {
    let target = root.target.as_ref().map(|path| StoreDir::layerize().join(path));
    let owner = root.owner.as_ref().map(|owner| format!(" ({})", of_target(owner)));
    format!(
        "{} → {}{}",
        shown(&root.name),
        target.as_deref().unwrap_or("nothing (stale)"),
        owner.unwrap_or_default()
    )
}

fn value(root: &Root) -> serde_json::Value {
    let owner = root.owner.as_ref();
    json!({
        "name": root.name,
        "link": root.link,
        "target": root.target.as_ref().map(|path| StoreDir::layerize().join(path)),
        "folder": owner.map(|owner| owner.folder.display().to_string()),
        "of": owner.map(|owner| json!({ "kind": owner.kind, "name": owner.target })),
        "vanished": root.has_vanished(),
    })
}

fn remove(names: &[String], store: &Store, context: &Context) -> anyhow::Result<Outcome> {
    let roots = store.roots()?;
    for name in names {
        let folder = normalize(&context.environment.here.join(name));
        // A project may have been built by a name of its folder that leads through links.
        let real = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        let is_of_folder = |root: &&Root| {
            let owner = root.owner.as_ref();
            owner.is_some_and(|owner| owner.folder == folder || owner.folder == real)
                || root.link.as_ref().is_some_and(|link| *link == folder)
        };
        let is_meant = |root: &&Root| root.name == *name || is_of_folder(root);
        let meant: Vec<&Root> = roots.iter().filter(is_meant).collect();
        if meant.is_empty() {
            return Err(advised(
                format!("`{name}` is neither the name of a root nor the folder of a project that has some"),
                "`layerize store roots` lists folders, and with `--verbose` the names of roots",
            ));
        }
        for root in &meant {
            store.remove_root(&root.name)?;
        }
        context.ui.note(&format!(
            "{}: {} roots removed; `layerize store gc` deletes what nothing else keeps.",
            shown(name),
            meant.len()
        ));
    }
    Ok(Outcome::Done)
}
