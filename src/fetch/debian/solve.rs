//! *Solving*: which versions of which Debian packages the wanted ones need, by apt's own solver.
//!
//! Invariant: one version per name in the whole lock; a set whose locked versions need not change is not solved
//! again. apt is asked at most once for its lists, and not at all where nothing has to be solved.
//!
//! How locked versions are kept: they are *pinned* (apt_preferences(5)) at a priority that makes them the
//! candidates wherever an archive still has them. Where that leaves no solution, the pins of the packages that
//! apt blames go, with those built from the same sources, until there is one: so what changes is what must.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Output;

use super::apt::{Apt, own_words};
use super::archives::Archives;
use super::index::{self, IndexRecord};
use super::sources::{AptSources, Kind};
use super::{is_package_name, version};
use crate::event::{Event, Reporter};
use crate::fetch::download::THREADS;
use crate::fetch::resolve::most_similar;
use crate::fetch::{FetchConfig, FetchError, LockEntry, Update};
use crate::parallel;
use crate::spec::{self, Lock, LockedArchive, LockedDeb, LockedDebSource};

/// What is to be resolved, and from what.
pub(in crate::fetch) struct Request<'a> {
    pub sources: &'a AptSources,
    pub old: &'a Lock,
    pub update: &'a Update,
    pub config: &'a FetchConfig,
    pub reporter: &'a dyn Reporter,
}

/// The binary packages' part of a lock.
#[derive(Debug, Default)]
pub(in crate::fetch) struct Debs {
    pub architecture: Option<String>,
    pub debs: BTreeMap<String, LockedDeb>,
    pub deb_sets: BTreeMap<Vec<String>, Vec<String>>,
    /// Whether archives were asked.
    pub asked: bool,
}

/// Most alternatives of one set that are tried.
const ALTERNATIVES_MAX: usize = 12;

/// Version by package name.
type Versions = BTreeMap<String, String>;

/// Resolves each set of wanted packages on its own.
pub(in crate::fetch) fn resolve_sets(sets: &BTreeSet<Vec<String>>, request: &Request<'_>) -> Result<Debs, FetchError> {
    if sets.is_empty() {
        return Ok(Debs::default());
    }
    let nothing = Lock::default();
    // A lock for another architecture says nothing about this one.
    let wanted = request.sources.architecture.as_ref();
    let fits = request.old.architecture.is_some()
        && wanted.is_none_or(|wanted| request.old.architecture.as_ref() == Some(wanted));
    let old = match request.update {
        Update::Everything => &nothing,
        _ if fits => request.old,
        _ => &nothing,
    };
    let unlocked = unlocked(old, request.update);
    let is_kept = |set: &&Vec<String>| {
        let resolved = old.deb_sets.get(*set);
        resolved.is_some_and(|names| {
            names
                .iter()
                .all(|name| old.debs.contains_key(name) && !unlocked.contains(name))
        })
    };
    let (kept, todo): (BTreeSet<_>, BTreeSet<_>) = sets.iter().partition(is_kept);
    let architecture = wanted.or(old.architecture.as_ref()).cloned();
    let mut solver = Solver {
        old,
        pins: old
            .debs
            .iter()
            .filter(|(name, _)| !unlocked.contains(*name))
            .map(|(name, deb)| (name.clone(), deb.version.clone()))
            .collect(),
        unlocked,
        kept,
        solved: BTreeMap::new(),
        names: BTreeSet::new(),
    };
    if todo.is_empty() {
        return Ok(solver.lock(architecture, &BTreeMap::new(), &BTreeMap::new(), false));
    }
    let apt = open(request, Kind::Binary, architecture, "Debian packages")?;
    let tools = spec::tool_debs();
    let named = todo.iter().copied().filter(|set| **set != tools).flatten();
    solver.names = check_names(&apt, named)?;
    if todo.contains(&tools)
        && let Some(name) = tools.iter().find(|name| !solver.names.contains(*name))
    {
        return Err(FetchError::NoTools { name: name.clone() });
    }
    solver.solve(&apt, todo)?;
    let records = solver.records(&apt)?;
    let archives = Archives::read(&apt)?.carrying(&apt, &solver.versions())?;
    solver.report_changes(request.reporter);
    Ok(solver.lock(Some(apt.architecture().to_owned()), &records, &archives, true))
}

