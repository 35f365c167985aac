//! Files are *compared* by path: what their entries say.
//!
//! Invariant: a class is named only where the files differ in it themselves: a hard link to the same content is not
//! another type, a directory without an entry of its own is not a missing directory.

use std::collections::{BTreeMap, BTreeSet};

use super::super::facts::{Fact, shown};
use super::super::owner;
use super::{Class, FileChange, LayerPlace, StorePathChange};
use super::{inside, packages};
use crate::archive::Kind;
use crate::archive::tar::Entry;
use crate::capability;
use crate::digest::Digest;

/// Files by path, each with the layer it is in.
pub(super) type Files<'a> = BTreeMap<&'a [u8], (usize, &'a Fact)>;

/// A file that is on both sides, by its path on each.
pub(super) type Pair<'a> = ((usize, &'a Fact), (usize, &'a Fact));

/// The files of two sides, matched.
pub(super) struct Matched<'a> {
    pub(super) pairs: Vec<Pair<'a>>,
    pub(super) removed: Vec<(usize, &'a Fact)>,
    pub(super) added: Vec<(usize, &'a Fact)>,
    pub(super) renamed: Vec<Pair<'a>>,
    /// Directories that the other side only implies: the directory, and whether it is the first side that has it.
    pub(super) implied: Vec<(usize, &'a Fact, bool)>,
    pub(super) store_paths: Vec<StorePathChange>,
}

/// Matches files by path; a store path that is on one side only stands for the one of the same name or package that is
/// on the other side only, because a rebuilt package has another hash in every path.
pub(super) fn matched<'a>(a: &Files<'a>, b: &Files<'a>) -> Matched<'a> {
    let store_paths = packages::matching(&owners_of(a), &owners_of(b));
    let renamed = store_paths
        .iter()
        .map(|change| (change.a.clone(), change.b.clone()))
        .collect();
    let mut matched = Matched {
        pairs: Vec::new(),
        removed: Vec::new(),
        added: Vec::new(),
        renamed: Vec::new(),
        implied: Vec::new(),
        store_paths,
    };
    let mut used = BTreeSet::new();
    for (&path, &fact) in a {
        let other = translated(path, &renamed);
        let other = other.as_deref().unwrap_or(path);
        match b.get_key_value(other) {
            Some((&key, &found)) => {
                used.insert(key);
                matched.pairs.push((fact, found));
            }
            None if implies(b, other, fact.1) => matched.implied.push((fact.0, fact.1, true)),
            None => matched.removed.push(fact),
        }
    }
    let back = renamed.into_iter().map(|(a, b)| (b, a)).collect();
    for (path, &fact) in b.iter().filter(|(path, _)| !used.contains(*path)) {
        let other = translated(path, &back);
        if implies(a, other.as_deref().unwrap_or(path), fact.1) {
            matched.implied.push((fact.0, fact.1, false));
        } else {
            matched.added.push(fact);
        }
    }
    pair_renamed(&mut matched);
    matched
}

impl Matched<'_> {
    /// Whether two links differ only in that one store path stands for another.
    pub(super) fn follows(&self, (a, b): &Pair) -> bool {
        let (x, y) = (&a.1.entry.link, &b.1.entry.link);
        let pairs = self.store_paths.iter();
        pairs
            .filter_map(|change| {
                Some((
                    x.strip_prefix(change.a.as_bytes())?,
                    y.strip_prefix(change.b.as_bytes())?,
                ))
            })
            .any(|(rest_a, rest_b)| rest_a == rest_b)
    }
}

/// Whether there are files below a directory that has no entry of its own.
fn implies(files: &Files, path: &[u8], fact: &Fact) -> bool {
    let below = [path, b"/"].concat();
    let first = if path.is_empty() {
        files.keys().next()
    } else {
        files.range(below.as_slice()..).next().map(|(path, _)| path)
    };
    fact.entry.kind == Kind::Directory && first.is_some_and(|found| path.is_empty() || found.starts_with(&below))
}

/// A file whose content is on each side under one name only, and not the same name, was renamed.
fn pair_renamed(matched: &mut Matched) {
    type Key<'f> = (&'f Digest, u32, u64);
    fn key<'f>(fact: &'f Fact) -> Option<Key<'f>> {
        let content = fact.content.as_ref().filter(|_| fact.entry.size > 0)?;
        Some((content, fact.entry.mode, fact.entry.size))
    }
    fn only<'f>(facts: &[(usize, &'f Fact)]) -> BTreeMap<Key<'f>, Option<(usize, &'f Fact)>> {
        let mut found = BTreeMap::new();
        for &(layer, fact) in facts {
            if let Some(key) = key(fact) {
                found
                    .entry(key)
                    .and_modify(|one| *one = None)
                    .or_insert(Some((layer, fact)));
            }
        }
        found
    }
    let (removed, added) = (only(&matched.removed), only(&matched.added));
    for (key, one) in &removed {
        if let (Some(from), Some(Some(to))) = (one, added.get(key)) {
            matched.renamed.push((*from, *to));
        }
    }
    let addresses =
        |of: fn(&Pair) -> *const Fact| -> BTreeSet<*const Fact> { matched.renamed.iter().map(of).collect() };
    let (from, to) = (addresses(|pair| pair.0.1), addresses(|pair| pair.1.1));
    matched
        .removed
        .retain(|(_, fact)| !from.contains(&std::ptr::from_ref(*fact)));
    matched
        .added
        .retain(|(_, fact)| !to.contains(&std::ptr::from_ref(*fact)));
}

