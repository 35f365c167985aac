//! The *referrers* of an image in a layout: among all manifests of `index.json` and of the list under its fallback tag.
//!
//! Invariant: each manifest is read once, bounded and verified; there are no more of them than [`REFERRERS_MAX`].

use std::collections::BTreeMap;

use super::super::TransportError;
use super::super::document::{self, Descriptor, Index, MANIFEST_MAX, REF_NAME};
use super::super::referrers::{REFERRERS_MAX, Referrer};
use super::{Container, blob_bytes};
use crate::digest::Digest;

pub(super) fn of(container: &Container, place: &str, image: &Digest) -> Result<Vec<Referrer>, TransportError> {
    let Some(bytes) = container.read("index.json", MANIFEST_MAX)? else {
        return Ok(Vec::new());
    };
    let index: Index = document::parse(&bytes, place, "`index.json`")?;
    let tag = format!("sha256-{}", image.hex());
    let mut candidates: BTreeMap<Digest, Descriptor> = BTreeMap::new();
    for found in &index.manifests {
        if found.annotation(REF_NAME) == Some(&tag) && document::is_index(&found.media_type) {
            let bytes = blob_bytes(container, place, found, MANIFEST_MAX, "the list of referrers")?;
            let list: Index = document::parse(&bytes, place, "the list of referrers")?;
            candidates.extend(list.manifests.into_iter().map(|listed| (listed.digest, listed)));
        }
    }
    candidates.extend(index.manifests.into_iter().map(|found| (found.digest, found)));
    candidates.retain(|digest, found| digest != image && document::is_manifest(&found.media_type));
    if candidates.len() > REFERRERS_MAX {
        return Err(TransportError::Malformed {
            place: place.to_owned(),
            what: "`index.json`".to_owned(),
            reason: format!("it lists more than {REFERRERS_MAX} manifests"),
        });
    }
    let mut referrers = Vec::new();
    for descriptor in candidates.values() {
        let bytes = blob_bytes(container, place, descriptor, MANIFEST_MAX, "a manifest")?;
        referrers.extend(Referrer::parse(&bytes, image, place)?);
    }
    Ok(referrers)
}
