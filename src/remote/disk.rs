//! Trees of this *disk*, read once: those of store paths are noted beside the store, so that no later run reads them again.
//!
//! Invariant: a note is a memory of the hashes of a store path, which never changes; one that cannot be believed is made
//! anew. Which bytes travel is checked by their receiver against the hash.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use prost::Message;

use super::blob::Blob;
use super::error::RemoteError;
use super::tree::{Contents, Dir, Leaf, Node};
use crate::digest::HashingWriter;
use crate::fsio::{AtomicFile, IoContext, create_dir_all, read_limited, remove_tree, sorted_names};
use crate::nar::{self, EntryKind};

/// Where notes are, below the store's directory.
const NOTES: &str = "cache/remote-trees";

/// Largest note that is read, in bytes: some million files.
const NOTE_MAX: u64 = 512 << 20;

/// A value that is made once, and waited for by all others who want it meanwhile.
type Slot<T> = Arc<Mutex<Option<T>>>;

/// The trees of a store, and others.
pub(super) struct Trees {
    /// The directory that holds the store's trees.
    store: PathBuf,
    notes: PathBuf,
    paths: Mutex<BTreeMap<PathBuf, Slot<Node>>>,
    merged: Mutex<BTreeMap<Vec<PathBuf>, Slot<Arc<Dir>>>>,
}

impl Trees {
    /// Those of the store whose files are below `store_dir`. Notes of paths that are gone are removed.
    pub(super) fn new(store_dir: &Path) -> Self {
        let trees = Self {
            store: store_dir.join("store"),
            notes: store_dir.join(NOTES),
            paths: Mutex::default(),
            merged: Mutex::default(),
        };
        // A note that cannot be removed does no harm.
        for name in sorted_names(&trees.notes).unwrap_or_default() {
            if trees.store.join(&name).symlink_metadata().is_err() {
                let _ = fs::remove_file(trees.notes.join(&name));
            }
        }
        trees
    }

    /// What is at `path`.
    pub(super) fn node(&self, path: &Path) -> Result<Node, RemoteError> {
        if path.parent() != Some(&self.store) {
            return read(path);
        }
        let slot = slot(&self.paths, path.to_owned());
        made_once(&slot, || self.store_path(path))
    }

    /// The directories merged, the topmost first.
    pub(super) fn merged(&self, layers: &[PathBuf]) -> Result<Arc<Dir>, RemoteError> {
        let is_in_store = |layer: &&PathBuf| layer.parent() == Some(&self.store);
        let below = layers.iter().rev().take_while(is_in_store).count();
        let (own, packages) = layers.split_at(layers.len() - below);
        let mut dirs = own.iter().map(|layer| self.dir(layer)).collect::<Result<Vec<_>, _>>()?;
        if !packages.is_empty() {
            // The same for all steps of the same tools.
            let slot = slot(&self.merged, packages.to_vec());
            dirs.push(made_once(&slot, || {
                let dirs = packages.iter().map(|layer| self.dir(layer));
                Ok(Dir::merged(&dirs.collect::<Result<Vec<_>, _>>()?))
            })?);
        }
        Ok(match dirs.is_empty() {
            true => Dir::new(BTreeMap::new()),
            false => Dir::merged(&dirs),
        })
    }

    fn dir(&self, path: &Path) -> Result<Arc<Dir>, RemoteError> {
        match self.node(path)? {
            Node::Dir(dir) => Ok(dir),
            _ => Err(io::Error::from(io::ErrorKind::NotADirectory)).context("list", path)?,
        }
    }

    fn store_path(&self, path: &Path) -> Result<Node, RemoteError> {
        let note = self.notes.join(path.file_name().unwrap_or_default());
        if let Some(node) = noted(&note, path) {
            return Ok(node);
        }
        let node = read(path)?;
        // It is a memory, and whoever cannot write it reads again.
        if write_note(&note, path, &node).is_err() {
            let _ = remove_tree(&note);
        }
        Ok(node)
    }
}

fn slot<K: Ord, T>(slots: &Mutex<BTreeMap<K, Slot<T>>>, key: K) -> Slot<T> {
    let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
    slots.entry(key).or_default().clone()
}

fn made_once<T: Clone>(slot: &Slot<T>, make: impl FnOnce() -> Result<T, RemoteError>) -> Result<T, RemoteError> {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    match &*slot {
        Some(made) => Ok(made.clone()),
        None => Ok(slot.insert(make()?).clone()),
    }
}

