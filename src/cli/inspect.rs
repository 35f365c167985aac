//! `layerize inspect`: what an image holds.

use clap::{Args, ValueHint};

use crate::audit::{self, InspectOptions};
use crate::oci::Platform;

use crate::store_path::StoreDir;

use super::context::Context;
use super::flags::value;
use super::outcome::Outcome;

/// Arguments of `layerize inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The image (or a path of a Nix store): an archive, docker-archive:FILE, oci-archive:FILE, oci:DIR[:TAG], docker://NAME, docker-daemon:NAME or -
    #[arg(value_hint = ValueHint::AnyPath)]
    source: String,
    /// Read the layers too: what is in each, and how large it is unpacked
    #[arg(long)]
    layers: bool,
    /// Which platform of a multi-platform image
    #[arg(long, value_name = "OS/ARCH", value_parser = value::<Platform>)]
    platform: Option<Platform>,
}

/// Prints a report.
pub fn run(args: &InspectArgs, context: &Context) -> anyhow::Result<Outcome> {
    if args.source.starts_with(StoreDir::NIX)
        && let Some(info) = super::store::nix_info(&args.source, context)?
    {
        context.ui.data(&info)?;
        return Ok(Outcome::Done);
    }
    let source = context.environment.source(&args.source, args.platform.as_ref())?;
    if let Some(report) = audit::inspect_artifact(source.as_ref())? {
        let text = match context.ui.json() {
            true => serde_json::to_string(&report)?,
            false => report.render(),
        };
        context.ui.data(text.trim_end())?;
        return Ok(Outcome::Done);
    }
    let report = audit::inspect(source.as_ref(), InspectOptions { layers: args.layers })?;
    let text = if context.ui.json() {
        serde_json::to_string(&report)?
    } else {
        report.render()
    };
    context.ui.data(text.trim_end())?;
    Ok(Outcome::Done)
}
