//! `layerize key`: keys that sign.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::attest::{self, KeyKind};
use crate::escape::shown;

use super::context::Context;
use super::outcome::Outcome;
use super::output;

/// Arguments of `layerize key`.
#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    command: SigningKeyCommand,
}

#[derive(Debug, Subcommand)]
enum SigningKeyCommand {
    /// Make a key pair: PREFIX.key, for you alone and without passphrase, and PREFIX.pub
    Generate {
        /// Path of the two files, without their extensions
        prefix: PathBuf,
        /// Kind of key
        #[arg(long = "type", value_enum, default_value = "ed25519")]
        kind: KeyType,
    },
}

/// Kinds of keys.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum KeyType {
    /// Ed25519: equal documents have equal signatures
    Ed25519,
    /// ECDSA on P-256, the kind that cosign makes
    P256,
}

/// Makes the files and prints their names.
pub fn run(args: &KeyArgs, context: &Context) -> anyhow::Result<Outcome> {
    let SigningKeyCommand::Generate { prefix, kind } = &args.command;
    let kind = match kind {
        KeyType::Ed25519 => KeyKind::Ed25519,
        KeyType::P256 => KeyKind::P256,
    };
    let (private, public) = attest::generate(kind, prefix)?;
    output::keep_private(&private, context)?;
    for path in [private, public] {
        context.ui.data(&shown(&path.display().to_string()))?;
    }
    Ok(Outcome::Done)
}
