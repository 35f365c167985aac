//! Why a *build* failed, and what to type next.

use std::fmt;
use std::path::PathBuf;

use super::emulation::ForeignScript;
use super::foreign::ForeignPrograms;
use super::hints;
use super::runner::FailedCommand;
use super::walls::RefusedWalls;
use crate::escape::shown_bytes;
use crate::fsio::with_causes;
use crate::peer::PeerError;
use crate::remote::RemoteError;
use crate::sandbox::{Bound, Bounds, SandboxError};
use crate::shell_word::quoted;
use crate::store::Evidence;
use crate::store_path::{StorePath, StorePathError};
use crate::walls::Walls;

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The store could not do what was asked.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// Something could not be fetched or unpacked.
    #[error(transparent)]
    Fetch(#[from] crate::fetch::FetchError),
    /// The packages of a build's root do not fit together.
    #[error(transparent)]
    Root(#[from] crate::root::RootError),
    /// Reading or writing a file failed.
    #[error(transparent)]
    Io(#[from] crate::fsio::PathError),
    /// A name that cannot be part of a store path.
    #[error(transparent)]
    StorePath(#[from] StorePathError),
    /// A step failed.
    #[error("cannot build `{label}`")]
    Step {
        /// What the user calls it.
        label: String,
        /// Why.
        #[source]
        source: Box<BuildError>,
    },
    /// What is to be entered runs no script.
    #[error("it is built without a script, so there is none to stand before")]
    NoScript,
    /// There is no failed build to be entered.
    #[error("no failed build of `{label}` is kept")]
    NothingFailed {
        /// What the user calls it.
        label: String,
    },
    /// Surroundings of builds cannot be had in one shell.
    #[error(transparent)]
    ShellConflict(Box<super::ShellConflict>),
    /// Something could not be run in its sandbox.
    #[error("cannot run {what}")]
    Sandbox {
        /// What was to be run: "the script of `hello`".
        what: String,
        /// Why.
        #[source]
        source: SandboxError,
    },
    /// A script could not be run at a builder.
    #[error("cannot build `{label}`")]
    Remote {
        /// What the user calls it.
        label: String,
        /// Why.
        #[source]
        source: Box<RemoteError>,
    },
    /// A script could not be run at another machine.
    #[error("cannot build `{label}`")]
    Peer {
        /// What the user calls it.
        label: String,
        /// Why.
        #[source]
        source: Box<PeerError>,
    },
    /// Debian packages could not be configured.
    #[error(transparent)]
    Configure(#[from] crate::configure::ConfigureError),
    /// Scripts are for another processor than this machine's, and nothing can run them.
    #[error(transparent)]
    Foreign(Box<ForeignScript>),
    /// Programs of what was built are for another processor than this machine's, and nothing can run them.
    #[error(transparent)]
    ForeignPrograms(Box<ForeignPrograms>),
    /// A script made programs for the machine that ran it, and was to make them for another.
    #[error(
        "cannot build `{label}`: it is cross-compiled for {target}, and its script made programs for this machine ({machine}): \
         `{}`",
        files.join("`, `")
    )]
    NotForTarget {
        /// What the user calls it.
        label: String,
        /// What it is for: `aarch64-linux`.
        target: String,
        /// What this machine is.
        machine: String,
        /// Some of the files, relative to the output.
        files: Vec<String>,
    },
    /// A time zone is none of those that the package has.
    #[error("there is no time zone `{zone}`")]
    UnknownZone {
        /// As the spec has it.
        zone: String,
        /// The one that may have been meant.
        similar: Option<String>,
    },
    /// Maintainer scripts were to run without a sandbox.
    #[error(
        "maintainer scripts run in namespaces only, not behind `{walls}`: they need a root of their own that they can change"
    )]
    ScriptsUnwalled {
        /// What there is instead.
        walls: Walls,
    },
    /// No walls that are strong enough can be had.
    #[error("scripts cannot run here behind `{least}` or more:\n{}", refusals(refused))]
    NoWalls {
        /// The weakest that were asked for; with none asked for, those that are chosen unasked.
        least: Walls,
        /// What was tried.
        refused: Vec<RefusedWalls>,
    },
    /// Two wishes that go against each other.
    #[error("scripts are to run behind `{walls}`, and something requires `{least}`")]
    TooWeak {
        /// What was asked for.
        walls: Walls,
        /// What is required.
        least: Walls,
    },
    /// A script failed.
    #[error(transparent)]
    Script(Box<ScriptFailure>),
    /// An output refers to what it may not refer to.
    #[error(transparent)]
    RefusedReference(Box<RefusedReference>),
    /// A store path that is needed is not in the store.
    #[error("`{path}` is not in the store")]
    MissingPath {
        /// The path.
        path: StorePath,
    },
    /// A path that an output refers to is gone from the store, and no step makes it.
    #[error("`{path}` is missing from the store, and nothing here can rebuild it")]
    Lost {
        /// The path.
        path: StorePath,
    },
    /// The root of a build has no shell.
    #[error("cannot run the script of `{label}`: none of its packages has a shell")]
    NoShell {
        /// What the user calls it.
        label: String,
    },
    /// A shell has something else in place of a directory, and there is none.
    #[error("a shell cannot have packages at `{}`: what is there, or on the way, is a link or a file", place.display())]
    NoView {
        /// The directory.
        place: PathBuf,
    },
    /// Without a sandbox the store is not where its paths say.
    #[error("cannot build without a sandbox: `/layerize/store` is not a link to `{}`", store.display())]
    NotLinked {
        /// The store's directory of trees.
        store: PathBuf,
    },
    /// Without a sandbox nothing can be put at a place of its own.
    #[error(
        "cannot build `{label}` without a sandbox: it finds what its lock file pins, or its `cache`, at fixed places, which \
         only a sandbox has"
    )]
    NeedsSandbox {
        /// What the user calls it.
        label: String,
    },
    /// The source has something where a package's cache is to be.
    #[error("cannot build with the cache `{dir}`: the source has something at this place, which it would hide")]
    CacheInSource {
        /// The place in the sandbox.
        dir: String,
    },
    /// What somebody else built cannot be taken.
    #[error("cannot take `{label}` from `{place}`")]
    Shared {
        /// What the user calls it.
        label: String,
        /// Where it is.
        place: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// [`crate::sandbox::cancel`] was called.
    #[error("the build was cancelled")]
    Cancelled,
    /// More than one step failed.
    #[error("{} builds failed:\n{}", failures.len(), lines(failures))]
    Several {
        /// Each one's failure, in the order in which they failed.
        failures: Vec<BuildError>,
    },
}

