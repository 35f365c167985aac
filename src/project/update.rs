//! An *update* has the languages' own tools write their lock files anew: cargo, uv, npm, go.
//!
//! Invariant: a lock file belongs to the tool that wrote it, and nothing else changes it; where the tool fails, the files are
//! as they were before.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::child;
use crate::escape::shown_lines;
use crate::event::Event;
use crate::fsio::{self, IoContext as _, PathError};
use crate::lang::{self, Form, LockedDependency, Renewal, Request, SourceTree};
use crate::spec::lock::LockChange;
use crate::spec::{Diagnostics, Language, Package, PackageName, Source, did_you_mean, normal_python_name};

use super::environment::Environment;
use super::error::ProjectError;
use super::files::Project;

/// Most lines of a tool's words that an error shows.
const LINES_SHOWN: usize = 20;

/// Largest file that is put back, in bytes: more than any lock file that is read.
const FILE_MAX: u64 = 64 << 20;

/// Why lock files were not updated.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The project cannot be used.
    #[error(transparent)]
    Project(Box<ProjectError>),
    /// Nothing is called so.
    #[error("`{name}` is in no lock file: it is neither in `layerize.lock` nor a dependency that a language pins")]
    Unknown {
        /// As it was given.
        name: String,
        /// What it may have been meant to be.
        similar: Option<String>,
    },
    /// The language's tool is not on this machine.
    #[error("cannot update `{}`: `{program}` is not on this machine", file.display())]
    NoTool {
        /// The lock file.
        file: PathBuf,
        /// The tool.
        program: &'static str,
    },
    /// It cannot be started.
    #[error("cannot update `{}`: `{command}` cannot be started", file.display())]
    Start {
        /// The lock file.
        file: PathBuf,
        /// What was to be run.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It ended badly.
    #[error("cannot update `{}`: `{command}` failed\n{said}", file.display())]
    Failed {
        /// The lock file.
        file: PathBuf,
        /// What was run.
        command: String,
        /// The end of what it said.
        said: String,
    },
}

impl<E: Into<ProjectError>> From<E> for UpdateError {
    fn from(error: E) -> Self {
        Self::Project(Box::new(error.into()))
    }
}

impl UpdateError {
    /// What to type next.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Project(error) => error.help(),
            Self::Unknown {
                similar: Some(name), ..
            } => Some(format!("did you mean `{name}`?")),
            Self::Unknown { .. } => Some("`layerize inputs` lists all that comes from outside".to_owned()),
            Self::NoTool { program, .. } => Some(format!(
                "install `{program}`, or update the file where it is; `layerize lock` then takes it as it is"
            )),
            Self::Start { .. } => None,
            Self::Failed { .. } => Some("the lock file is as it was before".to_owned()),
        }
    }
}

/// A lock file that was written anew.
pub struct UpdatedLock {
    /// The file.
    pub file: PathBuf,
    package: PackageName,
    before: Pins,
}

impl UpdatedLock {
    /// What it pins otherwise than before, once `project`'s own lock pins what it newly needs: a commit, for one.
    pub fn changes(&self, project: &Project) -> Result<Vec<LockChange>, UpdateError> {
        let packages = locked_packages(project)?;
        let found = packages.iter().find(|of| of.package.name.value == self.package);
        let Some(found) = found else { return Ok(Vec::new()) };
        Ok(changes(found.language.key(), &self.before, &found.pins(project)?))
    }
}

/// What a package's lock file pins: the versions by the name of the dependency.
type Pins = BTreeMap<String, BTreeSet<String>>;

/// A package whose language has a lock file.
struct LockedPackage<'a> {
    package: &'a Package,
    language: &'a Language,
    source: SourceTree,
    dir: PathBuf,
}

