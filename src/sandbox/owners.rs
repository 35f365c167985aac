//! *Owners* of files as maintainer scripts mean them, in a user namespace that has one user: who is to own a file is noted
//! in an extended attribute of it, and told to whoever asks.
//!
//! Invariant: what a script is told of a file's owner is what scripts said last, and else that the administrator owns it.
//! The attribute is the file's: it goes where the file goes and ends with it. Symlinks have none.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, XattrFlags};

use super::notify::Answer;

/// Attribute that notes who is to own a file: `UID:GID`, in decimal.
pub const OWNER_ATTRIBUTE: &str = "user.layerize.owner";

/// Attribute that notes a file's capabilities, as `security.capability` holds them.
pub const CAPABILITY_ATTRIBUTE: &str = "user.layerize.capability";

/// A user or group ID that asks for no change.
const UNCHANGED: u32 = u32::MAX;

/// Longest path, as the kernel has it.
const PATH_MAX: usize = libc::PATH_MAX as usize;

/// Largest value of `security.capability`.
const CAPABILITY_MAX: usize = 64;

/// Answers a call of process `pid`, which `is_waiting` as long as this is so.
pub(super) fn answer(pid: u32, call: i64, arguments: &[u64; 6], is_waiting: &dyn Fn() -> bool) -> Answer {
    let caller = Caller { pid };
    let [a, b, c, d, e, _] = *arguments;
    #[cfg(target_arch = "x86_64")]
    match call {
        libc::SYS_chown => return caller.chown(CallTarget::path(AT_CWD, a, true), b, c),
        libc::SYS_lchown => return caller.chown(CallTarget::path(AT_CWD, a, false), b, c),
        libc::SYS_stat => return caller.stat(CallTarget::path(AT_CWD, a, true), b, is_waiting),
        libc::SYS_lstat => return caller.stat(CallTarget::path(AT_CWD, a, false), b, is_waiting),
        _ => {}
    }
    match call {
        libc::SYS_fchown => caller.chown(CallTarget::descriptor(a), b, c),
        libc::SYS_fchownat => caller.chown(CallTarget::at(a, b, e), c, d),
        libc::SYS_fstat => caller.stat(CallTarget::descriptor(a), b, is_waiting),
        libc::SYS_newfstatat => caller.stat(CallTarget::at(a, b, d), c, is_waiting),
        libc::SYS_setxattr => caller.set_attribute(CallTarget::path(AT_CWD, a, true), b, c, d),
        libc::SYS_lsetxattr => caller.set_attribute(CallTarget::path(AT_CWD, a, false), b, c, d),
        libc::SYS_fsetxattr => caller.set_attribute(CallTarget::descriptor(a), b, c, d),
        _ => Answer::Continue,
    }
}

/// `AT_FDCWD` as an argument of a call.
const AT_CWD: u64 = libc::AT_FDCWD as u64;

/// What a call is about, as its arguments say.
#[derive(Clone, Copy)]
struct CallTarget {
    /// The directory that a relative path is relative to.
    descriptor: i32,
    /// Where the path is in the caller's memory; `None`: it is the descriptor itself.
    path: Option<u64>,
    /// Whether a symlink at the end is followed.
    follow: bool,
    /// Whether an empty path means the descriptor.
    may_be_empty: bool,
}

impl CallTarget {
    fn path(descriptor: u64, path: u64, follow: bool) -> Self {
        Self {
            descriptor: descriptor as i32,
            path: Some(path),
            follow,
            may_be_empty: false,
        }
    }

    fn at(descriptor: u64, path: u64, flags: u64) -> Self {
        let has = |flag: i32| flags as i32 & flag != 0;
        Self {
            may_be_empty: has(libc::AT_EMPTY_PATH),
            ..Self::path(descriptor, path, !has(libc::AT_SYMLINK_NOFOLLOW))
        }
    }

    fn descriptor(descriptor: u64) -> Self {
        Self {
            descriptor: descriptor as i32,
            path: None,
            follow: true,
            may_be_empty: true,
        }
    }
}

/// The process that made a call.
struct Caller {
    pid: u32,
}

impl Caller {
    fn chown(&self, place: CallTarget, user: u64, group: u64) -> Answer {
        let changed = self
            .open(place)
            .and_then(|file| file.set_owner(user as u32, group as u32));
        Answer::Done(changed)
    }

    fn stat(&self, place: CallTarget, buffer: u64, is_waiting: &dyn Fn() -> bool) -> Answer {
        // The kernel answers for all that has the owner it seems to have, and says what is wrong with a call.
        let Ok(file) = self.open(place) else {
            return Answer::Continue;
        };
        let Some((user, group)) = file.owner() else {
            return Answer::Continue;
        };
        // SAFETY: plain data, for which zeros are valid.
        let mut status: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open, the pointer to a live value of the type that is filled in.
        if unsafe { libc::fstat(file.0.as_raw_fd(), &raw mut status) } != 0 {
            return Answer::Continue;
        }
        (status.st_uid, status.st_gid) = (user, group);
        // SAFETY: the value is plain data without padding that would not be initialised: it was zeroed.
        let bytes = unsafe { std::slice::from_raw_parts((&raw const status).cast::<u8>(), size_of_val(&status)) };
        match self.memory(true) {
            Ok(memory) if is_waiting() && memory.write_all_at(bytes, buffer).is_ok() => Answer::Done(Ok(())),
            _ => Answer::Continue,
        }
    }

