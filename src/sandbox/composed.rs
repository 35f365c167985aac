//! A *composed root* is a sandbox's root put together without mounts: hard links to the files of packages in directories
//! of its own, and the build's own directories moved in for as long as the build runs.
//!
//! Invariant: nothing of the store can be changed through it. Its files are the store's, so whoever runs in it must be a
//! user who owns none of them: what that user would own is copied; or be kept from changing anything (`traced`). Afterwards what was moved in is back at its place and
//! belongs to who builds, and no file in it is another's by a second name.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::copy::{STORE_TIME, set_time_to};
use super::request::Bind;
use super::tree::make_dir;
use crate::fsio::{IoContext, PathError, copy_file, remove_tree, sorted_names, walk_upwards};

/// The harmless devices, with their numbers (Documentation/admin-guide/devices.txt of Linux).
pub(super) const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// A root being used, and what was moved into it.
pub(super) struct ComposedRoot {
    /// Where each directory belongs, and where it is meanwhile.
    moved: Vec<(PathBuf, PathBuf)>,
    /// Inputs that were placed in what was moved.
    placed: Vec<PathBuf>,
    /// User and group of the build; `None`: it is whoever builds.
    builder: Option<(u32, u32)>,
}

impl ComposedRoot {
    /// Composes in `root`, an empty directory, what `layers` (the topmost first) and `binds` are to look like to `builder`.
    pub(super) fn compose(
        root: &Path,
        layers: &[PathBuf],
        binds: &[Bind],
        builder: Option<(u32, u32)>,
    ) -> Result<Self, PathError> {
        let mut composition = Composition {
            owner: builder.map(|(user, _)| user),
            directories: Vec::new(),
        };
        for layer in layers {
            composition.merge(layer, root)?;
        }
        devices(&root.join("dev"))?;
        let mut composed = Self {
            moved: Vec::new(),
            placed: Vec::new(),
            builder,
        };
        for bind in binds {
            let place = root.join(bind.target.strip_prefix("/").unwrap_or(&bind.target));
            match bind.writable {
                true => composed.move_in(bind, place, binds)?,
                false => composed.place(bind, place)?,
            }
        }
        // What was moved in stands in place of an empty directory, and looks as it did.
        let is_own = |place: &PathBuf| composed.moved.iter().all(|(_, moved)| moved != place);
        composition.directories.retain(|(place, _)| is_own(place));
        composition.seal()?;
        Ok(composed)
    }

    fn move_in(&mut self, bind: &Bind, place: PathBuf, binds: &[Bind]) -> Result<(), PathError> {
        if let Some(builder) = self.builder {
            for entry in walk_upwards(&bind.source) {
                change_owner(entry?.path(), builder)?;
            }
            let holds_inputs = |other: &Bind| !other.writable && other.target.parent() == Some(&bind.target);
            if binds.iter().any(holds_inputs) {
                // Nobody but its owner renames or removes what is in a sticky directory.
                change_owner(&bind.source, own_ids())?;
                set_mode(&bind.source, 0o1777)?;
            }
        }
        fs::rename(&bind.source, &place).context("move", &bind.source)?;
        self.moved.push((bind.source.clone(), place));
        Ok(())
    }

    /// Puts a read-only input at its place, where there is an empty file or directory.
    fn place(&mut self, bind: &Bind, place: PathBuf) -> Result<(), PathError> {
        remove_tree(&place)?;
        let mut composition = Composition {
            owner: self.builder.map(|(user, _)| user),
            directories: Vec::new(),
        };
        composition.merge(&bind.source, &place)?;
        composition.seal()?;
        self.placed.push(place);
        Ok(())
    }

    /// Puts everything back. No process of the build may be left.
    pub(super) fn give_back(self) -> Result<(), PathError> {
        for place in self.placed.iter().rev() {
            remove_tree(place)?;
        }
        for (source, place) in self.moved.iter().rev() {
            if self.builder.is_none() {
                // Only root moves what is in a directory that nobody may write to, and a directory that is one.
                for dir in [place.parent(), Some(place)].into_iter().flatten() {
                    let mode = fs::symlink_metadata(dir).context("read", dir)?.mode();
                    set_mode(dir, mode & 0o7777 | 0o700)?;
                }
            }
            fs::rename(place, source).context("move", place)?;
            if let Some((builder, _)) = self.builder {
                for entry in walk_upwards(source) {
                    take_over(entry?.path(), builder)?;
                }
            }
            let mode = fs::symlink_metadata(source).context("read", source)?.mode();
            set_mode(source, mode & 0o777)?;
        }
        Ok(())
    }
}

