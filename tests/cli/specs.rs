//! Every example in `specs/`, built with its lock (refreshed where Debian replaced something) and tested; the first is loaded
//! into real engines, too.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::attest::validate;
use crate::support::{Place, RUST, Ran, copy_tree, have, in_another_world, is_root, peer, podman_run};

const GREETING: &str = "Hello, world!\n";

/// The digest at the start of a line that `build` printed.
fn digest(line: &str) -> &str {
    let digest = line.split_whitespace().next().unwrap();
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{line}");
    digest
}

/// Loads an archive into Docker under its own name and gives the image's name.
fn docker_load(archive: &Path) -> String {
    let loaded = peer(Command::new("docker").arg("load").arg("-i").arg(archive));
    let line = loaded
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("Loaded image: "))
        .map(str::to_owned);
    line.unwrap_or_else(|| panic!("docker load said: {}", loaded.stdout))
}

fn docker_run(image: &str, args: &[&str]) -> String {
    peer(
        Command::new("docker")
            .args(["run", "--rm", "--network", "none", image])
            .args(args),
    )
    .stdout
}

#[test]
fn hello_is_built_loaded_run_and_rebuilt_from_nothing_but_its_records() {
    let place = Place::with_spec("hello");
    let built = place.run(&["build", "--locked", "hello"]).success();
    let line = built.line().to_owned();
    assert!(line.ends_with(" docker-archive:hello.tar"), "{line}");
    assert_audited(&place, "hello");
    assert_tested(&place, 2);
    let archive = place.project.join("hello.tar");

    if have("docker", &["info"]) {
        assert_eq!(docker_run(&docker_load(&archive), &[]), GREETING);
    }
    if is_root() && have("podman", &["--version"]) {
        assert_eq!(podman_run(&place, &archive, &["hello"]), GREETING);
    }
    let layout = place.path().join("layout");
    if have("skopeo", &["--version"]) {
        let from = format!("oci-archive:{}", archive.display());
        let to = format!("oci:{}:hello", layout.display());
        peer(Command::new("skopeo").args(["copy", "--preserve-digests", &from, &to]));
        let seen = peer(Command::new("skopeo").args(["inspect", "--format", "{{.Digest}}", &to])).stdout;
        assert_eq!(seen.trim(), digest(&line));
        if is_root() && have("umoci", &["--version"]) {
            let bundle = place.path().join("bundle");
            peer(
                Command::new("umoci")
                    .args(["unpack", "--image"])
                    .arg(format!("{}:hello", layout.display()))
                    .arg(&bundle),
            );
            let names = peer(Command::new("ls").arg(bundle.join("rootfs/layerize/store"))).stdout;
            assert!(names.contains("-hello-2.10") && names.contains("-libc6-"), "{names}");
        }
    }

    the_closure_holds_libc_and_no_compiler(&place);
    place.run(&["check", "--locked"]).success();
    nothing_changed_opens_no_store_path(&place, &line);
    crate::walls::containers_build_the_same(&place, &line);
}

fn the_closure_holds_libc_and_no_compiler(place: &Place) {
    let closure = place.run(&["closure", "hello"]).success().stdout;
    for needed in ["-hello-2.10", "-libc6-"] {
        assert!(closure.contains(needed), "{needed} is missing in:\n{closure}");
    }
    for refused in ["-gcc-12-12", "-cpp-", "-binutils", "-make-", "-bash-", "-libc6-dev-"] {
        assert!(!closure.contains(refused), "{refused} is in:\n{closure}");
    }
    let why = place.run(&["closure", "hello", "--why", "libc6"]).success().stdout;
    assert!(why.contains("bin/hello") && why.contains("-libc6-"), "{why}");
}

/// What a build needed is collected, what it made is kept: building again needs none of it.
#[test]
fn a_collected_store_still_knows_what_was_built() {
    let place = Place::with_script("mkdir $out; echo made > $out/file");
    let line = place.run(&["build", "thing"]).success().line().to_owned();
    let collected = place.run(&["store", "gc", "--all", "--verbose"]).success().stdout;
    assert!(
        collected.contains("-coreutils-") && !collected.contains("-thing"),
        "{collected}"
    );
    let again = place.run(&["build", "--offline", "thing"]).success();
    assert_eq!(again.line(), line);
    assert!(
        again.stderr.contains("1 reused") && !again.stderr.contains("built"),
        "{}",
        again.stderr
    );

    // A new script needs all of it again, from the downloads that are still there.
    place.write(
        "layerize.toml",
        &crate::support::script_spec("mkdir $out; echo anew > $out/file"),
    );
    let anew = place.run(&["build", "--offline", "thing"]).success();
    assert_ne!(anew.line(), line);
    place.run(&["store", "verify"]).success();
}

