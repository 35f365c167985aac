//! *Resolving*: the lock that a workspace needs, every input from outside pinned by hash.
//!
//! Invariant: the lock is a function of the spec, the old lock, what may be updated, and what the archives and
//! addresses hold; never of the order in which things are written or asked for. What need not change does not.

use std::collections::{BTreeMap, BTreeSet};

use super::cache::{Cache, Labels};
use super::debian::{AptSources, debug_files, solve};
use super::download::THREADS;
use super::transfer::{Address, Transfer};
use super::{FetchConfig, FetchError};
use crate::event::{Event, Reporter};
use crate::parallel;
use crate::spec;
use crate::spec::{Lock, LockedPlatform, LockedUrl, PackageName, Workspace};

/// Which locked entries [`resolve`] may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// Only what is missing is added; what is no longer needed goes.
    Nothing,
    /// Everything is resolved anew.
    Everything,
    /// These names (Debian packages, source packages, packages with a URL or a repository) and what must change with them.
    Names(Vec<String>),
    /// What no source carries any more ([`gone`](super::gone())), and what its new version needs.
    Gone(Gone),
    /// Another update, of what is for some platforms alone: by their Debian architectures.
    Platforms {
        /// The architectures.
        architectures: BTreeSet<String>,
        /// What is updated for these.
        update: Box<Update>,
    },
}

/// Entries of a lock that no source carries any more. What is gone for one platform is resolved anew for each, so that all get
/// the same version where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gone {
    /// Names of Debian binary packages.
    pub debs: BTreeSet<String>,
    /// Names of Debian source packages.
    pub deb_sources: BTreeSet<String>,
}

