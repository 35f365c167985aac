//! Integration tests: the program as users run it, with a cleared environment, beside the real peers.

#![allow(clippy::unwrap_used)]

mod attest;
mod bad_input;
mod crash;
mod images;
mod nix;
mod plan;
mod specs;
mod store;
mod support;