/// With empty files in the place of all store paths' trees, a second build still succeeds: it opens none of them. That
/// they are there is all it looks for.
fn nothing_changed_opens_no_store_path(place: &Place, line: &str) {
    let trees = place.store().join("store");
    let away = place.store().join("store-away");
    fs::rename(&trees, &away).unwrap();
    fs::create_dir(&trees).unwrap();
    for name in layerize::fsio::sorted_names(&away).unwrap() {
        fs::write(trees.join(name), "").unwrap();
    }
    let before = fs::metadata(place.project.join("hello.tar")).unwrap();
    let second = place.run(&["build", "--locked", "hello"]).success();
    assert_eq!(second.line(), line);
    let after = fs::metadata(place.project.join("hello.tar")).unwrap();
    assert_eq!(
        before.modified().unwrap(),
        after.modified().unwrap(),
        "an unchanged archive is not written again"
    );
    fs::remove_dir_all(&trees).unwrap();
    fs::rename(&away, &trees).unwrap();
}

#[test]
fn two_worlds_make_the_same_bytes() {
    let place = Place::with_spec("hello");
    let first = place.run(&["build", "--locked", "hello"]).success();

    // Another store, directory, umask, time zone, locale, number of threads and, as root, another user.
    let (project, second) = in_another_world(&place, &["build", "--locked", "--jobs", "1", "--cores", "1", "hello"]);
    assert_eq!(second.line(), first.line());
    let (a, b) = (place.project.join("hello.tar"), project.project.join("hello.tar"));
    peer(Command::new("cmp").arg(&a).arg(&b));
    place.run(&["diff", a.to_str().unwrap(), b.to_str().unwrap()]).success();
}

fn place_of_spec(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("specs").join(name)
}

#[test]
fn nginx_serves_its_page() {
    let place = Place::with_spec("nginx");
    let built = place.run(&["build", "--locked"]).success();
    assert_same_elsewhere(&place, &built);
    let told = place.run(&["explain", "nginx.tar", "/usr/sbin/nginx"]).success().stdout;
    assert!(
        told.contains("package      nginx=") && told.contains("\nfrom         /layerize/store/"),
        "{told}"
    );
    assert_audited(&place, "nginx");
    place.run(&["check", "--locked"]).success();
    assert_tested(&place, 3);
}

/// All tests of a spec pass.
#[track_caller]
pub fn assert_tested(place: &Place, tests: usize) {
    let tested = place.run(&["test", "--locked"]).success().stdout;
    let passed = tested.lines().filter(|line| line.starts_with("ok ")).count();
    assert_eq!((passed, tested.lines().count()), (tests, tests), "{tested}");
}

#[test]
fn postgres_makes_its_database_when_it_starts() {
    assert_tested(&Place::with_spec("postgres"), 2);
}

#[test]
fn java_serves_and_trusts_authorities() {
    let place = Place::with_spec("java");
    assert_tested(&place, 2);
    place.run(&["check", "--locked"]).success();
}

#[test]
fn php_answers_behind_nginx() {
    assert_tested(&Place::with_spec("php"), 1);
}

#[test]
fn flask_serves_from_byte_code() {
    assert_tested(&Place::with_spec("flask"), 2);
}

/// What a server on this machine answers, as soon as it does.
fn answer(port: u16, path: &str) -> String {
    let ask = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    for _ in 0..100 {
        match ask() {
            Ok(text) if !text.is_empty() => return text,
            _ => std::thread::sleep(std::time::Duration::from_millis(100)),
        }
    }
    panic!("no answer on port {port}");
}

/// What the program of an image that Docker has answers where a variable names the port; the image goes.
pub fn answer_of_image(image: &str, variable: impl Fn(u16) -> String, path: &str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let run = ["run", "-d", "--rm", "--network", "host", "-e", &variable(port), image];
    let container = peer(Command::new("docker").args(run)).stdout;
    let answer = answer(port, path);
    peer(Command::new("docker").args(["kill", container.trim()]));
    peer(Command::new("docker").args(["rmi", "-f", image]));
    answer
}