/// Names whose locked version may change: those that are to be updated, and what is built from the same sources
/// (a library and its headers want each other's version). Of what is gone, only that: what has to move with it, apt's
/// solver finds out.
fn unlocked(old: &Lock, update: &Update) -> BTreeSet<String> {
    let is_taken = |name: &&String| update.takes(LockEntry::Deb(name));
    let taken: BTreeSet<String> = old.debs.keys().filter(is_taken).cloned().collect();
    match update {
        Update::Gone(_) => taken,
        _ => with_siblings(old, &taken),
    }
}

fn with_siblings(old: &Lock, names: &BTreeSet<String>) -> BTreeSet<String> {
    let sources: BTreeSet<&String> = names
        .iter()
        .filter_map(|name| Some(&old.debs.get(name)?.source.0))
        .collect();
    let siblings = old.debs.iter().filter(|(_, deb)| sources.contains(&deb.source.0));
    siblings.map(|(name, _)| name.clone()).collect()
}

/// Opens apt's state and fetches its lists, or takes those that are there.
fn open(request: &Request<'_>, kind: Kind, architecture: Option<String>, what: &str) -> Result<Apt, FetchError> {
    if request.config.offline && !request.config.known_lists {
        return Err(FetchError::Offline {
            name: format!("the index of {what}"),
        });
    }
    let sources = AptSources {
        architecture,
        ..request.sources.clone()
    };
    let apt = Apt::open(&request.config.apt_state, &sources, kind)?;
    if !request.config.offline {
        let text = format!("resolving {what}");
        request.reporter.report(Event::Note { text });
        apt.update()?;
    }
    Ok(apt)
}

