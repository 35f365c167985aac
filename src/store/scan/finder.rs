//! The *finder* searches a stream of bytes for the hashes of store paths, at the speed of memory.
//!
//! Invariant: what it finds does not depend on how the stream is cut into pieces.
//!
//! A hash is 32 characters of an alphabet of 32, so a byte outside the alphabet rules out all 32 windows that
//! hold it: the search looks at the *last* byte of a window first and mostly jumps by 32. Windows that survive
//! are looked up in a table; their number, and so the speed, does not depend on how many hashes are searched.
//! UTF-16 interleaves the characters with zero bytes, either order: such a stretch of 63 bytes covers any two
//! neighbouring bytes tested every 32 bytes, one of which is zero and the other in the alphabet.

use crate::store_path::{BASE32_ALPHABET, HASH_CHARS, StorePath};

/// Bytes from the first character of a UTF-16 spelling to the last, that one's zero byte left out.
const WIDE: usize = 2 * HASH_CHARS - 1;

/// Bytes carried from one piece to the next: one less than the longest spelling.
const CARRY: usize = WIDE - 1;

const IN_ALPHABET: [bool; 256] = {
    let mut table = [false; 256];
    let mut index = 0;
    while index < BASE32_ALPHABET.len() {
        table[BASE32_ALPHABET[index] as usize] = true;
        index += 1;
    }
    table
};

/// The hashes to be searched for, as text, in an open-addressing table.
pub(in crate::store) struct Needles {
    hashes: Vec<[u8; HASH_CHARS]>,
    /// Index into `hashes` plus one; 0 is free. Its length is a power of two, at least twice that of `hashes`.
    slots: Vec<u32>,
}

impl Needles {
    /// The hashes of `paths`; what is found is said by index in that order.
    pub(in crate::store) fn new<'a>(paths: impl IntoIterator<Item = &'a StorePath>) -> Self {
        let hashes: Vec<[u8; HASH_CHARS]> = paths
            .into_iter()
            .map(|path| {
                let text = path.hash().to_string();
                text.as_bytes()
                    .try_into()
                    .expect("a store path's hash prints as 32 characters")
            })
            .collect();
        let mut slots = vec![0u32; (hashes.len() * 4).next_power_of_two().max(4)];
        let mask = slots.len() - 1;
        for (index, hash) in (1u32..).zip(&hashes) {
            let mut slot = slot_of(hash) & mask;
            while slots[slot] != 0 {
                slot = (slot + 1) & mask;
            }
            slots[slot] = index;
        }
        Self { hashes, slots }
    }

    /// How many there are.
    pub(in crate::store) fn len(&self) -> usize {
        self.hashes.len()
    }

    fn get(&self, window: &[u8; HASH_CHARS]) -> Option<usize> {
        let mask = self.slots.len() - 1;
        let mut slot = slot_of(window) & mask;
        loop {
            let index = self.slots[slot].checked_sub(1)? as usize;
            if self.hashes[index] == *window {
                return Some(index);
            }
            slot = (slot + 1) & mask;
        }
    }
}

/// Mixes characters of a window; hashes are random, other windows need not be spread well.
fn slot_of(window: &[u8; HASH_CHARS]) -> usize {
    let word = |at: usize| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|index| window[at + index]));
    let mixed = (word(0) ^ word(16).rotate_left(31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize
}

/// How a hash that was found is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) enum Spelling {
    /// A byte a character.
    Bytes,
    /// Two bytes a character.
    Utf16,
}

/// A hash that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct Hit {
    /// Where its first character stands in the stream.
    pub offset: u64,
    pub spelling: Spelling,
    /// Index into the [`Needles`].
    pub needle: usize,
}

/// The search of one stream.
#[derive(Default)]
pub(in crate::store) struct Finder {
    /// The last bytes before the next piece.
    carry: Vec<u8>,
    /// Bytes seen.
    offset: u64,
}

