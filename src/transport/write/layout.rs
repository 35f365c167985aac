//! A *layout directory* gains an image: its blobs first, its name in `index.json` last.
//!
//! Invariant: whatever else the layout holds stays; a reference (`org.opencontainers.image.ref.name`) is the layout's
//! key and moves to the new image, as a tag does. Writers lock the directory against each other; readers see the old
//! or the new `index.json`. Format: OCI image-spec, image-layout.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::names;
use super::super::{Companion, Sink, Stored, Supply, Tally, Transferred, TransportError};
use super::{bundle, oci_labels};
use crate::digest::{ContentDigest, Digest, VerifyingReader};
use crate::fsio::{self, AtomicFile, IoContext};
use crate::image::ImageLayer;
use crate::image::{Image, ImageIndex};
use crate::layer::for_each_layer;
use crate::oci::{
    self, Artifact, CONTAINERD_NAME, INDEX_SIZE_MAX, LayerCodec, MediaType, REF_NAME, Raw, canonical_json,
};

/// A layout directory: `oci:DIR[:TAG]`.
#[derive(Debug, Clone)]
pub struct Layout {
    pub(super) path: PathBuf,
    reference: Option<String>,
    /// Layers that are left out.
    without: BTreeSet<ContentDigest>,
    tally: Tally,
}

impl Layout {
    /// The layout in `path`, made where nothing is; the image gets `reference`, else the tags of its names.
    pub fn new(path: &Path, reference: Option<&str>) -> Self {
        Self {
            path: path.to_owned(),
            reference: reference.map(str::to_owned),
            without: BTreeSet::new(),
            tally: Tally::default(),
        }
    }

    /// Leaves out these layers: whoever reads the layout has them.
    pub(in crate::transport) fn without(mut self, layers: &BTreeSet<ContentDigest>) -> Self {
        self.without.clone_from(layers);
        self
    }

    pub(super) fn place(&self) -> String {
        format!("oci:{}", self.path.display())
    }

    /// Locks out other writers for as long as the file is open. The directory itself is locked, so that no lock file is left
    /// in a layout that is published as it is.
    pub(super) fn locked(&self) -> Result<File, TransportError> {
        let lock = File::open(&self.path).context("open", &self.path)?;
        lock.lock().context("lock", &self.path)?;
        Ok(lock)
    }

    /// Locks out others who read an entry in order to replace it. The file that marks a layout is locked, not its directory, so
    /// that whoever holds this lock can write.
    pub fn lock_updates(&self) -> Result<File, TransportError> {
        fsio::create_dir_all(&self.path)?;
        {
            let _lock = self.locked()?;
            self.prepare(&self.place())?;
        }
        let marker = self.path.join("oci-layout");
        let file = File::open(&marker).context("open", &marker)?;
        file.lock().context("lock", &marker)?;
        Ok(file)
    }

    /// Removes those of these blobs, each with its size in bytes, whose content does not match their name: they are written anew
    /// then.
    pub fn remove_damaged(&self, blobs: &[(ContentDigest, u64)]) -> Result<(), TransportError> {
        for (digest, size) in blobs {
            // One of another size, or none, is written anew in any case.
            if !self.holds(digest, *size) {
                continue;
            }
            let path = self.blob_path(digest);
            let file = File::open(&path).context("open", &path)?;
            let mut whole = VerifyingReader::new(file, *digest, Some(*size));
            if io::copy(&mut whole, &mut io::sink()).is_err() {
                fs::remove_file(&path).context("remove", &path)?;
            }
        }
        Ok(())
    }

    /// Sees that the directory is a layout, or empty.
    fn prepare(&self, place: &str) -> Result<(), TransportError> {
        let marker = self.path.join("oci-layout");
        if !marker.exists() {
            // What a writer that was killed before its first file was whole has left, whose lock is ours now.
            let (left, others): (Vec<_>, Vec<_>) = fsio::sorted_names(&self.path)?
                .into_iter()
                .partition(|name| name.as_encoded_bytes().starts_with(fsio::TEMPORARY_PREFIX.as_bytes()));
            for name in left {
                fsio::remove_tree(&self.path.join(name))?;
            }
            if !others.is_empty() {
                return Err(TransportError::Unsupported {
                    action: "write an image to",
                    place: place.to_owned(),
                    instead: "the directory holds other things; name an empty or a new one".to_owned(),
                });
            }
            fsio::write_atomic(&marker, &bundle::layout_json())?;
        }
        let blobs = self.path.join("blobs/sha256");
        fsio::create_dir_all(&blobs)?;
        [&self.path, &blobs].into_iter().for_each(|dir| fsio::sweep(dir));
        Ok(())
    }

