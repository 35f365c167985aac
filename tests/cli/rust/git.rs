//! Crates from git repositories that the test makes: pinned by content, laid out for Cargo, and refused where they cannot be.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Place, RUST, Ran, in_another_world, peer};

const SPEC: &str = r#"[package.prog]
version = "1.0"
source = { path = ".", include = ["src/**", "Cargo.*"] }
rust = {}

[image.app]
contents = ["prog"]
entrypoint = ["prog"]

[image.app.tests.says]
run = ["prog"]
expect = { stdout = "bar 2, read me, root 1, baz 0.4.0" }
"#;

/// A workspace whose root is a package, with members that inherit from it, one of which names it, and read what is beside
/// them; and a second workspace.
const FILES: &[(&str, &str)] = &[
    (
        "Cargo.toml",
        "[package]\nname = \"rooty\"\nversion.workspace = true\nedition.workspace = true\n\n\
         [workspace]\nmembers = [\"crates/*\"]\n\n[workspace.package]\nversion = \"0.3.0\"\nedition = \"2021\"\n\n\
         [workspace.dependencies]\nbar = { path = \"crates/bar\" }\n",
    ),
    ("src/lib.rs", "pub fn root() -> u32 { 1 }\n"),
    ("README.md", "read me"),
    (
        "crates/foo/Cargo.toml",
        "[package]\nname = \"foo\"\nversion.workspace = true\nedition.workspace = true\n\n\
         [dependencies]\nbar.workspace = true\n",
    ),
    (
        "crates/foo/src/lib.rs",
        "pub fn foo() -> String { format!(\"bar {}, {}\", bar::bar(), include_str!(\"../../../README.md\")) }\n",
    ),
    (
        "crates/bar/Cargo.toml",
        "[package]\nname = \"bar\"\nversion.workspace = true\nedition.workspace = true\nworkspace = \"../..\"\n",
    ),
    ("crates/bar/src/lib.rs", "pub fn bar() -> u32 { 2 }\n"),
    (
        "second/Cargo.toml",
        "[workspace]\nmembers = [\"baz\"]\n[workspace.package]\nversion = \"0.4.0\"\n\
         [workspace.dependencies]\nrooty = { path = \"..\" }\n",
    ),
    (
        "second/baz/Cargo.toml",
        "[package]\nname = \"baz\"\nversion.workspace = true\nedition = \"2021\"\n\n\
         [dependencies]\nrooty.workspace = true\n",
    ),
    (
        "second/baz/src/lib.rs",
        "pub fn baz() -> &'static str { assert_eq!(rooty::root(), 1); env!(\"CARGO_PKG_VERSION\") }\n",
    ),
    // What a test of the repository has is nobody's package.
    ("fuzz/Cargo.toml", "cargo-features = [\"nope\"]\n[package\n"),
];

fn at(place: &Place, name: &str) -> PathBuf {
    place.path().join(name)
}

/// git in a directory beside the project, with nothing of the machine's or the user's; what it prints.
#[track_caller]
fn git(place: &Place, dir: &str, args: &[&str]) -> String {
    let mut command = Command::new("git");
    place.prepare(&mut command);
    command.env("GIT_CONFIG_NOSYSTEM", "1").current_dir(at(place, dir));
    let own = [
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@x.invalid",
        "-c",
        "protocol.file.allow=always",
    ];
    peer(command.args(own).args(args)).stdout.trim().to_owned()
}

