//! What can go wrong with a container, and what to type next.

use std::io;

use crate::archive::tar::TarError;
use crate::fsio::PathError;
use crate::layer::LayerError;
use crate::sandbox::{SandboxError, SetupStep};
use crate::transport::TransportError;

/// Why a program of an image cannot be run.
#[expect(missing_docs, reason = "the fields are what the variant's message names")]
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// A file of the machine.
    #[error(transparent)]
    Io(#[from] PathError),
    /// The accounts cannot be read.
    #[error("cannot read the image's accounts")]
    Accounts(#[from] TransportError),
    /// A layer's bytes cannot be had.
    #[error("cannot read the image's layer {digest}")]
    Layer { digest: String, source: LayerError },
    /// A layer's bytes are no compressed tar.
    #[error("cannot unpack the image's layer {digest}")]
    Unpack { digest: String, source: io::Error },
    /// A layer is no tar.
    #[error("cannot unpack the image's layer {digest}")]
    Tar { digest: String, source: TarError },
    /// A layer is not where the image is.
    #[error("the image's layer {digest} is not where the image is")]
    Elsewhere { digest: String },
    /// An entry of a layer.
    #[error("cannot unpack the image: its entry `{path}`: {reason}")]
    Entry { path: String, reason: String },
    /// More than is reasonable.
    #[error("cannot unpack the image: it holds more than {limit}")]
    TooLarge { limit: String },
    /// It is no image.
    #[error("it is no image but an artifact: there is nothing to run")]
    Artifact,
    /// Another machine's.
    #[error("the image is for {platform}, and this machine is {machine}")]
    Foreign { platform: String, machine: String },
    /// Nothing to run.
    #[error("the image names no program: it has neither `entrypoint` nor `cmd`")]
    NoProgram,
    /// The user's name.
    #[error("the image has no {what} `{name}` in `{file}`")]
    NoAccount {
        what: &'static str,
        name: String,
        file: &'static str,
    },
    /// What is to be bound into it.
    #[error("cannot bind `{path}`: {reason}")]
    Volume { path: String, reason: String },
    /// A path in it.
    #[error("cannot use `{path}` in the image: {reason}")]
    Place { path: String, reason: String },
    /// The walls.
    #[error("cannot run `{what}`")]
    Sandbox { what: String, source: SandboxError },
    /// Ctrl-C.
    #[error("it was interrupted")]
    Cancelled,
}

impl ContainerError {
    /// What to type next.
    pub fn help(&self) -> Option<String> {
        let text = match self {
            Self::Sandbox { source, .. } => return source.help(),
            Self::Foreign { .. } => {
                "choose another platform with `--platform`, or run it in the folder of a project whose lock pins an emulator, or \
                 install qemu-user-static with binfmt support (`layerize help emulation`)"
            }
            Self::NoProgram => "say what is to be run: `-- PROGRAM ARGUMENT…`",
            Self::NoAccount { .. } => "give a number, or a name that the image's accounts have",
            Self::Elsewhere { .. } => "copy the image with its layers: `layerize copy`",
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// The exit status that container engines have for this: 127 where there is no such program, 126 where it cannot be run.
    pub fn status(&self) -> Option<u8> {
        let Self::Sandbox {
            source:
                SandboxError::Refused {
                    step: SetupStep::Exec,
                    source,
                    ..
                },
            ..
        } = self
        else {
            return None;
        };
        match source.kind() {
            io::ErrorKind::NotFound => Some(127),
            _ => Some(126),
        }
    }
}
