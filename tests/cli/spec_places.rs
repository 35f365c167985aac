//! Specs that are elsewhere: in repositories and archives.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::download::serve;
use crate::registry::registry;
use crate::served::Demands;
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

    /// The project as an archive, elsewhere.
    fn archive(&self) -> PathBuf {
        let archive = self.place.path().join("elsewhere/x.tar.gz");
        let mut tar = Command::new("tar");
        self.place.prepare(tar.arg("-czf").arg(&archive));
        peer(tar.args(["--exclude=.git", "-C", "..", "project"]));
        archive
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
    repository.archive();
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

/// A server of one file; gives its address and how often it was asked for.
fn served(file: PathBuf) -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let port = serve(move |mut stream, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        let bytes = fs::read(&file).unwrap();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            bytes.len()
        );
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&bytes);
    });
    (format!("http://127.0.0.1:{port}/x-1.0.tar.gz"), asked)
}

#[test]
fn an_address_of_an_archive_is_pinned_until_it_is_updated() {
    let repository = Repository::new();
    let archive = repository.archive();
    let (address, asked) = served(archive);
    let place = format!("{address}#app");
    let run = |more: &[&str]| {
        let arguments: Vec<&str> = ["run", "-q", &place].iter().chain(more).copied().collect();
        repository.run(&arguments).success().stdout
    };
    assert_eq!(run(&[]), "first from elsewhere\n");
    let before = asked.load(Ordering::SeqCst);
    repository.place.write("app.sh", "#!/bin/sh\necho second\n");
    repository.archive();
    assert_eq!(run(&[]), "first from elsewhere\n");
    assert_eq!(run(&["--offline"]), "first from elsewhere\n");
    assert_eq!(
        asked.load(Ordering::SeqCst),
        before,
        "what is pinned is asked for again"
    );
    repository
        .run(&["update", &address])
        .success()
        .says(&["spec", "1 changed"]);
    assert_eq!(run(&["--offline"]), "second\n");
    let other = address.replace("x-1.0", "other");
    repository
        .run(&["run", "--offline", &format!("{other}#app")])
        .exits(2)
        .says(&["offline"]);
    // What stands behind `?` is the server's, but for the directory.
    let below = format!("{address}?a=b&dir=nowhere#app");
    repository
        .run(&["run", &below])
        .exits(2)
        .says(&["has no layerize.toml in `nowhere`"]);
}

/// A repository whose image is also in a layout, and what was made of it there.
struct Everywhere {
    repository: Repository,
    /// The store path of the package.
    app: String,
    /// The image in the layout, with its spec, and its digest.
    layout: String,
    digest: String,
}

impl Everywhere {
    fn new() -> Self {
        let repository = Repository::new();
        repository.place.write("layerize.toml", &(SPEC.to_owned() + IMAGE));
        repository.place.run(&["lock", "-q"]).success();
        repository.commit("an image");
        let app = repository
            .place
            .run(&["build", "-q", "app"])
            .success()
            .line()
            .to_owned();
        let layout = format!("oci:{}:v1", repository.place.path().join("layout").display());
        let build = ["build", "-q", "data", "--inputs=all", "-o", &layout];
        let built = repository.place.run(&build).success();
        let digest = built.stdout.split(' ').next().unwrap().to_owned();
        Self {
            repository,
            app,
            layout,
            digest,
        }
    }
}

/// Every kind of place for verbs that do each something else with it.
#[test]
fn verbs_take_places_wherever_they_take_names() {
    if !have("git", &["--version"]) {
        return;
    }
    let Everywhere {
        repository,
        app: own,
        layout,
        digest,
    } = Everywhere::new();
    let archive = repository.archive();
    let kinds = [
        repository.at(""),
        format!("file:{}", archive.display()),
        served(archive).0,
        layout,
    ];
    for kind in &kinds {
        let (app, data) = (format!("{kind}#app"), format!("{kind}#data"));
        let run = |arguments: &[&str]| repository.run(arguments).success();
        assert_eq!(run(&["build", "-q", &app]).line(), own, "{kind}");
        assert_eq!(
            run(&["run", "-q", &app, "--", "on"]).stdout,
            "first from elsewhere on\n"
        );
        assert_eq!(run(&["shell", "-q", &app, "-c", "basename $(pwd)"]).line(), "elsewhere");
        assert!(run(&["closure", "-q", &data]).stdout.contains(&own));
        assert!(
            run(&["build", "-q", &data, "-o", "oci:out:v1"])
                .stdout
                .starts_with(&digest)
        );
        assert_eq!(run(&["install", "-q", &app]).line(), own);
        let listed = run(&["profile", "list"]).stdout;
        assert!(listed.contains(kind.rsplit(':').next().unwrap()), "{kind}: {listed}");
        run(&["upgrade"]).says(&["Nothing has changed."]);
        let env: Value = serde_json::from_str(&run(&["env", "--json", &app]).stdout).unwrap();
        let view = env["path"][0].as_str().unwrap();
        assert!(view.contains("/elsewhere/.layerize/env/app-"), "{view}");
        let again: Value = serde_json::from_str(&run(&["env", "--json", &app]).stdout).unwrap();
        assert_eq!(env, again);
    }
}

