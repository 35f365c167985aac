//! `layerize init`: the first spec of a directory.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::fsio;
use crate::project::SPEC_NAME;
use crate::project::starter::{Detected, Starter};

use super::context::Context;
use super::error::advised;
use super::outcome::Outcome;

/// Arguments of `layerize init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The directory, which is made if it is missing [default: the current one]
    dir: Option<PathBuf>,
    /// What package and image are called [default: as the directory]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// Writes a spec that suits what is there, and says what to type next.
pub fn run(args: &InitArgs, context: &Context) -> anyhow::Result<Outcome> {
    let here = &context.environment.here;
    let dir = args.dir.as_ref().map_or_else(|| here.clone(), |dir| here.join(dir));
    fsio::create_dir_all(&dir)?;
    let dir = fs::canonicalize(&dir).with_context(|| format!("cannot resolve `{}`", dir.display()))?;
    let spec = dir.join(SPEC_NAME);
    if spec.symlink_metadata().is_ok() {
        return Err(advised(
            format!("`{}` exists already", context.shown(&spec).display()),
            "`layerize build` builds what it describes",
        ));
    }
    let starter = Starter::of(&dir, args.name.as_deref())?;
    check(&starter)?;
    for (path, text) in starter.files(&dir)? {
        fsio::write_atomic(&path, text.as_bytes())?;
        context.ui.data(&context.shown(&path).display().to_string())?;
    }
    let into = match args.dir {
        Some(_) => format!("cd {} && ", context.shown(&dir).display()),
        None => String::new(),
    };
    context.ui.note(&match starter.found {
        Detected::Other => format!("Write the package's script in {SPEC_NAME}, then: {into}layerize build"),
        _ => format!("Next: {into}layerize build"),
    });
    Ok(Outcome::Done)
}

/// A name that the user chose may be none that images have.
fn check(starter: &Starter) -> anyhow::Result<()> {
    match crate::spec::parse(&starter.spec()) {
        Ok(_) => Ok(()),
        Err(_) => Err(advised(
            format!("`{}` is not a valid name for a package and an image", starter.name),
            "names are lower-case letters, digits and single `-`, `_` or `.` between them: `--name my-app`",
        )),
    }
}
