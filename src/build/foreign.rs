//! How *programs* of what was built run here, where they are for another processor than the machine's.
//!
//! Invariant: as with scripts, it is found out by trying; what nothing can run is told before anything is started.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::emulation::{ForeignScript, Foreigner, program};
use super::{BuildError, BuildOptions, realise};
use crate::derive::{BuildPlan, Script};
use crate::event::{Reporter, Silent};
use crate::execution::Execution;
use crate::sandbox::emulator::{Emulator, Processor};
use crate::spec;
use crate::store::Store;
use crate::store_path::StorePath;
use crate::walls::Walls;

/// Programs for a processor that can be had in no way.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot run the programs of `{label}`: they are for {system}, and this machine is {machine}\n  emulator: {}",
    emulator.join("; ")
)]
pub struct ForeignPrograms {
    /// What the user calls what has them.
    pub label: String,
    /// What they are for: `aarch64-linux`.
    pub system: String,
    /// What this machine is.
    pub machine: String,
    /// Why no emulator runs them.
    pub emulator: Vec<String>,
    /// What is to be done for one.
    help: Vec<String>,
}

impl ForeignPrograms {
    /// What to type next.
    pub(super) fn help(&self) -> String {
        let about = format!("`layerize help emulation` says what {} takes here", self.system);
        let help = self.help.iter().cloned().chain([about]);
        help.collect::<Vec<_>>().join("\n  ")
    }

    /// Of what is said of scripts, as much as goes for programs.
    fn of(script: ForeignScript, is_locked: bool) -> Self {
        let lacks = "`layerize lock` adds an emulator where the spec has a test of an image for such a processor \
                     (`[image.NAME.tests.NAME]`), or a script that is not crossed";
        let help = match is_locked {
            true => script.help,
            // Of the advice for scripts, what is about the lock does not go for every image.
            false => std::iter::once(lacks.to_owned())
                .chain(script.help.into_iter().skip(1))
                .collect(),
        };
        Self {
            label: script.label,
            system: script.system,
            machine: script.machine,
            emulator: script.emulator,
            help,
        }
    }
}

/// What runs the programs of what a plan makes on this machine; `None`: the machine itself. `label` is what the user calls
/// what has them.
///
/// # Errors
///
/// They are for another processor, and nothing runs them here, or the emulator cannot be fetched.
pub fn emulator(
    label: &str,
    store: &Store,
    plan: &BuildPlan,
    options: &BuildOptions,
    reporter: &dyn Reporter,
) -> Result<Option<Emulator>, BuildError> {
    let programs = Foreigner {
        label,
        system: &plan.system,
        emulator: plan.emulator.as_ref(),
        is_build: false,
    };
    let execution = match options.choose_execution(programs, Walls::Namespaces, store, &Silent) {
        Err(BuildError::Foreign(script)) => {
            let is_locked = plan.emulator.is_some() || options.emulation.is_without_lock();
            return Err(BuildError::ForeignPrograms(Box::new(ForeignPrograms::of(
                *script, is_locked,
            ))));
        }
        execution => execution?,
    };
    let found = plan.emulator.as_ref().zip(Processor::of_system(&plan.system));
    let Some((input, processor)) = found.filter(|_| execution == Execution::Emulated) else {
        return Ok(None);
    };
    let paths = realise(store, plan, std::slice::from_ref(input), options, reporter)?;
    let path = paths.get(input);
    Ok(path.map(|path| Emulator::new(processor, program(store, path))))
}

/// Leaves a script that is to be entered the emulator that the lock pins only where that is what runs it; `label` is what the
/// user calls it.
///
/// # Errors
///
/// It is for another processor, and nothing runs it here.
pub fn choose_emulator(
    label: &str,
    script: &mut Script,
    store: &Store,
    options: &BuildOptions,
    reporter: &dyn Reporter,
) -> Result<(), BuildError> {
    let foreigner = Foreigner {
        label,
        system: &script.system,
        emulator: script.emulator.as_ref(),
        is_build: true,
    };
    if options.choose_execution(foreigner, Walls::Namespaces, store, reporter)? != Execution::Emulated {
        script.emulator = None;
    }
    Ok(())
}

/// An emulator for a system that is in the store because it was used before: what no lock is at hand for runs through it.
pub(super) fn known_emulator(store: &Store, system: &str) -> Result<Option<StorePath>, BuildError> {
    let machine = system.trim_end_matches("-linux");
    if machine.is_empty() || machine == spec::own_machine() {
        return Ok(None);
    }
    let name = spec::emulator_name(machine);
    // One that was copied from elsewhere may be a program for another machine.
    let own = machine_of("/proc/self/exe".as_ref());
    for (path, _) in store.derivation_texts()? {
        if path.name() == name
            && store.info(&path)?.is_some()
            && own.is_some()
            && machine_of(&program(store, &path)) == own
        {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// What machine an ELF file is for: `e_machine`, in the file's own order of bytes.
fn machine_of(program: &Path) -> Option<[u8; 2]> {
    let mut start = [0; 20];
    File::open(program).ok()?.read_exact(&mut start).ok()?;
    start.starts_with(b"\x7fELF").then_some([start[18], start[19]])
}
