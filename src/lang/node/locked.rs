//! What a lock file of any kind comes to: which package is at which place in which `node_modules`.
//!
//! Invariant: places are paths below the project whose last part is a name of npm's in a `node_modules`, none is named twice
//! or lies below a link, and every tarball has a hash.

use std::collections::{BTreeMap, BTreeSet};

use super::git;
use super::package_lock::is_inside;
use super::platform::{Platform, Wanted};
use crate::digest::FileHash;
use crate::lang::LangError;
use crate::spec::{GitTree, Lock, NodeOptions};

/// The directory of packages.
pub(super) const MODULES: &str = "node_modules";

/// Where packages are for those that need them and do not say so: nothing is kept for that alone.
const HOISTED: &str = "node_modules/.pnpm/node_modules/";

/// What is laid out, by place, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Locked {
    pub(super) packages: BTreeMap<String, Placed>,
}

/// A package at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) content: Content,
    /// Its programs: paths in it by name.
    pub(super) bins: BTreeMap<String, String>,
    /// Whether its own `package.json` says what its programs are, since the lock file does not.
    pub(super) reads_bins: bool,
    /// Whether the lock file says that it has scripts that are run when it is installed; `None`: it does not say.
    pub(super) has_scripts: Option<bool>,
    /// Whether the package has it at run time, or its build alone.
    pub(super) kept: bool,
}

/// What is at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// A package from outside.
    Tarball(Tarball),
    /// A link to a directory of the project.
    Link(String),
    /// What the tarball of the package around it brought along.
    Bundled,
}

impl Content {
    /// Whether it is the tree of a repository's commit.
    pub(super) fn is_repository(&self) -> bool {
        matches!(self, Self::Tarball(tarball) if matches!(tarball.from, Published::InRepository(_)))
    }
}

/// A package from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tarball {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) hash: FileHash,
    pub(super) from: Published,
}

/// Where a tarball is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Published {
    /// The lock file says no more than its name and version.
    InRegistry,
    /// The lock file gives an address.
    At(String),
    /// It is a file beside the lock file, or below.
    InSource(String),
    /// It is the tree of a repository's commit.
    InRepository(Box<GitTree>),
}

/// A package of a lock file before it is known whether it is laid out.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) kind: NodeKind,
    pub(super) integrity: Option<String>,
    pub(super) resolved: Option<String>,
    pub(super) bins: BTreeMap<String, String>,
    pub(super) reads_bins: bool,
    pub(super) has_scripts: Option<bool>,
    pub(super) wanted: Wanted,
    pub(super) flags: Flags,
    /// What it needs: names, with whether it can do without.
    pub(super) needs: BTreeMap<String, bool>,
}

/// What is at a place, as a lock file says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum NodeKind {
    /// A package from outside.
    #[default]
    Package,
    /// In the tarball of the package around it.
    Bundled,
    /// A link to a directory of the project.
    Link(String),
    /// A directory of the project: the project itself, or a member of its workspace.
    Own,
}

/// How a package is needed: `dev` by development alone, and so on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) dev: bool,
    pub(super) optional: bool,
    pub(super) dev_optional: bool,
    pub(super) peer: bool,
}

/// All packages of a lock file, by place; the project itself is at the empty one.
pub(super) type Nodes = BTreeMap<String, Node>;

