//! *Downloads*: every file that is wanted, from the first place that has it.
//!
//! Invariant: a file is given out only after its digest has been checked in this run. The order of places is
//! that of cost and trust: the cache, an address or the configured mirrors, the machine's apt, snapshots.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::cache::{Cache, Expected, Labels};
use super::debian::client;
use super::error::{Answer, Asked};
use super::transfer::{Address, Transfer};
use super::{FetchConfig, FetchError};
use crate::derive::{Download, Origin};
use crate::event::{Event, Reporter};

/// How many transfers run at once.
const THREADS: usize = 6;

/// Fetches what is missing of `downloads` (Debian packages in one run of the apt client), and gives for each
/// the verified file, in order.
pub fn fetch(
    downloads: &[&Download],
    config: &FetchConfig,
    reporter: &dyn Reporter,
) -> Result<Vec<PathBuf>, FetchError> {
    let fetcher = Fetcher {
        config,
        reporter,
        cache: Cache::open(&config.cache)?,
        transfer: Transfer::new(),
    };
    let first = parallel(downloads, |download| fetcher.ask_cache_and_mirrors(download))?;
    let mut files = BTreeMap::new();
    let mut missing = Vec::new();
    for (index, found) in first.into_iter().enumerate() {
        match found {
            Found::File(path) => drop(files.insert(index, path)),
            Found::Nowhere(asked) => missing.push(Missing {
                index,
                download: downloads[index],
                asked,
                replaced: None,
                apt_failure: None,
            }),
        }
    }
    let missing = fetcher.ask_apt(missing, &mut files)?;
    let last = parallel(&missing, |missing| fetcher.ask_snapshots(missing))?;
    for (missing, path) in missing.iter().zip(last) {
        files.insert(missing.index, path);
    }
    Ok(files.into_values().collect())
}

/// Where a search ended.
enum Found {
    File(PathBuf),
    /// What was asked, in order.
    Nowhere(Vec<Asked>),
}

/// A file of a Debian package that has not been found yet.
struct Missing<'a> {
    index: usize,
    download: &'a Download,
    /// What was asked, in order.
    asked: Vec<Asked>,
    /// The version that apt offers instead.
    replaced: Option<String>,
    /// apt's words where it carries the file and could not bring it.
    apt_failure: Option<String>,
}

struct Fetcher<'a> {
    config: &'a FetchConfig,
    reporter: &'a dyn Reporter,
    cache: Cache,
    transfer: Transfer,
}

