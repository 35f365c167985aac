//! Tests of the tar dialect, beside other tars.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;
use crate::archive::tar::{BLOCK, TRAILER, padding};
use crate::digest::Digest;
use crate::layer::testing::oracle;

/// What an entry is, as every reader should see it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    path: Vec<u8>,
    kind: char,
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    target: Vec<u8>,
}

fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        append_header(&mut out, entry).unwrap();
        if let Kind::File { size } = entry.kind {
            out.resize(out.len() + size as usize, b'x');
            out.resize(out.len() + padding(size), 0);
        }
    }
    out.resize(out.len() + TRAILER, 0);
    out
}

fn expected(entry: &Entry<'_>) -> Seen {
    let (kind, mode, size, target) = match entry.kind {
        Kind::Directory => ('d', entry.mode, 0, &b""[..]),
        Kind::File { size } => ('f', entry.mode, size, &b""[..]),
        Kind::Symlink { target } => ('l', 0o777, 0, target),
        Kind::HardLink { target } => ('h', entry.mode, 0, target),
    };
    Seen {
        path: entry.path.to_vec(),
        kind,
        mode,
        uid: entry.uid.into(),
        gid: entry.gid.into(),
        size,
        target: target.to_vec(),
    }
}

fn seen_by_tar_crate(bytes: &[u8]) -> Vec<Seen> {
    let mut archive = ::tar::Archive::new(bytes);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        assert_eq!(header.mtime().unwrap(), 1);
        assert_eq!(
            (header.username().unwrap(), header.groupname().unwrap()),
            (Some(""), Some(""))
        );
        let mut path = entry.path_bytes().into_owned();
        let kind = match header.entry_type() {
            ::tar::EntryType::Directory => 'd',
            ::tar::EntryType::Regular => 'f',
            ::tar::EntryType::Symlink => 'l',
            other => panic!("{other:?}"),
        };
        assert_eq!(path.ends_with(b"/"), kind == 'd');
        path.truncate(path.len() - usize::from(kind == 'd'));
        let target = entry.link_name_bytes().map_or(Vec::new(), |name| name.into_owned());
        let mut owner = [header.uid().unwrap(), header.gid().unwrap()];
        for record in entry.pax_extensions().unwrap().into_iter().flatten() {
            let record = record.unwrap();
            match record.key_bytes() {
                b"uid" => owner[0] = record.value().unwrap().parse().unwrap(),
                b"gid" => owner[1] = record.value().unwrap().parse().unwrap(),
                _ => {}
            }
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        assert!(content.iter().all(|&byte| byte == b'x'));
        Seen {
            path,
            kind,
            mode: header.mode().unwrap(),
            uid: owner[0],
            gid: owner[1],
            size: content.len() as u64,
            target,
        }
    });
    entries.collect()
}

/// Python's tarfile, printing one line of hexadecimal fields an entry.
fn seen_by_python(bytes: &[u8]) -> Vec<Seen> {
    let script = r#"
import sys, tarfile, os
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as t:
    for m in t:
        assert m.mtime == 1 and m.uname == "" and m.gname == "", m.get_info()
        kind = "d" if m.isdir() else "f" if m.isreg() else "l" if m.issym() else "?"
        print(os.fsencode(m.name).hex() or "-", kind, m.mode, m.uid, m.gid, m.size, os.fsencode(m.linkname).hex() or "-")
"#;
    let text = String::from_utf8(run(Command::new("python3").arg("-c").arg(script), bytes)).unwrap();
    let hex = |text: &str| match text {
        "-" => Vec::new(),
        text => (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect(),
    };
    let entries = text.lines().map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        Seen {
            path: hex(fields[0]),
            kind: fields[1].chars().next().unwrap(),
            mode: fields[2].parse().unwrap(),
            uid: fields[3].parse().unwrap(),
            gid: fields[4].parse().unwrap(),
            size: fields[5].parse().unwrap(),
            target: hex(fields[6]),
        }
    });
    entries.collect()
}

fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{command:?}: {errors}");
    output.stdout
}

fn entry<'a>(path: &'a [u8], kind: Kind<'a>) -> Entry<'a> {
    Entry {
        path,
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        capabilities: None,
    }
}

/// Names and targets around every limit of the format.
fn awkward() -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let long = |len: usize| vec![b'n'; len];
    let below = |prefix: usize, name: usize| [long(prefix), b"/".to_vec(), long(name)].concat();
    let mut names = vec![
        (b"a".to_vec(), None),
        (long(99), None),
        (long(100), None),
        (long(101), None),
        (below(155, 100), None),
        (below(156, 99), None),
        (below(155, 99), None),
        (below(10, 101), None),
        ([below(100, 50), b"/".to_vec(), long(90)].concat(), None),
        ("dir/größe-✓".as_bytes().to_vec(), None),
        (b"caf\xe9".to_vec(), None),
        (b"with space\nand newline".to_vec(), None),
        (b"link-short".to_vec(), Some(b"../x".to_vec())),
        (b"link-100".to_vec(), Some(long(100))),
        (b"link-101".to_vec(), Some(long(101))),
        (b"link-utf8".to_vec(), Some("zü".as_bytes().to_vec())),
        (b"link-raw".to_vec(), Some(b"z\xff".to_vec())),
    ];
    names.push((
        ["ä".as_bytes(), &long(300)].concat(),
        Some(["ö".as_bytes(), &long(400)].concat()),
    ));
    names
}

#[test]
fn readers_see_what_was_written() {
    let names = awkward();
    let mut entries = Vec::new();
    for (index, (path, target)) in names.iter().enumerate() {
        let kind = match target {
            Some(target) => Kind::Symlink { target },
            None if index % 3 == 0 => Kind::Directory,
            None => Kind::File {
                size: index as u64 * 300,
            },
        };
        entries.push(Entry {
            mode: 0o4755,
            uid: [0, 1000, 2_097_151, 2_097_152, u32::MAX][index % 5],
            gid: [0, u32::MAX][index % 2],
            ..entry(path, kind)
        });
    }
    let bytes = archive(&entries);
    let expected: Vec<_> = entries.iter().map(expected).collect();
    assert_eq!(seen_by_tar_crate(&bytes), expected);
    if oracle("python3") {
        assert_eq!(seen_by_python(&bytes), expected);
    }
}

#[test]
fn gnu_tar_lists_it_without_complaint() {
    if !oracle("tar") {
        return;
    }
    let long = vec![b'n'; 120];
    let entries = [
        Entry {
            mode: 0o555,
            ..entry(b"dir", Kind::Directory)
        },
        Entry {
            uid: 7,
            gid: 3_000_000,
            ..entry(b"dir/f", Kind::File { size: 600 })
        },
        entry(
            &long,
            Kind::Symlink {
                target: "zü".as_bytes(),
            },
        ),
    ];
    let mut command = Command::new("tar");
    command.args([
        "--list",
        "--verbose",
        "--numeric-owner",
        "--full-time",
        "--utc",
        "--quoting-style=literal",
    ]);
    command.env("LC_ALL", "C.UTF-8");
    let listed = String::from_utf8(run(&mut command, &archive(&entries))).unwrap();
    let lines: Vec<String> = listed
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        lines,
        [
            "dr-xr-xr-x 0/0 0 1970-01-01 00:00:01 dir/".to_owned(),
            "-rw-r--r-- 7/3000000 600 1970-01-01 00:00:01 dir/f".to_owned(),
            format!("lrwxrwxrwx 0/0 0 1970-01-01 00:00:01 {} -> zü", "n".repeat(120)),
        ]
    );
}

