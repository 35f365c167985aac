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
    pub dropped: BTreeMap<String, Dropped>,
    /// The packages whose scripts ran, of the image or of the tools.
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
    /// Those of `etc/passwd` and `etc/group` as scripts left them; the numbers of `fixed` ones were asked for.
    pub(super) fn of(passwd: &str, group: &str, fixed: &BTreeSet<String>) -> Self {
        let chosen = |text: &str| -> BTreeMap<String, u32> {
            let accounts = text.lines().filter_map(|line| {
                let mut fields = line.split(':');
                Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
            });
            accounts
                .filter(|(name, number)| CHOSEN.contains(number) && name != STATIC_GROUP && !fixed.contains(name))
                .collect()
        };
        Self {
            users: chosen(passwd),
            groups: chosen(group),
        }
    }
}

/// Something that scripts made and an image does not get.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dropped {
    /// Why.
    pub reason: String,
    /// The packages whose scripts made it.
    pub by: BTreeSet<String>,
}

/// What has something in an image as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Maker {
    /// Maintainer scripts made or changed it.
    #[default]
    Scripts,
    /// Packages ship it so.
    Packages,
    /// An init would make it, of what packages have as data.
    Init,
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
    /// What has it so.
    #[serde(default)]
    pub maker: Maker,
    /// The packages whose scripts, files or data that is.
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

    /// Notes that no image gets what scripts of some packages did at `path`.
    pub(super) fn drop(&mut self, path: &str, reason: &str, by: &BTreeSet<String>) {
        let dropped = Dropped {
            reason: reason.to_owned(),
            by: by.clone(),
        };
        self.dropped.insert(path.to_owned(), dropped);
    }

    /// What became of the scripts of each of these packages.
    pub fn outcomes<'a>(&self, packages: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, ScriptsOutcome> {
        let outcomes = packages.into_iter().map(|name| (name.to_owned(), self.outcome(name)));
        outcomes.collect()
    }

    fn outcome(&self, package: &str) -> ScriptsOutcome {
        if let Some(reason) = self.skipped.get(package) {
            return ScriptsOutcome::Skipped { reason: reason.clone() };
        }
        if !self.ran.contains(package) {
            return ScriptsOutcome::None;
        }
        let made = self.entries.iter();
        let made = made.filter(|(_, entry)| entry.maker == Maker::Scripts && entry.by.contains(package));
        let dropped = self.dropped.iter().filter(|(_, dropped)| dropped.by.contains(package));
        ScriptsOutcome::Ran {
            made: made.map(|(path, _)| path.clone()).collect(),
            left_out: dropped
                .map(|(path, dropped)| (path.clone(), dropped.reason.clone()))
                .collect(),
        }
    }

    /// What no image gets, by reason.
    pub fn left_out(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (path, dropped) in &self.dropped {
            by_reason.entry(&dropped.reason).or_default().push(path);
        }
        by_reason
    }

    /// The record's bytes.
    pub(super) fn print(&self) -> Vec<u8> {
        canonical_json(self)
    }
}

/// What became of a package's maintainer scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "scripts", rename_all = "kebab-case")]
pub enum ScriptsOutcome {
    /// It has none that run when it is installed.
    None,
    /// They ran.
    Ran {
        /// What they made or changed in the image, relative to `/`.
        made: BTreeSet<String>,
        /// What they made and the image does not get, with the reason.
        #[serde(rename = "leftOut")]
        left_out: BTreeMap<String, String>,
    },
    /// They did not run.
    Skipped {
        /// Why.
        reason: String,
    },
}

impl ScriptsOutcome {
    /// In a word or two: `ran`, `no effect`, `skipped`, `none`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Ran { made, left_out } if made.is_empty() && left_out.is_empty() => "no effect",
            Self::Ran { .. } => "ran",
            Self::Skipped { .. } => "skipped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_tell_scripts_from_what_packages_ship() {
        let by = |name: &str| BTreeSet::from([name.to_owned()]);
        let entry = |name: &str, maker| Entry {
            by: by(name),
            maker,
            ..Entry::default()
        };
        let record = Record {
            entries: BTreeMap::from([
                ("etc/made".to_owned(), entry("maker", Maker::Scripts)),
                ("usr/bin/shipped".to_owned(), entry("idle", Maker::Packages)),
                ("run/idle".to_owned(), entry("idle", Maker::Init)),
            ]),
            dropped: BTreeMap::from([(
                "etc/key".to_owned(),
                Dropped {
                    reason: "a secret".to_owned(),
                    by: by("keeper"),
                },
            )]),
            ran: ["maker", "idle", "keeper"].map(str::to_owned).into(),
            skipped: BTreeMap::from([("left".to_owned(), "so".to_owned())]),
            accounts: ChosenAccounts::default(),
        };
        let names = ["maker", "idle", "keeper", "left", "plain"];
        let outcomes = record.outcomes(names);
        assert_eq!(
            names.map(|name| outcomes[name].word()),
            ["ran", "no effect", "ran", "skipped", "none"]
        );
        let ScriptsOutcome::Ran { made, left_out } = &outcomes["maker"] else {
            panic!("{outcomes:?}")
        };
        assert_eq!((made.len(), left_out.len()), (1, 0));
        assert_eq!(record.left_out(), BTreeMap::from([("a secret", vec!["etc/key"])]));
        let path = tempfile::tempdir().unwrap();
        std::fs::write(path.path().join(RECORD), record.print()).unwrap();
        assert_eq!(Record::read(path.path()).unwrap(), record);
    }
}