    fn set_attribute(&self, place: CallTarget, name: u64, value: u64, size: u64) -> Answer {
        let set = || {
            if self.text(name)?.as_bytes() != b"security.capability" {
                return Err(Errno::EOPNOTSUPP);
            }
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            let mut bytes = vec![0; size];
            if size > CAPABILITY_MAX || self.memory(false)?.read_exact_at(&mut bytes, value).is_err() {
                return Err(Errno::EINVAL);
            }
            self.open(place)?.set(CAPABILITY_ATTRIBUTE, &bytes)
        };
        Answer::Done(set())
    }

    /// Opens what a call is about. All processes of a sandbox have one root and one mount namespace, this one's.
    fn open(&self, place: CallTarget) -> Result<Noted, Errno> {
        let path = match place.path {
            None => CString::default(),
            Some(address) => self.text(address)?,
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let here = if place.descriptor == libc::AT_FDCWD {
            "cwd".to_owned()
        } else {
            format!("fd/{}", place.descriptor)
        };
        let here = PathBuf::from(format!("/proc/{}/{here}", self.pid));
        let open = |path: &Path, flags| {
            let opened = rustix::fs::openat(CWD, path, flags, Mode::empty());
            opened.map_err(|error| Errno::from_raw(error.raw_os_error()))
        };
        if path.is_empty() {
            return match place.may_be_empty {
                true => open(&here, flags).map(Noted),
                false => Err(Errno::ENOENT),
            };
        }
        let flags = if place.follow { flags } else { flags | OFlags::NOFOLLOW };
        // An absolute path replaces what it is joined to.
        let path = here.join(OsStr::from_bytes(path.as_bytes()));
        open(&path, flags).map(Noted)
    }

    /// The text at an address of the caller's memory.
    fn text(&self, address: u64) -> Result<CString, Errno> {
        const PAGE: u64 = 4096;
        let memory = self.memory(false)?;
        let mut text = Vec::new();
        while text.len() < PATH_MAX {
            // No further than a page, as the next one may not be there.
            let from = address + text.len() as u64;
            let mut part = vec![0; usize::try_from(PAGE - from % PAGE).unwrap_or(1)];
            let read = memory.read_at(&mut part, from).map_err(|_| Errno::EFAULT)?;
            if read == 0 {
                return Err(Errno::EFAULT);
            }
            if let Ok(end) = CStr::from_bytes_until_nul(&part[..read]) {
                text.extend_from_slice(end.to_bytes());
                return CString::new(text).map_err(|_| Errno::EINVAL);
            }
            text.extend_from_slice(&part[..read]);
        }
        Err(Errno::ENAMETOOLONG)
    }

    fn memory(&self, writable: bool) -> Result<File, Errno> {
        let path = format!("/proc/{}/mem", self.pid);
        let opened = File::options().read(true).write(writable).open(path);
        opened.map_err(|_| Errno::EFAULT)
    }
}

/// A file whose owner may be noted, opened as a path.
struct Noted(OwnedFd);

impl Noted {
    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }

    fn owner(&self) -> Option<(u32, u32)> {
        let mut text = [0; 32];
        let size = rustix::fs::getxattr(self.path(), OWNER_ATTRIBUTE, &mut text[..]).ok()?;
        let (user, group) = std::str::from_utf8(&text[..size]).ok()?.split_once(':')?;
        Some((user.parse().ok()?, group.parse().ok()?))
    }

    /// Notes an owner, and drops the bits that a change of owner drops (chown(2)).
    fn set_owner(&self, user: u32, group: u32) -> Result<(), Errno> {
        let errno = |error: rustix::io::Errno| Errno::from_raw(error.raw_os_error());
        let status = rustix::fs::fstat(&self.0).map_err(errno)?;
        let kind = FileType::from_raw_mode(status.st_mode);
        // No other kind of file holds attributes of users, and none of them gets into an image but symlinks.
        if !matches!(kind, FileType::RegularFile | FileType::Directory) {
            return Ok(());
        }
        let known = self.owner();
        let (old_user, old_group) = known.unwrap_or((0, 0));
        let chosen = |new: u32, old| if new == UNCHANGED { old } else { new };
        let owner = (chosen(user, old_user), chosen(group, old_group));
        if known.is_some() || owner != (0, 0) {
            self.set(OWNER_ATTRIBUTE, format!("{}:{}", owner.0, owner.1).as_bytes())?;
        }
        let mode = status.st_mode & 0o7777;
        let group_runs = mode & 0o010 != 0;
        let dropped = libc::S_ISUID | if group_runs { libc::S_ISGID } else { 0 };
        if kind == FileType::RegularFile && mode & dropped != 0 {
            let mode = Mode::from_raw_mode(mode & !dropped);
            rustix::fs::chmodat(CWD, self.path(), mode, AtFlags::empty()).map_err(errno)?;
        }
        Ok(())
    }

    fn set(&self, name: &str, value: &[u8]) -> Result<(), Errno> {
        let set = rustix::fs::setxattr(self.path(), name, value, XattrFlags::empty());
        set.map_err(|error| Errno::from_raw(error.raw_os_error()))
    }
}
