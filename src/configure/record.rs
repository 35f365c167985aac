//! The *record* of a configure step: what a store path cannot hold of the files that maintainer scripts made, and what
//! became of the scripts.
//!
//! Invariant: canonical JSON in a file beside the tree; paths are relative to `/` and in byte order. An entry whose path is
//! not in the tree is a package's own, which has another mode or owner.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ConfigureError;
use crate::fsio;
use crate::oci::canonical_json;

/// Directory of the files that scripts made or changed.
pub const TREE: &str = "tree";

/// File of the record.
pub const RECORD: &str = "record.json";

/// Largest record in bytes.
const RECORD_MAX: u64 = 256 << 20;

/// What a configure step did, beside the files themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// What scripts made or changed, and what packages have with other modes and owners than 0644, 0755 and root.
    pub entries: BTreeMap<String, Entry>,
    /// What scripts made and no image may or need have: reasons by path; bookkeeping of the package manager is left out.
    pub dropped: BTreeMap<String, String>,
    /// The packages whose scripts ran.
    pub ran: BTreeSet<String>,
    /// The packages whose scripts did not run, with the reason.
    pub skipped: BTreeMap<String, String>,
    /// The users and groups that scripts gave the first number that was free.
    #[serde(default)]
    pub accounts: ChosenAccounts,
}

/// Users and groups with the numbers that scripts chose for them, which depend on what else is installed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChosenAccounts {
    /// Users.
    pub users: BTreeMap<String, u32>,
    /// Groups.
    pub groups: BTreeMap<String, u32>,
}

/// The numbers from which adduser(8) and systemd-sysusers(8) choose.
const CHOSEN: RangeInclusive<u32> = 100..=999;

/// Debian's own group with such a number (base-passwd).
const STATIC_GROUP: &str = "users";

impl ChosenAccounts {
    /// Those of `etc/passwd` and `etc/group` as scripts left them.
    pub(super) fn of(passwd: &str, group: &str) -> Self {
        let chosen = |text: &str| -> BTreeMap<String, u32> {
            let accounts = text.lines().filter_map(|line| {
                let mut fields = line.split(':');
                Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
            });
            accounts
                .filter(|(name, number)| CHOSEN.contains(number) && name != STATIC_GROUP)
                .collect()
        };
        Self {
            users: chosen(passwd),
            groups: chosen(group),
        }
    }
}

/// Mode, owner and capabilities of something in an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// Permission bits, those for set-ID and sticky included.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// `security.capability`, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// The packages whose scripts made or changed it; those that ship it, where none did.
    pub by: BTreeSet<String>,
}

impl Record {
    /// Reads the record of a configured store path.
    pub fn read(path: &Path) -> Result<Self, ConfigureError> {
        let file = path.join(RECORD);
        let bytes = fsio::read_limited(&file, RECORD_MAX)?;
        serde_json::from_slice(&bytes).map_err(|error| ConfigureError::Record {
            path: file,
            reason: error.to_string(),
        })
    }

    /// The record's bytes.
    pub(super) fn print(&self) -> Vec<u8> {
        canonical_json(self)
    }
}
