//! Dialects as GNU tar writes them, numbers and records at their bounds, and bytes that are no tar.

use std::process::Command;

use proptest::prelude::*;

use super::super::testing::{Node, oracle, run, tar};
use super::header::{CHECKSUM, FLAG, Field, MTIME, SIZE, UID};
use super::*;

fn all(bytes: &[u8]) -> Result<Vec<Entry>, TarError> {
    let mut reader = TarReader::new(Streamed(bytes));
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
    let mut global = vec![Node::file("g", "13 uname=all\n")];
    global[0].flag = b'g';
    assert_eq!(all(&tar(&global)).unwrap(), []);
    global.push(Node::file("a", ""));
    assert_eq!(all(&tar(&global)).unwrap()[0].uname, b"all");
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
        let mut reader = TarReader::new(Seekable::new(file).unwrap());
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