/// Chooses what is laid out: all that is needed to build, or to run where nothing is built.
pub(super) fn choose(
    nodes: &Nodes,
    file: &str,
    options: &NodeOptions,
    target: &Platform,
    lock: &Lock,
) -> Result<Locked, LangError> {
    let left_out = left_out(nodes, target);
    let mut packages = BTreeMap::new();
    for (place, node) in nodes {
        let kept = !is_omitted(node.flags, options, true);
        let is_wanted = kept || (options.build.is_some() && !is_omitted(node.flags, options, false));
        let leads_nowhere = matches!(&node.kind, NodeKind::Link(target) if left_out.contains(target.as_str()));
        if node.kind == NodeKind::Own || leads_nowhere || left_out.contains(place.as_str()) || !is_wanted {
            continue;
        }
        if let Some(refused) = target.refused(&node.wanted) {
            let message = format!(
                "`{}` {} is not for this platform ({refused}), and the project cannot do without it",
                node.name, node.version
            );
            let help = format!(
                "make it one of `optionalDependencies`, or lock another version; what is built is for {}",
                target.name()
            );
            return Err(at(file, place, message, help));
        }
        let content = match &node.kind {
            NodeKind::Link(target) => Content::Link(target.clone()),
            NodeKind::Bundled => Content::Bundled,
            NodeKind::Package | NodeKind::Own => Content::Tarball(tarball(node, file, place, lock)?),
        };
        let placed = Placed {
            content,
            bins: node.bins.clone(),
            reads_bins: node.reads_bins,
            has_scripts: node.has_scripts,
            kept,
        };
        packages.insert(place.clone(), placed);
    }
    Ok(Locked { packages })
}

/// As npm's `--omit` has it (arborist, `shouldOmit`).
fn is_omitted(flags: Flags, options: &NodeOptions, at_run_time: bool) -> bool {
    let omit = options.omit;
    let dev = omit.dev && at_run_time;
    (flags.peer && omit.peer)
        || (flags.dev && dev)
        || (flags.optional && omit.optional)
        || (flags.dev_optional && omit.optional && dev)
}

fn at(file: &str, place: &str, message: impl Into<String>, help: impl Into<String>) -> LangError {
    LangError::at(format!("`{file}`, `{place}`"), message, help)
}

fn tarball(node: &Node, file: &str, place: &str, lock: &Lock) -> Result<Tarball, LangError> {
    let Node { name, version, .. } = node;
    let said = format!("`{name}` {version}");
    let resolved = node.resolved.as_deref();
    let is = |schemes: &[&str]| resolved.is_some_and(|url| schemes.iter().any(|scheme| url.starts_with(scheme)));
    if let Some(url) = resolved.filter(|url| git::is_git(url)) {
        // An `integrity` would be that of what npm packed on somebody's machine.
        let tree = git::tree(node, url, file, place)?;
        return Ok(Tarball {
            name: name.clone(),
            version: version.clone(),
            hash: git::pinned(&tree, name, lock, file, place)?,
            from: Published::InRepository(Box::new(tree)),
        });
    }
    let own = resolved.and_then(|url| url.strip_prefix("file:"));
    if own.is_some_and(|path| !is_inside(path) || ![".tgz", ".tar.gz", ".tar"].iter().any(|end| path.ends_with(end))) {
        let message = format!(
            "{said} is `{}`, which is no tarball in the project",
            resolved.unwrap_or_default().escape_debug()
        );
        let help =
            "put its tarball (`npm pack`) into the source and depend on that (`file:vendor/NAME.tgz`), or publish it";
        return Err(at(file, place, message, help));
    }
    if resolved.is_some() && own.is_none() && !is(&["https:", "http:"]) {
        let help = "depend on a published version";
        let message = format!("{said} comes from `{}`", resolved.unwrap_or_default().escape_debug());
        return Err(at(file, place, message, help));
    }
    let again = "take these lines out of the lock file, remove `node_modules`, and have it written again, with an `integrity` \
                 of SHA-512";
    let Some(integrity) = &node.integrity else {
        let message = format!("{said} has no `integrity`, so that nothing tells what its bytes are to be");
        return Err(at(file, place, message, again));
    };
    let hash = FileHash::from_sri(integrity).map_err(|error| {
        let weak = |word: &str| ["sha1-", "md5-"].iter().any(|kind| word.starts_with(kind));
        let message = match integrity.split_ascii_whitespace().all(weak) {
            true => format!(
                "{said} has an `integrity` that is too weak to be one: `{}`",
                integrity.escape_debug()
            ),
            false => format!("the `integrity` of {said} is none: {error}"),
        };
        at(file, place, message, again)
    })?;
    Ok(Tarball {
        name: name.clone(),
        version: version.clone(),
        hash,
        from: match (own, resolved) {
            (Some(path), _) => Published::InSource(path.to_owned()),
            (None, Some(url)) => Published::At(url.to_owned()),
            (None, None) => Published::InRegistry,
        },
    })
}

