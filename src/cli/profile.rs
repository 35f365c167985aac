//! `layerize install`, `uninstall`, `upgrade`, `rollback` and `profile`: programs on the user's `PATH`.
//!
//! Invariant: what is in use changes in one step, or not at all.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::build;
use crate::profile::{Change, DEFAULT_PRIORITY, Generation, Origin, Profile, ProfileError, ProfilePackage, name_of};
use crate::project::{Environment, PlatformChoice, Target, Work, work};
use crate::store::Store;
use crate::store_path::StoreDir;

use super::complete;
use super::context::{self, Context};
use super::error::advised;
use super::flags::BuildFlags;
use super::outcome::Outcome;
use super::text::{duration, span};

/// Arguments of `layerize install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Packages of the spec, or store paths
    #[arg(required = true, value_name = "NAME|PATH", add = complete::packages())]
    targets: Vec<String>,
    /// Which goes first where two packages have a file of one name: the lower [default: 5]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    priority: Option<i32>,
    #[command(flatten)]
    flags: BuildFlags,
}

/// Arguments of `layerize uninstall`.
#[derive(Debug, Args)]
pub struct UninstallArgs {
    /// What `layerize profile list` calls them
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Arguments of `layerize upgrade`.
#[derive(Debug, Args)]
pub struct UpgradeArgs {
    /// What `layerize profile list` calls them [default: all that come from a spec]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    flags: BuildFlags,
}

/// Arguments of `layerize rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The generation [default: the one before the one in use]
    #[arg(value_name = "N")]
    generation: Option<u64>,
}

/// Arguments of `layerize profile`.
#[derive(Debug, Args)]
pub struct ProfileArgs {
    #[command(subcommand)]
    command: ProfileCommand,
}

#[derive(Debug, Subcommand)]
enum ProfileCommand {
    /// List what is installed
    List,
    /// List the generations, and what changed from one to the next
    History,
    /// Remove generations that are not in use; what only they led to goes with the next `layerize store gc`
    WipeHistory {
        /// Keep those of this time, such as 30d
        #[arg(long, value_name = "TIME", value_parser = duration)]
        older_than: Option<u64>,
    },
}

/// Arguments of `layerize __launch`.
#[derive(Debug, Args)]
pub struct LaunchArgs {
    /// The store's directory
    store_dir: PathBuf,
    /// The program's place below `/layerize/store`
    program: String,
    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Installs packages.
pub fn install(args: &InstallArgs, context: &Context) -> anyhow::Result<Outcome> {
    let work = work::prepare_packages_first(
        &args.targets,
        &args.flags.options_for(PlatformChoice::Own),
        &context.environment,
    )?;
    let found: Vec<Found> = work
        .targets
        .iter()
        .map(|target| found(target, &work))
        .collect::<Result<_, _>>()?;
    let profile = context.profile()?;
    let change = change(&profile, &work.store, |packages| {
        for found in &found {
            put(packages, found, args.priority);
        }
        Ok(())
    })?;
    context.ui.clear();
    for found in &found {
        context.ui.data(&StoreDir::layerize().join(&found.path))?;
    }
    tell(&change, &profile, context);
    Ok(Outcome::Done)
}

/// A package to be installed.
struct Found {
    name: String,
    path: crate::store_path::StorePath,
    origin: Option<Origin>,
}

fn found(target: &Target, work: &Work) -> anyhow::Result<Found> {
    match target {
        Target::Package(name) => Ok(Found {
            name: name.0.clone(),
            path: work.path(&work.plan.packages[name]),
            // A spec's first file is its own.
            origin: (work
                .project
                .as_ref()
                .and_then(|project| project.workspace.files.first()))
            .map(|file| Origin {
                spec: file.path.clone(),
                target: name.0.clone(),
            }),
        }),
        Target::Path(path) => Ok(Found {
            name: name_of(path),
            path: path.clone(),
            origin: None,
        }),
        Target::Image(name) => Err(advised(
            format!("`{name}` is an image, and packages are installed"),
            format!("name a package of its `contents`; `layerize run {name}` runs the image"),
        )),
        Target::Nix(path) => Err(advised(
            format!("`{}` is a path of a Nix store", StoreDir::nix().join(path)),
            "install it with Nix: `nix profile install`",
        )),
    }
}

/// Puts a package in place of the one of its name.
fn put(packages: &mut Vec<ProfilePackage>, found: &Found, priority: Option<i32>) {
    let before = packages.iter().find(|package| package.name == found.name);
    let before = before.map_or(DEFAULT_PRIORITY, |package| package.priority);
    packages.retain(|package| package.name != found.name);
    packages.push(ProfilePackage {
        name: found.name.clone(),
        path: found.path.clone(),
        priority: priority.unwrap_or(before),
        origin: found.origin.clone(),
    });
}

fn change(
    profile: &Profile,
    store: &Store,
    change: impl FnOnce(&mut Vec<ProfilePackage>) -> Result<(), ProfileError>,
) -> anyhow::Result<Change> {
    let launcher = std::env::current_exe().context("cannot tell where this program is")?;
    Ok(profile.change(store, &launcher, change)?)
}

/// Says which generation is in use, and how its programs are found.
fn tell(change: &Change, profile: &Profile, context: &Context) {
    let before = change
        .previous
        .map_or(String::new(), |before| format!(" (before: {before})"));
    context.ui.note(&format!(
        "Generation {} of the profile is in use{before}.",
        change.generation
    ));
    let bin = profile.bin();
    let path = context::text_variable("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|dir| dir == bin) {
        let share = profile.link().join("share");
        context.ui.note(&format!(
            "Its programs are found with `export PATH=\"{}:$PATH\"`, completions with `export XDG_DATA_DIRS=\"{}:\
             ${{XDG_DATA_DIRS:-/usr/local/share:/usr/share}}\"`.",
            bin.display(),
            share.display()
        ));
    }
}

/// Takes packages out.
pub fn uninstall(args: &UninstallArgs, context: &Context) -> anyhow::Result<Outcome> {
    let profile = context.profile()?;
    let store = context.environment.store()?;
    let change = change(&profile, &store, |packages| {
        for name in &args.names {
            named(packages, name)?;
            packages.retain(|package| package.name != *name);
        }
        Ok(())
    })?;
    tell(&change, &profile, context);
    Ok(Outcome::Done)
}

fn named<'p>(packages: &'p [ProfilePackage], name: &str) -> Result<&'p ProfilePackage, ProfileError> {
    let found = packages.iter().find(|package| package.name == name);
    found.ok_or_else(|| ProfileError::NotInstalled {
        name: name.to_owned(),
        known: packages.iter().map(|package| package.name.clone()).collect(),
    })
}

