//! Documents that are ambiguous, unusual or only partly there, and images chosen from an index: by every verb, from every
//! place.

use std::fs;
use std::path::Path;

use layerize::digest::{ContentDigest, Digest};
use serde_json::{Value, json};

use crate::crafted::{Crafted, Entry, tar_of};
use crate::support::Place;
use crate::web::{Reply, Server};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Stores a blob and gives its descriptor.
pub fn blob(layout: &Crafted, media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": layout.put(bytes), "size": bytes.len() })
}

/// A document as a blob, with `more` in its descriptor.
pub fn document(layout: &Crafted, media_type: &str, document: &Value, more: Value) -> Value {
    let mut descriptor = blob(layout, media_type, document.to_string().as_bytes());
    descriptor
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    descriptor
}

/// `linux/amd64/v2`, `windows(10.0.1)/amd64` as a descriptor has it.
pub fn platform(text: &str) -> Value {
    let mut parts = text.split('/');
    let os = parts.next().unwrap();
    let (os, version) = os.split_once('(').unwrap_or((os, ""));
    let mut platform = json!({ "os": os, "architecture": parts.next().unwrap() });
    if let Some(version) = version.strip_suffix(')') {
        platform["os.version"] = version.into();
    }
    if let Some(variant) = parts.next() {
        platform["variant"] = variant.into();
    }
    platform
}

/// The manifest of an image for a platform, which holds a file of that name.
pub fn manifest(layout: &Crafted, text: &str) -> Value {
    let tar = tar_of(&[Entry::file(b"f", text.as_bytes())]);
    let layer = blob(layout, LAYER, &tar);
    let mut config = platform(text);
    config["rootfs"] = json!({ "type": "layers", "diff_ids": [layer["digest"]] });
    config["config"] = json!({ "Labels": null, "Entrypoint": null });
    let config = document(layout, CONFIG, &config, json!({}));
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] })
}

/// An image for a platform, as an index lists it.
pub fn image(layout: &Crafted, text: &str) -> Value {
    document(
        layout,
        MANIFEST,
        &manifest(layout, text),
        json!({ "platform": platform(text) }),
    )
}

pub fn index(layout: &Crafted, manifests: &[Value]) -> Value {
    let list = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    document(layout, INDEX, &list, json!({}))
}

/// Puts a descriptor into `index.json`, under the tag `v1`.
pub fn tag(layout: &Crafted, mut descriptor: Value) {
    descriptor["annotations"]["org.opencontainers.image.ref.name"] = "v1".into();
    layout.edit_index(|manifests| *manifests = vec![descriptor]);
}

/// A layout with an index of images for these platforms under `v1`.
fn indexed(place: &Place, name: &str, platforms: &[&str]) -> Crafted {
    let layout = Crafted::at(&place.project.join(name));
    let images: Vec<Value> = platforms.iter().map(|text| image(&layout, text)).collect();
    tag(&layout, index(&layout, &images));
    layout
}

