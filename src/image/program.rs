//! A *program* is the file that a container's command leads to, checked to be there and able to start.
//!
//! Invariant: what the check refuses could not run in the image by itself: the file is missing, not executable, for
//! another processor, or its interpreter is missing (which a kernel reports as if the program itself were).

use std::fs::File;
use std::io::Read;

use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};

use super::error::ImageError;
use super::filesystem::{Content, FileSystem, Found, push, shown};
use super::settings::Settings;
use super::sources::normal_path;
use crate::fsio::{IoContext, PathError};
use crate::oci::Platform;

/// A program's headers and its interpreter's name stand within this many bytes from its start.
const HEAD_MAX: u64 = 1 << 20;

/// Interpreters of interpreters followed (Linux allows 4 scripts in a chain).
const DEPTH_MAX: usize = 5;

/// Checks the command that a container of the image runs. A command below a volume may come with the volume.
///
/// With a base, what is not among `files` may be in the base, whose layers are not read for it: it passes.
pub(super) fn check(
    settings: &Settings,
    files: &FileSystem,
    platform: &Platform,
    over_base: bool,
) -> Result<(), ImageError> {
    let Some((field, command)) = settings.command() else {
        return Ok(());
    };
    let check = Check {
        field,
        command,
        settings,
        files,
        platform,
        over_base,
    };
    match check.find(command)? {
        Some(path) => check.startable(&path, 0),
        None => Ok(()),
    }
}

/// The name among `names` that a misspelt `wanted` most likely means.
pub(super) fn similar<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let limit = (wanted.chars().count() / 3).max(1);
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(wanted, name), name))
        .filter(|&(distance, _)| distance <= limit)
        .min()
        .map(|(_, name)| name.to_owned())
}

struct Check<'a> {
    field: &'static str,
    command: &'a str,
    settings: &'a Settings,
    files: &'a FileSystem,
    platform: &'a Platform,
    over_base: bool,
}

impl Check<'_> {
    /// The command's path without symlinks; `None` where it can only be told at run time.
    fn find(&self, command: &str) -> Result<Option<Vec<u8>>, ImageError> {
        if command.contains('/') {
            let workdir = self.settings.workdir.as_deref().unwrap_or("/");
            let text = if command.starts_with('/') {
                command.to_owned()
            } else {
                format!("{workdir}/{command}")
            };
            let below_volume = self
                .settings
                .volumes
                .iter()
                .any(|volume| text.starts_with(&format!("{volume}/")));
            return match self.files.resolve(text.as_bytes())? {
                Some((path, Found::File { executable: true, .. })) => Ok(Some(path)),
                _ if below_volume => Ok(None),
                Some((_, Found::File { .. })) => Err(self.not_executable(&text)),
                _ if self.over_base => Ok(None),
                _ => Err(self.missing(command)?),
            };
        }
        let mut unusable = None;
        for dir in self.settings.path_dirs() {
            let mut path = dir;
            push(&mut path, command.as_bytes());
            match self.files.resolve(&path)? {
                Some((path, Found::File { executable: true, .. })) => return Ok(Some(path)),
                Some((_, Found::File { .. })) => unusable = unusable.or(Some(path)),
                _ => {}
            }
        }
        match unusable {
            _ if self.over_base => Ok(None),
            Some(path) => Err(self.not_executable(&shown(&path))),
            None => Err(self.missing(command)?),
        }
    }

    fn not_executable(&self, path: &str) -> ImageError {
        ImageError::NotExecutable {
            field: self.field,
            path: path.to_owned(),
        }
    }

    fn missing(&self, command: &str) -> Result<ImageError, PathError> {
        let name = command.rsplit('/').next().unwrap_or(command);
        let mut programs = Vec::new();
        for dir in self.settings.path_dirs() {
            let Some((dir, Found::Directory)) = self.files.resolve(&dir)? else {
                continue;
            };
            for name in self.files.names(&dir)? {
                programs.push(String::from_utf8_lossy(&name).into_owned());
            }
        }
        programs.sort();
        programs.dedup();
        Ok(ImageError::CommandMissing {
            field: self.field,
            command: self.command.to_owned(),
            wanted: command.to_owned(),
            similar: similar(name, programs.iter().map(String::as_str)),
            path: self.settings.env.get("PATH").cloned().unwrap_or_default(),
        })
    }

    /// Checks a file's processor and interpreter.
    fn startable(&self, path: &[u8], depth: usize) -> Result<(), ImageError> {
        let Some(Found::File { content, .. }) = self.files.lookup(path)? else {
            return Ok(());
        };
        let head = read_head(&content)?;
        let interpreter = match head.strip_prefix(b"#!") {
            Some(rest) => script_interpreter(rest),
            None => {
                self.check_machine(path, &head)?;
                elf_interpreter(&head)
            }
        };
        let Some(interpreter) = interpreter.filter(|_| depth < DEPTH_MAX) else {
            return Ok(());
        };
        let absolute = std::str::from_utf8(&interpreter)
            .ok()
            .and_then(|text| normal_path("entrypoint", text).ok());
        let found = match absolute {
            Some(wanted) => self.files.resolve(&wanted)?,
            // Relative interpreters depend on the directory that a container starts in.
            None => return Ok(()),
        };
        match found {
            Some((path, Found::File { executable: true, .. })) => self.startable(&path, depth + 1),
            _ if self.over_base => Ok(()),
            _ => Err(ImageError::InterpreterMissing {
                program: shown(path),
                interpreter: String::from_utf8_lossy(&interpreter).into_owned(),
            }),
        }
    }

    fn check_machine(&self, path: &[u8], head: &[u8]) -> Result<(), ImageError> {
        let (Some(actual), Some(expected)) = (machine(head), expected_machine(self.platform.architecture())) else {
            return Ok(());
        };
        if actual == expected {
            return Ok(());
        }
        Err(ImageError::WrongMachine {
            program: shown(path),
            machine: machine_name(actual),
            platform: Box::new(self.platform.clone()),
        })
    }
}

