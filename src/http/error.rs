//! Why there is no answer: an *HTTP error* is about one request, a *setup error* about what is configured for a host.
//!
//! Invariant: no variant holds a secret; what a proxy's address holds beside its host is not shown.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::tls;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection could be made.
    #[error("`{host}` cannot be reached")]
    Unreachable {
        /// The host.
        host: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The connection ended too early, or what came was not HTTP.
    #[error("the connection to `{host}` was lost")]
    Broken {
        /// The host.
        host: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing moved.
    #[error("no data was exchanged with `{host}` for {} s", .patience.as_secs_f32())]
    Stalled {
        /// The host.
        host: String,
        /// How long that was watched.
        patience: Duration,
    },
    /// An answer leads to where it must not.
    #[error("the answer of `{host}` is not followed: {reason}")]
    Redirect {
        /// The host.
        host: String,
        /// Why not.
        reason: String,
        /// What to do about it.
        help: Option<String>,
    },
    /// The process is about to end: see [`cancel`](super::cancel).
    #[error("interrupted")]
    Cancelled,
    /// The body to be sent cannot be read.
    #[error("cannot read the bytes to send")]
    Source(#[source] io::Error),
    /// The thread that moves bytes cannot be started.
    #[error("cannot start the HTTP client")]
    Start(#[source] io::Error),
    /// What is configured cannot be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

impl HttpError {
    /// What the user can do about it, where anything can be said.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Unreachable { host, source } => tls::advice(source.as_ref(), host),
            Self::Redirect { help, .. } => help.clone(),
            Self::Setup(error) => error.help(),
            _ => None,
        }
    }

    /// Whether the same request may succeed in a while.
    pub fn may_pass(&self) -> bool {
        match self {
            // What a certificate is will not change.
            Self::Unreachable { source, .. } => !tls::is_refused(source.as_ref()),
            Self::Broken { .. } | Self::Stalled { .. } => true,
            _ => false,
        }
    }
}

/// Why what is configured for a host cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file cannot be read.
    #[error(transparent)]
    Io(#[from] crate::fsio::PathError),
    /// A client certificate lacks its key or the other way round.
    #[error("`{}` has no `{}` beside it", present.display(), missing.display())]
    ClientPair {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// A client certificate is configured without a key, or the other way round.
    #[error("`{host}` is configured with `{present}` but without `{missing}`")]
    ClientKeys {
        /// The host.
        host: String,
        /// The key that is there.
        present: &'static str,
        /// The key that is not.
        missing: &'static str,
    },
    /// A file of certificates or keys holds none.
    #[error("`{}` {reason}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of logins breaks its format.
    #[error("`{}`, line {line}: {reason}", path.display())]
    Netrc {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Which rule is broken.
        reason: &'static str,
    },
    /// A proxy's address is none.
    #[error("{variable} is `{value}`, which is not a proxy's address: {reason}")]
    Proxy {
        /// The environment variable.
        variable: &'static str,
        /// Its value without user and password.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The HTTP library refuses what was configured.
    #[error("cannot set up an HTTP client for `{host}`")]
    Client {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The TLS library refuses what was configured.
    #[error("TLS cannot be set up for `{host}`")]
    Tls {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

impl SetupError {
    /// What the user can do about it, where anything can be said.
    pub fn help(&self) -> Option<String> {
        let text = match self {
            Self::ClientPair { .. } => {
                "a client certificate is `NAME.cert` and `NAME.key`; authorities are in `*.crt`".to_owned()
            }
            Self::ClientKeys { missing, .. } => format!("add `{missing}`"),
            Self::Certificates { .. } => "certificates and keys are in PEM form (`-----BEGIN …`)".to_owned(),
            Self::Netrc { .. } => "an entry is `machine HOST login NAME password SECRET`".to_owned(),
            Self::Proxy { variable, .. } => {
                format!("write {variable}=http://proxy.example:3128 or socks5h://proxy.example:1080, or unset it")
            }
            Self::Io(_) | Self::Client { .. } | Self::Tls { .. } => return None,
        };
        Some(text)
    }
}
