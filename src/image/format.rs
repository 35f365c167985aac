//! The *format* of an image: the number of the rules that it follows, and the dialect of its tars.
//!
//! Invariant: printed and parsed here alone, so that what `document` writes into a manifest is what `rebuild` reads.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::layer::FORMAT;
use crate::oci::TarProfile;

/// The rules by which an image is made. Printed `NUMBER`, with ` PROFILE` where that is not layerize's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Format {
    /// Number of the rules.
    #[serde(rename = "format")]
    pub number: u32,
    /// The dialect of the layers' tars.
    pub tar_profile: TarProfile,
}

impl Format {
    /// The rules that this program follows, in a dialect.
    pub fn current(tar_profile: TarProfile) -> Self {
        Self {
            number: FORMAT,
            tar_profile,
        }
    }
}

/// A text that names no format that this program has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this layerize makes images of format {FORMAT}")]
pub struct UnknownFormat;

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tar_profile {
            TarProfile::Layerize => write!(f, "{}", self.number),
            profile => write!(f, "{} {profile}", self.number),
        }
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        let (number, profile) = text.split_once(' ').unwrap_or((text, "layerize"));
        let format = Self::current(profile.parse().map_err(|_| UnknownFormat)?);
        // Printed again, so that one format has one spelling.
        match number.parse() == Ok(format.number) && format.to_string() == text {
            true => Ok(format),
            false => Err(UnknownFormat),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_parsed() {
        for profile in TarProfile::ALL {
            let format = Format::current(profile);
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        for wrong in [
            "",
            "0",
            "7",
            "01",
            "1 layerize",
            "1 tar",
            "1  nix2container",
            "1 nix2container ",
            "7 nix2container",
        ] {
            assert_eq!(wrong.parse::<Format>(), Err(UnknownFormat), "{wrong:?}");
        }
    }
}
