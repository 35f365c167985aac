//! A shell on *record*: what one is made of, by store paths alone, so that it is entered again without spec, lock or plan.
//!
//! Invariant: a shell that is entered from its record is the shell that was recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::merge::{Merged, merge};
use super::{Activation, BuildError, ShellPart};
use crate::build::surroundings::Surroundings;
use crate::derive::{Input, Script};
use crate::store::Store;
use crate::store_path::{StoreDir, StorePath};

/// What a shell is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellRecord {
    /// What the user calls it.
    pub name: String,
    system: String,
    #[serde(default)]
    target: Option<String>,
    /// The user's variables.
    pub env: BTreeMap<String, String>,
    /// Variables that hold where a store path is.
    pub variables: BTreeMap<String, StorePath>,
    mounts: BTreeMap<String, StorePath>,
    pub(super) root: Vec<StorePath>,
    tools: Vec<StorePath>,
    libraries: Vec<StorePath>,
    runtime: Vec<StorePath>,
    declared: BTreeMap<StorePath, BTreeSet<StorePath>>,
    pub(super) own: Vec<StorePath>,
    activations: Vec<Activation>,
    /// What runs its programs, where they are for another processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    emulator: Option<StorePath>,
}

impl ShellRecord {
    /// What a shell of all `parts` is made of.
    ///
    /// # Errors
    ///
    /// Parts that cannot be had together.
    pub fn of(parts: &[ShellPart]) -> Result<Self, BuildError> {
        let merged = merge(parts)?;
        let (script, paths) = (&merged.script, &merged.paths);
        let list = |inputs: &[Input]| inputs.iter().filter_map(|input| paths.get(input).cloned()).collect();
        let named = |inputs: &BTreeMap<String, Input>| -> BTreeMap<String, StorePath> {
            let found = inputs.iter();
            found
                .filter_map(|(name, input)| Some((name.clone(), paths.get(input)?.clone())))
                .collect()
        };
        let declared = script.declared.iter().filter_map(|(input, needed)| {
            let needed = needed.iter().filter_map(|input| paths.get(input).cloned());
            Some((paths.get(input)?.clone(), needed.collect()))
        });
        Ok(Self {
            system: script.system.clone(),
            target: script.target.clone(),
            env: script.env.clone(),
            variables: named(&script.variables),
            mounts: named(&script.mounts),
            root: list(&script.root),
            tools: list(&script.tools),
            libraries: list(&script.libraries),
            runtime: list(&script.runtime),
            declared: declared.collect(),
            own: merged.own.clone(),
            activations: merged.activations.clone(),
            emulator: script.emulator.as_ref().and_then(|input| paths.get(input).cloned()),
            name: merged.name,
        })
    }

    /// All store paths that it is made of.
    pub fn paths(&self) -> BTreeSet<StorePath> {
        let lists = [&self.root, &self.tools, &self.libraries, &self.runtime, &self.own];
        let named = self.variables.values().chain(self.mounts.values());
        let all = lists.into_iter().flatten().chain(named).chain(&self.emulator);
        all.cloned().collect()
    }

    /// Whether the store has all of it.
    pub fn is_in(&self, store: &Store) -> Result<bool, BuildError> {
        for path in self.paths() {
            if store.info(&path)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The sources of packages whose languages are set up in it, as the user has them.
    pub fn sources(&self) -> impl Iterator<Item = &PathBuf> {
        self.activations.iter().map(|activation| &activation.source)
    }

    /// What it was recorded of.
    pub(super) fn merged(&self) -> Merged {
        let list = |paths: &[StorePath]| paths.iter().cloned().map(Input::Path).collect();
        let named = |paths: &BTreeMap<String, StorePath>| -> BTreeMap<String, Input> {
            let all = paths.iter();
            all.map(|(name, path)| (name.clone(), Input::Path(path.clone())))
                .collect()
        };
        let declared = self.declared.iter().map(|(path, needed)| {
            let needed = needed.iter().cloned().map(Input::Path).collect();
            (Input::Path(path.clone()), needed)
        });
        let script = Script {
            system: self.system.clone(),
            target: self.target.clone(),
            env: self.env.clone(),
            variables: named(&self.variables),
            mounts: named(&self.mounts),
            root: list(&self.root),
            tools: list(&self.tools),
            libraries: list(&self.libraries),
            runtime: list(&self.runtime),
            declared: declared.collect(),
            emulator: self.emulator.clone().map(Input::Path),
            ..Script::default()
        };
        let all = script.inputs().into_iter();
        let paths = all.filter_map(|input| match input {
            Input::Path(path) => Some((input.clone(), path.clone())),
            Input::Step(_) => None,
        });
        Merged {
            name: self.name.clone(),
            paths: paths.collect(),
            own: self.own.clone(),
            activations: self.activations.clone(),
            script,
        }
    }
}

/// The variables that a shell of all `parts` has on account of what is in it and of the spec, for somewhere else that has the
/// same at the same places: those of searches, of the spec, and of where packages are.
pub fn shell_variables(store: &Store, parts: &[ShellPart]) -> Result<BTreeMap<String, String>, BuildError> {
    let merged = merge(parts)?;
    let staging = store.scratch()?;
    let surroundings = Surroundings::make(store, &merged.script, &merged.paths, staging.path().join("fixups"))?;
    let searched = surroundings.variables.into_iter();
    let searched = searched.filter(|(name, _)| name.ends_with("PATH") && name != "PATH" && name != "COMPILER_PATH");
    let places = merged.script.variables.iter().filter_map(|(name, input)| {
        let path = merged.paths.get(input)?;
        Some((name.clone(), StoreDir::layerize().join(path)))
    });
    Ok(searched.chain(places).chain(merged.script.env.clone()).collect())
}
