//! The *database*: what is known of the store's valid paths.
//!
//! Invariant: a row in `path` means that the path's whole tree is on disk and that every path it refers to has
//! a row too; all changes are transactions. The schema's number is SQLite's `user_version`; a newer schema
//! than this program's is refused, not guessed at.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};

mod attestation;
mod realisation;
mod rows;
mod steps;
mod usage;

use rows::{PathRow, ReferenceRow, path_columns};
use steps::{CREATE_4, CREATE_5, CREATE_6, CREATE_7, CREATE_8};
pub(super) use usage::PathNode;

use super::error::{DatabaseContext, StoreError};
use super::evidence::Evidence;
use super::import::Attestation;
use crate::digest::Digest;
use crate::execution::Execution;
use crate::fsio::{FileLock, LockKind, give};
use crate::store_path::{PathInfo, StorePath};
use crate::walls::Walls;

/// What makes each schema of the one before it.
const STEPS: [&str; 8] = [
    CREATE,
    CREATE_2,
    usage::CREATE,
    CREATE_4,
    CREATE_5,
    CREATE_6,
    CREATE_7,
    CREATE_8,
];

/// The newest schema this program knows.
const SCHEMA: i64 = STEPS.len() as i64;

/// How long a statement waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

/// A file that takes up space for the garbage collector to have some on a full disk.
pub(super) const RESERVE: &str = "db/reserve";

/// Size of that file in bytes.
const RESERVE_SIZE: usize = 1 << 20;

/// Marks the file as ours (SQLite's `application_id`): the bytes "laye".
const APPLICATION_ID: i64 = 0x6c61_7965;

const CREATE: &str = "
CREATE TABLE path (
    -- Ascends with every registration and is never used again.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path TEXT NOT NULL UNIQUE,
    nar_hash BLOB NOT NULL CHECK (length(nar_hash) = 32),
    nar_size INTEGER NOT NULL CHECK (nar_size >= 0),
    -- What the path is computed from, and that hash: 'tree' (NAR hash modulo itself), 'file' (SHA-256 of the
    -- file), 'derivation' (none: what made it gave the path).
    addressing TEXT NOT NULL CHECK (addressing IN ('tree', 'file', 'derivation')),
    address_hash BLOB CHECK (length(address_hash) = 32),
    -- The resolved derivation that made it first.
    derivation BLOB CHECK (length(derivation) = 32),
    sandboxed INTEGER NOT NULL CHECK (sandboxed IN (0, 1)),
    -- JSON array of the compressed files that were not scanned to their end.
    unscanned TEXT NOT NULL
) STRICT;
-- A row whose two paths are one says that the path holds its own hash.
CREATE TABLE reference (
    referrer INTEGER NOT NULL REFERENCES path ON DELETE CASCADE,
    target INTEGER NOT NULL REFERENCES path DEFERRABLE INITIALLY DEFERRED,
    -- Why: 'declared' through the path `via`, or found in the file `file` as the kind says.
    kind TEXT NOT NULL CHECK (kind IN ('declared', 'content', 'utf-16', 'symlink', 'name')),
    via TEXT,
    file TEXT,
    inside TEXT,
    position INTEGER,
    PRIMARY KEY (referrer, target)
) STRICT, WITHOUT ROWID;
CREATE INDEX reference_target ON reference (target);
-- What a derivation made is worth knowing after the path is gone: it names the input of others.
CREATE TABLE realisation (
    derivation BLOB PRIMARY KEY CHECK (length(derivation) = 32),
    path TEXT NOT NULL,
    -- The derivation itself, for as long as the path is valid.
    json TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX realisation_path ON realisation (path);
";

/// What schema 2 added: what others said of a path that came from them, kept to be said again.
const CREATE_2: &str = "
CREATE TABLE attestation (
    path INTEGER PRIMARY KEY REFERENCES path ON DELETE CASCADE,
    -- Base name of the derivation that made it.
    deriver TEXT,
    -- What the path is computed from, as Nix writes it.
    content_address TEXT
) STRICT;
CREATE TABLE signature (
    path INTEGER NOT NULL REFERENCES path ON DELETE CASCADE,
    -- `NAME:BASE64`.
    signature TEXT NOT NULL,
    PRIMARY KEY (path, signature)
) STRICT, WITHOUT ROWID;
";

/// An open database.
pub(super) struct Database {
    connection: Mutex<Connection>,
    file: PathBuf,
    read_only: bool,
    /// Whether the disk was full when it was opened, so that the reserve had to go.
    was_full: bool,
    /// What is read of `path`, as its schema has it.
    path_columns: &'static str,
}

/// What a path is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// The hash of its archive, with its own hash blanked out.
    Tree(Digest),
    /// The hash of the one file it is.
    File(Digest),
    /// Nothing that it holds: what made it gave the path (of ours, because it holds its own hash where that cannot be
    /// rewritten).
    Derivation,
}

