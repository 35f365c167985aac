//! A *project* turns spec, lock, store and targets into images.
//!
//! Invariant: every verb takes this way, so that the same targets and options give the same image whoever asks for it.
//! Nothing here prints or reads the process's environment: what comes from there is in an [`Environment`].
//!
//! The way: [`Project`] (spec and lock) → [`target`] (what a name means) → [`work`] (derivations, realised in the store) →
//! [`Draft`] (a [`Recipe`](crate::image::Recipe): everything that decides the image's digest) → [`image`] (assembled, with its
//! names) → a place of [`transport`](crate::transport). [`golden`] compares what came out with what the lock records.

pub mod attach;
mod base;
mod builders;
mod carried;
mod certificates;
pub mod check;
mod closures;
mod debug;
pub mod dev_image;
pub mod documents;
mod draft;
mod environment;
mod error;
pub mod explain;
mod files;
pub mod git_ignore;
pub mod golden;
pub mod image;
mod imports;
pub mod kept;
pub mod languages;
pub mod layer_plan;
mod mention;
mod missing;
mod nix;
mod options;
mod origins;
pub mod outside;
pub mod place;
mod platforms;
pub mod rebuild;
pub mod referrers;
pub mod releases;
mod repair;
pub mod request;
mod requirements;
mod roots;
pub mod scripts;
mod shared;
pub mod shell;
pub mod sight;
pub mod spec_place;
pub mod starter;
pub mod target;
pub mod trials;
pub mod update;
pub mod upkeep;
pub mod work;

pub use builders::{BuilderChoice, BuilderPlace, MachineBuilder, MachineBuilders};
pub use closures::StoredClosure;
pub use draft::{Draft, all_drafts, drafts};
pub use environment::{DEFAULT_EPOCH, Environment, PlatformSource, WorkOptions};
pub use error::{ProjectError, listed};
pub use files::{LOCK_NAME, Project, SPEC_NAME};
pub use image::{NamedImage, images};
pub use imports::ImportError;
pub use kept::{KeepExtent, KeptInputs};
pub use mention::{Mention, mentions};
pub use nix::LazyNix;
pub use options::{Description, ImageOptions, permissions};
pub use platforms::PlatformChoice;
pub use repair::{Repair, repair};
pub use shared::{CacheOptions, MachineCaches};
pub use target::Target;
pub use work::Work;
