//! What is *known* to be in a repository, without asking for each blob.
//!
//! Invariant: a manifest that a registry has stands for all that it names. Where the registry has lost a blob all the
//! same, it says so when the next manifest is written, and the blobs are looked for one by one.

use super::content::Content;
use super::push::Push;
use crate::digest::{ContentDigest, Digest};
use crate::http::wire::lock;
use crate::oci::Document;
use crate::transport::TransportError;

/// How many manifests below a tag are read for the blobs that they name.
const LEARNED_MAX: usize = 16;

impl Push<'_, '_> {
    /// What the tag names now has its blobs in the repository: one request instead of one for each of them. If the
    /// registry has lost one, it says so when the manifest is written, and they are looked for one by one.
    pub(super) fn learn_from(&self, tag: &str) -> Result<(), TransportError> {
        let mut references = vec![tag.to_owned()];
        let mut read = 0;
        while let Some(reference) = references.pop().filter(|_| read < LEARNED_MAX) {
            read += 1;
            let Some((digest, children)) = self.learn(&reference)? else {
                continue;
            };
            if reference == tag {
                lock(&self.summary).replaced = Some(digest);
                references.extend(children.iter().map(ToString::to_string));
            }
        }
        Ok(())
    }

    /// Takes the blobs that a manifest names for being in the repository; gives its digest, and the manifests that it
    /// lists. `None` where there is no such manifest.
    pub(super) fn learn(&self, reference: &str) -> Result<Option<(Digest, Vec<ContentDigest>)>, TransportError> {
        let Some(found) = self.repo.visible_manifest(reference)? else {
            return Ok(None);
        };
        let digest = Digest::of(&found.bytes);
        match found.document(&self.repo.name()) {
            Ok(Document::Manifest(manifest)) => {
                let mut flights = lock(&self.pusher.flights);
                let blobs = manifest.layers.iter().chain([&manifest.config]);
                flights.there.extend(blobs.map(|blob| self.key(&blob.digest)));
                Ok(Some((digest, Vec::new())))
            }
            Ok(Document::Index(index)) => {
                let children = index.manifests.iter().map(|child| child.digest);
                Ok(Some((digest, children.collect())))
            }
            // What is no image teaches nothing.
            Err(_) => Ok(Some((digest, Vec::new()))),
        }
    }

    /// A blob in this repository.
    pub(super) fn key(&self, digest: &ContentDigest) -> (String, String, ContentDigest) {
        let access = &self.repo.access;
        (access.endpoint.host.clone(), access.repository.clone(), *digest)
    }

    /// Takes note that a blob is there.
    pub(super) fn know(&self, content: &Content) {
        if self.is_dry_run() {
            return;
        }
        let access = &self.repo.access;
        lock(&self.pusher.flights).there.insert(self.key(&content.digest));
        let known = (access.endpoint.host.clone(), content.digest);
        lock(&self.pusher.known).insert(known, access.repository.clone());
    }

    /// Takes note that a blob may be gone.
    pub(super) fn forget(&self, content: &Content) {
        lock(&self.pusher.flights).there.remove(&self.key(&content.digest));
    }

    /// Whether a blob is known to be there.
    pub(super) fn is_known(&self, digest: &ContentDigest) -> bool {
        lock(&self.pusher.flights).there.contains(&self.key(digest))
    }
}
