//! *Transfers* of blobs to and from a builder's storage: what it lacks is sent, what is fetched is proved by its hash.
//!
//! Invariant: memory holds a piece of a file at a time, never a whole large one; of what several steps need each blob is
//! sent by one of them, and the others wait for that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::bytestream as stream;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::blob::Blob;
use super::error::{RemoteError, message_of};
use super::line::{Line, MESSAGE_MAX, Tries, is_cancelled};
use super::tree::{Contents, Dir, Node};
use crate::digest::HashingWriter;
use crate::fsio::IoContext;

/// Most bytes of blobs that travel in one message.
const BATCH_MAX: u64 = 1 << 20;

/// Most blobs in one message.
const BATCH_COUNT: usize = 1000;

/// Most blobs that are asked for at once.
const ASKED_AT_ONCE: usize = 4000;

/// Bytes of a large blob that travel together.
const PIECE: usize = 256 << 10;

/// Pieces that wait for the connection to take them.
const PIECES_AHEAD: usize = 2;

/// Room that a message needs for each blob beside its bytes.
const OVERHEAD: u64 = 128;

/// How soon a step that waits for another's upload looks again.
const GLANCE: Duration = Duration::from_millis(100);

/// Takes a blob that was fetched and verified.
pub(super) type TakeBlob<'a> = dyn FnMut(Blob, &[u8]) -> Result<(), RemoteError> + 'a;

/// Where the bytes of a blob to be sent are.
#[derive(Debug, Clone)]
enum Source {
    Dir(Arc<Dir>),
    Contents(Contents),
}

/// What is known of what the builder's storage has.
#[derive(Debug, Default)]
struct Presence {
    /// Blobs that are there (true), or that a step is sending.
    blobs: BTreeMap<Blob, bool>,
    /// Directories that are there with all below them.
    whole: BTreeSet<Blob>,
}

/// The blobs of a builder.
pub(super) struct Transfers {
    presence: Mutex<Presence>,
    changed: Condvar,
    /// Most bytes in one message.
    batch: u64,
}

