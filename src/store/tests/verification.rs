//! What verification finds, and repair.

use super::*;

fn writable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_file_that_was_written_to_is_named() {
    let scene = Scene::new();
    let info = scene.output("x", None, &[], sample);
    let file = scene.store.physical(&info.path).join("bin/run");
    writable(&file);
    fs::write(&file, "evil").unwrap();
    let problems = scene.store.verify(false).unwrap();
    let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        text,
        [format!(
            "`{}` was modified: `bin/run`: its mode is 0755, not 0555",
            info.path
        )]
    );
    fs::set_permissions(&file, fs::Permissions::from_mode(0o555)).unwrap();
    let text = scene.store.verify(false).unwrap()[0].to_string();
    assert!(
        text.ends_with("`bin/run`: its modification time is not 1, so something wrote to it"),
        "{text}"
    );
}

#[test]
fn bytes_that_changed_behind_our_back_are_found() {
    let scene = Scene::new();
    let info = scene.output("x", None, &[], sample);
    let tree = scene.store.physical(&info.path);
    writable(&tree.join("data"));
    fs::write(tree.join("data"), "date").unwrap();
    canonical::canonicalise(&tree, 0).unwrap();
    assert_eq!(scene.store.verify(false).unwrap(), []);
    let problems = scene.store.verify(true).unwrap();
    assert!(matches!(&problems[..], [StoreProblem::Modified { path, file: None, .. }] if *path == info.path));
}

#[test]
fn what_is_missing_or_foreign_is_found_and_repaired() {
    let scene = Scene::new();
    let library = scene.output("library", None, &[], sample);
    let program = scene.output("program", None, &[&library.path], |tree| {
        fs::write(tree, library.path.to_string()).unwrap();
    });
    let other = scene.output("other", None, &[], |tree| fs::write(tree, "other").unwrap());
    scene
        .store
        .record_realisation(&Digest::of(b"p"), "{}", &program.path)
        .unwrap();
    crate::fsio::remove_tree(&scene.store.physical(&library.path)).unwrap();
    fs::create_dir(scene.store.dir().join("store/lost+found")).unwrap();
    fs::create_dir(scene.store.dir().join("store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-left")).unwrap();
    let problems = scene.store.verify(true).unwrap();
    let foreign = |name: &str| StoreProblem::Unregistered { name: name.to_owned() };
    let expected = [
        StoreProblem::Missing {
            path: library.path.clone(),
        },
        foreign("0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-left"),
        foreign("lost+found"),
    ];
    assert_eq!(problems, expected);
    let forgotten = scene.store.repair(&problems).unwrap();
    assert_eq!(forgotten, BTreeSet::from([library.path.clone(), program.path]));
    assert_eq!(
        scene.store.verify(true).unwrap(),
        [foreign("lost+found")],
        "what is not ours is not touched"
    );
    assert_eq!(scene.store.list().unwrap(), [other]);
    assert_eq!(scene.store.realisation(&Digest::of(b"p")).unwrap(), None);
    assert_eq!(scene.output("library", None, &[], sample).path, library.path);
}

#[test]
fn a_wrong_address_is_found() {
    let scene = Scene::new();
    let info = scene.output("x", None, &[], sample);
    let wrong: StorePath = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-x".parse().unwrap();
    let connection = rusqlite::Connection::open(scene.store.dir().join("db/db.sqlite")).unwrap();
    connection
        .execute("UPDATE path SET path = ?1", [wrong.to_string()])
        .unwrap();
    fs::rename(scene.store.physical(&info.path), scene.store.physical(&wrong)).unwrap();
    let expected = StoreProblem::WrongAddress {
        path: wrong,
        expected: info.path,
    };
    assert_eq!(scene.store.verify(false).unwrap(), [expected]);
}

#[test]
fn what_cannot_be_read_is_a_problem_and_no_failure() {
    let scene = Scene::new();
    let one = scene.output("one", None, &[], |tree| fs::create_dir(tree).unwrap());
    let two = scene.output("two", None, &[], |tree| fs::write(tree, "two").unwrap());
    let tree = scene.store.physical(&one.path);
    writable(&tree);
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    canonical::seal(&tree, &crate::nar::EntryKind::Directory).unwrap();
    crate::fsio::remove_tree(&scene.store.physical(&two.path)).unwrap();
    let mut problems = scene.store.verify(true).unwrap();
    problems.sort_by_key(|problem| problem.path().map(|path| path.name().to_owned()));
    let [
        StoreProblem::Modified { path, file: None, how },
        StoreProblem::Missing { path: missing },
    ] = problems.as_slice()
    else {
        panic!("{problems:?}");
    };
    assert_eq!((path, missing), (&one.path, &two.path));
    assert!(how.contains("socket` is a socket"), "{how}");
}
