//! `layerize verify`: what real tools make is accepted, what is damaged is refused for the right reason, and the JSON
//! schemas of the OCI image specification agree.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use layerize::digest::Digest;
use serde_json::{Value, json};

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

const DOCUMENTS: &[Case] = &[
    (
        Manifest(|m| m["schemaVersion"] = 1.into()),
        true,
        "manifest, schemaVersion: it is 1, and must be 2",
    ),
    (
        Manifest(|m| m["schemaVersion"] = "2".into()),
        true,
        "manifest, schemaVersion: it is the string `2`, and must be 2",
    ),
    (
        Manifest(|m| m["config"]["mediaType"] = "text/plain".into()),
        false,
        "manifest, config.mediaType: it is `text/plain`",
    ),
    (
        Manifest(|m| m["layers"][1]["mediaType"] = "text".into()),
        true,
        "manifest, layers[1].mediaType: it is `text`, which is no media type",
    ),
    (
        Manifest(|m| m["layers"][1]["mediaType"] = "text/plain".into()),
        false,
        "layer 1: its media type `text/plain` is not a layer's",
    ),
    (
        Manifest(|m| m["layers"][0]["size"] = (-1).into()),
        false,
        "manifest, layers[0].size: it is -1, and must be a number of bytes",
    ),
    (
        Manifest(|m| m["layers"][0]["size"] = "12".into()),
        true,
        "manifest, layers[0].size: it is the string `12`",
    ),
    (
        Manifest(|m| m["layers"][0]["digest"] = "sha256:12".into()),
        false,
        "manifest, layers[0].digest: it is `sha256:12`, which is no digest",
    ),
    (
        Manifest(|m| m["layers"][0]["digest"] = "12".into()),
        true,
        "manifest, layers[0].digest: it is `12`, which is no digest",
    ),
    (
        Manifest(|m| drop(m["layers"][0].as_object_mut().unwrap().remove("digest"))),
        true,
        "manifest, layers[0].digest: it is missing",
    ),
    (
        Manifest(|m| drop(m.as_object_mut().unwrap().remove("layers"))),
        true,
        "manifest, layers: it is missing",
    ),
    (
        Manifest(|m| m["layers"] = json!([])),
        true,
        "manifest, layers: it is empty",
    ),
    (
        Manifest(|m| m["annotations"] = json!({ "a": 1 })),
        true,
        "manifest, annotations[\"a\"]: it is 1, and must be a string",
    ),
    (
        Manifest(|m| m["annotations"]["org.opencontainers.image.created"] = "yesterday".into()),
        false,
        "manifest, annotations[\"org.opencontainers.image.created\"]: it is `yesterday`, which is no time",
    ),
    (
        Manifest(|m| m["layers"].as_array_mut().unwrap().swap(0, 1)),
        false,
        "layer 0: its diffID is sha256:",
    ),
    (
        ManifestText(|text| text.replacen('{', "{\"schemaVersion\":2,", 1)),
        false,
        "manifest: malformed JSON: the key `schemaVersion` stands twice",
    ),
    (
        ManifestText(|text| format!("{text}{}", " ".repeat(5 << 20))),
        false,
        "archive: the manifest",
    ),
    (
        Config(|c| c["rootfs"]["type"] = "tree".into()),
        true,
        "config, rootfs.type: it is `tree`, and must be `layers`",
    ),
    (
        Config(|c| c["rootfs"]["diff_ids"] = "x".into()),
        true,
        "config, rootfs.diff_ids: it is the string `x`, and must be a list",
    ),
    (
        Config(|c| drop(c["rootfs"]["diff_ids"].as_array_mut().unwrap().pop())),
        false,
        "config, rootfs.diff_ids: it has 1, and the manifest has 2 layers",
    ),
    (
        Config(|c| drop(c["history"].as_array_mut().unwrap().pop())),
        false,
        "config, history: it tells of 1 layers, and the manifest has 2",
    ),
    (
        Config(|c| c["history"][1]["empty_layer"] = true.into()),
        false,
        "config, history: it tells of 1 layers",
    ),
    (
        Config(|c| c["history"][1]["empty_layer"] = "no".into()),
        true,
        "config, history[1].empty_layer: it is the string `no`, and must be true or false",
    ),
    (
        Config(|c| c["history"][0]["created"] = "now".into()),
        false,
        "config, history[0].created: it is `now`, which is no time",
    ),
    (
        Config(|c| c["created"] = "1970-02-30T00:00:00Z".into()),
        false,
        "config, created: it is `1970-02-30T00:00:00Z`, which is no time of RFC 3339",
    ),
    (
        Config(|c| drop(c.as_object_mut().unwrap().remove("os"))),
        true,
        "config, os: it is missing",
    ),
    (
        Config(|c| c["architecture"] = 64.into()),
        true,
        "config, architecture: it is 64, and must be a string",
    ),
    (
        Config(|c| c["config"]["Env"] = json!(["PATH"])),
        false,
        "config, config.Env[0]: it is `PATH`, which is not `NAME=VALUE`",
    ),
    (
        Config(|c| c["config"]["Env"] = json!({ "PATH": "x" })),
        true,
        "config, config.Env: it is an object, and must be a list",
    ),
    (
        Config(|c| c["config"]["Entrypoint"] = "/hello".into()),
        true,
        "config, config.Entrypoint: it is the string `/hello`, and must be a list",
    ),
    (
        Config(|c| c["config"]["Labels"]["a"] = json!([])),
        true,
        "config, config.Labels[\"a\"]: it is a list, and must be a string",
    ),
    (
        Config(|c| c["config"]["ExposedPorts"] = json!({ "http": {} })),
        false,
        "config, config.ExposedPorts[\"http\"]: its key is no `PORT` or `PORT/PROTOCOL`",
    ),
    (
        Config(|c| c["config"]["Volumes"] = json!(["/data"])),
        true,
        "config, config.Volumes: it is a list, and must be an object",
    ),
    (
        Config(|c| c["config"]["StopSignal"] = "please stop".into()),
        false,
        "config, config.StopSignal: it is `please stop`, which is no signal",
    ),
    (
        Config(|c| c["config"]["WorkingDir"] = Value::Null),
        true,
        "config, config.WorkingDir: it is null, and must be a string",
    ),
    (
        ConfigText(|text| text.replacen('{', "{\"os\":\"plan9\",", 1)),
        false,
        "config: malformed JSON: the key `os` stands twice",
    ),
    (
        ConfigText(|text| text[..text.len() - 3].to_owned()),
        false,
        "config: malformed JSON: EOF while parsing",
    ),
    (
        ConfigText(|text| format!("{text}{}", " ".repeat(5 << 20))),
        false,
        "config: it has 5",
    ),
    (
        Index(|i| i["manifests"][0]["platform"]["architecture"] = "arm64".into()),
        false,
        "index, manifests[0].platform: it is linux/arm64, and the config says linux/amd64",
    ),
    (
        Index(|i| i["manifests"][0]["platform"] = json!({ "os": "linux" })),
        true,
        "index, manifests[0].platform.architecture: it is missing",
    ),
    (
        Index(|i| i["schemaVersion"] = 3.into()),
        true,
        "index, schemaVersion: it is 3",
    ),
    (
        Index(|i| {
            i["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] =
                format!("x:{}{}", &LONG[..90], &LONG[..90]).into()
        }),
        false,
        "name `x:aaa",
    ),
    (
        Index(|i| i["manifests"][0]["size"] = 7.into()),
        false,
        "archive: cannot read the manifest",
    ),
    (
        Files(|dir| flip(&blob_path(dir, "manifest"), 20)),
        false,
        "archive: cannot read the manifest",
    ),
    (
        Files(|dir| flip(&blob_path(dir, "config"), 20)),
        false,
        "config: cannot read the config",
    ),
    (
        Files(|dir| fs::remove_file(blob_path(dir, "config")).unwrap()),
        false,
        "config: the blob `sha256:",
    ),
    (
        Files(|dir| fs::write(dir.join("oci-layout"), "{}").unwrap()),
        true,
        "archive: `oci-layout` in",
    ),
];

const LAYERS: &[Case] = &[
    (
        Files(|dir| flip(&blob_path(dir, "1"), 4)),
        false,
        "layer 1: cannot read the layer",
    ),
    (
        Files(|dir| fs::remove_file(blob_path(dir, "0")).unwrap()),
        false,
        "layer 0: the blob `sha256:",
    ),
    (
        Files(|dir| {
            let path = blob_path(dir, "0");
            let bytes = fs::read(&path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        false,
        "layer 0: cannot read the layer",
    ),
    (Blobs(|blobs| blobs[0][30] ^= 0x55), false, "layer 0: cannot read the"),
    (
        Blobs(|blobs| {
            let at = blobs[0].len() - 6;
            blobs[0][at] ^= 1;
        }),
        false,
        "layer 0: cannot read the layer",
    ),
    (
        Blobs(|blobs| {
            let length = blobs[0].len() - 20;
            blobs[0].truncate(length);
        }),
        false,
        "layer 0: cannot read the",
    ),
    (
        Blobs(|blobs| blobs[0].extend(b"tail")),
        false,
        "layer 0: cannot read the layer",
    ),
    (
        Blobs(|blobs| blobs[0] = tar(LOWER)),
        false,
        "layer 0: its media type says gzip, and its bytes are none",
    ),
    (
        Blobs(|blobs| blobs[0] = zstd::encode_all(&tar(LOWER)[..], 1).unwrap()),
        false,
        "layer 0: its media type says gzip, and its bytes are zstd",
    ),
    (Blobs(|blobs| blobs.swap(0, 1)), false, "layer 0: its diffID is sha256:"),
    (
        Blobs(|blobs| {
            blobs[0] = gzip(
                b"no tar, but long enough to be taken for a header"
                    .repeat(20)
                    .as_slice(),
            )
        }),
        false,
        "layer 0: cannot read the tar of the layer",
    ),
    (
        Tars(|tars| tars[0][148] ^= 1),
        false,
        "layer 0: cannot read the tar of the layer",
    ),
    (
        Tars(|tars| tars[0].extend(b"garbage")),
        false,
        "layer 0: bytes other than zero follow its last entry, at byte 2560",
    ),
    (
        Tars(|tars| tars[0].truncate(700)),
        false,
        "layer 0: cannot read the tar",
    ),
    (
        Tars(|tars| tars[0] = with(&[("etc/motd", b'0', 0o644, "again", "")])),
        false,
        "layer 0, `etc/motd`: it is there twice, at byte 2560 of the tar",
    ),
    (
        Tars(|tars| tars[0] = with(&[("./etc/motd", b'0', 0o644, "again", "")])),
        false,
        "layer 0, `etc/motd`: it is there twice",
    ),
    (
        Tars(|tars| tars[0] = with(&[("../../etc/shadow", b'0', 0o644, "x", "")])),
        false,
        "layer 0, `../../etc/shadow`: its path has a component `..`",
    ),
    (
        Tars(|tars| tars[1] = tar(&[("x", b'1', 0o644, "", "etc/motd")])),
        false,
        "layer 1, `x`: it is a hard link to `etc/motd`, which is not before it in the layer",
    ),
    (
        Tars(|tars| tars[0] = with(&[("x", b'1', 0o644, "", "etc")])),
        false,
        "layer 0, `x`: it is a hard link to `etc`, which is a directory",
    ),
    (
        Tars(|tars| tars[0] = with(&[("etc/motd/x", b'0', 0o644, "", "")])),
        false,
        "layer 0, `etc/motd/x`: it is in `etc/motd`, which is a file",
    ),
    (
        Tars(|tars| tars[0] = with(&[("etc/issue/x", b'0', 0o644, "", "")])),
        false,
        "layer 0, `etc/issue/x`: it is in `etc/issue`, which is a symlink",
    ),
    (
        Tars(|tars| tars[0] = tar(&[("a/b", b'0', 0o644, "", ""), ("a", b'0', 0o644, "", "")])),
        false,
        "layer 0, `a`: it is a file, and the layer has files in it",
    ),
    (
        // A sparse file without a map: nothing says where its data belong.
        Tars(|tars| tars[0] = with(&[("x", b'S', 0o644, "", "")])),
        false,
        "layer 0: cannot read the tar of the layer",
    ),
    (
        Tars(|tars| tars[0] = with(&[("x", b'V', 0o644, "", "")])),
        false,
        "layer 0, `x`: it is a type 'V', which layers must not have",
    ),
    (
        Tars(|tars| tars[0] = with(&[("x", b'2', 0o777, "", "")])),
        false,
        "layer 0, `x`: its target has 0 bytes",
    ),
    (
        Tars(|tars| tars[0] = with(&[("./", b'0', 0o644, "", "")])),
        false,
        "layer 0, `/`: the root is a file",
    ),
    (
        Tars(|tars| tars[1] = tar(&[(".wh.", b'0', 0o644, "", "")])),
        false,
        "layer 1, `.wh.`: it is a whiteout of nothing",
    ),
    (
        Tars(|tars| tars[1] = tar(&[(".wh.etc", b'0', 0o644, "content", "")])),
        false,
        "layer 1, `.wh.etc`: it has 7 bytes, and a whiteout is an empty file",
    ),
    (
        Tars(|tars| tars[1] = tar(&[(".wh.etc", b'5', 0o755, "", "")])),
        false,
        "layer 1, `.wh.etc`: it is a directory, and a whiteout is an empty file",
    ),
    (
        Tars(|tars| tars[1] = tar(&[("etc/.wh..wh.plnk", b'0', 0o644, "", "")])),
        false,
        "layer 1, `etc/.wh..wh.plnk`: names that begin with `.wh..wh.` are reserved",
    ),
];

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

/// A profile, a damage, and a line that it then tells.
const PROFILES: &[(&str, Damage, &str)] = &[
    (
        "docker-20",
        Damage::Tars(|tars| tars.extend(vec![tar(&[]); 124])),
        "manifest, layers: there are 126, and at most 125",
    ),
    (
        "docker-20",
        Damage::Index(|i| i["manifests"][0]["annotations"]["io.containerd.image.name"] = "Upper:v1".into()),
        "name `Upper:v1`: ",
    ),
    (
        "lambda",
        Damage::Tars(|tars| tars[1] = tar(&[("a/b", b'0', 0o644, "", "")])),
        "layer 1, `a/b`: its directory `a` is no entry, at byte 0 of the tar (lambda/parents: ",
    ),
    (
        "lambda",
        Damage::Config(|c| drop(c.as_object_mut().unwrap().remove("history"))),
        "config, history: it tells of 0 layers, and there are 2 (lambda/history: ",
    ),
    (
        "lambda",
        Damage::Config(|c| c["architecture"] = "s390x".into()),
        "config: it is for linux/s390x (lambda/platform: ",
    ),
    (
        "lambda",
        Damage::Index(|i| {
            let mut other = i["manifests"][0].clone();
            other["digest"] = format!("sha256:{}", "0".repeat(64)).into();
            other["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
            i["manifests"].as_array_mut().unwrap().push(other);
        }),
        "index, manifests: 1 attestations or images of other platforms",
    ),
    (
        "strict",
        Damage::Tars(|tars| tars[0] = tar(&[("a/b", b'0', 0o644, "", ""), ("a", b'5', 0o755, "", "")])),
        "layer 0, `a`: the directory comes after what is in it, at byte 512 of the tar (strict/parents-first: ",
    ),
    (
        "strict",
        Damage::Tars(|tars| tars[1] = tar(&[(".wh.none", b'0', 0o644, "", "")])),
        "layer 1, `.wh.none`: no lower layer has `none`",
    ),
    (
        "strict",
        Damage::Tars(|tars| tars[1] = tar(&[("a", b'0', 0o644, "", ""), (".wh.etc", b'0', 0o644, "", "")])),
        "layer 1, `.wh.etc`: `a` comes before it",
    ),
    (
        "strict",
        Damage::Tars(|tars| {
            let length = tars[0].len() - 1024;
            tars[0].truncate(length);
        }),
        "layer 0: 0 bytes follow its last entry (strict/end: ",
    ),
    (
        "strict",
        Damage::Tars(|tars| tars[0].extend([0; 512])),
        "layer 0: 1536 bytes follow its last entry (strict/end: ",
    ),
    (
        "strict",
        Damage::Index(|i| drop(i.as_object_mut().unwrap().remove("mediaType"))),
        "index, mediaType: it is missing (strict/index-media-type: ",
    ),
    (
        "strict",
        Damage::Index(|i| i["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = "a b".into()),
        "name `a b`: it breaks the grammar",
    ),
    (
        "strict",
        Damage::Config(|c| c["os"] = "plan10".into()),
        "config: `plan10/amd64` is not known",
    ),
];

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

/// A small root file system as a plain tar, with a mark that makes it no other test's.
fn root_tar(place: &Place) -> PathBuf {
    let path = place.path().join("root.tar");
    let mark = format!("{}\n", std::process::id());
    let nodes: Vec<Node> = [LOWER, &[("mark", b'0', 0o644, mark.as_str(), "")]].concat();
    fs::write(&path, tar(&nodes)).unwrap();
    path
}

/// Asserts that a source has no problems, and that what it says of itself passes the schemas where it is a layout.
fn accepted(place: &Place, source: &str) {
    let ran = place.run(&["verify", source]);
    assert_eq!(ran.status, 0, "{source}\n{}{}", ran.stdout, ran.stderr);
}

#[test]
fn what_docker_saves_is_sound() {
    if !have("docker", &["info"]) {
        return;
    }
    let place = Place::new();
    let name = format!("layerize-test-verify-{}", std::process::id());
    let root = root_tar(&place);
    peer(
        Command::new("docker")
            .args(["import", "--change", "ENV A=b", "--change", "EXPOSE 80"])
            .arg(&root)
            .arg(&name),
    );
    let saved = place.project.join("docker.tar");
    let ran = Command::new("docker")
        .args(["save", "-o"])
        .arg(&saved)
        .arg(&name)
        .status()
        .unwrap();
    peer(Command::new("docker").args(["rmi", "-f", &name]));
    assert!(ran.success());
    accepted(&place, "docker-archive:docker.tar");
    place.run(&["verify", "--profile", "docker-20", "docker.tar"]).success();
}

#[test]
fn what_podman_and_buildah_save_is_sound() {
    if !is_root() || !have("podman", &["--version"]) || !have("buildah", &["--version"]) {
        return;
    }
    let place = Place::new();
    let storage = |program: &str| {
        let mut command = Command::new(program);
        command
            .arg("--root")
            .arg(place.path().join("storage"))
            .arg("--runroot")
            .arg(place.path().join("run"));
        command.args(["--storage-driver", "vfs"]);
        command
    };
    let root = root_tar(&place);
    peer(
        storage("podman")
            .args(["import", "--change", "ENV A=b"])
            .arg(&root)
            .arg("localhost/verify:1"),
    );
    for (format, file) in [
        ("docker-archive", "podman-docker.tar"),
        ("oci-archive", "podman-oci.tar"),
    ] {
        let path = place.project.join(file);
        peer(
            storage("podman")
                .args(["save", "--format", format, "-o"])
                .arg(&path)
                .arg("localhost/verify:1"),
        );
        accepted(&place, &format!("{format}:{file}"));
    }
    let pushed = place.project.join("buildah");
    peer(
        storage("buildah")
            .args(["push", "localhost/verify:1"])
            .arg(format!("oci:{}:1", pushed.display())),
    );
    accepted(&place, "oci:buildah:1");
    if let Some(answers) = schemas(&documents_of(&pushed)) {
        assert_eq!(answers, [true; 4]);
    }
}

#[test]
fn what_umoci_and_skopeo_make_is_sound() {
    if !is_root() || !have("umoci", &["--version"]) || !have("skopeo", &["--version"]) {
        return;
    }
    let place = Place::new();
    let layout_dir = place.project.join("umoci");
    let image = format!("{}:v1", layout_dir.display());
    layout(&layout_dir, Damage::None);
    let bundle = place.path().join("bundle");
    peer(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle));
    fs::write(bundle.join("rootfs/added"), "new").unwrap();
    fs::remove_file(bundle.join("rootfs/etc/motd")).unwrap();
    let repacked = format!("{}:v2", layout_dir.display());
    peer(
        Command::new("umoci")
            .args(["repack", "--image", &repacked])
            .arg(&bundle),
    );
    accepted(&place, "oci:umoci:v2");
    let inserted = place.project.join("inserted");
    fs::write(&inserted, "inserted").unwrap();
    peer(
        Command::new("umoci")
            .args(["insert", "--image", &image, "--tag", "v3"])
            .arg(&inserted)
            .arg("/inserted"),
    );
    accepted(&place, "oci:umoci:v3");
    let from = format!("oci:{repacked}");
    for (to, flags) in [
        ("oci:skopeo:1", &[][..]),
        ("oci:zstd:1", &["--dest-compress", "--dest-compress-format", "zstd"]),
        ("oci-archive:skopeo-oci.tar:1", &[]),
        ("docker-archive:skopeo-docker.tar:x:1", &[]),
        ("dir:skopeo-dir", &["--format", "v2s2"]),
    ] {
        peer(
            Command::new("skopeo")
                .args(["--insecure-policy", "copy"])
                .args(flags)
                .args([from.as_str(), to])
                .current_dir(&place.project),
        );
        if !to.starts_with("dir:") {
            accepted(&place, to);
        }
    }
    // Docker's own documents in a layout: a registry's v2s2 image, as a mirror keeps it.
    v2s2_layout(&place.project.join("skopeo-dir"), &place.project.join("v2s2"));
    accepted(&place, "oci:v2s2");
    for made in ["skopeo", "zstd"] {
        if let Some(answers) = schemas(&documents_of(&place.project.join(made))) {
            assert_eq!(answers, [true; 4], "{made}");
        }
    }
}

/// Turns what `skopeo copy … dir:` wrote into a layout.
fn v2s2_layout(dir: &Path, layout: &Path) {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    for name in layerize::fsio::sorted_names(dir).unwrap() {
        if name.len() == 64 {
            fs::copy(dir.join(&name), blobs.join(&name)).unwrap();
        }
    }
    let manifest = fs::read(dir.join("manifest.json")).unwrap();
    let digest = Digest::of(&manifest);
    fs::write(blobs.join(digest.hex()), &manifest).unwrap();
    let media_type = "application/vnd.docker.distribution.manifest.v2+json";
    let listed = json!({ "mediaType": media_type, "digest": digest, "size": manifest.len() });
    let index = json!({ "schemaVersion": 2, "manifests": [listed] });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// Links between layers, where consumers differ or a whiteout deletes nothing (case 09 of the field).
#[test]
fn entries_and_whiteouts_below_links_are_told() {
    use crate::crafted::{Crafted, Entry, Parts, tar_of};
    let place = Place::new();
    let layout = Crafted::at(&place.project.join("layout"));
    let dir = |path: &str| Entry::of(path.as_bytes(), b'5', b"");
    let link = |path: &str, to: &str| Entry::of(path.as_bytes(), b'2', to.as_bytes());
    let file = |path: &str| Entry::file(path.as_bytes(), b"");
    for (layers, told, strict) in [
        (
            vec![
                vec![dir("a"), file("a/x"), dir("b")],
                vec![link("a", "b"), file("a/.wh.x")],
            ],
            Some("it is in `a`, which is a symlink"),
            None,
        ),
        (
            vec![vec![dir("a"), dir("b")], vec![link("a", "b"), file("a/.wh..wh..opq")]],
            Some("it is in `a`, which is a symlink"),
            None,
        ),
        (
            vec![
                vec![dir("usr"), dir("usr/lib"), link("lib", "usr/lib")],
                vec![file("lib/b")],
            ],
            None,
            Some("`lib` is a symlink in a layer below"),
        ),
        (
            vec![vec![dir("usr"), link("lib", "usr")], vec![file("lib/.wh.b")]],
            None,
            Some("`lib` is a symlink in a layer below"),
        ),
        (
            vec![vec![dir("usr"), link("lib", "usr")], vec![dir("lib"), file("lib/b")]],
            None,
            None,
        ),
    ] {
        let tars = layers.iter().map(|entries| tar_of(entries)).collect();
        Parts::of(tars).write(&layout);
        let ran = place.run(&["verify", "oci:layout"]);
        match told {
            Some(told) => assert!(ran.stdout.contains(told), "{}", ran.stdout),
            None => assert_eq!(ran.status, 0, "{}", ran.stdout),
        }
        let ran = place.run(&["verify", "oci:layout", "--profile", "strict"]);
        let below_link = ran.stdout.contains("strict/below-link");
        assert_eq!(below_link, strict.is_some(), "{}", ran.stdout);
        assert!(strict.is_none_or(|text| ran.stdout.contains(text)), "{}", ran.stdout);
    }
}
