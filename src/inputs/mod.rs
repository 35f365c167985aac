//! The *inputs* of a build are all files that it takes from outside; kept beside an image they let anybody build it again
//! when everything they came from is gone.
//!
//! Invariant: a SHA-256 in a lock is the digest of a blob, so that a file is the same wherever it is kept and is asked
//! for by nothing but its digest; what is read back is believed only after it was checked, and leads nowhere out of the
//! directory and the store that it is restored to.
//!
//! An [`Artifact`] is an OCI manifest whose layers are the files (`artifact` has the format). [`pack()`] makes one of the
//! files that [`gather()`] finds a plan to need and of what is [`Portable`] of the project itself; [`beside`] finds the
//! artifact of an image, [`restore()`] makes a project of it again, and a [`Place`] carries files for a fetch.

mod artifact;
mod carry;
mod error;
mod find;
mod gather;
mod lock_place;
mod pack;
mod place;
mod portable;
mod restore;
mod tree;

pub use artifact::{ARTIFACT_TYPE, About, Artifact, InputFile, MadeWith, Part, PartKind, TextKind, anchor_of, tag_of};
pub use carry::{carry, open_carried};
pub use error::InputsError;
pub use find::{FoundInputs, beside};
pub use gather::{Needed, gather};
pub use lock_place::LockPlace;
pub use pack::{ArtifactContents, LocalTree, pack};
pub use place::Place;
pub use portable::{Portable, portable};
pub use restore::{Restored, image_names, restore};
