//! *Optimising*: identical files of valid paths become one file on the disk, with several names (hard links).
//!
//! Invariant: a file is replaced by one with the same bytes, mode and owner, in one rename, and only while its path cannot be
//! collected; nothing is ever in a tree that does not belong there. What that does to directories (their modes, their times)
//! is undone before others may call it a change, and after a crash by the next run: the session's file says where.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::canonical::{deviation, seal};
use super::error::StoreError;
use super::session::Session;
use super::{Store, session};
use crate::digest::{Digest, HashingWriter};
use crate::fsio::{FileLock, IoContext, LockKind, PathError};
use crate::nar::{self, Entry, EntryKind};
use crate::store_path::StorePath;

/// The lock that is held while directories are not as they should be.
const LOCK: &str = "locks/optimise";

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Optimised {
    /// Number of files that share their content with another by now and did not before.
    pub files: u64,
    /// Bytes that these no longer take up.
    pub bytes: u64,
}

/// What files must have in common besides their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kin {
    size: u64,
    mode: u32,
    user: u32,
    group: u32,
    device: u64,
}

impl Kin {
    fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            mode: metadata.mode(),
            user: metadata.uid(),
            group: metadata.gid(),
            device: metadata.dev(),
        }
    }
}

/// The inodes of which there are several with one size, mode and owner.
#[derive(Default)]
struct Candidates(BTreeMap<Kin, Option<u64>>);

impl Candidates {
    fn add(&mut self, metadata: &Metadata) {
        let inode = metadata.ino();
        let first = self.0.entry(Kin::of(metadata)).or_insert(Some(inode));
        if *first != Some(inode) {
            *first = None;
        }
    }

    fn are_several(&self, metadata: &Metadata) -> bool {
        self.0.get(&Kin::of(metadata)) == Some(&None)
    }
}

/// The file that others become links to.
struct First {
    place: PathBuf,
    inode: u64,
}

/// A file that is to become a link.
struct Twin {
    place: PathBuf,
    first: PathBuf,
    key: (Kin, Digest),
}

impl Store {
    /// Lets identical files share their content, as long as `go_on`, which is asked before each file, says so. What runs
    /// beside it, builds and collections among it, need not care.
    pub fn optimise(&self, go_on: &dyn Fn() -> bool) -> Result<Optimised, StoreError> {
        let session = self.session()?;
        let paths: Vec<StorePath> = self.database.nodes()?.into_iter().map(|node| node.path).collect();
        let mut candidates = Candidates::default();
        for path in &paths {
            for (_, metadata) in files(&self.physical(path), go_on) {
                candidates.add(&metadata);
            }
        }
        let mut firsts: BTreeMap<(Kin, Digest), First> = BTreeMap::new();
        let mut done = Optimised::default();
        for path in &paths {
            let mut twins = Vec::new();
            for (place, metadata) in files(&self.physical(path), go_on) {
                if !candidates.are_several(&metadata) {
                    continue;
                }
                // What cannot be read is for `verify` to tell.
                let Ok(digest) = content(&place) else { continue };
                let (key, inode) = ((Kin::of(&metadata), digest), metadata.ino());
                match firsts.get(&key) {
                    Some(first) if first.inode == inode => {}
                    Some(first) => twins.push(Twin {
                        place,
                        first: first.place.clone(),
                        key,
                    }),
                    None => drop(firsts.insert(key, First { place, inode })),
                }
            }
            if !twins.is_empty() {
                self.link_all(path, twins, &session, &mut firsts, &mut done)?;
            }
            if !go_on() {
                break;
            }
        }
        Ok(done)
    }

