//! The *scan* of a file finds store hashes in its bytes and inside what is compressed in it.
//!
//! Invariant: streaming, with bounded memory and work: containers (gzip, xz, zstd, bzip2, zip) are followed
//! [`MAX_DEPTH`] deep, and what a file unpacks to is read no further than [`FREE_BYTES`] plus [`MAX_RATIO`] times
//! its own size. A container that turns out to be corrupt is no error: its raw bytes have been searched anyway.
//!
//! Containers are recognised by the first bytes of the whole file, of a zip member, or of what another container
//! holds (also after a `#!` line: Python's zip applications).

mod codec;
mod finder;
#[cfg(test)]
mod tests;
mod zip;

pub(super) use finder::{Finder, Hit, Needles, Spelling};

use codec::{PackingCodec, Pumped};
use zip::ZipScanner;

/// Containers in containers that are opened.
pub(super) const MAX_DEPTH: usize = 4;

/// Bytes that even the smallest file may unpack to.
pub(super) const FREE_BYTES: u64 = 256 << 20;

/// Bytes that each further byte of a file may unpack to.
pub(super) const MAX_RATIO: u64 = 200;

/// Bytes that decide what a stream is: the longest magic, bzip2's.
const MAGIC: usize = 10;

/// Longest `#!` line before a zip archive.
const MAX_SHEBANG: usize = 256;

/// Where a hit is: the containers around it, outermost first, and the hit in the innermost.
pub(super) type Found<'a> = dyn FnMut(&[String], Hit) + 'a;

/// The scan of one file.
pub(super) struct FileScan {
    stream: ScanStream,
    budget: ScanBudget,
}

impl FileScan {
    /// A scan that has seen nothing yet.
    pub(super) fn new() -> Self {
        Self::with_budget(FREE_BYTES)
    }

    fn with_budget(free: u64) -> Self {
        Self {
            stream: ScanStream::new(Vec::new()),
            budget: ScanBudget {
                left: free,
                exceeded: false,
            },
        }
    }

    /// Searches the next piece of the file.
    pub(super) fn feed(&mut self, needles: &Needles, piece: &[u8], found: &mut Found<'_>) {
        if needles.len() == 0 {
            // Nothing can be found: nothing is worth unpacking.
            return;
        }
        self.budget.left = self
            .budget
            .left
            .saturating_add((piece.len() as u64).saturating_mul(MAX_RATIO));
        let mut search = ReferenceSearch {
            needles,
            found,
            budget: &mut self.budget,
        };
        self.stream.feed(piece, &mut search);
    }

    /// Whether something in it was too deep, too big or took too much memory to be read to its end.
    pub(super) fn incomplete(&self) -> bool {
        self.budget.exceeded
    }
}

/// What a file may still unpack to.
struct ScanBudget {
    left: u64,
    exceeded: bool,
}

impl ScanBudget {
    /// Takes `bytes` off it; false where they are no longer there.
    fn spend(&mut self, bytes: u64) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => self.exceeded = true,
        }
        !self.exceeded
    }
}

/// What all streams of a file share.
struct ReferenceSearch<'a, 'f> {
    needles: &'a Needles,
    found: &'a mut Found<'f>,
    budget: &'a mut ScanBudget,
}

/// A stream of bytes: a file, or what a container holds.
struct ScanStream {
    finder: Finder,
    /// Names of the containers around it.
    inside: Vec<String>,
    content: StreamContent,
}

/// What a stream's bytes are, beside bytes.
enum StreamContent {
    /// Not known yet: its first bytes.
    Unknown(Vec<u8>),
    /// Nothing that can be opened, or no longer.
    Plain,
    /// Compressed.
    Compressed(Box<Compressed>),
    /// A zip archive.
    Zip(Box<ZipScanner>),
}

impl ScanStream {
    fn new(inside: Vec<String>) -> Self {
        Self {
            finder: Finder::default(),
            inside,
            content: StreamContent::Unknown(Vec::new()),
        }
    }

    /// A stream inside this one.
    fn inner(inside: &[String], container: String) -> Self {
        let mut chain = inside.to_vec();
        chain.push(container);
        Self::new(chain)
    }

