//! Tests of unpacking archives, hostile ones among them.

use std::fs;
use std::io::Write;

use super::testing::show;
use super::*;
use crate::archive::testing::{Tar, bzip2, gzip, xz, zstd};
use crate::fsio::with_causes;
use crate::testing::{oracle, output};

pub(in crate::fetch) mod zips;

/// Unpacks `archive` in a directory of its own: the tree as text, or the error with its sources. Whatever
/// happens, nothing else may be left in the directory, nor written outside of it.
fn unpacked(archive: &[u8], strip: Option<u32>) -> Result<Vec<String>, String> {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    let work = dir.path().join("work");
    fs::create_dir(&work).unwrap();
    let path = dir.path().join("archive");
    fs::write(&path, archive).unwrap();
    let result = unpack_archive(&path, "x.tar", strip, &work.join("tree"));
    let expected: &[&str] = if result.is_ok() { &["tree"] } else { &[] };
    assert_eq!(crate::fsio::sorted_names(&work).unwrap(), expected, "{result:?}");
    let outside = crate::fsio::sorted_names(&dir.path().join("outside")).unwrap();
    assert!(outside.is_empty(), "something was written outside");
    result
        .map(|_| show(&work.join("tree")))
        .map_err(|error| with_causes(&error))
}

fn plain() -> Tar {
    Tar::new()
        .directory("top/")
        .file("top/a", "1")
        .executable("top/bin/x", "2")
        .symlink("top/link", "../anywhere")
        .hard_link("top/hard", "top/bin/x")
        .file("top/empty", "")
}

const PLAIN: &[&str] = &[
    "a 644 1",
    "bin/ 755",
    "bin/x 755 2",
    "empty 644 ",
    "hard 755 2",
    "link -> ../anywhere",
];

#[test]
fn every_compression_is_known_by_content() {
    let tar = plain().finish();
    for archive in [tar.clone(), gzip(&tar), xz(&tar), zstd(&tar), bzip2(&tar)] {
        assert_eq!(unpacked(&archive, None).unwrap(), PLAIN);
    }
    let (first, second) = tar.split_at(700);
    for two_members in [
        [gzip(first), gzip(second)],
        [xz(first), xz(second)],
        [zstd(first), zstd(second)],
        [bzip2(first), bzip2(second)],
    ] {
        assert_eq!(unpacked(&two_members.concat(), None).unwrap(), PLAIN);
    }
}

#[test]
fn a_damaged_or_cut_archive_leaves_nothing() {
    let tar = plain().finish();
    for archive in [gzip(&tar), xz(&tar), zstd(&tar), bzip2(&tar)] {
        for cut in [20, archive.len() / 2, archive.len() - 5] {
            let error = unpacked(&archive[..cut], None).unwrap_err();
            assert!(error.contains("damaged or truncated"), "{error}");
        }
        let mut damaged = archive.clone();
        let end = damaged.len() - 6;
        damaged[end] ^= 0xff;
        let result = unpacked(&damaged, None);
        assert!(result.is_err(), "{:x?}", &archive[..4]);
    }
    for cut in [600, 1500, 1540] {
        let error = unpacked(&tar[..cut], None).unwrap_err();
        assert!(error.contains("damaged or truncated"), "{cut}: {error}");
    }
    let mut wrong = tar.clone();
    wrong[1536 + 3] ^= 1;
    assert!(
        unpacked(&wrong, None)
            .unwrap_err()
            .contains("not a tar header: its checksum is wrong (at byte 1536 of the tar)")
    );
}