impl Transfers {
    /// Those of a builder that takes messages with so many bytes of blobs; 0: as many as any.
    pub(super) fn new(batch: u64) -> Self {
        let batch = if batch == 0 { BATCH_MAX } else { batch.min(BATCH_MAX) };
        Self {
            presence: Mutex::default(),
            changed: Condvar::new(),
            batch,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was there: it is said to be gone.
    pub(super) fn forget(&self) {
        let mut presence = self.lock();
        presence.blobs.retain(|_, is_there| !*is_there);
        presence.whole.clear();
    }

    /// Makes sure that the storage has a tree, and these blobs besides.
    pub(super) fn send(&self, line: &Line, root: &Arc<Dir>, others: &[Vec<u8>]) -> Result<(), RemoteError> {
        let mut needed = BTreeMap::new();
        let mut dirs = BTreeSet::new();
        collect(root, &self.lock().whole, &mut needed, &mut dirs);
        for bytes in others {
            needed.insert(
                Blob::of(bytes),
                Source::Contents(Contents::Bytes(bytes.as_slice().into())),
            );
        }
        loop {
            let (mut claimed, mut is_waiting) = (Vec::new(), false);
            let mut presence = self.lock();
            for blob in needed.keys() {
                match presence.blobs.get(blob) {
                    Some(true) => {}
                    Some(false) => is_waiting = true,
                    None => {
                        presence.blobs.insert(*blob, false);
                        claimed.push(*blob);
                    }
                }
            }
            if claimed.is_empty() && !is_waiting {
                presence.whole.extend(dirs);
                return Ok(());
            }
            if claimed.is_empty() {
                let waited = self.changed.wait_timeout(presence, GLANCE);
                drop(waited);
                if is_cancelled() {
                    return Err(RemoteError::Cancelled);
                }
                continue;
            }
            drop(presence);
            let claims = Claims {
                transfers: self,
                claimed,
                were_sent: false,
            };
            self.send_claimed(line, claims, &needed)?;
        }
    }

    fn send_claimed(
        &self,
        line: &Line,
        mut claims: Claims<'_>,
        needed: &BTreeMap<Blob, Source>,
    ) -> Result<(), RemoteError> {
        for asked in claims.claimed.chunks(ASKED_AT_ONCE) {
            let (mut batch, mut size) = (Vec::new(), 0);
            for blob in missing(line, asked)? {
                // What it says to lack need not be what it was asked for.
                let Some(source) = needed.get(&blob) else { continue };
                let own = blob.size + OVERHEAD;
                if own > self.batch {
                    send_stream(line, blob, source)?;
                    continue;
                }
                if size + own > self.batch || batch.len() == BATCH_COUNT {
                    send_batch(line, std::mem::take(&mut batch))?;
                    size = 0;
                }
                size += own;
                batch.push((blob, bytes_of(blob, source)?));
            }
            if !batch.is_empty() {
                send_batch(line, batch)?;
            }
        }
        claims.were_sent = true;
        Ok(())
    }

    /// Fetches blobs, each verified, and gives them to `take` one after the other; small ones several in a message.
    pub(super) fn fetch(&self, line: &Line, blobs: &[Blob], take: &mut TakeBlob<'_>) -> Result<(), RemoteError> {
        let mut batch = Vec::new();
        let mut size = 0;
        for &blob in blobs {
            let own = blob.size + OVERHEAD;
            if size + own > self.batch || batch.len() == BATCH_COUNT {
                fetch_batch(line, &std::mem::take(&mut batch), take)?;
                size = 0;
            }
            size += own;
            batch.push(blob);
        }
        match batch.is_empty() {
            true => Ok(()),
            false => fetch_batch(line, &batch, take),
        }
    }

    /// Whether a blob travels by itself.
    pub(super) fn is_large(&self, blob: Blob) -> bool {
        blob.size + OVERHEAD > self.batch
    }

    /// Fetches a blob of at most `limit` bytes, verified.
    pub(super) fn fetch_whole(&self, line: &Line, blob: Blob, limit: u64) -> Result<Vec<u8>, RemoteError> {
        if blob.size > limit {
            let reason = format!("a message of {} bytes, where no more than {limit} are taken", blob.size);
            return Err(line.wrong(reason));
        }
        let mut bytes = Vec::new();
        match self.is_large(blob) {
            true => fetch_stream(line, blob, &mut bytes, Path::new("a message"))?,
            false => self.fetch(line, &[blob], &mut |_, found| {
                bytes.extend_from_slice(found);
                Ok(())
            })?,
        }
        Ok(bytes)
    }
}

/// Blobs that a step sends; where it fails, others may.
struct Claims<'a> {
    transfers: &'a Transfers,
    claimed: Vec<Blob>,
    were_sent: bool,
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        let mut presence = self.transfers.lock();
        for blob in &self.claimed {
            match self.were_sent {
                true => presence.blobs.insert(*blob, true),
                false => presence.blobs.remove(blob),
            };
        }
        drop(presence);
        self.transfers.changed.notify_all();
    }
}

/// What of a tree is not known to be there, and the directories that were looked into.
fn collect(root: &Arc<Dir>, whole: &BTreeSet<Blob>, needed: &mut BTreeMap<Blob, Source>, dirs: &mut BTreeSet<Blob>) {
    let mut open = vec![root];
    while let Some(dir) = open.pop() {
        if whole.contains(&dir.blob()) || !dirs.insert(dir.blob()) {
            continue;
        }
        needed.insert(dir.blob(), Source::Dir(dir.clone()));
        for node in dir.entries().values() {
            match node {
                Node::Dir(below) => open.push(below),
                Node::File(leaf) => {
                    needed
                        .entry(leaf.blob)
                        .or_insert_with(|| Source::Contents(leaf.contents.clone()));
                }
                Node::Link(_) => {}
            }
        }
    }
}

fn storage(channel: Channel) -> api::content_addressable_storage_client::ContentAddressableStorageClient<Channel> {
    let client = api::content_addressable_storage_client::ContentAddressableStorageClient::new(channel);
    client.max_decoding_message_size(MESSAGE_MAX)
}

