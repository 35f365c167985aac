//! A *check* runs the scripts of a step again, in other surroundings, to see whether its output is the same.
//!
//! Invariant: nothing that a check makes is registered or recorded: the store knows as much after it as before, but for
//! inputs that had been collected.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::configuring::ConfigureStep;
use super::emulation::Foreigner;
use super::script::{Remade, ScriptStep};
use super::step::Resolved;
use super::variation::Variation;
use super::{BuildError, BuildOptions, RemoteBuilds, realise};
use crate::derive::{Action, BuildPlan, Input, StepId};
use crate::digest::Digest;
use crate::event::Reporter;
use crate::execution::Execution;
use crate::graph;
use crate::store::Store;
use crate::store_path::{PathInfo, StorePath};
use crate::walls::Walls;

/// An output that was made again.
pub struct Again {
    /// What the store has of the same derivation.
    pub known: PathInfo,
    /// How the programs of its script ran both times, where they are for another processor than this machine's.
    pub compared: Option<Compared>,
    remade: Remade,
}

/// How the programs of a script ran that was run twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// The first time.
    pub first: Execution,
    /// The second time.
    pub again: Execution,
    /// The builder where that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub builder: Option<String>,
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
    let Known { paths, digest, path } = known(store, plan, id, options, reporter)?;
    let walls = options.choose_walls_here(store, reporter)?;
    // A check is of this machine's sandbox, whatever builder there is.
    let foreigner = Foreigner::of(derivation).filter(|script| script.is_foreign());
    let execution = match foreigner {
        Some(script) => options.choose_execution(script, walls, store, reporter)?,
        None => Execution::Native,
    };
    let remade = match &derivation.action {
        Action::Script(script) => ScriptStep {
            store,
            options,
            reporter,
            derivation,
            script,
            walls,
            execution,
            digest,
            paths: &paths,
            variations,
        }
        .run_again(&path)?,
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
    let (known, first) = info(store, path)?;
    let again = execution;
    Ok(Again {
        known,
        compared: foreigner.map(|_| Compared {
            first,
            again,
            builder: None,
        }),
        remade,
    })
}

/// As [`make_again`] at the builder of these options, where that is layerize on another machine and the output in the store was
/// made through an emulator: there the script's programs may run on their own processor. `None` where that is not so.
pub fn make_again_elsewhere(
    store: &Store,
    plan: &BuildPlan,
    id: StepId,
    options: &BuildOptions,
    reporter: &dyn Reporter,
) -> Result<Option<Again>, BuildError> {
    let derivation = &plan.steps[id];
    let peer = options.remote.as_deref().and_then(RemoteBuilds::peer);
    let (Some(peer), Action::Script(script)) = (peer, &derivation.action) else {
        return Ok(None);
    };
    let Known { paths, digest, path } = known(store, plan, id, options, reporter)?;
    let (known, first) = info(store, path)?;
    if !first.is_emulated() {
        return Ok(None);
    }
    let step = ScriptStep {
        store,
        options,
        reporter,
        derivation,
        script,
        walls: Walls::Builder,
        execution: Execution::Native,
        digest,
        paths: &paths,
        variations: &BTreeSet::new(),
    };
    let (remade, again) = step.run_again_at(peer)?;
    let builder = Some(peer.name());
    let compared = Some(Compared { first, again, builder });
    Ok(Some(Again {
        known,
        compared,
        remade,
    }))
}

/// An output that is in the store, with what it was made of.
struct Known {
    paths: BTreeMap<Input, StorePath>,
    /// Of the resolved derivation.
    digest: Digest,
    path: StorePath,
}

fn known(
    store: &Store,
    plan: &BuildPlan,
    id: StepId,
    options: &BuildOptions,
    reporter: &dyn Reporter,
) -> Result<Known, BuildError> {
    let derivation = &plan.steps[id];
    // What only a build needs may have been collected.
    let inputs: Vec<Input> = derivation.inputs().into_iter().cloned().collect();
    let paths: BTreeMap<Input, StorePath> = realise(store, plan, &inputs, options, reporter)?;
    let digest = Resolved::new(derivation, &|input| paths[input].clone()).digest;
    let path = match store.realisation(&digest)? {
        Some(path) => path,
        // The inputs came out otherwise than when it was made, or it was collected.
        None => realise(store, plan, &[Input::Step(id)], options, reporter)?[&Input::Step(id)].clone(),
    };
    Ok(Known { paths, digest, path })
}

/// What is known of an output, and how the programs ran that made it.
fn info(store: &Store, path: StorePath) -> Result<(PathInfo, Execution), BuildError> {
    let details = store.info_full(&path)?;
    let details = details.ok_or(BuildError::MissingPath { path })?;
    Ok((details.info, details.provenance.execution))
}
