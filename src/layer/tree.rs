//! A *tree* is a layer's entries that are not store paths: files, directories and links with modes and owners.
//!
//! Invariant: entries are held in the order of the tar dialect (see `super::tar`), every path is
//! relative and normal, and every parent of an entry is in the tree, as a directory, once.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::tar::{self, TarError};
use crate::capability::FileCapabilities;
use crate::digest::{Digest, Hasher};

/// Mode of a parent directory that the tree adds by itself.
pub const PARENT_MODE: u32 = 0o755;

/// Something at a path of a [`Tree`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeEntry {
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u32,
        /// Numeric owner.
        uid: u32,
        /// Numeric group.
        gid: u32,
    },
    /// A regular file.
    File {
        /// Its bytes.
        content: FileContent,
        /// Permission bits.
        mode: u32,
        /// Numeric owner.
        uid: u32,
        /// Numeric group.
        gid: u32,
        /// Its capabilities.
        capabilities: Option<FileCapabilities>,
    },
    /// A symbolic link.
    Symlink {
        /// Its target, as it is.
        target: Vec<u8>,
        /// Numeric owner.
        uid: u32,
        /// Numeric group.
        gid: u32,
    },
    /// Another name of a file that is in the tree before it, and has this mode, owner and these capabilities.
    HardLink {
        /// The file's path.
        target: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Numeric owner.
        uid: u32,
        /// Numeric group.
        gid: u32,
        /// Its capabilities.
        capabilities: Option<FileCapabilities>,
    },
}

/// A file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileContent {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// On disk, and never changing as long as `identity` is the same.
    Path {
        /// Where it is.
        physical: PathBuf,
        /// Size in bytes; another size on disk is an error.
        size: u64,
        /// Names the content for the cache: a digest, or a store path's NAR hash and the path below it.
        identity: String,
    },
}

impl FileContent {
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Path { size, .. } => *size,
        }
    }
}

/// A relative path without leading, trailing or doubled slash, ordered as the tar dialect orders entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// The path's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_paths(&self.0, &other.0)
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Byte order with `/` before every other byte: the order of a walk that sorts each directory's names.
pub fn compare_paths(a: &[u8], b: &[u8]) -> Ordering {
    /// Bytes that are compared at once: paths of a store begin alike for longer than they differ.
    const STEP: usize = 16;
    let same = a.chunks(STEP).zip(b.chunks(STEP)).take_while(|(a, b)| a == b).count() * STEP;
    let rest = |path| <[u8]>::get(path, same..).unwrap_or_default();
    // No name holds a NUL, so that its place is free for the slash.
    let key = |&byte: &u8| if byte == b'/' { 0 } else { byte };
    rest(a).iter().map(key).cmp(rest(b).iter().map(key))
}

/// Entries by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<TreePath, TreeEntry>);

impl Tree {
    /// A tree without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the entry at `path`, replacing what was there, and adds missing parents (mode 0755, owner 0).
    ///
    /// A path that a layer cannot hold, below something that is not a directory, or a non-directory above
    /// something, is an error.
    pub fn insert(&mut self, path: &[u8], entry: TreeEntry) -> Result<(), TarError> {
        let mut scratch = Vec::new();
        tar::append_header(&mut scratch, &header(path, &entry))?;
        self.check_place(path, &entry)?;
        for (index, _) in path.iter().enumerate().filter(|&(_, &byte)| byte == b'/') {
            self.0
                .entry(TreePath(path[..index].to_vec()))
                .or_insert(TreeEntry::Directory {
                    mode: PARENT_MODE,
                    uid: 0,
                    gid: 0,
                });
        }
        self.0.insert(TreePath(path.to_vec()), entry);
        Ok(())
    }

    fn check_place(&self, path: &[u8], entry: &TreeEntry) -> Result<(), TarError> {
        let error = |path: &[u8], reason| {
            Err(TarError::Path {
                path: tar::shown(path),
                reason,
            })
        };
        for (index, _) in path.iter().enumerate().filter(|&(_, &byte)| byte == b'/') {
            match self.get(&path[..index]) {
                None | Some(TreeEntry::Directory { .. }) => {}
                Some(_) => return error(path, "a parent of it is not a directory"),
            }
        }
        if let TreeEntry::HardLink { target, .. } = entry {
            let is_file = matches!(self.get(target), Some(TreeEntry::File { .. }));
            if !is_file || compare_paths(target, path) != Ordering::Less {
                return error(path, "it is a hard link to what is not a file before it");
            }
        }
        let key = TreePath(path.to_vec());
        let next = self.0.range(key.clone()..).find(|(other, _)| **other != key);
        let below = next.is_some_and(|(other, _)| {
            other.0.len() > path.len() && other.0.starts_with(path) && other.0[path.len()] == b'/'
        });
        if below && !matches!(entry, TreeEntry::Directory { .. }) {
            return error(path, "there are entries below it, and it is not a directory");
        }
        Ok(())
    }

    /// The entry at `path`.
    pub fn get(&self, path: &[u8]) -> Option<&TreeEntry> {
        self.0.get(&TreePath(path.to_vec()))
    }

