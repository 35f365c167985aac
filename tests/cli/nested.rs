//! Indexes in indexes: copied whole with `copy --all`, and made flat by `index create`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::crafted::{Crafted, memory_is_bounded};
use crate::documents::{CONFIG, MANIFEST, blob, document, image, index, tag};
use crate::places::{Kind, Places};
use crate::support::{Place, Ran, have, peer};

const PLATFORMS: [&str; 4] = ["linux/amd64", "linux/arm64", "linux/s390x", "linux/arm"];

/// A layout with an index under `v1` whose images stand in two indexes, one of them two deep, and its digest.
fn nested(place: &Place, name: &str) -> String {
    let layout = Crafted::at(&place.project.join(name));
    let [amd64, arm64, s390x, arm] = PLATFORMS.map(|text| image(&layout, text));
    let deepest = index(&layout, &[arm64, s390x]);
    let all = index(&layout, &[amd64, index(&layout, &[arm, deepest])]);
    let digest = all["digest"].as_str().unwrap().to_owned();
    tag(&layout, all);
    digest
}

fn blobs(layout: &Path) -> BTreeSet<String> {
    let names = layerize::fsio::sorted_names(&layout.join("blobs/sha256")).unwrap();
    names.into_iter().map(|name| name.into_string().unwrap()).collect()
}

fn digest_of(ran: &Ran) -> String {
    ran.line().split(' ').next().unwrap().to_owned()
}

/// image-index.md, "manifests": an entry may be an index; clients that copy keep what they do not understand.
#[test]
fn a_nested_index_is_copied_whole_between_every_pair_of_places_that_hold_one() {
    let places = Places::new();
    let made = nested(&places.place, "made");
    let kinds: Vec<Kind> = places
        .kinds
        .iter()
        .copied()
        .filter(|kind| kind.holds_indexes())
        .collect();
    for kind in &kinds {
        let sink = places.location(*kind, "source", 0);
        let copied = places.run(&["copy", "--all", "oci:made:v1", &sink]).success();
        assert_eq!(digest_of(&copied), made, "{kind:?}");
    }
    for from in &kinds {
        for to in &kinds {
            let tag = format!("from-{}", format!("{from:?}").to_lowercase());
            let (source, sink) = (places.location(*from, "source", 0), places.location(*to, &tag, 1));
            let copied = places.run(&["copy", "--all", &source, &sink]).success();
            assert_eq!(digest_of(&copied), made, "{from:?} → {to:?}");
            for platform in PLATFORMS {
                places.run(&["verify", "--platform", platform, &sink]).success();
            }
            let back = format!("back-{from:?}-{to:?}");
            places
                .run(&["copy", "--all", &sink, &format!("oci:{back}:v1")])
                .success();
            let project = &places.place.project;
            assert_eq!(
                blobs(&project.join(back)),
                blobs(&project.join("made")),
                "{from:?} → {to:?}"
            );
        }
    }
    // A push of a place is a copy of it.
    if kinds.contains(&Kind::Registry) {
        let sink = places.location(Kind::Registry, "pushed", 1);
        let pushed = places.run(&["push", "--all", "oci:made:v1", &sink]).success();
        assert_eq!(digest_of(&pushed), made);
    }
}

/// Docker's and podman's stores and archives hold single images; an index would lose all but one in silence.
#[test]
fn a_place_that_holds_one_image_refuses_a_nested_index_and_names_those_that_hold_it() {
    let places = Places::new();
    nested(&places.place, "made");
    for kind in places.kinds.iter().filter(|kind| !kind.holds_indexes()) {
        let sink = places.location(*kind, "refused", 1);
        let ran = places.run(&["copy", "--all", "oci:made:v1", &sink]).exits(2);
        ran.says(&[
            "not an index of several platforms",
            "`oci-archive:FILE`",
            "`oci:DIR[:tag]`",
            "`docker://NAME`",
        ]);
        if *kind == Kind::DockerArchive {
            let file = sink.trim_start_matches("docker-archive:").split(':').next().unwrap();
            assert!(!places.place.project.join(file).exists());
        }
        // The advice works: one platform fits everywhere.
        let one = places.run(&["copy", "--platform", "linux/s390x", "oci:made:v1", &sink]);
        assert_eq!(one.status, 0, "{kind:?}: {}", one.stderr);
    }
}

