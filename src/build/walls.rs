//! The *ladder of walls*: the strongest that can be had on this machine are those that scripts run behind.
//!
//! Invariant: walls are chosen once for a run, by trying them, before anything is fetched or built; weaker ones than the
//! strongest are told, and none weaker than was asked for are chosen. A machine's own programs are no substitute for those
//! that a spec names, so no walls at all are chosen only where somebody said that they are enough.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::emulation::Foreigner;
use super::{BuildError, BuildOptions};
use crate::derive::{Action, BuildPlan, Derivation, StepId};
use crate::event::{Event, Reporter};
use crate::fsio::with_causes;
use crate::remote::Farm;
use crate::sandbox::Sandbox;
use crate::store::Store;
use crate::store_path::StoreDir;
use crate::walls::Walls;

/// The weakest that are chosen where nothing is said.
const UNASKED: Walls = Walls::Traced;

/// Which walls scripts are to run behind.
#[derive(Debug, Clone, Default)]
pub struct WallsChoice {
    exactly: Option<Walls>,
    at_least: Option<Walls>,
    chosen: Arc<Mutex<Option<Walls>>>,
}

/// Walls that were tried and cannot be had.
#[derive(Debug)]
pub struct RefusedWalls {
    /// Which.
    pub walls: Walls,
    /// Why, with all causes.
    pub reason: String,
    /// What to do for them.
    pub help: Option<String>,
}

impl WallsChoice {
    /// `exactly` these, or the strongest that can be had; and in any case none weaker than `at_least`.
    pub fn new(exactly: Option<Walls>, at_least: Option<Walls>) -> Self {
        Self {
            exactly,
            at_least,
            chosen: Arc::default(),
        }
    }

    /// The weakest that are enough, where something is required.
    pub(super) fn least(&self) -> Option<Walls> {
        self.at_least
    }

    /// The walls of this run.
    ///
    /// # Errors
    ///
    /// None that were asked for can be had.
    fn choose(&self, store: &Store, helper: Option<&Path>, reporter: &dyn Reporter) -> Result<Walls, BuildError> {
        match self.exactly {
            Some(walls) if self.at_least.is_some_and(|least| walls < least) => Err(BuildError::TooWeak {
                walls,
                least: self.at_least.unwrap_or(walls),
            }),
            Some(Walls::None) => check_linked(store).map(|()| Walls::None),
            // Whether they can be had shows.
            Some(walls) => Ok(walls),
            None => self.climb(store, helper, reporter),
        }
    }

    /// Tries walls from the strongest down.
    fn climb(&self, store: &Store, helper: Option<&Path>, reporter: &dyn Reporter) -> Result<Walls, BuildError> {
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(walls) = *chosen {
            return Ok(walls);
        }
        let least = self.at_least.unwrap_or(UNASKED);
        let mut refused = Vec::new();
        let ladder = Walls::LADDER.into_iter().filter(|walls| walls.is_of_this_machine());
        for walls in ladder.filter(|&walls| walls >= least) {
            match try_walls(walls, store, helper)? {
                None => {
                    if let Some(stronger) = refused.first() {
                        tell(walls, stronger, reporter);
                    }
                    *chosen = Some(walls);
                    return Ok(walls);
                }
                Some(refusal) => refused.push(refusal),
            }
        }
        Err(BuildError::NoWalls { least, refused })
    }
}

/// Why walls cannot be had; `None`: they can.
fn try_walls(walls: Walls, store: &Store, helper: Option<&Path>) -> Result<Option<RefusedWalls>, BuildError> {
    let refusal = |reason: String, help: Option<String>| RefusedWalls { walls, reason, help };
    if let (Walls::None, Err(error)) = (walls, check_linked(store)) {
        return Ok(Some(refusal(with_causes(&error), error.help())));
    }
    let staging = store.stage()?;
    Ok(match Sandbox::try_walls(walls, helper, staging.path()) {
        Ok(()) => None,
        Err(error) => Some(refusal(with_causes(&error), error.help())),
    })
}

