//! A *project* is `layerize.toml` with what it imports, and its lock.
//!
//! Invariant: the lock that is used is current for what it is used for; with `--locked` a stale one is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::derive::{self, BuildPlan};
use crate::digest::Digest;
use crate::event::{Event, Reporter, Silent};
use crate::fetch::local::LocalSource;
use crate::fetch::{self, AptSources, FetchConfig, LockEntry, Update};
use crate::fsio::IoContext as _;
use crate::inputs::{self, FoundInputs};
use crate::oci::Platform;
use crate::spec::{self, Diagnostics, Lock, LockScope, PackageName, Workspace};
use crate::store::Store;
use crate::store_path::{StoreDir, StorePath, content_addressed};

use super::base;
use super::environment::{Environment, WorkOptions};
use super::error::ProjectError;
use super::image::archive_name;
use super::imports::ImportedProject;
use super::languages;
use super::outside::OWN_DIR;
use super::requirements;
use super::spec_place::{self, PlaceForm};

/// The spec's file name.
pub const SPEC_NAME: &str = "layerize.toml";

/// The lock's file name, beside the spec.
pub const LOCK_NAME: &str = "layerize.lock";

/// Largest spec or lock that is read, in bytes.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// Most changes that are told of a lock that is not current.
const CHANGES_TOLD_MAX: usize = 20;

/// A loaded spec and its lock.
pub struct Project {
    /// Packages and images, checked.
    pub workspace: Workspace,
    /// The directory of the spec.
    pub dir: PathBuf,
    /// What the lock file holds; empty where there is none.
    pub lock: Lock,
    /// Whether the spec is from elsewhere, and what is beside it is not to be written to.
    pub is_elsewhere: bool,
    /// The projects that it imports, once they were brought.
    pub(super) imports: Arc<Vec<ImportedProject>>,
    /// What stands for the local files, of a project that was restored from what is kept beside an image.
    kept: Option<Arc<KeptFiles>>,
    /// The architecture from which the lock's text is seen, where this is the project as seen from another platform.
    home: Option<String>,
    /// For what else its images are, where this is the project as seen from one platform.
    elsewhere: BTreeMap<String, Vec<Platform>>,
}

/// The local files of a restored project.
struct KeptFiles {
    /// Where the files that images take in are, for as long as this lives.
    _dir: tempfile::TempDir,
    /// Where the packages' sources are in the store.
    sources: BTreeMap<PackageName, StorePath>,
}

impl Project {
    /// Finds and reads spec and lock.
    pub fn load(environment: &Environment<'_>) -> Result<Self, ProjectError> {
        let tree = match environment.elsewhere.as_ref().map(|place| &place.form) {
            Some(PlaceForm::Image(carried)) => {
                return Ok(Self {
                    is_elsewhere: true,
                    ..Self::restore(&carried.found, &carried.image, environment)?
                });
            }
            Some(PlaceForm::Tree { tree, .. }) => Some(tree.as_path()),
            None => None,
        };
        Self::load_within(environment.file.as_deref(), &environment.here, tree)
    }

    /// Where the spec is that is meant.
    pub fn spec_path(environment: &Environment<'_>) -> Result<PathBuf, ProjectError> {
        find_spec(environment.file.as_deref(), &environment.here)
    }

    /// As [`load`](Self::load), of the spec that is named or else the nearest one above `here`.
    pub fn load_from(file: Option<&Path>, here: &Path) -> Result<Self, ProjectError> {
        Self::load_within(file, here, None)
    }

