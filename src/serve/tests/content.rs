//! What is answered of images: parts, versions, damage, failures.

use std::fs;

use super::*;
use crate::digest::ContentDigest;
use crate::event::Silent;
use crate::layer::{Blob, LayerCache, LayerContent, LayerInput, PackOptions, pack};
use crate::oci::Descriptor;
use crate::transport::testing::{config, image_of, layer};

#[test]
fn parts_of_a_blob_are_given_by_range() {
    let running = Running::plain();
    running.get("/v2/app/manifests/latest", &[]).is(200);
    let image = sample("app");
    let mut whole = Vec::new();
    image.layers[1].open().read_to_end(&mut whole).unwrap();
    let (size, digest) = (whole.len(), image.layers[1].digest());
    let path = format!("/v2/app/blobs/{digest}");
    for (range, at, len) in [
        ("bytes=0-0", 0, 1),
        ("bytes=5-", 5, size - 5),
        ("bytes=70000-200000", 70_000, 130_001),
        ("bytes=-3", size - 3, 3),
    ] {
        let reply = running.get(&path, &[&format!("Range: {range}")]).is(206);
        assert!(reply.body == whole[at..at + len], "{range}");
        let expected = format!("bytes {at}-{}/{size}", at + len - 1);
        assert_eq!(reply.header("content-range"), expected);
        assert_eq!(reply.header("content-length"), len.to_string());
        assert_eq!(reply.header("docker-content-digest"), digest.to_string());
    }
    let reply = running.get(&path, &[&format!("Range: bytes={size}-")]).is(416);
    assert_eq!(reply.header("content-range"), format!("bytes */{size}"));
    let config = format!("/v2/app/blobs/{}", image.config.digest());
    let reply = running.get(&config, &["Range: bytes=1-3"]).is(206);
    assert_eq!(reply.body, image.config.bytes()[1..4]);
    let reply = running.head(&path, &["Range: bytes=1-3"]).is(200);
    assert_eq!(reply.header("accept-ranges"), "bytes");
    assert_eq!(running.get(&path, &["Range: bytes=1-2,5-6"]).is(200).body.len(), size);
}

#[test]
fn what_a_client_has_is_not_sent_again() {
    let running = Running::plain();
    let first = running.get("/v2/app/manifests/latest", &[]).is(200);
    let tag = format!("If-None-Match: {}", first.header("etag"));
    let digest = sample("app").layers[0].digest();
    let same = running.get("/v2/app/manifests/latest", &[&tag]).is(304);
    assert!(same.body.is_empty());
    running.get("/v2/team/other/manifests/latest", &[&tag]).is(200);
    let blob = format!("/v2/app/blobs/{digest}");
    running.get(&blob, &[&format!("If-None-Match: \"{digest}\"")]).is(304);
    running.shop.put("app", Ok(sample("newer")));
    running.get("/v2/app/manifests/latest", &[&tag]).is(200);
}

#[test]
fn a_client_that_takes_no_oci_manifest_is_told_so() {
    let running = Running::plain();
    let old = "Accept: application/vnd.docker.distribution.manifest.v2+json";
    let reply = running.get("/v2/app/manifests/latest", &[old]).is(406);
    assert!(
        reply.json()["errors"][0]["message"]
            .as_str()
            .unwrap()
            .contains(MediaType::MANIFEST)
    );
    running.get("/v2/app/manifests/latest", &[old, "Accept: */*"]).is(200);
}

#[test]
fn an_edit_is_seen_at_the_next_pull_and_what_was_before_is_still_there() {
    let running = Running::plain();
    let digest = |running: &Running| {
        running
            .head("/v2/app/manifests/latest", &[])
            .is(200)
            .header("etag")
            .to_owned()
    };
    let (before, old) = (digest(&running), sample("app"));
    running.shop.put("app", Ok(sample("newer")));
    assert_ne!(digest(&running), before);
    for image in [&old, &sample("newer")] {
        running
            .get(&format!("/v2/app/manifests/{}", image.digest()), &[])
            .is(200);
        running
            .get(&format!("/v2/app/blobs/{}", image.layers[0].digest()), &[])
            .is(200);
    }
    // Blobs belong to repositories.
    running.get("/v2/team/other/manifests/latest", &[]).is(200);
    running
        .get(&format!("/v2/team/other/blobs/{}", old.layers[0].digest()), &[])
        .is(404);
    running
        .get(&format!("/v2/team/other/manifests/{}", old.digest()), &[])
        .is(404);
    // A name that is gone is gone.
    running.shop.names.lock().unwrap().retain(|name| name.tag != "latest");
    let reply = running.get("/v2/app/manifests/latest", &[]).is(404);
    assert!(
        reply.json()["errors"][0]["message"]
            .as_str()
            .unwrap()
            .contains("there are 1.0, a, B")
    );
}

