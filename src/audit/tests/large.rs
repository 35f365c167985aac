//! A layer of a file larger than the memory it may take.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::*;
use super::named;
use crate::digest::HashingWriter;
use crate::image::{Image, ImageLayer};
use crate::layer::Blob;
use crate::oci::{Compression, Descriptor, Document, MediaType};
use crate::transport::testing::*;
use crate::transport::{Archive, Location, ReadOptions, Sink, Source, TransportError};

const SIZE: u64 = 160 << 20;
/// Buffers, threads and the program itself; a twentieth part of this would do.
const MEMORY_MAX: u64 = 80 << 20;

/// A plain layer of one large file, all zeros but for its last byte; only the tar's ends are in memory.
fn large(dir: &Path, last: u8) -> ImageLayer {
    sized(dir, last, SIZE)
}

fn sized(dir: &Path, last: u8, size: u64) -> ImageLayer {
    let path = dir.join(format!("large-{last}"));
    let mut file = File::create(&path).unwrap();
    file.seek(SeekFrom::Start(size - 1)).unwrap();
    file.write_all(&[last]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path("large").unwrap();
    header.set_mode(0o444);
    header.set_size(size);
    header.set_cksum();
    let bytes = |bytes: &[u8]| Blob::Bytes(bytes.to_vec().into());
    let content = Blob::File {
        path,
        offset: 0,
        len: size,
    };
    let blob = Blob::Parts(vec![bytes(header.as_bytes()), content, bytes(&[0; 1024])]);
    let mut hashing = HashingWriter::new(std::io::sink());
    std::io::copy(&mut blob.open(), &mut hashing).unwrap();
    let (_, hasher, tar_size) = hashing.finish();
    ImageLayer {
        diff_id: Some(hasher.clone().diff_id()),
        descriptor: Descriptor::new(MediaType::LAYER, hasher.digest(), tar_size),
        content: blob,
    }
}

/// Counts the bytes that are read of an image's blobs.
struct Counting<'a> {
    image: &'a Image,
    read: Arc<AtomicU64>,
}

impl Source for Counting<'_> {
    fn place(&self) -> &str {
        "counting"
    }

    fn document(&self) -> Result<Document, TransportError> {
        self.image.document()
    }

    fn blob(&self, digest: &ContentDigest, size: u64) -> Result<Box<dyn Read + Send>, TransportError> {
        let blob = self.image.blob(digest, size)?;
        Ok(Box::new(CountingReader(blob, self.read.clone())))
    }
}

struct CountingReader(Box<dyn Read + Send>, Arc<AtomicU64>);

impl Read for CountingReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Two images of 1 GB each that differ in one small layer, or in how small layers are cut: of each no more is read than
/// its config and its own small layers, twice (to find what differs, and to say where).
#[test]
fn of_two_images_of_a_gigabyte_only_the_layer_that_differs_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let big = sized(dir.path(), 1, 1_000_000_000);
    let small = |nodes: &[Node]| layer(&tar(nodes), Compression::None);
    let (one, two) = (Node::file("one", "1\n"), Node::file("two", "2\n"));
    let other = Node::file("two", "3\n");
    let of = |layers: Vec<ImageLayer>| {
        let diff_ids: Vec<_> = layers.iter().filter_map(|layer| layer.diff_id).collect();
        image_of(layers, &config(&diff_ids), None)
    };
    let a = of(vec![big.clone(), small(&[one.clone(), two.clone()])]);
    for (b, expected) in [
        (
            of(vec![big.clone(), small(&[one.clone(), other])]),
            vec![Class::Content],
        ),
        (
            of(vec![big.clone(), small(&[one]), small(&[two])]),
            vec![Class::Layering],
        ),
    ] {
        let side = |image| Counting {
            image,
            read: Arc::default(),
        };
        let (x, y) = (side(&a), side(&b));
        let report = diff(&x, &y, &DiffOptions::default()).unwrap();
        assert_eq!(report.classes.into_iter().collect::<Vec<_>>(), expected);
        for (image, read) in [
            (&a, x.read.load(Ordering::Relaxed)),
            (&b, y.read.load(Ordering::Relaxed)),
        ] {
            let own: u64 = image.layers[1..].iter().map(|layer| layer.size()).sum();
            let most = image.config.size() + 2 * own;
            assert!(read <= most && read > own, "{read} bytes of {most}");
        }
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
        let config = config(&[layer.diff_id.unwrap()]);
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
