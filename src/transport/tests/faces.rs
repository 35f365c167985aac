//! Archives with two faces, of which one reader sees one and the next the other: refused, or told.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::super::testing::*;
use super::super::*;
use crate::layer::Blob;
use crate::oci::{Compression, MediaType};

fn blob_name(digest: impl std::fmt::Display) -> String {
    format!("blobs/{}", digest.to_string().replace(':', "/"))
}

fn layer_bytes(image: &Image, index: usize) -> Vec<u8> {
    let Blob::Bytes(bytes) = &image.layers[index].content else {
        unreachable!()
    };
    bytes.to_vec()
}

/// An item of `manifest.json` for an image, as Docker writes it.
fn item(image: &Image, tags: &[&str]) -> Value {
    let layers: Vec<String> = image.layers.iter().map(|layer| blob_name(layer.digest())).collect();
    json!({ "Config": blob_name(image.config_digest()), "RepoTags": tags, "Layers": layers })
}

/// An archive of images that is both: layout and `docker save`.
fn both(images: &[(&Image, &str)], items: &Value) -> Vec<Node> {
    let entries: Vec<Value> = images
        .iter()
        .map(|(image, name)| {
            json!({ "mediaType": MediaType::MANIFEST, "digest": image.digest(), "size": image.manifest.size(),
                "annotations": { "io.containerd.image.name": name } })
        })
        .collect();
    let mut nodes = vec![
        Node::file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
        Node::file("index.json", json!({ "manifests": entries }).to_string()),
        Node::file("manifest.json", items.to_string()),
    ];
    for (image, _) in images {
        nodes.push(Node::file(&blob_name(image.digest()), image.manifest.bytes()));
        nodes.push(Node::file(&blob_name(image.config_digest()), image.config.bytes()));
        for (index, layer) in image.layers.iter().enumerate() {
            nodes.push(Node::file(&blob_name(layer.digest()), layer_bytes(image, index)));
        }
    }
    nodes
}

fn open(nodes: &[Node], name: Option<&str>) -> Result<Box<dyn Source>, TransportError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar");
    fs::write(&path, tar(nodes)).unwrap();
    let location = match name {
        Some(name) => format!("docker-archive:{}:{name}", path.display()),
        None => path.display().to_string(),
    };
    // The open file outlives its name.
    location.parse::<Location>()?.source(&ReadOptions::default())
}

fn another(text: &str) -> Image {
    image(&[(tar(&[Node::file("evil", text)]), Compression::None)])
}

/// Every file of an archive, a second time by every spelling of its name, is refused: of two, layerize took the first, and
/// `docker load` the last.
#[test]
fn a_name_that_stands_twice_is_refused_however_it_is_spelled() {
    let image = sample(Compression::Gzip(6));
    let modern = both(&[(&image, "docker.io/library/a:1")], &json!([item(&image, &["a:1"])]));
    let layers = ["a/layer.tar", "b/layer.tar"];
    let old = vec![
        Node::file(
            "manifest.json",
            json!([{ "Config": "c.json", "Layers": layers }]).to_string(),
        ),
        Node::file("c.json", image.config.bytes()),
        Node::file(layers[0], layer_bytes(&image, 0)),
        Node::file(layers[1], layer_bytes(&image, 1)),
        Node::file("VERSION", "1.0"),
    ];
    for nodes in [modern, old] {
        assert!(open(&nodes, None).is_ok());
        for node in &nodes {
            let (path, data) = (&node.path, "{}");
            let (dir, name) = path.rsplit_once('/').unwrap_or((".", path));
            for second in [
                Node::file(path, data),
                Node::file(path, &node.data),
                Node::file(&format!("./{path}"), data),
                Node::file(&format!("/{path}"), data),
                Node::file(&format!("{dir}//{name}"), data),
                Node::file(&format!("{dir}/./{name}"), data),
                Node::symlink(path, "elsewhere"),
                Node::hard_link(path, "manifest.json"),
            ] {
                for order in [[node.clone(), second.clone()], [second.clone(), node.clone()]] {
                    let others = nodes.iter().filter(|other| other.path != *path).cloned();
                    let nodes: Vec<Node> = others.chain(order).collect();
                    let error = open(&nodes, None).err().map(|error| error.to_string());
                    let error = error.unwrap_or_else(|| panic!("`{}` beside `{path}` was taken", second.path));
                    assert!(error.contains("twice"), "`{}` beside `{path}`: {error}", second.path);
                }
            }
        }
    }
}

