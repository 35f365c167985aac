//! Two *trees* compared: which files differ, in what class, and what the difference looks like.
//!
//! Invariant: contents are read in pieces; only texts of at most 64 KiB are held in memory; what is guessed about a
//! difference is called a hint.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use object::{Object, ObjectSection};
use serde::Serialize;

use super::AuditError;
use super::facts::shown;
use crate::fsio::{IoContext, PathError, sorted_names};

/// Largest text of which lines are shown, in bytes, and most characters of them.
const TEXT_MAX: u64 = 64 << 10;
const SHOWN_MAX: usize = 4000;

/// Largest program of which the section is named, in bytes.
const ELF_MAX: u64 = 256 << 20;

/// A file that is not the same in both trees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TreeChange {
    /// Its path below the trees; empty where they are single files.
    pub path: String,
    /// In what it differs.
    pub class: TreeClass,
    /// The first tree's side, for people.
    pub a: String,
    /// The second's.
    pub b: String,
    /// What the difference probably comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The lines of small texts that differ, as a unified diff.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// In what a file differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TreeClass {
    /// Only the second tree has it.
    Added,
    /// Only the first tree has it.
    Removed,
    /// It is of another kind: file, directory, symlink.
    Type,
    /// Whether it can be executed.
    Mode,
    /// A symlink's target.
    Link,
    /// What is in it.
    Content,
}

