//! The *environment* of a command: what the machine, the user and the working directory bring to it.
//!
//! Invariant: it decides where bytes are and where they come from. Of all that is in it, only `epoch` and the spec that
//! `file` or `here` leads to can change a digest.

use std::path::PathBuf;
use std::sync::Arc;

use crate::build::{Bounds, BuildOptions, EmulationChoice, WallsChoice};
use crate::container::Roots;
use crate::event::{Event, Reporter};
use crate::fetch::{self, AptSources, FetchConfig, LanguageTools};
use crate::image::ImageCache;
use crate::inputs;
use crate::layer::LayerCache;
use crate::oci::Platform;
use crate::shared_cache::PlaceNotes;
use crate::spec::{Inputs, Workspace};
use crate::store::Store;
use crate::transport::registry::RegistryConfig;
use crate::transport::{Location, ReadOptions, Source, TransportError};
use crate::walls::Walls;

use super::builders::{BuilderChoice, MachineBuilders};
use super::error::ProjectError;
use super::files::Project;
use super::nix::LazyNix;
use super::platforms::PlatformChoice;
use super::shared::{CacheOptions, MachineCaches};
use super::spec_place::{FetchedPlace, PlaceForm};

/// Seconds since 1970 of everything that has a date, unless `SOURCE_DATE_EPOCH` says otherwise. Not 0, which some tools
/// take for "no date".
pub const DEFAULT_EPOCH: i64 = 1;

/// An image, and its platform where it was chosen by that.
pub type PlatformSource = (Option<Platform>, Box<dyn Source>);

/// Where things are, where bytes come from, and who is told.
#[derive(Clone)]
pub struct Environment<'a> {
    /// Who is told what happens.
    pub reporter: &'a dyn Reporter,
    /// Physical store.
    pub store_dir: PathBuf,
    /// Directory that `nix/store` is in.
    pub nix_root: PathBuf,
    /// What is known of the paths there, in place of Nix's database.
    pub closure_graph: Option<PathBuf>,
    /// Where downloads and apt's state are kept: shared by all stores of the user.
    pub cache_dir: PathBuf,
    /// Working directory.
    pub here: PathBuf,
    /// The spec or its directory; `None`: the nearest one above `here`.
    pub file: Option<PathBuf>,
    /// Where the spec is from, beside which nothing is written; `None`: it is the user's own.
    pub elsewhere: Option<FetchedPlace>,
    /// `SOURCE_DATE_EPOCH`, in seconds.
    pub epoch: i64,
    /// Places that keep inputs, asked before addresses and mirrors.
    pub inputs_from: Vec<inputs::Place>,
    /// What was found out about shared caches.
    pub cache_notes: PlaceNotes,
    /// The machine's shared caches.
    pub cache: MachineCaches,
    /// The machine's builders.
    pub builders: MachineBuilders,
    /// Seconds since 1970, with which entries of shared caches are dated; `None`: they get no date.
    pub now: Option<i64>,
    /// What builds may use at most on this machine.
    pub bounds: Bounds,
    /// The weakest walls that are enough on this machine.
    pub require: Option<Walls>,
    /// Debian mirrors that are tried before the machine's apt.
    pub debian_mirrors: Vec<String>,
    /// Whether the user says by a variable how ssh is run (`GIT_SSH_COMMAND`, `GIT_SSH`).
    pub ssh_is_chosen: bool,
    /// Snapshot servers, asked for versions that the mirrors no longer carry.
    pub debian_snapshots: Vec<String>,
    /// An image whose layers stand for those of its base, which need not be asked for them.
    pub base_layers: Option<Arc<dyn Source>>,
    /// How registries are reached and who the user is there.
    pub registries: RegistryConfig,
    /// What languages' own tools are configured with.
    pub languages: LanguageTools,
}

/// How the inputs of images and packages are made.
#[derive(Debug, Clone, Default)]
pub struct WorkOptions {
    /// Refuse a lock that is not current.
    pub locked: bool,
    /// Do not use the network: use only what was fetched before.
    pub offline: bool,
    /// Places that keep inputs, asked before those of spec and machine.
    pub inputs_from: Vec<String>,
    /// Places that keep inputs, asked after those.
    pub places: Vec<Arc<dyn fetch::Place>>,
    /// Debian mirrors that are tried before all others.
    pub mirrors: Vec<String>,
    /// What scripts run behind; `None`: the strongest walls that can be had.
    pub sandbox: Option<Walls>,
    /// What they must run behind at least; machine and spec may require more.
    pub require: Option<Walls>,
    /// Where scripts are run.
    pub builder: BuilderChoice,
    /// Most steps at once; 0: the number of cores.
    pub jobs: usize,
    /// Cores that each script may use; 0: all.
    pub cores: usize,
    /// What each script may use at most; what is not given is as the machine or the spec says.
    pub bounds: Bounds,
    /// Which platforms are made of images that are for several.
    pub platforms: PlatformChoice,
    /// Which shared caches are read and written, besides those of spec and machine.
    pub cache: CacheOptions,
    /// Keep the build directory of a script that fails.
    pub keep_failed: bool,
    /// Give scripts empty directories in place of the caches that their packages declare.
    pub no_build_cache: bool,
}

