//! `layerize verify-signature`: whether keys vouch for an image.
//!
//! Invariant: bundles are read, checked and dropped one after the other; one that is of no use is told of and hides no
//! other; a key counts once, however many bundles it signed and however often it is given.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::attest::{
    self, BUNDLE_MAX, ExpectedStatement, PublicKey, REBUILD_POLICY, SIGNATURE_PREDICATE, SUMMARY_TYPE, subject_of,
};
use crate::digest::Digest;
use crate::escape::shown;
use crate::transport::{self, DockerList, ListedReferrer, REFERRERS_MAX, Source, TransportError};

use super::context::Context;
use super::error::{advised, chain};
use super::outcome::Outcome;
use super::output;

/// Names of predicate types that `--type` takes for their URIs, as cosign does.
const TYPES: [(&str, &str); 5] = [
    ("signature", SIGNATURE_PREDICATE),
    ("spdx", "https://spdx.dev/Document"),
    ("cyclonedx", "https://cyclonedx.org/bom"),
    ("provenance", attest::PROVENANCE_TYPE),
    ("vsa", SUMMARY_TYPE),
];

/// Most bytes of manifests and bundles beside one image that are read.
const TOTAL_MAX: u64 = 4 << 30;

/// Arguments of `layerize verify-signature`.
#[derive(Debug, Args)]
pub struct VerifySignatureArgs {
    /// An image, named as for `inspect`; the bundles attached to it are checked
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
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

/// Prints which keys vouch for the image; the answer is no if they are too few.
pub fn run(args: &VerifySignatureArgs, context: &Context) -> anyhow::Result<Outcome> {
    let (files, keys): (Vec<PathBuf>, Vec<PublicKey>) = signers(args)?.into_iter().unzip();
    let kind = TYPES.iter().find(|(name, _)| *name == args.kind);
    let kind = kind.map_or(args.kind.as_str(), |(_, uri)| uri);
    let policy = match (kind == SUMMARY_TYPE, &args.policy) {
        (true, policy) => Some(policy.as_deref().unwrap_or(REBUILD_POLICY)),
        (false, None) => None,
        (false, Some(_)) => {
            let text = format!("`--policy` says nothing of `--type {}`", args.kind);
            return Err(advised(text, "only summaries name a policy: add `--type vsa`"));
        }
    };
    let source = context.environment.source(&args.source, args.platform.as_deref())?;
    let image = subject_of(source.as_ref())?.digest;
    let mut count = Count {
        wanted: ExpectedStatement {
            image,
            keys: &keys,
            predicate: Some(kind),
            policy,
        },
        files: &files,
        statement: None,
        answer: Verdict {
            ok: false,
            digest: image,
            predicate_type: kind.to_owned(),
            threshold: args.threshold.get(),
            vouched: BTreeMap::new(),
            rejected: Vec::new(),
            unread: None,
        },
    };
    for text in two_faced(source.as_ref()) {
        count.reject(args.source.clone(), format!("it can be read as two images: {text}"));
    }
    if count.answer.rejected.is_empty() {
        match args.bundles.as_slice() {
            [] => count.attached(source.as_ref())?,
            bundles => count.given(bundles)?,
        }
        count.answer.ok = count.enough();
    }
    let file = args.output.as_deref().filter(|_| count.answer.ok);
    if let (Some(statement), Some(_)) = (count.statement, file) {
        output::write(&statement, file, context)?;
    }
    count.answer.tell(file, context)
}

/// What makes an archive one image for whoever checks its signature and another one for who loads it.
fn two_faced(source: &dyn Source) -> Vec<String> {
    let mut found = source.contradictions();
    if found.is_empty() && source.docker_list() == Some(DockerList::LeavesOut) {
        found.push("`manifest.json` leaves it out, so that Docker loads something else".to_owned());
    }
    found
}

/// The keys with their files, each key once.
fn signers(args: &VerifySignatureArgs) -> anyhow::Result<Vec<(PathBuf, PublicKey)>> {
    let mut signers: Vec<(PathBuf, PublicKey)> = Vec::new();
    for path in &args.keys {
        let key = PublicKey::read(path)?;
        if signers.iter().all(|(_, other)| *other != key) {
            signers.push((path.clone(), key));
        }
    }
    let (given, threshold) = (signers.len(), args.threshold.get());
    if threshold > given {
        let again = if given < args.keys.len() { " different" } else { "" };
        let text = format!("`--threshold {threshold}` cannot be met by {given}{again} keys");
        return Err(advised(
            text,
            "name the key of every signer with a `--key FILE` of its own",
        ));
    }
    Ok(signers)
}

/// A check of bundles under way.
struct Count<'a> {
    wanted: ExpectedStatement<'a>,
    /// The keys' files.
    files: &'a [PathBuf],
    /// The first statement that was verified.
    statement: Option<Vec<u8>>,
    answer: Verdict,
}

/// What came out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    ok: bool,
    digest: Digest,
    predicate_type: String,
    threshold: usize,
    /// The bundles that count, by the file of the key that signed them.
    vouched: BTreeMap<String, String>,
    rejected: Vec<Rejected>,
    /// Why not everything that is attached was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    unread: Option<String>,
}

