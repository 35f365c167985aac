//! A layer's *packing*, looked at closely: gzip members and zstd frames, so that two blobs of one tar can be told apart.
//!
//! Invariant: one pass over the blob, memory bounded; the diffID is computed in the same pass, because that two blobs
//! hold one tar is only the configs' claim so far. Formats: RFC 1952 (gzip), RFC 8878 (zstd).

use std::io::{self, BufRead, Read};

use super::Class;
use crate::archive::compression::Decompressor;
use crate::digest::{DiffId, Digest, Hasher};
use crate::oci::CompressionFormat;

/// Longest gzip header: names and comments beyond are an error.
const GZIP_HEADER_MAX: usize = 64 << 10;
const BUFFER: usize = 128 << 10;

/// How a blob is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) diff_id: DiffId,
    packing: CompressionFormat,
    size: u64,
    detail: Detail,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Detail {
    Gzip(Gzip),
    Zstd(Zstd),
    /// Neither; with the number of bytes after the stream.
    Other(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Gzip {
    members: u64,
    /// The first member's unpacked size.
    first: u64,
    /// Digest of all members' unpacked sizes.
    sizes: Digest,
    /// The first member's header for people, and the digest of all headers.
    header: String,
    headers: Digest,
    /// The first member's XFL, which tells the level; the digest of headers leaves it out.
    level: u8,
    /// Digest of everything that is no header.
    data: Digest,
    trailer: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Zstd {
    frames: u64,
    skippable: u64,
    /// The first frame's parameters, for people.
    header: String,
    /// Digest of all frames' headers, sizes of contents left out.
    headers: Option<Digest>,
}

/// Reads a blob to its end.
pub(super) fn read(blob: impl Read, size: u64) -> io::Result<Packed> {
    let mut window = Window::new(blob);
    window.fill(6)?;
    let packing = CompressionFormat::sniff(window.buffered());
    let (diff_id, detail) = match packing {
        CompressionFormat::Gzip => gzip(&mut window)?,
        CompressionFormat::Zstd => zstd(&mut window)?,
        _ => {
            let (diff_id, left) = unpack(&mut window)?;
            (diff_id, Detail::Other(left))
        }
    };
    Ok(Packed {
        diff_id,
        packing,
        size,
        detail,
    })
}

/// In which respects two blobs of one tar differ: (class, first side, second side).
pub(super) fn compare(a: &Packed, b: &Packed) -> Vec<(Class, String, String)> {
    let mut found = Vec::new();
    let sizes = |text: String| (format!("{text}, {} bytes", a.size), format!("{text}, {} bytes", b.size));
    match (&a.detail, &b.detail) {
        _ if a.packing != b.packing => {
            let text = |packed: &Packed| format!("{}, {} bytes", packed.packing.name(), packed.size);
            found.push((Class::Compression, text(a), text(b)));
        }
        (Detail::Gzip(x), Detail::Gzip(y)) => {
            if (x.members, x.sizes) != (y.members, y.sizes) {
                found.push((Class::GzipMembers, x.cut(), y.cut()));
            } else if x.data != y.data {
                let text = |own: &Gzip, packed: &Packed| format!("gzip, xfl {}, {} bytes", own.level, packed.size);
                found.push((Class::GzipData, text(x, a), text(y, b)));
            }
            let level = x.data == y.data && x.level != y.level;
            if level || x.header != y.header || (x.members == y.members && x.headers != y.headers) {
                let text = |own: &Gzip| format!("{}, xfl {}", own.header, own.level);
                found.push((Class::GzipHeader, text(x), text(y)));
            }
            trailers(x.trailer, y.trailer, &mut found);
        }
        (Detail::Zstd(x), Detail::Zstd(y)) if x != y => {
            found.push((Class::ZstdFrame, x.text(), y.text()));
        }
        (Detail::Zstd(_), _) => {
            let (p, q) = sizes("zstd".to_owned());
            found.push((Class::ZstdData, p, q));
        }
        (Detail::Other(x), Detail::Other(y)) => {
            trailers(*x, *y, &mut found);
            if found.is_empty() {
                let (p, q) = sizes(a.packing.name().to_owned());
                found.push((Class::Compression, p, q));
            }
        }
        _ => {}
    }
    found
}

fn trailers(a: u64, b: u64, found: &mut Vec<(Class, String, String)>) {
    if a != b {
        let text = |count: u64| format!("{count} bytes after the stream");
        found.push((Class::BlobTrailer, text(a), text(b)));
    }
}

impl Gzip {
    fn cut(&self) -> String {
        match self.members {
            1 => format!("1 member of {} bytes", self.first),
            many => format!("{many} members, the first of {} bytes", self.first),
        }
    }
}

impl Zstd {
    fn text(&self) -> String {
        let skippable = match self.skippable {
            0 => String::new(),
            count => format!(" and {count} skippable"),
        };
        format!("{} frames{skippable}: {}", self.frames, self.header)
    }
}

/// The diffID, and the number of bytes after the stream.
fn unpack(blob: impl Read) -> io::Result<(DiffId, u64)> {
    let mut unpacker = Decompressor::new(blob)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match unpacker.read(&mut buffer)? {
            0 => return Ok((hasher.diff_id(), unpacker.drain()?)),
            count => hasher.update(&buffer[..count]),
        }
    }
}

fn gzip(window: &mut Window<impl Read>) -> io::Result<(DiffId, Detail)> {
    let (mut tar, mut sizes, mut headers) = (Hasher::new(), Hasher::new(), Hasher::new());
    let (mut members, mut first, mut header, mut level) = (0u64, 0, String::new(), 0);
    let mut buffer = vec![0; BUFFER];
    window.hasher = Some(Hasher::new());
    loop {
        window.fill(2)?;
        if !window.buffered().starts_with(&[0x1f, 0x8b]) {
            break;
        }
        let (length, text) = gzip_header(window)?;
        let raw = &window.buffered()[..length];
        headers.update(&raw[..8]);
        headers.update(&raw[9..]);
        if members == 0 {
            level = raw[8];
        }
        window.unhashed = length;
        let mut size = 0u64;
        let mut decoder = flate2::bufread::GzDecoder::new(&mut *window);
        loop {
            match decoder.read(&mut buffer)? {
                0 => break,
                count => {
                    tar.update(&buffer[..count]);
                    size += count as u64;
                }
            }
        }
        sizes.update(&size.to_le_bytes());
        if members == 0 {
            (first, header) = (size, text);
        }
        members += 1;
    }
    let data = window.hasher.take().unwrap_or_default().digest();
    let trailer = io::copy(window, &mut io::sink())?;
    let detail = Detail::Gzip(Gzip {
        members,
        first,
        sizes: sizes.digest(),
        header,
        headers: headers.digest(),
        level,
        data,
        trailer,
    });
    Ok((tar.diff_id(), detail))
}

/// Length of the member header at the front of the window (RFC 1952, 2.3), and what it says.
fn gzip_header(window: &mut Window<impl Read>) -> io::Result<(usize, String)> {
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    const CRC: u8 = 2;
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "a broken gzip header");
    window.fill(10)?;
    let fixed: [u8; 10] = window
        .buffered()
        .get(..10)
        .ok_or_else(broken)?
        .try_into()
        .map_err(|_| broken())?;
    let flags = fixed[3];
    let mut text = format!(
        "mtime {}, os {}",
        u32::from_le_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
        fixed[9]
    );
    let mut length = 10;
    if flags & EXTRA != 0 {
        window.fill(length + 2)?;
        let size = window.buffered().get(length..length + 2).ok_or_else(broken)?;
        let size = usize::from(u16::from_le_bytes([size[0], size[1]]));
        length += 2 + size;
        text.push_str(&format!(", extra field of {size} bytes"));
    }
    for (flag, what) in [(NAME, "name"), (COMMENT, "comment")] {
        if flags & flag == 0 {
            continue;
        }
        window.fill(GZIP_HEADER_MAX)?;
        let rest = window.buffered().get(length..).ok_or_else(broken)?;
        let end = rest.iter().position(|&byte| byte == 0).ok_or_else(broken)?;
        let shown = &rest[..end.min(80)];
        text.push_str(&format!(", {what} `{}`", shown.escape_ascii()));
        length += end + 1;
    }
    if flags & CRC != 0 {
        length += 2;
    }
    window.fill(length)?;
    if window.buffered().len() < length {
        return Err(broken());
    }
    Ok((length, text))
}

fn zstd(window: &mut Window<impl Read>) -> io::Result<(DiffId, Detail)> {
    let mut frames = Frames::default();
    let tee = FrameTee {
        inner: window,
        frames: &mut frames,
    };
    let (diff_id, _) = unpack(tee)?;
    Ok((diff_id, Detail::Zstd(frames.finish())))
}

/// Shows all that is read to the frame parser.
struct FrameTee<'a, R> {
    inner: &'a mut R,
    frames: &'a mut Frames,
}

