//! The sandbox's *helper*: our own program, started anew, single-threaded, that becomes the sandbox.
//!
//! Three processes, each the parent of the next: the *outer* one makes the namespaces and waits for either the
//! end of the build or the end of whoever asked; *init* (process 1 of the new pid namespace) mounts, starts the
//! *program* and reaps what the program leaves behind. When init ends the kernel ends everything else inside.
//!
//! Invariant: at most one reply is written, by the first process that knows the answer; no way of ending the
//! asking process (SIGKILL included) leaves a process behind.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, getegid, geteuid, getppid, setgroups, setsid};

use super::identity::Callers;
use super::notify::{Answering, Attendant};
use super::request::{ContainerPlan, Isolation, REQUEST, Refusal, SandboxReply, SandboxRequest, SetupStep};
use super::{bounds, fence, limits, mounts, notify, seccomp, session};
use crate::fsio::read_limited;

/// Largest request: some thousand paths.
const REQUEST_LIMIT: u64 = 64 << 20;

/// User and group of the administrator.
const ROOT: (u32, u32) = (0, 0);

/// Status of a helper process that has written a refusal.
pub(super) const REFUSED: i32 = 125;

/// A step of the setup that failed, on its way to the reply.
#[derive(Debug)]
pub(super) struct Failed {
    pub step: SetupStep,
    pub path: Option<PathBuf>,
    pub error: io::Error,
}

impl Failed {
    pub(super) fn errno(step: SetupStep, path: Option<&Path>, errno: Errno) -> Self {
        Self {
            step,
            path: path.map(Path::to_owned),
            error: errno.into(),
        }
    }

    pub(super) fn io(step: SetupStep, path: &Path, error: &io::Error) -> Self {
        let error = match error.raw_os_error() {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::other(error.to_string()),
        };
        Self {
            step,
            path: Some(path.to_owned()),
            error,
        }
    }

    /// The same failure, told as part of another step.
    pub(super) fn during(self, step: SetupStep) -> Self {
        Self { step, ..self }
    }
}

impl From<Failed> for Refusal {
    fn from(failed: Failed) -> Self {
        let errno = failed.error.raw_os_error();
        Self {
            step: failed.step,
            path: failed.path,
            errno: errno.unwrap_or(0),
            detail: errno.is_none().then(|| failed.error.to_string()),
        }
    }
}

/// Entry point of the helper process: to be called first thing in `main`, before any thread is started, when
/// the first argument is `__sandbox`; the request is in the working directory. Never returns.
pub fn sandbox_main() -> ! {
    let status = match read_request() {
        Ok((request, mut reply)) => match become_sandbox(&request, &mut reply) {
            Ok(()) => 0,
            Err(failed) => refuse(&mut reply, failed),
        },
        // Nobody to tell: whoever asked sees that there is no reply.
        Err(_) => REFUSED,
    };
    std::process::exit(status)
}

fn read_request() -> io::Result<(SandboxRequest, File)> {
    limits::close_inherited_files();
    limits::name_process()?;
    let bytes = read_limited(Path::new(REQUEST), REQUEST_LIMIT).map_err(|error| error.source)?;
    let request: SandboxRequest = serde_json::from_slice(&bytes)?;
    let reply = File::options().write(true).create_new(true).open(&request.reply)?;
    Ok((request, reply))
}

pub(super) fn refuse(reply: &mut File, failed: Failed) -> i32 {
    answer(reply, &SandboxReply::Refused(failed.into()));
    REFUSED
}

/// Writes the reply, unless another process of this sandbox has already done so.
pub(super) fn answer(reply: &mut File, answer: &SandboxReply) {
    let written = reply.metadata().map_or(0, |metadata| metadata.len());
    if let (0, Ok(json)) = (written, serde_json::to_vec(answer)) {
        // A failure shows as a missing reply.
        let _ = reply.write_all(&json);
    }
}

