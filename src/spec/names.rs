//! *Names* of packages: each must exist, and no package may need itself.
//!
//! Invariant: looked up file by file, before imports give packages their prefixes, so that a file imported
//! by two ways is checked once and its diagnostics name what stands in it.

use std::collections::BTreeMap;

use super::checks::did_you_mean;
use super::diagnostics::Diagnostic;
use super::file::SpecFile;
use super::package::advice_for_unknown;
use super::types::{Dependency, Package, Span, Spanned};
use crate::graph;

/// A file with its imports resolved to file indices (`None` for one that could not be read).
pub(super) struct Scope<'a> {
    /// All files by index.
    pub(super) files: &'a [SpecFile],
    /// For each file, its imports by alias.
    pub(super) imports: &'a [BTreeMap<String, Option<usize>>],
}

/// Reports every name in file `index` that means nothing.
pub(super) fn check(scope: &Scope<'_>, index: usize, errors: &mut Vec<Diagnostic>) {
    let file = &scope.files[index];
    for (name, package) in &file.packages {
        for (purpose, dependencies) in purposes(package) {
            let user = format!("package `{name}` as one of its `{purpose}`");
            check_all(scope, index, dependencies, &user, errors);
        }
    }
    for (name, image) in &file.images {
        let user = format!("image `{name}` in its `contents`");
        check_all(scope, index, &image.contents, &user, errors);
        for (place, package) in &image.lay {
            if let Err(diagnostic) = look_up(scope, index, &package.value.0, &package.span) {
                errors.push(diagnostic.note(format!("needed by image `{name}` in `lay`, for `{place}`")));
            }
        }
    }
    check_cycles(file, errors);
}

fn purposes(package: &Package) -> [(&'static str, &Vec<Spanned<Dependency>>); 4] {
    [
        ("tools", &package.tools),
        ("libraries", &package.libraries),
        ("runtime", &package.runtime),
        ("dev", &package.dev),
    ]
}

fn check_all(
    scope: &Scope<'_>,
    index: usize,
    dependencies: &[Spanned<Dependency>],
    user: &str,
    errors: &mut Vec<Diagnostic>,
) {
    for dependency in dependencies {
        let Dependency::Package(name) = &dependency.value else {
            continue;
        };
        if let Err(diagnostic) = look_up(scope, index, &name.0, &dependency.span) {
            errors.push(diagnostic.note(format!("needed by {user}")));
        }
    }
}

/// Follows `alias:alias:name` from file `index`.
fn look_up(scope: &Scope<'_>, index: usize, name: &str, span: &Span) -> Result<(), Box<Diagnostic>> {
    let mut index = index;
    let mut rest = name;
    while let Some((alias, below)) = rest.split_once(':') {
        match scope.imports[index].get(alias) {
            Some(Some(imported)) => index = *imported,
            Some(None) => return Ok(()),
            None if scope.files[index].unreadable || scope.files[index].broken_imports.contains(alias) => return Ok(()),
            None => {
                let diagnostic = unknown_alias(&scope.imports[index], alias, below, name);
                return Err(Box::new(diagnostic.at(span.clone(), "unknown alias")));
            }
        }
        rest = below;
    }
    let file = &scope.files[index];
    if file.unreadable || file.packages.contains_key(rest) || file.broken_packages.contains(rest) {
        return Ok(());
    }
    let known: Vec<&str> = file.packages.keys().map(String::as_str).collect();
    let is_alias = scope.imports[index].contains_key(rest);
    let mut diagnostic = Diagnostic::new(format!("unknown package `{name}`")).at(span.clone(), "no such package");
    diagnostic.help = match name.rsplit_once(':') {
        _ if is_alias => Some(format!("`{rest}` is an import: write `{rest}:NAME`")),
        Some((prefix, _)) => match did_you_mean(rest, known.iter().copied()) {
            Some(similar) => Some(format!("did you mean `{prefix}:{similar}`?")),
            None if known.is_empty() => Some(format!("`{prefix}` holds no packages")),
            None => Some(format!("`{prefix}` holds `{}`", known.join("`, `"))),
        },
        None => advice_for_unknown(rest, &known),
    };
    Err(Box::new(diagnostic))
}

fn unknown_alias(imports: &BTreeMap<String, Option<usize>>, alias: &str, below: &str, name: &str) -> Diagnostic {
    let known = imports.keys().map(String::as_str).chain(["deb"]);
    let help = match did_you_mean(alias, known) {
        Some(similar) => format!("did you mean `{similar}:{below}`?"),
        None if matches!(alias, "apt" | "debian" | "dpkg") => format!("a Debian package is written `deb:{below}`"),
        None => format!("add `[imports] {alias} = {{ path = \"../{alias}\" }}`"),
    };
    Diagnostic::new(format!("unknown import `{alias}` in `{name}`")).help(help)
}

/// Reports cycles among a file's own packages: imports have none, so no cycle can leave the file. `dev` does
/// not count, as nothing is built for a shell to start.
fn check_cycles(file: &SpecFile, errors: &mut Vec<Diagnostic>) {
    let names: Vec<&String> = file.packages.keys().collect();
    let packages: Vec<&Package> = file.packages.values().collect();
    let edges: Vec<Vec<(usize, Span)>> = (packages.iter())
        .map(|package| {
            let needed = [&package.tools, &package.libraries, &package.runtime];
            let needed = needed.into_iter().flatten();
            needed
                .filter_map(|dependency| {
                    let Dependency::Package(name) = &dependency.value else {
                        return None;
                    };
                    let target = names.binary_search(&&name.0).ok()?;
                    Some((target, dependency.span.clone()))
                })
                .collect()
        })
        .collect();
    let successors: Vec<Vec<usize>> = edges
        .iter()
        .map(|edges| edges.iter().map(|(target, _)| *target).collect())
        .collect();
    let mut reported = vec![false; names.len()];
    graph::post_order(&successors, &mut |cycle| {
        if !cycle.iter().any(|&node| reported[node]) {
            cycle.iter().for_each(|&node| reported[node] = true);
            errors.push(describe_cycle(cycle, &names, &edges));
        }
    });
}

fn describe_cycle(cycle: &[usize], names: &[&String], edges: &[Vec<(usize, Span)>]) -> Diagnostic {
    let step = |position: usize| {
        let (from, to) = (cycle[position], cycle[(position + 1) % cycle.len()]);
        let edge = edges[from].iter().find(|(target, _)| *target == to);
        let span = edge.expect("a cycle is made of edges").1.clone();
        (span, format!("`{}` needs `{}`", names[from], names[to]))
    };
    let around: Vec<&str> = (cycle.iter().chain(cycle.first()))
        .map(|&node| names[node].as_str())
        .collect();
    let (span, label) = step(0);
    let diagnostic = Diagnostic::new(format!("dependency cycle: {}", around.join(" → ")))
        .at(span, label)
        .help("take one of these dependencies out, or move what both need into a package of its own");
    (1..cycle.len()).fold(diagnostic, |diagnostic, position| {
        let (span, label) = step(position);
        diagnostic.note_at(span, label)
    })
}