/// A path about to become valid.
#[derive(Debug, Clone)]
pub(super) struct Registration {
    pub path: StorePath,
    pub nar_hash: Digest,
    pub nar_size: u64,
    pub addressing: Addressing,
    pub derivation: Option<Digest>,
    pub walls: Walls,
    pub execution: Execution,
    /// Why it refers to each path; with itself where it holds its own hash.
    pub references: BTreeMap<StorePath, Evidence>,
    pub unscanned: Vec<String>,
    /// To be kept with it; looked up by [`Database::attestation`], and else empty.
    pub attestation: Attestation,
}

impl Registration {
    /// What callers are told of it.
    pub(super) fn info(&self) -> PathInfo {
        let others = self.references.keys().filter(|&reference| *reference != self.path);
        PathInfo {
            path: self.path.clone(),
            nar_hash: self.nar_hash,
            nar_size: self.nar_size,
            references: others.cloned().collect(),
            self_reference: self.references.contains_key(&self.path),
        }
    }
}

/// Opening.
impl Database {
    /// Opens the database below `dir`, creating it where it is missing.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let database = match Self::open_writable(dir) {
            // SQLite takes some space for memory that processes share, even to look something up.
            Err(StoreError::NoSpace { .. }) if std::fs::remove_file(dir.join(RESERVE)).is_ok() => {
                let mut database = Self::open_writable(dir)?;
                database.was_full = true;
                database.refill();
                database
            }
            other => other?,
        };
        if database.schema()? < SCHEMA {
            database.upgrade(dir)?;
        }
        database.check_schema(dir)?;
        Ok(database)
    }

    fn open_writable(dir: &Path) -> Result<Self, StoreError> {
        let file = dir.join("db/db.sqlite");
        let connection = Connection::open(&file).during("open tables", &file)?;
        let database = Self::new(connection, file, false)?;
        database.schema()?;
        Ok(database)
    }

    /// Opens the database below `dir` where neither it nor its directory can be written to.
    pub(super) fn open_read_only(dir: &Path) -> Result<Self, StoreError> {
        let file = dir.join("db/db.sqlite");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        // Where another process has the database open, there is a shared memory file, and the rules that come with
        // it hold. Where there is none nothing changes, and SQLite must not try to make one, which it cannot here.
        let in_use = file.with_extension("sqlite-shm").exists();
        let parameters = if in_use { "?mode=ro" } else { "?immutable=1" };
        let uri = format!("file:{}{parameters}", uri_path(&file));
        let connection = Connection::open_with_flags(uri, flags).during("open tables", &file)?;
        let mut database = Self::new(connection, file, true)?;
        database.check_schema(dir)?;
        database.path_columns = path_columns(database.schema()?);
        Ok(database)
    }

    fn new(connection: Connection, file: PathBuf, read_only: bool) -> Result<Self, StoreError> {
        connection
            .busy_timeout(BUSY_TIMEOUT)
            .during("set a time limit", &file)?;
        // NORMAL loses the last transactions with the power, never the database: their paths are made again.
        connection
            .execute_batch("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;")
            .during("set options", &file)?;
        Ok(Self {
            connection: Mutex::new(connection),
            file,
            read_only,
            was_full: false,
            path_columns: path_columns(SCHEMA),
        })
    }

    /// Creates the tables, or those that an older schema lacks.
    fn upgrade(&self, dir: &Path) -> Result<(), StoreError> {
        // Switching to a write-ahead log does not wait for others by itself.
        let _lock = FileLock::acquire(&dir.join("locks/create"), LockKind::Exclusive)?;
        let found = usize::try_from(self.schema()?).unwrap_or(STEPS.len());
        let missing = STEPS.get(found..).unwrap_or_default().concat();
        if missing.is_empty() {
            return Ok(());
        }
        let mut connection = self.lock();
        connection
            .execute_batch("PRAGMA journal_mode = WAL;")
            .during("set options", &self.file)?;
        let transaction = self.begin(&mut connection)?;
        transaction
            .execute_batch(&format!(
                "{missing} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA};"
            ))
            .during("create tables", &self.file)?;
        transaction.commit().during("create tables", &self.file)?;
        self.reserve();
        Ok(())
    }

    /// Takes up space for the next collection; without it a store on a full disk works less well, but works.
    pub(super) fn reserve(&self) {
        let reserve = self.file.with_file_name("reserve");
        if !reserve.exists() {
            let written = std::fs::write(&reserve, vec![0; RESERVE_SIZE]);
            if written.is_err() || give(&reserve).is_err() {
                let _ = std::fs::remove_file(&reserve);
            }
        }
    }

    /// Takes up what is left of a reserve that had to go, so that only a collection gets it.
    fn refill(&self) {
        use std::io::Write as _;
        let reserve = self.file.with_file_name("reserve");
        let Ok(mut file) = std::fs::File::create(&reserve) else {
            return;
        };
        let _ = give(&reserve);
        let page = [0; 4096];
        let mut left = RESERVE_SIZE / page.len();
        while left > 0 && file.write_all(&page).is_ok() {
            left -= 1;
        }
    }

    fn schema(&self) -> Result<i64, StoreError> {
        self.lock()
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .during("read the schema's number", &self.file)
    }

    fn check_schema(&self, dir: &Path) -> Result<(), StoreError> {
        match self.schema()? {
            // An older one is left as it is where nothing can be written.
            1..=SCHEMA => Ok(()),
            found => Err(StoreError::NewerSchema {
                dir: dir.to_owned(),
                found,
                known: SCHEMA,
            }),
        }
    }

    /// Whether the disk was full when it was opened.
    pub(super) fn was_full(&self) -> bool {
        self.was_full
    }

    /// Whether nothing can be written.
    pub(super) fn read_only(&self) -> bool {
        self.read_only
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic elsewhere cannot leave a transaction half done: dropping it rolls it back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin<'a>(&self, connection: &'a mut Connection) -> Result<Transaction<'a>, StoreError> {
        connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .during("begin a transaction", &self.file)
    }
}

