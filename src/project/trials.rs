//! *Trials* are tests of images, run: all that the spec has for some images, several at once, each in a container of its own.
//!
//! Invariant: a test decides nothing about its image. What is tested is the very image that is written: its layers as they are.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::container::{self, ContainerError, RunnableImage, Workshop};
use crate::digest::Digest;
use crate::escape::shown_bytes;
use crate::fsio::{IoContext, PathError, create_dir_all};
use crate::oci::Config;
use crate::parallel;
use crate::spec::ImageTest;
use crate::store::Store;

use super::environment::Environment;
use super::error::ProjectError;
use super::image::NamedImage;

/// How many of the last lines of a log are shown.
const TAIL: usize = 20;

/// Most bytes of a log that are kept.
const LOG_MAX: u64 = 64 << 20;

/// Longest line of a log that is shown, in bytes.
const LINE_MAX: usize = 2000;

/// A test that was run, or was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// The image, by the spec's name.
    pub image: String,
    /// Its manifest.
    pub digest: Digest,
    /// The test's name.
    pub test: String,
    /// What came of it.
    #[serde(flatten)]
    pub result: TrialResult,
    /// How long it took.
    pub milliseconds: u64,
    /// Where all is that its programs printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// The last lines of that, of one that failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<String>,
}

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum TrialResult {
    /// All came as it was to come.
    Passed,
    /// Something did not.
    Failed {
        /// What, each as one sentence that may go on in further lines.
        failures: Vec<String>,
    },
    /// It cannot be run here.
    Skipped {
        /// Why.
        reason: String,
    },
}

impl TrialResult {
    /// It as a word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed { .. } => "failed",
            Self::Skipped { .. } => "skipped",
        }
    }
}

impl Trial {
    /// Whether it failed.
    pub fn has_failed(&self) -> bool {
        matches!(self.result, TrialResult::Failed { .. })
    }
}

/// One test of one image.
struct Case<'a> {
    named: &'a NamedImage,
    config: &'a Config,
    test: &'a ImageTest,
}

/// Runs the tests of these images whose `IMAGE/TEST` holds `filter`, at most `jobs` at once (0: as many as there are cores);
/// each is told to `tell` as soon as it has ended. They come back in the images' order and that of their names.
pub fn run(
    images: &[NamedImage],
    filter: Option<&str>,
    jobs: usize,
    store: &Store,
    environment: &Environment<'_>,
    tell: &(dyn Fn(&Trial) + Sync),
) -> Result<Vec<Trial>, ProjectError> {
    let mut cases = Vec::new();
    for named in images.iter().flat_map(NamedImage::each) {
        let config = named.image.config.image().ok_or(ContainerError::Artifact)?;
        let tests = named.draft.recipe.spec.tests.iter();
        let is_wanted = |test: &&ImageTest| {
            let name = format!("{}/{}", named.name, test.name.value);
            filter.is_none_or(|filter| name.contains(filter))
        };
        cases.extend(tests.filter(is_wanted).map(|test| Case { named, config, test }));
    }
    if cases.is_empty() {
        return Ok(Vec::new());
    }
    let roots = environment.roots()?;
    let workshop = Workshop {
        roots: &roots,
        helper: None,
        emulator: None,
        reporter: environment.reporter,
    };
    let telling = Mutex::new(());
    parallel::map(&cases, parallel::threads(jobs), |case| {
        let trial = case.run(store, workshop)?;
        let _one_at_a_time = telling.lock().unwrap_or_else(PoisonError::into_inner);
        tell(&trial);
        Ok(trial)
    })
}

impl Case<'_> {
    fn run(&self, store: &Store, workshop: Workshop<'_>) -> Result<Trial, ProjectError> {
        let mut trial = Trial {
            image: self.named.name.clone(),
            digest: self.named.image.digest(),
            test: self.test.name.value.clone(),
            result: TrialResult::Passed,
            milliseconds: 0,
            log: None,
            tail: Vec::new(),
        };
        if let Some((platform, machine)) = container::foreign(self.config) {
            let reason = format!("the image is for {platform}, and this machine is {machine}");
            trial.result = TrialResult::Skipped { reason };
            return Ok(trial);
        }
        let file_name = format!("{}.{}.log", trial.image.replace('/', "_"), trial.test);
        let mut log = TrialLog::create(store.dir().join("log/tests"), &file_name)?;
        let image = RunnableImage {
            layers: &self.named.image.layers,
            config: self.config,
        };
        let staging = store.scratch()?;
        let started = Instant::now();
        let tried = container::try_image(image, self.test, workshop, staging.path(), &mut |bytes| log.take(bytes));
        trial.milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        trial.result = match tried {
            Ok(failures) if failures.is_empty() => TrialResult::Passed,
            Ok(failures) => TrialResult::Failed { failures },
            Err(error) if is_of_test(&error) => TrialResult::Failed {
                failures: vec![crate::fsio::with_causes(&error)],
            },
            Err(error) => return Err(error.into()),
        };
        if trial.has_failed() {
            trial.tail = log.tail();
        }
        trial.log = Some(log.finish()?);
        Ok(trial)
    }
}

/// Whether a failure is the test's or the image's, and not the machine's.
fn is_of_test(error: &ContainerError) -> bool {
    matches!(
        error,
        ContainerError::NoProgram | ContainerError::NoAccount { .. } | ContainerError::Place { .. }
    )
}

/// What the programs of a test print: whole in a file up to a bound, and the end of it.
struct TrialLog {
    path: PathBuf,
    file: File,
    size: u64,
    last: Vec<u8>,
    failure: Option<PathError>,
}

impl TrialLog {
    fn create(dir: PathBuf, name: &str) -> Result<Self, PathError> {
        create_dir_all(&dir)?;
        let path = dir.join(name);
        Ok(Self {
            file: File::create(&path).context("create", &path)?,
            path,
            size: 0,
            last: Vec::new(),
            failure: None,
        })
    }

    fn take(&mut self, bytes: &[u8]) {
        let left = usize::try_from(LOG_MAX.saturating_sub(self.size)).unwrap_or(usize::MAX);
        let kept = &bytes[..bytes.len().min(left)];
        self.size += kept.len() as u64;
        if self.failure.is_none() {
            self.failure = self.file.write_all(kept).context("write", &self.path).err();
        }
        self.last.extend_from_slice(bytes);
        let surplus = self.last.len().saturating_sub(TAIL * LINE_MAX);
        self.last.drain(..surplus);
    }

    fn tail(&self) -> Vec<String> {
        let lines: Vec<&[u8]> = self.last.trim_ascii_end().split(|&byte| byte == b'\n').collect();
        let first = lines.len().saturating_sub(TAIL);
        let shown = lines[first..]
            .iter()
            .map(|line| shown_bytes(&line[..line.len().min(LINE_MAX)]));
        shown.filter(|line| !line.is_empty()).collect()
    }

    fn finish(self) -> Result<PathBuf, PathError> {
        self.failure.map_or(Ok(self.path), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_shown_whatever_was_printed() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = TrialLog::create(dir.path().join("logs"), "a").unwrap();
        for number in 0..100 {
            log.take(format!("line {number}\n").as_bytes());
        }
        log.take(b"\x1b[31mlast");
        let tail = log.tail();
        assert_eq!((tail.len(), tail[0].as_str()), (TAIL, "line 81"));
        assert!(!tail[TAIL - 1].contains('\u{1b}'), "{tail:?}");
        let path = log.finish().unwrap();
        assert!(std::fs::read_to_string(path).unwrap().starts_with("line 0\nline 1\n"));
    }
}
