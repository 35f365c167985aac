//! What is *gone*: the locked Debian files that no source carries any more.
//!
//! Invariant: silence is never read as "gone". Where no source has a file and one of them gives no clear answer, that
//! is an error. The download cache is not asked: a file that is there alone can be built from on this machine only.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::cache::{Labels, compare};
use super::debian::client;
use super::debian::snapshot::Snapshots;
use super::download::{THREADS, expected, label, wanted};
use super::error::{Answer, Asked};
use super::place::{Place, Request};
use super::resolve::Gone;
use super::transfer::{Address, Transfer};
use super::{FetchConfig, FetchError};
use crate::derive::{Download, Origin};
use crate::event::{Event, Reporter};
use crate::parallel;
use crate::spec::Lock;

/// Asks for every Debian package and source package of `lock` whether it can still be had, in the order of a download
/// (places that keep files by digest, mirrors, apt, snapshots), and gives those that cannot. Nothing is downloaded but
/// apt's lists.
///
/// A file in a directory is compared by digest, and so is what apt's lists say; of a file behind `http:` only the size
/// is known without downloading it, and decides.
pub fn gone(lock: &Lock, config: &FetchConfig, reporter: &dyn Reporter) -> Result<Gone, FetchError> {
    gone_by(&Transfer::telling(&config.http, reporter), lock, config, reporter)
}

fn gone_by(
    transfer: &Transfer<'_>,
    lock: &Lock,
    config: &FetchConfig,
    reporter: &dyn Reporter,
) -> Result<Gone, FetchError> {
    let debs = lock.debs.iter().map(|(name, deb)| Download::deb(name, deb));
    let sources = lock.deb_sources.iter();
    let sources = sources.flat_map(|(name, source)| Download::deb_source(name, source));
    let downloads: Vec<Download> = debs.chain(sources).collect();
    let text = format!("asking the sources for {} locked Debian files", downloads.len());
    reporter.report(Event::Note { text });
    let question = Question::new(config, reporter, transfer);
    let mut gone = Gone::default();
    for missing in question.missing(&downloads)? {
        match &missing.download.origin {
            Origin::Deb { package, .. } => gone.debs.insert(package.clone()),
            Origin::DebSource { package, .. } => gone.deb_sources.insert(package.clone()),
            _ => false,
        };
    }
    Ok(gone)
}

/// A file that no place has had so far.
struct AskedFile<'a> {
    download: &'a Download,
    /// What was asked, in order.
    asked: Vec<Asked>,
}

/// What is asked of many places about many files.
pub(super) struct Question<'a> {
    config: &'a FetchConfig,
    reporter: &'a dyn Reporter,
    transfer: &'a Transfer<'a>,
    /// Places that gave no clear answer, not even after several attempts: they are not asked for every file again.
    unclear: Mutex<BTreeMap<String, Answer>>,
}

impl<'a> Question<'a> {
    /// Nobody has been asked yet.
    pub(super) fn new(config: &'a FetchConfig, reporter: &'a dyn Reporter, transfer: &'a Transfer<'a>) -> Self {
        Self {
            config,
            reporter,
            transfer,
            unclear: Mutex::default(),
        }
    }

