//! The *line* to a peer: ssh, run for as long as there is something to say.
//!
//! Invariant: ssh is the system's own, with its configuration, agents and jump hosts, and may ask the person at the terminal.
//! Whatever ends the line, it is known why before anybody is told.

use std::collections::VecDeque;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::address::SshAddress;
use super::error::{PeerError, shortened};
use super::message::{Answer, Choice, Hello, MAGIC, Request, VERSION};
use super::wire::{Incoming, Outgoing, WireError};
use crate::child::{self, RunningChild};
use crate::store_path::StoreDir;

/// Last bytes of what ssh wrote to standard error that are kept.
const SAID_MAX: usize = 4096;

/// How long ssh may take to end after its connection did.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a peer may say nothing before that is told.
const QUIET: Duration = Duration::from_secs(5);

/// How long the greeting may take where ssh has nobody to ask.
const GREETING: Duration = Duration::from_secs(60);

/// The same where somebody may be typing passwords: those of jump hosts, too, and sshd gives two minutes for each.
const GREETING_ASKED: Duration = Duration::from_secs(300);

/// ssh's own status where it did not get there.
const SSH_FAILED: i32 = 255;

/// Statuses by which shells say that there is no such program, or none that can be run.
const NO_PROGRAM: [i32; 2] = [127, 126];

/// A peer that answered.
pub struct PeerLine {
    pub(super) address: SshAddress,
    pub(super) from: Incoming<BufReader<Heard>>,
    /// Closed where nothing is to be said any more.
    pub(super) to: Option<Outgoing<BufWriter<ChildStdin>>>,
    ssh: RunningChild,
    said: Arc<Mutex<VecDeque<u8>>>,
    listening: Option<JoinHandle<()>>,
    writable: bool,
}

impl PeerLine {
    /// Calls a peer. With `unsigned` it takes what nobody signed and no content proves, where whoever it is that logs in may say
    /// so. `waiting` is called where nothing was said for some seconds.
    pub fn open(address: &SshAddress, unsigned: bool, waiting: impl FnOnce()) -> Result<Self, PeerError> {
        let mut command = Command::new("ssh");
        command.args(address.arguments(match unsigned {
            true => "serve-store --stdio --no-check-sigs",
            false => "serve-store --stdio",
        }));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let no_ssh = |source| match child::is_ended() {
            true => PeerError::Cancelled,
            false => PeerError::NoSsh {
                peer: address.to_string(),
                source,
            },
        };
        let mut ssh = RunningChild::spawn_for_terminal(&mut command).map_err(no_ssh)?;
        let pipes = (ssh.child.stdin.take(), ssh.child.stdout.take(), ssh.child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(no_ssh(io::Error::other("it has no pipes")));
        };
        let said = Arc::new(Mutex::new(VecDeque::new()));
        let listener = Arc::clone(&said);
        let mut line = Self {
            address: address.clone(),
            from: Incoming(BufReader::new(Heard { stdout, until: None })),
            to: Some(Outgoing(BufWriter::new(stdin))),
            ssh,
            said,
            listening: Some(std::thread::spawn(move || listen(stderr, &listener))),
            writable: false,
        };
        let is_asked = std::fs::File::open("/dev/tty").is_ok();
        let patience = if is_asked { GREETING_ASKED } else { GREETING };
        let started = Instant::now();
        let heard = line.from.0.get_mut();
        heard.until = Some(started + patience);
        if wait_for(&heard.stdout, started + QUIET).is_err() {
            waiting();
        }
        line.greet(patience)?;
        line.from.0.get_mut().until = None;
        Ok(line)
    }

    /// Its address, as messages name it.
    pub fn name(&self) -> String {
        self.address.to_string()
    }

    /// Its address.
    pub fn address(&self) -> &SshAddress {
        &self.address
    }

    /// That paths can be added there.
    pub fn check_writable(&self) -> Result<(), PeerError> {
        match self.writable {
            true => Ok(()),
            false => Err(PeerError::ReadOnly { peer: self.name() }),
        }
    }

