//! To *relink* a program is to give it another interpreter and a run path after its linker is done: Go's own linker and
//! rust-lld pass by the wrapped `ld`.
//!
//! Invariant: no byte of the program moves. Program headers, the dynamic section and its strings are copied behind the
//! file's end, into a segment of their own, with what is to be added; the headers point there. A file with anything
//! behind its last section (a program that carries its data so) is left as it is, as is one that is damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use object::LittleEndian as LE;
use object::elf::{
    DT_NULL, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, Dyn64, FileHeader64, PF_R, PF_W, PT_DYNAMIC, PT_INTERP,
    PT_LOAD, PT_PHDR, ProgramHeader64, SHT_DYNAMIC, SHT_STRTAB, SectionHeader64,
};
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader};

use crate::fsio::{IoContext, PathError, read_limited};

/// Largest program that is edited, in bytes: it is held in memory.
const SIZE_MAX: u64 = 1 << 30;

/// Most bytes of zeros between the old end and what is added: the new segment's addresses follow the old ones'.
const GAP_MAX: u64 = 64 << 20;

/// Largest page of the processors that programs are made for.
const PAGE: u64 = 64 << 10;

type Header = FileHeader64<LE>;
type Segment = ProgramHeader64<LE>;

/// Gives the program at `path` an interpreter and a run path (`DT_RPATH`); false where it cannot be edited.
pub fn relink(path: &Path, interpreter: &str, run_path: &str) -> Result<bool, PathError> {
    let bytes = read_limited(path, SIZE_MAX)?;
    let Some(edited) = edit(&bytes, interpreter, run_path) else {
        return Ok(false);
    };
    let mode = fs::metadata(path).context("read", path)?.permissions().mode();
    fs::set_permissions(path, PermissionsExt::from_mode(mode | 0o600)).context("make writable", path)?;
    fs::write(path, edited).context("edit the run path of", path)?;
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).context("set the mode of", path)?;
    Ok(true)
}

/// Where things are in what is added.
struct AddedPlaces {
    /// Offset in the file of its beginning, which is the program headers'.
    start: u64,
    /// What is added to an offset to get its address.
    shift: u64,
    /// Offset and size of each part.
    headers: (u64, u64),
    strings: (u64, u64),
    interpreter: (u64, u64),
    entries: (u64, u64),
}

fn edit(bytes: &[u8], interpreter: &str, run_path: &str) -> Option<Vec<u8>> {
    let header = Header::parse(bytes).ok()?;
    if !header.is_supported() || !header.is_class_64() || !header.is_little_endian() {
        return None;
    }
    let segments = header.program_headers(LE, bytes).ok()?;
    let sections = header.section_headers(LE, bytes).ok()?;
    if end(header, segments, sections) < bytes.len() as u64 {
        return None;
    }
    let (start, shift) = place_of_segment(segments, bytes.len() as u64)?;
    let table = segments.iter().find(|segment| segment.p_type(LE) == PT_DYNAMIC)?;
    let dynamic = table.dynamic(LE, bytes).ok()??;
    let value = |tag| {
        dynamic
            .iter()
            .find(|entry| entry.tag(LE) == tag)
            .map(|entry| entry.val(LE))
    };
    let (old_strings, size) = (value(DT_STRTAB)?, value(DT_STRSZ)?);
    let mut strings = at_address(bytes, segments, old_strings, size)?.to_vec();
    let run_path_at = push(&mut strings, run_path);
    let interpreter_at = push(&mut strings, interpreter);
    strings.resize(strings.len().next_multiple_of(8), 0);

    let headers_size = (segments.len() as u64 + 1) * size_of::<Segment>() as u64;
    let (strings_at, strings_size) = (start + headers_size, strings.len() as u64);
    let entries = entries(dynamic, strings_at + shift, strings_size, run_path_at);
    let places = AddedPlaces {
        start,
        shift,
        headers: (start, headers_size),
        strings: (strings_at, strings_size),
        interpreter: (strings_at + interpreter_at, interpreter.len() as u64 + 1),
        entries: (strings_at + strings_size, std::mem::size_of_val(&entries[..]) as u64),
    };
    let new_segments = new_segments(segments, &places)?;
    let mut edited = bytes.to_vec();
    edited.resize(usize::try_from(start).ok()?, 0);
    edited.extend_from_slice(object::bytes_of_slice(&new_segments));
    edited.extend_from_slice(&strings);
    edited.extend_from_slice(object::bytes_of_slice(&entries));
    let mut new_header = *header;
    new_header.e_phoff.set(LE, start);
    new_header.e_phnum.set(LE, u16::try_from(new_segments.len()).ok()?);
    edited[..size_of::<Header>()].copy_from_slice(object::bytes_of(&new_header));
    let sections_at = usize::try_from(header.e_shoff(LE)).ok()?;
    let new_sections = new_sections(sections, old_strings, &places);
    let new_sections = object::bytes_of_slice(&new_sections);
    let room = edited.get_mut(sections_at..sections_at.checked_add(new_sections.len())?)?;
    room.copy_from_slice(new_sections);
    Some(edited)
}

