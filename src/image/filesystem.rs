//! A *file system* is what a container will see: store paths at their own place, and nodes laid over and beside them.
//!
//! Invariant: every node's parent is a directory node (or leads to a store path), and no node stands at or below a
//! store path. Paths are relative to `/`, without leading slash, and normal; the empty path is `/` itself.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::ImageError;
use crate::capability::FileCapabilities;
use crate::fsio::{self, IoContext, PathError};

/// Symlinks followed before a path is given up as a loop, as Linux does.
const LINKS_MAX: usize = 40;

/// Permission bits of a directory that nobody gave any.
const DIRECTORY_MODE: u32 = 0o755;

/// Directories for which the Filesystem Hierarchy Standard and Debian have other ones.
const MODES: &[(&str, u32)] = &[
    ("root", 0o700),
    ("run/lock", 0o1777),
    ("tmp", 0o1777),
    ("var/tmp", 0o1777),
];

/// A directory, file or symlink that is no part of a store path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub kind: NodeKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub capabilities: Option<FileCapabilities>,
    pub origin: Origin,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NodeKind {
    Directory,
    File(Content),
    Symlink(Vec<u8>),
}

/// Where a node comes from, which decides the layer it is in and who gives way to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A Debian package laid out at `/`: it is in the package's layer.
    Root,
    /// Made by maintainer scripts: it is in the layer of what they made.
    Configured,
    /// A link to something in one of the contents.
    Joined,
    /// Taken to be in the base: never in a layer of ours.
    Base,
    /// Anything else: what the spec asks for, and what every image has.
    Own,
}

/// A file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// On disk; `identity` names the bytes.
    Disk {
        physical: PathBuf,
        size: u64,
        identity: String,
    },
}

impl Node {
    /// A directory that root owns.
    pub fn directory(mode: u32) -> Self {
        Self::owned(NodeKind::Directory, mode)
    }

    /// A file that root owns, 0644 or 0755.
    pub fn file(content: Content, executable: bool) -> Self {
        Self::owned(NodeKind::File(content), if executable { 0o755 } else { 0o644 })
    }

    /// A file that root owns with the given text, 0644.
    pub fn text(text: impl Into<Vec<u8>>) -> Self {
        Self::file(Content::Bytes(text.into().into()), false)
    }

    /// A symlink.
    pub fn symlink(target: impl Into<Vec<u8>>) -> Self {
        Self::owned(NodeKind::Symlink(target.into()), 0o777)
    }

    fn owned(kind: NodeKind, mode: u32) -> Self {
        Self {
            kind,
            mode,
            uid: 0,
            gid: 0,
            capabilities: None,
            origin: Origin::Own,
        }
    }

    /// The same from elsewhere.
    pub fn from(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }
}

/// What stands at a path, symlinks not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Directory,
    File { executable: bool, content: Content },
    Symlink(Vec<u8>),
}

/// A symlink's path and its target.
pub(super) type Link = (Vec<u8>, Vec<u8>);

/// The view of a container.
#[derive(Debug, Clone, Default)]
pub(super) struct FileSystem {
    nodes: BTreeMap<Vec<u8>, Node>,
    /// Store paths by their logical path without leading slash: where they are on disk.
    store: BTreeMap<Vec<u8>, PathBuf>,
}

