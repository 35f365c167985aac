//! The *helper* that travels: this very program, for workers that only change to the directory of what they are sent. There
//! it makes the walls in which the step runs.
//!
//! Invariant: the helper's tree is a function of the files of this program, and so of its version alone: which libraries
//! travel is decided by what the program says that it needs, and never by what happens to be in memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::blob::Blob;
use super::error::RemoteError;
use super::tree::{Contents, Dir, Leaf, Node};
use crate::digest::HashingWriter;
use crate::elf;
use crate::fsio::{IoContext, read_limited};

/// Where the helper is in what a worker is sent.
pub(super) const PLACE: &str = "layerize-worker";

/// Where that is which becomes the root.
pub(super) const ROOT: &str = "root";

/// The argument with which the program is the helper at a worker.
pub const WORKER: &str = "__worker";

/// Largest list of what is in memory, in bytes.
const MAPS_MAX: u64 = 16 << 20;

/// Names in the helper's directory.
const PROGRAM: &str = "program";
const LOADER: &str = "loader";
const LIBRARIES: &str = "lib";

/// By which loaders of either C library are told where libraries are.
const LIBRARY_PATH: &str = "--library-path";

/// A program and what travels with it.
pub(super) struct Helper {
    /// The directory, without the plan of a step.
    pub dir: Arc<Dir>,
    /// What starts it, relative to what a worker is sent.
    pub command: Vec<String>,
}

/// The helper, once it is wanted.
#[derive(Default)]
pub(super) struct Helpers(Mutex<Option<Arc<Helper>>>);

impl Helpers {
    /// The helper: `program`, or this one.
    pub(super) fn of(&self, program: Option<&Path>) -> Result<Arc<Helper>, RemoteError> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(helper) = &*made {
            return Ok(helper.clone());
        }
        let helper = Arc::new(pack(program.unwrap_or(Path::new("/proc/self/exe")))?);
        *made = Some(helper.clone());
        Ok(helper)
    }
}

/// Finds what `program` needs to run where nothing is.
fn pack(program: &Path) -> Result<Helper, RemoteError> {
    let mut entries = BTreeMap::from([(PROGRAM.to_owned(), leaf(program)?)]);
    let own = |name: &str| format!("{PLACE}/{name}");
    let mut command = Vec::new();
    let elf = elf::read(program)?.unwrap_or_default();
    if let Some(interpreter) = &elf.interpreter {
        entries.insert(LOADER.to_owned(), leaf(Path::new(interpreter))?);
        let mut libraries = BTreeMap::new();
        for (name, path) in libraries_of(program, &elf, Path::new(interpreter))? {
            libraries.insert(name, leaf(&path)?);
        }
        entries.insert(LIBRARIES.to_owned(), Node::Dir(Dir::new(libraries)));
        command.extend([own(LOADER), LIBRARY_PATH.to_owned(), own(LIBRARIES)]);
    }
    command.extend([own(PROGRAM), WORKER.to_owned()]);
    Ok(Helper {
        dir: Dir::new(entries),
        command,
    })
}

/// What starts the program of a helper that is below `dir`, an absolute path, where a loader came with it.
pub(super) fn starter(dir: &Path) -> Option<Vec<OsString>> {
    let own = dir.join(PLACE);
    let loader = own.join(LOADER);
    loader.exists().then(|| {
        let [libraries, program] = [LIBRARIES, PROGRAM].map(|name| own.join(name).into());
        vec![loader.into(), LIBRARY_PATH.into(), libraries, program]
    })
}

/// A program or library of this machine.
fn leaf(path: &Path) -> Result<Node, RemoteError> {
    let mut file = File::open(path).context("open", path)?;
    let mut sink = HashingWriter::new(io::sink());
    io::copy(&mut file, &mut sink).context("read", path)?;
    let (_, hasher, size) = sink.finish();
    let digest = hasher.digest();
    Ok(Node::File(Leaf {
        blob: Blob { digest, size },
        executable: true,
        contents: Contents::Disk(path.to_owned()),
    }))
}

/// Libraries that a program and they themselves need, by the names that they are needed by: those which this process, an
/// instance of it, has in memory.
fn libraries_of(program: &Path, elf: &elf::Elf, loader: &Path) -> Result<BTreeMap<String, PathBuf>, RemoteError> {
    let in_memory = in_memory()?;
    let mut found = BTreeMap::new();
    let mut pending: VecDeque<String> = elf.needed.iter().cloned().collect();
    while let Some(name) = pending.pop_front() {
        let is_loader = loader.file_name().is_some_and(|own| own == name.as_str());
        if is_loader || found.contains_key(&name) {
            continue;
        }
        let Some((path, library)) = in_memory.get(&name) else {
            return Err(RemoteError::Helper {
                program: real(program),
                library: name,
            });
        };
        pending.extend(library.needed.iter().cloned());
        found.insert(name, path.clone());
    }
    Ok(found)
}

/// The libraries in this process's memory, by what they call themselves.
fn in_memory() -> Result<BTreeMap<String, (PathBuf, elf::Elf)>, RemoteError> {
    let bytes = read_limited(Path::new("/proc/self/maps"), MAPS_MAX)?;
    let text = String::from_utf8_lossy(&bytes);
    // ADDRESSES RIGHTS OFFSET DEVICE INODE PATH
    let paths: BTreeSet<&str> = text.lines().filter_map(|line| Some(&line[line.find('/')?..])).collect();
    let mut found = BTreeMap::new();
    for path in paths.into_iter().map(Path::new).filter(|path| path.is_file()) {
        // What cannot be read, or is no library, is not what is looked for.
        if let Ok(Some(elf)) = elf::read(path) {
            let own = path.file_name().map(|name| name.to_string_lossy().into_owned());
            if let Some(name) = elf.soname.clone().or(own) {
                found.insert(name, (path.to_owned(), elf));
            }
        }
    }
    Ok(found)
}

/// A program by the name that people know.
fn real(program: &Path) -> PathBuf {
    fs::canonicalize(program).unwrap_or_else(|_| program.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_travels_with_its_loader_and_all_libraries() {
        let helper = pack(Path::new("/proc/self/exe")).unwrap();
        let names: Vec<&str> = helper.dir.entries().keys().map(String::as_str).collect();
        assert_eq!(names, [LIBRARIES, LOADER, PROGRAM]);
        let Node::Dir(libraries) = &helper.dir.entries()[LIBRARIES] else {
            panic!("no directory")
        };
        assert!(libraries.entries().contains_key("libc.so.6"));
        assert!(libraries.entries().keys().all(|name| !name.starts_with("ld-")));
        assert_eq!(helper.command[0], "layerize-worker/loader");
        assert_eq!(helper.command.last().unwrap(), WORKER);
        // The same again, whatever was loaded meanwhile.
        assert_eq!(pack(Path::new("/proc/self/exe")).unwrap().dir, helper.dir);
    }

    #[test]
    fn a_static_program_travels_alone_and_a_library_that_is_not_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        fs::write(&program, "no ELF file, which is as static").unwrap();
        let helper = pack(&program).unwrap();
        assert_eq!(helper.command, ["layerize-worker/program", WORKER]);
        assert_eq!(helper.dir.entries().len(), 1);

        let elf = elf::Elf {
            needed: vec!["libnowhere.so.9".to_owned()],
            ..elf::Elf::default()
        };
        let error = libraries_of(&program, &elf, Path::new("/lib/ld.so")).unwrap_err();
        assert!(error.to_string().contains("libnowhere.so.9"), "{error}");
        assert!(error.help().unwrap().contains("crt-static"));
    }
}
