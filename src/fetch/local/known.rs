//! *Known* sources: the hash of a source's archive is kept, so that a source that nobody changed is not read again.
//!
//! Invariant: what is kept is found by the names and stamps of all that the filters leave, and only kept where each stamp was
//! settled before the first file was read. Removing any file of it costs time and nothing else.
//!
//! `DIR/HEX`, a file for each source with its filters, holds the digest of the names and stamps, and the archive's hash.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::archive::EntryKind;
use super::{Listing, LocalSource};
use crate::digest::{Digest, Hasher};
use crate::fsio::{self, AtomicFile};
use crate::store::Store;

/// Number of the record's form, and of what its key is made of.
const VERSION: &str = "1";

/// Size of a record in bytes.
const RECORD_SIZE: u64 = 130;

/// What is known of a source as it lies there.
pub(super) struct Known {
    path: PathBuf,
    /// By which the listing is the same as before.
    key: Digest,
    /// Whether the same listing will be the same files.
    is_settled: bool,
}

impl Known {
    /// Looks at what the filters left of a source; no file is opened.
    pub fn of(store: &Store, source: &LocalSource<'_>, listing: &Listing) -> Self {
        let mut place = Hasher::new();
        let mut part = |bytes: &[u8]| {
            place.update(&(bytes.len() as u64).to_le_bytes());
            place.update(bytes);
        };
        part(listing.root.as_os_str().as_bytes());
        part(&[u8::from(source.gitignore)]);
        for patterns in [source.include, source.exclude] {
            part(&(patterns.len() as u64).to_le_bytes());
            patterns.iter().for_each(|pattern| part(pattern.as_bytes()));
        }
        let dir = store.dir().join("cache/sources");
        Self {
            path: dir.join(place.digest().hex()),
            key: key(listing),
            is_settled: listing.stamps.iter().all(|stamp| stamp.is_settled(listing.began)),
        }
    }

    /// The archive's hash, where nothing was changed since it was taken.
    pub fn hash(&self) -> Option<Digest> {
        let bytes = fsio::read_limited(&self.path, RECORD_SIZE).ok()?;
        let (key, hash) = std::str::from_utf8(&bytes).ok()?.trim_end().split_once(' ')?;
        let hash = Digest::from_hex(hash).ok()?;
        let is_same = Digest::from_hex(key).ok()? == self.key;
        is_same.then(|| {
            fsio::note_use(&self.path);
            hash
        })
    }

    /// Keeps the hash of the archive that was read since the listing was made. Where that cannot be done it is taken again.
    pub fn keep(&self, hash: &Digest) {
        let write = || {
            fsio::create_dir_all(self.path.parent()?).ok()?;
            let mut file = AtomicFile::create(&self.path).ok()?;
            let line = format!("{} {}\n", self.key.hex(), hash.hex());
            file.write_all(line.as_bytes()).ok()?;
            file.publish_unsynced().ok()
        };
        if self.is_settled {
            let _: Option<()> = write();
        }
    }
}

/// Digest of names, kinds and stamps.
fn key(listing: &Listing) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(VERSION.as_bytes());
    for (entry, stamp) in listing.entries.iter().zip(&listing.stamps) {
        let (kind, target) = match &entry.kind {
            EntryKind::Directory => (b'd', &[][..]),
            EntryKind::File { .. } => (b'f', &[][..]),
            EntryKind::Symlink { target } => (b'l', &target[..]),
        };
        for bytes in [&entry.path[..], target] {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
        hasher.update(&[kind]);
        hasher.update(&stamp.bytes());
    }
    hasher.digest()
}
