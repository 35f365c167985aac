//! `layerize attach`: a document beside a finished image.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::attest::{self, read_document, subject_of};
use crate::oci::Platform;
use crate::project::attach;

use super::context::Context;
use super::documents;
use super::flags::value;
use super::outcome::Outcome;

/// Arguments of `layerize attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// The image: oci:DIR[:TAG] or docker://NAME
    #[arg(value_hint = ValueHint::AnyPath)]
    source: String,
    /// The document: an SPDX or CycloneDX file, an in-toto statement, a sigstore bundle, or anything with `--type`
    file: PathBuf,
    /// What the document is: spdx, cyclonedx or a media type [default: found by looking]
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Which platform of a multi-platform image
    #[arg(long, value_name = "OS/ARCH", value_parser = value::<Platform>)]
    platform: Option<Platform>,
}

/// Attaches the document; prints the artifact's digest, its type and the place.
pub fn run(args: &AttachArgs, context: &Context) -> anyhow::Result<Outcome> {
    let location = args.source.parse()?;
    attach::check_place(&location)?;
    let source = context.environment.source(&args.source, args.platform.as_ref())?;
    let (kind, document) = read_document(&args.file, args.kind.as_deref())?;
    let name = args.file.file_name().map(|name| name.to_string_lossy().into_owned());
    let artifact = attest::artifact(&kind, document, subject_of(source.as_ref())?, &name.unwrap_or_default());
    documents::attach(&artifact, &location, context)?;
    Ok(Outcome::Done)
}
