//! *Unpacking*: archives from outside become trees, whatever is in them.
//!
//! Invariant: nothing is written outside the new directory, nothing is written through a symlink of the
//! archive, sizes are bounded, and a failure leaves nothing behind. Modes are normalised (0755 and 0644),
//! owners and times are dropped: the same archive gives the same tree on every machine.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::FetchError;
use crate::archive::Kind;
use crate::archive::compression::{self, Decompressor};
use crate::archive::tar::{self, Streamed, TarError, TarPolicy, TarReader};
use crate::archive::zip::{self, ZipError, ZipReader};
use crate::capability;
use crate::derive::Download;
use crate::event::{Event, Reporter};
use crate::fsio::{IoContext, PathError, copy_file};
use crate::oci::CompressionFormat;

mod git_crates;
mod git_manifest;
mod go_module;
mod npm;
mod npm_files;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
pub(super) mod tests;
pub(super) mod tree;

pub use git_crates::unpack_git_crates;
pub(super) use go_module::hash_go_module;
pub use go_module::unpack_go_module;
pub use npm::{unpack_npm, unpack_npm_repository};
use tree::{Duplicates, EntryPath, TreeWriter};

/// Why an archive cannot be unpacked. `entry` is a name as the archive spells it.
#[expect(missing_docs, reason = "the fields are what the variant's message names")]
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Reading or writing a file of the machine failed.
    #[error(transparent)]
    Io(#[from] PathError),
    /// The archive's bytes cannot be read: damaged compression, a file that ends too early.
    #[error("its content is damaged or truncated")]
    Damaged { source: io::Error },
    /// The archive does not follow its format.
    #[error("it is malformed: {reason}")]
    Malformed { reason: String },
    /// Neither a tar (compressed or not) nor a zip.
    #[error("it is {kind}, not an archive")]
    NoArchive { kind: String },
    /// An entry's name leads out of the tree.
    #[error("entry `{entry}` leads out of the archive: {reason}")]
    Escape { entry: String, reason: &'static str },
    /// An entry below something that is not a directory.
    #[error("entry `{entry}` lies below `{parent}`, which the archive makes a {kind}")]
    NotDirectory {
        entry: String,
        parent: String,
        kind: &'static str,
    },
    /// Two entries of one name that cannot both be had.
    #[error("entry `{entry}` comes twice, {reason}")]
    Duplicate { entry: String, reason: &'static str },
    /// A hard link to what is not an earlier file of the archive.
    #[error("entry `{entry}` is a hard link to `{target}`, which is not an earlier file of the archive")]
    HardLink { entry: String, target: String },
    /// A device node, named pipe or something else that has no place in a tree.
    #[error("entry `{entry}` is {kind}")]
    Special { entry: String, kind: String },
    /// An entry that is encrypted or compressed in a way that is not supported.
    #[error("entry `{entry}` cannot be read")]
    Unsupported {
        entry: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// `strip` takes everything away.
    #[error("`strip = {strip}` leaves nothing of it: no entry is more than {deepest} directories deep")]
    StripsAll { strip: u32, deepest: usize },
    /// More than the bounds allow: a bomb, or something that does not belong into a package.
    #[error("it unpacks to more than {limit}")]
    TooLarge { limit: String },
    /// The destination is there already.
    #[error("`{dest}` is there already")]
    Exists { dest: String },
    /// A `.deb` or source package that is not what it should be.
    #[error("{reason}")]
    Package { reason: String },
}

impl UnpackError {
    pub(super) fn malformed(reason: impl Into<String>) -> Self {
        Self::Malformed { reason: reason.into() }
    }

    /// What has no place in a tree.
    pub(super) fn special(entry: &EntryPath, kind: Kind) -> Self {
        Self::Special {
            entry: entry.display(),
            kind: match kind {
                Kind::Other(_) => "of a kind that is unknown".to_owned(),
                kind => format!("a {}", kind.name()),
            },
        }
    }

    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NoArchive { .. } => Some("set `unpack = false` to use the file as it is".to_owned()),
            Self::Damaged { .. } | Self::Malformed { .. } => Some(
                "check that the address serves the archive itself, and that the sha256 is the one its publisher states"
                    .to_owned(),
            ),
            Self::StripsAll { deepest, .. } => Some(format!(
                "set `strip` to {deepest} at most, or leave it out: one directory around everything is dropped by itself"
            )),
            Self::Special { .. } => Some("device nodes, pipes and sockets cannot be part of a package".to_owned()),
            _ => None,
        }
    }
}

impl From<TarError> for UnpackError {
    fn from(error: TarError) -> Self {
        match error {
            TarError::Io { source, .. } => Self::Damaged { source },
            TarError::Malformed { offset, reason } => {
                Self::malformed(format!("{reason} (at byte {offset} of the tar)"))
            }
        }
    }
}

/// What unpacking an archive has to say beside its result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    /// What the user should know of the names.
    pub note: Option<String>,
    /// The files that have capabilities in the archive, and which: a tree of the store has no place for them.
    pub capabilities: BTreeMap<String, String>,
}

