//! A *session* is what is done with a container from within, beside its programs: start one, wait until it answers, run others
//! beside it, end it, read files.
//!
//! Invariant: whatever the programs do, the report says how each ended and what it printed; it takes no longer than the
//! session's time and what is left to a service for its end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::limits;
use super::request::SetupStep;

/// Bytes of an output, a file or an answer that are kept.
const KEPT_MAX: usize = 256 << 10;

/// How often it is looked whether something has happened.
const TICK: Duration = Duration::from_millis(5);

/// How long an output may stay open after the program that wrote it has ended.
const DRAIN: Duration = Duration::from_millis(200);

/// How long one attempt to get an answer may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// A program with its surroundings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its name, which is looked up where it has no slash, and its arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: PathBuf,
    /// What it reads; `None`: nothing.
    pub stdin: Option<String>,
}

/// What is to be done with a container, whose program is the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// What the first program reads.
    pub stdin: Option<String>,
    /// The program serves: it is ended when all else is done.
    pub is_service: bool,
    /// What it must answer before anything else is done.
    pub probe: Option<Probe>,
    /// Programs that run beside it, one after the other.
    pub beside: Vec<Program>,
    /// Files that are read at the end.
    pub files: Vec<PathBuf>,
    /// What ends the service.
    pub stop_signal: i32,
    /// How long all of it may take, in milliseconds.
    pub timeout: u64,
    /// How long the service may take to end when it is told to, in milliseconds.
    pub grace: u64,
}

/// What is asked of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The port.
    pub port: u16,
    /// With a path: what HTTP says there.
    pub path: Option<String>,
    /// The status that ends the wait at once, where it is one by which servers say that they are not ready yet.
    pub status: Option<u16>,
}

/// How a session went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// The first program.
    pub first: ProgramReport,
    /// What the service answered; `None`: nothing, or it was not asked.
    pub answer: Option<ProbeAnswer>,
    /// Those beside it, as far as there was time and one failed.
    pub beside: Vec<ProgramReport>,
    /// What each file holds; `None`: it cannot be read.
    pub files: Vec<Option<String>>,
    /// The service did not end when it was told to, and was killed.
    pub was_killed: bool,
}

/// How a program ended and what it printed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramReport {
    /// How it ended.
    pub end: ProgramEnd,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// How a program ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProgramEnd {
    /// It was not run.
    #[default]
    NotRun,
    /// It could not be started, and why.
    NotStarted(String),
    /// With this status.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// It was still running when time was up.
    TimedOut,
    /// It is a service that was running when it was told to end, and ended so.
    Stopped(i32),
}

/// What a service answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// HTTP's status.
    pub status: u16,
    /// What it is about.
    pub body: String,
}

/// Why a program could not be started.
#[derive(Debug)]
pub(super) struct NotStarted {
    pub(super) step: SetupStep,
    pub(super) path: PathBuf,
    pub(super) error: io::Error,
}

impl Program {
    /// Where the program is, as container engines look for it.
    fn find(&self) -> Result<PathBuf, NotStarted> {
        let name = self.argv.first().map_or("", String::as_str);
        let failed = |errno: i32| NotStarted {
            step: SetupStep::Exec,
            path: name.into(),
            error: io::Error::from_raw_os_error(errno),
        };
        if name.contains('/') {
            return Ok(name.into());
        }
        let path = self.env.iter().rev().find(|(key, _)| key == "PATH");
        let dirs = path.map_or("", |(_, value)| value).split(':');
        let places = dirs.map(|dir| self.cwd.join(dir).join(name));
        let is_program = |place: &PathBuf| {
            let metadata = place.metadata();
            metadata.is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
        };
        let found = places.into_iter().find(is_program).filter(|_| !name.is_empty());
        found.ok_or_else(|| failed(nix::libc::ENOENT))
    }

    fn command(&self) -> Result<Command, NotStarted> {
        std::env::set_current_dir(&self.cwd).map_err(|error| NotStarted {
            step: SetupStep::WorkingDirectory,
            path: self.cwd.clone(),
            error,
        })?;
        let mut command = Command::new(self.find()?);
        let (name, arguments) = self
            .argv
            .split_first()
            .map_or(("", &[][..]), |(name, rest)| (name, rest));
        let env = self.env.iter().map(|(key, value)| (key, value));
        command.arg0(name).args(arguments).env_clear().envs(env);
        Ok(command)
    }

