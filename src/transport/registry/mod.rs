//! A *registry* is a server of the OCI distribution specification: repositories that hold manifests and blobs.
//!
//! Invariant: what arrives is verified against its digest before it is believed; a secret goes to the host it is for
//! and to no other, and is in no message.
//!
//! From below: `wire` (one request, its bytes watched) → `client` (who we are: `challenge`, `token`; where it leads:
//! `address`; when again: `retry`) → `repo` (manifests, tags, presence), `upload` (one blob: `content`, and `state`
//! that outlives the process) → [`push()`] and [`attach`], [`RemoteImage`] for reading.

mod address;
mod challenge;
mod client;
pub mod config;
mod content;
mod error;
mod outcome;
mod push;
mod referrers;
mod repo;
mod retry;
mod sink;
mod source;
mod state;
#[cfg(test)]
mod tests;
mod token;
mod upload;
mod wire;

pub use config::{ConfigError, Endpoint, Login, RegistryConfig};
pub use error::RegistryError;
pub use outcome::{IndexDocument, Planned, PushOptions, PushSummary};
pub use push::{Pusher, push};
pub use referrers::attach;
pub use sink::RegistrySink;
pub use source::{Remote, RemoteImage};
