//! Dialects as GNU tar writes them, numbers and records at their bounds, and bytes that are no tar.

use std::process::Command;

use proptest::prelude::*;

use super::super::testing::{Node, Tar, tar};
use super::*;
use crate::testing::{oracle, run};

type Field = std::ops::Range<usize>;
const UID: Field = 108..116;
const SIZE: Field = 124..136;
const MTIME: Field = 136..148;
const CHECKSUM: Field = 148..156;
const FLAG: usize = 156;

fn all(bytes: &[u8]) -> Result<Vec<Entry>, TarError> {
    let mut reader = TarReader::new(Streamed(bytes), TarPolicy::IMAGE);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        entries.push(entry);
    }
    Ok(entries)
}

/// GNU tar writes one tree in each of its dialects; what the entries say is the same.
#[test]
fn every_dialect_of_gnu_tar_says_the_same() {
    if !oracle("tar") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let long = "d".repeat(90) + "/" + &"f".repeat(90);
    std::fs::create_dir(dir.path().join(&long[..90])).unwrap();
    std::fs::write(dir.path().join(&long), "content").unwrap();
    std::os::unix::fs::symlink("t".repeat(90), dir.path().join("link")).unwrap();
    let written = |format: &str| {
        let mut command = Command::new("tar");
        command.args([
            "--format",
            format,
            "--mtime=@5",
            "--owner=root:7",
            "--group=wheel:9",
            "--mode=a=r,u+s",
            "-cf",
            "-",
        ]);
        run(command.arg("-C").arg(dir.path()).args([&long[..90], "link"])).stdout
    };
    for (format, magic, names) in [
        ("gnu", Magic::Gnu, true),
        ("oldgnu", Magic::Gnu, true),
        ("pax", Magic::Ustar, true),
        ("ustar", Magic::Ustar, true),
    ] {
        let entries = all(&written(format)).unwrap();
        let paths: Vec<Vec<u8>> = entries.iter().map(Entry::clean_path).collect();
        assert_eq!(paths, [&long.as_bytes()[..90], long.as_bytes(), b"link"], "{format}");
        let kinds: Vec<Kind> = entries.iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [Kind::Directory, Kind::File, Kind::Symlink]);
        assert_eq!(
            (entries[1].size, entries[1].mode, entries[1].mtime),
            (7, 0o4444, (5, 0))
        );
        assert_eq!((entries[1].uid, entries[1].gid, entries[2].link.len()), (7, 9, 90));
        assert_eq!((entries[1].uname == b"root", entries[1].form.magic), (names, magic));
        assert_eq!(entries[1].form.gnu_long_name, magic == Magic::Gnu);
    }
}