    /// Turns this process into the program; returns only where that is not possible.
    pub(super) fn become_it(&self) -> NotStarted {
        let failed = |error: io::Error| NotStarted {
            step: SetupStep::Exec,
            path: self.argv.first().map_or("", String::as_str).into(),
            error,
        };
        if let Err(error) = limits::reset_signals() {
            return failed(error.error);
        }
        match self.command() {
            Ok(mut command) => failed(command.exec()),
            Err(failed) => failed,
        }
    }

    /// Starts the program as the head of a process group.
    fn start(&self) -> Result<Running, String> {
        let told = |failed: &NotStarted| {
            format!(
                "cannot {} `{}`: {}",
                failed.step.infinitive(),
                failed.path.display(),
                failed.error
            )
        };
        let mut command = self.command().map_err(|failed| told(&failed))?;
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        match &self.stdin {
            Some(_) => command.stdin(Stdio::piped()),
            None => command.stdin(Stdio::null()),
        };
        // SAFETY: what runs there sets the actions of signals and nothing else.
        unsafe {
            command.pre_exec(|| limits::reset_signals().map_err(|failed| failed.error));
        }
        let path = PathBuf::from(command.get_program());
        let mut child = command.spawn().map_err(|error| {
            let step = SetupStep::Exec;
            told(&NotStarted { step, path, error })
        })?;
        if let (Some(mut pipe), Some(text)) = (child.stdin.take(), self.stdin.clone()) {
            // One that does not read all of it is not to be waited for.
            thread::spawn(move || pipe.write_all(text.as_bytes()));
        }
        Ok(Running {
            stdout: Captured::from(child.stdout.take()),
            stderr: Captured::from(child.stderr.take()),
            child,
        })
    }
}

/// What a program printed so far.
struct Captured {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Captured {
    /// Reads a pipe, and passes what comes on to our own standard output: that is the log.
    fn from(pipe: Option<impl Read + Send + 'static>) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let reader = pipe.map(|mut pipe| {
            let text = Arc::clone(&text);
            thread::spawn(move || {
                let mut buffer = [0; 16 << 10];
                while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                    let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                    let left = KEPT_MAX.saturating_sub(text.len());
                    text.extend_from_slice(&buffer[..count.min(left)]);
                    // Nobody to tell where it cannot be written.
                    let _ = io::stdout()
                        .write_all(&buffer[..count])
                        .and_then(|()| io::stdout().flush());
                }
            })
        });
        Self { text, reader }
    }

    /// All of it, where the pipe ends soon: a program that stays behind may hold it.
    fn finish(self) -> String {
        let started = Instant::now();
        while let Some(reader) = &self.reader
            && !reader.is_finished()
            && started.elapsed() < DRAIN
        {
            thread::sleep(TICK);
        }
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// A program that was started.
struct Running {
    child: Child,
    stdout: Captured,
    stderr: Captured,
}

impl Running {
    fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end, at most until `deadline`; `None` where it goes on.
    fn wait_until(&mut self, deadline: Instant) -> Option<ExitStatus> {
        loop {
            match self.has_ended() {
                None if Instant::now() >= deadline => return None,
                None => thread::sleep(TICK),
                ended => return ended,
            }
        }
    }

    /// The program alone, as engines do: what it started is for it to end.
    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).unwrap_or(0);
        // SAFETY: takes numbers only. Real-time signals are in no list of names.
        unsafe { nix::libc::kill(pid, signal) };
    }

    /// Kills it with what it started, unless that has left its group.
    fn kill(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(0));
        let _ = killpg(pid, Signal::SIGKILL);
        let _ = self.child.wait();
    }

    fn report(self, end: ProgramEnd) -> ProgramReport {
        ProgramReport {
            end,
            stdout: self.stdout.finish(),
            stderr: self.stderr.finish(),
        }
    }

    /// Waits for its end; kills it when time is up.
    fn run_until(mut self, deadline: Instant) -> ProgramReport {
        let end = match self.wait_until(deadline) {
            Some(status) => end_of(status),
            None => {
                self.kill();
                ProgramEnd::TimedOut
            }
        };
        self.report(end)
    }
}

fn end_of(status: ExitStatus) -> ProgramEnd {
    match status.code() {
        Some(code) => ProgramEnd::Exited(code),
        None => ProgramEnd::Signaled(status.signal().unwrap_or(0)),
    }
}

