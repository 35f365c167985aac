//! Which files of a repository are a package of npm's: those that `npm pack` would take (npm's part `npm-packlist`).
//!
//! Invariant: what is left of a tree is a part of it: nothing is added, links go, and no link is followed.

use std::fs;
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde_json::Value;

use crate::fsio::{self, IoContext, PathError};

/// Largest file of patterns that is read, in bytes; of a larger one nothing is taken.
const IGNORE_MAX: u64 = 4 << 20;

/// What no package has, in whichever of its directories.
const NEVER: &[&str] = &[
    ".npmignore",
    ".gitignore",
    ".git",
    ".svn",
    ".hg",
    "CVS",
    "/.lock-wscript",
    "/.wafpickle-*",
    "/build/config.gypi",
    "npm-debug.log",
    ".npmrc",
    ".*.swp",
    ".DS_Store",
    "._*",
    "*.orig",
    "/archived-packages/**",
];

/// What a package always has, and never has, at its top; these have the last word there.
const AT_TOP: &[&str] = &[
    "!/package.json",
    "!/readme",
    "!/readme.*[^~$]",
    "!/copying",
    "!/copying.*[^~$]",
    "!/license",
    "!/license.*[^~$]",
    "!/licence",
    "!/licence.*[^~$]",
    "/.git",
    "/node_modules",
    ".npmrc",
    "/package-lock.json",
    "/yarn.lock",
    "/pnpm-lock.yaml",
];

/// Removes from the tree at `root`, whose `package.json` is `manifest`, what a package of it would not have.
pub(super) fn keep_packed(root: &Path, manifest: &Value) -> Result<(), PathError> {
    let lists_files = manifest["files"].is_array();
    let mut packer = Packer {
        root,
        required: required(root, manifest),
        lists_files,
        levels: Vec::new(),
    };
    let mut rules = never();
    match lists_files {
        true => rules.extend(listed(root, manifest)),
        false => rules.extend(ignored(root)?),
    }
    rules.extend(AT_TOP.iter().map(|&rule| rule.to_owned()));
    packer.enter(root, &rules);
    packer.directory(Path::new(""))
}

/// The walk over a tree.
struct Packer<'a> {
    root: &'a Path,
    /// Files that the manifest names one by one.
    required: Vec<PathBuf>,
    /// Whether the rules of the top leave out all that they do not name.
    lists_files: bool,
    /// The rules of the directories above what is looked at, the top's first.
    levels: Vec<Gitignore>,
}

impl Packer<'_> {
    fn enter(&mut self, dir: &Path, rules: &[String]) {
        let mut builder = GitignoreBuilder::new(dir);
        let _ = builder.case_insensitive(true);
        for rule in rules {
            // What is no pattern leaves out nothing, as in npm.
            let _ = builder.add_line(None, rule);
        }
        self.levels.push(builder.build().unwrap_or_else(|_| Gitignore::empty()));
    }

    /// Goes through a directory, given relative to the root, whose rules were entered.
    fn directory(&mut self, dir: &Path) -> Result<(), PathError> {
        let physical = self.root.join(dir);
        for name in fsio::sorted_names(&physical)? {
            let place = dir.join(&name);
            let file = physical.join(&name);
            let metadata = fs::symlink_metadata(&file).context("read", &file)?;
            if metadata.is_dir() && self.is_entered(&place) {
                let mut rules = never();
                rules.extend(ignored(&file)?);
                self.enter(&file, &rules);
                let done = self.directory(&place);
                self.levels.pop();
                done?;
                if fsio::sorted_names(&file)?.is_empty() {
                    fs::remove_dir(&file).context("remove", &file)?;
                }
            } else if !(metadata.is_file() && self.is_packed(&place)) {
                fsio::remove_tree(&file)?;
            }
        }
        Ok(())
    }

    /// Whether something in a directory may be part of the package.
    fn is_entered(&self, place: &Path) -> bool {
        let is_on_the_way = self.required.iter().any(|file| file.starts_with(place));
        is_on_the_way || self.judge(place, true)
    }

    fn is_packed(&self, place: &Path) -> bool {
        self.required.iter().any(|file| file == place) || self.judge(place, false)
    }

    /// What the rules say, the top's first: what one directory leaves out none below it takes in.
    fn judge(&self, place: &Path, is_dir: bool) -> bool {
        let physical = self.root.join(place);
        self.levels.iter().enumerate().all(|(depth, level)| {
            let matched = level.matched_path_or_any_parents(&physical, is_dir);
            match matched {
                // Something below may be named where the directory itself is not.
                Match::Ignore(rule) => is_dir && depth == 0 && self.lists_files && rule.original() == "*",
                Match::None | Match::Whitelist(_) => true,
            }
        })
    }
}

fn never() -> Vec<String> {
    NEVER.iter().map(|&rule| rule.to_owned()).collect()
}