    fn load_within(file: Option<&Path>, here: &Path, tree: Option<&Path>) -> Result<Self, ProjectError> {
        let spec_path = find_spec(file, here)?;
        let mut read = |path: &Path| match tree.is_none_or(|tree| spec_place::is_within(path, tree)) {
            true => read_text(path),
            false => Err(io::Error::other("it is not in the tree that the spec comes from")),
        };
        let workspace = spec::load(&spec_path, &mut read).map_err(|diagnostics| diagnostics.shown_from(here))?;
        if let Some(tree) = tree {
            spec_place::check_within(&workspace, tree)?;
        }
        let dir = spec_path.parent().map_or_else(PathBuf::new, Path::to_owned);
        let lock = read_lock(&dir.join(LOCK_NAME), here)?;
        Ok(Self {
            workspace,
            dir,
            lock,
            is_elsewhere: tree.is_some(),
            imports: Arc::default(),
            kept: None,
            home: None,
            elsewhere: BTreeMap::new(),
        })
    }

    /// The project that an image was made of, from what is kept beside it: see [`inputs::restore()`].
    pub fn restore(found: &FoundInputs, image: &str, environment: &Environment<'_>) -> Result<Self, ProjectError> {
        let restored = inputs::restore(found, image, &environment.store()?)?;
        for document in &restored.base {
            base::keep(document, environment)?;
        }
        let spec_path = restored.workspace.files.first().map(|file| file.path.clone());
        Ok(Self {
            dir: spec_path
                .as_deref()
                .and_then(Path::parent)
                .map_or_else(PathBuf::new, Path::to_owned),
            workspace: restored.workspace,
            lock: restored.lock,
            is_elsewhere: false,
            imports: Arc::default(),
            kept: Some(Arc::new(KeptFiles {
                _dir: restored.dir,
                sources: restored.sources,
            })),
            home: None,
            elsewhere: BTreeMap::new(),
        })
    }

    /// The architecture of all that names no platform.
    pub fn home(&self) -> String {
        let home = self.home.clone();
        home.unwrap_or_else(|| spec::home_architecture(&self.workspace, &self.lock))
    }

    /// The Debian architecture that the project is seen from, where it is.
    pub fn seen_from(&self) -> Option<&str> {
        let home = self.home.as_deref()?;
        Some(self.lock.architecture.as_deref().unwrap_or(home))
    }

    /// The project as seen from a platform, by its Debian architecture: its packages and images as if they were for that
    /// alone. One that is seen so already cannot be seen from elsewhere.
    pub fn at(&self, architecture: &str) -> Self {
        self.with_lock_at(&self.lock, architecture, self.home())
    }

    /// As [`at`](Self::at), with another lock.
    fn with_lock_at(&self, lock: &Lock, architecture: &str, home: String) -> Self {
        debug_assert!(self.home.is_none(), "it is seen from one platform already");
        let is_elsewhere = |platform: &Platform| platform.debian_architecture() != Some(architecture);
        let workspace = self.workspace.at(architecture, &home);
        let elsewhere = workspace.images.keys().filter_map(|name| {
            let platforms = self.workspace.images[name].platforms.iter();
            let others = platforms.map(|platform| platform.value.clone()).filter(is_elsewhere);
            let others: Vec<Platform> = others.collect();
            (!others.is_empty()).then(|| (name.clone(), others))
        });
        Self {
            elsewhere: elsewhere.collect(),
            workspace,
            lock: lock.at(architecture, &home),
            dir: self.dir.clone(),
            is_elsewhere: self.is_elsewhere,
            imports: self.imports.clone(),
            kept: self.kept.clone(),
            home: Some(home),
        }
    }

    /// The project as seen from a platform that has these packages: home, if it does.
    pub fn with_packages(&self, packages: &[PackageName]) -> Self {
        let has_all = |seen: &Self| packages.iter().all(|name| seen.package(name).is_some());
        let home = self.at(&self.home());
        match has_all(&home) {
            true => home,
            false => {
                let mut others = self.from_all().into_iter().map(|(_, seen)| seen);
                others.find(has_all).unwrap_or(home)
            }
        }
    }

    /// The images that are for further platforms than the one from which the project is seen, with these.
    pub fn elsewhere(&self) -> &BTreeMap<String, Vec<Platform>> {
        &self.elsewhere
    }

    /// The lock as its file has it, from wherever the project is seen.
    pub fn whole_lock(&self) -> Lock {
        let Some(home) = &self.home else {
            return self.lock.clone();
        };
        let mut lock = self.lock.at(home, home);
        lock.settle(home);
        lock
    }

