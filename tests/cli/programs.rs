//! Programs that real compilers make start in the image that they are put into, or there is no image.

use std::process::Command;

use crate::support::{self, C, Place, Ran, have, peer, skipped};

const GO: &str = r#"
[package.app]
source = { path = "go" }
tools = ["deb:golang-go", "deb:gcc"]
libraries = ["deb:libc6-dev"]
script = "export HOME=$TMPDIR; go build -o $out/bin/app ."

[image.programs-go]
contents = ["app"]
entrypoint = ["app"]
"#;

const CPP: &str = r#"
[package.app]
source = { path = "cpp" }
tools = ["deb:g++"]
libraries = ["deb:libc6-dev"]
script = "mkdir -p $out/bin; g++ -o $out/bin/app main.cc"

[image.programs-cpp]
contents = ["app"]
entrypoint = ["app"]
"#;

/// Builds an image and runs it; `None` where the machine has no archive of Debian packages.
fn run(place: &Place, image: &str) -> Option<String> {
    let locked = place.run(&["lock"]);
    if locked.status != 0 {
        skipped(&format!("the packages cannot be resolved here: {}", locked.stderr));
        return None;
    }
    // That the image is made says already that its program finds all it needs.
    place.run(&["build", image]).success();
    if !have("docker", &["version"]) {
        skipped("no docker daemon: the program is not run");
        return None;
    }
    let archive = place.project.join(format!("{image}.tar"));
    peer(Command::new("docker").args(["load", "--quiet", "--input"]).arg(archive));
    let name = format!("{image}:latest");
    let ran = peer(Command::new("docker").args(["run", "--rm", "--network=none", &name]));
    peer(Command::new("docker").args(["rmi", "--force", &name]));
    Some(ran.stdout)
}

/// Case B3: Go's own linker passes by the wrapped `ld`; the program had an interpreter and no run path.
#[test]
fn a_program_of_go_with_cgo_starts_in_its_image() {
    let place = Place::new();
    place.take_debs(support::GO);
    place.write("layerize.toml", GO);
    place.write("go/go.mod", "module example.com/app\n\ngo 1.19\n");
    place.write(
        "go/main.go",
        "package main\n\nimport (\n\t\"fmt\"\n\t\"net/http\"\n)\n\nfunc main() { fmt.Println(\"it runs\", http.StatusText(200)) }\n",
    );
    if let Some(output) = run(&place, "programs-go") {
        assert_eq!(output, "it runs OK\n");
    }
}

/// Case B9: a C++ program that does not name `deb:libstdc++6` gets the runtime of the compiler that linked it.
#[test]
fn a_cpp_program_brings_the_runtime_that_it_was_linked_with() {
    let place = Place::new();
    place.take_debs(C);
    place.write("layerize.toml", CPP);
    place.write(
        "cpp/main.cc",
        "#include <iostream>\nint main() { std::cout << \"it runs\" << std::endl; }\n",
    );
    if let Some(output) = run(&place, "programs-cpp") {
        assert_eq!(output, "it runs\n");
    }
}

/// Case B9: a package that is reused was taken without a word; the image could not start.
#[test]
fn a_reused_package_that_cannot_start_is_an_error_each_time() {
    let place = Place::new();
    place.write(
        "layerize.toml",
        r#"
[package.app]
script = "mkdir -p $out/bin; cp /bin/true $out/bin/app"

[image.app]
contents = ["app"]
entrypoint = ["app"]
"#,
    );
    let says = [
        "/bin/app` cannot start: its interpreter `/lib",
        "add `deb:libc6` to `root`",
    ];
    place.run(&["build", "app"]).exits(2).says(&says);
    place.run(&["build", "app"]).exits(2).says(&says);
    assert!(!place.project.join("app.tar").exists());
}

/// Locks and builds; `None`, said loudly, where the packages are not to be had.
fn locked(place: &Place) -> Option<()> {
    let locked = place.run(&["lock"]);
    if locked.status != 0 {
        skipped(&format!("the packages cannot be resolved here: {}", locked.stderr));
    }
    (locked.status == 0).then_some(())
}