impl BuildError {
    /// Whether it was said of another step already.
    pub(super) fn is_known(&self) -> bool {
        match self {
            Self::Remote { source, .. } => source.is_known(),
            Self::Peer { source, .. } => source.is_known(),
            _ => false,
        }
    }

    /// Whether a script ran and failed, whoever wrote it.
    pub fn is_of_a_script(&self) -> bool {
        use crate::configure::ConfigureError;
        matches!(self, Self::Script(_) | Self::Configure(ConfigureError::Script { .. }))
    }

    /// What to type next.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Step { source, .. } => source.help(),
            Self::Sandbox { source, .. } => source.help(),
            Self::Store(error) => error.help(),
            Self::Fetch(error) => error.help(),
            Self::Root(error) => error.help(),
            Self::Script(failure) => failure.help(),
            Self::Remote { source, .. } => source.help(),
            Self::Peer { source, .. } => source.help(),
            Self::RefusedReference(refused) => Some(refused.help()),
            Self::Configure(error) => error.help(),
            Self::UnknownZone { similar, .. } => Some(match similar {
                Some(similar) => format!("did you mean `timezone = \"{similar}\"`?"),
                None => "write a name of the time zone database, such as `Europe/Berlin` or `Etc/UTC`".to_owned(),
            }),
            Self::ScriptsUnwalled { .. } => Some(
                "leave out `--sandbox`, and allow user namespaces (`layerize help sandbox`); or leave the packages as they \
                 are unpacked with `configure = false`"
                    .to_owned(),
            ),
            Self::NoWalls { refused, .. } => Some(help_for_walls(refused)),
            Self::TooWeak { walls, .. } => Some(format!(
                "leave `--sandbox {walls}`, or the builder, out, or ask for less with `--require-sandbox` and `[build] require`"
            )),
            Self::Foreign(foreign) => Some(foreign.help()),
            Self::ForeignPrograms(foreign) => Some(foreign.help()),
            Self::NotForTarget { .. } => Some(
                "have the script compile with `$CC`, `$CXX` and the like, or leave `cross` out; what programs of this machine \
                 have to be there for is a package of its own in `tools` (`layerize help emulation`)"
                    .to_owned(),
            ),
            Self::NoView { .. } => Some("put it aside, or a directory in its place".to_owned()),
            Self::NoShell { .. } => Some("add `tools = [\"deb:bash\"]`, or leave `base` at its default".to_owned()),
            Self::Several { failures } => failures.iter().find_map(Self::help),
            Self::Lost { path } => Some(format!(
                "`layerize store verify --repair {path}` forgets it and what refers to it, so that both are made anew"
            )),
            Self::NotLinked { store } => Some(format!(
                "sudo mkdir -p /layerize && sudo ln -sfn {} /layerize/store",
                quoted(store)
            )),
            Self::NoScript => Some("name a package that has a `script` or a language".to_owned()),
            Self::NothingFailed { label } => Some(format!("keep one: `layerize build --keep-failed {label}`")),
            Self::ShellConflict(conflict) => Some(format!(
                "enter `{}` and `{}` one at a time, or make them agree",
                conflict.first, conflict.second
            )),
            Self::NeedsSandbox { .. } => Some("leave `--sandbox none` out".to_owned()),
            Self::CacheInSource { .. } => {
                Some("name another place in `cache`, or leave what is there out of `source` by `exclude`".to_owned())
            }
            _ => None,
        }
    }
}

