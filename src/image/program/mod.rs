//! A *program* is a file that a container runs, checked to be there and able to start.
//!
//! Invariant: what the check refuses could not run in the image by itself: a file that is missing, not executable, for
//! another processor, or that lacks its interpreter or a library where its loader looks for it.
//!
//! What is checked, each with all that it leads to:
//! * the command of a container (`entrypoint`, else `cmd`), with the interpreters of scripts and what `env` runs;
//! * the command of its health check, likewise;
//! * every ELF program that the spec's own packages bring;
//! * every ELF library that they bring and that no program of theirs loads: what it needs must be somewhere in the image,
//!   for it may be loaded by a program that has it in memory already.
//!
//! What Debian packages and Nix stores bring is checked as far as the command needs it: they hold plugins for what
//! is not installed. `allow-missing` names what comes from elsewhere at run time.
//!
//! Over a base, whose layers are not read for it, what is not found may be the base's: it is told and no error.

mod fault;
mod script;
mod view;

pub use fault::{Lack, LoadFault, Owner};

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use object::elf;

use super::error::ImageError;
use super::filesystem::{Content, FileSystem, Found, absolute, push, shown};
use super::recipe::{ClosureMember, Recipe};
use super::settings::Settings;
use super::sources::normal_path;
use crate::elf::Elf;
use crate::elf::loader::{Files, Loader, Missing, Surroundings};
use crate::fsio::PathError;
use crate::oci::Platform;
use script::Line;
use view::View;

/// A script's first line stands within this many bytes from its start.
const HEAD_MAX: u64 = 4096;

/// Interpreters of interpreters followed (Linux allows 4 scripts in a chain).
const DEPTH_MAX: usize = 5;

/// Loaders by their usual places, for libraries that no program of the image leads to.
const LOADERS: &[(&str, &str)] = &[
    ("amd64", "/lib64/ld-linux-x86-64.so.2"),
    ("arm64", "/lib/ld-linux-aarch64.so.1"),
    ("386", "/lib/ld-linux.so.2"),
    ("arm", "/lib/ld-linux-armhf.so.3"),
    ("loong64", "/lib64/ld-linux-loongarch-lp64d.so.1"),
    ("ppc64le", "/lib64/ld64.so.2"),
    ("riscv64", "/lib/ld-linux-riscv64-lp64d.so.1"),
    ("s390x", "/lib/ld64.so.1"),
    ("amd64", "/lib/ld-musl-x86_64.so.1"),
    ("arm64", "/lib/ld-musl-aarch64.so.1"),
];

/// A Debian package's tree has its own record here.
const STATUS_DIR: &str = "var/lib/dpkg/status.d";

/// Checks the command that a container of the image runs, and the programs and libraries of the spec's packages. A
/// command below a volume may come with the volume.
///
/// Gives what was not found and may be in the base.
pub(super) fn check(recipe: &Recipe, settings: &Settings, files: &FileSystem) -> Result<Vec<String>, ImageError> {
    let check = ProgramCheck {
        recipe,
        settings,
        files,
        view: View::new(files),
        platform: &recipe.platform,
        over_base: recipe.base.is_some(),
        surroundings: surroundings(settings),
        loaders: RefCell::default(),
        faults: RefCell::default(),
        loaded: RefCell::default(),
    };
    let health = recipe.spec.health_command().first();
    let health = health.map(|command| ("healthcheck", command.as_str()));
    for (field, command) in settings.command().into_iter().chain(health) {
        if let Some(path) = check.find(field, command)? {
            check.startable(&path, 0)?;
        }
    }
    check.packages()?;
    let mut faults = check.faults.into_inner();
    faults.retain(|fault| {
        let name = fault.lack.name();
        !name.is_some_and(|name| recipe.spec.allow_missing.iter().any(|allowed| allowed == name))
    });
    faults.sort_by(|a, b| a.file.cmp(&b.file));
    faults.dedup();
    let (unknown, faults): (Vec<_>, Vec<_>) = faults
        .into_iter()
        .partition(|fault| check.over_base && fault.lack.name().is_some());
    match faults.is_empty() {
        false => Err(ImageError::CannotLoad { faults }),
        true => {
            let names: BTreeSet<String> = unknown
                .iter()
                .filter_map(|fault| Some(fault.lack.name()?.to_owned()))
                .collect();
            Ok(names.into_iter().collect())
        }
    }
}

