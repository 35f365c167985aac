//! The types of a parsed spec: packages, images, sources and dependencies, each value with its span.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::certificates::Certificates;
use super::git::GitSource;
use super::health::HealthCheck;
use super::image_entries::{ImageFile, Permission, User};
use super::imported::ImportedSpec;
use super::language::Language;
use super::trial::ImageTest;
use crate::digest::Digest;
use crate::oci::{Compression, LayerLimit, LayerStrategy, Platform, Port, StopSignal, TarProfile};
use crate::store_path::LogicalPath;
use crate::walls::Walls;

/// A value and where it stands: file index into [`Workspace::files`] and byte range in that file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// A value that stands in no file: a flag's.
    pub fn nowhere(value: T) -> Self {
        Self {
            value,
            span: Span {
                file: usize::MAX,
                range: 0..0,
            },
        }
    }
}

impl<T: Serialize> Serialize for Spanned<T> {
    /// As the value: where it stands decides nothing.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

/// A place in one of the workspace's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Index into [`Workspace::files`].
    pub file: usize,
    /// Byte range in the file's text.
    pub range: Range<usize>,
}

/// The text of a spec or of a file that is read with it, for diagnostics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// As shown to the user, relative to where they are if possible.
    pub path: PathBuf,
    /// The whole text.
    pub text: String,
}

/// A package's name, with the alias path of the import it came from: `hello`, `base:openssl`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PackageName(pub String);

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A root spec with everything it imports, checked: every name resolves, no cycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// The root file first, then imported ones in order of first mention, then the certificates that images name.
    pub files: Vec<SourceFile>,
    /// All packages by qualified name; the root file's own have no prefix.
    pub packages: BTreeMap<PackageName, Package>,
    /// Projects elsewhere, by the qualified aliases of their imports. The tree of each is the source of a package that is
    /// called so; their own packages are not among ours.
    pub imports: BTreeMap<String, ImportedSpec>,
    /// The root file's images.
    pub images: BTreeMap<String, Image>,
    /// The root file's `[debian]` table.
    pub debian: Debian,
    /// The root file's `[inputs]` table.
    pub inputs: Inputs,
    /// The root file's `[cache]` table.
    pub cache: SharedCaches,
    /// The root file's `[build]` table.
    pub build: BuildSettings,
}

/// `[package.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Qualified name and where its table header stands.
    pub name: Spanned<PackageName>,
    /// Directory of the file that declares it, to which its paths are relative.
    pub dir: PathBuf,
    /// `version`; the output is named `NAME-VERSION`.
    pub version: Option<Spanned<String>>,
    /// `source`: unpacked into the build's working directory.
    pub source: Option<Spanned<Source>>,
    /// `rust`, `python`, `node` or `go`: what its own lock file pins.
    pub language: Option<Spanned<Language>>,
    /// `tools`: in the build only.
    pub tools: Vec<Spanned<Dependency>>,
    /// `libraries`: linked against; what is really used stays referenced.
    pub libraries: Vec<Spanned<Dependency>>,
    /// `runtime`: in the closure whether or not the scan finds them.
    pub runtime: Vec<Spanned<Dependency>>,
    /// `dev`: in `layerize shell` only.
    pub dev: Vec<Spanned<Dependency>>,
    /// `no-references`: dependencies that may not be in the closure.
    pub no_references: Vec<Spanned<Dependency>>,
    /// `strip-references`: dependencies whose store paths are taken out of the output.
    pub strip_references: Vec<Spanned<Dependency>>,
    /// `env`: variables of the build.
    pub env: BTreeMap<String, Spanned<String>>,
    /// `script`: run by `bash -e` (or `sh` where no bash is among the tools); `None` takes the source as it is, or builds
    /// it as its language is built.
    pub script: Option<Spanned<String>>,
    /// `timeout` in seconds.
    pub timeout_seconds: Option<u64>,
    /// `cache.dirs`: directories below `/build` that are kept from one run of the script to the next.
    pub cache_dirs: Vec<Spanned<String>>,
    /// `base`: whether Debian's small shell environment is among the tools (default true).
    pub base: bool,
    /// `cross`: whether tools of another machine make it where that builds; `None`: as `[build]` says.
    pub cross: Option<bool>,
}

impl Package {
    /// Whether something is run for it; otherwise it is its source as it is.
    pub fn is_built(&self) -> bool {
        self.script.is_some() || self.language.is_some()
    }
}

/// What a package or image depends on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dependency {
    /// `deb:NAME`: a Debian binary package with what it depends on.
    Debian(String),
    /// `NAME` or `alias:NAME`: a package of the workspace.
    Package(PackageName),
    /// `/layerize/store/HASH-NAME`: a path that must be in the store.
    StorePath(LogicalPath),
    /// `{ nix = "…" }`: a path of a Nix store, or a link that leads to one, relative to the spec. Only in `contents`.
    Nix(String),
}