impl Finder {
    /// Searches the next piece, and what spans it and the pieces before.
    pub(in crate::store) fn feed(&mut self, needles: &Needles, piece: &[u8], found: &mut dyn FnMut(Hit)) {
        if needles.len() == 0 || piece.is_empty() {
            return;
        }
        let start = self.offset;
        if !self.carry.is_empty() {
            let seam_start = start - self.carry.len() as u64;
            let boundary = self.carry.len();
            self.carry.extend_from_slice(&piece[..piece.len().min(CARRY)]);
            // What lies wholly on one side was found there, or will be.
            search(needles, &self.carry, &mut |at, length, spelling, needle| {
                if at < boundary && at + length > boundary {
                    let offset = seam_start + at as u64;
                    found(Hit {
                        offset,
                        spelling,
                        needle,
                    });
                }
            });
            self.carry.truncate(boundary);
        }
        search(needles, piece, &mut |at, _, spelling, needle| {
            let offset = start + at as u64;
            found(Hit {
                offset,
                spelling,
                needle,
            });
        });
        self.offset += piece.len() as u64;
        self.carry
            .extend_from_slice(&piece[piece.len().saturating_sub(CARRY)..]);
        let excess = self.carry.len().saturating_sub(CARRY);
        self.carry.drain(..excess);
    }
}

/// Calls `found` with place, length in bytes, spelling and needle.
fn search(needles: &Needles, bytes: &[u8], found: &mut dyn FnMut(usize, usize, Spelling, usize)) {
    search_bytes(needles, bytes, &mut |at, needle| {
        found(at, HASH_CHARS, Spelling::Bytes, needle)
    });
    search_utf16(needles, bytes, &mut |at, needle| {
        found(at, WIDE, Spelling::Utf16, needle)
    });
}

fn search_bytes(needles: &Needles, bytes: &[u8], found: &mut dyn FnMut(usize, usize)) {
    let mut start = 0;
    while let Some(window) = bytes.get(start..start + HASH_CHARS) {
        if let Some(outside) = window.iter().rposition(|&byte| !IN_ALPHABET[usize::from(byte)]) {
            start += outside + 1;
            continue;
        }
        // A run of the alphabet: every window in it is a candidate, and only its next byte needs a look.
        loop {
            let window = bytes[start..].first_chunk().expect("the loop stays inside the slice");
            if let Some(needle) = needles.get(window) {
                found(start, needle);
            }
            start += 1;
            match bytes.get(start + HASH_CHARS - 1) {
                Some(&byte) if IN_ALPHABET[usize::from(byte)] => {}
                _ => break,
            }
        }
        start += HASH_CHARS;
    }
}