/// Whether the image has a file of this name, whatever directory it is in.
pub(super) fn is_anywhere(name: &str, files: &FileSystem) -> Result<bool, ImageError> {
    Ok(View::new(files).anywhere(name)?.is_some())
}

fn surroundings(settings: &Settings) -> Surroundings {
    let library_path = settings.env.get("LD_LIBRARY_PATH").filter(|path| !path.is_empty());
    Surroundings {
        // ld.so(8): entries are separated by colons or semicolons.
        library_path: library_path
            .into_iter()
            .flat_map(|path| path.split([':', ';']))
            .map(str::to_owned)
            .collect(),
        workdir: settings.workdir.clone().unwrap_or_else(|| "/".to_owned()),
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

struct ProgramCheck<'a> {
    recipe: &'a Recipe,
    settings: &'a Settings,
    files: &'a FileSystem,
    view: View<'a>,
    platform: &'a Platform,
    over_base: bool,
    surroundings: Surroundings,
    /// By the path that programs name.
    loaders: RefCell<BTreeMap<String, Rc<Loader>>>,
    faults: RefCell<Vec<LoadFault>>,
    /// Paths without symlinks of what some program loads.
    loaded: RefCell<BTreeSet<String>>,
}

impl ProgramCheck<'_> {
    /// The command's path without symlinks; `None` where it can only be told at run time.
    fn find(&self, field: &'static str, command: &str) -> Result<Option<Vec<u8>>, ImageError> {
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
                Some((_, Found::File { .. })) => Err(not_executable(field, &text)),
                _ if self.over_base => Ok(None),
                _ => Err(self.missing(field, command)?),
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
            Some(path) => Err(not_executable(field, &shown(&path))),
            None => Err(self.missing(field, command)?),
        }
    }

    fn missing(&self, field: &'static str, command: &str) -> Result<ImageError, PathError> {
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
            field,
            command: command.to_owned(),
            wanted: command.to_owned(),
            similar: similar(name, programs.iter().map(String::as_str)),
            path: self.settings.env.get("PATH").cloned().unwrap_or_default(),
        })
    }

    /// Checks a file that is run: its processor, its interpreter, its libraries.
    fn startable(&self, path: &[u8], depth: usize) -> Result<(), ImageError> {
        let Some(Found::File { content, .. }) = self.files.lookup(path)? else {
            return Ok(());
        };
        let file = text(path);
        if let Some(elf) = self.view.elf(&file)? {
            self.check_machine(path, &elf)?;
            return Ok(self.loadable(&file, &elf)?);
        }
        let head = view::head(&content, HEAD_MAX)?;
        let (interpreter, command) = match script::first_line(&head) {
            Line::Interpreter { path, command } => (path, command),
            Line::Malformed { reason, help } => {
                self.fault(&file, Lack::Malformed { reason, help })?;
                return Ok(());
            }
            // A shell would run it and the kernel does not: runc says "exec format error". `env` does as shells do.
            Line::None if depth == 0 && script::is_text(&head) && !head.starts_with(script::MARK) => {
                let lack = Lack::Malformed {
                    reason: "it is a text that does not begin with `#!`, which only a shell would run (a container's \
                             runtime says \"exec format error\")"
                        .to_owned(),
                    help: format!(
                        "write `#!/bin/sh`, or its own interpreter, as its first line, or have that run it: `entrypoint = \
                         [\"/bin/sh\", \"{file}\"]`, or `run` of a health check likewise"
                    ),
                };
                self.fault(&file, lack)?;
                return Ok(());
            }
            // A kernel may have been told how to run other kinds of files (binfmt_misc).
            Line::None => return Ok(()),
        };
        if depth >= DEPTH_MAX {
            return Ok(());
        }
        // Relative interpreters depend on the directory that a container starts in.
        let Ok(wanted) = normal_path("entrypoint", &interpreter) else {
            return Ok(());
        };
        match self.files.resolve(&wanted)? {
            Some((path, Found::File { executable: true, .. })) => self.startable(&path, depth + 1)?,
            _ => self.fault(&file, Lack::Interpreter(interpreter))?,
        }
        match command {
            Some(command) => self.command_of_env(&file, &command, depth),
            None => Ok(()),
        }
    }

    /// Checks what `env` is to run.
    fn command_of_env(&self, file: &str, command: &str, depth: usize) -> Result<(), ImageError> {
        if command.contains('/') {
            return Ok(());
        }
        for mut path in self.settings.path_dirs() {
            push(&mut path, command.as_bytes());
            if let Some((path, Found::File { executable: true, .. })) = self.files.resolve(&path)? {
                return self.startable(&path, depth + 1);
            }
        }
        Ok(self.fault(file, Lack::Command(command.to_owned()))?)
    }

    /// Checks the interpreter and the libraries of an ELF file that is run.
    fn loadable(&self, file: &str, elf: &Rc<Elf>) -> Result<(), PathError> {
        let Some(interpreter) = &elf.interpreter else {
            return Ok(());
        };
        if !interpreter.starts_with('/') {
            return Ok(());
        }
        if self.view.real(interpreter)?.is_none() {
            self.fault(file, Lack::Interpreter(interpreter.clone()))?;
            // What is usual for such a loader cannot be found where not even the loader is.
            return Ok(());
        }
        let loader = self.loader(interpreter)?;
        let graph = loader.load(file, elf.clone(), &self.surroundings, &self.view)?;
        for object in &graph.objects {
            self.loaded.borrow_mut().extend(self.view.real(&object.path)?);
        }
        for missing in graph.missing {
            self.fault_of(file, missing, false)?;
        }
        Ok(())
    }

    fn loader(&self, path: &str) -> Result<Rc<Loader>, PathError> {
        if let Some(loader) = self.loaders.borrow().get(path) {
            return Ok(loader.clone());
        }
        let loader = Rc::new(Loader::new(path, &self.view)?);
        self.loaders.borrow_mut().insert(path.to_owned(), loader.clone());
        Ok(loader)
    }

    /// Checks the programs, then the libraries of the spec's own packages.
    fn packages(&self) -> Result<(), ImageError> {
        let mut libraries = Vec::new();
        for member in &self.recipe.closure {
            if !member.is_built || is_debian(member) {
                continue;
            }
            let top = normal_path("contents", member.logical.as_str())?;
            self.files.for_each_below(top, |path, found| {
                let Found::File { content, executable } = found else {
                    return Ok(());
                };
                let file = text(path);
                match self.elf_of(&file, &content)? {
                    Some(elf) if elf.interpreter.is_some() && executable => self.loadable(&file, &elf)?,
                    Some(elf) if !elf.needed.is_empty() => libraries.push((file, elf)),
                    _ => {}
                }
                Ok::<(), ImageError>(())
            })?;
        }
        self.libraries(libraries)
    }

    /// An ELF file for the image's processor.
    fn elf_of(&self, file: &str, content: &Content) -> Result<Option<Rc<Elf>>, PathError> {
        let size = match content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Disk { size, .. } => *size,
        };
        if size < crate::elf::MAGIC.len() as u64 {
            return Ok(None);
        }
        let expected = expected_machine(self.platform.architecture());
        let elf = self.view.elf_in(file, content)?;
        Ok(elf.filter(|elf| expected.is_none_or(|expected| elf.machine == expected)))
    }

    /// Checks libraries that no program of the packages loads by itself.
    fn libraries(&self, libraries: Vec<(String, Rc<Elf>)>) -> Result<(), ImageError> {
        let mut loaders: Vec<Rc<Loader>> = self.loaders.borrow().values().cloned().collect();
        let usual = || {
            let usual = LOADERS.iter();
            usual.filter(|(architecture, _)| *architecture == self.platform.architecture())
        };
        for (_, path) in usual() {
            if self.view.real(path)?.is_some() {
                loaders.push(self.loader(path)?);
            }
        }
        if loaders.is_empty() {
            for (_, path) in usual() {
                loaders.push(self.loader(path)?);
            }
        }
        for (file, elf) in libraries {
            if self.loaded.borrow().contains(&file) {
                continue;
            }
            // One for another C library is for another image: packages of Node bring both kinds.
            let Some(loader) = loaders.iter().find(|loader| loader.fits(&elf)) else {
                continue;
            };
            for missing in loader.load(&file, elf, &self.surroundings, &self.view)?.missing {
                if self.view.anywhere(&missing.name)?.is_none() {
                    self.fault_of(&file, missing, true)?;
                }
            }
        }
        Ok(())
    }

    fn fault_of(&self, file: &str, missing: Missing, for_library: bool) -> Result<(), PathError> {
        let Missing {
            name,
            needed_by,
            searched,
        } = missing;
        let elsewhere = match self.over_base || name.contains('/') {
            true => None,
            false => self.view.anywhere(&name)?,
        };
        let lack = Lack::Library {
            needed_by: (needed_by != file).then_some(needed_by),
            elsewhere,
            name,
            searched,
            for_library,
        };
        self.fault(file, lack)
    }

    fn fault(&self, file: &str, lack: Lack) -> Result<(), PathError> {
        let dangling = match &lack {
            Lack::Interpreter(path) => self.files.dangling(path.as_bytes())?,
            Lack::Library { name, searched, .. } => {
                let mut dangling = None;
                for dir in searched {
                    let path = format!("{dir}/{name}");
                    dangling = dangling.or(self.files.dangling(path.as_bytes())?);
                }
                // A directory that is a link to nowhere is not where it was meant to be.
                dangling.filter(|(link, _)| link.ends_with(name.as_bytes()))
            }
            Lack::Command(_) | Lack::Malformed { .. } => None,
        };
        let package = lack.name().and_then(fault::well_known_package).map(str::to_owned);
        let fault = LoadFault {
            owner: self.owner(file)?,
            file: file.to_owned(),
            lack,
            dangling: dangling.map(|(link, target)| (shown(&link), crate::escape::shown_bytes(&target))),
            package,
            left_out: Vec::new(),
        };
        self.faults.borrow_mut().push(fault);
        Ok(())
    }

    fn owner(&self, file: &str) -> Result<Owner, PathError> {
        let mut members = self.recipe.closure.iter();
        let member = members.find(|member| {
            let below = file.strip_prefix(member.logical.as_str());
            below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
        });
        let Some(member) = member else {
            let is_root = self.files.node(file.trim_start_matches('/').as_bytes());
            return Ok(match is_root.map(|node| node.origin) {
                Some(super::filesystem::Origin::Root) => Owner::Root,
                _ => Owner::Other,
            });
        };
        if let Some(package) = debian_name(member) {
            return Ok(Owner::DebianContent(package));
        }
        if !member.is_built {
            return Ok(Owner::Other);
        }
        let elf = self.view.elf(file)?;
        let store = crate::store_path::StoreDir::LAYERIZE;
        let is_linked = elf.is_some_and(|elf| {
            let interpreter = elf.interpreter.as_deref().unwrap_or_default();
            let run_path = elf.run_path.as_ref().map_or("", |run_path| run_path.value.as_str());
            interpreter.starts_with(store) || run_path.contains(store)
        });
        Ok(Owner::Built {
            name: member.name.clone(),
            is_linked,
        })
    }

    fn check_machine(&self, path: &[u8], elf: &Elf) -> Result<(), ImageError> {
        match expected_machine(self.platform.architecture()) {
            Some(expected) if elf.machine != expected => Err(ImageError::WrongMachine {
                program: shown(path),
                machine: machine_name(elf.machine),
                platform: Box::new(self.platform.clone()),
            }),
            _ => Ok(()),
        }
    }
}

fn not_executable(field: &'static str, path: &str) -> ImageError {
    ImageError::NotExecutable {
        field,
        path: path.to_owned(),
    }
}

/// A path of the file system as loaders take it.
fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(&absolute(path)).into_owned()
}

fn is_debian(member: &ClosureMember) -> bool {
    member.physical.join(STATUS_DIR).is_dir()
}

/// The name of the Debian package that a store path holds.
fn debian_name(member: &ClosureMember) -> Option<String> {
    let names = crate::fsio::sorted_names(&member.physical.join(STATUS_DIR)).ok()?;
    Some(names.first()?.to_string_lossy().into_owned())
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
