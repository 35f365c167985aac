//! A *choice* among the images of an OCI layout: by name first, then by platform.
//!
//! Invariant: never a guess: where more than one image fits, the error lists them; attestations are never images.

use std::collections::{BTreeMap, BTreeSet};

use super::super::TransportError;
use super::super::document::{self, CONTAINERD_NAME, Descriptor, Index, MANIFEST_MAX, REF_NAME};
use super::super::names;
use super::faces::{self, Faces};
use super::{Container, ReadOptions, StoredImage, blob_bytes, media_type_of};
use crate::digest::Digest;

/// Deepest nesting of indexes.
const DEPTH_MAX: usize = 4;

pub(super) fn open(
    container: Container,
    place: &str,
    name: Option<&str>,
    options: &ReadOptions,
) -> Result<StoredImage, TransportError> {
    check_layout(&container, place)?;
    let bytes = container
        .read("index.json", MANIFEST_MAX)?
        .ok_or_else(|| TransportError::Missing {
            place: place.to_owned(),
            what: "`index.json`".to_owned(),
        })?;
    let index: Index = document::parse(&bytes, place, "`index.json`")?;
    let listed = index.manifests.iter();
    let candidates: Vec<Descriptor> = listed.filter(|found| !found.is_attestation()).cloned().collect();
    let named = by_name(&candidates, place, name)?;
    let Chosen {
        manifest,
        descriptor,
        index: nearest,
    } = descend(&container, place, named, options, bytes)?;
    // A nested index carries its names at the top, an image there on each of its descriptors.
    let same: BTreeSet<Digest> = [descriptor.digest]
        .into_iter()
        .chain(top_digests(&candidates, name))
        .collect();
    let names: BTreeSet<String> = candidates
        .iter()
        .filter(|found| same.contains(&found.digest))
        .filter_map(display_name)
        .collect();
    let media_type = media_type_of(&manifest, &descriptor);
    let faces = match document::is_index(&media_type) {
        true => Faces::default(),
        false => faces::compare(&container, place, &index, &manifest, &names)?,
    };
    Ok(StoredImage {
        place: place.to_owned(),
        container,
        index: Some(nearest),
        media_type,
        manifest,
        names: names.into_iter().collect(),
        synthesized: false,
        elsewhere: BTreeMap::new(),
        docker: faces.docker,
        contradictions: faces.contradictions,
    })
}

pub(super) fn check_layout(container: &Container, place: &str) -> Result<(), TransportError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    let bytes = container
        .read("oci-layout", 4096)?
        .ok_or_else(|| TransportError::NotAnImage {
            place: place.to_owned(),
            reason: "there is an `index.json` but no `oci-layout` in it".to_owned(),
        })?;
    let layout: Layout = document::parse(&bytes, place, "`oci-layout`")?;
    if layout.image_layout_version.starts_with("1.") {
        return Ok(());
    }
    Err(TransportError::Malformed {
        place: place.to_owned(),
        what: "`oci-layout`".to_owned(),
        reason: format!(
            "its version is `{}`, and only 1.x is known",
            layout.image_layout_version
        ),
    })
}

/// The descriptors that a name (or `@N`, the N-th) means; all of them without a name.
fn by_name(candidates: &[Descriptor], place: &str, name: Option<&str>) -> Result<Vec<Descriptor>, TransportError> {
    let Some(name) = name else {
        return Ok(candidates.to_vec());
    };
    let found: Vec<Descriptor> = match name.strip_prefix('@').and_then(|number| number.parse::<usize>().ok()) {
        Some(number) => candidates.get(number).cloned().into_iter().collect(),
        None => candidates
            .iter()
            .filter(|descriptor| has_name(descriptor, name))
            .cloned()
            .collect(),
    };
    if found.is_empty() {
        return Err(TransportError::Choose {
            place: place.to_owned(),
            asked: Some(name.to_owned()),
            choices: candidates.iter().filter_map(display_name).collect(),
        });
    }
    Ok(found)
}

fn has_name(descriptor: &Descriptor, name: &str) -> bool {
    let exact = |key| descriptor.annotation(key) == Some(name);
    let same = |text: &str| names::same(text, name);
    exact(REF_NAME) || exact(CONTAINERD_NAME) || descriptor.annotation(CONTAINERD_NAME).is_some_and(same)
}

