//! `layerize update`: lock files of languages are written anew by the languages' own tools, real Cargo among them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use layerize::digest::Digest;

use crate::support::{Place, Ran};

const SPEC: &str = "[package.app]\nsource = { path = \".\", include = [\"src/**\", \"Cargo.*\"] }\nrust = {}\n\
    script = \"touch $out\"\n";

const MANIFEST: &str = "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n\
    [dependencies]\none = \"1\"\nother = \"1\"\n";

/// A place where Cargo's registry is a directory, with version 1.0.0 of two crates, and a project that locks them.
fn project() -> Place {
    let place = Place::new();
    let home = place.path().join(".cargo");
    fs::create_dir_all(&home).unwrap();
    let config = format!(
        "[source.crates-io]\nreplace-with = \"local\"\n[source.local]\nlocal-registry = \"{}\"\n",
        place.path().join("crates").display()
    );
    fs::write(home.join("config.toml"), config).unwrap();
    for name in ["one", "other"] {
        publish(&place, name, &["1.0.0"]);
    }
    place
        .write("layerize.toml", SPEC)
        .write("Cargo.toml", MANIFEST)
        .write("src/main.rs", "fn main() {}\n");
    let mut command = Command::new(env!("CARGO"));
    place.prepare(command.args(["generate-lockfile", "--offline"]));
    assert!(command.status().unwrap().success());
    place.run(&["lock"]).success();
    place
}

/// Puts versions of a crate into the registry.
fn publish(place: &Place, name: &str, versions: &[&str]) {
    let dir = place.path().join("crates");
    let index = match name.len() {
        3 => dir.join("index/3").join(&name[..1]),
        _ => dir.join("index").join(&name[..2]).join(&name[2..4]),
    };
    fs::create_dir_all(&index).unwrap();
    let mut lines = String::new();
    for version in versions {
        let bytes = format!("{name} {version}");
        fs::write(dir.join(format!("{name}-{version}.crate")), &bytes).unwrap();
        let hash = Digest::of(bytes.as_bytes()).hex();
        lines += &format!(
            "{{\"name\":\"{name}\",\"vers\":\"{version}\",\"deps\":[],\"cksum\":\"{hash}\",\"features\":{{}},\"yanked\":false}}\n"
        );
    }
    fs::write(index.join(name), lines).unwrap();
}

/// Runs `layerize update` with the directory of a tool before all others.
fn update(place: &Place, tools: &Path, args: &[&str]) -> Ran {
    let mut command = place.command(&[&["update"], args].concat());
    let path = format!("{}:/usr/bin:/bin", tools.display());
    Ran::of(command.env("PATH", path).output().unwrap())
}

fn cargo() -> &'static Path {
    Path::new(env!("CARGO")).parent().unwrap()
}

/// A program that stands for a tool: a script of the shell.
fn stand_in(place: &Place, name: &str, script: &str) -> std::path::PathBuf {
    let dir = place.path().join("tools");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

#[test]
fn cargo_updates_what_is_named() {
    let place = project();
    for name in ["one", "other"] {
        publish(&place, name, &["1.0.0", "1.0.1"]);
    }
    let read = || fs::read_to_string(place.project.join("Cargo.lock")).unwrap();
    let ran = update(&place, cargo(), &["rust:one"]).success();
    let ran = ran.says(&[
        "~ rust:one 1.0.0 → 1.0.1",
        "Cargo.lock written, 1 changed.",
        "layerize.lock is current.",
    ]);
    assert!(!ran.stderr.contains("other"), "{}", ran.stderr);
    assert_eq!(read().matches("1.0.1").count(), 1);
    update(&place, cargo(), &["one"])
        .success()
        .says(&["Cargo.lock is current."]);
    update(&place, cargo(), &["other", "--offline"])
        .success()
        .says(&["~ rust:other 1.0.0 → 1.0.1"]);
    assert_eq!(read().matches("1.0.1").count(), 2);
}

#[test]
fn what_cannot_be_updated_is_told_and_nothing_is_lost() {
    let place = project();
    let before = fs::read(place.project.join("Cargo.lock")).unwrap();
    update(&place, cargo(), &["ones"])
        .exits(2)
        .says(&["`ones` is in no lock file", "did you mean `one`?"]);
    // The machine may have Debian's.
    let mut without = place.command(&["update", "one"]);
    let without = without.env("PATH", "/nonexistent").output().unwrap();
    Ran::of(without)
        .exits(2)
        .says(&["`cargo` is not on this machine", "Cargo.lock", "install `cargo`"]);
    let tools = stand_in(
        &place,
        "cargo",
        "echo broken >Cargo.lock\necho no such crate >&2\nexit 3",
    );
    update(&place, &tools, &["one"]).exits(2).says(&[
        "`cargo update --package=one` failed",
        "no such crate",
        "as it was before",
    ]);
    assert_eq!(fs::read(place.project.join("Cargo.lock")).unwrap(), before);
}

#[test]
fn a_lock_file_that_no_tool_writes_is_told() {
    let place = Place::new();
    place
        .write(
            "layerize.toml",
            "[package.app]\nsource = { path = \"src\" }\npython = {}\n",
        )
        .write(
            "src/pylock.toml",
            "lock-version = \"1.0\"\ncreated-by = \"a test\"\npackages = []\n",
        );
    place.lock_base();
    let tools = stand_in(&place, "uv", "exit 1");
    update(&place, &tools, &[])
        .exits(2)
        .says(&["`pylock.toml` does not say from what it was made", "`pip lock`"]);
}
