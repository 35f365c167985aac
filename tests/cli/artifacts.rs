//! Artifacts (charts, bills of materials, signatures) and lists of them: what they are, by every verb, and never damage.

use std::fs;

use serde_json::{Value, json};

use crate::crafted::Crafted;
use crate::documents::{MANIFEST, archive, blob, document, image, index, tag};
use crate::places::{Kind, Places};
use crate::support::Place;

const HELM: &str = "application/vnd.cncf.helm.config.v1+json";
const SPDX: &str = "application/spdx+json";

/// A chart as `helm push` makes it: its type is its config's.
fn chart(layout: &Crafted, version: &str) -> Value {
    let config = blob(
        layout,
        HELM,
        json!({ "name": "web", "version": version }).to_string().as_bytes(),
    );
    let content = blob(layout, "application/vnd.cncf.helm.chart.content.v1.tar+gzip", b"chart");
    let chart = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [content] });
    document(layout, MANIFEST, &chart, json!({}))
}

/// A bill of materials as `oras attach` makes it: an empty config, an `artifactType`, a subject.
fn bill(layout: &Crafted, subject: &Value, text: &str) -> Value {
    let config = blob(layout, "application/vnd.oci.empty.v1+json", b"{}");
    let bill = blob(layout, SPDX, text.as_bytes());
    let subject = json!({ "mediaType": MANIFEST, "digest": subject["digest"], "size": subject["size"] });
    let bill = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": SPDX, "config": config,
        "layers": [bill], "subject": subject });
    document(layout, MANIFEST, &bill, json!({ "artifactType": SPDX }))
}

fn named(mut entry: Value, name: &str) -> Value {
    entry["annotations"]["org.opencontainers.image.ref.name"] = name.into();
    entry
}

/// A layout `all`: an image `v1`, a bill of it `bill`, and a list of two bills as a registry without the referrers API
/// has it (distribution-spec, "Referrers Tag Schema"), which is also `list`; and the digests of both bills.
fn layout_with_referrers(place: &Place) -> [String; 2] {
    let layout = Crafted::at(&place.project.join("all"));
    let image = image(&layout, "linux/amd64");
    let bills = [bill(&layout, &image, "one"), bill(&layout, &image, "two")];
    let list = index(&layout, &bills);
    let fallback = image["digest"].as_str().unwrap().replace(':', "-");
    let [one, two] = bills.clone().map(|bill| bill["digest"].as_str().unwrap().to_owned());
    let [bill, _] = bills;
    layout.edit_index(|entries| {
        *entries = vec![
            named(image, "v1"),
            named(bill, "bill"),
            named(list.clone(), "list"),
            named(list, &fallback),
        ];
    });
    [one, two]
}

/// Every verb, with what it says: what the artifact is.
#[test]
fn every_verb_says_that_an_artifact_is_one() {
    let place = Place::new();
    place.write("doc.spdx.json", "{\"spdxVersion\":\"SPDX-2.3\"}");
    layout_with_referrers(&place);
    let charts = Crafted::at(&place.project.join("chart"));
    tag(&charts, chart(&charts, "1.0.0"));
    for (from, kind, bytes) in [("oci:chart:v1", HELM, 5), ("oci:all:bill", SPDX, 3)] {
        let inspected = place.run(&["inspect", from]).success();
        assert!(
            inspected.stdout.contains(&format!("type         {kind}")),
            "{}",
            inspected.stdout
        );
        let verified = place.run(&["verify", from]).success();
        let told = format!("artifact `{kind}`, 1 blobs, {bytes} B: no problems");
        assert!(verified.stdout.contains(&told), "{}", verified.stdout);
        let is_artifact = format!("is an artifact (`{kind}`), not an image");
        for verb in [&["explain", from, "/f"][..], &["sbom", from], &["rebuild", from]] {
            let ran = place.run(verb).exits(2).says(&[&is_artifact, "layerize inspect"]);
            assert!(!ran.stderr.contains("damaged"), "{verb:?}: {}", ran.stderr);
        }
        place.write(
            "layerize.toml",
            &format!("[image.app]\nbase = \"{from}\"\nfiles = {{ \"/doc\" = \"doc.spdx.json\" }}\n"),
        );
        place.run(&["lock"]).exits(2).says(&[&is_artifact]);
        fs::remove_file(place.project.join("layerize.toml")).unwrap();
        place
            .run(&["index", "create", "oci:no:v1", from])
            .exits(2)
            .says(&["an index needs an image"]);
    }
}

