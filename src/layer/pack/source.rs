//! A *source* of tar bytes: a part of a layer, walked in the order of the tar dialect into a [`TarSink`].
//!
//! Invariant: a store path's tar is a function of its canonical archive (NAR): the same walk and the same read
//! that make the tar make the NAR's hash, which must be the recorded one. So the packed bytes of a store path
//! can be kept under its name and NAR hash.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use super::links::links;
use super::{Attribute, LayerPart, PackError, StoreEntry};
use crate::archive::tar::{BLOCK, TRAILER, padding};
use crate::digest::Hasher;
use crate::fsio::{IoContext, PathError};
use crate::layer::LayerError;
use crate::layer::tar::{Entry, Kind};
use crate::layer::tree::{self, FileContent, Tree, TreeEntry};
use crate::nar::{self, EntryKind, NarEncoder};
use crate::oci::TarProfile;

/// Takes the bytes of a tar.
pub(super) trait TarSink {
    /// Takes the next bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<(), PackError>;

    /// Takes `size` bytes of a file, and has `archive` take them in too; a shorter file is an error.
    fn copy(&mut self, file: &File, path: &Path, size: u64, archive: Option<&mut Hasher>) -> Result<(), PackError>;

    /// Is told that a store path comes next.
    fn reached(&mut self, tree: &Path);

    /// How many bytes it has taken.
    fn position(&self) -> u64;

    /// Takes NULs.
    fn zeros(&mut self, mut count: usize) -> Result<(), PackError> {
        const ZEROS: [u8; TRAILER] = [0; TRAILER];
        while count > 0 {
            let some = count.min(ZEROS.len());
            self.write(&ZEROS[..some])?;
            count -= some;
        }
        Ok(())
    }

    /// Takes an entry's header.
    fn header(&mut self, entry: &Entry<'_>, profile: TarProfile) -> Result<(), PackError> {
        let mut header = Vec::with_capacity(BLOCK);
        profile.append_header(&mut header, entry).map_err(LayerError::from)?;
        self.write(&header)
    }
}

/// Writes a part of a layer; a store path's archive hash is verified where `verify` says so.
pub(super) fn write_part(
    sink: &mut dyn TarSink,
    part: &LayerPart<'_>,
    profile: TarProfile,
    verify: bool,
) -> Result<(), PackError> {
    match part {
        LayerPart::Beginning => sink.write(&profile.beginning()),
        LayerPart::Parents(paths) => parents(sink, paths, profile),
        LayerPart::StorePath(_, entry) => store_path(sink, entry, profile, verify),
        LayerPart::Tree(_, content) => tree(sink, content, profile),
        LayerPart::Trailer => sink.zeros(profile.trailer(sink.position())),
    }
}

fn parents(sink: &mut dyn TarSink, paths: &[Vec<u8>], profile: TarProfile) -> Result<(), PackError> {
    for path in paths {
        let entry = Entry {
            path,
            kind: Kind::Directory,
            mode: tree::PARENT_MODE,
            uid: 0,
            gid: 0,
            capabilities: None,
        };
        sink.header(&entry, profile)?;
    }
    Ok(())
}

fn store_path(sink: &mut dyn TarSink, entry: &StoreEntry, profile: TarProfile, verify: bool) -> Result<(), PackError> {
    sink.reached(&entry.physical);
    let archive = ArchiveHash {
        hasher: verify.then(Hasher::new),
        size: 0,
    };
    let mut archive = NarEncoder::new(archive).map_err(LayerError::from)?;
    let root = entry.logical.relative().as_bytes();
    // The tools of the other dialects write copies.
    let links = match profile {
        TarProfile::Layerize => links(entry)?,
        _ => BTreeMap::new(),
    };
    for node in nar::walk(&entry.physical) {
        let node = node.map_err(LayerError::from)?;
        archive.begin(&node).map_err(LayerError::from)?;
        let mut path = Vec::new();
        let mut header = header(&node, root, &mut path, &entry.attributes);
        let target = links.get(&node.path).map(|target| [root, b"/", target].concat());
        if let Some(target) = &target {
            header.kind = Kind::HardLink { target };
        }
        sink.header(&header, profile)?;
        if let EntryKind::File { size, .. } = node.kind {
            let physical = node.below(&entry.physical);
            let file = open_nofollow(&physical).map_err(LayerError::from)?;
            let contents = archive.sink().contents(size);
            match target {
                Some(_) => take_in(&file, &physical, size, contents)?,
                None => {
                    sink.copy(&file, &physical, size, contents)?;
                    sink.zeros(padding(size))?;
                }
            }
        }
        archive.end(&node);
    }
    let archive = archive.finish().map_err(LayerError::from)?;
    let Some(hash) = archive.hasher.map(Hasher::digest) else {
        return Ok(());
    };
    if (hash, archive.size) == (entry.nar_hash, entry.nar_size) {
        return Ok(());
    }
    Err(LayerError::Changed {
        path: Box::new(entry.logical.clone()),
        expected: entry.nar_hash,
        actual: hash,
        expected_size: entry.nar_size,
        actual_size: archive.size,
    }
    .into())
}

