//! Opening a store: schemas, damage, reading without the right to write, many at once.

use super::crash::Mounted;
use super::*;
use crate::walls::Walls;

fn database(store: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(store.join("db/db.sqlite")).unwrap()
}

fn open_error(dir: &Path) -> StoreError {
    Store::open(dir).err().expect("the store must not open")
}

#[test]
fn a_newer_schema_is_refused() {
    let scene = Scene::new();
    database(scene.store.dir())
        .execute_batch("PRAGMA user_version = 99")
        .unwrap();
    let error = open_error(scene.store.dir());
    assert!(matches!(
        error,
        StoreError::NewerSchema {
            found: 99,
            known: 8,
            ..
        }
    ));
    assert!(error.help().unwrap().contains("newer layerize"));
}

#[test]
fn damage_is_told_and_not_repaired_by_guessing() {
    let scene = Scene::new();
    let dir = scene.store.dir().to_owned();
    let info = scene.output("x", None, &[], sample);
    database(&dir)
        .execute_batch("UPDATE path SET path = 'nonsense'")
        .unwrap();
    let error = scene.store.list().unwrap_err();
    assert!(
        error.to_string().ends_with("is damaged: it holds the path `nonsense`"),
        "{error}"
    );
    drop(scene.store);
    fs::write(dir.join("db/db.sqlite"), vec![b'x'; 8192]).unwrap();
    let error = open_error(&dir);
    assert!(matches!(error, StoreError::DatabaseDamaged { .. }), "{error:?}");
    assert!(info.nar_size > 0 && error.help().unwrap().contains("built again"));
}

#[test]
fn a_store_that_cannot_be_written_to_can_be_asked() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Mounted::tmpfs(&dir.path().join("disk"), "16m") else {
        return;
    };
    let store_dir = disk.0.join("a store?#%");
    let store = Store::open(&store_dir).unwrap();
    let source = dir.path().join("source");
    sample(&source);
    let info = store.add_tree("x", &source).unwrap();
    store.add_root("x", &info.path).unwrap();
    drop(store);
    disk.remount("ro");
    let store = Store::open(&store_dir).unwrap();
    assert_eq!(store.info(&info.path).unwrap(), Some(info.clone()));
    let closure = store.list().unwrap();
    assert_eq!(closure, std::slice::from_ref(&info));
    assert_eq!(store.verify(true).unwrap(), []);
    let dry = store
        .gc(&GcOptions {
            dry_run: true,
            ..GcOptions::default()
        })
        .unwrap();
    assert_eq!(dry.removed, []);
    for error in [
        store.add_tree("x", &source).err(),
        store.stage().err(),
        store.gc(&GcOptions::default()).err(),
        store.add_root("y", &info.path).err(),
        store.lock_build(&Digest::of(b"")).err(),
    ] {
        assert!(matches!(error, Some(StoreError::ReadOnly { .. })), "{error:?}");
    }
}

#[test]
fn a_store_is_created_once_by_whoever_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let store_dir = dir.path().join(format!("{round}/s"));
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| Store::open(&store_dir).unwrap().list().unwrap());
            }
        });
    }
}

