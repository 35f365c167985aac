//! What can go wrong with a Nix store, and what to do about it.

use std::path::PathBuf;

/// Why a Nix store could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NixError {
    /// There is no store there.
    #[error("there is no Nix store: `{}` is not a directory", dir.join("nix/store").display())]
    NoStore {
        /// Where `nix/store` was expected.
        dir: PathBuf,
    },
    /// The database is there, but the user may not read it, or not all that belongs to it.
    #[error("the Nix database `{}` cannot be read: {reason}", path.display())]
    Unreadable {
        /// The database.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The database was written to again and again while it was copied.
    #[error("the Nix database `{}` keeps changing: it was written to during every attempt to read it", path.display())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// What stands in the database is not what Nix writes.
    #[error("the Nix database `{}` contains something that Nix does not write: {reason}", path.display())]
    Strange {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// SQLite failed.
    #[error("cannot read the Nix database `{}`", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A file that should be a closure graph is none.
    #[error("`{}` is not a closure graph: {reason}", file.display())]
    Graph {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// `nix path-info` failed or said what is not understood.
    #[error("`nix path-info` failed: {reason}")]
    Command {
        /// What it said.
        reason: String,
    },
    /// A chain of symlinks that does not end in the store.
    #[error("`{}` does not lead into the Nix store `{}`: {reason}", path.display(), store.display())]
    NoLink {
        /// What was followed.
        path: PathBuf,
        /// The store's directory.
        store: PathBuf,
        /// Where it ends instead.
        reason: String,
    },
    /// A database could not be made.
    #[error("cannot make a Nix database for the image")]
    Register {
        /// Why.
        source: rusqlite::Error,
    },
}

impl NixError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NoStore { .. } => Some("name the directory that `nix/store` is in with `--nix-store DIR`".to_owned()),
            Self::Unreadable { .. } => Some(
                "run as its owner, or write what it says to a file (`nix path-info --json --recursive PATH`) and name \
                 that with `--closure-graph FILE`"
                    .to_owned(),
            ),
            Self::Busy { .. } => Some("run the command again when Nix is less busy".to_owned()),
            Self::Strange { .. } => Some(
                "`nix-store --verify` tells whether Nix understands it; else name a `--closure-graph FILE`".to_owned(),
            ),
            Self::Graph { .. } => Some(
                "write one with `nix path-info --json --recursive PATH`, or with `exportReferencesGraph` in a \
                 derivation"
                    .to_owned(),
            ),
            Self::NoLink { .. } => Some(
                "name a store path, a profile, or a link that `nix-build` made; `--nix-store DIR` names another store"
                    .to_owned(),
            ),
            Self::Command { .. } => Some(
                "Nix was asked because its database cannot be read by this user: run as its owner, or name a \
                 `--closure-graph FILE`"
                    .to_owned(),
            ),
            Self::Database { .. } | Self::Register { .. } => None,
        }
    }
}
