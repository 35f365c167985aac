//! `layerize verify`: what real tools make is accepted, what is damaged is refused for the right reason, and the JSON
//! schemas of the OCI image specification agree.

mod cases;
mod peers;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use layerize::digest::Digest;
use serde_json::{Value, json};

use cases::{DOCUMENTS, LAYERS, PROFILES};

use crate::support::{Place, have, is_root, peer};

/// An entry of a test layer: path, type flag, mode, content, link target.
type Node<'a> = (&'a str, u8, u32, &'a str, &'a str);

const LOWER: &[Node] = &[
    ("etc/", b'5', 0o755, "", ""),
    ("etc/motd", b'0', 0o644, "welcome\n", ""),
    ("etc/issue", b'2', 0o777, "", "motd"),
    ("etc/same", b'1', 0o644, "", "etc/motd"),
];
const UPPER: &[Node] = &[
    ("etc/", b'5', 0o755, "", ""),
    ("etc/.wh.issue", b'0', 0o600, "", ""),
    ("hello", b'0', 0o755, "#!/bin/sh\n", ""),
];

fn tar(nodes: &[Node]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, flag, mode, data, link) in nodes {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(*flag));
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// How a layout is damaged, and where in its making: everything made later has right digests again.
#[derive(Clone, Copy)]
enum Damage {
    None,
    Tars(fn(&mut Vec<Vec<u8>>)),
    Blobs(fn(&mut Vec<Vec<u8>>)),
    Config(fn(&mut Value)),
    Manifest(fn(&mut Value)),
    Index(fn(&mut Value)),
    /// The config's text.
    ConfigText(fn(&str) -> String),
    /// The manifest's text.
    ManifestText(fn(&str) -> String),
    /// The finished layout.
    Files(fn(&Path)),
}

/// Writes a layout of two layers.
fn layout(dir: &Path, damage: Damage) {
    let blobs_dir = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs_dir).unwrap();
    let put = |bytes: &[u8]| -> Digest {
        let digest = Digest::of(bytes);
        fs::write(blobs_dir.join(digest.hex()), bytes).unwrap();
        digest
    };
    let mut tars = vec![tar(LOWER), tar(UPPER)];
    if let Damage::Tars(change) = damage {
        change(&mut tars);
    }
    let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
    let mut blobs: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
    if let Damage::Blobs(change) = damage {
        change(&mut blobs);
    }
    let entry = json!({ "created": "1970-01-01T00:00:01Z", "created_by": "test" });
    let mut config = json!({
        "architecture": "amd64", "os": "linux", "created": "1970-01-01T00:00:01Z",
        "config": { "Env": ["PATH=/bin"], "Entrypoint": ["/hello"], "Labels": { "a": "b" },
                    "ExposedPorts": { "80/tcp": {} }, "Volumes": { "/data": {} }, "StopSignal": "SIGTERM" },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": vec![entry; tars.len()],
    });
    if let Damage::Config(change) = damage {
        change(&mut config);
    }
    let mut config = config.to_string();
    if let Damage::ConfigText(change) = damage {
        config = change(&config);
    }
    let layers: Vec<Value> = blobs
        .iter()
        .map(|blob| {
            json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": put(blob), "size": blob.len() })
        })
        .collect();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": put(config.as_bytes()), "size": config.len() },
        "layers": layers,
        "annotations": { "org.opencontainers.image.created": "1970-01-01T00:00:01Z" },
    });
    if let Damage::Manifest(change) = damage {
        change(&mut manifest);
    }
    let mut manifest = manifest.to_string();
    if let Damage::ManifestText(change) = damage {
        manifest = change(&manifest);
    }
    let mut index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": put(manifest.as_bytes()), "size": manifest.len(),
            "platform": { "architecture": "amd64", "os": "linux" },
            "annotations": { "org.opencontainers.image.ref.name": "v1" },
        }],
    });
    if let Damage::Index(change) = damage {
        change(&mut index);
    }
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    if let Damage::Files(change) = damage {
        change(dir);
    }
}

