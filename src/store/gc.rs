//! *Garbage collection* removes valid paths that nothing keeps, and trees that are no valid paths.
//!
//! Invariant: with the store's lock held exclusively, what roots and living sessions reach is marked, and what goes is
//! forgotten in one transaction and then renamed into the *trash*; the trees themselves are removed after the lock is
//! given back, by whoever comes to it. So nothing in use goes, a valid path always has its tree, and others wait no longer
//! than it takes to mark. A crash leaves trash, or debris for the next run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::SystemTime;

use super::add::move_away;
use super::database::{PathNode, RESERVE};
use super::error::StoreError;
use super::roots::RootOwner;
use super::session::Session;
use super::{Store, session};
use crate::fsio::{LockKind, remove_tree_while, sorted_names};
use crate::graph::NodeSet;
use crate::store_path::StorePath;

/// What to collect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcOptions {
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Keep what somebody had use for at this moment or later, though no root reaches it; `None`: nothing of it.
    pub keep_used_since: Option<SystemTime>,
    /// Remove roots of projects whose folder is gone, if they were made or renewed before this moment.
    pub expire_vanished_before: Option<SystemTime>,
}

/// What was (or would be) collected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// The paths that went and the sizes of their archives in bytes, sorted.
    pub removed: Vec<(StorePath, u64)>,
    /// Trees that went although they were no valid paths: a crash had left them.
    pub unregistered: Vec<StorePath>,
    /// Roots that went because the folder of their project is gone.
    pub expired_roots: Vec<String>,
    /// Roots that went because their link is gone.
    pub stale_roots: Vec<String>,
    /// What stays because of each target and each other root, and last what stays because it was used of late and because a
    /// running process uses it.
    pub kept: Vec<Kept>,
    /// Number of paths that stay.
    pub kept_paths: u64,
    /// Sizes of their archives in bytes.
    pub kept_bytes: u64,
}

/// Why something stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeptBy {
    /// A project's target has roots.
    Target(RootOwner),
    /// A root of this name, of which it is not known for whom it is.
    Root(String),
    /// Somebody had use for it of late.
    Recent,
    /// Running processes use it.
    Processes,
}

/// What something keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What keeps it.
    pub by: KeptBy,
    /// Number of paths that it reaches.
    pub paths: u64,
    /// Sizes of their archives in bytes.
    pub bytes: u64,
    /// Bytes of those that nothing else reaches: what would be free without it.
    pub own_bytes: u64,
}

impl GcReport {
    /// Bytes of the archives of all removed paths.
    pub fn removed_bytes(&self) -> u64 {
        self.removed.iter().map(|(_, size)| size).sum()
    }
}

/// A valid path, as [`Store::survey`] finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurveyedPath {
    /// The path.
    pub path: StorePath,
    /// Size of its archive in bytes.
    pub bytes: u64,
    /// When somebody last had use for it itself.
    pub used: SystemTime,
    /// What it refers to, as indices.
    pub references: Vec<usize>,
    /// Whether roots or running processes keep it.
    pub is_kept: bool,
}

/// All valid paths, and what keeps them.
struct Picture {
    nodes: Vec<PathNode>,
    places: BTreeMap<StorePath, usize>,
    expired_roots: Vec<String>,
    stale_roots: Vec<String>,
    /// What each root and each process reaches.
    kept: Vec<(KeptBy, NodeSet)>,
}

impl Picture {
    /// The valid paths among `from` and everything that they refer to.
    fn reach(&self, from: impl IntoIterator<Item = usize>) -> NodeSet {
        let mut reached = NodeSet::empty(self.nodes.len());
        let mut open: Vec<usize> = from.into_iter().collect();
        while let Some(at) = open.pop() {
            if !reached.contains(at) {
                reached.insert(at);
                open.extend(&self.nodes[at].references);
            }
        }
        reached
    }

    fn place(&self, path: &StorePath) -> Option<usize> {
        self.places.get(path).copied()
    }

    /// Everything that is kept.
    fn all_kept(&self) -> NodeSet {
        let mut all = NodeSet::empty(self.nodes.len());
        self.kept.iter().for_each(|(_, reached)| all.extend(reached));
        all
    }

