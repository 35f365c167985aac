//! Layers that only their vendor hands out: copied, pushed and audited without their bytes, and with them where they are.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::crafted::{Crafted, Entry, Parts, tar_of};
use crate::places::{Kind, Places};
use crate::served::Registry;
use crate::support::{Place, have};

const URL: &str = "https://vendor.example/base.tar";

/// The media types of such layers (layer.md, "Non-Distributable Layers"; Docker's image specification 2.2).
const FOREIGN: [&str; 2] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];

/// A layout with an image whose lowest layer has a media type and `urls`; gives digests of the image and of that layer.
fn image(dir: &Path, media_type: &'static str, own: &[u8]) -> (String, String) {
    image_over(dir, media_type, b"base", own)
}

/// The same with another content of that layer: an engine that has it by another image does not need it.
fn image_over(dir: &Path, media_type: &'static str, base: &[u8], own: &[u8]) -> (String, String) {
    let layout = Crafted::at(dir);
    let mut parts = Parts::of(vec![
        tar_of(&[Entry::file(b"base", base)]),
        tar_of(&[Entry::file(b".wh.gone", b""), Entry::file(b"own", own)]),
    ]);
    parts.manifest = Box::new(move |manifest| {
        manifest["layers"][0]["mediaType"] = media_type.into();
        manifest["layers"][0]["urls"] = json!([URL]);
    });
    let digest = parts.write(&layout).to_string();
    let layer = layerize::digest::Digest::of(&parts.tars[0]).to_string();
    (digest, layer)
}

fn blob(layout: &Path, digest: &str) -> std::path::PathBuf {
    layout.join("blobs").join(digest.replace(':', "/"))
}

/// A registry that takes manifests with these urls, as distribution's setting has it.
fn registry(place: &Place) -> Option<Registry> {
    let allow = format!("validation: {{manifests: {{urls: {{allow: ['^{URL}']}}}}}}\n");
    have("docker-registry", &["--version"]).then(|| {
        crate::served::start_with(
            &place.path().join("allowing"),
            crate::served::Demands::default(),
            &allow,
        )
    })
}

/// As skopeo and `docker push` do: the manifest stays what it is, and the blob is not asked for.
#[test]
fn an_image_is_copied_without_a_layer_that_is_kept_elsewhere() {
    let places = Places::new();
    let project = &places.place.project;
    let Some(registry) = registry(&places.place) else {
        return;
    };
    for (number, media_type) in FOREIGN.into_iter().enumerate() {
        let made = format!("made{number}");
        let (digest, layer) = image_over(&project.join(&made), media_type, made.as_bytes(), b"own");
        fs::remove_file(blob(&project.join(&made), &layer)).unwrap();
        let from = format!("oci:{made}:v1");
        let holds = [
            format!("oci:copied{number}:v1"),
            format!("oci-archive:copied{number}.tar:v1"),
            format!("docker://{}/team/app:{number}", registry.host),
        ];
        let mut froms = vec![from.clone()];
        for to in &holds {
            for from in &froms {
                let copied = places.run(&["copy", from, to]).success();
                assert_eq!(copied.line().split(' ').next().unwrap(), digest, "{from} → {to}");
                copied.says(&[&layer, "is kept elsewhere", URL]);
                let verified = places.run(&["verify", to]).success();
                let told = format!("layer 0: it is kept elsewhere and was not read: {URL}");
                assert!(verified.stdout.contains(&told), "{}", verified.stdout);
            }
            froms.push(to.clone());
        }
        assert!(!blob(&project.join(format!("copied{number}")), &layer).exists());
        places.run(&["copy", "--all", &from, "oci:all:v1"]).success();
        // Engines need all bytes, and so do their archives.
        for kind in places.kinds.iter().filter(|kind| !kind.holds_indexes()) {
            let sink = places.location(*kind, "no", 1);
            places.run(&["copy", &from, &sink]).exits(2).says(&[
                "needs the layer",
                &layer,
                URL,
                "`oci-archive:FILE`, `oci:DIR[:tag]` or `docker://NAME`",
            ]);
        }
    }
}