/// All that differs between two trees (or files), sorted by path.
pub fn compare_trees(a: &Path, b: &Path) -> Result<Vec<TreeChange>, AuditError> {
    let mut changes = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(below) = pending.pop() {
        let (x, y) = (at(a, &below), at(b, &below));
        let kinds = (read_metadata(&x)?, read_metadata(&y)?);
        if kinds.0.is_dir() && kinds.1.is_dir() {
            let (in_a, in_b) = (sorted_names(&x)?, sorted_names(&y)?);
            let all: BTreeSet<_> = in_a.iter().chain(&in_b).collect();
            for name in all {
                let path = below.join(name);
                match (in_a.contains(name), in_b.contains(name)) {
                    (true, true) => pending.push(path),
                    (true, false) => changes.push(lone(TreeClass::Removed, &path, &at(a, &path))?),
                    _ => changes.push(lone(TreeClass::Added, &path, &at(b, &path))?),
                }
            }
        } else {
            changes.extend(compare(&below, &x, &y, &kinds)?);
        }
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

/// `root` itself for the empty path: joined, it would get a slash.
fn at(root: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() {
        root.to_owned()
    } else {
        root.join(below)
    }
}

fn read_metadata(path: &Path) -> Result<Metadata, PathError> {
    fs::symlink_metadata(path).context("read", path)
}

fn kind(metadata: &Metadata) -> &'static str {
    match metadata.file_type() {
        kind if kind.is_dir() => "directory",
        kind if kind.is_symlink() => "symlink",
        _ => "file",
    }
}

fn change(path: &Path, class: TreeClass, a: impl Into<String>, b: impl Into<String>) -> TreeChange {
    TreeChange {
        path: shown(path.as_os_str().as_bytes()).trim_start_matches('/').to_owned(),
        class,
        a: a.into(),
        b: b.into(),
        hint: None,
        text: None,
    }
}

fn lone(class: TreeClass, path: &Path, file: &Path) -> Result<TreeChange, PathError> {
    let what = kind(&read_metadata(file)?).to_owned();
    Ok(match class {
        TreeClass::Added => change(path, class, "nothing", what),
        _ => change(path, class, what, "nothing"),
    })
}

fn compare(below: &Path, x: &Path, y: &Path, kinds: &(Metadata, Metadata)) -> Result<Vec<TreeChange>, PathError> {
    let (kind_a, kind_b) = (kind(&kinds.0), kind(&kinds.1));
    if kind_a != kind_b {
        return Ok(vec![change(below, TreeClass::Type, kind_a, kind_b)]);
    }
    if kind_a == "symlink" {
        let target = |path: &Path| -> Result<String, PathError> {
            let target = fs::read_link(path).context("read the link", path)?;
            Ok(shown(target.as_os_str().as_bytes()))
        };
        let (p, q) = (target(x)?, target(y)?);
        return Ok((p != q)
            .then(|| change(below, TreeClass::Link, p, q))
            .into_iter()
            .collect());
    }
    let mut changes = Vec::new();
    let executable = |metadata: &Metadata| metadata.permissions().mode() & 0o100 != 0;
    let modes = (executable(&kinds.0), executable(&kinds.1));
    if modes.0 != modes.1 {
        let text = |executable| if executable { "executable" } else { "not executable" };
        changes.push(change(below, TreeClass::Mode, text(modes.0), text(modes.1)));
    }
    changes.extend(contents(below, x, y, (kinds.0.len(), kinds.1.len()))?);
    Ok(changes)
}

fn contents(below: &Path, x: &Path, y: &Path, sizes: (u64, u64)) -> Result<Option<TreeChange>, PathError> {
    let Some(offset) = first_difference(x, y)? else {
        return Ok(None);
    };
    let side = |size: u64| format!("{size} bytes, differing from byte {offset}");
    let mut found = change(below, TreeClass::Content, side(sizes.0), side(sizes.1));
    match (text(x, sizes.0)?, text(y, sizes.1)?) {
        (Some(p), Some(q)) => {
            found.hint = text_hint(&p, &q).map(str::to_owned);
            let diff = similar::TextDiff::from_lines(&p, &q);
            let shown = diff.unified_diff().context_radius(1).to_string();
            found.text = Some(shown.chars().take(SHOWN_MAX).collect());
        }
        _ => found.hint = binary_hint(x, offset, sizes.0)?,
    }
    Ok(Some(found))
}

/// The first byte in which two files differ; the end of the shorter one where it is the other's beginning.
fn first_difference(x: &Path, y: &Path) -> Result<Option<u64>, PathError> {
    let open = |path: &Path| -> Result<_, PathError> {
        Ok(BufReader::with_capacity(
            128 << 10,
            File::open(path).context("open", path)?,
        ))
    };
    let (mut p, mut q, mut offset) = (open(x)?, open(y)?, 0);
    loop {
        let (left, right) = (p.fill_buf().context("read", x)?, q.fill_buf().context("read", y)?);
        let both = left.len().min(right.len());
        if left[..both] != right[..both] {
            let same = left.iter().zip(right).take_while(|(a, b)| a == b).count();
            return Ok(Some(offset + same as u64));
        }
        if both == 0 {
            return Ok((left.len() != right.len()).then_some(offset));
        }
        p.consume(both);
        q.consume(both);
        offset += both as u64;
    }
}

fn text(path: &Path, size: u64) -> Result<Option<String>, PathError> {
    if size > TEXT_MAX {
        return Ok(None);
    }
    let bytes = fs::read(path).context("read", path)?;
    Ok(String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')))
}

/// What two texts have in common that differ.
fn text_hint(a: &str, b: &str) -> Option<&'static str> {
    let sorted = |mut parts: Vec<String>| {
        parts.sort();
        parts
    };
    let lines = |text: &str| sorted(text.lines().map(str::to_owned).collect());
    let words = |text: &str| {
        let words = text
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty());
        sorted(words.map(str::to_owned).collect())
    };
    let without_digits = |text: &str| -> String {
        let mut plain = String::new();
        for character in text.chars() {
            match character.is_ascii_digit() {
                true if plain.ends_with('0') => {}
                true => plain.push('0'),
                false => plain.push(character),
            }
        }
        plain
    };
    if lines(a) == lines(b) {
        return Some("the same lines in another order: the order of a directory, of a hash table, or of parallel jobs");
    }
    if words(a) == words(b) {
        return Some("the same words in another order: the order of a directory, of a hash table, or of parallel jobs");
    }
    if without_digits(a) == without_digits(b) {
        return Some("only numbers differ: a time, a count of processors, an address, a process ID or a random number");
    }
    None
}