    fn greet(&mut self, patience: Duration) -> Result<(), PeerError> {
        let mut magic = Vec::new();
        let read = (&mut self.from.0).take(MAGIC.len() as u64).read_to_end(&mut magic);
        if read.as_ref().is_err_and(is_time_out) {
            return Err(self.silent(patience));
        }
        if read.is_err() || (magic.len() < MAGIC.len() && MAGIC.starts_with(&magic)) {
            return Err(self.unserved());
        }
        if magic != MAGIC {
            let first = String::from_utf8_lossy(&magic).into_owned();
            let first = first.lines().next().unwrap_or_default();
            let (peer, said) = (self.name(), shortened(first));
            return Err(PeerError::Noise { peer, said });
        }
        let hello: Hello = self.from.frame().map_err(|error| match error {
            WireError::Ended(error) if is_time_out(&error) => self.silent(patience),
            error => self.broken(error, "at its beginning"),
        })?;
        if !(hello.oldest..=hello.newest).contains(&VERSION) {
            return Err(PeerError::Version {
                peer: self.name(),
                program: shortened(&hello.program),
                oldest: hello.oldest,
                newest: hello.newest,
            });
        }
        let (wanted, found) = (StoreDir::layerize(), shortened(&hello.store_dir));
        if found != wanted.as_str() {
            return Err(self.wrong(format!(
                "its paths are named `{found}/…`, and ours `{}/…`",
                wanted.as_str()
            )));
        }
        self.writable = hello.writable;
        self.tell(&Choice { version: VERSION }, "at its beginning")
    }

    /// What came is not taken.
    pub(super) fn wrong(&self, reason: impl Into<String>) -> PeerError {
        PeerError::Wrong {
            peer: self.name(),
            reason: reason.into(),
        }
    }

    fn tell(&mut self, message: &impl serde::Serialize, what: &str) -> Result<(), PeerError> {
        let Some(to) = &mut self.to else {
            return Err(self.lost(what));
        };
        match to.frame(message) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.refused(what)),
        }
    }

    /// Sends a request, while `what` is done.
    pub(super) fn ask(&mut self, request: &Request, what: &str) -> Result<(), PeerError> {
        self.tell(request, &format!("while it was to {what}"))
    }

    /// The answer to the next request that has none yet.
    pub(super) fn answer(&mut self, what: &str) -> Result<Answer, PeerError> {
        match self.from.frame() {
            Ok(Answer::Failed { failure }) => Err(PeerError::Said {
                peer: self.name(),
                what: what.to_owned(),
                failure: Box::new(failure),
            }),
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.broken(error, &format!("while it was to {what}"))),
        }
    }

    /// Nothing can be said any more: why not is the other side's last word, where it had one.
    pub(super) fn refused(&mut self, what: &str) -> PeerError {
        while let Ok(Some(answer)) = self.from.next() {
            if let Answer::Failed { failure } = answer {
                return PeerError::Said {
                    peer: self.name(),
                    what: what.trim_start_matches("while it was to ").to_owned(),
                    failure: Box::new(failure),
                };
            }
        }
        self.lost(what)
    }

    pub(super) fn broken(&mut self, error: WireError, what: &str) -> PeerError {
        match error {
            WireError::Malformed(reason) => self.wrong(reason),
            WireError::Ended(_) => self.lost(what),
        }
    }

    pub(super) fn lost(&mut self, what: &str) -> PeerError {
        let (_, said) = self.end();
        if child::is_ended() {
            return PeerError::Cancelled;
        }
        PeerError::Lost {
            peer: self.name(),
            what: what.to_owned(),
            said,
        }
    }

    /// It is there, and has not said all of its greeting.
    fn silent(&mut self, patience: Duration) -> PeerError {
        let (_, said) = self.end();
        if child::is_ended() {
            return PeerError::Cancelled;
        }
        PeerError::Silent {
            peer: self.name(),
            seconds: patience.as_secs(),
            said,
            try_it: self.address.command_here("--version"),
        }
    }

    /// It ended before it said anything.
    fn unserved(&mut self) -> PeerError {
        let (status, said) = self.end();
        let peer = self.name();
        if child::is_ended() {
            return PeerError::Cancelled;
        }
        match status {
            Some(SSH_FAILED) => PeerError::Unreachable {
                peer,
                said,
                try_it: self.address.command_here("--version"),
            },
            Some(status) if NO_PROGRAM.contains(&status) => PeerError::NoProgram {
                peer,
                program: self.address.program.clone(),
                said,
            },
            status => PeerError::NotServed {
                peer,
                status: status.unwrap_or(-1),
                is_old: said.contains("unrecognized subcommand"),
                said,
            },
        }
    }

    /// Waits for ssh, but not for ever; gives its status and what it said.
    fn end(&mut self) -> (Option<i32>, String) {
        self.to = None;
        let started = Instant::now();
        let status = loop {
            match self.ssh.try_wait() {
                Ok(Some(status)) => break status.code(),
                Ok(None) if started.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(10)),
                _ => {
                    self.ssh.kill();
                    break None;
                }
            }
        };
        // What a process that ssh left behind writes is not waited for.
        let done = |listening: &JoinHandle<()>| listening.is_finished() || started.elapsed() > PATIENCE;
        while self.listening.as_ref().is_some_and(|listening| !done(listening)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let said: Vec<u8> = lock(&self.said).iter().copied().collect();
        let said = String::from_utf8_lossy(&said).into_owned();
        let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        (status, shortened(&lines.join("; ")))
    }
}

