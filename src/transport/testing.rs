//! *Test images*: small, built by hand, and the real programs that serve as second opinions.

use std::io::{Cursor, Read};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Source, TransportError};
pub(crate) use crate::archive::testing::{Node, tar};
use crate::digest::{ContentDigest, DiffId, Digest, Hasher, VerifyingReader};
use crate::image::{Image, ImageLayer};
use crate::layer::Blob;
use crate::oci::{Compression, ConfigDocument, Descriptor, Document, Manifest, Raw};
pub(crate) use crate::testing::{oracle, run, stdout};

pub(crate) fn compress(bytes: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => bytes.to_vec(),
        Compression::Zstd(level) => zstd::encode_all(bytes, i32::from(level)).unwrap(),
        Compression::Gzip(level) => {
            let mut compressor =
                libdeflater::Compressor::new(libdeflater::CompressionLvl::new(i32::from(level)).unwrap());
            let mut out = vec![0; compressor.gzip_compress_bound(bytes.len())];
            let length = compressor.gzip_compress(bytes, &mut out).unwrap();
            out.truncate(length);
            out
        }
    }
}

pub(crate) fn layer(tar: &[u8], compression: Compression) -> ImageLayer {
    let bytes = compress(tar, compression);
    let mut hasher = Hasher::new();
    hasher.update(tar);
    ImageLayer {
        descriptor: Descriptor::new(compression.media_type(), Digest::of(&bytes), bytes.len() as u64),
        diff_id: Some(hasher.diff_id()),
        content: Blob::Bytes(Arc::from(bytes)),
    }
}

/// The config of an image of these layers that runs `/hello`.
pub(crate) fn config(diff_ids: &[DiffId]) -> Value {
    let history: Vec<Value> = diff_ids
        .iter()
        .map(|_| json!({ "created": "1970-01-01T00:00:01Z", "comment": "layer" }))
        .collect();
    json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "1970-01-01T00:00:01Z",
        "config": { "Entrypoint": ["/hello"], "Env": ["A=1", "PATH=/bin"], "WorkingDir": "/", "Labels": { "a": "b" } },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    })
}

/// An image of layers, a config and the manifest's annotations.
pub(crate) fn image_of(layers: Vec<ImageLayer>, config: &Value, annotations: Option<Value>) -> Image {
    let config = config.to_string().into_bytes();
    let descriptors: Vec<_> = layers.iter().map(|layer| &layer.descriptor).collect();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(&config),
            "size": config.len(),
        },
        "layers": descriptors,
    });
    if let Some(annotations) = annotations {
        manifest["annotations"] = annotations;
    }
    let manifest = manifest.to_string().into_bytes();
    Image {
        manifest: Raw::read(manifest).unwrap(),
        config: ConfigDocument::Image(Raw::read(config).unwrap()),
        layers,
    }
}

/// A layer's digest, which is a SHA-256 in all test images.
pub(crate) fn sha256(layer: &ImageLayer) -> Digest {
    match layer.digest() {
        ContentDigest::Sha256(digest) => digest,
        ContentDigest::Sha512(_) => panic!("{}", layer.digest()),
    }
}

/// The image with another manifest, whose layers have the same bytes.
pub(crate) fn with_manifest(image: &Image, manifest: Vec<u8>) -> Image {
    let manifest = Raw::<Manifest>::read(manifest).unwrap();
    let layers = image.layers.iter().zip(&manifest.layers);
    let layers = layers.map(|(layer, descriptor)| ImageLayer {
        descriptor: descriptor.clone(),
        ..layer.clone()
    });
    Image {
        layers: layers.collect(),
        manifest,
        ..image.clone()
    }
}

/// The image with a manifest that `change` was made to.
pub(crate) fn changed_manifest(image: &Image, change: impl FnOnce(&mut Value)) -> Image {
    let mut manifest = image.manifest.json();
    change(&mut manifest);
    with_manifest(image, manifest.to_string().into_bytes())
}

/// Documents that may be anything, and layers.
pub(crate) struct Loose {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<ImageLayer>,
}

impl Loose {
    pub(crate) fn of(image: &Image) -> Self {
        Self {
            manifest: image.manifest.bytes().to_vec(),
            config: image.config.bytes().to_vec(),
            layers: image.layers.clone(),
        }
    }
}

impl Source for Loose {
    fn place(&self) -> &str {
        "the built image"
    }

    fn document(&self) -> Result<Document, TransportError> {
        super::read_document(self.manifest.clone(), "", None, self.place())
    }

    fn blob(&self, digest: &ContentDigest, size: u64) -> Result<Box<dyn Read + Send>, TransportError> {
        if *digest == Digest::of(&self.config) {
            let config = Cursor::new(self.config.clone());
            return Ok(Box::new(VerifyingReader::new(config, *digest, Some(size))));
        }
        let layer = self.layers.iter().find(|layer| layer.digest() == *digest);
        let layer = layer.ok_or_else(|| TransportError::Missing {
            place: self.place().to_owned(),
            what: format!("the blob `{digest}`"),
        })?;
        Ok(Box::new(layer.content.open_verified(*digest, size)))
    }
}

/// An image of these tars.
pub(crate) fn image(tars: &[(Vec<u8>, Compression)]) -> Image {
    let layers: Vec<ImageLayer> = tars.iter().map(|(tar, compression)| layer(tar, *compression)).collect();
    let diff_ids: Vec<DiffId> = layers.iter().filter_map(|layer| layer.diff_id).collect();
    image_of(layers, &config(&diff_ids), None)
}

/// A fixed image of two layers that needs no compiler.
pub(crate) fn sample(compression: Compression) -> Image {
    let lower = tar(&[
        Node::dir("etc"),
        Node::file("etc/motd", "welcome\n"),
        Node::symlink("etc/issue", "motd"),
    ]);
    let upper = tar(&[Node::file("hello", b"#!/bin/sh\necho hello\n").mode(0o555)]);
    image(&[(lower, compression), (upper, compression)])
}

/// An image whose only file is a static program that prints "hello from layerize"; `None` where no compiler is.
/// `mark` makes it another image than every other test's: engines know images by their content.
pub(crate) fn runnable(compression: Compression, mark: &str) -> Option<Image> {
    if !oracle("gcc") {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("hello.c");
    std::fs::write(
        &source,
        "#include <stdio.h>\nint main(void) { puts(\"hello from layerize\"); return 0; }\n",
    )
    .unwrap();
    let program = dir.path().join("hello");
    let mut gcc = Command::new("gcc");
    run(gcc.args(["-static", "-Os", "-s", "-o"]).arg(&program).arg(&source));
    let binary = std::fs::read(program).unwrap();
    let upper = tar(&[Node::file("hello", binary).mode(0o555)]);
    let lower = tar(&[Node::dir("etc"), Node::file("etc/motd", mark)]);
    Some(image(&[(lower, compression), (upper, compression)]))
}

/// Arguments of a podman with a storage of its own; runc also runs where crun finds no cgroups to its liking.
pub(crate) fn podman(dir: &Path) -> Vec<String> {
    let at = |name: &str| dir.join(name).display().to_string();
    let arguments = [
        "--root",
        &at("root"),
        "--runroot",
        &at("run"),
        "--storage-driver",
        "vfs",
        "--cgroup-manager",
        "cgroupfs",
        "--runtime",
        "runc",
    ];
    arguments.iter().map(|&text| text.to_owned()).collect()
}
