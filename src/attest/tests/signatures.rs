//! Signatures: made, checked, and refused for the right reason; OpenSSL has the same opinion.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::attest::dsse::pae;
use crate::attest::*;
use crate::digest::Digest;
use crate::oci::Subject;
use crate::transport::testing::{oracle, run};

fn keys(dir: &Path, kind: KeyKind, name: &str) -> (PrivateKey, PublicKey, PathBuf, PathBuf) {
    let (private, public) = generate(kind, &dir.join(name)).unwrap();
    let pair = (PrivateKey::read(&private).unwrap(), PublicKey::read(&public).unwrap());
    assert_eq!(pair.0.public(), pair.1);
    (pair.0, pair.1, private, public)
}

fn image() -> Digest {
    Digest::of(b"image")
}

fn signed(key: &PrivateKey) -> Vec<u8> {
    sign(&statement(&image(), SIGNATURE_PREDICATE, &json!({})), key).unwrap()
}

/// Checks a bundle against one key.
fn checked(bundle: &[u8], key: &PublicKey, predicate: Option<&str>) -> Result<Verified, Rejection> {
    let wanted = ExpectedStatement {
        image: image(),
        keys: std::slice::from_ref(key),
        predicate,
        policy: None,
    };
    verify(bundle, &wanted)
}

#[test]
fn what_was_signed_is_verified_with_its_own_key_alone() {
    let dir = tempfile::tempdir().unwrap();
    for kind in [KeyKind::Ed25519, KeyKind::P256] {
        let (key, public, ..) = keys(dir.path(), kind, &format!("{kind:?}"));
        let (_, other, ..) = keys(dir.path(), kind, &format!("{kind:?}-other"));
        let bundle = signed(&key);
        let verified = checked(&bundle, &public, Some(SIGNATURE_PREDICATE)).unwrap();
        assert_eq!(verified.predicate_type, SIGNATURE_PREDICATE);
        assert_eq!(verified.statement, statement(&image(), SIGNATURE_PREDICATE, &json!({})));
        assert!(matches!(checked(&bundle, &other, None), Err(Rejection::OtherKey(_))));
        assert_eq!(
            signed(&key) == bundle,
            kind == KeyKind::Ed25519,
            "Ed25519 alone is deterministic"
        );
    }
}

/// A key that never changes, so that what it signs never does.
#[test]
fn a_bundle_has_one_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fixed.key");
    let der = [
        &[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..],
        &[7; 32],
    ]
    .concat();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(der)
    );
    std::fs::write(&path, pem).unwrap();
    let bundle = signed(&PrivateKey::read(&path).unwrap());
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/attest/signature.sigstore.json");
    if !fixture.exists() {
        std::fs::write(&fixture, &bundle).unwrap();
    }
    assert_eq!(bundle, std::fs::read(fixture).unwrap());
}

#[test]
fn every_damage_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (key, public, ..) = keys(dir.path(), KeyKind::Ed25519, "key");
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let text = String::from_utf8(signed(&key)).unwrap();
    let twice = text.replacen('{', r#"{"mediaType":"x","#, 1);
    let mut damages = vec![
        (String::new(), "it is not a bundle"),
        ("[]".to_owned(), "it is not a bundle"),
        (deep, "it is not a bundle"),
        (twice, "it is not a bundle"),
    ];
    damages.extend(changed(&key));
    damages.extend(foreign(&key));
    for (damaged, reason) in damages {
        let result = checked(damaged.as_bytes(), &public, Some(SIGNATURE_PREDICATE));
        match (result, reason) {
            (Ok(_), "") => {}
            (Err(rejection), reason) if !reason.is_empty() && rejection.to_string().contains(reason) => {}
            (result, _) => panic!("`{reason}` was expected: {result:?}"),
        }
    }
}

/// A bundle in which one value was replaced after it was signed, with the reason to refuse it; none where it may be.
fn changed(key: &PrivateKey) -> Vec<(String, &'static str)> {
    let bundle: Value = serde_json::from_slice(&signed(key)).unwrap();
    let one = &bundle["dsseEnvelope"]["signatures"][0];
    let base64 = |text: &str| Value::from(STANDARD.encode(text));
    let cases = [
        ("/mediaType", json!("text/html"), "media type is `text/html`"),
        (
            "/verificationMaterial",
            json!({ "certificate": {} }),
            "with a certificate",
        ),
        ("/verificationMaterial/publicKey/hint", json!("bm9uZQ=="), ""),
        ("/dsseEnvelope", Value::Null, "no DSSE envelope"),
        ("/dsseEnvelope/signatures", json!([]), "not exactly one signature"),
        (
            "/dsseEnvelope/signatures",
            json!([one, one]),
            "not exactly one signature",
        ),
        ("/dsseEnvelope/signatures/0/sig", json!("!"), "signature is not base64"),
        ("/dsseEnvelope/signatures/0/sig", base64("short"), "does not match"),
        ("/dsseEnvelope/payload", json!("!"), "payload is not base64"),
        ("/dsseEnvelope/payload", base64("{}"), "does not match"),
        (
            "/dsseEnvelope/payloadType",
            json!("text/plain"),
            "payload is `text/plain`",
        ),
    ];
    let cases = cases.into_iter().map(|(place, value, reason)| {
        let mut bundle = bundle.clone();
        *bundle.pointer_mut(place).unwrap() = value;
        (bundle.to_string(), reason)
    });
    cases.collect()
}

