//! Companions: what is asked, what is sent, and what a registry that forgets or refuses makes of it.

use std::sync::Mutex;

use super::faulty::{Act, Answer, Faulty, Ways};
use super::*;
use crate::digest::{ContentDigest, Digest};
use crate::event::Silent;
use crate::oci::Subject;
use crate::transport::testing::{changed_manifest, sha256};
use crate::transport::{Companion, Supply};

fn tag_of(image: &Digest) -> String {
    format!("{}.kept", &image.hex()[..16])
}

/// A companion of an image, with blobs of these seeds and sizes.
fn companion(of: &Image, blobs: &[(u64, usize)], anchor: &str) -> Companion {
    // Another manifest for each image, as a subject makes it.
    let artifact = changed_manifest(&sized(blobs), |manifest| {
        manifest["annotations"]["of"] = of.digest().to_string().into();
    });
    Companion {
        artifact,
        artifact_type: "application/x.kept",
        subject: Some(Subject {
            media_type: String::new(),
            digest: of.digest(),
            size: 0,
        }),
        tag: tag_of(&of.digest()),
        anchor: anchor.to_owned(),
        tag_of,
    }
}

/// Pushes to one registry, as one run of the program does.
struct Run<'r> {
    registry: &'r Faulty,
    pusher: Pusher<'r>,
    supplied: Mutex<Vec<Vec<ContentDigest>>>,
}

impl<'r> Run<'r> {
    fn new(registry: &'r Faulty, options: &PushOptions) -> Self {
        let pusher = Pusher::tuned(&RegistryConfig::default(), options, hasty(), &Silent).unwrap();
        Self {
            registry,
            pusher,
            supplied: Mutex::default(),
        }
    }

    /// Pushes an image and its companion to a repository; gives what the latter took.
    fn push(&self, name: &str, image: &Image, companion: &Companion) -> Result<PushSummary, TransportError> {
        let target: Reference = format!("{}/{name}", self.registry.host).parse().unwrap();
        let pushed = self.pusher.push(&target, &[image], &[], &[])?;
        let supply: &Supply<'_> = &|lacking| {
            self.supplied.lock().unwrap().push(lacking.to_vec());
            Ok(())
        };
        self.pusher
            .put_companion(&target, companion, pushed.replaced.as_ref(), supply)
    }

    fn supplied(&self) -> Vec<usize> {
        self.supplied.lock().unwrap().iter().map(Vec::len).collect()
    }
}

const FILES: &[(u64, usize)] = &[(11, 1000), (12, 2000), (13, 3000)];

/// A new run for each push: nothing is remembered but what the registry has.
fn push(registry: &Faulty, name: &str, image: &Image, companion: &Companion) -> PushSummary {
    Run::new(registry, &PushOptions::default())
        .push(name, image, companion)
        .unwrap()
}

#[test]
fn what_is_there_costs_one_request_for_the_same_image_and_two_for_another() {
    let registry = Faulty::start(Ways {
        tokens: true,
        ..Ways::default()
    });
    let (one, two) = (sized(&[(1, 500)]), sized(&[(2, 500)]));
    let (of_one, of_two) = (companion(&one, FILES, "lock"), companion(&two, FILES, "lock"));
    let first = push(&registry, "app:1", &one, &of_one);
    assert_eq!((first.blobs_sent, first.blobs_skipped), (4, 0));
    let asked = registry.log().len();
    let again = push(&registry, "app:1", &one, &of_one);
    assert_eq!(
        (again.requests, again.blobs_sent),
        (1, 0),
        "the token of the image's own push serves"
    );
    let other = push(&registry, "app:1", &two, &of_two);
    assert_eq!((other.requests, other.blobs_sent, other.blobs_skipped), (2, 0, 4));
    // The same again for an image that is not the anchor's.
    let again = push(&registry, "app:1", &two, &of_two);
    assert_eq!((again.requests, again.blobs_sent), (2, 0));
    let counted = registry.log()[asked..]
        .iter()
        .filter(|seen| seen.path.contains("lock"))
        .count();
    assert_eq!(counted, 3, "the anchor is read once a push");
    for (name, kept) in [("lock", &of_one), (&of_one.tag, &of_one), (&of_two.tag, &of_two)] {
        assert_eq!(
            registry.manifest("app", name).unwrap(),
            kept.artifact.manifest.bytes(),
            "{name}"
        );
    }
}

