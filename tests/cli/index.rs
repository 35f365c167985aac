//! Images for several platforms under one name, beside skopeo.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::copy::build;
use crate::support::{Place, have, peer};

/// A place with a layout `parts` that has an image for each of three platforms, and their digests.
fn parts() -> (Place, Vec<String>) {
    let place = Place::new();
    let digests = ["amd64", "arm64", "arm"].map(|architecture| {
        let (platform, sink) = (format!("linux/{architecture}"), format!("oci:parts:{architecture}"));
        build(&place, architecture, &["--platform", &platform, "-o", &sink])
    });
    (place, digests.to_vec())
}

fn inspect_raw(place: &Place, source: &str) -> Value {
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["inspect", "--raw", source]).current_dir(&place.project);
    serde_json::from_str(&peer(&mut skopeo).stdout).unwrap()
}

fn platforms(index: &Value) -> Vec<String> {
    let entries = index["manifests"].as_array().unwrap().iter();
    entries
        .map(|entry| {
            let platform = &entry["platform"];
            let text = |key: &str| platform[key].as_str().unwrap_or_default().to_owned();
            format!("{}/{}{}", text("os"), text("architecture"), text("variant"))
        })
        .collect()
}

#[test]
fn an_index_is_the_same_in_whatever_order_its_images_come() {
    let (place, digests) = parts();
    let create = |sink: &str, order: [&str; 3]| {
        let sources: Vec<String> = order.iter().map(|tag| format!("oci:parts:{tag}")).collect();
        let mut args = vec!["index", "create", sink, "--annotation", "team=core"];
        args.extend(sources.iter().map(String::as_str));
        let created = place.run(&args).success();
        created.line().split(' ').next().unwrap().to_owned()
    };
    let one = create("oci:all:v1", ["amd64", "arm64", "arm"]);
    let two = create("oci-archive:all.tar:v1", ["arm", "amd64", "arm64"]);
    assert_eq!(one, two);
    // Platforms are chosen by name, and all of them verify.
    for (platform, digest) in [
        ("linux/amd64", &digests[0]),
        ("linux/arm64", &digests[1]),
        ("linux/arm/v7", &digests[2]),
    ] {
        for source in ["oci:all:v1", "oci-archive:all.tar:v1"] {
            let seen = place
                .run(&["inspect", "--json", "--platform", platform, source])
                .success();
            let seen: Value = serde_json::from_str(&seen.stdout).unwrap();
            assert_eq!(seen["digest"], digest.as_str());
            place.run(&["verify", source, "--platform", platform]).success();
        }
    }
    if have("skopeo", &["--version"]) {
        let index = inspect_raw(&place, "oci:all:v1");
        assert_eq!(platforms(&index), ["linux/amd64", "linux/armv7", "linux/arm64"]);
        assert_eq!(index["annotations"]["team"], "core");
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "--all", "oci-archive:all.tar:v1", "oci:peer:v1"]);
        peer(skopeo.current_dir(&place.project));
        assert_eq!(inspect_raw(&place, "oci:peer:v1"), index);
        place.run(&["copy", "--all", "oci:peer:v1", "oci:back:v1"]).success();
    }
}

#[test]
fn an_image_is_added_in_place_of_the_one_for_its_platform() {
    let (place, digests) = parts();
    place
        .run(&[
            "index",
            "create",
            "oci:all:v1",
            "oci:parts:amd64",
            "oci:parts:arm",
            "--annotation",
            "a=b",
        ])
        .success();
    place.run(&["index", "add", "oci:all:v1", "oci:parts:arm64"]).success();
    let newer = build(&place, "newer", &["--platform", "linux/arm64", "-o", "oci:parts:newer"]);
    place.run(&["index", "add", "oci:all:v1", "oci:parts:newer"]).success();
    let index = fs::read_to_string(place.project.join("all/index.json")).unwrap();
    let index: Value = serde_json::from_str(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let index = fs::read(place.project.join("all/blobs/sha256").join(&digest[7..])).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let listed: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["digest"].as_str().unwrap())
        .collect();
    assert_eq!(listed, [&digests[0], &digests[2], &newer]);
    assert_eq!(index["annotations"]["a"], "b");
}

#[test]
fn what_makes_no_index_is_refused() {
    let (place, digests) = parts();
    let other = build(&place, "other", &["-o", "oci:parts:other"]);
    place
        .run(&["index", "create", "oci:all:v1", "oci:parts:amd64", "oci:parts:other"])
        .exits(2)
        .says(&["linux/amd64", &digests[0], &other]);
    place
        .run(&[
            "index",
            "create",
            "docker-archive:all.tar",
            "oci:parts:amd64",
            "oci:parts:arm",
        ])
        .exits(2)
        .says(&["one image, not an index", "oci-archive:FILE"]);
    place
        .run(&["index", "add", "oci:parts:amd64", "oci:parts:arm"])
        .exits(2)
        .says(&["is one image"]);
    place
        .run(&["index", "create", "oci:all:v1", "oci:parts:amd64", "oci:parts:arm"])
        .success();
    place
        .run(&["copy", "oci:all:v1", "one.tar"])
        .exits(2)
        .says(&["several platforms", "linux/amd64"]);
    place
        .run(&["copy", "--all", "oci:all:v1", "one.tar"])
        .exits(2)
        .says(&["not an index"]);
    let one = place
        .run(&["copy", "--platform", "linux/amd64", "oci:all:v1", "one.tar"])
        .success();
    assert!(one.line().starts_with(&digests[0]));
}