impl fmt::Display for Dependency {
    /// As the user writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian(name) => write!(f, "deb:{name}"),
            Self::Package(name) => name.fmt(f),
            Self::StorePath(path) => path.fmt(f),
            Self::Nix(path) => f.write_str(path),
        }
    }
}

/// Where a package's source comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `{ path = "src", include = […], exclude = […], gitignore = true }`, relative to the package's `dir`.
    Path {
        /// The file or directory.
        path: String,
        /// Gitignore-style patterns; where given, only what matches one is taken.
        include: Vec<String>,
        /// Gitignore-style patterns of what is left out.
        exclude: Vec<String>,
        /// Whether `.gitignore` files below the path are honoured (default true).
        gitignore: bool,
    },
    /// `{ url = "…", sha256 = "…", unpack = true, strip = 1 }`; `file:`, `http:` and `https:`.
    Url {
        /// The address.
        url: String,
        /// Digest of the file; where absent, the lock pins it.
        sha256: Option<Digest>,
        /// Whether to unpack it; default: by its name.
        unpack: Option<bool>,
        /// Leading directories dropped while unpacking; default 1 if all entries share one, else 0.
        strip: Option<u32>,
        /// Whether the file may be copied to where inputs are kept (default true).
        redistribute: bool,
    },
    /// `{ deb-source = "hello" }`: a Debian source package, its patches applied.
    DebianSource {
        /// Source package name.
        name: String,
    },
    /// `{ git = "…", rev = "…" }`: the tree of a commit.
    Git(Box<GitSource>),
}

/// `[debian]`: where Debian packages come from and which small set every build has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Debian {
    /// `sources`: deb822 or one-line apt sources; empty: those of the machine.
    pub sources: Vec<String>,
    /// `keyring`: path of the keyring for `sources`, relative to the spec; `None`: the machine's.
    pub keyring: Option<String>,
    /// `architecture`: Debian's name (`amd64`); `None`: the machine's when the lock is made.
    pub architecture: Option<String>,
    /// `snapshots`: servers that keep what archives dropped, beside those that the machine knows.
    pub snapshots: Vec<String>,
    /// `base`: replaces the packages that every build has (names without `deb:`).
    pub base: Option<Vec<String>>,
}

/// `[build]`: what scripts may use at most, and what they must run behind. Nothing in it changes what is built, but for
/// `cross`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BuildSettings {
    /// `max-memory` in bytes.
    pub max_memory: Option<u64>,
    /// `max-processes`.
    pub max_processes: Option<u64>,
    /// `require`: the weakest walls that are enough.
    pub require: Option<Walls>,
    /// `emulate`: what may run scripts for another processor than the machine's.
    pub emulate: Emulate,
    /// `cross`: whether packages that do not say so themselves are compiled by tools of the machine that builds.
    pub cross: bool,
}

/// What may run scripts for another processor than the machine's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Emulate {
    /// An emulator that the lock pins, else the machine's.
    #[default]
    Auto,
    /// The machine's.
    Machine,
    /// Nothing.
    Never,
}

impl Emulate {
    /// All that a spec may say.
    pub const NAMES: [&str; 3] = ["auto", "machine", "never"];
}

impl FromStr for Emulate {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Auto),
            "machine" => Ok(Self::Machine),
            "never" => Ok(Self::Never),
            _ => Err(()),
        }
    }
}

/// `[inputs]`: where files from outside are kept. Nothing in it changes what is built.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inputs {
    /// Directory of the file that has the table, to which places are relative.
    pub dir: PathBuf,
    /// `from`: places asked before mirrors, as the user wrote them.
    pub from: Vec<Spanned<String>>,
    /// `withhold`: Debian packages whose files may not be copied.
    pub withhold: Vec<Spanned<Withheld>>,
}

/// `[cache]`: where what was built is kept for others. Nothing in it changes what is built.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SharedCaches {
    /// Directory of the file that has the table, to which places are relative.
    pub dir: PathBuf,
    /// `from`: places asked before anything is built, as the user wrote them.
    pub from: Vec<Spanned<String>>,
    /// `to`: places that what was built goes to.
    pub to: Vec<Spanned<String>>,
    /// `trusted-keys`: whose entries are believed, `NAME:BASE64`.
    pub trusted_keys: Vec<Spanned<String>>,
}

/// An element of `withhold`: a Debian package of the lock.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Withheld {
    /// `deb:NAME`.
    Deb(String),
    /// `deb-source:NAME`.
    DebSource(String),
}

