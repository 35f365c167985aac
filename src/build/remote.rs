//! *Builds elsewhere*: scripts that run at a builder, and what is done where it does not run them.
//!
//! Invariant: where a script ran changes neither what it is given nor what its output is held against. Of steps that run
//! here there are never more at once than without a builder.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::event::{Event, Reporter};
use crate::fsio::with_causes;
use crate::parallel::{self, Seat, Seats};
use crate::remote::{Farm, RemoteError};

/// A builder that runs scripts.
pub struct RemoteBuilds {
    /// The builder.
    pub(super) farm: Farm,
    /// Whether scripts that it does not run are run here.
    falls_back: bool,
    has_warned: AtomicBool,
    /// For steps that run here.
    here: Seats,
}

impl std::fmt::Debug for RemoteBuilds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.farm.fmt(f)
    }
}

impl RemoteBuilds {
    /// Scripts run at `farm`; with `falls_back` here, where it does not run them.
    pub fn new(farm: Farm, falls_back: bool) -> Self {
        Self {
            farm,
            falls_back,
            has_warned: AtomicBool::new(false),
            here: Seats::new(parallel::threads(0)),
        }
    }

    /// A seat for a step that runs here.
    pub(super) fn seat_here(&self) -> Seat<'_> {
        self.here.sit()
    }

    /// Whether a step that failed so is run here instead; tells it.
    pub(super) fn falls_back(&self, label: &str, error: &RemoteError, reporter: &dyn Reporter) -> bool {
        let does = self.falls_back && error.is_builders();
        // That a builder is gone is said once, not of each of hundreds of steps.
        if does && !(error.is_known() && self.has_warned.swap(true, Ordering::Relaxed)) {
            let text = format!("`{label}` is built here instead: {}", with_causes(error));
            reporter.report(Event::Warning { text });
        }
        does
    }
}
