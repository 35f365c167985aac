//! What a *debug image* has above the image that it is of: tools, and files that a debugger asks for.
//!
//! Invariant: the layers of the first image are as if there were no second; nothing that the image has is replaced. The rules:
//!
//! - The tools are one store path, in a layer of its own. Their programs are seen in `/usr/bin` and `/usr/sbin`, by a symlink
//!   each, wherever the image has nothing of that name; so are `/bin/sh` and `/bin/bash`, and descriptions of terminals where
//!   the tools look for them. Their libraries are seen nowhere: the image's programs find what they found before.
//! - Debug files of Debian packages are a layer, and debug files and sources of the spec's own packages another, at their
//!   own places. Two packages were built at one place, and may name two sources by one path: the package that comes first
//!   has it, and the other one's source is below `/usr/src/debug/PACKAGE`.
//! - A joined directory in which something is to be seen is opened up, as for the spec's `files`.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::Serialize;

use super::cut::{Cut, changed_tree, store_layer, tree_cut};
use super::error::ImageError;
use super::filesystem::{Content, FileSystem, Node, Origin, absolute, push};
use super::join::same_bytes;
use super::layout::Layout;
use super::recipe::{ClosureMember, Recipe};
use crate::digest::Digest;
use crate::fsio::{IoContext, sorted_names, walk};
use crate::oci::LayerLimit;
use crate::store_path::LogicalPath;

/// Directories whose programs are seen at the same place in the image.
const PROGRAMS: [&str; 2] = ["usr/bin", "usr/sbin"];

/// Where programs look for a shell, whatever the image's directories are.
const SHELLS: [&str; 2] = ["bin/bash", "bin/sh"];

/// Names at the top and what they lead to where an image has none of them.
const MERGED: [(&str, &str); 2] = [("bin", "usr/bin"), ("sbin", "usr/sbin")];

/// Where the tools look for terminals, and where they have them.
const DATA: [(&str, &str); 3] = [
    ("etc/terminfo", "etc/terminfo"),
    ("lib/terminfo", "usr/lib/terminfo"),
    ("usr/share/terminfo", "usr/share/terminfo"),
];

/// Where scripts of the spec are run, and where a source is that another one of its name is before.
const SOURCE: &str = "build/source";
const OTHER_SOURCES: &str = "usr/src/debug";

const LINKS_COMMENT: &str = "links to debug tools";

/// What a debug image has above the image that it is of.
#[derive(Debug, Clone, Serialize)]
pub struct Debug {
    /// The tools.
    pub tools: ClosureMember,
    /// Debug files of Debian packages.
    pub debs: Vec<DebugTree>,
    /// Debug files and sources of the spec's own packages; of two that name a source alike, the first has it.
    pub built: Vec<DebugTree>,
    /// What the base has of [`seen`].
    pub taken: BTreeSet<String>,
}

impl Debug {
    /// All trees that are laid out at `/`, lowest first.
    pub fn trees(&self) -> impl Iterator<Item = &DebugTree> {
        self.debs.iter().chain(&self.built)
    }

    /// Whether a layer with these paths, as layer plans name them, is one of a debug image's own.
    pub fn is_layer_of(&self, paths: &[String]) -> bool {
        let of_debs = |path: &String| {
            let mut debs = self.debs.iter();
            debs.any(|tree| path.ends_with(&format!("-{}-{}", tree.name, tree.version)))
        };
        let is_own = |path: &String| *path == self.tools.logical.as_str() || path.starts_with('/') && of_debs(path);
        !paths.is_empty() && paths.iter().all(is_own)
    }
}

/// A store path that is laid out at `/` of a debug image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DebugTree {
    /// The package that it is of.
    pub name: String,
    /// The version of a Debian package.
    pub version: String,
    /// Its store path; it is no part of the image.
    pub logical: LogicalPath,
    /// Where it is on disk.
    #[serde(skip)]
    pub physical: PathBuf,
    /// SHA-256 of its canonical archive.
    pub nar_hash: Digest,
}

impl DebugTree {
    /// How the manifest's annotation and messages name it.
    fn named(&self, between: &str) -> String {
        match self.version.as_str() {
            "" => self.name.clone(),
            version => format!("{}{between}{version}", self.name),
        }
    }
}

/// The paths at which tools are seen that are on disk at `tools`, without leading slash.
pub fn seen(tools: &std::path::Path) -> Result<Vec<String>, crate::fsio::PathError> {
    let mut paths = Vec::new();
    for dir in PROGRAMS {
        let place = tools.join(dir);
        if place.is_dir() {
            let names = sorted_names(&place)?.into_iter();
            paths.extend(names.filter_map(|name| Some(format!("{dir}/{}", name.to_str()?))));
        }
    }
    Ok(paths)
}

/// The layers above those of the first image, lowest first, and what is to be told of them.
pub(super) fn cut(recipe: &Recipe, layout: &Layout, below: usize) -> Result<(Vec<Cut>, Vec<String>), ImageError> {
    let Some(debug) = &recipe.debug else {
        return Ok(Default::default());
    };
    let mut above = Above {
        recipe,
        debug,
        files: layout.files.clone(),
        cuts: vec![store_layer(&[&debug.tools], &Default::default())],
        notes: Vec::new(),
    };
    above.add_links()?;
    above.add_trees(&debug.debs)?;
    above.add_trees(&debug.built)?;
    let base = recipe.base.as_ref().map_or(0, |base| base.image.layers.len());
    let layers = base + below + above.cuts.len();
    if layers > LayerLimit::DOCKER.get() && !recipe.spec.layers.beyond_docker {
        return Err(ImageError::DebugLayers {
            layers,
            above: above.cuts.len(),
        });
    }
    Ok((above.cuts, above.notes))
}

