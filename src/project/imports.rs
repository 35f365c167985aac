//! *Imports* of projects elsewhere: fetched as their importer's lock pins them, and planned by their own locks.
//!
//! Invariant: a package of an imported project has the build key that it has in its own; nothing there is written to.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::build;
use crate::derive::{self, ImportedPlan};
use crate::event::Silent;
use crate::fsio::IoContext as _;
use crate::spec::{self, Lock, LockScope, Package, PackageName, Workspace};
use crate::store::{RootOwner, Store};

use super::environment::{Environment, WorkOptions};
use super::error::ProjectError;
use super::files::Project;
use super::spec_place::{FetchedPlace, PlaceForm, spec_in};

/// Most imports of imports, one after the other.
const DEPTH_MAX: usize = 32;

/// A project that another imports.
pub(super) struct ImportedProject {
    /// Its qualified alias in the other's spec.
    alias: String,
    /// The project.
    project: Project,
}

/// Why a project elsewhere cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Its lock is missing or not its spec's.
    #[error("the lock of the import `{alias}` is {}:\n  {}", if *missing { "missing" } else { "not current" }, lines.join("\n  "))]
    Stale {
        /// The import.
        alias: String,
        /// Whether there is none.
        missing: bool,
        /// Why, a line each.
        lines: Vec<String>,
    },
    /// It is for another platform.
    #[error("the lock of the import `{alias}` is for {}, and {wanted} is wanted of it", known.join(", "))]
    Architecture {
        /// The import.
        alias: String,
        /// Debian's name of what is wanted.
        wanted: String,
        /// Debian's names of what it is for.
        known: Vec<String>,
    },
    /// It cannot be read, planned or fetched.
    #[error("cannot import `{alias}`")]
    Unusable {
        /// The import.
        alias: String,
        /// Why.
        source: Box<ProjectError>,
    },
    /// Imports have imports that have imports, and so on.
    #[error("more than {DEPTH_MAX} imports follow one after the other, the last of them `{alias}`")]
    Deep {
        /// The last.
        alias: String,
    },
}

impl ImportError {
    /// What to type next.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Stale { alias, .. } => format!(
                "whoever keeps it runs `layerize lock` there and commits the file; `layerize update {alias}` then takes it"
            ),
            Self::Architecture { wanted, .. } => {
                format!("whoever keeps it adds an image with a `platform` for {wanted}, and runs `layerize lock` there")
            }
            Self::Unusable { source, .. } => return source.help(),
            Self::Deep { .. } => "import what is needed of them directly".to_owned(),
        })
    }

    fn unusable(alias: &str, source: ProjectError) -> ProjectError {
        Self::Unusable {
            alias: alias.to_owned(),
            source: Box::new(source),
        }
        .into()
    }
}

impl Project {
    /// Fetches the projects that it imports, unless that was done; the lock must be current.
    pub fn bring_imports(&mut self, options: &WorkOptions, environment: &Environment<'_>) -> Result<(), ProjectError> {
        self.bring(options, environment, 0)
    }

    fn bring(
        &mut self,
        options: &WorkOptions,
        environment: &Environment<'_>,
        depth: usize,
    ) -> Result<(), ProjectError> {
        if self.imports.len() == self.workspace.imports.len() {
            return Ok(());
        }
        let mut imports = Vec::new();
        for alias in self.workspace.imports.keys() {
            if depth >= DEPTH_MAX {
                let alias = alias.clone();
                return Err(ImportError::Deep { alias }.into());
            }
            let project = match self.import(alias, options, environment, depth) {
                Ok(project) => project,
                Err(error @ ProjectError::Import(_)) => return Err(error),
                Err(error) => return Err(ImportError::unusable(alias, error)),
            };
            spec::check_imported(&self.workspace, alias, &project.names())
                .map_err(|unknown| unknown.shown_from(&environment.here))?;
            imports.push(ImportedProject {
                alias: alias.clone(),
                project,
            });
        }
        self.imports = Arc::new(imports);
        Ok(())
    }

