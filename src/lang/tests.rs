//! Tests of what sources come to, and of what in them is refused.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

pub(super) fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, SourceTree) {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let file = dir.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let tree = SourceTree::new(dir.path().to_owned());
    (dir, tree)
}

/// What a spec with `keys` in its only package comes to, over these files.
fn plan_of(keys: &str, files: &[(&str, &str)]) -> Result<LanguageBuild, String> {
    plan_with(keys, files, &Lock::default())
}

pub(super) fn plan_with(keys: &str, files: &[(&str, &str)], lock: &Lock) -> Result<LanguageBuild, String> {
    let text = format!("[package.x]\nsource = {{ path = \".\" }}\n{keys}\n");
    let workspace = crate::spec::parse(&text).map_err(|errors| errors.render(false))?;
    let package = workspace.packages.values().next().unwrap();
    let (_dir, source) = tree(files);
    let request = Request {
        package,
        language: &package.language.as_ref().unwrap().value,
        lock,
        source: &source,
    };
    plan(&request).map_err(|error| {
        let diagnostic = error.diagnostic(request.package);
        crate::spec::Diagnostics::new(vec![diagnostic], workspace.files.clone()).render(false)
    })
}

const CHECKSUM: &str = "3bd1574e617a9a6c1f8f8181bd7e841e1f20e4277607ef28945765188d6284d4";

fn cargo_lock(entry: &str) -> String {
    format!("version = 4\n\n[[package]]\nname = \"x\"\nversion = \"0.1.0\"\n\n[[package]]\n{entry}\n")
}

const MANIFEST: (&str, &str) = ("Cargo.toml", "[package]\nname = \"x\"\n");

/// An entry of a lock file.
fn locked(name: &str, source: &str, dependencies: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"1.0.19\"\nsource = \"{source}\"\nchecksum = \"{CHECKSUM}\"\ndependencies = [{dependencies}]\n"
    )
}

const CRATES_IO: &str = "registry+https://h.invalid/rust-lang/crates.io-index";

#[test]
fn dependencies_are_a_step_of_their_own() {
    let lock = cargo_lock(&locked("itoa", CRATES_IO, ""));
    let files = [
        MANIFEST,
        ("Cargo.lock", &lock),
        ("src/main.rs", "fn main() { edited() }"),
    ];
    let build = plan_of("rust = {}", &files).unwrap();
    let tree: Vec<&String> = build.trees[0].files.keys().collect();
    assert_eq!(tree, ["Cargo.lock", "Cargo.toml", "src/main.rs"]);
    assert_eq!(build.steps[0].source, Some(Part::Tree(0)));
    assert_eq!(build.own.variables.values().collect::<Vec<_>>(), [&Part::Step(0)]);
    let edited = [MANIFEST, ("Cargo.lock", &lock), ("src/main.rs", "fn main() {}")];
    assert_eq!(plan_of("rust = {}", &edited).unwrap(), build);

    let whole = plan_of("rust = { incremental = false }", &files).unwrap();
    assert!(whole.steps.is_empty() && whole.trees.is_empty());
    // With `[patch]`, the crate needs what is in the source.
    let lock = cargo_lock(&locked("itoa", CRATES_IO, "\"x\""));
    let patched = plan_of("rust = {}", &[MANIFEST, ("Cargo.lock", &lock)]).unwrap();
    assert!(patched.steps.is_empty());
    let lock = cargo_lock(&locked("itoa", CRATES_IO, "\"x 9.0.0\", \"y\""));
    let other = plan_of("rust = {}", &[MANIFEST, ("Cargo.lock", &lock)]).unwrap();
    assert_eq!(other.steps.len(), 1);
}

