//! The *files of a lock in a shared cache*: in a place that was named for what was built, and keeps files from outside
//! only where inputs were kept with an image.
//!
//! Invariant: a place that keeps none of them is asked once, not once for each file.

use std::sync::{Mutex, PoisonError};

use super::error::InputsError;
use super::find::FoundInputs;
use super::place::{Place, failure};
use crate::fetch::{self, FetchError, LocalCopy, Request};

/// The files that the first artifact of a lock lists, wherever one lies in a place.
#[derive(Debug)]
pub struct LockPlace {
    place: Place,
    /// The artifacts, once they were asked for.
    found: Mutex<Option<Vec<FoundInputs>>>,
}

impl LockPlace {
    /// The files of the lock that `place` is [anchored](Place::anchored) to.
    pub fn new(place: Place) -> Self {
        Self {
            place,
            found: Mutex::default(),
        }
    }

    /// What a place's artifacts have of a file.
    fn look(&self, request: &Request<'_>) -> Result<Option<FoundInputs>, InputsError> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match &mut *found {
            Some(found) => found,
            none => none.insert(self.place.of_lock()?),
        };
        let mut listing = found
            .iter()
            .filter(|found| found.artifact.input(request.hash).is_some());
        Ok(listing.next().cloned())
    }
}

impl fetch::Place for LockPlace {
    fn name(&self) -> &str {
        fetch::Place::name(&self.place)
    }

    fn is_local(&self) -> bool {
        fetch::Place::is_local(&self.place)
    }

    fn open(&self, request: &Request<'_>) -> Result<LocalCopy, FetchError> {
        match self.look(request).map_err(|error| failure(self.name(), error))? {
            Some(found) => fetch::Place::open(&found, request),
            None => Ok(LocalCopy::Nothing),
        }
    }

    fn has(&self, request: &Request<'_>) -> Result<bool, FetchError> {
        match self.look(request).map_err(|error| failure(self.name(), error))? {
            Some(found) => fetch::Place::has(&found, request),
            None => Ok(false),
        }
    }
}
