//! A *graph* is a closure as the planner sees it: paths with names, sizes and references.
//!
//! Invariant: nodes are sorted by key, every key names one node, and what is computed from a graph does not depend
//! on the order in which its nodes were given or on any hash in their paths (except between paths that differ in
//! nothing else).
//!
//! A *key* is what stays when a path is rebuilt: its package name. Where several paths share one, the
//! longer forms tell them apart (`gcc-12-base-12.2.0`: `gcc`, `gcc-12-base`, the full name, the full name and a
//! number).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Origin, PlanError};
use crate::graph::NodeSet;

/// Most paths in a graph.
const MAX_NODES: usize = 1 << 20;

/// A path of a closure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Package name; where empty it is taken from the path.
    pub name: String,
    /// Absolute store path.
    pub path: String,
    /// Size in bytes (that of the canonical archive).
    pub size: u64,
    /// Paths it refers to; itself may be among them.
    pub references: Vec<String>,
    /// Whose releases change it.
    pub origin: Origin,
}

impl Node {
    /// A path of which nothing else is known.
    pub fn new(path: String) -> Self {
        Self {
            name: String::new(),
            path,
            size: 0,
            references: Vec::new(),
            origin: Origin::default(),
        }
    }
}

/// A closure to be planned.
#[derive(Debug, Clone)]
pub struct Graph {
    nodes: Vec<Node>,
    keys: Vec<String>,
    references: Vec<Vec<usize>>,
    closures: Vec<NodeSet>,
}

impl Graph {
    /// Takes the paths of a closure in any order. A path given twice, or a reference to none of them, is an error.
    pub fn new(mut nodes: Vec<Node>) -> Result<Self, PlanError> {
        if nodes.len() > MAX_NODES {
            return Err(PlanError::TooLarge { limit: MAX_NODES });
        }
        for node in &mut nodes {
            if node.name.is_empty() {
                node.name = package_name(&node.path).to_owned();
            }
        }
        let keys = sort_by_key(&mut nodes)?;
        let index: BTreeMap<&str, usize> = nodes
            .iter()
            .enumerate()
            .map(|(at, node)| (node.path.as_str(), at))
            .collect();
        let mut references = Vec::with_capacity(nodes.len());
        for (at, node) in nodes.iter().enumerate() {
            let mut found = Vec::with_capacity(node.references.len());
            for reference in &node.references {
                match index.get(reference.as_str()) {
                    Some(&other) if other == at => {}
                    Some(&other) => found.push(other),
                    None => {
                        return Err(PlanError::Open {
                            path: node.path.clone(),
                            reference: reference.clone(),
                        });
                    }
                }
            }
            found.sort_unstable();
            found.dedup();
            references.push(found);
        }
        let closures = crate::graph::closures(&references);
        Ok(Self {
            nodes,
            keys,
            references,
            closures,
        })
    }

    /// Reads the JSON of `nix path-info --json` (a list, or an object by path), of `exportReferencesGraph`
    /// (`graph` or any key that holds such a list), or a list of `{path, references, narSize}`.
    pub fn parse_json(json: &str) -> Result<Self, PlanError> {
        let value: Value = serde_json::from_str(json).map_err(|source| PlanError::Json { source })?;
        let nodes = match &value {
            Value::Array(list) => list.iter().map(|item| json_node(None, item)).collect(),
            Value::Object(map) => match map.get("graph").or_else(|| map.values().find(|value| is_graph(value))) {
                Some(Value::Array(list)) => list.iter().map(|item| json_node(None, item)).collect(),
                _ => map.iter().map(|(path, item)| json_node(Some(path), item)).collect(),
            },
            _ => Err(PlanError::Shape {
                at: "the document".to_owned(),
                reason: "it is neither a list nor an object",
            }),
        };
        Self::new(nodes?)
    }

    /// The paths, sorted by key.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What stays of each path when it is rebuilt, in the order of [`nodes`](Self::nodes).
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Sum of all sizes in bytes.
    pub fn size(&self) -> u64 {
        self.nodes.iter().map(|node| node.size).sum()
    }

    /// Number of paths.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no path.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Indices of the nodes that a user's text names: a path, a key, or a package name shared by several.
    pub fn named(&self, text: &str) -> Vec<usize> {
        let exact = (0..self.len()).filter(|&at| self.nodes[at].path == text || self.keys[at] == text);
        let exact: Vec<_> = exact.collect();
        if !exact.is_empty() {
            return exact;
        }
        (0..self.len())
            .filter(|&at| self.nodes[at].name == text || full_name(&self.nodes[at].path) == text)
            .collect()
    }

    /// Indices of the nodes that a node refers to, without itself.
    pub(super) fn references(&self, node: usize) -> &[usize] {
        &self.references[node]
    }

    /// The same for all nodes.
    pub(super) fn all_references(&self) -> &[Vec<usize>] {
        &self.references
    }

    /// Everything that a node refers to directly or not, with itself.
    pub(super) fn closure(&self, node: usize) -> &NodeSet {
        &self.closures[node]
    }

    /// Indices of the nodes that refer to each node.
    pub(super) fn referrers(&self) -> Vec<Vec<usize>> {
        let mut referrers = vec![Vec::new(); self.len()];
        for (node, references) in self.references.iter().enumerate() {
            for &reference in references {
                referrers[reference].push(node);
            }
        }
        referrers
    }
}

