//! The *referrers* of an image in a layout: among all manifests of `index.json` and of the list under its fallback tag.
//!
//! Invariant: a list that is broken hides what the other one lists no more than a broken entry does.

use super::super::referrers::Referrers;
use super::super::{TransportError, manifest_of};
use super::{Container, blob_bytes, document, top_index};
use crate::digest::ContentDigest;
use crate::oci::{Descriptor, Index, Manifest, REF_NAME, Raw};

/// What the layout lists besides the image itself: whether it is about the image, its manifest alone can say.
pub(super) fn of(container: &Container, place: &str, image: &ContentDigest) -> Result<Referrers, TransportError> {
    let mut found = Referrers::default();
    let Some(index) = top_index(container, place)? else {
        return Ok(found);
    };
    let what = "the list of referrers";
    for list in fallback_lists(&index, image) {
        let read = blob_bytes(container, place, list, what);
        let added = read.and_then(|list| found.add(&list, image, place, what));
        found.unreadable += usize::from(added.is_err());
    }
    found.add(index.bytes(), image, place, "`index.json`")?;
    Ok(found)
}

/// The indexes under the image's fallback tag (distribution-spec, "Referrers Tag Schema").
fn fallback_lists<'a>(index: &'a Raw<Index>, image: &ContentDigest) -> impl Iterator<Item = &'a Descriptor> {
    let tag = format!("{}-{}", image.algorithm(), image.hex());
    let lists = index.manifests.iter();
    lists.filter(move |found| found.annotation(REF_NAME) == Some(&tag) && found.is_index())
}

/// The manifest that `index.json` lists under a name.
pub(super) fn tagged(container: &Container, place: &str, name: &str) -> Result<Option<Raw<Manifest>>, TransportError> {
    let Some(index) = top_index(container, place)? else {
        return Ok(None);
    };
    let is_named = |found: &&Descriptor| found.annotation(REF_NAME) == Some(name) && found.is_manifest();
    let Some(found) = index.manifests.iter().find(is_named) else {
        return Ok(None);
    };
    let read = document(container, place, found, &format!("the manifest `{name}`"))?;
    manifest_of(read, place).map(Some)
}
