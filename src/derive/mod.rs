//! A *derivation* is one fully resolved build step; a *build plan* is all of them in dependency order.
//!
//! Invariant: pure; the build plan is a function of spec, lock and the store paths of local sources, and the hash
//! of a resolved derivation covers everything that can change its output and nothing that cannot (not the
//! URL of a download, not its mirror, not a timeout, not a build cache, not the number of cores).

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::FileHash;
use crate::spec::{GitTree, LockedArchive, LockedDeb, LockedDebSource, LockedGit, PackageName};
use crate::store_path::StorePath;

mod configure;
mod cross;
mod debs;
mod debug;
mod emulator;
mod exclude;
mod import;
mod language;
mod make;
mod recorded;
mod resolve;
mod script;

pub use crate::lang::{Member, Members, Unit, UnitKind, Units};
pub use configure::{Configure, ConfiguredDeb};
pub use emulator::emulator_alone;
pub use import::ImportedPlan;
pub use language::{LanguageInputs, LanguageSource};
pub use make::{make, make_with, output_name, source_name};
pub use recorded::recorded;
pub use resolve::{FORMAT, SANDBOX_FORMAT, fixed_path, plan_keys, resolved_json, unit_scope};
pub use script::{Shell, shell};

/// All steps that the spec needs, each after its inputs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildPlan {
    /// The steps; an [`Input::Step`] always points to an earlier one.
    pub steps: Vec<Derivation>,
    /// The step that makes each package.
    pub packages: BTreeMap<PackageName, Input>,
    /// What the scripts of packages take from their languages.
    pub languages: BTreeMap<PackageName, LanguageInputs>,
    /// The step that unpacks each Debian package.
    pub debs: BTreeMap<String, Input>,
    /// What runs scripts for another machine than this one, where the lock pins it.
    pub emulator: Option<Input>,
    /// What scripts are for: `aarch64-linux`.
    pub system: String,
    /// What each image is made of.
    pub images: BTreeMap<String, ImageInputs>,
    /// What runs on this machine while packages are compiled for another one.
    pub machine: MachinePart,
}

/// The part of a plan for another machine that is for the one that builds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MachinePart {
    /// The step that unpacks each Debian package.
    pub debs: BTreeMap<String, Input>,
    /// The step that makes each package.
    pub packages: BTreeMap<PackageName, Input>,
}

impl BuildPlan {
    /// What `name` means as a target: all inputs of an image, else a package's, else those of `deb:NAME`.
    pub fn target(&self, name: &str) -> Option<Vec<Input>> {
        if let Some(image) = self.images.get(name) {
            return Some(image.all().into_iter().cloned().collect());
        }
        let input = match name.strip_prefix("deb:") {
            Some(deb) => self.debs.get(deb),
            None => self.packages.get(&PackageName(name.to_owned())),
        };
        input.map(|input| vec![input.clone()])
    }
}

/// Index of a step in [`BuildPlan::steps`].
pub type StepId = usize;

/// Something a step needs: what another step makes, or a path that is in the store already.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// Output of an earlier step.
    Step(StepId),
    /// A store path.
    Path(StorePath),
}

/// The inputs of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageInputs {
    /// Roots of the closure, in the order of `contents`; those in a Nix store are left out.
    pub contents: Vec<Input>,
    /// Debian packages among `contents` bring what they depend on: further closure members.
    pub declared: BTreeSet<Input>,
    /// Debian packages laid out at `/`, each after what it depends on.
    pub root: Vec<Input>,
    /// What stands at `/` beside them: parts of packages of the spec, with what messages call them and their versions.
    pub laid: Vec<(Input, String, String)>,
    /// What their maintainer scripts make.
    pub configured: Option<Input>,
    /// The locale `C.UTF-8`, for an image that turns out to have glibc and not the package that brings it.
    pub utf8: Option<Input>,
    /// The image's time zone, where none of its packages brings it.
    pub zone: Option<Input>,
    /// Debian's authorities, for an image that is to trust them and has no Debian packages.
    pub authorities: Option<Input>,
    /// Debian packages that others of the image depend on and that it does not get.
    pub left_out: BTreeMap<String, LeftOut>,
    /// The maintainer scripts that should run and cannot: those of an image over a base. By package; empty where they run or
    /// are not wanted.
    pub unrun: BTreeMap<String, Input>,
    /// What a debug image has above the image that it is of.
    pub debug: Option<DebugInputs>,
}

