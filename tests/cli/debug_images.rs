//! Debug images: every layer of the first image, and above them what a debugger asks for.

use serde_json::Value;

use crate::support::{Place, Ran, have, in_another_world};

const MAIN: &str = r#"#include <stdio.h>
#include "lib/twice.h"

int main(int argc, char **argv) {
    (void)argv;
    printf("twice is %d\n", twice(argc));
    return 0;
}
"#;

const SPEC: &str = r#"
[package.app]
source = { path = "src" }
tools = ["deb:gcc"]
libraries = ["deb:libc6-dev"]
script = """
mkdir -p $out/bin build
cd build
gcc -g -O0 -o $out/bin/app ../main.c
"""

[image.app]
contents = ["app"]
entrypoint = ["app"]
user = "1000"
debug = true
"#;

/// A project with a program of two files, and a third that it does not use.
fn project(spec: &str) -> Place {
    let place = Place::new();
    place.write("layerize.toml", spec);
    place.write("src/main.c", MAIN);
    place.write("src/lib/twice.h", "static int twice(int x) {\n    return 2 * x;\n}\n");
    place.write("src/lib/unused.c", "int unused;\n");
    place
}

/// The digests that `build` prints, by the archive.
fn digests(built: &Ran) -> Vec<(&str, &str)> {
    let lines = built.stdout.lines();
    lines
        .map(|line| {
            line.split_once(" docker-archive:")
                .map(|(digest, file)| (file, digest))
                .unwrap()
        })
        .collect()
}

fn digest<'a>(built: &'a Ran, file: &str) -> &'a str {
    let all = digests(built);
    all.iter().find(|(name, _)| *name == file).unwrap().1
}

/// Runs a program in the debug image.
fn inside(place: &Place, program: &str, arguments: &[&str]) -> Ran {
    let mut all = vec![
        "run",
        "--quiet",
        "--isolated",
        "app-debug",
        "--network",
        "none",
        "--entrypoint",
        program,
        "--",
    ];
    all.extend(arguments);
    place.run(&all)
}

/// The layers of `second` begin with those of `first`: diffIDs and blobs.
#[track_caller]
fn assert_shared(place: &Place, first: &str, second: &str) -> usize {
    let layers = |image: &str| {
        let inspected = place.inspect(image);
        let layers = inspected["layers"].as_array().unwrap().iter();
        let layers = layers.map(|layer| (layer["digest"].clone(), layer["diff_id"].clone(), layer["size"].clone()));
        layers.collect::<Vec<(Value, Value, Value)>>()
    };
    let (first, second) = (layers(first), layers(second));
    assert!(
        first
            .iter()
            .all(|(digest, diff_id, _)| digest.is_string() && diff_id.is_string())
    );
    assert!(second.starts_with(&first), "{first:#?}\n{second:#?}");
    second.len() - first.len()
}

/// Stops the program in its second file, traces it, and looks around.
fn debug_inside(place: &Place) {
    let script = [
        "break twice",
        "run",
        "info source",
        "list",
        "up",
        "info source",
        "python print('python', 6 * 7)",
    ];
    let script: Vec<&str> = script.iter().flat_map(|line| ["-ex", line]).collect();
    let ran = inside(place, "gdb", &[&["-batch"], &script[..], &["app"]].concat()).success();
    for text in [
        "Breakpoint 1, twice (x=1)",
        "Located in /build/source/lib/twice.h",
        "2\t    return 2 * x;",
        "Located in /build/source/main.c",
        "6\t    printf(\"twice is %d\\n\", twice(argc));",
        "python 42",
    ] {
        assert!(
            ran.stdout.contains(text),
            "`{text}` is missing in:\n{}{}",
            ran.stdout,
            ran.stderr
        );
    }
    let ran = inside(place, "strace", &["-e", "trace=write", "app"]).success();
    assert!(ran.stderr.contains("write(1, \"twice is 2\\n\""), "{}", ran.stderr);
    let shell = "id -u; type app bash sh ls ps grep; test ! -e /build/source/lib/unused.c && echo unused";
    let ran = inside(place, "bash", &["-c", shell]).success();
    for text in ["1000\n", "app is /bin/app", "ls is /", "unused\n"] {
        assert!(ran.stdout.contains(text), "`{text}` is missing in:\n{}", ran.stdout);
    }
    // The first one has nothing of it.
    let ran = place.run(&[
        "run",
        "--quiet",
        "--isolated",
        "app",
        "--network",
        "none",
        "--entrypoint",
        "bash",
        "--",
        "-c",
        "true",
    ]);
    assert_eq!(ran.status, 127, "{}", ran.stderr);
}