impl fmt::Display for Withheld {
    /// As the user writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deb(name) => write!(f, "deb:{name}"),
            Self::DebSource(name) => write!(f, "deb-source:{name}"),
        }
    }
}

/// `[image.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Name and where its table header stands.
    pub name: Spanned<String>,
    /// Directory of the file that declares it.
    pub dir: PathBuf,
    /// `tag` (default `latest`).
    pub tag: String,
    /// `contents`: store paths at their own place, joined under `/` by symlinks.
    pub contents: Vec<Spanned<Dependency>>,
    /// `root`: Debian packages laid out at `/`, with those that `essential` stands for.
    pub root: Vec<Spanned<Dependency>>,
    /// `lay`: packages of the spec whose files stand in a directory of the image, by its absolute path.
    pub lay: BTreeMap<String, Spanned<PackageName>>,
    /// `exclude`: Debian packages (names without `deb:`) that the image does not get, though others depend on them.
    pub exclude: Vec<Spanned<String>>,
    /// `configure` (default true where there is a `root`): how the maintainer scripts of its packages are run; `None`: they
    /// are not.
    pub configure: Option<Configure>,
    /// `debconf`: answers to what maintainer scripts ask, by the question's name.
    pub debconf: BTreeMap<String, String>,
    /// `locales`: names of locales that are generated, sorted, each once.
    pub locales: Vec<String>,
    /// `certificates`: what authorities it trusts; `None`: those that its packages bring.
    pub certificates: Option<Certificates>,
    /// `base`: where the image is that this one is laid over, as the user wrote it.
    pub base: Option<Spanned<String>>,
    /// `files`: by absolute path in the image.
    pub files: BTreeMap<String, Spanned<ImageFile>>,
    /// `users`: by name.
    pub users: BTreeMap<String, Spanned<User>>,
    /// `entrypoint`.
    pub entrypoint: Vec<String>,
    /// `cmd`.
    pub cmd: Vec<String>,
    /// `env`, in the order of their names.
    pub env: BTreeMap<String, String>,
    /// `workdir`.
    pub workdir: Option<String>,
    /// `user`: `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// `ports`: `80`, `"53/udp"`, `"8000-8010/tcp"`, each port of a range.
    pub ports: Vec<Port>,
    /// `volumes`.
    pub volumes: Vec<String>,
    /// `labels`.
    pub labels: BTreeMap<String, String>,
    /// `annotations` of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// `allow-missing`: libraries and interpreters that need not be in the image.
    pub allow_missing: Vec<String>,
    /// `stop-signal`.
    pub stop_signal: Option<StopSignal>,
    /// `healthcheck`.
    pub healthcheck: Option<HealthCheck>,
    /// `tests`, in the order of their names.
    pub tests: Vec<ImageTest>,
    /// `layers`.
    pub layers: Layers,
    /// `platform`: what it is made for, one image each; none: `linux/amd64` or what the lock's architecture says.
    pub platforms: Vec<Spanned<Platform>>,
    /// `compression` (default gzip).
    pub compression: Option<Spanned<Compression>>,
    /// `permissions`: modes and owners by path or pattern, in the order in which they apply.
    pub permissions: Vec<Permission>,
    /// `created`: seconds since 1970; `None`: `SOURCE_DATE_EPOCH`, else 1.
    pub created: Option<i64>,
    /// `nix-db`: whether the image has a Nix database that knows its `/nix/store` paths.
    pub nix_db: bool,
    /// `timezone`: a name of the time zone database.
    pub timezone: Option<Spanned<String>>,
    /// `utf-8`: whether the C library has `C.UTF-8`, and programs take their texts for UTF-8 unless `env` says otherwise.
    pub utf8: bool,
    /// `join`: what of the closure stands at `/`; `None`: the contents, and the data that its libraries look for.
    pub join: Option<Join>,
    /// Whether it is the debug image that another one's `debug` asks for.
    pub debug: Option<DebugImage>,
}

/// What makes a debug image of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebugImage {
    /// The image whose layers it has.
    pub of: String,
    /// `tools`: Debian packages (names without `deb:`), sorted.
    pub tools: Vec<String>,
}

/// What of an image's closure stands at `/`, besides at its store paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Join {
    /// The contents, and all data of Debian packages that some library looks for at a fixed place.
    Closure,
    /// The contents alone.
    Contents,
}

impl Join {
    /// All that a spec may say.
    pub const NAMES: [&str; 2] = ["closure", "contents"];
}

impl FromStr for Join {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "closure" => Ok(Self::Closure),
            "contents" => Ok(Self::Contents),
            _ => Err(()),
        }
    }
}