#[test]
fn ustar_is_used_wherever_it_can_say_it() {
    let cases: [(usize, usize, bool); 6] = [
        (0, 100, false),
        (0, 101, true),
        (155, 100, false),
        (156, 100, true),
        (155, 101, true),
        (1, 99, false),
    ];
    for (prefix, name, pax) in cases {
        let mut path = vec![b'p'; prefix];
        if prefix > 0 {
            path.push(b'/');
        }
        path.resize(path.len() + name, b'n');
        let mut out = Vec::new();
        append_header(&mut out, &entry(&path, Kind::File { size: 0 })).unwrap();
        assert_eq!(out.len() > BLOCK, pax, "{prefix}/{name}");
    }
    // A directory's slash counts, and is not the one that is cut at.
    let mut out = Vec::new();
    append_header(&mut out, &entry(&[b'n'; 99], Kind::Directory)).unwrap();
    assert_eq!(out.len(), BLOCK);
    append_header(&mut out, &entry(&[b'n'; 100], Kind::Directory)).unwrap();
    assert_eq!(out.len(), 4 * BLOCK);
}

#[test]
fn a_file_of_more_than_eight_gibibytes_has_a_size_record() {
    for (size, pax) in [(0o77_777_777_777, false), (0o77_777_777_777 + 1, true), (1 << 50, true)] {
        let mut out = Vec::new();
        append_header(&mut out, &entry(b"f", Kind::File { size })).unwrap();
        assert_eq!(out.len() > BLOCK, pax);
        let mut archive = ::tar::Archive::new(&out[..]);
        assert_eq!(archive.entries().unwrap().next().unwrap().unwrap().size(), size);
    }
}

#[test]
fn records_count_their_own_digits() {
    for len in [
        1, 80, 85, 86, 87, 88, 89, 90, 980, 985, 986, 987, 988, 989, 990, 9980, 9990,
    ] {
        let mut out = Vec::new();
        append_record(&mut out, "path", &vec![b'x'; len]);
        let (count, _) = std::str::from_utf8(&out).unwrap().split_once(' ').unwrap();
        assert_eq!(count.parse::<usize>().unwrap(), out.len());
    }
}

#[test]
fn what_cannot_be_said_is_refused() {
    let bad = |path: &[u8]| append_header(&mut Vec::new(), &entry(path, Kind::Directory)).unwrap_err();
    for path in [&b""[..], b"/a", b"a/", b"a//b", b".", b"a/../b", b"a\0b"] {
        assert!(matches!(bad(path), TarError::Path { .. }), "{}", shown(path));
    }
    let path = "a/.wh.b/c".to_owned();
    assert_eq!(bad(b"a/.wh.b/c"), TarError::Whiteout { path });
    for target in [&b""[..], b"a\0"] {
        let link = append_header(&mut Vec::new(), &entry(b"l", Kind::Symlink { target }));
        assert!(matches!(link, Err(TarError::Target { .. })));
    }
    let mode = Entry {
        mode: 0o10_000,
        ..entry(b"f", Kind::Directory)
    };
    assert!(matches!(
        append_header(&mut Vec::new(), &mode),
        Err(TarError::Mode { .. })
    ));
}

#[test]
fn the_dialect_is_golden() {
    let names = awkward();
    let entries: Vec<_> = names
        .iter()
        .map(|(path, target)| match target {
            Some(target) => entry(path, Kind::Symlink { target }),
            None => entry(path, Kind::File { size: 3 }),
        })
        .collect();
    let golden = include_str!("../../fixtures/layer/tar-dialect.sha256");
    assert_eq!(Digest::of(&archive(&entries)).to_string(), golden.trim());
}

