//! What *macros* may read: whether the text of a crate has a word of files.
//!
//! Invariant: a crate that opens, lists or looks for files by Rust's own library, by that of C or by another program says so in
//! one of these words, and one that is compiled from other files than those that are looked at says that. What only looks like
//! one counts as well: then less is kept.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::sync::OnceLock;

use regex::bytes::Regex;

use crate::fsio;

/// Words of whoever deals with files, or with other programs.
const WORDS: &str = r#"(?x)
    \b(fs|OpenOptions|read_dir|libc|nix|rustix|syscall|dlopen|libloading|memmap2?|tracked_path)\b
    | \bstd\s*::\s*(process|net|os)\b | \bprocess\s*::\s*[A-Z{*] | \b(net|os)\s*::\s*unix\b
    | (\.|\bPath\s*::\s*|\bPathBuf\s*::\s*)(exists|try_exists|is_file|is_dir|is_symlink|symlink_metadata|canonicalize|read_link)\b
    | (\.|\bPath\s*::\s*|\bPathBuf\s*::\s*)metadata\(\)
    | extern\s*"(C|system)" | \b(global_)?asm!
    | \binclude\b
"#;

/// Where an attribute says that a module is.
const MODULE_PATH: &str = r#"\bpath\s*=\s*r?\#*"([^"]*)"#;

/// Largest file of a crate that is read, in bytes.
const TEXT_MAX: u64 = 16 << 20;

/// Directories of a crate that are no part of what it is compiled to.
const ASIDE: &[&str] = &["tests", "benches", "examples", "build.rs"];

/// Whether no file of the crate in `tree` has such a word.
pub(super) fn reads_no_files(tree: &Path) -> bool {
    let Some(aside) = aside(tree) else { return false };
    fsio::walk(tree).all(|entry| {
        let Ok(entry) = entry else { return false };
        let path = entry.path();
        let top = path
            .strip_prefix(tree)
            .ok()
            .and_then(|below| below.iter().next()?.to_str());
        let is_aside = top.is_some_and(|name| aside.contains(&name));
        if is_aside || entry.file_type().is_dir() || path.extension().is_none_or(|end| end != "rs") {
            return true;
        }
        fsio::read_limited(path, TEXT_MAX).is_ok_and(|text| !has_word(&text))
    })
}

/// The directories that are no part of a crate in `tree`; `None` where its library may be in any file.
fn aside(tree: &Path) -> Option<&'static [&'static str]> {
    let text = fsio::read_limited(&tree.join("Cargo.toml"), TEXT_MAX).ok()?;
    let manifest: toml::Table = std::str::from_utf8(&text).ok()?.parse().ok()?;
    let path = manifest.get("lib").and_then(|lib| lib.get("path"));
    let Some(path) = path else { return Some(ASIDE) };
    let path = Path::new(path.as_str()?);
    let is_plain = path.extension().is_some_and(|end| end == "rs") && stays_below(path);
    match path.starts_with("src") {
        _ if !is_plain => None,
        true => Some(ASIDE),
        // Its modules are beside it.
        false => Some(&[]),
    }
}

fn stays_below(path: &Path) -> bool {
    path.components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

fn has_word(text: &[u8]) -> bool {
    static REGEX: OnceLock<Option<[Regex; 2]>> = OnceLock::new();
    let compile = || Some([Regex::new(WORDS).ok()?, Regex::new(MODULE_PATH).ok()?]);
    let Some([words, paths]) = REGEX.get_or_init(compile) else {
        return true;
    };
    // A module in a file of another kind, or of another place.
    let is_elsewhere = |code: &[u8]| {
        paths.captures_iter(code).any(|found| {
            let path = Path::new(OsStr::from_bytes(&found[1]));
            path.extension().is_none_or(|end| end != "rs") || !stays_below(path)
        })
    };
    let lines = text.split(|byte| *byte == b'\n');
    let code: Vec<&[u8]> = lines
        .filter(|line| !line.trim_ascii_start().starts_with(b"//"))
        .collect();
    let code = code.join(&b'\n');
    words.is_match(&code) || is_elsewhere(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_files_says_so() {
        for text in [
            "use std::fs;",
            "use std::{env, fs::File, io};",
            "let text = std::fs::read_to_string(path)?;",
            "use std::{path::Path, process::Command};",
            "use std::process;",
            "if path.exists() {",
            "Path::is_file(&path)",
            "path.metadata()?",
            "unsafe { libc::open(path, 0) }",
            "extern \"C\" {",
            "    for entry in walkdir::WalkDir::new(fs_root) { entry.path().is_dir() }",
            "proc_macro::tracked_path::path(\"x\")",
            "include!(\"code.inc\");",
            "core::include ! { \"x\" }",
            "use std::include as data;",
            "#[path = \"code.tmpl\"]",
            "#[cfg_attr(any(), path = r#\"../tests/x.rs\"#)]",
            "#[path\n=\n\"/x.rs\"]",
        ] {
            assert!(has_word(text.as_bytes()), "{text}");
        }
        for text in [
            "/// use std::fs;",
            "  //! std::fs::read",
            "pub struct File { items: Vec<Item> }",
            "serialize::structs::process(&input)",
            "attr.metadata(name)",
            "include_str!(\"data\")",
            "#[path = \"wrapper.rs\"]",
            "// #[path = \"x\"]\nmod x;",
            "Command",
            "offset",
        ] {
            assert!(!has_word(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_a_library_is_made_of_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("tests/mod.rs", "use std::fs;");
        write("src/lib.rs", "fn f() {}");
        for (manifest, expected) in [
            ("[package]\nname = \"x\"", true),
            ("[lib]\nproc-macro = true\npath = \"src/lib.rs\"", true),
            ("[lib]\npath = \"src/lib.inc\"", false),
            ("[lib]\npath = \"lib.rs\"", false),
            ("[lib]\npath = \"../lib.rs\"", false),
            ("[broken", false),
        ] {
            write("Cargo.toml", manifest);
            assert_eq!(reads_no_files(dir.path()), expected, "{manifest}");
        }
    }
}
