//! A *header* of the outer tar: the 512 bytes before each file of an image archive.
//!
//! Invariant: a function of name, kind and size alone: ustar (POSIX.1-1988), mtime 1, owner 0:0 without names, mode
//! 0444 for files and 0755 for directories (so that `tar xf` can fill them), device numbers 0. A file of 8 GiB and
//! more, which ustar cannot say, has its size in a pax `x` header before it (POSIX.1-2001).

use crate::archive::tar::{HeaderFields, SIZE_MAX, append_record, append_with_content};

/// Header blocks of a file.
pub(super) fn file(name: &str, size: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if size > SIZE_MAX {
        let mut record = Vec::new();
        append_record(&mut record, "size", size.to_string().as_bytes());
        append_with_content(
            &mut bytes,
            &fields("pax/size", b'x', 0o444, record.len() as u64),
            &record,
        );
    }
    bytes.extend(fields(name, b'0', 0o444, size.min(SIZE_MAX)).encode());
    bytes
}

/// Header block of a directory; its name ends in `/`.
pub(super) fn directory(name: &str) -> Vec<u8> {
    fields(name, b'5', 0o755, 0).encode().to_vec()
}

/// Names of an image archive are at most 77 bytes.
fn fields(name: &str, flag: u8, mode: u32, size: u64) -> HeaderFields<'_> {
    HeaderFields {
        name: name.as_bytes(),
        size,
        mode,
        flag,
        ..HeaderFields::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Kind;
    use crate::archive::tar::{Entry, Streamed, TarPolicy, TarReader};

    fn read_back(header: &[u8]) -> Entry {
        let mut reader = TarReader::new(Streamed(header), TarPolicy::IMAGE);
        reader.next_entry().unwrap().unwrap()
    }

    #[test]
    fn headers_say_what_was_asked() {
        let entry = read_back(&file("blobs/sha256/x", 5));
        assert_eq!(
            (entry.path.as_slice(), entry.kind, entry.mode, entry.size),
            (&b"blobs/sha256/x"[..], Kind::File, 0o444, 5)
        );
        assert_eq!((entry.uid, entry.gid, entry.mtime), (0, 0, (1, 0)));
        let entry = read_back(&directory("blobs/"));
        assert_eq!((entry.kind, entry.mode, entry.size), (Kind::Directory, 0o755, 0));
    }

    #[test]
    fn sizes_beyond_octal_are_in_a_pax_record() {
        for size in [SIZE_MAX, SIZE_MAX + 1, 99_999_999_999, 10_000_000_000_000] {
            let entry = read_back(&file("x", size));
            assert_eq!((entry.size, entry.form.pax.contains("size")), (size, size > SIZE_MAX));
        }
    }
}