impl Remarks {
    /// Tells them; `name` is what messages call the archive.
    pub fn report(&self, name: &str, reporter: &dyn Reporter) {
        if let Some(note) = &self.note {
            let text = format!("`{name}`: {note}");
            reporter.report(Event::Note { text });
        }
        if let Some(text) = capability::not_kept(name, &self.capabilities) {
            reporter.report(Event::Warning { text });
        }
    }
}

/// Unpacks an archive (tar, tar.gz, tar.xz, tar.zst, tar.bz2, tar.lzma, zip; by content, not by name) into `dest`, a new
/// directory; `name` is what messages call it.
///
/// `strip` leading directories are dropped (entries that have no more are left out; that nothing is left is an error);
/// `None` drops one where everything is in one top-level directory. Of several tar entries of one name the last one
/// counts, as tar has it; in a zip they are an error unless they are the same. The slash that begins an absolute name
/// is dropped, which is noted. Entries that escape, lie below a symlink, are device nodes and the like are errors that
/// leave nothing behind.
pub fn unpack_archive(archive: &Path, name: &str, strip: Option<u32>, dest: &Path) -> Result<Remarks, FetchError> {
    unpack(archive, strip, dest).map_err(|source| named(name, source))
}

/// [`unpack_archive`] of what is an archive by its content; any other file is copied to `dest`.
pub fn unpack_or_keep(file: &Path, name: &str, strip: Option<u32>, dest: &Path) -> Result<Remarks, FetchError> {
    if is_archive(file)? {
        return unpack_archive(file, name, strip, dest);
    }
    copy_file(file, dest)?;
    fs::set_permissions(dest, Permissions::from_mode(0o644)).context("set the mode of", dest)?;
    Ok(Remarks::default())
}

/// Unpacks the crate that `download` names as Cargo wants it in a directory source: without the directory around it, and
/// with the file that states the checksum of the crate but not those of its files, which Cargo does not ask for.
pub fn unpack_crate(archive: &Path, download: &Download, dest: &Path) -> Result<Remarks, FetchError> {
    let remarks = unpack_archive(archive, &download.name, Some(1), dest)?;
    let checksum = dest.join(".cargo-checksum.json");
    if checksum.symlink_metadata().is_ok() {
        let reason = "it holds a file `.cargo-checksum.json` of its own";
        return Err(named(&download.name, UnpackError::malformed(reason)));
    }
    let text = format!("{{\"files\":{{}},\"package\":\"{}\"}}", download.hash.hex());
    fs::write(&checksum, text).context("write", &checksum)?;
    fs::set_permissions(&checksum, Permissions::from_mode(0o644)).context("set the mode of", &checksum)?;
    Ok(remarks)
}

