//! A *loader* finds the libraries that a program needs: glibc's and musl's, as ld.so(8) and musl's `dynlink.c` do it.
//!
//! Invariant: nothing is run, and everything is looked up in the file system that is given, as a container with that file
//! system would see it. Directories that only some processors are searched for (`glibc-hwcaps`) come last here: a file
//! that is there alone counts as found.
//!
//! | | glibc | musl |
//! |---|---|---|
//! | 1 | `DT_RPATH` of the file and of all that led to it, unless the file has a `DT_RUNPATH` | `LD_LIBRARY_PATH` |
//! | 2 | `LD_LIBRARY_PATH` | run paths of either kind, of the file and of all that led to it |
//! | 3 | `DT_RUNPATH` of the file itself | what `/etc/ld-musl-ARCH.path` lists, else `/lib`, `/usr/local/lib`, `/usr/lib` |
//! | 4 | `/etc/ld.so.cache` (the loader itself never reads `ld.so.conf`) | |
//! | 5 | the directories that are built into the loader | |

mod cache;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::Elf;
use crate::fsio::PathError;

/// Largest loader that is searched for its directories, and largest list of libraries, in bytes.
const FILE_MAX: u64 = 16 << 20;

/// Directories of musl's loader where it has no list.
const MUSL_DIRS: &str = "/lib:/usr/local/lib:/usr/lib";

/// Names of libraries that are musl's loader itself.
const MUSL_OWN: [&str; 7] = ["c", "pthread", "rt", "m", "dl", "util", "xnet"];

/// Directories of glibc's loader by its file name: of a loader that cannot be read.
const GLIBC_DIRS: &[(&str, &str)] = &[
    ("ld-linux-x86-64.so.2", "x86_64-linux-gnu"),
    ("ld-linux-aarch64.so.1", "aarch64-linux-gnu"),
    ("ld-linux.so.2", "i386-linux-gnu"),
    ("ld-linux-armhf.so.3", "arm-linux-gnueabihf"),
    ("ld-linux.so.3", "arm-linux-gnueabi"),
    ("ld-linux-riscv64-lp64d.so.1", "riscv64-linux-gnu"),
    ("ld-linux-loongarch-lp64d.so.1", "loongarch64-linux-gnu"),
    ("ld64.so.2", "powerpc64le-linux-gnu"),
    ("ld64.so.1", "s390x-linux-gnu"),
];

/// Below each directory, those for newer processors.
const HWCAPS: [&str; 8] = [
    "x86-64-v4",
    "x86-64-v3",
    "x86-64-v2",
    "power10",
    "power9",
    "z15",
    "z14",
    "z13",
];

/// The file system that a loader looks into. Paths are absolute; symlinks are followed within it.
pub trait Files {
    /// The ELF file at a path; `None` where there is none.
    fn elf(&self, path: &str) -> Result<Option<Rc<Elf>>, PathError>;
    /// The bytes of the file at a path, if they are at most `max`; `None` where there is none.
    fn bytes(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>, PathError>;
}

/// What a container's settings tell a loader.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Directories of `LD_LIBRARY_PATH`.
    pub library_path: Vec<String>,
    /// Where a container starts: what relative directories are relative to.
    pub workdir: String,
}

/// A program's loader.
#[derive(Debug, Clone)]
pub struct Loader {
    /// Its absolute path, as programs name it.
    path: String,
    elf: Option<Rc<Elf>>,
    kind: Kind,
    /// The directories that it searches last.
    default_dirs: Vec<String>,
    /// Paths by library name.
    cache: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Glibc,
    Musl,
}

/// A library that a loader does not find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub name: String,
    /// The file that needs it.
    pub needed_by: String,
    /// The directories that were searched, in order; none for a path.
    pub searched: Vec<String>,
}

/// A program with all that it leads to.
#[derive(Debug)]
pub struct Graph {
    /// What is loaded, in order, the program first.
    pub objects: Vec<Object>,
    /// What is not found.
    pub missing: Vec<Missing>,
}

/// A file in memory.
#[derive(Debug)]
pub struct Object {
    /// Where it was found.
    pub path: String,
    /// The name that it was needed by; the program has none.
    pub name: Option<String>,
    /// The object on whose run path it was found, by index, and the entry of the run path as it stands there.
    pub found_by: Option<(usize, String)>,
    elf: Rc<Elf>,
    /// The object that first needed it.
    parent: Option<usize>,
}

/// A directory that is searched, and on whose account.
struct SearchDir {
    dir: String,
    run_path: Option<(usize, String)>,
}

