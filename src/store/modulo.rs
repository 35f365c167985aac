//! A hash *modulo* a store path: the hash of an archive that holds its own path's hash, with that blanked out.
//!
//! Invariant: the value is the same whichever 32 characters stand for the path itself, so it can be computed
//! from a tree that was built at another path than its final one.
//!
//! The scheme is Nix's (its "hash modulo", used for content-addressed paths with self-references): every
//! occurrence of the 32 characters in the archive is replaced by 32 zero bytes; after the last byte, for each
//! occurrence in order, `|` and its decimal position in the archive are hashed too, so that zero bytes that were
//! there from the start cannot be mistaken for an occurrence.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use memchr::memmem;

use super::canonical::seal;
use super::error::StoreError;
use crate::digest::{Digest, Hasher};
use crate::fsio::IoContext;
use crate::nar::EntryKind;
use crate::store_path::{HASH_CHARS, StoreHash};

/// Bytes of a file that are rewritten at once.
const BLOCK: usize = 1 << 20;

/// Takes an archive's bytes in and hashes them modulo a path.
pub(super) struct ModuloHasher {
    needle: Option<memmem::Finder<'static>>,
    hasher: Hasher,
    /// The last bytes, fewer than a hash has, that may begin an occurrence.
    held: Vec<u8>,
    /// Bytes hashed so far.
    position: u64,
    occurrences: Vec<u64>,
}

/// What a [`ModuloHasher`] found.
pub(super) struct Modulo {
    pub hash: Digest,
    /// Size of the archive in bytes.
    pub size: u64,
    /// How often the path's hash occurs.
    pub occurrences: u64,
}

impl ModuloHasher {
    /// Hashes modulo `own`; without it this is the plain hash.
    pub(super) fn new(own: Option<StoreHash>) -> Self {
        Self {
            needle: own.map(|hash| memmem::Finder::new(&hash.to_string()).into_owned()),
            hasher: Hasher::new(),
            held: Vec::new(),
            position: 0,
            occurrences: Vec::new(),
        }
    }

    /// The result for all bytes taken in.
    pub(super) fn finish(mut self) -> Modulo {
        self.hasher.update(&self.held);
        self.position += self.held.len() as u64;
        for occurrence in &self.occurrences {
            self.hasher.update(format!("|{occurrence}").as_bytes());
        }
        Modulo {
            hash: self.hasher.digest(),
            size: self.position,
            occurrences: self.occurrences.len() as u64,
        }
    }
}

impl Write for ModuloHasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(needle) = &self.needle else {
            self.hasher.update(bytes);
            self.position += bytes.len() as u64;
            return Ok(bytes.len());
        };
        self.held.extend_from_slice(bytes);
        let mut done = 0;
        while let Some(found) = needle.find(&self.held[done..]) {
            let at = done + found;
            self.occurrences.push(self.position + at as u64);
            self.held[at..at + HASH_CHARS].fill(0);
            done = at + HASH_CHARS;
        }
        let settled = done.max(self.held.len().saturating_sub(HASH_CHARS - 1));
        self.hasher.update(&self.held[..settled]);
        self.position += settled as u64;
        self.held.drain(..settled);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Replaces `old` by `new` in a canonical file and makes it canonical again.
pub(super) fn rewrite_file(path: &Path, executable: bool, old: StoreHash, new: StoreHash) -> Result<(), StoreError> {
    fs::set_permissions(path, Permissions::from_mode(0o600)).context("make writable", path)?;
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .context("open", path)?;
    let size = file.metadata().context("read the attributes of", path)?.len();
    let (old, new) = (old.to_string(), new.to_string());
    let needle = memmem::Finder::new(&old);
    let mut block = vec![0; BLOCK];
    let mut start = 0;
    while start < size {
        let length = usize::try_from(size - start).unwrap_or(BLOCK).min(BLOCK);
        file.read_exact_at(&mut block[..length], start).context("read", path)?;
        for at in needle.find_iter(&block[..length]) {
            file.write_all_at(new.as_bytes(), start + at as u64)
                .context("write", path)?;
        }
        if start + length as u64 == size {
            break;
        }
        // The next block begins early enough for what spans the two.
        start += (length - (HASH_CHARS - 1)) as u64;
    }
    seal(path, &EntryKind::File { executable, size })
}