impl<R: Read> Read for FrameTee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.frames.feed(&buffer[..count]);
        Ok(count)
    }
}

/// Follows a zstd stream's structure without unpacking it. What is no zstd is left to the decoder to refuse.
#[derive(Default)]
struct Frames {
    state: ParserState,
    /// Bytes of the piece that is being gathered.
    piece: Vec<u8>,
    /// Bytes still to be passed over.
    skip: u64,
    checksum: bool,
    found: Zstd,
    hasher: Hasher,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum ParserState {
    #[default]
    Magic,
    SkippableSize,
    Descriptor,
    /// The rest of the header, of this many bytes.
    Header(u8),
    Block,
    Lost,
}

impl Frames {
    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.state != ParserState::Lost {
            if self.skip > 0 {
                let count = self.skip.min(bytes.len() as u64);
                self.skip -= count;
                bytes = &bytes[count as usize..];
                continue;
            }
            let wanted = match self.state {
                ParserState::Magic | ParserState::SkippableSize => 4,
                ParserState::Descriptor => 1,
                ParserState::Header(length) => usize::from(length),
                ParserState::Block => 3,
                ParserState::Lost => return,
            };
            let count = (wanted - self.piece.len()).min(bytes.len());
            self.piece.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.piece.len() == wanted {
                let piece = std::mem::take(&mut self.piece);
                self.state = self.next(&piece);
            }
        }
    }

