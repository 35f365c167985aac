//! The *downloads* that a store's paths were made from, and the collection of the others.
//!
//! Invariant: a download is needed as long as a path is valid that was made from it, whatever else is.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::environment::Environment;
use super::error::ProjectError;
use crate::digest::FileHash;
use crate::fetch::{self, AptSources, CollectedDownloads};
use crate::store::Store;
use crate::store_path::StorePath;

/// Removes from the download cache what interrupted downloads left, and files that nobody has used since `unused_since` and
/// that no path of `store` was made from; `doomed` are about to go. With `dry_run` nothing is removed.
pub fn collect_downloads(
    store: &Store,
    doomed: &BTreeSet<&StorePath>,
    unused_since: SystemTime,
    dry_run: bool,
    environment: &Environment<'_>,
) -> Result<CollectedDownloads, ProjectError> {
    let texts = store.derivation_texts()?;
    let kept = texts.iter().filter(|(path, _)| !doomed.contains(path));
    let needed: BTreeSet<FileHash> = kept.flat_map(|(_, json)| hashes(json)).collect();
    let config = environment.fetch_config(true, &[], AptSources::default());
    let is_needed = |hash: &FileHash| needed.contains(hash);
    Ok(fetch::collect(&config, &is_needed, unused_since, dry_run)?)
}

/// The hashes that stand in a derivation: those of downloads are among them.
fn hashes(json: &str) -> impl Iterator<Item = FileHash> + '_ {
    const SCHEMES: [&str; 4] = ["sha256", "sha512", "go-h1", "go-mod-h1"];
    let words = json.split('"');
    words.flat_map(|word| {
        SCHEMES
            .into_iter()
            .filter_map(|scheme| FileHash::from_hex(scheme, word))
    })
}
