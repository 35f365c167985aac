//! To *cut* an image is to say which layer holds what.
//!
//! Invariant: every store path and every entry of the layout is in exactly one layer, but for directories, which every
//! layer states that has something below them. From the lowest: the packages of `root`, the store paths of the closure,
//! and one layer of everything else (joined links, files, accounts), which changes most and costs least.
//!
//! Which packages and which store paths share a layer is the [`plan`](mod@super::plan)'s to say.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::error::ImageError;
use super::filesystem::{Content, FileSystem, Node, NodeKind, Origin, directory_mode};
use super::layout::{Layout, root_node};
use super::permissions::Attributes;
use super::plan::root_path;
use super::recipe::{ClosureMember, Recipe, RootPackage};
use crate::layer::partition::LayerPlan;
use crate::layer::{
    Attribute, FileContent, LayerContent, LayerError, LayerInput, StoreEntry, Tree, TreeEntry, compare_paths,
};
use crate::root::{self, RootEntry};

/// Names that a layer's comment lists before it counts the rest.
const NAMES_SHOWN: usize = 4;

const CONFIGURED_COMMENT: &str = "what maintainer scripts made";

const TOP_COMMENT: &str = "links, files and accounts";

/// A layer to be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    pub input: LayerInput,
    /// `NAME=VERSION` of the Debian packages in it.
    pub packages: Vec<String>,
}

/// Cuts a layout into layers by a plan of the recipe, lowest first.
pub(super) fn cut(recipe: &Recipe, layout: &Layout, plan: &LayerPlan) -> Result<Vec<Cut>, ImageError> {
    let packages = recipe.root.iter().enumerate();
    let packages: BTreeMap<_, _> = packages.map(|(index, package)| (root_path(package), index)).collect();
    let members: BTreeMap<_, _> = recipe
        .closure
        .iter()
        .map(|member| (member.logical.as_str(), member))
        .collect();
    let owners = owners(recipe, layout)?;
    let mut cuts = Vec::new();
    for layer in &plan.layers {
        let paths = layer.paths.iter();
        let group: BTreeSet<usize> = paths.clone().filter_map(|path| packages.get(path).copied()).collect();
        if !group.is_empty() {
            cuts.extend(root_layer(recipe, layout, &owners, &group)?);
        }
        let group: Vec<_> = paths.filter_map(|path| members.get(path.as_str()).copied()).collect();
        if !group.is_empty() {
            cuts.push(store_layer(&group, &layout.attributes));
        }
    }
    let configured = tree_of(&layout.files, |_, node| node.origin == Origin::Configured)?;
    if !configured.is_empty() {
        cuts.push(tree_cut(configured, CONFIGURED_COMMENT.to_owned(), Vec::new()));
    }
    let top = top_tree(layout, &owners)?;
    // Over a base there may be nothing but other settings.
    if recipe.base.is_none() || !top.is_empty() {
        cuts.push(tree_cut(top, TOP_COMMENT.to_owned(), Vec::new()));
    }
    Ok(cuts)
}

/// A layer of a tree, with the Debian packages in it.
pub(super) fn tree_cut(tree: Tree, comment: String, packages: Vec<String>) -> Cut {
    Cut {
        input: LayerInput {
            content: LayerContent::Tree(tree),
            comment,
        },
        packages,
    }
}

/// What is in `after` and not in `before`, or was something else there, with its parents.
pub(super) fn changed_tree(before: &FileSystem, after: &FileSystem) -> Result<Tree, ImageError> {
    tree_of(after, |path, node| before.node(path) != Some(node))
}

pub(super) fn store_layer(members: &[&ClosureMember], attributes: &Attributes) -> Cut {
    let names: Vec<_> = members.iter().map(|member| member.name.clone()).collect();
    Cut {
        input: LayerInput {
            content: LayerContent::StorePaths(
                members
                    .iter()
                    .map(|member| store_entry(member, attributes.get(&member.logical).cloned().unwrap_or_default()))
                    .collect(),
            ),
            comment: comment(&names),
        },
        packages: Vec::new(),
    }
}

/// A closure member as the packer takes it.
pub(super) fn store_entry(member: &ClosureMember, attributes: Vec<Attribute>) -> StoreEntry {
    StoreEntry {
        logical: member.logical.clone(),
        physical: member.physical.clone(),
        nar_hash: member.nar_hash,
        nar_size: member.nar_size,
        attributes,
    }
}

/// The package that each entry of the root came from first, by the entry's path: symlinks, and directories with nothing
/// in them (the others are stated by whatever is below them).
fn owners(recipe: &Recipe, layout: &Layout) -> Result<BTreeMap<Vec<u8>, usize>, ImageError> {
    let parents: BTreeSet<&[u8]> = layout.root.entries.keys().map(|path| root::parent(path)).collect();
    let mut owners = BTreeMap::new();
    for (path, entry) in &layout.root.entries {
        let owner = match entry {
            RootEntry::File { package, .. } => Some(*package),
            RootEntry::Directory if parents.contains(path.as_slice()) => None,
            RootEntry::Directory | RootEntry::Symlink { .. } => {
                let below = OsStr::from_bytes(path);
                let brings = |package: &RootPackage| package.physical.join(below).symlink_metadata().is_ok();
                recipe.root.iter().position(brings)
            }
        };
        if let Some(owner) = owner {
            owners.insert(path.clone(), owner);
        }
    }
    Ok(owners)
}

