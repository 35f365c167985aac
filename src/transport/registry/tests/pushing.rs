//! Existence, mounts and manifests: rows 10 to 16 and 26 to 30 of the checklist.

use super::super::{IndexDocument, RegistryError, push as push_api};
use super::faulty::{Act, Answer, Faulty, Ways};
use super::*;
use crate::digest::Digest;
use crate::event::Silent;
use crate::oci::MediaType;

#[test]
fn row_10_what_a_registry_says_is_bounded() {
    for answer in [Answer::new(400), Answer::new(200), Answer::new(404)] {
        let registry = Faulty::start(Ways::default());
        registry.rule("PUT", "/manifests/", 0, 99, Act::Endless(answer.clone()));
        registry.rule("POST", "/blobs/", 0, 99, Act::Endless(answer));
        let _ = to(&registry, &small());
    }
    let registry = Faulty::start(Ways {
        tokens: true,
        ..Ways::default()
    });
    registry.rule("GET", "/token", 0, 99, Act::Endless(Answer::new(200)));
    let error = to(&registry, &small()).unwrap_err();
    assert!(
        text(&error).contains("its token is longer than 65536 bytes"),
        "{}",
        text(&error)
    );
    let registry = Faulty::start(Ways::default());
    let long = Answer::error(400, "MANIFEST_INVALID", &format!("{}\u{1b}[31m", "x".repeat(10_000)));
    registry.rule("PUT", "/manifests/", 0, 99, Act::Reply(long));
    let error = text(&to(&registry, &small()).unwrap_err());
    assert!(
        error.len() < 1000 && error.contains("400 Bad Request: MANIFEST_INVALID (xxx"),
        "{error}"
    );
    let registry = Faulty::start(Ways::default());
    registry.rule(
        "HEAD",
        "/manifests/",
        0,
        99,
        Act::Reply(Answer::new(302).with("Location", "?again")),
    );
    let error = text(&to(&registry, &small()).unwrap_err());
    assert!(error.contains("redirects more than 10 times"), "{error}");
}

#[test]
fn row_11_what_is_there_is_asked_for_first_and_not_sent() {
    let registry = Faulty::start(Ways::default());
    let image = small();
    to(&registry, &image).unwrap();
    let first = &registry.log()[0];
    assert_eq!(
        (first.method.as_str(), first.path.clone()),
        ("HEAD", format!("/v2/app/manifests/{}", image.digest()))
    );
    let before = registry.log().len();
    to(&registry, &image).unwrap();
    assert_eq!(registry.log().len() - before, 2);
    // An old registry that names no digest is asked for the bytes.
    registry.rule(
        "*",
        "/manifests/",
        0,
        99,
        Act::Edit(Box::new(|answer| answer.remove("Docker-Content-Digest"))),
    );
    let summary = to(&registry, &image).unwrap();
    assert_eq!((summary.bytes_sent, summary.blobs_skipped), (0, 3));
}

