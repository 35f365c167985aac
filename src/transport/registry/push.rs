//! A *push* brings images, and an index of them, to a repository of a registry: what it lacks, and nothing else.
//!
//! Invariant: a manifest is written after all that it names, a tag last; a blob goes to a repository once in a run,
//! however many images hold it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use reqwest::header::CONTENT_LENGTH;
use reqwest::{Method, Url};

use super::client::{Call, RegistryClient, RegistryTuning, Reply, location};
use super::content::Content;
use super::error::RegistryError;
use super::outcome::{IndexDocument, Planned, PushOptions, PushSummary};
use super::repo::{Presence, Repo};
use super::upload::upload;
use super::{Endpoint, RegistryConfig};
use crate::digest::{ContentDigest, Digest};
use crate::event::{BlobOutcome, Event, Reporter};
use crate::http::address;
use crate::http::wire::lock;
use crate::image::{Image, ImageLayer};
use crate::oci::Reference;
use crate::parallel;
use crate::transport::TransportError;

/// How many repositories a blob is tried to be mounted from.
const MOUNTS_MAX: usize = 2;

/// A manifest or index with the blobs it needs.
pub(super) struct PushedDocument {
    pub(super) digest: Digest,
    pub(super) bytes: Vec<u8>,
    pub(super) media_type: String,
    pub(super) blobs: Vec<Content>,
}

impl PushedDocument {
    /// An image and its blobs but for layers that are kept elsewhere: those that are not at hand and, unless they are to
    /// be sent, those that only their vendor hands out.
    pub(super) fn of_image(image: &Image, non_distributable: bool) -> Self {
        let is_sent =
            |layer: &&ImageLayer| !layer.is_absent() && (non_distributable || !layer.descriptor.is_non_distributable());
        let mut blobs: Vec<Content> = image.layers.iter().filter(is_sent).map(Content::layer).collect();
        blobs.push(Content::of(image.config.bytes().to_vec()));
        Self {
            digest: image.digest(),
            bytes: image.manifest.bytes().to_vec(),
            media_type: image.manifest.media_type().to_owned(),
            blobs,
        }
    }
}

/// Pushes images and, above them, indexes, each after those that it lists, to the repository of `target`, and gives the
/// uppermost these tags beside that of `target`. Without any tag it is pushed by digest alone.
pub fn push(
    config: &RegistryConfig,
    target: &Reference,
    images: &[&Image],
    indexes: &[IndexDocument<'_>],
    tags: &[String],
    options: &PushOptions,
    reporter: &dyn Reporter,
) -> Result<PushSummary, TransportError> {
    Pusher::new(config, options, reporter)?.push(target, images, indexes, tags)
}

/// Pushes to one repository after the other, or to several at once: blobs that went to one are mounted in the next.
pub struct Pusher<'r> {
    pub(super) client: RegistryClient<'r>,
    options: PushOptions,
    /// A repository of each host that has a blob.
    pub(super) known: Mutex<BTreeMap<(String, ContentDigest), String>>,
    pub(super) flights: Mutex<Flights>,
    landed: Condvar,
}

/// Blobs on their way, and blobs that arrived, each with host and repository.
#[derive(Default)]
pub(super) struct Flights {
    flying: BTreeSet<(String, String, ContentDigest)>,
    pub(super) there: BTreeSet<(String, String, ContentDigest)>,
}

impl<'r> Pusher<'r> {
    /// A pusher that has asked nobody yet.
    pub fn new(
        config: &RegistryConfig,
        options: &PushOptions,
        reporter: &'r dyn Reporter,
    ) -> Result<Self, TransportError> {
        let mut tuning = RegistryTuning::default();
        tuning.http.persistence.wait_max = options.wait_max;
        Self::tuned(config, options, tuning, reporter)
    }

    /// A pusher with another patience, for tests.
    pub(super) fn tuned(
        config: &RegistryConfig,
        options: &PushOptions,
        tuning: RegistryTuning,
        reporter: &'r dyn Reporter,
    ) -> Result<Self, TransportError> {
        Ok(Self {
            client: RegistryClient::new(config, tuning, reporter),
            options: options.clone(),
            known: Mutex::default(),
            flights: Mutex::default(),
            landed: Condvar::new(),
        })
    }

