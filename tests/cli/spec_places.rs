//! Specs that are elsewhere: in repositories and archives.

use std::fs;
use std::process::Command;

use crate::support::{Place, Ran, have, peer};

const SPEC: &str = r#"
[package.app]
source = { path = "." }
script = """
mkdir -p $out/bin
cp app.sh $out/bin/app
chmod +x $out/bin/app
"""
"#;

/// An image without a program: a script needs a shell.
const IMAGE: &str = "\n[image.data]\ncontents = [\"app\"]\n";

/// A project that is committed to a repository, and a folder elsewhere to use it from.
struct Repository {
    place: Place,
}

impl Repository {
    fn new() -> Self {
        let place = Place::new();
        place
            .write("layerize.toml", SPEC)
            .write("app.sh", "#!/bin/sh\necho first from $(basename $(pwd)) $*\n");
        place.lock_base();
        place.run(&["lock", "-q"]).success();
        let repository = Self { place };
        repository.git(&["init", "-q", "-b", "main"]);
        repository.commit("first");
        fs::create_dir(repository.place.path().join("elsewhere")).unwrap();
        repository
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        self.place.prepare(
            command
                .args(["-c", "user.name=me", "-c", "user.email=me@host.example"])
                .args(arguments),
        );
        peer(&mut command).stdout.trim().to_owned()
    }

    fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.place.command(arguments);
        command.current_dir(self.place.path().join("elsewhere"));
        Ran::of(command.output().unwrap())
    }

    /// The address, with what follows it.
    fn at(&self, rest: &str) -> String {
        format!("git+file:{}{rest}", self.place.project.display())
    }
}

#[test]
fn a_spec_in_a_repository_is_run_built_and_entered() {
    if !have("git", &["--version"]) {
        return;
    }
    let repository = Repository::new();
    let ran = repository
        .run(&["run", "-q", &repository.at(""), "--", "and", "on"])
        .success();
    assert_eq!(ran.stdout, "first from elsewhere and on\n");
    // A relative path is from here.
    let ran = repository.run(&["run", "-q", "git+file:../project#app"]).success();
    assert_eq!(ran.stdout, "first from elsewhere\n");
    let ran = repository
        .run(&["shell", "-q", &repository.at("#app"), "-c", "pwd; echo $LAYERIZE_SHELL"])
        .success();
    let elsewhere = repository.place.path().join("elsewhere");
    assert_eq!(ran.stdout, format!("{}\napp\n", elsewhere.display()));
    repository.place.write("layerize.toml", &(SPEC.to_owned() + IMAGE));
    repository.place.run(&["lock", "-q"]).success();
    let first = repository.commit("an image");
    repository.run(&["build", "-q", &repository.at("#data")]).success();
    assert!(elsewhere.join("data.tar").is_file());
    let other = repository
        .run(&["build", "-q", &repository.at(""), "-o", "oci:out:v1"])
        .success();
    let own = repository
        .place
        .run(&["build", "-q", "data", "-o", "oci:../own:v1"])
        .success();
    let digest = |ran: &Ran| ran.stdout.split(' ').next().unwrap().to_owned();
    assert_eq!(digest(&other), digest(&own));
    repository
        .run(&["run", "-q", &repository.at("")])
        .exits(2)
        .says(&["data", "no program"]);

    // What names no fixed commit is looked for anew; a commit stays what it is, and what was fetched needs nobody.
    repository.place.write("app.sh", "#!/bin/sh\necho second\n");
    repository.commit("second");
    let run = |place: &str, more: &[&str]| {
        let arguments: Vec<&str> = ["run", "-q", place].iter().chain(more).copied().collect();
        repository.run(&arguments).success().stdout
    };
    let old = repository.at(&format!("?rev={first}#app"));
    let head = repository.at("#app");
    assert_eq!(run(&head, &["--offline"]), "first from elsewhere\n");
    assert_eq!(run(&head, &[]), "second\n");
    assert_eq!(run(&old, &[]), "first from elsewhere\n");
    fs::rename(
        repository.place.project.join(".git"),
        repository.place.path().join("gone"),
    )
    .unwrap();
    assert_eq!(run(&old, &[]), "first from elsewhere\n");
    assert_eq!(run(&head, &["--offline"]), "second\n");
    repository.run(&["run", "-q", &head]).exits(2);
}

