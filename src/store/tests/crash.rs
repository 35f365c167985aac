//! What a crash leaves at each step, and that the next run puts it right.

use std::process::Command;

use super::*;

/// A store with one valid path, whose process died in the middle of something: `debris` made what it left.
fn crashed(debris: impl Fn(&Store)) -> (Scene, PathInfo) {
    let scene = Scene::new();
    let info = scene.output("valid", None, &[], sample);
    // A session file that nobody holds a lock on is a process that died.
    fs::write(
        scene.store.dir().join("tmp/session-dead.lock"),
        format!("{}\n", info.path),
    )
    .unwrap();
    debris(&scene.store);
    (scene, info)
}

fn reopened(scene: &Scene) -> Store {
    Store::open(scene.store.dir()).unwrap()
}

#[test]
fn staging_directories_of_the_dead_go_and_those_of_the_living_stay() {
    let (scene, info) = crashed(|store| {
        let staged = store.dir().join("tmp/session-dead.1");
        sample(&staged);
        canonical::canonicalise(&staged, 0).unwrap();
        fs::create_dir(store.dir().join("tmp/session-unheard-of.7")).unwrap();
    });
    let alive = scene.store.stage().unwrap();
    let store = reopened(&scene);
    assert!(alive.path().exists());
    assert_eq!(scene.debris(), [alive.path().file_name().unwrap().to_str().unwrap()]);
    assert_eq!(store.verify(true).unwrap(), []);
    assert_eq!(store.info(&info.path).unwrap(), Some(info));
}

#[test]
fn a_tree_renamed_but_not_registered_goes() {
    let leftover: StorePath = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-leftover".parse().unwrap();
    let (scene, _) = crashed(|store| {
        let tree = store.physical(&leftover);
        sample(&tree);
        canonical::canonicalise(&tree, 0).unwrap();
    });
    let problem = StoreProblem::Unregistered {
        name: leftover.to_string(),
    };
    assert_eq!(scene.store.verify(true).unwrap(), [problem]);
    let store = reopened(&scene);
    assert_eq!(store.verify(true).unwrap(), []);
    assert!(!store.physical(&leftover).exists());
}

#[test]
fn while_others_are_busy_the_crash_is_left_for_the_next_run() {
    let leftover: StorePath = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-leftover".parse().unwrap();
    let (scene, _) = crashed(|store| fs::create_dir(store.physical(&leftover)).unwrap());
    let busy = scene.store.lock(LockKind::Shared).unwrap();
    assert_eq!(reopened(&scene).verify(false).unwrap().len(), 1);
    drop(busy);
    assert_eq!(reopened(&scene).verify(false).unwrap(), []);
}

#[test]
fn adding_a_path_replaces_what_a_crash_left_there() {
    let scene = Scene::new();
    let source = scene.dir.path().join("source");
    sample(&source);
    let (hash, _) = crate::nar::hash(&source).unwrap();
    let dir = crate::store_path::StoreDir::layerize();
    let path = crate::store_path::content_addressed(&dir, "s", &hash, &BTreeSet::new(), false).unwrap();
    // Half a tree, and nobody noticed that its process died.
    fs::create_dir_all(scene.store.physical(&path).join("bin")).unwrap();
    fs::write(scene.store.physical(&path).join("bin/half"), "").unwrap();
    let info = scene.store.add_tree("s", &source).unwrap();
    assert_eq!(info.path, path);
    assert_eq!(scene.store.verify(true).unwrap(), []);
}

#[test]
fn a_collection_that_died_after_forgetting_is_finished() {
    let scene = Scene::new();
    let info = scene.output("garbage", None, &[], sample);
    scene.store.database.forget([&info.path]).unwrap();
    fs::write(scene.store.dir().join("tmp/session-dead.lock"), "").unwrap();
    let store = reopened(&scene);
    assert_eq!((store.list().unwrap(), store.verify(false).unwrap()), (vec![], vec![]));
    assert!(!store.physical(&info.path).exists());
}

