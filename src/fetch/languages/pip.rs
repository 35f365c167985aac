//! *Distributions* of Python, found as pip finds them: directories and pages of files, then the indexes of its
//! configuration (the simple API, as JSON and as HTML), then what the lock itself says.
//!
//! Invariant: of a project's page nothing counts but the address of a file of the wanted name; a login in an index's
//! address goes to that origin alone.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use url::Url;

use super::{Address, Candidate, FetchError, LanguageTools, Lead, Logins, config_text, ini, without_login};

/// What is asked for: JSON (PEP 691), else HTML (PEP 503).
pub(super) const ACCEPT: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// The program that prints pip's default index.
const DEFAULT_INDEX: &str = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)";

/// What pip is configured with.
#[derive(Default)]
pub(super) struct PipConfig {
    /// Indexes in the order in which they are asked, without logins.
    indexes: Vec<String>,
    /// Directories, and pages that list files.
    links: Vec<String>,
    logins: Vec<(Url, HeaderValue)>,
}

impl PipConfig {
    /// Reads pip's files in their order (pip's documentation, "Configuration"), and the variables of pip and uv.
    pub(super) fn read(tools: &LanguageTools) -> Result<Self, FetchError> {
        let mut settings = Settings::default();
        for path in files(tools) {
            if let Some(text) = config_text(&path)? {
                settings.take(&text);
            }
        }
        let set = |names: [&str; 2]| {
            names
                .into_iter()
                .find_map(|name| tools.variable(name))
                .map(str::to_owned)
        };
        settings.index = set(["PIP_INDEX_URL", "UV_DEFAULT_INDEX"])
            .or_else(|| tools.variable("UV_INDEX_URL").map(str::to_owned))
            .or(settings.index);
        settings.extra = set(["PIP_EXTRA_INDEX_URL", "UV_EXTRA_INDEX_URL"])
            .or_else(|| tools.variable("UV_INDEX").map(str::to_owned))
            .or(settings.extra);
        settings.links = set(["PIP_FIND_LINKS", "UV_FIND_LINKS"]).or(settings.links);
        settings.no_index = tools.variable("PIP_NO_INDEX").map(is_true).unwrap_or(settings.no_index);
        let mut config = Self::default();
        let words = |text: Option<&String>| -> Vec<String> {
            let words = text.into_iter().flat_map(|text| text.split_whitespace());
            words.map(str::to_owned).collect()
        };
        for link in words(settings.links.as_ref()) {
            let link = config.keep_login(&link);
            config
                .links
                .push(match link.contains("://") || link.starts_with("file:") {
                    true => link,
                    false => tools.path(&link).display().to_string(),
                });
        }
        if !settings.no_index {
            let default = || tools.answer("python3", &["-I", "-c", DEFAULT_INDEX]);
            let first = settings.index.or_else(default);
            // `NAME=URL` is how uv names an index.
            let own = first.into_iter().chain(words(settings.extra.as_ref()));
            for index in own.collect::<Vec<_>>() {
                let url = match index.split_once('=') {
                    Some((name, url)) if !name.contains('/') && url.contains("://") => url,
                    _ => &index,
                };
                let url = config.keep_login(url);
                config.indexes.push(url);
            }
        }
        Ok(config)
    }

    /// Takes note of the login in an address; gives the address without it.
    fn keep_login(&mut self, text: &str) -> String {
        let Ok(url) = Url::parse(text) else {
            return text.to_owned();
        };
        let (url, login) = without_login(url);
        self.logins.extend(login);
        url.to_string()
    }

    /// The places that may have a file of a project.
    pub(super) fn candidates(
        &self,
        project: &str,
        file: &str,
        of_lock: &[String],
        url: Option<&str>,
    ) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for link in &self.links {
            let candidate = match Address::parse(link) {
                Ok(Address::Local(path)) => Candidate::file(path.join(file)),
                Ok(address) => Candidate::at(link, Lead::Page(address)),
                Err(_) => Candidate::file(PathBuf::from(link).join(file)),
            };
            candidates.push(candidate);
        }
        let own = self.indexes.iter().map(String::as_str);
        let of_lock = of_lock.iter().map(String::as_str).filter(|index| {
            !self
                .indexes
                .iter()
                .any(|own| own.trim_end_matches('/') == index.trim_end_matches('/'))
        });
        // Where nothing is configured, the lock says where its files were found.
        for index in own.chain(of_lock) {
            let page = format!("{}/{}/", index.trim_end_matches('/'), normalized(project));
            candidates.push(match Address::parse(&page) {
                Ok(Address::Local(dir)) => Candidate::at(index, Lead::Page(Address::Local(dir.join("index.html")))),
                Ok(address) => Candidate::at(index, Lead::Page(address)),
                Err(_) => Candidate::at(index, Lead::Unusable("pip's configuration names no address there")),
            });
        }
        if let Some(address) = url.and_then(|url| Address::parse(url).ok()) {
            candidates.push(Candidate::at(address.display(), Lead::At(address)));
        }
        candidates
    }
}

