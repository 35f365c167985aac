//! `layerize run`: a program of a package on this machine, with the store where its paths say it is, or of an image in its root.

mod image;

use std::path::Path;

use anyhow::Context as _;
use clap::Args;

use crate::build;
use crate::store_path::StoreDir;

use super::complete;
use super::context::{self, Context};
use super::error::advised;
use super::flags::BuildFlags;
use super::outcome::Outcome;
use crate::project::work;
use crate::project::{Target, Work};

/// Arguments of `layerize run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The package or store path
    #[arg(conflicts_with = "image", add = complete::packages())]
    target: Option<String>,
    /// Its program [default: its only one, or the one with the package's name]
    #[arg(long, value_name = "NAME", conflicts_with = "image")]
    program: Option<String>,
    /// Arguments of the program; of an image, in place of its `cmd`
    #[arg(last = true)]
    arguments: Vec<String>,
    #[command(flatten)]
    container: image::ContainerFlags,
    #[command(flatten)]
    flags: BuildFlags,
}

/// Realises the package, or the image, and runs its program.
pub fn run(args: &RunArgs, context: &Context) -> anyhow::Result<Outcome> {
    let target = match (&args.target, &args.container.image) {
        (Some(target), _) => target,
        (None, Some(image)) => return image::run(image, &args.container, &args.arguments, &args.flags, context),
        (None, None) => {
            return Err(advised(
                "neither a package nor an image is named",
                "write `layerize run PACKAGE`, or `layerize run --image IMAGE`",
            ));
        }
    };
    let work = work::prepare_package(target, &args.flags.options(), &context.environment)?;
    context.ui.clear();
    let program = program(args, &work)?;
    let argv = std::iter::once(program).chain(args.arguments.iter().cloned()).collect();
    let cwd = std::env::current_dir().context("cannot tell the current directory")?;
    let status = build::run_in_store(&work.store, argv, context::all_variables(), cwd, None)?;
    Ok(Outcome::of_status(status))
}

/// The absolute logical path of the program that is meant.
fn program(args: &RunArgs, work: &Work) -> anyhow::Result<String> {
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