/// What a debug image has above the image that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebugInputs {
    /// Its tools, all in one store path.
    pub tools: Input,
    /// Debug files and sources of what the spec's scripts made, by package, in the order in which the image names them.
    pub built: Vec<(PackageName, Input)>,
    /// Debug files of Debian packages: by the package, the one that has them; `None`: the lock has none.
    pub debs: BTreeMap<String, Option<(String, Input)>>,
}

impl DebugInputs {
    /// Everything that must be in the store.
    pub fn all(&self) -> impl Iterator<Item = &Input> {
        let built = self.built.iter().map(|(_, input)| input);
        let debs = self.debs.values().flatten().map(|(_, input)| input);
        std::iter::once(&self.tools).chain(built).chain(debs)
    }
}

/// Why an image does not get a Debian package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// Its `exclude` names it.
    Excluded,
    /// Only what `exclude` names needs it.
    NeededByExcluded,
}

impl ImageInputs {
    /// Everything that must be in the store before the image can be made, without repetition.
    pub fn all(&self) -> BTreeSet<&Input> {
        (self.contents.iter())
            .chain(&self.declared)
            .chain(&self.root)
            .chain(self.laid.iter().map(|(input, ..)| input))
            .chain(&self.configured)
            .chain(&self.utf8)
            .chain(&self.zone)
            .chain(&self.authorities)
            .chain(self.unrun.values())
            .chain(self.debug.iter().flat_map(DebugInputs::all))
            .collect()
    }
}

/// One build step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derivation {
    /// What the user calls it, for messages: `hello`, `deb:gcc`.
    pub label: String,
    /// Name part of the output's store path: `hello-2.10`.
    pub name: String,
    /// What is done.
    pub action: Action,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A file from outside, taken as it is: fixed output, path known beforehand.
    Fetch(Download),
    /// A tree from outside, restored from its canonical archive (NAR): fixed output, path known beforehand.
    Restore(Download),
    /// An archive from outside, unpacked.
    Unpack {
        /// The archive.
        archive: Download,
        /// Leading directories to drop; `None`: 1 if all entries share one, else 0.
        strip: Option<u32>,
        /// Whether a file that is not an archive is kept as it is: its name does not tell.
        or_keep: bool,
    },
    /// A crate as Cargo wants it in a directory source: its tree, and the file that states its checksum.
    UnpackCrate {
        /// The `.crate`.
        archive: Download,
    },
    /// Crates of a repository as Cargo wants them in a directory source: the tree of a commit, and links to its packages.
    UnpackGitCrates {
        /// The canonical archive of the tree.
        archive: Download,
        /// The packages that are wanted, sorted.
        crates: Vec<CrateName>,
    },
    /// A package of npm's as npm lays it out: without the directory around it, its programs executable.
    UnpackNpm {
        /// The tarball, or the canonical archive of a repository's tree.
        archive: Download,
        /// The version of the package where it is of a repository, of which what `npm pack` would take is the package; not hashed,
        /// as its `package.json` says it.
        repository: Option<String>,
        /// The directory of the tree that it stands in; `None`: it is the tree.
        at: Option<String>,
    },
    /// A Debian binary package as a tree: usr-merged, alternatives recorded, maintainer scripts not run.
    UnpackDeb {
        /// The `.deb`.
        deb: Download,
        /// Package name.
        package: String,
    },
    /// What a Debian binary package says to the package manager: its maintainer scripts, and the modes of its files.
    UnpackDebControl {
        /// The `.deb`.
        deb: Download,
        /// Package name.
        package: String,
    },
    /// A Debian source package: upstream's tree with `debian/` in it, patches not yet applied.
    UnpackDebSource {
        /// The files that the `.dsc` lists and the `.dsc` itself.
        files: Vec<Download>,
        /// Source package name.
        package: String,
    },
    /// The emulator of a processor, out of the packages that have it.
    UnpackEmulator {
        /// Name and file of each package.
        debs: Vec<(String, Download)>,
        /// What it may be called, in `/usr/bin`.
        programs: Vec<String>,
    },
    /// A Go module, from the zip that module proxies give.
    UnpackGoModule {
        /// The zip.
        zip: Download,
        /// The module's path: `golang.org/x/text`.
        module: String,
        /// Its version: `v0.3.0`.
        version: String,
    },
    /// A few files of a Debian package.
    DebPart {
        /// Package name.
        package: String,
        /// Its tree.
        tree: Input,
        /// Which files.
        part: Part,
    },
    /// The user's script in the sandbox.
    Script(Box<Script>),
    /// Debian packages' maintainer scripts in the sandbox.
    Configure(Box<Configure>),
    /// Debian packages as one tree whose programs run wherever it stands, with the libraries in it.
    DebugTools {
        /// Name and tree of each, each after what it depends on.
        packages: Vec<(String, Input)>,
    },
    /// What a debugger asks for of a package that a script made: debug files, and the sources that they name.
    DebugInfo(DebugInfo),
}

