//! Uploads of blobs: rows 17 to 25 of the checklist of a production client.

use super::super::state::Limits;
use super::faulty::{Act, Answer, Faulty, Ways};
use super::*;
use crate::digest::Digest;
use crate::layer::Blob;
use crate::oci::Descriptor;
use crate::transport::testing::sha256;

/// An image of one layer of about 3 MB, and the size of all its blobs.
fn large() -> (Image, usize) {
    let image = sized(&[(7, 3 << 20)]);
    let total = image.layers[0].content.size() as usize + image.config.size() as usize;
    (image, total)
}

/// What the requests that end the upload of the layer have in their path.
fn layer_of(image: &Image) -> String {
    image.layers[0].digest().hex()
}

fn arrived_once(registry: &Faulty, image: &Image, total: usize) {
    assert!(registry.has_blob("app", &sha256(&image.layers[0])));
    assert_eq!(registry.arrived(), total, "what had arrived was sent again");
    assert_eq!(registry.manifest("app", "1").unwrap(), image.manifest.bytes());
}

#[test]
fn row_17_locations_relative_absolute_and_with_a_query_are_followed() {
    for make in [
        (|_, path: &str| path.to_owned()) as fn(&str, &str) -> String,
        |host, path| format!("http://{host}{path}"),
        |host, path| format!("//{host}{path}"),
        |_, path| path.trim_start_matches("/v2/app/blobs/uploads/").to_owned(),
    ] {
        let registry = Faulty::start(Ways {
            fresh_locations: true,
            ..Ways::default()
        });
        let host = registry.host.clone();
        let edit = move |answer: &mut Answer| {
            let path = answer
                .headers
                .iter()
                .find(|(name, _)| name == "Location")
                .unwrap()
                .1
                .clone();
            answer.set("Location", make(&host, &path));
        };
        registry.rule("POST", "/blobs/uploads/", 0, 9, Act::Edit(Box::new(edit)));
        let image = sized(&[(1, 1000)]);
        to(&registry, &image).unwrap();
        let put = &registry.seen("PUT", "/blobs/uploads/")[0];
        assert!(put.path.contains("?_state=0&digest=sha256%3A"), "{}", put.path);
    }
}

#[test]
fn row_17_a_location_that_is_missing_or_leads_inside_is_refused() {
    for (location, expected) in [
        (None, "does not say where"),
        (Some("http://169.254.169.254/x"), "169.254.169.254"),
    ] {
        let registry = Faulty::start(Ways::default());
        let edit = move |answer: &mut Answer| match location {
            None => answer.remove("Location"),
            Some(location) => answer.set("Location", location),
        };
        registry.rule("POST", "/blobs/uploads/", 0, 9, Act::Edit(Box::new(edit)));
        let error = text(&to(&registry, &sized(&[(1, 1000)])).unwrap_err());
        assert!(error.contains(expected), "{error}");
        assert_eq!(registry.arrived(), 0);
    }
}

#[test]
fn row_18_a_blob_goes_whole_with_its_length_by_default() {
    for status in [201, 204, 202, 200] {
        let registry = Faulty::start(Ways::default());
        let edit = move |answer: &mut Answer| {
            answer.status = status;
            answer.remove("Location");
            answer.remove("Docker-Content-Digest");
        };
        registry.rule("PUT", "/blobs/uploads/", 0, 9, Act::Edit(Box::new(edit)));
        let (image, total) = large();
        to(&registry, &image).unwrap();
        arrived_once(&registry, &image, total);
        assert!(registry.seen("PATCH", "").is_empty());
        for put in registry.seen("PUT", "/blobs/uploads/") {
            assert_eq!(put.headers["content-length"], put.body.to_string());
            assert_eq!(put.headers["content-type"], "application/octet-stream");
        }
        for post in registry.seen("POST", "") {
            assert_eq!(post.headers["content-length"], "0");
        }
    }
}

#[test]
fn row_18_an_accepted_blob_that_is_not_there_is_not_believed() {
    let registry = Faulty::start(Ways::default());
    registry.rule("PUT", "/blobs/uploads/", 0, 99, Act::Reply(Answer::new(202)));
    assert!(to(&registry, &sized(&[(1, 1000)])).is_err());
}

