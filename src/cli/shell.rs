//! `layerize shell`: the build environments of packages, for people.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::build::{self, ShellOptions, ShellPart, ShellUser, Task};
use crate::spec::{LockScope, PackageName};

use super::complete;
use super::context::{self, Context};
use super::error::advised;
use super::flags::BuildFlags;
use super::outcome::Outcome;
use crate::project::Project;
use crate::project::Target;
use crate::project::shell::{BuildEntry, shell_parts};
use crate::project::target;

/// Arguments of `layerize shell`.
#[derive(Debug, Args)]
pub struct ShellArgs {
    /// The packages, whose environments are one [default: the only one of each spec]
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
    #[command(flatten)]
    flags: BuildFlags,
}

/// Realises the packages' tools and libraries, and runs a shell among them.
pub fn run(args: &ShellArgs, context: &Context) -> anyhow::Result<Outcome> {
    let store = context.environment.store()?;
    let options = args.flags.options();
    let mut projects = context
        .environments()
        .iter()
        .map(Project::load)
        .collect::<Result<Vec<_>, _>>()?;
    let chosen = choose(&args.packages, &projects)?;
    if args.build {
        return enter(args, projects, chosen, context);
    }
    let mut parts: Vec<ShellPart> = Vec::new();
    for ((project, packages), environment) in projects.iter_mut().zip(chosen).zip(context.environments()) {
        project.make_lock_current(LockScope::Whole, &options, &environment)?;
        parts.extend(shell_parts(project, &packages, &store, &options, &environment)?);
    }
    context.ui.clear();
    let user = ShellUser {
        name: context::text_variable("USER").unwrap_or_else(|| "user".to_owned()),
        home: context::path_variable("HOME").unwrap_or_else(|| "/".into()),
        shell: context::path_variable("SHELL"),
    };
    let dirs: Vec<PathBuf> = projects.iter().map(|project| project.dir.clone()).collect();
    let options = ShellOptions {
        task: args.task(),
        pure: args.pure,
        cwd: start(
            &context.environment.here,
            &dirs,
            (!args.pure).then_some(user.home.as_path()),
        ),
        projects: dirs,
        user,
        caller: context::all_variables(),
        helper: None,
    };
    Ok(Outcome::of_status(build::shell(&store, &parts, &options)?))
}

impl ShellArgs {
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
    let options = args.flags.options();
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

/// A shell starts where the user is; where that is not seen, at the project.
fn start(here: &Path, projects: &[PathBuf], home: Option<&Path>) -> PathBuf {
    let is_seen = |dir: &Path| dir != Path::new("/") && here.starts_with(dir);
    match projects.first() {
        Some(first) if !projects.iter().any(|dir| is_seen(dir)) && !home.is_some_and(is_seen) => first.clone(),
        _ => here.to_owned(),
    }
}

/// The packages of each project that are meant: those named, or the only one of each.
fn choose(names: &[String], projects: &[Project]) -> anyhow::Result<Vec<Vec<PackageName>>> {
    if names.is_empty() {
        return projects.iter().map(|project| Ok(vec![only(project)?])).collect();
    }
    let mut chosen = vec![Vec::new(); projects.len()];
    for name in names {
        let mut found = projects.iter().map(|project| package(name, project));
        let index = (0..projects.len()).find_map(|index| Some((index, found.next()?.ok()?)));
        match index {
            Some((index, package)) => chosen[index].push(package),
            None => return Err(package(name, &projects[0]).expect_err("no project has it")),
        }
    }
    Ok(chosen)
}

fn package(name: &str, project: &Project) -> anyhow::Result<PackageName> {
    match target::package(name, project).map_err(anyhow::Error::from)? {
        Target::Package(package) => Ok(package),
        _ => Err(advised(
            format!("`{name}` is not a package"),
            "a shell is the build environment of a package",
        )),
    }
}

/// The only package of a spec.
fn only(project: &Project) -> anyhow::Result<PackageName> {
    let own: BTreeSet<&PackageName> = project
        .workspace
        .packages
        .keys()
        .filter(|name| !name.0.contains(':'))
        .collect();
    match own.len() {
        1 => Ok(own.into_iter().next().cloned().expect("there is one")),
        _ => Err(advised(
            format!("this spec has {} packages", own.len()),
            format!(
                "name one: {}",
                own.iter().map(|name| name.0.as_str()).collect::<Vec<_>>().join(", ")
            ),
        )),
    }
}