/// Bytes that are there are copied, but to a registry only when that is asked for: such layers "SHOULD NOT be uploaded".
#[test]
fn a_layer_of_a_vendor_that_is_there_goes_where_it_is_wanted() {
    let places = Places::new();
    let project = &places.place.project;
    let (digest, layer) = image(&project.join("made"), FOREIGN[0], b"own");
    for kind in places
        .kinds
        .iter()
        .filter(|kind| **kind != Kind::Registry && **kind != Kind::Pipe)
    {
        let sink = places.location(*kind, "whole", 1);
        places.run(&["copy", "oci:made:v1", &sink]).success();
        let verified = places.run(&["verify", &sink]).success();
        assert!(
            verified.stdout.contains("2 layers") && !verified.stdout.contains("elsewhere"),
            "{}",
            verified.stdout
        );
    }
    let Some(registry) = registry(&places.place) else {
        return;
    };
    let remote = format!("docker://{}/team/app:1", registry.host);
    for push in [&["copy", "oci:made:v1", &remote][..], &["push", "oci:made:v1", &remote]] {
        let pushed = places.run(push).success();
        assert!(pushed.stdout.contains(&digest));
        pushed.says(&[&layer, "is not sent without `--non-distributable`"]);
        let verified = places.run(&["verify", &remote]).success();
        assert!(verified.stdout.contains("kept elsewhere"), "{}", verified.stdout);
    }
    // Although the manifest is there by now.
    places
        .run(&["copy", "--non-distributable", "oci:made:v1", &remote])
        .success();
    let verified = places.run(&["verify", &remote]).success();
    assert!(!verified.stdout.contains("elsewhere"), "{}", verified.stdout);
}

