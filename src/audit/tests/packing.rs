//! Blobs of one tar: what tells them apart, and what hostile ones do.

use super::super::*;
use super::{GZIP, tree};
use crate::digest::Digest;
use crate::image::{Image, ImageLayer};
use crate::layer::Blob;
use crate::oci::{Compression, Descriptor};
use crate::transport::testing::*;

/// An image whose one layer has these bytes instead of its own.
fn stored(mut layer: ImageLayer, bytes: Vec<u8>) -> Image {
    layer.descriptor = Descriptor::new(&layer.descriptor.media_type, Digest::of(&bytes), bytes.len() as u64);
    layer.content = Blob::Bytes(bytes.into());
    let config = config(&[layer.diff_id.unwrap()]);
    image_of(vec![layer], &config, None)
}

fn classes(a: &Image, b: &Image) -> Vec<Class> {
    let report = diff(a, b, &DiffOptions::default()).unwrap();
    report.classes.into_iter().collect()
}

#[test]
fn bytes_after_the_stream_are_told() {
    let tar = tar(&tree());
    let bytes = compress(&tar, GZIP);
    let plain = stored(layer(&tar, GZIP), bytes.clone());
    let longer = stored(layer(&tar, GZIP), [&bytes[..], &[0; 7]].concat());
    assert_eq!(classes(&plain, &longer), [Class::BlobTrailer]);
}

#[test]
fn gzip_headers_with_every_field_are_read() {
    let tar = tar(&tree());
    let deflated = compress(&tar, GZIP)[10..].to_vec();
    let with = |header: &[u8]| stored(layer(&tar, GZIP), [header, &deflated[..]].concat());
    let plain = with(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    for header in [
        &[0x1f, 0x8b, 8, 0, 9, 0, 0, 0, 0, 255][..],
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255],
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3],
        &[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 2, 0, b'x', b'y'],
        &[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 255, b'n', 0],
        &[0x1f, 0x8b, 8, 24, 0, 0, 0, 0, 0, 255, b'n', 0, b'c', 0],
    ] {
        assert_eq!(classes(&plain, &with(header)), [Class::GzipHeader], "{header:?}");
    }
    let endless = with(&[&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 255][..], &[b'n'; 70_000]].concat());
    let error = diff(&plain, &endless, &DiffOptions::default()).unwrap_err();
    assert!(matches!(error, AuditError::Layer { .. }), "{error}");
}

#[test]
fn zstd_frames_are_followed() {
    let tar = tar(&tree());
    let bytes = compress(&tar, Compression::Zstd(3));
    let plain = stored(layer(&tar, Compression::Zstd(3)), bytes.clone());
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &bytes].concat();
    assert_eq!(
        classes(&plain, &stored(layer(&tar, Compression::Zstd(3)), skippable)),
        [Class::ZstdFrame]
    );
    let (head, tail) = tar.split_at(1000);
    let frames = [head, tail].map(|part| compress(part, Compression::Zstd(3))).concat();
    assert_eq!(
        classes(&plain, &stored(layer(&tar, Compression::Zstd(3)), frames)),
        [Class::ZstdFrame]
    );
    let cut = stored(layer(&tar, Compression::Zstd(3)), bytes[..bytes.len() - 3].to_vec());
    assert!(diff(&plain, &cut, &DiffOptions::default()).is_err());
}
