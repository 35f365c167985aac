//! `layerize load`: only what the engine lacks is sent.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::{Place, Ran, have, peer};

/// A place with a spec of three packages with 1 MB each, in a layer of its own each, and an image of them. `mark` makes
/// them other than every other test's.
fn with_packages(mark: &str) -> Place {
    let place = Place::new();
    let mut spec = String::new();
    for name in ["one", "two", "three"] {
        let noise = format!("{mark} {name} ").repeat(1_000_000 / (mark.len() + name.len() + 2));
        place.write(&format!("{name}/share/{name}"), &noise);
        spec.push_str(&format!("[package.{name}]\nsource = \"{name}\"\n\n"));
    }
    let image = format!("[image.layerize-test-{mark}]\ncontents = [\"one\", \"two\", \"three\"]\n");
    place.write("layerize.toml", &(spec + &image));
    place
}

/// Bytes sent and left out.
fn load(place: &Place, engine: &str) -> (u64, u64, String) {
    let ran = place.run(&["load", "--json", "--engine", engine]).success();
    let mut events = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let event = events.rfind(|event| event["event"] == "transferred").unwrap();
    let number = |key: &str| event[key].as_u64().unwrap();
    (
        number("written"),
        number("skipped"),
        event["digest"].as_str().unwrap().to_owned(),
    )
}

