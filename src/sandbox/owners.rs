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

use super::identity::{Callers, Identity};
use super::notify::Answer;

/// Attribute that notes who is to own a file: `UID:GID`, in decimal; in a container with `:MODE`, in octal, where the file's
/// own mode says what the container's user may do with it.
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
///
/// `callers` knows who that process is. What maintainer scripts want done with files is done whoever they became: a file that
/// no script gave an owner is the administrator's.
pub(super) fn answer(
    pid: u32,
    call: i64,
    arguments: &[u64; 6],
    is_waiting: &dyn Fn() -> bool,
    callers: &mut Callers,
) -> Answer {
    let process = Process { pid };
    let mut caller = Caller {
        process,
        identity: None,
        first: Identity::default(),
    };
    if let Some(answer) = callers.answer(&process, call, arguments) {
        return answer;
    }
    if callers.in_container() {
        caller.identity = Some(callers.of(pid));
        caller.first = callers.first().clone();
    }
    let [a, b, c, d, e, _] = *arguments;
    #[cfg(target_arch = "x86_64")]
    match call {
        libc::SYS_chown => return caller.chown(CallTarget::path(AT_CWD, a, true), b, c),
        libc::SYS_lchown => return caller.chown(CallTarget::path(AT_CWD, a, false), b, c),
        libc::SYS_stat => return caller.stat(CallTarget::path(AT_CWD, a, true), b, is_waiting),
        libc::SYS_lstat => return caller.stat(CallTarget::path(AT_CWD, a, false), b, is_waiting),
        _ => {}
    }
    if let Some((target, mode)) = mode_call(call, arguments) {
        return caller.chmod(target, mode as u32);
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

/// `fchmodat2`, newer than the C library's list on some architectures; one number everywhere.
const SYS_FCHMODAT2: i64 = 452;

/// The calls that change a mode.
pub(super) fn mode_calls() -> Vec<i64> {
    vec![
        libc::SYS_fchmod,
        libc::SYS_fchmodat,
        SYS_FCHMODAT2,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_chmod,
    ]
}

/// What file such a call is about, and the new mode.
fn mode_call(call: i64, arguments: &[u64; 6]) -> Option<(CallTarget, u64)> {
    let [a, b, c, d, ..] = *arguments;
    match call {
        #[cfg(target_arch = "x86_64")]
        libc::SYS_chmod => Some((CallTarget::path(AT_CWD, a, true), b)),
        libc::SYS_fchmod => Some((CallTarget::descriptor(a), b)),
        libc::SYS_fchmodat => Some((CallTarget::path(a, b, true), c)),
        SYS_FCHMODAT2 => Some((CallTarget::at(a, b, d), c)),
        _ => None,
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

/// A process that made a call.
#[derive(Clone, Copy)]
pub(super) struct Process {
    pub(super) pid: u32,
}

/// The same, with what is known of it.
struct Caller {
    process: Process,
    /// Who it is, in a container.
    identity: Option<Identity>,
    /// Who the container began as, and for whom files have the modes that they have.
    first: Identity,
}

impl Caller {
    fn chown(&self, place: CallTarget, user: u64, group: u64) -> Answer {
        let (user, group) = (user as u32, group as u32);
        let changed = self.open(place).and_then(|file| match &self.identity {
            Some(identity) if !identity.is_privileged() => {
                let (old_user, old_group) = file.owner().unwrap_or((identity.uid, identity.gid));
                let stays = |new: u32, old: u32| new == UNCHANGED || new == old;
                let may = old_user == identity.uid && stays(user, old_user);
                let may_group = stays(group, old_group) || identity.has_group(group);
                match may && may_group {
                    true => file.set_owner(user, group, &self.first),
                    false => Err(Errno::EPERM),
                }
            }
            _ => file.set_owner(user, group, &self.first),
        });
        Answer::Done(changed)
    }

    /// Only what the image brought has a mode that is not the file's own.
    fn chmod(&self, place: CallTarget, mode: u32) -> Answer {
        let (Ok(file), Some(identity)) = (self.open(place), &self.identity) else {
            return Answer::Continue;
        };
        let Some(note) = file.note().filter(|note| note.mode.is_some()) else {
            return Answer::Continue;
        };
        if !identity.is_privileged() && identity.uid != note.uid {
            return Answer::Done(Err(Errno::EPERM));
        }
        let note = OwnerNote {
            mode: Some(mode & 0o7777),
            ..note
        };
        Answer::Done(file.write_note(&note, &self.first))
    }

    fn stat(&self, place: CallTarget, buffer: u64, is_waiting: &dyn Fn() -> bool) -> Answer {
        // The kernel answers for all that has the owner it seems to have, and says what is wrong with a call.
        let Ok(file) = self.open(place) else {
            return Answer::Continue;
        };
        // SAFETY: plain data, for which zeros are valid.
        let mut status: libc::stat = unsafe { std::mem::zeroed() };
        let Some(note) = self.note_of(&file) else {
            return Answer::Continue;
        };
        // SAFETY: the descriptor is open, the pointer to a live value of the type that is filled in.
        if unsafe { libc::fstat(file.0.as_raw_fd(), &raw mut status) } != 0 {
            return Answer::Continue;
        }
        (status.st_uid, status.st_gid) = (note.uid, note.gid);
        if let Some(mode) = note.mode {
            status.st_mode = status.st_mode & libc::S_IFMT | mode;
        }
        // SAFETY: the value is plain data without padding that would not be initialised: it was zeroed.
        let bytes = unsafe { std::slice::from_raw_parts((&raw const status).cast::<u8>(), size_of_val(&status)) };
        match self.process.memory(true) {
            Ok(memory) if is_waiting() && memory.write_all_at(bytes, buffer).is_ok() => Answer::Done(Ok(())),
            _ => Answer::Continue,
        }
    }

    /// What is told of a file, where it is not what the kernel tells. In a container a symlink, which can hold no note,
    /// belongs to whoever owns its directory.
    fn note_of(&self, file: &Noted) -> Option<OwnerNote> {
        let noted = file.note();
        if noted.is_some() || self.identity.is_none() {
            return noted;
        }
        if file.is_engines() {
            return Some(OwnerNote {
                uid: 0,
                gid: 0,
                mode: None,
            });
        }
        let status = rustix::fs::fstat(&file.0).ok()?;
        let of = |(uid, gid)| OwnerNote { uid, gid, mode: None };
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Symlink => file.directory()?.owner().map(of),
            // What the image does not have was made by one of those who became another, and it is theirs who ask for it.
            FileType::RegularFile | FileType::Directory => {
                let asking = self.identity.as_ref().filter(|identity| **identity != self.first)?;
                Some(of((asking.uid, asking.gid)))
            }
            _ => None,
        }
    }

    fn set_attribute(&self, place: CallTarget, name: u64, value: u64, size: u64) -> Answer {
        let set = || {
            if self.process.text(name)?.as_bytes() != b"security.capability" {
                return Err(Errno::EOPNOTSUPP);
            }
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            let mut bytes = vec![0; size];
            if size > CAPABILITY_MAX || self.process.memory(false)?.read_exact_at(&mut bytes, value).is_err() {
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
            Some(address) => self.process.text(address)?,
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let here = if place.descriptor == libc::AT_FDCWD {
            "cwd".to_owned()
        } else {
            format!("fd/{}", place.descriptor)
        };
        let here = PathBuf::from(format!("/proc/{}/{here}", self.process.pid));
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
}

impl Process {
    /// The text at an address of the caller's memory.
    pub(super) fn text(&self, address: u64) -> Result<CString, Errno> {
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

    /// The caller's memory.
    pub(super) fn memory(&self, writable: bool) -> Result<File, Errno> {
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
        self.note().map(|note| (note.uid, note.gid))
    }

    fn note(&self) -> Option<OwnerNote> {
        let mut text = [0; 48];
        let size = rustix::fs::getxattr(self.path(), OWNER_ATTRIBUTE, &mut text[..]).ok()?;
        OwnerNote::parse(std::str::from_utf8(&text[..size]).ok()?)
    }

    /// Where it is, where that can be told.
    fn place(&self) -> Option<PathBuf> {
        let place = rustix::fs::readlink(self.path(), Vec::new()).ok()?;
        Some(OsStr::from_bytes(place.as_bytes()).into())
    }

    /// Whether it is a device or a mount point, which are root's in a container.
    fn is_engines(&self) -> bool {
        let Some(place) = self.place() else { return false };
        let dev = Path::new("/dev");
        place == dev || place == Path::new("/proc") || place.parent() == Some(dev)
    }

    /// The directory in which this is.
    fn directory(&self) -> Option<Self> {
        let place = self.place()?.parent()?.to_owned();
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
        rustix::fs::openat(CWD, &place, flags, Mode::empty()).ok().map(Self)
    }

    /// Notes an owner, and drops the bits that a change of owner drops (chown(2)).
    fn set_owner(&self, user: u32, group: u32, first: &Identity) -> Result<(), Errno> {
        let errno = |error: rustix::io::Errno| Errno::from_raw(error.raw_os_error());
        let status = rustix::fs::fstat(&self.0).map_err(errno)?;
        let kind = FileType::from_raw_mode(status.st_mode);
        // No other kind of file holds attributes of users, and none of them gets into an image but symlinks.
        if !matches!(kind, FileType::RegularFile | FileType::Directory) {
            return Ok(());
        }
        let known = self.note();
        let own = (first.uid, first.gid);
        let (old_user, old_group) = known.as_ref().map_or(own, |note| (note.uid, note.gid));
        let chosen = |new: u32, old| if new == UNCHANGED { old } else { new };
        let (uid, gid) = (chosen(user, old_user), chosen(group, old_group));
        let noted_mode = known.as_ref().and_then(|note| note.mode);
        let mode = noted_mode.unwrap_or(status.st_mode & 0o7777);
        let group_runs = mode & 0o010 != 0;
        let dropped = libc::S_ISUID | if group_runs { libc::S_ISGID } else { 0 };
        let drops = kind == FileType::RegularFile && mode & dropped != 0;
        let new_mode = if drops { mode & !dropped } else { mode };
        if known.is_some() || (uid, gid) != own {
            let mode = noted_mode.map(|_| new_mode);
            self.write_note(&OwnerNote { uid, gid, mode }, first)?;
        }
        if drops && noted_mode.is_none() {
            let mode = Mode::from_raw_mode(new_mode);
            rustix::fs::chmodat(CWD, self.path(), mode, AtFlags::empty()).map_err(errno)?;
        }
        Ok(())
    }

    /// Writes a note, and where it has a mode gives the file what the container's user may do with it.
    fn write_note(&self, note: &OwnerNote, first: &Identity) -> Result<(), Errno> {
        self.set(OWNER_ATTRIBUTE, note.text().as_bytes())?;
        let Some(mode) = note.mode else { return Ok(()) };
        let mode = Mode::from_raw_mode(first.own_mode(note.uid, note.gid, mode));
        let changed = rustix::fs::chmodat(CWD, self.path(), mode, AtFlags::empty());
        changed.map_err(|error| Errno::from_raw(error.raw_os_error()))
    }

    fn set(&self, name: &str, value: &[u8]) -> Result<(), Errno> {
        let set = rustix::fs::setxattr(self.path(), name, value, XattrFlags::empty());
        set.map_err(|error| Errno::from_raw(error.raw_os_error()))
    }
}

/// What [`OWNER_ATTRIBUTE`] says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerNote {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Mode, where the file's own is another.
    pub mode: Option<u32>,
}

impl OwnerNote {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (uid, gid) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let mode = match parts.next() {
            None => None,
            Some(mode) => Some(u32::from_str_radix(mode, 8).ok()?),
        };
        Some(Self { uid, gid, mode })
    }

    /// The attribute's value.
    pub fn text(&self) -> String {
        match self.mode {
            None => format!("{}:{}", self.uid, self.gid),
            Some(mode) => format!("{}:{}:{mode:o}", self.uid, self.gid),
        }
    }
}