/// The layout as an archive.
pub fn archive(layout: &Path, to: &Path, more: &[(&str, String)]) {
    let mut tar = tar::Builder::new(fs::File::create(to).unwrap());
    for name in ["oci-layout", "index.json"] {
        tar.append_path_with_name(layout.join(name), name).unwrap();
    }
    for (name, text) in more {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.append_dir_all("blobs", layout.join("blobs")).unwrap();
    tar.into_inner().unwrap();
}

/// A registry that serves a layout's blobs, and its first image under `v1`.
pub fn registry(layout: &Path) -> Server {
    let layout = layout.to_owned();
    Server::start(move |path| {
        let last = path.rsplit('/').next().unwrap_or_default();
        let digest = match last {
            "v1" => {
                let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
                index["manifests"][0]["digest"].as_str().unwrap().to_owned()
            }
            last => last.to_owned(),
        };
        match fs::read(layout.join("blobs").join(digest.replace(':', "/"))) {
            Ok(bytes) if digest.contains(':') => Reply::ok(bytes),
            _ if path == "/v2/" => Reply::ok("{}"),
            _ => Reply::status(404),
        }
    })
}

/// The layout as `o.tar`, and as `d.tar` with the list of Docker.
fn archives(layout: &Crafted, manifest: &Value, place: &Place) {
    let blob = |descriptor: &Value| format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"));
    let list = json!([{ "Config": blob(&manifest["config"]), "Layers": [blob(&manifest["layers"][0])],
        "RepoTags": ["a:v1"] }]);
    archive(&layout.dir, &place.project.join("o.tar"), &[]);
    archive(
        &layout.dir,
        &place.project.join("d.tar"),
        &[("manifest.json", list.to_string())],
    );
}

/// CVE-2021-41190 and image-spec v1.1, manifest.md: a manifest with `manifests` is another image for whoever takes it for
/// an index. Docker, containerd, podman and skopeo refuse it when they read it from a registry.
#[test]
fn a_manifest_that_is_also_an_index_is_refused_by_every_verb_from_every_place() {
    let place = Place::new();
    place.run(&["key", "generate", "k"]).success();
    place.write("doc.spdx.json", "{\"spdxVersion\":\"SPDX-2.3\"}");
    let sound = Crafted::at(&place.project.join("sound"));
    let good = image(&sound, "linux/amd64");
    tag(&sound, good.clone());
    let layout = Crafted::at(&place.project.join("amb"));
    let mut both = manifest(&layout, "linux/amd64");
    both["manifests"] = json!([image(&layout, "linux/amd64")]);
    tag(&layout, document(&layout, MANIFEST, &both, json!({})));
    let file = |name: &str| place.project.join(name);
    archives(&layout, &both, &place);
    let server = registry(&layout.dir);
    let remote = format!("docker://{}/app:v1", server.url("").trim_start_matches("http://"));
    for from in [
        "oci:amb:v1",
        "amb",
        "oci-archive:o.tar",
        "docker-archive:d.tar",
        "d.tar",
        &remote,
    ] {
        let verbs: &[&[&str]] = &[
            &["inspect", from],
            &["inspect", "--layers", from],
            &["diff", from, "oci:sound:v1"],
            &["diff", "oci:sound:v1", from],
            &["copy", from, "oci:copied:v1"],
            &["copy", "--all", from, "oci:copied:v1"],
            &["push", from, "127.0.0.1:1/app:v1"],
            &["explain", from, "/f"],
            &["sbom", from],
            &["attach", from, "doc.spdx.json"],
            &["sign", from, "--key", "k.key", "-o", "bundle.json"],
            &["verify-signature", from, "--key", "k.pub"],
            &["rebuild", from],
            &["index", "create", "oci:copied:v1", from],
        ];
        // To `push`, a bare name means an image of the spec, and a registry is where to; a base must say what kind of place it is; an archive is
        // refused by `attach` whatever it holds.
        let taken = |verb: &&&[&str]| match verb[0] {
            "push" => from != "amb" && from != remote,
            "attach" => !from.ends_with(".tar"),
            _ => true,
        };
        for verb in verbs.iter().filter(taken) {
            let ran = place.run(verb);
            assert_ne!(ran.status, 0, "{verb:?}");
            assert!(
                ran.stderr.contains("it could be read as two different documents"),
                "{verb:?}: {}{}",
                ran.stdout,
                ran.stderr
            );
        }
        let verified = place.run(&["verify", from]).exits(1);
        let problem = "it could be read as two different documents";
        assert!(verified.stdout.contains(problem), "{from}: {}", verified.stdout);
        if from.contains(':') {
            place.write(
            "layerize.toml",
            &format!(
                "[image.app]\nbase = \"{from}\"\nfiles = {{ \"/doc\" = \"doc.spdx.json\" }}\nentrypoint = [\"/f\"]\n"
            ),
        );
            place.run(&["lock"]).exits(2).says(&["two different documents"]);
            fs::remove_file(file("layerize.toml")).unwrap();
        }
        assert!(!file("copied").exists(), "nothing was written");
    }
}

/// What is chosen of an index for each platform, as containerd's `platforms` package has it: an entry without a variant
/// is the plain one, spellings are one platform, and a processor runs what is made for a lower variant.
#[test]
fn a_plain_platform_and_its_variants_in_one_index() {
    let place = Place::new();
    let layout = indexed(
        &place,
        "var",
        &["linux/amd64", "linux/amd64/v2", "linux/arm64", "linux/arm"],
    );
    archive(&layout.dir, &place.project.join("var.tar"), &[]);
    let server = registry(&layout.dir);
    let remote = format!("docker://{}/app:v1", server.url("").trim_start_matches("http://"));
    for from in ["oci:var:v1", "oci-archive:var.tar", &remote] {
        for (wanted, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/amd64/v2", "linux/amd64/v2"),
            ("linux/amd64/v4", "linux/amd64/v2"),
            ("linux/arm64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm/v7", "linux/arm"),
            ("linux/arm", "linux/arm"),
        ] {
            let ran = place.run(&["inspect", "--json", "--platform", wanted, from]).success();
            let report: Value = serde_json::from_str(&ran.stdout).unwrap();
            assert_eq!(report["platform"], expected, "{from} {wanted}");
        }
        place
            .run(&["inspect", "--platform", "linux/arm/v6", from])
            .exits(2)
            .says(&["linux/arm/v6"]);
    }
}

/// The flags that an error advises, each of which is tried as it stands.
pub fn advised(stderr: &str) -> Vec<String> {
    let help = stderr.split_once("help:").unwrap().1;
    help.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Of several builds of Windows the highest is taken where none is asked for (containerd sorts them downwards), and one is
/// named as containerd and `docker pull --platform` take it.
#[test]
fn builds_of_windows_are_told_apart_by_their_version_and_the_advice_works() {
    let place = Place::new();
    let builds = [
        "windows(10.0.9999.1)/amd64",
        "windows(10.0.20348.3091)/amd64",
        "windows(10.0.17763.6893)/amd64",
    ];
    indexed(&place, "win", &builds);
    let digest = |args: &[&str]| {
        let ran = place
            .run(&[&["inspect", "--json", "oci:win:v1"], args].concat())
            .success();
        serde_json::from_str::<Value>(&ran.stdout).unwrap()["layers"][0]["digest"].clone()
    };
    let of = |text: &str| json!(Digest::of(&tar_of(&[Entry::file(b"f", text.as_bytes())])));
    assert_eq!(digest(&["--platform", "windows/amd64"]), of(builds[1]));
    assert_eq!(digest(&["--platform", "windows(10.0.17763)/amd64"]), of(builds[2]));
    let ran = place.run(&["inspect", "oci:win:v1"]).exits(2);
    let advice = advised(&ran.stderr);
    assert_eq!(advice.len(), 3, "{}", ran.stderr);
    for flags in advice {
        let command = format!("{} inspect oci:win:v1 {flags}", env!("CARGO_BIN_EXE_layerize"));
        let mut shell = std::process::Command::new("sh");
        place.prepare(shell.args(["-c", &command]));
        assert!(shell.status().unwrap().success(), "{command}");
    }
}

/// Never a guess: two images for one platform are named by their digests, in a form that can be typed.
#[test]
fn images_that_nothing_tells_apart_are_named_by_digest() {
    let place = Place::new();
    let layout = Crafted::at(&place.project.join("two"));
    let mut other = image(&layout, "linux/amd64/v2");
    other["platform"] = platform("linux/amd64");
    let images = [image(&layout, "linux/amd64"), other];
    tag(&layout, index(&layout, &images));
    archive(&layout.dir, &place.project.join("two.tar"), &[]);
    let server = registry(&layout.dir);
    let remote = format!("docker://{}/app:v1", server.url("").trim_start_matches("http://"));
    for from in ["oci:two:v1", "two", "two.tar", &remote] {
        let ran = place.run(&["inspect", "--platform", "linux/amd64", from]).exits(2);
        let advice = advised(&ran.stderr);
        assert_eq!(advice.len(), 2, "{}", ran.stderr);
        for (name, image) in advice.iter().zip(&images) {
            assert_eq!(place.inspect(name)["digest"], image["digest"], "{name}");
        }
    }
}

/// image-index.md lets an index list indexes; they are followed, and not without end.
#[test]
fn an_image_is_found_through_nested_indexes_of_a_bounded_depth() {
    let place = Place::new();
    let layout = Crafted::at(&place.project.join("deep"));
    let mut nested = index(&layout, &[image(&layout, "linux/amd64"), image(&layout, "linux/arm64")]);
    for depth in 2..=6 {
        tag(&layout, nested.clone());
        let ran = place.run(&["inspect", "--json", "--platform", "linux/arm64", "oci:deep:v1"]);
        if depth <= 4 {
            assert!(ran.success().stdout.contains("linux/arm64"), "{depth}");
        } else {
            ran.exits(2).says(&["indexes are nested more than 4 deep"]);
        }
        nested = index(&layout, &[nested]);
    }
}

/// `docker save` of the containerd store keeps an index that names all platforms, and only the blobs of one.
#[test]
fn platforms_that_an_engine_left_out_are_passed_over_and_told_where_they_are_asked_for() {
    let place = Place::new();
    let layout = indexed(&place, "save", &["linux/amd64", "linux/arm64", "linux/s390x"]);
    let path = |text: &str| {
        let descriptor = image(&layout, text);
        layout
            .dir
            .join("blobs")
            .join(descriptor["digest"].as_str().unwrap().replace(':', "/"))
    };
    for gone in ["linux/arm64", "linux/s390x"] {
        fs::remove_file(path(gone)).unwrap();
    }
    archive(&layout.dir, &place.project.join("save.tar"), &[]);
    for from in ["oci:save:v1", "oci-archive:save.tar", "save.tar"] {
        for flags in [&[][..], &["--platform", "linux/amd64"]] {
            let ran = place.run(&[&["inspect", from], flags].concat()).success();
            assert!(ran.stdout.contains("linux/amd64"), "{from}");
        }
        place.run(&["verify", from]).success();
        let absent = ["linux/arm64`", "not in it", "docker pull --platform linux/arm64"];
        place
            .run(&["inspect", "--platform", "linux/arm64", from])
            .exits(2)
            .says(&absent);
        let both = ["`linux/arm64`, `linux/s390x`", "--platform linux/amd64"];
        place.run(&["copy", "--all", from, "oci:all:v1"]).exits(2).says(&both);
        place.run(&["copy", from, "oci:one:v1"]).success();
    }
}

/// descriptor.md registers sha256 and sha512; an entry by another algorithm fails whoever asks for it alone.
#[test]
fn what_is_named_by_sha512_is_verified_and_an_unknown_algorithm_fails_alone() {
    let place = Place::new();
    let layout = Crafted::at(&place.project.join("l"));
    let bytes = manifest(&layout, "linux/amd64").to_string();
    let zero: ContentDigest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
    let hex = zero.same_algorithm(bytes.as_bytes()).hex();
    let file = layout.dir.join("blobs/sha512").join(&hex);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, &bytes).unwrap();
    let long = json!({ "mediaType": MANIFEST, "digest": format!("sha512:{hex}"), "size": bytes.len(),
        "platform": platform("linux/amd64") });
    let unknown =
        json!({ "mediaType": MANIFEST, "digest": "blake3:00", "size": 7, "platform": platform("linux/arm64") });
    tag(&layout, index(&layout, &[long, unknown]));
    let amd64 = ["--platform", "linux/amd64", "oci:l:v1"];
    let ran = place.run(&[&["inspect"], &amd64[..]].concat()).success();
    assert!(ran.stdout.contains(&format!("sha512:{hex}")), "{}", ran.stdout);
    let verified = place.run(&[&["verify"], &amd64[..]].concat()).exits(1);
    assert!(
        verified
            .stdout
            .starts_with("index, manifests[1].digest: it is `blake3:00`, which is not a digest"),
        "{}",
        verified.stdout
    );
    place
        .run(&["inspect", "--platform", "linux/arm64", "oci:l:v1"])
        .exits(2)
        .says(&["blake3:00", "sha256 and sha512"]);
    fs::write(&file, bytes.replacen("size", "sizf", 1)).unwrap();
    place.run(&[&["inspect"], &amd64[..]].concat()).exits(2);
}

/// A Helm chart is no damaged image: what it is stands in its manifest.
#[test]
fn an_artifact_is_inspected_as_what_it_is() {
    let place = Place::new();
    let layout = Crafted::at(&place.project.join("chart"));
    let config = blob(
        &layout,
        "application/vnd.cncf.helm.config.v1+json",
        b"{\"name\":\"web\",\"version\":\"1.0.0\"}",
    );
    let content = blob(&layout, "application/vnd.cncf.helm.chart.content.v1.tar+gzip", b"chart");
    let chart = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [content] });
    tag(&layout, document(&layout, MANIFEST, &chart, json!({})));
    let ran = place.run(&["inspect", "oci:chart:v1"]).success();
    for text in [
        "artifact     oci:chart",
        "type         application/vnd.cncf.helm.config.v1+json",
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        "blobs        1, 5 B",
    ] {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
    let report: Value =
        serde_json::from_str(&place.run(&["inspect", "--json", "oci:chart:v1"]).success().stdout).unwrap();
    assert_eq!(report["artifact_type"], "application/vnd.cncf.helm.config.v1+json");
    assert_eq!(report["blobs"][0]["size"], 5);
}

