//! The *outcome* of a push: what it was asked to do, and what it did.
//!
//! Invariant: every byte and request that went over the wire is counted, also those of attempts that failed.

use std::time::Duration;

use serde::Serialize;

use crate::digest::Digest;

/// How to push.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// How many blobs are under way at once.
    pub concurrency: usize,
    /// Ask only, and say what would be sent.
    pub dry_run: bool,
    /// A tag that names another image is an error, and not moved.
    pub immutable_tags: bool,
    /// The longest wait that a registry may ask for.
    pub wait_max: Duration,
    /// Whether layers that only their vendor hands out are sent, where they are at hand.
    pub non_distributable: bool,
    /// Repositories of the same registry that blobs may be mounted from.
    pub mount_from: Vec<String>,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self {
            concurrency: 8,
            dry_run: false,
            immutable_tags: false,
            non_distributable: false,
            wait_max: Duration::from_secs(300),
            mount_from: Vec::new(),
        }
    }
}

/// An index that is pushed above the images that it lists.
#[derive(Debug, Clone, Copy)]
pub struct IndexDocument<'a> {
    /// Its bytes, sent as they are.
    pub bytes: &'a [u8],
    /// Its media type.
    pub media_type: &'a str,
}

/// A request that a dry run would have made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Its method and path.
    pub request: String,
    /// The bytes of its body.
    pub bytes: u64,
}

/// What a push did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PushSummary {
    /// Digest of the index, else of the (last) image.
    pub digest: Option<Digest>,
    /// The references that name it now.
    pub references: Vec<String>,
    /// What the first tag stood for before, where the push had a reason to ask.
    pub replaced: Option<Digest>,
    /// HTTP requests, those to token servers among them.
    pub requests: u64,
    /// Bytes of all requests' bodies.
    pub bytes_sent: u64,
    /// Blobs that were sent, and their bytes.
    pub blobs_sent: u64,
    /// Bytes of the blobs that were sent.
    pub blob_bytes_sent: u64,
    /// Blobs that were there.
    pub blobs_skipped: u64,
    /// Bytes of the blobs that were there.
    pub bytes_skipped: u64,
    /// Blobs that were mounted from another repository.
    pub blobs_mounted: u64,
    /// Bytes of the blobs that were mounted.
    pub bytes_mounted: u64,
    /// Requests that were made again.
    pub retries: u64,
    /// Requests that waited for their turn.
    pub waits: u64,
    /// Milliseconds that requests waited, all together.
    pub waited_milliseconds: u64,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
    /// What a dry run would have sent.
    pub plan: Vec<Planned>,
}
