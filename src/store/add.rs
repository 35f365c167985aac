//! *Adding*: how a tree or a file becomes a valid path.
//!
//! Invariant: the order is canonicalise, hash and scan in one read, write to disk, rename, write the directory to
//! disk, register in one transaction; a crash anywhere leaves at worst debris in `tmp` or a tree in `store`
//! that is not registered. A path that is valid already is never touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use super::canonical::{canonicalise, seal, survey};
use super::database::{Addressing, Registration};
use super::error::StoreError;
use super::evidence::{Evidence, Place};
use super::import::Attestation;
use super::inspect::{Inspection, inspect};
use super::modulo::{rewrite_file, rewrite_symlink};
use super::session::Session;
use super::strip::{ANY_REFERENCE, strip};
use super::{NewOutput, Store};
use crate::digest::{Digest, HashingWriter};
use crate::execution::Execution;
use crate::fsio::{IoContext, LockKind, PathError, sync_file_system, sync_parent};
use crate::nar::{self, Entry, EntryKind};
use crate::store_path::{HASH_CHARS, PathInfo, StorePath, built_in_place, check_name, content_addressed, fixed_file};
use crate::walls::Walls;

/// Up to so many entries are synced one by one; for more, one sync of the whole file system is cheaper.
const SYNCED_SINGLY: u64 = 8;

/// What became of a tree that was built at a placeholder.
pub enum Rewritten {
    /// It is in the store.
    Registered(PathInfo),
    /// It names itself where that cannot be rewritten.
    NamesItself {
        /// The path at which it must be built.
        path: StorePath,
        /// Where it does so first; `None`: where the scan does not see it.
        place: Option<Place>,
    },
}

impl Store {
    /// Copies a tree or file into the store under its content address (`nix-store --add`).
    ///
    /// Where that address is valid already, nothing is copied: the source is read once.
    pub fn add_tree(&self, name: &str, source: &Path) -> Result<PathInfo, StoreError> {
        check_name(name)?;
        self.check_writable()?;
        let (hash, _) = nar::hash(source)?;
        let path = content_addressed(&self.store_dir, name, &hash, &BTreeSet::new(), false)?;
        if let Some(info) = self.info(&path)? {
            return Ok(info);
        }
        let staging = self.stage()?;
        let tree = staging.path().join("tree");
        for entry in nar::walk(source) {
            copy_entry(&entry?, source, &tree)?;
        }
        canonicalise(&tree, self.place_length(name))?;
        // What counts is the copy: the source may have changed meanwhile.
        let inspection = inspect(&tree, [], None)?;
        let path = content_addressed(&self.store_dir, name, &inspection.hash, &BTreeSet::new(), false)?;
        let addressing = Addressing::Tree(inspection.hash);
        let new = plain_registration(path, &inspection, addressing);
        self.publish(&tree, new, inspection.entries)
    }

    /// Copies one file into the store under the address of its SHA-256 (`nix-store --add-fixed sha256`), as a
    /// file that is not executable; a file with another hash is an error.
    pub fn add_file_flat(&self, name: &str, file: &Path, sha256: &Digest) -> Result<PathInfo, StoreError> {
        let path = fixed_file(&self.store_dir, name, sha256)?;
        if let Some(info) = self.info(&path)? {
            return Ok(info);
        }
        let staging = self.stage()?;
        let tree = staging.path().join("tree");
        let actual = copy_hashing(file, &tree)?;
        if actual != *sha256 {
            return Err(StoreError::HashMismatch {
                file: file.to_owned(),
                expected: *sha256,
                actual,
            });
        }
        canonicalise(&tree, self.place_length(name))?;
        let inspection = inspect(&tree, [], None)?;
        let new = plain_registration(path, &inspection, Addressing::File(*sha256));
        self.publish(&tree, new, inspection.entries)
    }

