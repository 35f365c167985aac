//! A *fence* keeps the processes of a sandbox together where the kernel has no pid namespace for it: what they leave behind
//! falls to a process of ours, which ends it.
//!
//! Two such processes: the *outer* one, which the helper is, and the *keeper* below it, which starts the program and answers
//! its calls. Both adopt orphans, and each ends what is left when the other one has ended.
//!
//! Invariant: when the outer process has ended none of the sandbox is left, whichever of the two was killed.

use std::convert::Infallible;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, getpid, setsid};

use super::guard::{self, Guard};
use super::helper::{self, Failed, answer, refuse};
use super::identity::process_of;
use super::notify::{self, Answering, Attendant, Children};
use super::request::{Isolation, SandboxReply, SandboxRequest, SetupStep};
use super::{limits, seccomp, traced};

/// How long processes may take to end once they are killed.
const GRACE: Duration = Duration::from_secs(10);

/// How long it is waited before it is looked again.
const TICK: Duration = Duration::from_millis(2);

/// Runs what was asked for, and waits for its end, or for the end of whoever asked.
pub(super) fn contain(request: &SandboxRequest, reply: &mut File) -> Result<(), Failed> {
    let failed = |errno| Failed::errno(SetupStep::Fork, None, errno);
    set_child_subreaper(true).map_err(failed)?;
    let (alive, outer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    // SAFETY: this process has one thread.
    let keeper = match unsafe { nix::unistd::fork() }.map_err(failed)? {
        ForkResult::Child => {
            drop(outer);
            let Err(failed) = keep(request, reply, &alive);
            let status = refuse(reply, failed);
            end_all();
            std::process::exit(status);
        }
        ForkResult::Parent { child } => child,
    };
    drop(alive);
    let is_over = helper::wait_for_end(keeper).map_err(failed);
    // The keeper sees that, and ends everything.
    drop(outer);
    let ended = is_over.and_then(|_| wait(keeper).map_err(failed));
    end_all();
    if let WaitStatus::Signaled(_, signal, _) = ended? {
        answer(reply, &SandboxReply::Signaled(signal as i32));
    }
    Ok(())
}

/// Waits for the end of the keeper, which takes no longer than it has time to end others.
fn wait(keeper: Pid) -> nix::Result<WaitStatus> {
    let started = Instant::now();
    loop {
        match waitpid(keeper, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if started.elapsed() < GRACE + GRACE => sleep(TICK),
            Ok(WaitStatus::StillAlive) => {
                kill(keeper, Signal::SIGKILL)?;
                return waitpid(keeper, None);
            }
            Err(Errno::EINTR) => {}
            ended => return ended,
        }
    }
}

/// The keeper: starts the program, attends it until it ends, and ends what it leaves behind.
fn keep(request: &SandboxRequest, reply: &mut File, alive: &OwnedFd) -> Result<Infallible, Failed> {
    let failed = |errno| Failed::errno(SetupStep::Fork, None, errno);
    // Whoever kills the outer process by its group does not kill this one.
    setsid().map_err(failed)?;
    set_child_subreaper(true).map_err(failed)?;
    if request.isolation == Isolation::Traced {
        return traced::keep(request, reply, alive);
    }
    let (ours, theirs) = notify::channel().map_err(failed)?;
    let own = getpid();
    let children = Children::watch().map_err(failed)?;
    // SAFETY: this process has one thread.
    let program = match unsafe { nix::unistd::fork() }.map_err(failed)? {
        ForkResult::Child => {
            let Err(failed) = program(request, own, &theirs);
            std::process::exit(refuse(reply, failed));
        }
        ForkResult::Parent { child } => child,
    };
    let answering = match request.isolation {
        Isolation::Chroot => {
            // As who it can read what the build's processes ask, and nobody's files but theirs.
            limits::become_user(request.ids)?;
            Some(Answering::Guard(Guard::new(own, request)))
        }
        _ => None,
    };
    let mut attendant = Attendant::new(program, &ours, None, answering).until_end_of(alive);
    let ended = attendant.attend_until_end(&children).map_err(failed)?;
    drop(theirs);
    end_all();
    answer(reply, &ended);
    std::process::exit(0)
}

/// The process that becomes what was asked for.
pub(super) fn program(request: &SandboxRequest, keeper: Pid, channel: &OwnedFd) -> Result<Infallible, Failed> {
    setsid().map_err(|errno| Failed::errno(SetupStep::Fork, None, errno))?;
    limits::fix(&request.settings)?;
    limits::fix_addresses_if_allowed(&request.settings)?;
    limits::detach_input()?;
    if request.isolation == Isolation::Chroot {
        limits::give_output_to(request.ids);
        limits::scope_signals_and_sockets();
        limits::change_root(&request.mount_point)?;
        limits::forget_capabilities();
        limits::become_user(request.ids)?;
        limits::drop_own_privileges()?;
        seccomp::install_for_chroot()?;
        notify::install(channel, &guard::calls())?;
    }
    if request.isolation == Isolation::Traced {
        limits::scope_signals_and_sockets();
        limits::forget_capabilities();
        limits::drop_own_privileges()?;
        seccomp::install_for_traced()?;
        traced::enter(channel)?;
    }
    // Should both of those who end it be killed.
    helper::end_with(keeper.as_raw())?;
    helper::exec(request)
}

/// Ends every process below this one, as far as it may.
pub(super) fn end_all() {
    let started = Instant::now();
    while started.elapsed() < GRACE {
        for child in children() {
            // It may have ended meanwhile.
            let _ = kill(child, Signal::SIGKILL);
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => return,
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
        sleep(TICK);
    }
}

/// The children of this process, as far as they can be seen.
fn children() -> Vec<Pid> {
    let own = getpid().as_raw().unsigned_abs();
    let parent_of = |process: &Pid| process_of(process.as_raw().unsigned_abs()).map(|(_, parent)| parent);
    guard::processes()
        .filter(|process| parent_of(process) == Some(own))
        .collect()
}