/// The blob of the layout that is a layer's, by its index.
fn blob_path(dir: &Path, of: &str) -> PathBuf {
    let read = |path: PathBuf| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let blob = |digest: &Value| dir.join("blobs/sha256").join(&digest.as_str().unwrap()[7..]);
    let manifest = blob(&read(dir.join("index.json"))["manifests"][0]["digest"]);
    match of {
        "manifest" => manifest,
        "config" => blob(&read(manifest)["config"]["digest"]),
        layer => blob(&read(manifest)["layers"][layer.parse::<usize>().unwrap()]["digest"]),
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn with(nodes: &[Node]) -> Vec<u8> {
    tar(&[LOWER, nodes].concat())
}

/// A damage, whether the schemas see it too, and how the first problem that `verify` tells begins.
type Case = (Damage, bool, &'static str);

const LONG: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

use Damage::{Blobs, Config, ConfigText, Files, Index, Manifest, ManifestText, Tars};

/// Every damaged image is refused, with the right reason, exit status 1, and as JSON too.
#[test]
fn every_damage_is_named() {
    let place = Place::new();
    let cases = [DOCUMENTS, LAYERS].concat();
    assert!(cases.len() >= 30);
    for (number, (damage, _, expected)) in cases.iter().enumerate() {
        let dir = place.project.join(number.to_string());
        layout(&dir, *damage);
        let ran = place.run(&["verify", &format!("oci:{number}")]).exits(1);
        let first = ran.stdout.lines().next().unwrap();
        assert!(
            first.starts_with(expected),
            "{number}: wanted {expected}\n{}",
            ran.stdout
        );
        let json = place.run(&["verify", "--json", &format!("oci:{number}")]).exits(1);
        let report: Value = serde_json::from_str(&json.stdout).unwrap();
        let problem = &report["problems"][0];
        let subject = problem["subject"].as_str().unwrap();
        assert!(
            expected.starts_with(subject) || subject.starts_with("name "),
            "{problem}"
        );
    }
}

#[test]
fn a_sound_layout_has_no_problems_and_trouble_is_no_answer() {
    let place = Place::new();
    layout(&place.project.join("good"), Damage::None);
    let ran = place.run(&["verify", "oci:good:v1"]).success();
    assert!(
        ran.stdout.contains(", 2 layers, ") && ran.stdout.ends_with(": no problems\n"),
        "{}",
        ran.stdout
    );
    place.run(&["verify", "oci:missing"]).exits(2);
    place
        .run(&["verify", "oci:good:other"])
        .exits(2)
        .says(&["no image named `other`"]);
    place
        .run(&["verify", "--profile", "podman", "oci:good"])
        .exits(2)
        .says(&["docker-20"]);
}

/// What each profile asks for beyond the specification, and what it rests on.
#[test]
fn profiles_ask_for_more() {
    let place = Place::new();
    for (number, (profile, damage, expected)) in PROFILES.iter().enumerate() {
        layout(&place.project.join(number.to_string()), *damage);
        let source = format!("oci:{number}");
        let asked = place.run(&["verify", "--profile", profile, &source]).exits(1);
        assert!(
            asked.stdout.lines().any(|line| line.starts_with(expected)),
            "{number} {expected}\n{}",
            asked.stdout
        );
        // An index that says another platform than the config is wrong for everybody.
        if !expected.starts_with("config: ") {
            place.run(&["verify", &source]).success();
        }
    }
    layout(&place.project.join("good"), Damage::None);
    for profile in ["docker-20", "lambda", "strict"] {
        place.run(&["verify", "--profile", profile, "oci:good"]).success();
    }
    let rules = place.run(&["verify", "--rules"]).success().stdout;
    assert!(
        rules.contains("docker-20/layers: at most 125 layers (") && rules.lines().count() > 15,
        "{rules}"
    );
}

/// Compares documents with the specification's schemas: (schema, document) → whether it fits.
const VALIDATE: &str = r##"
import json, sys, os
from jsonschema import Draft4Validator, FormatChecker
base = sys.argv[1]
def load(name):
    return json.load(open(os.path.join(base, name)))
def inline(node, name):
    if isinstance(node, list):
        return [inline(each, name) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        file, _, pointer = node["$ref"].partition("#")
        target = load(file or name)
        for part in pointer.strip("/").split("/"):
            target = target[part] if part else target
        return inline(target, file or name)
    return {key: inline(value, name) for key, value in node.items() if key != "id" or not isinstance(value, str)}
answers = []
for kind, path in json.load(sys.stdin):
    name = {"config": "config-schema.json", "manifest": "image-manifest-schema.json",
            "index": "image-index-schema.json", "layout": "image-layout-schema.json"}[kind]
    schema = inline(load(name), name)
    answers.append(Draft4Validator(schema, format_checker=FormatChecker()).is_valid(json.load(open(path))))
print(json.dumps(answers))
"##;

/// What the schemas say of each document; `None` where they are not installed.
fn schemas(documents: &[(&str, PathBuf)]) -> Option<Vec<bool>> {
    if !have("python3", &["-c", "import jsonschema"])
        || !have("dpkg", &["-L", "golang-github-opencontainers-image-spec-dev"])
    {
        return None;
    }
    let files = peer(Command::new("dpkg").args(["-L", "golang-github-opencontainers-image-spec-dev"])).stdout;
    let dir = files
        .lines()
        .find_map(|line| line.strip_suffix("/config-schema.json"))
        .unwrap();
    let place = tempfile::tempdir().unwrap();
    let list = place.path().join("list.json");
    fs::write(&list, serde_json::to_vec(documents).unwrap()).unwrap();
    let output = Command::new("python3")
        .args(["-W", "ignore", "-c", VALIDATE, dir])
        .stdin(fs::File::open(list).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// The four documents of a layout.
fn documents_of(dir: &Path) -> Vec<(&'static str, PathBuf)> {
    vec![
        ("layout", dir.join("oci-layout")),
        ("index", dir.join("index.json")),
        ("manifest", blob_path(dir, "manifest")),
        ("config", blob_path(dir, "config")),
    ]
}

/// Where a document's shape is wrong, the specification's schemas refuse it as well; a sound one passes both.
#[test]
fn the_specifications_schemas_agree() {
    let place = Place::new();
    let good = place.project.join("good");
    layout(&good, Damage::None);
    let mut asked = documents_of(&good);
    for (number, (damage, _, _)) in DOCUMENTS.iter().enumerate().filter(|(_, case)| case.1) {
        let dir = place.project.join(number.to_string());
        layout(&dir, *damage);
        asked.push(match damage {
            Damage::Manifest(_) => ("manifest", blob_path(&dir, "manifest")),
            Damage::Config(_) => ("config", blob_path(&dir, "config")),
            Damage::Index(_) => ("index", dir.join("index.json")),
            _ => ("layout", dir.join("oci-layout")),
        });
    }
    let Some(answers) = schemas(&asked) else { return };
    assert!(answers.len() > 20);
    for (answer, (kind, path)) in answers.iter().zip(&asked) {
        let is_good = path.starts_with(&good);
        assert_eq!(*answer, is_good, "{kind} {}", path.display());
    }
}
