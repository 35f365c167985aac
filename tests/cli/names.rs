//! Names from outside that are not plain words.

use std::fs;

use crate::support::Place;

const SPEC: &str = r#"
[package.tree]
source = { path = "my src%20" }
script = "mkdir $out; cp -r . $out/copy"

[package.path]
source = { path = "one %41" }
script = "mkdir $out; ls > $out/listed"

[package.url]
source = { url = "file:one%20%2541", unpack = false }
script = "mkdir $out; ls > $out/listed"

[image.names]
contents = ["tree"]
workdir = "/w %20"

[image.names.files]
"/etc/x y%20" = "one %41"
"/etc/l%" = { symlink = "/etc/x y%20" }

[image.names.env]
V = "a %20 b"
"#;

/// Spaces, percent signs and what looks like an escape: in paths, in addresses (where an escape stands for what it
/// says), in files of images, in variables.
#[test]
fn names_with_spaces_and_percent_signs_arrive_as_they_are() {
    let place = Place::new();
    place
        .write("my src%20/a b%25", "tree\n")
        .write("one %41", "single\n")
        .write("layerize.toml", SPEC);
    let built = place.run(&["build", "tree", "path", "url"]).success().stdout;
    let paths: Vec<&str> = built.lines().collect();
    let physical = |path: &str| place.store().join("store").join(path.rsplit('/').next().unwrap());
    assert_eq!(fs::read(physical(paths[0]).join("copy/a b%25")).unwrap(), b"tree\n");
    for path in &paths[1..] {
        let listed = fs::read_to_string(physical(path).join("listed")).unwrap();
        assert_eq!(listed, "one %41\n", "{path}");
    }
    place.run(&["build", "names"]).success();
    let seen = place.run(&["inspect", "names.tar"]).success().stdout;
    assert!(seen.contains("/w %20") && seen.contains("V=a %20 b"), "{seen}");
    for name in ["/etc/x y%20", "/etc/l%"] {
        place.run(&["explain", "names.tar", name]).success();
    }
}

/// A spec with Windows' line ends and a byte-order mark makes the same output as one with Unix's.
#[test]
fn a_script_with_crlf_makes_no_names_with_carriage_returns() {
    let place = Place::new();
    let spec = "[package.a]\nscript = \"\"\"\nmkdir -p $out/bin\ntouch $out/bin/x\n\"\"\"\n";
    place.write("layerize.toml", spec);
    let unix = place.run(&["build", "a"]).success().line().to_owned();
    place.write("layerize.toml", &format!("\u{feff}{}", spec.replace('\n', "\r\n")));
    assert_eq!(place.run(&["build", "a"]).success().line(), unix);
}
