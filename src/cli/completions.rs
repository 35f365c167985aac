//! `layerize completions`: what a shell needs to complete arguments.

use std::io::Write as _;

use clap::{Args, CommandFactory};

use super::{Cli, Outcome};

/// Arguments of `layerize completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Prints the completion script.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<Outcome> {
    // Collected first: clap_complete panics when the reader goes away.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "layerize", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Outcome::Done)
}
