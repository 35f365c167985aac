//! Tests of local sources and their filters.

use std::os::unix::net::UnixListener;

use super::*;
use crate::fetch::unpack::testing::show;
use crate::testing::{oracle, output};

struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join("src").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match (text.strip_prefix("-> "), path.to_string_lossy().ends_with('/')) {
                (Some(target), _) => symlink(target, path).unwrap(),
                (None, true) => fs::create_dir_all(path).unwrap(),
                (None, false) => fs::write(path, text).unwrap(),
            }
        }
        Self(dir)
    }

    fn source<'a>(&'a self, include: &'a [String], exclude: &'a [String], gitignore: bool) -> LocalSource<'a> {
        LocalSource {
            package: "base:pkg",
            tree_name: "pkg-source".to_owned(),
            file_name: "file".to_owned(),
            dir: self.0.path(),
            path: "src",
            include,
            exclude,
            gitignore,
        }
    }

    /// The names that the filters leave, directories with a slash.
    fn taken(&self, include: &[&str], exclude: &[&str], gitignore: bool) -> Result<Vec<String>, FetchError> {
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let (include, exclude) = (strings(include), strings(exclude));
        let dest = self.0.path().join("dest");
        let result = copy(&self.source(&include, &exclude, gitignore), &dest);
        let lines = result.map(|()| show(&dest));
        fsio::remove_tree(&dest).unwrap();
        let name = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
        Ok(lines?.iter().map(name).collect())
    }
}

const PROJECT: &[(&str, &str)] = &[
    (".git/HEAD", "ref"),
    (".gitignore", "*.o\n/out\n!keep.o\n[broken\n"),
    ("Makefile", "all:"),
    ("a.o", ""),
    ("build/only.o", ""),
    ("docs/api/x.md", ""),
    ("docs/y.txt", ""),
    ("empty/", ""),
    ("keep.o", ""),
    ("out/x", ""),
    ("sub/.git", "gitdir: elsewhere"),
    ("sub/.gitignore", "z\n!b.o\n"),
    ("sub/b.o", ""),
    ("sub/out/x", ""),
    ("sub/z", ""),
];

#[test]
fn gitignore_files_count_without_a_repository_around_them() {
    let tree = Tree::new(PROJECT);
    fs::write(tree.0.path().join(".gitignore"), "*\n").unwrap();
    assert_eq!(
        tree.taken(&[], &[], true).unwrap(),
        [
            ".gitignore",
            "Makefile",
            "docs/",
            "docs/api/",
            "docs/api/x.md",
            "docs/y.txt",
            "empty/",
            "keep.o",
            "sub/",
            "sub/.gitignore",
            "sub/b.o",
            "sub/out/",
            "sub/out/x",
        ]
    );
    let without = tree.taken(&[], &[], false).unwrap();
    assert!(
        without.contains(&"a.o".to_owned()) && without.contains(&"build/only.o".to_owned()),
        "{without:?}"
    );
    assert!(
        !without.iter().any(|name| name.contains(".git/") || name == "sub/.git"),
        "{without:?}"
    );
}

#[test]
fn exclude_and_include_narrow() {
    let tree = Tree::new(PROJECT);
    for (include, exclude, expected) in [
        (
            &["docs/**"][..],
            &[][..],
            &["docs/", "docs/api/", "docs/api/x.md", "docs/y.txt"][..],
        ),
        (&["docs"], &["*.txt"], &["docs/", "docs/api/", "docs/api/x.md"]),
        (
            &["*.md", "Makefile"],
            &[],
            &["Makefile", "docs/", "docs/api/", "docs/api/x.md"],
        ),
        (&["docs", "!api"], &[], &["docs/", "docs/y.txt"]),
        (&["/empty"], &[], &["empty/"]),
        (&["*.o"], &["!a.o"], &["a.o", "keep.o", "sub/", "sub/b.o"]),
        (&[], &["/docs", "sub", "empty", ".gitignore"], &["Makefile", "keep.o"]),
    ] {
        assert_eq!(
            tree.taken(include, exclude, true).unwrap(),
            expected,
            "{include:?} {exclude:?}"
        );
    }
}

