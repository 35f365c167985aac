//! The *places* of a container that an engine makes over the image: mount points, volumes, the working directory, a few files
//! of `/etc`.
//!
//! Invariant: a place is where the image's own links lead, never outside its root; it is looked up before anything of the image
//! runs, in a tree that nobody else writes to. What the image has keeps its owner and mode.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::ContainerError;
use super::tree::note;
use crate::fsio::{IoContext, PathError};
use crate::sandbox::{Identity, OWNER_ATTRIBUTE};

/// Most symlinks that are followed for one path (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Longest note of an owner.
const NOTE_MAX: usize = 64;

/// Directories on which something is mounted whatever the image has there.
const MOUNT_POINTS: [&str; 3] = ["dev", "proc", "sys"];

/// A tree that lies over an image's root, being made.
pub(super) struct Places<'a> {
    root: &'a Path,
    over: PathBuf,
    user: &'a Identity,
    /// Directories that were made, whose modes are given last.
    made: Vec<PathBuf>,
}

impl<'a> Places<'a> {
    /// Starts with the mount points; `over` must not exist.
    pub(super) fn create(root: &'a Path, over: PathBuf, user: &'a Identity) -> Result<Self, ContainerError> {
        private_dir(&over)?;
        let mut places = Self {
            root,
            over,
            user,
            made: Vec::new(),
        };
        for name in MOUNT_POINTS {
            places.directory_at(Path::new(name))?;
        }
        Ok(places)
    }

    /// Makes sure that there is a directory at a path; gives where that is without links.
    pub(super) fn directory(&mut self, path: &str) -> Result<PathBuf, ContainerError> {
        let place = resolve(self.root, path)?;
        self.directory_at(&place)?;
        Ok(place)
    }

    /// Whether `/etc` is a directory of the image, or nothing yet: one that is a link leads to what may be anything.
    pub(super) fn has_own_etc(&self) -> bool {
        self.root
            .join("etc")
            .symlink_metadata()
            .map_or(true, |metadata| metadata.is_dir())
    }

    /// Puts a file there, in place of what the image has.
    pub(super) fn file(&mut self, path: &str, text: &str) -> Result<(), ContainerError> {
        let place = self.over_file(Path::new(path))?;
        fs::write(&place, text).context("write", &place)?;
        Ok(note(&place, 0, 0, 0o644, self.user)?)
    }

    /// An empty file on which another is bound; gives where it is.
    pub(super) fn file_mount_point(&mut self, path: &str) -> Result<PathBuf, ContainerError> {
        let place = resolve(self.root, path)?;
        if self.root.join(&place).is_dir() || self.over.join(&place).is_dir() {
            return Err(ContainerError::Place {
                path: path.to_owned(),
                reason: "a file cannot take the place of a directory".to_owned(),
            });
        }
        let physical = self.over_file(&place)?;
        fs::write(&physical, "").context("write", &physical)?;
        Ok(place)
    }

    /// A link, where the image has nothing.
    pub(super) fn link_if_missing(&mut self, path: &str, target: &str) -> Result<(), ContainerError> {
        if self.root.join(path).symlink_metadata().is_err() {
            let place = self.over_file(Path::new(path))?;
            symlink(target, &place).context("create the link", &place)?;
        }
        Ok(())
    }

    /// Gives all directories the owners and modes that they have in the image.
    pub(super) fn finish(self) -> Result<PathBuf, ContainerError> {
        for below in self.made.iter().rev() {
            self.settle(below)?;
        }
        copy_note(self.root, &self.over)?;
        Ok(self.over)
    }

