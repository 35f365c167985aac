//! A *remote image* is an image of a registry, or of a mirror of it, as a source.
//!
//! Invariant: the manifest was verified when it was opened, blobs are verified while they are read; a download that
//! breaks goes on where it broke.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use reqwest::Method;
use reqwest::header::RANGE;

use super::Endpoint;
use super::client::{Call, RegistryClient, RegistryTuning, Reply, broken};
use super::config::RegistryConfig;
use super::error::RegistryError;
use super::referrers;
use super::repo::{Fetched, Presence, Repo};
use crate::digest::{ContentDigest, Digest, VerifyError, VerifyingReader};
use crate::event::Silent;
use crate::http::wire::lock;
use crate::layer::Origin;
use crate::oci::{self, Descriptor, Document, INDEX_DEPTH_MAX, Index, Manifest, NoChoice, Platform, Raw, Reference};
use crate::transport::nested::Flat;
use crate::transport::read::ReadOptions;
use crate::transport::{Referrers, Source, TransportError, manifest_of};

/// A repository of a registry that blobs are read from. A clone is the same one.
#[derive(Clone)]
pub struct Remote(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) client: RegistryClient<'static>,
    pub(super) registry: String,
    pub(super) repository: String,
    /// Mirrors first, the registry itself last.
    pub(super) endpoints: Vec<Endpoint>,
    /// Hosts of mirrors that gave no answer, not even after several attempts: they are not asked again for every blob.
    silent: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Remote({}/{})", self.0.registry, self.0.repository)
    }
}

impl Remote {
    /// The repository of a reference; nobody is asked yet.
    pub fn new(config: &RegistryConfig, reference: &Reference) -> Result<Self, TransportError> {
        Self::tuned(config, reference, RegistryTuning::default())
    }

    pub(super) fn tuned(
        config: &RegistryConfig,
        reference: &Reference,
        tuning: RegistryTuning,
    ) -> Result<Self, TransportError> {
        Ok(Self(Arc::new(Inner {
            client: RegistryClient::new(config, tuning, &Silent),
            registry: reference.registry().to_owned(),
            repository: reference.repository().to_owned(),
            endpoints: config.endpoints(reference.registry(), true)?,
            silent: Mutex::default(),
        })))
    }
}

impl Remote {
    /// A manifest by tag or digest; `None` where there is none.
    pub fn manifest(&self, reference: &str) -> Result<Option<Raw<Manifest>>, TransportError> {
        let place = self.0.place();
        let Some(document) = found(self.0.document(reference))? else {
            return Ok(None);
        };
        manifest_of(document, &place).map(Some)
    }

    /// A blob, **unverified**, with its size in bytes where that is known; `None` where it is not there.
    pub fn blob(&self, digest: &Digest, size: Option<u64>) -> Result<Option<Box<dyn Read + Send>>, TransportError> {
        // Without its size a download that breaks off ends there, and does not verify.
        let download = found(BlobDownload::open(&self.0, &(*digest).into(), size.unwrap_or_default()))?;
        Ok(download.map(|download| Box::new(download) as Box<dyn Read + Send>))
    }

    /// Whether the registry itself has a blob, of this size in bytes where that is known.
    pub fn has(&self, digest: &Digest, size: Option<u64>) -> Result<bool, TransportError> {
        let Some(own) = self.0.endpoints.last() else {
            return Ok(false);
        };
        let repo = Repo::reading(&self.0.client, own.clone(), &self.0.repository);
        Ok(repo.head_blob(&(*digest).into(), size)? == Presence::Present)
    }
}

