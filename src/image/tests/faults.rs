//! Validation finds each broken link.

use std::sync::Arc;

use super::*;
use crate::layer::Blob;

fn sound(compression: Compression) -> Image {
    let mut fixture = Fixture::new();
    fixture.content("app", &[("bin/app", "#!"), ("share/x", "text text text text")]);
    let recipe = Recipe {
        compression,
        ..fixture.recipe()
    };
    assemble(&recipe, &Resources::default(), &Silent).map(loaded).unwrap()
}

/// The same image with its blobs in memory, so that they outlive their files.
fn loaded(mut image: Image) -> Image {
    for layer in &mut image.layers {
        let mut bytes = Vec::new();
        layer.open().read_to_end(&mut bytes).unwrap();
        layer.blob = Blob::Bytes(bytes.into());
    }
    image
}

fn bytes(layer: &Layer) -> Vec<u8> {
    match &layer.blob {
        Blob::Bytes(bytes) => bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// Replaces a layer's blob and all that is said of it as stored, so that only the tar is wrong.
fn replace_blob(image: &mut Image, index: usize, blob: Vec<u8>) {
    let layer = &mut image.layers[index];
    let (old_digest, old_size) = (layer.digest, layer.size);
    layer.digest = Digest::of(&blob);
    layer.size = blob.len() as u64;
    let manifest = String::from_utf8(image.manifest.clone()).unwrap();
    let manifest = manifest.replace(&old_digest.to_string(), &layer.digest.to_string());
    let manifest = manifest.replace(&format!("\"size\":{old_size}"), &format!("\"size\":{}", layer.size));
    layer.blob = Blob::Bytes(blob.into());
    reseal(image, manifest);
}

fn reseal(image: &mut Image, manifest: String) {
    image.digest = Digest::of(manifest.as_bytes());
    image.manifest = manifest.into_bytes();
}

fn faults(change: &dyn Fn(&mut Image)) -> Vec<String> {
    let mut image = sound(Compression::None);
    change(&mut image);
    validate(&image).iter().map(ToString::to_string).collect()
}

#[test]
fn sound_images_have_none() {
    for compression in [Compression::None, Compression::Gzip(6), Compression::Zstd(3)] {
        assert!(validate(&sound(compression)).is_empty(), "{compression:?}");
    }
}

#[test]
fn broken_documents_are_found() {
    let one = |change: &dyn Fn(&mut Image)| {
        let faults = faults(change);
        assert_eq!(faults.len(), 1, "{faults:#?}");
        faults.into_iter().next().unwrap()
    };
    let said = one(&|image| image.digest = Digest::of(b""));
    assert!(
        said.starts_with("the manifest's digest is said to be sha256:e3b0c44"),
        "{said}"
    );
    let said = one(&|image| image.manifest.push(b'\n'));
    assert!(said.starts_with("the manifest's digest is said to be"), "{said}");
    let said = one(&|image| {
        image.config.push(b' ');
        image.config_digest = Digest::of(&image.config);
        let manifest = String::from_utf8(image.manifest.clone()).unwrap();
        let size = image.config.len();
        let manifest = manifest.replace(&format!("\"size\":{}}},", size - 1), &format!("\"size\":{size}}},"));
        reseal(image, manifest);
    });
    assert!(
        said.starts_with("the manifest says of the config that its digest is"),
        "{said}"
    );
    let said = one(&|image| {
        let manifest = String::from_utf8(image.manifest.clone()).unwrap();
        reseal(image, manifest.replacen("layer.v1.tar\"", "layer.v1.tar+gzip\"", 1));
    });
    assert!(
        said.starts_with("the manifest says of layer 0 that its media type is"),
        "{said}"
    );
    let said = one(&|image| {
        let manifest = String::from_utf8(image.manifest.clone()).unwrap();
        reseal(
            image,
            manifest.replacen(&format!("\"size\":{}", image.layers[1].size), "\"size\":1", 1),
        );
    });
    assert!(
        said.starts_with("the manifest says of layer 1 that its size is 1"),
        "{said}"
    );
    let said = one(&|image| reseal(image, "{}".to_owned()));
    assert_eq!(said, "cannot read the image manifest");
}

#[test]
fn missing_layers_are_found() {
    let said = faults(&|image| drop(image.layers.pop()));
    assert_eq!(
        said,
        [
            "there are 1 layers, and 2 in the manifest",
            "there are 1 layers, and 2 in the config's diffIDs",
            "there are 1 layers, and 2 in the config's history",
        ]
    );
    let said = faults(&|image| image.layers.swap(0, 1));
    assert!(
        said.iter()
            .any(|said| said.starts_with("the manifest says of layer 0 that its digest is")),
        "{said:?}"
    );
    assert!(
        said.iter()
            .any(|said| said.starts_with("the config says of layer 0 that its diffID is")),
        "{said:?}"
    );
}

#[test]
fn broken_layers_are_found() {
    let said = faults(&|image| {
        let mut blob = bytes(&image.layers[0]);
        blob[600] ^= 1;
        image.layers[0].blob = Blob::Bytes(blob.into());
    });
    assert_eq!(said, ["cannot read layer 0"]);
    let said = faults(&|image| image.layers[0].blob = Blob::Bytes(Arc::from([])));
    assert_eq!(said, ["cannot read layer 0"]);
    let said = faults(&|image| {
        let mut blob = bytes(&image.layers[0]);
        blob[600] ^= 1;
        replace_blob(image, 0, blob);
    });
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].starts_with("the layer says of layer 0 that its diffID is"),
        "{said:?}"
    );
    assert!(
        said[1].starts_with("the config says of layer 0 that its diffID is"),
        "{said:?}"
    );
    let said = faults(&|image| image.layers[1].tar_size += 512);
    assert!(said[0].starts_with("the tar of layer 1 is said to have"), "{said:?}");
}

#[test]
fn broken_compression_is_found() {
    for compression in [Compression::Gzip(6), Compression::Zstd(3)] {
        let mut image = sound(compression);
        let mut blob = bytes(&image.layers[0]);
        blob.truncate(blob.len() - 3);
        replace_blob(&mut image, 0, blob);
        let said: Vec<_> = validate(&image).iter().map(ToString::to_string).collect();
        assert_eq!(said, ["cannot read layer 0"], "{compression:?}");
        let mut image = sound(compression);
        let blob = bytes(&image.layers[0]).repeat(2);
        replace_blob(&mut image, 0, blob);
        let said: Vec<_> = validate(&image).iter().map(ToString::to_string).collect();
        assert!(
            said[0].starts_with("the tar of layer 0 is said to have"),
            "{compression:?}: {said:?}"
        );
    }
}