/// Builds what comes from specs anew.
pub fn upgrade(args: &UpgradeArgs, context: &Context) -> anyhow::Result<Outcome> {
    let profile = context.profile()?;
    let current = profile.current()?.ok_or_else(|| ProfileError::Empty {
        profile: profile.link(),
    })?;
    let packages = &current.manifest.packages;
    let mut of_specs: BTreeMap<&Path, Vec<&ProfilePackage>> = BTreeMap::new();
    for name in &args.names {
        if named(packages, name)?.origin.is_none() {
            return Err(advised(
                format!("`{name}` was installed as a store path, of which there is nothing newer"),
                format!("install it from its spec: `layerize install {name}`"),
            ));
        }
    }
    for package in packages {
        let is_meant = args.names.is_empty() || args.names.contains(&package.name);
        if let Some(origin) = package.origin.as_ref().filter(|_| is_meant) {
            of_specs.entry(&origin.spec).or_default().push(package);
        }
    }
    // What was built stays in use until the generation has it.
    let mut works = Vec::new();
    for (spec, packages) in of_specs {
        let environment = Environment {
            file: Some(spec.to_owned()),
            here: spec.parent().unwrap_or(spec).to_owned(),
            ..context.environment.clone()
        };
        let targets = packages
            .iter()
            .filter_map(|package| Some(package.origin.as_ref()?.target.clone()));
        let targets: Vec<String> = targets.collect();
        let work = work::prepare_packages_first(&targets, &args.flags.options_for(PlatformChoice::Own), &environment);
        let work = work.with_context(|| format!("cannot upgrade `{}`", targets.join("`, `")))?;
        let found: Vec<Found> = work
            .targets
            .iter()
            .map(|target| found(target, &work))
            .collect::<Result<_, _>>()?;
        let names = packages.iter().map(|package| package.name.clone());
        let found = names
            .zip(found)
            .map(|(name, found)| Found { name, ..found })
            .collect::<Vec<_>>();
        works.push((work, found));
    }
    let store = context.environment.store()?;
    let change = change(&profile, &store, |packages| {
        for found in works.iter().flat_map(|(_, found)| found) {
            // One that was taken out meanwhile stays out.
            if packages.iter().any(|package| package.name == found.name) {
                put(packages, found, None);
            }
        }
        Ok(())
    })?;
    context.ui.clear();
    if change.previous.is_none() {
        context.ui.note("Nothing has changed.");
        return Ok(Outcome::Done);
    }
    let now = profile.current()?;
    for line in now.iter().flat_map(|now| differences(Some(&current), now)) {
        context.ui.data(&line)?;
    }
    tell(&change, &profile, context);
    Ok(Outcome::Done)
}