fn become_sandbox(request: &SandboxRequest, reply: &mut File) -> Result<(), Failed> {
    let mut request = request.clone();
    // What no group holds is left to resource limits.
    request.settings.bounds = bounds::join(&request.groups, &request.settings.bounds);
    let request = &request;
    match request.isolation {
        Isolation::Build | Isolation::Shell | Isolation::Configure | Isolation::Container => {
            if request.isolation != Isolation::Shell {
                limits::leave_keyrings()?;
            }
            user_namespace(request)?;
            let network = match request.has_own_network() {
                true => CloneFlags::CLONE_NEWNET,
                false => CloneFlags::empty(),
            };
            namespaces(
                CloneFlags::CLONE_NEWNS
                    | CloneFlags::CLONE_NEWPID
                    | CloneFlags::CLONE_NEWIPC
                    | CloneFlags::CLONE_NEWUTS
                    | network,
            )?;
            end_with(request.parent)?;
            contain(request, reply, init)
        }
        Isolation::Run => {
            if !has_mounts_as_root(request)? {
                user_namespace(request)?;
                namespaces(CloneFlags::CLONE_NEWNS)?;
            }
            end_with(request.parent)?;
            mounts::enter(request)?;
            exec(request).map(|never| match never {})
        }
        Isolation::Chroot | Isolation::Traced | Isolation::None => {
            if request.isolation != Isolation::None {
                limits::leave_keyrings()?;
            }
            end_with(request.parent)?;
            fence::contain(request, reply)
        }
    }
}

/// Whether this process is root with a mount namespace of its own now, made without a user namespace: the program stays the
/// root that it is, with all users and ports. Root of a container that may not make one has to do as ordinary users do.
fn has_mounts_as_root(request: &SandboxRequest) -> Result<bool, Failed> {
    if !geteuid().is_root() || request.settings.emulator.is_some() {
        return Ok(false);
    }
    match unshare(CloneFlags::CLONE_NEWNS) {
        Ok(()) => Ok(true),
        Err(Errno::EPERM) => Ok(false),
        Err(errno) => Err(Failed::errno(SetupStep::Namespaces, None, errno)),
    }
}

/// A user namespace in which the caller is `request.ids`; around it, where there is an emulator, the one that knows it.
fn user_namespace(request: &SandboxRequest) -> Result<(), Failed> {
    let (user, group) = (geteuid(), getegid());
    if user.is_root() && (request.isolation.are_closed() || request.isolation == Isolation::Container) {
        match setgroups(&[]) {
            // Root of a user namespace that denies it is in the position of an ordinary user, who keeps them too.
            Ok(()) | Err(Errno::EPERM) => {}
            Err(errno) => return Err(Failed::errno(SetupStep::Groups, None, errno)),
        }
    }
    let Some(emulator) = &request.settings.emulator else {
        return become_in_namespace(request.ids, (user.as_raw(), group.as_raw()));
    };
    become_in_namespace(ROOT, (user.as_raw(), group.as_raw()))?;
    emulator.register(request.isolation == Isolation::Run)?;
    become_in_namespace(request.ids, ROOT)
}

/// A user namespace in which the caller, here `outside`, is `inside`: user and group.
fn become_in_namespace(inside: (u32, u32), outside: (u32, u32)) -> Result<(), Failed> {
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| Failed::errno(SetupStep::UserNamespace, None, errno))?;
    let write = |path: &str, text: String| {
        fs::write(path, text).map_err(|error| Failed::io(SetupStep::IdMap, Path::new(path), &error))
    };
    // Without this the group map may not be written.
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("{} {} 1", inside.0, outside.0))?;
    write("/proc/self/gid_map", format!("{} {} 1", inside.1, outside.1))
}

/// The other namespaces; the cgroup namespace where the kernel has one, and lets one be made: inside of a sandbox it does not.
fn namespaces(flags: CloneFlags) -> Result<(), Failed> {
    match unshare(flags | CloneFlags::CLONE_NEWCGROUP) {
        Err(Errno::EINVAL | Errno::ENOSPC) => unshare(flags),
        result => result,
    }
    .map_err(|errno| Failed::errno(SetupStep::Namespaces, None, errno))
}

/// Has the kernel kill this process when its parent ends. To be called after the last change of credentials,
/// which would undo it.
pub(super) fn end_with(parent: i32) -> Result<(), Failed> {
    set_pdeathsig(Signal::SIGKILL).map_err(|errno| Failed::errno(SetupStep::Fork, None, errno))?;
    match getppid().as_raw() == parent {
        true => Ok(()),
        // It ended before the line above.
        false => std::process::exit(REFUSED),
    }
}

