//! A *verification summary* says that somebody checked an image by a policy, and what came of it (SLSA verification
//! summary v1, as the predicate of an in-toto statement).
//!
//! Invariant: layerize sums up one check alone, [`REBUILD_POLICY`], and only after the image passed it; of what others
//! sum up, nothing but `PASSED` counts.
//!
//! No SLSA level is claimed, because a rebuild shows none: `verifiedLevels` holds a value of our own, as the
//! specification allows. What the image was rebuilt from stands in an extension field, whose name is the policy's URI.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::digest::Digest;
use crate::image;
use crate::layer;

use super::AttestError;
use super::bundle::{Rejection, shown};
use super::inventory::TOOL;
use super::provenance::{BuildFacts, file_descriptors};
use super::purl;
use super::statement::{predicate_of, statement_of};

/// Type of the predicate.
pub const SUMMARY_TYPE: &str = "https://slsa.dev/verification_summary/v1";

/// The policy that a rebuild checks: made again from its spec and lock, the image has the same digest. A name and no
/// address.
pub const REBUILD_POLICY: &str = "https://layerize.dev/rebuild/v1";

/// Who checked: any layerize, trusted as far as whoever signs. A name and no address.
const REBUILDER: &str = "https://layerize.dev/rebuilder/local/v1";

/// What an image that was rebuilt is said to be; names that begin with `SLSA_` are the specification's own.
const LEVEL: &str = "LAYERIZE_REBUILT_TO_THE_SAME_DIGEST";

const PASSED: &str = "PASSED";

/// A rebuild that gave the same digest.
#[derive(Debug)]
pub struct RebuildFacts<'a> {
    /// The image.
    pub digest: Digest,
    /// Its name, with the registry's host and the repository where it was read from one.
    pub name: &'a str,
    /// The processor that it is for, as Go calls it.
    pub architecture: &'a str,
    /// When the rebuild ended, in seconds since 1970.
    pub time: i64,
    /// What it was rebuilt from.
    pub build: &'a BuildFacts,
}

/// The statement as canonical JSON.
pub fn summary(facts: &RebuildFacts<'_>) -> Result<Vec<u8>, AttestError> {
    let time = image::format_time(facts.time).ok_or(AttestError::Time { seconds: facts.time })?;
    let mut rebuilt_from = json!({ "spec": file_descriptors(&facts.build.spec) });
    if let Some(lock) = &facts.build.lock {
        rebuilt_from["lock"] = json!({ "digest": { "sha256": lock.hex() } });
    }
    let predicate = json!({
        "verifier": {
            "id": REBUILDER,
            "version": { TOOL.0: TOOL.1, "layerFormat": layer::FORMAT.to_string() },
        },
        "timeVerified": time,
        "resourceUri": purl::oci(facts.name, &facts.digest, Some(facts.architecture), None),
        "policy": { "uri": REBUILD_POLICY },
        "verificationResult": PASSED,
        "verifiedLevels": [LEVEL],
        "slsaVersion": "1.1",
        REBUILD_POLICY: rebuilt_from,
    });
    let subject: [Value; 1] = [json!({ "name": facts.name, "digest": { "sha256": facts.digest.hex() } })];
    Ok(statement_of(&subject, SUMMARY_TYPE, &predicate))
}

/// Whether a statement whose predicate is a summary says that the check was passed, by this policy if one is wanted.
pub(super) fn check(statement: &[u8], policy: Option<&str>) -> Result<(), Rejection> {
    /// What the specification requires, as far as it decides anything.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Summary {
        policy: Policy,
        verification_result: String,
    }
    #[derive(Deserialize)]
    struct Policy {
        uri: String,
    }
    let summary: Summary = predicate_of(statement).map_err(Rejection::Malformed)?;
    if policy.is_some_and(|wanted| wanted != summary.policy.uri) {
        return Err(Rejection::Policy(shown(&summary.policy.uri)));
    }
    match summary.verification_result.as_str() {
        PASSED => Ok(()),
        other => Err(Rejection::Result(shown(other))),
    }
}
