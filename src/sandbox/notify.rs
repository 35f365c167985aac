//! System calls that process 1 *answers* in the kernel's place (seccomp user notification, Linux 5.5), and how it waits
//! for them and for its children at once.
//!
//! Invariant: a call that is not understood goes on in the kernel. Nothing is walled off here: whoever is answered could
//! have changed its arguments meanwhile, and the namespaces are what keeps it in.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::helper::Failed;
use super::owners;
use super::request::{SandboxReply, SetupStep};

/// What a notified call comes to.
pub(super) enum Answer {
    /// The kernel carries it out.
    Continue,
    /// It has been carried out, or has failed.
    Done(Result<(), Errno>),
}

/// The calls that are answered: those that say or tell who owns a file, and those that give it a capability.
pub(super) fn calls() -> Vec<i64> {
    let mut calls = vec![
        libc::SYS_fchown,
        libc::SYS_fchownat,
        libc::SYS_fstat,
        libc::SYS_newfstatat,
        libc::SYS_setxattr,
        libc::SYS_lsetxattr,
        libc::SYS_fsetxattr,
    ];
    #[cfg(target_arch = "x86_64")]
    calls.extend([libc::SYS_chown, libc::SYS_lchown, libc::SYS_stat, libc::SYS_lstat]);
    calls
}

/// Over what the listener goes from the process that is listened to to process 1.
pub(super) fn channel() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)
}

/// Has the calls of this process and all it starts answered by whoever is at the other end of `channel`.
pub(super) fn install(channel: &OwnedFd) -> Result<(), Failed> {
    let failed = |errno| Failed::errno(SetupStep::Filter, None, errno);
    let program = program();
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

/// Notifies of [`calls`], lets all others pass. Foreign tables of calls are dealt with by the other filters.
fn program() -> Vec<libc::sock_filter> {
    let statement = |code: u32, k: u32, jt: usize| libc::sock_filter {
        code: code as u16,
        jt: jt as u8,
        jf: 0,
        k,
    };
    let calls = calls();
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

/// Answers notified calls and reaps every process that ends until `program` does; tells how that one ended.
pub(super) fn answer_until(program: Pid, children: &Children, channel: &OwnedFd) -> nix::Result<SandboxReply> {
    let mut listener: Option<OwnedFd> = None;
    loop {
        let notified = listener.as_ref().unwrap_or(channel);
        let mut fds = [
            PollFd::new(children.0.as_fd(), PollFlags::POLLIN),
            PollFd::new(notified.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        let [ended, called] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        if called.contains(PollFlags::POLLIN) {
            match &listener {
                None => listener = Some(receive(channel)?),
                Some(listener) => answer_one(listener)?,
            }
        }
        // A filter that nobody uses any more hangs up; its last process has ended then.
        if ended.contains(PollFlags::POLLIN) || called.contains(PollFlags::POLLHUP) {
            children.drain();
            if let Some(reply) = reap(program)? {
                return Ok(reply);
            }
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

fn answer_one(listener: &OwnedFd) -> nix::Result<()> {
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
    let answer = owners::answer(call.pid, call.data.nr.into(), &call.data.args, &is_waiting);
    let mut reply = libc::seccomp_notif_resp {
        id: call.id,
        val: 0,
        error: 0,
        flags: 0,
    };
    match answer {
        Answer::Continue => reply.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        Answer::Done(Ok(())) => {}
        Answer::Done(Err(errno)) => reply.error = -(errno as i32),
    }
    // SAFETY: as above. Where whoever called is gone, nobody waits for the answer.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut reply) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answered_call_jumps_to_the_last_statement() {
        let program = program();
        assert_eq!(program.len(), calls().len() + 3);
        for (index, statement) in program.iter().enumerate().skip(1).take(calls().len()) {
            assert_eq!(index + 1 + usize::from(statement.jt), program.len() - 1);
        }
    }
}