/// Unpacked, a file below a link replaces the one that the link leads to.
#[test]
fn a_file_below_a_link_or_a_file_is_refused() {
    let image = sample(Compression::None);
    let nodes = both(&[(&image, "docker.io/library/a:1")], &json!([item(&image, &["a:1"])]));
    let config = blob_name(image.config_digest());
    let hidden = config.strip_prefix("blobs/").unwrap();
    for (link, below) in [
        (Node::symlink("alias", "blobs"), format!("alias/{hidden}")),
        (Node::symlink("alias", "./blobs/."), format!("./alias/{hidden}")),
        (Node::hard_link("alias", "blobs"), format!("alias/{hidden}")),
        (Node::file("alias", ""), format!("alias/{hidden}")),
    ] {
        for order in [[0, 1], [1, 0]] {
            let both = [link.clone(), Node::file(&below, "evil")];
            let nodes: Vec<Node> = nodes.iter().cloned().chain(order.map(|at| both[at].clone())).collect();
            let error = open(&nodes, None).err().map(|error| error.to_string()).unwrap();
            assert!(
                error.contains("below an entry that is not a directory"),
                "{below}: {error}"
            );
        }
    }
    // A directory may stand there as often as it likes.
    let nodes: Vec<Node> = [Node::dir("blobs"), Node::dir("./blobs/")]
        .into_iter()
        .chain(nodes)
        .collect();
    assert!(open(&nodes, None).is_ok());
}

/// What `manifest.json` says against the layout, by what Docker would load.
#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn what_docker_would_load_in_place_of_the_image_is_told() {
    let (own, evil) = (sample(Compression::None), another("x"));
    let name = "docker.io/library/a:1";
    let one = |items: Value| both(&[(&own, name)], &items);
    let with = |items: Value, more: Vec<Node>| [one(items), more].concat();
    let named = |config: &str| {
        let mut item = item(&own, &["a:1"]);
        item["Config"] = config.into();
        item
    };
    let hex = own.config_digest().hex();
    let mut swapped = item(&own, &["a:1"]);
    swapped["Layers"].as_array_mut().unwrap().reverse();
    let mut renamed = item(&own, &["a:1"]);
    renamed["Layers"] = json!(["1/layer.tar", "2/layer.tar"]);
    let layers = |second: Vec<u8>| {
        vec![
            Node::file("1/layer.tar", layer_bytes(&own, 0)),
            Node::file("2/layer.tar", second),
        ]
    };
    let mut longer = layer_bytes(&own, 1);
    longer[600] ^= 1;
    let two = |items: Value| both(&[(&own, name), (&evil, "docker.io/library/b:1")], &items);
    for (what, nodes, expected) in [
        ("the image", one(json!([item(&own, &["a:1"])])), None),
        ("the image without a name", one(json!([item(&own, &[])])), None),
        // Docker goes by the bytes, whatever the file is called.
        (
            "a config of another name",
            with(json!([named("c.json")]), vec![Node::file("c.json", own.config.bytes())]),
            None,
        ),
        (
            "another config by the right name",
            with(
                json!([named(&format!("x/{hex}.json"))]),
                vec![Node::file(&format!("x/{hex}.json"), evil.config.bytes())],
            ),
            Some("does not name the config"),
        ),
        (
            "a config that is not there",
            one(json!([named("c.json")])),
            Some("does not name the config"),
        ),
        ("no image", one(json!([])), Some("does not name the config")),
        ("layers in another order", one(json!([swapped])), Some("other layers")),
        (
            "layers of other names",
            with(json!([renamed]), layers(layer_bytes(&own, 1))),
            None,
        ),
        (
            "other layers of other names",
            with(json!([renamed]), layers(longer)),
            Some("other layers"),
        ),
        (
            "an image that the layout does not list",
            with(
                json!([item(&own, &["a:1"]), item(&evil, &["busybox"])]),
                vec![Node::file(&blob_name(evil.config_digest()), evil.config.bytes())],
            ),
            Some("an image that the layout does not list"),
        ),
        (
            "two images",
            two(json!([item(&own, &["a:1"]), item(&evil, &["b:1"])])),
            None,
        ),
        (
            "two images of one name",
            two(json!([item(&own, &["c:1"]), item(&evil, &["a:1"])])),
            Some("gives the name `a:1` to another image"),
        ),
        (
            "the name in full",
            two(json!([item(&own, &["c:1"]), item(&evil, &["docker.io/library/a:1"])])),
            Some("to another image"),
        ),
    ] {
        let name = (nodes
            .iter()
            .filter(|node| node.path.len() == blob_name(own.digest()).len())
            .count()
            > 5)
        .then_some("a:1");
        let source = open(&nodes, name).unwrap_or_else(|error| panic!("{what}: {error}"));
        let told = source.contradictions();
        match expected {
            None => assert_eq!(told, Vec::<String>::new(), "{what}"),
            Some(text) => assert!(told.iter().any(|told| told.contains(text)), "{what}: {told:?}"),
        }
    }
}

