//! Scripts for another processor than the machine's.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::over_ssh::{closure, described, fake_ssh, frame, hello, made, sent};
use crate::support::{LAYERIZE, Place, Ran, copy_tree, skipped};

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
    let failed = place.run(&["build", "thing"]).exits(2);
    let (own, other) = match cfg!(target_arch = "aarch64") {
        true => ("aarch64", "x86_64"),
        false => ("x86_64", "aarch64"),
    };
    assert_eq!(
        failed.stderr,
        format!(
            "error: cannot run the scripts of `thing`: they are for {other}-linux, and this machine is {own}-linux\n  \
             emulator: `emulate = \"never\"` in `[build]`\n  \
             cross compiler: not asked for\n  \
             builder: none is given\n\
             help: leave `emulate` out, and scripts run through an emulator\n  \
             `cross = true` in `[package.NAME]`, or in `[build]` for all, compiles with this machine's tools, where the script \
             uses `$CC` and the like\n  \
             `--builder ADDRESS` builds where there is such a processor (`layerize help builders`); \
             `layerize help emulation` says what {other}-linux takes here\n"
        )
    );
    place.write("layerize.toml", &spec("emulate = \"nevr\"", "echo x >$out"));
    place.run(&["build", "thing"]).exits(2).says(&["did you mean `never`?"]);
}

