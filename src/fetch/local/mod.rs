//! *Local sources*: the part of the user's own files that a package is built from.
//!
//! Invariant: what is taken depends on the files below the source's path and the spec's filters alone: not on a
//! repository around it, not on git's configuration, not on what a build has left in ignored places.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

mod archive;
mod filter;
mod known;
#[cfg(test)]
mod tests;

use archive::{Entry, EntryKind};
use known::Known;

use super::FetchError;
use super::resolve::most_similar;
use crate::capability;
use crate::derive;
use crate::digest::Digest;
use crate::event::{Event, Reporter};
use crate::fsio::{self, IoContext, Stamp};
use crate::spec::{Package, Source};
use crate::store::Store;
use crate::store_path::{StoreDir, StorePath, content_addressed};

/// A package's `source = { path = … }`.
#[derive(Debug, Clone)]
pub struct LocalSource<'a> {
    /// The package, for messages.
    pub package: &'a str,
    /// Name part of the store path of a tree.
    pub tree_name: String,
    /// Name part of the store path of a single file.
    pub file_name: String,
    /// The directory that `path` is relative to.
    pub dir: &'a Path,
    /// The file or directory.
    pub path: &'a str,
    /// Gitignore-style patterns; where given, only what matches one is taken.
    pub include: &'a [String],
    /// Gitignore-style patterns of what is left out.
    pub exclude: &'a [String],
    /// Whether `.gitignore` files below the path are honoured.
    pub gitignore: bool,
}

impl<'a> LocalSource<'a> {
    /// The local source of `package`, if that is what it has.
    pub fn of(package: &'a Package) -> Option<Self> {
        match &package.source.as_ref()?.value {
            Source::Path {
                path,
                include,
                exclude,
                gitignore,
            } => Some(Self {
                package: &package.name.value.0,
                tree_name: derive::source_name(package, false),
                file_name: derive::source_name(package, true),
                dir: &package.dir,
                path,
                include,
                exclude,
                gitignore: *gitignore,
            }),
            _ => None,
        }
    }

    /// Where the files are; an error that helps where they are not.
    fn root(&self) -> Result<PathBuf, FetchError> {
        let root = self.dir.join(self.path);
        match fs::metadata(&root) {
            Ok(_) => Ok(root),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(FetchError::LocalMissing {
                    package: self.package.to_owned(),
                    path: self.path.to_owned(),
                    similar: similar_beside(&root, self.path),
                })
            }
            Err(error) => Err(error).context("read", &root)?,
        }
    }

    /// What the filters leave of it.
    #[expect(
        clippy::disallowed_methods,
        reason = "it decides whether a file is read again, and not what is in it"
    )]
    fn listing(&self) -> Result<Listing, FetchError> {
        let began = SystemTime::now();
        let root = self.root()?;
        let metadata = fs::metadata(&root).context("read", &root)?;
        if metadata.is_dir() {
            let (entries, stamps) = filter::walk(self, &root)?.into_iter().unzip();
            return Ok(Listing {
                root,
                entries,
                stamps,
                began,
            });
        }
        if !metadata.is_file() {
            return Err(self.special(&[], metadata.file_type()));
        }
        let kind = EntryKind::File {
            executable: metadata.permissions().mode() & 0o100 != 0,
            size: metadata.len(),
        };
        Ok(Listing {
            root,
            entries: vec![Entry { path: Vec::new(), kind }],
            stamps: vec![Stamp::of(&metadata)],
            began,
        })
    }

    /// Hash of the canonical archive (NAR) of what the filters leave, taken where it lies.
    pub fn nar_hash(&self) -> Result<Digest, FetchError> {
        let listing = self.listing()?;
        archive::hash(&listing.root, &listing.entries)
    }

    fn special(&self, path: &[u8], kind: fs::FileType) -> FetchError {
        use std::os::unix::fs::FileTypeExt;
        let kind = match kind {
            kind if kind.is_socket() => "a socket",
            kind if kind.is_fifo() => "a named pipe",
            _ => "a device",
        };
        let below = String::from_utf8_lossy(path);
        FetchError::LocalSpecial {
            package: self.package.to_owned(),
            path: Path::new(self.path).join(&*below).display().to_string(),
            kind,
        }
    }
}

/// What the filters leave of a source, of which no file was opened.
struct Listing {
    root: PathBuf,
    /// Directories before what is in them, names in byte order.
    entries: Vec<Entry>,
    /// Of each entry.
    stamps: Vec<Stamp>,
    /// When the first was looked at.
    began: SystemTime,
}

/// Copies a local file or tree to `dest`, which must not exist: what the filters leave of it, modes 0755 and 0644.
///
/// `.git` is always left out. A path is left out when `exclude` matches it (a later `!pattern` takes it back, also
/// from `.gitignore`), when a `.gitignore` at or below the source's path says so, or when `include` is given and
/// matches neither it nor a directory above it. A directory of which nothing is left is left out, one that is
/// empty on disk is not. Filters do not apply to a source that is a single file. A failure leaves nothing behind.
pub fn copy(source: &LocalSource<'_>, dest: &Path) -> Result<(), FetchError> {
    let listing = source.listing()?;
    copy_entries(&listing, dest)
}

