//! `layerize index`: images for several platforms under one name.

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueHint};

use crate::event::{Event, Reporter};
use crate::image::{Image, ImageIndex, platform_of};
use crate::transport::{Content, Location};

use super::context::Context;
use super::error::advised;
use super::flags::{TransferFlags, pairs};
use super::outcome::Outcome;
use super::transfer;

/// Arguments of `layerize index`.
#[derive(Debug, Args)]
pub struct IndexArgs {
    #[command(subcommand)]
    command: IndexCommand,
}

#[derive(Debug, Subcommand)]
enum IndexCommand {
    /// Make an index of images, each for another platform
    Create(PartsArgs),
    /// Add images to an index, in place of those for the same platforms
    Add(PartsArgs),
}

#[derive(Debug, Args)]
struct PartsArgs {
    /// Where the index is, or goes: oci:DIR[:TAG], oci-archive:FILE or docker://NAME
    #[arg(value_hint = ValueHint::AnyPath)]
    sink: String,
    /// The images, named as for `copy`; of an index, all of its images
    #[arg(required = true, value_hint = ValueHint::AnyPath)]
    sources: Vec<String>,
    /// Annotation of the index; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    #[command(flatten)]
    flags: TransferFlags,
}

/// Makes or changes an index.
pub fn run(args: &IndexArgs, context: &Context) -> anyhow::Result<Outcome> {
    let (parts, adds) = match &args.command {
        IndexCommand::Create(parts) => (parts, false),
        IndexCommand::Add(parts) => (parts, true),
    };
    let sink: Location = parts.sink.parse()?;
    let mut images = Vec::new();
    for source in &parts.sources {
        let opened = context.content(&source.parse()?, None, true)?;
        images.extend(runnable(&opened.content, context));
    }
    let mut annotations = BTreeMap::new();
    if adds {
        let opened = context.content(&sink, None, true)?;
        let Content::Index(index) = &opened.content else {
            return Err(advised(
                format!("`{sink}` is one image, not an index"),
                format!("make an index of it: `layerize index create SINK {sink} …`"),
            ));
        };
        annotations = index.document.annotations.clone();
        let added: Vec<_> = images.iter().filter_map(|image| platform_of(image).ok()).collect();
        let kept = runnable(&opened.content, context).into_iter();
        images.extend(kept.filter(|image| platform_of(image).is_ok_and(|platform| !added.contains(&platform))));
    }
    annotations.extend(pairs("--annotation", &parts.annotation)?);
    let index = ImageIndex::new(images, annotations)?;
    for image in index.images() {
        context.ui.note(&format!("{} {}", platform_of(image)?, image.digest()));
    }
    transfer::write(&Content::Index(index), None, &sink, &[], &parts.flags, context)?;
    Ok(Outcome::Done)
}

/// The images that can be run; what else an index lists (attestations of a build) belongs to that very index.
fn runnable(content: &Content, context: &Context) -> Vec<Image> {
    let is_runnable = |image: &&Image| platform_of(image).is_ok_and(|platform| platform.os() != "unknown");
    let all = content.images();
    let images: Vec<Image> = all.iter().copied().filter(is_runnable).cloned().collect();
    let left_out = all.len() - images.len();
    if left_out > 0 {
        context.ui.report(Event::Warning {
            text: format!("{left_out} entries without a platform are left out: they describe another index"),
        });
    }
    images
}
