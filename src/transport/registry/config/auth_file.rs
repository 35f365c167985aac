//! A *file of credentials*: podman's `auth.json`, docker's `config.json`, or the older `.dockercfg`.
//!
//! Invariant: an error names the file and the key, and quotes no value; only the entry that is used is looked into, so
//! that a broken one of another registry does no harm.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use super::Login;
use super::error::ConfigError;
use super::host;

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Base64 with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Whose file it is, which decides what is looked for in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// `auth.json` of containers-auth.json(5): `credHelpers` and `auths`; `credsStore` is docker's alone.
    Containers,
    /// docker's `config.json`: `credHelpers`, `credsStore` and `auths`.
    Docker,
    /// `.dockercfg`: the map that became `auths`.
    Legacy,
}

/// A place where credentials are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthSource {
    /// The file, which need not exist.
    pub path: PathBuf,
    /// Whose it is.
    pub kind: FileKind,
    /// Why it is looked at: `REGISTRY_AUTH_FILE`, `XDG_RUNTIME_DIR`, `HOME`.
    pub origin: &'static str,
}

/// A file of credentials that was read.
pub(super) struct AuthFile {
    path: PathBuf,
    kind: FileKind,
    auths: BTreeMap<String, Value>,
    helpers: BTreeMap<String, Value>,
    store: Option<String>,
}

/// Its entries are secrets.
impl fmt::Debug for AuthFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthFile({}, …)", self.path.display())
    }
}

