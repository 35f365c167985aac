//! The OCI distribution specification's conformance list, pull and content discovery: a test for each item, named as the item
//! is. (Its items about what was pushed before are about what the registry makes here.)

use super::*;

const ABSENT: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const TAKES_MANIFESTS: &str = "Accept: application/vnd.oci.image.manifest.v1+json";

/// A registry that was pulled from, and the image.
fn pulled() -> (Running, Image) {
    let running = Running::plain();
    running.get("/v2/app/manifests/latest", &[TAKES_MANIFESTS]).is(200);
    let image = running.shop.images_of("app").unwrap().remove(0);
    (running, image)
}

fn tags(reply: &Reply) -> Vec<String> {
    let listed = reply.json();
    let tags = listed["tags"].as_array().unwrap().iter();
    tags.map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

#[test]
fn base_get_to_v2_yields_200() {
    let running = Running::plain();
    for path in ["/v2/", "/v2"] {
        let reply = running.get(path, &[]).is(200);
        assert_eq!(reply.header("docker-distribution-api-version"), "registry/2.0");
    }
}

#[test]
fn pull_head_of_a_nonexistent_blob_yields_404() {
    let (running, _) = pulled();
    let reply = running.head(&format!("/v2/app/blobs/{ABSENT}"), &[]).is(404);
    assert!(reply.body.is_empty());
}

#[test]
fn pull_head_of_an_existing_blob_yields_200() {
    let (running, image) = pulled();
    let blobs = [(image.config.digest(), image.config.size())];
    let layers = image.layers.iter().map(|layer| (layer.digest(), layer.size()));
    for (digest, size) in layers.chain(blobs) {
        let reply = running.head(&format!("/v2/app/blobs/{digest}"), &[]).is(200);
        assert_eq!(reply.header("docker-content-digest"), digest.to_string());
        assert_eq!(reply.header("content-length"), size.to_string());
        assert!(reply.body.is_empty());
    }
}

#[test]
fn pull_get_of_a_nonexistent_blob_yields_404() {
    let (running, _) = pulled();
    let reply = running.get(&format!("/v2/app/blobs/{ABSENT}"), &[]).is(404);
    assert_eq!(reply.code(), "BLOB_UNKNOWN");
}

#[test]
fn pull_get_of_an_existing_blob_yields_200() {
    let (running, image) = pulled();
    let config = running
        .get(&format!("/v2/app/blobs/{}", image.config.digest()), &[])
        .is(200);
    assert_eq!(config.body, image.config.bytes());
    for layer in &image.layers {
        let reply = running.get(&format!("/v2/app/blobs/{}", layer.digest()), &[]).is(200);
        assert_eq!(layer.digest(), Digest::of(&reply.body));
        assert_eq!(reply.header("content-length"), layer.size().to_string());
        assert_eq!(reply.header("docker-content-digest"), layer.digest().to_string());
    }
}

#[test]
fn pull_head_of_a_nonexistent_manifest_yields_404() {
    let running = Running::plain();
    for reference in [".INVALID_MANIFEST_NAME", "absent", ABSENT] {
        let reply = running.head(&format!("/v2/app/manifests/{reference}"), &[]).is(404);
        assert!(reply.body.is_empty());
    }
}

#[test]
fn pull_head_of_a_manifest_by_digest_yields_200() {
    let (running, image) = pulled();
    let path = format!("/v2/app/manifests/{}", image.digest());
    let reply = running.head(&path, &[TAKES_MANIFESTS]).is(200);
    assert_eq!(reply.header("docker-content-digest"), image.digest().to_string());
    assert_eq!(reply.header("content-length"), image.manifest.size().to_string());
    assert_eq!(reply.header("content-type"), MediaType::MANIFEST);
    assert!(reply.body.is_empty());
}

#[test]
fn pull_head_of_a_manifest_by_tag_yields_200() {
    let running = Running::plain();
    let reply = running.head("/v2/app/manifests/1.0", &[TAKES_MANIFESTS]).is(200);
    let image = sample("app");
    assert_eq!(reply.header("docker-content-digest"), image.digest().to_string());
    assert_eq!(reply.header("content-length"), image.manifest.size().to_string());
    assert!(reply.body.is_empty());
}

#[test]
fn pull_get_of_a_nonexistent_manifest_yields_404() {
    let running = Running::plain();
    for reference in [".INVALID_MANIFEST_NAME", "absent", ABSENT] {
        let reply = running.get(&format!("/v2/app/manifests/{reference}"), &[]).is(404);
        assert_eq!(reply.code(), "MANIFEST_UNKNOWN");
    }
    assert_eq!(
        running.get("/v2/absent/manifests/latest", &[]).is(404).code(),
        "NAME_UNKNOWN"
    );
}

#[test]
fn pull_get_of_a_manifest_by_digest_yields_200() {
    // Also one that nobody has asked for by a tag.
    let running = Running::plain();
    let image = sample("app");
    let path = format!("/v2/app/manifests/{}", image.digest());
    let reply = running.get(&path, &[TAKES_MANIFESTS]).is(200);
    assert_eq!(reply.body, image.manifest.bytes());
    assert_eq!(reply.header("docker-content-digest"), image.digest().to_string());
}

#[test]
fn pull_get_of_a_manifest_by_tag_yields_200() {
    let running = Running::plain();
    let reply = running.get("/v2/app/manifests/latest", &[TAKES_MANIFESTS]).is(200);
    let image = sample("app");
    assert_eq!(reply.body, image.manifest.bytes());
    assert_eq!(reply.header("content-type"), MediaType::MANIFEST);
    assert_eq!(reply.header("docker-content-digest"), image.digest().to_string());
}

#[test]
fn errors_400_has_a_body_of_the_specification_s_form() {
    let running = Running::plain();
    let reply = running
        .ask("PUT", "/v2/app/manifests/sha256:totallywrong", &["Content-Length: 0"])
        .is(400);
    assert_eq!(reply.code(), "DIGEST_INVALID");
    assert_eq!(
        running.get("/v2/App/manifests/latest", &[]).is(400).code(),
        "NAME_INVALID"
    );
    assert_eq!(
        running.get("/v2/app/blobs/sha256:x", &[]).is(400).code(),
        "DIGEST_INVALID"
    );
}

#[test]
fn discovery_get_of_the_list_of_tags_yields_200() {
    let running = Running::plain();
    let reply = running.get("/v2/app/tags/list", &[]).is(200);
    assert_eq!(reply.json()["name"], "app");
    assert_eq!(tags(&reply), ["1.0", "a", "B", "latest"]);
    assert_eq!(reply.header("link"), "");
    assert_eq!(running.get("/v2/absent/tags/list", &[]).is(404).code(), "NAME_UNKNOWN");
    assert_eq!(running.shop.begun(), 0, "a list makes no image");
}

#[test]
fn discovery_tags_are_limited_by_n() {
    let running = Running::plain();
    let reply = running.get("/v2/app/tags/list?n=2", &[]).is(200);
    assert_eq!(tags(&reply), ["1.0", "a"]);
    assert_eq!(reply.header("link"), "</v2/app/tags/list?n=2&last=a>; rel=\"next\"");
    let reply = running.get("/v2/app/tags/list?n=0", &[]).is(200);
    assert_eq!((tags(&reply).len(), reply.header("link")), (0, ""));
}

#[test]
fn discovery_tags_begin_after_last() {
    let running = Running::plain();
    let mut path = "/v2/app/tags/list?n=3".to_owned();
    let mut all = Vec::new();
    while !path.is_empty() {
        let reply = running.get(&path, &[]).is(200);
        all.extend(tags(&reply));
        let link = reply.header("link").split(['<', '>']).nth(1);
        path = link.unwrap_or_default().to_owned();
    }
    assert_eq!(all, ["1.0", "a", "B", "latest"]);
    assert_eq!(tags(&running.get("/v2/app/tags/list?n=3&last=a", &[])), ["B", "latest"]);
}

fn referrers(running: &Running, digest: impl std::fmt::Display, query: &str) -> Reply {
    let reply = running.get(&format!("/v2/app/referrers/{digest}{query}"), &[]).is(200);
    assert_eq!(reply.header("content-type"), MediaType::INDEX);
    assert_eq!(reply.json()["schemaVersion"], 2);
    assert_eq!(reply.json()["mediaType"], MediaType::INDEX);
    reply
}

#[test]
fn discovery_referrers_of_a_nonexistent_digest_yield_an_empty_200() {
    let running = Running::plain();
    let reply = referrers(&running, ABSENT, "");
    assert_eq!(reply.json()["manifests"], serde_json::json!([]));
}

#[test]
fn discovery_referrers_of_an_existing_manifest_yield_200() {
    // Also where the image is not yet made.
    let running = Running::plain();
    let image = sample("app");
    let reply = referrers(&running, image.digest(), "");
    let listed = reply.json();
    let listed = listed["manifests"].as_array().unwrap();
    assert_eq!(listed.len(), 3);
    assert_eq!(reply.header("oci-filters-applied"), "");
    for descriptor in listed {
        assert_eq!(descriptor["annotations"]["kind"], descriptor["artifactType"]);
        let digest = descriptor["digest"].as_str().unwrap();
        let manifest = running
            .get(&format!("/v2/app/manifests/{digest}"), &[TAKES_MANIFESTS])
            .is(200);
        assert_eq!(manifest.body.len() as u64, descriptor["size"].as_u64().unwrap());
        let manifest = manifest.json();
        assert_eq!(manifest["subject"]["digest"], image.digest().to_string());
        for blob in [&manifest["config"], &manifest["layers"][0]] {
            let digest = blob["digest"].as_str().unwrap();
            let blob = running.get(&format!("/v2/app/blobs/{digest}"), &[]).is(200);
            assert_eq!(Digest::of(&blob.body).to_string(), digest);
        }
    }
}

#[test]
fn discovery_referrers_are_filtered_by_artifact_type() {
    let (running, image) = pulled();
    for (kind, count) in [("text/one", 1), ("text/one%2Bmore", 1), ("text/three", 0)] {
        let reply = referrers(&running, image.digest(), &format!("?artifactType={kind}"));
        assert_eq!(reply.header("oci-filters-applied"), "artifactType");
        assert_eq!(reply.json()["manifests"].as_array().unwrap().len(), count, "{kind}");
    }
}

#[test]
fn discovery_referrers_of_a_missing_manifest_yield_200() {
    // Of a blob, of a document that refers itself, and of an image that another took the place of.
    let (running, image) = pulled();
    let listed = referrers(&running, image.digest(), "").json();
    let document = listed["manifests"][0]["digest"].as_str().unwrap().to_owned();
    for digest in [image.config.digest().to_string(), document] {
        assert_eq!(
            referrers(&running, digest, "").json()["manifests"],
            serde_json::json!([])
        );
    }
    running.shop.put("app", Ok(sample("newer")));
    running.get("/v2/app/manifests/latest", &[]).is(200);
    let newer = sample("newer").digest();
    assert_eq!(
        referrers(&running, newer, "").json()["manifests"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(
        running.get("/v2/absent/referrers/sha256:x", &[]).is(400).code(),
        "DIGEST_INVALID"
    );
    let reply = running.get(&format!("/v2/absent/referrers/{ABSENT}"), &[]).is(404);
    assert_eq!(reply.code(), "NAME_UNKNOWN");
}

#[test]
fn discovery_catalog_lists_repositories() {
    let running = Running::plain();
    let reply = running.get("/v2/_catalog", &[]).is(200);
    assert_eq!(
        reply.json(),
        serde_json::json!({ "repositories": ["app", "team/other"] })
    );
    let reply = running.get("/v2/_catalog?n=1", &[]).is(200);
    assert_eq!(reply.json(), serde_json::json!({ "repositories": ["app"] }));
    assert_eq!(reply.header("link"), "</v2/_catalog?n=1&last=app>; rel=\"next\"");
    let reply = running.get("/v2/_catalog?n=x", &[]).is(400);
    assert_eq!(reply.code(), "PAGINATION_NUMBER_INVALID");
}

/// What the specification has for registries that take something in.
#[test]
fn push_and_delete_are_unsupported() {
    let (running, image) = pulled();
    let digest = image.digest();
    for (method, path) in [
        ("POST", "/v2/app/blobs/uploads/".to_owned()),
        ("POST", format!("/v2/app/blobs/uploads/?mount={digest}&from=other")),
        ("PUT", format!("/v2/app/blobs/uploads/x?digest={digest}")),
        ("PATCH", "/v2/app/blobs/uploads/x".to_owned()),
        ("GET", "/v2/app/blobs/uploads/x".to_owned()),
        ("PUT", "/v2/app/manifests/latest".to_owned()),
        ("DELETE", format!("/v2/app/manifests/{digest}")),
        ("DELETE", "/v2/app/manifests/latest".to_owned()),
        ("DELETE", format!("/v2/app/blobs/{digest}")),
        ("OPTIONS", "/v2/".to_owned()),
    ] {
        let reply = running.ask(method, &path, &["Content-Length: 0"]).is(405);
        assert_eq!(reply.code(), "UNSUPPORTED", "{method} {path}");
        assert_eq!(reply.header("allow"), "GET, HEAD");
    }
}