/// A `podman` with a storage of the place's own, in the directory that `PATH` is to begin with; and how it is called.
pub fn own_podman(place: &Place) -> PathBuf {
    let program = peer(Command::new("sh").args(["-c", "command -v podman"]))
        .line()
        .to_owned();
    let at = |name: &str| place.path().join(name).display().to_string();
    let script = format!(
        "#!/bin/sh\nexec {program} --root {} --runroot {} --storage-driver vfs --cgroup-manager cgroupfs --runtime runc \"$@\"\n",
        at("podman"),
        at("podman-run")
    );
    place.write("bin/podman", &script);
    let podman = place.project.join("bin/podman");
    fs::set_permissions(&podman, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    podman
}

/// `layerize` with programs of the place's own before the machine's.
pub fn with_own_programs(place: &Place, args: &[&str]) -> Command {
    let mut command = place.command(args);
    let own = place.project.join("bin");
    command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", own.display()));
    command
}

/// Podman reads a temporary layout that has only what it lacks.
#[test]
fn podman_gets_the_layers_that_it_lacks() {
    if !have("podman", &["--version"]) {
        return;
    }
    let mark = format!("podman-{}", std::process::id());
    let place = with_packages(&mark);
    let name = format!("layerize-test-{mark}:latest");
    let podman = own_podman(&place);
    let load = || {
        let mut command = with_own_programs(&place, &["load", "--json", "--engine", "podman"]);
        let events = peer(&mut command).stdout;
        let mut events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let event = events.rfind(|event| event["event"] == "transferred").unwrap();
        event["written"].as_u64().unwrap()
    };
    let first = load();
    assert!(first > 3_000_000, "{first}");
    assert_eq!(load(), 0);
    fs::write(place.project.join("one/share/one"), "changed").unwrap();
    let leaf = load();
    assert!(leaf < 100_000, "{leaf}");
    let seen = |format: &str| peer(Command::new(&podman).args(["image", "inspect", "--format", format, &name])).stdout;
    assert_eq!(
        seen("{{json .RepoTags}}").trim(),
        format!("[\"localhost/{name}\"]").replace("localhost", "docker.io/library")
    );
}

/// One image has a manifest, by which registries name it, and an ID, by which engines do: `build` and `load` say which is
/// which, and both say the same.
#[test]
fn build_and_load_say_which_digest_is_which() {
    let mark = format!("digests-{}", std::process::id());
    let image = format!("layerize-test-{mark}");
    let place = Place::new();
    place.write("file", &mark).write(
        "layerize.toml",
        &format!("[image.{image}]\nfiles = {{ \"/file\" = \"file\" }}\n"),
    );
    let written = |ran: Ran| {
        let mut events = ran
            .success()
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect::<Vec<Value>>();
        events.retain(|event| event["event"] == "image-written");
        events.pop().unwrap()
    };
    let built = place.run(&["build"]).success();
    let digest = built.line().split(' ').next().unwrap().to_owned();
    let event = written(place.run(&["build", "--json"]));
    let id = event["id"].as_str().unwrap();
    assert_eq!(event["digest"], digest);
    let inspected = place.inspect(&format!("{image}.tar"));
    assert_eq!(inspected["config_digest"], id, "{inspected:#}");
    built.says(&[
        &format!("{image}: manifest {digest}, as registries"),
        &format!("image ID {id}, as Docker"),
    ]);
    if have("docker", &["info"]) {
        let loaded = place.run(&["load", "--engine", "docker"]).success();
        let name = format!("{image}:latest");
        let shown = docker(&["image", "inspect", "--format", "{{.Id}}", &name]);
        assert_eq!(loaded.line(), format!("{} docker:{name}", shown.trim()));
        loaded.says(&[
            &format!("{image}: image ID {}", shown.trim()),
            "`build` and `push` print",
        ]);
        docker(&["rmi", "-f", &name]);
        // Docker's classic store; its containerd store has the manifest's digest.
        if docker(&["info", "--format", "{{.DriverStatus}}"]).contains("containerd") {
            return;
        }
        assert_eq!(shown.trim(), id);
    }
    if have("podman", &["--version"]) {
        let podman = own_podman(&place);
        let loaded = Ran::of(
            with_own_programs(&place, &["load", "--engine", "podman"])
                .output()
                .unwrap(),
        );
        let loaded = loaded.success();
        let shown = peer(Command::new(&podman).args(["image", "inspect", "--format", "{{.Id}}", &image])).stdout;
        assert_eq!(shown.trim(), id.trim_start_matches("sha256:"));
        loaded.says(&[&format!("{image}: image ID {id}, as Docker and podman")]);
    }
}

fn docker(args: &[&str]) -> String {
    peer(Command::new("docker").args(args)).stdout
}

#[test]
fn docker_gets_the_layers_that_it_lacks() {
    if !have("docker", &["info"]) {
        return;
    }
    let mark = format!("docker-{}", std::process::id());
    let place = with_packages(&mark);
    let name = format!("layerize-test-{mark}:latest");
    let layers = || docker(&["image", "inspect", "--format", "{{json .RootFS.Layers}}", &name]);
    let (first, _, _) = load(&place, "docker");
    assert!(first > 3_000_000, "{first}");
    let id = docker(&["image", "inspect", "--format", "{{.Id}}", &name]);

    // The same again: nothing is sent. Without its name: the name is given back.
    assert_eq!(load(&place, "docker").0, 0);
    docker(&["tag", &name, &format!("{name}-kept")]);
    docker(&["rmi", &name]);
    assert_eq!(load(&place, "docker").0, 0);
    assert_eq!(docker(&["image", "inspect", "--format", "{{.Id}}", &name]), id);

    // Only the uppermost layer changes: the others stay.
    let spec = fs::read_to_string(place.project.join("layerize.toml")).unwrap();
    place.write(
        "layerize.toml",
        &format!("{spec}files = {{ \"/note\" = {{ text = \"{mark}\" }} }}\n"),
    );
    let before: Vec<String> = serde_json::from_str(&layers()).unwrap();
    let (top, skipped, _) = load(&place, "docker");
    assert!(top < 50_000 && skipped > 3_000_000, "{top} {skipped}");
    let after: Vec<String> = serde_json::from_str(&layers()).unwrap();
    assert_eq!(after[..3], before[..3]);

    // One leaf changes: it and what is above it are sent, what is below is not.
    let share = place.project.join("three/share/three");
    let text = fs::read_to_string(&share).unwrap();
    fs::write(&share, format!("{text} changed")).unwrap();
    let (leaf, _, _) = load(&place, "docker");
    assert!((1_000_000..=first).contains(&leaf), "{leaf}");
    #[expect(clippy::print_stderr, reason = "figures that the documentation quotes")]
    {
        eprintln!("bytes streamed: first {first}, same 0, upper layer {top}, one leaf {leaf}");
    }

    // What is gone from the engine is sent again.
    docker(&["rmi", "-f", &name, &format!("{name}-kept")]);
    let ids = docker(&[
        "image",
        "ls",
        "-q",
        "--filter",
        "dangling=true",
        "--filter",
        &format!("reference=layerize-test-{mark}"),
    ]);
    assert_eq!(ids, "");
    let (again, _, _) = load(&place, "docker");
    assert!(again > 0);
    docker(&["rmi", "-f", &name]);
}

/// An engine that claims to have layers and has not gets everything.
#[test]
fn an_engine_that_refuses_what_is_left_out_gets_all() {
    if !have("docker", &["info"]) {
        return;
    }
    let mark = format!("refused-{}", std::process::id());
    let place = with_packages(&mark);
    let name = format!("layerize-test-{mark}:latest");
    place
        .run(&["build", "-o", "docker-archive:image.tar", "--compression", "none"])
        .success();
    let inspected = place.inspect("image.tar");
    let ids: Vec<&str> = inspected["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["diff_id"].as_str().unwrap())
        .collect();
    // A `docker` that lists an image of all these layers, and hands on the rest.
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n'image ls -aq --no-trunc') echo sha256:0;;\n*RootFS.Layers*) echo '{}';;\n*) exec $DOCKER \"$@\";;\nesac\n",
        serde_json::to_string(&ids).unwrap()
    )
    .replace("$DOCKER", peer(Command::new("sh").args(["-c", "command -v docker"])).line());
    place.write("bin/docker", &script);
    let program = place.project.join("bin/docker");
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    peer(&mut with_own_programs(&place, &["load", "--engine", "docker"]));
    let found = docker(&["image", "inspect", "--format", "{{json .RootFS.Layers}}", &name]);
    assert_eq!(serde_json::from_str::<Vec<String>>(&found).unwrap(), ids);
    docker(&["rmi", "-f", &name]);
}
