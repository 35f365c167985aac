//! The *download cache*: files by their SHA-256, `CACHE/sha256/<hex>`; and under the other hashes by which locks know
//! files, `CACHE/known-by/<scheme>-<hex>`, the SHA-256 of each.
//!
//! Invariant: a file appears under its digest whole and verified, by rename. A file found there is read and
//! verified again before it is given out ([`Cache::lookup`]), by the very hash that it is wanted by: the hash of 100 MB takes
//! 0.1 s, a fetch happens only for what the store does not have yet, and a disk that went bad must not reach a build. A file
//! that does not verify is removed and counts as missing.
//!
//! A file on its way stands beside the others as `<hex>.part` (`<scheme>-<hex>.part` where it is known by another hash),
//! written only under the lock of that ([`Cache::lock`]); what a killed process left of one is replaced by the next that
//! wants it. One whose digest is not known yet is `unpinned-*.part`, locked by who writes it. Whoever opens the cache removes
//! those that nobody writes any more.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::FetchError;
use super::unpack::{UnpackError, hash_go_module};
use crate::digest::{Digest, DigestMismatch, FileHash, GoHash, Hasher, HashingWriter, VerifyError, VerifyingReader};
use crate::event::{Event, Reporter};
use crate::fsio::{self, FileLock, IoContext, LockKind, note_use};

/// Most bytes of a download whose size is not known.
pub(super) const SIZE_MAX: u64 = 64 << 30;

/// How many bytes arrive between two reports of progress.
const PROGRESS_STEP: u64 = 1 << 20;

/// What the name of a file begins with whose digest is not known yet.
const UNPINNED: &str = "unpinned-";

/// Directory of the files in a cache.
const FILES: &str = "sha256";

/// Directory of what files are known by beside their SHA-256.
const KNOWN_BY: &str = "known-by";

/// Most bytes of a Go module's zip, and of a `go.mod`, as Go has it (golang.org/x/mod/zip).
const GO_ZIP_MAX: u64 = 500 << 20;
const GO_MOD_MAX: u64 = 16 << 20;

/// Where the file of a digest is, or would be, in the cache in `dir`.
pub(super) fn path_in(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(FILES).join(digest.hex())
}

/// The SHA-256 of the file that a hash knows, as far as the cache in `dir` has been told; unverified.
pub(super) fn sha256_in(dir: &Path, hash: &FileHash) -> Option<Digest> {
    hash.sha256().or_else(|| sha256_of(&dir.join(KNOWN_BY).join(key(hash))))
}

fn sha256_of(note: &Path) -> Option<Digest> {
    let text = fsio::read_limited(note, NOTE_MAX).ok()?;
    Digest::from_hex(std::str::from_utf8(&text).ok()?.trim_end()).ok()
}

/// Largest note of what a hash knows, in bytes.
const NOTE_MAX: u64 = 80;

/// What a hash is called among locks and files on their way: a SHA-256 by its digits alone.
fn key(hash: &FileHash) -> String {
    match hash.sha256() {
        Some(digest) => digest.hex(),
        None => format!("{}-{}", hash.scheme(), hash.hex()),
    }
}

/// What a file must be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub hash: FileHash,
    pub size: Option<u64>,
}

/// Where bytes come from and what they are called, for messages.
#[derive(Clone, Copy)]
pub(super) struct Labels<'a> {
    pub name: &'a str,
    pub origin: &'a str,
}

/// A file in the cache.
pub(super) enum Stored {
    /// A whole one.
    File { digest: Digest, path: PathBuf },
    /// One on its way, and the file whose lock its writer holds.
    Part { path: PathBuf, lock: PathBuf },
}

/// Downloads by digest.
pub(super) struct Cache {
    files: PathBuf,
    known_by: PathBuf,
    locks: PathBuf,
}

/// What the cache was told of a hash.
pub(super) struct Known {
    pub hash: FileHash,
    /// The digest of the file that it knows; `None` where the note is damaged.
    pub sha256: Option<Digest>,
    path: PathBuf,
}

