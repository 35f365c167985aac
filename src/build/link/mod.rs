//! *Store linking*: how programs come to name their libraries by store path.
//!
//! A program linked in a root of packages names its interpreter and libraries by their place in that root, and the
//! reference scan would find nothing. So where a package has `libraries`, every `ld` of the root is wrapped by a
//! script that adds to each dynamic program or shared object
//! * `--dynamic-linker` of the C library among `libraries` (programs alone),
//! * `-rpath` of each library directory in a store path, with `--disable-new-dtags`: the old `DT_RPATH` also holds
//!   for the libraries of libraries, which come from packages unchanged.
//!
//! The wrappers are found because `COMPILER_PATH` names their directory (gcc and clang look there first) and
//! because it is first in `PATH`. Behind the libraries come, where there are any, the run-time libraries of the root's
//! compilers (a C++ program needs its own whether or not `libraries` names it) and what `runtime` names with what it depends
//! on (for `dlopen`, of which no file tells). What a build does not use is taken out of the run paths again: see
//! [`super::fixup`].
//!
//! Invariant: the wrappers' text depends on the libraries' store paths and contents alone, and each leaves static,
//! relocatable and otherwise special links as they are, and those of programs for musl's loader.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::rootfs::Root;
use crate::derive::{Input, Script};
use crate::elf::Elf;
use crate::fsio::{PathError, sorted_names};
use crate::spec;
use crate::store::Store;
use crate::store_path::{StoreDir, StorePath};

/// Where the wrappers are, relative to the root.
const WRAPPERS: &str = "usr/libexec/layerize/ld";

/// Linkers that are wrapped where the root has them.
const LINKERS: [&str; 5] = ["ld", "ld.bfd", "ld.gold", "ld.lld", "ld.mold"];

/// Makes a wrapper's text: `@PROGRAM@`, `@INTERPRETER@` and `@RPATH@` are replaced. Shell builtins alone: the root
/// may have nothing but a shell.
const WRAPPER: &str = include_str!("ld-wrapper.sh");

/// Libraries that compilers link programs to by themselves: GCC's of each language, and LLVM's.
const COMPILER_LIBRARIES: &[&str] = &[
    "libatomic.so.1",
    "libc++.so.1",
    "libc++abi.so.1",
    "libgcc_s.so.1",
    "libgfortran.so.5",
    "libgomp.so.1",
    "libobjc.so.4",
    "libquadmath.so.0",
    "libstdc++.so.6",
];

/// Most links that lead to one file, as the kernel has it.
const LINKS_MAX: usize = 40;

/// What is particular to a machine's architecture.
struct Architecture {
    triplet: &'static str,
    interpreter: &'static str,
}

/// How to link against a set of libraries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Linkage {
    interpreter: Option<String>,
    triplet: String,
    /// GNU's name of the machine that cross compilers make programs for, where they do.
    crossed: Option<&'static str>,
    /// Directories with shared objects.
    run_path: Vec<String>,
    /// For packages that are not part of the root: where compilers and `pkg-config` are to look.
    include: Vec<String>,
    library: Vec<String>,
    pkg_config: Vec<String>,
    prefix: Vec<String>,
}

/// Debian's name of the directories of a system's libraries.
pub(super) fn multiarch(system: &str) -> Option<&'static str> {
    architecture(system).map(|architecture| architecture.triplet)
}

/// GNU's name of a system of Nix's.
fn gnu_triplet(system: &str) -> Option<&'static str> {
    spec::gnu_triplet(system.strip_suffix("-linux")?)
}