/// The store paths that own files.
fn owners_of(files: &Files) -> BTreeSet<String> {
    files
        .keys()
        .filter_map(|path| owner(std::str::from_utf8(path).ok()?))
        .map(|(store_path, _)| store_path.to_string())
        .collect()
}

fn translated(path: &[u8], renamed: &BTreeMap<String, String>) -> Option<Vec<u8>> {
    let (store_path, below) = owner(std::str::from_utf8(path).ok()?)?;
    let other = renamed.get(store_path.as_str())?.trim_start_matches('/');
    Some(if below.is_empty() {
        other.as_bytes().to_vec()
    } else {
        format!("{other}/{below}").into_bytes()
    })
}

/// The changes of a file that is on both sides.
pub(super) fn aspects(pair: &Pair) -> Vec<FileChange> {
    let ((layer_a, a), (layer_b, b)) = pair;
    let (x, y) = (&a.entry, &b.entry);
    let change =
        |class, a: String, b: String| change(class, (Some(*layer_a), Some(*layer_b)), pair.0.1, Some(a), Some(b));
    let linked = [x.kind, y.kind].contains(&Kind::HardLink) && a.content.is_some() && b.content.is_some();
    let sparse = is_sparse(x) != is_sparse(y);
    if x.kind != y.kind && !linked && !sparse {
        return vec![change(Class::Type, x.kind.name(), y.kind.name())];
    }
    let mut changes = Vec::new();
    let mut differ = |class, p: String, q: String| {
        if p != q {
            changes.push(change(class, p, q));
        }
    };
    differ(Class::Mode, format!("{:04o}", x.mode), format!("{:04o}", y.mode));
    differ(Class::Owner, owners(x), owners(y));
    differ(Class::Mtime, time(x.mtime), time(y.mtime));
    let device = |entry: &Entry| match entry.device {
        Some((major, minor)) => format!("{major}:{minor}"),
        None => String::new(),
    };
    differ(Class::Device, device(x), device(y));
    if x.xattrs != y.xattrs {
        differ(Class::Xattr, xattrs(x, y), xattrs(y, x));
    }
    if sparse {
        let text = |entry: &Entry| if is_sparse(entry) { "sparse" } else { "in full" }.to_owned();
        differ(Class::TarSparse, text(x), text(y));
        return changes;
    }
    if linked && a.content == b.content {
        differ(Class::HardLink, link(x), link(y));
        return changes;
    }
    if matches!(x.kind, Kind::HardLink | Kind::Symlink) && x.kind == y.kind {
        let class = match inside::only_hashes_differ(&x.link, &y.link) {
            true => Class::StoreHash,
            false => Class::Link,
        };
        differ(class, shown(&x.link), shown(&y.link));
    }
    if let (Some(p), Some(q)) = (a.content, b.content)
        && p != q
        // A hard link's content is told at the file that it names, unless it names another.
        && (!linked || x.kind != y.kind)
    {
        differ(Class::Content, content(x, p), content(y, q));
    }
    changes
}