impl Cache {
    /// Opens the cache in `dir`, creating what is missing.
    pub(super) fn open(dir: &Path) -> Result<Self, FetchError> {
        let cache = Self::at(dir);
        for dir in [&cache.files, &cache.known_by, &cache.locks] {
            fsio::create_dir_all(dir)?;
        }
        cache.sweep()?;
        Ok(cache)
    }

    /// The cache in `dir`, if there is one.
    pub(super) fn existing(dir: &Path) -> Option<Self> {
        let cache = Self::at(dir);
        (cache.files.is_dir() && cache.locks.is_dir()).then_some(cache)
    }

    fn at(dir: &Path) -> Self {
        Self {
            files: dir.join(FILES),
            known_by: dir.join(KNOWN_BY),
            locks: dir.join("locks"),
        }
    }

    /// What hashes other than SHA-256 know; things of others are left out.
    pub(super) fn known(&self) -> Result<Vec<Known>, FetchError> {
        if !self.known_by.is_dir() {
            return Ok(Vec::new());
        }
        let known = |name: &str| {
            let (scheme, hex) = name.rsplit_once('-')?;
            let path = self.known_by.join(name);
            Some(Known {
                hash: FileHash::from_hex(scheme, hex)?,
                sha256: sha256_of(&path),
                path,
            })
        };
        let names = fsio::sorted_names(&self.known_by)?;
        Ok(names.iter().filter_map(|name| known(name.to_str()?)).collect())
    }

    /// Forgets what a hash knows, unless somebody is about to tell it anew.
    pub(super) fn forget(&self, known: &Known) -> Result<(), FetchError> {
        let lock = self.locks.join(key(&known.hash));
        if let Some(_held) = FileLock::try_acquire(&lock, LockKind::Exclusive)? {
            fsio::remove_tree(&known.path)?;
        }
        Ok(())
    }

    /// What is in the cache, sorted; things of others are left out.
    pub(super) fn stored(&self) -> Result<Vec<Stored>, FetchError> {
        let stored = |name: &str| {
            let path = self.files.join(name);
            match name.strip_suffix(".part") {
                // Of a pinned one the lock of its digest tells; of another the file itself is locked.
                Some(stem) if stem.starts_with(UNPINNED) => Some(Stored::Part {
                    lock: path.clone(),
                    path,
                }),
                Some(stem) => Some(Stored::Part {
                    lock: self.locks.join(stem),
                    path,
                }),
                None => Digest::from_hex(name).ok().map(|digest| Stored::File { digest, path }),
            }
        };
        let names = fsio::sorted_names(&self.files)?;
        Ok(names.iter().filter_map(|name| stored(name.to_str()?)).collect())
    }

    /// The file of a digest that is at `path`; `None` where that is something else.
    pub(super) fn file_at(&self, path: &Path) -> Option<Stored> {
        let name = path.file_name()?.to_str()?;
        let digest = Digest::from_hex(name).ok().filter(|digest| self.path(digest) == path)?;
        let path = path.to_owned();
        Some(Stored::File { digest, path })
    }

    /// Takes the lock of something in the cache; `None` where somebody is at it.
    pub(super) fn hold(&self, stored: &Stored) -> Result<Option<FileLock>, FetchError> {
        let lock = match stored {
            Stored::Part { lock, .. } => lock.clone(),
            Stored::File { digest, .. } => self.locks.join(digest.hex()),
        };
        Ok(FileLock::try_acquire(&lock, LockKind::Exclusive)?)
    }

    /// Removes what processes left that were killed, or interrupted for longer than they were given to clean up.
    fn sweep(&self) -> Result<(), FetchError> {
        for stored in self.stored()? {
            if let Stored::Part { path, .. } = &stored
                && let Some(_held) = self.hold(&stored)?
            {
                fsio::remove_tree(path)?;
            }
        }
        Ok(())
    }

    /// Waits until no other process or thread downloads the file of `hash`. Look it up again after.
    pub(super) fn lock(&self, hash: &FileHash) -> Result<FileLock, FetchError> {
        let path = self.locks.join(key(hash));
        Ok(FileLock::acquire(&path, LockKind::Exclusive)?)
    }

