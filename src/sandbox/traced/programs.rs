//! How a traced process *starts a program*: the kernel would look for it, for the interpreter of a script and for a program's
//! loader in the machine's root.
//!
//! Scripts are started as the kernel starts them, by their interpreter. Of a program with a loader a copy is started that names
//! the loader by where it is on the machine; all else of the copy is the program's own, addresses included, and `/proc` says
//! that it is the program. What has no loader is started where it is.
//!
//! Invariant: a copy is of the program as it is now; a program that was changed since is copied anew, and its older copies go.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use rustix::fs::FileType;

use super::view::{Caller, Located, View};

/// Bytes of a file that tell how it is started.
const HEAD: usize = 256;

/// Most interpreters of interpreters.
const NESTED_MAX: usize = 5;

/// Most arguments of a program.
const ARGUMENTS_MAX: usize = 1 << 20;

/// Largest table of a program's parts.
const TABLE_MAX: usize = 64 << 10;

/// How a program is to be started.
pub(super) struct Start {
    /// Where it is on the machine.
    path: Vec<u8>,
    /// The first arguments, where they are not as they were, and where the rest of them is.
    arguments: Result<u64, (Vec<Vec<u8>>, Vec<u64>)>,
    /// Where the environment is.
    pub environment: u64,
    /// What it was called.
    pub name: Vec<u8>,
}

impl Start {
    /// Most bytes that it takes.
    pub fn size(&self) -> u64 {
        let arguments = match &self.arguments {
            Ok(_) => 0,
            Err((first, rest)) => {
                first.iter().map(|text| text.len() + 1).sum::<usize>() + (first.len() + rest.len() + 2) * 8
            }
        };
        (self.path.len() + 1 + arguments) as u64
    }

    /// What is to be at this address of the process, the path first; and where the arguments are then.
    pub fn laid_at(&self, address: u64) -> (Vec<u8>, u64) {
        let mut bytes = [&self.path[..], b"\0"].concat();
        let (first, rest) = match &self.arguments {
            Ok(arguments) => return (bytes, *arguments),
            Err(changed) => changed,
        };
        let mut pointers = Vec::new();
        for text in first {
            pointers.push(address + bytes.len() as u64);
            bytes.extend_from_slice(text);
            bytes.push(0);
        }
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let arguments = address + bytes.len() as u64;
        for pointer in pointers.iter().chain(rest).chain([&0]) {
            bytes.extend_from_slice(&pointer.to_ne_bytes());
        }
        (bytes, arguments)
    }
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    device: u64,
    number: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
    loader: Vec<u8>,
}

/// A copy of a program, and the one before it.
struct Copy {
    state: State,
    copy: PathBuf,
    last: Option<PathBuf>,
}

/// What finds out how programs are started.
pub(super) struct Starter<'a> {
    view: &'a View,
    /// Where copies are made.
    dir: PathBuf,
    /// The copies, by where their originals are.
    copies: RefCell<BTreeMap<PathBuf, Copy>>,
    /// Links to interpreters, by what they lead to and what they are called.
    links: RefCell<BTreeMap<(PathBuf, Vec<u8>), PathBuf>>,
    /// How many directories were made.
    made: Cell<u64>,
}

impl<'a> Starter<'a> {
    pub fn new(view: &'a View) -> Self {
        Self {
            view,
            dir: view.place().with_file_name("programs"),
            copies: RefCell::default(),
            links: RefCell::default(),
            made: Cell::default(),
        }
    }

