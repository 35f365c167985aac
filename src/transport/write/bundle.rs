//! A *bundle* is the list of files that make up an image archive, with their order and contents.
//!
//! Invariant: a function of the image's bytes and its names alone. The order is `oci-layout`, `index.json`,
//! `manifest.json` (docker-archives), then the blobs: manifest, config, layers from the lowest up, each once, so that
//! whoever reads a stream knows every digest before the bytes come and can apply layers as they arrive.
//!
//! A docker-archive is a *union*: an OCI layout whose `manifest.json` points at `blobs/sha256/<hex>`. Docker from
//! 1.10, podman, skopeo, buildah, containerd and umoci all read it. Two annotations name the image, because each of
//! these clients looks at one of them: `io.containerd.image.name` has the name in full and
//! `org.opencontainers.image.ref.name` the tag. `RepoTags` has names in full too: of an archive with several names podman
//! reads that list alone, and would take a short `hello:latest` for `localhost/hello:latest`.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::TransportError;
use super::{Out, header};
use crate::archive::tar::{BLOCK, TRAILER, padding};
use crate::digest::{ContentDigest, Digest, Hasher};
use crate::image::{Image, ImageIndex, ImageLayer, Listed};
use crate::oci::{CONTAINERD_NAME, Config, MediaType, REF_NAME, Reference, canonical_json};

/// The version of the rules above; part of what [`Bundle::key`] hashes.
const RULES: &str = "layerize image archive 1";

/// The files of an archive, in order.
pub(super) struct Bundle<'a> {
    members: Vec<ArchiveMember<'a>>,
    names: BTreeSet<String>,
    /// Whether readers want the bytes of all layers.
    complete: bool,
}

struct ArchiveMember<'a> {
    name: String,
    content: MemberContent<'a>,
}

enum MemberContent<'a> {
    Directory,
    Bytes(Cow<'a, [u8]>),
    Layer(&'a ImageLayer),
}

/// How an image is named in an `index.json`: the two annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label {
    /// `io.containerd.image.name`.
    pub(super) full: Option<String>,
    /// `org.opencontainers.image.ref.name`.
    pub(super) reference: Option<String>,
}

impl Label {
    fn of(name: &Reference) -> Self {
        Self {
            full: Some(name.to_string()),
            reference: Some(name.tag_or_default().to_owned()),
        }
    }
}

/// The labels of an image with these names; a `reference` that the user asked for stands for all of them.
pub(super) fn labels(names: &[Reference], reference: Option<&str>) -> Vec<Label> {
    match (reference, names) {
        (Some(reference), names) => {
            vec![Label {
                full: names.first().map(Reference::to_string),
                reference: Some(reference.to_owned()),
            }]
        }
        (None, []) => vec![Label {
            full: None,
            reference: None,
        }],
        (None, names) => names.iter().map(Label::of).collect(),
    }
}

/// The descriptors of an image in an `index.json`, one for each label.
pub(super) fn descriptors(image: &Image, labels: &[Label], place: &str) -> Result<Vec<Value>, TransportError> {
    check(image, place)?;
    let manifest = &image.manifest;
    let mut value = json!({
        "mediaType": manifest.media_type(),
        "digest": manifest.digest(),
        "size": manifest.size(),
    });
    if let Some(platform) = image.config.image().and_then(|config| platform(config)) {
        value["platform"] = platform;
    }
    if let Some(kind) = &manifest.artifact_type {
        value["artifactType"] = Value::String(kind.clone());
    }
    Ok(labels.iter().map(|label| labelled(&value, label)).collect())
}

/// The platform as the config has it.
fn platform(config: &Config) -> Option<Value> {
    if config.os.is_empty() || config.architecture.is_empty() {
        return None;
    }
    let mut platform = json!({ "architecture": config.architecture, "os": config.os });
    for (key, value) in [("variant", &config.variant), ("os.version", &config.os_version)] {
        if let Some(value) = value {
            platform[key] = Value::String(value.clone());
        }
    }
    Some(platform)
}

