//! Whether keys *vouch* for an image: bundles are counted until as many keys have signed as are wanted.
//!
//! Invariant: bundles are read, checked and dropped one after the other; one that is of no use is listed with its reason
//! and hides no other; a key counts once, however many bundles it signed and however often it is given; an image that can
//! be read in two ways is vouched for by nobody.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::digest::Digest;
use crate::fsio::{read_limited, with_causes};
use crate::transport::{self, DockerList, ListedReferrer, REFERRERS_MAX, Source, TransportError};

use super::AttestError;
use super::artifact::subject_of;
use super::bundle::{BUNDLE_MAX, ExpectedStatement, verify};
use super::key::PublicKey;
use super::summary::{REBUILD_POLICY, SUMMARY_TYPE};

/// Most bytes of manifests and bundles beside one image that are read.
const TOTAL_MAX: u64 = 4 << 30;

/// The keys whose signatures count, each once, and how many of them must vouch.
#[derive(Debug, Clone)]
pub struct Signers {
    /// The keys' files, in the order in which they were given.
    files: Vec<PathBuf>,
    keys: Vec<PublicKey>,
    threshold: NonZeroUsize,
}

impl Signers {
    /// Reads the files of the keys.
    ///
    /// # Errors
    ///
    /// A file that holds no public key, or fewer different keys than `threshold`.
    pub fn read(files: &[PathBuf], threshold: NonZeroUsize) -> Result<Self, AttestError> {
        let mut signers = Self {
            files: Vec::new(),
            keys: Vec::new(),
            threshold,
        };
        for path in files {
            let key = PublicKey::read(path)?;
            if !signers.keys.contains(&key) {
                signers.files.push(path.clone());
                signers.keys.push(key);
            }
        }
        match threshold.get() > signers.keys.len() {
            false => Ok(signers),
            true => Err(AttestError::Threshold {
                threshold: threshold.get(),
                keys: signers.keys.len(),
                repeated: signers.keys.len() < files.len(),
            }),
        }
    }
}

/// What must be stated of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedStatement {
    /// URI of the predicate type.
    predicate: String,
    /// Of verification summaries: URI of the policy that must have been checked.
    policy: Option<String>,
}

impl WantedStatement {
    /// A kind by its short name (`signature`, `spdx`, `cyclonedx`, `provenance`, `vsa`, as cosign names them) or by the URI
    /// of its predicate type; of verification summaries with the policy, by default that of `layerize rebuild`.
    ///
    /// # Errors
    ///
    /// A policy for a kind that names none.
    pub fn new(kind: &str, policy: Option<&str>) -> Result<Self, AttestError> {
        let predicate = super::artifact::predicate_of_name(kind).unwrap_or(kind).to_owned();
        let policy = match (predicate == SUMMARY_TYPE, policy) {
            (true, policy) => Some(policy.unwrap_or(REBUILD_POLICY).to_owned()),
            (false, None) => None,
            (false, Some(_)) => return Err(AttestError::PolicyOfOther { kind: kind.to_owned() }),
        };
        Ok(Self { predicate, policy })
    }
}

/// Who vouches for an image, and what does not count.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Whether as many keys vouch for the image as are wanted.
    pub ok: bool,
    /// The image, by its manifest's digest.
    pub digest: Digest,
    /// URI of the predicate type that was wanted.
    pub predicate_type: String,
    /// How many keys are wanted.
    pub threshold: usize,
    /// The bundles that count, by the file of the key that signed them.
    pub vouched: BTreeMap<String, String>,
    /// The bundles that do not count.
    pub rejected: Vec<RejectedBundle>,
    /// Why not everything that is attached was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
    /// The first statement that was verified, as it was signed.
    #[serde(skip)]
    pub statement: Option<Vec<u8>>,
}

/// A bundle that does not count.
#[derive(Debug, Serialize)]
pub struct RejectedBundle {
    /// Its file, or the digest of the artifact that holds it.
    pub bundle: String,
    /// Why it does not count.
    pub reason: String,
}