/// Where nothing may run maintainer scripts for another processor, the lock is the one that every machine makes, and only the
/// build says so.
#[test]
fn maintainer_scripts_that_nothing_may_run_are_an_error_and_no_other_image() {
    let place = Place::new();
    let spec = |build: &str, more: &str| {
        format!("[debian]\narchitecture = \"{FOREIGN}\"\n{build}[image.app]\nroot = [\"deb:netbase\"]\n{more}")
    };
    let never = "[build]\nemulate = \"never\"\n";
    place.write("layerize.toml", &spec(never, ""));
    place.run(&["lock"]).success();
    place.run(&["lock", "--check"]).success();
    let lock = fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    assert!(lock.contains("name = \"coreutils\""), "the lock has no tools:\n{lock}");
    place.run(&["build", "--locked", "app"]).exits(2).says(&[
        "cannot run the scripts of ",
        "\n  emulator: `emulate = \"never\"` in `[build]`\n",
        "`configure = false` in the image leaves its packages as they are unpacked",
    ]);
    place.write("layerize.toml", &spec(never, "configure = false\n"));
    place.run(&["build", "app"]).success();
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

/// A package whose program comes from a package of Debian and needs nothing, and an image of it with a test.
const UNAME: &str = r#"
[package.thing]
tools = ["deb:busybox-static"]
script = "mkdir -p $out/bin; cp /bin/busybox $out/bin/uname"

[image.app]
contents = ["thing"]
entrypoint = ["uname"]
cmd = ["-m"]

[image.app.tests.machine]
expect = { stdout = "MACHINE" }

[image.app.tests.name]
args = ["-s"]
expect = { stdout = "Linux" }
"#;

/// The kernel's name of the other processor.
const MACHINE_NAME: &str = if cfg!(target_arch = "aarch64") {
    "x86_64"
} else {
    "aarch64"
};

/// Whatever runs a program of what was made for another processor has the emulator: tests of images, `run` in the image's root and
/// on the machine's, launchers of `env`, a mended step, and a check. What would have none is refused.
#[test]
fn programs_for_another_processor_run_wherever_they_are_started() {
    if !own_registrations() {
        skipped("an emulator of a sandbox's own needs Linux 6.7");
        return;
    }
    let place = Place::new();
    let spec = UNAME.replace("MACHINE", MACHINE_NAME);
    place.write(
        "layerize.toml",
        &format!("[debian]\narchitecture = \"{FOREIGN}\"\n{spec}"),
    );
    let tested = place.run(&["test"]).success().says(&["2 passed."]);
    assert!(tested.stdout.contains("ok    app/machine ") && tested.stdout.contains("ok    app/name "));
    for arguments in [
        &["run", "thing", "--", "-m"][..],
        &["run", "app"],
        &["run", "--isolated", "app"],
        &["run", "--isolated", "docker-archive:app.tar"],
    ] {
        if arguments.last() == Some(&"docker-archive:app.tar") {
            place.run(&["build", "app"]).success();
        }
        let ran = place.run(arguments).success();
        assert_eq!(ran.line(), MACHINE_NAME, "{arguments:?}");
    }
    place.run(&["install", "thing"]).exits(2).says(&[
        "`thing` cannot be installed: it is for",
        "`layerize run` runs it through the emulator",
    ]);

    place.run(&["env", "thing"]).success();
    let launcher = place.project.join(".layerize/env/thing/bin/busybox");
    let mut command = Command::new(&launcher);
    place.prepare(command.args(["uname", "-m"]));
    assert_eq!(Ran::of(command.output().unwrap()).success().line(), MACHINE_NAME);

    let built = place.run(&["build", "thing"]).success().line().to_owned();
    let checked = place.run(&["check", "thing"]).success().stdout;
    assert!(
        checked.contains(
            "compared: a build through the emulator of the lock with a build through the emulator of the lock;"
        ),
        "{checked}"
    );
    is_compared_with_a_native_build(&place, &built);
    // Without spec and lock, by what the store knows.
    let program = place
        .store()
        .join("store")
        .join(built.rsplit('/').next().unwrap())
        .join("bin/uname");
    let sound = fs::read(&program).unwrap();
    fs::remove_file(&program).unwrap();
    let mut command = place.command(&["store", "verify", "--repair"]);
    let repaired = Ran::of(command.current_dir("/").output().unwrap()).success();
    assert_eq!(fs::read(&program).unwrap(), sound, "{}", repaired.stderr);
    assert!(repaired.stderr.contains("rebuilt"), "{}", repaired.stderr);
}

/// What was emulated is held against what a machine of the other processor makes: here one that says what it is told to say.
fn is_compared_with_a_native_build(place: &Place, built: &str) {
    let honest = Place::new();
    let tree = place.store().join("store").join(built.rsplit('/').next().unwrap());
    copy_tree(&tree, &honest.project.join("same"));
    honest.write("other/file", "x");
    let (bin, said) = (place.path().join("bin"), place.path().join("said"));
    fake_ssh(&bin, &format!("cat {}; timeout 5 cat >/dev/null", said.display()));
    for (name, status, word) in [("same", 0, "same     thing "), ("other", 1, "DIFFERS  thing ")] {
        let (_, mut member, archive) = described(&honest, name);
        member["execution"] = json!("native");
        let root = member["path"].clone();
        let answer = [
            hello(1, 1),
            frame(&json!({"answer": "missing", "paths": []})),
            made(&root, [closure(&[&member], &root), sent(&archive)].concat()),
        ];
        fs::write(&said, answer.concat()).unwrap();
        let mut command = place.command(&["check", "thing", "--builder", "ssh://x"]);
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        let ran = Ran::of(command.output().unwrap());
        assert_eq!(ran.status, status, "{}", ran.stderr);
        assert!(ran.stdout.contains(word), "{}", ran.stdout);
        let compared = "compared: a build through the emulator of the lock with a native build at ssh://x\n";
        assert!(ran.stdout.contains(compared), "{}", ran.stdout);
    }
}

/// Runs `layerize` where the kernel knows one emulator, which this registers, or none.
fn on_a_machine(place: &Place, registered: &str, arguments: &[&str]) -> Ran {
    const SCRIPT: &str = "cd /proc/sys/fs/binfmt_misc && mount -t binfmt_misc none . && cd . && \
                          { test -z \"$0\" || printf %s \"$0\" >register; } && cd \"$1\" && shift && exec \"$@\"";
    let mut command = Command::new("unshare");
    let project = place.project.to_str().unwrap();
    command.args(["-Urm", "sh", "-c", SCRIPT, registered, project, LAYERIZE]);
    place.prepare(command.args(arguments));
    Ran::of(command.output().unwrap())
}

/// `emulate = "machine"`: with the machine's own emulator, without one, and at a builder that is no such machine either.
#[test]
fn a_machine_has_an_emulator_of_its_own_or_none() {
    if !own_registrations() {
        skipped("registrations of a user namespace need Linux 6.7");
        return;
    }
    let place = Place::new();
    let write = |emulate: &str, script: &str| {
        let spec = UNAME.replace("MACHINE", MACHINE_NAME).replace("script = \"", script);
        let home = format!("[debian]\narchitecture = \"{FOREIGN}\"\n\n[build]\nemulate = \"{emulate}\"\n");
        place.write("layerize.toml", &format!("{home}{spec}"));
    };
    write("auto", "script = \"");
    place.run(&["build", "thing"]).success();
    let names = layerize::fsio::sorted_names(&place.store().join("store")).unwrap();
    let emulator = names
        .iter()
        .find(|name| name.to_string_lossy().contains("-emulator-of-"));
    let emulator = place
        .store()
        .join("store")
        .join(emulator.unwrap())
        .join(layerize::fetch::EMULATOR);
    // Something else than was made before, of which the store knows how that ran.
    write("machine", "script = \"mkdir -p $out/other; ");
    on_a_machine(&place, "", &["build", "thing"]).exits(2).says(&[
        "cannot run the scripts of `thing`: they are for ",
        &format!("\n  emulator: this machine itself runs no programs for {MACHINE_NAME}\n"),
        "\n  cross compiler: not asked for\n  builder: none is given\n",
        "`sudo apt install qemu-user-static binfmt-support` teaches this machine to",
    ]);
    let begins = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00";
    let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
    let rule = format!(
        ":other:M::{begins}\\x{MACHINE:02x}\\x00:{mask}:{}:F",
        emulator.display()
    );
    let built = on_a_machine(&place, &rule, &["build", "thing"]).success();
    let built = built.says(&["run through an emulator of this machine"]);
    let info = place.run(&["store", "info", built.line()]).success().stdout;
    assert!(info.contains("execution   emulated-by-machine\n"), "{info}");

    // A builder that would need an emulator itself is none for this.
    write("never", "script = \"true; ");
    let (bin, there) = (place.path().join("bin"), Place::new());
    fake_ssh(
        &bin,
        &format!(
            "export XDG_DATA_HOME={}; exec {LAYERIZE} serve-store --stdio",
            there.path().display()
        ),
    );
    let mut command = place.command(&["build", "thing", "--builder", "ssh://x"]);
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    Ran::of(command.output().unwrap()).exits(2).says(&[
        &format!("`thing` is built on {MACHINE_NAME}-linux, and this machine is "),
        "name a builder of that kind",
    ]);
}

/// Of what is for both processors each verb takes the platform that is named.
#[test]
fn each_platform_is_tested_run_checked_and_entered() {
    if !own_registrations() {
        skipped("an emulator of a sandbox's own needs Linux 6.7");
        return;
    }
    let (own, other) = match cfg!(target_arch = "aarch64") {
        true => (["arm64", "aarch64"], ["amd64", "x86_64"]),
        false => (["amd64", "x86_64"], ["arm64", "aarch64"]),
    };
    let place = Place::new();
    let spec = UNAME.replace("MACHINE", &format!("/^({}|{})$/", own[1], other[1]));
    let platforms = "[image.app]\nplatform = [\"linux/amd64\", \"linux/arm64\"]";
    let home = format!("[debian]\narchitecture = \"{}\"\n", own[0]);
    place.write(
        "layerize.toml",
        &format!("{home}{}", spec.replace("[image.app]", platforms)),
    );
    let [own_platform, platform] = [own[0], other[0]].map(|architecture| format!("linux/{architecture}"));
    let tested = place.run(&["test"]).success().says(&["2 passed."]).stdout;
    assert!(!tested.contains(&platform), "{tested}");
    let tested = place.run(&["test", "--platform", "all"]).success().says(&["4 passed."]);
    let tested = tested.stdout;
    assert!(tested.contains(&format!("app/machine ({own_platform})")), "{tested}");
    assert!(tested.contains(&format!("app/machine ({platform})")), "{tested}");
    for (arguments, expected) in [
        (&["run", "thing", "--platform", &platform, "--", "-m"][..], other[1]),
        (&["run", "thing", "--", "-m"], own[1]),
        (&["run", "app"], own[1]),
        (&["run", "app", "--platform", &platform], other[1]),
        (&["shell", "thing", "--platform", &platform, "-c", "uname -m"], other[1]),
        (&["shell", "thing", "-c", "uname -m"], own[1]),
    ] {
        assert_eq!(place.run(arguments).success().line(), expected, "{arguments:?}");
    }
    let closure = |platform: &str| place.run(&["closure", "app", "--platform", platform]).success().stdout;
    let (mine, its, all) = (closure(&own_platform), closure(&platform), closure("all"));
    assert_ne!(mine, its);
    assert!(
        mine.lines().chain(its.lines()).all(|line| all.contains(line)),
        "{mine}{its}{all}"
    );
    let checked = place.run(&["check", "app", "--platform", &platform]).success().stdout;
    assert_eq!(checked.matches("compared: ").count(), 1, "{checked}");
    for verb in ["test", "closure", "check", "run", "shell"] {
        let target = if verb == "shell" { "thing" } else { "app" };
        place
            .run(&[verb, target, "--platform", "linux/s390x"])
            .exits(2)
            .says(&["not for linux/s390x"]);
    }
}

/// Whether the kernel lets user namespaces have registrations of their own.
pub fn own_registrations() -> bool {
    let tried = Command::new("unshare")
        .args(["-Urm", "mount", "-t", "binfmt_misc", "none", "/mnt"])
        .output();
    tried.is_ok_and(|tried| tried.status.success())
}
