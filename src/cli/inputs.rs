//! `layerize inputs`: the files that come from outside, where they are still to be had, and a copy of all of them.
//!
//! Invariant: nothing is built; the lock must be current, as the files are those that it pins.

use clap::{Args, Subcommand, ValueHint};
use indicatif::DecimalBytes;
use serde::Serialize;

use crate::derive::Download;
use crate::fetch::{self, Availability, Survey};
use crate::inputs::InputFile;
use crate::oci::Reference;
use crate::project::{KeepExtent, Project, Target, attach, kept, target};
use crate::spec::{LockScope, PackageName};
use crate::transport::Location;
use crate::transport::registry::{PushOptions, RegistrySink};

use super::complete;
use super::context::Context;
use super::flags::BuildFlags;
use super::outcome::Outcome;
use super::places::Names;

/// Arguments of `layerize inputs`.
#[derive(Debug, Args)]
pub struct InputsArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List every file that comes from outside, build tools included
    List(ListArgs),
    /// Ask every place for every file: exit status 1 if a file is in none of them
    Check(InputsCheckArgs),
    /// Copy all of them, with spec and lock, to an OCI layout or a registry
    Export(ExportArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Images or packages of the spec [default: all]
    #[arg(add = complete::targets())]
    targets: Vec<String>,
    #[command(flatten)]
    flags: BuildFlags,
}

#[derive(Debug, Args)]
struct InputsCheckArgs {
    /// Images or packages of the spec [default: all]
    #[arg(add = complete::targets())]
    targets: Vec<String>,
    #[command(flatten)]
    flags: BuildFlags,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// Where they go: oci:DIR, a directory, or docker://NAME
    #[arg(value_hint = ValueHint::AnyPath)]
    sink: String,
    /// Images or packages of the spec [default: all]
    #[arg(add = complete::targets())]
    targets: Vec<String>,
    /// Local files too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    flags: BuildFlags,
}

impl InputsArgs {
    /// The arguments that may name a spec elsewhere.
    pub fn names(&mut self) -> (Names<'_>, &mut BuildFlags) {
        let (targets, flags) = match &mut self.verb {
            Verb::List(args) => (&mut args.targets, &mut args.flags),
            Verb::Check(args) => (&mut args.targets, &mut args.flags),
            Verb::Export(args) => (&mut args.targets, &mut args.flags),
        };
        (Names::Several(targets), flags)
    }
}

/// Does what the verb says.
pub fn run(args: &InputsArgs, context: &Context) -> anyhow::Result<Outcome> {
    match &args.verb {
        Verb::List(args) => list(args, context),
        Verb::Check(args) => check(args, context),
        Verb::Export(args) => export(args, context),
    }
}

/// The project with a lock that is current, and what the arguments name in it.
fn load(arguments: &[String], flags: &BuildFlags, context: &Context) -> anyhow::Result<(Project, Vec<Target>)> {
    let mut project = Project::load(&context.environment)?;
    let targets = match arguments.is_empty() {
        true => all(&project),
        false => {
            let named = arguments.iter().map(|argument| target::name(argument, &project));
            named.collect::<Result<_, _>>()?
        }
    };
    project.make_lock_current(LockScope::Whole, &flags.options(), &context.environment)?;
    Ok((project, targets))
}

fn all(project: &Project) -> Vec<Target> {
    let images = project.workspace.images.keys().cloned().map(Target::Image);
    let is_tree = |name: &&PackageName| project.workspace.imports.contains_key(&name.0);
    let packages = project.workspace.packages.keys().filter(|name| !is_tree(name));
    let packages = packages.cloned().map(Target::Package);
    images.chain(packages).collect()
}

/// A file as `list` and `check` tell of it.
#[derive(Debug, Serialize)]
struct ListedInput<'a> {
    #[serde(flatten)]
    file: &'a InputFile,
    /// Whether it may be copied to a registry.
    redistribute: bool,
    /// What each place said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    places: Option<&'a [Availability]>,
}

fn list(args: &ListArgs, context: &Context) -> anyhow::Result<Outcome> {
    let (project, targets) = load(&args.targets, &args.flags, context)?;
    let needed = kept::needed(&project, &targets, &context.environment)?;
    let files = needed.files.iter().map(|(file, _)| (file, true));
    let withheld = needed.withheld.iter().map(|(file, _)| (file, false));
    let mut files: Vec<(&InputFile, bool)> = files.chain(withheld).collect();
    files.sort();
    context.ui.clear();
    if context.ui.json() {
        let listed: Vec<ListedInput<'_>> = (files.iter())
            .map(|(file, redistribute)| ListedInput {
                file,
                redistribute: *redistribute,
                places: None,
            })
            .collect();
        context
            .ui
            .data(&serde_json::to_string(&serde_json::json!({ "inputs": listed }))?)?;
        return Ok(Outcome::Done);
    }
    for (file, redistribute) in &files {
        let withheld = if *redistribute { "" } else { "  (may not be copied)" };
        context.ui.data(&format!("{}{withheld}", line(file)))?;
    }
    let total: u64 = files.iter().filter_map(|(file, _)| file.size).sum();
    context
        .ui
        .note(&format!("{} files, {}", files.len(), DecimalBytes(total)));
    Ok(Outcome::Done)
}

