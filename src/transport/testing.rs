//! *Test images*: small, built by hand, and the real programs that serve as second opinions.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::digest::{DiffId, Digest, Hasher};
use crate::image::Image;
use crate::layer::{Blob, Layer};
use crate::oci::Compression;

/// A file of a test layer.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) path: String,
    pub(crate) flag: u8,
    pub(crate) mode: u32,
    pub(crate) owner: (u64, u64),
    pub(crate) mtime: u64,
    pub(crate) data: Vec<u8>,
    pub(crate) link: String,
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
    pub(crate) gnu: bool,
}

impl Node {
    fn new(path: &str, flag: u8, mode: u32) -> Self {
        Self {
            path: path.to_owned(),
            flag,
            mode,
            owner: (0, 0),
            mtime: 1,
            data: Vec::new(),
            link: String::new(),
            xattrs: Vec::new(),
            gnu: false,
        }
    }

    pub(crate) fn file(path: &str, data: impl AsRef<[u8]>) -> Self {
        Self {
            data: data.as_ref().to_vec(),
            ..Self::new(path, b'0', 0o444)
        }
    }

    pub(crate) fn dir(path: &str) -> Self {
        Self::new(&format!("{path}/"), b'5', 0o555)
    }

    pub(crate) fn symlink(path: &str, target: &str) -> Self {
        Self {
            link: target.to_owned(),
            ..Self::new(path, b'2', 0o777)
        }
    }

    pub(crate) fn hard_link(path: &str, target: &str) -> Self {
        Self {
            link: target.to_owned(),
            ..Self::new(path, b'1', 0o444)
        }
    }

    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }
}

/// The tar of these files, ending in 1024 zero bytes.
pub(crate) fn tar(nodes: &[Node]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for node in nodes {
        let xattrs = node
            .xattrs
            .iter()
            .map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.as_slice()));
        let xattrs: Vec<(String, &[u8])> = xattrs.collect();
        if !xattrs.is_empty() {
            builder
                .append_pax_extensions(xattrs.iter().map(|(key, value)| (key.as_str(), *value)))
                .unwrap();
        }
        let mut header = if node.gnu {
            tar::Header::new_gnu()
        } else {
            tar::Header::new_ustar()
        };
        let name = &mut header.as_old_mut().name;
        name[..node.path.len()].copy_from_slice(node.path.as_bytes());
        let link = &mut header.as_old_mut().linkname;
        link[..node.link.len()].copy_from_slice(node.link.as_bytes());
        header.set_entry_type(tar::EntryType::new(node.flag));
        header.set_mode(node.mode);
        header.set_uid(node.owner.0);
        header.set_gid(node.owner.1);
        header.set_mtime(node.mtime);
        header.set_size(node.data.len() as u64);
        header.set_cksum();
        builder.append(&header, &node.data[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

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

pub(crate) fn layer(tar: &[u8], compression: Compression) -> Layer {
    let bytes = compress(tar, compression);
    let mut hasher = Hasher::new();
    hasher.update(tar);
    Layer {
        diff_id: hasher.diff_id(),
        digest: Digest::of(&bytes),
        size: bytes.len() as u64,
        tar_size: tar.len() as u64,
        compression,
        store_paths: Vec::new(),
        comment: String::new(),
        blob: Blob::Bytes(Arc::from(bytes)),
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
pub(crate) fn image_of(layers: Vec<Layer>, config: &Value, annotations: Option<Value>) -> Image {
    let config = config.to_string().into_bytes();
    let descriptors: Vec<Value> = layers
        .iter()
        .map(|layer| {
            let suffix = match layer.compression {
                Compression::None => "",
                Compression::Gzip(_) => "+gzip",
                Compression::Zstd(_) => "+zstd",
            };
            json!({
                "mediaType": format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
                "digest": layer.digest,
                "size": layer.size,
            })
        })
        .collect();
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
        digest: Digest::of(&manifest),
        config_digest: Digest::of(&config),
        manifest,
        config,
        layers,
    }
}

/// An image of these tars.
pub(crate) fn image(tars: &[(Vec<u8>, Compression)]) -> Image {
    let layers: Vec<Layer> = tars.iter().map(|(tar, compression)| layer(tar, *compression)).collect();
    let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id).collect();
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

/// Whether a program that a test compares with is here. A missing one is said loudly, and fails in CI.
pub(crate) fn oracle(program: &str) -> bool {
    let probe = match program {
        "docker" => ["info"],
        "openssl" => ["version"],
        _ => ["--version"],
    };
    let found = Command::new(program)
        .args(probe)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        #[expect(clippy::disallowed_methods, reason = "tests must tell CI from a desk")]
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(
            !ci,
            "`{program}` is missing, and CI must not skip what is compared with it"
        );
        let text = format!("SKIPPED: `{program}` is missing, nothing was compared with it\n");
        std::io::stderr().write_all(text.as_bytes()).unwrap();
    }
    found
}

/// Runs a program that must succeed.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Standard output of a program that must succeed, trimmed.
pub(crate) fn stdout(command: &mut Command) -> String {
    String::from_utf8(run(command).stdout).unwrap().trim().to_owned()
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