    /// Moves a finished tree that refers to nothing, a leaf of the graph, into the store, as [`Self::add_output`] does: a source, an unpacked
    /// archive or package. `derivation` is the step that made it, where one did.
    pub fn add_leaf(&self, name: &str, tree: &Path, derivation: Option<Digest>) -> Result<PathInfo, StoreError> {
        self.add_output(&NewOutput {
            name,
            tree,
            candidates: &BTreeSet::new(),
            declare: &|_| Vec::new(),
            derivation,
            policy: &ANY_REFERENCE,
            walls: Walls::Namespaces,
            execution: Execution::Native,
        })
    }

    /// As [`add_leaf`](Self::add_leaf) for what scripts made that ran so.
    pub fn add_leaf_of_scripts(
        &self,
        name: &str,
        tree: &Path,
        derivation: Digest,
        execution: Execution,
    ) -> Result<PathInfo, StoreError> {
        self.add_output(&NewOutput {
            name,
            tree,
            candidates: &BTreeSet::new(),
            declare: &|_| Vec::new(),
            derivation: Some(derivation),
            policy: &ANY_REFERENCE,
            walls: Walls::Namespaces,
            execution,
        })
    }

    /// Moves a finished tree (any modes; on the store's file system), which does not know its own path, into the store
    /// under its content address: canonicalises it, hashes and scans it for `candidates` in one read, syncs, renames,
    /// registers. Early cutoff is that equal content gives an equal path: where that path is valid already the tree is
    /// dropped.
    pub fn add_output(&self, output: &NewOutput<'_>) -> Result<PathInfo, StoreError> {
        let (inspection, references) = self.examine(output, None)?;
        let targets = references.keys().cloned().collect();
        let path = content_addressed(&self.store_dir, output.name, &inspection.hash, &targets, false)?;
        self.settle(output, path, Addressing::Tree(inspection.hash), references, &inspection)
    }

    /// As [`add_output`](Self::add_output) for a tree that was built at `placeholder` and may refer to itself by that:
    /// where it does, it refers to its final path afterwards.
    ///
    /// Such a tree is read a second time, since the hash of what it becomes needs the path that the first read gives.
    /// One that refers to itself in a way that cannot be rewritten (in a name, inside a compressed file, in UTF-16) is
    /// not taken: what is given is the path at which it must be built instead. So no valid path holds a placeholder
    /// where the scan sees it, and none is mistaken for another output's own.
    pub fn add_rewritten(&self, output: &NewOutput<'_>, placeholder: &StorePath) -> Result<Rewritten, StoreError> {
        let (inspection, references) = self.examine(output, Some(placeholder))?;
        let own = inspection.own.first.is_some();
        let targets = references.keys().cloned().collect();
        let (dir, name, hash) = (&self.store_dir, output.name, &inspection.hash);
        if own && !inspection.own.rewritable() {
            let path = built_in_place(dir, name, hash, &targets)?;
            return Ok(match self.info(&path)? {
                Some(info) => Rewritten::Registered(info),
                None => Rewritten::NamesItself {
                    path,
                    place: inspection.own.fixed,
                },
            });
        }
        let path = content_addressed(dir, name, hash, &targets, own)?;
        if own && self.info(&path)?.is_none() {
            rewrite(output.tree, &inspection.own.entries, placeholder, &path)?;
        }
        let info = self.settle(output, path, Addressing::Tree(inspection.hash), references, &inspection)?;
        Ok(Rewritten::Registered(info))
    }

    /// As [`add_output`](Self::add_output) for a tree that was built at `path`, which
    /// [`add_rewritten`](Self::add_rewritten) gave for it.
    pub fn add_in_place(&self, output: &NewOutput<'_>, path: &StorePath) -> Result<PathInfo, StoreError> {
        let (inspection, references) = self.examine(output, Some(path))?;
        self.settle(output, path.clone(), Addressing::Derivation, references, &inspection)
    }

    /// As [`add_output`](Self::add_output) for a tree that is said to be `expected`, whose path it may refer to: what turns
    /// out to be something else is an error. Of a path that its content does not give (one built in its place) the archive
    /// must be the one that was announced.
    pub fn add_offered(&self, output: &NewOutput<'_>, expected: &PathInfo) -> Result<PathInfo, StoreError> {
        self.take_offered(output, expected, false)
    }

