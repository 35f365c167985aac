//! What a lock file of Python pins for one environment, whichever tool wrote it, and the choice of a wheel among its files.
//!
//! Invariant: a file that is chosen has a SHA-256 or SHA-512; names, versions and file names are fit to be part of a path.

use std::collections::BTreeMap;

use super::tags::{Target, WheelName};
use crate::digest::FileHash;
use crate::lang::LangError;
use crate::spec::normal_python_name;

/// Names of files that a message shows before it counts the rest.
const SHOWN: usize = 8;

/// What is installed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Locked {
    /// From an index.
    pub(super) projects: Vec<LockedProject>,
    /// Directories of the source whose projects are installed as they are.
    pub(super) own: Vec<String>,
    /// What source distributions are built with, each with what it depends on as far as the lock file tells, by its name.
    pub(super) tools: BTreeMap<String, Vec<LockedProject>>,
}

/// A project of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LockedProject {
    /// As names are compared.
    pub(super) name: String,
    pub(super) version: String,
    /// The indexes that it may be from, as the lock names them.
    pub(super) indexes: Vec<String>,
    pub(super) files: Vec<LockedFile>,
    /// Where it stands.
    pub(super) place: String,
}

/// A file that a lock lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LockedFile {
    pub(super) name: String,
    pub(super) url: Option<String>,
    /// `ALGORITHM:HEX`, as many as there are.
    pub(super) hashes: Vec<String>,
}

/// The file of a project that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) file: String,
    pub(super) url: Option<String>,
    pub(super) hash: FileHash,
}

impl LockedProject {
    /// A project of this name, and version where it has one; both must be fit to be part of a path.
    pub(super) fn new(name: &str, version: Option<&str>, file: &str) -> Result<Self, LangError> {
        let place = format!("`{file}`, package `{name}`");
        let plain = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_+.!".contains(&b))
        };
        let Some(version) = version else {
            let help = "let the tool that wrote the lock file write it anew, with the dependency from an index";
            return Err(LangError::at(place, format!("`{name}` has no version"), help));
        };
        if !plain(name) || !plain(version) {
            let message = "a package's name or version holds what neither can hold";
            return Err(LangError::at(
                place,
                message,
                "let the tool that wrote the lock file write it anew",
            ));
        }
        Ok(Self {
            name: normal_python_name(name),
            version: version.to_owned(),
            indexes: Vec::new(),
            files: Vec::new(),
            place: format!("`{file}`, package `{name} {version}`"),
        })
    }

    pub(super) fn error(&self, message: impl Into<String>, help: impl Into<String>) -> LangError {
        LangError::at(&self.place, message, help)
    }

    /// The best wheel for `target`.
    pub(super) fn choose(&self, target: &Target) -> Result<Chosen, LangError> {
        let tags = target.tags();
        let best = self
            .files
            .iter()
            .filter_map(|file| {
                let name = WheelName::parse(&file.name).filter(|name| name.project == self.name)?;
                let rank = name.rank(&tags)?;
                Some((rank, std::cmp::Reverse(name.build), &file.name, file))
            })
            .min_by(|a, b| (a.0, &a.1, a.2).cmp(&(b.0, &b.1, b.2)));
        match best {
            Some((.., file)) => self.pinned(file),
            None => Err(self.no_wheel(target)),
        }
    }

    /// The source distribution (PEP 625), which may have an older name than the standard's.
    pub(super) fn sdist(&self) -> Result<Chosen, LangError> {
        let endings = [".tar.gz", ".zip", ".tar.bz2", ".tar.xz"];
        let mut found = endings.iter().filter_map(|ending| {
            let mut files = self.files.iter();
            files.find(|file| {
                let stem = file.name.strip_suffix(ending).unwrap_or_default();
                let project = stem.strip_suffix(&self.version).unwrap_or(stem).trim_end_matches('-');
                normal_python_name(project) == self.name
                    || stem
                        .rsplit_once('-')
                        .is_some_and(|(project, _)| normal_python_name(project) == self.name)
            })
        });
        match found.next() {
            Some(file) => self.pinned(file),
            None => {
                let message = format!("`{} {}` has no source distribution to build", self.name, self.version);
                Err(self.error(message, "leave it out of `build`: its wheel is taken then"))
            }
        }
    }

    fn pinned(&self, file: &LockedFile) -> Result<Chosen, LangError> {
        let by = |algorithm: &str| {
            let mut hashes = file.hashes.iter().filter_map(|hash| hash.split_once(':'));
            hashes.find(|(found, _)| *found == algorithm)
        };
        let Some((algorithm, hex)) = by("sha256").or_else(|| by("sha512")) else {
            let message = match file.hashes.as_slice() {
                [] => format!("`{}` has no hash", file.name),
                hashes => format!(
                    "`{}` has neither a SHA-256 nor a SHA-512 (but `{}`)",
                    file.name,
                    hashes.join("`, `")
                ),
            };
            let help = "lock it from an index that states hashes: `uv lock` and `pip lock` write them then";
            return Err(self.error(message, help));
        };
        let hash = FileHash::from_hex(algorithm, hex).ok_or_else(|| {
            let message = format!("the {algorithm} of `{}` is none", file.name);
            self.error(message, "let the tool that wrote the lock file write it anew")
        })?;
        Ok(Chosen {
            file: file.name.clone(),
            url: file.url.clone(),
            hash,
        })
    }

    fn no_wheel(&self, target: &Target) -> LangError {
        let (name, version) = (&self.name, &self.version);
        let looked_for = target.shown();
        if self.files.iter().all(|file| !file.name.ends_with(".whl")) {
            let message =
                format!("`{name} {version}` is published as source alone, and nothing says what it is built with");
            let help = format!(
                "write `build = {{ \"{name}\" = [\"setuptools\"] }}` beside `lock`, with the back end that its \
                 `pyproject.toml` names, as locked or as `deb:python3-setuptools`, and `\"deb:gcc\", \"deb:python3-dev\"` \
                 for C; or lock a version that has a wheel for {looked_for}"
            );
            return self.error(message, help);
        }
        let mut files: Vec<String> = self.files.iter().map(|file| format!("`{}`", file.name)).collect();
        if files.len() > SHOWN {
            let more = files.len() - SHOWN;
            files.truncate(SHOWN);
            files.push(format!("{more} more"));
        }
        let message = format!(
            "none of the files of `{name} {version}` is a wheel that runs here: {}",
            files.join(", ")
        );
        let help = format!("lock a version that has one; looked for: {looked_for}");
        self.error(message, help)
    }
}

/// The name of the file at an address: what stands last in its path.
pub(super) fn file_name(url: &str) -> Option<String> {
    let path = url.split(['?', '#']).next()?;
    let name = percent_encoding::percent_decode_str(path.rsplit('/').next()?)
        .decode_utf8()
        .ok()?;
    let plain = !name.is_empty()
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+!".contains(c));
    plain.then(|| name.into_owned())
}
