//! The *machine's programs* in a shell, and the environment's programs for those of the machine: see [`crate::sandbox::cross`].
//!
//! Invariant: nothing of the machine's stands before the environment's own; a program of the machine runs with the machine's
//! root, libraries and variables, and what it starts by name is the environment's where the package asked for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::{BuildError, outside};
use crate::digest::Digest;
use crate::elf::loader::{Files, Loader, Surroundings};
use crate::elf::{self, Elf};
use crate::fsio::{
    IoContext, PathError, TEMPORARY_PREFIX, cached_names, create_dir_all, last_use, note_use, read_limited,
    remove_tree, sorted_names,
};
use crate::sandbox::cross::{CROSSING, Crossing, MACHINE, SIDES, Side};
use crate::shell_word::quoted;

/// Where the links are that stand for the machine's programs.
pub(super) const CROSSING_PROGRAMS: &str = "/layerize/crossing/machine";

/// Where the links are that stand for the environment's.
const CROSSING_BACK: &str = "/layerize/crossing/environment";

/// Directory of links to libraries, relative to that of what crossing needs.
const LIBRARIES: &str = "libraries";

/// Characters of a digest by which links are kept.
const KEY_CHARS: usize = 32;

/// How long links are kept that no shell uses. One that is open all the time lacks the machine's programs then.
const KEPT_FOR: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Variables that are not the one root's or the other's.
const OF_BOTH: [&str; 6] = ["PATH", "PWD", "OLDPWD", "SHLVL", "LAYERIZE_SHELL", "_"];

/// The machine's own file system.
struct MachineFiles;

impl Files for MachineFiles {
    fn elf(&self, path: &str) -> Result<Option<Rc<Elf>>, PathError> {
        match Path::new(path).is_file() {
            true => Ok(elf::read(Path::new(path))?.map(Rc::new)),
            false => Ok(None),
        }
    }

    fn bytes(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>, PathError> {
        match Path::new(path).is_file() {
            true => read_limited(Path::new(path), max).map(Some),
            false => Ok(None),
        }
    }
}

/// A program of the machine that starts in the shell's root, by the machine's own loader.
#[derive(Debug)]
pub(super) struct MachineProgram {
    /// Where it is on the machine.
    path: PathBuf,
    /// Its loader; a static program has none.
    loader: Option<PathBuf>,
    /// Name of its directory of links to libraries.
    name: String,
    /// The directories on the machine in which its libraries are.
    pub library_dirs: Vec<PathBuf>,
}

impl MachineProgram {
    /// The program at `path`, links to whose libraries are made below `crossing`; `None` where it is no program, or lacks a library.
    pub(super) fn find(path: &Path, crossing: &Path) -> Result<Option<Self>, BuildError> {
        let (Ok(path), Some(name)) = (path.canonicalize(), path.file_name()) else {
            return Ok(None);
        };
        let Some(elf) = MachineFiles.elf(&path.to_string_lossy())? else {
            return Ok(None);
        };
        let mut program = Self {
            path,
            loader: None,
            name: name.to_string_lossy().into_owned(),
            library_dirs: Vec::new(),
        };
        let Some(interpreter) = elf.interpreter.clone() else {
            return Ok(Some(program));
        };
        let loader = Loader::new(&interpreter, &MachineFiles)?;
        let shown = program.path.to_string_lossy().into_owned();
        let graph = loader.load(&shown, elf, &Surroundings::default(), &MachineFiles)?;
        if !graph.missing.is_empty() {
            return Ok(None);
        }
        let interpreter = Path::new(&interpreter);
        program.loader = Some(interpreter.canonicalize().context("find", interpreter)?);
        let dir = crossing.join(LIBRARIES).join(&program.name);
        create_dir_all(&dir)?;
        for object in &graph.objects {
            let Some(name) = &object.name else { continue };
            let library = Path::new(&object.path);
            // Links are followed here: an absolute one would lead elsewhere in the shell's root.
            let found = library.canonicalize().context("find", library)?;
            let link = dir.join(name);
            symlink(seen(&found), &link).context("create the link", &link)?;
            let parent = found.parent().unwrap_or(&found).to_owned();
            if !program.library_dirs.contains(&parent) {
                program.library_dirs.push(parent);
            }
        }
        Ok(Some(program))
    }

    /// The text of a script that starts it, with `first` before its arguments.
    pub(super) fn script(&self, first: &str) -> String {
        let program = seen(&self.path);
        let command = match &self.loader {
            None => quoted(&program),
            Some(loader) => {
                let dirs = self.library_dirs.iter().map(|dir| seen(dir).display().to_string());
                let links = format!("{CROSSING}/{LIBRARIES}/{}", self.name);
                let all: Vec<String> = std::iter::once(links).chain(dirs).collect();
                format!(
                    "{} --library-path {} {}",
                    quoted(seen(loader)),
                    quoted(Path::new(&all.join(":"))),
                    quoted(&program)
                )
            }
        };
        format!("#!/bin/sh\nexec {command} {first} \"$@\"\n")
    }
}

/// Where something of the machine is seen in the shell's root.
fn seen(path: &Path) -> PathBuf {
    Path::new(MACHINE).join(path.strip_prefix("/").unwrap_or(path))
}

/// The environment, for what crosses from and to it.
pub(super) struct Environment<'a> {
    /// All variables of the shell.
    pub variables: &'a BTreeMap<String, String>,
    /// All variables of whoever started it.
    pub caller: &'a BTreeMap<String, String>,
    /// The programs that are there because the package asked for them.
    pub programs: BTreeSet<String>,
    /// The program that is layerize.
    pub layerize: &'a Path,
}

