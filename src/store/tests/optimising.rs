//! Identical files become one file on the disk, and nobody is any the worse for it.

use super::*;

fn inode(store: &Store, path: &StorePath, file: &str) -> u64 {
    let tree = store.physical(path);
    let place = if file.is_empty() { tree } else { tree.join(file) };
    fs::symlink_metadata(place).unwrap().ino()
}

/// A tree with a file of its own, one that others have, one of those bytes that is a program, and an empty one.
fn tree(scene: &Scene, name: &str) -> StorePath {
    let build = |tree: &Path| {
        fs::create_dir_all(tree.join("dir/deep")).unwrap();
        fs::write(tree.join("own"), name).unwrap();
        fs::write(tree.join("dir/deep/shared"), "shared".repeat(1000)).unwrap();
        fs::write(tree.join("dir/again"), "shared".repeat(1000)).unwrap();
        fs::write(tree.join("program"), "shared".repeat(1000)).unwrap();
        fs::set_permissions(tree.join("program"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(tree.join("empty"), "").unwrap();
    };
    scene.output(name, None, &[], build).path
}

#[test]
fn identical_files_share_their_content() {
    let scene = Scene::new();
    let [one, two, three] = ["one", "two", "three"].map(|name| tree(&scene, name));
    let file = scene.output("file", None, &[], |tree| {
        fs::write(tree, "shared".repeat(1000)).unwrap()
    });
    let hashes = |paths: &[&StorePath]| -> Vec<_> {
        let hash = |path: &&StorePath| crate::nar::hash(&scene.store.physical(path)).unwrap();
        paths.iter().map(hash).collect()
    };
    let before = hashes(&[&one, &two, &three, &file.path]);
    let done = scene.store.optimise(&|| true).unwrap();
    // Of seven files with these bytes one stays, and of three programs.
    assert_eq!(
        done,
        Optimised {
            files: 8,
            bytes: 8 * 6000
        }
    );
    let shared = inode(&scene.store, &one, "dir/again");
    for path in [&one, &two, &three] {
        assert_eq!(inode(&scene.store, path, "dir/again"), shared);
        assert_eq!(inode(&scene.store, path, "dir/deep/shared"), shared);
        assert_ne!(inode(&scene.store, path, "program"), shared, "it can be run");
        assert_eq!(
            inode(&scene.store, path, "program"),
            inode(&scene.store, &one, "program")
        );
    }
    assert_eq!(inode(&scene.store, &file.path, ""), shared);
    assert_ne!(inode(&scene.store, &one, "empty"), inode(&scene.store, &two, "empty"));
    assert_eq!(scene.store.verify(true).unwrap(), []);
    assert_eq!(hashes(&[&one, &two, &three, &file.path]), before);
    assert_eq!(scene.debris(), Vec::<String>::new());
    let again = scene.store.optimise(&|| true).unwrap();
    assert_eq!(again, Optimised { files: 0, bytes: 0 });
    // What is added later joins them; what goes takes nothing from them.
    let four = tree(&scene, "four");
    assert_eq!(scene.store.optimise(&|| true).unwrap().files, 3);
    scene.store.add_root("four", &four).unwrap();
    let dir = scene.store.dir().to_owned();
    drop(scene.store);
    let store = Store::open(&dir).unwrap();
    assert_eq!(store.gc(&GcOptions::default()).unwrap().removed.len(), 4);
    assert_eq!(store.verify(true).unwrap(), []);
    assert_eq!(
        fs::read_to_string(store.physical(&four).join("dir/again"))
            .unwrap()
            .len(),
        6000
    );
}

#[test]
fn what_was_changed_is_not_passed_on() {
    let scene = Scene::new();
    let [one, two] = ["one", "two"].map(|name| tree(&scene, name));
    let damaged = scene.store.physical(&one).join("dir/again");
    fs::set_permissions(&damaged, fs::Permissions::from_mode(0o644)).unwrap();
    scene.store.optimise(&|| true).unwrap();
    assert_ne!(
        inode(&scene.store, &one, "dir/again"),
        inode(&scene.store, &two, "dir/again")
    );
    let problems = scene.store.verify(true).unwrap();
    let paths: Vec<_> = problems.iter().filter_map(StoreProblem::path).collect();
    assert_eq!(paths, [&one]);
}

#[test]
fn what_a_crash_left_of_directories_is_put_right() {
    let scene = Scene::new();
    let [one, two] = ["one", "two"].map(|name| tree(&scene, name));
    let note = format!("{one}\nlinking {two}\nlinking {one}\n");
    fs::write(scene.store.dir().join("tmp/session-dead.lock"), note).unwrap();
    let dir = scene.store.physical(&one).join("dir");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(scene.store.dir().join("tmp/session-dead.1"), "a link on its way").unwrap();
    crate::fsio::note_use(&dir);
    assert_eq!(scene.store.verify(true).unwrap().len(), 1);
    let other = Store::open(scene.store.dir()).unwrap();
    assert_eq!(other.verify(true).unwrap(), []);
    assert_eq!(scene.debris(), Vec::<String>::new());
}

/// A link cannot be made where as many as may be are there, or where the first was collected: the next one takes its place.
#[test]
fn a_first_that_is_gone_is_replaced() {
    let scene = Scene::new();
    let paths = ["a", "b", "c"].map(|name| tree(&scene, name));
    let count = std::cell::Cell::new(0);
    // When all sizes are known and the first two trees were read, the first goes.
    let go_on = || {
        count.set(count.get() + 1);
        if count.get() == 24 + 10 {
            let tree = scene.store.physical(paths.iter().min().unwrap());
            crate::fsio::remove_tree(&tree).unwrap();
        }
        true
    };
    let done = scene.store.optimise(&go_on).unwrap();
    assert!(done.files > 0, "{done:?} after {}", count.get());
    let problems = scene.store.verify(true).unwrap();
    assert!(matches!(&problems[..], [StoreProblem::Missing { .. }]), "{problems:?}");
}
