//! Entries are *compared* by path: what they say ([`Aspect`]s of a file), and how the tar says it (order, dialect).
//!
//! Invariant: an aspect is named only where it differs itself: a PAX record that carries a differing time is the
//! time's difference, not the dialect's.

use std::collections::{BTreeMap, BTreeSet};

use super::super::facts::{Fact, LayerFacts, shown};
use super::super::owner;
use super::{ArchiveChange, Aspect, FileChange, LayerPlace, StorePathChange};
use crate::transport::tar_read::{Entry, Kind, Magic};

/// Files by path, each with the layer it is in.
pub(super) type Files<'a> = BTreeMap<&'a [u8], (usize, &'a Fact)>;

/// A file that is on both sides, by its path on each.
type Pair<'a> = ((usize, &'a Fact), (usize, &'a Fact));

/// The files of two sides, matched.
pub(super) struct Matched<'a> {
    pub(super) pairs: Vec<Pair<'a>>,
    pub(super) removed: Vec<(usize, &'a Fact)>,
    pub(super) added: Vec<(usize, &'a Fact)>,
    pub(super) store_paths: Vec<StorePathChange>,
}

/// Matches files by path; a store path that is on one side only stands for the one of the same name that is on the
/// other side only, because a rebuilt package has another hash in every path.
pub(super) fn matched<'a>(a: &Files<'a>, b: &Files<'a>) -> Matched<'a> {
    let renamed = renamed_store_paths(a, b);
    let mut matched = Matched {
        pairs: Vec::new(),
        removed: Vec::new(),
        added: Vec::new(),
        store_paths: renamed
            .iter()
            .map(|(a, b)| StorePathChange {
                a: a.clone(),
                b: b.clone(),
            })
            .collect(),
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
            None => matched.removed.push(fact),
        }
    }
    matched.added = b
        .iter()
        .filter(|(path, _)| !used.contains(*path))
        .map(|(_, &fact)| fact)
        .collect();
    matched
}

/// First side's store path → the second's, where a name is once on either side only.
fn renamed_store_paths(a: &Files, b: &Files) -> BTreeMap<String, String> {
    let all = |files: &Files| -> BTreeSet<String> {
        files
            .keys()
            .filter_map(|path| owner(std::str::from_utf8(path).ok()?))
            .map(|(store_path, _)| store_path)
            .collect()
    };
    let by_name = |paths: &BTreeSet<String>, others: &BTreeSet<String>| -> BTreeMap<String, Vec<String>> {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for path in paths.difference(others) {
            let name = path
                .rsplit('/')
                .next()
                .and_then(|base| base.split_once('-'))
                .map_or("", |(_, name)| name);
            names.entry(name.to_owned()).or_default().push(path.clone());
        }
        names
    };
    let (in_a, in_b) = (all(a), all(b));
    let (names_a, names_b) = (by_name(&in_a, &in_b), by_name(&in_b, &in_a));
    let once = |(name, paths): (&String, &Vec<String>)| match (paths.as_slice(), names_b.get(name).map(Vec::as_slice)) {
        ([a], Some([b])) => Some((a.clone(), b.clone())),
        _ => None,
    };
    names_a.iter().filter_map(once).collect()
}

fn translated(path: &[u8], renamed: &BTreeMap<String, String>) -> Option<Vec<u8>> {
    let (store_path, below) = owner(std::str::from_utf8(path).ok()?)?;
    let other = renamed.get(&store_path)?.trim_start_matches('/');
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
        |aspect, a: String, b: String| change(aspect, (Some(*layer_a), Some(*layer_b)), pair.0.1, Some(a), Some(b));
    if x.kind != y.kind {
        return vec![change(Aspect::Type, x.kind.name(), y.kind.name())];
    }
    let mut changes = Vec::new();
    if x.mode != y.mode {
        changes.push(change(
            Aspect::Mode,
            format!("{:04o}", x.mode),
            format!("{:04o}", y.mode),
        ));
    }
    if owners(x) != owners(y) {
        changes.push(change(Aspect::Owner, owners(x), owners(y)));
    }
    if x.mtime != y.mtime {
        changes.push(change(Aspect::Mtime, time(x.mtime), time(y.mtime)));
    }
    if x.link != y.link && matches!(x.kind, Kind::HardLink | Kind::Symlink) {
        changes.push(change(Aspect::Link, shown(&x.link), shown(&y.link)));
    }
    if x.device != y.device {
        let text =
            |device: Option<(u64, u64)>| device.map_or_else(String::new, |(major, minor)| format!("{major}:{minor}"));
        changes.push(change(Aspect::Device, text(x.device), text(y.device)));
    }
    if x.xattrs != y.xattrs {
        changes.push(change(Aspect::Xattr, xattrs(x, y), xattrs(y, x)));
    }
    if x.size != y.size {
        changes.push(change(Aspect::Size, x.size.to_string(), y.size.to_string()));
    } else if let (Some(p), Some(q)) = (a.content, b.content)
        && p != q
    {
        changes.push(change(Aspect::Content, p.to_string(), q.to_string()));
    }
    changes
}

/// A file that is on one side only.
pub(super) fn lone(aspect: Aspect, place: (usize, &Fact)) -> FileChange {
    let text = format!("{}, {} bytes", place.1.entry.kind.name(), place.1.entry.size);
    match aspect {
        Aspect::Removed => change(aspect, (Some(place.0), None), place.1, Some(text), None),
        _ => change(aspect, (None, Some(place.0)), place.1, None, Some(text)),
    }
}

fn change(
    aspect: Aspect,
    (layer_a, layer_b): (Option<usize>, Option<usize>),
    fact: &Fact,
    a: Option<String>,
    b: Option<String>,
) -> FileChange {
    let path = fact.shown();
    let store_path = owner(&path).map(|(store_path, _)| store_path);
    FileChange {
        path,
        aspect,
        layer: LayerPlace { a: layer_a, b: layer_b },
        a,
        b,
        store_path,
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
        let value = value.iter().take(64).copied().collect::<Vec<u8>>();
        format!("{}={}", shown(name), value.escape_ascii())
    };
    differing.map(text).collect::<Vec<_>>().join(", ")
}

/// How two layers of matched files are written: order, dialect, what follows the last entry.
pub(super) fn archive(
    layers: LayerPlace,
    a: &LayerFacts,
    b: &LayerFacts,
    matched: &Matched,
    quiet: bool,
) -> Vec<ArchiveChange> {
    let mut changes = Vec::new();
    changes.extend(order(layers, a, b, matched));
    let mut dialects: BTreeMap<String, ArchiveChange> = BTreeMap::new();
    for ((_, x), (_, y)) in &matched.pairs {
        for (what, p, q) in dialect(x, y) {
            let change = dialects.entry(what.clone()).or_insert_with(|| ArchiveChange {
                layer: layers,
                aspect: Aspect::Dialect,
                what,
                entries: 0,
                first: x.shown(),
                a: p,
                b: q,
            });
            change.entries += 1;
        }
    }
    changes.extend(dialects.into_values());
    let whole = |what: &str, p: String, q: String| ArchiveChange {
        layer: layers,
        aspect: Aspect::Dialect,
        what: what.to_owned(),
        entries: 0,
        first: String::new(),
        a: p,
        b: q,
    };
    if a.end.trailer != b.end.trailer {
        let text = |facts: &LayerFacts| {
            let kind = if facts.end.trailer.zero { "zero" } else { "other" };
            format!("{} {kind} bytes", facts.end.trailer.bytes)
        };
        changes.push(whole("end of archive", text(a), text(b)));
    }
    if quiet && changes.is_empty() && a.end.diff_id != b.end.diff_id {
        let what = "bytes that belong to no entry, or entries that are there twice";
        changes.push(whole(what, a.end.diff_id.to_string(), b.end.diff_id.to_string()));
    }
    changes
}

/// The first place where the files that are on both sides come in another order.
fn order(layer: LayerPlace, a: &LayerFacts, b: &LayerFacts, matched: &Matched) -> Option<ArchiveChange> {
    let number: BTreeMap<&[u8], usize> = matched
        .pairs
        .iter()
        .enumerate()
        .map(|(number, (_, (_, y)))| (y.path.as_slice(), number))
        .collect();
    let own: BTreeMap<&[u8], usize> = matched
        .pairs
        .iter()
        .enumerate()
        .map(|(number, ((_, x), _))| (x.path.as_slice(), number))
        .collect();
    let in_a: Vec<(usize, &Fact)> = a
        .facts
        .iter()
        .filter_map(|fact| Some((*own.get(fact.path.as_slice())?, fact)))
        .collect();
    let in_b: Vec<(usize, &Fact)> = b
        .facts
        .iter()
        .filter_map(|fact| Some((*number.get(fact.path.as_slice())?, fact)))
        .collect();
    let differing = || in_a.iter().zip(&in_b).filter(|(x, y)| x.0 != y.0);
    let (x, y) = differing().next()?;
    Some(ArchiveChange {
        layer,
        aspect: Aspect::Order,
        what: "order of entries".to_owned(),
        entries: differing().count() as u64,
        first: x.1.shown(),
        a: x.1.shown(),
        b: y.1.shown(),
    })
}

/// How two entries of equal or differing meaning are written differently: (what, first side, second side).
fn dialect(a: &Fact, b: &Fact) -> Vec<(String, String, String)> {
    let (x, y) = (&a.entry, &b.entry);
    let mut found = Vec::new();
    if x.kind != y.kind {
        return found; // what is written differs, so how it is written cannot be compared
    }
    let mut differ = |what: &str, p: String, q: String| {
        if p != q {
            found.push((what.to_owned(), p, q));
        }
    };
    differ("tar format", magic(x.form.magic), magic(y.form.magic));
    let carried = carried(x, y);
    let keys = |entry: &Entry| {
        let keys: Vec<&str> = entry
            .form
            .pax
            .iter()
            .map(String::as_str)
            .filter(|key| !is_carried(key, &carried))
            .collect();
        if keys.is_empty() {
            "none".to_owned()
        } else {
            keys.join(" ")
        }
    };
    differ("pax records", keys(x), keys(y));
    let long = |entry: &Entry| format!("{} {}", entry.form.gnu_long_name, entry.form.gnu_long_link);
    differ("GNU long names", long(x), long(y));
    differ("spelling of paths", spelling(&x.path), spelling(&y.path));
    let same = x.path == y.path && aspects(&((0, a), (0, b))).is_empty();
    if found.is_empty() && same && x.form.headers != y.form.headers {
        found.push((
            "header bytes".to_owned(),
            x.form.headers.to_string(),
            y.form.headers.to_string(),
        ));
    }
    found
}

/// The pax keys that carry a value in which two entries differ.
fn carried(x: &Entry, y: &Entry) -> Vec<&'static str> {
    let differing = [
        ("mtime", x.mtime != y.mtime),
        ("linkpath", x.link != y.link),
        ("size", x.size != y.size),
        ("uid", x.uid != y.uid),
        ("gid", x.gid != y.gid),
        ("uname", x.uname != y.uname),
        ("gname", x.gname != y.gname),
        ("path", x.path != y.path),
    ];
    differing
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(key, _)| key)
        .collect()
}

fn is_carried(key: &str, carried: &[&str]) -> bool {
    key.starts_with("SCHILY.xattr.") || key.starts_with("LIBARCHIVE.xattr.") || carried.contains(&key)
}

fn magic(magic: Magic) -> String {
    match magic {
        Magic::V7 => "v7",
        Magic::Ustar => "ustar",
        Magic::Gnu => "gnu",
    }
    .to_owned()
}

fn spelling(path: &[u8]) -> String {
    let lead = if path.starts_with(b"./") {
        "./"
    } else if path.starts_with(b"/") {
        "/"
    } else {
        ""
    };
    let trail = if path.ends_with(b"/") { "/" } else { "" };
    format!("{lead}PATH{trail}")
}