/// The client of byte streams.
pub(super) fn streams(channel: Channel) -> stream::byte_stream_client::ByteStreamClient<Channel> {
    stream::byte_stream_client::ByteStreamClient::new(channel).max_decoding_message_size(MESSAGE_MAX)
}

/// Which of these blobs the storage lacks.
fn missing(line: &Line, blobs: &[Blob]) -> Result<Vec<Blob>, RemoteError> {
    let request = api::FindMissingBlobsRequest {
        instance_name: line.instance.clone(),
        blob_digests: blobs.iter().map(|blob| blob.to_api()).collect(),
        digest_function: api::digest_function::Value::Sha256.into(),
    };
    let response = line.call("asking what it has", || {
        let (mut client, request) = (storage(line.channel()), line.request(request.clone()));
        async move { client.find_missing_blobs(request).await }
    })?;
    let missing = response.missing_blob_digests.iter();
    Ok(missing.filter_map(|digest| Blob::from_api(Some(digest))).collect())
}

fn bytes_of(blob: Blob, source: &Source) -> Result<Vec<u8>, RemoteError> {
    match source {
        Source::Dir(dir) => Ok(dir.message().encode_to_vec()),
        Source::Contents(Contents::Bytes(bytes)) => Ok(bytes.to_vec()),
        Source::Contents(Contents::Disk(path)) => {
            let mut bytes = Vec::with_capacity(usize::try_from(blob.size).unwrap_or(0));
            let file = File::open(path).context("open", path)?;
            file.take(blob.size + 1).read_to_end(&mut bytes).context("read", path)?;
            match Blob::of(&bytes) == blob {
                true => Ok(bytes),
                false => Err(crate::nar::NarError::Changed { path: path.clone() }.into()),
            }
        }
    }
}

fn send_batch(line: &Line, batch: Vec<(Blob, Vec<u8>)>) -> Result<(), RemoteError> {
    const WHAT: &str = "sending it files";
    let mut left: BTreeMap<Blob, Vec<u8>> = batch.into_iter().collect();
    let mut tries = Tries::default();
    while !left.is_empty() {
        let requests = left
            .iter()
            .map(|(blob, bytes)| api::batch_update_blobs_request::Request {
                digest: Some(blob.to_api()),
                data: bytes.clone(),
                compressor: api::compressor::Value::Identity.into(),
            });
        let request = api::BatchUpdateBlobsRequest {
            instance_name: line.instance.clone(),
            requests: requests.collect(),
            digest_function: api::digest_function::Value::Sha256.into(),
        };
        let (mut client, request) = (storage(line.channel()), line.request(request));
        let answer = line.wait(async move { client.batch_update_blobs(request).await })?;
        let mut refused = None;
        match answer {
            Err(status) => refused = Some(status),
            Ok(response) => {
                for response in response.into_inner().responses {
                    let status = response.status.unwrap_or_default();
                    match (status.code, Blob::from_api(response.digest.as_ref())) {
                        (0, Some(blob)) => drop(left.remove(&blob)),
                        (0, None) => {}
                        (code, _) => refused = Some(Status::new(Code::from_i32(code), status.message)),
                    }
                }
                if refused.is_none() && !left.is_empty() {
                    refused = Some(Status::internal("it does not say what became of what was sent"));
                }
            }
        }
        if let Some(status) = refused {
            tries.again(line, WHAT, &status)?;
        }
    }
    Ok(())
}

/// Sends a large blob, from where the storage has it when a connection was lost.
fn send_stream(line: &Line, blob: Blob, source: &Source) -> Result<(), RemoteError> {
    const WHAT: &str = "sending it a large file";
    // One upload of a blob at a time is under way from here; who else sends it is another process.
    let id = upload_id(blob);
    let resource = blob.upload_resource(&line.instance, &id);
    let mut tries = Tries::default();
    let mut offset = 0;
    loop {
        let status = match send_from(line, blob, source, &resource, offset)? {
            Ok(()) => return Ok(()),
            Err(status) => status,
        };
        tries.again(line, WHAT, &status)?;
        let reached = reached(line, &resource)?.min(blob.size);
        if reached > offset {
            tries.reset();
        }
        offset = reached;
    }
}