/// Adds a local source to the store, under its content address; gives its path.
///
/// Nothing is copied where the store has it already: the filtered tree is hashed as it lies there, unless nobody changed it since
/// it was hashed before. Capabilities of files, which a tree of the store has no place for, are told.
pub fn add(store: &Store, source: &LocalSource<'_>, reporter: &dyn Reporter) -> Result<StorePath, FetchError> {
    let listing = source.listing()?;
    let known = Known::of(store, source, &listing);
    let hash = match known.hash() {
        Some(hash) => hash,
        None => hash(source, &listing, &known, reporter)?,
    };
    let is_file = listing
        .entries
        .iter()
        .any(|entry| entry.path.is_empty() && entry.kind != EntryKind::Directory);
    let name = if is_file { &source.file_name } else { &source.tree_name };
    let path = content_addressed(&StoreDir::layerize(), name, &hash, &Default::default(), false);
    let path = path.map_err(|error| FetchError::MalformedEntry {
        name: source.package.to_owned(),
        reason: error.to_string(),
    })?;
    if store.info(&path)?.is_some() {
        return Ok(path);
    }
    let stage = store.stage()?;
    let tree = stage.path().join("source");
    copy_entries(&listing, &tree)?;
    let added = store.add_leaf(name, &tree, None)?;
    // Another path than was computed only where a file changed in between; what was copied counts.
    Ok(added.path)
}

/// Reads a source for the hash of its archive, which is kept where it is all that there is to say of it.
fn hash(
    source: &LocalSource<'_>,
    listing: &Listing,
    known: &Known,
    reporter: &dyn Reporter,
) -> Result<Digest, FetchError> {
    let told = capability::not_kept(source.path, &capabilities(listing));
    let hash = archive::hash(&listing.root, &listing.entries)?;
    match told {
        Some(text) => reporter.report(Event::Warning { text }),
        None => known.keep(&hash),
    }
    Ok(hash)
}

/// Where the files and directories of a local source are, as [`copy`] would take them, directories before what is in them, and
/// what was seen of each.
pub fn stamps(source: &LocalSource<'_>) -> Result<Vec<(PathBuf, Stamp)>, FetchError> {
    let Listing {
        root, entries, stamps, ..
    } = source.listing()?;
    let paths = entries.iter().map(|entry| entry.below(&root));
    Ok(paths.zip(stamps).collect())
}

/// The files that have capabilities, and which.
fn capabilities(Listing { root, entries, .. }: &Listing) -> BTreeMap<String, String> {
    let files = entries
        .iter()
        .filter(|entry| matches!(entry.kind, EntryKind::File { .. }));
    let capable = files.filter_map(|entry| {
        let value = capability::of_file(&entry.below(root))?;
        let path = match entry.path.as_slice() {
            b"" => root.file_name().map(|name| name.to_string_lossy().into_owned())?,
            path => String::from_utf8_lossy(path).into_owned(),
        };
        Some((path, capability::shown(&value)))
    });
    capable.collect()
}

fn copy_entries(Listing { root, entries, .. }: &Listing, dest: &Path) -> Result<(), FetchError> {
    if fs::symlink_metadata(dest).is_ok() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists)).context("create", dest)?;
    }
    let copied = entries.iter().try_for_each(|entry| copy_entry(root, entry, dest));
    if copied.is_err() {
        // The first error is the one to be told.
        let _ = fsio::remove_tree(dest);
    }
    copied
}

fn copy_entry(root: &Path, entry: &Entry, dest: &Path) -> Result<(), FetchError> {
    let place = entry.below(dest);
    match &entry.kind {
        EntryKind::Directory => {
            fs::create_dir(&place).context("create directory", &place)?;
            fs::set_permissions(&place, Permissions::from_mode(0o755)).context("set the mode of", &place)?;
        }
        EntryKind::Symlink { target } => {
            use std::os::unix::ffi::OsStrExt;
            symlink(std::ffi::OsStr::from_bytes(target), &place).context("create the symlink", &place)?;
        }
        EntryKind::File { executable, .. } => {
            let source = entry.below(root);
            let mut from = File::open(&source).context("open", &source)?;
            let mut to = File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&place)
                .context("create", &place)?;
            io::copy(&mut from, &mut to).map_err(|error| fsio::copy_error(error, &source, &place))?;
            let mode = if *executable { 0o755 } else { 0o644 };
            to.set_permissions(Permissions::from_mode(mode))
                .context("set the mode of", &place)?;
        }
    }
    Ok(())
}

/// A name beside the missing `root` that is most like it, as the spec would write it.
fn similar_beside(root: &Path, path: &str) -> Option<String> {
    let name = root.file_name()?.to_string_lossy().into_owned();
    let names = fsio::sorted_names(root.parent()?).ok()?;
    let names: Vec<String> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    let similar = most_similar(&name, names.iter().map(String::as_str))?;
    Some(Path::new(path).with_file_name(similar).display().to_string())
}
