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
mod proxy;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Client;
use url::Url;

use super::super::TransportError;

pub use auth_file::{AuthSource, FileKind};
pub use credentials::{FileOutcome, FileTrace};
pub use error::ConfigError;
pub use explain::{EndpointTrace, Explanation, LoginKind};
pub use helper::Helpers;
pub use host::{Mirror, check as check_host};
pub use proxy::{ProxyVariable, ProxyVariables};
pub use tls::{TlsSources, tls_advice};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What the machine and the user say about registries.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// Hosts (with their port, where they name one) that are spoken to without TLS, beside those on loopback.
    pub plain_http: BTreeSet<String>,
    /// Files with certificates of authorities to trust beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// Where uploads that were begun and what was learned of registries are remembered; `None`: nowhere.
    pub state_dir: Option<PathBuf>,
    /// Where credentials are looked for, in order.
    pub auth_files: Vec<AuthSource>,
    /// Programs that keep credentials.
    pub helpers: Helpers,
    /// Directories that may hold `HOST[:PORT]` with certificates, in order.
    pub certs_dirs: Vec<PathBuf>,
    /// `SSL_CERT_FILE`: authorities instead of the system's.
    pub ssl_cert_file: Option<PathBuf>,
    /// `SSL_CERT_DIR`: directories with authorities instead of the system's.
    pub ssl_cert_dirs: Vec<PathBuf>,
    /// The proxies of the environment.
    pub proxies: ProxyVariables,
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
    /// Authorities to trust for it.
    pub ca_file: Option<PathBuf>,
    /// The client certificate.
    pub client_cert: Option<PathBuf>,
    /// The key of the client certificate.
    pub client_key: Option<PathBuf>,
}

impl HostConfig {
    /// That its keys go together.
    pub fn check(&self, host: &str) -> Result<(), ConfigError> {
        let error = |present, missing| ConfigError::ClientKeys {
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

    /// The HTTP client for an endpoint's host, with its certificates and proxies. It follows no redirects and has no
    /// deadline for a whole request: the caller sees to both.
    pub fn client(&self, endpoint: &Endpoint) -> Result<Client, TransportError> {
        Ok(self.make_client(&endpoint.host)?)
    }

    fn make_client(&self, host: &str) -> Result<Client, ConfigError> {
        let sources = tls::sources(self, host)?;
        let tls = tls::client_config(self, &sources, host)?;
        let proxies = proxy::Proxies::new(&self.proxies)?;
        let client = Client::builder()
            .user_agent(concat!("layerize/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            .proxy(reqwest::Proxy::custom(move |url| proxies.choose(url).cloned()))
            .tls_backend_preconfigured(tls)
            .build();
        client.map_err(|source| ConfigError::Client {
            host: host.to_owned(),
            source,
        })
    }

    fn endpoint(&self, host: &str) -> Result<Endpoint, ConfigError> {
        host::check(host)?;
        let scheme = if self.is_plain(host) { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{}/", host::server(host))).map_err(|_| ConfigError::Host {
            text: host.to_owned(),
            reason: "it is no host name or address with an optional port",
        })?;
        Ok(Endpoint {
            host: host.to_owned(),
            base,
            mirror: false,
            prefix: String::new(),
        })
    }

    /// Whether a host is spoken to without TLS.
    fn is_plain(&self, host: &str) -> bool {
        let of_host = self.hosts.get(host);
        let said = of_host.and_then(|of_host| of_host.plain_http);
        let about_tls = of_host.is_some_and(|of_host| of_host.ca_file.is_some() || of_host.client_cert.is_some());
        let about_tls = about_tls || !self.ca_files.is_empty();
        self.plain_http.contains(host)
            || said.unwrap_or_else(|| host::is_loopback(host) && !about_tls && tls::certs_d(self, host).is_none())
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
