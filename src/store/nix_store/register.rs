//! *Registering* paths for an image: the state directory of a Nix store, with a database that knows its paths.
//!
//! Invariant: the bytes are a function of the paths' hashes, sizes and references alone. What differs between two
//! machines that hold the same paths is left out: when they were registered (the time is 1), who derived or signed
//! them. `nix-store --verify --check-contents` finds nothing wrong with it.
//!
//! The database has Nix's schema 10 (`schema.sql` of Nix's source; the file `schema` holds the number). SQLite's file
//! format is stable, but three numbers in its header are not about its content: how often the file was changed
//! (bytes 24 to 27 and 92 to 95) and by which version (96 to 99). They are set to fixed values; the pages are those of
//! a file that was written in one go (`VACUUM INTO`).

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{Connection, params};

use super::error::NixError;
use crate::fsio::IoContext;
use crate::store::error::StoreError;
use crate::store_path::{PathInfo, StoreDir, StorePath};

/// Number of Nix's schema.
const SCHEMA: &str = "10";

/// Seconds since 1970 at which every path was registered.
const REGISTERED: i64 = 1;

/// What the header says in place of the number of changes.
const CHANGES: u32 = 1;

/// What the header says in place of SQLite's version: 3.38.0, of the time of schema 10.
const SQLITE_VERSION: u32 = 3_038_000;

/// Largest database that is made, in bytes.
const DATABASE_BYTES_MAX: u64 = 1 << 30;

/// Tables, indices and the trigger as Nix 2 has them.
const CREATE: &str = "
create table ValidPaths (
    id integer primary key autoincrement not null,
    path text unique not null,
    hash text not null,
    registrationTime integer not null,
    deriver text,
    narSize integer,
    ultimate integer,
    sigs text,
    ca text
);
create table Refs (
    referrer integer not null,
    reference integer not null,
    primary key (referrer, reference),
    foreign key (referrer) references ValidPaths(id) on delete cascade,
    foreign key (reference) references ValidPaths(id) on delete restrict
);
create index IndexReferrer on Refs(referrer);
create index IndexReference on Refs(reference);
create trigger DeleteSelfRefs before delete on ValidPaths
begin
    delete from Refs where referrer = old.id and reference = old.id;
end;
create table DerivationOutputs (
    drv integer not null,
    id text not null,
    path text not null,
    primary key (drv, id),
    foreign key (drv) references ValidPaths(id) on delete cascade
);
create index IndexDerivationOutputs on DerivationOutputs(path);
";

/// Directories of the state, with their modes.
const DIRECTORIES: &[(&str, u32)] = &[
    ("/nix/var/nix/db", 0o755),
    ("/nix/var/nix/gcroots", 0o755),
    ("/nix/var/nix/gcroots/layerize", 0o755),
    ("/nix/var/nix/gcroots/per-user", 0o1777),
    ("/nix/var/nix/profiles", 0o755),
    ("/nix/var/nix/profiles/per-user", 0o1777),
    ("/nix/var/nix/temproots", 0o755),
];

/// Something that an image has for Nix's sake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateEntry {
    /// Absolute path in the image.
    pub path: String,
    /// What it is.
    pub kind: StateKind,
}

/// What a [`StateEntry`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateKind {
    /// A directory with these permission bits.
    Directory(u32),
    /// A file, 0644.
    File(Vec<u8>),
    /// A symlink to this.
    Symlink(String),
}

/// The state directory of a Nix store that holds `members`, a closed set of paths. `roots` are kept from
/// `nix-collect-garbage`.
pub fn state_directory(members: &[PathInfo], roots: &BTreeSet<StorePath>) -> Result<Vec<StateEntry>, StoreError> {
    let entry = |path: &str, kind| StateEntry {
        path: path.to_owned(),
        kind,
    };
    let mut entries: Vec<StateEntry> = DIRECTORIES
        .iter()
        .map(|&(path, mode)| entry(path, StateKind::Directory(mode)))
        .collect();
    entries.push(entry("/nix/var/nix/db/db.sqlite", StateKind::File(database(members)?)));
    entries.push(entry("/nix/var/nix/db/schema", StateKind::File(SCHEMA.into())));
    entries.push(entry(
        "/nix/var/nix/gcroots/profiles",
        StateKind::Symlink("/nix/var/nix/profiles".to_owned()),
    ));
    for root in roots {
        let link = format!("/nix/var/nix/gcroots/layerize/{root}");
        entries.push(entry(&link, StateKind::Symlink(StoreDir::nix().join(root))));
    }
    Ok(entries)
}

/// The bytes of a database that knows `members`.
pub(super) fn database(members: &[PathInfo]) -> Result<Vec<u8>, StoreError> {
    let dir = tempfile::tempdir().context("make a directory for temporary files in", Path::new("/"))?;
    let file = dir.path().join("db.sqlite");
    write(members, &file).map_err(|source| NixError::Register { source })?;
    let mut bytes = crate::fsio::read_limited(&file, DATABASE_BYTES_MAX)?;
    for (at, number) in [(24, CHANGES), (92, CHANGES), (96, SQLITE_VERSION)] {
        if let Some(place) = bytes.get_mut(at..at + 4) {
            place.copy_from_slice(&number.to_be_bytes());
        }
    }
    Ok(bytes)
}

fn write(members: &[PathInfo], file: &Path) -> rusqlite::Result<()> {
    let mut sorted: Vec<&PathInfo> = members.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let id = |path: &StorePath| {
        let found = sorted.binary_search_by(|info| info.path.cmp(path));
        found.ok().and_then(|index| i64::try_from(index + 1).ok())
    };
    let mut connection = Connection::open_in_memory()?;
    connection.execute_batch("pragma page_size = 4096; pragma auto_vacuum = none; pragma encoding = 'UTF-8';")?;
    connection.execute_batch(CREATE)?;
    let transaction = connection.transaction()?;
    {
        let mut path = transaction.prepare(
            "insert into ValidPaths (id, path, hash, registrationTime, narSize) values (?1, ?2, ?3, ?4, ?5)",
        )?;
        for info in &sorted {
            let hash = format!("sha256:{}", info.nar_hash.hex());
            let logical = StoreDir::nix().join(&info.path);
            let size = i64::try_from(info.nar_size).unwrap_or(i64::MAX);
            path.execute(params![id(&info.path), logical, hash, REGISTERED, size])?;
        }
        let mut reference = transaction.prepare("insert into Refs (referrer, reference) values (?1, ?2)")?;
        for info in &sorted {
            let own = info.self_reference.then_some(&info.path);
            let targets: BTreeSet<Option<i64>> = info.references.iter().chain(own).map(id).collect();
            for target in targets {
                reference.execute(params![id(&info.path), target])?;
            }
        }
    }
    transaction.commit()?;
    connection.execute("vacuum into ?1", [file.to_string_lossy()])?;
    Ok(())
}
