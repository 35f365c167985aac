//! The *manifest* of a generation: which packages are in it, and where each came from.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::ProfileError;
use crate::fsio::{read_limited, write_atomic};
use crate::store_path::StorePath;

/// Its name in a generation.
pub(super) const FILE: &str = "manifest.json";

/// Largest manifest in bytes.
const BYTES_MAX: u64 = 16 << 20;

/// The version of its form.
const VERSION: u32 = 1;

/// A package's priority unless it is given another: as Nix has it, the lower goes first.
pub const DEFAULT_PRIORITY: i32 = 5;

/// What is in a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// The directory of the store that has the packages.
    pub store: PathBuf,
    /// The generation that it was made from, whatever its number; `None`: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_from: Option<u64>,
    /// The packages, by name.
    pub packages: Vec<ProfilePackage>,
}

/// A package of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfilePackage {
    /// What it is called.
    pub name: String,
    /// What it is.
    pub path: StorePath,
    /// Where two packages have a file of one name, that of the lower number is taken.
    pub priority: i32,
    /// Where a newer one comes from; `None`: nowhere, it is a store path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// Where a package came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The spec, or its directory.
    pub spec: PathBuf,
    /// What it is called there.
    pub target: String,
}

impl Manifest {
    /// One without packages.
    pub(super) fn of(store: &Path) -> Self {
        Self {
            version: VERSION,
            store: store.to_owned(),
            made_from: None,
            packages: Vec::new(),
        }
    }

    pub(super) fn read(file: &Path) -> Result<Self, ProfileError> {
        let bytes = read_limited(file, BYTES_MAX)?;
        let malformed = |reason: String| ProfileError::Manifest {
            file: file.to_owned(),
            reason,
        };
        let manifest: Self = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        match manifest.version {
            VERSION => Ok(manifest),
            other => Err(malformed(format!(
                "it has version {other}, and this layerize reads {VERSION}"
            ))),
        }
    }

    pub(super) fn write(&self, file: &Path) -> Result<(), ProfileError> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        Ok(write_atomic(file, text.as_bytes())?)
    }
}
