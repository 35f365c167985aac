//! The *surroundings* of a script: the root of its packages, the inputs bound beside it, and the variables that go with
//! both; the same for a build and for a development shell.
//!
//! Invariant: they depend on the script's inputs alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::BuildError;
use super::link::Linkage;
use super::rootfs::Root;
use super::targeted;
use crate::derive::{Input, Script};
use crate::fsio::IoContext;
use crate::sandbox::Bind;
use crate::sandbox::copy::SOURCE_DATE_EPOCH;
use crate::sandbox::tree::make_dir;
use crate::store::Store;
use crate::store_path::{StoreDir, StorePath};

/// The root of a build and the variables that go with it; also those of a development shell.
pub(super) struct Surroundings {
    pub root: Root,
    pub variables: Vec<(String, String)>,
}

impl Surroundings {
    /// Composes the root of `script`, its linker wrappers and variables in `fixups`, which must not exist.
    pub(super) fn make(
        store: &Store,
        script: &Script,
        paths: &BTreeMap<Input, StorePath>,
        fixups: PathBuf,
    ) -> Result<Self, BuildError> {
        let located = |inputs: &[Input]| -> Vec<(StorePath, PathBuf)> {
            let paths = inputs.iter().filter_map(|input| paths.get(input));
            paths.map(|path| (path.clone(), store.physical(path))).collect()
        };
        let packages: Vec<PathBuf> = located(&script.root)
            .into_iter()
            .map(|(_, physical)| physical)
            .collect();
        let root = Root::compose(fixups, &packages)?;
        let linkage = Linkage::of_script(store, script, paths)?;
        let wrappers = linkage.wrap_linkers(&root)?;
        let mut path: Vec<String> = wrappers.iter().cloned().collect();
        for (tool, physical) in located(&script.tools) {
            if physical.join("bin").is_dir() {
                path.push(format!("{}/bin", StoreDir::layerize().join(&tool)));
            }
        }
        path.extend(["/usr/bin".to_owned(), "/usr/sbin".to_owned()]);
        let locale = if root.has("usr/lib/locale/C.utf8") {
            "C.UTF-8"
        } else {
            "C"
        };
        let mut variables = base_variables(&path.join(":"), locale);
        // The machine's own compilers, which look there too, link as they do.
        let searched = wrappers.filter(|_| !linkage.is_crossed());
        variables.extend(searched.map(|dir| ("COMPILER_PATH".to_owned(), dir)));
        variables.extend(targeted::variables(script, &root)?);
        variables.extend(
            linkage
                .variables()
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value)),
        );
        Ok(Self { root, variables })
    }
}

/// Variables that are the same for every build.
pub(super) fn base_variables(path: &str, locale: &str) -> Vec<(String, String)> {
    [
        // What cargo notes of the compiler in its target directory stands in the order of a hash table.
        ("CARGO_CACHE_RUSTC_INFO", "0"),
        ("HOME", "/homeless-shelter"),
        ("LC_ALL", locale),
        ("PATH", path),
        ("SOURCE_DATE_EPOCH", &SOURCE_DATE_EPOCH.to_string()),
        ("TERM", "dumb"),
        ("TZ", "UTC"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Directories that a script can write to.
pub(super) fn writable_binds(places: [(&PathBuf, &str); 3]) -> Vec<Bind> {
    let bind = |(source, target): (&PathBuf, &str)| Bind {
        source: source.clone(),
        target: target.into(),
        writable: true,
    };
    places.map(bind).into()
}

/// Makes a place for each visible path in the directory that becomes `/layerize/store`, and binds it there.
pub(super) fn bind_inputs(store: &Store, visible: &BTreeSet<StorePath>, dir: &Path) -> Result<Vec<Bind>, BuildError> {
    let mut binds = Vec::new();
    for path in visible {
        let (source, place) = (store.physical(path), dir.join(path.to_string()));
        let kind = fs::symlink_metadata(&source).context("read", &source)?.file_type();
        if kind.is_symlink() {
            // A link cannot be bound.
            let target = fs::read_link(&source).context("read the link", &source)?;
            symlink(target, &place).context("create the link", &place)?;
            continue;
        }
        match kind.is_dir() {
            true => make_dir(&place, 0o755)?,
            false => fs::write(&place, "").context("write", &place)?,
        }
        binds.push(Bind {
            source,
            target: StoreDir::layerize().join(path).into(),
            writable: false,
        });
    }
    Ok(binds)
}
