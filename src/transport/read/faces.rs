//! The two *faces* of an archive: the OCI layout, which podman and skopeo read, and `manifest.json`, which Docker's
//! classic storage loads without comparing it with the layout.
//!
//! Invariant: what one face shows and the other does not is told. A file counts as a blob only if its bytes are: Docker
//! takes a config by its name and computes the image's ID from whatever is there. Format of `manifest.json`: Moby image
//! specification v1.2.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::super::TransportError;
use super::super::names;
use super::docker::{Item, items};
use super::{Container, document};
use crate::digest::{ContentDigest, Digest, HashingWriter};
use crate::oci::{Descriptor, Document, INDEX_DEPTH_MAX, Index, Manifest, Raw};

/// Most manifests of a layout that are read to know which images it holds.
const IMAGES_MAX: usize = 1000;

/// Whether Docker's list, `manifest.json`, names an image of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DockerList {
    /// There is no list: Docker reads the layout, from version 25 on.
    #[default]
    Absent,
    /// It is named.
    Names,
    /// There is a list, and the image is not in it: Docker's classic storage loads something else.
    LeavesOut,
}

/// What the two faces show of one image.
#[derive(Default)]
pub(super) struct Faces {
    pub(super) docker: DockerList,
    /// What does not fit together, each as one sentence.
    pub(super) contradictions: Vec<String>,
}

/// Compares what `manifest.json` says with an image of the layout; `index` is `index.json`, `names` are the image's. Where
/// the layout holds more images, the list may leave this one out, as Docker does with platforms other than its own.
pub(super) fn compare(
    container: &Container,
    place: &str,
    index: &Index,
    manifest: &Raw<Manifest>,
    names: &BTreeSet<String>,
) -> Result<Faces, TransportError> {
    let mut faces = Faces::default();
    if !container.has("manifest.json") {
        return Ok(faces);
    }
    let mut files = ArchiveFiles {
        container,
        digests: BTreeMap::new(),
    };
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for item in items(container, place)? {
        match files.holds(&item.config, &manifest.config)? {
            true => own.push(item),
            false => others.push(item),
        }
    }
    let listed = match own.is_empty() || !others.is_empty() {
        true => images(container, place, index),
        false => BTreeMap::new(),
    };
    faces.docker = match own.is_empty() {
        true => DockerList::LeavesOut,
        false => DockerList::Names,
    };
    if own.is_empty() && listed.keys().all(|image| *image == manifest.digest()) {
        let text = format!("`manifest.json` does not name the config `{}`", manifest.config.digest);
        faces.contradictions.push(text);
        return Ok(faces);
    }
    for item in own {
        if !files.hold_layers(&item, manifest)? {
            let text = "`manifest.json` names other layers than the manifest of the layout";
            faces.contradictions.push(text.to_owned());
        }
    }
    let configs: BTreeSet<ContentDigest> = listed.into_values().flatten().collect();
    for item in others {
        faces.contradictions.extend(files.other(&item, names, &configs)?);
    }
    Ok(faces)
}

/// Every manifest that the layout lists, with the digest of its config where it could be read.
fn images(container: &Container, place: &str, index: &Index) -> BTreeMap<ContentDigest, Option<ContentDigest>> {
    let mut found = BTreeMap::new();
    let mut level: Vec<Descriptor> = index.manifests.clone();
    for _ in 0..INDEX_DEPTH_MAX {
        let mut next = Vec::new();
        for descriptor in level {
            if descriptor.is_attestation() || found.len() >= IMAGES_MAX {
                continue;
            }
            match document(container, place, &descriptor, "the manifest") {
                Ok(Document::Index(nested)) => next.extend(nested.manifests.iter().cloned()),
                Ok(Document::Manifest(manifest)) => drop(found.insert(descriptor.digest, Some(manifest.config.digest))),
                Err(_) => drop(found.insert(descriptor.digest, None)),
            }
        }
        level = next;
    }
    found
}

/// The files of an archive by their content, each read once.
struct ArchiveFiles<'a> {
    container: &'a Container,
    /// By where they are: several names may lead to one.
    digests: BTreeMap<(u64, u64), Digest>,
}

impl ArchiveFiles<'_> {
    /// Digest and size of a file's bytes, whatever it is called.
    fn digest(&mut self, name: &str) -> Result<Option<(Digest, u64)>, TransportError> {
        let Some(place) = self.container.position(name)? else {
            return Ok(None);
        };
        if let Some(digest) = self.digests.get(&place) {
            return Ok(Some((*digest, place.1)));
        }
        let Some((mut reader, size)) = self.container.open(name)? else {
            return Ok(None);
        };
        let mut hashing = HashingWriter::new(io::sink());
        io::copy(&mut reader, &mut hashing).map_err(|source| TransportError::Read {
            place: self.container.place().to_owned(),
            what: format!("`{name}`"),
            source,
        })?;
        let digest = hashing.finish().1.digest();
        self.digests.insert(place, digest);
        Ok(Some((digest, size)))
    }

    /// Whether a file is this blob, by its bytes.
    fn holds(&mut self, name: &str, blob: &Descriptor) -> Result<bool, TransportError> {
        // Another size is another content, and nothing has to be read.
        match self.container.position(name)? {
            Some((_, size)) if size == blob.size => {
                Ok(self.digest(name)?.is_some_and(|(digest, _)| blob.digest == digest))
            }
            _ => Ok(false),
        }
    }

    /// Whether an item names the layers of a manifest. A file that is the blob itself is not read: whoever reads the layer
    /// verifies it, Docker by its diffID.
    fn hold_layers(&mut self, item: &Item, manifest: &Manifest) -> Result<bool, TransportError> {
        let layers = item.layers.as_deref().unwrap_or_default();
        if layers.len() != manifest.layers.len() {
            return Ok(false);
        }
        for (name, layer) in layers.iter().zip(&manifest.layers) {
            let blob = self.container.position(&super::blob_path(&layer.digest))?;
            let is_blob = blob.is_some() && blob == self.container.position(name)?;
            if !is_blob && !self.holds(name, layer)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is wrong with an item that is another image.
    fn other(
        &mut self,
        item: &Item,
        names: &BTreeSet<String>,
        configs: &BTreeSet<ContentDigest>,
    ) -> Result<Option<String>, TransportError> {
        let tags = item.repo_tags.as_deref().unwrap_or_default();
        if let Some(tag) = tags.iter().find(|tag| names.iter().any(|name| names::same(tag, name))) {
            return Ok(Some(format!(
                "`manifest.json` gives the name `{}` to another image",
                tag.escape_debug()
            )));
        }
        match self.digest(&item.config)? {
            Some((digest, _)) if configs.contains(&digest.into()) => Ok(None),
            _ => Ok(Some(format!(
                "`manifest.json` holds an image that the layout does not list, with the config `{}`",
                item.config.escape_debug()
            ))),
        }
    }
}
