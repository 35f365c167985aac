//! A *walk* lists a whole tree, where nothing is changed on the way.
//!
//! Invariant: the order is that of the names' bytes, whatever the file system's; no symlink in the tree is followed.

use std::io;
use std::path::Path;

use walkdir::{DirEntry, WalkDir};

use super::{IoContext, PathError};

/// The entries of a tree, a directory before what it holds. If `root` is a symlink to a directory, what is in there.
pub fn walk(root: &Path) -> impl Iterator<Item = Result<DirEntry, PathError>> {
    entries(WalkDir::new(root), root)
}

/// The entries of a tree, a directory after what it holds; of a symlink, itself alone.
pub fn walk_upwards(root: &Path) -> impl Iterator<Item = Result<DirEntry, PathError>> {
    entries(WalkDir::new(root).follow_root_links(false).contents_first(true), root)
}

fn entries(walk: WalkDir, root: &Path) -> impl Iterator<Item = Result<DirEntry, PathError>> {
    walk.sort_by_file_name().into_iter().map(move |entry| {
        entry.or_else(|error| {
            let path = error.path().unwrap_or(root).to_owned();
            let text = error.to_string();
            // Only a loop of symlinks is no I/O error, and none is followed.
            let source = error.into_io_error().unwrap_or_else(|| io::Error::other(text));
            Err(source).context("read", &path)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_tree_is_listed_in_the_order_of_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        fs::create_dir_all(root.join("b/c")).unwrap();
        for name in ["b-c", "b/z", "b/c/y", "Z", "ä"] {
            fs::write(root.join(name), "").unwrap();
        }
        symlink("b", root.join("link")).unwrap();
        let below = |entries: Vec<Result<DirEntry, PathError>>| -> Vec<String> {
            let paths = entries.into_iter().map(|entry| entry.unwrap().into_path());
            paths
                .map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned())
                .collect()
        };
        let names = ["", "Z", "b", "b/c", "b/c/y", "b/z", "b-c", "link", "ä"];
        assert_eq!(below(walk(&root).collect()), names);
        let upwards = ["Z", "b/c/y", "b/c", "b/z", "b", "b-c", "link", "ä", ""];
        assert_eq!(below(walk_upwards(&root).collect()), upwards);
        symlink("tree", dir.path().join("root")).unwrap();
        assert_eq!(walk(&dir.path().join("root")).count(), names.len());
        assert_eq!(walk_upwards(&dir.path().join("root")).count(), 1);
        let missing = dir.path().join("missing");
        let error = walk(&missing).next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read `{}`", missing.display()));
    }
}
