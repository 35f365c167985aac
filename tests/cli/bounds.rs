//! What a build may use, and what it says when it fails for a common reason.

use std::fs;

use crate::support::Place;

/// A project whose packages have these scripts, with the base tools.
fn project(head: &str, scripts: &[(&str, &str)]) -> Place {
    let place = Place::with_script("true");
    let packages = scripts
        .iter()
        .map(|(name, script)| format!("[package.{name}]\nscript = '''\n{script}\n'''\n\n"));
    place.write("layerize.toml", &(head.to_owned() + &packages.collect::<String>()));
    place
}

/// Takes 200 MB of memory in one process: bash keeps a variable in it.
const HUNGRY: &str = "x=$(head -c 200000000 /dev/zero | tr '\\0' x)\necho ${#x} > $out";

/// Has fifty processes at one time.
const CROWD: &str = "for i in $(seq 50); do sleep 5 & done\nwait\necho > $out";

#[test]
fn a_script_that_uses_too_much_is_stopped_and_told_so() {
    let place = project(
        "[build]\nmax-memory = \"64MiB\"\n\n",
        &[("hungry", HUNGRY), ("small", "echo > $out")],
    );
    let failed = place.run(&["build", "hungry"]).exits(2);
    // A control group counts what was killed; with resource limits the shell says that it ran out.
    let told = failed.stderr.contains("was stopped: it exceeded max-memory 64 MiB")
        || failed.stderr.to_lowercase().contains("cannot allocate");
    assert!(told, "{}", failed.stderr);
    failed.says(&["help: raise `max-memory` or `max-processes`: `--max-memory 4GiB`"]);
    place.run(&["build", "small"]).success();

    // The machine goes before the spec, and the command before both; none of them changes what is built.
    let config = place.path().join("config/layerize");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.toml"), "[build]\nmax-memory = \"2GiB\"\n").unwrap();
    place
        .run(&["build", "hungry", "--max-memory", "48MiB"])
        .exits(2)
        .says(&["help: raise `max-memory`"]);
    let built = place.run(&["build", "hungry"]).success().line().to_owned();
    fs::remove_file(config.join("config.toml")).unwrap();
    // It is there already: bounds are no input of a derivation.
    assert_eq!(place.run(&["build", "hungry"]).success().line(), built);
}

#[test]
fn a_script_with_too_many_processes_is_stopped_and_told_so() {
    let place = project("", &[("crowd", CROWD)]);
    let failed = place.run(&["build", "crowd", "--max-processes", "20"]);
    if failed.status == 0 {
        // Root without control groups: its processes are not counted (see `layerize help sandbox`).
        return crate::support::skipped("nothing bounds the number of root's processes here");
    }
    let told = failed.stderr.contains("was stopped: it exceeded max-processes 20")
        || failed.stderr.contains("Resource temporarily unavailable");
    assert!(told, "{}", failed.stderr);
    failed.exits(2).says(&["help: raise `max-memory` or `max-processes`"]);
    for (flag, value, text) in [
        ("--max-memory", "much", "write a number with its unit"),
        ("--max-processes", "0", "0 is not in 1.."),
    ] {
        place.run(&["build", "crowd", flag, value]).exits(2).says(&[text]);
    }
}

/// What many builds fail by has its own advice: see `build::hints` for more spellings.
#[test]
fn common_failures_say_what_to_type() {
    let place = project(
        "",
        &[
            ("home", "mkdir -p $HOME/.cache"),
            ("owner", "touch f; chown 12:34 f"),
            ("setuid", "touch f; chmod 4755 f"),
            ("network", "exec 3<>/dev/tcp/registry.example/80"),
            ("program", "cmake --version"),
            ("other", "frobnicate --version"),
            ("none", "cat /build/missing"),
        ],
    );
    for (name, expected) in [
        (
            "home",
            "help: a build has no home directory: begin its script with `export HOME=$TMPDIR`",
        ),
        ("owner", "leave that to the image, `permissions = [{ path ="),
        ("setuid", "leave that to the image, `permissions = [{ path ="),
        (
            "network",
            "help: a build has no network: give what it downloads as `source = { url =",
        ),
        ("program", "help: add `\"deb:cmake\"`, which has `cmake`, to `tools`"),
        ("other", "`apt-file search bin/frobnicate` tells which"),
        ("none", "help: `layerize build --keep-failed` keeps the build directory"),
    ] {
        place.run(&["build", name]).exits(2).says(&[expected]);
    }
}
