//! Indexes *made flat*: the images that an index lists together with those of the indexes beside them, for a choice by platform.
//!
//! Invariant: only where each platform names one image, and all that is listed could be read; else what stands on each level is
//! chosen from by itself, and digests tell apart what platforms do not.

use std::collections::{BTreeMap, BTreeSet};

use super::TransportError;
use crate::oci::{self, Descriptor, Document, INDEX_DEPTH_MAX, Index, NoChoice, Platform, Raw, UnknownEntry};

/// Most indexes that are read for one choice, and most that they list.
const INDEXES_MAX: usize = 20;
const ENTRIES_MAX: usize = 1000;

/// All images of a tree of indexes.
pub(super) struct Flat {
    /// Each with the index that lists it.
    listed: Vec<(Descriptor, usize)>,
    unknown: Vec<UnknownEntry>,
    indexes: Vec<Raw<Index>>,
}

impl Flat {
    /// Those that entries of an index lead to; `None` where the entries are all images or one index, or where platforms do not
    /// tell the images apart.
    pub(super) fn of(
        entries: &[Descriptor],
        index: &Raw<Index>,
        read: &dyn Fn(&Descriptor) -> Result<Document, TransportError>,
    ) -> Option<Self> {
        let images: Vec<&Descriptor> = entries.iter().filter(|entry| !entry.is_attestation()).collect();
        let distinct: BTreeSet<_> = images.iter().map(|entry| entry.digest).collect();
        if !(2..=ENTRIES_MAX).contains(&distinct.len()) || !images.iter().any(|entry| entry.is_index()) {
            return None;
        }
        let mut flat = Self {
            listed: Vec::new(),
            unknown: index.unknown.clone(),
            indexes: vec![index.clone()],
        };
        let mut level: Vec<(Descriptor, usize)> = entries.iter().map(|entry| (entry.clone(), 0)).collect();
        let mut seen = BTreeSet::new();
        for _ in 0..INDEX_DEPTH_MAX {
            let (nested, images): (Vec<_>, Vec<_>) = level.into_iter().partition(|(entry, _)| entry.is_index());
            flat.listed.extend(images);
            level = Vec::new();
            for (entry, _) in nested {
                if !seen.insert(entry.digest) {
                    continue;
                }
                let Ok(Document::Index(below)) = read(&entry) else {
                    return None;
                };
                let number = flat.indexes.len();
                if number > INDEXES_MAX || level.len() + below.manifests.len() > ENTRIES_MAX {
                    return None;
                }
                level.extend(below.manifests.iter().map(|entry| (entry.clone(), number)));
                flat.unknown.extend(below.unknown.iter().cloned());
                flat.indexes.push(below);
            }
        }
        (level.is_empty() && flat.is_told_apart()).then_some(flat)
    }

    /// Whether each image names a platform, and no two that differ the same.
    fn is_told_apart(&self) -> bool {
        let mut known: BTreeMap<&Platform, _> = BTreeMap::new();
        let mut images = self.listed.iter().filter(|(entry, _)| !entry.is_attestation());
        images.all(|(entry, _)| {
            let platform = entry.platform.as_ref();
            platform.is_some_and(|platform| *known.entry(platform).or_insert(entry.digest) == entry.digest)
        })
    }

    /// All that is listed.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Descriptor> {
        self.listed.iter().map(|(entry, _)| entry)
    }

    /// The image for `wanted`, or the only one, and the index that lists it.
    pub(super) fn choose(&self, wanted: Option<&Platform>) -> Result<(&Descriptor, &Raw<Index>), NoChoice> {
        let chosen = oci::choose(self.entries(), &self.unknown, wanted)?;
        let lists = |(entry, number): &(Descriptor, usize)| {
            (entry.digest == chosen.digest)
                .then(|| self.indexes.get(*number))
                .flatten()
        };
        let index = self.listed.iter().find_map(lists).ok_or(NoChoice::Empty)?;
        Ok((chosen, index))
    }
}