#[test]
fn row_19_chunks_shrink_to_what_the_registry_takes_and_that_is_remembered() {
    let (image, _) = large();
    let state = tempfile::tempdir().unwrap();
    let config = RegistryConfig {
        state_dir: Some(state.path().to_owned()),
        ..RegistryConfig::default()
    };
    let registry = Faulty::start(Ways {
        chunk_max: Some(300 << 10),
        ..Ways::default()
    });
    // The whole blob does not get through: a proxy cuts it.
    registry.once("PUT", &layer_of(&image), Act::CutRequest(1 << 20));
    push(&config, &format!("{}/app:1", registry.host), &image).unwrap();
    assert!(registry.has_blob("app", &sha256(&image.layers[0])));
    let good: Vec<_> = registry
        .seen("PATCH", "")
        .into_iter()
        .filter(|seen| seen.status == 202)
        .collect();
    assert!(!good.is_empty() && good.iter().all(|seen| seen.body <= 300 << 10));
    let limits = Limits::load(Some(state.path()), &registry.host);
    assert_eq!(limits.chunk_max, Some(256 << 10));
    // The next run does not try larger ones.
    let next = sized(&[(8, 3 << 20)]);
    let before = registry.log().len();
    registry.once("PUT", &layer_of(&next), Act::CutRequest(10));
    push(&config, &format!("{}/app:2", registry.host), &next).unwrap();
    assert!(registry.log()[before..].iter().all(|seen| seen.status != 416));
}

#[test]
fn row_19_a_body_that_is_too_large_goes_in_chunks() {
    let (image, total) = large();
    let registry = Faulty::start(Ways::default());
    registry.once(
        "PUT",
        &layer_of(&image),
        Act::Early(Answer::new(413).text("<html>too large</html>")),
    );
    to(&registry, &image).unwrap();
    arrived_once(&registry, &image, total);
    let ranges: Vec<String> = registry
        .seen("PATCH", "")
        .iter()
        .map(|seen| seen.headers["content-range"].clone())
        .collect();
    assert_eq!(ranges[0], format!("0-{}", (1 << 20) - 1));
    assert_eq!(ranges[1], format!("{}-{}", 1 << 20, (2 << 20) - 1));
}

#[test]
fn row_19_the_least_chunk_is_respected() {
    let (image, total) = large();
    let registry = Faulty::start(Ways {
        min_chunk: Some(2 << 20),
        ..Ways::default()
    });
    registry.once("PUT", &layer_of(&image), Act::CutRequest(100));
    to(&registry, &image).unwrap();
    arrived_once(&registry, &image, total);
    let sizes: Vec<usize> = registry.seen("PATCH", "").iter().map(|seen| seen.body).collect();
    assert!(
        sizes[..sizes.len() - 1].iter().all(|size| *size >= 2 << 20),
        "{sizes:?}"
    );
}

#[test]
fn row_19_a_registry_without_chunks_gets_the_blob_whole_again() {
    let (image, _) = large();
    let registry = Faulty::start(Ways {
        no_chunks: true,
        ..Ways::default()
    });
    registry.once("PUT", &layer_of(&image), Act::CutRequest(1 << 20));
    to(&registry, &image).unwrap();
    assert!(registry.has_blob("app", &sha256(&image.layers[0])));
    assert_eq!(registry.seen("PATCH", "").len(), 1);
}

#[test]
fn row_20_every_chunk_goes_to_the_newest_location() {
    let (image, total) = large();
    let registry = Faulty::start(Ways {
        fresh_locations: true,
        ..Ways::default()
    });
    registry.once("PUT", &layer_of(&image), Act::CutRequest(1000));
    to(&registry, &image).unwrap();
    arrived_once(&registry, &image, total);
}

#[test]
fn row_21_a_range_that_is_stuck_does_not_hold_up_the_upload() {
    let (image, total) = large();
    let registry = Faulty::start(Ways {
        stuck_range: true,
        ..Ways::default()
    });
    registry.once("PUT", &layer_of(&image), Act::CutRequest(0));
    to(&registry, &image).unwrap();
    arrived_once(&registry, &image, total);
    assert!(registry.seen("PATCH", "").iter().all(|seen| seen.status == 201));
}

#[test]
fn row_22_an_upload_goes_on_where_the_connection_was_cut() {
    let (image, total) = large();
    let mut seed = 1;
    for _ in 0..6 {
        // Anywhere, also in the middle of a chunk.
        seed = (seed * 48271) % 2_147_483_647_usize;
        let registry = Faulty::start(Ways::default());
        registry.once(
            "PUT",
            &image.layers[0].digest().hex(),
            Act::CutRequest(seed % (3 << 20)),
        );
        registry.once("PATCH", "", Act::CutRequest(seed % (1 << 20)));
        to(&registry, &image).unwrap();
        arrived_once(&registry, &image, total);
    }
}

#[test]
fn row_22_an_answer_that_is_lost_costs_no_byte() {
    let (image, total) = large();
    for cut in [0, 5, 40] {
        let registry = Faulty::start(Ways::default());
        registry.once("PUT", &layer_of(&image), Act::CutAnswer(cut));
        to(&registry, &image).unwrap();
        arrived_once(&registry, &image, total);
    }
    // The same of a chunk: the registry says how far it is.
    let registry = Faulty::start(Ways::default());
    registry.once("PUT", &layer_of(&image), Act::CutRequest(10));
    registry.rule("PATCH", "", 1, 1, Act::CutAnswer(0));
    to(&registry, &image).unwrap();
    arrived_once(&registry, &image, total);
}

