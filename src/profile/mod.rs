//! A *profile* is one directory of links to the programs that a user has installed, for the `PATH`.
//!
//! Invariant: what is in use is a whole generation, changed by renaming one link; generations never change, and what each leads
//! to stays in the store for as long as it is there.
//!
//! # On disk
//! | below the user's directory of state | what |
//! |---|---|
//! | `profile` | link to the generation that is in use |
//! | `profile-N/` | a generation: `bin/`, `share/` and `manifest.json` |
//! | `profile.lock` | held while generations are made or removed |

mod error;
mod links;
mod manifest;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use error::ProfileError;
pub use manifest::{DEFAULT_PRIORITY, Manifest, Origin, ProfilePackage};

use crate::fsio::{
    FileLock, IoContext, LockKind, PathError, TEMPORARY_PREFIX, create_dir_all, remove_tree, sorted_names,
    sync_file_system, sync_parent,
};
use crate::store::{RootOwner, Store};
use crate::store_path::StorePath;

/// Name of the link to the generation in use, and of all generations before their number.
const NAME: &str = "profile";

/// What roots of generations are for.
const ROOT_KIND: &str = "profile";

/// A user's profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    dir: PathBuf,
}

/// A generation of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Ascends with every change.
    pub number: u64,
    /// What is in it.
    pub manifest: Manifest,
    /// When it was made.
    pub made: SystemTime,
}

/// The number of a generation, and what is in it or why that cannot be told.
pub type Listed = (u64, Result<Generation, ProfileError>);

/// What a change did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The generation that is in use now.
    pub generation: u64,
    /// The one that was before; `None`: there was none, or it is the same.
    pub previous: Option<u64>,
}

impl Profile {
    /// The profile whose files are in `dir`, which need not be there.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The link to the generation in use.
    pub fn link(&self) -> PathBuf {
        self.dir.join(NAME)
    }

    /// The directory that belongs on the `PATH`.
    pub fn bin(&self) -> PathBuf {
        self.link().join("bin")
    }

    fn place(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{NAME}-{number}"))
    }

    /// The number of the generation in use, or of the one that the link leads to where it is damaged or gone.
    pub fn current_number(&self) -> Result<Option<u64>, ProfileError> {
        let link = self.link();
        match fs::read_link(&link) {
            Ok(target) => match target.to_str().and_then(number_of) {
                Some(number) => Ok(Some(number)),
                None => Err(ProfileError::NotALink { link }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(ProfileError::NotALink { link }),
            Err(error) => Ok(Err(error).context("read the link", &link)?),
        }
    }

    /// The generation in use; `None` where nothing was ever installed.
    pub fn current(&self) -> Result<Option<Generation>, ProfileError> {
        self.current_number()?.map(|number| self.in_use(number)).transpose()
    }

    /// The generation that the link leads to.
    fn in_use(&self, number: u64) -> Result<Generation, ProfileError> {
        self.generation(number).map_err(|error| {
            let known = self.numbers().unwrap_or_default();
            let reason = match error {
                ProfileError::NoGeneration { .. } => "it is gone".to_owned(),
                ProfileError::Manifest { reason, .. } => format!("its `{}` cannot be read: {reason}", manifest::FILE),
                other => return other,
            };
            ProfileError::Damaged {
                link: self.link(),
                number,
                others: known.into_iter().filter(|&other| other != number).collect(),
                reason,
            }
        })
    }

    fn generation(&self, number: u64) -> Result<Generation, ProfileError> {
        let place = self.place(number);
        let file = place.join(manifest::FILE);
        let metadata = match file.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let known = self.numbers()?;
                return Err(ProfileError::NoGeneration { number, known });
            }
            other => other.context("read the attributes of", &file)?,
        };
        Ok(Generation {
            number,
            manifest: Manifest::read(&file)?,
            made: metadata.modified().context("read the time of", &file)?,
        })
    }

    /// The numbers of all generations, ascending.
    fn numbers(&self) -> Result<Vec<u64>, ProfileError> {
        if !self.dir.is_dir() {
            return Ok(Vec::new());
        }
        let names = sorted_names(&self.dir)?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name.to_str()?)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// All generations, the oldest first.
    pub fn generations(&self) -> Result<Vec<Listed>, ProfileError> {
        let numbers = self.numbers()?.into_iter();
        Ok(numbers.map(|number| (number, self.generation(number))).collect())
    }

