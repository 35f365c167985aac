//! The *fix-up* of an output: run paths shrunk to what is used, and a word on what is not in the store.
//!
//! The linker wrapper gives every program all library directories; a directory that provides nothing would still
//! be found by the reference scan and keep its package in the closure. Invariant: after the fix-up a run path holds
//! a store directory only where the file, or a library it leads to, needs something of it; what the user put into
//! it besides (`$ORIGIN`, a directory outside the store) stays, but for the build directory, which will be gone; and so
//! does what `runtime` names, as no file says what it opens by `dlopen`.
//!
//! Programs that passed by the wrapper (Go's own linker, rust-lld, what was compiled elsewhere) are linked to the store
//! here, where the libraries they need are among the build's.
//!
//! This is not [`crate::elf::loader`], which says whether a container's own loader will find everything: here
//! is asked what a run path may not lose. So nothing but run paths and the store is searched (no default directories, no
//! cache, no `LD_LIBRARY_PATH`), a library's own run path comes before that of the file that led to it whichever kind both
//! are, and a file counts for its name alone: to keep a directory too many is harmless, to drop one breaks a program.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use super::link::Linkage;
use crate::elf::{self, Elf};
use crate::fsio::{IoContext, PathError, normalize, sorted_names};
use crate::sandbox::emulator::Processor;
use crate::store_path::StoreDir;

/// Most links followed to find a library.
const LINKS_MAX: usize = 40;

/// Where things are that have a logical path.
pub(super) struct Places<'a> {
    /// The output's logical path.
    pub logical: &'a str,
    /// Where the output is on disk.
    pub tree: &'a Path,
    /// Where the store's trees are on disk.
    pub store: &'a Path,
    /// What programs are linked to.
    pub linkage: &'a Linkage,
    /// Beginnings of directories that stay on run paths, used or not.
    pub kept: &'a [String],
}

/// What only directories have in which Cargo works. Whatever a crate is compiled for, its build script and its macros are
/// programs of the machine that compiles, and stay there for whoever goes on with the work.
const CARGO_WORK: &str = ".fingerprint";

/// The ELF files of a tree that are for a processor, relative to it, without those that lie where Cargo works.
pub(super) fn programs_for(tree: &Path, processor: &Processor) -> Result<Vec<String>, PathError> {
    let mut found = Vec::new();
    let mut pending = vec![tree.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).context("read", &path)?;
        if metadata.is_dir() {
            let names = sorted_names(&path)?;
            if names.iter().any(|name| name == CARGO_WORK) {
                continue;
            }
            pending.extend(names.iter().rev().map(|name| path.join(name)));
        } else if metadata.is_file()
            && let Some(elf) = elf::read(&path)?
            && processor.is_of(elf.is_64, elf.machine.0)
        {
            found.push(path.strip_prefix(tree).unwrap_or(&path).display().to_string());
        }
    }
    Ok(found)
}

/// What an output needs from outside the store: what → the first file that needs it, relative to the output.
pub(super) type Missing = BTreeMap<String, String>;

/// Shrinks every run path in the output; gives the interpreters and libraries that no store path provides. What Cargo works with
/// is started by builds alone, where the machine's own interpreter is: what it needs is not missed.
pub(super) fn fix(places: &Places<'_>) -> Result<Missing, PathError> {
    let mut missing = Missing::new();
    let mut pending = vec![(places.tree.to_owned(), false)];
    while let Some((path, is_work)) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).context("read", &path)?;
        if metadata.is_dir() {
            make_readable(&path, &metadata)?;
            let names = sorted_names(&path)?;
            let is_work = is_work || names.iter().any(|name| name == CARGO_WORK);
            pending.extend(names.iter().rev().map(|name| (path.join(name), is_work)));
        } else if metadata.is_file() {
            make_readable(&path, &metadata)?;
            let needed = fix_file(places, &path)?;
            let shown = path.strip_prefix(places.tree).unwrap_or(&path).display().to_string();
            for name in needed.into_iter().filter(|_| !is_work) {
                missing.entry(name).or_insert_with(|| shown.clone());
            }
        }
    }
    Ok(missing)
}

/// A build may leave what its owner cannot read; modes are set anew when the output enters the store.
fn make_readable(path: &Path, metadata: &fs::Metadata) -> Result<(), PathError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode();
    let wanted = mode | if metadata.is_dir() { 0o700 } else { 0o400 };
    if wanted != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(wanted)).context("make readable", path)?;
    }
    Ok(())
}

/// Shrinks the run path of a file; gives the interpreter and the libraries that it needs and no store path provides.
fn fix_file(places: &Places<'_>, path: &Path) -> Result<Vec<String>, PathError> {
    let Some(elf) = elf::read(path)? else {
        return Ok(Vec::new());
    };
    let elf = link_afterwards(places, path, elf)?;
    let origin = places.origin(path);
    let use_of = Use::of(places, &elf, &origin)?;
    let needs_loading = elf.interpreter.is_some() || elf.run_path.is_some();
    let outside = elf
        .interpreter
        .iter()
        .filter(|interpreter| places.find(interpreter).is_none());
    // A library without run path is for others to load, with theirs.
    let libraries = use_of.missing.iter().filter(|_| needs_loading);
    let missing = outside.chain(libraries).cloned().collect();
    let Some(run_path) = &elf.run_path else {
        return Ok(missing);
    };
    let mut seen = BTreeSet::new();
    let kept: Vec<&str> = directories(&run_path.value)
        .filter(|dir| places.is_kept(dir, &origin, &use_of.directories) && seen.insert(*dir))
        .collect();
    let value = kept.join(":");
    if value != run_path.value {
        elf::set_run_path(path, run_path, &value)?;
    }
    Ok(missing)
}

