//! *Pinning* git sources: the commit and the hash that a lock has of each.
//!
//! Invariant: what is locked stays unless it is to be updated or the spec wants another; a tag that was moved is told and
//! not followed; a commit whose content is another than it was is an error.

use std::collections::BTreeMap;

use super::reference::commit_of;
use super::{archive, other_tree};
use crate::event::{Event, Reporter};
use crate::fetch::cache::Cache;
use crate::fetch::download::THREADS;
use crate::fetch::{FetchConfig, FetchError, LockEntry, Update};
use crate::parallel;
use crate::spec::{GitCommit, GitSource, GitTree, Lock, LockedGit, LockedTree, NamedTree, PackageName};

/// What the lock has of each source.
pub(in crate::fetch) fn resolve(
    sources: &BTreeMap<PackageName, &GitSource>,
    old: &Lock,
    update: &Update,
    config: &FetchConfig,
    reporter: &dyn Reporter,
) -> Result<BTreeMap<PackageName, LockedGit>, FetchError> {
    if sources.is_empty() {
        return Ok(BTreeMap::new());
    }
    let pinner = Pinner {
        cache: Cache::open(&config.cache)?,
        config,
        reporter,
    };
    let wanted: Vec<(&PackageName, &GitSource)> = sources.iter().map(|(name, source)| (name, *source)).collect();
    let locked = parallel::map(&wanted, THREADS, |(name, source)| {
        let old = old.git.get(name).filter(|locked| locked.wanted == source.wanted());
        match old {
            Some(locked) if !update.takes(LockEntry::Other(&name.0)) => {
                pinner.tell_if_moved(name, source, locked);
                Ok(locked.clone())
            }
            old => pinner.pin(name, source, old),
        }
    })?;
    Ok(sources.keys().cloned().zip(locked).collect())
}

/// What the lock has of each of these trees, by its commit; `name` is what the user knows a tree by. What is locked stays:
/// a commit is what it is.
///
/// # Errors
///
/// A repository that cannot be fetched from, a commit that it does not have, a tree that cannot be taken.
pub fn pin_commits(
    trees: &BTreeMap<GitCommit, NamedTree>,
    old: &BTreeMap<GitCommit, LockedTree>,
    config: &FetchConfig,
    reporter: &dyn Reporter,
) -> Result<BTreeMap<GitCommit, LockedTree>, FetchError> {
    if trees.keys().all(|commit| old.contains_key(commit)) {
        let kept = trees
            .keys()
            .filter_map(|commit| Some((commit.clone(), old.get(commit)?.clone())));
        return Ok(kept.collect());
    }
    let cache = Cache::open(&config.cache)?;
    let wanted: Vec<(&GitCommit, &NamedTree)> = trees.iter().collect();
    let locked = parallel::map(&wanted, THREADS, |(commit, named)| match old.get(*commit) {
        Some(locked) => Ok(locked.clone()),
        None => {
            let made = archive(&named.tree, &named.name, None, &cache, config, reporter)?;
            Ok::<_, FetchError>(LockedTree {
                size: made.size,
                nar_hash: made.digest,
            })
        }
    })?;
    Ok(trees.keys().cloned().zip(locked).collect())
}

struct Pinner<'a> {
    cache: Cache,
    config: &'a FetchConfig,
    reporter: &'a dyn Reporter,
}

impl Pinner<'_> {
    /// Pins a source anew.
    fn pin(&self, name: &PackageName, source: &GitSource, old: Option<&LockedGit>) -> Result<LockedGit, FetchError> {
        if self.config.offline && !source.address.is_local() && !self.is_known(source) {
            return Err(FetchError::Offline { name: name.to_string() });
        }
        let commit = commit_of(&source.address, &source.reference, self.config)?;
        let tree = GitTree {
            address: source.address.clone(),
            commit,
            submodules: source.submodules,
            lfs: source.lfs,
        };
        let made = archive(&tree, &name.0, None, &self.cache, self.config, self.reporter)?;
        if let Some(old) = old {
            if old.commit == tree.commit && old.nar_hash != made.digest {
                return Err(other_tree(&tree, old.nar_hash, made.digest));
            }
            if old.commit != tree.commit && source.reference.is_tag() {
                self.warn(&format!(
                    "{} of `{name}` was moved: it was commit {} and is {} now; look at what changed",
                    source.reference, old.commit, tree.commit
                ));
            }
        }
        Ok(LockedGit {
            wanted: source.wanted(),
            commit: tree.commit,
            size: made.size,
            nar_hash: made.digest,
        })
    }

    /// Whether no host has to be asked what is wanted: what was fetched before will do.
    fn is_known(&self, source: &GitSource) -> bool {
        matches!(source.reference, crate::spec::GitRef::Commit(_))
    }

    /// Tells of a tag that leads to another commit than the locked one; where nobody can be asked, nothing is told.
    fn tell_if_moved(&self, name: &PackageName, source: &GitSource, locked: &LockedGit) {
        if !source.reference.is_tag() || (self.config.offline && !source.address.is_local()) {
            return;
        }
        let Ok(now) = commit_of(&source.address, &source.reference, self.config) else {
            return;
        };
        if now != locked.commit {
            self.warn(&format!(
                "{} of `{name}` was moved: it is commit {now} now; the lock keeps {} (`layerize lock --update {name}` \
                 takes the new one)",
                source.reference, locked.commit
            ));
        }
    }

    fn warn(&self, text: &str) {
        let text = text.to_owned();
        self.reporter.report(Event::Warning { text });
    }
}
