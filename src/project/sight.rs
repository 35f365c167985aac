//! What a project's results depend on, *seen from outside*: which of its own files there are, and when each was changed.
//!
//! Invariant: no file is read but the spec and what it imports; two sights that are equal are of files that nobody has changed
//! in between, and what builds leave out is in neither.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch};

use crate::fetch::local::{self, LocalSource};
use crate::fsio::{Stamp, normalize, walk};
use crate::spec::ImageFileKind;

use super::environment::Environment;
use super::error::ProjectError;
use super::files::Project;
use super::git_ignore::IGNORE_NAME;

/// Most directories that the kernel is asked to tell of.
const DIRS_MAX: usize = 20_000;

/// The files of a project.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// What is known of each file, by its path.
    files: BTreeMap<PathBuf, Stamp>,
    /// The directories in which they are, and more.
    dirs: BTreeSet<PathBuf>,
    /// The files that say which others there are, `.gitignore` files left out.
    deciding: BTreeSet<PathBuf>,
    /// Files that are not there.
    awaited: BTreeSet<PathBuf>,
}

impl Sight {
    /// Looks at the files of the project as they are now: spec, imports, lock, local sources and the images' own files.
    pub fn of(project: &Project) -> Result<Self, ProjectError> {
        let mut sight = Self::default();
        for file in &project.workspace.files {
            let path = project.dir.join(&file.path);
            sight.add(&path);
            sight.deciding.insert(normalize(&path));
        }
        sight.add(&project.lock_path());
        for package in project.workspace.packages.values() {
            if let Some(mut source) = LocalSource::of(package) {
                let exclude = project.exclude(&source);
                source.exclude = &exclude;
                let stamps = local::stamps(&source).map_err(|error| ProjectError::Source {
                    package: package.name.value.0.clone(),
                    source: Box::new(error),
                })?;
                stamps.into_iter().for_each(|(path, stamp)| sight.note(&path, stamp));
                // Itself, where it is a link.
                sight.add(&source.dir.join(source.path));
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
        let path = Project::spec_path(environment)?;
        sight.add(&path);
        sight.deciding.insert(normalize(&path));
        Ok(sight)
    }

    /// Adds what was seen in another sight as it is now.
    pub fn with_those_of(mut self, other: &Self) -> Self {
        other.files.keys().for_each(|path| self.add(path));
        self.dirs.extend(other.dirs.iter().cloned());
        self.deciding.extend(other.deciding.iter().cloned());
        self.awaited.extend(other.awaited.iter().cloned());
        self
    }

    fn add(&mut self, path: &Path) {
        let path = normalize(path);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => self.note(&path, Stamp::of(&metadata)),
            // One that is not there is no file yet; its directory tells when it comes.
            Err(_) => {
                self.dirs.extend(path.parent().map(Path::to_owned));
                self.awaited.insert(path);
            }
        }
    }

    fn note(&mut self, path: &Path, stamp: Stamp) {
        let path = normalize(path);
        if let Some(parent) = path.parent().filter(|parent| !self.dirs.contains(*parent)) {
            self.dirs.insert(parent.to_owned());
        }
        if stamp.is_dir() {
            self.dirs.insert(path.clone());
        }
        self.files.insert(path, stamp);
    }

    /// The files where only those at `told` may have changed; no other is looked at. `None` where that may have made others
    /// of what there is: a file is new or gone, or one has changed that decides on others.
    pub fn again(&self, told: &BTreeSet<PathBuf>) -> Option<Self> {
        let mut new = self.clone();
        for path in told {
            let found = fs::symlink_metadata(path).ok().map(|metadata| Stamp::of(&metadata));
            match (self.files.get(path), found) {
                // What an editor writes beside a file, and is gone again.
                (None, None) => {}
                (Some(seen), Some(found)) if seen == &found => {}
                (Some(seen), Some(found)) if !seen.is_dir() && !found.is_dir() && !self.decides(path) => {
                    new.files.insert(path.clone(), found);
                }
                _ => return None,
            }
        }
        Some(new)
    }

    /// What of it is about the project: of a directory that holds one file of it, such as the one around the project, most is not.
    pub fn filter(&self, told: Told) -> Told {
        let Told::At(mut paths) = told else { return told };
        paths.retain(|path| {
            let is_inside = path.parent().is_some_and(|parent| self.files.contains_key(parent));
            is_inside || self.files.contains_key(path) || self.awaited.contains(path)
        });
        match paths.is_empty() {
            true => Told::Nothing,
            false => Told::At(paths),
        }
    }

    fn decides(&self, path: &Path) -> bool {
        self.deciding.contains(path) || path.file_name() == Some(OsStr::new(IGNORE_NAME))
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

/// What the kernel told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Nothing.
    Nothing,
    /// Something happened at these paths, and nowhere else.
    At(BTreeSet<PathBuf>),
    /// More than it could tell.
    Anywhere,
}

impl Told {
    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, told) | (told, Self::Nothing) => told,
            (Self::At(mut paths), Self::At(others)) => {
                paths.extend(others);
                Self::At(paths)
            }
            (Self::Anywhere, _) | (_, Self::Anywhere) => Self::Anywhere,
        }
    }
}

