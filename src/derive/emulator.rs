//! The *emulator* of a plan: what runs its scripts on a machine that they are not for.
//!
//! Invariant: it is in the plan where the lock pins it for this machine, and in no hash of what it runs.

use super::make::Maker;
use super::{Action, Derivation, Download};
use crate::spec;

impl Maker<'_> {
    /// The step that takes what runs scripts on this machine, where they are for another one and the lock pins it.
    pub(super) fn add_emulator(&mut self) {
        self.plan.system = self.scripts().system();
        let system = self.plan.system.clone();
        let machine = system.trim_end_matches("-linux");
        if machine == spec::own_machine() {
            return;
        }
        let locked = self.lock.machines.get(spec::machine_architecture());
        let Some((locked, members)) =
            locked.and_then(|locked| Some((locked, locked.deb_sets.get(&spec::emulator_debs())?)))
        else {
            return;
        };
        let debs = members.iter().filter_map(|name| {
            let deb = locked.debs.get(name)?;
            Some((name.clone(), Download::deb(name, deb)))
        });
        let action = Action::UnpackEmulator {
            debs: debs.collect(),
            programs: spec::emulator_programs(machine),
        };
        let emulator = self.add(Derivation {
            label: format!("the emulator of {machine}"),
            name: format!("emulator-of-{machine}"),
            action,
        });
        self.plan.emulator = Some(emulator);
    }
}