/// An entry of a lock as an [`Update`] tells it from others: kinds may share a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockEntry<'a> {
    /// A Debian binary package.
    Deb(&'a str),
    /// A Debian source package.
    DebSource(&'a str),
    /// A download, the tree of a commit, a path of a Nix store, a base.
    Other(&'a str),
}

impl Update {
    /// Whether an entry is to be resolved anew.
    pub fn takes(&self, entry: LockEntry<'_>) -> bool {
        let (LockEntry::Deb(name) | LockEntry::DebSource(name) | LockEntry::Other(name)) = entry;
        match (self, entry) {
            // What all platforms share is not for some of them.
            (Self::Nothing | Self::Platforms { .. }, _) | (Self::Gone(_), LockEntry::Other(_)) => false,
            (Self::Everything, _) => true,
            (Self::Names(names), _) => names.iter().any(|wanted| wanted == name),
            (Self::Gone(gone), LockEntry::Deb(_)) => gone.debs.contains(name),
            (Self::Gone(gone), LockEntry::DebSource(_)) => gone.deb_sources.contains(name),
        }
    }

    /// What of it is for a platform, by its Debian architecture.
    pub fn on(&self, architecture: &str) -> &Self {
        match self {
            Self::Platforms { architectures, update } if architectures.contains(architecture) => {
                update.on(architecture)
            }
            Self::Platforms { .. } => &Self::Nothing,
            update => update,
        }
    }

    /// The names that are to be updated.
    pub fn names(&self) -> &[String] {
        match self {
            Self::Names(names) => names,
            Self::Platforms { update, .. } => update.names(),
            Self::Nothing | Self::Everything | Self::Gone(_) => &[],
        }
    }
}

/// Makes the lock that `workspace` needs, starting from `old`.
///
/// With [`Update::Nothing`] a locked version stays as long as it can: a set of packages that is locked and wanted
/// as before is not asked about at all (so a version that the mirrors dropped stays locked), and for a new set
/// the locked versions are preferred. The network is used only for what must be resolved, and to see whether tags of
/// repositories lead where they did.
pub fn resolve(
    workspace: &Workspace,
    old: &Lock,
    update: &Update,
    config: &FetchConfig,
    reporter: &dyn Reporter,
) -> Result<Lock, FetchError> {
    check_names(workspace, old, update)?;
    let home = spec::home_architecture(workspace, old);
    let old = &old.at(&home, &home);
    let mut lock = resolve_platforms(workspace, &home, old, update, config, reporter)?;
    lock.machines = resolve_machines(workspace, (old, &lock), update, config, reporter)?;
    let sources = AptSources::of(workspace);
    let request = solve::Request {
        sources: &sources,
        old,
        update,
        config,
        reporter,
    };
    lock.deb_sources = solve::resolve_sources(&spec::deb_sources(workspace), &request)?;
    lock.urls = resolve_urls(&spec::unpinned_urls(workspace), &request)?;
    lock.git = super::git::resolve(&spec::git_sources(workspace), old, update, config, reporter)?;
    // What lock files of languages name is read by whoever knows the sources.
    lock.commits = old.commits.clone();
    // What a Nix store holds is not fetched: who knows the store pins it.
    lock.nix = (old.nix.iter())
        .filter(|(name, _)| spec::nix_contents(workspace).contains_key(*name))
        .map(|(name, locked)| (name.clone(), locked.clone()))
        .collect();
    lock.accounts = accounts_of(workspace, old);
    lock.golden = golden_of(workspace, old);
    Ok(lock)
}

/// A lock of what is for one platform alone, for each that the workspace is for.
fn resolve_platforms(
    workspace: &Workspace,
    home: &str,
    old: &Lock,
    update: &Update,
    config: &FetchConfig,
    reporter: &dyn Reporter,
) -> Result<Lock, FetchError> {
    let mut lock = Lock::default();
    let all = spec::architectures(workspace, home);
    for architecture in &all {
        let (workspace, old) = (workspace.at(architecture, home), old.at(architecture, home));
        let mut sources = AptSources::of(&workspace);
        if all.len() > 1 {
            sources.architecture = Some(architecture.clone());
        }
        let request = solve::Request {
            sources: &sources,
            old: &old,
            update: update.on(architecture),
            config,
            reporter,
        };
        let debs = resolve_debs(&workspace, &request).map_err(|error| error.for_architecture(architecture))?;
        let here = Lock {
            architecture: debs.architecture,
            debs: debs.debs,
            deb_sets: debs.deb_sets,
            // What requirements ask for stands in the sources: who reads these pins it.
            python: old.python,
            // Bases are images, which this module does not read: whoever does brings them up to date.
            bases: old.bases,
            ..Lock::default()
        };
        match architecture == home {
            true => lock.take_home(here),
            false => lock.take_platform(architecture, here),
        }
    }
    lock.settle(home);
    Ok(lock)
}

/// What machines need to build for other ones: this one, and those of which the lock knows. What is locked for a machine's
/// own platform already is taken in the same version.
fn resolve_machines(
    workspace: &Workspace,
    (old, new): (&Lock, &Lock),
    update: &Update,
    config: &FetchConfig,
    reporter: &dyn Reporter,
) -> Result<BTreeMap<String, LockedPlatform>, FetchError> {
    let own = spec::machine_architecture();
    let home = spec::home_architecture(workspace, new);
    let mut machines: BTreeSet<&str> = old.machines.keys().map(String::as_str).collect();
    machines.insert(own);
    let mut resolved = BTreeMap::new();
    for machine in machines {
        let tools = spec::cross_sets(workspace, &home, machine);
        let mut sets: BTreeSet<Vec<String>> = tools.keys().cloned().collect();
        let emulator = spec::emulator_debs();
        sets.extend(spec::wants_emulator(workspace, old, machine).then(|| emulator.clone()));
        if sets.is_empty() {
            continue;
        }
        let sources = AptSources {
            architecture: Some(machine.to_owned()),
            ..AptSources::of(workspace)
        };
        let mut known = old.of_machine(machine);
        for (name, deb) in new.at(machine, &home).debs {
            known.debs.entry(name).or_insert(deb);
        }
        let request = solve::Request {
            sources: &sources,
            old: &known,
            update: update.on(machine),
            config,
            reporter,
        };
        let solved = match solve::resolve_sets(&sets, &request) {
            // It is needed where scripts are run, if nothing else runs them there, and told then.
            Err(error) if sets.contains(&emulator) && is_about(&error, &emulator) => {
                let text = format!("no emulator for machines of {machine} is locked: {error}");
                reporter.report(Event::Note { text });
                sets.remove(&emulator);
                solve::resolve_sets(&sets, &request)
            }
            solved => solved,
        };
        let solve::Debs { debs, deb_sets, .. } = solved.map_err(|error| lacking_compiler(error, &tools))?;
        if !sets.is_empty() {
            let locked = LockedPlatform {
                debs,
                deb_sets,
                ..LockedPlatform::default()
            };
            resolved.insert(machine.to_owned(), locked);
        }
    }
    Ok(resolved)
}

/// Whether a set is what cannot be had.
fn is_about(error: &FetchError, set: &[String]) -> bool {
    match error {
        FetchError::UnknownDeb { name, .. } => set.contains(name),
        FetchError::Offline { .. } => true,
        _ => false,
    }
}

/// Says for what a compiler is wanted that the archives lack: no spec names it.
fn lacking_compiler(error: FetchError, tools: &BTreeMap<Vec<String>, String>) -> FetchError {
    let FetchError::UnknownDeb { name, .. } = &error else {
        return error;
    };
    let ends = ["-linux-gnu", "-linux-gnueabi", "-linux-gnueabihf"];
    let wanted = tools.iter().find(|(set, _)| set.contains(name));
    match wanted.filter(|_| ends.iter().any(|end| name.ends_with(end))) {
        Some((_, owner)) => FetchError::NoCrossCompiler {
            name: name.clone(),
            owner: owner.clone(),
        },
        None => error,
    }
}

/// The recorded numbers of accounts in images that there still are: which accounts these have shows when they are built.
fn accounts_of(workspace: &Workspace, old: &Lock) -> BTreeMap<(String, String), u32> {
    let configures = |image: &str| {
        let image = workspace.images.get(image);
        image.is_some_and(spec::wants_scripts)
    };
    let known = old.accounts.iter().filter(|((image, _), _)| configures(image));
    known.map(|(key, number)| (key.clone(), *number)).collect()
}

/// The binary packages that `workspace` needs, with those that show only once the others are resolved.
fn resolve_debs(workspace: &Workspace, request: &solve::Request<'_>) -> Result<solve::Debs, FetchError> {
    let needed = |lock: &Lock| -> BTreeSet<Vec<String>> {
        let optional = spec::debug_sets(workspace, lock);
        spec::locked_sets(workspace, lock)
            .difference(&optional)
            .cloned()
            .collect()
    };
    let sets = needed(request.old);
    let mut debs = solve::resolve_sets(&sets, request)?;
    let mut lock = lock_of(&debs);
    let implied = needed(&lock);
    if implied != sets {
        let again = solve::Request {
            old: &lock,
            update: &Update::Nothing,
            ..*request
        };
        let all = solve::resolve_sets(&implied, &again)?;
        debs = solve::Debs {
            asked: all.asked || debs.asked,
            ..all
        };
        lock = lock_of(&debs);
    }
    let images = workspace.images.values();
    let files = images
        .flat_map(|image| spec::debug_files(workspace, &lock, image))
        .collect();
    debug_files::add(&mut debs, &files, request)?;
    Ok(debs)
}

/// A lock of nothing but binary packages.
fn lock_of(debs: &solve::Debs) -> Lock {
    Lock {
        architecture: debs.architecture.clone(),
        debs: debs.debs.clone(),
        deb_sets: debs.deb_sets.clone(),
        ..Lock::default()
    }
}

/// The recorded digests of images that there still are; what becomes of them shows when they are built.
fn golden_of(workspace: &Workspace, old: &Lock) -> BTreeMap<spec::GoldenKey, spec::Golden> {
    let known = old
        .golden
        .iter()
        .filter(|(key, _)| workspace.images.contains_key(&key.image));
    known.map(|(key, golden)| (key.clone(), golden.clone())).collect()
}

/// A name that is to be updated must be that of something.
fn check_names(workspace: &Workspace, old: &Lock, update: &Update) -> Result<(), FetchError> {
    let names = update.names();
    let mut known: BTreeSet<&str> = old.all_names().collect();
    let based = workspace.images.iter().filter(|(_, image)| image.base.is_some());
    known.extend(based.map(|(name, _)| name.as_str()));
    known.extend(workspace.packages.keys().map(|name| name.0.as_str()));
    let sets = spec::deb_sets(workspace);
    known.extend(sets.iter().flatten().map(String::as_str));
    let nix = spec::nix_contents(workspace);
    known.extend(nix.keys().map(String::as_str));
    let sources = spec::deb_sources(workspace);
    known.extend(sources.iter().map(String::as_str));
    match names.iter().find(|name| !known.contains(name.as_str())) {
        None => Ok(()),
        Some(name) => Err(FetchError::UnknownUpdate {
            name: name.clone(),
            similar: most_similar(name, known.iter().copied()),
        }),
    }
}

/// Hashes what is at the addresses that are not pinned yet.
fn resolve_urls(
    urls: &BTreeMap<PackageName, String>,
    request: &solve::Request<'_>,
) -> Result<BTreeMap<PackageName, LockedUrl>, FetchError> {
    let wanted: Vec<(&PackageName, &String)> = urls.iter().collect();
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let cache = Cache::open(&request.config.cache)?;
    let transfer = Transfer::telling(&request.config.http, request.reporter);
    let locked = parallel::map(&wanted, THREADS, |(name, url)| match request.old.urls.get(name) {
        Some(locked) if !request.update.takes(LockEntry::Other(&name.0)) => Ok(locked.clone()),
        _ => pin(name, url, &cache, &transfer, request),
    })?;
    Ok(urls.keys().cloned().zip(locked).collect())
}

fn pin(
    name: &PackageName,
    url: &str,
    cache: &Cache,
    transfer: &Transfer<'_>,
    request: &solve::Request<'_>,
) -> Result<LockedUrl, FetchError> {
    let address = Address::parse(url)?;
    if request.config.offline && !address.is_local() {
        return Err(FetchError::Offline { name: name.to_string() });
    }
    let origin = address.display();
    let labels = Labels {
        name: &name.0,
        origin: &origin,
    };
    let (sha256, size) = transfer.with(&address, |content| {
        request.reporter.report(Event::FetchStarted {
            name: name.to_string(),
            size: None,
        });
        cache.insert_unpinned(content, labels, request.reporter)
    })?;
    Ok(LockedUrl { size, sha256 })
}

/// The name that `name` was probably meant to be.
pub(super) fn most_similar<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let distance_max = 1 + name.chars().count() / 4;
    names
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, _)| *distance <= distance_max)
        .min()
        .map(|(_, known)| known.to_owned())
}

#[cfg(test)]
mod tests;
