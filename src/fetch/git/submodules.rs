//! The *submodules* of a tree: where their repositories are, as its `.gitmodules` says.
//!
//! Invariant: no name, path or address that leads out of the tree, or is an option, is taken; git itself reads the file, and
//! follows nothing that it includes.

use std::collections::BTreeMap;

use super::GitError;
use super::objects::{EntryKind, TreeEntry};
use super::repository::Repository;
use crate::escape::{shown, shown_bytes};
use crate::fetch::FetchError;
use crate::spec::GitAddress;

/// The file that says so.
const GITMODULES: &[u8] = b".gitmodules";

/// Addresses of submodules by their paths.
pub(super) struct Submodules(BTreeMap<Vec<u8>, String>);

/// What `.gitmodules` says of one.
#[derive(Default)]
struct Described {
    path: Option<Vec<u8>>,
    url: Option<String>,
}

impl Submodules {
    /// Reads what the tree of `entries` says.
    pub(super) fn read(repository: &Repository<'_>, entries: &[TreeEntry]) -> Result<Self, FetchError> {
        let Some(file) = entries.iter().find(|entry| entry.path == GITMODULES) else {
            return Ok(Self(BTreeMap::new()));
        };
        if !matches!(file.kind, EntryKind::File { .. }) {
            return Err(error(repository, GITMODULES, "it is no file").into());
        }
        let mut command = repository.git.command(Some(&repository.dir));
        command.args(["config", "--blob", &file.object, "--no-includes", "-z", "--list"]);
        let output = repository.git.output(&mut command)?;
        if !output.status.success() {
            let reason = repository.git.message(&String::from_utf8_lossy(&output.stderr));
            return Err(error(repository, GITMODULES, &reason).into());
        }
        let mut described: BTreeMap<String, Described> = BTreeMap::new();
        for record in output.stdout.split(|&byte| byte == 0) {
            let newline = record.iter().position(|&byte| byte == b'\n').unwrap_or(record.len());
            let (key, value) = (
                String::from_utf8_lossy(&record[..newline]),
                record.get(newline + 1..).unwrap_or_default(),
            );
            let named = key.strip_prefix("submodule.").and_then(|rest| rest.rsplit_once('.'));
            let Some((name, variable @ ("path" | "url"))) = named else {
                continue;
            };
            check(name.as_bytes()).map_err(|reason| error(repository, name.as_bytes(), reason))?;
            let of_name = described.entry(name.to_owned()).or_default();
            match variable {
                "path" => of_name.path = Some(value.to_vec()),
                _ => of_name.url = Some(String::from_utf8_lossy(value).into_owned()),
            }
        }
        let mut addresses = BTreeMap::new();
        for Described { path, url } in described.into_values() {
            let Some(path) = path else { continue };
            check(&path).map_err(|reason| error(repository, &path, reason))?;
            let place = path.strip_suffix(b"/").unwrap_or(&path).to_vec();
            if let Some(url) = url
                && addresses.insert(place, url).is_some()
            {
                return Err(error(repository, &path, "`.gitmodules` has two of this path").into());
            }
        }
        Ok(Self(addresses))
    }

    /// Where the submodule at a path is.
    pub(super) fn address(&self, repository: &Repository<'_>, path: &[u8]) -> Result<GitAddress, FetchError> {
        let Some(url) = self.0.get(path) else {
            return Err(error(repository, path, "`.gitmodules` does not say where it is").into());
        };
        let address = repository.git.address.of_submodule(url);
        let refused = |reason| error(repository, path, &format!("its address is `{}`: {reason}", shown(url)));
        Ok(address.map_err(refused)?)
    }
}

/// Whether a name or path leads nowhere else.
fn check(path: &[u8]) -> Result<(), &'static str> {
    let parts = path.strip_suffix(b"/").unwrap_or(path);
    match path {
        _ if path.starts_with(b"-") => Err("it begins with `-`, as an option does"),
        _ if path.iter().any(u8::is_ascii_control) => Err("it holds a control character"),
        _ if parts
            .split(|&byte| byte == b'/')
            .any(|part| matches!(part, b"" | b"." | b"..")) =>
        {
            Err("it leads out of the tree")
        }
        _ => Ok(()),
    }
}

pub(super) fn error(repository: &Repository<'_>, path: &[u8], reason: &str) -> GitError {
    GitError::Submodule {
        repository: repository.git.address.to_string(),
        path: shown_bytes(path),
        reason: reason.to_owned(),
    }
}
