//! *Attestations* in the database: what others said of a path that came from them.
//!
//! Invariant: they go with their path, in the same transaction in both directions.

use rusqlite::{Connection, OptionalExtension, params};

use super::Database;
use crate::store::StoreError;
use crate::store::error::DatabaseContext;
use crate::store::import::Attestation;
use crate::store_path::StorePath;

impl Database {
    /// What was said of `path`; nothing where it is not valid or was made here.
    pub(in crate::store) fn attestation(&self, path: &StorePath) -> Result<Attestation, StoreError> {
        // A store that cannot be written to may still have the first schema.
        if self.schema()? < 2 {
            return Ok(Attestation::default());
        }
        let connection = self.lock();
        read(&connection, &path.to_string()).during("look signatures up", &self.file)
    }

    /// Adds signatures of a valid path; false where it is not valid.
    pub(in crate::store) fn add_signature(&self, path: &StorePath, signature: &str) -> Result<bool, StoreError> {
        let path = path.to_string();
        let mut connection = self.lock();
        let transaction = self.begin(&mut connection)?;
        let id: Option<i64> = transaction
            .query_row("SELECT id FROM path WHERE path = ?1", [&path], |row| row.get(0))
            .optional()
            .during("look a path up", &self.file)?;
        let Some(id) = id else { return Ok(false) };
        transaction
            .execute(
                "INSERT OR IGNORE INTO signature VALUES (?1, ?2)",
                params![id, signature],
            )
            .during("record a signature", &self.file)?;
        transaction.commit().during("record a signature", &self.file)?;
        Ok(true)
    }
}

fn read(connection: &Connection, path: &str) -> rusqlite::Result<Attestation> {
    let row = connection
        .prepare_cached(
            "SELECT deriver, content_address FROM attestation JOIN path ON path.id = attestation.path
             WHERE path.path = ?1",
        )?
        .query_row([path], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (deriver, content_address) = row.unwrap_or_default();
    let signatures = connection
        .prepare_cached("SELECT signature FROM signature JOIN path ON path.id = signature.path WHERE path.path = ?1")?
        .query_map([path], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Attestation {
        deriver,
        content_address,
        signatures,
    })
}

/// Keeps what was said of the path with this number.
pub(super) fn insert(connection: &Connection, id: i64, attestation: &Attestation) -> rusqlite::Result<()> {
    let Attestation {
        deriver,
        content_address,
        signatures,
    } = attestation;
    if deriver.is_some() || content_address.is_some() {
        connection
            .prepare_cached("INSERT INTO attestation VALUES (?1, ?2, ?3)")?
            .execute(params![id, deriver, content_address])?;
    }
    for signature in signatures {
        connection
            .prepare_cached("INSERT INTO signature VALUES (?1, ?2)")?
            .execute(params![id, signature])?;
    }
    Ok(())
}
