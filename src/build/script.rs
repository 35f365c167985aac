//! A *script step*: the user's script run in its sandbox, and what it made brought into the store.
//!
//! What a script finds (any change to it is a new [`crate::derive::SANDBOX_FORMAT`]):
//! * the root: the packages of `tools`, `libraries` and `base`, read-only; `/dev`, `/proc`, no `/sys`, no network;
//! * `/layerize/store`: the closure of `source`, `tools`, `libraries` and `runtime`, read-only, and room for `$out`,
//!   which may become a directory, a file or a link; anything else that is made there is an error. `$out` is a
//!   placeholder that depends on the output's name alone; only an output that turns out to hold it where it cannot be
//!   rewritten is built a second time, at its own path;
//! * `/build`, `/tmp`, `/dev/shm`: writable, empty but for `/build/source`, the writable copy of the source (a single
//!   file is placed in it), its working directory;
//! * the variables of `variables` and no others; user 1000, group 100, host `localhost`, umask 022.
//!
//! Invariant: an output is registered only after the script ended well; a script that failed leaves its log, and its
//! build directory where that was asked for.

mod at_peer;
pub(super) mod enter;
mod kept;
mod output;
mod references;
mod remotely;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cache::{self, BuildCache};
use super::emulation::{Foreigner, emulator_of};
use super::error::ScriptFailure;
use super::link;
use super::log::BuildLog;
use super::runner::{Runner, failed_command};
use super::surroundings::{Surroundings, base_variables, bind_inputs, writable_binds};
use super::units::UnitCache;
use super::variation::{self, Variation};
use super::{BuildError, BuildOptions, RemoteBuilds};
use crate::closure;
use crate::derive::{Derivation, Input, Script};
use crate::digest::Digest;
use crate::event::{Event, Reporter};
use crate::execution::Execution;
use crate::fsio::{IoContext, create_dir_all, remove_tree};
use crate::parallel;
use crate::remote::Farm;
use crate::sandbox::copy::copy_writable;
use crate::sandbox::tree::{close_to_others, make_dir};
use crate::sandbox::{BUILDER, Bind, Copied, Isolation, RuntimeSettings, Sandbox, Veil};
use crate::store::{Addressing, BuildPlace, Place, ReferencePolicy, Rewritten, StagingDir, Store};
use crate::store_path::{StoreDir, StorePath, placeholder};
use crate::walls::Walls;

/// `PATH` without a sandbox.
const HOST_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Characters of a derivation's hash in the name of a kept build directory.
const FAILED_CHARS: usize = 32;

/// Most bytes of store paths that a check copies to memory.
const COPIED_MAX: u64 = 1 << 30;

/// Most names shown in one message.
const NAMES_SHOWN: usize = 5;

/// A script step about to be run.
pub(super) struct ScriptStep<'a> {
    pub store: &'a Store,
    pub options: &'a BuildOptions,
    pub reporter: &'a dyn Reporter,
    pub derivation: &'a Derivation,
    pub script: &'a Script,
    /// What it runs behind; at a builder, the strongest that are to be had there.
    pub walls: Walls,
    /// How its programs are run.
    pub execution: Execution,
    /// Hash of the resolved derivation.
    pub digest: Digest,
    /// The store path of every input, all of them valid.
    pub paths: &'a BTreeMap<Input, StorePath>,
    /// In what its surroundings are other than they always are; nothing, except for a check.
    pub variations: &'a BTreeSet<Variation>,
}

/// What a script made that was run again.
pub(super) struct Remade {
    /// The output, canonical.
    pub tree: PathBuf,
    /// SHA-256 of its canonical archive.
    pub nar_hash: Digest,
    /// Size of that in bytes.
    pub nar_size: u64,
    _staging: StagingDir,
}

impl Remade {
    /// A tree in a staging directory, with hash and size of its archive.
    pub(super) fn new(tree: PathBuf, (nar_hash, nar_size): (Digest, u64), staging: StagingDir) -> Self {
        Self {
            tree,
            nar_hash,
            nar_size,
            _staging: staging,
        }
    }
}

