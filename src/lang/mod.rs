//! A *language*: how the lock file of Rust, Python, Node or Go becomes fixed outputs, build steps and a default script.
//!
//! Invariant: what comes out is a function of the package's spec, its source and `layerize.lock`; nothing is fetched and
//! nothing is run. Each dependency that a lock file pins is a file from outside of its own, with the hash that stands there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::digest::{Digest, FileHash};
use crate::fsio::{self, PathError};
use crate::shell_word::quoted;
use crate::spec::{Diagnostic, GitTree, Language, LanguageOptions, Lock, NamedTree, Package};

mod go;
mod node;
mod python;
mod rust;

pub use python::{OpenProject, open_projects};

/// Largest lock file or manifest that is read, in bytes: the largest known lock files have a tenth of that.
const TEXT_MAX: u64 = 64 << 20;

/// All that a package takes from its language.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LanguageBuild {
    /// What the lock file pins.
    pub dependencies: Vec<LockedDependency>,
    /// What the source holds of others, with the hashes of the files that it was published in: nothing of it is fetched.
    pub vendored: Vec<LockedDependency>,
    /// Trees that the steps need and that are made from the source.
    pub trees: Vec<GeneratedTree>,
    /// What is built before the package itself, each after what it needs.
    pub steps: Vec<LanguageStep>,
    /// How the package itself is built.
    pub own: Recipe,
    /// How it stands in an image that lays it out; `None`: as a whole, in its store path alone.
    pub laid: Option<Laid>,
}

/// How a package stands in a directory of an image as real files, in parts that each depend on little.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Laid {
    /// Dependencies that stand there as their files have them: the number of each, and where, relative to the directory.
    pub parts: Vec<(usize, String)>,
    /// What makes all the rest: it finds the package's store path in `LAYERIZE_PACKAGE` and the directory in `LAYERIZE_AT`,
    /// relative to `/`, and `$out` stands for `/`.
    pub rest: Recipe,
}

/// A dependency that a lock file pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedDependency {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The name of the file that holds it.
    pub file: String,
    /// What that file's bytes must be.
    pub hash: FileHash,
    /// Where it is published.
    pub registry: Registry,
    /// What becomes of the file in the store.
    pub form: Form,
}

/// Where a dependency is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registry {
    /// A registry of Rust crates.
    Crates {
        /// As the lock file names it: `registry+URL` or `sparse+URL`.
        source: String,
    },
    /// An index of Python projects.
    Python {
        /// The indexes that the lock file names.
        indexes: Vec<String>,
        /// The address that it gives.
        url: Option<String>,
    },
    /// A proxy of Go's modules, which has two files of each: a zip, and its `go.mod`.
    Go,
    /// The tree of a commit, whose archive is the file.
    Git(Box<GitTree>),
    /// A registry of npm's packages.
    Npm {
        /// The address that the lock file gives, or that of a file of the source.
        url: Option<String>,
    },
}

/// What becomes of a dependency's file in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// A crate as Cargo wants it in a directory source: its tree, and the file that states its checksum.
    Crate,
    /// Crates of a repository: the tree of a commit, laid out so that Cargo finds these, name and version of each, sorted.
    GitCrates(Vec<(String, String)>),
    /// A wheel of Python: the files of the zip as they are in it.
    Wheel,
    /// A source distribution of Python: the files in the archive's directory.
    Sdist,
    /// A module of Go: the files of the zip below its name and version.
    GoModule,
    /// The `go.mod` of a module, as it is.
    GoMod,
    /// A package of npm's, as npm unpacks it; of a repository, as npm would pack it.
    NpmPackage,
}

/// A tree that is made from a package's source while planning, so that a step depends on that alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedTree {
    /// Name part of its store path.
    pub name: String,
    /// Its files by path.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// Something that a step needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The package's source.
    Source,
    /// An element of [`LanguageBuild::dependencies`].
    Dependency(usize),
    /// An element of [`LanguageBuild::trees`].
    Tree(usize),
    /// An element of [`LanguageBuild::steps`].
    Step(usize),
}

/// A step before the package's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanguageStep {
    /// What messages call it.
    pub label: String,
    /// Name part of its output's store path.
    pub name: String,
    /// What its script finds.
    pub surroundings: Surroundings,
    /// Unpacked into the working directory.
    pub source: Option<Part>,
    /// What is run.
    pub recipe: Recipe,
}

/// What the script of a step finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Surroundings {
    /// The tools and libraries of the package.
    Package,
    /// These Debian packages alone, which [`crate::spec::deb_sets`] names for the language, sorted.
    Debs(Vec<String>),
}

