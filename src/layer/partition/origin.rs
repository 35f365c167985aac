//! The *origin* of a path: whose releases change it.
//!
//! Invariant: pure; it only multiplies what is expected before anything was seen of a path.

use serde::Serialize;

/// Whose releases change a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A distribution's, which keeps its packages steady: a Debian package.
    Distribution,
    /// Nobody knows: a path of a Nix store, or of a closure graph.
    #[default]
    Unknown,
    /// Another project's: a download, and what is built from one.
    Upstream,
    /// The spec's own project's: what is built from files beside it, or from a script alone.
    Own,
}

impl Origin {
    /// What is expected of a path of this origin, by what is of any path: `weight` and the result in parts per million.
    ///
    /// Own code is what most releases of an image are made for. Nothing is expected to change more often than always.
    pub(super) fn scale(self, weight: u64) -> u64 {
        let scaled = match self {
            Self::Distribution => weight / 2,
            Self::Unknown | Self::Upstream => weight,
            Self::Own => weight.saturating_mul(5),
        };
        scaled.min(super::MILLION)
    }
}