/// Bundles with right signatures over something else.
fn foreign(key: &PrivateKey) -> Vec<(String, &'static str)> {
    let in_toto = "application/vnd.in-toto+json";
    let other = statement(&Digest::of(b"other"), SIGNATURE_PREDICATE, &json!({}));
    let predicate = statement(&image(), "https://x.invalid/p", &json!({}));
    let cases = [
        ("text/plain", &b"x"[..], "payload is `text/plain`"),
        (in_toto, b"x", "it is not a bundle"),
        (
            in_toto,
            br#"{"_type":"other","subject":[],"predicateType":"x"}"#,
            "`_type` is `other`",
        ),
        (in_toto, &other, "another image"),
        (in_toto, &predicate, "it states `https://x.invalid/p`"),
    ];
    let cases = cases.into_iter().map(|(payload_type, payload, reason)| {
        let mut bundle: Value = serde_json::from_slice(&signed(key)).unwrap();
        let signature = key.sign(&pae(payload_type, payload)).unwrap();
        bundle["dsseEnvelope"] = json!({
            "payload": STANDARD.encode(payload),
            "payloadType": payload_type,
            "signatures": [{ "sig": STANDARD.encode(signature) }],
        });
        (bundle.to_string(), reason)
    });
    cases.collect()
}

#[test]
fn bundles_of_others_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (key, public, ..) = keys(dir.path(), KeyKind::P256, "key");
    // As cosign writes: a key identifier, URL-safe base64 without padding, unknown fields.
    let mut bundle: Value = serde_json::from_slice(&signed(&key)).unwrap();
    bundle["dsseEnvelope"]["signatures"][0]["keyid"] = json!("");
    bundle["verificationMaterial"]["tlogEntries"] = json!([]);
    let payload = STANDARD
        .decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap())
        .unwrap();
    let url_safe = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(payload);
    bundle["dsseEnvelope"]["payload"] = json!(url_safe);
    checked(&serde_json::to_vec(&bundle).unwrap(), &public, None).unwrap();
}

#[test]
fn openssl_agrees_on_keys_and_signatures() {
    if !oracle("openssl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let message = dir.path().join("message");
    let signature = dir.path().join("signature");
    let openssl = |args: &[&str]| run(Command::new("openssl").args(args).current_dir(dir.path()));
    for kind in [KeyKind::Ed25519, KeyKind::P256] {
        let (key, public, private_file, public_file) = keys(dir.path(), kind, &format!("{kind:?}"));
        let private_file = private_file.to_str().unwrap();
        let public_file = public_file.to_str().unwrap();
        let derived = openssl(&["pkey", "-in", private_file, "-pubout"]);
        assert_eq!(String::from_utf8(derived.stdout).unwrap(), public.pem());
        // What we sign OpenSSL verifies: the envelope's pre-authentication encoding.
        let bundle: Value = serde_json::from_slice(&signed(&key)).unwrap();
        let part = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
        let payload = part(&bundle["dsseEnvelope"]["payload"]);
        std::fs::write(&message, pae("application/vnd.in-toto+json", &payload)).unwrap();
        std::fs::write(&signature, part(&bundle["dsseEnvelope"]["signatures"][0]["sig"])).unwrap();
        let raw: &[&str] = match kind {
            KeyKind::Ed25519 => &["-rawin"],
            KeyKind::P256 => &["-rawin", "-digest", "sha256"],
        };
        let verify = [
            "pkeyutl",
            "-verify",
            "-pubin",
            "-inkey",
            public_file,
            "-in",
            "message",
            "-sigfile",
            "signature",
        ];
        openssl(&[&verify[..], raw].concat());
        // What OpenSSL signs we verify, with a key that OpenSSL made.
        let theirs = format!("theirs-{kind:?}.key");
        match kind {
            KeyKind::Ed25519 => openssl(&["genpkey", "-algorithm", "ed25519", "-out", &theirs]),
            KeyKind::P256 => openssl(&[
                "genpkey",
                "-algorithm",
                "EC",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-out",
                &theirs,
            ]),
        };
        openssl(&["pkey", "-in", &theirs, "-pubout", "-out", "theirs.pub"]);
        let sign = [
            "pkeyutl",
            "-sign",
            "-inkey",
            &theirs,
            "-in",
            "message",
            "-out",
            "signature",
        ];
        openssl(&[&sign[..], raw].concat());
        let public = PublicKey::read(&dir.path().join("theirs.pub")).unwrap();
        let bytes = std::fs::read(&message).unwrap();
        assert!(public.verifies(&bytes, &std::fs::read(&signature).unwrap()));
        assert!(!public.verifies(&bytes[1..], &std::fs::read(&signature).unwrap()));
        assert_eq!(PrivateKey::read(&dir.path().join(&theirs)).unwrap().public(), public);
    }
}

#[test]
fn files_that_are_no_keys_are_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, private, public) = keys(dir.path(), KeyKind::Ed25519, "key");
    let refused = |text: &str| {
        let path = dir.path().join("file");
        std::fs::write(&path, text).unwrap();
        PrivateKey::read(&path).err().unwrap()
    };
    for (text, reason) in [
        ("", "not a PEM file"),
        ("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n", "encrypted"),
        ("-----BEGIN EC PRIVATE KEY-----\n", "SEC 1"),
        ("-----BEGIN CERTIFICATE-----\n", "something else"),
        ("-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n", "base64"),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "neither an Ed25519",
        ),
    ] {
        let error = refused(text);
        assert!(error.to_string().contains(reason), "{error}");
    }
    assert!(
        refused("-----BEGIN EC PRIVATE KEY-----\n")
            .help()
            .unwrap()
            .contains("openssl pkcs8")
    );
    let swapped = PublicKey::read(&private).unwrap_err();
    assert!(swapped.to_string().contains("it is a private key") && swapped.help().is_some());
    assert!(PrivateKey::read(&public).err().unwrap().help().is_some());
    // A pair is never overwritten, not by half either.
    assert!(matches!(
        generate(KeyKind::P256, &dir.path().join("key")),
        Err(AttestError::Exists { .. })
    ));
    std::fs::remove_file(&private).unwrap();
    assert!(matches!(
        generate(KeyKind::P256, &dir.path().join("key")),
        Err(AttestError::Exists { .. })
    ));
    assert!(!private.exists());
}

