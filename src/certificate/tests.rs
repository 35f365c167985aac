//! Texts that hold certificates, and those that do not.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};

use super::*;

const AUTHORITY: &str = include_str!("../../fixtures/workloads/tls/ca.pem");

fn only(text: &str) -> CertificateError {
    let mut errors = parse(text).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

/// A certificate that an authority signed, and one that signed itself; `is_ca`: whether it is to be an authority's.
fn made(is_ca: bool) -> [String; 2] {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "An \u{1b}[31m Org");
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    }
    let key = KeyPair::generate().unwrap();
    [
        params.signed_by(&key, &authority).unwrap().pem(),
        params.self_signed(&key).unwrap().pem(),
    ]
}

#[test]
fn a_certificate_tells_whose_it_is_and_until_when() {
    let found = parse(AUTHORITY).unwrap();
    let [certificate] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(certificate.subject, "layerize test authority");
    assert_eq!(certificate.not_after, "2120-01-01T00:00:00Z");
    assert!(certificate.is_anchor);
    assert_eq!(certificate.pem(), AUTHORITY);
}

#[test]
fn only_an_authority_or_who_signs_itself_is_an_anchor() {
    let anchors = |is_ca| made(is_ca).map(|text| parse(&text).unwrap()[0].is_anchor);
    assert_eq!(anchors(true), [true, true]);
    assert_eq!(anchors(false), [false, true]);
    let shown = &parse(&made(false)[0]).unwrap()[0].subject;
    assert!(shown.ends_with("Org") && !shown.contains('\u{1b}'), "{shown}");
}

#[test]
fn what_stands_around_certificates_changes_nothing() {
    let [other, _] = made(true);
    let plain = parse(&format!("{AUTHORITY}{other}")).unwrap();
    assert_eq!(plain.len(), 2);
    let windows = format!(
        "\u{feff}subject=CN = a\r\n{}# b\r\n\r\n{}",
        AUTHORITY.replace('\n', "\r\n"),
        other.replace('\n', "\r\n")
    );
    let indented = format!("{}{}", AUTHORITY.replace('\n', "\n  "), other.trim_end());
    let older = format!("{AUTHORITY}{other}").replace("CERTIFICATE", "X509 CERTIFICATE");
    for text in [windows, indented, older] {
        assert_eq!(parse(&text).unwrap(), plain, "{text}");
    }
}

#[test]
fn a_private_key_is_refused_wherever_it_stands() {
    for kind in ["", "RSA ", "EC ", "ENCRYPTED ", "OPENSSH "] {
        let key = format!("-----BEGIN {kind}PRIVATE KEY-----\nc2VjcmV0\n-----END {kind}PRIVATE KEY-----\n");
        let first_line = format!("-----BEGIN {kind}PRIVATE KEY-----");
        for text in [
            format!("{AUTHORITY}{key}"),
            format!("{key}{AUTHORITY}"),
            key.clone(),
            first_line.clone(),
        ] {
            let error = only(&text);
            assert!(error.what.starts_with("a private key"), "{error:?}");
            assert_eq!(&text[error.range], first_line);
        }
    }
}

