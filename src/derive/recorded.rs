//! A *recorded* derivation: the step that a resolved derivation's text describes, to be carried out again.
//!
//! Invariant: what is given has that very text, so what it makes is what was made before. Only scripts are given: the
//! text of a download does not say where it came from.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::store_path::{StoreDir, StorePath};

use super::resolve::resolved_json;
use super::{Action, Derivation, Input, Script};

/// The text's fields that are needed; the comparison at the end sees to the others.
#[derive(Deserialize)]
struct Recorded {
    action: RecordedAction,
    name: String,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum RecordedAction {
    Script(Box<RecordedScript>),
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordedScript {
    debian_patches: bool,
    declared: BTreeMap<String, BTreeSet<String>>,
    env: BTreeMap<String, String>,
    libraries: Vec<String>,
    #[serde(default)]
    mounts: BTreeMap<String, String>,
    #[serde(default)]
    no_references: Vec<String>,
    root: Vec<String>,
    runtime: Vec<String>,
    script: String,
    source: Option<String>,
    source_file: Option<String>,
    #[serde(default)]
    strip_references: Vec<String>,
    system: String,
    target: Option<String>,
    tools: Vec<String>,
    #[serde(default)]
    variables: BTreeMap<String, String>,
}

/// The step whose [`resolved_json`] is `text`; `None` where it runs no script, or was recorded by other rules.
pub fn recorded(text: &str) -> Option<Derivation> {
    let Recorded { action, name } = serde_json::from_str(text).ok()?;
    let derivation = Derivation {
        label: name.clone(),
        name,
        action: Action::Script(Box::new(script(action)?)),
    };
    let path = |input: &Input| match input {
        Input::Path(path) => path.clone(),
        Input::Step(_) => unreachable!("every input was given as a path"),
    };
    (resolved_json(&derivation, &path) == text).then_some(derivation)
}

fn script(action: RecordedAction) -> Option<Script> {
    let RecordedAction::Script(script) = action else {
        return None;
    };
    let RecordedScript {
        debian_patches,
        declared,
        env,
        libraries,
        mounts,
        no_references,
        strip_references,
        root,
        runtime,
        script,
        source,
        source_file,
        system,
        target,
        tools,
        variables,
    } = *script;
    let inputs = |paths: Vec<String>| paths.iter().map(|path| input(path)).collect::<Option<Vec<_>>>();
    let named = |paths: BTreeMap<String, String>| {
        let inputs = paths.into_iter().map(|(name, path)| Some((name, input(&path)?)));
        inputs.collect::<Option<BTreeMap<_, _>>>()
    };
    let declared = declared.into_iter().map(|(path, needed)| {
        let needed = needed.iter().map(|path| input(path)).collect::<Option<BTreeSet<_>>>();
        Some((input(&path)?, needed?))
    });
    Some(Script {
        script,
        env,
        system,
        target,
        source: match source {
            Some(path) => Some(input(&path)?),
            None => None,
        },
        source_file,
        debian_patches,
        root: inputs(root)?,
        tools: inputs(tools)?,
        libraries: inputs(libraries)?,
        runtime: inputs(runtime)?,
        declared: declared.collect::<Option<_>>()?,
        no_references: inputs(no_references)?,
        strip_references: inputs(strip_references)?,
        mounts: named(mounts)?,
        variables: named(variables)?,
        emulator: None,
        prebuilt: false,
        names: BTreeMap::new(),
        timeout_seconds: None,
        units: None,
        cache_dirs: BTreeSet::new(),
    })
}

fn input(logical: &str) -> Option<Input> {
    let (path, below): (StorePath, _) = StoreDir::layerize().split(logical)?;
    below.is_empty().then_some(Input::Path(path))
}
