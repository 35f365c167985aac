//! What a build without mounts is *served*: the devices and the files of `/proc` that it has no file system for. Whoever opens
//! one is given it opened, and whoever reads a link of `/proc` is told what it leads to.
//!
//! Invariant: a path is read once, and what is opened for it is opened here; where it is none of these the kernel goes on, and
//! looks for it in the build's root. No directory from outside that root is ever given, from which `..` would lead on.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use rustix::fs::{FileType, Mode, OFlags};

use super::composed::DEVICES;
use super::notify::Answer;
use super::owners::Process;

/// Files that a process has in `/proc` and may read of its own ones.
const OF_PROCESSES: [&str; 14] = [
    "auxv",
    "cmdline",
    "comm",
    "environ",
    "exe",
    "io",
    "limits",
    "maps",
    "mem",
    "oom_score_adj",
    "smaps",
    "stat",
    "statm",
    "status",
];

/// Its links.
const LINKS: [&str; 3] = ["cwd", "exe", "root"];

/// What `/proc` tells of the machine to every build, files or directories of them.
const OF_MACHINE: [&str; 9] = [
    "cpuinfo",
    "devices",
    "filesystems",
    "loadavg",
    "meminfo",
    "stat",
    "sys",
    "uptime",
    "version",
];

/// What of that would tell one machine from another where namespaces would not.
const NAMES_OF_MACHINE: [&str; 2] = ["sys/kernel/hostname", "sys/kernel/domainname"];

/// Flags of open(2) that are about making a file, or about what is at the end of its path.
const MAKING: i32 = libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_NOFOLLOW | libc::O_CLOEXEC;

/// The calls that are answered.
pub(super) fn calls() -> Vec<i64> {
    vec![
        libc::SYS_openat,
        libc::SYS_readlinkat,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_creat,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_readlink,
    ]
}

/// What is at a path of a build's root.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A device by its name.
    Device(&'static str),
    /// Something that `/proc` has of a process; `None`: of the caller.
    Process(Option<u32>, String),
    /// Something that it has of the machine.
    Machine(String),
}

impl Place {
    /// What an absolute path leads to, where it is not the root's own.
    pub(super) fn of(path: &[u8]) -> Option<Self> {
        let path = std::str::from_utf8(path).ok()?.strip_prefix('/')?;
        let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        let (top, rest) = parts.split_first()?;
        if !matches!(*top, "dev" | "proc") || rest.contains(&"..") {
            return None;
        }
        let own = |rest: String| Some(Self::Process(None, rest));
        match (*top, rest) {
            ("dev", ["stdin"]) => own("fd/0".to_owned()),
            ("dev", ["stdout"]) => own("fd/1".to_owned()),
            ("dev", ["stderr"]) => own("fd/2".to_owned()),
            ("dev", ["fd", number]) => own(format!("fd/{number}")),
            ("dev", [name]) => {
                let (name, ..) = DEVICES.into_iter().find(|(device, ..)| device == name)?;
                Some(Self::Device(name))
            }
            ("proc", ["self" | "thread-self", rest @ ..]) => own(rest.join("/")),
            ("proc", [name, rest @ ..]) => match name.parse() {
                Ok(number) => Some(Self::Process(Some(number), rest.join("/"))),
                Err(_) => Some(Self::Machine([&[*name], rest].concat().join("/"))),
            },
            _ => None,
        }
    }
}

