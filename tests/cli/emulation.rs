//! Scripts for another processor than the machine's.

use crate::support::Place;

/// Debian's name of a processor that this machine has not.
const FOREIGN: &str = if cfg!(target_arch = "aarch64") {
    "amd64"
} else {
    "arm64"
};

/// A spec of a package for the other processor, with a line of `[build]`.
fn spec(build: &str, script: &str) -> String {
    format!(
        "[debian]\narchitecture = \"{FOREIGN}\"\n\n[build]\n{build}\n\n[package.thing]\nscript = '''\n{script}\n'''\n"
    )
}

#[test]
fn what_nothing_can_run_is_told_with_each_way_before_anything_is_fetched() {
    let place = Place::new();
    place.write("layerize.toml", &spec("emulate = \"never\"", "echo x >$out"));
    place.run(&["lock"]).success();
    let failed = place.run(&["build", "thing"]).exits(2).says(&[
        "cannot run the scripts of `thing`: they are for",
        "\n  emulator: `emulate = \"never\"` in `[build]`\n",
        "\n  cross compiler: ",
        "\n  builder: none is given\n",
        "help: leave `emulate` out",
        "layerize help emulation",
    ]);
    assert!(!failed.stderr.contains("fetch"), "{}", failed.stderr);
    place.write("layerize.toml", &spec("emulate = \"nevr\"", "echo x >$out"));
    place.run(&["build", "thing"]).exits(2).says(&["did you mean `never`?"]);
}