/// A config whose bytes are not those of its name is loaded by Docker all the same: the layout's own reader refuses it.
#[test]
fn a_config_that_is_not_what_its_name_says_is_no_config_of_the_image() {
    let (own, evil) = (sample(Compression::None), another("x"));
    let mut nodes = both(&[(&own, "docker.io/library/a:1")], &json!([item(&own, &["a:1"])]));
    let config = nodes
        .iter_mut()
        .find(|node| node.path == blob_name(own.config_digest()))
        .unwrap();
    config.data = evil.config.bytes().to_vec();
    let source = open(&nodes, None).unwrap();
    assert_eq!(source.docker_list(), Some(DockerList::LeavesOut));
    assert!(source.contradictions()[0].contains("does not name the config"));
    let config = nodes
        .iter_mut()
        .find(|node| node.path == blob_name(own.config_digest()))
        .unwrap();
    config.data = own.config.bytes().to_vec();
    config.data[3] ^= 1;
    assert!(
        !open(&nodes, None).unwrap().contradictions().is_empty(),
        "of the same size"
    );
}

/// `docker save` of a multi-platform image names its own platform alone. That is no contradiction, but whoever checks the
/// signature of another platform must know that Docker would load this one.
#[test]
fn whether_dockers_list_names_an_image_is_told() {
    let (own, other) = (sample(Compression::None), another("arm"));
    let images = [(&own, "docker.io/library/a:1"), (&other, "docker.io/library/b:1")];
    for (items, list) in [
        (json!([item(&own, &["a:1"])]), DockerList::Names),
        (json!([item(&other, &["b:1"])]), DockerList::LeavesOut),
    ] {
        let source = open(&both(&images, &items), Some("a:1")).unwrap();
        assert_eq!(source.contradictions(), Vec::<String>::new());
        assert_eq!(source.docker_list(), Some(list));
    }
    let mut nodes = both(&images[..1], &json!([]));
    nodes.retain(|node| node.path != "manifest.json");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar");
    fs::write(&path, tar(&nodes)).unwrap();
    let open = |path: &Path| read::any(path, None, &ReadOptions::default()).unwrap();
    assert_eq!(open(&path).docker_list(), Some(DockerList::Absent));
    Layout::new(&dir.path().join("layout"), Some("v1"))
        .put(&own, &[])
        .unwrap();
    assert_eq!(
        open(&dir.path().join("layout")).docker_list(),
        None,
        "a layout is no archive"
    );
}

/// Of two items of one name, layerize took the first, and Docker's name goes to the last.
#[test]
fn a_name_that_an_old_archive_gives_twice_is_refused() {
    let item = |config: &str| json!({ "Config": config, "RepoTags": ["docker.io/library/a:1"], "Layers": [] });
    let config = |text: &str| json!({ "os": text, "rootfs": { "type": "layers", "diff_ids": [] } }).to_string();
    let nodes = |items: Value| {
        vec![
            Node::file("manifest.json", items.to_string()),
            Node::file("1.json", config("one")),
            Node::file("2.json", config("two")),
        ]
    };
    assert!(open(&nodes(json!([item("1.json")])), Some("a:1")).is_ok());
    let error = open(&nodes(json!([item("1.json"), item("2.json")])), Some("a:1"))
        .err()
        .unwrap();
    assert!(error.to_string().contains("to two images"), "{error}");
}
