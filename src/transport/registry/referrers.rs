//! *Referrers* are manifests that speak of another one, their subject: signatures, lists of parts, provenance.
//!
//! Invariant: a referrer can be found afterwards, by the registry's own list or by the tag that stands for it where
//! the registry keeps none; nobody else's entry of that tag is lost.

use reqwest::Method;
use serde_json::{Value, json};

use super::RegistryConfig;
use super::client::{Call, RegistryClient, RegistryTuning};
use super::content::Content;
use super::error::RegistryError;
use super::outcome::{PushOptions, PushSummary};
use super::push::{Push, PushedDocument, Pusher};
use super::repo::Repo;
use crate::digest::{ContentDigest, Digest};
use crate::event::{Reporter, Silent};
use crate::http::address;
use crate::oci::{INDEX_SIZE_MAX, Manifest, MediaType, Raw, Reference, canonical_json, is_index};
use crate::transport::{Referrers, TransportError, parse};

/// Most pages of a list that are read.
const PAGES_MAX: usize = 100;
/// How often the fallback tag is written again because somebody else wrote it meanwhile.
const ROUNDS_MAX: u32 = 6;
/// What messages call a list.
const LIST: &str = "the list of referrers";

/// Pushes a manifest that has a `subject` of the repository of `target`, with its blobs, and makes sure that it is
/// listed there (distribution-spec, "Pushing Manifests with Subject").
pub fn attach(
    config: &RegistryConfig,
    target: &Reference,
    manifest: &[u8],
    blobs: &[Vec<u8>],
    options: &PushOptions,
    reporter: &dyn Reporter,
) -> Result<PushSummary, TransportError> {
    Pusher::new(config, options, reporter)?.attach(target, manifest, blobs)
}

/// What the registry lists as being about the image `digest` of the repository of `subject`, in its order.
pub(super) fn list(
    config: &RegistryConfig,
    tuning: RegistryTuning,
    subject: &Reference,
    digest: &ContentDigest,
) -> Result<Referrers, TransportError> {
    let client = RegistryClient::new(config, tuning, &Silent);
    let endpoint = config.endpoints(subject.registry(), false)?.into_iter().next_back();
    let endpoint = endpoint.ok_or_else(|| TransportError::Missing {
        place: subject.to_string(),
        what: "an endpoint to read from".to_owned(),
    })?;
    let repo = Repo::reading(&client, endpoint, subject.repository());
    if let Some(listed) = api(&repo, digest)? {
        return Ok(listed);
    }
    let mut found = Referrers::default();
    if let Some(list) = repo.manifest(&fallback_tag(digest), subject.registry())? {
        found.add(&list.bytes, digest, &repo.name(), LIST)?;
    }
    Ok(found)
}

/// The registry's own list; `None` where it has none (a 404, a 400, or a web page).
fn api(repo: &Repo<'_, '_>, digest: &ContentDigest) -> Result<Option<Referrers>, TransportError> {
    let action = format!("list what refers to `{digest}` in `{}`", repo.name());
    let mut url = repo.url(&format!("referrers/{digest}"), &repo.access.endpoint.host);
    let mut all = Referrers::default();
    for _ in 0..PAGES_MAX {
        let mut call = Call::new(Method::GET, url.clone(), &repo.access, &action);
        let mut reply = match repo.client.call(&mut call, &[200, 400, 404, 405]) {
            // A redirect to a page where people log in, or to nowhere, is no list.
            Err(TransportError::Registry(error)) if matches!(error.status(), Some(301..=399 | 501)) => return Ok(None),
            reply => reply?,
        };
        let is_index = reply.header("content-type").is_some_and(is_index);
        if reply.status() != 200 || !is_index {
            return Ok(None);
        }
        let next = reply.header("link").and_then(next_link);
        let next = next.map(|next| address::resolve(&next, &reply.url, repo.access.home()));
        let limit = usize::try_from(INDEX_SIZE_MAX).unwrap_or(usize::MAX);
        let read = reply.answer.read_limited(limit);
        let host = repo.access.endpoint.host.clone();
        let (bytes, whole) = read.map_err(|source| super::client::broken(&action, host, source))?;
        if !whole {
            return Err(repo.client.protocol(&call, "its list is larger than a manifest may be"));
        }
        all.add(&bytes, digest, &repo.name(), LIST)?;
        match next {
            Some(next) if !all.cut => url = next.map_err(|stray| repo.client.protocol(&call, stray.to_string()))?,
            _ => return Ok(Some(all)),
        }
    }
    all.cut = true;
    Ok(Some(all))
}

