//! An *ELF file* is compared by what a linker makes of it: sections, dynamic entries, build ID, symbols.
//!
//! Invariant: every number is checked by the parser; contents are compared by section, never held twice.

use std::collections::BTreeMap;

use object::{Object, ObjectSection};

use super::super::report::InsideChange;
use super::{Found, differing, part};

/// Entries of the dynamic section that are told (System V ABI, "Dynamic Section"): tag and name.
const DYNAMIC: [(u64, &str); 4] = [(1, "needed"), (14, "soname"), (15, "rpath"), (29, "runpath")];
const TEXT_MAX: usize = 4096;

pub(super) fn compare(a: &[u8], b: &[u8]) -> Found {
    let is_elf = |bytes: &[u8]| bytes.starts_with(b"\x7fELF");
    if !is_elf(a) || !is_elf(b) {
        return None;
    }
    let (x, y) = (object::File::parse(a).ok()?, object::File::parse(b).ok()?);
    let mut inside = Vec::new();
    let machine = |file: &object::File| Some(format!("{:?} {:?}", file.architecture(), file.kind()));
    inside.extend(differing("machine and kind", machine(&x), machine(&y)));
    inside.extend(differing("interpreter", string(&x, ".interp"), string(&y, ".interp")));
    let (p, q) = (dynamic(&x), dynamic(&y));
    for (_, name) in DYNAMIC {
        inside.extend(differing(name, p.get(name).cloned(), q.get(name).cloned()));
    }
    inside.extend(differing("build ID", build_id(&x), build_id(&y)));
    let symbols = |file: &object::File| {
        Some(format!(
            "{} and {} dynamic",
            file.symbols().count(),
            file.dynamic_symbols().count()
        ))
    };
    inside.extend(differing("number of symbols", symbols(&x), symbols(&y)));
    inside.extend(sections(&x, &y));
    if inside.is_empty() {
        let what = "bytes outside of sections: headers or padding".to_owned();
        inside.push(part(what, None, None));
    }
    Some(("elf", inside))
}

fn sections(a: &object::File, b: &object::File) -> Vec<InsideChange> {
    type Sections<'d> = BTreeMap<(String, usize), (u64, &'d [u8])>;
    fn all<'d>(file: &object::File<'d>) -> Sections<'d> {
        let mut found = Sections::new();
        for section in file.sections() {
            let name = section
                .name()
                .map_or_else(|_| "?".to_owned(), |name| name.escape_debug().to_string());
            let number = found.keys().filter(|(other, _)| *other == name).count();
            let data = section.data().unwrap_or_default();
            found.insert((name, number), (section.size(), data));
        }
        found
    }
    let (in_a, in_b) = (all(a), all(b));
    let mut keys: Vec<&(String, usize)> = in_a.keys().chain(in_b.keys()).collect();
    keys.sort();
    keys.dedup();
    let mut changes = Vec::new();
    for key in keys {
        let what = || format!("section {}", key.0);
        let size = |size: u64| Some(format!("{size} bytes"));
        match (in_a.get(key), in_b.get(key)) {
            (Some(x), Some(y)) if x == y => {}
            (Some(x), Some(y)) if x.0 == y.0 => {
                let at = x.1.iter().zip(y.1).take_while(|(p, q)| p == q).count();
                let count = x.1.iter().zip(y.1).filter(|(p, q)| p != q).count();
                let text = Some(format!("{count} of {} bytes differ, from {at}", x.0));
                changes.push(part(what(), text, None));
            }
            (x, y) => changes.push(part(what(), x.and_then(|x| size(x.0)), y.and_then(|y| size(y.0)))),
        }
    }
    changes
}

fn build_id(file: &object::File) -> Option<String> {
    let id = file.build_id().ok().flatten()?;
    Some(id.iter().take(64).map(|byte| format!("{byte:02x}")).collect())
}

fn string(file: &object::File, section: &str) -> Option<String> {
    let section = file.section_by_name(section)?;
    at(section.data().ok()?, 0)
}

/// The text at an offset of a string table.
fn at(table: &[u8], offset: u64) -> Option<String> {
    let rest = table.get(usize::try_from(offset).ok()?..)?;
    let end = rest.iter().take(TEXT_MAX).position(|&byte| byte == 0)?;
    Some(rest[..end].escape_ascii().to_string())
}