/// Goes back.
pub fn rollback(args: &RollbackArgs, context: &Context) -> anyhow::Result<Outcome> {
    let profile = context.profile()?;
    let change = profile.roll_back(&context.environment.store()?, args.generation)?;
    tell(&change, &profile, context);
    Ok(Outcome::Done)
}

/// Shows the profile, or removes what is old of it.
pub fn run(args: &ProfileArgs, context: &Context) -> anyhow::Result<Outcome> {
    let profile = context.profile()?;
    match &args.command {
        ProfileCommand::List => list(&profile, context)?,
        ProfileCommand::History => history(&profile, context)?,
        ProfileCommand::WipeHistory { older_than } => {
            let limit = older_than.map(context::ago);
            let store = context.environment.store()?;
            let removed = profile.wipe(&store, |generation| limit.is_none_or(|limit| generation.made < limit))?;
            for number in &removed {
                context.ui.data(&number.to_string())?;
            }
            let than = older_than.map_or(String::new(), |seconds| format!(" older than {}", span(seconds)));
            context
                .ui
                .note(&format!("{} generations{than} removed.", removed.len()));
        }
    }
    Ok(Outcome::Done)
}

fn list(profile: &Profile, context: &Context) -> anyhow::Result<()> {
    let current = profile.current()?;
    let packages = current.map(|current| current.manifest.packages).unwrap_or_default();
    for package in &packages {
        let path = StoreDir::layerize().join(&package.path);
        let spec = package.origin.as_ref().map(|origin| origin.spec.display().to_string());
        let line = match context.ui.json() {
            true => json!({
                "name": package.name, "path": path, "priority": package.priority, "spec": spec,
            })
            .to_string(),
            false => format!("{}\t{path}\t{}", package.name, spec.as_deref().unwrap_or("-")),
        };
        context.ui.data(&line)?;
    }
    if packages.is_empty() {
        context.ui.note("Nothing is installed.");
    }
    Ok(())
}

fn history(profile: &Profile, context: &Context) -> anyhow::Result<()> {
    let current = profile.current()?.map(|current| current.number);
    let mut before: Option<Generation> = None;
    for generation in profile.generations()? {
        let is_current = Some(generation.number) == current;
        let changes = differences(before.as_ref(), &generation);
        if context.ui.json() {
            let value = json!({ "generation": generation.number, "current": is_current, "changes": changes });
            context.ui.data(&value.to_string())?;
        } else {
            let mark = if is_current { " (in use)" } else { "" };
            context.ui.data(&format!("generation {}{mark}", generation.number))?;
            for change in changes {
                context.ui.data(&format!("  {change}"))?;
            }
        }
        before = Some(generation);
    }
    Ok(())
}

/// What changed from one generation to another, a line a package.
fn differences(before: Option<&Generation>, after: &Generation) -> Vec<String> {
    let packages = |generation: &Generation| -> BTreeMap<String, String> {
        let packages = generation.manifest.packages.iter();
        packages
            .map(|package| (package.name.clone(), package.path.to_string()))
            .collect()
    };
    let (before, after) = (before.map(packages).unwrap_or_default(), packages(after));
    let gone = before.iter().filter(|(name, _)| !after.contains_key(*name));
    let mut lines: Vec<String> = gone.map(|(name, path)| format!("- {name} {path}")).collect();
    for (name, path) in &after {
        match before.get(name) {
            None => lines.push(format!("+ {name} {path}")),
            Some(old) if old != path => lines.push(format!("~ {name} {old} -> {path}")),
            Some(_) => {}
        }
    }
    lines
}

/// Becomes a program of the store where the store is at its place; what is given is why not. To be called before signals are
/// taken out of anybody's hands. `arguments` are those of `__launch`.
pub fn become_program(arguments: &[OsString]) -> Option<anyhow::Error> {
    let [store_dir, program, rest @ ..] = arguments else {
        return None;
    };
    let place = Path::new(StoreDir::LAYERIZE).canonicalize().ok()?;
    if place != Path::new(store_dir).join("store").canonicalize().ok()? {
        return None;
    }
    let error = std::process::Command::new(program).args(rest).exec();
    let failed = anyhow::Error::new(error);
    Some(failed.context(format!("cannot start `{}`", Path::new(program).display())))
}

/// Starts a program of the store with the store at its place.
pub fn launch(args: &LaunchArgs, context: &Context) -> anyhow::Result<Outcome> {
    let store = Store::open(&args.store_dir)?;
    let argv = std::iter::once(args.program.clone()).chain(args.arguments.iter().cloned());
    let here = context.environment.here.clone();
    let status = build::run_in_store(&store, argv.collect(), context::all_variables(), here, None)?;
    Ok(Outcome::of_status(status))
}
