//! The *view* of a traced build: what its paths lead to in a root that is a directory like any other.
//!
//! Invariant: a path that a process names is resolved by the kernel within the root (`openat2`), so links and `..` lead nowhere
//! else; and what can be changed is in the directories that the build was given for that. Paths of `/proc` lead to what there
//! is of the build's own processes, and to what every build is told of the machine.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, Stat};

use super::memory::Memory;
use crate::sandbox::composed::DEVICES;
use crate::sandbox::guard::is_below;
use crate::sandbox::identity::process_of;
use crate::sandbox::request::Bind;
use crate::sandbox::served::{self, Place};

/// Most links that lead from one to the next.
pub(super) const LINKS_MAX: usize = 40;

/// How often it is tried again where directories were moved meanwhile.
const TRIES: usize = 10_000;

/// A thread that makes a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub thread: u32,
    pub memory: Memory,
}

impl Caller {
    pub fn new(thread: u32) -> Self {
        Self {
            thread,
            memory: Memory { thread },
        }
    }

    /// Its process.
    pub fn process(self) -> u32 {
        process_of(self.thread).map_or(self.thread, |(process, _)| process)
    }

    /// Where what it has open as `descriptor` is to be had, or the directory that it is in.
    pub fn descriptor(self, descriptor: i32) -> PathBuf {
        match descriptor {
            libc::AT_FDCWD => PathBuf::from(format!("/proc/{}/cwd", self.thread)),
            number => PathBuf::from(format!("/proc/{}/fd/{number}", self.thread)),
        }
    }

    /// Opens that without opening it.
    pub fn held(self, descriptor: i32) -> Result<Located, Errno> {
        let opened = rustix::fs::open(
            self.descriptor(descriptor),
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        );
        match opened {
            Ok(file) => Ok(Located { file }),
            Err(rustix::io::Errno::NOENT) => Err(Errno::EBADF),
            Err(error) => Err(from_rustix(error)),
        }
    }

    /// Its file creation mask.
    pub fn umask(self) -> u32 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.thread)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        let mask = line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok());
        mask.unwrap_or(0o022)
    }
}

pub(super) fn from_rustix(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// What a path leads to, held without being opened.
pub(super) struct Located {
    pub file: OwnedFd,
}

impl Located {
    /// A path by which we ourselves get at it.
    pub fn handle(&self) -> CString {
        CString::new(format!("/proc/self/fd/{}", self.file.as_raw_fd())).unwrap_or_default()
    }

    /// Where it is on the machine.
    pub fn place(&self) -> Result<Vec<u8>, Errno> {
        let place = std::fs::read_link(OsStr::from_bytes(self.handle().to_bytes()));
        let place = place.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::ENOENT)))?;
        Ok(place.into_os_string().into_vec())
    }

    pub fn stat(&self) -> Result<Stat, Errno> {
        rustix::fs::fstat(&self.file).map_err(from_rustix)
    }
}

/// A name in a directory, whatever is there.
pub(super) struct Entry {
    pub directory: Located,
    /// The name, with the slashes that followed it.
    pub name: CString,
}

impl Entry {
    /// Whether something has the name.
    pub fn exists(&self) -> bool {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        let name = self.name.to_bytes();
        let end = name.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
        rustix::fs::statat(&self.directory.file, &name[..end], flags).is_ok()
    }

    pub fn has_slash(&self) -> bool {
        self.name.to_bytes().ends_with(b"/")
    }
}

/// A directory that the build was given, or an input in one.
#[derive(Debug)]
struct Area {
    /// Where it is on the machine.
    place: PathBuf,
    writable: bool,
}

/// What a build sees.
pub(super) struct View {
    root: OwnedFd,
    /// What tells the root from other directories.
    root_state: (u64, u64),
    /// Where the root is on the machine.
    place: PathBuf,
    /// The deepest first.
    areas: Vec<Area>,
    /// What stands in the root for devices, by device and number.
    devices: BTreeMap<(u64, u64), &'static str>,
    /// The process below which all those of the build are.
    top: Pid,
    /// Where programs are that were copied to be started, and what they are copies of.
    copies: Mutex<BTreeMap<PathBuf, PathBuf>>,
}

