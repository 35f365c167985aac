//! Why something could not be *fetched, resolved or unpacked*, and what to type next.

use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use crate::digest::{DigestMismatch, FileHash};
use crate::fsio::PathError;
use crate::http::{HttpError, address, tls};
use crate::nar::NarError;
use crate::store::StoreError;

use super::git::GitError;
use super::unpack::UnpackError;

/// A file that was wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What the user calls it: `deb:gcc`, `deb-source:hello`, a file's name.
    pub name: String,
    /// Version, where it has one.
    pub version: Option<String>,
    /// File name without directory.
    pub file: String,
    /// Size in bytes, where it is known.
    pub size: Option<u64>,
    /// What its bytes must be.
    pub hash: FileHash,
    /// What brings a file of a language to this machine, where it is of one.
    pub advice: Option<&'static str>,
}

impl Display for Wanted {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.name)?;
        if let Some(version) = &self.version {
            write!(f, " {version}")?;
        }
        f.write_str(" (")?;
        if self.file != self.name {
            write!(f, "{}, ", self.file)?;
        }
        if let Some(size) = self.size {
            write!(f, "{size} bytes, ")?;
        }
        write!(f, "{})", self.hash)
    }
}

/// A place that was asked for a file, and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// A place or a mirror as the user wrote it, or `apt`.
    pub place: String,
    /// What it said.
    pub answer: Answer,
}

impl Display for Asked {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.answer)
    }
}

/// What a place said that did not give a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// There is no such file.
    NotThere,
    /// The file there is another.
    OtherContent,
    /// Nothing: no connection, or one that broke off.
    Silence,
    /// An error.
    Error,
    /// The place is a program that is not installed.
    NotInstalled,
    /// The file may not be copied, and so was not kept.
    Withheld,
    /// It was not asked, for this reason.
    NotAsked(&'static str),
}

impl Answer {
    /// What an error of a transfer says of the place; what says nothing of it comes back.
    pub(super) fn of(error: FetchError) -> Result<Self, FetchError> {
        Self::about(&error).ok_or(error)
    }

    /// What an error of a transfer says of the place; `None` where it says nothing of it.
    pub(super) fn about(error: &FetchError) -> Option<Self> {
        match error {
            FetchError::NotFound { .. } => Some(Self::NotThere),
            FetchError::Digest { .. } | FetchError::Size { .. } | FetchError::NoModule { .. } => {
                Some(Self::OtherContent)
            }
            FetchError::Unreachable { .. } | FetchError::Interrupted { .. } => Some(Self::Silence),
            FetchError::Status { .. }
            | FetchError::Place { .. }
            | FetchError::TooLarge { .. }
            | FetchError::Index { .. }
            | FetchError::Http {
                source: HttpError::Redirect { .. },
                ..
            } => Some(Self::Error),
            FetchError::Git(error) => Self::about_repository(error),
            _ => None,
        }
    }

    /// What a repository's error says of the place; what is wrong with a tree is so wherever it comes from.
    fn about_repository(error: &GitError) -> Option<Self> {
        match error {
            GitError::NotInstalled { .. } => Some(Self::NotInstalled),
            GitError::Unreachable { .. } => Some(Self::Silence),
            GitError::NoRepository { .. } | GitError::NoCommit { .. } => Some(Self::NotThere),
            GitError::OtherTree { .. } => Some(Self::OtherContent),
            GitError::Denied { .. }
            | GitError::UnknownHost { .. }
            | GitError::Owner { .. }
            | GitError::Failed { .. }
            | GitError::LfsObject { .. } => Some(Self::Error),
            _ => None,
        }
    }

    /// Whether the place does not have the file, for certain.
    pub fn is_clear(self) -> bool {
        matches!(self, Self::NotThere | Self::OtherContent | Self::Withheld)
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAsked(why) => return write!(f, "not asked: {why}"),
            Self::NotThere => "not there",
            Self::OtherContent => "other content",
            Self::Silence => "no answer",
            Self::Error => "an error",
            Self::NotInstalled => "not on this machine",
            Self::Withheld => "withheld, as it may not be copied",
        })
    }
}