/// A crate by its name and version, both fit to be part of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CrateName {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// A package that a script made, and what it made it of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebugInfo {
    /// What the script made.
    pub output: Input,
    /// What was `/build/source`.
    pub source: Option<Input>,
    /// What a source that is a single file was called there, where its store path's name cannot say it.
    pub source_file: Option<String>,
}

/// Which files of a Debian package are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The locale `C.UTF-8` of the C library.
    Utf8Locale,
    /// The file of a time zone.
    Zone(String),
    /// The bundle of all authorities.
    Authorities,
}

/// A file from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// File name, for messages and for archives' kinds.
    pub name: String,
    /// What its bytes must be: the only part that is hashed.
    pub hash: FileHash,
    /// Size in bytes where the lock knows it.
    pub size: Option<u64>,
    /// Where to get it.
    pub origin: Origin,
}

/// Where a download comes from; never hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An address (`file:`, `http:`, `https:`).
    Url(String),
    /// A distribution of Python: a wheel, or a source archive.
    Python {
        /// The project's name.
        project: String,
        /// Version.
        version: String,
        /// The indexes that the lock names.
        indexes: Vec<String>,
        /// The address in the lock.
        url: Option<String>,
    },
    /// A tarball of a registry of npm.
    Npm {
        /// The package's name, with its scope.
        name: String,
        /// Version.
        version: String,
        /// The address in the lock.
        url: Option<String>,
    },
    /// A module of Go, as zip or the `go.mod` of one: as its hash says.
    Go {
        /// The module's path.
        module: String,
        /// Version.
        version: String,
    },
    /// The canonical archive of the tree of a commit, which whoever asks makes of the repository.
    Git {
        /// The package whose source it is, for messages.
        package: String,
        /// The tree.
        tree: GitTree,
    },
    /// A binary package of a Debian mirror.
    Deb {
        /// Package name.
        package: String,
        /// Version.
        version: String,
        /// Architecture (`amd64`, `all`).
        architecture: String,
        /// Path below the mirror.
        filename: String,
        /// Where it was found when it was locked.
        archive: Option<LockedArchive>,
    },
    /// A crate of a registry of Rust.
    Crate {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
        /// The registry as `Cargo.lock` names it: `registry+URL` or `sparse+URL`.
        registry: String,
    },
    /// A file of a Debian source package.
    DebSource {
        /// Source package name.
        package: String,
        /// Version.
        version: String,
        /// Path below the mirror.
        filename: String,
        /// Where it was found when it was locked.
        archive: Option<LockedArchive>,
    },
}