/// `index create` lists images alone: in an index within an index Docker finds no image ("no matching manifest"), and podman
/// and skopeo stop ("Unexpectedly received a manifest list"). `podman manifest add --all` takes the images of a list as well.
#[test]
fn an_index_made_of_nested_indexes_lists_their_images_each_once() {
    let place = Place::new();
    nested(&place, "made");
    let create = |sink: &str, sources: &[&str]| place.run(&[&["index", "create", sink][..], sources].concat());
    let flat = create("oci:flat:v1", &["oci:made:v1"]).success();
    // What an index lists twice, or two indexes list, stands there once.
    let twice = create("oci:twice:v1", &["oci:made:v1", "oci:flat:v1"]).success();
    assert_eq!(digest_of(&twice), digest_of(&flat));
    let hex = digest_of(&flat);
    let document = fs::read(place.project.join("flat/blobs/sha256").join(&hex[7..])).unwrap();
    let document: Value = serde_json::from_slice(&document).unwrap();
    let manifests = document["manifests"].as_array().unwrap();
    assert!(
        manifests
            .iter()
            .all(|entry| entry["mediaType"] == crate::documents::MANIFEST),
        "{document}"
    );
    let architectures: Vec<&Value> = manifests
        .iter()
        .map(|entry| &entry["platform"]["architecture"])
        .collect();
    assert_eq!(json!(architectures), json!(["amd64", "arm", "arm64", "s390x"]));
    for platform in PLATFORMS {
        place.run(&["verify", "--platform", platform, "oci:flat:v1"]).success();
    }
    if have("skopeo", &["--version"]) {
        let mut skopeo = Command::new("skopeo");
        let args = ["--insecure-policy", "copy", "--all", "oci:flat:v1", "oci:peer:v1"];
        peer(skopeo.args(args).current_dir(&place.project));
    }
    // Two images for one platform cannot both be meant, wherever in the indexes they stand.
    let other = Crafted::at(&place.project.join("other"));
    let mut images = [image(&other, "linux/arm64/v8"), image(&other, "linux/arm64")];
    images[0]["platform"] = json!({ "os": "linux", "architecture": "arm64" });
    let within = index(&other, &images[1..]);
    tag(&other, index(&other, &[images[0].clone(), within]));
    create("oci:no:v1", &["oci:other:v1"])
        .exits(2)
        .says(&["are both for `linux/arm64`", images[0]["digest"].as_str().unwrap()]);
    // An index that is added to becomes a flat one likewise.
    tag(&other, index(&other, &[image(&other, "linux/riscv64")]));
    place.run(&["index", "add", "oci:made:v1", "oci:other:v1"]).success();
    for platform in PLATFORMS.iter().chain(&["linux/riscv64"]) {
        place.run(&["verify", "--platform", platform, "oci:made:v1"]).success();
    }
}

/// What Docker's builder lists beside an image: a statement about it, for a platform that is none.
fn attestation(layout: &Crafted, image: &Value) -> Value {
    let statement = blob(layout, "application/vnd.in-toto+json", b"{\"predicate\":{}}");
    let config = json!({
        "architecture": "unknown", "os": "unknown", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [statement["digest"]] },
    });
    let config = document(layout, CONFIG, &config, json!({}));
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [statement] });
    let listed = json!({
        "platform": { "architecture": "unknown", "os": "unknown" },
        "annotations": {
            "vnd.docker.reference.digest": image["digest"],
            "vnd.docker.reference.type": "attestation-manifest",
        },
    });
    document(layout, MANIFEST, &manifest, listed)
}

/// Made flat, the index lists images with their versions, and what attests them.
fn lists_all_when_flat(places: &Places) {
    places.run(&["index", "create", "oci:flat:v1", "oci:made:v1"]).success();
    let list = fs::read_to_string(places.place.project.join("flat/index.json")).unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    let digest = list["manifests"][0]["digest"].as_str().unwrap();
    let flat = fs::read(places.place.project.join("flat/blobs/sha256").join(&digest[7..])).unwrap();
    let flat: Value = serde_json::from_slice(&flat).unwrap();
    let manifests = flat["manifests"].as_array().unwrap();
    let versions: Vec<&str> = manifests
        .iter()
        .filter_map(|entry| entry["platform"]["os.version"].as_str())
        .collect();
    assert_eq!(versions.len(), 2, "{flat}");
    assert!(
        versions.contains(&"10.0.20348.3091") && versions.contains(&"10.0.17763.6893"),
        "{flat}"
    );
    let attestations = manifests.iter().filter(|entry| entry["platform"]["os"] == "unknown");
    assert_eq!((manifests.len(), attestations.count()), (7, 3), "{flat}");
}

