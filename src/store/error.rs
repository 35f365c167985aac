//! A store's *errors*: what was being done to which path, and what the user can do about it.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::fsio::PathError;
use crate::nar::NarError;
use crate::store_path::{StorePath, StorePathError};

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading or writing a file failed.
    #[error(transparent)]
    Io(PathError),
    /// The disk (or the user's quota) is full. Nothing was registered.
    #[error("no space is left for `{}`", source.path.display())]
    NoSpace {
        /// What was being done.
        source: PathError,
    },
    /// A tree could not be read as an archive: most often it holds a socket, a fifo or a device.
    #[error(transparent)]
    Tree(NarError),
    /// A name cannot be part of a store path.
    #[error(transparent)]
    Name(#[from] StorePathError),
    /// The database failed.
    #[error("cannot {action} in the store's database `{}`", path.display())]
    Database {
        /// What was being done, as an infinitive.
        action: &'static str,
        /// The database.
        path: PathBuf,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// Another process held the database for longer than is waited.
    #[error("the store's database `{}` is locked by another process", path.display())]
    DatabaseLocked {
        /// The database.
        path: PathBuf,
    },
    /// What stands in the database cannot have been written by this program.
    #[error("the store's database `{}` is damaged: {reason}", path.display())]
    DatabaseDamaged {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The store was last used by a newer version.
    #[error(
        "the store at `{}` has schema {found}, but this version of layerize knows schemas up to {known}",
        dir.display()
    )]
    NewerSchema {
        /// The store's directory.
        dir: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema this version knows.
        known: i64,
    },
    /// There is less room than what is to come needs.
    #[error("`{}` has room for {room} bytes, and {needed} are needed", dir.display())]
    NoRoom {
        /// The store's directory.
        dir: PathBuf,
        /// Bytes that are to come.
        needed: u64,
        /// Bytes that are free.
        room: u64,
    },
    /// The store may only be read.
    #[error("the store at `{}` cannot be written to", dir.display())]
    ReadOnly {
        /// The store's directory.
        dir: PathBuf,
    },
    /// A path that is not valid was asked for or referred to.
    #[error("the store path `{path}` is not valid{}", needed(needed_by.as_ref()))]
    NotValid {
        /// The path.
        path: StorePath,
        /// Which path needs it.
        needed_by: Option<StorePath>,
    },
    /// A file has another hash than was declared.
    #[error("`{}` does not have the declared hash: expected {expected}, got {actual}", file.display())]
    HashMismatch {
        /// The file.
        file: PathBuf,
        /// The declared digest.
        expected: Digest,
        /// Its own digest.
        actual: Digest,
    },
    /// One path with two contents or two sets of references: never seen unless someone made it so.
    #[error("the store path `{path}` is already valid with different content")]
    Collision {
        /// The path.
        path: StorePath,
    },
    /// An imported archive is not the one that was announced.
    #[error("the archive of `{path}` does not match what was declared: {how}")]
    ArchiveMismatch {
        /// The path.
        path: StorePath,
        /// How it differs.
        how: String,
    },
    /// A path that is said to come from its content does not.
    #[error("`{path}` is not the path that its declared content gives, which is `{expected}`")]
    WrongAddress {
        /// The path.
        path: StorePath,
        /// The path that the announced content gives.
        expected: StorePath,
    },
    /// An imported tree is not what its path is said to be computed from.
    #[error("`{path}` does not have the content that its path promises: {how}")]
    WrongContent {
        /// The path.
        path: StorePath,
        /// How it differs.
        how: String,
    },
    /// What a script was building in the store is there no more, or has been registered by another process.
    #[error("`{path}` was made by another process while it was built here without a sandbox")]
    PlaceTaken {
        /// The path.
        path: StorePath,
    },
    /// A root's name is not a file name.
    #[error("`{name}` cannot name a root: {reason}")]
    RootName {
        /// The name.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// An output refers to what it may not refer to.
    #[error("it refers to `{path}` ({evidence})")]
    RefusedReference {
        /// What it refers to.
        path: StorePath,
        /// Where.
        evidence: Box<super::evidence::Evidence>,
    },
    /// A Nix store could not be read.
    #[error(transparent)]
    Nix(#[from] super::nix_store::NixError),
    /// Something stands where a link to a root is to be made.
    #[error("`{}` exists and is not a link into a store", link.display())]
    LinkTaken {
        /// Where the link was to be.
        link: PathBuf,
    },
}

fn needed(by: Option<&StorePath>) -> String {
    by.map(|path| format!(" (needed by `{path}`)")).unwrap_or_default()
}

impl StoreError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NoSpace { .. } | Self::NoRoom { .. } => Some(
                "free some space, for instance with `layerize store gc`, or with `layerize store gc --all`, which takes what \
                 builds used of late, too, and try again"
                    .to_owned(),
            ),
            Self::Tree(error) => error.help(),
            Self::Nix(error) => error.help(),
            Self::DatabaseLocked { .. } => {
                Some("wait until the other layerize is done, or look for one that hangs".to_owned())
            }
            Self::DatabaseDamaged { .. } => Some(
                "restore the database from a backup, or remove the whole store: everything in it can be built again"
                    .to_owned(),
            ),
            Self::NewerSchema { .. } => Some("use that newer layerize, or another store with `--store DIR`".to_owned()),
            Self::ReadOnly { .. } => {
                Some(
                    "what was built there can be used; to build or add something new run as the store's owner, or use a store \
                     of your own: `--store DIR`"
                        .to_owned(),
                )
            }
            Self::NotValid { needed_by: None, .. } => {
                Some("`layerize store ls` lists what is there; build the package that makes it".to_owned())
            }
            Self::NotValid { .. } => Some("run `layerize store verify --repair`".to_owned()),
            Self::HashMismatch { actual, .. } => Some(format!(
                "if the new content is what you want, declare `sha256 = \"{}\"`",
                actual.hex()
            )),
            Self::Collision { .. } => Some("run `layerize store verify`".to_owned()),
            Self::PlaceTaken { .. } => Some("build again: what the other process made is used".to_owned()),
            Self::LinkTaken { link } => Some(format!("remove `{}` or name another link", link.display())),
            Self::ArchiveMismatch { .. } | Self::WrongAddress { .. } | Self::WrongContent { .. } => Some(
                "where it came from is damaged or was tampered with; nothing was registered: fetch it from elsewhere"
                    .to_owned(),
            ),
            Self::Io(_)
            | Self::Name(_)
            | Self::Database { .. }
            | Self::RefusedReference { .. }
            | Self::RootName { .. } => None,
        }
    }
}