impl Image {
    /// An image with nothing in it, which no file declares.
    pub fn new(name: &str) -> Self {
        Self {
            name: Spanned::nowhere(name.to_owned()),
            dir: PathBuf::new(),
            tag: "latest".to_owned(),
            contents: Vec::new(),
            root: Vec::new(),
            exclude: Vec::new(),
            configure: None,
            debconf: BTreeMap::new(),
            locales: Vec::new(),
            certificates: None,
            base: None,
            files: BTreeMap::new(),
            users: BTreeMap::new(),
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            env: BTreeMap::new(),
            workdir: None,
            user: None,
            ports: Vec::new(),
            volumes: Vec::new(),
            lay: BTreeMap::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            allow_missing: Vec::new(),
            stop_signal: None,
            healthcheck: None,
            tests: Vec::new(),
            layers: Layers::default(),
            platforms: Vec::new(),
            compression: None,
            permissions: Vec::new(),
            created: None,
            nix_db: false,
            timezone: None,
            utf8: true,
            join: None,
            debug: None,
        }
    }

    /// The name by which the spec has it: a debug image is in the spec's text, and in the lock, as the image that it is of.
    pub fn spec_name(&self) -> &str {
        self.debug.as_ref().map_or(&self.name.value, |debug| &debug.of)
    }

    /// The words of its health check's command.
    pub fn health_command(&self) -> &[String] {
        match &self.healthcheck {
            Some(HealthCheck::Run(probe)) => &probe.run,
            Some(HealthCheck::Off) | None => &[],
        }
    }

    /// `NAME:TAG`, as registries and engines are told.
    pub fn reference(&self) -> String {
        format!("{}:{}", self.spec_name(), self.tag)
    }
}

/// `configure = true`, or `{ skip = ["deb:…"] }`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Configure {
    /// `skip`: Debian packages (names without `deb:`) that stay as they are unpacked, sorted, each once.
    pub skip: Vec<Spanned<String>>,
}

/// `layers = { strategy, max, beyond-docker, groups, weights, plan, tar-profile }`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layers {
    /// `strategy`; `None`: `churn`.
    pub strategy: Option<Spanned<LayerStrategy>>,
    /// `tar-profile`: the dialect of the layers' tars.
    pub tar_profile: Option<Spanned<TarProfile>>,
    /// Most layers the image may have; `None`: 100.
    pub max: Option<Spanned<LayerLimit>>,
    /// `beyond-docker`: whether `max` may be more than Docker loads.
    pub beyond_docker: bool,
    /// Groups of package names that stand together in a layer of their own.
    pub groups: Vec<Vec<String>>,
    /// Probability of change by package name, in parts per million.
    pub weights: BTreeMap<String, u32>,
    /// File that keeps the plan, or a plan written by hand, relative to the spec.
    pub plan: Option<Spanned<String>>,
}

/// The Essential packages of Debian 12 and 13, which maintainer scripts may use without saying so (Debian policy §3.8).
/// `usr-is-merged` is named so that it is chosen before `usrmerge`, which would change a running system.
pub const DEBIAN_ESSENTIAL: &[&str] = &[
    "base-files",
    "base-passwd",
    "bash",
    "bsdutils",
    "coreutils",
    "dash",
    "debconf",
    "debianutils",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "init-system-helpers",
    "libc-bin",
    "login",
    "ncurses-base",
    "ncurses-bin",
    "perl-base",
    "sed",
    "sysvinit-utils",
    "tar",
    "usr-is-merged",
    "util-linux",
];

/// What `essential` stands for besides [`DEBIAN_ESSENTIAL`]: the packages of priority `required`, which a system that was just
/// set up has as well.
pub const DEBIAN_REQUIRED: &[&str] = &[
    "apt",
    "e2fsprogs",
    "libpam-modules",
    "libpam-modules-bin",
    "libpam-runtime",
    "mawk",
    "mount",
    "passwd",
    "tzdata",
];

/// The tools of a debug image where the spec names none: a shell, a debugger, and what shows files and processes.
pub const DEBIAN_DEBUG: &[&str] = &[
    "bash",
    "coreutils",
    "findutils",
    "gdb",
    "grep",
    "less",
    "ncurses-base",
    "procps",
    "sed",
    "strace",
];

/// Debian packages that every build has unless `base = false` or `[debian] base` says otherwise: a shell and
/// what `configure` scripts take for granted.
pub const DEBIAN_BASE: &[&str] = &[
    "bash",
    "bzip2",
    "coreutils",
    "dash",
    "diffutils",
    "findutils",
    "gawk",
    "grep",
    "gzip",
    "libc-bin",
    "patch",
    "sed",
    "tar",
    "xz-utils",
];