fn architecture(system: &str) -> Option<Architecture> {
    let (triplet, interpreter) = match system {
        "x86_64-linux" => ("x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
        "aarch64-linux" => ("aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
        "armv5tel-linux" => ("arm-linux-gnueabi", "ld-linux.so.3"),
        "armv7l-linux" => ("arm-linux-gnueabihf", "ld-linux-armhf.so.3"),
        "i686-linux" => ("i386-linux-gnu", "ld-linux.so.2"),
        "loongarch64-linux" => ("loongarch64-linux-gnu", "ld-linux-loongarch-lp64d.so.1"),
        "powerpc64le-linux" => ("powerpc64le-linux-gnu", "ld64.so.2"),
        "riscv64-linux" => ("riscv64-linux-gnu", "ld-linux-riscv64-lp64d.so.1"),
        "s390x-linux" => ("s390x-linux-gnu", "ld64.so.1"),
        _ => return None,
    };
    Some(Architecture { triplet, interpreter })
}

impl Linkage {
    /// How to link against `libraries` (store path and where it is on disk), in this order, for `system`.
    pub(super) fn of(libraries: &[(StorePath, PathBuf)], system: &str) -> Result<Self, PathError> {
        let Some(architecture) = architecture(system) else {
            return Ok(Self::default());
        };
        let triplet = architecture.triplet;
        let in_usr = format!("usr/lib/{triplet}");
        let library_dirs = [in_usr.as_str(), "usr/lib64", "usr/lib", "lib64", "lib"];
        let mut linkage = Self {
            triplet: triplet.to_owned(),
            ..Self::default()
        };
        for (path, physical) in libraries {
            let logical = StoreDir::layerize().join(path);
            // Debian packages are part of the root, where everybody finds their headers.
            let is_own = !physical.join("usr").is_dir();
            for dir in library_dirs {
                let (below, full) = (physical.join(dir), format!("{logical}/{dir}"));
                if linkage.interpreter.is_none() && is_plain_file(&below.join(architecture.interpreter)) {
                    linkage.interpreter = Some(format!("{full}/{}", architecture.interpreter));
                }
                if has_shared_objects(&below)? {
                    linkage.run_path.push(full.clone());
                }
                push_if(&mut linkage.library, is_own && below.is_dir(), &full);
            }
            let has = |below: &str| is_own && physical.join(below).is_dir();
            push_if(&mut linkage.include, has("include"), &format!("{logical}/include"));
            for below in ["lib/pkgconfig", "share/pkgconfig"] {
                push_if(&mut linkage.pkg_config, has(below), &format!("{logical}/{below}"));
            }
            push_if(&mut linkage.prefix, is_own, &logical);
        }
        Ok(linkage)
    }

    /// How to link the programs of `script`.
    pub(super) fn of_script(
        store: &Store,
        script: &Script,
        paths: &BTreeMap<Input, StorePath>,
    ) -> Result<Self, PathError> {
        let located = |inputs: &[Input]| -> Vec<(StorePath, PathBuf)> {
            let paths = inputs.iter().filter_map(|input| paths.get(input));
            paths.map(|path| (path.clone(), store.physical(path))).collect()
        };
        let mut linkage = Self::of(&located(&script.libraries), script.target())?;
        linkage.crossed = script.is_cross().then(|| gnu_triplet(script.target())).flatten();
        if linkage.run_path.is_empty() {
            return Ok(linkage);
        }
        let runtime = runtime_inputs(script);
        let further = compiler_runtime(store, script, paths)
            .into_iter()
            .chain(located(&runtime));
        let further: Vec<_> = further.collect();
        for dir in Self::of(&further, script.target())?.run_path {
            if !linkage.run_path.contains(&dir) {
                linkage.run_path.push(dir);
            }
        }
        Ok(linkage)
    }

    /// The directories that programs are given.
    pub(super) fn dirs(&self) -> &[String] {
        &self.run_path
    }

    /// For a test: this interpreter and these directories.
    #[cfg(test)]
    pub(super) fn sample(interpreter: &str, dirs: &[String]) -> Self {
        Self {
            interpreter: Some(interpreter.to_owned()),
            run_path: dirs.to_vec(),
            ..Self::default()
        }
    }

    /// Whether a program was linked by something else than the wrapped linkers, which give each of these.
    pub(super) fn is_missing_in(&self, elf: &Elf) -> bool {
        let run_path = elf.run_path.as_ref().map_or("", |run_path| run_path.value.as_str());
        let name = |path: &str| path.rsplit('/').next().map(str::to_owned);
        let same_loader = self.interpreter.as_deref().map(name) == elf.interpreter.as_deref().map(name);
        same_loader && elf.interpreter.is_some() && !run_path.contains(StoreDir::LAYERIZE)
    }

    /// The interpreter and the run path of a program that has `run_path` already.
    pub(super) fn added_to(&self, run_path: &str) -> Option<(&str, String)> {
        let own = run_path.split(':').filter(|dir| !dir.is_empty());
        let dirs: Vec<&str> = own.chain(self.run_path.iter().map(String::as_str)).collect();
        Some((self.interpreter.as_deref()?, dirs.join(":")))
    }

    /// Wraps the linkers that `root` has; gives the wrappers' directory as seen inside, or `None` where there is
    /// nothing to add.
    pub(super) fn wrap_linkers(&self, root: &Root) -> Result<Option<String>, PathError> {
        let Self { run_path, library, .. } = self;
        if run_path.is_empty() && self.interpreter.is_none() && library.is_empty() {
            return Ok(None);
        }
        if let Some(triplet) = self.crossed {
            self.wrap_cross_linkers(triplet, root)?;
            return Ok(Some(format!("/{WRAPPERS}")));
        }
        if self.run_path.is_empty() && self.interpreter.is_none() {
            return Ok(None);
        }
        let names = LINKERS.into_iter().map(str::to_owned);
        let prefixed = LINKERS.iter().map(|name| format!("{}-{name}", self.triplet));
        for name in names.chain(prefixed) {
            if root.has(&format!("usr/bin/{name}")) {
                let text = self.wrapper(&format!("/usr/bin/{name}"));
                root.fixups.file(&format!("{WRAPPERS}/{name}"), &text, 0o755)?;
            }
        }
        root.fixups.directory(WRAPPERS)?;
        Ok(Some(format!("/{WRAPPERS}")))
    }

    /// Wraps the linkers for another machine, and not this one's: where cross compilers look for them, and under their names.
    fn wrap_cross_linkers(&self, triplet: &str, root: &Root) -> Result<(), PathError> {
        for name in LINKERS {
            let program = format!("usr/bin/{triplet}-{name}");
            if !root.has(&program) {
                continue;
            }
            let text = self.wrapper(&format!("/{program}"));
            root.fixups
                .file(&format!("{WRAPPERS}/{triplet}-{name}"), &text, 0o755)?;
            root.fixups.file(&format!("usr/{triplet}/bin/{name}"), &text, 0o755)?;
        }
        root.fixups.directory(WRAPPERS)?;
        Ok(())
    }

    /// Whether the wrapped linkers are those of cross compilers.
    pub(super) fn is_crossed(&self) -> bool {
        self.crossed.is_some()
    }

    /// Variables by which compilers find the libraries that are not part of the root.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        [
            ("CPATH", &self.include),
            ("LIBRARY_PATH", &self.library),
            ("PKG_CONFIG_PATH", &self.pkg_config),
            ("CMAKE_PREFIX_PATH", &self.prefix),
        ]
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| (name, list.join(":")))
        .collect()
    }

    fn wrapper(&self, program: &str) -> String {
        // Cross compilers do not read `LIBRARY_PATH`.
        let Self { library, crossed, .. } = self;
        let searched: Vec<String> = match crossed {
            Some(_) => library.iter().map(|dir| format!(" -L \"{dir}\"")).collect(),
            None => Vec::new(),
        };
        WRAPPER
            .replace("@PROGRAM@", program)
            .replace("@SEARCHED@", &searched.concat())
            .replace("@INTERPRETER@", self.interpreter.as_deref().unwrap_or(""))
            .replace("@RPATH@", &self.run_path.join(":"))
    }
}

