//! What a binary package says to the *package manager*: its maintainer scripts and all else of its `control.tar`, and the
//! modes and owners of its files, which a store path does not hold.
//!
//! Invariant: a function of the `.deb`'s bytes alone. `control/` has the members of `control.tar`, [`FILES`] a line for
//! each entry of `data.tar`, under the names that the package gives them (before the merge of `/usr`).

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use super::deb::{CONTROL_MAX, check_version, expect, not_ar, wrong};
use crate::archive::Kind;
use crate::archive::ar::ArReader;
use crate::archive::tar::{Streamed, TarPolicy, TarReader};
use crate::fetch::FetchError;
use crate::fetch::unpack::UnpackError;
use crate::fetch::unpack::tree::{Duplicates, EntryPath, TreeWriter};
use crate::fsio::IoContext;

/// Directory of the members of `control.tar`.
pub const CONTROL: &str = "control";

/// File with the entries of `data.tar`, in their order: kind (`d`, `f`, `l`), mode in octal, owner and group as numbers, and
/// the absolute path, separated by single spaces.
pub const FILES: &str = "files";

/// Largest list of files, in bytes.
const FILES_MAX: usize = 256 << 20;

/// Unpacks what a `.deb` says to the package manager into `dest`, a new directory.
pub fn unpack_deb_control(deb: &Path, package: &str, dest: &Path) -> Result<(), FetchError> {
    unpack(deb, dest).map_err(|source| FetchError::Unpack {
        name: format!("deb:{package}"),
        source: Box::new(source),
    })
}

fn unpack(deb: &Path, dest: &Path) -> Result<(), UnpackError> {
    let file = File::open(deb).context("open", deb)?;
    let size = file.metadata().context("read", deb)?.len();
    let mut archive = ArReader::new(&file).map_err(not_ar)?;
    check_version(&mut archive)?;
    let mut tree = TreeWriter::new(dest, size, Duplicates::MustBeEqual)?;
    write_control(expect(&mut archive, "control.tar")?, &mut tree)?;
    let list = list_files(expect(&mut archive, "data.tar")?)?;
    let path = EntryPath::parse(FILES.as_bytes())?;
    tree.file(&path, false, list.len() as u64, &mut Cursor::new(list))?;
    tree.publish(false)?;
    Ok(())
}

fn write_control(tar: impl Read, tree: &mut TreeWriter) -> Result<(), UnpackError> {
    let mut archive = TarReader::new(Streamed(tar.take(4 * CONTROL_MAX)), TarPolicy::SOURCE);
    while let Some(entry) = archive.next_entry()? {
        let path = EntryPath::parse(&entry.path)?;
        if entry.kind != Kind::File || path.as_bytes().contains(&b'/') {
            continue;
        }
        let place = EntryPath::trusted([CONTROL.as_bytes(), b"/", path.as_bytes()].concat());
        tree.file(&place, entry.mode & 0o111 != 0, entry.size, &mut archive)?;
    }
    archive.finish()?;
    Ok(())
}

fn list_files(tar: impl Read) -> Result<Vec<u8>, UnpackError> {
    let mut archive = TarReader::new(Streamed(tar), TarPolicy::SOURCE);
    let mut list = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        let path = EntryPath::parse(&entry.path)?;
        if path.as_bytes().contains(&b'\n') {
            return Err(wrong(format!("the name `{}` holds a line feed", path.display())));
        }
        let kind = match entry.kind {
            Kind::Directory => 'd',
            Kind::Symlink => 'l',
            _ => 'f',
        };
        let line = format!("{kind} {:o} {} {} /", entry.mode, entry.uid, entry.gid);
        list.extend_from_slice(line.as_bytes());
        list.extend_from_slice(path.as_bytes());
        list.push(b'\n');
        if list.len() > FILES_MAX {
            return Err(UnpackError::TooLarge {
                limit: format!("{FILES_MAX} bytes of names"),
            });
        }
    }
    archive.finish()?;
    Ok(list)
}
