//! A *blob* is where a layer's bytes as stored can be read.
//!
//! Invariant: a blob is a sequence of byte ranges; files that were made for it live as long as it does. What
//! it yields is unverified; [`Blob::open_verified`] and [`Blob::copy_to`] verify.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cache::{LayerCache, LayerRecord};
use super::pack::{PipeTarReader, pack};
use super::{LayerError, LayerInput, PackOptions, PackedLayer};
use crate::digest::{ContentDigest, Digest, VerifyError, VerifyingReader};
use crate::event::Silent;
use crate::fsio::{IoContext, PathError};
use crate::oci::{Compression, TarProfile};

/// Where a blob's bytes can be read.
#[derive(Debug, Clone)]
pub enum Blob {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// A part of a file that is not ours.
    File {
        /// The file.
        path: PathBuf,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// A part of a file that stays there for as long as `keep` lives: a temporary file, or one of the cache.
    Kept {
        /// The file.
        path: PathBuf,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
        /// Removes or releases the file when dropped.
        keep: Arc<Keep>,
    },
    /// The tar of a layer, made anew from the store while it is read.
    Tar {
        /// What the layer holds.
        input: Arc<LayerInput>,
        /// The dialect of its tar.
        profile: TarProfile,
        /// Number of bytes.
        len: u64,
    },
    /// A blob that lies in another image's place and is read only when it is needed.
    Elsewhere {
        /// The place.
        origin: Arc<dyn Origin>,
        /// Which of its blobs.
        digest: ContentDigest,
        /// Number of bytes.
        len: u64,
    },
    /// A blob that the image's place does not have: whoever wants it must get it from where its descriptor says.
    Absent {
        /// Number of bytes.
        len: u64,
    },
    /// Parts, one after the other.
    Parts(Vec<Blob>),
}

/// A place that holds blobs by digest: an archive, a layout, a repository of a registry.
pub trait Origin: std::fmt::Debug + Send + Sync {
    /// Opens a blob of `len` bytes; the reader may hold connections and files of its own.
    fn open(&self, digest: &ContentDigest, len: u64) -> io::Result<Box<dyn Read + Send>>;

    /// The registry's host and the repository that hold the blob, where the place is one: a push to the same
    /// registry mounts it from there, without reading it.
    fn repository(&self) -> Option<(&str, &str)> {
        None
    }
}

/// What keeps a [`Blob::Kept`] file there.
#[derive(Debug)]
pub enum Keep {
    /// A temporary file, removed when dropped.
    Temporary(tempfile::TempPath),
    /// A layer of the cache.
    Cached(Box<CachedLayer>),
}

/// A layer whose pieces are in the cache, with what is needed to pack it again.
#[derive(Debug)]
pub struct CachedLayer {
    pub(super) cache: LayerCache,
    pub(super) key: Digest,
    pub(super) record: LayerRecord,
    pub(super) input: LayerInput,
    pub(super) compression: Compression,
    pub(super) single_member: bool,
    pub(super) profile: TarProfile,
}

impl Blob {
    /// Number of bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { len, .. } | Self::Kept { len, .. } | Self::Tar { len, .. } => *len,
            Self::Elsewhere { len, .. } | Self::Absent { len } => *len,
            Self::Parts(parts) => parts.iter().map(Self::size).sum(),
        }
    }

    /// A reader of the bytes, **unverified**. A file that ends early is an error of kind `UnexpectedEof`; errors
    /// name the file. At most one file is open at a time.
    pub fn open(&self) -> BlobReader {
        let mut ranges = VecDeque::new();
        self.flatten(&mut ranges);
        BlobReader { ranges, current: None }
    }

    /// As [`open`](Self::open), from byte `at` on: files that end before it are not opened.
    pub fn open_at(&self, mut at: u64) -> io::Result<BlobReader> {
        let mut reader = self.open();
        while let Some(first) = reader.ranges.front_mut() {
            let size = first.size();
            if at >= size {
                at -= size;
                reader.ranges.pop_front();
                continue;
            }
            match first {
                Self::File { offset, len, .. } | Self::Kept { offset, len, .. } => {
                    *offset += at;
                    *len -= at;
                }
                // What is made or fetched while it is read has no other beginning.
                _ => {
                    io::copy(&mut reader.by_ref().take(at), &mut io::sink())?;
                }
            }
            break;
        }
        Ok(reader)
    }

    fn flatten(&self, ranges: &mut VecDeque<Self>) {
        match self {
            Self::Parts(parts) => parts.iter().for_each(|part| part.flatten(ranges)),
            range => ranges.push_back(range.clone()),
        }
    }
}