/// Each wall that was tried, and why it cannot be had.
fn refusals(refused: &[RefusedWalls]) -> String {
    let lines = refused
        .iter()
        .map(|refused| format!("  {}: {}", refused.walls, refused.reason));
    lines.collect::<Vec<_>>().join("\n")
}

fn help_for_walls(refused: &[RefusedWalls]) -> String {
    let helps = refused
        .iter()
        .filter_map(|refused| Some(format!("for `{}`: {}", refused.walls, refused.help.as_ref()?)));
    let mut helps: Vec<String> = helps.collect();
    helps.push("`layerize help sandbox` says what each of them needs".to_owned());
    helps.join("\n  ")
}

/// Each failure with its causes, below what they are failures of.
fn lines(failures: &[BuildError]) -> String {
    let lines = failures.iter().map(|failure| format!("  {}", with_causes(failure)));
    lines.collect::<Vec<_>>().join("\n")
}

/// A script that did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptFailure {
    /// What the user calls the package.
    pub label: String,
    /// What went wrong.
    pub reason: Reason,
    /// The command that failed, where that is known.
    pub command: Option<FailedCommand>,
    /// What it was allowed to use.
    pub bounds: Bounds,
    /// Whether it found what earlier runs left in its cache.
    pub had_cache: bool,
    /// The last lines of its log.
    pub tail: Vec<String>,
    /// Where the whole log is.
    pub log: PathBuf,
    /// Where the build directory is, if it was kept.
    pub kept: Option<PathBuf>,
}

/// An output with a reference that its package refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot build `{label}`: its output refers to `{path}`{} ({evidence})",
    if *through { format!(", and so has `{name}` in its closure") } else { format!(", which is `{name}`") }
)]
pub struct RefusedReference {
    /// What the user calls the package.
    pub label: String,
    /// Whether it was to be taken out, by `strip-references`.
    pub stripped: bool,
    /// Whether what it refers to is only what leads to what `no-references` names.
    pub through: bool,
    /// What the spec calls what is refused.
    pub name: String,
    /// What it refers to.
    pub path: StorePath,
    /// Where it does so.
    pub evidence: Evidence,
}

impl RefusedReference {
    fn help(&self) -> String {
        let name = &self.name;
        match self.stripped {
            true => format!(
                "`strip-references` cannot take `{name}` out of a name or of what is compressed: have the script write \
                 that file without it, or compress it afterwards"
            ),
            false if self.through => "leave out what leads there, or take it out with `strip-references`".to_owned(),
            false => format!(
                "have the script write it without that path, or take it out: `strip-references = [\"{name}\"]`; if the \
                 program needs it, leave it out of `no-references`"
            ),
        }
    }
}

/// What went wrong with a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It exited with this status.
    Status(i32),
    /// It was killed by this signal.
    Signal(i32),
    /// It did not end within this many seconds.
    TimedOut(u64),
    /// It hit this of its bounds.
    Exceeded(Bound, Bounds),
    /// It ended well and left nothing at `$out`.
    NoOutput,
    /// It made `$out` a link to this, which is no part of the store paths that it was given.
    LeadsOut(PathBuf),
    /// It wrote these names beside `$out`.
    OutsideOutput(Vec<String>),
}

impl std::error::Error for ScriptFailure {}

