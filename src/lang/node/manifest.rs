//! `package.json` of the project: what it depends on, its scripts and its programs.
//!
//! Invariant: read for what planning needs; what is made of it at build time is read again then.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::package_lock::Bin;
use crate::lang::{LangError, SourceTree};

/// What the project says of itself.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Manifest {
    pub(super) name: Option<String>,
    pub(super) main: Option<String>,
    pub(super) bin: Bin,
    pub(super) scripts: BTreeMap<String, String>,
    dependencies: BTreeMap<String, String>,
    dev_dependencies: BTreeMap<String, String>,
    optional_dependencies: BTreeMap<String, String>,
    peer_dependencies: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads `file`, a `package.json` of the source.
    pub(super) fn read(source: &SourceTree, file: &str) -> Result<Self, LangError> {
        let Some(text) = source.text(file)? else {
            let help = "see that `include`, `exclude` and `.gitignore` let it through";
            return Err(LangError::at(
                format!("`{file}`"),
                "the source has no `package.json` beside the lock file",
                help,
            ));
        };
        // npm takes a byte order mark for nothing, too.
        serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| {
            let place = format!("`{file}`, line {}", error.line());
            LangError::at(
                place,
                format!("`{file}` cannot be read: {error}"),
                "write it as npm wants it",
            )
        })
    }

    /// What it depends on, peers among it: ranges by name.
    pub(super) fn wanted(&self) -> BTreeMap<String, String> {
        let Self {
            dependencies,
            dev_dependencies,
            optional_dependencies,
            peer_dependencies,
            ..
        } = self;
        // Of a name that stands in several the last counts, as in the lock file.
        union([dependencies, dev_dependencies, peer_dependencies, optional_dependencies])
    }

    /// What it depends on by itself: ranges by name.
    pub(super) fn wanted_apart_from_peers(&self) -> BTreeMap<String, String> {
        union([
            &self.dev_dependencies,
            &self.dependencies,
            &self.optional_dependencies,
            &BTreeMap::new(),
        ])
    }
}

fn union(all: [&BTreeMap<String, String>; 4]) -> BTreeMap<String, String> {
    let pairs = all.into_iter().flatten();
    pairs.map(|(name, range)| (name.clone(), range.clone())).collect()
}
