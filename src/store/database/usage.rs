//! *Usage* in the database: when somebody last had use for each path, what refers to what, and whose each root is.
//!
//! Invariant: every valid path has a time of use, from its registration on; it goes with its path. What is said of roots is a
//! note: the root itself is the symlink, and one without a note is kept all the same.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, params};

use super::Database;
use crate::store::error::DatabaseContext;
use crate::store::{RootOwner, StoreError};
use crate::store_path::StorePath;

/// The schema that brought what is here.
const SINCE: i64 = 3;

/// What that schema added. Of what was there before nobody knows when it was used: it counts as used at that moment.
pub(super) const CREATE: &str = "
CREATE TABLE use (
    path INTEGER PRIMARY KEY REFERENCES path ON DELETE CASCADE,
    -- Milliseconds since 1970.
    last INTEGER NOT NULL
) STRICT;
INSERT INTO use SELECT id, CAST(unixepoch('subsec') * 1000 AS INTEGER) FROM path;
-- For whom the root of this name is.
CREATE TABLE root (
    name TEXT PRIMARY KEY,
    folder BLOB NOT NULL,
    kind TEXT NOT NULL,
    target TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

/// SQLite's expression for this moment.
const NOW: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

/// A valid path in the graph of all.
#[derive(Debug, Clone)]
pub(in crate::store) struct PathNode {
    pub path: StorePath,
    /// Size of its archive in bytes.
    pub size: u64,
    /// When somebody last had use for it itself.
    pub used: SystemTime,
    /// What it refers to, as indices.
    pub references: Vec<usize>,
}

/// Looking up.
impl Database {
    /// All valid paths, sorted, with what they refer to.
    pub(in crate::store) fn nodes(&self) -> Result<Vec<PathNode>, StoreError> {
        // A store that cannot be written to may still have an older schema.
        let is_known = self.schema()? >= SINCE;
        let connection = self.lock();
        let (rows, edges) = read(&connection, is_known).during("list paths", &self.file)?;
        let mut nodes = Vec::with_capacity(rows.len());
        for (id, path, size, used) in rows {
            let parsed = path.parse().map_err(|_| format!("it holds the path `{path}`"));
            let node = PathNode {
                path: self.damaged(parsed)?,
                size: size.cast_unsigned(),
                used: SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(used).unwrap_or(0)),
                references: Vec::new(),
            };
            nodes.push((id, node));
        }
        nodes.sort_by(|(_, a), (_, b)| a.path.cmp(&b.path));
        let places: BTreeMap<i64, usize> = nodes.iter().enumerate().map(|(at, (id, _))| (*id, at)).collect();
        for (referrer, target) in edges {
            if let (Some(&referrer), Some(&target)) = (places.get(&referrer), places.get(&target)) {
                nodes[referrer].1.references.push(target);
            }
        }
        Ok(nodes.into_iter().map(|(_, node)| node).collect())
    }

    /// For whom each root is of which that was noted.
    pub(in crate::store) fn root_owners(&self) -> Result<BTreeMap<String, RootOwner>, StoreError> {
        if self.schema()? < SINCE {
            return Ok(BTreeMap::new());
        }
        let owners = |row: &rusqlite::Row<'_>| {
            let folder: Vec<u8> = row.get(1)?;
            let owner = RootOwner {
                folder: OsString::from_vec(folder).into(),
                kind: row.get(2)?,
                target: row.get(3)?,
            };
            Ok((row.get(0)?, owner))
        };
        self.lock()
            .prepare_cached("SELECT name, folder, kind, target FROM root")
            .and_then(|mut statement| statement.query_map([], owners)?.collect())
            .during("list roots", &self.file)
    }
}

type Rows = Vec<(i64, String, i64, i64)>;

fn read(connection: &Connection, is_known: bool) -> rusqlite::Result<(Rows, Vec<(i64, i64)>)> {
    let statement = match is_known {
        true => "SELECT id, path.path, nar_size, coalesce(last, 0) FROM path LEFT JOIN use ON use.path = id",
        false => "SELECT id, path, nar_size, 0 FROM path",
    };
    let rows = connection
        .prepare_cached(statement)?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let edges = connection
        .prepare_cached("SELECT referrer, target FROM reference WHERE referrer <> target ORDER BY referrer, target")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok((rows, edges))
}

/// Changing.
impl Database {
    /// Notes that somebody has use for `paths` at this moment; those that are not valid are left out.
    pub(in crate::store) fn note_use<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a StorePath>,
    ) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let transaction = self.begin(&mut connection)?;
        // One moment for all of them.
        let now: i64 = transaction
            .query_row(&format!("SELECT {NOW}"), [], |row| row.get(0))
            .during("tell the time", &self.file)?;
        for path in paths {
            transaction
                .prepare_cached(
                    "INSERT INTO use SELECT id, ?2 FROM path WHERE path = ?1
                     ON CONFLICT (path) DO UPDATE SET last = excluded.last",
                )
                .and_then(|mut statement| statement.execute(params![path.to_string(), now]))
                .during("note a use", &self.file)?;
        }
        transaction.commit().during("note uses", &self.file)
    }

    /// Notes for whom the roots of these names are.
    pub(in crate::store) fn note_roots(&self, names: &[String], owner: &RootOwner) -> Result<(), StoreError> {
        let folder = owner.folder.as_os_str().as_encoded_bytes();
        let mut connection = self.lock();
        let transaction = self.begin(&mut connection)?;
        for name in names {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO root VALUES (?1, ?2, ?3, ?4)")
                .and_then(|mut statement| statement.execute(params![name, folder, owner.kind, owner.target]))
                .during("note a root", &self.file)?;
        }
        transaction.commit().during("note roots", &self.file)
    }

    /// Forgets for whom the root of this name was.
    pub(in crate::store) fn forget_root(&self, name: &str) -> Result<(), StoreError> {
        self.lock()
            .prepare_cached("DELETE FROM root WHERE name = ?1")
            .and_then(|mut statement| statement.execute([name]))
            .during("forget a root", &self.file)?;
        Ok(())
    }
}

/// Says that a path that is just being registered has use for somebody.
pub(super) fn insert(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(&format!("INSERT INTO use VALUES (?1, {NOW})"))?
        .execute([id])?;
    Ok(())
}
