//! What is known of a *file of an image*: from the image itself, and from the store of this machine.
//!
//! Invariant: what the image says is told of any tool's image; what only the store knows is left out where it does not, and
//! a machine that never built anything is not given a store.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use crate::audit::{self, Explanation};
use crate::closure::{self, Chain};
use crate::digest::Digest;
use crate::execution::Execution;
use crate::oci::Platform;
use crate::store::{PathDetails, Store};
use crate::store_path::{LogicalPath, StoreDir, StorePath};
use crate::transport::Source;
use crate::walls::Walls;

use super::environment::Environment;
use super::error::ProjectError;

/// All that is known of a file.
#[derive(Debug, Serialize)]
pub struct FileStory {
    /// The platform of the image, where it is one of several that are told of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What the image says.
    #[serde(flatten)]
    pub image: Explanation,
    /// The store path of the Debian package whose file it is, where it was laid out at `/`.
    pub package_path: Option<LogicalPath>,
    /// The shortest ways from what the image is made for to the store path; `None` where the store has it not.
    pub why: Option<Vec<Chain>>,
    /// What made the store path; `None` where the store has it not.
    pub made: Option<MadeBy>,
}

/// What made a store path.
#[derive(Debug, Serialize)]
pub struct MadeBy {
    /// The derivation; `None` where the path was added as it is.
    pub derivation: Option<Digest>,
    /// What its script ran behind.
    pub walls: Walls,
    /// How the programs of its script ran.
    pub execution: Execution,
    /// Size of its archive in bytes.
    pub nar_size: u64,
    /// The resolved derivation: the action with its script, variables and inputs.
    pub resolved: Option<Value>,
}

/// Tells all that is known of the file at `path` of an image.
///
/// # Errors
///
/// An image that cannot be read, and a store that cannot be opened or asked.
pub fn explain(source: &dyn Source, path: &str, environment: &Environment<'_>) -> Result<FileStory, ProjectError> {
    let mut story = FileStory {
        platform: None,
        image: audit::explain(source, path)?,
        package_path: None,
        why: None,
        made: None,
    };
    if environment.store_dir.is_dir() {
        story.ask_store(&environment.store()?)?;
    }
    Ok(story)
}

impl FileStory {
    /// Adds what the store knows.
    fn ask_store(&mut self, store: &Store) -> Result<(), ProjectError> {
        let own = |path: &LogicalPath| path.in_store(StoreDir::LAYERIZE).cloned();
        let Some(path) = self.image.store_path.as_ref().and_then(own) else {
            return self.ask_for_package(store);
        };
        let Some(details) = store.info_full(&path)? else {
            return Ok(());
        };
        self.made = Some(MadeBy::of(&details));
        let roots: BTreeSet<StorePath> = self.image.roots.iter().filter_map(own).collect();
        self.why = Some(why(store, &roots, &path)?);
        Ok(())
    }

    /// A file of a package that was laid out at `/` belongs to none of the image's store paths: the store may have the
    /// package's.
    fn ask_for_package(&mut self, store: &Store) -> Result<(), ProjectError> {
        let packages = self.image.packages.iter();
        let names: BTreeSet<&str> = packages.filter_map(|package| package.split('=').next()).collect();
        let below = self.image.path.trim_start_matches('/');
        if self.image.file.is_none() || names.is_empty() {
            return Ok(());
        }
        for info in store.list()? {
            let path_name = info.path.name();
            let named = names.iter().any(|name| path_name.starts_with(&format!("{name}-")));
            let has_it = || store.physical(&info.path).join(below).symlink_metadata().is_ok();
            if !(named && has_it()) {
                continue;
            }
            let Some(details) = store.info_full(&info.path)? else {
                continue;
            };
            let made = MadeBy::of(&details);
            if made.package().is_some_and(|package| names.contains(package)) {
                self.package_path = Some(StoreDir::layerize().logical(&info.path));
                self.made = Some(made);
                return Ok(());
            }
        }
        Ok(())
    }
}

impl MadeBy {
    fn of(details: &PathDetails) -> Self {
        // What the store keeps was written by layerize; a text that is not JSON tells nothing.
        let resolved = details.derivation_json.as_deref().map(serde_json::from_str);
        Self {
            derivation: details.provenance.derivation,
            walls: details.provenance.walls,
            execution: details.provenance.execution,
            nar_size: details.info.nar_size,
            resolved: resolved.and_then(Result::ok),
        }
    }

    /// The Debian package that was unpacked.
    fn package(&self) -> Option<&str> {
        self.resolved.as_ref()?["action"]["package"].as_str()
    }
}

/// The shortest ways from the image's roots to a path, as far as the store has them.
fn why(store: &Store, roots: &BTreeSet<StorePath>, path: &StorePath) -> Result<Vec<Chain>, ProjectError> {
    let mut known = BTreeSet::new();
    for root in roots {
        if store.info(root)?.is_some() {
            known.insert(root.clone());
        }
    }
    let mut chains = closure::why(store, &known, path)?;
    let shortest = chains.iter().map(|chain| chain.steps.len()).min().unwrap_or(0);
    chains.retain(|chain| chain.steps.len() == shortest);
    Ok(chains)
}
