//! *Members* of an archive (zip, tar, ar) are compared by name: facts first, then contents.
//!
//! Invariant: no member is unpacked beyond a bound, and no more members are read than the bound says.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use super::super::report::InsideChange;
use super::super::sequence::TextLimits;
use super::{Found, MEMBER_MAX, PARTS_MAX, compare as compare_contents, part};
use crate::archive::ar::{self, ArReader};
use crate::archive::tar::{Streamed, TarPolicy, TarReader};
use crate::archive::zip::{self, ZipReader};

/// Most members of an archive that are looked at.
const MEMBERS_MAX: usize = 20_000;
/// Most bytes of members that are unpacked from one archive.
const TOTAL_MAX: u64 = 16 << 20;

/// A member: what the archive says of it, and its content if it is small enough.
struct ComparedMember {
    facts: String,
    size: u64,
    content: Option<Vec<u8>>,
}

/// Members by name, with their number among those of one name; and the order of names.
struct Members {
    by_name: BTreeMap<(String, usize), ComparedMember>,
    order: Vec<String>,
}

pub(super) fn compare(a: &[u8], b: &[u8], limits: &TextLimits, depth: usize) -> Found {
    let (kind, x, y) = if zip::looks_like_zip(a) && zip::looks_like_zip(b) {
        ("zip", read_zip(a)?, read_zip(b)?)
    } else if a.starts_with(ar::MAGIC) && b.starts_with(ar::MAGIC) {
        ("ar", read_ar(a)?, read_ar(b)?)
    } else if is_tar(a) && is_tar(b) {
        ("tar", read_tar(a)?, read_tar(b)?)
    } else {
        return None;
    };
    let mut inside = differences(&x, &y, limits, depth);
    if inside.is_empty() && x.order != y.order {
        let first = x.order.iter().zip(&y.order).find(|(p, q)| p != q);
        let (p, q) = first.map(|(p, q)| (p.clone(), q.clone())).unzip();
        inside.push(part("order of members".to_owned(), p, q));
    }
    if inside.is_empty() {
        inside.push(part(
            "bytes outside of members, or how they are packed".to_owned(),
            None,
            None,
        ));
    }
    Some((kind, inside))
}

fn differences(a: &Members, b: &Members, limits: &TextLimits, depth: usize) -> Vec<InsideChange> {
    let mut keys: Vec<&(String, usize)> = a.by_name.keys().chain(b.by_name.keys()).collect();
    keys.sort();
    keys.dedup();
    let mut changes = Vec::new();
    for key in keys {
        let what = format!("member {}", key.0);
        let size = |member: Option<&ComparedMember>| member.map(|member| format!("{} bytes", member.size));
        let (x, y) = (a.by_name.get(key), b.by_name.get(key));
        let (Some(p), Some(q)) = (x, y) else {
            changes.push(part(what, size(x), size(y)));
            continue;
        };
        if p.facts != q.facts {
            changes.push(part(what.clone(), Some(p.facts.clone()), Some(q.facts.clone())));
        }
        if p.size != q.size || p.content != q.content {
            let mut change = part(what, size(x), size(y));
            // Beyond the most that are told nothing is looked into.
            if let (Some(p), Some(q), true) = (&p.content, &q.content, changes.len() < PARTS_MAX) {
                change.content = Some(Box::new(compare_contents(&key.0, p, q, limits, depth + 1)));
            }
            changes.push(change);
        }
    }
    changes
}

impl Members {
    fn new() -> Self {
        Self {
            by_name: BTreeMap::new(),
            order: Vec::new(),
        }
    }

    fn push(&mut self, name: &[u8], member: ComparedMember) {
        let name = name.escape_ascii().to_string();
        // The last of a name is the one before the next name's first.
        let last = self.by_name.range(..=(name.clone(), usize::MAX)).next_back();
        let number = last
            .filter(|((last, _), _)| *last == name)
            .map_or(0, |((_, number), _)| number + 1);
        self.order.push(name.clone());
        self.by_name.insert((name, number), member);
    }

    fn room(&self) -> bool {
        self.order.len() < MEMBERS_MAX
    }
}

/// Reads a member's content unless it or all of them are too large.
fn content(reader: impl Read, size: u64, total: &mut u64) -> Option<Vec<u8>> {
    if size > MEMBER_MAX || *total + size > TOTAL_MAX {
        return None;
    }
    let mut bytes = Vec::new();
    reader.take(MEMBER_MAX + 1).read_to_end(&mut bytes).ok()?;
    *total += bytes.len() as u64;
    (bytes.len() as u64 <= MEMBER_MAX).then_some(bytes)
}

