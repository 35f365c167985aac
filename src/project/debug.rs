//! What a *debug image* has above the image that it is of, as a recipe has it.
//!
//! Invariant: the recipe of the debug image is that of the first one in everything else.

use std::collections::BTreeSet;
use std::path::Path;

use crate::derive::{ImageInputs, Input};
use crate::event::Event;
use crate::image::{self, ClosureMember, Debug, DebugTree, Recipe};
use crate::layer::partition::Origin;
use crate::store_path::StoreDir;
use crate::transport;

use super::environment::Environment;
use super::error::ProjectError;
use super::work::Work;

/// Most packages that a note names.
const NAMES_SHOWN: usize = 4;

/// What a spec's image has above the one that it is of; `None` for one that is no debug image.
pub(super) fn of_spec(
    recipe: &Recipe,
    inputs: &ImageInputs,
    work: &Work,
    environment: &Environment<'_>,
) -> Result<Option<Debug>, ProjectError> {
    let Some(debug) = &inputs.debug else { return Ok(None) };
    let tools = tools(&debug.tools, work)?;
    let lock = &work.project.as_ref().expect("an image of a spec has a project").lock;
    let is_there = |name: &String| {
        let path = work.plan.debs.get(name).and_then(|input| work.paths.get(input));
        if path.is_some_and(|path| !has_programs(&work.store.physical(path))) {
            return false;
        }
        let logical = path.map(|path| StoreDir::layerize().logical(path));
        let in_root = recipe.root.iter().any(|package| package.name == *name);
        in_root
            || recipe
                .closure
                .iter()
                .any(|member| Some(&member.logical) == logical.as_ref())
    };
    let of_image = debug.debs.iter().filter(|(name, _)| is_there(name));
    let (with, without): (Vec<_>, Vec<_>) = of_image.partition(|(_, files)| files.is_some());
    let debs = with.into_iter().flat_map(|(_, files)| files).map(|(name, input)| {
        let version = lock.debs.get(name).map(|deb| deb.version.clone());
        tree(name.clone(), version.unwrap_or_default(), input, work)
    });
    let built = debug
        .built
        .iter()
        .map(|(name, input)| tree(name.0.replace(':', "-"), String::new(), input, work));
    if !without.is_empty() {
        let names: Vec<&str> = without.into_iter().map(|(name, _)| name.as_str()).collect();
        let more = match names.len().saturating_sub(NAMES_SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let text = format!(
            "{}: without debug files of {}{more}: no `NAME-dbgsym` of their versions was in Debian's sources when the lock was \
             made",
            recipe.spec.name.value,
            names[..names.len().min(NAMES_SHOWN)].join(", ")
        );
        environment.reporter.report(Event::Note { text });
    }
    Ok(Some(Debug {
        debs: debs.collect::<Result<_, _>>()?,
        built: built.collect::<Result<_, _>>()?,
        taken: taken(recipe, &tools)?,
        tools,
    }))
}

/// Whether a package may have anything to debug: some have a directory of documents and no more.
fn has_programs(tree: &Path) -> bool {
    ["usr/bin", "usr/lib", "usr/libexec", "usr/sbin", "opt"]
        .iter()
        .any(|dir| tree.join(dir).is_dir())
}

fn tools(input: &Input, work: &Work) -> Result<ClosureMember, ProjectError> {
    let path = work.path(input);
    let info = work.store.info(&path)?;
    let info = info.ok_or_else(|| ProjectError::Gone { path: path.clone() })?;
    Ok(ClosureMember::new(
        &info,
        &StoreDir::layerize(),
        work.store.physical(&path),
        false,
        Origin::Distribution,
    ))
}

fn tree(name: String, version: String, input: &Input, work: &Work) -> Result<DebugTree, ProjectError> {
    let path = work.path(input);
    let info = work.store.info(&path)?;
    let info = info.ok_or_else(|| ProjectError::Gone { path: path.clone() })?;
    Ok(DebugTree {
        name,
        version,
        physical: work.store.physical(&path),
        logical: StoreDir::layerize().logical(&path),
        nar_hash: info.nar_hash,
    })
}

/// What the image's base has at the places where tools are seen. Its layers are read for it.
fn taken(recipe: &Recipe, tools: &ClosureMember) -> Result<BTreeSet<String>, ProjectError> {
    let Some(base) = &recipe.base else {
        return Ok(BTreeSet::new());
    };
    let seen = image::debug_tools_seen(&tools.physical)?;
    let seen: Vec<&str> = seen.iter().map(String::as_str).collect();
    Ok(transport::entries(&base.image.layers, &seen)?.into_keys().collect())
}
