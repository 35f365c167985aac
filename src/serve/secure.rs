//! A *secure* registry encrypts what it says (TLS).
//!
//! Invariant: a client that does not speak TLS, or is slow to, holds up nobody and is given up after a while.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::http::{SetupError, tls};

/// The certificate and key of a registry.
#[derive(Clone)]
pub struct Secure(TlsAcceptor);

impl Secure {
    /// Those in these files, in PEM form.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, SetupError> {
        let config = tls::server_config(certificate, key)?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Greets a client; `None` where it does not speak TLS, or not soon.
    pub(super) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        patience: Duration,
    ) -> Option<TlsStream<S>> {
        timeout(patience, self.0.accept(stream)).await.ok()?.ok()
    }
}

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a certificate and its key")
    }
}
