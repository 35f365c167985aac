//! *Scanning*: what can be told of a Nix store by its files alone.
//!
//! Invariant: references are found as Nix finds them, by the hashes of the store's paths in the bytes of the archive,
//! as they are: nothing is unpacked and no other spelling counts. So they are the references that Nix recorded,
//! as long as no path of the store was deleted since.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::NixPath;
use crate::digest::HashingWriter;
use crate::fsio::{IoContext, sorted_names};
use crate::nar::{self, EntryKind, NarEncoder};
use crate::store::canonical::MTIME;
use crate::store::error::StoreError;
use crate::store::evidence::{Place, PlaceKind, printable};
use crate::store::inspect::Tee;
use crate::store::scan::{Finder, Hit, Needles, Spelling};
use crate::store_path::{PathInfo, StorePath};

/// All paths of a store, to be searched for in each other.
pub(super) struct Scanner {
    dir: PathBuf,
    paths: Vec<StorePath>,
    needles: Needles,
}

impl std::fmt::Debug for Scanner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scanner({} paths in {})", self.paths.len(), self.dir.display())
    }
}

impl Scanner {
    /// Lists the store in `dir`; what is not a store path there is left out.
    pub(super) fn new(dir: &Path) -> Result<Self, StoreError> {
        let names = sorted_names(dir)?;
        let paths: Vec<StorePath> = names
            .iter()
            .filter_map(|name| name.to_str()?.parse().ok())
            // Locks of builds, and what is half built or being deleted.
            .filter(|path: &StorePath| {
                ![".lock", ".chroot", ".check"]
                    .iter()
                    .any(|end| path.name().ends_with(end))
            })
            .collect();
        Ok(Self {
            dir: dir.to_owned(),
            needles: Needles::new(&paths),
            paths,
        })
    }

    /// Reads a path once: its archive is hashed and searched.
    pub(super) fn path(&self, path: &StorePath) -> Result<Option<NixPath>, StoreError> {
        if self.paths.binary_search(path).is_err() {
            return Ok(None);
        }
        let mut found = BTreeSet::new();
        let mut encoder = NarEncoder::new(HashingWriter::new(io::sink()))?;
        search(
            &self.dir.join(path.to_string()),
            &self.needles,
            Some(&mut encoder),
            &mut |_, hit| {
                found.insert(hit.needle);
            },
        )?;
        let (_, hasher, nar_size) = encoder.finish()?.finish();
        let mut references: BTreeSet<StorePath> = found.into_iter().map(|index| self.paths[index].clone()).collect();
        let self_reference = references.remove(path);
        Ok(Some(NixPath::new(PathInfo {
            path: path.clone(),
            nar_hash: hasher.digest(),
            nar_size,
            references,
            self_reference,
        })))
    }
}

/// Where the tree at `root` names `target` first.
pub(super) fn place(root: &Path, target: &StorePath) -> Result<Option<Place>, StoreError> {
    let mut first = None;
    search(root, &Needles::new([target]), None, &mut |place, _| {
        first.get_or_insert_with(|| place.clone());
    })?;
    Ok(first)
}

/// The encoder whose sink hashes.
type HashingReader = NarEncoder<HashingWriter<io::Sink>>;

fn search(
    root: &Path,
    needles: &Needles,
    mut encoder: Option<&mut HashingReader>,
    found: &mut dyn FnMut(&Place, Hit),
) -> Result<(), StoreError> {
    nar::visit(root, &mut |entry, contents| {
        let file = printable(&entry.path);
        let mut report = |kind, hit: Hit| {
            if hit.spelling == Spelling::Bytes {
                let place = Place {
                    file: file.clone(),
                    inside: Vec::new(),
                    offset: hit.offset,
                    kind,
                };
                found(&place, hit);
            }
        };
        Finder::default().feed(needles, entry.name(), &mut |hit| report(PlaceKind::Name, hit));
        if let EntryKind::Symlink { target } = &entry.kind {
            Finder::default().feed(needles, target, &mut |hit| report(PlaceKind::Symlink, hit));
        }
        let mut finder = Finder::default();
        let mut tee = Tee {
            contents,
            sink: &mut |piece| finder.feed(needles, piece, &mut |hit| report(PlaceKind::Content, hit)),
        };
        match &mut encoder {
            Some(encoder) => encoder.entry(entry, &mut tee),
            None => drain(&mut tee, root),
        }
    })?;
    Ok(())
}

fn drain(contents: &mut dyn Read, path: &Path) -> Result<(), nar::NarError> {
    let copied = io::copy(contents, &mut io::sink());
    Ok(copied.map(|_| ()).context("read", path)?)
}

/// Files below `root` that Nix did not leave so: written to since, or writable.
pub(super) fn suspects(root: &Path, limit: usize) -> Result<Vec<String>, StoreError> {
    let mut suspects = Vec::new();
    for entry in nar::walk(root) {
        let entry = entry?;
        let path = entry.below(root);
        let metadata = path.symlink_metadata().context("read the attributes of", &path)?;
        let writable = !metadata.is_symlink() && metadata.mode() & 0o222 != 0;
        // Making or removing a file changes the time of the directory that it is in.
        let why = match (metadata.mtime() != MTIME, writable) {
            (true, true) => "written to, and writable",
            (true, false) => "written to",
            (false, true) => "writable",
            (false, false) => continue,
        };
        let name = match entry.path.is_empty() {
            true => "the path itself".to_owned(),
            false => format!("`{}`", printable(&entry.path)),
        };
        suspects.push(format!("{name} ({why})"));
        if suspects.len() == limit {
            break;
        }
    }
    Ok(suspects)
}