    /// See [`push`].
    pub fn push(
        &self,
        target: &Reference,
        images: &[&Image],
        indexes: &[IndexDocument<'_>],
        tags: &[String],
    ) -> Result<PushSummary, TransportError> {
        let non_distributable = self.options.non_distributable;
        let images = images
            .iter()
            .map(|image| PushedDocument::of_image(image, non_distributable));
        let indexes = indexes.iter().map(|index| PushedDocument {
            digest: Digest::of(index.bytes),
            bytes: index.bytes.to_vec(),
            media_type: index.media_type.to_owned(),
            blobs: Vec::new(),
        });
        // What several indexes list goes there once.
        let mut seen = BTreeSet::new();
        let documents: Vec<PushedDocument> = images
            .chain(indexes)
            .filter(|document| seen.insert(document.digest))
            .collect();
        let mut all_tags: Vec<String> = target.tag().map(str::to_owned).into_iter().collect();
        for tag in tags {
            target.with_tag(tag)?;
            if !all_tags.contains(tag) {
                all_tags.push(tag.clone());
            }
        }
        if let (Some(expected), Some(top)) = (target.digest(), documents.last())
            && *expected != top.digest
        {
            return Err(RegistryError::Differs {
                action: format!("push to `{target}`"),
                host: target.registry().to_owned(),
                expected: Box::new((*expected).into()),
                actual: format!("{} (the image that is to be pushed)", top.digest),
            }
            .into());
        }
        let push = Push::new(self, target)?;
        push.run(&documents, &all_tags)
    }

    /// The endpoint of a registry that is written to.
    pub(super) fn endpoint(&self, target: &Reference) -> Result<Endpoint, TransportError> {
        let endpoints = self.client.config.endpoints(target.registry(), false)?;
        let own = endpoints.into_iter().rfind(|endpoint| !endpoint.mirror);
        own.ok_or_else(|| TransportError::Missing {
            place: format!("docker://{target}"),
            what: "an endpoint to write to".to_owned(),
        })
    }
}

/// A push to one repository.
pub(super) struct Push<'p, 'r> {
    pub(super) pusher: &'p Pusher<'r>,
    pub(super) repo: Repo<'p, 'r>,
    target: Reference,
    pub(super) summary: Mutex<PushSummary>,
    began: Instant,
    before: [u64; 5],
}

impl<'p, 'r> Push<'p, 'r> {
    pub(super) fn new(pusher: &'p Pusher<'r>, target: &Reference) -> Result<Self, TransportError> {
        let endpoint = pusher.endpoint(target)?;
        Ok(Self {
            pusher,
            repo: Repo::writing(&pusher.client, endpoint, target.repository()),
            target: target.clone(),
            summary: Mutex::default(),
            began: Instant::now(),
            before: counted(&pusher.client),
        })
    }

    /// Pushes documents in order; the last one gets the tags.
    fn run(&self, documents: &[PushedDocument], tags: &[String]) -> Result<PushSummary, TransportError> {
        let Some((top, below)) = documents.split_last() else {
            return Ok(PushSummary::default());
        };
        if self.pusher.options.immutable_tags {
            for tag in tags {
                self.check_tag(tag, &top.digest)?;
            }
        }
        let there = self.parallel(documents, |document| {
            let found = self.repo.visible_manifest_digest(&document.digest.to_string())?;
            Ok(found.is_some_and(|found| found == document.digest))
        })?;
        if there.contains(&false)
            && let Some(tag) = tags.first()
        {
            self.learn_from(tag)?;
        }
        self.bring_blobs(documents, &there)?;
        for (document, there) in below.iter().zip(&there) {
            if !there {
                self.write(document, &[])?;
            }
        }
        let there = there.last().copied().unwrap_or_default();
        let confirmed = if there { Vec::new() } else { self.write(top, tags)? };
        for tag in tags.iter().filter(|tag| !confirmed.contains(tag)) {
            // A registry whose tags cannot move refuses even what it has.
            let same = there
                && self
                    .repo
                    .visible_manifest_digest(tag)?
                    .is_some_and(|found| found == top.digest);
            if !same {
                self.put(top, tag)?;
            }
        }
        Ok(self.finish(top.digest, tags))
    }