/// The descriptors of an index in an `index.json`, one for each label.
pub(super) fn index_descriptors(
    index: &ImageIndex,
    labels: &[Label],
    place: &str,
) -> Result<Vec<Value>, TransportError> {
    let lists_its_own = |index: &&ImageIndex| {
        let listed = index.document.manifests.iter().map(|descriptor| descriptor.digest);
        listed.eq(index.entries.iter().map(Listed::digest))
    };
    if !index.indexes().iter().all(lists_its_own) {
        return Err(TransportError::Malformed {
            place: place.to_owned(),
            what: "the index to be written".to_owned(),
            reason: "it does not list its own images".to_owned(),
        });
    }
    let document = &index.document;
    let value = json!({ "mediaType": document.media_type(), "digest": document.digest(), "size": document.size() });
    Ok(labels.iter().map(|label| labelled(&value, label)).collect())
}

fn labelled(descriptor: &Value, label: &Label) -> Value {
    let mut value = descriptor.clone();
    for (key, text) in [(CONTAINERD_NAME, &label.full), (REF_NAME, &label.reference)] {
        if let Some(text) = text {
            value["annotations"][key] = Value::String(text.clone());
        }
    }
    value
}

/// An image value whose parts do not belong together is not written.
fn check(image: &Image, place: &str) -> Result<(), TransportError> {
    let layers = image.layers.iter().map(|layer| &layer.descriptor);
    if image.manifest.config.digest == image.config.digest() && layers.eq(&image.manifest.layers) {
        return Ok(());
    }
    Err(TransportError::Malformed {
        place: place.to_owned(),
        what: "the image to be written".to_owned(),
        reason: "its manifest does not name its own config and layers".to_owned(),
    })
}

impl<'a> Bundle<'a> {
    /// The files of a docker-archive.
    pub(super) fn docker(image: &'a Image, names: &[Reference], place: &str) -> Result<Self, TransportError> {
        let layers: Vec<String> = image.layers.iter().map(|layer| blob_name(&layer.digest())).collect();
        let tags: Vec<String> = names.iter().map(Reference::to_string).collect();
        let manifest = json!([{ "Config": blob_name(&image.config.digest()), "Layers": layers, "RepoTags": tags }]);
        Self::new(image, &labels(names, None), Some(&manifest), place)
    }

    /// The files of an OCI archive.
    pub(super) fn oci(image: &'a Image, labels: &[Label], place: &str) -> Result<Self, TransportError> {
        Self::new(image, labels, None, place)
    }

    /// The files of an OCI archive that holds an index.
    pub(super) fn of_index(index: &'a ImageIndex, labels: &[Label], place: &str) -> Result<Self, TransportError> {
        let mut bundle = Self::begin(index_descriptors(index, labels, place)?, None);
        bundle.index(index);
        Ok(bundle)
    }

    fn index(&mut self, index: &'a ImageIndex) {
        self.add(
            &blob_name(&index.document.digest()),
            MemberContent::Bytes(Cow::Borrowed(index.document.bytes())),
        );
        for entry in &index.entries {
            match entry {
                Listed::Image(image) => self.image(image),
                Listed::Index(nested) => self.index(nested),
            }
        }
    }

    fn new(image: &'a Image, labels: &[Label], docker: Option<&Value>, place: &str) -> Result<Self, TransportError> {
        let mut bundle = Self::begin(descriptors(image, labels, place)?, docker);
        bundle.image(image);
        Ok(bundle)
    }

    fn begin(descriptors: Vec<Value>, docker: Option<&Value>) -> Self {
        let mut bundle = Self {
            members: Vec::new(),
            names: BTreeSet::new(),
            complete: docker.is_some(),
        };
        bundle.bytes("oci-layout", layout_json());
        bundle.bytes("index.json", index_json(descriptors));
        if let Some(docker) = docker {
            bundle.bytes("manifest.json", canonical_json(docker));
        }
        bundle.add("blobs/", MemberContent::Directory);
        bundle.add("blobs/sha256/", MemberContent::Directory);
        bundle
    }