impl Fetcher<'_> {
    fn ask_cache_and_mirrors(&self, download: &Download) -> Result<Found, FetchError> {
        let expected = expected(download);
        let _lock = self.cache.lock(&expected.digest)?;
        if let Some(path) = self.cache.lookup(expected, self.reporter)? {
            return Ok(Found::File(path));
        }
        match &download.origin {
            Origin::Url(url) => {
                let address = Address::parse(url)?;
                if self.config.offline && !address.is_local() {
                    let name = download.name.clone();
                    return Err(FetchError::Offline { name });
                }
                self.transfer(download, &address).map(Found::File)
            }
            Origin::Deb { filename, .. } | Origin::DebSource { filename, .. } => {
                self.ask_mirrors(download, filename, &self.config.mirrors)
            }
        }
    }

    /// Asks `mirrors` in turn. One that does not answer, or has other content, is not the last word.
    fn ask_mirrors(&self, download: &Download, filename: &str, mirrors: &[String]) -> Result<Found, FetchError> {
        let mut asked = Vec::new();
        for mirror in mirrors {
            let address = Address::below(mirror, filename)?;
            if self.config.offline && !address.is_local() {
                continue;
            }
            let error = match self.transfer(download, &address) {
                Ok(path) => return Ok(Found::File(path)),
                Err(error) => error,
            };
            let text = error.to_string();
            let answer = Answer::of(error)?;
            if answer == Answer::OtherContent {
                self.reporter.report(Event::Warning { text });
            }
            asked.push(Asked {
                place: mirror.clone(),
                answer,
            });
        }
        Ok(Found::Nowhere(asked))
    }

    fn transfer(&self, download: &Download, address: &Address) -> Result<PathBuf, FetchError> {
        let (name, origin) = (label(download), address.display());
        let labels = Labels {
            name: &name,
            origin: &origin,
        };
        self.transfer.with(address, |content| {
            self.reporter.report(Event::FetchStarted {
                name: name.clone(),
                size: download.size,
            });
            self.cache.insert(expected(download), content, labels, self.reporter)
        })
    }

    /// Lets apt bring what it carries of `missing`; gives what is still missing.
    fn ask_apt<'d>(
        &self,
        mut missing: Vec<Missing<'d>>,
        files: &mut BTreeMap<usize, PathBuf>,
    ) -> Result<Vec<Missing<'d>>, FetchError> {
        if missing.is_empty() || self.config.offline {
            return Ok(missing);
        }
        let wanted: Vec<&Download> = missing.iter().map(|missing| missing.download).collect();
        let answers = match client::download(&wanted, self.config, &self.cache, self.reporter) {
            Ok(answers) => answers,
            Err(FetchError::AptMissing { .. }) => {
                for missing in &mut missing {
                    missing.asked.push(apt_says(Answer::NotInstalled));
                }
                return Ok(missing);
            }
            Err(error) => return Err(error),
        };
        let mut still = Vec::new();
        for (mut missing, answer) in missing.into_iter().zip(answers) {
            match answer {
                client::Answer::File(path) => drop(files.insert(missing.index, path)),
                client::Answer::Carries(version) => {
                    missing.asked.push(apt_says(Answer::NotThere));
                    missing.replaced = version;
                    still.push(missing);
                }
                client::Answer::Failed(words) => {
                    missing.asked.push(apt_says(Answer::Error));
                    missing.apt_failure = Some(words);
                    still.push(missing);
                }
            }
        }
        Ok(still)
    }

    fn ask_snapshots(&self, missing: &Missing<'_>) -> Result<PathBuf, FetchError> {
        let download = missing.download;
        let (Origin::Deb { version, filename, .. } | Origin::DebSource { version, filename, .. }) = &download.origin
        else {
            return Err(FetchError::NotFound { url: label(download) });
        };
        let _lock = self.cache.lock(&download.sha256)?;
        let mut asked = missing.asked.clone();
        match self.ask_mirrors(download, filename, &self.config.snapshots)? {
            Found::File(path) => return Ok(path),
            Found::Nowhere(more) => asked.extend(more),
        }
        if self.config.offline {
            return Err(FetchError::Offline { name: label(download) });
        }
        if asked == [apt_says(Answer::NotInstalled)] {
            return Err(FetchError::AptMissing { program: "apt-get" });
        }
        if let Some(message) = &missing.apt_failure {
            return Err(FetchError::Apt {
                action: format!("download {} {version}", label(download)),
                message: message.clone(),
            });
        }
        let name = label(download);
        if !asked.iter().all(|asked| asked.answer.is_clear()) {
            return Err(FetchError::Unanswered {
                name,
                version: version.clone(),
                asked,
            });
        }
        Err(FetchError::Gone {
            name,
            version: version.clone(),
            replaced: missing.replaced.clone(),
            asked,
        })
    }
}

fn apt_says(answer: Answer) -> Asked {
    Asked {
        place: "apt".to_owned(),
        answer,
    }
}

/// What the user calls a download.
pub(super) fn label(download: &Download) -> String {
    match &download.origin {
        Origin::Url(_) => download.name.clone(),
        Origin::Deb { package, .. } => format!("deb:{package}"),
        Origin::DebSource { package, .. } => format!("deb-source:{package}"),
    }
}

/// What the file of a download must be.
pub(super) fn expected(download: &Download) -> Expected {
    Expected {
        digest: download.sha256,
        size: download.size,
    }
}

/// Does `work` for every item on a few threads; the results in the items' order, or the first error in it.
pub(crate) fn parallel<T: Sync, R: Send, E: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let results = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..THREADS.min(items.len()) {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { return };
                    let result = work(item);
                    if result.is_err() {
                        failed.store(true, Ordering::Relaxed);
                    }
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.insert(index, result);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_values().collect()
}

#[cfg(test)]
mod tests;
