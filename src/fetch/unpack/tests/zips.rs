//! Tests of unpacking zip files.

use std::io::Write;

use super::unpacked;

pub(in crate::fetch) fn zipped(entries: &[(&str, u32, &str)]) -> Vec<u8> {
    let mut writer = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, mode, content) in entries {
        let options = ::zip::write::SimpleFileOptions::default().unix_permissions(mode & 0o777);
        match mode & 0o170_000 {
            0o120_000 => writer.add_symlink(*name, *content, options).unwrap(),
            0o040_000 => writer.add_directory(*name, options).unwrap(),
            _ => {
                writer.start_file(*name, options).unwrap();
                writer.write_all(content.as_bytes()).unwrap();
            }
        }
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn zips_are_unpacked_with_their_modes() {
    let zip = zipped(&[
        ("top/", 0o040_755, ""),
        ("top/a", 0o100_644, "1"),
        ("top/x", 0o100_755, "2"),
        ("top/link", 0o120_777, "a"),
    ]);
    assert_eq!(unpacked(&zip, None).unwrap(), ["a 644 1", "link -> a", "x 755 2"]);
    assert_eq!(unpacked(&zip, Some(0)).unwrap()[0], "top/ 755");
    assert_eq!(unpacked(&zipped(&[]), None).unwrap(), Vec::<String>::new());
}

#[test]
fn hostile_zips_are_refused() {
    for (entries, message) in [
        (&[("../x", 0o100_644, "")][..], "its name holds `..`"),
        (
            &[("a", 0o120_777, "../outside"), ("a/x", 0o100_644, "")],
            "entry `a/x` lies below `a`, which the archive makes a symlink",
        ),
    ] {
        let error = unpacked(&zipped(entries), None).unwrap_err();
        assert!(error.contains(message), "{error}\nis not\n{message}");
    }
    let zip = zipped(&[("a", 0o100_644, "0123456789"), ("b", 0o100_644, "x")]);
    for cut in [10, 60, zip.len() - 3] {
        unpacked(&zip[..cut], None).unwrap_err();
    }
    // The same name twice: the names in the archive have the same length, so one becomes the other.
    let text = String::from_utf8_lossy(&zip).into_owned();
    assert_eq!(text.matches('b').count(), 2, "a local and a central name");
    let twice: Vec<u8> = zip.iter().map(|&byte| if byte == b'b' { b'a' } else { byte }).collect();
    let error = unpacked(&twice, None);
    assert!(
        error.as_ref().is_err_and(|error| error.contains("comes twice")) || error == Ok(vec!["a 644 x".to_owned()]),
        "{error:?}"
    );
}

/// Windows programs write `\\` against the specification (APPNOTE 4.4.17.1); Info-ZIP reads it so too, but leaves names
/// that a Unix system stored as they are.
#[test]
fn backslashes_of_windows_separate_directories() {
    let zip = zipped(&[
        ("top\\sub\\a", 0o100_644, "1"),
        ("top\\empty\\", 0o100_644, ""),
        ("top/b", 0o100_644, "2"),
    ]);
    assert_eq!(unpacked(&zip, Some(0)).unwrap()[0], "top/ 755", "stored on Unix");
    let mut windows = zip.clone();
    // The system that made a member is in the directory at the end, behind its signature and a byte (APPNOTE 4.4.2).
    for at in memchr::memmem::find_iter(&zip, b"PK\x01\x02") {
        windows[at + 5] = 0;
    }
    assert_eq!(
        unpacked(&windows, Some(0)).unwrap(),
        [
            "top/ 755",
            "top/b 644 2",
            "top/empty/ 755",
            "top/sub/ 755",
            "top/sub/a 644 1"
        ]
    );
    assert_eq!(
        unpacked(&windows, None).unwrap(),
        ["b 644 2", "empty/ 755", "sub/ 755", "sub/a 644 1"]
    );
    let escaping = zipped(&[("..\\x", 0o100_644, "")]);
    let at = memchr::memmem::find(&escaping, b"PK\x01\x02").unwrap();
    let escaping: Vec<u8> = (escaping.iter().enumerate())
        .map(|(index, &byte)| if index == at + 5 { 0 } else { byte })
        .collect();
    assert!(unpacked(&escaping, None).unwrap_err().contains("its name holds `..`"));
}

fn compressed(method: ::zip::CompressionMethod, content: &[u8]) -> Vec<u8> {
    let mut writer = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = ::zip::write::SimpleFileOptions::default().compression_method(method);
    writer.start_file("a", options).unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap().into_inner()
}

#[test]
fn zips_of_other_compressions_are_unpacked() {
    use ::zip::CompressionMethod as Method;
    let content = "content ".repeat(1000);
    for method in [Method::Stored, Method::Deflated, Method::Bzip2, Method::Zstd] {
        let mut zip = compressed(method, content.as_bytes());
        assert_eq!(unpacked(&zip, None).unwrap(), [format!("a 644 {content}")], "{method}");
        let end = memchr::memmem::find(&zip, b"PK\x01\x02").unwrap();
        zip[end - 3] ^= 1;
        assert!(unpacked(&zip, None).is_err(), "{method}: damage is noticed");
    }
}

/// What python3 writes with LZMA, of `content content …`, and the same with a dictionary of 4 GiB.
#[test]
fn lzma_is_unpacked_and_its_memory_bounded() {
    let content = "content ".repeat(1000);
    let options = liblzma::stream::LzmaOptions::new_preset(6).unwrap();
    let stream = liblzma::stream::Stream::new_lzma_encoder(&options).unwrap();
    let mut alone = Vec::new();
    std::io::Read::read_to_end(
        &mut liblzma::read::XzEncoder::new_stream(content.as_bytes(), stream),
        &mut alone,
    )
    .unwrap();
    // A member is the properties with their version and length, and the data (APPNOTE 5.8.8); `.lzma` has eight bytes of
    // size between the two.
    let member = [&[9, 20, 5, 0][..], &alone[..5], &alone[13..]].concat();
    let zip = |member: &[u8]| {
        let mut zip = compressed(::zip::CompressionMethod::Stored, member);
        let crc = {
            let mut crc = flate2::Crc::new();
            crc.update(content.as_bytes());
            crc.sum().to_le_bytes()
        };
        let central = memchr::memmem::find(&zip, b"PK\x01\x02").unwrap();
        // Flags, method, checksum and size of the content, in the local header and in the directory.
        for (flags, method, sum, size) in [(6, 8, 14, 22), (central + 8, central + 10, central + 16, central + 24)] {
            zip[flags] |= 2;
            zip[method] = 14;
            zip[sum..sum + 4].copy_from_slice(&crc);
            zip[size..size + 4].copy_from_slice(&u32::try_from(content.len()).unwrap().to_le_bytes());
        }
        zip
    };
    assert_eq!(unpacked(&zip(&member), None).unwrap(), [format!("a 644 {content}")]);
    let mut huge = member;
    huge[5..9].copy_from_slice(&[0xff; 4]);
    let error = unpacked(&zip(&huge), None).unwrap_err();
    assert!(
        error.contains("its dictionary of LZMA is larger than 256 MiB"),
        "{error}"
    );
}
