//! The calls of paths that are *answered* in a traced process's place: what the kernel would do with a path of the machine is
//! done here with what the path is in the build's root.
//!
//! Invariant: a call comes to what it would come to in a root of its own where all that is not the build's is read-only: the
//! same error number, in the same order of checks as far as programs can tell. Each path is read once.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::libc;
use rustix::fs::{FileType, Mode, OFlags};

use super::files;
use super::memory::{PATH_MAX, bytes_of};
use super::view::{Caller, Entry, LINKS_MAX, Located, View, from_rustix};
use crate::sandbox::notify::Answer;

/// What a call comes to.
pub(super) enum Reaction {
    /// This.
    Now(Answer),
    /// What this says, which may take until another process does something.
    Later(Box<dyn FnOnce() -> Answer + Send>),
}

impl From<Result<(), Errno>> for Reaction {
    fn from(result: Result<(), Errno>) -> Self {
        Self::Now(Answer::Done(result))
    }
}

impl From<Result<i64, Errno>> for Reaction {
    fn from(result: Result<i64, Errno>) -> Self {
        Self::Now(match result {
            Ok(number) => Answer::Number(number),
            Err(errno) => Answer::Done(Err(errno)),
        })
    }
}

impl From<Errno> for Reaction {
    fn from(errno: Errno) -> Self {
        Self::Now(Answer::Done(Err(errno)))
    }
}

/// Calls that name a path below a directory that is open, or are about what is open.
const CALLS: [i64; 23] = [
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    SYS_FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_truncate,
    libc::SYS_statfs,
    libc::SYS_getcwd,
    libc::SYS_getsockname,
];

/// `fchmodat2` (Linux 6.6); one number everywhere.
const SYS_FCHMODAT2: i64 = 452;

/// The same without a directory, which newer processors do not have.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: [i64; 19] = [
    libc::SYS_open,
    libc::SYS_creat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_mknod,
    libc::SYS_unlink,
    libc::SYS_rmdir,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: [i64; 0] = [];

/// All of them.
pub(super) fn calls() -> Vec<i64> {
    [&CALLS[..], &OLD_CALLS].concat()
}

/// What answers.
pub(super) struct Answers<'a> {
    pub view: &'a View,
    /// User and group that the build is told that it is.
    pub ids: (u32, u32),
    /// Who it is.
    pub own: (u32, u32),
}

/// The user and group of all who are not the build.
const NOBODY: u32 = 65_534;

