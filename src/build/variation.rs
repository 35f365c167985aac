//! A *variation* is a respect in which a build's surroundings are other than they always are, for a check.
//!
//! Invariant: all that is varied here is something that a build finds fixed and has no business putting into its
//! output. What is the same everywhere by design (paths inside, tools, the lack of a network) does not vary.

use std::collections::BTreeSet;

use crate::sandbox::RuntimeSettings;

/// Something that a build must not depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variation {
    /// User, group and their names.
    User,
    /// Name of the host.
    Host,
    /// File creation mask.
    Umask,
    /// Time zone.
    TimeZone,
    /// Language and character set.
    Locale,
    /// Home directory.
    Home,
    /// Number of processors: the one that is seen, and the one in `LAYERIZE_CORES`.
    Processors,
    /// Addresses of memory, fixed otherwise.
    Addresses,
    /// The file system of `/build`, and the order in which it lists a directory.
    FileOrder,
    /// Inodes and change times of what is given from the store, and the order in which it is listed.
    Store,
    /// What earlier runs left in the directories that the package keeps.
    BuildCache,
}

/// User and group of a varied build.
pub(super) const USER: (u32, u32) = (4321, 987);

/// Its groups.
pub(super) const GROUP: &str = "root:x:0:\nothers:x:987:\nnogroup:x:65534:\n";

const HOME: &str = "/another-homeless-shelter";

impl Variation {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::User,
        Self::Host,
        Self::Umask,
        Self::TimeZone,
        Self::Locale,
        Self::Home,
        Self::Processors,
        Self::Addresses,
        Self::FileOrder,
        Self::Store,
        Self::BuildCache,
    ];

    /// What it is, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user and group",
            Self::Host => "host name",
            Self::Umask => "umask",
            Self::TimeZone => "time zone",
            Self::Locale => "locale",
            Self::Home => "home directory",
            Self::Processors => "number of processors",
            Self::Addresses => "addresses of memory",
            Self::FileOrder => "file system and directory order",
            Self::Store => "inodes, change times and order of the store's files",
            Self::BuildCache => "build cache",
        }
    }
}

/// The surroundings that a sandbox fixes.
pub(super) fn settings(variations: &BTreeSet<Variation>) -> RuntimeSettings {
    let ordinary = RuntimeSettings::default();
    let varies = |variation| variations.contains(&variation);
    RuntimeSettings {
        host: if varies(Variation::Host) {
            "another-host".to_owned()
        } else {
            ordinary.host
        },
        umask: if varies(Variation::Umask) {
            0o077
        } else {
            ordinary.umask
        },
        addresses_vary: varies(Variation::Addresses),
        one_processor: varies(Variation::Processors),
        copies: ordinary.copies,
        bounds: ordinary.bounds,
        machine_root: ordinary.machine_root,
        emulator: ordinary.emulator,
        is_typed_in: ordinary.is_typed_in,
    }
}

/// Users of a varied build.
pub(super) fn passwd() -> String {
    let (user, group) = USER;
    format!("root:x:0:0:root:/:/sbin/nologin\nsomeone:x:{user}:{group}:someone:{HOME}:/bin/sh\n")
}

/// Changes the variables that go with the variations; the package's own are set later, and stay.
pub(super) fn change_variables(variables: &mut [(String, String)], variations: &BTreeSet<Variation>) {
    for (name, value) in variables {
        let changed = match name.as_str() {
            "HOME" if variations.contains(&Variation::Home) => HOME,
            // Without a database of time zones too: 13 hours and 45 minutes east.
            "TZ" if variations.contains(&Variation::TimeZone) => "XYZ-13:45",
            "LC_ALL" if variations.contains(&Variation::Locale) => match value.as_str() {
                "C" => "POSIX",
                _ => "C",
            },
            "LAYERIZE_CORES" if variations.contains(&Variation::Processors) => match value.as_str() {
                "1" => "2",
                _ => "1",
            },
            _ => continue,
        };
        changed.clone_into(value);
    }
}
