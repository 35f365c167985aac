//! `layerize copy`: bytes stay what they are, and are read when they are wanted.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::{Place, have, peer};

/// Builds an image of a store path with `text` in it, and gives its digest.
pub fn build(place: &Place, text: &str, extra: &[&str]) -> String {
    fs::create_dir_all(place.project.join("data/share")).unwrap();
    place.write("data/share/text", text);
    let path = place.run(&["store", "add", "data"]).success().line().to_owned();
    let command = [&["build", path.as_str(), "--name", "data:1"], extra].concat();
    let built = place.run(&command).success();
    built.stdout.split(' ').next().unwrap().to_owned()
}

/// The bytes of a blob of a layout.
fn blob(place: &Place, layout: &str, digest: &str) -> Vec<u8> {
    let hex = digest.strip_prefix("sha256:").unwrap();
    fs::read(place.project.join(layout).join("blobs/sha256").join(hex)).unwrap()
}

fn index_json(place: &Place, layout: &str) -> Value {
    serde_json::from_slice(&fs::read(place.project.join(layout).join("index.json")).unwrap()).unwrap()
}

#[test]
fn a_digest_survives_every_form() {
    let place = Place::new();
    let digest = build(&place, "text", &["-o", "oci:first:v1"]);
    let chain = [
        ("oci:first:v1", "docker-archive:a.tar:data:1"),
        ("docker-archive:a.tar", "oci-archive:b.tar:v2"),
        ("oci-archive:b.tar:v2", "oci:second:v3"),
        ("oci:second:v3", "c.tar"),
        ("c.tar", "oci:third:v4"),
    ];
    for (source, sink) in chain {
        let copied = place.run(&["copy", source, sink]).success();
        assert_eq!(copied.line(), format!("{digest} {}", sink));
    }
    place.run(&["diff", "oci:first:v1", "oci:third:v4"]).success();
    place.run(&["verify", "oci:third:v4"]).success();
    assert_eq!(blob(&place, "first", &digest), blob(&place, "third", &digest));
    if have("skopeo", &["--version"]) {
        let mut skopeo = Command::new("skopeo");
        skopeo
            .args(["inspect", "--raw", "oci:third:v4"])
            .current_dir(&place.project);
        assert_eq!(peer(&mut skopeo).stdout.into_bytes(), blob(&place, "first", &digest));
    }
    let piped = place.command(&["copy", "oci:first:v1", "-"]).output().unwrap();
    assert!(piped.status.success());
    fs::write(place.project.join("piped.tar"), piped.stdout).unwrap();
    place.run(&["diff", "piped.tar", "oci:first:v1"]).success();
}

#[test]
fn names_and_tags_are_given_once_and_stay_or_move_as_asked() {
    let place = Place::new();
    let one = build(&place, "one", &["-o", "oci:one:v1"]);
    let two = build(&place, "two", &["-o", "oci:two:v1"]);
    let copy = |args: &[&str]| place.run(&[&["copy"][..], args].concat());
    let copied = copy(&[
        "oci:one:v1",
        "oci:all:v1",
        "--tag",
        "v2",
        "--tag",
        "v3",
        "--digest-file",
        "d",
    ])
    .success();
    assert_eq!(copied.stdout.lines().count(), 3);
    assert_eq!(fs::read_to_string(place.project.join("d")).unwrap().trim(), one);
    let named = |tag: &str| {
        let index = index_json(&place, "all");
        let found = index["manifests"].as_array().unwrap().iter();
        let mut found = found.filter(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] == tag);
        found.next().map(|entry| entry["digest"].as_str().unwrap().to_owned())
    };
    for tag in ["v1", "v2", "v3"] {
        assert_eq!(named(tag).as_deref(), Some(one.as_str()));
    }
    // The same again is fine under every flag and writes nothing.
    let again = copy(&["--json", "oci:one:v1", "oci:all:v1", "--immutable"]).success();
    let event: Value = serde_json::from_str(again.line()).unwrap();
    assert_eq!((&event["event"], &event["written"]), (&"transferred".into(), &0.into()));
    assert!(event["skipped"].as_u64().unwrap() > 0, "{event}");
    copy(&["oci:two:v1", "oci:all:v2", "--immutable"])
        .exits(2)
        .says(&["`v2`", &one, "another tag"]);
    copy(&["oci:two:v1", "oci:all:v2", "--skip-existing"])
        .success()
        .says(&["left as it is"]);
    assert_eq!(named("v2").as_deref(), Some(one.as_str()));
    copy(&["oci:two:v1", "oci:all:v2", "--dry-run"])
        .success()
        .says(&["to write"]);
    assert_eq!(named("v2").as_deref(), Some(one.as_str()));
    copy(&["oci:two:v1", "oci:all:v2"]).success();
    assert_eq!(named("v2").as_deref(), Some(two.as_str()));
    assert_eq!(named("v3").as_deref(), Some(one.as_str()));
}