impl Answers<'_> {
    /// Answers a call; `None`: it is none of those that are answered here.
    pub fn answer(&self, caller: Caller, call: i64, arguments: &[u64; 6]) -> Option<Reaction> {
        let [a, b, c, d, e, _] = *arguments;
        #[cfg(target_arch = "x86_64")]
        if let Some((call, arguments)) = newer(call, arguments) {
            return self.answer(caller, call, &arguments);
        }
        let directory = a as i32;
        Some(match call {
            libc::SYS_openat => self
                .open(caller, directory, b, c as i32, d as u32)
                .unwrap_or_else(Reaction::from),
            libc::SYS_newfstatat => self.stat(caller, directory, b, c, d as i32).into(),
            libc::SYS_fstat => self.stat_held(caller, directory, b).into(),
            libc::SYS_faccessat => self.access(caller, directory, b, c as i32, 0).into(),
            libc::SYS_faccessat2 => self.access(caller, directory, b, c as i32, d as i32).into(),
            libc::SYS_readlinkat => self.read_link(caller, directory, b, c, d).into(),
            libc::SYS_mkdirat => self
                .make(caller, directory, b, |entry, umask| {
                    files::mkdir(entry, c as u32 & !umask)
                })
                .into(),
            libc::SYS_mknodat => {
                let make = |entry: &Entry, umask: u32| files::mknod(entry, c as u32 & !umask, d);
                self.make(caller, directory, b, make).into()
            }
            libc::SYS_symlinkat => self.symlink(caller, a, b as i32, c).into(),
            libc::SYS_unlinkat => self.unlink(caller, directory, b, c as i32).into(),
            libc::SYS_renameat => self.rename(caller, (directory, b), (c as i32, d), 0).into(),
            libc::SYS_renameat2 => self.rename(caller, (directory, b), (c as i32, d), e as u32).into(),
            libc::SYS_linkat => self.link(caller, (directory, b), (c as i32, d), e as i32).into(),
            libc::SYS_fchmod | libc::SYS_fchown => self.change_held(caller, call, arguments),
            libc::SYS_fchmodat => self.chmod(caller, directory, b, c as u32, 0).into(),
            SYS_FCHMODAT2 => self.chmod(caller, directory, b, c as u32, d as i32).into(),
            libc::SYS_fchownat => self.chown(caller, directory, b, (c as u32, d as u32), e as i32).into(),
            libc::SYS_utimensat => self.set_times(caller, directory, b, c, d as i32).into(),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_utime | libc::SYS_utimes | libc::SYS_futimesat => {
                self.set_old_times(caller, call, arguments).into()
            }
            libc::SYS_truncate => self.truncate(caller, a, b as i64).into(),
            libc::SYS_statfs => self.stat_system(caller, a, b).into(),
            libc::SYS_getcwd => self.working_directory(caller, a, b).into(),
            _ => return None,
        })
    }

    /// The entry that a call is to make, where it may: what there is already is told first.
    fn new_entry(&self, caller: Caller, directory: i32, path: &[u8]) -> Result<Entry, Errno> {
        let entry = self.view.entry(caller, directory, path)?;
        match self.view.standing(&entry.directory)?.1 {
            true => Ok(entry),
            false if entry.exists() => Err(Errno::EEXIST),
            false => Err(Errno::EROFS),
        }
    }

    /// The entry that a call is to take away or move, where it may.
    fn old_entry(&self, caller: Caller, directory: i32, path: &[u8]) -> Result<Entry, Errno> {
        let entry = self.view.entry(caller, directory, path)?;
        match self.view.standing(&entry.directory)?.1 {
            true if self.view.is_place(&entry) => Err(Errno::EBUSY),
            true => Ok(entry),
            false if entry.exists() => Err(Errno::EROFS),
            false => Err(Errno::ENOENT),
        }
    }

    /// What a call is about: a path, or with `AT_EMPTY_PATH` what is open.
    fn located(&self, caller: Caller, directory: i32, address: u64, flags: i32) -> Result<Located, Errno> {
        let path = match address {
            0 if flags & libc::AT_EMPTY_PATH != 0 => Vec::new(),
            address => caller.memory.path(address)?,
        };
        if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
            return caller.held(directory);
        }
        let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
        self.view.locate(caller, directory, &path, follow)
    }

    /// The same of what is to be changed.
    fn changeable(&self, caller: Caller, directory: i32, address: u64, flags: i32) -> Result<Located, Errno> {
        let located = self.located(caller, directory, address, flags)?;
        match self.view.standing(&located)?.1 {
            true => Ok(located),
            false => Err(Errno::EROFS),
        }
    }

    fn open(&self, caller: Caller, directory: i32, address: u64, flags: i32, mode: u32) -> Result<Reaction, Errno> {
        let path = caller.memory.path(address)?;
        let is_closed = flags & libc::O_CLOEXEC != 0;
        let has = |flag: i32| flags & flag == flag;
        let follow = !(has(libc::O_NOFOLLOW) || has(libc::O_CREAT) && has(libc::O_EXCL));
        let located = match self.view.locate(caller, directory, &path, follow) {
            Err(Errno::ENOENT) if has(libc::O_CREAT) => {
                let file = self.create(caller, directory, path, flags, mode)?;
                return Ok(Reaction::Now(Answer::File(file, is_closed)));
            }
            located => located?,
        };
        if has(libc::O_CREAT) && has(libc::O_EXCL) {
            return Err(Errno::EEXIST);
        }
        let kind = FileType::from_raw_mode(located.stat()?.st_mode);
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY || has(libc::O_TRUNC);
        match kind {
            FileType::Symlink => {
                return Err(if has(libc::O_DIRECTORY) {
                    Errno::ENOTDIR
                } else {
                    Errno::ELOOP
                });
            }
            FileType::Directory if !has(libc::O_TMPFILE) && (writes || has(libc::O_CREAT)) => {
                return Err(Errno::EISDIR);
            }
            FileType::RegularFile if path.ends_with(b"/") => return Err(Errno::ENOTDIR),
            FileType::RegularFile | FileType::Directory if writes && !self.view.standing(&located)?.1 => {
                return Err(Errno::EROFS);
            }
            _ => {}
        }
        if let Some(answer) = self.told_otherwise(&located, flags)? {
            return Ok(Reaction::Now(Answer::File(answer, is_closed)));
        }
        let mode = if has(libc::O_TMPFILE) {
            mode & !caller.umask()
        } else {
            0
        };
        let flags = flags & !(libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW) | libc::O_NOCTTY | libc::O_CLOEXEC;
        let open = move || {
            let flags = OFlags::from_bits_retain(flags.unsigned_abs());
            let opened = rustix::fs::open(located.handle(), flags, Mode::from_raw_mode(mode));
            match opened {
                Ok(file) => Answer::File(file, is_closed),
                Err(error) => Answer::Done(Err(from_rustix(error))),
            }
        };
        // Until there is somebody at the other end.
        let waits = kind == FileType::Fifo && !has(libc::O_NONBLOCK);
        Ok(if waits {
            Reaction::Later(Box::new(open))
        } else {
            Reaction::Now(open())
        })
    }

    /// A new file at a path that leads to nothing.
    fn create(
        &self,
        caller: Caller,
        mut directory: i32,
        mut path: Vec<u8>,
        flags: i32,
        mode: u32,
    ) -> Result<OwnedFd, Errno> {
        let mode = Mode::from_raw_mode(mode & 0o7777 & !caller.umask());
        let follow = flags & (libc::O_NOFOLLOW | libc::O_EXCL) == 0;
        let flags =
            OFlags::from_bits_retain((flags | libc::O_NOFOLLOW | libc::O_NOCTTY | libc::O_CLOEXEC).unsigned_abs());
        for _ in 0..LINKS_MAX {
            let entry = self.view.entry(caller, directory, &path)?;
            if entry.has_slash() {
                return Err(Errno::EISDIR);
            }
            if !entry.exists() {
                if !self.view.standing(&entry.directory)?.1 {
                    return Err(Errno::EROFS);
                }
                let opened = rustix::fs::openat(&entry.directory.file, &entry.name, flags, mode);
                return opened.map_err(from_rustix);
            }
            // A link to nothing yet, or somebody was faster.
            let target = rustix::fs::readlinkat(&entry.directory.file, &entry.name, Vec::new());
            let (true, Ok(target)) = (follow, target) else {
                let opened = rustix::fs::openat(&entry.directory.file, &entry.name, flags, mode);
                return opened.map_err(from_rustix);
            };
            path = match target.to_bytes() {
                target if target.starts_with(b"/") => target.to_vec(),
                target => [&self.view.inside(&entry.directory.place()?), &b"/"[..], target].concat(),
            };
            directory = libc::AT_FDCWD;
        }
        Err(Errno::ELOOP)
    }

    /// What is read of a file of `/proc` that tells places of the machine.
    fn told_otherwise(&self, located: &Located, flags: i32) -> Result<Option<OwnedFd>, Errno> {
        if flags & libc::O_ACCMODE != libc::O_RDONLY {
            return Ok(None);
        }
        let place = located.place().unwrap_or_default();
        if !place.starts_with(b"/proc/") || ![&b"/maps"[..], b"/smaps"].iter().any(|end| place.ends_with(end)) {
            return Ok(None);
        }
        let text = std::fs::read(OsStr::from_bytes(located.handle().to_bytes()));
        let text = text.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        files::text_file(&files::with_places_inside(self.view, &text)).map(Some)
    }

    fn stat(&self, caller: Caller, directory: i32, address: u64, buffer: u64, flags: i32) -> Result<(), Errno> {
        let located = self.located(caller, directory, address, flags)?;
        self.tell(caller, &located, buffer)
    }

    fn stat_held(&self, caller: Caller, descriptor: i32, buffer: u64) -> Result<(), Errno> {
        if descriptor < 0 {
            return Err(Errno::EBADF);
        }
        self.tell(caller, &caller.held(descriptor)?, buffer)
    }

    fn tell(&self, caller: Caller, located: &Located, buffer: u64) -> Result<(), Errno> {
        // SAFETY: plain data, for which zeros are valid.
        let mut status: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open, the pointer to a live value of the type that is filled in.
        Errno::result(unsafe { libc::fstat(located.file.as_raw_fd(), &raw mut status) })?;
        let told = |id: u32, own: u32, told: u32| if id == own { told } else { NOBODY };
        status.st_uid = told(status.st_uid, self.own.0, self.ids.0);
        status.st_gid = told(status.st_gid, self.own.1, self.ids.1);
        // SAFETY: the value began as zeros.
        caller.memory.write(buffer, unsafe { bytes_of(&status) })
    }

    fn access(&self, caller: Caller, directory: i32, address: u64, mode: i32, flags: i32) -> Result<(), Errno> {
        let located = self.located(caller, directory, address, flags)?;
        let kind = FileType::from_raw_mode(located.stat()?.st_mode);
        let is_stored = matches!(kind, FileType::RegularFile | FileType::Directory);
        if mode & libc::W_OK != 0 && is_stored && !self.view.standing(&located)?.1 {
            return Err(Errno::EROFS);
        }
        files::access(&located, mode)
    }

    fn read_link(&self, caller: Caller, directory: i32, address: u64, buffer: u64, size: u64) -> Result<i64, Errno> {
        if size as i32 <= 0 {
            return Err(Errno::EINVAL);
        }
        let path = caller.memory.path(address)?;
        let located = match path.is_empty() {
            true => caller.held(directory)?,
            false => self.view.locate(caller, directory, &path, false)?,
        };
        let is_link = FileType::from_raw_mode(located.stat()?.st_mode) == FileType::Symlink;
        if !is_link {
            return Err(if path.is_empty() { Errno::ENOENT } else { Errno::EINVAL });
        }
        let target = rustix::fs::readlinkat(&located.file, c"", Vec::new()).map_err(from_rustix)?;
        let is_of_process = located.place().is_ok_and(|place| place.starts_with(b"/proc/"));
        let target = match is_of_process {
            true => self.view.inside(target.to_bytes()),
            false => target.into_bytes(),
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(target.len());
        caller.memory.write(buffer, &target[..size])?;
        Ok(size as i64)
    }

    fn make(
        &self,
        caller: Caller,
        directory: i32,
        address: u64,
        make: impl Fn(&Entry, u32) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let path = caller.memory.path(address)?;
        let entry = self.new_entry(caller, directory, &path)?;
        make(&entry, caller.umask())
    }

    fn symlink(&self, caller: Caller, target: u64, directory: i32, address: u64) -> Result<(), Errno> {
        let target = CString::new(caller.memory.path(target)?).map_err(|_| Errno::EINVAL)?;
        self.make(caller, directory, address, |entry, _| files::symlink(&target, entry))
    }

    fn unlink(&self, caller: Caller, directory: i32, address: u64, flags: i32) -> Result<(), Errno> {
        let path = caller.memory.path(address)?;
        files::unlink(&self.old_entry(caller, directory, &path)?, flags)
    }

    fn rename(&self, caller: Caller, from: (i32, u64), to: (i32, u64), flags: u32) -> Result<(), Errno> {
        let entry = |(directory, address): (i32, u64)| {
            let path = caller.memory.path(address)?;
            self.view.entry(caller, directory, &path)
        };
        let (from, to) = (entry(from)?, entry(to)?);
        let (standing, other) = (self.view.standing(&from.directory)?, self.view.standing(&to.directory)?);
        if standing.0 != other.0 {
            return Err(Errno::EXDEV);
        }
        match standing.1 {
            true if self.view.is_place(&from) || self.view.is_place(&to) => Err(Errno::EBUSY),
            true => files::rename(&from, &to, flags),
            false if from.exists() => Err(Errno::EROFS),
            false => Err(Errno::ENOENT),
        }
    }

    fn link(&self, caller: Caller, from: (i32, u64), to: (i32, u64), flags: i32) -> Result<(), Errno> {
        let follow = match flags & libc::AT_SYMLINK_FOLLOW {
            0 => libc::AT_SYMLINK_NOFOLLOW,
            _ => 0,
        };
        let file = self.located(caller, from.0, from.1, follow | flags & libc::AT_EMPTY_PATH)?;
        let path = caller.memory.path(to.1)?;
        let entry = self.view.entry(caller, to.0, &path)?;
        let (standing, other) = (self.view.standing(&file)?, self.view.standing(&entry.directory)?);
        if standing.0 != other.0 {
            return Err(if entry.exists() { Errno::EEXIST } else { Errno::EXDEV });
        }
        match standing.1 {
            true => files::link(&file, &entry),
            false if entry.exists() => Err(Errno::EEXIST),
            false => Err(Errno::EROFS),
        }
    }

    /// Changes of what is open are the kernel's to make, where they may be made.
    fn change_held(&self, caller: Caller, call: i64, arguments: &[u64; 6]) -> Reaction {
        let [descriptor, user, group, ..] = *arguments;
        let standing = caller
            .held(descriptor as i32)
            .and_then(|held| Ok((self.view.standing(&held)?.1, held)));
        match standing {
            Err(errno) => errno.into(),
            Ok((false, _)) => Errno::EROFS.into(),
            Ok((true, held)) if call == libc::SYS_fchown => self.check_owner(&held, (user as u32, group as u32)).into(),
            Ok((true, _)) => Reaction::Now(Answer::Continue),
        }
    }

    fn chmod(&self, caller: Caller, directory: i32, address: u64, mode: u32, flags: i32) -> Result<(), Errno> {
        files::chmod(&self.changeable(caller, directory, address, flags)?, mode)
    }

    fn chown(&self, caller: Caller, directory: i32, address: u64, to: (u32, u32), flags: i32) -> Result<(), Errno> {
        self.check_owner(&self.changeable(caller, directory, address, flags)?, to)
    }

    /// Whether somebody may be made the owner, as where there is one user: nobody but that one.
    fn check_owner(&self, located: &Located, (user, group): (u32, u32)) -> Result<(), Errno> {
        const UNCHANGED: u32 = u32::MAX;
        if ![UNCHANGED, self.ids.0].contains(&user) || ![UNCHANGED, self.ids.1].contains(&group) {
            return Err(Errno::EINVAL);
        }
        match located.stat()?.st_uid == self.own.0 {
            true => Ok(()),
            false => Err(Errno::EPERM),
        }
    }

    fn set_times(&self, caller: Caller, directory: i32, address: u64, times: u64, flags: i32) -> Result<(), Errno> {
        let flags = if address == 0 {
            flags | libc::AT_EMPTY_PATH
        } else {
            flags
        };
        let times = match times {
            0 => None,
            times => {
                let word = |index: u64| Ok(caller.memory.word(times.wrapping_add(8 * index))? as i64);
                Some([word(0)?, word(1)?, word(2)?, word(3)?])
            }
        };
        files::set_times(&self.changeable(caller, directory, address, flags)?, times)
    }

    /// The same for calls that tell times otherwise: in seconds, or with microseconds.
    #[cfg(target_arch = "x86_64")]
    fn set_old_times(&self, caller: Caller, call: i64, arguments: &[u64; 6]) -> Result<(), Errno> {
        let [first, second, third, ..] = *arguments;
        let (directory, address, times) = match call {
            libc::SYS_futimesat => (first as i32, second, third),
            _ => (libc::AT_FDCWD, first, second),
        };
        let word = |index: u64| Ok(caller.memory.word(times.wrapping_add(8 * index))? as i64);
        let times = match (times, call) {
            (0, _) => None,
            (_, libc::SYS_utime) => Some([word(0)?, 0, word(1)?, 0]),
            _ => {
                let [first, second] = [word(1)?, word(3)?];
                if [first, second].iter().any(|part| !(0..1_000_000).contains(part)) {
                    return Err(Errno::EINVAL);
                }
                Some([word(0)?, first * 1000, word(2)?, second * 1000])
            }
        };
        let flags = if address == 0 { libc::AT_EMPTY_PATH } else { 0 };
        files::set_times(&self.changeable(caller, directory, address, flags)?, times)
    }

    fn truncate(&self, caller: Caller, address: u64, size: i64) -> Result<(), Errno> {
        files::truncate(&self.changeable(caller, libc::AT_FDCWD, address, 0)?, size)
    }

    fn stat_system(&self, caller: Caller, address: u64, buffer: u64) -> Result<(), Errno> {
        let located = self.located(caller, libc::AT_FDCWD, address, 0)?;
        // SAFETY: plain data, for which zeros are valid.
        let mut status: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open, the pointer to a live value of the type that is filled in.
        Errno::result(unsafe { libc::fstatfs(located.file.as_raw_fd(), &raw mut status) })?;
        // SAFETY: the value began as zeros.
        caller.memory.write(buffer, unsafe { bytes_of(&status) })
    }

    fn working_directory(&self, caller: Caller, buffer: u64, size: u64) -> Result<i64, Errno> {
        let here = caller.held(libc::AT_FDCWD)?;
        let place = here.place()?;
        // Not every file system tells by the number of names that there are none.
        let (status, told) = (here.stat()?, rustix::fs::stat(&place[..]));
        let is_there = told.is_ok_and(|told| (told.st_dev, told.st_ino) == (status.st_dev, status.st_ino));
        if place.ends_with(b" (deleted)") && !is_there {
            return Err(Errno::ENOENT);
        }
        let mut path = self.view.inside(&place);
        path.push(0);
        match path.len() {
            length if length > PATH_MAX => Err(Errno::ENAMETOOLONG),
            length if length as u64 > size => Err(Errno::ERANGE),
            length => {
                caller.memory.write(buffer, &path)?;
                Ok(length as i64)
            }
        }
    }
}

