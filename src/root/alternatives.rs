//! *Alternatives*: the links that `update-alternatives` would have made for a set of packages.
//!
//! Invariant: a function of the packages' records and contents; the order of the packages does not matter.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use super::{ALTERNATIVES_DIR, RootError};
use crate::fsio;

/// Largest record of one package, in bytes.
const RECORD_MAX: u64 = 1 << 20;

/// Links that `update-alternatives` would have made, highest priority first, ties by package name (the first in
/// byte order wins): link path → target, both absolute.
///
/// As `update-alternatives` does: a choice whose target no package brings is not a choice, a slave goes with the
/// choice that won and is left out where its target is missing, and a link never stands in the way of a file
/// that a package brings itself.
pub fn alternatives(packages: &[&Path]) -> Result<BTreeMap<String, String>, RootError> {
    let mut choices = Vec::new();
    for package in packages {
        read_package(package, &mut choices)?;
    }
    let trees = Trees::new(packages);
    let exists = |absolute: &str| trees.have(absolute.trim_start_matches('/'));
    let mut best: BTreeMap<&str, &Choice> = BTreeMap::new();
    for choice in choices.iter().filter(|choice| exists(&choice.master.target)) {
        let winner = best.entry(&choice.master.name).or_insert(choice);
        if choice.rank() < winner.rank() {
            *winner = choice;
        }
    }
    let mut links = BTreeMap::new();
    for choice in best.values() {
        let slaves = choice.slaves.iter().filter(|slave| exists(&slave.target));
        for link in std::iter::once(&choice.master).chain(slaves) {
            if !exists(&link.link) {
                links.insert(link.link.clone(), link.target.clone());
            }
        }
    }
    Ok(links)
}

/// Packages' trees that are asked for many files: most packages lack most directories, and are asked for those once.
pub struct Trees<'a> {
    packages: &'a [&'a Path],
    /// The packages that have a directory.
    having: RefCell<BTreeMap<String, Rc<[&'a Path]>>>,
}

impl<'a> Trees<'a> {
    /// The trees of these packages, which stay as they are.
    pub fn new(packages: &'a [&'a Path]) -> Self {
        Self {
            packages,
            having: RefCell::default(),
        }
    }

    /// Whether one of them has something at `below`, relative to its root.
    pub fn have(&self, below: &str) -> bool {
        let parent = below.rsplit_once('/').map_or("", |(parent, _)| parent);
        let known = self.having.borrow().get(parent).cloned();
        let having = known.unwrap_or_else(|| {
            let having = self.packages.iter().filter(|package| package.join(parent).is_dir());
            let having: Rc<[&Path]> = having.copied().collect();
            self.having.borrow_mut().insert(parent.to_owned(), having.clone());
            having
        });
        having
            .iter()
            .any(|package| package.join(below).symlink_metadata().is_ok())
    }
}

/// One `update-alternatives --install`.
struct Choice {
    package: String,
    priority: i64,
    master: Link,
    slaves: Vec<Link>,
}

struct Link {
    link: String,
    name: String,
    target: String,
}

impl Choice {
    /// Orders the choices of one name, the winner least.
    fn rank(&self) -> (i64, &str, &str) {
        (self.priority.saturating_neg(), &self.package, &self.master.target)
    }
}

fn read_package(package: &Path, choices: &mut Vec<Choice>) -> Result<(), RootError> {
    let dir = package.join(ALTERNATIVES_DIR);
    if !fs::symlink_metadata(&dir).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(());
    }
    for name in fsio::sorted_names(&dir)? {
        let path = dir.join(&name);
        let text = fsio::read_limited(&path, RECORD_MAX)?;
        let package = name.to_string_lossy();
        for (index, line) in String::from_utf8_lossy(&text).lines().enumerate() {
            parse_line(&package, line, choices).ok_or_else(|| RootError::Alternatives {
                path: path.clone(),
                line: index + 1,
                text: line.to_owned(),
            })?;
        }
    }
    Ok(())
}

/// Parses a line of [`ALTERNATIVES_DIR`]'s format; `None` where it does not follow it.
fn parse_line(package: &str, line: &str, choices: &mut Vec<Choice>) -> Option<()> {
    let link = |link: &str, name: &str, target: &str| {
        (link.starts_with('/') && target.starts_with('/')).then(|| Link {
            link: link.to_owned(),
            name: name.to_owned(),
            target: target.to_owned(),
        })
    };
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["install", path, name, target, priority] => choices.push(Choice {
            package: package.to_owned(),
            priority: priority.parse().ok()?,
            master: link(path, name, target)?,
            slaves: Vec::new(),
        }),
        ["slave", path, name, target] => choices.last_mut()?.slaves.push(link(path, name, target)?),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_alternatives() {
        crate::testing::fuzz("alternatives", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let mut choices = Vec::new();
            for line in text.lines() {
                let _ = super::parse_line("package", line, &mut choices);
            }
        });
    }
}
