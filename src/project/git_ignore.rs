//! What *git would take* of what layerize writes: archives of images and private keys have no place in a repository.
//!
//! Invariant: git is asked, and only `.gitignore` files change; where there is no repository, or no git, there is nothing to
//! keep out of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::child;
use crate::fsio::{self, PathError};

/// The file's name.
pub(super) const IGNORE_NAME: &str = ".gitignore";

/// Largest one that is read, in bytes.
const IGNORE_BYTES_MAX: u64 = 1 << 20;

/// Whether `git add -A` would take a file.
pub fn would_take(file: &Path) -> bool {
    let (Some(dir), Some(name)) = (file.parent(), file.file_name()) else {
        return false;
    };
    if !dir.ancestors().any(|dir| dir.join(".git").exists()) {
        return false;
    }
    let mut git = Command::new("git");
    git.arg("-C").arg(dir).args(["check-ignore", "--quiet", "--"]).arg(name);
    git.stdin(Stdio::null());
    // git-check-ignore(1): 0 is ignored, 1 is not, 128 is a fault, of which git itself will speak.
    child::output(&mut git).is_ok_and(|output| output.status.code() == Some(1))
}

/// Has git leave a file alone that it would take, by a line in the `.gitignore` beside it; gives that file where it was
/// written.
pub fn keep_out(file: &Path) -> Result<Option<PathBuf>, PathError> {
    let Some(name) = file.file_name().filter(|_| would_take(file)) else {
        return Ok(None);
    };
    let ignore = file.with_file_name(IGNORE_NAME);
    let line = format!("/{}", pattern(&name.to_string_lossy()));
    match with_lines(&read(&ignore)?, &[line]) {
        Some(text) => {
            fsio::write_output(&ignore, text.as_bytes())?;
            Ok(Some(ignore))
        }
        None => Ok(None),
    }
}

/// The text of a `.gitignore`; empty where there is none.
pub(super) fn read(ignore: &Path) -> Result<String, PathError> {
    match ignore.exists() {
        true => Ok(String::from_utf8_lossy(&fsio::read_limited(ignore, IGNORE_BYTES_MAX)?).into_owned()),
        false => Ok(String::new()),
    }
}

/// The text with the lines that it lacks at its end; `None` where it has all.
pub(super) fn with_lines(text: &str, lines: &[String]) -> Option<String> {
    let has = |line: &&String| text.lines().any(|known| known.trim() == *line);
    let lacking: Vec<&String> = lines.iter().filter(|line| !has(line)).collect();
    if lacking.is_empty() {
        return None;
    }
    let mut text = text.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for line in lacking {
        text.push_str(line);
        text.push('\n');
    }
    Some(text)
}

/// The pattern of gitignore(5) for a name.
fn pattern(name: &str) -> String {
    let mut pattern = String::new();
    for c in name.chars() {
        match c {
            // No line can hold them.
            '\n' | '\r' | char::REPLACEMENT_CHARACTER => pattern.push('*'),
            '*' | '?' | '[' | '\\' | ' ' => pattern.extend(['\\', c]),
            c => pattern.push(c),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_added_once() {
        let lines = ["/a.tar".to_owned(), "/b.tar".to_owned()];
        assert_eq!(with_lines("", &lines).unwrap(), "/a.tar\n/b.tar\n");
        assert_eq!(with_lines("x\n /b.tar", &lines).unwrap(), "x\n /b.tar\n/a.tar\n");
        assert_eq!(with_lines("/b.tar\r\n/a.tar\n", &lines), None);
    }

    /// git itself is the judge, of names that mean something in its patterns too.
    #[test]
    fn git_takes_nothing_that_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let git = |args: &[&str]| {
            let output = Command::new("git")
                .arg("-C")
                .arg(dir.path())
                .args(args)
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let names = ["plain.key", "a b ", "[x]*?", "#c", "!d", "back\\slash", "new\nline"];
        std::fs::create_dir(dir.path().join("below")).unwrap();
        for name in names {
            std::fs::write(dir.path().join("below").join(name), "").unwrap();
            assert!(
                !would_take(&dir.path().join("below").join(name)),
                "there is no repository"
            );
        }
        git(&["init", "--quiet"]);
        for name in names {
            let file = dir.path().join("below").join(name);
            assert!(would_take(&file), "{name:?}");
            assert_eq!(keep_out(&file).unwrap().unwrap(), dir.path().join("below/.gitignore"));
            assert!(!would_take(&file), "{name:?}");
            assert_eq!(keep_out(&file).unwrap(), None);
        }
        git(&["add", "-A"]);
        assert_eq!(git(&["ls-files"]), "below/.gitignore\n");
    }
}
