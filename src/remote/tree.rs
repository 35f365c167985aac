//! A *tree* as the Remote Execution API has it: directories named by the hash of what they list.
//!
//! Invariant: a tree never changes; what is put into it makes a new one that shares all else. Its hashes depend on names,
//! contents, executable bits and link targets alone, as a canonical archive does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;

use super::blob::Blob;

/// What a name in a directory stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// A regular file.
    File(Leaf),
    /// A symlink with its target.
    Link(String),
    /// A directory.
    Dir(Arc<Dir>),
}

/// A regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    /// Its contents' name.
    pub blob: Blob,
    /// Whether it is executable.
    pub executable: bool,
    /// Where the contents are.
    pub contents: Contents,
}

/// Where the contents of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Contents {
    /// In a file of this machine.
    Disk(PathBuf),
    /// Here.
    Bytes(Arc<[u8]>),
}

impl Leaf {
    /// A file that is on no disk.
    pub(super) fn of_bytes(bytes: &[u8], executable: bool) -> Self {
        Self {
            blob: Blob::of(bytes),
            executable,
            contents: Contents::Bytes(bytes.into()),
        }
    }
}

/// A directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dir {
    entries: BTreeMap<String, Node>,
    blob: Blob,
}

impl Dir {
    /// A directory with these entries.
    pub(super) fn new(entries: BTreeMap<String, Node>) -> Arc<Self> {
        let (blob, _) = Blob::of_message(&message(&entries));
        Arc::new(Self { entries, blob })
    }

    /// What is in it, by name.
    pub(super) fn entries(&self) -> &BTreeMap<String, Node> {
        &self.entries
    }

    /// The name of its message.
    pub(super) fn blob(&self) -> Blob {
        self.blob
    }

    /// Its message.
    pub(super) fn message(&self) -> api::Directory {
        message(&self.entries)
    }

    /// Where a link is in it that has an absolute path.
    pub(super) fn absolute_link(&self) -> Option<PathBuf> {
        let mut open = vec![(PathBuf::from("/"), self)];
        while let Some((path, dir)) = open.pop() {
            for (name, node) in &dir.entries {
                match node {
                    Node::Link(target) if target.starts_with('/') => return Some(path.join(name)),
                    Node::Dir(below) => open.push((path.join(name), below)),
                    Node::Link(_) | Node::File(_) => {}
                }
            }
        }
        None
    }

    /// The same with `node` at `path`, below which nothing else stays; directories on the way are made.
    pub(super) fn with(&self, path: &[&str], node: Node) -> Arc<Self> {
        let mut entries = self.entries.clone();
        if let Some((&name, rest)) = path.split_first() {
            let node = match (rest, entries.get(name)) {
                ([], _) => node,
                (_, Some(Node::Dir(dir))) => Node::Dir(dir.with(rest, node)),
                _ => Node::Dir(Self::new(BTreeMap::new()).with(rest, node)),
            };
            entries.insert(name.to_owned(), node);
        }
        Self::new(entries)
    }

    /// The layers as one, as an overlay shows them: of what two have the upper (earlier) one's is seen, and directories
    /// are merged as far down as all that is above them are directories.
    pub(super) fn merged(layers: &[Arc<Self>]) -> Arc<Self> {
        if let [only] = layers {
            return only.clone();
        }
        let mut seen: BTreeMap<&String, Vec<&Node>> = BTreeMap::new();
        for layer in layers {
            for (name, node) in &layer.entries {
                seen.entry(name).or_default().push(node);
            }
        }
        let merged = seen.into_iter().map(|(name, nodes)| {
            let dirs = nodes.iter().map_while(|node| match node {
                Node::Dir(dir) => Some(dir.clone()),
                _ => None,
            });
            let mut dirs: Vec<Arc<Self>> = dirs.collect();
            dirs.dedup();
            let node = match dirs.is_empty() {
                true => nodes[0].clone(),
                false => Node::Dir(Self::merged(&dirs)),
            };
            (name.clone(), node)
        });
        Self::new(merged.collect())
    }
}

impl Drop for Dir {
    /// Without calling itself: trees are as deep as somebody's source.
    fn drop(&mut self) {
        let mut open = vec![std::mem::take(&mut self.entries)];
        while let Some(entries) = open.pop() {
            for node in entries.into_values() {
                if let Node::Dir(dir) = node
                    && let Some(mut dir) = Arc::into_inner(dir)
                {
                    open.push(std::mem::take(&mut dir.entries));
                }
            }
        }
    }
}

/// The message of a directory: names in the order of their bytes, each kind by itself.
fn message(entries: &BTreeMap<String, Node>) -> api::Directory {
    let mut directory = api::Directory::default();
    for (name, node) in entries {
        let name = name.clone();
        match node {
            Node::File(leaf) => directory.files.push(api::FileNode {
                name,
                digest: Some(leaf.blob.to_api()),
                is_executable: leaf.executable,
                node_properties: None,
            }),
            Node::Link(target) => directory.symlinks.push(api::SymlinkNode {
                name,
                target: target.clone(),
                node_properties: None,
            }),
            Node::Dir(dir) => directory.directories.push(api::DirectoryNode {
                name,
                digest: Some(dir.blob.to_api()),
            }),
        }
    }
    directory
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Node {
        Node::File(Leaf::of_bytes(text.as_bytes(), false))
    }

    fn dir(entries: &[(&str, Node)]) -> Arc<Dir> {
        Dir::new(
            entries
                .iter()
                .map(|(name, node)| ((*name).to_owned(), node.clone()))
                .collect(),
        )
    }

    #[test]
    fn an_empty_directory_has_the_name_of_no_bytes() {
        assert_eq!(dir(&[]).blob(), Blob::of(b""));
    }

    #[test]
    fn layers_are_merged_as_an_overlay_does() {
        let upper = dir(&[
            ("a", file("upper")),
            ("both", Node::Dir(dir(&[("x", file("1")), ("hides", file("2"))]))),
            ("stops", Node::Dir(dir(&[("u", file("3"))]))),
        ]);
        let middle = dir(&[
            ("a", file("middle")),
            ("stops", file("in the way")),
            ("m", Node::Link("a".to_owned())),
        ]);
        let lower = dir(&[
            (
                "both",
                Node::Dir(dir(&[("hides", Node::Dir(dir(&[]))), ("y", file("4"))])),
            ),
            ("stops", Node::Dir(dir(&[("l", file("5"))]))),
        ]);
        let merged = Dir::merged(&[upper, middle, lower]);
        let expected = dir(&[
            ("a", file("upper")),
            (
                "both",
                Node::Dir(dir(&[("x", file("1")), ("hides", file("2")), ("y", file("4"))])),
            ),
            ("m", Node::Link("a".to_owned())),
            ("stops", Node::Dir(dir(&[("u", file("3"))]))),
        ]);
        assert_eq!(merged, expected);
        assert_eq!(merged.blob(), expected.blob());
    }

    #[test]
    fn what_is_put_in_hides_what_was_there() {
        let tree = dir(&[("build", Node::Dir(dir(&[("old", file("1"))])))]);
        let changed = tree.with(&["build"], Node::Dir(dir(&[])));
        let changed = changed.with(&["a", "b", "c"], file("2"));
        let expected = dir(&[
            ("a", Node::Dir(dir(&[("b", Node::Dir(dir(&[("c", file("2"))])))]))),
            ("build", Node::Dir(dir(&[]))),
        ]);
        assert_eq!(changed, expected);
    }
}
