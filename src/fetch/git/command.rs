//! The machine's *git*, which is run for fetching alone.
//!
//! Invariant: nothing of the repository or the project that layerize runs in has a say: no hook, no filter, no work tree,
//! no variable of a git that runs layerize; git asks nobody anything and uses no protocol but those that the address may
//! have. What reaches hosts is the user's own: logins, proxies, certificates, other names of hosts (`insteadOf`), of
//! `~/.gitconfig`, the credential helpers and the ssh agent.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::child;
use crate::escape::shown_line;
use crate::fetch::{FetchConfig, FetchError};
use crate::spec::GitAddress;

use super::GitError;

/// Variables that name another repository than the one that git is given, or change what it finds there. They are set where
/// layerize runs in a hook.
const FOREIGN: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_ATTR_SOURCE",
    "GIT_CEILING_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DEFAULT_HASH",
    "GIT_DEFAULT_REF_FORMAT",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_PROTOCOL",
    "GIT_QUARANTINE_PATH",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_TEMPLATE_DIR",
    "GIT_WORK_TREE",
];

/// What the user's configuration does not decide.
const SETTINGS: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "credential.interactive=false",
    "fetch.recurseSubmodules=false",
    "fetch.writeCommitGraph=false",
    // Many small files would be slower to read than a pack.
    "fetch.unpackLimit=1",
    // What it starts would outlive it.
    "gc.auto=0",
    "maintenance.auto=false",
    "init.defaultBranch=main",
    "protocol.version=2",
    // No wait is without end: a connection that carries nothing for this many seconds is given up.
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=120",
];

/// ssh as it is run where the user does not say how: it asks nobody, and notices where the host is gone.
const SSH: &str = "ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=8";

/// git for one repository of elsewhere.
pub(super) struct Git<'a> {
    pub address: GitAddress,
    pub config: &'a FetchConfig,
}

impl Git<'_> {
    /// A command about the repository in `dir`; `None`: about none of this machine.
    pub(super) fn command(&self, dir: Option<&Path>) -> Command {
        let mut command = Command::new("git");
        for name in FOREIGN {
            command.env_remove(name);
        }
        let protocols = match &self.address {
            GitAddress::Local(_) => "file",
            GitAddress::Remote(_) => "http:https:ssh:git",
        };
        command
            .env("GIT_DIR", dir.unwrap_or(Path::new("/dev/null")))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_ALLOW_PROTOCOL", protocols)
            .env("LC_ALL", "C")
            .current_dir("/");
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command
    }

    /// As [`command`](Self::command), for one that reaches the host.
    pub(super) fn network_command(&self, dir: Option<&Path>) -> Result<Command, FetchError> {
        let mut command = self.command(dir);
        if !self.address.is_local() && !self.config.ssh_is_chosen && !self.chooses_ssh()? {
            command.env("GIT_SSH_COMMAND", SSH);
        }
        Ok(command)
    }

    /// Whether the user's configuration says how ssh is run.
    fn chooses_ssh(&self) -> Result<bool, FetchError> {
        let mut command = self.command(None);
        command.args(["config", "--get", "core.sshCommand"]);
        Ok(self.output(&mut command)?.status.success())
    }

    /// Runs a command to its end.
    pub(super) fn output(&self, command: &mut Command) -> Result<std::process::Output, FetchError> {
        child::output(command).map_err(|error| self.not_started(&error))
    }

    /// Runs a command to its end, and gives what it printed; `action` is what it is to do.
    pub(super) fn run(&self, command: &mut Command, action: &'static str) -> Result<Vec<u8>, FetchError> {
        let output = self.output(command)?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(self.fault(action, &output.stderr)),
        }
    }

    /// Why a command could not be started.
    pub(super) fn not_started(&self, error: &io::Error) -> FetchError {
        if child::is_ended() {
            return FetchError::Stopped { program: "git" };
        }
        match error.kind() {
            io::ErrorKind::NotFound => GitError::NotInstalled {
                repository: self.address.to_string(),
            }
            .into(),
            _ => self.failed("be run for", error.to_string()).into(),
        }
    }

    /// What a command that failed says, as one of the reasons that users can do something about.
    pub(super) fn fault(&self, action: &'static str, stderr: &[u8]) -> FetchError {
        if child::is_ended() {
            return FetchError::Stopped { program: "git" };
        }
        let text = String::from_utf8_lossy(stderr);
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let repository = self.address.to_string();
        let message = self.message(&text);
        let error = match () {
            () if says(OVER_LIMIT) => GitError::TooLarge {
                repository,
                limit: super::SIZE_LIMIT.to_owned(),
            },
            () if says(NOT_OURS) => GitError::Owner { repository, message },
            () if says(UNKNOWN_HOST) => GitError::UnknownHost { repository, message },
            () if says(DENIED) => GitError::Denied { repository, message },
            () if says(UNREACHABLE) => GitError::Unreachable { repository, message },
            () if says(NO_REPOSITORY) => GitError::NoRepository { repository },
            () => self.failed(action, message),
        };
        error.into()
    }

    fn failed(&self, action: &'static str, message: String) -> GitError {
        GitError::Failed {
            action,
            repository: self.address.to_string(),
            message,
        }
    }

    /// The lines of what git says that tell something, in one; without the login that an address may hold.
    pub(super) fn message(&self, text: &str) -> String {
        let raw = self.address.argument();
        let text = match raw.to_str() {
            Some(raw) => text.replace(raw, &self.address.to_string()),
            None => text.to_owned(),
        };
        let noise =
            |line: &&str| line.trim().is_empty() || line.starts_with("hint:") || line.starts_with("Please make");
        let told: Vec<&str> = text.lines().filter(|line| !noise(line)).map(str::trim).collect();
        let told = told.iter().map(|line| {
            let line = line.strip_prefix("fatal: ").or_else(|| line.strip_prefix("error: "));
            line.unwrap_or_default()
        });
        let fatal: Vec<&str> = told.filter(|line| !line.is_empty()).collect();
        let message = match fatal.is_empty() {
            true => text.lines().filter(|line| !noise(line)).collect::<Vec<_>>().join("; "),
            false => fatal.join("; "),
        };
        let end = message
            .char_indices()
            .nth(MESSAGE_MAX)
            .map_or(message.len(), |(at, _)| at);
        match message.trim() {
            "" => "it says nothing".to_owned(),
            _ => shown_line(&message[..end]).into_owned(),
        }
    }
}

