//! A *transport error* says which image place failed, at what, and what to do about it.
//!
//! Invariant: every variant names its place (`docker-archive:x.tar`, `oci:dir`, `docker`) and its subject; the
//! cause is in the source chain, not in the text.

use std::io;

use crate::digest::{ContentDigest, Digest};
use crate::oci::{Descriptor, DocumentError, INDEX_DEPTH_MAX, NoChoice, Platform, PlatformError};

/// Why an image could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Reading or writing a file failed.
    #[error(transparent)]
    Io(#[from] crate::fsio::PathError),
    /// A layer of the image to be written cannot be read, or is damaged.
    #[error(transparent)]
    Layer(#[from] crate::layer::LayerError),
    /// A name is no reference.
    #[error(transparent)]
    Reference(#[from] crate::oci::ReferenceError),
    /// A registry does not do what is asked, or cannot be asked.
    #[error(transparent)]
    Registry(Box<super::registry::RegistryError>),
    /// What is configured about registries cannot be used.
    #[error(transparent)]
    Config(#[from] super::registry::ConfigError),
    /// The text names no place for an image.
    #[error("`{text}` does not name a place for an image: {reason}")]
    Location {
        /// What the user wrote.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The text is not an image name.
    #[error("`{text}` is not an image name: {reason}")]
    Name {
        /// What was given as a name.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The place is known but cannot be used in this way.
    #[error("cannot {action} `{place}`")]
    Unsupported {
        /// "read an image from" or "write an image to".
        action: &'static str,
        /// The place.
        place: String,
        /// What to use instead.
        instead: String,
    },
    /// The form holds one image, and an index of several was to be written.
    #[error("this form holds one image, not an index of several platforms")]
    NoIndex,
    /// The form holds images, and an artifact was to stand beside one.
    #[error("this form holds images alone, and nothing beside them")]
    NoCompanion,
    /// What a place lacks cannot be had.
    #[error("what `{place}` lacks cannot be brought there")]
    Supply {
        /// The place.
        place: String,
        /// Why they cannot be had.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A name that must not move stands for something else already.
    #[error("`{name}` in `{place}` is {actual} already, and names there are not to be moved")]
    Immutable {
        /// The place.
        place: String,
        /// The name.
        name: String,
        /// What it stands for.
        actual: Digest,
    },
    /// A place no longer has what a lock pins.
    #[error("`{place}` is {actual} now, and {expected} is pinned")]
    Unpinned {
        /// The place.
        place: String,
        /// What is pinned.
        expected: Digest,
        /// What is there.
        actual: Digest,
    },
    /// The file holds no image in any form that is read.
    #[error("`{place}` holds no image: {reason}")]
    NotAnImage {
        /// The place.
        place: String,
        /// What was looked for and not found.
        reason: String,
    },
    /// A document or an archive breaks its format.
    #[error("{what} in `{place}` is malformed: {reason}")]
    Malformed {
        /// The place.
        place: String,
        /// Which part of it.
        what: String,
        /// Which rule is broken.
        reason: String,
    },
    /// A JSON document does not parse.
    #[error("{what} in `{place}` is malformed")]
    Json {
        /// The place.
        place: String,
        /// Which document.
        what: String,
        /// Where and why.
        #[source]
        source: crate::oci::JsonError,
    },
    /// A manifest, index or config cannot be read, or could be read in two ways.
    #[error("{what} in `{place}` cannot be used")]
    Document {
        /// The place.
        place: String,
        /// Which document.
        what: String,
        /// What is wrong with it.
        #[source]
        source: Box<DocumentError>,
    },
    /// Something is referred to and not there.
    #[error("{what} is missing in `{place}`")]
    Missing {
        /// The place.
        place: String,
        /// What is missing, with its name.
        what: String,
    },
    /// A layer is to be written that the source does without.
    #[error("`{place}` needs the layer `{digest}`, which is kept elsewhere ({})", quoted(.urls))]
    NeedsLayer {
        /// The place that was to get it.
        place: String,
        /// The layer.
        digest: Box<ContentDigest>,
        /// Where it may be had, as the manifest says.
        urls: Vec<String>,
    },
    /// A layer that only its vendor hands out, and that the place does without.
    #[error("the layer `{digest}` is not in `{place}`: it is kept elsewhere ({})", quoted(.urls))]
    Elsewhere {
        /// The place that was to give it.
        place: String,
        /// The layer.
        digest: Box<ContentDigest>,
        /// Where it may be had, as the manifest says.
        urls: Vec<String>,
    },
    /// What stands at a path of an image is not a file, or leads to none.
    #[error("`{path}` of the image cannot be read: {reason}")]
    NoFile {
        /// The path, absolute.
        path: String,
        /// What is there.
        reason: String,
    },
    /// Something is larger than anything legitimate.
    #[error("{what} in `{place}` is larger than {limit} bytes")]
    TooLarge {
        /// The place.
        place: String,
        /// What is too large.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Reading a part of an image failed, or it is not what its digest says.
    #[error("cannot read {what} in `{place}`")]
    Read {
        /// The place.
        place: String,
        /// Which part.
        what: String,
        /// The I/O error, or a [`VerifyError`](crate::digest::VerifyError) inside one.
        #[source]
        source: io::Error,
    },
    /// The archive's own tar is broken.
    #[error("cannot read the tar of `{place}`")]
    Tar {
        /// The place.
        place: String,
        /// Where and why.
        #[source]
        source: crate::archive::tar::TarError,
    },
    /// Several images, and no unique one was asked for.
    #[error("`{place}` holds {}", choices_text(.asked.as_deref(), .choices.len()))]
    Choose {
        /// The place.
        place: String,
        /// The name asked for, if any.
        asked: Option<String>,
        /// How each image is named, with the place where that can have a name.
        choices: Vec<String>,
    },
    /// Several platforms, and no unique one was asked for.
    #[error("`{place}` holds {}", platform_text(.wanted.as_deref()))]
    Platform {
        /// The place.
        place: String,
        /// The platform asked for, if any.
        wanted: Option<Box<Platform>>,
        /// The platforms it has.
        available: Vec<Platform>,
    },
    /// An index lists images whose manifests were left out, as an engine does that holds only some of them.
    #[error("`{place}` lists {}, and they are not in it", quoted(.absent))]
    Absent {
        /// The place.
        place: String,
        /// What is listed and not there, by platform, else by digest.
        absent: Vec<String>,
        /// The platforms that are there.
        present: Vec<Platform>,
    },
    /// An index lists what stands beside images, and no image: the referrers of one.
    #[error("`{place}` lists {} artifacts, and no image", .choices.len())]
    Artifacts {
        /// The place.
        place: String,
        /// How each of them is named.
        choices: Vec<String>,
    },
    /// An artifact is where an image is needed.
    #[error("`{place}` is an artifact (`{kind}`), not an image")]
    Artifact {
        /// The place.
        place: String,
        /// What kind of artifact it is.
        kind: String,
    },
    /// An artifact was to be written to a form that holds images to run.
    #[error("this form holds images to run, not artifacts (`{kind}`)")]
    NoArtifact {
        /// What kind of artifact it is.
        kind: String,
    },
    /// A text is no platform.
    #[error(transparent)]
    PlatformName(#[from] PlatformError),
    /// Several images that no platform and no name tells apart.
    #[error("`{place}` holds several images that neither a name nor a platform tells apart")]
    Alike {
        /// The place.
        place: String,
        /// How each of them is named.
        choices: Vec<String>,
    },
    /// Writing to a stream failed.
    #[error("cannot write the archive to `{place}`")]
    Stream {
        /// What was written to.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The consumer of a stream closed it early.
    #[error("the reader of `{place}` went away before the whole archive was written")]
    ReaderGone {
        /// What was written to.
        place: String,
    },
    /// A program is not installed.
    #[error("cannot start `{program}`")]
    EngineMissing {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program was ended because the process is about to end.
    #[error("`{program}` was interrupted")]
    EngineStopped {
        /// The program.
        program: String,
    },
    /// No container engine is installed.
    #[error("neither `docker` nor `podman` can be started")]
    NoEngine,
    /// The engine's daemon does not answer.
    #[error("`{program}` cannot reach its daemon: {output}")]
    EngineUnreachable {
        /// The program.
        program: String,
        /// What it said.
        output: String,
    },
    /// The engine refused or failed.
    #[error("`{command}` failed with {status}: {output}")]
    EngineFailed {
        /// The program and its arguments.
        command: String,
        /// Its exit status, in words.
        status: String,
        /// What it said, bounded.
        output: String,
    },
    /// The engine holds another image under the name than was sent.
    #[error("`{program}` holds `{actual}` as `{name}`, not the image that was sent (`{expected}`)")]
    EngineDiffers {
        /// The program.
        program: String,
        /// The name that was inspected.
        name: String,
        /// The config digest that was sent.
        expected: Digest,
        /// The image ID that the engine gave.
        actual: String,
    },
}

impl From<super::registry::RegistryError> for TransportError {
    fn from(error: super::registry::RegistryError) -> Self {
        Self::Registry(Box::new(error))
    }
}

impl TransportError {
    /// What a document's fault is in a place.
    pub(super) fn document(place: &str, what: impl Into<String>) -> impl FnOnce(DocumentError) -> Self {
        let (place, what) = (place.to_owned(), what.into());
        move |source| Self::Document {
            place,
            what,
            source: Box::new(source),
        }
    }

    /// A layer that the source does without, and that a place cannot.
    pub(super) fn needs_layer(place: &str, descriptor: &Descriptor) -> Self {
        Self::NeedsLayer {
            place: place.to_owned(),
            digest: Box::new(descriptor.digest),
            urls: descriptor.urls.clone(),
        }
    }

    /// A layer that a place does without.
    pub(super) fn elsewhere(place: &str, descriptor: &Descriptor) -> Self {
        Self::Elsewhere {
            place: place.to_owned(),
            digest: Box::new(descriptor.digest),
            urls: descriptor.urls.clone(),
        }
    }

    /// Why nothing was chosen of an index.
    pub(super) fn no_choice(place: &str, wanted: Option<&Platform>, why: NoChoice) -> Self {
        let (place, wanted) = (place.to_owned(), wanted.cloned().map(Box::new));
        match why {
            NoChoice::Empty => Self::NotAnImage {
                place,
                reason: "its index lists no image".to_owned(),
            },
            NoChoice::Artifacts { digests } => Self::Artifacts {
                choices: digests.iter().map(|digest| format!("{place}@{digest}")).collect(),
                place,
            },
            NoChoice::Platform { available } | NoChoice::Platforms { available } => Self::Platform {
                place,
                wanted,
                available,
            },
            NoChoice::Unknown { digest } => Self::Malformed {
                place,
                what: format!("the entry `{}` of the index", digest.escape_debug()),
                reason: "its digest is by an algorithm that is not registered: sha256 and sha512 are".to_owned(),
            },
            NoChoice::Alike { digests } => Self::Alike {
                choices: digests.iter().map(|digest| format!("{place}@{digest}")).collect(),
                place,
            },
        }
    }

    /// Indexes in indexes, more than are followed.
    pub(super) fn nested_too_deep(place: &str) -> Self {
        Self::Malformed {
            place: place.to_owned(),
            what: "the index".to_owned(),
            reason: format!("indexes are nested more than {INDEX_DEPTH_MAX} deep"),
        }
    }

    /// Whether the image is there and is not what it should be, as against one that cannot be reached or chosen.
    pub fn is_damage(&self) -> bool {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        match self {
            Self::Malformed { .. }
            | Self::Json { .. }
            | Self::Document { .. }
            | Self::Missing { .. }
            | Self::Absent { .. }
            | Self::TooLarge { .. }
            | Self::Tar { .. } => true,
            Self::Read { source, .. } => matches!(source.kind(), InvalidData | InvalidInput | UnexpectedEof),
            _ => false,
        }
    }

    /// Whether the place was looked into and has nothing of the name that was asked for.
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Missing { .. } | Self::Choose { asked: Some(_), .. } | Self::NotAnImage { .. }
        )
    }

    /// What the user can do about it, where anything can be said.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Location { .. } => Some(
                "write `FILE.tar`, `docker-archive:FILE`, `oci-archive:FILE`, `oci:DIR[:tag]`, `docker://NAME`, `docker-daemon:NAME` or `-`"
                    .to_owned(),
            ),
            Self::Name { .. } => Some("write a name such as `hello`, `hello:1.2` or `registry.example/me/hello:1.2`".to_owned()),
            Self::Unsupported { instead, .. } => Some(instead.clone()),
            Self::Unpinned { .. } => {
                Some("`layerize lock --update IMAGE` takes what is there now; or bring back what was".to_owned())
            }
            Self::NoIndex => Some(
                "choose one with `--platform OS/ARCH`, or write `oci-archive:FILE`, `oci:DIR[:tag]` or `docker://NAME`"
                    .to_owned(),
            ),
            Self::NeedsLayer { .. } => Some(
                "write `oci-archive:FILE`, `oci:DIR[:tag]` or `docker://NAME`, which hold the image without it".to_owned(),
            ),
            Self::Elsewhere { digest, .. } => Some(format!(
                "download it, and put it into a layout of the image as `blobs/{}/{}`",
                digest.algorithm(),
                digest.hex()
            )),
            Self::NoFile { .. } => Some(
                "write numbers instead of names of users and groups, or take a base in which the file can be read".to_owned(),
            ),
            Self::Artifact { place, .. } => Some(format!("`layerize inspect {place}` says what it is")),
            Self::NoArtifact { .. } => {
                Some("write `oci-archive:FILE`, `oci:DIR[:tag]` or `docker://NAME`, which hold anything".to_owned())
            }
            Self::NoCompanion => Some("name a layout (`oci:DIR[:TAG]`) or a registry (`docker://NAME`)".to_owned()),
            Self::Immutable { .. } => Some("give it another tag; `--skip-existing` leaves what is there".to_owned()),
            Self::Choose { choices, .. } | Self::Alike { choices, .. } | Self::Artifacts { choices, .. } => {
                Some(format!("name one of them: {}", quoted(choices)))
            }
            Self::Platform { available, .. } => Some(format!("add one of {}", quoted(&platform_flags(available)))),
            Self::Absent { absent, present, .. } => {
                let pulled = absent.first().map_or("PLATFORM", String::as_str);
                let again = format!("`docker pull --platform {pulled} NAME` and save the image again");
                Some(match present.is_empty() {
                    true => format!("an engine saves what it holds: {again}"),
                    false => format!(
                        "an engine saves what it holds: {again}, or add one of {}",
                        quoted(&platform_flags(present))
                    ),
                })
            }
            Self::Registry(error) => error.help(),
            Self::Layer(error) => error.help(),
            Self::Reference(error) => error.help(),
            Self::Config(error) => error.help(),
            Self::EngineMissing { program, .. } => Some(format!(
                "install `{program}`, or write a file with `-o FILE.tar` and load it elsewhere"
            )),
            Self::NoEngine => Some("install docker or podman, or write a file with `-o FILE.tar`".to_owned()),
            Self::EngineUnreachable { program, .. } => Some(format!(
                "start the daemon and check `{program} info`, or load with podman, which needs no daemon"
            )),
            Self::Document { source, .. } if matches!(**source, DocumentError::Ambiguous { .. }) => Some(
                "have it rebuilt: one program could run what another checked as something else".to_owned(),
            ),
            Self::Document { source, .. } if matches!(**source, DocumentError::Algorithm { .. }) => None,
            Self::Document { source, .. } if matches!(**source, DocumentError::SchemaVersion { .. }) => {
                Some("pull it with an engine that reads it, and push it again".to_owned())
            }
            Self::Document { .. } => Some("the file was damaged, or not made by an image tool".to_owned()),
            Self::TooLarge { .. } | Self::Malformed { .. } | Self::Json { .. } | Self::Tar { .. } => {
                Some("the file was damaged, or not made by an image tool".to_owned())
            }
            _ => None,
        }
    }
}

fn choices_text(asked: Option<&str>, count: usize) -> String {
    match asked {
        Some(name) => format!("no image named `{name}`"),
        None => format!("several images ({count} names), and none was chosen"),
    }
}

fn platform_text(wanted: Option<&Platform>) -> String {
    match wanted {
        Some(platform) => format!("no image for the platform `{platform}`"),
        None => "images for several platforms, and none was chosen".to_owned(),
    }
}

/// The flag that chooses each platform, as a shell takes it.
fn platform_flags(available: &[Platform]) -> Vec<String> {
    let flag = |platform: &Platform| match platform.os_version() {
        Some(_) => format!("--platform '{platform}'"),
        None => format!("--platform {platform}"),
    };
    available.iter().map(flag).collect()
}

fn quoted(items: &[String]) -> String {
    let shown: Vec<String> = items.iter().take(20).map(|item| format!("`{item}`")).collect();
    let more = items.len().saturating_sub(shown.len());
    let tail = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{tail}", shown.join(", "))
}