    /// Whether it was restored from what is kept beside an image: its sources are in the store alone.
    pub(super) fn is_restored(&self) -> bool {
        self.kept.is_some()
    }

    /// Makes the lock current; with `--locked`, says why it is not for `scope`.
    pub fn make_lock_current(
        &mut self,
        scope: LockScope,
        options: &WorkOptions,
        environment: &Environment<'_>,
    ) -> Result<(), ProjectError> {
        let scope = if options.locked { scope } else { LockScope::Whole };
        let reasons = self.lock_reasons(scope, environment)?;
        if !reasons.is_empty() {
            if options.locked {
                return Err(self.stale(reasons, options, environment));
            }
            self.update_lock(&Update::Nothing, options.offline, &options.mirrors, environment)?;
        }
        self.bring_imports(options, environment)
    }

    /// The error of a lock that is not current, for these reasons.
    pub(super) fn stale(
        &self,
        reasons: Vec<String>,
        options: &WorkOptions,
        environment: &Environment<'_>,
    ) -> ProjectError {
        match self.lock == Lock::default() {
            true => ProjectError::Stale {
                missing: true,
                lines: reasons,
            },
            false => ProjectError::Stale {
                missing: false,
                lines: self.told(reasons, &options.mirrors, environment),
            },
        }
    }

    /// Why the lock is not current for `scope`, a line each.
    pub fn lock_reasons(&self, scope: LockScope, environment: &Environment<'_>) -> Result<Vec<String>, ProjectError> {
        let mut reasons = spec::lock_is_current(&self.workspace, &self.lock, scope)
            .err()
            .unwrap_or_default();
        let moved = environment.nix().moved(&self.workspace, &self.lock)?;
        reasons.extend(moved.into_iter().map(|(_, reason)| reason));
        let seen = self.from_all();
        let mut commits = BTreeMap::new();
        for (_, project) in &seen {
            reasons.extend(base::stale(&project.workspace, &project.lock));
            if self.kept.is_none() {
                commits.extend(languages::needs(project, &project.lock)?.commits);
            }
        }
        if self.kept.is_none() {
            reasons.extend(languages::stale(&commits, &self.lock));
        }
        // What files are chosen for is in the lock.
        if reasons.is_empty() {
            for (_, project) in &seen {
                reasons.extend(requirements::stale(project)?);
            }
        }
        Ok(reasons)
    }

    /// The project as seen from each platform that it is for, by architecture.
    pub fn from_all(&self) -> Vec<(String, Self)> {
        let all = spec::architectures(&self.workspace, &self.home());
        all.into_iter()
            .map(|architecture| {
                let seen = self.at(&architecture);
                (architecture, seen)
            })
            .collect()
    }

    /// What is told of a lock that is not current: the reasons, and, where what was fetched before is enough to tell, what
    /// `layerize lock` would say that it changed. No network is used, and nothing is written.
    pub fn told(&self, reasons: Vec<String>, mirrors: &[String], environment: &Environment<'_>) -> Vec<String> {
        let environment = Environment {
            reporter: &Silent,
            ..environment.clone()
        };
        let config = FetchConfig {
            offline: true,
            known_lists: true,
            ..environment.fetch_config(true, mirrors, AptSources::of(&self.workspace))
        };
        let resolved = self.resolved(&Update::Nothing, &config, &environment);
        let changes = resolved.map_or_else(|_| Vec::new(), |lock| spec::lock::changes(&self.lock, &lock));
        let more = changes.len().saturating_sub(CHANGES_TOLD_MAX);
        let changes = changes.iter().take(CHANGES_TOLD_MAX).map(ToString::to_string);
        let more = (more > 0).then(|| format!("… and {more} more changes"));
        reasons.into_iter().chain(changes).chain(more).collect()
    }

