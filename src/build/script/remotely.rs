//! A script *at a builder*: what it gets besides what a sandbox of this machine has, and what is done where it does not run.

use std::fs;
use std::path::{Path, PathBuf};

use super::{PreparedScript, ScriptStep};
use crate::build::units::UnitCache;
use crate::build::{BuildError, RemoteBuilds};
use crate::fsio::IoContext;
use crate::remote::{Farm, Network, Ran, RemotePlace};
use crate::sandbox::tree::make_dir;
use crate::sandbox::{Bind, Outcome};
use crate::store_path::StorePath;
use crate::walls::Walls;

impl ScriptStep<'_> {
    /// Runs the script at the builder, where there is one; here, over what is known of each crate, where there is none or it
    /// does not run it.
    pub(super) fn execute_anywhere(
        &self,
        scratch: &StorePath,
        cache: Option<&UnitCache<'_>>,
    ) -> Result<PreparedScript<'_>, BuildError> {
        // A check is of this machine's sandbox.
        let remote = self.options.remote.as_deref().filter(|_| self.variations.is_empty());
        let Some((remote, farm)) = remote.and_then(|remote| Some((remote, remote.farm()?))) else {
            return self.execute_with(scratch, cache);
        };
        let seat = farm.seat();
        let prepared = self.prepare(scratch, Some(remote))?;
        drop(seat);
        match self.run_prepared(prepared) {
            Err(BuildError::Remote { label, source }) if remote.falls_back(&label, &source, self.reporter) => {
                let _seat = remote.seat_here();
                self.execute_with(scratch, cache)
            }
            ran => ran,
        }
    }

    /// What a run is prepared for, here or at a builder.
    pub(super) fn walls_of(&self, at: Option<&RemoteBuilds>) -> Result<Walls, BuildError> {
        match (at, self.walls) {
            (None, Walls::Builder) => self.options.choose_walls_here(self.store, self.reporter),
            (_, walls) => Ok(walls),
        }
    }

    /// Runs what is prepared at a builder; takes note of the walls that it had there.
    pub(super) fn run_at(
        &self,
        remote: &RemoteBuilds,
        farm: &Farm,
        prepared: &mut PreparedScript<'_>,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<Outcome, BuildError> {
        let name = prepared.scratch.to_string();
        let place = RemotePlace {
            store: &prepared.store,
            name: &name,
            build: &prepared.build,
        };
        let failed = |source| BuildError::Remote {
            label: self.derivation.label.clone(),
            source: Box::new(source),
        };
        let Ran {
            outcome,
            network,
            walls: made,
        } = farm.run(&prepared.sandbox, place, output).map_err(failed)?;
        let network = match (outcome, network) {
            (Outcome::Exited(0), Some(network)) => network,
            // Nothing is taken of it.
            _ => return Ok(outcome),
        };
        let walls = match (made, network) {
            // What our helper says that it made, of which the cut network is a part; not all of them show a `/proc` that tells.
            (Some(made), Network::None | Network::Unknown) => made,
            // Nobody here knows more of the worker.
            (None, Network::None) => Walls::Builder,
            (_, Network::Some) | (None, Network::Unknown) => Walls::None,
        };
        let least = self.options.walls.least().unwrap_or(Walls::None);
        if walls < least {
            return Err(failed(match walls {
                Walls::None => farm.has_network(network),
                _ => farm.is_weak(walls, least),
            }));
        }
        if walls < Walls::Builder {
            remote.warn_of_network(&farm.name(), network, self.reporter);
        }
        prepared.walls = walls;
        Ok(outcome)
    }

    /// The source as a builder gets it, which makes a copy of its own; a directory in `build` where there is none.
    pub(super) fn source_bind(&self, build: &Path) -> Result<Option<Bind>, BuildError> {
        let Some(path) = self.script.source.as_ref().and_then(|input| self.path_of(input)) else {
            make_dir(&build.join("source"), 0o755)?;
            return Ok(None);
        };
        let source = self.store.physical(path);
        let hidden = |dir: &&String| {
            let below = Path::new(dir).strip_prefix("/build/source");
            below.is_ok_and(|below| source.join(below).symlink_metadata().is_ok())
        };
        if let Some(dir) = self.script.cache_dirs.iter().find(hidden) {
            return Err(BuildError::CacheInSource { dir: dir.clone() });
        }
        let mut target = PathBuf::from("/build/source");
        if !fs::symlink_metadata(&source).context("read", &source)?.is_dir() {
            target.push(self.script.source_file.as_deref().unwrap_or(path.name()));
        }
        Ok(Some(Bind {
            source,
            target,
            writable: true,
        }))
    }

    /// The directories that a package keeps from one run to the next, which a builder does not: like `empty`.
    pub(super) fn unkept_binds(&self, empty: &Path) -> Vec<Bind> {
        let bind = |dir: &String| Bind {
            source: empty.to_owned(),
            target: dir.into(),
            writable: true,
        };
        self.script.cache_dirs.iter().map(bind).collect()
    }
}
