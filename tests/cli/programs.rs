//! Programs that real compilers make start in the image that they are put into, or there is no image.

use std::process::Command;

use crate::support::{Place, have, peer, skipped};

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
