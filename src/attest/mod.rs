//! To *attest* is to state something of an image beside it: what it is made of, how it was made, who vouches for it.
//!
//! Invariant: a document is a function of the image, its inventory and the program's version: no clock, no random
//! number, no host name, everything sorted, written by [`canonical_json`](crate::oci::canonical_json). (A P-256
//! signature is random by nature, and a summary must name the time of the check, which the caller gives.) No image digest
//! ever depends on a document.
//!
//! [`Inventory`] (`gather`: from the closure, `partial`: from a finished image alone) → [`sbom`] (`spdx`, `cyclonedx`)
//! and [`provenance()`]; what a rebuild showed → [`summary()`]; `statement` → `dsse` → [`sign()`] and [`verify()`] with
//! a `key`; what is attached to an image becomes an [`Artifact`](crate::oci::Artifact).

mod artifact;
mod bundle;
mod cyclonedx;
mod dsse;
mod error;
mod gather;
mod inventory;
mod key;
mod licence;
mod npm;
mod partial;
mod provenance;
mod purl;
mod spdx;
mod statement;
mod summary;
#[cfg(test)]
mod tests;
mod vouch;

pub use artifact::{AttachmentKind, artifact, kind_of, read_document, statement_of, subject_of};
pub use bundle::{BUNDLE_MAX, BUNDLE_TYPE, ExpectedStatement, Rejection, Verified, sign, verify};
pub use error::AttestError;
pub use gather::{Gathered, gather};
pub use inventory::{
    Component, ComponentOrigin, Extent, ImageFacts, Inventory, InventoryLayer, PinnedFile, SbomFormat, sbom,
};
pub use key::{KeyKind, PrivateKey, PublicKey, generate};
pub use licence::Licence;
pub use partial::of_source;
pub use provenance::{BuildFacts, PROVENANCE_TYPE, provenance};
pub use statement::{SIGNATURE_PREDICATE, Statement, statement};
pub use summary::{REBUILD_POLICY, RebuildFacts, SUMMARY_TYPE, summary};
pub use vouch::{RejectedBundle, Signers, Verdict, WantedStatement, vouch};
