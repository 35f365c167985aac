//! *Links* into a Nix store: `result`, profiles, generations, `/run/current-system`.
//!
//! Invariant: a chain is followed one link at a time, so that in a chroot store its absolute targets are looked for
//! below the store's root, where they are.

use std::path::{Path, PathBuf};

use super::NixStore;
use super::error::NixError;
use crate::fsio::{IoContext, normalize};
use crate::store::error::StoreError;
use crate::store_path::{StoreDir, StorePath};

/// Links followed before a chain is given up as a loop, as Linux does.
const LINKS_MAX: usize = 40;

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linked {
    /// The store path.
    pub path: StorePath,
    /// What follows it: empty for the store path itself.
    pub below: String,
}

impl NixStore {
    /// Whether `path` leads into this store; `None` where it ends elsewhere or nowhere.
    pub fn leads_to(&self, path: &Path) -> Result<Option<Linked>, StoreError> {
        match self.follow(path)? {
            Ok(linked) => Ok(Some(linked)),
            Err(_) => Ok(None),
        }
    }

    /// The store path that a link, a profile or a path itself leads to; where it leads elsewhere, an error says where.
    pub fn resolve(&self, path: &Path) -> Result<Linked, StoreError> {
        Ok(self.follow(path)?.map_err(|reason| NixError::NoLink {
            path: path.to_owned(),
            store: self.root().join("nix/store"),
            reason,
        })?)
    }

    /// The end of the chain, or in what words it ends elsewhere.
    fn follow(&self, start: &Path) -> Result<Result<Linked, String>, StoreError> {
        let mut path = normalize(&std::path::absolute(start).context("find", start)?);
        for _ in 0..LINKS_MAX {
            if let Some(linked) = self.split(&path) {
                return Ok(Ok(linked));
            }
            let target = match std::fs::read_link(&path) {
                Ok(target) => target,
                // No link: an earlier part of the path may be one.
                Err(_) if path.exists() => match path.canonicalize() {
                    Ok(real) => return Ok(self.split(&real).ok_or_else(|| format!("it is `{}`", real.display()))),
                    Err(error) => return Ok(Err(error.to_string())),
                },
                Err(_) => return Ok(Err(format!("`{}` does not exist", path.display()))),
            };
            let next = path.parent().unwrap_or(Path::new("/")).join(target);
            path = normalize(&self.inside(next));
        }
        Ok(Err("its links go round in a circle".to_owned()))
    }

    /// A target as it is meant within the store's root.
    fn inside(&self, path: PathBuf) -> PathBuf {
        let root = self.root();
        match path.strip_prefix("/nix") {
            Ok(below) if root != Path::new("/") => root.join("nix").join(below),
            _ => path,
        }
    }

    fn split(&self, path: &Path) -> Option<Linked> {
        let physical = self.root().join("nix/store");
        let below = path
            .strip_prefix(&physical)
            .or_else(|_| path.strip_prefix(StoreDir::NIX))
            .ok()?;
        let (path, below) = StoreDir::nix()
            .split(&format!("{}/{}", StoreDir::NIX, below.to_str()?))
            .map(|(path, below)| (path, below.to_owned()))?;
        Some(Linked { path, below })
    }
}
