//! The *image cache* keeps how images were cut into layers, so that an unchanged image is not laid out again.
//!
//! Invariant: a record is found by a key that covers all that a layout depends on, and is believed only after its
//! checksum was verified; a damaged one is as good as a missing one. What is kept is never a digest: config and
//! manifest are made anew from the layers each time, so that the cache can cost time and nothing else.
//!
//! Together with the layer cache this makes a second build open no file of any store path: the key is made of hashes
//! that the recipe brings (and of the spec's own `files`, which are read), the record says what each layer holds,
//! and the layer cache knows the packed bytes of that.
//!
//! `DIR/ab/cdef…` holds one line with a SHA-256 and the record (JSON) that it is of.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::cut::Cut;
use super::recipe::Recipe;
use crate::capability::FileCapabilities;
use crate::digest::Digest;
use crate::fsio::{self, AtomicFile, IoContext, PathError};
use crate::layer::{Attribute, FileContent, LayerContent, LayerInput, StoreEntry, Tree, TreeEntry};
use crate::oci::canonical_json;

/// A larger record is taken for damage: an image of a million files has one of about 200 MB.
const RECORD_SIZE_MAX: u64 = 512 << 20;

/// Number of the rules by which images are laid out and cut, and of the record's form.
pub(super) const VERSION: u32 = 6;

/// A directory of records.
#[derive(Debug, Clone)]
pub struct ImageCache {
    dir: PathBuf,
}

impl ImageCache {
    /// Uses the cache in `dir`, creating it where it is missing. Removing any file of it at any time is harmless.
    pub fn open(dir: &Path) -> Result<Self, PathError> {
        fsio::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The layers of an image, if they are known. No store path is looked at.
    pub(super) fn get(&self, key: &Digest, recipe: &Recipe) -> Option<Vec<Cut>> {
        let path = self.path(key);
        let bytes = fsio::read_limited(&path, RECORD_SIZE_MAX).ok()?;
        fsio::note_use(&path);
        let newline = bytes.iter().position(|&byte| byte == b'\n')?;
        let (line, json) = (std::str::from_utf8(&bytes[..newline]).ok()?, &bytes[newline + 1..]);
        if Digest::from_hex(line).ok()? != Digest::of(json) {
            return None;
        }
        let record: Vec<CutRecord> = serde_json::from_slice(json).ok()?;
        record.into_iter().map(|layer| layer.into_cut(recipe)).collect()
    }

    /// Keeps the record of an image's layers.
    pub(super) fn put(&self, key: &Digest, record: &[u8]) -> Result<(), PathError> {
        let path = self.path(key);
        if let Some(parent) = path.parent() {
            fsio::create_dir_all(parent)?;
        }
        let mut file = AtomicFile::create(&path)?;
        let line = format!("{}\n", Digest::of(record).hex());
        file.write_all(line.as_bytes()).context("write", &path)?;
        file.write_all(record).context("write", &path)?;
        file.publish_unsynced()
    }

    /// Forgets a record: the layer cache may hold something else under the names in it.
    pub(super) fn remove(&self, key: &Digest) {
        // Where nothing can be removed nothing could be written either, and the record is not ours to mend.
        let _ = std::fs::remove_file(self.path(key));
    }

    fn path(&self, key: &Digest) -> PathBuf {
        let hex = key.hex();
        self.dir.join(&hex[..2]).join(&hex[2..])
    }
}

/// The record of an image's layers; none for an image with a name that is no UTF-8.
pub(super) fn record(cuts: &[Cut], recipe: &Recipe) -> Option<Vec<u8>> {
    let closure = recipe.members().enumerate();
    let indices = closure
        .map(|(index, member)| (member.logical.as_str(), index))
        .collect();
    let layers = cuts.iter().map(|cut| CutRecord::of(cut, &indices));
    Some(canonical_json(&layers.collect::<Option<Vec<_>>>()?))
}

/// A layer of a record.
#[derive(Debug, Serialize, Deserialize)]
struct CutRecord {
    comment: String,
    packages: Vec<String>,
    content: ContentRecord,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ContentRecord {
    /// Indices into the recipe's members, with what is not usual in it.
    Store(Vec<(usize, Vec<AttributeRecord>)>),
    /// Path and entry, parents before what is below them.
    Tree(Vec<(String, EntryRecord)>),
}

/// Path, mode, owner, group, and capabilities in hexadecimal digits.
#[derive(Debug, Serialize, Deserialize)]
struct AttributeRecord(String, Option<u32>, u32, u32, Option<String>);

impl AttributeRecord {
    fn of(attribute: &Attribute) -> Option<Self> {
        let Attribute {
            path,
            mode,
            uid,
            gid,
            capabilities,
        } = attribute;
        let capabilities = capabilities.map(FileCapabilities::to_hex);
        Some(Self(text(path)?, *mode, *uid, *gid, capabilities))
    }

