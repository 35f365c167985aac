//! What is kept *beside* images in a repository: an artifact under a tag of its own.
//!
//! Invariant: a tag is written after all blobs that its manifest names are there. What the anchor names is neither
//! looked for nor sent, so that an artifact whose blobs are there costs two requests: one reads the anchor, one writes
//! the tag; none is written where the anchor is the artifact itself.
//!
//! The anchor never moves: registries whose tags cannot be moved take it, and the artifacts of earlier images keep tags
//! of their own, which clean-up jobs that delete untagged manifests spare. The list of referrers that clients keep for a
//! registry without one (distribution-spec, "Referrers Tag Schema") is not written: the tag leads from the image to the
//! artifact in one request, and the list would cost four more with each image.

use std::collections::BTreeSet;

use reqwest::Url;

use super::content::Content;
use super::outcome::PushSummary;
use super::push::{Look, Push, PushedDocument, Pusher, lacks_blobs};
use crate::digest::{ContentDigest, Digest};
use crate::event::BlobOutcome;
use crate::oci::Reference;
use crate::transport::{Companion, Supply, TransportError};

impl Pusher<'_> {
    /// Stores a companion in the repository of `target`. `replaced` is the image that the companion's own replaces under
    /// its name: that one's companion most likely has most of the blobs.
    pub fn put_companion(
        &self,
        target: &Reference,
        companion: &Companion,
        replaced: Option<&Digest>,
        supply: &Supply<'_>,
    ) -> Result<PushSummary, TransportError> {
        let push = Push::new(self, target)?;
        let document = PushedDocument::of_image(&companion.artifact, true);
        let tags = [companion.tag.clone()];
        let anchored = push.learn(&companion.anchor)?.map(|(digest, _)| digest);
        if anchored == Some(document.digest) {
            return Ok(push.finish(document.digest, &tags));
        }
        if anchored.is_none()
            && let Some(replaced) = replaced
        {
            push.learn(&(companion.tag_of)(replaced))?;
        }
        push.complete(&document, supply)?;
        if let Err(error) = push.put_tag(&document, &companion.tag) {
            if !lacks_blobs(&error) {
                return Err(error);
            }
            document.blobs.iter().for_each(|blob| push.forget(blob));
            push.complete(&document, supply)?;
            push.put_tag(&document, &companion.tag)?;
        }
        if anchored.is_none() && companion.anchor != companion.tag {
            push.put_tag(&document, &companion.anchor)?;
        }
        Ok(push.finish(document.digest, &tags))
    }
}

impl Push<'_, '_> {
    /// Brings all blobs of a document that the repository lacks.
    fn complete(&self, document: &PushedDocument, supply: &Supply<'_>) -> Result<(), TransportError> {
        let lacking = self.lacking(document)?;
        let digests: Vec<ContentDigest> = lacking.iter().map(|(content, _)| content.digest).collect();
        if !self.is_dry_run() {
            supply(&digests).map_err(|source| TransportError::Supply {
                place: self.repo.name(),
                source,
            })?;
        }
        self.parallel(&lacking, |(content, opened)| {
            let outcome = self.told(content, || self.deliver(content, opened.clone()))?;
            self.know(content);
            self.count(outcome, content.size);
            Ok(())
        })?;
        Ok(())
    }

    /// The blobs of a document that the repository lacks, the largest first, each with the session in which it can be
    /// sent. What it can take from another repository it has by then.
    fn lacking<'d>(&self, document: &'d PushedDocument) -> Result<Vec<(&'d Content, Option<Url>)>, TransportError> {
        let mut seen = BTreeSet::new();
        let blobs: Vec<&Content> = document.blobs.iter().filter(|blob| seen.insert(blob.digest)).collect();
        let found = self.parallel(&blobs, |content| {
            let found = match self.is_known(&content.digest) {
                true => Look::There(BlobOutcome::Present),
                false => self.look(content)?,
            };
            if let Look::There(outcome) = &found {
                self.know(content);
                self.count(*outcome, content.size);
            }
            Ok(found)
        })?;
        let mut lacking: Vec<(&Content, Option<Url>)> = (blobs.into_iter().zip(found))
            .filter_map(|(content, found)| match found {
                Look::There(_) => None,
                Look::Lacking(opened) => Some((content, opened)),
            })
            .collect();
        lacking.sort_by_key(|(content, _)| std::cmp::Reverse(content.size));
        Ok(lacking)
    }

    /// Writes a manifest under a tag. A registry whose tags cannot move refuses even what it has.
    fn put_tag(&self, document: &PushedDocument, tag: &str) -> Result<(), TransportError> {
        match self.put_once(document, tag) {
            Ok(_) => Ok(()),
            Err(error) if lacks_blobs(&error) => Err(error),
            Err(error) => match self.repo.visible_manifest_digest(tag) {
                Ok(Some(found)) if document.digest == found => Ok(()),
                _ => Err(error),
            },
        }
    }
}