/// What became of a version that nobody carries.
fn fate(wanted: &Wanted, replaced: Option<&str>) -> String {
    match replaced {
        None => ", nor any other version of it".to_owned(),
        Some(new) if wanted.version.as_deref() == Some(new) => {
            " any more; it was replaced by another file of the same version".to_owned()
        }
        Some(new) => format!(" any more; it was replaced by {new}"),
    }
}

/// How many files are named at most.
const NAMED_MAX: usize = 20;

/// What errors say, a line each, and what is behind the first.
fn lines(errors: &[FetchError]) -> String {
    let mut text: String = errors
        .iter()
        .take(NAMED_MAX)
        .map(|error| format!("\n  {error}"))
        .collect();
    if errors.len() > NAMED_MAX {
        text += &format!("\n  and {} more", errors.len() - NAMED_MAX);
    }
    let cause = errors.first().and_then(Error::source);
    text + &cause.map_or_else(String::new, |cause| format!("\n  because of the first: {cause}"))
}

fn list(asked: &[Asked]) -> String {
    let texts: Vec<String> = asked.iter().map(Asked::to_string).collect();
    texts.join(", ")
}

/// Those of `asked` whose answer says nothing.
fn unclear(asked: &[Asked]) -> String {
    let unclear = asked.iter().filter(|asked| !asked.answer.is_clear());
    list(&unclear.cloned().collect::<Vec<_>>())
}

/// What to do where the network is at fault.
const NETWORK_HELP: &str = "check the network and the proxy (`HTTPS_PROXY`), then run the same command again";