#[test]
fn a_lock_file_older_than_the_manifest_is_told() {
    let lock = cargo_lock(&locked("itoa", CRATES_IO, ""));
    let manifest = |dependency: &str| format!("[package]\nname = \"x\"\n[dependencies]\n{dependency}\n");
    for (dependency, is_there) in [
        ("itoa = \"1\"", true),
        ("a = { package = \"itoa\", version = \"1\" }", true),
        ("hex = \"0.4\"", false),
    ] {
        let manifest = manifest(dependency);
        let planned = plan_of("rust = {}", &[("Cargo.toml", &manifest), ("Cargo.lock", &lock)]);
        match planned {
            Ok(_) => assert!(is_there, "{dependency}"),
            Err(error) => assert!(
                !is_there && error.contains("no `hex`, which `Cargo.toml` names"),
                "{error}"
            ),
        }
    }
}

#[test]
fn each_registry_has_a_directory() {
    let other = "sparse+https://other.invalid/index/";
    let lock = format!(
        "{}\n[[package]]\n{}",
        cargo_lock(&locked("itoa", CRATES_IO, "")),
        locked("itoa", other, "")
    );
    let manifest = "[package]\nname = \"x\"\n[dependencies]\na = { package = \"itoa\", registry = \"ours\" }";
    let build = plan_of("rust = {}", &[("Cargo.toml", manifest), ("Cargo.lock", &lock)]).unwrap();
    let places: std::collections::BTreeSet<&str> = build.own.mounts.iter().map(|mount| mount.at.as_str()).collect();
    assert_eq!(places.len(), 2, "{places:?}");
    let told = format!("[registries.\"ours\"]\nindex = \"{other}\"\n");
    assert!(build.own.preamble.contains(&told), "{}", build.own.preamble);
}

#[test]
fn the_root_may_be_below_the_source() {
    let lock = format!(
        "{}\n[[package]]\nname = \"y\"\nversion = \"0.1.0\"\n",
        cargo_lock(&locked("itoa", CRATES_IO, ""))
    );
    let files = [
        (
            "api/Cargo.toml",
            "[package]\nname = \"x\"\n[dependencies]\ny = { path = \"../y\" }",
        ),
        ("api/Cargo.lock", lock.as_str()),
        ("y/Cargo.toml", "[package]\nname = \"y\""),
        ("y/src/lib.rs", ""),
    ];
    let build = plan_of("rust = { lock = \"api/Cargo.lock\" }", &files).unwrap();
    assert!(build.own.preamble.contains("cd '/build/source/api' &&\n"));
    assert!(build.trees[0].files.contains_key("y/src/lib.rs"));
    let error = plan_of("rust = { lock = \"other.lock\" }", &files).unwrap_err();
    assert!(error.contains("another name"), "{error}");
    let outside = [("Cargo.lock", lock.as_str()), ("Cargo.toml", files[0].1)];
    let error = plan_of("rust = {}", &outside).unwrap_err();
    assert!(
        error.contains("lies outside the source") && error.contains("help: "),
        "{error}"
    );
}

#[test]
fn a_crate_is_mounted_where_cargo_looks() {
    let entry = format!(
        "name = \"itoa\"\nversion = \"1.0.19\"\nsource = \"registry+https://h.invalid/rust-lang/crates.io-index\"\nchecksum = \"{CHECKSUM}\""
    );
    let build = plan_of("rust = {}", &[MANIFEST, ("Cargo.lock", &cargo_lock(&entry))]).unwrap();
    let [dependency] = &build.dependencies[..] else {
        panic!("{build:?}")
    };
    assert_eq!(dependency.file, "itoa-1.0.19.crate");
    assert_eq!(dependency.hash.hex(), CHECKSUM);
    assert_eq!(build.own.mounts[0].at, "/build/vendor/itoa-1.0.19");
    assert!(
        build
            .own
            .preamble
            .contains("[source.crates-io]\nreplace-with = \"/build/vendor\"")
    );
}

