//! `layerize verify-signature`: whether keys vouch for an image.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};

use crate::attest::{self, RejectedBundle, Signers, Verdict, WantedStatement};
use crate::escape::shown;

use super::context::Context;
use super::flags::value;
use super::outcome::Outcome;
use super::output;
use crate::oci::Platform;

/// Arguments of `layerize verify-signature`.
#[derive(Debug, Args)]
pub struct VerifySignatureArgs {
    /// An image, named as for `inspect`; the bundles attached to it are checked
    #[arg(value_hint = ValueHint::AnyPath)]
    source: String,
    /// Public key: Ed25519 or P-256, PEM; repeat it for each of several signers
    #[arg(long = "key", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,
    /// How many of the keys must vouch for the image
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    threshold: NonZeroUsize,
    /// Check this bundle instead of those attached; repeatable
    #[arg(long = "bundle", value_name = "FILE")]
    bundles: Vec<PathBuf>,
    /// What must be vouched for: signature, spdx, cyclonedx, provenance, vsa or the URI of a predicate type
    #[arg(long = "type", value_name = "TYPE", default_value = "signature")]
    kind: String,
    /// With `--type vsa`, which policy must have been checked [default: that of `layerize rebuild --attest`]
    #[arg(long, value_name = "URI")]
    policy: Option<String>,
    /// Write the statement that was verified to a file; of several the first
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Which platform of a multi-platform image
    #[arg(long, value_name = "OS/ARCH", value_parser = value::<Platform>)]
    platform: Option<Platform>,
}

/// Prints which keys vouch for the image; the answer is no if they are too few.
pub fn run(args: &VerifySignatureArgs, context: &Context) -> anyhow::Result<Outcome> {
    let signers = Signers::read(&args.keys, args.threshold)?;
    let wanted = WantedStatement::new(&args.kind, args.policy.as_deref())?;
    let source = context.environment.source(&args.source, args.platform.as_ref())?;
    let verdict = attest::vouch(source.as_ref(), &signers, &wanted, &args.bundles)?;
    let file = args.output.as_deref().filter(|_| verdict.ok);
    if let (Some(statement), Some(_)) = (&verdict.statement, file) {
        output::write(statement, file, context)?;
    }
    tell(&verdict, file, context)
}

/// Says the answer beside `file`, the statement's.
fn tell(verdict: &Verdict, file: Option<&Path>, context: &Context) -> anyhow::Result<Outcome> {
    context.ui.clear();
    let text = match context.ui.json() {
        true => serde_json::to_string(verdict)?,
        false => render(verdict),
    };
    output::report(&text, file, context)?;
    if verdict.ok && !context.ui.json() {
        for RejectedBundle { bundle, reason } in &verdict.rejected {
            context.ui.note(&format!("rejected {bundle}: {reason}"));
        }
    }
    Ok(if verdict.ok { Outcome::Done } else { Outcome::No })
}

/// A line for each bundle that counts and, where the answer is no, for each that does not.
fn render(verdict: &Verdict) -> String {
    let (digest, kind) = (&verdict.digest, &verdict.predicate_type);
    let mut lines: Vec<String> = Vec::new();
    for (key, bundle) in &verdict.vouched {
        lines.push(format!("{digest} {} {} {}", shown(kind), shown(bundle), shown(key)));
    }
    if !verdict.ok {
        let rejected = verdict.rejected.iter();
        lines.extend(rejected.map(|RejectedBundle { bundle, reason }| format!("{}: {}", shown(bundle), shown(reason))));
        let unread = verdict.unread.iter();
        lines.extend(
            unread.map(|reason| format!("{digest}: not all was read: {reason}; name bundles with `--bundle FILE`")),
        );
        lines.extend(lacking(verdict));
    }
    lines.join("\n")
}

/// What is missing, where what was rejected does not say it.
fn lacking(verdict: &Verdict) -> Option<String> {
    let digest = &verdict.digest;
    match (verdict.vouched.len(), verdict.threshold) {
        (0, _) if verdict.rejected.is_empty() => Some(format!(
            "{digest}: no bundle is attached to it; name one with `--bundle FILE`"
        )),
        (0, 1) => None,
        (found, wanted) => Some(format!(
            "{digest}: {found} of the {wanted} keys that are wanted vouch for it"
        )),
    }
}