/// Reads and hashes what is at `path`.
fn read(path: &Path) -> Result<Node, RemoteError> {
    // Open directories, outermost first, each with its name; the first is what holds the root.
    let mut open: Vec<(String, BTreeMap<String, Node>)> = vec![(String::new(), BTreeMap::new())];
    let mut unnamed = None;
    nar::visit(path, &mut |entry, contents| {
        let place = entry.below(path);
        while open.len() > entry.depth() + 1 {
            close(&mut open);
        }
        let name = String::from_utf8(entry.name().to_vec());
        let name = name.unwrap_or_else(|error| {
            unnamed.get_or_insert(place.clone());
            error.to_string()
        });
        let node = match &entry.kind {
            EntryKind::Directory => {
                open.push((name, BTreeMap::new()));
                return Ok(());
            }
            EntryKind::Symlink { target } => Node::Link(String::from_utf8(target.clone()).unwrap_or_else(|error| {
                unnamed.get_or_insert(place.clone());
                error.to_string()
            })),
            EntryKind::File { executable, .. } => {
                let mut sink = HashingWriter::new(io::sink());
                io::copy(contents, &mut sink).context("read", &place)?;
                let (_, hasher, size) = sink.finish();
                let digest = hasher.digest();
                Node::File(Leaf {
                    blob: Blob { digest, size },
                    executable: *executable,
                    contents: Contents::Disk(place),
                })
            }
        };
        if let Some((_, entries)) = open.last_mut() {
            entries.insert(name, node);
        }
        Ok(())
    })?;
    if let Some(path) = unnamed {
        return Err(RemoteError::Name { path });
    }
    while open.len() > 1 {
        close(&mut open);
    }
    let root = open.pop().and_then(|(_, mut entries)| entries.remove(""));
    root.ok_or_else(|| RemoteError::Name { path: path.to_owned() })
}

/// Puts the innermost open directory into the one that holds it.
fn close(open: &mut Vec<(String, BTreeMap<String, Node>)>) {
    if let Some((name, entries)) = open.pop()
        && let Some((_, outer)) = open.last_mut()
    {
        outer.insert(name, Node::Dir(Dir::new(entries)));
    }
}

/// Writes a note: a tree whose root has but one entry, the store path.
fn write_note(note: &Path, path: &Path, node: &Node) -> Result<(), RemoteError> {
    if let Some(parent) = note.parent() {
        create_dir_all(parent)?;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let root = Dir::new(BTreeMap::from([(name, node.clone())]));
    let tree = api::Tree {
        root: Some(root.message()),
        children: collect(&root).into_values().collect(),
    };
    let mut file = AtomicFile::create(note)?;
    file.file().write_all(&tree.encode_to_vec()).context("write", note)?;
    Ok(file.publish_unsynced()?)
}

/// All directories below one, each once.
fn collect(dir: &Dir) -> BTreeMap<Blob, api::Directory> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir];
    while let Some(dir) = open.pop() {
        for node in dir.entries().values() {
            if let Node::Dir(below) = node
                && !found.contains_key(&below.blob())
            {
                found.insert(below.blob(), below.message());
                open.push(below);
            }
        }
    }
    found
}

/// What a note says of the store path at `path`; `None` where it says nothing that can be believed.
fn noted(note: &Path, path: &Path) -> Option<Node> {
    let bytes = read_limited(note, NOTE_MAX).ok()?;
    let tree = api::Tree::decode(bytes.as_slice()).ok()?;
    // A directory is known by the hash of what stands here: what was changed is not found.
    let children = tree
        .children
        .iter()
        .map(|child| (Blob::of_message(child).0, child))
        .collect();
    let (parent, name) = (path.parent()?, path.file_name()?.to_str()?);
    restored(tree.root.as_ref()?, &children, parent)?.remove(name)
}

/// What is in the directory at `path`; `None` where not all of it is told.
fn restored(
    directory: &api::Directory,
    children: &BTreeMap<Blob, &api::Directory>,
    path: &Path,
) -> Option<BTreeMap<String, Node>> {
    // Open directories, outermost first.
    let mut open = vec![Restored::new(String::new(), directory, path.to_owned())?];
    loop {
        let innermost = open.last_mut()?;
        if let Some((name, blob)) = innermost.left.pop() {
            let (child, path) = (children.get(&blob)?, innermost.path.join(&name));
            if open.len() > nar::MAX_DEPTH {
                return None;
            }
            open.push(Restored::new(name, child, path)?);
            continue;
        }
        let done = open.pop()?;
        match open.last_mut() {
            None => return Some(done.entries),
            Some(outer) => drop(outer.entries.insert(done.name, Node::Dir(Dir::new(done.entries)))),
        }
    }
}

