//! Inputs artifacts that somebody else made or damaged: each is refused, and nothing of it stays.

use std::fs;
use std::path::Path;

use layerize::digest::Digest;
use serde_json::{Value, json};

use crate::inputs::{LOCAL, Project};
use crate::support::{Place, Ran, copy_tree};

/// A change to the artifact's manifest in a layout.
type Change = fn(&Path, &mut Value);

/// The layer of a media type.
fn layer<'m>(manifest: &'m mut Value, media_type: &str) -> &'m mut Value {
    let mut layers = manifest["layers"].as_array_mut().unwrap().iter_mut();
    layers.find(|layer| layer["mediaType"] == media_type).unwrap()
}

fn blob(layout: &Path, descriptor: &Value) -> std::path::PathBuf {
    let digest = descriptor["digest"].as_str().unwrap();
    layout.join("blobs/sha256").join(&digest["sha256:".len()..])
}

/// Puts other bytes in the place of a blob, as somebody does who makes an artifact anew.
fn replace(layout: &Path, descriptor: &mut Value, bytes: &[u8]) {
    descriptor["digest"] = json!(Digest::of(bytes).to_string());
    descriptor["size"] = json!(bytes.len());
    fs::write(blob(layout, descriptor), bytes).unwrap();
}

const SPEC: &str = "application/vnd.layerize.spec.v1+toml";
const LOCK: &str = "application/vnd.layerize.lock.v1+toml";
const SOURCE: &str = "application/vnd.layerize.source.v1.nar";
const PATH: &str = "dev.layerize.path";

/// A NAR (Nix, "Nix Archive (NAR) format") of a directory with one empty file.
fn archive_of(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let texts = [
        "nix-archive-1",
        "(",
        "type",
        "directory",
        "entry",
        "(",
        "name",
        name,
        "node",
        "(",
        "type",
        "regular",
    ];
    for text in texts.into_iter().chain(["contents", "", ")", ")", ")"]) {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

/// What is done to the artifact, and what the error must hold.
const CASES: &[(&str, Change, &str)] = &[
    (
        "other bytes of the same length",
        |layout, manifest| {
            let path = blob(layout, layer(manifest, LOCK));
            let mut bytes = fs::read(&path).unwrap();
            bytes[0] ^= 1;
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
        },
        "sha256:",
    ),
    (
        "another size",
        |_, manifest| layer(manifest, LOCK)["size"] = json!(7),
        "7",
    ),
    (
        "no config",
        |layout, manifest| fs::remove_file(blob(layout, &manifest["config"])).unwrap(),
        "sha256:",
    ),
    (
        "a format that is not known",
        |layout, manifest| {
            let mut config: Value =
                serde_json::from_slice(&fs::read(blob(layout, &manifest["config"])).unwrap()).unwrap();
            config["format"] = json!(2);
            replace(layout, &mut manifest["config"], config.to_string().as_bytes());
        },
        "2",
    ),
    (
        "a path that leads upwards",
        |_, manifest| layer(manifest, SPEC)["annotations"][PATH] = json!("a/../../x"),
        "downwards",
    ),
    (
        "an absolute path",
        |_, manifest| layer(manifest, SPEC)["annotations"][PATH] = json!("/etc/x"),
        "downwards",
    ),
    (
        "a path with an escape",
        |_, manifest| layer(manifest, SPEC)["annotations"][PATH] = json!("\u{1b}[2J"),
        "cannot be used",
    ),
    (
        "a type that is not known",
        |_, manifest| layer(manifest, LOCK)["mediaType"] = json!("text/plain"),
        "text/plain",
    ),
    (
        "two locks",
        |_, manifest| {
            let again = layer(manifest, LOCK).clone();
            manifest["layers"].as_array_mut().unwrap().push(again);
        },
        "twice",
    ),
    (
        "no spec",
        |_, manifest| {
            manifest["layers"]
                .as_array_mut()
                .unwrap()
                .retain(|layer| layer["mediaType"] != SPEC);
        },
        "missing",
    ),
    (
        "a lock that is none",
        |layout, manifest| replace(layout, layer(manifest, LOCK), b"version = 99\n"),
        "lock",
    ),
    (
        "a spec that is none",
        |layout, manifest| replace(layout, layer(manifest, SPEC), b"\xff\xfe"),
        "UTF-8",
    ),
    (
        "a spec that takes a file of the machine",
        |layout, manifest| {
            let path = blob(layout, layer(manifest, SPEC));
            let text = fs::read_to_string(path).unwrap() + "files = { \"/x\" = \"/etc/hostname\" }\n";
            replace(layout, layer(manifest, SPEC), text.as_bytes());
        },
        "/etc/hostname",
    ),
    (
        "a source that is not an archive",
        |layout, manifest| replace(layout, layer(manifest, SOURCE), b"garbage"),
        "archive",
    ),
    (
        "a source that leads out",
        |layout, manifest| replace(layout, layer(manifest, SOURCE), &archive_of("..")),
        "`..`",
    ),
    (
        "a source with a path for a name",
        |layout, manifest| replace(layout, layer(manifest, SOURCE), &archive_of("a/b")),
        "a/b",
    ),
    (
        "more after a source's archive",
        |layout, manifest| {
            replace(layout, layer(manifest, SOURCE), &[archive_of("a"), vec![0; 8]].concat());
        },
        "bytes follow",
    ),
    (
        "a manifest without end",
        |_, manifest| manifest["annotations"] = json!({ "a": "x".repeat(5 << 20) }),
        "larger",
    ),
];

/// Writes the changed manifest of the artifact, and names it in the index as the old one was named.
fn change(layout: &Path, change: Change) {
    let index_path = layout.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&index_path).unwrap()).unwrap();
    let entries = index["manifests"].as_array_mut().unwrap();
    let is_inputs = |entry: &Value| {
        let name = entry["annotations"]["org.opencontainers.image.ref.name"].as_str();
        name.is_some_and(|name| name.ends_with(".inputs"))
    };
    let old = entries.iter().find(|entry| is_inputs(entry)).unwrap().clone();
    let mut manifest: Value = serde_json::from_slice(&fs::read(blob(layout, &old)).unwrap()).unwrap();
    change(layout, &mut manifest);
    for entry in entries.iter_mut().filter(|entry| entry["digest"] == old["digest"]) {
        replace(layout, entry, manifest.to_string().as_bytes());
    }
    fs::write(index_path, index.to_string()).unwrap();
}

