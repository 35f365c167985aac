//! A *repository* at one endpoint: its manifests, its tags, and whether it has a blob.
//!
//! Invariant: a manifest that was read is what its digest says, and one that was written is sent exactly as hashed.

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, Url};

use super::Endpoint;
use super::client::{Access, Call, Payload, RegistryClient, Reply, broken};
use super::error::{RegistryError, printable};
use crate::digest::{ContentDigest, Digest};
use crate::http::address;
use crate::http::client::SAYS_NOTHING;
use crate::oci::{Document, INDEX_SIZE_MAX, MediaType};
use crate::transport::{TransportError, read_document};

/// The header in which a registry says which content it speaks of.
const CONTENT_DIGEST: &str = "docker-content-digest";
/// The header that confirms a tag of a PUT by digest (distribution-spec, end-7b).
const OCI_TAG: &str = "oci-tag";

/// A repository at an endpoint.
pub(super) struct Repo<'c, 'r> {
    pub(super) client: &'c RegistryClient<'r>,
    pub(super) access: Access,
}

/// A manifest as it was read.
pub(super) struct Fetched {
    pub(super) bytes: Vec<u8>,
    /// What the registry calls it.
    pub(super) media_type: String,
    /// By the algorithm by which it was asked for.
    pub(super) digest: ContentDigest,
    /// The registry's mark of this state, for a write that must not overwrite another one.
    pub(super) etag: Option<String>,
}

impl Fetched {
    /// The document that it is.
    pub(super) fn document(&self, place: &str) -> Result<Document, TransportError> {
        read_document(self.bytes.clone(), &self.media_type, Some(self.digest), place)
    }
}

/// What a registry says of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Present,
    Missing,
}

impl<'c, 'r> Repo<'c, 'r> {
    /// A repository to read from.
    pub(super) fn reading(client: &'c RegistryClient<'r>, endpoint: Endpoint, repository: &str) -> Self {
        let scopes = vec![format!("repository:{repository}:pull")];
        Self::with_scopes(client, endpoint, repository, scopes)
    }

    /// A repository to write to.
    pub(super) fn writing(client: &'c RegistryClient<'r>, endpoint: Endpoint, repository: &str) -> Self {
        let scopes = vec![format!("repository:{repository}:pull,push")];
        Self::with_scopes(client, endpoint, repository, scopes)
    }

    /// A repository from which manifests are deleted.
    pub(super) fn deleting(client: &'c RegistryClient<'r>, endpoint: Endpoint, repository: &str) -> Self {
        let scopes = vec![format!("repository:{repository}:pull,push,delete")];
        Self::with_scopes(client, endpoint, repository, scopes)
    }

    fn with_scopes(client: &'c RegistryClient<'r>, endpoint: Endpoint, repository: &str, scopes: Vec<String>) -> Self {
        let repository = repository.to_owned();
        let access = Access {
            endpoint,
            repository,
            scopes,
        };
        Self { client, access }
    }