    /// Makes links of files of one path.
    fn link_all(
        &self,
        path: &StorePath,
        twins: Vec<Twin>,
        session: &Session,
        firsts: &mut BTreeMap<(Kin, Digest), First>,
        done: &mut Optimised,
    ) -> Result<(), StoreError> {
        // Nobody collects it meanwhile.
        let _lock = self.lock(LockKind::Shared)?;
        if self.database.registration(path)?.is_none() {
            return Ok(());
        }
        let _changing = FileLock::acquire(&self.dir.join(LOCK), LockKind::Exclusive)?;
        session.note_linking(path)?;
        let mut opened: Vec<PathBuf> = Vec::new();
        let mut failure = None;
        for twin in twins {
            let parent = twin.place.parent().unwrap_or(Path::new("/")).to_owned();
            if opened.last() != Some(&parent) && parent.starts_with(self.physical(path)) {
                opened.push(parent);
            }
            match link(&twin, opened.last(), session) {
                Ok(Linked::Yes { freed }) => {
                    done.files += 1;
                    done.bytes += if freed { twin.key.0.size } else { 0 };
                }
                // It takes the other's place for those that follow.
                Ok(Linked::No { inode: Some(inode) }) => {
                    let place = twin.place;
                    firsts.insert(twin.key, First { place, inode });
                }
                Ok(Linked::No { inode: None }) => {}
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        for dir in opened {
            seal(&dir, &EntryKind::Directory)?;
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    /// What `look` finds wrong, unless that is because files are becoming links at this moment.
    pub(super) fn lasting<T>(&self, look: impl Fn() -> Option<T>) -> Result<Option<T>, StoreError> {
        let found = look();
        if found.is_none() || self.database.read_only() {
            return Ok(found);
        }
        let _lock = FileLock::acquire(&self.dir.join(LOCK), LockKind::Shared)?;
        Ok(look())
    }

    /// Puts right what a crash left of the directories of a path in which files were becoming links.
    pub(super) fn reseal(&self, dead: &session::Dead) -> Result<(), StoreError> {
        let Some(path) = dead.linking() else { return Ok(()) };
        if self.database.registration(&path)?.is_none() {
            return Ok(());
        }
        let tree = self.physical(&path);
        // What cannot be read or written is for `verify` to tell.
        for entry in nar::walk(&tree).filter_map(Result::ok) {
            if entry.kind == EntryKind::Directory {
                let _ = seal(&entry.below(&tree), &entry.kind);
            }
        }
        Ok(())
    }
}

/// The files in a tree that are as they should be and not empty; what goes meanwhile is left out.
fn files(tree: &Path, go_on: &dyn Fn() -> bool) -> Vec<(PathBuf, Metadata)> {
    let is_file = |entry: &Entry| matches!(entry.kind, EntryKind::File { size: 1.., .. });
    let entries = nar::walk(tree).take_while(|_| go_on()).filter_map(Result::ok);
    let files = entries.filter(is_file).filter_map(|entry| {
        let place = entry.below(tree);
        let metadata = fs::symlink_metadata(&place).ok()?;
        let is_sound = metadata.is_file() && matches!(deviation(&place, &entry.kind), Ok(None));
        is_sound.then_some((place, metadata))
    });
    files.collect()
}

fn content(file: &Path) -> io::Result<Digest> {
    let mut sink = HashingWriter::new(io::sink());
    io::copy(&mut File::open(file)?, &mut sink)?;
    Ok(sink.finish().1.digest())
}

enum Linked {
    /// It is a link now; `freed`: what was there before has no other name.
    Yes { freed: bool },
    /// It stays as it is: another cannot get more names, or is gone; `inode`: it can.
    No { inode: Option<u64> },
}

/// Makes a link of a file; `dir`: its directory, where that is part of the tree.
fn link(twin: &Twin, dir: Option<&PathBuf>, session: &Session) -> Result<Linked, PathError> {
    // Another process may have been at it since it was looked at.
    let Ok(old) = fs::symlink_metadata(&twin.place) else {
        return Ok(Linked::No { inode: None });
    };
    if Kin::of(&old) != twin.key.0 {
        return Ok(Linked::No { inode: None });
    }
    let new = session.fresh_path();
    match fs::hard_link(&twin.first, &new) {
        Ok(()) => {}
        Err(error) if is_full(&error) => return Err(error).context("make a link at", &new),
        // There are as many links as there may be, or the other is gone, or may not be linked to.
        Err(_) => return Ok(Linked::No { inode: Some(old.ino()) }),
    }
    let is_twin = fs::symlink_metadata(&new).is_ok_and(|metadata| Kin::of(&metadata) == twin.key.0);
    if !is_twin {
        let _ = fs::remove_file(&new);
        return Ok(Linked::No { inode: Some(old.ino()) });
    }
    if let Some(dir) = dir {
        fs::set_permissions(dir, Permissions::from_mode(0o755)).context("make writable", dir)?;
    }
    let renamed = fs::rename(&new, &twin.place);
    // A link to the same file is left where it is by a rename.
    let _ = fs::remove_file(&new);
    renamed.context("replace", &twin.place)?;
    Ok(Linked::Yes {
        freed: old.nlink() == 1,
    })
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
