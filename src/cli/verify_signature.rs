//! `layerize verify-signature`: whether a key vouches for an image.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::attest::{self, BUNDLE_MAX, BUNDLE_TYPE, PublicKey, Rejection, SIGNATURE_PREDICATE, Verified};
use crate::transport::{self, Source};

use super::Outcome;
use super::attest::{output, subject_of};
use super::context::Context;

/// Names of predicate types that `--type` takes for their URIs, as cosign does.
const TYPES: [(&str, &str); 4] = [
    ("signature", SIGNATURE_PREDICATE),
    ("spdx", "https://spdx.dev/Document"),
    ("cyclonedx", "https://cyclonedx.org/bom"),
    ("provenance", attest::PROVENANCE_TYPE),
];

/// Most bundles beside an image that are checked.
const BUNDLES_MAX: usize = 100;

/// Arguments of `layerize verify-signature`.
#[derive(Debug, Args)]
pub struct VerifySignatureArgs {
    /// An image, named as for `inspect`; the bundles attached to it are checked
    source: String,
    /// Public key: Ed25519 or P-256, PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Check this bundle instead of those attached
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// What must be vouched for: signature, spdx, cyclonedx, provenance or the URI of a predicate type
    #[arg(long = "type", value_name = "TYPE", default_value = "signature")]
    kind: String,
    /// Write the statement that was verified to a file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Which platform of a multi-platform image
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

/// Prints what the key vouches for; the answer is no if nothing of the wanted kind is among it.
pub fn run(args: &VerifySignatureArgs, context: &Context) -> anyhow::Result<Outcome> {
    let key = PublicKey::read(&args.key)?;
    let source = context.source(&args.source, args.platform.as_deref())?;
    let image = subject_of(source.as_ref())?.digest;
    let wanted = TYPES.iter().find(|(name, _)| *name == args.kind);
    let wanted = wanted.map_or(args.kind.as_str(), |(_, uri)| uri);
    let bundles = match &args.bundle {
        Some(path) => vec![(path.display().to_string(), crate::fsio::read_limited(path, BUNDLE_MAX)?)],
        None => attached(source.as_ref())?,
    };
    let mut rejected: Vec<(String, Rejection)> = Vec::new();
    for (name, bundle) in bundles {
        match attest::verify(&bundle, &image, &key, Some(wanted)) {
            Ok(verified) => return vouched(&verified, &image.to_string(), &name, args, context),
            Err(rejection) => rejected.push((name, rejection)),
        }
    }
    if context.ui.json() {
        let rejected: Vec<_> = rejected
            .iter()
            .map(|(name, rejection)| json!({ "bundle": name, "reason": rejection.to_string() }))
            .collect();
        context.ui.data(
            &json!({ "ok": false, "digest": image, "predicateType": wanted, "rejected": rejected }).to_string(),
        )?;
        return Ok(Outcome::No);
    }
    if rejected.is_empty() {
        context.ui.data(&format!(
            "{image}: no bundle is attached to it; name one with `--bundle FILE`"
        ))?;
    }
    for (name, rejection) in rejected {
        context.ui.data(&format!("{name}: {rejection}"))?;
    }
    Ok(Outcome::No)
}

fn vouched(
    verified: &Verified,
    image: &str,
    name: &str,
    args: &VerifySignatureArgs,
    context: &Context,
) -> anyhow::Result<Outcome> {
    if args.output.is_some() {
        output(&verified.statement, args.output.as_deref(), context)?;
    }
    let kind = &verified.predicate_type;
    let text = match context.ui.json() {
        true => json!({ "ok": true, "digest": image, "predicateType": kind, "bundle": name }).to_string(),
        false => format!("{image} {kind} {name}"),
    };
    context.ui.data(&text)?;
    Ok(Outcome::Done)
}

/// The bundles attached to the image, each with its artifact's digest.
fn attached(source: &dyn Source) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut bundles = Vec::new();
    for referrer in source.referrers()? {
        let is_bundle = |kind: &str| kind.starts_with("application/vnd.dev.sigstore.bundle");
        if !is_bundle(&referrer.artifact_type) || bundles.len() == BUNDLES_MAX {
            continue;
        }
        if let Some(blob) = referrer.blobs.first() {
            let bytes = transport::read_blob(source, blob, BUNDLE_MAX, "a bundle")
                .with_context(|| format!("cannot read the bundle of `{}` ({BUNDLE_TYPE})", referrer.digest))?;
            bundles.push((referrer.digest.to_string(), bytes));
        }
    }
    Ok(bundles)
}
