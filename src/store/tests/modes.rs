//! What becomes of a tree's modes, owners, attributes and hard links, and what is refused.

use std::os::unix::net::UnixListener;

use super::*;
use crate::walls::Walls;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn modes_that_forbid_reading_are_no_obstacle() {
    let scene = Scene::new();
    let info = scene.output("locked", None, &[], |tree| {
        fs::create_dir_all(tree.join("d/e")).unwrap();
        fs::write(tree.join("d/e/f"), "x").unwrap();
        fs::write(tree.join("suid"), "x").unwrap();
        for (name, bits) in [("d/e/f", 0o000), ("d/e", 0o000), ("d", 0o1777), ("suid", 0o6711)] {
            fs::set_permissions(tree.join(name), fs::Permissions::from_mode(bits)).unwrap();
        }
    });
    let tree = scene.store.physical(&info.path);
    let modes = ["", "d", "d/e", "d/e/f", "suid"].map(|name| mode(&tree.join(name)));
    assert_eq!(modes, [0o555, 0o555, 0o555, 0o444, 0o555]);
    assert_eq!(scene.store.verify(true).unwrap(), []);
}

#[test]
fn hard_links_to_the_outside_are_broken_and_inner_ones_kept() {
    let scene = Scene::new();
    let outside = scene.store.dir().join("cache/outside");
    fs::write(&outside, "shared").unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o640)).unwrap();
    let info = scene.output("links", None, &[], |tree| {
        fs::create_dir(tree).unwrap();
        fs::hard_link(&outside, tree.join("a")).unwrap();
        fs::hard_link(&outside, tree.join("b")).unwrap();
        fs::write(tree.join("c"), "own").unwrap();
        fs::hard_link(tree.join("c"), tree.join("d")).unwrap();
    });
    let tree = scene.store.physical(&info.path);
    assert_eq!(
        (mode(&outside), fs::metadata(&outside).unwrap().nlink()),
        (0o640, 1),
        "the outside is untouched"
    );
    assert_ne!(
        fs::metadata(&outside).unwrap().ino(),
        fs::metadata(tree.join("a")).unwrap().ino()
    );
    assert_eq!(fs::read_to_string(tree.join("b")).unwrap(), "shared");
    let inode = |name: &str| fs::metadata(tree.join(name)).unwrap().ino();
    assert_eq!(inode("c"), inode("d"));
}

#[test]
fn extended_attributes_are_dropped() {
    let scene = Scene::new();
    let info = scene.output("attributes", None, &[], |tree| {
        fs::create_dir(tree).unwrap();
        fs::write(tree.join("f"), "x").unwrap();
        for path in [tree.to_owned(), tree.join("f")] {
            let set = rustix::fs::lsetxattr(&path, "user.note", b"x", rustix::fs::XattrFlags::empty());
            if set.is_err() {
                crate::testing::skip("the file system has no extended attributes");
            }
        }
    });
    let tree = scene.store.physical(&info.path);
    for path in [tree.clone(), tree.join("f")] {
        let mut names = [0; 256];
        let length = rustix::fs::llistxattr(&path, &mut names[..]).unwrap_or(0);
        assert!(!names[..length].starts_with(b"user."), "{}", path.display());
    }
}

#[test]
fn owners_become_ours() {
    if !nix::unistd::geteuid().is_root() {
        return crate::testing::skip("only root can give files away");
    }
    let scene = Scene::new();
    let info = scene.output("owned", None, &[], |tree| {
        sample(tree);
        for name in ["", "bin", "bin/run", "data", "link"] {
            std::os::unix::fs::lchown(tree.join(name), Some(1234), Some(5678)).unwrap();
        }
    });
    let tree = scene.store.physical(&info.path);
    for name in ["", "bin", "bin/run", "data", "link"] {
        let metadata = fs::symlink_metadata(tree.join(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (0, 0), "{name}");
    }
    assert_eq!(mode(&tree.join("bin/run")), 0o555);
}

#[test]
fn what_has_no_archive_is_refused_and_nothing_registered() {
    let scene = Scene::new();
    let staging = scene.store.stage().unwrap();
    let tree = staging.path().join("out");
    fs::create_dir_all(tree.join("run")).unwrap();
    let _socket = UnixListener::bind(tree.join("run/socket")).unwrap();
    let error = scene
        .store
        .add_output(&NewOutput {
            name: "socket",
            tree: &tree,
            candidates: &BTreeSet::new(),
            declare: &|_| Vec::new(),
            derivation: None,
            policy: &crate::store::ANY_REFERENCE,
            walls: Walls::Namespaces,
            execution: crate::execution::Execution::Native,
        })
        .unwrap_err();
    assert!(matches!(&error, StoreError::Tree(_)));
    assert!(error.to_string().contains("out/run/socket` is a socket"), "{error}");
    assert!(error.help().is_some());
    let error = scene.store.add_tree("socket", &tree).unwrap_err();
    assert!(error.to_string().contains("is a socket"), "{error}");
    assert_eq!(scene.store.list().unwrap(), []);
    drop(staging);
    assert_eq!(scene.debris(), Vec::<String>::new());
}

#[test]
fn files_and_symlinks_can_be_outputs() {
    let scene = Scene::new();
    let file = scene.output("file", None, &[], |tree| fs::write(tree, "x").unwrap());
    let link = scene.output("link", None, &[], |tree| symlink("to/nowhere", tree).unwrap());
    assert_eq!(fs::read_to_string(scene.store.physical(&file.path)).unwrap(), "x");
    assert_eq!(
        fs::read_link(scene.store.physical(&link.path)).unwrap(),
        Path::new("to/nowhere")
    );
    assert_eq!(scene.store.verify(true).unwrap(), []);
}
