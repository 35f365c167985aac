//! When a registry is slow, busy or down, and what it says beside: rows 31 to 38 of the checklist.

use std::sync::atomic::Ordering;
use std::time::Instant;

use serde_json::{Value, json};

use super::super::Remote;
use super::super::referrers::list;
use super::faulty::{Act, Answer, Faulty, Ways};
use super::*;
use crate::digest::Digest;
use crate::event::Silent;
use crate::oci::MediaType;
use crate::transport::Referrers;
use crate::transport::testing::sha256;

#[test]
fn row_31_a_failure_at_any_step_is_got_over() {
    let image = sized(&[(1, 200_000)]);
    for status in [500, 502, 503, 504, 429, 408, 522] {
        for (method, path) in [
            ("HEAD", "/manifests/"),
            ("HEAD", "/blobs/"),
            ("POST", "/blobs/uploads/"),
            ("PUT", "/blobs/uploads/"),
            ("PUT", "/manifests/"),
            ("GET", "/token"),
        ] {
            let registry = Faulty::start(Ways {
                tokens: true,
                ..Ways::default()
            });
            registry.rule(
                method,
                path,
                0,
                2,
                Act::Reply(Answer::error(status, "UNAVAILABLE", "in a moment")),
            );
            to(&registry, &image).unwrap_or_else(|error| panic!("{status} {method} {path}: {}", text(&error)));
            assert_eq!(registry.manifest("app", "1").unwrap(), image.manifest.bytes());
        }
    }
}

#[test]
fn row_31_a_connection_that_breaks_at_any_step_is_got_over() {
    let image = sized(&[(1, 200_000)]);
    for (method, path) in [
        ("HEAD", "/manifests/"),
        ("HEAD", "/blobs/"),
        ("POST", "/blobs/uploads/"),
        ("PUT", "/blobs/uploads/"),
        ("PUT", "/manifests/"),
    ] {
        for cut in [0, 9, 60] {
            let registry = Faulty::start(Ways::default());
            registry.rule(method, path, 0, 2, Act::CutAnswer(cut));
            to(&registry, &image).unwrap_or_else(|error| panic!("{cut} {method} {path}: {}", text(&error)));
            assert_eq!(registry.manifest("app", "1").unwrap(), image.manifest.bytes());
        }
    }
}

#[test]
fn row_31_what_will_not_change_is_not_tried_again() {
    for status in [400, 403, 404, 405] {
        let registry = Faulty::start(Ways::default());
        registry.rule(
            "PUT",
            "/manifests/",
            0,
            99,
            Act::Reply(Answer::error(status, "UNKNOWN", "never")),
        );
        let error = text(&to(&registry, &small()).unwrap_err());
        assert!(error.contains("UNKNOWN (never)"), "{error}");
        assert_eq!(registry.seen("PUT", "/manifests/").len(), 1, "{status}");
    }
    // A registry that stays down is given up after a bounded number of failures without progress.
    let registry = Faulty::start(Ways::default());
    registry.rule("POST", "/blobs/", 0, 999, Act::Reply(Answer::new(503)));
    let error = to(&registry, &sized(&[(1, 10)])).unwrap_err();
    assert!(error.help().unwrap().contains("what has arrived is not sent twice"));
    assert!(registry.seen("POST", "/blobs/").len() <= 12);
    // One that never answered is given up soon.
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = push(&RegistryConfig::default(), &format!("{gone}/app:1"), &small()).unwrap_err();
    assert!(text(&error).contains("cannot be reached"), "{}", text(&error));
}

#[test]
fn row_31_progress_sets_the_count_of_failures_back() {
    let registry = Faulty::start(Ways::default());
    let image = sized(&[(1, 3 << 20)]);
    registry.once("PUT", &image.layers[0].digest().hex(), Act::CutRequest(1000));
    // More cuts than failures in a row are allowed, and some bytes get through each time.
    for at in 0..12 {
        registry.rule("PATCH", "", 0, 1, Act::CutRequest(100_000 + at));
    }
    to(&registry, &image).unwrap();
    assert_eq!(registry.arrived() as u64, image.layers[0].size() + image.config.size());
}

