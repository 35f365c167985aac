//! A *dynamic ELF file* is what it asks of the loader: interpreter, needed libraries, run path; [`loader`] is how
//! loaders answer (System V ABI, chapter 5, "Dynamic Section"; ld.so(8)).
//!
//! Invariant: every offset is checked against the file; a file that is not what it says is left alone. An edit
//! changes only bytes of the run path's string and, where none is left, the entry that names it.

mod dwarf;
pub mod loader;
mod relink;
#[cfg(test)]
pub(crate) mod testing;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use object::elf::{
    DF_1_NODEFLIB, DT_FLAGS_1, DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_SONAME, DT_STRSZ, DT_STRTAB, FileHeader32,
    FileHeader64, Machine, PT_DYNAMIC, PT_LOAD,
};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, ReadCache, ReadRef};

use crate::fsio::{IoContext, PathError};
pub use dwarf::{Sources, sources};
pub use relink::relink;

/// First bytes of every ELF file.
pub const MAGIC: [u8; 4] = *b"\x7fELF";

/// Largest dynamic section that is looked at, in bytes.
const DYNAMIC_MAX: u64 = 1 << 20;

/// What an ELF file asks of the loader; nothing where it is static.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Elf {
    /// Whether its addresses have 64 bits.
    pub is_64: bool,
    /// The processor that it is for (`e_machine`).
    pub machine: Machine,
    /// The program that loads it; libraries and static programs have none.
    pub interpreter: Option<String>,
    /// The name that other files need it by.
    pub soname: Option<String>,
    /// Libraries it needs.
    pub needed: Vec<String>,
    /// Where they are searched for.
    pub run_path: Option<RunPath>,
    /// Whether the loader's default directories are left out (`DF_1_NODEFLIB`).
    pub no_default_dirs: bool,
}

impl Elf {
    /// Whether the loader takes `library` for this file.
    fn takes(&self, library: &Self) -> bool {
        (self.is_64, self.machine) == (library.is_64, library.machine)
    }
}

/// A run path and where it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPath {
    /// `dir:dir:…`
    pub value: String,
    /// Whether it also holds for what the libraries need (`DT_RPATH`; else it is `DT_RUNPATH`).
    pub is_inherited: bool,
    /// Offset of its string in the file.
    string: u64,
    /// Offset of the dynamic section in the file, the size of one of its entries, how many there are, and which
    /// one names the string.
    table: u64,
    entry_size: u64,
    entries: u64,
    entry: u64,
}

/// Reads the file at `path`; `None` where it is not an ELF file.
pub fn read(path: &Path) -> Result<Option<Elf>, PathError> {
    let file = File::open(path).context("open", path)?;
    let mut start = [0; 5];
    match file.read_exact_at(&mut start, 0) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result.context("read", path)?,
    }
    if start[..4] != MAGIC {
        return Ok(None);
    }
    let cache = ReadCache::new(file);
    Ok(parse(&cache, start[4]))
}

/// As [`read`] for a file in memory.
pub fn read_bytes(bytes: &[u8]) -> Option<Elf> {
    let class = bytes.strip_prefix(&MAGIC)?.first()?;
    parse(bytes, *class)
}

fn parse<'a>(data: impl ReadRef<'a>, class: u8) -> Option<Elf> {
    match class {
        1 => parse_class::<FileHeader32<Endianness>>(data, false),
        2 => parse_class::<FileHeader64<Endianness>>(data, true),
        _ => None,
    }
}

fn parse_class<'a, H: FileHeader<Endian = Endianness>>(data: impl ReadRef<'a>, is_64: bool) -> Option<Elf> {
    let header = H::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, data).ok()?;
    let mut elf = Elf {
        is_64,
        machine: header.e_machine(endian),
        ..Elf::default()
    };
    for segment in segments {
        if let Ok(Some(interpreter)) = segment.interpreter(endian, data) {
            elf.interpreter = Some(text(interpreter));
        }
    }
    match segments.iter().find(|segment| segment.p_type(endian) == PT_DYNAMIC) {
        Some(segment) => parse_dynamic::<H>(elf, segment, segments, endian, data),
        None => Some(elf),
    }
}

