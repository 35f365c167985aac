//! The *ordinary apt client* as a place that carries locked files.
//!
//! Invariant: what apt brings goes through the cache's verification as everything else does.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::apt::{Apt, own_words, scratch};
use super::index;
use super::solve::sources_of;
use super::sources::{AptSources, Kind};
use super::{is_package_name, is_version, version};
use crate::derive::{Download, Origin};
use crate::digest::Digest;
use crate::event::{Event, Reporter};
use crate::fetch::cache::{Cache, Labels};
use crate::fetch::download::{expected, label};
use crate::fetch::{FetchConfig, FetchError};
use crate::fsio::IoContext;

/// What apt has of a wanted file.
pub(in crate::fetch) enum AptAnswer {
    /// The verified file.
    File(PathBuf),
    /// Not this file; the newest version of its package that apt has instead.
    Carries(Option<String>),
    /// It should, and the download failed: apt's own words.
    Failed(String),
}

/// Downloads what apt carries of `wanted` (files of Debian packages), the binary packages of an architecture in one run; one
/// answer for each, in order.
pub(in crate::fetch) fn download(
    wanted: &[&Download],
    config: &FetchConfig,
    cache: &Cache,
    reporter: &dyn Reporter,
) -> Result<Vec<AptAnswer>, FetchError> {
    let mut answers: BTreeMap<usize, AptAnswer> = BTreeMap::new();
    for mut batch in Batch::all(wanted) {
        batch.check()?;
        let apt = batch.open(config)?;
        // Another process may have fetched them while this one waited for the state.
        for (index, file) in std::mem::take(&mut batch.files) {
            match cache.lookup(expected(file.download), reporter)? {
                Some(path) => drop(answers.insert(index, AptAnswer::File(path))),
                None => drop(batch.files.insert(index, file)),
            }
        }
        answers.extend(batch.download(&apt, cache, reporter)?);
    }
    Ok(answers.into_values().collect())
}

/// Whether apt carries each of `wanted` (files of Debian packages), in order, by lists that are fetched anew for the
/// purpose. A source that cannot be read is an error.
pub(in crate::fetch) fn carries(wanted: &[&Download], config: &FetchConfig) -> Result<Vec<bool>, FetchError> {
    let mut answers: BTreeMap<usize, bool> = BTreeMap::new();
    for batch in Batch::all(wanted) {
        batch.check()?;
        let apt = batch.open(config)?;
        apt.update()?;
        let offers = batch.offers(&apt, batch.files.values().map(|file| file.package).collect())?;
        answers.extend(batch.files.iter().map(|(index, file)| (*index, offers.carries(file))));
    }
    Ok(answers.into_values().collect())
}

/// The files that one kind of apt's sources may carry for one architecture, by their place in the caller's list.
struct Batch<'a> {
    kind: Kind,
    files: BTreeMap<usize, AptRequest<'a>>,
}

#[derive(Clone, Copy)]
struct AptRequest<'a> {
    download: &'a Download,
    package: &'a str,
    version: &'a str,
    /// Debian's name of the architecture; that of source packages is `source`.
    architecture: &'a str,
}