/// distribution takes no urls unless it is set to, and answers 500: an answer, and nothing to wait for.
#[test]
fn a_registry_that_takes_no_urls_is_told_of_at_once() {
    let place = Place::new();
    let Some(registry) = crate::registry::registry_in(&place, "strict", crate::served::Demands::default()) else {
        return;
    };
    image(&place.project.join("made"), FOREIGN[0], b"own");
    let started = std::time::Instant::now();
    place
        .run(&["copy", "oci:made:v1", &format!("docker://{}/app:1", registry.host)])
        .exits(2)
        .says(&["MANIFEST_BLOB_UNKNOWN", "`validation.manifests.urls.allow`"]);
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

/// What cannot be read is said, and what can be is told.
#[test]
fn audits_say_which_layers_they_could_not_read() {
    let place = Place::new();
    let (_, layer) = image(&place.project.join("a"), FOREIGN[0], b"own");
    fs::remove_file(blob(&place.project.join("a"), &layer)).unwrap();
    let inspected = place.run(&["inspect", "oci:a:v1"]).success();
    assert!(
        inspected.stdout.contains(&format!("kept elsewhere: {URL}")),
        "{}",
        inspected.stdout
    );
    let report: Value = serde_json::from_str(
        &place
            .run(&["inspect", "--layers", "--json", "oci:a:v1"])
            .success()
            .stdout,
    )
    .unwrap();
    assert_eq!(report["layers"][0]["urls"], json!([URL]));
    assert_eq!(
        (&report["layers"][0]["kept_elsewhere"], &report["layers"][1]["entries"]),
        (&json!(true), &json!(2))
    );

    let report: Value = serde_json::from_str(&place.run(&["verify", "--json", "oci:a:v1"]).success().stdout).unwrap();
    assert_eq!(
        (&report["problems"], &report["kept_elsewhere"][0]["layer"]),
        (&json!([]), &json!(0))
    );
    // What a layer that was not read has below a whiteout is not known.
    let strict = place.run(&["verify", "--profile", "strict", "oci:a:v1"]);
    assert!(!strict.stdout.contains("whiteout-target"), "{}", strict.stdout);

    let own = place.run(&["explain", "oci:a:v1", "/own"]).success();
    assert!(
        own.stdout.contains("has it: file, 3 bytes  ← seen") && own.stdout.contains("kept elsewhere"),
        "{}",
        own.stdout
    );
    let base = place.run(&["explain", "oci:a:v1", "/base"]).exits(1);
    assert!(
        base.stdout.contains("not in the layers that could be read"),
        "{}",
        base.stdout
    );

    // The same vendor's layer on both sides need not be read.
    let (_, _) = image(&place.project.join("b"), FOREIGN[0], b"another");
    fs::remove_file(blob(&place.project.join("b"), &layer)).unwrap();
    let diff = place.run(&["diff", "oci:a:v1", "oci:b:v1"]).exits(1);
    assert!(
        diff.stdout.contains("own content") && !diff.stdout.contains("elsewhere"),
        "{}",
        diff.stdout
    );
    let plain = Crafted::at(&place.project.join("c"));
    Parts::of(vec![
        tar_of(&[Entry::file(b"c", b"c")]),
        tar_of(&[Entry::file(b"own", b"own")]),
    ])
    .write(&plain);
    let diff = place.run(&["diff", "oci:a:v1", "oci:c:v1"]).exits(1);
    let told = "0 of the first image is kept elsewhere, its files were not compared";
    assert!(
        diff.stdout.contains(told) && diff.stdout.contains(URL),
        "{}",
        diff.stdout
    );
}

/// Without `urls` nobody can say where a layer is, and wrong bytes are wrong wherever else there may be right ones.
#[test]
fn a_layer_that_nobody_can_find_and_a_damaged_one_are_damage() {
    let place = Place::new();
    let (_, layer) = image(&place.project.join("a"), FOREIGN[0], b"own");
    let plain = Crafted::at(&place.project.join("d"));
    let mut parts = Parts::of(vec![tar_of(&[Entry::file(b"base", b"base")])]);
    parts.manifest = Box::new(|manifest| manifest["layers"][0]["mediaType"] = FOREIGN[0].into());
    parts.write(&plain);
    fs::remove_file(blob(&plain.dir, &layer)).unwrap();
    place.run(&["verify", "oci:d:v1"]).exits(1);
    place
        .run(&["copy", "oci:d:v1", "oci:e:v1"])
        .exits(2)
        .says(&["is missing in"]);
    let (_, layer) = image(&place.project.join("f"), FOREIGN[0], b"own");
    let path = blob(&place.project.join("f"), &layer);
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::write(&path, bytes).unwrap();
    place.run(&["verify", "oci:f:v1"]).exits(1);
    place
        .run(&["copy", "oci:f:v1", "oci:g:v1"])
        .exits(2)
        .says(&["damaged", &layer]);
}

/// A base with such a layer is one, its layer stays where it is, and what would have to be read of it is said.
#[test]
fn a_base_may_have_a_layer_that_is_kept_elsewhere() {
    let place = Place::new();
    let (_, layer) = image(&place.project.join("base"), FOREIGN[1], b"own");
    fs::remove_file(blob(&place.project.join("base"), &layer)).unwrap();
    let spec = |more: &str| {
        place.write("doc", "doc\n");
        place.write(
            "layerize.toml",
            &format!(
                "[image.app]\nbase = \"oci:base:v1\"\nfiles = {{ \"/doc\" = \"doc\" }}\nentrypoint = [\"/own\"]\n{more}"
            ),
        );
    };
    spec("");
    place.run(&["build", "app", "-o", "oci:out:v1"]).success();
    let verified = place.run(&["verify", "oci:out:v1"]).success();
    assert!(
        verified.stdout.contains("layer 0: it is kept elsewhere"),
        "{}",
        verified.stdout
    );
    assert_eq!(
        place.inspect("oci:out:v1")["layers"][0]["media_type"],
        FOREIGN[0],
        "OCI's name for Docker's"
    );
    place
        .run(&["build", "app", "-o", "app.tar"])
        .exits(2)
        .says(&["needs the layer", &layer]);
    spec("user = \"web\"\n");
    place
        .run(&["build", "app", "-o", "oci:out:v2"])
        .exits(2)
        .says(&[&layer, "kept elsewhere", URL, "blobs/sha256/"]);
}