    /// The summary, with what the client counted.
    pub(super) fn finish(&self, digest: Digest, tags: &[String]) -> PushSummary {
        let after = counted(&self.pusher.client);
        let [requests, bytes_sent, retries, waits, waited] = std::array::from_fn(|i| after[i] - self.before[i]);
        let name = self.target.name();
        let references = if tags.is_empty() {
            vec![format!("{name}@{digest}")]
        } else {
            tags.iter().map(|tag| format!("{name}:{tag}")).collect()
        };
        PushSummary {
            digest: Some(digest),
            references,
            requests,
            bytes_sent,
            retries,
            waits,
            waited_milliseconds: waited,
            milliseconds: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            ..lock(&self.summary).clone()
        }
    }

    fn check_tag(&self, tag: &str, wanted: &Digest) -> Result<(), TransportError> {
        match self.repo.manifest_digest(tag)? {
            Some(existing) if existing != *wanted => Err(RegistryError::TagTaken {
                name: format!("{}:{tag}", self.target.name()),
                existing: existing.to_string(),
                wanted: *wanted,
            }
            .into()),
            _ => Ok(()),
        }
    }

    /// Whether nothing is to be written.
    pub(super) fn is_dry_run(&self) -> bool {
        self.pusher.options.dry_run
    }

    /// Brings the blobs of all documents that are not there.
    fn bring_blobs(&self, documents: &[PushedDocument], there: &[bool]) -> Result<(), TransportError> {
        let mut blobs: BTreeMap<ContentDigest, &Content> = BTreeMap::new();
        let mut skipped: BTreeMap<ContentDigest, u64> = BTreeMap::new();
        for (document, there) in documents.iter().zip(there) {
            for content in &document.blobs {
                if *there && !content.is_kept_elsewhere() {
                    skipped.insert(content.digest, content.size);
                } else {
                    blobs.insert(content.digest, content);
                }
            }
        }
        skipped.retain(|digest, _| !blobs.contains_key(digest));
        for size in skipped.values() {
            self.count(BlobOutcome::Present, *size);
        }
        let mut blobs: Vec<&Content> = blobs.into_values().collect();
        // The longest ones first, so that they do not end alone.
        blobs.sort_by_key(|content| std::cmp::Reverse(content.size));
        self.parallel(&blobs, |content| self.bring(content))?;
        Ok(())
    }

    /// Brings one blob, unless somebody does or did so in this run.
    pub(super) fn bring(&self, content: &Content) -> Result<(), TransportError> {
        let key = self.key(&content.digest);
        let pusher = self.pusher;
        let mut flights = lock(&pusher.flights);
        while flights.flying.contains(&key) {
            flights = pusher.landed.wait(flights).unwrap_or_else(PoisonError::into_inner);
        }
        if flights.there.contains(&key) {
            drop(flights);
            self.count(BlobOutcome::Present, content.size);
            return Ok(());
        }
        flights.flying.insert(key.clone());
        drop(flights);
        let result = self.bring_once(content);
        lock(&pusher.flights).flying.remove(&key);
        if result.is_ok() {
            self.know(content);
        }
        pusher.landed.notify_all();
        let outcome = result?;
        self.count(outcome, content.size);
        Ok(())
    }

    fn bring_once(&self, content: &Content) -> Result<BlobOutcome, TransportError> {
        self.told(content, || match self.look(content)? {
            Look::There(outcome) => Ok(outcome),
            Look::Lacking(opened) => self.deliver(content, opened),
        })
    }

