//! The *trees of commits* in a lock: `[[git]]` of packages, `[[commit]]` of what lock files of languages name.
//!
//! Invariant: a reference that is a commit is pinned to that commit and no other.

use crate::spec::checks::{self, Check};
use crate::spec::diagnostics::Diagnostic;
use crate::spec::git::{GitCommit, GitRef, GitWanted};
use crate::spec::keys::Shape::{Flag, Text};
use crate::spec::keys::{Key, key, required};
use crate::spec::reader::{Field, Reader};
use crate::spec::{LockedGit, LockedTree, PackageName};

use super::parse::{FILE_SIZE_MAX, SIZE, open, qualified_name, refuse};

/// An entry's keys.
pub(super) const GIT: &[Key] = &[
    required(key("package", Text, "Qualified name.")),
    required(key(
        "ref",
        Text,
        "What names the commit: itself, `HEAD`, or the name of a tag or branch.",
    )),
    required(key("submodules", Flag, "Whether submodules are part of the tree.")),
    required(key(
        "lfs",
        Flag,
        "Whether files of Git LFS stand in place of their pointers.",
    )),
    required(key("commit", Text, "The commit, 40 or 64 hexadecimal digits.")),
    SIZE,
    required(key(
        "nar-sha256",
        Text,
        "Digest of the tree's archive, 64 hexadecimal digits.",
    )),
];

/// The keys of a tree that a language's lock file names.
pub(super) const COMMIT: &[Key] = &[
    required(key("commit", Text, "The commit, 40 or 64 hexadecimal digits.")),
    SIZE,
    required(key(
        "nar-sha256",
        Text,
        "Digest of the tree's archive, 64 hexadecimal digits.",
    )),
];

pub(super) fn read_commit(reader: &mut Reader<'_>, entry: &Field<'_>) -> Option<(GitCommit, LockedTree)> {
    let table = open(reader, entry, COMMIT)?;
    let commit = table.checked(reader, "commit", commit);
    let size = reader.integer(&table.get("size")?, 0, FILE_SIZE_MAX);
    let nar_hash = table.checked(reader, "nar-sha256", checks::sha256);
    let tree = LockedTree {
        size: u64::try_from(size?).ok()?,
        nar_hash: nar_hash?.value,
    };
    Some((commit?.value, tree))
}

fn commit(text: &str) -> Check<GitCommit> {
    match GitCommit::parse(text) {
        Some(commit) => Ok(commit),
        None => refuse("a commit has 40 or 64 hexadecimal digits in lower case"),
    }
}

pub(super) fn read(reader: &mut Reader<'_>, entry: &Field<'_>) -> Option<(PackageName, LockedGit)> {
    let table = open(reader, entry, GIT)?;
    let package = table.checked(reader, "package", qualified_name);
    let reference = table.checked(reader, "ref", GitRef::parse);
    let submodules = table.flag(reader, "submodules");
    let lfs = table.flag(reader, "lfs");
    let commit = table.checked(reader, "commit", commit);
    let size = reader.integer(&table.get("size")?, 0, FILE_SIZE_MAX);
    let nar_hash = table.checked(reader, "nar-sha256", checks::sha256);
    let (reference, commit) = (reference?.value, commit?);
    if let GitRef::Commit(named) = &reference
        && *named != commit.value
    {
        let diagnostic = Diagnostic::new(format!("{} has two commits", table.what))
            .at(commit.span, format!("`ref` is {}", named.short()))
            .help("run `layerize lock` to regenerate it");
        reader.error(diagnostic);
        return None;
    }
    let wanted = GitWanted {
        reference,
        submodules: submodules?,
        lfs: lfs?,
    };
    Some((
        package?.value,
        LockedGit {
            wanted,
            commit: commit.value,
            size: u64::try_from(size?).ok()?,
            nar_hash: nar_hash?.value,
        },
    ))
}
