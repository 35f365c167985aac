//! The *inside* of two contents: where they differ, by the form that both have.
//!
//! Invariant: bounded in size, depth and number; a form that cannot be read is a binary; a function of the bytes alone.

use std::io::Read;

use super::report::{ContentChange, InsideChange};
use super::sequence::{self, TextLimits};
use crate::archive::compression::Decompressor;
use crate::oci::CompressionFormat;

mod elf;
mod members;

/// Largest content that is looked into, in bytes.
pub(super) const SIZE_MAX: u64 = 24 << 20;
/// Largest text of which lines are shown.
const TEXT_MAX: usize = 1 << 20;
/// Largest member of an archive that is looked into, and largest unpacked content.
const MEMBER_MAX: u64 = 8 << 20;
/// Archives in archives.
const DEPTH_MAX: usize = 3;
/// Most differing parts that are told of one file.
const PARTS_MAX: usize = 40;

/// Explains the difference of two contents; `name` is the file's.
pub(super) fn explain(name: &str, a: &[u8], b: &[u8], limits: &TextLimits) -> ContentChange {
    compare(name, a, b, limits, 0)
}

fn compare(name: &str, a: &[u8], b: &[u8], limits: &TextLimits, depth: usize) -> ContentChange {
    let both = a.iter().zip(b);
    let mut change = ContentChange {
        kind: "binary",
        offset: both.clone().take_while(|(x, y)| x == y).count() as u64,
        bytes: both.filter(|(x, y)| x != y).count() as u64,
        text: None,
        inside: Vec::new(),
    };
    if let (Some(x), Some(y)) = (text(a), text(b)) {
        change.kind = "text";
        change.text = Some(sequence::unified(x, y, limits));
        return change;
    }
    let found = elf::compare(a, b)
        .or_else(|| python(name, a, b))
        .or_else(|| (depth < DEPTH_MAX).then(|| members::compare(a, b, limits, depth))?)
        .or_else(|| (depth < DEPTH_MAX).then(|| unpacked(name, a, b, limits, depth))?);
    if let Some((kind, mut inside)) = found {
        let more = inside.len().saturating_sub(PARTS_MAX);
        inside.truncate(PARTS_MAX);
        if more > 0 {
            inside.push(part(format!("and {more} more"), None, None));
        }
        change.kind = kind;
        change.inside = inside;
    }
    change
}

fn text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok().filter(|_| bytes.len() <= TEXT_MAX)?;
    (!text.contains('\0')).then_some(text)
}

fn part(part: String, a: Option<String>, b: Option<String>) -> InsideChange {
    InsideChange {
        part,
        a,
        b,
        content: None,
    }
}

/// A part that differs if its two texts do.
fn differing(name: &str, a: Option<String>, b: Option<String>) -> Option<InsideChange> {
    (a != b).then(|| part(name.to_owned(), a, b))
}

