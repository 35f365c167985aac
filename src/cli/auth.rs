//! `layerize auth`: who the user is at registries.

use clap::{Args, Subcommand};

use crate::oci::Reference;

use super::context::Context;
use super::outcome::Outcome;

/// Arguments of `layerize auth`.
#[derive(Debug, Args)]
pub struct AuthArgs {
    #[command(subcommand)]
    command: AuthCommand,
}

#[derive(Debug, Subcommand)]
enum AuthCommand {
    /// Show how an image's registry would be reached, with whose credentials and from which file; never a secret
    Explain(AuthExplainArgs),
}

#[derive(Debug, Args)]
struct AuthExplainArgs {
    /// The image, such as `registry.example/team/app:1.0`
    reference: String,
}

/// Does what the subcommand says.
pub fn run(args: &AuthArgs, context: &Context) -> anyhow::Result<Outcome> {
    match &args.command {
        AuthCommand::Explain(args) => explain(args, context),
    }
}

fn explain(args: &AuthExplainArgs, context: &Context) -> anyhow::Result<Outcome> {
    let text = args.reference.strip_prefix("docker://").unwrap_or(&args.reference);
    let reference: Reference = text.parse()?;
    let explanation = context.environment.registries.explain(&reference)?;
    if context.ui.json() {
        context.ui.data(&serde_json::to_string(&explanation)?)?;
    } else {
        context.ui.data(&explanation.to_string())?;
    }
    Ok(Outcome::Done)
}
