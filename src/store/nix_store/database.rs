//! Reading *Nix's database* without a daemon and without writing a byte.
//!
//! Invariant: what is read is what Nix has committed, also while it has not yet moved it from the write-ahead log
//! into the database. Three ways lead there (SQLite's documentation, "Write-Ahead Logging", section 5 and "Uniform
//! Resource Identifiers", `immutable`):
//!
//! 1. The log is missing or empty: the file is all there is. It is opened as immutable, because SQLite would otherwise
//!    want to write a log and its index beside it, which an ordinary user may not and nobody here should.
//! 2. There is a log: the database is opened read-only, with the log's index (`-shm`) as Nix's own processes use it.
//! 3. The index is missing, or the user may not read it: database and log are copied to a directory of our own, where
//!    SQLite makes the index anew. A copy counts only if nothing was written to either meanwhile.
//!
//! A file opened as immutable must not change. Whether it did is looked at after every answer, and then it is opened
//! anew and asked again.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::NixPath;
use super::error::NixError;
use super::hash::parse_hash;
use crate::store_path::{PathInfo, StoreDir, StorePath};

/// How often a database that changes is read again.
const ATTEMPTS: usize = 5;

/// How long is waited between two attempts, and for Nix's own transactions.
const PAUSE: Duration = Duration::from_millis(50);
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How the database is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AccessMode {
    /// The file alone.
    Immutable,
    /// Beside Nix, through the log's index.
    Shared,
    /// A copy of file and log.
    Copied,
}

/// An open database.
#[derive(Debug)]
pub(super) struct NixDatabase {
    file: PathBuf,
    open: Mutex<OpenDatabase>,
}

#[derive(Debug)]
struct OpenDatabase {
    connection: Connection,
    access: AccessMode,
    /// State of file and log when it was opened.
    state: FileState,
    /// Holds the copy for as long as it is used.
    _copy: Option<tempfile::TempDir>,
}

/// Inode, size, and times of the database and its log.
type FileState = [Option<(u64, u64, i64, i64)>; 2];

impl NixDatabase {
    /// Opens the database of the store below `root`; `None` where there is none.
    pub(super) fn open(root: &Path) -> Result<Option<Self>, NixError> {
        let file = root.join("nix/var/nix/db/db.sqlite");
        match fs::metadata(&file) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(&file, &error)),
        }
        let open = open_any(&file)?;
        Ok(Some(Self {
            file,
            open: Mutex::new(open),
        }))
    }

    /// How it is open.
    #[cfg(test)]
    pub(super) fn access(&self) -> AccessMode {
        self.open.lock().unwrap().access
    }

    /// What is recorded of `path`.
    pub(super) fn path(&self, path: &StorePath) -> Result<Option<NixPath>, NixError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..ATTEMPTS {
            let answer = query(&open.connection, path, &self.file);
            if open.access == AccessMode::Shared || open.state == state_of(&self.file)? {
                return answer;
            }
            *open = open_any(&self.file)?;
        }
        Err(NixError::Busy {
            path: self.file.clone(),
        })
    }
}

/// Opens the database in the first way that works.
fn open_any(file: &Path) -> Result<OpenDatabase, NixError> {
    let state = state_of(file)?;
    let log_is_empty = state[1].is_none_or(|(_, size, ..)| size == 0);
    if log_is_empty {
        let connection = connect(file, "immutable=1").map_err(|source| failed(file, source))?;
        return Ok(OpenDatabase {
            connection,
            access: AccessMode::Immutable,
            state,
            _copy: None,
        });
    }
    // Without the index SQLite would make one: only where it is there already nothing is written.
    if beside(file, "-shm").exists()
        && let Ok(connection) = connect(file, "mode=ro")
    {
        return Ok(OpenDatabase {
            connection,
            access: AccessMode::Shared,
            state,
            _copy: None,
        });
    }
    open_copy(file)
}

fn open_copy(file: &Path) -> Result<OpenDatabase, NixError> {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(PAUSE);
        }
        let state = state_of(file)?;
        let dir = tempfile::tempdir().map_err(|error| unreadable(file, &error))?;
        let copy = dir.path().join("db.sqlite");
        fs::copy(file, &copy).map_err(|error| unreadable(file, &error))?;
        let log = beside(file, "-wal");
        match fs::copy(&log, beside(&copy, "-wal")) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&log, &error)),
        }
        if state_of(file)? == state {
            let connection = connect(&copy, "mode=rw").map_err(|source| failed(file, source))?;
            return Ok(OpenDatabase {
                connection,
                access: AccessMode::Copied,
                state,
                _copy: Some(dir),
            });
        }
    }
    Err(NixError::Busy { path: file.to_owned() })
}

