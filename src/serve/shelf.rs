//! The *shelf* holds the images that were made, so that their manifests and blobs are found by digest.
//!
//! Invariant: what is found in a repository is of an image that has a name there; an image that nobody asks for is not held
//! for ever, because the files of its layers are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::digest::{ContentDigest, Digest};
use crate::image::{Image, ImageIndex, ImageLayer, Listed};
use crate::oci::{Artifact, MediaType};

/// How long an image is held that nobody asks for.
pub(super) const HELD: Duration = Duration::from_secs(60 * 60);

/// Most images of a repository that are held, the newest of them.
const VERSIONS_MAX: usize = 32;

/// What is said of an image, once somebody has asked for that.
type Said = OnceLock<Arc<Vec<Artifact>>>;

/// An image as it was made once, or the index of the images for all its platforms.
pub(super) struct Version {
    /// What the spec calls it.
    pub name: String,
    made: Listed,
    /// What is said of each image of it.
    documents: BTreeMap<Digest, Said>,
    /// When somebody asked for it last.
    asked: Mutex<Instant>,
}

impl Version {
    fn new(name: &str, made: Listed) -> Self {
        let images = images(&made).into_iter();
        Self {
            name: name.to_owned(),
            documents: images.map(|image| (image.digest(), Said::new())).collect(),
            made,
            asked: Mutex::new(Instant::now()),
        }
    }

    /// By what it is known.
    fn digest(&self) -> Digest {
        match &self.made {
            Listed::Image(image) => image.digest(),
            Listed::Index(index) => index.digest(),
        }
    }

    /// Its manifest, or its index.
    pub(super) fn manifest(&self) -> FoundManifest {
        match &self.made {
            Listed::Image(image) => FoundManifest::of_image(image),
            Listed::Index(index) => FoundManifest::of_index(index),
        }
    }

    /// The layers of all its images, one image's after the other's.
    fn layers(&self) -> impl Iterator<Item = &ImageLayer> {
        images(&self.made).into_iter().flat_map(|image| &image.layers)
    }

    /// A layer by its place among all.
    pub(super) fn layer(&self, place: usize) -> &ImageLayer {
        self.layers().nth(place).expect("a layer that was found")
    }

    /// What is said of an image of it.
    pub(super) fn documents(&self, image: &Digest) -> Option<&Said> {
        self.documents.get(image)
    }

    fn touch(&self) {
        *lock(&self.asked) = Instant::now();
    }

    fn rested(&self) -> Duration {
        lock(&self.asked).elapsed()
    }

    fn document(&self, digest: &ContentDigest) -> Option<FoundManifest> {
        let is_it = |image: &&&Image| image.manifest.digest() == *digest || image.digest() == *digest;
        if let Some(image) = images(&self.made).iter().find(is_it) {
            return Some(FoundManifest {
                digest: *digest,
                ..FoundManifest::of_image(image)
            });
        }
        let mut indexes = match &self.made {
            Listed::Image(_) => Vec::new(),
            Listed::Index(index) => index.indexes(),
        }
        .into_iter();
        let is_it = |index: &&ImageIndex| index.document.digest() == *digest || index.digest() == *digest;
        if let Some(index) = indexes.find(is_it) {
            return Some(FoundManifest {
                digest: *digest,
                ..FoundManifest::of_index(index)
            });
        }
        let mut documents = self.said();
        let artifact = documents.find(|artifact| artifact.digest == *digest)?;
        Some(FoundManifest {
            bytes: artifact.manifest.clone().into(),
            media_type: MediaType::MANIFEST.to_owned(),
            digest: *digest,
        })
    }

    fn blob(self: &Arc<Self>, digest: &ContentDigest) -> Option<FoundBlob> {
        let all = images(&self.made);
        if let Some(image) = all.iter().find(|image| image.config.digest() == *digest) {
            return Some(FoundBlob::Bytes(Bytes::copy_from_slice(image.config.bytes())));
        }
        let here = |layer: &ImageLayer| layer.digest() == *digest && !layer.is_absent();
        if let Some(layer) = self.layers().position(here) {
            return Some(FoundBlob::Layer(self.clone(), layer));
        }
        let mut blobs = self.said().flat_map(|artifact| &artifact.blobs);
        let (_, bytes) = blobs.find(|(own, _)| own == digest)?;
        Some(FoundBlob::Bytes(bytes.clone().into()))
    }

