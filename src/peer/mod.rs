//! A *peer* is layerize on another machine, reached through the system's `ssh`: closures are copied to it and from it.
//!
//! Invariant: neither side believes the other. What arrives is registered after all that it refers to, and only when its own
//! content gives its path or somebody whom the receiver trusts signed it; sizes are bounded by what was announced, and what was
//! announced by what there is room for. Whatever stops a copy, what has arrived is whole, and stays: the next goes on from there.
//!
//! # The protocol, version 1
//!
//! `layerize serve-store --stdio` speaks it on standard input and output. Numbers are 32 bits, little-endian.
//!
//! ```text
//! server: "layerize-store\n", then [`Hello`]: the versions that it speaks
//! client: [`Choice`]: one of them
//! client: [`Request`], as often as it likes; after [`Request::Add`] an archive
//! server: [`Answer`] to each, in order; after [`Answer::Archive`] an archive
//! frame   = length, JSON of so many bytes
//! archive = { length > 0, so many bytes }, 0; or in place of the 0 0xffff_ffff: it could not be read to its end
//! ```
//!
//! After `Answer::Failed` the server ends. The client ends by closing its side.

mod address;
mod builder;
mod copy;
mod error;
mod line;
mod message;
mod serve;
#[cfg(test)]
mod tests;
mod wire;

pub use address::{SshAddress, SshAddressError};
pub use builder::{DEFAULT_PEER_JOBS, PeerBuilder};
pub use copy::{Copied, Judge};
pub use error::PeerError;
pub use line::PeerLine;
pub use message::{Activation, BuildOrder, Failure, Installed, Named, ScriptEnd};
pub use serve::{Services, serve};
