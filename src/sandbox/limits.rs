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
use nix::unistd::{Gid, Pid, Uid, geteuid, getuid, setgroups, sethostname, setresgid, setresuid};

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

/// Umask and resource limits.
pub(super) fn fix(settings: &RuntimeSettings) -> Result<(), Failed> {
    umask(Mode::from_bits_truncate(settings.umask));
    let failed = |errno| Failed::errno(SetupStep::Limits, None, errno);
    for (resource, wanted) in SOFT_LIMITS {
        let (_, hard) = getrlimit(resource).map_err(failed)?;
        let hard = if wanted == 0 { 0 } else { hard };
        setrlimit(resource, wanted.min(hard), hard).map_err(failed)?;
    }
    settings.bounds.limit_resources().map_err(failed)?;
    match settings.one_processor {
        true => one_processor(),
        false => Ok(()),
    }
}

/// Addresses that do not vary, unless a check wants them to.
pub(super) fn fix_addresses(settings: &RuntimeSettings) -> Result<(), Failed> {
    personality(settings).map_err(|errno| Failed::errno(SetupStep::Limits, None, errno))
}

/// The same where a container's filter allows it.
pub(super) fn fix_addresses_if_allowed(settings: &RuntimeSettings) -> Result<(), Failed> {
    match personality(settings) {
        Err(Errno::EPERM | Errno::ENOSYS) => Ok(()),
        other => other.map_err(|errno| Failed::errno(SetupStep::Limits, None, errno)),
    }
}

fn personality(settings: &RuntimeSettings) -> nix::Result<()> {
    if settings.addresses_vary {
        return Ok(());
    }
    // SAFETY: takes a number only.
    Errno::result(unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) }).map(drop)
}

/// Makes `root` the root of this process. There must be no descriptor of a directory that is open.
pub(super) fn change_root(root: &Path) -> Result<(), Failed> {
    let failed = |errno| Failed::errno(SetupStep::Chroot, Some(root), errno);
    nix::unistd::chroot(root).map_err(failed)?;
    nix::unistd::chdir("/").map_err(failed)
}

/// Becomes another user for good, with one group. Capabilities go with root.
pub(super) fn become_user((user, group): (u32, u32)) -> Result<(), Failed> {
    let failed = |errno| Failed::errno(SetupStep::Builder, None, errno);
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    if getuid() != user || geteuid() != user {
        setgroups(&[]).map_err(failed)?;
        setresgid(group, group, group).map_err(failed)?;
        setresuid(user, user, user).map_err(failed)?;
    }
    Ok(())
}

/// Lets another user open the pipes that standard output and error are once more, as `/dev/stderr`.
pub(super) fn give_output_to((user, group): (u32, u32)) {
    for descriptor in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: takes numbers only. Where it fails, nothing but that is missing.
        unsafe { libc::fchown(descriptor, user, group) };
    }
}

/// Lets no program that is started have any capability, as far as this may be asked for.
pub(super) fn forget_capabilities() {
    for capability in 0..=63 as libc::c_ulong {
        // SAFETY: takes numbers only. Without the right to do so nobody gains any either: see `no_new_privs`.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
}

/// Keeps signals and sockets without a path within this process and those it starts, where the kernel can (Landlock, Linux
/// 6.12) and a container lets us ask it to. What cannot be had so is the guard's, or said in the manual.
pub(super) fn scope_signals_and_sockets() {
    const SYS_LANDLOCK_CREATE_RULESET: libc::c_long = 444;
    const SYS_LANDLOCK_RESTRICT_SELF: libc::c_long = 446;
    /// `struct landlock_ruleset_attr`: file system, network, scopes (abstract unix sockets, signals).
    const RULESET: [u64; 3] = [0, 0, 1 | 2];
    if nix::sys::prctl::set_no_new_privs().is_err() {
        return;
    }
    // SAFETY: pointer and size describe a live value; the descriptor is this function's alone and closed in it.
    unsafe {
        let ruleset = libc::syscall(SYS_LANDLOCK_CREATE_RULESET, RULESET.as_ptr(), size_of_val(&RULESET), 0);
        if ruleset >= 0 {
            libc::syscall(SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0);
            libc::close(ruleset as libc::c_int);
        }
    }
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

/// The same for a user who may not say so of programs that are started, and need not: none of them gains any.
pub(super) fn drop_own_privileges() -> Result<(), Failed> {
    let failed = |errno| Failed::errno(SetupStep::Privileges, None, errno);
    nix::sys::prctl::set_no_new_privs().map_err(failed)?;
    set_capabilities(0).map_err(failed)
}

/// Gives up, for good, every capability that is not in `kept`, a set of the first 32.
fn keep_capabilities(kept: u32) -> Result<(), Failed> {
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
    set_capabilities(kept).map_err(failed)
}

/// Has these capabilities, a set of the first 32, and no others.
fn set_capabilities(kept: u32) -> nix::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    // Effective, permitted, inheritable; for the low and the high half.
    let sets = [kept, kept, 0, 0, 0, 0];
    // SAFETY: both pointers are to live values of the layout that version 3 prescribes.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    Errno::result(result).map(drop)
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
