//! Integration tests: the program as users run it, with a cleared environment, beside the real peers.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod check;
mod crash;
mod explain;
mod images;
mod plan;
mod rebuild;
mod specs;
mod store;
mod support;
mod verify;