/// What is missing is an answer.
fn found<T>(result: Result<T, TransportError>) -> Result<Option<T>, TransportError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(TransportError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Inner {
    /// The repository, for messages.
    fn place(&self) -> String {
        format!("docker://{}/{}", self.registry, self.repository)
    }

    /// A manifest or index by tag or digest, read.
    fn document(&self, reference: &str) -> Result<Document, TransportError> {
        self.manifest(reference)?.document(&self.place())
    }

    /// A manifest by tag or digest, from the first endpoint that has it.
    fn manifest(&self, reference: &str) -> Result<Fetched, TransportError> {
        let missing = TransportError::Missing {
            place: self.place(),
            what: format!("the manifest `{reference}`"),
        };
        self.first(missing, |endpoint| {
            let repo = Repo::reading(&self.client, endpoint.clone(), &endpoint.repository(&self.repository));
            repo.manifest(reference, &self.registry)
        })
    }

    /// The first answer of an endpoint; a mirror's failure is not the last word.
    fn first<T>(
        &self,
        missing: TransportError,
        ask: impl Fn(&Endpoint) -> Result<Option<T>, TransportError>,
    ) -> Result<T, TransportError> {
        for endpoint in &self.endpoints {
            if endpoint.mirror && lock(&self.silent).contains(&endpoint.host) {
                continue;
            }
            match ask(endpoint) {
                Ok(Some(found)) => return Ok(found),
                Err(error) if !endpoint.mirror => return Err(error),
                Err(TransportError::Registry(error)) if error.may_pass() => {
                    lock(&self.silent).insert(endpoint.host.clone());
                }
                _ => {}
            }
        }
        Err(missing)
    }

    /// Opens a blob at a byte of it; gives the mirror that has it, where it is one.
    fn open_at(&self, digest: &ContentDigest, at: u64) -> Result<(Reply, Option<String>), TransportError> {
        let name = format!("{}/{}", self.registry, self.repository);
        let action = format!("read the blob `{digest}` of `{name}`");
        let missing = TransportError::Missing {
            place: format!("docker://{name}"),
            what: format!("the blob `{digest}`"),
        };
        self.first(missing, |endpoint| {
            let repo = Repo::reading(&self.client, endpoint.clone(), &endpoint.repository(&self.repository));
            let url = repo.url(&format!("blobs/{digest}"), &self.registry);
            let mut call = Call::new(Method::GET, url, &repo.access, &action);
            if at > 0 {
                call = call.header(RANGE, format!("bytes={at}-"));
            }
            let mut reply = self.client.call(&mut call, &[200, 206, 404])?;
            match reply.status() {
                404 => return Ok(None),
                200 => skip(&mut reply, at).map_err(|source| broken(&action, endpoint.host.clone(), source))?,
                _ => {
                    let start = format!("bytes {at}-");
                    if !reply
                        .header("content-range")
                        .is_some_and(|range| range.starts_with(&start))
                    {
                        return Err(self.client.protocol(&call, "it sent other bytes than were asked for"));
                    }
                }
            }
            let mirror = endpoint.mirror.then(|| endpoint.host.clone());
            Ok(Some((reply, mirror)))
        })
    }
}

fn skip(reply: &mut Reply, bytes: u64) -> io::Result<()> {
    let skipped = io::copy(&mut (&mut reply.answer).take(bytes), &mut io::sink())?;
    if skipped < bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

impl Origin for Remote {
    fn open(&self, digest: &ContentDigest, len: u64) -> io::Result<Box<dyn Read + Send>> {
        let download = BlobDownload::open(&self.0, digest, len).map_err(io::Error::other)?;
        Ok(Box::new(download))
    }

    fn repository(&self) -> Option<(&str, &str)> {
        Some((&self.0.registry, &self.0.repository))
    }
}

/// A blob while it is downloaded.
struct BlobDownload {
    remote: Arc<Inner>,
    digest: ContentDigest,
    size: u64,
    at: u64,
    reply: Option<Reply>,
    /// The mirror that its bytes come from, where it is one.
    mirror: Arc<Mutex<Option<String>>>,
    failures: u32,
    began: Instant,
}

impl BlobDownload {
    fn open(remote: &Arc<Inner>, digest: &ContentDigest, size: u64) -> Result<Self, TransportError> {
        let (reply, mirror) = remote.open_at(digest, 0)?;
        Ok(Self {
            reply: Some(reply),
            mirror: Arc::new(Mutex::new(mirror)),
            remote: remote.clone(),
            digest: *digest,
            size,
            at: 0,
            failures: 0,
            began: Instant::now(),
        })
    }

    /// After a break: waits, or gives up.
    fn broke(&mut self, source: io::Error) -> io::Result<()> {
        self.reply = None;
        self.failures += 1;
        let Some(own) = self.remote.endpoints.last() else {
            return Err(source);
        };
        let repo = Repo::reading(&self.remote.client, own.clone(), &self.remote.repository);
        let action = format!("read the blob `{}` of `{}`", self.digest, repo.name());
        let error: RegistryError = broken(&action, own.host.clone(), source);
        let paused = self.remote.client.pause(&repo.access, error, self.failures, self.began);
        paused.map_err(io::Error::other)
    }
}

impl Read for BlobDownload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(reply) = &mut self.reply else {
                self.began = Instant::now();
                let (reply, mirror) = self.remote.open_at(&self.digest, self.at).map_err(io::Error::other)?;
                *lock(&self.mirror) = mirror;
                self.reply = Some(reply);
                continue;
            };
            match reply.answer.read(buffer) {
                Ok(0) if self.at < self.size && !buffer.is_empty() => {
                    self.broke(io::ErrorKind::UnexpectedEof.into())?;
                }
                Ok(count) => {
                    self.at += count as u64;
                    self.failures = 0;
                    return Ok(count);
                }
                Err(error) => self.broke(error)?,
            }
        }
    }
}

/// A verified blob. Wrong bytes of a mirror are told as the mirror's: the registry itself may well have right ones.
struct Verified {
    reader: VerifyingReader<BlobDownload>,
    mirror: Arc<Mutex<Option<String>>>,
}