    /// All entries in the order in which a layer holds them.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &TreeEntry)> {
        self.0.iter().map(|(path, entry)| (path.as_bytes(), entry))
    }

    /// Number of entries, added parents included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is not an entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sum of the files' sizes in bytes.
    pub fn content_size(&self) -> u64 {
        self.0
            .values()
            .map(|entry| match entry {
                TreeEntry::File { content, .. } => content.size(),
                _ => 0,
            })
            .sum()
    }

    /// Names everything that the tree's tar depends on.
    pub(super) fn identity(&self) -> Digest {
        let mut hasher = Hasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for (path, entry) in self.iter() {
            // The header says kind, mode, owner, size and target. It fitted when the entry was inserted.
            let mut bytes = Vec::new();
            let _ = tar::append_header(&mut bytes, &header(path, entry));
            field(&bytes);
            if let TreeEntry::File { content, .. } = entry {
                match content {
                    FileContent::Bytes(bytes) => field(Digest::of(bytes).to_string().as_bytes()),
                    FileContent::Path { identity, .. } => field(format!("identity:{identity}").as_bytes()),
                }
            }
        }
        hasher.digest()
    }
}

/// The tar header data of an entry.
pub(super) fn header<'a>(path: &'a [u8], entry: &'a TreeEntry) -> tar::Entry<'a> {
    let (kind, mode, uid, gid, capabilities) = match entry {
        TreeEntry::Directory { mode, uid, gid } => (tar::Kind::Directory, *mode, *uid, *gid, None),
        TreeEntry::File {
            content,
            mode,
            uid,
            gid,
            capabilities,
        } => (
            tar::Kind::File { size: content.size() },
            *mode,
            *uid,
            *gid,
            *capabilities,
        ),
        TreeEntry::Symlink { target, uid, gid } => (tar::Kind::Symlink { target }, 0o777, *uid, *gid, None),
        TreeEntry::HardLink {
            target,
            mode,
            uid,
            gid,
            capabilities,
        } => (tar::Kind::HardLink { target }, *mode, *uid, *gid, *capabilities),
    };
    tar::Entry {
        path,
        kind,
        mode,
        uid,
        gid,
        capabilities,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(bytes: &[u8]) -> TreeEntry {
        TreeEntry::File {
            content: FileContent::Bytes(bytes.into()),
            mode: 0o644,
            uid: 0,
            gid: 0,
            capabilities: None,
        }
    }

    fn paths(tree: &Tree) -> Vec<String> {
        tree.iter().map(|(path, _)| tar::shown(path)).collect()
    }

    #[test]
    fn parents_are_added_once_and_before() {
        let mut tree = Tree::new();
        tree.insert(b"a-b", file(b"")).unwrap();
        tree.insert(b"a/c/d", file(b"x")).unwrap();
        tree.insert(b"a/b", file(b"")).unwrap();
        tree.insert(b"a.b", file(b"")).unwrap();
        assert_eq!(paths(&tree), ["a", "a/b", "a/c", "a/c/d", "a-b", "a.b"]);
        assert_eq!(tree.content_size(), 1);
        let given = TreeEntry::Directory {
            mode: 0o1777,
            uid: 1,
            gid: 2,
        };
        tree.insert(b"a", given.clone()).unwrap();
        assert_eq!(tree.get(b"a"), Some(&given));
    }

    #[test]
    fn impossible_paths_are_refused() {
        let mut tree = Tree::new();
        tree.insert(b"file", file(b"")).unwrap();
        tree.insert(b"dir/x", file(b"")).unwrap();
        for path in [
            &b""[..],
            b"/a",
            b"a/",
            b"a//b",
            b"../a",
            b"a/./b",
            b"a\0",
            b"a/.wh.b",
            b"file/x",
            b"dir",
        ] {
            assert!(tree.insert(path, file(b"")).is_err(), "{}", tar::shown(path));
        }
        assert_eq!(paths(&tree), ["dir", "dir/x", "file"]);
    }

    #[test]
    fn identity_covers_all_that_the_tar_depends_on() {
        let base = |entry| {
            let mut tree = Tree::new();
            tree.insert(b"a", entry).unwrap();
            tree.identity()
        };
        let on_disk = |identity: &str, size| TreeEntry::File {
            content: FileContent::Path {
                physical: "/x".into(),
                size,
                identity: identity.into(),
            },
            mode: 0o644,
            uid: 0,
            gid: 0,
            capabilities: None,
        };
        let bound = TreeEntry::File {
            content: FileContent::Bytes(b""[..].into()),
            mode: 0o644,
            uid: 0,
            gid: 0,
            capabilities: "cap_net_raw=p".parse().ok(),
        };
        let mut all = vec![
            base(file(b"")),
            base(file(b"x")),
            base(on_disk("i", 1)),
            base(on_disk("i", 2)),
            base(on_disk("j", 1)),
            base(bound),
            base(TreeEntry::Directory {
                mode: 0o755,
                uid: 0,
                gid: 0,
            }),
            base(TreeEntry::Directory {
                mode: 0o755,
                uid: 1,
                gid: 0,
            }),
            base(TreeEntry::Symlink {
                target: b"b".into(),
                uid: 0,
                gid: 0,
            }),
        ];
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 9);
    }

    proptest! {
        /// Paths that begin alike for any length are ordered name by name.
        #[test]
        fn paths_are_ordered_name_by_name(shared in "[ab/-]{0,40}", a in "[ab/-]{0,20}", b in "[ab/-]{0,20}") {
            let [a, b] = [a, b].map(|end| format!("{shared}{end}"));
            let names: [Vec<&[u8]>; 2] = [&a, &b].map(|path| path.as_bytes().split(|&byte| byte == b'/').collect());
            prop_assert_eq!(compare_paths(a.as_bytes(), b.as_bytes()), names[0].cmp(&names[1]));
        }
    }
}