#[test]
fn a_moved_tag_is_told() {
    if !have("git", &["--version"]) {
        return;
    }
    let repository = Repository::new();
    repository.git(&["tag", "v1"]);
    let place = repository.at("?tag=v1");
    repository.run(&["run", "-q", &place]).success();
    repository.place.write("app.sh", "#!/bin/sh\necho second\n");
    repository.commit("second");
    repository.git(&["tag", "-f", "v1"]);
    let ran = repository.run(&["run", "-q", &place]).success();
    // What was pinned stays.
    assert_eq!(ran.stdout, "first from elsewhere\n");
}

#[test]
fn an_archive_holds_a_spec_too() {
    let repository = Repository::new();
    let mut tar = Command::new("tar");
    repository
        .place
        .prepare(tar.args(["-czf", "../elsewhere/x.tar.gz", "--exclude=.git", "-C", "..", "project"]));
    peer(&mut tar);
    let ran = repository.run(&["run", "-q", "file:x.tar.gz#app"]).success();
    assert_eq!(ran.stdout, "first from elsewhere\n");
    repository
        .run(&["run", "-q", "file:y.tar.gz#app"])
        .exits(2)
        .says(&["y.tar.gz"]);
}

#[test]
fn a_spec_from_elsewhere_reaches_nothing_outside_of_its_tree() {
    if !have("git", &["--version"]) {
        return;
    }
    let repository = Repository::new();
    let refused = |says: &[&str]| {
        repository.commit("hostile");
        repository
            .run(&["run", "-q", &repository.at("#app")])
            .exits(2)
            .says(says);
        repository.git(&["reset", "-q", "--hard", "HEAD~1"]);
    };
    let spec = |text: &str| repository.place.write("layerize.toml", text);
    spec(&SPEC.replace("path = \".\"", "path = \"../../../../../../../../etc\""));
    refused(&["leads out of its own tree", "etc"]);
    spec(&SPEC.replace("path = \".\"", "path = \"/etc\""));
    refused(&["leads out of its own tree", "/etc"]);
    spec(&(SPEC.to_owned() + IMAGE + "files = { \"/x\" = \"/etc/hostname\" }\n"));
    refused(&["leads out of its own tree", "/etc/hostname"]);
    spec(&format!("[imports]\nx = \"/etc/x.toml\"\n{SPEC}"));
    refused(&["it is not in the tree that the spec comes from"]);
    std::os::unix::fs::symlink("/etc/passwd", repository.place.project.join("link")).unwrap();
    refused(&["leads out of its own tree", "link"]);
    std::os::unix::fs::symlink("../../../etc", repository.place.project.join("link")).unwrap();
    refused(&["leads out of its own tree", "link"]);
    // A lock that does not fit is nobody's here to write.
    spec(&SPEC.replace("source =", "libraries = [\"deb:zlib1g-dev\"]\nsource ="));
    refused(&["the lock of", "is not current", "layerize lock"]);
    fs::remove_file(repository.place.project.join("layerize.toml")).unwrap();
    refused(&["has no layerize.toml", "?dir="]);

    for (place, says) in [
        (repository.at("?rev=a&tag=b"), "more than one of rev, tag and branch"),
        (repository.at("?dir=../.."), "has no layerize.toml"),
        ("github:owner".to_owned(), "the owner or the repository is missing"),
        ("git+ftp://host.example/x".to_owned(), "git does not fetch from there"),
    ] {
        repository.run(&["run", &place]).exits(2).says(&[says]);
    }
    let both = ["build", &repository.at("#app"), "github:a/b#x"];
    repository.run(&both).exits(2).says(&["a command is about one place"]);
    repository
        .run(&["build", &repository.at("#nothing")])
        .exits(2)
        .says(&["nothing", "app"]);
}