/// Where in a file of a known form the first difference is.
fn binary_hint(path: &Path, offset: u64, size: u64) -> Result<Option<String>, PathError> {
    let mut file = File::open(path).context("open", path)?;
    let mut head = Vec::new();
    (&mut file).take(8).read_to_end(&mut head).context("read", path)?;
    if head.starts_with(b"\x7fELF") && size <= ELF_MAX {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).context("read", path)?;
        file.read_to_end(&mut bytes).context("read", path)?;
        return Ok(section(&bytes, offset).map(|name| format!("the first difference is in section `{name}`")));
    }
    let text = match head.as_slice() {
        [0x1f, 0x8b, ..] if (4..8).contains(&offset) => "the time in a gzip header: `gzip -n` leaves it out",
        [0x1f, 0x8b, ..] => "in a gzip stream: what was compressed differs, or how",
        [b'P', b'K', 3, 4, ..] => "in a zip archive: entries have times and an order",
        b"!<arch>\n" => "in an `ar` archive: `ar D` leaves times and owners out",
        [_, _, 0x0d, 0x0a, ..] if offset < 16 => "the source's time in a Python cache file",
        _ => return Ok(None),
    };
    Ok(Some(text.to_owned()))
}

/// The section of an ELF file that holds a byte.
fn section(bytes: &[u8], offset: u64) -> Option<String> {
    let file = object::File::parse(bytes).ok()?;
    let holds = |section: &object::Section<'_, '_>| {
        let range = section.file_range();
        range.is_some_and(|(start, size)| (start..start.saturating_add(size)).contains(&offset))
    };
    let found = file.sections().find(holds)?;
    Some(found.name().ok()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn each_class_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for (root, side) in [(&a, 0), (&b, 1)] {
            fs::create_dir_all(root.join("d")).unwrap();
            fs::write(root.join("same"), "same").unwrap();
            fs::write(root.join("d/time"), ["at 12:01\n", "at 12:02\n"][side]).unwrap();
            fs::write(root.join("order"), ["a\nb\n", "b\na\n"][side]).unwrap();
            fs::write(root.join("words"), ["{x, y}", "{y, x}"][side]).unwrap();
            fs::write(
                root.join("gz"),
                [b"\x1f\x8b\x08\x00\x01\x00", b"\x1f\x8b\x08\x00\x02\x00"][side],
            )
            .unwrap();
            fs::write(root.join("longer"), ["\0", "\0\0"][side]).unwrap();
            symlink(["x", "y"][side], root.join("link")).unwrap();
            fs::write(root.join(["only-a", "only-b"][side]), "").unwrap();
            fs::write(root.join("mode"), "").unwrap();
            fs::set_permissions(root.join("mode"), fs::Permissions::from_mode([0o444, 0o555][side])).unwrap();
        }
        fs::create_dir(a.join("kind")).unwrap();
        fs::write(b.join("kind"), "").unwrap();
        let changes = compare_trees(&a, &b).unwrap();
        let told: Vec<(&str, TreeClass, Option<&str>)> = changes
            .iter()
            .map(|change| {
                let hint = change.hint.as_deref().and_then(|hint| hint.split(':').next());
                (change.path.as_str(), change.class, hint)
            })
            .collect();
        use TreeClass::*;
        assert_eq!(
            told,
            [
                ("d/time", Content, Some("only numbers differ")),
                ("gz", Content, Some("the time in a gzip header")),
                ("kind", Type, None),
                ("link", Link, None),
                ("longer", Content, None),
                ("mode", Mode, None),
                ("only-a", Removed, None),
                ("only-b", Added, None),
                ("order", Content, Some("the same lines in another order")),
                ("words", Content, Some("the same words in another order")),
            ]
        );
        assert!(changes[0].text.as_ref().unwrap().contains("-at 12:01\n+at 12:02\n"));
        assert_eq!(changes[4].a, "1 bytes, differing from byte 1");
        let single = compare_trees(&a.join("order"), &b.join("order")).unwrap();
        assert_eq!((single.len(), single[0].path.as_str()), (1, ""));
    }
}
