//! A *configuration error* says which file, key or program about a registry is wrong, and what to do about it.
//!
//! Invariant: no variant holds a secret; what a file or a program said is quoted only where it cannot be one.

use std::io;
use std::path::PathBuf;

use crate::http::SetupError;

/// Why a registry's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error(transparent)]
    Io(#[from] crate::fsio::PathError),
    /// A file of credentials breaks its format.
    #[error("`{}` is not a valid file of credentials: {what} {reason}", path.display())]
    AuthFile {
        /// The file.
        path: PathBuf,
        /// Which part of it: "it", or a key.
        what: String,
        /// Which rule is broken.
        reason: String,
    },
    /// A helper's name could leave the directories that programs are looked for in.
    #[error("`{}` names a credential helper that cannot be one: `{name}`", path.display())]
    HelperName {
        /// The file.
        path: PathBuf,
        /// The name, bounded.
        name: String,
    },
    /// A helper is not installed.
    #[error("`{program}`, which `{}` names for `{server}`, is in no directory of PATH", path.display())]
    HelperMissing {
        /// The program.
        program: String,
        /// The file that names it.
        path: PathBuf,
        /// What it was to be asked about.
        server: String,
    },
    /// A helper cannot be run.
    #[error("cannot run the credential helper `{program}`")]
    HelperRun {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A helper failed for another reason than that it knows of no credentials.
    #[error("the credential helper `{program}` failed for `{server}` with {status}: {output}")]
    HelperFailed {
        /// The program.
        program: String,
        /// What it was asked about.
        server: String,
        /// Its exit status, in words.
        status: String,
        /// What it said, bounded.
        output: String,
    },
    /// A helper's answer breaks its protocol.
    #[error("the credential helper `{program}` gave no valid answer for `{server}`: {reason}")]
    HelperAnswer {
        /// The program.
        program: String,
        /// What it was asked about.
        server: String,
        /// Which rule is broken.
        reason: &'static str,
    },
    /// A helper took too long.
    #[error("the credential helper `{program}` did not answer for `{server}` within {seconds} s")]
    HelperTimeout {
        /// The program.
        program: String,
        /// What it was asked about.
        server: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A host is none.
    #[error("`{text}` is not a registry's host: {reason}")]
    Host {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A password would be readable on the way.
    #[error("the credentials for `{host}` are not sent: `{host}` is spoken to without TLS")]
    PlainCredentials {
        /// The registry.
        host: String,
    },
    /// What is configured about connections cannot be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

impl ConfigError {
    /// What the user can do about it, where anything can be said.
    pub fn help(&self) -> Option<String> {
        let text = match self {
            Self::AuthFile { path, .. } => format!(
                "repair or remove `{}`; `podman login` and `docker login` write a new one",
                path.display()
            ),
            Self::HelperName { .. } => {
                "a helper is named by what follows `docker-credential-`: letters, digits, `.`, `_` and `-`".to_owned()
            }
            Self::HelperMissing { program, path, .. } => format!(
                "install `{program}`, or take it out of `credHelpers` and `credsStore` in `{}`",
                path.display()
            ),
            Self::HelperFailed { program, server, .. }
            | Self::HelperAnswer { program, server, .. }
            | Self::HelperTimeout { program, server, .. } => {
                format!("try it by hand: `echo {server} | {program} get`")
            }
            Self::Host { .. } => "write `registry.example`, `registry.example:5000` or `[::1]:5000`".to_owned(),
            Self::PlainCredentials { host } => format!(
                "if the network may see them, write `[registries.\"{host}\"] credentials-over-http = true` in \
                 layerize's config.toml"
            ),
            Self::Setup(error) => return error.help(),
            Self::Io(_) | Self::HelperRun { .. } => return None,
        };
        Some(text)
    }
}
