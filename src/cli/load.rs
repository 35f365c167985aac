//! `layerize load`: images straight into Docker or podman.

use std::time::Instant;

use clap::{Args, ValueEnum};

use crate::event::{Event, Reporter};
use crate::image::Image;
use crate::oci::Compression;
use crate::transport::{Daemon, Engine};

use super::complete;
use super::context::Context;
use super::flags::BuildFlags;
use super::flags::ImageFlags;
use super::outcome::Outcome;
use super::places::Names;
use super::programs;
use crate::project::work;
use crate::project::{self, PlatformChoice};

/// Arguments of `layerize load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Images of the spec, or store paths that together make one image [default: all images]
    #[arg(add = complete::images())]
    targets: Vec<String>,
    /// Load the environment of a package as an image, NAME-dev, for containers to develop in
    #[arg(long)]
    dev: bool,
    /// Which engine [default: the first that is installed]
    #[arg(long, value_enum, value_name = "ENGINE")]
    engine: Option<EngineName>,
    #[command(flatten)]
    image: ImageFlags,
    #[command(flatten)]
    flags: BuildFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EngineName {
    Docker,
    Podman,
}

impl LoadArgs {
    /// The arguments that may name a spec elsewhere.
    pub fn names(&mut self) -> (Names<'_>, &mut BuildFlags) {
        (Names::Several(&mut self.targets), &mut self.flags)
    }
}

/// Builds images and pipes each into the engine.
pub fn run(args: &LoadArgs, context: &Context) -> anyhow::Result<Outcome> {
    let engine = match args.engine {
        Some(EngineName::Docker) => Engine::Docker,
        Some(EngineName::Podman) => Engine::Podman,
        None => Engine::find()?,
    };
    let options = args.flags.options_for(args.image.platforms(PlatformChoice::Own));
    let work = match args.dev {
        true => programs::dev_image(&args.targets, &options, &context.environment)?,
        false => work::prepare(&args.targets, &options, &context.environment)?,
    };
    // The pipe to a local engine is faster than any compressor, and the engine would only decompress again.
    let mut flags = args.image.clone();
    flags.compression.get_or_insert(Compression::None);
    for named in project::images(&work, &flags.options()?, &context.environment)? {
        let started = Instant::now();
        let named = named.own()?;
        let loaded = Daemon::new(engine).load(&named.image, &named.names)?;
        let destination = format!("{engine}:{}", named.names.join(","));
        let digest = named.image.digest().to_string();
        context.ui.report(Event::ImageWritten {
            name: named.name.clone(),
            digest,
            id: named.image.config_digest().to_string(),
            destination,
        });
        context.ui.report(Event::Transferred {
            digest: named.image.digest().to_string(),
            destination: format!("{engine}:{}", named.names.join(",")),
            written: loaded.transferred.written,
            skipped: loaded.transferred.skipped,
            milliseconds: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            dry_run: false,
        });
        context
            .ui
            .note(&format!("{}: {}", named.name, of_id(&named.image, &loaded.id)));
        if !context.ui.json() {
            context
                .ui
                .data(&format!("{} {engine}:{}", loaded.id, named.names.join(",")))?;
        }
    }
    context.ui.summary();
    Ok(Outcome::Done)
}

/// What the engine's ID of an image is the digest of: a build prints that of the manifest, which is another one.
fn of_id(image: &Image, id: &str) -> String {
    let digest = image.config_digest();
    match id.trim_start_matches("sha256:") == digest.hex() {
        true => {
            format!("image ID {digest}, as Docker and podman name it; `build` and `push` print the manifest's digest")
        }
        // Docker's containerd store.
        false => format!(
            "image ID {}, by which this engine means the manifest without compression; `build` and `push` print the \
             digest of the compressed one",
            image.digest()
        ),
    }
}
