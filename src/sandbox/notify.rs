//! System calls that process 1 *answers* in the kernel's place (seccomp user notification, Linux 5.5), and how it waits
//! for them and for its children at once.
//!
//! Invariant: a call that is not understood goes on in the kernel. Nothing is walled off here: whoever is answered could
//! have changed its arguments meanwhile, and the namespaces are what keeps it in.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::guard::Guard;
use super::helper::Failed;
use super::identity::{self, Callers};
use super::owners;
use super::request::{SandboxReply, SetupStep};

/// What a notified call comes to.
pub(super) enum Answer {
    /// The kernel carries it out.
    Continue,
    /// It has been carried out, or has failed.
    Done(Result<(), Errno>),
    /// It gives this number.
    Number(i64),
    /// It gives a descriptor of this file, which the next program is not to have where that is true.
    File(OwnedFd, bool),
}

/// The calls that are answered: those that say or tell who owns a file or who a process is, and those that give a file a
/// capability.
pub(super) fn calls() -> Vec<i64> {
    let mut calls = identity::calls();
    calls.extend([
        libc::SYS_fchown,
        libc::SYS_fchownat,
        libc::SYS_fstat,
        libc::SYS_newfstatat,
        libc::SYS_setxattr,
        libc::SYS_lsetxattr,
        libc::SYS_fsetxattr,
    ]);
    #[cfg(target_arch = "x86_64")]
    calls.extend([libc::SYS_chown, libc::SYS_lchown, libc::SYS_stat, libc::SYS_lstat]);
    calls
}

/// Of containers: as above without capabilities, and those that change a mode.
pub(super) fn calls_of_containers() -> Vec<i64> {
    let attributes = [libc::SYS_setxattr, libc::SYS_lsetxattr, libc::SYS_fsetxattr];
    let mut calls = calls();
    calls.retain(|call| !attributes.contains(call));
    calls.extend(owners::mode_calls());
    calls
}

/// Over what the listener goes from the process that is listened to to process 1.
pub(super) fn channel() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)
}

/// Has these calls of this process and all it starts answered by whoever is at the other end of `channel`.
pub(super) fn install(channel: &OwnedFd, calls: &[i64]) -> Result<(), Failed> {
    let failed = |errno| Failed::errno(SetupStep::Filter, None, errno);
    let program = program(calls);
    let description = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the description and what it points to outlive the call; the kernel copies both.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const description,
        )
    };
    let listener = Errno::result(listener).map_err(failed)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    let listener = unsafe { OwnedFd::from_raw_fd(listener as RawFd) };
    let message = ControlMessage::ScmRights(&[listener.as_raw_fd()]);
    sendmsg::<()>(
        channel.as_raw_fd(),
        &[IoSlice::new(b"l")],
        &[message],
        MsgFlags::empty(),
        None,
    )
    .map(drop)
    .map_err(failed)
}

/// Notifies of these calls, lets all others pass. Foreign tables of calls are dealt with by the other filters.
fn program(calls: &[i64]) -> Vec<libc::sock_filter> {
    let statement = |code: u32, k: u32, jt: usize| libc::sock_filter {
        code: code as u16,
        jt: jt as u8,
        jf: 0,
        k,
    };
    // The number is the first word of what a filter is shown (`seccomp_data`).
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    let jump = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let count = calls.len();
    program.extend((calls.iter().enumerate()).map(|(index, &call)| statement(jump, call as u32, count - index)));
    let answer = libc::BPF_RET | libc::BPF_K;
    program.push(statement(answer, libc::SECCOMP_RET_ALLOW, 0));
    program.push(statement(answer, libc::SECCOMP_RET_USER_NOTIF, 0));
    program
}

/// Tells when a child has ended.
pub(super) struct Children(SignalFd);

impl Children {
    /// Begins to watch. To be called before a child is started.
    pub(super) fn watch() -> nix::Result<Self> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGCHLD);
        signals.thread_block()?;
        Ok(Self(SignalFd::with_flags(
            &signals,
            SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
        )?))
    }

    fn drain(&self) {
        while let Ok(Some(_)) = self.0.read_signal() {}
    }
}

/// Who answers.
pub(super) enum Answering {
    /// Those who know the owners of files and who processes are.
    Callers(Callers),
    /// Who keeps processes from others.
    Guard(Guard),
}

/// What process 1 does while the program runs.
pub(super) struct Attendant<'a> {
    program: Pid,
    channel: &'a OwnedFd,
    listener: Option<OwnedFd>,
    /// Signals to be passed on to the program.
    signals: Option<File>,
    /// Who answers; `None`: nobody is asked.
    answering: Option<Answering>,
    /// A pipe that ends with whoever asked for the program.
    alive: Option<&'a OwnedFd>,
}

impl<'a> Attendant<'a> {
    pub(super) fn new(program: Pid, channel: &'a OwnedFd, signals: Option<File>, answering: Option<Answering>) -> Self {
        Self {
            program,
            channel,
            listener: None,
            signals,
            answering,
            alive: None,
        }
    }

    /// Attends no longer than this pipe is held elsewhere.
    pub(super) fn until_end_of(self, alive: &'a OwnedFd) -> Self {
        Self {
            alive: Some(alive),
            ..self
        }
    }

