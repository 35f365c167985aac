//! *Roots* are what the garbage collector keeps, with everything that is reachable from them.
//!
//! Invariant: a root is a symlink in `roots/`, either to a store path or (indirect) to a link elsewhere that the
//! user may delete: then the root is stale and the next collection removes it. For whom a root is stands in the database.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Store;
use super::error::StoreError;
use crate::digest::Digest;
use crate::fsio::{IoContext, LockKind, PathError, TEMPORARY_PREFIX, give, is_temporary, note_use, sorted_names};
use crate::store_path::StorePath;

/// What the names of indirect roots begin with.
const INDIRECT_PREFIX: &str = "link-";

/// Longest name of a root in bytes.
const MAX_NAME: usize = 200;

/// Longest part of it that is a target's name, in bytes.
const MAX_TARGET: usize = 120;

/// For whom a root is: what was built.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RootOwner {
    /// The folder of the project.
    pub folder: PathBuf,
    /// What kind of thing it is: `image` or `package`.
    pub kind: String,
    /// What the project calls it.
    pub target: String,
}

impl RootOwner {
    /// What the names of its roots begin with.
    fn prefix(&self) -> String {
        let folder = Digest::of(self.folder.as_os_str().as_bytes()).hex();
        let end = (0..=MAX_TARGET.min(self.target.len())).rev();
        let end = end.into_iter().find(|&end| self.target.is_char_boundary(end));
        let mut name = self.target[..end.unwrap_or(0)].replace(|c: char| c == '/' || c == ':' || c.is_control(), "-");
        if name != self.target {
            // Another target may have come to the same name.
            name += &format!("-{}", &Digest::of(self.target.as_bytes()).hex()[..8]);
        }
        format!("{}-{}-{name}", &folder[..12], self.kind)
    }
}

/// A root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Its name in `roots/`.
    pub name: String,
    /// The link that an indirect root watches.
    pub link: Option<PathBuf>,
    /// What it keeps; `None` where it is stale: its link is gone or leads elsewhere.
    pub target: Option<StorePath>,
    /// When it was made or renewed.
    pub modified: SystemTime,
    /// For whom it is, where that is known.
    pub owner: Option<RootOwner>,
}

impl Root {
    /// Whether the folder of its project is gone. One on a disk that is not there at the moment looks the same.
    pub fn has_vanished(&self) -> bool {
        let is_gone = |error: io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        let folder = self.owner.as_ref().map(|owner| fs::symlink_metadata(&owner.folder));
        folder.is_some_and(|metadata| metadata.is_err_and(is_gone))
    }
}

impl Store {
    /// Keeps `path`, under a name that takes the place of an older root of that name.
    pub fn add_root(&self, name: &str, path: &StorePath) -> Result<(), StoreError> {
        check_name(name)?;
        self.require(path)?;
        let target = Path::new("../store").join(path.to_string());
        let _lock = self.lock(LockKind::Shared)?;
        Ok(replace_symlink(&target, &self.root_file(name))?)
    }

    /// Keeps `paths` for `owner`, in place of what was kept for it before.
    pub fn keep(&self, owner: &RootOwner, paths: &BTreeSet<StorePath>) -> Result<(), StoreError> {
        for path in paths {
            self.require(path)?;
        }
        let prefix = owner.prefix();
        let names: Vec<String> = (0..paths.len()).map(|index| format!("{prefix}-{index}")).collect();
        let _lock = self.lock(LockKind::Shared)?;
        self.database.note_roots(&names, owner)?;
        for (name, path) in names.iter().zip(paths) {
            let (target, file) = (Path::new("../store").join(path.to_string()), self.root_file(name));
            match fs::read_link(&file) {
                Ok(old) if old == target && note_use(&file) => {}
                _ => replace_symlink(&target, &file)?,
            }
        }
        let mut surplus = paths.len();
        while self.remove_root_file(&format!("{prefix}-{surplus}"))? {
            surplus += 1;
        }
        Ok(())
    }

    /// Makes `link` a symlink to the tree of `path` on disk, and keeps `path` for as long as it is one.
    ///
    /// A link into a store that stands there is replaced; anything else is an error.
    pub fn add_indirect_root(&self, link: &Path, path: &StorePath) -> Result<(), StoreError> {
        self.require(path)?;
        let link = std::path::absolute(link).context("find", link)?;
        match fs::read_link(&link) {
            Ok(old) if self.resolve(&link, &old).is_some() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => return Err(StoreError::LinkTaken { link }),
        }
        // The root first: a link that nothing keeps is worse than a root that keeps nothing.
        let _lock = self.lock(LockKind::Shared)?;
        let hash = Digest::of(link.as_os_str().as_bytes()).hex();
        let name = format!("{INDIRECT_PREFIX}{}", &hash[..32]);
        replace_symlink(&link, &self.root_file(&name))?;
        Ok(replace_symlink(&self.physical(path), &link)?)
    }

