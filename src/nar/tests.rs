//! Tests of the archive format as a whole.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use proptest::prelude::*;

use super::oracle::{Nix, TREES};
use super::*;

fn archive(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(path, &mut bytes).unwrap();
    bytes
}

/// Made with `nix-store --dump` of Nix 2.8.
const GOLDEN_HASHES: &str = include_str!("../../fixtures/nar/hashes.txt");

#[test]
fn hashes_are_the_golden_ones() {
    let dir = tempfile::tempdir().unwrap();
    let mut lines = String::new();
    for (name, make) in TREES {
        let path = dir.path().join(name);
        make(&path);
        let (hash, size) = hash(&path).unwrap();
        lines.push_str(&format!("{name} {hash} {size}\n"));
    }
    assert_eq!(lines, GOLDEN_HASHES);
}

#[test]
fn archives_are_those_of_nix() {
    let Some(nix) = Nix::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    for (name, make) in TREES {
        let path = dir.path().join(name);
        make(&path);
        let theirs = nix.run("nix-store", &["--dump", path.to_str().unwrap()], None).stdout;
        assert!(archive(&path) == theirs, "{name}");
    }
}

#[test]
fn nix_restores_our_archives() {
    let Some(nix) = Nix::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    for (name, make) in TREES {
        let path = dir.path().join(name);
        make(&path);
        let (file, back) = (dir.path().join("archive"), dir.path().join(format!("{name}-back")));
        fs::write(&file, archive(&path)).unwrap();
        nix.run("nix-store", &["--restore", back.to_str().unwrap()], Some(&file));
        assert_eq!(hash(&back).unwrap(), hash(&path).unwrap(), "{name}");
    }
}

#[test]
fn a_tree_comes_back_from_its_archive() {
    let dir = tempfile::tempdir().unwrap();
    for (name, make) in TREES {
        let path = dir.path().join(name);
        make(&path);
        let bytes = archive(&path);
        let back = dir.path().join(format!("{name}-back"));
        restore(&mut bytes.as_slice(), &back).unwrap();
        assert!(archive(&back) == bytes, "{name}");
    }
}

#[test]
fn the_walk_lists_directories_in_byte_order_of_names() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("t");
    fs::create_dir_all(root.join("a/x")).unwrap();
    for name in ["a-b", "a.b", "a0", "a/y", "a/x/z", "B"] {
        fs::write(root.join(name), "").unwrap();
    }
    let entries: Vec<Entry> = walk(&root).collect::<Result<_, _>>().unwrap();
    let paths: Vec<&[u8]> = entries.iter().map(|entry| entry.path.as_slice()).collect();
    let expected: [&[u8]; 9] = [b"", b"B", b"a", b"a/x", b"a/x/z", b"a/y", b"a-b", b"a.b", b"a0"];
    assert_eq!(paths, expected);
    let slash_first = |path: &[u8]| {
        path.iter()
            .map(|&byte| if byte == b'/' { 0 } else { byte })
            .collect::<Vec<_>>()
    };
    assert!(paths.is_sorted_by_key(|path| slash_first(path)));
    let depths: Vec<usize> = entries.iter().map(Entry::depth).collect();
    assert_eq!(depths, [0, 1, 1, 2, 3, 2, 1, 1, 1]);
    assert_eq!(entries[4].name(), b"z");
}

#[test]
fn what_has_no_archive_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("t");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a"), "").unwrap();
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    let error = hash(&root).unwrap_err();
    assert!(matches!(&error, NarError::Unsupported { path, kind: "socket" } if path.ends_with("t/socket")));
    assert!(error.help().unwrap().contains("socket"));
    fs::remove_file(root.join("socket")).unwrap();
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let error = hash(&root).unwrap_err().to_string();
    assert!(
        error.ends_with("/t/fifo` is a fifo: only files, directories and symlinks can be archived"),
        "{error}"
    );
}

