//! A peer as a *builder*: lines that are kept open from step to step.
//!
//! Invariant: of a peer that cannot be used it is found out once, and not for each of hundreds of steps.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::address::SshAddress;
use super::error::PeerError;
use super::line::PeerLine;
use crate::fsio::with_causes;

/// Steps under way at a peer unless its configuration says otherwise.
pub const DEFAULT_PEER_JOBS: usize = 4;

/// A peer that runs scripts.
pub struct PeerBuilder {
    address: SshAddress,
    jobs: usize,
    idle: Mutex<Vec<PeerLine>>,
    failed: Mutex<Option<(String, Option<String>)>>,
}

impl std::fmt::Debug for PeerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerBuilder")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl PeerBuilder {
    /// A peer with so many steps under way at most; it is not called yet.
    pub fn new(address: SshAddress, jobs: usize) -> Self {
        Self {
            address,
            jobs,
            idle: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// Its address.
    pub fn name(&self) -> String {
        self.address.to_string()
    }

    /// Most steps under way there.
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    /// Does work over a line that nobody else uses meanwhile. What the server could not do ended it. `waiting` is called where a
    /// new line's other end says nothing for some seconds.
    pub fn with<T>(
        &self,
        waiting: impl FnOnce(),
        work: impl FnOnce(&mut PeerLine) -> Result<T, PeerError>,
    ) -> Result<T, PeerError> {
        if let Some((message, help)) = lock(&self.failed).clone() {
            return Err(PeerError::Again { message, help });
        }
        let idle = lock(&self.idle).pop();
        let opened = idle.map_or_else(|| PeerLine::open(&self.address, true, waiting), Ok);
        let mut line = opened.inspect_err(|error| {
            if error.is_for_all() {
                *lock(&self.failed) = Some((with_causes(error), error.help()));
            }
        })?;
        let done = work(&mut line)?;
        lock(&self.idle).push(line);
        Ok(done)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
