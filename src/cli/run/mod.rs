//! `layerize run`: a program of a package or of an image on this machine, with the store where its paths say it is, or of an
//! image in its own root.

mod image;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use crate::build;
use crate::store_path::{LogicalPath, StoreDir};

use super::complete;
use super::context::{self, Context};
use super::documents;
use super::error::advised;
use super::flags::BuildFlags;
use super::outcome::Outcome;
use crate::project;
use crate::project::work;
use crate::project::{ImageOptions, Project, Target, Work};

/// Arguments of `layerize run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A package or image of the spec, a store path, or a place of images: docker-archive:FILE, oci:DIR[:TAG], docker://NAME
    #[arg(add = complete::targets_or_files())]
    target: String,
    /// A package's program [default: its only one, or the one with the package's name]
    #[arg(long, value_name = "NAME")]
    program: Option<String>,
    /// Arguments of the program; of an image, in place of its `cmd`
    #[arg(last = true)]
    arguments: Vec<String>,
    #[command(flatten)]
    container: image::ContainerFlags,
    #[command(flatten)]
    flags: BuildFlags,
}

/// What is started on the machine's own root.
struct Started {
    argv: Vec<String>,
    env: BTreeMap<String, String>,
}

/// Realises the package, or the image, and runs its program.
pub fn run(args: &RunArgs, context: &Context) -> anyhow::Result<Outcome> {
    let named = std::slice::from_ref(&args.target);
    let project = Project::load(&context.environment).ok();
    let workspace = project.as_ref().map(|project| &project.workspace);
    let is_package = workspace.is_some_and(|workspace| workspace.packages.keys().any(|name| name.0 == args.target));
    let is_image = workspace.is_some_and(|workspace| workspace.images.contains_key(&args.target));
    let is_place = !is_package && !is_image && documents::finished(named).is_some();
    if is_place || args.container.isolate() {
        return image::run(&args.target, &args.container, &args.arguments, &args.flags, context);
    }
    let options = args.flags.options();
    let (work, started) = match is_image && !is_package {
        true => {
            let work = work::prepare(named, &options, &context.environment)?;
            let started = program_of_image(args, &work, context)?;
            (work, started)
        }
        false => {
            let work = work::prepare_package(&args.target, &options, &context.environment)?;
            let argv = std::iter::once(program_of_package(args, &work)?);
            let started = Started {
                argv: argv.chain(args.arguments.iter().cloned()).collect(),
                env: BTreeMap::new(),
            };
            (work, started)
        }
    };
    context.ui.clear();
    let cwd = std::env::current_dir().context("cannot tell the current directory")?;
    let mut env = context::all_variables();
    env.extend(started.env);
    let status = build::run_in_store(&work.store, started.argv, env, cwd, None)?;
    Ok(Outcome::of_status(status))
}

/// The program of an image of the spec, where it is one of the store: any other needs the image's own root.
fn program_of_image(args: &RunArgs, work: &Work, context: &Context) -> anyhow::Result<Started> {
    if args.program.is_some() {
        return Err(advised(
            format!("`{}` is an image, and says itself which its program is", args.target),
            "name another with `--entrypoint`",
        ));
    }
    let draft = project::drafts(work, &ImageOptions::default(), &context.environment)?.pop();
    let recipe = draft.with_context(|| format!("`{}` is no image", args.target))?.recipe;
    let spec = &recipe.spec;
    let cmd = match args.arguments.is_empty() {
        true => &spec.cmd,
        false => &args.arguments,
    };
    let mut argv: Vec<String> = spec.entrypoint.iter().chain(cmd).cloned().collect();
    let program = argv.first().cloned().ok_or_else(|| {
        advised(
            format!("the image `{}` has no program", args.target),
            "give it an `entrypoint`, or name one with `--entrypoint`",
        )
    })?;
    let below = match program.strip_prefix('/') {
        Some(below) => below.to_owned(),
        None => format!("bin/{program}"),
    };
    let contents = recipe.contents.iter().map(|content| &content.logical);
    let found = contents
        .filter(|path| physical(path, work).join(&below).is_file())
        .map(|path| format!("{}/{below}", path.as_str()))
        .next();
    argv[0] = match found {
        Some(found) => found,
        None if program.starts_with(StoreDir::LAYERIZE) => program,
        None => {
            return Err(advised(
                format!(
                    "`{program}` of the image `{}` is in the image's own root and not in a package's `bin`",
                    args.target
                ),
                format!("run it there: `layerize run --isolated {}`", args.target),
            ));
        }
    };
    Ok(Started {
        argv,
        env: spec.env.clone(),
    })
}
/// Where a store path's tree is on this machine.
fn physical(path: &LogicalPath, work: &Work) -> PathBuf {
    match path.dir() == StoreDir::LAYERIZE {
        true => work.store.physical(path.store_path()),
        false => PathBuf::from(path.as_str()),
    }
}

/// The absolute logical path of the program that is meant.
fn program_of_package(args: &RunArgs, work: &Work) -> anyhow::Result<String> {
    let (path, called) = match &work.targets[..] {
        [Target::Package(name)] => {
            let called = name.0.rsplit(':').next().unwrap_or_default().to_owned();
            (work.path(&work.plan.packages[name]), called)
        }
        [Target::Path(path)] => (path.clone(), path.name().to_owned()),
        _ => {
            return Err(advised(
                "one package was expected",
                "name a package of the spec, or a store path",
            ));
        }
    };
    let programs = programs(&work.store.physical(&path))?;
    let wanted = match &args.program {
        Some(program) => program,
        None if programs.len() == 1 => &programs[0],
        None => &called,
    };
    if !programs.contains(wanted) {
        let help = match programs.len() {
            0 => "it has no `bin`: it is not a program".to_owned(),
            _ => format!("choose with `--program`: {}", programs.join(", ")),
        };
        return Err(advised(
            format!("`{}` has no program `{wanted}`", StoreDir::layerize().join(&path)),
            help,
        ));
    }
    Ok(format!("{}/bin/{wanted}", StoreDir::layerize().join(&path)))
}

/// What is in the path's `bin`.
fn programs(physical: &Path) -> anyhow::Result<Vec<String>> {
    let bin = physical.join("bin");
    if !bin.is_dir() {
        return Ok(Vec::new());
    }
    Ok(crate::fsio::sorted_names(&bin)?
        .into_iter()
        .filter_map(|name| name.into_string().ok())
        .collect())
}
