//! *Downloads*: every file that is wanted, from the first place that has it.
//!
//! Invariant: a file is given out only after its hash has been checked in this run. The order of places is
//! that of cost and trust: the cache, places that keep files by digest, an address or the configured mirrors, the
//! machine's apt, snapshots. A place that does not give a file is not the last word, whatever it says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::cache::{Cache, Expected, Labels};
use super::debian::client;
use super::debian::snapshot::Snapshots;
use super::error::{Answer, Asked, Wanted};
use super::languages::{Languages, Lead};
use super::place::{LocalCopy, Place, Request};
use super::transfer::{Address, Transfer};
use super::{FetchConfig, FetchError, git};
use crate::derive::{Download, Origin};
use crate::event::{Event, Reporter};
use crate::parallel;
use crate::spec::GitTree;

/// How many transfers run at once.
pub(crate) const THREADS: usize = 6;

/// Fetches what is missing of `downloads` (Debian packages in one run of the apt client), and gives for each
/// the verified file, in order.
pub fn fetch(
    downloads: &[&Download],
    config: &FetchConfig,
    reporter: &dyn Reporter,
) -> Result<Vec<PathBuf>, FetchError> {
    let transfer = Transfer::telling(&config.http, reporter);
    let fetcher = Fetcher {
        config,
        reporter,
        cache: Cache::open(&config.cache)?,
        languages: Languages::new(&config.languages, &transfer),
        transfer: &transfer,
        silent: Mutex::default(),
    };
    let first = parallel::map(downloads, THREADS, |download| fetcher.ask_cache_and_mirrors(download))?;
    let (mut files, mut errors) = (BTreeMap::new(), Vec::new());
    let mut missing = Vec::new();
    for (index, found) in first.into_iter().enumerate() {
        let download = downloads[index];
        match found {
            SearchEnd::File(path) => drop(files.insert(index, path)),
            SearchEnd::Failed(error) => errors.push(error),
            SearchEnd::Nowhere(asked) => missing.push(MissingFile {
                index,
                download,
                asked,
                replaced: None,
                failure: None,
            }),
        }
    }
    let missing = fetcher.ask_apt(missing, &mut files)?;
    let snapshots = Snapshots::new(config, fetcher.transfer, reporter);
    for missing in &missing {
        match fetcher.ask_snapshots(&snapshots, missing)? {
            Ok(path) => drop(files.insert(missing.index, path)),
            Err(error) => errors.push(error),
        }
    }
    match FetchError::of_all(errors) {
        None => Ok(files.into_values().collect()),
        Some(error) => Err(error),
    }
}

/// Where a search ended.
enum SearchEnd {
    File(PathBuf),
    /// What was asked, in order.
    Nowhere(Vec<Asked>),
    /// Nothing is left that could be asked.
    Failed(FetchError),
}

/// A file of a Debian package that has not been found yet.
struct MissingFile<'a> {
    index: usize,
    download: &'a Download,
    /// What was asked, in order.
    asked: Vec<Asked>,
    /// The version that apt offers instead.
    replaced: Option<String>,
    /// Why apt could not bring it.
    failure: Option<DownloadFailure>,
}

/// apt's words where it failed.
#[derive(Clone)]
enum DownloadFailure {
    /// About its lists.
    Lists(String),
    /// About a file that it carries.
    Download(String),
}

struct Fetcher<'a> {
    config: &'a FetchConfig,
    reporter: &'a dyn Reporter,
    cache: Cache,
    transfer: &'a Transfer<'a>,
    languages: Languages<'a>,
    /// Places that did not answer: they are not asked again in this run.
    silent: Mutex<BTreeSet<String>>,
}