/// A copy of an example without what layerize writes.
pub fn bare_spec(name: &str) -> Place {
    let place = Place::new();
    copy_tree(&place_of_spec(name), &place.project);
    for name in ["layerize.toml", "layerize.lock"] {
        fs::remove_file(place.project.join(name)).unwrap();
    }
    place
}

/// Puts the spec of an example into a copy that had none, with its lock, refreshed where Debian has replaced something.
pub fn take_spec(place: &Place, name: &str, refresh: impl Fn(&Place, &[&str]) -> Ran) {
    for file in ["layerize.toml", "layerize.lock"] {
        fs::copy(place_of_spec(name).join(file), place.project.join(file)).unwrap();
    }
    refresh(place, &["lock", "--refresh"]).success();
}

/// From a folder with nothing but sources and a lock file to an engine, with no edit between.
#[test]
fn rust_service_is_started_and_loaded_as_it_is() {
    let place = bare_spec("rust-service");
    place.take_debs(RUST);
    place.run(&["init", "--name", "notes"]).success();
    let has_docker = have("docker", &["info"]);
    match has_docker {
        true => place.run(&["load", "notes"]).success(),
        false => place.run(&["build", "notes"]).success(),
    };
    if has_docker {
        let health = answer_of_image("notes", |port| format!("NOTES_ADDRESS=127.0.0.1:{port}"), "/health");
        assert!(health.contains("ok: 0 notes in SQLite 3."), "{health}");
    }

    // The example's own spec, over what is compiled already.
    take_spec(&place, "rust-service", |place, verb| place.run(verb));
    assert_tested(&place, 2);
    let closure = place.run(&["closure", "notes"]).success().stdout;
    assert!(!closure.contains("-crate-") && !closure.contains("rustc"), "{closure}");

    let documents = ["--sbom", "spdx,cyclonedx"];
    place
        .run(&[&["build", "--locked", "--quiet", "notes"], &documents[..]].concat())
        .success();
    let lock = fs::read_to_string(place.project.join("Cargo.lock")).unwrap();
    for name in ["notes.spdx.json", "notes.cdx.json"] {
        let document = fs::read_to_string(place.project.join(name)).unwrap();
        let entries = lock
            .split("[[package]]")
            .skip(1)
            .filter(|entry| entry.contains("checksum"));
        let missing = entries.filter_map(|entry| {
            let field = |key: &str| {
                entry
                    .lines()
                    .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))
            };
            let [name, version] = ["name", "version"].map(|key| field(key).unwrap().trim_matches('"'));
            let purl = format!("pkg:cargo/{name}@{}\"", version.replace('+', "%2B"));
            (!document.contains(&purl)).then_some(purl)
        });
        assert_eq!(missing.collect::<Vec<_>>(), [""; 0], "{name}");
    }
    validate(&place, &["spdx=notes.spdx.json", "cyclonedx=notes.cdx.json"]);
}

/// What `uv lock` wrote is all that there is to be edited: `init`, then `load`, and the service answers; the spec that is
/// committed makes the same image, as another user with a store of its own too.
#[test]
fn python_api_is_served_after_init_alone() {
    let place = Place::with_spec("python-api");
    assert_tested(&place, 3);
    let built = place.run(&["build", "--locked"]).success();
    assert_audited(&place, "python-api");
    assert_every_wheel_is_listed(&place);

    let bare = place.path().join("bare");
    copy_tree(&place.project, &bare);
    for name in ["layerize.toml", "layerize.lock", "python-api.tar"] {
        fs::remove_file(bare.join(name)).unwrap();
    }
    let run = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        Ran::of(command.current_dir(&bare).output().unwrap()).success()
    };
    run(&["init", "--name", "python-api"]);
    if have("docker", &["info"]) {
        let loaded = run(&["load", "--engine", "docker"]);
        assert_answers(loaded.line().split_whitespace().next().unwrap());
    }
    // Debian may have replaced something since the lock was committed: that was refreshed, and this was made anew.
    fs::copy(place.project.join("layerize.lock"), bare.join("layerize.lock")).unwrap();
    assert_eq!(run(&["build", "--locked"]).stdout, built.stdout);
    let (_world, again) = in_another_world(&place, &["build", "--locked"]);
    assert_eq!(again.stdout, built.stdout);
}

