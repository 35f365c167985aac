//! An *output* is where a result goes that the user named: a file, or whatever stands in a file's place.
//!
//! Invariant: only a regular file is ever replaced, whole, by a rename. A symbolic link is followed and stays; a device, a
//! pipe or a descriptor that is open already is written into; a directory or a socket is refused, and nothing is changed.
//! This is the one way in which results are written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use super::{IoContext, PathError};

/// Most symbolic links that are followed (Linux follows 40).
const LINKS_MAX: usize = 40;

/// What a path of an output leads to.
#[derive(Debug)]
pub enum Target {
    /// A regular file, or nothing yet: an absolute path without links, to be replaced by an
    /// [`AtomicFile`](super::AtomicFile).
    File(PathBuf),
    /// A device, a pipe or an open descriptor, opened for writing.
    Stream(File),
}

impl Target {
    /// Finds out what stands at `path`; a pipe waits here for its reader.
    pub fn of(path: &Path) -> Result<Self, PathError> {
        let mut place = path.to_owned();
        for _ in 0..LINKS_MAX {
            if place.as_os_str().as_bytes().ends_with(b"/") {
                return Err(refused(
                    path,
                    io::ErrorKind::IsADirectory,
                    "it is the name of a directory",
                ));
            }
            let Some(name) = place.file_name() else {
                return Err(refused(path, io::ErrorKind::InvalidInput, "it names no file"));
            };
            let dir = place.parent().filter(|dir| !dir.as_os_str().is_empty());
            let dir = fs::canonicalize(dir.unwrap_or(Path::new("."))).context("find the directory of", &place)?;
            if is_descriptors(&dir) {
                return Ok(Self::Stream(descriptor(&dir, &dir.join(name))?));
            }
            place = dir.join(name);
            let metadata = match fs::symlink_metadata(&place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::File(place)),
                metadata => metadata.context("read the attributes of", &place)?,
            };
            let kind = metadata.file_type();
            if kind.is_symlink() {
                place = dir.join(fs::read_link(&place).context("read the link", &place)?);
            } else if kind.is_file() {
                return Ok(Self::File(place));
            } else if kind.is_dir() {
                return Err(refused(path, io::ErrorKind::IsADirectory, "it is a directory"));
            } else if kind.is_socket() {
                return Err(refused(path, io::ErrorKind::InvalidInput, "it is a socket"));
            } else {
                // A terminal must not become this process's own.
                let mut options = File::options();
                options.write(true).custom_flags(nix::fcntl::OFlag::O_NOCTTY.bits());
                return Ok(Self::Stream(options.open(&place).context("open for writing", &place)?));
            }
        }
        Err(refused(
            path,
            io::ErrorKind::InvalidInput,
            "too many symbolic links lead on from it",
        ))
    }
}

fn refused(path: &Path, kind: io::ErrorKind, reason: &'static str) -> PathError {
    PathError {
        action: "write",
        path: path.to_owned(),
        source: io::Error::new(kind, reason),
    }
}

/// Whether a directory, without links, is that of a process's open descriptors: `/proc/N/fd`, `/proc/N/task/N/fd`.
fn is_descriptors(dir: &Path) -> bool {
    let parts: Vec<&[u8]> = dir.components().map(|part| part.as_os_str().as_bytes()).collect();
    matches!(
        parts.as_slice(),
        [b"/", b"proc", _, b"fd"] | [b"/", b"proc", _, b"task", _, b"fd"]
    )
}

/// A descriptor to be written into: this process's standard output and error as they are, so that what was written to them
/// before stays where it is; others are opened again, and a file is added to and never cut.
fn descriptor(dir: &Path, place: &Path) -> Result<File, PathError> {
    let own = dir.components().nth(2) == Some(Component::Normal(std::process::id().to_string().as_ref()));
    let duplicate = match place.file_name().filter(|_| own).map(OsStrExt::as_bytes) {
        Some(b"1") => Some(io::stdout().as_fd().try_clone_to_owned()),
        Some(b"2") => Some(io::stderr().as_fd().try_clone_to_owned()),
        _ => None,
    };
    match duplicate {
        Some(descriptor) => descriptor.map(File::from),
        None => File::options().append(true).open(place),
    }
    .context("open for writing", place)
}

/// Whether what is written to `path` comes out at this process's standard output, however it is called.
pub fn is_standard_output(path: &Path) -> bool {
    let same = |output: rustix::fs::Stat, other: rustix::fs::Stat| {
        (output.st_dev, output.st_ino, output.st_rdev) == (other.st_dev, other.st_ino, other.st_rdev)
    };
    match (rustix::fs::fstat(io::stdout()), rustix::fs::stat(path)) {
        (Ok(output), Ok(other)) => same(output, other),
        _ => false,
    }
}

/// Writes a whole result to where `path` leads.
pub fn write_output(path: &Path, bytes: &[u8]) -> Result<(), PathError> {
    match Target::of(path)? {
        Target::File(file) => super::write_atomic(&file, bytes),
        Target::Stream(mut stream) => stream
            .write_all(bytes)
            .and_then(|()| stream.flush())
            .context("write", path),
    }
}
