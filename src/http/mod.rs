//! *HTTP* as a client speaks it: one way to connect, to wait, to try again, and to judge where an answer leads.
//!
//! Invariant: the environment is not read here; no wait is without end; a login goes to the origin that it is for and
//! follows no redirect; no address in an answer leads from the world into this machine or its network.
//!
//! From below: `wire` (one request, its bytes watched) → `pace` (when a host may be asked again) → `client` (how a
//! host is reached: `tls`, `proxy`; who the user is there: `netrc`; where an answer leads: `address`). Registries
//! (`transport::registry`), downloads (`fetch`) and binary caches are built on it.

use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) mod address;
pub(crate) mod client;
mod config;
mod error;
pub(crate) mod netrc;
pub(crate) mod pace;
pub(crate) mod proxy;
#[cfg(test)]
pub(crate) mod tests;
pub mod tls;
pub(crate) mod wire;

pub use config::{HostTls, HttpConfig};
pub use error::{HttpError, SetupError};
pub use proxy::{ProxyVariable, ProxyVariables};

static CANCELLED: AtomicBool = AtomicBool::new(false);

/// Makes every request of this process fail, those under way within a tenth of a second: it is about to end.
pub fn cancel() {
    CANCELLED.store(true, Ordering::SeqCst);
}

/// Whether [`cancel`] was called.
pub fn is_cancelled() -> bool {
    CANCELLED.load(Ordering::SeqCst)
}
