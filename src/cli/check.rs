//! `layerize check`: whether builds are reproducible, by building again in other surroundings.
//!
//! Invariant: nothing that is built again enters the store; what could not be varied is said.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use crate::audit::{self, TreeChange};
use crate::build::{self, Again, BuildError, Variation};
use crate::derive::{Input, StepId};
use crate::digest::Digest;
use crate::fsio;
use crate::nar;
use crate::store_path::StoreDir;

use super::context::Context;
use super::error::advised;
use super::flags::{BuildFlags, Sandbox};
use super::interrupt;
use super::outcome::Outcome;
use crate::project;
use crate::project::ImageOptions;
use crate::project::golden;
use crate::project::work;
use crate::project::{Target, Work};

/// Most files of one output that are shown to people.
const FILES_SHOWN: usize = 10;

/// What cannot be varied on any machine without a changed kernel, and is not pretended to be.
const NOT_VARIED: &str = "the date (the second build runs later, by seconds), the kernel and the processor's model";

/// Arguments of `layerize check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Images or packages of the spec [default: all images]
    targets: Vec<String>,
    /// How often each is built again
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    times: u32,
    /// Copy outputs that differ to this directory, with what the store has
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Where something differs, vary one respect after the other to find out on which it depends
    #[arg(long)]
    find_cause: bool,
    #[command(flatten)]
    flags: BuildFlags,
}

/// What a check found.
#[derive(Debug, Serialize)]
struct Report {
    reproducible: bool,
    varied: Vec<Variation>,
    not_varied: &'static str,
    outputs: Vec<OutputReport>,
    images: Vec<ImageReport>,
}

/// One output, built again.
#[derive(Debug, Serialize)]
struct OutputReport {
    name: String,
    path: String,
    reproducible: bool,
    /// Which time it first differed, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    round: Option<u32>,
    nar_hash: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    other_nar_hash: Option<Digest>,
    files: Vec<TreeChange>,
    /// Why it could not be built again.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    /// On what it depends, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    causes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<PathBuf>,
}

/// One image, assembled again.
#[derive(Debug, Serialize)]
struct ImageReport {
    name: String,
    reproducible: bool,
    digest: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    other_digest: Option<Digest>,
}

/// Builds again what the targets need, compares, and reports.
pub fn run(args: &CheckArgs, context: &Context) -> anyhow::Result<Outcome> {
    if args.flags.sandbox == Sandbox::None {
        let help = "leave out `--sandbox=none`";
        return Err(advised("without a sandbox there are no surroundings to vary", help));
    }
    let work = work::prepare(&args.targets, &args.flags.options(), &context.environment)?;
    if work.targets.iter().any(|target| matches!(target, Target::Path(_))) {
        let help = "name the image or package of the spec that makes it";
        return Err(advised("a store path does not say how it is built again", help));
    }
    let checked = Checked::new(&work, args, context)?;
    let inputs: Vec<Input> = work
        .targets
        .iter()
        .flat_map(|target| work::inputs_of(target, &work.plan))
        .collect();
    let mut report = Report {
        reproducible: true,
        varied: Variation::ALL.to_vec(),
        not_varied: NOT_VARIED,
        outputs: Vec::new(),
        images: Vec::new(),
    };
    for step in build::checked_steps(&work.plan, &inputs) {
        report.outputs.push(checked.output(step)?);
        if interrupt::requested() {
            return Err(BuildError::Cancelled.into());
        }
    }
    report.images = checked.images()?;
    report.reproducible =
        report.outputs.iter().all(|output| output.reproducible) && report.images.iter().all(|image| image.reproducible);
    let text = match context.ui.json() {
        true => serde_json::to_string(&report)?,
        false => report.render(),
    };
    context.ui.clear();
    context.ui.data(text.trim_end())?;
    Ok(if report.reproducible {
        Outcome::Done
    } else {
        Outcome::No
    })
}

/// What one check needs all along.
struct Checked<'a> {
    work: &'a Work,
    args: &'a CheckArgs,
    context: &'a Context<'a>,
    options: build::BuildOptions,
}

impl<'a> Checked<'a> {
    fn new(work: &'a Work, args: &'a CheckArgs, context: &'a Context<'a>) -> anyhow::Result<Self> {
        let workspace = work.project.as_ref().map(|project| &project.workspace);
        Ok(Self {
            work,
            args,
            context,
            options: context.environment.build_options(&args.flags.options(), workspace)?,
        })
    }

    /// Builds one output again, as often as was asked for or until it differs.
    fn output(&self, step: StepId) -> anyhow::Result<OutputReport> {
        let all = BTreeSet::from(Variation::ALL);
        let mut report = None;
        for round in 1..=self.args.times {
            let again = match self.again(step, &all) {
                Ok(again) => again,
                Err(BuildError::Script(failure)) => return self.failed(step, round, &failure.to_string()),
                Err(error) => return Err(error.into()),
            };
            let mut found = OutputReport {
                name: self.work.plan.steps[step].label.clone(),
                path: StoreDir::layerize().join(&again.known.path),
                reproducible: again.is_same(),
                round: None,
                nar_hash: again.known.nar_hash,
                other_nar_hash: None,
                files: Vec::new(),
                failure: None,
                causes: None,
                kept: None,
            };
            if !again.is_same() {
                found.round = Some(round);
                found.other_nar_hash = Some(again.nar_hash());
                let known = self.work.store.physical(&again.known.path);
                found.files = audit::compare_trees(&known, again.tree())?;
                found.kept = self.keep(&known, &again)?;
                found.causes = self.causes(step)?;
                return Ok(found);
            }
            report = Some(found);
        }
        report.context("nothing was built again")
    }