/// Whether a file is what [`unpack_archive`] unpacks. What begins like compressed data and is none is a file as any other.
fn is_archive(path: &Path) -> Result<bool, PathError> {
    let file = File::open(path).context("open", path)?;
    match content_of(&file, path) {
        Err(UnpackError::Io(error)) => Err(error),
        content => Ok(matches!(content, Ok(EntryContent::Zip | EntryContent::Tar(_)))),
    }
}

fn named(name: &str, source: UnpackError) -> FetchError {
    FetchError::Unpack {
        name: name.to_owned(),
        source: Box::new(source),
    }
}

/// [`unpack_archive`] without the name.
pub(super) fn unpack(archive: &Path, strip: Option<u32>, dest: &Path) -> Result<Remarks, UnpackError> {
    let file = File::open(archive).context("open", archive)?;
    let size = file.metadata().context("read", archive)?.len();
    let tree = match content_of(&file, archive)? {
        EntryContent::Zip => {
            let mut tree = TreeWriter::new(dest, size, Duplicates::MustBeEqual)?;
            unpack_zip(&file, strip.unwrap_or(0), &mut tree)?;
            tree
        }
        EntryContent::Tar(content) => {
            let mut tree = TreeWriter::new(dest, size, Duplicates::LastWins)?;
            unpack_tar(content, strip.unwrap_or(0), &mut tree)?;
            tree
        }
        EntryContent::Other(format) => {
            let kind = match format {
                CompressionFormat::None => "a plain file".to_owned(),
                format => format!("a single file compressed with {format}"),
            };
            return Err(UnpackError::NoArchive { kind });
        }
    };
    if let (Some(strip), Some(deepest)) = (strip, tree.deepest_stripped())
        && tree.nodes().is_empty()
    {
        return Err(UnpackError::StripsAll { strip, deepest });
    }
    tree.publish(strip.is_none())
}

/// What a file holds.
enum EntryContent<'a> {
    Zip,
    /// With its bytes, decompressed.
    Tar(Box<dyn Read + 'a>),
    Other(CompressionFormat),
}

fn content_of<'a>(mut file: &'a File, path: &Path) -> Result<EntryContent<'a>, UnpackError> {
    let damaged = |source| UnpackError::Damaged { source };
    let mut head = Vec::new();
    file.take(CompressionFormat::MAGIC_MAX as u64)
        .read_to_end(&mut head)
        .context("read", path)?;
    file.rewind().context("read", path)?;
    if zip::looks_like_zip(&head) {
        return Ok(EntryContent::Zip);
    }
    let decompressor = Decompressor::new(file).map_err(damaged)?.allow_padding();
    let format = decompressor.format();
    if let Some(tar) = as_tar(decompressor).map_err(damaged)? {
        return Ok(EntryContent::Tar(Box::new(tar)));
    }
    if compression::may_be_lzma(&head) {
        file.rewind().context("read", path)?;
        let decoder = compression::lzma_decoder(BufReader::with_capacity(1 << 17, file)).map_err(damaged)?;
        // Three bytes do not tell it for certain.
        if let Ok(Some(tar)) = as_tar(decoder) {
            return Ok(EntryContent::Tar(Box::new(tar)));
        }
    }
    Ok(EntryContent::Other(format))
}

/// The whole content where it begins as a tar does.
fn as_tar<R: Read>(mut content: R) -> io::Result<Option<impl Read>> {
    let mut block = Vec::with_capacity(tar::BLOCK);
    content.by_ref().take(tar::BLOCK as u64).read_to_end(&mut block)?;
    Ok(tar::looks_like_tar(&block).then(|| io::Cursor::new(block).chain(content)))
}

