//! Tests of the scan as a whole: containers, nesting, bounds.

use std::io::Write;

use super::*;
use crate::store_path::{HASH_CHARS, StorePath};

const PATH: &str = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-a";

fn hash() -> &'static [u8] {
    &PATH.as_bytes()[..HASH_CHARS]
}

/// Where and how often the hash is found, and whether the scan was complete.
fn scan_pieces(bytes: &[u8], piece: usize, mut scan: FileScan) -> (Vec<(String, u64)>, bool) {
    let needles = Needles::new([PATH.parse::<StorePath>().unwrap()].iter());
    let mut hits = Vec::new();
    for piece in bytes.chunks(piece) {
        scan.feed(&needles, piece, &mut |inside, hit| {
            hits.push((inside.join("/"), hit.offset))
        });
    }
    hits.sort();
    (hits, !scan.incomplete())
}

/// As found in pieces of every size that matters.
fn scan(bytes: &[u8]) -> Vec<(String, u64)> {
    let (hits, complete) = scan_pieces(bytes, 128 * 1024, FileScan::new());
    assert!(complete);
    for piece in [1, 2, 7, 33, 4096] {
        let (others, _) = scan_pieces(bytes, piece, FileScan::new());
        assert_eq!(others, hits, "in pieces of {piece}");
    }
    hits
}

/// Some text around the hash, which starts at byte 100: letters of such frequencies that every compressor packs
/// them (and the hash among them) into fewer bits.
fn text() -> Vec<u8> {
    let mut state = 1u32;
    let mut letter = || {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12345);
        b"eeeeeeeettttttooooo uu,.-"[(state >> 16) as usize % 25]
    };
    let mut text: Vec<u8> = (0..100).map(|_| letter()).collect();
    text.extend_from_slice(hash());
    text.extend((0..4000).map(|_| letter()));
    text
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An archive of the `zip` crate.
fn zip(members: &[(&str, &[u8], ::zip::CompressionMethod)]) -> Vec<u8> {
    let mut writer = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes, method) in members {
        let options = ::zip::write::SimpleFileOptions::default().compression_method(*method);
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// An archive written without knowing sizes beforehand: each member ends with a data descriptor (as `zip -` does).
fn streamed_zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, contents) in members {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(contents).unwrap();
        let packed = encoder.finish().unwrap();
        bytes.extend_from_slice(b"PK\x03\x04\x14\0\x08\0\x08\0\0\0\0\0");
        bytes.extend_from_slice(&[0; 12]);
        bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(&packed);
        bytes.extend_from_slice(b"PK\x07\x08");
        bytes.extend_from_slice(&[0; 12]);
    }
    bytes.extend_from_slice(b"PK\x01\x02 the directory");
    bytes
}

const DEFLATED: ::zip::CompressionMethod = ::zip::CompressionMethod::Deflated;
const STORED: ::zip::CompressionMethod = ::zip::CompressionMethod::Stored;

fn found(inside: &str, offset: u64) -> (String, u64) {
    (inside.to_owned(), offset)
}

#[test]
fn hashes_are_found_in_every_container() {
    let text = text();
    let cases: [(&str, Vec<u8>); 5] = [
        ("", text.clone()),
        ("gzip", gzip(&text)),
        ("xz", xz(&text)),
        ("zstd", zstd(&text)),
        ("bzip2", bzip2(&text)),
    ];
    for (inside, bytes) in cases {
        assert_eq!(scan(&bytes), [found(inside, 100)], "{inside}");
    }
    let members = zip(&[
        ("a.txt", b"nothing", DEFLATED),
        ("d/b.txt", &text, DEFLATED),
        ("empty", b"", STORED),
    ]);
    assert_eq!(scan(&members), [found("zip member d/b.txt", 100)]);
}

#[test]
fn a_stored_zip_member_is_seen_as_bytes_and_as_a_member() {
    let archive = zip(&[("a", &text(), STORED), ("b", &text(), DEFLATED)]);
    let hits = scan(&archive);
    let [(plain, _), member, packed] = hits.as_slice() else {
        panic!("{hits:?}");
    };
    assert_eq!(
        (plain.as_str(), member, packed),
        ("", &found("zip member a", 100), &found("zip member b", 100))
    );
}

#[test]
fn archives_of_unknown_member_sizes_are_followed() {
    let (one, two) = (text(), [vec![b'.'; 70_000], text()].concat());
    let archive = streamed_zip(&[("one", &one), ("none", b"nothing"), ("two", &two)]);
    assert_eq!(
        scan(&archive),
        [found("zip member one", 100), found("zip member two", 70_100)]
    );
}

