//! What *refers* to an image goes along with it: signatures, bills of materials, attestations, and what refers to those.
//!
//! Invariant: a referrer arrives after its subject, with the bytes that it had, each blob verified; one is held in memory at
//! a time.

use std::collections::{BTreeSet, VecDeque};

use crate::digest::ContentDigest;
use crate::oci::{Artifact, Document, Manifest, Raw, Reference, Subject};
use crate::transport::{Content, Location, ReadOptions, Source, TransportError, read_blob};

use super::attach::{self, AttachError};
use super::environment::Environment;

/// Largest blob of a referrer that is copied, in bytes.
const BLOB_SIZE_MAX: u64 = 64 << 20;
/// Most referrers that are copied of one image or index.
const REFERRERS_MAX: usize = 1000;

/// Copies what refers to an image, or to an index and the images in it, from its place to another one, which has the image
/// already and [can hold it](attach::check_place). Gives how many there were.
pub fn copy(
    content: &Content,
    from: &Location,
    to: &Location,
    environment: &Environment<'_>,
) -> Result<usize, AttachError> {
    let mut subjects: VecDeque<ContentDigest> = documents(content).into();
    let mut seen: BTreeSet<ContentDigest> = subjects.iter().copied().collect();
    let mut copied = 0;
    while let Some(subject) = subjects.pop_front() {
        let Some(place) = at(from, &subject)? else {
            break;
        };
        let source = place.source(&ReadOptions {
            whole: true,
            registries: environment.registries.clone(),
            ..ReadOptions::default()
        })?;
        for listed in source.referrers()?.listed {
            let Document::Manifest(manifest) = source.listed(&listed.descriptor())? else {
                continue;
            };
            let Some(about) = manifest.subject.as_ref().filter(|found| found.digest == subject) else {
                continue;
            };
            if !seen.insert(manifest.digest()) {
                continue;
            }
            if copied == REFERRERS_MAX {
                return Err(TransportError::Malformed {
                    place: source.place().to_owned(),
                    what: "the list of referrers".to_owned(),
                    reason: format!("it has more than {REFERRERS_MAX} of them"),
                }
                .into());
            }
            // A subject that is named otherwise has no fallback tag, and is listed by nobody.
            let Some(digest) = about.digest.sha256() else {
                continue;
            };
            let subject = Subject {
                media_type: about.media_type.clone(),
                digest,
                size: about.size,
            };
            attach::attach(&artifact(source.as_ref(), &manifest, subject)?, to, environment)?;
            copied += 1;
            subjects.push_back(manifest.digest());
        }
    }
    Ok(copied)
}

/// All manifests and indexes of what was copied, the uppermost first.
fn documents(content: &Content) -> Vec<ContentDigest> {
    let images = content.images().into_iter().map(|image| image.manifest.digest());
    match content {
        Content::Image(_) => images.collect(),
        Content::Index(index) => {
            let indexes = index.indexes().into_iter().rev().map(|index| index.document.digest());
            indexes.chain(images).collect()
        }
    }
}

/// A digest in a place; `None` where the place keeps images alone.
fn at(location: &Location, digest: &ContentDigest) -> Result<Option<Location>, AttachError> {
    let name = Some(format!("@{digest}"));
    Ok(match location {
        Location::Registry(text) => {
            let reference: Reference = text.parse()?;
            Some(Location::Registry(format!("{}@{digest}", reference.name())))
        }
        Location::Layout { path, .. } => Some(Location::Layout {
            path: path.clone(),
            name,
        }),
        Location::Path(path) if path.is_dir() => Some(Location::Layout {
            path: path.clone(),
            name,
        }),
        Location::OciArchive { path, .. } => Some(Location::OciArchive {
            path: path.clone(),
            name,
        }),
        Location::DockerArchive { .. }
        | Location::Path(_)
        | Location::Daemon(_)
        | Location::Podman(_)
        | Location::Stdio => None,
    })
}

/// A referrer with its blobs.
fn artifact(source: &dyn Source, manifest: &Raw<Manifest>, subject: Subject) -> Result<Artifact, TransportError> {
    let mut blobs = Vec::new();
    for descriptor in [&manifest.config].into_iter().chain(&manifest.layers) {
        let bytes = read_blob(source, descriptor, BLOB_SIZE_MAX, "a blob of a referrer")?;
        blobs.push((crate::digest::Digest::of(&bytes), bytes));
    }
    Ok(Artifact {
        digest: crate::digest::Digest::of(manifest.bytes()),
        manifest: manifest.bytes().to_vec(),
        artifact_type: manifest.kind_of_artifact().to_owned(),
        annotations: manifest.annotations.clone(),
        subject,
        blobs,
    })
}
