//! *Trials* are tests of images, run: all that the spec has for some images, several at once, each in a container of its own.
//!
//! Invariant: a test decides nothing about its image. What is tested is the very image that is written: its layers as they are.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::build::BuildError;
use crate::container::{self, ContainerError, RunnableImage, Workshop};
use crate::digest::Digest;
use crate::escape::shown_bytes;
use crate::event::Event;
use crate::fsio::{IoContext, PathError, create_dir_all};
use crate::oci::Config;
use crate::parallel;
use crate::sandbox::emulator::Emulator;
use crate::spec::ImageTest;
use crate::store::Store;

use super::environment::Environment;
use super::error::ProjectError;
use super::image::NamedImage;
use super::work::Work;

/// How many of the last lines of a log are shown.
const TAIL: usize = 20;

/// Most bytes of a log that are kept.
const LOG_MAX: u64 = 64 << 20;

/// How many times its `timeout` a test may take whose programs run through an emulator.
const EMULATED_TIMES: u64 = 5;

/// Longest line of a log that is shown, in bytes.
const LINE_MAX: usize = 2000;

/// A test that was run, or was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// The image, by the spec's name.
    pub image: String,
    /// Its platform, where the image is made for several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
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
    /// Whether it was not run.
    pub fn was_skipped(&self) -> bool {
        matches!(self.result, TrialResult::Skipped { .. })
    }

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
    /// Whether the image is made for several platforms.
    is_one_of_several: bool,
}

/// What runs the programs of an image; `Err`: why nothing does.
type Means = Result<Option<Emulator>, String>;

/// Runs the tests of these images of `work` whose `IMAGE/TEST` holds `filter`, at most `jobs` at once (0: as many as there are
/// cores); each is told to `tell` as soon as it has ended. They come back in the images' order and that of their names.
pub fn run(
    images: &[NamedImage],
    filter: Option<&str>,
    jobs: usize,
    work: &Work,
    environment: &Environment<'_>,
    tell: &(dyn Fn(&Trial) + Sync),
) -> Result<Vec<Trial>, ProjectError> {
    let mut cases = Vec::new();
    let parts = images
        .iter()
        .flat_map(|image| image.each().map(|part| (part, image.parts.len() > 1)));
    for (named, is_one_of_several) in parts {
        let config = named.image.config.image().ok_or(ContainerError::Artifact)?;
        let tests = named.draft.recipe.spec.tests.iter();
        let is_wanted = |test: &&ImageTest| {
            let name = format!("{}/{}", named.name, test.name.value);
            filter.is_none_or(|filter| name.contains(filter))
        };
        cases.extend(tests.filter(is_wanted).map(|test| Case {
            named,
            config,
            test,
            is_one_of_several,
        }));
    }
    if cases.is_empty() {
        return Ok(Vec::new());
    }
    let roots = environment.roots()?;
    let means = all_means(&cases, work, environment)?;
    let (store, telling) = (&work.store, Mutex::new(()));
    parallel::map(&cases, parallel::threads(jobs), |case| {
        let trial = match &means[&case.platform()] {
            Err(reason) => case.skipped(reason),
            Ok(emulator) => {
                let workshop = Workshop {
                    roots: &roots,
                    helper: None,
                    emulator: emulator.as_ref(),
                    reporter: environment.reporter,
                };
                case.run(store, workshop)?
            }
        };
        let _one_at_a_time = telling.lock().unwrap_or_else(PoisonError::into_inner);
        tell(&trial);
        Ok(trial)
    })
}

/// What runs the programs of the images, by platform. Of what nothing runs it is told once, and in full.
fn all_means(
    cases: &[Case<'_>],
    work: &Work,
    environment: &Environment<'_>,
) -> Result<BTreeMap<String, Means>, ProjectError> {
    let mut all = BTreeMap::new();
    for case in cases {
        if let Entry::Vacant(place) = all.entry(case.platform()) {
            place.insert(case.means(work, environment)?);
        }
    }
    Ok(all)
}

impl Case<'_> {
    /// What the image is for, as it says itself.
    fn platform(&self) -> String {
        format!("{}/{}", self.config.os, self.config.architecture)
    }

    fn means(&self, work: &Work, environment: &Environment<'_>) -> Result<Means, ProjectError> {
        let Some((platform, machine)) = container::foreign(self.config) else {
            return Ok(Ok(None));
        };
        let reason = format!("the image is for {platform}, and this machine is {machine}");
        if self.config.os != "linux" {
            return Ok(Err(reason));
        }
        let label = &self.named.name;
        match work.of(&self.named.draft).emulator(label, environment) {
            Ok(emulator) => Ok(Ok(emulator)),
            Err(ProjectError::Build(error @ BuildError::ForeignPrograms(_))) => {
                let help = error.help().unwrap_or_default();
                let text = format!("the tests of images for {platform} are not run: {error}\n{help}");
                environment.reporter.report(Event::Warning { text });
                Ok(Err(reason))
            }
            Err(error) => Err(error),
        }
    }

    /// A test that is not run.
    fn skipped(&self, reason: &str) -> Trial {
        let reason = reason.to_owned();
        Trial {
            result: TrialResult::Skipped { reason },
            ..self.passed()
        }
    }

    /// A test of which all came as it was to come.
    fn passed(&self) -> Trial {
        Trial {
            image: self.named.name.clone(),
            platform: self.is_one_of_several.then(|| self.platform()),
            digest: self.named.image.digest(),
            test: self.test.name.value.clone(),
            result: TrialResult::Passed,
            milliseconds: 0,
            log: None,
            tail: Vec::new(),
        }
    }

    /// What its logs are called: with the platform where the image is for several.
    fn log_name(&self) -> String {
        let name = self.named.name.replace('/', "_");
        match self.is_one_of_several {
            true => format!("{name}.{}", self.platform().replace('/', "-")),
            false => name,
        }
    }

    fn run(&self, store: &Store, workshop: Workshop<'_>) -> Result<Trial, ProjectError> {
        let mut trial = self.passed();
        // What runs through an emulator takes its time.
        let patient;
        let test = match workshop.emulator {
            None => self.test,
            Some(_) => {
                patient = ImageTest {
                    timeout: self.test.timeout.saturating_mul(EMULATED_TIMES),
                    ..self.test.clone()
                };
                &patient
            }
        };
        let file_name = format!("{}.{}.log", self.log_name(), trial.test);
        let mut log = TrialLog::create(store.dir().join("log/tests"), &file_name)?;
        let image = RunnableImage {
            layers: &self.named.image.layers,
            config: self.config,
        };
        let staging = store.scratch()?;
        let started = Instant::now();
        let tried = container::try_image(image, test, workshop, staging.path(), &mut |bytes| log.take(bytes));
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
