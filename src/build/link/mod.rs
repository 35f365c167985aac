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
//! because it is first in `PATH`. What a build does not use is taken out of the run paths again: see
//! [`super::fixup`].
//!
//! Invariant: the wrappers' text depends on the libraries' store paths and contents alone, and each leaves static,
//! relocatable and otherwise special links as they are.

use std::path::{Path, PathBuf};

use super::rootfs::Root;
use crate::fsio::{PathError, sorted_names};
use crate::store_path::{StoreDir, StorePath};

/// Where the wrappers are, relative to the root.
const WRAPPERS: &str = "usr/libexec/layerize/ld";

/// Linkers that are wrapped where the root has them.
const LINKERS: [&str; 5] = ["ld", "ld.bfd", "ld.gold", "ld.lld", "ld.mold"];

/// Makes a wrapper's text: `@PROGRAM@`, `@INTERPRETER@` and `@RPATH@` are replaced. Shell builtins alone: the root
/// may have nothing but a shell.
const WRAPPER: &str = include_str!("ld-wrapper.sh");

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
    /// Directories with shared objects.
    run_path: Vec<String>,
    /// For packages that are not part of the root: where compilers and `pkg-config` are to look.
    include: Vec<String>,
    library: Vec<String>,
    pkg_config: Vec<String>,
    prefix: Vec<String>,
}

fn architecture(system: &str) -> Option<Architecture> {
    match system {
        "x86_64-linux" => Some(Architecture {
            triplet: "x86_64-linux-gnu",
            interpreter: "ld-linux-x86-64.so.2",
        }),
        "aarch64-linux" => Some(Architecture {
            triplet: "aarch64-linux-gnu",
            interpreter: "ld-linux-aarch64.so.1",
        }),
        _ => None,
    }
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

    /// Wraps the linkers that `root` has; gives the wrappers' directory as seen inside, or `None` where there is
    /// nothing to add.
    pub(super) fn wrap_linkers(&self, root: &Root) -> Result<Option<String>, PathError> {
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
        WRAPPER
            .replace("@PROGRAM@", program)
            .replace("@INTERPRETER@", self.interpreter.as_deref().unwrap_or(""))
            .replace("@RPATH@", &self.run_path.join(":"))
    }
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
        .any(|name| name.to_string_lossy().contains(".so") && dir.join(name).is_file()))
}

fn is_plain_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_file())
}

#[cfg(test)]
mod tests;
