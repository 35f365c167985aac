//! Packages that are compiled for another platform by tools of the machine that builds.

use std::fs;
use std::path::Path;

use crate::archive::Archive;
use crate::support::{Place, have, skipped};

/// This machine and another one, by Debian's names, and GNU's name of that.
const MACHINES: (&str, &str, &str) = match cfg!(target_arch = "aarch64") {
    true => ("arm64", "amd64", "x86-64-linux-gnu"),
    false => ("amd64", "arm64", "aarch64-linux-gnu"),
};

/// What ELF files for the other machine have as their machine.
const ELF_MACHINE: u8 = if cfg!(target_arch = "aarch64") { 62 } else { 183 };

/// A spec of a package with tools and libraries, for these platforms.
fn stand_in(source: &str, cross: &str, platforms: &str) -> String {
    let machine = MACHINES.0;
    format!(
        "[debian]\nsources = [\"{source}\"]\narchitecture = \"{machine}\"\nbase = []\n\n\
         [package.app]\ntools = [\"deb:gcc\", \"deb:make\"]\nlibraries = [\"deb:libz-dev\"]\n{cross}script = \"true\"\n\n\
         [image.app]\ncontents = [\"app\"]\nplatform = [{platforms}]\n"
    )
}

/// An archive with what a compiler for these architectures is made of, but for the cross compiler.
fn archive(place: &Place, architectures: [&str; 2]) -> Archive {
    let mut archive = Archive::new(&place.path().join("archive"));
    for architecture in architectures {
        let fields = format!("Architecture: {architecture}\n");
        for name in [
            "libatomic1",
            "libgcc-s1",
            "libgomp1",
            "libz1",
            "gcc",
            "libc6-dev",
            "make",
        ] {
            archive.add(name, "1.0", &fields);
        }
        archive.add("libz-dev", "1.0", &format!("{fields}Depends: libz1\n"));
    }
    archive
}

/// The lock has tools with the machine and libraries with the target, and all that it had stays byte for byte.
#[test]
fn tools_are_locked_for_the_machine_and_libraries_for_the_target() {
    if !have("apt-get", &["--version"]) {
        return;
    }
    let (machine, other, triplet) = MACHINES;
    let place = Place::new();
    let mut archive = archive(&place, [machine, other]);
    let platforms = [machine, other].map(|name| format!("\"linux/{name}\""));
    let (own, both) = (platforms[0].clone(), platforms.join(", "));
    let source = archive.source_line();
    let lock = || fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    let write = |cross: &str, platforms: &str| {
        place.write("layerize.toml", &stand_in(&source, cross, platforms));
    };

    write("", &own);
    place.run(&["lock"]).success();
    let plain = lock();
    write("cross = true\n", &own);
    place.run(&["lock", "--check"]).success();
    write("cross = true\n", &both);
    place.run(&["lock", "--check"]).exits(1).says(&[
        &format!("this machine's tools for package `app`, compiled for {other}"),
        &format!("{other}: missing: the resolution of"),
    ]);
    // No archive has the compiler.
    place.run(&["lock"]).exits(2).says(&[
        &format!("there is no Debian package `gcc-{triplet}`, which package `app`, compiled for {other} takes"),
        "`[debian] sources`",
        "leave `cross` out",
        "layerize help emulation",
    ]);
    archive.add(
        &format!("gcc-{triplet}"),
        "1.0",
        &format!("Architecture: {machine}\nDepends: gcc\n"),
    );
    place
        .run(&["lock"])
        .success()
        .says(&[&format!("+ deb:gcc-{triplet} (to build on {machine}) 1.0")]);
    let crossed = lock();
    let added = crossed.strip_prefix(&plain).expect("what was locked is as it was");
    let part = |name: &str| added.matches(&format!("[[{name}.deb]]\n")).count();
    assert_eq!(part(&format!("platform.{other}")), 5, "{added}");
    assert_eq!(part(&format!("machine.{machine}")), 4, "{added}");
    assert!(!added.contains("qemu"), "{added}");
    for args in [&["lock", "--check"][..], &["lock", "--check", "--offline"]] {
        place.run(args).success();
    }
    // It goes again, and so does what only it needs.
    write("cross = true\n", &own);
    place.run(&["lock", "--check"]).exits(1).says(&[
        &format!(
            "no longer needed: the resolution of `deb:gcc`, `deb:gcc-{triplet}`, `deb:libc6-dev`, `deb:make` on machines of `{machine}`"
        ),
        &format!("no longer needed: all that is for `{other}`"),
    ]);
    place.run(&["lock"]).success();
    assert_eq!(lock(), plain);
}

