//! What *macros* may read: whether the text of a crate has a word of files.
//!
//! Invariant: a crate that opens, lists or looks for files by Rust's own library, by that of C or by another program says so in
//! one of these words. What only looks like one counts as well: then less is kept.

use std::path::Path;
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
"#;

/// Largest file of a crate that is read, in bytes.
const TEXT_MAX: u64 = 16 << 20;

/// Directories of a crate that are no part of what it is compiled to.
const ASIDE: &[&str] = &["tests", "benches", "examples", "build.rs"];

/// Whether no file of the crate in `tree` has such a word.
pub(super) fn is_deaf(tree: &Path) -> bool {
    fsio::walk(tree).all(|entry| {
        let Ok(entry) = entry else { return false };
        let path = entry.path();
        let top = path
            .strip_prefix(tree)
            .ok()
            .and_then(|below| below.iter().next()?.to_str());
        let is_aside = top.is_some_and(|name| ASIDE.contains(&name));
        if is_aside || entry.file_type().is_dir() || path.extension().is_none_or(|end| end != "rs") {
            return true;
        }
        fsio::read_limited(path, TEXT_MAX).is_ok_and(|text| !has_word(&text))
    })
}

fn has_word(text: &[u8]) -> bool {
    static REGEX: OnceLock<Option<Regex>> = OnceLock::new();
    let Some(words) = REGEX.get_or_init(|| Regex::new(WORDS).ok()) else {
        return true;
    };
    let mut lines = text.split(|byte| *byte == b'\n');
    lines.any(|line| !line.trim_ascii_start().starts_with(b"//") && words.is_match(line))
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
        ] {
            assert!(has_word(text.as_bytes()), "{text}");
        }
        for text in [
            "/// use std::fs;",
            "  //! std::fs::read",
            "pub struct File { items: Vec<Item> }",
            "serialize::structs::process(&input)",
            "attr.metadata(name)",
            "Command",
            "offset",
        ] {
            assert!(!has_word(text.as_bytes()), "{text}");
        }
    }
}
