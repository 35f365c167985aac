//! `layerize rebuild`: makes an image anew from what is kept beside it, or from a spec, and compares.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueHint};

use crate::attest::{PrivateKey, subject_of};
use crate::audit::DiffReport;
use crate::escape::shown;
use crate::oci::{Compression, Platform};
use crate::project::attach;
use crate::project::rebuild::{self, MakingFacts, RebuildOptions, RebuildReport};
use crate::transport::Source;

use super::complete;
use super::context::Context;
use super::documents::deliver;
use super::error::advised;
use super::flags::{BuildFlags, value};
use super::outcome::Outcome;
use super::output;

/// Arguments of `layerize rebuild`.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// An image of layerize's, named as for `inspect`
    #[arg(value_hint = ValueHint::AnyPath)]
    source: String,
    /// The spec that it was made from, or its directory [default: what is kept beside the image, else the nearest
    /// layerize.toml]
    #[arg(long, value_name = "PATH")]
    spec: Option<PathBuf>,
    /// Which image of the spec [default: the one of its name]
    #[arg(long, value_name = "NAME", add = complete::images())]
    image: Option<String>,
    /// Which platform of a multi-platform image
    #[arg(long, value_name = "OS/ARCH", value_parser = value::<Platform>)]
    platform: Option<Platform>,
    /// The compression with its level, which no image records [default: the spec's]
    #[arg(long, value_name = "HOW", value_parser = value::<Compression>)]
    compression: Option<Compression>,
    /// If the digest is the same, sign a statement about it (a SLSA verification summary) with `--key`, and attach it to
    /// the image, which needs oci:DIR[:TAG] or docker://NAME, or write it to `-o`
    #[arg(long, requires = "key")]
    attest: bool,
    /// Private key: Ed25519 or P-256, PKCS #8 in PEM
    #[arg(long, value_name = "FILE", requires = "attest")]
    key: Option<PathBuf>,
    /// Write the bundle to a file instead of attaching it
    #[arg(short, long, value_name = "FILE", requires = "attest")]
    output: Option<PathBuf>,
    #[command(flatten)]
    flags: BuildFlags,
}

/// Rebuilds and compares; the answer is no if the digest is another.
pub fn run(args: &RebuildArgs, context: &Context) -> anyhow::Result<Outcome> {
    let signer = signer(args)?;
    let source: Arc<dyn Source> = Arc::from(context.environment.source(&args.source, args.platform.as_ref())?);
    let mut environment = context.environment.clone();
    environment.file = args.spec.clone().or(environment.file);
    let mut work = args.flags.options();
    if !work.cache.from.is_empty() || !work.cache.to.is_empty() {
        return Err(advised(
            "a rebuild neither reads nor writes shared caches: it would compare what was built with itself",
            "leave out `--cache-from` and `--cache-to`",
        ));
    }
    work.cache.none = true;
    let options = RebuildOptions {
        image: args.image.clone(),
        compression: args.compression,
        work,
    };
    let rebuilt = rebuild::rebuild(&source, &options, &environment)?;
    let report = &rebuilt.report;
    context.ui.clear();
    let text = match context.ui.json() {
        true => serde_json::to_string(report)?,
        false => render(report),
    };
    output::report(&text, args.output.as_deref(), context)?;
    if !report.same {
        return Ok(Outcome::No);
    }
    if let Some(key) = signer {
        let bundle = rebuilt.summary(source.as_ref(), &key, context.now()?)?;
        let location = args.source.parse()?;
        let subject = subject_of(source.as_ref())?;
        deliver(bundle, subject, args.output.as_deref(), &location, context)?;
    }
    Ok(Outcome::Done)
}

/// The key that the answer is to be signed with; what keeps it from being signed or kept is told before anything is built.
fn signer(args: &RebuildArgs) -> anyhow::Result<Option<PrivateKey>> {
    let Some(key) = &args.key else { return Ok(None) };
    if args.output.is_none() {
        attach::check_place(&args.source.parse()?)?;
    }
    Ok(Some(PrivateKey::read(key)?))
}

fn render(report: &RebuildReport) -> String {
    let MakingFacts {
        format,
        platform,
        created,
        compression,
        ..
    } = &report.facts;
    let facts = format!("format {format}, {platform}, {created}, {compression}");
    let facts = shown(&facts);
    if report.same {
        return format!("same     image {} {} ({facts})\n", report.image, report.digest);
    }
    let mut text = format!(
        "DIFFERS  image {} {} and {} ({facts})\n",
        report.image, report.digest, report.rebuilt
    );
    text.extend(report.remark.map(|remark| format!("{remark}\n")));
    text.extend(report.differences.as_ref().map(DiffReport::render));
    text
}