/// Waits for changes: the kernel tells of most, and whoever waits looks again after a while.
#[derive(Debug, Default)]
pub struct Alarm {
    inotify: Option<OwnedFd>,
    /// The directories that the kernel tells of, by its numbers.
    dirs: BTreeMap<i32, PathBuf>,
}

impl Alarm {
    /// An alarm that [attends](Self::attend) to nothing yet. Where the kernel tells nothing, it goes off when the time is over.
    pub fn new() -> Self {
        Self {
            inotify: init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok(),
            dirs: BTreeMap::new(),
        }
    }

    /// Whether it hears nothing at all.
    pub fn is_deaf(&self) -> bool {
        self.dirs.is_empty()
    }

    /// Attends to the directories of a sight from now on, and to no others; whether one is among them that it did not attend to
    /// before, in which something may have changed unheard since it was seen.
    pub fn attend(&mut self, sight: &Sight) -> bool {
        let Some(inotify) = &self.inotify else { return false };
        let what = WatchFlags::ATTRIB
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::MOVE
            | WatchFlags::ONLYDIR;
        let mut dirs = BTreeMap::new();
        for dir in sight.dirs.iter().take(DIRS_MAX) {
            // One that is gone, or one too many for the kernel, is looked at in any case. One that was moved here keeps its
            // number, and has another path now.
            if let Ok(number) = add_watch(inotify, dir, what) {
                dirs.insert(number, dir.clone());
            }
        }
        let is_new = dirs.iter().any(|(number, dir)| self.dirs.get(number) != Some(dir));
        for number in self.dirs.keys().filter(|number| !dirs.contains_key(number)) {
            // The kernel forgets those that are gone by itself.
            let _ = remove_watch(inotify, *number);
        }
        self.dirs = dirs;
        is_new
    }