/// A name for an upload, in the form of a UUID, that no other process has.
fn upload_id(blob: Blob) -> String {
    let own = format!(
        "{} {} {:?}",
        blob.digest.hex(),
        std::process::id(),
        std::thread::current().id()
    );
    let hex = crate::digest::Digest::of(own.as_bytes()).hex();
    format!(
        "{}-{}-4{}-8{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..32]
    )
}

/// Sends what comes after `offset`; a status where the builder, or the connection, did not take it all.
fn send_from(
    line: &Line,
    blob: Blob,
    source: &Source,
    resource: &str,
    mut offset: u64,
) -> Result<Result<(), Status>, RemoteError> {
    let (mut contents, path) = reader(blob, source, offset)?;
    let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
    let (mut client, request) = (streams(line.channel()), line.request(ReceiverStream::new(pieces)));
    // It takes as long as it takes: what counts is that each piece is taken.
    let (done, answer) = tokio::sync::oneshot::channel();
    let _running = line.run(async move {
        let _ = done.send(client.write(request).await);
    });
    loop {
        let mut data = vec![0; PIECE.min(usize::try_from(blob.size - offset).unwrap_or(PIECE))];
        contents.read_exact(&mut data).context("read", &path)?;
        let next = offset + data.len() as u64;
        let piece = stream::WriteRequest {
            resource_name: resource.to_owned(),
            write_offset: i64::try_from(offset).unwrap_or(i64::MAX),
            finish_write: next == blob.size,
            data,
        };
        let reserve = sender.clone().reserve_owned();
        match line.wait(async move { reserve.await.map_err(|_| Status::aborted("it takes no more")) })? {
            Ok(permit) => drop(permit.send(piece)),
            // The answer says why.
            Err(status) if status.code() == Code::Aborted => break,
            Err(status) => return Ok(Err(status)),
        }
        offset = next;
        if offset == blob.size {
            break;
        }
    }
    drop(sender);
    let answered = line.wait(async move { answer.await.map_err(|_| Status::aborted("no answer")) })?;
    Ok(match answered.and_then(|answer| answer) {
        Err(status) if status.code() == Code::AlreadyExists => Ok(()),
        Err(status) => Err(status),
        Ok(response) => match u64::try_from(response.into_inner().committed_size) == Ok(blob.size) {
            true => Ok(()),
            false => Err(Status::aborted("it took only a part")),
        },
    })
}

/// The bytes of a blob from `offset` on, and what they are read from, for messages.
fn reader(blob: Blob, source: &Source, offset: u64) -> Result<(Box<dyn Read>, PathBuf), RemoteError> {
    if let Source::Contents(Contents::Disk(path)) = source {
        let mut file = File::open(path).context("open", path)?;
        file.seek(SeekFrom::Start(offset)).context("read", path)?;
        return Ok((Box::new(file), path.clone()));
    }
    // A directory of many thousand names.
    let mut bytes = Cursor::new(bytes_of(blob, source)?);
    bytes.set_position(offset);
    Ok((Box::new(bytes), PathBuf::from("a directory")))
}

/// How far an upload has come.
fn reached(line: &Line, resource: &str) -> Result<u64, RemoteError> {
    let request = stream::QueryWriteStatusRequest {
        resource_name: resource.to_owned(),
    };
    let (mut client, request) = (streams(line.channel()), line.request(request));
    let answer = line.wait(async move { client.query_write_status(request).await })?;
    // Whoever does not know begins anew.
    Ok(answer.map_or(0, |response| {
        u64::try_from(response.into_inner().committed_size).unwrap_or(0)
    }))
}

