//! `layerize auth`: who the user is at registries.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::oci::Reference;
use crate::transport::registry::ConfigError;
use crate::transport::registry::config::check_host;

use super::Outcome;
use super::context::Context;

/// Arguments of `layerize auth`.
#[derive(Debug, Args)]
pub struct AuthArgs {
    #[command(subcommand)]
    command: AuthCommand,
}

#[derive(Debug, Subcommand)]
enum AuthCommand {
    /// Show how an image's registry would be reached, with whose credentials and from which file; never a secret
    Explain(ExplainArgs),
}

#[derive(Debug, Args)]
struct ExplainArgs {
    /// The image, such as `registry.example/team/app:1.0`
    reference: String,
}

/// Flags of every command that speaks to a registry.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Registries")]
pub struct RegistryFlags {
    /// Trust this authority's certificate too (PEM); repeatable
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_file: Vec<PathBuf>,
    /// Speak to this registry without TLS; repeatable
    #[arg(long, global = true, value_name = "HOST[:PORT]", value_parser = host)]
    pub plain_http: Vec<String>,
}

fn host(text: &str) -> Result<String, ConfigError> {
    check_host(text).map(|()| text.to_owned())
}

/// Does what the subcommand says.
pub fn run(args: &AuthArgs, context: &Context) -> anyhow::Result<Outcome> {
    match &args.command {
        AuthCommand::Explain(args) => explain(args, context),
    }
}

fn explain(args: &ExplainArgs, context: &Context) -> anyhow::Result<Outcome> {
    let text = args.reference.strip_prefix("docker://").unwrap_or(&args.reference);
    let reference: Reference = text.parse()?;
    let explanation = context.registries().explain(&reference)?;
    if context.ui.json() {
        context.ui.data(&serde_json::to_string(&explanation)?)?;
    } else {
        context.ui.data(&explanation.to_string())?;
    }
    Ok(Outcome::Done)
}
