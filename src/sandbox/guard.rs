//! The *guard* of a build without namespaces answers the calls by which its processes reach others, name the machine, or open
//! what they have no file system for.
//!
//! Invariant: what is decided here is decided by arguments that the caller cannot change afterwards, never by what they point
//! to: no other process of the user that the build is gets a signal or another priority.

use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgid};
use std::os::unix::fs::FileExt;

use super::identity::process_of;
use super::notify::Answer;
use super::owners::Process;
use super::request::SandboxRequest;
use super::served::{self, Served};
use crate::fsio::sorted_names;

/// Calls whose first argument is a process or thread, 0 for the caller.
const ON_PROCESSES: [i64; 10] = [
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
];

/// The same for their second argument, where the first says what it is: a process, a group, a user.
const ON_GROUPS: [i64; 2] = [libc::SYS_setpriority, libc::SYS_ioprio_set];

/// The calls that are answered.
pub(super) fn calls() -> Vec<i64> {
    [calls_about_processes(), served::calls()].concat()
}

/// Those of them that are about processes and the machine's name, and not about files.
pub(super) fn calls_about_processes() -> Vec<i64> {
    [&ON_PROCESSES[..], &ON_GROUPS, &[libc::SYS_uname]].concat()
}

/// What answers.
pub(super) struct Guard {
    /// The process below which all those of the build are.
    top: Pid,
    /// What the machine is called.
    host: String,
    served: Served,
}

impl Guard {
    pub(super) fn new(top: Pid, request: &SandboxRequest) -> Self {
        Self {
            top,
            host: request.settings.host.clone(),
            served: Served::new(&request.mount_point),
        }
    }

    /// Answers a call of thread `caller`.
    pub(super) fn answer(&self, caller: u32, call: i64, arguments: &[u64; 6]) -> Answer {
        let [first, second, ..] = *arguments;
        let allowed = match call {
            libc::SYS_uname => return self.name_machine(caller, first),
            libc::SYS_kill if first as i32 == -1 => {
                self.signal_all(caller, second);
                return Answer::Done(Ok(()));
            }
            libc::SYS_kill if (first as i32) < -1 => self.is_own_group(-(first as i32)),
            _ if ON_PROCESSES.contains(&call) => first as i32 == 0 || first == u64::from(caller) || self.is_own(first),
            // PRIO_PROCESS is 0, IOPRIO_WHO_PROCESS is 1.
            libc::SYS_setpriority => first == 0 && (second == 0 || self.is_own(second)),
            libc::SYS_ioprio_set => first == 1 && (second == 0 || self.is_own(second)),
            _ => {
                let own = || process_of(caller).map_or(caller, |(process, _)| process);
                let is_own = |number: u32| self.is_own(number.into());
                return self.served.answer(caller, &own, call, arguments, &is_own);
            }
        };
        match allowed {
            true => Answer::Continue,
            // As where there is no such process.
            false => Answer::Done(Err(Errno::ESRCH)),
        }
    }

    /// Whether a process or thread is below ours.
    fn is_own(&self, number: u64) -> bool {
        is_below(self.top, number)
    }

    fn is_own_group(&self, group: i32) -> bool {
        processes().all(|process| {
            let member = getpgid(Some(process)).is_ok_and(|of| of.as_raw() == group);
            !member || self.is_own(u64::from(process.as_raw().unsigned_abs()))
        })
    }

    /// What a signal to all that there are does where there are only the build's.
    fn signal_all(&self, caller: u32, signal: u64) {
        let Ok(signal) = Signal::try_from(signal as i32) else {
            return;
        };
        let own = process_of(caller).map_or(caller, |(process, _)| process);
        for process in processes() {
            let number = process.as_raw().unsigned_abs();
            if number != own && self.is_own(number.into()) {
                // It may have ended meanwhile.
                let _ = kill(process, signal);
            }
        }
    }

    /// Tells the machine's name as every sandbox has it.
    fn name_machine(&self, caller: u32, buffer: u64) -> Answer {
        // SAFETY: plain data, for which zeros are valid.
        let mut names: libc::utsname = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a live value of the type that is filled in.
        if unsafe { libc::uname(&raw mut names) } != 0 {
            return Answer::Continue;
        }
        write_name(&mut names.nodename, &self.host);
        write_name(&mut names.domainname, "(none)");
        // SAFETY: the value is plain data without padding: all its fields are arrays of bytes.
        let bytes = unsafe { std::slice::from_raw_parts((&raw const names).cast::<u8>(), size_of_val(&names)) };
        let memory = Process { pid: caller }.memory(true);
        match memory.is_ok_and(|memory| memory.write_all_at(bytes, buffer).is_ok()) {
            true => Answer::Done(Ok(())),
            false => Answer::Continue,
        }
    }
}

/// Whether a process or thread is below `top`.
pub(super) fn is_below(top: Pid, number: u64) -> bool {
    let top = top.as_raw().unsigned_abs();
    let mut next = u32::try_from(number).ok();
    while let Some(number) = next {
        let Some((process, parent)) = process_of(number) else {
            return false;
        };
        if parent == top {
            return true;
        }
        next = (parent > 1 && process != top).then_some(parent);
    }
    false
}

fn write_name(field: &mut [libc::c_char], name: &str) {
    field.fill(0);
    let room = field.len() - 1;
    for (to, from) in field[..room].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
}

/// All processes that can be seen.
pub(super) fn processes() -> impl Iterator<Item = Pid> {
    let names = sorted_names(Path::new("/proc")).unwrap_or_default();
    let numbers = names.into_iter().filter_map(|name| name.to_str()?.parse().ok());
    numbers.map(Pid::from_raw)
}
