//! The *messages* of the protocol.
//!
//! Invariant: paths and digests are types, so that a name that leads elsewhere is no message.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::execution::Execution;
use crate::store::{Addressing, Attestation, CopiedPath, NewNar};
use crate::store_path::{PathInfo, StorePath};
use crate::walls::Walls;

/// With what a server begins: whatever a shell prints before it is not it.
pub(super) const MAGIC: &[u8] = b"layerize-store\n";

/// The version that this program speaks.
pub(super) const VERSION: u32 = 1;

/// Most paths in one request.
pub(super) const PATHS_MAX: usize = 4096;

/// Most paths of one closure.
pub(super) const CLOSURE_MAX: usize = 1 << 20;

/// Most bytes of what is said of the paths of one closure.
pub(super) const CLOSURE_BYTES_MAX: usize = 256 << 20;

/// What a server says first.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest version that it speaks.
    pub oldest: u32,
    /// The newest.
    pub newest: u32,
    /// Its program's own version, for messages.
    pub program: String,
    /// The directory that its paths are named by.
    pub store_dir: String,
    /// Whether paths can be added.
    pub writable: bool,
}

/// What a client says first.
#[derive(Debug, Serialize, Deserialize)]
pub struct Choice {
    /// The version that is spoken.
    pub version: u32,
}

/// What a client wants.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(super) enum Request {
    /// Which of these paths are not there; those that are there stay while the connection lasts.
    Missing { paths: Vec<StorePath> },
    /// What there is of these: paths, or names of what the store keeps.
    Closure { names: Vec<String> },
    /// The archive of a path.
    Send { path: StorePath },
    /// Take this path, whose archive follows.
    Add { member: Box<Member> },
    /// Put these into the profile of the login.
    Activate { activation: Activation },
    /// Run a build's script.
    Build { order: BuildOrder },
}

/// What a server says to that.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(super) enum Answer {
    /// To `missing`.
    Missing { paths: Vec<StorePath> },
    /// To `closure`: some of its members, referenced ones first, and with the last what the names meant, in their order.
    Closure {
        members: Vec<Member>,
        roots: Option<Vec<StorePath>>,
    },
    /// To `send`: the archive follows.
    Archive,
    /// To `add`.
    Added,
    /// To `activate`.
    Activated { installed: Installed },
    /// Before the answer to `build`: a line that the script printed.
    Printed { line: String },
    /// To `build`.
    Built { path: StorePath },
    /// To anything: it could not be done, and the server ends.
    Failed { failure: Failure },
}

/// Why a server could not do something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What failed, with its causes.
    pub message: String,
    /// What to do about it there.
    pub help: Option<String>,
    /// Whether it is a script that ran and failed, or left what it may not.
    #[serde(default)]
    pub of_script: bool,
    /// How the script ended, where it did not end well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<ScriptEnd>,
}

/// How a script ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptEnd {
    /// Its exit status.
    pub status: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The command that failed, where that is known.
    pub command: Option<String>,
    /// The line of the script on which that stands.
    pub line: Option<u32>,
}

/// A package to be put into a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// What it is called there.
    pub name: String,
    /// Its path.
    pub path: StorePath,
}

/// What is to be put into a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// The packages, each in place of one of its name.
    pub packages: Vec<Named>,
    /// The lower goes first where two have a file of one name; `None`: as it was, or as usual.
    pub priority: Option<i32>,
}

/// What became of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The generation that is in use.
    pub generation: u64,
    /// The one that was before, where there was one and it is another.
    pub previous: Option<u64>,
    /// The directory that belongs on the `PATH`.
    pub bin: String,
}

/// A script to be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildOrder {
    /// What the user calls it.
    pub label: String,
    /// The canonical JSON of the resolved derivation, all of whose inputs are there.
    pub derivation: String,
    /// How long it may take.
    pub timeout_seconds: Option<u64>,
    /// Directories that it finds as earlier runs left them: empty.
    pub cache_dirs: BTreeSet<String>,
    /// Cores that it may use; 0: all.
    pub cores: usize,
    /// The weakest walls that are enough.
    pub require: Option<String>,
}

/// What a path's content proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", content = "hash", rename_all = "kebab-case")]
pub(super) enum Address {
    /// The hash of its archive, with its own hash blanked out.
    Tree(Digest),
    /// The hash of the one file that it is.
    File(Digest),
    /// Nothing.
    Derivation,
}

/// What is said of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Member {
    pub path: StorePath,
    pub nar_hash: Digest,
    pub nar_size: u64,
    pub references: BTreeSet<StorePath>,
    pub self_reference: bool,
    pub address: Address,
    #[serde(deserialize_with = "Walls::deserialize_record")]
    pub walls: Walls,
    #[serde(default)]
    pub execution: Execution,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub declared: BTreeMap<StorePath, StorePath>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deriver: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub signatures: BTreeSet<String>,
}

impl Member {
    pub(super) fn of(copied: &CopiedPath) -> Self {
        let NewNar {
            info,
            addressing,
            attestation,
        } = copied.nar.clone();
        Self {
            path: info.path,
            nar_hash: info.nar_hash,
            nar_size: info.nar_size,
            references: info.references,
            self_reference: info.self_reference,
            address: match addressing {
                Addressing::Tree(hash) => Address::Tree(hash),
                Addressing::File(hash) => Address::File(hash),
                Addressing::Derivation => Address::Derivation,
            },
            walls: copied.walls,
            execution: copied.execution,
            declared: copied.declared.clone(),
            deriver: attestation.deriver,
            signatures: attestation.signatures,
        }
    }

    /// Bytes that it takes up, about.
    pub(super) fn weight(&self) -> usize {
        let signatures: usize = self.signatures.iter().map(String::len).sum();
        let paths = self.references.len() + 2 * self.declared.len();
        512 + 256 * paths + signatures + self.deriver.as_ref().map_or(0, String::len)
    }

    /// Or why nothing can be what is said.
    pub(super) fn copied(self) -> Result<CopiedPath, String> {
        if self.references.contains(&self.path) {
            return Err(format!("`{}` is said to refer to itself as to another", self.path));
        }
        if let Some(other) = self.declared.keys().find(|path| !self.references.contains(*path)) {
            return Err(format!(
                "`{}` is said to declare `{other}`, and not to refer to it",
                self.path
            ));
        }
        if matches!(self.address, Address::File(_)) && (self.self_reference || !self.references.is_empty()) {
            return Err(format!(
                "`{}` is said to be a file by its hash, and to refer to others",
                self.path
            ));
        }
        if let Some(deriver) = self
            .deriver
            .as_ref()
            .filter(|deriver| deriver.parse::<StorePath>().is_err())
        {
            return Err(format!(
                "`{}` is said to be made by `{}`",
                self.path,
                crate::escape::shown(deriver)
            ));
        }
        Ok(CopiedPath {
            nar: NewNar {
                info: PathInfo {
                    path: self.path,
                    nar_hash: self.nar_hash,
                    nar_size: self.nar_size,
                    references: self.references,
                    self_reference: self.self_reference,
                },
                addressing: match self.address {
                    Address::Tree(hash) => Addressing::Tree(hash),
                    Address::File(hash) => Addressing::File(hash),
                    Address::Derivation => Addressing::Derivation,
                },
                attestation: Attestation {
                    deriver: self.deriver,
                    content_address: None,
                    signatures: self.signatures,
                },
            },
            declared: self.declared,
            walls: self.walls,
            execution: self.execution,
        })
    }
}
