//! `layerize build`: packages into the store, images into sinks.

use clap::{Args, ValueEnum};

use super::Outcome;
use super::attest::AttestFlags;
use super::context::Context;
use super::golden;
use super::images::{self, ImageFlags};
use super::pipeline::{self, Target};
use super::sinks;
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

/// Options of every command that builds.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Build options")]
pub struct BuildFlags {
    /// Refuse a lock that is not current
    #[arg(long)]
    pub locked: bool,
    /// Use nothing but what was fetched before
    #[arg(long)]
    pub offline: bool,
    /// Directory, file: or http: address with Debian packages, tried before the machine's apt; repeatable
    #[arg(long, value_name = "MIRROR")]
    pub mirror: Vec<String>,
    /// How scripts are run
    #[arg(long, value_enum, default_value = "namespaces", value_name = "HOW")]
    pub sandbox: Sandbox,
    /// Most steps at once [default: the number of cores]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub jobs: usize,
    /// Cores that each script may use [default: all]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub cores: usize,
    /// Keep the build directory of a script that fails
    #[arg(long)]
    pub keep_failed: bool,
}

/// How scripts are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Sandbox {
    /// In namespaces of their own, without network
    #[default]
    Namespaces,
    /// On the machine as it is: recorded in the store, never silent
    None,
}

/// Builds what the arguments name; prints a line per image and sink, or per package.
pub fn run(args: &BuildArgs, context: &Context) -> anyhow::Result<Outcome> {
    let locations = sinks::parse(&args.output)?;
    args.attest.check(&locations)?;
    let work = pipeline::prepare(&args.targets, &args.flags, context)?;
    sinks::check_count(work.image_count(), &locations)?;
    let images = images::of_targets(&work, &args.image, context)?;
    for image in &images {
        if args.flags.locked {
            golden::compare(image, &work, context)?;
        }
        sinks::write(image, &locations, context)?;
    }
    args.attest.write(&work, &images, &args.image, &locations, context)?;
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
