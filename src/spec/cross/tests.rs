//! Tests of what is compiled for another platform: whose packages are taken, and what a lock is to hold for it.

use super::super::lock::Lock;
use super::super::parse;
use super::super::{LockScope, lock_is_current};
use super::*;

const SPEC: &str = r#"
    [debian]
    base = ["bash"]
    architecture = "amd64"
    [package.app]
    source = { path = "app" }
    tools = ["deb:gcc", "deb:g++-12", "gen", "deb:make"]
    libraries = ["lib", "deb:zlib1g-dev"]
    runtime = ["deb:tzdata"]
    dev = ["deb:gdb"]
    script = "true"
    cross = true
    [package.lib]
    source = { path = "lib" }
    tools = ["deb:gcc"]
    script = "true"
    [package.gen]
    source = { path = "gen" }
    tools = ["deb:perl", "helper"]
    script = "true"
    [package.helper]
    source = { path = "helper" }
    script = "true"
    [image.app]
    contents = ["app"]
    platform = ["linux/amd64", "linux/arm64"]
"#;

fn set(names: &str) -> Vec<String> {
    names.split(' ').map(str::to_owned).collect()
}

/// What is taken for whom: libraries for the target, tools for the machine, and nothing of a machine that it is for.
#[test]
fn tools_are_the_machines_and_libraries_the_targets() {
    let workspace = parse(SPEC).unwrap();
    let (amd64, arm64) = (workspace.at("amd64", "amd64"), workspace.at("arm64", "amd64"));
    let app = &workspace.packages[&PackageName("app".to_owned())];
    let for_target = set("libatomic1 libgcc-s1 libgomp1 libstdc++6 tzdata zlib1g-dev");
    assert_eq!(target_debs(app), for_target);
    assert_eq!(
        cross_debs(&arm64, app),
        set("bash g++-12 g++-12-aarch64-linux-gnu gcc gcc-aarch64-linux-gnu libc6-dev make")
    );
    assert!(cross_shell_debs(&arm64, app).contains(&"gdb".to_owned()));
    for (machine, seen, is_it) in [
        ("amd64", &amd64, false),
        ("amd64", &arm64, true),
        ("arm64", &amd64, true),
    ] {
        assert_eq!(is_crossed_on(seen, app, machine), is_it, "{machine}");
    }
    let tools = machine_tools(&arm64, "amd64");
    let names: Vec<&str> = tools.packages.keys().map(|name| name.0.as_str()).collect();
    assert_eq!(names, ["gen", "helper"]);
    assert_eq!(tools.debian.architecture.as_deref(), Some("amd64"));
    // What compiles on arm64 compiles for amd64.
    let on_arm64 = cross_sets(&workspace, "amd64", "arm64");
    assert!(on_arm64.keys().flatten().any(|name| name == "gcc-x86-64-linux-gnu"));
    let on_amd64 = cross_sets(&workspace, "amd64", "amd64");
    let sets: Vec<&Vec<String>> = on_amd64.keys().collect();
    assert_eq!(sets.len(), 4, "{sets:?}");
    assert!(sets.contains(&&set("bash perl")) && sets.contains(&&set("bash")));
}

/// `[build]` says it for all that does not say otherwise, and can be compiled at all.
#[test]
fn the_build_says_it_for_all() {
    let text = |build: &str, package: &str| {
        format!(
            "[build]\ncross = {build}\n[package.x]\nsource = {{ path = \".\" }}\n{package}\n[package.files]\nsource = {{ path = \".\" }}\n"
        )
    };
    for (build, package, expected) in [
        ("true", "script = \"true\"", true),
        ("false", "script = \"true\"", false),
        ("false", "script = \"true\"\ncross = true", true),
        ("true", "script = \"true\"\ncross = false", false),
        ("true", "rust = {}", true),
        ("true", "go = {}", true),
        ("true", "python = {}", false),
        ("true", "node = {}", false),
    ] {
        let workspace = parse(&text(build, package)).unwrap_or_else(|errors| panic!("{package}: {errors}"));
        let wants = |name: &str| wants_cross(&workspace, &workspace.packages[&PackageName(name.to_owned())]);
        assert_eq!(wants("x"), expected, "{build} {package}");
        assert!(!wants("files"));
    }
    for (package, said) in [
        ("python = {}\ncross = true", "`python`"),
        ("node = {}\ncross = true", "`node`"),
        ("cross = true", "no effect without a `script`"),
    ] {
        let errors = parse(&text("false", package)).unwrap_err().to_string();
        assert!(errors.contains(said), "{errors}");
    }
}