/// Whether the file system is full or the user's part of it.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<PathError> for StoreError {
    fn from(error: PathError) -> Self {
        if is_full(&error.source) {
            return Self::NoSpace { source: error };
        }
        Self::Io(error)
    }
}

impl From<NarError> for StoreError {
    fn from(error: NarError) -> Self {
        match error {
            NarError::Io(error) => error.into(),
            other => Self::Tree(other),
        }
    }
}

/// Whether SQLite found no room: in its file, or in the one that processes share (which it calls an I/O error).
fn is_out_of_space(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi;
    let code = error.sqlite_error().map(|error| error.extended_code);
    code.is_some_and(|code| code & 0xff == ffi::SQLITE_FULL || code == ffi::SQLITE_IOERR_SHMSIZE)
}

/// Adds what was being done to a result of the database.
pub(super) trait DatabaseContext<T> {
    /// `statement.execute(..).during("record a root", &path)?`
    fn during(self, action: &'static str, path: &std::path::Path) -> Result<T, StoreError>;
}

impl<T> DatabaseContext<T> for rusqlite::Result<T> {
    fn during(self, action: &'static str, path: &std::path::Path) -> Result<T, StoreError> {
        use rusqlite::ErrorCode;
        self.map_err(|source| match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                StoreError::DatabaseLocked { path: path.to_owned() }
            }
            _ if is_out_of_space(&source) => StoreError::NoSpace {
                source: PathError {
                    action: "write",
                    path: path.to_owned(),
                    source: io::ErrorKind::StorageFull.into(),
                },
            },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::DatabaseDamaged {
                path: path.to_owned(),
                reason: source.to_string(),
            },
            _ => StoreError::Database {
                action,
                path: path.to_owned(),
                source,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rusqlite::ffi;

    use super::*;

    fn database_error(code: i32) -> StoreError {
        let source = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        let result: rusqlite::Result<()> = Err(source);
        result.during("look a path up", Path::new("/s/db")).unwrap_err()
    }

    #[test]
    fn what_sqlite_says_becomes_what_the_user_can_act_on() {
        for (code, text, advice) in [
            (
                ffi::SQLITE_BUSY,
                "the store's database `/s/db` is locked by another process",
                "wait",
            ),
            (ffi::SQLITE_FULL, "no space is left for `/s/db`", "layerize store gc"),
            (
                ffi::SQLITE_IOERR_SHMSIZE,
                "no space is left for `/s/db`",
                "layerize store gc",
            ),
            (
                ffi::SQLITE_CORRUPT,
                "the store's database `/s/db` is damaged: ",
                "built again",
            ),
            (
                ffi::SQLITE_NOTADB,
                "the store's database `/s/db` is damaged: ",
                "built again",
            ),
        ] {
            let error = database_error(code);
            assert!(error.to_string().starts_with(text), "{error}");
            assert!(error.help().unwrap().contains(advice), "{error}");
        }
        let other = database_error(ffi::SQLITE_IOERR);
        assert_eq!(
            other.to_string(),
            "cannot look a path up in the store's database `/s/db`"
        );
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let error = |kind: io::ErrorKind| {
            let error = PathError {
                action: "write",
                path: "/s/tmp/x".into(),
                source: kind.into(),
            };
            StoreError::from(NarError::from(error))
        };
        assert_eq!(
            error(io::ErrorKind::StorageFull).to_string(),
            "no space is left for `/s/tmp/x`"
        );
        assert_eq!(
            error(io::ErrorKind::QuotaExceeded).to_string(),
            "no space is left for `/s/tmp/x`"
        );
        assert_eq!(
            error(io::ErrorKind::PermissionDenied).to_string(),
            "cannot write `/s/tmp/x`"
        );
    }
}
