//! Why something could not be done with a *peer*, and what to type next.
//!
//! Invariant: what the other side wrote is shown as text from outside, and never more of it than fits a screen.

use std::io;

use crate::escape::shown;
use crate::fsio::PathError;
use crate::nar::NarError;
use crate::store::StoreError;
use crate::store_path::StorePath;

use super::message::{Failure, VERSION};

/// Longest text of the other side that is shown, in characters.
const SHOWN_MAX: usize = 2000;

/// Why something could not be done with a peer. `peer` is its address.
#[expect(missing_docs, reason = "the fields are what the variant's message names")]
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The store here could not do what was asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Reading or writing a file failed.
    #[error(transparent)]
    Io(#[from] PathError),
    /// A path here cannot be archived.
    #[error(transparent)]
    Nar(#[from] NarError),
    /// There is no ssh.
    #[error("cannot run `ssh` to reach `{peer}`")]
    NoSsh {
        peer: String,
        #[source]
        source: io::Error,
    },
    /// ssh did not get there.
    #[error("cannot reach `{peer}`: {said}")]
    Unreachable { peer: String, said: String, try_it: String },
    /// There is no such program.
    #[error("`{peer}` has no `{program}`: {said}")]
    NoProgram {
        peer: String,
        program: String,
        said: String,
    },
    /// Something else than the protocol came.
    #[error("`{peer}` does not begin as layerize does, but with `{said}`")]
    Noise { peer: String, said: String },
    /// The program there ended before it said anything.
    #[error("layerize at `{peer}` ended with status {status} before it said anything: {said}")]
    NotServed {
        peer: String,
        status: i32,
        said: String,
        is_old: bool,
    },
    /// Somebody is there and says nothing.
    #[error("`{peer}` was waited for, and has not greeted in {seconds} seconds{}", also(said))]
    Silent {
        peer: String,
        seconds: u64,
        said: String,
        try_it: String,
    },
    /// The programs have no version in common.
    #[error("layerize {program} at `{peer}` speaks versions {oldest} to {newest} of the protocol, this one {VERSION}")]
    Version {
        peer: String,
        program: String,
        oldest: u32,
        newest: u32,
    },
    /// The connection is gone.
    #[error("the connection to `{peer}` was lost {what}{}", also(said))]
    Lost { peer: String, what: String, said: String },
    /// The other side could not do it.
    #[error("`{peer}` cannot {what}")]
    Said {
        peer: String,
        what: String,
        #[source]
        failure: Box<Failure>,
    },
    /// What the other side says cannot be.
    #[error("what `{peer}` says is not taken: {reason}")]
    Wrong { peer: String, reason: String },
    /// Nobody who is trusted vouches for a path.
    #[error("`{path}` from `{peer}` is not trusted: {reason}")]
    Untrusted {
        peer: String,
        path: StorePath,
        reason: String,
    },
    /// A path that came is not what was announced.
    #[error("cannot take `{path}` from `{peer}`")]
    Refused {
        peer: String,
        path: StorePath,
        #[source]
        source: Box<StoreError>,
    },
    /// Nothing can be added there.
    #[error("the store at `{peer}` cannot be written to")]
    ReadOnly { peer: String },
    /// As before with another step.
    #[error("{message}")]
    Again { message: String, help: Option<String> },
    /// The process is about to end.
    #[error("interrupted")]
    Cancelled,
}

fn also(said: &str) -> String {
    match said.is_empty() {
        true => String::new(),
        false => format!(": {said}"),
    }
}

impl PeerError {
    /// What the user can do about it, where anything can be said.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Store(error) => return error.help(),
            Self::Refused { source, .. } => return source.help(),
            Self::Nar(error) => return error.help(),
            Self::Again { help, .. } => return help.clone(),
            Self::NoSsh { .. } => "install OpenSSH's client (`openssh-client`), so that `ssh` is on the PATH".to_owned(),
            Self::Unreachable { said, try_it, .. } => help_for_ssh(said, try_it),
            Self::NoProgram { .. } => "install layerize there; where it is not on the PATH of a login without a terminal, say where \
                                       it is: `ssh://HOST?program=/home/me/.cargo/bin/layerize`"
                .to_owned(),
            Self::Noise { .. } => "a start file of the shell there prints something (`~/.bashrc`, `~/.zshenv`): have it do so only \
                                   where there is a terminal: `[ -t 1 ] && …`"
                .to_owned(),
            Self::Silent { try_it, .. } => format!("see what it waits for, the login there or its shell: `{try_it}`"),
            Self::NotServed { is_old: true, .. } => "the layerize there is older than `serve-store`: update it".to_owned(),
            Self::Version { oldest, .. } if *oldest > VERSION => "update the layerize here".to_owned(),
            Self::Version { .. } => "update the layerize there".to_owned(),
            Self::Lost { .. } => "run the same command again: what has arrived stays, and only the rest is sent".to_owned(),
            Self::Said { failure, .. } => return failure.help.clone().map(|help| format!("there: {help}")),
            Self::Wrong { .. } => "somebody, or a fault, changed it on the way or there: nothing of it was registered".to_owned(),
            Self::Untrusted { .. } => "sign it where it was built (`layerize store sign --closure PATH --key FILE`) and name the key \
                                       in `[nix] trusted-keys` of whoever takes it; `--no-check-sigs` takes it on the sender's word"
                .to_owned(),
            Self::ReadOnly { .. } => "log in as its owner (`ssh://OWNER@HOST`), or name a store of your own there: \
                                      `ssh://HOST?store=/DIR`"
                .to_owned(),
            Self::NotServed { .. } | Self::Io(_) | Self::Cancelled => return None,
        })
    }

    /// Whether no other step would fare better.
    pub(super) fn is_for_all(&self) -> bool {
        matches!(
            self,
            Self::NoSsh { .. }
                | Self::Unreachable { .. }
                | Self::NoProgram { .. }
                | Self::Noise { .. }
                | Self::NotServed { .. }
                | Self::Silent { .. }
                | Self::Version { .. }
        )
    }

    /// Whether it was said of another step already.
    pub fn is_known(&self) -> bool {
        matches!(self, Self::Again { .. })
    }

    /// Whether this machine can do what the other did not.
    pub fn is_peers(&self) -> bool {
        match self {
            Self::Said { failure, .. } => !failure.of_script,
            Self::Store(_) | Self::Io(_) | Self::Nar(_) | Self::Cancelled => false,
            _ => true,
        }
    }
}

/// What to do about what ssh says.
fn help_for_ssh(said: &str, try_it: &str) -> String {
    let advice = match said {
        said if said.contains("Could not resolve") => "see that the host's name is right",
        said if said.contains("Host key verification failed") || said.contains("HOST IDENTIFICATION HAS CHANGED") => {
            "ssh does not know the machine's key, or knows another"
        }
        said if said.contains("Permission denied") => "ssh has no key or password that is right there",
        said if said.contains("refused") || said.contains("timed out") || said.contains("No route") => {
            "see that the machine runs and that sshd listens at that port"
        }
        _ => "ssh must be able to log in",
    };
    format!("{advice}; try it: `{try_it}`")
}

/// A text of the other side as one line that is not too long.
pub(super) fn shortened(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{} …", shown(&text[..end])),
        None => shown(text).into_owned(),
    }
}
