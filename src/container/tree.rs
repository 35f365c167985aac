//! An image's *root on disk*, kept as long as it is used: its layers' files, owned by whoever runs layerize, and in an attribute
//! of each whose they are.
//!
//! Invariant: a root appears under its name whole or not at all, and is closed to other users. It is written by a plan in
//! which all that has something below it is a directory, links last; nothing goes through a link of the image, no device is
//! made, and no file lends its owner's rights.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, utimensat};

use super::ContainerError;
use super::flat::{Body, ContentKey, Flat, Node};
use crate::archive::compression::Decompressor;
use crate::archive::tar::{Streamed, TarPolicy, TarReader};
use crate::digest::Digest;
use crate::fsio::{self, Disposable, FileLock, IoContext, LockKind, PathError, create_dir_all, remove_tree};
use crate::image::ImageLayer;
use crate::sandbox::{Identity, OWNER_ATTRIBUTE, OwnerNote};
use crate::transport;

/// Goes into the name of each root: one that was written by other rules is not used.
const FORMAT: u32 = 1;

/// Name of the tree in a root's directory.
const TREE: &str = "tree";

/// Largest file of accounts that is read.
const ACCOUNTS_MAX: u64 = 1 << 20;

/// Most roots that are kept.
const KEPT_MAX: usize = 8;

/// The roots that are kept.
#[derive(Debug, Clone)]
pub struct Roots {
    dir: PathBuf,
}

/// A root that stays as long as this lives.
#[derive(Debug)]
pub struct ImageRoot {
    pub(super) path: PathBuf,
    /// Device nodes that were left out, when it was made just now.
    pub devices: Vec<String>,
    _lock: FileLock,
}

type LayerTar = TarReader<Streamed<Decompressor<File>>>;

impl Roots {
    /// Those in `dir`, which is made where it is missing.
    pub fn open(dir: &Path) -> Result<Self, ContainerError> {
        create_dir_all(dir)?;
        // What is in there has the modes that the image gives it.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).context("close to others", dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The root that these layers make, as a container of this user needs it.
    pub fn of(&self, layers: &[ImageLayer], user: &Identity) -> Result<ImageRoot, ContainerError> {
        let name = name_of(layers, user);
        let (path, lock_file) = (self.dir.join(&name), self.dir.join(format!("{name}.lock")));
        let mut devices = Vec::new();
        loop {
            let lock = FileLock::acquire(&lock_file, LockKind::Shared)?;
            if path.is_dir() {
                // When it was used last.
                #[expect(clippy::disallowed_methods, reason = "it decides what is thrown away first")]
                let now = SystemTime::now();
                lock.file().set_modified(now).context("set the time of", &lock_file)?;
                return Ok(ImageRoot {
                    path: path.join(TREE),
                    devices,
                    _lock: lock,
                });
            }
            drop(lock);
            let _lock = FileLock::acquire(&lock_file, LockKind::Exclusive)?;
            if !path.is_dir() {
                self.remove_oldest(&name)?;
                devices = self.make(layers, user, &path)?;
            }
        }
    }

    /// The texts of the accounts in an image, `/etc/passwd` and `/etc/group`; empty where it has none. They are kept: for whom
    /// a root is to be is known by them.
    pub(super) fn accounts(&self, layers: &[ImageLayer]) -> Result<(String, String), ContainerError> {
        let file = self
            .dir
            .join(format!("{}.accounts", name_of(layers, &Identity::default())));
        let kept = fsio::read_limited(&file, 2 * ACCOUNTS_MAX).ok();
        if let Some(kept) = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            return Ok(kept);
        }
        let mut read = transport::read_files(layers, &["etc/passwd", "etc/group"], ACCOUNTS_MAX)?;
        let mut text = |path: &str| String::from_utf8_lossy(&read.remove(path).unwrap_or_default()).into_owned();
        let accounts = (text("etc/passwd"), text("etc/group"));
        let bytes = serde_json::to_vec(&accounts).unwrap_or_default();
        fsio::write_atomic(&file, &bytes)?;
        Ok(accounts)
    }

    fn make(&self, layers: &[ImageLayer], user: &Identity, path: &Path) -> Result<Vec<String>, ContainerError> {
        // Nobody else makes it: its lock is held.
        let work = path.with_extension("new");
        remove_tree(&work)?;
        let made = work.join("made");
        create_dir_all(&made)?;
        let unpacked = Unpacking::plan(layers, &work).and_then(|unpacking| {
            // A directory that may not be written to cannot be renamed.
            unpacking.write(&made.join(TREE), user)?;
            fs::rename(&made, path).context("rename a root to", path)?;
            Ok(unpacking.flat.devices)
        });
        remove_tree(&work)?;
        unpacked
    }