/// Commits files in the work tree `dir`, and pushes them to the bare repository `up.git`; the commit.
fn commit(place: &Place, files: &[(&str, &str)]) -> String {
    if !at(place, "up.git").exists() {
        git(place, "", &["init", "-q", "--bare", "-b", "main", "up.git"]);
        git(place, "", &["init", "-q", "-b", "main", "work"]);
    }
    for (path, text) in files {
        let file = at(place, "work").join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    git(place, "work", &["add", "-A"]);
    git(place, "work", &["commit", "-q", "-m", "x"]);
    git(place, "work", &["push", "-q", "-f", "../up.git", "HEAD:main"]);
    git(place, "work", &["rev-parse", "HEAD"])
}

/// The lock file that Cargo writes for `packages` of a commit of the repository at `url`.
fn cargo_lock(url: &str, commit: &str, packages: &[(&str, &str)]) -> String {
    let mut text = "version = 4\n".to_owned();
    let own = ("prog", "dependencies = [\n \"baz\",\n \"foo\",\n \"rooty\",\n]\n");
    for (name, dependencies) in packages.iter().chain([&own]) {
        text += &format!("\n[[package]]\nname = \"{name}\"\n");
        text += match *name {
            "prog" => "version = \"0.1.0\"\n",
            "baz" => "version = \"0.4.0\"\n",
            _ => "version = \"0.3.0\"\n",
        };
        if *name != "prog" {
            text += &format!("source = \"git+{url}?branch=main#{commit}\"\n");
        }
        text += dependencies;
    }
    // Cargo sorts by name.
    let (head, rest) = text.split_once("\n[[package]]").unwrap();
    let mut entries: Vec<&str> = rest.split("\n[[package]]").collect();
    entries.sort_unstable();
    format!("{head}\n[[package]]{}", entries.join("\n[[package]]"))
}

const PACKAGES: &[(&str, &str)] = &[
    ("bar", ""),
    ("baz", "dependencies = [\n \"rooty\",\n]\n"),
    ("foo", "dependencies = [\n \"bar\",\n]\n"),
    ("rooty", ""),
];

fn project() -> (Place, String, String) {
    let place = Place::new();
    place.take_debs(RUST);
    let commit = commit(&place, FILES);
    let url = format!("file://{}", at(&place, "up.git").display());
    let manifest = format!(
        "[package]\nname = \"prog\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[dependencies]\n\
         baz = {{ git = \"{url}\", branch = \"main\" }}\nfoo = {{ git = \"{url}\", branch = \"main\" }}\nrooty = {{ git = \"{url}\", branch = \"main\" }}\n"
    );
    place
        .write("layerize.toml", SPEC)
        .write("Cargo.toml", &manifest)
        .write("Cargo.lock", &cargo_lock(&url, &commit, PACKAGES))
        .write(
            "src/main.rs",
            "fn main() { println!(\"{}, root {}, baz {}\", foo::foo(), rooty::root(), baz::baz()); }\n",
        );
    (place, url, commit)
}

#[test]
fn crates_of_a_repository_are_pinned_and_found() {
    let (place, _, first) = project();
    place.run(&["lock", "--check"]).exits(1).says(&[&first]);
    place
        .run(&["build", "app", "--locked"])
        .exits(2)
        .says(&["tree of commit"]);
    let locked = place.run(&["lock"]).success();
    assert!(
        locked.stderr.contains(&format!("tree of commit {first}")),
        "{}",
        locked.stderr
    );
    let cold = place.run(&["build", "app", "--locked"]).success();
    place.run(&["test", "--locked"]).success();
    let sbom = place.run(&["sbom", "app"]).success().stdout;
    for name in ["bar@0.3.0", "baz@0.4.0", "foo@0.3.0", "rooty@0.3.0"] {
        assert!(sbom.contains(&format!("pkg:cargo/{name}")), "{name}: {sbom}");
    }
    let closure = place.run(&["closure", "prog"]).success().stdout;
    assert!(!closure.contains("-git-crates-"), "{closure}");

    // The branch moves on: what is locked stays, and is asked of nobody.
    let bar = [("crates/bar/src/lib.rs", "pub fn bar() -> u32 { 3 }\n")];
    let second = commit(&place, &bar);
    place.run(&["lock", "--check"]).success();
    fs::rename(at(&place, "up.git"), at(&place, "away.git")).unwrap();
    let (_other, elsewhere) = in_another_world(&place, &["build", "app", "--offline", "--locked"]);
    assert_eq!(elsewhere.stdout.split(' ').next(), cold.stdout.split(' ').next());
    fs::rename(at(&place, "away.git"), at(&place, "up.git")).unwrap();

    // `layerize update` has Cargo take the new commit: the old one goes from the lock.
    let cargo = Path::new(env!("CARGO")).parent().unwrap();
    let mut command = place.command(&["update", "foo"]);
    command.env("PATH", format!("{}:/usr/bin:/bin", cargo.display()));
    let updated = Ran::of(command.output().unwrap()).success();
    let [old, new] = [&first, &second].map(|commit| &commit[..12]);
    updated.says(&[
        &format!("~ rust:foo 0.3.0 ({old}) → 0.3.0 ({new})"),
        "Cargo.lock written, 4 changed.",
        &format!("+ tree of commit {second}"),
    ]);
    place.run(&["lock", "--check"]).success();
    place.run(&["build", "prog", "--locked"]).success();
    let lock = fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    assert!(lock.contains(&second) && !lock.contains(&first), "{lock}");
    assert!(!lock.contains("up.git"), "a lock names no place: {lock}");
}

#[test]
fn what_cannot_be_taken_from_a_repository_is_told() {
    let (place, url, good) = project();
    place.run(&["lock"]).success();
    let lock = fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    let beside = |name: &str| format!("file://{}", at(&place, name).display());

    fs::create_dir(at(&place, "linked")).unwrap();
    symlink(at(&place, "up.git"), at(&place, "linked/.git")).unwrap();
    let modules = "[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c touch% ran\n";
    fs::write(at(&place, "work/.gitmodules"), modules).unwrap();
    // An empty directory is what a submodule is that nobody fetched.
    fs::create_dir(at(&place, "work/x")).unwrap();
    git(
        &place,
        "work",
        &["update-index", "--add", "--cacheinfo", "160000", &good, "x"],
    );
    let leads_out = commit(&place, &[]);
    let nobodys = "0".repeat(40);
    for (url, commit, said) in [
        (&*url, &*nobodys, vec!["has no commit 0000"]),
        (&beside("nowhere"), &leads_out, vec!["no git repository at", "nowhere"]),
        (&beside("linked"), &leads_out, vec!["is a symlink"]),
        (&*url, &leads_out, vec!["the submodule `x`", "cannot be taken"]),
        (
            "https://h.invalid/a/b",
            "abc",
            vec!["its commit has not all its digits", "Cargo.lock"],
        ),
        ("../up.git", &good, vec!["its address is relative"]),
    ] {
        place.write("Cargo.lock", &cargo_lock(url, commit, PACKAGES));
        place.run(&["lock"]).exits(2).says(&said);
        let after = fs::read_to_string(place.project.join("layerize.lock")).unwrap();
        assert_eq!(after, lock, "the lock stays as it was");
    }
    assert!(!at(&place, "ran").exists() && !place.project.join("ran").exists());

    // A package that the repository does not have shows when it is laid out.
    let wanted = [PACKAGES, &[("nope", "")]].concat();
    place.write("Cargo.lock", &cargo_lock(&url, &good, &wanted));
    place
        .run(&["build", "prog"])
        .exits(2)
        .says(&["has no package `nope 0.3.0`", "up-"]);

    // Other content than was pinned, in a cache that has never seen it.
    place.write("Cargo.lock", &cargo_lock(&url, &good, PACKAGES));
    let pin = lock
        .split("[[commit]]")
        .nth(1)
        .and_then(|entry| entry.split("nar-sha256 = \"").nth(1));
    let pin = &pin.unwrap()[..64];
    place.write("layerize.lock", &lock.replace(pin, &"1".repeat(64)));
    place
        .run(&["build", "prog"])
        .exits(2)
        .says(&["has other content than the lock says"]);
    let names = layerize::fsio::sorted_names(&place.store().join("store")).unwrap();
    let laid = names
        .iter()
        .filter(|name| name.to_string_lossy().contains("-git-crates-"));
    assert_eq!(laid.count(), 0, "{names:?}");
}
