//! Integration tests: the program as users run it, with a cleared environment, beside the real peers.

#![allow(clippy::unwrap_used)]

mod auth;
mod bad_input;
mod crash;
mod images;
mod plan;
#[path = "../../src/transport/registry/config/tests/served.rs"]
mod served;
mod specs;
mod store;
mod support;
