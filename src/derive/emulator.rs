//! The *emulator* of a plan: what runs its scripts on a machine that they are not for.
//!
//! Invariant: it is in the plan where the lock pins it for this machine, and in no hash of what it runs.

use super::make::Maker;
use super::{Action, BuildPlan, Derivation, Download, Input};
use crate::spec::{self, Lock};

impl Maker<'_> {
    /// The step that takes what runs scripts on this machine, where they are for another one and the lock pins it.
    pub(super) fn add_emulator(&mut self) {
        self.plan.system = self.scripts().system();
        if let Some(emulator) = step(self.lock, &self.plan.system) {
            self.plan.emulator = Some(self.add(emulator));
        }
    }
}

/// The plan of nothing but the emulator for a system that a lock pins for this machine, if it pins one.
pub fn emulator_alone(lock: &Lock, system: &str) -> BuildPlan {
    let steps: Vec<Derivation> = step(lock, system).into_iter().collect();
    BuildPlan {
        system: system.to_owned(),
        emulator: (!steps.is_empty()).then_some(Input::Step(0)),
        steps,
        ..BuildPlan::default()
    }
}

fn step(lock: &Lock, system: &str) -> Option<Derivation> {
    let machine = system.trim_end_matches("-linux");
    if machine == spec::own_machine() {
        return None;
    }
    let locked = lock.machines.get(spec::machine_architecture())?;
    let members = locked.deb_sets.get(&spec::emulator_debs())?;
    let debs = members.iter().filter_map(|name| {
        let deb = locked.debs.get(name)?;
        Some((name.clone(), Download::deb(name, deb)))
    });
    Some(Derivation {
        label: format!("the emulator of {machine}"),
        name: spec::emulator_name(machine),
        action: Action::UnpackEmulator {
            debs: debs.collect(),
            programs: spec::emulator_programs(machine),
        },
    })
}