    /// The verified file of `expected`, if it is there; a damaged one is removed.
    pub(super) fn lookup(&self, expected: Expected, reporter: &dyn Reporter) -> Result<Option<PathBuf>, FetchError> {
        let note = self.known_by.join(key(&expected.hash));
        let Some(digest) = expected.hash.sha256().or_else(|| sha256_of(&note)) else {
            return Ok(None);
        };
        let path = self.path(&digest);
        // First: a collection that looks at it from now on spares it, and one that did before has removed it by the time
        // that it is read.
        note_use(&path);
        if verify(&path, &expected.hash)? {
            return Ok(Some(path));
        }
        if !path.exists() {
            return Ok(None);
        }
        let text = format!("`{}` is damaged; it is downloaded again", path.display());
        reporter.report(Event::Warning { text });
        // Where the file is what its name says, it is the note that is wrong.
        if expected.hash.sha256().is_some() || !verify(&path, &digest.into())? {
            fsio::remove_tree(&path)?;
        }
        if expected.hash.sha256().is_none() {
            fsio::remove_tree(&note)?;
        }
        Ok(None)
    }

    /// Writes a file from `content`, verified while it streams; the caller holds the hash's lock. What is not
    /// `expected` leaves nothing.
    pub(super) fn insert(
        &self,
        expected: Expected,
        content: &mut dyn Read,
        labels: Labels<'_>,
        reporter: &dyn Reporter,
    ) -> Result<PathBuf, FetchError> {
        let mut part = self.part(&key(&expected.hash), 0)?;
        let (own, limit) = match &expected.hash {
            FileHash::Content(digest) => (digest.sha256(), SIZE_MAX),
            FileHash::GoModule(_) => (None, GO_ZIP_MAX),
            FileHash::GoMod(_) => (None, GO_MOD_MAX),
        };
        let mut verified;
        let content = match expected.hash.content() {
            Some(digest) => {
                verified = VerifyingReader::new(content, digest, expected.size);
                &mut verified
            }
            None => content,
        };
        let mut hasher = Hasher::new();
        let mut observe = |bytes: &[u8]| {
            if own.is_none() {
                hasher.update(bytes);
            }
        };
        let size = receive(&mut part, content, &mut observe, limit, labels, reporter)?;
        let digest = own.unwrap_or_else(|| hasher.digest());
        check_go_hash(part.path(), &expected, (digest, size), labels)?;
        let path = self.publish(part, &digest, size, labels, reporter)?;
        if own.is_none() {
            let note = self.known_by.join(key(&expected.hash));
            fsio::write_atomic(&note, format!("{}\n", digest.hex()).as_bytes())?;
        }
        Ok(path)
    }

    /// Writes a file whose digest is not known yet; gives it, and its size in bytes.
    pub(super) fn insert_unpinned(
        &self,
        content: &mut dyn Read,
        labels: Labels<'_>,
        reporter: &dyn Reporter,
    ) -> Result<(Digest, u64), FetchError> {
        let mut hasher = Hasher::new();
        let mut part = self.unpinned_part()?;
        let mut observe = |bytes: &[u8]| hasher.update(bytes);
        let size = receive(&mut part, content, &mut observe, SIZE_MAX, labels, reporter)?;
        let digest = hasher.digest();
        self.publish(part, &digest, size, labels, reporter)?;
        Ok((digest, size))
    }

    /// Whether the file of a digest is there, unverified.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Writes a file that is made here, by `make`; gives it, its digest and its size in bytes. One that is not `expected`,
    /// where that is known, leaves nothing.
    pub(super) fn insert_made(
        &self,
        expected: Option<&Digest>,
        make: &mut dyn FnMut(&mut dyn Write) -> Result<(), FetchError>,
        labels: Labels<'_>,
        reporter: &dyn Reporter,
    ) -> Result<(PathBuf, Digest, u64), FetchError> {
        let mut part = self.unpinned_part()?;
        let mut writer = HashingWriter::new(BufWriter::with_capacity(1 << 17, &mut part));
        make(&mut writer)?;
        let (writer, hasher, size) = writer.finish();
        let flushed = writer.into_inner().map(drop).map_err(io::IntoInnerError::into_error);
        flushed.context("write", part.path())?;
        let digest = hasher.digest();
        match expected {
            Some(expected) if *expected != digest => Ok((self.path(&digest), digest, size)),
            _ => Ok((self.publish(part, &digest, size, labels, reporter)?, digest, size)),
        }
    }

