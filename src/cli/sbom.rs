//! `layerize sbom`: the bill of materials of an image.

use std::path::PathBuf;

use clap::Args;

use crate::attest;

use super::complete;
use super::context::Context;
use super::documents::{finished, of_one_image, partial};
use super::flags::{BuildFlags, ImageFlags, SbomForm};
use super::outcome::Outcome;
use super::output;
use super::places::Names;

/// Arguments of `layerize sbom`.
#[derive(Debug, Args)]
pub struct SbomArgs {
    /// An image of the spec or store paths (exact), or a finished image named as for `inspect` (what its annotations
    /// tell)
    #[arg(add = complete::images_or_files())]
    targets: Vec<String>,
    /// Form of the document
    #[arg(long, value_enum, default_value = "spdx")]
    format: SbomForm,
    /// Where to write it [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    image: ImageFlags,
    #[command(flatten)]
    flags: BuildFlags,
}

impl SbomArgs {
    /// The arguments that may name a spec elsewhere.
    pub fn names(&mut self) -> (Names<'_>, &mut BuildFlags) {
        (Names::Several(&mut self.targets), &mut self.flags)
    }
}

/// Prints the document.
pub fn run(args: &SbomArgs, context: &Context) -> anyhow::Result<Outcome> {
    let format = args.format.into();
    let document = match finished(&args.targets) {
        Some(source) => {
            let inventory = partial(source, args.image.platform()?, context)?;
            context
                .ui
                .note("This is what the image's annotations tell; `layerize sbom TARGET` knows all of it.");
            attest::sbom(&inventory, format)
        }
        None => of_one_image(&args.targets, &args.image, &args.flags, context, |documents| {
            documents.sbom(format)
        })?,
    };
    output::write(&document, args.output.as_deref(), context)?;
    Ok(Outcome::Done)
}