#[test]
fn a_file_that_changes_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    for after in ["shorter", "longer than it was before"] {
        fs::write(&file, "of sixteen bytes").unwrap();
        let result = visit(&file, &mut |_, contents| {
            fs::write(&file, after).unwrap();
            io::copy(contents, &mut io::sink()).ok();
            Ok(())
        });
        assert!(
            matches!(result, Err(NarError::Changed { path }) if path == file),
            "{after}"
        );
    }
}

/// Strings as the archive writes them.
fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in words {
        bytes.extend_from_slice(&(word.len() as u64).to_le_bytes());
        bytes.extend_from_slice(word);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}

/// A directory with empty files of these names.
fn directory(names: &[&[u8]]) -> Vec<u8> {
    let mut words: Vec<&[u8]> = vec![b"nix-archive-1", b"(", b"type", b"directory"];
    for &name in names {
        words.extend([b"entry".as_slice(), b"(", b"name", name, b"node"]);
        words.extend([b"(".as_slice(), b"type", b"regular", b"contents", b"", b")", b")"]);
    }
    words.push(b")");
    encode(&words)
}

fn refused(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("dest");
    let error = restore(&mut &bytes[..], &dest).unwrap_err();
    assert!(!dest.exists(), "a failed restore leaves nothing");
    error.to_string()
}

#[test]
fn hostile_names_are_refused() {
    let long = [b'n'; MAX_NAME + 1];
    let cases: [(&[&[u8]], &str); 9] = [
        (&[b"b", b"a"], "`a` does not come after the name before it"),
        (&[b"a", b"a"], "`a` does not come after the name before it"),
        (&[b"."], "`.` cannot be a name"),
        (&[b".."], "`..` cannot be a name"),
        (&[b""], "`` cannot be a name"),
        (&[b"a/b"], "the name `a/b` holds a slash or a zero byte"),
        (&[b"/etc/passwd"], "the name `/etc/passwd` holds a slash or a zero byte"),
        (&[b"a\0b"], "the name `a\\0b` holds a slash or a zero byte"),
        (&[&long], "a name of 256 bytes is longer than 255"),
    ];
    for (names, reason) in cases {
        let error = refused(&directory(names));
        assert!(
            error.starts_with("the archive is malformed at byte ") && error.ends_with(reason),
            "{error}"
        );
    }
    restore(
        &mut directory(&[b"a", b"b"]).as_slice(),
        &tempfile::tempdir().unwrap().path().join("d"),
    )
    .unwrap();
}

#[test]
fn malformed_archives_are_refused() {
    let magic: &[u8] = b"nix-archive-1";
    let mut absurd = encode(&[magic, b"(", b"type", b"regular", b"contents"]);
    absurd.extend_from_slice(&u64::MAX.to_le_bytes());
    let mut padded = encode(&[magic, b"(", b"type", b"symlink", b"target", b"x", b")"]);
    let dirty = padded.len() - 17;
    padded[dirty] = 1;
    let mut trailing = directory(&[b"a"]);
    trailing.push(0);
    let cases: [(Vec<u8>, &str); 11] = [
        (Vec::new(), "ends early"),
        (encode(&[b"nix-archive-2"]), "`nix-archive-1` was expected"),
        (vec![0xff; 64], "a word of 18446744073709551615 bytes is longer than 16"),
        (
            encode(&[magic, b"(", b"type", b"socket", b")"]),
            "neither `regular` nor",
        ),
        (
            encode(&[magic, b"(", b"type", b"symlink", b"target", b"", b")"]),
            "is empty or holds a zero byte",
        ),
        (
            encode(&[magic, b"(", b"type", b"symlink", b"target", b"a\0", b")"]),
            "is empty or holds a zero byte",
        ),
        (
            encode(&[
                magic,
                b"(",
                b"type",
                b"regular",
                b"executable",
                b"x",
                b"contents",
                b"",
                b")",
            ]),
            "`` was expected",
        ),
        (
            encode(&[magic, b"(", b"type", b"directory", b"name", b"x"]),
            "`entry` or `)` was expected",
        ),
        (absurd, "ends early"),
        (padded, "the padding is not zero"),
        (trailing, "bytes follow the end of the archive"),
    ];
    for (bytes, reason) in cases {
        let error = refused(&bytes);
        assert!(error.contains(reason), "{error} / {reason}");
    }
}