impl FileSystem {
    /// A file system that holds store paths (absolute logical path, physical path) and nothing else.
    pub fn new<'a>(store: impl IntoIterator<Item = (&'a str, &'a Path)>) -> Self {
        Self {
            nodes: BTreeMap::new(),
            store: store
                .into_iter()
                .map(|(logical, physical)| (relative(logical.as_bytes()).to_vec(), physical.to_owned()))
                .collect(),
        }
    }

    /// All nodes by path, in byte order.
    pub fn nodes(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_slice(), node))
    }

    /// The store paths, relative to `/`, in byte order.
    pub fn store_paths(&self) -> impl Iterator<Item = &[u8]> {
        self.store.keys().map(Vec::as_slice)
    }

    /// The node at a path.
    pub fn node(&self, path: &[u8]) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Whether a node has others below it.
    pub fn has_children(&self, path: &[u8]) -> bool {
        let prefix = [path, b"/"].concat();
        let node_below = self.nodes.range(prefix.clone()..).next();
        let store_below = self.store.range(prefix.clone()..).next();
        node_below.is_some_and(|(other, _)| other.starts_with(&prefix))
            || store_below.is_some_and(|(other, _)| other.starts_with(&prefix))
    }

    /// Puts a node at a path whose parent [`make_parent`](Self::make_parent) gave, replacing what was there.
    pub fn insert(&mut self, path: Vec<u8>, node: Node) -> Result<(), ImageError> {
        if node.kind != NodeKind::Directory && self.has_children(&path) {
            return Err(ImageError::ReplacesDirectory { path: shown(&path) });
        }
        if self.store_member(&path).is_some() {
            return Err(ImageError::InsideStorePath { path: shown(&path) });
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    /// The path at which something at `path` really goes: its parents are followed through the image's symlinks,
    /// made where they are missing, and opened up where they are one symlink into a content.
    pub fn make_parent(&mut self, path: &[u8]) -> Result<Vec<u8>, ImageError> {
        let Some(slash) = path.iter().rposition(|&byte| byte == b'/') else {
            return Ok(path.to_vec());
        };
        let mut real = self.make_directories(&path[..slash], path)?;
        push(&mut real, &path[slash + 1..]);
        Ok(real)
    }

    /// As [`make_parent`](Self::make_parent) for the whole path: gives the path of a directory that can be added to.
    pub fn make_directory(&mut self, path: &[u8]) -> Result<Vec<u8>, ImageError> {
        self.make_directories(path, path)
    }

    /// Makes `dir` for the sake of `wanted`, which errors name.
    fn make_directories(&mut self, dir: &[u8], wanted: &[u8]) -> Result<Vec<u8>, ImageError> {
        let mut real = Vec::new();
        for name in dir.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            push(&mut real, name);
            real = self.enter(real, wanted)?;
        }
        Ok(real)
    }

    /// One step of [`make_directory`](Self::make_directory): `path`'s parent is a directory node.
    fn enter(&mut self, path: Vec<u8>, wanted: &[u8]) -> Result<Vec<u8>, ImageError> {
        let not_a_directory = |at: &[u8]| ImageError::NotADirectory {
            path: shown(wanted),
            parent: shown(at),
        };
        match self.lookup(&path)? {
            None => {
                self.insert(path.clone(), Node::directory(directory_mode(&path)))?;
                Ok(path)
            }
            Some(Found::Directory) if self.store_member(&path).is_some() => {
                Err(ImageError::InsideStorePath { path: shown(wanted) })
            }
            // A directory that only stands because a store path is below it becomes a node.
            Some(Found::Directory) => {
                self.nodes
                    .entry(path.clone())
                    .or_insert_with(|| Node::directory(directory_mode(&path)));
                Ok(path)
            }
            Some(Found::File { .. }) => Err(not_a_directory(&path)),
            Some(Found::Symlink(_)) => match self.resolve(&path)? {
                Some((_, Found::Directory)) if self.is_joined(&path) => {
                    self.open_up(&path)?;
                    Ok(path)
                }
                Some((real, Found::Directory)) if self.store_member(&real).is_none() => Ok(real),
                Some((_, Found::Directory)) => Err(ImageError::InsideStorePath { path: shown(wanted) }),
                _ => Err(not_a_directory(&path)),
            },
        }
    }

    fn is_joined(&self, path: &[u8]) -> bool {
        self.nodes.get(path).is_some_and(|node| node.origin == Origin::Joined)
    }

    /// Replaces a symlink to a content's directory by a directory of symlinks to what is in that directory.
    fn open_up(&mut self, path: &[u8]) -> Result<(), ImageError> {
        let Some((logical, Found::Directory)) = self.resolve(path)? else {
            return Ok(());
        };
        self.nodes.insert(path.to_vec(), Node::directory(directory_mode(path)));
        for name in self.names(&logical)? {
            let (mut target, mut link) = (logical.clone(), path.to_vec());
            push(&mut target, &name);
            push(&mut link, &name);
            self.insert(link, Node::symlink(absolute(&target)).from(Origin::Joined))?;
        }
        Ok(())
    }

    /// What stands at a path, symlinks neither in it nor at its end followed.
    pub fn lookup(&self, path: &[u8]) -> Result<Option<Found>, PathError> {
        if path.is_empty() {
            return Ok(Some(Found::Directory));
        }
        if let Some(physical) = self.physical(path) {
            return found_on_disk(&physical);
        }
        if let Some(node) = self.nodes.get(path) {
            return Ok(Some(match &node.kind {
                NodeKind::Directory => Found::Directory,
                NodeKind::Symlink(target) => Found::Symlink(target.clone()),
                NodeKind::File(content) => Found::File {
                    executable: node.mode & 0o111 != 0,
                    content: content.clone(),
                },
            }));
        }
        Ok(self.has_children(path).then_some(Found::Directory))
    }

    /// What a path leads to, all symlinks followed, and its path without symlinks. `None` where it leads nowhere.
    pub fn resolve(&self, path: &[u8]) -> Result<Option<(Vec<u8>, Found)>, PathError> {
        let mut rest: Vec<Vec<u8>> = path.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec).collect();
        let (mut at, mut found, mut links) = (Vec::new(), Found::Directory, 0);
        while let Some(name) = rest.pop() {
            match (name.as_slice(), &found) {
                (b"" | b".", _) => continue,
                (_, Found::File { .. }) => return Ok(None),
                (b"..", _) => {
                    at.truncate(crate::root::parent(&at).len());
                    continue;
                }
                _ => {}
            }
            let mut next = at.clone();
            push(&mut next, &name);
            match self.lookup(&next)? {
                None => return Ok(None),
                Some(Found::Symlink(target)) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Ok(None);
                    }
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                    rest.extend(target.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec));
                }
                Some(other) => (at, found) = (next, other),
            }
        }
        Ok(Some((at, found)))
    }

    /// The symlink at which a path that leads nowhere ends, and its target; `None` where no symlink is to blame.
    pub fn dangling(&self, path: &[u8]) -> Result<Option<Link>, PathError> {
        let mut path = path.to_vec();
        let mut last = None;
        'links: for _ in 0..LINKS_MAX {
            let names: Vec<&[u8]> = path
                .split(|&byte| byte == b'/')
                .filter(|name| !name.is_empty())
                .collect();
            let mut at = Vec::new();
            for (index, name) in names.iter().enumerate() {
                push(&mut at, name);
                match self.lookup(&at)? {
                    None => return self.leading_nowhere(last),
                    Some(Found::Symlink(target)) => {
                        let mut next = crate::root::resolve(crate::root::parent(&at), &target);
                        for name in &names[index + 1..] {
                            push(&mut next, name);
                        }
                        last = Some((at, target));
                        path = next;
                        continue 'links;
                    }
                    Some(_) => {}
                }
            }
            return Ok(None);
        }
        Ok(last)
    }

    /// A link that was followed, where it leads nowhere itself: what is missing may be below a directory that is there.
    fn leading_nowhere(&self, link: Option<Link>) -> Result<Option<Link>, PathError> {
        Ok(match link {
            Some((link, target)) if self.resolve(&link)?.is_none() => Some((link, target)),
            _ => None,
        })
    }

    /// The names in a directory, given by its path without symlinks, in byte order.
    pub fn names(&self, dir: &[u8]) -> Result<Vec<Vec<u8>>, PathError> {
        if let Some(physical) = self.physical(dir) {
            let names = fsio::sorted_names(&physical)?;
            return Ok(names.into_iter().map(|name| name.as_bytes().to_vec()).collect());
        }
        let prefix = if dir.is_empty() {
            Vec::new()
        } else {
            [dir, b"/"].concat()
        };
        let paths = self.nodes.range(prefix.clone()..).map(|(path, _)| path);
        let names = paths
            .take_while(|path| path.starts_with(&prefix))
            .map(|path| path[prefix.len()..].to_vec())
            .filter(|name| !name.contains(&b'/'));
        Ok(names.collect())
    }

    /// Passes on what is at a path without symlinks and everything below it, except directories.
    pub fn for_each_below<E: From<PathError>>(
        &self,
        top: Vec<u8>,
        mut action: impl FnMut(&[u8], Found) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut pending = vec![top];
        while let Some(path) = pending.pop() {
            match self.lookup(&path)? {
                Some(Found::Directory) => {
                    for name in self.names(&path)? {
                        let mut below = path.clone();
                        push(&mut below, &name);
                        pending.push(below);
                    }
                }
                Some(found) => action(&path, found)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Where a path without symlinks is on disk, if it is at or below a store path.
    pub fn physical(&self, path: &[u8]) -> Option<PathBuf> {
        let (physical, below) = self.store_member(path)?;
        Some(match below {
            b"" => physical.to_owned(),
            below => physical.join(OsStr::from_bytes(below)),
        })
    }

    /// The store path that a path is at or below, and what follows it.
    fn store_member<'a>(&self, path: &'a [u8]) -> Option<(&Path, &'a [u8])> {
        let ends = path
            .iter()
            .enumerate()
            .filter(|&(_, &byte)| byte == b'/')
            .map(|(end, _)| end);
        ends.chain([path.len()]).find_map(|end| {
            let physical = self.store.get(&path[..end])?;
            Some((physical.as_path(), path.get(end + 1..).unwrap_or(b"")))
        })
    }
}

fn found_on_disk(physical: &Path) -> Result<Option<Found>, PathError> {
    let metadata = match fs::symlink_metadata(physical) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error).context("read", physical),
    };
    if metadata.is_dir() {
        return Ok(Some(Found::Directory));
    }
    if metadata.is_symlink() {
        let target = fs::read_link(physical).context("read the symlink", physical)?;
        return Ok(Some(Found::Symlink(target.as_os_str().as_bytes().to_vec())));
    }
    Ok(Some(Found::File {
        executable: metadata.mode() & 0o111 != 0,
        content: Content::Disk {
            physical: physical.to_owned(),
            size: metadata.len(),
            identity: String::new(),
        },
    }))
}

/// Permission bits of a directory that nobody gave any, by its path.
pub(super) fn directory_mode(path: &[u8]) -> u32 {
    let special = MODES.iter().find(|(special, _)| special.as_bytes() == path);
    special.map_or(DIRECTORY_MODE, |&(_, mode)| mode)
}

/// Appends a name to a path.
pub(super) fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// A path with its leading slash.
pub(super) fn absolute(path: &[u8]) -> Vec<u8> {
    [b"/", path].concat()
}

/// A path without its leading slash.
pub(super) fn relative(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"/").unwrap_or(path)
}

/// A path as messages show it.
pub(super) fn shown(path: &[u8]) -> String {
    format!("/{}", crate::escape::shown_bytes(path))
}