impl Loader {
    /// The loader that programs name `path`. Where it is not in `files`, what is usual for its name.
    pub fn new(path: &str, files: &impl Files) -> Result<Self, PathError> {
        let name = file_name(path);
        let mut loader = Self {
            path: path.to_owned(),
            elf: files.elf(path)?,
            kind: Kind::Glibc,
            default_dirs: Vec::new(),
            cache: BTreeMap::new(),
        };
        if let Some(architecture) = name
            .strip_prefix("ld-musl-")
            .and_then(|rest| rest.strip_suffix(".so.1"))
        {
            loader.kind = Kind::Musl;
            let above = directory(directory(path));
            let list = files.bytes(&format!("{above}/etc/ld-musl-{architecture}.path"), FILE_MAX)?;
            let list = list.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            let dirs = list.as_deref().unwrap_or(MUSL_DIRS).split([':', '\n']);
            loader.default_dirs = dirs.filter(|dir| !dir.is_empty()).map(str::to_owned).collect();
            return Ok(loader);
        }
        let built_in = files.bytes(path, FILE_MAX)?.map(|bytes| built_in_dirs(&bytes));
        loader.default_dirs = built_in
            .filter(|dirs| !dirs.is_empty())
            .unwrap_or_else(|| usual_dirs(name));
        if let Some(bytes) = files.bytes("/etc/ld.so.cache", FILE_MAX)? {
            loader.cache = cache::read(&bytes);
        }
        Ok(loader)
    }

    /// Whether it is a loader of the C library that `elf` names among its needs, or `elf` names none.
    pub fn fits(&self, elf: &Elf) -> bool {
        let is_musl = |name: &String| name.starts_with("libc.musl-") || name == "libc.so";
        let same_machine = self.elf.as_ref().is_none_or(|own| own.takes(elf));
        let other_library = match self.kind {
            Kind::Glibc => elf.needed.iter().any(is_musl),
            Kind::Musl => elf.needed.iter().any(|name| name == "libc.so.6"),
        };
        same_machine && !other_library
    }

    /// Loads the file at `path`, which is `elf`, and all that it needs.
    pub fn load(
        &self,
        path: &str,
        elf: Rc<Elf>,
        surroundings: &Surroundings,
        files: &impl Files,
    ) -> Result<Graph, PathError> {
        let program = Object {
            path: path.to_owned(),
            name: None,
            found_by: None,
            elf,
            parent: None,
        };
        let mut graph = Graph {
            objects: vec![program],
            missing: Vec::new(),
        };
        let mut pending = VecDeque::from([0]);
        while let Some(index) = pending.pop_front() {
            let elf = graph.objects[index].elf.clone();
            for name in &elf.needed {
                if self.is_loaded(name, &graph) {
                    continue;
                }
                match self.find(name, index, &graph, surroundings, files)? {
                    Ok(object) => {
                        pending.push_back(graph.objects.len());
                        graph.objects.push(object);
                    }
                    Err(missing) if graph.missing.iter().any(|other| other.name == missing.name) => {}
                    Err(missing) => graph.missing.push(missing),
                }
            }
        }
        Ok(graph)
    }

    /// Whether a name is that of something in memory: the name it was found by, or what it calls itself.
    fn is_loaded(&self, name: &str, graph: &Graph) -> bool {
        if name == self.path || (self.kind == Kind::Musl && is_musl_itself(name)) {
            return true;
        }
        // The loader is in memory before anything is looked for; so is what the kernel brings.
        if self.kind == Kind::Glibc && (name == file_name(&self.path) || name.starts_with("linux-vdso.so")) {
            return true;
        }
        let soname = |elf: &Elf| self.kind == Kind::Glibc && elf.soname.as_deref() == Some(name);
        self.elf.as_deref().is_some_and(soname)
            || graph
                .objects
                .iter()
                .any(|object| object.name.as_deref() == Some(name) || (object.name.is_some() && soname(&object.elf)))
    }

    fn find(
        &self,
        name: &str,
        parent: usize,
        graph: &Graph,
        surroundings: &Surroundings,
        files: &impl Files,
    ) -> Result<Result<Object, Missing>, PathError> {
        let program = &graph.objects[0].elf;
        let object = |path: String, elf: Rc<Elf>, found_by| Object {
            path,
            name: Some(name.to_owned()),
            found_by,
            elf,
            parent: Some(parent),
        };
        let taken = |path: &str| -> Result<Option<Rc<Elf>>, PathError> {
            Ok(files.elf(path)?.filter(|elf| program.takes(elf)))
        };
        let mut searched: Vec<String> = Vec::new();
        if name.contains('/') {
            for path in self.expand(name, &graph.objects[parent].path, surroundings) {
                if let Some(elf) = taken(&path)? {
                    return Ok(Ok(object(path, elf, None)));
                }
            }
        } else {
            for place in self.places(name, parent, graph, surroundings) {
                for dir in self.variants(&place.dir) {
                    let path = format!("{}/{name}", dir.trim_end_matches('/'));
                    if let Some(elf) = taken(&path)? {
                        return Ok(Ok(object(path, elf, place.run_path)));
                    }
                }
                if !searched.contains(&place.dir) {
                    searched.push(place.dir);
                }
            }
        }
        Ok(Err(Missing {
            name: name.to_owned(),
            needed_by: graph.objects[parent].path.clone(),
            searched,
        }))
    }