fn parse_dynamic<'a, H: FileHeader<Endian = Endianness>>(
    mut elf: Elf,
    segment: &H::ProgramHeader,
    segments: &[H::ProgramHeader],
    endian: Endianness,
    data: impl ReadRef<'a>,
) -> Option<Elf> {
    if segment.p_filesz(endian).into() > DYNAMIC_MAX {
        return None;
    }
    let table = segment.dynamic(endian, data).ok()??;
    let value = |tag| {
        table
            .iter()
            .find(|entry| entry.tag(endian) == tag)
            .map(|entry| entry.val(endian))
    };
    // A static program that finds its own place has a dynamic section, and may have no strings.
    let Some((address, size)) = value(DT_STRTAB).zip(value(DT_STRSZ)) else {
        return Some(elf);
    };
    let strings = segments.iter().find_map(|segment| {
        let (start, length): (u64, u64) = (segment.p_vaddr(endian).into(), segment.p_filesz(endian).into());
        let below = address.checked_sub(start).filter(|&below| below < length)?;
        (segment.p_type(endian) == PT_LOAD).then(|| segment.p_offset(endian).into().checked_add(below))?
    })?;
    let string = |offset: u64| {
        let (start, end) = (strings.checked_add(offset)?, strings.checked_add(size)?);
        let bytes = data.read_bytes_at_until(start..end, 0).ok()?;
        Some((start, text(bytes)))
    };
    let entry_size = size_of::<H::Dyn>() as u64;
    for (index, entry) in table.iter().enumerate() {
        let tag = entry.tag(endian);
        match tag {
            DT_NEEDED => elf.needed.push(string(entry.val(endian))?.1),
            DT_SONAME => elf.soname = Some(string(entry.val(endian))?.1),
            DT_FLAGS_1 => elf.no_default_dirs = entry.val(endian) & DF_1_NODEFLIB.0 != 0,
            // With both, the inherited one is ignored.
            DT_RPATH if elf.run_path.is_some() => {}
            DT_RPATH | DT_RUNPATH => {
                let (string, value) = string(entry.val(endian))?;
                elf.run_path = Some(RunPath {
                    value,
                    is_inherited: tag == DT_RPATH,
                    string,
                    table: segment.p_offset(endian).into(),
                    entry_size,
                    entries: table.len() as u64,
                    entry: index as u64,
                });
            }
            _ => {}
        }
    }
    Some(elf)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Replaces the run path of `path` by `value`, which must be shorter; an empty one is taken out altogether. False
/// where it does not fit beside what the old one's end may be shared with.
///
/// Linkers let a string that is the end of another one share its bytes (a symbol named `lib` and the end of
/// `…/usr/lib`). Names hold no slash, so what follows the old value's last slash is left as it is; it holds no hash.
pub fn set_run_path(path: &Path, old: &RunPath, value: &str) -> Result<bool, PathError> {
    let room = old.value.rfind('/').map_or(0, |slash| slash + 1);
    if value.len() >= room || value.len() >= old.value.len() {
        return Ok(false);
    }
    let metadata = std::fs::metadata(path).context("read", path)?;
    let mode = metadata.permissions().mode();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode | 0o600)).context("make writable", path)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .context("open", path)?;
    if value.is_empty() {
        remove_entry(&file, old).context("edit the run path of", path)?;
    }
    let mut bytes = value.as_bytes().to_vec();
    bytes.resize(room, 0);
    file.write_all_at(&bytes, old.string)
        .context("edit the run path of", path)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).context("set the mode of", path)?;
    Ok(true)
}

/// Moves the entries after the run path's forward by one; the last, freed place becomes `DT_NULL`.
fn remove_entry(file: &File, old: &RunPath) -> std::io::Result<()> {
    let following = (old.entries - old.entry - 1) * old.entry_size;
    let at = old.table + old.entry * old.entry_size;
    let mut bytes = vec![0; following as usize];
    file.read_exact_at(&mut bytes, at + old.entry_size)?;
    bytes.resize((following + old.entry_size) as usize, 0);
    file.write_all_at(&bytes, at)
}

#[cfg(test)]
mod fuzz {
    use super::{read_bytes, set_run_path};

    #[test]
    fn fuzz_elf_needs() {
        crate::testing::fuzz("elf-needs", |bytes| {
            if let Some(found) = read_bytes(bytes) {
                let place = found.run_path.as_ref().map(|old| (old.string, old.table));
                assert!(place.is_none_or(|(string, table)| string.max(table) <= bytes.len() as u64));
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("program");
                std::fs::write(&path, bytes).unwrap();
                for value in ["", "/l"] {
                    if let Some(old) = &found.run_path {
                        let _ = set_run_path(&path, old, value);
                    }
                }
                assert!(std::fs::metadata(&path).unwrap().len() <= bytes.len() as u64 + 64);
            }
        });
    }
}