    /// Does `work` with a blob, told when it begins and when it ends.
    pub(super) fn told(
        &self,
        content: &Content,
        work: impl FnOnce() -> Result<BlobOutcome, TransportError>,
    ) -> Result<BlobOutcome, TransportError> {
        let reporter = self.pusher.client.reporter;
        let (name, size) = (content.digest.to_string(), content.size);
        reporter.report(Event::BlobStarted {
            name: name.clone(),
            size,
            repository: self.repo.name(),
        });
        let outcome = work()?;
        reporter.report(Event::BlobFinished { name, size, outcome });
        Ok(outcome)
    }

    /// Whether a blob is there, or can be taken from another repository.
    pub(super) fn look(&self, content: &Content) -> Result<Look, TransportError> {
        match self.repo.head_blob(&content.digest, Some(content.size))? {
            Presence::Present => Ok(Look::There(BlobOutcome::Present)),
            Presence::Missing if self.is_dry_run() => Ok(Look::Lacking(None)),
            Presence::Missing => self.mount(content),
        }
    }

    /// Sends a blob that is not there, in the session that a refused mount has opened if there is one.
    pub(super) fn deliver(&self, content: &Content, opened: Option<Url>) -> Result<BlobOutcome, TransportError> {
        if self.is_dry_run() {
            let path = format!(
                "/v2/{}/blobs/uploads/…?digest={}",
                self.target.repository(),
                content.digest
            );
            self.plan(format!("PUT {path}"), content.size);
        } else {
            self.send(content, opened)?;
        }
        Ok(BlobOutcome::Sent)
    }

    /// Uploads a blob; where the cache that it is read from is damaged, once more with what is made anew.
    fn send(&self, content: &Content, opened: Option<Url>) -> Result<(), TransportError> {
        let unreadable = |error: TransportError| match error {
            TransportError::Registry(error) => match *error {
                RegistryError::Source { source, .. } => Ok(source),
                error => Err(error.into()),
            },
            error => Err(error),
        };
        match upload(&self.repo, content, opened) {
            Ok(()) => Ok(()),
            Err(error) => {
                let content = content.repaired(unreadable(error)?)?;
                upload(&self.repo, &content, None).map_err(|error| match unreadable(error) {
                    Ok(source) => content.read_error(source).into(),
                    Err(error) => error,
                })
            }
        }
    }

    /// Lets the registry take a blob from another of its repositories (distribution-spec, end-11). Whatever it answers
    /// but yes means no; a session that it opens instead is used.
    fn mount(&self, content: &Content) -> Result<Look, TransportError> {
        let mut access = self.repo.access.clone();
        for from in self.mount_sources(content) {
            let scopes = [self.repo.access.scopes[0].clone(), format!("repository:{from}:pull")];
            access.scopes = scopes.to_vec();
            let url = self.repo.url("blobs/uploads/", &access.endpoint.host);
            let url = address::with_query(&url, "mount", &content.digest.to_string());
            let url = address::with_query(&url, "from", &from);
            let action = format!(
                "mount the blob `{}` from `{from}` in `{}`",
                content.digest,
                self.repo.name()
            );
            let mut call = Call::new(Method::POST, url, &access, &action).header(CONTENT_LENGTH, "0");
            let Ok(reply) = self.pusher.client.once(&mut call) else {
                continue;
            };
            match reply.status() {
                201 => return Ok(Look::There(BlobOutcome::Mounted)),
                202 => return Ok(Look::Lacking(location(&reply, &call).ok().flatten())),
                _ => {}
            }
        }
        Ok(Look::Lacking(None))
    }

    /// Other repositories of the same registry that have a blob, as far as is known.
    fn mount_sources(&self, content: &Content) -> Vec<String> {
        let access = &self.repo.access;
        let origin = content.repository().filter(|(host, _)| *host == access.endpoint.host);
        let known = lock(&self.pusher.known)
            .get(&(access.endpoint.host.clone(), content.digest))
            .cloned();
        let origin = origin.map(|(_, repository)| repository.to_owned());
        let mut sources: Vec<String> = Vec::new();
        for source in origin
            .into_iter()
            .chain(known)
            .chain(self.pusher.options.mount_from.clone())
        {
            if source != access.repository && !sources.contains(&source) {
                sources.push(source);
            }
        }
        sources.truncate(MOUNTS_MAX);
        sources
    }