#[test]
fn a_debug_image_has_the_first_one_s_layers_and_what_debuggers_ask_for() {
    if !have("apt-get", &["--version"]) {
        return;
    }
    let place = project(SPEC);
    place.run(&["lock"]).success();
    let built = place.run(&["build", "--locked"]).success();
    let names: Vec<&str> = digests(&built).into_iter().map(|(file, _)| file).collect();
    assert_eq!(names, ["app.tar", "app-debug.tar"]);
    let above = assert_shared(&place, "app.tar", "app-debug.tar");
    assert!((3..=4).contains(&above), "{above}");
    let (first, second) = (place.inspect("app.tar"), place.inspect("app-debug.tar"));
    for key in ["User", "Env", "Entrypoint", "Cmd", "WorkingDir"] {
        assert_eq!(first["config"]["config"][key], second["config"]["config"][key], "{key}");
    }
    for image in ["app.tar", "app-debug.tar"] {
        place.run(&["verify", image]).success();
    }
    debug_inside(&place);
    let differs = place.run(&["diff", "app", "app-debug"]).exits(1);
    assert!(differs.stdout.contains("debug-tools"), "{}", differs.stdout);
    let sbom = place.run(&["sbom", "app-debug"]).success().stdout;
    for part in [
        "debug-tools",
        "gdb_13",
        "pkg:deb/debian/libc6-dbg@",
        "pkg:oci/app@sha256",
    ] {
        assert!(sbom.contains(part), "{part}: {sbom}");
    }
    let provenance = place.run(&["provenance", "app-debug"]).success().stdout;
    assert!(
        provenance.contains("gdb_") && provenance.contains("strace_"),
        "{provenance}"
    );
}

/// Few tools: what is asked here does not depend on which.
const SMALL: &str = "debug = { tools = [\"deb:bash\", \"deb:strace\"] }\n";

#[test]
fn a_debug_image_is_the_same_everywhere_and_the_first_one_does_not_know_of_it() {
    if !have("apt-get", &["--version"]) {
        return;
    }
    let spec = SPEC.replace("debug = true\n", SMALL);
    let place = project(&spec);
    place.run(&["lock"]).success();
    let built = place.run(&["build"]).success();
    let (_other, elsewhere) = in_another_world(&place, &["build", "--locked"]);
    assert_eq!(digests(&elsewhere), digests(&built));
    // A tool more moves the tools and nothing below them; the lock holds it.
    place.write(
        "layerize.toml",
        &spec.replace("\"deb:strace\"", "\"deb:strace\", \"deb:hostname\""),
    );
    place
        .run(&["build", "--locked"])
        .exits(2)
        .says(&["`debug` of image `app-debug`: + deb:hostname\n"]);
    let more = place.run(&["build"]).success();
    assert_eq!(digest(&more, "app.tar"), digest(&built, "app.tar"));
    assert_ne!(digest(&more, "app-debug.tar"), digest(&built, "app-debug.tar"));
    assert_shared(&place, "app.tar", "app-debug.tar");
    place.write("layerize.toml", &spec.replace(SMALL, ""));
    let alone = place.run(&["build"]).success();
    assert_eq!(digests(&alone), [("app.tar", digest(&built, "app.tar"))]);
}
