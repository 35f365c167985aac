//! A *registry* is a server of the OCI distribution specification: repositories that hold manifests and blobs.
//!
//! Invariant: what arrives is verified against its digest before it is believed; a secret goes to the host it is for
//! and to no other, and is in no message.
//!
//! From below: `client` ([`http`](crate::http), and who we are: `challenge`, `token`) → `repo` (manifests, presence), `tags` (what a repository lists, and what is taken out of it), `upload` (one blob: `content`, and `state`
//! that outlives the process) → [`push()`] and [`attach`], [`RemoteImage`] for reading.

mod challenge;
mod client;
mod companion;
pub mod config;
mod content;
mod error;
mod known;
mod outcome;
mod push;
mod referrers;
mod repo;
mod sink;
mod source;
mod state;
mod tags;
#[cfg(test)]
mod tests;
mod token;
mod upload;

pub use config::{ConfigError, Endpoint, Login, RegistryConfig};
pub use error::RegistryError;
pub use outcome::{IndexDocument, Planned, PushOptions, PushSummary};
pub use push::{Pusher, push};
pub use referrers::attach;
pub use sink::RegistrySink;
pub use source::{Remote, RemoteImage};