/// Why something could not be fetched, resolved or unpacked. `name` is what the user calls the thing
/// (`deb:gcc`, a file's name), `origin` the address or program it came from; sizes are bytes.
#[expect(missing_docs, reason = "the fields are what the variant's message names")]
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Reading or writing a file failed.
    #[error(transparent)]
    Io(#[from] PathError),
    /// The store could not do what was asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A tree could not be archived.
    #[error(transparent)]
    Nar(#[from] NarError),
    /// The tree of a commit could not be had.
    #[error(transparent)]
    Git(Box<GitError>),
    /// All bytes arrived and are not the ones wanted.
    #[error("`{origin}` served different content for `{name}`: {mismatch}")]
    Digest {
        name: String,
        origin: String,
        mismatch: Box<DigestMismatch>,
    },
    /// More or fewer bytes than the lock says.
    #[error("`{origin}` served {actual} bytes for `{name}`, expected {expected}")]
    Size {
        name: String,
        origin: String,
        expected: u64,
        actual: u64,
    },
    /// A file that should be a Go module's zip and is none.
    #[error("what `{origin}` served for `{name}` is not the zip of a Go module")]
    NoModule {
        name: String,
        origin: String,
        source: Box<UnpackError>,
    },
    /// More bytes than it may have.
    #[error("`{url}` sent more than {limit} bytes")]
    TooLarge { url: String, limit: u64 },
    /// There is nothing at the address.
    #[error("nothing was found at `{url}`")]
    NotFound { url: String },
    /// The host cannot be reached, or does not speak the protocol.
    #[error("cannot reach `{url}`")]
    Unreachable {
        url: String,
        source: Box<dyn Error + Send + Sync>,
    },
    /// The host answered with an error.
    #[error("`{url}` answers {status}")]
    Status {
        url: String,
        status: reqwest::StatusCode,
        /// How long the host asks to wait.
        retry_after: Option<std::time::Duration>,
    },
    /// The request cannot be made, or its answer is not followed.
    #[error("cannot fetch `{url}`")]
    Http { url: String, source: HttpError },
    /// The process is about to end.
    #[error("the download of `{url}` was interrupted")]
    Cancelled { url: String },
    /// A program was ended because the process is about to end.
    #[error("`{program}` was interrupted")]
    Stopped { program: &'static str },
    /// The transfer broke off or made no progress.
    #[error("the download of `{url}` broke off")]
    Interrupted {
        url: String,
        source: Box<dyn Error + Send + Sync>,
    },
    /// A place that keeps files by digest cannot be used.
    #[error("`{place}` cannot be used")]
    Place {
        place: String,
        source: Box<dyn Error + Send + Sync>,
    },
    /// An index of a language's registry that is none.
    #[error("what `{place}` says of its files cannot be read")]
    Index { place: String },
    /// A configuration file of a language's tool.
    #[error("`{}` cannot be read: {reason}", path.display())]
    ToolConfig { path: PathBuf, reason: String },
    /// Not an address that can be fetched.
    #[error("`{url}` cannot be fetched: {reason}")]
    Address { url: String, reason: &'static str },
    /// The network is needed and must not be used.
    #[error("`{name}` is not in the cache and `--offline` forbids using the network")]
    Offline { name: String },
    /// The network is needed for a file and must not be used.
    #[error(
        "{wanted} is neither in the cache nor in a place on this machine, and `--offline` forbids using the network"
    )]
    OfflineFile {
        wanted: Box<Wanted>,
        /// What was asked, in order.
        asked: Vec<Asked>,
    },
    /// A locked Debian package that nobody carries any more.
    #[error("no source carries {wanted}{}", fate(wanted, replaced.as_deref()))]
    Gone {
        wanted: Box<Wanted>,
        /// The version that the machine's sources have instead.
        replaced: Option<String>,
        /// What was asked, in order.
        asked: Vec<Asked>,
    },
    /// A locked Debian package that no source gave, where not every source gave a clear answer.
    #[error("cannot tell whether {wanted} is still available: {}", unclear(asked))]
    Unanswered {
        wanted: Box<Wanted>,
        /// What was asked, in order.
        asked: Vec<Asked>,
    },
    /// A file that was in no place, the last of which gave a reason.
    #[error("cannot get {wanted}; asked: {}", list(asked))]
    Nowhere {
        wanted: Box<Wanted>,
        /// What was asked, in order.
        asked: Vec<Asked>,
        /// What the last said.
        source: Option<Box<FetchError>>,
    },
    /// Several files that cannot be had.
    #[error("{} files are unavailable:{}", errors.len(), lines(errors))]
    Several { errors: Vec<FetchError> },
    /// apt cannot read all of its sources: what they carry is not known.
    #[error("apt could not update its package lists:\n{message}")]
    AptLists { message: String },
    /// apt's programs are not on this machine.
    #[error("`{program}` is not installed; it is needed to resolve and download Debian packages")]
    AptMissing { program: &'static str },
    /// `--update NAME` names nothing that is locked or wanted.
    #[error("the lock has no entry named `{name}`")]
    UnknownUpdate {
        name: String,
        /// What is in the lock and most like it.
        similar: Option<String>,
    },
    /// apt says no, in its own words.
    #[error("apt cannot {action}:\n{message}")]
    Apt { action: String, message: String },
    /// apt's answer is not what it should be.
    #[error("apt gave no usable answer about `{subject}`: {reason}")]
    AptAnswer { subject: String, reason: String },
    /// No source has a package of the name.
    #[error("there is no Debian package `{name}`")]
    UnknownDeb {
        name: String,
        /// The package whose name is most like it.
        similar: Option<String>,
        /// The packages that provide it, where the name is virtual.
        providers: Vec<String>,
    },
    /// No source has a package of the name, or one like it, for an architecture that is not this machine's.
    #[error("there is no Debian package `{name}` for {architecture}")]
    NotForArchitecture { name: String, architecture: String },
    /// No source has a package that maintainer scripts take for granted.
    #[error("there is no Debian package `{name}`, which is among the tools that maintainer scripts need")]
    NoTools { name: String },
    /// No source has a compiler for another machine.
    #[error("there is no Debian package `{name}`, which {owner} takes")]
    NoCrossCompiler { name: String, owner: String },
    /// No source has a source package of the name.
    #[error("there is no Debian source package `{name}`")]
    UnknownDebSource { name: String },
    /// A lock or a Debian index says what cannot be.
    #[error("the entry of `{name}` is malformed: {reason}")]
    MalformedEntry { name: String, reason: String },
    /// An archive cannot be unpacked.
    #[error("cannot unpack `{name}`")]
    Unpack { name: String, source: Box<UnpackError> },
    /// A local source is not there.
    #[error("`{path}` does not exist; it is the source of `{package}`")]
    LocalMissing {
        package: String,
        path: String,
        /// A name beside it that is most like it.
        similar: Option<String>,
    },
    /// A pattern of `include` or `exclude` that is none.
    #[error("`{pattern}` of `{package}` is not a pattern")]
    Pattern {
        package: String,
        pattern: String,
        source: Box<dyn Error + Send + Sync>,
    },
    /// A local source holds what cannot be in a store.
    #[error("`{path}` is {kind}; the source of `{package}` may contain only files, directories and symlinks")]
    LocalSpecial {
        package: String,
        path: String,
        kind: &'static str,
    },
    /// A local source of which everything is filtered away.
    #[error("the filters of `{package}` exclude everything in `{path}`")]
    LocalEmpty { package: String, path: String },
}

impl From<GitError> for FetchError {
    fn from(error: GitError) -> Self {
        Self::Git(Box::new(error))
    }
}

impl FetchError {
    /// What to do where a host does not give what it was asked for.
    fn network_help(&self) -> Option<String> {
        match self {
            Self::Unreachable { url, source } => {
                let advice = tls::advice(source.as_ref(), &host(url));
                Some(advice.unwrap_or_else(|| NETWORK_HELP.to_owned()))
            }
            Self::Interrupted { .. } => Some(NETWORK_HELP.to_owned()),
            Self::Status { url, status, .. } if matches!(status.as_u16(), 401 | 403) => {
                let host = host(url);
                let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
                let how = if url.starts_with("https:") {
                    ""
                } else {
                    " (it is sent over TLS only)"
                };
                Some(format!(
                    "if `{name}` wants a login, write `machine {name} login NAME password SECRET` into `~/.netrc`{how}"
                ))
            }
            Self::Status { retry_after, .. } => retry_after.map(|wait| {
                format!(
                    "the host asks to wait for {} s: run the same command again then",
                    wait.as_secs()
                )
            }),
            Self::Http { source, .. } => source.help(),
            _ => None,
        }
    }

    /// What to do where a file is in no place that was asked.
    fn help_about_file(&self) -> Option<String> {
        let help = match self {
            Self::OfflineFile { asked, wanted } => format!(
                "run the same command once without `--offline`, or name a place that has the file: `--inputs-from oci:DIR`{}{}",
                wanted
                    .advice
                    .map_or_else(String::new, |advice| format!("; or {advice}")),
                match asked.is_empty() {
                    true => String::new(),
                    false => format!(" (asked: {})", list(asked)),
                }
            ),
            Self::Nowhere { source, wanted, .. } => {
                let own = "name a place that has the file: `--inputs-from docker://NAME` or `--inputs-from oci:DIR`";
                let own = match wanted.advice {
                    Some(advice) => format!("{advice}; or {own}"),
                    None => own.to_owned(),
                };
                match source.as_ref().and_then(|source| source.help()) {
                    Some(help) => format!("{own}; or {help}"),
                    None => own,
                }
            }
            Self::Several { errors } => return errors.first().and_then(Self::help),
            Self::Gone { replaced, asked, .. } => {
                let asked = list(asked);
                match replaced {
                    Some(_) => format!(
                        "`layerize lock --refresh` takes the new version and what that needs; a snapshot server \
                         (`snapshots` of `[debian]`, in the spec or the configuration) still has the old (asked: {asked})"
                    ),
                    None => format!(
                        "name another package in the spec, or a place that has this one: `--mirror DIR`, `[debian] \
                         sources` of the spec, or a snapshot server (`snapshots` of `[debian]`, in the spec or the \
                         configuration) (asked: {asked})"
                    ),
                }
            }
            Self::Unanswered { asked, .. } => format!(
                "check the network and the proxy (`HTTPS_PROXY`) and run the same command again, or leave out the source \
                 that does not answer (asked: {})",
                list(asked)
            ),
            _ => return None,
        };
        Some(help)
    }

    /// One error for all files that cannot be had.
    pub(super) fn of_all(mut errors: Vec<Self>) -> Option<Self> {
        match errors.len() {
            0 | 1 => errors.pop(),
            _ => Some(Self::Several { errors }),
        }
    }

    /// What the user can do about it: what to type next.
    pub fn help(&self) -> Option<String> {
        let help = match self {
            Self::Digest { mismatch, origin, .. }
                if mismatch.actual.sha256().is_some() && (origin.starts_with("http") || origin.starts_with("file:")) =>
            {
                format!(
                    "if the new content is right, write `sha256 = \"{}\"` (or `layerize lock --update NAME` where the \
                     lock pins it); otherwise somebody has replaced the file at that address",
                    mismatch.actual.hex()
                )
            }
            Self::Digest { mismatch, .. } if mismatch.actual.sha256().is_none() => {
                "somebody has replaced the file there, or the lock is not of this project: make the lock anew with the \
                 language's own tool where the new content is right"
                    .to_owned()
            }
            Self::NoModule { source, .. } => return source.help(),
            Self::Digest { .. } | Self::Size { .. } => {
                "the copy is damaged or is another version: remove it, or lock what is there with `layerize lock --update NAME`"
                    .to_owned()
            }
            Self::NotFound { .. } => "check the address; a moved release needs a new `url`".to_owned(),
            Self::Offline { .. } => "run the same command once without `--offline`".to_owned(),
            Self::OfflineFile { .. }
            | Self::Gone { .. }
            | Self::Unanswered { .. }
            | Self::Nowhere { .. }
            | Self::Several { .. } => return self.help_about_file(),
            Self::AptLists { .. } => {
                "nothing is known to be gone: check the network, the proxy and apt's sources (those of `[debian] sources`, or \
                 else this machine's `/etc/apt`), then run the same command again"
                    .to_owned()
            }
            Self::Index { .. } => "check that the tool's configuration names a registry there".to_owned(),
            Self::ToolConfig { .. } => "correct the file, as the tool that it is for would not read it either".to_owned(),
            Self::AptMissing { .. } => {
                "lock on a machine with apt (any Debian or Ubuntu, also in a container); building from the lock \
                 needs a mirror: `--mirror DIR` or `--mirror http://…`"
                    .to_owned()
            }
            Self::UnknownUpdate { similar, .. } => match similar {
                Some(similar) => format!("did you mean `{similar}`?"),
                None => "name Debian packages, Debian source packages or packages with a `url` or a `git`".to_owned(),
            },
            Self::UnknownDeb { .. }
            | Self::NotForArchitecture { .. }
            | Self::NoTools { .. }
            | Self::NoCrossCompiler { .. }
            | Self::UnknownDebSource { .. }
            | Self::Apt { .. }
            | Self::AptAnswer { .. } => return self.debian_help(),
            Self::MalformedEntry { .. } => "make the lock anew: `layerize lock --update`".to_owned(),
            Self::Unpack { source, .. } => return source.help(),
            Self::LocalMissing { similar, .. } => match similar {
                Some(similar) => format!("did you mean `{similar}`?"),
                None => "paths are relative to the directory of `layerize.toml`".to_owned(),
            },
            Self::Pattern { .. } => "patterns are those of `.gitignore`: `*.c`, `/build`, `docs/**`".to_owned(),
            Self::LocalSpecial { .. } => "leave it out with `exclude`".to_owned(),
            Self::LocalEmpty { .. } => "check `include` and `exclude`, or set `gitignore = false`".to_owned(),
            Self::Unreachable { .. }
            | Self::Interrupted { .. }
            | Self::Status { .. }
            | Self::Place { .. }
            | Self::Http { .. }
            | Self::Cancelled { .. } => return self.network_help(),
            Self::Git(error) => return error.help(),
            Self::Store(error) => return error.help(),
            Self::Nar(error) => return error.help(),
            Self::Io(_) | Self::TooLarge { .. } | Self::Address { .. } | Self::Stopped { .. } => return None,
        };
        Some(help)
    }
}

/// Host and port of an address.
fn host(url: &str) -> String {
    url::Url::parse(url).map_or_else(|_| url.to_owned(), |url| address::host_of(&url))
}
