//! The *root of a build*: Debian packages' trees below one layer of fix-ups that we make.
//!
//! Invariant: the fix-ups are a function of the packages alone. They hold what packages expect their maintainer
//! scripts or the installer to have made: the links of a merged `/usr`, alternatives, `/bin/sh`, the few files of
//! `/etc` that say who one is; and the directories on which the sandbox mounts.

use std::path::{Path, PathBuf};

use super::BuildError;
use crate::root::{self, MERGED_DIRS, Trees};
use crate::sandbox::tree::Tree;
use crate::store_path::StoreDir;

/// Directories on which the sandbox mounts something.
const MOUNT_POINTS: [&str; 5] = ["dev", "proc", "tmp", "build", StoreDir::LAYERIZE];

/// Shells that can be `/bin/sh`, best first.
const SHELLS: [&str; 3] = ["dash", "bash", "busybox"];

/// Users of a build.
pub(super) const PASSWD: &str = "\
root:x:0:0:root:/:/sbin/nologin
builder:x:1000:100:builder:/homeless-shelter:/bin/sh
nobody:x:65534:65534:nobody:/homeless-shelter:/sbin/nologin
";

/// Groups of a build.
pub(super) const GROUP: &str = "root:x:0:\nusers:x:100:\nnogroup:x:65534:\n";

const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";

const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files\nservices: files\nprotocols: files\n";

/// Fix-ups being made for a set of packages.
pub(super) struct Root {
    /// The topmost layer.
    pub fixups: Tree,
    /// The packages' trees, the topmost first.
    packages: Vec<PathBuf>,
}

impl Root {
    /// Makes the fix-ups for `packages` (each after what it depends on) in `dir`, which must not exist.
    pub(super) fn compose(dir: PathBuf, packages: &[PathBuf]) -> Result<Self, BuildError> {
        let root = Self {
            fixups: Tree::create(dir)?,
            packages: packages.iter().rev().cloned().collect(),
        };
        for mount_point in MOUNT_POINTS {
            root.fixups.directory(mount_point)?;
        }
        for name in MERGED_DIRS.iter().filter(|name| root.has(&format!("usr/{name}"))) {
            root.fixups.link(name, &format!("usr/{name}"))?;
        }
        root.link_alternatives()?;
        root.link_shell()?;
        for (path, text) in [
            ("etc/passwd", PASSWD),
            ("etc/group", GROUP),
            ("etc/hosts", HOSTS),
            ("etc/nsswitch.conf", NSSWITCH),
        ] {
            root.fixups.file(path, text, 0o644)?;
        }
        Ok(root)
    }

    /// All layers, the topmost first.
    pub(super) fn layers(&self) -> Vec<PathBuf> {
        std::iter::once(self.fixups.dir().to_owned())
            .chain(self.packages.iter().cloned())
            .collect()
    }

    /// Whether a package has something at `below` (relative to `/`).
    pub(super) fn has(&self, below: &str) -> bool {
        self.packages.iter().any(|package| is_there(&package.join(below)))
    }

    /// The first of `names` that is a program in `/usr/bin`, as an absolute path.
    pub(super) fn program(&self, names: &[&str]) -> Option<String> {
        let paths = names.iter().map(|name| format!("usr/bin/{name}"));
        paths
            .into_iter()
            .find(|path| self.has(path))
            .map(|path| format!("/{path}"))
    }

    fn link_alternatives(&self) -> Result<(), BuildError> {
        let packages: Vec<&Path> = self.packages.iter().map(PathBuf::as_path).collect();
        let trees = Trees::new(&packages);
        for (link, target) in root::alternatives(&packages)? {
            let below = merged(link.trim_start_matches('/'));
            // A package's own file at the link's place would be hidden by it.
            if !trees.have(&below) && !is_there(&self.fixups.dir().join(&below)) {
                self.fixups.link(&below, &target)?;
            }
        }
        Ok(())
    }

    fn link_shell(&self) -> Result<(), BuildError> {
        let shell = SHELLS.into_iter().find(|shell| self.has(&format!("usr/bin/{shell}")));
        if let (false, Some(shell)) = (self.has("usr/bin/sh"), shell) {
            self.fixups.link("usr/bin/sh", shell)?;
        }
        Ok(())
    }
}

/// `bin/awk` → `usr/bin/awk`: what is written through a link of the merged `/usr` lands in `usr`.
fn merged(below: &str) -> String {
    match below.split('/').next() {
        Some(top) if MERGED_DIRS.contains(&top) => format!("usr/{below}"),
        _ => below.to_owned(),
    }
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
