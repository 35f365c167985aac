//! Certificates of the spec's, in images whose scripts did not add them.

use super::*;
use crate::spec::{Certificates, OwnCertificate};

const AUTHORITY: &str = include_str!("../../../fixtures/workloads/tls/ca.pem");

const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

fn fixture(packages: &[(&str, &[(&str, &str)])]) -> Fixture {
    let mut fixture = Fixture::new();
    for (name, entries) in packages {
        fixture.package(name, entries);
    }
    let certificate = crate::certificate::parse(AUTHORITY).unwrap().remove(0);
    let file = "corp.pem".to_owned();
    fixture.spec.certificates = Some(Certificates {
        files: Vec::new(),
        own: BTreeMap::from([("corp".to_owned(), OwnCertificate { file, certificate })]),
    });
    fixture
}

/// What a path below `etc/ssl`, `usr/lib/ssl` or `usr/local` is.
fn laid(fixture: &Fixture) -> BTreeMap<String, String> {
    let own = AUTHORITY.escape_debug().to_string();
    let nodes = fixture.layout().unwrap();
    let of_ssl = nodes.iter().filter(|node| {
        ["etc/ssl", "usr/lib/ssl", "usr/local"]
            .iter()
            .any(|dir| node.starts_with(dir))
            && !node.ends_with("/ 755")
    });
    let parts = of_ssl.map(|node| {
        let (path, rest) = node.split_once(' ').unwrap();
        (path.to_owned(), rest.replace(&own, "OWN"))
    });
    parts.collect()
}

#[test]
fn they_are_added_to_the_bundle_that_is_there_and_else_are_one() {
    for (bundle, expected) in [
        (Some("1\n"), "644 \"1\\nOWN\""),
        (Some("1"), "644 \"1\\nOWN\""),
        (Some(""), "644 \"OWN\""),
        (None, "644 \"OWN\""),
        (Some(AUTHORITY), "644 \"OWN\""),
    ] {
        let entries: Vec<_> = bundle.iter().map(|text| (BUNDLE, *text)).collect();
        let entries: Vec<_> = entries.iter().copied().chain([("usr/bin/x", "")]).collect();
        let laid = laid(&fixture(&[("certs", &entries)]));
        assert_eq!(laid[BUNDLE], expected, "{bundle:?}");
        assert_eq!(laid["usr/local/share/ca-certificates/corp.crt"], "644 \"OWN\"");
        assert_eq!(laid["usr/lib/ssl/cert.pem"], "-> /etc/ssl/certs/ca-certificates.crt");
        assert_eq!(laid.len(), 3, "{laid:?}");
    }
}

#[test]
fn what_a_package_or_the_spec_has_of_its_own_stays() {
    let entries = [("usr/lib/ssl/cert.pem", "-> other"), (BUNDLE, "1\n")];
    let mut fixture = fixture(&[("openssl", &entries)]);
    assert_eq!(laid(&fixture)["usr/lib/ssl/cert.pem"], "-> other");
    fixture.file(&format!("/{BUNDLE}"), ImageFileKind::Text("mine".to_owned()));
    assert_eq!(laid(&fixture)[BUNDLE], "644 \"mine\"");
}

#[test]
fn a_bundle_that_is_joined_is_opened_up() {
    let mut fixture = fixture(&[]);
    fixture.content("certs", &[(BUNDLE, "1\n"), ("etc/ssl/certs/a.crt", "2")]);
    let laid = laid(&fixture);
    assert_eq!(laid[BUNDLE], "644 \"1\\nOWN\"");
    assert_eq!(laid["etc/ssl/certs/a.crt"], "-> {certs}/etc/ssl/certs/a.crt");
}

#[test]
fn without_any_of_ones_own_the_bundle_stays_as_it_is() {
    let mut fixture = fixture(&[("certs", &[(BUNDLE, "1")])]);
    fixture.spec.certificates = Some(Certificates::default());
    let laid = laid(&fixture);
    assert_eq!(laid[BUNDLE], "644 \"1\"");
    assert_eq!(laid.len(), 2, "{laid:?}");
}
