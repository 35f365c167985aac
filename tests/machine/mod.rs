//! What tests of builds share: a root made of the machine's own programs, and a store to build in.
#![allow(dead_code, unused_imports, reason = "no test uses all of it")]

mod fixture;
mod processes;
mod root;
mod sandboxed;
mod user;

pub use fixture::{Fixture, Recorder, STORE, logical};
pub use processes::{helpers, marker, processes_with, wait_until};
pub use root::machine_root;
pub use sandboxed::{Sandboxed, output};
pub use user::{program, run_again_as_an_ordinary_user};