/// Without walls the store's paths must be where they say.
fn check_linked(store: &Store) -> Result<(), BuildError> {
    let physical = store.dir().join("store");
    match fs::canonicalize(StoreDir::LAYERIZE).ok() == fs::canonicalize(&physical).ok() {
        true => Ok(()),
        false => Err(BuildError::NotLinked { store: physical }),
    }
}

/// Says which walls scripts run behind, and why not behind stronger ones.
fn tell(walls: Walls, stronger: &RefusedWalls, reporter: &dyn Reporter) {
    let text = format!(
        "scripts run behind weaker walls, `{walls}` instead of `{}` (`layerize help sandbox`): {}",
        stronger.walls, stronger.reason
    );
    reporter.report(Event::Warning { text });
}

impl BuildOptions {
    /// The walls of this run.
    pub(super) fn choose_walls(&self, store: &Store, reporter: &dyn Reporter) -> Result<Walls, BuildError> {
        let farm = self.remote.as_ref().and_then(|remote| remote.farm());
        let makes_walls = farm.is_some_and(Farm::makes_walls);
        // A peer chooses its own, and has to have what is required.
        match (&self.remote, self.walls.at_least.filter(|_| farm.is_some())) {
            (None, _) => self.walls.choose(store, self.helper.as_deref(), reporter),
            (Some(_), Some(least)) if least > Walls::Builder && !makes_walls => Err(BuildError::TooWeak {
                walls: Walls::Builder,
                least,
            }),
            // What it has shows there. What runs here after all chooses then.
            (Some(_), _) => Ok(Walls::Builder),
        }
    }

    /// The walls of a script that runs here although the run has a builder.
    pub(super) fn choose_walls_here(&self, store: &Store, reporter: &dyn Reporter) -> Result<Walls, BuildError> {
        self.walls.choose(store, self.helper.as_deref(), reporter)
    }

    /// Refuses, before anything is done, to do steps for which there are no walls here.
    pub(super) fn check_walls(
        &self,
        store: &Store,
        plan: &BuildPlan,
        expected: &BTreeSet<StepId>,
        reporter: &dyn Reporter,
    ) -> Result<(), BuildError> {
        // The step that would be the first to write there says so.
        if store.is_read_only() {
            return Ok(());
        }
        let steps = || expected.iter().map(|&id| &plan.steps[id]);
        let configures = |step: &&Derivation| matches!(step.action, Action::Configure(_));
        if steps().any(|step| configures(&step)) {
            self.check_walls_of_configuring(store, reporter)?;
        }
        let runs = |step: &&Derivation| matches!(step.action, Action::Script(_));
        if steps().any(|step| runs(&step)) {
            let walls = self.choose_walls(store, reporter)?;
            // What a builder has is not known here.
            for script in steps()
                .filter(runs)
                .filter_map(Foreigner::of)
                .filter(|_| self.remote.is_none())
            {
                self.choose_execution(script, walls, store, reporter)?;
            }
        }
        for script in steps().filter(configures).filter_map(Foreigner::of) {
            let chosen = self.choose_execution(script, Walls::Namespaces, store, reporter);
            chosen.map_err(BuildError::of_maintainer_scripts)?;
        }
        Ok(())
    }

    /// Refuses to run maintainer scripts in anything but namespaces.
    pub(super) fn check_walls_of_configuring(&self, store: &Store, reporter: &dyn Reporter) -> Result<(), BuildError> {
        // Whether other walls that were asked for can be had does not matter.
        let walls = match self.walls.exactly {
            Some(walls) => walls,
            // They run here in any case.
            None => self.choose_walls_here(store, reporter)?,
        };
        match walls {
            Walls::Namespaces => Ok(()),
            walls => Err(BuildError::ScriptsUnwalled { walls }),
        }
    }
}