#[test]
fn only_what_is_missing_is_written() {
    let place = Place::new();
    build(&place, "one", &["-o", "oci:one:v1"]);
    let copied = |source: &str| {
        let ran = place.run(&["copy", "--json", source, "oci:all"]).success();
        let event: Value = serde_json::from_str(ran.line()).unwrap();
        (event["written"].as_u64().unwrap(), event["skipped"].as_u64().unwrap())
    };
    let (written, skipped) = copied("oci:one:v1");
    assert!(written > 0 && skipped == 0, "{written} {skipped}");
    // What links and accounts there are is one layer, the data another.
    build(&place, "two", &["--label", "a=b", "-o", "oci:two:v1"]);
    let expected = place
        .run(&["copy", "--json", "--dry-run", "oci:two:v1", "oci:all"])
        .success();
    let expected: Value = serde_json::from_str(expected.line()).unwrap();
    let (written, _) = copied("oci:two:v1");
    assert_eq!(expected["written"].as_u64().unwrap(), written);
}

#[test]
fn layers_are_not_read_where_they_are_not_wanted() {
    let place = Place::new();
    let digest = build(&place, "text", &["-o", "oci:one:v1", "-o", "oci:two:v1"]);
    let manifest: Value = serde_json::from_slice(&blob(&place, "one", &digest)).unwrap();
    for layer in manifest["layers"].as_array().unwrap() {
        let hex = layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        fs::remove_file(place.project.join("one/blobs/sha256").join(hex)).unwrap();
    }
    // The sink has them: the source's are not missed, until they are.
    place.run(&["copy", "oci:one:v1", "oci:two:v2"]).success();
    place.run(&["verify", "oci:two:v2"]).success();
    place
        .run(&["copy", "oci:one:v1", "three.tar"])
        .exits(2)
        .says(&["three.tar", "is missing in `oci:one`"]);
    assert!(!place.project.join("three.tar").exists());
}

#[test]
fn damaged_layers_are_not_copied() {
    let place = Place::new();
    let digest = build(&place, "text", &["-o", "oci:one:v1"]);
    let manifest: Value = serde_json::from_slice(&blob(&place, "one", &digest)).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let path = place.project.join("one/blobs/sha256").join(&layer[7..]);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "a file of the test alone")]
    permissions.set_readonly(false);
    fs::set_permissions(&path, permissions).unwrap();
    fs::write(&path, bytes).unwrap();
    place
        .run(&["copy", "oci:one:v1", "oci:two:v1"])
        .exits(2)
        .says(&["damaged", layer]);
    assert!(!place.project.join("two/index.json").exists());
}

/// What Docker saves has no manifest of its own: one is made, and that is said.
#[test]
fn an_archive_without_manifest_gets_one() {
    let place = Place::new();
    build(&place, "text", &["-o", "docker-archive:a.tar", "--compression", "none"]);
    let strip = "import sys, tarfile
with tarfile.open(sys.argv[1]) as old, tarfile.open(sys.argv[2], 'w') as new:
    for entry in old:
        if entry.name not in ('index.json', 'oci-layout'):
            new.addfile(entry, old.extractfile(entry) if entry.isfile() else None)
";
    if !have("python3", &["--version"]) {
        return;
    }
    let mut python = Command::new("python3");
    peer(
        python
            .args(["-c", strip, "a.tar", "old.tar"])
            .current_dir(&place.project),
    );
    let copied = place.run(&["copy", "old.tar", "oci:made:v1"]).success();
    let digest = copied.line().split(' ').next().unwrap().to_owned();
    copied.says(&["holds no manifest", "Docker's media type"]);
    place.run(&["verify", "oci:made:v1"]).success();
    // The manifest that was made is a form of Docker's, and survives being copied on.
    let again = place
        .run(&["copy", "oci:made:v1", "docker-archive:union.tar"])
        .success();
    assert_eq!(again.line().split(' ').next().unwrap(), digest);
    let back = place
        .run(&["copy", "docker-archive:union.tar", "oci:back:v1"])
        .success();
    assert_eq!(back.line().split(' ').next().unwrap(), digest);
}