/// Reads a [`Blob`], unverified.
#[derive(Debug)]
pub struct BlobReader {
    ranges: VecDeque<Blob>,
    current: Option<Range>,
}

/// The range being read. Its blob is held so that its file is.
enum Range {
    Bytes {
        bytes: Arc<[u8]>,
        at: usize,
    },
    File {
        file: File,
        path: PathBuf,
        left: u64,
        _blob: Blob,
    },
    Tar(PipeTarReader),
    Elsewhere(Box<dyn Read + Send>),
}

impl std::fmt::Debug for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes { at, .. } => write!(f, "bytes from {at}"),
            Self::File { path, left, .. } => write!(f, "{left} bytes of `{}`", path.display()),
            Self::Tar(_) => f.write_str("a tar made anew"),
            Self::Elsewhere(_) => f.write_str("a blob that lies elsewhere"),
        }
    }
}

impl Range {
    fn open(blob: Blob) -> io::Result<Self> {
        let (path, offset, len) = match &blob {
            Blob::Bytes(bytes) => {
                return Ok(Self::Bytes {
                    bytes: bytes.clone(),
                    at: 0,
                });
            }
            Blob::File { path, offset, len } | Blob::Kept { path, offset, len, .. } => (path.clone(), *offset, *len),
            Blob::Tar { input, profile, .. } => {
                return Ok(Self::Tar(PipeTarReader::new(LayerInput::clone(input), *profile)));
            }
            Blob::Elsewhere { origin, digest, len } => return Ok(Self::Elsewhere(origin.open(digest, *len)?)),
            Blob::Absent { .. } => {
                let text = "it is kept elsewhere, and the image's place does not have it";
                return Err(io::Error::new(io::ErrorKind::NotFound, text));
            }
            Blob::Parts(_) => unreachable!("parts are flattened before they are read"),
        };
        let mut file = File::open(&path).map_err(|source| named("open", &path, source))?;
        if offset > 0 {
            file.seek(SeekFrom::Start(offset))
                .map_err(|source| named("seek in", &path, source))?;
        }
        Ok(Self::File {
            file,
            path,
            left: len,
            _blob: blob,
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Bytes { bytes, at } => {
                let count = (&bytes[*at..]).read(buffer)?;
                *at += count;
                Ok(count)
            }
            Self::Tar(tar) => tar.read(buffer),
            Self::Elsewhere(reader) => reader.read(buffer),
            Self::File { left: 0, .. } => Ok(0),
            Self::File { file, path, left, .. } => {
                let want = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                let count = file
                    .read(&mut buffer[..want])
                    .map_err(|source| named("read", path, source))?;
                if count == 0 {
                    return Err(named("read", path, io::ErrorKind::UnexpectedEof.into()));
                }
                *left -= count as u64;
                Ok(count)
            }
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(range) = &mut self.current {
                let count = range.read(buffer)?;
                if count > 0 {
                    return Ok(count);
                }
                self.current = None;
            }
            match self.ranges.pop_front() {
                None => return Ok(0),
                Some(blob) => self.current = Some(Range::open(blob)?),
            }
        }
    }
}

/// Reading a blob as the content that something names by `digest` and `size`.
impl Blob {
    /// A reader of the bytes that fails at end of file if they are not what `digest` and `size` (bytes) say.
    pub fn open_verified(&self, digest: impl Into<ContentDigest>, size: u64) -> VerifyingReader<BlobReader> {
        VerifyingReader::new(self.open(), digest, Some(size))
    }

    /// Writes the bytes to `file` from byte `at` on, verified: after an error, what was written there must not be used.
    /// Where the cache turns out to be damaged, the layer is packed anew and written over what was written of it. `dest`
    /// is the file's name for messages. The file's own position plays no part, so that several blobs can be written at
    /// once.
    pub fn copy_to(
        &self,
        digest: impl Into<ContentDigest>,
        size: u64,
        file: &File,
        at: u64,
        dest: &Path,
    ) -> Result<(), LayerError> {
        let digest = digest.into();
        match self.copy_once(digest, size, file, at, dest) {
            Err(LayerError::Damaged { .. }) if self.cached().is_some() => {
                self.packed_anew(digest)?.copy_once(digest, size, file, at, dest)
            }
            result => result,
        }
    }