    /// As [`add_offered`](Self::add_offered) where nobody vouches for it: a path that its content does not give is an error.
    pub(super) fn add_proved(&self, output: &NewOutput<'_>, expected: &PathInfo) -> Result<PathInfo, StoreError> {
        self.take_offered(output, expected, true)
    }

    fn take_offered(
        &self,
        output: &NewOutput<'_>,
        expected: &PathInfo,
        must_prove: bool,
    ) -> Result<PathInfo, StoreError> {
        let path = &expected.path;
        let (inspection, references) = self.examine(output, Some(path))?;
        let own = inspection.own.first.is_some();
        let targets = references.keys().cloned().collect();
        let in_place = own && !inspection.own.rewritable();
        let addressing = match in_place {
            true if must_prove => {
                let how = "it names itself where that cannot be rewritten, which only a path without an address may"
                    .to_owned();
                return Err(StoreError::WrongContent {
                    path: path.clone(),
                    how,
                });
            }
            true => Addressing::Derivation,
            false => Addressing::Tree(inspection.hash),
        };
        if !in_place {
            let found = content_addressed(&self.store_dir, output.name, &inspection.hash, &targets, own)?;
            if found != *path {
                return Err(StoreError::WrongAddress {
                    path: path.clone(),
                    expected: found,
                });
            }
        }
        let (hash, size) = match own {
            true => nar::hash(output.tree)?,
            false => (inspection.hash, inspection.size),
        };
        if (hash, size) != (expected.nar_hash, expected.nar_size) {
            return Err(StoreError::ArchiveMismatch {
                path: path.clone(),
                how: format!(
                    "it is {hash} ({size} bytes), not {} ({} bytes)",
                    expected.nar_hash, expected.nar_size
                ),
            });
        }
        self.settle(output, path.clone(), addressing, references, &inspection)
    }

    /// Looks at a finished tree before anything else does: what could not enter the store under this name is an error
    /// (see [`add_output`](Self::add_output)), and all directories can be listed afterwards.
    pub fn check_output(&self, tree: &Path, name: &str) -> Result<(), StoreError> {
        survey(tree, self.place_length(name)).map(drop)
    }

    /// The length of the longest path by which a tree of this name is opened in the store, on disk or in a sandbox.
    pub(super) fn place_length(&self, name: &str) -> usize {
        let on_disk = self.dir.join("store").as_os_str().len();
        on_disk.max(self.store_dir.as_str().len()) + "/".len() + HASH_CHARS + "-".len() + name.len()
    }

    /// Canonicalises a tree and finds out to what it refers, to itself (as `own`) among others.
    fn examine(
        &self,
        output: &NewOutput<'_>,
        own: Option<&StorePath>,
    ) -> Result<(Inspection, BTreeMap<StorePath, Evidence>), StoreError> {
        check_name(output.name)?;
        self.check_writable()?;
        canonicalise(output.tree, self.place_length(output.name))?;
        strip(output.tree, &output.policy.stripped)?;
        let inspection = inspect(output.tree, output.candidates, own)?;
        let references = with_declared(&inspection, output);
        let policy = output.policy;
        let refused = |path: &StorePath| policy.forbidden.contains(path) || policy.stripped.contains(path);
        if let Some((path, evidence)) = references.iter().find(|(path, _)| refused(path)) {
            return Err(StoreError::RefusedReference {
                path: path.clone(),
                evidence: Box::new(evidence.clone()),
            });
        }
        Ok((inspection, references))
    }

    /// Registers a tree that refers to itself, if it does, as `path`.
    fn settle(
        &self,
        output: &NewOutput<'_>,
        path: StorePath,
        addressing: Addressing,
        references: BTreeMap<StorePath, Evidence>,
        inspection: &Inspection,
    ) -> Result<PathInfo, StoreError> {
        if let Some(info) = self.info(&path)? {
            self.discard(output.tree);
            return Ok(info);
        }
        let mut new = Registration {
            derivation: output.derivation,
            walls: output.walls,
            execution: output.execution,
            ..plain_registration(path, inspection, addressing)
        };
        new.references = references;
        if let Some(place) = &inspection.own.first {
            new.references.insert(new.path.clone(), Evidence::Found(place.clone()));
            (new.nar_hash, new.nar_size) = nar::hash(output.tree)?;
        }
        self.publish(output.tree, new, inspection.entries)
    }

