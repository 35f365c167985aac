//! Integration tests: the program as users run it, with a cleared environment, beside the real peers.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod crash;
mod images;
mod plan;
mod registry;
mod specs;
mod store;
mod support;