    fn import(
        &self,
        alias: &str,
        options: &WorkOptions,
        environment: &Environment<'_>,
        depth: usize,
    ) -> Result<Self, ProjectError> {
        let store = environment.store()?;
        let name = PackageName(alias.to_owned());
        let alone = self.workspace.only(&BTreeSet::from([name.clone()]), &BTreeSet::new());
        let plan = derive::make(&alone, &self.lock, &Default::default(), &Default::default())?;
        let input = plan.packages[&name].clone();
        let build_options = environment.build_options(options, Some(self))?;
        let inputs = std::slice::from_ref(&input);
        let paths = build::realise(&store, &plan, inputs, &build_options, environment.reporter)?;
        let path = &paths[&input];
        if !store.is_read_only() {
            let owner = RootOwner {
                folder: self.dir.clone(),
                kind: "import".to_owned(),
                target: alias.to_owned(),
            };
            store.keep(&owner, &BTreeSet::from([path.clone()]))?;
        }
        let tree = store.physical(path);
        let tree = tree.canonicalize().context("resolve", &tree)?;
        let place = format!("the import {alias}");
        let spec = spec_in(&tree, &self.workspace.imports[alias].dir, &place)?;
        let form = PlaceForm::Tree { tree, spec };
        let environment = environment.clone().with_place(FetchedPlace { place, form });
        let mut project = Self::load(&environment)?;
        let lines = project.lock_reasons(LockScope::Builds, &environment)?;
        if !lines.is_empty() {
            return Err(ImportError::Stale {
                alias: alias.to_owned(),
                missing: project.lock == Lock::default(),
                lines,
            }
            .into());
        }
        project.bring(options, &environment, depth + 1)?;
        Ok(project)
    }

    /// The packages that it has by name: its own, those of the specs beside it, and those that it imports.
    pub(super) fn names(&self) -> BTreeSet<String> {
        let own = self.workspace.packages.keys().map(|name| name.0.clone());
        let own = own.filter(|name| !self.workspace.imports.contains_key(name));
        let imported = self.imports.iter().flat_map(|import| {
            let names = import.project.names().into_iter();
            names.map(|name| format!("{}:{name}", import.alias))
        });
        own.chain(imported).collect()
    }

    /// The imported project that has a package, and its name there.
    pub(super) fn owner_of(&self, name: &PackageName) -> Option<(&Self, PackageName)> {
        let (alias, rest) = self.workspace.imported(name)?;
        let import = self.imports.iter().find(|import| import.alias == alias)?;
        Some((&import.project, PackageName(rest.to_owned())))
    }

    /// A package of its own, or of a project that it imports.
    pub fn package(&self, name: &PackageName) -> Option<&Package> {
        match self.owner_of(name) {
            Some((project, name)) => project.package(&name),
            None => {
                let is_tree = self.workspace.imports.contains_key(&name.0);
                self.workspace.packages.get(name).filter(|_| !is_tree)
            }
        }
    }

    /// The plans of the projects that it imports, as they are seen from where it is seen.
    pub(super) fn imported_plans(&self, store: &Store) -> Result<Vec<ImportedPlan>, ProjectError> {
        let plan = |import: &ImportedProject| {
            let seen = self.seen(import)?;
            let unusable = |error| ImportError::unusable(&import.alias, error);
            let sources = seen.add_sources(store, &Silent).map_err(unusable)?;
            Ok(ImportedPlan {
                alias: import.alias.clone(),
                plan: seen.plan(store, &sources).map_err(unusable)?,
            })
        };
        // One that nothing needs from here is not seen.
        let is_needed = |import: &&ImportedProject| self.workspace.imports.contains_key(&import.alias);
        self.imports.iter().filter(is_needed).map(plan).collect()
    }

    /// An imported project as it is seen from where this one is seen.
    fn seen(&self, import: &ImportedProject) -> Result<Self, ProjectError> {
        let project = &import.project;
        let home = project.home();
        let wanted = self.seen_from().map_or_else(|| self.home(), str::to_owned);
        let known = spec::architectures(&project.workspace, &home);
        match known.contains(&wanted) {
            true => Ok(project.at(&wanted)),
            // What has no packages of Debian's is for no machine in particular.
            false if project.lock.architecture.is_none() => Ok(project.at(&home)),
            false => Err(ImportError::Architecture {
                alias: import.alias.clone(),
                wanted,
                known: known.into_iter().collect(),
            }
            .into()),
        }
    }

    /// Spec and lock of it and of all that it imports.
    pub(super) fn all_specs(&self) -> Vec<(&Workspace, &Lock)> {
        let imported = self.imports.iter().flat_map(|import| import.project.all_specs());
        std::iter::once((&self.workspace, &self.lock)).chain(imported).collect()
    }
}