#[test]
fn row_22_a_session_that_the_registry_forgot_is_begun_anew() {
    let (image, _) = large();
    let registry = Faulty::start(Ways::default());
    let forget = |shared: &super::faulty::Shared| lock(&shared.store).uploads.clear();
    registry.once("PUT", &layer_of(&image), Act::CutRequest(1000));
    registry.rule("PATCH", "", 1, 1, Act::First(Box::new(forget)));
    to(&registry, &image).unwrap();
    assert!(registry.has_blob("app", &sha256(&image.layers[0])));
}

#[test]
fn row_22_a_later_run_goes_on_where_an_earlier_one_ended() {
    let state = tempfile::tempdir().unwrap();
    let config = RegistryConfig {
        state_dir: Some(state.path().to_owned()),
        ..RegistryConfig::default()
    };
    let registry = Faulty::start(Ways::default());
    let (image, total) = large();
    let name = format!("{}/app:1", registry.host);
    let hex = image.layers[0].digest().hex();
    registry.once("PUT", &hex, Act::CutRequest(2_000_000));
    // The registry goes away for longer than anybody waits.
    registry.rule("GET", "/blobs/uploads/", 0, 6, Act::Reply(Answer::new(503)));
    push(&config, &name, &image).unwrap_err();
    let before = registry.arrived();
    push(&config, &name, &image).unwrap();
    arrived_once(&registry, &image, total);
    assert!(registry.arrived() - before <= total - 2_000_000);
    assert!(
        crate::fsio::sorted_names(&state.path().join("uploads"))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn row_23_what_the_registry_got_wrong_is_sent_again_from_its_start() {
    let (image, _) = large();
    let registry = Faulty::start(Ways::default());
    registry.once("PUT", &layer_of(&image), Act::CutRequest(1000));
    let garble = |shared: &super::faulty::Shared| {
        for upload in lock(&shared.store).uploads.values_mut() {
            upload.bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1);
        }
    };
    registry.rule("PATCH", "", 1, 1, Act::First(Box::new(garble)));
    to(&registry, &image).unwrap();
    assert!(registry.has_blob("app", &sha256(&image.layers[0])));
    // One that never gets it right ends with its words.
    let registry = Faulty::start(Ways::default());
    let wrong = Answer::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
    registry.rule("PUT", "/blobs/uploads/", 0, 99, Act::Reply(wrong));
    let error = text(&to(&registry, &sized(&[(1, 1000)])).unwrap_err());
    assert!(
        error.contains("DIGEST_INVALID (provided digest did not match"),
        "{error}"
    );
    assert!(registry.seen("PUT", "/blobs/uploads/").len() <= 2 * 4);
}

#[test]
fn row_24_a_blob_without_bytes_is_put_without_a_body() {
    let mut image = sized(&[(1, 1000)]);
    let layer = &mut image.layers[0];
    layer.content = Blob::Bytes([].into());
    layer.descriptor = Descriptor::new(&layer.descriptor.media_type, Digest::of(b""), 0);
    let registry = Faulty::start(Ways::default());
    // The manifest names the old layer, which is fine: the blobs are what is looked at.
    let _ = to(&registry, &image);
    assert!(registry.has_blob("app", &Digest::of(b"")));
    let puts = registry.seen("PUT", &Digest::of(b"").hex());
    assert_eq!((puts.len(), puts[0].body), (1, 0));
}

#[test]
fn row_25_a_session_that_is_given_up_is_ended_if_the_registry_lets_us() {
    let (image, _) = large();
    let registry = Faulty::start(Ways {
        no_chunks: true,
        ..Ways::default()
    });
    registry.once("PUT", &layer_of(&image), Act::CutRequest(1 << 20));
    registry.rule(
        "DELETE",
        "",
        0,
        9,
        Act::Reply(Answer::error(405, "UNSUPPORTED", "never")),
    );
    to(&registry, &image).unwrap();
    assert_eq!(registry.seen("DELETE", "").len(), 1);
}

#[test]
fn a_damaged_blob_never_arrives_whole() {
    let registry = Faulty::start(Ways::default());
    let mut image = sized(&[(1, 1 << 20)]);
    let mut bytes = noise(1, image.layers[0].size() as usize);
    bytes[77] ^= 1;
    image.layers[0].content = Blob::Bytes(bytes.into());
    let error = text(&to(&registry, &image).unwrap_err());
    assert!(
        error.contains("are damaged") && error.contains(&image.layers[0].digest().to_string()),
        "{error}"
    );
    let put = &registry.seen("PUT", &image.layers[0].digest().hex())[0];
    assert_eq!(put.status, 0, "the last piece was not sent");
    assert!(registry.manifest("app", "1").is_none());
}