impl Download {
    /// The file of a locked Debian package.
    pub fn deb(package: &str, locked: &LockedDeb) -> Self {
        Self {
            name: locked.filename.rsplit('/').next().unwrap_or_default().to_owned(),
            hash: locked.sha256.into(),
            size: Some(locked.size),
            origin: Origin::Deb {
                package: package.to_owned(),
                version: locked.version.clone(),
                architecture: locked.architecture.clone(),
                filename: locked.filename.clone(),
                archive: locked.archive.clone(),
            },
        }
    }

    /// The files of a locked Debian source package, the `.dsc` first, what it lists after it by name.
    pub fn deb_source(package: &str, locked: &LockedDebSource) -> Vec<Self> {
        let mut files: Vec<Self> = (locked.files.iter())
            .map(|file| Self {
                name: file.name.clone(),
                hash: file.sha256.into(),
                size: Some(file.size),
                origin: Origin::DebSource {
                    package: package.to_owned(),
                    version: locked.version.clone(),
                    filename: format!("{}/{}", locked.directory, file.name),
                    archive: locked.archive.clone(),
                },
            })
            .collect();
        files.sort_by_key(|file| (!file.name.ends_with(".dsc"), file.name.clone()));
        files
    }
}

impl Download {
    /// The archive of a locked tree.
    pub fn git(package: &PackageName, tree: GitTree, locked: &LockedGit) -> Self {
        let name = package.0.rsplit(':').next().unwrap_or_default();
        Self {
            name: format!("{name}-{}.nar", tree.commit.short()),
            hash: locked.nar_hash.into(),
            size: Some(locked.size),
            origin: Origin::Git {
                package: package.to_string(),
                tree,
            },
        }
    }
}

impl Derivation {
    /// The inputs of the step, without repetition.
    pub fn inputs(&self) -> BTreeSet<&Input> {
        match &self.action {
            Action::Script(script) => script.inputs(),
            Action::Configure(configure) => configure.inputs(),
            Action::DebPart { tree, .. } => BTreeSet::from([tree]),
            Action::DebugTools { packages } => packages.iter().map(|(_, tree)| tree).collect(),
            Action::DebugInfo(info) => std::iter::once(&info.output).chain(&info.source).collect(),
            Action::Fetch(_)
            | Action::Restore(_)
            | Action::Unpack { .. }
            | Action::UnpackCrate { .. }
            | Action::UnpackGitCrates { .. }
            | Action::UnpackNpm { .. }
            | Action::UnpackDeb { .. }
            | Action::UnpackDebControl { .. }
            | Action::UnpackDebSource { .. }
            | Action::UnpackEmulator { .. }
            | Action::UnpackGoModule { .. } => BTreeSet::new(),
        }
    }

    /// Whether the output is the work of programs, which is worth keeping for others; what is only unpacked is not.
    pub fn is_built(&self) -> bool {
        match &self.action {
            Action::Script(_) | Action::Configure(_) | Action::DebugTools { .. } | Action::DebugInfo(_) => true,
            Action::Fetch(_)
            | Action::Restore(_)
            | Action::Unpack { .. }
            | Action::UnpackCrate { .. }
            | Action::UnpackGitCrates { .. }
            | Action::UnpackNpm { .. }
            | Action::UnpackDeb { .. }
            | Action::UnpackDebControl { .. }
            | Action::UnpackDebSource { .. }
            | Action::UnpackEmulator { .. }
            | Action::UnpackGoModule { .. }
            | Action::DebPart { .. } => false,
        }
    }

    /// The files from outside that the step needs.
    pub fn downloads(&self) -> Vec<&Download> {
        match &self.action {
            Action::Fetch(download)
            | Action::Restore(download)
            | Action::Unpack { archive: download, .. }
            | Action::UnpackCrate { archive: download }
            | Action::UnpackGitCrates { archive: download, .. }
            | Action::UnpackNpm { archive: download, .. }
            | Action::UnpackDeb { deb: download, .. }
            | Action::UnpackDebControl { deb: download, .. }
            | Action::UnpackGoModule { zip: download, .. } => vec![download],
            Action::UnpackDebSource { files, .. } => files.iter().collect(),
            Action::UnpackEmulator { debs, .. } => debs.iter().map(|(_, deb)| deb).collect(),
            Action::Script(_)
            | Action::Configure(_)
            | Action::DebPart { .. }
            | Action::DebugTools { .. }
            | Action::DebugInfo(_) => Vec::new(),
        }
    }
}