/// Blobs of artifacts are verified, too.
#[test]
fn a_damaged_blob_of_an_artifact_is_found() {
    let place = Place::new();
    let charts = Crafted::at(&place.project.join("chart"));
    tag(&charts, chart(&charts, "1.0.0"));
    let content = layerize::digest::Digest::of(b"chart");
    fs::write(charts.blob(&content), b"chars").unwrap();
    let verified = place.run(&["verify", "oci:chart:v1"]).exits(1);
    assert!(verified.stdout.starts_with("blob 0: "), "{}", verified.stdout);
    fs::remove_file(charts.blob(&content)).unwrap();
    let verified = place.run(&["verify", "oci:chart:v1"]).exits(1);
    assert!(verified.stdout.contains("is missing in"), "{}", verified.stdout);
}

/// Manifests and JSON configs are compared field by field.
#[test]
fn artifacts_are_compared_as_documents() {
    let place = Place::new();
    layout_with_referrers(&place);
    for (name, version) in [("a", "1.0.0"), ("b", "1.0.1"), ("same", "1.0.0")] {
        let layout = Crafted::at(&place.project.join(name));
        tag(&layout, chart(&layout, version));
    }
    place.run(&["diff", "oci:a:v1", "oci:same:v1"]).success();
    let diff = place.run(&["diff", "oci:a:v1", "oci:b:v1"]).exits(1);
    assert!(
        diff.stdout.contains("version: \"1.0.0\" → \"1.0.1\"\n1 class"),
        "{}",
        diff.stdout
    );
    let diff = place.run(&["diff", "oci:a:v1", "oci:all:bill"]).exits(1);
    assert!(
        diff.stdout.contains(&format!("artifactType: absent → \"{SPDX}\"")),
        "{}",
        diff.stdout
    );
    let diff = place.run(&["diff", "oci:all:v1", "oci:all:bill"]).exits(1);
    assert!(diff.stdout.contains("config.mediaType: "), "{}", diff.stdout);
}

/// Artifacts go wherever anything can be; engines and their archives refuse what they could not load.
#[test]
fn artifacts_are_copied_between_all_places_that_hold_them() {
    let places = Places::new();
    let layout = Crafted::at(&places.place.project.join("chart"));
    let chart = chart(&layout, "1.0.0");
    let digest = chart["digest"].as_str().unwrap().to_owned();
    tag(&layout, chart);
    let (holding, others): (Vec<Kind>, Vec<Kind>) = places.kinds.iter().copied().partition(|kind| kind.holds_indexes());
    for kind in &holding {
        places
            .run(&["copy", "oci:chart:v1", &places.location(*kind, "source", 0)])
            .success();
    }
    for from in &holding {
        for to in &holding {
            let tag = format!("from-{}", format!("{from:?}").to_lowercase());
            let sink = places.location(*to, &tag, 1);
            let copied = places
                .run(&["copy", &places.location(*from, "source", 0), &sink])
                .success();
            assert_eq!(copied.line().split(' ').next().unwrap(), digest, "{from:?} → {to:?}");
            let verified = places.run(&["verify", &sink]).success();
            assert!(verified.stdout.contains(HELM), "{}", verified.stdout);
        }
        for to in &others {
            places
                .run(&[
                    "copy",
                    &places.location(*from, "source", 0),
                    &places.location(*to, "no", 1),
                ])
                .exits(2)
                .says(&[
                    "images to run, not artifacts",
                    HELM,
                    "`oci-archive:FILE`, `oci:DIR[:tag]` or `docker://NAME`",
                ]);
        }
    }
}

/// A list of referrers holds no image: what it lists is named, in a form that works.
#[test]
fn a_list_of_referrers_names_what_it_lists() {
    let places = Places::new();
    let place = &places.place;
    let digests = layout_with_referrers(place);
    let mut froms = vec!["oci:all:list".to_owned()];
    for kind in places.kinds.iter().filter(|kind| kind.holds_indexes()) {
        let to = places.location(*kind, "list", 0);
        places.run(&["copy", "--all", "oci:all:list", &to]).success();
        froms.push(to);
    }
    for from in &froms {
        for verb in [
            &["inspect", from.as_str()][..],
            &["verify", from],
            &["explain", from, "/f"],
            &["sbom", from],
            &["rebuild", from],
            &["copy", from, "oci:no:v1"],
            &["diff", from, from],
        ] {
            let ran = places
                .run(verb)
                .exits(2)
                .says(&["lists 2 artifacts, and no image", &digests[0], &digests[1]]);
            if verb[0] == "inspect" {
                let named: Vec<String> = crate::documents::advised(&ran.stderr);
                for (name, digest) in named.iter().zip(&digests) {
                    let inspected = places.run(&["inspect", name]).success();
                    assert!(
                        inspected.stdout.contains(digest) && inspected.stdout.contains(SPDX),
                        "{name}"
                    );
                    places.run(&["verify", name]).success();
                }
                assert_eq!(named.len(), 2, "{}", ran.stderr);
            }
        }
    }
    // Where an artifact is all that there is, it is what is meant, also when the index says its type (oras).
    let only = Crafted::at(&place.project.join("only"));
    let subject = image(&only, "linux/amd64");
    let bill = bill(&only, &subject, "one");
    only.edit_index(|entries| *entries = vec![bill]);
    let inspected = places.run(&["inspect", "oci:only"]).success();
    assert!(inspected.stdout.contains(SPDX), "{}", inspected.stdout);
    assert!(inspected.stdout.contains("subject"), "{}", inspected.stdout);
}

