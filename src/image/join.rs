//! A *join* shows the contents of an image under `/`, by symlinks to their store paths.
//!
//! Invariant: the result depends on the contents' trees and their order alone, and each path below a content is
//! reachable at the same path below `/`. The rules:
//!
//! - Everything in a content is joined except `nix-support` at its top (notes of Nix's builds) and Debian packages'
//!   records of alternatives (the links that they ask for are made).
//! - A directory that one content alone brings is one symlink to it. It is a real directory, its entries joined one by
//!   one, where several contents bring it, where the image has it for another reason, at the top level, and below
//!   `etc`, `dev`, `proc`, `sys`, `run`, `tmp` and `var`, where containers and their users add files.
//! - Over a base every directory is a real one: one symlink could hide a whole directory of the base.
//! - A file or symlink is one symlink to it. A content's own symlinks are not followed (the link leads to the link), so
//!   that dangling and absolute ones keep their meaning; only where a symlink to a directory meets a directory do the two
//!   merge, as in Nix's `buildEnv`.
//! - Where any content has `usr/bin`, `bin` is a symlink to it and both merge there (likewise `lib`, `sbin`, …), as in
//!   Debian's merged `/usr`.
//! - Two contents (or a content and a package of `root`) may bring the same path if both lead to the same file, or to
//!   files of the same bytes and executable bit; the first wins. All other collisions are reported together.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::{Collision, ImageError};
use super::filesystem::{Content, FileSystem, Found, Node, Origin, absolute, push, relative, shown};
use super::recipe::ContentRoot;
use crate::fsio::{IoContext, PathError};
use crate::root::{ALTERNATIVES_DIR, MERGED_DIRS, RECORDS_DIR};

/// Top-level directories below which everything is a real directory.
const REAL_BELOW: &[&[u8]] = &[b"dev", b"etc", b"proc", b"run", b"sys", b"tmp", b"var"];

/// Not joined: what Nix's builders leave for other builders, and what asks for links that are made instead.
const NOT_JOINED: &[&[u8]] = &[b"nix-support", ALTERNATIVES_DIR.as_bytes(), RECORDS_DIR.as_bytes()];

/// Joins `contents`, first to last, into `files`.
pub(super) fn join(contents: &[ContentRoot], over_base: bool, files: &mut FileSystem) -> Result<(), ImageError> {
    let mut providers: Vec<Provider> = Vec::new();
    for content in contents {
        let logical = content.logical.relative().as_bytes().to_vec();
        match files.resolve(&logical)? {
            Some((logical, Found::Directory)) => {
                if !providers.contains(&logical) {
                    providers.push(logical);
                }
            }
            Some(_) => {
                return Err(ImageError::ContentIsFile {
                    name: content.name.clone(),
                    path: content.logical.clone(),
                });
            }
            None => {
                return Err(ImageError::ContentMissing {
                    name: content.name.clone(),
                    path: content.logical.clone(),
                });
            }
        }
    }
    merge_usr(&providers, files)?;
    let mut join = Join {
        files,
        over_base,
        collisions: Vec::new(),
    };
    join.merge(&[], &providers)?;
    if join.collisions.is_empty() {
        return Ok(());
    }
    Err(ImageError::Collisions {
        collisions: join.collisions,
    })
}

/// A path in a content: its absolute logical path without leading slash.
type Provider = Vec<u8>;

/// Makes `bin` a symlink to `usr/bin` where a content has the latter and the image has neither yet.
fn merge_usr(contents: &[Provider], files: &mut FileSystem) -> Result<(), ImageError> {
    for name in MERGED_DIRS {
        let merged = format!("usr/{name}");
        if files.lookup(name.as_bytes())?.is_some() {
            continue;
        }
        for content in contents {
            let mut path = content.clone();
            push(&mut path, merged.as_bytes());
            if files.lookup(&path)? == Some(Found::Directory) {
                files.make_directory(merged.as_bytes())?;
                files.insert(name.as_bytes().to_vec(), Node::symlink(merged.as_bytes()))?;
                break;
            }
        }
    }
    Ok(())
}

struct Join<'a> {
    files: &'a mut FileSystem,
    over_base: bool,
    collisions: Vec<Collision>,
}

