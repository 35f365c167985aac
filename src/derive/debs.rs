//! A *resolution* of Debian packages: what a set of wanted ones comes to, in order, with who needs whom.
//!
//! Invariant: the order and the dependencies depend on the lock's contents alone, not on the order in which
//! it lists them; each package comes after all it depends on, but for members of one cycle, which come in an
//! order of their own that is always the same.

use std::collections::{BTreeMap, BTreeSet};

use super::LeftOut;
use crate::graph;
use crate::spec::{Lock, LockedDeb, LockedPlatform};

/// A set of Debian packages that were resolved together.
pub(super) struct Resolution<'a> {
    /// All names, sorted.
    names: Vec<&'a str>,
    /// For each, the members of the set that it depends on, by index: every alternative that is there.
    depends: Vec<Vec<usize>>,
}

impl<'a> Resolution<'a> {
    /// The names of all members, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.names.iter().copied()
    }

    /// Whether a package is a member.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.binary_search(&name).is_ok()
    }

    /// What `wanted` (sorted names) comes to; `None` where the lock does not say.
    pub(super) fn new(lock: &'a Lock, wanted: &[String]) -> Option<Self> {
        Self::within(&lock.debs, &lock.deb_sets, wanted)
    }

    /// The same for a machine that builds for others.
    pub(super) fn on_machine(machine: &'a LockedPlatform, wanted: &[String]) -> Option<Self> {
        Self::within(&machine.debs, &machine.deb_sets, wanted)
    }

    fn within(
        debs: &'a BTreeMap<String, LockedDeb>,
        sets: &'a BTreeMap<Vec<String>, Vec<String>>,
        wanted: &[String],
    ) -> Option<Self> {
        if wanted.is_empty() {
            return Some(Self {
                names: Vec::new(),
                depends: Vec::new(),
            });
        }
        let resolved: BTreeSet<&str> = sets.get(wanted)?.iter().map(String::as_str).collect();
        let names: Vec<&str> = resolved.into_iter().collect();
        let depends = (names.iter().enumerate())
            .map(|(own, name)| {
                let alternatives = debs.get(*name)?.depends.iter().flatten();
                let members: BTreeSet<usize> = alternatives
                    .filter_map(|name| names.binary_search(&name.as_str()).ok())
                    .filter(|member| *member != own)
                    .collect();
                Some(members.into_iter().collect())
            })
            .collect::<Option<_>>()?;
        Some(Self { names, depends })
    }

    /// All packages, each after what it depends on.
    pub(super) fn ordered(&self) -> Vec<&'a str> {
        let order = graph::dependency_order(&self.depends);
        order.into_iter().map(|index| self.names[index]).collect()
    }

    /// All packages, those that depend on each other together, each group after those that it depends on.
    pub(super) fn groups(&self) -> Vec<Vec<&'a str>> {
        let groups = graph::components(&self.depends).into_iter();
        groups
            .map(|group| group.into_iter().map(|index| self.names[index]).collect())
            .collect()
    }

    /// What `name` depends on, directly or not, sorted, itself left out.
    pub(super) fn needed_by(&self, name: &str) -> Vec<&'a str> {
        let Ok(own) = self.names.binary_search(&name) else {
            return Vec::new();
        };
        graph::closure([own], |&index| self.depends[index].iter().copied())
            .into_iter()
            .filter(|index| *index != own)
            .map(|index| self.names[index])
            .collect()
    }

    /// The resolution of `wanted` without what is excluded, and what that leaves out.
    pub(super) fn without(self, wanted: &[String], excluded: &BTreeSet<&str>) -> (Self, BTreeMap<&'a str, LeftOut>) {
        if excluded.is_empty() {
            return (self, BTreeMap::new());
        }
        let reached = |stops: &BTreeSet<&str>| -> BTreeSet<usize> {
            let stays = |index: &usize| !stops.contains(self.names[*index]);
            let wanted = wanted
                .iter()
                .filter_map(|name| self.names.binary_search(&name.as_str()).ok());
            graph::closure(wanted.filter(stays), |&index| {
                self.depends[index].iter().copied().filter(stays)
            })
        };
        let (before, after) = (reached(&BTreeSet::new()), reached(excluded));
        let mut gone = BTreeMap::new();
        for (index, name) in self.names.iter().enumerate() {
            match (
                excluded.contains(name),
                before.contains(&index) && !after.contains(&index),
            ) {
                (true, _) => drop(gone.insert(*name, LeftOut::Excluded)),
                (false, true) => drop(gone.insert(*name, LeftOut::NeededByExcluded)),
                (false, false) => {}
            }
        }
        let kept: Vec<usize> = (0..self.names.len())
            .filter(|index| !gone.contains_key(self.names[*index]))
            .collect();
        let place = |index: &usize| kept.binary_search(index).ok();
        let part = Resolution {
            names: kept.iter().map(|&index| self.names[index]).collect(),
            depends: (kept.iter())
                .map(|&index| self.depends[index].iter().filter_map(place).collect())
                .collect(),
        };
        (part, gone)
    }
}