/// Has `names` resolved anew in the lock files in which they are, or everything in all of them where none is named; gives the
/// names that none of them has with the files that were written.
///
/// # Errors
///
/// A name that is in no lock file; a tool that is missing or fails.
pub fn update(
    project: &Project,
    names: &[String],
    offline: bool,
    environment: &Environment<'_>,
) -> Result<(Vec<UpdatedLock>, Vec<String>), UpdateError> {
    let packages = locked_packages(project)?;
    let mut known = BTreeMap::new();
    for (index, package) in packages.iter().enumerate() {
        match package.pins(project) {
            Ok(pins) => drop(known.insert(index, pins)),
            // All is resolved anew, whatever it was.
            Err(_) if names.is_empty() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut left = Vec::new();
    for name in names {
        let is_pinned = |(index, pins): (&usize, &Pins)| pins.contains_key(&packages[*index].own_name(name));
        if known.iter().any(is_pinned) {
            continue;
        }
        let bare = name.strip_prefix("deb:").unwrap_or(name);
        if !project.lock.names(bare) {
            let all = known.values().flat_map(BTreeMap::keys).map(String::as_str);
            let similar = did_you_mean(name, all).map(str::to_owned);
            return Err(UpdateError::Unknown {
                name: name.clone(),
                similar,
            });
        }
        left.push(bare.to_owned());
    }
    let mut updated = Vec::new();
    for (index, package) in packages.iter().enumerate() {
        let before = known.get(&index).cloned().unwrap_or_default();
        let own = names.iter().map(|name| package.own_name(name));
        let wanted: Vec<String> = own.filter(|name| before.contains_key(name)).collect();
        if names.is_empty() || !wanted.is_empty() {
            updated.push(package.update(project, &before, &wanted, offline, environment)?);
        }
    }
    Ok((updated, left))
}

/// The packages with a language, one for each lock file.
fn locked_packages(project: &Project) -> Result<Vec<LockedPackage<'_>>, UpdateError> {
    let mut seen = BTreeSet::new();
    let mut packages = Vec::new();
    for package in project.workspace.packages.values() {
        let (Some(language), Some(source)) = (&package.language, &package.source) else {
            continue;
        };
        let Source::Path { path, .. } = &source.value else {
            continue;
        };
        let dir = package.dir.join(path);
        let dir = dir.canonicalize().context("resolve", &dir)?;
        let named = language.value.lock.as_ref().map(|lock| lock.value.clone());
        if seen.insert((dir.clone(), language.value.key(), named)) {
            packages.push(LockedPackage {
                package,
                language: &language.value,
                source: SourceTree::new(dir.clone()),
                dir,
            });
        }
    }
    Ok(packages)
}

impl LockedPackage<'_> {
    fn request<'a>(&'a self, project: &'a Project) -> Request<'a> {
        Request {
            package: self.package,
            language: self.language,
            lock: &project.lock,
            source: &self.source,
        }
    }

    /// A name as this language compares it, without the language before it.
    fn own_name(&self, name: &str) -> String {
        let bare = name.strip_prefix(&format!("{}:", self.language.key())).unwrap_or(name);
        match self.language.key() {
            "python" => normal_python_name(bare),
            _ => bare.to_owned(),
        }
    }

    fn pins(&self, project: &Project) -> Result<Pins, ProjectError> {
        let request = self.request(project);
        let build = lang::plan(&request).map_err(|error| refused(error, &request, project))?;
        let mut pins = Pins::new();
        // Of a module of which only the `go.mod` is known nothing is built.
        for dependency in build.dependencies.into_iter().filter(|of| of.form != Form::GoMod) {
            let LockedDependency {
                name, version, form, ..
            } = dependency;
            match form {
                // What moves is the commit, and what Cargo is told is the package.
                Form::GitCrates(packages) => {
                    for (name, own) in packages {
                        pins.entry(name).or_default().insert(format!("{own} ({version})"));
                    }
                }
                _ => drop(pins.entry(name).or_default().insert(version)),
            }
        }
        Ok(pins)
    }

    fn update(
        &self,
        project: &Project,
        before: &Pins,
        names: &[String],
        offline: bool,
        environment: &Environment<'_>,
    ) -> Result<UpdatedLock, UpdateError> {
        let request = self.request(project);
        let renewal = lang::renewal(&request, names, offline).map_err(|error| refused(error, &request, project))?;
        let dir = self.dir.join(&renewal.dir);
        let saved = Saved::of(&dir, &renewal)?;
        if let Err(error) = run(&renewal, &dir, environment) {
            saved.put_back()?;
            return Err(error);
        }
        Ok(UpdatedLock {
            file: dir.join(&renewal.files[0]),
            package: self.package.name.value.clone(),
            before: before.clone(),
        })
    }
}

fn refused(error: lang::LangError, request: &Request<'_>, project: &Project) -> ProjectError {
    Diagnostics::new(vec![error.diagnostic(request.package)], project.workspace.files.clone()).into()
}

/// Runs a tool as the user would in the directory of the lock file.
fn run(renewal: &Renewal, dir: &Path, environment: &Environment<'_>) -> Result<(), UpdateError> {
    let file = dir.join(&renewal.files[0]);
    for arguments in &renewal.commands {
        let shown = format!("{} {}", renewal.program, arguments.join(" "));
        environment.reporter.report(Event::Note {
            text: format!("running `{shown}`"),
        });
        let mut command = Command::new(renewal.program);
        command
            .args(arguments)
            .env_clear()
            .envs(&environment.languages.variables)
            .envs(renewal.variables.iter().copied())
            .current_dir(dir);
        let output = child::output(&mut command).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => UpdateError::NoTool {
                file: file.clone(),
                program: renewal.program,
            },
            _ => UpdateError::Start {
                file: file.clone(),
                command: shown.clone(),
                source,
            },
        })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let lines: Vec<&str> = said.trim_end().lines().collect();
            let tail = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
            return Err(UpdateError::Failed {
                file,
                command: shown,
                said: shown_lines(&tail).into_owned(),
            });
        }
    }
    Ok(())
}

/// The files that a tool may write, as they were.
struct Saved(Vec<(PathBuf, Option<Vec<u8>>)>);

impl Saved {
    fn of(dir: &Path, renewal: &Renewal) -> Result<Self, PathError> {
        let files = renewal.files.iter().map(|name| {
            let path = dir.join(OsString::from(name));
            let content = match path.symlink_metadata() {
                Ok(_) => Some(fsio::read_limited(&path, FILE_MAX)?),
                Err(_) => None,
            };
            Ok((path, content))
        });
        files.collect::<Result<_, _>>().map(Self)
    }

    fn put_back(self) -> Result<(), PathError> {
        for (path, content) in self.0 {
            match content {
                Some(content) if fs::read(&path).ok().as_ref() != Some(&content) => {
                    fsio::write_atomic(&path, &content)?
                }
                Some(_) => {}
                None => match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(error).context("remove", &path);
                    }
                    _ => {}
                },
            }
        }
        Ok(())
    }
}

/// What is pinned otherwise, as changes of `layerize.lock` are told.
fn changes(key: &str, before: &Pins, after: &Pins) -> Vec<LockChange> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let shown = |versions: &BTreeSet<String>| versions.iter().cloned().collect::<Vec<_>>().join(", ");
    let changes = names.into_iter().filter_map(|name| {
        let label = format!("{key}:{name}");
        Some(match (before.get(name), after.get(name)) {
            (None, Some(new)) => LockChange::Added { label, pin: shown(new) },
            (Some(old), None) => LockChange::Removed { label, pin: shown(old) },
            (Some(old), Some(new)) if old != new => LockChange::Moved {
                label,
                from: shown(old),
                to: shown(new),
            },
            _ => return None,
        })
    });
    changes.collect()
}
