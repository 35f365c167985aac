//! A *resolution* of Debian packages: what a set of wanted ones comes to, in order, with who needs whom.
//!
//! Invariant: the order and the dependencies depend on the lock's contents alone, not on the order in which
//! it lists them; each package comes after all it depends on, but for members of one cycle, which come in an
//! order of their own that is always the same.

use std::collections::BTreeSet;

use crate::graph;
use crate::spec::Lock;

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
        if wanted.is_empty() {
            return Some(Self {
                names: Vec::new(),
                depends: Vec::new(),
            });
        }
        let resolved: BTreeSet<&str> = lock.deb_sets.get(wanted)?.iter().map(String::as_str).collect();
        let names: Vec<&str> = resolved.into_iter().collect();
        let depends = (names.iter().enumerate())
            .map(|(own, name)| {
                let alternatives = lock.debs.get(*name)?.depends.iter().flatten();
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
}
