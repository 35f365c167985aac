//! *Results* go to standard output or to a file that the user names; reports beside them go where no result goes.
//!
//! Invariant: standard output never holds both.

use std::path::Path;

use crate::fsio;

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