/// Counts who vouches for the image that `source` names: by the bundles in `files`, or else by those that are attached to
/// it, as far as it takes.
///
/// # Errors
///
/// An image that cannot be read, and a file that the user names and that cannot be read. What is attached and cannot be
/// read does not count, and is listed.
pub fn vouch(
    source: &dyn Source,
    signers: &Signers,
    wanted: &WantedStatement,
    files: &[PathBuf],
) -> Result<Verdict, AttestError> {
    let image = subject_of(source)?.digest;
    let mut count = Count {
        wanted: ExpectedStatement {
            image,
            keys: &signers.keys,
            predicate: Some(&wanted.predicate),
            policy: wanted.policy.as_deref(),
        },
        files: &signers.files,
        verdict: Verdict {
            ok: false,
            digest: image,
            predicate_type: wanted.predicate.clone(),
            threshold: signers.threshold.get(),
            vouched: BTreeMap::new(),
            rejected: Vec::new(),
            unread: None,
            statement: None,
        },
    };
    for text in two_faced(source) {
        count.reject(
            source.place().to_owned(),
            format!("it can be read as two images: {text}"),
        );
    }
    if count.verdict.rejected.is_empty() {
        match files {
            [] => count.attached(source)?,
            files => count.given(files)?,
        }
        count.verdict.ok = count.enough();
    }
    Ok(count.verdict)
}

/// What makes an archive one image for whoever checks its signature and another one for who loads it.
fn two_faced(source: &dyn Source) -> Vec<String> {
    let mut found = source.contradictions();
    if found.is_empty() && source.docker_list() == Some(DockerList::LeavesOut) {
        found.push("`manifest.json` leaves it out, so that Docker loads something else".to_owned());
    }
    found
}

/// A check of bundles under way.
struct Count<'a> {
    wanted: ExpectedStatement<'a>,
    /// The keys' files.
    files: &'a [PathBuf],
    verdict: Verdict,
}

impl Count<'_> {
    fn enough(&self) -> bool {
        self.verdict.vouched.len() >= self.verdict.threshold
    }

    fn reject(&mut self, bundle: String, reason: String) {
        self.verdict.rejected.push(RejectedBundle { bundle, reason });
    }

    fn check(&mut self, name: String, bundle: &[u8]) {
        match verify(bundle, &self.wanted) {
            Ok(verified) => {
                self.verdict.statement.get_or_insert(verified.statement);
                let key = self.files[verified.key].display().to_string();
                self.verdict.vouched.entry(key).or_insert(name);
            }
            Err(rejection) => self.reject(name, rejection.to_string()),
        }
    }

    /// Checks bundles in files; one that cannot be read is an error, because the user named it.
    fn given(&mut self, bundles: &[PathBuf]) -> Result<(), AttestError> {
        for path in bundles {
            let bundle = read_limited(path, BUNDLE_MAX)?;
            self.check(path_text(path), &bundle);
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
                    format!("it cannot be read: {}", with_causes(&error)),
                ),
            }
            if left == 0 {
                self.verdict.unread = Some(format!("more than {TOTAL_MAX} bytes are attached"));
                return Ok(());
            }
        }
        if referrers.unreadable > 0 {
            let text = format!("{} entries of the list are not descriptors", referrers.unreadable);
            self.verdict.unread = Some(text);
        }
        if referrers.cut {
            self.verdict.unread = Some(format!("more than {REFERRERS_MAX} artifacts are attached"));
        }
        Ok(())
    }
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}

/// Whether an artifact claims to be a bundle, of this version of the form or another one.
fn is_bundle(artifact_type: &str) -> bool {
    artifact_type.starts_with("application/vnd.dev.sigstore.bundle")
}

/// The bundle that an artifact holds; `None` where it is not a bundle, or about another image. `left` is how many bytes
/// may still be read.
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
