//! The *configuration* of registries: how one is reached, and who the user is there.
//!
//! Invariant: pure data, gathered by the caller; the environment is not read here.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use url::Url;

use super::super::TransportError;

/// What the machine and the user say about registries.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// Hosts (with their port, where they name one) that are spoken to without TLS, beside those on loopback.
    pub plain_http: BTreeSet<String>,
    /// Files with certificates of authorities to trust beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// Where uploads that were begun and what was learned of registries are remembered; `None`: nowhere.
    pub state_dir: Option<PathBuf>,
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
}

impl RegistryConfig {
    /// Who the user is for a repository (`library/hello`) of a registry.
    pub fn login(&self, _host: &str, _repository: &str) -> Result<Login, TransportError> {
        Ok(Login::Anonymous)
    }

    /// Where a registry is asked, in order: mirrors first where something is only read, itself last.
    pub fn endpoints(&self, host: &str, _reading: bool) -> Result<Vec<Endpoint>, TransportError> {
        let name = host.split(':').next().unwrap_or(host);
        let plain = self.plain_http.contains(host) || name == "localhost" || name.starts_with("127.");
        let scheme = if plain { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}/")).map_err(|_| TransportError::Location {
            text: host.to_owned(),
            reason: "no such host name",
        })?;
        Ok(vec![Endpoint {
            host: host.to_owned(),
            base,
            mirror: false,
        }])
    }

    /// The HTTP client for an endpoint's host, with its certificates and proxies. It follows no redirects and has no
    /// deadline for a whole request: the caller sees to both.
    pub fn client(&self, _endpoint: &Endpoint) -> Result<reqwest::Client, TransportError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build();
        client.map_err(|source| TransportError::Location {
            text: source.to_string(),
            reason: "no HTTP client can be made",
        })
    }
}
