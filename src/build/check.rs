//! A *check* runs the scripts of a step again, in other surroundings, to see whether its output is the same.
//!
//! Invariant: nothing that a check makes is registered or recorded: the store knows as much after it as before, but for
//! inputs that had been collected.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::configuring::ConfigureStep;
use super::script::{Remade, ScriptStep};
use super::step::Resolved;
use super::variation::Variation;
use super::{BuildError, BuildOptions, realise};
use crate::derive::{Action, BuildPlan, Input, StepId};
use crate::digest::Digest;
use crate::event::Reporter;
use crate::graph;
use crate::store::Store;
use crate::store_path::{PathInfo, StorePath};

/// An output that was made again.
pub struct Again {
    /// What the store has of the same derivation.
    pub known: PathInfo,
    remade: Remade,
}

impl Again {
    /// Whether it came out the same.
    pub fn is_same(&self) -> bool {
        self.remade.nar_hash == self.known.nar_hash
    }

    /// SHA-256 of its canonical archive.
    pub fn nar_hash(&self) -> Digest {
        self.remade.nar_hash
    }

    /// Size of that in bytes.
    pub fn nar_size(&self) -> u64 {
        self.remade.nar_size
    }

    /// Where it is, as long as this lives.
    pub fn tree(&self) -> &Path {
        &self.remade.tree
    }
}

/// The steps that run a script, among all that `targets` need, each after what it needs.
pub fn checked_steps(plan: &BuildPlan, targets: &[Input]) -> Vec<StepId> {
    let needed = graph::closure(targets.iter().filter_map(step), |&id| {
        plan.steps[id].inputs().into_iter().filter_map(step)
    });
    let scripts = needed
        .into_iter()
        .filter(|&id| matches!(plan.steps[id].action, Action::Script(_) | Action::Configure(_)));
    scripts.collect()
}

fn step(input: &Input) -> Option<StepId> {
    match input {
        Input::Step(id) => Some(*id),
        Input::Path(_) => None,
    }
}

/// Runs the script of a step, or the maintainer scripts of a configure step, whose output is in the store, once more.
pub fn make_again(
    store: &Store,
    plan: &BuildPlan,
    id: StepId,
    variations: &BTreeSet<Variation>,
    options: &BuildOptions,
    reporter: &dyn Reporter,
) -> Result<Again, BuildError> {
    let derivation = &plan.steps[id];
    // What only a build needs may have been collected.
    let inputs: Vec<Input> = derivation.inputs().into_iter().cloned().collect();
    let paths: BTreeMap<Input, StorePath> = realise(store, plan, &inputs, options, reporter)?;
    let resolved = Resolved::new(derivation, &|input| paths[input].clone());
    let known = store.realisation(&resolved.digest)?;
    let known = match known {
        Some(path) => path,
        // The inputs came out otherwise than when it was made, or it was collected.
        None => realise(store, plan, &[Input::Step(id)], options, reporter)?[&Input::Step(id)].clone(),
    };
    let digest = resolved.digest;
    let walls = options.choose_walls_here(store, reporter)?;
    let remade = match &derivation.action {
        Action::Script(script) => ScriptStep {
            store,
            options,
            reporter,
            derivation,
            script,
            walls,
            execution: options.execution_of(derivation, walls, store, reporter)?,
            digest,
            paths: &paths,
            variations,
        }
        .run_again(&known)?,
        Action::Configure(configure) => ConfigureStep {
            store,
            options,
            reporter,
            derivation,
            configure,
            digest,
            paths: &paths,
            variations,
        }
        .run_again()?,
        _ => unreachable!("only steps with scripts are checked"),
    };
    let info = store.info(&known)?.ok_or(BuildError::MissingPath { path: known })?;
    Ok(Again { known: info, remade })
}