fn content(entry: &Entry, digest: Digest) -> String {
    format!("{} bytes, {digest}", entry.size)
}

fn link(entry: &Entry) -> String {
    match entry.kind {
        Kind::HardLink => format!("hard link to {}", shown(&entry.link)),
        _ => "file".to_owned(),
    }
}

/// Whether the body is stored as GNU tar stores files with holes: by type flag, or by pax records.
fn is_sparse(entry: &Entry) -> bool {
    entry.kind == Kind::Other(b'S') || entry.form.pax.iter().any(|key| key.starts_with("GNU.sparse."))
}

/// Files that are on one side only, or under another name, or implied.
pub(super) fn lone(matched: &Matched) -> Vec<FileChange> {
    let text = |fact: &Fact| match fact.entry.kind {
        Kind::File => format!("file, {} bytes", fact.entry.size),
        kind => kind.name(),
    };
    let mut changes = Vec::new();
    for (from, to) in &matched.renamed {
        let (a, b) = (from.1.shown(), to.1.shown());
        let layers = (Some(from.0), Some(to.0));
        changes.push(change(Class::Renamed, layers, from.1, Some(a), Some(b)));
    }
    for (layer, fact) in &matched.removed {
        let layers = (Some(*layer), None);
        changes.push(change(Class::Removed, layers, fact, Some(text(fact)), None));
    }
    for (layer, fact) in &matched.added {
        let layers = (None, Some(*layer));
        changes.push(change(Class::Added, layers, fact, None, Some(text(fact))));
    }
    for (layer, fact, first) in &matched.implied {
        let own = Some(format!("{}, {:04o}", fact.entry.kind.name(), fact.entry.mode));
        let none = Some("only implied by its files".to_owned());
        changes.push(match first {
            true => change(Class::ImpliedDirectory, (Some(*layer), None), fact, own, none),
            false => change(Class::ImpliedDirectory, (None, Some(*layer)), fact, none, own),
        });
    }
    changes
}

fn change(
    class: Class,
    (layer_a, layer_b): (Option<usize>, Option<usize>),
    fact: &Fact,
    a: Option<String>,
    b: Option<String>,
) -> FileChange {
    let path = fact.shown();
    let store_path = owner(&path).map(|(store_path, _)| store_path);
    let package = store_path
        .as_ref()
        .map(|path| packages::package_of(path.store_path().name()).to_owned());
    FileChange {
        path,
        class,
        layer: LayerPlace { a: layer_a, b: layer_b },
        a,
        b,
        store_path,
        package,
        content: None,
    }
}

fn owners(entry: &Entry) -> String {
    let ids = format!("{}:{}", entry.uid, entry.gid);
    if entry.uname.is_empty() && entry.gname.is_empty() {
        return ids;
    }
    format!("{ids} ({}:{})", shown_name(&entry.uname), shown_name(&entry.gname))
}

fn shown_name(name: &[u8]) -> String {
    if name.is_empty() { String::new() } else { shown(name) }
}

fn time((seconds, nanos): (i64, u32)) -> String {
    if nanos == 0 {
        seconds.to_string()
    } else {
        format!("{seconds}.{nanos:09}")
    }
}

/// The extended attributes that the other side has not or has otherwise.
fn xattrs(own: &Entry, other: &Entry) -> String {
    let differing = own
        .xattrs
        .iter()
        .filter(|(name, value)| other.xattrs.get(*name) != Some(value));
    let text = |(name, value): (&Vec<u8>, &Vec<u8>)| {
        if name == capability::ATTRIBUTE.as_bytes() {
            return format!("{} {}", shown(name), shown(capability::shown(value).as_bytes()));
        }
        let value = value.iter().take(64).copied().collect::<Vec<u8>>();
        format!("{}={}", shown(name), value.escape_ascii())
    };
    differing.map(text).collect::<Vec<_>>().join(", ")
}
