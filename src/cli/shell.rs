//! `layerize shell`: the build environments of packages for people, and shells in images.

use std::path::PathBuf;

use clap::Args;

use crate::build::{self, ShellOptions, ShellPart, StoreProgram, Task};
use crate::spec::{LockScope, PackageName};

use super::complete;
use super::context::{self, Context};
use super::documents;
use super::error::advised;
use super::flags::{BuildFlags, value};
use super::isolated::{self, ShellTask};
use super::outcome::Outcome;
use super::places::Names;
use super::surroundings;
use crate::oci::Platform;
use crate::project::shell::{BuildEntry, shell_parts};
use crate::project::{PlatformChoice, Project, WorkOptions, work};
use crate::store_path::StoreDir;

/// Arguments of `layerize shell`.
#[derive(Debug, Args)]
pub struct ShellArgs {
    /// The packages, whose environments are one; of a spec elsewhere: git+https://…#NAME; or an image, of the spec or a place
    /// (docker://NAME, oci:DIR[:TAG], docker-archive:FILE), for a shell in its own root [default: the only package of each spec]
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
    if let Some(image) = image_of(args, context) {
        return in_image(image, args, context);
    }
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
    if let Some(package) = scriptless(&projects, &chosen) {
        return beside(package, args, context);
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

/// The image that is meant: a place of images, or one of the spec that has no package of its name.
fn image_of<'a>(args: &'a ShellArgs, context: &Context) -> Option<&'a str> {
    let [name] = &args.packages[..] else { return None };
    let project = Project::load(&context.environment).ok();
    let is_package = project.as_ref().is_some_and(|project| {
        let name = PackageName(name.clone());
        project.workspace.packages.contains_key(&name)
    });
    let is_image = project.is_some_and(|project| project.workspace.images.contains_key(name));
    let is_place = documents::finished(&args.packages).is_some();
    (!is_package && (is_image || is_place)).then_some(name.as_str())
}

/// Runs a shell of the image's own in its root.
fn in_image(image: &str, args: &ShellArgs, context: &Context) -> anyhow::Result<Outcome> {
    if args.build || args.pure {
        return Err(advised(
            format!("`{image}` is an image, which has no build, and nothing of yours is in it"),
            "leave out `--build` and `--pure`",
        ));
    }
    let task = match (&args.text, args.program.is_empty()) {
        (Some(text), _) => ShellTask::Text(text),
        (None, false) => ShellTask::Program(&args.program),
        (None, true) => ShellTask::Interactive,
    };
    isolated::shell(image, args.platform.as_ref(), &task, &args.flags, context)
}

/// The only package that is meant, where nothing is run to make it.
fn scriptless<'p>(projects: &'p [Project], chosen: &'p [Vec<PackageName>]) -> Option<&'p PackageName> {
    let all = projects.iter().zip(chosen);
    let all = all.flat_map(|(project, names)| names.iter().map(move |name| (project, name)));
    let all: Vec<(&Project, &PackageName)> = all.collect();
    let [(project, name)] = all[..] else { return None };
    let package = project.package(name)?;
    (!package.is_built()).then_some(name)
}

/// Runs the user's shell on the machine's own root, with the package's programs first on `PATH`: without a script it has no
/// build whose environment there could be.
fn beside(name: &PackageName, args: &ShellArgs, context: &Context) -> anyhow::Result<Outcome> {
    if args.pure {
        return Err(advised(
            format!("the package `{name}` has no script, and so no environment of its own"),
            "leave out `--pure`: the shell is the machine's, with the package at hand",
        ));
    }
    let work = work::prepare_package(&name.0, &args.options(), &context.environment)?;
    let place = StoreDir::layerize().join(&work.path(&work.plan.packages[name]));
    let shell = context::path_variable("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let shell = shell.display().to_string();
    let argv = match (&args.text, args.program.is_empty()) {
        (Some(text), _) => vec![shell, "-c".to_owned(), text.clone()],
        (None, false) => [vec!["/usr/bin/env".to_owned()], args.program.clone()].concat(),
        (None, true) => vec![shell],
    };
    let mut env = context::all_variables();
    let path = env.remove("PATH").unwrap_or_default();
    let variable = name.0.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    env.extend([
        ("PATH".to_owned(), format!("{place}/bin:{path}")),
        (format!("package_{variable}"), place),
        ("LAYERIZE_SHELL".to_owned(), name.0.clone()),
    ]);
    context.ui.clear();
    let program = StoreProgram {
        argv,
        env,
        cwd: context.environment.here.clone(),
        emulator: None,
        helper: None,
    };
    let status = build::run_in_store(&work.store, program)?;
    Ok(Outcome::of_status(status))
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
