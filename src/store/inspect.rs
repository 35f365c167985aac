//! An *inspection* reads a tree once: its archive is hashed and searched for references in the same pass.
//!
//! Invariant: every byte of the tree passes by both the hash and the scan, or the inspection fails.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use super::error::StoreError;
use super::evidence::{Place, PlaceKind, printable};
use super::modulo::{Modulo, ModuloHasher};
use super::scan::{FileScan, Finder, Hit, Needles, Spelling};
use crate::digest::Digest;
use crate::nar::{self, Entry, EntryKind, NarEncoder};
use crate::store_path::StorePath;

/// What an inspection found.
pub(super) struct Inspection {
    /// Hash of the archive, modulo the path that the tree was built at.
    pub hash: Digest,
    /// Size of the archive in bytes.
    pub size: u64,
    /// Number of files and directories.
    pub entries: u64,
    /// Where each candidate was found first.
    pub found: BTreeMap<StorePath, Place>,
    /// How the tree refers to the path it was built at.
    pub own: OwnReferences,
    /// Compressed files that were not searched to their end.
    pub unscanned: Vec<String>,
}

/// How a tree refers to the path it was built at.
pub(super) struct OwnReferences {
    /// Where it does so first.
    pub first: Option<Place>,
    /// Files and symlinks that hold the hash as it is.
    pub entries: Vec<Entry>,
    /// Where it does so first in a way that cannot be rewritten: in a name, in UTF-16, or inside a compressed file.
    pub fixed: Option<Place>,
    /// Whether the hash stands nowhere in the archive but in `entries`.
    all_seen: bool,
}

impl OwnReferences {
    /// Whether all of them can be rewritten.
    pub(super) fn rewritable(&self) -> bool {
        self.fixed.is_none() && self.all_seen
    }
}

/// Reads the tree at `root`, searching for `candidates` and for `own`, the path that it was built at.
pub(super) fn inspect<'a>(
    root: &Path,
    candidates: impl IntoIterator<Item = &'a StorePath>,
    own: Option<&'a StorePath>,
) -> Result<Inspection, StoreError> {
    // Its own path comes first, and counts as its own where it is among the candidates too.
    let mut paths: Vec<&StorePath> = own.into_iter().collect();
    paths.extend(candidates.into_iter().filter(|&path| Some(path) != own));
    let needles = Needles::new(paths.iter().copied());
    let mut scan = TreeScan::new(paths.len(), own.is_some());
    let mut entries = 0;
    let mut encoder = NarEncoder::new(ModuloHasher::new(own.map(StorePath::hash)))?;
    nar::visit(root, &mut |entry, contents| {
        entries += 1;
        scan.begin(entry, &needles);
        let mut file = FileScan::new();
        let mut tee = Tee {
            contents,
            sink: &mut |piece: &[u8]| file.feed(&needles, piece, &mut |inside, hit| scan.content(entry, inside, hit)),
        };
        encoder.entry(entry, &mut tee)?;
        if file.incomplete() {
            scan.unscanned.push(printable(&entry.path));
        }
        Ok(())
    })?;
    let modulo = encoder.finish()?.finish();
    Ok(scan.finish(&paths, &modulo, entries))
}

/// The search of all of a tree.
struct TreeScan {
    /// Whether the first needle is the tree's own path.
    has_own: bool,
    /// For each needle where it was found first.
    places: Vec<Option<Place>>,
    /// Entries that hold the tree's own hash where it can be rewritten.
    own_entries: Vec<Entry>,
    /// How often it stands there.
    own_plain: u64,
    /// Where it stands first where it cannot be rewritten.
    own_fixed: Option<Place>,
    unscanned: Vec<String>,
}

impl TreeScan {
    fn new(needles: usize, has_own: bool) -> Self {
        Self {
            has_own,
            places: vec![None; needles],
            own_entries: Vec::new(),
            own_plain: 0,
            own_fixed: None,
            unscanned: Vec::new(),
        }
    }

    /// Searches an entry's name and, where it is a symlink, its target.
    fn begin(&mut self, entry: &Entry, needles: &Needles) {
        Finder::default().feed(needles, entry.name(), &mut |hit| {
            self.hit(entry, PlaceKind::Name, &[], hit)
        });
        if let EntryKind::Symlink { target } = &entry.kind {
            Finder::default().feed(needles, target, &mut |hit| {
                self.hit(entry, PlaceKind::Symlink, &[], hit)
            });
        }
    }

    /// Takes what was found in a file.
    fn content(&mut self, entry: &Entry, inside: &[String], hit: Hit) {
        let kind = match hit.spelling {
            Spelling::Bytes => PlaceKind::Content,
            Spelling::Utf16 => PlaceKind::Utf16,
        };
        self.hit(entry, kind, inside, hit);
    }

    fn hit(&mut self, entry: &Entry, kind: PlaceKind, inside: &[String], hit: Hit) {
        let here = || Place {
            file: printable(&entry.path),
            inside: inside.to_vec(),
            offset: hit.offset,
            kind,
        };
        if let Some(place @ None) = self.places.get_mut(hit.needle) {
            *place = Some(here());
        }
        if !self.has_own || hit.needle != 0 {
            return;
        }
        match kind {
            PlaceKind::Content | PlaceKind::Symlink if inside.is_empty() => {
                self.own_plain += 1;
                if self.own_entries.last() != Some(entry) {
                    self.own_entries.push(entry.clone());
                }
            }
            _ => {
                self.own_fixed.get_or_insert_with(here);
            }
        }
    }

    fn finish(mut self, paths: &[&StorePath], modulo: &Modulo, entries: u64) -> Inspection {
        let first = if self.has_own { self.places[0].take() } else { None };
        let found = paths.iter().zip(self.places);
        Inspection {
            hash: modulo.hash,
            size: modulo.size,
            entries,
            found: found
                .filter_map(|(&path, place)| Some((path.clone(), place?)))
                .collect(),
            own: OwnReferences {
                first,
                entries: self.own_entries,
                fixed: self.own_fixed,
                // The archive may hold the hash in more places than the scan can name: then nothing is touched.
                all_seen: self.own_plain == modulo.occurrences,
            },
            unscanned: self.unscanned,
        }
    }
}

/// A reader that shows every piece that it reads to a sink.
pub(super) struct Tee<'a> {
    pub(super) contents: &'a mut dyn Read,
    pub(super) sink: &'a mut dyn FnMut(&[u8]),
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.contents.read(buffer)?;
        (self.sink)(&buffer[..count]);
        Ok(count)
    }
}