    /// Writes a manifest whose blobs are there, under as many of the tags as one request can; gives those.
    pub(super) fn write(&self, document: &PushedDocument, tags: &[String]) -> Result<Vec<String>, TransportError> {
        match tags {
            [] => self.put(document, &document.digest.to_string()).map(|_| Vec::new()),
            [tag] => self.put(document, tag).map(|_| vec![tag.clone()]),
            _ if self.pusher.options.dry_run => self.put(document, &document.digest.to_string()).map(|_| Vec::new()),
            _ => self.with_blobs_again(document, || {
                self.repo
                    .put_with_tags(&document.digest, &document.bytes, &document.media_type, tags)
            }),
        }
    }

    /// Writes a manifest under a tag or digest.
    pub(super) fn put(&self, document: &PushedDocument, reference: &str) -> Result<Option<Reply>, TransportError> {
        self.with_blobs_again(document, || self.put_once(document, reference))
    }

    /// The same, whatever the registry has lost.
    pub(super) fn put_once(&self, document: &PushedDocument, reference: &str) -> Result<Option<Reply>, TransportError> {
        if self.is_dry_run() {
            let request = format!("PUT /v2/{}/manifests/{reference}", self.target.repository());
            self.plan(request, document.bytes.len() as u64);
            return Ok(None);
        }
        let put = self.repo.put_manifest(reference, &document.bytes, &document.media_type);
        put.map(Some)
    }

    /// Does `put`, and once more where the registry has lost sight of blobs that it had.
    fn with_blobs_again<T>(
        &self,
        document: &PushedDocument,
        put: impl Fn() -> Result<T, TransportError>,
    ) -> Result<T, TransportError> {
        match put() {
            Err(error) if lacks_blobs(&error) => {
                for content in &document.blobs {
                    self.forget(content);
                    self.bring(content)?;
                }
                put()
            }
            result => result,
        }
    }

    fn plan(&self, request: String, bytes: u64) {
        lock(&self.summary).plan.push(Planned { request, bytes });
    }

    pub(super) fn count(&self, outcome: BlobOutcome, size: u64) {
        let mut summary = lock(&self.summary);
        let summary = &mut *summary;
        let (count, bytes) = match outcome {
            BlobOutcome::Sent => (&mut summary.blobs_sent, &mut summary.blob_bytes_sent),
            BlobOutcome::Present => (&mut summary.blobs_skipped, &mut summary.bytes_skipped),
            BlobOutcome::Mounted => (&mut summary.blobs_mounted, &mut summary.bytes_mounted),
        };
        *count += 1;
        *bytes += size;
    }

    /// Does `work` for every item, a few at once; the results in order, or the first error.
    pub(super) fn parallel<T: Sync, R: Send>(
        &self,
        items: &[T],
        work: impl Fn(&T) -> Result<R, TransportError> + Sync,
    ) -> Result<Vec<R>, TransportError> {
        parallel::map(items, self.pusher.options.concurrency.max(1), work)
    }
}

/// Whether a registry refuses a manifest because it has lost sight of what the manifest names.
pub(super) fn lacks_blobs(error: &TransportError) -> bool {
    match error {
        TransportError::Registry(error) => error.has_code("MANIFEST_BLOB_UNKNOWN") || error.has_code("BLOB_UNKNOWN"),
        _ => false,
    }
}

/// What was found of a blob.
pub(super) enum Look {
    /// It is there now.
    There(BlobOutcome),
    /// It is not; a session in which it can be sent.
    Lacking(Option<Url>),
}

/// Requests, bytes sent, retries, waits and milliseconds waited so far.
fn counted(client: &RegistryClient<'_>) -> [u64; 5] {
    let counters = &client.http.counters;
    [
        &counters.requests,
        &counters.sent,
        &client.retries,
        &counters.waits,
        &counters.waited_ms,
    ]
    .map(|counter| counter.load(Ordering::Relaxed))
}
