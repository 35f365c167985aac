//! *Repairing* a store: what is damaged is made again by whatever can make it, and else forgotten.
//!
//! Invariant: nothing is forgotten that can be made again; what could not be made now (no network, say) stays registered,
//! and the next build tries again.

use std::collections::BTreeSet;

use crate::build::{self, BuildOptions};
use crate::event::{Event, Silent};
use crate::spec::LockScope;
use crate::store::{Store, StoreProblem};
use crate::store_path::{StoreDir, StorePath};

use super::environment::{Environment, WorkOptions};
use super::error::ProjectError;
use super::files::Project;

/// What became of damaged paths.
#[derive(Debug, Default)]
pub struct Repair {
    /// Made again.
    pub made: BTreeSet<StorePath>,
    /// Nothing makes these, or they refer to such a path: they are no longer registered.
    pub forgotten: BTreeSet<StorePath>,
    /// Something makes these, and could not.
    pub failed: Vec<(StorePath, ProjectError)>,
}

/// Mends what `problems` say of a store: by the project here, if there is one, else as the store recorded how it was
/// made. `options` say how steps are carried out.
pub fn repair(
    store: &Store,
    problems: &[StoreProblem],
    options: &WorkOptions,
    environment: &Environment<'_>,
) -> Result<Repair, ProjectError> {
    let damaged: BTreeSet<StorePath> = problems.iter().filter_map(StoreProblem::mendable).cloned().collect();
    let mut repair = Repair::default();
    if *store.store_dir() == StoreDir::layerize() {
        make_again(store, &damaged, options, environment, &mut repair);
    }
    let kept: BTreeSet<&StorePath> = repair.failed.iter().map(|(path, _)| path).collect();
    let hopeless = problems.iter().filter(|problem| match problem.mendable() {
        Some(path) => !repair.made.contains(path) && !kept.contains(path),
        None => true,
    });
    repair.forgotten = store.repair(&hopeless.cloned().collect::<Vec<_>>())?;
    environment.tell_of_debris(store);
    Ok(repair)
}

/// Makes again what can be; of what Nix's caches gave, nothing is: it is fetched when it is needed.
fn make_again(
    store: &Store,
    damaged: &BTreeSet<StorePath>,
    options: &WorkOptions,
    environment: &Environment<'_>,
    repair: &mut Repair,
) {
    for path in damaged {
        store.note_damage(path);
    }
    let project = by_project(store, damaged, options, environment, repair);
    let build_options = match project {
        Ok(build_options) => Ok(build_options),
        Err(error) => {
            if !matches!(error, ProjectError::NoSpec) {
                let text = format!("the project here cannot help: {error}");
                environment.reporter.report(Event::Note { text });
            }
            environment.build_options(options, None)
        }
    };
    match build_options {
        Ok(build_options) => by_records(store, damaged, &build_options, environment, repair),
        Err(error) => environment.reporter.report(Event::Warning {
            text: format!("nothing can be rebuilt from the store's records: {error}"),
        }),
    }
    build::report_mended(store, environment.reporter);
    repair.made = damaged.iter().filter(|path| !store.is_damaged(path)).cloned().collect();
    repair.failed.retain(|(path, _)| store.is_damaged(path));
}

/// Makes again what a step or a source of the project is; gives how the project is built.
fn by_project(
    store: &Store,
    damaged: &BTreeSet<StorePath>,
    options: &WorkOptions,
    environment: &Environment<'_>,
    repair: &mut Repair,
) -> Result<BuildOptions, ProjectError> {
    let mut project = Project::load(environment)?;
    let reasons = project.lock_reasons(LockScope::Builds, environment)?;
    if !reasons.is_empty() {
        return Err(project.stale(reasons, options, environment));
    }
    project.bring_imports(options, environment)?;
    for (_, project) in project.from_all() {
        let plan = project.plan(store, &project.add_sources(store, &Silent)?)?;
        let build_options = environment.build_options(options, Some(&project))?;
        for (path, step) in build::makers(store, &plan, damaged)? {
            if let Err(error) = build::realise(store, &plan, &[step], &build_options, environment.reporter) {
                repair.failed.push((path, error.into()));
            }
        }
    }
    environment.build_options(options, Some(&project))
}

/// Makes again what the store says how to make, inputs before what is made of them.
fn by_records(
    store: &Store,
    damaged: &BTreeSet<StorePath>,
    options: &BuildOptions,
    environment: &Environment<'_>,
    repair: &mut Repair,
) {
    let mut left: Vec<&StorePath> = damaged.iter().filter(|path| store.is_damaged(path)).collect();
    loop {
        let before = left.len();
        left.retain(
            |&path| match build::make_recorded(store, path, options, environment.reporter) {
                Ok(made) => !made,
                Err(error) => {
                    repair.failed.push((path.clone(), error.into()));
                    false
                }
            },
        );
        if left.len() == before {
            return;
        }
    }
}