/// Runs a command of an image in a container; `None` where there is no engine.
fn run_in_container(place: &Place, image: &str) -> Option<String> {
    if !have("docker", &["version"]) {
        skipped("no docker daemon: the program is not run");
        return None;
    }
    let archive = place.project.join(format!("{image}.tar"));
    peer(Command::new("docker").args(["load", "--quiet", "--input"]).arg(archive));
    let name = format!("{image}:latest");
    let ran = Command::new("docker")
        .args(["run", "--rm", "--network=none", &name])
        .output();
    peer(Command::new("docker").args(["rmi", "--force", &name]));
    Some(Ran::of(ran.unwrap()).success().stdout)
}

/// Case B9 with the wheel that people install: numpy brings a part of its libraries, and takes others from the system. Each
/// library that is missing is named with the package that has it, and with those the image works.
#[test]
fn a_wheel_s_libraries_are_named_with_their_packages() {
    let place = Place::new();
    let wheel = place.project.join("wheel");
    let downloaded = Command::new("pip")
        .args([
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--implementation=cp",
        ])
        .args([
            "--python-version=3.11",
            "--abi=cp311",
            "--platform=manylinux2014_x86_64",
        ])
        .arg("--dest")
        .arg(place.path().join("wheels"))
        .arg("numpy==1.26.4")
        .output();
    if !downloaded.is_ok_and(|output| output.status.success()) {
        return skipped("numpy's wheel is not to be had here");
    }
    let names = layerize::fsio::sorted_names(&place.path().join("wheels")).unwrap();
    let file = place.path().join("wheels").join(&names[0]);
    let unpack = "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])";
    peer(Command::new("python3").args(["-c", unpack]).arg(file).arg(&wheel));
    let spec = |more: &str| {
        format!("[package.numpy]\nsource = \"wheel\"\n\n[image.programs-numpy]\ncontents = [\"numpy\"]\n{more}")
    };
    place.write("layerize.toml", &spec(""));
    let path = place.run(&["build", "numpy"]).success().line().to_owned();
    let failed = place.run(&["build", "programs-numpy"]).exits(2);
    for (library, package) in [
        ("libc.so.6", "deb:libc6"),
        ("libm.so.6", "deb:libc6"),
        ("libgcc_s.so.1", "deb:libgcc-s1"),
        ("libz.so.1", "deb:zlib1g"),
    ] {
        assert!(
            failed.stderr.contains(&format!("`{library}`")) && failed.stderr.contains(&format!("`{package}`")),
            "{library}, {package}: {}",
            failed.stderr
        );
    }
    for own in ["libopenblas", "libgfortran", "libquadmath"] {
        let lacks = format!("cannot be loaded: `{own}");
        assert!(
            !failed.stderr.contains(&lacks),
            "the wheel brings it: {}",
            failed.stderr
        );
    }
    assert!(!place.project.join("programs-numpy.tar").exists());
    place.write(
        "layerize.toml",
        &spec(&format!(
            "root = [\"deb:python3-minimal\", \"deb:libpython3-stdlib\"]\nconfigure = false\nenv = {{ PYTHONPATH = \"{path}\" }}\n\
             entrypoint = [\"python3\", \"-c\", \"import numpy; print(numpy.arange(4).sum(), numpy.linalg.det([[2, 0], [0, 3]]))\"]\n"
        )),
    );
    if locked(&place).is_none() {
        return;
    }
    place.run(&["build", "programs-numpy"]).success();
    if let Some(output) = run_in_container(&place, "programs-numpy") {
        assert_eq!(output, "6 6.0\n");
    }
}

/// Linkers that pass by the wrapped `ld`: LLVM's, which rustup's toolchain uses by the name of rust-lld. A program and its own
/// library, which needs another package's, get a run path afterwards.
#[test]
fn what_lld_links_is_linked_to_the_store_afterwards() {
    let place = Place::new();
    place.write(
        "layerize.toml",
        r#"
[package.app]
source = { path = "c" }
tools = ["deb:gcc", "deb:lld"]
libraries = ["deb:libc6-dev", "deb:zlib1g-dev"]
script = '''
mkdir -p $out/bin $out/lib
gcc -fuse-ld=lld -shared -fPIC -o $out/lib/libown.so own.c -lz
gcc -fuse-ld=lld -o $out/bin/app main.c -L$out/lib -lown -Wl,-rpath,$out/lib
readelf -p .comment $out/bin/app | grep -q LLD
'''

[image.programs-lld]
contents = ["app"]
entrypoint = ["app"]
"#,
    );
    place.write(
        "c/own.c",
        "#include <zlib.h>\nconst char *version(void) { return zlibVersion(); }\n",
    );
    place.write(
        "c/main.c",
        "#include <stdio.h>\nconst char *version(void);\nint main(void) { printf(\"zlib %c\\n\", version()[0]); return 0; }\n",
    );
    if let Some(output) = run(&place, "programs-lld") {
        assert_eq!(output, "zlib 1\n");
    }
}

