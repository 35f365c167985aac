//! What the sandbox *fixes* of a process besides its mounts: limits, personality, names, privileges, signals.
//!
//! Invariant: nothing here depends on the machine or on how layerize was started, so that no build can tell.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, geteuid, sethostname};

use super::helper::Failed;
use super::request::{ContainerPlan, Network, RuntimeSettings, SetupStep};

/// Soft limits of a build: (resource, value). The hard limits stay the machine's, so that a build that knows what
/// it does may ask for more.
const SOFT_LIMITS: [(Resource, u64); 3] = [
    (Resource::RLIMIT_CORE, 0),
    (Resource::RLIMIT_NOFILE, 1024),
    (Resource::RLIMIT_STACK, 8 << 20),
];

/// Version of the capability structures with 64 bits (`linux/capability.h`).
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Closes every file but standard input, output and error that whoever started us left open.
pub(super) fn close_inherited_files() {
    // SAFETY: called first thing in `main`; no `File` of this process exists yet.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}

/// Names this process: by what file it was started is not for those inside to know.
pub(super) fn name_process() -> io::Result<()> {
    Ok(nix::sys::prctl::set_name(c"layerize")?)
}

/// Joins a new session keyring: the caller's holds secrets, and what is put there is there for everybody.
pub(super) fn leave_keyrings() -> Result<(), Failed> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: the name is a null pointer, which asks for a keyring without one.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
    match Errno::result(result) {
        // A kernel without keyrings has nothing to leave; a container's filter lets nobody at them.
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(errno) => Err(Failed::errno(SetupStep::Privileges, None, errno)),
    }
}

/// Umask, resource limits, and addresses that do not vary unless a check wants them to.
pub(super) fn fix(settings: &RuntimeSettings) -> Result<(), Failed> {
    umask(Mode::from_bits_truncate(settings.umask));
    let failed = |errno| Failed::errno(SetupStep::Limits, None, errno);
    for (resource, wanted) in SOFT_LIMITS {
        let (_, hard) = getrlimit(resource).map_err(failed)?;
        let hard = if wanted == 0 { 0 } else { hard };
        setrlimit(resource, wanted.min(hard), hard).map_err(failed)?;
    }
    settings.bounds.limit_resources().map_err(failed)?;
    if settings.one_processor {
        one_processor()?;
    }
    if settings.addresses_vary {
        return Ok(());
    }
    // SAFETY: takes a number only.
    let result = unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) };
    Errno::result(result).map(drop).map_err(failed)
}

/// The file creation mask alone, for what runs as it would anywhere else.
pub(super) fn set_umask(settings: &RuntimeSettings) {
    umask(Mode::from_bits_truncate(settings.umask));
}

/// Has this process ignore what asks a whole container to end: it tells how the container's programs did so.
pub(super) fn stay_when_told_to_end() {
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT] {
        let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
        // SAFETY: ignoring a signal runs no code of ours. It cannot be refused for these.
        let _ = unsafe { sigaction(signal, &ignore) };
    }
}

/// Stays on the first processor that we may use: who asks how many there are is told one.
fn one_processor() -> Result<(), Failed> {
    let failed = |errno| Failed::errno(SetupStep::Limits, None, errno);
    let all = sched_getaffinity(Pid::from_raw(0)).map_err(failed)?;
    let first = (0..CpuSet::count()).find(|&cpu| all.is_set(cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(first.unwrap_or(0)).map_err(failed)?;
    sched_setaffinity(Pid::from_raw(0), &one).map_err(failed)
}

/// The names every sandbox has; a check gives it another.
pub(super) fn name_host(settings: &RuntimeSettings) -> Result<(), Failed> {
    const DOMAIN: &str = "(none)";
    let failed = |errno| Failed::errno(SetupStep::HostName, None, errno);
    sethostname(&settings.host).map_err(failed)?;
    // SAFETY: pointer and length describe a constant.
    let result = unsafe { libc::setdomainname(DOMAIN.as_ptr().cast(), DOMAIN.len()) };
    Errno::result(result).map(drop).map_err(failed)
}

/// Brings up `lo`, the only interface of a new network namespace.
pub(super) fn loopback_up() -> Result<(), Failed> {
    let failed = |errno| Failed::errno(SetupStep::Loopback, None, errno);
    // SAFETY: the descriptor is checked, used in this function alone and closed in it; `ifreq` is plain data for
    // which zeros are valid, and outlives the call that reads it.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        Errno::result(socket).map_err(failed)?;
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let result = Errno::result(libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request));
        libc::close(socket);
        result.map(drop).map_err(failed)
    }
}

