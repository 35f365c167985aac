//! *Mending* what a store has lost: which step makes a path, and how it is made again where no plan is at hand.
//!
//! Invariant: what is made again is what was registered, or it is not taken for it (see [`Store::note_damage`]).

use std::collections::{BTreeMap, BTreeSet};

use super::foreign::known_emulator;
use super::schedule::Schedule;
use super::{BuildError, BuildOptions, realise};
use crate::derive::{self, Action, BuildPlan, Input};
use crate::event::{Event, Reporter};
use crate::store::Store;
use crate::store_path::{StoreDir, StorePath};

/// Tells which paths were damaged and have been made again.
pub fn report_mended(store: &Store, reporter: &dyn Reporter) {
    for path in store.take_mended() {
        let path = StoreDir::layerize().join(&path);
        let text = format!("`{path}` was missing from the store or changed, and has been rebuilt");
        reporter.report(Event::Warning { text });
    }
}

/// The steps of `plan` that make the damaged ones among `paths`.
pub fn makers(
    store: &Store,
    plan: &BuildPlan,
    paths: &BTreeSet<StorePath>,
) -> Result<BTreeMap<StorePath, Input>, BuildError> {
    let all: Vec<Input> = (0..plan.steps.len()).map(Input::Step).collect();
    let known = Schedule::new(store, plan, &all)?.known_paths();
    let wanted = known.into_iter().filter(|(_, path)| paths.contains(path));
    Ok(wanted.map(|(id, path)| (path, Input::Step(id))).collect())
}

/// Makes a damaged path again as the store recorded it; false where it did not, or where an input is gone.
pub fn make_recorded(
    store: &Store,
    path: &StorePath,
    options: &BuildOptions,
    reporter: &dyn Reporter,
) -> Result<bool, BuildError> {
    let json = store.info_full(path)?.and_then(|details| details.derivation_json);
    let Some(mut derivation) = json.and_then(|json| derive::recorded(&json)) else {
        return Ok(false);
    };
    if let Action::Script(script) = &mut derivation.action {
        // No hash holds the emulator: any that runs the script does.
        script.emulator = known_emulator(store, &script.system)?.map(Input::Path);
    }
    for input in derivation.inputs() {
        let Input::Path(path) = input else { continue };
        if store.info(path)?.is_none() {
            return Ok(false);
        }
    }
    let plan = BuildPlan {
        steps: vec![derivation],
        ..BuildPlan::default()
    };
    realise(store, &plan, &[Input::Step(0)], options, reporter)?;
    Ok(!store.is_damaged(path))
}
