//! The hash of a *filtered* tree's canonical archive (NAR), taken where the tree lies.
//!
//! Invariant: it is the hash that the store gives the copy of the same entries.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::digest::{Digest, HashingWriter};
use crate::fetch::FetchError;
use crate::fsio::IoContext;
use crate::nar::NarEncoder;
pub(super) use crate::nar::{Entry, EntryKind};

/// Hash of the archive of `entries` (each directory before what is in it, names in byte order), files read below
/// `root`.
pub(super) fn hash(root: &Path, entries: &[Entry]) -> Result<Digest, FetchError> {
    let mut encoder = NarEncoder::new(HashingWriter::new(io::sink()))?;
    for entry in entries {
        if let EntryKind::File { .. } = entry.kind {
            let path = entry.below(root);
            let mut file = File::open(&path).context("open", &path)?;
            let written = encoder.entry(entry, &mut file);
            written.map_err(io::Error::other).context("archive", &path)?;
        } else {
            encoder.entry(entry, &mut io::empty())?;
        }
    }
    let (_, hasher, _) = encoder.finish()?.finish();
    Ok(hasher.digest())
}