fn search_utf16(needles: &Needles, bytes: &[u8], found: &mut dyn FnMut(usize, usize)) {
    let is_character = |at: usize| bytes.get(at).is_some_and(|&byte| IN_ALPHABET[usize::from(byte)]);
    let is_zero = |at: usize| bytes.get(at) == Some(&0);
    let mut probe = 0;
    while probe + 1 < bytes.len() {
        let character = match (bytes[probe], bytes[probe + 1]) {
            (byte, 0) if IN_ALPHABET[usize::from(byte)] => probe,
            (0, byte) if IN_ALPHABET[usize::from(byte)] => probe + 1,
            _ => {
                probe += HASH_CHARS;
                continue;
            }
        };
        let mut first = character;
        while first >= 2 && is_zero(first - 1) && is_character(first - 2) {
            first -= 2;
        }
        let mut last = character;
        while is_zero(last + 1) && is_character(last + 2) {
            last += 2;
        }
        probe = (probe + HASH_CHARS).max(last + 1);
        if last - first + 1 < WIDE {
            continue;
        }
        let run: Vec<u8> = bytes[first..=last].iter().copied().step_by(2).collect();
        for (index, window) in run.windows(HASH_CHARS).enumerate() {
            let window = window.first_chunk().expect("windows are this long");
            if let Some(needle) = needles.get(window) {
                found(first + 2 * index, needle);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::strategy::Strategy as _;

    use super::*;

    const A: &str = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-a";
    const B: &str = "zmdqa9w1p6cmli6976v4wi0sw9r4p5pz-b";

    fn needles() -> Needles {
        Needles::new([A, B].map(|text| text.parse::<StorePath>().unwrap()).iter())
    }

    fn find(pieces: &[&[u8]]) -> Vec<(u64, Spelling, usize)> {
        let mut finder = Finder::default();
        let mut hits = Vec::new();
        for piece in pieces {
            finder.feed(&needles(), piece, &mut |hit| {
                hits.push((hit.offset, hit.spelling, hit.needle))
            });
        }
        hits.sort_unstable();
        hits
    }

    fn wide(text: &str, big_endian: bool) -> Vec<u8> {
        text.encode_utf16()
            .flat_map(|unit| {
                if big_endian {
                    unit.to_be_bytes()
                } else {
                    unit.to_le_bytes()
                }
            })
            .collect()
    }

    #[test]
    fn a_hash_is_found_wherever_the_stream_is_cut() {
        let le = wide(&A[..HASH_CHARS], false);
        let be = wide(&A[..HASH_CHARS], true);
        let spellings = [
            (&A.as_bytes()[..HASH_CHARS], Spelling::Bytes, 0),
            (&le, Spelling::Utf16, 0),
            (&be, Spelling::Utf16, 1),
        ];
        for (text, spelling, shift) in spellings {
            for before in [0, 1, 2, 31, 33, 100] {
                let mut stream = vec![b'/'; before];
                stream.extend_from_slice(text);
                stream.extend_from_slice(b"/bin/x");
                let expected = vec![(before as u64 + shift, spelling, 0)];
                for cut in 0..=stream.len() {
                    assert_eq!(
                        find(&[&stream[..cut], &stream[cut..]]),
                        expected,
                        "{spelling:?} {before} {cut}"
                    );
                }
                let bytes: Vec<&[u8]> = stream.chunks(1).collect();
                assert_eq!(find(&bytes), expected, "byte by byte");
                let threes: Vec<&[u8]> = stream.chunks(3).collect();
                assert_eq!(find(&threes), expected, "in threes");
            }
        }
    }

    #[test]
    fn neighbours_inside_one_run_are_all_found() {
        let (a, b) = (&A[..HASH_CHARS], &B[..HASH_CHARS]);
        let text = format!("{a}{b}00{a}");
        let expected = [(0, 0), (32, 1), (66, 0)];
        let plain = expected.map(|(at, needle)| (at, Spelling::Bytes, needle));
        assert_eq!(find(&[text.as_bytes()]), plain);
        let spread = expected.map(|(at, needle)| (at * 2, Spelling::Utf16, needle));
        assert_eq!(find(&[&wide(&text, false)]), spread);
    }

    #[test]
    fn what_is_no_hash_is_not_found() {
        let broken = A[..HASH_CHARS].replace('w', "e");
        for stream in [
            &A.as_bytes()[1..],
            &A.as_bytes()[..31],
            broken.as_bytes(),
            &[0; 500],
            &[b'0'; 500],
        ] {
            assert_eq!(find(&[stream]), [], "{stream:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_search_agrees_with_a_naive_one(
            parts in proptest::collection::vec(
                proptest::prop_oneof![
                    proptest::collection::vec(proptest::num::u8::ANY, 0..70),
                    "[0-9a-z]{0,40}".prop_map(String::into_bytes),
                    proptest::strategy::Just(A.as_bytes()[..HASH_CHARS].to_vec()),
                    proptest::strategy::Just(wide(&B[..HASH_CHARS], false)),
                    proptest::strategy::Just(wide(&B[..HASH_CHARS], true)),
                ], 0..12),
            cuts in proptest::collection::vec(1usize..90, 1..8),
        ) {
            let stream = parts.concat();
            let mut pieces = Vec::new();
            let mut rest = stream.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            proptest::prop_assert_eq!(find(&pieces), naive(&stream));
        }
    }

    fn naive(stream: &[u8]) -> Vec<(u64, Spelling, usize)> {
        let mut hits = Vec::new();
        for (needle, text) in [A, B].iter().enumerate() {
            let hash = &text.as_bytes()[..HASH_CHARS];
            let mut spread = hash.iter().flat_map(|&byte| [byte, 0]).collect::<Vec<_>>();
            spread.pop();
            for at in 0..stream.len() {
                if stream[at..].starts_with(hash) {
                    hits.push((at as u64, Spelling::Bytes, needle));
                }
                if stream[at..].starts_with(&spread) {
                    hits.push((at as u64, Spelling::Utf16, needle));
                }
            }
        }
        hits.sort_unstable();
        hits
    }
}
