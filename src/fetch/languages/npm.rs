//! *Tarballs* of npm, found as npm finds them: its cache by hash, then the registry that its configuration names for the
//! package's scope, then the address in the lock.
//!
//! Invariant: a login goes to the addresses alone that it was configured for (`//HOST/PATH/:_authToken`), and never over
//! plain HTTP to another machine.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::HeaderValue;
use serde::Deserialize;
use url::Url;

use super::{
    Address, Candidate, FetchError, LanguageTools, Lead, Logins, basic, config_text, sensitive, without_login,
};
use crate::digest::{ContentDigest, FileHash};
use crate::http::address::is_loopback;

/// What is asked for: what an installation needs of a package, else all.
pub(super) const ACCEPT: &str = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8";

/// What is encoded in a package's name where it is one part of a path.
const NAME: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'@');

/// What npm is configured with.
#[derive(Default)]
pub(super) struct NpmConfig {
    /// Of a key the value that counts.
    keys: BTreeMap<String, String>,
    cache: Option<PathBuf>,
    /// The registry that npm uses where none is configured, as it says itself.
    default: Option<String>,
}

impl NpmConfig {
    /// Reads `.npmrc` of the project, the user and the machine, and npm's variables (npm's documentation, "config").
    pub(super) fn read(tools: &LanguageTools) -> Result<Self, FetchError> {
        let mut keys = BTreeMap::new();
        for (name, value) in &tools.variables {
            // Names of variables are read whatever their case.
            let lower = name.to_ascii_lowercase();
            if let Some(key) = lower.strip_prefix("npm_config_")
                && !value.is_empty()
            {
                let key = if key.starts_with("//") {
                    key.to_owned()
                } else {
                    key.replace('_', "-")
                };
                keys.insert(key, value.clone());
            }
        }
        let path = |key: &str| keys.get(key).map(|text| tools.path(text));
        let user = path("userconfig").or_else(|| Some(tools.home.as_ref()?.join(".npmrc")));
        let global = path("globalconfig").or_else(|| Some(path("prefix")?.join("etc/npmrc")));
        let project = tools.project.as_ref().map(|dir| dir.join(".npmrc"));
        let machine = ["/usr/local/etc/npmrc", "/usr/etc/npmrc", "/etc/npmrc"].map(PathBuf::from);
        for path in project.into_iter().chain(user).chain(global).chain(machine) {
            let Some(text) = config_text(&path)? else { continue };
            for (key, value) in file_pairs(&text) {
                let value = expanded(&value, tools);
                keys.entry(expanded(&key, tools)).or_insert(value);
            }
        }
        let cache = keys.get("cache").map(|text| tools.path(text));
        let cache = cache.or_else(|| Some(tools.home.as_ref()?.join(".npm")));
        let default = match keys.contains_key("registry") {
            true => None,
            false => tools.answer("npm", &["config", "get", "registry"]),
        };
        Ok(Self { keys, cache, default })
    }

    /// The registry of a package.
    fn registry(&self, name: &str) -> Option<&str> {
        let scope = name.split_once('/').map(|(scope, _)| scope.to_ascii_lowercase());
        let scoped = scope.and_then(|scope| self.keys.get(&format!("{scope}:registry")));
        let configured = scoped.or_else(|| self.keys.get("registry"));
        configured.or(self.default.as_ref()).map(String::as_str)
    }

    /// The places that may have the tarball of a version.
    pub(super) fn candidates(&self, name: &str, version: &str, hash: &FileHash, url: Option<&str>) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        if let Some(cache) = &self.cache
            && let Some(digest) = hash.content()
        {
            candidates.push(Candidate::file(cached(cache, &digest)));
        }
        // What is a file of the project is asked of nobody.
        let own = url.and_then(|url| Url::parse(url).ok()?.to_file_path().ok());
        if let Some(path) = own {
            candidates.push(Candidate::file(path));
            return candidates;
        }
        if let Some(registry) = self.registry(name)
            && let Ok(parsed) = Url::parse(registry)
        {
            let (base, _) = without_login(parsed);
            let below = |path: &str| Address::parse(&format!("{}/{path}", base.as_str().trim_end_matches('/')));
            let encoded = utf8_percent_encode(name, NAME).to_string();
            let short = name.rsplit('/').next().unwrap_or(name);
            // Where npm's own registry has it, and those that are made after it.
            let usual = below(&format!("{name}/-/{short}-{version}.tgz"));
            candidates.extend(
                usual
                    .ok()
                    .map(|address| Candidate::at(base.as_str(), Lead::At(address))),
            );
            let pages = [format!("{encoded}/{version}"), encoded];
            let pages = pages.iter().filter_map(|page| below(page).ok()).collect();
            candidates.push(Candidate::at(
                format!("what {base} says of {name}"),
                Lead::Package(pages),
            ));
        }
        if let Some(address) = url.and_then(|url| Address::parse(url).ok()) {
            candidates.push(Candidate::at(address.display(), Lead::At(address)));
        }
        candidates
    }
}

