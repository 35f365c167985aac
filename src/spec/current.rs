//! Whether a lock is *current*: whether it holds what its workspace needs, and nothing else.
//!
//! Invariant: what is told is a line a fault, of every kind of entry and of every platform.

use std::collections::BTreeSet;

use super::cross::cross_sets;
use super::git::GitWanted;
use super::lock::Lock;
use super::machine::{emulator_debs, wants_emulator};
use super::needs::{
    bases, build_debs, deb_sources, git_sources, is_debug_files_deb, locked_sets, needed_sets, nix_contents, tool_debs,
    unpinned_urls, utf8_debs,
};
use super::platforms::{architectures, home_architecture, machine_architecture};
use super::types::{PackageName, Workspace};

/// What a lock is to be current for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockScope {
    /// Everything in the spec.
    Whole,
    /// Packages and images: what `dev` adds for shells may be other than the spec says.
    Builds,
}

/// Whether `lock` holds exactly what `workspace` needs for `scope`; if not, what is missing and what is too much, a line
/// each.
pub fn lock_is_current(workspace: &Workspace, lock: &Lock, scope: LockScope) -> Result<(), Vec<String>> {
    let without_dev;
    let workspace = match scope {
        LockScope::Whole => workspace,
        LockScope::Builds => {
            without_dev = workspace.without_dev();
            &without_dev
        }
    };
    let mut wrong = Vec::new();
    compare_platforms(workspace, lock, scope, &mut wrong);
    compare(
        &deb_sources(workspace),
        lock.deb_sources.keys().cloned().collect(),
        |name| format!("the Debian source package `{name}`"),
        &mut wrong,
    );
    compare(
        &unpinned_urls(workspace).into_keys().collect(),
        lock.urls.keys().cloned().collect(),
        |name| format!("the download for package `{name}`"),
        &mut wrong,
    );
    compare(
        &(git_sources(workspace).into_iter())
            .map(|(name, source)| (name, source.wanted()))
            .collect(),
        (lock.git.iter())
            .map(|(name, locked)| (name.clone(), locked.wanted.clone()))
            .collect(),
        |(name, wanted)| git_tree(name, wanted),
        &mut wrong,
    );
    compare(
        &nix_contents(workspace).into_keys().collect(),
        lock.nix.keys().cloned().collect(),
        |name| format!("the Nix store path of `{name}`"),
        &mut wrong,
    );
    compare_machines(workspace, lock, scope, &mut wrong);
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Tells of what machines need to build for others: of what is too much for any, and of what this one lacks. An emulator is
/// told of where it is needed.
fn compare_machines(workspace: &Workspace, lock: &Lock, scope: LockScope, wrong: &mut Vec<String>) {
    let home = home_architecture(workspace, lock);
    let own = machine_architecture();
    let needed = cross_sets(workspace, &home, own);
    let locked = |machine: &str| lock.machines.get(machine);
    for (set, owner) in &needed {
        if locked(own).is_none_or(|machine| !machine.deb_sets.contains_key(set)) {
            wrong.push(format!("missing: this machine's tools for {owner}"));
        }
    }
    for (machine, locked) in &lock.machines {
        let needed = cross_sets(workspace, &home, machine);
        let emulator = wants_emulator(workspace, lock, machine).then(emulator_debs);
        let is_needed = |set: &Vec<String>| needed.contains_key(set) || emulator.as_ref() == Some(set);
        for set in locked.deb_sets.keys().filter(|set| !is_needed(set)) {
            let is_part = |other: &Vec<String>| other.iter().all(|name| set.contains(name));
            match *set == emulator_debs() {
                true => wrong.push(format!("no longer needed: the emulator for machines of `{machine}`")),
                // A shell's, with what the spec may say otherwise by now.
                false if scope == LockScope::Builds && needed.keys().any(is_part) => {}
                false => wrong.push(format!(
                    "no longer needed: {} on machines of `{machine}`",
                    resolution_of(set)
                )),
            }
        }
        let used: BTreeSet<&String> = locked.deb_sets.values().flatten().collect();
        let unused = locked.debs.keys().filter(|name| !used.contains(name));
        wrong.extend(
            unused.map(|name| format!("no longer needed: the Debian package `{name}` on machines of `{machine}`")),
        );
    }
}

/// Tells of what is for one platform, platform by platform: of further ones with their architecture before each line.
fn compare_platforms(workspace: &Workspace, lock: &Lock, scope: LockScope, wrong: &mut Vec<String>) {
    let wanted = workspace.debian.architecture.as_ref();
    if let (Some(wanted), Some(locked)) = (wanted, &lock.architecture)
        && wanted != locked
    {
        wrong.push(format!(
            "the lock is for architecture `{locked}`, the spec for `{wanted}`"
        ));
        return;
    }
    let home = home_architecture(workspace, lock);
    let needed = architectures(workspace, &home);
    for architecture in &needed {
        let mut here = Vec::new();
        let (seen, locked) = (workspace.at(architecture, &home), lock.at(architecture, &home));
        compare_platform(&seen, &locked, scope, &mut here);
        wrong.extend(here.into_iter().map(|line| match *architecture == home {
            true => line,
            false => format!("{architecture}: {line}"),
        }));
    }
    let unneeded = lock
        .elsewhere
        .keys()
        .filter(|architecture| !needed.contains(*architecture));
    wrong.extend(unneeded.map(|architecture| format!("no longer needed: all that is for `{architecture}`")));
}

fn compare_platform(workspace: &Workspace, lock: &Lock, scope: LockScope, wrong: &mut Vec<String>) {
    compare_sets(workspace, lock, scope, wrong);
    compare(
        &bases(workspace),
        (lock.bases.iter())
            .map(|(image, base)| (image.clone(), base.reference.clone()))
            .collect(),
        |(image, base)| format!("the base `{base}` of image `{image}`"),
        wrong,
    );
    let used: BTreeSet<&String> = lock.deb_sets.values().flatten().collect();
    let unused = lock.debs.keys().filter(|name| !used.contains(name));
    wrong.extend(unused.map(|name| format!("no longer needed: the Debian package `{name}`")));
}

/// Tells of sets that are missing and sets that are too many. A missing one is told by how it differs from one that is too
/// much and like it, else from the largest that is a part of it: `package `x`: + deb:new, - deb:old`.
fn compare_sets(workspace: &Workspace, lock: &Lock, scope: LockScope, wrong: &mut Vec<String>) {
    let needed = locked_sets(workspace, lock);
    let missing: Vec<&Vec<String>> = needed.iter().filter(|set| !lock.deb_sets.contains_key(*set)).collect();
    let mut surplus: BTreeSet<&Vec<String>> = lock.deb_sets.keys().filter(|set| !needed.contains(*set)).collect();
    if !missing.is_empty() {
        // What sets imply, a locale for the C library and debug files, is known when they are resolved.
        surplus.retain(|set| **set != utf8_debs() && !set.iter().all(|name| is_debug_files_deb(name)));
    }
    let owners = needed_sets(workspace);
    let owner = |set: &Vec<String>| owners.iter().find(|(other, _)| other == set).map(|(_, owner)| owner);
    let is_within = |part: &[String], set: &[String]| part.iter().all(|name| set.contains(name));
    let mut replaced = BTreeSet::new();
    for set in missing {
        let common = |other: &[String]| set.iter().filter(|name| other.contains(name)).count();
        let like = |other: &&Vec<String>| 2 * common(other) >= set.len().min(other.len());
        let before = surplus.iter().copied().filter(like).max_by_key(|other| common(other));
        let part = needed
            .iter()
            .filter(|other| lock.deb_sets.contains_key(*other) && is_within(other, set));
        match (before.or(part.max_by_key(|other| other.len())), owner(set)) {
            (Some(near), Some(owner)) => {
                replaced.extend(before);
                let added = set.iter().filter(|name| !near.contains(name)).map(|name| ('+', name));
                let gone = near.iter().filter(|name| !set.contains(name)).map(|name| ('-', name));
                let changes = added.chain(gone).map(|(sign, name)| format!("{sign} deb:{name}"));
                wrong.push(format!("{owner}: {}", changes.collect::<Vec<_>>().join(", ")));
            }
            _ => wrong.push(format!("missing: {}", resolution_of(set))),
        }
    }
    let builds = workspace
        .packages
        .values()
        .map(|package| build_debs(workspace, package));
    let builds: Vec<Vec<String>> = builds.filter(|set| !set.is_empty()).collect();
    // A build's packages and more can be those of its shell.
    let may_be_shell = |set: &[String]| {
        let before = replaced.iter().copied();
        builds.iter().chain(before).any(|build| is_within(build, set))
    };
    for set in surplus.difference(&replaced) {
        if scope == LockScope::Builds && may_be_shell(set) {
            continue;
        }
        // Of a shell whose package has no `dev` any more: what the package itself needs is no news.
        let known = needed.iter().chain(replaced.iter().copied());
        let within = known
            .filter(|other| is_within(other, set))
            .max_by_key(|other| other.len());
        let rest = match within {
            Some(within) => set.iter().filter(|name| !within.contains(name)).cloned().collect(),
            None => (*set).clone(),
        };
        wrong.push(format!("no longer needed: {}", resolution_of(&rest)));
    }
}

fn resolution_of(set: &[String]) -> String {
    match set == tool_debs() {
        true => "the tools that maintainer scripts need".to_owned(),
        false => format!("the resolution of `deb:{}`", set.join("`, `deb:")),
    }
}

fn git_tree(package: &PackageName, wanted: &GitWanted) -> String {
    let submodules = if wanted.submodules { "" } else { ", without submodules" };
    let lfs = if wanted.lfs { ", with files of Git LFS" } else { "" };
    let reference = &wanted.reference;
    format!("the git source of package `{package}` ({reference}{submodules}{lfs})")
}

fn compare<T: Ord>(needed: &BTreeSet<T>, locked: BTreeSet<T>, name: impl Fn(&T) -> String, wrong: &mut Vec<String>) {
    let missing = needed
        .difference(&locked)
        .map(|item| format!("missing: {}", name(item)));
    wrong.extend(missing);
    let superfluous = locked
        .difference(needed)
        .map(|item| format!("no longer needed: {}", name(item)));
    wrong.extend(superfluous);
}