    /// A new file whose digest is not known yet. Until it has its name, its lock tells others that it is being written.
    fn unpinned_part(&self) -> Result<NamedTempFile, FetchError> {
        let part = self.part(UNPINNED, 8)?;
        part.as_file()
            .try_lock()
            .map_err(io::Error::from)
            .context("lock", part.path())?;
        Ok(part)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.files.join(digest.hex())
    }

    /// A new file to be written, removed when dropped unpublished.
    fn part(&self, name: &str, random: usize) -> Result<NamedTempFile, FetchError> {
        if random == 0 {
            fsio::remove_tree(&self.files.join(format!("{name}.part")))?;
        }
        let part = tempfile::Builder::new()
            .prefix(name)
            .rand_bytes(random)
            .suffix(".part")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(&self.files);
        Ok(part.context("create a temporary file in", &self.files)?)
    }

    fn publish(
        &self,
        temp: NamedTempFile,
        digest: &Digest,
        size: u64,
        labels: Labels<'_>,
        reporter: &dyn Reporter,
    ) -> Result<PathBuf, FetchError> {
        let path = self.path(digest);
        temp.persist(&path)
            .map_err(|error| error.error)
            .context("rename a temporary file to", &path)?;
        reporter.report(Event::FetchFinished {
            name: labels.name.to_owned(),
            bytes: size,
            from: labels.origin.to_owned(),
        });
        Ok(path)
    }
}

/// Whether a file is there and has a hash.
fn verify(path: &Path, hash: &FileHash) -> Result<bool, FetchError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).context("open", path)?,
    };
    // Of a `go.mod` the digest of the bytes is the whole of it; of a zip it is no part.
    let digest = match hash {
        FileHash::Content(digest) => *digest,
        FileHash::GoModule(wanted) => {
            return match hash_go_module(path) {
                Ok(actual) => Ok(actual == *wanted),
                Err(UnpackError::Io(error)) => Err(error.into()),
                Err(_) => Ok(false),
            };
        }
        FileHash::GoMod(wanted) => {
            let mut sink = HashingWriter::new(io::sink());
            io::copy(&mut file.take(GO_MOD_MAX), &mut sink).context("read", path)?;
            return Ok(GoHash::of_go_mod(sink.finish().1.digest()) == *wanted);
        }
    };
    match io::copy(&mut VerifyingReader::new(file, digest, None), &mut io::sink()) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(false),
        Err(error) => Err(error).context("read", path)?,
    }
}

/// Compares a file of this machine with what is expected.
pub(super) fn compare(path: &Path, expected: Expected, labels: Labels<'_>) -> Result<(), FetchError> {
    let file = File::open(path).context("open", path)?;
    let mut hashing = HashingWriter::new(io::sink());
    let copied = match expected.hash.content() {
        Some(digest) => io::copy(&mut VerifyingReader::new(file, digest, expected.size), &mut hashing),
        None => io::copy(&mut file.take(GO_ZIP_MAX), &mut hashing),
    };
    copied.map_err(|error| read_error(error, labels))?;
    let (_, hasher, size) = hashing.finish();
    check_go_hash(path, &expected, (hasher.digest(), size), labels)
}

/// Compares a received file with the hash that Go knows it by, which reading it did not; `received` is its SHA-256 and size.
fn check_go_hash(
    path: &Path,
    expected: &Expected,
    received: (Digest, u64),
    labels: Labels<'_>,
) -> Result<(), FetchError> {
    let (digest, actual) = received;
    let (name, origin) = (labels.name.to_owned(), labels.origin.to_owned());
    if let Some(expected) = expected.size.filter(|&expected| expected != actual) {
        return Err(FetchError::Size {
            name,
            origin,
            expected,
            actual,
        });
    }
    let actual = match &expected.hash {
        FileHash::Content(_) => return Ok(()),
        FileHash::GoMod(_) => FileHash::GoMod(GoHash::of_go_mod(digest)),
        FileHash::GoModule(_) => match hash_go_module(path) {
            Ok(hash) => FileHash::GoModule(hash),
            Err(UnpackError::Io(error)) => return Err(error.into()),
            Err(source) => {
                let source = Box::new(source);
                return Err(FetchError::NoModule { name, origin, source });
            }
        },
    };
    if actual == expected.hash {
        return Ok(());
    }
    let mismatch = Box::new(DigestMismatch {
        expected: expected.hash,
        actual,
    });
    Err(FetchError::Digest { name, origin, mismatch })
}