/// Looking up.
impl Database {
    /// What is known of `path`.
    pub(super) fn info(&self, path: &StorePath) -> Result<Option<PathInfo>, StoreError> {
        Ok(self.registration(path)?.map(|(_, registration)| registration.info()))
    }

    /// Everything that was registered with `path`, and its number.
    pub(super) fn registration(&self, path: &StorePath) -> Result<Option<(i64, Registration)>, StoreError> {
        let connection = self.lock();
        let row = connection
            .prepare_cached(&format!("SELECT {} FROM path WHERE path = ?1", self.path_columns))
            .and_then(|mut statement| statement.query_row([path.to_string()], PathRow::read).optional())
            .during("look a path up", &self.file)?;
        let Some(row) = row else {
            return Ok(None);
        };
        let id = row.id;
        let mut registration = self.damaged(row.parse())?;
        registration.references = self.references(&connection, id)?;
        Ok(Some((id, registration)))
    }

    /// All valid paths.
    pub(super) fn registrations(&self) -> Result<BTreeMap<StorePath, Registration>, StoreError> {
        let connection = self.lock();
        let rows = connection
            .prepare_cached(&format!("SELECT {} FROM path", self.path_columns))
            .and_then(|mut statement| {
                statement
                    .query_map([], PathRow::read)?
                    .collect::<rusqlite::Result<Vec<_>>>()
            })
            .during("list paths", &self.file)?;
        let mut all = BTreeMap::new();
        for row in rows {
            let id = row.id;
            let mut registration = self.damaged(row.parse())?;
            registration.references = self.references(&connection, id)?;
            all.insert(registration.path.clone(), registration);
        }
        Ok(all)
    }