/// Runs `first` in a child process and waits for its end, or for the end of whoever asked: their end of our
/// standard input is closed by then, whatever ended them.
fn contain(
    request: &SandboxRequest,
    reply: &mut File,
    first: impl FnOnce(&SandboxRequest, &mut File) -> Result<Infallible, Failed>,
) -> Result<(), Failed> {
    let fork_failed = |errno| Failed::errno(SetupStep::Fork, None, errno);
    let (alive, outer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(fork_failed)?;
    // SAFETY: this process has one thread.
    let child = match unsafe { nix::unistd::fork() }.map_err(fork_failed)? {
        ForkResult::Child => {
            drop(outer);
            let result = end_with_pipe(&alive).and_then(|()| first(request, reply));
            let Err(failed) = result;
            std::process::exit(refuse(reply, failed));
        }
        ForkResult::Parent { child } => child,
    };
    drop(alive);
    if !request.is_interactive() && !wait_for_end(child).map_err(fork_failed)? {
        let _ = kill(child, Signal::SIGKILL);
    }
    // In a pid namespace init's end is everyone's end: the kernel waits for them before it lets us reap init.
    let status = loop {
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            status => break status.map_err(fork_failed)?,
        }
    };
    drop(outer);
    match status {
        WaitStatus::Signaled(_, signal, _) => answer(reply, &SandboxReply::Signaled(signal as i32)),
        WaitStatus::Exited(_, status) => answer(reply, &SandboxReply::Exited(status)),
        _ => {}
    }
    Ok(())
}

/// Has the kernel kill this process when its parent ends; the parent is in another pid namespace, so whether it
/// has already ended shows at the pipe that it holds.
fn end_with_pipe(alive: &OwnedFd) -> Result<(), Failed> {
    set_pdeathsig(Signal::SIGKILL).map_err(|errno| Failed::errno(SetupStep::Fork, None, errno))?;
    let mut fds = [PollFd::new(alive.as_fd(), PollFlags::empty())];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(0) => Ok(()),
        _ => std::process::exit(REFUSED),
    }
}

