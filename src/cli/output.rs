//! *Results* go to standard output or to a file that the user names; reports beside them go where no result goes.
//!
//! Invariant: standard output never holds both.

use std::path::Path;

use anyhow::Context as _;

use crate::fsio;
use crate::project::git_ignore;

use super::context::Context;

/// Writes a result to a file, or to standard output where none is named or the name is `-`.
pub fn write(result: &[u8], file: Option<&Path>, context: &Context) -> anyhow::Result<()> {
    context.ui.clear();
    match file.filter(|file| *file != Path::new("-")) {
        Some(file) => Ok(fsio::write_output(file, result)?),
        None => Ok(context.ui.result(result)?),
    }
}

/// Prints a report to standard output, or to standard error where `file`, the result's, is standard output.
pub fn report(text: &str, file: Option<&Path>, context: &Context) -> anyhow::Result<()> {
    let taken = file.is_some_and(|file| file == Path::new("-") || fsio::is_standard_output(file));
    match taken {
        true => context.ui.lines(text.trim_end()),
        false => context.ui.data(text.trim_end())?,
    }
    Ok(())
}

/// Has git leave a private key alone, and says so.
pub fn keep_private(key: &Path, context: &Context) -> anyhow::Result<()> {
    let key = context.environment.here.join(key);
    if let Some(ignore) = git_ignore::keep_out(&key).context("the key is made, and git would take it")? {
        context.ui.note(&format!(
            "`{}` is in {}: git leaves it alone, and builds do too",
            context.shown(&key).display(),
            context.shown(&ignore).display()
        ));
    }
    Ok(())
}