#[test]
fn what_is_built_in_the_store_itself_is_no_debris() {
    let scene = Scene::new();
    let path: StorePath = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-place".parse().unwrap();
    let physical = scene.store.physical(&path);
    let place = scene.store.build_place(&path).unwrap();
    sample(&physical);
    fs::write(scene.store.dir().join("tmp/session-dead.lock"), "").unwrap();
    let other = reopened(&scene);
    assert_eq!(other.gc(&GcOptions::default()).unwrap().unregistered, []);
    assert_eq!(other.verify(false).unwrap(), []);
    assert!(physical.join("data").exists());
    let staging = scene.store.stage().unwrap();
    let tree = staging.path().join("tree");
    place.take(&tree).unwrap();
    assert!(tree.join("data").exists() && !physical.exists());
    assert!(
        matches!(place.take(&tree), Err(StoreError::PlaceTaken { .. })),
        "nothing is there"
    );
    sample(&physical);
    drop(place);
    assert!(!physical.exists(), "what a failed build left goes");
}

#[test]
fn a_path_that_became_valid_while_it_was_built_in_the_store_stays() {
    let scene = Scene::new();
    let info = scene.output("valid", None, &[], sample);
    let place = scene.store.build_place(&info.path).unwrap();
    let tree = scene.dir.path().join("tree");
    let error = place.take(&tree).unwrap_err();
    assert!(error.help().unwrap().starts_with("build again"), "{error}");
    drop(place);
    assert_eq!((tree.exists(), scene.store.verify(true).unwrap()), (false, vec![]));
}

#[test]
fn a_store_that_closed_leaves_no_session() {
    let scene = Scene::new();
    scene.output("valid", None, &[], sample);
    let dir = scene.store.dir().to_owned();
    drop(scene.store);
    assert_eq!(
        crate::fsio::sorted_names(&dir.join("tmp")).unwrap(),
        Vec::<std::ffi::OsString>::new()
    );
}

/// A small file system of its own, unmounted when dropped.
pub(super) struct Mounted(pub std::path::PathBuf);

impl Mounted {
    /// `None` (after saying so) where we may not mount.
    pub(super) fn tmpfs(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let options = format!("size={size},mode=0755");
        let mounted = nix::unistd::geteuid().is_root()
            && Command::new("mount")
                .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
                .arg(at)
                .status()
                .is_ok_and(|status| status.success());
        if !mounted {
            crate::testing::skip("a small file system cannot be mounted");
        }
        mounted.then(|| Self(at.to_owned()))
    }

    pub(super) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount")
            .args(["-o", &options])
            .arg(&self.0)
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_is_registered() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Mounted::tmpfs(&dir.path().join("disk"), "6m") else {
        return;
    };
    let store = Store::open(&disk.0.join("s")).unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("small"), vec![1; 1000]).unwrap();
    let small = store.add_tree("small", &source).unwrap();
    fs::write(source.join("big"), vec![7; 16 << 20]).unwrap();
    let error = store.add_tree("big", &source).unwrap_err();
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error:?}");
    assert!(error.help().unwrap().contains("layerize store gc"));
    let error = store
        .add_file_flat("big", &source.join("big"), &Digest::of(&vec![7; 16 << 20]))
        .unwrap_err();
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error:?}");
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&small));
    assert_eq!(store.verify(true).unwrap(), []);
    // With not a byte left, garbage can still be collected.
    let filler = disk.0.join("filler");
    let _ = fs::write(&filler, vec![0; 16 << 20]);
    drop(store);
    let store = Store::open(&disk.0.join("s")).unwrap();
    let report = store.gc(&GcOptions::default()).unwrap();
    assert_eq!(report.removed, [(small.path, small.nar_size)]);
    fs::remove_file(&filler).unwrap();
    fs::remove_file(source.join("big")).unwrap();
    store.add_tree("small", &source).unwrap();
    assert_eq!(store.verify(true).unwrap(), []);
}
