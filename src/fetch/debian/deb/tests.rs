//! Tests of unpacking Debian packages, beside `dpkg-deb`.

use std::fs;

use super::*;
use crate::archive::testing::{Tar, bzip2, xz, zstd};
use crate::fetch::debian::testing::{Deb, control};
use crate::fetch::unpack::testing::show;
use crate::fsio::with_causes;
use crate::testing::{oracle, output};

fn control_tar(more: &[(&str, &str)]) -> Tar {
    let paragraph = control("pkg", "1.0-1", "Depends: libc6 (>= 2)\n");
    let tar = Tar::new().directory("./").file("./control", paragraph);
    more.iter()
        .fold(tar, |tar, (name, text)| tar.file(&format!("./{name}"), text))
}

fn unpacked(deb: &[u8]) -> Result<Vec<String>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pkg.deb");
    fs::write(&path, deb).unwrap();
    let result = unpack_deb(&path, "pkg", &dir.path().join("tree"));
    let left = fsio::sorted_names(dir.path()).unwrap();
    let expected: &[&str] = if result.is_ok() {
        &["pkg.deb", "tree"]
    } else {
        &["pkg.deb"]
    };
    assert_eq!(left, expected, "{result:?}");
    result
        .map(|()| show(&dir.path().join("tree")))
        .map_err(|error| with_causes(&error))
}

/// The nodes of a package without those that every package gets.
fn data(deb: &Deb) -> Result<Vec<String>, String> {
    let lines = unpacked(&deb.bytes())?;
    Ok(lines
        .into_iter()
        .filter(|line| !line.starts_with("var/"))
        .skip_while(|line| line == "var/ 755")
        .collect())
}

const STATUS: &str = "Package: pkg\nStatus: install ok installed\nVersion: 1.0-1\nArchitecture: all\n\
    Maintainer: Nobody <nobody@localhost>\nDepends: libc6 (>= 2)\nDescription: a test\n";

#[test]
fn a_package_becomes_a_tree() {
    let files = [
        ("md5sums", "d41d8cd98f00b204e9800998ecf8427e  bin/x\n"),
        (
            "postinst",
            "update-alternatives --install /bin/y y /bin/x 5\nrm -rf /\n",
        ),
        ("preinst", "exit 1\n"),
    ];
    let tree = Tar::new()
        .directory("./")
        .directory("./bin/")
        .executable("./bin/x", "#!")
        .file("./etc/pkg.conf", "c")
        .hard_link("./usr/share/y", "./etc/pkg.conf");
    let deb = Deb::new(control_tar(&files), tree);
    assert_eq!(
        unpacked(&deb.bytes()).unwrap(),
        [
            "etc/ 755".to_owned(),
            "etc/pkg.conf 644 c".to_owned(),
            "usr/ 755".to_owned(),
            "usr/bin/ 755".to_owned(),
            "usr/bin/x 755 #!".to_owned(),
            "usr/share/ 755".to_owned(),
            "usr/share/y 644 c".to_owned(),
            "var/ 755".to_owned(),
            "var/lib/ 755".to_owned(),
            "var/lib/dpkg/ 755".to_owned(),
            "var/lib/dpkg/alternatives.d/ 755".to_owned(),
            "var/lib/dpkg/alternatives.d/pkg 644 install /usr/bin/y y /usr/bin/x 5\n".to_owned(),
            "var/lib/dpkg/attributes.d/ 755".to_owned(),
            format!("var/lib/dpkg/attributes.d/pkg 644 {RECORD}"),
            "var/lib/dpkg/status.d/ 755".to_owned(),
            format!("var/lib/dpkg/status.d/pkg 644 {STATUS}"),
            format!("var/lib/dpkg/status.d/pkg.md5sums 644 {}", files[0].1),
        ]
    );
}

/// 2541 is 04755, what `Tar::executable` gives.
const RECORD: &str = "{\"attributes\":{\"usr/bin/x\":{\"gid\":0,\"mode\":2541,\"uid\":0}},\
    \"links\":[[\"etc/pkg.conf\",\"usr/share/y\"]]}";

