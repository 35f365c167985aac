//! What is *gone*: the locked Debian files that no source carries any more.
//!
//! Invariant: silence is never read as "gone". Where no source has a file and one of them gives no clear answer, that
//! is an error. The download cache is not asked: a file that is there alone can be built from on this machine only.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::debian::client;
use super::download::{expected, parallel, wanted};
use super::error::{Answer, Asked};
use super::resolve::Gone;
use super::transfer::{Address, Transfer};
use super::{FetchConfig, FetchError};
use crate::derive::{Download, Origin};
use crate::digest::VerifyingReader;
use crate::event::{Event, Reporter};
use crate::fsio::IoContext;
use crate::spec::Lock;

/// Asks for every Debian package and source package of `lock` whether it can still be had, in the order of a download
/// (mirrors, apt, snapshots), and gives those that cannot. Nothing is downloaded but apt's lists.
///
/// A file in a directory is compared by digest, and so is what apt's lists say; of a file behind `http:` only the size
/// is known without downloading it, and decides.
pub fn gone(lock: &Lock, config: &FetchConfig, reporter: &dyn Reporter) -> Result<Gone, FetchError> {
    gone_by(Transfer::new(&config.http), lock, config, reporter)
}

fn gone_by(transfer: Transfer, lock: &Lock, config: &FetchConfig, reporter: &dyn Reporter) -> Result<Gone, FetchError> {
    let debs = lock.debs.iter().map(|(name, deb)| Download::deb(name, deb));
    let sources = lock.deb_sources.iter();
    let sources = sources.flat_map(|(name, source)| Download::deb_source(name, source));
    let downloads: Vec<Download> = debs.chain(sources).collect();
    let text = format!("asking the sources for {} locked Debian files", downloads.len());
    reporter.report(Event::Note { text });
    let question = Question {
        config,
        transfer,
        unclear: Mutex::new(BTreeMap::new()),
    };
    let mut gone = Gone::default();
    for missing in question.missing(&downloads)? {
        match &missing.download.origin {
            Origin::Deb { package, .. } => gone.debs.insert(package.clone()),
            Origin::DebSource { package, .. } => gone.deb_sources.insert(package.clone()),
            Origin::Url(_) => false,
        };
    }
    Ok(gone)
}

/// A file that no place has had so far.
struct Missing<'a> {
    download: &'a Download,
    /// What was asked, in order.
    asked: Vec<Asked>,
}

struct Question<'a> {
    config: &'a FetchConfig,
    transfer: Transfer,
    /// Mirrors that gave no clear answer, not even after several attempts: they are not asked for every file again.
    unclear: Mutex<BTreeMap<String, Answer>>,
}

impl Question<'_> {
    /// The files that no place has.
    fn missing<'d>(&self, downloads: &'d [Download]) -> Result<Vec<Missing<'d>>, FetchError> {
        let nobody_asked = |download| Missing {
            download,
            asked: Vec::new(),
        };
        let missing = downloads.iter().map(nobody_asked).collect();
        let missing = self.ask_mirrors(missing, &self.config.mirrors)?;
        let missing = self.ask_apt(missing)?;
        let missing = self.ask_mirrors(missing, &self.config.snapshots)?;
        for file in &missing {
            if !file.asked.iter().all(|asked| asked.answer.is_clear()) {
                return Err(unanswered(file));
            }
        }
        Ok(missing)
    }

    /// Those of `missing` that none of `mirrors` has.
    fn ask_mirrors<'d>(&self, missing: Vec<Missing<'d>>, mirrors: &[String]) -> Result<Vec<Missing<'d>>, FetchError> {
        let answers = parallel(&missing, |missing| {
            let mut asked = Vec::new();
            for mirror in mirrors {
                match self.ask_mirror(missing.download, mirror)? {
                    None => return Ok(None),
                    Some(answer) => asked.push(Asked {
                        place: mirror.clone(),
                        answer,
                    }),
                }
            }
            Ok::<_, FetchError>(Some(asked))
        })?;
        let files = missing.into_iter().zip(answers);
        Ok(files
            .filter_map(|(mut missing, asked)| {
                missing.asked.extend(asked?);
                Some(missing)
            })
            .collect())
    }

    /// Why `mirror` does not give a file; `None` where it does.
    fn ask_mirror(&self, download: &Download, mirror: &str) -> Result<Option<Answer>, FetchError> {
        let (Origin::Deb { filename, .. } | Origin::DebSource { filename, .. }) = &download.origin else {
            return Ok(Some(Answer::NotThere));
        };
        let address = Address::below(mirror, filename)?;
        if let Some(answer) = self.unclear().get(mirror) {
            return Ok(Some(*answer));
        }
        match self.transfer.probe(&address) {
            Err(error) => {
                let answer = Answer::of(error)?;
                if !answer.is_clear() {
                    self.unclear().insert(mirror.to_owned(), answer);
                }
                Ok(Some(answer))
            }
            Ok(size) => {
                let is_same = match &address {
                    Address::Local(path) => is_same_file(path, download)?,
                    Address::Http(_) => size.is_none() || download.size.is_none() || size == download.size,
                };
                Ok((!is_same).then_some(Answer::OtherContent))
            }
        }
    }

    fn unclear(&self) -> MutexGuard<'_, BTreeMap<String, Answer>> {
        self.unclear.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of `missing` that apt does not carry.
    fn ask_apt<'d>(&self, missing: Vec<Missing<'d>>) -> Result<Vec<Missing<'d>>, FetchError> {
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
}

fn is_same_file(path: &Path, download: &Download) -> Result<bool, FetchError> {
    let wanted = expected(download);
    let file = File::open(path).context("open", path)?;
    let mut reader = VerifyingReader::new(file, wanted.digest, wanted.size);
    match io::copy(&mut reader, &mut io::sink()) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(false),
        Err(error) => Err(error).context("read", path)?,
    }
}

fn unanswered(missing: &Missing<'_>) -> FetchError {
    FetchError::Unanswered {
        wanted: Box::new(wanted(missing.download)),
        asked: missing.asked.clone(),
    }
}

#[cfg(test)]
mod tests;
