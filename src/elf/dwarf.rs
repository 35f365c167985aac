//! *Sources* that a file's debug information names: the tables by which a debugger finds the line of an address (DWARF 5, 6.2).
//!
//! Invariant: what cannot be read names nothing; sections are read one by one and bounded, whatever the file says of them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use gimli::{Dwarf, DwarfSections, EndianSlice, Reader, RunTimeEndian, SectionId, Unit};
use object::read::CompressionFormat;
use object::{Object, ObjectKind, ObjectSection, ReadCache};

use super::MAGIC;
use crate::fsio::{IoContext, PathError, normalize};

/// Largest section that is read, in bytes, once it is unpacked.
const SECTION_MAX: u64 = 2 << 30;

/// Most sources that one file may name.
const SOURCES_MAX: usize = 1 << 20;

/// What a file's debug information names, by absolute paths.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The files that it was compiled from.
    pub files: BTreeSet<PathBuf>,
    /// Directories that a debugger passes on its way to them and leaves by `..`: they must be there, whatever is in them.
    pub passed: BTreeSet<PathBuf>,
}

impl Sources {
    fn add(&mut self, path: &Path) {
        let mut at = PathBuf::new();
        for component in path.components() {
            if component == Component::ParentDir {
                self.passed.insert(normalize(&at));
            }
            at.push(component);
        }
        self.files.insert(normalize(&at));
    }
}

/// What the debug information of the file at `path` names, if it is a program or a library that has some.
pub fn sources(path: &Path) -> Result<Sources, PathError> {
    let file = File::open(path).context("open", path)?;
    let mut start = [0; MAGIC.len()];
    match file.read_exact_at(&mut start, 0) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(Sources::default()),
        result => result.context("read", path)?,
    }
    let mut found = Sources::default();
    if start == MAGIC {
        let cache = ReadCache::new(file);
        if let Ok(object) = object::File::parse(&cache) {
            collect(&object, &mut found);
        }
    }
    Ok(found)
}

/// Adds what an object names. An error ends the search of what it is in: the rest may still be right.
fn collect<'d>(object: &impl Object<'d>, found: &mut Sources) {
    // In what is yet to be linked nothing stands at its place.
    if !matches!(object.kind(), ObjectKind::Executable | ObjectKind::Dynamic) {
        return;
    }
    let endian = match object.is_little_endian() {
        true => RunTimeEndian::Little,
        false => RunTimeEndian::Big,
    };
    let load = |id: SectionId| Ok::<_, Infallible>(section(object, id.name()).unwrap_or_default());
    let Ok(sections) = DwarfSections::load(load);
    let dwarf = sections.borrow(|bytes| EndianSlice::new(bytes, endian));
    let mut units = dwarf.units();
    while let Ok(Some(header)) = units.next() {
        if let Ok(unit) = dwarf.unit(header) {
            let _ = add_unit(&dwarf, &unit, found);
        }
        if found.files.len() > SOURCES_MAX {
            return;
        }
    }
}

/// A section's bytes, unpacked.
fn section<'d>(object: &impl Object<'d>, name: &str) -> Option<Cow<'d, [u8]>> {
    let section = object.section_by_name(name)?;
    let data = section.compressed_data().ok()?;
    if data.uncompressed_size > SECTION_MAX {
        return None;
    }
    let unpacked = |reader: &mut dyn Read| {
        let mut bytes = Vec::new();
        let size = data.uncompressed_size;
        reader.take(size).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 == size).then_some(Cow::Owned(bytes))
    };
    match data.format {
        CompressionFormat::None => Some(Cow::Borrowed(data.data)),
        CompressionFormat::Zlib => unpacked(&mut flate2::read::ZlibDecoder::new(data.data)),
        CompressionFormat::Zstandard => unpacked(&mut zstd::stream::read::Decoder::new(data.data).ok()?),
        _ => None,
    }
}