#[test]
fn row_12_a_tag_that_must_not_move_does_not() {
    let registry = Faulty::start(Ways::default());
    let options = PushOptions {
        immutable_tags: true,
        ..PushOptions::default()
    };
    let name = format!("{}/app:1", registry.host);
    let config = RegistryConfig::default();
    let image = small();
    push_with(&config, &name, &image, &options).unwrap();
    push_with(&config, &name, &image, &options).unwrap();
    let before = registry.arrived();
    let other = sized(&[(3, 100)]);
    let error = push_with(&config, &name, &other, &options).unwrap_err();
    let expected = format!(
        "the tag `{name}` exists and names `{}`, not `{}`",
        image.digest(),
        other.digest()
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(registry.arrived(), before, "nothing was sent for nothing");
    // A registry whose own tags do not move refuses the same image again: it is not asked to.
    registry.rule(
        "PUT",
        "/manifests/",
        0,
        99,
        Act::Reply(Answer::error(400, "TAG_INVALID", "immutable")),
    );
    push(&config, &name, &image).unwrap();
}

#[test]
fn row_13_a_refusal_without_words_is_asked_for_them() {
    let registry = Faulty::start(Ways::default());
    let denied = Answer::error(403, "DENIED", "this repository is closed");
    registry.rule("*", "/manifests/", 0, 99, Act::Reply(denied));
    let error = to(&registry, &small()).unwrap_err();
    assert!(
        text(&error).ends_with("403 Forbidden: DENIED (this repository is closed)"),
        "{}",
        text(&error)
    );
    // A registry that cannot tell whether it has a blob gets the blob.
    for status in [405, 500, 501] {
        let registry = Faulty::start(Ways::default());
        registry.rule("HEAD", "/blobs/", 0, 99, Act::Reply(Answer::new(status)));
        let summary = to(&registry, &small()).unwrap();
        assert_eq!(summary.blobs_sent, 3);
    }
    // And so does one that says another size.
    let registry = Faulty::start(Ways::default());
    registry.rule(
        "HEAD",
        "/blobs/",
        0,
        99,
        Act::Reply(Answer::new(200).with("Content-Length", "5")),
    );
    assert_eq!(to(&registry, &small()).unwrap().blobs_sent, 3);
}

#[test]
fn row_14_mounts_that_are_made_refused_or_answered_with_a_session() {
    let image = small();
    let options = PushOptions {
        mount_from: vec!["app".to_owned()],
        ..PushOptions::default()
    };
    for (mount, mounted) in [
        (None, 3),
        (Some(202), 0),
        (Some(405), 0),
        (Some(400), 0),
        (Some(500), 0),
    ] {
        let registry = Faulty::start(Ways {
            mount,
            ..Ways::default()
        });
        to(&registry, &image).unwrap();
        let (before, posts) = (registry.arrived(), registry.seen("POST", "").len());
        let name = format!("{}/other:1", registry.host);
        let summary = push_with(&RegistryConfig::default(), &name, &image, &options).unwrap();
        assert_eq!(summary.blobs_mounted, mounted, "{mount:?}");
        assert_eq!(registry.manifest("other", "1").unwrap(), image.manifest.bytes());
        let posts = registry.seen("POST", "").len() - posts;
        match mount {
            None => assert_eq!((registry.arrived() - before, posts), (0, 3)),
            // The session that was opened is the one that is used.
            Some(202) => assert_eq!(posts, 3),
            Some(_) => assert_eq!(posts, 6),
        }
        let from = registry.seen("POST", "mount=");
        assert!(
            from.iter().all(|seen| seen.path.ends_with("&from=app")),
            "never without its source"
        );
    }
}

#[test]
fn row_15_blobs_that_the_registry_lost_sight_of_are_brought_again() {
    let registry = Faulty::start(Ways::default());
    let lose = |shared: &super::faulty::Shared| lock(&shared.store).blobs.retain(|_, bytes| bytes.len() > 2000);
    registry.once("PUT", "/manifests/", Act::First(Box::new(lose)));
    let image = small();
    to(&registry, &image).unwrap();
    assert_eq!(registry.manifest("app", "1").unwrap(), image.manifest.bytes());
    assert_eq!(registry.seen("PUT", "/manifests/").len(), 2);
    let registry = Faulty::start(Ways::default());
    // Lost although the tag's manifest names them.
    to(&registry, &image).unwrap();
    lock(&registry.shared.store).blobs.clear();
    let next = sized(&[(1, 1000), (4, 100)]);
    to(&registry, &next).unwrap();
    assert_eq!(registry.manifest("app", "1").unwrap(), next.manifest.bytes());
    let registry = Faulty::start(Ways::default());
    let never = Answer::error(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry");
    registry.rule("PUT", "/manifests/", 0, 99, Act::Reply(never));
    let error = text(&to(&registry, &image).unwrap_err());
    assert!(error.contains("MANIFEST_BLOB_UNKNOWN"), "{error}");
    assert_eq!(registry.seen("PUT", "/manifests/").len(), 2);
}

/// An index of these images.
fn index(images: &[&Image]) -> Vec<u8> {
    let manifests: Vec<_> = images
        .iter()
        .map(|image| {
            serde_json::json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image.digest(),
                "size": image.manifest.size() })
        })
        .collect();
    serde_json::json!({ "schemaVersion": 2, "mediaType": MediaType::INDEX, "manifests": manifests })
        .to_string()
        .into_bytes()
}

#[test]
fn row_16_blobs_come_before_manifests_and_the_index_last() {
    let registry = Faulty::start(Ways::default());
    let (one, two) = (small(), sized(&[(1, 1000), (3, 3000)]));
    let bytes = index(&[&one, &two]);
    let target: Reference = format!("{}/app:1", registry.host).parse().unwrap();
    let document = IndexDocument {
        bytes: &bytes,
        media_type: MediaType::INDEX,
    };
    let options = PushOptions::default();
    let config = RegistryConfig::default();
    let tags = ["latest".to_owned()];
    let summary = push_api(&config, &target, &[&one, &two], &[document], &tags, &options, &Silent).unwrap();
    assert_eq!(summary.digest, Some(Digest::of(&bytes)));
    assert_eq!(
        summary.references,
        [
            format!("{}/app:1", registry.host),
            format!("{}/app:latest", registry.host)
        ]
    );
    // Five blobs in all: the lower layer is shared (row 30).
    assert_eq!((summary.blobs_sent, registry.seen("PUT", "/blobs/").len()), (5, 5));
    let puts: Vec<String> = registry.seen("PUT", "").iter().map(|seen| seen.path.clone()).collect();
    let kind = |path: &String| match path {
        path if path.contains("/blobs/") => 0,
        path if path.contains(&one.digest().to_string()) || path.contains(&two.digest().to_string()) => 1,
        _ => 2,
    };
    let kinds: Vec<i32> = puts.iter().map(kind).collect();
    assert!(kinds.is_sorted() && kinds.ends_with(&[1, 1, 2, 2, 2]), "{puts:?}");
    assert_eq!(registry.manifest("app", "latest").unwrap(), bytes);
}