    fn next(&mut self, piece: &[u8]) -> ParserState {
        let number = piece
            .iter()
            .rev()
            .fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        match self.state {
            ParserState::Magic if number == 0xfd2f_b528 => ParserState::Descriptor,
            ParserState::Magic if number & 0xffff_fff0 == 0x184d_2a50 => {
                self.found.skippable += 1;
                ParserState::SkippableSize
            }
            ParserState::SkippableSize => {
                self.skip = number;
                ParserState::Magic
            }
            ParserState::Descriptor => self.descriptor(piece[0]),
            ParserState::Header(_) => {
                self.header(piece);
                ParserState::Block
            }
            ParserState::Block => {
                // Block header (RFC 8878, 3.1.1.2): last block, type, size; a run-length block holds one byte.
                let size = if number >> 1 & 3 == 1 { 1 } else { number >> 3 };
                let last = number & 1 == 1;
                self.skip = size + if last && self.checksum { 4 } else { 0 };
                if last { ParserState::Magic } else { ParserState::Block }
            }
            ParserState::Magic | ParserState::Lost => ParserState::Lost,
        }
    }

    /// Frame header descriptor (RFC 8878, 3.1.1.1.1): which fields follow, and how long they are.
    fn descriptor(&mut self, byte: u8) -> ParserState {
        let single = byte >> 5 & 1 == 1;
        let dictionary = [0, 1, 2, 4][usize::from(byte & 3)];
        let content = match (byte >> 6, single) {
            (0, false) => 0,
            (0, true) => 1,
            (1, _) => 2,
            (2, _) => 4,
            _ => 8,
        };
        self.checksum = byte >> 2 & 1 == 1;
        self.found.frames += 1;
        // The width of the content size follows from the content, whether it is there does not.
        self.hasher.update(&[byte & 0x27, u8::from(content > 0)]);
        let window = u8::from(!single);
        let yes = |flag: bool| if flag { "yes" } else { "no" };
        if self.found.frames == 1 {
            self.found.header = format!(
                "checksum {}, content size {}, single segment {}",
                yes(self.checksum),
                yes(content > 0),
                yes(single)
            );
        }
        match window + dictionary + content {
            0 => ParserState::Block,
            length => ParserState::Header(length),
        }
    }

    fn header(&mut self, piece: &[u8]) {
        let single = self.found.header.ends_with("single segment yes");
        if self.found.frames == 1 && !single {
            // Window descriptor (3.1.1.1.2): exponent and mantissa.
            let (exponent, mantissa) = (u32::from(piece[0] >> 3), u64::from(piece[0] & 7));
            let base = 1u64 << (10 + exponent);
            self.found
                .header
                .push_str(&format!(", window {} bytes", base + base / 8 * mantissa));
            self.hasher.update(&piece[..1]);
        }
    }

    fn finish(mut self) -> Zstd {
        self.found.headers = Some(self.hasher.digest());
        self.found
    }
}

/// A buffered reader that can look ahead, and hashes what passes unless told not to.
struct Window<R> {
    inner: R,
    buffer: Vec<u8>,
    start: usize,
    hasher: Option<Hasher>,
    /// Bytes at the front that are not hashed.
    unhashed: usize,
}

impl<R: Read> Window<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            buffer: Vec::new(),
            start: 0,
            hasher: None,
            unhashed: 0,
        }
    }

    fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Has at least `count` bytes buffered, or all that are left.
    fn fill(&mut self, count: usize) -> io::Result<()> {
        if self.buffered().len() >= count {
            return Ok(());
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        let missing = count.max(BUFFER) - self.buffer.len();
        (&mut self.inner).take(missing as u64).read_to_end(&mut self.buffer)?;
        Ok(())
    }
}

impl<R: Read> Read for Window<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for Window<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.fill(1)?;
        Ok(self.buffered())
    }

    fn consume(&mut self, count: usize) {
        let quiet = self.unhashed.min(count);
        self.unhashed -= quiet;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&self.buffer[self.start + quiet..self.start + count]);
        }
        self.start += count;
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_packing() {
        crate::testing::fuzz("packing", |bytes| {
            if let Ok(packed) = super::read(bytes, bytes.len() as u64) {
                let _ = super::compare(&packed, &packed);
            }
        });
    }
}
