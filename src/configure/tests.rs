//! What scripts find before they run, and what is told from what they leave; no script is run here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;

use super::harvest::{Change, Upper};
use super::package::Package;
use super::*;
use crate::sandbox::OWNER_ATTRIBUTE;

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A package with a configuration file, a trigger of paths and a file below such a one.
fn package(dir: &Path, name: &str) -> Source {
    let (tree, control) = (dir.join(name), dir.join(format!("{name}-control")));
    write(&tree.join("etc").join(format!("{name}.conf")), "shipped\n");
    write(&tree.join("usr/bin/tool"), "#!");
    write(&tree.join("usr/share/watched").join(name), "x");
    write(
        &control.join("control/control"),
        &format!("Package: {name}\nVersion: 1.0\nArchitecture: amd64\nMulti-Arch: same\n"),
    );
    write(
        &control.join("control/conffiles"),
        &format!("/etc/{name}.conf\nremove-on-upgrade /etc/old\n"),
    );
    write(
        &control.join("control/triggers"),
        "interest-noawait /usr/share/watched # a comment\n",
    );
    write(&control.join("control/postinst"), "#!/bin/sh\n");
    write(
        &control.join("files"),
        &format!(
            "d 755 0 0 /\nf 644 0 0 /etc/{name}.conf\nf 4755 0 42 /bin/tool\nf 644 0 0 /usr/share/watched/{name}\n"
        ),
    );
    Source {
        name: name.to_owned(),
        tree,
        control,
    }
}

#[test]
fn packages_look_unpacked_and_not_configured() {
    let dir = tempfile::tempdir().unwrap();
    let packages = ["one", "two"].map(|name| Package::read(&package(dir.path(), name)).unwrap());
    let skipped = BTreeMap::from([("two".to_owned(), "a reason".to_owned())]);
    let seed = seed::make(dir.path().join("seed"), &packages.each_ref(), None, &skipped).unwrap();
    let read = |path: &str| fs::read_to_string(seed.dir().join(path)).unwrap();
    let status = read("var/lib/dpkg/status");
    // dpkg(1): a package without a hash of its configuration file is one whose file is new.
    assert!(
        status.contains("Package: one\nStatus: install ok unpacked\n"),
        "{status}"
    );
    assert!(status.contains("Conffiles:\n /etc/one.conf newconffile\n"), "{status}");
    assert!(
        status.contains("Package: two\nStatus: install ok installed\n"),
        "{status}"
    );
    assert!(!status.contains("/etc/old"), "{status}");
    assert_eq!(read("etc/one.conf.dpkg-new"), "shipped\n");
    let hidden = fs::symlink_metadata(seed.dir().join("etc/one.conf")).unwrap();
    assert!(hidden.file_type().is_char_device());
    assert!(fs::symlink_metadata(seed.dir().join("etc/two.conf")).is_err());
    // Both have `Multi-Arch: same`.
    let list = read("var/lib/dpkg/info/one:amd64.list");
    assert_eq!(list, "/.\n/etc/one.conf\n/bin/tool\n/usr/share/watched/one\n");
    assert_eq!(
        read("var/lib/dpkg/triggers/File"),
        "/usr/share/watched one/noawait\n/usr/share/watched two/noawait\n"
    );
    assert_eq!(read("var/lib/dpkg/triggers/Unincorp"), "/usr/share/watched -\n");
    assert_eq!(fs::read_link(seed.dir().join("bin")).unwrap(), PathBuf::from("usr/bin"));
}

#[test]
fn what_packages_ship_keeps_its_modes_and_owners_after_the_merge_of_usr() {
    let dir = tempfile::tempdir().unwrap();
    let package = Package::read(&package(dir.path(), "one")).unwrap();
    let entries = shipped_attributes(&[&package]);
    let [(path, entry)] = entries.iter().collect::<Vec<_>>()[..] else {
        panic!("{entries:?}")
    };
    assert_eq!(
        (path.as_str(), entry.mode, entry.uid, entry.gid),
        ("usr/bin/tool", 0o4755, 0, 42)
    );
}

