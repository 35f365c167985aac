//! A *tar profile* is the name of the tool whose dialect a layer's tar is written in; `layer` has the dialects themselves.
//!
//! Invariant: one name for each, which stands in specs, in an image's format and on the command line.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// The dialect of a layer's tar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TarProfile {
    /// layerize's own.
    #[default]
    Layerize,
    /// That of nix2container's `buildImage` and `buildLayer`.
    Nix2container,
    /// That of `dockerTools.streamLayeredImage` and `buildLayeredImage` of nixpkgs.
    Dockertools,
}

impl TarProfile {
    /// All of them, the default first.
    pub const ALL: [Self; 3] = [Self::Layerize, Self::Nix2container, Self::Dockertools];

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
            Self::Layerize => "layerize",
            Self::Nix2container => "nix2container",
            Self::Dockertools => "dockertools",
        }
    }
}

/// A name that no profile has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a tar profile")]
pub struct TarProfileError {
    /// The name.
    pub text: String,
}

impl TarProfileError {
    /// What to write instead.
    pub fn help(&self) -> Option<String> {
        Some(format!("the profiles are `{}`", TarProfile::NAMES.join("`, `")))
    }
}

impl FromStr for TarProfile {
    type Err = TarProfileError;

    fn from_str(text: &str) -> Result<Self, TarProfileError> {
        let found = Self::ALL.into_iter().find(|profile| profile.name() == text);
        found.ok_or_else(|| TarProfileError { text: text.to_owned() })
    }
}

impl fmt::Display for TarProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for TarProfile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_print() {
        for (profile, name) in TarProfile::ALL.into_iter().zip(TarProfile::NAMES) {
            assert_eq!(profile.to_string(), name);
            assert_eq!(name.parse::<TarProfile>().unwrap(), profile);
        }
        for text in ["", "Layerize", "nix2container@1", "gnu"] {
            let error = text.parse::<TarProfile>().unwrap_err();
            assert_eq!(error.to_string(), format!("`{text}` is not a tar profile"));
            assert_eq!(
                error.help().unwrap(),
                "the profiles are `layerize`, `nix2container`, `dockertools`"
            );
        }
    }
}
