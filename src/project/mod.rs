//! A *project* turns spec, lock, store and targets into images.
//!
//! Invariant: every verb takes this way, so that the same targets and options give the same image whoever asks for it.
//! Nothing here prints or reads the process's environment: what comes from there is in an [`Environment`].
//!
//! The way: [`Project`] (spec and lock) → [`target`] (what a name means) → [`work`] (derivations, realised in the store) →
//! [`recipe`] (everything that an image is made of: [`roots`], `base`, [`layer_plan`]) → [`image`] (assembled, with its
//! names) → a place of [`transport`](crate::transport). [`golden`] compares what came out with what the lock records.

mod base;
mod environment;
mod error;
mod files;
pub mod golden;
pub mod image;
pub mod layer_plan;
mod mention;
mod nix;
mod options;
pub mod recipe;
mod roots;
pub mod target;
pub mod work;

pub use environment::{DEFAULT_EPOCH, Environment, WorkOptions};
pub use error::ProjectError;
pub use files::{LOCK_NAME, Project, SPEC_NAME};
pub use image::NamedImage;
pub use mention::{Mention, mentions};
pub use nix::LazyNix;
pub use options::{Description, ImageOptions};
pub use recipe::Recipe;
pub use target::Target;
pub use work::Work;
