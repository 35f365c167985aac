//! `layerize completions`: what a shell needs to complete arguments.

use std::io::Write as _;

use clap::{Args, Command};

use super::outcome::Outcome;

/// Arguments of `layerize completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Prints the completion script.
pub fn run(args: &CompletionsArgs, mut program: Command) -> anyhow::Result<Outcome> {
    // Collected first: clap_complete panics when the reader goes away.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "layerize", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Outcome::Done)
}
