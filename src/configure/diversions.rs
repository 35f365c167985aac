//! *Diversions*: files of packages that stand elsewhere, because another package wants their place.
//!
//! Invariant: a function of the packages' records, the same as an image's layout goes by, so that scripts see what is in the
//! image. The package manager's database has them before a script asks for them, which then finds nothing to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::ConfigureError;
use super::package::Package;
use super::seed::hide;
use crate::fsio::{IoContext, copy_file};
use crate::root::MERGED_DIRS;
use crate::sandbox::tree::Tree;

/// What a set of packages diverts; paths are relative to `/`, after the merge of `/usr`.
pub(super) struct Diversions<'a> {
    /// By the path that is diverted: where to, and the package whose own file stays.
    places: BTreeMap<&'a str, (&'a str, &'a str)>,
}

impl<'a> Diversions<'a> {
    /// Those of `packages`; of two that want one path the first in order of its name has it.
    pub(super) fn of(packages: impl Iterator<Item = &'a Package>) -> Self {
        let mut places = BTreeMap::new();
        let packages: BTreeMap<&str, &Package> = packages.map(|package| (package.name.as_str(), package)).collect();
        for (name, package) in packages {
            for (from, to) in &package.diversions {
                places.entry(from.as_str()).or_insert((to.as_str(), name));
            }
        }
        Self { places }
    }

    /// Where a package's file stands.
    pub(super) fn place<'p>(&self, package: &str, path: &'p str) -> &'p str
    where
        'a: 'p,
    {
        match self.places.get(path) {
            Some(&(to, owner)) if owner != package => to,
            _ => path,
        }
    }

    /// The package manager's database: what is `known` already, and these. Scripts say `/bin` where the file is in
    /// `/usr/bin`, so both are in it.
    pub(super) fn database(&self, known: &str) -> String {
        let lines: Vec<&str> = known.lines().collect();
        let known: BTreeSet<&str> = lines.chunks(3).filter_map(|entry| entry.first().copied()).collect();
        let mut text: String = lines.iter().flat_map(|line| [*line, "\n"]).collect();
        for (from, (to, owner)) in &self.places {
            for (from, to) in [Some((*from, *to)), unmerged(from).zip(unmerged(to))]
                .into_iter()
                .flatten()
            {
                if !known.contains(format!("/{from}").as_str()) {
                    let _ = write!(text, "/{from}\n/{to}\n{owner}\n");
                }
            }
        }
        text
    }

    /// Lays diverted files out where they stand, over trees that have them where their packages want them.
    pub(super) fn lay_out(&self, seed: &Tree, packages: &[&Package]) -> Result<(), ConfigureError> {
        for (from, (to, owner)) in &self.places {
            let ships = |package: &&&Package| {
                let metadata = package.tree.join(from).symlink_metadata();
                metadata.is_ok_and(|metadata| !metadata.is_dir())
            };
            let Some(other) = packages.iter().filter(|package| package.name != *owner).find(ships) else {
                continue;
            };
            put(&other.tree.join(from), seed, to)?;
            let owner = packages.iter().filter(|package| package.name == *owner).find(ships);
            match owner {
                Some(owner) => put(&owner.tree.join(from), seed, from)?,
                None => {
                    seed.directory(from.rsplit_once('/').map_or("", |(parent, _)| parent))?;
                    hide(&seed.dir().join(from))?;
                }
            }
        }
        Ok(())
    }
}

/// What a path was before the merge of `/usr`, where it is one of those that were merged.
fn unmerged(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("usr/")?;
    let top = rest.split('/').next()?;
    MERGED_DIRS.contains(&top).then_some(rest)
}

/// Copies a file or link of a package into the seed, with the mode that it has in an image.
fn put(source: &Path, seed: &Tree, path: &str) -> Result<(), ConfigureError> {
    seed.directory(path.rsplit_once('/').map_or("", |(parent, _)| parent))?;
    let place = seed.dir().join(path);
    if place.symlink_metadata().is_ok() {
        return Ok(());
    }
    let metadata = source.symlink_metadata().context("read", source)?;
    if metadata.is_symlink() {
        let target = fs::read_link(source).context("read the link", source)?;
        return Ok(symlink(target, &place).context("create the link", &place)?);
    }
    copy_file(source, &place)?;
    let mode = super::harvest::usual_mode(&metadata);
    Ok(fs::set_permissions(&place, fs::Permissions::from_mode(mode)).context("set the mode of", &place)?)
}
