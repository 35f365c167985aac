//! The *layer cache* keeps packed pieces (one store path or one tree each) and records of layers made of them.
//!
//! Invariant: an entry appears whole by rename, under a key that covers all that its bytes depend on, and is
//! believed only after its checksum was verified; a damaged entry is as good as a missing one. Entries are
//! never changed. The cache may lose any entry at any time and nothing but time is lost.
//!
//! `DIR/pieces/ab/cdef…` holds packed bytes followed by an index (JSON: sizes, CRC-32, lengths of the blocks),
//! the index's SHA-256, its length and a magic. `DIR/layers/ab/cdef…` holds one line with a SHA-256 and the
//! record (JSON) that it is of. `DIR/lock` is held shared by users and exclusively by [`LayerCache::trim`].
//! Least recently used means oldest modification time: a use sets it to the kernel's present.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::{DiffId, Digest};
use crate::fsio::{self, AtomicFile, Disposable, FileLock, IoContext, LockKind, PathError};

const MAGIC: &[u8; 8] = b"lzpiece1";
/// Index digest, index length and magic.
const TAIL: u64 = 32 + 8 + 8;
/// An index or record larger than this is taken for damage: a 4 TiB piece has one of about 30 MB.
const MAX_INDEX: u64 = 64 << 20;

/// A directory of packed pieces and layer records. No process can trim it while this or a clone lives.
#[derive(Debug, Clone)]
pub struct LayerCache {
    dir: PathBuf,
    lock: Arc<FileLock>,
}

/// What [`LayerCache::trim`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trimmed {
    /// Bytes of all entries before.
    pub before: u64,
    /// Bytes of all entries after.
    pub after: u64,
    /// Whether nothing could be removed because the cache is in use, here or by another process.
    pub busy: bool,
}

/// What a piece's bytes are, as its index says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PieceIndex {
    /// Packed bytes.
    pub size: u64,
    /// CRC-32 of the packed bytes (the layer's digest is the second check, when it is read).
    pub crc32: u32,
    /// Tar bytes.
    pub tar_size: u64,
    /// Packed length of each block, in order.
    pub blocks: Vec<u32>,
}

/// A layer's digests and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    pub diff_id: DiffId,
    pub digest: Digest,
    pub size: u64,
    pub tar_size: u64,
    pub parts: Vec<PartRecord>,
}

/// A part of a layer's blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PartRecord {
    /// The packed bytes of a piece in the cache, whose file has `file_size` bytes.
    Piece { key: Digest, size: u64, file_size: u64 },
    /// Few bytes, here (hexadecimal).
    Bytes(String),
}

impl LayerCache {
    /// Opens the cache in `dir`, creating it where it is missing.
    pub fn open(dir: &Path) -> Result<Self, PathError> {
        fsio::create_dir_all(&dir.join("pieces"))?;
        fsio::create_dir_all(&dir.join("layers"))?;
        let lock = FileLock::acquire(&dir.join("lock"), LockKind::Shared)?;
        Ok(Self {
            dir: dir.to_owned(),
            lock: Arc::new(lock),
        })
    }

    /// Removes the least recently used entries until at most `max_size` bytes remain, and what killed writers
    /// left. Does nothing while layers of this cache are alive or another process uses it.
    pub fn trim(&mut self, max_size: u64) -> Result<Trimmed, PathError> {
        let mut entries = self.entries()?;
        let before = entries.iter().map(|entry| entry.size).sum();
        let busy = Trimmed {
            before,
            after: before,
            busy: true,
        };
        let mut trimmed = busy;
        self.alone(|cache| {
            entries = cache.entries()?;
            entries.sort();
            trimmed = remove_oldest(&entries, max_size)?;
            Ok(())
        })?;
        Ok(trimmed)
    }

    /// Removes entries that nobody used since they were listed; false where none was, because the cache is in use, here or
    /// by another process.
    pub fn remove(&mut self, entries: &[Disposable]) -> Result<bool, PathError> {
        self.alone(|_| {
            let unused = entries
                .iter()
                .filter(|entry| fsio::last_use(&entry.path) == Some(entry.used));
            unused
                .map(|entry| &entry.path)
                .try_for_each(|path| fsio::remove_tree(path))
        })
    }

