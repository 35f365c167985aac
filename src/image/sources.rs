//! *Sources* are the spec's `files`, read from disk once: what is to be put where, with the digest of every byte.
//!
//! Invariant: independent of the machine: names sorted by bytes, modes reduced to the executable bit, owners, times and
//! everything else on disk ignored.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use super::certificates;
use super::error::ImageError;
use super::filesystem::{Content, push, relative};
use super::recipe::Recipe;
use crate::capability;
use crate::digest::{Digest, Hasher};
use crate::fsio::{self, IoContext, PathError};
use crate::spec::{self, ImageFileKind};

/// Most directories in one another in a source; a deeper tree is most likely a loop of mounts.
const DEPTH_MAX: usize = 128;

/// One of the spec's `files` with what it brings.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// Where it goes, relative to `/`.
    pub path: Vec<u8>,
    /// What it brings: itself first, by the empty path, then what is below it.
    pub entries: Vec<SourceEntry>,
    pub mode: Option<u32>,
    pub owner: Option<String>,
    pub group: Option<String>,
}

/// A file, directory or symlink of a source.
#[derive(Debug, Clone)]
pub(super) struct SourceEntry {
    /// Relative to the source's own path.
    pub path: Vec<u8>,
    pub kind: SourceKind,
}

#[derive(Debug, Clone)]
pub(super) enum SourceKind {
    Directory,
    File {
        executable: bool,
        content: Content,
        digest: Digest,
        /// Its capabilities on disk, which an image has only where the spec says so.
        capability: Option<Vec<u8>>,
    },
    Symlink(Vec<u8>),
}

/// An entry as the key of the image cache has it.
#[derive(Debug, Serialize)]
pub(super) struct SourceKey<'a> {
    path: String,
    directory: bool,
    executable: bool,
    digest: Option<&'a Digest>,
    symlink: Option<String>,
}

impl SourceEntry {
    /// All that an image depends on. Paths are printed with every unusual byte escaped, so that no two are alike.
    pub fn key(&self) -> SourceKey<'_> {
        let (executable, digest, symlink) = match &self.kind {
            SourceKind::Directory => (false, None, None),
            SourceKind::File { executable, digest, .. } => (*executable, Some(digest), None),
            SourceKind::Symlink(target) => (false, None, Some(target.escape_ascii().to_string())),
        };
        SourceKey {
            path: self.path.escape_ascii().to_string(),
            directory: matches!(self.kind, SourceKind::Directory),
            executable,
            digest,
            symlink,
        }
    }
}

