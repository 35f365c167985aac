//! Archives that lie: each has its own clear error.

use std::error::Error;
use std::fs;

use serde_json::{Value, json};

use super::super::testing::*;
use super::super::*;
use crate::layer::Blob;
use crate::oci::{Compression, MediaType};

fn layer_bytes(image: &Image, index: usize) -> Vec<u8> {
    let Blob::Bytes(bytes) = &image.layers[index].content else {
        unreachable!()
    };
    bytes.to_vec()
}

/// The files of an OCI archive.
fn oci(image: &Image) -> Vec<Node> {
    let blob = |digest: &Digest, bytes: &[u8]| Node::file(&format!("blobs/sha256/{}", digest.hex()), bytes);
    let index = json!({ "manifests": [{ "mediaType": MediaType::MANIFEST, "digest": image.digest(), "size": image.manifest.size() }] });
    vec![
        Node::file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
        Node::file("index.json", index.to_string()),
        blob(&image.digest(), image.manifest.bytes()),
        blob(&image.config_digest(), image.config.bytes()),
        blob(&sha256(&image.layers[0]), &layer_bytes(image, 0)),
        blob(&sha256(&image.layers[1]), &layer_bytes(image, 1)),
    ]
}

/// The files of an old docker archive.
fn docker(image: &Image) -> Vec<Node> {
    let item = json!({ "Config": "config.json", "RepoTags": null, "Layers": ["a/layer.tar", "b/layer.tar"] });
    vec![
        Node::file("manifest.json", json!([item]).to_string()),
        Node::file("config.json", image.config.bytes()),
        Node::file("a/layer.tar", layer_bytes(image, 0)),
        Node::file("b/layer.tar", layer_bytes(image, 1)),
    ]
}