#[test]
fn modes_and_symlinks_are_copied_as_they_count() {
    let tree = Tree::new(&[("run", "#!"), ("data", "d"), ("link", "-> /nowhere"), ("dir/x", "")]);
    let physical = |name: &str| tree.0.path().join("src").join(name);
    fs::set_permissions(physical("run"), Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(physical("data"), Permissions::from_mode(0o611)).unwrap();
    fs::set_permissions(physical("dir"), Permissions::from_mode(0o700)).unwrap();
    let dest = tree.0.path().join("dest");
    copy(&tree.source(&[], &[], true), &dest).unwrap();
    assert_eq!(
        show(&dest),
        ["data 644 d", "dir/ 755", "dir/x 644 ", "link -> /nowhere", "run 755 #!"]
    );
}

#[test]
fn a_single_file_is_a_source() {
    let tree = Tree::new(&[("x.c", "int")]);
    let exclude = ["*.c".to_owned()];
    let source = LocalSource {
        path: "src/x.c",
        ..tree.source(&[], &exclude, true)
    };
    let dest = tree.0.path().join("dest");
    copy(&source, &dest).unwrap();
    assert_eq!(fs::read(&dest).unwrap(), b"int");
}

#[test]
fn what_cannot_be_taken_is_an_error() {
    let tree = Tree::new(&[("a", "")]);
    let source = LocalSource {
        path: "scr",
        ..tree.source(&[], &[], true)
    };
    let error = copy(&source, &tree.0.path().join("dest")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`scr` does not exist; it is the source of `base:pkg`"
    );
    assert_eq!(error.help().unwrap(), "did you mean `src`?");

    let error = tree.taken(&["*.none"], &[], true).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the filters of `base:pkg` exclude everything in `src`"
    );
    let error = tree.taken(&["a[", "b"], &[], true).unwrap_err();
    assert_eq!(error.to_string(), "`a[` of `base:pkg` is not a pattern");

    let kept = tree.0.path().join("src");
    let error = copy(&tree.source(&[], &[], true), &kept).unwrap_err();
    assert!(matches!(error, FetchError::Io(_)), "{error}");
    assert!(kept.join("a").exists(), "what was there before stays");

    let _socket = UnixListener::bind(tree.0.path().join("src/sock")).unwrap();
    let error = tree.taken(&[], &[], true).unwrap_err();
    assert!(error.to_string().starts_with("`src/sock` is a socket;"), "{error}");
    assert!(!tree.0.path().join("dest").exists());
    assert_eq!(tree.taken(&[], &["sock"], true).unwrap(), ["a"]);
}

#[test]
fn the_hash_is_that_of_the_copy_as_nix_computes_it() {
    let tree = Tree::new(PROJECT);
    let physical = |name: &str| tree.0.path().join("src").join(name);
    fs::set_permissions(physical("Makefile"), Permissions::from_mode(0o755)).unwrap();
    symlink("Makefile", physical("link")).unwrap();
    fs::write(physical("ünï"), "12345678").unwrap();
    let source = tree.source(&[], &[], true);
    let hash = source.nar_hash().unwrap();
    if !oracle("nix-store") {
        return;
    }
    let dest = tree.0.path().join("dest");
    copy(&source, &dest).unwrap();
    let dump = std::process::Command::new("nix-store")
        .arg("--dump")
        .arg(&dest)
        .output()
        .unwrap();
    assert!(dump.status.success());
    assert_eq!(hash, crate::digest::Digest::of(&dump.stdout));
    let file = LocalSource {
        path: "src/Makefile",
        ..source
    };
    let expected = output(
        "nix-hash",
        &["--type", "sha256", physical("Makefile").to_str().unwrap()],
    );
    assert_eq!(file.nar_hash().unwrap().hex(), expected.trim());
}