/// A bundle that does not count.
#[derive(Debug, Serialize)]
struct Rejected {
    bundle: String,
    reason: String,
}

impl Count<'_> {
    fn enough(&self) -> bool {
        self.answer.vouched.len() >= self.answer.threshold
    }

    fn reject(&mut self, bundle: String, reason: String) {
        self.answer.rejected.push(Rejected { bundle, reason });
    }

    fn check(&mut self, name: String, bundle: &[u8]) {
        match attest::verify(bundle, &self.wanted) {
            Ok(verified) => {
                self.statement.get_or_insert(verified.statement);
                let key = self.files[verified.key].display().to_string();
                self.answer.vouched.entry(key).or_insert(name);
            }
            Err(rejection) => self.reject(name, rejection.to_string()),
        }
    }

    /// Checks bundles in files; one that cannot be read is trouble, because the user named it.
    fn given(&mut self, bundles: &[PathBuf]) -> anyhow::Result<()> {
        for path in bundles {
            let bundle = crate::fsio::read_limited(path, BUNDLE_MAX)?;
            self.check(path.display().to_string(), &bundle);
        }
        Ok(())
    }

    /// Checks the bundles that are attached to the image, as far as it takes.
    fn attached(&mut self, source: &dyn Source) -> Result<(), TransportError> {
        let referrers = source.referrers()?;
        let mut left = TOTAL_MAX;
        for listed in &referrers.listed {
            if listed.artifact_type.as_deref().is_some_and(|kind| !is_bundle(kind)) {
                continue;
            }
            if self.enough() {
                return Ok(());
            }
            match read(source, listed, &self.wanted.image, &mut left) {
                Ok(Some(bundle)) => self.check(listed.digest.to_string(), &bundle),
                Ok(None) => {}
                Err(error) => self.reject(
                    listed.digest.to_string(),
                    format!("it cannot be read: {}", chain(&error)),
                ),
            }
            if left == 0 {
                self.answer.unread = Some(format!("more than {TOTAL_MAX} bytes are attached"));
                return Ok(());
            }
        }
        if referrers.unreadable > 0 {
            let text = format!("{} entries of the list are not descriptors", referrers.unreadable);
            self.answer.unread = Some(text);
        }
        if referrers.cut {
            self.answer.unread = Some(format!("more than {REFERRERS_MAX} artifacts are attached"));
        }
        Ok(())
    }
}

fn is_bundle(artifact_type: &str) -> bool {
    artifact_type.starts_with("application/vnd.dev.sigstore.bundle")
}

/// The bundle that an artifact holds; `None` where it is none, or about another image. `left` is how many bytes may be
/// read yet.
fn read(
    source: &dyn Source,
    listed: &ListedReferrer,
    image: &Digest,
    left: &mut u64,
) -> Result<Option<Vec<u8>>, TransportError> {
    *left = left.saturating_sub(listed.size);
    let referrer = listed.read(source, &(*image).into())?;
    let referrer = referrer.filter(|referrer| is_bundle(&referrer.artifact_type));
    let Some(blob) = referrer.and_then(|referrer| referrer.blobs.into_iter().next()) else {
        return Ok(None);
    };
    let bundle = transport::read_blob(source, &blob, BUNDLE_MAX, "a bundle")?;
    *left = left.saturating_sub(blob.size);
    Ok(Some(bundle))
}

impl Verdict {
    /// Says the answer beside `file`, the statement's.
    fn tell(&self, file: Option<&Path>, context: &Context) -> anyhow::Result<Outcome> {
        context.ui.clear();
        let text = match context.ui.json() {
            true => serde_json::to_string(self)?,
            false => self.render(),
        };
        output::report(&text, file, context)?;
        if self.ok && !context.ui.json() {
            for Rejected { bundle, reason } in &self.rejected {
                context.ui.note(&format!("rejected {bundle}: {reason}"));
            }
        }
        Ok(if self.ok { Outcome::Done } else { Outcome::No })
    }

    /// A line for each bundle that counts and, where the answer is no, for each that does not.
    fn render(&self) -> String {
        let (digest, kind) = (&self.digest, &self.predicate_type);
        let mut lines: Vec<String> = Vec::new();
        for (key, bundle) in &self.vouched {
            lines.push(format!("{digest} {} {bundle} {key}", shown(kind)));
        }
        if !self.ok {
            let rejected = self.rejected.iter();
            lines.extend(rejected.map(|Rejected { bundle, reason }| format!("{bundle}: {}", shown(reason))));
            let unread = self.unread.iter();
            lines.extend(
                unread.map(|reason| format!("{digest}: not all was read: {reason}; name bundles with `--bundle FILE`")),
            );
            lines.extend(self.lacking());
        }
        lines.join("\n")
    }

    /// What is missing, where what was rejected does not say it.
    fn lacking(&self) -> Option<String> {
        let digest = &self.digest;
        match (self.vouched.len(), self.threshold) {
            (0, _) if self.rejected.is_empty() => Some(format!(
                "{digest}: no bundle is attached to it; name one with `--bundle FILE`"
            )),
            (0, 1) => None,
            (found, wanted) => Some(format!(
                "{digest}: {found} of the {wanted} keys that are wanted vouch for it"
            )),
        }
    }
}
