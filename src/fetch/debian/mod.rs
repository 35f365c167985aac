//! *Debian packages*: resolved by apt in a state of its own, downloaded, unpacked into trees.
//!
//! Invariant: nothing of the host's package state is read and nothing of a package is ever run.

mod advice;
mod apt;
mod archives;
pub(super) mod client;
mod control;
mod deb;
pub(super) mod debug_files;
mod emulator;
mod index;
mod maintainer;
mod postinst;
mod shell;
pub(super) mod snapshot;
pub(super) mod solve;
mod source;
mod sources;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod testing_archive;
#[cfg(test)]
pub(super) mod testing_repo;
mod usrmerge;
mod version;

pub use deb::unpack_deb;
pub use emulator::{EMULATOR, unpack_emulator};
pub use maintainer::{CONTROL, FILES, unpack_deb_control};
pub use source::{DIFF_NAME, unpack_deb_source};
pub use sources::AptSources;

/// Whether `name` is a Debian package name (Debian policy §5.6.1); what is not may neither name a file nor be
/// given to apt.
fn is_package_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    let mut bytes = name.bytes();
    name.len() >= 2 && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric()) && name.bytes().all(allowed)
}

/// Whether `version` is a Debian version (deb-version(7)) by its characters.
fn is_version(version: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".+-~:".contains(&byte);
    version.starts_with(|first: char| first.is_ascii_digit()) && version.bytes().all(allowed)
}