/// What an older call is in terms of a newer one.
#[cfg(target_arch = "x86_64")]
fn newer(call: i64, arguments: &[u64; 6]) -> Option<(i64, [u64; 6])> {
    let [a, b, c, ..] = *arguments;
    let here = libc::AT_FDCWD as u64;
    let (call, new) = match call {
        libc::SYS_open => (libc::SYS_openat, [here, a, b, c, 0]),
        libc::SYS_creat => (
            libc::SYS_openat,
            [here, a, (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u64, b, 0],
        ),
        libc::SYS_stat => (libc::SYS_newfstatat, [here, a, b, 0, 0]),
        libc::SYS_lstat => (libc::SYS_newfstatat, [here, a, b, libc::AT_SYMLINK_NOFOLLOW as u64, 0]),
        libc::SYS_access => (libc::SYS_faccessat, [here, a, b, 0, 0]),
        libc::SYS_readlink => (libc::SYS_readlinkat, [here, a, b, c, 0]),
        libc::SYS_mkdir => (libc::SYS_mkdirat, [here, a, b, 0, 0]),
        libc::SYS_mknod => (libc::SYS_mknodat, [here, a, b, c, 0]),
        libc::SYS_unlink => (libc::SYS_unlinkat, [here, a, 0, 0, 0]),
        libc::SYS_rmdir => (libc::SYS_unlinkat, [here, a, libc::AT_REMOVEDIR as u64, 0, 0]),
        libc::SYS_rename => (libc::SYS_renameat, [here, a, here, b, 0]),
        libc::SYS_link => (libc::SYS_linkat, [here, a, here, b, 0]),
        libc::SYS_symlink => (libc::SYS_symlinkat, [a, here, b, 0, 0]),
        libc::SYS_chmod => (libc::SYS_fchmodat, [here, a, b, 0, 0]),
        libc::SYS_chown => (libc::SYS_fchownat, [here, a, b, c, 0]),
        libc::SYS_lchown => (libc::SYS_fchownat, [here, a, b, c, libc::AT_SYMLINK_NOFOLLOW as u64]),
        _ => return None,
    };
    Some((call, [new[0], new[1], new[2], new[3], new[4], 0]))
}