impl Session {
    /// Does what is to be done with `program` as the first.
    pub(super) fn conduct(&self, program: &Program) -> SessionReport {
        let deadline = Instant::now() + Duration::from_millis(self.timeout);
        let program = Program {
            stdin: self.stdin.clone(),
            ..program.clone()
        };
        let mut report = SessionReport::default();
        match program.start() {
            Err(reason) => report.first.end = ProgramEnd::NotStarted(reason),
            Ok(running) if self.is_service => self.attend(running, deadline, &mut report),
            Ok(running) => report.first = running.run_until(deadline),
        }
        report.files = self.files.iter().map(|path| read(path)).collect();
        report
    }

    /// Asks a service, runs programs beside it and ends it.
    fn attend(&self, mut service: Running, deadline: Instant, report: &mut SessionReport) {
        let mut ended = None;
        let mut is_ready = true;
        if let Some(probe) = &self.probe {
            (report.answer, ended) = probe.wait(&mut service, deadline);
            is_ready = report.answer.is_some();
        }
        for program in self.beside.iter().take_while(|_| is_ready) {
            let ran = match program.start() {
                Ok(running) => running.run_until(deadline),
                Err(reason) => ProgramReport {
                    end: ProgramEnd::NotStarted(reason),
                    ..ProgramReport::default()
                },
            };
            report.beside.push(ran);
        }
        if ended.is_none() {
            ended = service.has_ended();
        }
        let end = match ended {
            Some(status) => end_of(status),
            None => {
                service.signal(self.stop_signal);
                match service.wait_until(Instant::now() + Duration::from_millis(self.grace)) {
                    Some(status) => {
                        ProgramEnd::Stopped(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
                    }
                    None => {
                        report.was_killed = true;
                        service.kill();
                        ProgramEnd::Stopped(128 + nix::libc::SIGKILL)
                    }
                }
            }
        };
        report.first = service.report(end);
    }
}

impl Probe {
    /// Asks until there is an answer, the service has ended or time is up.
    fn wait(&self, service: &mut Running, deadline: Instant) -> (Option<ProbeAnswer>, Option<ExitStatus>) {
        let mut last = None;
        loop {
            if let Some(answer) = self.ask(deadline) {
                let is_early = answer.status >= 500 && self.status != Some(answer.status);
                if !is_early {
                    return (Some(answer), None);
                }
                last = Some(answer);
            }
            let ended = service.has_ended();
            if ended.is_some() || Instant::now() >= deadline {
                return (last, ended);
            }
            thread::sleep(TICK * 4);
        }
    }

    fn ask(&self, deadline: Instant) -> Option<ProbeAnswer> {
        let left = deadline.saturating_duration_since(Instant::now());
        let time = ATTEMPT.min(left).max(TICK);
        let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let mut streams = addresses.into_iter().filter_map(|address| {
            let place = SocketAddr::new(address, self.port);
            TcpStream::connect_timeout(&place, time).ok()
        });
        let stream = streams.next()?;
        match &self.path {
            None => Some(ProbeAnswer::default()),
            Some(path) => get(stream, path, time).ok().flatten(),
        }
    }
}

/// What HTTP/1.0 says of a path: with 1.1 an answer might come in pieces.
fn get(mut stream: TcpStream, path: &str, time: Duration) -> io::Result<Option<ProbeAnswer>> {
    stream.set_read_timeout(Some(time))?;
    stream.set_write_timeout(Some(time))?;
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    // What came before an error of the connection is the answer nevertheless.
    let read = stream.take(KEPT_MAX as u64).read_to_end(&mut bytes);
    Ok(parse(&bytes).filter(|_| read.is_ok() || !bytes.is_empty()))
}

fn parse(answer: &[u8]) -> Option<ProbeAnswer> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").or_else(|| text.split_once("\n\n"))?;
    let status = head.strip_prefix("HTTP/")?.split(' ').nth(1)?.trim().parse().ok()?;
    Some(ProbeAnswer {
        status,
        body: body.to_owned(),
    })
}

fn read(path: &Path) -> Option<String> {
    let metadata = path.metadata().ok()?;
    if !metadata.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(KEPT_MAX as u64).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_http_is_taken_apart() {
        let answer = |text: &str| parse(text.as_bytes()).map(|answer| (answer.status, answer.body));
        assert_eq!(
            answer("HTTP/1.1 200 OK\r\nA: b\r\n\r\nhi\n"),
            Some((200, "hi\n".to_owned()))
        );
        assert_eq!(answer("HTTP/1.0 503\r\n\r\n"), Some((503, String::new())));
        assert_eq!(answer("SSH-2.0-x\r\n\r\n"), None);
        assert_eq!(answer("HTTP/1.0 200 OK\r\n"), None);
    }
}