/// Where the new segment is in a file of `size` bytes, and what is added to offsets to get addresses.
fn place_of_segment(segments: &[Segment], size: u64) -> Option<(u64, u64)> {
    let loaded = || segments.iter().filter(|segment| segment.p_type(LE) == PT_LOAD);
    let first = loaded().next()?;
    let tops = loaded().map(|segment| segment.p_vaddr(LE).saturating_add(segment.p_memsz(LE)));
    // Kernels before 5.18 tell the program where its headers are by their offset from the first segment's.
    let shift = first.p_vaddr(LE).checked_sub(first.p_offset(LE))?;
    let start = size
        .max(tops.max()?.checked_sub(shift)?)
        .checked_next_multiple_of(PAGE)?;
    // The addresses of all that is added exist.
    start.checked_add(shift)?.checked_add(SIZE_MAX)?;
    (start - size <= GAP_MAX).then_some((start, shift))
}

fn new_segments(old: &[Segment], places: &AddedPlaces) -> Option<Vec<Segment>> {
    let place = |segment: &mut Segment, (at, size): (u64, u64)| {
        segment.p_offset.set(LE, at);
        segment.p_vaddr.set(LE, at + places.shift);
        segment.p_paddr.set(LE, at + places.shift);
        segment.p_filesz.set(LE, size);
        segment.p_memsz.set(LE, size);
    };
    let mut segments = old.to_vec();
    for segment in &mut segments {
        match segment.p_type(LE) {
            PT_PHDR => place(segment, places.headers),
            PT_DYNAMIC => place(segment, places.entries),
            PT_INTERP => place(segment, places.interpreter),
            _ => {}
        }
    }
    // Segments to be loaded stand in the order of their addresses.
    let last = segments.iter().rposition(|segment| segment.p_type(LE) == PT_LOAD)?;
    let mut added = segments[last];
    place(
        &mut added,
        (places.start, places.entries.0 + places.entries.1 - places.start),
    );
    added.p_flags.set(LE, PF_R | PF_W);
    added.p_align.set(LE, PAGE);
    segments.insert(last + 1, added);
    Some(segments)
}

/// The loader does not look at sections; readelf, gdb and strip do.
fn new_sections(old: &[SectionHeader64<LE>], old_strings: u64, places: &AddedPlaces) -> Vec<SectionHeader64<LE>> {
    let mut sections = old.to_vec();
    for section in &mut sections {
        let (at, size) = match section.sh_type(LE) {
            SHT_DYNAMIC => places.entries,
            SHT_STRTAB if section.sh_addr(LE) == old_strings => places.strings,
            _ => continue,
        };
        section.sh_offset.set(LE, at);
        section.sh_addr.set(LE, at + places.shift);
        section.sh_size.set(LE, size);
    }
    sections
}

/// The dynamic section with its strings elsewhere and another run path.
fn entries(old: &[Dyn64<LE>], strings: u64, size: u64, run_path: u64) -> Vec<Dyn64<LE>> {
    let kept = old.iter().filter(|entry| {
        let tag = entry.tag(LE);
        tag != DT_NULL && tag != DT_RPATH && tag != DT_RUNPATH
    });
    let mut entries: Vec<Dyn64<LE>> = kept.copied().collect();
    for entry in &mut entries {
        match entry.tag(LE) {
            DT_STRTAB => entry.d_val.set(LE, strings),
            DT_STRSZ => entry.d_val.set(LE, size),
            _ => {}
        }
    }
    for (tag, value) in [(DT_RPATH, run_path), (DT_NULL, 0)] {
        let mut entry = old[0];
        entry.d_tag.set(LE, tag);
        entry.d_val.set(LE, value);
        entries.push(entry);
    }
    entries
}

fn push(strings: &mut Vec<u8>, text: &str) -> u64 {
    let at = strings.len() as u64;
    strings.extend(text.bytes().chain([0]));
    at
}

