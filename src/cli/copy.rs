//! `layerize copy`: an image, or all of an index, from one place to another.

use anyhow::Context as _;
use clap::{Args, ValueHint};

use crate::oci::Platform;
use crate::project::{attach, referrers};
use crate::transport::{Content, Location};

use super::context::Context;
use super::flags::{TransferFlags, value};
use super::outcome::Outcome;
use super::transfer;

/// Arguments of `layerize copy`.
#[derive(Debug, Args)]
pub struct CopyArgs {
    /// Where the image is: docker-archive:FILE, oci-archive:FILE, oci:DIR[:TAG], docker://NAME, docker-daemon:NAME,
    /// containers-storage:NAME, a file, or - for standard input
    #[arg(value_hint = ValueHint::AnyPath)]
    source: String,
    /// Where it goes, named likewise; a file becomes a docker-archive
    #[arg(value_hint = ValueHint::AnyPath)]
    sink: String,
    /// Copy the whole index with the images for all platforms
    #[arg(long, conflicts_with = "platform")]
    all: bool,
    /// Which platform of a multi-platform image
    #[arg(long, value_name = "OS/ARCH", value_parser = value::<Platform>)]
    platform: Option<Platform>,
    /// Copy what refers to the image, too: signatures, bills of materials, attestations
    #[arg(long)]
    referrers: bool,
    #[command(flatten)]
    flags: TransferFlags,
}

/// Copies; manifest, config and layers keep their bytes, and what cannot be kept is said.
pub fn run(args: &CopyArgs, context: &Context) -> anyhow::Result<Outcome> {
    let source: Location = args.source.parse()?;
    let sink: Location = args.sink.parse()?;
    if args.referrers {
        attach::check_place(&sink)?;
    }
    let opened = context.content(&source, args.platform.as_ref(), args.all)?;
    if opened.synthesized {
        context
            .ui
            .note("note: the source holds no manifest; one was made for its layers, and the digest is of that");
    }
    if matches!(sink, Location::Daemon(_) | Location::Podman(_)) && matches!(opened.content, Content::Image(_)) {
        context
            .ui
            .note("note: an engine keeps config and layers and makes a manifest of its own when it pushes");
    }
    transfer::write(&opened.content, &[], &sink, &opened.names, &args.flags, context)?;
    if args.referrers && !args.flags.is_dry_run() {
        let copied = referrers::copy(&opened.content, &source, &sink, &context.environment)
            .with_context(|| format!("cannot copy what refers to the image to `{sink}`"))?;
        context.ui.note(&format!("{copied} referrers copied"));
    }
    Ok(Outcome::Done)
}