#[test]
fn a_private_key_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (_, _, private, public) = keys(dir.path(), KeyKind::P256, "key");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&private), 0o600);
    assert_eq!(mode(&public) & 0o600, 0o600);
}

#[test]
fn documents_are_known_by_what_is_in_them() {
    let dir = tempfile::tempdir().unwrap();
    let (key, ..) = keys(dir.path(), KeyKind::Ed25519, "key");
    let statement = statement(&image(), PROVENANCE_TYPE, &json!({}));
    let subject = Subject {
        media_type: crate::oci::MediaType::MANIFEST.to_owned(),
        digest: image(),
        size: 5,
    };
    for (document, kind, media_type, annotation) in [
        (
            br#"{"spdxVersion":"SPDX-2.3"}"#.to_vec(),
            AttachmentKind::Spdx,
            "application/spdx+json",
            None,
        ),
        (
            br#"{"bomFormat":"CycloneDX"}"#.to_vec(),
            AttachmentKind::CycloneDx,
            "application/vnd.cyclonedx+json",
            None,
        ),
        (
            statement.clone(),
            AttachmentKind::Statement(PROVENANCE_TYPE.to_owned()),
            "application/vnd.in-toto+json",
            Some(("in-toto.io/predicate-type", PROVENANCE_TYPE)),
        ),
        (
            sign(&statement, &key).unwrap(),
            AttachmentKind::Bundle(Some(PROVENANCE_TYPE.to_owned())),
            BUNDLE_TYPE,
            Some(("dev.sigstore.bundle.predicateType", PROVENANCE_TYPE)),
        ),
    ] {
        assert_eq!(kind_of(&document), Some(kind.clone()));
        let artifact = artifact(&kind, document, subject.clone(), "file");
        assert_eq!(artifact.artifact_type, media_type);
        if let Some((key, value)) = annotation {
            assert_eq!(artifact.annotations[key], value);
        }
    }
    for document in [&b"{}"[..], b"", b"[1]", br#"{"_type":"x"}"#] {
        assert_eq!(kind_of(document), None);
    }
}

proptest::proptest! {
    /// Whatever is read ends in an answer.
    #[test]
    fn no_bundle_makes_the_reader_panic(text in r#"(\{|\}|\[|\]|"[a-zA-Z]{0,9}"|:|,|[0-9]{1,3}|null|.){0,60}"#) {
        let dir = tempfile::tempdir().unwrap();
        let public = dir.path().join("key.pub");
        std::fs::write(&public, "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA6kpsY+KcUgq+9VB7Ey7F+ZVHaq7+viVmsHlj7WIzS1E=\n-----END PUBLIC KEY-----\n").unwrap();
        let public = PublicKey::read(&public).unwrap();
        proptest::prop_assert!(checked(text.as_bytes(), &public, None).is_err());
        let _ = kind_of(text.as_bytes());
        let _ = Statement::parse(text.as_bytes());
    }
}