    /// Writes a blob unless a file of its name and size is there.
    fn blob(
        &self,
        digest: &ContentDigest,
        size: u64,
        write: impl FnOnce(&mut File, &Path) -> Result<(), TransportError>,
    ) -> Result<(), TransportError> {
        let path = self.blob_path(digest);
        if self.holds(digest, size) {
            self.tally.skipped(size);
            return Ok(());
        }
        let mut file = AtomicFile::create(&path)?;
        write(file.file(), &path)?;
        file.publish_unsynced()?;
        self.tally.wrote(size);
        Ok(())
    }

    fn blob_path(&self, digest: &ContentDigest) -> PathBuf {
        self.path.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    fn holds(&self, digest: &ContentDigest, size: u64) -> bool {
        let metadata = fs::metadata(self.blob_path(digest));
        metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
    }

    /// Writes images, the indexes over them, and their names.
    fn write(&self, images: &[&Image], over: &[&ImageIndex], added: &[Value]) -> Result<(), TransportError> {
        let place = self.place();
        fsio::create_dir_all(&self.path)?;
        let _lock = self.locked()?;
        self.prepare(&place)?;
        for image in images {
            self.blobs(image)?;
        }
        for index in over {
            self.document(&index.document.digest(), index.document.bytes())?;
        }
        // One sync of the file system instead of one for each blob: the index must not survive a crash without them.
        fsio::sync_file_system(&self.path)?;
        self.merge_index(added)
    }

    pub(super) fn document(&self, digest: &ContentDigest, bytes: &[u8]) -> Result<(), TransportError> {
        self.blob(digest, bytes.len() as u64, |file, path| {
            Ok(file.write_all(bytes).context("write", path)?)
        })
    }

    fn layer(&self, layer: &ImageLayer) -> Result<(), TransportError> {
        self.blob(&layer.digest(), layer.size(), |file, path| {
            Ok(layer.copy_to(file, 0, path)?)
        })
    }

    fn blobs(&self, image: &Image) -> Result<(), TransportError> {
        let (without, wanted): (Vec<&ImageLayer>, Vec<_>) = image
            .layers
            .iter()
            .partition(|layer| self.without.contains(&layer.digest()));
        without.iter().for_each(|layer| self.tally.skipped(layer.size()));
        let mut seen = BTreeSet::new();
        // One that is kept elsewhere stays there.
        let wanted = wanted.into_iter().filter(|layer| !layer.is_absent());
        let (wanted, again): (Vec<&ImageLayer>, Vec<_>) = wanted.partition(|layer| seen.insert(layer.digest()));
        for_each_layer(&wanted, |layer| layer.size(), |layer| self.layer(layer))?;
        // A layer that an image has twice is one blob.
        again.iter().for_each(|layer| self.tally.skipped(layer.size()));
        self.document(&image.config.digest(), image.config.bytes())?;
        self.document(&image.manifest.digest(), image.manifest.bytes())
    }

    /// Whether something has this name, and its manifest is there.
    fn has_manifest_of(&self, name: &str) -> Result<bool, TransportError> {
        let index = self.read_index()?;
        let mut listed = index.iter().flat_map(|index| &index.manifests);
        Ok(listed.any(|found| found.annotation(REF_NAME) == Some(name) && self.holds(&found.digest, found.size)))
    }

    pub(super) fn read_index(&self) -> Result<Option<Raw<oci::Index>>, TransportError> {
        match fsio::read_limited(&self.path.join("index.json"), INDEX_SIZE_MAX) {
            Ok(bytes) => {
                let read = Raw::read(bytes).map(Some);
                read.map_err(TransportError::document(&self.place(), "`index.json`"))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Stores an artifact beside its subject, which must be there: its blobs, its entry in `index.json`, and its entry in
    /// the list under the subject's fallback tag, where clients look that do not read all of an index (regclient).
    pub fn attach(&self, artifact: &Artifact) -> Result<(), TransportError> {
        let place = self.place();
        let _lock = self.locked()?;
        let subject = self.path.join("blobs/sha256").join(artifact.subject.digest.hex());
        if !subject.is_file() {
            return Err(TransportError::Missing {
                place,
                what: format!("the image `{}`", artifact.subject.digest),
            });
        }
        let list = self.referrers_list(artifact)?;
        let manifest = (artifact.digest, artifact.manifest.clone());
        let list_digest = Digest::of(&list);
        for (digest, bytes) in artifact.blobs.iter().chain([&manifest, &(list_digest, list.clone())]) {
            self.blob(&(*digest).into(), bytes.len() as u64, |file, path| {
                Ok(file.write_all(bytes).context("write", path)?)
            })?;
        }
        fsio::sync_file_system(&self.path)?;
        let list_descriptor = json!({
            "mediaType": MediaType::INDEX,
            "digest": list_digest,
            "size": list.len(),
            "annotations": { REF_NAME: artifact.subject.fallback_tag() },
        });
        self.merge_index(&[artifact.descriptor(), list_descriptor])
    }

    /// The list under the fallback tag with the artifact in it, sorted by digest.
    fn referrers_list(&self, artifact: &Artifact) -> Result<Vec<u8>, TransportError> {
        let index = self.read_index()?;
        let tag = artifact.subject.fallback_tag();
        let mut listed = index.iter().flat_map(|index| &index.manifests);
        let old = listed.find(|found| found.annotation(REF_NAME) == Some(&tag));
        let mut manifests: BTreeMap<String, Value> = BTreeMap::new();
        if let Some(old) = old {
            let what = format!("the list of referrers `{}`", old.digest);
            let path = self.path.join("blobs/sha256").join(old.digest.hex());
            let bytes = fsio::read_limited(&path, INDEX_SIZE_MAX)?;
            let list = Raw::<oci::Index>::read_named(bytes, old.digest);
            let list = list.map_err(TransportError::document(&self.place(), what))?.json();
            let listed = list["manifests"].as_array().into_iter().flatten();
            manifests.extend(listed.filter_map(|found| Some((found["digest"].as_str()?.to_owned(), found.clone()))));
        }
        manifests.insert(artifact.digest.to_string(), artifact.descriptor());
        let manifests: Vec<Value> = manifests.into_values().collect();
        let list = json!({ "schemaVersion": 2, "mediaType": MediaType::INDEX, "manifests": manifests });
        Ok(canonical_json(&list))
    }

    pub(super) fn merge_index(&self, added: &[Value]) -> Result<(), TransportError> {
        let path = self.path.join("index.json");
        let old = self.read_index()?;
        let mut index: Value = match &old {
            Some(index) => index.json(),
            None => json!({ "schemaVersion": 2, "mediaType": MediaType::INDEX, "manifests": [] }),
        };
        if index["manifests"].is_null() {
            index["manifests"] = json!([]);
        }
        let manifests = index["manifests"].as_array_mut().expect("a list, as it was read");
        // What is there already keeps its place, so that writing the same again changes no byte.
        let missing: Vec<&Value> = added.iter().filter(|new| !manifests.contains(new)).collect();
        manifests.retain(|found| !missing.iter().any(|new| replaces(new, found)));
        manifests.extend(missing.into_iter().cloned());
        let new = canonical_json(&index);
        if old.is_none_or(|old| old.bytes() != new) {
            fsio::write_atomic(&path, &new)?;
        }
        Ok(())
    }
}

/// Whether a new descriptor takes the place of one found: the same reference, or the same image where it has none.
fn replaces(new: &Value, found: &Value) -> bool {
    let note = |value: &'_ Value, key: &str| value["annotations"][key].as_str().map(str::to_owned);
    match (note(new, REF_NAME), note(found, REF_NAME)) {
        (Some(new), Some(found)) => new == found,
        (None, None) => new["digest"] == found["digest"] && note(found, CONTAINERD_NAME).is_none(),
        _ => false,
    }
}

impl Sink for Layout {
    fn put(&self, image: &Image, names: &[String]) -> Result<Digest, TransportError> {
        let labels = oci_labels(&names::parse_all(names)?, self.reference.as_deref())?;
        let descriptors = bundle::descriptors(image, &labels, &self.place())?;
        self.write(&[image], &[], &descriptors)?;
        Ok(image.digest())
    }

    fn put_index(&self, index: &ImageIndex, names: &[String]) -> Result<Digest, TransportError> {
        let labels = oci_labels(&names::parse_all(names)?, self.reference.as_deref())?;
        let descriptors = bundle::index_descriptors(index, &labels, &self.place())?;
        self.write(&index.images(), &index.indexes(), &descriptors)?;
        Ok(index.digest())
    }

    fn put_companion(&self, companion: &Companion, supply: &Supply<'_>) -> Result<Stored, TransportError> {
        let artifact = &companion.artifact;
        let mut seen = BTreeSet::new();
        let blobs = artifact.layers.iter().filter(|layer| seen.insert(layer.digest()));
        let (there, sent): (Vec<&ImageLayer>, Vec<&ImageLayer>) =
            blobs.partition(|layer| self.holds(&layer.digest(), layer.size()));
        let lacking: Vec<ContentDigest> = sent.iter().map(|layer| layer.digest()).collect();
        supply(&lacking).map_err(|source| TransportError::Supply {
            place: self.place(),
            source,
        })?;
        let named = |name: &str| Self {
            reference: Some(name.to_owned()),
            tally: Tally::default(),
            ..self.clone()
        };
        named(&companion.tag).put(artifact, &[])?;
        // One whose manifest was lost anchors nothing.
        if !self.has_manifest_of(&companion.anchor)? {
            named(&companion.anchor).put(artifact, &[])?;
        }
        if let Some(subject) = &companion.subject {
            self.attach(&Artifact {
                manifest: artifact.manifest.bytes().to_vec(),
                digest: artifact.digest(),
                artifact_type: companion.artifact_type.to_owned(),
                annotations: BTreeMap::new(),
                subject: subject.clone(),
                // They are there by now.
                blobs: Vec::new(),
            })?;
        }
        let bytes = |layers: &[&ImageLayer]| layers.iter().map(|layer| layer.size()).sum();
        Ok(Stored {
            requests: 0,
            blobs_sent: sent.len() as u64,
            bytes_sent: bytes(&sent),
            blobs_there: there.len() as u64,
            bytes_there: bytes(&there),
        })
    }

    fn current(&self, names: &[String]) -> Result<Vec<(String, Digest)>, TransportError> {
        let Some(index) = self.read_index()? else {
            return Ok(Vec::new());
        };
        let labels = oci_labels(&names::parse_all(names)?, self.reference.as_deref())?;
        let wanted = labels.iter().filter_map(|label| label.reference.as_deref());
        let found = wanted.flat_map(|name| {
            let named = index
                .manifests
                .iter()
                .filter(move |found| found.annotation(REF_NAME) == Some(name));
            named.filter_map(move |found| Some((name.to_owned(), found.digest.sha256()?)))
        });
        Ok(found.collect())
    }

    fn present(&self, blobs: &[(ContentDigest, u64)]) -> Result<Vec<ContentDigest>, TransportError> {
        let held = blobs.iter().filter(|(digest, size)| self.holds(digest, *size));
        Ok(held.map(|(digest, _)| *digest).collect())
    }

    fn transferred(&self) -> Transferred {
        self.tally.total()
    }

    fn warnings(&self, image: &Image) -> Vec<String> {
        let zstd = image.layers.iter().any(|layer| layer.codec() == Some(LayerCodec::Zstd));
        let text = "layers compressed with zstd cannot be unpacked by umoci before 0.5; gzip works everywhere";
        let mut warnings: Vec<String> = zstd.then(|| text.to_owned()).into_iter().collect();
        warnings.extend(super::docker_manifest_warning(image));
        warnings
    }
}
