//! Roots and garbage collection.

use std::time::{Duration, SystemTime};

use super::*;

fn file(scene: &Scene, name: &str, text: &str, candidates: &[&StorePath]) -> PathInfo {
    scene.output(name, None, candidates, |tree| fs::write(tree, text).unwrap())
}

/// The store as another process sees it after the first has ended.
fn later(scene: Scene) -> (tempfile::TempDir, Store) {
    let dir = scene.store.dir().to_owned();
    drop(scene.store);
    (scene.dir, Store::open(&dir).unwrap())
}

fn removed(report: &GcReport) -> Vec<&str> {
    report.removed.iter().map(|(path, _)| path.name()).collect()
}

#[test]
fn what_a_root_reaches_stays_and_the_rest_goes() {
    let scene = Scene::new();
    let library = file(&scene, "library", "l", &[]);
    let program = file(&scene, "program", &format!("{}", library.path), &[&library.path]);
    let garbage = file(&scene, "garbage", &format!("{}", library.path), &[&library.path]);
    scene
        .store
        .record_realisation(&Digest::of(b"g"), "{}", &garbage.path)
        .unwrap();
    scene
        .store
        .record_realisation(&Digest::of(b"p"), "{}", &program.path)
        .unwrap();
    scene.store.add_root("app", &program.path).unwrap();
    fs::create_dir(scene.store.dir().join("store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-crash")).unwrap();
    drop(scene.store.lock_build(&Digest::of(b"g")).unwrap());
    let (_dir, store) = later(scene);

    let dry = store
        .gc(&GcOptions {
            dry_run: true,
            ..GcOptions::default()
        })
        .unwrap();
    assert_eq!(store.list().unwrap().len(), 3, "a dry run removes nothing");
    let report = store.gc(&GcOptions::default()).unwrap();
    assert_eq!(dry, report);
    assert_eq!(removed(&report), ["garbage"]);
    assert_eq!(report.removed_bytes(), garbage.nar_size);
    assert_eq!(report.unregistered.len(), 1);
    assert_eq!(
        (report.kept_paths, report.kept_bytes),
        (2, library.nar_size + program.nar_size)
    );
    let [kept, running] = report.kept.as_slice() else {
        panic!("{report:?}")
    };
    assert_eq!(kept.by, KeptBy::Root("app".to_owned()));
    assert_eq!((kept.paths, kept.own_bytes), (2, report.kept_bytes));
    assert_eq!((&running.by, running.paths), (&KeptBy::Processes, 0));
    assert!(!store.physical(&garbage.path).exists());
    assert_eq!(store.realisation(&Digest::of(b"g")).unwrap(), None);
    assert_eq!(
        store.known_output(&Digest::of(b"g")).unwrap(),
        Some(garbage.path),
        "what it made is still known"
    );
    assert_eq!(store.realisation(&Digest::of(b"p")).unwrap(), Some(program.path));
    assert_eq!(store.verify(true).unwrap(), []);
    let locks = crate::fsio::sorted_names(&store.dir().join("locks")).unwrap();
    assert!(!locks.iter().any(|name| name.to_string_lossy().starts_with("build-")));
}

#[test]
fn what_a_living_process_was_told_is_valid_stays() {
    let scene = Scene::new();
    let library = file(&scene, "library", "l", &[]);
    let program = file(&scene, "program", &format!("{}", library.path), &[&library.path]);
    let other = file(&scene, "other", "o", &[]);
    let (_dir, user) = later(scene);
    let collector = Store::open(user.dir()).unwrap();
    assert_eq!(user.info(&program.path).unwrap(), Some(program.clone()));
    let report = collector.gc(&GcOptions::default()).unwrap();
    assert_eq!(report.removed, [(other.path, other.nar_size)]);
    assert_eq!(report.kept.last().unwrap().paths, 2);
    drop(user);
    let report = collector.gc(&GcOptions::default()).unwrap();
    assert_eq!(report.removed.len(), 2, "the process has ended");
}

#[test]
fn an_indirect_root_lasts_as_long_as_its_link() {
    let scene = Scene::new();
    let info = file(&scene, "result", "r", &[]);
    let link = scene.dir.path().join("result");
    scene.store.add_indirect_root(&link, &info.path).unwrap();
    assert_eq!(
        fs::read_to_string(&link).unwrap(),
        "r",
        "the link leads to the tree on disk"
    );
    scene.store.add_indirect_root(&link, &info.path).unwrap();
    let (_dir, store) = later(scene);
    let roots = store.roots().unwrap();
    assert_eq!((roots.len(), &roots[0].target), (1, &Some(info.path.clone())));
    assert_eq!(roots[0].link.as_deref(), Some(link.as_path()));
    assert_eq!(removed(&store.gc(&GcOptions::default()).unwrap()), Vec::<&str>::new());
    fs::remove_file(&link).unwrap();
    let report = store.gc(&GcOptions::default()).unwrap();
    assert_eq!((removed(&report), report.stale_roots.len()), (vec!["result"], 1));
    assert_eq!(store.roots().unwrap(), []);
}

