//! Verification summaries: golden, and refused unless they say that the wanted check was passed.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::documents::golden;
use crate::attest::*;
use crate::digest::Digest;

fn facts() -> BuildFacts {
    BuildFacts {
        spec: BTreeMap::from([("layerize.toml".to_owned(), Digest::of(b"spec"))]),
        lock: Some(Digest::of(b"lock")),
        options: serde_json::Map::new(),
        tests: BTreeMap::new(),
    }
}

fn rebuilt(digest: Digest, build: &BuildFacts) -> Vec<u8> {
    let facts = RebuildFacts {
        digest,
        name: "registry.example/team/hello",
        architecture: "amd64",
        time: 951_868_799,
        build,
    };
    summary(&facts).unwrap()
}

#[test]
fn a_summary_has_one_text() {
    golden("small.vsa.json", &rebuilt(Digest::of(b"image"), &facts()));
    // Without a spec, as of store paths, it says of what nothing.
    let text: Value = serde_json::from_slice(&rebuilt(Digest::of(b"image"), &BuildFacts::default())).unwrap();
    assert_eq!(text["predicate"][REBUILD_POLICY], json!({ "spec": [] }));
}

#[test]
fn a_time_that_cannot_be_written_is_an_error() {
    let facts = RebuildFacts {
        digest: Digest::of(b"image"),
        name: "x",
        architecture: "amd64",
        time: i64::MAX,
        build: &BuildFacts::default(),
    };
    assert!(summary(&facts).unwrap_err().help().is_some());
}

/// Two keys that signed the same statement, and the wish for either.
fn keys(dir: &Path) -> (Vec<PrivateKey>, Vec<PublicKey>) {
    let pair = |name: &str| {
        let (private, public) = generate(KeyKind::Ed25519, &dir.join(name)).unwrap();
        (PrivateKey::read(&private).unwrap(), PublicKey::read(&public).unwrap())
    };
    ["a", "b"].map(pair).into_iter().unzip()
}

#[test]
fn only_a_passed_check_by_the_wanted_policy_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (private, public) = keys(dir.path());
    let image = Digest::of(b"image");
    let wanted = |policy| ExpectedStatement {
        image,
        keys: &public,
        predicate: Some(SUMMARY_TYPE),
        policy,
    };
    let statement: Value = serde_json::from_slice(&rebuilt(image, &facts())).unwrap();
    let changed = |pointer: &str, value: Value| {
        let mut changed = statement.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        sign(&serde_json::to_vec(&changed).unwrap(), &private[1]).unwrap()
    };
    let own = changed("/predicate/slsaVersion", json!("1.0"));
    assert_eq!(verify(&own, &wanted(Some(REBUILD_POLICY))).unwrap().key, 1);
    let other = json!("https://example.org/licences");
    for (pointer, value, reason) in [
        (
            "/predicate/verificationResult",
            json!("FAILED"),
            "whose result is `FAILED`",
        ),
        (
            "/predicate/verificationResult",
            json!("passed"),
            "whose result is `passed`",
        ),
        ("/predicate/verificationResult", Value::Null, "it is not a bundle"),
        (
            "/predicate/policy/uri",
            other.clone(),
            "a check by another policy, `https://example.org/licences`",
        ),
        ("/predicate/policy", json!({}), "missing field `uri`"),
        ("/predicate", json!([]), "it is not a bundle"),
        (
            "/predicateType",
            json!("https://slsa.dev/provenance/v1"),
            "it states `https://slsa.dev/provenance/v1`",
        ),
        (
            "/subject/0/digest/sha256",
            json!(Digest::of(b"other").hex()),
            "another image",
        ),
    ] {
        let rejection = verify(&changed(pointer, value), &wanted(Some(REBUILD_POLICY))).unwrap_err();
        assert!(rejection.to_string().contains(reason), "{pointer}: {rejection}");
    }
    // Whoever names another policy, or none, gets what they ask for; a failed check counts for nobody.
    let licences = changed("/predicate/policy/uri", other);
    verify(&licences, &wanted(Some("https://example.org/licences"))).unwrap();
    verify(&licences, &wanted(None)).unwrap();
    let failed = changed("/predicate/verificationResult", json!("FAILED"));
    assert!(matches!(verify(&failed, &wanted(None)), Err(Rejection::Result(_))));
    let any = ExpectedStatement {
        predicate: None,
        ..wanted(None)
    };
    assert!(matches!(verify(&failed, &any), Err(Rejection::Result(_))));
}
