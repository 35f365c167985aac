//! The environment of shells *kept outside* of them: a view beside the project, with what it was made of.
//!
//! Invariant: a view is used again exactly while specs, lock, the files that languages pin and the store's paths are what they
//! were when it was made; while it is there, the store keeps what it leads to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::build::{OutsideView, ShellPart, ShellRecord, ViewPlace};
use crate::digest::Digest;
use crate::fsio::{self, FileLock, LockKind, create_dir_all};
use crate::spec::{self, PackageName, Source};
use crate::store::{RootOwner, Store};

use super::error::ProjectError;
use super::files::{Project, SPEC_NAME};
use super::git_ignore::IGNORE_NAME;
use super::spec_place::FetchedPlace;

/// Directory beside a spec for what layerize keeps of its own there; it is no part of any source.
pub const OWN_DIR: &str = ".layerize";

/// Directory of views in it.
const VIEWS: &str = "env";

/// What a view was made of, in its directory.
const KEPT_NAME: &str = "layerize.json";

/// Largest file that says what a view was made of, in bytes.
const KEPT_BYTES_MAX: u64 = 64 << 20;

/// Largest file of a language that is looked at, in bytes.
const PINS_BYTES_MAX: u64 = 256 << 20;

/// Digits of a digest that tell specs apart.
const SPECS_DIGITS: usize = 8;

/// Changes with what a view has.
const FORMAT: u32 = 2;

/// Files by which languages say and pin what a package depends on.
const PINNING_FILES: [&str; 13] = [
    "Cargo.lock",
    "Cargo.toml",
    "go.mod",
    "go.sum",
    "go.work",
    "package-lock.json",
    "package.json",
    "pnpm-lock.yaml",
    "pylock.toml",
    "pyproject.toml",
    "requirements.in",
    "requirements.txt",
    "uv.lock",
];

/// A view, and what it was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptView {
    /// Of everything that it depends on.
    key: String,
    /// The store that it leads to.
    pub store: PathBuf,
    /// The projects' directories.
    pub projects: Vec<PathBuf>,
    /// What the shell is made of.
    pub record: ShellRecord,
    /// What it has.
    pub view: OutsideView,
}

/// Packages of projects, whose environments are one, and what is kept of that.
pub struct Wanted<'a> {
    projects: Vec<(&'a Project, &'a [PackageName])>,
    store: PathBuf,
    launcher: Vec<String>,
    /// Where the user is, and the place that the spec is from, where it is from elsewhere.
    elsewhere: Option<(PathBuf, String)>,
}

impl<'a> Wanted<'a> {
    /// The environment of these packages, at least one of them, in this store; `launcher` is how a program is run in the shell
    /// of a view, whose directory and the program follow.
    pub fn new(projects: Vec<(&'a Project, &'a [PackageName])>, store: PathBuf, launcher: Vec<String>) -> Self {
        Self {
            projects,
            store,
            launcher,
            elsewhere: None,
        }
    }

    /// The same for a user who is `here`, with a spec from elsewhere: the view is made here.
    pub fn of_place(self, place: &FetchedPlace, here: &Path) -> Self {
        Self {
            elsewhere: Some((here.to_owned(), place.place.clone())),
            ..self
        }
    }

    /// Where the user works on a project.
    fn dir_of<'d>(&'d self, project: &'d Project) -> &'d Path {
        self.elsewhere.as_ref().map_or(&project.dir, |(here, _)| here)
    }

    /// What the user calls it.
    pub fn name(&self) -> String {
        let names = self.projects.iter().flat_map(|(_, packages)| packages.iter());
        names.map(|name| name.0.as_str()).collect::<Vec<_>>().join("+")
    }

    /// Where its view is.
    pub fn dir(&self) -> PathBuf {
        let parent = self
            .projects
            .first()
            .map_or(Path::new(""), |(project, _)| self.dir_of(project));
        // What imports are called is no part of a search path.
        let name = self.name().replace(':', "@");
        let specs = self.projects.iter().filter_map(|(project, _)| {
            let file = project.workspace.files.first()?;
            Some(project.dir.join(&file.path))
        });
        let specs: Vec<PathBuf> = match &self.elsewhere {
            Some((_, place)) => vec![PathBuf::from(place)],
            None => specs.collect(),
        };
        let view = match specs.as_slice() {
            [spec] if self.elsewhere.is_none() && spec.ends_with(SPEC_NAME) => name,
            // Other specs have packages of the same names.
            specs => {
                let all: Vec<String> = specs.iter().map(|spec| format!("{}\n", spec.display())).collect();
                let digest = Digest::of(all.concat().as_bytes()).hex();
                format!("{name}-{}", &digest[..SPECS_DIGITS])
            }
        };
        parent.join(OWN_DIR).join(VIEWS).join(view)
    }

