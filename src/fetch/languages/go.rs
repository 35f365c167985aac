//! *Modules* of Go, found as Go finds them: the module cache, then the proxies of `GOPROXY` in their order.
//!
//! Invariant: after a proxy that is followed by a comma the next is asked only where that one says that it has no such
//! module, after a bar in any case (Go Modules Reference, "GOPROXY protocol"); modules that are private are asked of no
//! proxy.

use std::collections::BTreeMap;
use std::path::PathBuf;

use reqwest::header::HeaderValue;
use url::Url;

use super::{Address, Candidate, FetchError, LanguageTools, Lead, Logins, config_text, without_login};
use crate::digest::FileHash;
use crate::spec::escaped_go_path;

/// What Go is configured with.
#[derive(Default)]
pub(super) struct GoConfig {
    cache: Option<PathBuf>,
    /// The value of `GOPROXY`; `None` where nothing says it.
    proxies: Option<String>,
    /// Patterns of modules that are asked of no proxy.
    private: String,
    logins: Vec<(Url, HeaderValue)>,
}

impl GoConfig {
    /// Reads Go's variables, and the file in which `go env -w` keeps them.
    pub(super) fn read(tools: &LanguageTools) -> Result<Self, FetchError> {
        let config_home = tools.variable("XDG_CONFIG_HOME").map(PathBuf::from);
        let config_home = config_home.or_else(|| Some(tools.home.as_ref()?.join(".config")));
        let file = match tools.variable("GOENV") {
            Some("off") => None,
            Some(path) => Some(PathBuf::from(path)),
            None => config_home.map(|dir| dir.join("go/env")),
        };
        let text = file
            .map(|file| config_text(&file))
            .transpose()?
            .flatten()
            .unwrap_or_default();
        let kept: BTreeMap<&str, &str> = (text.lines())
            .filter_map(|line| line.trim().split_once('='))
            .filter(|(name, value)| !name.starts_with('#') && !value.is_empty())
            .collect();
        let value = |name: &str| {
            tools
                .variable(name)
                .or_else(|| kept.get(name).copied())
                .map(str::to_owned)
        };
        let first = |paths: String| paths.split(':').next().map(PathBuf::from);
        let go_path = value("GOPATH").and_then(first);
        let go_path = go_path.or_else(|| Some(tools.home.as_ref()?.join("go")));
        let cache = value("GOMODCACHE").map(PathBuf::from);
        let mut config = Self {
            cache: cache
                .or_else(|| Some(go_path?.join("pkg/mod")))
                .map(|dir| dir.join("cache/download")),
            proxies: None,
            private: value("GONOPROXY").or_else(|| value("GOPRIVATE")).unwrap_or_default(),
            logins: Vec::new(),
        };
        let proxies = value("GOPROXY").or_else(|| tools.answer("go", &["env", "GOPROXY"]));
        config.proxies = proxies.map(|proxies| config.without_logins(&proxies));
        Ok(config)
    }

    /// The list without the logins in its addresses, of which note is taken.
    fn without_logins(&mut self, proxies: &str) -> String {
        let mut text = String::new();
        for part in proxies.split_inclusive([',', '|']) {
            let separator = part.chars().last().filter(|last| matches!(last, ',' | '|'));
            let proxy = part.trim_end_matches([',', '|']).trim();
            match Url::parse(proxy) {
                Ok(url) => {
                    let (url, login) = without_login(url);
                    self.logins.extend(login);
                    text.push_str(url.as_str());
                }
                Err(_) => text.push_str(proxy),
            }
            text.extend(separator);
        }
        text
    }

    /// The places that may have the zip, or the `go.mod`, of a module's version.
    pub(super) fn candidates(&self, module: &str, version: &str, hash: &FileHash) -> Vec<Candidate> {
        let suffix = match hash {
            FileHash::GoMod(_) => "mod",
            FileHash::GoModule(_) | FileHash::Content(_) => "zip",
        };
        let path = format!("{}/@v/{}.{suffix}", escaped_go_path(module), escaped_go_path(version));
        let mut candidates = Vec::new();
        candidates.extend(self.cache.iter().map(|cache| Candidate::file(cache.join(&path))));
        if is_private(module, &self.private) {
            candidates.push(Candidate::at(
                module,
                Lead::Unusable("it is private (`GOPRIVATE`, `GONOPROXY`): `go mod download` brings it into Go's cache"),
            ));
            return candidates;
        }
        let proxies = self.proxies.as_deref().unwrap_or_default();
        for part in proxies.split_inclusive([',', '|']) {
            let is_final = part.ends_with(',');
            match part.trim_end_matches([',', '|']) {
                "" => {}
                "off" => {
                    candidates.push(Candidate::at("GOPROXY", Lead::Unusable("it is `off` from there on")));
                    break;
                }
                "direct" => {
                    let why = "repositories are not asked: `go mod download` brings it into Go's cache";
                    candidates.push(Candidate::at("direct", Lead::Unusable(why)));
                    break;
                }
                proxy => candidates.push(Candidate {
                    is_final,
                    ..match Address::below(proxy, &path) {
                        Ok(address) if proxy.contains(':') => Candidate::at(proxy, Lead::At(address)),
                        _ => Candidate::at(proxy, Lead::Unusable("it is no address of a proxy")),
                    }
                }),
            }
        }
        if self.proxies.is_none() {
            let why = "no proxy is known: set `GOPROXY`, or run `go mod download`";
            candidates.push(Candidate::at("GOPROXY", Lead::Unusable(why)));
        }
        candidates
    }
}

impl Logins for GoConfig {
    fn logins(&self) -> Vec<(Url, HeaderValue)> {
        self.logins.clone()
    }
}

/// Whether one of the patterns matches the beginning of a module's path (golang.org/x/mod/module, `MatchPrefixPatterns`).
fn is_private(module: &str, patterns: &str) -> bool {
    let parts: Vec<&str> = module.split('/').collect();
    patterns
        .split(',')
        .map(|pattern| pattern.trim().trim_end_matches('/'))
        .any(|pattern| {
            let wanted: Vec<&str> = pattern.split('/').collect();
            !pattern.is_empty()
                && wanted.len() <= parts.len()
                && wanted
                    .iter()
                    .zip(&parts)
                    .all(|(pattern, part)| matches(pattern.as_bytes(), part.as_bytes()))
        })
}

/// Whether a part of a path is what a pattern of `*` and `?` says.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=text.len()).any(|skipped| matches(rest, &text[skipped..])),
        (Some((b'?', rest)), Some((_, text))) => matches(rest, text),
        (Some((wanted, rest)), Some((found, text))) => wanted == found && matches(rest, text),
        _ => false,
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn private_modules_are_those_that_go_takes_for_private() {
        for (module, patterns, expected) in [
            ("git.corp/x/y", "git.corp", true),
            ("git.corp/x/y", "*.corp", true),
            ("git.corp/x/y", "git.corp/x/y/z", false),
            ("git.corp/x", "other, git.corp/?", true),
            ("git.corporate/x", "git.corp", false),
            ("a/b", "", false),
            ("a/b", "a/", true),
        ] {
            assert_eq!(is_private(module, patterns), expected, "{module} {patterns}");
        }
        assert_eq!(
            escaped_go_path("github.com/BurntSushi/toml"),
            "github.com/!burnt!sushi/toml"
        );
    }
}