/// The target of `<…>; rel="next"` (RFC 8288).
pub(super) fn next_link(header: &str) -> Option<String> {
    header.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let next = parameters
            .split(';')
            .map(str::trim)
            .any(|p| matches!(p, "rel=\"next\"" | "rel=next"));
        next.then(|| target.to_owned())
    })
}

/// The tag that stands for the list of referrers (distribution-spec, "Referrers Tag Schema").
fn fallback_tag(digest: &ContentDigest) -> String {
    format!("{}-{}", digest.algorithm(), digest.hex())
}

impl Pusher<'_> {
    /// See [`attach`].
    pub fn attach(
        &self,
        target: &Reference,
        manifest: &[u8],
        blobs: &[Vec<u8>],
    ) -> Result<PushSummary, TransportError> {
        let what = ("the document to attach", "the manifest");
        let read = Raw::<Manifest>::read(manifest.to_vec()).map_err(TransportError::document(what.0, what.1))?;
        let Some(subject) = &read.subject else {
            return Err(TransportError::Malformed {
                place: what.0.to_owned(),
                what: what.1.to_owned(),
                reason: "it has no subject".to_owned(),
            });
        };
        let push = Push::new(self, target)?;
        let document = PushedDocument {
            digest: Digest::of(manifest),
            bytes: manifest.to_vec(),
            media_type: read.media_type().to_owned(),
            blobs: blobs.iter().map(|bytes| Content::of(bytes.clone())).collect(),
        };
        push.parallel(&document.blobs, |content| push.bring(content))?;
        let reply = push.put(&document, &document.digest.to_string())?;
        // A registry that keeps the list says so.
        let listed = reply.as_ref().is_none_or(|reply| reply.header("oci-subject").is_some());
        if !listed && api(&push.repo, &subject.digest)?.is_none() {
            add_to_fallback(&push.repo, &subject.digest, entry(&read))?;
        }
        Ok(push.finish(document.digest, &[]))
    }
}

/// A manifest's entry in a list of referrers: with all annotations, and the config's type where it has no own one.
fn entry(manifest: &Raw<Manifest>) -> Value {
    let mut entry = json!({
        "mediaType": manifest.media_type(),
        "digest": manifest.digest(),
        "size": manifest.size(),
        "artifactType": manifest.kind_of_artifact(),
    });
    if !manifest.annotations.is_empty() {
        entry["annotations"] = json!(manifest.annotations);
    }
    entry
}

/// Adds an entry to the index that the fallback tag names, against whoever does the same at this moment.
fn add_to_fallback(repo: &Repo<'_, '_>, subject: &ContentDigest, entry: Value) -> Result<(), TransportError> {
    let tag = fallback_tag(subject);
    let host = repo.access.endpoint.host.clone();
    let (what, place) = (format!("the list of referrers `{tag}`"), repo.name());
    for _ in 0..ROUNDS_MAX {
        let found = repo.manifest(&tag, &host)?;
        let etag = found.as_ref().and_then(|found| found.etag.clone());
        let mut index: Value = match &found {
            None => json!({ "schemaVersion": 2, "mediaType": MediaType::INDEX, "manifests": [] }),
            Some(found) => parse(&found.bytes, &place, what.clone())?,
        };
        let entries = index.get_mut("manifests").and_then(Value::as_array_mut);
        let Some(entries) = entries.filter(|_| found.as_ref().is_none_or(|found| is_index(&found.media_type))) else {
            return Err(TransportError::Malformed {
                place,
                what,
                reason: "it is not an index: the tag is used for something else".to_owned(),
            });
        };
        if entries.iter().any(|listed| listed["digest"] == entry["digest"]) {
            return Ok(());
        }
        entries.push(entry.clone());
        let url = repo.url(&format!("manifests/{tag}"), &host);
        match repo.put(url, &tag, &canonical_json(&index), MediaType::INDEX, etag.as_deref()) {
            // Somebody was faster: their entry is read before ours is added.
            Err(TransportError::Registry(error)) if error.status() == Some(412) => {}
            // The next round reads it back: without a condition, somebody may have overwritten it.
            result => drop(result?),
        }
    }
    Err(RegistryError::Protocol {
        action: format!("add to the list of referrers `{tag}` of `{}`", repo.name()),
        host,
        reason: "what is written there is overwritten each time".to_owned(),
        help: None,
    }
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_38_the_next_page_is_found_in_any_link_header() {
        assert_eq!(next_link("</v2/x?n=2>; rel=\"next\"").as_deref(), Some("/v2/x?n=2"));
        assert_eq!(next_link("<a>; rel=prev, <b>; title=x; rel=next").as_deref(), Some("b"));
        assert_eq!(next_link("<a>; rel=\"prev\""), None);
        assert_eq!(next_link("a; rel=next"), None);
    }
}
