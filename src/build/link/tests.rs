//! Tests of the linkage: which directories are found, and what the wrapper adds to which command line.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use super::*;

fn store_path(name: &str) -> StorePath {
    format!("{}-{name}", "0".repeat(32)).parse().unwrap()
}

fn package(dir: &Path, name: &str, files: &[&str]) -> (StorePath, PathBuf) {
    let physical = dir.join(name);
    for file in files {
        let path = physical.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    (store_path(name), physical)
}

fn logical(name: &str, below: &str) -> String {
    format!("{}/{below}", StoreDir::layerize().join(&store_path(name)))
}

#[test]
fn no_link_is_followed_to_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    for (name, links, is_library) in [
        ("there", &[("libx.so", "/bin/sh")][..], true),
        ("missing", &[("libx.so", "/missing/libx.so.1")], true),
        (
            "chain",
            &[("libx.so", "liby.so"), ("liby.so", "/missing/libx.so.1")],
            true,
        ),
        ("other", &[("libx.so", "libx.so.1")], false),
        ("loop", &[("libx.so", "liby.so"), ("liby.so", "libx.so")], false),
    ] {
        let dir = dir.path().join(name);
        fs::create_dir(&dir).unwrap();
        for (link, target) in links {
            symlink(target, dir.join(link)).unwrap();
        }
        assert_eq!(has_shared_objects(&dir).unwrap(), is_library, "{name}");
    }
}

#[test]
fn directories_follow_from_the_packages() {
    let dir = tempfile::tempdir().unwrap();
    let libc = package(
        dir.path(),
        "libc6",
        &[
            "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            "usr/lib/x86_64-linux-gnu/libc.so.6",
        ],
    );
    fs::create_dir_all(libc.1.join("usr/lib64")).unwrap();
    symlink(
        "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
        libc.1.join("usr/lib64/ld-linux-x86-64.so.2"),
    )
    .unwrap();
    let headers = package(
        dir.path(),
        "libc6-dev",
        &["usr/include/stdio.h", "usr/lib/x86_64-linux-gnu/libc.a"],
    );
    // A link to what another package has is not a library.
    symlink("libz.so.1", headers.1.join("usr/lib/x86_64-linux-gnu/libz.so")).unwrap();
    let own = package(
        dir.path(),
        "own",
        &["lib/libown.so", "include/own.h", "lib/pkgconfig/own.pc"],
    );
    let linkage = Linkage::of(&[headers, libc, own], "x86_64-linux").unwrap();
    assert_eq!(
        linkage,
        Linkage {
            interpreter: Some(logical("libc6", "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")),
            triplet: "x86_64-linux-gnu".to_owned(),
            crossed: None,
            run_path: vec![
                logical("libc6", "usr/lib/x86_64-linux-gnu"),
                logical("libc6", "usr/lib64"),
                logical("own", "lib"),
            ],
            include: vec![logical("own", "include")],
            library: vec![logical("own", "lib")],
            pkg_config: vec![logical("own", "lib/pkgconfig")],
            prefix: vec![logical("own", "").trim_end_matches('/').to_owned()],
        }
    );
}

#[test]
fn an_unknown_machine_has_no_linkage() {
    let dir = tempfile::tempdir().unwrap();
    let own = package(dir.path(), "own", &["lib/libown.so"]);
    assert_eq!(Linkage::of(&[own], "sparc-linux").unwrap(), Linkage::default());
}

/// What the wrapper calls the real linker with.
fn wrapped(arguments: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("real");
    fs::write(&real, "#!/bin/sh\nprintf '%s\\n' \"$@\"\n").unwrap();
    let linkage = Linkage {
        interpreter: Some("/i".to_owned()),
        run_path: vec!["/a".to_owned(), "/b".to_owned()],
        ..Linkage::default()
    };
    let wrapper = dir.path().join("ld");
    fs::write(&wrapper, linkage.wrapper(real.to_str().unwrap())).unwrap();
    fs::write(dir.path().join("response"), "-o x\n\"-shared\" -shared 'a b' *").unwrap();
    for path in [&real, &wrapper] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let output = Command::new("sh")
        .arg(&wrapper)
        .args(arguments)
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn only_dynamic_links_are_changed() {
    const RUN_PATH: [&str; 3] = ["--disable-new-dtags", "-rpath", "/a:/b"];
    const INTERPRETER: [&str; 2] = ["--dynamic-linker", "/i"];
    let program = [&RUN_PATH[..], &INTERPRETER].concat();
    for (arguments, added) in [
        (
            &["-pie", "-dynamic-linker", "/lib64/ld.so", "a b.o", "*"][..],
            &program[..],
        ),
        (&["--dynamic-linker=/lib64/ld.so", "a.o"], &program),
        (&["-dynamic-linker", "/lib/ld-musl-x86_64.so.1", "a.o"], &[]),
        (&["--dynamic-linker=/opt/lib/ld-musl-aarch64.so.1", "a.o"], &[]),
        (
            &["-o", "/lib/ld-musl-x86_64.so.1", "-dynamic-linker", "/i", "a.o"],
            &program,
        ),
        (&["-shared", "-o", "liba.so"], &RUN_PATH),
        (&["-Bshareable", "a.o"], &RUN_PATH),
        (&["@response"], &RUN_PATH),
        (&["@missing", "a.o"], &[]),
        (&["-static", "a.o"], &[]),
        (&["-static", "-pie", "--no-dynamic-linker", "a.o"], &[]),
        (&["-r", "-dynamic-linker", "/lib64/ld.so", "a.o"], &[]),
        (&["--version"], &[]),
        (&[""], &[]),
    ] {
        assert_eq!(wrapped(arguments), [arguments, added].concat(), "{arguments:?}");
    }
}

/// Linkers for another machine are wrapped where its compilers look; this machine's own are left as they are.
#[test]
fn linkers_of_cross_compilers_are_wrapped() {
    let dir = tempfile::tempdir().unwrap();
    let tools = package(
        dir.path(),
        "binutils",
        &[
            "usr/bin/ld",
            "usr/bin/aarch64-linux-gnu-ld",
            "usr/aarch64-linux-gnu/bin/ld",
        ],
    );
    let own = package(dir.path(), "own", &["lib/libown.so"]);
    let root = Root::compose(dir.path().join("fixups"), &[tools.1]).unwrap();
    let mut linkage = Linkage::of(&[own], "aarch64-linux").unwrap();
    linkage.crossed = Some("aarch64-linux-gnu");
    assert_eq!(linkage.wrap_linkers(&root).unwrap(), Some(format!("/{WRAPPERS}")));
    let read = |file: &str| fs::read_to_string(dir.path().join("fixups").join(file));
    for file in [
        format!("{WRAPPERS}/aarch64-linux-gnu-ld"),
        "usr/aarch64-linux-gnu/bin/ld".to_owned(),
    ] {
        let text = read(&file).unwrap();
        let last = format!(
            "exec /usr/bin/aarch64-linux-gnu-ld \"$@\" -L \"{}\"\n",
            logical("own", "lib")
        );
        assert!(text.ends_with(&last), "{text}");
    }
    assert!(read(&format!("{WRAPPERS}/ld")).is_err());
}