    /// Resolves what `update` says and writes the lock where it changed.
    pub fn update_lock(
        &mut self,
        update: &Update,
        offline: bool,
        mirrors: &[String],
        environment: &Environment<'_>,
    ) -> Result<(), ProjectError> {
        let config = environment.fetch_config(offline, mirrors, AptSources::of(&self.workspace));
        let lock = self.resolved(update, &config, environment)?;
        let path = self.lock_path();
        if lock != self.lock || !path.exists() {
            crate::fsio::write_output(&path, spec::lock::print(&lock).as_bytes())?;
        }
        self.lock = lock;
        // Others may be pinned now.
        self.imports = Arc::default();
        Ok(())
    }

    /// The lock in which what `update` says is resolved anew.
    fn resolved(
        &self,
        update: &Update,
        config: &FetchConfig,
        environment: &Environment<'_>,
    ) -> Result<Lock, ProjectError> {
        let reporter = environment.reporter;
        let mut lock = fetch::resolve(&self.workspace, &self.lock, update, config, reporter)?;
        let home = spec::home_architecture(&self.workspace, &lock);
        let all = spec::architectures(&self.workspace, &home);
        let seen_from = |architecture: &str, lock: &Lock| self.with_lock_at(lock, architecture, home.clone());
        if self.kept.is_none() {
            let (mut commits, mut remarks) = (BTreeMap::new(), BTreeSet::new());
            for architecture in &all {
                let project = seen_from(architecture, &lock);
                let needs = languages::needs(&project, &project.lock)?;
                commits.extend(needs.commits);
                remarks.extend(needs.remarks);
            }
            lock.commits = fetch::pin_commits(&commits, &lock.commits, config, reporter)?;
            for text in remarks {
                reporter.report(Event::Warning { text });
            }
        }
        for architecture in &all {
            let project = seen_from(architecture, &lock);
            let mut here = project.lock.clone();
            let update = update.on(architecture);
            requirements::pin(&project, &mut here, update, config, reporter)?;
            base::resolve(&project.workspace, &mut here, update, config.offline, environment)?;
            match *architecture == home {
                true => lock.take_home(here),
                false => lock.take_platform(architecture, here),
            }
        }
        lock.settle(&home);
        self.pin_nix(&mut lock, update, environment)?;
        Ok(lock)
    }

    /// Pins the paths of a Nix store that are not pinned yet, that `update` takes, or whose links lead elsewhere now.
    fn pin_nix(&self, lock: &mut Lock, update: &Update, environment: &Environment<'_>) -> Result<(), ProjectError> {
        let nix = environment.nix();
        let moved: Vec<String> = nix
            .moved(&self.workspace, lock)?
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        for (name, dir) in spec::nix_contents(&self.workspace) {
            if !lock.nix.contains_key(&name) || update.takes(LockEntry::Other(&name)) || moved.contains(&name) {
                let pin = nix.pin(&name, &dir)?;
                lock.nix.insert(name, pin);
            }
        }
        Ok(())
    }

    /// Records numbers of accounts beside those that are recorded, and writes the lock where that changed it.
    pub fn record_accounts(&mut self, accounts: BTreeMap<(String, String), u32>) -> Result<(), ProjectError> {
        let before = self.lock.accounts.clone();
        self.lock.accounts.extend(accounts);
        match self.lock.accounts == before {
            true => Ok(()),
            false => self.write_lock(),
        }
    }

    /// Writes the lock as it is now.
    pub fn write_lock(&self) -> Result<(), ProjectError> {
        Ok(crate::fsio::write_output(
            &self.lock_path(),
            spec::lock::print(&self.whole_lock()).as_bytes(),
        )?)
    }

    /// Where the lock is.
    pub fn lock_path(&self) -> PathBuf {
        self.dir.join(LOCK_NAME)
    }

    /// All steps of the project, whose local sources were [added](Self::add_sources) to the store.
    pub fn plan(&self, store: &Store, sources: &BTreeMap<PackageName, StorePath>) -> Result<BuildPlan, ProjectError> {
        let languages = languages::plan(self, store, sources)?;
        let imported = self.imported_plans(store)?;
        Ok(derive::make_with(
            &self.workspace,
            &self.lock,
            sources,
            &languages,
            &imported,
        )?)
    }