/// Writes what crossing needs to `dir`; `None` where that is not possible: layerize itself must start in the shell's root.
/// Gives directories of links that are to be seen in `dir` too, by their names there, where `kept` keeps such.
pub(super) fn prepare(
    dir: &Path,
    kept: Option<&Path>,
    environment: Environment<'_>,
) -> Result<Option<Vec<(String, PathBuf)>>, BuildError> {
    let Some(layerize) = MachineProgram::find(environment.layerize, dir)? else {
        return Ok(None);
    };
    let path = environment.caller.get("PATH").map_or("", String::as_str);
    let machine_dirs: Vec<PathBuf> = path
        .split(':')
        // Those of a shell in which this one is started lead into that, and launchers into shells like this one.
        .filter(|dir| dir.starts_with('/') && !dir.starts_with("/layerize/") && !outside::has_launchers(Path::new(dir)))
        .map(PathBuf::from)
        .collect();
    let home = quoted(&layerize.path);
    for (name, script) in [
        ("machine", layerize.script("__cross \"$0\"")),
        ("environment", format!("#!/bin/sh\nexec {home} __cross \"$0\" \"$@\"\n")),
    ] {
        write_program(&dir.join(format!("to-{name}")), &script)?;
        create_dir_all(&dir.join(name))?;
    }
    let crossing = Crossing {
        environment: side(environment.variables, environment.caller),
        machine: Side {
            path: format!("{CROSSING_BACK}:{path}"),
            ..side(environment.caller, environment.variables)
        },
    };
    let file = dir.join(SIDES);
    let json = serde_json::to_vec(&crossing).unwrap_or_default();
    fs::write(&file, json).context("write", &file)?;
    link_programs(&dir.join("environment"), "environment", &environment.programs)?;
    match kept {
        None => {
            link_programs(&dir.join("machine"), "machine", &programs_in(&machine_dirs))?;
            Ok(Some(Vec::new()))
        }
        Some(kept) => Ok(Some(vec![("machine".to_owned(), kept_links(kept, &machine_dirs)?)])),
    }
}

/// Makes a link in `links` for each program, to the script that crosses to where it is.
fn link_programs(links: &Path, name: &str, programs: &BTreeSet<String>) -> Result<(), PathError> {
    for program in programs {
        let link = links.join(program);
        symlink(format!("../to-{name}"), &link).context("create the link", &link)?;
    }
    Ok(())
}

/// The links for the programs of the machine's `dirs`, made where nothing is kept of these directories as they are.
fn kept_links(kept: &Path, dirs: &[PathBuf]) -> Result<PathBuf, PathError> {
    let mut state = String::new();
    for dir in dirs {
        let changed = dir.metadata().and_then(|metadata| metadata.modified());
        state += &format!("{} {:?}\n", dir.display(), changed.ok());
    }
    let links = kept.join(&Digest::of(state.as_bytes()).hex()[..KEY_CHARS]);
    if note_use(&links) {
        return Ok(links);
    }
    create_dir_all(kept)?;
    for name in cached_names(kept)? {
        let old = kept.join(name);
        let unused = last_use(&old).and_then(|used| used.elapsed().ok());
        if unused.is_some_and(|unused| unused > KEPT_FOR) {
            remove_tree(&old)?;
        }
    }
    let made = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempdir_in(kept);
    let made = made.context("create a directory in", kept)?;
    let new = made.path().join("links");
    create_dir_all(&new)?;
    link_programs(&new, "machine", &programs_in(dirs))?;
    match fs::rename(&new, &links) {
        // Somebody else was faster.
        Err(_) if links.is_dir() => Ok(links),
        renamed => renamed.context("create", &links).map(|()| links),
    }
}

/// What is so where `here` is set, and not where `there` is.
fn side(here: &BTreeMap<String, String>, there: &BTreeMap<String, String>) -> Side {
    let names: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
    let names = names.into_iter().filter(|name| !OF_BOTH.contains(&name.as_str()));
    Side {
        path: here.get("PATH").cloned().unwrap_or_default(),
        variables: names
            .filter(|name| here.get(*name) != there.get(*name))
            .map(|name| (name.clone(), here.get(name).cloned()))
            .collect(),
    }
}

/// The names of the programs in directories; one that cannot be read has none.
pub(super) fn programs_in(dirs: &[PathBuf]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for dir in dirs {
        let names = sorted_names(dir).unwrap_or_default().into_iter();
        for name in names.filter_map(|name| name.into_string().ok()) {
            let is_program = |path: &Path| {
                // A link of a package may be to something that another package has.
                let is_link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
                is_link
                    || path
                        .metadata()
                        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
            };
            if !found.contains(&name) && is_program(&dir.join(&name)) {
                found.insert(name);
            }
        }
    }
    found
}

pub(super) fn write_program(path: &Path, text: &str) -> Result<(), PathError> {
    fs::write(path, text).context("write", path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).context("set the mode of", path)
}
