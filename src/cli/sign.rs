//! `layerize sign`: a sigstore bundle over an image's digest, or over a document about it.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use crate::attest::{
    self, AttachmentKind, AttestError, PrivateKey, SIGNATURE_PREDICATE, Statement, read_document, subject_of,
};
use crate::digest::Digest;
use crate::project::attach;

use super::context::Context;
use super::documents::deliver;
use super::error::{advised, chain};
use super::outcome::Outcome;

/// Arguments of `layerize sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// An image, named as for `inspect`; without `-o` the bundle is attached to it, which needs oci:DIR[:TAG] or docker://NAME
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
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

/// Signs, then writes or attaches the bundle.
pub fn run(args: &SignArgs, context: &Context) -> anyhow::Result<Outcome> {
    let location = args.source.parse()?;
    if args.output.is_none() {
        attach::check_place(&location)?;
    }
    let key = PrivateKey::read(&args.key)?;
    let source = context.environment.source(&args.source, args.platform.as_deref())?;
    let subject = subject_of(source.as_ref())?;
    let bundle = attest::sign(&statement(args, &subject.digest)?, &key)?;
    deliver(bundle, subject, args.output.as_deref(), &location, context)?;
    Ok(Outcome::Done)
}

/// What is signed: that the image is signed, a statement as it is, or a document as a predicate.
fn statement(args: &SignArgs, image: &Digest) -> anyhow::Result<Vec<u8>> {
    let Some(path) = &args.predicate else {
        return Ok(attest::statement(image, SIGNATURE_PREDICATE, &json!({})));
    };
    let (kind, document) = match &args.kind {
        // Any kind will do where the user names the predicate.
        Some(uri) => (
            AttachmentKind::Other(uri.clone()),
            read_document(path, Some("any/json"))?.1,
        ),
        None => read_document(path, None)?,
    };
    let not_signed = |reason: &str| AttestError::Document {
        path: path.clone(),
        reason: reason.to_owned(),
    };
    if matches!(kind, AttachmentKind::Statement(_)) {
        // The very bytes: whoever made the statement decided how it is written.
        let statement = Statement::parse(&document).map_err(|reason| not_signed(&reason))?;
        if !statement.is_about(image) {
            return Err(AttestError::OtherSubject {
                path: path.clone(),
                digest: *image,
            }
            .into());
        }
        return Ok(document);
    }
    let predicate_type = match &kind {
        AttachmentKind::Other(uri) => Some(uri.as_str()),
        known => attest::predicate_type(known),
    };
    let Some(predicate_type) = predicate_type else {
        return Err(advised(
            format!("`{}` is signed already", path.display()),
            "attach it with `layerize attach`",
        ));
    };
    let predicate: Value = crate::oci::parse_json(&document).map_err(|error| not_signed(&chain(&error)))?;
    crate::oci::try_canonical_json(&predicate).map_err(|error| not_signed(&chain(&error)))?;
    Ok(attest::statement(image, predicate_type, &predicate))
}