    /// How what the arguments of a call name is started.
    pub fn start(
        &self,
        caller: Caller,
        directory: i32,
        path: &[u8],
        flags: i32,
        arguments: u64,
        environment: u64,
    ) -> Result<Start, Errno> {
        let is_held = path.is_empty() && flags & libc::AT_EMPTY_PATH != 0;
        let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
        let mut program = match is_held {
            true => caller.held(directory)?,
            false => self.view.locate(caller, directory, path, follow)?,
        };
        let called = match (directory, path) {
            (libc::AT_FDCWD, path) => path.to_vec(),
            (_, path) if path.starts_with(b"/") => path.to_vec(),
            (directory, b"") => format!("/dev/fd/{directory}").into_bytes(),
            (directory, path) => [format!("/dev/fd/{directory}/").as_bytes(), path].concat(),
        };
        let mut name = called.clone();
        let mut first: Option<Vec<Vec<u8>>> = None;
        for depth in 0.. {
            check_startable(&program)?;
            let head = head_of(&program)?;
            if !head.starts_with(b"#!") {
                break;
            }
            if depth >= NESTED_MAX {
                return Err(Errno::ELOOP);
            }
            let (interpreter, argument) = interpreter_of(&head).ok_or(Errno::ENOEXEC)?;
            let mut now = vec![interpreter.clone()];
            now.extend(argument);
            now.push(name);
            now.extend(first.into_iter().flatten().skip(1));
            first = Some(now);
            program = self.view.locate(caller, libc::AT_FDCWD, &interpreter, true)?;
            name = interpreter;
        }
        let mut path = self.startable(caller, &program)?;
        if first.is_some() {
            path = self.linked(&path, &called)?;
        }
        let mut path = path.into_os_string().into_encoded_bytes();
        // It is where the name is put once the program is there.
        let missing = called.len().saturating_sub(path.len());
        path.splice(..0, std::iter::repeat_n(b'/', missing));
        let arguments = match first {
            None => Ok(arguments),
            Some(first) => Err((first, rest_of(caller, arguments)?)),
        };
        Ok(Start {
            path,
            arguments,
            environment,
            name: called,
        })
    }

    /// A link to an interpreter that is named as its script: so the process is, too (`/proc/self/comm`).
    fn linked(&self, interpreter: &Path, script: &[u8]) -> Result<PathBuf, Errno> {
        let name = script.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let mut links = self.links.borrow_mut();
        let key = (interpreter.to_owned(), name.to_vec());
        if let Some(link) = links.get(&key) {
            return Ok(link.clone());
        }
        let link = self.new_dir()?.join(OsStr::from_bytes(name));
        symlink(interpreter, &link).map_err(|error| errno_of(&error))?;
        links.insert(key, link.clone());
        Ok(link)
    }

    fn new_dir(&self) -> Result<PathBuf, Errno> {
        let number = self.made.replace(self.made.get() + 1);
        let dir = self.dir.join(number.to_string());
        fs::create_dir_all(&dir).map_err(|error| errno_of(&error))?;
        Ok(dir)
    }

    /// Where the kernel is to start a program.
    fn startable(&self, caller: Caller, program: &Located) -> Result<PathBuf, Errno> {
        let place = PathBuf::from(OsStr::from_bytes(&program.place()?));
        let Ok(file) = File::open(OsStr::from_bytes(program.handle().to_bytes())) else {
            return Ok(place);
        };
        let Some(elf) = Elf::read(&file)? else {
            return Ok(place);
        };
        let Some(loader) = elf.loader(&file)? else {
            return Ok(place);
        };
        let loader = self.view.locate(caller, libc::AT_FDCWD, &loader, true)?;
        check_startable(&loader)?;
        let loader = loader.place()?;
        let status = program.stat()?;
        let state = State {
            device: status.st_dev,
            number: status.st_ino,
            size: status.st_size,
            modified: (status.st_mtime, status.st_mtime_nsec as i64),
            changed: (status.st_ctime, status.st_ctime_nsec as i64),
            loader,
        };
        let mut copies = self.copies.borrow_mut();
        let known = copies.get(&place);
        if let Some(known) = known.filter(|known| known.state == state) {
            return Ok(known.copy.clone());
        }
        // Somebody may be about to start the last one: the one before it goes.
        let last = known.map(|known| known.copy.clone());
        if let Some(before) = known.and_then(|known| known.last.as_ref()) {
            let _ = fs::remove_file(before);
        }
        let copy = self.new_dir()?.join(place.file_name().unwrap_or(OsStr::new("program")));
        elf.copy(&file, &copy, &state.loader)
            .map_err(|error| errno_of(&error))?;
        self.view.note_copy(&copy, &place);
        let made = Copy {
            state,
            copy: copy.clone(),
            last,
        };
        copies.insert(place, made);
        Ok(copy)
    }
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Refuses what the kernel would not start.
fn check_startable(program: &Located) -> Result<(), Errno> {
    let kind = FileType::from_raw_mode(program.stat()?.st_mode);
    let may = kind == FileType::RegularFile
        && nix::unistd::access(program.handle().as_c_str(), nix::unistd::AccessFlags::X_OK).is_ok();
    if may { Ok(()) } else { Err(Errno::EACCES) }
}

/// The first bytes of a file; none of one that may be started and not read.
fn head_of(program: &Located) -> Result<Vec<u8>, Errno> {
    let mut head = vec![0; HEAD];
    let Ok(file) = File::open(OsStr::from_bytes(program.handle().to_bytes())) else {
        return Ok(Vec::new());
    };
    let mut read = 0;
    while read < HEAD {
        match file.read_at(&mut head[read..], read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) => return Err(errno_of(&error)),
        }
    }
    head.truncate(read);
    Ok(head)
}