/// Replaces `old` by `new` in the target of a symlink of a canonical tree.
pub(super) fn rewrite_symlink(path: &Path, target: &[u8], old: StoreHash, new: StoreHash) -> Result<(), StoreError> {
    let (old, new) = (old.to_string(), new.to_string());
    let mut rewritten = target.to_owned();
    for at in memmem::find_iter(target, old.as_bytes()) {
        rewritten[at..at + HASH_CHARS].copy_from_slice(new.as_bytes());
    }
    replace_symlink(path, rewritten)
}

/// Puts a symlink to `target` in the place of a symlink of a canonical tree.
pub(super) fn replace_symlink(path: &Path, target: Vec<u8>) -> Result<(), StoreError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let writable = |mode| fs::set_permissions(parent, Permissions::from_mode(mode)).context("set the mode of", parent);
    writable(0o755)?;
    fs::remove_file(path).context("remove", path)?;
    symlink(std::ffi::OsStr::from_bytes(&target), path).context("create the symlink", path)?;
    seal(path, &EntryKind::Symlink { target })?;
    seal(parent, &EntryKind::Directory)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store_path::StorePath;

    fn own(text: &str) -> StoreHash {
        text.parse::<StorePath>().unwrap().hash()
    }

    const OWN: &str = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-a";
    const OTHER: &str = "1mdqa9w1p6cmli6976v4wi0sw9r4p5pr-a";

    fn hash(pieces: &[&[u8]], path: Option<&str>) -> Modulo {
        let mut hasher = ModuloHasher::new(path.map(own));
        for piece in pieces {
            hasher.write_all(piece).unwrap();
        }
        hasher.finish()
    }

    #[test]
    fn the_value_follows_the_published_scheme() {
        let text = format!("a {OWN} b {OWN}");
        let zeros = "\0".repeat(HASH_CHARS);
        let modulo = hash(&[text.as_bytes()], Some(OWN));
        let expected = format!("a {zeros}-a b {zeros}-a|2|39");
        assert_eq!(modulo.hash, Digest::of(expected.as_bytes()));
        assert_eq!((modulo.size, modulo.occurrences), (text.len() as u64, 2));
        let plain = hash(&[text.as_bytes()], Some(OTHER));
        assert_eq!((plain.hash, plain.occurrences), (Digest::of(text.as_bytes()), 0));
    }

    #[test]
    fn zeros_are_no_occurrence() {
        let zeros = [0; HASH_CHARS];
        let hashes = [&zeros[..], OWN.as_bytes()].map(|bytes| hash(&[&bytes[..HASH_CHARS]], Some(OWN)).hash);
        assert_ne!(hashes[0], hashes[1]);
    }

    proptest! {
        #[test]
        fn neither_the_path_nor_the_pieces_matter(
            parts in proptest::collection::vec(prop_oneof![Just(None), "[0-9a-z]{0,40}".prop_map(Some)], 0..12),
            cuts in proptest::collection::vec(1usize..50, 1..6),
        ) {
            let spell = |path: &str| -> String {
                parts.iter().map(|part| part.clone().unwrap_or_else(|| path.to_owned())).collect()
            };
            let whole = hash(&[spell(OWN).as_bytes()], Some(OWN));
            let text = spell(OTHER);
            let mut pieces = Vec::new();
            let mut rest = text.as_bytes();
            for &cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            let cut = hash(&pieces, Some(OTHER));
            prop_assert_eq!(
                (whole.hash, whole.size, whole.occurrences),
                (cut.hash, cut.size, cut.occurrences)
            );
        }
    }
}