/// What a store path cannot hold is in the package's record, below the merged `/usr`: modes and owners that are not the
/// usual ones (a link's are its file's), capabilities, links, and what scripts ask for.
#[test]
fn what_a_tree_cannot_hold_is_recorded() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let capability = "cap_net_raw=ep".parse::<FileCapabilities>().unwrap().to_bytes();
    for (path, kind, mode, owner, link) in [
        ("./root/", ::tar::EntryType::Directory, 0o700, (0, 0), ""),
        ("./var/mail/", ::tar::EntryType::Directory, 0o2775, (0, 8), ""),
        ("./etc/", ::tar::EntryType::Directory, 0o755, (0, 0), ""),
        ("./etc/secret", ::tar::EntryType::Regular, 0o640, (0, 42), ""),
        ("./etc/plain", ::tar::EntryType::Regular, 0o644, (0, 0), ""),
        ("./bin/a", ::tar::EntryType::Regular, 0o4755, (0, 0), ""),
        ("./bin/b", ::tar::EntryType::Link, 0o4755, (0, 0), "./bin/a"),
        ("./sbin/c", ::tar::EntryType::Link, 0o4755, (0, 0), "./bin/b"),
        ("./bin/l", ::tar::EntryType::Symlink, 0o777, (0, 0), "a"),
        ("./bin/ping", ::tar::EntryType::Regular, 0o755, (0, 0), ""),
    ] {
        if path.ends_with("ping") {
            let record = [("SCHILY.xattr.security.capability", capability.as_slice())];
            builder.append_pax_extensions(record).unwrap();
        }
        let mut header = ::tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_size(0);
        match link {
            "" => builder.append_data(&mut header, path, &b""[..]).unwrap(),
            link => builder.append_link(&mut header, path, link).unwrap(),
        }
    }
    let scripts = [
        (
            "preinst",
            "dpkg-divert --package pkg --add --rename --divert /bin/a.x /bin/a\n",
        ),
        ("postinst", "setcap cap_kill=p /bin/a\n"),
    ];
    let deb = Deb::new(control_tar(&scripts), Tar::new()).member(2, "data.tar", builder.into_inner().unwrap());
    let lines = unpacked(&deb.bytes()).unwrap();
    let record = lines
        .iter()
        .find_map(|line| line.strip_prefix("var/lib/dpkg/attributes.d/pkg 644 "))
        .unwrap();
    let record: PackageRecord = serde_json::from_str(record).unwrap();
    let shown: Vec<String> = record
        .attributes
        .iter()
        .map(|(path, Ownership { mode, uid, gid })| format!("{path} {mode:o} {uid}:{gid}"))
        .collect();
    assert_eq!(
        shown,
        [
            "etc/secret 640 0:42",
            "root 700 0:0",
            "usr/bin/a 4755 0:0",
            "usr/bin/b 4755 0:0",
            "usr/sbin/c 4755 0:0",
            "var/mail 2775 0:8",
        ]
    );
    assert_eq!(record.links, [["usr/bin/a", "usr/bin/b", "usr/sbin/c"]]);
    let pairs = |map: &BTreeMap<String, String>| map.iter().map(|(a, b)| format!("{a} {b}")).collect::<Vec<_>>();
    assert_eq!(pairs(&record.capabilities), ["usr/bin/ping cap_net_raw=ep"]);
    assert_eq!(pairs(&record.setcap), ["usr/bin/a cap_kill=p"]);
    assert_eq!(pairs(&record.diversions), ["usr/bin/a usr/bin/a.x"]);
}

#[test]
fn every_compression_of_the_data_is_read() {
    let tree = Tar::new().file("./etc/x", "1").finish();
    for (name, content) in [
        ("data.tar", tree.clone()),
        ("data.tar.zst", zstd(&tree)),
        ("data.tar.xz", xz(&tree)),
        ("data.tar.bz2", bzip2(&tree)),
        ("data.tar.gz", crate::archive::testing::gzip(&tree)),
    ] {
        let deb = Deb::new(control_tar(&[]), Tar::new()).member(2, name, content);
        assert_eq!(data(&deb).unwrap(), ["etc/ 755", "etc/x 644 1"], "{name}");
        let control = zstd(&control_tar(&[]).finish());
        let deb = deb
            .member(1, "control.tar.zst", control)
            .insert(1, "_gpgorigin", b"odd");
        assert_eq!(data(&deb).unwrap(), ["etc/ 755", "etc/x 644 1"], "{name}");
    }
}

