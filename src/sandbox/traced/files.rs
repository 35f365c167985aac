//! What is done with files in a traced process's place, once it is known which.
//!
//! Invariant: what is held is got at through our own `/proc/self/fd`, never by its path.

use std::ffi::CStr;
use std::io::{Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

use super::view::{Entry, Located, View};

/// `faccessat2` (Linux 5.8) takes what is held.
pub(super) fn access(located: &Located, mode: i32) -> Result<(), Errno> {
    // SAFETY: the descriptor is open, and the path a text.
    let result = unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            located.file.as_raw_fd(),
            c"".as_ptr(),
            mode,
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::result(result).map(drop)
}

pub(super) fn chmod(located: &Located, mode: u32) -> Result<(), Errno> {
    // SAFETY: the path is a text.
    Errno::result(unsafe { libc::chmod(located.handle().as_ptr(), mode) }).map(drop)
}

pub(super) fn truncate(located: &Located, size: i64) -> Result<(), Errno> {
    // SAFETY: the path is a text.
    Errno::result(unsafe { libc::truncate(located.handle().as_ptr(), size) }).map(drop)
}

/// Sets the times of access and of change, each seconds and nanoseconds; `None`: to now.
pub(super) fn set_times(located: &Located, times: Option<[i64; 4]>) -> Result<(), Errno> {
    let times = times.map(|[first, part, second, other]| {
        [(first, part), (second, other)].map(|(seconds, nanoseconds)| libc::timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        })
    });
    let times = times.as_ref().map_or(std::ptr::null(), |times| times.as_ptr());
    // SAFETY: the path is a text, and the times are two of them or a null pointer.
    Errno::result(unsafe { libc::utimensat(libc::AT_FDCWD, located.handle().as_ptr(), times, 0) }).map(drop)
}

pub(super) fn mkdir(entry: &Entry, mode: u32) -> Result<(), Errno> {
    // SAFETY: the descriptor is open, and the name a text.
    Errno::result(unsafe { libc::mkdirat(entry.directory.file.as_raw_fd(), entry.name.as_ptr(), mode) }).map(drop)
}

pub(super) fn mknod(entry: &Entry, mode: u32, device: u64) -> Result<(), Errno> {
    // SAFETY: as above.
    let result = unsafe { libc::mknodat(entry.directory.file.as_raw_fd(), entry.name.as_ptr(), mode, device) };
    Errno::result(result).map(drop)
}

pub(super) fn symlink(target: &CStr, entry: &Entry) -> Result<(), Errno> {
    // SAFETY: as above.
    let result = unsafe { libc::symlinkat(target.as_ptr(), entry.directory.file.as_raw_fd(), entry.name.as_ptr()) };
    Errno::result(result).map(drop)
}

pub(super) fn unlink(entry: &Entry, flags: i32) -> Result<(), Errno> {
    // SAFETY: as above.
    Errno::result(unsafe { libc::unlinkat(entry.directory.file.as_raw_fd(), entry.name.as_ptr(), flags) }).map(drop)
}

pub(super) fn rename(from: &Entry, to: &Entry, flags: u32) -> Result<(), Errno> {
    // SAFETY: as above.
    let result = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            from.directory.file.as_raw_fd(),
            from.name.as_ptr(),
            to.directory.file.as_raw_fd(),
            to.name.as_ptr(),
            flags,
        )
    };
    Errno::result(result).map(drop)
}

pub(super) fn link(file: &Located, entry: &Entry) -> Result<(), Errno> {
    // SAFETY: as above.
    let result = unsafe {
        libc::linkat(
            libc::AT_FDCWD,
            file.handle().as_ptr(),
            entry.directory.file.as_raw_fd(),
            entry.name.as_ptr(),
            libc::AT_SYMLINK_FOLLOW,
        )
    };
    Errno::result(result).map(drop)
}

/// A file that holds this text, and is nowhere.
pub(super) fn text_file(text: &[u8]) -> Result<OwnedFd, Errno> {
    // SAFETY: the name is a text.
    let file = unsafe { libc::memfd_create(c"text".as_ptr(), libc::MFD_CLOEXEC) };
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    let file = Errno::result(file).map(|file| unsafe { OwnedFd::from_raw_fd(file) })?;
    let mut file = std::fs::File::from(file);
    let written = file.write_all(text).and_then(|()| file.rewind());
    written.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(file.into())
}

/// The text of a file of `/proc` that tells which files a process has mapped, with their places as the build sees them.
pub(super) fn with_places_inside(view: &View, text: &[u8]) -> Vec<u8> {
    let mut told = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        // The sixth field, which is the last one, may have spaces.
        let Some(start) = line.iter().position(|&byte| byte == b'/') else {
            told.extend_from_slice(line);
            continue;
        };
        let (place, end) = match line.strip_suffix(b"\n") {
            Some(line) => (&line[start..], &b"\n"[..]),
            None => (&line[start..], &b""[..]),
        };
        told.extend_from_slice(&line[..start]);
        told.extend_from_slice(&view.inside(place));
        told.extend_from_slice(end);
    }
    told
}