#[test]
fn only_what_scripts_made_or_changed_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (lower, upper) = (dir.path().join("lower"), dir.path().join("upper"));
    for (path, text) in [
        ("etc/same", "1"),
        ("etc/other", "1"),
        ("etc/mode", "1"),
        ("etc/owner", "1"),
    ] {
        write(&lower.join(path), text);
        fs::set_permissions(lower.join(path), fs::Permissions::from_mode(0o444)).unwrap();
    }
    let mut watched = Upper::new(upper.clone());
    for (path, text, mode) in [
        // Copied up as it was, with the mode of a store path.
        ("etc/same", "1", 0o444),
        ("etc/other", "2", 0o644),
        ("etc/mode", "1", 0o600),
        ("etc/owner", "1", 0o644),
        ("etc/new", "1", 0o444),
    ] {
        write(&upper.join(path), text);
        fs::set_permissions(upper.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    rustix::fs::setxattr(upper.join("etc/owner"), OWNER_ATTRIBUTE, b"33:42", XattrFlags::empty()).unwrap();
    symlink("new", upper.join("etc/link")).unwrap();
    watched.look(&BTreeSet::from(["one".to_owned()])).unwrap();
    fs::write(upper.join("etc/other"), "22").unwrap();
    watched.look(&BTreeSet::from(["two".to_owned()])).unwrap();
    let changes = watched.changes(&[lower], &BTreeMap::new()).unwrap();
    let told: Vec<_> = (changes.iter())
        .map(|(path, change)| match change {
            Change::Removed { .. } => panic!("{path} was not removed"),
            Change::Made { entry, is_new, .. } => {
                let by: Vec<&str> = entry.by.iter().map(String::as_str).collect();
                (path.as_str(), entry.mode, entry.uid, entry.gid, *is_new, by.join(" "))
            }
        })
        .collect();
    let one = || "one".to_owned();
    assert_eq!(
        told,
        [
            ("etc/link", 0o777, 0, 0, true, one()),
            ("etc/mode", 0o600, 0, 0, false, one()),
            ("etc/new", 0o644, 0, 0, true, one()),
            ("etc/other", 0o644, 0, 0, true, "one two".to_owned()),
            ("etc/owner", 0o644, 33, 42, false, one()),
        ]
    );
}

/// A package with a page of help, and what it diverts of others.
fn with_diversions(dir: &Path, name: &str, record: &str) -> Source {
    let source = package(dir, name);
    write(&source.tree.join("usr/share/doc/help"), name);
    write(&source.tree.join(crate::root::RECORDS_DIR).join(name), record);
    source
}

/// dpkg-divert(1): the other package's file stands elsewhere, the package's own stays; where it has none, nothing is there.
#[test]
fn diverted_files_stand_where_they_do_in_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let record =
        r#"{"diversions":{"usr/bin/tool2":"usr/bin/tool2.real","usr/share/doc/help":"usr/share/doc/help.tiny"}}"#;
    let (big, tiny) = (
        with_diversions(dir.path(), "big", record),
        with_diversions(dir.path(), "tiny", "{}"),
    );
    write(&tiny.tree.join("usr/bin/tool2"), "#!");
    let mut files = fs::read_to_string(tiny.control.join("files")).unwrap();
    files.push_str("f 4755 0 0 /bin/tool2\n");
    write(&tiny.control.join("files"), &files);
    let packages = [&big, &tiny].map(|source| Package::read(source).unwrap());
    let seed = seed::make(dir.path().join("seed"), &packages.each_ref(), None, &BTreeMap::new()).unwrap();
    let read = |path: &str| fs::read_to_string(seed.dir().join(path)).unwrap();
    assert_eq!(
        read("var/lib/dpkg/diversions"),
        "/usr/bin/tool2\n/usr/bin/tool2.real\nbig\n/bin/tool2\n/bin/tool2.real\nbig\n\
         /usr/share/doc/help\n/usr/share/doc/help.tiny\nbig\n"
    );
    assert_eq!(
        (read("usr/share/doc/help"), read("usr/share/doc/help.tiny")),
        ("big".to_owned(), "tiny".to_owned())
    );
    assert_eq!(read("usr/bin/tool2.real"), "#!");
    let hidden = fs::symlink_metadata(seed.dir().join("usr/bin/tool2")).unwrap();
    assert!(hidden.file_type().is_char_device());
    let entries = shipped_attributes(&packages.each_ref());
    assert_eq!(entries["usr/bin/tool2.real"].mode, 0o4755);
    assert!(!entries.contains_key("usr/bin/tool2"));
}

#[test]
fn what_is_diverted_already_is_so_once() {
    let dir = tempfile::tempdir().unwrap();
    let one = with_diversions(
        dir.path(),
        "one",
        r#"{"diversions":{"etc/a":"etc/a.x","usr/b":"usr/b.x"}}"#,
    );
    let one = Package::read(&one).unwrap();
    let diversions = Diversions::of(std::iter::once(&one));
    assert_eq!(
        diversions.database("/etc/a\n/etc/a.x\none\n"),
        "/etc/a\n/etc/a.x\none\n/usr/b\n/usr/b.x\none\n"
    );
    assert_eq!(diversions.place("one", "etc/a"), "etc/a");
    assert_eq!(diversions.place("two", "etc/a"), "etc/a.x");
}