/// distribution-spec, "Referrers Tag Schema", and image-layout.md: what refers to an image, and what refers to that, goes
/// along, between all places that can list it.
#[test]
fn referrers_go_along_between_all_places_that_hold_them() {
    let places = Places::new();
    let place = &places.place;
    let layout = Crafted::at(&place.project.join("made"));
    let subject = image(&layout, "linux/amd64");
    let one = bill(&layout, &subject, "one");
    let signature = bill(&layout, &one, "signature of one");
    let two = bill(&layout, &subject, "two");
    let stranger = bill(&layout, &image(&layout, "linux/arm64"), "of another image");
    let top = index(&layout, std::slice::from_ref(&subject));
    let of_top = bill(&layout, &top, "of the index");
    layout.edit_index(|entries| {
        *entries = vec![
            named(subject.clone(), "v1"),
            named(top, "all"),
            one.clone(),
            signature.clone(),
            two.clone(),
            stranger.clone(),
            of_top.clone(),
        ];
    });
    archive(&layout.dir, &place.project.join("made.tar"), &[]);
    let digest = |entry: &Value| entry["digest"].as_str().unwrap().to_owned();
    let at = |location: &str, digest: &str| match location.strip_prefix("docker://") {
        Some(name) => format!("docker://{}@{digest}", &name[..name.rfind(':').unwrap()]),
        None => format!("{}:@{digest}", &location[..location.rfind(':').unwrap()]),
    };
    let sinks: Vec<String> = [Kind::Layout, Kind::Registry]
        .into_iter()
        .filter(|kind| places.kinds.contains(kind))
        .flat_map(|kind| [places.location(kind, "v1", 0), places.location(kind, "v1", 1)])
        .collect();
    let mut sources = vec!["oci:made:v1".to_owned(), "oci-archive:made.tar:v1".to_owned()];
    for sink in &sinks {
        for source in &sources {
            places
                .run(&["copy", "--referrers", source, sink])
                .success()
                .says(&["3 referrers copied"]);
            for entry in [&one, &two, &signature] {
                let verified = places.run(&["verify", &at(sink, &digest(entry))]).success();
                assert!(verified.stdout.contains(SPDX), "{source} → {sink}: {}", verified.stdout);
            }
            places.run(&["inspect", &at(sink, &digest(&stranger))]).exits(2);
        }
        sources.push(sink.clone());
    }
    // Those of an index and of the images in it.
    let copied = places
        .run(&["copy", "--all", "--referrers", "oci:made:all", "oci:whole:all"])
        .success();
    copied.says(&["4 referrers copied"]);
    places
        .run(&["verify", &at("oci:whole:all", &digest(&of_top))])
        .success();
    // Without the flag nothing goes along; nothing is written where nothing can be listed.
    places.run(&["copy", "oci:made:v1", "oci:plain:v1"]).success();
    places.run(&["inspect", &at("oci:plain:v1", &digest(&one))]).exits(2);
    for sink in ["x.tar", "oci-archive:x.tar", "docker-daemon:layerize-test-no:1"] {
        places
            .run(&["copy", "--referrers", "oci:made:v1", sink])
            .exits(2)
            .says(&["nothing can be attached", "`oci:DIR[:TAG]`", "`docker://NAME`"]);
    }
    assert!(!place.project.join("x.tar").exists());
    // A damaged one is not copied in silence.
    let blob = layerize::digest::Digest::of(b"two");
    fs::write(layout.blob(&blob), b"2wo").unwrap();
    places
        .run(&["copy", "--referrers", "oci:made:v1", "oci:damaged:v1"])
        .exits(2)
        .says(&["a blob of a referrer", &blob.to_string()]);
}