impl Join<'_> {
    /// Joins what the providers, directories all, hold into the directory `dir`.
    fn merge(&mut self, dir: &[u8], providers: &[Provider]) -> Result<(), ImageError> {
        let mut entries: BTreeMap<Vec<u8>, Vec<Provider>> = BTreeMap::new();
        for provider in providers {
            for name in self.files.names(provider)? {
                let mut logical = provider.clone();
                push(&mut logical, &name);
                entries.entry(name).or_default().push(logical);
            }
        }
        for (name, providers) in entries {
            let mut path = dir.to_vec();
            push(&mut path, &name);
            if !NOT_JOINED.contains(&path.as_slice()) {
                self.place(path, providers)?;
            }
        }
        Ok(())
    }

    /// Joins what the providers have for `path`, whose parent is a directory node.
    fn place(&mut self, path: Vec<u8>, providers: Vec<Provider>) -> Result<(), ImageError> {
        let present = self.files.lookup(&path)?;
        let alone = present.is_none() && providers.len() == 1 && !self.over_base;
        let mut directories = Vec::new();
        for provider in &providers {
            match self.files.lookup(provider)? {
                Some(Found::Directory) => directories.push(provider.clone()),
                // A symlink to a directory only counts as one where it meets another directory.
                Some(Found::Symlink(_)) if !alone => {
                    if let Some((logical, Found::Directory)) = self.files.resolve(provider)? {
                        directories.push(logical);
                    }
                }
                _ => {}
            }
        }
        let all_directories = directories.len() == providers.len();
        if all_directories && (!alone || is_real(&path)) && self.leads_to_directory(&path, present.as_ref())? {
            let dir = self.files.make_directory(&path)?;
            return self.merge(&dir, &directories);
        }
        self.link(&path, &providers)
    }

    fn leads_to_directory(&self, path: &[u8], present: Option<&Found>) -> Result<bool, PathError> {
        match present {
            None | Some(Found::Directory) => Ok(true),
            Some(Found::File { .. }) => Ok(false),
            Some(Found::Symlink(_)) => Ok(matches!(self.files.resolve(path)?, Some((_, Found::Directory)))),
        }
    }

    /// Makes `path` a symlink to the first provider, unless something is there; the others must be the same thing.
    fn link(&mut self, path: &[u8], providers: &[Provider]) -> Result<(), ImageError> {
        for provider in providers {
            match self.files.lookup(path)? {
                None => {
                    let link = Node::symlink(absolute(provider)).from(Origin::Joined);
                    self.files.insert(path.to_vec(), link)?;
                }
                Some(_) if self.is_same(path, provider)? => {}
                Some(present) => {
                    let first = match present {
                        Found::Symlink(target) if target.starts_with(b"/") => shown(relative(&target)),
                        _ => shown(path),
                    };
                    self.collisions.push(Collision {
                        path: shown(path),
                        first,
                        second: shown(provider),
                    });
                }
            }
        }
        Ok(())
    }

    /// Whether two paths lead to the same file, to equal files, or are symlinks of the same text that lead nowhere.
    fn is_same(&self, first: &[u8], second: &[u8]) -> Result<bool, PathError> {
        match (self.files.resolve(first)?, self.files.resolve(second)?) {
            (Some((a, _)), Some((b, _))) if a == b => Ok(true),
            (
                Some((
                    _,
                    Found::File {
                        executable: a,
                        content: x,
                    },
                )),
                Some((
                    _,
                    Found::File {
                        executable: b,
                        content: y,
                    },
                )),
            ) => Ok(a == b && same_bytes(&x, &y)?),
            (None, None) => Ok(self.last_link(first)? == self.last_link(second)?),
            _ => Ok(false),
        }
    }

    /// The text of the symlink at `path`, or of the content's symlink that a joined one leads to.
    fn last_link(&self, path: &[u8]) -> Result<Option<Vec<u8>>, PathError> {
        match self.files.lookup(path)? {
            Some(Found::Symlink(target)) if self.files.physical(relative(&target)).is_some() => {
                match self.files.lookup(relative(&target))? {
                    Some(Found::Symlink(inner)) => Ok(Some(inner)),
                    _ => Ok(Some(target)),
                }
            }
            Some(Found::Symlink(target)) => Ok(Some(target)),
            _ => Ok(None),
        }
    }
}

/// Whether a directory at this path is never one symlink.
pub(super) fn is_real(path: &[u8]) -> bool {
    let mut parts = path.split(|&byte| byte == b'/');
    let top = parts.next().unwrap_or_default();
    parts.next().is_none() || REAL_BELOW.contains(&top)
}

pub(super) fn same_bytes(first: &Content, second: &Content) -> Result<bool, PathError> {
    match (first, second) {
        (Content::Bytes(a), Content::Bytes(b)) => Ok(a == b),
        (
            Content::Disk {
                physical: a, size: x, ..
            },
            Content::Disk {
                physical: b, size: y, ..
            },
        ) => Ok(x == y && same_files(a, b)?),
        (Content::Bytes(bytes), Content::Disk { physical, size, .. })
        | (Content::Disk { physical, size, .. }, Content::Bytes(bytes)) => {
            Ok(bytes.len() as u64 == *size && std::fs::read(physical).context("read", physical)?[..] == bytes[..])
        }
    }
}

/// Compares two files of the same size in bounded memory.
fn same_files(first: &Path, second: &Path) -> Result<bool, PathError> {
    const BUFFER: u64 = 1 << 20;
    let mut a = File::open(first).context("open", first)?;
    let mut b = File::open(second).context("open", second)?;
    let (mut x, mut y) = (Vec::new(), Vec::new());
    let fill = |file: &mut File, buffer: &mut Vec<u8>| -> io::Result<usize> {
        buffer.clear();
        file.take(BUFFER).read_to_end(buffer)
    };
    loop {
        let count = fill(&mut a, &mut x).context("read", first)?;
        fill(&mut b, &mut y).context("read", second)?;
        if x != y {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
    }
}
