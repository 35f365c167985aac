//! What is held, and what goes for it.

use std::cell::Cell;
use std::fs::{self, File};
use std::time::Duration;

use super::*;
use crate::digest::Digest;
use crate::store::{RootOwner, Store};

/// Two rooted paths, a tool and garbage, each of 10,000 bytes and more and made from a download of 1,000 bytes.
struct Scene {
    dir: tempfile::TempDir,
    fetch: FetchConfig,
    paths: Vec<StorePath>,
}

const NAMES: [&str; 4] = ["rooted", "garbage", "tool", "new"];

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let fetch = FetchConfig {
            cache: dir.path().join("fetch"),
            ..FetchConfig::default()
        };
        for name in ["fetch/sha256", "fetch/locks", "s/cache/images/ab"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let mut paths = Vec::new();
        for name in NAMES {
            let staging = store.stage().unwrap();
            let tree = staging.path().join("tree");
            fs::write(&tree, name.repeat(10_000 / name.len() + 1)).unwrap();
            let path = store.add_leaf(name, &tree, None).unwrap().path;
            let file = Digest::of(name.as_bytes()).hex();
            let json = format!("{{\"download\":\"{file}\"}}");
            store
                .record_realisation(&Digest::of(name.as_bytes()), &json, &path)
                .unwrap();
            old_file(&fetch.cache.join("sha256").join(file), 1_000);
            paths.push(path);
            // Each is used later than the one before.
            std::thread::sleep(Duration::from_millis(5));
        }
        // A record of an image, older than all else.
        old_file(&dir.path().join("s/cache/images/ab/cd"), 500);
        let owner = RootOwner {
            folder: dir.path().to_owned(),
            kind: "package".to_owned(),
            target: "rooted".to_owned(),
        };
        store.keep(&owner, &BTreeSet::from([paths[0].clone()])).unwrap();
        Self { dir, fetch, paths }
    }

    fn store(&self) -> Store {
        Store::open(&self.dir.path().join("s")).unwrap()
    }

    fn hold(&self, bounds: Bounds, dry_run: bool) -> Upkeep {
        self.hold_while(bounds, dry_run, &|| true)
    }

    fn hold_while(&self, bounds: Bounds, dry_run: bool, go_on: &dyn Fn() -> bool) -> Upkeep {
        let how = How {
            dry_run,
            ahead: false,
            doomed: &BTreeSet::new(),
            go_on,
        };
        hold(&[self.store()], &self.fetch, &bounds, &how).unwrap()
    }

    fn names(&self, done: &Upkeep) -> Vec<String> {
        let names = done.paths.iter().map(|(_, path, _)| path.name().to_owned());
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn has_download(&self, name: &str) -> bool {
        self.fetch
            .cache
            .join("sha256")
            .join(Digest::of(name.as_bytes()).hex())
            .exists()
    }
}

fn old_file(path: &std::path::Path, bytes: usize) {
    fs::write(path, vec![0; bytes]).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(time)
        .unwrap();
}

#[test]
fn what_was_used_longest_ago_goes_with_what_only_it_needs() {
    let scene = Scene::new();
    let nothing = scene.hold(Bounds::default(), false);
    assert!(nothing.is_complete && nothing.removed_bytes() == 0);
    let total = nothing.total;
    assert!((44_500..48_000).contains(&total), "{total}");
    let most = |bytes: u64| Bounds {
        max_size: Some(bytes),
        ..Bounds::default()
    };
    // A byte too much: the record of an image is the oldest, however small.
    let first = scene.hold(most(total - 1), true);
    assert_eq!(
        (first.paths.len(), &first.caches),
        (0, &Counted::from([(CacheKind::Images, (1, 500))]))
    );
    let dry = scene.hold(most(total - 12_000), true);
    let done = scene.hold(most(total - 12_000), false);
    assert_eq!(
        scene.names(&done),
        ["garbage", "tool"],
        "a download is as much in use as what was made from it"
    );
    assert_eq!(scene.names(&dry), scene.names(&done));
    assert_eq!((dry.total, dry.caches), (done.total, done.caches.clone()));
    assert_eq!(done.caches[&CacheKind::Downloads], (1, 1_000));
    assert!(!scene.has_download("garbage") && NAMES.iter().filter(|name| scene.has_download(name)).count() == 3);
    // Nothing more can go than what no root needs.
    let short = scene.hold(most(1), false);
    assert_eq!(scene.names(&short), ["new"]);
    assert!(scene.has_download("rooted") && short.falls_short(&most(1)));
    assert_eq!((short.total, short.kept), (short.kept, short.kept));
    let left = scene.store();
    assert_eq!(left.list().unwrap().len(), 1);
    assert_eq!(left.verify(true).unwrap(), []);
}

#[test]
fn age_floor_and_living_processes_count() {
    let scene = Scene::new();
    let user = scene.store();
    user.info(&scene.paths[1]).unwrap().unwrap();
    let used = |name: &str| {
        let surveyed = scene.store().survey().unwrap();
        surveyed.into_iter().find(|path| path.path.name() == name).unwrap().used
    };
    let old = Bounds {
        unused_since: Some(used("new") + Duration::from_secs(1)),
        floor: Some(used("new")),
        ..Bounds::default()
    };
    let done = scene.hold(old, false);
    assert_eq!(
        scene.names(&done),
        ["tool"],
        "one is rooted, one in use, one used since"
    );
    assert!(!done.falls_short(&old) && !scene.has_download("tool") && scene.has_download("garbage"));
    drop(user);
    let young = Bounds {
        floor: None,
        unused_since: Some(used("new")),
        ..old
    };
    assert_eq!(scene.names(&scene.hold(young, false)), ["garbage"]);
    // There is never as much room as that, and for want of it all goes that may.
    let room = Bounds {
        min_free: Some(u64::MAX),
        ..Bounds::default()
    };
    let done = scene.hold(room, false);
    assert_eq!(scene.names(&done), ["new"]);
    assert!(done.falls_short(&room));
}

/// A step that is ended at any moment leaves a store that is whole, and those that follow come to the end.
#[test]
fn steps_that_are_ended_come_to_an_end() {
    let bounds = Bounds {
        max_size: Some(1),
        ..Bounds::default()
    };
    for steps in 1..12 {
        let scene = Scene::new();
        let left = Cell::new(steps);
        let done = scene.hold_while(bounds, false, &|| {
            left.set(i32::max(left.get() - 1, 0));
            left.get() > 0
        });
        assert!(!done.is_complete || left.get() > 0);
        assert_eq!(scene.store().verify(true).unwrap(), [], "after {steps}");
        scene.hold(bounds, false);
        assert_eq!(scene.store().list().unwrap().len(), 1, "after {steps}");
    }
}