impl WorkOptions {
    /// The weakest walls behind which what is taken from others may have been built: those that were asked for, and else
    /// any that a sandbox has, or those of a farm's workers where one is used here, too.
    pub(super) fn least_walls(&self, required: Option<Walls>, has_farm: bool) -> Walls {
        let unasked = if has_farm { Walls::Builder } else { Walls::Traced };
        required.or(self.sandbox).unwrap_or(unasked)
    }
}

impl Environment<'_> {
    /// Opens the store.
    pub fn store(&self) -> Result<Store, ProjectError> {
        let store = Store::open(&self.store_dir)?;
        self.tell_of_debris(&store);
        if store.was_full() {
            let text = format!(
                "no space is left on the disk of the store `{}`: what is there can be looked at, and `layerize store gc` \
                 frees what nothing needs (`--all`: what builds used of late, too)",
                self.store_dir.display()
            );
            self.reporter.report(Event::Warning { text });
        }
        Ok(store)
    }

    /// Warns of what the store could not remove.
    pub fn tell_of_debris(&self, store: &Store) {
        for error in store.take_left_behind() {
            let text = format!(
                "{error} ({}): it stays until it can be removed, and nothing needs it",
                error.source
            );
            self.reporter.report(Event::Warning { text });
        }
    }

    /// The Nix store, opened when it is needed.
    pub fn nix(&self) -> LazyNix {
        LazyNix::new(
            self.nix_root.clone(),
            self.closure_graph.clone(),
            self.store_dir.clone(),
        )
    }

    /// The same with the spec of a place.
    pub fn with_place(self, fetched: FetchedPlace) -> Self {
        let file = match &fetched.form {
            PlaceForm::Tree { spec, .. } => Some(spec.clone()),
            PlaceForm::Image(_) => None,
        };
        Self {
            file,
            elsewhere: Some(fetched),
            ..self
        }
    }

    /// What keeps the inputs of a spec that an image carries.
    fn carrying(&self, offline: bool) -> Option<Arc<dyn fetch::Place>> {
        match &self.elsewhere.as_ref()?.form {
            PlaceForm::Image(carried) => carried.inputs(offline),
            PlaceForm::Tree { .. } => None,
        }
    }

    /// Where downloads come from.
    pub fn fetch_config(&self, offline: bool, mirrors: &[String], apt: AptSources) -> FetchConfig {
        FetchConfig {
            cache: self.cache_dir.join("fetch"),
            apt_state: self.cache_dir.join("apt"),
            apt,
            places: Vec::new(),
            mirrors: mirrors.iter().chain(&self.debian_mirrors).cloned().collect(),
            snapshots: self.debian_snapshots.clone(),
            languages: self.languages.clone(),
            http: self.registries.http.clone(),
            ssh_is_chosen: self.ssh_is_chosen,
            offline,
            known_lists: false,
        }
    }

    /// The places that keep inputs, in the order in which they are asked: the command's, the spec's, the machine's.
    pub fn input_places(&self, options: &WorkOptions, spec: &Inputs) -> Result<Vec<inputs::Place>, ProjectError> {
        let given = options.inputs_from.iter().map(|text| (text, &self.here));
        let of_spec = spec.from.iter().map(|text| (&text.value, &spec.dir));
        let mut places = Vec::new();
        for (text, dir) in given.chain(of_spec) {
            places.push(inputs::Place::parse(text, dir, &self.registries)?);
        }
        places.extend(self.inputs_from.iter().cloned());
        Ok(places)
    }

    /// How scripts are run, and where what they need comes from; for a project, as its spec says.
    pub fn build_options(
        &self,
        options: &WorkOptions,
        project: Option<&Project>,
    ) -> Result<BuildOptions, ProjectError> {
        let workspace = project.map(|project| &project.workspace);
        let apt = workspace.map(AptSources::of).unwrap_or_default();
        let spec = workspace.map(|workspace| workspace.inputs.clone()).unwrap_or_default();
        let places = self.input_places(options, &spec)?.into_iter();
        let anchor = project.map(|project| inputs::anchor_of(&project.lock));
        let caches = self.shared_caches(options, workspace)?;
        let places = places.map(|place| Arc::new(place.anchored(anchor.clone())) as Arc<dyn fetch::Place>);
        let carrying = self.carrying(options.offline);
        let mut places: Vec<Arc<dyn fetch::Place>> =
            places.chain(options.places.iter().cloned()).chain(carrying).collect();
        if let Some(anchor) = &anchor {
            let cached = caches.lock_files(anchor, &self.registries)?.into_iter();
            places.extend(cached.map(|place| Arc::new(place) as Arc<dyn fetch::Place>));
        }
        let fetch = self.fetch_config(options.offline, &options.mirrors, apt);
        Ok(BuildOptions {
            walls: WallsChoice::new(options.sandbox, self.required_walls(options, workspace)),
            emulation: EmulationChoice::new(workspace.map(|workspace| workspace.build.emulate).unwrap_or_default()),
            remote: self.builder(options)?,
            jobs: options.jobs,
            cores: options.cores,
            bounds: self.bounds_of(options, workspace),
            keep_failed: options.keep_failed,
            shared: caches.reader(),
            cache_of: (project.filter(|_| !options.no_build_cache)).map(|project| project.dir.display().to_string()),
            fetch: FetchConfig {
                places,
                languages: LanguageTools {
                    project: project.map(|project| project.dir.clone()),
                    ..fetch.languages.clone()
                },
                ..fetch
            },
            ..BuildOptions::default()
        })
    }

    /// What scripts may use at most: the command line goes before the machine, and that before the spec.
    fn bounds_of(&self, options: &WorkOptions, workspace: Option<&Workspace>) -> Bounds {
        let spec = workspace.map(|workspace| workspace.build).unwrap_or_default();
        let (given, machine) = (options.bounds, self.bounds);
        Bounds {
            memory: given.memory.or(machine.memory).or(spec.max_memory),
            processes: given.processes.or(machine.processes).or(spec.max_processes),
        }
    }

    /// The weakest walls that are enough for everybody: the command line, the machine and the spec.
    pub(super) fn required_walls(&self, options: &WorkOptions, workspace: Option<&Workspace>) -> Option<Walls> {
        let spec = workspace.and_then(|workspace| workspace.build.require);
        options.require.max(self.require).max(spec)
    }

    /// Opens the image that a text names; `platform` chooses one of several.
    pub fn source(&self, location: &str, platform: Option<&Platform>) -> Result<Box<dyn Source>, TransportError> {
        let location: Location = location.parse()?;
        location.source(&ReadOptions {
            platform: platform.cloned(),
            registries: self.registries.clone(),
            ..ReadOptions::default()
        })
    }

    /// The images of a multi-platform image that is at a place; where none is chosen, the only one that there is.
    pub fn sources(&self, location: &str, choice: &PlatformChoice) -> Result<Vec<PlatformSource>, TransportError> {
        let one = |platform: Platform| {
            let source = self.source(location, Some(&platform))?;
            Ok((Some(platform), source))
        };
        match choice {
            PlatformChoice::These(platforms) => platforms.iter().cloned().map(one).collect(),
            PlatformChoice::Own => Ok(vec![(None, self.source(location, None)?)]),
            PlatformChoice::All => match self.source(location, None) {
                Err(TransportError::Platform {
                    wanted: None,
                    available,
                    ..
                }) => available.into_iter().map(one).collect(),
                source => Ok(vec![(None, source?)]),
            },
        }
    }

    /// Where caches are: in the store, unless that is somebody else's.
    pub fn caches_dir(&self) -> PathBuf {
        match Store::is_foreign(&self.store_dir) {
            true => self.cache_dir.join("of-other-stores"),
            false => self.store_dir.join("cache"),
        }
    }

    /// Where packed layers are kept.
    pub fn layer_cache(&self) -> Result<LayerCache, ProjectError> {
        Ok(LayerCache::open(&self.caches_dir().join("layers"))?)
    }

    /// Where it is kept which layers made up an image.
    pub fn image_cache(&self) -> Result<ImageCache, ProjectError> {
        Ok(ImageCache::open(&self.caches_dir().join("images"))?)
    }

    /// Where the roots of images that were run are kept.
    pub fn roots(&self) -> Result<Roots, ProjectError> {
        Ok(Roots::open(&self.caches_dir().join("roots"))?)
    }

    /// Where links to the machine's programs are kept, for shells.
    pub fn links_dir(&self) -> PathBuf {
        self.caches_dir().join("links")
    }

    /// Where it is kept what was written to which place.
    pub fn records_dir(&self) -> PathBuf {
        self.caches_dir().join("outputs")
    }
}