    /// Does something while nobody else has the cache open; false where it was not done, because somebody has.
    fn alone(&mut self, work: impl FnOnce(&Self) -> Result<(), PathError>) -> Result<bool, PathError> {
        if Arc::strong_count(&self.lock) > 1 {
            return Ok(false);
        }
        // Our own shared lock would exclude an exclusive one: it is converted, and back again.
        let is_alone = self.lock.file().try_lock().is_ok();
        let result = if is_alone { work(self) } else { Ok(()) };
        self.lock.file().lock_shared().context("lock", self.dir.join("lock"))?;
        result.map(|()| is_alone)
    }

    /// Where a piece is or would be.
    pub(super) fn piece_path(&self, key: &Digest) -> PathBuf {
        self.entry_path("pieces", key)
    }

    fn entry_path(&self, kind: &str, key: &Digest) -> PathBuf {
        let hex = key.hex();
        self.dir.join(kind).join(&hex[..2]).join(&hex[2..])
    }

    /// Opens a piece, its index verified; `None` where it is missing or damaged (then it is removed).
    pub(super) fn open_piece(&self, key: &Digest) -> Option<(File, PieceIndex)> {
        let path = self.piece_path(key);
        let mut file = File::open(&path).ok()?;
        match read_index(&mut file) {
            Ok(index) => {
                fsio::note_use(&path);
                Some((file, index))
            }
            Err(_) => {
                self.remove_piece(key);
                None
            }
        }
    }

    /// Begins a piece.
    pub(super) fn create_piece(&self, key: &Digest) -> Result<AtomicFile, PathError> {
        let path = self.piece_path(key);
        if let Some(parent) = path.parent() {
            fsio::create_dir_all(parent)?;
        }
        AtomicFile::create(&path)
    }

    /// Ends a piece whose packed bytes were written; gives the size of its file.
    pub(super) fn publish_piece(
        &self,
        mut file: AtomicFile,
        key: &Digest,
        index: &PieceIndex,
    ) -> Result<u64, PathError> {
        let path = self.piece_path(key);
        let tail = encode_tail(index).context("describe", &path)?;
        file.write_all(&tail).context("write", &path)?;
        file.publish_unsynced()?;
        Ok(index.size + tail.len() as u64)
    }

    /// Forgets a piece.
    pub(super) fn remove_piece(&self, key: &Digest) {
        // Where it cannot be removed, its checksum keeps it from being used.
        let _ = std::fs::remove_file(self.piece_path(key));
    }

    /// The record of a layer, if all its pieces are there. No piece is opened.
    pub(super) fn layer(&self, key: &Digest) -> Option<LayerRecord> {
        let path = self.entry_path("layers", key);
        let record = decode_record(&fsio::read_limited(&path, MAX_INDEX).ok()?)?;
        for part in &record.parts {
            let PartRecord::Piece { key, file_size, .. } = part else {
                continue;
            };
            let piece = self.piece_path(key);
            if std::fs::metadata(&piece).ok()?.len() != *file_size {
                return None;
            }
            fsio::note_use(&piece);
        }
        fsio::note_use(&path);
        Some(record)
    }

    /// Keeps the record of a layer.
    pub(super) fn put_layer(&self, key: &Digest, record: &LayerRecord) -> Result<(), PathError> {
        let path = self.entry_path("layers", key);
        if let Some(parent) = path.parent() {
            fsio::create_dir_all(parent)?;
        }
        let json = serde_json::to_vec(record)
            .map_err(io::Error::from)
            .context("describe", &path)?;
        let mut file = AtomicFile::create(&path)?;
        let line = format!("{}\n", Digest::of(&json).hex());
        file.write_all(line.as_bytes()).context("write", &path)?;
        file.write_all(&json).context("write", &path)?;
        file.publish_unsynced()
    }

    /// Forgets a layer, and those of its pieces whose bytes are not what their indexes say.
    pub(super) fn evict(&self, key: &Digest, record: &LayerRecord) {
        let _ = std::fs::remove_file(self.entry_path("layers", key));
        for part in &record.parts {
            let PartRecord::Piece { key, .. } = part else { continue };
            let sound = self
                .open_piece(key)
                .is_some_and(|(file, index)| verify_piece(file, &index));
            if !sound {
                self.remove_piece(key);
            }
        }
    }

