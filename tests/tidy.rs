//! Rules that the compiler does not check: who may import whom, what each file opens with, how long it may be.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Longest source file, in lines, without its tests: a file is read top-down in one sitting.
const LINES_MAX: usize = 600;

/// `cli` may import everything; nothing may import it.
const TOP: &str = "cli";

/// Each module with those it may import, as the page of `src/lib.rs` shows them: lower ones first.
fn table() -> Vec<(String, BTreeSet<String>)> {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let row = |line: &str| {
        let (_, row) = line.strip_prefix("//! | ")?.split_once(" | [`")?;
        let (module, rest) = row.split_once("`] | ")?;
        let (_, imports) = rest.strip_suffix(" |")?.rsplit_once(" | ")?;
        let names = imports.split(' ').filter(|name| *name != "–");
        (module != TOP).then(|| (module.to_owned(), names.map(str::to_owned).collect()))
    };
    lib.lines().filter_map(row).collect()
}

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
    let before = |mark| text.find(mark).unwrap_or(text.len());
    let inline = ["#[cfg(test)]\nmod tests {", "#[cfg(test)]\nmod fuzz {"].map(before);
    &text[..inline[0].min(inline[1])]
}

fn is_test_file(path: &Path) -> bool {
    path.components().any(|component| component.as_os_str() == "tests")
        || path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .is_some_and(|stem| stem.starts_with("testing") || stem.ends_with("tests") || stem == "oracle")
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

/// What the code of each module imports, tests left out, and the file in which it is found first.
fn imports_of_modules() -> BTreeMap<String, BTreeMap<String, PathBuf>> {
    let mut found: BTreeMap<String, BTreeMap<String, PathBuf>> = BTreeMap::new();
    for (path, text) in sources().iter().filter(|(path, _)| !is_test_file(path)) {
        let Some(module) = module_of(path).filter(|module| module != TOP) else {
            continue;
        };
        let imports = found.entry(module.clone()).or_default();
        for import in imported(without_tests(text))
            .into_iter()
            .filter(|import| *import != module)
        {
            imports.entry(import).or_insert_with(|| path.clone());
        }
    }
    found
}

/// A module imports no more than the table allows, and the table allows no more than is imported.
#[test]
fn modules_import_what_the_table_says() {
    let mut wrong = Vec::new();
    let (table, found) = (table(), imports_of_modules());
    let listed: BTreeSet<&String> = table.iter().map(|(module, _)| module).collect();
    assert_eq!(
        listed,
        found.keys().collect(),
        "the modules of the table and of the code"
    );
    for (module, allowed) in &table {
        let imports = &found[module];
        for (import, path) in imports.iter().filter(|(import, _)| !allowed.contains(*import)) {
            wrong.push(format!("{}: `{module}` may not import `{import}`", path.display()));
        }
        for unused in allowed.iter().filter(|import| !imports.contains_key(*import)) {
            wrong.push(format!("src/lib.rs: `{module}` need not import `{unused}`"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each module imports only those above it in the table, so that there is no cycle.
#[test]
fn the_table_is_in_order() {
    let mut above = BTreeSet::new();
    for (module, imports) in table() {
        let below: Vec<&String> = imports.difference(&above).collect();
        assert!(
            below.is_empty(),
            "`{module}` is listed before {below:?}, which it imports"
        );
        above.insert(module);
    }
}

/// The modules of `cli` that verbs share, in the order in which `src/cli/mod.rs` names them.
fn shared_by_verbs(page: &str) -> Vec<String> {
    let start = page
        .find("each importing only from those before it")
        .expect("the page names what verbs share");
    let end = start + page[start..].find('.').unwrap();
    let names = page[start..end].split('`').skip(1).step_by(2);
    names.map(str::to_owned).collect()
}

#[test]
fn no_verb_imports_another() {
    let sources = sources();
    let (_, page) = sources.iter().find(|(path, _)| path.ends_with("cli/mod.rs")).unwrap();
    let shared = shared_by_verbs(page);
    assert!(shared.len() > 8, "{shared:?}");
    let mut wrong = Vec::new();
    for (path, text) in sources
        .iter()
        .filter(|(path, _)| !is_test_file(path) && !path.ends_with("cli/mod.rs"))
    {
        if module_of(path).as_deref() != Some(TOP) {
            continue;
        }
        let own = path
            .components()
            .nth(2)
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs");
        let allowed = match shared.iter().position(|name| name == own) {
            Some(place) => &shared[..place],
            None => &shared[..],
        };
        let in_dir = path.components().count() > 3;
        for line in without_tests(text).lines() {
            let line = line.trim_start();
            let import = match in_dir {
                false => line.strip_prefix("use super::"),
                true => line.strip_prefix("use crate::cli::"),
            };
            let Some(import) = import else { continue };
            let name: String = import
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if !allowed.contains(&name) {
                wrong.push(format!("{}: `{own}` may not import `{import}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn errors_of_the_library_are_types() {
    let untyped = |(path, text): &&(PathBuf, String)| {
        module_of(path).is_some_and(|module| module != TOP) && without_tests(text).contains("anyhow::")
    };
    let sources = sources();
    let wrong: Vec<String> = sources
        .iter()
        .filter(untyped)
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(
        wrong.is_empty(),
        "`anyhow` is for `cli`, which shows errors: {}",
        wrong.join(", ")
    );
}

/// The floors of the page rise from row to row.
#[test]
fn the_floors_are_in_order() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let floor = |line: &str| line.strip_prefix("//! | ")?.split_once(" | [`")?.0.parse::<u32>().ok();
    let floors: Vec<u32> = lib.lines().filter_map(floor).collect();
    assert_eq!(floors.len(), table().len() + 1, "each row begins with its floor");
    assert!(floors.is_sorted(), "{floors:?}");
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