/// A file of a process by its number.
fn is_number_below(rest: &str, dir: &str) -> bool {
    let number = rest.strip_prefix(dir).and_then(|rest| rest.strip_prefix('/'));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

/// What serves.
pub(super) struct Served {
    /// Where the build's root is.
    root: PathBuf,
}

impl Served {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Answers a call of a thread; `own` is its process, and `is_own` says whether another one is the build's.
    pub(super) fn answer(
        &self,
        caller: u32,
        own: &dyn Fn() -> u32,
        call: i64,
        arguments: &[u64; 6],
        is_own: &dyn Fn(u32) -> bool,
    ) -> Answer {
        let [_, b, c, d, ..] = *arguments;
        let process = Process { pid: caller };
        let place = |address: u64| {
            let path = process.text(address).ok()?;
            match Place::of(path.to_bytes())? {
                Place::Process(number, rest) => {
                    let (number, is_seen) = match number {
                        None => (own(), true),
                        Some(number) => (number, is_own(number)),
                    };
                    is_seen.then_some(Place::Process(Some(number), rest))
                }
                place => Some(place),
            }
        };
        let served = match call {
            libc::SYS_openat => place(b).map(|place| open(&place, c as i32)),
            libc::SYS_readlinkat => place(b).and_then(|place| self.read_link(&place, process, c, d)),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => place(arguments[0]).map(|place| open(&place, b as i32)),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_creat => place(arguments[0]).map(|place| open(&place, libc::O_WRONLY | libc::O_CREAT)),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_readlink => place(arguments[0]).and_then(|place| self.read_link(&place, process, b, c)),
            _ => None,
        };
        served.unwrap_or(Answer::Continue)
    }

    fn read_link(&self, place: &Place, process: Process, buffer: u64, size: u64) -> Option<Answer> {
        let Place::Process(Some(number), rest) = place else {
            return None;
        };
        let target = match rest.as_str() {
            "" => number.to_string().into_bytes(),
            rest if LINKS.contains(&rest) || is_number_below(rest, "fd") => {
                let target = std::fs::read_link(format!("/proc/{number}/{rest}")).ok()?;
                self.inside(&target).as_os_str().as_bytes().to_owned()
            }
            _ => return None,
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(target.len());
        let written = process.memory(true).ok()?.write_all_at(&target[..size], buffer);
        Some(match written {
            Ok(()) => Answer::Number(size as i64),
            Err(_) => Answer::Done(Err(Errno::EFAULT)),
        })
    }

    /// A path of the machine as the build sees it.
    fn inside(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.root) {
            Ok(below) => Path::new("/").join(below),
            Err(_) => path.to_owned(),
        }
    }
}

/// Opens what is at a place as a process asks for it.
fn open(place: &Place, flags: i32) -> Answer {
    let (path, must_be_file) = match place {
        Place::Device(name) => (format!("/dev/{name}"), false),
        Place::Process(Some(number), rest) if OF_PROCESSES.contains(&rest.as_str()) => {
            (format!("/proc/{number}/{rest}"), true)
        }
        Place::Process(Some(number), rest) if is_number_below(rest, "fd") => (format!("/proc/{number}/{rest}"), false),
        Place::Machine(rest) if is_told(rest) => (format!("/proc/{rest}"), true),
        // The kernel says that there is nothing.
        Place::Process(..) | Place::Machine(_) => return Answer::Continue,
    };
    if flags & libc::O_PATH != 0 {
        return Answer::Continue;
    }
    if flags & (libc::O_CREAT | libc::O_EXCL) == libc::O_CREAT | libc::O_EXCL {
        return Answer::Done(Err(Errno::EEXIST));
    }
    // A pipe without a reader must not keep us waiting.
    let wanted = OFlags::from_bits_retain((flags & !MAKING).unsigned_abs());
    let opened = rustix::fs::open(
        &path,
        wanted | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY,
        Mode::empty(),
    );
    let given = opened.and_then(|file| {
        if must_be_file && FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(rustix::io::Errno::NOENT);
        }
        rustix::fs::fcntl_setfl(&file, wanted & (OFlags::APPEND | OFlags::NONBLOCK))?;
        Ok(file)
    });
    match given {
        Ok(file) => Answer::File(file, flags & libc::O_CLOEXEC != 0),
        Err(error) => Answer::Done(Err(Errno::from_raw(error.raw_os_error()))),
    }
}

/// Whether a file that a process has in `/proc` is shown.
pub(super) fn is_of_processes(name: &str) -> bool {
    OF_PROCESSES.contains(&name)
}

/// Whether a file of `/proc` that is the machine's is shown.
pub(super) fn is_told(rest: &str) -> bool {
    let top = rest.split('/').next().unwrap_or_default();
    OF_MACHINE.contains(&top) && !NAMES_OF_MACHINE.contains(&rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_the_kernel_would_follow_them_to() {
        let own = |rest: &str| Some(Place::Process(None, rest.to_owned()));
        for (path, place) in [
            ("/dev/null", Some(Place::Device("null"))),
            ("//dev/./null", Some(Place::Device("null"))),
            ("/dev/sda", None),
            ("/dev/shm/x", None),
            ("/dev/fd/63", own("fd/63")),
            ("/dev/stdin", own("fd/0")),
            ("/proc/self/exe", own("exe")),
            ("/proc/17/fd/1", Some(Place::Process(Some(17), "fd/1".to_owned()))),
            ("/proc/cpuinfo", Some(Place::Machine("cpuinfo".to_owned()))),
            ("/proc/../dev/null", None),
            ("/proc/self/../1/root", None),
            ("dev/null", None),
            ("/usr/proc/self", None),
            ("", None),
        ] {
            assert_eq!(Place::of(path.as_bytes()), place, "{path}");
        }
    }

    #[test]
    fn no_directory_and_nothing_of_others_is_opened() {
        let own = || Some(std::process::id());
        for (place, is_given) in [
            (Place::Device("null"), true),
            (Place::Process(own(), "status".to_owned()), true),
            (Place::Process(own(), "root".to_owned()), false),
            (Place::Process(own(), "cwd".to_owned()), false),
            (Place::Process(own(), "fd".to_owned()), false),
            (Place::Process(own(), "fd/../root".to_owned()), false),
            (Place::Process(own(), "task/1/root".to_owned()), false),
            (Place::Machine("cpuinfo".to_owned()), true),
            (Place::Machine("sys".to_owned()), false),
            (Place::Machine("sys/kernel".to_owned()), false),
            (Place::Machine("sys/kernel/osrelease".to_owned()), true),
            (Place::Machine("sys/kernel/hostname".to_owned()), false),
            (Place::Machine("mounts".to_owned()), false),
            (Place::Machine("kcore".to_owned()), false),
        ] {
            let is_file = matches!(open(&place, libc::O_RDONLY), Answer::File(..));
            assert_eq!(is_file, is_given, "{place:?}");
        }
    }
}
