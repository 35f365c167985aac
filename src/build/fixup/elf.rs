//! What a *dynamic ELF file* asks of the loader (interpreter, needed libraries, run path), and how its run path is
//! edited in place (System V ABI, chapter 5, "Dynamic Section").
//!
//! Invariant: every offset is checked against the file; a file that is not what it says is left alone. An edit
//! changes only bytes of the run path's string and, where none is left, the entry that names it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use object::elf::{
    DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, FileHeader32, FileHeader64, PT_DYNAMIC, PT_LOAD,
};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, ReadCache, ReadRef};

use crate::fsio::{IoContext, PathError};

/// First bytes of every ELF file.
const MAGIC: [u8; 4] = *b"\x7fELF";

/// Largest dynamic section that is looked at, in bytes.
const DYNAMIC_MAX: u64 = 1 << 20;

/// What a dynamic file asks of the loader.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Elf {
    /// The program that loads it; libraries have none.
    pub interpreter: Option<String>,
    /// Libraries it needs.
    pub needed: Vec<String>,
    /// Where they are searched for.
    pub run_path: Option<RunPath>,
}

/// A run path and where it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunPath {
    /// `dir:dir:…`
    pub value: String,
    /// Offset of its string in the file.
    string: u64,
    /// Offset of the dynamic section in the file, the size of one of its entries, how many there are, and which
    /// one names the string.
    table: u64,
    entry_size: u64,
    entries: u64,
    entry: u64,
}

/// Reads `path`; `None` where it is no dynamic ELF file.
pub(super) fn read(path: &Path) -> Result<Option<Elf>, PathError> {
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
    Ok(match start[4] {
        1 => parse::<FileHeader32<Endianness>>(&cache),
        2 => parse::<FileHeader64<Endianness>>(&cache),
        _ => None,
    })
}

fn parse<H: FileHeader<Endian = Endianness>>(cache: &ReadCache<File>) -> Option<Elf> {
    let header = H::parse(cache).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, cache).ok()?;
    let mut elf = Elf::default();
    for segment in segments {
        if let Ok(Some(interpreter)) = segment.interpreter(endian, cache) {
            elf.interpreter = Some(text(interpreter));
        }
    }
    let segment = segments.iter().find(|segment| segment.p_type(endian) == PT_DYNAMIC)?;
    if segment.p_filesz(endian).into() > DYNAMIC_MAX {
        return None;
    }
    let table = segment.dynamic(endian, cache).ok()??;
    let value = |tag| {
        table
            .iter()
            .find(|entry| entry.tag(endian) == tag)
            .map(|entry| entry.val(endian))
    };
    let (address, size) = (value(DT_STRTAB)?, value(DT_STRSZ)?);
    let strings = segments.iter().find_map(|segment| {
        let (start, length): (u64, u64) = (segment.p_vaddr(endian).into(), segment.p_filesz(endian).into());
        let below = address.checked_sub(start).filter(|&below| below < length)?;
        (segment.p_type(endian) == PT_LOAD).then(|| segment.p_offset(endian).into().checked_add(below))?
    })?;
    let string = |offset: u64| {
        let (start, end) = (strings.checked_add(offset)?, strings.checked_add(size)?);
        let bytes = cache.read_bytes_at_until(start..end, 0).ok()?;
        Some((start, text(bytes)))
    };
    let entry_size = size_of::<H::Dyn>() as u64;
    for (index, entry) in table.iter().enumerate() {
        match entry.tag(endian) {
            DT_NEEDED => elf.needed.push(string(entry.val(endian))?.1),
            DT_RPATH | DT_RUNPATH => {
                let (string, value) = string(entry.val(endian))?;
                elf.run_path = Some(RunPath {
                    value,
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
pub(super) fn set_run_path(path: &Path, old: &RunPath, value: &str) -> Result<bool, PathError> {
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
