//! The *origins* of what an image is made of: whose releases change each store path.
//!
//! Invariant: a function of spec and lock, by the names of store paths and not by what was realised here, so that a machine
//! that takes a closure from others arrives at the same layers.

use std::collections::{BTreeMap, BTreeSet};

use crate::derive::{Action, BuildPlan, Derivation, ImageInputs, Input, StepId};
use crate::layer::partition::Origin;

/// Origins by the name parts of store paths.
#[derive(Debug, Default)]
pub(super) struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// Those of what an image of the plan is made of. Where several steps make paths of one name, theirs is the origin that
    /// changes most.
    pub(super) fn of_image(plan: &BuildPlan, image: &ImageInputs) -> Self {
        let mut known: Vec<Origin> = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            known.push(of_step(step, &known));
        }
        let mut origins: BTreeMap<String, Origin> = BTreeMap::new();
        for id in needed(plan, image) {
            let origin = origins.entry(plan.steps[id].name.clone()).or_insert(known[id]);
            *origin = known[id].max(*origin);
        }
        Self(origins)
    }

    /// The origin of a path of this name.
    pub(super) fn of(&self, name: &str) -> Origin {
        self.0.get(name).copied().unwrap_or_default()
    }
}

/// The steps that an image needs.
fn needed(plan: &BuildPlan, image: &ImageInputs) -> BTreeSet<StepId> {
    let mut needed = BTreeSet::new();
    let mut waiting: Vec<&Input> = image.all().into_iter().collect();
    while let Some(input) = waiting.pop() {
        if let Input::Step(id) = input
            && needed.insert(*id)
        {
            waiting.extend(plan.steps[*id].inputs());
        }
    }
    needed
}

/// The origin of what a step makes, by those of the steps before it.
fn of_step(step: &Derivation, known: &[Origin]) -> Origin {
    let of_input = |input: &Input| match input {
        Input::Step(id) => known[*id],
        // What is in the store before anything is built was added from beside the spec.
        Input::Path(_) => Origin::Own,
    };
    match &step.action {
        // Without a source it is the work of the spec's own script.
        Action::Script(script) => script.source.as_ref().map_or(Origin::Own, of_input),
        Action::DebugInfo(info) => of_input(&info.output),
        Action::UnpackDeb { .. }
        | Action::UnpackDebControl { .. }
        | Action::UnpackDebSource { .. }
        | Action::UnpackEmulator { .. }
        | Action::DebPart { .. }
        | Action::Configure(_)
        | Action::DebugTools { .. } => Origin::Distribution,
        Action::Fetch(_)
        | Action::Restore(_)
        | Action::Unpack { .. }
        | Action::UnpackCrate { .. }
        | Action::UnpackGitCrates { .. }
        | Action::UnpackNpm { .. }
        | Action::UnpackGoModule { .. } => Origin::Upstream,
    }
}
