//! The *configuration* of registries: how one is reached, and who the user is there.
//!
//! Invariant: pure data, gathered by the caller; the environment is not read here. A secret is in no message and in no
//! `Debug`; a mirror gets its own credentials and never those of the registry that it mirrors.
//!
//! Plain HTTP is spoken to hosts that the user lists, and to this machine itself (`localhost`, 127.0.0.0/8, `::1`)
//! unless something is configured about TLS for it: a `certs.d` directory, `ca-file`, `client-cert`, `--ca-file`.
//! Nothing is tried over TLS first and then without. Credentials go over plain HTTP to this machine, and elsewhere only
//! to hosts with `credentials-over-http`.

mod auth_file;
mod credentials;
mod error;
mod explain;
mod helper;
mod host;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use url::Url;

use super::super::TransportError;
use crate::http::{HttpConfig, tls};

pub use auth_file::{AuthSource, FileKind};
pub use credentials::{FileOutcome, FileTrace};
pub use error::ConfigError;
pub use explain::{EndpointTrace, Explanation, LoginKind};
pub use helper::Helpers;
pub use host::{Mirror, check as check_host};

/// What the machine and the user say about registries.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// How hosts are reached.
    pub http: HttpConfig,
    /// Hosts (with their port, where they name one) that are spoken to without TLS, beside those on loopback.
    pub plain_http: BTreeSet<String>,
    /// Where uploads that were begun and what was learned of registries are remembered; `None`: nowhere.
    pub state_dir: Option<PathBuf>,
    /// Where credentials are looked for, in order.
    pub auth_files: Vec<AuthSource>,
    /// Programs that keep credentials.
    pub helpers: Helpers,
    /// What the user configured for single hosts.
    pub hosts: BTreeMap<String, HostConfig>,
}

/// What the user configured for one host: `[registries."HOST"]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// Whether it is spoken to without TLS; `None`: only on loopback.
    pub plain_http: Option<bool>,
    /// Whether credentials may go to it without TLS.
    pub credentials_over_http: bool,
    /// Registries that are asked before it where something is read.
    pub mirrors: Vec<Mirror>,
}

/// Who the user is at a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Login {
    /// Nobody.
    #[default]
    Anonymous,
    /// A name and a password, for basic authentication or to get a token with.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// A refresh token, exchanged for access tokens.
    IdentityToken(String),
    /// An access token, sent as it is.
    RegistryToken(String),
}

/// Secrets are not shown.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { username, .. } => write!(f, "Basic({username}, …)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(…)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(…)"),
        }
    }
}

/// An address under which a registry, or a mirror of it, answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host and port as in image names: what credentials and limits are looked up by.
    pub host: String,
    /// Scheme, host and port; the API is below `/v2/`.
    pub base: Url,
    /// Whether it is a mirror: asked for reading only.
    pub mirror: bool,
    /// Whether its answers may lead to addresses of this machine and its network.
    pub may_lead_inside: bool,
    /// What a repository's name begins with there, without slashes at its ends; empty but for some mirrors.
    pub prefix: String,
}

impl Endpoint {
    /// What a repository of the registry is called at this endpoint: `hub/library/hello`.
    pub fn repository(&self, repository: &str) -> String {
        match self.prefix.is_empty() {
            true => repository.to_owned(),
            false => format!("{}/{repository}", self.prefix),
        }
    }
}

impl RegistryConfig {
    /// Who the user is for a repository (`library/hello`) of a registry. For a mirror the host and the repository are
    /// those of its endpoint.
    pub fn login(&self, host: &str, repository: &str) -> Result<Login, TransportError> {
        let found = credentials::look_up(&self.auth_files, &self.helpers, host, repository)?;
        if found.login != Login::Anonymous && self.withholds(host) {
            return Err(ConfigError::PlainCredentials { host: host.to_owned() }.into());
        }
        Ok(found.login)
    }

    /// Where a registry is asked, in order: mirrors first where something is only read, itself last.
    pub fn endpoints(&self, host: &str, reading: bool) -> Result<Vec<Endpoint>, TransportError> {
        let mut endpoints = Vec::new();
        if let Some(of_host) = self.hosts.get(host).filter(|_| reading) {
            for mirror in &of_host.mirrors {
                endpoints.push(Endpoint {
                    mirror: true,
                    prefix: mirror.prefix.clone(),
                    ..self.endpoint(&mirror.host)?
                });
            }
        }
        endpoints.push(self.endpoint(host)?);
        Ok(endpoints)
    }

    fn endpoint(&self, host: &str) -> Result<Endpoint, ConfigError> {
        host::check(host)?;
        let scheme = if self.is_plain(host) { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{}/", host::server(host))).map_err(|_| ConfigError::Host {
            text: host.to_owned(),
            reason: "it is not a host name or address with an optional port",
        })?;
        Ok(Endpoint {
            host: host.to_owned(),
            base,
            mirror: false,
            may_lead_inside: self.http.private_network.contains(host),
            prefix: String::new(),
        })
    }

    /// Whether a host is spoken to without TLS.
    fn is_plain(&self, host: &str) -> bool {
        let said = self.hosts.get(host).and_then(|of_host| of_host.plain_http);
        self.plain_http.contains(host)
            || said.unwrap_or_else(|| host::is_loopback(host) && !tls::is_configured(&self.http, host))
    }

    /// Whether credentials are not to be sent to a host.
    fn withholds(&self, host: &str) -> bool {
        let allowed = self
            .hosts
            .get(host)
            .is_some_and(|of_host| of_host.credentials_over_http);
        self.is_plain(host) && !host::is_loopback(host) && !allowed
    }
}