    fn again(&self, step: StepId, variations: &BTreeSet<Variation>) -> Result<Again, BuildError> {
        // Clocks are read in seconds: a time that gets into an output must not be the first build's.
        std::thread::sleep(Duration::from_millis(1100));
        let Work { store, plan, .. } = self.work;
        build::make_again(store, plan, step, variations, &self.options, self.context.ui)
    }

    fn failed(&self, step: StepId, round: u32, failure: &str) -> anyhow::Result<OutputReport> {
        let path = self.work.path(&Input::Step(step));
        let info = self.work.store.info(&path)?.context("the output is gone")?;
        Ok(OutputReport {
            name: self.work.plan.steps[step].label.clone(),
            path: StoreDir::layerize().join(&path),
            reproducible: false,
            round: Some(round),
            nar_hash: info.nar_hash,
            other_nar_hash: None,
            files: Vec::new(),
            failure: Some(failure.to_owned()),
            causes: self.causes(step)?,
            kept: None,
        })
    }

    /// The respects in which the output depends on its surroundings, each tried alone.
    fn causes(&self, step: StepId) -> anyhow::Result<Option<Vec<String>>> {
        if !self.args.find_cause {
            return Ok(None);
        }
        let differs = |variations: &BTreeSet<Variation>| -> anyhow::Result<bool> {
            match self.again(step, variations) {
                Ok(again) => Ok(!again.is_same()),
                Err(BuildError::Script(_)) => Ok(true),
                Err(error) => Err(error.into()),
            }
        };
        if differs(&BTreeSet::new())? {
            let text = "nothing that was varied: it differs from run to run (time, randomness, a hash seed, a race)";
            return Ok(Some(vec![text.to_owned()]));
        }
        let mut causes = Vec::new();
        for variation in Variation::ALL {
            if differs(&BTreeSet::from([variation]))? {
                causes.push(variation.name().to_owned());
            }
        }
        Ok(Some(causes))
    }

    fn keep(&self, known: &Path, again: &Again) -> anyhow::Result<Option<PathBuf>> {
        let Some(dir) = &self.args.keep else { return Ok(None) };
        let dir = dir.join(again.known.path.to_string());
        fsio::remove_tree(&dir)?;
        fsio::create_dir_all(&dir)?;
        for (tree, name) in [(known, "a"), (again.tree(), "b")] {
            copy_tree(tree, &dir.join(name))?;
        }
        Ok(Some(dir))
    }

    /// Assembles the targets' images again, without caches and with one thread.
    fn images(&self) -> anyhow::Result<Vec<ImageReport>> {
        let images = project::images(self.work, &ImageOptions::default(), &self.context.environment)?;
        let mut reports = Vec::new();
        for image in &images {
            golden::compare(image, self.work, &self.context.environment)?;
            let digest = image.image.digest;
            let other = project::image::digest_from_scratch(&image.draft, &self.context.environment)?;
            reports.push(ImageReport {
                name: image.name.clone(),
                reproducible: other == digest,
                digest,
                other_digest: (other != digest).then_some(other),
            });
        }
        Ok(reports)
    }
}

/// Copies a tree of the store, as its canonical archive has it.
fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    let (mut reader, mut writer) = std::io::pipe().context("cannot make a pipe")?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || nar::write(from, &mut writer));
        nar::restore(&mut reader, to)?;
        writing.join().map_err(|_| anyhow::anyhow!("copying panicked"))??;
        Ok(())
    })
}

impl Report {
    fn render(&self) -> String {
        let mut text = String::new();
        for output in &self.outputs {
            output.render(&mut text);
        }
        for image in &self.images {
            let _ = match image.other_digest {
                None => writeln!(text, "same     image {} {}", image.name, image.digest),
                Some(other) => writeln!(text, "DIFFERS  image {} {} and {other}", image.name, image.digest),
            };
        }
        let varied: Vec<&str> = self.varied.iter().map(|variation| variation.name()).collect();
        let _ = writeln!(text, "varied: {}", varied.join(", "));
        let _ = writeln!(text, "not varied: {}", self.not_varied);
        text
    }
}

impl OutputReport {
    fn render(&self, text: &mut String) {
        let word = if self.reproducible { "same   " } else { "DIFFERS" };
        let _ = writeln!(text, "{word}  {} {}", self.name, self.path);
        if let Some(failure) = &self.failure {
            let _ = writeln!(text, "  in other surroundings it cannot be built: {failure}");
        }
        for change in self.files.iter().take(FILES_SHOWN) {
            let path = if change.path.is_empty() {
                "the output itself"
            } else {
                &change.path
            };
            let class = serde_json::to_value(change.class).unwrap_or_default();
            let class = class.as_str().unwrap_or_default();
            let _ = writeln!(text, "  {path}: {class}: {} / {}", change.a, change.b);
            if let Some(hint) = &change.hint {
                let _ = writeln!(text, "    {hint}");
            }
            for line in change.text.iter().flat_map(|text| text.lines()) {
                let _ = writeln!(text, "    {line}");
            }
        }
        if self.files.len() > FILES_SHOWN {
            let _ = writeln!(text, "  and {} more files", self.files.len() - FILES_SHOWN);
        }
        for cause in self.causes.iter().flatten() {
            let _ = writeln!(text, "  depends on: {cause}");
        }
        if self.causes.as_ref().is_some_and(Vec::is_empty) {
            let _ = writeln!(text, "  depends on no single respect that was varied");
        }
        if let Some(kept) = &self.kept {
            let _ = writeln!(text, "  kept in {}", kept.display());
        }
    }
}
