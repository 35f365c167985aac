//! A *layer limit* is how many layers an image may have.
//!
//! Invariant: at least one, and more than Docker's graph drivers stack only where that was asked for.

use std::fmt;

use serde::{Serialize, Serializer};

/// How many layers an image may have at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LayerLimit(usize);

impl LayerLimit {
    /// The most layers that `docker load` takes with a graph driver: from 126 on it fails with "max depth exceeded"
    /// (measured with 20.10 and 26.1).
    pub const DOCKER: Self = Self(125);
    /// The most that can be asked for where Docker need not load the image.
    pub const MAX: Self = Self(500);
    /// The limit of an image that sets none: it leaves room for others to be laid over it.
    pub const DEFAULT: Self = Self(100);

    /// A limit of `layers`; beyond [`LayerLimit::DOCKER`] only where `beyond_docker` says so.
    pub fn new(layers: usize, beyond_docker: bool) -> Result<Self, LayerLimitError> {
        let most = if beyond_docker { Self::MAX } else { Self::DOCKER };
        match Self(layers) {
            limit if layers >= 1 && limit <= most => Ok(limit),
            _ => Err(LayerLimitError { layers, most }),
        }
    }

    /// The number.
    pub const fn get(self) -> usize {
        self.0
    }
}

impl fmt::Display for LayerLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for LayerLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// A number of layers that no image may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an image cannot have at most {layers} layers: the limit goes from 1 to {most}")]
pub struct LayerLimitError {
    /// What was asked for.
    pub layers: usize,
    /// The most that can be asked for.
    pub most: LayerLimit,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_bounds_what_is_not_asked_to_go_beyond_it() {
        for (layers, beyond_docker, allowed) in [
            (0, false, false),
            (1, false, true),
            (125, false, true),
            (126, false, false),
            (126, true, true),
            (500, true, true),
            (501, true, false),
        ] {
            let limit = LayerLimit::new(layers, beyond_docker);
            assert_eq!(limit.is_ok(), allowed, "{layers} {beyond_docker}");
            assert!(limit.is_ok_and(|limit| limit.get() == layers) || !allowed);
        }
    }
}
