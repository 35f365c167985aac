//! What is *answered* to a request.
//!
//! Invariant: whatever is asked, in whatever state the images are, there is an answer, and one that refuses says why.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LINK,
    WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Method, Response, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::digest::ContentDigest;
use crate::escape::shown;
use crate::image::ImageLayer;
use crate::layer::LayerError;
use crate::oci::{MediaType, canonical_json};

use super::body::{AnswerBody, Pieces, Streamed};
use super::fault::{Code, Fault};
use super::headers::{self, Part};
use super::hosts::Hosts;
use super::login::Token;
use super::route::{self, ManifestName, Page, Route, order};
use super::shelf::{FoundBlob, FoundManifest, Shelf, Version};
use super::workshop::Workshop;
use super::{Failure, ServedName};

/// Longest reason that stands in the first line of an answer, in bytes.
const REASON_MAX: usize = 240;

const JSON: &str = "application/json";
const OCTETS: &str = "application/octet-stream";

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

pub(super) type Answer = Response<AnswerBody>;

/// Answers requests.
pub(super) struct Desk {
    pub workshop: Workshop,
    pub shelf: Arc<Shelf>,
    pub token: Option<Token>,
    pub hosts: Hosts,
}

impl Desk {
    /// The answer to a request.
    pub(super) async fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Answer {
        let mut answer = match self.found(method, uri, headers).await {
            Ok(answer) => answer,
            Err(fault) => refused(&fault),
        };
        set(&mut answer, API_VERSION, "registry/2.0");
        if method == Method::HEAD {
            let (mut head, body) = answer.into_parts();
            let length = hyper::body::Body::size_hint(&body).exact().unwrap_or_default();
            // Of what is not sent the length is told all the same.
            head.headers.entry(CONTENT_LENGTH).or_insert(length.into());
            answer = Response::from_parts(head, AnswerBody::empty());
        }
        answer
    }

