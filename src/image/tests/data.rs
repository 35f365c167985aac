//! Which data of a closure stands where libraries look for it.

use super::*;
use crate::spec::Join;

const CRYPTO: &str = "usr/lib/x86_64-linux-gnu/libcrypto.so.3";

/// An application with the data of these Debian packages in its closure.
fn fixture(packages: &[(&str, &[(&str, &str)])]) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.content("app", &[("bin/app", "")]);
    for (name, entries) in packages {
        let status = format!("var/lib/dpkg/status.d/{name}");
        let entries: Vec<_> = entries.iter().copied().chain([(status.as_str(), "")]).collect();
        fixture.member(name, &entries, &[]);
    }
    fixture
}

/// What stands at `/` besides the application.
fn laid(fixture: &Fixture) -> Vec<String> {
    let nodes = without_base(fixture.layout().unwrap());
    nodes
        .into_iter()
        .filter(|node| !node.ends_with("/ 755") && !node.starts_with("bin/"))
        .collect()
}

const CERTIFICATES: (&str, &[(&str, &str)]) = (
    "certs",
    &[
        ("etc/ssl/certs/ca.crt", "1"),
        ("usr/share/ca-certificates/a.crt", "1"),
        ("usr/share/doc/certs/x", ""),
    ],
);

/// The package's own links lead to where the image has their targets, not into the package.
const OPENSSL: (&str, &[(&str, &str)]) = (
    "openssl",
    &[
        ("etc/ssl/certs/", ""),
        ("etc/ssl/openssl.cnf", "1"),
        ("usr/lib/ssl/cert.pem", "-> /etc/ssl/certs/ca.crt"),
        ("usr/lib/ssl/certs", "-> ../../../etc/ssl/certs"),
        ("usr/lib/ssl/openssl.cnf", "-> ../../../etc/ssl/openssl.cnf"),
    ],
);

const LIBSSL: (&str, &[(&str, &str)]) = (
    "libssl",
    &[(CRYPTO, ""), ("usr/lib/x86_64-linux-gnu/ossl-modules/legacy.so", "")],
);

#[test]
fn data_stands_where_its_libraries_look() {
    let fixture = fixture(&[CERTIFICATES, OPENSSL, LIBSSL]);
    assert_eq!(
        laid(&fixture),
        [
            "etc/ssl/certs/ca.crt -> {certs}/etc/ssl/certs/ca.crt",
            "etc/ssl/openssl.cnf -> {openssl}/etc/ssl/openssl.cnf",
            "usr/lib/ssl/cert.pem -> /etc/ssl/certs/ca.crt",
            "usr/lib/ssl/certs -> /etc/ssl/certs",
            "usr/lib/ssl/openssl.cnf -> {openssl}/etc/ssl/openssl.cnf",
            "usr/lib/x86_64-linux-gnu/ossl-modules -> {libssl}/usr/lib/x86_64-linux-gnu/ossl-modules",
            "usr/share/ca-certificates -> {certs}/usr/share/ca-certificates",
        ]
    );
    let lines = layout::lay_out(&fixture.recipe(), &Settings::new(&fixture.spec).unwrap())
        .unwrap()
        .data;
    assert_eq!(
        lines,
        [
            "certificates (`/etc/ssl`, `/usr/lib/ssl`, `/usr/share/ca-certificates`)",
            "modules of OpenSSL (`/usr/lib/x86_64-linux-gnu/ossl-modules`)",
        ]
    );
}

#[test]
fn without_a_library_that_looks_there_data_stays_in_its_package() {
    let mut fixture = fixture(&[CERTIFICATES]);
    assert_eq!(laid(&fixture), [""; 0]);
    fixture.spec.join = Some(Join::Closure);
    assert_eq!(laid(&fixture).len(), 2);
    let mut fixture = self::fixture(&[CERTIFICATES, LIBSSL]);
    assert_eq!(laid(&fixture).len(), 3);
    fixture.spec.join = Some(Join::Contents);
    assert_eq!(laid(&fixture), [""; 0]);
}

/// What is not Debian's has its own places, and what the image has is not touched.
#[test]
fn what_is_there_stays() {
    let mut fixture = fixture(&[CERTIFICATES, LIBSSL]);
    fixture.member("other", &[("etc/ssl/other", "")], &[]);
    fixture.file("/etc/ssl/certs/own.crt", ImageFileKind::Text("own".to_owned()));
    fixture.package(
        "root",
        &[("usr/share/ca-certificates/b.crt", "b"), ("etc/ssl/certs/ca.crt", "2")],
    );
    let nodes = laid(&fixture);
    for node in [
        "etc/ssl/certs/ca.crt 644 \"2\"",
        "etc/ssl/certs/own.crt 644 \"own\"",
        "usr/share/ca-certificates/a.crt -> {certs}/usr/share/ca-certificates/a.crt",
        "usr/share/ca-certificates/b.crt 644 \"b\"",
    ] {
        assert!(nodes.iter().any(|found| found == node), "{node}: {nodes:#?}");
    }
    assert!(!nodes.iter().any(|node| node.contains("other")), "{nodes:#?}");
}

/// `/lib` is looked into by its old name, whether the image has one or not.
#[test]
fn terminals_are_found_by_their_old_name() {
    let tinfo: &[(&str, &[(&str, &str)])] = &[
        ("ncurses", &[("usr/lib/terminfo/x/xterm", "")]),
        ("libtinfo", &[("usr/lib/x86_64-linux-gnu/libtinfo.so.6", "")]),
    ];
    let nodes = laid(&fixture(tinfo));
    assert_eq!(
        nodes,
        ["lib -> usr/lib", "usr/lib/terminfo -> {ncurses}/usr/lib/terminfo"]
    );
    let mut with_lib = fixture(tinfo);
    with_lib.content("more", &[("lib/x", "")]);
    let nodes = laid(&with_lib);
    assert!(
        nodes.contains(&"lib/terminfo -> /usr/lib/terminfo".to_owned()),
        "{nodes:#?}"
    );
}
