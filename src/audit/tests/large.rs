//! A layer of a file larger than the memory it may take.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use super::super::*;
use super::named;
use crate::digest::HashingWriter;
use crate::layer::{Blob, Compression, Layer};
use crate::transport::testing::*;
use crate::transport::{Archive, Location, ReadOptions, Sink};

const SIZE: u64 = 160 << 20;
/// Buffers, threads and the program itself; a twentieth part of this would do.
const MEMORY_MAX: u64 = 80 << 20;

/// A plain layer of one large file, all zeros but for its last byte; only the tar's ends are in memory.
fn large(dir: &Path, last: u8) -> Layer {
    let path = dir.join(format!("large-{last}"));
    let mut file = File::create(&path).unwrap();
    file.seek(SeekFrom::Start(SIZE - 1)).unwrap();
    file.write_all(&[last]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path("large").unwrap();
    header.set_mode(0o444);
    header.set_size(SIZE);
    header.set_cksum();
    let bytes = |bytes: &[u8]| Blob::Bytes(bytes.to_vec().into());
    let content = Blob::File {
        path,
        offset: 0,
        len: SIZE,
    };
    let blob = Blob::Parts(vec![bytes(header.as_bytes()), content, bytes(&[0; 1024])]);
    let mut hashing = HashingWriter::new(std::io::sink());
    std::io::copy(&mut blob.open(), &mut hashing).unwrap();
    let (_, hasher, size) = hashing.finish();
    Layer {
        diff_id: hasher.clone().diff_id(),
        digest: hasher.digest(),
        size,
        tar_size: size,
        compression: Compression::None,
        store_paths: Vec::new(),
        comment: String::new(),
        blob,
    }
}

/// The most memory this process ever had, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_large_layer_is_written_read_and_compared_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let image = |last| {
        let layer = large(dir.path(), last);
        let config = config(&[layer.diff_id]);
        image_of(vec![layer], &config, None)
    };
    let (a, b) = (image(1), image(2));
    let path = dir.path().join("a.tar");
    Archive::docker(&path).put(&a, &["a".to_owned()]).unwrap();
    let source = Location::Path(path).source(&ReadOptions::default()).unwrap();
    assert!(verify(&*source).unwrap().ok());
    let report = diff(&*source, &b, &DiffOptions::default()).unwrap();
    assert_eq!(named(&report), ["layer changed", "large content"]);
    let Difference::File(file) = &report.differences[1] else {
        unreachable!()
    };
    assert_eq!(
        file.content,
        Some(ContentChange {
            kind: "binary",
            offset: SIZE - 1,
            bytes: 1,
            text: None,
            inside: Vec::new()
        })
    );
    let peak = peak_memory();
    assert!(peak < MEMORY_MAX, "{peak} bytes of memory for a file of {SIZE}");
}