fn read_head(content: &Content) -> Result<Vec<u8>, PathError> {
    match content {
        Content::Bytes(bytes) => Ok(bytes.to_vec()),
        Content::Disk { physical, .. } => {
            let mut head = Vec::new();
            let file = File::open(physical).context("open", physical)?;
            file.take(HEAD_MAX).read_to_end(&mut head).context("read", physical)?;
            Ok(head)
        }
    }
}

/// The first word after `#!`, as execve(2) reads it.
fn script_interpreter(rest: &[u8]) -> Option<Vec<u8>> {
    let line = rest.split(|&byte| byte == b'\n').next()?;
    let mut words = line
        .split(|byte| b" \t\r".contains(byte))
        .filter(|word| !word.is_empty());
    words.next().map(<[u8]>::to_vec)
}

/// The machine that an ELF file is for (`e_machine`); `None` where it is no ELF file.
fn machine(head: &[u8]) -> Option<elf::Machine> {
    if let Ok(header) = elf::FileHeader64::<Endianness>::parse(head) {
        return Some(header.e_machine.get(header.endian().ok()?));
    }
    let header = elf::FileHeader32::<Endianness>::parse(head).ok()?;
    Some(header.e_machine.get(header.endian().ok()?))
}

fn elf_interpreter(head: &[u8]) -> Option<Vec<u8>> {
    interpreter_of::<elf::FileHeader64<Endianness>>(head)
        .or_else(|| interpreter_of::<elf::FileHeader32<Endianness>>(head))
}

fn interpreter_of<Header: FileHeader<Endian = Endianness>>(head: &[u8]) -> Option<Vec<u8>> {
    let header = Header::parse(head).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, head).ok()?;
    let name = segments
        .iter()
        .find_map(|segment| segment.interpreter(endian, head).ok().flatten());
    name.map(<[u8]>::to_vec)
}

/// Machines of the processors that images are made for.
const MACHINES: &[(&str, elf::Machine)] = &[
    ("386", elf::EM_386),
    ("amd64", elf::EM_X86_64),
    ("arm", elf::EM_ARM),
    ("arm64", elf::EM_AARCH64),
    ("loong64", elf::EM_LOONGARCH),
    ("ppc64le", elf::EM_PPC64),
    ("riscv64", elf::EM_RISCV),
    ("s390x", elf::EM_S390),
];

fn expected_machine(architecture: &str) -> Option<elf::Machine> {
    MACHINES
        .iter()
        .find(|(name, _)| *name == architecture)
        .map(|&(_, machine)| machine)
}

fn machine_name(machine: elf::Machine) -> String {
    let known = MACHINES.iter().find(|&&(_, other)| other == machine);
    known.map_or_else(|| format!("ELF machine {}", machine.0), |(name, _)| (*name).to_owned())
}
