//! How scripts for *another processor* than the machine's are run: through an emulator of the sandbox's own, which the lock
//! pins, or through one of the machine's.
//!
//! Invariant: as with walls, it is found out by trying, once for a run and before anything is fetched; what cannot be had is
//! an error that names each way there is and what it lacks, and nobody is shown "Exec format error".

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::{BuildError, BuildOptions};
use crate::derive::{Action, Derivation, Input};
use crate::event::{Event, Reporter};
use crate::execution::Execution;
use crate::fetch::EMULATOR;
use crate::fsio::with_causes;
use crate::sandbox::Sandbox;
use crate::sandbox::emulator::{Emulator, Processor};
use crate::spec::{self, Emulate};
use crate::store::Store;
use crate::store_path::StorePath;
use crate::walls::Walls;

/// Which emulators may be used, and what was found out of them.
#[derive(Debug, Clone, Default)]
pub struct EmulationChoice {
    allowed: Emulate,
    chosen: Arc<Mutex<BTreeMap<String, Execution>>>,
}

impl EmulationChoice {
    /// What a spec's `emulate` says.
    pub fn new(allowed: Emulate) -> Self {
        Self {
            allowed,
            chosen: Arc::default(),
        }
    }

    /// Whether the lock's emulator is not to be used, whatever it pins.
    pub(super) fn is_without_lock(&self) -> bool {
        self.allowed != Emulate::Auto
    }
}

/// A script that is to be run.
#[derive(Clone, Copy)]
pub(super) struct Foreigner<'a> {
    /// What the user calls what it makes.
    pub label: &'a str,
    /// What it is for: `aarch64-linux`; empty: whatever the machine is.
    pub system: &'a str,
    /// The emulator that the lock pins for this machine.
    pub emulator: Option<&'a Input>,
    /// Whether this machine could make the same with compilers of its own: maintainer scripts have to be run.
    pub is_build: bool,
}

impl<'a> Foreigner<'a> {
    /// What a step runs, if it runs anything.
    pub(super) fn of(step: &'a Derivation) -> Option<Self> {
        let (system, emulator) = match &step.action {
            Action::Script(script) => (&script.system, &script.emulator),
            Action::Configure(configure) => (&configure.system, &configure.emulator),
            _ => return None,
        };
        Some(Self {
            label: &step.label,
            system,
            emulator: emulator.as_ref(),
            is_build: matches!(step.action, Action::Script(_)),
        })
    }
}

impl Foreigner<'_> {
    /// Whether it is for another processor than this machine's.
    pub(super) fn is_foreign(&self) -> bool {
        !self.system.is_empty() && self.system != own_system()
    }
}

/// A script for a processor that can be had in no way.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot run the scripts of `{label}`: they are for {system}, and this machine is {machine}\n  \
     emulator: {}\n  cross compiler: {}\n  builder: none is given",
    emulator.join("; "),
    if *is_build { "not asked for" } else { "none makes what maintainer scripts make" }
)]
pub struct ForeignScript {
    /// What the user calls what it makes.
    pub label: String,
    /// What it is for: `aarch64-linux`.
    pub system: String,
    /// What this machine is.
    pub machine: String,
    /// Why no emulator runs it.
    pub emulator: Vec<String>,
    /// What is to be done for an emulator.
    pub help: Vec<String>,
    /// Whether it is a package's script.
    pub is_build: bool,
}

impl ForeignScript {
    /// What to type next.
    pub(super) fn help(&self) -> String {
        let mut help = self.help.clone();
        if self.is_build {
            help.push(
                "`cross = true` in `[package.NAME]`, or in `[build]` for all, compiles with this machine's tools, where the \
                 script uses `$CC` and the like"
                    .to_owned(),
            );
        }
        help.push(format!(
            "`--builder ADDRESS` builds where there is such a processor (`layerize help builders`); \
             `layerize help emulation` says what {} takes here",
            self.system
        ));
        help.join("\n  ")
    }
}

