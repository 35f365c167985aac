//! Artifacts beside images in layouts: stored, found again, and never taken for images.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::digest::Digest;
use crate::image::Image;
use crate::oci::{Artifact, Compression, Descriptor, MediaType, Subject, canonical_json};
use crate::transport::testing::{changed_manifest, sample};
use crate::transport::{
    Companion, Layout, REFERRERS_MAX, ReadOptions, Referrer, Referrers, Sink, Source, TransportError, read, read_blob,
};

fn subject(image: &Image) -> Subject {
    Subject {
        media_type: MediaType::MANIFEST.to_owned(),
        digest: image.digest(),
        size: image.manifest.size(),
    }
}

fn note(image: &Image, text: &str) -> Artifact {
    let annotations = BTreeMap::from([("note".to_owned(), text.to_owned())]);
    Artifact::new(subject(image), "text/x-note", annotations, text.into(), "note.txt")
}

fn write(path: &Path, value: &Value) -> Descriptor {
    let bytes = canonical_json(value);
    let digest = Digest::of(&bytes);
    fs::write(path.join("blobs/sha256").join(digest.hex()), &bytes).unwrap();
    Descriptor::new("", digest, bytes.len() as u64)
}

fn edit_index(path: &Path, edit: impl FnOnce(&mut Vec<Value>)) {
    let file = path.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    edit(index["manifests"].as_array_mut().unwrap());
    fs::write(file, canonical_json(&index)).unwrap();
}

/// The referrers of an image, read, sorted by digest.
fn referrers(source: &dyn Source) -> Result<Vec<Referrer>, TransportError> {
    let image = source.manifest()?.digest();
    let listed = source.referrers()?.listed;
    let read: Result<Vec<_>, _> = listed.iter().map(|entry| entry.read(source, &image)).collect();
    let mut found: Vec<Referrer> = read?.into_iter().flatten().collect();
    found.sort_by_key(|referrer| referrer.digest);
    Ok(found)
}

#[test]
fn what_is_attached_is_found_and_the_image_still_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layout");
    let image = sample(Compression::None);
    let layout = Layout::new(&path, Some("v1"));
    layout.put(&image, &[]).unwrap();
    for text in ["one", "two", "one"] {
        layout.attach(&note(&image, text)).unwrap();
    }
    // By the only image's name, by its tag, and through an archive of the same files.
    for name in [None, Some("v1")] {
        let found = read::layout(&path, name, &ReadOptions::default()).unwrap();
        assert_eq!(found.manifest().unwrap().bytes(), image.manifest.bytes());
        let referrers = referrers(&found).unwrap();
        let mut expected = [note(&image, "one"), note(&image, "two")];
        expected.sort_by_key(|artifact| artifact.digest);
        assert_eq!(referrers.len(), 2);
        for (referrer, artifact) in referrers.iter().zip(expected) {
            assert_eq!(
                (referrer.digest, referrer.artifact_type.as_str()),
                (artifact.digest.into(), "text/x-note")
            );
            assert_eq!(referrer.annotations, artifact.annotations);
            let blob = read_blob(&found, &referrer.blobs[0], 100, "the note").unwrap();
            assert_eq!(blob, artifact.annotations["note"].as_bytes());
        }
    }
    // An image that comes beside it, and one that takes its name, leave the artifacts alone.
    let other = sample(Compression::Gzip(6));
    layout.put(&other, &[]).unwrap();
    Layout::new(&path, Some("v0")).put(&image, &[]).unwrap();
    let found = read::layout(&path, Some("v0"), &ReadOptions::default()).unwrap();
    assert_eq!(referrers(&found).unwrap().len(), 2);
    let found = read::layout(&path, Some("v1"), &ReadOptions::default()).unwrap();
    assert_eq!(referrers(&found).unwrap(), [], "another image has none");
}

#[test]
fn a_subject_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layout");
    let (image, other) = (sample(Compression::None), sample(Compression::Gzip(6)));
    let layout = Layout::new(&path, Some("v1"));
    layout.put(&image, &[]).unwrap();
    let before = fs::read(path.join("index.json")).unwrap();
    let error = layout.attach(&note(&other, "x")).unwrap_err();
    assert!(matches!(error, TransportError::Missing { .. }), "{error}");
    assert_eq!(fs::read(path.join("index.json")).unwrap(), before);
}

