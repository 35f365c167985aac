//! `layerize provenance`: how an image was made, as an in-toto statement with SLSA v1 provenance.

use std::path::PathBuf;

use clap::Args;

use super::complete;
use super::context::Context;
use super::documents::of_one_image;
use super::flags::BuildFlags;
use super::flags::ImageFlags;
use super::outcome::Outcome;
use super::output;
use super::places::Names;

/// Arguments of `layerize provenance`.
#[derive(Debug, Args)]
pub struct ProvenanceArgs {
    /// An image of the spec, or store paths that together make one
    #[arg(add = complete::images())]
    targets: Vec<String>,
    /// Where to write it [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    image: ImageFlags,
    #[command(flatten)]
    flags: BuildFlags,
}

impl ProvenanceArgs {
    /// The arguments that may name a spec elsewhere.
    pub fn names(&mut self) -> (Names<'_>, &mut BuildFlags) {
        (Names::Several(&mut self.targets), &mut self.flags)
    }
}

/// Prints the statement.
pub fn run(args: &ProvenanceArgs, context: &Context) -> anyhow::Result<Outcome> {
    let document = of_one_image(&args.targets, &args.image, &args.flags, context, |documents| {
        documents.provenance()
    })?;
    output::write(&document, args.output.as_deref(), context)?;
    Ok(Outcome::Done)
}