#[test]
fn a_link_never_takes_the_place_of_anything_else() {
    let scene = Scene::new();
    let info = file(&scene, "result", "r", &[]);
    let link = scene.dir.path().join("precious");
    fs::write(&link, "mine").unwrap();
    let error = scene.store.add_indirect_root(&link, &info.path).unwrap_err();
    assert!(matches!(error, StoreError::LinkTaken { .. }));
    assert_eq!(fs::read_to_string(&link).unwrap(), "mine");
    fs::remove_file(&link).unwrap();
    symlink("/etc", &link).unwrap();
    scene.store.add_indirect_root(&link, &info.path).unwrap_err();
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("/etc"));
}

#[test]
fn roots_can_be_replaced_and_removed() {
    let scene = Scene::new();
    let [one, two] = ["one", "two"].map(|name| file(&scene, name, name, &[]).path);
    scene.store.add_root("app", &one).unwrap();
    scene.store.add_root("app", &two).unwrap();
    scene.store.add_root("other", &one).unwrap();
    let roots = scene.store.roots().unwrap();
    let targets: Vec<_> = roots
        .iter()
        .map(|root| (root.name.as_str(), root.target.clone()))
        .collect();
    assert_eq!(targets, [("app", Some(two.clone())), ("other", Some(one))]);
    assert!(scene.store.remove_root("other").unwrap());
    assert!(!scene.store.remove_root("other").unwrap());
    let (_dir, store) = later(scene);
    assert_eq!(removed(&store.gc(&GcOptions::default()).unwrap()), ["one"]);
}

fn owner(folder: &Path, target: &str) -> RootOwner {
    RootOwner {
        folder: folder.to_owned(),
        kind: "image".to_owned(),
        target: target.to_owned(),
    }
}

#[test]
fn a_target_keeps_what_it_was_built_of_last() {
    let scene = Scene::new();
    let [one, two, three] = ["one", "two", "three"].map(|name| file(&scene, name, name, &[]).path);
    let folder = scene.dir.path().join("project");
    let app = owner(&folder, "app");
    let keep = |owner: &RootOwner, paths: &[&StorePath]| {
        let paths = paths.iter().map(|&path| path.clone()).collect();
        scene.store.keep(owner, &paths).unwrap();
    };
    keep(&app, &[&one, &two]);
    keep(&app, &[&three]);
    // Names that are much the same are of different targets, and so are long ones.
    let long = "n".repeat(300);
    let others = ["a:b", "a-b", "a/b", "ä", &long, &format!("{long}n")].map(|name| owner(&folder, name));
    for (other, path) in others.iter().zip([&one, &one, &two, &one, &one, &two]) {
        keep(other, &[path]);
    }
    let roots = scene.store.roots().unwrap();
    assert_eq!(roots.len(), 1 + others.len());
    let of = |owner: &RootOwner| -> Vec<StorePath> {
        let of_owner = roots.iter().filter(|root| root.owner.as_ref() == Some(owner));
        of_owner.filter_map(|root| root.target.clone()).collect()
    };
    assert_eq!(of(&app), [three]);
    assert!(others.iter().all(|owner| of(owner).len() == 1));
    for other in &others {
        keep(other, &[]);
    }
    assert_eq!(scene.store.roots().unwrap().len(), 1);
    let (_dir, store) = later(scene);
    let report = store.gc(&GcOptions::default()).unwrap();
    assert_eq!(removed(&report), ["one", "two"]);
    assert_eq!((&report.kept[0].by, report.kept[0].paths), (&KeptBy::Target(app), 1));
    assert_eq!(store.database.root_owners().unwrap().len(), 1);
}

/// One on a disk that is not there at the moment looks like one that was removed: both have their time.
#[test]
fn roots_of_a_folder_that_is_gone_expire_when_nobody_renewed_them() {
    let scene = Scene::new();
    let info = file(&scene, "x", "x", &[]);
    let folder = scene.dir.path().join("project");
    fs::create_dir(&folder).unwrap();
    let paths = BTreeSet::from([info.path.clone()]);
    scene.store.keep(&owner(&folder, "app"), &paths).unwrap();
    let made = scene.store.roots().unwrap()[0].modified;
    let (dir, store) = later(scene);
    let expired = |moment: SystemTime| {
        let options = GcOptions {
            expire_vanished_before: Some(moment),
            ..GcOptions::default()
        };
        store.gc(&options).unwrap().expired_roots.len()
    };
    let later = made + Duration::from_secs(1);
    assert_eq!(expired(later), 0, "the folder is there");
    fs::remove_dir(&folder).unwrap();
    assert!(store.roots().unwrap()[0].has_vanished());
    assert_eq!(expired(made - Duration::from_secs(1)), 0, "it was renewed since");
    assert_eq!(expired(later), 1);
    assert_eq!((store.list().unwrap(), store.roots().unwrap()), (vec![], vec![]));
    drop(dir);
}