    /// All directories that are searched for a library that `parent` needs, in order.
    fn places(&self, name: &str, parent: usize, graph: &Graph, surroundings: &Surroundings) -> Vec<SearchDir> {
        let run_path = |index: usize, inherited: Option<bool>| {
            let object = &graph.objects[index];
            let own = object.elf.run_path.as_ref();
            let own = own.filter(|own| inherited.is_none_or(|inherited| own.is_inherited == inherited));
            let entries = own.map_or("", |own| own.value.as_str());
            let entries = entries.split(':').filter(|_| own.is_some());
            let places = entries.flat_map(move |entry| {
                let dirs = self.expand(entry, &object.path, surroundings).into_iter();
                dirs.map(move |dir| SearchDir {
                    dir,
                    run_path: Some((index, entry.to_owned())),
                })
            });
            places.collect::<Vec<_>>()
        };
        let plain = |dir: String| SearchDir { dir, run_path: None };
        let chain = || std::iter::successors(Some(parent), |&index| graph.objects[index].parent);
        let library_path = || {
            let dirs = surroundings.library_path.iter();
            dirs.flat_map(|dir| self.expand(dir, &graph.objects[0].path, surroundings))
                .map(plain)
        };
        let own = &graph.objects[parent].elf;
        let mut places: Vec<SearchDir> = Vec::new();
        match self.kind {
            Kind::Glibc => {
                if own.run_path.as_ref().is_none_or(|own| own.is_inherited) {
                    places.extend(chain().flat_map(|index| run_path(index, Some(true))));
                }
                places.extend(library_path());
                places.extend(run_path(parent, Some(false)));
                let cached = self.cache.get(name).into_iter().flatten();
                places.extend(cached.map(|path| plain(directory(path).to_owned())));
            }
            Kind::Musl => {
                places.extend(library_path());
                places.extend(chain().flat_map(|index| run_path(index, None)));
            }
        }
        if self.kind == Kind::Musl || !own.no_default_dirs {
            places.extend(self.default_dirs.iter().cloned().map(plain));
        }
        places
    }

    /// A directory with those below it for newer processors.
    fn variants(&self, dir: &str) -> Vec<String> {
        let newer = HWCAPS.iter().filter(|_| self.kind == Kind::Glibc);
        std::iter::once(dir.to_owned())
            .chain(newer.map(|name| format!("{dir}/glibc-hwcaps/{name}")))
            .collect()
    }

    /// What an entry of a run path means for the file at `path`: `$LIB` may mean several things.
    fn expand(&self, entry: &str, path: &str, surroundings: &Surroundings) -> Vec<String> {
        let entry = if entry.is_empty() { "." } else { entry };
        let mut entries = vec![replace(entry, "ORIGIN", directory(path))];
        if self.kind == Kind::Glibc {
            let platform = self
                .default_dirs
                .iter()
                .find_map(|dir| triplet(dir))
                .unwrap_or_default();
            let machine = platform.split('-').next().unwrap_or_default();
            let multiarch = format!("lib/{platform}");
            let libs = [multiarch.as_str(), "lib64", "lib"];
            if entry.contains("$LIB") || entry.contains("${LIB}") {
                entries = libs.iter().map(|lib| replace(&entries[0], "LIB", lib)).collect();
            }
            for entry in &mut entries {
                *entry = replace(entry, "PLATFORM", machine);
            }
        }
        for entry in &mut entries {
            if !entry.starts_with('/') {
                *entry = format!("{}/{entry}", surroundings.workdir.trim_end_matches('/'));
            }
        }
        entries
    }
}

/// Replaces `$NAME` and `${NAME}`.
fn replace(text: &str, name: &str, value: &str) -> String {
    text.replace(&format!("${{{name}}}"), value)
        .replace(&format!("${name}"), value)
}

fn is_musl_itself(name: &str) -> bool {
    let stem = name.strip_prefix("lib").and_then(|rest| rest.split_once('.'));
    stem.is_some_and(|(stem, _)| MUSL_OWN.contains(&stem))
}

/// The triplet in `/usr/lib/TRIPLET`.
fn triplet(dir: &str) -> Option<&str> {
    let name = file_name(dir.trim_end_matches('/'));
    (name.matches('-').count() == 2).then_some(name)
}

/// The directories that are built into a loader: strings from slash to slash, in their order.
fn built_in_dirs(bytes: &[u8]) -> Vec<String> {
    let mut dirs: Vec<String> = Vec::new();
    for text in bytes.split(|&byte| byte == 0) {
        let is_dir = text.len() > 2 && text.starts_with(b"/") && text.ends_with(b"/");
        if let Some(dir) = std::str::from_utf8(text).ok().filter(|_| is_dir) {
            let dir = dir.trim_end_matches('/');
            if !dirs.iter().any(|known| known == dir) && !dir.contains("//") {
                dirs.push(dir.to_owned());
            }
        }
    }
    dirs
}

fn usual_dirs(name: &str) -> Vec<String> {
    let known = GLIBC_DIRS.iter().find(|(other, _)| *other == name);
    let multiarch = known
        .into_iter()
        .flat_map(|(_, triplet)| [format!("/lib/{triplet}"), format!("/usr/lib/{triplet}")]);
    let plain = ["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(str::to_owned);
    multiarch.chain(plain).collect()
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// What is before the last slash; empty for a name at the top.
fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}
