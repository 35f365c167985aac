//! The damages: each with what `verify` says of it.

use super::*;

pub(super) const DOCUMENTS: &[Case] = &[
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
        "manifest, layers[1].mediaType: it is `text`, which is not a media type",
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
        "manifest, layers[0].digest: it is `sha256:12`, which is not a digest",
    ),
    (
        Manifest(|m| m["layers"][0]["digest"] = "12".into()),
        true,
        "manifest, layers[0].digest: it is `12`, which is not a digest",
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
        "manifest, annotations[\"org.opencontainers.image.created\"]: it is `yesterday`, which is not a time",
    ),
    (
        Manifest(|m| m["layers"].as_array_mut().unwrap().swap(0, 1)),
        false,
        "layer 0: its diffID is sha256:",
    ),
    (
        ManifestText(|text| text.replacen('{', "{\"schemaVersion\":2,", 1)),
        false,
        "manifest: malformed JSON: the key `schemaVersion` appears twice",
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
        "config, history[0].created: it is `now`, which is not a time",
    ),
    (
        Config(|c| c["created"] = "1970-02-30T00:00:00Z".into()),
        false,
        "config, created: it is `1970-02-30T00:00:00Z`, which is not a time of RFC 3339",
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
        "config, config.ExposedPorts[\"http\"]: its key is not `PORT` or `PORT/PROTOCOL`",
    ),
    (
        Config(|c| c["config"]["Volumes"] = json!(["/data"])),
        true,
        "config, config.Volumes: it is a list, and must be an object",
    ),
    (
        Config(|c| c["config"]["StopSignal"] = "please stop".into()),
        false,
        "config, config.StopSignal: it is `please stop`, which is not a signal",
    ),
    (
        Config(|c| c["config"]["WorkingDir"] = Value::Null),
        true,
        "config, config.WorkingDir: it is null, and must be a string",
    ),
    (
        ConfigText(|text| text.replacen('{', "{\"os\":\"plan9\",", 1)),
        false,
        "config: malformed JSON: the key `os` appears twice",
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

pub(super) const LAYERS: &[Case] = &[
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
        "layer 0, `etc/motd`: it appears twice, at byte 2560 of the tar",
    ),
    (
        Tars(|tars| tars[0] = with(&[("./etc/motd", b'0', 0o644, "again", "")])),
        false,
        "layer 0, `etc/motd`: it appears twice",
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
        "layer 1, `.wh.`: it is a whiteout that names nothing",
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

/// A profile, a damage, and a line that it then tells.
pub(super) const PROFILES: &[(&str, Damage, &str)] = &[
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
        "layer 1, `a/b`: its directory `a` is not an entry, at byte 0 of the tar (lambda/parents: ",
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