/// The interpreter that a script names in its first line, and the argument that it names for it.
fn interpreter_of(head: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let text = &head[2..];
    let end = text.iter().position(|&byte| byte == b'\n');
    let line = match end {
        Some(end) => &text[..end],
        // A line that goes on is cut off, but not within the interpreter's name.
        None if head.len() < HEAD => text,
        None => {
            let start = text.iter().position(|byte| !is_blank(byte))?;
            text[start..].iter().position(is_blank)?;
            text
        }
    };
    let line = line.split(|&byte| byte == 0).next().unwrap_or_default();
    let start = line.iter().position(|byte| !is_blank(byte))?;
    let stop = line.iter().rposition(|byte| !is_blank(byte))?;
    let line = &line[start..=stop];
    let name = line.iter().position(is_blank).unwrap_or(line.len());
    let argument = line[name..].iter().position(|byte| !is_blank(byte));
    let argument = argument.map(|start| line[name + start..].to_vec());
    Some((line[..name].to_vec(), argument))
}

/// Where the arguments are but for the first.
fn rest_of(caller: Caller, arguments: u64) -> Result<Vec<u64>, Errno> {
    let mut all = Vec::new();
    if arguments == 0 {
        return Ok(all);
    }
    loop {
        if all.len() > ARGUMENTS_MAX {
            return Err(Errno::E2BIG);
        }
        match caller.memory.word(arguments.wrapping_add(8 * all.len() as u64))? {
            0 => break,
            argument => all.push(argument),
        }
    }
    Ok(all.into_iter().skip(1).collect())
}

/// What of a program's table of parts (`elf.h`) is needed.
struct Elf {
    /// Where the description of the part is that names the loader, and what it says: offset and size.
    loader: Option<(u64, u64, u64)>,
}

impl Elf {
    const HEADER: usize = 64;
    const ENTRY: usize = 56;
    const NAMES_LOADER: u32 = 3;

    #[cfg(target_arch = "aarch64")]
    const MACHINE: u16 = 183;
    #[cfg(not(target_arch = "aarch64"))]
    const MACHINE: u16 = 62;

    /// Machines whose programs the kernel would start, and whose calls nobody here knows.
    #[cfg(target_arch = "aarch64")]
    const SIBLING: u16 = 40;
    #[cfg(not(target_arch = "aarch64"))]
    const SIBLING: u16 = 3;

