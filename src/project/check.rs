//! A *check* builds the targets again in other surroundings, and compares.
//!
//! Invariant: nothing that is built again enters the store; what could not be varied is listed in the report.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::audit::{self, TreeChange};
use crate::build::{self, Again, BuildError, BuildOptions, Compared, Variation};
use crate::configure::{Record, TREE};
use crate::derive::{Action, Input, StepId};
use crate::digest::Digest;
use crate::fsio::{self, IoContext as _};
use crate::nar;
use crate::sandbox;
use crate::store_path::{PathInfo, StoreDir};
use crate::walls::Walls;

use super::environment::Environment;
use super::error::ProjectError;
use super::golden;
use super::image::{self, NamedImage};
use super::options::ImageOptions;
use super::target::Target;
use super::work::{Work, inputs_of};

/// What cannot be varied on any machine without another kernel.
const NOT_VARIED: &str = "the date (the second build runs later, by seconds), the kernel and the processor's model";

/// How thoroughly is checked.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// How often each step is built again; at least once.
    pub times: u32,
    /// Whether to find out on which respect of its surroundings an output depends.
    pub find_cause: bool,
    /// Where outputs that differ are copied, beside what the store has.
    pub keep: Option<PathBuf>,
}

/// Why a check could not be done.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The work or the images failed.
    #[error(transparent)]
    Project(Box<ProjectError>),
    /// With less than namespaces, not everything can be varied.
    #[error("behind `{walls}` there is no environment to vary: a check runs scripts in namespaces")]
    NoSandbox {
        /// What was asked for.
        walls: Walls,
    },
    /// A target is a store path.
    #[error("a store path does not say how to build it")]
    StorePath,
}

impl From<ProjectError> for CheckError {
    fn from(error: ProjectError) -> Self {
        Self::Project(Box::new(error))
    }
}

impl CheckError {
    /// What to type next.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Project(error) => error.help(),
            Self::NoSandbox { walls } => Some(format!("leave out `--sandbox={walls}`")),
            Self::StorePath => Some("name the image or package of the spec that makes it".to_owned()),
        }
    }
}

/// What a check found.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    /// Whether everything came out the same.
    pub reproducible: bool,
    /// The respects in which the surroundings were varied.
    pub varied: Vec<Variation>,
    /// What could not be.
    pub not_varied: &'static str,
    /// The outputs of all scripts, in the plan's order.
    pub outputs: Vec<CheckedOutput>,
    /// The images among the targets.
    pub images: Vec<CheckedImage>,
}

/// One output, built again.
#[derive(Debug, Serialize)]
pub struct CheckedOutput {
    /// What the user calls the step.
    pub name: String,
    /// Its store path.
    pub path: String,
    /// Whether it came out the same each time.
    pub reproducible: bool,
    /// Which time it first differed, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round: Option<u32>,
    /// How the programs of its script ran each time, where they are for another processor than this machine's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub compared: Vec<Compared>,
    /// Hash of what the store has.
    pub nar_hash: Digest,
    /// Hash of what differs from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_nar_hash: Option<Digest>,
    /// The files that differ.
    pub files: Vec<TreeChange>,
    /// The Debian packages whose scripts made those files, by path.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub made_by: BTreeMap<String, BTreeSet<String>>,
    /// Why it could not be built again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// On what it depends, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causes: Option<Vec<String>>,
    /// Where both trees were copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<PathBuf>,
}

/// One image, assembled again.
#[derive(Debug, Serialize)]
pub struct CheckedImage {
    /// What the user calls it.
    pub name: String,
    /// Whether the digest is the same.
    pub reproducible: bool,
    /// The digest.
    pub digest: Digest,
    /// The digest that came out the second time, where it is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_digest: Option<Digest>,
}

/// Refuses, before anything is built, what cannot be checked.
pub fn check_sandbox(sandbox: Option<Walls>) -> Result<(), CheckError> {
    match sandbox {
        None | Some(Walls::Namespaces) => Ok(()),
        Some(walls) => Err(CheckError::NoSandbox { walls }),
    }
}

/// Builds again what the targets of `work` need, and compares.
pub fn check(work: &Work, options: &CheckOptions, environment: &Environment<'_>) -> Result<CheckReport, CheckError> {
    check_sandbox(work.options.sandbox)?;
    if work.targets.iter().any(|target| matches!(target, Target::Path(_))) {
        return Err(CheckError::StorePath);
    }
    let mut outputs: Vec<CheckedOutput> = Vec::new();
    for work in work.everywhere() {
        let check = BuildChecker {
            work,
            options,
            environment,
            build: environment.build_options(&work.options, work.project.as_ref())?,
        };
        let inputs = work.targets.iter().flat_map(|target| inputs_of(target, &work.plan));
        let inputs: Vec<Input> = inputs.collect();
        for step in build::checked_steps(&work.plan, &inputs) {
            let output = check.output(step)?;
            // What platforms share is told of once.
            if outputs.iter().all(|known| known.path != output.path) {
                outputs.push(output);
            }
            if sandbox::is_cancelled() {
                return Err(ProjectError::from(BuildError::Cancelled).into());
            }
        }
    }
    let images = images(work, environment)?;
    Ok(CheckReport {
        reproducible: outputs.iter().all(|output| output.reproducible) && images.iter().all(|image| image.reproducible),
        varied: Variation::ALL.to_vec(),
        not_varied: NOT_VARIED,
        outputs,
        images,
    })
}