/// Has an archive's hash take in the `size` bytes of a file that is in the tar by another name.
fn take_in(mut file: &File, path: &Path, size: u64, archive: Option<&mut Hasher>) -> Result<(), LayerError> {
    let Some(archive) = archive else { return Ok(()) };
    let mut buffer = vec![0; 128 << 10];
    let mut left = size;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = file.read(&mut buffer[..most]).context("read", path)?;
        if count == 0 {
            return Err(LayerError::Shrunk { path: path.to_owned() });
        }
        archive.update(&buffer[..count]);
        left -= count as u64;
    }
    Ok(())
}

fn tree(sink: &mut dyn TarSink, tree: &Tree, profile: TarProfile) -> Result<(), PackError> {
    for (path, entry) in tree.iter() {
        sink.header(&tree::header(path, entry), profile)?;
        let TreeEntry::File { content, .. } = entry else {
            continue;
        };
        match content {
            FileContent::Bytes(bytes) => sink.write(bytes)?,
            FileContent::Path { physical, size, .. } => {
                let file = File::open(physical)
                    .context("open", physical)
                    .map_err(LayerError::from)?;
                let actual = file
                    .metadata()
                    .context("read", physical)
                    .map_err(LayerError::from)?
                    .len();
                if actual != *size {
                    return Err(LayerError::Size {
                        path: physical.clone(),
                        expected: *size,
                        actual,
                    }
                    .into());
                }
                sink.copy(&file, physical, *size, None)?;
            }
        }
        sink.zeros(padding(content.size()))?;
    }
    Ok(())
}

/// The header of a node of the store path at `root` in the layer; `path` is room for its path.
fn header<'a>(node: &'a nar::Entry, root: &[u8], path: &'a mut Vec<u8>, attributes: &[Attribute]) -> Entry<'a> {
    path.extend_from_slice(root);
    if !node.path.is_empty() {
        path.push(b'/');
        path.extend_from_slice(&node.path);
    }
    let found = attributes.binary_search_by(|attribute| attribute.path.cmp(&node.path));
    let usual = Attribute::default();
    let attribute = found.map_or(&usual, |index| &attributes[index]);
    let (kind, mode) = match &node.kind {
        EntryKind::Directory => (Kind::Directory, 0o555),
        EntryKind::File { executable, size } => (Kind::File { size: *size }, if *executable { 0o555 } else { 0o444 }),
        EntryKind::Symlink { target } => (Kind::Symlink { target }, 0o777),
    };
    Entry {
        path,
        kind,
        mode: attribute.mode.unwrap_or(mode),
        uid: attribute.uid,
        gid: attribute.gid,
        capabilities: attribute.capabilities,
    }
}

pub(super) fn open_nofollow(path: &Path) -> Result<File, PathError> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .map(File::from)
        .map_err(std::io::Error::from)
        .context("open", path)
}

/// Hash, where it is wanted, and size of a canonical archive.
struct ArchiveHash {
    hasher: Option<Hasher>,
    size: u64,
}

impl ArchiveHash {
    /// What takes in the `size` bytes that come next.
    fn contents(&mut self, size: u64) -> Option<&mut Hasher> {
        self.size += size;
        self.hasher.as_mut()
    }
}

impl Write for ArchiveHash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(hasher) = self.contents(bytes.len() as u64) {
            hasher.update(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