/// The service in an image that Docker has answers; asked from inside, as the machine has no network for it.
#[track_caller]
fn assert_answers(image: &str) {
    let started = peer(Command::new("docker").args(["run", "-d", "--network", "none", image]));
    let container = started.stdout.trim();
    let ask = "import time, urllib.request\nfor _ in range(300):\n  try:\n    \
               print(urllib.request.urlopen('http://127.0.0.1:8000/statistics?of=1,2,6').read().decode()); break\n  \
               except OSError: time.sleep(0.1)\n";
    let answer = Command::new("docker")
        .args(["exec", container, "python", "-c", ask])
        .output();
    peer(Command::new("docker").args(["rm", "-f", container]));
    let answer = Ran::of(answer.unwrap()).success().stdout;
    assert_eq!(answer.trim(), r#"{"mean":3.0,"median":2.0,"cumulative":[1.0,3.0,9.0]}"#);
}

/// The bill of materials has each wheel of the environment with its licence, and no more.
#[track_caller]
fn assert_every_wheel_is_listed(place: &Place) {
    for format in ["cyclonedx", "spdx"] {
        // Beside the project, for what is in it is part of the source.
        let name = format!("../{format}.json");
        place
            .run(&["sbom", "--format", format, "-o", &name, "python-api"])
            .success();
    }
    crate::attest::validate(place, &["cyclonedx=../cyclonedx.json", "spdx=../spdx.json"]);
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(place.project.join(name)).unwrap()).unwrap()
    };
    let closure = place.run(&["closure", "python-api"]).success().stdout;
    let wheels = closure.lines().filter(|line| !line.contains("-python-api")).count();
    let (cyclonedx, spdx) = (read("../cyclonedx.json"), read("../spdx.json"));
    let is_pypi = |purl: &serde_json::Value| purl.as_str().is_some_and(|purl| purl.starts_with("pkg:pypi/"));
    let components = cyclonedx["components"].as_array().unwrap().iter();
    let components: Vec<_> = components.filter(|component| is_pypi(&component["purl"])).collect();
    assert_eq!((components.len(), wheels), (16, 16), "{closure}");
    for component in components {
        assert!(component["licenses"][0].is_object(), "{component}");
    }
    let packages = spdx["packages"].as_array().unwrap().iter();
    let packages = packages.filter(|package| {
        is_pypi(&package["externalRefs"][0]["referenceLocator"]) && package["primaryPackagePurpose"] == "INSTALL"
    });
    let licences: Vec<_> = packages.map(|package| package["licenseDeclared"].clone()).collect();
    assert_eq!(licences.len(), 16);
    assert!(licences.iter().all(|licence| licence != "NOASSERTION"), "{licences:?}");
    assert!(licences.iter().any(|licence| licence == "MIT"), "{licences:?}");
}

#[test]
fn static_is_one_store_path_and_runs() {
    let place = Place::with_spec("static");
    let built = place.run(&["build", "--locked"]).success();
    assert_same_elsewhere(&place, &built);
    assert_audited(&place, "static");
    place.run(&["check", "--locked"]).success();
    let closure = place.run(&["closure", "static"]).success().stdout;
    assert_eq!(closure.lines().count(), 1, "{closure}");
    assert_tested(&place, 2);
}