/// What a directory's own file leaves out: `.npmignore`, or else `.gitignore`.
fn ignored(dir: &Path) -> Result<Vec<String>, PathError> {
    for name in [".npmignore", ".gitignore"] {
        let file = dir.join(name);
        let Ok(metadata) = fs::symlink_metadata(&file) else {
            continue;
        };
        if metadata.is_file() && metadata.len() <= IGNORE_MAX {
            let bytes = fs::read(&file).context("read", &file)?;
            let text = String::from_utf8_lossy(&bytes);
            return Ok(text.lines().map(str::to_owned).collect());
        }
    }
    Ok(Vec::new())
}

/// The rules that leave out all but what `files` names.
fn listed(root: &Path, manifest: &Value) -> Vec<String> {
    let mut rules = vec!["*".to_owned()];
    for pattern in manifest["files"].as_array().into_iter().flatten() {
        let Some(pattern) = pattern.as_str() else { continue };
        let pattern = pattern
            .strip_prefix('.')
            .filter(|rest| rest.starts_with('/'))
            .unwrap_or(pattern);
        let pattern = pattern.trim_end_matches('/');
        let (taken, sign) = match pattern.strip_prefix('!') {
            Some(rest) => (rest, ""),
            None => (pattern, "!"),
        };
        let is_there = is_dir(&root.join(taken.trim_start_matches('/')));
        match is_there {
            true => rules.extend([format!("{sign}{taken}"), format!("{sign}{taken}/**")]),
            false if taken.ends_with("/*") => rules.push(format!("{sign}{taken}*")),
            false if !taken.is_empty() => rules.push(format!("{sign}{taken}")),
            false => {}
        }
    }
    rules
}

/// The files that the manifest names one by one: they are there whatever else is said.
fn required(root: &Path, manifest: &Value) -> Vec<PathBuf> {
    let text = |key: &str| manifest[key].as_str().into_iter();
    let bins = match &manifest["bin"] {
        Value::String(one) => vec![one.as_str()],
        Value::Object(named) => named.values().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let files = manifest["files"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let named = text("main").chain(text("browser")).chain(bins).chain(files);
    let normal = |path: &str| -> Option<PathBuf> {
        let mut parts = PathBuf::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => return None,
                part => parts.push(part),
            }
        }
        Some(parts)
    };
    let is_file = |path: &PathBuf| fs::symlink_metadata(root.join(path)).is_ok_and(|metadata| metadata.is_file());
    named.filter_map(normal).filter(is_file).collect()
}

fn is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(root: &Path, dir: &str, files: &mut Vec<String>) {
        for name in fsio::sorted_names(&root.join(dir)).unwrap() {
            let place = format!("{dir}{}", name.to_str().unwrap());
            match is_dir(&root.join(&place)) {
                true => list(root, &format!("{place}/"), files),
                false => files.push(place),
            }
        }
    }

    /// What is left of these files.
    fn packed(mut manifest: Value, files: &[&str]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        manifest["name"] = json!("x");
        for (path, text) in files
            .iter()
            .map(|file| file.split_once('=').unwrap_or((file, "")))
            .chain([("package.json", "")])
        {
            let file = dir.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text.replace(';', "\n")).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        keep_packed(dir.path(), &manifest).unwrap();
        let mut files = Vec::new();
        list(dir.path(), "", &mut files);
        files.retain(|file| file != "package.json");
        files
    }

    #[test]
    fn a_package_has_what_nobody_leaves_out() {
        let files = [
            ".gitignore=*.log;/dist;!keep.log",
            "index.js",
            "a.log",
            "keep.log",
            "dist/x.js",
            "lib/dist/y.js",
            "lib/.npmignore=*.ts",
            "lib/a.ts",
            "lib/a.js",
            "lib/.gitignore=*.js",
            ".npmrc",
            ".github/ci.yml",
            "package-lock.json",
            "sub/package-lock.json",
            "node_modules/z/index.js",
            "x.orig",
            "CVS/Root",
        ];
        assert_eq!(
            packed(json!({}), &files),
            [
                ".github/ci.yml",
                "index.js",
                "keep.log",
                "lib/a.js",
                "lib/dist/y.js",
                "sub/package-lock.json"
            ]
        );
    }

    #[test]
    fn a_package_that_lists_its_files_has_these() {
        let files = [
            ".gitignore=dist",
            "README.md",
            "LICENSE",
            "index.js",
            "test/a.js",
            "dist/a.js",
            "dist/deep/b.js",
            "src/a.mjs",
            "src/a.map",
            "bin/tool",
            "bin/other",
            "docs/x/one.md",
            "types.d.ts",
        ];
        let manifest = json!({
            "files": ["dist/", "./src/*.mjs", "docs/*", "!docs/x/two.md", "types.d.ts"],
            "main": "./index.js", "bin": { "tool": "bin/tool" }
        });
        assert_eq!(
            packed(manifest, &files),
            [
                "LICENSE",
                "README.md",
                "bin/tool",
                "dist/a.js",
                "dist/deep/b.js",
                "docs/x/one.md",
                "index.js",
                "src/a.mjs",
                "types.d.ts"
            ]
        );
    }
}