/// Writes `content` to `part`, showing its bytes to `observe`; gives its size in bytes.
fn receive(
    part: &mut NamedTempFile,
    content: &mut dyn Read,
    observe: &mut dyn FnMut(&[u8]),
    limit: u64,
    labels: Labels<'_>,
    reporter: &dyn Reporter,
) -> Result<u64, FetchError> {
    let (mut size, mut reported) = (0u64, 0u64);
    let mut buffer = vec![0; 1 << 17];
    loop {
        let count = match content.read(&mut buffer) {
            Ok(0) => return Ok(size),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read_error(error, labels)),
        };
        part.write_all(&buffer[..count]).context("write", part.path())?;
        observe(&buffer[..count]);
        size += count as u64;
        if size > limit {
            let url = labels.origin.to_owned();
            return Err(FetchError::TooLarge { url, limit });
        }
        if size - reported >= PROGRESS_STEP {
            reported = size;
            let name = labels.name.to_owned();
            reporter.report(Event::FetchProgress { name, bytes: size });
        }
    }
}

/// Tells bytes that arrived and are wrong from bytes that did not arrive.
pub(super) fn read_error(error: io::Error, labels: Labels<'_>) -> FetchError {
    let (name, origin) = (labels.name.to_owned(), labels.origin.to_owned());
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<VerifyError>());
    match inner.cloned() {
        Some(VerifyError::Size { expected, actual }) => FetchError::Size {
            name,
            origin,
            expected,
            actual,
        },
        Some(VerifyError::Digest(mismatch)) => FetchError::Digest { name, origin, mismatch },
        None => FetchError::Interrupted {
            url: origin,
            source: Box::new(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::digest::ContentDigest;
    use crate::event::Silent;
    use crate::fetch::Answer;
    use crate::fetch::unpack::tests::zips::zipped;

    const LABELS: Labels<'static> = Labels {
        name: "x",
        origin: "somewhere",
    };

    fn expected(bytes: &[u8]) -> Expected {
        Expected {
            hash: Digest::of(bytes).into(),
            size: Some(bytes.len() as u64),
        }
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        (dir, cache)
    }

    #[test]
    fn what_was_inserted_is_found() {
        let (_dir, cache) = cache();
        assert!(cache.lookup(expected(b"abc"), &Silent).unwrap().is_none());
        let path = cache
            .insert(expected(b"abc"), &mut &b"abc"[..], LABELS, &Silent)
            .unwrap();
        assert_eq!(cache.lookup(expected(b"abc"), &Silent).unwrap(), Some(path.clone()));
        assert_eq!(fs::read(path).unwrap(), b"abc");
        let (digest, size) = cache.insert_unpinned(&mut &b"new"[..], LABELS, &Silent).unwrap();
        assert_eq!((digest, size), (Digest::of(b"new"), 3));
        assert!(cache.lookup(expected(b"new"), &Silent).unwrap().is_some());
    }

    #[test]
    fn wrong_bytes_leave_nothing() {
        let (_dir, cache) = cache();
        for (bytes, message) in [
            (
                &b"abd"[..],
                "`somewhere` served different content for `x`: expected sha256:ba78",
            ),
            (b"ab", "`somewhere` served 2 bytes for `x`, expected 3"),
            (b"abcd", "`somewhere` served 4 bytes for `x`, expected 3"),
        ] {
            let error = cache
                .insert(expected(b"abc"), &mut { bytes }, LABELS, &Silent)
                .unwrap_err();
            assert!(error.to_string().starts_with(message), "{error}");
        }
        assert!(fsio::sorted_names(&cache.files).unwrap().is_empty());
    }

    /// The ways in which a lock may know a file: each with the bytes.
    fn all_hashes() -> [(FileHash, Vec<u8>); 4] {
        let go_mod = b"module golang.org/x/text\n".to_vec();
        let zip = zipped(&[("m@v1/go.mod", 0o100_644, "module m\n")]);
        let h1 = GoHash::of_files([("m@v1/go.mod".to_owned(), Digest::of(b"module m\n"))]).unwrap();
        [
            (Digest::of(b"abc").into(), b"abc".to_vec()),
            (
                ContentDigest::Sha512([0; 64]).same_algorithm(b"abc").into(),
                b"abc".to_vec(),
            ),
            (FileHash::GoMod(GoHash::of_go_mod(Digest::of(&go_mod))), go_mod),
            (FileHash::GoModule(h1), zip),
        ]
    }

    #[test]
    fn a_file_is_kept_by_its_sha256_whatever_it_is_known_by() {
        for (hash, bytes) in all_hashes() {
            let (dir, cache) = cache();
            let expected = Expected { hash, size: None };
            assert_eq!(cache.lookup(expected, &Silent).unwrap(), None);
            for wrong in [&b"abd"[..], b"", &bytes[1..]] {
                let error = cache.insert(expected, &mut { wrong }, LABELS, &Silent).unwrap_err();
                assert_eq!(Answer::about(&error), Some(Answer::OtherContent), "{error}");
            }
            let wrong = Expected { hash, size: Some(2) };
            let error = cache.insert(wrong, &mut bytes.as_slice(), LABELS, &Silent).unwrap_err();
            assert!(matches!(error, FetchError::Size { .. }), "{error}");
            assert!(fsio::sorted_names(&cache.files).unwrap().is_empty(), "{hash}");
            assert_eq!(sha256_in(&dir.path().join("cache"), &hash), hash.sha256());

            let path = cache.insert(expected, &mut bytes.as_slice(), LABELS, &Silent).unwrap();
            let digest = Digest::of(&bytes);
            assert_eq!(path, cache.path(&digest));
            assert_eq!(sha256_in(&dir.path().join("cache"), &hash), Some(digest));
            for hash in [hash, digest.into()] {
                let found = cache.lookup(Expected { hash, size: None }, &Silent).unwrap();
                assert_eq!(found.as_ref(), Some(&path), "{hash}");
            }
            // A file that went bad is no better for being known by another hash.
            fs::write(&path, "abd").unwrap();
            assert_eq!(cache.lookup(expected, &Silent).unwrap(), None);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_note_that_leads_to_another_file_is_dropped_and_the_file_stays() {
        for (hash, bytes) in all_hashes().into_iter().filter(|(hash, _)| hash.sha256().is_none()) {
            let (_dir, cache) = cache();
            let expected = Expected { hash, size: None };
            let path = cache.insert(expected, &mut bytes.as_slice(), LABELS, &Silent).unwrap();
            let other = cache
                .insert(super::tests::expected(b"other"), &mut &b"other"[..], LABELS, &Silent)
                .unwrap();
            let note = cache.known_by.join(key(&hash));
            for text in [Digest::of(b"other").hex(), "damaged".to_owned(), "0".repeat(10_000)] {
                fs::write(&note, &text).unwrap();
                assert_eq!(cache.lookup(expected, &Silent).unwrap(), None, "{text}");
                assert!(path.exists() && other.exists());
            }
            let again = cache.insert(expected, &mut bytes.as_slice(), LABELS, &Silent).unwrap();
            assert_eq!(cache.lookup(expected, &Silent).unwrap(), Some(again));
        }
    }

    #[test]
    fn what_a_killed_process_left_is_replaced() {
        let (_dir, cache) = cache();
        let part = cache.files.join(format!("{}.part", Digest::of(b"abc").hex()));
        fs::write(&part, "a").unwrap();
        cache
            .insert(expected(b"abc"), &mut &b"abc"[..], LABELS, &Silent)
            .unwrap();
        assert_eq!(fsio::sorted_names(&cache.files).unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_entry_is_removed() {
        let (_dir, cache) = cache();
        let path = cache
            .insert(expected(b"abc"), &mut &b"abc"[..], LABELS, &Silent)
            .unwrap();
        fs::write(&path, "abd").unwrap();
        assert!(cache.lookup(expected(b"abc"), &Silent).unwrap().is_none());
        assert!(!path.exists());
    }
}