impl Logins for NpmConfig {
    fn logins(&self) -> Vec<(Url, HeaderValue)> {
        let mut logins = Vec::new();
        for key in self.keys.keys() {
            let Some((place, kind)) = key.rsplit_once(':') else {
                continue;
            };
            if !place.starts_with("//") {
                continue;
            }
            let value = |kind: &str| self.keys.get(&format!("{place}:{kind}")).map(String::as_str);
            let header = match kind {
                "_authtoken" => value("_authtoken").and_then(|token| sensitive(&format!("Bearer {token}"))),
                "_auth" => value("_auth").and_then(|pair| sensitive(&format!("Basic {pair}"))),
                "_password" => {
                    let password = value("_password").and_then(|text| STANDARD.decode(text).ok());
                    let password = password.and_then(|bytes| String::from_utf8(bytes).ok());
                    value("username")
                        .zip(password)
                        .and_then(|(name, password)| basic(name, &password))
                }
                _ => None,
            };
            let Some(header) = header else { continue };
            // The place names no scheme.
            for scheme in ["https", "http"] {
                if let Ok(url) = Url::parse(&format!("{scheme}:{}/", place.trim_end_matches('/')))
                    && (scheme == "https" || is_loopback(&url))
                {
                    logins.push((url, header.clone()));
                }
            }
        }
        logins
    }
}

/// The pairs of an `.npmrc`; keys of places keep their case but for the setting's name.
fn file_pairs(text: &str) -> Vec<(String, String)> {
    let pairs = text.lines().filter_map(|line| {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            return None;
        }
        let (key, value) = line.split_once('=')?;
        let (key, value) = (key.trim(), value.trim().trim_matches('"'));
        let key = match key.rsplit_once(':') {
            Some((place, kind)) if place.starts_with("//") => format!("{place}:{}", kind.to_ascii_lowercase()),
            _ if key.starts_with('@') => key.to_ascii_lowercase(),
            _ => key.to_ascii_lowercase().replace('_', "-"),
        };
        Some((key, value.to_owned()))
    });
    pairs.collect()
}

/// With variables (`${NAME}`) replaced by their values; one that is not set stays as it is, as npm has it.
fn expanded(text: &str, tools: &LanguageTools) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let Some((name, more)) = after.split_once('}') else {
            out.push_str("${");
            rest = after;
            continue;
        };
        match tools.variables.get(name.trim_end_matches('?')) {
            Some(value) => out.push_str(value),
            None if name.ends_with('?') => {}
            None => out.push_str(&format!("${{{name}}}")),
        }
        rest = more;
    }
    out.push_str(rest);
    out
}

/// The file of a digest in npm's cache (cacache, content version 2).
fn cached(cache: &std::path::Path, digest: &ContentDigest) -> PathBuf {
    let hex = digest.hex();
    let dir = cache.join("_cacache/content-v2").join(digest.algorithm());
    dir.join(&hex[..2]).join(&hex[2..4]).join(&hex[4..])
}

#[derive(Deserialize)]
struct Packument {
    #[serde(default)]
    versions: BTreeMap<String, Manifest>,
    dist: Option<Dist>,
}

#[derive(Deserialize)]
struct Manifest {
    dist: Option<Dist>,
}

#[derive(Deserialize)]
struct Dist {
    tarball: String,
}

/// The address of a version's tarball in what a registry says of that version, or of all.
pub(super) fn tarball_of(page: &[u8], version: &str) -> Option<String> {
    let Packument { mut versions, dist } = serde_json::from_slice(page).ok()?;
    let of_version = versions.remove(version).and_then(|manifest| manifest.dist);
    dist.or(of_version).map(|dist| dist.tarball)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn variables_are_put_in_and_unset_ones_stay() {
        let tools = LanguageTools {
            variables: [("TOKEN".to_owned(), "secret".to_owned())].into(),
            ..LanguageTools::default()
        };
        for (text, expected) in [
            ("${TOKEN}", "secret"),
            ("a${TOKEN}b${TOKEN?}", "asecretbsecret"),
            ("${UNSET}", "${UNSET}"),
            ("${UNSET?}", ""),
            ("${TOKEN", "${TOKEN"),
            ("$TOKEN", "$TOKEN"),
        ] {
            assert_eq!(expanded(text, &tools), expected, "{text}");
        }
    }
}
