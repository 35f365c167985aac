//! *Removing* a tree, of whatever modes, depth and length of paths.
//!
//! Invariant: every name is looked up in an open directory (`openat`, `unlinkat`) and no link is followed, so nothing
//! outside the tree is touched; a bounded number of directories is open at a time, and the stack does not grow with the
//! depth. What can be removed is removed, and the first failure is told.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, openat, renameat_with, unlinkat};
use rustix::io::Errno;

use super::{IoContext, PathError};

/// Most directories that are open at once; what lies deeper is moved up to the top first.
const OPEN_MAX: usize = 48;

/// Removes a tree of any modes (store paths are read-only); a missing path is no error. Where something cannot be removed
/// the rest is, and the first failure is the error.
pub fn remove_tree(path: &Path) -> Result<(), PathError> {
    remove_tree_while(path, &|| true).map(drop)
}

/// As [`remove_tree`] for as long as `go_on`, which is asked before each name, says so; true where nothing is left.
pub fn remove_tree_while(path: &Path, go_on: &dyn Fn() -> bool) -> Result<bool, PathError> {
    match unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(io::Error::from(error)).context("remove", path),
    }
    let mut removal = Removal {
        root: path,
        open: Vec::new(),
        top_names: BTreeSet::new(),
        moved: 0,
        failure: None,
    };
    match open_directory(CWD, path.as_os_str()) {
        Ok(None) => return Ok(true),
        Ok(Some(top)) => removal.enter(CString::default(), top),
        Err(error) => return Err(error).context("open", path),
    }
    if !removal.empty(go_on) {
        return removal.failure.map_or(Ok(false), Err);
    }
    match (removal.failure, unlinkat(CWD, path, AtFlags::REMOVEDIR)) {
        (Some(failure), _) => Err(failure),
        (None, Ok(()) | Err(Errno::NOENT)) => Ok(true),
        (None, Err(error)) => Err(io::Error::from(error)).context("remove directory", path),
    }
}

/// A directory that is being emptied.
struct Level {
    /// In the one above it.
    name: CString,
    dir: OwnedFd,
    /// What is still in it.
    names: Vec<CString>,
}

struct Removal<'a> {
    root: &'a Path,
    /// The top directory first.
    open: Vec<Level>,
    /// What was in the top directory at first: names that nothing is moved to.
    top_names: BTreeSet<CString>,
    /// How many directories were moved up.
    moved: u64,
    failure: Option<PathError>,
}

impl Removal<'_> {
    /// Removes what is in the open directories, the lowest first, until none is open; false where it was to stop.
    fn empty(&mut self, go_on: &dyn Fn() -> bool) -> bool {
        while let Some(level) = self.open.last_mut() {
            if !go_on() {
                return false;
            }
            match level.names.pop() {
                Some(name) => self.remove(name),
                None => self.leave(),
            }
        }
        true
    }

    /// Removes a name of the lowest open directory, or opens it to be emptied.
    fn remove(&mut self, name: CString) {
        let Some(level) = self.open.last() else { return };
        match unlinkat(&level.dir, &name, AtFlags::empty()) {
            // Another process may be removing the same tree.
            Ok(()) | Err(Errno::NOENT) => return,
            Err(Errno::ISDIR) => {}
            Err(error) => return self.fail("remove", &name, error.into()),
        }
        if self.open.len() >= OPEN_MAX {
            return self.move_up(name);
        }
        match open_directory(level.dir.as_fd(), OsStr::from_bytes(name.as_bytes())) {
            Ok(Some(dir)) => self.enter(name, dir),
            Ok(None) => {}
            Err(error) => self.fail("open", &name, error),
        }
    }

    fn enter(&mut self, name: CString, dir: OwnedFd) {
        let (names, error) = names(&dir);
        if self.open.is_empty() {
            self.top_names = names.iter().cloned().collect();
        }
        self.open.push(Level { name, dir, names });
        if let Some(error) = error {
            self.fail("list directory", c"", error.into());
        }
    }

    /// Removes the lowest open directory, which is empty now but for what could not be removed.
    fn leave(&mut self) {
        let (Some(level), Some(parent)) = (self.open.pop(), self.open.last()) else {
            return;
        };
        match unlinkat(&parent.dir, &level.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => self.fail("remove directory", &level.name, error.into()),
        }
    }

    /// Moves a directory that lies deep to the top, to be emptied from there.
    fn move_up(&mut self, name: CString) {
        let (Some(top), Some(level)) = (self.open.first(), self.open.last()) else {
            return;
        };
        let (mut made_writable, mut moved) = (false, self.moved);
        let result = loop {
            moved += 1;
            let Ok(new) = CString::new(format!(".layerize-{}-{moved}", std::process::id())) else {
                return;
            };
            if self.top_names.contains(&new) {
                continue;
            }
            match renameat_with(&level.dir, &name, &top.dir, &new, RenameFlags::NOREPLACE) {
                Ok(()) => break Ok(Some(new)),
                Err(Errno::NOENT) => break Ok(None),
                Err(Errno::EXIST) => {}
                // To move a directory takes the right to write to it.
                Err(Errno::ACCESS) if !made_writable => {
                    made_writable = true;
                    let _ = make_accessible(level.dir.as_fd(), OsStr::from_bytes(name.as_bytes()));
                }
                Err(error) => break Err(io::Error::from(error)),
            }
        };
        self.moved = moved;
        match result {
            Ok(new) => self.open[0].names.extend(new),
            Err(error) => self.fail("move", &name, error),
        }
    }

    /// Notes the first failure, at a name of the lowest open directory.
    fn fail(&mut self, action: &'static str, name: &std::ffi::CStr, source: io::Error) {
        let names = self.open.iter().map(|level| level.name.as_c_str()).chain([name]);
        let path: PathBuf = std::iter::once(self.root.as_os_str())
            .chain(names.map(|name| OsStr::from_bytes(name.to_bytes())))
            .filter(|name| !name.is_empty())
            .collect();
        self.failure.get_or_insert(PathError { action, path, source });
    }
}

