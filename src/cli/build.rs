//! `layerize build`: packages into the store, images into sinks.

use clap::Args;

use super::attest::AttestFlags;
use super::context::Context;
use super::flags::{BuildFlags, ImageFlags};
use super::outcome::Outcome;
use super::sinks;
use crate::project;
use crate::project::Target;
use crate::project::golden;
use crate::project::work;
use crate::store_path::StoreDir;

/// Arguments of `layerize build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Images or packages of the spec, or store paths that together make one image [default: all images]
    targets: Vec<String>,
    /// Where each image goes: docker-archive:FILE, oci-archive:FILE, oci:DIR[:TAG], docker://NAME, docker-daemon:NAME, or - for
    /// standard output [default: docker-archive:NAME.tar]
    #[arg(short, long, value_name = "SINK")]
    output: Vec<String>,
    #[command(flatten)]
    image: ImageFlags,
    #[command(flatten)]
    attest: AttestFlags,
    #[command(flatten)]
    flags: BuildFlags,
}

/// Builds what the arguments name; prints a line per image and sink, or per package.
pub fn run(args: &BuildArgs, context: &Context) -> anyhow::Result<Outcome> {
    let locations = sinks::parse(&args.output)?;
    args.attest.check(&locations)?;
    sinks::check_names(&args.targets, &locations, context)?;
    let work = work::prepare(&args.targets, &args.flags.options(), &context.environment)?;
    sinks::check_count(work.image_count(), &locations)?;
    let images = project::images(&work, &args.image.options()?, &context.environment)?;
    for image in &images {
        if args.flags.locked {
            golden::compare(image, &work, &context.environment)?;
        }
        sinks::write(image, &locations, context)?;
    }
    args.attest.write(&work, &images, &locations, context)?;
    for target in &work.targets {
        if let Target::Package(name) = target {
            let path = work.path(&work.plan.packages[name]);
            work.add_root(target)?;
            context.ui.data(&StoreDir::layerize().join(&path))?;
        }
    }
    context.trim_layer_cache()?;
    context.ui.summary();
    Ok(Outcome::Done)
}