#[test]
fn row_32_both_forms_of_retry_after_are_kept_also_on_manifests() {
    for (retry, date) in [
        ("1", None),
        ("Sun, 06 Nov 1994 12:00:01 GMT", Some("Sun, 06 Nov 1994 12:00:00 GMT")),
    ] {
        for (method, path) in [("PUT", "/manifests/"), ("HEAD", "/blobs/"), ("PUT", "/blobs/uploads/")] {
            let registry = Faulty::start(Ways::default());
            let mut busy = Answer::error(429, "TOOMANYREQUESTS", "slowly").with("Retry-After", retry);
            if let Some(date) = date {
                busy.set("Date", date);
            }
            registry.once(method, path, Act::Reply(busy));
            let began = Instant::now();
            let summary = to(&registry, &sized(&[(1, 1000)])).unwrap();
            assert!(began.elapsed() >= Duration::from_secs(1), "{method} {retry}");
            assert!(summary.waits >= 1 && summary.waited_milliseconds >= 900);
        }
    }
}

#[test]
fn row_32_a_wait_that_is_too_long_is_an_error_that_names_it() {
    let registry = Faulty::start(Ways::default());
    let busy = Answer::error(503, "UNAVAILABLE", "closed").with("Retry-After", "3600");
    registry.rule("POST", "/blobs/", 0, 99, Act::Reply(busy));
    let began = Instant::now();
    let error = to(&registry, &small()).unwrap_err();
    assert!(
        text(&error).contains("asks to wait for 3600 s, and 3 s are the most"),
        "{}",
        text(&error)
    );
    assert!(error.help().unwrap().contains("3600 s"));
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn row_33_a_transfer_in_which_no_byte_moves_is_ended_and_taken_up_again() {
    let registry = Faulty::start(Ways::default());
    let image = sized(&[(1, 8 << 20)]);
    registry.once("PUT", &image.layers[0].digest().hex(), Act::Stall(1000));
    to(&registry, &image).unwrap();
    assert!(registry.has_blob("app", &sha256(&image.layers[0])));
    // And an answer that does not come.
    let registry = Faulty::start(Ways::default());
    registry.once("POST", "/blobs/", Act::Stall(0));
    to(&registry, &sized(&[(1, 10)])).unwrap();
}

#[test]
fn row_34_warnings_are_shown_once_each() {
    let registry = Faulty::start(Ways::default());
    let warn = |answer: &mut Answer| {
        answer
            .headers
            .push(("Warning".into(), "299 - \"this registry closes \\\"soon\\\"\"".into()));
        answer.headers.push(("Warning".into(), "199 - \"not ours\"".into()));
    };
    registry.rule("*", "/v2/", 0, 999, Act::Edit(Box::new(warn)));
    let told = Told::default();
    let options = PushOptions::default();
    let target: Reference = format!("{}/app:1", registry.host).parse().unwrap();
    let pusher = Pusher::tuned(&RegistryConfig::default(), &options, hasty(), &told).unwrap();
    pusher.push(&target, &[&small()], &[], &[]).unwrap();
    let expected = format!("`{}` says: this registry closes \"soon\"", registry.host);
    assert_eq!(told.warnings(), BTreeSet::from([expected]));
    let count = lock(&told.0)
        .iter()
        .filter(|event| matches!(event, Event::Warning { .. }))
        .count();
    assert_eq!(count, 1);
}

#[test]
fn row_35_no_more_requests_than_allowed_are_under_way() {
    let layers: Vec<(u64, usize)> = (1..30).map(|seed| (seed, 2000)).collect();
    let image = sized(&layers);
    for concurrency in [1, 4] {
        let registry = Faulty::start(Ways::default());
        let slow = |_: &mut Answer| std::thread::sleep(Duration::from_millis(5));
        registry.rule("*", "", 0, 999, Act::Edit(Box::new(slow)));
        let options = PushOptions {
            concurrency,
            ..PushOptions::default()
        };
        push_with(
            &RegistryConfig::default(),
            &format!("{}/app:1", registry.host),
            &image,
            &options,
        )
        .unwrap();
        let busiest = registry.shared.busiest.load(Ordering::SeqCst);
        assert!(
            busiest <= concurrency && (concurrency == 1 || busiest > 1),
            "{busiest} of {concurrency}"
        );
    }
}

/// A manifest that speaks of `subject`, with its blobs.
fn referrer(subject: &Image, kind: &str) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (config, blob) = (b"{}".to_vec(), format!("statement {kind}").into_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": kind,
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(&config), "size": 2 },
        "layers": [{ "mediaType": kind, "digest": Digest::of(&blob), "size": blob.len() }],
        "subject": { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": subject.digest(),
            "size": subject.manifest.size() as usize },
        "annotations": { "org.example.a": "1", "org.example.b": kind },
    });
    (manifest.to_string().into_bytes(), vec![config, blob])
}

