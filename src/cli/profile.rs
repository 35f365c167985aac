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

use crate::build::{self, StoreProgram};
use crate::profile::{Change, DEFAULT_PRIORITY, Generation, Origin, Profile, ProfileError, ProfilePackage, name_of};
use crate::project::spec_place::SpecPlace;
use crate::project::{Environment, PlatformChoice, Project, Target, Work, work};
use crate::store::Store;
use crate::store_path::{StoreDir, StorePath};

use super::complete;
use super::context::{self, Context};
use super::error::{self, advised};
use super::flags::BuildFlags;
use super::outcome::Outcome;
use super::places::Names;
use super::programs;
use super::text::{duration, span};

/// Arguments of `layerize install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Packages of the spec, or of one elsewhere (git+https://…#NAME), or store paths
    #[arg(required = true, value_name = "NAME|PATH", add = complete::packages())]
    targets: Vec<String>,
    /// Which goes first where two packages have a file of one name: the lower [default: 5]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    priority: Option<i32>,
    #[command(flatten)]
    flags: BuildFlags,
}

impl InstallArgs {
    /// The arguments that may name a spec elsewhere.
    pub fn names(&mut self) -> (Names<'_>, &mut BuildFlags) {
        (Names::Packages(&mut self.targets), &mut self.flags)
    }
}

/// Arguments of `layerize uninstall`.
#[derive(Debug, Args)]
pub struct UninstallArgs {
    /// What `layerize profile list` calls them
    #[arg(required = true, value_name = "NAME", add = complete::installed())]
    names: Vec<String>,
}

/// Arguments of `layerize upgrade`.
#[derive(Debug, Args)]
pub struct UpgradeArgs {
    /// What `layerize profile list` calls them [default: all that come from a spec]
    #[arg(value_name = "NAME", add = complete::installed())]
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
    programs::check_installable(&args.targets)?;
    let work = work::prepare_packages_first(
        &args.targets,
        &args.flags.options_for(PlatformChoice::Own),
        &context.environment,
    )?;
    programs::check_native(&args.targets, &work, &context.environment)?;
    let found: Vec<Found> = work
        .targets
        .iter()
        .map(|target| found(target, &work, &context.environment))
        .collect::<Result<_, _>>()?;
    let profile = context.profile()?;
    let change = change(&profile, &work.store, |packages| {
        for found in &found {
            put(packages, found, args.priority);
        }
        Ok(())
    })?;
    context.ui.clear();
    if context.ui.json() {
        let mut value = result(&change, &profile);
        let packages = found.iter();
        value["packages"] = packages
            .map(|found| json!({ "name": found.name, "path": StoreDir::layerize().join(&found.path) }))
            .collect();
        context.ui.data(&value.to_string())?;
        return Ok(Outcome::Done);
    }
    for found in &found {
        context.ui.data(&StoreDir::layerize().join(&found.path))?;
    }
    tell(&change, &profile, context);
    Ok(Outcome::Done)
}

/// A package to be installed.
struct Found {
    name: String,
    path: StorePath,
    origin: Option<Origin>,
}