/// Opens `file` and reads from it, since SQLite itself waits with that until the first question.
fn connect(file: &Path, parameters: &str) -> rusqlite::Result<Connection> {
    use std::os::unix::ffi::OsStrExt;
    let mut uri = "file:".to_owned();
    for &byte in file.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' => uri.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            byte => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    let flags = match parameters {
        "mode=rw" => OpenFlags::SQLITE_OPEN_READ_WRITE,
        _ => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let connection = Connection::open_with_flags(format!("{uri}?{parameters}"), flags | OpenFlags::SQLITE_OPEN_URI)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.query_row("SELECT count(*) FROM ValidPaths WHERE id < 0", [], |_| Ok(()))?;
    Ok(connection)
}

fn query(connection: &Connection, path: &StorePath, file: &Path) -> Result<Option<NixPath>, NixError> {
    let logical = StoreDir::nix().join(path);
    let row = connection
        .prepare_cached("SELECT id, hash, narSize, deriver, sigs, ca FROM ValidPaths WHERE path = ?1")
        .and_then(|mut statement| {
            let columns = |row: &rusqlite::Row<'_>| {
                let id: i64 = row.get(0)?;
                let hash: String = row.get(1)?;
                let size: Option<i64> = row.get(2)?;
                let texts: [Option<String>; 3] = [row.get(3)?, row.get(4)?, row.get(5)?];
                Ok((id, hash, size, texts))
            };
            statement.query_row([&logical], columns).optional()
        })
        .map_err(|source| failed(file, source))?;
    let Some((id, hash, size, [deriver, signatures, content_address])) = row else {
        return Ok(None);
    };
    let strange = |reason: String| NixError::Strange {
        path: file.to_owned(),
        reason,
    };
    let nar_hash = parse_hash(&hash).ok_or_else(|| strange(format!("`{hash}` as the hash of `{logical}`")))?;
    let nar_size = size.and_then(|size| u64::try_from(size).ok());
    let nar_size = nar_size.ok_or_else(|| strange(format!("`{logical}` has no size")))?;
    let mut references = references(connection, id, file)?;
    let self_reference = references.remove(path);
    Ok(Some(NixPath {
        info: PathInfo {
            path: path.clone(),
            nar_hash,
            nar_size,
            references,
            self_reference,
        },
        deriver,
        content_address,
        signatures: signatures
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
    }))
}

fn references(connection: &Connection, id: i64, file: &Path) -> Result<BTreeSet<StorePath>, NixError> {
    const QUERY: &str = "SELECT path FROM Refs JOIN ValidPaths ON reference = id WHERE referrer = ?1";
    let texts = connection.prepare_cached(QUERY).and_then(|mut statement| {
        let rows = statement.query_map([id], |row| row.get::<_, String>(0))?;
        rows.collect::<rusqlite::Result<Vec<String>>>()
    });
    let texts = texts.map_err(|source| failed(file, source))?;
    let parse = |text: &String| {
        let split = StoreDir::nix().split(text).filter(|(_, below)| below.is_empty());
        split.map(|(path, _)| path).ok_or_else(|| NixError::Strange {
            path: file.to_owned(),
            reason: format!("`{text}` is not a path of `{}`", StoreDir::NIX),
        })
    };
    texts.iter().map(parse).collect()
}

fn state_of(file: &Path) -> Result<FileState, NixError> {
    let mut state = [None; 2];
    for (state, path) in state.iter_mut().zip([file.to_owned(), beside(file, "-wal")]) {
        *state = match fs::metadata(&path) {
            Ok(found) => Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(unreadable(&path, &error)),
        };
    }
    Ok(state)
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn unreadable(path: &Path, error: &io::Error) -> NixError {
    NixError::Unreadable {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

fn failed(file: &Path, source: rusqlite::Error) -> NixError {
    use rusqlite::ErrorCode;
    match source.sqlite_error_code() {
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => NixError::Unreadable {
            path: file.to_owned(),
            reason: source.to_string(),
        },
        _ => NixError::Database {
            path: file.to_owned(),
            source,
        },
    }
}
