//! *Languages'* files: crates, wheels, tarballs of npm, modules of Go, found as the languages' own tools find them.
//!
//! Invariant: a place is asked for a file that its hash is known of, so that no place decides what is taken; what a tool
//! is configured with (addresses, logins, caches) is read and never changed, and a login goes to the addresses alone that
//! it was configured for. No registry is known here by its name: where nothing is configured, the tool is asked, or the
//! lock's own address is used.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use reqwest::header::HeaderValue;
use url::Url;

use super::FetchError;
use super::transfer::{Address, Transfer};
use crate::child;
use crate::derive::{Download, Origin};
use crate::fsio;
use crate::http::HttpError;
use crate::http::address::{self, Home};
use crate::http::client::{basic, sensitive};

mod cargo;
mod go;
mod ini;
mod listing;
mod npm;
mod pip;
#[cfg(test)]
mod tests;

pub use listing::{ListedFile, Listing, list_python_files};

/// Largest page of an index, in bytes.
const PAGE_MAX: u64 = 128 << 20;
/// Largest configuration file of a tool, in bytes.
const CONFIG_MAX: u64 = 4 << 20;

/// What the user has told the tools of languages: variables, and where their files are. The environment is read by `cli`
/// alone.
#[derive(Clone, Default)]
pub struct LanguageTools {
    /// The user's home directory.
    pub home: Option<PathBuf>,
    /// The project's directory, in which some tools have a configuration of their own.
    pub project: Option<PathBuf>,
    /// The environment. Configurations may name any variable of it.
    pub variables: BTreeMap<String, String>,
    /// Whether programs may be run to ask them for their defaults.
    pub ask_programs: bool,
}

/// Values are not shown: there are secrets among them.
impl fmt::Debug for LanguageTools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LanguageTools")
            .field("home", &self.home)
            .field("project", &self.project)
            .finish_non_exhaustive()
    }
}

impl LanguageTools {
    /// A variable that is set and not empty.
    fn variable(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name)?;
        (!value.is_empty()).then_some(value.as_str())
    }

    /// A path, which may begin with `~/`.
    fn path(&self, text: &str) -> PathBuf {
        match (text.strip_prefix("~/"), &self.home) {
            (Some(below), Some(home)) => home.join(below),
            _ => PathBuf::from(text),
        }
    }

    /// What a program prints on its first line; `None` where it is not there or fails.
    fn answer(&self, program: &str, arguments: &[&str]) -> Option<String> {
        if !self.ask_programs {
            return None;
        }
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(&self.variables)
            .current_dir("/");
        let output = child::output(&mut command)
            .ok()
            .filter(|output| output.status.success())?;
        let text = String::from_utf8(output.stdout).ok()?;
        let line = text.lines().next()?.trim();
        (!line.is_empty()).then(|| line.to_owned())
    }
}

/// A place that may have a file.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// What it is called in messages: no password is in it.
    pub(super) place: String,
    pub(super) lead: Lead,
    /// Whether no place after it is asked where it neither has the file nor says that it has not.
    pub(super) is_final: bool,
}

/// How the address of a file is come by.
#[derive(Debug, Clone)]
pub(super) enum Lead {
    /// It is known.
    At(Address),
    /// A registry of crates says it in its `config.json`.
    Crate(Address),
    /// A page lists the files of a project.
    Page(Address),
    /// What a registry of npm says of a version, and of all versions.
    Package(Vec<Address>),
    /// It is not, for this reason.
    Unusable(&'static str),
}

impl Candidate {
    fn at(place: impl Into<String>, lead: Lead) -> Self {
        Self {
            place: place.into(),
            lead,
            is_final: false,
        }
    }

    /// A file of this machine.
    fn file(path: PathBuf) -> Self {
        let place = path.display().to_string();
        Self::at(place, Lead::At(Address::Local(path)))
    }

    /// Whether no network is needed.
    pub(super) fn is_local(&self) -> bool {
        match &self.lead {
            Lead::At(address) | Lead::Crate(address) | Lead::Page(address) => address.is_local(),
            Lead::Package(addresses) => addresses.iter().all(Address::is_local),
            Lead::Unusable(_) => true,
        }
    }
}

/// Finds the files of languages.
pub(super) struct Languages<'a> {
    tools: &'a LanguageTools,
    transfer: &'a Transfer<'a>,
    cargo: OnceLock<Arc<cargo::CargoConfig>>,
    pip: OnceLock<Arc<pip::PipConfig>>,
    npm: OnceLock<Arc<npm::NpmConfig>>,
    go: OnceLock<Arc<go::GoConfig>>,
    /// Pages of indexes that were read; `None`: there is no such page.
    pages: Mutex<BTreeMap<String, Option<Arc<Vec<u8>>>>>,
}

impl<'a> Languages<'a> {
    /// Nothing is read or asked yet.
    pub(super) fn new(tools: &'a LanguageTools, transfer: &'a Transfer<'a>) -> Self {
        Self {
            tools,
            transfer,
            cargo: OnceLock::new(),
            pip: OnceLock::new(),
            npm: OnceLock::new(),
            go: OnceLock::new(),
            pages: Mutex::default(),
        }
    }