    /// Adds the local sources to the store, and gives where each package's is.
    pub fn add_sources(
        &self,
        store: &Store,
        reporter: &dyn Reporter,
    ) -> Result<BTreeMap<PackageName, StorePath>, ProjectError> {
        if let Some(kept) = &self.kept {
            return Ok(kept.sources_of(&self.workspace));
        }
        let mut sources = BTreeMap::new();
        for (name, package) in &self.workspace.packages {
            if let Some(mut source) = LocalSource::of(package) {
                let exclude = self.exclude(&source);
                source.exclude = &exclude;
                let path = fetch::local::add(store, &source, reporter).map_err(|source| ProjectError::Source {
                    package: name.0.clone(),
                    source: Box::new(source),
                })?;
                sources.insert(name.clone(), path);
            }
        }
        Ok(sources)
    }
}

impl KeptFiles {
    /// Where each package's local source is. What the image does not need was not restored, and is nowhere.
    fn sources_of(&self, workspace: &Workspace) -> BTreeMap<PackageName, StorePath> {
        let packages = workspace.packages.iter();
        let local = packages.filter_map(|(name, package)| Some((name, LocalSource::of(package)?)));
        let paths = local.filter_map(|(name, source)| {
            let kept = self.sources.get(name).cloned();
            let nowhere = || nowhere(&source.tree_name);
            Some((name.clone(), kept.or_else(nowhere)?))
        });
        paths.collect()
    }
}

/// A path that no store has: that of something whose archive is empty.
fn nowhere(name: &str) -> Option<StorePath> {
    content_addressed(&StoreDir::layerize(), name, &Digest::of(b""), &BTreeSet::new(), false).ok()
}

impl Project {
    /// The patterns that a source leaves out. At the project's own directory what layerize itself writes there is
    /// no source, or each build would change the next one's; the source's own patterns can take it back.
    pub(super) fn exclude(&self, source: &LocalSource<'_>) -> Vec<String> {
        let mut patterns = Vec::new();
        let root = source.dir.join(source.path);
        if root.canonicalize().ok() == self.dir.canonicalize().ok() {
            patterns.extend([format!("/{SPEC_NAME}"), format!("/{LOCK_NAME}"), format!("/{OWN_DIR}")]);
            patterns.extend(
                self.workspace
                    .images
                    .keys()
                    .map(|name| format!("/{}", archive_name(name))),
            );
        }
        patterns.extend_from_slice(source.exclude);
        patterns
    }
}

/// The spec that the user named, or the nearest.
pub(super) fn find_spec(file: Option<&Path>, here: &Path) -> Result<PathBuf, ProjectError> {
    let named = file.map(|file| here.join(file));
    match named {
        Some(dir) if dir.is_dir() => Ok(clean(dir.join(SPEC_NAME))),
        Some(file) => Ok(clean(file)),
        None => {
            let candidates = here.ancestors().map(|dir| dir.join(SPEC_NAME));
            candidates
                .into_iter()
                .find(|path| path.is_file())
                .ok_or(ProjectError::NoSpec)
        }
    }
}

/// An absolute path without `.` in it: one project has one directory, however it is named.
fn clean(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

fn read_text(path: &Path) -> io::Result<String> {
    let bytes = crate::fsio::read_limited(path, TEXT_BYTES_MAX).map_err(|error| error.source)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn read_lock(path: &Path, here: &Path) -> Result<Lock, ProjectError> {
    match read_text(path) {
        Ok(text) => Ok(spec::lock::parse(&text).map_err(|mut diagnostics: Diagnostics| {
            for file in &mut diagnostics.files {
                file.path = path.to_owned();
            }
            diagnostics.shown_from(here)
        })?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Lock::default()),
        Err(error) => Err(error).context("read", path.strip_prefix(here).unwrap_or(path))?,
    }
}