#[test]
fn what_was_used_of_late_stays_with_all_it_refers_to() {
    let scene = Scene::new();
    let library = file(&scene, "library", "l", &[]);
    let tool = file(&scene, "tool", &format!("{}", library.path), &[&library.path]);
    let old = file(&scene, "old", "o", &[]);
    let (dir, store) = later(scene);
    let age = |paths: &[&StorePath]| {
        let connection = rusqlite::Connection::open(store.dir().join("db/db.sqlite")).unwrap();
        for path in paths {
            let id = "(SELECT id FROM path WHERE path = ?1)";
            let change = format!("UPDATE use SET last = last - 100000 WHERE path = {id}");
            assert_eq!(connection.execute(&change, [path.to_string()]).unwrap(), 1);
        }
    };
    #[expect(clippy::disallowed_methods, reason = "the store tells by the clock, too")]
    let since = SystemTime::now() - Duration::from_secs(50);
    let options = |dry_run| GcOptions {
        dry_run,
        keep_used_since: Some(since),
        ..GcOptions::default()
    };
    assert_eq!(
        store.gc(&options(true)).unwrap().removed,
        [],
        "they were just registered"
    );
    age(&[&library.path, &tool.path, &old.path]);
    assert_eq!(store.gc(&options(true)).unwrap().removed.len(), 3);
    let stranger = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-x".parse().unwrap();
    store.note_use([&tool.path, &stranger]).unwrap();
    let report = store.gc(&options(false)).unwrap();
    assert_eq!(removed(&report), ["old"]);
    assert_eq!((&report.kept[0].by, report.kept[0].paths), (&KeptBy::Recent, 2));
    assert_eq!(store.gc(&GcOptions::default()).unwrap().removed.len(), 2);
    drop(dir);
}

#[test]
fn a_collection_that_died_over_the_trash_is_finished_by_the_next() {
    let scene = Scene::new();
    let trash = scene.store.dir().join("trash/session-dead.1");
    sample(&trash);
    assert!(!scene.store.empty_trash(&|| false));
    assert!(trash.exists());
    assert_eq!(scene.store.verify(true).unwrap(), []);
    scene.store.gc(&GcOptions::default()).unwrap();
    assert!(!trash.exists());
}

#[test]
fn a_half_made_root_keeps_nothing_and_goes() {
    let scene = Scene::new();
    let info = file(&scene, "x", "x", &[]);
    let half = scene.store.dir().join("roots/.layerize-abc");
    symlink(format!("../store/{}", info.path), &half).unwrap();
    fs::write(scene.store.dir().join("roots/README"), "not a root").unwrap();
    let (_dir, store) = later(scene);
    assert_eq!(store.roots().unwrap(), []);
    assert_eq!(removed(&store.gc(&GcOptions::default()).unwrap()), ["x"]);
    assert!(!half.is_symlink());
}

#[test]
fn names_that_are_no_file_names_are_refused() {
    let scene = Scene::new();
    let info = file(&scene, "x", "x", &[]);
    for name in ["", ".", "..", "a/b", ".hidden", "a\nb", &"n".repeat(201)] {
        let error = scene.store.add_root(name, &info.path).unwrap_err();
        assert!(matches!(error, StoreError::RootName { .. }), "{name}");
    }
    let stranger = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-x".parse().unwrap();
    assert!(matches!(
        scene.store.add_root("x", &stranger),
        Err(StoreError::NotValid { .. })
    ));
}

#[test]
fn references_in_a_circle_are_collected_together() {
    let scene = Scene::new();
    let one = file(&scene, "one", "1", &[]);
    let two = file(&scene, "two", &format!("{}", one.path), &[&one.path]);
    let connection = rusqlite::Connection::open(scene.store.dir().join("db/db.sqlite")).unwrap();
    connection
        .execute(
            "INSERT INTO reference (referrer, target, kind, via) SELECT a.id, b.id, 'declared', b.path
             FROM path a, path b WHERE a.path = ?1 AND b.path = ?2",
            [one.path.to_string(), two.path.to_string()],
        )
        .unwrap();
    scene.store.add_root("one", &one.path).unwrap();
    let (_dir, store) = later(scene);
    assert_eq!(removed(&store.gc(&GcOptions::default()).unwrap()), Vec::<&str>::new());
    store.remove_root("one").unwrap();
    assert_eq!(store.gc(&GcOptions::default()).unwrap().removed.len(), 2);
    assert_eq!(store.list().unwrap(), []);
}