/// What cannot be crossed, and whoever does not ask for it.
#[test]
fn who_does_not_ask_is_told_how_to() {
    let place = Place::new();
    let other = MACHINES.1;
    let spec = |package: &str| {
        format!("[debian]\narchitecture = \"{other}\"\n\n[build]\nemulate = \"never\"\n\n[package.thing]\n{package}\n")
    };
    place.write("layerize.toml", &spec("script = \"true\""));
    place.run(&["lock"]).success();
    place
        .run(&["build", "thing"])
        .exits(2)
        .says(&["cross compiler: not asked for", "`cross = true` in `[package.NAME]`"]);
    place.write("app/uv.lock", "version = 1\n");
    place.write(
        "layerize.toml",
        &spec("source = { path = \"app\" }\npython = {}\ncross = true"),
    );
    place.run(&["build", "thing"]).exits(2).says(&[
        "package `thing` cannot be cross-compiled: it is in `python`",
        "leave `cross` out",
    ]);
}

const PROGRAMS: &str = r#"
tools = ["deb:gcc", "deb:pkg-config"]
libraries = ["deb:zlib1g-dev"]
cross = true
script = """
cat >z.c <<'END'
#include <stdio.h>
#include <sys/utsname.h>
#include <zlib.h>
int main(void) { struct utsname u; uname(&u); printf("%s %lx\\n", u.machine, crc32(0, (const unsigned char *)"abc", 3)); return 0; }
END
mkdir -p $out/bin
$CC -o $out/bin/linked z.c $($PKG_CONFIG --cflags --libs zlib)
$CC -static -o $out/bin/static z.c -lz
echo $host_triplet $GOARCH >$out/told
"""

[package.seen]
tools = ["thing"]
script = """
static >$out
linked >>$out
"""

[package.wrong]
tools = ["deb:gcc"]
cross = true
script = """
echo 'int main(void) { return 0; }' >x.c
mkdir -p $out/bin
gcc -o $out/bin/x x.c
"""
"#;

/// The machine code of a file, and the loader that it names.
fn elf(path: &Path) -> (u8, Option<String>) {
    let elf = layerize::elf::read(path).unwrap().unwrap();
    (fs::read(path).unwrap()[18], elf.interpreter)
}

/// Programs are compiled by this machine's tools, linked to the target's libraries, and run there.
#[test]
fn what_is_compiled_here_runs_there() {
    let place = Place::new();
    let other = MACHINES.1;
    place.write(
        "layerize.toml",
        &format!("[debian]\narchitecture = \"{other}\"\n\n[package.thing]\n{PROGRAMS}"),
    );
    let built = place.run(&["build", "thing"]).success();
    assert!(!built.stderr.contains("emulator"), "{}", built.stderr);
    let path = built.line();
    let tree = |path: &str| place.store().join("store").join(path.rsplit('/').next().unwrap());
    assert_eq!(elf(&tree(path).join("bin/static")), (ELF_MACHINE, None));
    let (found, loader) = elf(&tree(path).join("bin/linked"));
    assert_eq!(found, ELF_MACHINE);
    assert!(loader.unwrap().starts_with("/layerize/store/"));
    let linked = layerize::elf::read(&tree(path).join("bin/linked")).unwrap().unwrap();
    let run_path = linked.run_path.unwrap().value;
    assert!(run_path.contains("-zlib1g-"), "{run_path}");
    let (triplet, go) = if other == "amd64" {
        ("x86_64", "amd64")
    } else {
        ("aarch64", "arm64")
    };
    let told = fs::read_to_string(tree(path).join("told")).unwrap();
    assert_eq!(told, format!("{triplet}-linux-gnu {go}\n"));
    let info = place.run(&["store", "info", path]).success().stdout;
    assert!(info.contains("execution   cross\n"), "{info}");
    place.run(&["check", "thing"]).success();
    // A compiler of this machine's own is another one.
    place.run(&["build", "wrong"]).exits(2).says(&[
        "it is cross-compiled for",
        "made programs for this machine",
        "`bin/x`",
        "`$CC`",
    ]);
    if !crate::emulation::own_registrations() {
        skipped("an emulator of a sandbox's own needs Linux 6.7");
        return;
    }
    let seen = place.run(&["build", "seen"]).success();
    let seen = fs::read_to_string(tree(seen.line())).unwrap();
    assert_eq!(seen, format!("{triplet} 352441c2\n").repeat(2));
}