/// Links a program to the store that the wrapped linkers did not see, where that finds it anything.
fn link_afterwards(places: &Places<'_>, path: &Path, elf: Elf) -> Result<Elf, PathError> {
    let linkage = places.linkage;
    let is_found = |name: &String| {
        linkage
            .dirs()
            .iter()
            .any(|dir| places.find(&format!("{dir}/{name}")).is_some())
    };
    if !linkage.is_missing_in(&elf) || !elf.needed.iter().any(is_found) {
        return Ok(elf);
    }
    let own = elf.run_path.as_ref().map_or("", |run_path| run_path.value.as_str());
    let Some((interpreter, run_path)) = linkage.added_to(own) else {
        return Ok(elf);
    };
    if places.find(interpreter).is_some() && elf::relink(path, interpreter, &run_path)? {
        return Ok(elf::read(path)?.unwrap_or(elf));
    }
    Ok(elf)
}

fn directories(run_path: &str) -> impl Iterator<Item = &str> {
    run_path.split(':').filter(|dir| !dir.is_empty())
}

/// What of its run path a file uses.
#[derive(Debug, Default)]
struct Use {
    /// The directories in which something needed was found.
    directories: BTreeSet<String>,
    /// Needed libraries found nowhere.
    missing: BTreeSet<String>,
}

impl Use {
    /// Searches as the loader does: for what a library needs first in its own run path, then in that of the file
    /// which led to it.
    fn of(places: &Places<'_>, elf: &Elf, origin: &str) -> Result<Self, PathError> {
        let own: Vec<String> = expand(elf, origin);
        let mut found = Self::default();
        let mut seen: BTreeSet<String> = elf.needed.iter().cloned().collect();
        let mut pending: VecDeque<(String, Vec<String>)> =
            elf.needed.iter().map(|name| (name.clone(), Vec::new())).collect();
        while let Some((name, search_first)) = pending.pop_front() {
            let hit = match name.rsplit_once('/') {
                // The loader searches for plain names alone.
                Some((dir, _)) => places.find(&name).map(|physical| (physical, dir, false)),
                None => search_first
                    .iter()
                    .map(|dir| (dir, false))
                    .chain(own.iter().map(|dir| (dir, true)))
                    .find_map(|(dir, is_own)| Some((places.find(&format!("{dir}/{name}"))?, dir.as_str(), is_own))),
            };
            let Some((physical, dir, is_own)) = hit else {
                found.missing.insert(name);
                continue;
            };
            if is_own {
                found.directories.insert(dir.to_owned());
            }
            if let Some(library) = elf::read(&physical)? {
                let dirs = expand(&library, dir);
                for needed in library.needed {
                    if seen.insert(needed.clone()) {
                        pending.push_back((needed, dirs.clone()));
                    }
                }
            }
        }
        Ok(found)
    }
}

/// The directories of a file's run path, with its own directory for `$ORIGIN`.
fn expand(elf: &Elf, origin: &str) -> Vec<String> {
    let value = elf.run_path.as_ref().map_or("", |run_path| run_path.value.as_str());
    directories(value).map(|dir| with_origin(dir, origin)).collect()
}

fn with_origin(dir: &str, origin: &str) -> String {
    dir.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)
}

impl Places<'_> {
    /// The logical directory of a file of the output.
    fn origin(&self, path: &Path) -> String {
        let below = path.parent().and_then(|parent| parent.strip_prefix(self.tree).ok());
        match below.map(Path::to_string_lossy) {
            Some(below) if !below.is_empty() => format!("{}/{below}", self.logical),
            _ => self.logical.to_owned(),
        }
    }

    fn is_kept(&self, dir: &str, origin: &str, used: &BTreeSet<String>) -> bool {
        let expanded = with_origin(dir, origin);
        let is_in_store = Path::new(&expanded).starts_with(StoreDir::LAYERIZE);
        match is_in_store && expanded == dir {
            true => used.contains(&expanded) || self.kept.iter().any(|kept| expanded.starts_with(kept)),
            false => !Path::new(dir).starts_with("/build"),
        }
    }

    /// Where the file at a logical path is on disk, links followed; `None` where it is not in the store.
    fn find(&self, logical: &str) -> Option<PathBuf> {
        let mut logical = normalize(Path::new(logical));
        for _ in 0..LINKS_MAX {
            let physical = self.physical(&logical)?;
            let metadata = physical.symlink_metadata().ok()?;
            if !metadata.is_symlink() {
                return metadata.is_file().then_some(physical);
            }
            let target = fs::read_link(&physical).ok()?;
            logical = normalize(&logical.parent()?.join(target));
        }
        None
    }

    fn physical(&self, logical: &Path) -> Option<PathBuf> {
        if let Ok(below) = logical.strip_prefix(self.logical) {
            return Some(if below.as_os_str().is_empty() {
                self.tree.to_owned()
            } else {
                self.tree.join(below)
            });
        }
        let below = logical.strip_prefix(StoreDir::LAYERIZE).ok()?;
        Some(self.store.join(below))
    }
}

#[cfg(test)]
mod tests;
