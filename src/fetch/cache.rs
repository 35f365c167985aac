//! The *download cache*: files by digest, `CACHE/sha256/<hex>`.
//!
//! Invariant: a file appears under its digest whole and verified, by rename. A file found there is read and
//! verified again before it is given out ([`Cache::lookup`]): the hash of 100 MB takes 0.1 s, a fetch happens
//! only for what the store does not have yet, and a disk that went bad must not reach a build. A file that
//! does not verify is removed and counts as missing.
//!
//! A file on its way stands beside the others as `<hex>.part`, written only under the lock of its digest
//! ([`Cache::lock`]); what a killed process left of one is replaced by the next that wants it. One whose digest is not known
//! yet is `unpinned-*.part`, locked by who writes it. Whoever opens the cache removes those that nobody writes any more.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::FetchError;
use crate::digest::{Digest, Hasher, VerifyError, VerifyingReader};
use crate::event::{Event, Reporter};
use crate::fsio::{self, FileLock, IoContext, LockKind};

/// Most bytes of a download whose size is not known.
pub(super) const SIZE_MAX: u64 = 64 << 30;

/// How many bytes arrive between two reports of progress.
const PROGRESS_STEP: u64 = 1 << 20;

/// What the name of a file begins with whose digest is not known yet.
const UNPINNED: &str = "unpinned-";

/// Directory of the files in a cache.
const FILES: &str = "sha256";

/// Where the file of a digest is, or would be, in the cache in `dir`.
pub(super) fn path_in(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(FILES).join(digest.hex())
}

/// What a file must be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub digest: Digest,
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

impl Stored {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File { path, .. } | Self::Part { path, .. } => path,
        }
    }
}

/// Downloads by digest.
pub(super) struct Cache {
    files: PathBuf,
    locks: PathBuf,
}

impl Cache {
    /// Opens the cache in `dir`, creating what is missing.
    pub(super) fn open(dir: &Path) -> Result<Self, FetchError> {
        let (files, locks) = (dir.join(FILES), dir.join("locks"));
        fsio::create_dir_all(&files)?;
        fsio::create_dir_all(&locks)?;
        let cache = Self { files, locks };
        cache.sweep()?;
        Ok(cache)
    }

    /// The cache in `dir`, if there is one.
    pub(super) fn existing(dir: &Path) -> Option<Self> {
        let (files, locks) = (dir.join(FILES), dir.join("locks"));
        (files.is_dir() && locks.is_dir()).then_some(Self { files, locks })
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

    /// Waits until no other process or thread downloads `digest`. Look it up again after.
    pub(super) fn lock(&self, digest: &Digest) -> Result<FileLock, FetchError> {
        let path = self.locks.join(digest.hex());
        Ok(FileLock::acquire(&path, LockKind::Exclusive)?)
    }

    /// The verified file of `expected`, if it is there; a damaged one is removed.
    pub(super) fn lookup(&self, expected: Expected, reporter: &dyn Reporter) -> Result<Option<PathBuf>, FetchError> {
        let path = self.path(&expected.digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("open", &path)?,
        };
        let mut reader = VerifyingReader::new(file, expected.digest, None);
        match io::copy(&mut reader, &mut io::sink()) {
            Ok(_) => {
                note_use(&path);
                Ok(Some(path))
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let text = format!("`{}` is damaged; it is downloaded again", path.display());
                reporter.report(Event::Warning { text });
                fs::remove_file(&path).context("remove", &path)?;
                Ok(None)
            }
            Err(error) => Err(error).context("read", &path)?,
        }
    }

    /// Writes a file from `content`, verified while it streams; the caller holds the digest's lock. What is not
    /// `expected` leaves nothing.
    pub(super) fn insert(
        &self,
        expected: Expected,
        content: &mut dyn Read,
        labels: Labels<'_>,
        reporter: &dyn Reporter,
    ) -> Result<PathBuf, FetchError> {
        let mut reader = VerifyingReader::new(content, expected.digest, expected.size);
        let mut part = self.part(&expected.digest.hex(), 0)?;
        let size = receive(&mut part, &mut reader, &mut |_| {}, labels, reporter)?;
        self.publish(part, &expected.digest, size, labels, reporter)
    }

    /// Writes a file whose digest is not known yet; gives it, and its size in bytes.
    pub(super) fn insert_unpinned(
        &self,
        content: &mut dyn Read,
        labels: Labels<'_>,
        reporter: &dyn Reporter,
    ) -> Result<(Digest, u64), FetchError> {
        let mut hasher = Hasher::new();
        let mut part = self.part(UNPINNED, 8)?;
        // Until it has its name, this tells others that it is being written.
        part.as_file()
            .try_lock()
            .map_err(io::Error::from)
            .context("lock", part.path())?;
        let size = receive(&mut part, content, &mut |bytes| hasher.update(bytes), labels, reporter)?;
        let digest = hasher.digest();
        self.publish(part, &digest, size, labels, reporter)?;
        Ok((digest, size))
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

/// Notes in its time of modification that a file is used: a collection spares it. A cache that is read-only is not collected.
fn note_use(path: &Path) {
    let now = rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_NOW,
    };
    let times = rustix::fs::Timestamps {
        last_access: now,
        last_modification: now,
    };
    let _ = rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty());
}

/// Writes `content` to `part`, showing its bytes to `observe`; gives its size in bytes.
fn receive(
    part: &mut NamedTempFile,
    content: &mut dyn Read,
    observe: &mut dyn FnMut(&[u8]),
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
        if size > SIZE_MAX {
            let url = labels.origin.to_owned();
            return Err(FetchError::TooLarge { url, limit: SIZE_MAX });
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
    use super::*;
    use crate::event::Silent;

    const LABELS: Labels<'static> = Labels {
        name: "x",
        origin: "somewhere",
    };

    fn expected(bytes: &[u8]) -> Expected {
        Expected {
            digest: Digest::of(bytes),
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