    /// Stops keeping what the root `name` keeps; true where there was such a root.
    pub fn remove_root(&self, name: &str) -> Result<bool, StoreError> {
        check_name(name)?;
        self.check_writable()?;
        self.remove_root_file(name)
    }

    /// Removes a root, or what a crash left of one; true where there was something.
    pub(super) fn remove_root_file(&self, name: &str) -> Result<bool, StoreError> {
        let file = self.root_file(name);
        match fs::remove_file(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.context("remove", &file)?,
        }
        self.database.forget_root(name)?;
        Ok(true)
    }

    /// Forgets for whom roots were that are not there. To be called with the store's lock held exclusively.
    pub(super) fn forget_lost_owners(&self) -> Result<(), StoreError> {
        for name in self.database.root_owners()?.into_keys() {
            if !self.root_file(&name).is_symlink() {
                self.database.forget_root(&name)?;
            }
        }
        Ok(())
    }

    /// Links that a crash left half made. To be called with the store's lock held exclusively.
    pub(super) fn half_made_roots(&self) -> Result<Vec<String>, StoreError> {
        let names = sorted_names(&self.dir.join("roots"))?.into_iter();
        let names = names.filter_map(|name| name.into_string().ok());
        Ok(names.filter(|name| name.starts_with(TEMPORARY_PREFIX)).collect())
    }

    /// All roots, sorted by name.
    pub fn roots(&self) -> Result<Vec<Root>, StoreError> {
        let dir = self.dir.join("roots");
        let mut owners = self.database.root_owners()?;
        let mut roots = Vec::new();
        for name in sorted_names(&dir)? {
            let file = dir.join(&name);
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
                continue;
            };
            // What is not a symlink is not a root, and what was removed meanwhile is none any more.
            let (Ok(target), Ok(metadata)) = (fs::read_link(&file), fs::symlink_metadata(&file)) else {
                continue;
            };
            let modified = metadata.modified().context("read the time of", &file)?;
            roots.push(Root {
                owner: owners.remove(name),
                ..self.root(name, &file, &target, modified)
            });
        }
        Ok(roots)
    }

    fn root(&self, name: &str, file: &Path, target: &Path, modified: SystemTime) -> Root {
        let direct = self.resolve(file, target);
        let link = direct.is_none().then(|| target.to_owned());
        let through = |link: &PathBuf| self.resolve(link, &fs::read_link(link).ok()?);
        Root {
            name: name.to_owned(),
            target: direct.or_else(|| link.as_ref().and_then(through)),
            link,
            modified,
            owner: None,
        }
    }

    /// The store path that the symlink `link` with this target leads to, whether by its logical or physical name.
    fn resolve(&self, link: &Path, target: &Path) -> Option<StorePath> {
        if let Some((path, _)) = target.to_str().and_then(|text| self.store_dir.split(text)) {
            return Some(path);
        }
        let store = self.dir.join("store");
        let relative = match (link.parent(), target.strip_prefix("../store")) {
            // Our own direct roots, which stay right when the store is moved.
            (Some(parent), Ok(below)) if parent == self.dir.join("roots") => below,
            _ => target.strip_prefix(&store).ok()?,
        };
        let base = relative.components().next()?;
        base.as_os_str().to_str()?.parse().ok()
    }

    fn root_file(&self, name: &str) -> PathBuf {
        self.dir.join("roots").join(name)
    }

    /// That `path` is valid, and stays so while this store is open.
    fn require(&self, path: &StorePath) -> Result<(), StoreError> {
        self.check_writable()?;
        match self.info(path)? {
            Some(_) => Ok(()),
            None => Err(StoreError::NotValid {
                path: path.clone(),
                needed_by: None,
            }),
        }
    }
}

fn check_name(name: &str) -> Result<(), StoreError> {
    let reason = match name.as_bytes() {
        [] => "it is empty",
        [b'.', ..] => "it starts with a dot",
        bytes if bytes.len() > MAX_NAME => "it is longer than 200 bytes",
        bytes if bytes.iter().any(|&byte| byte == b'/' || byte.is_ascii_control()) => {
            "it holds a slash or a control character"
        }
        _ => return Ok(()),
    };
    Err(StoreError::RootName {
        name: name.to_owned(),
        reason,
    })
}

/// Makes `link` a symlink to `target`, in one step where it is one already. What a process that was killed meanwhile left
/// goes: links cannot be locked, their directory is.
fn replace_symlink(target: &Path, link: &Path) -> Result<(), PathError> {
    let parent = link.parent().unwrap_or(Path::new("."));
    let lock = File::open(parent).ok().filter(|dir| dir.lock().is_ok());
    if lock.is_some() {
        for name in sorted_names(parent).unwrap_or_default() {
            let path = parent.join(&name);
            if is_temporary(&name) && path.is_symlink() {
                let _ = fs::remove_file(&path);
            }
        }
    }
    let temporary = tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .make_in(parent, |path| symlink(target, path))
        .context("create a symlink in", parent)?;
    give(temporary.path())?;
    temporary
        .into_temp_path()
        .persist(link)
        .map_err(|error| error.error)
        .context("create the symlink", link)
}