    /// Keeps what was used at `moment` or later.
    fn keep_used_since(&mut self, moment: SystemTime) {
        let recent = (0..self.nodes.len()).filter(|&at| self.nodes[at].used >= moment);
        let recent = self.reach(recent.collect::<Vec<_>>());
        // Processes last, as a report has them.
        self.kept.insert(self.kept.len() - 1, (KeptBy::Recent, recent));
    }

    fn report(self, unregistered: Vec<StorePath>) -> GcReport {
        let (all, nodes) = (self.all_kept(), &self.nodes);
        let bytes = |set: &NodeSet| set.iter().map(|at| nodes[at].size).sum();
        let mut uses = vec![0_u64; nodes.len()];
        for at in self.kept.iter().flat_map(|(_, reached)| reached.iter()) {
            uses[at] += 1;
        }
        let kept = self.kept.iter().map(|(by, reached)| Kept {
            by: by.clone(),
            paths: reached.count() as u64,
            bytes: bytes(reached),
            own_bytes: reached
                .iter()
                .filter(|&at| uses[at] == 1)
                .map(|at| nodes[at].size)
                .sum(),
        });
        let dead = (0..nodes.len()).filter(|&at| !all.contains(at));
        GcReport {
            kept: kept.collect(),
            removed: dead.map(|at| (nodes[at].path.clone(), nodes[at].size)).collect(),
            kept_paths: all.count() as u64,
            kept_bytes: bytes(&all),
            unregistered,
            expired_roots: self.expired_roots,
            stale_roots: self.stale_roots,
        }
    }
}

