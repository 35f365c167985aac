//! Which documents are read, what they say, and which are refused.

use std::error::Error;

use super::super::{CONFIG_SIZE_MAX, Config, INDEX_SIZE_MAX, MANIFEST_SIZE_MAX};
use super::*;

const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn manifest(extra: &str) -> Vec<u8> {
    format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.docker.container.image.v1+json","size":1,"digest":"{SHA}"}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":2,"digest":"{SHA}"}}]{extra}}}"#
    )
    .into_bytes()
}

fn index(entries: &str) -> Vec<u8> {
    format!(r#"{{"schemaVersion":2,"manifests":{entries}}}"#).into_bytes()
}

fn read(bytes: Vec<u8>) -> Result<Document, DocumentError> {
    Document::read(bytes, "", None)
}

fn whole(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", whole(source)),
        None => error.to_string(),
    }
}

#[test]
fn manifests_and_indexes_are_told_apart_by_their_fields() {
    let Document::Manifest(found) = read(manifest("")).unwrap() else {
        panic!("a manifest")
    };
    assert_eq!(found.bytes(), manifest(""));
    assert_eq!(found.digest(), Digest::of(&manifest("")));
    assert_eq!(found.config.digest, Digest::of(b""));
    assert_eq!(found.layers[0].size, 2);
    assert_eq!(found.media_type(), MediaType::MANIFEST);
    let entry = format!(r#"[{{"mediaType":"x/y","size":1,"digest":"{SHA}"}}]"#);
    assert!(matches!(read(index(&entry)).unwrap(), Document::Index(list) if list.manifests.len() == 1));
}

#[test]
fn what_could_be_read_as_two_documents_is_refused() {
    let cases = [
        (manifest(r#","manifests":[]"#), "the image index also has `config`"),
        (
            manifest(&format!(r#","mediaType":"{}""#, MediaType::INDEX)),
            "the image manifest also has the media type",
        ),
        (
            manifest(r#","Manifests":[]"#),
            "the image manifest also has `Manifests`, which some readers take for another field",
        ),
        (manifest(r#","Layers":[]"#), "also has `Layers`, which"),
        (manifest(r#","layerſ":[]"#), "also has `layerſ`, which"),
        (
            manifest(r#","subject":{"Digest":"sha256:0"}"#),
            "also has `Digest`, which",
        ),
        (br#"{"schemaVersion":1,"fsLayers":[]}"#.to_vec(), "has schema version 1"),
        (
            br#"{"schemaVersion":"2","layers":[]}"#.to_vec(),
            "has schema version \"2\"",
        ),
        (
            br#"{"schemaVersion":2}"#.to_vec(),
            "neither an image manifest nor an index",
        ),
        (
            br#"{"schemaVersion":2,"layers":[]}"#.to_vec(),
            "cannot read the image manifest: `config`: it is missing",
        ),
        (
            manifest(r#","schemaVersion":2"#),
            "malformed JSON: the key `schemaVersion` appears twice",
        ),
        (vec![b' '; (INDEX_SIZE_MAX + 1) as usize], "more than the 16777216 that"),
    ];
    for (bytes, expected) in cases {
        let error = whole(&read(bytes).unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
    let padded = [manifest(""), vec![b' '; MANIFEST_SIZE_MAX as usize]].concat();
    assert!(matches!(read(padded), Err(DocumentError::Size { .. })));
}

#[test]
fn what_announced_a_document_must_mean_the_same_kind() {
    for (said, ok) in [
        ("", true),
        ("application/json", true),
        ("application/vnd.oci.image.manifest.v1+json; charset=utf-8", true),
        (MediaType::DOCKER_MANIFEST, true),
        (MediaType::INDEX, false),
        (MediaType::DOCKER_MANIFEST_LIST, false),
        (MediaType::CONFIG, false),
    ] {
        assert_eq!(Document::read(manifest(""), said, None).is_ok(), ok, "{said}");
    }
}

#[test]
fn a_document_has_the_digest_by_which_it_was_asked_for() {
    let bytes = manifest("");
    let sha512 = ContentDigest::Sha512([0; 64]).same_algorithm(&bytes);
    assert_eq!(
        Document::read(bytes.clone(), "", Some(sha512)).unwrap().digest(),
        sha512
    );
    assert_eq!(
        Raw::<Manifest>::read_named(bytes.clone(), sha512).unwrap().digest(),
        sha512
    );
    let other = Digest::of(b"other").into();
    assert!(matches!(
        Raw::<Manifest>::read_named(bytes, other),
        Err(DocumentError::Digest(_))
    ));
}

/// `docker save` and `buildah` write both of these for an empty list; see golang's nil slices.
#[test]
fn an_empty_list_may_be_null() {
    let Document::Index(found) = read(index("null")).unwrap() else {
        panic!("an index")
    };
    assert!(found.manifests.is_empty());
    let null =
        format!(r#"{{"schemaVersion":2,"config":{{"size":1,"digest":"{SHA}"}},"layers":null,"manifests":null}}"#);
    let Document::Manifest(found) = read(null.into_bytes()).unwrap() else {
        panic!("a manifest")
    };
    assert!(found.layers.is_empty());
    assert_eq!(found.config.media_type, "");
}

#[test]
fn an_unknown_algorithm_fails_only_what_is_asked_for() {
    let sha512 = format!("sha512:{}", "0".repeat(128));
    let entries = format!(
        r#"[{{"mediaType":"x/y","size":1,"digest":"blake3:00","platform":{{"os":"linux","architecture":"arm64"}}}},
            {{"mediaType":"x/y","size":1,"digest":"{sha512}"}},{{"mediaType":"x/y","size":1,"digest":"{SHA}"}}]"#
    );
    let Document::Index(found) = read(index(&entries)).unwrap() else {
        panic!("an index")
    };
    let digests: Vec<_> = found.manifests.iter().map(|entry| entry.digest.to_string()).collect();
    assert_eq!(digests, [sha512.as_str(), SHA]);
    assert_eq!(found.unknown.len(), 1);
    assert_eq!(found.unknown[0].digest, "blake3:00");
    assert_eq!(found.unknown[0].platform, "linux/arm64".parse().ok());
    let text = String::from_utf8(manifest("")).unwrap().replacen(SHA, "blake3:00", 1);
    assert!(matches!(
        read(text.into_bytes()),
        Err(DocumentError::Algorithm { digest, .. }) if digest == "blake3:00"
    ));
}

#[test]
fn docker_configs_with_nulls_are_read() {
    let text = br#"{"architecture":"amd64","os":"linux","created":"2020-01-01T00:00:00.123Z","container":"x","Size":0,
        "config":{"Hostname":"","Env":["A=b"],"Cmd":null,"Volumes":null,"Entrypoint":null,"OnBuild":null,
            "ExposedPorts":{"80/tcp":{}},"Labels":{"b":"2","a":null},"Healthcheck":{"Test":["NONE"]}},
        "rootfs":{"type":"layers","diff_ids":null},"history":[{"created_by":"x","empty_layer":true,"comment":null}]}"#;
    let config = Raw::<Config>::read(text.to_vec()).unwrap();
    assert_eq!(config.execution.env, ["A=b"]);
    let labels: Vec<_> = config.execution.labels.iter().collect();
    assert_eq!(
        labels,
        [(&"a".to_owned(), &String::new()), (&"b".to_owned(), &"2".to_owned())]
    );
    assert_eq!(config.execution.exposed_ports.iter().collect::<Vec<_>>(), ["80/tcp"]);
    assert_eq!(
        config.execution.others.keys().collect::<Vec<_>>(),
        ["Healthcheck", "Hostname", "OnBuild"]
    );
    assert!(config.history[0].is_empty_layer());
    assert_eq!(config.platform(), "linux/amd64".parse().ok());
    assert_eq!(config.bytes(), text);
    let bare = Raw::<Config>::read(br#"{"rootfs":{}}"#.to_vec()).unwrap();
    assert_eq!((bare.platform(), bare.diff_ids.len()), (None, 0));
    for text in [
        &br#"{"rootfs":{},"Config":{}}"#[..],
        br#"{"rootfs":{},"config":{"env":["A=b"]}}"#,
        br#"{"rootfs":{"Diff_IDs":[]}}"#,
    ] {
        assert!(matches!(
            Raw::<Config>::read(text.to_vec()),
            Err(DocumentError::Ambiguous { .. })
        ));
    }
}

#[test]
fn a_config_is_bounded_as_a_manifest_is() {
    let padded = [&br#"{"rootfs":{}}"#[..], &vec![b' '; CONFIG_SIZE_MAX as usize]].concat();
    assert!(matches!(Raw::<Config>::read(padded), Err(DocumentError::Size { .. })));
}