#[test]
fn leading_directories_are_dropped() {
    let tar = plain().finish();
    let whole: Vec<String> = unpacked(&tar, Some(0)).unwrap();
    assert_eq!(whole[..3], ["top/ 755", "top/a 644 1", "top/bin/ 755"]);
    assert_eq!(unpacked(&tar, Some(1)).unwrap(), PLAIN);
    // What has no more than the dropped directories goes; hard links to it have lost their file.
    let deeper = plain().directory("top/bin/");
    assert_eq!(unpacked(&deeper.clone().finish(), Some(2)).unwrap(), ["x 755 2"]);
    let error = unpacked(&deeper.hard_link("top/bin/y", "top/a").finish(), Some(2)).unwrap_err();
    assert!(error.contains("entry `y` is a hard link to `top/a`"), "{error}");
    let two = Tar::new().file("a/x", "1").file("b/x", "2").finish();
    assert_eq!(
        unpacked(&two, None).unwrap(),
        ["a/ 755", "a/x 644 1", "b/ 755", "b/x 644 2"]
    );
    let one = Tar::new().file("only", "1").finish();
    assert_eq!(unpacked(&one, None).unwrap(), ["only 644 1"]);
    let nested = Tar::new().file("top/top/x", "1").finish();
    assert_eq!(unpacked(&nested, None).unwrap(), ["top/ 755", "top/x 644 1"]);
    assert_eq!(unpacked(&Tar::new().finish(), None).unwrap(), Vec::<String>::new());
}

#[test]
fn dropping_more_directories_than_there_are_is_an_error() {
    let deepest_two = Tar::new().directory("a/").file("a/b/x", "").file("a/y", "").finish();
    for (archive, strip, deepest) in [
        (deepest_two.clone(), 3, 2),
        (deepest_two.clone(), 64, 2),
        (Tar::new().file("x", "").finish(), 1, 0),
        (zips::zipped(&[("a/x", 0o100_644, "")]), 2, 1),
    ] {
        let error = unpacked(&archive, Some(strip)).unwrap_err();
        let expected =
            format!("`strip = {strip}` leaves nothing of it: no entry is more than {deepest} directories deep");
        assert!(error.ends_with(&expected), "{error}");
    }
    assert_eq!(unpacked(&deepest_two, Some(2)).unwrap(), ["x 644 "]);
    assert_eq!(unpacked(&Tar::new().finish(), Some(3)).unwrap(), Vec::<String>::new());
}

/// As GNU tar and unzip do it.
#[test]
fn the_slash_of_absolute_names_is_dropped_with_a_note() {
    let tar = Tar::new().file("/etc/x", "1").hard_link("//y", "/etc/x").finish();
    for (archive, expected) in [
        (tar, &["etc/ 755", "etc/x 644 1", "y 644 1"][..]),
        (zips::zipped(&[("/etc/x", 0o100_644, "1")]), &["x 644 1"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("archive");
        fs::write(&file, archive).unwrap();
        let note = unpack_archive(&file, "x", None, &dir.path().join("tree")).unwrap().note;
        assert_eq!(show(&dir.path().join("tree")), expected);
        let expected = "absolute names such as `/etc/x` were unpacked without their first slash";
        assert_eq!(note.as_deref(), Some(expected));
    }
}

/// star, GNU tar and Go keep them as `SCHILY.xattr`, libarchive in base64 as `LIBARCHIVE.xattr` (and both in newer versions).
#[test]
fn capabilities_of_files_are_told() {
    use base64::Engine as _;
    let value = "cap_net_raw=ep"
        .parse::<capability::FileCapabilities>()
        .unwrap()
        .to_bytes();
    let coded = base64::engine::general_purpose::STANDARD_NO_PAD
        .encode(&value)
        .into_bytes();
    let name = capability::ATTRIBUTE;
    for (records, expected) in [
        (vec![(format!("SCHILY.xattr.{name}"), value.clone())], "cap_net_raw=ep"),
        (
            vec![(format!("LIBARCHIVE.xattr.{name}"), coded.clone())],
            "cap_net_raw=ep",
        ),
        (
            vec![
                (format!("SCHILY.xattr.{name}"), value.clone()),
                (format!("LIBARCHIVE.xattr.{name}"), coded),
            ],
            "cap_net_raw=ep",
        ),
        (vec![(format!("SCHILY.xattr.{name}"), b"?".to_vec())], "unreadable (3f)"),
    ] {
        let mut builder = ::tar::Builder::new(Vec::new());
        builder
            .append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_slice())))
            .unwrap();
        let mut header = ::tar::Header::new_ustar();
        header.set_size(1);
        header.set_mode(0o755);
        builder.append_data(&mut header, "top/bin/ping", &b"x"[..]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("archive");
        fs::write(&file, builder.into_inner().unwrap()).unwrap();
        let remarks = unpack_archive(&file, "x", Some(1), &dir.path().join("tree")).unwrap();
        let capable: Vec<_> = remarks.capabilities.into_iter().collect();
        assert_eq!(capable, [("bin/ping".to_owned(), expected.to_owned())]);
    }
}