#[test]
fn row_26_another_digest_for_what_was_sent_is_an_error() {
    for path in ["/manifests/", "/blobs/uploads/"] {
        let registry = Faulty::start(Ways::default());
        let lie = |answer: &mut Answer| answer.set("Docker-Content-Digest", Digest::of(b"lie").to_string());
        registry.rule("PUT", path, 0, 99, Act::Edit(Box::new(lie)));
        let error = to(&registry, &small()).unwrap_err();
        let TransportError::Registry(error) = error else {
            panic!("{error}")
        };
        assert!(matches!(*error, RegistryError::Differs { .. }), "{error}");
    }
}

#[test]
fn row_27_a_manifest_is_sent_as_it_was_hashed() {
    let registry = Faulty::start(Ways::default());
    let image = small();
    to(&registry, &image).unwrap();
    let put = &registry.seen("PUT", "/manifests/")[0];
    assert_eq!(put.text.as_bytes(), image.manifest.bytes());
    assert_eq!(
        put.headers["content-type"],
        "application/vnd.oci.image.manifest.v1+json"
    );
    let registry = Faulty::start(Ways::default());
    registry.rule("PUT", "/manifests/", 0, 99, Act::Reply(Answer::new(413)));
    let error = to(&registry, &image).unwrap_err();
    assert!(error.help().unwrap().contains("fewer layers or shorter annotations"));
}

#[test]
fn row_28_several_tags_go_at_once_where_the_registry_confirms_them() {
    let tags = ["2".to_owned(), "3".to_owned()];
    for (oci_tag, puts) in [(true, 1), (false, 4)] {
        let registry = Faulty::start(Ways {
            oci_tag,
            ..Ways::default()
        });
        let target: Reference = format!("{}/app:1", registry.host).parse().unwrap();
        let image = small();
        let options = PushOptions::default();
        push_api(
            &RegistryConfig::default(),
            &target,
            &[&image],
            &[],
            &tags,
            &options,
            &Silent,
        )
        .unwrap();
        assert_eq!(registry.seen("PUT", "/manifests/").len(), puts);
        for tag in ["1", "2", "3"] {
            assert_eq!(registry.manifest("app", tag).unwrap(), image.manifest.bytes());
        }
    }
    let registry = Faulty::start(Ways::default());
    registry.once("PUT", "?tag=", Act::Reply(Answer::new(414)));
    let target: Reference = format!("{}/app:1", registry.host).parse().unwrap();
    let options = PushOptions::default();
    push_api(
        &RegistryConfig::default(),
        &target,
        &[&small()],
        &[],
        &tags,
        &options,
        &Silent,
    )
    .unwrap();
}

#[test]
fn row_30_a_blob_goes_to_a_registry_once_whoever_pushes_it_where() {
    let registry = Faulty::start(Ways::default());
    let image = small();
    let options = PushOptions::default();
    let pusher = Pusher::tuned(&RegistryConfig::default(), &options, hasty(), &Silent).unwrap();
    std::thread::scope(|scope| {
        for tag in ["1", "2", "3", "4"] {
            let (pusher, image) = (&pusher, &image);
            let target: Reference = format!("{}/app:{tag}", registry.host).parse().unwrap();
            scope.spawn(move || pusher.push(&target, &[image], &[], &[]).unwrap());
        }
    });
    let target: Reference = format!("{}/other:1", registry.host).parse().unwrap();
    let summary = pusher.push(&target, &[&image], &[], &[]).unwrap();
    assert_eq!((summary.blobs_mounted, summary.blobs_sent), (3, 0));
    let total: u64 = image.layers.iter().map(|layer| layer.size()).sum::<u64>() + image.config.size();
    assert_eq!(registry.arrived() as u64, total);
}

#[test]
fn a_dry_run_asks_and_writes_nothing() {
    let registry = Faulty::start(Ways::default());
    let image = small();
    let options = PushOptions {
        dry_run: true,
        ..PushOptions::default()
    };
    let name = format!("{}/app:1", registry.host);
    let summary = push_with(&RegistryConfig::default(), &name, &image, &options).unwrap();
    assert!(
        registry
            .log()
            .iter()
            .all(|seen| matches!(seen.method.as_str(), "HEAD" | "GET"))
    );
    assert_eq!(summary.plan.len(), 4);
    assert_eq!(summary.plan[3].request, "PUT /v2/app/manifests/1");
    let bytes: u64 = summary.plan.iter().map(|planned| planned.bytes).sum();
    assert_eq!(bytes, summary.blob_bytes_sent + image.manifest.size());
    assert_eq!(to(&registry, &image).unwrap().bytes_sent, bytes, "the plan was right");
}
