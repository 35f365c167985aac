//! A *zip reader* follows the members of a zip archive as its bytes stream by (APPNOTE.TXT 6.3, §4.3).
//!
//! Invariant: it reads local headers only, so it needs neither the directory at the archive's end nor a second
//! read; memory is bounded by the header's 16-bit lengths. Members it cannot unpack are passed over.

use super::codec::{PackingCodec, Pumped};
use super::{ReferenceSearch, ScanStream};

/// First bytes of an archive: the signature of a local header.
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";

/// Signature of the directory at the end: no member follows.
const DIRECTORY: &[u8] = b"PK\x01\x02";

/// Length of a local header's fixed part.
const HEADER: usize = 30;

/// Longest name that is shown.
const SHOWN_NAME: usize = 200;

/// The reader's place in an archive.
pub(super) struct ZipScanner {
    inside: Vec<String>,
    state: ZipState,
}

enum ZipState {
    /// Looking for the next signature: the last three bytes seen. Between two members there may be a data descriptor,
    /// padding, or contents of unknown length.
    Between(Vec<u8>),
    /// Reading a local header: what was read of it.
    Header(Vec<u8>),
    /// In a member's data.
    Member(Box<ZipMember>),
}

struct ZipMember {
    /// Bytes of data still to come, where the header tells.
    left: Option<u64>,
    data: MemberData,
}

enum MemberData {
    /// Stored as it is.
    Stored(ScanStream),
    Compressed(PackingCodec, ScanStream),
    /// Passed over.
    Opaque,
}

impl ZipScanner {
    pub(super) fn new(inside: Vec<String>) -> Self {
        Self {
            inside,
            state: ZipState::Between(Vec::new()),
        }
    }

    /// Follows the next piece; false where no member can come any more.
    pub(super) fn feed(&mut self, mut piece: &[u8], search: &mut ReferenceSearch<'_, '_>) -> bool {
        while !piece.is_empty() {
            let consumed = match &mut self.state {
                ZipState::Between(seen) => {
                    let Some((consumed, member_follows)) = find_signature(seen, piece) else {
                        return true;
                    };
                    if !member_follows {
                        return false;
                    }
                    self.state = ZipState::Header(MAGIC.to_vec());
                    consumed
                }
                ZipState::Header(header) => {
                    let wanted = header_length(header) - header.len();
                    let consumed = wanted.min(piece.len());
                    header.extend_from_slice(&piece[..consumed]);
                    if header.len() == header_length(header) {
                        self.state = open_member(header, &self.inside);
                    }
                    consumed
                }
                ZipState::Member(member) => match member.feed(piece, search) {
                    Some(consumed) => {
                        self.state = ZipState::Between(Vec::new());
                        consumed
                    }
                    None => piece.len(),
                },
            };
            if search.budget.exceeded {
                return false;
            }
            piece = &piece[consumed..];
        }
        true
    }
}

/// Looks for a signature in what was seen before and `piece`: how much of `piece` it ends at, and whether a member
/// follows.
fn find_signature(seen: &mut Vec<u8>, piece: &[u8]) -> Option<(usize, bool)> {
    let before = seen.len();
    seen.extend_from_slice(piece);
    for at in memchr::memchr_iter(b'P', seen) {
        for signature in [MAGIC, DIRECTORY] {
            if seen[at..].starts_with(signature) {
                return Some((at + signature.len() - before, signature == MAGIC));
            }
        }
    }
    // What may be the beginning of one.
    let settled = seen.len().saturating_sub(MAGIC.len() - 1);
    seen.drain(..settled);
    None
}

/// Length of a local header with its name and extra fields, as far as `header` tells.
fn header_length(header: &[u8]) -> usize {
    match (number(header, 26, 2), number(header, 28, 2)) {
        (Some(name), Some(extra)) => HEADER + name as usize + extra as usize,
        _ => HEADER,
    }
}

/// The little-endian number of `length` bytes at `at`.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + length)?;
    Some(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

/// What follows a complete local header.
fn open_member(header: &[u8], inside: &[String]) -> ZipState {
    let field = |at, length| number(header, at, length).unwrap_or_default();
    let (flags, method) = (field(6, 2), field(8, 2));
    let name_end = HEADER + field(26, 2) as usize;
    let (encrypted, sizes_follow) = (flags & 1 != 0, flags & 8 != 0);
    let left = match field(18, 4) {
        0xffff_ffff => zip64_size(header.get(name_end..).unwrap_or_default()),
        0 if sizes_follow => None,
        size => Some(size),
    };
    let name = header.get(HEADER..name_end).unwrap_or_default();
    let shown = crate::store::evidence::printable(&name[..name.len().min(SHOWN_NAME)]);
    let stream = || ScanStream::inner(inside, format!("zip member {shown}"));
    let codec = match (method, left) {
        _ if encrypted => None,
        (8, _) => PackingCodec::deflate(),
        (12, Some(_)) => PackingCodec::bzip2(),
        (93, Some(_)) => PackingCodec::zstd(),
        (95, Some(_)) => PackingCodec::xz(),
        _ => None,
    };
    let data = match (codec, method, left) {
        (Some(codec), ..) => MemberData::Compressed(codec, stream()),
        (None, 0, Some(_)) if !encrypted => MemberData::Stored(stream()),
        // Contents of unknown length: whatever looks like the next header is taken for it.
        (None, _, None) => return ZipState::Between(Vec::new()),
        _ => MemberData::Opaque,
    };
    ZipState::Member(Box::new(ZipMember { left, data }))
}

/// The compressed size in the zip64 extra field (§4.5.3).
fn zip64_size(mut extra: &[u8]) -> Option<u64> {
    loop {
        let (id, length) = (number(extra, 0, 2)?, number(extra, 2, 2)? as usize);
        let field = extra.get(4..4 + length)?;
        if id == 1 {
            return number(field, 8, 8);
        }
        extra = &extra[4 + length..];
    }
}

impl ZipMember {
    /// Reads on; how much of `piece` the member ends at, `None` where it goes on after it.
    fn feed(&mut self, piece: &[u8], search: &mut ReferenceSearch<'_, '_>) -> Option<usize> {
        let most = self.left.and_then(|left| usize::try_from(left).ok());
        let mine = &piece[..most.unwrap_or(usize::MAX).min(piece.len())];
        let mut ended = None;
        match &mut self.data {
            MemberData::Stored(stream) => stream.feed(mine, search),
            MemberData::Opaque => {}
            MemberData::Compressed(codec, stream) => match codec.pump(mine, stream, search) {
                Pumped::NeedsMore => {}
                Pumped::Ended { consumed } if self.left.is_none() => ended = Some(consumed),
                Pumped::Ended { .. } => self.data = MemberData::Opaque,
                Pumped::Failed if self.left.is_none() => ended = Some(0),
                Pumped::Failed => self.data = MemberData::Opaque,
            },
        }
        if let Some(left) = &mut self.left {
            *left -= mine.len() as u64;
            if *left == 0 {
                ended = Some(mine.len());
            }
        }
        ended
    }
}
