//! `ld.so.cache`: the list of libraries that `ldconfig` makes (glibc's `dl-cache.h`, format 1.1).
//!
//! Invariant: a damaged list is as good as what of it can be read; what it names is looked up anyway.

use std::collections::BTreeMap;

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER_SIZE: usize = 48;
const ENTRY_SIZE: usize = 24;

/// Paths by library name, in the order of the list. The old format may stand before the new one.
pub(super) fn read(bytes: &[u8]) -> BTreeMap<String, Vec<String>> {
    let start = memchr::memmem::find(bytes, MAGIC);
    let bytes = start.map_or(&[][..], |start| &bytes[start..]);
    // Byte 28 tells the byte order where it is set at all: 2 is little, 3 is big.
    let is_big_endian = bytes.get(28).is_some_and(|flags| flags & 3 == 3);
    let number = |at: usize| -> Option<u32> {
        let bytes: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if is_big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    };
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let count = number(MAGIC.len()).unwrap_or(0) as usize;
    for index in 0..count.min(bytes.len() / ENTRY_SIZE) {
        let at = HEADER_SIZE + index * ENTRY_SIZE;
        let string = |at: usize| {
            let rest = bytes.get(number(at)? as usize..)?;
            let end = rest.iter().position(|&byte| byte == 0)?;
            Some(String::from_utf8_lossy(&rest[..end]).into_owned())
        };
        if let (Some(name), Some(path)) = (string(at + 4), string(at + 8)) {
            found.entry(name).or_default().push(path);
        }
    }
    found
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_loader_cache() {
        crate::testing::fuzz("loader-cache", |bytes| {
            for paths in super::read(bytes).values() {
                assert!(!paths.is_empty());
            }
        });
    }
}