    /// Makes a finished tree what it would be in the store as `path` (which another tree of the same derivation is),
    /// and registers nothing: canonical, `stripped` taken out, and referring to `path` where it referred to `scratch`. Gives hash and size of
    /// its canonical archive.
    pub fn settle_output(
        &self,
        tree: &Path,
        scratch: &StorePath,
        path: &StorePath,
        stripped: &BTreeSet<StorePath>,
    ) -> Result<(Digest, u64), StoreError> {
        canonicalise(tree, self.place_length(path.name()))?;
        strip(tree, stripped)?;
        let inspection = inspect(tree, &BTreeSet::new(), Some(scratch))?;
        if inspection.own.first.is_some() && inspection.own.rewritable() && scratch != path {
            rewrite(tree, &inspection.own.entries, scratch, path)?;
        }
        Ok(nar::hash(tree)?)
    }

    /// As [`settle_output`](Self::settle_output) for a tree that refers to nothing.
    pub fn settle_leaf(&self, name: &str, tree: &Path) -> Result<(Digest, u64), StoreError> {
        canonicalise(tree, self.place_length(name))?;
        Ok(nar::hash(tree)?)
    }

    /// Gives a canonical tree its final name and registers it.
    pub(super) fn publish(&self, tree: &Path, new: Registration, entries: u64) -> Result<PathInfo, StoreError> {
        let session = self.session()?;
        sync_tree(tree, entries)?;
        let lock = self.lock(LockKind::Exclusive)?;
        if let Some((_, old)) = self.database.registration(&new.path)? {
            session.protect(&new.path)?;
            if !self.is_there(&new.path)? {
                return self.replace(tree, &old, &new);
            }
            drop(lock);
            self.discard(tree);
            // Of two different results of one derivation the first stays; anything else has one content.
            if old.nar_hash != new.nar_hash && new.addressing != Addressing::Derivation {
                return Err(StoreError::Collision { path: new.path });
            }
            return Ok(old.info());
        }
        // What a crash left there: nobody else can be writing it, since we hold the lock.
        let physical = self.physical(&new.path);
        let debris = session.fresh_path();
        let had_debris = move_away(&physical, &debris)?;
        if let Err(error) = self.install(&session, tree, &new) {
            // Should this fail too, the next collection removes it.
            let failed = session.fresh_path();
            if move_away(&physical, &failed).is_ok() {
                self.discard(&failed);
            }
            return Err(error);
        }
        drop(lock);
        if had_debris {
            self.discard(&debris);
        }
        Ok(new.info())
    }

    /// Renames and registers. To be called with the store's lock held exclusively.
    fn install(&self, session: &Session, tree: &Path, new: &Registration) -> Result<(), StoreError> {
        let physical = self.physical(&new.path);
        move_tree(tree, &physical)?;
        sync_parent(&physical)?;
        // Protected first: once it is registered nothing may fail any more.
        session.protect(&new.path)?;
        self.database.register(new)
    }
}

/// What the scan found, and what follows from it.
fn with_declared(inspection: &Inspection, output: &NewOutput<'_>) -> BTreeMap<StorePath, Evidence> {
    let found: BTreeSet<StorePath> = inspection.found.keys().cloned().collect();
    let mut declared = (output.declare)(&found);
    declared.sort();
    let mut references: BTreeMap<StorePath, Evidence> = inspection
        .found
        .iter()
        .map(|(path, place)| (path.clone(), Evidence::Found(place.clone())))
        .collect();
    for (path, via) in declared {
        references.entry(path).or_insert(Evidence::Declared { via });
    }
    references
}

/// The registration of a path without references.
fn plain_registration(path: StorePath, inspection: &Inspection, addressing: Addressing) -> Registration {
    Registration {
        path,
        nar_hash: inspection.hash,
        nar_size: inspection.size,
        addressing,
        derivation: None,
        walls: Walls::Namespaces,
        execution: Execution::Native,
        references: BTreeMap::new(),
        unscanned: inspection.unscanned.clone(),
        attestation: Attestation::default(),
    }
}

