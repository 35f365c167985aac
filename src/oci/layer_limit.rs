//! A *layer limit* is how many layers an image may have.
//!
//! Invariant: at least one, and more than Docker's graph drivers stack only where that was asked for.

use std::fmt;
use std::str::FromStr;

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
        let most = Self::most(beyond_docker);
        match Self(layers) {
            limit if layers >= 1 && limit <= most => Ok(limit),
            _ => Err(LayerLimitError {
                text: layers.to_string(),
                most,
            }),
        }
    }

    /// The most that can be asked for: [`LayerLimit::DOCKER`], or [`LayerLimit::MAX`] with `beyond_docker`.
    pub const fn most(beyond_docker: bool) -> Self {
        if beyond_docker { Self::MAX } else { Self::DOCKER }
    }

    /// The number.
    pub const fn get(self) -> usize {
        self.0
    }
}

impl FromStr for LayerLimit {
    type Err = LayerLimitError;

    /// Parses a limit that may be beyond what Docker loads.
    fn from_str(text: &str) -> Result<Self, LayerLimitError> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| digits);
        number.map_or(
            Err(LayerLimitError {
                text: text.to_owned(),
                most: Self::MAX,
            }),
            |number| Self::new(number, true),
        )
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

/// What is not a limit of layers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a limit of layers: it must be a number from 1 to {most}")]
pub struct LayerLimitError {
    /// What was asked for.
    pub text: String,
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

    #[test]
    fn texts_are_numbers_of_layers() {
        assert_eq!("126".parse(), Ok(LayerLimit(126)));
        for text in ["", "0", "501", "+5", "-1", "many", "99999999999999999999"] {
            let error = text.parse::<LayerLimit>().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("`{text}` is not a limit of layers: it must be a number from 1 to 500")
            );
        }
    }
}
