//! `layerize completions`: what a shell needs to complete arguments.

use std::io::Write as _;

use clap::Args;
use clap_complete::env::Shells;

use super::complete::VARIABLE;
use super::error::advised;
use super::outcome::Outcome;

/// Arguments of `layerize completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Prints the script that has the shell ask layerize for completions.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<Outcome> {
    let shell = args.shell.to_string();
    let shells = Shells::builtins();
    let completer = shells.completer(&shell).ok_or_else(|| {
        advised(
            format!("there are no completions for `{shell}`"),
            "there are some for bash, elvish, fish, powershell and zsh",
        )
    })?;
    // Collected first: a reader may go away.
    let mut script = Vec::new();
    completer.write_registration(VARIABLE, "layerize", "layerize", "layerize", &mut script)?;
    std::io::stdout().write_all(&script)?;
    Ok(Outcome::Done)
}
