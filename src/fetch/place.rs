//! A *place* keeps files by digest: it is asked before anything else that is not on this machine's own disk.
//!
//! Invariant: a place is asked for nothing but a hash (a directory also for a file's name), and nothing that it gives
//! is believed before its hash was checked.

use std::fmt::Debug;
use std::io::Read;

use super::FetchError;
use crate::digest::FileHash;

/// A file that a place is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What its bytes must be.
    pub hash: &'a FileHash,
    /// Its size in bytes, where it is known.
    pub size: Option<u64>,
    /// Its name without directory.
    pub file: &'a str,
}

/// What a place has of a file.
pub enum LocalCopy {
    /// Its bytes, unverified.
    File(Box<dyn Read + Send>),
    /// Nothing.
    Nothing,
    /// Word that it may not be copied, and so was not.
    Withheld,
}

/// Somewhere files are kept by digest.
pub trait Place: Debug + Send + Sync {
    /// The place, as the user wrote it.
    fn name(&self) -> &str;

    /// Whether no network is needed.
    fn is_local(&self) -> bool;

    /// Opens a file. A place that cannot be reached is [`FetchError::Unreachable`], one that does not work
    /// [`FetchError::Place`].
    fn open(&self, request: &Request<'_>) -> Result<LocalCopy, FetchError>;

    /// Whether the file is there, as far as can be told without reading it.
    fn has(&self, request: &Request<'_>) -> Result<bool, FetchError>;
}

#[cfg(test)]
mod tests;
