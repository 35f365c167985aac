//! A *credential helper* is a program `docker-credential-NAME` that keeps credentials elsewhere than in a file.
//!
//! Invariant: each helper is asked about a server once a run; what it printed when it ended well is never shown, and
//! what it printed when it failed is bounded.
//!
//! The protocol is that of docker's credential helpers: `docker-credential-NAME get`, the server on standard input, and
//! `{"ServerURL", "Username", "Secret"}` on standard output. The user `<token>` marks an identity token. "credentials
//! not found" is a miss.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Login;
use super::error::ConfigError;
use crate::child::{self, RunningChild};

/// How long a helper is waited for unless the configuration says otherwise: long enough to type a passphrase.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Most bytes of a helper's output that are read.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// Most characters of a helper's own words that are shown.
const WORDS_MAX: usize = 500;

/// Longest name of a helper.
const NAME_MAX: usize = 64;

/// How often it is looked whether a helper ended.
const PAUSE: Duration = Duration::from_millis(5);

/// Where helpers are, and what they said in this run.
#[derive(Clone, Default)]
pub struct Helpers {
    /// Directories with programs, in order; those that are not absolute are passed over.
    pub search_path: Vec<PathBuf>,
    /// How long one is waited for; `None`: 120 s.
    pub timeout: Option<Duration>,
    /// Answers by program and server.
    answers: Answers,
}

/// What helpers answered, by program and server.
type Answers = Arc<Mutex<BTreeMap<(String, String), Login>>>;

/// Answers are not shown.
impl fmt::Debug for Helpers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Helpers")
            .field("search_path", &self.search_path)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Helpers {
    /// Helpers in these directories.
    pub fn new(search_path: Vec<PathBuf>) -> Self {
        Self {
            search_path,
            ..Self::default()
        }
    }

    /// Asks the helper `name`, which the file `path` names, about a server; anonymous if it knows of nothing.
    pub(super) fn ask(&self, name: &str, server: &str, path: &Path) -> Result<Login, ConfigError> {
        let program = program(name, path)?;
        // Held while the helper runs: others who want the same answer wait for it, and no two ask for a passphrase.
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (program.clone(), server.to_owned());
        if let Some(login) = answers.get(&key) {
            return Ok(login.clone());
        }
        let file = self.find(&program).ok_or_else(|| ConfigError::HelperMissing {
            program: program.clone(),
            path: path.to_owned(),
            server: server.to_owned(),
        })?;
        let asked = HelperCall {
            program: &program,
            server,
            deadline: Instant::now() + self.timeout.unwrap_or(TIMEOUT),
            timeout: self.timeout.unwrap_or(TIMEOUT),
        };
        let login = asked.run(&file)?;
        answers.insert(key, login.clone());
        Ok(login)
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        let absolute = self.search_path.iter().filter(|dir| dir.is_absolute());
        absolute.map(|dir| dir.join(program)).find(|file| {
            let metadata = file.metadata();
            metadata.is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
        })
    }
}

/// The program of a helper; a name with a slash in it could be any program.
pub(super) fn program(name: &str, path: &Path) -> Result<String, ConfigError> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(valid) {
        return Err(ConfigError::HelperName {
            path: path.to_owned(),
            name: name.chars().take(NAME_MAX).flat_map(char::escape_default).collect(),
        });
    }
    Ok(format!("docker-credential-{name}"))
}

/// One question to a helper.
struct HelperCall<'a> {
    program: &'a str,
    server: &'a str,
    deadline: Instant,
    timeout: Duration,
}

