//! `layerize diff`: whether two images are equal, and all that differs.

use clap::Args;

use crate::audit::{self, DiffOptions};

use super::Outcome;
use super::context::Context;

/// Arguments of `layerize diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// An image, named as for `inspect`
    a: String,
    /// Another
    b: String,
    /// Which platform of multi-platform images
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

/// Prints what differs; the answer is no if anything does.
pub fn run(args: &DiffArgs, context: &Context) -> anyhow::Result<Outcome> {
    let a = context.source(&args.a, args.platform.as_deref())?;
    let b = context.source(&args.b, args.platform.as_deref())?;
    let report = audit::diff(a.as_ref(), b.as_ref(), &DiffOptions::default())?;
    let text = if context.ui.json() {
        serde_json::to_string(&report)?
    } else {
        report.render()
    };
    context.ui.data(text.trim_end())?;
    Ok(if report.equal() { Outcome::Done } else { Outcome::No })
}