    /// Removes the roots that nobody uses and that were used longest ago, until there is room for one more.
    fn remove_oldest(&self, made: &str) -> Result<(), ContainerError> {
        let mut kept: Vec<(SystemTime, PathBuf)> = Self::kept(&self.dir)?.into_iter().collect();
        kept.retain(|(_, path)| *path != self.dir.join(made));
        kept.sort();
        let surplus = (kept.len() + 1).saturating_sub(KEPT_MAX);
        for (used, path) in kept.into_iter().take(surplus) {
            remove_unused(&path, used)?;
        }
        Ok(())
    }

    /// The roots in `dir`, by when they were used last.
    fn kept(dir: &Path) -> Result<Vec<(SystemTime, PathBuf)>, PathError> {
        let names = fsio::cached_names(dir)?.into_iter();
        let kept = names.filter_map(|name| {
            let path = dir.join(name.strip_suffix(".lock")?);
            Some((fsio::last_use(&dir.join(&name))?, path))
        });
        Ok(kept.collect())
    }

    /// The roots that are kept in `dir`; `go_on` ends the list.
    pub fn stored(dir: &Path, go_on: &dyn Fn() -> bool) -> Result<Vec<Disposable>, PathError> {
        let kept = Self::kept(dir)?.into_iter();
        let kept =
            kept.filter_map(|(used, path)| fsio::disposable_tree(&path, used, &path.with_extension("size"), go_on));
        Ok(kept.collect())
    }

    /// Removes a root, unless somebody uses it or did since it was listed; true where it is gone.
    pub fn remove(root: &Disposable) -> Result<bool, PathError> {
        remove_unused(&root.path, root.used)
    }
}

fn remove_unused(root: &Path, used: SystemTime) -> Result<bool, PathError> {
    let lock_file = root.with_extension("lock");
    if fsio::last_use(&lock_file) != Some(used) {
        return Ok(false);
    }
    let Some(_lock) = FileLock::try_acquire(&lock_file, LockKind::Exclusive)? else {
        return Ok(false);
    };
    let is_unused = fsio::last_use(&lock_file) == Some(used);
    if is_unused {
        for end in ["", "new", "size", "lock"] {
            remove_tree(&root.with_extension(end))?;
        }
    }
    Ok(is_unused)
}

/// What names a root: all that decides what is in it.
fn name_of(layers: &[ImageLayer], user: &Identity) -> String {
    let layers: Vec<String> = layers
        .iter()
        .map(|layer| {
            layer
                .diff_id
                .map_or_else(|| layer.digest().to_string(), |id| id.to_string())
        })
        .collect();
    let user = match user.uid {
        // Root may do everything in any group.
        0 => Identity::default(),
        _ => user.clone(),
    };
    let text = format!("{FORMAT} {user:?} {}", layers.join(" "));
    Digest::of(text.as_bytes()).hex()[..32].to_owned()
}

/// Layers whose bytes are at hand, and what they make.
struct Unpacking<'a> {
    layers: Vec<(&'a ImageLayer, PathBuf)>,
    flat: Flat,
}

impl<'a> Unpacking<'a> {
    /// Verifies each layer, whose bytes are put into `work`, and finds what they make.
    fn plan(layers: &'a [ImageLayer], work: &Path) -> Result<Self, ContainerError> {
        let mut all = Self {
            layers: Vec::new(),
            flat: Flat::default(),
        };
        for (index, layer) in layers.iter().enumerate() {
            let digest = layer.digest();
            if layer.is_absent() {
                let digest = digest.to_string();
                return Err(ContainerError::Elsewhere { digest });
            }
            let path = work.join(format!("layer-{index}"));
            let file = File::create_new(&path).context("create", &path)?;
            let copied = layer.content.copy_to(digest, layer.size(), &file, 0, &path);
            copied.map_err(|source| ContainerError::Layer {
                digest: digest.to_string(),
                source,
            })?;
            all.layers.push((layer, path));
            let mut entries = Vec::new();
            all.each(index, |_, _, entry| {
                entries.push(entry);
                Ok(())
            })?;
            all.flat.apply(index, entries)?;
        }
        Ok(all)
    }

    /// Calls `each` with every entry of a layer, in its order, and with the tar that stands at its content.
    fn each(
        &self,
        index: usize,
        mut each: impl FnMut(usize, &mut LayerTar, crate::archive::tar::Entry) -> Result<(), ContainerError>,
    ) -> Result<(), ContainerError> {
        let (layer, path) = &self.layers[index];
        let digest = || layer.digest().to_string();
        let file = File::open(path).context("open", path)?;
        let unpacker = Decompressor::new(file).map_err(|source| ContainerError::Unpack {
            digest: digest(),
            source,
        })?;
        let mut tar = TarReader::new(Streamed(unpacker), TarPolicy::LAYER);
        let mut number = 0;
        loop {
            let entry = tar.next_entry().map_err(|source| ContainerError::Tar {
                digest: digest(),
                source,
            })?;
            let Some(entry) = entry else { return Ok(()) };
            each(number, &mut tar, entry)?;
            number += 1;
        }
    }

