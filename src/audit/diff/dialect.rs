//! A *dialect* is how a layer's tar says what it says: order, format, padding.
//!
//! Invariant: what carries a difference of files is no difference of the dialect: a pax record of a differing time is
//! the time's.

use std::collections::BTreeMap;

use super::super::facts::{Fact, LayerFacts};
use super::files::{Matched, aspects};
use super::{ArchiveChange, Class, LayerPlace};
use crate::archive::tar::{Entry, Magic};

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
    let mut dialects: BTreeMap<Class, ArchiveChange> = BTreeMap::new();
    for ((_, x), (_, y)) in &matched.pairs {
        for (class, what, p, q) in dialect(x, y) {
            let change = dialects.entry(class).or_insert_with(|| ArchiveChange {
                class,
                layer: layers,
                what: what.to_owned(),
                entries: 0,
                first: x.shown(),
                a: p,
                b: q,
            });
            change.entries += 1;
        }
    }
    changes.extend(dialects.into_values());
    let whole = |class, what: &str, p: String, q: String| ArchiveChange {
        class,
        layer: layers,
        what: what.to_owned(),
        entries: 0,
        first: String::new(),
        a: p,
        b: q,
    };
    changes.extend(duplicates(layers, a, b, matched));
    if a.end.trailer != b.end.trailer {
        let text = |facts: &LayerFacts| {
            let kind = if facts.end.trailer.zero { "zero" } else { "other" };
            format!("{} {kind} bytes", facts.end.trailer.bytes)
        };
        changes.push(whole(Class::TarPadding, "end of archive", text(a), text(b)));
    }
    if quiet && changes.is_empty() && a.end.diff_id != b.end.diff_id {
        let what = "bytes that belong to no entry";
        let (p, q) = (a.end.diff_id.to_string(), b.end.diff_id.to_string());
        changes.push(whole(Class::TarBytes, what, p, q));
    }
    changes
}

/// Whether two layers of other tars are also compressed by other methods.
pub(super) fn packing(layer: LayerPlace, a: &LayerFacts, b: &LayerFacts) -> Option<ArchiveChange> {
    (a.end.packing != b.end.packing).then(|| ArchiveChange {
        class: Class::Compression,
        layer,
        what: "compression".to_owned(),
        entries: 0,
        first: String::new(),
        a: a.end.packing.name().to_owned(),
        b: b.end.packing.name().to_owned(),
    })
}

/// Paths that have more entries in one layer than in the other.
fn duplicates(layer: LayerPlace, a: &LayerFacts, b: &LayerFacts, matched: &Matched) -> Option<ArchiveChange> {
    fn counts(facts: &LayerFacts) -> BTreeMap<&[u8], u64> {
        let mut counts = BTreeMap::new();
        for fact in &facts.facts {
            *counts.entry(fact.path.as_slice()).or_default() += 1;
        }
        counts
    }
    let (in_a, in_b) = (counts(a), counts(b));
    let number = |counts: &BTreeMap<&[u8], u64>, path: &[u8]| counts.get(path).copied().unwrap_or(0);
    let pairs = matched.pairs.iter();
    let differing = pairs
        .map(|((_, x), (_, y))| (x, number(&in_a, &x.path), number(&in_b, &y.path)))
        .filter(|(_, p, q)| p != q);
    let differing: Vec<_> = differing.collect();
    let (first, p, q) = differing.first()?;
    Some(ArchiveChange {
        class: Class::TarDuplicate,
        layer,
        what: "entries of one path".to_owned(),
        entries: differing.len() as u64,
        first: first.shown(),
        a: p.to_string(),
        b: q.to_string(),
    })
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
    let in_a = numbered(a, &own);
    let in_b = numbered(b, &number);
    let differing = || in_a.iter().zip(&in_b).filter(|(x, y)| x.0 != y.0);
    let (x, y) = differing().next()?;
    Some(ArchiveChange {
        class: Class::Order,
        layer,
        what: "order of entries".to_owned(),
        entries: differing().count() as u64,
        first: x.1.shown(),
        a: x.1.shown(),
        b: y.1.shown(),
    })
}

/// The matched entries of a layer in its order, by number; of a path that is there twice the last.
fn numbered<'f>(facts: &'f LayerFacts, numbers: &BTreeMap<&[u8], usize>) -> Vec<(usize, &'f Fact)> {
    let last = facts.by_path();
    let entries = facts.facts.iter();
    entries
        .filter(|fact| {
            last.get(fact.path.as_slice())
                .is_some_and(|last| std::ptr::eq(*last, *fact))
        })
        .filter_map(|fact| Some((*numbers.get(fact.path.as_slice())?, fact)))
        .collect()
}

/// How two entries of equal or differing meaning are written differently: (class, what, first side, second side).
fn dialect(a: &Fact, b: &Fact) -> Vec<(Class, &'static str, String, String)> {
    let (x, y) = (&a.entry, &b.entry);
    let mut found = Vec::new();
    if x.kind != y.kind {
        return found; // what is written differs, so how it is written cannot be compared
    }
    let mut differ = |class, what, p: String, q: String| {
        if p != q {
            found.push((class, what, p, q));
        }
    };
    differ(Class::TarFormat, "tar format", magic(x.form.magic), magic(y.form.magic));
    let carried = carried(x, y);
    differ(Class::TarPax, "pax records", records(x, &carried), records(y, &carried));
    let long = |entry: &Entry| match (entry.form.gnu_long_name, entry.form.gnu_long_link) {
        (false, false) => "none".to_owned(),
        (name, link) => format!("{}{}", if name { "L" } else { "" }, if link { "K" } else { "" }),
    };
    differ(Class::TarLongName, "GNU long-name entries", long(x), long(y));
    let (p, q) = (spelling(&x.path), spelling(&y.path));
    differ(Class::TarPath, "spelling of paths", p, q);
    if !found.is_empty() || !aspects(&((0, a), (0, b))).is_empty() || x.path != y.path {
        return found;
    }
    let (p, q) = (&x.form, &y.form);
    if p.header != q.header {
        let what = "bytes of headers of the same meaning";
        found.push((Class::TarHeader, what, p.header.to_string(), q.header.to_string()));
    } else if p.headers != q.headers {
        let what = "bytes of extension headers";
        found.push((Class::TarPaxHeader, what, p.headers.to_string(), q.headers.to_string()));
    }
    found
}

/// The pax records that say nothing of the file, or nothing in which the other differs.
fn records(entry: &Entry, carried: &[&str]) -> String {
    let keys = entry.form.pax.iter().filter(|key| !is_carried(key, carried));
    let texts: Vec<String> = keys
        .map(|key| match entry.form.pax_other.get(key) {
            Some(value) => format!("{key}={}", value[..value.len().min(64)].escape_ascii()),
            None => key.clone(),
        })
        .collect();
    if texts.is_empty() {
        "none".to_owned()
    } else {
        texts.join(" ")
    }
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
    key.starts_with("GNU.sparse.") || key.starts_with("SCHILY.xattr.") || carried.contains(&key)
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
