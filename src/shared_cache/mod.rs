//! A *shared cache* keeps what was built, in a repository of a registry, an OCI layout or a binary cache in Nix's format, for
//! others who build the same.
//!
//! Invariant: an entry says what a step made; that is believed of a trusted key alone (or of anybody, where the user says
//! so), and what a path holds is proved by its name. Nothing lists all entries: writers never wait for each other, and the
//! entry of one never changes what another's says.
//!
//! # Form
//! One manifest for each built step, under two tags:
//!
//! | tag | asked for |
//! |---|---|
//! | `p-HEX` | the *plan key*: known before anything is fetched |
//! | `b-HEX` | the *build key*, the hash of the resolved derivation: equal also where an input was built anew to the same content |
//!
//! Its config (`application/vnd.layerize.build.v1+json`) is an entry: the output and its closure. Its layers are the
//! built paths of that, each in a layer of its own, with the bytes that it has in an image of gzip layers: pushing such an
//! image mounts them. What is unpacked from downloads is named and not held: see [`inputs`](crate::inputs). Signatures of the
//! config stand in the annotation `dev.layerize.signatures`.
//!
//! An image stands under `i-HEX`, the hash of all that it is asked for: an index that lists it, with signatures in the same
//! annotation. One that was built behind less than namespaces says so in `dev.layerize.walls`, which is signed with it.
//!
//! A binary cache has the same entries in files beside its narinfos (see `nix_place`), and no images.
//!
//! Both have the date on which a writer last had use for them in the annotation `org.opencontainers.image.created`. It is
//! not signed: it decides how long something stays, never what is believed.

mod age;
mod entry;
mod error;
mod image;
mod nix_place;
mod pass;
mod place;
mod prune;
mod read;
mod trust;
mod write;

use std::sync::Arc;

use crate::digest::Digest;

pub use entry::ENTRY_TYPE;
pub use error::SharedCacheError;
pub use image::MadeImage;
pub use place::{CachePlace, PlaceNotes};
pub use prune::{CachedEntry, Pruned};
pub use trust::CacheTrust;
pub use write::{Held, HeldEntry, Published, PublishedPath, Signers};

/// The caches that a command reads.
#[derive(Debug, Clone)]
pub struct SharedCache {
    places: Arc<Vec<CachePlace>>,
    trust: CacheTrust,
}

impl SharedCache {
    /// Caches that are asked in their order, and whom to believe there.
    pub fn new(places: Vec<CachePlace>, trust: CacheTrust) -> Self {
        Self {
            places: Arc::new(places),
            trust,
        }
    }
}

/// The tag of the entry of a step, by its plan key.
fn plan_tag(key: &Digest) -> String {
    format!("p-{}", key.hex())
}

/// The tag of the entry of a step, by its build key.
fn build_tag(key: &Digest) -> String {
    format!("b-{}", key.hex())
}

/// The tag of an image.
fn image_tag(key: &Digest) -> String {
    format!("i-{}", key.hex())
}
