//! `layerize verify`: whether every digest of an image is right.

use clap::Args;

use crate::audit;

use super::Outcome;
use super::context::Context;

/// Arguments of `layerize verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// An image, named as for `inspect`
    source: String,
    /// Which platform of a multi-platform image
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

/// Prints what is wrong; the answer is no if anything is.
pub fn run(args: &VerifyArgs, context: &Context) -> anyhow::Result<Outcome> {
    let source = context.source(&args.source, args.platform.as_deref())?;
    let report = audit::verify(source.as_ref())?;
    let text = if context.ui.json() {
        serde_json::to_string(&report)?
    } else {
        report.render()
    };
    context.ui.data(text.trim_end())?;
    Ok(if report.ok() { Outcome::Done } else { Outcome::No })
}