    fn into_attribute(self) -> Attribute {
        let Self(path, mode, uid, gid, capabilities) = self;
        Attribute {
            path: path.into_bytes(),
            mode,
            uid,
            gid,
            capabilities: capabilities.as_deref().and_then(FileCapabilities::from_hex),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct EntryRecord {
    mode: u32,
    uid: u32,
    gid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    capabilities: Option<String>,
    kind: KindRecord,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum KindRecord {
    Directory,
    Symlink(String),
    HardLink(String),
    Text(String),
    /// Bytes that are no text, in base 64.
    Bytes(String),
    File {
        physical: PathBuf,
        size: u64,
        identity: String,
    },
}

impl CutRecord {
    fn of(cut: &Cut, indices: &BTreeMap<&str, usize>) -> Option<Self> {
        let content = match &cut.input.content {
            LayerContent::StorePaths(paths) => {
                let index = |path: &StoreEntry| {
                    let attributes = path.attributes.iter().map(AttributeRecord::of);
                    Some((*indices.get(path.logical.as_str())?, attributes.collect::<Option<_>>()?))
                };
                ContentRecord::Store(paths.iter().map(index).collect::<Option<_>>()?)
            }
            LayerContent::Tree(tree) => {
                let entries = tree
                    .iter()
                    .map(|(path, entry)| Some((text(path)?, EntryRecord::of(entry)?)));
                ContentRecord::Tree(entries.collect::<Option<_>>()?)
            }
        };
        Some(Self {
            comment: cut.input.comment.clone(),
            packages: cut.packages.clone(),
            content,
        })
    }

    fn into_cut(self, recipe: &Recipe) -> Option<Cut> {
        let content = match self.content {
            ContentRecord::Store(indices) => {
                let member = |(index, attributes): (usize, Vec<AttributeRecord>)| {
                    let attributes = attributes.into_iter().map(AttributeRecord::into_attribute);
                    Some(super::cut::store_entry(recipe.member(index)?, attributes.collect()))
                };
                LayerContent::StorePaths(indices.into_iter().map(member).collect::<Option<_>>()?)
            }
            ContentRecord::Tree(entries) => {
                let mut tree = Tree::new();
                for (path, entry) in entries {
                    tree.insert(path.as_bytes(), entry.into_entry()).ok()?;
                }
                LayerContent::Tree(tree)
            }
        };
        Some(Cut {
            input: LayerInput {
                content,
                comment: self.comment,
            },
            packages: self.packages,
        })
    }
}

impl EntryRecord {
    fn of(entry: &TreeEntry) -> Option<Self> {
        let (mode, uid, gid, capabilities, kind) = match entry {
            TreeEntry::Directory { mode, uid, gid } => (*mode, *uid, *gid, None, KindRecord::Directory),
            TreeEntry::Symlink { target, uid, gid } => (0, *uid, *gid, None, KindRecord::Symlink(text(target)?)),
            TreeEntry::HardLink {
                target,
                mode,
                uid,
                gid,
                capabilities,
            } => (*mode, *uid, *gid, *capabilities, KindRecord::HardLink(text(target)?)),
            TreeEntry::File {
                content,
                mode,
                uid,
                gid,
                capabilities,
            } => (*mode, *uid, *gid, *capabilities, KindRecord::of(content)?),
        };
        Some(Self {
            mode,
            uid,
            gid,
            capabilities: capabilities.map(FileCapabilities::to_hex),
            kind,
        })
    }

    fn into_entry(self) -> TreeEntry {
        let Self {
            mode,
            uid,
            gid,
            capabilities,
            kind,
        } = self;
        let content = match kind {
            KindRecord::Directory => return TreeEntry::Directory { mode, uid, gid },
            KindRecord::Symlink(target) => {
                return TreeEntry::Symlink {
                    target: target.into_bytes(),
                    uid,
                    gid,
                };
            }
            KindRecord::HardLink(target) => {
                return TreeEntry::HardLink {
                    target: target.into_bytes(),
                    mode,
                    uid,
                    gid,
                    capabilities: capabilities.as_deref().and_then(FileCapabilities::from_hex),
                };
            }
            KindRecord::Text(text) => FileContent::Bytes(text.into_bytes().into()),
            // The record's checksum was right: it is what was written.
            KindRecord::Bytes(text) => FileContent::Bytes(STANDARD.decode(text).unwrap_or_default().into()),
            KindRecord::File {
                physical,
                size,
                identity,
            } => FileContent::Path {
                physical,
                size,
                identity,
            },
        };
        TreeEntry::File {
            content,
            mode,
            uid,
            gid,
            capabilities: capabilities.as_deref().and_then(FileCapabilities::from_hex),
        }
    }
}

impl KindRecord {
    fn of(content: &FileContent) -> Option<Self> {
        Some(match content {
            FileContent::Bytes(bytes) => match text(bytes) {
                Some(text) => Self::Text(text),
                None => Self::Bytes(STANDARD.encode(bytes)),
            },
            FileContent::Path {
                physical,
                size,
                identity,
            } => Self::File {
                physical: physical.to_str()?.into(),
                size: *size,
                identity: identity.clone(),
            },
        })
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}