#[test]
fn a_zip_application_is_opened_after_its_first_line() {
    let mut application = b"#!/usr/bin/env python3\n".to_vec();
    application.extend_from_slice(&zip(&[("__main__.py", &text(), DEFLATED)]));
    assert_eq!(scan(&application), [found("zip member __main__.py", 100)]);
    let mut script = b"#!/bin/sh\necho ".to_vec();
    script.extend_from_slice(hash());
    assert_eq!(scan(&script), [found("", 15)]);
}

#[test]
fn containers_nest() {
    let jar = zip(&[("x.class", &text(), DEFLATED)]);
    let war = zip(&[("lib/x.jar", &jar, DEFLATED), ("y.gz", &gzip(&text()), STORED)]);
    let expected = [
        "gzip/zip member lib/x.jar/zip member x.class",
        "gzip/zip member y.gz/gzip",
    ];
    assert_eq!(scan(&gzip(&war)), expected.map(|inside| found(inside, 100)));
    assert_eq!(scan(&xz(&zstd(&text()))), [found("xz/zstd", 100)]);
}

#[test]
fn utf16_inside_a_container_is_found() {
    let wide: Vec<u8> = hash().iter().flat_map(|&byte| [byte, 0]).collect();
    assert_eq!(scan(&gzip(&wide)), [found("gzip", 0)]);
}

#[test]
fn members_that_follow_each_other_are_one_stream() {
    let text = text();
    let (first, second) = text.split_at(110);
    for pack in [gzip, zstd, bzip2, xz] {
        let bytes = [pack(first), pack(second)].concat();
        let hits = scan(&bytes);
        assert!(matches!(hits.as_slice(), [(_, 100)]), "{hits:?}");
    }
}

#[test]
fn what_is_corrupt_is_plain_bytes() {
    for pack in [gzip, zstd, bzip2, xz] {
        let good = pack(&text());
        for cut in [3, 5, 12, good.len() / 2, good.len() - 1] {
            let mut bytes = good[..cut.min(good.len())].to_vec();
            bytes.extend_from_slice(b" cut off here, then ");
            let at = bytes.len() as u64;
            bytes.extend_from_slice(hash());
            // How much of the good part is seen depends on the pieces; the bytes themselves always are.
            for piece in [1, 100, 4096] {
                let (hits, _) = scan_pieces(&bytes, piece, FileScan::new());
                assert!(hits.contains(&found("", at)), "{cut}");
            }
        }
    }
    let mut bytes = zip(&[("a", &text(), DEFLATED)]);
    bytes[40] ^= 0xff;
    bytes.extend_from_slice(hash());
    let (hits, _) = scan_pieces(&bytes, 4096, FileScan::new());
    assert!(hits.contains(&found("", bytes.len() as u64 - 32)));
}

#[test]
fn a_bomb_is_left_alone_and_told() {
    // A megabyte of zeros is 1 KiB of gzip, and with the hash at its end.
    let mut zeros = vec![0; 1 << 20];
    zeros.extend_from_slice(hash());
    let bomb = gzip(&zeros);
    let (hits, complete) = scan_pieces(&bomb, 4096, FileScan::with_budget(100_000));
    assert_eq!((hits, complete), (vec![], false), "{} bytes", bomb.len());
    let (hits, complete) = scan_pieces(&bomb, 4096, FileScan::with_budget(2 << 20));
    assert_eq!((hits.len(), complete), (1, true));
    let (_, complete) = scan_pieces(&zip(&[("z", &zeros, DEFLATED)]), 4096, FileScan::with_budget(100_000));
    assert!(!complete);
}

#[test]
fn the_depth_is_bounded() {
    let mut bytes = text();
    for _ in 0..MAX_DEPTH {
        bytes = gzip(&bytes);
    }
    let (hits, complete) = scan_pieces(&bytes, 4096, FileScan::new());
    assert_eq!((hits.len(), complete), (1, true));
    let (hits, complete) = scan_pieces(&gzip(&bytes), 4096, FileScan::new());
    assert_eq!((hits.len(), complete), (0, false));
}

proptest::proptest! {
    #[test]
    fn hostile_containers_never_panic(
        which in 0usize..6,
        damage in proptest::collection::vec((proptest::num::usize::ANY, proptest::num::u8::ANY), 0..6),
        piece in 1usize..200,
    ) {
        let mut bytes = match which {
            0 => gzip(&text()),
            1 => xz(&text()),
            2 => zstd(&text()),
            3 => bzip2(&text()),
            4 => zip(&[("a", &text(), DEFLATED), ("b", &gzip(&text()), STORED)]),
            _ => streamed_zip(&[("a", &text()), ("b", &text())]),
        };
        for (at, value) in damage {
            let index = at % bytes.len();
            bytes[index] = value;
        }
        scan_pieces(&bytes, piece, FileScan::new());
    }
}
