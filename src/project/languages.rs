//! What packages take from their *languages*: their lock files are read from the sources as the store has them.
//!
//! Invariant: what is planned is what is built: nothing is read that is not part of a source in the store.

use std::collections::BTreeMap;
use std::fs;

use crate::derive::LanguageSource;
use crate::fsio::{IoContext, create_dir_all};
use crate::lang::{self, GeneratedTree, Request, SourceTree};
use crate::spec::{Diagnostics, PackageName};
use crate::store::Store;
use crate::store_path::StorePath;

use super::{Project, ProjectError};

/// Reads the lock files of the packages' languages, and adds the trees that are made from the sources to the store.
///
/// A package whose source is not in the store is left out: what was restored for one image lacks those of the others.
///
/// # Errors
///
/// Every lock file that cannot be used, each with what to do about it.
pub(super) fn plan(
    project: &Project,
    store: &Store,
    sources: &BTreeMap<PackageName, StorePath>,
) -> Result<BTreeMap<PackageName, LanguageSource>, ProjectError> {
    let (mut planned, mut errors) = (BTreeMap::new(), Vec::new());
    for (name, package) in &project.workspace.packages {
        let (Some(language), Some(source)) = (&package.language, sources.get(name)) else {
            continue;
        };
        if store.info(source)?.is_none() {
            continue;
        }
        let request = Request {
            package,
            language: &language.value,
            lock: &project.lock,
            source: &SourceTree::new(store.physical(source)),
        };
        match lang::plan(&request) {
            Ok(build) => {
                let trees = build.trees.iter().map(|tree| add(store, tree));
                let trees = trees.collect::<Result<_, ProjectError>>()?;
                planned.insert(name.clone(), LanguageSource { build, trees });
            }
            Err(error) => errors.push(error.diagnostic(&request)),
        }
    }
    match errors.is_empty() {
        true => Ok(planned),
        false => Err(Diagnostics::new(errors, project.workspace.files.clone()).into()),
    }
}

/// Adds a tree that was made from a source.
fn add(store: &Store, tree: &GeneratedTree) -> Result<StorePath, ProjectError> {
    let staging = store.stage()?;
    let root = staging.path().join("tree");
    create_dir_all(&root)?;
    for (path, content) in &tree.files {
        let file = root.join(path);
        create_dir_all(file.parent().unwrap_or(&root))?;
        fs::write(&file, content).context("write", &file)?;
    }
    Ok(store.add_leaf(&tree.name, &root, None)?.path)
}
