//! The *tree* of a commit with those of its submodules, and its canonical archive.
//!
//! Invariant: the archive is a function of the commit and of what its submodules and pointers lead to; every name in it is
//! one that a file of a directory can have, and none is git's own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use super::objects::{EntryKind as Kind, ObjectReader};
use super::repository::Repository;
use super::submodules::{self, Submodules};
use super::{ENTRIES_MAX, GitError, SIZE_LIMIT, SIZE_MAX, lfs};
use crate::escape::shown_bytes;
use crate::fetch::{FetchConfig, FetchError};
use crate::fsio::IoContext;
use crate::nar::{self, Entry, EntryKind, NarEncoder};
use crate::spec::{GitAddress, GitCommit, GitTree, LfsPointers};

/// Most submodules that a tree may have.
const SUBMODULES_MAX: usize = 1000;

/// Most submodules that may lie in one another.
const DEPTH_MAX: usize = 20;

/// A node of a tree that is put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    /// An object of a repository, by its index.
    Object {
        repository: usize,
        object: String,
        kind: Kind,
    },
    /// A file of Git LFS.
    File {
        path: PathBuf,
        executable: bool,
    },
}

/// A tree that is put together.
pub(super) struct Tree<'a> {
    config: &'a FetchConfig,
    wanted: &'a GitTree,
    /// What was fetched; the commit's own first.
    pub repositories: Vec<Repository<'a>>,
    /// By path with zeros for slashes, which puts them in the order of the archive.
    pub nodes: BTreeMap<Vec<u8>, Node>,
    submodules: usize,
    /// The objects of the repositories' `.lfsconfig`, by the repositories' indices.
    lfs_configs: BTreeMap<usize, String>,
}

impl<'a> Tree<'a> {
    /// Fetches a commit and, where they are wanted, its submodules, and lists their files.
    pub(super) fn fetch(wanted: &'a GitTree, config: &'a FetchConfig) -> Result<Self, FetchError> {
        let mut tree = Self {
            config,
            wanted,
            repositories: Vec::new(),
            nodes: BTreeMap::new(),
            submodules: 0,
            lfs_configs: BTreeMap::new(),
        };
        tree.add(&wanted.address, &wanted.commit, &[], 0)?;
        match tree.nodes.is_empty() {
            false => Ok(tree),
            true => Err(GitError::Empty {
                repository: wanted.address.to_string(),
                commit: wanted.commit.to_string(),
            }
            .into()),
        }
    }

    /// Adds the tree of a commit below `prefix`, which is empty or ends in a zero.
    fn add(&mut self, address: &GitAddress, commit: &GitCommit, prefix: &[u8], depth: usize) -> Result<(), FetchError> {
        let index = self.repositories.len();
        self.repositories
            .push(Repository::fetch(address.clone(), commit, self.config)?);
        let limit = ENTRIES_MAX.saturating_sub(self.nodes.len());
        let entries = self.repositories[index].list(commit, limit)?;
        let has_submodules = entries.iter().any(|entry| entry.kind == Kind::Submodule);
        let submodules = match has_submodules && self.wanted.submodules {
            true => Some(Submodules::read(&self.repositories[index], &entries)?),
            false => None,
        };
        let lfs_config = entries.iter().find(|entry| entry.path == b".lfsconfig");
        self.lfs_configs
            .extend(lfs_config.map(|entry| (index, entry.object.clone())));
        for entry in entries {
            let refused = |reason: &str| self.repositories[index].entry_error(commit, &entry.path, reason);
            check_path(&entry.path).map_err(refused)?;
            let mut place = prefix.to_vec();
            place.extend(entry.path.iter().map(|&byte| if byte == b'/' { 0 } else { byte }));
            check_length(&place).map_err(refused)?;
            let node = match entry.kind {
                Kind::Submodule => Node::Directory,
                kind => Node::Object {
                    repository: index,
                    object: entry.object.clone(),
                    kind,
                },
            };
            if !insert(&mut self.nodes, &place, node) {
                return Err(self.repositories[index].entry_error(commit, &entry.path, "two entries have this name"));
            }
            if entry.kind != Kind::Submodule {
                continue;
            }
            let (Some(submodules), Some(object)) = (&submodules, GitCommit::parse(&entry.object)) else {
                continue;
            };
            let parent = &self.repositories[index];
            let address = submodules.address(parent, &entry.path)?;
            self.submodules += 1;
            if depth == DEPTH_MAX || self.submodules > SUBMODULES_MAX {
                let reason = "there are too many submodules, or too many in one another";
                return Err(submodules::error(parent, &entry.path, reason).into());
            }
            place.push(0);
            self.add(&address, &object, &place, depth + 1)?;
        }
        Ok(())
    }