fn found(target: &Target, work: &Work, environment: &Environment<'_>) -> anyhow::Result<Found> {
    // A spec's first file is its own.
    let file = |project: &Project| Some(project.workspace.files.first()?.path.clone());
    let spec = || match &environment.elsewhere {
        Some(elsewhere) => Some(PathBuf::from(&elsewhere.place)),
        None => work.project.as_ref().and_then(file),
    };
    match target {
        Target::Package(name) => Ok(Found {
            name: name.0.clone(),
            path: work.path(&work.plan.packages[name]),
            origin: spec().map(|spec| Origin {
                spec,
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

/// What a change did, for programs.
fn result(change: &Change, profile: &Profile) -> serde_json::Value {
    json!({
        "generation": change.generation,
        "previous": change.previous,
        "bin": profile.bin().display().to_string(),
    })
}

/// Says what a change did, where there is no more to it.
fn tell_result(change: &Change, profile: &Profile, context: &Context) -> anyhow::Result<Outcome> {
    match context.ui.json() {
        true => context.ui.data(&result(change, profile).to_string())?,
        false => tell(change, profile, context),
    }
    Ok(Outcome::Done)
}

/// A path as it stands between double quotes of a shell.
fn in_double_quotes(path: &Path) -> String {
    let mut text = String::new();
    for c in path.display().to_string().chars() {
        if "\"$`\\".contains(c) {
            text.push('\\');
        }
        text.push(c);
    }
    text
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
            in_double_quotes(&bin),
            in_double_quotes(&share)
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
    tell_result(&change, &profile, context)
}

fn named<'p>(packages: &'p [ProfilePackage], name: &str) -> Result<&'p ProfilePackage, ProfileError> {
    let found = packages.iter().find(|package| package.name == name);
    found.ok_or_else(|| ProfileError::NotInstalled {
        name: name.to_owned(),
        known: packages.iter().map(|package| package.name.clone()).collect(),
    })
}

/// Builds what comes from specs anew. A project where that fails does not keep the others from it.
pub fn upgrade(args: &UpgradeArgs, context: &Context) -> anyhow::Result<Outcome> {
    let profile = context.profile()?;
    let current = profile.current()?.ok_or_else(|| ProfileError::Empty {
        profile: profile.link(),
    })?;
    let (mut works, mut failed) = (Vec::new(), Vec::new());
    for (spec, packages) in of_specs(&current.manifest.packages, &args.names)? {
        match built_anew(spec, &packages, &args.flags, context) {
            // What was built stays in use until the generation has it.
            Ok(built) => works.push(built),
            Err(error) if crate::child::is_ended() => return Err(error),
            Err(error) => {
                tell_failed(error, spec, &packages, context);
                failed.extend(packages.iter().map(|package| package.name.clone()));
            }
        }
    }
    let outcome = match failed.is_empty() {
        true => Outcome::Done,
        false => Outcome::Status(2),
    };
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
    let now = profile.current()?.filter(|_| change.previous.is_some());
    let changes = now.map_or_else(Vec::new, |now| differences(Some(&current), &now));
    if context.ui.json() {
        let mut value = result(&change, &profile);
        value["changes"] = json!(changes);
        value["failed"] = json!(failed);
        context.ui.data(&value.to_string())?;
        return Ok(outcome);
    }
    if change.previous.is_none() {
        context.ui.note("Nothing has changed.");
        return Ok(outcome);
    }
    for line in &changes {
        context.ui.data(line)?;
    }
    tell(&change, &profile, context);
    Ok(outcome)
}

/// The packages that are meant, by the spec that they come from: with their origin.
fn of_specs<'p>(
    packages: &'p [ProfilePackage],
    names: &[String],
) -> anyhow::Result<BTreeMap<&'p Path, Vec<&'p ProfilePackage>>> {
    for name in names {
        if named(packages, name)?.origin.is_none() {
            return Err(advised(
                format!("`{name}` was installed as a store path, of which there is nothing newer"),
                format!("install it from its spec: `layerize install {name}`"),
            ));
        }
    }
    let mut of_specs: BTreeMap<&Path, Vec<&ProfilePackage>> = BTreeMap::new();
    for package in packages {
        let is_meant = names.is_empty() || names.contains(&package.name);
        if let Some(origin) = package.origin.as_ref().filter(|_| is_meant) {
            of_specs.entry(&origin.spec).or_default().push(package);
        }
    }
    Ok(of_specs)
}

/// What a spec makes of these packages now.
fn built_anew(
    spec: &Path,
    packages: &[&ProfilePackage],
    flags: &BuildFlags,
    context: &Context,
) -> anyhow::Result<(Work, Vec<Found>)> {
    let mut options = flags.options_for(PlatformChoice::Own);
    let environment = match spec
        .to_str()
        .and_then(|text| SpecPlace::parse(text, spec))
        .transpose()?
    {
        Some((place, _)) => {
            options.locked = true;
            let fetched = place.fetch(&options, &context.environment)?;
            context.environment.clone().with_place(fetched)
        }
        None => Environment {
            file: Some(spec.to_owned()),
            here: spec.parent().unwrap_or(spec).to_owned(),
            ..context.environment.clone()
        },
    };
    let targets = packages
        .iter()
        .filter_map(|package| Some(package.origin.as_ref()?.target.clone()));
    let targets: Vec<String> = targets.collect();
    let work = work::prepare_packages_first(&targets, &options, &environment)?;
    programs::check_native(&targets, &work, &environment)?;
    let found: Vec<Found> = work
        .targets
        .iter()
        .map(|target| found(target, &work, &environment))
        .collect::<Result<_, _>>()?;
    let names = packages.iter().map(|package| package.name.clone());
    let found = names.zip(found).map(|(name, found)| Found { name, ..found });
    let found = found.collect();
    Ok((work, found))
}

/// Says that packages of a spec stay as they are, why, and what to do about it.
fn tell_failed(error: anyhow::Error, spec: &Path, packages: &[&ProfilePackage], context: &Context) {
    let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let is_place = spec.to_str().is_some_and(|text| SpecPlace::parse(text, spec).is_some());
    let folder = if is_place { spec } else { spec.parent().unwrap_or(spec) }.display();
    let what = format!("cannot upgrade `{}` of the project `{folder}`", names.join("`, `"));
    error::show(&error.context(what.clone()), context.ui);
    let targets = packages.iter().filter_map(|package| package.origin.as_ref());
    let targets: Vec<&str> = targets.map(|origin| origin.target.as_str()).collect();
    // Mistakes in a spec are shown without what was being done.
    context.ui.lines(&format!(
        "{} {what}: where the project is elsewhere now, `layerize install {} -f NEW/layerize.toml`; to be without, \
         `layerize uninstall {}`",
        context.ui.paint("help:", "1;36"),
        targets.join(" "),
        names.join(" ")
    ));
}

/// Goes back.
pub fn rollback(args: &RollbackArgs, context: &Context) -> anyhow::Result<Outcome> {
    let profile = context.profile()?;
    let change = profile.roll_back(&context.environment.store()?, args.generation)?;
    tell_result(&change, &profile, context)
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
            let removed = profile.wipe(&store, |made| limit.is_none_or(|limit| made < limit))?;
            if context.ui.json() {
                let value = json!({ "generation": profile.current_number()?, "removed": removed });
                context.ui.data(&value.to_string())?;
                return Ok(Outcome::Done);
            }
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
    let current = profile.current_number()?;
    let generations = profile.generations()?;
    let of_number: BTreeMap<u64, &Generation> = generations
        .iter()
        .filter_map(|(number, generation)| Some((*number, generation.as_ref().ok()?)))
        .collect();
    for (number, generation) in &generations {
        let is_current = Some(*number) == current;
        let made_from = generation
            .as_ref()
            .ok()
            .and_then(|generation| generation.manifest.made_from);
        let before = made_from.and_then(|number| of_number.get(&number).copied());
        let changes = generation
            .as_ref()
            .map_or_else(|_| Vec::new(), |generation| differences(before, generation));
        let damage = generation.as_ref().err().map(ToString::to_string);
        if context.ui.json() {
            let value = json!({
                "generation": number, "current": is_current, "made_from": made_from, "changes": changes, "damage": damage,
            });
            context.ui.data(&value.to_string())?;
            continue;
        }
        let mark = if is_current { " (in use)" } else { "" };
        let from = match made_from {
            // As one expects.
            Some(from) if from + 1 != *number => format!(", made from {from}"),
            _ => String::new(),
        };
        context.ui.data(&format!("generation {number}{mark}{from}"))?;
        for line in changes
            .into_iter()
            .chain(damage.map(|damage| format!("damaged: {damage}")))
        {
            context.ui.data(&format!("  {line}"))?;
        }
    }
    if let Some(gone) = current.filter(|&current| generations.iter().all(|(number, _)| *number != current)) {
        context.ui.note(&format!(
            "Generation {gone} is in use, and it is gone: `layerize help profiles`"
        ));
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
    let program = StoreProgram {
        argv: argv.collect(),
        env: context::all_variables(),
        cwd: here,
        ..StoreProgram::default()
    };
    let status = build::run_in_store(&store, program)?;
    Ok(Outcome::of_status(status))
}
