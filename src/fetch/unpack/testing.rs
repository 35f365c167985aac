//! What the tests of unpacking share: trees and errors shown as text.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The tree below `root`, a line for each node: `dir/ 755`, `file 644 content`, `link -> target`.
pub(crate) fn show(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    show_below(root, Path::new(""), &mut lines);
    lines
}

fn show_below(root: &Path, dir: &Path, lines: &mut Vec<String>) {
    for name in crate::fsio::sorted_names(&root.join(dir)).unwrap() {
        let path = dir.join(name);
        let shown = path.display();
        let physical = root.join(&path);
        let metadata = fs::symlink_metadata(&physical).unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_dir() {
            lines.push(format!("{shown}/ {mode:o}"));
            show_below(root, &path, lines);
        } else if metadata.is_symlink() {
            let target = fs::read_link(&physical).unwrap();
            lines.push(format!("{shown} -> {}", target.display()));
        } else {
            let content = fs::read(&physical).unwrap();
            lines.push(format!("{shown} {mode:o} {}", String::from_utf8_lossy(&content)));
        }
    }
}