/// What one check needs all along.
struct BuildChecker<'a> {
    work: &'a Work,
    options: &'a CheckOptions,
    environment: &'a Environment<'a>,
    build: BuildOptions,
}

impl BuildChecker<'_> {
    /// Builds one output again, as often as was asked for or until it differs, and then at a builder where its programs may
    /// run on their own processor.
    fn output(&self, step: StepId) -> Result<CheckedOutput, ProjectError> {
        let output = self.output_here(step)?;
        if !output.reproducible {
            return Ok(output);
        }
        let Work { store, plan, .. } = self.work;
        match build::make_again_elsewhere(store, plan, step, &self.build, self.environment.reporter) {
            Ok(None) => Ok(output),
            Ok(Some(again)) => {
                let elsewhere = self.judge(step, self.options.times, again)?;
                Ok(CheckedOutput {
                    compared: output.compared.into_iter().chain(elsewhere.compared).collect(),
                    ..elsewhere
                })
            }
            Err(error) if error.is_of_a_script() => self.failed(step, self.options.times, &error.to_string()),
            Err(error) => Err(error.into()),
        }
    }

    /// Builds one output again on this machine.
    fn output_here(&self, step: StepId) -> Result<CheckedOutput, ProjectError> {
        let all = BTreeSet::from(Variation::ALL);
        let mut builds = vec![all.clone()];
        if self.has_cache(step) {
            // What the store has may have been made with a full cache or with an empty one: both must give it.
            builds.push(all.into_iter().filter(|one| *one != Variation::BuildCache).collect());
        }
        let mut round = 1;
        loop {
            for (number, variations) in builds.iter().enumerate() {
                let output = self.compare(step, round, variations)?;
                let is_last = round >= self.options.times && number + 1 == builds.len();
                if is_last || !output.reproducible {
                    return Ok(output);
                }
            }
            round += 1;
        }
    }

    /// Builds one output again, once.
    fn compare(
        &self,
        step: StepId,
        round: u32,
        variations: &BTreeSet<Variation>,
    ) -> Result<CheckedOutput, ProjectError> {
        let again = match self.again(step, variations) {
            Ok(again) => again,
            Err(error) if error.is_of_a_script() => return self.failed(step, round, &error.to_string()),
            Err(error) => return Err(error.into()),
        };
        self.judge(step, round, again)
    }

    /// Compares what was made again with what the store has.
    fn judge(&self, step: StepId, round: u32, again: Again) -> Result<CheckedOutput, ProjectError> {
        let unchanged = CheckedOutput {
            compared: again.compared.iter().cloned().collect(),
            ..self.unchanged(step, &again.known)
        };
        if again.is_same() {
            return Ok(unchanged);
        }
        let known = self.work.store.physical(&again.known.path);
        let files = audit::compare_trees(&known, again.tree())?;
        Ok(CheckedOutput {
            reproducible: false,
            round: Some(round),
            other_nar_hash: Some(again.nar_hash()),
            made_by: self.makers(step, [&known, again.tree()], &files)?,
            files,
            kept: self.keep(&known, &again)?,
            causes: self.causes(step)?,
            ..unchanged
        })
    }

    /// Whether the step's script finds what earlier runs of it left.
    fn has_cache(&self, step: StepId) -> bool {
        match &self.work.plan.steps[step].action {
            Action::Script(script) => !script.cache_dirs.is_empty(),
            _ => false,
        }
    }

    /// The report of an output that is the same, as far as was seen.
    fn unchanged(&self, step: StepId, known: &PathInfo) -> CheckedOutput {
        CheckedOutput {
            name: self.work.plan.steps[step].label.clone(),
            path: StoreDir::layerize().join(&known.path),
            reproducible: true,
            round: None,
            compared: Vec::new(),
            nar_hash: known.nar_hash,
            other_nar_hash: None,
            files: Vec::new(),
            made_by: BTreeMap::new(),
            failure: None,
            causes: None,
            kept: None,
        }
    }

    fn again(&self, step: StepId, variations: &BTreeSet<Variation>) -> Result<Again, BuildError> {
        // Clocks are read in seconds: a time that gets into an output must not be the first build's.
        std::thread::sleep(Duration::from_millis(1100));
        let Work { store, plan, .. } = self.work;
        build::make_again(store, plan, step, variations, &self.build, self.environment.reporter)
    }

    fn failed(&self, step: StepId, round: u32, failure: &str) -> Result<CheckedOutput, ProjectError> {
        let path = self.work.path(&Input::Step(step));
        let info = self.work.store.info(&path)?;
        let known = info.ok_or(ProjectError::Gone { path })?;
        Ok(CheckedOutput {
            reproducible: false,
            round: Some(round),
            failure: Some(failure.to_owned()),
            causes: self.causes(step)?,
            ..self.unchanged(step, &known)
        })
    }

    /// The packages whose scripts made files of a configure step that differ between two outputs.
    fn makers(
        &self,
        step: StepId,
        outputs: [&Path; 2],
        files: &[TreeChange],
    ) -> Result<BTreeMap<String, BTreeSet<String>>, ProjectError> {
        let mut makers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        if !matches!(self.work.plan.steps[step].action, Action::Configure(_)) {
            return Ok(makers);
        }
        for output in outputs {
            let record = Record::read(output)?;
            for change in files {
                let path = change.path.strip_prefix(TREE).and_then(|path| path.strip_prefix('/'));
                if let Some(entry) = path.and_then(|path| record.entries.get(path)) {
                    makers
                        .entry(change.path.clone())
                        .or_default()
                        .extend(entry.by.iter().cloned());
                }
            }
        }
        Ok(makers)
    }

    /// The respects in which the output depends on its surroundings, each tried alone.
    fn causes(&self, step: StepId) -> Result<Option<Vec<String>>, ProjectError> {
        if !self.options.find_cause {
            return Ok(None);
        }
        let between_processors = Cell::new(false);
        // The hash of what is made, and whether it is what the store has; none where the script fails.
        let made = |variations: &[Variation]| {
            // Without a cache, so that one run does not change what the next one finds.
            let all = variations.iter().copied().chain([Variation::BuildCache]).collect();
            match self.again(step, &all) {
                Ok(again) => {
                    if again.compared.iter().any(|both| both.first != both.again) {
                        between_processors.set(true);
                    }
                    Ok((again.is_same(), Some(again.nar_hash())))
                }
                Err(error) if error.is_of_a_script() => Ok((false, None)),
                Err(error) => Err(error),
            }
        };
        let cache = || Ok(Some(vec![Variation::BuildCache.name().to_owned()]));
        let (is_same, first) = made(&[])?;
        if !is_same {
            if self.has_cache(step) && first.is_some() && made(&[])?.1 == first {
                return cache();
            }
            let mut causes = vec![
                "nothing that was varied: it differs from run to run (time, randomness, a hash seed, a race)"
                    .to_owned(),
            ];
            if between_processors.get() {
                causes.push("or whether its programs run on their own processor or through an emulator".to_owned());
            }
            return Ok(Some(causes));
        }
        let with_cache = match self.again(step, &BTreeSet::new()) {
            Ok(again) => again.is_same(),
            Err(error) if error.is_of_a_script() => false,
            Err(error) => return Err(error.into()),
        };
        if self.has_cache(step) && !with_cache {
            return cache();
        }
        let mut causes = Vec::new();
        for variation in Variation::ALL {
            if variation != Variation::BuildCache && !made(&[variation])?.0 {
                causes.push(variation.name().to_owned());
            }
        }
        Ok(Some(causes))
    }

    fn keep(&self, known: &Path, again: &Again) -> Result<Option<PathBuf>, ProjectError> {
        let Some(dir) = &self.options.keep else { return Ok(None) };
        let dir = dir.join(again.known.path.to_string());
        fsio::remove_tree(&dir)?;
        fsio::create_dir_all(&dir)?;
        for (tree, name) in [(known, "a"), (again.tree(), "b")] {
            copy_tree(tree, &dir.join(name))?;
        }
        Ok(Some(dir))
    }
}

/// Assembles the targets' images again, without caches and with one thread.
fn images(work: &Work, environment: &Environment<'_>) -> Result<Vec<CheckedImage>, ProjectError> {
    let images = image::images(work, &ImageOptions::default(), environment)?;
    let mut reports = Vec::new();
    for image in images.iter().flat_map(NamedImage::each) {
        golden::compare(image, work, environment)?;
        let digest = image.image.digest();
        let other = image::digest_from_scratch(&image.draft, environment)?;
        reports.push(CheckedImage {
            name: image.name.clone(),
            reproducible: other == digest,
            digest,
            other_digest: (other != digest).then_some(other),
        });
    }
    Ok(reports)
}

/// Copies a tree of the store, as its canonical archive has it.
fn copy_tree(from: &Path, to: &Path) -> Result<(), ProjectError> {
    let (mut reader, mut writer) = io::pipe().context("make a pipe to", to)?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || nar::write(from, &mut writer));
        nar::restore(&mut reader, to)?;
        writing
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(())
    })
}
