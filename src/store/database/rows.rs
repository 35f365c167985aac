//! *Rows*: how the database's tables hold what is known of a path.
//!
//! Invariant: a row that this program did not write is an error that says what is wrong with it, never a guess.

use std::collections::BTreeMap;

use rusqlite::Row;

use super::{Addressing, Registration};
use crate::digest::Digest;
use crate::store::evidence::{Evidence, Place, PlaceKind};
use crate::store::import::Attestation;
use crate::store_path::StorePath;

/// What [`PathRow::read`] takes, of a database with this schema: one that cannot be written to may still have an older one.
pub(super) const fn path_columns(schema: i64) -> &'static str {
    match schema {
        ..4 => {
            "id, path, nar_hash, nar_size, addressing, address_hash, derivation, iif(sandboxed, 'namespaces', 'none'), 'native', unscanned"
        }
        4 => "id, path, nar_hash, nar_size, addressing, address_hash, derivation, walls, 'native', unscanned",
        _ => "id, path, nar_hash, nar_size, addressing, address_hash, derivation, walls, execution, unscanned",
    }
}

/// A row of `path`, not yet understood.
pub(super) struct PathRow {
    pub(super) id: i64,
    pub(super) path: String,
    pub(super) nar_hash: [u8; 32],
    pub(super) nar_size: i64,
    pub(super) addressing: String,
    pub(super) address_hash: Option<[u8; 32]>,
    pub(super) derivation: Option<[u8; 32]>,
    pub(super) walls: String,
    pub(super) execution: String,
    pub(super) unscanned: String,
}

impl PathRow {
    /// Takes [`path_columns`].
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            path: row.get(1)?,
            nar_hash: row.get(2)?,
            nar_size: row.get(3)?,
            addressing: row.get(4)?,
            address_hash: row.get(5)?,
            derivation: row.get(6)?,
            walls: row.get(7)?,
            execution: row.get(8)?,
            unscanned: row.get(9)?,
        })
    }

    pub(super) fn parse(self) -> Result<Registration, String> {
        let path: StorePath = self
            .path
            .parse()
            .map_err(|_| format!("it holds the path `{}`", self.path))?;
        let hash = self.address_hash.map(Digest::from_bytes);
        let addressing = match (self.addressing.as_str(), hash) {
            ("tree", Some(hash)) => Addressing::Tree(hash),
            ("file", Some(hash)) => Addressing::File(hash),
            ("derivation", None) => Addressing::Derivation,
            (other, _) => return Err(format!("it says that `{path}` is addressed by `{other}`")),
        };
        let unscanned = serde_json::from_str(&self.unscanned)
            .map_err(|_| format!("its list of files of `{path}` that were not scanned is not a list"))?;
        let walls = self.walls.parse().map_err(|error| format!("of `{path}`: {error}"))?;
        let execution = (self.execution.parse()).map_err(|error| format!("of `{path}`: {error}"))?;
        Ok(Registration {
            nar_hash: Digest::from_bytes(self.nar_hash),
            nar_size: self.nar_size.cast_unsigned(),
            addressing,
            derivation: self.derivation.map(Digest::from_bytes),
            walls,
            execution,
            references: BTreeMap::new(),
            unscanned,
            path,
            attestation: Attestation::default(),
        })
    }
}

/// A row of `reference`, not yet understood.
pub(super) struct ReferenceRow {
    pub(super) target: String,
    pub(super) kind: String,
    pub(super) via: Option<String>,
    pub(super) file: Option<String>,
    pub(super) inside: Option<String>,
    pub(super) position: Option<i64>,
}

impl ReferenceRow {
    pub(super) fn new(target: &StorePath, evidence: &Evidence) -> Self {
        let target = target.to_string();
        match evidence {
            Evidence::Declared { via } => Self {
                target,
                kind: "declared".to_owned(),
                via: Some(via.to_string()),
                file: None,
                inside: None,
                position: None,
            },
            Evidence::Found(place) => Self {
                target,
                kind: place.kind.word().to_owned(),
                via: None,
                file: Some(place.file.clone()),
                inside: Some(serde_json::Value::from(place.inside.clone()).to_string()),
                position: Some(place.offset.cast_signed()),
            },
        }
    }

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            target: row.get(0)?,
            kind: row.get(1)?,
            via: row.get(2)?,
            file: row.get(3)?,
            inside: row.get(4)?,
            position: row.get(5)?,
        })
    }

    pub(super) fn parse(self) -> Result<(StorePath, Evidence), String> {
        let path = |text: &str| {
            text.parse::<StorePath>()
                .map_err(|_| format!("it holds the path `{text}`"))
        };
        let target = path(&self.target)?;
        if let Some(via) = self.via {
            return Ok((target, Evidence::Declared { via: path(&via)? }));
        }
        let place = PlaceKind::parse(&self.kind)
            .zip(self.file)
            .zip(self.inside)
            .zip(self.position);
        let (((kind, file), inside), position) =
            place.ok_or_else(|| format!("it does not say why something refers to `{target}`"))?;
        let inside = serde_json::from_str(&inside)
            .map_err(|_| format!("it does not say where a reference to `{target}` was found"))?;
        let place = Place {
            file,
            inside,
            offset: position.cast_unsigned(),
            kind,
        };
        Ok((target, Evidence::Found(place)))
    }
}