fn add_unit<R: Reader>(dwarf: &Dwarf<R>, unit: &Unit<R>, found: &mut Sources) -> gimli::Result<()> {
    let dir = unit.comp_dir.as_ref().map(path_of).transpose()?.unwrap_or_default();
    let mut add = |path: PathBuf| {
        let path = dir.join(path);
        if path.is_absolute() && found.files.len() <= SOURCES_MAX {
            found.add(&path);
        }
    };
    if let Some(name) = &unit.name {
        add(path_of(name)?);
    }
    let Some(program) = &unit.line_program else {
        return Ok(());
    };
    let header = program.header();
    for file in header.file_names() {
        let mut path = PathBuf::new();
        if let Some(dir) = file.directory(header) {
            path.push(path_of(&dwarf.attr_string(unit, dir)?)?);
        }
        path.push(path_of(&dwarf.attr_string(unit, file.path_name())?)?);
        add(path);
    }
    Ok(())
}

fn path_of<R: Reader>(text: &R) -> gimli::Result<PathBuf> {
    Ok(PathBuf::from(OsStr::from_bytes(&text.to_slice()?)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    /// What the machine's compiler makes of a program in two files, in a directory below that of the sources.
    fn compiled(arguments: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("src/include")).unwrap();
        fs::create_dir(root.join("build")).unwrap();
        fs::write(
            root.join("src/include/twice.h"),
            "static inline int twice(int x) { return 2 * x; }\n",
        )
        .unwrap();
        fs::write(
            root.join("src/main.c"),
            "#include \"twice.h\"\nint main(int argc, char **argv) { (void)argv; return twice(argc); }\n",
        )
        .unwrap();
        let mut compiler = Command::new("cc");
        compiler
            .args(["../src/main.c", "-I../src/include", "-o", "prog"])
            .arg(format!("-ffile-prefix-map={}=/build/source", root.display()))
            .args(arguments)
            .current_dir(root.join("build"));
        assert!(compiler.status().unwrap().success());
        let file = root.join("build/prog");
        (dir, file)
    }

    #[test]
    fn sources_are_named_by_all_kinds_of_tables() {
        for arguments in [
            &["-g"][..],
            &["-g", "-gdwarf-4"],
            &["-g", "-gdwarf-5", "-gz=zlib"],
            &["-g", "-shared", "-fPIC"],
            &["-g", "-static"],
        ] {
            let (_dir, file) = compiled(arguments);
            let found = sources(&file).unwrap();
            for path in ["/build/source/src/main.c", "/build/source/src/include/twice.h"] {
                assert!(found.files.contains(Path::new(path)), "{arguments:?}: {found:?}");
            }
            assert!(
                found.passed.contains(Path::new("/build/source/build")),
                "{arguments:?}: {found:?}"
            );
        }
    }

    #[test]
    fn what_has_no_tables_names_nothing() {
        for arguments in [&[][..], &["-g", "-s"], &["-g", "-c", "-o", "prog"]] {
            let (_dir, file) = compiled(arguments);
            assert!(
                sources(&file)
                    .unwrap()
                    .files
                    .iter()
                    .all(|path| !path.ends_with("main.c")),
                "{arguments:?}"
            );
        }
        let dir = tempfile::tempdir().unwrap();
        for bytes in [&b""[..], b"\x7fEL", b"\x7fELF", b"#!/bin/sh\n"] {
            fs::write(dir.path().join("file"), bytes).unwrap();
            assert_eq!(sources(&dir.path().join("file")).unwrap(), Sources::default());
        }
    }

    #[test]
    fn damaged_tables_do_no_harm() {
        let (_dir, file) = compiled(&["-g"]);
        let whole = fs::read(&file).unwrap();
        for step in [97, 331] {
            for at in (0..whole.len()).step_by(step) {
                let mut bytes = whole.clone();
                bytes[at] ^= 0xff;
                if let Ok(object) = object::File::parse(&*bytes) {
                    collect(&object, &mut Sources::default());
                }
            }
        }
        for length in (0..whole.len()).step_by(211) {
            if let Ok(object) = object::File::parse(&whole[..length]) {
                collect(&object, &mut Sources::default());
            }
        }
    }
}