/// Every wanted name must be that of a real package: apt would take others as patterns. Gives the names of all.
fn check_names<'a>(apt: &Apt, wanted: impl Iterator<Item = &'a String>) -> Result<BTreeSet<String>, FetchError> {
    let names = apt.succeed("apt-cache", "list its packages", ["pkgnames"])?;
    let names: BTreeSet<&str> = names.lines().collect();
    for name in wanted.collect::<BTreeSet<_>>() {
        if names.contains(name.as_str()) {
            continue;
        }
        let providers = if is_package_name(name) {
            providers(apt, name)?
        } else {
            Vec::new()
        };
        return Err(FetchError::UnknownDeb {
            name: name.clone(),
            similar: most_similar(name, names.iter().copied()),
            providers,
        });
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// The packages that provide a virtual one.
fn providers(apt: &Apt, name: &str) -> Result<Vec<String>, FetchError> {
    let output = apt.run("apt-cache", ["showpkg", name], None)?;
    Ok(provided_by(&String::from_utf8_lossy(&output.stdout)))
}

/// The names that `apt-cache showpkg` lists as providers.
fn provided_by(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .skip_while(|line| !line.starts_with("Reverse Provides"))
        .skip(1);
    let names: BTreeSet<String> = lines
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    names.into_iter().collect()
}

struct Solver<'a> {
    old: &'a Lock,
    pins: Versions,
    /// Names whose entries are made anew.
    unlocked: BTreeSet<String>,
    /// Sets that stay as they are locked.
    kept: BTreeSet<&'a Vec<String>>,
    solved: BTreeMap<&'a Vec<String>, Versions>,
    /// All real packages that the archives have.
    names: BTreeSet<String>,
}

impl<'a> Solver<'a> {
    /// Solves the sets of `todo`, and with them kept sets that hold a package whose version had to change.
    fn solve(&mut self, apt: &Apt, mut todo: BTreeSet<&'a Vec<String>>) -> Result<(), FetchError> {
        loop {
            self.solved = self.solve_all(apt, &todo)?;
            let changed: BTreeSet<&String> = self
                .solved
                .values()
                .flatten()
                .filter(|(name, version)| self.old.debs.get(*name).is_some_and(|deb| deb.version != **version))
                .map(|(name, _)| name)
                .collect();
            let (drawn_in, kept) = self.kept.iter().partition::<BTreeSet<_>, _>(|set| {
                let locked = self.old.deb_sets.get(**set);
                locked.is_some_and(|names| names.iter().any(|name| changed.contains(name)))
            });
            if drawn_in.is_empty() {
                return self.check_one_version();
            }
            todo.extend(drawn_in);
            self.kept = kept;
        }
    }

    /// Solves every set with the same pins, with fewer of them until all have a solution.
    fn solve_all(
        &mut self,
        apt: &Apt,
        todo: &BTreeSet<&'a Vec<String>>,
    ) -> Result<BTreeMap<&'a Vec<String>, Versions>, FetchError> {
        'pins: loop {
            apt.pin(&self.pins)?;
            let sets: Vec<&Vec<String>> = todo.iter().copied().collect();
            let mut solved = BTreeMap::new();
            for (set, answer) in sets
                .iter()
                .zip(parallel::map(&sets, THREADS, |set| self.solve_small(apt, set))?)
            {
                match answer {
                    Ok(versions) => solved.insert(*set, versions),
                    Err(message) if self.relax(&message) => continue 'pins,
                    Err(message) => {
                        return Err(FetchError::Apt {
                            action: format!("find versions that go together for {}", set.join(", ")),
                            message,
                        });
                    }
                };
            }
            return Ok(solved);
        }
    }

    /// The versions of a set, with the smaller one of two alternatives where nothing decides between them.
    ///
    /// apt takes the first (`usrmerge | usr-is-merged`), however much it brings with it. Here, a package that is only there
    /// as one of several real packages of which any would do is left out where the whole gets smaller without it. One that
    /// was asked for, or is locked, stays; and between a package and a virtual one apt's choice stands: what provides that
    /// is another program.
    fn solve_small(&self, apt: &Apt, set: &[String]) -> Result<Result<Versions, String>, FetchError> {
        let (mut best, mut size) = match solve_set(apt, set, &[])? {
            Ok(solution) => solution,
            Err(message) => return Ok(Err(message)),
        };
        let (mut without, mut tried) = (Vec::new(), BTreeSet::new());
        while tried.len() < ALTERNATIVES_MAX {
            let of_choice = self.of_choice(apt, set, &best)?;
            let Some(name) = of_choice.into_iter().find(|name| !tried.contains(name)) else {
                break;
            };
            tried.insert(name.clone());
            without.push(name);
            match solve_set(apt, set, &without)? {
                Ok((versions, smaller)) if smaller < size => (best, size) = (versions, smaller),
                _ => drop(without.pop()),
            }
        }
        Ok(Ok(best))
    }

    /// The packages of a solution in whose place another real package would do, for all that need them.
    fn of_choice(&self, apt: &Apt, set: &[String], versions: &Versions) -> Result<Vec<String>, FetchError> {
        let records = records_of(apt, versions)?.readable;
        // Who does what a dependency names, as itself or by what it provides.
        let mut doing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (name, record) in &records {
            for done in std::iter::once(name).chain(&record.provides) {
                doing.entry(done).or_default().insert(name);
            }
        }
        let mut of_choice: BTreeMap<&str, bool> = BTreeMap::new();
        for group in records.values().flat_map(|record| &record.depends) {
            let named: BTreeSet<&str> = group
                .iter()
                .filter_map(|name| doing.get(name.as_str()))
                .flatten()
                .copied()
                .collect();
            for name in named {
                let is_choice = group.iter().any(|other| other != name && self.names.contains(other));
                *of_choice.entry(name).or_insert(true) &= is_choice;
            }
        }
        let stays = |name: &str| set.iter().any(|wanted| wanted == name) || self.old.debs.contains_key(name);
        let names = of_choice.into_iter().filter(|(_, is_choice)| *is_choice);
        let names = names.map(|(name, _)| name).filter(|name| !stays(name));
        Ok(names.map(str::to_owned).collect())
    }

    /// Drops the pins that apt's `message` names, else all; false where there was none left.
    fn relax(&mut self, message: &str) -> bool {
        let is_separator = |char: char| char.is_whitespace() || "():,|=<>".contains(char);
        let blamed: BTreeSet<String> = message
            .split(is_separator)
            .filter(|word| self.pins.contains_key(*word))
            .map(str::to_owned)
            .collect();
        let had = !self.pins.is_empty();
        let blamed = with_siblings(self.old, &blamed);
        match blamed.is_empty() {
            true => self.pins.clear(),
            false => self.pins.retain(|name, _| !blamed.contains(name)),
        }
        had
    }

    /// apt installs only candidates, which are one per name; a lock relies on it.
    fn check_one_version(&self) -> Result<(), FetchError> {
        let mut versions: BTreeMap<&String, &String> = BTreeMap::new();
        for (name, version) in self.solved.values().flatten() {
            if *versions.entry(name).or_insert(version) != version {
                return Err(FetchError::AptAnswer {
                    subject: name.clone(),
                    reason: "two of the wanted sets need two versions of it".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// All names with their versions, those of kept sets included.
    fn versions(&self) -> Versions {
        let kept = self.kept.iter().filter_map(|set| self.old.deb_sets.get(*set)).flatten();
        let kept = kept.filter_map(|name| Some((name.clone(), self.old.debs.get(name)?.version.clone())));
        kept.chain(
            self.solved
                .values()
                .flatten()
                .map(|(name, version)| (name.clone(), version.clone())),
        )
        .collect()
    }

    /// The archives' records of all versions; those of kept packages may be missing.
    fn records(&self, apt: &Apt) -> Result<BTreeMap<String, IndexRecord>, FetchError> {
        let Records {
            readable: records,
            mut unreadable,
            output,
        } = records_of(apt, &self.versions())?;
        let is_missing = |name: &&String| !records.contains_key(*name) && !self.is_locked(name);
        if let Some(name) = self.solved.values().flat_map(BTreeMap::keys).find(is_missing) {
            return Err(unreadable.pop().unwrap_or_else(|| FetchError::Apt {
                action: format!("show the record of `{name}`"),
                message: own_words(&output),
            }));
        }
        Ok(records)
    }

    /// Whether the old lock has this package in the version that the new one has.
    fn is_locked(&self, name: &str) -> bool {
        let old = self.old.debs.get(name).map(|deb| &deb.version);
        old.is_some() && self.versions().get(name) == old
    }

    fn report_changes(&self, reporter: &dyn Reporter) {
        for (name, version) in self.versions() {
            match self.old.debs.get(&name) {
                Some(old) if old.version != version => {
                    let text = format!("deb:{name} {} -> {version}", old.version);
                    reporter.report(Event::Note { text });
                }
                _ => {}
            }
        }
    }

    fn lock(
        &self,
        architecture: Option<String>,
        records: &BTreeMap<String, IndexRecord>,
        archives: &BTreeMap<String, LockedArchive>,
        asked: bool,
    ) -> Debs {
        let versions = self.versions();
        let mut providers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for record in records.values() {
            for provided in &record.provides {
                providers.entry(provided).or_default().insert(&record.package);
            }
        }
        let resolve_group = |package: &str, group: &Vec<String>| {
            let mut names: Vec<String> = Vec::new();
            for alternative in group {
                let real = versions.contains_key(alternative).then_some(alternative.as_str());
                let virtual_ones = providers.get(alternative.as_str()).into_iter().flatten().copied();
                for name in real.into_iter().chain(virtual_ones) {
                    if name != package && !names.iter().any(|known| known == name) {
                        names.push(name.to_owned());
                    }
                }
            }
            names
        };
        let mut debs = BTreeMap::new();
        for (name, version) in &versions {
            let record = records.get(name);
            let old = self.old.debs.get(name).filter(|deb| deb.version == *version).cloned();
            let new = record.map(locked);
            // An archive may have replaced a file by another of the same version.
            let entry = match self.unlocked.contains(name) {
                true => new.or(old),
                false => old.or(new),
            };
            let Some(mut deb) = entry else { continue };
            let record = record.filter(|record| record.sha256 == deb.sha256);
            if record.is_some() && deb.archive.is_none() {
                deb.archive = archives.get(name).cloned();
            }
            let groups = record.map_or(&deb.depends, |record| &record.depends);
            let mut depends: Vec<Vec<String>> = Vec::new();
            for group in groups.iter().map(|group| resolve_group(name, group)) {
                if !group.is_empty() && !depends.contains(&group) {
                    depends.push(group);
                }
            }
            deb.depends = depends;
            debs.insert(name.clone(), deb);
        }
        let kept = self
            .kept
            .iter()
            .filter_map(|set| Some(((*set).clone(), self.old.deb_sets.get(*set)?.clone())));
        let solved = self
            .solved
            .iter()
            .map(|(set, versions)| ((*set).clone(), versions.keys().cloned().collect()));
        Debs {
            architecture,
            debs,
            deb_sets: kept.chain(solved).collect(),
            asked,
        }
    }
}

pub(super) fn locked(record: &IndexRecord) -> LockedDeb {
    LockedDeb {
        archive: None,
        version: record.version.clone(),
        architecture: record.architecture.clone(),
        filename: record.filename.clone(),
        size: record.size,
        sha256: record.sha256,
        depends: Vec::new(),
        source: record.source.clone(),
    }
}

/// What apt shows of packages.
pub(super) struct Records {
    /// By name.
    pub(super) readable: BTreeMap<String, IndexRecord>,
    unreadable: Vec<FetchError>,
    /// All that apt said.
    output: Output,
}

/// The archives' records of packages.
pub(super) fn records_of(apt: &Apt, versions: &Versions) -> Result<Records, FetchError> {
    let wanted = versions.iter().map(|(name, version)| format!("{name}={version}"));
    let arguments = ["show", "--no-all-versions"]
        .map(str::to_owned)
        .into_iter()
        .chain(wanted);
    let output = apt.run("apt-cache", arguments, None)?;
    let (mut readable, mut unreadable) = (BTreeMap::new(), Vec::new());
    for record in index::parse_binary(&String::from_utf8_lossy(&output.stdout))? {
        match record {
            Ok(record) if versions.get(&record.package) == Some(&record.version) => {
                readable.entry(record.package.clone()).or_insert(record);
            }
            Ok(_) => {}
            Err(error) => unreadable.push(error),
        }
    }
    Ok(Records {
        readable,
        unreadable,
        output,
    })
}

/// Asks apt what installing `set` into nothing would fetch, some packages left out, and how many bytes that is; where it
/// says no, its own words.
///
/// The list of addresses is asked for and not a simulation, which takes apt twice the time.
fn solve_set(apt: &Apt, set: &[String], without: &[String]) -> Result<Result<(Versions, u64), String>, FetchError> {
    let options = ["install", "--print-uris", "-y", "-q", "--"].map(str::to_owned);
    let without = without.iter().map(|name| format!("{name}-"));
    let arguments = options.into_iter().chain(set.iter().cloned()).chain(without);
    let output = apt.run("apt-get", arguments, None)?;
    if !output.status.success() {
        return Ok(Err(own_words(&output)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let files = text.lines().filter(|line| line.starts_with('\''));
    let size = files
        .clone()
        .filter_map(|line| line.rsplit("' ").next()?.split(' ').nth(1)?.parse::<u64>().ok());
    let size = size.sum();
    let versions: Option<Versions> = files.map(parse_file).collect();
    let versions = versions.filter(|versions| set.iter().all(|name| versions.contains_key(name)));
    versions
        .map(|versions| Ok((versions, size)))
        .ok_or_else(|| FetchError::AptAnswer {
            subject: set.join(", "),
            reason: "what it would install does not hold what was asked for".to_owned(),
        })
}

/// `'ADDRESS' NAME_VERSION_ARCHITECTURE.deb SIZE HASH`: name and version.
fn parse_file(line: &str) -> Option<(String, String)> {
    let file = line.split("' ").nth(1)?.split(' ').next()?.strip_suffix(".deb")?;
    let (name, rest) = file.split_once('_')?;
    let version = rest.rsplit_once('_')?.0.replace("%3a", ":");
    (is_package_name(name) && super::is_version(&version)).then(|| (name.to_owned(), version))
}

/// Resolves source packages: the locked version, else the highest that the archives have.
pub(in crate::fetch) fn resolve_sources(
    names: &BTreeSet<String>,
    request: &Request<'_>,
) -> Result<BTreeMap<String, LockedDebSource>, FetchError> {
    let mut locked = BTreeMap::new();
    let mut apt = None;
    for name in names {
        let old = request.old.deb_sources.get(name);
        if let Some(old) = old.filter(|_| !request.update.takes(LockEntry::DebSource(name))) {
            locked.insert(name.clone(), old.clone());
            continue;
        }
        let apt = match &mut apt {
            Some(apt) => apt,
            none => none.insert(open(request, Kind::Source, None, "Debian source packages")?),
        };
        let newest = newest_source(apt, name)?;
        let mut source = newest.ok_or_else(|| FetchError::UnknownDebSource { name: name.clone() })?;
        let version = BTreeMap::from([(name.clone(), source.version.clone())]);
        source.archive = Archives::read(apt)?.carrying(apt, &version)?.remove(name);
        locked.insert(name.clone(), source);
    }
    Ok(locked)
}

/// The highest version of a source package that the archives have.
pub(super) fn newest_source(apt: &Apt, name: &str) -> Result<Option<LockedDebSource>, FetchError> {
    let sources = sources_of(apt, name)?;
    Ok(sources
        .into_iter()
        .max_by(|a, b| version::compare(&a.version, &b.version)))
}

/// All versions of a source package that the archives have.
pub(super) fn sources_of(apt: &Apt, name: &str) -> Result<Vec<LockedDebSource>, FetchError> {
    if !is_package_name(name) {
        return Ok(Vec::new());
    }
    let output = apt.run("apt-cache", ["showsrc", "--only-source", name], None)?;
    let sources = index::parse_source(&String::from_utf8_lossy(&output.stdout))?;
    Ok(sources
        .into_iter()
        .filter(|(package, _)| package == name)
        .map(|(_, source)| source)
        .collect())
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_apt() {
        crate::testing::fuzz("apt", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let _ = (super::Archives::parse(&text), super::super::apt::table(&text));
            let _ = text.lines().filter_map(super::parse_file).count();
            let _ = super::provided_by(&text);
        });
    }
}
