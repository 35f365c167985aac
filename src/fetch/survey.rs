//! A *survey* asks every place for every file, without reading one: which are left in few places, and which in none.
//!
//! Invariant: silence is told apart from "not there"; nothing is downloaded but apt's lists.

use serde::Serialize;

use super::debian::client;
use super::download::THREADS;

use super::error::Answer;
use super::gone::Question;
use super::languages::{Languages, Lead};
use super::place::{Place, Request};
use super::transfer::{Address, Transfer};
use super::{FetchConfig, FetchError, cached, git};
use crate::derive::{Download, Origin};
use crate::event::Reporter;
use crate::parallel;
use crate::spec::GitTree;

/// Where files are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// The places that were asked: the download cache, those that keep files by digest, addresses, mirrors, apt, snapshots.
    pub places: Vec<String>,
    /// For each file, in order, what each place said.
    pub files: Vec<Vec<Availability>>,
}

/// What a place said of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Availability {
    /// It is there.
    There,
    /// It is not, or another file is.
    NotThere,
    /// The place gave no clear answer.
    Unknown,
    /// The place has no files of this kind, or may not be asked.
    NotAsked,
}

impl Survey {
    /// Adds a place with what it said of each file.
    fn add(&mut self, place: &str, answers: impl IntoIterator<Item = Availability>) {
        self.places.push(place.to_owned());
        for (row, presence) in self.files.iter_mut().zip(answers) {
            row.push(presence);
        }
    }

    /// How many places have a file.
    pub fn copies(&self, file: usize) -> usize {
        self.files[file]
            .iter()
            .filter(|presence| **presence == Availability::There)
            .count()
    }
}

/// Asks every place of `config` for each of `downloads`, in the order of a download; snapshot servers, which bear little,
/// only for files that fewer than two others have.
pub fn survey(downloads: &[&Download], config: &FetchConfig, reporter: &dyn Reporter) -> Result<Survey, FetchError> {
    let transfer = Transfer::telling(&config.http, reporter);
    let surveyor = Surveyor {
        config,
        question: Question::new(config, reporter, &transfer),
        languages: Languages::new(&config.languages, &transfer),
    };
    let mut survey = Survey {
        places: Vec::new(),
        files: vec![Vec::new(); downloads.len()],
    };
    let in_cache = |download: &&Download| presence(is_cached(download, config));
    survey.add("the download cache", downloads.iter().map(in_cache));
    for place in &config.places {
        let answers = parallel::map(downloads, THREADS, |download| {
            surveyor.ask_place(place.as_ref(), download)
        })?;
        survey.add(place.name(), answers);
    }
    if downloads
        .iter()
        .any(|download| matches!(download.origin, Origin::Url(_) | Origin::Git { .. }))
    {
        survey.add(
            "its address",
            parallel::map(downloads, THREADS, |download| surveyor.ask_address(download))?,
        );
    }
    if downloads.iter().any(|download| is_of_language(download)) {
        survey.add(
            "its language's registries",
            parallel::map(downloads, THREADS, |download| surveyor.ask_languages(download))?,
        );
    }
    for mirror in &config.mirrors {
        let answers = parallel::map(downloads, THREADS, |download| surveyor.ask_mirror(mirror, download))?;
        survey.add(mirror, answers);
    }
    if let Some(answers) = surveyor.ask_apt(downloads)? {
        survey.add("apt", answers);
    }
    if !config.offline && downloads.iter().any(|download| is_deb(download)) {
        let answers = surveyor.ask_snapshots(downloads, &survey)?;
        survey.add("snapshots", answers);
    }
    Ok(survey)
}

fn is_deb(download: &Download) -> bool {
    matches!(download.origin, Origin::Deb { .. } | Origin::DebSource { .. })
}

fn is_of_language(download: &Download) -> bool {
    !is_deb(download) && !matches!(download.origin, Origin::Url(_))
}

fn presence(is_there: bool) -> Availability {
    if is_there {
        Availability::There
    } else {
        Availability::NotThere
    }
}

/// A place's answer, `None` where it has the file.
fn of(answer: Option<Answer>) -> Availability {
    match answer {
        None => Availability::There,
        Some(answer) if answer.is_clear() => Availability::NotThere,
        Some(_) => Availability::Unknown,
    }
}

fn is_cached(download: &Download, config: &FetchConfig) -> bool {
    let metadata = cached(config, &download.hash).and_then(|(_, path)| path.metadata().ok());
    metadata.is_some_and(|metadata| metadata.is_file() && download.size.is_none_or(|size| size == metadata.len()))
}