    /// `HOST/REPOSITORY`, for messages.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.access.endpoint.host, self.access.repository)
    }

    /// The URL of something in the repository. A mirror is told whose content is wanted by `ns`.
    pub(super) fn url(&self, rest: &str, registry: &str) -> Url {
        let endpoint = &self.access.endpoint;
        let mut url = endpoint.base.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/v2/{}/{rest}", self.access.repository));
        if endpoint.mirror {
            url = address::with_query(&url, "ns", registry);
        }
        url
    }

    pub(super) fn own_url(&self, rest: &str) -> Url {
        self.url(rest, &self.access.endpoint.host)
    }

    /// The digest of a manifest, by tag or digest; `None` where there is none. A registry that says nothing to `HEAD` is
    /// asked for the manifest itself.
    pub(super) fn manifest_digest(&self, reference: &str) -> Result<Option<ContentDigest>, TransportError> {
        let strict = |this: &Self| this.manifest(reference, &this.access.endpoint.host);
        self.head_manifest(reference, strict)
    }

    /// The same for who is about to write: `None` also where the registry does not let them look. Some let only those
    /// read who may not write, or know no reading by `HEAD` or by digest.
    pub(super) fn visible_manifest_digest(&self, reference: &str) -> Result<Option<ContentDigest>, TransportError> {
        self.head_manifest(reference, |this| this.visible_manifest(reference))
    }

    fn head_manifest(
        &self,
        reference: &str,
        get: impl Fn(&Self) -> Result<Option<Fetched>, TransportError>,
    ) -> Result<Option<ContentDigest>, TransportError> {
        let action = format!("look for the manifest `{reference}` in `{}`", self.name());
        let url = self.own_url(&format!("manifests/{reference}"));
        let mut call = Call::new(Method::HEAD, url, &self.access, &action).header(ACCEPT, accept());
        let reply = self
            .client
            .call(&mut call, &[&[200, 404], &SAYS_NOTHING[..]].concat())?;
        match (reply.status(), content_digest(&reply)) {
            (404, _) => Ok(None),
            (200, Some(digest)) => Ok(Some(digest)),
            // Old registries do not say; the bytes do.
            _ => Ok(get(self)?.map(|fetched| fetched.digest)),
        }
    }

    /// A manifest, by tag or digest, verified; `None` where there is none.
    pub(super) fn manifest(&self, reference: &str, registry: &str) -> Result<Option<Fetched>, TransportError> {
        self.get_manifest(reference, registry, &[404])
    }

    /// A manifest, by tag or digest, verified; `None` where there is none, or the registry does not let us look.
    pub(super) fn visible_manifest(&self, reference: &str) -> Result<Option<Fetched>, TransportError> {
        let absent = [&[404], &SAYS_NOTHING[..]].concat();
        self.get_manifest(reference, &self.access.endpoint.host, &absent)
    }

    /// A manifest; `None` where the answer has one of the statuses `absent`.
    fn get_manifest(&self, reference: &str, registry: &str, absent: &[u16]) -> Result<Option<Fetched>, TransportError> {
        let action = format!("read the manifest `{reference}` of `{}`", self.name());
        let url = self.url(&format!("manifests/{reference}"), registry);
        let mut call = Call::new(Method::GET, url, &self.access, &action).header(ACCEPT, accept());
        let mut reply = self.client.call(&mut call, &[&[200], absent].concat())?;
        if reply.status() != 200 {
            return Ok(None);
        }
        let media_type = reply.header(CONTENT_TYPE.as_str()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let claimed = content_digest(&reply);
        let etag = reply.header("etag").map(str::to_owned);
        let limit = usize::try_from(INDEX_SIZE_MAX).unwrap_or(usize::MAX);
        let read = reply.answer.read_limited(limit);
        let (bytes, whole) = read.map_err(|source| broken(&action, self.access.endpoint.host.clone(), source))?;
        if !whole {
            return Err(TransportError::TooLarge {
                place: self.name(),
                what: format!("the manifest `{reference}`"),
                limit: INDEX_SIZE_MAX,
            });
        }
        let wanted = reference.parse::<ContentDigest>().ok();
        let digest = wanted.map_or_else(|| Digest::of(&bytes).into(), |wanted| wanted.same_algorithm(&bytes));
        let actual = |expected: &ContentDigest| expected.same_algorithm(&bytes);
        if let Some(expected) = wanted.or(claimed).filter(|expected| *expected != actual(expected)) {
            return Err(self.differs(&action, expected, &actual(&expected).to_string()).into());
        }
        Ok(Some(Fetched {
            bytes,
            media_type,
            digest,
            etag,
        }))
    }

    /// Writes a manifest under a tag or its digest.
    pub(super) fn put_manifest(
        &self,
        reference: &str,
        bytes: &[u8],
        media_type: &str,
    ) -> Result<Reply, TransportError> {
        self.put(
            self.own_url(&format!("manifests/{reference}")),
            reference,
            bytes,
            media_type,
            None,
        )
    }

    /// Writes a manifest by its digest with several tags at once (distribution-spec, end-7b); gives the tags that the
    /// registry confirmed.
    pub(super) fn put_with_tags(
        &self,
        digest: &Digest,
        bytes: &[u8],
        media_type: &str,
        tags: &[String],
    ) -> Result<Vec<String>, TransportError> {
        let mut url = self.own_url(&format!("manifests/{digest}"));
        for tag in tags {
            url = address::with_query(&url, "tag", tag);
        }
        let reply = match self.put(url, &digest.to_string(), bytes, media_type, None) {
            Err(TransportError::Registry(error)) if matches!(error.status(), Some(414 | 431)) => {
                self.put_manifest(&digest.to_string(), bytes, media_type)?
            }
            reply => reply?,
        };
        let confirmed = reply.answer.headers().get_all(OCI_TAG).iter();
        let confirmed = confirmed
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        let confirmed: Vec<&str> = confirmed.map(str::trim).collect();
        Ok(tags
            .iter()
            .filter(|tag| confirmed.contains(&tag.as_str()))
            .cloned()
            .collect())
    }

    /// Writes a manifest; `if_match` is the state that it replaces.
    pub(super) fn put(
        &self,
        url: Url,
        reference: &str,
        bytes: &[u8],
        media_type: &str,
        if_match: Option<&str>,
    ) -> Result<Reply, TransportError> {
        let action = format!("write the manifest `{reference}` to `{}`", self.name());
        let mut call = Call::new(Method::PUT, url, &self.access, &action)
            .header(CONTENT_TYPE, media_type)
            .payload(Payload::Bytes(Bytes::copy_from_slice(bytes)));
        if let Some(tag) = if_match {
            call = call.header(reqwest::header::IF_MATCH, tag);
        }
        let reply = self.client.call(&mut call, &[200, 201, 202, 204])?;
        let expected = Digest::of(bytes);
        match reply.header(CONTENT_DIGEST) {
            Some(text) if text.starts_with("sha256:") && text != expected.to_string() => {
                Err(self.differs(&action, expected.into(), &printable(text, 80)).into())
            }
            _ => Ok(reply),
        }
    }

    /// Whether a blob is there. A registry that cannot say, or says a size that cannot be, is one that lacks it.
    pub(super) fn head_blob(&self, digest: &ContentDigest, size: Option<u64>) -> Result<Presence, TransportError> {
        let action = format!("look for the blob `{digest}` in `{}`", self.name());
        let url = self.own_url(&format!("blobs/{digest}"));
        let mut call = Call::new(Method::HEAD, url, &self.access, &action);
        let reply = self
            .client
            .call(&mut call, &[&[200, 404, 500], &SAYS_NOTHING[..]].concat())?;
        if reply.status() != 200 {
            return Ok(Presence::Missing);
        }
        let said = reply.header("content-length").and_then(|text| text.parse::<u64>().ok());
        let other = content_digest(&reply).is_some_and(|found| *digest != found);
        // A proxy may leave the length out, or say 0 for a body it does not send.
        let lies = other || said.zip(size).is_some_and(|(said, size)| said != size && said != 0);
        Ok(if lies { Presence::Missing } else { Presence::Present })
    }

    fn differs(&self, action: &str, expected: ContentDigest, actual: &str) -> RegistryError {
        RegistryError::Differs {
            action: action.to_owned(),
            host: self.access.endpoint.host.clone(),
            expected: Box::new(expected),
            actual: actual.to_owned(),
        }
    }
}

/// The media types of what is an image here.
fn accept() -> String {
    [
        MediaType::INDEX,
        MediaType::MANIFEST,
        MediaType::DOCKER_MANIFEST_LIST,
        MediaType::DOCKER_MANIFEST,
    ]
    .join(", ")
}

/// The digest that an answer names, where it is one of ours.
fn content_digest(reply: &Reply) -> Option<ContentDigest> {
    reply.header(CONTENT_DIGEST)?.parse().ok()
}