#[test]
fn data_can_be_built_for_several_platforms_and_a_program_cannot() {
    let (place, _) = parts();
    let digest = build(
        &place,
        "data",
        &["--platform", "linux/arm64,linux/amd64", "-o", "oci:all:v1"],
    );
    for platform in ["linux/amd64", "linux/arm64"] {
        place.run(&["verify", "oci:all:v1", "--platform", platform]).success();
    }
    let again = build(
        &place,
        "data",
        &["--platform", "linux/amd64,linux/arm64", "-o", "oci-archive:all.tar"],
    );
    assert_eq!(again, digest);
    place.write("bin/main.c", "int main(void) { return 0; }\n");
    let mut gcc = Command::new("gcc");
    peer(
        gcc.args(["-static", "-o", "bin/main", "bin/main.c"])
            .current_dir(&place.project),
    );
    let path = place.run(&["store", "add", "bin"]).success().line().to_owned();
    let program = format!("{path}/main");
    place
        .run(&[
            "build",
            &path,
            "--name",
            "x",
            "--entrypoint",
            &program,
            "--platform",
            "linux/amd64,linux/arm64",
        ])
        .exits(2)
        .says(&["linux/arm64", "amd64"]);
}

/// Adds an index `built` to the layout `parts` as Docker's builder writes it: two images, each with its attestation, which has a
/// platform that is none. Gives what it lists.
fn attested(place: &Place, digests: &[String]) -> Vec<Value> {
    let layout = place.project.join("parts");
    let put = |bytes: &[u8]| {
        let digest = layerize::digest::Digest::of(bytes).to_string();
        fs::write(layout.join("blobs/sha256").join(&digest[7..]), bytes).unwrap();
        (digest, bytes.len())
    };
    let manifest = |digest: &str| {
        fs::metadata(layout.join("blobs/sha256").join(&digest[7..]))
            .unwrap()
            .len()
    };
    let mut entries = Vec::new();
    for (architecture, digest) in ["amd64", "arm64"].iter().zip(digests) {
        entries.push(serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": manifest(digest),
            "platform": { "architecture": architecture, "os": "linux" },
        }));
    }
    for digest in &digests[..2] {
        let (layer, layer_size) = put(format!("{{\"subject\":\"{digest}\"}}").as_bytes());
        let config = format!(
            "{{\"architecture\":\"unknown\",\"os\":\"unknown\",\"config\":{{}},\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"{layer}\"]}}}}"
        );
        let (config, config_size) = put(config.as_bytes());
        let attestation = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size },
            "layers": [{ "mediaType": "application/vnd.in-toto+json", "digest": layer, "size": layer_size }],
        });
        let (attestation, size) = put(attestation.to_string().as_bytes());
        entries.push(serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": attestation, "size": size,
            "platform": { "architecture": "unknown", "os": "unknown" },
            "annotations": { "vnd.docker.reference.digest": digest, "vnd.docker.reference.type": "attestation-manifest" },
        }));
    }
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries,
    });
    let (digest, size) = put(index.to_string().as_bytes());
    let list = serde_json::json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": size,
        "annotations": { "org.opencontainers.image.ref.name": "built" },
    }]});
    let arm = fs::read_to_string(layout.join("index.json")).unwrap();
    let mut all: Value = serde_json::from_str(&arm).unwrap();
    all["manifests"]
        .as_array_mut()
        .unwrap()
        .push(list["manifests"][0].clone());
    fs::write(layout.join("index.json"), all.to_string()).unwrap();
    entries
}

/// Images and their attestations go into another index; an attestation whose image is not there stays away.
#[test]
fn attestations_go_where_their_images_go() {
    let (place, digests) = parts();
    let entries = attested(&place, &digests);
    let read = |name: &str| {
        let raw: Value =
            serde_json::from_str(&fs::read_to_string(place.project.join(name).join("index.json")).unwrap()).unwrap();
        let digest = raw["manifests"][0]["digest"].as_str().unwrap().to_owned();
        let bytes = fs::read(place.project.join(name).join("blobs/sha256").join(&digest[7..])).unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()["manifests"]
            .as_array()
            .unwrap()
            .clone()
    };
    let created = place
        .run(&["index", "create", "oci:all:v1", "oci:parts:built", "oci:parts:arm"])
        .success();
    created.says(&[&format!("of {}", digests[0])]);
    let listed = read("all");
    let named = |entry: &Value| entry["digest"].as_str().unwrap().to_owned();
    let images: Vec<String> = listed[..3].iter().map(named).collect();
    assert_eq!(images, [digests[0].clone(), digests[2].clone(), digests[1].clone()]);
    assert_eq!(listed[3..], entries[2..]);
    for platform in ["linux/amd64", "linux/arm64", "linux/arm/v7"] {
        place.run(&["verify", "oci:all:v1", "--platform", platform]).success();
    }
    // In place of the image that it is of comes another one: the attestation goes with its image.
    let newer = build(&place, "newer", &["--platform", "linux/amd64", "-o", "oci:parts:newer"]);
    place.run(&["index", "add", "oci:all:v1", "oci:parts:newer"]).success();
    let listed = read("all");
    assert_eq!(listed.len(), 4);
    assert_eq!(listed[0]["digest"], newer.as_str());
    assert_eq!(listed[3], entries[3]);
}
