//! The *budget* of an audit: how much memory what is kept of layers may take, whatever an image holds.
//!
//! Invariant: everything whose number or size a layer decides is paid for before it is kept. With what the documents and
//! the program itself take, no verb that reads images needs more than 512 MB.

use std::collections::BTreeMap;
use std::io;

use crate::archive::tar::Entry;

/// What is kept of the layers of one audit, in bytes.
const KEPT_MAX: usize = 256 << 20;

/// What each thing on the heap costs besides its own bytes: the allocator's, and its share of a tree's node.
const OVERHEAD: usize = 48;

/// What is left of the memory for the layers of an audit.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: KEPT_MAX }
    }
}

impl Budget {
    /// Pays for something of so many bytes, in so many pieces; the error says that the layer holds too much.
    pub(super) fn take(&mut self, bytes: usize, pieces: usize) -> io::Result<()> {
        match self.left.checked_sub(bytes.saturating_add(pieces * OVERHEAD)) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                let text = "the image has more entries, names and attributes than fit into the memory that reading it may take \
                            (512 MB): this is not an image to run";
                Err(io::Error::new(io::ErrorKind::FileTooLarge, text))
            }
        }
    }

    /// Gives back what is no longer kept.
    pub(super) fn give_back(&mut self, bytes: usize, pieces: usize) {
        self.left = (self.left + bytes + pieces * OVERHEAD).min(KEPT_MAX);
    }
}

/// What an entry takes besides its own struct: bytes, and the pieces that they are in.
pub(super) fn size_of_entry(entry: &Entry) -> (usize, usize) {
    fn map<K: AsRef<[u8]>>(map: &BTreeMap<K, Vec<u8>>) -> (usize, usize) {
        let bytes = map
            .iter()
            .map(|(key, value)| key.as_ref().len() + value.len() + 48)
            .sum();
        (bytes, 2 * map.len())
    }
    let texts = [&entry.path, &entry.link, &entry.uname, &entry.gname];
    let bytes: usize = texts.iter().map(|text| text.len()).sum();
    let pieces = texts.iter().filter(|text| !text.is_empty()).count();
    let (xattrs, others) = (map(&entry.xattrs), map(&entry.form.pax_other));
    let keys: usize = entry.form.pax.iter().map(|key| key.len() + 24).sum();
    (
        bytes + xattrs.0 + others.0 + keys,
        pieces + xattrs.1 + others.1 + entry.form.pax.len(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_paid_for_once() {
        let mut budget = Budget::default();
        budget.take(KEPT_MAX - OVERHEAD, 1).unwrap();
        assert_eq!(budget.take(1, 0).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        budget.give_back(10, 0);
        budget.take(10, 0).unwrap();
        assert!(budget.take(usize::MAX, 1).is_err());
    }
}
