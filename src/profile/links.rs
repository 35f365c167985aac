//! The *links* of a generation: `bin` of all packages' programs, `share` of all that goes with them.
//!
//! Invariant: each link leads to a file of the store where that is on disk, or to its place in `/layerize/store` where that is
//! this store; a program that needs the store at its place is started with it there. What two packages have comes from the one
//! that goes first, and is an error where none does.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::canonical;
use super::error::ProfileError;
use super::manifest::{Manifest, ProfilePackage};
use crate::fsio::{IoContext, PathError, sorted_names};
use crate::nar;
use crate::shell_word::quoted;
use crate::store::{Store, StoreError};
use crate::store_path::StoreDir;

/// How many links are followed.
const LINKS_MAX: usize = 16;

/// Deepest directory of `share`.
const DEPTH_MAX: usize = 64;

/// What a package has of something.
#[derive(Clone)]
struct Source<'a> {
    package: &'a ProfilePackage,
    /// Where it is on disk.
    place: PathBuf,
}

struct Links<'a> {
    store: &'a Store,
    launcher: &'a Path,
    /// Whether `/layerize/store` is this store.
    is_linked: bool,
}

/// Makes all links of a generation below `tree`.
pub(super) fn make(tree: &Path, manifest: &Manifest, store: &Store, launcher: &Path) -> Result<(), ProfileError> {
    let trees = store.dir().join("store");
    let links = Links {
        store,
        launcher,
        is_linked: canonical(Path::new(StoreDir::LAYERIZE)).ok() == Some(canonical(&trees)?),
    };
    let mut packages: Vec<&ProfilePackage> = manifest.packages.iter().collect();
    packages.sort_by_key(|package| package.priority);
    let (mut bins, mut shares) = (Vec::new(), Vec::new());
    for package in packages {
        let physical = store.physical(&package.path);
        let of = |names: &[&str]| {
            let places = names
                .iter()
                .map(|name| physical.join(name))
                .filter(|place| place.is_dir());
            places.map(|place| Source { package, place }).collect::<Vec<_>>()
        };
        let (bin, share) = (of(&["bin", "sbin"]), of(&["share"]));
        if !links.has_program(&bin)? && share.is_empty() {
            return Err(ProfileError::Nothing {
                path: package.path.clone(),
                of_root: physical.join("usr").is_dir() || physical.join("etc").is_dir(),
            });
        }
        bins.extend(bin);
        shares.extend(share);
    }
    let bin = tree.join("bin");
    fs::create_dir(&bin).context("create directory", &bin)?;
    for (name, mut sources) in entries(&bins)? {
        sources.retain(|source| !is_interpreter(&name, source));
        if sources.is_empty() {
            continue;
        }
        let program = links.first(&format!("bin/{}", name.display()), &sources)?;
        links.program(program, &bin.join(&name))?;
    }
    match shares.is_empty() {
        true => Ok(()),
        false => links.directory("share", &shares, &tree.join("share"), 0),
    }
}

/// Whether a program is the Python of an environment that has commands of its own: it is for these, and every environment has it.
fn is_interpreter(name: &OsStr, source: &Source<'_>) -> bool {
    let is_python = |name: &OsStr| name.as_encoded_bytes().starts_with(b"python");
    let Some(bin) = source.place.parent().filter(|_| is_python(name)) else {
        return false;
    };
    let is_environment = bin.parent().is_some_and(|root| root.join("venv/pyvenv.cfg").is_file());
    is_environment && sorted_names(bin).is_ok_and(|names| names.iter().any(|name| !is_python(name)))
}

/// The names in directories, each with who has it, in the order of the directories.
fn entries<'a>(dirs: &[Source<'a>]) -> Result<BTreeMap<OsString, Vec<Source<'a>>>, PathError> {
    let mut entries: BTreeMap<OsString, Vec<Source<'a>>> = BTreeMap::new();
    for dir in dirs {
        for name in sorted_names(&dir.place)? {
            let place = dir.place.join(&name);
            entries.entry(name).or_default().push(Source {
                package: dir.package,
                place,
            });
        }
    }
    Ok(entries)
}