fn attach(registry: &Faulty, subject: &Image, kind: &str) -> Digest {
    let (manifest, blobs) = referrer(subject, kind);
    let target: Reference = format!("{}/app", registry.host).parse().unwrap();
    let options = PushOptions::default();
    let pusher = Pusher::tuned(&RegistryConfig::default(), &options, hasty(), &Silent).unwrap();
    let summary = pusher.attach(&target, &manifest, &blobs).unwrap();
    summary.digest.unwrap()
}

fn listed(registry: &Faulty, subject: &Image) -> Referrers {
    let reference: Reference = format!("{}/app", registry.host).parse().unwrap();
    list(
        &RegistryConfig::default(),
        hasty(),
        &reference,
        &subject.digest().into(),
    )
    .unwrap()
}

fn kinds(registry: &Faulty, subject: &Image) -> Vec<String> {
    let listed = listed(registry, subject).listed.into_iter();
    listed.map(|entry| entry.artifact_type.unwrap_or_default()).collect()
}

fn fallback(subject: &Image) -> String {
    format!("sha256-{}", subject.digest().hex())
}

#[test]
fn row_36_referrers_are_listed_by_the_registry_or_by_the_fallback_tag() {
    let image = small();
    for referrers in [true, false] {
        let registry = Faulty::start(Ways {
            referrers,
            ..Ways::default()
        });
        to(&registry, &image).unwrap();
        assert_eq!(kinds(&registry, &image), [""; 0]);
        let first = attach(&registry, &image, "application/vnd.a");
        attach(&registry, &image, "application/vnd.b");
        attach(&registry, &image, "application/vnd.a");
        let mut all = kinds(&registry, &image);
        all.sort();
        assert_eq!(all, ["application/vnd.a", "application/vnd.b"]);
        let index = registry.manifest("app", &fallback(&image));
        assert_eq!(index.is_some(), !referrers);
        let Some(index) = index else { continue };
        let index: Value = serde_json::from_slice(&index).unwrap();
        assert_eq!(index["mediaType"], MediaType::INDEX);
        assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
        let entry = &index["manifests"][0];
        assert_eq!(entry["digest"], first.to_string());
        assert_eq!(entry["artifactType"], "application/vnd.a");
        assert_eq!(
            entry["annotations"],
            json!({ "org.example.a": "1", "org.example.b": "application/vnd.a" })
        );
    }
}