/// Makes what the build left ours.
fn take_over(path: &Path, builder: u32) -> Result<(), PathError> {
    let metadata = fs::symlink_metadata(path).context("read", path)?;
    if metadata.uid() == builder {
        return change_owner(path, own_ids());
    }
    // A second name of a file that the build did not make.
    if metadata.is_file() && metadata.nlink() > 1 {
        let aside = path.with_extension("layerize-copy");
        copy(path, &aside, &metadata)?;
        fs::rename(&aside, path).context("move", &aside)?;
    }
    Ok(())
}

/// Whoever builds.
fn own_ids() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

fn change_owner(path: &Path, (user, group): (u32, u32)) -> Result<(), PathError> {
    lchown(path, Some(user), Some(group)).context("change the owner of", path)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), PathError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).context("set the mode of", path)
}

/// Trees being laid over each other.
struct Composition {
    /// Who may own nothing that is linked; `None`: nobody can change anything, whoever owns it.
    owner: Option<u32>,
    /// The directories that were made, with what they are to look like.
    directories: Vec<(PathBuf, Metadata)>,
}

impl Composition {
    /// Lays what `source` has and `dest` lacks below it.
    fn merge(&mut self, source: &Path, dest: &Path) -> Result<(), PathError> {
        let metadata = fs::symlink_metadata(source).context("read", source)?;
        let there = fs::symlink_metadata(dest).ok();
        if !metadata.is_dir() {
            return match there {
                Some(_) => Ok(()),
                None => self.add(source, dest, &metadata),
            };
        }
        match there {
            Some(there) if !there.is_dir() => return Ok(()),
            Some(_) => {}
            None => {
                make_dir(dest, 0o755)?;
                self.directories.push((dest.to_owned(), metadata));
            }
        }
        for name in sorted_names(source)? {
            self.merge(&source.join(&name), &dest.join(&name))?;
        }
        Ok(())
    }

    fn add(&self, source: &Path, dest: &Path, metadata: &Metadata) -> Result<(), PathError> {
        if metadata.is_symlink() {
            let target = fs::read_link(source).context("read the link", source)?;
            symlink(target, dest).context("create the link", dest)?;
            return set_time_to(dest, metadata.mtime());
        }
        // A file may have no more names, or be one that its owner alone may give another.
        let is_linked = Some(metadata.uid()) != self.owner && fs::hard_link(source, dest).is_ok();
        if is_linked {
            Ok(())
        } else {
            copy(source, dest, metadata)
        }
    }

    /// Gives the directories that were made their modes and times.
    fn seal(&self) -> Result<(), PathError> {
        for (path, metadata) in self.directories.iter().rev() {
            set_mode(path, metadata.mode() & 0o7777)?;
            set_time_to(path, metadata.mtime())?;
        }
        Ok(())
    }
}

/// A copy that looks like its original, and is ours.
fn copy(source: &Path, dest: &Path, metadata: &Metadata) -> Result<(), PathError> {
    copy_file(source, dest)?;
    set_mode(dest, metadata.mode() & 0o777)?;
    set_time_to(dest, metadata.mtime())
}

/// Makes what a `/dev` has: the harmless nodes, links, and memory that is shared (here: a directory). A file system may be
/// mounted so that no node works: what opens them is served by the guard.
fn devices(dev: &Path) -> Result<(), PathError> {
    for (name, major, minor) in DEVICES {
        let node = dev.join(name);
        let mode = Mode::from_bits_truncate(0o666);
        match mknod(&node, SFlag::S_IFCHR, mode, makedev(major, minor)) {
            Ok(()) => set_mode(&node, 0o666)?,
            // A container may not make nodes. Whoever opens it is served all the same.
            Err(_) => fs::write(&node, "").context("write", &node)?,
        }
    }
    for (name, target) in super::mounts::DEVICE_LINKS.iter().filter(|(name, _)| *name != "ptmx") {
        let link = dev.join(name);
        symlink(target, &link).context("create the link", &link)?;
    }
    make_dir(&dev.join("shm"), 0o1777)?;
    set_time_to(dev, STORE_TIME)
}
