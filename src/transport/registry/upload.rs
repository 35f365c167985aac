//! An *upload* brings one blob to a repository, whatever happens on the way.
//!
//! Invariant: the registry's own offset decides where an upload goes on; what it has is not sent again; the upload
//! counts as done only when the registry confirmed the blob's digest.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE};
use reqwest::{Method, Url};

use super::client::{Call, Payload, Reply, location};
use super::content::{Content, Feed};
use super::error::{RegistryError, printable};
use super::repo::{Presence, Repo};
use super::state::{Begun, Limits, Place};
use crate::digest::ContentDigest;
use crate::event::Event;
use crate::http::address;
use crate::transport::TransportError;

/// Smallest chunk that is tried.
const CHUNK_MIN: u64 = 64 << 10;
/// A limit that many registries share: tried before chunks are halved.
const CHUNK_USUAL: u64 = 4 << 20;
/// How often an upload is begun anew because the registry lost it or got it wrong.
const RESTARTS_MAX: u32 = 3;
/// Bytes between two reports of progress.
const REPORTED_EACH: u64 = 1 << 20;

/// An upload under way.
struct UploadSession {
    location: Url,
    /// How many bytes the registry has, as far as is known.
    offset: u64,
    /// Least bytes of a chunk but the last.
    chunk_min: u64,
}

struct Upload<'a, 'c, 'r> {
    repo: &'a Repo<'c, 'r>,
    content: &'a Content,
    limits: Limits,
    action: String,
    place: Option<Place>,
    session: Option<UploadSession>,
    /// Whether the blob goes in chunks.
    chunked: bool,
    /// Failures in a row without progress.
    failures: u32,
    restarts: u32,
    /// The most bytes that the registry was known to have: more is progress.
    furthest: u64,
    /// Whether every byte was handed over once: the answer may be all that was lost.
    all_sent: bool,
}

/// Uploads a blob. `opened` is a session that the registry opened already, instead of mounting the blob.
pub(super) fn upload(repo: &Repo<'_, '_>, content: &Content, opened: Option<Url>) -> Result<(), TransportError> {
    let client = repo.client;
    let (host, state_dir) = (&repo.access.endpoint.host, client.config.state_dir.as_deref());
    let (repository, digest) = (&repo.access.repository, &content.digest);
    let limits = Limits::load(state_dir, host);
    let large = content.size > client.tuning.chunks_over || limits.body_max.is_some_and(|max| content.size > max);
    let remembered = state_dir.filter(|_| content.size >= client.tuning.remembered_from);
    let mut upload = Upload {
        chunked: large && !limits.whole_only,
        limits,
        repo,
        content,
        action: format!("upload the blob `{digest}` to `{}`", repo.name()),
        place: remembered.and_then(|dir| Place::open(dir, host, repository, digest)),
        session: None,
        failures: 0,
        restarts: 0,
        furthest: 0,
        all_sent: false,
    };
    upload.resume(opened)?;
    let reported = AtomicU64::new(0);
    let progress = |bytes: u64| {
        if bytes == content.size || bytes >= reported.load(Ordering::Relaxed) + REPORTED_EACH {
            reported.store(bytes, Ordering::Relaxed);
            let name = digest.to_string();
            client.reporter.report(Event::BlobProgress { name, bytes });
        }
    };
    let mut feed = Feed::new(content, &progress);
    loop {
        if upload.session.is_none() && (upload.all_sent && upload.is_there()? || !upload.begin()?) {
            break;
        }
        let began = Instant::now();
        match upload.go_on(&mut feed) {
            Ok(()) => break,
            Err(TransportError::Registry(error)) => upload.recover(*error, began)?,
            Err(error) => return Err(error),
        }
    }
    if let Some(place) = &upload.place {
        place.remove();
    }
    Ok(())
}