/// Gives up every capability, for good.
pub(super) fn drop_privileges() -> Result<(), Failed> {
    keep_capabilities(0)
}

/// Gives up every capability, for good, but the one that lets root be root of a further user namespace, as whoever crosses to
/// another root of the shell is (SETFCAP, Linux 5.12). An ordinary user needs none for that.
pub(super) fn keep_right_to_nest() -> Result<(), Failed> {
    const SETFCAP: u32 = 31;
    keep_capabilities(if geteuid().is_root() { 1 << SETFCAP } else { 0 })
}

/// Gives up every capability, for good, but those by which an administrator's scripts get at any file of their root. In
/// a user namespace of one user they reach that user's own files and no others.
pub(super) fn keep_rights_over_files() -> Result<(), Failed> {
    // From `linux/capability.h`: DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, KILL.
    keep_capabilities([1, 2, 3, 4, 5].into_iter().fold(0, |all, bit: u32| all | 1 << bit))
}

/// Gives up, for good, what container engines do not give to the programs of an image either: all for an ordinary user,
/// and for root what is not about files, ports and roots.
pub(super) fn keep_rights_of_container(container: &ContainerPlan) -> Result<(), Failed> {
    // As above, and NET_BIND_SERVICE, SYS_CHROOT; NET_RAW in a network of its own.
    let mut kept = vec![1, 2, 3, 4, 5, 10, 18];
    if container.network == Network::Own {
        kept.push(13);
    }
    if container.user.uid != 0 {
        kept.clear();
    }
    keep_capabilities(kept.into_iter().fold(0, |all, bit: u32| all | 1 << bit))
}

/// Gives up, for good, every capability that is not in `kept`, a set of the first 32.
fn keep_capabilities(kept: u32) -> Result<(), Failed> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let failed = |errno| Failed::errno(SetupStep::Privileges, None, errno);
    nix::sys::prctl::set_no_new_privs().map_err(failed)?;
    for capability in (0..=63).filter(|&capability| capability >= 32 || kept & 1 << capability == 0) {
        // SAFETY: takes numbers only.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong, 0, 0, 0) };
        match Errno::result(result) {
            Ok(_) => {}
            // One more than the kernel knows.
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(failed(errno)),
        }
    }
    let header = Header {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    // Effective, permitted, inheritable; for the low and the high half.
    let sets = [kept, kept, 0, 0, 0, 0];
    // SAFETY: both pointers are to live values of the layout that version 3 prescribes.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    Errno::result(result).map(drop).map_err(failed)
}

/// Gives every signal its default action: a build must not notice that layerize was started by `nohup`.
pub(super) fn reset_signals() -> Result<(), Failed> {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default action runs no code of ours.
        unsafe { sigaction(signal, &action) }.map_err(|errno| Failed::errno(SetupStep::Limits, None, errno))?;
    }
    SigSet::empty()
        .thread_set_mask()
        .map_err(|errno| Failed::errno(SetupStep::Limits, None, errno))
}

/// While it lives, SIGINT and SIGQUIT do nothing to this process.
pub(super) struct IgnoredInterrupts([(Signal, SigAction); 2]);

impl IgnoredInterrupts {
    pub(super) fn new() -> io::Result<Self> {
        let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
        // SAFETY: ignoring a signal runs no code of ours.
        let set = |signal| unsafe { sigaction(signal, &ignore) }.map(|old| (signal, old));
        Ok(Self([set(Signal::SIGINT)?, set(Signal::SIGQUIT)?]))
    }
}

impl Drop for IgnoredInterrupts {
    fn drop(&mut self) {
        for (signal, old) in &self.0 {
            // SAFETY: the action was in force before. It cannot be refused now.
            let _ = unsafe { sigaction(*signal, old) };
        }
    }
}

/// Makes standard input empty.
pub(super) fn detach_input() -> Result<(), Failed> {
    let null = Path::new("/dev/null");
    let failed = |error: io::Error| Failed::io(SetupStep::Device, null, &error);
    let file = File::open(null).map_err(failed)?;
    // SAFETY: both descriptors are open; standard input is not owned by any `File`.
    Errno::result(unsafe { libc::dup2(file.as_raw_fd(), libc::STDIN_FILENO) })
        .map(drop)
        .map_err(|errno| failed(errno.into()))
}