#[test]
fn verbs_about_images_take_places() {
    if !have("git", &["--version"]) {
        return;
    }
    let Everywhere { repository, layout, .. } = Everywhere::new();
    let data = format!("{layout}#data");
    let run = |arguments: &[&str]| repository.run(arguments).success();
    assert!(run(&["plan", &data]).stdout.contains("app"));
    assert!(run(&["sbom", &data]).stdout.contains("SPDX"));
    assert!(run(&["provenance", &data]).stdout.contains("slsa"));
    run(&["diff", &data, &layout]);
    run(&["check", &format!("{layout}#app")]);
    run(&["inputs", "list", &data]);
    repository.run(&["test", &data]).exits(2);
    repository.run(&["explain", "--scripts", &data]).success();
    // Nothing is written beside it, and nothing changes there.
    let save = repository.run(&["plan", "--save", &data]).exits(2);
    save.says(&["nothing is written beside"]);
    let watch = repository.run(&["watch", &data]).exits(2);
    watch.says(&["nothing to watch", "layerize run"]);
}

#[test]
fn an_image_in_a_registry_carries_its_spec_and_what_was_fetched_needs_nobody() {
    let everywhere = Everywhere::new();
    let (repository, digest) = (&everywhere.repository, &everywhere.digest);
    let Some(registry) = registry(&repository.place, Demands::default()) else {
        return;
    };
    let name = format!("docker://{}/team/data:1", registry.host);
    let push = ["push", "-q", "--inputs=all", "data", &name];
    repository.place.run(&push).success();
    let run = |arguments: &[&str]| repository.run(arguments).success().stdout;
    let app = format!("{name}#app");
    assert_eq!(run(&["run", "-q", &app]), "first from elsewhere\n");
    assert_eq!(run(&["install", "-q", &app]), format!("{}\n", everywhere.app));
    let to = format!("docker://{}/team/again:1", registry.host);
    assert!(run(&["push", "--json", &format!("{name}#data"), &to]).contains(digest));
    let fixed = format!("docker://{}/team/data@{digest}#app", registry.host);
    run(&["run", "-q", &fixed]);
    for place in [&app, &fixed] {
        let offline = ["run", "-q", "--offline", place];
        assert_eq!(run(&offline), "first from elsewhere\n");
    }
    let unknown = format!("docker://{}/team/other:1#app", registry.host);
    let refused = repository.run(&["run", "--offline", &unknown]).exits(2);
    refused.says(&["team/other", "offline"]);
    repository.run(&["run", &unknown]).exits(2).says(&["team/other"]);
}

#[test]
fn what_an_image_does_not_carry_is_told() {
    let place = Place::new();
    let other = "\n[package.other]\nsource = { path = \"other\" }\nscript = \"mkdir $out\"\n";
    place
        .write(
            "layerize.toml",
            &(SPEC.replace("path = \".\"", "path = \"app\"") + other + IMAGE),
        )
        .write("app/app.sh", "#!/bin/sh\necho $*\n")
        .write("other/file", "");
    place.lock_base();
    place
        .run(&["build", "-q", "data", "--inputs=all", "-o", "oci:full:v1"])
        .success();
    place
        .run(&["build", "-q", "data", "--inputs", "-o", "oci:less:v1"])
        .success();
    place.run(&["build", "-q", "data", "-o", "oci:none:v1"]).success();
    place.run(&["run", "-q", "oci:full:v1#app"]).success();
    // It is what the image is, by itself.
    place
        .run(&["build", "-q", "oci:full:v1#", "-o", "oci:out:v1"])
        .success();
    place.run(&["diff", "oci:out:v1", "oci:full:v1"]).success();
    let refused = |name: &str, says: &[&str]| {
        place.run(&["build", name]).exits(2).says(says);
    };
    refused(
        "oci:full:v1#other",
        &["carries nothing that is called `other`", "data, app"],
    );
    refused("oci:less:v1#app", &["lack local files", "--inputs=all"]);
    refused("oci:none:v1#app", &["carries no spec", "--inputs=all"]);
    refused("oci:nowhere:v1#app", &["nowhere"]);
    place
        .run(&["-f", ".", "build", "oci:full:v1#app"])
        .exits(2)
        .says(&["a spec and a place of one are named"]);
}
