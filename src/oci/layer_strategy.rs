//! A *layer strategy* is the name of a way to group store paths into layers; `layer::partition` has the ways themselves.
//!
//! Invariant: one name for each, which stands in specs, in plan files and on the command line.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// How a closure is partitioned from scratch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LayerStrategy {
    /// Fewest bytes expected to be re-sent.
    #[default]
    Churn,
    /// nixpkgs' automatic layers.
    SizeFirst,
    /// nixpkgs' former way.
    Popularity,
    /// Guix's way.
    Biggest,
    /// Nixery's way.
    Dominator,
    /// One layer for each path, and an error where that is too many.
    PerPath,
    /// One layer for all.
    Single,
}

impl LayerStrategy {
    /// All of them, the default first.
    pub const ALL: [Self; 7] = [
        Self::Churn,
        Self::SizeFirst,
        Self::Popularity,
        Self::Biggest,
        Self::Dominator,
        Self::PerPath,
        Self::Single,
    ];

    /// Their names.
    pub const NAMES: [&'static str; Self::ALL.len()] = {
        let mut names = [""; Self::ALL.len()];
        let mut index = 0;
        while index < names.len() {
            names[index] = Self::ALL[index].name();
            index += 1;
        }
        names
    };

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Churn => "churn",
            Self::SizeFirst => "size-first",
            Self::Popularity => "popularity",
            Self::Biggest => "biggest",
            Self::Dominator => "dominator",
            Self::PerPath => "per-path",
            Self::Single => "single",
        }
    }
}

impl fmt::Display for LayerStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no strategy has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a layer strategy")]
pub struct LayerStrategyError {
    /// The name.
    pub text: String,
}

impl LayerStrategyError {
    /// What to write instead.
    pub fn help(&self) -> Option<String> {
        Some(format!("the strategies are `{}`", LayerStrategy::NAMES.join("`, `")))
    }
}

impl FromStr for LayerStrategy {
    type Err = LayerStrategyError;

    fn from_str(text: &str) -> Result<Self, LayerStrategyError> {
        let found = Self::ALL.into_iter().find(|strategy| strategy.name() == text);
        found.ok_or_else(|| LayerStrategyError { text: text.to_owned() })
    }
}

impl Serialize for LayerStrategy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_print() {
        for (strategy, name) in LayerStrategy::ALL.into_iter().zip(LayerStrategy::NAMES) {
            assert_eq!(strategy.to_string(), name);
            assert_eq!(name.parse::<LayerStrategy>().unwrap(), strategy);
            assert_eq!(serde_json::to_string(&strategy).unwrap(), format!("{name:?}"));
        }
        let error = "chrun".parse::<LayerStrategy>().unwrap_err();
        assert_eq!(error.to_string(), "`chrun` is not a layer strategy");
        let help = error.help().unwrap();
        assert!(help.starts_with("the strategies are `churn`, `size-first`"), "{help}");
    }
}