impl Logins for PipConfig {
    fn logins(&self) -> Vec<(Url, HeaderValue)> {
        self.logins.clone()
    }
}

/// What the files say, the last of them first.
#[derive(Default)]
struct Settings {
    index: Option<String>,
    extra: Option<String>,
    links: Option<String>,
    no_index: bool,
}

impl Settings {
    fn take(&mut self, text: &str) {
        // `[global]` is for all commands; what is for downloads and installations goes before it.
        let pairs = ini::pairs(text);
        for wanted in ["global", "download", "install"] {
            for (_, key, value) in pairs.iter().filter(|(section, _, _)| section == wanted) {
                let value = value.clone();
                match key.replace('_', "-").as_str() {
                    "index-url" => self.index = Some(value),
                    "extra-index-url" => self.extra = Some(value),
                    "find-links" => self.links = Some(value),
                    "no-index" => self.no_index = is_true(&value),
                    _ => {}
                }
            }
        }
    }
}

fn is_true(text: &str) -> bool {
    matches!(
        text.to_ascii_lowercase().as_str(),
        "1" | "y" | "yes" | "t" | "true" | "on"
    )
}

/// pip's files, those that count least first.
fn files(tools: &LanguageTools) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let only = tools.variable("PIP_CONFIG_FILE");
    if only == Some("/dev/null") {
        return files;
    }
    let dirs = tools.variable("XDG_CONFIG_DIRS").unwrap_or("/etc/xdg");
    files.extend(dirs.split(':').rev().map(|dir| PathBuf::from(dir).join("pip/pip.conf")));
    files.push(PathBuf::from("/etc/pip.conf"));
    if let Some(home) = &tools.home {
        files.push(home.join(".pip/pip.conf"));
        let config = tools.variable("XDG_CONFIG_HOME").map(PathBuf::from);
        files.push(config.unwrap_or_else(|| home.join(".config")).join("pip/pip.conf"));
    }
    if let Some(environment) = tools.variable("VIRTUAL_ENV") {
        files.push(PathBuf::from(environment).join("pip.conf"));
    }
    files.extend(only.map(PathBuf::from));
    files
}

/// A project's name as the simple API has it (PEP 503, "Normalized Names").
pub(super) fn normalized(name: &str) -> String {
    let mut text = String::new();
    for part in name.split(['-', '_', '.']).filter(|part| !part.is_empty()) {
        if !text.is_empty() {
            text.push('-');
        }
        text.push_str(&part.to_ascii_lowercase());
    }
    text
}

#[derive(Deserialize)]
struct SimplePage {
    files: Vec<SimpleFile>,
}

#[derive(Deserialize)]
struct SimpleFile {
    filename: String,
    url: String,
}

/// The address of a file on the page of a project, in either form of the simple API.
pub(super) fn link_to(page: &[u8], file: &str) -> Option<String> {
    if let Ok(SimplePage { files }) = serde_json::from_slice(page) {
        let mut found = files.into_iter().filter(|listed| listed.filename == file);
        return found.next().map(|listed| listed.url);
    }
    let text = String::from_utf8_lossy(page);
    let mut links = anchors(&text).map(|(link, _)| link);
    links.find(|link| file_of(link).as_deref() == Some(file))
}

/// The name of the file at an address: what stands last in its path.
pub(super) fn file_of(link: &str) -> Option<String> {
    let path = link.split(['#', '?']).next()?;
    let name = percent_decode_str(path.rsplit('/').next()?).decode_utf8_lossy();
    (!name.is_empty()).then(|| name.into_owned())
}

/// The addresses of a page's links, and all that stands in their tags. Pages of indexes are simple; what is found elsewhere
/// in one is no file of its name.
pub(super) fn anchors(page: &str) -> impl Iterator<Item = (String, &str)> {
    page.split('<').filter_map(|tag| {
        let attributes = tag.strip_prefix('a').or_else(|| tag.strip_prefix('A'))?;
        if !attributes.starts_with(|c: char| c.is_ascii_whitespace()) {
            return None;
        }
        let link = attribute(attributes, "href").filter(|link| !link.is_empty())?;
        Some((link, attributes))
    })
}

/// The value of an attribute among all that stands in a tag; empty where it has none.
pub(super) fn attribute(attributes: &str, name: &str) -> Option<String> {
    let at = attributes.to_ascii_lowercase().find(name)?;
    let Some(value) = attributes[at + name.len()..].trim_start().strip_prefix('=') else {
        return Some(String::new());
    };
    let value = value.trim_start();
    let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''));
    let text = match quote {
        Some(quote) => value[1..].split(quote).next()?,
        None => value.split(|c: char| c.is_ascii_whitespace() || c == '>').next()?,
    };
    Some(unescaped(text))
}

/// Without HTML's character references, of which addresses have few.
fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&#43;", "+")
        .replace("&amp;", "&")
}
