//! What a *survey* of a Node project finds: enough for a first spec.
//!
//! Invariant: nothing here is needed for a build; what cannot be read is left to the build to explain.

use super::package_lock::{Bin, bins};
use super::{LOCK_FILES, Manifest};
use crate::lang::{NodeSurvey, SourceTree};

/// Looks at the project in `source`.
pub(in crate::lang) fn survey(source: &SourceTree) -> NodeSurvey {
    let manifest = Manifest::read(source, "package.json").unwrap_or_default();
    let name = manifest.name.clone().unwrap_or_default();
    let starts = manifest.scripts.contains_key("start")
        || manifest.main.is_some()
        || ["server.js", "index.js"].iter().any(|file| source.is_file(file));
    let bin = match &manifest.bin {
        Bin::Named(named) if named.is_empty() => Vec::new(),
        bin => bins(&name, bin).into_keys().collect(),
    };
    NodeSurvey {
        has_lock: LOCK_FILES.iter().any(|file| source.is_file(file)),
        programs: bin,
        starts,
        builds: manifest.scripts.contains_key("build"),
    }
}
