//! A *source* of tar bytes: a part of a layer, walked in the order of the tar dialect into a [`TarSink`].
//!
//! Invariant: a store path's tar is a function of its canonical archive (NAR): the same walk and the same read
//! that make the tar make the NAR's hash, which must be the recorded one. So the packed bytes of a store path
//! can be kept under its name and NAR hash.

use std::fs::{File, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use super::{Attribute, Halt, Part, StoreEntry};
use crate::archive::tar::{BLOCK, TRAILER, padding};
use crate::digest::{Digest, Hasher};
use crate::fsio::{self, IoContext, PathError};
use crate::layer::LayerError;
use crate::layer::profile::TarProfile;
use crate::layer::tar::{Entry, Kind};
use crate::layer::tree::{self, FileContent, Tree, TreeEntry};

/// Takes the bytes of a tar.
pub(super) trait TarSink {
    /// Takes the next bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Halt>;

    /// Takes `size` bytes of a file, and has `archive` take them in too; a shorter file is an error.
    fn copy(&mut self, file: &File, path: &Path, size: u64, archive: Option<&mut Hasher>) -> Result<(), Halt>;

    /// Is told that a store path comes next.
    fn reached(&mut self, tree: &Path);

    /// How many bytes it has taken.
    fn position(&self) -> u64;

    /// Takes NULs.
    fn zeros(&mut self, mut count: usize) -> Result<(), Halt> {
        const ZEROS: [u8; TRAILER] = [0; TRAILER];
        while count > 0 {
            let some = count.min(ZEROS.len());
            self.write(&ZEROS[..some])?;
            count -= some;
        }
        Ok(())
    }

    /// Takes an entry's header.
    fn header(&mut self, entry: &Entry<'_>, profile: TarProfile) -> Result<(), Halt> {
        let mut header = Vec::with_capacity(BLOCK);
        profile.append_header(&mut header, entry).map_err(LayerError::from)?;
        self.write(&header)
    }
}

/// Writes a part of a layer; a store path's archive hash is verified where `verify` says so.
pub(super) fn write_part(
    sink: &mut dyn TarSink,
    part: &Part<'_>,
    profile: TarProfile,
    verify: bool,
) -> Result<(), Halt> {
    match part {
        Part::Beginning => sink.write(&profile.beginning()),
        Part::Parents(paths) => parents(sink, paths, profile),
        Part::StorePath(_, entry) => store_path(sink, entry, profile, verify),
        Part::Tree(_, content) => tree(sink, content, profile),
        Part::Trailer => sink.zeros(profile.trailer(sink.position())),
    }
}

fn parents(sink: &mut dyn TarSink, paths: &[Vec<u8>], profile: TarProfile) -> Result<(), Halt> {
    for path in paths {
        let entry = Entry {
            path,
            kind: Kind::Directory,
            mode: tree::PARENT_MODE,
            uid: 0,
            gid: 0,
        };
        sink.header(&entry, profile)?;
    }
    Ok(())
}

fn store_path(sink: &mut dyn TarSink, entry: &StoreEntry, profile: TarProfile, verify: bool) -> Result<(), Halt> {
    sink.reached(&entry.physical);
    let mut walk = Walk {
        sink,
        profile,
        nar: Nar::new(verify),
        above: entry.logical.len(),
        attributes: &entry.attributes,
    };
    let root = entry.logical.trim_start_matches('/').as_bytes().to_vec();
    walk.node(&entry.physical, &root)?;
    let (hash, size) = walk.nar.finish();
    if !verify || (hash, size) == (entry.nar_hash, entry.nar_size) {
        return Ok(());
    }
    Err(LayerError::Changed {
        path: entry.logical.clone(),
        expected: entry.nar_hash,
        actual: hash,
        expected_size: entry.nar_size,
        actual_size: size,
    }
    .into())
}

fn tree(sink: &mut dyn TarSink, tree: &Tree, profile: TarProfile) -> Result<(), Halt> {
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

struct Walk<'s> {
    sink: &'s mut dyn TarSink,
    profile: TarProfile,
    nar: Nar,
    /// Length of what stands before the name of an entry in its path in the layer.
    above: usize,
    attributes: &'s [Attribute],
}

impl Walk<'_> {
    fn node(&mut self, physical: &Path, path: &[u8]) -> Result<(), Halt> {
        let metadata = std::fs::symlink_metadata(physical)
            .context("read", physical)
            .map_err(LayerError::from)?;
        self.nar.texts(&[b"(", b"type"]);
        if metadata.is_dir() {
            self.directory(physical, path)?;
        } else if metadata.is_file() {
            self.file(physical, path, &metadata)?;
        } else if metadata.is_symlink() {
            self.symlink(physical, path)?;
        } else {
            return Err(LayerError::Special {
                path: physical.to_owned(),
                kind: special_kind(&metadata),
            }
            .into());
        }
        self.nar.text(b")");
        Ok(())
    }

    fn directory(&mut self, physical: &Path, path: &[u8]) -> Result<(), Halt> {
        self.nar.text(b"directory");
        self.header(path, Kind::Directory, 0o555)?;
        for name in fsio::sorted_names(physical).map_err(LayerError::from)? {
            self.nar.texts(&[b"entry", b"(", b"name", name.as_bytes(), b"node"]);
            let below = [path, b"/", name.as_bytes()].concat();
            self.node(&physical.join(&name), &below)?;
            self.nar.text(b")");
        }
        Ok(())
    }

    fn file(&mut self, physical: &Path, path: &[u8], metadata: &Metadata) -> Result<(), Halt> {
        let executable = metadata.permissions().mode() & 0o100 != 0;
        let size = metadata.len();
        self.nar.text(b"regular");
        if executable {
            self.nar.texts(&[b"executable", b""]);
        }
        self.header(path, Kind::File { size }, if executable { 0o555 } else { 0o444 })?;
        let file = open_nofollow(physical).map_err(LayerError::from)?;
        self.nar.text(b"contents");
        self.nar.begin_contents(size);
        self.sink.copy(&file, physical, size, self.nar.contents(size))?;
        self.nar.end_contents(size);
        self.sink.zeros(padding(size))
    }

    fn symlink(&mut self, physical: &Path, path: &[u8]) -> Result<(), Halt> {
        let target = std::fs::read_link(physical)
            .context("read link", physical)
            .map_err(LayerError::from)?;
        let target = target.into_os_string().into_vec();
        self.nar.texts(&[b"symlink", b"target", &target]);
        self.header(path, Kind::Symlink { target: &target }, 0o777)
    }

    fn header(&mut self, path: &[u8], kind: Kind<'_>, mode: u32) -> Result<(), Halt> {
        let below = path.get(self.above..).unwrap_or_default();
        let found = self
            .attributes
            .binary_search_by(|attribute| attribute.path.as_slice().cmp(below));
        let usual = Attribute::default();
        let attribute = found.map_or(&usual, |index| &self.attributes[index]);
        let entry = Entry {
            path,
            kind,
            mode: attribute.mode.unwrap_or(mode),
            uid: attribute.uid,
            gid: attribute.gid,
        };
        self.sink.header(&entry, self.profile)
    }
}

