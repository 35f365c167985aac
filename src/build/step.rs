//! One *step* of a plan carried out: what it needs, what hash its resolved derivation has, how its output is made.
//!
//! Invariant: whoever makes an output holds the lock of its derivation and has looked, under that lock, whether
//! somebody else has made it meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::configuring::ConfigureStep;
use super::debug;
use super::part;
use super::script::ScriptStep;
use super::tools::warn_of_tools;
use super::{BuildError, BuildOptions};
use crate::derive::{self, Action, BuildPlan, DebugInfo, Derivation, Download, Input, Origin, Part, Script, StepId};
use crate::digest::{Digest, HashingWriter};
use crate::event::{Event, Reporter};
use crate::execution::Execution;
use crate::fetch;
use crate::fsio::IoContext;
use crate::store::{NewOutput, ReferencePolicy, Rewritten, Store};
use crate::store_path::{StoreDir, StorePath, placeholder};
use crate::walls::Walls;

/// What the tools of debug images refer to besides themselves.
static NO_CANDIDATES: BTreeSet<StorePath> = BTreeSet::new();

/// A derivation whose inputs are store paths.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    /// Its canonical JSON.
    pub json: String,
    /// Hash of that.
    pub digest: Digest,
}

impl Resolved {
    /// Resolves a derivation; `path_of` knows every one of its inputs.
    pub(super) fn new(derivation: &Derivation, path_of: &dyn Fn(&Input) -> StorePath) -> Self {
        let json = derive::resolved_json(derivation, path_of);
        let digest = Digest::of(json.as_bytes());
        Self { json, digest }
    }
}

/// A step whose inputs are all valid and whose downloads are all there.
pub(super) struct Step<'a> {
    pub store: &'a Store,
    pub plan: &'a BuildPlan,
    pub options: &'a BuildOptions,
    pub reporter: &'a dyn Reporter,
    pub id: StepId,
    pub plan_key: Digest,
    pub resolved: Resolved,
    /// The store path of every input.
    pub paths: BTreeMap<Input, StorePath>,
    /// The verified file of each download, in order.
    pub files: Vec<PathBuf>,
}