    /// The files that no place has.
    fn missing<'d>(&self, downloads: &'d [Download]) -> Result<Vec<AskedFile<'d>>, FetchError> {
        let nobody_asked = |download| AskedFile {
            download,
            asked: Vec::new(),
        };
        let missing = downloads.iter().map(nobody_asked).collect();
        let missing = self.ask_places_and_mirrors(missing)?;
        let missing = self.ask_apt(missing)?;
        let missing = self.ask_snapshots(missing)?;
        for file in &missing {
            if !file.asked.iter().all(|asked| asked.answer.is_clear()) {
                return Err(unanswered(file));
            }
        }
        Ok(missing)
    }

    /// Those of `missing` that neither a place for kept files nor a mirror has.
    fn ask_places_and_mirrors<'d>(&self, missing: Vec<AskedFile<'d>>) -> Result<Vec<AskedFile<'d>>, FetchError> {
        let answers = parallel::map(&missing, THREADS, |missing| self.ask_for(missing.download))?;
        let files = missing.into_iter().zip(answers);
        Ok(files
            .filter_map(|(mut missing, asked)| {
                missing.asked.extend(asked?);
                Some(missing)
            })
            .collect())
    }

    /// Who does not have a file; `None` where somebody does.
    fn ask_for(&self, download: &Download) -> Result<Option<Vec<Asked>>, FetchError> {
        let (Origin::Deb { filename, .. } | Origin::DebSource { filename, .. }) = &download.origin else {
            return Ok(Some(Vec::new()));
        };
        let request = Request {
            hash: &download.hash,
            size: download.size,
            file: &download.name,
        };
        let mut asked = Vec::new();
        for place in &self.config.places {
            let Some(answer) = self.ask_place(place.as_ref(), &request)? else {
                return Ok(None);
            };
            let place = place.name().to_owned();
            asked.push(Asked { place, answer });
        }
        for mirror in &self.config.mirrors {
            let address = Address::below(mirror, filename)?;
            let Some(answer) = self.ask_address(mirror, download, &address)? else {
                return Ok(None);
            };
            let place = mirror.clone();
            asked.push(Asked { place, answer });
        }
        Ok(Some(asked))
    }

    /// Why a place for kept files does not have one; `None` where it does.
    pub(super) fn ask_place(&self, place: &dyn Place, request: &Request<'_>) -> Result<Option<Answer>, FetchError> {
        self.ask(place.name(), || match place.has(request)? {
            true => Ok(()),
            false => Err(FetchError::NotFound {
                url: place.name().to_owned(),
            }),
        })
    }

    /// Why an address does not have a file; `None` where it does. `place` is the mirror that it is below, or itself.
    pub(super) fn ask_address(
        &self,
        place: &str,
        download: &Download,
        address: &Address,
    ) -> Result<Option<Answer>, FetchError> {
        self.ask(place, || self.check(download, address))
    }

    /// Whether a snapshot server has a file, or who does not.
    pub(super) fn ask_snapshots_for(
        &self,
        snapshots: &Snapshots<'_>,
        download: &Download,
    ) -> Result<Result<(), Vec<Asked>>, FetchError> {
        snapshots.find(download, |address| self.check(download, address))
    }

    /// The snapshot servers that are known.
    pub(super) fn snapshots(&self) -> Snapshots<'_> {
        Snapshots::new(self.config, self.transfer, self.reporter)
    }

    /// Why a place does not have a file; `None` where it does.
    fn ask(&self, place: &str, has: impl FnOnce() -> Result<(), FetchError>) -> Result<Option<Answer>, FetchError> {
        let unclear = || self.unclear.lock().unwrap_or_else(PoisonError::into_inner);
        let known = unclear().get(place).copied();
        let answer = match known {
            Some(answer) => answer,
            None => match has() {
                Ok(()) => return Ok(None),
                Err(error) => Answer::of(error)?,
            },
        };
        if !answer.is_clear() {
            unclear().insert(place.to_owned(), answer);
        }
        Ok(Some(answer))
    }

    /// Whether `address` has the file, as an error where it does not.
    fn check(&self, download: &Download, address: &Address) -> Result<(), FetchError> {
        let size = self.transfer.probe(address)?;
        let (name, origin) = (label(download), address.display());
        match (address, size, download.size) {
            (Address::Local(path), ..) => {
                let labels = Labels {
                    name: &name,
                    origin: &origin,
                };
                compare(path, expected(download), labels)
            }
            (Address::Http(_), Some(actual), Some(expected)) if actual != expected => Err(FetchError::Size {
                name,
                origin,
                expected,
                actual,
            }),
            (Address::Http(_), ..) => Ok(()),
        }
    }

    /// Those of `missing` that apt does not carry.
    fn ask_apt<'d>(&self, missing: Vec<AskedFile<'d>>) -> Result<Vec<AskedFile<'d>>, FetchError> {
        if missing.is_empty() {
            return Ok(missing);
        }
        let wanted: Vec<&Download> = missing.iter().map(|missing| missing.download).collect();
        let carried = client::carries(&wanted, self.config)?;
        let files = missing.into_iter().zip(carried).filter(|(_, is_carried)| !is_carried);
        Ok(files
            .map(|(mut missing, _)| {
                missing.asked.push(Asked {
                    place: "apt".to_owned(),
                    answer: Answer::NotThere,
                });
                missing
            })
            .collect())
    }

    /// Those of `missing` that no snapshot server has.
    fn ask_snapshots<'d>(&self, missing: Vec<AskedFile<'d>>) -> Result<Vec<AskedFile<'d>>, FetchError> {
        let snapshots = self.snapshots();
        let mut still = Vec::new();
        for mut missing in missing {
            if let Err(asked) = self.ask_snapshots_for(&snapshots, missing.download)? {
                missing.asked.extend(asked);
                still.push(missing);
            }
        }
        Ok(still)
    }
}

fn unanswered(missing: &AskedFile<'_>) -> FetchError {
    FetchError::Unanswered {
        wanted: Box::new(wanted(missing.download)),
        asked: missing.asked.clone(),
    }
}

#[cfg(test)]
mod tests;