#[test]
fn cross_compilers_are_called_by_their_target() {
    for (tool, architecture, expected) in [
        ("gcc", "armhf", "gcc-arm-linux-gnueabihf"),
        ("gcc", "amd64", "gcc-x86-64-linux-gnu"),
        ("gcc-12", "s390x", "gcc-12-s390x-linux-gnu"),
        (
            "build-essential",
            "riscv64",
            "gcc-riscv64-linux-gnu g++-riscv64-linux-gnu",
        ),
        (
            "clang-14",
            "ppc64el",
            "gcc-powerpc64le-linux-gnu g++-powerpc64le-linux-gnu",
        ),
        ("cargo", "i386", "gcc-i686-linux-gnu"),
        ("rustc-web", "arm64", "gcc-aarch64-linux-gnu"),
        ("cargo-deny", "arm64", ""),
        ("gfortran", "armel", "gfortran-arm-linux-gnueabi"),
        ("binutils", "arm64", "binutils-aarch64-linux-gnu"),
        ("gcc-arm-none-eabi", "arm64", ""),
        ("make", "arm64", ""),
    ] {
        assert_eq!(
            compilers(tool, architecture).join(" "),
            expected,
            "{tool} {architecture}"
        );
    }
}

/// Rust's library for the target is that of the Rust which compiles.
#[test]
fn rust_is_linked_to_its_own_library() {
    for (tools, libraries) in [
        (r#""deb:rustc""#, "libstd-rust-dev"),
        (r#""deb:cargo-web", "deb:rustc-web""#, "libstd-rust-web-dev"),
        (r#""deb:rustc-1.85", "deb:gcc""#, "libstd-rust-1.85-dev"),
        (r#""deb:cargo-deny""#, ""),
    ] {
        let workspace = parse(&format!("[package.x]\nscript = \"true\"\ntools = [{tools}]\n")).unwrap();
        let package = &workspace.packages[&PackageName("x".to_owned())];
        assert_eq!(target_debs(package).join(" "), libraries, "{tools}");
    }
}

/// The C library that cross compilers bring gives way to what is linked to.
#[test]
fn a_c_library_is_there_once() {
    let (with, without) = (BTreeSet::from(["libc6", "libc6-dev"]), BTreeSet::from(["libc6"]));
    for (name, is_hidden) in [
        ("libc6-arm64-cross", true),
        ("libc6-dev-arm64-cross", true),
        ("linux-libc-dev-arm64-cross", true),
        ("libgcc-12-dev-arm64-cross", false),
        ("libc6-dev", false),
        ("libc6-dbg", false),
    ] {
        assert_eq!(is_hidden_by(name, &with), is_hidden, "{name}");
        assert!(!is_hidden_by(name, &without), "{name}");
    }
}

/// A lock lacks what this machine takes to compile for others, and has nothing else for it.
#[test]
fn a_lock_has_what_the_machine_takes() {
    let machine = machine_architecture();
    let other = if machine == "arm64" { "amd64" } else { "arm64" };
    let text = format!(
        "[debian]\narchitecture = \"{other}\"\nbase = []\n[package.app]\nscript = \"true\"\ntools = [\"deb:make\"]\ncross = true\n"
    );
    let workspace = parse(&text).unwrap();
    let mut lock = Lock::default();
    let told = |lock: &Lock| match lock_is_current(&workspace, lock, LockScope::Whole) {
        Ok(()) => Vec::new(),
        Err(lines) => lines,
    };
    let missing = format!("missing: this machine's tools for package `app`, compiled for {other}");
    assert_eq!(told(&lock), [missing]);
    lock.machines.entry(machine.to_owned()).or_default().deb_sets = [(set("make"), Vec::new())].into();
    assert_eq!(told(&lock), Vec::<String>::new());
    lock.machines.entry(machine.to_owned()).or_default().deb_sets =
        [set("make"), set("cmake")].map(|set| (set, Vec::new())).into();
    assert_eq!(told(&lock).len(), 1, "{:?}", told(&lock));
    // Where the package is at home, its tools are with its libraries.
    lock.deb_sets = [(set("make"), Vec::new())].into();
    assert!(
        told(&lock)
            .iter()
            .all(|line| !line.contains("the resolution of `deb:make`"))
    );
}