    /// Puts the files of Git LFS in place of their pointers.
    pub(super) fn resolve_pointers(&mut self, storage: &lfs::Storage<'_>) -> Result<(), FetchError> {
        for index in 0..self.repositories.len() {
            let pointers = self.pointers(index)?;
            if pointers.is_empty() {
                continue;
            }
            let repository = &self.repositories[index];
            let server = match self.lfs_configs.get(&index) {
                Some(config) => lfs::server_of(repository, config)?,
                None => None,
            };
            let found = storage.bring(repository, &pointers, server.as_deref())?;
            for (place, pointer) in pointers {
                let (Some(node), Some(file)) = (self.nodes.get_mut(&place), found.get(&pointer.digest)) else {
                    continue;
                };
                let executable = matches!(
                    node,
                    Node::Object {
                        kind: Kind::File { executable: true },
                        ..
                    }
                );
                let path = file.clone();
                *node = Node::File { path, executable };
            }
        }
        Ok(())
    }

    /// The pointers among a repository's files, by their places.
    fn pointers(&self, index: usize) -> Result<BTreeMap<Vec<u8>, lfs::Pointer>, FetchError> {
        let repository = &self.repositories[index];
        let files: Vec<(&Vec<u8>, &str)> = (self.nodes.iter())
            .filter_map(|(place, node)| match node {
                Node::Object {
                    repository,
                    object,
                    kind: Kind::File { .. },
                } if *repository == index => Some((place, object.as_str())),
                _ => None,
            })
            .collect();
        let sizes = repository.sizes(files.iter().map(|(_, object)| *object))?;
        let small: Vec<(&Vec<u8>, &str)> = (files.into_iter().zip(sizes))
            .filter_map(|(file, size)| (size < lfs::POINTER_MAX).then_some(file))
            .collect();
        let mut reader = repository.read(small.iter().map(|(_, object)| *object))?;
        let mut pointers = BTreeMap::new();
        for (place, object) in small {
            let mut bytes = Vec::new();
            let read = reader
                .next(object)
                .and_then(|(_, mut content)| content.read_to_end(&mut bytes));
            read.map_err(|error| repository.damaged(error.to_string()))?;
            if let Some(pointer) = lfs::Pointer::parse(&bytes) {
                pointers.insert(place.clone(), pointer);
            }
        }
        repository.finish(reader.into_output())?;
        Ok(pointers)
    }

    /// Writes the archive.
    pub(super) fn write(&self, sink: &mut dyn Write) -> Result<(), FetchError> {
        let mut readers = self.readers()?;
        let mut encoder = NarEncoder::new(sink)?;
        encoder.entry(&entry(b"", EntryKind::Directory), &mut io::empty())?;
        let (mut total, mut pointers) = (0u64, Vec::new());
        for (place, node) in &self.nodes {
            let path: Vec<u8> = place.iter().map(|&byte| if byte == 0 { b'/' } else { byte }).collect();
            let (repository, object, kind) = match node {
                Node::Directory => {
                    encoder.entry(&entry(&path, EntryKind::Directory), &mut io::empty())?;
                    continue;
                }
                Node::File { path: file, executable } => {
                    let mut content = File::open(file).context("open", file)?;
                    let size = content.metadata().context("read", file)?.len();
                    self.count(&mut total, size)?;
                    let executable = *executable;
                    encoder.entry(&entry(&path, EntryKind::File { executable, size }), &mut content)?;
                    continue;
                }
                Node::Object {
                    repository,
                    object,
                    kind,
                } => (*repository, object, *kind),
            };
            let damaged = |error: io::Error| self.repositories[repository].damaged(error.to_string());
            let (size, mut content) = readers[repository].next(object).map_err(damaged)?;
            self.count(&mut total, size)?;
            let Kind::File { executable } = kind else {
                let mut target = Vec::new();
                content
                    .by_ref()
                    .take(nar::MAX_TARGET as u64 + 1)
                    .read_to_end(&mut target)
                    .map_err(damaged)?;
                self.check_target(&path, &target)?;
                encoder.entry(&entry(&path, EntryKind::Symlink { target }), &mut io::empty())?;
                continue;
            };
            let entry = entry(&path, EntryKind::File { executable, size });
            if size >= lfs::POINTER_MAX {
                encoder.entry(&entry, &mut content)?;
                continue;
            }
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).map_err(damaged)?;
            if self.wanted.lfs == LfsPointers::Refused && lfs::Pointer::parse(&bytes).is_some() {
                pointers.push(shown_bytes(&path));
            }
            encoder.entry(&entry, &mut bytes.as_slice())?;
        }
        encoder.finish()?;
        for (reader, repository) in readers.into_iter().zip(&self.repositories) {
            repository.finish(reader.into_output())?;
        }
        match pointers.is_empty() {
            true => Ok(()),
            false => Err(GitError::Pointers {
                repository: self.wanted.address.to_string(),
                commit: self.wanted.commit.short().to_owned(),
                files: pointers,
            }
            .into()),
        }
    }

    /// Opens the objects of each repository in the order in which they are written.
    fn readers(&self) -> Result<Vec<ObjectReader>, FetchError> {
        let of = |(index, repository): (usize, &Repository<'a>)| {
            let objects = self.nodes.values().filter_map(|node| match node {
                Node::Object { repository, object, .. } if *repository == index => Some(object.as_str()),
                _ => None,
            });
            repository.read(objects)
        };
        self.repositories.iter().enumerate().map(of).collect()
    }

    fn count(&self, total: &mut u64, size: u64) -> Result<(), FetchError> {
        *total = total.saturating_add(size);
        match *total > SIZE_MAX {
            false => Ok(()),
            true => Err(GitError::TooLarge {
                repository: self.wanted.address.to_string(),
                limit: SIZE_LIMIT.to_owned(),
            }
            .into()),
        }
    }

    fn check_target(&self, path: &[u8], target: &[u8]) -> Result<(), FetchError> {
        if !target.is_empty() && !target.contains(&0) && target.len() <= nar::MAX_TARGET {
            return Ok(());
        }
        let reason = "no symlink can have such a target";
        Err(self.repositories[0].entry_error(&self.wanted.commit, path, reason))
    }
}