/// `libfoo-1.2` of `/nix/store/<hash>-libfoo-1.2`.
pub(super) fn full_name(path: &str) -> &str {
    let base = path.rsplit('/').next().unwrap_or(path);
    match base.split_once('-') {
        Some((hash, name)) if hash.len() == crate::store_path::HASH_CHARS => name,
        _ => base,
    }
}

/// The name without its version: up to the first dash that no letter follows (Nix's `parseDrvName`).
pub(super) fn package_name(path: &str) -> &str {
    let name = full_name(path);
    let version = name.match_indices('-').find(|&(at, _)| {
        let next = name.as_bytes().get(at + 1);
        at > 0 && next.is_some_and(|next| !next.is_ascii_alphabetic())
    });
    version.map_or(name, |(at, _)| &name[..at])
}

/// The name up to the last dash that a digit follows.
fn longer_name(path: &str) -> &str {
    let name = full_name(path);
    let version = name.match_indices('-').rfind(|&(at, _)| {
        let next = name.as_bytes().get(at + 1);
        at > 0 && next.is_some_and(u8::is_ascii_digit)
    });
    version.map_or(name, |(at, _)| &name[..at])
}

/// Sorts nodes by key and gives the keys.
fn sort_by_key(nodes: &mut Vec<Node>) -> Result<Vec<String>, PlanError> {
    nodes.sort_by(|a, b| identity(a).cmp(&identity(b)));
    let keys = unique_keys(nodes.iter().map(|node| (node.name.as_str(), node.path.as_str())));
    let mut keyed: Vec<(String, Node)> = keys.into_iter().zip(std::mem::take(nodes)).collect();
    keyed.sort_by(|a, b| a.0.cmp(&b.0));
    let mut keys = Vec::with_capacity(keyed.len());
    for (key, node) in keyed {
        keys.push(key);
        nodes.push(node);
    }
    let mut paths: Vec<&str> = nodes.iter().map(|node| node.path.as_str()).collect();
    paths.sort_unstable();
    match paths.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(PlanError::Twice {
            path: pair[0].to_owned(),
        }),
        None => Ok(keys),
    }
}

/// Orders nodes by everything else before the hash.
fn identity(node: &Node) -> (&str, &str, u64, Vec<&str>, &str) {
    let mut references: Vec<&str> = node.references.iter().map(|path| full_name(path)).collect();
    references.sort_unstable();
    (&node.name, full_name(&node.path), node.size, references, &node.path)
}

/// A key for each (package name, path), unique: the shortest form that no other one shares.
pub(super) fn unique_keys<'a>(paths: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let paths: Vec<_> = paths.collect();
    let forms = paths
        .iter()
        .map(|&(name, path)| [name, longer_name(path), full_name(path)]);
    let forms: Vec<[&str; 3]> = forms.collect();
    let mut keys: Vec<Option<String>> = vec![None; paths.len()];
    for form in 0..3 {
        give_unique(&forms, form, &mut keys);
    }
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let numbered = paths.iter().zip(keys).map(|(&path, key)| {
        key.unwrap_or_else(|| {
            let name = full_name(path.1);
            let number = numbers.entry(name).or_default();
            *number += 1;
            // No name of a store path holds a `#`.
            format!("{name}#{number}")
        })
    });
    numbered.collect()
}

/// Gives every path without a key its form of this length, where no other path has it.
fn give_unique(forms: &[[&str; 3]], form: usize, keys: &mut [Option<String>]) {
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    let open: Vec<usize> = (0..forms.len()).filter(|&at| keys[at].is_none()).collect();
    open.iter()
        .for_each(|&at| *uses.entry(forms[at][form]).or_default() += 1);
    let taken: BTreeSet<String> = keys.iter().flatten().cloned().collect();
    for at in open {
        let name = forms[at][form];
        if uses[name] == 1 && !taken.contains(name) {
            keys[at] = Some(name.to_owned());
        }
    }
}

fn is_graph(value: &Value) -> bool {
    matches!(value, Value::Array(list) if list.first().is_some_and(|item| item.get("path").is_some()))
}

fn json_node(path: Option<&String>, item: &Value) -> Result<Node, PlanError> {
    let error = |at: &str, reason| PlanError::Shape {
        at: at.to_owned(),
        reason,
    };
    let path = match (path, item.get("path")) {
        (Some(path), _) => path.clone(),
        (None, Some(Value::String(path))) => path.clone(),
        (None, _) => {
            return Err(error(
                &item.to_string().chars().take(60).collect::<String>(),
                "it has no `path`",
            ));
        }
    };
    if !item.is_object() {
        return Err(error(
            &path,
            "it is not an object with `references` and `narSize` (is the path valid in its store?)",
        ));
    }
    let size = item.get("narSize").and_then(Value::as_u64);
    let size = size.ok_or_else(|| error(&path, "it has no `narSize` in bytes"))?;
    let Some(Value::Array(references)) = item.get("references") else {
        return Err(error(&path, "it has no list of `references`"));
    };
    let references = references.iter().map(|reference| match reference.as_str() {
        Some(text) if text.starts_with('/') => Ok(text.to_owned()),
        // Newer forms name a reference without its store directory.
        Some(text) => Ok(format!("{}/{text}", path.rsplit_once('/').map_or("", |(dir, _)| dir))),
        None => Err(error(&path, "a reference is not text")),
    });
    let references = references.collect::<Result<_, _>>()?;
    Ok(Node {
        size,
        references,
        ..Node::new(path)
    })
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_graph() {
        crate::testing::fuzz("graph", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let _ = super::Graph::parse_json(&text);
        });
    }
}
