//! `layerize run`: a program of a package or of an image on this machine, with the store where its paths say it is, or of an
//! image in its own root.

use std::collections::BTreeMap;

use anyhow::Context as _;
use clap::Args;

use crate::build::{self, StoreProgram};

use super::complete;
use super::context::{self, Context};
use super::documents;
use super::error::advised;
use super::flags::BuildFlags;
use super::isolated;
use super::outcome::Outcome;
use super::places::Names;
use super::programs::{self, Started};
use crate::project::{Project, Work, work};

/// Arguments of `layerize run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A package or image of the spec, one elsewhere (git+https://…#NAME), a store path, or a place of images:
    /// docker-archive:FILE, oci:DIR[:TAG], docker://NAME
    #[arg(add = complete::targets_or_files())]
    target: String,
    /// A package's program [default: the one with its name; else that of an image with its name, or its only one]
    #[arg(long, value_name = "NAME")]
    program: Option<String>,
    /// Arguments of the program; of an image, in place of its `cmd`
    #[arg(last = true)]
    arguments: Vec<String>,
    #[command(flatten)]
    container: isolated::ContainerFlags,
    #[command(flatten)]
    flags: BuildFlags,
}

impl RunArgs {
    /// The arguments that may name a spec elsewhere.
    pub fn names(&mut self) -> (Names<'_>, &mut BuildFlags) {
        (Names::Each(vec![&mut self.target]), &mut self.flags)
    }
}

/// Realises the package, or the image, and runs its program.
pub fn run(args: &RunArgs, context: &Context) -> anyhow::Result<Outcome> {
    let named = std::slice::from_ref(&args.target);
    let project = Project::load(&context.environment).ok();
    let workspace = project.as_ref().map(|project| &project.workspace);
    let is_package = workspace.is_some_and(|workspace| workspace.packages.keys().any(|name| name.0 == args.target));
    let is_image = workspace.is_some_and(|workspace| workspace.images.contains_key(&args.target));
    let is_place = !is_package && !is_image && documents::finished(named).is_some();
    if is_place || args.container.isolate(is_package && !is_image) {
        return isolated::run(&args.target, &args.container, &args.arguments, &args.flags, context);
    }
    let options = args.flags.options_for(args.container.platforms());
    let (work, started) = match is_image && !is_package {
        true => {
            if args.program.is_some() {
                return Err(advised(
                    format!("`{}` is an image, and says itself which its program is", args.target),
                    "name another with `--entrypoint`",
                ));
            }
            image(args, context)?
        }
        false => {
            let work = work::prepare_package(&args.target, &options, &context.environment)?;
            let asks_image = is_image && args.program.is_none() && !programs::has_own(&work)?;
            let of_image = asks_image.then(|| image(args, context));
            // Of an environment of Python's, with nothing in it but Python, the image knows what it is for.
            match of_image {
                Some(Ok(started)) => return start(started, context),
                Some(Err(error)) => context.ui.note(&format!(
                    "a program of the package is run, since that of the image cannot be: {error:#}"
                )),
                None => {}
            }
            let argv = std::iter::once(programs::of_package(args.program.as_deref(), &work)?);
            let started = Started {
                argv: argv.chain(args.arguments.iter().cloned()).collect(),
                env: BTreeMap::new(),
                emulator: work.emulator(&args.target, &context.environment)?,
            };
            (work, started)
        }
    };
    start((work, started), context)
}

/// The program of the image of the name that a package has, too.
fn image(args: &RunArgs, context: &Context) -> anyhow::Result<(Work, Started)> {
    let options = args.flags.options_for(args.container.platforms());
    let work = work::prepare(std::slice::from_ref(&args.target), &options, &context.environment)?;
    let started = programs::of_image(&args.target, &args.arguments, &work, &context.environment)?;
    Ok((work, started))
}

/// Runs it where the user is, and gives its status.
fn start((work, started): (Work, Started), context: &Context) -> anyhow::Result<Outcome> {
    context.ui.clear();
    let cwd = std::env::current_dir().context("cannot tell the current directory")?;
    let mut env = context::all_variables();
    env.extend(started.env);
    let program = StoreProgram {
        argv: started.argv,
        env,
        cwd,
        emulator: started.emulator,
        helper: None,
    };
    let status = build::run_in_store(&work.store, program)?;
    Ok(Outcome::of_status(status))
}