impl Drop for PeerLine {
    fn drop(&mut self) {
        // The server ends where nothing more is said; a child that does not is killed.
        if !matches!(self.ssh.try_wait(), Ok(Some(_))) {
            self.end();
        }
    }
}

fn lock(said: &Mutex<VecDeque<u8>>) -> std::sync::MutexGuard<'_, VecDeque<u8>> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the end of what is said.
fn listen(mut from: impl Read, said: &Mutex<VecDeque<u8>>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let mut said = lock(said);
        said.extend(&buffer[..count]);
        let surplus = said.len().saturating_sub(SAID_MAX);
        said.drain(..surplus);
    }
}

/// What ssh prints: what the other side says.
pub(super) struct Heard {
    stdout: ChildStdout,
    /// Until when there must be something; `None`: ssh notices a machine that vanished, and else it takes its time.
    until: Option<Instant>,
}

impl Read for Heard {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(until) = self.until {
            wait_for(&self.stdout, until)?;
        }
        self.stdout.read(buffer)
    }
}

/// Waits until there is something to read, or the end of it.
fn wait_for(from: &impl AsFd, until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn is_time_out(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
}

/// A reader that tells how far it is.
pub(super) struct Watched<'a, R> {
    pub(super) from: R,
    pub(super) at: u64,
    pub(super) told: u64,
    pub(super) tell: &'a mut dyn FnMut(u64),
}

/// How many bytes pass between two reports of progress.
const PROGRESS_STEP: u64 = 1 << 20;

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.at += count as u64;
        if self.at - self.told >= PROGRESS_STEP {
            self.told = self.at;
            (self.tell)(self.at);
        }
        Ok(count)
    }
}

/// A writer that tells how far it is.
pub(super) struct WatchedWriter<'a, 'b> {
    pub(super) to: &'a mut dyn Write,
    pub(super) at: u64,
    pub(super) told: u64,
    pub(super) tell: &'b mut dyn FnMut(u64),
}

impl Write for WatchedWriter<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.at += count as u64;
        if self.at - self.told >= PROGRESS_STEP {
            self.told = self.at;
            (self.tell)(self.at);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_is_waited_for_so_long_and_no_longer() {
        let mut sleeping = Command::new("sh");
        let sleeping = sleeping.args(["-c", "printf a; sleep 60"]).stdout(Stdio::piped());
        let mut running = RunningChild::spawn(sleeping).unwrap();
        let started = Instant::now();
        let mut heard = Heard {
            stdout: running.child.stdout.take().unwrap(),
            until: Some(started + Duration::from_secs(5)),
        };
        let mut bytes = Vec::new();
        let error = heard.read_to_end(&mut bytes).unwrap_err();
        assert!(is_time_out(&error) && bytes == b"a", "{error}: {bytes:?}");
        assert!(started.elapsed() < Duration::from_secs(40));
        running.kill();
        heard.until = Some(Instant::now() + Duration::from_secs(30));
        heard.read_to_end(&mut bytes).unwrap();
    }
}