    async fn found(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Answer, Fault> {
        if let Some(name) = self.hosts.stranger(uri, headers) {
            let text = format!("this registry is not called `{name}`: whoever runs it can say so, by `--host`");
            return Err(Fault::new(Code::Misdirected, text));
        }
        if let Some(token) = &self.token
            && !token.is_shown(headers)
        {
            let text = "log in with any name, and the registry's token as the password";
            return Err(Fault::new(Code::Unauthorized, text));
        }
        let route = Route::parse(uri.path(), uri.query().unwrap_or_default())?;
        let reads = method == Method::GET || method == Method::HEAD;
        if !reads || route == Route::Upload {
            let text =
                format!("this registry is read-only, and {method} is not: its images are made from a layerize.toml");
            return Err(Fault::new(Code::Unsupported, text));
        }
        match route {
            Route::Base => Ok(document(&json!({}), JSON)),
            Route::Catalog(page) => self.catalog(&page).await,
            Route::Tags { repository, page } => self.tags(&repository, &page).await,
            Route::Manifest { repository, name } => {
                let found = self.manifest(&repository, &name).await?;
                manifest(found, headers)
            }
            Route::Blob { repository, digest } => {
                let found = self.blob(&repository, &digest).await?;
                self.blob_answer(found, digest, method, headers).await
            }
            Route::Referrers {
                repository,
                digest,
                artifact_type,
            } => self.referrers(&repository, &digest, artifact_type.as_deref()).await,
            Route::Upload => Err(Fault::new(Code::Unsupported, "this registry is read-only")),
        }
    }

    async fn catalog(&self, page: &Page) -> Result<Answer, Fault> {
        let names = self.names().await?;
        let repositories = sorted(names.into_iter().map(|name| name.repository));
        let (part, next) = page.of(&repositories);
        Ok(list(&json!({ "repositories": part }), "/v2/_catalog", next))
    }

    async fn tags(&self, repository: &str, page: &Page) -> Result<Answer, Fault> {
        let names = self.names_in(repository).await?;
        let tags = sorted(names.into_iter().map(|name| name.tag));
        let (part, next) = page.of(&tags);
        let listed = json!({ "name": repository, "tags": part });
        Ok(list(&listed, &format!("/v2/{repository}/tags/list"), next))
    }

    async fn manifest(&self, repository: &str, name: &ManifestName) -> Result<FoundManifest, Fault> {
        match name {
            ManifestName::Tag(tag) => {
                let names = self.names_in(repository).await?;
                let Some(name) = names.iter().find(|name| name.tag == *tag) else {
                    let tags = sorted(names.into_iter().map(|name| name.tag)).join(", ");
                    let text = format!("`{repository}` has no tag `{tag}`: there are {tags}");
                    return Err(Fault::new(Code::ManifestUnknown, text));
                };
                let version = self.make(&name.image).await?;
                Ok(version.manifest())
            }
            ManifestName::Digest(digest) => {
                if let Some(found) = self.shelf.manifest(repository, digest) {
                    return Ok(found);
                }
                // It may be that of an image that was not made since the registry began, or since its last edit.
                self.make_all(repository).await?;
                self.shelf.manifest(repository, digest).ok_or_else(|| {
                    let text = format!("no image that `{repository}` stands for now is `{digest}`");
                    Fault::new(Code::ManifestUnknown, text)
                })
            }
        }
    }

    async fn blob(&self, repository: &str, digest: &ContentDigest) -> Result<FoundBlob, Fault> {
        // A client that has the manifest has it from here, unless the registry was started anew since.
        if !self.shelf.has(repository) {
            self.make_all(repository).await?;
        }
        let unknown = || {
            let text = format!("`{repository}` has no blob `{digest}`");
            Fault::new(Code::BlobUnknown, text)
        };
        self.shelf.blob(repository, digest).ok_or_else(unknown)
    }

    async fn referrers(
        &self,
        repository: &str,
        digest: &ContentDigest,
        artifact_type: Option<&str>,
    ) -> Result<Answer, Fault> {
        if !self.shelf.has(repository) {
            self.make_all(repository).await?;
        }
        let mut listed: Vec<Value> = Vec::new();
        if let Some((version, image)) = self.shelf.version(repository, digest)
            && let Some(said) = version.documents(&image)
        {
            let documents = match said.get() {
                Some(documents) => documents.clone(),
                None => {
                    let made = self.workshop.documents(&version.name, image).await;
                    let made = made.map_err(failed)?;
                    said.get_or_init(|| made).clone()
                }
            };
            let wanted = documents
                .iter()
                .filter(|artifact| artifact_type.is_none_or(|kind| kind == artifact.artifact_type));
            listed.extend(wanted.map(|artifact| artifact.descriptor()));
        }
        let index = json!({ "schemaVersion": 2, "mediaType": MediaType::INDEX, "manifests": listed });
        let mut answer = document(&index, MediaType::INDEX);
        if artifact_type.is_some() {
            set(&mut answer, FILTERS_APPLIED, "artifactType");
        }
        Ok(answer)
    }

    async fn blob_answer(
        &self,
        found: FoundBlob,
        digest: ContentDigest,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Answer, Fault> {
        let size = match &found {
            FoundBlob::Bytes(bytes) => bytes.len() as u64,
            FoundBlob::Layer(version, layer) => version.layer(*layer).size(),
        };
        if headers::has(headers, &digest) {
            return Ok(unchanged(&digest));
        }
        // A part of what is not sent makes no difference.
        let part = match *method == Method::HEAD {
            true => Part::Whole,
            false => headers::part(headers, &digest, size),
        };
        let (at, len) = match part {
            Part::Whole => (0, size),
            Part::Range { at, len } => (at, len),
            Part::Nowhere => {
                let mut answer = refused(&Fault::new(Code::RangeInvalid, format!("the blob has {size} bytes")));
                set(&mut answer, CONTENT_RANGE, &format!("bytes */{size}"));
                return Ok(answer);
            }
        };
        let body = match found {
            _ if *method == Method::HEAD => AnswerBody::empty(),
            FoundBlob::Bytes(bytes) => bytes.slice(at as usize..(at + len) as usize).into(),
            FoundBlob::Layer(version, layer) => self.streamed(version, layer, at, len).await?,
        };
        let mut answer = Response::new(body);
        if let Part::Range { .. } = part {
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            set(
                &mut answer,
                CONTENT_RANGE,
                &format!("bytes {at}-{}/{size}", at + len - 1),
            );
        }
        set(&mut answer, CONTENT_LENGTH, &len.to_string());
        set(&mut answer, CONTENT_TYPE, OCTETS);
        set(&mut answer, ACCEPT_RANGES, "bytes");
        set_digest(&mut answer, &digest);
        Ok(answer)
    }

    /// Bytes of a layer, of which the first piece is there: what cannot be read at all is a fault and not a broken answer.
    async fn streamed(&self, version: Arc<Version>, layer: usize, at: u64, len: u64) -> Result<AnswerBody, Fault> {
        let begun = version.clone();
        let begun = spawn_blocking(move || begin(begun.layer(layer), at, len)).await;
        let (first, pieces) = match begun {
            Ok(Ok(begun)) => begun,
            Ok(Err(error)) => {
                self.shelf.forget(&version);
                let text = format!(
                    "a layer of `{}` cannot be read: {}",
                    version.name,
                    crate::fsio::with_causes(&error)
                );
                return Err(Fault::new(Code::Unreadable, text));
            }
            Err(_) => return Err(failed(Failure::ending())),
        };
        let source = (self.shelf.clone(), version, layer);
        Ok(AnswerBody::Streamed(Streamed::new(first, pieces, source)))
    }

    /// An image as it is now.
    async fn make(&self, name: &str) -> Result<Arc<Version>, Fault> {
        let image = self.workshop.image(name).await.map_err(failed)?;
        let mut names = self.names().await?;
        names.extend(route::store_path(name.trim_start_matches('/')));
        let own = names.iter().filter(|own| own.image == name);
        Ok(self.shelf.put(name, image, own.map(|own| own.repository.as_str())))
    }

    /// All images of a repository as they are now. One that cannot be made does not hide the others; where none can, the
    /// first failure is told.
    async fn make_all(&self, repository: &str) -> Result<(), Fault> {
        let names = self.names_in(repository).await?;
        let mut failure = None;
        for image in sorted(names.into_iter().map(|name| name.image)) {
            if let Err(fault) = self.make(&image).await {
                failure.get_or_insert(fault);
            }
        }
        match failure {
            Some(fault) if !self.shelf.has(repository) => Err(fault),
            _ => Ok(()),
        }
    }

    async fn names(&self) -> Result<Vec<ServedName>, Fault> {
        self.workshop.names().await.map_err(failed)
    }

    /// The names in a repository, at least one.
    async fn names_in(&self, repository: &str) -> Result<Vec<ServedName>, Fault> {
        let names = self.names().await?;
        let (mut own, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.repository == repository);
        if own.is_empty() {
            own.extend(route::store_path(repository));
        }
        if own.is_empty() {
            let others = sorted(others.into_iter().map(|name| name.repository)).join(", ");
            let text = format!("there is no image `{repository}` here: there are {others}");
            return Err(Fault::new(Code::NameUnknown, text));
        }
        Ok(own)
    }
}

/// Opens a part of a layer and reads its first piece. A whole layer is verified at its end; where the cache turns out to be
/// damaged at the beginning, the layer is packed anew.
fn begin(layer: &ImageLayer, at: u64, len: u64) -> Result<(Bytes, Pieces), LayerError> {
    let once = |layer: &ImageLayer| -> io::Result<(Bytes, Pieces)> {
        let mut pieces = match at == 0 && len == layer.size() {
            true => Pieces::new(Box::new(layer.open()), len, true),
            false => Pieces::new(Box::new(layer.content.open_at(at)?), len, false),
        };
        Ok((pieces.next()?, pieces))
    };
    match once(layer).map_err(|error| layer.read_error(error)) {
        Err(LayerError::Damaged { .. }) => {
            let sound = layer.packed_anew()?;
            once(&sound).map_err(|error| sound.read_error(error))
        }
        begun => begun,
    }
}

/// Sorted as lists are, each once.
fn sorted(entries: impl Iterator<Item = String>) -> Vec<String> {
    let mut entries: Vec<String> = entries.collect();
    entries.sort_by_cached_key(|entry| order(entry));
    entries.dedup();
    entries
}

fn manifest(found: FoundManifest, headers: &HeaderMap) -> Result<Answer, Fault> {
    if !headers::accepts(headers, &found.media_type) {
        let text = format!(
            "the manifest is of the type `{}`, which the client does not accept",
            found.media_type
        );
        return Err(Fault::new(Code::NotAcceptable, text));
    }
    if headers::has(headers, &found.digest) {
        return Ok(unchanged(&found.digest));
    }
    let mut answer = Response::new(found.bytes.into());
    set(&mut answer, CONTENT_TYPE, &found.media_type);
    set_digest(&mut answer, &found.digest);
    Ok(answer)
}

fn unchanged(digest: &ContentDigest) -> Answer {
    let mut answer = Response::new(AnswerBody::empty());
    *answer.status_mut() = StatusCode::NOT_MODIFIED;
    set_digest(&mut answer, digest);
    answer
}

fn list(listed: &Value, path: &str, next: Option<String>) -> Answer {
    let mut answer = document(listed, JSON);
    if let Some(query) = next {
        set(&mut answer, LINK, &format!("<{path}?{query}>; rel=\"next\""));
    }
    answer
}

fn document(document: &Value, media_type: &str) -> Answer {
    let mut answer = Response::new(Bytes::from(canonical_json(document)).into());
    set(&mut answer, CONTENT_TYPE, media_type);
    answer
}

/// What stands for an answer that cannot be given. Its first line says why, too: that is all that many clients show of it, and
/// all that there is where they ask for the head alone.
fn refused(fault: &Fault) -> Answer {
    let error = json!({ "code": fault.code.text(), "message": fault.message });
    let mut answer = document(&json!({ "errors": [error] }), JSON);
    *answer.status_mut() = fault.code.status();
    let status = fault.code.status().canonical_reason().unwrap_or_default();
    let first = shown(fault.message.lines().next().unwrap_or_default()).into_owned();
    let visible = first.chars().filter(|&c| c == ' ' || c.is_ascii_graphic());
    let reason: String = format!("{status}: ").chars().chain(visible).take(REASON_MAX).collect();
    if let Ok(reason) = hyper::ext::ReasonPhrase::try_from(reason) {
        answer.extensions_mut().insert(reason);
    }
    match fault.code {
        Code::Unauthorized => set(&mut answer, WWW_AUTHENTICATE, "Basic realm=\"layerize\""),
        Code::Unsupported => set(&mut answer, ALLOW, "GET, HEAD"),
        _ => {}
    }
    answer
}

fn failed(failure: Failure) -> Fault {
    Fault::new(Code::BuildFailed, failure.text)
}

fn set_digest(answer: &mut Answer, digest: &ContentDigest) {
    set(answer, CONTENT_DIGEST, &digest.to_string());
    set(answer, ETAG, &format!("\"{digest}\""));
}

fn set(answer: &mut Answer, name: HeaderName, value: &str) {
    // Values are digests, numbers, media types and names that were checked.
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}
