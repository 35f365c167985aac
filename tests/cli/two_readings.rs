//! Images that consumers read in different ways (case 09 of the field): what `verify` and `explain` say of each, beside
//! what Docker, podman and umoci make of it.

use std::process::Command;

use serde_json::json;

use crate::crafted::{Crafted, Entry, Parts, tar_of};
use crate::documents::{MANIFEST, document, image, manifest, tag};
use crate::support::{Place, have, peer, podman};

fn dir(path: &[u8]) -> Entry {
    Entry::of(path, b'5', b"")
}

fn link(path: &[u8], to: &[u8]) -> Entry {
    Entry::of(path, b'2', to)
}

fn layout(place: &Place, name: &str, layers: &[&[Entry]]) -> Parts {
    let parts = Parts::of(layers.iter().map(|entries| tar_of(entries)).collect());
    parts.write(&Crafted::at(&place.project.join(name)));
    parts
}

/// layer.md, "Whiteouts": they apply to lower layers, and this one's directory is none of theirs any more.
#[test]
fn v_link_a_whiteout_below_a_link_of_its_own_layer() {
    let place = Place::new();
    let lower = [dir(b"a"), Entry::file(b"a/x", b"1"), dir(b"b")];
    layout(
        &place,
        "v_link",
        &[&lower, &[link(b"a", b"b"), Entry::file(b"a/.wh.x", b"")]],
    );
    let verified = place.run(&["verify", "oci:v_link"]).exits(1);
    assert!(
        verified.stdout.contains("it is in `a`, which is a symlink"),
        "{}",
        verified.stdout
    );
    let told = place.run(&["explain", "oci:v_link", "/a/x"]).exits(1);
    assert!(
        told.stdout.contains("link       /a → b (layer 1)\n  leads to   /b/x\n"),
        "{}",
        told.stdout
    );
}

/// CVE-2021-41190.
#[test]
fn v_amb_a_manifest_that_can_be_read_as_an_index() {
    let place = Place::new();
    let crafted = Crafted::at(&place.project.join("v_amb"));
    let mut both = manifest(&crafted, "linux/amd64");
    both["manifests"] = json!([image(&crafted, "linux/amd64")]);
    tag(&crafted, document(&crafted, MANIFEST, &both, json!({})));
    let verified = place.run(&["verify", "oci:v_amb"]).exits(1);
    assert!(
        verified.stdout.contains("it could be read as two different documents"),
        "{}",
        verified.stdout
    );
    let explained = place.run(&["explain", "oci:v_amb", "/f"]).exits(2);
    explained.says(&["it could be read as two different documents"]);
}

/// config.md: a key is `port`, `port/tcp` or `port/udp`. The files are there all the same.
#[test]
fn v_port_a_range_of_ports() {
    let place = Place::new();
    let mut parts = Parts::of(vec![tar_of(&[Entry::file(b"f", b"x")])]);
    parts.config["config"]["ExposedPorts"] = json!({ "33060-33061/tcp": {} });
    parts.write(&Crafted::at(&place.project.join("v_port")));
    let verified = place.run(&["verify", "oci:v_port"]).exits(1);
    assert!(
        verified
            .stdout
            .contains("config, config.ExposedPorts[\"33060-33061/tcp\"]"),
        "{}",
        verified.stdout
    );
    let told = place.run(&["explain", "oci:v_port", "/f"]).success();
    assert!(told.stdout.contains("has it: file, 1 bytes  ← seen"), "{}", told.stdout);
}

/// The paths of a tar.
fn listed(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect()
}

/// Neither reading is wrong by layer.md, which says nothing of it: `strict` says that consumers differ, `explain` gives what
/// the engines see and names the others.
#[test]
fn v_below_a_file_below_a_link_of_a_lower_layer() {
    let place = Place::new();
    let lower = [dir(b"usr"), dir(b"usr/lib"), link(b"lib", b"usr/lib")];
    layout(&place, "v_below", &[&lower, &[Entry::file(b"lib/b", b"2")]]);
    place.run(&["verify", "oci:v_below"]).success();
    let strict = place.run(&["verify", "--profile", "strict", "oci:v_below"]).exits(1);
    assert!(
        strict.stdout.contains("`lib` is a symlink in a layer below"),
        "{}",
        strict.stdout
    );
    assert!(
        strict
            .stdout
            .contains("Docker, containerd and podman put a directory in its place"),
        "{}",
        strict.stdout
    );

    let differs = "differs      layer 1 has files below `/lib`, which is a symlink to `/usr/lib` in the layers below";
    let told = place.run(&["explain", "oci:v_below", "/lib/b"]).success();
    assert!(
        told.stdout.contains(differs) && told.stdout.contains("file, 1 bytes  ← seen"),
        "{}",
        told.stdout
    );
    assert!(
        told.stdout.contains("umoci and podman's vfs storage follow the link"),
        "{}",
        told.stdout
    );
    let told = place.run(&["explain", "oci:v_below", "/usr/lib/b"]).exits(1);
    assert!(
        told.stdout.contains(differs) && told.stdout.contains("not in the image"),
        "{}",
        told.stdout
    );
}

/// What is said of consumers is what they do.
#[test]
fn v_below_is_read_by_docker_podman_and_umoci_as_is_told() {
    let place = Place::new();
    let lower = [dir(b"usr"), dir(b"usr/lib"), link(b"lib", b"usr/lib")];
    layout(&place, "v_below", &[&lower, &[Entry::file(b"lib/b", b"2")]]);
    let name = format!("layerize-test-below-{}", std::process::id());
    place
        .run(&["copy", "oci:v_below:v1", &format!("docker-archive:below.tar:{name}:1")])
        .success();
    let (followed, replaced) = ("usr/lib/b".to_owned(), "lib/b".to_owned());
    if have("docker", &["info"]) {
        let docker = |args: &[&str]| {
            Command::new("docker")
                .args(args)
                .current_dir(&place.project)
                .output()
                .unwrap()
                .stdout
        };
        docker(&["load", "-q", "-i", "below.tar"]);
        let container = String::from_utf8(docker(&["create", &format!("{name}:1"), "/x"])).unwrap();
        let paths = listed(&docker(&["export", container.trim()]));
        docker(&["rm", "-f", container.trim()]);
        docker(&["rmi", "-f", &format!("{name}:1")]);
        // Storage that copies whole file systems, as vfs does, follows the link.
        assert!(paths.contains(&replaced) || paths.contains(&followed), "{paths:?}");
        let driver = docker(&["info", "--format", "{{.Driver}}"]);
        if String::from_utf8_lossy(&driver).contains("overlay") {
            assert!(paths.contains(&replaced) && !paths.contains(&followed), "{paths:?}");
        }
    }
    if have("podman", &["--version"]) {
        let podman = |args: &[&str]| {
            podman(&place)
                .args(args)
                .current_dir(&place.project)
                .output()
                .unwrap()
                .stdout
        };
        podman(&["load", "-q", "-i", "below.tar"]);
        let container = String::from_utf8(podman(&["create", &format!("{name}:1"), "/x"])).unwrap();
        let paths = listed(&podman(&["export", container.trim()]));
        assert!(
            paths.contains(&followed) && !paths.contains(&replaced),
            "vfs: {paths:?}"
        );
    }
    if have("umoci", &["--version"]) {
        let mut umoci = Command::new("umoci");
        umoci.args(["unpack", "--rootless", "--image", "v_below:v1", "bundle"]);
        peer(umoci.current_dir(&place.project));
        let root = place.project.join("bundle/rootfs");
        assert!(root.join("usr/lib/b").is_file() && root.join("lib").is_symlink());
    }
}