impl Upload<'_, '_, '_> {
    /// Takes up what an earlier run began, or the session that is open already.
    fn resume(&mut self, opened: Option<Url>) -> Result<(), TransportError> {
        let access = &self.repo.access;
        let (host, repository) = (&access.endpoint.host, &access.repository);
        let begun = self
            .place
            .as_ref()
            .and_then(|place| place.read(host, repository, &self.content.digest));
        let location = begun
            .filter(|_| opened.is_none())
            .and_then(|begun| Url::parse(&begun.location).ok())
            .and_then(|url| address::judge(url, access.home()).ok());
        if let Some(location) = location {
            self.session = Some(UploadSession {
                location,
                offset: 0,
                chunk_min: 0,
            });
            self.ask_offset()?;
        }
        if let Some(location) = opened {
            self.session = Some(UploadSession {
                location,
                offset: 0,
                chunk_min: 0,
            });
            self.remember();
        }
        Ok(())
    }

    /// Sends what is missing.
    fn go_on(&mut self, feed: &mut Feed<'_>) -> Result<(), TransportError> {
        let offset = self.session.as_ref().map_or(0, |session| session.offset);
        if offset == 0 && !self.chunked || self.content.size == 0 {
            return self.send_whole(feed);
        }
        while let Some(session) = &self.session
            && session.offset < self.content.size
        {
            self.send_chunk(feed)?;
        }
        self.finish(None)
    }

    /// Opens a session; `false` where the registry says that it has the blob.
    fn begin(&mut self) -> Result<bool, TransportError> {
        let access = &self.repo.access;
        let url = self.repo.url("blobs/uploads/", &access.endpoint.host);
        let mut call = Call::new(Method::POST, url, access, &self.action);
        let reply = self.repo.client.call(&mut call, &[202, 201])?;
        if reply.status() == 201 {
            return Ok(false);
        }
        let Some(location) = location(&reply, &call)? else {
            return Err(self
                .repo
                .client
                .protocol(&call, "it opens an upload and does not say where"));
        };
        let least = reply.header("oci-chunk-min-length").and_then(|text| text.parse().ok());
        self.session = Some(UploadSession {
            location,
            offset: 0,
            chunk_min: least.unwrap_or(0),
        });
        self.remember();
        Ok(true)
    }

    /// The whole blob in one request.
    fn send_whole(&mut self, feed: &mut Feed<'_>) -> Result<(), TransportError> {
        feed.range(0, self.content.size);
        if self.content.size == 0 {
            return self.finish(None);
        }
        self.finish(Some(feed))
    }

    /// The request that ends an upload, with the whole blob or with nothing.
    fn finish(&mut self, feed: Option<&mut Feed<'_>>) -> Result<(), TransportError> {
        let Some(session) = &self.session else {
            return Ok(());
        };
        let digest = self.content.digest;
        let url = address::with_query(&session.location, "digest", &digest.to_string());
        let mut call = Call::new(Method::PUT, url, &self.repo.access, &self.action);
        call = call.header(CONTENT_TYPE, "application/octet-stream");
        let whole = feed.is_some();
        if let Some(feed) = feed {
            super::client::Replay::rewind(feed).map_err(|source| self.source(source))?;
            call = call.payload(Payload::Stream(feed));
        }
        let reply = self.repo.client.once(&mut call);
        // Whatever the answer is: when the feed is at its end, all was sent.
        let sent = matches!(&call.payload, Payload::Stream(feed) if feed.left() == 0) || !whole;
        drop(call.payload);
        self.all_sent |= sent;
        let reply = reply?;
        match reply.status() {
            200 | 201 | 204 => self.check_digest(&reply, &digest),
            // It may still be at work: what counts is that the blob is there.
            202 if self.is_there()? => Ok(()),
            _ => Err(self.refused(reply)),
        }
    }

    /// One chunk, from the session's offset on.
    fn send_chunk(&mut self, feed: &mut Feed<'_>) -> Result<(), TransportError> {
        let Some(session) = &self.session else { return Ok(()) };
        let from = session.offset;
        let to = from.saturating_add(self.chunk_size()).min(self.content.size);
        feed.range(from, to);
        super::client::Replay::rewind(feed).map_err(|source| self.source(source))?;
        let mut call = Call::new(Method::PATCH, session.location.clone(), &self.repo.access, &self.action)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_RANGE, format!("{from}-{}", to - 1))
            .payload(Payload::Stream(feed));
        let reply = self.repo.client.once(&mut call)?;
        // The `Range` of a success is not looked at: some registries leave it where it was.
        if !matches!(reply.status(), 201 | 202 | 204) {
            drop(call.payload);
            return Err(self.refused(reply));
        }
        let next = location(&reply, &call)?;
        drop(call.payload);
        if let Some(session) = &mut self.session {
            session.location = next.unwrap_or_else(|| session.location.clone());
            session.offset = to;
        }
        self.repo.client.progressed(&self.repo.access);
        self.advanced(to);
        self.remember();
        Ok(())
    }

    fn chunk_size(&self) -> u64 {
        let least = self.session.as_ref().map_or(0, |session| session.chunk_min);
        let mut size = self.repo.client.tuning.chunk.max(least);
        for max in [self.limits.chunk_max, self.limits.body_max].into_iter().flatten() {
            size = size.min(max);
        }
        size.max(1)
    }

    /// Makes of a failure a way to go on, or gives it back.
    fn recover(&mut self, error: RegistryError, began: Instant) -> Result<(), TransportError> {
        if matches!(error, RegistryError::Source { .. }) {
            return Err(error.into());
        }
        let status = error.status();
        if status == Some(413) {
            return self.smaller(error);
        }
        if status == Some(416) {
            let before = self.session.as_ref().map_or(0, |session| session.offset);
            self.ask_offset()?;
            let after = self.session.as_ref().map(|session| session.offset);
            // The same offset again: it is the chunk's size that it does not like.
            return match after {
                Some(after) if after == before => self.smaller(error),
                _ => self.restart_or(error),
            };
        }
        let lost = status == Some(404) || error.has_code("BLOB_UPLOAD_UNKNOWN");
        let wrong = error.has_code("DIGEST_INVALID") || error.has_code("SIZE_INVALID");
        if lost || wrong || error.has_code("BLOB_UPLOAD_INVALID") {
            self.abandon();
            self.all_sent &= !wrong;
            return self.restart_or(error);
        }
        let no_chunks = self.chunked && !self.limits.whole_only && matches!(status, Some(400 | 405 | 501));
        if no_chunks {
            self.abandon();
            self.chunked = false;
            self.limits.whole_only = true;
            self.learned();
            return self.restart_or(error);
        }
        // A body that was cut off may be one that something on the way does not let through whole.
        let cut = matches!(error, RegistryError::Broken { .. } | RegistryError::Stalled { .. });
        self.failures += 1;
        self.repo.client.pause(&self.repo.access, error, self.failures, began)?;
        if self.session.is_some() {
            self.ask_offset()?;
        }
        let offset = self.session.as_ref().map_or(0, |session| session.offset);
        self.chunked |= (cut || offset > 0) && !self.limits.whole_only;
        if offset > 0 && !self.chunked {
            // Only whole blobs are taken, and this session holds a part.
            self.abandon();
        }
        Ok(())
    }

    /// Smaller pieces, or the error where they are small already.
    fn smaller(&mut self, error: RegistryError) -> Result<(), TransportError> {
        if self.limits.whole_only {
            return Err(error.into());
        }
        let sent = if self.chunked {
            self.chunk_size()
        } else {
            self.content.size
        };
        let sent = sent.min(self.content.size);
        let next = if sent > CHUNK_USUAL && self.chunked {
            CHUNK_USUAL
        } else {
            sent / 2
        };
        if next < CHUNK_MIN {
            return Err(error.into());
        }
        if error.status() == Some(413) && !self.chunked {
            self.limits.body_max = Some(sent - 1);
        } else {
            self.limits.chunk_max = Some(next);
        }
        self.chunked = true;
        self.learned();
        Ok(())
    }

    fn restart_or(&mut self, error: RegistryError) -> Result<(), TransportError> {
        self.restarts += 1;
        if self.restarts > RESTARTS_MAX {
            return Err(error.into());
        }
        Ok(())
    }

    /// Asks the registry how much it has (distribution-spec, end-13). A session that it does not know, or cannot tell
    /// the offset of, is none.
    fn ask_offset(&mut self) -> Result<(), TransportError> {
        let Some(session) = &self.session else { return Ok(()) };
        let mut call = Call::new(Method::GET, session.location.clone(), &self.repo.access, &self.action);
        let reply = match self.repo.client.call(&mut call, &[200, 202, 204]) {
            Ok(reply) => reply,
            Err(TransportError::Registry(error)) if error.status().is_some() && !error.may_pass() => {
                self.session = None;
                return match error.status() {
                    Some(401 | 403) => Err(TransportError::Registry(error)),
                    _ => Ok(()),
                };
            }
            Err(error) => return Err(error),
        };
        let range = reply.header("range").map(str::to_owned);
        let location = location(&reply, &call).ok().flatten();
        match range.as_deref().map(parse_range) {
            // `0-0` is one byte or none: not worth guessing.
            Some(Some(last)) if last > 0 && last < self.content.size => {
                if let Some(session) = &mut self.session {
                    session.offset = last + 1;
                    session.location = location.unwrap_or_else(|| session.location.clone());
                }
                self.advanced(last + 1);
            }
            None if reply.status() == 204 => {
                if let Some(session) = &mut self.session {
                    session.offset = 0;
                    session.location = location.unwrap_or_else(|| session.location.clone());
                }
            }
            _ => self.abandon(),
        }
        let offset = self.session.as_ref().map_or(0, |session| session.offset);
        self.chunked |= offset > 0 && !self.limits.whole_only;
        Ok(())
    }

    /// More bytes are there than ever: the failures before do not count.
    fn advanced(&mut self, offset: u64) {
        if offset > self.furthest {
            self.furthest = offset;
            self.failures = 0;
        }
    }

    /// Gives the session up, and tells the registry so (distribution-spec, end-14), which may not listen.
    fn abandon(&mut self) {
        if let Some(session) = self.session.take() {
            let mut call = Call::new(Method::DELETE, session.location, &self.repo.access, &self.action);
            let _ = self.repo.client.once(&mut call);
        }
        if let Some(place) = &self.place {
            place.remove();
        }
    }

    fn is_there(&self) -> Result<bool, TransportError> {
        let presence = self.repo.head_blob(&self.content.digest, Some(self.content.size))?;
        Ok(presence == Presence::Present)
    }

    fn remember(&self) {
        if let (Some(place), Some(session)) = (&self.place, &self.session) {
            let access = &self.repo.access;
            place.write(&Begun {
                registry: access.endpoint.host.clone(),
                repository: access.repository.clone(),
                digest: self.content.digest,
                location: session.location.to_string(),
                offset: session.offset,
            });
        }
    }

    fn learned(&self) {
        let state_dir: Option<&Path> = self.repo.client.config.state_dir.as_deref();
        self.limits.save(state_dir, &self.repo.access.endpoint.host);
    }

    fn check_digest(&self, reply: &Reply, expected: &ContentDigest) -> Result<(), TransportError> {
        match reply.header("docker-content-digest") {
            Some(text) if text.starts_with(expected.algorithm()) && text != expected.to_string() => {
                Err(RegistryError::Differs {
                    action: self.action.clone(),
                    host: self.repo.access.endpoint.host.clone(),
                    expected: Box::new(*expected),
                    actual: printable(text, 80),
                }
                .into())
            }
            _ => Ok(()),
        }
    }

    fn refused(&self, reply: Reply) -> TransportError {
        let call = Call::new(Method::PUT, reply.url.clone(), &self.repo.access, &self.action);
        self.repo.client.status_error(&call, reply).into()
    }

    fn source(&self, source: std::io::Error) -> TransportError {
        RegistryError::Source {
            action: self.action.clone(),
            source,
        }
        .into()
    }
}

/// The last byte of `0-N`, also with a unit before it.
fn parse_range(text: &str) -> Option<u64> {
    let text = text.trim();
    let text = text
        .strip_prefix("bytes")
        .map_or(text, |rest| rest.trim_start_matches(['=', ' ']));
    let (first, last) = text.split_once('-')?;
    (first.trim() == "0").then(|| last.trim().parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_21_ranges_of_both_spellings_are_read() {
        assert_eq!(parse_range("0-1023"), Some(1023));
        assert_eq!(parse_range("bytes=0-1023"), Some(1023));
        assert_eq!(parse_range("bytes 0-7 "), Some(7));
        for text in ["", "0", "1-2", "0-", "-1", "a-b", "0-99999999999999999999999"] {
            assert_eq!(parse_range(text), None, "{text}");
        }
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_upload_range() {
        crate::testing::fuzz("upload-range", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let _ = super::parse_range(&text);
        });
    }
}
