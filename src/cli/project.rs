//! A *project* is the nearest `layerize.toml` with what it imports and its lock.
//!
//! Invariant: the lock that is used is current for the spec; with `--locked` a stale one is an error.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::derive::{self, BuildPlan};
use crate::fetch::local::LocalSource;
use crate::fetch::{self, AptSources, Entry, Update};
use crate::spec::{self, Diagnostics, Lock, PackageName, Workspace};
use crate::store::Store;
use crate::store_path::StorePath;

use super::bases;
use super::build::BuildFlags;
use super::context::{Context, shown};
use super::error::advised;
use super::sinks;

/// The spec's file name.
pub const SPEC_NAME: &str = "layerize.toml";

/// The lock's file name, beside the spec.
pub const LOCK_NAME: &str = "layerize.lock";

/// Largest spec or lock that is read, in bytes.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// A loaded spec and its lock.
pub struct Project {
    /// Packages and images, checked.
    pub workspace: Workspace,
    /// The directory of the spec.
    pub dir: PathBuf,
    /// What the lock file holds; empty where there is none.
    pub lock: Lock,
}

impl Project {
    /// Finds and reads spec and lock.
    pub fn load(context: &Context) -> anyhow::Result<Self> {
        let spec_path = find_spec(context.file.as_deref())?;
        let workspace = spec::load(&spec_path, &mut read_text).map_err(shown_from_here)?;
        let dir = spec_path.parent().map_or_else(PathBuf::new, Path::to_owned);
        let lock = read_lock(&dir.join(LOCK_NAME))?;
        Ok(Self { workspace, dir, lock })
    }

    /// Makes the lock current; with `--locked`, says why it is not.
    pub fn make_lock_current(&mut self, flags: &BuildFlags, context: &Context) -> anyhow::Result<()> {
        let reasons = self.lock_reasons(context)?;
        if reasons.is_empty() {
            return Ok(());
        }
        if flags.locked {
            let what = if self.lock == Lock::default() {
                "missing"
            } else {
                "stale"
            };
            return Err(advised(
                format!("{LOCK_NAME} is {what}: {}", reasons.join("; ")),
                "run `layerize lock` and commit the file, or leave out `--locked`",
            ));
        }
        self.update_lock(&Update::Nothing, flags.offline, &flags.mirror, context)
    }

    /// Why the lock is not current, a line each.
    pub fn lock_reasons(&self, context: &Context) -> anyhow::Result<Vec<String>> {
        let mut reasons = spec::lock_is_current(&self.workspace, &self.lock)
            .err()
            .unwrap_or_default();
        let moved = context.nix().moved(&self.workspace, &self.lock)?;
        reasons.extend(moved.into_iter().map(|(_, reason)| reason));
        reasons.extend(bases::stale(&self.workspace, &self.lock));
        Ok(reasons)
    }

    /// Resolves what `update` says and writes the lock where it changed.
    pub fn update_lock(
        &mut self,
        update: &Update,
        offline: bool,
        mirrors: &[String],
        context: &Context,
    ) -> anyhow::Result<()> {
        let mut lock = fetch::resolve(
            &self.workspace,
            &self.lock,
            update,
            &context.fetch_config(offline, mirrors, AptSources::of(&self.workspace)),
            context.ui,
        )?;
        self.pin_nix(&mut lock, update, context)?;
        bases::resolve(&self.workspace, &mut lock, update, offline, context)?;
        let path = self.lock_path();
        if lock != self.lock || !path.exists() {
            crate::fsio::write_atomic(&path, spec::lock::print(&lock).as_bytes())?;
        }
        self.lock = lock;
        Ok(())
    }

    /// Pins the paths of a Nix store that are not pinned yet, that `update` takes, or whose links lead elsewhere now.
    fn pin_nix(&self, lock: &mut Lock, update: &Update, context: &Context) -> anyhow::Result<()> {
        let nix = context.nix();
        let moved: Vec<String> = nix
            .moved(&self.workspace, lock)?
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        for (name, dir) in spec::nix_contents(&self.workspace) {
            if !lock.nix.contains_key(&name) || update.takes(Entry::Other(&name)) || moved.contains(&name) {
                let pin = nix.pin(&name, &dir)?;
                lock.nix.insert(name, pin);
            }
        }
        Ok(())
    }