#[test]
fn every_truncation_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("t");
    fs::create_dir_all(tree.join("d")).unwrap();
    fs::write(tree.join("d/f"), "some contents").unwrap();
    symlink("target", tree.join("l")).unwrap();
    let bytes = archive(&tree);
    for length in 0..bytes.len() {
        let dest = dir.path().join("dest");
        restore(&mut &bytes[..length], &dest).unwrap_err();
        assert!(!dest.exists(), "{length}");
    }
}

#[test]
fn a_bomb_of_directories_is_refused() {
    let mut words: Vec<&[u8]> = vec![b"nix-archive-1", b"(", b"type", b"directory"];
    for _ in 0..=MAX_DEPTH {
        words.extend([
            b"entry".as_slice(),
            b"(",
            b"name",
            b"d",
            b"node",
            b"(",
            b"type",
            b"directory",
        ]);
    }
    assert!(refused(&encode(&words)).contains("more than 1024 directories lie in one another"));
}

#[test]
fn a_restore_never_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("dest");
    fs::write(&dest, "mine").unwrap();
    restore(&mut directory(&[]).as_slice(), &dest).unwrap_err();
    assert_eq!(fs::read_to_string(&dest).unwrap(), "mine");
    // A dangling symlink is something too, and must not be followed.
    let link = dir.path().join("link");
    symlink(dir.path().join("elsewhere"), &link).unwrap();
    restore(&mut directory(&[]).as_slice(), &link).unwrap_err();
    assert!(link.is_symlink() && !dir.path().join("elsewhere").exists());
}

/// A tree in memory.
#[derive(Debug, Clone)]
enum Tree {
    File(bool, Vec<u8>),
    Link(String),
    Directory(BTreeMap<String, Tree>),
}

impl Tree {
    fn make(&self, path: &Path) {
        match self {
            Self::File(executable, contents) => {
                fs::write(path, contents).unwrap();
                let mode = if *executable { 0o755 } else { 0o644 };
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
            Self::Link(target) => symlink(target, path).unwrap(),
            Self::Directory(entries) => {
                fs::create_dir(path).unwrap();
                for (name, tree) in entries {
                    tree.make(&path.join(name));
                }
            }
        }
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(x, bytes)| Tree::File(x, bytes)),
        "[a-z/.]{1,20}".prop_map(Tree::Link),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        proptest::collection::btree_map("[a-cA-Zä.+-]{1,4}", inner, 0..6).prop_map(|mut entries| {
            entries.retain(|name, _| name != "." && name != "..");
            Tree::Directory(entries)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_tree_comes_back_from_its_archive(tree in trees()) {
        let dir = tempfile::tempdir().unwrap();
        tree.make(&dir.path().join("t"));
        let bytes = archive(&dir.path().join("t"));
        restore(&mut bytes.as_slice(), &dir.path().join("back")).unwrap();
        prop_assert_eq!(archive(&dir.path().join("back")), bytes.clone());
        // What is read from an archive, encoded again, is that archive.
        let mut encoder = NarEncoder::new(Vec::new()).unwrap();
        read(&mut bytes.as_slice(), &mut |entry, contents| encoder.entry(entry, contents)).unwrap();
        prop_assert_eq!(encoder.finish().unwrap(), bytes);
    }

    #[test]
    fn damaged_archives_never_panic(tree in trees(), at in any::<proptest::sample::Index>(), bits in 1u8..=255) {
        let dir = tempfile::tempdir().unwrap();
        tree.make(&dir.path().join("t"));
        let mut bytes = archive(&dir.path().join("t"));
        let index = at.index(bytes.len());
        bytes[index] ^= bits;
        let dest = dir.path().join("back");
        match restore(&mut bytes.as_slice(), &dest) {
            // Contents may differ, or a name: then this is the archive of what was restored.
            Ok(()) => prop_assert_eq!(archive(&dest), bytes),
            Err(_) => prop_assert!(!dest.exists()),
        }
    }
}