/// Puts the entries of a tar into `tree`, each without its first `strip` directories.
fn unpack_tar(reader: impl Read, strip: u32, tree: &mut TreeWriter) -> Result<(), UnpackError> {
    let mut archive = TarReader::new(Streamed(reader), TarPolicy::SOURCE);
    while let Some(entry) = archive.next_entry()? {
        let Some(path) = tree.stripped(&entry.path, strip)? else {
            tree.skip_entry(entry.size)?;
            continue;
        };
        if let Some(value) = entry.any_capability() {
            tree.note_capability(&path, &value);
        }
        match entry.kind {
            Kind::Directory => tree.directory(&path)?,
            // Before POSIX, a directory was a file whose name ends with a slash.
            Kind::File if entry.path.ends_with(b"/") => tree.directory(&path)?,
            Kind::File | tar::GNU_SPARSE => tree.file(&path, entry.mode & 0o111 != 0, entry.size, &mut archive)?,
            Kind::Symlink => tree.symlink(&path, &entry.link)?,
            Kind::HardLink => {
                let target = EntryPath::parse(&entry.link)?;
                match target.strip(strip) {
                    Some(stripped) => tree.hard_link(&path, &stripped)?,
                    None => {
                        return Err(UnpackError::HardLink {
                            entry: path.display(),
                            target: target.display(),
                        });
                    }
                }
            }
            // A volume's label.
            Kind::Other(b'V') => tree.skip_entry(entry.size)?,
            kind => return Err(UnpackError::special(&path, kind)),
        }
    }
    archive.finish()?;
    Ok(())
}

/// Longest target of a symlink, in bytes.
const TARGET_MAX: u64 = 4096;

/// Puts the entries of a zip into `tree`, each without its first `strip` directories.
fn unpack_zip(file: &File, strip: u32, tree: &mut TreeWriter) -> Result<(), UnpackError> {
    let failed = |error: ZipError, entry: &str| match error {
        ZipError::Damaged(source) => UnpackError::Damaged { source },
        error @ ZipError::Unsupported(_) => UnpackError::Unsupported {
            entry: entry.to_owned(),
            source: Box::new(error),
        },
    };
    let mut archive = ZipReader::new(BufReader::new(file)).map_err(|error| failed(error, ""))?;
    for index in 0..archive.len() {
        let member = archive.member(index).map_err(|error| failed(error, ""))?;
        let Some(path) = tree.stripped(member.name.as_bytes(), strip)? else {
            tree.skip_entry(0)?;
            continue;
        };
        if member.kind == Kind::Directory {
            tree.directory(&path)?;
            continue;
        }
        let mut content = archive.content(index).map_err(|error| failed(error, &member.name))?;
        match member.kind {
            Kind::Symlink => {
                let mut target = Vec::new();
                content
                    .take(TARGET_MAX)
                    .read_to_end(&mut target)
                    .map_err(|source| UnpackError::Damaged { source })?;
                tree.symlink(&path, &target)?;
            }
            Kind::File => {
                let executable = member.mode.unwrap_or(0) & 0o111 != 0;
                tree.file(&path, executable, member.size, &mut content)?;
            }
            kind => return Err(UnpackError::special(&path, kind)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod fuzz {
    use crate::fsio::{remove_tree, sorted_names};

    #[test]
    fn fuzz_unpack() {
        crate::testing::fuzz("unpack", |bytes| {
            let dir = tempfile::tempdir().unwrap();
            let (archive, out) = (dir.path().join("archive"), dir.path().join("out"));
            std::fs::write(&archive, bytes).unwrap();
            std::fs::create_dir(&out).unwrap();
            for strip in [None, Some(0), Some(1)] {
                let is_there = super::unpack(&archive, strip, &out.join("tree")).is_ok();
                let expected: &[&str] = if is_there { &["tree"] } else { &[] };
                assert_eq!(sorted_names(&out).unwrap(), expected);
                assert_eq!(sorted_names(dir.path()).unwrap(), ["archive", "out"]);
                assert_eq!(std::fs::read(&archive).unwrap(), bytes);
                remove_tree(&out.join("tree")).unwrap();
            }
        });
    }
}
