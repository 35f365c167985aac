//! A *flat image* is the file system that its layers make: what stands at each path, and which layer holds its content.
//!
//! Invariant: layers are applied as the image-spec has it (layer.md, "Applying Changesets"). Every path is relative and
//! normal, and every one that has something below it is a directory here: nothing that is written by this plan goes through a
//! link of the image.

use std::collections::BTreeMap;

use super::ContainerError;
use crate::archive::Kind;
use crate::archive::tar::{Entry, GNU_SPARSE};
use crate::escape::shown_bytes;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Most entries of an image.
const ENTRIES_MAX: usize = 4_000_000;

/// Most bytes of an image's files.
const BYTES_MAX: u64 = 256 << 30;

/// Longest path, and target of a link, in bytes, as the kernel has it.
const PATH_MAX: usize = 4096;

/// Which entry of which layer holds a file's content.
pub(super) type ContentKey = (usize, usize);

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    Directory,
    File(ContentKey),
    Symlink(Vec<u8>),
    Fifo,
}

/// A path's body and attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) body: Body,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
}

impl Node {
    /// A directory that no layer says anything of.
    fn implied() -> Self {
        Self {
            body: Body::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
        }
    }
}

/// A file system, by path; the root is the empty one.
#[derive(Debug, Default)]
pub(super) struct Flat {
    pub(super) nodes: BTreeMap<Vec<u8>, Node>,
    /// Device nodes, which nobody but root may make.
    pub(super) devices: Vec<String>,
    entries: usize,
    bytes: u64,
}

impl Flat {
    /// Applies a layer to those below it.
    pub(super) fn apply(&mut self, layer: usize, entries: Vec<Entry>) -> Result<(), ContainerError> {
        self.entries += entries.len();
        if self.entries > ENTRIES_MAX {
            return Err(ContainerError::TooLarge {
                limit: format!("{ENTRIES_MAX} files"),
            });
        }
        let entries = entries
            .into_iter()
            .map(|entry| Ok((checked(&entry.path)?, entry)))
            .collect::<Result<Vec<_>, ContainerError>>()?;
        // Whiteouts first: they mean lower layers only, wherever they stand in this one.
        for (path, _) in &entries {
            let (dir, name) = split(path);
            if name == OPAQUE {
                self.remove_below(dir);
            } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
                let path = [dir, if dir.is_empty() { b"" } else { b"/" }, hidden].concat();
                self.remove_below(&path);
                self.nodes.remove(&path);
            }
        }
        for (index, (path, entry)) in entries.into_iter().enumerate() {
            if !split(&path).1.starts_with(WHITEOUT) {
                self.put(path, &entry, (layer, index))?;
            }
        }
        Ok(())
    }

    fn put(&mut self, path: Vec<u8>, entry: &Entry, key: ContentKey) -> Result<(), ContainerError> {
        let body = match entry.kind {
            Kind::Directory => Body::Directory,
            Kind::File | GNU_SPARSE => {
                self.bytes = self.bytes.saturating_add(entry.size);
                Body::File(key)
            }
            Kind::Symlink => Body::Symlink(target(entry)?),
            Kind::Fifo => Body::Fifo,
            Kind::HardLink => return self.link(path, entry),
            Kind::CharDevice | Kind::BlockDevice => {
                self.devices.push(shown_bytes(&path));
                return Ok(());
            }
            Kind::Other(_) => return Err(malformed(&path, &format!("it is a {}", entry.kind.name()))),
        };
        if self.bytes > BYTES_MAX {
            return Err(ContainerError::TooLarge {
                limit: format!("{} GiB", BYTES_MAX >> 30),
            });
        }
        let id = |id: u64| u32::try_from(id).map_err(|_| malformed(&path, "it has an owner beyond 32 bits"));
        let node = Node {
            body,
            mode: entry.mode & 0o7777,
            uid: id(entry.uid)?,
            gid: id(entry.gid)?,
            mtime: entry.mtime,
        };
        self.insert(path, node)
    }

    /// A hard link is the file it names.
    fn link(&mut self, path: Vec<u8>, entry: &Entry) -> Result<(), ContainerError> {
        let target = checked(&entry.link)?;
        let node = self.nodes.get(&target).filter(|node| node.body != Body::Directory);
        let node = node.ok_or_else(|| {
            let reason = format!("it is a hard link to `{}`, where no file is", shown_bytes(&target));
            malformed(&path, &reason)
        })?;
        self.insert(path, node.clone())
    }

    fn insert(&mut self, path: Vec<u8>, node: Node) -> Result<(), ContainerError> {
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let parent = &path[..at];
            if self.nodes.get(parent).is_none_or(|node| node.body != Body::Directory) {
                self.nodes.insert(parent.to_vec(), Node::implied());
            }
        }
        if node.body != Body::Directory {
            if path.is_empty() {
                return Err(malformed(b"/", "it is no directory"));
            }
            self.remove_below(&path);
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Removes everything below a directory; the root is the empty path.
    fn remove_below(&mut self, dir: &[u8]) {
        if dir.is_empty() {
            self.nodes.retain(|path, _| path.is_empty());
            return;
        }
        let from = [dir, b"/"].concat();
        let below: Vec<Vec<u8>> = (self.nodes.range(from.clone()..))
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(&from))
            .cloned()
            .collect();
        for path in below {
            self.nodes.remove(&path);
        }
    }

    /// The root's own attributes.
    pub(super) fn root(&self) -> Node {
        self.nodes.get(&[][..]).cloned().unwrap_or_else(Node::implied)
    }
}

/// A path as an archive spells it, relative and normal.
fn checked(raw: &[u8]) -> Result<Vec<u8>, ContainerError> {
    let path = crate::archive::clean(raw);
    if path.split(|&byte| byte == b'/').any(|part| part == b"..") {
        return Err(malformed(raw, "it leads out of the image"));
    }
    if path.contains(&0) || path.len() >= PATH_MAX {
        return Err(malformed(raw, "no file can have that name"));
    }
    Ok(path)
}

fn target(entry: &Entry) -> Result<Vec<u8>, ContainerError> {
    match entry.link.is_empty() || entry.link.contains(&0) || entry.link.len() >= PATH_MAX {
        true => Err(malformed(
            &entry.path,
            "it is a symlink with a target that none can have",
        )),
        false => Ok(entry.link.clone()),
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

fn malformed(path: &[u8], reason: &str) -> ContainerError {
    let shown: String = shown_bytes(path).chars().take(200).collect();
    ContainerError::Entry {
        path: shown,
        reason: reason.to_owned(),
    }
}
