//! An *explanation* tells how a reference's registry would be reached and who the user would be there.
//!
//! Invariant: it holds no secret, and is made by the same lookups that a push or a pull makes.

use std::fmt;

use serde::Serialize;

use crate::oci::Reference;

use super::super::super::TransportError;
use super::credentials::{self, FileOutcome, FileTrace};
use super::error::ConfigError;
use super::{Endpoint, Login, RegistryConfig};
use crate::http::proxy::{self, Proxies};
use crate::http::tls::{self, TlsSources};

/// How a reference's registry would be reached.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Explanation {
    /// The reference, whole.
    pub reference: String,
    /// Its registry, as image names have it.
    pub registry: String,
    /// Its repository there.
    pub repository: String,
    /// Where it would be asked for, in order; the last is the registry itself, which alone is written to.
    pub endpoints: Vec<EndpointTrace>,
}

/// How one endpoint would be reached.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointTrace {
    /// Its address.
    pub url: String,
    /// Whether it is a mirror.
    pub mirror: bool,
    /// What the repository is called there.
    pub repository: String,
    /// Who the user is there.
    pub login: LoginKind,
    /// The user's name, where the credentials have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Whether there are credentials that are not sent, because they would go over plain HTTP.
    pub withheld: bool,
    /// The files that were looked at for credentials, in order.
    pub files: Vec<FileTrace>,
    /// Whether TLS is not used.
    pub plain_http: bool,
    /// What TLS would use; `None` where it is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSources>,
    /// The proxy, without its user and password; `None`: directly.
    pub proxy: Option<String>,
    /// The scopes that a token would be asked for: to read, and to write.
    pub scopes: Vec<String>,
}

/// The kinds of credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoginKind {
    /// None.
    Anonymous,
    /// Name and password.
    Basic,
    /// A refresh token.
    IdentityToken,
    /// An access token.
    RegistryToken,
}

impl RegistryConfig {
    /// How the registry of a reference would be reached. Helpers are asked, since only they know what they hold; no
    /// connection is made.
    pub fn explain(&self, reference: &Reference) -> Result<Explanation, TransportError> {
        let endpoints = self.endpoints(reference.registry(), true)?;
        let traces = endpoints
            .iter()
            .map(|endpoint| self.explain_endpoint(endpoint, reference.repository()));
        Ok(Explanation {
            reference: reference.to_string(),
            registry: reference.registry().to_owned(),
            repository: reference.repository().to_owned(),
            endpoints: traces.collect::<Result<_, _>>()?,
        })
    }

    fn explain_endpoint(&self, endpoint: &Endpoint, repository: &str) -> Result<EndpointTrace, TransportError> {
        let repository = endpoint.repository(repository);
        let found = credentials::look_up(&self.auth_files, &self.helpers, &endpoint.host, &repository)?;
        let (login, username) = match found.login {
            Login::Anonymous => (LoginKind::Anonymous, None),
            Login::Basic { username, .. } => (LoginKind::Basic, Some(username)),
            Login::IdentityToken(_) => (LoginKind::IdentityToken, None),
            Login::RegistryToken(_) => (LoginKind::RegistryToken, None),
        };
        let plain_http = self.is_plain(&endpoint.host);
        let sources = match plain_http {
            true => None,
            false => {
                let sources = tls::sources(&self.http, &endpoint.host).map_err(ConfigError::from)?;
                // What cannot be used is told now and not at the first connection.
                tls::from_sources(&self.http, &sources, &endpoint.host).map_err(ConfigError::from)?;
                Some(sources)
            }
        };
        let proxies = Proxies::new(&self.http.proxies).map_err(ConfigError::from)?;
        let mut scopes = vec![format!("repository:{repository}:pull")];
        if !endpoint.mirror {
            scopes.push(format!("repository:{repository}:pull,push"));
        }
        Ok(EndpointTrace {
            url: endpoint.base.to_string(),
            mirror: endpoint.mirror,
            login,
            username,
            withheld: login != LoginKind::Anonymous && self.withholds(&endpoint.host),
            files: found.files,
            plain_http,
            tls: sources,
            proxy: proxies.choose(&endpoint.base).map(proxy::shown),
            scopes,
            repository,
        })
    }
}

/// For people.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reference)?;
        for endpoint in &self.endpoints {
            write!(f, "\n{endpoint}")?;
        }
        Ok(())
    }
}

impl fmt::Display for EndpointTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = if self.mirror {
            "mirror, for reading only"
        } else {
            "registry"
        };
        writeln!(f, "{} ({role}), repository {}", self.url, self.repository)?;
        write!(f, "  credentials: ")?;
        match (self.login, &self.username) {
            (LoginKind::Anonymous, _) => write!(f, "none, anonymous")?,
            (LoginKind::Basic, username) => write!(f, "password of {}", username.as_deref().unwrap_or_default())?,
            (LoginKind::IdentityToken, _) => write!(f, "identity token")?,
            (LoginKind::RegistryToken, _) => write!(f, "registry token")?,
        }
        writeln!(f, "{}", if self.withheld { ", not sent: no TLS" } else { "" })?;
        for file in &self.files {
            writeln!(f, "    {file}")?;
        }
        match &self.tls {
            None => writeln!(f, "  TLS: none, plain HTTP")?,
            Some(tls) => write!(f, "{tls}")?,
        }
        writeln!(f, "  proxy: {}", self.proxy.as_deref().unwrap_or("none"))?;
        write!(f, "  scopes: {}", self.scopes.join(" or "))
    }
}

impl fmt::Display for FileTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): ", self.path, self.origin)?;
        f.write_str(match self.outcome {
            FileOutcome::Used => "used",
            FileOutcome::Missing => "missing",
            FileOutcome::NoMatch => "nothing for this repository",
            FileOutcome::EmptyEntry => "an entry without credentials",
            FileOutcome::HelperMiss => "the helper has no credentials",
            FileOutcome::NotRead => "not looked at",
        })?;
        if let Some(key) = &self.key {
            write!(f, ", key `{key}`")?;
        }
        if let Some(helper) = &self.helper {
            write!(f, ", helper `{helper}`")?;
        }
        Ok(())
    }
}