fn entry(path: &[u8], kind: EntryKind) -> Entry {
    let path = path.to_vec();
    Entry { path, kind }
}

/// Adds a node and the directories above it; whether nothing else is there.
fn insert(nodes: &mut BTreeMap<Vec<u8>, Node>, place: &[u8], node: Node) -> bool {
    for (at, _) in place.iter().enumerate().filter(|(_, byte)| **byte == 0) {
        match nodes.get(&place[..at]) {
            Some(Node::Directory) => {}
            Some(_) => return false,
            None => drop(nodes.insert(place[..at].to_vec(), Node::Directory)),
        }
    }
    nodes.insert(place.to_vec(), node).is_none()
}

/// Whether a path of a tree is one that a file below a directory can have, and none of git's own.
fn check_path(path: &[u8]) -> Result<(), &'static str> {
    path.split(|&byte| byte == b'/').try_for_each(|name| match name {
        b"" | b"." | b".." => Err("no file can have such a name"),
        _ if name.eq_ignore_ascii_case(b".git") => Err("`.git` is git's own"),
        _ if name.iter().any(u8::is_ascii_control) => Err("its name holds a control character"),
        _ if name.len() > nar::MAX_NAME => Err("its name is longer than the system takes"),
        _ => Ok(()),
    })
}

fn check_length(place: &[u8]) -> Result<(), &'static str> {
    let depth = place.iter().filter(|&&byte| byte == 0).count();
    match place.len() > nar::MAX_PATH || depth >= nar::MAX_DEPTH {
        true => Err("its path is longer than the system takes"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_tree_may_hold_are_refused() {
        for bad in [
            "",
            "..",
            "a/../b",
            ".git",
            "a/.GIT/config",
            "a//b",
            "./a",
            "a\nb",
            "a\u{1b}[m",
            "a\u{7f}",
        ] {
            assert!(check_path(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(check_path(&vec![b'a'; 256]).is_err());
        for good in ["a", "a/b", ".gitignore", ".github/x", "...", "ä b", "a\\b", "-x"] {
            assert!(check_path(good.as_bytes()).is_ok(), "{good:?}");
        }
        assert!(check_path(b"\xff").is_ok(), "what is not UTF-8 is a name");
    }

    #[test]
    fn a_name_is_that_of_one_node() {
        let file = || Node::File {
            path: PathBuf::new(),
            executable: false,
        };
        let mut nodes = BTreeMap::new();
        assert!(insert(&mut nodes, b"a\0b\0c", file()));
        assert!(insert(&mut nodes, b"a\0b-", file()));
        for (place, why) in [
            (&b"a\0b\0c"[..], "twice"),
            (b"a\0b", "over a directory"),
            (b"a\0b\0c\0d", "below a file"),
        ] {
            assert!(!insert(&mut nodes.clone(), place, file()), "{why}");
        }
        let order: Vec<&[u8]> = nodes.keys().map(Vec::as_slice).collect();
        assert_eq!(
            order,
            [&b"a"[..], b"a\0b", b"a\0b\0c", b"a\0b-"],
            "what is in a directory follows it"
        );
    }
}