    fn references(&self, connection: &Connection, id: i64) -> Result<BTreeMap<StorePath, Evidence>, StoreError> {
        let rows = connection
            .prepare_cached(
                "SELECT path.path, kind, via, file, inside, position FROM reference
                 JOIN path ON path.id = target WHERE referrer = ?1",
            )
            .and_then(|mut statement| {
                statement
                    .query_map([id], ReferenceRow::read)?
                    .collect::<rusqlite::Result<Vec<_>>>()
            })
            .during("look references up", &self.file)?;
        rows.into_iter().map(|row| self.damaged(row.parse())).collect()
    }

    /// The path that `derivation` made.
    pub(super) fn realisation(&self, derivation: &Digest) -> Result<Option<StorePath>, StoreError> {
        let text: Option<String> = self
            .lock()
            .prepare_cached("SELECT path FROM realisation WHERE derivation = ?1")
            .and_then(|mut statement| {
                statement
                    .query_row([&derivation.as_bytes()[..]], |row| row.get(0))
                    .optional()
            })
            .during("look a derivation up", &self.file)?;
        text.map(|text| self.damaged(text.parse().map_err(|_| format!("it holds the path `{text}`"))))
            .transpose()
    }

    /// The canonical JSON of `derivation`, where it made a path that is still valid.
    pub(super) fn derivation_json(&self, derivation: &Digest) -> Result<Option<String>, StoreError> {
        self.lock()
            .prepare_cached("SELECT json FROM realisation WHERE derivation = ?1 AND json IS NOT NULL")
            .and_then(|mut statement| {
                statement
                    .query_row([&derivation.as_bytes()[..]], |row| row.get(0))
                    .optional()
            })
            .during("look a derivation up", &self.file)
    }

    /// The paths that derivations made and that are still valid, with the canonical JSON of each derivation.
    pub(super) fn derivation_texts(&self) -> Result<Vec<(StorePath, String)>, StoreError> {
        let rows: Vec<(String, String)> = self
            .lock()
            .prepare_cached("SELECT path, json FROM realisation WHERE json IS NOT NULL")
            .and_then(|mut statement| statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
            .during("list derivations", &self.file)?;
        let parsed = |(path, json): (String, String)| {
            let parsed = path.parse().map_err(|_| format!("it holds the path `{path}`"));
            Ok((self.damaged(parsed)?, json))
        };
        rows.into_iter().map(parsed).collect()
    }

    /// SQLite's own findings and broken references, one sentence each.
    pub(super) fn check(&self) -> Result<Vec<String>, StoreError> {
        let connection = self.lock();
        let mut findings: Vec<String> = connection
            .prepare("PRAGMA quick_check")
            .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
            .during("check tables", &self.file)?;
        findings.retain(|finding| finding != "ok");
        let broken: i64 = connection
            .query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0))
            .during("check tables", &self.file)?;
        if broken > 0 {
            findings.push(format!("{broken} rows refer to paths that are not there"));
        }
        Ok(findings)
    }

    fn damaged<T>(&self, result: Result<T, String>) -> Result<T, StoreError> {
        result.map_err(|reason| StoreError::DatabaseDamaged {
            path: self.file.clone(),
            reason,
        })
    }
}