/// The told entries of the dynamic section, those of one tag joined.
fn dynamic(file: &object::File) -> BTreeMap<&'static str, String> {
    let mut found: BTreeMap<&'static str, String> = BTreeMap::new();
    let data = |name: &str| file.section_by_name(name).and_then(|section| section.data().ok());
    let (Some(entries), Some(strings)) = (data(".dynamic"), data(".dynstr")) else {
        return found;
    };
    let width = if file.is_64() { 8 } else { 4 };
    let number = |bytes: &[u8]| {
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        if file.is_little_endian() {
            bytes.iter().rev().fold(0, fold)
        } else {
            bytes.iter().fold(0, fold)
        }
    };
    for entry in entries.chunks_exact(2 * width) {
        let (tag, value) = (number(&entry[..width]), number(&entry[width..]));
        if tag == 0 {
            break;
        }
        let name = DYNAMIC.iter().find(|(known, _)| *known == tag);
        if let (Some((_, name)), Some(text)) = (name, at(strings, value)) {
            let joined = found.entry(name).or_default();
            if !joined.is_empty() {
                joined.push(' ');
            }
            joined.push_str(&text);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::super::sequence::TextLimits;
    use super::super::explain;
    use crate::transport::testing::{oracle, run};
    use std::process::Command;

    fn library(dir: &std::path::Path, source: &str, arguments: &[&str]) -> Vec<u8> {
        let (c, so) = (dir.join("x.c"), dir.join("x.so"));
        std::fs::write(&c, source).unwrap();
        let mut gcc = Command::new("gcc");
        run(gcc
            .args(["-shared", "-fPIC", "-nostdlib", "-o"])
            .arg(&so)
            .arg(&c)
            .args(arguments));
        std::fs::read(so).unwrap()
    }

    #[test]
    fn programs_are_told_by_what_the_linker_made() {
        if !oracle("gcc") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let source = "int f(void) { return 1; }\n";
        let build =
            |source, arguments: &[&str]| library(dir.path(), source, &[&["-Wl,--build-id=0x01"], arguments].concat());
        let plain = build(source, &["-Wl,-soname,a.so.1"]);
        let told = |other: &[u8]| {
            let change = explain("x.so", &plain, other, &TextLimits::new(9));
            assert_eq!(change.kind, "elf");
            let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            let parts = change.inside.iter();
            parts
                .map(|part| format!("{}: {} → {}", part.part, shown(&part.a), shown(&part.b)))
                .collect::<Vec<_>>()
        };
        let soname = told(&build(source, &["-Wl,-soname,b.so.1"]));
        assert_eq!(soname[0], "soname: a.so.1 → b.so.1");
        assert!(
            soname.iter().any(|part| part.starts_with("section .dynstr: 1 of ")),
            "{soname:?}"
        );
        let path = told(&build(source, &["-Wl,-soname,a.so.1", "-Wl,-rpath,/opt/lib"]));
        assert!(path.iter().any(|part| part.ends_with("path: - → /opt/lib")), "{path:?}");
        let id = library(dir.path(), source, &["-Wl,--build-id=0x02", "-Wl,-soname,a.so.1"]);
        let id = told(&id);
        assert_eq!(id[0], "build ID: 01 → 02");
        assert_eq!(id.len(), 2, "{id:?}");
        let code = told(&build("int f(void) { return 2; }\n", &["-Wl,-soname,a.so.1"]));
        assert_eq!(code.len(), 1, "{code:?}");
        assert!(code[0].starts_with("section .text: 1 of "), "{code:?}");
        let more = told(&build(
            "int f(void) { return 1; }\nint g(void) { return 1; }\n",
            &["-Wl,-soname,a.so.1"],
        ));
        assert!(
            more.iter().any(|part| part.starts_with("number of symbols")),
            "{more:?}"
        );
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_elf() {
        crate::testing::fuzz("elf", |bytes| {
            let changed: Vec<u8> = bytes.iter().rev().copied().collect();
            let _ = super::compare(bytes, bytes);
            let _ = super::compare(bytes, &[&bytes[..bytes.len() / 2], &changed].concat());
        });
    }
}
