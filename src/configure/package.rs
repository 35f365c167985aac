//! A Debian *package* as the package manager would know it: its tree, its scripts, and what it says of its files.
//!
//! Invariant: read once, from its two store paths; nothing of it is changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::ConfigureError;
use crate::fetch::debian::{CONTROL, FILES};
use crate::fsio::{self, IoContext, copy_file, sorted_names};
use crate::root::PackageRecord;

/// Largest file of a package's control archive that is read, in bytes.
pub(super) const CONTROL_MAX: u64 = 256 << 20;

/// The scripts that run when a package is installed.
const SCRIPTS: [&str; 2] = ["preinst", "postinst"];

/// A package and where its store paths are on disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its files.
    pub tree: PathBuf,
    /// Its maintainer scripts, and the modes of its files.
    pub control: PathBuf,
}

/// Whether a package has a script that runs when it is installed; `control` is the store path of its scripts.
pub fn has_scripts(control: &Path) -> bool {
    SCRIPTS.iter().any(|name| control.join(CONTROL).join(name).is_file())
}

/// A package that was read.
pub(super) struct Package {
    pub name: String,
    pub tree: PathBuf,
    /// Directory of its control files.
    pub control: PathBuf,
    /// Its control paragraph, without empty lines at the end.
    pub paragraph: String,
    /// Its entries by their absolute path before the merge of `/usr`, in the order of the archive.
    pub files: Vec<Shipped>,
    /// Its configuration files, absolute.
    pub conffiles: Vec<String>,
    /// What its scripts wait for or set off, a directive a line.
    pub triggers: Vec<Vec<String>>,
    /// Where files of other packages go that stand at a path of its own.
    pub diversions: BTreeMap<String, String>,
    /// Names of its control files.
    members: Vec<String>,
}

/// An entry as a package ships it.
pub(super) struct Shipped {
    pub kind: char,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub path: String,
}

impl Package {
    pub(super) fn read(source: &Source) -> Result<Self, ConfigureError> {
        let control = source.control.join(CONTROL);
        let members: Vec<String> = (sorted_names(&control)?.into_iter())
            .filter_map(|name| name.into_string().ok())
            .collect();
        let text = |name: &str| -> Result<String, ConfigureError> {
            if !members.iter().any(|member| member == name) {
                return Ok(String::new());
            }
            let bytes = fsio::read_limited(&control.join(name), CONTROL_MAX)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let files = fsio::read_limited(&source.control.join(FILES), CONTROL_MAX)?;
        Ok(Self {
            name: source.name.clone(),
            tree: source.tree.clone(),
            paragraph: text("control")?.trim_end().to_owned(),
            files: String::from_utf8_lossy(&files).lines().filter_map(shipped).collect(),
            // `remove-on-upgrade PATH` is about versions before.
            conffiles: (text("conffiles")?.lines().map(str::trim))
                .filter(|line| line.starts_with('/'))
                .map(str::to_owned)
                .collect(),
            triggers: (text("triggers")?.lines())
                .map(|line| line.split('#').next().unwrap_or_default())
                .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
                .filter(|words| words.len() == 2)
                .collect(),
            diversions: (PackageRecord::read_all(&source.tree)?.into_values())
                .flat_map(|record| record.diversions)
                .collect(),
            control,
            members,
        })
    }

    /// Whether it has a script of this name.
    pub(super) fn has(&self, script: &str) -> bool {
        self.members.iter().any(|member| member == script)
    }

    /// Whether anything of it runs when it is installed.
    pub(super) fn has_scripts(&self) -> bool {
        SCRIPTS.iter().any(|name| self.has(name))
    }

    /// Its control files but for the paragraph, which the package manager keeps elsewhere.
    pub(super) fn info(&self) -> impl Iterator<Item = &str> {
        self.members
            .iter()
            .map(String::as_str)
            .filter(|name| *name != "control")
    }

    /// A field of its control paragraph.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let lines = self.paragraph.lines();
        lines
            .filter_map(|line| line.split_once(':'))
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    /// What the package manager calls it where several architectures may have it.
    pub(super) fn info_name(&self) -> String {
        match (self.field("Multi-Arch"), self.field("Architecture")) {
            (Some("same"), Some(architecture)) => format!("{}:{architecture}", self.name),
            _ => self.name.clone(),
        }
    }

    /// What it waits for: trigger names and paths, with whether whoever sets it off waits until it has run.
    pub(super) fn interests(&self) -> impl Iterator<Item = (&str, bool)> {
        self.triggers.iter().filter_map(|words| match words[0].as_str() {
            "interest" | "interest-await" => Some((words[1].as_str(), true)),
            "interest-noawait" => Some((words[1].as_str(), false)),
            _ => None,
        })
    }
}

fn shipped(line: &str) -> Option<Shipped> {
    let mut words = line.splitn(5, ' ');
    let kind = words.next()?.chars().next()?;
    let mode = u32::from_str_radix(words.next()?, 8).ok()? & 0o7777;
    let (uid, gid) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let path = words.next()?.trim_end_matches('/').to_owned();
    Some(Shipped {
        kind,
        mode,
        uid,
        gid,
        path,
    })
}

/// Copies a directory of plain files.
pub(super) fn copy_files(from: &Path, to: &Path) -> Result<(), ConfigureError> {
    fs::create_dir_all(to).context("create", to)?;
    for name in sorted_names(from)? {
        copy_file(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}