/// gzip(1) and tar pass over zeros behind the last member, as tapes and some mirrors leave them; anything else is
/// damage.
#[test]
fn padding_behind_compressed_content_is_passed_over() {
    let tar = plain().finish();
    for compressed in [gzip(&tar), bzip2(&tar)] {
        for zeros in [1, 511, 10_240] {
            let padded = [&compressed[..], &vec![0; zeros]].concat();
            assert_eq!(unpacked(&padded, None).unwrap(), PLAIN);
        }
        let garbage = [&compressed[..], b"\0\0garbage"].concat();
        assert!(unpacked(&garbage, None).unwrap_err().contains("damaged or truncated"));
    }
}

/// The format before xz has no magic; Debian's archive and GNU's mirrors still have such files.
#[test]
fn lzma_is_known_by_content_too() {
    let lzma = |bytes: &[u8]| {
        let options = liblzma::stream::LzmaOptions::new_preset(6).unwrap();
        let stream = liblzma::stream::Stream::new_lzma_encoder(&options).unwrap();
        let mut out = Vec::new();
        liblzma::read::XzEncoder::new_stream(bytes, stream)
            .read_to_end(&mut out)
            .unwrap();
        out
    };
    let packed = lzma(&plain().finish());
    assert_eq!(unpacked(&packed, None).unwrap(), PLAIN);
    assert!(
        unpacked(&packed[..packed.len() / 2], None)
            .unwrap_err()
            .contains("damaged or truncated")
    );
    assert!(
        unpacked(&lzma(b"text"), None)
            .unwrap_err()
            .contains("it is a plain file")
    );
    let named_like_it = Tar::new().file("]", "1").finish();
    assert_eq!(unpacked(&named_like_it, None).unwrap(), ["] 644 1"]);
}

/// A file whose name does not tell is unpacked if it is an archive, and else kept.
#[test]
fn content_tells_what_a_name_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let plain_tar = plain().finish();
    let unpack = |name: &str, bytes: &[u8]| {
        let (file, dest) = (dir.path().join("file"), dir.path().join(name));
        fs::write(&file, bytes).unwrap();
        let result = unpack_or_keep(&file, name, None, &dest).map_err(|error| with_causes(&error));
        result.map(|_| {
            if dest.is_dir() {
                show(&dest)
            } else {
                vec![String::from_utf8_lossy(&fs::read(&dest).unwrap()).into_owned()]
            }
        })
    };
    for (name, archive) in [
        ("tar", plain_tar.clone()),
        ("gz", gzip(&plain_tar)),
        ("zst", zstd(&plain_tar)),
    ] {
        assert_eq!(unpack(name, &archive).unwrap(), PLAIN);
    }
    assert_eq!(
        unpack("zip", &zips::zipped(&[("x", 0o100_644, "1")])).unwrap(),
        ["x 644 1"]
    );
    for (name, bytes) in [
        ("text", b"hello".to_vec()),
        ("empty", Vec::new()),
        ("bzip2-like", b"BZh1 was here".to_vec()),
    ] {
        assert_eq!(
            unpack(name, &bytes).unwrap(),
            [String::from_utf8(bytes).unwrap()],
            "{name}"
        );
    }
    let single = gzip(b"hello");
    assert_eq!(
        unpack("single", &single).unwrap(),
        [String::from_utf8_lossy(&single).into_owned()]
    );
    assert!(
        unpack("cut", &gzip(&plain_tar)[..100])
            .unwrap_err()
            .contains("damaged or truncated")
    );
}

/// Each archive is refused with a message that holds the text beside it.
fn refused(archives: Vec<(Tar, &str)>) {
    for (tar, message) in archives {
        let error = unpacked(&tar.finish(), None).unwrap_err();
        assert!(error.starts_with("cannot unpack `x.tar`: "), "{error}");
        assert!(error.contains(message), "{error}\nis not\n{message}");
    }
}

