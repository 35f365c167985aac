//! A *program* of the store on the machine's own root.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{ids, read_only, run};
use crate::build::BuildError;
use crate::sandbox::emulator::Emulator;
use crate::sandbox::{Isolation, RuntimeSettings, Sandbox};
use crate::store::Store;
use crate::store_path::StoreDir;

/// A program that is run with the machine's root and the store at its logical place.
#[derive(Debug, Clone, Default)]
pub struct StoreProgram {
    /// Its absolute path, and its arguments.
    pub argv: Vec<String>,
    /// All its variables.
    pub env: BTreeMap<String, String>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// What runs it where it is for another processor.
    pub emulator: Option<Emulator>,
    /// The program that becomes the sandbox's helper; `None`: this one.
    pub helper: Option<PathBuf>,
}

/// Runs a program with the machine's root and the store at its logical place; gives its exit status.
pub fn run_in_store(store: &Store, program: StoreProgram) -> Result<i32, BuildError> {
    let StoreProgram {
        argv,
        env,
        cwd,
        emulator,
        helper,
    } = program;
    let staging = store.scratch()?;
    let what = format!("`{}`", argv.first().map_or("", String::as_str));
    let sandbox = Sandbox {
        helper,
        isolation: Isolation::Run,
        staging: staging.path().to_owned(),
        layers: Vec::new(),
        upper: None,
        veils: Vec::new(),
        binds: vec![read_only(store.dir().join("store"), StoreDir::LAYERIZE)],
        ids: ids(),
        argv,
        env: env.into_iter().collect(),
        cwd,
        timeout: None,
        settings: RuntimeSettings {
            emulator,
            ..RuntimeSettings::default()
        },
    };
    run(&sandbox, &what)
}
