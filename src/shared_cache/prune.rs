//! *Pruning*: what nobody has used for long is listed, and taken out.
//!
//! Invariant: only what has the form of an entry goes, and nothing that another name in the place stands for.

use std::collections::{BTreeMap, BTreeSet};

use super::ENTRY_TYPE;
use super::age;
use super::error::SharedCacheError;
use super::place::{CachePlace, OciKind, PlaceKind};
use crate::digest::{ContentDigest, Digest};
use crate::oci::Document;
use crate::parallel;
use crate::transport::read::LayoutBlobs;
use crate::transport::registry::Remote;
use crate::transport::write::Freed;
use crate::transport::{Layout, TransportError};

/// Requests at once.
const THREADS: usize = 4;

/// An entry of a place: of a step, or of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedEntry {
    /// The tags that it has, sorted.
    pub tags: Vec<String>,
    /// Digest of its manifest or index.
    pub digest: ContentDigest,
    /// Bytes of all that it names, of which others may name parts.
    pub size: u64,
    /// When a writer last had use for it, in seconds since 1970.
    pub used: Option<i64>,
}

/// What became of entries that were to go.
#[derive(Debug, Clone, Default)]
pub struct Pruned {
    /// Those that stay, as they have a name that is none of an entry.
    pub spared: Vec<CachedEntry>,
    /// What that freed, where it can be told: a registry frees what nothing names when it likes.
    pub freed: Option<Freed>,
}

impl CachedEntry {
    /// The tag by which it is told: the one that is asked for first.
    pub fn tag(&self) -> &str {
        self.tags.last().map_or("", String::as_str)
    }

    /// Whether no writer had use for it since `before`; of one without a date `undated` says it.
    pub fn is_unused_since(&self, before: i64, undated: bool) -> bool {
        self.used.map_or(undated, |used| used < before)
    }
}

impl CachePlace {
    /// All entries, by their tags.
    pub fn entries(&self) -> Result<Vec<CachedEntry>, SharedCacheError> {
        let oci = match &self.kind {
            PlaceKind::Oci(oci) => oci,
            PlaceKind::Nix(nix) => return nix.entries(),
        };
        let found = match &oci.kind {
            OciKind::Registry(remote, _) => {
                let tags: Vec<String> = remote.tags()?.into_iter().filter(|tag| is_entry_tag(tag)).collect();
                let read = parallel::map(&tags, THREADS, |tag| remote.document(tag))?;
                tags.into_iter()
                    .zip(read)
                    .filter_map(|(tag, read)| Some((tag, read?)))
                    .collect()
            }
            OciKind::Layout(_) if !oci.exists() => Vec::new(),
            OciKind::Layout(path) => {
                let blobs = LayoutBlobs::open(path)?;
                let named = blobs.named()?.into_iter().filter(|(name, _)| is_entry_tag(name));
                let read = named.map(|(name, listed)| Ok((name, blobs.document(&listed)?)));
                read.collect::<Result<Vec<(String, Document)>, TransportError>>()?
            }
        };
        Ok(joined(
            found
                .into_iter()
                .filter_map(|(tag, document)| Some((entry_in(&tag, &document)?, tag))),
        ))
    }

    /// Takes entries out, and tells each that is gone. `beside` is the name of what is kept beside an image: in a layout it
    /// goes with the last entry of its image, in a registry nobody can tell whether that was the last. The archives of a binary
    /// cache stay: others take paths from it without any entry.
    pub fn prune(
        &self,
        entries: &[CachedEntry],
        beside: &dyn Fn(&Digest) -> String,
        told: &(dyn Fn(&CachedEntry) + Sync),
    ) -> Result<Pruned, SharedCacheError> {
        if entries.is_empty() {
            return Ok(Pruned::default());
        }
        let oci = match &self.kind {
            PlaceKind::Oci(oci) => oci,
            PlaceKind::Nix(nix) => return nix.prune(entries, told),
        };
        match &oci.kind {
            OciKind::Registry(remote, _) => prune_registry(remote, entries, told),
            OciKind::Layout(path) => {
                let pairs = entries.iter().flat_map(|entry| {
                    let tags = entry.tags.iter();
                    tags.map(|tag| (tag.clone(), entry.digest))
                });
                let freed = Layout::new(path, None).remove(&pairs.collect(), beside)?;
                entries.iter().for_each(told);
                Ok(Pruned {
                    spared: Vec::new(),
                    freed: Some(freed),
                })
            }
        }
    }
}

