//! A *registry* is a server of the OCI distribution specification: repositories that hold manifests and blobs.
//!
//! Invariant: what arrives is verified against its digest before it is believed; a secret goes to the host it is for
//! and to no other, and is in no message.

pub mod config;

pub use config::{ConfigError, Endpoint, Login, RegistryConfig};
