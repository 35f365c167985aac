//! The *emulator* of a processor, taken out of the packages that have emulators of all kinds: of a few hundred megabytes one
//! file is wanted.
//!
//! Invariant: it needs no other file, or it is refused: where it runs, there are none of this machine's.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use super::deb::{check_version, expect, not_ar, wrong};
use crate::archive::Kind;
use crate::archive::ar::ArReader;
use crate::archive::tar::{Streamed, TarPolicy, TarReader};
use crate::fetch::FetchError;
use crate::fetch::unpack::UnpackError;
use crate::fetch::unpack::tree::{Duplicates, EntryPath, TreeWriter};
use crate::fsio::IoContext;

/// What it is called in the tree that it gets.
pub const EMULATOR: &str = "emulator";

/// Largest emulator, in bytes. The largest that there is has 20 MB.
const EMULATOR_MAX: u64 = 256 << 20;

/// Where packages have programs.
const BIN: &[u8] = b"usr/bin/";

/// Takes the first of `programs`, names in `/usr/bin`, that one of the packages has, by name and file of each package, into
/// `dest`, a new directory.
pub fn unpack_emulator(debs: &[(String, PathBuf)], programs: &[String], dest: &Path) -> Result<(), FetchError> {
    for (package, deb) in debs {
        let found = find(deb, programs, dest).map_err(|source| FetchError::Unpack {
            name: format!("deb:{package}"),
            source: Box::new(source),
        });
        if found? {
            return Ok(());
        }
    }
    let names: Vec<&str> = debs.iter().map(|(name, _)| name.as_str()).collect();
    let reason = format!("none of them has `{}`", programs.join("` or `"));
    Err(FetchError::Unpack {
        name: format!("deb:{}", names.join("`, `deb:")),
        source: Box::new(wrong(reason)),
    })
}

/// Takes the program where the package has it.
fn find(deb: &Path, programs: &[String], dest: &Path) -> Result<bool, UnpackError> {
    let file = File::open(deb).context("open", deb)?;
    let size = file.metadata().context("read", deb)?.len();
    let mut archive = ArReader::new(&file).map_err(not_ar)?;
    check_version(&mut archive)?;
    drop(expect(&mut archive, "control.tar")?);
    let mut tar = TarReader::new(Streamed(expect(&mut archive, "data.tar")?), TarPolicy::SOURCE);
    // What comes after it is not read.
    while let Some(entry) = tar.next_entry()? {
        let path = EntryPath::parse(&entry.path)?;
        let name = path.as_bytes().strip_prefix(BIN).unwrap_or_default();
        if entry.kind != Kind::File || !programs.iter().any(|program| program.as_bytes() == name) {
            continue;
        }
        if entry.size > EMULATOR_MAX {
            return Err(UnpackError::TooLarge {
                limit: format!("{EMULATOR_MAX} bytes of `{}`", path.display()),
            });
        }
        let mut bytes = Vec::new();
        tar.read_to_end(&mut bytes)
            .map_err(|source| UnpackError::Damaged { source })?;
        if bytes.len() as u64 != entry.size || !is_static(&bytes) {
            let reason = format!("`{}` is no program that runs without libraries", path.display());
            return Err(wrong(reason));
        }
        let mut tree = TreeWriter::new(dest, size, Duplicates::MustBeEqual)?;
        let place = EntryPath::parse(EMULATOR.as_bytes())?;
        tree.file(&place, true, entry.size, &mut Cursor::new(bytes))?;
        tree.publish(false)?;
        return Ok(true);
    }
    Ok(false)
}

/// Whether a file is an ELF program (of this machine's word size and order) that names no loader (`PT_INTERP`).
fn is_static(bytes: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, size: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(size)?)?;
        Some(field.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    };
    let has_loader = || -> Option<bool> {
        let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        let kinds = (0..count).map(|index| number(usize::try_from(start + index * size).ok()?, 4));
        Some(kinds.collect::<Option<Vec<_>>>()?.contains(&u64::from(PT_INTERP)))
    };
    bytes.starts_with(b"\x7fELF\x02\x01") && has_loader() == Some(false)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::archive::testing::Tar;
    use crate::fetch::debian::testing::{Deb, control};
    use crate::fsio::with_causes;

    /// An ELF header with one segment of this kind.
    fn program(kind: u32) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(64, 0);
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes.extend(kind.to_le_bytes());
        bytes.resize(120, 0);
        bytes
    }

    fn taken(files: &[(&str, &[u8])]) -> Result<Vec<u8>, String> {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first.deb"), dir.path().join("second.deb"));
        let made = |name: &str, data: Tar| {
            let control = Tar::new().file("./control", control(name, "1", ""));
            Deb::new(control, data).bytes()
        };
        fs::write(&first, made("first", Tar::new())).unwrap();
        let data = files
            .iter()
            .fold(Tar::new(), |tar, (path, bytes)| tar.file(path, *bytes));
        fs::write(&second, made("second", data)).unwrap();
        let debs = [("first".to_owned(), first), ("second".to_owned(), second)];
        let names = ["qemu-x-static", "qemu-x"].map(str::to_owned);
        let dest = dir.path().join("tree");
        unpack_emulator(&debs, &names, &dest).map_err(|error| with_causes(&error))?;
        Ok(fs::read(dest.join(EMULATOR)).unwrap())
    }

    #[test]
    fn the_one_program_is_taken_that_needs_no_loader() {
        let (fixed, dynamic) = (program(1), program(3));
        for name in ["./usr/bin/qemu-x-static", "./usr/bin/qemu-x"] {
            assert_eq!(taken(&[("./usr/bin/other", b"no"), (name, &fixed)]), Ok(fixed.clone()));
        }
        for (files, reason) in [
            (&[][..], "none of them has `qemu-x-static` or `qemu-x`"),
            (&[("./usr/lib/qemu-x", fixed.as_slice())], "none of them has"),
            (&[("./usr/bin/qemu-x", dynamic.as_slice())], "runs without libraries"),
            (
                &[("./usr/bin/qemu-x", b"#!/bin/sh\n".as_slice())],
                "runs without libraries",
            ),
            (&[("./usr/bin/qemu-x", &fixed[..66])], "runs without libraries"),
        ] {
            let error = taken(files).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