/// Go writes an empty list and an empty map as `null`; a layer may stand in an image twice (`docker build` of two equal
/// steps).
#[test]
fn nulls_and_repeated_layers_are_read() {
    let place = Place::new();
    let layout = Crafted::at(&place.project.join("twice"));
    let tar = tar_of(&[Entry::file(b"f", b"x")]);
    let layer = blob(&layout, LAYER, &tar);
    let ids = json!([layer["digest"], layer["digest"]]);
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": ids },
        "config": { "Labels": { "a": null }, "Cmd": null, "Volumes": null }, "history": null });
    let config = document(&layout, CONFIG, &config, json!({}));
    let twice = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer, layer],
        "annotations": null, "subject": null });
    tag(
        &layout,
        document(&layout, MANIFEST, &twice, json!({ "annotations": {}, "urls": null })),
    );
    assert_eq!(place.inspect("oci:twice:v1")["layers"].as_array().unwrap().len(), 2);
    place
        .run(&["copy", "oci:twice:v1", "docker-archive:twice.tar"])
        .success();
    place.run(&["diff", "oci:twice:v1", "twice.tar"]).success();
    let empty = Crafted::at(&place.project.join("empty"));
    fs::write(empty.dir.join("index.json"), r#"{"schemaVersion":2,"manifests":null}"#).unwrap();
    place
        .run(&["inspect", "oci:empty"])
        .exits(2)
        .says(&["its index lists no image"]);
    place.run(&["copy", "oci:twice:v1", "oci:empty:v1"]).success();
}

/// config.md: a key of `ExposedPorts` is `port`, `port/tcp` or `port/udp`; it knows no ranges.
#[test]
fn a_range_of_ports_is_a_problem() {
    let place = Place::new();
    for (port, sound) in [
        ("80", true),
        ("80/tcp", true),
        ("53/udp", true),
        ("33060-33061/tcp", false),
        ("8080:80/tcp", false),
        ("0/tcp", false),
        ("65536", false),
        ("http", false),
    ] {
        let layout = Crafted::at(&place.project.join("ports"));
        let tar = tar_of(&[Entry::file(b"f", b"x")]);
        let layer = blob(&layout, LAYER, &tar);
        let config = json!({ "architecture": "amd64", "os": "linux", "config": { "ExposedPorts": { port: {} } },
            "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] } });
        let config = document(&layout, CONFIG, &config, json!({}));
        let image = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
        tag(&layout, document(&layout, MANIFEST, &image, json!({})));
        let ran = place.run(&["verify", "oci:ports:v1"]);
        let told = ran.stdout.contains(&format!("config, config.ExposedPorts[{port:?}]"));
        assert_eq!(
            (ran.status, told),
            (i32::from(!sound), !sound),
            "{port}: {}",
            ran.stdout
        );
    }
}
