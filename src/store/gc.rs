//! *Garbage collection* removes valid paths that no root reaches, and trees that are no valid paths.
//!
//! Invariant: with the store's lock held exclusively, what roots and living sessions reach is marked, the rest
//! is forgotten in one transaction and then renamed away; the trees themselves are removed after the lock is
//! given back. So nothing in use goes, a valid path always has its tree, and others wait no longer than it takes
//! to mark. A crash leaves debris for the next run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use std::time::SystemTime;

use super::add::move_away;
use super::database::{RESERVE, Registration};
use super::error::StoreError;
use super::roots::Root;
use super::{Store, session};
use crate::fsio::{LockKind, sorted_names};
use crate::graph;
use crate::store_path::StorePath;

/// What to collect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcOptions {
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Remove roots that were made or renewed before this moment.
    pub expire_roots_before: Option<SystemTime>,
}

/// What was (or would be) collected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// The paths that went and the sizes of their archives in bytes, sorted.
    pub removed: Vec<(StorePath, u64)>,
    /// Trees that went although they were no valid paths: a crash had left them.
    pub unregistered: Vec<StorePath>,
    /// Roots that went because they were too old.
    pub expired_roots: Vec<String>,
    /// Roots that went because their link is gone.
    pub stale_roots: Vec<String>,
    /// What stays because of each root, by its name, and last what stays because a running process uses it.
    pub kept: Vec<Kept>,
    /// Number of paths that stay.
    pub kept_paths: u64,
    /// Sizes of their archives in bytes.
    pub kept_bytes: u64,
}

/// What one root keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The root; `None` stands for what running processes use.
    pub root: Option<Root>,
    /// Number of paths that it reaches.
    pub paths: u64,
    /// Sizes of their archives in bytes.
    pub bytes: u64,
    /// Bytes of those that nothing else reaches: what removing it would free.
    pub own_bytes: u64,
}

impl GcReport {
    /// Bytes of the archives of all removed paths.
    pub fn removed_bytes(&self) -> u64 {
        self.removed.iter().map(|(_, size)| size).sum()
    }
}

impl Store {
    /// Removes what no root and no running process reaches.
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport, StoreError> {
        if options.dry_run {
            // Nobody is just about to register a tree while this is held.
            let _lock = if self.database.read_only() {
                None
            } else {
                Some(self.lock(LockKind::Shared)?)
            };
            return self.mark(options);
        }
        self.check_writable()?;
        // Forgetting takes space for SQLite's log, of which a full disk has none.
        let reserve = self.dir.join(RESERVE);
        let _ = fs::remove_file(&reserve);
        let session = self.session()?;
        let (report, doomed) = {
            let _lock = self.lock(LockKind::Exclusive)?;
            let report = self.mark(options)?;
            let half_made = self.half_made_roots()?;
            for name in report.expired_roots.iter().chain(&report.stale_roots).chain(&half_made) {
                self.remove_root_file(name)?;
            }
            let dead = report.removed.iter().map(|(path, _)| path);
            self.database.forget(dead.clone())?;
            let mut doomed = Vec::new();
            for path in dead.chain(&report.unregistered) {
                let away = session.fresh_path();
                if move_away(&self.physical(path), &away)? {
                    doomed.push(away);
                }
            }
            (report, doomed)
        };
        for tree in doomed {
            self.discard(&tree);
        }
        self.remove_build_locks()?;
        self.database.reserve();
        Ok(report)
    }

    /// Finds out what stays and what goes.
    fn mark(&self, options: &GcOptions) -> Result<GcReport, StoreError> {
        let all = self.database.registrations()?;
        let mut report = GcReport {
            unregistered: self.unregistered()?,
            ..GcReport::default()
        };
        let mut reached: Vec<(Option<Root>, BTreeSet<&StorePath>)> = Vec::new();
        for root in self.roots()? {
            let Some(target) = &root.target else {
                report.stale_roots.push(root.name);
                continue;
            };
            if options.expire_roots_before.is_some_and(|moment| root.modified < moment) {
                report.expired_roots.push(root.name);
                continue;
            }
            let paths = reach(&all, [target]);
            reached.push((Some(root), paths));
        }
        let in_use = if self.database.read_only() {
            BTreeSet::new()
        } else {
            session::protected(&self.tmp())?
        };
        reached.push((None, reach(&all, &in_use)));
        let mut uses: BTreeMap<&StorePath, u64> = BTreeMap::new();
        for path in reached.iter().flat_map(|(_, paths)| paths) {
            *uses.entry(path).or_default() += 1;
        }
        let size = |path: &StorePath| all.get(path).map_or(0, |registration| registration.nar_size);
        report.kept_paths = uses.len() as u64;
        report.kept_bytes = uses.keys().map(|path| size(path)).sum();
        let dead = all
            .values()
            .filter(|registration| !uses.contains_key(&registration.path));
        report.removed = dead.map(|dead| (dead.path.clone(), dead.nar_size)).collect();
        report.kept = reached
            .into_iter()
            .map(|(root, paths)| Kept {
                root,
                paths: paths.len() as u64,
                bytes: paths.iter().map(|path| size(path)).sum(),
                own_bytes: paths
                    .iter()
                    .filter(|&path| uses[path] == 1)
                    .map(|path| size(path))
                    .sum(),
            })
            .collect();
        Ok(report)
    }

    /// Removes lock files of builds that nobody holds.
    fn remove_build_locks(&self) -> Result<(), StoreError> {
        let dir = self.dir.join("locks");
        for name in sorted_names(&dir)? {
            if name.to_string_lossy().starts_with("build-") {
                session::remove_unheld(&dir.join(name))?;
            }
        }
        Ok(())
    }
}

/// The valid paths among `from` and everything that they refer to.
fn reach<'a, 'b>(
    all: &'a BTreeMap<StorePath, Registration>,
    from: impl IntoIterator<Item = &'b StorePath>,
) -> BTreeSet<&'a StorePath> {
    let valid = |path: &StorePath| all.get_key_value(path).map(|(path, _)| path);
    graph::closure(from.into_iter().filter_map(valid), |path| {
        all[*path].references.keys().filter_map(valid)
    })
}