/// Changing.
impl Database {
    /// Makes a path valid; every path it refers to must be.
    pub(super) fn register(&self, new: &Registration) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let transaction = self.begin(&mut connection)?;
        let (addressing, address_hash) = match new.addressing {
            Addressing::Tree(hash) => ("tree", Some(hash)),
            Addressing::File(hash) => ("file", Some(hash)),
            Addressing::Derivation => ("derivation", None),
        };
        let unscanned = serde_json::Value::from(new.unscanned.clone()).to_string();
        transaction
            .execute(
                "INSERT INTO path (path, nar_hash, nar_size, addressing, address_hash, derivation, walls, execution,
                     unscanned)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    new.path.to_string(),
                    &new.nar_hash.as_bytes()[..],
                    new.nar_size.cast_signed(),
                    addressing,
                    address_hash.as_ref().map(|hash| &hash.as_bytes()[..]),
                    new.derivation.as_ref().map(|hash| &hash.as_bytes()[..]),
                    new.walls.name(),
                    new.execution.name(),
                    unscanned,
                ],
            )
            .during("register a path", &self.file)?;
        let id = transaction.last_insert_rowid();
        self.insert_references(&transaction, id, new)?;
        attestation::insert(&transaction, id, &new.attestation)
            .and_then(|()| usage::insert(&transaction, id))
            .during("register a path", &self.file)?;
        transaction.commit().during("register a path", &self.file)
    }

    /// Says of a valid path, to which others may refer, that it has other content now.
    pub(super) fn replace(&self, new: &Registration) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let transaction = self.begin(&mut connection)?;
        let path = new.path.to_string();
        let id: i64 = transaction
            .query_row("SELECT id FROM path WHERE path = ?1", [&path], |row| row.get(0))
            .during("look a path up", &self.file)?;
        let unscanned = serde_json::Value::from(new.unscanned.clone()).to_string();
        let change = "UPDATE path SET nar_hash = ?2, nar_size = ?3, unscanned = ?4 WHERE id = ?1";
        let (hash, size) = (&new.nar_hash.as_bytes()[..], new.nar_size.cast_signed());
        transaction
            .execute(change, params![id, hash, size, unscanned])
            .and_then(|_| transaction.execute("DELETE FROM reference WHERE referrer = ?1", [id]))
            .during("register a path", &self.file)?;
        self.insert_references(&transaction, id, new)?;
        transaction.commit().during("register a path", &self.file)
    }

    /// Inserts what the path with this number refers to.
    fn insert_references(&self, transaction: &Transaction<'_>, id: i64, new: &Registration) -> Result<(), StoreError> {
        for (target, evidence) in &new.references {
            let row = ReferenceRow::new(target, evidence);
            let inserted = transaction
                .prepare_cached(
                    "INSERT INTO reference (referrer, target, kind, via, file, inside, position)
                     SELECT ?1, id, ?3, ?4, ?5, ?6, ?7 FROM path WHERE path = ?2",
                )
                .and_then(|mut statement| {
                    statement.execute(params![
                        id,
                        row.target,
                        row.kind,
                        row.via,
                        row.file,
                        row.inside,
                        row.position
                    ])
                })
                .during("register a reference", &self.file)?;
            if inserted == 0 {
                return Err(StoreError::NotValid {
                    path: target.clone(),
                    needed_by: Some(new.path.clone()),
                });
            }
        }
        Ok(())
    }

    /// Records that `derivation` made `path`; false where `path` is not valid.
    pub(super) fn record_realisation(
        &self,
        derivation: &Digest,
        json: &str,
        path: &StorePath,
    ) -> Result<bool, StoreError> {
        let recorded = self
            .lock()
            .execute(
                "INSERT OR REPLACE INTO realisation (derivation, path, json) SELECT ?1, path, ?3 FROM path WHERE path = ?2",
                params![&derivation.as_bytes()[..], path.to_string(), json],
            )
            .during("record what a derivation made", &self.file)?;
        Ok(recorded > 0)
    }

    /// Forgets `paths`, their references and the text of what derivations made them; no other path may refer to
    /// them.
    pub(super) fn forget<'a>(&self, paths: impl IntoIterator<Item = &'a StorePath>) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let transaction = self.begin(&mut connection)?;
        for path in paths {
            let path = path.to_string();
            for statement in [
                "DELETE FROM path WHERE path = ?1",
                "UPDATE realisation SET json = NULL WHERE path = ?1",
            ] {
                transaction
                    .prepare_cached(statement)
                    .and_then(|mut statement| statement.execute([&path]))
                    .during("forget a path", &self.file)?;
            }
        }
        transaction.commit().during("forget paths", &self.file)
    }

    /// Which of `names` are no valid paths.
    pub(super) fn unregistered(&self, names: Vec<StorePath>) -> Result<Vec<StorePath>, StoreError> {
        let texts: Vec<String> = self
            .lock()
            .prepare_cached("SELECT path FROM path")
            .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
            .during("list paths", &self.file)?;
        let valid: BTreeSet<String> = texts.into_iter().collect();
        Ok(names
            .into_iter()
            .filter(|path| !valid.contains(&path.to_string()))
            .collect())
    }
}

/// A path as SQLite's URIs write it.
fn uri_path(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');
    percent_encode(path.as_os_str().as_bytes(), ENCODED).to_string()
}
