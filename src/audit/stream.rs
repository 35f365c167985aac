//! A *layer stream* reads a layer's tar entry by entry while blob and tar are hashed.
//!
//! Invariant: whoever calls [`LayerStream::finish`] and gets an answer has read every byte: the blob has its announced
//! digest and size, and the diffID in the answer is computed, not claimed. Unpacked layers over 1 TiB are errors.

use std::io::{self, Read};

use super::AuditError;
use crate::archive::compression::Decompressor;
use crate::archive::tar::{Entry, Streamed, TarError, TarPolicy, TarReader, Trailer};
use crate::digest::{DiffId, Hasher, VerifyError};
use crate::oci::{CompressionFormat, Descriptor};
use crate::transport::Source;

const TAR_MAX: u64 = 1 << 40;

type BlobBytes<'a> = Box<dyn Read + Send + 'a>;

/// A layer being read.
pub(super) struct LayerStream<'a> {
    place: String,
    descriptor: Descriptor,
    tar: TarReader<Streamed<Hashing<Decompressor<BlobBytes<'a>>>>>,
}

/// What is known of a layer once it was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerEnd {
    pub(super) diff_id: DiffId,
    pub(super) tar_size: u64,
    pub(super) packing: CompressionFormat,
    pub(super) trailer: Trailer,
    /// Bytes of the blob after its compressed stream.
    pub(super) left_over: u64,
    /// Whether it is zstd whose first frame holds no data.
    pub(super) begins_with_skippable_frame: bool,
}

impl<'a> LayerStream<'a> {
    pub(super) fn open(source: &'a dyn Source, descriptor: &Descriptor) -> Result<Self, AuditError> {
        let place = source.place().to_owned();
        let blob = source.layer(descriptor)?;
        let unpacker = Decompressor::new(blob).map_err(|source| AuditError::Layer {
            place: place.clone(),
            digest: descriptor.digest,
            source,
        })?;
        let hashing = Hashing {
            inner: unpacker,
            hasher: Hasher::new(),
            size: 0,
        };
        let tar = TarReader::new(Streamed(hashing), TarPolicy::LAYER);
        Ok(Self {
            place,
            descriptor: descriptor.clone(),
            tar,
        })
    }

    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, AuditError> {
        self.tar
            .next_entry()
            .map_err(|error| tar_error(&self.place, &self.descriptor, error))
    }

    /// Reads the current entry's body piece by piece.
    pub(super) fn body(&mut self, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), AuditError> {
        let mut buffer = [0; 32 << 10];
        loop {
            let count = self.tar.read(&mut buffer).map_err(|source| self.error(source))?;
            if count == 0 {
                return Ok(());
            }
            each(&buffer[..count]).map_err(|source| self.error(source))?;
        }
    }

    pub(super) fn finish(self) -> Result<LayerEnd, AuditError> {
        let Self { place, descriptor, tar } = self;
        let (Streamed(hashing), trailer) = tar.finish().map_err(|error| tar_error(&place, &descriptor, error))?;
        let packing = hashing.inner.format();
        let begins_with_skippable_frame = hashing.inner.begins_with_skippable_frame();
        let read = hashing.inner.drain();
        let left_over = read.map_err(|source| AuditError::Layer {
            place,
            digest: descriptor.digest,
            source,
        })?;
        Ok(LayerEnd {
            diff_id: hashing.hasher.diff_id(),
            tar_size: hashing.size,
            packing,
            trailer,
            left_over,
            begins_with_skippable_frame,
        })
    }

    /// A failure of what is done with an entry, as the layer's.
    pub(super) fn check<T>(&self, result: io::Result<T>) -> Result<T, AuditError> {
        result.map_err(|source| self.error(source))
    }

    fn error(&self, source: io::Error) -> AuditError {
        AuditError::Layer {
            place: self.place.clone(),
            digest: self.descriptor.digest,
            source,
        }
    }
}

/// An I/O error of the blob shows through as the layer's; what remains is the tar's own.
fn tar_error(place: &str, descriptor: &Descriptor, error: TarError) -> AuditError {
    let (place, digest) = (place.to_owned(), descriptor.digest);
    match error {
        TarError::Io { source, .. } if source.get_ref().is_some() => AuditError::Layer { place, digest, source },
        source => AuditError::Tar { place, digest, source },
    }
}

/// The packing of a blob, by its first bytes; the rest is not read.
pub(super) fn packing_of(source: &dyn Source, descriptor: &Descriptor) -> Result<CompressionFormat, AuditError> {
    let blob = source.layer(descriptor)?;
    let mut head = Vec::new();
    match blob.take(6.min(descriptor.size)).read_to_end(&mut head) {
        Ok(_) => Ok(CompressionFormat::sniff(&head)),
        Err(error) => {
            let (place, digest) = (source.place().to_owned(), descriptor.digest);
            Err(AuditError::Layer {
                place,
                digest,
                source: error,
            })
        }
    }
}

struct Hashing<R> {
    inner: R,
    hasher: Hasher,
    size: u64,
}

impl<R: Read> Hashing<Decompressor<R>> {
    /// A decoder's error with the byte of the blob at which it gave up; what a digest says is of the whole blob.
    fn at_position(&self, error: io::Error) -> io::Error {
        let is_digest = error.get_ref().is_some_and(|inner| inner.is::<VerifyError>());
        if is_digest || error.kind() == io::ErrorKind::Interrupted || self.inner.format() == CompressionFormat::None {
            return error;
        }
        let text = format!(
            "its {} stream is broken at byte {} of the blob: {error}",
            self.inner.format().name(),
            self.inner.position()
        );
        io::Error::new(error.kind(), text)
    }
}

impl<R: Read> Read for Hashing<Decompressor<R>> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer).map_err(|error| self.at_position(error))?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        if self.size > TAR_MAX {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the layer unpacks to more than 1 TiB",
            ));
        }
        Ok(count)
    }
}