impl View {
    /// Of the composed root `place`.
    pub fn new(place: &Path, binds: &[Bind], top: Pid) -> Result<Self, Errno> {
        let place = std::fs::canonicalize(place).map_err(|_| Errno::ENOENT)?;
        let root = rustix::fs::open(&place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(from_rustix)?;
        let mut areas: Vec<Area> = (binds.iter())
            .map(|bind| (bind.target.as_path(), bind.writable))
            .chain([(Path::new("/dev/shm"), true)])
            .map(|(target, writable)| Area {
                place: place.join(target.strip_prefix("/").unwrap_or(target)),
                writable,
            })
            .collect();
        areas.sort_by_key(|area| std::cmp::Reverse(area.place.components().count()));
        let mut devices = BTreeMap::new();
        for (name, ..) in DEVICES {
            if let Ok(status) = rustix::fs::statat(&root, format!("dev/{name}"), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            {
                devices.insert((status.st_dev, status.st_ino), name);
            }
        }
        let status = rustix::fs::fstat(&root).map_err(from_rustix)?;
        Ok(Self {
            root,
            root_state: (status.st_dev, status.st_ino),
            place,
            areas,
            devices,
            top,
            copies: Mutex::default(),
        })
    }

    /// Where the root is.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Says of what a program is a copy, and of what others are none any more.
    pub fn note_copy(&self, copy: &Path, original: &Path) {
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        copies.insert(copy.to_owned(), original.to_owned());
    }

    /// A path of the machine as the build sees it.
    pub fn inside(&self, path: &[u8]) -> Vec<u8> {
        let path = Path::new(OsStr::from_bytes(path));
        let original = self.original(path);
        let path = original.as_deref().unwrap_or(path);
        let inside = match path.strip_prefix(&self.place) {
            Ok(below) => Path::new("/").join(below),
            Err(_) => path.to_owned(),
        };
        inside.into_os_string().into_vec()
    }

    /// Of what this is a copy.
    pub fn original(&self, path: &Path) -> Option<PathBuf> {
        let copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        copies.get(path).cloned()
    }

    /// The area in which a place of the machine is, by its number; `None`: in the root itself.
    fn area(&self, place: &[u8]) -> Option<usize> {
        let place = Path::new(OsStr::from_bytes(place));
        self.areas.iter().position(|area| place.starts_with(&area.place))
    }

    /// The number of the area of what was located, and whether it can be changed.
    pub fn standing(&self, located: &Located) -> Result<(Option<usize>, bool), Errno> {
        let place = match located.place() {
            // Nobody but the build makes directories that deep.
            Err(Errno::ENAMETOOLONG) => return Ok((Some(self.areas.len()), true)),
            place => place?,
        };
        let area = self.area(&place);
        let writable = area.map_or_else(|| self.is_of_nowhere(&place), |number| self.areas[number].writable);
        Ok((area, writable))
    }

    /// Whether what is open is nowhere in the root, and nothing of the machine: a pipe, memory, or what a process has in `/proc`.
    fn is_of_nowhere(&self, place: &[u8]) -> bool {
        let is_of_process = |below: &[u8]| below.first().is_some_and(u8::is_ascii_digit);
        match place.strip_prefix(b"/proc/") {
            Some(below) => is_of_process(below),
            None => !place.starts_with(b"/") || place.starts_with(b"/memfd:"),
        }
    }

    /// Whether an entry is the place of an input, which is not to be moved or removed.
    pub fn is_place(&self, entry: &Entry) -> bool {
        let Ok(directory) = entry.directory.place() else {
            return false;
        };
        let name = entry.name.to_bytes();
        let end = name.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
        let place = Path::new(OsStr::from_bytes(&directory)).join(OsStr::from_bytes(&name[..end]));
        self.areas.iter().any(|area| area.place == place)
    }

    /// Whether a relative path leads from where the caller is to something in the root, without a way around: the kernel may
    /// follow it by itself.
    pub fn leads_directly(&self, caller: Caller, path: &[u8]) -> bool {
        if path.is_empty() || path.starts_with(b"/") {
            return false;
        }
        let Ok(here) = caller.held(libc::AT_FDCWD) else {
            return false;
        };
        let (here, path) = self.climb(here, path);
        resolve(&here.file, path, OFlags::PATH, ResolveFlags::BENEATH).is_ok()
    }

    /// Goes up from a directory as far as a path begins with `..` and the root is not reached; gives the path's rest.
    fn climb<'p>(&self, mut here: Located, mut path: &'p [u8]) -> (Located, &'p [u8]) {
        while let Some(rest) = path
            .strip_prefix(b"..")
            .filter(|rest| rest.is_empty() || rest.starts_with(b"/"))
        {
            let is_below = here.stat().is_ok_and(|status| {
                status.st_dev == self.root_state.0 && (status.st_dev, status.st_ino) != self.root_state
            });
            let above = rustix::fs::openat(&here.file, c"..", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
            let (true, Ok(file)) = (is_below, above) else { break };
            here = Located { file };
            let start = rest.iter().position(|&byte| byte != b'/').unwrap_or(rest.len());
            path = &rest[start..];
            if path.is_empty() {
                path = b".";
            }
        }
        (here, path)
    }

    /// What a path leads to; `follow`: also where it ends in a link.
    pub fn locate(&self, caller: Caller, directory: i32, path: &[u8], follow: bool) -> Result<Located, Errno> {
        let flags = if follow {
            OFlags::PATH
        } else {
            OFlags::PATH | OFlags::NOFOLLOW
        };
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.starts_with(b"/") {
            return self.locate_absolute(caller, path, flags, 0);
        }
        let (here, path) = self.climb(caller.held(directory)?, path);
        match resolve(&here.file, path, flags, ResolveFlags::BENEATH) {
            Err(Errno::EXDEV) => {
                let path = [&self.inside(&here.place()?), &b"/"[..], path].concat();
                self.locate_absolute(caller, &path, flags, 0)
            }
            Ok(file) => self.settle(Located { file }),
            Err(errno) => Err(errno),
        }
    }

    fn locate_absolute(&self, caller: Caller, path: &[u8], flags: OFlags, depth: usize) -> Result<Located, Errno> {
        if depth > LINKS_MAX {
            return Err(Errno::ELOOP);
        }
        if let Some(found) = self.locate_in_proc(caller, path, flags, depth) {
            return found;
        }
        let file = resolve(&self.root, path, flags, ResolveFlags::IN_ROOT)?;
        self.settle(Located { file })
    }

    /// What stands for a device is that device.
    fn settle(&self, located: Located) -> Result<Located, Errno> {
        let status = located.stat()?;
        match self.devices.get(&(status.st_dev, status.st_ino)) {
            None => Ok(located),
            Some(name) => held(&Path::new("/dev").join(name), OFlags::PATH),
        }
    }

    /// What there is of processes and of the machine, where it is that that is asked for.
    fn locate_in_proc(
        &self,
        caller: Caller,
        path: &[u8],
        flags: OFlags,
        depth: usize,
    ) -> Option<Result<Located, Errno>> {
        if !path.starts_with(b"/proc") && !path.starts_with(b"/dev") && !path.starts_with(b"//") {
            return None;
        }
        let (number, rest) = match Place::of(path)? {
            Place::Device(_) => return None,
            Place::Machine(rest) => {
                return Some(match served::is_told(&rest) {
                    true => held(&Path::new("/proc").join(rest), flags),
                    false => Err(Errno::ENOENT),
                });
            }
            Place::Process(None, rest) => (caller.process(), rest),
            Place::Process(Some(number), rest) => match is_below(self.top, number.into()) {
                true => (number, rest),
                false => return Some(Err(Errno::ENOENT)),
            },
        };
        Some(self.locate_of_process(caller, number, &rest, flags, depth))
    }

    fn locate_of_process(
        &self,
        caller: Caller,
        number: u32,
        rest: &str,
        flags: OFlags,
        depth: usize,
    ) -> Result<Located, Errno> {
        let own = PathBuf::from(format!("/proc/{number}"));
        let follows = !flags.contains(OFlags::NOFOLLOW);
        let (first, below) = rest
            .split_once('/')
            .map_or((rest, None), |(first, below)| (first, Some(below)));
        // The path goes on below what a link leads to.
        let beyond = |link: &Path, below: &str| {
            let target = std::fs::read_link(link).map_err(|_| Errno::ENOENT)?;
            let mut path = self.inside(target.as_os_str().as_bytes());
            path.extend_from_slice(b"/");
            path.extend_from_slice(below.as_bytes());
            self.locate_absolute(caller, &path, flags, depth + 1)
        };
        match (first, below) {
            ("root", Some(below)) => self.locate_absolute(caller, format!("/{below}").as_bytes(), flags, depth + 1),
            ("root", None) if follows => self.locate_absolute(caller, b"/", flags, depth + 1),
            ("cwd", Some(below)) => beyond(&own.join("cwd"), below),
            ("exe", None) if follows => {
                let target = std::fs::read_link(own.join("exe")).map_err(|_| Errno::ENOENT)?;
                let target = self.inside(target.as_os_str().as_bytes());
                self.locate_absolute(caller, &target, flags, depth + 1)
            }
            ("fd", Some(name)) => match name.split_once('/') {
                None => held(&own.join(rest), flags),
                Some((name, below)) => beyond(&own.join("fd").join(name), below),
            },
            ("" | "fd" | "fdinfo" | "task" | "root" | "cwd", None) => held(&own.join(rest), flags),
            (name, None) if served::is_of_processes(name) => held(&own.join(rest), flags),
            _ => Err(Errno::ENOENT),
        }
    }

    /// The entry that a path names, whatever is there.
    pub fn entry(&self, caller: Caller, directory: i32, path: &[u8]) -> Result<Entry, Errno> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
        let start = path[..end]
            .iter()
            .rposition(|&byte| byte == b'/')
            .map_or(0, |slash| slash + 1);
        let directory = match &path[..start] {
            b"" => caller.held(directory)?,
            above => self.locate(caller, directory, above, true)?,
        };
        let name = if end == 0 { &b"."[..] } else { &path[start..] };
        let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        Ok(Entry { directory, name })
    }
}

/// Holds something of the machine.
fn held(path: &Path, flags: OFlags) -> Result<Located, Errno> {
    let file = rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(from_rustix)?;
    Ok(Located { file })
}

/// Has the kernel resolve a path.
fn resolve(from: &OwnedFd, path: &[u8], flags: OFlags, how: ResolveFlags) -> Result<OwnedFd, Errno> {
    for _ in 0..TRIES {
        match rustix::fs::openat2(from, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            // Something was moved while `..` was followed.
            Err(rustix::io::Errno::AGAIN) => std::thread::yield_now(),
            result => return result.map_err(from_rustix),
        }
    }
    Err(Errno::EAGAIN)
}
