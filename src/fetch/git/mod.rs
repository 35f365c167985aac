//! *Repositories*: the tree of a commit as a file, its canonical archive, made on this machine and pinned by its hash.
//!
//! Invariant: what is made depends on the commit alone (its raw files, neither checked out nor archived by git, which would
//! let attributes and branches change them) and on what its submodules and pointers lead to; the hash covers it all. The
//! archive is a download like others: it is in the cache by its hash, kept beside images and asked for of any place, and no
//! git is needed where it is there.
//!
//! From below: `command` (the machine's git, walled off), `repository` (where what is fetched lies), `objects` (what is in
//! it), `submodules`, `lfs_server`, `lfs`, `tree` (all of it put together), `reference` (what a tag or branch means), `pin` (the lock).

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::cache::{Cache, Labels};
use super::{FetchConfig, FetchError, UnpackError};
use crate::digest::Digest;
use crate::event::{Event, Reporter};
use crate::fsio::IoContext;
use crate::nar;
use crate::spec::{GitTree, LfsPointers};

mod command;
mod error;
mod lfs;
mod lfs_server;
mod objects;
mod pin;
mod reference;
mod repository;
mod submodules;
mod tree;

pub use error::GitError;
pub use pin::pin_commits;
pub(super) use pin::resolve;
pub use repository::{remove_repository, stored_repositories};

use tree::Tree;

/// Most bytes of a tree, and of a file that git writes.
const SIZE_MAX: u64 = 64 << 30;

/// The same for people.
const SIZE_LIMIT: &str = "64 GiB";

/// Most entries of a tree.
const ENTRIES_MAX: usize = 2_000_000;

/// A tree's archive in the download cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Archived {
    pub path: PathBuf,
    /// Digest and size in bytes of the archive.
    pub digest: Digest,
    pub size: u64,
}

/// Fetches a tree and makes its archive in the cache, `expected` where that is known; the caller holds its lock. `name` is
/// what the user calls it.
pub(super) fn archive(
    tree: &GitTree,
    name: &str,
    expected: Option<Digest>,
    cache: &Cache,
    config: &FetchConfig,
    reporter: &dyn Reporter,
) -> Result<Archived, FetchError> {
    let origin = tree.address.to_string();
    let labels = Labels { name, origin: &origin };
    reporter.report(Event::FetchStarted {
        name: name.to_owned(),
        size: None,
    });
    let make = || {
        let mut fetched = Tree::fetch(tree, config)?;
        if tree.lfs == LfsPointers::Resolved {
            let storage = lfs::Storage { cache, reporter };
            fetched.resolve_pointers(&storage)?;
        }
        cache.insert_made(expected.as_ref(), &mut |sink| fetched.write(sink), labels, reporter)
    };
    let made = match make() {
        // What was fetched before may have been damaged since: it is fetched anew, once.
        Err(FetchError::Git(error)) if matches!(*error, GitError::Damaged { .. }) => make(),
        made => made,
    };
    let (path, digest, size) = made?;
    match expected {
        Some(expected) if expected != digest => Err(other_tree(tree, expected, digest)),
        _ => Ok(Archived { path, digest, size }),
    }
}

/// Restores the tree of an archive to `dest`, which must not exist.
pub fn restore_archive(file: &Path, name: &str, dest: &Path) -> Result<(), FetchError> {
    let mut archive = BufReader::with_capacity(1 << 17, File::open(file).context("open", file)?);
    nar::restore(&mut archive, dest)?;
    let is_tree = fs::symlink_metadata(dest).context("read", dest)?.is_dir();
    let ends = archive.fill_buf().context("read", file)?.is_empty();
    match is_tree && ends {
        true => Ok(()),
        false => Err(FetchError::Unpack {
            name: name.to_owned(),
            source: Box::new(UnpackError::malformed(
                "it is not the archive of a directory".to_owned(),
            )),
        }),
    }
}

/// Whether a repository has the commit of a tree, as far as it can be told without fetching it: another commit may lead to
/// it than those that tags and branches name.
pub(super) fn has(tree: &GitTree, config: &FetchConfig) -> Result<bool, FetchError> {
    reference::names(&tree.address, &tree.commit, config)
}

fn other_tree(tree: &GitTree, expected: Digest, actual: Digest) -> FetchError {
    GitError::OtherTree {
        repository: tree.address.to_string(),
        commit: tree.commit.to_string(),
        expected,
        actual,
    }
    .into()
}
