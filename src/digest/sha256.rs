//! A *hasher* is a running SHA-256 (FIPS 180-4).
//!
//! Invariant: the digest is that of all bytes taken in, however they were split and whether they were taken in alone
//! or together with another hasher.

use sha2::block_api::compress256;

use super::{DiffId, Digest, two_lanes};

/// The state before the first block (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// Bytes in a block.
pub(super) const BLOCK: usize = 64;

/// A running SHA-256.
#[derive(Clone)]
pub struct Hasher {
    state: [u32; 8],
    /// The block that was begun: its first `filled` bytes.
    begun: [u8; BLOCK],
    filled: usize,
    /// Number of bytes taken in.
    size: u64,
}

impl Default for Hasher {
    fn default() -> Self {
        Self {
            state: INITIAL,
            begun: [0; BLOCK],
            filled: 0,
            size: 0,
        }
    }
}

impl Hasher {
    /// Starts with no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let (blocks, rest) = self.complete(bytes).as_chunks();
        compress256(&mut self.state, blocks);
        self.begin(rest);
    }

    /// Takes the next bytes of both into `self` and `other`: the same as two updates, in two thirds of the time where
    /// the processor can interleave them.
    pub fn update_with(&mut self, other: &mut Self, bytes: &[u8]) {
        let (blocks, rest) = self.complete(bytes).as_chunks();
        let (other_blocks, other_rest) = other.complete(bytes).as_chunks();
        let common = blocks.len().min(other_blocks.len());
        let (blocks, left) = blocks.split_at(common);
        let (other_blocks, other_left) = other_blocks.split_at(common);
        two_lanes::compress([&mut self.state, &mut other.state], [blocks, other_blocks]);
        compress256(&mut self.state, left);
        compress256(&mut other.state, other_left);
        self.begin(rest);
        other.begin(other_rest);
    }

    /// The digest of all bytes taken in, as stored bytes.
    pub fn digest(self) -> Digest {
        Digest::from_bytes(self.finish())
    }

    /// The digest of all bytes taken in, as an uncompressed layer tar.
    pub fn diff_id(self) -> DiffId {
        DiffId::from_bytes(self.finish())
    }

    /// Completes the block that was begun, as far as the bytes suffice, and gives back those that are left.
    fn complete<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        self.size += bytes.len() as u64;
        if self.filled == 0 {
            return bytes;
        }
        let (first, rest) = bytes.split_at(bytes.len().min(BLOCK - self.filled));
        self.begin(first);
        if self.filled == BLOCK {
            compress256(&mut self.state, &[self.begun]);
            self.filled = 0;
        }
        rest
    }

    /// Keeps bytes of a block that is not whole yet.
    fn begin(&mut self, bytes: &[u8]) {
        self.begun[self.filled..][..bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    /// Pads the last block (FIPS 180-4, 5.1.1).
    fn finish(mut self) -> [u8; 32] {
        let bits = self.size.wrapping_mul(8).to_be_bytes();
        let zeros = (2 * BLOCK - 9 - self.filled) % BLOCK;
        let padding = [&[0x80][..], &[0; BLOCK][..zeros], &bits].concat();
        self.update(&padding);
        let mut digest = [0; 32];
        for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }
        digest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn expected(bytes: &[u8]) -> Digest {
        Digest::from_bytes(Sha256::digest(bytes).into())
    }

    #[test]
    fn every_length_of_padding_is_right() {
        let bytes: Vec<u8> = (0..=255).cycle().take(300).collect();
        for len in 0..bytes.len() {
            let mut hasher = Hasher::new();
            hasher.update(&bytes[..len]);
            assert_eq!(hasher.digest(), expected(&bytes[..len]), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn two_hashers_together_are_as_two_alone(
            before in prop::collection::vec(any::<u8>(), 0..200),
            other_before in prop::collection::vec(any::<u8>(), 0..200),
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 0..6),
        ) {
            let (mut hasher, mut other) = (Hasher::new(), Hasher::new());
            hasher.update(&before);
            other.update(&other_before);
            for part in &parts {
                hasher.update_with(&mut other, part);
            }
            let whole = |begin: &[u8]| expected(&[begin, &parts.concat()].concat());
            prop_assert_eq!(hasher.digest(), whole(&before));
            prop_assert_eq!(other.digest(), whole(&other_before));
        }
    }
}