#[test]
fn the_monorepo_images_share_what_they_have_in_common() {
    let place = Place::with_spec("monorepo");
    let built = place.run(&["build", "--locked"]).success();
    assert_eq!(built.stdout.lines().count(), 2, "{}", built.stdout);
    for (name, line) in ["api", "worker"].into_iter().zip(built.stdout.lines()) {
        assert!(line.ends_with(&format!("docker-archive:{name}.tar")), "{line}");
        assert_audited(&place, name);
    }
    assert_same_elsewhere(&place, &built);
    place.run(&["check", "--locked"]).success();
    let shared = |image: &str| -> Vec<String> {
        let closure = place.run(&["closure", image]).success().stdout;
        closure
            .lines()
            .filter(|line| line.contains("-greet-1"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(shared("api").len(), 1);
    assert_eq!(shared("api"), shared("worker"));
    assert_tested(&place, 2);

    // A comment in the shared library's source: its content stays the same, so its users are not built again.
    let source = place.project.join("base/greet/greet.c");
    let text = fs::read_to_string(&source).unwrap();
    fs::write(&source, format!("/* changed */ {text}")).unwrap();
    let again = place.run(&["build", "--locked", "--json", "api"]).success();
    let builds: Vec<&str> = again
        .stdout
        .lines()
        .filter(|line| line.contains("\"build-started\""))
        .collect();
    assert!(
        builds.len() == 1 && builds[0].contains("base:greet"),
        "only the library is built: {builds:?}"
    );
    assert_eq!(
        digest_of_image(&again.stdout),
        digest(built.stdout.lines().next().unwrap())
    );
}

fn digest_of_image(events: &str) -> String {
    let event = events
        .lines()
        .find(|line| line.contains("\"image-written\""))
        .expect("an image was written");
    let event: serde_json::Value = serde_json::from_str(event).unwrap();
    event["digest"].as_str().unwrap().to_owned()
}

/// A second build, with a store of its own, must give the digests of the first.
#[track_caller]
fn assert_same_elsewhere(place: &Place, built: &Ran) {
    let again = place.elsewhere().run(&["build", "--locked"]).success();
    assert!(again.stderr.contains(" built"), "{}", again.stderr);
    assert_eq!(again.stdout, built.stdout);
}

/// No profile has anything to say of an image, and it comes out again from what it tells of its making.
#[track_caller]
fn assert_audited(place: &Place, image: &str) {
    let archive = format!("{image}.tar");
    let profiles = ["docker-20", "lambda", "strict"].map(|profile| format!("--profile={profile}"));
    let verify = [
        &["verify", archive.as_str()][..],
        &profiles.each_ref().map(String::as_str),
    ]
    .concat();
    place.run(&verify).success();
    let ran = place.run(&["rebuild", "--json", &archive]).success();
    assert!(ran.stdout.contains("\"layers_of_image\":true"), "{}", ran.stdout);
}

/// A build of the same inputs that gives another digest than the lock records is an error; of other inputs it is said.
#[test]
fn a_recorded_digest_is_compared() {
    let place = Place::with_script("mkdir $out; echo made > $out/file");
    let recorded = place.run(&["lock", "--golden"]).success();
    assert!(
        recorded
            .stderr
            .contains("+ digest of thing (linux/amd64, gzip) sha256:"),
        "{}",
        recorded.stderr
    );
    let line = place.run(&["build", "--locked", "thing"]).success().line().to_owned();
    let lock = fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    assert!(lock.contains(digest(&line)), "{lock}");

    let wrong = lock.replace(digest(&line), &format!("sha256:{}", "0".repeat(64)));
    place.write("layerize.lock", &wrong);
    let refused = place.run(&["build", "--locked", "thing"]).exits(2);
    refused.says(&[
        "for the same spec, lock and sources",
        "layerize check thing",
        digest(&line),
    ]);
    place.run(&["build", "thing"]).success();
    // Another compression is another image, of which nothing is recorded.
    place
        .run(&["build", "--locked", "--compression", "none", "thing"])
        .success();

    place.write("layerize.lock", &lock);
    place.write(
        "layerize.toml",
        &crate::support::script_spec("mkdir $out; echo other > $out/file"),
    );
    let other = place.run(&["build", "--locked", "thing"]).success();
    other.says(&["for other inputs", "layerize lock --golden"]);
    place.run(&["lock"]).success();
    assert_eq!(fs::read_to_string(place.project.join("layerize.lock")).unwrap(), lock);
    let again = place.run(&["lock", "--golden"]).success();
    assert!(again.stderr.contains("~ digest of thing"), "{}", again.stderr);
    place.run(&["build", "--locked", "thing"]).success();
}

#[test]
fn every_spec_is_covered_here() {
    let names: Vec<String> = layerize::fsio::sorted_names(&Path::new(env!("CARGO_MANIFEST_DIR")).join("specs"))
        .unwrap()
        .into_iter()
        .map(|name| name.into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    assert_eq!(
        names,
        [
            "express-service",
            "flask",
            "go-service",
            "hello",
            "java",
            "monorepo",
            "nginx",
            "php",
            "postgres",
            "python-api",
            "rust-service",
            "static"
        ],
        "add a test for a new spec, then its name here"
    );
    for name in names {
        let mode = fs::metadata(place_of_spec(&name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o500, 0o500);
    }
}
