//! *Zip* archives: their entries, into a tree.

use std::fs::File;
use std::io::Read;

use ::zip::ZipArchive;

use super::UnpackError;
use super::tree::{EntryPath, TreeWriter};

/// `S_IFMT` and the kinds it can hold (inode(7)); zip keeps them where a Unix system made it.
const KIND: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

/// Longest target of a symlink, in bytes.
const TARGET_MAX: u64 = 4096;

/// Puts the entries of the zip `file` into `tree`, each without its first `strip` directories.
pub(super) fn unpack(file: &File, strip: u32, tree: &mut TreeWriter) -> Result<(), UnpackError> {
    let mut archive = ZipArchive::new(std::io::BufReader::new(file)).map_err(|error| damaged(error.into()))?;
    for index in 0..archive.len() {
        let unsupported = |source: ::zip::result::ZipError, entry: String| match source {
            ::zip::result::ZipError::Io(source) => UnpackError::Damaged { source },
            source => UnpackError::Unsupported {
                entry,
                source: Box::new(source),
            },
        };
        let name = entry_name(&mut archive, index)?;
        let mut entry = archive
            .by_index(index)
            .map_err(|error| unsupported(error, name.clone()))?;
        let path = EntryPath::parse(name.as_bytes())?;
        let Some(path) = path.strip(strip) else {
            tree.skip_entry(0)?;
            continue;
        };
        let mode = entry.unix_mode().unwrap_or(0);
        if entry.is_dir() {
            tree.directory(&path)?;
            continue;
        }
        match mode & KIND {
            DIRECTORY => tree.directory(&path)?,
            SYMLINK => {
                let mut target = Vec::new();
                entry
                    .by_ref()
                    .take(TARGET_MAX)
                    .read_to_end(&mut target)
                    .map_err(damaged)?;
                tree.symlink(&path, &target)?;
            }
            0 | REGULAR => {
                let size = entry.size();
                tree.file(&path, mode & 0o111 != 0, size, &mut entry)?;
                end_of_entry(&mut entry)?;
            }
            _ => {
                let kind = "a device node, pipe or socket".to_owned();
                return Err(UnpackError::Special { entry: name, kind });
            }
        }
    }
    Ok(())
}

/// The name of an entry as it is spelt, whether or not its content can be read.
fn entry_name(archive: &mut ZipArchive<std::io::BufReader<&File>>, index: usize) -> Result<String, UnpackError> {
    let entry = archive.by_index_raw(index).map_err(|error| damaged(error.into()))?;
    let name = entry.name().map_err(|error| damaged(error.into()))?;
    Ok(name.into_owned())
}

/// Reads past the last byte, which checks the CRC, and refuses more content than was announced.
fn end_of_entry(entry: &mut impl Read) -> Result<(), UnpackError> {
    match entry.read(&mut [0]).map_err(damaged)? {
        0 => Ok(()),
        _ => Err(UnpackError::malformed("an entry is longer than it says")),
    }
}

fn damaged(source: std::io::Error) -> UnpackError {
    UnpackError::Damaged { source }
}