/// Opens a directory so that it can be listed and emptied; `None` where it is gone.
fn open_directory(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    let open = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(parent, name, flags, Mode::empty())
    };
    let dir = match open() {
        Err(Errno::ACCESS) => make_accessible(parent, name).and_then(|()| Ok(open()?)),
        other => other.map_err(io::Error::from),
    };
    let dir = match dir {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&dir)?.st_mode);
    if !mode.contains(Mode::RWXU) {
        // Where this is refused, so is what needs it, and that is told.
        let _ = rustix::fs::fchmod(&dir, Mode::RWXU);
    }
    Ok(Some(dir))
}

/// Gives the owner of a directory all rights to it, without following a link that may stand there by now.
fn make_accessible(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = openat(parent, name, flags, Mode::empty())?;
    fs::set_permissions(
        format!("/proc/self/fd/{}", handle.as_raw_fd()),
        Permissions::from_mode(0o700),
    )
}

/// The names in a directory, and why there may be more.
fn names(dir: &OwnedFd) -> (Vec<CString>, Option<Errno>) {
    let mut names = Vec::new();
    let entries = match Dir::read_from(dir) {
        Ok(entries) => entries,
        Err(error) => return (names, Some(error)),
    };
    for entry in entries {
        match entry {
            Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
            Ok(entry) => names.push(entry.file_name().to_owned()),
            Err(error) => return (names, Some(error)),
        }
    }
    (names, None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Makes directories in one another, each named by 200 times `x`, deeper than any path can tell; gives the lowest.
    fn chain(top: &Path, depth: usize) -> OwnedFd {
        fs::create_dir(top).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut dir = openat(CWD, top, flags, Mode::empty()).unwrap();
        let name = "x".repeat(200);
        for _ in 0..depth {
            rustix::fs::mkdirat(&dir, &name, Mode::RWXU).unwrap();
            dir = openat(&dir, &name, flags, Mode::empty()).unwrap();
        }
        dir
    }

    #[test]
    fn a_tree_of_any_depth_is_removed() {
        for depth in [0, 1, OPEN_MAX - 1, OPEN_MAX, OPEN_MAX + 1, 3 * OPEN_MAX, 700] {
            let dir = tempfile::tempdir().unwrap();
            let tree = dir.path().join("tree");
            let lowest = chain(&tree, depth);
            openat(&lowest, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
            remove_tree(&tree).unwrap();
            assert!(!tree.exists(), "{depth}");
        }
    }

    #[test]
    fn deep_directories_without_rights_are_removed_too() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        let mut level = chain(&tree, 2 * OPEN_MAX);
        for _ in 0..2 * OPEN_MAX {
            rustix::fs::fchmod(&level, Mode::empty()).unwrap();
            let above = openat(&level, "..", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
            // An ordinary user has no right to look for it now.
            let Ok(above) = above else { break };
            level = above;
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn a_removal_that_is_stopped_can_be_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        chain(&tree, 5);
        (0..500).for_each(|number| fs::write(tree.join(number.to_string()), "").unwrap());
        let mut rounds = 0;
        loop {
            let left = std::cell::Cell::new(20);
            let go_on = || {
                left.set(left.get() - 1);
                left.get() > 0
            };
            rounds += 1;
            if remove_tree_while(&tree, &go_on).unwrap() {
                break;
            }
            assert!(tree.exists() && rounds < 1000);
        }
        assert!(!tree.exists() && rounds > 10, "{rounds}");
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        symlink(&kept, tree.join("link")).unwrap();
        symlink("missing", tree.join("dangling")).unwrap();
        remove_tree(&tree).unwrap();
        symlink(&kept, &tree).unwrap();
        remove_tree(&tree).unwrap();
        assert!(tree.symlink_metadata().is_err());
        assert!(kept.join("file").exists());
    }

    #[test]
    fn names_that_moved_directories_would_get_are_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        chain(&tree, 2 * OPEN_MAX);
        for number in 1..4 {
            fs::write(tree.join(format!(".layerize-{}-{number}", std::process::id())), "").unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }
}
