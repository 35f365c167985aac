//! A package's *record*: what its files are beyond what a store path can hold of them, and what its scripts ask for.
//!
//! Invariant: a function of the package's bytes alone, kept in its store path, so that it is where the store path is: an
//! image made from a copy of the store path is the same. Paths are relative to the root and merged below `usr`; those that
//! are not UTF-8 are left out, as Debian has none.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::RootError;
use crate::fsio;

/// Where a package's store path keeps its record, one file a package; there is none where nothing is to be said.
pub const RECORDS_DIR: &str = "var/lib/dpkg/attributes.d";

/// Largest record of one package, in bytes.
const RECORD_MAX: u64 = 64 << 20;

/// What a package's files are beyond what a store path can hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PackageRecord {
    /// Modes and owners other than 0755 or 0644 and root.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Ownership>,
    /// Capabilities that files have in the package, as `getcap` prints them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub capabilities: BTreeMap<String, String>,
    /// Where other packages' files go that stand at a path of this one's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub diversions: BTreeMap<String, String>,
    /// Paths that are one file, each group in byte order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Vec<String>>,
    /// Capabilities that its scripts ask for, perhaps on conditions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub setcap: BTreeMap<String, String>,
}

/// Mode and owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ownership {
    /// Permission bits, those for set-ID and sticky included.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
}

impl PackageRecord {
    /// Whether nothing is to be said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The records in a package's store path by the packages' names; those of what is not a Debian package are none.
    pub fn read_all(package: &Path) -> Result<BTreeMap<String, Self>, RootError> {
        let dir = package.join(RECORDS_DIR);
        let mut records = BTreeMap::new();
        if !dir.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Ok(records);
        }
        for name in fsio::sorted_names(&dir)? {
            let path = dir.join(&name);
            let bytes = fsio::read_limited(&path, RECORD_MAX)?;
            let record = serde_json::from_slice(&bytes).map_err(|error| RootError::Record {
                path,
                reason: error.to_string(),
            })?;
            records.insert(name.to_string_lossy().into_owned(), record);
        }
        Ok(records)
    }
}
