//! What maintainer scripts made, laid over the packages of `root`; where they could not run, what needs none.
//!
//! Invariant: a function of the store path that holds it, or of the packages; what is only given another mode or owner keeps
//! its content.

use std::path::Path;

use super::accounts::{AccountFile, AccountFiles, Accounts};
use super::error::ImageError;
use super::filesystem::{Content, FileSystem, Found, Node, NodeKind, Origin, directory_mode};
use super::layout::{ACCOUNTS_SIZE_MAX, read_accounts};
use super::numbers::{Renumbering, as_in};
use super::recipe::{Configured, Recipe};
use crate::capability::FileCapabilities;
use crate::configure::{self, Entry, Record, TREE};
use crate::fsio::{self, IoContext};

/// The files of accounts; the last two hold passwords, or rather that there are none.
const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";
const SHADOW: &str = "etc/shadow";
const GSHADOW: &str = "etc/gshadow";

/// Puts what the scripts of a recipe's packages made into the image.
pub(super) fn lay_over(recipe: &Recipe, files: &mut FileSystem) -> Result<(), ImageError> {
    let Some(configured) = &recipe.configured else {
        return Ok(());
    };
    let record = Record::read(&configured.physical)?;
    let accounts = made_accounts(&configured.physical)?;
    let (passwd, group) = (accounts.passwd.to_string_lossy(), accounts.group.to_string_lossy());
    let renumbering = Renumbering::new(
        (&passwd, &group),
        &record.accounts,
        &configured.numbers,
        &recipe.spec.users,
    );
    for (path, entry) in &record.entries {
        if let Some(node) = made(configured, path, files)? {
            let before = files.node(path.as_bytes()).cloned();
            let node = Node {
                kind: renumbered(path, node.kind, (&passwd, &group), &renumbering)?,
                mode: entry.mode,
                uid: renumbering.uid(entry.uid),
                gid: renumbering.gid(entry.gid),
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

/// A file of accounts with the numbers of the image; anything else as it is.
fn renumbered(
    path: &str,
    kind: NodeKind,
    (passwd, group): (&str, &str),
    renumbering: &Renumbering<'_>,
) -> Result<NodeKind, ImageError> {
    let NodeKind::File(content) = &kind else {
        return Ok(kind);
    };
    let text = || -> Result<String, ImageError> { Ok(read_accounts(content)?.to_string_lossy().into_owned()) };
    let text = match path {
        PASSWD => renumbering.passwd(&text()?),
        GROUP => renumbering.group(&text()?),
        SHADOW => as_in(&renumbering.passwd(passwd), &text()?),
        GSHADOW => as_in(&renumbering.group(group), &text()?),
        _ => return Ok(kind),
    };
    Ok(NodeKind::File(Content::Bytes(text.into_bytes().into())))
}

/// `etc/passwd` and `etc/group` as the scripts left them, with the numbers that they saw; empty where they made none.
pub(super) fn made_accounts(physical: &Path) -> Result<AccountFiles, ImageError> {
    let read = |path: &str| -> Result<AccountFile, ImageError> {
        let place = physical.join(TREE).join(path);
        match place.is_file() {
            true => Ok(AccountFile(fsio::read_limited(&place, ACCOUNTS_SIZE_MAX)?)),
            false => Ok(AccountFile::default()),
        }
    };
    Ok(AccountFiles {
        passwd: read(PASSWD)?,
        group: read(GROUP)?,
    })
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

/// Adds the directories that an init would make from what packages have as data, where their scripts should run and cannot.
pub(super) fn add_boot_directories(
    recipe: &Recipe,
    accounts: &Accounts,
    files: &mut FileSystem,
) -> Result<(), ImageError> {
    if recipe.configured.is_some() || recipe.spec.configure.is_none() {
        return Ok(());
    }
    let packages: Vec<(&str, &Path)> = (recipe.root.iter())
        .map(|package| (package.name.as_str(), package.physical.as_path()))
        .collect();
    for (path, Entry { mode, uid, gid, .. }) in configure::boot_directories(&packages, &accounts.system())? {
        let node = Node {
            uid,
            gid,
            ..Node::directory(mode)
        };
        match files.resolve(path.as_bytes())? {
            // What a package ships with a mode or owner of its own is meant so.
            Some((real, Found::Directory)) => {
                let usual = Node::directory(directory_mode(&real)).from(Origin::Root);
                if files.node(&real) == Some(&usual) {
                    files.insert(real, node)?;
                }
            }
            Some(_) => {}
            None => {
                let path = files.make_directory(path.as_bytes())?;
                files.insert(path, node)?;
            }
        }
    }
    Ok(())
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
    let both = read(PASSWD)?.zip(read(GROUP)?);
    Ok(both.map(|(passwd, group)| AccountFiles { passwd, group }))
}
