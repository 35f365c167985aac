//! Bytes that never change: those of a small image of everything, as `fixtures/image` holds them.
//!
//! A difference here is a new format number, or a mistake.

use std::process::Command;

use super::*;

/// An image with contents, a root, files of every kind and every setting.
pub(super) fn everything(reverse: bool, mode: u32) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.member(
        "libgreet-1.0",
        &[("lib/libgreet.so", "library"), ("lib/größe", "x")],
        &[],
    );
    let mut hello = vec![
        ("bin/hello", "#!/bin/sh\necho hello\n"),
        ("share/doc/hello/readme", "read me\n"),
        ("share/man/man1/hello.1", "-> ../../doc/hello/readme"),
        ("etc/hello.conf", "greeting = hello\n"),
        ("empty/", ""),
    ];
    let mut base = vec![
        ("usr/bin/sh", "#!/bin/dash\n"),
        ("usr/bin/dash", "#!"),
        ("usr/bin/rsh", "-> sh"),
        ("var/lib/dpkg/status.d/dash", "Package: dash\nVersion: 1.0-1\n"),
        ("tmp/", ""),
        ("root/.profile", "umask 022\n"),
    ];
    let mut files = vec![("conf/a", "1"), ("conf/b/c", "#!2"), ("conf/link", "-> a")];
    if reverse {
        hello.reverse();
        base.reverse();
        files.reverse();
    }
    fixture.content("hello-2.10", &hello);
    let libgreet = fixture.logical("libgreet-1.0");
    fixture.members[1].references.insert(libgreet);
    fixture.package("dash", &base);
    fixture.package("data", &[("usr/share/data/x", "data")]);
    write_tree(fixture.dir.path(), &files);
    fs::set_permissions(fixture.dir.path().join("conf/a"), fs::Permissions::from_mode(mode)).unwrap();
    fixture.user("app", 1000, "/home/app");
    let conf = fixture.file("/srv/conf", ImageFileKind::Source("conf".to_owned()));
    (conf.owner, conf.group) = (Some("app".to_owned()), Some("www-data".to_owned()));
    fixture
        .file("/etc/motd", ImageFileKind::Text("Grüße\n".to_owned()))
        .mode = Some(0o600);
    fixture.file("/opt/hello", ImageFileKind::Symlink("/bin/hello".to_owned()));
    set_everything(&mut fixture.spec);
    fixture
}

fn set_everything(spec: &mut spec::Image) {
    let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let map = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    };
    spec.entrypoint = strings(&["hello"]);
    spec.cmd = strings(&["--greeting", "<hi> & \"you\""]);
    spec.env = map(&[("LANG", "C.UTF-8"), ("A", "1"), ("Z", "")]);
    spec.workdir = Some("/srv/work".to_owned());
    spec.user = Some("app:app".to_owned());
    spec.ports = ["8080", "53/udp"].map(|port| port.parse().unwrap()).to_vec();
    spec.volumes = strings(&["/var/data"]);
    spec.labels = map(&[("org.example.b", "2"), ("org.example.a", "1")]);
    spec.annotations = map(&[("org.opencontainers.image.title", "hello")]);
    spec.stop_signal = "SIGQUIT".parse().ok();
}

fn check(image: &Image, name: &str, digest: &str) {
    let golden = |kind: &str| {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/image");
        fs::read_to_string(dir.join(format!("{name}.{kind}.json"))).unwrap()
    };
    assert_eq!(String::from_utf8_lossy(image.config.bytes()), golden("config"));
    assert_eq!(String::from_utf8_lossy(image.manifest.bytes()), golden("manifest"));
    assert_eq!(image.digest().to_string(), digest);
    assert_sound(image);
}

const EVERYTHING: &str = "sha256:1ce886b8d25f516e91c3813e84e0ff53825cb3a9d8e5e3471f92ebd1c1202b0a";
const CONTENTS: &str = "sha256:3c444dd4abf0e78f2f91a40ff080a55e4e137be5a92baa6e527b6d0f77b74d67";

#[test]
fn everything_has_the_golden_bytes() {
    for (reverse, mode, threads) in [(false, 0o644, 1), (true, 0o600, 2), (false, 0o464, 8)] {
        let fixture = everything(reverse, mode);
        let recipe = Recipe {
            compression: Compression::None,
            ..fixture.recipe()
        };
        let resources = Resources {
            threads,
            ..Resources::default()
        };
        let image = assemble(&recipe, &resources, &Silent).unwrap();
        check(&image, "everything", EVERYTHING);
    }
}

#[test]
fn contents_alone_have_the_golden_bytes() {
    let mut fixture = Fixture::new();
    fixture.content("hello-2.10", &[("bin/hello", "#!\n")]);
    fixture.spec.entrypoint = vec!["hello".to_owned()];
    let recipe = Recipe {
        compression: Compression::Gzip(6),
        ..fixture.recipe()
    };
    let image = assemble(&recipe, &Resources::default(), &Silent).unwrap();
    check(&image, "contents", CONTENTS);
}

#[test]
fn umask_time_zone_and_locale_do_not_matter() {
    let test = "image::tests::golden::everything_has_the_golden_bytes";
    for (umask, zone, locale) in [("000", "Asia/Kathmandu", "tr_TR.UTF-8"), ("077", "UTC+11", "C")] {
        let status = Command::new("sh")
            .args(["-c", &format!("umask {umask} && exec \"$0\" --exact {test}")])
            .arg(std::env::current_exe().unwrap())
            .env("TZ", zone)
            .env("LC_ALL", locale)
            .env("SOURCE_DATE_EPOCH", "123456789")
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(status.status.success() && output.contains("1 passed"), "{output}");
    }
}

#[test]
fn every_layer_holds_what_it_should() {
    let image = everything(false, 0o644).assemble().unwrap();
    let layers: Vec<_> = image.layers.iter().map(entries).collect();
    let comments = comments(&image);
    assert_eq!(comments[..2], ["dash 1.0-1", "data 1.0-1"]);
    assert_eq!(comments[4], "links, files and accounts");
    assert_eq!(
        layers[0],
        [
            "d 700 0:0 root",
            "f 644 0:0 root/.profile",
            "d 1777 0:0 tmp",
            "d 755 0:0 usr",
            "d 755 0:0 usr/bin",
            "f 755 0:0 usr/bin/dash",
            "l 777 0:0 usr/bin/rsh -> sh",
            "f 755 0:0 usr/bin/sh",
            "d 755 0:0 var",
            "d 755 0:0 var/lib",
            "d 755 0:0 var/lib/dpkg",
            "d 755 0:0 var/lib/dpkg/status.d",
            "f 644 0:0 var/lib/dpkg/status.d/dash",
        ]
    );
    let mut stores = [&comments[2], &comments[3]];
    stores.sort_unstable();
    assert_eq!(stores, ["hello-2.10", "libgreet-1.0"]);
    assert!(layers[4].contains(&"f 600 0:0 etc/motd".to_owned()));
    assert!(layers[4].contains(&"f 755 1000:33 srv/conf/b/c".to_owned()));
    assert!(layers[4].contains(&"d 1777 0:0 tmp".to_owned()) || !layers[4].iter().any(|line| line.ends_with(" tmp")));
    assert!(layers[4].contains(&"l 777 0:0 bin -> usr/bin".to_owned()));
    assert!(
        !layers[4].iter().any(|line| line.contains("usr/bin/dash")),
        "a package's file is in its layer only"
    );
}
