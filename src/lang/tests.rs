//! Tests of what sources come to, and of what in them is refused.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, SourceTree) {
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
    let text = format!("[package.x]\nsource = {{ path = \".\" }}\n{keys}\n");
    let workspace = crate::spec::parse(&text).map_err(|errors| errors.render(false))?;
    let package = workspace.packages.values().next().unwrap();
    let (_dir, source) = tree(files);
    let request = Request {
        package,
        language: &package.language.as_ref().unwrap().value,
        lock: &Lock::default(),
        source: &source,
    };
    plan(&request).map_err(|error| {
        let diagnostic = error.diagnostic(&request);
        crate::spec::Diagnostics::new(vec![diagnostic], workspace.files.clone()).render(false)
    })
}

const CHECKSUM: &str = "3bd1574e617a9a6c1f8f8181bd7e841e1f20e4277607ef28945765188d6284d4";

fn cargo_lock(entry: &str) -> String {
    format!("version = 4\n\n[[package]]\nname = \"x\"\nversion = \"0.1.0\"\n\n[[package]]\n{entry}\n")
}

#[test]
fn a_crate_is_mounted_where_cargo_looks() {
    let entry = format!(
        "name = \"itoa\"\nversion = \"1.0.19\"\nsource = \"registry+https://h.invalid/rust-lang/crates.io-index\"\nchecksum = \"{CHECKSUM}\""
    );
    let build = plan_of("rust = {}", &[("Cargo.lock", &cargo_lock(&entry))]).unwrap();
    let [dependency] = &build.dependencies[..] else {
        panic!("{build:?}")
    };
    assert_eq!(dependency.file, "itoa-1.0.19.crate");
    assert_eq!(dependency.hash.hex(), CHECKSUM);
    assert_eq!(build.own.mounts[0].at, "/build/vendor/itoa-1.0.19");
    assert!(build.own.preamble.contains("[source.crates-io]\nreplace-with"));
}

#[test]
fn lock_files_that_cannot_be_used_say_what_to_do() {
    let index = "source = \"registry+https://h.invalid/i\"";
    for (lock, said) in [
        (None, "no lock file"),
        (Some("version = ".to_owned()), "cannot be read"),
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
    let build = plan_of("rust = {}", &[("Cargo.lock", &lock)]).unwrap();
    assert_eq!(build.dependencies.len(), 1);
}

#[test]
fn files_are_not_read_through_links() {
    let (dir, source) = tree(&[("real/Cargo.lock", "")]);
    symlink("real/Cargo.lock", dir.path().join("Cargo.lock")).unwrap();
    symlink("real", dir.path().join("linked")).unwrap();
    assert!(source.is_file("real/Cargo.lock"));
    assert!(!source.is_file("Cargo.lock"));
    assert!(!source.is_file("linked/Cargo.lock"));
    assert_eq!(source.text("linked/Cargo.lock").unwrap(), None);
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