/// Longest message of git's in characters.
const MESSAGE_MAX: usize = 600;

const OVER_LIMIT: &[&str] = &["signal 25", "File size limit exceeded", "File too large"];
const NOT_OURS: &[&str] = &["dubious ownership"];
const UNKNOWN_HOST: &[&str] = &["Host key verification failed"];
const DENIED: &[&str] = &[
    "Authentication failed",
    "could not read Username",
    "could not read Password",
    "terminal prompts disabled",
    "Permission denied",
    "returned error: 401",
    "returned error: 403",
    "HTTP Basic: Access denied",
];
const UNREACHABLE: &[&str] = &[
    "Could not resolve",
    "Connection refused",
    "Failed to connect",
    "Couldn't connect",
    "Could not connect",
    "timed out",
    "Network is unreachable",
    "No route to host",
    "Connection reset",
    "Connection closed",
    "early EOF",
    "unexpected disconnect",
    "Operation too slow",
    "certificate",
    "returned error: 5",
    "Empty reply from server",
    "unable to connect",
];
const NO_REPOSITORY: &[&str] = &[
    "does not appear to be a git repository",
    "Repository not found",
    "repository not found",
    "not found",
    "does not exist",
    "Not a git repository",
    "not a git repository",
    "No such file or directory",
    "invalid gitfile format",
];

/// What says that a server gives no commit that it does not name.
pub(super) const SHALLOW_REFUSED: &[&str] = &["unadvertised object", "shallow"];

/// What a server says that has no such commit.
pub(super) const NO_COMMIT: &str = "not our ref";

/// Where a repository of this machine is, as git finds it: bare, or with a `.git` in it. One that is a symlink leads to
/// another than the spec names.
pub(super) fn local_git_dir(path: &Path) -> Result<PathBuf, GitError> {
    let inner = path.join(".git");
    match std::fs::symlink_metadata(&inner) {
        Ok(metadata) if metadata.is_symlink() => Err(GitError::LinkedRepository { path: inner }),
        Ok(metadata) if metadata.is_dir() => Ok(inner),
        _ => Ok(path.to_owned()),
    }
}

/// Appends arguments after which nothing is an option.
pub(super) fn operands<S: AsRef<OsStr>>(command: &mut Command, arguments: impl IntoIterator<Item = S>) {
    command.arg("--").args(arguments);
}