    /// The places that may have `download`, in the order in which they are to be asked; none for what is of no language.
    pub(super) fn candidates(&self, download: &Download) -> Result<Vec<Candidate>, FetchError> {
        match &download.origin {
            Origin::Crate {
                name,
                version,
                registry,
            } => {
                let config = self.config(&self.cargo, cargo::CargoConfig::read)?;
                Ok(config.candidates(name, version, registry, self.tools))
            }
            Origin::Python {
                project, indexes, url, ..
            } => {
                let config = self.config(&self.pip, pip::PipConfig::read)?;
                Ok(config.candidates(project, &download.name, indexes, url.as_deref()))
            }
            Origin::Npm { name, version, url } => {
                let config = self.config(&self.npm, npm::NpmConfig::read)?;
                Ok(config.candidates(name, version, &download.hash, url.as_deref()))
            }
            Origin::Go { module, version } => {
                let config = self.config(&self.go, go::GoConfig::read)?;
                Ok(config.candidates(module, version, &download.hash))
            }
            Origin::Url(_) | Origin::Git { .. } | Origin::Deb { .. } | Origin::DebSource { .. } => Ok(Vec::new()),
        }
    }

    /// A tool's configuration, read when it is first needed, and its logins with it.
    fn config<C: Logins>(
        &self,
        known: &OnceLock<Arc<C>>,
        read: impl Fn(&LanguageTools) -> Result<C, FetchError>,
    ) -> Result<Arc<C>, FetchError> {
        if let Some(config) = known.get() {
            return Ok(Arc::clone(config));
        }
        let config = read(self.tools)?;
        for (prefix, login) in config.logins() {
            self.transfer.know_login(prefix, login);
        }
        Ok(Arc::clone(known.get_or_init(|| Arc::new(config))))
    }

    /// The address of `download` at a candidate; [`FetchError::NotFound`] where it has none.
    pub(super) fn locate(&self, candidate: &Candidate, download: &Download) -> Result<Address, FetchError> {
        let nothing = || FetchError::NotFound {
            url: candidate.place.clone(),
        };
        match &candidate.lead {
            Lead::At(address) => Ok(address.clone()),
            Lead::Unusable(_) => Err(nothing()),
            Lead::Crate(index) => {
                let Origin::Crate { name, version, .. } = &download.origin else {
                    return Err(nothing());
                };
                let page = self
                    .page(&index.clone().joined("config.json")?, "application/json")?
                    .ok_or_else(nothing)?;
                let sha256 = download.hash.hex();
                let text =
                    cargo::download_address(&page, name, version, &sha256).ok_or_else(|| malformed(candidate))?;
                self.follow(index, &text)
            }
            Lead::Page(address) => {
                let page = self.page(address, pip::ACCEPT)?.ok_or_else(nothing)?;
                let text = pip::link_to(&page, &download.name).ok_or_else(nothing)?;
                self.follow(address, &text)
            }
            Lead::Package(addresses) => {
                let Origin::Npm { version, .. } = &download.origin else {
                    return Err(nothing());
                };
                for address in addresses {
                    let Some(page) = self.page(address, npm::ACCEPT)? else {
                        continue;
                    };
                    let text = npm::tarball_of(&page, version).ok_or_else(nothing)?;
                    return self.follow(address, &text);
                }
                Err(nothing())
            }
        }
    }

    /// A page, read once; `None` where there is none.
    fn page(&self, address: &Address, accept: &str) -> Result<Option<Arc<Vec<u8>>>, FetchError> {
        let key = address.display();
        let pages = || self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = pages().get(&key) {
            return Ok(page.clone());
        }
        let page = match self.transfer.page(address, accept, PAGE_MAX) {
            Ok(bytes) => Some(Arc::new(bytes)),
            Err(FetchError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(pages().entry(key).or_insert(page).clone())
    }

    /// The address that a page gives, relative to its own and judged as an answer's.
    fn follow(&self, from: &Address, text: &str) -> Result<Address, FetchError> {
        let text = text.split('#').next().unwrap_or_default();
        match from {
            Address::Local(page) => {
                if text.contains("://") || text.starts_with("file:") {
                    return Address::parse(text);
                }
                let dir = if page.is_dir() {
                    Some(page.as_path())
                } else {
                    page.parent()
                };
                let decoded = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
                Ok(Address::Local(dir.unwrap_or(page).join(decoded.as_ref())))
            }
            Address::Http(url) => {
                let mut home = (**url).clone();
                let _ = home.set_username("").and_then(|()| home.set_password(None));
                let host = address::host_of(&home);
                let bounds = Home {
                    url: &home,
                    host: &host,
                    may_lead_inside: self.transfer.may_lead_inside(&host),
                };
                address::resolve(text, &home, bounds)
                    .map(|url| Address::Http(Box::new(url)))
                    .map_err(|stray| FetchError::Http {
                        url: from.display(),
                        source: HttpError::Redirect {
                            host: host.clone(),
                            reason: stray.to_string(),
                            help: stray.help(),
                        },
                    })
            }
        }
    }
}

/// What is configured of who the user is at which addresses.
trait Logins {
    /// The `Authorization` for everything below an address.
    fn logins(&self) -> Vec<(Url, HeaderValue)>;
}

fn malformed(candidate: &Candidate) -> FetchError {
    FetchError::Index {
        place: candidate.place.clone(),
    }
}

/// The login in an address, for its whole origin, and the address without it.
fn without_login(mut url: Url) -> (Url, Option<(Url, HeaderValue)>) {
    if url.username().is_empty() && url.password().is_none() {
        return (url, None);
    }
    let decode = |text: &str| {
        percent_encoding::percent_decode_str(text)
            .decode_utf8_lossy()
            .into_owned()
    };
    let header = basic(&decode(url.username()), &decode(url.password().unwrap_or_default()));
    // Neither fails for an address that had them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    let mut origin = url.clone();
    origin.set_path("/");
    origin.set_query(None);
    origin.set_fragment(None);
    let login = header.map(|header| (origin, header));
    (url, login)
}

/// The text of a tool's configuration file; `None` where there is none.
fn config_text(path: &Path) -> Result<Option<String>, FetchError> {
    match fsio::read_limited(path, CONFIG_MAX) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error)
            if matches!(
                error.source.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
