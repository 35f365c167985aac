//! What a project takes from a *Nix store*: paths that arguments name, and paths that the spec's `contents` pin in the
//! lock.
//!
//! Invariant: the store is opened when something in it is first asked for, and never written to; what the lock pins is
//! compared with what is there before it is used.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::closure::{self, Closure};
use crate::event::{Event, Reporter};
use crate::image::ImageError;
use crate::layer::LayerError;
use crate::spec::{self, Lock, LockedNix, Workspace};
use crate::store::nix_store::{Linked, NixStore};
use crate::store::{ReadStore, Store, StoreError};
use crate::store_path::{StoreDir, StorePath};

use super::error::ProjectError;

/// Files that are named where a store path is not what Nix registered.
const SUSPECTS_MAX: usize = 5;

/// A Nix store that is opened when it is needed.
pub struct LazyNix {
    root: PathBuf,
    graph: Option<PathBuf>,
    /// layerize's store, which may have paths from binary caches.
    own: PathBuf,
    store: OnceCell<NixStore>,
}

impl LazyNix {
    /// The store below `root`, told of by `graph` where one is given, and what was fetched into layerize's store in `own`.
    pub fn new(root: PathBuf, graph: Option<PathBuf>, own: PathBuf) -> Self {
        Self {
            root,
            graph,
            own,
            store: OnceCell::new(),
        }
    }

    /// Opens it, or gives it where it is open.
    pub fn get(&self) -> Result<&NixStore, ProjectError> {
        if self.store.get().is_none() {
            let store = match (self.has_fetched(), self.on_machine()) {
                (true, false) => NixStore::of_fetched(&self.own, Store::open_nix(&self.own)?),
                (true, true) => {
                    NixStore::open(&self.root, self.graph.as_deref())?.and_fetched(Store::open_nix(&self.own)?)
                }
                (false, _) => NixStore::open(&self.root, self.graph.as_deref())?,
            };
            // Nobody else can have set it: a cell is of one thread.
            let _ = self.store.set(store);
        }
        Ok(self.store.get().expect("it was just set"))
    }

    /// Whether there is such a store at all.
    pub fn exists(&self) -> bool {
        self.on_machine() || self.has_fetched()
    }

    fn on_machine(&self) -> bool {
        self.root.join("nix/store").is_dir()
    }

    fn has_fetched(&self) -> bool {
        self.own.join("nix/db").is_dir()
    }

    /// Says so where there is nothing that paths could be compared with.
    pub fn note_missing_records(&self, reporter: &dyn Reporter) {
        if let Some(store) = self.store.get().filter(|store| !store.has_records()) {
            let text = format!(
                "the Nix store of `{}` has no database: its paths are taken as they are on disk now",
                store.root().display()
            );
            reporter.report(Event::Note { text });
        }
    }

    /// The store path that an argument names: `/nix/store/HASH-NAME`, or with a `/` in it (or anyhow, where `bare`) a
    /// link or profile that leads to one; `None` where the argument means something else.
    pub fn argument(&self, text: &str, bare: bool) -> Result<Option<StorePath>, ProjectError> {
        let path = Path::new(text);
        if text.starts_with(&format!("{}/", StoreDir::NIX)) {
            return self.whole(text, self.get()?.resolve(path)?).map(Some);
        }
        let may_lead = (bare || text.contains('/')) && path.symlink_metadata().is_ok() && self.exists();
        match may_lead.then(|| self.get()).transpose()? {
            Some(store) => match store.leads_to(path)? {
                Some(linked) => self.whole(text, linked).map(Some),
                None => Ok(None),
            },
            None => Ok(None),
        }
    }

    /// A path that must be a store path and nothing in one.
    fn whole(&self, text: &str, Linked { path, below }: Linked) -> Result<StorePath, ProjectError> {
        if !below.is_empty() {
            let argument = text.to_owned();
            return Err(ProjectError::InsideNixPath { argument, path });
        }
        self.valid(&path, text)?;
        Ok(path)
    }

    fn valid(&self, path: &StorePath, named_by: &str) -> Result<(), ProjectError> {
        let store = self.get()?;
        if store.info(path)?.is_some() {
            return Ok(());
        }
        Err(ProjectError::NixInvalid {
            path: path.clone(),
            named_by: named_by.to_owned(),
            root: store.root().to_owned(),
            knowledge: store.source(),
        })
    }

