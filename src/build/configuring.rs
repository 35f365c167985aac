//! A *configure step*: Debian packages' maintainer scripts run in the sandbox, and what they made brought into the store.
//!
//! Invariant: what is left out of an image is told, once, when the step is done.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::emulation::{Foreigner, emulator_of};
use super::log::BuildLog;
use super::script::Remade;
use super::variation::{self, Variation};
use super::{BuildError, BuildOptions};
use crate::configure::{self, Record, Request, Source};
use crate::derive::{Configure, ConfiguredDeb, Derivation, Input};
use crate::digest::Digest;
use crate::event::{Event, Reporter};
use crate::execution::Execution;
use crate::fsio::create_dir_all;
use crate::sandbox::RuntimeSettings;
use crate::sandbox::emulator::Emulator;
use crate::store::{StagingDir, Store};
use crate::store_path::StorePath;
use crate::walls::Walls;

/// What a check varies of a configure step. Maintainer scripts always run as root with a umask of 022, which `dpkg` sets, and
/// here with one processor; where the packages' trees lie is what overlayfs makes of them.
const VARIED: [Variation; 5] = [
    Variation::Host,
    Variation::TimeZone,
    Variation::Locale,
    Variation::Home,
    Variation::Addresses,
];

/// A configure step about to be run.
pub(super) struct ConfigureStep<'a> {
    pub store: &'a Store,
    pub options: &'a BuildOptions,
    pub reporter: &'a dyn Reporter,
    pub derivation: &'a Derivation,
    pub configure: &'a Configure,
    /// Hash of the resolved derivation.
    pub digest: Digest,
    /// The store path of every input, all of them valid.
    pub paths: &'a BTreeMap<Input, StorePath>,
    /// In what its surroundings are other than they always are; nothing, except for a check.
    pub variations: &'a BTreeSet<Variation>,
}

/// What scripts left, not yet in the store.
struct ConfiguredTree {
    output: PathBuf,
    record: Record,
    execution: Execution,
    /// Holds the output; removed when dropped.
    staging: StagingDir,
}

impl ConfigureStep<'_> {
    /// Runs the scripts; gives the path of what they made.
    pub(super) fn run(&self) -> Result<StorePath, BuildError> {
        let made = self.execute()?;
        self.tell(&made.record);
        let name = &self.derivation.name;
        let output = &made.output;
        let info = (self.store).add_leaf_of_scripts(name, output, self.digest, made.execution)?;
        Ok(info.path)
    }

    /// Runs the scripts and registers nothing: what they made as it would enter the store.
    pub(super) fn run_again(&self) -> Result<Remade, BuildError> {
        let made = self.execute()?;
        let settled = self.store.settle_leaf(&self.derivation.name, &made.output)?;
        Ok(Remade::new(made.output, settled, made.staging))
    }

    fn execute(&self) -> Result<ConfiguredTree, BuildError> {
        self.options.check_walls_of_configuring(self.store, self.reporter)?;
        let (execution, emulator) = self.execution()?;
        let label = &self.derivation.label;
        self.reporter.report(Event::BuildStarted {
            name: label.clone(),
            at: None,
        });
        let staging = self.store.stage()?;
        let (work, output) = (staging.path().join("work"), staging.path().join("output"));
        create_dir_all(&work)?;
        let mut tell = |line: &str| {
            self.reporter.report(Event::BuildOutput {
                name: label.clone(),
                line: line.to_owned(),
            });
        };
        let again = if self.variations.is_empty() { "" } else { "-again" };
        let log = format!("log/{}{again}.log", self.digest.hex());
        let mut log = BuildLog::create(self.store.dir().join(log))?;
        let varied: BTreeSet<Variation> = (VARIED.into_iter())
            .filter(|variation| self.variations.contains(variation))
            .collect();
        let settings = RuntimeSettings {
            bounds: self.options.bounds,
            emulator,
            ..variation::settings(&varied)
        };
        let mut env = configure::environment();
        variation::change_variables(&mut env, &varied);
        let request = Request {
            tools: (self.configure.tools.as_ref())
                .map(|(output, packages)| (self.physical(output), self.sources(packages))),
            groups: self.configure.groups.iter().map(|group| self.sources(group)).collect(),
            skip: self.configure.skip.clone(),
            answers: self.configure.answers.clone(),
            locales: (self.configure.locales.as_ref()).map(|(package, names)| (self.physical(package), names.clone())),
            certificates: self.configure.certificates.clone(),
            incomplete: self.configure.incomplete,
            helper: self.options.helper.clone(),
            settings,
            env,
        };
        let made = configure::configure(&request, &work, &output, &mut |bytes| log.take(bytes, &mut tell));
        log.finish(&mut tell)?;
        Ok(ConfiguredTree {
            output,
            record: made?,
            execution,
            staging,
        })
    }

    /// How the scripts are run, and through what.
    fn execution(&self) -> Result<(Execution, Option<Emulator>), BuildError> {
        let Some(script) = Foreigner::of(self.derivation) else {
            return Ok((Execution::Native, None));
        };
        let options = self.options;
        let execution = options.choose_execution(script, Walls::Namespaces, self.store, self.reporter)?;
        Ok((execution, emulator_of(execution, script, self.store, self.paths)))
    }

    fn physical(&self, input: &Input) -> PathBuf {
        self.store.physical(&self.paths[input])
    }

    fn sources(&self, packages: &[ConfiguredDeb]) -> Vec<Source> {
        let source = |deb: &ConfiguredDeb| Source {
            name: deb.name.clone(),
            tree: self.physical(&deb.tree),
            control: self.physical(&deb.control),
        };
        packages.iter().map(source).collect()
    }

    /// Says what scripts made and the image does not get.
    fn tell(&self, record: &Record) {
        for (reason, paths) in record.left_out() {
            let more = match paths.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            self.reporter.report(Event::Note {
                text: format!("{}: `/{}`{more} left out: {reason}", self.derivation.label, paths[0]),
            });
        }
    }
}
