//! *Platforms* as arguments: some of those that the spec is for, or all.

use std::str::FromStr;

use crate::oci::{Platform, PlatformError};
use crate::project::PlatformChoice;

/// A platform of the spec, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlatformOrAll {
    /// All that there are.
    All,
    /// One of them.
    One(Platform),
}

impl FromStr for PlatformOrAll {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        match text {
            "all" => Ok(Self::All),
            text => text.parse().map(Self::One),
        }
    }
}

impl PlatformOrAll {
    /// Which platforms are meant by what was named; `other` where nothing was.
    pub fn choice(named: &[Self], other: PlatformChoice) -> PlatformChoice {
        let platforms = named.iter().map(|one| match one {
            Self::All => None,
            Self::One(platform) => Some(platform.clone()),
        });
        match platforms.collect::<Option<Vec<_>>>() {
            _ if named.is_empty() => other,
            Some(platforms) => PlatformChoice::These(platforms),
            None => PlatformChoice::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_goes_before_what_is_usual() {
        let choice = |texts: &[&str]| {
            let named: Vec<PlatformOrAll> = texts.iter().map(|text| text.parse().unwrap()).collect();
            PlatformOrAll::choice(&named, PlatformChoice::Own)
        };
        let arm64: Platform = "linux/arm64".parse().unwrap();
        assert_eq!(choice(&[]), PlatformChoice::Own);
        assert_eq!(choice(&["all"]), PlatformChoice::All);
        assert_eq!(choice(&["linux/arm64", "all"]), PlatformChoice::All);
        assert_eq!(choice(&["linux/arm64"]), PlatformChoice::These(vec![arm64]));
        assert!("every".parse::<PlatformOrAll>().is_err());
    }
}