#[test]
fn names_and_links_that_escape_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let outside = root.path().to_str().unwrap();
    refused(vec![
        (
            Tar::new().file("../x", ""),
            "entry `../x` leads out of the archive: its name holds `..`",
        ),
        (Tar::new().file("a/../../x", ""), "its name holds `..`"),
        (
            Tar::new().symlink("a", outside).file("a/x", ""),
            "entry `a/x` lies below `a`, which the archive makes a symlink",
        ),
        (
            Tar::new().symlink("a", "../outside").file("a/x", ""),
            "entry `a/x` lies below `a`, which the archive makes a symlink",
        ),
        (
            Tar::new()
                .directory("d")
                .symlink("d/a", "..")
                .symlink("b", "d/a/..")
                .file("b/x", ""),
            "entry `b/x` lies below `b`, which the archive makes a symlink",
        ),
        (
            Tar::new().symlink("a", "../outside").directory("a"),
            "entry `a` comes twice, once as a directory and once not",
        ),
        (
            Tar::new().symlink("a", "../outside").directory("a/b"),
            "entry `a/b` lies below `a`, which the archive makes a symlink",
        ),
        (
            Tar::new().hard_link("a", "../outside/x"),
            "entry `../outside/x` leads out of the archive",
        ),
        (
            Tar::new().hard_link("a", "/etc/passwd"),
            "entry `a` is a hard link to `etc/passwd`, which is not an earlier file of the archive",
        ),
        (
            Tar::new().symlink("/a", "/etc").file("//a/x", ""),
            "entry `a/x` lies below `a`, which the archive makes a symlink",
        ),
        (
            Tar::new().hard_link("a", "b").file("b", ""),
            "entry `a` is a hard link to `b`, which is not an earlier file of the archive",
        ),
        (
            Tar::new().directory("d").hard_link("a", "d"),
            "entry `a` is a hard link to `d`",
        ),
        (Tar::new().hard_link("a", "a"), "entry `a` is a hard link to `a`"),
        (
            Tar::new()
                .symlink("s", "../outside")
                .hard_link("a", "s")
                .file("a/x", ""),
            "entry `a/x` lies below `a`, which the archive makes a symlink",
        ),
    ]);
}

#[test]
fn special_files_and_malformed_archives_are_refused() {
    refused(vec![
        (
            Tar::new().entry("dev/sda", b'4', 0, "", b""),
            "entry `dev/sda` is a block device",
        ),
        (
            Tar::new().entry("tty", b'3', 0, "", b""),
            "entry `tty` is a character device",
        ),
        (Tar::new().entry("pipe", b'6', 0, "", b""), "entry `pipe` is a fifo"),
        (
            Tar::new().entry("odd", b'Z', 0, "", b""),
            "entry `odd` is of a kind that is unknown",
        ),
        (
            Tar::new().file("a", "").file("a/b", ""),
            "entry `a/b` lies below `a`, which the archive makes a file",
        ),
        (
            Tar::new().file("a/b", "").file("a", ""),
            "entry `a` comes twice, once as a directory and once not",
        ),
        (Tar::new().file(".", "x"), "the top directory is not a directory"),
        (
            Tar::new().symlink("a", ""),
            "the symlink `a` has a target that no symlink can have",
        ),
        (
            Tar::new().pax(b'x', &[("path", "../x")]).file("a", ""),
            "entry `../x` leads out of the archive",
        ),
        (
            Tar::new().pax(b'g', &[("path", "a")]).file("b", ""),
            "a global pax header that sets the names or sizes of entries",
        ),
        (
            Tar::new().pax(b'x', &[("path", "a\0b")]).file("b", ""),
            "a pax record with a NUL in a name",
        ),
        (
            Tar::new().entry("x", b'x', 0, "", b"99 path=a\n").file("b", ""),
            "a broken pax record",
        ),
        (
            Tar::new().entry("x", b'x', 0, "", b"nonsense").file("b", ""),
            "a broken pax record",
        ),
        (
            Tar::new().pax(b'x', &[("size", "-1")]).file("b", ""),
            "a pax number that is not a number",
        ),
        (
            Tar::new().header("x", b'L', 0, "", 2 << 20),
            "extension headers of an entry larger than 1 MiB",
        ),
        (
            Tar::new().entry("x", b'L', 0, "", b"name"),
            "an extension header without its entry",
        ),
        (
            Tar::new().header("big", b'0', 0, "", 1 << 32),
            "it unpacks to more than 2048 MiB",
        ),
    ]);
}

