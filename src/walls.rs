//! *Walls* are what stands between a build's script and the machine: which ones, from none to all.
//!
//! Invariant: they are ordered by what they keep out, and what was built is the same behind all of them: walls are recorded
//! beside a path, never in a digest.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The walls that a script ran behind, or is to run behind; weaker ones are less.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Walls {
    /// None: the script is the user who builds, on the machine itself; or a builder's worker of which the script could see
    /// that it has a network, or could not see that it has none.
    None,
    /// A builder's: what it was sent was its root, and it saw no network. What else stood between it and the worker's machine
    /// is not known here.
    Builder,
    /// A root of its own because each call about a path is answered or changed on its way, by layerize, as any user can have it;
    /// the same filter of system calls as below. They keep what is given apart from what is not, and stop nobody who tries to
    /// get around them.
    Traced,
    /// A changed root, a user of the build's own and a filter of system calls that cuts the network, as root of a container
    /// can have them. Processes and unix sockets without a path are the container's.
    Chroot,
    /// User, mount, pid, net, ipc and uts namespaces of the build's own; also what no script made has these.
    #[default]
    Namespaces,
}

/// A text that names no walls.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no walls: write `namespaces`, `chroot`, `traced`, `builder` or `none`")]
pub struct WallsError(String);

impl Walls {
    /// All, from the strongest down.
    pub const LADDER: [Self; 5] = [Self::Namespaces, Self::Chroot, Self::Traced, Self::Builder, Self::None];

    /// The names of all.
    pub const NAMES: [&str; 5] = [
        Self::Namespaces.name(),
        Self::Chroot.name(),
        Self::Traced.name(),
        Self::Builder.name(),
        Self::None.name(),
    ];

    /// Whether a sandbox of this machine can be these.
    pub const fn is_of_this_machine(self) -> bool {
        !matches!(self, Self::Builder)
    }

    /// Its name in specs, records and flags.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Builder => "builder",
            Self::Traced => "traced",
            Self::Chroot => "chroot",
            Self::Namespaces => "namespaces",
        }
    }

    /// Reads a record, in which older versions only said whether there was a sandbox: `true` or `false`.
    ///
    /// # Errors
    ///
    /// It is neither that nor a name.
    pub fn deserialize_record<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Record {
            Sandboxed(bool),
            Walls(String),
        }
        match Record::deserialize(deserializer)? {
            Record::Sandboxed(true) => Ok(Self::Namespaces),
            Record::Sandboxed(false) => Ok(Self::None),
            Record::Walls(name) => name.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl Serialize for Walls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl fmt::Display for Walls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Walls {
    type Err = WallsError;

    fn from_str(text: &str) -> Result<Self, WallsError> {
        let mut ladder = Self::LADDER.into_iter();
        let found = ladder.find(|walls| walls.name() == text);
        found.ok_or_else(|| WallsError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_stronger_walls_are_more() {
        for pair in Walls::LADDER.windows(2) {
            assert!(pair[0] > pair[1]);
        }
        for walls in Walls::LADDER {
            assert_eq!(walls.to_string().parse(), Ok(walls));
        }
        let error = "chrooot".parse::<Walls>().unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`namespaces`, `chroot`, `traced`, `builder` or `none`")
        );
    }

    #[test]
    fn records_of_older_versions_are_read() {
        for (json, walls) in [
            ("true", Some(Walls::Namespaces)),
            ("false", Some(Walls::None)),
            ("\"chroot\"", Some(Walls::Chroot)),
            ("\"traced\"", Some(Walls::Traced)),
            ("\"builder\"", Some(Walls::Builder)),
            ("\"\"", None),
            ("1", None),
            ("null", None),
        ] {
            let mut deserializer = serde_json::Deserializer::from_str(json);
            assert_eq!(Walls::deserialize_record(&mut deserializer).ok(), walls, "{json}");
        }
    }
}