    fn lock(&self) -> Result<FileLock, ProfileError> {
        create_dir_all(&self.dir)?;
        Ok(FileLock::acquire(&self.dir.join("profile.lock"), LockKind::Exclusive)?)
    }

    /// Has other packages be in use: `change` is given what is in use. `launcher` is the program that starts what needs the store
    /// at its place (`LAUNCHER __launch STORE PROGRAM …`).
    pub fn change(
        &self,
        store: &Store,
        launcher: &Path,
        change: impl FnOnce(&mut Vec<ProfilePackage>) -> Result<(), ProfileError>,
    ) -> Result<Change, ProfileError> {
        store.check_writable()?;
        let _lock = self.lock()?;
        let numbers = self.numbers()?;
        let current = match numbers.is_empty() {
            // A link that is left of generations that are all gone leads to nothing that could be kept.
            true if self.current_number()?.is_some() => None,
            _ => self.current()?,
        };
        let mut manifest = match &current {
            Some(generation) => generation.manifest.clone(),
            None => Manifest::of(store.dir()),
        };
        self.check_store(&manifest, store)?;
        change(&mut manifest.packages)?;
        manifest.packages.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(current) = current.as_ref().filter(|current| current.manifest == manifest) {
            return Ok(Change {
                generation: current.number,
                previous: None,
            });
        }
        self.sweep(store)?;
        manifest.made_from = current.as_ref().map(|current| current.number);
        let number = numbers.last().map_or(1, |last| last + 1);
        // The roots first: links that nothing keeps are worse than roots that keep nothing.
        let paths: BTreeSet<StorePath> = manifest.packages.iter().map(|package| package.path.clone()).collect();
        store.keep(&self.owner(number), &paths)?;
        let made = self.make(number, &manifest, store, launcher);
        made.and_then(|()| self.switch(number)).inspect_err(|_| {
            // The first error is the one worth telling; what stays the next change removes.
            let _ = store.keep(&self.owner(number), &BTreeSet::new());
        })?;
        Ok(Change {
            generation: number,
            previous: current.map(|current| current.number),
        })
    }

    /// That a profile leads to the store at hand.
    fn check_store(&self, manifest: &Manifest, store: &Store) -> Result<(), ProfileError> {
        let same = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if manifest.packages.is_empty() || same(&manifest.store) == same(store.dir()) {
            return Ok(());
        }
        Err(ProfileError::OtherStore {
            profile: self.link(),
            store: manifest.store.clone(),
            asked: store.dir().to_owned(),
        })
    }

    /// Makes a generation, under another name until it is whole.
    fn make(&self, number: u64, manifest: &Manifest, store: &Store, launcher: &Path) -> Result<(), ProfileError> {
        let staging = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .tempdir_in(&self.dir)
            .context("create a directory in", &self.dir)?;
        let tree = staging.path().join("tree");
        fs::create_dir(&tree).context("create directory", &tree)?;
        links::make(&tree, manifest, store, launcher)?;
        manifest.write(&tree.join(manifest::FILE))?;
        sync_file_system(&tree)?;
        let place = self.place(number);
        fs::rename(&tree, &place).context("rename to", &place)?;
        Ok(sync_parent(&place)?)
    }

    /// Has another generation be in use, in one step.
    fn switch(&self, number: u64) -> Result<(), ProfileError> {
        let (link, target) = (self.link(), PathBuf::from(format!("{NAME}-{number}")));
        let temporary = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .make_in(&self.dir, |path| symlink(&target, path))
            .context("create a symlink in", &self.dir)?;
        let renamed = temporary.into_temp_path().persist(&link).map_err(|error| error.error);
        renamed.context("create the symlink", &link)?;
        Ok(sync_parent(&link)?)
    }

