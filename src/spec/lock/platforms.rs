//! A lock *as seen from a platform*: what it holds for that one stands where the code that knows one platform looks.
//!
//! Invariant: a lock that is seen from another platform and back again is what it was; what it holds for one platform does
//! not touch what it holds for another.

use std::mem;

use crate::spec::{Lock, LockedPlatform};

impl Lock {
    /// The lock as seen from the platform of a Debian architecture; its own is `home` where it does not name one.
    pub fn at(&self, architecture: &str, home: &str) -> Self {
        let own = self.architecture.as_deref().unwrap_or(home).to_owned();
        let mut lock = self.clone();
        if own == architecture {
            return lock;
        }
        let here = lock.replace_platform(lock.elsewhere.get(architecture).cloned().unwrap_or_default());
        lock.elsewhere.remove(architecture);
        if here != LockedPlatform::default() {
            lock.elsewhere.insert(own, here);
        }
        lock.architecture = Some(architecture.to_owned());
        lock
    }

    /// A lock of what machines of a Debian architecture need to build for others.
    pub fn of_machine(&self, architecture: &str) -> Self {
        let machine = self.machines.get(architecture).cloned().unwrap_or_default();
        Self {
            architecture: Some(architecture.to_owned()),
            debs: machine.debs,
            deb_sets: machine.deb_sets,
            ..Self::default()
        }
    }

    /// The lock that is for its own platform alone.
    pub fn alone(&self) -> Self {
        let mut lock = self.clone();
        lock.elsewhere.clear();
        lock
    }

    /// What it holds for its own platform, in whose place it gets `new`.
    fn replace_platform(&mut self, new: LockedPlatform) -> LockedPlatform {
        LockedPlatform {
            debs: mem::replace(&mut self.debs, new.debs),
            deb_sets: mem::replace(&mut self.deb_sets, new.deb_sets),
            python: mem::replace(&mut self.python, new.python),
            bases: mem::replace(&mut self.bases, new.bases),
        }
    }

    /// Takes over what `seen`, this lock as brought up to date for its own platform, holds for that.
    pub fn take_home(&mut self, seen: Self) {
        self.architecture = seen.architecture;
        self.debs = seen.debs;
        self.deb_sets = seen.deb_sets;
        self.python = seen.python;
        self.bases = seen.bases;
    }

    /// Names its own architecture where something in it depends on that: where there are Debian packages, or further
    /// platforms.
    pub fn settle(&mut self, home: &str) {
        if self.debs.is_empty() && self.elsewhere.is_empty() {
            self.architecture = None;
        } else if self.architecture.is_none() {
            self.architecture = Some(home.to_owned());
        }
    }

    /// Takes over what `seen`, this lock as seen from another platform of it and brought up to date there, holds for that.
    pub fn take_platform(&mut self, architecture: &str, seen: Self) {
        let platform = LockedPlatform {
            debs: seen.debs,
            deb_sets: seen.deb_sets,
            python: seen.python,
            bases: seen.bases,
        };
        match platform == LockedPlatform::default() {
            true => drop(self.elsewhere.remove(architecture)),
            false => drop(self.elsewhere.insert(architecture.to_owned(), platform)),
        }
    }
}