#[test]
fn lists_of_other_tools_are_read_and_lies_in_them_are_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layout");
    let image = sample(Compression::None);
    Layout::new(&path, Some("v1")).put(&image, &[]).unwrap();
    let artifact = note(&image, "hidden");
    fs::write(
        path.join("blobs/sha256").join(artifact.digest.hex()),
        &artifact.manifest,
    )
    .unwrap();
    // As regclient has it: listed under the fallback tag alone.
    let stranger = json!({
        "schemaVersion": 2,
        "artifactType": "text/x-note",
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}"), "size": 2 },
        "layers": [],
        "subject": { "mediaType": MediaType::MANIFEST, "digest": Digest::of(b"another"), "size": 7 },
    });
    let lying = write(&path, &stranger);
    let lying = json!({ "mediaType": MediaType::MANIFEST, "digest": lying.digest, "size": lying.size });
    let list =
        json!({ "schemaVersion": 2, "mediaType": MediaType::INDEX, "manifests": [artifact.descriptor(), lying] });
    let list = write(&path, &list);
    let tag = subject(&image).fallback_tag();
    edit_index(&path, |manifests| {
        manifests.push(json!({
            "mediaType": MediaType::INDEX,
            "digest": list.digest,
            "size": list.size,
            "annotations": { "org.opencontainers.image.ref.name": tag },
        }));
    });
    let found = read::layout(&path, None, &ReadOptions::default()).unwrap();
    let digests: Vec<_> = referrers(&found).unwrap().iter().map(|found| found.digest).collect();
    assert_eq!(digests, [artifact.digest]);
    // What is attached next joins that list.
    Layout::new(&path, None).attach(&note(&image, "next")).unwrap();
    let found = read::layout(&path, None, &ReadOptions::default()).unwrap();
    assert_eq!(referrers(&found).unwrap().len(), 2);
    // A referrer that is damaged or gone is an error of its own, and hides no other.
    fs::write(path.join("blobs/sha256").join(artifact.digest.hex()), "damage").unwrap();
    assert!(referrers(&found).is_err());
    let listed = found.referrers().unwrap().listed;
    let readable = listed
        .iter()
        .filter(|entry| matches!(entry.read(&found, &image.digest().into()), Ok(Some(_))));
    assert_eq!(readable.count(), 1);
}

/// Whatever an entry is, it is passed over, and those beside it are found.
#[test]
fn entries_that_are_no_descriptors_hide_no_other() {
    let image = Digest::of(b"image");
    let good = json!({ "mediaType": MediaType::MANIFEST, "digest": Digest::of(b"good"), "size": 4 });
    let entries = json!([
        null, 7, "text", [], {}, good, { "digest": "sha999:00", "size": 1 }, { "digest": image, "size": -1 },
        { "mediaType": MediaType::MANIFEST, "digest": image, "size": 5 },
        { "mediaType": MediaType::INDEX, "digest": Digest::of(b"index"), "size": 5 }, good,
    ]);
    let mut found = Referrers::default();
    for list in [json!({ "manifests": entries }), json!({ "manifests": null }), json!({})] {
        found
            .add(list.to_string().as_bytes(), &image.into(), "here", "the list")
            .unwrap();
    }
    let digests: Vec<_> = found.listed.iter().map(|entry| entry.digest).collect();
    assert_eq!(digests, [Digest::of(b"good")]);
    assert_eq!((found.unreadable, found.cut), (7, false));
    let many: Vec<_> = (0..=REFERRERS_MAX)
        .map(|number| json!({ "digest": Digest::of(number.to_string().as_bytes()), "size": 1 }))
        .collect();
    found
        .add(
            json!({ "manifests": many }).to_string().as_bytes(),
            &image.into(),
            "here",
            "the list",
        )
        .unwrap();
    assert_eq!((found.listed.len(), found.cut), (REFERRERS_MAX, true));
}

#[test]
fn fallback_tags_and_artifacts_are_no_images() {
    let hex = "0".repeat(64);
    for (tag, expected) in [
        (format!("sha256-{hex}"), true),
        (format!("sha256-{hex}.sig"), true),
        (format!("sha256-{hex}x"), false),
        (format!("sha256-{}", &hex[1..]), false),
        (format!("sha256-{}ä", &hex[2..]), false),
        ("latest".to_owned(), false),
        ("sha256-".to_owned(), false),
    ] {
        assert_eq!(crate::oci::is_fallback_tag(&tag), expected, "{tag}");
    }
    for (kind, expected) in [
        ("text/x", true),
        ("", false),
        // Lists of referrers give an image the type of its config.
        ("application/vnd.oci.image.config.v1+json", false),
    ] {
        let descriptor = Descriptor {
            artifact_type: Some(kind.to_owned()),
            ..Descriptor::new("", Digest::of(b""), 0)
        };
        assert_eq!(descriptor.is_attestation(), expected, "{kind}");
    }
}

/// What the anchor names is written again where its manifest was lost; until then the anchor does not move.
#[test]
fn an_anchor_whose_manifest_was_lost_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(&dir.path().join("layout"), Some("v1"));
    let put = |text: &str| {
        let artifact = changed_manifest(&sample(Compression::None), |manifest| {
            manifest["annotations"]["of"] = text.into();
        });
        let companion = Companion {
            artifact_type: "text/x-note",
            subject: None,
            tag: format!("tag-{text}"),
            anchor: "anchor".to_owned(),
            tag_of: |image| image.hex(),
            artifact,
        };
        layout.put_companion(&companion, &|_| Ok(())).unwrap();
        companion.artifact.digest()
    };
    let anchored = || {
        let anchor = Layout::new(&dir.path().join("layout"), Some("anchor"));
        let current = anchor.current(&[]).unwrap();
        current.into_iter().map(|(_, digest)| digest).collect::<Vec<_>>()
    };
    let first = put("one");
    assert_eq!(anchored(), [first]);
    let second = put("two");
    assert_eq!(anchored(), [first]);
    fs::remove_file(dir.path().join("layout/blobs/sha256").join(first.hex())).unwrap();
    assert_eq!(put("two"), second);
    assert_eq!(anchored(), [second], "the manifest is there");
    assert_eq!(put("one"), first);
    assert_eq!(anchored(), [second]);
}