    /// Writes the lock as it is now.
    pub fn write_lock(&self) -> anyhow::Result<()> {
        Ok(crate::fsio::write_atomic(
            &self.lock_path(),
            spec::lock::print(&self.lock).as_bytes(),
        )?)
    }

    /// Where the lock is.
    pub fn lock_path(&self) -> PathBuf {
        self.dir.join(LOCK_NAME)
    }

    /// All steps of the project; local sources are added to the store on the way.
    pub fn plan(&self, store: &Store) -> anyhow::Result<BuildPlan> {
        Ok(derive::make(&self.workspace, &self.lock, &self.add_sources(store)?)?)
    }

    /// Adds the local sources to the store, and gives where each package's is.
    pub fn add_sources(&self, store: &Store) -> anyhow::Result<BTreeMap<PackageName, StorePath>> {
        let mut sources = BTreeMap::new();
        for (name, package) in &self.workspace.packages {
            if let Some(mut source) = LocalSource::of(package) {
                let exclude = self.exclude(&source);
                source.exclude = &exclude;
                let path = fetch::local::add(store, &source)
                    .with_context(|| format!("cannot take in the source of package `{name}`"))?;
                sources.insert(name.clone(), path);
            }
        }
        Ok(sources)
    }
}

impl Project {
    /// The patterns that a source leaves out. At the project's own directory what layerize itself writes there is
    /// no source, or each build would change the next one's; the source's own patterns can take it back.
    fn exclude(&self, source: &LocalSource<'_>) -> Vec<String> {
        let mut patterns = Vec::new();
        let root = source.dir.join(source.path);
        if root.canonicalize().ok() == self.dir.canonicalize().ok() {
            patterns.extend([format!("/{SPEC_NAME}"), format!("/{LOCK_NAME}")]);
            patterns.extend(
                self.workspace
                    .images
                    .keys()
                    .map(|name| format!("/{}", sinks::archive_name(name))),
            );
        }
        patterns.extend_from_slice(source.exclude);
        patterns
    }
}

/// The spec that is given, or the nearest.
pub fn find_spec(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = match given {
        Some(dir) if dir.is_dir() => dir.join(SPEC_NAME),
        Some(file) => file.to_owned(),
        None => match nearest_spec()? {
            Some(path) => return Ok(path),
            None => {
                return Err(advised(
                    format!("there is no {SPEC_NAME} here or in any directory above"),
                    format!("write one (README, \"The spec by example\"), or name it with `--file PATH/{SPEC_NAME}`"),
                ));
            }
        },
    };
    std::path::absolute(&path).with_context(|| format!("cannot make `{}` absolute", path.display()))
}

/// The spec in the current directory or the closest one above it.
fn nearest_spec() -> anyhow::Result<Option<PathBuf>> {
    let here = std::env::current_dir().context("cannot tell the current directory")?;
    Ok(here
        .ancestors()
        .map(|dir| dir.join(SPEC_NAME))
        .find(|path| path.is_file()))
}

fn shown_from_here(diagnostics: Diagnostics) -> Diagnostics {
    match std::env::current_dir() {
        Ok(here) => diagnostics.shown_from(&here),
        Err(_) => diagnostics,
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let bytes = crate::fsio::read_limited(path, TEXT_BYTES_MAX).map_err(|error| error.source)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn read_lock(path: &Path) -> anyhow::Result<Lock> {
    match read_text(path) {
        Ok(text) => spec::lock::parse(&text).map_err(|mut diagnostics| {
            for file in &mut diagnostics.files {
                file.path = shown(path);
            }
            diagnostics.into()
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Lock::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read `{}`", shown(path).display())),
    }
}
