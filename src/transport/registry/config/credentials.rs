//! The *lookup* of credentials: which file, which key and which helper say who the user is for a repository.
//!
//! Invariant: found as podman and docker find them, in a fixed order, and the path to the answer is told with it.
//!
//! Files, each only if those before it gave nothing (containers-auth.json(5), and what podman and skopeo do):
//!
//! 1. `$REGISTRY_AUTH_FILE`; else, where `DOCKER_CONFIG` is set, `$DOCKER_CONFIG/config.json`; else
//!    `$XDG_RUNTIME_DIR/containers/auth.json` (`/run/containers/UID/auth.json` where that is not set);
//! 2. `$XDG_CONFIG_HOME/containers/auth.json`;
//! 3. `$DOCKER_CONFIG/config.json`, by default `~/.docker/config.json`;
//! 4. `~/.dockercfg`.
//!
//! In a file, the first that is there speaks for it:
//!
//! 1. `credHelpers` for the host. If that helper knows nothing, neither does the file: both tools agree on that.
//! 2. `credsStore`, in docker's own file only, as podman passes over it. If the store knows nothing, `auths` is looked
//!    at: docker would stop here, podman would find what is there.
//! 3. `auths`: `host/namespace/repository`, `host/namespace`, `host` (for Docker Hub `docker.io`, in docker's own file
//!    `https://index.docker.io/v1/` before it); then any key that is the host once its scheme and path are gone. An
//!    entry that is empty says nothing.

use serde::Serialize;

use super::Login;
use super::auth_file::{AuthFile, AuthSource, FileKind};
use super::error::ConfigError;
use super::helper::{self, Helpers};
use super::host;

/// Who the user is, and how that was found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Who the user is.
    pub login: Login,
    /// The files, in the order in which they are looked at.
    pub files: Vec<FileTrace>,
}

/// What a file of credentials had to say.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub struct FileTrace {
    /// The file.
    pub path: String,
    /// Why it is looked at: an environment variable's name.
    pub origin: &'static str,
    /// What came of it.
    pub outcome: FileOutcome,
    /// The key that matched, in `credHelpers` or `auths`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The helper that was asked: `docker-credential-NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helper: Option<String>,
}

/// What came of a file of credentials.
#[derive(Debug, Clone, Copy, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum FileOutcome {
    /// It gave the credentials.
    Used,
    /// It does not exist.
    Missing,
    /// It has nothing for the repository.
    NoMatch,
    /// It has an entry without any credentials.
    EmptyEntry,
    /// Its helper knows of no credentials.
    HelperMiss,
    /// It was not looked at, because one before it gave the credentials.
    NotRead,
}

/// Looks through the files in order.
pub(super) fn look_up(
    sources: &[AuthSource],
    helpers: &Helpers,
    host: &str,
    repository: &str,
) -> Result<Found, ConfigError> {
    let mut found = Found {
        login: Login::Anonymous,
        files: Vec::new(),
    };
    for source in sources {
        let mut trace = FileTrace {
            path: source.path.display().to_string(),
            origin: source.origin,
            outcome: FileOutcome::NotRead,
            key: None,
            helper: None,
        };
        if found.login == Login::Anonymous {
            found.login = in_file(source, helpers, host, repository, &mut trace)?;
        }
        found.files.push(trace);
    }
    Ok(found)
}

fn in_file(
    source: &AuthSource,
    helpers: &Helpers,
    host: &str,
    repository: &str,
    trace: &mut FileTrace,
) -> Result<Login, ConfigError> {
    let Some(file) = AuthFile::read(source)? else {
        trace.outcome = FileOutcome::Missing;
        return Ok(Login::Anonymous);
    };
    let ask = |name: &str, key: &str, trace: &mut FileTrace| {
        trace.helper = Some(helper::program(name, &source.path)?);
        let login = helpers.ask(name, key, &source.path)?;
        trace.outcome = match login {
            Login::Anonymous => FileOutcome::HelperMiss,
            _ => FileOutcome::Used,
        };
        Ok(login)
    };
    if let Some((key, name)) = file.helper(host)? {
        trace.key = Some(key.clone());
        return ask(&name, &key, trace);
    }
    if let Some(name) = file.store() {
        debug_assert_eq!(source.kind, FileKind::Docker);
        let login = ask(name, host::docker_key(host), trace)?;
        if login != Login::Anonymous {
            return Ok(login);
        }
    }
    match file.entry(host, repository)? {
        None if trace.helper.is_none() => trace.outcome = FileOutcome::NoMatch,
        None => {}
        Some((key, login)) => {
            trace.key = Some(key);
            match login {
                // What docker leaves in the file for what is in the store.
                Login::Anonymous if trace.helper.is_some() => {}
                Login::Anonymous => trace.outcome = FileOutcome::EmptyEntry,
                login => {
                    trace.outcome = FileOutcome::Used;
                    return Ok(login);
                }
            }
        }
    }
    Ok(Login::Anonymous)
}
