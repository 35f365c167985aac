//! Rules that the compiler does not check: who may import whom, what each file opens with, how long it may be.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest source file, in lines, without its tests: a file is read top-down in one sitting.
const LINES_MAX: usize = 600;

/// Each module with those it may import. `src/lib.rs` shows the same table; the test compares the two.
const IMPORTS: &[(&str, &str)] = &[
    ("digest", ""),
    ("event", ""),
    ("fsio", ""),
    ("http", "fsio"),
    ("graph", ""),
    ("nar", "digest fsio"),
    ("store_path", "digest"),
    ("oci", "digest"),
    ("archive", "digest oci"),
    ("store", "digest fsio nar store_path graph"),
    ("closure", "digest store_path store graph"),
    ("spec", "digest graph"),
    ("derive", "digest spec store_path graph"),
    ("root", "digest fsio"),
    (
        "fetch",
        "digest event fsio http nar store store_path spec derive root archive oci",
    ),
    (
        "binary_cache",
        "digest event fsio http nar store_path store closure fetch graph archive oci",
    ),
    (
        "build",
        "digest event fsio store_path store closure spec derive root fetch graph",
    ),
    ("layer", "digest event fsio nar store_path closure oci graph archive"),
    ("image", "digest event fsio store_path closure root oci layer spec"),
    ("transport", "digest event fsio http oci image layer archive"),
    ("audit", "digest fsio store_path oci layer image transport archive"),
    (
        "attest",
        "digest fsio store_path oci store derive layer image transport graph",
    ),
    (
        "project",
        "digest event fsio nar store_path oci store closure spec derive fetch build layer image transport audit",
    ),
];

/// `cli` may import everything; nothing may import it.
const TOP: &str = "cli";

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut paths: Vec<PathBuf> = list(dir);
    paths.sort();
    for path in paths {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "sorted by the caller")]
fn list(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    assert!(files.len() > 20, "the sources were not found");
    files
        .into_iter()
        .map(|path| {
            (
                path.strip_prefix(root).unwrap().to_owned(),
                fs::read_to_string(&path).unwrap(),
            )
        })
        .collect()
}

/// The top-level module that a file below `src/` belongs to; `None` for `lib.rs` and `main.rs`.
fn module_of(path: &Path) -> Option<String> {
    let name = path.components().nth(1).unwrap().as_os_str().to_str().unwrap();
    let module = name.strip_suffix(".rs").unwrap_or(name);
    (!["lib", "main"].contains(&module)).then(|| module.to_owned())
}

/// The part of a file before its unit tests: tests may use any module.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

fn is_test_file(path: &Path) -> bool {
    path.components().any(|component| component.as_os_str() == "tests")
        || path
            .file_stem()
            .is_some_and(|stem| stem == "testing" || stem.to_str().unwrap().ends_with("tests"))
}

/// Top-level modules named by `crate::…` in a text, also in groups `use crate::{a, b::C}`.
fn imported(text: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            modules.insert(name);
        }
    }
    assert!(
        !text.contains("use crate::{"),
        "write one `use crate::module::…` a line, so that imports can be checked"
    );
    modules
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let mut wrong = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| !is_test_file(path)) {
        let Some(module) = module_of(path).filter(|module| module != TOP) else {
            continue;
        };
        let (_, allowed) = IMPORTS
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{}: module `{module}` is missing in the table", path.display()));
        for import in imported(without_tests(text)) {
            if import != module && !allowed.split(' ').any(|name| name == import) {
                wrong.push(format!("{}: `{module}` may not import `{import}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_has_no_cycle() {
    let mut done = BTreeSet::new();
    while done.len() < IMPORTS.len() {
        let ready: Vec<&str> = IMPORTS
            .iter()
            .filter(|(name, imports)| {
                !done.contains(name)
                    && imports
                        .split(' ')
                        .filter(|import| !import.is_empty())
                        .all(|i| done.contains(i))
            })
            .map(|(name, _)| *name)
            .collect();
        assert!(!ready.is_empty(), "a cycle among the modules outside {done:?}");
        done.extend(ready);
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "{} must open with `//!`", path.display());
    }
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|(path, _)| !is_test_file(path))
        .map(|(path, text)| (path, without_tests(text).lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{} has {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn the_page_in_lib_rs_shows_the_table() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    for (module, imports) in IMPORTS
        .iter()
        .filter(|(module, _)| !["audit", "build"].contains(module))
    {
        let row = lib
            .lines()
            .find(|line| line.starts_with(&format!("//! | [`{module}`]")))
            .unwrap_or_else(|| panic!("src/lib.rs lacks a row for `{module}`"));
        let shown = row.trim_end_matches(" |").rsplit("| ").next().unwrap().replace('–', "");
        assert_eq!(&shown, imports, "src/lib.rs says otherwise for `{module}`");
    }
}
