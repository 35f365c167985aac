//! A *referrer* is an artifact that names an image as its subject: a bill of materials, a signature.
//!
//! Invariant: a manifest is a referrer only if its own `subject` says so, whatever the list says that it was found in; a
//! list is hostile, so that of each entry little is kept, and an entry that cannot be understood hides no other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::document::{self, Descriptor};
use super::{Source, TransportError};
use crate::digest::Digest;

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
    seen: BTreeSet<Digest>,
}

/// An entry of a list of referrers, as far as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedReferrer {
    /// Media type of its manifest; empty where the list does not say.
    #[serde(default)]
    pub media_type: String,
    /// Digest of its manifest.
    pub digest: Digest,
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
    pub digest: Digest,
    /// What kind of artifact it is: its `artifactType`, else its config's media type.
    pub artifact_type: String,
    /// Its manifest's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its blobs, to be read through the image's source.
    pub blobs: Vec<Descriptor>,
}

impl Referrers {
    /// Adds what an index lists, the image itself aside.
    pub(super) fn add(&mut self, index: &[u8], image: &Digest, place: &str, what: &str) -> Result<(), TransportError> {
        #[derive(Deserialize)]
        struct List {
            #[serde(default)]
            manifests: Entries,
        }
        let list: List = document::parse(index, place, what)?;
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
                Entry::Listed(listed) if listed.media_type.is_empty() || document::is_manifest(&listed.media_type) => {
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
    /// Reads its manifest; `None` where its subject is another image.
    pub fn read(&self, source: &(impl Source + ?Sized), image: &Digest) -> Result<Option<Referrer>, TransportError> {
        let descriptor = Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest,
            size: self.size,
            annotations: None,
            platform: None,
            artifact_type: self.artifact_type.clone(),
        };
        Referrer::parse(&source.listed(&descriptor)?, image, source.place())
    }
}

impl Referrer {
    /// The referrer whose manifest `bytes` are, if its subject is `subject`.
    pub fn parse(bytes: &[u8], subject: &Digest, place: &str) -> Result<Option<Self>, TransportError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Manifest {
            #[serde(default)]
            artifact_type: Option<String>,
            #[serde(default)]
            config: Option<Descriptor>,
            #[serde(default)]
            layers: Option<Vec<Descriptor>>,
            #[serde(default)]
            subject: Option<Descriptor>,
            #[serde(default)]
            annotations: Option<BTreeMap<String, String>>,
        }
        let manifest: Manifest = document::parse(bytes, place, "a manifest")?;
        if manifest.subject.is_none_or(|found| found.digest != *subject) {
            return Ok(None);
        }
        let own = manifest.artifact_type.filter(|kind| !kind.is_empty());
        let of_config = manifest.config.map(|config| config.media_type);
        Ok(Some(Self {
            digest: Digest::of(bytes),
            artifact_type: own.or(of_config).unwrap_or_default(),
            annotations: manifest.annotations.unwrap_or_default(),
            blobs: manifest.layers.unwrap_or_default(),
        }))
    }
}