impl BuildOptions {
    /// How a script is run behind these walls.
    ///
    /// # Errors
    ///
    /// It is for another processor, and no emulator can be had.
    pub(super) fn choose_execution(
        &self,
        script: Foreigner<'_>,
        walls: Walls,
        store: &Store,
        reporter: &dyn Reporter,
    ) -> Result<Execution, BuildError> {
        if !script.is_foreign() {
            return Ok(Execution::Native);
        }
        let key = format!("{} {walls} {}", script.system, script.emulator.is_some());
        let mut chosen = self.emulation.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&execution) = chosen.get(&key) {
            return Ok(execution);
        }
        let execution = self.try_execution(script, walls, store)?;
        let how = match execution {
            Execution::Emulated => "through the emulator of the lock",
            Execution::EmulatedByMachine => "through an emulator of this machine",
            Execution::Native | Execution::Cross => "as it is",
        };
        if execution.is_emulated() {
            let text = format!("programs for {} run {how}, which takes its time", script.system);
            reporter.report(Event::Note { text });
        }
        chosen.insert(key, execution);
        Ok(execution)
    }

    /// How the script of a step is run behind these walls; at a builder it runs as it runs there.
    pub(super) fn execution_of(
        &self,
        step: &Derivation,
        walls: Walls,
        store: &Store,
        reporter: &dyn Reporter,
    ) -> Result<Execution, BuildError> {
        if let Action::Script(script) = &step.action
            && script.is_cross()
        {
            return Ok(Execution::Cross);
        }
        match Foreigner::of(step) {
            Some(script) if self.remote.is_none() => self.choose_execution(script, walls, store, reporter),
            _ => Ok(Execution::Native),
        }
    }

    fn try_execution(&self, script: Foreigner<'_>, walls: Walls, store: &Store) -> Result<Execution, BuildError> {
        let mut refused = ForeignScript {
            label: script.label.to_owned(),
            system: script.system.to_owned(),
            machine: own_system(),
            emulator: Vec::new(),
            help: Vec::new(),
            is_build: script.is_build,
        };
        let mut refuse = |reason: String, help: Option<String>| {
            refused.emulator.push(reason);
            refused.help.extend(help);
        };
        let Some(processor) = Processor::of_system(script.system) else {
            refuse("none is known for this processor".to_owned(), None);
            return Err(refused.into());
        };
        if walls == Walls::None {
            // The machine's own programs would run, and make what is for the machine.
            refuse(
                "without walls the machine's own programs would run, whatever they are for".to_owned(),
                Some("leave `--sandbox none` out".to_owned()),
            );
            return Err(refused.into());
        }
        let helper = self.helper.as_deref();
        let is_kin = (own_machine(), processor.machine) == ("x86_64", "i686");
        if is_kin && Sandbox::try_processor(processor, walls, helper, store.stage()?.path()).is_ok() {
            return Ok(Execution::Native);
        }
        match (self.emulation.allowed, script.emulator, walls) {
            (Emulate::Never, ..) => refuse(
                "`emulate = \"never\"` in `[build]`".to_owned(),
                Some("leave `emulate` out, and scripts run through an emulator".to_owned()),
            ),
            (Emulate::Machine, ..) => {}
            (Emulate::Auto, None, _) => refuse(
                format!("the lock pins none for {}", own_machine()),
                Some("`layerize lock` pins one".to_owned()),
            ),
            (Emulate::Auto, Some(_), Walls::Namespaces) => {
                match Sandbox::try_emulator(processor, helper, store.stage()?.path()) {
                    Ok(()) => return Ok(Execution::Emulated),
                    Err(error) => refuse(with_causes(&error), error.help()),
                }
            }
            (Emulate::Auto, Some(_), _) => refuse(format!("behind `{walls}` a sandbox has none of its own"), None),
        }
        if self.emulation.allowed != Emulate::Never {
            if Sandbox::try_processor(processor, walls, helper, store.stage()?.path()).is_ok() {
                return Ok(Execution::EmulatedByMachine);
            }
            refuse(
                format!("this machine itself runs no programs for {}", processor.machine),
                Some(
                    "`sudo apt install qemu-user-static binfmt-support` teaches this machine to, outside of any container"
                        .to_owned(),
                ),
            );
        }
        Err(refused.into())
    }
}

impl BuildError {
    /// The same of maintainer scripts, which an image can do without.
    pub(super) fn of_maintainer_scripts(mut self) -> Self {
        if let Self::Foreign(refused) = &mut self {
            let without = "`configure = false` in the image leaves its packages as they are unpacked";
            refused.help.push(without.to_owned());
        }
        self
    }
}

impl From<ForeignScript> for BuildError {
    fn from(refused: ForeignScript) -> Self {
        Self::Foreign(Box::new(refused))
    }
}

/// What a sandbox is given for a script that is run so.
pub(super) fn emulator_of(
    execution: Execution,
    script: Foreigner<'_>,
    store: &Store,
    paths: &BTreeMap<Input, StorePath>,
) -> Option<Emulator> {
    let processor = Processor::of_system(script.system).filter(|_| execution == Execution::Emulated)?;
    let path = script.emulator.and_then(|input| paths.get(input))?;
    Some(Emulator::new(processor, program(store, path)))
}

/// The program of the step that takes an emulator out of its package.
pub(super) fn program(store: &Store, path: &StorePath) -> PathBuf {
    store.physical(path).join(EMULATOR)
}

/// This machine, as Nix names it.
fn own_system() -> String {
    format!("{}-linux", own_machine())
}

fn own_machine() -> &'static str {
    spec::own_machine()
}