/// Both would be what Cargo calls `crates-io`.
#[test]
fn two_registries_that_are_named_as_rusts_own_are_refused() {
    let entry = |name: &str, host: &str| {
        format!(
            "name = \"{name}\"\nversion = \"1.0.0\"\nsource = \"registry+https://{host}.invalid/rust-lang/crates.io-index\"\n\
             checksum = \"{CHECKSUM}\"\n"
        )
    };
    let lock = cargo_lock(&format!("{}\n[[package]]\n{}", entry("a", "one"), entry("b", "other")));
    let error = plan_of("rust = {}", &[("Cargo.lock", &lock), MANIFEST]).unwrap_err();
    assert!(error.contains("two registries"), "{error}");
}

#[test]
fn lock_files_that_cannot_be_used_say_what_to_do() {
    let index = "source = \"registry+https://h.invalid/i\"";
    for (lock, said) in [
        (None, "no lock file"),
        (Some("version = 4\nx = ".to_owned()), "in `Cargo.lock`, line 2"),
        (Some("version = 5\n".to_owned()), "version 5"),
        (
            Some(cargo_lock(&format!("name = \"a\"\nversion = \"1.0.0\"\n{index}"))),
            "has no checksum",
        ),
        (
            Some(cargo_lock(&format!(
                "name = \"a\"\nversion = \"1.0.0\"\n{index}\nchecksum = \"00\""
            ))),
            "is no SHA-256",
        ),
        (
            Some(cargo_lock(&format!(
                "name = \"../a\"\nversion = \"1.0.0\"\n{index}\nchecksum = \"{CHECKSUM}\""
            ))),
            "name or version",
        ),
        (
            Some(cargo_lock(&format!(
                "name = \"..\"\nversion = \"1.0.0\"\n{index}\nchecksum = \"{CHECKSUM}\""
            ))),
            "name or version",
        ),
    ] {
        let files: Vec<(&str, &str)> = lock.iter().map(|text| ("Cargo.lock", text.as_str())).collect();
        let error = plan_of("rust = {}", &files).unwrap_err();
        assert!(error.contains(said), "{error}");
        assert!(error.contains("help: "), "{error}");
    }
}

#[test]
fn the_first_format_keeps_checksums_apart() {
    let lock = format!(
        "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"registry+https://h.invalid/i\"\n\n[metadata]\n\"checksum a 1.0.0 (registry+https://h.invalid/i)\" = \"{CHECKSUM}\"\n"
    );
    let build = plan_of("rust = {}", &[("Cargo.toml", "[workspace]\n"), ("Cargo.lock", &lock)]).unwrap();
    assert_eq!(build.dependencies.len(), 1);
}

#[test]
fn repositories_are_dependencies_once_their_content_is_locked() {
    let commit = "5a03d13c097e4c0eeec952a900bd79e1c43a629d";
    let entry = |name: &str, reference: &str| {
        format!(
            "\n[[package]]\nname = \"{name}\"\nversion = \"0.3.0\"\nsource = \"git+https://h.invalid/a/b{reference}#{commit}\"\n"
        )
    };
    let text = format!(
        "{}{}{}{}",
        cargo_lock(&locked("itoa", CRATES_IO, "")),
        entry("foo", "?branch=main"),
        entry("bar", "?branch=main"),
        entry("baz", "")
    );
    let files = [MANIFEST, ("Cargo.lock", &text)];
    let error = plan_of("rust = {}", &files).unwrap_err();
    assert!(
        error.contains("`https://h.invalid/a/b` (commit 5a03d13c097e) is not in the lock"),
        "{error}"
    );
    let pin = crate::spec::LockedTree {
        size: 1,
        nar_hash: crate::digest::Digest::of(b"x"),
    };
    let lock = Lock {
        commits: BTreeMap::from([(crate::spec::GitCommit::parse(commit).unwrap(), pin)]),
        ..Lock::default()
    };
    let build = plan_with("rust = {}", &files, &lock).unwrap();
    let forms: Vec<&Form> = build.dependencies.iter().map(|of| &of.form).collect();
    let pair = |name: &str| (name.to_owned(), "0.3.0".to_owned());
    let crates = [vec![pair("baz")], vec![pair("bar"), pair("foo")]].map(Form::GitCrates);
    assert_eq!(forms, [&Form::Crate, &crates[0], &crates[1]]);
    let places: std::collections::BTreeSet<&str> = build.own.mounts.iter().map(|mount| mount.at.as_str()).collect();
    assert_eq!(places.len(), 3, "two references are two sources: {places:?}");
    assert!(
        build
            .own
            .preamble
            .contains("git = \"https://h.invalid/a/b\"\nbranch = \"main\"\n")
    );
}