    /// Waits until something may have changed, at most so long, and gives what the kernel says of it, which is used up.
    pub fn wait(&self, at_most: Duration) -> Told {
        let Some(inotify) = &self.inotify else {
            std::thread::sleep(at_most);
            return Told::Nothing;
        };
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::ZERO);
        let mut fds = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
        let mut told = Told::Nothing;
        if poll(&mut fds, timeout).is_ok_and(|count| count > 0) {
            let mut buffer = [MaybeUninit::uninit(); 16 << 10];
            let mut events = Reader::new(inotify, &mut buffer);
            while let Ok(event) = events.next() {
                let happened = event.events();
                let dir = self.dirs.get(&event.wd());
                told = told.and(match (dir, event.file_name()) {
                    _ if happened.contains(ReadFlags::QUEUE_OVERFLOW) => Told::Anywhere,
                    // The directory is gone, or is none that is attended to any more.
                    (None, _) => Told::Nothing,
                    (Some(dir), None) => Told::At([dir.clone()].into()),
                    (Some(dir), Some(name)) => Told::At([dir.join(OsStr::from_bytes(name.to_bytes()))].into()),
                });
            }
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

    /// Only what the kernel told of is looked at, and all where that is not enough.
    #[test]
    fn what_is_told_is_looked_at_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("sub")).unwrap();
        let names = ["one", "two", "spec", "sub/.gitignore"];
        names.iter().for_each(|name| fs::write(path(name), "x").unwrap());
        let look = || {
            let mut sight = Sight::default();
            let all = names.iter().chain(&["sub"]);
            all.for_each(|name| sight.add(&path(name)));
            sight.deciding.insert(path("spec"));
            sight
        };
        let before = look();
        let again = |names: &[&str]| before.again(&names.iter().map(|name| path(name)).collect());
        for name in names {
            fs::write(path(name), "other").unwrap();
        }
        let new = again(&["one", "gone again", "sub"]).unwrap();
        assert_eq!(before.changes(&new), [path("one")], "`two` was not told of");
        fs::write(path("three"), "").unwrap();
        for whole in ["spec", "sub/.gitignore", "three"] {
            assert_eq!(again(&["one", whole]), None, "{whole}");
        }
        fs::remove_file(path("two")).unwrap();
        assert_eq!(again(&["two"]), None);
        fs::create_dir(path("two")).unwrap();
        assert_eq!(again(&["two"]), None);
        // Of what is around the project only what belongs to it counts.
        let mut sight = Sight::default();
        ["one", "sub", "missing"].iter().for_each(|name| sight.add(&path(name)));
        let at = |names: &[&str]| Told::At(names.iter().map(|name| path(name)).collect());
        let told = sight.filter(at(&["one", "three", "missing", "sub/new"]));
        assert_eq!(told, at(&["one", "missing", "sub/new"]));
        assert_eq!(sight.filter(at(&["three"])), Told::Nothing);
        assert_eq!(sight.filter(Told::Anywhere), Told::Anywhere);
    }

    #[test]
    fn the_kernel_tells_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let seen = |names: &[&str]| {
            let mut sight = Sight::default();
            names.iter().for_each(|name| sight.add(&path(name)));
            sight
        };
        let at = |names: &[&str]| Told::At(names.iter().map(|name| path(name)).collect());
        let moment = Duration::from_millis(1);
        let long = Duration::from_secs(60);
        let mut alarm = Alarm::new();
        assert!(alarm.is_deaf());
        assert!(alarm.attend(&seen(&["file"])) && !alarm.is_deaf());
        assert!(!alarm.attend(&seen(&["file"])));
        assert_eq!(alarm.wait(moment), Told::Nothing);
        fs::write(path("file"), "").unwrap();
        assert_eq!(alarm.wait(long), at(&["file"]));
        assert_eq!(alarm.wait(moment), Told::Nothing);

        // A new directory is heard of as such, and what is in it once it is attended to.
        fs::create_dir(path("sub")).unwrap();
        assert_eq!(alarm.wait(long), at(&["sub"]));
        fs::write(path("sub/file"), "").unwrap();
        assert_eq!(alarm.wait(moment), Told::Nothing);
        assert!(alarm.attend(&seen(&["file", "sub/file"])));
        fs::write(path("sub/file"), "x").unwrap();
        assert_eq!(alarm.wait(long), at(&["sub/file"]));
        // One that is moved is told of where it is now.
        fs::rename(path("sub"), path("moved")).unwrap();
        assert_eq!(alarm.wait(long), at(&["sub", "moved"]));
        assert!(alarm.attend(&seen(&["file", "moved/file"])));
        fs::write(path("moved/file"), "y").unwrap();
        assert_eq!(alarm.wait(long), at(&["moved/file"]));
        // One that is left out is heard no more.
        assert!(!alarm.attend(&seen(&["file"])));
        fs::write(path("moved/file"), "z").unwrap();
        assert_eq!(alarm.wait(moment), Told::Nothing);
    }
}
