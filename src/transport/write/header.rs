//! A *header* of the outer tar: the 512 bytes before each file of an image archive.
//!
//! Invariant: a function of name, kind and size alone: ustar (POSIX.1-1988), mtime 1, owner 0:0 without names, mode
//! 0444 for files and 0755 for directories (so that `tar xf` can fill them), device numbers 0. A file of 8 GiB and
//! more, which ustar cannot say, has its size in a pax `x` header before it (POSIX.1-2001).

const BLOCK: usize = 512;
/// Largest size that eleven octal digits can say.
const OCTAL_MAX: u64 = 0o77_777_777_777;

/// Header blocks of a file.
pub(super) fn file(name: &str, size: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if size > OCTAL_MAX {
        let record = size_record(size);
        bytes.extend(block("pax/size", b'x', 0o444, record.len() as u64));
        bytes.extend(&record);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.extend(block(name, b'0', 0o444, size.min(OCTAL_MAX)));
    bytes
}

/// Header block of a directory; its name ends in `/`.
pub(super) fn directory(name: &str) -> Vec<u8> {
    block(name, b'5', 0o755, 0).to_vec()
}

fn block(name: &str, flag: u8, mode: u32, size: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    debug_assert!(name.len() <= 100, "names of an image archive are at most 77 bytes");
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000001\0");
    put(148, b"        ");
    put(156, &[flag]);
    put(257, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// `LENGTH size=N\n`, where LENGTH counts its own digits.
fn size_record(size: u64) -> Vec<u8> {
    let body = format!(" size={size}\n");
    let mut length = body.len();
    while length != body.len() + length.to_string().len() {
        length = body.len() + length.to_string().len();
    }
    format!("{length}{body}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::super::tar_read::{Kind, Streamed, TarReader};
    use super::*;

    fn read_back(header: &[u8]) -> super::super::super::tar_read::Entry {
        TarReader::new(Streamed(header)).next_entry().unwrap().unwrap()
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
        for size in [OCTAL_MAX, OCTAL_MAX + 1, 99_999_999_999, 10_000_000_000_000] {
            let entry = read_back(&file("x", size));
            assert_eq!((entry.size, entry.form.pax.contains("size")), (size, size > OCTAL_MAX));
        }
    }
}