/// Entries with all their tags, by the tags; each comes once with each of them.
pub(super) fn joined(found: impl Iterator<Item = (CachedEntry, String)>) -> Vec<CachedEntry> {
    let mut by_digest: BTreeMap<ContentDigest, CachedEntry> = BTreeMap::new();
    for (entry, tag) in found {
        by_digest.entry(entry.digest).or_insert(entry).tags.push(tag);
    }
    let mut entries: Vec<CachedEntry> = by_digest.into_values().collect();
    entries.iter_mut().for_each(|entry| entry.tags.sort());
    entries.sort_by(|a, b| a.tag().cmp(b.tag()));
    entries
}

/// Deletes manifests. That takes all their tags, so that those are looked at first that are none of entries.
fn prune_registry(
    remote: &Remote,
    entries: &[CachedEntry],
    told: &(dyn Fn(&CachedEntry) + Sync),
) -> Result<Pruned, SharedCacheError> {
    let tags = remote.tags()?.into_iter();
    let others: Vec<String> = tags.filter(|tag| !is_entry_tag(tag) && !is_beside(tag)).collect();
    let named = parallel::map(&others, THREADS, |tag| remote.digest_of(tag))?;
    let named: BTreeSet<ContentDigest> = named.into_iter().flatten().collect();
    let (spared, gone): (Vec<CachedEntry>, Vec<CachedEntry>) =
        entries.iter().cloned().partition(|entry| named.contains(&entry.digest));
    // Where nothing may be deleted one refusal is enough.
    let (first, rest) = gone.split_at(gone.len().min(1));
    for part in [first, rest] {
        parallel::map(part, THREADS, |entry| remote.delete(&entry.digest).map(|_| told(entry)))?;
    }
    Ok(Pruned { spared, freed: None })
}

/// Whether a tag has the form of an entry's.
pub(super) fn is_entry_tag(tag: &str) -> bool {
    let hex = ["p-", "b-", "i-"].iter().find_map(|prefix| tag.strip_prefix(prefix));
    hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

/// Whether a tag is of what is kept beside images, which is never an entry.
fn is_beside(tag: &str) -> bool {
    tag.starts_with("sha256-") || tag.starts_with("inputs-")
}

/// Sizes are what somebody says that they are.
fn sum(own: u64, others: impl Iterator<Item = u64>) -> u64 {
    others.fold(own, u64::saturating_add)
}

/// What a document under a tag is as an entry, without its tags; `None` where it is something else.
fn entry_in(tag: &str, document: &Document) -> Option<CachedEntry> {
    let own = document.bytes().len() as u64;
    let (size, annotations) = match document {
        Document::Manifest(manifest) => {
            if tag.starts_with("i-") || manifest.kind_of_artifact() != ENTRY_TYPE {
                return None;
            }
            let parts = manifest.layers.iter().chain([&manifest.config]);
            (sum(own, parts.map(|part| part.size)), &manifest.annotations)
        }
        Document::Index(index) => {
            if !tag.starts_with("i-") {
                return None;
            }
            let listed = index.manifests.iter().map(|listed| listed.size);
            (sum(own, listed), &index.annotations)
        }
    };
    Some(CachedEntry {
        tags: Vec::new(),
        digest: document.digest(),
        size,
        used: age::date_of(annotations),
    })
}