fn read_zip(bytes: &[u8]) -> Option<Members> {
    let mut archive = ZipReader::new(Cursor::new(bytes)).ok()?;
    let (mut members, mut total) = (Members::new(), 0);
    for index in 0..archive.len() {
        let member = archive.member(index).ok()?;
        if !members.room() {
            return None;
        }
        let time = member.modified.unwrap_or_else(|| "none".to_owned());
        let mode = member
            .mode
            .map_or_else(|| "none".to_owned(), |mode| format!("{mode:o}"));
        let content = archive
            .content(index)
            .ok()
            .and_then(|reader| content(reader, member.size, &mut total));
        // The checksum says no more than the content, where that is at hand.
        let facts = match &content {
            Some(_) => format!("time {time}, mode {mode}"),
            None => format!("time {time}, mode {mode}, crc {:08x}", member.crc32),
        };
        let size = member.size;
        members.push(&member.raw_name, ComparedMember { facts, size, content });
    }
    Some(members)
}

fn is_tar(bytes: &[u8]) -> bool {
    bytes.get(257..262) == Some(b"ustar")
}

fn read_tar(bytes: &[u8]) -> Option<Members> {
    let mut reader = TarReader::new(Streamed(bytes), TarPolicy::IMAGE);
    let (mut members, mut total) = (Members::new(), 0);
    while let Some(entry) = reader.next_entry().ok()? {
        if !members.room() {
            return None;
        }
        let facts = format!(
            "{}, mode {:04o}, owner {}:{}, mtime {}, link `{}`",
            entry.kind.name(),
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime.0,
            entry.link.escape_ascii()
        );
        let content = content(&mut reader, entry.size, &mut total);
        let size = entry.size;
        members.push(&entry.path, ComparedMember { facts, size, content });
    }
    Some(members)
}

fn read_ar(bytes: &[u8]) -> Option<Members> {
    let mut reader = ArReader::new(Cursor::new(bytes)).ok()?;
    let (mut members, mut total) = (Members::new(), 0);
    while let Some(member) = reader.next_member().ok()? {
        if !members.room() {
            return None;
        }
        let facts = format!(
            "mtime {}, owner {}:{}, mode {}",
            member.mtime, member.uid, member.gid, member.mode
        );
        let content = content(reader.content(&member).ok()?, member.size, &mut total);
        let size = member.size;
        members.push(&member.name, ComparedMember { facts, size, content });
    }
    Some(members)
}

#[cfg(test)]
mod tests {
    use super::super::super::sequence::TextLimits;
    use super::super::explain;
    use crate::transport::testing::{Node, tar};
    use std::io::Write;

    fn parts(name: &str, a: &[u8], b: &[u8]) -> (&'static str, Vec<String>) {
        let change = explain(name, a, b, &TextLimits::new(9));
        (
            change.kind,
            change.inside.iter().map(|part| part.part.clone()).collect(),
        )
    }

    fn zip(files: &[(&str, &str, u8)]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, text, day) in files {
            let time = zip::DateTime::from_date_and_time(2020, 1, *day, 0, 0, 0).unwrap();
            let options = zip::write::SimpleFileOptions::default().last_modified_time(time);
            writer.start_file(*name, options).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn members_are_compared_by_name() {
        let a = zip(&[("a", "1\n", 1), ("b", "2\n", 1)]);
        for (b, expected) in [
            (zip(&[("a", "1\n", 2), ("b", "2\n", 1)]), "member a"),
            (zip(&[("a", "1\n", 1), ("b", "3\n", 1)]), "member b"),
            (zip(&[("a", "1\n", 1)]), "member b"),
            (zip(&[("b", "2\n", 1), ("a", "1\n", 1)]), "order of members"),
        ] {
            assert_eq!(parts("x.jar", &a, &b), ("zip", vec![expected.to_owned()]));
        }
        let x = tar(&[Node::file("a", "1"), Node::file("b", "2")]);
        let y = tar(&[Node::file("a", "1"), Node::file("b", "2").mode(0o600)]);
        assert_eq!(parts("x.tar", &x, &y), ("tar", vec!["member b".to_owned()]));
    }

    #[test]
    fn an_ar_archive_is_read_with_long_names() {
        let ar = |time: &str| {
            let header =
                |name: &str, time: &str, size: usize| format!("{name:<16}{time:<12}0     0     100644  {size:<10}`\n");
            let names = "a_very_long_member_name.o/\n\n";
            let body = "\u{1}\0";
            [
                "!<arch>\n".to_owned(),
                header("//", "", names.len()),
                names.to_owned(),
                header("/0", time, body.len()),
                body.to_owned(),
            ]
            .concat()
            .into_bytes()
        };
        // Texts are compared as such; only the NUL makes it an archive.
        assert_eq!(
            parts("x.a", &ar("0"), &ar("1")),
            ("ar", vec!["member a_very_long_member_name.o".to_owned()])
        );
    }
}