    /// The files on which it depends, those that are there.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = BTreeSet::new();
        for (project, packages) in &self.projects {
            files.extend(project.workspace.files.iter().map(|file| project.dir.join(&file.path)));
            files.insert(project.lock_path());
            files.extend(packages.iter().flat_map(|package| pinning_files(project, package)));
        }
        files.into_iter().filter(|file| file.is_file()).collect()
    }

    /// The view that was made before, where it still holds.
    pub fn kept(&self) -> Result<Option<KeptView>, ProjectError> {
        let Ok(kept) = KeptView::read(&self.dir()) else {
            return Ok(None);
        };
        Ok((kept.key == self.key()?).then_some(kept))
    }

    /// Makes the view anew of `parts`, which are those of the packages; the lock must be current.
    pub fn make(&self, store: &Store, parts: &[ShellPart]) -> Result<KeptView, ProjectError> {
        let dir = self.dir();
        if dir.as_os_str().as_encoded_bytes().contains(&b':') {
            return Err(ProjectError::NotOnPath { dir });
        }
        let (own, views) = (dir.parent().and_then(Path::parent), dir.parent());
        let (Some(own), Some(views)) = (own, views) else {
            return Err(ProjectError::NoSpec);
        };
        create_dir_all(views)?;
        let ignore = own.join(IGNORE_NAME);
        if !ignore.exists() {
            fsio::write_output(&ignore, b"# Made by layerize; all of it can be made again.\n*\n")?;
        }
        let _one_at_a_time = FileLock::acquire(&views.join(".lock"), LockKind::Exclusive)?;
        remove_left(views)?;
        let record = ShellRecord::of(parts)?;
        let first = self
            .projects
            .first()
            .map(|(project, _)| self.dir_of(project).to_owned());
        if !store.is_read_only() {
            let owner = RootOwner {
                folder: first.unwrap_or_default(),
                kind: "environment".to_owned(),
                target: self.name(),
            };
            store.keep(&owner, &record.paths())?;
        }
        let place = ViewPlace {
            launcher: (self.launcher.iter().cloned())
                .chain([dir.display().to_string(), "--".to_owned()])
                .collect(),
            dir,
        };
        let mut kept = KeptView {
            key: self.key()?,
            store: self.store.clone(),
            projects: (self.projects.iter())
                .map(|(project, _)| self.dir_of(project).to_owned())
                .collect(),
            view: OutsideView::default(),
            record: record.clone(),
        };
        OutsideView::make(store, &record, &place, |view, new| {
            kept.view = view.clone();
            let json = serde_json::to_vec(&kept).expect("strings, and maps by strings, are JSON");
            fsio::write_output(&new.join(KEPT_NAME), &json)
        })?;
        Ok(kept)
    }

    fn key(&self) -> Result<String, ProjectError> {
        let mut text = format!("{FORMAT}\n{}\n{:?}\n", self.store.display(), self.launcher);
        for (project, packages) in &self.projects {
            text += &format!("{}\n", self.dir_of(project).display());
            for file in &project.workspace.files {
                // What is from elsewhere lies somewhere else each time.
                let path = match &self.elsewhere {
                    Some(_) => file.path.strip_prefix(&project.dir).unwrap_or(&file.path),
                    None => &file.path,
                };
                text += &format!("{} {}\n", path.display(), Digest::of(file.text.as_bytes()));
            }
            text += &format!("{}\n", Digest::of(spec::lock::print(&project.lock).as_bytes()));
            for package in *packages {
                text += &format!("{package}\n");
                for file in pinning_files(project, package)
                    .into_iter()
                    .filter(|file| file.is_file())
                {
                    let bytes = fsio::read_limited(&file, PINS_BYTES_MAX)?;
                    text += &format!("{} {}\n", file.display(), Digest::of(&bytes));
                }
            }
        }
        Ok(Digest::of(text.as_bytes()).to_string())
    }
}

impl KeptView {
    /// Reads what the view in `dir` was made of.
    pub fn read(dir: &Path) -> Result<Self, ProjectError> {
        let gone = || ProjectError::NoView { dir: dir.to_owned() };
        let bytes = fsio::read_limited(&dir.join(KEPT_NAME), KEPT_BYTES_MAX).map_err(|_| gone())?;
        serde_json::from_slice(&bytes).map_err(|_| gone())
    }

    /// Opens its store, which must have all that the view leads to.
    pub fn check(&self, store: &Store, dir: &Path) -> Result<(), ProjectError> {
        match self.record.is_in(store)? {
            true => Ok(()),
            false => Err(ProjectError::NoView { dir: dir.to_owned() }),
        }
    }
}

/// Removes what is left of views that were being made when something ended that; nobody makes one now.
fn remove_left(views: &Path) -> Result<(), ProjectError> {
    for name in fsio::sorted_names(views)? {
        if name.as_encoded_bytes().starts_with(fsio::TEMPORARY_PREFIX.as_bytes()) {
            fsio::remove_tree(&views.join(name))?;
        }
    }
    Ok(())
}

/// Where the files may be by which a package's language says what the package depends on.
fn pinning_files(project: &Project, package: &PackageName) -> Vec<PathBuf> {
    let package = project.workspace.packages.get(package);
    let package = package.filter(|package| package.language.is_some());
    let source = package.and_then(|package| match &package.source.as_ref()?.value {
        Source::Path { path, .. } => Some(package.dir.join(path)),
        _ => None,
    });
    let files = source
        .iter()
        .flat_map(|dir| PINNING_FILES.map(|name| fsio::normalize(&dir.join(name))));
    files.collect()
}
