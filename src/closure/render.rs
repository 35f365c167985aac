//! *Renderings* of a closure: a tree for people, a graph for Graphviz, a value for programs.
//!
//! Invariant: functions of the closure alone; sizes are of archives, in bytes.

use std::collections::BTreeSet;
use std::fmt;

use indicatif::DecimalBytes;
use serde::Serialize;

use super::Closure;
use crate::store_path::{PathInfo, StorePath};

/// A closure as a tree, in which each path is unfolded once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClosureTree {
    /// One for each root of the closure.
    pub roots: Vec<TreeNode>,
}

/// A path in a [`ClosureTree`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TreeNode {
    /// Its absolute logical path.
    pub path: String,
    /// Size of its archive in bytes.
    pub nar_size: u64,
    /// Sizes of all archives of its own closure in bytes.
    pub closure_size: u64,
    /// Whether it refers to something, but is unfolded elsewhere in the tree.
    pub repeated: bool,
    /// What it refers to, sorted; empty where it is repeated.
    pub references: Vec<TreeNode>,
}

/// A closure for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClosureReport {
    /// Absolute logical paths of the roots.
    pub roots: Vec<String>,
    /// Sizes of all archives in bytes.
    pub nar_size: u64,
    /// All members, each after what it refers to.
    pub paths: Vec<PathReport>,
}

/// A member of a closure for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PathReport {
    /// Its absolute logical path.
    pub path: String,
    /// Hash of its archive: `sha256:` and hexadecimal digits.
    pub nar_hash: String,
    /// Size of its archive in bytes.
    pub nar_size: u64,
    /// Sizes of all archives of its own closure in bytes.
    pub closure_size: u64,
    /// Absolute logical paths that it refers to, itself among them where it holds its own hash.
    pub references: Vec<String>,
}

impl Closure {
    /// The closure as a tree. Nearer to a root comes first: a path is unfolded where it stands least deep.
    pub fn tree(&self) -> ClosureTree {
        let sizes = self.closure_sizes();
        let mut unfolded: BTreeSet<&StorePath> = self.roots.iter().collect();
        // Breadth first decides where each path is unfolded: below the first that refers to it.
        let mut owned: Vec<Vec<&StorePath>> = vec![Vec::new(); self.members.len()];
        let mut level: Vec<&StorePath> = self.roots.iter().collect();
        while !level.is_empty() {
            let mut next = Vec::new();
            for (index, member) in level
                .iter()
                .filter_map(|path| Some((self.index(path)?, self.get(path)?)))
            {
                for reference in member.references.iter().filter(|&reference| unfolded.insert(reference)) {
                    owned[index].push(reference);
                    next.push(reference);
                }
            }
            level = next;
        }
        let node = |member: &PathInfo, repeated| TreeNode {
            path: self.dir.join(&member.path),
            nar_size: member.nar_size,
            closure_size: sizes.get(&member.path).copied().unwrap_or(member.nar_size),
            repeated,
            references: Vec::new(),
        };
        let roots = self.roots.iter().filter_map(|root| self.get(root));
        ClosureTree {
            roots: roots.map(|root| self.unfold(root, &owned, &node)).collect(),
        }
    }

    /// No deeper than the closure has levels, since each path is unfolded where it stands least deep.
    fn unfold(
        &self,
        member: &PathInfo,
        owned: &[Vec<&StorePath>],
        node: &dyn Fn(&PathInfo, bool) -> TreeNode,
    ) -> TreeNode {
        let mine = self.index(&member.path).map_or(&[][..], |index| &owned[index]);
        let mut unfolded = node(member, false);
        for reference in member.references.iter().filter_map(|reference| self.get(reference)) {
            unfolded.references.push(if mine.contains(&&reference.path) {
                self.unfold(reference, owned, node)
            } else {
                node(reference, !reference.references.is_empty())
            });
        }
        unfolded
    }

    /// The closure as a graph in Graphviz's language; an edge leads from a path to what it refers to.
    pub fn dot(&self) -> String {
        let mut text = String::from("digraph closure {\n  rankdir=LR;\n  node [shape=box];\n");
        for member in &self.members {
            let style = if self.roots.contains(&member.path) {
                ", style=bold"
            } else {
                ""
            };
            let name = member.path.name();
            text.push_str(&format!(
                "  \"{}\" [label=\"{name}\\n{} bytes\"{style}];\n",
                member.path, member.nar_size
            ));
        }
        for member in &self.members {
            for reference in &member.references {
                text.push_str(&format!("  \"{}\" -> \"{reference}\";\n", member.path));
            }
        }
        text.push_str("}\n");
        text
    }

    /// The closure for programs.
    pub fn report(&self) -> ClosureReport {
        let dir = &self.dir;
        let sizes = self.closure_sizes();
        let report = |member: &PathInfo| {
            let mut references = member.references.clone();
            if member.self_reference {
                references.insert(member.path.clone());
            }
            PathReport {
                path: dir.join(&member.path),
                nar_hash: member.nar_hash.to_string(),
                nar_size: member.nar_size,
                closure_size: sizes.get(&member.path).copied().unwrap_or(member.nar_size),
                references: references.iter().map(|reference| dir.join(reference)).collect(),
            }
        };
        ClosureReport {
            roots: self.roots.iter().map(|root| dir.join(root)).collect(),
            nar_size: self.nar_size(),
            paths: self.topological().into_iter().map(report).collect(),
        }
    }
}

impl ClosureReport {
    /// This closure and one in another store.
    pub fn and(mut self, other: Self) -> Self {
        self.roots.extend(other.roots);
        self.nar_size += other.nar_size;
        self.paths.extend(other.paths);
        self
    }
}

impl fmt::Display for ClosureTree {
    /// One line a path with its size and that of its closure; `…` marks those unfolded elsewhere.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for root in &self.roots {
            root.fmt_line(f, "", "", "")?;
        }
        Ok(())
    }
}

impl TreeNode {
    fn fmt_line(&self, f: &mut fmt::Formatter<'_>, before: &str, branch: &str, below: &str) -> fmt::Result {
        let mark = if self.repeated { " …" } else { "" };
        let path = &self.path;
        write!(f, "{before}{branch}{path}  {}", DecimalBytes(self.nar_size))?;
        if self.closure_size > self.nar_size {
            write!(f, ", closure {}", DecimalBytes(self.closure_size))?;
        }
        writeln!(f, "{mark}")?;
        let before = format!("{before}{below}");
        for (index, reference) in self.references.iter().enumerate() {
            let last = index + 1 == self.references.len();
            let (branch, below) = if last {
                ("└── ", "    ")
            } else {
                ("├── ", "│   ")
            };
            reference.fmt_line(f, &before, branch, below)?;
        }
        Ok(())
    }
}