/// A base that is not Debian's, and has musl's loader: over it runs what was linked to that, and the loader of glibc is told
/// to be missing.
#[test]
fn programs_of_musl_run_over_a_base_of_musl() {
    let place = Place::new();
    let base = r#"
[package.static]
tools = ["deb:busybox-static"]
script = "mkdir -p $out/bin; cp -L $(command -v busybox) $out/bin/busybox; ln -s busybox $out/bin/sh"

[image.base]
root = ["deb:musl"]
configure = false
contents = ["static"]
"#;
    place.write("layerize.toml", base);
    if locked(&place).is_none() {
        return;
    }
    place.run(&["build", "base", "-o", "oci:base:v1"]).success();
    place.write(
        "layerize.toml",
        r#"
[package.app]
source = { path = "c" }
tools = ["deb:gcc", "deb:musl-tools"]
libraries = ["deb:musl-dev"]
script = "mkdir -p $out/bin; musl-gcc -o $out/bin/app main.c"

[package.other]
script = "mkdir -p $out/bin; cp -L /bin/true $out/bin/other"

[image.programs-musl]
base = "oci:base:v1"
contents = ["app"]
entrypoint = ["app"]

[image.programs-other]
base = "oci:base:v1"
contents = ["other"]
entrypoint = ["other"]
"#,
    );
    place.write(
        "c/main.c",
        "#include <stdio.h>\nint main(void) { puts(\"musl\"); return 0; }\n",
    );
    if locked(&place).is_none() {
        return;
    }
    place.run(&["build", "programs-musl"]).success();
    if let Some(output) = run_in_container(&place, "programs-musl") {
        assert_eq!(output, "musl\n");
    }
    place
        .run(&["build", "programs-other"])
        .success()
        .says(&["ld-linux-x86-64.so.2"]);
}

/// Docker starts no text without `#!`: "exec format error", long after the build.
#[test]
fn an_entrypoint_that_is_a_text_is_an_error() {
    let place = Place::with_script("mkdir -p $out/bin; echo 'echo hello' > $out/bin/app; chmod +x $out/bin/app");
    place.write(
        "layerize.toml",
        &std::fs::read_to_string(place.project.join("layerize.toml"))
            .unwrap()
            .replace(
                "contents = [\"thing\"]",
                "contents = [\"thing\"]\nentrypoint = [\"app\"]",
            ),
    );
    place.run(&["build", "thing"]).exits(2).says(&[
        "bin/app` cannot start: it is a text that does not begin with `#!`",
        "help: write `#!/bin/sh`, or its own interpreter, as its first line",
    ]);
    assert!(!place.project.join("thing.tar").exists());
}

/// A name that a package and an image have: the package's own program is run, and where it has none of that name what the image
/// says.
#[test]
fn a_name_of_both_runs_what_the_image_says_where_the_package_has_no_such_program() {
    const SPEC: &str = r#"
[package.named]
script = "mkdir -p $out/bin; printf '#!/bin/sh\\necho named \"$@\"\\n' >$out/bin/named; chmod +x $out/bin/named"

[image.named]
contents = ["named"]
entrypoint = ["named", "of-image"]

[package.tool]
script = "mkdir -p $out/bin; printf '#!/bin/sh\\necho other \"$@\"\\n' >$out/bin/other; chmod +x $out/bin/other"

[image.tool]
contents = ["tool"]
entrypoint = ["other"]
cmd = ["of-image"]
"#;
    let place = Place::new();
    place.write("layerize.toml", SPEC);
    place.lock_base();
    let said = |arguments: &[&str]| {
        let all = [&["run", "-q"], arguments].concat();
        place.run(&all).success().stdout
    };
    assert_eq!(said(&["named", "--", "x"]), "named x\n");
    assert_eq!(said(&["tool"]), "other of-image\n");
    assert_eq!(said(&["tool", "--", "x"]), "other x\n");
    assert_eq!(said(&["tool", "--program", "other"]), "other\n");
}
