//! *Realisations* that are known by plan keys and notes, beside those of derivations.
//!
//! Invariant: they have no text of their own, so that none is taken for a derivation.

use rusqlite::params;

use super::Database;
use crate::digest::Digest;
use crate::store::StoreError;
use crate::store::error::DatabaseContext;
use crate::store_path::StorePath;

impl Database {
    /// Forgets what was recorded under a key.
    pub(in crate::store) fn forget_realisation(&self, key: &Digest) -> Result<(), StoreError> {
        self.lock()
            .prepare_cached("DELETE FROM realisation WHERE derivation = ?1")
            .and_then(|mut statement| statement.execute(params![&key.as_bytes()[..]]))
            .during("forget who said what a derivation made", &self.file)?;
        Ok(())
    }

    /// Records that the step with this plan key made `path`. It lies beside the derivations, without a text of its own.
    pub(in crate::store) fn record_planned(&self, plan_key: &Digest, path: &StorePath) -> Result<(), StoreError> {
        self.lock()
            .prepare_cached(
                "INSERT INTO realisation (derivation, path) VALUES (?1, ?2)
                 ON CONFLICT (derivation) DO UPDATE SET path = excluded.path WHERE path <> excluded.path",
            )
            .and_then(|mut statement| statement.execute(params![&plan_key.as_bytes()[..], path.to_string()]))
            .during("record what a step made", &self.file)?;
        Ok(())
    }
}
