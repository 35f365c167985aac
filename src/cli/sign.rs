//! `layerize sign`: a sigstore bundle over an image's digest, or over a document about it.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use serde_json::json;

use crate::attest::{self, PrivateKey, SIGNATURE_PREDICATE, subject_of};
use crate::oci::Platform;
use crate::project::attach;

use super::context::Context;
use super::documents::deliver;
use super::flags::value;
use super::outcome::Outcome;

/// Arguments of `layerize sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// An image, named as for `inspect`; without `-o` the bundle is attached to it, which needs oci:DIR[:TAG] or docker://NAME
    #[arg(value_hint = ValueHint::AnyPath)]
    source: String,
    /// Private key: Ed25519 or P-256, PKCS #8 in PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Sign this document about the image: SPDX, CycloneDX, an in-toto statement, or any JSON with `--type`
    #[arg(long, value_name = "FILE")]
    predicate: Option<PathBuf>,
    /// Type of the predicate, a URI [default: found by looking]
    #[arg(long = "type", value_name = "URI", requires = "predicate")]
    kind: Option<String>,
    /// Write the bundle to a file instead of attaching it
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Which platform of a multi-platform image
    #[arg(long, value_name = "OS/ARCH", value_parser = value::<Platform>)]
    platform: Option<Platform>,
}

/// Signs, then writes or attaches the bundle.
pub fn run(args: &SignArgs, context: &Context) -> anyhow::Result<Outcome> {
    let location = args.source.parse()?;
    if args.output.is_none() {
        attach::check_place(&location)?;
    }
    let key = PrivateKey::read(&args.key)?;
    let source = context.environment.source(&args.source, args.platform.as_ref())?;
    let subject = subject_of(source.as_ref())?;
    let statement = match &args.predicate {
        Some(document) => attest::statement_of(document, args.kind.as_deref(), &subject.digest)?,
        None => attest::statement(&subject.digest, SIGNATURE_PREDICATE, &json!({})),
    };
    let bundle = attest::sign(&statement, &key)?;
    deliver(bundle, subject, args.output.as_deref(), &location, context)?;
    Ok(Outcome::Done)
}
