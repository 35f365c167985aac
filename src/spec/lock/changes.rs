//! What *changed* between two locks, as people are told of it.
//!
//! Invariant: entries that are equal are not listed; each other one is listed once, sorted by its label.

use std::collections::BTreeMap;
use std::fmt;

use crate::digest::Digest;
use crate::spec::{Lock, LockedBase, LockedDeb, LockedPython, PackageName};

/// How one entry of a lock differs from that of another lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockChange {
    /// The entry is new.
    Added {
        /// What it pins, such as `deb:libc6`.
        label: String,
        /// The version or digest that it pins.
        pin: String,
    },
    /// The entry is gone.
    Removed {
        /// What it pinned.
        label: String,
        /// The version or digest that it pinned.
        pin: String,
    },
    /// The entry pins another version or digest.
    Moved {
        /// What it pins.
        label: String,
        /// The version or digest of before.
        from: String,
        /// The version or digest of now.
        to: String,
    },
    /// The entry pins other files of the same version.
    OtherFiles {
        /// What it pins.
        label: String,
        /// The version.
        pin: String,
    },
}

/// A line for people: `+ deb:gcc 12.2`, `- …`, `~ deb:gcc 12.2 → 12.3`.
impl fmt::Display for LockChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added { label, pin } => write!(f, "+ {label} {pin}"),
            Self::Removed { label, pin } => write!(f, "- {label} {pin}"),
            Self::Moved { label, from, to } => write!(f, "~ {label} {from} → {to}"),
            Self::OtherFiles { label, pin } => write!(f, "~ {label} {pin}: other files"),
        }
    }
}

/// What has to be said of the way from one lock to another.
pub fn changes(before: &Lock, after: &Lock) -> Vec<LockChange> {
    let mut entries = BTreeMap::<String, (Option<PinnedTo>, Option<PinnedTo>)>::new();
    for (label, pin) in pins(before) {
        entries.entry(label).or_default().0 = Some(pin);
    }
    for (label, pin) in pins(after) {
        entries.entry(label).or_default().1 = Some(pin);
    }
    entries
        .into_iter()
        .filter_map(|(label, pins)| match pins {
            (None, Some(new)) => Some(LockChange::Added { label, pin: new.shown }),
            (Some(old), None) => Some(LockChange::Removed { label, pin: old.shown }),
            (Some(old), Some(new)) if old.shown != new.shown => Some(LockChange::Moved {
                label,
                from: old.shown,
                to: new.shown,
            }),
            (Some(old), Some(new)) if old != new => Some(LockChange::OtherFiles { label, pin: new.shown }),
            _ => None,
        })
        .collect()
}

/// What an entry of a lock is pinned to.
#[derive(PartialEq, Eq)]
struct PinnedTo {
    /// As people tell it from another: a version or a digest.
    shown: String,
    /// Digests of its files, where `shown` is a version.
    files: Vec<Digest>,
}

impl From<String> for PinnedTo {
    fn from(shown: String) -> Self {
        let files = Vec::new();
        Self { shown, files }
    }
}

fn pins(lock: &Lock) -> Vec<(String, PinnedTo)> {
    let sources = lock.deb_sources.iter().map(|(name, source)| {
        let shown = source.version.clone();
        let files = source.files.iter().map(|file| file.sha256).collect();
        (format!("deb-source:{name}"), PinnedTo { shown, files })
    });
    let urls = lock
        .urls
        .iter()
        .map(|(name, url)| (format!("url of {name}"), url.sha256.to_string().into()));
    let git = lock.git.iter().map(|(name, git)| {
        let (shown, files) = (git.commit.to_string(), vec![git.nar_hash]);
        (format!("git of {name}"), PinnedTo { shown, files })
    });
    let commits = lock.commits.iter().map(|(commit, tree)| {
        let label = format!("tree of commit {commit}");
        (label, tree.nar_hash.to_string().into())
    });
    let nix = lock.nix.iter().map(|(name, nix)| {
        let pin = format!("{} {}", nix.path, nix.closure);
        (format!("nix:{name}"), pin.into())
    });
    let accounts = lock.accounts.iter().map(|((image, name), number)| {
        let label = format!("number of {name} in {image}");
        (label, number.to_string().into())
    });
    let golden = lock.golden.iter().map(|(key, golden)| {
        let label = format!("digest of {} ({}, {})", key.image, key.platform, key.compression);
        (label, golden.digest.to_string().into())
    });
    let own = platform_pins(&lock.debs, &lock.python, &lock.bases);
    let elsewhere = lock.elsewhere.iter().flat_map(|(architecture, platform)| {
        let pins = platform_pins(&platform.debs, &platform.python, &platform.bases);
        pins.map(move |(label, pin)| (format!("{label} ({architecture})"), pin))
    });
    let machines = lock.machines.iter().flat_map(|(architecture, machine)| {
        let pins = platform_pins(&machine.debs, &machine.python, &machine.bases);
        pins.map(move |(label, pin)| (format!("{label} (to build on {architecture})"), pin))
    });
    own.chain(sources)
        .chain(urls)
        .chain(git)
        .chain(commits)
        .chain(nix)
        .chain(accounts)
        .chain(golden)
        .chain(elsewhere)
        .chain(machines)
        .collect()
}

/// The pins of what is for one platform.
fn platform_pins<'a>(
    debs: &'a BTreeMap<String, LockedDeb>,
    python: &'a BTreeMap<(PackageName, String), LockedPython>,
    bases: &'a BTreeMap<String, LockedBase>,
) -> impl Iterator<Item = (String, PinnedTo)> + 'a {
    let debs = debs.iter().map(|(name, deb)| {
        let (shown, files) = (deb.version.clone(), vec![deb.sha256]);
        (format!("deb:{name}"), PinnedTo { shown, files })
    });
    let python = python.iter().map(|((package, name), python)| {
        let pin = format!("{} {}:{}", python.version, python.hash.scheme(), python.hash.hex());
        (format!("python:{name} of {package}"), pin.into())
    });
    let bases = bases
        .iter()
        .map(|(name, base)| (format!("base of {name}"), base.sha256.to_string().into()));
    debs.chain(python).chain(bases)
}