    fn entries(&self) -> Result<Vec<StoredLayer>, PathError> {
        let mut entries = Vec::new();
        for kind in ["layers", "pieces"] {
            for shard in fsio::sorted_names(&self.dir.join(kind))? {
                let dir = self.dir.join(kind).join(shard);
                for name in fsio::sorted_names(&dir)? {
                    let path = dir.join(name);
                    // Another process may just have removed a damaged one.
                    if let Ok(metadata) = std::fs::symlink_metadata(&path) {
                        entries.push(StoredLayer {
                            used: (metadata.mtime(), metadata.mtime_nsec()),
                            size: metadata.len(),
                            path,
                        });
                    }
                }
            }
        }
        Ok(entries)
    }
}

/// A file of the cache, ordered by age.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct StoredLayer {
    used: (i64, i64),
    path: PathBuf,
    size: u64,
}

/// `entries` are sorted from the least recently used. Nobody else uses the cache: unfinished files are dead.
fn remove_oldest(entries: &[StoredLayer], max_size: u64) -> Result<Trimmed, PathError> {
    let before: u64 = entries.iter().map(|entry| entry.size).sum();
    let mut after = before;
    for entry in entries {
        let unfinished = entry
            .path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if unfinished || after > max_size {
            std::fs::remove_file(&entry.path).context("remove", &entry.path)?;
            after -= entry.size;
        }
    }
    Ok(Trimmed {
        before,
        after,
        busy: false,
    })
}

fn encode_tail(index: &PieceIndex) -> io::Result<Vec<u8>> {
    let mut tail = serde_json::to_vec(index)?;
    let (digest, length) = (Digest::of(&tail), tail.len() as u64);
    tail.extend_from_slice(digest.as_bytes());
    tail.extend_from_slice(&length.to_le_bytes());
    tail.extend_from_slice(MAGIC);
    Ok(tail)
}

/// Reads and verifies the index at the file's end, and leaves the file at its beginning.
fn read_index(file: &mut File) -> io::Result<PieceIndex> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "damaged index");
    let file_size = file.metadata()?.len();
    let tail_at = file_size.checked_sub(TAIL).ok_or_else(damaged)?;
    file.seek(SeekFrom::Start(tail_at))?;
    let mut tail = [0; TAIL as usize];
    file.read_exact(&mut tail)?;
    let mut length = [0; 8];
    length.copy_from_slice(&tail[32..40]);
    let length = u64::from_le_bytes(length);
    if &tail[40..] != MAGIC || length > MAX_INDEX || length > tail_at {
        return Err(damaged());
    }
    let mut json = vec![0; length as usize];
    file.seek(SeekFrom::Start(tail_at - length))?;
    file.read_exact(&mut json)?;
    if Digest::of(&json).as_bytes() != &tail[..32] {
        return Err(damaged());
    }
    let index: PieceIndex = serde_json::from_slice(&json)?;
    let total: u64 = index.blocks.iter().map(|&block| u64::from(block)).sum();
    if index.size != total || index.size + length + TAIL != file_size {
        return Err(damaged());
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(index)
}

fn decode_record(bytes: &[u8]) -> Option<LayerRecord> {
    let newline = bytes.iter().position(|&byte| byte == b'\n')?;
    let (line, json) = (std::str::from_utf8(&bytes[..newline]).ok()?, &bytes[newline + 1..]);
    (Digest::from_hex(line).ok()? == Digest::of(json)).then(|| serde_json::from_slice(json).ok())?
}

fn verify_piece(file: File, index: &PieceIndex) -> bool {
    let mut crc = libdeflater::Crc::new();
    let mut buffer = vec![0; 1 << 17];
    let mut packed = file.take(index.size);
    loop {
        match packed.read(&mut buffer) {
            Ok(0) => return packed.limit() == 0 && crc.sum() == index.crc32,
            Ok(count) => crc.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_cache_record() {
        crate::testing::fuzz("cache-record", |bytes| {
            // What was written and not damaged is preceded by its digest.
            let whole = [crate::digest::Digest::of(bytes).hex().as_bytes(), b"\n", bytes].concat();
            let _ = super::decode_record(&whole);
            let _ = super::decode_record(bytes);
            let _ = serde_json::from_slice::<super::PieceIndex>(bytes);
        });
    }
}
