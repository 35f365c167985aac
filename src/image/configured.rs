//! What maintainer scripts made, laid over the packages of `root`.
//!
//! Invariant: a function of the store path that holds it; what is only given another mode or owner keeps its content.

use super::accounts::{AccountFile, AccountFiles};
use super::error::ImageError;
use super::filesystem::{Content, FileSystem, Found, Node, NodeKind, Origin};
use super::layout::read_accounts;
use super::recipe::{Configured, Recipe};
use crate::capability::FileCapabilities;
use crate::configure::{Record, TREE};
use crate::fsio::IoContext;

/// Puts what the scripts of a recipe's packages made into the image.
pub(super) fn lay_over(recipe: &Recipe, files: &mut FileSystem) -> Result<(), ImageError> {
    let Some(configured) = &recipe.configured else {
        return Ok(());
    };
    let record = Record::read(&configured.physical)?;
    for (path, entry) in &record.entries {
        if let Some(node) = made(configured, path, files)? {
            let before = files.node(path.as_bytes()).cloned();
            let node = Node {
                mode: entry.mode,
                uid: entry.uid,
                gid: entry.gid,
                capabilities: entry
                    .capability
                    .as_deref()
                    .and_then(FileCapabilities::from_hex)
                    .or(node.capabilities),
                ..node
            };
            // What a package ships with this mode and owner is in its own layer.
            if before.is_none_or(|before| before != node) {
                put(path.as_bytes(), node.from(Origin::Configured), files)?;
            }
        }
    }
    Ok(())
}

/// What is at `path` in the scripts' tree, or if there is nothing, in the image.
fn made(configured: &Configured, path: &str, files: &FileSystem) -> Result<Option<Node>, ImageError> {
    let physical = configured.physical.join(TREE).join(path);
    let Ok(metadata) = physical.symlink_metadata() else {
        return Ok(files.node(path.as_bytes()).cloned());
    };
    if metadata.is_dir() {
        return Ok(Some(Node::directory(0o755)));
    }
    if metadata.is_symlink() {
        let target = std::fs::read_link(&physical).context("read the link", &physical)?;
        let target = std::os::unix::ffi::OsStringExt::into_vec(target.into_os_string());
        return Ok(Some(Node::symlink(target)));
    }
    let content = Content::Disk {
        physical,
        size: metadata.len(),
        identity: format!("{} {}", configured.nar_hash, path.escape_default()),
    };
    Ok(Some(Node::file(content, false)))
}

fn put(path: &[u8], node: Node, files: &mut FileSystem) -> Result<(), ImageError> {
    if node.kind == NodeKind::Directory {
        let path = files.make_directory(path)?;
        return files.insert(path, node);
    }
    let path = files.make_parent(path)?;
    files.insert(path, node)
}

/// `etc/passwd` and `etc/group` as scripts left them, where they made both.
pub(super) fn accounts(recipe: &Recipe, files: &FileSystem) -> Result<Option<AccountFiles>, ImageError> {
    if recipe.configured.is_none() {
        return Ok(None);
    }
    let read = |path: &str| -> Result<Option<AccountFile>, ImageError> {
        match files.resolve(path.as_bytes())? {
            Some((_, Found::File { content, .. })) => read_accounts(&content).map(Some),
            _ => Ok(None),
        }
    };
    let both = read("etc/passwd")?.zip(read("etc/group")?);
    Ok(both.map(|(passwd, group)| AccountFiles { passwd, group }))
}
