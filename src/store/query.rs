//! *Queries*: everything that the store can tell of its paths.

use std::collections::BTreeMap;

use super::Store;
use super::database::Addressing;
use super::error::StoreError;
use super::evidence::Evidence;
use crate::digest::Digest;
use crate::execution::Execution;
use crate::store_path::{PathInfo, StorePath};
use crate::walls::Walls;

/// How a path came to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    /// The resolved derivation's hash, where one made the path.
    pub derivation: Option<Digest>,
    /// What it was built behind.
    pub walls: Walls,
    /// How the programs of the script ran that made it.
    pub execution: Execution,
    /// References that were declared rather than found: reference → through which path of the same closure.
    pub declared: Vec<(StorePath, StorePath)>,
}

/// Everything that is known of a valid path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathDetails {
    /// What identifies it.
    pub info: PathInfo,
    /// How it came to be.
    pub provenance: Provenance,
    /// The canonical JSON of the resolved derivation that made it.
    pub derivation_json: Option<String>,
    /// What its path is computed from.
    pub addressing: Addressing,
    /// Ascends with every registration in this store.
    pub sequence: i64,
    /// Why it refers to each path; with itself where it holds its own hash.
    pub evidence: BTreeMap<StorePath, Evidence>,
    /// Compressed files in it that were too deep or too big to be searched to their end.
    pub unscanned: Vec<String>,
}

impl Store {
    /// Every valid path that a derivation made, with the canonical JSON of that.
    pub fn derivation_texts(&self) -> Result<Vec<(StorePath, String)>, StoreError> {
        self.database.derivation_texts()
    }

    /// Everything that is known of `path`; `None` where it is not valid.
    pub fn info_full(&self, path: &StorePath) -> Result<Option<PathDetails>, StoreError> {
        let Some((sequence, registration)) = self.database.registration(path)? else {
            return Ok(None);
        };
        let derivation_json = match &registration.derivation {
            Some(derivation) => self.database.derivation_json(derivation)?,
            None => None,
        };
        let declared = registration
            .references
            .iter()
            .filter_map(|(path, evidence)| match evidence {
                Evidence::Declared { via } => Some((path.clone(), via.clone())),
                Evidence::Found(_) => None,
            });
        Ok(Some(PathDetails {
            info: registration.info(),
            provenance: Provenance {
                derivation: registration.derivation,
                walls: registration.walls,
                execution: registration.execution,
                declared: declared.collect(),
            },
            derivation_json,
            addressing: registration.addressing,
            sequence,
            evidence: registration.references,
            unscanned: registration.unscanned,
        }))
    }

    /// Why `referrer` refers to `target`; `None` where it does not.
    pub fn evidence(&self, referrer: &StorePath, target: &StorePath) -> Result<Option<Evidence>, StoreError> {
        let registration = self.database.registration(referrer)?;
        Ok(registration.and_then(|(_, mut registration)| registration.references.remove(target)))
    }

    /// All valid paths, sorted.
    pub fn list(&self) -> Result<Vec<PathInfo>, StoreError> {
        let all = self.database.registrations()?;
        Ok(all.into_values().map(|registration| registration.info()).collect())
    }
}
