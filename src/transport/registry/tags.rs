//! The *tags* of a repository: all of them listed, and manifests written under one or deleted.
//!
//! Invariant: the registry itself is asked, no mirror of it; a list is bounded, and one that does not end is an error.

use reqwest::Method;
use serde::Deserialize;

use super::client::{Call, broken};
use super::error::RegistryError;
use super::referrers::next_link;
use super::repo::Repo;
use super::source::Remote;
use crate::digest::ContentDigest;
use crate::http::address;
use crate::oci::{Document, INDEX_SIZE_MAX};
use crate::transport::{TransportError, parse};

/// Tags that a page is asked to have.
const PAGE: usize = 1000;
/// Most pages of a list that are read.
const PAGES_MAX: usize = 2000;

#[derive(Deserialize)]
struct TagList {
    /// `null` where all were deleted.
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Remote {
    /// All tags, in the registry's order; none where the registry knows no such repository.
    pub fn tags(&self) -> Result<Vec<String>, TransportError> {
        let repo = self.own(Repo::reading)?;
        let action = format!("list the tags of `{}`", repo.name());
        let host = &repo.access.endpoint.host;
        let mut url = address::with_query(&repo.own_url("tags/list"), "n", &PAGE.to_string());
        let mut tags = Vec::new();
        for _ in 0..PAGES_MAX {
            let mut call = Call::new(Method::GET, url.clone(), &repo.access, &action);
            let mut reply = repo.client.call(&mut call, &[200, 404])?;
            if reply.status() == 404 {
                return Ok(tags);
            }
            let next = reply.header("link").and_then(next_link);
            let next = next.map(|next| address::resolve(&next, &reply.url, repo.access.home()));
            let limit = usize::try_from(INDEX_SIZE_MAX).unwrap_or(usize::MAX);
            let read = reply.answer.read_limited(limit);
            let (bytes, whole) = read.map_err(|source| broken(&action, host.clone(), source))?;
            if !whole {
                return Err(repo
                    .client
                    .protocol(&call, "a page of its list is larger than a manifest may be"));
            }
            let page: TagList = parse(&bytes, &repo.name(), "the list of tags".to_owned())?;
            tags.extend(page.tags.unwrap_or_default());
            match next {
                Some(next) => url = next.map_err(|stray| repo.client.protocol(&call, stray.to_string()))?,
                None => return Ok(tags),
            }
        }
        let call = Call::new(Method::GET, url, &repo.access, &action);
        Err(repo.client.protocol(&call, "its list does not end"))
    }

    /// A manifest or an index, by tag or digest; `None` where there is none.
    pub fn document(&self, reference: &str) -> Result<Option<Document>, TransportError> {
        let repo = self.own(Repo::reading)?;
        let found = repo.manifest(reference, &self.0.registry)?;
        found.map(|found| found.document(&repo.name())).transpose()
    }

    /// The digest of what a tag names; `None` where it names nothing.
    pub fn digest_of(&self, tag: &str) -> Result<Option<ContentDigest>, TransportError> {
        self.own(Repo::reading)?.manifest_digest(tag)
    }

    /// Writes a manifest or an index, all of whose blobs are there, under a tag.
    pub fn put_document(&self, tag: &str, document: &Document) -> Result<(), TransportError> {
        let repo = self.own(Repo::writing)?;
        repo.put_manifest(tag, document.bytes(), document.media_type())
            .map(drop)
    }

    /// Deletes a manifest or an index, with all tags that name it; false where it was gone.
    pub fn delete(&self, digest: &ContentDigest) -> Result<bool, TransportError> {
        let repo = self.own(Repo::deleting)?;
        let action = format!("delete the manifest `{digest}` of `{}`", repo.name());
        let url = repo.own_url(&format!("manifests/{digest}"));
        let mut call = Call::new(Method::DELETE, url, &repo.access, &action);
        let reply = repo.client.call(&mut call, &[200, 202, 204, 404])?;
        Ok(reply.status() != 404)
    }

    /// The repository at the registry itself.
    fn own<'c>(
        &'c self,
        with: fn(&'c super::client::RegistryClient<'static>, super::Endpoint, &str) -> Repo<'c, 'static>,
    ) -> Result<Repo<'c, 'static>, TransportError> {
        let own = self.0.endpoints.last().ok_or_else(|| RegistryError::Protocol {
            action: format!("ask for `{}`", self.0.repository),
            host: self.0.registry.clone(),
            reason: "it has no address".to_owned(),
            help: None,
        })?;
        Ok(with(&self.0.client, own.clone(), &self.0.repository))
    }
}
