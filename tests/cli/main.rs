//! Integration tests: the program as users run it, with a cleared environment, beside the real peers.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod binary_cache;
mod crash;
mod images;
mod plan;
mod specs;
mod store;
mod support;