/// A file in one line: what it is for, its version, its name, size and digest.
fn line(file: &InputFile) -> String {
    let version = file
        .version
        .as_deref()
        .map_or_else(String::new, |version| format!(" {version}"));
    let size = file
        .size
        .map_or_else(|| "size not known".to_owned(), |size| DecimalBytes(size).to_string());
    format!("{}{version}  {}  {size}  {}", file.name, file.file, file.digest)
}

fn check(args: &InputsCheckArgs, context: &Context) -> anyhow::Result<Outcome> {
    let (project, targets) = load(&args.targets, &args.flags, context)?;
    let needed = kept::needed(&project, &targets, &context.environment)?;
    let all: Vec<&(InputFile, Download)> = needed.files.iter().chain(&needed.withheld).collect();
    let downloads: Vec<&Download> = all.iter().map(|(_, download)| download).collect();
    let options = context
        .environment
        .build_options(&args.flags.options(), Some(&project))?;
    let survey = fetch::survey(&downloads, &options.fetch, context.ui)?;
    context.ui.clear();
    let files: Vec<&InputFile> = all.iter().map(|(file, _)| file).collect();
    match context.ui.json() {
        true => {
            let listed = files
                .iter()
                .zip(&survey.files)
                .enumerate()
                .map(|(at, (file, said))| ListedInput {
                    file,
                    redistribute: at < needed.files.len(),
                    places: Some(said),
                });
            let listed: Vec<ListedInput<'_>> = listed.collect();
            let report = serde_json::json!({ "places": survey.places, "inputs": listed });
            context.ui.data(&serde_json::to_string(&report)?)?;
        }
        false => context.ui.data(render(&files, &survey).trim_end())?,
    }
    let lost = (0..files.len()).any(|file| survey.copies(file) == 0);
    Ok(if lost { Outcome::No } else { Outcome::Done })
}

fn render(files: &[&InputFile], survey: &Survey) -> String {
    let mut text = String::new();
    for (column, place) in survey.places.iter().enumerate() {
        let said = |presence| survey.files.iter().filter(|row| row[column] == presence).count();
        let (there, unknown) = (said(Availability::There), said(Availability::Unknown));
        let asked = files.len() - said(Availability::NotAsked);
        let unclear = match unknown {
            0 => String::new(),
            unknown => format!(", {unknown} without an answer"),
        };
        text += &format!("{there} of {asked} in {place}{unclear}\n");
    }
    let mut counts = [0; 3];
    for (at, file) in files.iter().enumerate() {
        let copies = survey.copies(at).min(2);
        counts[copies] += 1;
        let place = survey.files[at]
            .iter()
            .position(|presence| *presence == Availability::There);
        match (copies, place) {
            (0, _) => text += &format!("NOWHERE  {}\n", line(file)),
            (1, Some(place)) => text += &format!("once     {}: {}\n", line(file), survey.places[place]),
            _ => {}
        }
    }
    let [nowhere, once, more] = counts;
    text + &format!(
        "{} inputs: {more} in several places, {once} in one place only, {nowhere} in none\n",
        files.len()
    )
}

fn export(args: &ExportArgs, context: &Context) -> anyhow::Result<Outcome> {
    let location = match args.sink.parse()? {
        // A directory becomes a layout.
        Location::Path(path) => Location::Layout { path, name: None },
        location => location,
    };
    attach::check_place(&location)?;
    let (project, targets) = load(&args.targets, &args.flags, context)?;
    let extent = if args.all { KeepExtent::All } else { KeepExtent::Outside };
    let keep = kept::of_targets(&project, targets, extent, &args.flags.options(), &context.environment)?;
    let destination = location.to_string();
    let digest = keep.digest();
    match &location {
        Location::Registry(name) => {
            let sink = RegistrySink::new(name, &context.environment.registries, context.ui)?;
            let reference: Reference = name.parse()?;
            let keep = keep.named(reference.tag());
            let sink = sink.options(PushOptions {
                mount_from: keep.repositories(reference.registry()),
                ..PushOptions::default()
            });
            keep.put(&sink, &destination, false)?;
        }
        location => {
            let keep = keep.named(location.name());
            let sink = location.sink(None, &context.environment.registries, context.ui)?;
            keep.put(sink.as_ref(), &destination, false)?;
        }
    }
    context.ui.summary();
    if !context.ui.json() {
        context.ui.data(&format!("{digest} {destination}"))?;
    }
    Ok(Outcome::Done)
}
