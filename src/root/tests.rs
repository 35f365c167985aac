//! Tests of composing roots: merging, collisions, alternatives.

use super::*;
use std::os::unix::fs::symlink;

struct Packages {
    dir: tempfile::TempDir,
    names: Vec<&'static str>,
}

impl Packages {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            names: Vec::new(),
        }
    }

    fn add(&mut self, name: &'static str, files: &[(&str, &str)]) -> PathBuf {
        let root = self.dir.path().join(name);
        fs::create_dir_all(&root).unwrap();
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match text.strip_prefix("-> ") {
                Some(target) => symlink(target, path).unwrap(),
                None => fs::write(path, text).unwrap(),
            }
        }
        self.names.push(name);
        root
    }

    fn list(&self) -> Vec<(String, PathBuf)> {
        self.names
            .iter()
            .map(|name| ((*name).to_owned(), self.dir.path().join(name)))
            .collect()
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.list().into_iter().map(|(_, path)| path).collect()
    }

    fn alternatives(&self) -> BTreeMap<String, String> {
        let paths = self.paths();
        alternatives(&paths.iter().map(PathBuf::as_path).collect::<Vec<_>>()).unwrap()
    }
}

fn show(entries: &BTreeMap<Vec<u8>, RootEntry>) -> Vec<String> {
    entries
        .iter()
        .map(|(path, entry)| {
            let path = String::from_utf8(path.clone()).unwrap();
            match entry {
                RootEntry::Directory => format!("{path}/"),
                RootEntry::File {
                    size,
                    executable,
                    package,
                    ..
                } => format!("{path} {size} {executable} {package}"),
                RootEntry::Symlink { target } => format!("{path} -> {}", String::from_utf8_lossy(target)),
            }
        })
        .collect()
}

#[test]
fn packages_merge_and_get_their_top_level_links() {
    let mut packages = Packages::new();
    let a = packages.add("a", &[("usr/bin/a", "1"), ("usr/share/doc/same", "x")]);
    packages.add(
        "b",
        &[
            ("usr/bin/b", "-> a"),
            ("usr/lib/l", "22"),
            ("usr/share/doc/same", "x"),
            ("var/lib/dpkg/alternatives.d/b", "install /usr/bin/v v /usr/bin/a 1\n"),
        ],
    );
    fs::set_permissions(a.join("usr/bin/a"), fs::Permissions::from_mode(0o555)).unwrap();
    assert_eq!(
        show(&compose(&packages.list()).unwrap().entries),
        [
            "bin -> usr/bin",
            "lib -> usr/lib",
            "usr/",
            "usr/bin/",
            "usr/bin/a 1 true 0",
            "usr/bin/b -> a",
            "usr/lib/",
            "usr/lib/l 2 false 1",
            "usr/share/",
            "usr/share/doc/",
            "usr/share/doc/same 1 false 0",
            "var/",
            "var/lib/",
            "var/lib/dpkg/",
        ]
    );
}

#[test]
fn collisions_name_both_packages() {
    for (first, second, reason) in [
        ("1", "2", "the two files differ"),
        ("1", "22", "the two files differ"),
        ("-> a", "-> b", "the two symlinks have different targets"),
        ("1", "-> b", "a file in one, a symlink in the other"),
    ] {
        let mut packages = Packages::new();
        packages.add("zero", &[("etc/y", "")]);
        packages.add("one", &[("etc/x", first)]);
        packages.add("two", &[("etc/x", second)]);
        let error = compose(&packages.list()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("`one` and `two` both contain `/etc/x`: {reason}")
        );
        assert!(error.help().unwrap().contains("leave out `one` or `two`"));
    }
}

#[test]
fn a_directory_and_a_symlink_collide() {
    let mut packages = Packages::new();
    packages.add("one", &[("var/run", "-> /run")]);
    packages.add("two", &[("var/run/x", "")]);
    assert_eq!(
        compose(&packages.list()).unwrap_err().to_string(),
        "`one` and `two` both contain `/var/run`: a symlink in one, a directory in the other"
    );
}