    fn feed(&mut self, piece: &[u8], search: &mut ReferenceSearch<'_, '_>) {
        let inside = &self.inside;
        let found = &mut *search.found;
        self.finder.feed(search.needles, piece, &mut |hit| found(inside, hit));
        if let StreamContent::Unknown(head) = &mut self.content {
            head.extend_from_slice(piece);
            let detected = detect(head);
            if detected == StreamStart::TooEarly {
                return;
            }
            let head = std::mem::take(head);
            self.content = self.open(detected, search);
            let skipped = match detected {
                StreamStart::Zip { at } => at,
                _ => 0,
            };
            self.unpack(head.get(skipped..).unwrap_or_default(), search);
        } else {
            self.unpack(piece, search);
        }
    }

    fn open(&self, detected: StreamStart, search: &mut ReferenceSearch<'_, '_>) -> StreamContent {
        if matches!(detected, StreamStart::Plain | StreamStart::TooEarly) {
            return StreamContent::Plain;
        }
        if self.inside.len() >= MAX_DEPTH {
            search.budget.exceeded = true;
            return StreamContent::Plain;
        }
        let (codec, name) = match detected {
            StreamStart::Gzip => (PackingCodec::gzip(), "gzip"),
            StreamStart::Xz => (PackingCodec::xz(), "xz"),
            StreamStart::Zstd => (PackingCodec::zstd(), "zstd"),
            StreamStart::Bzip2 => (PackingCodec::bzip2(), "bzip2"),
            StreamStart::Zip { .. } => return StreamContent::Zip(Box::new(ZipScanner::new(self.inside.clone()))),
            StreamStart::Plain | StreamStart::TooEarly => return StreamContent::Plain,
        };
        codec.map_or(StreamContent::Plain, |codec| {
            StreamContent::Compressed(Box::new(Compressed {
                codec,
                stream: Self::inner(&self.inside, name.to_owned()),
            }))
        })
    }

    fn unpack(&mut self, piece: &[u8], search: &mut ReferenceSearch<'_, '_>) {
        let goes_on = match &mut self.content {
            StreamContent::Unknown(_) | StreamContent::Plain => return,
            StreamContent::Compressed(compressed) => compressed.feed(piece, search),
            StreamContent::Zip(zip) => zip.feed(piece, search),
        };
        if !goes_on {
            self.content = StreamContent::Plain;
        }
    }
}

/// A compressed stream and what it holds.
struct Compressed {
    codec: PackingCodec,
    stream: ScanStream,
}

impl Compressed {
    /// Unpacks the next piece; false where nothing more can be read.
    fn feed(&mut self, mut piece: &[u8], search: &mut ReferenceSearch<'_, '_>) -> bool {
        loop {
            match self.codec.pump(piece, &mut self.stream, search) {
                Pumped::NeedsMore => return true,
                Pumped::Failed => return false,
                // Another member may follow.
                Pumped::Ended { consumed } => {
                    piece = piece.get(consumed..).unwrap_or_default();
                    if !self.codec.restart() {
                        return false;
                    }
                    if piece.is_empty() {
                        return true;
                    }
                }
            }
        }
    }
}

/// What the first bytes of a stream say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamStart {
    TooEarly,
    Plain,
    Gzip,
    Xz,
    Zstd,
    Bzip2,
    Zip { at: usize },
}

fn detect(head: &[u8]) -> StreamStart {
    if head.starts_with(b"#!") {
        return match head.iter().position(|&byte| byte == b'\n') {
            Some(line) if line > MAX_SHEBANG => StreamStart::Plain,
            Some(line) if head.len() < line + 1 + zip::MAGIC.len() => StreamStart::TooEarly,
            Some(line) if head[line + 1..].starts_with(zip::MAGIC) => StreamStart::Zip { at: line + 1 },
            None if head.len() <= MAX_SHEBANG => StreamStart::TooEarly,
            _ => StreamStart::Plain,
        };
    }
    match head {
        [0x1f, 0x8b, 8, ..] => StreamStart::Gzip,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => StreamStart::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => StreamStart::Zstd,
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => StreamStart::Bzip2,
        _ if head.starts_with(zip::MAGIC) => StreamStart::Zip { at: 0 },
        _ if head.len() < MAGIC => StreamStart::TooEarly,
        _ => StreamStart::Plain,
    }
}
