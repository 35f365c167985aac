//! Roots of images, hostile ones among them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::*;
use crate::fsio::walk;
use crate::oci::Compression;
use crate::sandbox::{Identity, OWNER_ATTRIBUTE};
use crate::transport::testing::{Node, layer, tar};

fn root_of(dir: &Path, layers: &[&[Node]], user: &Identity) -> Result<tree::ImageRoot, ContainerError> {
    let layers: Vec<_> = layers
        .iter()
        .map(|nodes| layer(&tar(nodes), Compression::default()))
        .collect();
    Roots::open(&dir.join("roots")).unwrap().of(&layers, user)
}

/// All that is in a root: paths, with what files hold and links lead to.
fn listed(root: &Path) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for entry in walk(root) {
        let entry = entry.unwrap();
        let below = entry.path().strip_prefix(root).unwrap().display().to_string();
        let kind = entry.file_type();
        all.push(match (kind.is_dir(), kind.is_symlink()) {
            _ if below.is_empty() => continue,
            (true, _) => format!("{below}/"),
            (_, true) => format!("{below} -> {}", fs::read_link(entry.path()).unwrap().display()),
            _ => format!("{below}: {}", fs::read_to_string(entry.path()).unwrap()),
        });
    }
    all
}

#[test]
fn layers_are_applied_as_the_specification_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let bottom = [
        Node::dir("etc"),
        Node::file("etc/a", "1"),
        Node::file("etc/b", "2"),
        Node::dir("opaque"),
        Node::file("opaque/gone", "x"),
        Node::file("was-file", "x"),
        Node::dir("was-dir"),
        Node::file("was-dir/below", "x"),
        Node::hard_link("linked", "etc/a"),
        Node::symlink("was-link", "etc"),
    ];
    let top = [
        Node::file("etc/.wh.b", ""),
        Node::file("opaque/.wh..wh..opq", ""),
        Node::file("opaque/new", "3"),
        Node::dir("was-file"),
        Node::file("was-dir", "4"),
        Node::file("etc/a", "5"),
        Node::hard_link("again", "linked"),
        Node::file("was-link/own", "6"),
    ];
    let root = root_of(dir.path(), &[&bottom, &top], &Identity::default()).unwrap();
    let expected = [
        "again: 1",
        "etc/",
        "etc/a: 5",
        "linked: 1",
        "opaque/",
        "opaque/new: 3",
        "was-dir: 4",
        "was-file/",
        "was-link/",
        "was-link/own: 6",
    ];
    assert_eq!(listed(&root.path), expected);
    let inode = |name: &str| fs::metadata(root.path.join(name)).unwrap().ino();
    assert_eq!(inode("again"), inode("linked"));
}

/// Whatever an image says, nothing is written outside its root, and nothing outside is linked to.
#[test]
fn hostile_layers_do_not_escape() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "untouched").unwrap();
    let target = outside.to_str().unwrap();
    let cases: [&[&[Node]]; 7] = [
        &[&[Node::symlink("x", target), Node::file("x/file", "bad")]],
        &[
            &[Node::symlink("x", target)],
            &[Node::file("x/file", "bad"), Node::dir("x/new")],
        ],
        &[&[Node::file("../../outside/file", "bad")]],
        &[&[Node::file("a/../../../outside/file", "bad")]],
        &[&[Node::hard_link("x", "../../outside/file")]],
        &[&[Node::hard_link("x", target)]],
        &[&[Node::symlink("x", target), Node::hard_link("y", "x/file")]],
    ];
    for (index, layers) in cases.iter().enumerate() {
        let made = root_of(dir.path(), layers, &Identity::default());
        assert_eq!(made.is_ok(), index < 2, "{index}: {:?}", made.err());
        assert_eq!(
            fs::read_to_string(outside.join("file")).unwrap(),
            "untouched",
            "{index}"
        );
        assert_eq!(listed(&outside), ["file: untouched"], "{index}");
    }
    let left = crate::fsio::sorted_names(&dir.path().join("roots")).unwrap();
    assert!(
        left.iter().all(|name| !name.to_string_lossy().ends_with(".new")),
        "{left:?}"
    );
}

#[test]
fn files_are_noted_and_lend_no_rights() {
    let dir = tempfile::tempdir().unwrap();
    let user = Identity {
        uid: 1000,
        gid: 1000,
        groups: vec![1000],
    };
    let with_mode = |path: &str, mode| Node {
        mode,
        ..Node::file(path, "x")
    };
    let nodes = [
        with_mode("set", 0o6755),
        with_mode("closed", 0o600),
        with_mode("open", 0o644),
    ];
    let first = root_of(dir.path(), &[&nodes], &user).unwrap();
    for (name, mode, noted) in [
        ("set", 0o500, "0:0:6755"),
        ("closed", 0, "0:0:600"),
        ("open", 0o400, "0:0:644"),
    ] {
        let path = first.path.join(name);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode, "{name}");
        let mut text = [0; 32];
        let size = rustix::fs::getxattr(&path, OWNER_ATTRIBUTE, &mut text[..]).unwrap();
        assert_eq!(std::str::from_utf8(&text[..size]).unwrap(), noted, "{name}");
    }
    let roots = dir.path().join("roots");
    assert_eq!(fs::metadata(&roots).unwrap().permissions().mode() & 0o777, 0o700);
    // The same image and user: the same root. Another user: another.
    let again = root_of(dir.path(), &[&nodes], &user).unwrap();
    assert_eq!(again.path, first.path);
    assert_ne!(
        root_of(dir.path(), &[&nodes], &Identity::default()).unwrap().path,
        first.path
    );
}

#[test]
fn roots_that_were_used_longest_ago_go_unless_they_are_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let make = |text: &str| root_of(dir.path(), &[&[Node::file("f", text)]], &Identity::default()).unwrap();
    let held = make("held");
    let dropped = make("dropped").path.clone();
    for number in 0..8 {
        make(&number.to_string());
    }
    assert!(held.path.join("f").is_file());
    assert!(!dropped.exists());
}

#[test]
fn a_damaged_layer_makes_no_root() {
    let dir = tempfile::tempdir().unwrap();
    let mut broken = layer(&tar(&[Node::file("f", "x")]), Compression::None);
    broken.content = crate::layer::Blob::Bytes(vec![0; broken.size() as usize].into());
    let roots = Roots::open(dir.path()).unwrap();
    let error = roots.of(&[broken], &Identity::default()).unwrap_err();
    assert!(matches!(error, ContainerError::Layer { .. }), "{error}");
}