#[test]
fn an_executable_bit_is_content() {
    let mut packages = Packages::new();
    packages.add("one", &[("x", "1")]);
    let two = packages.add("two", &[("x", "1")]);
    fs::set_permissions(two.join("x"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(compose(&packages.list()), Err(RootError::Collision { .. })));
}

#[test]
fn symlinks_of_one_meaning_are_the_same() {
    let mut packages = Packages::new();
    packages.add("one", &[("usr/lib/x", "-> /usr/share/x")]);
    packages.add("two", &[("usr/lib/x", "-> ../share/x")]);
    compose(&packages.list()).unwrap();
}

#[test]
fn special_files_are_refused() {
    let mut packages = Packages::new();
    let one = packages.add("one", &[("etc/x", "")]);
    nix::unistd::mkfifo(&one.join("etc/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(
        compose(&packages.list()).unwrap_err().to_string(),
        "`one` holds `/etc/pipe`, which is neither a file, a directory nor a symlink"
    );
}

#[test]
fn the_highest_priority_wins_with_its_slaves() {
    let mut packages = Packages::new();
    packages.add(
        "mawk",
        &[
            ("usr/bin/mawk", ""),
            (
                "var/lib/dpkg/alternatives.d/mawk",
                "install /usr/bin/awk awk /usr/bin/mawk 5\nslave /usr/share/man/awk.1 awk.1 /usr/share/man/mawk.1\n",
            ),
        ],
    );
    packages.add(
        "gawk",
        &[
            ("usr/bin/gawk", ""),
            ("usr/bin/nawk", "a file of its own"),
            (
                "var/lib/dpkg/alternatives.d/gawk",
                "install /usr/bin/awk awk /usr/bin/gawk 10\nslave /usr/bin/nawk nawk /usr/bin/gawk\n\
                 install /usr/bin/gone gone /usr/bin/gone-1 10\n",
            ),
        ],
    );
    assert_eq!(
        packages.alternatives(),
        BTreeMap::from([("/usr/bin/awk".to_owned(), "/usr/bin/gawk".to_owned())])
    );
    packages.names = vec!["mawk"];
    assert_eq!(packages.alternatives()["/usr/bin/awk"], "/usr/bin/mawk");
}

#[test]
fn ties_go_to_the_first_package_name_whatever_the_order() {
    let mut packages = Packages::new();
    for name in ["b", "a"] {
        let line = format!("install /usr/bin/x x /usr/bin/{name} 5\n");
        packages.add(
            name,
            &[
                (&format!("usr/bin/{name}"), ""),
                (&format!("var/lib/dpkg/alternatives.d/{name}"), &line),
            ],
        );
    }
    assert_eq!(packages.alternatives()["/usr/bin/x"], "/usr/bin/a");
    packages.names.reverse();
    assert_eq!(packages.alternatives()["/usr/bin/x"], "/usr/bin/a");
}

#[test]
fn a_broken_record_is_an_error() {
    for line in [
        "install /a b /c",
        "slave /a b /c",
        "install a b /c 1",
        "install /a b /c x",
        "",
    ] {
        let mut packages = Packages::new();
        let one = packages.add("one", &[("var/lib/dpkg/alternatives.d/one", &format!("{line}\n"))]);
        let error = alternatives(&[&one]).unwrap_err();
        assert!(error.to_string().starts_with("line 1 of `"), "{line}: {error}");
    }
}

#[test]
fn targets_resolve_by_their_text() {
    for (dir, target, expected) in [
        ("usr/lib", "x", "usr/lib/x"),
        ("usr/lib", "../share/./x", "usr/share/x"),
        ("usr", "../../../etc//x/", "etc/x"),
        ("usr", "/etc/x", "etc/x"),
        ("", "x", "x"),
    ] {
        assert_eq!(
            resolve(dir.as_bytes(), target.as_bytes()),
            expected.as_bytes(),
            "{dir} {target}"
        );
    }
}

/// As dpkg does it (dpkg-divert(1)): another package's file goes to where the diversion says, the package's own stays; two
/// files of one name are then none that collide.
#[test]
fn what_a_package_diverts_gives_way() {
    let mut packages = Packages::new();
    let record = r#"{"diversions":{"usr/share/vim/help":"usr/share/vim/help.tiny"},"attributes":{"usr/share/vim/help":{"mode":416,"uid":0,"gid":4}}}"#;
    packages.add("tiny", &[("usr/share/vim/help", "short")]);
    packages.add(
        "runtime",
        &[
            ("usr/share/vim/help", "long"),
            ("var/lib/dpkg/attributes.d/runtime", record),
        ],
    );
    packages.add("other", &[("usr/share/vim/help", "short")]);
    let composed = compose(&packages.list()).unwrap();
    let shown = show(&composed.entries);
    assert!(shown.contains(&"usr/share/vim/help 4 false 1".to_owned()), "{shown:#?}");
    assert!(
        shown.contains(&"usr/share/vim/help.tiny 5 false 0".to_owned()),
        "{shown:#?}"
    );
    assert!(!shown.iter().any(|line| line.contains("attributes.d")), "{shown:#?}");
    let ownership = Ownership {
        mode: 0o640,
        uid: 0,
        gid: 4,
    };
    let attributes: Vec<_> = composed.attributes.into_iter().collect();
    assert_eq!(attributes, [(b"usr/share/vim/help".to_vec(), ownership)]);
}

/// The first package that brings a directory gives its mode (dpkg leaves that of one alone which is there); links are kept
/// among what one package brought.
#[test]
fn records_count_where_their_package_was_first() {
    let mut packages = Packages::new();
    let one = r#"{"attributes":{"root":{"mode":448,"uid":0,"gid":0}},"links":[["usr/bin/a","usr/bin/b","usr/bin/c"]],"capabilities":{"usr/bin/a":"cap_kill=ep"}}"#;
    let two = r#"{"attributes":{"root":{"mode":493,"uid":5,"gid":0}},"links":[["usr/bin/c","usr/bin/d"],["usr/bin/e","usr/bin/f"]]}"#;
    packages.add(
        "one",
        &[
            ("root/.profile", ""),
            ("usr/bin/a", "x"),
            ("usr/bin/b", "x"),
            ("usr/bin/c", "x"),
            ("var/lib/dpkg/attributes.d/one", one),
        ],
    );
    packages.add(
        "two",
        &[
            ("root/.bashrc", ""),
            ("usr/bin/c", "x"),
            ("usr/bin/d", "x"),
            ("usr/bin/e", "y"),
            ("usr/bin/f", "y"),
            ("var/lib/dpkg/attributes.d/two", two),
        ],
    );
    let composed = compose(&packages.list()).unwrap();
    assert_eq!(composed.attributes[&b"root"[..]].mode, 0o700);
    let paths = |paths: &[&str]| paths.iter().map(|path| path.as_bytes().to_vec()).collect::<Vec<_>>();
    let expected = [
        paths(&["usr/bin/a", "usr/bin/b", "usr/bin/c"]),
        paths(&["usr/bin/e", "usr/bin/f"]),
    ];
    assert_eq!(composed.links, expected);
    assert_eq!(composed.capabilities[&b"usr/bin/a"[..]], "cap_kill=ep");
    packages.add("broken", &[("var/lib/dpkg/attributes.d/broken", "{\"links\":7}")]);
    assert!(
        compose(&packages.list())
            .unwrap_err()
            .to_string()
            .contains("is not a record of a package")
    );
}