/// What `runtime` names, with what its Debian packages depend on.
pub(super) fn runtime_inputs(script: &Script) -> Vec<Input> {
    let declared = |input: &Input| script.declared.get(input).into_iter().flatten().cloned();
    let all = script
        .runtime
        .iter()
        .flat_map(|input| [input.clone()].into_iter().chain(declared(input)));
    all.collect()
}

/// Beginnings of the directories that are there for `dlopen`: they stay on run paths though no file says that it needs them.
pub(super) fn kept_on_run_paths(script: &Script, paths: &BTreeMap<Input, StorePath>) -> Vec<String> {
    let inputs = runtime_inputs(script);
    let kept = inputs.iter().filter_map(|input| paths.get(input));
    kept.map(|path| format!("{}/", StoreDir::layerize().join(path)))
        .collect()
}

/// The packages of the root that hold the run-time libraries of its compilers.
pub(super) fn compiler_runtime(
    store: &Store,
    script: &Script,
    paths: &BTreeMap<Input, StorePath>,
) -> Vec<(StorePath, PathBuf)> {
    let Some(architecture) = architecture(script.target()).filter(|_| !script.libraries.is_empty()) else {
        return Vec::new();
    };
    let dir = format!("usr/lib/{}", architecture.triplet);
    let packages = script.root.iter().filter_map(|input| paths.get(input));
    let packages = packages.map(|path| (path.clone(), store.physical(path)));
    let has_one = |physical: &Path| {
        COMPILER_LIBRARIES
            .iter()
            .any(|name| physical.join(&dir).join(name).is_file())
    };
    packages.filter(|(_, physical)| has_one(physical)).collect()
}

fn push_if(list: &mut Vec<String>, condition: bool, value: &str) {
    if condition {
        list.push(value.to_owned());
    }
}

/// Whether a directory holds a shared object, as far as names tell.
fn has_shared_objects(dir: &Path) -> Result<bool, PathError> {
    if !dir.is_dir() {
        return Ok(false);
    }
    let names = sorted_names(dir)?;
    Ok(names
        .iter()
        .any(|name| name.to_string_lossy().contains(".so") && is_shared_object(dir.join(name))))
}

/// Whether it is a file, or a link to one, as far as the package tells. An absolute link (`libcrypt.so` of libcrypt-dev) is
/// taken for one: whether this machine has what it leads to must change nothing.
fn is_shared_object(mut path: PathBuf) -> bool {
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Err(_) => return is_plain_file(&path),
            Ok(target) if target.is_absolute() => return true,
            Ok(target) => path = path.with_file_name(target),
        }
    }
    false
}

fn is_plain_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_file())
}

#[cfg(test)]
mod tests;