    /// Writes what the layers make to `root`, which must not exist.
    fn write(&self, root: &Path, user: &Identity) -> Result<(), ContainerError> {
        make_private_dir(root)?;
        let mut places: BTreeMap<ContentKey, Vec<&[u8]>> = BTreeMap::new();
        for (path, node) in self.flat.nodes.iter().filter(|(path, _)| !path.is_empty()) {
            match &node.body {
                Body::Directory => make_private_dir(&at(root, path))?,
                Body::File(key) => places.entry(*key).or_default().push(path),
                Body::Symlink(_) | Body::Fifo => {}
            }
        }
        for index in 0..self.layers.len() {
            self.each(index, |number, tar, _| match places.get(&(index, number)) {
                Some(paths) => self.write_file(root, paths, tar, user),
                None => Ok(()),
            })?;
        }
        for (path, node) in &self.flat.nodes {
            let place = at(root, path);
            match &node.body {
                Body::Symlink(target) => {
                    symlink(OsStr::from_bytes(target), &place).context("create the link", &place)?
                }
                Body::Fifo => make_fifo(&place, node)?,
                Body::Directory | Body::File(_) => continue,
            }
            set_time(&place, node)?;
        }
        // What is in a directory changes its time, and a mode may forbid to enter it.
        for (path, node) in self.flat.nodes.iter().rev().filter(|(path, _)| !path.is_empty()) {
            if node.body == Body::Directory {
                settle(&at(root, path), node, user)?;
            }
        }
        Ok(settle(root, &self.flat.root(), user)?)
    }

    /// Writes a file's content to its first path; the others are links to that.
    fn write_file(
        &self,
        root: &Path,
        paths: &[&[u8]],
        tar: &mut LayerTar,
        user: &Identity,
    ) -> Result<(), ContainerError> {
        let Some((first, others)) = paths.split_first() else {
            return Ok(());
        };
        let place = at(root, first);
        let create = File::options().write(true).create_new(true).mode(0o600).open(&place);
        let mut file = create.context("create", &place)?;
        io::copy(tar, &mut file).context("write", &place)?;
        for other in others {
            let link = at(root, other);
            fs::hard_link(&place, &link).context("create the hard link", &link)?;
        }
        Ok(settle(&place, &self.flat.nodes[*first], user)?)
    }
}

fn at(root: &Path, path: &[u8]) -> PathBuf {
    match path.is_empty() {
        true => root.to_owned(),
        false => root.join(OsStr::from_bytes(path)),
    }
}

fn make_private_dir(path: &Path) -> Result<(), PathError> {
    fs::create_dir(path).context("create directory", path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).context("set the mode of", path)
}

fn make_fifo(path: &Path, node: &Node) -> Result<(), PathError> {
    let mode = nix::sys::stat::Mode::from_bits_truncate(node.mode & 0o777);
    nix::unistd::mkfifo(path, mode).context("create the pipe", path)
}

/// Gives a file or directory its note, its mode and its time.
fn settle(path: &Path, node: &Node, user: &Identity) -> Result<(), PathError> {
    note(path, node.uid, node.gid, node.mode, user)?;
    set_time(path, node)
}

/// Notes whose a file or directory is, and gives it the mode that this user's containers need.
pub(super) fn note(path: &Path, uid: u32, gid: u32, mode: u32, user: &Identity) -> Result<(), PathError> {
    let text = OwnerNote {
        uid,
        gid,
        mode: Some(mode),
    }
    .text();
    // For an attribute a file must be one that can be written to.
    let file = File::open(path).context("open", path)?;
    rustix::fs::fsetxattr(file.as_fd(), OWNER_ATTRIBUTE, text.as_bytes(), XattrFlags::empty())
        .map_err(io::Error::from)
        .context("note the owner of", path)?;
    let mode = fs::Permissions::from_mode(user.own_mode(uid, gid, mode));
    file.set_permissions(mode).context("set the mode of", path)
}

fn set_time(path: &Path, node: &Node) -> Result<(), PathError> {
    let (tv_sec, nanoseconds) = node.mtime;
    let time = Timespec {
        tv_sec,
        tv_nsec: nanoseconds.into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(io::Error::from)
        .context("set the time of", path)
}
