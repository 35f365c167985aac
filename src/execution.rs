//! An *execution* is how the programs of a build's script ran on the machine that built: on its processor, or through an
//! emulator; and whether that machine is the one that they made programs for.
//!
//! Invariant: it is recorded beside a path, never in a digest. Emulated scripts are to make what they make on their own
//! processor; cross compilers are programs of another machine, with digests of their own.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How the programs of a script ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Execution {
    /// On the machine's own processor; also what no script made has this.
    #[default]
    Native,
    /// Through the emulator that the lock pins, which nobody but the sandbox knew of.
    Emulated,
    /// Through an emulator of the machine's, whichever it has.
    EmulatedByMachine,
    /// On the machine's own processor, making programs for another one.
    Cross,
}

/// A text that names no execution.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` does not say how a script ran: `native`, `emulated`, `emulated-by-machine` or `cross`")]
pub struct ExecutionError(String);

impl Execution {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Native, Self::Emulated, Self::EmulatedByMachine, Self::Cross];

    /// Its name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Emulated => "emulated",
            Self::EmulatedByMachine => "emulated-by-machine",
            Self::Cross => "cross",
        }
    }

    /// Whether an emulator ran the programs.
    pub fn is_emulated(self) -> bool {
        matches!(self, Self::Emulated | Self::EmulatedByMachine)
    }
}

impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Execution {
    type Err = ExecutionError;

    fn from_str(text: &str) -> Result<Self, ExecutionError> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|execution| execution.name() == text);
        found.ok_or_else(|| ExecutionError(text.to_owned()))
    }
}

impl Serialize for Execution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Execution {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for execution in Execution::ALL {
            assert_eq!(execution.to_string().parse(), Ok(execution));
        }
        let error = "natively".parse::<Execution>().unwrap_err();
        assert!(error.to_string().contains("`emulated-by-machine`"), "{error}");
    }
}