impl Script {
    /// The machine that it makes programs for.
    pub fn target(&self) -> &str {
        self.target.as_ref().unwrap_or(&self.system)
    }

    /// Whether it is run on another machine than it makes programs for.
    pub fn is_cross(&self) -> bool {
        self.target() != self.system
    }

    /// What the spec calls an input, whose path is `path`.
    pub fn name_of(&self, input: &Input, path: &StorePath) -> String {
        let named = self.names.get(input).cloned();
        named.unwrap_or_else(|| path.name().to_owned())
    }

    /// Everything that must be in the store before the script runs, without repetition.
    pub fn inputs(&self) -> BTreeSet<&Input> {
        let declared = self
            .declared
            .iter()
            .flat_map(|(input, others)| others.iter().chain([input]));
        (self.source.iter())
            .chain(&self.root)
            .chain(&self.tools)
            .chain(&self.libraries)
            .chain(&self.runtime)
            .chain(declared)
            .chain(&self.emulator)
            .chain(language::further_inputs(self))
            .collect()
    }
}

/// A build by the user's script.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Script {
    /// The script's text.
    pub script: String,
    /// The user's variables.
    pub env: BTreeMap<String, String>,
    /// The machine that runs it: `x86_64-linux`, `aarch64-linux`.
    pub system: String,
    /// The machine that it makes programs for, where compilers are told: another than `system` where they are cross compilers.
    pub target: Option<String>,
    /// Unpacked into `/build/source`, the working directory.
    pub source: Option<Input>,
    /// What a source that is a single file is called in the working directory, where its store path's name cannot say it.
    pub source_file: Option<String>,
    /// Whether the source is a Debian source package, whose patches are applied before the script runs.
    pub debian_patches: bool,
    /// Debian packages that make up the root file system (tools, libraries and base, with what they depend
    /// on), each after what it depends on.
    pub root: Vec<Input>,
    /// Packages whose `bin` is in `PATH`.
    pub tools: Vec<Input>,
    /// Paths to link against: the packages themselves and, for Debian ones, all they depend on.
    pub libraries: Vec<Input>,
    /// Paths that the output refers to whether the scan finds them or not.
    pub runtime: Vec<Input>,
    /// For each Debian package of `root`, `libraries` and `runtime`: those it depends on, transitively. An
    /// output in which the scan finds the first also refers to the others.
    pub declared: BTreeMap<Input, BTreeSet<Input>>,
    /// Inputs that the output's closure may not hold.
    pub no_references: Vec<Input>,
    /// Inputs whose store paths are taken out of the output.
    pub strip_references: Vec<Input>,
    /// Inputs that are found at other places than in the store, by these places below `/build`; they cannot be referred to.
    pub mounts: BTreeMap<String, Input>,
    /// Inputs whose store paths are in variables, by their names: the packages of the spec, and what a language adds.
    pub variables: BTreeMap<String, Input>,
    /// What runs its programs where the machine is another one than `system`; not hashed.
    pub emulator: Option<Input>,
    /// Whether it lays out what was made elsewhere, for libraries that an image has at `/`: that these are not in the store is
    /// nothing to be told; not hashed.
    pub prebuilt: bool,
    /// What the spec calls the packages among the inputs, for messages; not hashed.
    pub names: BTreeMap<Input, String>,
    /// Most seconds it may run; not hashed.
    pub timeout_seconds: Option<u64>,
    /// What of its work is kept crate by crate; not hashed: the output is the same without.
    pub units: Option<Units>,
    /// Directories below `/build` that are kept from one run to the next; not hashed.
    pub cache_dirs: BTreeSet<String>,
}

#[cfg(test)]
mod tests;
