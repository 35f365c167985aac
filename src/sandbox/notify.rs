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
    let installed = install_program(
        channel,
        &program(calls, &[], &[]),
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
    );
    installed.map_err(|errno| Failed::errno(SetupStep::Filter, None, errno))
}

/// The same, and whoever traces this process is told of the calls `traced`. No signal but one that ends a process keeps it from
/// being answered, as what was done for it cannot be undone (Linux 5.19).
pub(super) fn install_traced(
    channel: &OwnedFd,
    calls: &[i64],
    traced: &[i64],
    flagged: &[Flagged],
) -> Result<(), Failed> {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE;
    let installed = install_program(channel, &program(calls, traced, flagged), flags);
    installed.map_err(|errno| Failed::errno(SetupStep::Trace, None, errno))
}

/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`.
const WAIT_KILLABLE: libc::c_ulong = 1 << 5;

fn install_program(channel: &OwnedFd, program: &[libc::sock_filter], flags: libc::c_ulong) -> nix::Result<()> {
    let description = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the description and what it points to outlive the call; the kernel copies both.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const description,
        )
    };
    let listener = Errno::result(listener)?;
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
}

/// A call that is traced where a flag stands in one of its arguments, and answered where not.
pub(super) type Flagged = (i64, u32, u32);

/// Notifies of these calls, stops the traced ones, lets all others pass. Foreign tables of calls are dealt with by the other
/// filters.
fn program(calls: &[i64], traced: &[i64], flagged: &[Flagged]) -> Vec<libc::sock_filter> {
    /// Where the arguments are of what a filter is shown (`seccomp_data`), the number of the call being its first word.
    const ARGUMENTS: u32 = 16;
    let load = |at: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0, 0);
    let is_call =
        |call: i64, jt: usize, jf: usize| statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32, jt, jf);
    let answer = |action: u32| statement(libc::BPF_RET | libc::BPF_K, action, 0, 0);
    let mut program = vec![load(0)];
    // The last three statements: nothing, traced, answered.
    let end = 1 + 3 * flagged.len() + calls.len() + traced.len();
    let (stopped, answered) = (end + 1, end + 2);
    let from = |program: &Vec<libc::sock_filter>, target: usize| target - program.len() - 1;
    for &(call, argument, flag) in flagged {
        program.push(is_call(call, 0, 2));
        // Of eight bytes the lower four.
        let half = if cfg!(target_endian = "big") { 4 } else { 0 };
        program.push(load(ARGUMENTS + 8 * argument + half));
        let (jt, jf) = (from(&program, stopped), from(&program, answered));
        program.push(statement(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, flag, jt, jf));
    }
    for &call in calls {
        program.push(is_call(call, from(&program, answered), 0));
    }
    for &call in traced {
        program.push(is_call(call, from(&program, stopped), 0));
    }
    program.extend(
        [
            libc::SECCOMP_RET_ALLOW,
            libc::SECCOMP_RET_TRACE,
            libc::SECCOMP_RET_USER_NOTIF,
        ]
        .map(answer),
    );
    program
}

fn statement(code: u32, k: u32, jt: usize, jf: usize) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: jt as u8,
        jf: jf as u8,
        k,
    }
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

/// Takes the listener that was sent.
pub(super) fn receive(channel: &OwnedFd) -> nix::Result<OwnedFd> {
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
    let Some(call) = next(listener)? else {
        return Ok(());
    };
    let is_waiting = || {
        // SAFETY: the request takes the address of a number.
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
    send(listener, call.id, answer);
    Ok(())
}

/// Waits for the next call; `None`: whoever made it was killed meanwhile.
pub(super) fn next(listener: &OwnedFd) -> nix::Result<Option<libc::seccomp_notif>> {
    // SAFETY: plain data, for which zeros are valid; the kernel wants them.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live value of the type that the request prescribes.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) };
    match Errno::result(result) {
        Ok(_) => Ok(Some(call)),
        Err(Errno::ENOENT | Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Tells what a call comes to.
pub(super) fn send(listener: &OwnedFd, id: u64, answer: Answer) {
    let mut reply = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: 0,
        flags: 0,
    };
    match answer {
        Answer::Continue => reply.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        Answer::Done(Ok(())) => {}
        Answer::Number(number) => reply.val = number,
        Answer::Done(Err(errno)) => reply.error = -(errno as i32),
        Answer::File(file, is_closed) => match give(listener, id, &file, is_closed) {
            Ok(number) => reply.val = number,
            Err(errno) => reply.error = -(errno as i32),
        },
    }
    // SAFETY: as above. Where whoever called is gone, nobody waits for the answer.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut reply) };
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

    /// What a program says of a call with these arguments.
    fn verdict(program: &[libc::sock_filter], call: i64, arguments: [u64; 6]) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let statement = &program[at];
            at += 1;
            let code = u32::from(statement.code);
            let is = |bits: u32| code == bits | libc::BPF_K;
            let jump = |is_so: bool| usize::from(if is_so { statement.jt } else { statement.jf });
            if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS {
                loaded = match statement.k {
                    0 => call as u32,
                    at => arguments[(at as usize - 16) / 8] as u32,
                };
            } else if is(libc::BPF_JMP | libc::BPF_JEQ) {
                at += jump(loaded == statement.k);
            } else if is(libc::BPF_JMP | libc::BPF_JSET) {
                at += jump(loaded & statement.k != 0);
            } else {
                return statement.k;
            }
        }
    }

    #[test]
    fn every_call_is_answered_traced_or_neither() {
        let (traced, flagged) = ([1004, 1005], [(1006, 2, 8), (1007, 1, 8)]);
        for calls in [calls(), calls_of_containers(), vec![1001, 1002]] {
            let program = program(&calls, &traced, &flagged);
            assert!(program.len() < 250, "jumps reach no further than 255");
            let says = |call: i64, argument: u64| verdict(&program, call, [0, argument, argument, 0, 0, 0]);
            for &call in &calls {
                assert_eq!(says(call, 8), libc::SECCOMP_RET_USER_NOTIF, "{call}");
            }
            for call in traced {
                assert_eq!(says(call, 0), libc::SECCOMP_RET_TRACE, "{call}");
            }
            for (call, ..) in flagged {
                assert_eq!(says(call, 12), libc::SECCOMP_RET_TRACE, "{call}");
                assert_eq!(says(call, 4), libc::SECCOMP_RET_USER_NOTIF, "{call}");
            }
            assert_eq!(says(1003, 8), libc::SECCOMP_RET_ALLOW);
        }
    }
}
