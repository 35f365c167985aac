//! A layer's tar *made anew* from the store while it is read: uncompressed layers are kept nowhere.
//!
//! Invariant: the reader sees the tar that was packed, or what its digest does not fit: whoever reads verifies.
//!
//! A thread walks the trees and sends buffers; it waits while a few of them are unread, and ends when the reader is
//! dropped.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use super::source::{TarSink, write_part};
use super::stream::cannot_read;
use super::{Engine, LayerInput, LayerParts, PackError};
use crate::digest::Hasher;
use crate::layer::LayerError;
use crate::oci::{Compression, TarProfile};

const BUFFER: usize = 1 << 18;
/// Most full buffers that wait for the reader.
const MOST_WAITING: usize = 3;

/// Reads the tar of a layer that was packed before.
#[derive(Debug)]
pub(in crate::layer) struct PipeTarReader {
    full: Receiver<Result<Vec<u8>, LayerError>>,
    empty: Sender<Vec<u8>>,
    buffer: Vec<u8>,
    at: usize,
}

impl PipeTarReader {
    /// Begins to make the tar of `input`.
    pub fn new(input: LayerInput, profile: TarProfile) -> Self {
        let (send_full, full) = sync_channel(MOST_WAITING);
        let (empty, take_empty) = channel();
        std::thread::spawn(move || {
            let mut pipe = PackPipe {
                full: send_full,
                empty: take_empty,
                buffer: Vec::with_capacity(BUFFER),
                sent: 0,
            };
            let result = pipe.write_layer(&input, profile);
            if let Err(PackError::Layer(error)) = result.and_then(|()| pipe.flush()) {
                // A reader that is gone does not care.
                let _ = pipe.full.send(Err(error));
            }
        });
        Self {
            full,
            empty,
            buffer: Vec::new(),
            at: 0,
        }
    }
}

impl Read for PipeTarReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.buffer.len() {
            match self.full.recv() {
                Err(_) => return Ok(0),
                Ok(Err(error)) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                Ok(Ok(next)) => {
                    let used = std::mem::replace(&mut self.buffer, next);
                    self.at = 0;
                    // The thread may have ended.
                    let _ = self.empty.send(used);
                }
            }
        }
        let count = (&self.buffer[self.at..]).read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

/// The thread's end.
struct PackPipe {
    full: SyncSender<Result<Vec<u8>, LayerError>>,
    empty: Receiver<Vec<u8>>,
    buffer: Vec<u8>,
    /// Bytes sent before those in the buffer.
    sent: u64,
}

impl PackPipe {
    fn write_layer(&mut self, input: &LayerInput, profile: TarProfile) -> Result<(), PackError> {
        let recipe = LayerParts::new(input, Engine::new(Compression::None, false), profile)?;
        let mut parts = recipe.pieces.iter();
        parts.try_for_each(|part| write_part(self, part, profile, false))
    }

    fn flush(&mut self) -> Result<(), PackError> {
        let mut next = self.empty.try_recv().unwrap_or_default();
        next.clear();
        next.reserve(BUFFER);
        let full = std::mem::replace(&mut self.buffer, next);
        self.sent += full.len() as u64;
        self.full.send(Ok(full)).map_err(|_| PackError::Cancelled)
    }
}

impl TarSink for PackPipe {
    fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn copy(&mut self, file: &File, path: &Path, size: u64, mut archive: Option<&mut Hasher>) -> Result<(), PackError> {
        let mut at = 0;
        while at < size {
            let from = self.buffer.len();
            if from >= BUFFER {
                self.flush()?;
                continue;
            }
            let want = (BUFFER - from).min(usize::try_from(size - at).unwrap_or(usize::MAX));
            self.buffer.resize(from + want, 0);
            let count = match file.read_at(&mut self.buffer[from..], at) {
                Ok(0) => return Err(LayerError::Shrunk { path: path.to_owned() }.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(source) => return Err(cannot_read(path, source)),
            };
            self.buffer.truncate(from + count);
            if let Some(archive) = &mut archive {
                archive.update(&self.buffer[from..]);
            }
            at += count as u64;
        }
        Ok(())
    }

    fn reached(&mut self, _: &Path) {}

    fn position(&self) -> u64 {
        self.sent + self.buffer.len() as u64
    }
}
