//! *Content* is the bytes of a blob that is to be sent: opened as often as is needed, verified while they are read.
//!
//! Invariant: the last piece is given only when all bytes were found to be what their digest says, so that a damaged
//! blob never arrives whole.

use std::io::{self, Read};

use bytes::Bytes;

use super::client::Replay;

use crate::digest::{ContentDigest, Digest, VerifyError};
use crate::http::wire::Supply;
use crate::image::ImageLayer;
use crate::layer::{Blob, LayerError};

/// Bytes of a piece: large enough that handing them over costs nothing, small enough to have many blobs under way.
const PIECE: usize = 128 << 10;

/// A blob to be sent.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) digest: ContentDigest,
    pub(super) size: u64,
    bytes: Held,
}

#[derive(Debug, Clone)]
enum Held {
    Memory(Bytes),
    Layer(Box<ImageLayer>),
}

impl Content {
    /// A blob in memory.
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self {
            digest: Digest::of(&bytes).into(),
            size: bytes.len() as u64,
            bytes: Held::Memory(bytes.into()),
        }
    }

    /// A layer.
    pub(super) fn layer(layer: &ImageLayer) -> Self {
        Self {
            digest: layer.digest(),
            size: layer.size(),
            bytes: Held::Layer(Box::new(layer.clone())),
        }
    }

    /// Whether a manifest may be somewhere without it.
    pub(super) fn is_kept_elsewhere(&self) -> bool {
        matches!(&self.bytes, Held::Layer(layer) if layer.descriptor.is_kept_elsewhere())
    }

    fn open(&self) -> Box<dyn Read + Send> {
        match &self.bytes {
            Held::Memory(bytes) => Box::new(io::Cursor::new(bytes.clone())),
            Held::Layer(layer) => Box::new(layer.open()),
        }
    }

    /// The repository that the blob would be read from, where it lies at a registry.
    pub(super) fn repository(&self) -> Option<(&str, &str)> {
        match &self.bytes {
            Held::Layer(layer) => repository(&layer.content),
            Held::Memory(_) => None,
        }
    }

    /// The same blob with sound bytes, where they can be made anew; else what was wrong with them.
    pub(super) fn repaired(&self, error: io::Error) -> Result<Self, LayerError> {
        let Held::Layer(layer) = &self.bytes else {
            return Err(LayerError::Blob {
                digest: self.digest,
                source: error,
            });
        };
        match layer.read_error(error) {
            LayerError::Damaged { .. } => Ok(Self::layer(&layer.packed_anew()?)),
            error => Err(error),
        }
    }

    /// What a failure to read means when repairing has been tried.
    pub(super) fn read_error(&self, error: io::Error) -> LayerError {
        match &self.bytes {
            Held::Layer(layer) => layer.read_error(error),
            Held::Memory(_) => LayerError::Blob {
                digest: self.digest,
                source: error,
            },
        }
    }
}

fn repository(blob: &Blob) -> Option<(&str, &str)> {
    match blob {
        Blob::Elsewhere { origin, .. } => origin.repository(),
        Blob::Parts(parts) if parts.len() == 1 => repository(&parts[0]),
        _ => None,
    }
}

/// Gives a range of a blob, from any byte on, again and again.
pub(super) struct Feed<'a> {
    content: &'a Content,
    reader: Option<Box<dyn Read + Send>>,
    /// The next byte that the reader gives.
    at: u64,
    from: u64,
    to: u64,
    /// Told how many bytes of the blob were handed over.
    progress: &'a dyn Fn(u64),
}

impl<'a> Feed<'a> {
    /// Nothing is opened yet.
    pub(super) fn new(content: &'a Content, progress: &'a dyn Fn(u64)) -> Self {
        Self {
            content,
            reader: None,
            at: 0,
            from: 0,
            to: content.size,
            progress,
        }
    }

    /// Will give the bytes of this range; the bytes before it are read and hashed all the same.
    pub(super) fn range(&mut self, from: u64, to: u64) {
        (self.from, self.to) = (from, to.min(self.content.size));
    }

    fn seek(&mut self) -> io::Result<()> {
        if self.reader.is_none() || self.at > self.from {
            self.reader = Some(self.content.open());
            self.at = 0;
        }
        let mut buffer = vec![0; PIECE];
        while self.at < self.from {
            let want = buffer
                .len()
                .min(usize::try_from(self.from - self.at).unwrap_or(usize::MAX));
            self.read(&mut buffer[..want])?;
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let reader = self.reader.as_mut().expect("opened before it is read");
        match reader.read(buffer) {
            Ok(0) => {
                let (expected, actual) = (self.content.size, self.at);
                Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    VerifyError::Size { expected, actual },
                ))
            }
            Ok(count) => {
                self.at += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }
}

impl Supply for Feed<'_> {
    fn left(&self) -> u64 {
        // Before the first piece of a range the reader may stand anywhere.
        self.to - self.at.clamp(self.from, self.to)
    }

    fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.reader.is_none() || self.at < self.from {
            self.seek()?;
        }
        let left = self.to.saturating_sub(self.at);
        if left == 0 {
            return Ok(None);
        }
        let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
        let mut filled = 0;
        while filled < piece.len() {
            filled += self.read(&mut piece[filled..])?;
        }
        if self.at == self.content.size {
            // The end of file is where the digest is verified.
            let reader = self.reader.as_mut().expect("opened before it is read");
            if reader.read(&mut [0])? > 0 {
                let error = VerifyError::Size {
                    expected: self.content.size,
                    actual: self.content.size + 1,
                };
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        (self.progress)(self.at);
        Ok(Some(piece.into()))
    }
}

impl Replay for Feed<'_> {
    fn rewind(&mut self) -> io::Result<()> {
        if self.at != self.from {
            self.reader = None;
            self.at = 0;
        }
        Ok(())
    }
}