#[test]
fn what_is_not_a_certificate_is_told_with_a_way_out() {
    let line = AUTHORITY.lines().nth(2).unwrap();
    let begin = "-----BEGIN CERTIFICATE-----\n";
    for (text, what, help) in [
        (String::new(), "it is empty", "PEM form"),
        (" \n\n".to_owned(), "it is empty", "PEM form"),
        ("hello\n".to_owned(), "it holds no certificate", "openssl x509 -in"),
        (AUTHORITY.replace(line, ""), "it is damaged", "get the file again"),
        (
            AUTHORITY.replace(line, &line[1..]),
            "it is damaged",
            "get the file again",
        ),
        (AUTHORITY.replace(line, "!"), "it is damaged", "get the file again"),
        (
            format!("{begin}AAAA\n-----END CERTIFICATE-----"),
            "what is in it is no certificate",
            "get the file again",
        ),
        (
            format!("{begin}-----END CERTIFICATE-----"),
            "what is in it is no certificate",
            "get the file again",
        ),
        (
            AUTHORITY.replace("-----END CERTIFICATE-----", ""),
            "it is cut off",
            "as a whole",
        ),
        (
            AUTHORITY.replace("-----END CERTIFICATE-----", "-----END X-----"),
            "it is cut off",
            "as a whole",
        ),
        (begin.to_owned(), "it is cut off", "as a whole"),
        (
            "-----END CERTIFICATE-----".to_owned(),
            "ends what did not begin",
            "as a whole",
        ),
        (
            format!("-----BEGIN CERTIFICATE\n{AUTHORITY}"),
            "not a line that begins",
            "-----BEGIN CERTIFICATE-----",
        ),
        (
            AUTHORITY.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
            "trusted certificate",
            "openssl x509",
        ),
        (
            AUTHORITY.replace("CERTIFICATE", "CERTIFICATE REQUEST"),
            "certificate request",
            "take it out",
        ),
        (AUTHORITY.replace("CERTIFICATE", "PKCS7"), "pkcs7", "-print_certs"),
        (
            AUTHORITY.replace("CERTIFICATE", "A\u{1b}B"),
            "not a certificate",
            "take it out",
        ),
    ] {
        let error = only(&text);
        assert!(error.what.contains(what), "{text}: {error:?}");
        assert!(error.help.contains(help), "{text}: {error:?}");
        assert!(!error.what.contains('\u{1b}'), "{error:?}");
        let _ = &text[error.range];
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let cut = AUTHORITY.replace("-----END CERTIFICATE-----\n", "");
    let errors = parse(&format!("{cut}{AUTHORITY}{cut}")).unwrap_err();
    assert_eq!(errors.len(), 2, "{errors:?}");
}

#[test]
fn times_of_both_kinds_are_read() {
    for (tag, text, expected) in [
        (UTC_TIME, "491231235959Z", Some("2049-12-31T23:59:59Z")),
        (UTC_TIME, "500101000000Z", Some("1950-01-01T00:00:00Z")),
        (GENERALIZED_TIME, "21200101000000Z", Some("2120-01-01T00:00:00Z")),
        (GENERALIZED_TIME, "20340101000000+0100", None),
        (UTC_TIME, "4912312359Z", None),
        (UTC_TIME, "49123123595xZ", None),
        (SEQUENCE, "491231235959Z", None),
    ] {
        assert_eq!(time((tag, text.as_bytes())).as_deref(), expected, "{text}");
    }
}

/// As OpenSSL reads it.
#[test]
fn every_authority_of_debian_is_read_as_openssl_reads_it() {
    let bundle = std::path::Path::new("/etc/ssl/certs/ca-certificates.crt");
    if !crate::testing::oracle("openssl") || !bundle.is_file() {
        return;
    }
    let text = std::fs::read_to_string(bundle).unwrap();
    let found = parse(&text).unwrap();
    assert_eq!(found.len(), text.matches("-----BEGIN CERTIFICATE-----").count());
    assert!(found.iter().all(|certificate| certificate.is_anchor));
    let file = tempfile::NamedTempFile::new().unwrap();
    for certificate in found.iter().step_by(9) {
        std::fs::write(file.path(), certificate.pem()).unwrap();
        let place = file.path().to_str().unwrap();
        let said = crate::testing::output(
            "openssl",
            &[
                "x509",
                "-in",
                place,
                "-noout",
                "-fingerprint",
                "-sha256",
                "-enddate",
                "-dateopt",
                "iso_8601",
            ],
        );
        let fingerprint = said
            .lines()
            .next()
            .unwrap()
            .rsplit('=')
            .next()
            .unwrap()
            .replace(':', "");
        assert_eq!(fingerprint.to_lowercase(), certificate.digest().hex());
        let until = said
            .lines()
            .nth(1)
            .unwrap()
            .trim_start_matches("notAfter=")
            .replace(' ', "T");
        assert_eq!(until, certificate.not_after);
    }
}