#[test]
fn of_two_tar_entries_the_last_counts() {
    let tar = Tar::new()
        .executable("a", "1")
        .symlink("b", "x")
        .file("c", "3")
        .file("a", "2")
        .file("b", "4")
        .symlink("c", "y")
        .directory("d")
        .directory("./d/");
    assert_eq!(
        unpacked(&tar.finish(), None).unwrap(),
        ["a 644 2", "b 644 4", "c -> y", "d/ 755"]
    );
}

#[test]
fn long_names_are_read_in_every_dialect() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    let target = "t".repeat(300);
    let gnu = Tar::new()
        .entry("././@LongLink", b'L', 0, "", format!("{long}\0").as_bytes())
        .file("short", "1")
        .entry("././@LongLink", b'K', 0, "", format!("{target}\0").as_bytes())
        .symlink("link", "short");
    let pax = Tar::new()
        .pax(b'g', &[("comment", "0123")])
        .pax(b'x', &[("path", &long), ("mtime", "1.5")])
        .file("short", "1")
        .pax(b'x', &[("linkpath", &target)])
        .symlink("link", "short");
    let expected = [
        format!("{}/ 755", "d".repeat(120)),
        format!("{long} 644 1"),
        format!("link -> {target}"),
    ];
    for tar in [gnu, pax] {
        assert_eq!(unpacked(&tar.finish(), None).unwrap(), expected);
    }
    let mut header = [0; 512];
    header[..4].copy_from_slice(b"name");
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(b"00000000000\0");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[345..351].copy_from_slice(b"prefix");
    let ustar = Tar::new().block(header).file("x", "").finish();
    assert_eq!(
        unpacked(&ustar, None).unwrap(),
        ["prefix/ 755", "prefix/name 644 ", "x 644 "]
    );
}