fn rewrite(tree: &Path, entries: &[Entry], old: &StorePath, new: &StorePath) -> Result<(), StoreError> {
    for entry in entries {
        let path = entry.below(tree);
        match &entry.kind {
            EntryKind::File { executable, .. } => rewrite_file(&path, *executable, old.hash(), new.hash())?,
            EntryKind::Symlink { target } => rewrite_symlink(&path, target, old.hash(), new.hash())?,
            EntryKind::Directory => {}
        }
    }
    Ok(())
}

/// Copies one entry of the tree at `source` to its place below `dest`.
fn copy_entry(entry: &Entry, source: &Path, dest: &Path) -> Result<(), PathError> {
    let (from, to) = (entry.below(source), entry.below(dest));
    match &entry.kind {
        EntryKind::Directory => fs::create_dir(&to).context("create directory", &to),
        EntryKind::Symlink { target } => {
            use std::os::unix::ffi::OsStrExt;
            symlink(std::ffi::OsStr::from_bytes(target), &to).context("create the symlink", &to)
        }
        EntryKind::File { executable, .. } => {
            let mut from_file = File::open(&from).context("open", &from)?;
            let mode = if *executable { 0o700 } else { 0o600 };
            let mut to_file = File::options()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&to)
                .context("create", &to)?;
            // Shares the blocks where the file system can (`copy_file_range`).
            io::copy(&mut from_file, &mut to_file).context("copy", &to)?;
            to_file
                .set_permissions(Permissions::from_mode(mode))
                .context("set the mode of", &to)
        }
    }
}

/// Copies a file and hashes what was copied.
fn copy_hashing(from: &Path, to: &Path) -> Result<Digest, PathError> {
    let mut source = File::open(from).context("open", from)?;
    let mut sink = HashingWriter::new(File::create_new(to).context("create", to)?);
    let mut block = vec![0; 128 * 1024];
    loop {
        match source.read(&mut block).context("read", from)? {
            0 => break,
            count => sink.write_all(&block[..count]).context("write", to)?,
        }
    }
    let (_, hasher, _) = sink.finish();
    Ok(hasher.digest())
}

/// Writes a canonical tree to disk.
fn sync_tree(tree: &Path, entries: u64) -> Result<(), StoreError> {
    if entries > SYNCED_SINGLY || tree.is_symlink() {
        let parent = tree.parent().unwrap_or(tree);
        return Ok(sync_file_system(parent)?);
    }
    for entry in nar::walk(tree) {
        let entry = entry?;
        if !matches!(entry.kind, EntryKind::Symlink { .. }) {
            let path = entry.below(tree);
            File::open(&path)
                .and_then(|file| file.sync_all())
                .context("sync", &path)?;
        }
    }
    Ok(())
}

/// Renames a canonical tree to its final path.
pub(super) fn move_tree(from: &Path, to: &Path) -> Result<(), StoreError> {
    let metadata = fs::symlink_metadata(from).context("read the attributes of", from)?;
    if !metadata.is_dir() {
        return Ok(fs::rename(from, to).context("rename to", to)?);
    }
    // To rename a directory is to change its `..`, which takes the right to write to it.
    fs::set_permissions(from, Permissions::from_mode(0o755)).context("make writable", from)?;
    fs::rename(from, to).context("rename to", to)?;
    seal(to, &EntryKind::Directory)?;
    Ok(File::open(to).and_then(|dir| dir.sync_all()).context("sync", to)?)
}

/// Renames whatever stands at `from`, if anything does, to be removed later.
pub(super) fn move_away(from: &Path, to: &Path) -> Result<bool, StoreError> {
    let metadata = match fs::symlink_metadata(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.context("read the attributes of", from)?,
    };
    if metadata.is_dir() {
        fs::set_permissions(from, Permissions::from_mode(0o755)).context("make writable", from)?;
    }
    fs::rename(from, to).context("move away", from)?;
    Ok(true)
}
