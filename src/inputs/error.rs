//! An *inputs error* says what could not be kept, found or restored, where, and what to type next.
//!
//! Invariant: every variant names its place or file; the cause is in the source chain, not in the text.

use std::path::PathBuf;

use crate::digest::Digest;
use crate::fetch::FetchError;
use crate::fsio::PathError;
use crate::nar::NarError;
use crate::oci::DocumentError;
use crate::spec::Diagnostics;
use crate::store::StoreError;
use crate::transport::TransportError;

/// What to do about an artifact that breaks its format.
const DAMAGED: &str = "they were damaged, or not written by layerize; `--spec DIR` builds from the project's own files";

/// Why inputs could not be kept, found or restored.
#[derive(Debug, thiserror::Error)]
pub enum InputsError {
    /// Reading or writing a file failed.
    #[error(transparent)]
    Io(#[from] PathError),
    /// A place of images failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A file could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The store could not do what was asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A tree could not be archived.
    #[error(transparent)]
    Nar(#[from] NarError),
    /// Local files that are kept cannot be unpacked.
    #[error("cannot unpack `{digest}`, local files that are kept in `{place}`")]
    Archive {
        /// The place.
        place: String,
        /// The archive.
        digest: Digest,
        /// What is wrong with it.
        source: NarError,
    },
    /// A kept spec or lock is wrong.
    #[error("the {what} that is kept in `{place}` is not valid")]
    Spec {
        /// The spec, or the lock.
        what: &'static str,
        /// The place.
        place: String,
        /// What is wrong with it.
        source: Diagnostics,
    },
    /// A text is not a place that can keep inputs.
    #[error("`{text}` is not a place that can keep inputs: {reason}")]
    Place {
        /// What the user wrote.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There are more files than a manifest can list.
    #[error("{parts} inputs need a larger manifest than can be")]
    TooMany {
        /// How many blobs there are.
        parts: usize,
        /// By how much.
        source: DocumentError,
    },
    /// A file's size is not known, as nobody has it.
    #[error("the size of `{file}` of `{name}` is not known")]
    Size {
        /// What the user calls it.
        name: String,
        /// The file.
        file: String,
    },
    /// An artifact breaks its format.
    #[error("the inputs that are kept in `{place}` are malformed: {reason}")]
    Malformed {
        /// The place.
        place: String,
        /// Which rule is broken.
        reason: String,
    },
    /// An artifact was written by another release.
    #[error("the inputs that are kept in `{place}` have format {format}, and this layerize reads {known}")]
    Format {
        /// The place.
        place: String,
        /// What it has.
        format: u32,
        /// What is read.
        known: u32,
    },
    /// `withhold` names what the lock does not have.
    #[error("`{name}`, which `[inputs] withhold` names, is not in the lock")]
    UnknownWithheld {
        /// What the spec says.
        name: String,
    },
    /// An artifact holds no spec.
    #[error("the inputs that are kept in `{place}` have no spec{}", unportable.as_ref().map_or_else(String::new, |why| format!(": {why}")))]
    NoSpec {
        /// The place.
        place: String,
        /// Why it could not be kept.
        unportable: Option<String>,
    },
    /// An artifact holds no local sources, and they are needed.
    #[error("the inputs that are kept in `{place}` lack local files: {}", missing.join(", "))]
    NoSources {
        /// The place.
        place: String,
        /// What is missing.
        missing: Vec<String>,
    },
    /// A kept spec names a file that is not kept with it.
    #[error("the spec that is kept in `{place}` names `{}`, which is outside what is kept", path.display())]
    Outside {
        /// The place.
        place: String,
        /// What it names.
        path: PathBuf,
    },
}

impl InputsError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Transport(error) => error.help(),
            Self::Fetch(error) => error.help(),
            Self::Store(error) => error.help(),
            Self::Nar(error) => error.help(),
            Self::Archive { .. } => Some(DAMAGED.to_owned()),
            Self::Place { .. } => Some("write `docker://HOST/NAME`, `oci:DIR`, or a directory".to_owned()),
            Self::TooMany { .. } => Some(
                "push with `--no-inputs`, and keep the files in a directory: copy the fetch cache, or a mirror"
                    .to_owned(),
            ),
            Self::UnknownWithheld { .. } => Some(
                "write the name as the lock has it, or leave it out: a misspelt name would withhold nothing".to_owned(),
            ),
            Self::Format { .. } => Some("use a release of layerize that has this format".to_owned()),
            Self::Malformed { .. } => Some(DAMAGED.to_owned()),
            Self::NoSpec { .. } => Some("name the project with `--spec DIR`".to_owned()),
            Self::NoSources { .. } => Some(
                "name the project with `--spec DIR`; `layerize push --inputs=all` keeps local files too".to_owned(),
            ),
            Self::Outside { .. } => Some("name a project that you trust with `--spec DIR`".to_owned()),
            Self::Spec { .. } | Self::Io(_) | Self::Size { .. } => None,
        }
    }
}
