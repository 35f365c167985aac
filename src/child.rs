//! *Children* are programs of the machine that are run for what they say: apt, nix, docker and podman.
//!
//! Invariant: none outlives an interrupt. Each is the head of a process group, which is asked to end ([`end_all`]) and, where
//! it does not, killed ([`kill_all`]); after that no new one starts. (Builds have a sandbox, which ends them.)
//!
//! One that may have to ask the person at the terminal (ssh, for a password) stays in our group, as only that one may: Ctrl-C
//! comes to it from the terminal, everything else from here.
//!
//! The signals that interrupt us are blocked in our threads, and children inherit that: of those asked to end only programs
//! do that listen for it, docker's and podman's among them; the others are killed.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

/// Children that were not waited for yet: the number, and whether it is the head of a group.
static CHILDREN: Mutex<BTreeSet<(i32, bool)>> = Mutex::new(BTreeSet::new());

static ENDED: AtomicBool = AtomicBool::new(false);

/// A child that is running; dropped, it is killed.
#[derive(Debug)]
pub struct RunningChild {
    /// The child, whose pipes may be taken. It is waited for by [`RunningChild::wait`].
    pub child: Child,
    has_group: bool,
    waited: bool,
}

impl RunningChild {
    /// Starts a program in a group of its own: what the terminal sends to ours, Ctrl-C, comes to it through [`end_all`].
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        Self::spawn_with(command.process_group(0), true)
    }

    /// Starts a program that may speak to the person at the terminal: in our own group, and with the signals as a shell starts
    /// it.
    pub fn spawn_for_terminal(command: &mut Command) -> io::Result<Self> {
        // What a thread blocks its children block. A thread of its own, so that no other is without a mask meanwhile.
        let spawned = std::thread::scope(|scope| {
            let spawning = scope.spawn(|| {
                SigSet::all().thread_unblock().map_err(io::Error::from)?;
                Self::spawn_with(command, false)
            });
            spawning.join()
        });
        spawned.unwrap_or_else(|_| Err(io::Error::other("it could not be started")))
    }

    fn spawn_with(command: &mut Command, has_group: bool) -> io::Result<Self> {
        // Held until the child is known, so that none is missed by who ends them all.
        let mut children = lock();
        if ENDED.load(Ordering::SeqCst) {
            return Err(io::Error::new(
                io::ErrorKind::Interrupted,
                "the command was interrupted",
            ));
        }
        let child = command.spawn()?;
        children.insert((number(&child), has_group));
        Ok(Self {
            child,
            has_group,
            waited: false,
        })
    }

    /// Waits until it has ended; with it ends who is left of its group, but only where all were told to end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        if self.waited {
            return self.child.wait();
        }
        let pid = Pid::from_raw(number(&self.child));
        // Its number is nobody else's as long as it was not waited for.
        while let Err(error) = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            if error != nix::errno::Errno::EINTR {
                return Err(error.into());
            }
        }
        lock().remove(&(number(&self.child), self.has_group));
        self.waited = true;
        if is_ended() && self.has_group {
            let _ = killpg(pid, Signal::SIGKILL);
        }
        self.child.wait()
    }

    /// As [`wait`](Self::wait) where it has ended already; `None` where it has not.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        match self.is_running()? {
            true => Ok(None),
            false => self.wait().map(Some),
        }
    }

    /// Whether it has not ended yet.
    pub fn is_running(&self) -> io::Result<bool> {
        if self.waited {
            return Ok(false);
        }
        let pid = Pid::from_raw(number(&self.child));
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        Ok(waitid(Id::Pid(pid), flags)? == WaitStatus::StillAlive)
    }

    /// Kills what it started and, where it has not ended, it too; gives how it ended.
    pub fn end(&mut self) -> io::Result<ExitStatus> {
        // There may be nobody left; there is nothing to be done about that. Once it was waited for, its number may be another's.
        if !self.waited {
            signal_one(number(&self.child), self.has_group, Signal::SIGKILL);
        }
        self.wait()
    }

    /// Kills it and what it started, and waits for it.
    pub fn kill(&mut self) {
        let _ = self.end();
    }
}

impl Drop for RunningChild {
    fn drop(&mut self) {
        if !self.waited {
            self.kill();
        }
    }
}

/// Runs a program to its end without input, and gives what it printed.
pub fn output(command: &mut Command) -> io::Result<Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = RunningChild::spawn(command)?;
    let errors = running.child.stderr.take();
    let (stdout, stderr) = std::thread::scope(|scope| {
        let errors = scope.spawn(|| read_all(errors));
        (read_all(running.child.stdout.take()), errors.join())
    });
    let status = running.wait()?;
    let stderr = stderr.map_err(|_| io::Error::other("standard error could not be read"))?;
    Ok(Output {
        status,
        stdout: stdout?,
        stderr: stderr?,
    })
}

fn read_all(pipe: Option<impl io::Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Asks every child to end, and lets no new one start: for an interrupt.
pub fn end_all() {
    ENDED.store(true, Ordering::SeqCst);
    signal_all(Signal::SIGTERM);
}

/// Kills every child that is left.
pub fn kill_all() {
    ENDED.store(true, Ordering::SeqCst);
    signal_all(Signal::SIGKILL);
}

/// Whether [`end_all`] or [`kill_all`] was called.
pub fn is_ended() -> bool {
    ENDED.load(Ordering::SeqCst)
}

fn signal_all(signal: Signal) {
    for (number, has_group) in lock().iter() {
        signal_one(*number, *has_group, signal);
    }
}

/// Signals a child. One that has ended is waited for by whoever started it.
fn signal_one(number: i32, has_group: bool, signal: Signal) {
    let pid = Pid::from_raw(number);
    let _ = match has_group {
        true => killpg(pid, signal),
        false => kill(pid, signal),
    };
}

fn number(child: &Child) -> i32 {
    child.id().cast_signed()
}

fn lock() -> std::sync::MutexGuard<'static, BTreeSet<(i32, bool)>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_and_the_status_are_given_however_long_they_are() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "head -c 300000 /dev/zero; head -c 200000 /dev/zero >&2; cat; exit 7",
        ]);
        let output = output(&mut command).unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (300_000, 200_000));
        assert_eq!(output.status.code(), Some(7));
        assert!(lock().is_empty());
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let error = output(&mut Command::new("/nonexistent/program")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn one_that_is_dropped_is_killed_with_its_own_children() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "sleep 954 & echo started; wait"])
            .stdout(Stdio::piped());
        let mut running = RunningChild::spawn(&mut command).unwrap();
        let mut line = [0; 8];
        io::Read::read_exact(running.child.stdout.as_mut().unwrap(), &mut line).unwrap();
        let group = Pid::from_raw(number(&running.child));
        drop(running);
        let gone = || killpg(group, None).is_err();
        let started = std::time::Instant::now();
        while !gone() {
            assert!(started.elapsed().as_secs() < 10, "something of the group is left");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
