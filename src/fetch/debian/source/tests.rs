//! Tests of unpacking Debian source packages, beside `dpkg-source`.

use super::*;
use crate::archive::testing::{Tar, bzip2, gzip, xz};
use crate::fetch::unpack::testing::show;
use crate::fsio::with_causes;

/// Writes the files of a source package; its `.dsc` lists them.
fn package(dir: &Path, format: &str, files: &[(&str, Vec<u8>)]) -> Vec<(String, PathBuf)> {
    let mut dsc =
        format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nFormat: {format}\nSource: pkg\nFiles:\n");
    for (name, content) in files {
        dsc.push_str(&format!(" 0123 {} {name}\n", content.len()));
    }
    dsc.push_str("\n-----BEGIN PGP SIGNATURE-----\n\nabc\n-----END PGP SIGNATURE-----\n");
    let dsc = ("pkg_1-1.dsc", dsc.into_bytes());
    let write = |(name, content): &(&str, Vec<u8>)| {
        let path = dir.join(name);
        fs::write(&path, content).unwrap();
        ((*name).to_owned(), path)
    };
    std::iter::once(&dsc).chain(files).map(write).collect()
}

fn unpacked(format: &str, files: &[(&str, Vec<u8>)]) -> Result<Vec<String>, String> {
    let dir = tempfile::tempdir().unwrap();
    let files = package(dir.path(), format, files);
    let work = dir.path().join("work");
    fs::create_dir(&work).unwrap();
    let result = unpack_deb_source(&files, &work.join("tree"));
    let expected: &[&str] = if result.is_ok() { &["tree"] } else { &[] };
    assert_eq!(fsio::sorted_names(&work).unwrap(), expected, "{result:?}");
    result
        .map(|_| show(&work.join("tree")))
        .map_err(|error| with_causes(&error))
}

fn upstream() -> Vec<u8> {
    gzip(
        &Tar::new()
            .file("pkg-1/a.c", "1")
            .file("pkg-1/debian/upstreams", "old")
            .finish(),
    )
}

fn debian() -> Vec<u8> {
    let tar = Tar::new()
        .file("debian/rules", "r")
        .file("debian/patches/series", "p1\n");
    xz(&tar.finish())
}

#[test]
fn a_quilt_package_has_its_own_debian_directory() {
    let files = [
        ("pkg_1.orig.tar.gz", upstream()),
        ("pkg_1.orig.tar.gz.asc", b"signature".to_vec()),
        (
            "pkg_1.orig-doc-en.tar.bz2",
            bzip2(&Tar::new().file("manual-1/m", "2").finish()),
        ),
        ("pkg_1-1.debian.tar.xz", debian()),
    ];
    assert_eq!(
        unpacked("3.0 (quilt)", &files).unwrap(),
        [
            "a.c 644 1",
            "debian/ 755",
            "debian/patches/ 755",
            "debian/patches/series 644 p1\n",
            "debian/rules 644 r",
            "doc-en/ 755",
            "doc-en/m 644 2",
        ]
    );
}

#[test]
fn native_and_old_packages_are_read() {
    let native = [("pkg_1.tar.xz", xz(&Tar::new().file("pkg/debian/rules", "r").finish()))];
    assert_eq!(
        unpacked("3.0 (native)", &native).unwrap(),
        ["debian/ 755", "debian/rules 644 r"]
    );
    let native = [("pkg_1.tar.gz", gzip(&Tar::new().file("pkg/debian/rules", "r").finish()))];
    assert_eq!(unpacked("1.0", &native).unwrap(), ["debian/ 755", "debian/rules 644 r"]);
    let old = [
        ("pkg_1.orig.tar.gz", gzip(&Tar::new().file("pkg-1/a.c", "1").finish())),
        ("pkg_1-1.diff.gz", gzip(b"--- a\n+++ b\n")),
    ];
    assert_eq!(
        unpacked("1.0", &old).unwrap(),
        ["a.c 644 1", "debian.diff 644 --- a\n+++ b\n"]
    );
}

#[test]
fn hostile_and_malformed_packages_are_refused() {
    let orig = || ("pkg_1.orig.tar.gz", upstream());
    let with_debian = |tar: Tar| [orig(), ("pkg_1-1.debian.tar.xz", xz(&tar.finish()))];
    for (format, files, message) in [
        ("2.0", &[orig()][..], "the source format `2.0` is not supported"),
        ("3.0 (quilt)", &[orig()], "it lists no `.debian.tar`"),
        (
            "3.0 (quilt)",
            &[("pkg_1-1.debian.tar.xz", debian())],
            "it lists no `.orig.tar`",
        ),
        ("3.0 (native)", &[], "it lists no tarball"),
        (
            "3.0 (native)",
            &[("a.tar.gz", upstream()), ("b.tar.xz", upstream())],
            "it lists more than one tarball",
        ),
        (
            "3.0 (quilt)",
            &with_debian(Tar::new().file("debian", "x")),
            "holds no directory `debian`",
        ),
        (
            "3.0 (quilt)",
            &with_debian(Tar::new().symlink("debian", "/tmp")),
            "holds no directory `debian`",
        ),
        (
            "3.0 (quilt)",
            &with_debian(Tar::new().file("debian/x", "").file("a.c", "")),
            "holds `a.c` beside `debian`",
        ),
        (
            "3.0 (quilt)",
            &with_debian(Tar::new().file("../x", "")),
            "its name holds `..`",
        ),
        (
            "3.0 (quilt)",
            &[
                orig(),
                ("pkg_1.orig-debian.tar.gz", upstream()),
                ("pkg_1-1.debian.tar.xz", debian()),
            ],
            "cannot be its tarball of `debian`",
        ),
        (
            "1.0",
            &[
                (
                    "pkg_1.orig.tar.gz",
                    gzip(&Tar::new().file("p/debian.diff", "").finish()),
                ),
                ("pkg_1-1.diff.gz", gzip(b"")),
            ],
            "upstream has a file `debian.diff` of its own",
        ),
    ] {
        let error = unpacked(format, files).unwrap_err();
        assert!(error.starts_with("cannot unpack `pkg_1-1.dsc`: "), "{error}");
        assert!(error.contains(message), "{error}\nis not\n{message}");
    }
}

#[test]
fn an_upstream_symlink_named_debian_is_replaced_and_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let orig = Tar::new()
        .file("p/a", "")
        .symlink("p/debian", target)
        .symlink("p/doc", target);
    let files = [
        ("pkg_1.orig.tar.gz", gzip(&orig.finish())),
        ("pkg_1.orig-doc.tar.gz", gzip(&Tar::new().file("d/x", "").finish())),
        (
            "pkg_1-1.debian.tar.xz",
            xz(&Tar::new().file("debian/rules", "r").finish()),
        ),
    ];
    assert_eq!(
        unpacked("3.0 (quilt)", &files).unwrap(),
        ["a 644 ", "debian/ 755", "debian/rules 644 r", "doc/ 755", "doc/x 644 "]
    );
    assert!(fsio::sorted_names(outside.path()).unwrap().is_empty());
}

#[test]
fn a_listed_file_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = package(dir.path(), "1.0", &[("pkg_1.tar.gz", upstream())]);
    files.truncate(1);
    let error = unpack_deb_source(&files, &dir.path().join("tree")).unwrap_err();
    assert!(
        with_causes(&error).ends_with("lists `pkg_1.tar.gz`, which is not among its files"),
        "{error:?}"
    );
    let error = unpack_deb_source(&[], &dir.path().join("tree")).unwrap_err();
    assert!(with_causes(&error).contains("must have its `.dsc` first"), "{error:?}");
}