#[test]
fn a_restarted_registry_has_the_blobs_of_what_is_made_of_the_spec_now() {
    let running = Running::plain();
    let image = sample("app");
    running
        .get(&format!("/v2/app/blobs/{}", image.config.digest()), &[])
        .is(200);
    running
        .get(&format!("/v2/app/blobs/{}", image.layers[1].digest()), &[])
        .is(200);
    assert_eq!(running.shop.begun(), 1);
    // What is nowhere is not looked for again and again.
    let absent = Digest::of(b"absent");
    running.head(&format!("/v2/app/blobs/{absent}"), &[]).is(404);
    assert_eq!(running.shop.begun(), 1);
}

#[test]
fn a_build_that_fails_is_told_in_the_body_and_in_the_first_line() {
    let running = Running::plain();
    let text = "package `app` failed with status 2\ncaused by: größe\nhelp: mend it".to_owned();
    running.shop.put("app", Err(Failure { text: text.clone() }));
    let reply = running.get("/v2/app/manifests/latest", &[]).is(422);
    assert_eq!(reply.code(), "BUILD_FAILED");
    assert_eq!(reply.json()["errors"][0]["message"], text);
    assert_eq!(reply.reason, "Unprocessable Entity: package `app` failed with status 2");
    let head = running.head("/v2/app/manifests/latest", &[]).is(422);
    assert_eq!(head.reason, reply.reason);
    running.get(&format!("/v2/app/blobs/{}", Digest::of(b"")), &[]).is(422);
    // Others are served, and so is this one when it is mended.
    running.get("/v2/team/other/manifests/latest", &[]).is(200);
    running.shop.put("app", Ok(sample("app")));
    running.get("/v2/app/manifests/latest", &[]).is(200);
    // No text breaks the answer.
    let hostile = "a\r\nX-Injected: 1\x1b[2J\u{202e}".to_owned() + &"ä".repeat(5000);
    running.shop.put("app", Err(Failure { text: hostile }));
    let reply = running.get("/v2/app/manifests/latest", &[]).is(422);
    assert_eq!(reply.header("x-injected"), "");
    assert!(reply.reason.len() <= 240, "{}", reply.reason);
}

/// An image of one layer of two files, packed into a cache.
fn cached(dir: &std::path::Path) -> Image {
    let cache = LayerCache::open(&dir.join("cache")).unwrap();
    let entry = crate::layer::testing::sample(dir, "path", 300_000);
    let input = LayerInput {
        content: LayerContent::StorePaths(vec![entry]),
        comment: "test".to_owned(),
    };
    let options = PackOptions {
        cache: Some(&cache),
        ..PackOptions::default()
    };
    let packed = pack(&[input], &options, &Silent).unwrap().remove(0);
    let layer = crate::image::ImageLayer {
        descriptor: Descriptor::new(Compression::default().media_type(), packed.digest, packed.size),
        diff_id: Some(packed.diff_id),
        content: packed.blob,
    };
    let diff_id = layer.diff_id.unwrap();
    image_of(vec![layer], &config(&[diff_id]), None)
}

/// The files of a cache's pieces.
fn pieces(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let files = walkdir::WalkDir::new(dir.join("cache/pieces"))
        .into_iter()
        .map(Result::unwrap);
    let files: Vec<_> = files
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.into_path())
        .collect();
    assert!(!files.is_empty());
    files
}

#[test]
fn a_damaged_cache_gives_nothing_wrong_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::plain();
    let image = cached(dir.path());
    running.shop.put("app", Ok(image.clone()));
    let path = format!("/v2/app/blobs/{}", image.layers[0].digest());
    let sound = running.get(&path, &[]).is(200).body;
    assert_eq!(image.layers[0].digest(), Digest::of(&sound));

    // What is gone is made anew before anything is said.
    pieces(dir.path())
        .iter()
        .for_each(|file| fs::remove_file(file).unwrap());
    assert!(running.get(&path, &[]).is(200).body == sound);

    // What is damaged in the middle is noticed at the end: the answer is too short, and the next one is right.
    for file in pieces(dir.path()) {
        let mut bytes = fs::read(&file).unwrap();
        bytes[100_000] ^= 1;
        fs::write(&file, bytes).unwrap();
    }
    let cut = running.get(&path, &[]).is(200);
    assert!(cut.body.len() < sound.len(), "a damaged layer is given whole");
    assert!(running.get(&path, &[]).is(200).body == sound);
}