    fn settle(&self, below: &Path) -> Result<(), PathError> {
        let (of_image, own) = (self.root.join(below), self.over.join(below));
        if is_mount_point(below) {
            // As the file systems have it that engines mount there.
            return note(&own, 0, 0, 0o555, self.user);
        }
        match of_image.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            true => copy_note(&of_image, &own),
            false => note(&own, 0, 0, 0o755, self.user),
        }
    }

    fn over_file(&mut self, place: &Path) -> Result<PathBuf, ContainerError> {
        if let Some(parent) = place.parent() {
            self.directory_at(parent)?;
        }
        Ok(self.over.join(place))
    }

    /// A directory with its parents, at a place without links.
    fn directory_at(&mut self, place: &Path) -> Result<(), ContainerError> {
        let mut below = PathBuf::new();
        for part in place.components() {
            below.push(part);
            let of_image = self.root.join(&below).symlink_metadata();
            if of_image.is_ok_and(|metadata| metadata.is_file()) && !is_mount_point(&below) {
                return Err(ContainerError::Place {
                    path: format!("/{}", place.display()),
                    reason: format!("`/{}` is a file there", below.display()),
                });
            }
            let own = self.over.join(&below);
            if own.symlink_metadata().is_err() {
                private_dir(&own)?;
                self.made.push(below.clone());
            }
        }
        Ok(())
    }
}

fn is_mount_point(below: &Path) -> bool {
    MOUNT_POINTS.iter().any(|name| below.as_os_str() == *name)
}

fn private_dir(path: &Path) -> Result<(), PathError> {
    fs::create_dir(path).context("create directory", path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).context("set the mode of", path)
}

/// Gives a directory of ours what a directory of the image has.
pub(super) fn copy_note(from: &Path, to: &Path) -> Result<(), PathError> {
    let mut text = [0; NOTE_MAX];
    let errno = |error: rustix::io::Errno| std::io::Error::from(error);
    let size = getxattr(from, OWNER_ATTRIBUTE, &mut text[..]);
    let size = size.map_err(errno).context("read the owner of", from)?;
    let set = setxattr(to, OWNER_ATTRIBUTE, &text[..size], XattrFlags::empty());
    set.map_err(errno).context("note the owner of", to)?;
    let permissions = fs::metadata(from).context("read", from)?.permissions();
    fs::set_permissions(to, permissions).context("set the mode of", to)
}

/// Where a path of the image is without links, relative to its root: by its own links, `..` stopping at the root. What is not
/// there is where it would be made.
pub(super) fn resolve(root: &Path, path: &str) -> Result<PathBuf, ContainerError> {
    let parts = |path: &Path| -> Vec<OsString> {
        let parts = path.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        });
        parts.collect::<Vec<_>>().into_iter().rev().collect()
    };
    let (mut place, mut links) = (PathBuf::new(), 0);
    let mut left = parts(Path::new(path));
    while let Some(part) = left.pop() {
        if part == OsStr::from_bytes(b"..") {
            place.pop();
            continue;
        }
        let next = place.join(&part);
        let Ok(target) = fs::read_link(root.join(&next)) else {
            place = next;
            continue;
        };
        links += 1;
        if links > LINKS_MAX {
            return Err(ContainerError::Place {
                path: path.to_owned(),
                reason: format!("it leads through more than {LINKS_MAX} links"),
            });
        }
        if target.is_absolute() {
            place = PathBuf::new();
        }
        left.extend(parts(&target));
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_link_of_an_image_leads_out_of_its_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("data/deep")).unwrap();
        for (path, target) in [
            ("abs", "/data"),
            ("up", "../../../../data"),
            ("data/deep/over", "../../../../etc"),
            ("circle", "circle"),
            ("chain", "abs/deep/./"),
        ] {
            symlink(target, root.join(path)).unwrap();
        }
        for (path, expected) in [
            ("/abs/x", "data/x"),
            ("/up/deep", "data/deep"),
            ("/data/deep/over/passwd", "etc/passwd"),
            ("/../../outside", "outside"),
            ("/chain/new/dir", "data/deep/new/dir"),
            ("/", ""),
        ] {
            assert_eq!(resolve(&root, path).unwrap(), Path::new(expected), "{path}");
        }
        assert!(resolve(&root, "/circle/x").is_err());
    }
}