/// What can be done without and is not for this platform, with all that nothing else needs (arborist, `optionalSet`).
fn left_out<'a>(nodes: &'a Nodes, target: &Platform) -> BTreeSet<&'a str> {
    let is_optional = |node: &Node| node.flags.optional || node.flags.dev_optional;
    let unfit = nodes
        .iter()
        .filter(|(_, node)| is_optional(node) && target.refused(&node.wanted).is_some());
    let unfit: Vec<&str> = unfit.map(|(place, _)| place.as_str()).collect();
    if unfit.is_empty() {
        return BTreeSet::new();
    }
    let edges = Edges::of(nodes);
    let mut left_out = BTreeSet::new();
    for place in unfit {
        left_out.extend(edges.optional_set(place));
    }
    left_out
}

/// Who needs whom.
struct Edges<'a> {
    /// By who needs: who is needed, with whether it can be done without.
    out: BTreeMap<&'a str, Vec<(&'a str, bool)>>,
    /// By who is needed.
    into: BTreeMap<&'a str, Vec<(&'a str, bool)>>,
}

impl<'a> Edges<'a> {
    fn of(nodes: &'a Nodes) -> Self {
        let mut edges = Self {
            out: BTreeMap::new(),
            into: BTreeMap::new(),
        };
        for (place, node) in nodes {
            let needed = node.needs.iter();
            let mut found: Vec<_> = needed
                .filter_map(|(name, optional)| Some((found_from(nodes, place, name)?, *optional)))
                .collect();
            if let NodeKind::Link(target) = &node.kind
                && !place.starts_with(HOISTED)
            {
                found.extend(nodes.get_key_value(target).map(|(target, _)| (target.as_str(), false)));
            }
            for (to, optional) in found {
                edges.out.entry(place).or_default().push((to, optional));
                edges.into.entry(to).or_default().push((place, optional));
            }
        }
        edges
    }

    /// The packages that cannot be had without `place`, up to where they can be done without, and those that only they need.
    fn optional_set(&self, place: &'a str) -> BTreeSet<&'a str> {
        let into = |place: &str| self.into.get(place).into_iter().flatten().copied();
        let mut needing = vec![place];
        let mut index = 0;
        while let Some(&place) = needing.get(index) {
            for (from, optional) in into(place) {
                if !optional && !needing.contains(&from) {
                    needing.push(from);
                }
            }
            index += 1;
        }
        let boundary: BTreeSet<&str> = needing.iter().copied().collect();
        let mut set = boundary.clone();
        let mut rest = needing;
        while let Some(place) = rest.pop() {
            for &(to, _) in self.out.get(place).into_iter().flatten() {
                if set.insert(to) {
                    rest.push(to);
                }
            }
        }
        loop {
            let is_needed = |place: &&str| {
                let outside = |(from, _): (&str, bool)| !set.contains(from);
                !boundary.contains(*place) && into(place).any(outside)
            };
            let needed: Vec<&str> = set.iter().copied().filter(|place| is_needed(place)).collect();
            if needed.is_empty() {
                return set;
            }
            for place in needed {
                set.remove(place);
            }
        }
    }
}

/// The place where Node finds a package from another's.
fn found_from<'a>(nodes: &'a Nodes, from: &str, name: &str) -> Option<&'a str> {
    let mut dir = from;
    loop {
        let is_modules = dir == MODULES || dir.ends_with("/node_modules");
        if !is_modules {
            let place = match dir {
                "" => format!("{MODULES}/{name}"),
                dir => format!("{dir}/{MODULES}/{name}"),
            };
            if let Some((place, _)) = nodes.get_key_value(&place) {
                return Some(place);
            }
        }
        dir = match dir.rsplit_once('/') {
            Some((above, _)) => above,
            None if dir.is_empty() => return None,
            None => "",
        };
    }
}