impl HelperCall<'_> {
    fn run(&self, file: &Path) -> Result<Login, ConfigError> {
        let run_error = |source| ConfigError::HelperRun {
            program: self.program.to_owned(),
            source,
        };
        let mut command = Command::new(file);
        command
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut running = RunningChild::spawn(&mut command).map_err(run_error)?;
        if let Some(mut input) = running.child.stdin.take() {
            // A helper that ends without reading says itself what is wrong.
            let _ = input.write_all(self.server.as_bytes());
        }
        let output = gather(running.child.stdout.take());
        let errors = gather(running.child.stderr.take());
        let status = match self.wait(&mut running) {
            Ok(Some(status)) => status,
            Ok(None) if child::is_ended() => {
                running.kill();
                let reason = "the command was interrupted";
                return Err(run_error(std::io::Error::new(std::io::ErrorKind::Interrupted, reason)));
            }
            Ok(None) => return Err(self.too_slow(&mut running)),
            Err(source) => return Err(run_error(source)),
        };
        // Somebody whom the helper started may hold its output open: no longer than the helper itself may take.
        let left = || self.deadline.saturating_duration_since(Instant::now());
        let output = output.recv_timeout(left());
        let errors = errors.recv_timeout(left());
        let (Ok(output), Ok(errors)) = (output, errors) else {
            return Err(self.too_slow(&mut running));
        };
        match status.success() {
            true => self.parse(&output),
            false => self.failed(status, &output, &errors),
        }
    }

    fn wait(&self, child: &mut RunningChild) -> std::io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if child::is_ended() || Instant::now() >= self.deadline {
                return Ok(None);
            }
            thread::sleep(PAUSE);
        }
    }

    fn too_slow(&self, child: &mut RunningChild) -> ConfigError {
        child.kill();
        ConfigError::HelperTimeout {
            program: self.program.to_owned(),
            server: self.server.to_owned(),
            seconds: self.timeout.as_secs(),
        }
    }

    fn failed(&self, status: ExitStatus, output: &[u8], errors: &[u8]) -> Result<Login, ConfigError> {
        let output = String::from_utf8_lossy(output);
        let errors = String::from_utf8_lossy(errors);
        let missed = |text: &str| text.to_lowercase().contains("credentials not found");
        if missed(&output) || missed(&errors) {
            return Ok(Login::Anonymous);
        }
        // Helpers say what is wrong on standard output; what could be an answer all the same is not shown.
        let said = if output.contains(['{', '"']) { "" } else { output.trim() };
        let said = [said, errors.trim()].join(" ");
        Err(ConfigError::HelperFailed {
            program: self.program.to_owned(),
            server: self.server.to_owned(),
            status: status.to_string(),
            output: match words(&said) {
                said if said.is_empty() => "it said nothing".to_owned(),
                said => said,
            },
        })
    }

    fn parse(&self, output: &[u8]) -> Result<Login, ConfigError> {
        let error = |reason| ConfigError::HelperAnswer {
            program: self.program.to_owned(),
            server: self.server.to_owned(),
            reason,
        };
        if output.len() as u64 > OUTPUT_BYTES_MAX {
            return Err(error("it is larger than a megabyte"));
        }
        let answer: Value = serde_json::from_slice(output).map_err(|_| error("it is not JSON"))?;
        let field = |name: &str, reason| match answer.get(name) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(error(reason)),
        };
        if !answer.is_object() {
            return Err(error("it is not a JSON object"));
        }
        let username = field("Username", "`Username` is not text")?;
        let secret = field("Secret", "`Secret` is not text")?;
        match (username.as_str(), secret.is_empty()) {
            ("", true) => Ok(Login::Anonymous),
            (_, true) => Err(error("`Secret` is empty")),
            ("", false) => Err(error("`Username` is empty")),
            ("<token>", false) => Ok(Login::IdentityToken(secret)),
            (_, false) => Ok(Login::Basic {
                username,
                password: secret,
            }),
        }
    }
}

/// Reads a stream to its end on a thread of its own; what is beyond the limit is dropped but read, so that the program
/// can end.
fn gather(stream: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read until an error is what there is.
            let _ = stream.by_ref().take(OUTPUT_BYTES_MAX + 1).read_to_end(&mut bytes);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
        // Nobody waits any more after the deadline.
        let _ = sender.send(bytes);
    });
    receiver
}

/// A program's words on one line, bounded.
fn words(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut shown: String = line.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect();
    if shown.len() < line.len() {
        shown.push('\u{2026}');
    }
    shown
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_credential_helper() {
        crate::testing::fuzz("credential-helper", |bytes| {
            let asked = super::HelperCall {
                program: "docker-credential-x",
                server: "registry.example",
                deadline: super::Instant::now(),
                timeout: super::TIMEOUT,
            };
            let _ = asked.parse(bytes);
            let _ = super::words(&String::from_utf8_lossy(bytes));
        });
    }
}