fn display_name(descriptor: &Descriptor) -> Option<String> {
    descriptor
        .annotation(CONTAINERD_NAME)
        .or_else(|| descriptor.annotation(REF_NAME))
        .map(str::to_owned)
}

/// Digests at the top level that stand for the choice where it was made inside a nested index.
fn top_digests(candidates: &[Descriptor], name: Option<&str>) -> Vec<Digest> {
    let chosen = |descriptor: &&Descriptor| name.is_none_or(|name| has_name(descriptor, name));
    let nested = candidates
        .iter()
        .filter(chosen)
        .filter(|found| document::is_index(&found.media_type));
    nested.map(|descriptor| descriptor.digest).collect()
}

/// A manifest that was chosen, or an index where it is wanted whole.
struct Chosen {
    manifest: Vec<u8>,
    descriptor: Descriptor,
    /// The index that lists it.
    index: Vec<u8>,
}

/// Follows indexes down to one manifest.
fn descend(
    container: &Container,
    place: &str,
    mut candidates: Vec<Descriptor>,
    options: &ReadOptions,
    mut index: Vec<u8>,
) -> Result<Chosen, TransportError> {
    for _ in 0..DEPTH_MAX {
        let descriptor = one(&candidates, place, options)?;
        let bytes = blob_bytes(container, place, &descriptor, MANIFEST_MAX, "the manifest")?;
        let media_type = media_type_of(&bytes, &descriptor);
        if document::is_index(&media_type) && !options.whole {
            let nested: Index = document::parse(&bytes, place, "the nested index")?;
            candidates = nested
                .manifests
                .into_iter()
                .filter(|found| !found.is_attestation())
                .collect();
            index = bytes;
            continue;
        }
        if !document::is_manifest(&media_type) && !document::is_index(&media_type) {
            return Err(TransportError::Malformed {
                place: place.to_owned(),
                what: format!("the manifest `{}`", descriptor.digest),
                reason: format!("its media type `{media_type}` is not an image's"),
            });
        }
        return Ok(Chosen {
            manifest: bytes,
            descriptor,
            index,
        });
    }
    Err(TransportError::Malformed {
        place: place.to_owned(),
        what: "`index.json`".to_owned(),
        reason: format!("indexes are nested more than {DEPTH_MAX} deep"),
    })
}

/// The only image, or the only one of the wanted platform.
pub(in crate::transport) fn one(
    candidates: &[Descriptor],
    place: &str,
    options: &ReadOptions,
) -> Result<Descriptor, TransportError> {
    let unique = |found: &[&Descriptor]| {
        let first = *found.first()?;
        found
            .iter()
            .all(|other| other.digest == first.digest)
            .then(|| first.clone())
    };
    let all: Vec<&Descriptor> = candidates.iter().collect();
    let platforms: BTreeSet<String> = candidates
        .iter()
        .filter_map(|found| found.platform.as_ref())
        .map(ToString::to_string)
        .collect();
    let wanted = options.platform.as_deref();
    if let Some(wanted) = wanted.filter(|_| !platforms.is_empty()) {
        let fits = |found: &&&Descriptor| found.platform.as_ref().is_none_or(|platform| platform.matches(wanted));
        let fitting: Vec<&Descriptor> = all.iter().filter(fits).copied().collect();
        if let Some(found) = unique(&fitting) {
            return Ok(found);
        }
        if fitting.is_empty() {
            return Err(TransportError::Platform {
                place: place.to_owned(),
                wanted: Some(wanted.to_owned()),
                available: platforms.into_iter().collect(),
            });
        }
    } else if let Some(found) = unique(&all) {
        return Ok(found);
    }
    if all.is_empty() {
        let reason = "its index lists no image".to_owned();
        return Err(TransportError::NotAnImage {
            place: place.to_owned(),
            reason,
        });
    }
    if platforms.len() > 1 && wanted.is_none() {
        let available = platforms.into_iter().collect();
        return Err(TransportError::Platform {
            place: place.to_owned(),
            wanted: None,
            available,
        });
    }
    Err(TransportError::Choose {
        place: place.to_owned(),
        asked: None,
        choices: candidates.iter().filter_map(display_name).collect(),
    })
}
