//! What packages take from their *languages*: their lock files are read from the sources as the store has them.
//!
//! Invariant: what is planned is what is built: nothing is read that is not part of a source in the store.

use std::collections::BTreeMap;
use std::fs;

use crate::derive::LanguageSource;
use crate::fsio::{IoContext, create_dir_all};
use crate::lang::{self, GeneratedTree, Request, SourceTree};
use crate::spec::{Dependency, Diagnostics, GitCommit, Lock, NamedTree, PackageName, Source, Spanned, Workspace};
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
            Err(error) => errors.push(error.diagnostic(package)),
        }
    }
    match errors.is_empty() {
        true => Ok(planned),
        false => Err(Diagnostics::new(errors, project.workspace.files.clone()).into()),
    }
}

/// What the lock files of languages want of `lock`, read where the sources are.
///
/// # Errors
///
/// Every lock file that cannot be used, each with what to do about it.
pub(super) fn needs(project: &Project, lock: &Lock) -> Result<Needs, ProjectError> {
    let (mut needs, mut errors) = (Needs::default(), Vec::new());
    for package in project.workspace.packages.values() {
        let (Some(language), Some(Source::Path { path, .. })) =
            (&package.language, package.source.as_ref().map(|source| &source.value))
        else {
            continue;
        };
        let dir = package.dir.join(path);
        // That there is none is said where it is added to the store.
        if !dir.is_dir() {
            continue;
        }
        let request = Request {
            package,
            language: &language.value,
            lock,
            source: &SourceTree::new(dir),
        };
        match lang::needs(&request) {
            Ok(own) => {
                let commits = own.commits.into_iter();
                needs
                    .commits
                    .extend(commits.map(|named| (named.tree.commit.clone(), named)));
                let name = &package.name.value;
                needs.remarks.extend(
                    own.remarks
                        .into_iter()
                        .map(|remark| format!("package `{name}`: {remark}")),
                );
            }
            Err(error) => errors.push(error.diagnostic(package)),
        }
    }
    match errors.is_empty() {
        true => Ok(needs),
        false => Err(Diagnostics::new(errors, project.workspace.files.clone()).into()),
    }
}

/// What the lock files of all languages want of a lock.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Trees that they name, by their commits.
    pub(super) commits: BTreeMap<GitCommit, NamedTree>,
    /// What is to be told of the tools that the lock has, a line each.
    pub(super) remarks: Vec<String>,
}

/// What the packages of a workspace take from their languages because they do not say it themselves, a line each.
pub fn defaults(workspace: &Workspace, lock: &Lock) -> Vec<String> {
    let lines = workspace.packages.iter().filter_map(|(name, package)| {
        let language = package.language.as_ref()?;
        let taken = |all: &[Spanned<Dependency>]| {
            // What stands at the language's own key was not written by the user.
            let defaults = all.iter().filter(|one| one.span == language.span);
            let shown = defaults.map(|one| match &one.value {
                Dependency::Debian(deb) => match lock.debs.get(deb) {
                    Some(locked) => format!("deb:{deb} {}", locked.version),
                    None => format!("deb:{deb}"),
                },
                other => other.to_string(),
            });
            shown.collect::<Vec<_>>().join(", ")
        };
        let mut parts = Vec::new();
        for (key, list) in [("tools", &package.tools), ("libraries", &package.libraries)] {
            let list = taken(list);
            parts.extend((!list.is_empty()).then(|| format!("{key} {list}")));
        }
        if package.script.is_none() {
            parts.push(format!("script: {}", language.value.script_summary()));
        }
        (!parts.is_empty()).then(|| format!("{name} ({}), by default: {}", language.value.key(), parts.join("; ")))
    });
    lines.collect()
}

/// Why the lock's trees are not those that lock files of languages name, a line each.
pub(super) fn stale(commits: &BTreeMap<GitCommit, NamedTree>, lock: &Lock) -> Vec<String> {
    let missing = commits.iter().filter(|(commit, _)| !lock.commits.contains_key(*commit));
    let missing = missing.map(|(commit, named)| format!("missing: the tree of commit {commit} ({})", named.name));
    let unused = lock.commits.keys().filter(|commit| !commits.contains_key(*commit));
    missing
        .chain(unused.map(|commit| format!("no longer needed: the tree of commit {commit}")))
        .collect()
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