/// Reads all of an archive; the text of the error with all its causes.
fn read_all(bytes: &[u8]) -> Result<(), String> {
    let text = |error: &dyn Error| {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        text
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar");
    fs::write(&path, bytes).unwrap();
    let source = Location::Path(path)
        .source(&ReadOptions::default())
        .map_err(|error| text(&error))?;
    source.config().map_err(|error| text(&error))?;
    let manifest = source.manifest().unwrap();
    for layer in &manifest.layers {
        let mut reader = source.blob(&layer.digest, layer.size).map_err(|error| text(&error))?;
        std::io::copy(&mut reader, &mut std::io::sink()).map_err(|error| error.to_string())?;
    }
    source.contradictions().into_iter().next().map_or(Ok(()), Err)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn lies_of_an_oci_archive_are_found_out() {
    let image = sample(Compression::Gzip(6));
    assert_eq!(read_all(&tar(&oci(&image))), Ok(()));
    let index = |change: &dyn Fn(&mut Value)| {
        let mut nodes = oci(&image);
        let mut value: Value = serde_json::from_slice(&nodes[1].data).unwrap();
        change(&mut value);
        nodes[1].data = value.to_string().into_bytes();
        tar(&nodes)
    };
    let nodes = |change: &dyn Fn(&mut Vec<Node>)| {
        let mut nodes = oci(&image);
        change(&mut nodes);
        tar(&nodes)
    };
    let flip = |n: usize| nodes(&|nodes| nodes[n].data[20] ^= 1);
    let layer = image.layers[1].digest();
    let cases: Vec<(&str, Vec<u8>, String)> = vec![
        (
            "a changed manifest",
            flip(2),
            format!("the manifest `{}`", image.digest()),
        ),
        (
            "a changed config",
            flip(3),
            format!("the config `{}`", image.config_digest()),
        ),
        (
            "a changed layer",
            flip(4),
            format!("expected {}, got", image.layers[0].digest()),
        ),
        (
            "a missing layer",
            nodes(&|nodes| nodes.truncate(5)),
            format!("the blob `{layer}` is missing"),
        ),
        (
            "a short layer",
            nodes(&|nodes| nodes[5].data.truncate(50)),
            "got 50".into(),
        ),
        ("a long layer", nodes(&|nodes| nodes[5].data.push(0)), "expected".into()),
        (
            "a missing config",
            nodes(&|nodes| drop(nodes.remove(3))),
            "is missing".into(),
        ),
        (
            "a missing oci-layout",
            nodes(&|nodes| drop(nodes.remove(0))),
            "no `oci-layout`".into(),
        ),
        (
            "two indexes",
            nodes(&|nodes| nodes.push(nodes[1].clone())),
            "appears twice".into(),
        ),
        (
            "two indexes by another spelling",
            nodes(&|nodes| nodes.push(Node::file("./index.json", "{}"))),
            "appears twice".into(),
        ),
        (
            "a huge manifest",
            index(&|value| value["manifests"][0]["size"] = (1u64 << 40).into()),
            "larger than 4194304".into(),
        ),
        (
            "a negative size",
            index(&|value| value["manifests"][0]["size"] = (-1).into()),
            "`index.json`".into(),
        ),
        (
            "a digest that is a path",
            index(&|value| value["manifests"][0]["digest"] = "sha256:../../etc/passwd".into()),
            "`manifests[0].digest`: it is `sha256:../../etc/passwd`, which is not a digest".into(),
        ),
        (
            "no image",
            index(&|value| value["manifests"] = json!([])),
            "lists no image".into(),
        ),
        (
            "another media type",
            index(&|value| value["manifests"][0]["mediaType"] = "text/plain".into()),
            "".into(),
        ),
        (
            "a layout of another version",
            nodes(&|nodes| nodes[0].data = br#"{"imageLayoutVersion":"2.0"}"#.to_vec()),
            "`2.0`".into(),
        ),
        (
            "a path outside",
            nodes(&|nodes| nodes.push(Node::file("../evil", ""))),
            "leads out of the archive".into(),
        ),
        (
            "a blob that is an absolute link",
            nodes(&|nodes| {
                nodes[4] = Node::symlink(&nodes[4].path, "/etc/passwd");
            }),
            "is a link to `/etc/passwd`, outside".into(),
        ),
        (
            "a blob that is a link upwards",
            nodes(&|nodes| {
                nodes[4] = Node::symlink(&nodes[4].path, "../../../etc/passwd");
            }),
            "outside the archive".into(),
        ),
        (
            "a blob that is a link to itself",
            nodes(&|nodes| {
                let name = nodes[4].path.rsplit('/').next().unwrap().to_owned();
                nodes[4] = Node::symlink(&nodes[4].path, &name);
            }),
            "more than 8 links".into(),
        ),
        (
            "a blob that is a directory",
            nodes(&|nodes| nodes[4] = Node::dir(&nodes[4].path)),
            "is missing".into(),
        ),
        (
            "a blob that is a hard link to the index",
            nodes(&|nodes| {
                nodes[4] = Node::hard_link(&nodes[4].path, "index.json");
            }),
            "expected".into(),
        ),
        (
            "two faces",
            nodes(&|nodes| {
                nodes.push(Node::file("manifest.json", r#"[{"Config":"other.json","Layers":[]}]"#));
            }),
            "`manifest.json` does not name the config".into(),
        ),
        (
            "two faces in the layers",
            nodes(&|nodes| {
                let config = format!("blobs/sha256/{}", image.config_digest().hex());
                nodes.push(Node::file(
                    "manifest.json",
                    json!([{ "Config": config, "Layers": [] }]).to_string(),
                ));
            }),
            "names other layers".into(),
        ),
    ];
    for (what, bytes, expected) in cases {
        match (read_all(&bytes), what) {
            // The manifest's own media type decides, as for every other reader.
            (result, "another media type") => assert_eq!(result, Ok(())),
            (result, _) => {
                let error = result.expect_err(what);
                assert!(error.contains(&expected), "{what}: {error}");
            }
        }
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn lies_of_a_docker_archive_are_found_out() {
    let image = sample(Compression::None);
    assert_eq!(read_all(&tar(&docker(&image))), Ok(()));
    let nodes = |change: &dyn Fn(&mut Vec<Node>)| {
        let mut nodes = docker(&image);
        change(&mut nodes);
        tar(&nodes)
    };
    let manifest = |text: &str| {
        let text = text.to_owned();
        nodes(&move |nodes| nodes[0].data = text.clone().into_bytes())
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("no image", manifest("[]"), "lists no image"),
        ("no JSON", manifest("[{"), "`manifest.json` in"),
        (
            "a missing config",
            manifest(r#"[{"Config":"x","Layers":[]}]"#),
            "the config `x` is missing",
        ),
        (
            "an outside config",
            manifest(r#"[{"Config":"/etc/passwd","Layers":[]}]"#),
            "is missing",
        ),
        (
            "an outside layer",
            manifest(r#"[{"Config":"config.json","Layers":["../../x","b/layer.tar"]}]"#),
            "`../../x` is missing",
        ),
        (
            "too few layers",
            manifest(r#"[{"Config":"config.json","Layers":["a/layer.tar"]}]"#),
            "names 1 layers, and its config 2",
        ),
        (
            "swapped layers",
            manifest(r#"[{"Config":"config.json","Layers":["b/layer.tar","a/layer.tar"]}]"#),
            "expected sha256:",
        ),
        (
            "a changed layer",
            nodes(&|nodes| nodes[2].data[5] ^= 1),
            "expected sha256:",
        ),
        (
            "a config under another digest",
            nodes(&|nodes| {
                let name = format!("{}.json", "0".repeat(64));
                nodes[1].path.clone_from(&name);
                nodes[0].data = json!([{ "Config": name, "Layers": ["a/layer.tar", "b/layer.tar"] }])
                    .to_string()
                    .into_bytes();
            }),
            "expected sha256:0000",
        ),
        (
            "a layer that is a link outside",
            nodes(&|nodes| nodes[2] = Node::symlink("a/layer.tar", "../../../etc/shadow")),
            "outside the archive",
        ),
        (
            "a config that is a fifo",
            nodes(&|nodes| {
                nodes[1] = Node {
                    flag: b'6',
                    ..Node::file("config.json", "")
                }
            }),
            "is missing",
        ),
    ];
    for (what, bytes, expected) in cases {
        let error = read_all(&bytes).expect_err(what);
        assert!(error.contains(expected), "{what}: {error}");
    }
}

/// A cut or a flipped bit anywhere in the tar is an error or goes unnoticed by the image; it is never a panic.
#[test]
fn cuts_and_flips_never_panic_and_never_pass_for_the_image() {
    let image = sample(Compression::Gzip(6));
    let whole = tar(&oci(&image));
    for length in (0..whole.len() - 1024).step_by(211) {
        assert!(read_all(&whole[..length]).is_err(), "cut at {length}");
    }
    let mut passed = 0;
    for at in (0..whole.len()).step_by(97) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x41;
        // Only bytes that belong to no header and no content (padding, index white space) may pass.
        passed += usize::from(read_all(&bytes).is_ok());
    }
    assert!(passed < whole.len() / 97 / 2 + 25, "{passed} flips went unnoticed");
}

#[test]
fn a_layout_directory_is_never_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let image = sample(Compression::None);
    Layout::new(dir.path(), None).put(&image, &[]).unwrap();
    let blob = dir.path().join("blobs/sha256").join(image.layers[0].digest().hex());
    fs::remove_file(&blob).unwrap();
    nix::unistd::mkfifo(&blob, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let location: Location = format!("oci:{}", dir.path().display()).parse().unwrap();
    let source = location.source(&ReadOptions::default()).unwrap();
    let error = source
        .blob(&image.layers[0].digest(), image.layers[0].size())
        .err()
        .unwrap();
    assert!(error.to_string().contains("cannot read"), "{error}");
}
