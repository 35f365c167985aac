//! *Packages* are matched between two images: by store path, and by the lists that layerize's layers carry.
//!
//! Invariant: a name that is ambiguous on a side is matched with nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::super::opened::Opened;
use super::{Class, StorePathChange};
use crate::image::{PACKAGES_ANNOTATION, STORE_PATHS_ANNOTATION};
use crate::oci::Descriptor;

/// Names of a layer's contents that are shown.
const NAMES_MAX: usize = 6;

/// First side's store paths with the second's that stand for them: of the same name, else of the same package.
pub(super) fn matching(a: &BTreeSet<String>, b: &BTreeSet<String>) -> Vec<StorePathChange> {
    let lone_a: BTreeSet<&String> = a.difference(b).collect();
    let lone_b: BTreeSet<&String> = b.difference(a).collect();
    let mut changes = pairs(&lone_a, &lone_b, name_of, Class::StorePath);
    let taken: BTreeSet<&String> = changes.iter().flat_map(|change| [&change.a, &change.b]).collect();
    let rest = |paths: &BTreeSet<&String>| -> BTreeSet<String> {
        paths
            .iter()
            .filter(|path| !taken.contains(*path))
            .map(|path| (*path).clone())
            .collect()
    };
    let (rest_a, rest_b) = (rest(&lone_a), rest(&lone_b));
    fn package(path: &str) -> &str {
        package_of(name_of(path))
    }
    changes.extend(pairs(
        &rest_a.iter().collect(),
        &rest_b.iter().collect(),
        package,
        Class::Package,
    ));
    changes.sort_by(|x, y| x.a.cmp(&y.a));
    changes
}

fn pairs(a: &BTreeSet<&String>, b: &BTreeSet<&String>, key: fn(&str) -> &str, class: Class) -> Vec<StorePathChange> {
    let by_key = |paths: &BTreeSet<&String>| {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for path in paths {
            found.entry(key(path).to_owned()).or_default().push((*path).clone());
        }
        found
    };
    let (in_a, in_b) = (by_key(a), by_key(b));
    let mut changes = Vec::new();
    for (name, paths) in in_a {
        if let ([a], Some([b])) = (paths.as_slice(), in_b.get(&name).map(Vec::as_slice)) {
            changes.push(StorePathChange {
                class,
                name: package_of(&name).to_owned(),
                a: a.clone(),
                b: b.clone(),
                causes: Vec::new(),
            });
        }
    }
    changes
}

/// The name part of a store path.
pub(super) fn name_of(path: &str) -> &str {
    let base = path.rsplit('/').next().unwrap_or(path);
    base.split_once('-').map_or("", |(_, name)| name)
}

/// A name part without its version: the version's parts begin with a digit, all of them or (as Nix has it) the first.
pub(super) fn package_of(name: &str) -> &str {
    let digit = |at: usize| name[at + 1..].starts_with(|c: char| c.is_ascii_digit());
    // From the end on: the first hyphen of those after which all parts begin with a digit.
    let backwards = name.rmatch_indices('-').map(|(at, _)| at);
    let whole = backwards.take_while(|&at| digit(at)).fold(None, |_, at| Some(at));
    let mut forwards = name.match_indices('-').map(|(at, _)| at);
    let version = whole.or_else(|| forwards.find(|&at| digit(at)));
    version.map_or(name, |at| &name[..at])
}

/// Debian packages of other versions, by the lists of layerize's layers; those that are store paths are matched as such.
pub(super) fn changes(a: &Opened, b: &Opened) -> Vec<StorePathChange> {
    let (in_a, in_b) = (versions(a), versions(b));
    let changed = in_a.iter().filter_map(|(name, version)| {
        let other = in_b.get(name).filter(|other| *other != version)?;
        Some((name, version, other))
    });
    changed
        .map(|(name, a, b)| StorePathChange {
            class: Class::Package,
            name: name.clone(),
            a: a.clone(),
            b: b.clone(),
            causes: Vec::new(),
        })
        .collect()
}

fn versions(image: &Opened) -> BTreeMap<String, String> {
    let lists = image
        .layers
        .iter()
        .filter_map(|layer| layer.descriptor.annotation(PACKAGES_ANNOTATION));
    lists
        .flat_map(|list| list.split(' '))
        .filter_map(|item| item.split_once('='))
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect()
}

/// The packages of a layer, without versions, as its annotations name them.
pub(super) fn names(layer: &Descriptor) -> BTreeSet<String> {
    let list = |key: &str| {
        layer
            .annotation(key)
            .unwrap_or_default()
            .split_ascii_whitespace()
            .collect::<Vec<_>>()
    };
    let paths = list(STORE_PATHS_ANNOTATION)
        .into_iter()
        .map(|path| package_of(name_of(path)));
    let packages = list(PACKAGES_ANNOTATION)
        .into_iter()
        .filter_map(|item| item.split('=').next());
    paths.chain(packages).map(str::to_owned).collect()
}

/// The package of a layer that holds only one, by its list.
pub(super) fn only(layer: &Descriptor) -> Option<String> {
    let mut items = layer.annotation(PACKAGES_ANNOTATION)?.split_ascii_whitespace();
    let first = items.next().filter(|_| items.next().is_none())?;
    Some(first.split('=').next().unwrap_or(first).to_owned())
}

/// What a layer holds, in a few words.
pub(in super::super) fn holds(layer: &Descriptor, history: Option<&str>) -> String {
    let list = |key: &str| -> Vec<String> {
        let items = layer.annotation(key).unwrap_or_default().split_ascii_whitespace();
        items.map(str::to_owned).collect()
    };
    let paths: Vec<String> = list(STORE_PATHS_ANNOTATION)
        .iter()
        .map(|path| name_of(path).to_owned())
        .collect();
    let names = if paths.is_empty() {
        list(PACKAGES_ANNOTATION)
    } else {
        paths
    };
    if names.is_empty() {
        return history.unwrap_or_default().chars().take(160).collect();
    }
    let more = names.len().saturating_sub(NAMES_MAX);
    let shown = names.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 {
        format!("{shown} and {more} more")
    } else {
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_begin_at_a_digit() {
        for (name, package) in [
            ("libc6-2.36-9", "libc6"),
            ("libstdc++6-12.2", "libstdc++6"),
            ("hello", "hello"),
            ("gcc-12-base-12.2.0-14", "gcc-12-base"),
            ("x-1.0-rc1", "x"),
            ("a-b-c", "a-b-c"),
            ("", ""),
        ] {
            assert_eq!(package_of(name), package);
        }
    }

    #[test]
    fn store_paths_are_matched_by_name_before_package_and_never_guessed() {
        let set = |names: &[&str]| -> BTreeSet<String> {
            names.iter().map(|name| format!("/layerize/store/{name}")).collect()
        };
        let a = set(&["aa-x-1", "aa-y-1", "aa-z-1", "aa-same-1", "aa-two-1", "ab-two-2"]);
        let b = set(&["bb-x-1", "bb-y-2", "bb-w-1", "aa-same-1", "bb-two-3"]);
        let found: Vec<(Class, String)> = matching(&a, &b)
            .into_iter()
            .map(|change| (change.class, change.name))
            .collect();
        assert_eq!(
            found,
            [(Class::StorePath, "x".to_owned()), (Class::Package, "y".to_owned())]
        );
    }
}
