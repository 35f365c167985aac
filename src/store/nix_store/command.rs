//! *Asking Nix itself*: `nix path-info --json --recursive`, for a database that only the daemon may read.
//!
//! Invariant: the program is asked to look and never to build, fetch or register anything.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use super::error::NixError;
use super::{NixPath, graph};
use crate::child;
use crate::store_path::{StoreDir, StorePath};

/// Whether there is a `nix`.
pub(super) fn is_there() -> bool {
    let version = child::output(Command::new("nix").arg("--version"));
    version.is_ok_and(|output| output.status.success())
}

/// The closure of `path`; empty where `path` is not valid.
pub(super) fn path_info(root: &Path, path: &StorePath) -> Result<BTreeMap<StorePath, NixPath>, NixError> {
    let mut command = Command::new("nix");
    command.args(["--extra-experimental-features", "nix-command", "--offline"]);
    command.args(["path-info", "--json", "--recursive"]);
    if root != Path::new("/") {
        command.arg("--store").arg(root);
    }
    command.arg(StoreDir::nix().join(path));
    let failed = |reason: String| NixError::Command { reason };
    let Output { status, stdout, stderr } = child::output(&mut command).map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        let text = String::from_utf8_lossy(&stderr);
        if text.contains("is not valid") {
            return Ok(BTreeMap::new());
        }
        return Err(failed(text.trim().to_owned()));
    }
    let text = String::from_utf8(stdout).map_err(|_| failed("its answer is not UTF-8".to_owned()))?;
    graph::parse(&text).map_err(failed)
}
