//! Early cutoff with a real compiler: another version of a package that leaves the result alone moves nothing.

use std::fs;

use crate::archive::Archive;
use crate::support::{Place, have, machine_sources};

/// A program that names the place where it is installed, so that its build ID is computed over `$out` too.
const PROGRAM: &str = r#"
#include <stdio.h>
int main(void) { puts("installed in " PREFIX); return 0; }
"#;

/// An archive with one version of two packages, as after an update.
fn archive_with(place: &Place, version: &str) -> Archive {
    let mut archive = Archive::new(&place.path().join("archive"));
    // Like linux-libc-dev: headers among the libraries, of which the program includes none.
    let header = format!("#define UNUSED \"{version}\"\n");
    let files = [("usr/include/lz-unused.h", 0o644, header.as_str())];
    archive.add_files("lz-unused-dev", version, "", &files);
    // A build tool that runs and leaves no trace.
    let program = format!("#!/bin/sh\n# {version}\nexec true\n");
    let files = [("usr/bin/lz-idle-tool", 0o755, program.as_str())];
    archive.add_files("lz-idle-tool", version, "", &files);
    archive
}

fn spec(sources: &[String]) -> String {
    // What JSON writes between quotes is a TOML string too.
    let sources = serde_json::to_string(sources).unwrap();
    format!(
        r#"
[debian]
sources = {sources}

[package.program]
source = {{ path = "src" }}
tools = ["deb:gcc", "deb:lz-idle-tool"]
libraries = ["deb:libc6-dev", "deb:lz-unused-dev"]
script = '''
lz-idle-tool
mkdir -p $out/bin
gcc -g -O2 -DPREFIX="\"$out\"" program.c -o $out/bin/program
'''

[image.program]
contents = ["program"]
entrypoint = ["program"]
"#
    )
}

#[test]
fn another_version_of_an_irrelevant_package_moves_nothing() {
    if !have("apt-get", &["--version"]) {
        return;
    }
    let place = Place::new();
    let source = archive_with(&place, "1").source_line();
    let sources: Vec<String> = std::iter::once(source).chain(machine_sources()).collect();
    place
        .write("src/program.c", PROGRAM)
        .write("layerize.toml", &spec(&sources));
    let first = place.run(&["build", "program"]).success();
    let closure_of = |place: &Place| place.run(&["closure", "program"]).success().stdout;
    let closure = closure_of(&place);
    assert!(
        !closure.contains("lz-unused") && !closure.contains("lz-idle-tool"),
        "{closure}"
    );

    let lock = fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    archive_with(&place, "2");
    let updated = place
        .run(&["lock", "--update", "deb:lz-idle-tool", "deb:lz-unused-dev"])
        .success();
    for change in ["~ deb:lz-unused-dev 1 → 2", "~ deb:lz-idle-tool 1 → 2"] {
        assert!(updated.stderr.contains(change), "{}", updated.stderr);
    }
    assert_ne!(fs::read_to_string(place.project.join("layerize.lock")).unwrap(), lock);
    let second = place
        .run(&["build", "program"])
        .success()
        .says(&["building program", "0 layers packed"]);
    assert_eq!(second.line(), first.line(), "the image's digest");
    assert_eq!(closure_of(&place), closure);
    // On a machine that knows nothing of the first build.
    let other = Place::new();
    for file in ["layerize.toml", "layerize.lock", "src/program.c"] {
        other.write(file, &fs::read_to_string(place.project.join(file)).unwrap());
    }
    assert_eq!(
        other.run(&["build", "--locked", "program"]).success().line(),
        first.line()
    );
    other.run(&["check", "--locked"]).success();
}