    /// `None`: it is no program for this machine, and the kernel knows what to do with it.
    fn read(file: &File) -> Result<Option<Self>, Errno> {
        let mut header = [0; Self::HEADER];
        if file.read_exact_at(&mut header, 0).is_err() || !header.starts_with(b"\x7fELF") {
            return Ok(None);
        }
        let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let (is_long, machine) = (header[4] == 2, short(18));
        if !is_long && [Self::MACHINE, Self::SIBLING].contains(&machine) {
            return Err(Errno::ENOEXEC);
        }
        if machine != Self::MACHINE || usize::from(short(54)) != Self::ENTRY {
            return Ok(None);
        }
        let table = word_at(&header, 32);
        let mut entries = vec![0; (usize::from(short(56)) * Self::ENTRY).min(TABLE_MAX)];
        if file.read_exact_at(&mut entries, table).is_err() {
            return Ok(None);
        }
        let kind = |entry: &[u8]| u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
        let mut all = entries.chunks_exact(Self::ENTRY).enumerate();
        let found = all.find(|(_, entry)| kind(entry) == Self::NAMES_LOADER);
        let loader = found.map(|(index, entry)| {
            let at = table + (index * Self::ENTRY) as u64;
            (at, word_at(entry, 8), word_at(entry, 32))
        });
        Ok(Some(Self { loader }))
    }

    /// The loader's path.
    fn loader(&self, file: &File) -> Result<Option<Vec<u8>>, Errno> {
        let Some((_, offset, size)) = self.loader else {
            return Ok(None);
        };
        let mut path = vec![0; usize::try_from(size).unwrap_or(usize::MAX).min(super::memory::PATH_MAX)];
        if file.read_exact_at(&mut path, offset).is_err() || path.pop() != Some(0) {
            return Err(Errno::ENOEXEC);
        }
        Ok(Some(path))
    }

    /// Copies the program to `copy`, with a loader that stands at the end of the file.
    fn copy(&self, mut file: &File, copy: &Path, loader: &[u8]) -> io::Result<()> {
        let mut to = File::options().write(true).create_new(true).mode(0o755).open(copy)?;
        io::copy(&mut file, &mut to)?;
        let end = to.metadata()?.len();
        let name = [loader, b"\0"].concat();
        to.write_all_at(&name, end)?;
        if let Some((entry, ..)) = self.loader {
            to.write_all_at(&end.to_le_bytes(), entry + 8)?;
            to.write_all_at(&(name.len() as u64).to_le_bytes(), entry + 32)?;
        }
        Ok(())
    }
}

fn word_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_read_as_the_kernel_reads_them() {
        let long = format!("#!/{}", "x".repeat(HEAD));
        let cut = format!("#!/bin/sh {}", "x".repeat(HEAD));
        let rest = "x".repeat(HEAD - 10);
        for (head, expected) in [
            ("#!/bin/sh\n", Some(("/bin/sh", None))),
            ("#! \t/bin/sh -e  \n", Some(("/bin/sh", Some("-e")))),
            ("#!/usr/bin/env  -S a b\nx", Some(("/usr/bin/env", Some("-S a b")))),
            ("#!/bin/sh", Some(("/bin/sh", None))),
            ("#!\n", None),
            ("#!   \n/bin/sh", None),
            (&long, None),
            (&cut, Some(("/bin/sh", Some(rest.as_str())))),
        ] {
            let head = &head.as_bytes()[..head.len().min(HEAD)];
            let found = interpreter_of(head);
            let expected = expected
                .map(|(name, argument)| (name.as_bytes().to_vec(), argument.map(|text| text.as_bytes().to_vec())));
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn arguments_are_laid_out_where_they_are_said_to_be() {
        let start = Start {
            path: b"/p".to_vec(),
            arguments: Err((vec![b"sh".to_vec(), b"script".to_vec()], vec![7, 9])),
            environment: 5,
            name: Vec::new(),
        };
        let (bytes, arguments) = start.laid_at(0x1000);
        assert!(bytes.len() as u64 <= start.size() + 8, "{}", bytes.len());
        let at = usize::try_from(arguments - 0x1000).unwrap();
        let words: Vec<u64> = bytes[at..]
            .chunks_exact(8)
            .map(|word| u64::from_ne_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(words, [0x1003, 0x1006, 7, 9, 0]);
        assert_eq!(&bytes[..13], b"/p\0sh\0script\0");
    }
}
