//! The notes, as SQLite has them.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use url::Url;

/// A note that has no number yet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewNote {
    pub text: String,
    /// What it is about.
    pub link: Option<Url>,
}

/// A note.
#[derive(Debug, Serialize)]
pub struct Note {
    pub id: i64,
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// All notes.
pub struct Store(Connection);

impl Store {
    /// The notes of a file, which is made where there is none.
    pub fn open(path: &str) -> rusqlite::Result<Self> {
        Self::with(Connection::open(path)?)
    }

    /// No notes, and none after this.
    pub fn in_memory() -> rusqlite::Result<Self> {
        Self::with(Connection::open_in_memory()?)
    }

    fn with(connection: Connection) -> rusqlite::Result<Self> {
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, text TEXT NOT NULL, link TEXT) STRICT",
        )?;
        Ok(Self(connection))
    }

    pub fn add(&self, note: NewNote) -> rusqlite::Result<Note> {
        let link = note.link.map(String::from);
        let sql = "INSERT INTO note (text, link) VALUES (?1, ?2)";
        self.0.execute(sql, params![note.text, link])?;
        Ok(Note {
            id: self.0.last_insert_rowid(),
            text: note.text,
            link,
        })
    }

    pub fn get(&self, id: i64) -> rusqlite::Result<Option<Note>> {
        let sql = "SELECT id, text, link FROM note WHERE id = ?1";
        self.0.query_row(sql, [id], note).optional()
    }

    /// The notes that hold a text.
    pub fn find(&self, text: &str) -> rusqlite::Result<Vec<Note>> {
        let sql = "SELECT id, text, link FROM note WHERE instr(text, ?1) > 0 ORDER BY id";
        self.0.prepare(sql)?.query_map([text], note)?.collect()
    }

    /// Whether there was one.
    pub fn remove(&self, id: i64) -> rusqlite::Result<bool> {
        Ok(self.0.execute("DELETE FROM note WHERE id = ?1", [id])? > 0)
    }
}

fn note(row: &Row<'_>) -> rusqlite::Result<Note> {
    Ok(Note {
        id: row.get(0)?,
        text: row.get(1)?,
        link: row.get(2)?,
    })
}

pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}