impl Links<'_> {
    /// The one that goes first.
    fn first<'s, 'p>(&self, file: &str, sources: &'s [Source<'p>]) -> Result<&'s Source<'p>, ProfileError> {
        let first = &sources[0];
        for other in &sources[1..] {
            let (a, b) = (first.package, other.package);
            if a.name != b.name && a.priority == b.priority && !self.are_same(&first.place, &other.place)? {
                return Err(ProfileError::Conflict {
                    file: file.to_owned(),
                    first: a.name.clone(),
                    second: b.name.clone(),
                    priority: a.priority,
                });
            }
        }
        Ok(first)
    }

    /// Whether two files have the same bytes: then it does not matter whose is taken.
    fn are_same(&self, a: &Path, b: &Path) -> Result<bool, ProfileError> {
        let (a, b) = (self.followed(a)?, self.followed(b)?);
        let (Ok(of_a), Ok(of_b)) = (a.metadata(), b.metadata()) else {
            return Ok(false);
        };
        if !of_a.is_file() || !of_b.is_file() || of_a.len() != of_b.len() {
            return Ok(false);
        }
        Ok(a == b || nar::hash(&a).map_err(StoreError::from)? == nar::hash(&b).map_err(StoreError::from)?)
    }

    /// Where a file of the store is on disk, links that lead through the store followed.
    fn followed(&self, place: &Path) -> Result<PathBuf, PathError> {
        let mut place = place.to_owned();
        for _ in 0..LINKS_MAX {
            if !place.is_symlink() {
                break;
            }
            let target = fs::read_link(&place).context("read the link", &place)?;
            place = match target.strip_prefix(StoreDir::LAYERIZE) {
                Ok(below) => self.store.dir().join("store").join(below),
                Err(_) => place.parent().unwrap_or(&place).join(target),
            };
        }
        Ok(place)
    }

    /// Links a directory that one package has, or makes one of what several have.
    fn directory(&self, name: &str, sources: &[Source<'_>], dest: &Path, depth: usize) -> Result<(), ProfileError> {
        fs::create_dir(dest).context("create directory", dest)?;
        for (entry, sources) in entries(sources)? {
            let (name, dest) = (format!("{name}/{}", entry.display()), dest.join(&entry));
            let mut dirs = Vec::new();
            for source in &sources {
                let place = self.followed(&source.place)?;
                if place.is_dir() {
                    dirs.push(Source {
                        place,
                        ..source.clone()
                    });
                }
            }
            match dirs.len() {
                count if count == sources.len() && count > 1 && depth < DEPTH_MAX => {
                    self.directory(&name, &dirs, &dest, depth + 1)?;
                }
                _ => {
                    let first = self.first(&name, &sources)?;
                    let place = self.followed(&first.place)?;
                    // What leads nowhere is left out, as there is nothing to be found.
                    if place.exists() {
                        symlink(&place, &dest).context("create the symlink", &dest)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether there is a program in any of these directories.
    fn has_program(&self, dirs: &[Source<'_>]) -> Result<bool, ProfileError> {
        for source in entries(dirs)?.into_values().flatten() {
            if is_program(&self.followed(&source.place)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Links a program, or writes what starts it with the store at its place.
    fn program(&self, source: &Source<'_>, dest: &Path) -> Result<(), ProfileError> {
        let place = self.followed(&source.place)?;
        if !is_program(&place) {
            return Ok(());
        }
        let info = self.store.info(&source.package.path)?;
        let needs_store = info.is_none_or(|info| info.self_reference || !info.references.is_empty());
        let trees = self.store.dir().join("store");
        let below = source.place.strip_prefix(&trees).unwrap_or(&source.place);
        let logical = Path::new(StoreDir::LAYERIZE).join(below);
        match (self.is_linked, needs_store) {
            (true, _) => Ok(symlink(&logical, dest).context("create the symlink", dest)?),
            (false, false) => Ok(symlink(&place, dest).context("create the symlink", dest)?),
            (false, true) => {
                let text = format!(
                    "#!/bin/sh\n# Starts a program of {} with the store at its place.\nlayerize={}\n[ -x \"$layerize\" ] || \
                     layerize=layerize\nexec \"$layerize\" __launch {} {} \"$@\"\n",
                    source.package.path,
                    quoted(self.launcher),
                    quoted(self.store.dir()),
                    quoted(&logical)
                );
                fs::write(dest, text).context("write", dest)?;
                Ok(fs::set_permissions(dest, fs::Permissions::from_mode(0o755)).context("set the mode of", dest)?)
            }
        }
    }
}

fn is_program(place: &Path) -> bool {
    let metadata = place.metadata();
    metadata.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
