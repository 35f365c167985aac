//! A *referrer* is an artifact that names an image as its subject: a bill of materials, a signature.
//!
//! Invariant: a manifest is a referrer only if its own `subject` says so, whatever the list says that it was found in; a
//! list is hostile, so that of each entry little is kept, and an entry that cannot be understood hides no other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Source, TransportError, manifest_of};
use crate::digest::ContentDigest;
use crate::oci::{Descriptor, DocumentKind, JsonError, Manifest, MediaType, Raw};

/// Most entries of lists of one image's referrers that are kept.
pub const REFERRERS_MAX: usize = 10_000;

/// What a place lists as being about an image; the manifests are not read yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Referrers {
    /// The entries, in the list's order, each digest once.
    pub listed: Vec<ListedReferrer>,
    /// Number of entries that no descriptor could be made of.
    pub unreadable: usize,
    /// Whether there are more than [`REFERRERS_MAX`], of which the rest is not in the list.
    pub cut: bool,
    seen: BTreeSet<ContentDigest>,
}

/// An entry of a list of referrers, as far as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedReferrer {
    /// Media type of its manifest; empty where the list does not say.
    #[serde(default)]
    pub media_type: String,
    /// Digest of its manifest.
    pub digest: ContentDigest,
    /// Size of its manifest in bytes.
    pub size: u64,
    /// What kind of artifact it is, where the list says so.
    #[serde(default)]
    pub artifact_type: Option<String>,
}

/// An artifact that was found beside an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrer {
    /// Digest of its manifest.
    pub digest: ContentDigest,
    /// What kind of artifact it is: its `artifactType`, else its config's media type.
    pub artifact_type: String,
    /// Its manifest's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its blobs, to be read through the image's source.
    pub blobs: Vec<Descriptor>,
}

impl Referrers {
    /// Adds what an index lists, the image itself aside.
    pub(super) fn add(
        &mut self,
        index: &[u8],
        image: &ContentDigest,
        place: &str,
        what: &str,
    ) -> Result<(), TransportError> {
        #[derive(Deserialize)]
        struct List {
            #[serde(default)]
            manifests: Entries,
        }
        // Read entry by entry and not as the document of an image: nothing of it is believed.
        let list: List = serde_json::from_slice(index).map_err(|source| TransportError::Json {
            place: place.to_owned(),
            what: what.to_owned(),
            source: JsonError::Parse { source },
        })?;
        self.unreadable += list.manifests.unreadable;
        for listed in list.manifests.listed {
            if listed.digest == *image || self.seen.contains(&listed.digest) {
                continue;
            }
            if self.listed.len() == REFERRERS_MAX {
                self.cut = true;
                break;
            }
            self.seen.insert(listed.digest);
            self.listed.push(listed);
        }
        Ok(())
    }
}

/// The entries of an index that may be referrers: those of manifests, or of nothing said.
#[derive(Default)]
struct Entries {
    listed: Vec<ListedReferrer>,
    unreadable: usize,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntriesVisitor)
    }
}

/// Takes the entries one by one, so that of those that are none, or are not wanted, nothing is kept.
struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of descriptors")
    }

    fn visit_unit<E>(self) -> Result<Entries, E> {
        Ok(Entries::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries, A::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Entry {
            Listed(ListedReferrer),
            Other(IgnoredAny),
        }
        let mut entries = Entries::default();
        while let Some(entry) = list.next_element()? {
            match entry {
                Entry::Listed(listed) if listed.media_type.is_empty() || is_manifest(&listed.media_type) => {
                    entries.listed.push(listed);
                }
                Entry::Listed(_) => {}
                Entry::Other(_) => entries.unreadable += 1,
            }
        }
        Ok(entries)
    }
}

impl ListedReferrer {
    /// Its descriptor.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            artifact_type: self.artifact_type.clone(),
            ..Descriptor::new(self.media_type.clone(), self.digest, self.size)
        }
    }

    /// Reads its manifest; `None` where its subject is another image.
    pub fn read(
        &self,
        source: &(impl Source + ?Sized),
        image: &ContentDigest,
    ) -> Result<Option<Referrer>, TransportError> {
        let manifest = manifest_of(source.listed(&self.descriptor())?, source.place())?;
        Ok(Referrer::of(&manifest, image))
    }
}

impl Referrer {
    /// The referrer that a manifest is, if its subject is `subject`.
    pub fn of(manifest: &Raw<Manifest>, subject: &ContentDigest) -> Option<Self> {
        manifest.subject.as_ref().filter(|found| found.digest == *subject)?;
        Some(Self {
            digest: manifest.digest(),
            artifact_type: manifest.kind_of_artifact().to_owned(),
            annotations: manifest.annotations.clone(),
            blobs: manifest.layers.clone(),
        })
    }
}

/// Whether a media type is that of a manifest.
fn is_manifest(media_type: &str) -> bool {
    MediaType::parse(media_type) == MediaType::Document(DocumentKind::Manifest)
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_referrers() {
        crate::testing::fuzz("referrers", |bytes| {
            let mut referrers = super::Referrers::default();
            let _ = referrers.add(bytes, &crate::digest::Digest::of(b"").into(), "a place", "a list");
            let _ = referrers.add(bytes, &crate::digest::Digest::of(b"").into(), "a place", "a list");
        });
    }
}