fn fetch_batch(line: &Line, batch: &[Blob], take: &mut TakeBlob<'_>) -> Result<(), RemoteError> {
    const WHAT: &str = "fetching what was made";
    let mut left: BTreeSet<Blob> = batch.iter().copied().collect();
    // It need not be asked for what is nothing.
    let nothing = Blob::of(b"");
    if left.remove(&nothing) {
        take(nothing, b"")?;
    }
    let mut tries = Tries::default();
    while !left.is_empty() {
        let request = api::BatchReadBlobsRequest {
            instance_name: line.instance.clone(),
            digests: left.iter().map(|blob| blob.to_api()).collect(),
            acceptable_compressors: Vec::new(),
            digest_function: api::digest_function::Value::Sha256.into(),
        };
        let (mut client, request) = (storage(line.channel()), line.request(request));
        let answer = line.wait(async move { client.batch_read_blobs(request).await })?;
        let mut refused = None;
        for response in answer.map_or_else(
            |status| {
                refused = Some(status);
                Vec::new()
            },
            |response| response.into_inner().responses,
        ) {
            let status = response.status.unwrap_or_default();
            let blob = Blob::from_api(response.digest.as_ref()).filter(|blob| left.contains(blob));
            match (status.code, blob) {
                (0, Some(blob)) if Blob::of(&response.data) == blob => {
                    left.remove(&blob);
                    take(blob, &response.data)?;
                }
                (0, Some(blob)) => return Err(line.wrong(not_the_blob(blob))),
                (0, None) => return Err(line.wrong("a file that it was not asked for".to_owned())),
                (code, _) => refused = Some(Status::new(Code::from_i32(code), status.message)),
            }
        }
        if refused.is_none() && !left.is_empty() {
            refused = Some(Status::internal("it leaves out files that it was asked for"));
        }
        if let Some(status) = refused {
            if status.code() == Code::NotFound {
                return Err(gone(line, &status));
            }
            tries.again(line, WHAT, &status)?;
        }
    }
    Ok(())
}

fn gone(line: &Line, status: &Status) -> RemoteError {
    RemoteError::Gone {
        builder: line.builder.clone(),
        what: format!("a file that it says was made: {}", message_of(status)),
    }
}

fn not_the_blob(blob: Blob) -> String {
    format!("the bytes of {} ({} bytes) are others", blob.digest, blob.size)
}

/// Fetches a large blob, from where it was when a connection was lost, and verifies it; `path` is what is written, for messages.
pub(super) fn fetch_stream(line: &Line, blob: Blob, sink: &mut dyn Write, path: &Path) -> Result<(), RemoteError> {
    const WHAT: &str = "fetching a large file";
    let mut sink = HashingWriter::new(sink);
    let mut tries = Tries::default();
    let mut offset = 0;
    while offset < blob.size {
        let request = stream::ReadRequest {
            resource_name: blob.resource(&line.instance),
            read_offset: i64::try_from(offset).unwrap_or(i64::MAX),
            read_limit: 0,
        };
        let (mut client, request) = (streams(line.channel()), line.request(request));
        let mut pieces = match line.wait(async move { client.read(request).await })? {
            Ok(response) => response.into_inner(),
            Err(status) if status.code() == Code::NotFound => {
                return Err(gone(line, &status));
            }
            Err(status) => {
                tries.again(line, WHAT, &status)?;
                continue;
            }
        };
        loop {
            let read = line.wait(async move { pieces.message().await.map(|piece| (pieces, piece)) })?;
            let data = match read {
                Ok((rest, Some(piece))) => {
                    pieces = rest;
                    piece.data
                }
                Ok((_, None)) if offset == blob.size => break,
                Ok((_, None)) => {
                    tries.again(line, WHAT, &Status::aborted("the file ended early"))?;
                    break;
                }
                Err(status) => {
                    tries.again(line, WHAT, &status)?;
                    break;
                }
            };
            if !data.is_empty() {
                tries.reset();
            }
            offset += data.len() as u64;
            if offset > blob.size {
                return Err(line.wrong(not_the_blob(blob)));
            }
            sink.write_all(&data).context("write", path)?;
        }
    }
    let (_, hasher, _) = sink.finish();
    match hasher.digest() == blob.digest {
        true => Ok(()),
        false => Err(line.wrong(not_the_blob(blob))),
    }
}