#[test]
fn what_is_not_there_is_told_and_does_not_end_the_registry() {
    let running = Running::plain();
    let mut image = sample("app");
    let len = image.layers[1].size();
    image.layers[1].content = Blob::File {
        path: "/nonexistent/layer".into(),
        offset: 0,
        len,
    };
    running.shop.put("app", Ok(image.clone()));
    let path = format!("/v2/app/blobs/{}", image.layers[1].digest());
    let reply = running.get(&path, &[]).is(500);
    assert!(
        reply.json()["errors"][0]["message"]
            .as_str()
            .unwrap()
            .contains("/nonexistent/layer")
    );
    image.layers[1].content = Blob::Absent { len };
    running.shop.put("app", Ok(image));
    assert_eq!(running.get(&path, &[]).is(404).code(), "BLOB_UNKNOWN");
}

#[test]
fn who_has_no_token_is_shown_the_door() {
    let running = Running::start(|options| options.token = Some(Token::parse("0123456789abcdef").unwrap()));
    for path in [
        "/v2/",
        "/v2/app/manifests/latest",
        "/v2/_catalog",
        "/v2/absent/tags/list",
        "/",
    ] {
        let reply = running.get(path, &[]).is(401);
        assert_eq!(reply.code(), "UNAUTHORIZED");
        assert_eq!(reply.header("www-authenticate"), "Basic realm=\"layerize\"");
        running.get(path, &["Authorization: Bearer 0123456789abcdeF"]).is(401);
    }
    assert_eq!(running.shop.begun(), 0, "a stranger has nothing made");
    running.get("/v2/", &["Authorization: Bearer 0123456789abcdef"]).is(200);
    // `x:0123456789abcdef`
    let basic = "Authorization: Basic eDowMTIzNDU2Nzg5YWJjZGVm";
    running.get("/v2/app/manifests/latest", &[basic]).is(200);
}

/// An index is pulled as one, and each image of it as if it were alone: manifests, configs, layers and what is said of it.
#[test]
fn an_index_is_served_with_all_that_it_lists() {
    const TAKES_INDEXES: &str = "Accept: application/vnd.oci.image.index.v1+json";
    let running = Running::plain();
    let image_for = |architecture: &str| {
        let layer = layer(&tar(&[Node::file("mark", architecture)]), Compression::default());
        let mut config = config(&[layer.diff_id.unwrap()]);
        config["architecture"] = architecture.into();
        image_of(vec![layer], &config, None)
    };
    let index = ImageIndex::new(vec![image_for("arm64"), image_for("amd64")], BTreeMap::new()).unwrap();
    running.shop.put_index("app", index.clone());
    let reply = running.get("/v2/app/manifests/latest", &[TAKES_INDEXES]).is(200);
    assert_eq!(reply.header("content-type"), MediaType::INDEX);
    assert_eq!(reply.header("docker-content-digest"), index.digest().to_string());
    assert_eq!(reply.body, index.document.bytes());
    let by_digest = running
        .get(&format!("/v2/app/manifests/{}", index.digest()), &[])
        .is(200);
    assert_eq!(by_digest.body, reply.body);
    for image in index.images() {
        let manifest = running
            .get(&format!("/v2/app/manifests/{}", image.digest()), &[])
            .is(200);
        assert_eq!(manifest.body, image.manifest.bytes());
        assert_eq!(manifest.header("content-type"), image.manifest.media_type());
        let config = running
            .get(&format!("/v2/app/blobs/{}", image.config.digest()), &[])
            .is(200);
        assert_eq!(config.body, image.config.bytes());
        for layer in &image.layers {
            let blob = running.get(&format!("/v2/app/blobs/{}", layer.digest()), &[]).is(200);
            assert_eq!(blob.body.len() as u64, layer.size());
            assert_eq!(ContentDigest::from(Digest::of(&blob.body)), layer.digest());
        }
        let said = running
            .get(&format!("/v2/app/referrers/{}", image.digest()), &[])
            .is(200);
        assert_eq!(said.json()["manifests"].as_array().unwrap().len(), 3);
        let document = said.json()["manifests"][0]["digest"].as_str().unwrap().to_owned();
        let document = running.get(&format!("/v2/app/manifests/{document}"), &[]).is(200);
        assert_eq!(document.json()["subject"]["digest"], image.digest().to_string());
    }
    // Nothing is said of all of them together.
    let said = running
        .get(&format!("/v2/app/referrers/{}", index.digest()), &[])
        .is(200);
    assert!(said.json()["manifests"].as_array().unwrap().is_empty());
    // Who takes images alone is told what it is.
    let refused = running.get(
        "/v2/app/manifests/latest",
        &["Accept: application/vnd.oci.image.manifest.v1+json"],
    );
    assert!(
        refused.status >= 400 && refused.reason.contains("index"),
        "{}",
        refused.reason
    );
}
