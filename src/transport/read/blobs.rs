//! The *blobs* of a layout by digest, whatever images they belong to.
//!
//! Invariant: no image is chosen; manifests are bounded and verified, other blobs are given as they are.

use std::io::Read;
use std::path::Path;

use super::super::{TransportError, manifest_of};
use super::{Container, choose, document, referrers, top_index};
use crate::digest::Digest;
use crate::oci::{Descriptor, Document, Manifest, REF_NAME, Raw};

/// Most artifacts of one kind that are read.
const ARTIFACTS_MAX: usize = 100;

/// A layout directory.
pub struct LayoutBlobs {
    place: String,
    container: Container,
}

impl LayoutBlobs {
    /// The layout in `path`.
    pub fn open(path: &Path) -> Result<Self, TransportError> {
        let place = format!("oci:{}", path.display());
        let container = Container::dir(path, &place);
        choose::check_layout(&container, &place)?;
        Ok(Self { place, container })
    }

    /// A blob, **unverified**; `None` where it is not there.
    pub fn blob(&self, digest: &Digest) -> Result<Option<Box<dyn Read + Send>>, TransportError> {
        let opened = self.container.open(&format!("blobs/sha256/{}", digest.hex()))?;
        Ok(opened.map(|(reader, _)| reader))
    }

    /// Size in bytes of a blob; `None` where it is not there.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>, TransportError> {
        let opened = self.container.open(&format!("blobs/sha256/{}", digest.hex()))?;
        Ok(opened.map(|(_, size)| size))
    }

    /// The manifest that `index.json` lists under a name.
    pub fn tagged(&self, name: &str) -> Result<Option<Raw<Manifest>>, TransportError> {
        referrers::tagged(&self.container, &self.place, name)
    }

    /// What `index.json` lists under names.
    pub fn named(&self) -> Result<Vec<(String, Descriptor)>, TransportError> {
        let index = top_index(&self.container, &self.place)?;
        let listed = index.iter().flat_map(|index| &index.manifests);
        let named = listed.filter_map(|found| Some((found.annotation(REF_NAME)?.to_owned(), found.clone())));
        Ok(named.collect())
    }

    /// The manifest or index that something lists.
    pub fn document(&self, listed: &Descriptor) -> Result<Document, TransportError> {
        document(&self.container, &self.place, listed, "the manifest")
    }

    /// The manifests of artifacts of a kind, each once.
    pub fn artifacts(&self, kind: &str) -> Result<Vec<Raw<Manifest>>, TransportError> {
        let Some(index) = top_index(&self.container, &self.place)? else {
            return Ok(Vec::new());
        };
        let mut seen = std::collections::BTreeSet::new();
        let listed = index.manifests.iter();
        let listed = listed.filter(|found| found.artifact_type.as_deref() == Some(kind) && seen.insert(found.digest));
        let read = |found| {
            let read = document(&self.container, &self.place, found, "the manifest")?;
            manifest_of(read, &self.place)
        };
        listed.take(ARTIFACTS_MAX).map(read).collect()
    }
}
