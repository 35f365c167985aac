//! `layerize index`: images for several platforms under one name.

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueHint};

use crate::event::{Event, Reporter};
use crate::image::{ImageIndex, IndexPart};
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
    let mut all = Vec::new();
    for source in &parts.sources {
        let opened = context.content(&source.parse()?, None, true)?;
        all.extend(usable(&opened.content, context));
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
        let is_image = |part: &&IndexPart| part.attests().is_none();
        let added: Vec<_> = all
            .iter()
            .filter(is_image)
            .filter_map(|part| part.platform().ok())
            .collect();
        let kept = usable(&opened.content, context).into_iter();
        let is_kept =
            |part: &IndexPart| !is_image(&part) || part.platform().is_ok_and(|platform| !added.contains(&platform));
        all.extend(kept.filter(is_kept));
    }
    annotations.extend(pairs("--annotation", &parts.annotation)?);
    let index = ImageIndex::of_parts(all, annotations)?;
    for part in index.parts() {
        let digest = part.image.digest();
        context.ui.note(&match part.attests() {
            Some(of) => format!("attestation {digest} of {of}"),
            None => format!("{} {digest}", part.platform()?),
        });
    }
    transfer::write(&Content::Index(index), &[], &sink, &[], &parts.flags, context)?;
    Ok(Outcome::Done)
}

/// The images that can be run, and the attestations of them. What else an index lists belongs to that very index.
fn usable(content: &Content, context: &Context) -> Vec<IndexPart> {
    let all = match content {
        Content::Image(image) => vec![IndexPart {
            image: image.clone(),
            entry: None,
        }],
        Content::Index(index) => index.parts(),
    };
    let count = all.len();
    let is_usable =
        |part: &IndexPart| part.attests().is_some() || part.platform().is_ok_and(|platform| platform.os() != "unknown");
    let usable: Vec<IndexPart> = all.into_iter().filter(is_usable).collect();
    let left_out = count - usable.len();
    if left_out > 0 {
        context.ui.report(Event::Warning {
            text: format!("{left_out} entries without a platform are left out: they describe another index"),
        });
    }
    usable
}