#[test]
fn a_size_beyond_octal_is_read() {
    let mut tar = Tar::new().header("a", b'0', 0o644, "", 0);
    let mut header: [u8; 512] = tar.0[..512].try_into().unwrap();
    header[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
    tar = Tar::new().block(header).content(b"abc");
    assert_eq!(unpacked(&tar.finish(), None).unwrap(), ["a 644 abc"]);
    let pax = Tar::new()
        .pax(b'x', &[("size", "3")])
        .header("a", b'0', 0o644, "", 0)
        .content(b"abc");
    assert_eq!(unpacked(&pax.finish(), None).unwrap(), ["a 644 abc"]);
}

#[test]
fn sparse_files_get_their_holes() {
    let map = "2\n2\n3\n8\n1\n";
    let content = [format!("{map:\0<512}").into_bytes(), b"abcd".to_vec()].concat();
    let pax_1_0 = Tar::new()
        .pax(
            b'x',
            &[
                ("GNU.sparse.major", "1"),
                ("GNU.sparse.minor", "0"),
                ("GNU.sparse.name", "real"),
                ("GNU.sparse.realsize", "10"),
            ],
        )
        .file("GNUSparseFile.0/real", content);
    let pax_0_1 = Tar::new()
        .pax(
            b'x',
            &[
                ("GNU.sparse.size", "10"),
                ("GNU.sparse.map", "2,3,8,1"),
                ("GNU.sparse.name", "real"),
            ],
        )
        .file("x", "abcd");
    for tar in [pax_1_0, pax_0_1] {
        assert_eq!(unpacked(&tar.finish(), Some(0)).unwrap(), ["real 644 \0\0abc\0\0\0d\0"]);
    }
    for map in ["2,3,4,1", "2,9,8,1", "2,3", "2,3,8,2", "2"] {
        let tar = Tar::new()
            .pax(b'x', &[("GNU.sparse.size", "10"), ("GNU.sparse.map", map)])
            .file("x", "abcd");
        let error = unpacked(&tar.finish(), Some(0)).unwrap_err();
        assert!(error.contains("the pieces of a sparse file"), "{map}: {error}");
    }
}

#[test]
fn real_tar_programs_are_understood() {
    if !oracle("tar") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    fs::create_dir_all(top.join("sub")).unwrap();
    fs::write(top.join("n".repeat(180)), "long").unwrap();
    std::os::unix::fs::symlink("l".repeat(180), top.join("sub/link")).unwrap();
    fs::hard_link(top.join("n".repeat(180)), top.join("sub/twin")).unwrap();
    let mut sparse = fs::File::create(top.join("sparse")).unwrap();
    std::io::Seek::seek(&mut sparse, std::io::SeekFrom::Start(1 << 20)).unwrap();
    sparse.write_all(b"end").unwrap();
    sparse.set_len((1 << 20) + 4096).unwrap();
    drop(sparse);
    let expected = show(&top);
    for format in [
        "--format=gnu",
        "--format=pax",
        "--sparse --format=gnu",
        "--sparse --format=pax",
    ] {
        let archive = dir.path().join("a.tar");
        let mut arguments: Vec<&str> = format.split(' ').collect();
        arguments.extend([
            "-C",
            dir.path().to_str().unwrap(),
            "-cf",
            archive.to_str().unwrap(),
            "top",
        ]);
        output("tar", &arguments);
        assert_eq!(
            unpacked(&fs::read(&archive).unwrap(), None).unwrap(),
            expected,
            "{format}"
        );
    }
}

#[test]
fn what_is_no_archive_says_what_it_is() {
    for (bytes, kind) in [
        (b"hello".to_vec(), "a plain file"),
        (gzip(b"hello"), "a single file compressed with gzip"),
        (xz(&[0; 100]), "a single file compressed with xz"),
        (zstd(b""), "a single file compressed with zstd"),
        (bzip2(b"hello"), "a single file compressed with bzip2"),
    ] {
        let error = unpacked(&bytes, None).unwrap_err();
        assert_eq!(error, format!("cannot unpack `x.tar`: it is {kind}, not an archive"));
    }
}

#[test]
fn an_existing_destination_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("a.tar");
    fs::write(&archive, plain().finish()).unwrap();
    let dest = dir.path().join("tree");
    fs::create_dir(&dest).unwrap();
    let error = unpack_archive(&archive, "a.tar", None, &dest).unwrap_err();
    assert!(with_causes(&error).ends_with("is there already"), "{error:?}");
    assert!(show(&dest).is_empty());
}

#[test]
fn a_bomb_is_refused() {
    // 3 GiB of zeros in a few kB: as a tar header that announces them, compressed.
    let tar = Tar::new().header("zeros", b'0', 0o644, "", 3 << 30).finish();
    let compressed = zstd(&tar);
    for strip in [None, Some(1)] {
        let error = unpacked(&compressed, strip).unwrap_err();
        assert!(error.contains("it unpacks to more than 2048 MiB"), "{error}");
    }
    let mut padded = plain().finish();
    padded.resize(65 << 20, 0);
    let error = unpacked(&zstd(&padded), None).unwrap_err();
    assert!(error.contains("far too much follows the end of the archive"), "{error}");
    padded.truncate(1 << 20);
    assert_eq!(unpacked(&zstd(&padded), None).unwrap(), PLAIN);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    /// Whatever bytes of an archive change, the answer is a tree or an error, and nothing is left besides.
    #[test]
    fn damage_never_escapes(
        changes in proptest::collection::vec((0usize..4096, proptest::num::u8::ANY), 1..4),
        fix_checksums in proptest::bool::ANY,
    ) {
        let mut tar = plain().finish();
        for (place, byte) in changes {
            let place = place % tar.len();
            tar[place] = byte;
        }
        if fix_checksums {
            for header in [0, 512, 1536, 2560, 3072] {
                let block: [u8; 512] = tar[header..header + 512].try_into().unwrap();
                tar[header..header + 512].copy_from_slice(&Tar::new().block(block).0);
            }
        }
        let _ = unpacked(&tar, None);
    }
}
