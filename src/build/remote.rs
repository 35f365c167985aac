//! *Builds elsewhere*: scripts that run at a builder, and what is done where it does not run them.
//!
//! Invariant: where a script ran changes neither what it is given nor what its output is held against. Of steps that run
//! here there are never more at once than without a builder.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::event::{Event, Reporter};
use crate::fsio::with_causes;
use crate::parallel::{self, Seat, Seats};
use crate::peer::PeerBuilder;
use crate::remote::{Farm, Network, RemoteError};
use crate::walls::Walls;

/// A builder that runs scripts.
pub struct RemoteBuilds {
    place: Builder,
    /// Whether scripts that it does not run are run here.
    falls_back: bool,
    has_warned: AtomicBool,
    has_warned_of_network: AtomicBool,
    /// For steps that run here.
    here: Seats,
}

impl std::fmt::Debug for RemoteBuilds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.place.fmt(f)
    }
}

/// Where scripts run.
#[derive(Debug)]
pub enum Builder {
    /// At a server of the Remote Execution API.
    Farm(Box<Farm>),
    /// At layerize on another machine.
    Peer(PeerBuilder),
}

impl RemoteBuilds {
    /// Scripts run at `place`; with `falls_back` here, where it does not run them.
    pub fn new(place: Builder, falls_back: bool) -> Self {
        Self {
            place,
            falls_back,
            has_warned: AtomicBool::new(false),
            has_warned_of_network: AtomicBool::new(false),
            here: Seats::new(parallel::threads(0)),
        }
    }

    /// The server, where that is what it is.
    pub(super) fn farm(&self) -> Option<&Farm> {
        match &self.place {
            Builder::Farm(farm) => Some(farm),
            Builder::Peer(_) => None,
        }
    }

    /// The other machine, where that is what it is.
    pub(super) fn peer(&self) -> Option<&PeerBuilder> {
        match &self.place {
            Builder::Farm(_) => None,
            Builder::Peer(peer) => Some(peer),
        }
    }

    /// Most steps under way.
    pub(super) fn jobs(&self) -> usize {
        match &self.place {
            Builder::Farm(farm) => farm.jobs(),
            Builder::Peer(peer) => peer.jobs(),
        }
    }

    /// A seat for a step that runs here.
    pub(super) fn seat_here(&self) -> Seat<'_> {
        self.here.sit()
    }

    /// Says once that workers may have a network.
    pub(super) fn warn_of_network(&self, builder: &str, network: Network, reporter: &dyn Reporter) {
        if !self.has_warned_of_network.swap(true, Ordering::Relaxed) {
            let walls = Walls::None;
            let text = format!(
                "scripts at `{builder}` are taken to run behind no walls (`{walls}`, `layerize help builders`): {network}"
            );
            reporter.report(Event::Warning { text });
        }
    }

    /// Whether a step that failed so is run here instead; tells it.
    pub(super) fn falls_back(&self, label: &str, error: &RemoteError, reporter: &dyn Reporter) -> bool {
        error.is_builders() && self.goes_on_here(label, error, error.is_known(), reporter)
    }

    /// Whether a step that a builder could not do is run here instead; tells it. `is_known`: it was said of another before.
    pub(super) fn goes_on_here(
        &self,
        label: &str,
        error: &(dyn std::error::Error + 'static),
        is_known: bool,
        reporter: &dyn Reporter,
    ) -> bool {
        let does = self.falls_back;
        // That a builder is gone is said once, not of each of hundreds of steps.
        if does && !(is_known && self.has_warned.swap(true, Ordering::Relaxed)) {
            let text = format!("`{label}` is built here instead: {}", with_causes(error));
            reporter.report(Event::Warning { text });
        }
        does
    }
}