#[test]
fn a_unit_is_known_by_all_that_is_below_it() {
    let entry = |name: &str, checksum: &str, dependencies: &str| {
        let entry = locked(name, CRATES_IO, dependencies).replace(CHECKSUM, checksum);
        format!("\n[[package]]\n{entry}")
    };
    let other = CHECKSUM.replace('3', "4");
    let units = |leaf: &str, config: &str| {
        let text = format!(
            "version = 4\n\n[[package]]\nname = \"x\"\nversion = \"0.1.0\"\n{}{}{}",
            entry("leaf", leaf, ""),
            entry("apart", CHECKSUM, ""),
            entry("top", CHECKSUM, "\"leaf\"")
        );
        let files = [MANIFEST, ("Cargo.lock", &text), (".cargo/config.toml", config)];
        plan_of("rust = {}", &files)
            .unwrap()
            .steps
            .remove(0)
            .recipe
            .units
            .unwrap()
    };
    let id = |name: &str| format!("{CRATES_IO}#{name}@1.0.19");
    let (before, after) = (units(CHECKSUM, ""), units(&other, ""));
    for (name, is_same) in [("leaf", false), ("top", false), ("apart", true)] {
        let [before, after] = [&before, &after].map(|units| units.crates[&id(name)].closure);
        assert_eq!(before == after, is_same, "{name}");
    }
    assert_eq!(
        before.crates[&id("top")].at.as_deref(),
        Some("/build/vendor/top-1.0.19")
    );
    assert_eq!(before.scope, after.scope);
    assert_ne!(before.scope, units(CHECKSUM, "[build]\n").scope);
}

#[test]
fn members_are_kept_where_all_is_known_that_they_depend_on() {
    let own = |name: &str, needs: &str| {
        format!("\n[[package]]\nname = \"{name}\"\nversion = \"0.1.0\"\ndependencies = [{needs}]\n")
    };
    let lock = |crates: &str| format!("version = 4\n{}{}{crates}", own("x", "\"y\""), own("y", "\"itoa\""));
    let itoa = format!("\n[[package]]\n{}", locked("itoa", CRATES_IO, ""));
    let second = format!("\n[[package]]\n{}", locked("y", CRATES_IO, ""));
    let root = "[package]\nname = \"x\"\n[dependencies]\ny = { path = \"y\" }\n[workspace]\n";
    let members = |keys: &str, root: &str, crates: &str, more: &[(&str, &str)]| {
        let lock = lock(crates);
        let y = ("y/Cargo.toml", "[package]\nname = \"y\"\n");
        let mut files = vec![("Cargo.toml", root), y, ("Cargo.lock", lock.as_str())];
        files.extend(more);
        plan_of(keys, &files).unwrap().own.units.and_then(|units| units.members)
    };
    let plain = members("rust = {}", root, &itoa, &[]).unwrap();
    let dirs: Vec<(&str, &str)> = (plain.packages.iter())
        .map(|(name, member)| (name.as_str(), member.dir.as_str()))
        .collect();
    assert_eq!(dirs, [("x", ""), ("y", "y")]);
    assert_eq!(plain.needs["x"].iter().collect::<Vec<_>>(), ["itoa", "x", "y"]);
    let alias = (".cargo/config.toml", "[alias]\nz = \"run\"\n");
    assert_eq!(members("rust = {}", root, &itoa, &[alias]), Some(plain.clone()));
    // Another crate below, or another profile.
    let bumped = members("rust = {}", root, &itoa.replace('3', "4"), &[]).unwrap();
    let profile = format!("{root}[profile.release]\nlto = true\n");
    for other in [bumped, members("rust = {}", &profile, &itoa, &[]).unwrap()] {
        for name in ["x", "y"] {
            assert_ne!(other.packages[name].closure, plain.packages[name].closure);
        }
    }
    let flags = (".cargo/config.toml", "[build]\nrustflags = []\n");
    for (keys, crates, more) in [
        ("rust = { incremental = false }", &itoa, &[] as &[_]),
        ("rust = {}\nscript = \"x\"", &itoa, &[]),
        ("rust = {}\ncache.dirs = [\"/build/.ccache\"]", &itoa, &[]),
        ("rust = {}\nenv = { RUSTFLAGS = \"-Lx\" }", &itoa, &[]),
        ("rust = {}", &itoa, &[flags]),
        ("rust = {}", &format!("{itoa}{second}"), &[]),
    ] {
        assert_eq!(members(keys, root, crates, more), None, "{keys} {more:?}");
    }
}