/// How something is built.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recipe {
    /// What the shell runs before the script, whoever wrote that.
    pub preamble: String,
    /// The script; the package's own is used instead where it has one.
    pub script: String,
    /// Variables; the package's own win.
    pub env: BTreeMap<String, String>,
    /// Store paths that the script finds elsewhere too, read-only.
    pub mounts: Vec<Mount>,
    /// Parts that the output refers to whether the scan finds them or not.
    pub runtime: Vec<Part>,
    /// Parts whose store paths the script finds in a variable, by its name.
    pub variables: BTreeMap<String, Part>,
    /// What of the script's work is kept crate by crate.
    pub units: Option<Units>,
    /// What the shell of `layerize shell` gets instead.
    pub shell: ShellRecipe,
}

/// How a shell gets what a script gets, for the user's own files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShellRecipe {
    /// What it runs first, so that the language's tools find what is pinned here. It may write below `/build`;
    /// `LAYERIZE_SOURCE` is where the user's own files are, which it leaves as they are.
    pub activate: String,
    /// Parts whose store paths it finds in a variable, by its name.
    pub variables: BTreeMap<String, Part>,
    /// Directories of the user's own source, relative to it, in whose place it has others, empty at first.
    pub views: Vec<String>,
}

impl ShellRecipe {
    /// A shell that runs this first and, of the variables of a script, has those that it names.
    fn of(activate: String, variables: &BTreeMap<String, Part>) -> Self {
        let named = variables.iter().filter(|(name, _)| activate.contains(name.as_str()));
        Self {
            variables: named.map(|(name, part)| (name.clone(), *part)).collect(),
            activate,
            views: Vec::new(),
        }
    }
}

/// What of a script's work is kept by crates or modules, so that the next such script does not do it again. The output is the
/// same either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Units {
    /// Whose they are.
    pub kind: UnitKind,
    /// What decides how all units come out, beside the script's tools, libraries and variables; those that a language adds
    /// (`LAYERIZE_…`) do not count by themselves.
    pub scope: Digest,
    /// The crates or modules that may be compiled, by what Cargo (its package ID) or Go (`PATH@VERSION`) calls them.
    pub crates: BTreeMap<String, Unit>,
    /// The packages of the script's source whose units are kept instead, over these crates.
    pub members: Option<Members>,
}

/// Packages of a source that Cargo compiles, each of which is kept as long as it and what it needs are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// The directory in which Cargo runs, relative to the source, as all that follow.
    pub root: String,
    /// The directories of all packages; a file belongs to the one that is next above it.
    pub dirs: BTreeSet<String>,
    /// Those that are kept, by their names, which no crate has beside them.
    pub packages: BTreeMap<String, Member>,
    /// The names of all packages and crates that each may need, its own among them.
    pub needs: Arc<BTreeMap<String, BTreeSet<String>>>,
}

/// A package of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its directory.
    pub dir: String,
    /// What decides how its units come out beside the files of its directory and those of the packages that it needs.
    pub closure: Digest,
}

/// Whose units are kept, and so how they lie in what a script makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitKind {
    /// Cargo's, as in its target directory. Code of crates runs while others are compiled.
    Cargo,
    /// Go's, as in its cache, whose names say what each was made of. No code of modules runs.
    Go,
}

/// A crate or module whose units are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// What it is made of.
    pub own: Digest,
    /// What decides how its units come out: what it and all crates below it are made of.
    pub closure: Digest,
    /// Where the script finds its files; `None`: within a larger tree, or of no concern.
    pub at: Option<String>,
}

/// A store path that a script finds at another place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What is there.
    pub part: Part,
    /// Where, below `/build` and outside `/build/source`.
    pub at: String,
}

/// What a language knows of a package.
pub struct Request<'a> {
    /// The package.
    pub package: &'a Package,
    /// What it says of its language.
    pub language: &'a Language,
    /// The pins of everything that the language's own lock file does not hold.
    pub lock: &'a Lock,
    /// The package's source.
    pub source: &'a SourceTree,
}

/// Why a package cannot be planned by its lock file.
#[derive(Debug, thiserror::Error)]
pub enum LangError {
    /// A file of the source cannot be read.
    #[error(transparent)]
    Io(#[from] PathError),
    /// What is wrong, in which file, and what to do about it.
    #[error("{message}")]
    Lock {
        /// What is wrong.
        message: String,
        /// Where: the file, and the entry in it.
        place: String,
        /// What to type next.
        help: String,
    },
}

impl LangError {
    /// Something wrong at `place`, a file of the source or an entry in one.
    fn at(place: impl Into<String>, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Lock {
            message: message.into(),
            place: place.into(),
            help: help.into(),
        }
    }

