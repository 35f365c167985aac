//! A *build* realises derivations: fetches and unpacks, runs scripts in the sandbox, registers what they made.
//!
//! Invariant: an output enters the store only from a step that ended well, scanned and canonical; a sandbox
//! that cannot be set up is an error, or told and recorded: it never degrades silently.

mod cache;
mod check;
mod configuring;
mod debug;
mod emulation;
mod error;
mod fixup;
mod foreign;
mod hints;
mod link;
mod log;
mod mend;
mod part;
mod realise;
mod remote;
mod rootfs;
mod runner;
mod schedule;
mod script;
mod shared;
mod shell;
mod step;
mod surroundings;
mod targeted;
mod tools;
mod units;
mod variation;
mod views;
mod walls;

use std::path::PathBuf;
use std::sync::Arc;

pub use cache::{remove_build_cache, stored_build_caches};
pub use check::{Again, Compared, checked_steps, make_again, make_again_elsewhere};
pub use emulation::{EmulationChoice, ForeignScript};
pub use error::{BuildError, Reason, RefusedReference, ScriptFailure};
pub use foreign::{ForeignPrograms, choose_emulator, emulator};
pub use mend::{make_recorded, makers, report_mended};
pub use realise::realise;
pub use remote::{Builder, RemoteBuilds};
pub use runner::FailedCommand;
pub use script::enter::{EnterOptions, enter};
pub use shared::{Asked, BuiltPath, Offer, OfferedPath, SharedBuilds};
pub use shell::{
    Activation, OutsideView, ShellConflict, ShellOptions, ShellPart, ShellRecord, ShellUser, StoreProgram, Task,
    ViewPlace, recorded_shell, run_in_store, shell, shell_variables,
};
pub use units::{remove_unit, stored_units};
pub use variation::Variation;
pub use walls::{RefusedWalls, WallsChoice};

pub use crate::sandbox::Bounds;

use crate::fetch::FetchConfig;

/// Options of one run.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// What scripts run behind. With [`Walls::None`](crate::walls::Walls::None) a script runs on the machine itself, with
    /// its programs and network, and `/layerize/store` must be a link to the store's directory of trees.
    pub walls: WallsChoice,
    /// What runs scripts for another processor than the machine's.
    pub emulation: EmulationChoice,
    /// How many steps run at once (0: as many as there are cores).
    pub jobs: usize,
    /// What a script may use (`LAYERIZE_CORES`; 0: all); not hashed.
    pub cores: usize,
    /// What a script may use at most; not hashed.
    pub bounds: Bounds,
    /// Keep the build directory of a failed script.
    pub keep_failed: bool,
    /// The project whose build caches scripts find; `None`: they find empty ones.
    pub cache_of: Option<String>,
    /// What downloads use.
    pub fetch: FetchConfig,
    /// Where others keep what they built, asked before anything is built here.
    pub shared: Option<Arc<dyn SharedBuilds>>,
    /// The builder that runs scripts; `None`: they run here.
    pub remote: Option<Arc<RemoteBuilds>>,
    /// The program that becomes the sandbox's helper; `None`: this one, which then must call [`sandbox_main`](crate::sandbox::sandbox_main).
    pub helper: Option<PathBuf>,
}