    /// The closure of paths of the store.
    pub fn closure(&self, roots: &BTreeSet<StorePath>) -> Result<Closure, ProjectError> {
        let store = self.get()?;
        store.note_use(roots)?;
        closure::compute(store, roots).map_err(|error| match error {
            StoreError::NotValid { path, needed_by } => ProjectError::NixIncomplete {
                path,
                needed_by,
                knowledge: store.source(),
                from_graph: self.graph.is_some(),
            },
            other => other.into(),
        })
    }

    /// What the lock says of `{ nix = "NAME" }` of a spec in `dir`.
    pub fn pin(&self, name: &str, dir: &Path) -> Result<LockedNix, ProjectError> {
        let store = self.get()?;
        let path = self.whole(name, store.resolve(&dir.join(name))?)?;
        let closure = self.closure(&BTreeSet::from([path.clone()]))?;
        let nar_hash = closure.get(&path).map(|info| info.nar_hash);
        Ok(LockedNix {
            path: StoreDir::nix().logical(&path),
            nar_hash: nar_hash.expect("a closure holds its root"),
            closure: NixStore::closure_digest(&closure.members),
        })
    }

    /// Links of the spec that lead elsewhere now than the lock says, a sentence each, by name. A link that is gone, on
    /// a machine where nothing was built, is no change.
    pub fn moved(&self, workspace: &Workspace, lock: &Lock) -> Result<Vec<(String, String)>, ProjectError> {
        let mut moved = Vec::new();
        for (name, dir) in spec::nix_contents(workspace) {
            let link = dir.join(&name);
            let Some(locked) = lock.nix.get(&name).filter(|_| link.symlink_metadata().is_ok()) else {
                continue;
            };
            let now = self.exists().then(|| self.get()).transpose()?;
            let now = now.map(|store| store.leads_to(&link)).transpose()?.flatten();
            if let Some(now) = now.map(|linked| StoreDir::nix().logical(&linked.path))
                && now != locked.path
            {
                let reason = format!("`{name}` leads to `{now}` now, and not to `{}`", locked.path);
                moved.push((name, reason));
            }
        }
        Ok(moved)
    }

    /// The store path that the lock pins, found to be what it was when it was pinned.
    pub fn locked(&self, name: &str, lock: &Lock) -> Result<StorePath, ProjectError> {
        let Some(locked) = lock.nix.get(name) else {
            return Err(ProjectError::NixUnpinned { name: name.to_owned() });
        };
        let path = locked.path.store_path().clone();
        self.valid(&path, name)?;
        let closure = self.closure(&BTreeSet::from([path.clone()]))?;
        let nar_hash = closure.get(&path).map(|info| info.nar_hash);
        let differs = if nar_hash != Some(locked.nar_hash) {
            format!("the content of `{}`", locked.path)
        } else if NixStore::closure_digest(&closure.members) != locked.closure {
            format!("something in the closure of `{}`", locked.path)
        } else {
            return Ok(path);
        };
        Err(ProjectError::NixRepinned {
            name: name.to_owned(),
            what: differs,
        })
    }

    /// Adds to an error of a store path with other content than Nix registered which of its files show that.
    pub fn explained(&self, error: ProjectError) -> ProjectError {
        let changed = match &error {
            ProjectError::Image(source) => Some(source),
            ProjectError::Making { source, .. } => Some(source.as_ref()),
            _ => None,
        };
        let changed = changed.and_then(|source| match source {
            ImageError::Layer(LayerError::Changed { path, .. }) => path.in_store(StoreDir::NIX).cloned(),
            _ => None,
        });
        let (Some(path), Ok(store)) = (changed, self.get()) else {
            return error;
        };
        let files = match store.suspects(&path, SUSPECTS_MAX) {
            Ok(suspects) if !suspects.is_empty() => format!(
                "Nix leaves every file with the time 1 and read-only, but not so in it are: {}",
                suspects.join(", ")
            ),
            _ => "which file differs cannot be told: all have the time 1 and are read-only, as Nix leaves them"
                .to_owned(),
        };
        let source = Box::new(error);
        ProjectError::NixChanged { path, files, source }
    }
}