/// A mirror gave other bytes than were asked for.
#[derive(Debug, thiserror::Error)]
#[error(
    "the mirror `{host}` gave something else than what was asked for; leave it out of `mirrors` until it is mended"
)]
struct WrongMirror {
    host: String,
    source: io::Error,
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            let is_wrong = error.get_ref().is_some_and(|inner| inner.is::<VerifyError>());
            match lock(&self.mirror).clone().filter(|_| is_wrong) {
                Some(host) => io::Error::new(error.kind(), WrongMirror { host, source: error }),
                None => error,
            }
        })
    }
}

/// An image of a registry.
pub struct RemoteImage {
    place: String,
    remote: Remote,
    document: Document,
    index: Option<Raw<Index>>,
    names: Vec<String>,
    /// To ask for what refers to the image.
    reference: Reference,
    config: RegistryConfig,
    tuning: RegistryTuning,
}

impl RemoteImage {
    /// Reads the manifest of `name` (`REGISTRY/REPOSITORY[:TAG][@DIGEST]`); of an index, the one that the options mean,
    /// or the index itself where they want it whole.
    pub fn open(name: &str, options: &ReadOptions) -> Result<Self, TransportError> {
        Self::tuned(name, options, RegistryTuning::default())
    }

    pub(super) fn tuned(name: &str, options: &ReadOptions, tuning: RegistryTuning) -> Result<Self, TransportError> {
        let place = format!("docker://{name}");
        let reference: Reference = name.parse()?;
        let remote = Remote::tuned(&options.registries, &reference, tuning.clone())?;
        let wanted = reference
            .digest()
            .map_or_else(|| reference.tag_or_default().to_owned(), ToString::to_string);
        let mut document = remote.0.document(&wanted)?;
        let mut index = None;
        for _ in 0..INDEX_DEPTH_MAX {
            match document {
                Document::Index(listed) if !options.whole => {
                    let read = |entry: &Descriptor| remote.0.document(&entry.digest.to_string());
                    let (chosen, lists) = choose(&listed, options.platform.as_ref(), &read)
                        .map_err(|why| no_choice(&reference, &place, options, why))?;
                    document = read(&chosen)?;
                    index = Some(lists);
                }
                document => {
                    return Ok(Self {
                        place,
                        remote,
                        document,
                        index,
                        names: vec![reference.to_string()],
                        reference,
                        config: options.registries.clone(),
                        tuning,
                    });
                }
            }
        }
        Err(TransportError::nested_too_deep(&place))
    }

    /// The repository, as where layers lie.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }
}

/// What is wanted of an index, and the index that lists it.
fn choose(
    listed: &Raw<Index>,
    wanted: Option<&Platform>,
    read: &dyn Fn(&Descriptor) -> Result<Document, TransportError>,
) -> Result<(Descriptor, Raw<Index>), NoChoice> {
    if let Some(flat) = Flat::of(&listed.manifests, listed, read) {
        let (chosen, lists) = flat.choose(wanted)?;
        return Ok((chosen.clone(), lists.clone()));
    }
    let chosen = oci::choose(&listed.manifests, &listed.unknown, wanted)?;
    Ok((chosen.clone(), listed.clone()))
}

/// Images that no platform tells apart, and what is no image, are named by their digests.
fn no_choice(reference: &Reference, place: &str, options: &ReadOptions, why: NoChoice) -> TransportError {
    let place = place.to_owned();
    let named = |digests: Vec<ContentDigest>| digests.iter().map(|digest| by_digest(reference, digest)).collect();
    match why {
        NoChoice::Alike { digests } => TransportError::Alike {
            place,
            choices: named(digests),
        },
        NoChoice::Artifacts { digests } => TransportError::Artifacts {
            place,
            choices: named(digests),
        },
        why => TransportError::no_choice(&place, options.platform.as_ref(), why),
    }
}

/// The image of a digest in the repository of a reference.
fn by_digest(reference: &Reference, digest: &ContentDigest) -> String {
    format!("docker://{}@{digest}", reference.name())
}

impl Source for RemoteImage {
    fn place(&self) -> &str {
        &self.place
    }

    fn document(&self) -> Result<Document, TransportError> {
        Ok(self.document.clone())
    }

    fn blob(&self, digest: &ContentDigest, size: u64) -> Result<Box<dyn Read + Send>, TransportError> {
        let download = BlobDownload::open(&self.remote.0, digest, size)?;
        let mirror = download.mirror.clone();
        Ok(Box::new(Verified {
            reader: VerifyingReader::new(download, *digest, Some(size)),
            mirror,
        }))
    }

    fn listed(&self, descriptor: &Descriptor) -> Result<Document, TransportError> {
        self.remote.0.document(&descriptor.digest.to_string())
    }

    fn tagged(&self, name: &str) -> Result<Option<Raw<Manifest>>, TransportError> {
        self.remote.manifest(name)
    }

    fn index(&self) -> Option<&Raw<Index>> {
        self.index.as_ref()
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn repository(&self) -> Option<(&str, &str)> {
        self.remote.repository()
    }

    fn referrers(&self) -> Result<Referrers, TransportError> {
        let image = self.document.digest();
        referrers::list(&self.config, self.tuning.clone(), &self.reference, &image)
    }
}
