//! A build's sandbox *entered*: all is as it is just before the script runs, and a person stands in the script's place; or
//! all is as a script left it that failed.
//!
//! Invariant: the walls are the build's, but for the terminal; nothing that is made there gets into the store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{BuildError, BuildOptions, FAILED_CHARS, PreparedScript, ScriptStep};
use crate::build::runner::{self, failed_command};
use crate::build::shell::Task;
use crate::derive::{Action, BuildPlan, Input};
use crate::digest::Digest;
use crate::event::Reporter;
use crate::fsio::{IoContext, sorted_names};
use crate::sandbox::Outcome;
use crate::store::Store;
use crate::store_path::StorePath;
use crate::walls::Walls;

/// The shell's start file, relative to the root.
const START: &str = "usr/libexec/layerize/enter";

/// How a build is entered.
#[derive(Debug, Clone)]
pub struct EnterOptions {
    /// What is done there.
    pub task: Task,
    /// As the last script of this name that failed left it.
    pub failed: bool,
    /// What a language's set-up runs before the script, where the package has one.
    pub preamble: String,
    /// Variables of the terminal.
    pub terminal: BTreeMap<String, String>,
}

/// Runs a shell, or what else is to be done, in the sandbox of the script step `input`; gives its exit status. `paths` has the
/// store path of each of the script's inputs.
///
/// # Errors
///
/// The step runs no script, or there is no failed build of it.
pub fn enter(
    store: &Store,
    plan: &BuildPlan,
    input: &Input,
    paths: &BTreeMap<Input, StorePath>,
    (build, options): (&BuildOptions, &EnterOptions),
    reporter: &dyn Reporter,
) -> Result<i32, BuildError> {
    let step = match input {
        Input::Step(step) => plan.steps.get(*step),
        Input::Path(_) => None,
    };
    let Some((derivation, Action::Script(script))) = step.map(|step| (step, &step.action)) else {
        return Err(BuildError::NoScript);
    };
    let walls = build.choose_walls_here(store, reporter)?;
    if walls != Walls::Namespaces {
        return Err(BuildError::NeedsSandbox {
            label: derivation.label.clone(),
        });
    }
    let step = ScriptStep {
        store,
        options: build,
        reporter,
        derivation,
        script,
        digest: Digest::of(derivation.label.as_bytes()),
        paths,
        variations: &BTreeSet::new(),
        walls,
        execution: build.execution_of(derivation, walls, store, reporter)?,
    };
    step.enter(options)
}

impl ScriptStep<'_> {
    fn enter(&self, options: &EnterOptions) -> Result<i32, BuildError> {
        let label = &self.derivation.label;
        let kept = match options.failed {
            true => Some(
                self.last_failed()?
                    .ok_or_else(|| BuildError::NothingFailed { label: label.clone() })?,
            ),
            false => None,
        };
        let mut prepared = self.prepare(&self.placeholder()?, None)?;
        let note = kept.as_deref().map(|kept| self.where_it_failed(kept));
        if let Some(kept) = kept {
            for bind in prepared
                .sandbox
                .binds
                .iter_mut()
                .filter(|bind| bind.target == Path::new("/build"))
            {
                bind.source.clone_from(&kept);
            }
        }
        self.put_person_in_place(&mut prepared, options, note.as_deref())?;
        let outcome = prepared
            .sandbox
            .run_interactively(None)
            .map_err(|source| BuildError::Sandbox {
                what: format!("a shell in the build of `{label}`"),
                source,
            })?;
        match outcome {
            Outcome::Exited(status) => Ok(status),
            // As shells tell it.
            Outcome::Signaled(signal) => Ok(128 + signal),
            Outcome::TimedOut | Outcome::Cancelled | Outcome::Exceeded(_) => Err(BuildError::Cancelled),
        }
    }

    /// Has the sandbox start a shell instead of the runner.
    fn put_person_in_place(
        &self,
        prepared: &mut PreparedScript<'_>,
        options: &EnterOptions,
        note: Option<&str>,
    ) -> Result<(), BuildError> {
        let sandbox = &mut prepared.sandbox;
        let shell = sandbox.argv.first().cloned().unwrap_or_default();
        let is_bash = shell.ends_with("/bash");
        let text = runner::start_file(
            is_bash,
            self.script.debian_patches && !options.failed,
            &options.preamble,
            (&self.derivation.label, note),
        );
        // The topmost layer is the one that was made for this run.
        let fixups = sandbox.layers.first().cloned().unwrap_or_default();
        let file = fixups.join(START);
        std::fs::write(&file, text).context("write", &file)?;
        sandbox.argv = match (&options.task, is_bash) {
            (Task::Interactive, true) => [&shell, "--noprofile", "--rcfile", &format!("/{START}")]
                .map(str::to_owned)
                .to_vec(),
            (Task::Interactive, false) => vec![shell],
            (Task::Text(text), _) => vec![shell, "-c".to_owned(), format!(". /{START}\n{text}")],
            (Task::Program(argv), _) => {
                let first = [
                    "-c".to_owned(),
                    format!(". /{START}\nexec \"$@\""),
                    "layerize".to_owned(),
                ];
                std::iter::once(shell)
                    .chain(first)
                    .chain(argv.iter().cloned())
                    .collect()
            }
        };
        sandbox.env.retain(|(name, _)| !options.terminal.contains_key(name));
        sandbox.env.extend(options.terminal.clone());
        sandbox
            .env
            .push(("LAYERIZE_SHELL".to_owned(), self.derivation.label.clone()));
        // What shells other than bash read at their start.
        sandbox.env.push(("ENV".to_owned(), format!("/{START}")));
        sandbox.timeout = None;
        sandbox.settings.is_typed_in = true;
        Ok(())
    }

    /// The build directory of the script of this name that failed last.
    fn last_failed(&self) -> Result<Option<PathBuf>, BuildError> {
        let dir = self.store.dir().join("failed");
        if !dir.is_dir() {
            return Ok(None);
        }
        let mut last: Option<(SystemTime, PathBuf)> = None;
        for name in sorted_names(&dir)? {
            let of_this = name.to_str().and_then(|name| name.get(FAILED_CHARS + 1..)) == Some(&self.derivation.name);
            let path = dir.join(&name);
            // One that was removed meanwhile is none.
            let Ok(modified) = path.metadata().and_then(|metadata| metadata.modified()) else {
                continue;
            };
            if of_this && last.as_ref().is_none_or(|(time, _)| *time <= modified) {
                last = Some((modified, path));
            }
        }
        Ok(last.map(|(_, path)| path))
    }

    fn where_it_failed(&self, build: &Path) -> String {
        match failed_command(build, &self.script.script) {
            Some(failed) => match failed.line {
                Some(line) => format!("it failed at line {line}: {}", failed.text),
                None => format!("it failed at: {}", failed.text),
            },
            None => "it failed".to_owned(),
        }
    }
}