#[test]
fn of_a_changed_lock_only_what_is_new_is_sent() {
    let registry = Faulty::start(Ways::default());
    let (one, two) = (sized(&[(1, 500)]), sized(&[(2, 500)]));
    push(&registry, "app:1", &one, &companion(&one, FILES, "lock-1"));
    let changed = &[(11, 1000), (12, 2000), (14, 4000)];
    let before = registry.log().len();
    let run = Run::new(&registry, &PushOptions::default());
    let update = run.push("app:1", &two, &companion(&two, changed, "lock-2")).unwrap();
    // One file, and the config of the artifact itself, which names it.
    assert_eq!((update.blobs_sent, update.blobs_skipped), (2, 2));
    assert_eq!(run.supplied(), [2]);
    let looked = registry.log().split_off(before);
    let looked = looked
        .iter()
        .filter(|seen| seen.method == "HEAD" && seen.path.contains("/blobs/"));
    assert_eq!(looked.count(), 2 + 2, "what the image before had beside it is there");
    // Under another name there is no image before: each is looked for.
    let three = sized(&[(3, 500)]);
    let more = &[(11, 1000), (12, 2000), (15, 100)];
    let update = push(&registry, "app:other", &three, &companion(&three, more, "lock-3"));
    assert_eq!((update.blobs_sent, update.blobs_skipped), (2, 2));
}

#[test]
fn what_another_repository_has_is_mounted_and_not_asked_for_here() {
    let registry = Faulty::start(Ways::default());
    let image = sized(&[(1, 500)]);
    push(&registry, "app:1", &image, &companion(&image, FILES, "lock"));
    let options = PushOptions {
        mount_from: vec!["app".to_owned()],
        ..PushOptions::default()
    };
    let run = Run::new(&registry, &options);
    let mounted = run.push("other:1", &image, &companion(&image, FILES, "lock")).unwrap();
    assert_eq!((mounted.blobs_mounted, mounted.blobs_sent), (4, 0));
    assert_eq!(run.supplied(), [0]);
}

#[test]
fn a_registry_that_lost_a_blob_gets_it_again() {
    let registry = Faulty::start(Ways::default());
    let (one, two) = (sized(&[(1, 500)]), sized(&[(2, 500)]));
    let kept = companion(&one, FILES, "lock");
    push(&registry, "app:1", &one, &kept);
    let lost = sha256(&kept.artifact.layers[1]);
    lock(&registry.shared.store).blobs.remove(&("app".to_owned(), lost));
    let run = Run::new(&registry, &PushOptions::default());
    let again = run.push("app:1", &two, &companion(&two, FILES, "lock")).unwrap();
    assert_eq!(again.blobs_sent, 1);
    assert_eq!(run.supplied(), [0, 1]);
    assert!(registry.has_blob("app", &lost));
}

#[test]
fn a_tag_that_cannot_move_is_fine_where_it_stands_for_the_same() {
    let registry = Faulty::start(Ways::default());
    let (one, two) = (sized(&[(1, 500)]), sized(&[(2, 500)]));
    let (of_one, of_two) = (companion(&one, FILES, "lock"), companion(&two, FILES, "lock"));
    push(&registry, "app:1", &one, &of_one);
    push(&registry, "app:2", &two, &of_two);
    let refused = Answer::error(400, "TAG_IMMUTABLE", "the tag exists");
    registry.rule("PUT", &of_two.tag, 0, 9, Act::Reply(refused));
    push(&registry, "app:2", &two, &of_two);
    let changed = companion(&two, &[(16, 10)], "lock");
    let run = Run::new(&registry, &PushOptions::default());
    let error = run.push("app:2", &two, &changed).unwrap_err();
    assert!(text(&error).contains("the tag exists"), "{}", text(&error));
}

#[test]
fn a_dry_run_says_what_would_be_sent_and_asks_for_no_file() {
    let registry = Faulty::start(Ways::default());
    let image = sized(&[(1, 500)]);
    let options = PushOptions {
        dry_run: true,
        ..PushOptions::default()
    };
    let run = Run::new(&registry, &options);
    let planned = run.push("app:1", &image, &companion(&image, FILES, "lock")).unwrap();
    assert_eq!(planned.blobs_sent, 4);
    assert_eq!(planned.plan.len(), 4 + 2);
    assert!(run.supplied().is_empty());
    let written = registry
        .log()
        .iter()
        .filter(|seen| !["GET", "HEAD"].contains(&seen.method.as_str()))
        .count();
    assert_eq!(written, 0);
}

#[test]
fn what_cannot_be_supplied_is_an_error_and_no_tag_is_written() {
    let registry = Faulty::start(Ways::default());
    let image = sized(&[(1, 500)]);
    let kept = companion(&image, FILES, "lock");
    let run = Run::new(&registry, &PushOptions::default());
    let target: Reference = format!("{}/app:1", registry.host).parse().unwrap();
    let supply: &Supply<'_> = &|_| Err("nobody has it".into());
    let error = run.pusher.put_companion(&target, &kept, None, supply).unwrap_err();
    assert!(
        text(&error).ends_with("lacks cannot be brought there: nobody has it"),
        "{}",
        text(&error)
    );
    assert!(registry.manifest("app", "lock").is_none() && registry.manifest("app", &kept.tag).is_none());
}