/// The layers in the making.
struct Above<'a> {
    recipe: &'a Recipe,
    debug: &'a Debug,
    /// What the container will see so far.
    files: FileSystem,
    cuts: Vec<Cut>,
    notes: Vec<String>,
}

impl Above<'_> {
    /// Shows the tools where the image has nothing of their names.
    fn add_links(&mut self) -> Result<(), ImageError> {
        let before = self.files.clone();
        for path in seen(&self.debug.tools.physical)? {
            if !self.debug.taken.contains(&path) {
                self.add_link(&path, &path)?;
            }
        }
        if self.recipe.base.is_none() {
            for (link, target) in MERGED {
                if self.files.lookup(link.as_bytes())?.is_none() && self.files.lookup(target.as_bytes())?.is_some() {
                    self.files.insert(link.into(), Node::symlink(target))?;
                }
            }
            for shell in SHELLS {
                self.add_link(shell, &format!("usr/{shell}"))?;
            }
            for (place, path) in DATA {
                self.add_link(place, path)?;
            }
        }
        self.add_cut(&before, LINKS_COMMENT.to_owned(), Vec::new())
    }

    /// Makes `place` a symlink to what the tools have at `path`, where the image has nothing there.
    fn add_link(&mut self, place: &str, path: &str) -> Result<(), ImageError> {
        let tools = &self.debug.tools;
        let is_there = tools.physical.join(path).symlink_metadata().is_ok();
        if !is_there || self.is_there(place.as_bytes())? {
            return Ok(());
        }
        let place = self.files.make_parent(place.as_bytes())?;
        let mut target = tools.logical.relative().as_bytes().to_vec();
        push(&mut target, path.as_bytes());
        let link = Node::symlink(absolute(&target)).from(Origin::Own);
        self.files.insert(place, link)
    }

    /// Whether a path leads to something, or is a link that leads nowhere.
    fn is_there(&self, path: &[u8]) -> Result<bool, ImageError> {
        if self.files.resolve(path)?.is_some() || self.files.lookup(path)?.is_some() {
            return Ok(true);
        }
        let parent = crate::root::parent(path);
        let Some((mut real, _)) = self.files.resolve(parent)? else {
            return Ok(false);
        };
        push(&mut real, &path[parent.len() + usize::from(!parent.is_empty())..]);
        Ok(self.files.lookup(&real)?.is_some())
    }

    /// Lays out trees at `/`, in one layer.
    fn add_trees(&mut self, trees: &[DebugTree]) -> Result<(), ImageError> {
        let before = self.files.clone();
        for tree in trees {
            let mut others = Vec::new();
            for entry in walk(&tree.physical) {
                let entry = entry?;
                let Ok(below) = entry.path().strip_prefix(&tree.physical) else {
                    continue;
                };
                let below = below.as_os_str().as_bytes();
                if !is_for_debuggers(below) {
                    continue;
                }
                if entry.file_type().is_dir() && !self.is_there(below)? {
                    self.files.make_directory(below)?;
                }
                if !entry.file_type().is_file() {
                    continue;
                }
                let size = entry.path().metadata().context("read", entry.path())?.len();
                let content = Content::Disk {
                    physical: entry.path().to_owned(),
                    size,
                    identity: format!("{} {}", tree.nar_hash, below.escape_ascii()),
                };
                others.extend(self.add_file(tree, below, content)?);
            }
            if let Some(first) = others.first() {
                let count = others.len();
                let sources = if count == 1 { "source" } else { "sources" };
                self.notes.push(format!(
                    "{}: {count} {sources} of `{}` to be found below `/{OTHER_SOURCES}/{}`: something else is at `/{first}`",
                    self.recipe.spec.name.value, tree.name, tree.name
                ));
            }
        }
        let names: Vec<String> = trees.iter().map(|tree| tree.named(" ")).collect();
        let packages = trees.iter().filter(|tree| !tree.version.is_empty());
        let packages = packages.map(|tree| tree.named("=")).collect();
        self.add_cut(
            &before,
            format!("debug files of {}", super::cut::comment(&names)),
            packages,
        )
    }

    /// Adds a file; gives its path where something else has it.
    fn add_file(&mut self, tree: &DebugTree, below: &[u8], content: Content) -> Result<Option<String>, ImageError> {
        if !self.is_there(below)? {
            let place = self.files.make_parent(below)?;
            self.files.insert(place, Node::file(content, false))?;
            return Ok(None);
        }
        let is_same = match self.files.resolve(below)? {
            Some((_, super::filesystem::Found::File { content: there, .. })) => same_bytes(&there, &content)?,
            _ => false,
        };
        let Some(source) = below.strip_prefix(SOURCE.as_bytes()).filter(|_| !is_same) else {
            return Ok(None);
        };
        let other = [OTHER_SOURCES.as_bytes(), b"/", tree.name.as_bytes(), source].concat();
        if !self.is_there(&other)? {
            let place = self.files.make_parent(&other)?;
            self.files.insert(place, Node::file(content, false))?;
        }
        Ok(Some(String::from_utf8_lossy(below).into_owned()))
    }

    /// A layer of what is other than before; none where nothing is.
    fn add_cut(&mut self, before: &FileSystem, comment: String, packages: Vec<String>) -> Result<(), ImageError> {
        let tree = changed_tree(before, &self.files)?;
        if !tree.is_empty() {
            self.cuts.push(tree_cut(tree, comment, packages));
        }
        Ok(())
    }
}

/// Whether a file of a tree is one that debuggers look for, and no document of a package.
fn is_for_debuggers(below: &[u8]) -> bool {
    [&b"usr/lib/debug/"[..], b"build/source/"]
        .iter()
        .any(|dir| below.starts_with(dir))
}
