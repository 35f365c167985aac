//! `layerize rebuild`: an image comes out of its spec again with its digest, or it is told why not.

use std::fs;

use serde_json::Value;

use crate::support::{Place, have, peer};

fn made() -> Place {
    let place = Place::with_script("mkdir $out; echo made > $out/file");
    place.run(&["build", "--locked", "thing"]).success();
    place
}

/// With other compression, time and layers than the spec has now: what the image tells is enough.
#[test]
fn what_an_image_tells_is_enough() {
    let place = made();
    let other = Place::new();
    for name in ["layerize.toml", "layerize.lock"] {
        fs::copy(place.project.join(name), other.project.join(name)).unwrap();
    }
    other.lock_base();
    let spec = format!("--spec={}", other.project.display());
    for (number, flags) in [
        &[][..],
        &["--compression", "zstd"],
        &["--compression", "none"],
        &["--single-member"],
        &["--max-layers", "2"],
    ]
    .iter()
    .enumerate()
    {
        let file = format!("{number}.tar");
        let mut command = place.command(&[&["build", "thing", "-o", file.as_str()][..], flags].concat());
        command.env("SOURCE_DATE_EPOCH", "951868799");
        assert!(command.status().unwrap().success());
        let image = place.project.join(&file);
        // Another store and another directory, in which nothing was ever built.
        let ran = other.run(&["rebuild", image.to_str().unwrap(), &spec]).success();
        assert!(ran.line().starts_with("same     image thing sha256:"), "{}", ran.stdout);
        assert!(ran.stdout.contains("2000-02-29T23:59:59Z"), "{}", ran.stdout);
    }
    // A level is not told, but can be given.
    place
        .run(&["build", "thing", "--compression", "gzip:9", "-o", "nine.tar"])
        .success();
    let ran = place.run(&["rebuild", "nine.tar"]).exits(1);
    assert!(ran.stdout.contains("only its compression differs"), "{}", ran.stdout);
    place.run(&["rebuild", "nine.tar", "--compression", "gzip:9"]).success();
}

#[test]
fn another_source_is_told_by_its_files() {
    let place = made();
    place.write(
        "layerize.toml",
        &crate::support::script_spec("mkdir $out; echo other > $out/file"),
    );
    let ran = place.run(&["rebuild", "thing.tar"]).exits(1);
    assert!(ran.stdout.starts_with("DIFFERS  image thing sha256:"), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("-made") && ran.stdout.contains("+other"),
        "{}",
        ran.stdout
    );
    let json = place.run(&["rebuild", "--json", "thing.tar"]).exits(1).stdout;
    let report: Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    assert_eq!(report["facts"]["layers_of_image"], false);
    assert!(!report["differences"]["differences"].as_array().unwrap().is_empty());
}

#[test]
fn what_cannot_be_rebuilt_is_explained() {
    let place = made();
    place
        .run(&["rebuild", "thing.tar", "--image", "other"])
        .exits(2)
        .says(&["the spec has no image `other`", "thing"]);
    place.run(&["build", "thing", "-o", "oci:layout:v1"]).success();
    set_format(&place, "7");
    place
        .run(&["rebuild", "oci:layout"])
        .exits(2)
        .says(&["format `7`, and this layerize makes format 1"]);
    if have("skopeo", &["--version"]) {
        let to = "docker-archive:plain.tar:x:1";
        let from = "docker-archive:thing.tar";
        peer(
            std::process::Command::new("skopeo")
                .args(["--insecure-policy", "copy", from, to])
                .current_dir(&place.project),
        );
        place
            .run(&["rebuild", "plain.tar"])
            .exits(2)
            .says(&["does not say that layerize made it"]);
    }
}

/// Changes the format that a layout's manifest says, its digests made right again.
fn set_format(place: &Place, format: &str) {
    let dir = place.project.join("layout");
    let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    let hex = |value: &Value| value["digest"].as_str().unwrap()[7..].to_owned();
    let path = dir.join("blobs/sha256").join(hex(&index["manifests"][0]));
    let mut manifest: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    manifest["annotations"]["dev.layerize.format"] = format.into();
    let bytes = manifest.to_string();
    let digest = layerize::digest::Digest::of(bytes.as_bytes());
    fs::write(dir.join("blobs/sha256").join(digest.hex()), &bytes).unwrap();
    let mut index = index;
    index["manifests"][0]["digest"] = digest.to_string().into();
    index["manifests"][0]["size"] = bytes.len().into();
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
}
