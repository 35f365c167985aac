//! Scripts for another processor than the machine's.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Place, skipped};

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

/// What ELF files for the other processor have as their machine.
const MACHINE: u8 = if cfg!(target_arch = "aarch64") { 62 } else { 183 };

const PROGRAMS: &str = r#"
tools = ["deb:gcc"]
libraries = ["deb:libc6-dev"]
script = """
printf '#include <stdio.h>\\n#include <sys/utsname.h>\\nint main(void) { struct utsname u; uname(&u); puts(u.machine); return 0; }\\n' >u.c
mkdir -p $out/bin
gcc -o $out/bin/linked u.c
gcc -static -o $out/bin/static u.c
$out/bin/linked >$out/seen
$out/bin/static >>$out/seen
tr '\\0' ' ' </proc/$$/cmdline >$out/command
"""

[image.app]
contents = ["thing"]
entrypoint = ["static"]
cmd = []
"#;

/// The machine code of a file, and the loader that it names.
fn elf(path: &Path) -> (u8, Option<String>) {
    let elf = layerize::elf::read(path).unwrap().unwrap();
    (fs::read(path).unwrap()[18], elf.interpreter)
}

/// Programs are compiled by the other processor's compiler and run, in the build and in an image.
#[test]
fn scripts_for_another_processor_run_through_the_emulator_of_the_lock() {
    if !own_registrations() {
        skipped("an emulator of a sandbox's own needs Linux 6.7");
        return;
    }
    let place = Place::new();
    place.write(
        "layerize.toml",
        &format!("[debian]\narchitecture = \"{FOREIGN}\"\n\n[package.thing]\n{PROGRAMS}"),
    );
    let built = place.run(&["build", "thing"]).success();
    assert!(
        built.stderr.contains("run through the emulator of the lock"),
        "{}",
        built.stderr
    );
    let lock = fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    assert!(lock.contains(".deb]]\nname = \"qemu-user-static\""), "{lock}");
    let path = built.line();
    let tree = place.store().join("store").join(path.rsplit('/').next().unwrap());
    let seen = fs::read_to_string(tree.join("seen")).unwrap();
    let machine = if FOREIGN == "amd64" { "x86_64" } else { "aarch64" };
    assert_eq!(seen, format!("{machine}\n{machine}\n"));
    // Who looks at the processes sees no place of this machine.
    let command = fs::read_to_string(tree.join("command")).unwrap();
    assert!(!command.contains(place.path().to_str().unwrap()), "{command}");
    assert_eq!(elf(&tree.join("bin/static")), (MACHINE, None));
    let (found, loader) = elf(&tree.join("bin/linked"));
    assert_eq!(found, MACHINE);
    assert!(loader.unwrap().starts_with("/layerize/store/"));
    let info = place.run(&["store", "info", path]).success().stdout;
    assert!(info.contains("execution   emulated\n"), "{info}");

    for program in ["static", "linked"] {
        let ran = place
            .run(&["run", "--isolated", "--entrypoint", program, "app"])
            .success();
        assert_eq!(ran.line(), machine, "{program}");
    }
    let shell = place.run(&["shell", "thing", "-c", "uname -m"]).success();
    assert_eq!(shell.line(), machine);
    place.run(&["build", "app"]).success();
    let statement = place.run(&["provenance", "app"]).success().stdout;
    assert!(statement.contains(r#""execution":"emulated""#), "{statement}");
}

/// Whether the kernel lets user namespaces have registrations of their own.
fn own_registrations() -> bool {
    let tried = Command::new("unshare")
        .args(["-Urm", "mount", "-t", "binfmt_misc", "none", "/mnt"])
        .output();
    tried.is_ok_and(|tried| tried.status.success())
}