    /// As it is shown at the key that names the language.
    pub fn diagnostic(self, package: &Package) -> Diagnostic {
        let key = package.language.as_ref();
        let package = &package.name.value;
        let at = |diagnostic: Diagnostic, label: String| match key {
            Some(key) => diagnostic.at(key.span.clone(), label),
            None => diagnostic,
        };
        match self {
            Self::Io(error) => at(
                Diagnostic::new(format!("cannot plan package `{package}`: {error}: {}", error.source)),
                "read for this".to_owned(),
            ),
            Self::Lock { message, place, help } => at(
                Diagnostic::new(format!("package `{package}`: {message}")),
                format!("in {place}"),
            )
            .help(help),
        }
    }
}

/// Reads a file of the source that is TOML; `help` says how to have it written anew.
fn read_toml<T: DeserializeOwned>(text: &str, file: &str, help: &str) -> Result<T, LangError> {
    toml::from_str(text).map_err(|error| {
        let line = |span: std::ops::Range<usize>| {
            let before = &text.as_bytes()[..span.start.min(text.len())];
            before.iter().filter(|&&byte| byte == b'\n').count() + 1
        };
        let place = match error.span().map(line) {
            Some(line) => format!("`{file}`, line {line}"),
            None => format!("`{file}`"),
        };
        LangError::at(place, format!("`{file}` cannot be read: {}", error.message()), help)
    })
}

/// How a language's own tool writes a lock file anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// The tool.
    pub program: &'static str,
    /// Its arguments, of one run after another.
    pub commands: Vec<Vec<String>>,
    /// Where it is run, relative to the source.
    pub dir: String,
    /// The files in that directory that it may write, the lock file first.
    pub files: Vec<String>,
    /// Variables beside the user's own.
    pub variables: Vec<(&'static str, &'static str)>,
}

/// A language whose lock files become build steps.
trait Planner {
    /// How `names`, or everything where none is named, are resolved anew; with `offline`, from what the tool has.
    fn renewal(&self, request: &Request<'_>, names: &[String], offline: bool) -> Result<Renewal, LangError>;

    /// All that `request`'s package takes from its language.
    fn plan(&self, request: &Request<'_>) -> Result<LanguageBuild, LangError>;

    /// What has to be in `layerize.lock` for it; where that has the tools already, also whether these will do.
    fn needs(&self, _request: &Request<'_>) -> Result<LockNeeds, LangError> {
        Ok(LockNeeds::default())
    }
}

impl LanguageOptions {
    fn planner(&self) -> &dyn Planner {
        match self {
            Self::Rust(planner) => planner,
            Self::Python(planner) => planner,
            Self::Go(planner) => planner,
            Self::Node(planner) => planner,
        }
    }
}

/// All that a package takes from its language, by the lock file in its source.
///
/// # Errors
///
/// No lock file, one that cannot be read, an entry without a usable hash, a dependency of a kind that is not supported.
pub fn plan(request: &Request<'_>) -> Result<LanguageBuild, LangError> {
    request.language.options.planner().plan(request)
}

/// What a package's lock file wants of `layerize.lock`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LockNeeds {
    /// Trees that it names by their commits, which say nothing of submodules and are no hashes of their content.
    pub commits: Vec<NamedTree>,
    /// What the user should know of the tools that the lock has, a line each.
    pub remarks: Vec<String>,
}

/// What a package's lock file wants of `layerize.lock`.
///
/// # Errors
///
/// As [`plan`], as far as it can be known before the source is in a store; not what `layerize.lock` does not have yet.
pub fn needs(request: &Request<'_>) -> Result<LockNeeds, LangError> {
    request.language.options.planner().needs(request)
}

/// How the lock file of a package is written anew by its language's own tool: `names` alone, or everything where none is named.
///
/// # Errors
///
/// No lock file, or one that no tool writes anew without being told how it was made.
pub fn renewal(request: &Request<'_>, names: &[String], offline: bool) -> Result<Renewal, LangError> {
    match &request.language.options {
        LanguageOptions::Rust(planner) => planner.renewal(request, names, offline),
        LanguageOptions::Python(planner) => planner.renewal(request, names, offline),
        LanguageOptions::Node(planner) => planner.renewal(request, names, offline),
        LanguageOptions::Go(planner) => planner.renewal(request, names, offline),
    }
}

/// The directory of a file, and its name in there.
fn split(file: &str) -> (&str, &str) {
    file.rsplit_once('/').unwrap_or(("", file))
}

/// `path` below `dir`, a directory of the source; both may be empty.
fn within(dir: &str, path: &str) -> String {
    match (dir, path) {
        ("", path) => path.to_owned(),
        (dir, "") => dir.to_owned(),
        (dir, path) => format!("{dir}/{path}"),
    }
}

/// `path` as seen from `dir`, without dots; `None` where it leads out of the source.
fn seen_from(dir: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// What is found in a project that has no spec yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProjectSurvey {
    /// What its programs are called, the one that is most likely meant first.
    pub programs: Vec<String>,
    /// Debian packages that it is linked against beside those of its language.
    pub libraries: Vec<&'static str>,
    /// The release of its compiler that it is for, where Debian's may be older.
    pub compiler: Option<String>,
}

/// Looks at a Rust project; what cannot be read is for its build to explain.
pub fn survey_rust(source: &SourceTree) -> ProjectSurvey {
    rust::survey(source).unwrap_or_default()
}

/// Looks at a Go project; what cannot be read is for its build to explain.
pub fn survey_go(source: &SourceTree) -> ProjectSurvey {
    go::survey(source).unwrap_or_default()
}

/// What is found in a Node project that has no spec yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeSurvey {
    /// Whether there is a lock file that can be read.
    pub has_lock: bool,
    /// The programs that it has by itself, sorted.
    pub programs: Vec<String>,
    /// Whether something says how it is started.
    pub starts: bool,
    /// Whether it has a script `build`.
    pub builds: bool,
}

