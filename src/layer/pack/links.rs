//! *Links* of a store path: which of its files are one file in a layer.
//!
//! Invariant: a function of what the store path's hash covers (and of the modes, owners and capabilities that an image
//! gives): the same bytes and executable bit. Which files share an inode on this disk is not asked: a store path that was
//! fetched, or copied from another machine, has lost that, and its layer must be the same. Store paths never change, so that
//! nobody can tell such files from copies; `nix-store --optimise` treats them alike.

use std::collections::BTreeMap;
use std::fs::File;

use super::{Attribute, StoreEntry};
use crate::digest::{Digest, HashingWriter};
use crate::fsio::IoContext;
use crate::layer::LayerError;
use crate::nar::{self, EntryKind};

/// For each file that is a link: the first file in the order of the layer that has the same content, mode and owner.
pub(super) fn links(entry: &StoreEntry) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, LayerError> {
    let mut alike: BTreeMap<(u64, bool), Vec<nar::Entry>> = BTreeMap::new();
    for node in nar::walk(&entry.physical) {
        let node = node?;
        if let EntryKind::File { executable, size } = node.kind
            && size > 0
        {
            alike.entry((size, executable)).or_default().push(node);
        }
    }
    let mut links = BTreeMap::new();
    for nodes in alike.into_values().filter(|nodes| nodes.len() > 1) {
        let mut first: BTreeMap<(Digest, Attribute), Vec<u8>> = BTreeMap::new();
        for node in nodes {
            let key = (content(entry, &node)?, attribute(entry, &node.path));
            match first.get(&key) {
                Some(target) => drop(links.insert(node.path, target.clone())),
                None => drop(first.insert(key, node.path)),
            }
        }
    }
    Ok(links)
}

fn content(entry: &StoreEntry, node: &nar::Entry) -> Result<Digest, LayerError> {
    let physical = node.below(&entry.physical);
    let file = super::source::open_nofollow(&physical)?;
    Ok(digest_of(file).context("read", &physical)?)
}

fn digest_of(mut file: File) -> std::io::Result<Digest> {
    let mut writer = HashingWriter::new(std::io::sink());
    std::io::copy(&mut file, &mut writer)?;
    let (_, hasher, _) = writer.finish();
    Ok(hasher.digest())
}

/// What an image gives to an entry, whatever its path.
fn attribute(entry: &StoreEntry, path: &[u8]) -> Attribute {
    let found = entry
        .attributes
        .binary_search_by(|attribute| attribute.path.as_slice().cmp(path));
    let found = found.ok().map(|index| entry.attributes[index].clone());
    Attribute {
        path: Vec::new(),
        ..found.unwrap_or_default()
    }
}