/// Reads all of an image's `files`.
pub(super) fn read(image: &spec::Image) -> Result<Vec<Source>, ImageError> {
    let mut sources = Vec::new();
    for (path, file) in &image.files {
        let place = normal_path("files", path)?;
        let file = &file.value;
        let entries = match &file.kind {
            ImageFileKind::Source(source) => read_tree(&image.dir.join(source))?,
            kind => vec![SourceEntry {
                path: Vec::new(),
                kind: from_spec(kind),
            }],
        };
        if place.is_empty() && !matches!(entries.first().map(|entry| &entry.kind), Some(SourceKind::Directory)) {
            return Err(ImageError::ReplacesDirectory { path: path.clone() });
        }
        if let Some(mode) = file.mode.filter(|&mode| mode > 0o7777) {
            return Err(ImageError::Mode {
                path: path.clone(),
                mode,
            });
        }
        sources.push(Source {
            path: place,
            entries,
            mode: file.mode,
            owner: file.owner.clone(),
            group: file.group.clone(),
        });
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    if let Some(pair) = sources.windows(2).find(|pair| pair[0].path == pair[1].path) {
        return Err(ImageError::SamePath {
            path: super::filesystem::shown(&pair[0].path),
        });
    }
    Ok(sources)
}

/// The local files that an image takes in, its `files` and `certificates`: digest by path in the image.
pub fn local_files(recipe: &Recipe) -> BTreeMap<String, Digest> {
    let own = recipe
        .spec
        .certificates
        .iter()
        .flat_map(|certificates| &certificates.own);
    let certificate = |(name, own): (&String, &spec::OwnCertificate)| {
        let digest = Digest::of(own.certificate.pem().as_bytes());
        (format!("/{}/{name}.crt", certificates::LOCAL), digest)
    };
    let mut files: BTreeMap<String, Digest> = own.map(certificate).collect();
    for source in &recipe.files {
        for entry in &source.entries {
            if let SourceKind::File { digest, .. } = &entry.kind {
                let mut path = source.path.clone();
                if !entry.path.is_empty() {
                    push(&mut path, &entry.path);
                }
                files.insert(
                    format!("/{}", super::filesystem::shown(&path).trim_start_matches('/')),
                    *digest,
                );
            }
        }
    }
    files
}

/// The files that have capabilities on disk, and which, by path in the image.
pub(super) fn capabilities(recipe: &Recipe) -> BTreeMap<String, String> {
    let mut capable = BTreeMap::new();
    for source in &recipe.files {
        for entry in &source.entries {
            if let SourceKind::File {
                capability: Some(value),
                ..
            } = &entry.kind
            {
                let mut path = source.path.clone();
                if !entry.path.is_empty() {
                    push(&mut path, &entry.path);
                }
                capable.insert(super::filesystem::shown(&path), capability::shown(value));
            }
        }
    }
    capable
}

/// An absolute path of the spec without `.`, `..`, doubled or trailing slashes, as a path relative to `/`.
pub(super) fn normal_path(field: &'static str, path: &str) -> Result<Vec<u8>, ImageError> {
    let parts = || path.split('/').filter(|part| !part.is_empty());
    if !path.starts_with('/') || path.contains('\0') || parts().any(|part| matches!(part, "." | "..")) {
        return Err(ImageError::Path {
            field,
            path: path.to_owned(),
        });
    }
    Ok(relative(parts().collect::<Vec<_>>().join("/").as_bytes()).to_vec())
}

fn from_spec(kind: &ImageFileKind) -> SourceKind {
    match kind {
        ImageFileKind::Text(text) => SourceKind::File {
            executable: false,
            content: Content::Bytes(text.as_bytes().into()),
            digest: Digest::of(text.as_bytes()),
            capability: None,
        },
        ImageFileKind::Symlink(target) => SourceKind::Symlink(target.as_bytes().to_vec()),
        ImageFileKind::Directory | ImageFileKind::Source(_) => SourceKind::Directory,
    }
}

/// Reads what is at `physical`. A symlink is followed where the spec names it, and kept below.
fn read_tree(physical: &Path) -> Result<Vec<SourceEntry>, ImageError> {
    let mut entries = Vec::new();
    for entry in fsio::walk(physical) {
        let entry = entry?;
        let path = entry.path();
        let metadata = match entry.depth() {
            0 => fs::metadata(path),
            _ => fs::symlink_metadata(path),
        }
        .context("read", path)?;
        let kind = if metadata.is_dir() && entry.depth() < DEPTH_MAX {
            SourceKind::Directory
        } else if metadata.is_symlink() {
            let target = fs::read_link(path).context("read the symlink", path)?;
            SourceKind::Symlink(target.as_os_str().as_bytes().to_vec())
        } else if metadata.is_file() {
            read_file(path)?
        } else {
            return Err(ImageError::Special { path: path.to_owned() });
        };
        let below = path.strip_prefix(physical).unwrap_or(path);
        entries.push(SourceEntry {
            path: below.as_os_str().as_bytes().to_vec(),
            kind,
        });
    }
    Ok(entries)
}

fn read_file(physical: &Path) -> Result<SourceKind, PathError> {
    let mut file = File::open(physical).context("open", physical)?;
    let metadata = file.metadata().context("read", physical)?;
    let (digest, size) = hash(&mut file).context("read", physical)?;
    // The layer cache keeps packed bytes by this text. The file may be edited between this reading and the packing;
    // with its time in the text, what was packed then is not taken for this content later.
    let identity = format!(
        "{digest} {}.{} {}",
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ino()
    );
    Ok(SourceKind::File {
        executable: metadata.mode() & 0o111 != 0,
        content: Content::Disk {
            physical: physical.to_owned(),
            size,
            identity,
        },
        digest,
        capability: capability::of_file(physical),
    })
}

fn hash(source: &mut dyn Read) -> io::Result<(Digest, u64)> {
    let (mut hasher, mut size, mut buffer) = (Hasher::new(), 0, vec![0; 256 << 10]);
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok((hasher.digest(), size)),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