/// Looks at a Node project; what cannot be read is for its build to explain.
pub fn survey_node(source: &SourceTree) -> NodeSurvey {
    node::survey(source)
}

/// The files of a package's source.
#[derive(Debug)]
pub struct SourceTree {
    root: PathBuf,
}

impl SourceTree {
    /// The tree at `root`, which does not change any more.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The text of a file; `None` where there is none.
    ///
    /// # Errors
    ///
    /// A file that is too large, that is not UTF-8, or that cannot be read.
    pub fn text(&self, path: &str) -> Result<Option<String>, LangError> {
        let text = self.bytes(path)?.map(String::from_utf8).transpose();
        text.map_err(|_| LangError::at(format!("`{path}`"), "a file is not UTF-8", "write it again as UTF-8"))
    }

    /// The content of a file; `None` where there is none.
    ///
    /// # Errors
    ///
    /// A file that is too large or that cannot be read.
    pub fn bytes(&self, path: &str) -> Result<Option<Vec<u8>>, LangError> {
        match self.is_file(path) {
            true => Ok(Some(fsio::read_limited(&self.root.join(path), TEXT_MAX)?)),
            false => Ok(None),
        }
    }

    /// The `file:` address of a file, on this machine.
    pub fn address(&self, path: &str) -> Option<String> {
        let address = url::Url::from_file_path(self.root.join(path)).ok()?;
        Some(address.into())
    }

    /// Whether there is a regular file at this place.
    pub fn is_file(&self, path: &str) -> bool {
        self.kind(path) == Some(FileKind::File)
    }

    /// What is at this place; links are followed as long as they stay within the tree.
    pub fn kind(&self, path: &str) -> Option<FileKind> {
        let root = self.root.canonicalize().ok()?;
        let place = root.join(path).canonicalize().ok()?;
        let metadata = place.starts_with(&root).then(|| place.metadata())?.ok()?;
        match (metadata.is_dir(), metadata.is_file()) {
            (true, _) => Some(FileKind::Directory),
            (_, true) => Some(FileKind::File),
            _ => None,
        }
    }

    /// Whether there is a link at this place.
    pub fn is_link(&self, path: &str) -> bool {
        self.root.join(path).is_symlink()
    }

    /// What is in a directory, sorted by name; nothing where there is none.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read.
    pub fn entries(&self, dir: &str) -> Result<Vec<(String, FileKind)>, LangError> {
        if self.kind(dir) != Some(FileKind::Directory) {
            return Ok(Vec::new());
        }
        let names = fsio::sorted_names(&self.root.join(dir))?;
        let names = names.into_iter().filter_map(|name| name.into_string().ok());
        let path = |name: &str| Path::new(dir).join(name).to_string_lossy().into_owned();
        Ok(names
            .filter_map(|name| Some((name.clone(), self.kind(&path(&name))?)))
            .collect())
    }
}

/// What is at a place in a [`SourceTree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

#[cfg(test)]
mod tests;