/// A directory of a note, of which some may be left to be looked into.
struct Restored {
    name: String,
    path: PathBuf,
    entries: BTreeMap<String, Node>,
    left: Vec<(String, Blob)>,
}

impl Restored {
    fn new(name: String, directory: &api::Directory, path: PathBuf) -> Option<Self> {
        let mut entries = BTreeMap::new();
        for file in &directory.files {
            let leaf = Leaf {
                blob: Blob::from_api(file.digest.as_ref())?,
                executable: file.is_executable,
                contents: Contents::Disk(path.join(&file.name)),
            };
            entries.insert(file.name.clone(), Node::File(leaf));
        }
        for link in &directory.symlinks {
            entries.insert(link.name.clone(), Node::Link(link.target.clone()));
        }
        let below = directory.directories.iter();
        let left = below.map(|below| Some((below.name.clone(), Blob::from_api(below.digest.as_ref())?)));
        Some(Self {
            name,
            path,
            entries,
            left: left.collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn store_with(name: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store").join(name);
        fs::create_dir_all(path.join("bin/deep")).unwrap();
        fs::create_dir(path.join("empty")).unwrap();
        fs::write(path.join("bin/tool"), "#!\n").unwrap();
        fs::set_permissions(path.join("bin/tool"), fs::Permissions::from_mode(0o555)).unwrap();
        fs::write(path.join("bin/deep/text"), "text").unwrap();
        symlink("/usr/bin/x", path.join("link")).unwrap();
        (dir, path)
    }

    #[test]
    fn a_store_path_is_read_once() {
        let (dir, path) = store_with("x");
        let first = Trees::new(dir.path()).node(&path).unwrap();
        let Node::Dir(root) = &first else { panic!("{first:?}") };
        let names: Vec<&str> = root.entries().keys().map(String::as_str).collect();
        assert_eq!(names, ["bin", "empty", "link"]);
        // The note alone says what was there.
        fs::write(path.join("bin/deep/text"), "other").unwrap();
        assert_eq!(Trees::new(dir.path()).node(&path).unwrap(), first);
        // What cannot be believed is made anew.
        let note = dir.path().join(NOTES).join("x");
        let mut bytes = fs::read(&note).unwrap();
        let at = bytes.windows(4).position(|window| window == b"text").unwrap();
        bytes[at] = b'n';
        fs::write(&note, bytes).unwrap();
        assert_ne!(Trees::new(dir.path()).node(&path).unwrap(), first);
        // One whose path is gone goes.
        fs::remove_dir_all(&path).unwrap();
        Trees::new(dir.path());
        assert!(!note.exists());
    }

    #[test]
    fn files_and_links_are_trees_too() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        fs::create_dir(&store).unwrap();
        fs::write(store.join("file"), "x").unwrap();
        symlink("file", store.join("link")).unwrap();
        for _ in 0..2 {
            let trees = Trees::new(dir.path());
            let Node::File(leaf) = trees.node(&store.join("file")).unwrap() else {
                panic!("no file")
            };
            assert_eq!(
                (leaf.blob, leaf.contents),
                (Blob::of(b"x"), Contents::Disk(store.join("file")))
            );
            assert_eq!(trees.node(&store.join("link")).unwrap(), Node::Link("file".to_owned()));
        }
    }

    #[test]
    fn a_name_that_cannot_travel_is_told() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
        fs::write(dir.path().join(name), "").unwrap();
        let error = Trees::new(dir.path()).node(dir.path()).unwrap_err();
        assert!(matches!(error, RemoteError::Name { path } if path.ends_with(name)));
    }

    #[test]
    fn trees_may_be_as_deep_as_archives() {
        let (dir, path) = store_with("x");
        let deep = path.join("d/".repeat(nar::MAX_DEPTH - 2));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("f"), "deep").unwrap();
        // The stack of a thread is small, and with it that of a step.
        let work = move || {
            let first = Trees::new(dir.path()).node(&path).unwrap();
            let noted = Trees::new(dir.path()).node(&path).unwrap();
            let (Node::Dir(first), Node::Dir(noted)) = (&first, &noted) else {
                panic!("{first:?}")
            };
            assert_eq!(first.blob(), noted.blob());
        };
        let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(work);
        thread.unwrap().join().unwrap();
    }
}
