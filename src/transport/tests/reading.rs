//! What sources read: forms, names, platforms.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::super::testing::*;
use super::super::*;
use crate::event::Silent;
use crate::oci::{Compression, MediaType};
use crate::transport::registry::RegistryConfig;

const GZIP: Compression = Compression::Gzip(6);

fn open(text: &str) -> Result<Box<dyn Source>, TransportError> {
    open_for(text, None)
}

fn open_for(text: &str, platform: Option<&str>) -> Result<Box<dyn Source>, TransportError> {
    let options = ReadOptions {
        platform: platform.map(|text| text.parse().unwrap()),
        ..ReadOptions::default()
    };
    text.parse::<Location>().unwrap().source(&options)
}

/// Reads everything and compares it with the image.
fn assert_is(source: &dyn Source, image: &Image) {
    assert_eq!(source.manifest().unwrap().bytes(), image.manifest.bytes());
    assert_eq!(source.config().unwrap().bytes(), image.config.bytes());
    for layer in &image.layers {
        let mut bytes = Vec::new();
        source
            .blob(&layer.digest(), layer.size())
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        assert_eq!(Digest::of(&bytes), layer.digest());
    }
    assert_eq!(source.contradictions(), Vec::<String>::new());
}

/// What is written is read back, from every form.
#[test]
fn every_form_reads_back_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for compression in [Compression::None, GZIP, Compression::Zstd(3)] {
        let image = sample(compression);
        for location in [
            at("x.tar"),
            format!("docker-archive:{}", at("d.tar")),
            format!("oci-archive:{}", at("o.tar")),
            format!("oci:{}", at("layout")),
        ] {
            let parsed: Location = location.parse().unwrap();
            parsed
                .sink(None, &RegistryConfig::default(), &Silent)
                .unwrap()
                .put(&image, &["hello:1".to_owned()])
                .unwrap();
            let source = open(&location).unwrap();
            assert_is(&*source, &image);
            assert_eq!(source.names(), ["docker.io/library/hello:1"]);
            assert!(!source.synthesized() && source.index().is_some());
            assert_eq!(source.place(), location);
        }
        fs::remove_dir_all(dir.path().join("layout")).unwrap();
        assert_is(&image, &image);
    }
}

#[test]
fn outer_compression_is_found_by_looking() {
    let dir = tempfile::tempdir().unwrap();
    let image = sample(GZIP);
    let stream = Stream::new(Vec::new(), "memory");
    stream.put(&image, &[]).unwrap();
    let plain = stream.into_inner();
    let mut xz = Vec::new();
    liblzma::write::XzEncoder::new(&mut xz, 1).write_all(&plain).unwrap();
    let packed = [
        ("gz", compress(&plain, GZIP)),
        ("zst", compress(&plain, Compression::Zstd(1))),
        ("xz", xz),
    ];
    for (name, bytes) in packed {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        assert_is(&*open(&path.display().to_string()).unwrap(), &image);
        let options = ReadOptions {
            spool_max: 100,
            ..ReadOptions::default()
        };
        let error = Location::Path(path).source(&options).err().unwrap();
        assert!(matches!(error, TransportError::TooLarge { limit: 100, .. }), "{error}");
    }
    assert_is(
        &read::stream(&mut &plain[..], "-", &ReadOptions::default()).unwrap(),
        &image,
    );
}

#[test]
fn an_image_is_chosen_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    let (one, two) = (sample(GZIP), sample(Compression::None));
    Layout::new(&layout, None).put(&one, &["a:one".to_owned()]).unwrap();
    Layout::new(&layout, None)
        .put(&two, &["registry.example/me/b:two".to_owned()])
        .unwrap();
    let at = format!("oci:{}", layout.display());
    for (name, image) in [
        ("one", &one),
        ("a:one", &one),
        ("docker.io/library/a:one", &one),
        ("registry.example/me/b:two", &two),
        ("@1", &two),
    ] {
        assert_is(&*open(&format!("{at}:{name}")).unwrap(), image);
    }
    let error = open(&at).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!("`{at}` holds several images (2 names), and none was chosen")
    );
    assert_eq!(
        error.help().unwrap(),
        format!("name one of them: `{at}:docker.io/library/a:one`, `{at}:registry.example/me/b:two`")
    );
    let error = open(&format!("{at}:three")).err().unwrap();
    assert_eq!(error.to_string(), format!("`{at}` holds no image named `three`"));
    assert!(open(&format!("{at}:@2")).is_err());
}

fn blob(layout: &Path, bytes: &[u8]) -> Value {
    let digest = Digest::of(bytes);
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
    json!({ "digest": digest, "size": bytes.len() })
}

fn descriptor(layout: &Path, bytes: &[u8], media_type: &str, platform: &str) -> Value {
    let mut value = blob(layout, bytes);
    value["mediaType"] = media_type.into();
    if let Some((os, architecture)) = platform.split_once('/') {
        let (architecture, variant) = architecture.split_once('/').unwrap_or((architecture, ""));
        value["platform"] = json!({ "os": os, "architecture": architecture });
        if !variant.is_empty() {
            value["platform"]["variant"] = variant.into();
        }
    }
    value
}

