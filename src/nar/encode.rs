//! The *encoder* turns a sequence of entries into the archive's bytes.
//!
//! Invariant: what it writes depends on the entries alone. It trusts their order: take it from
//! [`walk`](super::walk()), [`visit`](super::visit) or [`read`](super::read).

use std::io::{self, Read, Write};

use super::{Entry, EntryKind, NarError};

/// First string of every archive.
pub(super) const MAGIC: &[u8] = b"nix-archive-1";

/// Bytes of a file's contents that are handled at once.
const BLOCK: usize = 128 * 1024;

/// Writes an archive, entry by entry.
pub struct NarEncoder<W> {
    sink: W,
    /// Directories whose `)` is still to come.
    open: usize,
    /// Strings that wait for the next write; cleared after it.
    pending: Vec<u8>,
    /// Made when first needed.
    block: Vec<u8>,
}

impl<W: Write> NarEncoder<W> {
    /// Starts an archive.
    pub fn new(sink: W) -> Result<Self, NarError> {
        let mut encoder = Self {
            sink,
            open: 0,
            pending: Vec::new(),
            block: Vec::new(),
        };
        encoder.string(MAGIC);
        Ok(encoder)
    }

    /// Appends an entry; `contents` must give exactly a file's size in bytes.
    pub fn entry(&mut self, entry: &Entry, contents: &mut dyn Read) -> Result<(), NarError> {
        self.begin(entry)?;
        if let EntryKind::File { size, .. } = entry.kind {
            self.contents(size, contents)?;
        }
        self.end(entry);
        self.flush()
    }

    /// Appends an entry up to a file's contents: these are to be written to [`sink`](Self::sink), and then the entry is
    /// to be [ended](Self::end).
    pub fn begin(&mut self, entry: &Entry) -> Result<(), NarError> {
        let depth = entry.depth();
        self.close_directories(depth);
        if depth > 0 {
            self.strings(&[b"entry", b"(", b"name", entry.name(), b"node"]);
        }
        self.strings(&[b"(", b"type"]);
        match &entry.kind {
            EntryKind::Directory => self.string(b"directory"),
            EntryKind::Symlink { target } => self.strings(&[b"symlink", b"target", target]),
            EntryKind::File { executable, size } => {
                self.string(b"regular");
                if *executable {
                    self.strings(&[b"executable", b""]);
                }
                self.string(b"contents");
                self.pending.extend_from_slice(&size.to_le_bytes());
                return self.flush();
            }
        }
        match self.pending.len() < BLOCK {
            true => Ok(()),
            false => self.flush(),
        }
    }

    /// Appends what follows the contents of an entry that was begun.
    pub fn end(&mut self, entry: &Entry) {
        match entry.kind {
            EntryKind::Directory => self.open += 1,
            EntryKind::Symlink { .. } => self.close_node(entry.depth()),
            EntryKind::File { size, .. } => {
                self.pad(size);
                self.close_node(entry.depth());
            }
        }
    }

    /// Where the archive goes; all of it is there but what follows the contents of the last entry.
    pub fn sink(&mut self) -> &mut W {
        &mut self.sink
    }

    /// Closes what is open, flushes, and gives back the sink.
    pub fn finish(mut self) -> Result<W, NarError> {
        self.close_directories(0);
        self.flush()?;
        self.sink.flush().map_err(NarError::Sink)?;
        Ok(self.sink)
    }

    fn contents(&mut self, size: u64, contents: &mut dyn Read) -> Result<(), NarError> {
        self.block.resize(BLOCK, 0);
        let mut written = 0u64;
        loop {
            let count = match contents.read(&mut self.block) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(NarError::Source {
                        offset: written,
                        source,
                    });
                }
            };
            written += count as u64;
            if written > size || (count == 0 && written < size) {
                let source = io::Error::new(io::ErrorKind::InvalidData, "its size is not the announced one");
                return Err(NarError::Source {
                    offset: written,
                    source,
                });
            }
            if count == 0 {
                break;
            }
            self.sink.write_all(&self.block[..count]).map_err(NarError::Sink)?;
        }
        Ok(())
    }

    /// Ends directories until only those above an entry at `depth` are open.
    fn close_directories(&mut self, depth: usize) {
        while self.open > depth {
            self.open -= 1;
            self.close_node(self.open);
        }
    }

    /// Ends a node at `depth`, and the `entry` around it where there is one.
    fn close_node(&mut self, depth: usize) {
        self.string(b")");
        if depth > 0 {
            self.string(b")");
        }
    }

    fn strings(&mut self, strings: &[&[u8]]) {
        for string in strings {
            self.string(string);
        }
    }

    fn string(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.pending.extend_from_slice(bytes);
        self.pad(bytes.len() as u64);
    }

    fn pad(&mut self, length: u64) {
        let zeros = padding(length);
        self.pending.extend_from_slice(&[0; 8][..zeros]);
    }

    fn flush(&mut self) -> Result<(), NarError> {
        self.sink.write_all(&self.pending).map_err(NarError::Sink)?;
        self.pending.clear();
        Ok(())
    }
}

/// Zero bytes that follow a string of `length` bytes.
pub(super) fn padding(length: u64) -> usize {
    // Less than eight always fits.
    (length.wrapping_neg() % 8) as usize
}
