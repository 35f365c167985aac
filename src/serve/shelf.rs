//! The *shelf* holds the images that were made, so that their manifests and blobs are found by digest.
//!
//! Invariant: what is found in a repository is of an image that has a name there; an image that nobody asks for is not held
//! for ever, because the files of its layers are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::digest::{ContentDigest, Digest};
use crate::image::{Image, ImageLayer};
use crate::oci::{Artifact, MediaType};

/// How long an image is held that nobody asks for.
pub(super) const HELD: Duration = Duration::from_secs(60 * 60);

/// Most images of a repository that are held, the newest of them.
const VERSIONS_MAX: usize = 32;

/// An image as it was made once.
pub(super) struct Version {
    /// What the spec calls it.
    pub name: String,
    pub image: Image,
    /// What is said of it, once somebody has asked for that.
    pub documents: OnceLock<Arc<Vec<Artifact>>>,
    /// When somebody asked for it last.
    asked: Mutex<Instant>,
}

impl Version {
    fn new(name: &str, image: Image) -> Self {
        Self {
            name: name.to_owned(),
            image,
            documents: OnceLock::new(),
            asked: Mutex::new(Instant::now()),
        }
    }

    /// By what it is known.
    pub(super) fn digest(&self) -> Digest {
        self.image.digest()
    }

    fn touch(&self) {
        *lock(&self.asked) = Instant::now();
    }

    fn rested(&self) -> Duration {
        lock(&self.asked).elapsed()
    }

    fn document(&self, digest: &ContentDigest) -> Option<FoundManifest> {
        if self.image.manifest.digest() == *digest || self.digest() == *digest {
            return Some(FoundManifest {
                digest: *digest,
                ..FoundManifest::of_image(&self.image)
            });
        }
        let documents = self.documents.get()?;
        let artifact = documents.iter().find(|artifact| artifact.digest == *digest)?;
        Some(FoundManifest {
            bytes: artifact.manifest.clone().into(),
            media_type: MediaType::MANIFEST.to_owned(),
            digest: *digest,
        })
    }

    fn blob(self: &Arc<Self>, digest: &ContentDigest) -> Option<FoundBlob> {
        let image = &self.image;
        if image.config.digest() == *digest {
            return Some(FoundBlob::Bytes(Bytes::copy_from_slice(image.config.bytes())));
        }
        let here = |layer: &ImageLayer| layer.digest() == *digest && !layer.is_absent();
        if let Some(layer) = image.layers.iter().position(here) {
            return Some(FoundBlob::Layer(self.clone(), layer));
        }
        let mut blobs = self.documents.get()?.iter().flat_map(|artifact| &artifact.blobs);
        let (_, bytes) = blobs.find(|(own, _)| own == digest)?;
        Some(FoundBlob::Bytes(bytes.clone().into()))
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
    pub(super) fn of_image(image: &Image) -> Self {
        Self {
            bytes: Bytes::copy_from_slice(image.manifest.bytes()),
            media_type: image.manifest.media_type().to_owned(),
            digest: image.digest().into(),
        }
    }
}

/// A blob that was found.
pub(super) enum FoundBlob {
    Bytes(Bytes),
    /// A layer of an image.
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
        image: Image,
        repositories: impl Iterator<Item = &'a str>,
    ) -> Arc<Version> {
        let version = Version::new(name, image);
        let mut held = lock(&self.0);
        let versions = held.values().flatten();
        let same = versions
            .into_iter()
            .find(|other| other.name == name && other.digest() == version.digest());
        if let Some(documents) = same.and_then(|same| same.documents.get()) {
            let _ = version.documents.set(documents.clone());
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

    /// The image of that digest in a repository.
    pub(super) fn version(&self, repository: &str, digest: &ContentDigest) -> Option<Arc<Version>> {
        self.find(repository, |version| {
            (version.digest() == *digest).then(|| version.clone())
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