type Found = Option<(&'static str, Vec<InsideChange>)>;

/// Compiled Python: its header names the source's time and size (PEP 552).
fn python(name: &str, a: &[u8], b: &[u8]) -> Found {
    const HEADER: usize = 16;
    let is_python = |bytes: &[u8]| bytes.len() >= HEADER && bytes[2..4] == *b"\r\n";
    if !name.ends_with(".pyc") || !is_python(a) || !is_python(b) {
        return None;
    }
    let number = |bytes: &[u8], at: usize| {
        let field: Vec<u8> = bytes[at..at + 4].to_vec();
        Some(
            field
                .iter()
                .rev()
                .fold(0u64, |value, &byte| value << 8 | u64::from(byte))
                .to_string(),
        )
    };
    let fields = [
        ("flags", 4),
        ("source's mtime or hash", 8),
        ("source's size or hash", 12),
    ];
    let mut inside: Vec<InsideChange> = fields
        .iter()
        .filter_map(|(what, at)| differing(what, number(a, *at), number(b, *at)))
        .collect();
    let code = |bytes: &[u8]| Some(format!("{} bytes", bytes.len() - HEADER));
    if a[HEADER..] != b[HEADER..] {
        inside.push(part("code".to_owned(), code(a), code(b)));
    }
    Some(("pyc", inside))
}

/// Compressed contents: what is in them, and how it is packed where that is the same.
fn unpacked(name: &str, a: &[u8], b: &[u8], limits: &TextLimits, depth: usize) -> Found {
    let packing = CompressionFormat::sniff(a);
    if packing == CompressionFormat::None || packing != CompressionFormat::sniff(b) {
        return None;
    }
    let open = |bytes: &[u8]| {
        let mut out = Vec::new();
        let unpacker = Decompressor::new(bytes).ok()?;
        unpacker.take(MEMBER_MAX + 1).read_to_end(&mut out).ok()?;
        (out.len() as u64 <= MEMBER_MAX).then_some(out)
    };
    let (x, y) = (open(a)?, open(b)?);
    let size = |bytes: &[u8]| Some(format!("{} bytes", bytes.len()));
    let mut inside = Vec::new();
    if x == y {
        let header = |bytes: &[u8]| {
            let time = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
            Some(format!("mtime {time}, xfl {}, os {}", bytes.get(8)?, bytes.get(9)?))
        };
        if packing == CompressionFormat::Gzip {
            inside.extend(differing("gzip header", header(a), header(b)));
        }
        if inside.is_empty() {
            inside.push(part("compressed data of the same content".to_owned(), size(a), size(b)));
        }
    } else {
        let inner = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        let mut change = part("unpacked content".to_owned(), size(&x), size(&y));
        change.content = Some(Box::new(compare(inner, &x, &y, limits, depth + 1)));
        inside.push(change);
    }
    Some((packing.name(), inside))
}

/// Whether two contents are the same once hashes of store paths are blanked out.
pub(super) fn only_hashes_differ(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() || a == b {
        return false;
    }
    let blank = |bytes: &[u8]| {
        const HASH: usize = 32;
        let mut masked = bytes.to_vec();
        for prefix in ["/layerize/store/", "/nix/store/"] {
            for at in memchr::memmem::find_iter(bytes, prefix) {
                let from = at + prefix.len();
                let hash = bytes.get(from..from + HASH);
                let is_hash = hash.is_some_and(|hash| hash.iter().all(u8::is_ascii_alphanumeric));
                if is_hash && bytes.get(from + HASH) == Some(&b'-') {
                    masked[from..from + HASH].fill(b'x');
                }
            }
        }
        masked
    };
    blank(a) == blank(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn told(change: &ContentChange) -> Vec<String> {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let inside = change.inside.iter();
        inside
            .map(|part| format!("{}: {} → {}", part.part, text(&part.a), text(&part.b)))
            .collect()
    }

    #[test]
    fn only_hashes_of_store_paths_are_blanked() {
        let text = |hash: char, rest: &str| {
            format!("/layerize/store/{}-hello-2.10/{rest}", hash.to_string().repeat(32)).into_bytes()
        };
        assert!(only_hashes_differ(&text('0', "x"), &text('1', "x")));
        assert!(!only_hashes_differ(&text('0', "x"), &text('1', "y")));
        assert!(!only_hashes_differ(&text('0', "x"), &text('0', "x")));
        assert!(!only_hashes_differ(b"/layerize/store/short", b"/layerize/store/shirt"));
        assert!(!only_hashes_differ(b"a", b"ab"));
    }

    #[test]
    fn compressed_contents_are_unpacked_or_told_to_be_packed_otherwise() {
        let gzip = |text: &str, time: u32| {
            let mut encoder = flate2::GzBuilder::new()
                .mtime(time)
                .write(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        let same = explain("x.gz", &gzip("a", 1), &gzip("a", 2), &TextLimits::new(9));
        assert_eq!(
            (same.kind, told(&same)),
            (
                "gzip",
                vec!["gzip header: mtime 1, xfl 4, os 255 → mtime 2, xfl 4, os 255".to_owned()]
            )
        );
        let other = explain("x.gz", &gzip("a\n", 1), &gzip("b\n", 1), &TextLimits::new(9));
        let inner = other.inside[0].content.as_ref().unwrap();
        assert_eq!(
            (inner.kind, inner.text.as_deref()),
            ("text", Some("@@ -1 +1 @@\n-a\n+b"))
        );
    }

    #[test]
    fn compiled_python_is_told_by_its_header() {
        let pyc =
            |time: u8, code: &[u8]| [&[0xa7, 0x0d, b'\r', b'\n', 0, 0, 0, 0, time, 0, 0, 0, 9, 0, 0, 0], code].concat();
        let change = explain("x.pyc", &pyc(1, b"\xff"), &pyc(2, b"\xff"), &TextLimits::new(9));
        assert_eq!(
            (change.kind, told(&change)),
            ("pyc", vec!["source's mtime or hash: 1 → 2".to_owned()])
        );
    }

    proptest::proptest! {
        /// Forms with some of their bytes changed are looked into without a panic, whatever they then say.
        #[test]
        fn damaged_forms_do_no_harm(form in 0usize..4, changes in proptest::collection::vec((0usize..1 << 16, 0u8..), 1..20)) {
            use crate::transport::testing::{Node, tar};
            let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
            zip.start_file("a", zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(&[7; 100]).unwrap();
            let elf = std::fs::read("/bin/true").unwrap_or_default();
            let header = |name: &str, size: usize| format!("{name:<16}{:<12}0     0     100644  {size:<10}`\n\u{1}\0", 0);
            let forms = [
                zip.finish().unwrap().into_inner(),
                tar(&[Node::file("a", "1"), Node::file("b", "2")]),
                ["!<arch>\n".to_owned(), header("a/", 2), header("b/", 2)].concat().into_bytes(),
                elf,
            ];
            let whole = &forms[form];
            let mut damaged = whole.clone();
            for (at, byte) in changes {
                let length = damaged.len().max(1);
                // Most of what can be wrong stands at the front or the end.
                let at = if at % 2 == 0 { at % length.min(600) } else { length - 1 - at % length.min(2000) };
                if let Some(place) = damaged.get_mut(at) {
                    *place = byte;
                }
            }
            explain("x", whole, &damaged, &TextLimits::new(9));
            explain("x", &damaged, &damaged[..damaged.len() / 2], &TextLimits::new(9));
        }
    }

    #[test]
    fn what_only_looks_like_a_form_is_a_binary() {
        for magic in [
            &b"\x7fELF\x02\x01\x01"[..],
            b"PK\x03\x04",
            b"!<arch>\n",
            b"\x1f\x8b\x08",
            b"\x28\xb5\x2f\xfd",
        ] {
            let (a, b) = ([magic, &[0xff; 700]].concat(), [magic, &[0xfe; 700]].concat());
            let change = explain("x", &a, &b, &TextLimits::new(9));
            assert_eq!(
                (change.kind, change.offset, change.bytes),
                ("binary", magic.len() as u64, 700)
            );
        }
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_inside() {
        crate::testing::fuzz("inside", |bytes| {
            let half = bytes.len() / 2;
            let changed = [&bytes[..half], b"x", &bytes[half..]].concat();
            for name in ["a.pyc", "a"] {
                let _ = super::explain(name, bytes, &changed, &super::TextLimits::new(10));
            }
        });
    }
}