    fn copy_once(
        &self,
        digest: ContentDigest,
        size: u64,
        file: &File,
        mut at: u64,
        dest: &Path,
    ) -> Result<(), LayerError> {
        let mut reader = self.open_verified(digest, size);
        let mut buffer = vec![0; 1 << 17];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.read_error(digest, error)),
            };
            file.write_all_at(&buffer[..count], at).context("write", dest)?;
            at += count as u64;
        }
    }

    /// The same bytes, sound: damaged entries of the cache are removed and made again.
    pub fn packed_anew(&self, digest: impl Into<ContentDigest>) -> Result<Self, LayerError> {
        let digest = digest.into();
        let Some(cached) = self.cached() else {
            return Ok(self.clone());
        };
        cached.cache.evict(&cached.key, &cached.record);
        let options = PackOptions {
            compression: cached.compression,
            threads: 0,
            single_member: cached.single_member,
            profile: cached.profile,
            cache: Some(&cached.cache),
            scratch: None,
        };
        let layers = pack(std::slice::from_ref(&cached.input), &options, &Silent)?;
        let layer = layers.into_iter().next().expect("one input makes one layer");
        if digest == layer.digest {
            return Ok(layer.blob);
        }
        let other = VerifyError::digest(digest, layer.digest);
        Err(LayerError::Damaged {
            digest,
            source: io::Error::new(io::ErrorKind::InvalidData, other),
        })
    }

    fn cached(&self) -> Option<&CachedLayer> {
        let Self::Parts(parts) = self else { return None };
        parts.iter().find_map(|part| match part {
            Self::Kept { keep, .. } => match &**keep {
                Keep::Cached(cached) => Some(&**cached),
                Keep::Temporary(_) => None,
            },
            _ => None,
        })
    }

    /// What a failure of [`open_verified`](Self::open_verified)'s reader means; damaged entries of the cache are removed,
    /// so that packing again makes them anew.
    pub fn read_error(&self, digest: impl Into<ContentDigest>, source: io::Error) -> LayerError {
        let digest = digest.into();
        let damaged = source.get_ref().is_some_and(|inner| inner.is::<VerifyError>())
            || matches!(source.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound);
        if damaged {
            if let Some(cached) = self.cached() {
                cached.cache.evict(&cached.key, &cached.record);
            }
            return LayerError::Damaged { digest, source };
        }
        LayerError::Blob { digest, source }
    }
}

impl PackedLayer {
    /// A reader of the layer's bytes as stored that fails at end of file if they are not what `digest` and `size` say.
    pub fn open(&self) -> VerifyingReader<BlobReader> {
        self.blob.open_verified(self.digest, self.size)
    }
}

/// An I/O error whose text names the file.
fn named(action: &'static str, path: &Path, source: io::Error) -> io::Error {
    let kind = source.kind();
    io::Error::new(
        kind,
        PathError {
            action,
            path: path.to_owned(),
            source,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "0123456789").unwrap();
        let keep = Arc::new(Keep::Temporary(
            tempfile::NamedTempFile::new().unwrap().into_temp_path(),
        ));
        let blob = Blob::Parts(vec![
            Blob::Bytes(b"ab"[..].into()),
            Blob::Parts(vec![
                Blob::Bytes(b""[..].into()),
                Blob::File {
                    path: path.clone(),
                    offset: 2,
                    len: 3,
                },
            ]),
            Blob::Kept {
                path,
                offset: 9,
                len: 1,
                keep,
            },
        ]);
        let mut text = String::new();
        blob.open().read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), blob.size()), ("ab2349", 6));
        for at in 0..8 {
            let mut rest = String::new();
            blob.open_at(at as u64).unwrap().read_to_string(&mut rest).unwrap();
            assert_eq!(rest, text.get(at..).unwrap_or_default(), "{at}");
        }
    }

    #[test]
    fn a_blob_that_lies_elsewhere_is_opened_when_it_is_read_and_not_before() {
        #[derive(Debug, Default)]
        struct Counted(std::sync::atomic::AtomicUsize);
        impl Origin for Counted {
            fn open(&self, _: &ContentDigest, len: u64) -> io::Result<Box<dyn Read + Send>> {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Ok(Box::new(io::repeat(b'x').take(len)))
            }
        }
        let origin = Arc::new(Counted::default());
        let blob = Blob::Elsewhere {
            origin: origin.clone(),
            digest: Digest::of(b"xxx").into(),
            len: 3,
        };
        assert_eq!(blob.size(), 3);
        let mut reader = blob.open();
        assert_eq!(origin.0.load(std::sync::atomic::Ordering::Relaxed), 0);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "xxx");
        assert_eq!(origin.0.load(std::sync::atomic::Ordering::Relaxed), 1);
    }

    #[test]
    fn a_short_or_missing_file_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let blob = Blob::File {
            path: path.clone(),
            offset: 0,
            len: 3,
        };
        let missing = blob.open().read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(missing.to_string().contains(path.to_str().unwrap()));
        std::fs::write(&path, "12").unwrap();
        let short = blob.open().read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    }
}