#[test]
fn what_was_made_for_slash_moves_below_usr() {
    let tree = Tar::new()
        .symlink("./lib64", "usr/lib64")
        .file("./lib/x86/liba.so.1", "a")
        .symlink("./lib/x86/liba.so", "liba.so.1")
        .symlink("./usr/lib/x86/libb.so", "../../../lib/x86/liba.so.1")
        .symlink("./usr/lib/x86/libc.so", "/lib/x86/liba.so.1")
        .symlink("./lib64/ld.so", "/lib/x86/liba.so.1")
        .symlink("./usr/share/elsewhere", "/lib/other/x")
        .executable("./usr/bin/which", "w")
        .symlink("./bin/which", "/usr/bin/which")
        .symlink("./usr/bin/touch", "/bin/touch")
        .executable("./bin/touch", "t")
        .file("./usr/lib/both", "same")
        .file("./lib/both", "same");
    assert_eq!(
        data(&Deb::new(control_tar(&[]), tree)).unwrap(),
        [
            "usr/ 755",
            "usr/bin/ 755",
            "usr/bin/touch 755 t",
            "usr/bin/which 755 w",
            "usr/lib/ 755",
            "usr/lib/both 644 same",
            "usr/lib/x86/ 755",
            "usr/lib/x86/liba.so -> liba.so.1",
            "usr/lib/x86/liba.so.1 644 a",
            "usr/lib/x86/libb.so -> liba.so.1",
            "usr/lib/x86/libc.so -> liba.so.1",
            "usr/lib64/ 755",
            "usr/lib64/ld.so -> ../lib/x86/liba.so.1",
            "usr/share/ 755",
            "usr/share/elsewhere -> /usr/lib/other/x",
        ]
    );
    let tree = Tar::new().file("./usr/lib/both", "one").file("./lib/both", "two");
    let error = data(&Deb::new(control_tar(&[]), tree)).unwrap_err();
    assert!(
        error.ends_with("entry `usr/lib/both` comes twice, with different content"),
        "{error}"
    );
}

#[test]
fn certificates_are_bundled() {
    let tree = Tar::new()
        .file("./usr/share/ca-certificates/mozilla/b.crt", "B\n")
        .file("./usr/share/ca-certificates/mozilla/a.crt", "A")
        .file("./usr/share/ca-certificates/c.crt", "C\n")
        .file("./usr/share/ca-certificates/README", "no")
        .directory("./etc/ssl/certs/");
    let lines = data(&Deb::new(control_tar(&[]), tree)).unwrap();
    assert!(
        lines.contains(&"etc/ssl/certs/ca-certificates.crt 644 C\nA\nB\n".to_owned()),
        "{lines:?}"
    );
}

#[test]
fn a_malformed_package_is_refused() {
    let deb = || Deb::new(control_tar(&[]), Tar::new().file("./etc/x", "1"));
    let other = Tar::new().file("./control", control("other", "1", ""));
    for (deb, message) in [
        (deb().without(2), "it has no `data.tar`"),
        (deb().without(1), "it has `data.tar.xz` where `control.tar` must be"),
        (deb().without(0), "`debian-binary` does not come first"),
        (
            deb().member(0, "debian-binary", b"3.0\n".to_vec()),
            "it is of version `3.0` of the format, not 2",
        ),
        (
            deb().member(2, "data.tar.lzma", vec![]),
            "it has `data.tar.lzma` where `data.tar` must be",
        ),
        (Deb::new(other, Tar::new()), "it holds the package `other`"),
        (
            Deb::new(Tar::new(), Tar::new()),
            "its control paragraph names no package",
        ),
        (
            Deb::new(Tar::new().file("./control", "nonsense"), Tar::new()),
            "line 1 of its control paragraph",
        ),
        (
            Deb::new(Tar::new().file("./control", [0xff]), Tar::new()),
            "is not UTF-8",
        ),
        (
            Deb::new(control_tar(&[]), Tar::new().file("../x", "")),
            "its name holds `..`",
        ),
        (
            Deb::new(
                control_tar(&[]),
                Tar::new().symlink("./etc", "/tmp").file("./etc/x", ""),
            ),
            "entry `etc/x` lies below `etc`, which the archive makes a symlink",
        ),
        (
            Deb::new(control_tar(&[]), Tar::new().entry("./dev/null", b'3', 0, "", b"")),
            "entry `dev/null` is a character device",
        ),
        (
            Deb::new(control_tar(&[]), Tar::new().symlink("./var/lib/dpkg/status.d", "/tmp")),
            "entry `var/lib/dpkg/status.d/pkg` lies below `var/lib/dpkg/status.d`",
        ),
    ] {
        let error = unpacked(&deb.bytes()).unwrap_err();
        assert!(error.starts_with("cannot unpack `deb:pkg`: "), "{error}");
        assert!(error.contains(message), "{error}\nis not\n{message}");
    }
}

