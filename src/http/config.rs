//! The *configuration* of HTTP: what the machine and the user say about how hosts are reached.
//!
//! Invariant: pure data, gathered by the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::error::SetupError;
use super::proxy::ProxyVariables;

/// What the machine and the user say about how hosts are reached.
#[derive(Debug, Clone, Default)]
pub struct HttpConfig {
    /// The proxies of the environment.
    pub proxies: ProxyVariables,
    /// Files with certificates of authorities to trust beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// Directories that may hold `HOST[:PORT]` with certificates, in order.
    pub certs_dirs: Vec<PathBuf>,
    /// `SSL_CERT_FILE`: authorities instead of the system's.
    pub ssl_cert_file: Option<PathBuf>,
    /// `SSL_CERT_DIR`: directories with authorities instead of the system's.
    pub ssl_cert_dirs: Vec<PathBuf>,
    /// Certificates that the user configured for single hosts.
    pub hosts: BTreeMap<String, HostTls>,
    /// Hosts (with their port, where they name one) whose answers may lead to addresses of this machine and its network.
    pub private_network: BTreeSet<String>,
    /// The file with logins for downloads (`~/.netrc`), which need not exist.
    pub netrc: Option<PathBuf>,
    /// Whether what hosts have can be done without: one that says nothing is given up soon.
    pub is_optional: bool,
}

/// Certificates for one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostTls {
    /// Authorities to trust for it.
    pub ca_file: Option<PathBuf>,
    /// The client certificate.
    pub client_cert: Option<PathBuf>,
    /// The key of the client certificate.
    pub client_key: Option<PathBuf>,
}

impl HostTls {
    /// That its keys go together.
    pub fn check(&self, host: &str) -> Result<(), SetupError> {
        let error = |present, missing| SetupError::ClientKeys {
            host: host.to_owned(),
            present,
            missing,
        };
        match (&self.client_cert, &self.client_key) {
            (Some(_), None) => Err(error("client-cert", "client-key")),
            (None, Some(_)) => Err(error("client-key", "client-cert")),
            _ => Ok(()),
        }
    }
}