/// What is prepared for one run.
struct PreparedScript<'a> {
    /// Removed when dropped.
    staging: StagingDir,
    /// The paths visible below `/layerize/store`.
    visible: BTreeSet<StorePath>,
    /// The logical path that is `$out`.
    scratch: StorePath,
    sandbox: Sandbox,
    /// What the output may refer to.
    policy: ReferencePolicy,
    /// Where the build directory is on disk.
    build: PathBuf,
    cache: BuildCache,
    /// Where the directory is that becomes `/layerize/store`.
    store: PathBuf,
    /// Without a sandbox, the place in the store itself where the script makes its output.
    place: Option<BuildPlace<'a>>,
    /// The builder at which it runs.
    at: Option<&'a RemoteBuilds>,
    /// What it runs behind; at a builder, what it ran behind, once that is known.
    walls: Walls,
}

impl ScriptStep<'_> {
    /// Runs the script; gives the path of what it made.
    pub(super) fn run(&self) -> Result<StorePath, BuildError> {
        if let Some(path) = self.run_at_peer()? {
            return Ok(path);
        }
        // Where a peer did not run it, it runs here, as one of few.
        let peer = self.options.remote.as_deref().filter(|remote| remote.peer().is_some());
        let _seat = peer.map(RemoteBuilds::seat_here);
        let scratch = self.placeholder()?;
        let cache = UnitCache::of(self.store, self.script, &|input| self.paths[input].clone())?;
        let rewritten = {
            let prepared = self.execute_anywhere(&scratch, cache.as_ref())?;
            let _seat = prepared.at.and_then(RemoteBuilds::farm).map(Farm::seat);
            let tree = self.take_output(&prepared)?;
            let declare = |found: &BTreeSet<StorePath>| self.declare(found);
            let output = self.new_output(&prepared, &tree, &declare);
            let added = self.store.add_rewritten(&output, &scratch);
            let rewritten = added.map_err(|error| self.explain(error))?;
            if let (Some(cache), Rewritten::Registered(info)) = (&cache, &rewritten) {
                self.keep_units(cache, &prepared, &info.path);
            }
            rewritten
        };
        match rewritten {
            Rewritten::Registered(info) => Ok(info.path),
            Rewritten::NamesItself { path, place } => {
                self.say_why_again(place);
                self.run_in_place(path)
            }
        }
    }

    /// Runs the script for an output that must be built at its own path.
    fn run_in_place(&self, path: StorePath) -> Result<StorePath, BuildError> {
        let prepared = self.execute_anywhere(&path, None)?;
        let _seat = prepared.at.and_then(RemoteBuilds::farm).map(Farm::seat);
        let tree = self.take_output(&prepared)?;
        let declare = |found: &BTreeSet<StorePath>| self.declare(found);
        let output = self.new_output(&prepared, &tree, &declare);
        let added = self.store.add_in_place(&output, &path);
        Ok(added.map_err(|error| self.explain(error))?.path)
    }

    fn say_why_again(&self, place: Option<Place>) {
        let label = &self.derivation.label;
        let place = place.map_or_else(|| "its archive".to_owned(), |place| place.to_string());
        self.reporter.report(Event::Note {
            text: format!(
                "`{label}` contains its own path where it cannot be rewritten ({place}): its script runs a second time, at \
                 that path"
            ),
        });
    }

    fn placeholder(&self) -> Result<StorePath, BuildError> {
        Ok(placeholder(&StoreDir::layerize(), &self.derivation.name)?)
    }

    /// Runs the script and registers nothing: its output as it would enter the store as `path`, which the same
    /// derivation made before. The output goes when what is given goes.
    pub(super) fn run_again(&self, path: &StorePath) -> Result<Remade, BuildError> {
        // An output that holds its path for good was built there.
        let in_place = match self.store.info_full(path)? {
            Some(details) => details.addressing == Addressing::Derivation,
            None => false,
        };
        let scratch = if in_place { path.clone() } else { self.placeholder()? };
        let prepared = self.execute(&scratch)?;
        let tree = self.take_output(&prepared)?;
        let stripped = self.stripped();
        let settled = self.store.settle_output(&tree, &prepared.scratch, path, &stripped)?;
        Ok(Remade::new(tree, settled, prepared.staging))
    }

    /// Runs the script with `scratch` as `$out`; what it made is in the staging directory.
    fn execute(&self, scratch: &StorePath) -> Result<PreparedScript<'_>, BuildError> {
        self.run_prepared(self.prepare(scratch, None)?)
    }

    fn run_prepared<'p>(&self, mut prepared: PreparedScript<'p>) -> Result<PreparedScript<'p>, BuildError> {
        let label = &self.derivation.label;
        self.reporter.report(Event::BuildStarted {
            name: label.clone(),
            at: prepared.at.and_then(RemoteBuilds::farm).map(Farm::name),
        });
        let mut tell = |line: &str| {
            self.reporter.report(Event::BuildOutput {
                name: label.clone(),
                line: line.to_owned(),
            });
        };
        let mut log = BuildLog::create(self.log_path())?;
        let mut take = |bytes: &[u8]| log.take(bytes, &mut tell);
        let outcome = match prepared.at.and_then(|remote| Some((remote, remote.farm()?))) {
            None => prepared.sandbox.run(&mut take).map_err(|source| BuildError::Sandbox {
                what: format!("the script of `{label}`"),
                source,
            }),
            Some((remote, farm)) => self.run_at(remote, farm, &mut prepared, &mut take),
        };
        let log_path = log.path().to_owned();
        let tail = log.finish(&mut tell)?;
        match self.judge(&prepared, outcome?)? {
            None => Ok(prepared),
            Some(reason) => Err(BuildError::Script(Box::new(ScriptFailure {
                label: label.clone(),
                reason,
                command: failed_command(&prepared.build, &self.script.script),
                had_cache: prepared.cache.is_filled,
                bounds: self.options.bounds,
                tail,
                log: log_path,
                kept: self.keep(&prepared)?,
            }))),
        }
    }

    fn log_path(&self) -> PathBuf {
        // The log of the build that counts is kept.
        let again = if self.variations.is_empty() { "" } else { "-again" };
        let log = self.store.dir().join("log");
        log.join(format!("{}{again}.log", self.digest.hex()))
    }

    /// Prepares a run here, or at a builder.
    fn prepare<'a>(
        &'a self,
        scratch: &StorePath,
        at: Option<&'a RemoteBuilds>,
    ) -> Result<PreparedScript<'a>, BuildError> {
        let staging = self.store.stage()?;
        let dir = staging.path();
        close_to_others(dir)?;
        let visible = self.visible()?;
        let [work, own, build, tmp, store] = make_dirs(dir)?;
        if at.is_none() {
            self.copy_source(&build.join("source"))?;
        }
        let mut cache = self.open_cache(&build, at)?;
        let mut settings = variation::settings(self.variations);
        settings.bounds = self.options.bounds;
        settings.emulator = Foreigner::of(self.derivation)
            .and_then(|script| emulator_of(self.execution, script, self.store, self.paths));
        let mut build_bind = build.clone();
        if self.varies(Variation::FileOrder) {
            build_bind = dir.join("memory");
            make_dir(&build_bind, 0o755)?;
            settings.copies.push(Copied {
                from: build.clone(),
                to: build_bind.clone(),
                sealed: false,
            });
        }
        let walls = self.walls_of(at)?;
        let (sandbox, store, place) = match walls {
            Walls::Namespaces | Walls::Chroot | Walls::Traced | Walls::Builder => {
                let mut binds = writable_binds([(&build_bind, "/build"), (&tmp, "/tmp"), (&store, StoreDir::LAYERIZE)]);
                binds.extend(at.map(|_| self.source_bind(&build)).transpose()?.flatten());
                let mut inputs = bind_inputs(self.store, &visible, &store)?;
                if self.varies(Variation::Store) && self.is_small(&visible)? {
                    settings.copies.extend(bind_copies(&mut inputs, &dir.join("copies"))?);
                }
                binds.extend(inputs);
                binds.extend(self.mounts(&build)?);
                binds.append(&mut cache.binds);
                binds.extend(at.into_iter().flat_map(|_| self.unkept_binds(&tmp)));
                let mut sandbox = self.walled(own, dir.join("fixups"), work, binds, scratch, settings)?;
                match walls {
                    Walls::Chroot => sandbox.isolation = Isolation::Chroot,
                    Walls::Traced => sandbox.isolation = Isolation::Traced,
                    _ => {}
                }
                (sandbox, store, None)
            }
            Walls::None if !self.script.mounts.is_empty() || !self.script.cache_dirs.is_empty() => {
                let label = self.derivation.label.clone();
                return Err(BuildError::NeedsSandbox { label });
            }
            Walls::None => {
                let sandbox = self.bare(own, dir, &build, scratch)?;
                let place = self.store.build_place(scratch)?;
                (sandbox, self.store.dir().join("store"), Some(place))
            }
        };
        Ok(PreparedScript {
            staging,
            policy: self.policy(&visible)?,
            visible,
            scratch: scratch.clone(),
            sandbox,
            build,
            cache,
            store,
            place,
            at,
            walls,
        })
    }

    /// The places of the directories that the package keeps, with what earlier runs left in them; a builder has none.
    fn open_cache(&self, build: &Path, at: Option<&RemoteBuilds>) -> Result<BuildCache, BuildError> {
        let project = match self.varies(Variation::BuildCache) || at.is_some() {
            true => None,
            false => self.options.cache_of.as_deref(),
        };
        let label = &self.derivation.label;
        let owner = project.map(|project| cache::Owner { project, label });
        BuildCache::open(self.store, self.script, owner.as_ref(), build)
    }

    /// The sandbox of an ordinary build.
    fn walled(
        &self,
        staging: PathBuf,
        fixups: PathBuf,
        work: PathBuf,
        binds: Vec<Bind>,
        scratch: &StorePath,
        settings: RuntimeSettings,
    ) -> Result<Sandbox, BuildError> {
        let surroundings = Surroundings::make(self.store, self.script, self.paths, fixups)?;
        if self.varies(Variation::User) {
            surroundings
                .root
                .fixups
                .file("etc/passwd", &variation::passwd(), 0o644)?;
            surroundings.root.fixups.file("etc/group", variation::GROUP, 0o644)?;
        }
        let label = &self.derivation.label;
        let runner = Runner::in_root(
            &surroundings.root,
            label,
            &self.script.script,
            self.script.debian_patches,
        )?;
        surroundings.root.fixups.settle()?;
        let mut env = surroundings.variables;
        env.extend(self.variables_of_step("/build", scratch));
        variation::change_variables(&mut env, self.variations);
        let ids = if self.varies(Variation::User) {
            variation::USER
        } else {
            BUILDER
        };
        Ok(Sandbox {
            helper: self.options.helper.clone(),
            isolation: Isolation::Build,
            staging,
            layers: surroundings.root.layers(),
            upper: None,
            veils: vec![
                Veil {
                    dir: work,
                    writable: true,
                },
                Veil {
                    dir: self.store.dir().join("store"),
                    writable: false,
                },
            ],
            binds,
            ids,
            argv: runner.argv,
            env: self.with_user_variables(env),
            cwd: "/build/source".into(),
            timeout: self.timeout(),
            settings,
        })
    }

    /// No sandbox: the script runs on the machine itself, with its programs. Store paths are where they say.
    fn bare(&self, staging: PathBuf, dir: &Path, build: &Path, scratch: &StorePath) -> Result<Sandbox, BuildError> {
        let runner = Runner::on_host(
            &dir.join("runner"),
            build,
            &self.script.script,
            self.script.debian_patches,
        )?;
        let mut env = base_variables(HOST_PATH, "C.UTF-8");
        env.extend(self.variables_of_step(&build.display().to_string(), scratch));
        Ok(Sandbox {
            helper: self.options.helper.clone(),
            isolation: Isolation::None,
            staging,
            layers: Vec::new(),
            upper: None,
            veils: Vec::new(),
            binds: Vec::new(),
            ids: BUILDER,
            argv: runner.argv,
            env: self.with_user_variables(env),
            cwd: build.join("source"),
            timeout: self.timeout(),
            settings: RuntimeSettings {
                bounds: self.options.bounds,
                ..RuntimeSettings::default()
            },
        })
    }

    /// Whether paths can be copied to memory.
    fn is_small(&self, paths: &BTreeSet<StorePath>) -> Result<bool, BuildError> {
        let mut left = COPIED_MAX;
        for path in paths {
            let size = self.store.info(path)?.map_or(0, |info| info.nar_size);
            let Some(rest) = left.checked_sub(size) else {
                return Ok(false);
            };
            left = rest;
        }
        Ok(true)
    }

    fn varies(&self, variation: Variation) -> bool {
        self.variations.contains(&variation)
    }

    fn timeout(&self) -> Option<Duration> {
        self.script.timeout_seconds.map(Duration::from_secs)
    }

    fn path_of(&self, input: &Input) -> Option<&StorePath> {
        self.paths.get(input)
    }

    /// The closure of all inputs but the root's packages.
    fn visible(&self) -> Result<BTreeSet<StorePath>, BuildError> {
        let script = self.script;
        let inputs = script
            .source
            .iter()
            .chain(&script.tools)
            .chain(&script.libraries)
            .chain(&script.runtime)
            .chain(script.variables.values());
        let roots = inputs.filter_map(|input| self.path_of(input)).cloned().collect();
        let closure = closure::compute(self.store, &roots)?;
        let compiler = link::compiler_runtime(self.store, script, self.paths);
        let members = closure.members.into_iter().map(|info| info.path);
        Ok(members.chain(compiler.into_iter().map(|(path, _)| path)).collect())
    }

    /// What the script finds below `/build`, whose directory `build` gets a place for each.
    fn mounts(&self, build: &Path) -> Result<Vec<Bind>, BuildError> {
        let mut binds = Vec::new();
        for (at, input) in &self.script.mounts {
            let Some(path) = self.path_of(input) else { continue };
            let place = Path::new(at);
            let below = place.strip_prefix("/build").unwrap_or(place);
            create_dir_all(&build.join(below))?;
            binds.push(Bind {
                source: self.store.physical(path),
                target: place.to_owned(),
                writable: false,
            });
        }
        Ok(binds)
    }

    fn copy_source(&self, dest: &Path) -> Result<(), BuildError> {
        match self.script.source.as_ref().and_then(|input| self.path_of(input)) {
            Some(path) => {
                let name = self.script.source_file.as_deref().unwrap_or(path.name());
                Ok(copy_writable(&self.store.physical(path), name, dest)?)
            }
            None => Ok(make_dir(dest, 0o755)?),
        }
    }

    fn variables_of_step(&self, build: &str, scratch: &StorePath) -> Vec<(String, String)> {
        let dir = StoreDir::layerize();
        let cores = parallel::threads(self.options.cores);
        let mut variables = vec![
            ("LAYERIZE_CORES".to_owned(), cores.to_string()),
            ("PWD".to_owned(), format!("{build}/source")),
            ("out".to_owned(), dir.join(scratch)),
        ];
        for (name, input) in &self.script.variables {
            let path = self.path_of(input).map(|path| dir.join(path));
            variables.extend(path.map(|path| (name.clone(), path)));
        }
        if let Some(path) = self.script.source.as_ref().and_then(|input| self.path_of(input)) {
            variables.push(("src".to_owned(), dir.join(path)));
        }
        variables.extend(["TMPDIR", "TEMPDIR", "TMP", "TEMP"].map(|name| (name.to_owned(), build.to_owned())));
        variables
    }

    /// The user's variables replace those of the same name, but for where the output goes.
    fn with_user_variables(&self, variables: Vec<(String, String)>) -> Vec<(String, String)> {
        let mut all: BTreeMap<String, String> = variables.into_iter().collect();
        let own = self
            .script
            .env
            .iter()
            .filter(|(name, _)| *name != "out" && *name != "src");
        all.extend(own.map(|(name, value)| (name.clone(), value.clone())));
        all.into_iter().collect()
    }

    /// Keeps the build directory of a failed script, where that was asked for.
    fn keep(&self, prepared: &PreparedScript<'_>) -> Result<Option<PathBuf>, BuildError> {
        if !self.options.keep_failed {
            return Ok(None);
        }
        let failed = self.store.dir().join("failed");
        create_dir_all(&failed)?;
        let kept = failed.join(format!(
            "{}-{}",
            &self.digest.hex()[..FAILED_CHARS],
            self.derivation.name
        ));
        remove_tree(&kept)?;
        fs::rename(&prepared.build, &kept).context("move", &prepared.build)?;
        Ok(Some(kept))
    }
}