fn patched(field: Field, bytes: &[u8]) -> Vec<u8> {
    let mut archive = tar(&[Node::file("x", "")]);
    archive[field.start..field.start + bytes.len()].copy_from_slice(bytes);
    archive[CHECKSUM].copy_from_slice(b"        ");
    let sum: u32 = archive[..512].iter().map(|&byte| u32::from(byte)).sum();
    archive[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive
}

#[test]
fn numbers_are_read_in_every_form_and_bounded() {
    let read = |field: Field, bytes: &[u8]| all(&patched(field, bytes)).map(|entries| entries[0].clone());
    assert_eq!(read(UID, b"  17 \0\0\0").unwrap().uid, 0o17);
    assert_eq!(read(UID, &[0x80, 0, 0, 0, 0, 1, 0, 0]).unwrap().uid, 1 << 16);
    assert_eq!(read(MTIME, &[0xff; 12]).unwrap().mtime, (-1, 0));
    assert_eq!(read(MTIME, b"            ").unwrap().mtime, (0, 0));
    for (field, bytes) in [
        (SIZE, &[0xff; 12][..]),
        (SIZE, b"99999999999\0"),
        (SIZE, &[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        (UID, b"x"),
        (
            MTIME,
            &[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
    ] {
        assert!(
            matches!(read(field.clone(), bytes), Err(TarError::Malformed { .. })),
            "{field:?} {bytes:?}"
        );
    }
}

#[test]
fn pax_records_are_read_or_refused() {
    let record = |text: &str| {
        let mut nodes = vec![Node::file("pax", text)];
        nodes[0].flag = b'x';
        nodes.push(Node::file("short", "body"));
        all(&tar(&nodes))
    };
    let entry = record("12 path=abc\n15 mtime=-1.25\n29 SCHILY.xattr.user.a=bin\n=\n")
        .unwrap()
        .remove(0);
    assert_eq!((entry.path.as_slice(), entry.mtime), (&b"abc"[..], (-2, 750_000_000)));
    assert_eq!(entry.xattrs[&b"user.a"[..]], b"bin\n=");
    for broken in [
        "12 path=abcd\n",
        "x path=a\n",
        "5\n",
        "99 path=a\n",
        "8 nokey\n",
        "11 mtime=x\n",
        "10 size=-1\n",
        "0 \n",
    ] {
        assert!(matches!(record(broken), Err(TarError::Malformed { .. })), "{broken:?}");
    }
    let mut lone = vec![Node::file("pax", "12 path=abc\n")];
    lone[0].flag = b'x';
    assert!(all(&tar(&lone)).is_err());
}

fn reason(tar: Tar) -> String {
    match all(&tar.finish()) {
        Err(TarError::Malformed { reason, .. }) => reason.to_owned(),
        other => panic!("{other:?}"),
    }
}

/// Go's reader, with which container engines read, gives a global header to its caller, and engines pass over it; GNU tar
/// applies it.
#[test]
fn global_headers_say_nothing_of_entries_or_are_refused() {
    let global = |key, value| Tar::new().pax(b'g', &[("comment", "0123"), (key, value)]);
    assert_eq!(all(&global("uname", "all").finish()).unwrap(), []);
    let entries = all(&global("uname", "all").file("a", "1").finish()).unwrap();
    assert_eq!((entries.len(), entries[0].uname.as_slice()), (1, &b""[..]));
    for (key, value) in [
        ("path", "b"),
        ("linkpath", "b"),
        ("size", "0"),
        ("GNU.sparse.name", "b"),
    ] {
        let refused = reason(global(key, value).file("a", "1"));
        assert_eq!(
            refused, "a global pax header that sets the names or sizes of entries",
            "{key}"
        );
    }
    let between = Tar::new().pax(b'x', &[("path", "b")]).pax(b'g', &[("comment", "0")]);
    assert!(reason(between.file("a", "1")).contains("between an extension header and its entry"));
}

/// Each of these is one tree to one program and another to the next.
#[test]
fn entries_that_readers_take_differently_are_refused() {
    let long = |flag: u8| Tar::new().entry("././@LongLink", flag, 0, "", b"one\0");
    let mut v7_prefix = [0; 512];
    v7_prefix[..4].copy_from_slice(b"name");
    v7_prefix[100..108].copy_from_slice(b"0000644\0");
    v7_prefix[156] = b'0';
    v7_prefix[257..263].copy_from_slice(b"ustar\0");
    v7_prefix[345..351].copy_from_slice(b"prefix");
    let mut gnu_prefix = v7_prefix;
    gnu_prefix[257..265].copy_from_slice(b"ustar  \0");
    for (tar, expected) in [
        (
            long(b'L').pax(b'x', &[("path", "two")]).file("x", ""),
            "two names for one entry",
        ),
        (
            long(b'K').pax(b'x', &[("linkpath", "two")]).symlink("x", "y"),
            "two names for one entry",
        ),
        (
            Tar::new()
                .pax(b'x', &[("path", "a")])
                .pax(b'x', &[("size", "0")])
                .file("x", ""),
            "two pax headers before one entry",
        ),
        (
            Tar::new().entry("dir/", 0, 0o755, "", b"content"),
            "a directory with content",
        ),
        (Tar::new().block(v7_prefix), "a ustar header of an unknown version"),
        (Tar::new().block(gnu_prefix), "a header field that is not a number"),
        (
            Tar::new().pax(b'x', &[("path", "a\0b")]).file("x", ""),
            "a pax record with a NUL in a name",
        ),
        (
            Tar::new().entry("x", b'S', 0, "", b""),
            "a sparse file that is not GNU's",
        ),
    ] {
        let refused = reason(tar);
        assert!(refused.starts_with(expected), "{refused}");
    }
    let same = long(b'L').pax(b'x', &[("path", "one")]).file("x", "");
    assert_eq!(all(&same.finish()).unwrap()[0].path, b"one");
    let empty = Tar::new().pax(b'x', &[("path", ""), ("uname", "")]).file("kept", "");
    assert_eq!(all(&empty.finish()).unwrap()[0].path, b"kept");
    let directory = Tar::new()
        .entry("dir/", 0, 0o755, "", b"")
        .entry("file/", b'0', 0o755, "", b"");
    let kinds: Vec<Kind> = all(&directory.finish())
        .unwrap()
        .iter()
        .map(|entry| entry.kind)
        .collect();
    assert_eq!(kinds, [Kind::Directory, Kind::File]);
}

/// The first entry's description and its file.
fn first(archive: &[u8]) -> (Entry, Vec<u8>) {
    let mut reader = TarReader::new(Streamed(archive), TarPolicy::IMAGE);
    let entry = reader.next_entry().unwrap().unwrap();
    let mut file = Vec::new();
    reader.read_to_end(&mut file).unwrap();
    assert!(reader.next_entry().unwrap().is_some(), "the next header is found");
    (entry, file)
}

#[test]
fn sparse_files_have_the_size_and_name_that_consumers_see() {
    let map_1_0 = [format!("{:\0<512}", "2\n2\n3\n8\n1\n").into_bytes(), b"abcd".to_vec()].concat();
    let version = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.realsize", "10"),
    ];
    let name = ("GNU.sparse.name", "real");
    let (numbers, size) = ("2,3,8,1", ("GNU.sparse.size", "10"));
    let pieces = ["2", "3", "8", "1"].iter().zip(["offset", "numbytes"].iter().cycle());
    let pieces: Vec<(String, &str)> = pieces
        .map(|(value, key)| (format!("GNU.sparse.{key}"), *value))
        .collect();
    let mut pax_0_0 = vec![size, ("GNU.sparse.numblocks", "2"), name];
    pax_0_0.extend(pieces.iter().map(|(key, value)| (key.as_str(), *value)));
    let path = ("path", "GNUSparseFile.0/real");
    for (records, stored) in [
        ([&version[..], &[name, path]].concat(), map_1_0.as_slice()),
        (vec![size, ("GNU.sparse.map", numbers), name, path], b"abcd"),
        (pax_0_0, b"abcd"),
    ] {
        let tar = Tar::new().pax(b'x', &records).file("x", stored).file("next", "");
        let (entry, file) = first(&tar.finish());
        assert_eq!(
            (entry.path.as_slice(), entry.kind, entry.size),
            (&b"real"[..], Kind::File, 10)
        );
        assert!(entry.form.sparse && entry.form.pax_other.is_empty());
        assert_eq!(file, b"\0\0abc\0\0\0d\0");
    }
    for records in [
        [&version[..2], &[size]].concat(),
        vec![size, ("GNU.sparse.map", "2,3,4,1")],
        vec![size, ("GNU.sparse.map", "2,3,8")],
        vec![size, ("GNU.sparse.map", "2,9")],
        vec![size, ("GNU.sparse.map", "2,3")],
        vec![size],
        vec![("GNU.sparse.map", numbers)],
        vec![("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0"), size],
    ] {
        let tar = Tar::new().pax(b'x', &records).file("x", "abcd").finish();
        assert!(all(&tar).is_err(), "{records:?}");
    }
}

/// GNU tar writes a file with a hole in each of its formats; the file that is read has it.
#[test]
fn sparse_files_of_gnu_tar_are_read() {
    if !oracle("tar") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut content = vec![0; 3 << 20];
    for index in 0..60 {
        content[(index * 50_000) & !4095] = b'x';
    }
    let file = std::fs::File::create(dir.path().join("sparse")).unwrap();
    file.set_len(content.len() as u64).unwrap();
    for (at, _) in content.iter().enumerate().filter(|&(_, &byte)| byte != 0) {
        std::os::unix::fs::FileExt::write_at(&file, b"x", at as u64).unwrap();
    }
    std::fs::write(dir.path().join("next"), "").unwrap();
    for format in [
        "--format=gnu",
        "--sparse-version=0.0",
        "--sparse-version=0.1",
        "--sparse-version=1.0",
    ] {
        let mut command = Command::new("tar");
        command.args(["--format=pax", format, "--sparse", "--hole-detection=raw", "-cf", "-"]);
        let archive = run(command.arg("-C").arg(dir.path()).args(["sparse", "next"])).stdout;
        assert!(archive.len() < 1 << 20, "{format} stores the holes");
        let (entry, file) = first(&archive);
        assert_eq!(
            (entry.path.as_slice(), entry.size),
            (&b"sparse"[..], content.len() as u64),
            "{format}"
        );
        assert_eq!(entry.kind == GNU_SPARSE, format == "--format=gnu");
        assert!(file == content, "{format}");
    }
}

#[test]
fn what_follows_the_end_is_bounded_where_the_policy_says_so() {
    let mut archive = tar(&[Node::file("a", "1")]);
    archive.resize(archive.len() + 2000, 7);
    let policy = |trailing_max| TarPolicy {
        trailing_max,
        ..TarPolicy::IMAGE
    };
    let finish = |policy| {
        TarReader::new(Streamed(&archive[..]), policy)
            .finish()
            .map(|(_, trailer)| trailer)
    };
    let trailer = Trailer {
        bytes: 3024,
        zero: false,
    };
    assert_eq!(finish(policy(3024)).unwrap(), trailer);
    assert!(finish(policy(3023)).is_err());
    let mut solaris = vec![Node::file("pax", "12 path=abc\n"), Node::file("x", "")];
    solaris[0].flag = b'X';
    let solaris = tar(&solaris);
    assert_eq!(all(&solaris).unwrap()[0].kind, Kind::Other(b'X'));
    let mut reader = TarReader::new(Streamed(&solaris[..]), TarPolicy::SOURCE);
    assert_eq!(reader.next_entry().unwrap().unwrap().path, b"abc");
}

#[test]
fn an_extension_that_claims_gigabytes_is_refused_before_it_is_read() {
    let mut archive = patched(SIZE, b"77777777777\0");
    archive[FLAG] = b'L';
    let sum = |archive: &[u8]| -> u32 {
        (0..512)
            .map(|index| {
                if CHECKSUM.contains(&index) {
                    32
                } else {
                    u32::from(archive[index])
                }
            })
            .sum()
    };
    let text = format!("{:06o}\0 ", sum(&archive));
    archive[CHECKSUM].copy_from_slice(text.as_bytes());
    assert!(matches!(all(&archive), Err(TarError::Malformed { .. })));
}

/// Skipping by seeking sees what skipping by reading sees, and notices a cut body.
#[test]
fn seeking_and_streaming_agree() {
    let archive = tar(&[Node::file("a", vec![1; 5000]), Node::dir("d"), Node::file("b", "x")]);
    for length in [archive.len(), archive.len() - 1024, 3000, 700, 512, 100] {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &archive[..length]).unwrap();
        let mut reader = TarReader::new(Seekable::new(file).unwrap(), TarPolicy::IMAGE);
        let mut seen = Vec::new();
        let result = loop {
            match reader.next_entry() {
                Ok(Some(entry)) => seen.push(entry),
                Ok(None) => break Ok(seen),
                Err(error) => break Err(error.to_string()),
            }
        };
        assert_eq!(result.is_ok(), length >= archive.len() - 1024, "{length}");
        assert_eq!(result.ok(), all(&archive[..length]).ok());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..3000), flag in any::<u8>()) {
        let _ = all(&bytes);
        if bytes.len() >= 512 {
            bytes[FLAG] = flag;
            bytes[CHECKSUM].copy_from_slice(b"        ");
            let sum: u32 = bytes[..512].iter().map(|&byte| u32::from(byte)).sum();
            bytes[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            let _ = all(&bytes);
        }
    }
}