impl Step<'_> {
    /// Makes the output, unless somebody else has; gives its path.
    pub(super) fn realise(&self) -> Result<StorePath, BuildError> {
        let digest = &self.resolved.digest;
        let _lock = self.store.lock_build(digest)?;
        let label = &self.derivation().label;
        if let Some(path) = self.store.realisation(digest)? {
            self.store.record_planned(&self.plan_key, &path)?;
            self.report_reused(&path);
            self.warn_of_tools(&path)?;
            return Ok(path);
        }
        let path = self.make().map_err(|error| match error {
            // These name the step themselves.
            BuildError::Script(_)
            | BuildError::RefusedReference(_)
            | BuildError::Sandbox { .. }
            | BuildError::Remote { .. }
            | BuildError::Peer { .. }
            | BuildError::NoWalls { .. }
            | BuildError::TooWeak { .. }
            | BuildError::Foreign(_)
            | BuildError::NoShell { .. }
            | BuildError::Cancelled => error,
            error => BuildError::Step {
                label: label.clone(),
                source: Box::new(error),
            },
        })?;
        self.store.record_realisation(digest, &self.resolved.json, &path)?;
        self.store.record_planned(&self.plan_key, &path)?;
        self.warn_of_unscanned(&path)?;
        self.warn_of_tools(&path)?;
        let (name, logical) = (label.clone(), StoreDir::layerize().join(&path));
        self.reporter.report(match self.derivation().is_built() {
            true => Event::BuildFinished { name, path: logical },
            false => Event::Unpacked { name, path: logical },
        });
        Ok(path)
    }

    fn derivation(&self) -> &Derivation {
        &self.plan.steps[self.id]
    }

    fn report_reused(&self, path: &StorePath) {
        self.reporter.report(Event::Reused {
            name: self.derivation().label.clone(),
            path: StoreDir::layerize().join(path),
        });
    }

    /// What could not be searched may hide a reference, without which the output would not run.
    fn warn_of_unscanned(&self, path: &StorePath) -> Result<(), BuildError> {
        let details = self.store.info_full(path)?;
        for file in details.map(|details| details.unscanned).unwrap_or_default() {
            let label = &self.derivation().label;
            let text =
                format!("`{file}` of `{label}` is nested too deeply or is too large to be searched for references");
            self.reporter.report(Event::Warning { text });
        }
        Ok(())
    }

    fn warn_of_tools(&self, path: &StorePath) -> Result<(), BuildError> {
        let path_of = |input: &Input| self.paths.get(input);
        warn_of_tools(self.store, self.derivation(), path, path_of, self.reporter)
    }

    fn make(&self) -> Result<StorePath, BuildError> {
        for path in self.paths.values() {
            if self.store.info(path)?.is_none() {
                return Err(BuildError::MissingPath { path: path.clone() });
            }
        }
        let derivation = self.derivation();
        match (&derivation.action, self.files.as_slice()) {
            (Action::Fetch(download), [file]) => self.keep_file(download, file),
            (Action::Restore(archive), [file]) => {
                // As a fetched file's, its path says what it is, whoever made it.
                self.take_in(None, |dest| fetch::restore_archive(file, &archive.name, dest))
            }
            (
                Action::Unpack {
                    archive,
                    strip,
                    or_keep,
                },
                [file],
            ) => self.unpack_archive(archive, file, *strip, *or_keep),
            (Action::UnpackGitCrates { archive, crates }, [file]) => {
                self.unpack(|dest| fetch::unpack_git_crates(file, &archive.name, crates, dest))
            }
            (Action::UnpackCrate { archive }, [file]) => self.unpack_crate(archive, file),
            (Action::UnpackNpm { archive, at, .. }, [file]) => self.unpack_npm(archive, file, at.as_deref()),
            (Action::UnpackDeb { package, .. }, [file]) => self.unpack(|dest| fetch::unpack_deb(file, package, dest)),
            (Action::UnpackDebControl { package, .. }, [file]) => {
                self.unpack(|dest| fetch::unpack_deb_control(file, package, dest))
            }
            (Action::UnpackDebSource { files, .. }, paths) => {
                let names = files.iter().map(|file| file.name.clone());
                let named: Vec<(String, PathBuf)> = names.zip(paths.iter().cloned()).collect();
                self.unpack(|dest| {
                    fetch::unpack_deb_source(&named, dest)?.report(&derivation.label, self.reporter);
                    Ok(())
                })
            }
            (Action::UnpackGoModule { zip, module, version }, [file]) => {
                self.unpack(|dest| fetch::unpack_go_module(file, &zip.name, module, version, dest))
            }
            (Action::UnpackEmulator { debs, programs }, files) => self.unpack_emulator(debs, programs, files),
            (Action::DebPart { tree, part, .. }, _) => self.take_part(tree, part),
            (Action::DebugTools { packages }, _) => self.link_tools(packages),
            (Action::DebugInfo(info), _) => self.find_debug_info(info),
            (Action::Script(script), _) => self.run_script(script),
            (Action::Configure(configure), _) => ConfigureStep {
                store: self.store,
                options: self.options,
                reporter: self.reporter,
                derivation,
                configure,
                digest: self.resolved.digest,
                paths: &self.paths,
                variations: &BTreeSet::new(),
            }
            .run(),
            (
                Action::Fetch(_)
                | Action::Restore(_)
                | Action::Unpack { .. }
                | Action::UnpackCrate { .. }
                | Action::UnpackGitCrates { .. }
                | Action::UnpackNpm { .. }
                | Action::UnpackDeb { .. }
                | Action::UnpackDebControl { .. }
                | Action::UnpackGoModule { .. },
                _,
            ) => {
                unreachable!("a step is started when each of its downloads has its file")
            }
        }
    }

    fn unpack_crate(&self, archive: &Download, file: &Path) -> Result<StorePath, BuildError> {
        self.unpack(|dest| {
            fetch::unpack_crate(file, archive, dest)?.report(&archive.name, self.reporter);
            Ok(())
        })
    }

    fn unpack_emulator(
        &self,
        debs: &[(String, Download)],
        programs: &[String],
        files: &[PathBuf],
    ) -> Result<StorePath, BuildError> {
        let names = debs.iter().map(|(name, _)| name.clone());
        let named: Vec<(String, PathBuf)> = names.zip(files.iter().cloned()).collect();
        self.unpack(|dest| fetch::unpack_emulator(&named, programs, dest))
    }

    fn unpack_npm(&self, archive: &Download, file: &Path, at: Option<&str>) -> Result<StorePath, BuildError> {
        if matches!(archive.origin, Origin::Git { .. }) {
            return self.unpack(|dest| fetch::unpack_npm_repository(file, &archive.name, at, dest));
        }
        self.unpack(|dest| {
            fetch::unpack_npm(file, &archive.name, at, dest)?.report(&archive.name, self.reporter);
            Ok(())
        })
    }

    fn run_script(&self, script: &Script) -> Result<StorePath, BuildError> {
        let walls = self.options.choose_walls(self.store, self.reporter)?;
        let step = ScriptStep {
            store: self.store,
            options: self.options,
            reporter: self.reporter,
            derivation: self.derivation(),
            script,
            walls,
            execution: (self.options).execution_of(self.derivation(), walls, self.store, self.reporter)?,
            digest: self.resolved.digest,
            paths: &self.paths,
            variations: &BTreeSet::new(),
        };
        step.run()
    }

    /// Brings a file from outside into the store. It was verified by the hash that it is known by; its SHA-256 names it.
    fn keep_file(&self, download: &Download, file: &Path) -> Result<StorePath, BuildError> {
        let digest = download.hash.sha256().map_or_else(|| file_digest(file), Ok)?;
        let name = &self.derivation().name;
        Ok(self.store.add_file_flat(name, file, &digest)?.path)
    }

    /// Brings what is in an archive into the store.
    fn unpack_archive(
        &self,
        archive: &Download,
        file: &Path,
        strip: Option<u32>,
        or_keep: bool,
    ) -> Result<StorePath, BuildError> {
        let unpack = match or_keep {
            true => fetch::unpack_or_keep,
            false => fetch::unpack_archive,
        };
        self.unpack(|dest| {
            unpack(file, &archive.name, strip, dest)?.report(&archive.name, self.reporter);
            Ok(())
        })
    }

    /// Brings a few files of the package that an input is into the store.
    fn take_part(&self, tree: &Input, part: &Part) -> Result<StorePath, BuildError> {
        let staging = self.store.stage()?;
        let dest = staging.path().join("tree");
        part::make(&self.store.physical(&self.paths[tree]), part, &dest)?;
        let name = &self.derivation().name;
        let info = self.store.add_leaf(name, &dest, Some(self.resolved.digest))?;
        Ok(info.path)
    }

    /// Brings the tools of debug images into the store, linked to each other.
    fn link_tools(&self, packages: &[(String, Input)]) -> Result<StorePath, BuildError> {
        let (dir, name) = (StoreDir::layerize(), &self.derivation().name);
        let trees = packages.iter().map(|(name, tree)| (name.clone(), self.physical(tree)));
        let trees: Vec<(String, PathBuf)> = trees.collect();
        let make = |path: &StorePath, tree: &Path| {
            let left = debug::make_tools(&trees, &dir.join(path), tree)?;
            if !left.is_empty() {
                let left: Vec<String> = left.into_iter().collect();
                let text = format!(
                    "debug tools that need the image's own libraries, as they cannot be linked to others: `{}`",
                    left.join("`, `")
                );
                self.reporter.report(Event::Warning { text });
            }
            Ok::<_, BuildError>(())
        };
        let policy = ReferencePolicy::default();
        let output = |tree| NewOutput {
            name,
            tree,
            candidates: &NO_CANDIDATES,
            declare: &|_| Vec::new(),
            derivation: Some(self.resolved.digest),
            policy: &policy,
            walls: Walls::Namespaces,
            execution: Execution::Native,
        };
        let staging = self.store.stage()?;
        let tree = staging.path().join("tree");
        let scratch = placeholder(&dir, name)?;
        make(&scratch, &tree)?;
        match self.store.add_rewritten(&output(&tree), &scratch)? {
            Rewritten::Registered(info) => Ok(info.path),
            Rewritten::NamesItself { path, .. } => {
                let tree = staging.path().join("again");
                make(&path, &tree)?;
                Ok(self.store.add_in_place(&output(&tree), &path)?.path)
            }
        }
    }

    /// Brings what a debugger asks for of a package into the store.
    fn find_debug_info(&self, info: &DebugInfo) -> Result<StorePath, BuildError> {
        let staging = self.store.stage()?;
        let tree = staging.path().join("tree");
        let source = info.source.as_ref().map(|source| {
            let name = info.source_file.as_deref().unwrap_or(self.paths[source].name());
            (self.physical(source), name)
        });
        let source = source.as_ref().map(|(source, name)| (source.as_path(), *name));
        debug::make_info(&self.physical(&info.output), source, &tree)?;
        let name = &self.derivation().name;
        let info = self.store.add_leaf(name, &tree, Some(self.resolved.digest))?;
        Ok(info.path)
    }

    fn physical(&self, input: &Input) -> PathBuf {
        self.store.physical(&self.paths[input])
    }

    /// Brings an unpacked tree into the store; what comes from outside refers to nothing.
    fn unpack(&self, unpack: impl FnOnce(&Path) -> Result<(), fetch::FetchError>) -> Result<StorePath, BuildError> {
        self.take_in(Some(self.resolved.digest), unpack)
    }

    fn take_in(
        &self,
        derivation: Option<Digest>,
        unpack: impl FnOnce(&Path) -> Result<(), fetch::FetchError>,
    ) -> Result<StorePath, BuildError> {
        let staging = self.store.stage()?;
        let tree = staging.path().join("tree");
        unpack(&tree)?;
        let name = &self.derivation().name;
        let info = self.store.add_leaf(name, &tree, derivation)?;
        Ok(info.path)
    }
}

/// The digest of a file's bytes.
fn file_digest(file: &Path) -> Result<Digest, BuildError> {
    let mut sink = HashingWriter::new(io::sink());
    let mut content = File::open(file).context("open", file)?;
    io::copy(&mut content, &mut sink).context("read", file)?;
    Ok(sink.finish().1.digest())
}