#[test]
fn a_platform_is_chosen_or_all_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path();
    let amd = sample(GZIP);
    let arm = sample(Compression::None);
    let manifest = MediaType::MANIFEST;
    let list = json!({ "schemaVersion": 2, "manifests": [
        descriptor(layout, amd.manifest.bytes(), manifest, "linux/amd64"),
        descriptor(layout, arm.manifest.bytes(), manifest, "linux/arm64/v8"),
        descriptor(layout, b"{}", manifest, "unknown/unknown"),
    ]});
    for nested in [true, false] {
        let index = if nested {
            json!({ "manifests": [descriptor(layout, list.to_string().as_bytes(), MediaType::INDEX, "")] })
        } else {
            list.clone()
        };
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let at = format!("oci:{}", layout.display());
        for (wanted, image) in [("linux/amd64", &amd), ("linux/arm64", &arm), ("linux/arm64/v8", &arm)] {
            let source = open_for(&at, Some(wanted)).unwrap();
            assert_eq!(source.manifest().unwrap().bytes(), image.manifest.bytes());
            assert_eq!(source.index().unwrap().bytes(), list.to_string().as_bytes());
        }
        let error = open(&at).err().unwrap();
        assert_eq!(
            error.help().unwrap(),
            "add one of `--platform linux/amd64`, `--platform linux/arm64`"
        );
        let error = open_for(&at, Some("linux/riscv64")).err().unwrap();
        assert_eq!(
            error.to_string(),
            format!("`{at}` holds no image for the platform `linux/riscv64`")
        );
    }
}

/// A `docker save` archive of the time before OCI layouts, with a layer that is a link to another image's.
fn old_archive(nodes: &mut Vec<Node>, image: &Image, tags: &[&str]) -> Value {
    let config = format!("{}.json", image.config_digest().hex());
    nodes.push(Node::file(&config, image.config.bytes()));
    let mut layers = Vec::new();
    for layer in &image.layers {
        let crate::layer::Blob::Bytes(bytes) = &layer.content else {
            unreachable!()
        };
        let path = format!("{}/layer.tar", &layer.digest().hex()[..32]);
        nodes.push(Node::file(&path, bytes));
        layers.push(path);
    }
    nodes.push(Node::symlink("other/layer.tar", &format!("../{}", layers[0])));
    layers[0] = "other/layer.tar".to_owned();
    json!({ "Config": config, "RepoTags": tags, "Layers": layers })
}

#[test]
fn an_old_docker_archive_is_read_and_its_manifest_made_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("old.tar");
    let image = sample(Compression::None);
    let mut nodes = Vec::new();
    let item = old_archive(&mut nodes, &image, &["a:1", "b:2"]);
    nodes.push(Node::file("manifest.json", json!([item]).to_string()));
    fs::write(&path, tar(&nodes)).unwrap();
    let source = open(&format!("docker-archive:{}:b:2", path.display())).unwrap();
    assert!(source.synthesized());
    assert_eq!(
        (source.names(), source.config().unwrap().bytes().to_vec()),
        (&["a:1".to_owned(), "b:2".to_owned()][..], image.config.bytes().to_vec())
    );
    let manifest = source.manifest().unwrap();
    assert_eq!(manifest.media_type(), MediaType::DOCKER_MANIFEST);
    for (descriptor, layer) in manifest.layers.iter().zip(&image.layers) {
        assert_eq!(descriptor.digest, layer.digest());
        let mut bytes = Vec::new();
        source
            .blob(&descriptor.digest, descriptor.size)
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
    }
    assert!(matches!(
        open(&format!("docker-archive:{}:c", path.display())),
        Err(TransportError::Choose { .. })
    ));
    assert!(matches!(
        open(&format!("oci-archive:{}", path.display())),
        Err(TransportError::NotAnImage { .. })
    ));
}

#[test]
fn forms_that_hold_no_image_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("empty.tar"), tar(&[])).unwrap();
    fs::write(at("ancient.tar"), tar(&[Node::file("repositories", "{}")])).unwrap();
    fs::write(at("text"), "this is no tar at all".repeat(100)).unwrap();
    fs::create_dir(at("dir")).unwrap();
    for (text, expected) in [
        (
            at("empty.tar").display().to_string(),
            "neither `index.json` nor `manifest.json`",
        ),
        (
            format!("docker-archive:{}", at("ancient.tar").display()),
            "Docker before 1.10",
        ),
        (at("text").display().to_string(), "cannot read the tar"),
        (at("dir").display().to_string(), "there is no `index.json`"),
        (format!("oci:{}", at("text").display()), "it is not a directory"),
        (at("missing").display().to_string(), "cannot open"),
    ] {
        let error = open(&text).err().unwrap().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

/// Docker names only its own platform in the `manifest.json` of a multi-platform archive.
#[test]
fn a_platform_that_manifest_json_leaves_out_is_no_contradiction() {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path();
    let (amd, arm) = (sample(GZIP), image(&[(tar(&[Node::file("arm", "")]), GZIP)]));
    let manifests = json!([
        descriptor(layout, amd.manifest.bytes(), MediaType::MANIFEST, "linux/amd64"),
        descriptor(layout, arm.manifest.bytes(), MediaType::MANIFEST, "linux/arm64"),
    ]);
    blob(layout, amd.config.bytes());
    blob(layout, arm.config.bytes());
    let layers: Vec<String> = amd
        .layers
        .iter()
        .map(|layer| format!("blobs/sha256/{}", layer.digest().hex()))
        .collect();
    let docker = json!([{ "Config": format!("blobs/sha256/{}", amd.config_digest().hex()), "Layers": layers }]);
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(layout.join("manifest.json"), docker.to_string()).unwrap();
    let at = format!("oci:{}", layout.display());
    for (index, expected) in [(manifests.clone(), 0), (json!([manifests[1]]), 1)] {
        fs::write(layout.join("index.json"), json!({ "manifests": index }).to_string()).unwrap();
        let source = open_for(&at, Some("linux/arm64")).unwrap();
        assert_eq!(source.contradictions().len(), expected);
    }
}