impl Fetcher<'_> {
    fn ask_cache_and_mirrors(&self, download: &Download) -> Result<SearchEnd, FetchError> {
        let expected = expected(download);
        let _lock = self.cache.lock(&expected.hash)?;
        if let Some(path) = self.cache.lookup(expected, self.reporter)? {
            self.reporter.report(Event::FetchAsked {
                name: label(download),
                place: "the download cache".to_owned(),
                answer: "there".to_owned(),
            });
            return Ok(SearchEnd::File(path));
        }
        let mut asked = Vec::new();
        for place in &self.config.places {
            if self.config.offline && !place.is_local() {
                continue;
            }
            match self.ask_place(download, place.as_ref())? {
                Ok(path) => return Ok(SearchEnd::File(path)),
                Err(answer) => asked.push(self.told(download, place.name(), answer)),
            }
        }
        match &download.origin {
            Origin::Url(url) => self.ask_address(download, url, asked),
            Origin::Crate { .. } | Origin::Python { .. } | Origin::Npm { .. } | Origin::Go { .. } => {
                self.ask_languages(download, asked)
            }
            Origin::Git { tree, .. } => self.ask_repository(download, tree, asked),
            Origin::Deb { filename, .. } | Origin::DebSource { filename, .. } => {
                self.ask_mirrors(download, filename, asked)
            }
        }
    }

    /// The file from a place, or why it does not give it.
    fn ask_place(&self, download: &Download, place: &dyn Place) -> Result<Result<PathBuf, Answer>, FetchError> {
        let silent = || self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if silent().contains(place.name()) {
            return Ok(Err(Answer::Silence));
        }
        let request = Request {
            hash: &download.hash,
            size: download.size,
            file: &download.name,
        };
        let taken = place.open(&request).and_then(|held| match held {
            LocalCopy::File(mut content) => self.insert(download, &mut content, place.name()).map(Ok),
            LocalCopy::Nothing => Ok(Err(Answer::NotThere)),
            LocalCopy::Withheld => Ok(Err(Answer::Withheld)),
        });
        let error = match taken {
            Ok(taken) => return Ok(taken),
            Err(error) => error,
        };
        let text = one_line(&error);
        let answer = Answer::of(error)?;
        if answer == Answer::Silence {
            silent().insert(place.name().to_owned());
        }
        self.reporter.report(Event::Warning { text });
        Ok(Err(answer))
    }

    fn ask_address(&self, download: &Download, url: &str, asked: Vec<Asked>) -> Result<SearchEnd, FetchError> {
        let address = Address::parse(url)?;
        if self.config.offline && !address.is_local() {
            let wanted = Box::new(wanted(download));
            return Ok(SearchEnd::Failed(FetchError::OfflineFile { wanted, asked }));
        }
        match self.transfer(download, &address) {
            Ok(path) => Ok(SearchEnd::File(path)),
            Err(error) => self.nowhere(download, &address.display(), error, asked),
        }
    }

    fn ask_repository(&self, download: &Download, tree: &GitTree, asked: Vec<Asked>) -> Result<SearchEnd, FetchError> {
        let made = git::archive(
            tree,
            &label(download),
            download.hash.sha256(),
            &self.cache,
            self.config,
            self.reporter,
        );
        match made {
            Ok(archived) => Ok(SearchEnd::File(archived.path)),
            Err(FetchError::Offline { .. }) => {
                let wanted = Box::new(wanted(download));
                Ok(SearchEnd::Failed(FetchError::OfflineFile { wanted, asked }))
            }
            Err(error) => self.nowhere(download, &tree.address.to_string(), error, asked),
        }
    }

    /// What it means that the last that could be asked gave an error.
    fn nowhere(
        &self,
        download: &Download,
        place: &str,
        error: FetchError,
        mut asked: Vec<Asked>,
    ) -> Result<SearchEnd, FetchError> {
        let Some(answer) = Answer::about(&error) else {
            return Err(error);
        };
        asked.push(self.told(download, place, answer));
        Ok(SearchEnd::Failed(FetchError::Nowhere {
            wanted: Box::new(wanted(download)),
            asked,
            source: Some(Box::new(error)),
        }))
    }

    /// What a place said, told on the way.
    fn told(&self, download: &Download, place: &str, answer: Answer) -> Asked {
        self.reporter.report(Event::FetchAsked {
            name: label(download),
            place: place.to_owned(),
            answer: answer.to_string(),
        });
        Asked {
            place: place.to_owned(),
            answer,
        }
    }

    /// Asks the mirrors in turn. One that does not answer, or has other content, is not the last word.
    fn ask_mirrors(&self, download: &Download, filename: &str, mut asked: Vec<Asked>) -> Result<SearchEnd, FetchError> {
        for mirror in &self.config.mirrors {
            let address = Address::below(mirror, filename)?;
            if self.config.offline && !address.is_local() {
                continue;
            }
            let error = match self.transfer(download, &address) {
                Ok(path) => return Ok(SearchEnd::File(path)),
                Err(error) => error,
            };
            let text = error.to_string();
            let answer = Answer::of(error)?;
            if answer == Answer::OtherContent {
                self.reporter.report(Event::Warning { text });
            }
            asked.push(self.told(download, mirror, answer));
        }
        Ok(SearchEnd::Nowhere(asked))
    }

    /// Asks where the language's own tools would look.
    fn ask_languages(&self, download: &Download, mut asked: Vec<Asked>) -> Result<SearchEnd, FetchError> {
        let mut last = None;
        for candidate in self.languages.candidates(download)? {
            if let Lead::Unusable(why) = candidate.lead {
                asked.push(self.told(download, &candidate.place, Answer::NotAsked(why)));
                continue;
            }
            if self.config.offline && !candidate.is_local() {
                continue;
            }
            let address = self.languages.locate(&candidate, download);
            let error = match address.and_then(|address| self.transfer(download, &address)) {
                Ok(path) => return Ok(SearchEnd::File(path)),
                Err(error) => error,
            };
            let text = one_line(&error);
            let Some(answer) = Answer::about(&error) else {
                return Err(error);
            };
            if answer == Answer::OtherContent {
                self.reporter.report(Event::Warning { text });
            }
            asked.push(self.told(download, &candidate.place, answer));
            if answer != Answer::NotThere {
                last = Some(error);
                if candidate.is_final {
                    break;
                }
            }
        }
        let wanted = Box::new(wanted(download));
        Ok(SearchEnd::Failed(match self.config.offline {
            true => FetchError::OfflineFile { wanted, asked },
            false => FetchError::Nowhere {
                wanted,
                asked,
                source: last.map(Box::new),
            },
        }))
    }

    fn transfer(&self, download: &Download, address: &Address) -> Result<PathBuf, FetchError> {
        let origin = address.display();
        self.transfer
            .with(address, |content| self.insert(download, content, &origin))
    }

    /// Takes the bytes of a file that come from `origin`.
    fn insert(&self, download: &Download, content: &mut dyn Read, origin: &str) -> Result<PathBuf, FetchError> {
        let name = label(download);
        self.reporter.report(Event::FetchStarted {
            name: name.clone(),
            size: download.size,
        });
        let labels = Labels { name: &name, origin };
        self.cache.insert(expected(download), content, labels, self.reporter)
    }

    /// Lets apt bring what it carries of `missing`; gives what is still missing.
    fn ask_apt<'d>(
        &self,
        mut missing: Vec<MissingFile<'d>>,
        files: &mut BTreeMap<usize, PathBuf>,
    ) -> Result<Vec<MissingFile<'d>>, FetchError> {
        if missing.is_empty() || self.config.offline {
            return Ok(missing);
        }
        let wanted: Vec<&Download> = missing.iter().map(|missing| missing.download).collect();
        let answers = match client::download(&wanted, self.config, &self.cache, self.reporter) {
            Ok(answers) => answers,
            Err(error) => {
                let (answer, failure) = match error {
                    FetchError::AptMissing { .. } => (Answer::NotInstalled, None),
                    FetchError::AptLists { message } => (Answer::Error, Some(DownloadFailure::Lists(message))),
                    error => return Err(error),
                };
                for missing in &mut missing {
                    missing.asked.push(self.told(missing.download, APT, answer));
                    missing.failure.clone_from(&failure);
                }
                return Ok(missing);
            }
        };
        let mut still = Vec::new();
        for (mut missing, answer) in missing.into_iter().zip(answers) {
            match answer {
                client::AptAnswer::File(path) => drop(files.insert(missing.index, path)),
                client::AptAnswer::Carries(version) => {
                    missing.asked.push(self.told(missing.download, APT, Answer::NotThere));
                    missing.replaced = version;
                    still.push(missing);
                }
                client::AptAnswer::Failed(words) => {
                    missing.asked.push(self.told(missing.download, APT, Answer::Error));
                    missing.failure = Some(DownloadFailure::Download(words));
                    still.push(missing);
                }
            }
        }
        Ok(still)
    }

    /// The file from a snapshot, or why it cannot be had at all.
    fn ask_snapshots(
        &self,
        snapshots: &Snapshots<'_>,
        missing: &MissingFile<'_>,
    ) -> Result<Result<PathBuf, FetchError>, FetchError> {
        let download = missing.download;
        let _lock = self.cache.lock(&download.hash)?;
        let found = snapshots.find(download, |address| self.transfer(download, address))?;
        Ok(found.map_err(|more| {
            let more = more.iter().map(|asked| self.told(download, &asked.place, asked.answer));
            self.verdict(missing, missing.asked.iter().cloned().chain(more).collect())
        }))
    }

    /// What it means that none of `asked` gave a file.
    fn verdict(&self, missing: &MissingFile<'_>, asked: Vec<Asked>) -> FetchError {
        let wanted = Box::new(wanted(missing.download));
        if self.config.offline {
            return FetchError::OfflineFile { wanted, asked };
        }
        let source = match &missing.failure {
            Some(DownloadFailure::Lists(message)) => Some(FetchError::AptLists {
                message: message.clone(),
            }),
            Some(DownloadFailure::Download(message)) => Some(FetchError::Apt {
                action: format!("download {}", wanted.file),
                message: message.clone(),
            }),
            None => asked
                .iter()
                .any(|asked| asked.answer == Answer::NotInstalled)
                .then_some(FetchError::AptMissing { program: "apt-get" }),
        };
        if let Some(source) = source {
            return FetchError::Nowhere {
                wanted,
                asked,
                source: Some(Box::new(source)),
            };
        }
        match asked.iter().all(|asked| asked.answer.is_clear()) {
            true => FetchError::Gone {
                wanted,
                replaced: missing.replaced.clone(),
                asked,
            },
            false => FetchError::Unanswered { wanted, asked },
        }
    }
}

