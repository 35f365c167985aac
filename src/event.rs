//! An *event* is something that happened while work was done, told to whoever shows it.
//!
//! Invariant: events are for people and progress displays; no digest and no decision depends on one.

use serde::Serialize;

/// What happened. `name` is what the user calls the thing (`hello`, `deb:gcc`), sizes are bytes.
#[expect(missing_docs, reason = "the fields are what the variant's sentence names")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A build step has its sandbox and runs, or is given to the builder `at`.
    BuildStarted {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        at: Option<String>,
    },
    /// A running build wrote a line to its standard output or error.
    BuildOutput { name: String, line: String },
    /// A build step is done and registered.
    BuildFinished { name: String, path: String },
    /// A download was unpacked and registered.
    Unpacked { name: String, path: String },
    /// What a build step compiled of `part` is compiled anew by the next one, whatever that is for.
    NotKept { name: String, part: String, reason: String },
    /// A build step had been done before.
    Reused { name: String, path: String },
    /// A build step, or something it refers to, was taken from where others keep what they built.
    BuildShared { name: String, path: String, from: String },
    /// What a built step takes up at a place where it is kept for others now; `sent` bytes went there.
    BuildPublished { name: String, to: String, sent: u64 },
    /// What a place said that was asked for a file, where it did not give it over a network.
    FetchAsked {
        name: String,
        place: String,
        answer: String,
    },
    /// A download begins.
    FetchStarted { name: String, size: Option<u64> },
    /// More bytes of a download arrived (`bytes` in all).
    FetchProgress { name: String, bytes: u64 },
    /// A download is complete and verified; `from` is where it came from.
    FetchFinished { name: String, bytes: u64, from: String },
    /// A layer is being packed; `size` is its uncompressed size where known.
    LayerStarted { layer: usize, layers: usize, size: u64 },
    /// A layer is done; `cached` where no file was opened for it.
    LayerFinished {
        layer: usize,
        layers: usize,
        size: u64,
        compressed: u64,
        cached: bool,
    },
    /// A blob is looked for at a registry, and sent if it is missing; `repository` has its host before it.
    BlobStarted {
        name: String,
        size: u64,
        repository: String,
    },
    /// More bytes of a blob were sent (`bytes` from its start).
    BlobProgress { name: String, bytes: u64 },
    /// A blob is at the registry.
    BlobFinished {
        name: String,
        size: u64,
        outcome: BlobOutcome,
    },
    /// A host is asked again only after a pause.
    Waiting {
        host: String,
        milliseconds: u64,
        reason: String,
    },
    /// An image is at a registry, with bytes as sent, found there, and mounted there.
    Pushed {
        references: Vec<String>,
        digest: String,
        requests: u64,
        sent: u64,
        skipped: u64,
        mounted: u64,
        milliseconds: u64,
    },
    /// An image was written or loaded. `digest` is that of its manifest, `id` that of its config, by which engines name it.
    ImageWritten {
        name: String,
        digest: String,
        id: String,
        destination: String,
    },
    /// An image or an index is where it was to go; of its bytes, `written` were sent and `skipped` were there
    /// already. With `dry_run` nothing was written, and the numbers say what would be.
    Transferred {
        digest: String,
        destination: String,
        written: u64,
        skipped: u64,
        milliseconds: u64,
        dry_run: bool,
    },
    /// The inputs of an image are kept at `destination`: `inputs` files from outside, of which `withheld` more may not be
    /// copied. Of all blobs `blobs_sent` were sent, or in a dry run would be, and the others were there.
    InputsKept {
        digest: String,
        destination: String,
        inputs: usize,
        withheld: usize,
        requests: u64,
        blobs_sent: u64,
        bytes_sent: u64,
        blobs_there: u64,
        dry_run: bool,
    },
    /// A registry of images that are built when they are pulled is there.
    Serving { address: String },
    /// An image that is served is this one from now on, under these names.
    ImageServed {
        name: String,
        digest: String,
        references: Vec<String>,
    },
    /// A request of a client was answered.
    Answered {
        client: String,
        method: String,
        path: String,
        status: u16,
    },
    /// Something the user should know but need not act on.
    Note { text: String },
    /// Something the user should act on.
    Warning { text: String },
}

/// How a blob came to be where it is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlobOutcome {
    /// It was sent.
    Sent,
    /// It was there.
    Present,
    /// The registry took it from another of its repositories.
    Mounted,
}

/// Receives events, from many threads.
pub trait Reporter: Sync {
    /// Takes one event; must not block for long.
    fn report(&self, event: Event);
}

/// Drops every event.
pub struct Silent;

impl Reporter for Silent {
    fn report(&self, _: Event) {}
}