    /// All that was said of its images.
    fn said(&self) -> impl Iterator<Item = &Artifact> {
        let said = self.documents.values().filter_map(OnceLock::get);
        said.flat_map(|documents| documents.iter())
    }
}

/// The image that was made, or all of an index.
fn images(made: &Listed) -> Vec<&Image> {
    match made {
        Listed::Image(image) => vec![image],
        Listed::Index(index) => index.images(),
    }
}

/// A manifest that was found.
#[derive(Debug, Clone)]
pub(super) struct FoundManifest {
    pub bytes: Bytes,
    pub media_type: String,
    pub digest: ContentDigest,
}

impl FoundManifest {
    fn of_image(image: &Image) -> Self {
        Self {
            bytes: Bytes::copy_from_slice(image.manifest.bytes()),
            media_type: image.manifest.media_type().to_owned(),
            digest: image.digest().into(),
        }
    }

    fn of_index(index: &ImageIndex) -> Self {
        Self {
            bytes: Bytes::copy_from_slice(index.document.bytes()),
            media_type: index.document.media_type().to_owned(),
            digest: index.digest().into(),
        }
    }
}

/// A blob that was found.
pub(super) enum FoundBlob {
    Bytes(Bytes),
    /// A layer by its place among those of all images.
    Layer(Arc<Version>, usize),
}

/// Images by the repositories in which they have names, the oldest first.
#[derive(Default)]
pub(super) struct Shelf(Mutex<BTreeMap<String, Vec<Arc<Version>>>>);

impl Shelf {
    /// Puts an image into repositories. The same image made again takes the place of itself: its files are there.
    pub(super) fn put<'a>(
        &self,
        name: &str,
        made: Listed,
        repositories: impl Iterator<Item = &'a str>,
    ) -> Arc<Version> {
        let version = Version::new(name, made);
        let mut held = lock(&self.0);
        let versions = held.values().flatten();
        let same = versions
            .into_iter()
            .find(|other| other.name == name && other.digest() == version.digest());
        for (image, said) in same.into_iter().flat_map(|same| &same.documents) {
            if let (Some(known), Some(own)) = (said.get(), version.documents.get(image)) {
                let _ = own.set(known.clone());
            }
        }
        let version = Arc::new(version);
        for repository in repositories {
            let versions = held.entry(repository.to_owned()).or_default();
            versions.retain(|other| other.name != name || other.digest() != version.digest());
            versions.push(version.clone());
            let surplus = versions.len().saturating_sub(VERSIONS_MAX);
            versions.drain(..surplus);
        }
        version
    }

    /// Whether anything is held of a repository.
    pub(super) fn has(&self, repository: &str) -> bool {
        lock(&self.0)
            .get(repository)
            .is_some_and(|versions| !versions.is_empty())
    }

    /// The manifest of that digest in a repository.
    pub(super) fn manifest(&self, repository: &str, digest: &ContentDigest) -> Option<FoundManifest> {
        self.find(repository, |version| version.document(digest))
    }

    /// The blob of that digest in a repository.
    pub(super) fn blob(&self, repository: &str, digest: &ContentDigest) -> Option<FoundBlob> {
        self.find(repository, |version| version.blob(digest))
    }

    /// What has the image of that digest in a repository, and the image's digest.
    pub(super) fn version(&self, repository: &str, digest: &ContentDigest) -> Option<(Arc<Version>, Digest)> {
        self.find(repository, |version| {
            let image = version.documents.keys().find(|image| **image == *digest)?;
            Some((version.clone(), *image))
        })
    }

    fn find<T>(&self, repository: &str, look: impl Fn(&Arc<Version>) -> Option<T>) -> Option<T> {
        let held = lock(&self.0);
        let mut newest_first = held.get(repository)?.iter().rev();
        newest_first.find_map(|version| look(version).inspect(|_| version.touch()))
    }

    /// Forgets an image.
    pub(super) fn forget(&self, version: &Arc<Version>) {
        self.retain(|other| !Arc::ptr_eq(other, version));
    }

    /// Forgets what nobody has asked for in that time; true where something was held and nothing is. What is on its way to
    /// somebody goes on.
    pub(super) fn forget_rested(&self, time: Duration) -> bool {
        let held_any = !lock(&self.0).is_empty();
        self.retain(|version| version.rested() < time);
        held_any && lock(&self.0).is_empty()
    }

    fn retain(&self, keep: impl Fn(&Arc<Version>) -> bool) {
        lock(&self.0).retain(|_, versions| {
            versions.retain(&keep);
            !versions.is_empty()
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