struct Surveyor<'a> {
    config: &'a FetchConfig,
    question: Question<'a>,
    languages: Languages<'a>,
}

impl Surveyor<'_> {
    fn ask_place(&self, place: &dyn Place, download: &Download) -> Result<Availability, FetchError> {
        if self.config.offline && !place.is_local() {
            return Ok(Availability::NotAsked);
        }
        let request = Request {
            hash: &download.hash,
            size: download.size,
            file: &download.name,
        };
        self.question.ask_place(place, &request).map(of)
    }

    fn ask_address(&self, download: &Download) -> Result<Availability, FetchError> {
        match &download.origin {
            Origin::Url(url) => self.probe(url, download, &Address::parse(url)?),
            Origin::Git { tree, .. } => self.ask_repository(tree),
            _ => Ok(Availability::NotAsked),
        }
    }

    fn ask_repository(&self, tree: &GitTree) -> Result<Availability, FetchError> {
        if self.config.offline && !tree.address.is_local() {
            return Ok(Availability::NotAsked);
        }
        match git::has(tree, self.config) {
            Ok(true) => Ok(Availability::There),
            Ok(false) => Ok(Availability::Unknown),
            Err(error) => Answer::of(error).map(|answer| of(Some(answer))),
        }
    }

    /// Asks where the language's own tools would look, until a place has the file.
    fn ask_languages(&self, download: &Download) -> Result<Availability, FetchError> {
        let mut all = Availability::NotAsked;
        for candidate in self.languages.candidates(download)? {
            if matches!(candidate.lead, Lead::Unusable(_)) || self.config.offline && !candidate.is_local() {
                continue;
            }
            let has = match self.languages.locate(&candidate, download) {
                Ok(address) => of(self.question.ask_address(&candidate.place, download, &address)?),
                Err(error) => of(Some(Answer::of(error)?)),
            };
            match has {
                Availability::There => return Ok(has),
                Availability::Unknown => all = has,
                _ if all == Availability::NotAsked => all = has,
                _ => {}
            }
        }
        Ok(all)
    }

    fn ask_mirror(&self, mirror: &str, download: &Download) -> Result<Availability, FetchError> {
        let (Origin::Deb { filename, .. } | Origin::DebSource { filename, .. }) = &download.origin else {
            return Ok(Availability::NotAsked);
        };
        self.probe(mirror, download, &Address::below(mirror, filename)?)
    }

    fn probe(&self, place: &str, download: &Download, address: &Address) -> Result<Availability, FetchError> {
        if self.config.offline && !address.is_local() {
            return Ok(Availability::NotAsked);
        }
        self.question.ask_address(place, download, address).map(of)
    }

    /// What apt's lists have; `None` where there is no apt, or it may not be asked.
    fn ask_apt(&self, downloads: &[&Download]) -> Result<Option<Vec<Availability>>, FetchError> {
        let debs: Vec<&Download> = downloads.iter().copied().filter(|download| is_deb(download)).collect();
        if debs.is_empty() || self.config.offline {
            return Ok(None);
        }
        let answers: Vec<Availability> = match client::carries(&debs, self.config) {
            Ok(carried) => carried.into_iter().map(presence).collect(),
            Err(FetchError::AptMissing { .. }) => return Ok(None),
            Err(FetchError::AptLists { .. }) => vec![Availability::Unknown; debs.len()],
            Err(error) => return Err(error),
        };
        let mut answers = answers.into_iter();
        let row = |download: &&Download| match is_deb(download) {
            true => answers.next().unwrap_or(Availability::Unknown),
            false => Availability::NotAsked,
        };
        Ok(Some(downloads.iter().map(row).collect()))
    }

    fn ask_snapshots(&self, downloads: &[&Download], survey: &Survey) -> Result<Vec<Availability>, FetchError> {
        let snapshots = self.question.snapshots();
        let ask = |(at, download): (usize, &&Download)| {
            if !is_deb(download) || survey.copies(at) > 1 {
                return Ok(Availability::NotAsked);
            }
            Ok(match self.question.ask_snapshots_for(&snapshots, download)? {
                Ok(()) => Availability::There,
                Err(asked) if asked.is_empty() => Availability::NotAsked,
                Err(asked) if asked.iter().all(|asked| asked.answer.is_clear()) => Availability::NotThere,
                Err(_) => Availability::Unknown,
            })
        };
        downloads.iter().enumerate().map(ask).collect()
    }
}