#[test]
fn row_36_nobodys_entry_of_the_fallback_tag_is_lost() {
    let image = small();
    let other = json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest::of(b"other"),
        "size": 5, "artifactType": "application/vnd.other" });
    let theirs = json!({ "schemaVersion": 2, "mediaType": MediaType::INDEX, "manifests": [other] }).to_string();
    for etags in [true, false] {
        let registry = Faulty::start(Ways {
            etags,
            ..Ways::default()
        });
        to(&registry, &image).unwrap();
        attach(&registry, &image, "application/vnd.a");
        // Somebody writes the tag after it was read (with marks of the state: a refusal; without: an overwriting).
        let (name, theirs) = (fallback(&image), theirs.clone());
        let write = move |shared: &super::faulty::Shared| {
            let key = ("app".to_owned(), name.clone());
            lock(&shared.store)
                .manifests
                .insert(key, (theirs.clone().into_bytes(), MediaType::INDEX.to_owned()));
        };
        let tag = fallback(&image);
        if etags {
            registry.once("PUT", &tag, Act::First(Box::new(write)));
        } else {
            registry.rule("GET", &tag, 1, 1, Act::First(Box::new(write)));
        }
        attach(&registry, &image, "application/vnd.b");
        let mut all = kinds(&registry, &image);
        all.sort();
        assert!(all.contains(&"application/vnd.b".to_owned()) && all.contains(&"application/vnd.other".to_owned()));
    }
}

#[test]
fn row_37_a_web_page_and_a_refusal_mean_that_there_is_no_list() {
    let image = small();
    let page = Answer::new(200)
        .with("Content-Type", "text/html")
        .text("<html>log in</html>");
    for answer in [page, Answer::new(400), Answer::new(302).with("Location", "/login")] {
        let registry = Faulty::start(Ways::default());
        to(&registry, &image).unwrap();
        registry.rule("GET", "/referrers/", 0, 99, Act::Reply(answer));
        attach(&registry, &image, "application/vnd.a");
        assert_eq!(kinds(&registry, &image), ["application/vnd.a"]);
    }
}

#[test]
fn row_38_a_list_in_pages_is_read_to_its_end() {
    let image = small();
    let registry = Faulty::start(Ways::default());
    let page = |kind: &str| {
        let entry = json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest::of(kind.as_bytes()),
            "size": 5, "artifactType": kind });
        let index = json!({ "schemaVersion": 2, "mediaType": MediaType::INDEX, "manifests": [entry] });
        Answer::new(200)
            .with("Content-Type", MediaType::INDEX)
            .text(index.to_string())
    };
    let path = format!("/v2/app/referrers/{}", image.digest());
    let first = page("a").with("Link", format!("<{path}?n=2>; rel=\"next\""));
    registry.once("GET", "/referrers/", Act::Reply(first));
    registry.once("GET", "?n=2", Act::Reply(page("b")));
    assert_eq!(kinds(&registry, &image), ["a", "b"]);
    // A list without an end is left at some point, and said to be.
    let registry = Faulty::start(Ways::default());
    registry.rule(
        "GET",
        "/referrers/",
        0,
        999,
        Act::Reply(page("a").with("Link", "<?again>; rel=next")),
    );
    let found = listed(&registry, &image);
    assert!(found.cut);
    assert_eq!(found.listed.len(), 1, "an entry that stands in each page counts once");
}

#[test]
fn a_list_of_tags_is_read_to_its_end() {
    let remote = |registry: &Faulty| {
        let name = format!("{}/app", registry.host).parse().unwrap();
        Remote::tuned(&RegistryConfig::default(), &name, hasty()).unwrap()
    };
    let page = |tags: Value| Answer::new(200).text(json!({ "name": "app", "tags": tags }).to_string());
    let registry = Faulty::start(Ways::default());
    let first = page(json!(["a", "b"])).with("Link", "</v2/app/tags/list?n=1000&last=b>; rel=\"next\"");
    registry.once("GET", "/tags/list", Act::Reply(first));
    registry.once("GET", "last=b", Act::Reply(page(json!(["c"]))));
    assert_eq!(remote(&registry).tags().unwrap(), ["a", "b", "c"]);
    // Where all were deleted, or there never was one.
    for answer in [page(Value::Null), Answer::new(404)] {
        let registry = Faulty::start(Ways::default());
        registry.once("GET", "/tags/list", Act::Reply(answer));
        assert_eq!(remote(&registry).tags().unwrap(), Vec::<String>::new());
    }
}