    fn image(&mut self, image: &'a Image) {
        let (manifest, config) = (&image.manifest, &image.config);
        for (digest, bytes) in [(manifest.digest(), manifest.bytes()), (config.digest(), config.bytes())] {
            self.add(&blob_name(&digest), MemberContent::Bytes(Cow::Borrowed(bytes)));
        }
        let complete = self.complete;
        for layer in image.layers.iter().filter(|layer| complete || !layer.is_absent()) {
            self.add(&blob_name(&layer.digest()), MemberContent::Layer(layer));
        }
    }

    /// Leaves out the files of these layers: whoever reads the archive has them.
    pub(super) fn without(mut self, layers: &BTreeSet<ContentDigest>) -> Self {
        self.members.retain(|member| match &member.content {
            MemberContent::Layer(layer) => !layers.contains(&layer.digest()),
            _ => true,
        });
        self
    }

    /// Bytes of the blobs in it.
    pub(super) fn size(&self) -> u64 {
        let sizes = self.members.iter().map(|member| match &member.content {
            MemberContent::Directory => 0,
            MemberContent::Bytes(bytes) => bytes.len() as u64,
            MemberContent::Layer(layer) => layer.size(),
        });
        sizes.sum()
    }

    fn bytes(&mut self, name: &str, bytes: Vec<u8>) {
        self.add(name, MemberContent::Bytes(Cow::Owned(bytes)));
    }

    fn add(&mut self, name: &str, content: MemberContent<'a>) {
        if self.names.insert(name.to_owned()) {
            self.members.push(ArchiveMember {
                name: name.to_owned(),
                content,
            });
        }
    }

    /// A digest over everything that decides the archive's bytes, without reading a layer.
    pub(super) fn key(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(RULES.as_bytes());
        for ArchiveMember { name, content } in &self.members {
            let (digest, size) = match content {
                MemberContent::Directory => (Digest::of(b"").into(), 0),
                MemberContent::Bytes(bytes) => (ContentDigest::from(Digest::of(bytes)), bytes.len() as u64),
                MemberContent::Layer(layer) => (layer.digest(), layer.size()),
            };
            hasher.update(format!("\n{name}\0{digest}\0{size}").as_bytes());
        }
        hasher.digest()
    }

    /// A layer that is to be written and is kept elsewhere.
    pub(super) fn absent(&self) -> Option<&ImageLayer> {
        let layers = self.members.iter().filter_map(|member| match &member.content {
            MemberContent::Layer(layer) => Some(*layer),
            _ => None,
        });
        layers.into_iter().find(|layer| layer.is_absent())
    }

    /// Writes the archive, checking every layer against its digest on the way.
    pub(super) fn write(&self, out: &mut dyn Out<'a>) -> Result<(), TransportError> {
        for ArchiveMember { name, content } in &self.members {
            let size = match content {
                MemberContent::Directory => {
                    out.bytes(&header::directory(name))?;
                    continue;
                }
                MemberContent::Bytes(bytes) => {
                    out.bytes(&header::file(name, bytes.len() as u64))?;
                    out.bytes(bytes)?;
                    bytes.len() as u64
                }
                MemberContent::Layer(layer) => {
                    out.bytes(&header::file(name, layer.size()))?;
                    out.layer(layer)?;
                    layer.size()
                }
            };
            out.bytes(&[0; BLOCK][..padding(size)])?;
        }
        out.bytes(&[0; TRAILER])?;
        out.finish()
    }
}

/// The content of `oci-layout` (image-spec, image-layout.md).
pub(super) fn layout_json() -> Vec<u8> {
    canonical_json(&json!({ "imageLayoutVersion": "1.0.0" }))
}

fn index_json(descriptors: Vec<Value>) -> Vec<u8> {
    canonical_json(&json!({ "schemaVersion": 2, "mediaType": MediaType::INDEX, "manifests": descriptors }))
}

fn blob_name(digest: &ContentDigest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}