#[test]
fn a_cut_or_foreign_file_is_refused() {
    let bytes = Deb::new(control_tar(&[]), Tar::new().file("./etc/x", "1")).bytes();
    for cut in [0, 4, 30, 100, bytes.len() / 2, bytes.len() - 20] {
        let error = unpacked(&bytes[..cut]).unwrap_err();
        assert!(error.starts_with("cannot unpack `deb:pkg`: "), "{cut}: {error}");
    }
    let cut_in_data = unpacked(&bytes[..bytes.len() - 20]).unwrap_err();
    assert!(
        cut_in_data.ends_with("it is cut off within its member `data.tar.xz`"),
        "{cut_in_data}"
    );
    let error = unpacked(b"PK\x03\x04 hello, no package").unwrap_err();
    assert!(error.contains("it is not a Debian package"), "{error}");
}

#[test]
fn dpkg_deb_reads_what_we_read() {
    if !oracle("dpkg-deb") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir_all(source.join("DEBIAN")).unwrap();
    fs::create_dir_all(source.join("usr/share/pkg")).unwrap();
    fs::write(source.join("DEBIAN/control"), control("pkg", "1.0-1", "")).unwrap();
    fs::write(source.join("usr/share/pkg").join("n".repeat(150)), "long").unwrap();
    std::os::unix::fs::symlink("t".repeat(150), source.join("usr/share/pkg/link")).unwrap();
    let (deb, theirs, ours) = (
        dir.path().join("pkg.deb"),
        dir.path().join("theirs"),
        dir.path().join("ours"),
    );
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    for compression in ["none", "gzip", "xz", "zstd"] {
        output(
            "dpkg-deb",
            &[
                "--root-owner-group",
                "-Z",
                compression,
                "--build",
                &path(&source),
                &path(&deb),
            ],
        );
        output("dpkg-deb", &["--extract", &path(&deb), &path(&theirs)]);
        unpack_deb(&deb, "pkg", &ours).unwrap();
        assert_eq!(show(&ours.join("usr")), show(&theirs.join("usr")), "{compression}");
        fs::remove_dir_all(&theirs).unwrap();
        fs::remove_dir_all(&ours).unwrap();
    }
}

/// The tree of a package feeds digests: `fixtures/fetch/golden.deb` gives this tree for ever, and its hash is what
/// `nix-hash --type sha256` says of it. Another hash here is another number of the format.
#[test]
fn the_golden_package_has_its_golden_hash() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/fetch/golden.deb");
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    unpack_deb(&fixture, "golden", &tree).unwrap();
    let source = crate::fetch::local::LocalSource {
        package: "golden",
        tree_name: "golden".to_owned(),
        file_name: "golden".to_owned(),
        dir: dir.path(),
        path: "tree",
        include: &[],
        exclude: &[],
        gitignore: false,
    };
    let hash = source.nar_hash().unwrap();
    assert_eq!(hash.hex(), GOLDEN, "{:#?}", show(&tree));
    if oracle("nix-hash") {
        let theirs = output("nix-hash", &["--type", "sha256", tree.to_str().unwrap()]);
        assert_eq!(theirs.trim(), GOLDEN);
    }
}

const GOLDEN: &str = "f073f4c47107995886f9417b0bf5dcb99f533ff26b47ae2affd0c959a7a360ae";