    /// Goes back to the generation that the one in use was made from, or to the one that is named.
    pub fn roll_back(&self, store: &Store, to: Option<u64>) -> Result<Change, ProfileError> {
        let _lock = self.lock()?;
        let Some(current) = self.current_number()? else {
            return Err(ProfileError::Empty { profile: self.link() });
        };
        let number = match to {
            Some(number) => number,
            None => self.made_from(current)?,
        };
        let generation = self.generation(number)?;
        self.check_store(&generation.manifest, store)?;
        for package in &generation.manifest.packages {
            if store.info(&package.path)?.is_none() {
                return Err(ProfileError::Lost {
                    number,
                    name: package.name.clone(),
                    path: package.path.clone(),
                });
            }
        }
        if number != current {
            self.switch(number)?;
        }
        Ok(Change {
            generation: number,
            previous: Some(current).filter(|&current| current != number),
        })
    }

    /// The generation that the one in use was made from, and that is there.
    fn made_from(&self, current: u64) -> Result<u64, ProfileError> {
        let before = self.in_use(current)?.manifest.made_from;
        let before = before.ok_or(ProfileError::NothingEarlier { current })?;
        let known = self.numbers()?;
        match known.contains(&before) {
            true => Ok(before),
            false => Err(ProfileError::EarlierGone { current, before, known }),
        }
    }

    /// Removes generations that are not in use and of whose time `is_old` says so; gives their numbers. What only they led to
    /// goes with the next collection. Where the one in use is damaged nothing is removed: another may be needed in its place.
    pub fn wipe(&self, store: &Store, is_old: impl Fn(SystemTime) -> bool) -> Result<Vec<u64>, ProfileError> {
        store.check_writable()?;
        let _lock = self.lock()?;
        let current = self.current()?.map(|current| current.number);
        self.sweep(store)?;
        let mut removed = Vec::new();
        for number in self.numbers()?.into_iter().filter(|&number| Some(number) != current) {
            let place = self.place(number);
            // Of one that is damaged the directory's time is left.
            let made = place
                .join(manifest::FILE)
                .metadata()
                .or_else(|_| place.symlink_metadata());
            let made = made.and_then(|metadata| metadata.modified());
            if is_old(made.context("read the time of", &place)?) {
                // Away from its name first: what is left of it otherwise would look like a generation.
                let away = self.dir.join(format!("{TEMPORARY_PREFIX}{NAME}-{number}"));
                fs::rename(self.place(number), &away).context("rename", self.place(number))?;
                store.keep(&self.owner(number), &BTreeSet::new())?;
                remove_tree(&away)?;
                removed.push(number);
            }
        }
        Ok(removed)
    }

    /// Removes what killed processes left. To be called with the lock held.
    fn sweep(&self, store: &Store) -> Result<(), ProfileError> {
        for name in sorted_names(&self.dir)? {
            if name.to_str().is_some_and(|name| name.starts_with(TEMPORARY_PREFIX)) {
                remove_tree(&self.dir.join(&name))?;
            }
        }
        let numbers = self.numbers()?;
        let of_others = |owner: &RootOwner| {
            let number = owner.target.parse::<u64>().ok();
            let is_ours = owner.folder == self.dir && owner.kind == ROOT_KIND;
            !is_ours || number.is_some_and(|number| numbers.contains(&number))
        };
        let lost: BTreeSet<RootOwner> = store.roots()?.into_iter().filter_map(|root| root.owner).collect();
        for owner in lost.into_iter().filter(|owner| !of_others(owner)) {
            store.keep(&owner, &BTreeSet::new())?;
        }
        Ok(())
    }

    fn owner(&self, number: u64) -> RootOwner {
        RootOwner {
            folder: self.dir.clone(),
            kind: ROOT_KIND.to_owned(),
            target: number.to_string(),
        }
    }
}

/// The number in the name of a generation.
fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(NAME)?.strip_prefix('-')?;
    let number: u64 = digits.parse().ok()?;
    // Neither `+1` nor `01`.
    (number.to_string() == digits).then_some(number)
}

/// Where a path is, without its links.
fn canonical(path: &Path) -> Result<PathBuf, PathError> {
    path.canonicalize().context("find", path)
}

/// What a store path is called in a profile: its name without version.
pub fn name_of(path: &StorePath) -> String {
    let name = path.name();
    let begins_version = |at: usize| name.as_bytes().get(at + 1).is_some_and(u8::is_ascii_digit);
    let end = name
        .match_indices('-')
        .map(|(at, _)| at)
        .find(|&at| at > 0 && begins_version(at));
    name[..end.unwrap_or(name.len())].to_owned()
}