/// What apt is called among places.
const APT: &str = "apt";

/// An error with its causes, in one line.
fn one_line(error: &FetchError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text.replace('\n', " ")
}

/// What the user calls a download.
pub(super) fn label(download: &Download) -> String {
    match &download.origin {
        Origin::Url(_) => download.name.clone(),
        Origin::Crate { name, .. } => format!("crate:{name}"),
        Origin::Python { project, .. } => format!("pypi:{project}"),
        Origin::Npm { name, .. } => format!("npm:{name}"),
        Origin::Go { module, .. } => format!("go:{module}"),
        Origin::Git { package, .. } => package.clone(),
        Origin::Deb { package, .. } => format!("deb:{package}"),
        Origin::DebSource { package, .. } => format!("deb-source:{package}"),
    }
}

/// A download as messages name it.
pub(super) fn wanted(download: &Download) -> Wanted {
    let version = match &download.origin {
        Origin::Deb { version, .. }
        | Origin::DebSource { version, .. }
        | Origin::Crate { version, .. }
        | Origin::Python { version, .. }
        | Origin::Npm { version, .. }
        | Origin::Go { version, .. } => Some(version.clone()),
        Origin::Git { tree, .. } => Some(tree.commit.short().to_owned()),
        Origin::Url(_) => None,
    };
    let advice = match &download.origin {
        Origin::Crate { .. } => Some("`cargo fetch` in the project brings it into Cargo's cache, which is asked first"),
        Origin::Python { .. } => Some("`pip download` into a directory, and `PIP_FIND_LINKS=DIR`"),
        Origin::Npm { .. } => {
            Some("`npm ci --ignore-scripts` in the project brings it into npm's cache, which is asked first")
        }
        Origin::Go { .. } => Some("`go mod download` in the project brings it into Go's cache, which is asked first"),
        Origin::Url(_) | Origin::Git { .. } | Origin::Deb { .. } | Origin::DebSource { .. } => None,
    };
    Wanted {
        name: label(download),
        version,
        file: download.name.clone(),
        size: download.size,
        hash: download.hash,
        advice,
    }
}

/// What the file of a download must be.
pub(super) fn expected(download: &Download) -> Expected {
    Expected {
        hash: download.hash,
        size: download.size,
    }
}

#[cfg(test)]
mod tests;
