//! The `layerize` program: hands its arguments to [`layerize::cli`] and exits with the status it gives.

use std::process::ExitCode;

fn main() -> ExitCode {
    layerize::cli::main()
}
