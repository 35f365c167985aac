//! A *project error* says what could not be made of spec, lock, store and targets, and what to type next.
//!
//! Invariant: every variant names the image, path or argument it is about; its cause is in the source chain and not in
//! the text.

use std::path::PathBuf;

use crate::audit::AuditError;
use crate::binary_cache::KeyError;
use crate::build::BuildError;
use crate::configure::ConfigureError;
use crate::container::ContainerError;
use crate::digest::Digest;
use crate::fetch::FetchError;
use crate::fsio::PathError;
use crate::image::{ImageError, IndexError};
use crate::inputs::InputsError;
use crate::layer::partition::PlanError;
use crate::nar::NarError;
use crate::oci::{ParseCompressionError, Platform, PlatformError, ReferenceError};
use crate::peer::SshAddressError;
use crate::remote::BuilderAddressError;
use crate::shared_cache::SharedCacheError;
use crate::spec::Diagnostics;
use crate::store::StoreError;
use crate::store_path::{LogicalPath, StoreDir, StorePath};
use crate::transport::TransportError;

use super::files::{LOCK_NAME, SPEC_NAME};

/// Why a project's images could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// The spec or the lock is wrong.
    #[error(transparent)]
    Spec(#[from] Diagnostics),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An input from outside could not be fetched or pinned.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A build failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A shared cache cannot be used.
    #[error(transparent)]
    SharedCache(#[from] SharedCacheError),
    /// A text is no key.
    #[error("a key of shared caches cannot be used")]
    Key(#[source] KeyError),
    /// Shared caches are to be read, and nobody's entries would be believed.
    #[error("the shared cache `{place}` is to be read, and nobody is trusted")]
    NobodyTrusted {
        /// The first of them.
        place: String,
    },
    /// What nobody signed is to be taken, and what was taken is to be signed.
    #[error("entries that nobody signed are to be believed, and what is made of them is to be signed")]
    SignsUnsigned,
    /// A text is no address of a builder.
    #[error(transparent)]
    BuilderAddress(#[from] BuilderAddressError),
    /// A text is no address of another machine.
    #[error(transparent)]
    SshAddress(#[from] SshAddressError),
    /// The configuration has no builder of a name.
    #[error("there is no builder `{name}` in the configuration")]
    UnknownBuilder {
        /// The name.
        name: String,
        /// Those that it has.
        known: Vec<String>,
    },
    /// A builder was named, and no sandbox.
    #[error("without a sandbox scripts run on this machine, and not at a builder")]
    BuilderUnwalled,
    /// What maintainer scripts did cannot be read.
    #[error(transparent)]
    Configure(#[from] ConfigureError),
    /// An image tells nothing of how it was made.
    #[error("`{image}` is a finished image: what became of maintainer scripts is known where it is built")]
    Finished {
        /// As the user names it.
        image: String,
    },
    /// What an image is asked to be cannot be planned or checked.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Images cannot be in one index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A closure graph or a layer plan cannot be used.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A place of images failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A program of an image cannot be run.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// An image could not be read back.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A tree could not be hashed.
    #[error(transparent)]
    Nar(#[from] NarError),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] PathError),
    /// Inputs could not be kept, found or restored.
    #[error(transparent)]
    Inputs(Box<InputsError>),
    /// A text is not a platform.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// A text is not a compression.
    #[error(transparent)]
    Compression(#[from] ParseCompressionError),
    /// A text is not an image name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),

    /// There is no spec.
    #[error("there is no {SPEC_NAME} here or in any directory above")]
    NoSpec,
    /// A directory that is to be on `PATH` cannot be.
    #[error("`{}` cannot be on `PATH`: a `:` ends a directory there", dir.display())]
    NotOnPath {
        /// The directory.
        dir: PathBuf,
    },
    /// A place has no spec that can be used.
    #[error(transparent)]
    SpecPlace(#[from] super::spec_place::SpecPlaceError),
    /// A project elsewhere cannot be imported.
    #[error(transparent)]
    Import(#[from] super::imports::ImportError),
    /// There is no view of an environment, or not all that it leads to.
    #[error("`{}` is no environment any more, or the store lacks a part of it", dir.display())]
    NoView {
        /// Where it should be.
        dir: PathBuf,
    },
    /// The lock is missing or not the spec's.
    #[error("{LOCK_NAME} is {}:\n  {}", if *missing { "missing" } else { "stale" }, lines.join("\n  "))]
    Stale {
        /// Whether there is none.
        missing: bool,
        /// What differs, and what would change it, a line each.
        lines: Vec<String>,
    },
    /// A local source could not be added to the store.
    #[error("cannot add the source of package `{package}` to the store")]
    Source {
        /// The package.
        package: String,
        /// Why.
        source: Box<FetchError>,
    },
    /// A store path that an argument names is not in the store.
    #[error("`{}` is not in the store {}", StoreDir::layerize().join(path), store.display())]
    NotInStore {
        /// The path.
        path: StorePath,
        /// The store's directory.
        store: PathBuf,
    },
    /// A store path that an argument names is registered, and gone from the disk.
    #[error("`{}` is missing on disk", StoreDir::layerize().join(path))]
    Missing {
        /// The path.
        path: StorePath,
    },
    /// A store path was there when the work began, and is not any more.
    #[error("store path `{path}` is gone")]
    Gone {
        /// The path.
        path: StorePath,
    },
    /// An image was named where a package is wanted.
    #[error("`{image}` is an image; a package is expected here")]
    NoPackage {
        /// The image.
        image: String,
    },
    /// An argument names nothing.
    #[error("`{argument}` is neither an image nor a package of this spec, nor a store path")]
    Unknown {
        /// What the user wrote.
        argument: String,
        /// The closest name, or all that are known.
        help: String,
    },

    /// An argument leads into a path of a Nix store.
    #[error("`{argument}` points inside a store path, not at one")]
    InsideNixPath {
        /// What the user wrote.
        argument: String,
        /// The path that it leads into.
        path: StorePath,
    },
    /// A path of a Nix store is not valid there.
    #[error(
        "`{}`{} is not valid in the Nix store of `{}`, as {knowledge} says",
        StoreDir::nix().join(path),
        if *named_by == StoreDir::nix().join(path) { String::new() } else { format!(", which `{named_by}` names,") },
        root.display()
    )]
    NixInvalid {
        /// The path.
        path: StorePath,
        /// What names it: a link, or the path itself.
        named_by: String,
        /// The store.
        root: PathBuf,
        /// What is asked about its paths.
        knowledge: &'static str,
    },
    /// The closure of a path of a Nix store is not whole.
    #[error(
        "`{}` is missing:{} {knowledge} does not know it",
        StoreDir::nix().join(path),
        needed_by.as_ref().map_or_else(String::new, |path| format!(" `{}` refers to it, but", StoreDir::nix().join(path)))
    )]
    NixIncomplete {
        /// The path.
        path: StorePath,
        /// Who refers to it.
        needed_by: Option<StorePath>,
        /// What is asked about its paths.
        knowledge: &'static str,
        /// Whether that is a file that the user gave.
        from_graph: bool,
    },
    /// The lock does not pin a path of a Nix store.
    #[error("`{name}` is not in the lock")]
    NixUnpinned {
        /// What the spec calls it.
        name: String,
    },
    /// A path of a Nix store has other content than the lock pins.
    #[error("{what} is not what the lock pins: it was built to another result on this machine")]
    NixRepinned {
        /// What the spec calls it.
        name: String,
        /// The part that differs.
        what: String,
    },
    /// A path of a Nix store has other content than Nix registered.
    #[error("`{}` is not what Nix registered; {files}", StoreDir::nix().join(path))]
    NixChanged {
        /// The path.
        path: StorePath,
        /// Which of its files show that.
        files: String,
        /// How it was found.
        source: Box<ProjectError>,
    },
    /// A Nix database is asked for without anything to put into it.
    #[error("a Nix database was requested, but the image contains no path of a Nix store")]
    NixDatabase,
    /// What the image's settings name is not in the store.
    #[error("`{field}` names `{logical}`, which is not in the store")]
    Mention {
        /// Where it is named.
        field: String,
        /// The path.
        logical: LogicalPath,
    },

    /// The spec names no platform, and the lock's architecture stands for none.
    #[error("no OCI platform is known for Debian's architecture `{architecture}`")]
    Architecture {
        /// Debian's name.
        architecture: String,
    },
    /// Something of the spec is not made for a platform that was asked for.
    #[error("{name} is for {}, not for {platform}", listed(platforms))]
    NotForPlatform {
        /// What it is, with its name.
        name: String,
        /// What was asked for.
        platform: Box<Platform>,
        /// What it is for.
        platforms: Vec<Platform>,
    },
    /// An image is for several platforms, none of which is the machine's.
    #[error(
        "{name} is for {}, and this machine is {}",
        listed(platforms),
        machine.as_ref().map_or_else(|| std::env::consts::ARCH.to_owned(), |machine| machine.to_string())
    )]
    NotForMachine {
        /// What it is, with its name.
        name: String,
        /// This machine, where it has a platform.
        machine: Option<Box<Platform>>,
        /// What it is for.
        platforms: Vec<Platform>,
    },
    /// An image of store paths has no name.
    #[error("an image of store paths needs a name")]
    NoName,
    /// A flag that describes an image of store paths was given for an image of the spec.
    #[error("`{flag}` is for images of store paths; this image is described by the spec")]
    PathFlag {
        /// The flag.
        flag: &'static str,
    },
    /// A flag for permissions has no path or no value.
    #[error("`{flag} {argument}` is not a rule")]
    PermissionRule {
        /// The flag.
        flag: &'static str,
        /// Its argument.
        argument: String,
    },
    /// A text is not a mode.
    #[error("`{mode}` is not a permission bits")]
    Mode {
        /// The text.
        mode: String,
    },
    /// An image could not be made.
    #[error("cannot build image `{image}`")]
    Making {
        /// The image.
        image: String,
        /// Why.
        source: Box<ImageError>,
    },

    /// A base would have to be looked up in a registry.
    #[error("`{place}` would have to be looked up")]
    Offline {
        /// The base.
        place: String,
    },
    /// A base could not be pinned.
    #[error("cannot pin the base of image `{image}`")]
    PinBase {
        /// The image.
        image: String,
        /// Why.
        source: Box<ProjectError>,
    },
    /// A base could not be opened.
    #[error("cannot use the base {what}")]
    UseBase {
        /// The image or the base.
        what: String,
        /// Why.
        source: Box<ProjectError>,
    },
    /// The lock lacks a base that the spec names.
    #[error("the base of image `{image}` is not in the lock")]
    BaseUnpinned {
        /// The image.
        image: String,
    },

    /// A file is not text.
    #[error("`{}` is not UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A file is not a layer plan.
    #[error("`{}` is not a layer plan", path.display())]
    NoPlan {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PlanError,
    },
    /// A file is not a closure graph.
    #[error("`{}` is not a closure graph", path.display())]
    NoGraph {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PlanError,
    },
    /// A file among earlier releases is not one.
    #[error("`{}` is neither a layer plan nor a closure graph", path.display())]
    NoRelease {
        /// The file.
        path: PathBuf,
        /// Why it is not a graph.
        source: PlanError,
    },
    /// There are too few releases to compare.
    #[error("`{}` holds {count} closure graphs", dir.display())]
    FewReleases {
        /// Their directory.
        dir: PathBuf,
        /// How many there are.
        count: usize,
    },
    /// What was named as the release before is neither its plan nor its image.
    #[error("`{text}` is neither a layer plan nor an image")]
    NoPrevious {
        /// What the user wrote.
        text: String,
        /// Why it is not an image.
        source: Box<TransportError>,
    },
    /// An image does not say what its layers hold.
    #[error("the layers of `{text}` do not say what they contain")]
    SilentLayers {
        /// The image.
        text: String,
    },
    /// A kept plan would have to change.
    #[error("the layer plan `{name}` {state}")]
    StalePlan {
        /// What the spec calls it.
        name: String,
        /// What is wrong with it.
        state: &'static str,
    },

    /// A digest cannot be recorded, because it is not what everybody gets.
    #[error("the digest would depend on SOURCE_DATE_EPOCH")]
    DatedDigest,
    /// The same inputs gave another digest than is recorded.
    #[error("image `{image}` is {actual}, but {LOCK_NAME} records {recorded} for the same spec, lock and sources")]
    Golden {
        /// The image.
        image: String,
        /// The digest in the lock.
        recorded: Digest,
        /// The digest that came out.
        actual: Digest,
    },
}

impl From<InputsError> for ProjectError {
    fn from(error: InputsError) -> Self {
        Self::Inputs(Box::new(error))
    }
}

/// Platforms as a sentence has them.
pub fn listed(platforms: &[Platform]) -> String {
    let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => names.concat(),
    }
}

impl ProjectError {
    /// That an image could not be made.
    pub(super) fn making(image: &str, source: ImageError) -> Self {
        Self::Making {
            image: image.to_owned(),
            source: Box::new(source),
        }
    }

    /// What to type next.
    pub fn help(&self) -> Option<String> {
        self.inner_help().or_else(|| self.own_help())
    }

    /// The advice of an error that is passed on as it is.
    fn inner_help(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.help(),
            Self::Fetch(error) => error.help(),
            Self::Source { source, .. } => source.help(),
            Self::Making { source, .. } => source.help(),
            Self::NoPrevious { source, .. } => source.help(),
            Self::Build(error) => error.help(),
            Self::SharedCache(error) => error.help(),
            Self::Key(error) => error.help(),
            Self::SignsUnsigned => Some(
                "leave out `--cache-unsigned`, or write without a key: who signs vouches for what was built elsewhere, too"
                    .to_owned(),
            ),
            Self::NobodyTrusted { .. } => Some(
                "name the public key of who fills it: `--cache-trusted-key NAME:BASE64`, or `trusted-keys` in `[cache]`; \
                 `--cache-unsigned` believes everybody who can write there"
                    .to_owned(),
            ),
            Self::BuilderAddress(error) => error.help(),
            Self::SshAddress(error) => error.help(),
            Self::UnknownBuilder { known, .. } if known.is_empty() => Some(
                "write its address, `--builder grpc://HOST:PORT`, or give it a name in the configuration \
                 (`layerize help builders`)"
                    .to_owned(),
            ),
            Self::UnknownBuilder { known, .. } => Some(format!("known are `{}`", known.join("`, `"))),
            Self::BuilderUnwalled => Some("leave out `--builder` or `--sandbox none`".to_owned()),
            Self::Configure(error) => error.help(),
            Self::Finished { .. } => Some(
                "name the image of the spec: `layerize explain NAME --scripts`; its bill of materials says it, too"
                    .to_owned(),
            ),
            Self::Image(error) => error.help(),
            Self::Index(error) => error.help(),
            Self::Plan(error) => error.help(),
            Self::Transport(error) => error.help(),
            Self::Container(error) => error.help(),
            Self::Audit(error) => error.help(),
            Self::Nar(error) => error.help(),
            Self::SpecPlace(error) => Some(error.help()),
            Self::Import(error) => error.help(),
            Self::Inputs(error) => error.help(),
            Self::Compression(error) => error.help(),
            Self::Reference(error) => error.help(),
            _ => None,
        }
    }

    fn own_help(&self) -> Option<String> {
        let text = match self {
            Self::NotOnPath { .. } => "move the project to a folder without `:` in its path",
            Self::NoView { .. } => "make it anew in the project's folder: `layerize env`",
            Self::NoSpec => {
                return Some(format!(
                    "`layerize init` writes one, `layerize help spec` explains it; or name it with `--file PATH/{SPEC_NAME}`"
                ));
            }
            Self::Stale { .. } => "run `layerize lock` and commit the file, or leave out `--locked`",
            Self::Missing { .. } => "`layerize store verify --repair` makes it again, or forgets it",
            Self::NotInStore { .. } => "`layerize store ls` lists what is; `--store DIR` names another store",
            Self::NoPackage { .. } => "`layerize load` loads an image into an engine",
            Self::Unknown { help, .. } => help,
            Self::InsideNixPath { path, .. } => {
                let logical = StoreDir::nix().join(path);
                return Some(format!("name `{logical}`, and the file in `--entrypoint`"));
            }
            Self::NixInvalid { path, .. } => {
                let logical = StoreDir::nix().join(path);
                return Some(format!(
                    "`nix-store --realise {logical}` fetches or builds it, `layerize store copy --from CACHE {logical}` \
                     fetches it from a binary cache; `--nix-store DIR` names another store"
                ));
            }
            Self::NixIncomplete { from_graph: true, .. } => {
                "write the whole closure to the graph: `nix path-info --json --recursive PATH`"
            }
            Self::NixIncomplete { .. } => "`nix-store --verify` shows what is wrong with the store",
            Self::NixUnpinned { .. } | Self::BaseUnpinned { .. } => "run `layerize lock`",
            Self::NixRepinned { name, .. } => {
                return Some(format!(
                    "copy it from where the lock was made, or run `layerize lock --update {name}`"
                ));
            }
            Self::NixDatabase => "leave `nix-db` out, or name a path of `/nix/store`",
            Self::Mention { .. } => "name a path that is there: it becomes part of the image",
            Self::NoName => "add for example `--name app --entrypoint app`",
            Self::NotForPlatform { platform, .. } => {
                return Some(format!(
                    "add `\"{platform}\"` to `platform = […]` of the image in {SPEC_NAME}; `layerize lock` then pins what that takes"
                ));
            }
            Self::NotForMachine {
                machine: Some(machine), ..
            } => {
                return Some(format!(
                    "add `\"{machine}\"` to its `platform = […]`; `layerize build -o oci:DIR` and `layerize push` make all of them"
                ));
            }
            Self::PathFlag { .. } => "set it in layerize.toml",
            Self::PermissionRule { .. } => {
                "write for example `--chmod /var/lib/app=0750` or `--chown '/srv/**=1000:1000'`"
            }
            Self::Mode { .. } => "write them in octal: `0750`",
            Self::Offline { .. } => "leave out `--offline` once",
            Self::FewReleases { .. } => "a simulation needs two or more, one file a release",
            Self::SilentLayers { .. } => "name an image of layerize's, or a plan of `layerize plan --json`",
            Self::StalePlan { .. } => "run `layerize build` without `--locked` and commit the file",
            Self::DatedDigest => "unset SOURCE_DATE_EPOCH: the lock records the image that everybody builds",
            Self::Golden { image, .. } => {
                return Some(format!(
                    "`layerize check {image}` tells whether its builds are reproducible; if they are, this version of layerize writes \
                     other bytes than the one that recorded the digest, and `layerize lock --golden` records the new one"
                ));
            }
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// The mistakes in the spec or the lock, where that is what is wrong.
    pub fn diagnostics(&self) -> Option<&Diagnostics> {
        match self {
            Self::Spec(diagnostics) => Some(diagnostics),
            _ => None,
        }
    }
}