impl<'a> Batch<'a> {
    /// What is asked for, shared out: packages for each architecture, those for all with the first of them, and sources.
    fn all(wanted: &[&'a Download]) -> Vec<Self> {
        let mut binary = Self::of(Kind::Binary, wanted);
        let mut batches = Vec::new();
        while let Some(architecture) = binary.architecture() {
            let is_other = |file: &AptRequest<'_>| file.architecture != architecture && file.architecture != "all";
            let (others, own) = std::mem::take(&mut binary.files)
                .into_iter()
                .partition(|(_, file)| is_other(file));
            binary.files = own;
            batches.push(std::mem::replace(
                &mut binary,
                Self {
                    kind: Kind::Binary,
                    files: others,
                },
            ));
        }
        batches.extend([binary, Self::of(Kind::Source, wanted)]);
        batches.retain(|batch| !batch.files.is_empty());
        batches
    }

    fn of(kind: Kind, wanted: &[&'a Download]) -> Self {
        let file = |download: &'a Download| match (&download.origin, kind) {
            (
                Origin::Deb {
                    package,
                    version,
                    architecture,
                    ..
                },
                Kind::Binary,
            ) => Some(AptRequest {
                download,
                package,
                version,
                architecture,
            }),
            (Origin::DebSource { package, version, .. }, Kind::Source) => Some(AptRequest {
                download,
                package,
                version,
                architecture: "source",
            }),
            _ => None,
        };
        let files = wanted.iter().enumerate();
        let files = files
            .filter_map(|(index, download)| Some((index, file(download)?)))
            .collect();
        Self { kind, files }
    }

    /// What is given to apt as arguments must be what it claims to be.
    fn check(&self) -> Result<(), FetchError> {
        for file in self.files.values() {
            let reason = match file {
                file if !is_package_name(file.package) => format!("`{}` is not a package name", file.package),
                file if !is_version(file.version) => format!("`{}` is not a version", file.version),
                _ => continue,
            };
            let name = label(file.download);
            return Err(FetchError::MalformedEntry { name, reason });
        }
        Ok(())
    }

    fn open(&self, config: &FetchConfig) -> Result<Apt, FetchError> {
        let sources = AptSources {
            architecture: self.architecture().or_else(|| config.apt.architecture.clone()),
            ..config.apt.clone()
        };
        Apt::open(&config.apt_state, &sources, self.kind)
    }

    fn architecture(&self) -> Option<String> {
        let mut architectures = self.files.values().map(|file| file.architecture);
        architectures
            .find(|name| !matches!(*name, "all" | "source"))
            .map(str::to_owned)
    }

    fn download(
        &self,
        apt: &Apt,
        cache: &Cache,
        reporter: &dyn Reporter,
    ) -> Result<BTreeMap<usize, AptAnswer>, FetchError> {
        let mut answers = BTreeMap::new();
        // The lists of the last run will often do; where they do not, newer ones may.
        for is_fresh in [false, true] {
            let left: Vec<_> = self
                .files
                .iter()
                .filter(|(index, _)| !answers.contains_key(*index))
                .collect();
            if left.is_empty() {
                break;
            }
            if is_fresh {
                apt.update()?;
            }
            let offers = self.offers(apt, left.iter().map(|(_, file)| file.package).collect())?;
            let carried: Vec<_> = left.into_iter().filter(|(_, file)| offers.carries(file)).collect();
            let dir = scratch(apt)?;
            let failure = self.run(apt, carried.iter().map(|(_, file)| **file), dir.path(), reporter)?;
            for (index, file) in carried {
                match self.import(dir.path(), file, cache, reporter)? {
                    Some(path) => drop(answers.insert(*index, AptAnswer::File(path))),
                    None if is_fresh => drop(answers.insert(*index, AptAnswer::Failed(failure.clone()))),
                    None => {}
                }
            }
            if is_fresh {
                for (index, file) in &self.files {
                    let newest = offers.newest.get(file.package).cloned();
                    answers.entry(*index).or_insert(AptAnswer::Carries(newest));
                }
            }
        }
        Ok(answers)
    }

    /// What apt's lists have of `packages`.
    fn offers(&self, apt: &Apt, packages: BTreeSet<&str>) -> Result<Offers, FetchError> {
        let mut offers = Offers::default();
        if self.kind == Kind::Source {
            for package in packages {
                for source in sources_of(apt, package)? {
                    let digests: Vec<Digest> = source.files.iter().map(|file| file.sha256).collect();
                    offers.add(package, &source.version, digests);
                }
            }
            return Ok(offers);
        }
        let arguments = ["show"].into_iter().chain(packages);
        let output = apt.run("apt-cache", arguments, None)?;
        // Records that cannot be read are no offers.
        for record in index::parse_binary(&String::from_utf8_lossy(&output.stdout))?
            .into_iter()
            .flatten()
        {
            offers.add(&record.package, &record.version, vec![record.sha256]);
        }
        Ok(offers)
    }

    /// Lets apt download `files` into `dir`; gives its words where it failed. That is no failure of ours yet: what
    /// has arrived all the same is looked at afterwards.
    fn run(
        &self,
        apt: &Apt,
        files: impl Iterator<Item = AptRequest<'a>>,
        dir: &Path,
        reporter: &dyn Reporter,
    ) -> Result<String, FetchError> {
        let mut packages = BTreeSet::new();
        for file in files {
            packages.insert(format!("{}={}", file.package, file.version));
            reporter.report(Event::FetchStarted {
                name: label(file.download),
                size: file.download.size,
            });
        }
        if packages.is_empty() {
            return Ok(String::new());
        }
        let command: &[&str] = match self.kind {
            Kind::Binary => &["download", "-q"],
            Kind::Source => &["source", "--download-only", "-q"],
        };
        let arguments = command.iter().map(OsStr::new).chain(packages.iter().map(OsStr::new));
        let output = apt.run("apt-get", arguments, Some(dir))?;
        Ok(match output.status.success() {
            true => String::new(),
            false => own_words(&output),
        })
    }

    /// Moves a file that apt has downloaded into the cache; `None` where it did not come or is another.
    fn import(
        &self,
        dir: &Path,
        file: &AptRequest<'_>,
        cache: &Cache,
        reporter: &dyn Reporter,
    ) -> Result<Option<PathBuf>, FetchError> {
        let name = match self.kind {
            Kind::Binary => format!(
                "{}_{}_{}.deb",
                file.package,
                file.version.replace(':', "%3a"),
                file.architecture
            ),
            Kind::Source => file.download.name.clone(),
        };
        if name.contains('/') {
            return Ok(None);
        }
        let path = dir.join(name);
        if !path.exists() {
            return Ok(None);
        }
        let mut content = File::open(&path).context("open", &path)?;
        let labels = Labels {
            name: &label(file.download),
            origin: "apt",
        };
        let _lock = cache.lock(&file.download.hash)?;
        cache
            .insert(expected(file.download), &mut content, labels, reporter)
            .map(Some)
    }
}

/// Digests by package and version, and the newest version of each.
#[derive(Default)]
struct Offers {
    digests: BTreeSet<(String, Digest)>,
    newest: BTreeMap<String, String>,
}

impl Offers {
    fn add(&mut self, package: &str, offered: &str, digests: Vec<Digest>) {
        let digests = digests.into_iter().map(|digest| (package.to_owned(), digest));
        self.digests.extend(digests);
        let newest = self
            .newest
            .entry(package.to_owned())
            .or_insert_with(|| offered.to_owned());
        if version::compare(offered, newest).is_gt() {
            offered.clone_into(newest);
        }
    }

    fn carries(&self, file: &AptRequest<'_>) -> bool {
        let digest = file.download.hash.sha256();
        digest.is_some_and(|digest| self.digests.contains(&(file.package.to_owned(), digest)))
    }
}