/// Makes the directories of a run: the one that holds the last three, the sandbox's own, and those that become `/build`,
/// `/tmp` and `/layerize/store`.
fn make_dirs(dir: &Path) -> Result<[PathBuf; 5], BuildError> {
    let (work, own) = (dir.join("work"), dir.join("sandbox"));
    let [build, tmp, store] = ["build", "tmp", "store"].map(|name| work.join(name));
    let dirs = [work, own, build, tmp, store];
    for (path, mode) in dirs.iter().zip([0o755, 0o700, 0o755, 0o1777, 0o755]) {
        make_dir(path, mode)?;
    }
    Ok(dirs)
}

/// Has directories bound from copies, each in memory of its own: the same trees with other inodes, change times and order.
fn bind_copies(binds: &mut [Bind], dir: &Path) -> Result<Vec<Copied>, BuildError> {
    make_dir(dir, 0o755)?;
    let mut copies = Vec::new();
    for (number, bind) in binds.iter_mut().enumerate().filter(|(_, bind)| bind.source.is_dir()) {
        let to = dir.join(number.to_string());
        make_dir(&to, 0o755)?;
        let from = std::mem::replace(&mut bind.source, to.clone());
        copies.push(Copied { from, to, sealed: true });
    }
    Ok(copies)
}