    /// Answers notified calls, passes signals on and reaps every process that ends until the program does; tells how that
    /// one ended, or that it is to be killed.
    pub(super) fn attend_until_end(&mut self, children: &Children) -> nix::Result<SandboxReply> {
        loop {
            let notified = self.listener.as_ref().unwrap_or(self.channel);
            let mut fds = vec![
                PollFd::new(children.0.as_fd(), PollFlags::POLLIN),
                PollFd::new(notified.as_fd(), PollFlags::POLLIN),
            ];
            let signals = self.signals.as_ref();
            fds.extend(signals.map(|signals| PollFd::new(signals.as_fd(), PollFlags::POLLIN)));
            fds.extend(self.alive.map(|alive| PollFd::new(alive.as_fd(), PollFlags::empty())));
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            let told: Vec<PollFlags> = (fds.iter())
                .map(|fd| fd.revents().unwrap_or(PollFlags::empty()))
                .collect();
            let (ended, called) = (told[0], told[1]);
            if self.alive.is_some() && told.last().is_some_and(|told| !told.is_empty()) {
                return Ok(SandboxReply::Signaled(Signal::SIGKILL as i32));
            }
            if called.contains(PollFlags::POLLIN) {
                match &self.listener {
                    None => self.listener = Some(receive(self.channel)?),
                    Some(listener) => answer_one(listener, self.answering.as_mut())?,
                }
            }
            if self.signals.is_some() && told[2].contains(PollFlags::POLLIN) {
                self.pass_signal_on();
            }
            // A filter that nobody uses any more hangs up; its last process has ended then.
            if ended.contains(PollFlags::POLLIN) || called.contains(PollFlags::POLLHUP) {
                children.drain();
                if let Some(reply) = reap(self.program)? {
                    return Ok(reply);
                }
            }
        }
    }

    fn pass_signal_on(&self) {
        let mut number = [0];
        let Some(mut signals) = self.signals.as_ref() else {
            return;
        };
        if let (Ok(1), Ok(signal)) = (signals.read(&mut number), Signal::try_from(i32::from(number[0]))) {
            // It may have ended meanwhile.
            let _ = kill(self.program, signal);
        }
    }
}

fn receive(channel: &OwnedFd) -> nix::Result<OwnedFd> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let message = recvmsg::<()>(
        channel.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part
            && let Some(&descriptor) = descriptors.first()
        {
            // SAFETY: the kernel has just made this descriptor for us.
            return Ok(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
    Err(Errno::EBADMSG)
}

/// Reaps all that has ended.
fn reap(program: Pid) -> nix::Result<Option<SandboxReply>> {
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == program => return Ok(Some(SandboxReply::Exited(status))),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => {
                return Ok(Some(SandboxReply::Signaled(signal as i32)));
            }
            Ok(WaitStatus::StillAlive) => return Ok(None),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn answer_one(listener: &OwnedFd, answering: Option<&mut Answering>) -> nix::Result<()> {
    // SAFETY: plain data, for which zeros are valid; the kernel wants them.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live value of the type that the request prescribes.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) };
    match Errno::result(result) {
        Ok(_) => {}
        // Whoever called was killed meanwhile.
        Err(Errno::ENOENT | Errno::EINTR) => return Ok(()),
        Err(errno) => return Err(errno),
    }
    let is_waiting = || {
        // SAFETY: as above, with a number.
        let valid = unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
                &raw const call.id,
            )
        };
        valid == 0
    };
    let number = i64::from(call.data.nr);
    let answer = match answering {
        None => Answer::Continue,
        Some(Answering::Callers(callers)) => owners::answer(call.pid, number, &call.data.args, &is_waiting, callers),
        Some(Answering::Guard(guard)) => guard.answer(call.pid, number, &call.data.args),
    };
    let mut reply = libc::seccomp_notif_resp {
        id: call.id,
        val: 0,
        error: 0,
        flags: 0,
    };
    match answer {
        Answer::Continue => reply.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        Answer::Done(Ok(())) => {}
        Answer::Number(number) => reply.val = number,
        Answer::Done(Err(errno)) => reply.error = -(errno as i32),
        Answer::File(file, is_closed) => match give(listener, call.id, &file, is_closed) {
            Ok(number) => reply.val = number,
            Err(errno) => reply.error = -(errno as i32),
        },
    }
    // SAFETY: as above. Where whoever called is gone, nobody waits for the answer.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut reply) };
    Ok(())
}

/// Gives whoever made a call a descriptor, and tells its number there (Linux 5.9).
fn give(listener: &OwnedFd, id: u64, file: &OwnedFd, is_closed: bool) -> nix::Result<i64> {
    let given = libc::seccomp_notif_addfd {
        id,
        flags: 0,
        srcfd: file.as_raw_fd().unsigned_abs(),
        newfd: 0,
        newfd_flags: if is_closed { libc::O_CLOEXEC.unsigned_abs() } else { 0 },
    };
    // SAFETY: the pointer is to a live value of the type that the request prescribes.
    let number = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const given) };
    Errno::result(number).map(i64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answered_call_jumps_to_the_last_statement() {
        for calls in [calls(), calls_of_containers()] {
            let program = program(&calls);
            assert_eq!(program.len(), calls.len() + 3);
            for (index, statement) in program.iter().enumerate().skip(1).take(calls.len()) {
                assert_eq!(index + 1 + usize::from(statement.jt), program.len() - 1);
            }
        }
    }
}