impl fmt::Display for ScriptFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot build `{}`: ", self.label)?;
        match (&self.command, &self.reason) {
            (Some(command), Reason::Status(_) | Reason::Signal(_)) => write!(f, "{command} ")?,
            _ => f.write_str("its script ")?,
        }
        match &self.reason {
            Reason::Status(status) => write!(f, "failed with exit status {status}"),
            Reason::Signal(signal) => write!(f, "was killed by signal {}", signal_name(*signal)),
            Reason::Exceeded(bound, bounds) => write!(f, "was stopped: it exceeded {}", shown(*bound, bounds)),
            Reason::TimedOut(seconds) => write!(f, "did not end within {seconds} seconds and was killed"),
            Reason::NoOutput => f.write_str("ended well but left nothing at `$out`"),
            Reason::LeadsOut(target) => {
                let target = shown_bytes(target.as_os_str().as_encoded_bytes());
                write!(
                    f,
                    "made `$out` a link to `{target}`, which leads out of it and will not be there"
                )
            }
            Reason::OutsideOutput(names) => write!(f, "wrote `{}` into the store, beside `$out`", names.join("`, `")),
        }?;
        if !self.tail.is_empty() {
            f.write_str("\n  the last lines of its log:")?;
        }
        for line in &self.tail {
            write!(f, "\n    {line}")?;
        }
        write!(f, "\n  the whole log: {}", self.log.display())?;
        match &self.kept {
            Some(kept) => write!(
                f,
                "\n  the build directory: {}\n  `layerize shell --build {} --failed` enters it",
                kept.display(),
                self.label
            ),
            None => Ok(()),
        }
    }
}

impl fmt::Display for FailedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.text.lines();
        write!(f, "`{}", lines.next().unwrap_or_default())?;
        f.write_str(if lines.next().is_some() { " …`" } else { "`" })?;
        match self.line {
            Some(line) => write!(f, " (line {line} of its script)"),
            None => Ok(()),
        }
    }
}

impl ScriptFailure {
    /// What to type next.
    pub fn help(&self) -> Option<String> {
        match &self.reason {
            Reason::NoOutput => Some(
                "the script must make a file or directory `$out`: `make install` after `./configure --prefix=$out`, \
                 or `install -D hello $out/bin/hello`"
                    .to_owned(),
            ),
            Reason::LeadsOut(target) => Some(format!(
                "copy what the link leads to: `cp -a {} $out`; a link into a package of `tools` or `runtime` may stay",
                shown_bytes(target.as_os_str().as_encoded_bytes())
            )),
            Reason::OutsideOutput(_) => Some("write to `$out` or below it alone".to_owned()),
            Reason::Exceeded(..) => Some(help_for_bounds()),
            Reason::TimedOut(_) => Some("raise `timeout` in the package, for example `timeout = \"2h\"`".to_owned()),
            Reason::Status(_) | Reason::Signal(_) => (self.help_from_log())
                .or_else(|| self.help_with_cache())
                .or_else(|| self.help_to_look()),
        }
    }

    fn help_from_log(&self) -> Option<String> {
        let is_bounded = self.bounds != Bounds::default();
        if is_bounded && hints::ran_out(&self.tail) {
            return Some(help_for_bounds());
        }
        hints::hint(&self.tail)
    }

    fn help_with_cache(&self) -> Option<String> {
        let help = "it found what earlier runs left in its `cache`; `--no-build-cache` runs it without";
        self.had_cache.then(|| help.to_owned())
    }

    fn help_to_look(&self) -> Option<String> {
        match &self.kept {
            Some(_) => None,
            None => Some(
                "`layerize build --keep-failed` keeps the build directory; `layerize shell` has the build's surroundings"
                    .to_owned(),
            ),
        }
    }
}

fn help_for_bounds() -> String {
    "raise `max-memory` or `max-processes`: `--max-memory 4GiB`, `--max-processes 500`, or `[build]` in the configuration or \
     in layerize.toml; a script that heeds `$LAYERIZE_CORES` needs less with `--cores 1`"
        .to_owned()
}

/// How a bound is written, and its value.
fn shown(bound: Bound, bounds: &Bounds) -> String {
    match bound {
        Bound::Memory => format!("max-memory {}", shown_size(bounds.memory.unwrap_or(0))),
        Bound::Processes => format!("max-processes {}", bounds.processes.unwrap_or(0)),
    }
}

/// A size as it would be written in a spec.
fn shown_size(bytes: u64) -> String {
    let units = [
        (1_u64 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1_000_000_000, "GB"),
        (1_000_000, "MB"),
        (1 << 10, "KiB"),
    ];
    let exact = units
        .iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    exact.map_or_else(
        || format!("{bytes} bytes"),
        |(unit, name)| format!("{} {name}", bytes / unit),
    )
}

/// `SIGSEGV`, or the number where it has no name.
fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal).map_or_else(|_| signal.to_string(), |signal| signal.to_string())
}
