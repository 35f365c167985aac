//! What *configuring* takes: Debian packages whose maintainer scripts are to run.
//!
//! Invariant: packages come after those that they depend on.

use std::collections::{BTreeMap, BTreeSet};

use super::Input;

/// Debian packages to be configured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configure {
    /// `x86_64-linux`, `aarch64-linux`: scripts run on such a machine alone.
    pub system: String,
    /// What came of configuring the tools, whose programs the scripts use, and the tools themselves; none where these are
    /// to be configured.
    pub tools: Option<(Input, Vec<ConfiguredDeb>)>,
    /// The packages, those that depend on each other together, each group after those that it depends on.
    pub groups: Vec<Vec<ConfiguredDeb>>,
    /// Names of packages whose scripts are not to run.
    pub skip: BTreeSet<String>,
    /// Answers to what the scripts ask, by the question's name.
    pub answers: BTreeMap<String, String>,
    /// Locales to make, by name, and the package that has what they are made of.
    pub locales: Option<(Input, Vec<String>)>,
    /// Certificates that the image is to trust beside Debian's, in PEM form, by name.
    pub certificates: BTreeMap<String, String>,
    /// Whether packages are missing that these depend on.
    pub incomplete: bool,
    /// What runs the scripts where the machine is another one than `system`; not hashed.
    pub emulator: Option<Input>,
}

/// A Debian package to be configured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfiguredDeb {
    /// Its name.
    pub name: String,
    /// Its files.
    pub tree: Input,
    /// Its maintainer scripts.
    pub control: Input,
}

impl Configure {
    /// Everything that must be in the store before the scripts run, without repetition.
    pub fn inputs(&self) -> BTreeSet<&Input> {
        let of_tools = self.tools.iter().flat_map(|(_, packages)| packages);
        let packages = self.groups.iter().flatten().chain(of_tools);
        let inputs = packages.flat_map(|package| [&package.tree, &package.control]);
        let single = self.tools.iter().map(|(output, _)| output);
        let single = single.chain(self.locales.iter().map(|(package, _)| package));
        let single = single.chain(&self.emulator);
        inputs.chain(single).collect()
    }
}