/// Waits for the end of `child` (true) or of standard input (false).
pub(super) fn wait_for_end(child: Pid) -> nix::Result<bool> {
    let pid = rustix::process::Pid::from_raw(child.as_raw()).ok_or(Errno::ESRCH)?;
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        .map_err(|error| Errno::from_raw(error.raw_os_error()))?;
    let stdin = io::stdin();
    loop {
        let mut fds = [
            PollFd::new(process.as_fd(), PollFlags::POLLIN),
            // No byte is ever written to it: only its end shows.
            PollFd::new(stdin.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        if fds[0].any() == Some(true) {
            return Ok(true);
        }
        if fds[1].any() == Some(true) {
            return Ok(false);
        }
    }
}

/// Process 1 of the sandbox.
fn init(request: &SandboxRequest, reply: &mut File) -> Result<Infallible, Failed> {
    let signals = request.signals.as_deref().map(open_signals).transpose()?;
    mounts::enter(request)?;
    limits::name_host(&request.settings)?;
    if request.has_own_network() {
        limits::loopback_up()?;
    }
    let fork_failed = |errno| Failed::errno(SetupStep::Fork, None, errno);
    let ended = if request.is_answered() || signals.is_some() {
        let (ours, theirs) = notify::channel().map_err(fork_failed)?;
        let children = notify::Children::watch().map_err(fork_failed)?;
        let program = start(request, reply, request.is_answered().then_some(&theirs))?;
        drop(theirs);
        let callers = match &request.container {
            Some(container) => Some(Callers::of_container(&container.user)),
            None => request.is_answered().then(Callers::of_script),
        };
        let mut attendant = Attendant::new(program, &ours, signals, callers.map(Answering::Callers));
        attendant.attend_until_end(&children).map_err(fork_failed)?
    } else {
        reap_until(start(request, reply, None)?).map_err(fork_failed)?
    };
    answer(reply, &ended);
    std::process::exit(0)
}

/// Opens the pipe of signals, so that it does not end where nobody has it open for writing.
fn open_signals(path: &Path) -> Result<File, Failed> {
    let opened = File::options().read(true).write(true).open(path);
    opened.map_err(|error| Failed::io(SetupStep::Fork, path, &error))
}

/// Starts the process that becomes what was asked for; `channel` takes the notifications of its system calls.
fn start(request: &SandboxRequest, reply: &mut File, channel: Option<&OwnedFd>) -> Result<Pid, Failed> {
    // SAFETY: this process has one thread.
    match unsafe { nix::unistd::fork() }.map_err(|errno| Failed::errno(SetupStep::Fork, None, errno))? {
        ForkResult::Child => {
            let Err(failed) = program(request, reply, channel);
            std::process::exit(refuse(reply, failed));
        }
        ForkResult::Parent { child } => Ok(child),
    }
}

/// Reaps every process that ends until `program` does, and tells how that one ended.
fn reap_until(program: Pid) -> nix::Result<SandboxReply> {
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == program => return Ok(SandboxReply::Exited(status)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => {
                return Ok(SandboxReply::Signaled(signal as i32));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// The process that becomes what was asked for.
fn program(request: &SandboxRequest, reply: &mut File, channel: Option<&OwnedFd>) -> Result<Infallible, Failed> {
    if let Some(container) = &request.container {
        return container_program(request, container, reply, channel);
    }
    if request.isolation.are_closed() {
        if !request.is_interactive() {
            setsid().map_err(|errno| Failed::errno(SetupStep::Fork, None, errno))?;
        }
        limits::fix(&request.settings)?;
        limits::fix_addresses(&request.settings)?;
    }
    match channel {
        None if request.settings.machine_root => limits::keep_right_to_nest()?,
        None => limits::drop_privileges()?,
        Some(channel) => {
            limits::keep_rights_over_files()?;
            seccomp::install_for_configuring()?;
            notify::install(channel, &notify::calls())?;
        }
    }
    if request.isolation == Isolation::Build {
        seccomp::install()?;
    }
    exec(request)
}

/// The process that becomes a container's program, or conducts what is done with it.
fn container_program(
    request: &SandboxRequest,
    container: &ContainerPlan,
    reply: &mut File,
    channel: Option<&OwnedFd>,
) -> Result<Infallible, Failed> {
    if container.session.is_some() {
        setsid().map_err(|errno| Failed::errno(SetupStep::Fork, None, errno))?;
        limits::stay_when_told_to_end();
    }
    limits::set_umask(&request.settings);
    limits::keep_rights_of_container(container)?;
    seccomp::install_for_container()?;
    if let Some(channel) = channel {
        notify::install(channel, &notify::calls_of_containers())?;
    }
    let program = session::Program {
        argv: request.argv.clone(),
        env: request.env.clone(),
        cwd: request.cwd.clone(),
        stdin: None,
    };
    match &container.session {
        None => {
            let failed = program.become_it();
            Err(Failed::io(failed.step, &failed.path, &failed.error))
        }
        Some(session) => {
            let report = session.conduct(&program);
            answer(reply, &SandboxReply::Session(Box::new(report)));
            std::process::exit(0)
        }
    }
}

pub(super) fn exec(request: &SandboxRequest) -> Result<Infallible, Failed> {
    limits::reset_signals()?;
    if request.argv.is_empty() {
        // It was only to be seen whether the walls can be set up.
        std::process::exit(0);
    }
    std::env::set_current_dir(&request.cwd)
        .map_err(|error| Failed::io(SetupStep::WorkingDirectory, &request.cwd, &error))?;
    let (name, arguments) = request
        .argv
        .split_first()
        .ok_or_else(|| Failed::errno(SetupStep::Exec, None, Errno::EINVAL))?;
    let mut command = Command::new(name);
    command
        .args(arguments)
        .env_clear()
        .envs(request.env.iter().map(|(k, v)| (k, v)));
    if !request.is_interactive() && request.isolation.are_closed() {
        limits::detach_input()?;
    }
    let error = command.exec();
    Err(Failed::io(SetupStep::Exec, Path::new(name), &error))
}