#[test]
fn hostile_inputs_are_refused_and_leave_nothing() {
    let Some(project) = Project::new() else { return };
    project.place.write("local/file", "local\n");
    project.spec(LOCAL, "");
    project
        .run(&["build", "thing", "--inputs=all", "-o", "oci:out:v1"])
        .success();
    let rebuild = |layout: &Path| -> (Place, Ran) {
        let empty = Place::new();
        let image = format!("oci:{}:v1", layout.display());
        let ran = project.run_in(&empty, &["rebuild", &image], false);
        (empty, ran)
    };
    let pristine = project.place.project.join("out");
    rebuild(&pristine).1.success();
    for (name, what, said) in CASES {
        let copy = Place::new();
        let layout = copy.project.join("out");
        copy_tree(&pristine, &layout);
        change(&layout, *what);
        let (empty, ran) = rebuild(&layout);
        assert_eq!(ran.status, 2, "{name}: {}\n{}", ran.stdout, ran.stderr);
        assert!(
            ran.stderr.contains(said),
            "{name}: `{said}` is missing in\n{}",
            ran.stderr
        );
        assert!(!ran.stderr.contains("report"), "{name}: {}", ran.stderr);
        assert!(!ran.stderr.contains('\u{1b}'), "{name}: {:?}", ran.stderr);
        let registered = project.run_in(&empty, &["store", "ls"], false).success().stdout;
        assert!(
            !registered.contains("-thing") && !registered.contains("-local"),
            "{name}: {registered}"
        );
        let left = layerize::fsio::sorted_names(&empty.project).unwrap();
        assert!(left.is_empty(), "{name}: {left:?}");
    }
}