#[test]
fn many_threads_and_stores_add_the_same_content_once() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    sample(&source);
    let store_dir = dir.path().join("s");
    let shared = Store::open(&store_dir).unwrap();
    let infos: Vec<PathInfo> = std::thread::scope(|scope| {
        let (shared, source, store_dir) = (&shared, &source, &store_dir);
        let threads: Vec<_> = (0..8)
            .map(|number| {
                scope.spawn(move || match number % 2 {
                    0 => shared.add_tree("same", source).unwrap(),
                    _ => Store::open(store_dir).unwrap().add_tree("same", source).unwrap(),
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    drop(shared);
    assert!(infos.windows(2).all(|pair| pair[0] == pair[1]));
    let store = Store::open(&store_dir).unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    assert_eq!(store.verify(true).unwrap(), []);
    assert_eq!(
        crate::fsio::sorted_names(&store_dir.join("tmp")).unwrap().len(),
        0,
        "no session is left"
    );
}

#[test]
fn a_derivation_is_built_by_one_at_a_time() {
    let scene = Scene::new();
    let derivation = Digest::of(b"derivation");
    let held = scene.store.lock_build(&derivation).unwrap();
    let second = Store::open(scene.store.dir()).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let _lock = second.lock_build(&derivation).unwrap();
            second.realisation(&derivation).unwrap()
        });
        let info = scene.output("made", None, &[], sample);
        scene
            .store
            .record_realisation(&derivation, "{\"made\":1}", &info.path)
            .unwrap();
        drop(held);
        assert_eq!(waiting.join().unwrap(), Some(info.path));
    });
}

#[test]
fn realisations_keep_their_derivation() {
    let scene = Scene::new();
    let derivation = Digest::of(b"derivation");
    let staging = scene.store.stage().unwrap();
    let tree = staging.path().join("out");
    sample(&tree);
    let output = NewOutput {
        name: "made",
        tree: &tree,
        candidates: &BTreeSet::new(),
        declare: &|_| Vec::new(),
        derivation: Some(derivation),
        policy: &crate::store::ANY_REFERENCE,
        walls: Walls::Namespaces,
        execution: crate::execution::Execution::Native,
    };
    let info = scene.store.add_output(&output).unwrap();
    assert_eq!(scene.store.realisation(&derivation).unwrap(), None);
    scene
        .store
        .record_realisation(&derivation, "{\"a\":1}", &info.path)
        .unwrap();
    scene
        .store
        .record_realisation(&Digest::of(b"another"), "{\"b\":1}", &info.path)
        .unwrap();
    let details = scene.store.info_full(&info.path).unwrap().unwrap();
    assert_eq!(details.derivation_json.as_deref(), Some("{\"a\":1}"));
    let stranger = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-x".parse().unwrap();
    let error = scene.store.record_realisation(&derivation, "", &stranger).unwrap_err();
    assert!(matches!(error, StoreError::NotValid { .. }));
}

#[test]
fn a_file_with_another_hash_is_refused() {
    let scene = Scene::new();
    let file = scene.dir.path().join("f");
    fs::write(&file, "other").unwrap();
    let error = scene
        .store
        .add_file_flat("f", &file, &Digest::of(b"declared"))
        .unwrap_err();
    assert!(matches!(error, StoreError::HashMismatch { .. }));
    assert!(error.help().unwrap().contains(&Digest::of(b"other").hex()));
    assert_eq!(scene.store.verify(true).unwrap(), []);
    assert_eq!(scene.debris(), Vec::<String>::new());
}

/// Makes a store one of the third schema, with everything in it built without a sandbox.
const THIRD: &str = "
ALTER TABLE path ADD COLUMN sandboxed INTEGER NOT NULL DEFAULT 0 CHECK (sandboxed IN (0, 1));
ALTER TABLE path DROP COLUMN walls;
ALTER TABLE path DROP COLUMN execution;
PRAGMA user_version = 3;
";

#[test]
fn walls_are_kept_and_those_of_older_stores_are_understood() {
    let scene = Scene::new();
    let walls = |store: &Store, path: &StorePath| store.info_full(path).unwrap().unwrap().provenance.walls;
    let made: Vec<(StorePath, Walls)> = (Walls::LADDER.into_iter())
        .map(|walls| {
            let staging = scene.store.stage().unwrap();
            let tree = staging.path().join("out");
            fs::write(&tree, walls.name()).unwrap();
            let output = NewOutput {
                name: walls.name(),
                tree: &tree,
                candidates: &BTreeSet::new(),
                declare: &|_| Vec::new(),
                derivation: None,
                policy: &crate::store::ANY_REFERENCE,
                walls,
                execution: crate::execution::Execution::Native,
            };
            (scene.store.add_output(&output).unwrap().path, walls)
        })
        .collect();
    for (path, expected) in &made {
        assert_eq!(walls(&scene.store, path), *expected);
    }
    let dir = scene.store.dir().to_owned();
    drop(scene.store);
    let database = rusqlite::Connection::open(dir.join("db/db.sqlite")).unwrap();
    let set = |path: &StorePath, walls: &str| {
        let set = "UPDATE path SET sandboxed = ?2 WHERE path = ?1";
        database.execute(set, (path.to_string(), walls != "none")).unwrap();
    };
    database.execute_batch(THIRD).unwrap();
    for (path, walls) in &made {
        set(path, walls.name());
    }
    drop(database);
    // Where nothing can be written it stays what it is.
    let read_only = crate::store::database::Database::open_read_only(&dir).unwrap();
    for (path, expected) in &made {
        let understood = read_only.registration(path).unwrap().unwrap().1.walls;
        let kept = if *expected == Walls::None {
            Walls::None
        } else {
            Walls::Namespaces
        };
        assert_eq!(understood, kept, "{expected}");
    }
    drop(read_only);
    let store = Store::open(&dir).unwrap();
    for (path, expected) in &made {
        let kept = if *expected == Walls::None {
            Walls::None
        } else {
            Walls::Namespaces
        };
        assert_eq!(walls(&store, path), kept);
    }
    assert_eq!(store.verify(true).unwrap(), []);
}

#[test]
fn a_store_of_the_first_schema_is_upgraded() {
    let scene = Scene::new();
    let file = scene.dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let info = scene.store.add_tree("file", &file).unwrap();
    let dir = scene.store.dir().to_owned();
    drop(scene.store);
    rusqlite::Connection::open(dir.join("db/db.sqlite"))
        .and_then(|database| {
            database.execute_batch(THIRD)?;
            database.execute_batch(
                "DROP TABLE signature; DROP TABLE attestation; DROP TABLE use; DROP TABLE root; PRAGMA user_version = 1",
            )
        })
        .unwrap();
    let store = Store::open(&dir).unwrap();
    // Nobody knows when what is in it was used: that counts from now on.
    let hour = std::time::Duration::from_secs(3600);
    #[expect(clippy::disallowed_methods, reason = "the store tells by the clock, too")]
    let since = std::time::SystemTime::now() - hour;
    let kept = store.gc(&GcOptions {
        keep_used_since: Some(since),
        ..GcOptions::default()
    });
    assert_eq!(kept.unwrap().removed, []);
    assert_eq!(store.attestation(&info.path).unwrap(), Attestation::default());
    store.add_signature(&info.path, "name:signature").unwrap();
    store.add_signature(&info.path, "name:signature").unwrap();
    let signatures = store.attestation(&info.path).unwrap().signatures;
    assert_eq!(signatures.into_iter().collect::<Vec<_>>(), ["name:signature"]);
    assert_eq!(store.verify(true).unwrap(), []);
}
