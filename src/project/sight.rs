//! What a project's results depend on, *seen from outside*: which of its own files there are, and when each was changed.
//!
//! Invariant: no file is read but the spec and what it imports; two sights that are equal are of files that nobody has changed
//! in between, and what builds leave out is in neither.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

use crate::fetch::local::{self, LocalSource};
use crate::fsio::{normalize, walk};
use crate::spec::ImageFileKind;

use super::environment::Environment;
use super::error::ProjectError;
use super::files::Project;

/// Most directories that the kernel is asked to tell of.
const DIRS_MAX: usize = 20_000;

/// The files of a project.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// What is known of each file, by its path.
    files: BTreeMap<PathBuf, Stamp>,
    /// The directories in which they are, and more.
    dirs: BTreeSet<PathBuf>,
}

/// What changes when a file does: device, inode, mode, size, and the times of content and inode in seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u64, u32, u64, (i64, i64), (i64, i64));

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let (size, times) = match metadata.is_dir() {
            // A directory is what is in it.
            true => (0, [(0, 0); 2]),
            false => (
                metadata.len(),
                [
                    (metadata.mtime(), metadata.mtime_nsec()),
                    (metadata.ctime(), metadata.ctime_nsec()),
                ],
            ),
        };
        Self(
            metadata.dev(),
            metadata.ino(),
            metadata.mode(),
            size,
            times[0],
            times[1],
        )
    }
}

impl Sight {
    /// Looks at the files of the project as they are now: spec, imports, lock, local sources and the images' own files.
    pub fn of(project: &Project) -> Result<Self, ProjectError> {
        let mut sight = Self::default();
        for file in &project.workspace.files {
            sight.add(&project.dir.join(&file.path));
        }
        sight.add(&project.lock_path());
        for package in project.workspace.packages.values() {
            if let Some(mut source) = LocalSource::of(package) {
                let exclude = project.exclude(&source);
                source.exclude = &exclude;
                let paths = local::paths(&source).map_err(|error| ProjectError::Source {
                    package: package.name.value.0.clone(),
                    source: Box::new(error),
                })?;
                paths.iter().for_each(|path| sight.add(path));
            }
        }
        for image in project.workspace.images.values() {
            for file in image.files.values() {
                if let ImageFileKind::Source(path) = &file.value.kind {
                    let path = image.dir.join(path);
                    let below = walk(&path).filter_map(Result::ok);
                    below.for_each(|entry| sight.add(entry.path()));
                }
            }
        }
        Ok(sight)
    }

    /// Looks at the spec alone, where it cannot be read as one.
    pub fn of_spec(environment: &Environment<'_>) -> Result<Self, ProjectError> {
        let mut sight = Self::default();
        sight.add(&Project::spec_path(environment)?);
        Ok(sight)
    }

    /// Adds what was seen in another sight as it is now.
    pub fn with_those_of(mut self, other: &Self) -> Self {
        other.files.keys().for_each(|path| self.add(path));
        self.dirs.extend(other.dirs.iter().cloned());
        self
    }

    fn add(&mut self, path: &Path) {
        let path = normalize(path);
        if let Some(parent) = path.parent() {
            self.dirs.insert(parent.to_owned());
        }
        // One that is not there is no file yet; its directory tells when it comes.
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            return;
        };
        if metadata.is_dir() {
            self.dirs.insert(path.clone());
        }
        self.files.insert(path, Stamp::of(&metadata));
    }

    /// How many files there are, directories left out.
    pub fn count(&self) -> usize {
        self.files.keys().filter(|path| !self.dirs.contains(*path)).count()
    }

    /// What is other in `new`: changed, new and gone.
    pub fn changes<'a>(&'a self, new: &'a Self) -> Vec<&'a Path> {
        let all: BTreeSet<&PathBuf> = self.files.keys().chain(new.files.keys()).collect();
        let changed = all
            .into_iter()
            .filter(|path| self.files.get(*path) != new.files.get(*path));
        changed.map(PathBuf::as_path).collect()
    }
}

/// Waits for changes: the kernel tells of most, and whoever waits looks again after a while.
#[derive(Debug, Default)]
pub struct Alarm {
    inotify: Option<OwnedFd>,
}

impl Alarm {
    /// An alarm for the directories of a sight. Where the kernel tells nothing, it goes off when the time is over.
    pub fn of(sight: &Sight) -> Self {
        let Ok(inotify) = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) else {
            return Self::default();
        };
        let what = WatchFlags::ATTRIB
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::MOVE
            | WatchFlags::ONLYDIR;
        for dir in sight.dirs.iter().take(DIRS_MAX) {
            // One that is gone, or one too many for the kernel, is looked at in any case.
            let _ = add_watch(&inotify, dir, what);
        }
        Self { inotify: Some(inotify) }
    }

    /// Waits until something may have changed, at most so long; whether the kernel says so. What it says is used up.
    pub fn wait(&self, at_most: Duration) -> bool {
        let Some(inotify) = &self.inotify else {
            std::thread::sleep(at_most);
            return false;
        };
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::ZERO);
        let mut fds = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
        let told = poll(&mut fds, timeout).is_ok_and(|count| count > 0);
        if told {
            let mut buffer = [0; 16 << 10];
            while rustix::io::read(inotify, &mut buffer).is_ok_and(|count| count > 0) {}
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_changed_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let look = || {
            let mut sight = Sight::default();
            for name in ["one", "two", "sub", "sub/three"] {
                sight.add(&path(name));
            }
            sight
        };
        for name in ["one", "two"] {
            fs::write(path(name), "x").unwrap();
        }
        let before = look();
        assert_eq!(before, look());
        assert_eq!(before.count(), 2);
        // An editor that saves by renaming, of the same size.
        fs::write(path("new"), "y").unwrap();
        fs::rename(path("new"), path("one")).unwrap();
        fs::create_dir(path("sub")).unwrap();
        fs::write(path("sub/three"), "").unwrap();
        fs::remove_file(path("two")).unwrap();
        let after = look();
        let changed = [path("one"), path("sub"), path("sub/three"), path("two")];
        assert_eq!(
            before.changes(&after),
            changed.iter().map(PathBuf::as_path).collect::<Vec<_>>()
        );
        // What is written beside them changes nothing.
        fs::write(path("sub/other"), "").unwrap();
        assert_eq!(after.changes(&look()), Vec::<&Path>::new());
    }

    #[test]
    fn the_kernel_tells_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut sight = Sight::default();
        sight.add(&dir.path().join("file"));
        let alarm = Alarm::of(&sight);
        assert!(!alarm.wait(Duration::from_millis(1)));
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(alarm.wait(Duration::from_secs(60)));
        assert!(!alarm.wait(Duration::from_millis(1)));
    }
}
