//! Specs that are elsewhere: in repositories and archives.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::download::serve;
use crate::load::{own_podman, with_own_programs};
use crate::over_ssh::Machine;
use crate::registry::registry;
use crate::serve::Served;
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

/// Where a spec can be, and how a name of it is written there.
struct Kind {
    /// What stands before `#NAME`; of a spec on this machine nothing does.
    place: Option<String>,
    flags: Vec<String>,
}

impl Kind {
    fn name(&self, name: &str) -> String {
        match &self.place {
            Some(place) => format!("{place}#{name}"),
            None => name.to_owned(),
        }
    }

    /// These arguments behind its flags.
    fn with<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let flags = self.flags.iter().map(String::as_str);
        flags.chain(arguments.iter().copied()).collect()
    }

    /// Every kind of place, and `--file`.
    fn all(everywhere: &Everywhere, registry: Option<&str>) -> Vec<Self> {
        let repository = &everywhere.repository;
        let archive = repository.archive();
        let places = [
            Some(repository.at("")),
            Some(format!("file:{}", archive.display())),
            Some(served(archive).0),
            Some(everywhere.layout.clone()),
            registry.map(|host| {
                let name = format!("docker://{host}/team/data:1");
                let push = ["push", "-q", "--inputs=all", "data", &name];
                repository.place.run(&push).success();
                name
            }),
        ];
        let places = places.into_iter().flatten().map(|place| Self {
            place: Some(place),
            flags: Vec::new(),
        });
        let file = Self {
            place: None,
            flags: vec!["--file".to_owned(), repository.place.project.display().to_string()],
        };
        places.chain([file]).collect()
    }
}

/// What a verb does with a place, in words: the same at every kind.
fn use_place(kind: &Kind, everywhere: &Everywhere) {
    let Everywhere {
        repository,
        app,
        digest,
        layout,
    } = everywhere;
    let (name, data) = (kind.name("app"), kind.name("data"));
    let ran = |arguments: &[&str]| repository.run(&kind.with(arguments));
    let run = |arguments: &[&str]| ran(arguments).success();
    assert_eq!(run(&["build", "-q", &name]).line(), app, "{name}");
    let said = run(&["run", "-q", &name, "--", "on"]).stdout;
    assert_eq!(said, "first from elsewhere on\n");
    assert_eq!(
        run(&["shell", "-q", &name, "-c", "basename $(pwd)"]).line(),
        "elsewhere"
    );
    assert!(run(&["closure", "-q", &data]).stdout.contains(app));
    let built = run(&["build", "-q", &data, "-o", "oci:out:v1"]).stdout;
    assert!(built.starts_with(digest), "{name}: {built}");
    assert_eq!(run(&["install", "-q", &name]).line(), app);
    let listed = run(&["profile", "list"]).stdout;
    let place = kind.place.as_deref().unwrap_or("app");
    assert!(listed.contains(place.rsplit(':').next().unwrap()), "{name}: {listed}");
    run(&["upgrade"]).says(&["Nothing has changed."]);
    let env: Value = serde_json::from_str(&run(&["env", "--json", &name]).stdout).unwrap();
    let again: Value = serde_json::from_str(&run(&["env", "--json", &name]).stdout).unwrap();
    assert_eq!(env, again);
    let dir = match kind.place {
        Some(_) => "/elsewhere/.layerize/env/app-",
        None => "/project/.layerize/env/app/",
    };
    let view = env["path"][0].as_str().unwrap();
    assert!(view.contains(dir), "{view}");

    assert!(run(&["plan", &data]).stdout.contains("app"), "{name}");
    assert!(run(&["sbom", &data]).stdout.contains("SPDX"), "{name}");
    assert!(run(&["provenance", &data]).stdout.contains("slsa"), "{name}");
    run(&["diff", &data, layout]);
    run(&["inputs", "list", &data]);
    run(&["explain", "--scripts", &data]);
    ran(&["test", &data]).exits(2).says(&["no tests of these images"]);
    if kind.place.is_some() {
        // Nothing is written beside it, and nothing changes there.
        ran(&["plan", "--save", &data])
            .exits(2)
            .says(&["nothing is written beside"]);
        ran(&["watch", &data])
            .exits(2)
            .says(&["nothing to watch", "layerize run"]);
    }
}

/// Every kind of place for every verb that takes names of a spec.
#[test]
fn verbs_take_places_wherever_they_take_names() {
    if !have("git", &["--version"]) {
        return;
    }
    let everywhere = Everywhere::new();
    let repository = &everywhere.repository;
    let registry = registry(&repository.place, Demands::default());
    let host = registry.as_ref().map(|registry| registry.host.as_str());
    let kinds = Kind::all(&everywhere, host);
    for kind in &kinds {
        use_place(kind, &everywhere);
    }
    // A build again, apart from the store, takes its time: of one kind.
    repository.run(&["check", &kinds[0].name("app")]).success();
}

/// As above, of those that take what is elsewhere to others: engines, machines and clients.
#[test]
fn what_is_elsewhere_is_served_loaded_pushed_and_copied() {
    if !have("git", &["--version"]) {
        return;
    }
    let everywhere = Everywhere::new();
    let repository = &everywhere.repository;
    let place = &repository.place;
    let (Some(registry), Some(machine)) = (registry(place, Demands::default()), Machine::start(place)) else {
        return;
    };
    let elsewhere = place.path().join("elsewhere");
    let engine = have("podman", &["--version"]).then(|| own_podman(place));
    for kind in Kind::all(&everywhere, Some(&registry.host)) {
        let (name, data) = (kind.name("app"), kind.name("data"));
        let run = |command: &mut Command| Ran::of(command.current_dir(&elsewhere).output().unwrap()).success();

        let served = Served::start_in(place, &elsewhere, &kind.with(&["serve", &data]));
        let from = format!("docker://{}/data", served.host);
        let copied = repository.run(&["copy", &from, "oci:served:v1"]).success();
        assert!(
            copied.stdout.starts_with(&everywhere.digest),
            "{data}: {}",
            copied.stdout
        );
        drop(served);
        let to = format!("docker://{}/team/again:1", registry.host);
        let pushed = run(&mut place.command(&kind.with(&["push", "-q", &data, &to])));
        assert!(
            pushed.stdout.starts_with(&everywhere.digest),
            "{data}: {}",
            pushed.stdout
        );
        let copy = kind.with(&["copy-closure", "-q", "--to", "ssh://box", &name]);
        let copied = run(&mut machine.command(place, &copy));
        assert_eq!(copied.line(), everywhere.app, "{name}");
        if engine.is_some() {
            let load = kind.with(&["load", "-q", "--engine", "podman", &data]);
            let loaded = run(&mut with_own_programs(place, &load));
            assert!(
                loaded.stdout.contains("podman:data:latest"),
                "{data}: {}",
                loaded.stdout
            );
        }
    }
    // A name of another machine is one there, whatever it looks like.
    let from = ["copy-closure", "--from", "ssh://box", "file:x.tar.gz#app"];
    machine.run(place, &from).exits(2).says(&["file:x.tar.gz#app"]);
    for (name, says) in [
        (repository.at("#app"), "`app` is no image, and images are served"),
        (repository.at("#dat"), "did you mean `data`?"),
    ] {
        repository.run(&["serve", &name]).exits(2).says(&[says]);
    }
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
