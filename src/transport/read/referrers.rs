//! The *referrers* of an image in a layout: among all manifests of `index.json` and of the list under its fallback tag.
//!
//! Invariant: a list that is broken hides what the other one lists no more than a broken entry does.

use super::super::TransportError;
use super::super::document::{self, Descriptor, MANIFEST_MAX, REF_NAME};
use super::super::referrers::Referrers;
use super::{Container, blob_bytes};
use crate::digest::Digest;

/// What the layout lists besides the image itself: whether it is about the image, its manifest alone can say.
pub(super) fn of(container: &Container, place: &str, image: &Digest) -> Result<Referrers, TransportError> {
    let mut found = Referrers::default();
    let Some(bytes) = container.read("index.json", MANIFEST_MAX)? else {
        return Ok(found);
    };
    let what = "the list of referrers";
    for list in fallback_lists(&bytes, place, image)? {
        let read = blob_bytes(container, place, &list, MANIFEST_MAX, what);
        let added = read.and_then(|bytes| found.add(&bytes, image, place, what));
        found.unreadable += usize::from(added.is_err());
    }
    found.add(&bytes, image, place, "`index.json`")?;
    Ok(found)
}

/// The indexes under the image's fallback tag (distribution-spec, "Referrers Tag Schema").
fn fallback_lists(index: &[u8], place: &str, image: &Digest) -> Result<Vec<Descriptor>, TransportError> {
    let tag = format!("sha256-{}", image.hex());
    let index: document::Index = document::parse(index, place, "`index.json`")?;
    let lists = index.manifests.into_iter();
    let lists = lists.filter(|found| found.annotation(REF_NAME) == Some(&tag) && document::is_index(&found.media_type));
    Ok(lists.collect())
}

/// The manifest that `index.json` lists under a name.
pub(super) fn tagged(container: &Container, place: &str, name: &str) -> Result<Option<Vec<u8>>, TransportError> {
    let Some(bytes) = container.read("index.json", MANIFEST_MAX)? else {
        return Ok(None);
    };
    let index: document::Index = document::parse(&bytes, place, "`index.json`")?;
    let is_named =
        |found: &&Descriptor| found.annotation(REF_NAME) == Some(name) && document::is_manifest(&found.media_type);
    let Some(found) = index.manifests.iter().find(is_named) else {
        return Ok(None);
    };
    blob_bytes(container, place, found, MANIFEST_MAX, &format!("the manifest `{name}`")).map(Some)
}
