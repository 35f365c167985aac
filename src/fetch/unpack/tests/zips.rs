//! Tests of unpacking zip files.

use std::io::Write;

use super::unpacked;

fn zipped(entries: &[(&str, u32, &str)]) -> Vec<u8> {
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
        (&[("/x", 0o100_644, "")], "its name is absolute"),
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
