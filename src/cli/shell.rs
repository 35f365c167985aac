//! `layerize shell`: the build environments of packages, for people.

use std::path::PathBuf;

use clap::Args;

use crate::build::{self, ShellOptions, ShellPart, Task};
use crate::spec::{LockScope, PackageName};

use super::complete;
use super::context::{self, Context};
use super::error::advised;
use super::flags::{BuildFlags, value};
use super::outcome::Outcome;
use super::places::Names;
use super::surroundings;
use crate::oci::Platform;
use crate::project::shell::{BuildEntry, shell_parts};
use crate::project::{PlatformChoice, Project, WorkOptions};

/// Arguments of `layerize shell`.
#[derive(Debug, Args)]
pub struct ShellArgs {
    /// The packages, whose environments are one; of a spec elsewhere: git+https://…#NAME [default: the only one of each spec]
    #[arg(add = complete::packages())]
    packages: Vec<String>,
    /// Run a text of the shell's language instead of an interactive shell
    #[arg(short = 'c', long = "command", value_name = "TEXT", conflicts_with = "program")]
    text: Option<String>,
    /// A program with its arguments instead of an interactive shell
    #[arg(last = true, value_name = "COMMAND")]
    program: Vec<String>,
    /// Only the project: no home directory, no start files, no variables of yours, no programs of the machine
    #[arg(long)]
    pure: bool,
    /// Stand in a build's sandbox just before its script runs
    #[arg(long, conflicts_with = "pure")]
    build: bool,
    /// With `--build`: where a build that failed under `--keep-failed` has left off
    #[arg(long, requires = "build")]
    failed: bool,
    /// For which platform the packages are, of those that images with them are for [default: the spec's own]
    #[arg(long, value_name = "OS/ARCH", value_parser = value::<Platform>)]
    platform: Option<Platform>,
    #[command(flatten)]
    flags: BuildFlags,
}

impl ShellArgs {
    /// The arguments that may name a spec elsewhere.
    pub fn names(&mut self) -> (Names<'_>, &mut BuildFlags) {
        (Names::Packages(&mut self.packages), &mut self.flags)
    }
}

/// Realises the packages' tools and libraries, and runs a shell among them.
pub fn run(args: &ShellArgs, context: &Context) -> anyhow::Result<Outcome> {
    let store = context.environment.store()?;
    let options = args.options();
    let mut projects = context
        .environments()
        .iter()
        .map(Project::load)
        .collect::<Result<Vec<_>, _>>()?;
    surroundings::bring_imports(&args.packages, &mut projects, &options, &context.environments())?;
    let chosen = surroundings::choose(&args.packages, &projects)?;
    if args.build {
        return enter(args, projects, chosen, context);
    }
    let mut parts: Vec<ShellPart> = Vec::new();
    for ((project, packages), environment) in projects.iter_mut().zip(chosen).zip(context.environments()) {
        project.make_lock_current(LockScope::Whole, &options, &environment)?;
        parts.extend(shell_parts(project, &packages, &store, &options, &environment)?);
    }
    context.ui.clear();
    let user = surroundings::user();
    let dirs: Vec<PathBuf> = match context.environment.elsewhere {
        // One's own files are to be worked on, by the environment of others.
        Some(_) => vec![context.environment.here.clone()],
        None => projects.iter().map(|project| project.dir.clone()).collect(),
    };
    let options = ShellOptions {
        task: args.task(),
        pure: args.pure,
        cwd: surroundings::start(
            &context.environment.here,
            &dirs,
            (!args.pure).then_some(user.home.as_path()),
        ),
        projects: dirs,
        user,
        caller: context::all_variables(),
        links: Some(context.environment.links_dir()),
        helper: None,
    };
    Ok(Outcome::of_status(build::shell(&store, &parts, &options)?))
}

impl ShellArgs {
    fn options(&self) -> WorkOptions {
        let platform = self.platform.iter().cloned();
        match &self.platform {
            Some(_) => self.flags.options_for(PlatformChoice::These(platform.collect())),
            None => self.flags.options(),
        }
    }

    fn task(&self) -> Task {
        match (&self.text, self.program.is_empty()) {
            (Some(text), _) => Task::Text(text.clone()),
            (None, false) => Task::Program(self.program.clone()),
            (None, true) => Task::Interactive,
        }
    }
}

/// Stands in the sandbox of the only package's build.
fn enter(
    args: &ShellArgs,
    projects: Vec<Project>,
    chosen: Vec<Vec<PackageName>>,
    context: &Context,
) -> anyhow::Result<Outcome> {
    let all: Vec<(Project, PackageName)> = (projects.into_iter().zip(chosen))
        .filter_map(|(project, mut packages)| (packages.len() == 1).then_some(project).zip(packages.pop()))
        .collect();
    let Ok([(mut project, package)]) = <[_; 1]>::try_from(all) else {
        return Err(advised("a build is entered one at a time", "name one package"));
    };
    let options = args.options();
    project.make_lock_current(LockScope::Builds, &options, &context.environment)?;
    let terminal = ["TERM", "COLORTERM"].into_iter();
    let terminal = terminal
        .filter_map(|name| Some((name.to_owned(), context::text_variable(name)?)))
        .collect();
    let entry = BuildEntry::prepare(&project, &package, &options, &context.environment)?;
    context.ui.clear();
    let status = entry.enter(args.task(), args.failed, terminal, context.ui)?;
    Ok(Outcome::of_status(status))
}
