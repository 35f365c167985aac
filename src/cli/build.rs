//! `layerize build`: packages into the store, images into sinks.

use clap::{Args, ValueHint};

use super::complete;
use super::context::Context;
use super::documents;
use super::error::advised;
use super::flags::{AttestFlags, BuildFlags, ImageFlags, InputsFlags};
use super::outcome::Outcome;
use super::places::Names;
use super::programs;
use super::sinks;
use super::trials::{self, Shown};
use crate::project;
use crate::project::Target;
use crate::project::golden;
use crate::project::trials::Trial;
use crate::project::{attach, kept, work};
use crate::store_path::StoreDir;
use crate::transport::Location;

/// Arguments of `layerize build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Images or packages of the spec, or of one elsewhere (git+https://…#NAME), or store paths that together make one image
    /// [default: all images]
    #[arg(add = complete::targets())]
    targets: Vec<String>,
    /// Where each image goes: docker-archive:FILE, oci-archive:FILE, oci:DIR[:TAG], docker://NAME, docker-daemon:NAME, or - for
    /// standard output [default: docker-archive:NAME.tar]
    #[arg(short, long, value_name = "SINK", value_hint = ValueHint::AnyPath)]
    output: Vec<String>,
    /// Run the tests of the images first; where one fails no image is written
    #[arg(long)]
    test: bool,
    /// Build the environment of a package as an image, NAME-dev, for containers to develop in
    #[arg(long, conflicts_with_all = ["test", "inputs", "attach"])]
    dev: bool,
    #[command(flatten)]
    image: ImageFlags,
    #[command(flatten)]
    inputs: InputsFlags,
    #[command(flatten)]
    attest: AttestFlags,
    #[command(flatten)]
    flags: BuildFlags,
}

impl BuildArgs {
    /// The arguments that may name a spec elsewhere.
    pub fn names(&mut self) -> (Names<'_>, &mut BuildFlags) {
        (Names::Several(&mut self.targets), &mut self.flags)
    }
}

/// Builds what the arguments name; prints a line per image and sink, or per package.
pub fn run(args: &BuildArgs, context: &Context) -> anyhow::Result<Outcome> {
    let locations = sinks::parse(&args.output)?;
    args.attest.check(&locations)?;
    sinks::check_names(&args.targets, &locations, context)?;
    let extent = args.inputs.extent(None);
    if extent.is_some() {
        check_places(&locations)?;
    }
    let choice = args.image.platforms(sinks::platforms(&locations));
    let work_options = args.flags.options_for(choice.clone());
    if !locations.is_empty() && !args.dev {
        sinks::check_count(work::image_count(&args.targets, &context.environment)?, &locations)?;
    }
    let work = match args.dev {
        true => programs::dev_image(&args.targets, &work_options, &context.environment)?,
        false => work::prepare(&args.targets, &work_options, &context.environment)?,
    };
    let options = args.image.options()?;
    let images = project::images(&work, &options, &context.environment)?;
    let trials = match args.test {
        true => trials::run(&images, None, args.flags.jobs, &work, Shown::Aside, context)?,
        false => Vec::new(),
    };
    if trials.iter().any(Trial::has_failed) {
        context.ui.note("a test failed: no image is written.");
        return Ok(Outcome::No);
    }
    for image in &images {
        if args.flags.locked {
            golden::compare(image, &work, &context.environment)?;
        }
        let keep = match extent {
            Some(extent) => kept::of_image(image, &work, &options.made_with(), extent, &context.environment)?,
            None => Vec::new(),
        };
        sinks::write(image, &keep, &locations, context)?;
    }
    sinks::tell_of_others(&work, &choice, context);
    documents::write(&args.attest.options(), &work, &images, &trials, &locations, context)?;
    for here in work.everywhere() {
        for target in &here.targets {
            if let Target::Package(name) = target {
                let path = here.path(&here.plan.packages[name]);
                work.add_root(target)?;
                context.ui.data(&StoreDir::layerize().join(&path))?;
            }
        }
    }
    context.ui.summary();
    Ok(Outcome::Done)
}

/// Inputs need places that hold more than images; what is none is an error before anything is built for it.
fn check_places(locations: &[Location]) -> anyhow::Result<()> {
    if locations.is_empty() {
        return Err(advised(
            "`--inputs` needs a layout or a registry: NAME.tar can hold only an image",
            "add `-o oci:DIR` or `-o docker://NAME`",
        ));
    }
    Ok(locations.iter().try_for_each(attach::check_place)?)
}