fn at_address<'a>(bytes: &'a [u8], segments: &[Segment], address: u64, size: u64) -> Option<&'a [u8]> {
    let segment = segments.iter().find(|segment| {
        let below = address.checked_sub(segment.p_vaddr(LE));
        segment.p_type(LE) == PT_LOAD && below.is_some_and(|below| below < segment.p_filesz(LE))
    })?;
    let start = segment.p_offset(LE).checked_add(address - segment.p_vaddr(LE))?;
    bytes.get(usize::try_from(start).ok()?..usize::try_from(start.checked_add(size)?).ok()?)
}

/// Where the last thing ends that a header names.
fn end(header: &Header, segments: &[Segment], sections: &[SectionHeader64<LE>]) -> u64 {
    let of_segments = segments
        .iter()
        .map(|segment| segment.p_offset(LE).saturating_add(segment.p_filesz(LE)));
    let of_sections = sections.iter().map(|section| {
        section
            .file_range(LE)
            .map_or(0, |(start, size)| start.saturating_add(size))
    });
    let table = header
        .e_shoff(LE)
        .saturating_add(std::mem::size_of_val(sections) as u64);
    of_segments.chain(of_sections).chain([table]).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::elf::read;

    /// A program of the machine's compiler, and the interpreter that it has.
    fn program(dir: &Path, arguments: &[&str]) -> (std::path::PathBuf, String) {
        let (source, file) = (dir.join("main.c"), dir.join("prog"));
        fs::write(
            &source,
            "#include <stdio.h>\nstatic char big[300000];\nint main(void) { puts(\"it runs\"); return big[7]; }",
        )
        .unwrap();
        let mut compiler = Command::new("cc");
        compiler.arg(&source).arg("-o").arg(&file).args(arguments);
        assert!(compiler.status().unwrap().success());
        let interpreter = read(&file).unwrap().unwrap().interpreter.unwrap();
        (file, interpreter)
    }

    #[test]
    fn a_relinked_program_runs_by_its_new_interpreter() {
        for arguments in [&["-pie", "-fPIE"][..], &["-no-pie", "-fno-pie"], &["-s"]] {
            let dir = tempfile::tempdir().unwrap();
            let (file, interpreter) = program(dir.path(), arguments);
            let other = dir.path().join("a-directory-with-a-long-name/ld.so");
            fs::create_dir(other.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(interpreter, &other).unwrap();
            let other = other.to_str().unwrap();
            assert!(relink(&file, other, "/layerize/store/x/lib:$ORIGIN").unwrap());
            let elf = read(&file).unwrap().unwrap();
            assert_eq!(elf.interpreter.as_deref(), Some(other));
            let run_path = elf.run_path.unwrap();
            assert_eq!(
                (run_path.value.as_str(), run_path.is_inherited),
                ("/layerize/store/x/lib:$ORIGIN", true)
            );
            assert!(elf.needed.contains(&"libc.so.6".to_owned()));
            let output = Command::new(&file).output().unwrap();
            assert_eq!(
                String::from_utf8_lossy(&output.stdout),
                "it runs\n",
                "{arguments:?}: {output:?}"
            );
            // An independent reader finds nothing to complain of.
            let output = Command::new("readelf")
                .args(["--all", "--wide"])
                .arg(&file)
                .output()
                .unwrap();
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "{arguments:?}: {output:?}"
            );
            // Once more does no harm.
            assert!(relink(&file, other, "/a").unwrap());
            assert!(Command::new(&file).status().unwrap().success());
            fs::remove_file(other).unwrap();
            assert!(
                Command::new(&file).status().is_err(),
                "the new interpreter is the one that is used"
            );
        }
    }

    #[test]
    fn files_that_cannot_be_edited_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (file, _) = program(dir.path(), &[]);
        let whole = fs::read(&file).unwrap();
        fs::write(&file, [&whole[..], b"payload"].concat()).unwrap();
        assert!(
            !relink(&file, "/ld.so", "/lib").unwrap(),
            "it carries something behind its end"
        );
        for length in (0..whole.len()).step_by(61) {
            assert!(edit(&whole[..length], "/ld.so", "/lib").is_none(), "{length}");
        }
        for index in 16..whole.len().min(1024) {
            let mut bytes = whole.clone();
            bytes[index] = 0xff;
            let _ = edit(&bytes, "/ld.so", "/lib");
        }
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_relink() {
        crate::testing::fuzz("relink", |bytes| {
            if let Some(edited) = super::edit(bytes, "/lib/ld.so", "/usr/lib") {
                assert!(edited.len() > bytes.len());
                let _ = super::super::read_bytes(&edited);
            }
        });
    }
}