impl Store {
    /// Removes what no root and no running process reaches, and what was not used of late, as the options say.
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
        let report = {
            let _lock = self.lock(LockKind::Exclusive)?;
            let report = self.mark(options)?;
            let half_made = self.half_made_roots()?;
            for name in report.expired_roots.iter().chain(&report.stale_roots).chain(&half_made) {
                self.remove_root_file(name)?;
            }
            self.forget_lost_owners()?;
            let dead: Vec<&StorePath> = report.removed.iter().map(|(path, _)| path).collect();
            self.database.forget(dead.iter().copied())?;
            self.throw_away(dead.into_iter().chain(&report.unregistered), &session)?;
            report
        };
        self.empty_trash(&|| true);
        self.remove_build_locks()?;
        self.database.reserve();
        Ok(report)
    }

    /// Moves trees of paths that are not valid (any more) into the trash. To be called with the store's lock held
    /// exclusively.
    fn throw_away<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a StorePath>,
        session: &Session,
    ) -> Result<(), StoreError> {
        for path in paths {
            let away = session.fresh_path();
            let away = self.trash().join(away.file_name().unwrap_or_default());
            move_away(&self.physical(path), &away)?;
        }
        Ok(())
    }

    /// Removes what was thrown away, as long as `go_on` says so; true where nothing is left.
    pub fn empty_trash(&self, go_on: &dyn Fn() -> bool) -> bool {
        let names = match sorted_names(&self.trash()) {
            Ok(names) => names,
            Err(error) => {
                self.left_behind().push(error);
                return false;
            }
        };
        let mut is_empty = true;
        for name in names {
            // What cannot be removed stays for the next run to try, and is told.
            match remove_tree_while(&self.trash().join(name), go_on) {
                Ok(is_gone) => is_empty &= is_gone,
                Err(error) => {
                    self.left_behind().push(error);
                    is_empty = false;
                }
            }
            if !go_on() {
                return false;
            }
        }
        is_empty
    }

    /// Everything that is valid, and whether roots or processes keep it, sorted.
    pub fn survey(&self) -> Result<Vec<SurveyedPath>, StoreError> {
        let picture = self.picture(None)?;
        let kept = picture.all_kept();
        let paths = picture.nodes.into_iter().enumerate();
        let paths = paths.map(|(at, node)| SurveyedPath {
            path: node.path,
            bytes: node.size,
            used: node.used,
            references: node.references,
            is_kept: kept.contains(at),
        });
        Ok(paths.collect())
    }

    /// Removes those of `paths` that nothing keeps, that nobody used since the moment beside each, and to which nothing refers
    /// but what goes with them; gives what went, with the sizes of the archives in bytes. The trees go by
    /// [`empty_trash`](Self::empty_trash).
    pub fn remove_unkept(&self, paths: &[(StorePath, SystemTime)]) -> Result<Vec<(StorePath, u64)>, StoreError> {
        self.check_writable()?;
        match self.try_remove_unkept(paths) {
            Err(StoreError::NoSpace { .. }) => {
                // Forgetting takes space for SQLite's log, of which a full disk has none.
                let _ = fs::remove_file(self.dir.join(RESERVE));
                let removed = self.try_remove_unkept(paths);
                self.database.reserve();
                removed
            }
            other => other,
        }
    }

    fn try_remove_unkept(&self, paths: &[(StorePath, SystemTime)]) -> Result<Vec<(StorePath, u64)>, StoreError> {
        let session = self.session()?;
        let _lock = self.lock(LockKind::Exclusive)?;
        let picture = self.picture(None)?;
        let mut is_chosen = vec![false; picture.nodes.len()];
        for (path, used) in paths {
            if let Some(at) = picture.place(path).filter(|&at| picture.nodes[at].used <= *used) {
                is_chosen[at] = true;
            }
        }
        let others = (0..picture.nodes.len()).filter(|&at| !is_chosen[at]);
        let mut stays = picture.reach(others);
        stays.extend(&picture.all_kept());
        let dead = (0..picture.nodes.len()).filter(|&at| !stays.contains(at));
        let dead: Vec<&PathNode> = dead.map(|at| &picture.nodes[at]).collect();
        self.database.forget(dead.iter().map(|node| &node.path))?;
        self.throw_away(dead.iter().map(|node| &node.path), &session)?;
        Ok(dead.into_iter().map(|node| (node.path.clone(), node.size)).collect())
    }

    /// Removes roots whose link is gone, and those of projects whose folder is gone if they were renewed before a moment.
    pub fn expire_roots(&self, vanished_before: Option<SystemTime>) -> Result<(), StoreError> {
        self.check_writable()?;
        // Nobody renews one while this is held.
        let _lock = self.lock(LockKind::Exclusive)?;
        for root in self.roots()? {
            let is_old = || vanished_before.is_some_and(|moment| root.modified < moment);
            if root.target.is_none() || (is_old() && root.has_vanished()) {
                self.remove_root_file(&root.name)?;
            }
        }
        Ok(())
    }

    /// Finds out what stays and what goes.
    fn mark(&self, options: &GcOptions) -> Result<GcReport, StoreError> {
        let mut picture = self.picture(options.expire_vanished_before)?;
        if let Some(moment) = options.keep_used_since {
            picture.keep_used_since(moment);
        }
        Ok(picture.report(self.unregistered()?))
    }

    /// All valid paths, with what roots and processes reach.
    fn picture(&self, expire_vanished_before: Option<SystemTime>) -> Result<Picture, StoreError> {
        let nodes = self.database.nodes()?;
        let places = nodes.iter().enumerate();
        let mut picture = Picture {
            places: places.map(|(at, node)| (node.path.clone(), at)).collect(),
            nodes,
            expired_roots: Vec::new(),
            stale_roots: Vec::new(),
            kept: Vec::new(),
        };
        let mut of_targets: BTreeMap<RootOwner, Vec<usize>> = BTreeMap::new();
        for root in self.roots()? {
            let Some(target) = &root.target else {
                picture.stale_roots.push(root.name);
                continue;
            };
            if expire_vanished_before.is_some_and(|moment| root.modified < moment && root.has_vanished()) {
                picture.expired_roots.push(root.name);
                continue;
            }
            let place = picture.place(target);
            match root.owner {
                Some(owner) => of_targets.entry(owner).or_default().extend(place),
                None => {
                    let reached = picture.reach(place);
                    picture.kept.push((KeptBy::Root(root.name), reached));
                }
            }
        }
        for (owner, places) in of_targets {
            let reached = picture.reach(places);
            picture.kept.push((KeptBy::Target(owner), reached));
        }
        let in_use = match self.database.read_only() {
            true => BTreeSet::new(),
            false => session::protected(&self.tmp())?,
        };
        let in_use: Vec<usize> = in_use.iter().filter_map(|path| picture.place(path)).collect();
        let reached = picture.reach(in_use);
        picture.kept.push((KeptBy::Processes, reached));
        Ok(picture)
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
