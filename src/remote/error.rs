//! Why a step could not be run at a *builder*, and what to type next.
//!
//! Invariant: no variant holds a login; what a builder wrote is shown as text from outside.

use std::io;
use std::path::PathBuf;

use tonic::{Code, Status};

use super::greeting::Network;
use crate::escape::{shown, shown_bytes};
use crate::fsio::{PathError, with_causes};
use crate::http::SetupError;
use crate::nar::NarError;
use crate::walls::Walls;

/// Longest text of a builder that is shown, in characters.
const SHOWN_MAX: usize = 2000;

/// Why a step could not be run at a builder.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Reading or writing a file failed.
    #[error(transparent)]
    Io(#[from] PathError),
    /// A tree cannot be sent.
    #[error(transparent)]
    Nar(#[from] NarError),
    /// A name that no message can hold.
    #[error("`{}` cannot be sent to a builder: its name, or where it leads, is not UTF-8", shown_bytes(path.as_os_str().as_encoded_bytes()))]
    Name {
        /// What has it.
        path: PathBuf,
    },
    /// The thread that moves bytes cannot be started.
    #[error("cannot start the client of builders")]
    Start(#[source] io::Error),
    /// What is configured for the builder's host cannot be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The builder did not answer, or stopped to.
    #[error("the builder `{builder}` does not answer ({what}): {message}")]
    Unreachable {
        /// Its address.
        builder: String,
        /// What was being done.
        what: &'static str,
        /// What the connection says.
        message: String,
        /// What to do about it, where the connection says that.
        help: Option<String>,
    },
    /// The builder said no.
    #[error("the builder `{builder}` refuses ({what}): {message}")]
    Refused {
        /// Its address.
        builder: String,
        /// What was being done.
        what: &'static str,
        /// The code of its answer.
        code: Code,
        /// What it says.
        message: String,
    },
    /// The builder said no to a root that has what it says it does not take.
    #[error(
        "the builder `{builder}` takes no links with absolute paths, such as `{}`: {message}",
        shown_bytes(link.as_os_str().as_encoded_bytes())
    )]
    AbsoluteLink {
        /// Its address.
        builder: String,
        /// One of them, as it is inside.
        link: PathBuf,
        /// What it says.
        message: String,
    },
    /// The builder cannot do what is needed.
    #[error("the builder `{builder}` cannot be used: {reason}")]
    Unfit {
        /// Its address.
        builder: String,
        /// What it lacks.
        reason: String,
        /// What to do about it.
        help: &'static str,
    },
    /// What the builder gave is not what it says, or nothing that may be taken.
    #[error("what the builder `{builder}` gave is not taken: {reason}")]
    Wrong {
        /// Its address.
        builder: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What the builder says that it has is gone.
    #[error("the builder `{builder}` has lost {what}")]
    Gone {
        /// Its address.
        builder: String,
        /// What is gone.
        what: String,
    },
    /// As before with another step.
    #[error("{message}")]
    Again {
        /// What was said then.
        message: String,
        /// And what to do about it.
        help: Option<String>,
    },
    /// What the builder runs does not find itself in the root that was sent.
    #[error("the builder `{builder}` does not make what it is sent the root of what it runs")]
    NoRoot {
        /// Its address.
        builder: String,
    },
    /// The helper can make no walls where it was sent.
    #[error("workers of the builder `{builder}` have no walls for what they run: {reason}")]
    NoWalls {
        /// Its address.
        builder: String,
        /// What the helper says.
        reason: String,
    },
    /// What the helper made is less than is required.
    #[error("`{least}` is required, and at the builder `{builder}` the helper could make `{walls}`")]
    Weak {
        /// Its address.
        builder: String,
        /// What it says that it made.
        walls: Walls,
        /// What is required.
        least: Walls,
    },
    /// This program cannot travel.
    #[error("`{}` cannot be sent to a builder as its helper: its library `{library}` is not found", shown_bytes(program.as_os_str().as_encoded_bytes()))]
    Helper {
        /// What was to be sent.
        program: PathBuf,
        /// What it needs.
        library: String,
    },
    /// A worker is less walled off than is required.
    #[error("`builder` is required, and at the builder `{builder}` {network}")]
    Walls {
        /// Its address.
        builder: String,
        /// What was seen.
        network: Network,
    },
    /// The process is about to end.
    #[error("interrupted")]
    Cancelled,
}

impl RemoteError {
    /// What the user can do about it, where anything can be said.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Nar(error) => error.help(),
            Self::Setup(error) => error.help(),
            Self::Unreachable { help: Some(help), .. } => Some(help.clone()),
            Self::Unreachable { .. } => Some(
                "see that it runs and that its address is right; `--builder-fallback` builds here what it does not"
                    .to_owned(),
            ),
            Self::Refused { code, .. } => match code {
                Code::Unauthenticated | Code::PermissionDenied => {
                    Some("name a file with the builder's token: `token-file` in its `[builders.NAME]`".to_owned())
                }
                Code::FailedPrecondition | Code::InvalidArgument => Some(
                    "see that `properties` in its `[builders.NAME]` are those of its workers (`layerize help builders`)"
                        .to_owned(),
                ),
                Code::NotFound => Some("see that the instance at the end of its address is right".to_owned()),
                _ => Some("`--builder-fallback` builds here what it does not".to_owned()),
            },
            Self::AbsoluteLink { .. } => Some(
                "configure its symlink_absolute_path_strategy as ALLOWED: packages have such links, and scripts copy them"
                    .to_owned(),
            ),
            Self::Unfit { help, .. } => Some((*help).to_owned()),
            Self::Again { help, .. } => help.clone(),
            Self::Gone { .. } => Some(
                "give its storage more room, or have it keep what is new for longer; `--builder-fallback` builds here what it \
                 does not"
                    .to_owned(),
            ),
            Self::Wrong { .. } => Some(
                "somebody, or a fault, changed it on the way: look into the builder; without `--builder` it is built here"
                    .to_owned(),
            ),
            Self::NoRoot { .. } => Some(
                "have its workers do so, or leave `root` out of its `[builders.NAME]` or make it `helper` (`layerize help \
                 builders`); `--builder-fallback` builds here what it does not"
                    .to_owned(),
            ),
            Self::NoWalls { .. } | Self::Weak { .. } => Some(
                "have its workers allow user namespaces, or run as root with CAP_SYS_CHROOT, or make what they are sent the \
                 root (`layerize help builders`); `--builder-fallback` builds here what it does not"
                    .to_owned(),
            ),
            Self::Helper { .. } => Some(
                "run the layerize that was installed, or one built statically: `RUSTFLAGS=-Ctarget-feature=+crt-static cargo \
                 install --path . --target x86_64-unknown-linux-gnu`"
                    .to_owned(),
            ),
            Self::Walls { .. } => Some(
                "have its workers run scripts without a network and with `/proc` (`layerize help builders`), or ask for less \
                 with `--require-sandbox none` and `[build] require`"
                    .to_owned(),
            ),
            Self::Name { .. } => Some("build it here, without `--builder`".to_owned()),
            Self::Io(_) | Self::Start(_) | Self::Cancelled => None,
        }
    }

    /// Whether this machine can do what the builder did not.
    pub fn is_builders(&self) -> bool {
        match self {
            Self::Name { .. }
            | Self::Start(_)
            | Self::Setup(_)
            | Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::AbsoluteLink { .. }
            | Self::Unfit { .. }
            | Self::Wrong { .. }
            | Self::Gone { .. }
            | Self::Again { .. }
            | Self::Walls { .. }
            | Self::Weak { .. }
            | Self::Helper { .. }
            | Self::NoWalls { .. }
            | Self::NoRoot { .. } => true,
            Self::Io(_) | Self::Nar(_) | Self::Cancelled => false,
        }
    }

    /// The same of a builder that says that it does not take links such as this one, which was among what it was sent.
    pub(super) fn because_of_link(self, link: PathBuf) -> Self {
        match self {
            Self::Refused {
                builder,
                code: Code::InvalidArgument | Code::FailedPrecondition,
                message,
                ..
            } => Self::AbsoluteLink { builder, link, message },
            error => error,
        }
    }

    /// The same for another step.
    pub(super) fn again(&self) -> Self {
        Self::Again {
            message: with_causes(self),
            help: self.help(),
        }
    }

    /// Whether it was said of another step already.
    pub fn is_known(&self) -> bool {
        matches!(self, Self::Again { .. })
    }

    /// Whether no other step would fare better.
    pub(super) fn is_for_all(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Unfit { .. }
            | Self::Setup(_)
            | Self::Start(_)
            | Self::Helper { .. }
            | Self::NoRoot { .. } => true,
            Self::Refused { code, .. } => matches!(
                code,
                Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented
            ),
            _ => false,
        }
    }
}

/// What a status says, as one line that is not too long.
pub(super) fn message_of(status: &Status) -> String {
    let mut text = status.message().trim().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    if text.is_empty() {
        text = status.code().description().to_owned();
    }
    shortened(&text)
}

/// A text of a builder as one line that is not too long.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{} …", shown(&text[..end])),
        None => shown(text).into_owned(),
    }
}
