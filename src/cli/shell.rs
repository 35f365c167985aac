//! `layerize shell`: the build environment of a package, for people.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use clap::Args;

use crate::build::{self, Activation, ShellOptions, ShellUser};
use crate::derive::{self, BuildPlan, Input};
use crate::event::Silent;
use crate::spec::{LockScope, PackageName, Source};

use super::complete;
use super::context::{self, Context};
use super::error::advised;
use super::flags::BuildFlags;
use super::outcome::Outcome;
use crate::project::Project;
use crate::project::Target;
use crate::project::target;

/// Variables that a shell takes over from the terminal it is in.
const TERMINAL_VARIABLES: [&str; 4] = ["TERM", "COLORTERM", "LANG", "EDITOR"];

/// Arguments of `layerize shell`.
#[derive(Debug, Args)]
pub struct ShellArgs {
    /// The package [default: the spec's only one]
    #[arg(add = complete::packages())]
    package: Option<String>,
    /// A command instead of an interactive shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Only the project: no home directory, no start files
    #[arg(long)]
    pure: bool,
    #[command(flatten)]
    flags: BuildFlags,
}

/// Realises the package's tools and libraries, and runs a shell among them.
pub fn run(args: &ShellArgs, context: &Context) -> anyhow::Result<Outcome> {
    let store = context.environment.store()?;
    let mut project = Project::load(&context.environment)?;
    let package = package(args.package.as_deref(), &project)?;
    project.make_lock_current(LockScope::Whole, &args.flags.options(), &context.environment)?;
    let plan = project.plan(&store, &project.add_sources(&store, &Silent)?)?;
    let script = derive::shell(&project.workspace, &project.lock, &plan, &package)?;
    let inputs: Vec<Input> = script.inputs().into_iter().cloned().collect();
    let options = args.flags.options();
    let options = context.environment.build_options(&options, Some(&project))?;
    let paths = build::realise(&store, &plan, &inputs, &options, context.ui)?;
    context.ui.clear();
    let cwd = std::env::current_dir().context("cannot tell the current directory")?;
    // The shell starts where the user is; where that is outside the project, at the project.
    let cwd = if cwd.starts_with(&project.dir) {
        cwd
    } else {
        project.dir.clone()
    };
    let options = ShellOptions {
        command: args.command.clone(),
        pure: args.pure,
        project: project.dir.clone(),
        cwd,
        user: ShellUser {
            name: context::text_variable("USER").unwrap_or_else(|| "user".to_owned()),
            home: context::path_variable("HOME").unwrap_or_else(|| "/".into()),
        },
        activate: activation(&package, &project, &plan),
        env: terminal_variables(),
        helper: None,
    };
    Ok(Outcome::of_status(build::shell(&store, &script, &paths, &options)?))
}

/// What brings the dependencies of the package's language into the shell.
fn activation(package: &PackageName, project: &Project, plan: &BuildPlan) -> Option<Activation> {
    let language = plan.languages.get(package)?;
    let script = &language.shell.activate;
    let package = project.workspace.packages.get(package)?;
    match &package.source.as_ref()?.value {
        Source::Path { path, .. } if !script.is_empty() => Some(Activation {
            script: script.clone(),
            source: package.dir.join(path),
            views: language.shell.views.clone(),
        }),
        _ => None,
    }
}

/// The variables that make a program feel at home in the user's terminal.
pub fn terminal_variables() -> BTreeMap<String, String> {
    TERMINAL_VARIABLES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), context::text_variable(name)?)))
        .collect()
}

/// The package that is meant: the one named, or the only one of the file.
fn package(name: Option<&str>, project: &Project) -> anyhow::Result<PackageName> {
    if let Some(name) = name {
        return match target::package(name, project)? {
            Target::Package(package) => Ok(package),
            _ => Err(advised(
                format!("`{name}` is not a package"),
                "a shell is the build environment of a package",
            )),
        };
    }
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