#[test]
fn links_are_followed_within_the_source_alone() {
    let (dir, source) = tree(&[("real/Cargo.lock", "x")]);
    symlink("real/Cargo.lock", dir.path().join("Cargo.lock")).unwrap();
    symlink("real", dir.path().join("linked")).unwrap();
    symlink("/etc", dir.path().join("etc")).unwrap();
    symlink("../../etc/passwd", dir.path().join("passwd")).unwrap();
    symlink("loop", dir.path().join("loop")).unwrap();
    assert_eq!(source.text("Cargo.lock").unwrap().as_deref(), Some("x"));
    assert_eq!(source.text("linked/Cargo.lock").unwrap().as_deref(), Some("x"));
    for path in ["etc", "etc/passwd", "passwd", "loop", "../x", "/etc/passwd"] {
        assert_eq!(source.kind(path), None, "{path}");
        assert_eq!(source.text(path).unwrap(), None, "{path}");
    }
    let names: Vec<String> = source.entries("").unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["Cargo.lock", "linked", "real"]);
}

#[test]
fn why_a_file_cannot_be_read_is_told() {
    let text = "[package.x]\nsource = { path = \".\" }\nrust = {}\n";
    let workspace = crate::spec::parse(text).unwrap();
    let package = workspace.packages.values().next().unwrap();
    let (dir, source) = tree(&[MANIFEST]);
    let large = fs::File::create(dir.path().join("Cargo.lock")).unwrap();
    large.set_len(TEXT_MAX + 1).unwrap();
    let request = Request {
        package,
        language: &package.language.as_ref().unwrap().value,
        lock: &Lock::default(),
        source: &source,
    };
    let error = plan(&request).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    let shown =
        crate::spec::Diagnostics::new(vec![error.diagnostic(request.package)], workspace.files.clone()).render(false);
    assert!(shown.contains(&cause) && shown.contains("Cargo.lock"), "{shown}");
}

#[test]
fn what_a_spec_says_of_a_language_is_checked() {
    for (keys, said) in [
        ("rust = { lock = \"../Cargo.lock\" }", "not a path inside the source"),
        ("rust = { lock = \"/Cargo.lock\" }", "not a path inside the source"),
        ("rust = { features = [\"--config=x\"] }", "not a name that Cargo knows"),
        ("rust = { features = [\"a' b\"] }", "not a name that Cargo knows"),
        ("rust = { feature = [] }", "features"),
        ("rust = true", "a table"),
    ] {
        let error = plan_of(keys, &[]).unwrap_err();
        assert!(error.contains(said), "{keys}: {error}");
    }
    let error = crate::spec::parse("[package.x]\nrust = {}\n").unwrap_err();
    assert!(error.render(false).contains("needs a source of its own files"));
}