fn open_nofollow(path: &Path) -> Result<File, PathError> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .map(File::from)
        .map_err(std::io::Error::from)
        .context("open", path)
}

fn special_kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_socket() {
        "a socket"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "of an unknown kind"
    }
}

/// The running hash of a canonical archive (Nix manual, "Nix Archive (NAR) format"): a sequence of strings, each
/// with its length before it and padded to eight bytes.
struct Nar {
    /// Whether it is wanted at all.
    hashes: bool,
    hasher: Hasher,
    size: u64,
    /// Short strings wait here, so that the hash takes them in together.
    pending: Vec<u8>,
}

impl Nar {
    fn new(hashes: bool) -> Self {
        let mut nar = Self {
            hashes,
            hasher: Hasher::new(),
            size: 0,
            pending: Vec::new(),
        };
        nar.text(b"nix-archive-1");
        nar
    }

    fn text(&mut self, text: &[u8]) {
        self.begin_contents(text.len() as u64);
        self.pending.extend_from_slice(text);
        self.size += text.len() as u64;
        self.end_contents(text.len() as u64);
    }

    fn texts(&mut self, texts: &[&[u8]]) {
        for text in texts {
            self.text(text);
        }
    }

    fn begin_contents(&mut self, size: u64) {
        self.pending.extend_from_slice(&size.to_le_bytes());
        self.size += 8;
    }

    /// What takes in the `size` bytes that come next.
    fn contents(&mut self, size: u64) -> Option<&mut Hasher> {
        self.flush();
        self.size += size;
        self.hashes.then_some(&mut self.hasher)
    }

    fn end_contents(&mut self, size: u64) {
        let padding = (8 - size % 8) % 8;
        self.pending.extend_from_slice(&[0; 8][..padding as usize]);
        self.size += padding;
    }

    fn flush(&mut self) {
        if self.hashes {
            self.hasher.update(&self.pending);
        }
        self.pending.clear();
    }

    fn finish(mut self) -> (Digest, u64) {
        self.flush();
        (self.hasher.digest(), self.size)
    }
}