/// Whether it cannot even be told if there is a file.
fn is_hidden(path: &Path) -> bool {
    let found = path.symlink_metadata();
    found.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

impl AuthFile {
    /// Reads the file; `None` if there is none.
    pub(super) fn read(source: &AuthSource) -> Result<Option<Self>, ConfigError> {
        match crate::fsio::read_limited(&source.path, FILE_BYTES_MAX) {
            Ok(bytes) => Self::parse(&bytes, source).map(Some),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            // In a directory that the user may not even enter, as root leaves it in `/run`, nothing is theirs.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && is_hidden(&source.path) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn parse(bytes: &[u8], source: &AuthSource) -> Result<Self, ConfigError> {
        let path = &source.path;
        // The parser's own message is left out: some quote what they met.
        let value: Value = serde_json::from_slice(bytes).map_err(|error| {
            let reason = format!("is not JSON from line {}, column {} on", error.line(), error.column());
            malformed(path, "it", reason)
        })?;
        let mut fields = object(value, path, "it")?;
        let mut take = |key: &str| match fields.remove(key) {
            None | Some(Value::Null) => Ok(BTreeMap::new()),
            Some(value) => object(value, path, &format!("`{key}`")),
        };
        if source.kind == FileKind::Legacy {
            return Ok(Self {
                path: path.clone(),
                kind: source.kind,
                auths: fields,
                helpers: BTreeMap::new(),
                store: None,
            });
        }
        let auths = take("auths")?;
        let helpers = take("credHelpers")?;
        let store = match fields.get("credsStore") {
            Some(store) if source.kind == FileKind::Docker => text(store, path, "`credsStore`")?,
            _ => None,
        };
        Ok(Self {
            path: path.clone(),
            kind: source.kind,
            auths,
            helpers,
            store,
        })
    }

    /// The helper that `credHelpers` names for a host, and its key there.
    pub(super) fn helper(&self, host: &str) -> Result<Option<(String, String)>, ConfigError> {
        let docker = (self.kind == FileKind::Docker).then(|| host::docker_key(host));
        for key in docker.into_iter().chain([host]) {
            if let Some(value) = self.helpers.get(key) {
                let what = format!("`credHelpers` \u{2192} `{}`", shown_key(key));
                let name = text(value, &self.path, &what)?;
                return Ok(name.map(|name| (key.to_owned(), name)));
            }
        }
        Ok(None)
    }

    /// The helper that docker's `credsStore` names for every host.
    pub(super) fn store(&self) -> Option<&str> {
        self.store.as_deref()
    }

    /// The key of `auths` that is for a repository, and what is there.
    pub(super) fn entry(&self, host: &str, repository: &str) -> Result<Option<(String, Login)>, ConfigError> {
        let Some((key, value)) = self.matching(host, repository) else {
            return Ok(None);
        };
        let shown = shown_key(key);
        Ok(Some((shown.clone(), self.login(&shown, value)?)))
    }

    fn matching(&self, host: &str, repository: &str) -> Option<(&String, &Value)> {
        let mut keys = match self.kind {
            FileKind::Legacy => vec![host.to_owned()],
            _ => host::namespaces(host, repository),
        };
        if self.kind == FileKind::Docker {
            // Before the bare host, which is the last: docker itself knows no other key.
            keys.insert(keys.len() - 1, host::docker_key(host).to_owned());
        }
        let exact = keys.iter().find_map(|key| self.auths.get_key_value(key));
        exact.or_else(|| {
            let legacy = self.kind == FileKind::Legacy;
            let wanted = host::normal_key(host, legacy);
            self.auths
                .iter()
                .find(|(key, _)| host::normal_key(key, legacy) == wanted)
        })
    }

    /// What an entry says: a registry token before an identity token before name and password, as docker uses them.
    fn login(&self, key: &str, entry: &Value) -> Result<Login, ConfigError> {
        let what = format!("`auths` \u{2192} `{key}`");
        let fields = match entry {
            Value::Null => return Ok(Login::Anonymous),
            Value::Object(fields) => fields,
            _ => return Err(malformed(&self.path, &what, "is not an object")),
        };
        let field = |name: &str| match fields.get(name) {
            None => Ok(None),
            Some(value) => text(value, &self.path, &format!("{what} \u{2192} `{name}`")),
        };
        if let Some(token) = field("registrytoken")? {
            return Ok(Login::RegistryToken(token));
        }
        if let Some(token) = field("identitytoken")? {
            return Ok(Login::IdentityToken(token));
        }
        let pair = match field("auth")? {
            Some(auth) => Some(
                decode(&auth).map_err(|reason| malformed(&self.path, &format!("{what} \u{2192} `auth`"), reason))?,
            ),
            None => field("username")?.zip(field("password")?),
        };
        Ok(match pair {
            Some((username, password)) if !username.is_empty() && !password.is_empty() => {
                Login::Basic { username, password }
            }
            _ => Login::Anonymous,
        })
    }
}

/// `base64(NAME:PASSWORD)`; the password may hold colons and, from old tools, zeros at its end.
fn decode(auth: &str) -> Result<(String, String), &'static str> {
    let auth: String = auth.split_ascii_whitespace().collect();
    let bytes = BASE64.decode(auth).map_err(|_| "is not base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "holds base64 of text that is not UTF-8")?;
    let (username, password) = text
        .split_once(':')
        .ok_or("holds base64 of text that is not `NAME:PASSWORD`")?;
    Ok((username.to_owned(), password.trim_matches('\0').to_owned()))
}

fn object(value: Value, path: &Path, what: &str) -> Result<BTreeMap<String, Value>, ConfigError> {
    match value {
        Value::Object(fields) => Ok(fields.into_iter().collect()),
        _ => Err(malformed(path, what, "is not an object")),
    }
}

/// A text that is not empty.
fn text(value: &Value, path: &Path, what: &str) -> Result<Option<String>, ConfigError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        _ => Err(malformed(path, what, "is not text")),
    }
}

fn malformed(path: &Path, what: &str, reason: impl Into<String>) -> ConfigError {
    ConfigError::AuthFile {
        path: path.to_owned(),
        what: what.to_owned(),
        reason: reason.into(),
    }
}

/// A key as it may be shown: without the user and password that a URL can hold.
fn shown_key(key: &str) -> String {
    match key.rsplit_once('@') {
        None => key.to_owned(),
        Some((before, host)) => {
            let scheme = before.find("://").map_or("", |at| &before[..at + 3]);
            format!("{scheme}\u{2026}@{host}")
        }
    }
}

#[cfg(test)]
mod fuzz {
    use super::{AuthFile, AuthSource, FileKind};

    #[test]
    fn fuzz_docker_config() {
        crate::testing::fuzz("docker-config", |bytes| {
            for kind in [FileKind::Docker, FileKind::Containers, FileKind::Legacy] {
                let source = AuthSource {
                    path: "config.json".into(),
                    kind,
                    origin: "a test",
                };
                if let Ok(file) = AuthFile::parse(bytes, &source) {
                    let _ = file.helper("registry.example");
                    let _ = file.entry("registry.example", "team/app");
                }
            }
        });
    }
}
