//! Reading images of a registry that lies, breaks off and sends elsewhere.

use super::super::source::RemoteImage;
use super::faulty::{Act, Answer, Faulty, Ways};
use super::*;
use crate::digest::Digest;
use crate::oci::MediaType;
use crate::transport::read::ReadOptions;
use crate::transport::testing::sha256;
use crate::transport::{Source, read_blob};

/// A registry that has `app:1`.
fn filled(image: &Image, ways: Ways) -> Faulty {
    let registry = Faulty::start(ways);
    to(&registry, image).unwrap();
    registry
}

fn open(registry: &Faulty, rest: &str, options: &ReadOptions) -> Result<RemoteImage, TransportError> {
    RemoteImage::tuned(&format!("{}/app{rest}", registry.host), options, hasty())
}

/// All blobs of the image that is read.
fn read(image: &RemoteImage) -> Result<Vec<Vec<u8>>, TransportError> {
    let manifest = image.manifest()?;
    let blobs = std::iter::once(&manifest.config).chain(&manifest.layers);
    blobs
        .map(|descriptor| read_blob(image, descriptor, 1 << 30, "a blob"))
        .collect()
}

#[test]
fn an_image_is_read_by_tag_and_by_digest() {
    let image = sized(&[(1, 1000), (2, 100_000)]);
    let registry = filled(
        &image,
        Ways {
            tokens: true,
            ..Ways::default()
        },
    );
    let options = ReadOptions::default();
    for rest in [
        ":1".to_owned(),
        format!("@{}", image.digest()),
        format!(":1@{}", image.digest()),
    ] {
        let source = open(&registry, &rest, &options).unwrap();
        assert_eq!(source.manifest().unwrap().bytes(), image.manifest.bytes());
        assert_eq!(read(&source).unwrap()[0], image.config.bytes());
        assert_eq!(source.repository(), Some((registry.host.as_str(), "app")));
    }
    let error = open(&registry, ":2", &options).err().unwrap();
    let expected = format!("the manifest `2` is missing in `docker://{}/app`", registry.host);
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_download_goes_on_where_it_broke() {
    let image = sized(&[(1, 2 << 20)]);
    let registry = filled(&image, Ways::default());
    let path = format!("/blobs/{}", image.layers[0].digest());
    for cut in [1000, 500_000, 70] {
        registry.once("GET", &path, Act::CutAnswer(cut));
    }
    let source = open(&registry, ":1", &ReadOptions::default()).unwrap();
    assert_eq!(read(&source).unwrap()[1].len() as u64, image.layers[0].size());
    let ranges = registry.seen("GET", &path);
    assert!(
        ranges.len() >= 3 && ranges[1].headers["range"].starts_with("bytes="),
        "{ranges:?}"
    );
    // A registry without ranges starts again, and what was read is skipped.
    registry.once("GET", &path, Act::CutAnswer(500_000));
    let ignore = |answer: &mut Answer| answer.status = 200;
    let whole = Answer::new(200).text(registry_blob(&registry, &sha256(&image.layers[0])));
    registry.once("GET", &path, Act::Reply(whole));
    registry.rule("GET", "/nothing", 0, 1, Act::Edit(Box::new(ignore)));
    assert!(read(&source).is_ok());
    // Another range than was asked for is not taken.
    registry.once("GET", &path, Act::CutAnswer(500_000));
    let other = Answer::new(206).with("Content-Range", "bytes 7-9/10").text("xyz");
    registry.once("GET", &path, Act::Reply(other));
    let error = text(&read(&source).unwrap_err());
    assert!(error.contains("other bytes than were asked for"), "{error}");
}

fn registry_blob(registry: &Faulty, digest: &Digest) -> Vec<u8> {
    lock(&registry.shared.store).blobs[&("app".to_owned(), *digest)].clone()
}

#[test]
fn what_is_not_its_digest_is_not_believed() {
    let image = sized(&[(1, 5000)]);
    let registry = filled(&image, Ways::default());
    let options = ReadOptions::default();
    let path = format!("/blobs/{}", image.layers[0].digest());
    let size = image.layers[0].size() as usize;
    for lie in [vec![b'x'; size], vec![b'x'; size + 1]] {
        registry.once("GET", &path, Act::Reply(Answer::new(200).text(lie)));
        let error = text(&read(&open(&registry, ":1", &options).unwrap()).unwrap_err());
        assert!(error.contains("expected"), "{error}");
    }
    registry.once("GET", &path, Act::Endless(Answer::new(200)));
    assert!(read(&open(&registry, ":1", &options).unwrap()).is_err());
    // Manifests: asked for by digest, and by tag with another digest in the header.
    let other = image_bytes("other");
    registry.rule(
        "GET",
        "/manifests/",
        0,
        1,
        Act::Reply(Answer::new(200).with("Content-Type", MediaType::MANIFEST).text(other)),
    );
    let error = open(&registry, &format!("@{}", image.digest()), &options)
        .err()
        .unwrap();
    assert!(matches!(error, TransportError::Registry(_)), "{error}");
    let lie = |answer: &mut Answer| answer.set("Docker-Content-Digest", Digest::of(b"lie").to_string());
    registry.once("GET", "/manifests/", Act::Edit(Box::new(lie)));
    assert!(open(&registry, ":1", &options).is_err());
    registry.once(
        "GET",
        "/manifests/",
        Act::Endless(Answer::new(200).with("Content-Type", MediaType::MANIFEST)),
    );
    let error = open(&registry, ":1", &options).err().unwrap();
    assert!(matches!(error, TransportError::TooLarge { .. }), "{error}");
}

fn image_bytes(mark: &str) -> Vec<u8> {
    format!("{{\"schemaVersion\":2,\"mark\":\"{mark}\"}}").into_bytes()
}

#[test]
fn a_download_in_which_no_byte_moves_is_taken_up_again() {
    let image = sized(&[(1, 5000)]);
    let registry = filled(&image, Ways::default());
    let path = format!("/blobs/{}", image.layers[0].digest());
    let bytes = registry_blob(&registry, &sha256(&image.layers[0]));
    registry.once(
        "GET",
        &path,
        Act::Drip(Answer::new(200).with("Content-Length", "6656").text(&bytes[..20])),
    );
    let source = open(&registry, ":1", &ReadOptions::default()).unwrap();
    assert_eq!(read(&source).unwrap()[1], bytes);
    assert_eq!(registry.seen("GET", &path)[1].headers["range"], "bytes=20-");
}

#[test]
fn row_33_a_slow_transfer_whose_bytes_move_is_left_alone() {
    let image = sized(&[(1, 5000)]);
    let registry = filled(&image, Ways::default());
    let path = format!("/blobs/{}", image.layers[0].digest());
    let bytes = registry_blob(&registry, &sha256(&image.layers[0]));
    // Longer as a whole than a rest between bytes may be.
    registry.once("GET", &path, Act::Drip(Answer::new(200).text(bytes.clone())));
    let source = open(&registry, ":1", &ReadOptions::default()).unwrap();
    let began = std::time::Instant::now();
    assert_eq!(read(&source).unwrap()[1], bytes);
    assert!(began.elapsed() > hasty().http.patience.idle);
    assert_eq!(registry.seen("GET", &path).len(), 1);
}

#[test]
fn row_08_a_blob_elsewhere_is_got_without_the_login() {
    let image = sized(&[(1, 5000)]);
    let registry = filled(
        &image,
        Ways {
            tokens: true,
            ..Ways::default()
        },
    );
    let storage = Faulty::start(Ways::default());
    let path = format!("/blobs/{}", image.layers[0].digest());
    let bytes = registry_blob(&registry, &sha256(&image.layers[0]));
    storage.rule("GET", "/bucket", 0, 9, Act::Reply(Answer::new(200).text(bytes.clone())));
    for status in [301, 302, 303, 307, 308] {
        let away = Answer::new(status).with("Location", format!("http://{}/bucket/x?sig=secret", storage.host));
        registry.once("GET", &path, Act::Reply(away));
        let source = open(&registry, ":1", &ReadOptions::default()).unwrap();
        assert_eq!(read(&source).unwrap()[1], bytes);
    }
    assert_eq!(storage.seen("GET", "/bucket/x?sig=secret").len(), 5);
    assert!(
        storage
            .log()
            .iter()
            .all(|seen| !seen.headers.contains_key("authorization"))
    );
    // What goes wrong there is told without the signature.
    registry.once(
        "GET",
        &path,
        Act::Reply(Answer::new(307).with("Location", format!("http://{}/gone?sig=secret", storage.host))),
    );
    storage.rule("GET", "/gone", 0, 9, Act::Reply(Answer::new(403).text("expired")));
    let error = open(&registry, ":1", &ReadOptions::default())
        .and_then(|source| read(&source))
        .unwrap_err();
    assert!(
        text(&error).contains("403") && !text(&error).contains("secret"),
        "{}",
        text(&error)
    );
}

#[test]
fn of_an_index_the_platform_is_chosen() {
    let (one, two) = (sized(&[(1, 100)]), sized(&[(2, 100)]));
    let registry = filled(&one, Ways::default());
    push(&RegistryConfig::default(), &format!("{}/app:2", registry.host), &two).unwrap();
    let entry = |image: &Image, architecture: &str| {
        serde_json::json!({ "mediaType": MediaType::MANIFEST, "digest": image.digest(), "size": image.manifest.size(),
            "platform": { "os": "linux", "architecture": architecture } })
    };
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": MediaType::INDEX,
        "manifests": [entry(&one, "amd64"), entry(&two, "arm64")] });
    registry.put_manifest("app", "both", index.to_string().as_bytes(), MediaType::INDEX);
    let options = |platform: Option<&str>| ReadOptions {
        platform: platform.map(|text| text.parse().unwrap()),
        ..ReadOptions::default()
    };
    let source = open(&registry, ":both", &options(Some("linux/arm64"))).unwrap();
    assert_eq!(source.manifest().unwrap().bytes(), two.manifest.bytes());
    assert_eq!(source.index().unwrap().bytes(), index.to_string().as_bytes());
    let error = open(&registry, ":both", &options(None)).err().unwrap();
    assert!(
        error
            .help()
            .unwrap()
            .contains("`--platform linux/amd64`, `--platform linux/arm64`")
    );
    let registry = Faulty::start(Ways::default());
    registry.put_manifest(
        "app",
        "odd",
        b"{\"schemaVersion\":1}",
        "application/vnd.docker.distribution.manifest.v1+json",
    );
    assert!(matches!(
        open(&registry, ":odd", &options(None)).err().unwrap(),
        TransportError::Document { .. }
    ));
}