/// The record's bytes are what `setcap` 2.66 leaves in the attribute, and Python and GNU tar read them so.
#[test]
fn capabilities_are_golden() {
    let capable = |text: &str| Entry {
        mode: 0o755,
        capabilities: Some(text.parse().unwrap()),
        ..entry(b"bin/ping", Kind::File { size: 3 })
    };
    let mut header = Vec::new();
    append_header(&mut header, &capable("cap_net_raw=ep")).unwrap();
    let record = b"57 SCHILY.xattr.security.capability=\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0\n";
    assert_eq!(&header[BLOCK..BLOCK + record.len()], record);
    assert_eq!(header.len(), 3 * BLOCK);
    let bytes = archive(&[capable("cap_net_raw=ep"), capable("=ip"), capable("cap_chown,40=p")]);
    let golden = include_str!("../../fixtures/layer/tar-capabilities.sha256");
    assert_eq!(Digest::of(&bytes).to_string(), golden.trim());
    let mut reader = crate::archive::tar::TarReader::new(
        crate::archive::tar::Streamed(bytes.as_slice()),
        crate::archive::tar::TarPolicy::LAYER,
    );
    let read = reader.next_entry().unwrap().unwrap();
    assert_eq!(
        read.capability().map(capability::shown).as_deref(),
        Some("cap_net_raw=ep")
    );
}

/// POSIX.1-2001: type flag 1, no content, the target's path where a symlink's would stand; long ones in a `linkpath` record.
#[test]
fn hard_links_are_golden() {
    let long = vec![b'n'; 120];
    let file = |path| entry(path, Kind::File { size: 3 });
    let link = |path, target| entry(path, Kind::HardLink { target });
    let bytes = archive(&[
        file(b"bin/perl"),
        link(b"bin/perl5", b"bin/perl"),
        file(&long),
        link(b"z", &long),
    ]);
    let golden = include_str!("../../fixtures/layer/tar-hard-links.sha256");
    assert_eq!(Digest::of(&bytes).to_string(), golden.trim());
    let mut archive = ::tar::Archive::new(bytes.as_slice());
    let read: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (
                entry.header().entry_type().as_byte(),
                entry.size(),
                entry.link_name_bytes().map(|name| name.len()),
            )
        })
        .collect();
    assert_eq!(
        read,
        [
            (b'0', 3, None),
            (b'1', 0, Some(8)),
            (b'0', 3, None),
            (b'1', 0, Some(120))
        ]
    );
    for target in [&b""[..], b"/a", b"a/../b", b"a/.wh.b"] {
        assert!(append_header(&mut Vec::new(), &link(b"l", target)).is_err());
    }
}

/// Without newlines: the `tar` crate takes one for the end of a PAX record (Python, above, does not).
const NAME: &str = "[^/\0\n]{1,80}";
const TARGET: &str = "[^\0\n]{1,200}";

proptest! {
    #[test]
    fn any_entry_comes_back(
        components in prop::collection::vec(NAME, 1..6),
        target in TARGET,
        kind in 0..3u8, mode in 0..0o10_000u32, uid: u32, gid: u32, size in 0..2000u64, caps in 0..1u64 << 41,
    ) {
        let path = components.join("/").into_bytes();
        let kind = match kind {
            0 => Kind::Directory,
            1 => Kind::File { size },
            _ => Kind::Symlink { target: target.as_bytes() },
        };
        let numbers: Vec<String> = (0..41).filter(|bit| caps >> bit & 1 != 0).map(|bit| bit.to_string()).collect();
        let capabilities = format!("{}=ep", numbers.join(",")).parse().ok();
        // The `tar` crate takes a newline for the end of a record here, too.
        let capabilities = capabilities.filter(|capabilities: &FileCapabilities| {
            matches!(kind, Kind::File { .. }) && !capabilities.to_bytes().contains(&b'\n')
        });
        let entry = Entry { path: &path, kind, mode, uid, gid, capabilities };
        prop_assume!(check(&entry).is_ok());
        let bytes = archive(&[entry]);
        prop_assert_eq!(bytes.len() % BLOCK, 0);
        prop_assert_eq!(seen_by_tar_crate(&bytes), vec![expected(&entry)]);
    }
}