/// Whatever reads an image finds the one that is meant in an index within an index, past attestations, and one of Windows by its
/// version: from each place that holds indexes.
#[test]
fn every_reader_finds_its_image_among_nested_indexes_and_attestations() {
    const WINDOWS: [&str; 2] = ["windows(10.0.20348.3091)/amd64", "windows(10.0.17763.6893)/amd64"];
    let places = Places::new();
    let layout = Crafted::at(&places.place.project.join("made"));
    let [amd64, arm64, newer, older] =
        ["linux/amd64", "linux/arm64", WINDOWS[0], WINDOWS[1]].map(|text| image(&layout, text));
    let attested = [&arm64, &newer].map(|image| attestation(&layout, image));
    let inner = [&arm64, &newer, &older].map(Clone::clone);
    let within = index(&layout, &[inner.as_slice(), &attested].concat());
    let beside = attestation(&layout, &amd64);
    tag(&layout, index(&layout, &[amd64.clone(), beside, within]));
    let wanted = [
        ("linux/amd64", &amd64),
        ("linux/arm64", &arm64),
        ("windows/amd64", &newer),
        ("windows(10.0.17763)/amd64", &older),
    ];
    for kind in places.kinds.iter().copied().filter(|kind| kind.holds_indexes()) {
        let from = places.location(kind, "all", 0);
        places.run(&["copy", "--all", "oci:made:v1", &from]).success();
        // All images are offered by what tells them apart, and what is no image is not; what is offered is taken.
        let several = places.run(&["inspect", &from]).exits(2);
        assert!(!several.stderr.contains("unknown"), "{kind:?}: {}", several.stderr);
        let windows = WINDOWS.map(|platform| format!("'{platform}'"));
        for platform in ["linux/amd64", "linux/arm64", &windows[0], &windows[1]] {
            let offered = format!("`--platform {platform}`");
            assert!(several.stderr.contains(&offered), "{kind:?}: {}", several.stderr);
        }
        let lacks = places.run(&["inspect", "--platform", "linux/s390x", &from]).exits(2);
        assert!(
            lacks.stderr.contains("linux/amd64") && lacks.stderr.contains("linux/arm64"),
            "{}",
            lacks.stderr
        );
        places.run(&["diff", &from, &from]).success();
        let verified = places.run(&["verify", &from]).success().stdout;
        assert_eq!(verified.matches(": no problems").count(), 4, "{kind:?}: {verified}");
        let all = places
            .run(&["explain", "--platform", "all", &from, "/f"])
            .success()
            .stdout;
        assert_eq!(all.matches("platform     ").count(), 4, "{kind:?}: {all}");
        for (platform, image) in wanted {
            let read = |args: &[&str]| places.run(&[args, &["--platform", platform]].concat());
            let seen = read(&["inspect", "--json", &from]).success().stdout;
            let seen: Value = serde_json::from_str(&seen).unwrap();
            assert_eq!(seen["digest"], image["digest"], "{kind:?} {platform}");
            read(&["verify", &from]).success();
            let explained = read(&["explain", &from, "/f"]).success().stdout;
            assert!(explained.contains("file"), "{kind:?}: {explained}");
            read(&["diff", &from, &from]).success();
            read(&["sbom", &from]).success();
            let copied = read(&["copy", &from, &format!("oci:one-{kind:?}:v1")]).success();
            assert_eq!(digest_of(&copied), seen["digest"].as_str().unwrap(), "{kind:?}");
            let ran = read(&["run", &from]).exits(2);
            let reason = if platform.starts_with("linux/") {
                "names no program"
            } else {
                "windows"
            };
            let is_foreign = ran.stderr.contains("cannot run") || ran.stderr.contains("this machine");
            assert!(
                ran.stderr.contains(reason) || is_foreign,
                "{kind:?} {platform}: {}",
                ran.stderr
            );
        }
        is_a_base_of_its_own_platform(&places, &from, [("linux/amd64", &amd64), ("linux/arm64", &arm64)]);
    }
    lists_all_when_flat(&places);
}

/// Over an index, an image has the base of its own platform.
fn is_a_base_of_its_own_platform(places: &Places, from: &str, bases: [(&str, &Value); 2]) {
    for (platform, base) in bases {
        let image = format!("[image.over]\nbase = \"{from}\"\nplatform = \"{platform}\"\n");
        let files = "files = { \"/etc/motd\" = { text = \"x\" } }\n";
        places.place.write("layerize.toml", &format!("{image}{files}"));
        places.run(&["build", "over", "-o", "oci:over:v1"]).success();
        let lock = fs::read_to_string(places.place.project.join("layerize.lock")).unwrap();
        let hex = base["digest"].as_str().unwrap().trim_start_matches("sha256:");
        assert!(lock.contains(hex), "{from}: {lock}");
        fs::remove_file(places.place.project.join("layerize.lock")).unwrap();
    }
}

/// Indexes that list one another many times, and indexes deeper than are followed, cost nothing.
#[test]
fn an_index_of_indexes_is_bounded_in_depth_and_in_number() {
    let place = Place::new();
    let layout = Crafted::at(&place.project.join("many"));
    let mut many = image(&layout, "linux/amd64");
    for _ in 0..3 {
        many = index(&layout, &vec![many; 100]);
    }
    tag(&layout, many);
    place
        .run(&["copy", "--all", "oci:many:v1", "oci:copied:v1"])
        .exits(2)
        .says(&["it lists more than 1000 images"]);
    let layout = Crafted::at(&place.project.join("deep"));
    let mut deep = image(&layout, "linux/amd64");
    for depth in 1..=5 {
        deep = index(&layout, &[deep]);
        tag(&layout, deep.clone());
        let ran = place.run(&["copy", "--all", "oci:deep:v1", "oci:copied:v1"]);
        // What can be copied can be read, and the other way round.
        assert_eq!(place.run(&["inspect", "oci:deep:v1"]).status, ran.status, "{depth}");
        if depth <= 3 {
            ran.success();
            place.run(&["verify", "oci:copied:v1"]).success();
        } else {
            ran.exits(2).says(&["indexes are nested more than 4 deep"]);
        }
    }
    memory_is_bounded("indexes of indexes");
}