/// The layer of some packages; none where earlier ones bring all that they have.
fn root_layer(
    recipe: &Recipe,
    layout: &Layout,
    owners: &BTreeMap<Vec<u8>, usize>,
    group: &BTreeSet<usize>,
) -> Result<Option<Cut>, ImageError> {
    let mut tree = Tree::new();
    let links = links(layout);
    // A layer of packages must not change with what is laid over it: its directories are the root's own.
    let parent = |parent: &[u8]| root_node(recipe, parent, &RootEntry::Directory, &layout.root);
    let own = owners.iter().filter(|(_, owner)| group.contains(owner));
    let (linked, others): (Vec<_>, Vec<_>) = own.partition(|(path, _)| links.contains_key(path.as_slice()));
    for (path, _) in others.into_iter().chain(linked) {
        let Some(entry) = layout.root.entries.get(path) else {
            continue;
        };
        let node = root_node(recipe, path, entry, &layout.root);
        insert(&mut tree, path, &node, &parent)?;
        if let Some(TreeEntry::File {
            mode,
            uid,
            gid,
            capabilities,
            ..
        }) = links.get(path.as_slice()).and_then(|target| tree.get(target))
        {
            let link = TreeEntry::HardLink {
                target: links[path.as_slice()].to_vec(),
                mode: *mode,
                uid: *uid,
                gid: *gid,
                capabilities: *capabilities,
            };
            tree.insert(path, link).map_err(LayerError::from)?;
        }
    }
    if tree.is_empty() {
        return Ok(None);
    }
    let packages = || group.iter().filter_map(|&index| recipe.root.get(index));
    let names: Vec<_> = packages()
        .map(|package| format!("{} {}", package.name, package.version))
        .collect();
    Ok(Some(Cut {
        input: LayerInput {
            content: LayerContent::Tree(tree),
            comment: comment(&names),
        },
        packages: packages()
            .map(|package| format!("{}={}", package.name, package.version))
            .collect(),
    }))
}

/// For each path of the root that is another name of a file of its package: the one that comes first in a layer.
fn links(layout: &Layout) -> BTreeMap<&[u8], &[u8]> {
    let mut links = BTreeMap::new();
    for group in &layout.root.links {
        let first = group.iter().min_by(|a, b| compare_paths(a, b));
        let others = group.iter().filter(|path| Some(*path) != first);
        links.extend(others.filter_map(|path| Some((path.as_slice(), first?.as_slice()))));
    }
    links
}

/// Everything that is neither a package's nor a store path.
fn top_tree(layout: &Layout, owners: &BTreeMap<Vec<u8>, usize>) -> Result<Tree, ImageError> {
    tree_of(&layout.files, |path, node| {
        // The links of a merged `/usr` are no package's.
        let is_packages = owners.contains_key(path) || node.kind == NodeKind::Directory;
        match node.origin {
            Origin::Base | Origin::Configured => false,
            Origin::Root => !is_packages,
            Origin::Joined | Origin::Own => true,
        }
    })
}

/// The nodes that `belongs` chooses, with their parents.
fn tree_of(files: &FileSystem, belongs: impl Fn(&[u8], &Node) -> bool) -> Result<Tree, ImageError> {
    let mut tree = Tree::new();
    for (path, node) in files.nodes() {
        if belongs(path, node) {
            insert(&mut tree, path, node, &|parent| {
                let present = files.node(parent).cloned();
                present.unwrap_or_else(|| Node::directory(directory_mode(parent)))
            })?;
        }
    }
    Ok(tree)
}

/// Adds a node with its parents, each as `parent` has it: those that the tree adds by itself are all 0755.
fn insert(tree: &mut Tree, path: &[u8], node: &Node, parent: &dyn Fn(&[u8]) -> Node) -> Result<(), LayerError> {
    for (end, _) in path.iter().enumerate().filter(|&(_, &byte)| byte == b'/') {
        let above = &path[..end];
        if tree.get(above).is_none() {
            tree.insert(above, entry(&parent(above)))?;
        }
    }
    Ok(tree.insert(path, entry(node))?)
}

fn entry(node: &Node) -> TreeEntry {
    let Node {
        mode,
        uid,
        gid,
        capabilities,
        ..
    } = *node;
    match &node.kind {
        NodeKind::Directory => TreeEntry::Directory { mode, uid, gid },
        NodeKind::Symlink(target) => TreeEntry::Symlink {
            target: target.clone(),
            uid,
            gid,
        },
        NodeKind::File(content) => TreeEntry::File {
            content: match content.clone() {
                Content::Bytes(bytes) => FileContent::Bytes(bytes),
                Content::Disk {
                    physical,
                    size,
                    identity,
                } => FileContent::Path {
                    physical,
                    size,
                    identity,
                },
            },
            mode,
            uid,
            gid,
            capabilities,
        },
    }
}

/// What a layer holds, in one line that stays short.
pub(super) fn comment(names: &[String]) -> String {
    match names {
        [] => String::new(),
        _ if names.len() <= NAMES_SHOWN + 1 => names.join(", "),
        _ => format!(
            "{} and {} more",
            names[..NAMES_SHOWN].join(", "),
            names.len() - NAMES_SHOWN
        ),
    }
}
