//! Bills of materials, provenance and signatures: made, attached, checked, and judged by the official validators.

mod attached;
mod rebuilders;

use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use layerize::attest::BUNDLE_TYPE;
use layerize::digest::Digest;
use layerize::oci::{Artifact, MediaType, Subject};
use serde_json::{Value, json};

use crate::crafted::{Crafted, memory_is_bounded};
use crate::support::{Place, have, peer};

/// An image of files, for which nothing is built.
fn with_files() -> Place {
    let place = Place::new();
    place.write("conf/app.conf", "conf\n").write(
        "layerize.toml",
        "[package.data]\nversion = \"1.2\"\nsource = \"conf\"\n\n[image.\"team/app\"]\ncontents = [\"data\"]\n\
         files = { \"/etc/motd\" = \"conf/app.conf\" }\n",
    );
    place
}

fn parsed(bytes: impl AsRef<[u8]>) -> Value {
    serde_json::from_slice(bytes.as_ref()).unwrap()
}

fn read(place: &Place, path: &str) -> Vec<u8> {
    fs::read(place.project.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn digest_of(line: &str) -> &str {
    line.split(' ').next().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "where scripts/setup keeps the validators")]
fn venv() -> Option<PathBuf> {
    let of = |name| std::env::var_os(name).map(PathBuf::from);
    let venv = of("LAYERIZE_TEST_VENV").or_else(|| {
        let cache = of("XDG_CACHE_HOME").or_else(|| Some(of("HOME")?.join(".cache")))?;
        Some(cache.join("layerize-tests/venv"))
    })?;
    let probe = "import cyclonedx, spdx_tools, in_toto_attestation, securesystemslib";
    have(venv.join("bin/python").to_str()?, &["-c", probe]).then_some(venv)
}

/// The official validators, and the other implementations of package URLs and DSSE.
const VALIDATE: &str = r#"
import base64, json, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.predicates.vsa.v1 import vsa_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from packageurl import PackageURL
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

def purls(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("purl", "referenceLocator"):
                yield inner
            yield from purls(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from purls(inner)

def dsse(bundle, public):
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey
    key = SSlibKey.from_crypto(load_pem_public_key(open(public, "rb").read()))
    envelope = json.load(open(bundle))["dsseEnvelope"]
    for signature in envelope["signatures"]:
        signature["keyid"] = key.keyid
    Envelope.from_dict(envelope).verify([key], 1)

def vsa(document):
    statement = json_format.ParseDict(document, statement_pb2.Statement())
    Statement.copy_from_pb(statement).validate()
    assert document["predicateType"] == "https://slsa.dev/verification_summary/v1"
    predicate = document["predicate"]
    # The proto has the levels as one string, where the specification has a list.
    levels = predicate.pop("verifiedLevels")
    assert levels and not any(level.startswith("SLSA_") for level in levels), levels
    summary = json_format.ParseDict(predicate, vsa_pb2.VerificationSummary(), ignore_unknown_fields=True)
    assert summary.verifier.id and summary.policy.uri and summary.time_verified.seconds
    assert summary.verification_result == "PASSED" and summary.slsa_version
    PackageURL.from_string(summary.resource_uri)

def check(kind, path, key=None):
    document = json.load(open(path))
    if kind == "spdx":
        messages = validate_full_spdx_document(parse_file(path))
        assert not messages, [message.validation_message for message in messages]
    elif kind == "cyclonedx":
        error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(path).read())
        assert error is None, error
    elif kind == "provenance":
        statement = json_format.ParseDict(document, statement_pb2.Statement())
        Statement.copy_from_pb(statement).validate()
        predicate = json_format.ParseDict(document["predicate"], provenance_pb2.Provenance())
        assert predicate.build_definition.build_type and predicate.run_details.builder.id
    elif kind == "dsse":
        dsse(path, key)
    elif kind == "vsa":
        vsa(document)
    found = list(purls(document))
    assert kind in ("provenance", "dsse", "vsa") or found
    for purl in found:
        assert PackageURL.from_string(purl).to_string() == purl, purl

for argument in sys.argv[1:]:
    check(*argument.split("="))
"#;

/// Has files judged, each `KIND=FILE` or `dsse=FILE=KEY`; all at once, because Python takes its time to start.
pub fn validate(place: &Place, documents: &[&str]) {
    if let Some(venv) = venv() {
        let mut python = Command::new(venv.join("bin/python"));
        peer(
            python
                .args(["-c", VALIDATE])
                .args(documents)
                .current_dir(&place.project),
        );
    }
}

#[test]
fn documents_are_attached_or_beside_and_no_digest_knows_of_them() {
    let place = with_files();
    let plain = place.run(&["build", "-o", "oci:plain:v1"]).success();
    let digest = digest_of(plain.line()).to_owned();
    let documents = ["--sbom", "spdx,cyclonedx", "--provenance"];
    let everything = [
        &["build", "-o", "oci:layout:v1", "--attach", "--beside"][..],
        &documents,
    ]
    .concat();
    let built = place.run(&everything).success();
    let lines: Vec<&str> = built.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{}", built.stdout);
    assert_eq!(digest_of(lines[0]), digest, "the documents changed the image");
    for (suffix, kind) in [
        ("spdx", "application/spdx+json"),
        ("cdx", "application/vnd.cyclonedx+json"),
        ("provenance", "application/vnd.in-toto+json"),
    ] {
        let document = read(&place, &format!("app.{suffix}.json"));
        let blob = format!("layout/blobs/sha256/{}", Digest::of(&document).hex());
        assert_eq!(read(&place, &blob), document, "the very bytes are attached");
        assert!(lines.iter().any(|line| line.contains(kind)), "{}", built.stdout);
        assert!(String::from_utf8(document).unwrap().contains(&digest[7..]));
    }
    let judged = [
        "spdx=app.spdx.json",
        "cyclonedx=app.cdx.json",
        "provenance=app.provenance.json",
    ];
    validate(&place, &judged);
    let provenance = parsed(read(&place, "app.provenance.json"));
    let inputs = provenance["predicate"]["buildDefinition"]["resolvedDependencies"].to_string();
    assert!(
        inputs.contains(&format!(
            "{{\"digest\":{{\"sha256\":\"{}\"}},\"name\":\"/etc/motd\"}}",
            Digest::of(b"conf\n").hex()
        )),
        "{inputs}"
    );
    assert!(inputs.contains("narSha256"), "the local source is an input: {inputs}");
    // A second time nothing changes, and the layout still holds one image.
    let index = read(&place, "layout/index.json");
    place.run(&everything).success();
    assert!(read(&place, "layout/index.json") == index, "the layout changed");
    assert_eq!(place.inspect("oci:layout")["digest"], digest.as_str());
    place.run(&["verify", "oci:layout"]).success();
    // The same documents come of the same image elsewhere, on a day that is said to be another.
    let elsewhere = with_files();
    elsewhere.run(&[&["build"][..], &documents].concat()).success();
    assert!(elsewhere.project.join("app.tar").exists());
    for suffix in ["spdx", "cdx", "provenance"] {
        let name = format!("app.{suffix}.json");
        assert_eq!(read(&elsewhere, &name), read(&place, &name), "{name}");
    }
}

#[test]
fn other_tools_still_read_a_layout_with_documents() {
    let place = with_files();
    let build = ["build", "-o", "oci:layout:v1", "--attach", "--sbom", "spdx"];
    let built = place.run(&build).success();
    let digest = digest_of(built.stdout.lines().next().unwrap()).to_owned();
    let artifact = digest_of(built.stdout.lines().nth(1).unwrap()).to_owned();
    let run = |program: &str, args: &[&str]| peer(Command::new(program).args(args).current_dir(&place.project));
    if have("skopeo", &["--version"]) {
        let seen = run("skopeo", &["inspect", "--format", "{{.Digest}}", "oci:layout:v1"]);
        assert_eq!(seen.stdout.trim(), digest);
        run("skopeo", &["copy", "--insecure-policy", "oci:layout:v1", "oci:copy:v1"]);
    }
    if have("umoci", &["--version"]) {
        let listed = run("umoci", &["list", "--layout", "layout"]);
        assert!(listed.stdout.lines().any(|line| line == "v1"), "{}", listed.stdout);
        run("umoci", &["stat", "--image", "layout:v1"]);
        run("umoci", &["gc", "--layout", "layout"]);
        let kept = place.project.join("layout/blobs/sha256").join(&artifact[7..]);
        assert!(kept.exists(), "umoci takes the artifact for garbage");
    }
    // What finds artifacts without reading all of an index reads the list under the fallback tag.
    let index = parsed(read(&place, "layout/index.json"));
    let tag = format!("sha256-{}", &digest[7..]);
    let entries = index["manifests"].as_array().unwrap();
    let list = entries
        .iter()
        .find(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] == tag.as_str())
        .unwrap();
    let list = parsed(read(
        &place,
        &format!("layout/blobs/{}", list["digest"].as_str().unwrap().replace(':', "/")),
    ));
    assert_eq!(list["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(list["manifests"][0]["digest"], artifact.as_str());
    assert_eq!(list["manifests"][0]["artifactType"], "application/spdx+json");
}

/// The values of a key in the components of a CycloneDX document.
fn components(document: &Value, key: &str) -> BTreeSet<String> {
    let components = document["components"].as_array().unwrap().iter();
    components
        .map(|component| component[key].as_str().unwrap().to_owned())
        .collect()
}

/// Debian packages at their store paths, and laid out at `/`.
#[test]
fn documents_list_exactly_the_closure() {
    let place = Place::new();
    place.write(
        "layerize.toml",
        "[image.tool]\ncontents = [\"deb:gzip\"]\nutf-8 = false\n\n\
         [image.rooted]\nroot = [\"deb:gzip\"]\nutf-8 = false\n",
    );
    place
        .run(&["build", "--quiet", "--sbom", "spdx,cyclonedx", "--provenance"])
        .success();
    let closure = place.run(&["closure", "tool"]).success().stdout;
    let paths = closure.lines().filter_map(|line| line.split('\t').next());
    let closure: BTreeSet<String> = paths.map(str::to_owned).collect();
    assert!(closure.len() > 1, "gzip needs the C library: {closure:?}");
    let tool = parsed(read(&place, "tool.cdx.json"));
    assert_eq!(components(&tool, "bom-ref"), closure);
    let spdx = parsed(read(&place, "tool.spdx.json"));
    let packages = spdx["packages"].as_array().unwrap().iter();
    let installed: BTreeSet<String> = packages
        .filter(|package| package["primaryPackagePurpose"] == "INSTALL")
        .map(|package| {
            package["comment"]
                .as_str()
                .unwrap()
                .split(';')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(installed, closure);
    gzip_is_described(&tool);
    packages_at_the_root_are_listed(&place);
    // Every locked package that the image takes in is a dependency of its provenance.
    let provenance = String::from_utf8(read(&place, "tool.provenance.json")).unwrap();
    let hashes = tool["components"].as_array().unwrap().iter();
    for hash in hashes.map(|found| &found["externalReferences"][0]["hashes"][0]["content"]) {
        assert!(provenance.contains(hash.as_str().unwrap()));
    }
    a_finished_image_is_described_in_part(&place, &tool);
    // An image of store paths knows its packages by what the store recorded.
    let paths: Vec<&str> = closure.iter().map(String::as_str).collect();
    let args = [&["sbom", "--name", "again", "--format", "cyclonedx"][..], &paths].concat();
    let again = parsed(place.run(&args).success().stdout);
    assert_eq!(components(&again, "purl"), components(&tool, "purl"));
    let judged = ["tool", "rooted", "partial"].map(|name| format!("spdx={name}.spdx.json cyclonedx={name}.cdx.json"));
    let judged = judged.join(" ") + " provenance=tool.provenance.json provenance=rooted.provenance.json";
    validate(&place, &judged.split(' ').collect::<Vec<_>>());
}

fn gzip_is_described(tool: &Value) {
    let mut all = tool["components"].as_array().unwrap().iter();
    let gzip = all.find(|found| found["name"] == "gzip").unwrap();
    let purl = gzip["purl"].as_str().unwrap();
    assert!(purl.starts_with("pkg:deb/debian/gzip@"), "{purl}");
    assert!(purl.contains("?arch="), "{purl}");
    assert_eq!(gzip["externalReferences"][0]["hashes"][0]["alg"], "SHA-256");
    let needs = tool["dependencies"].as_array().unwrap().iter();
    let needs: Vec<&Value> = needs.filter(|found| found["ref"] == gzip["bom-ref"]).collect();
    assert!(needs[0]["dependsOn"].to_string().contains("-libc6-"), "{needs:?}");
}

/// At `/` the image itself says which packages it holds.
fn packages_at_the_root_are_listed(place: &Place) {
    let inspected = place.inspect("rooted.tar");
    let layers = inspected["layers"].as_array().unwrap().iter();
    let packages: BTreeSet<String> = layers
        .filter_map(|layer| layer["annotations"]["dev.layerize.packages"].as_str())
        .flat_map(|text| text.split(' '))
        .map(str::to_owned)
        .collect();
    let rooted = parsed(read(place, "rooted.cdx.json"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let listed = rooted["components"].as_array().unwrap().iter();
    let listed: BTreeSet<String> = listed
        .map(|found| format!("{}={}", text(&found["name"]), text(&found["version"])))
        .collect();
    assert_eq!(listed, packages);
}

/// What a finished image tells is less, and says so.
fn a_finished_image_is_described_in_part(place: &Place, tool: &Value) {
    for (format, suffix) in [("spdx", "spdx"), ("cyclonedx", "cdx")] {
        let name = format!("partial.{suffix}.json");
        let sbom = place.run(&["sbom", "tool.tar", "--format", format, "-o", &name]);
        sbom.success().says(&["annotations"]);
    }
    let partial = parsed(read(place, "partial.cdx.json"));
    assert_eq!(components(&partial, "bom-ref"), components(tool, "bom-ref"));
    assert_eq!(partial["compositions"][0]["aggregate"], "incomplete");
}

#[test]
fn a_key_vouches_for_an_image_and_for_documents() {
    let place = with_files();
    place
        .run(&[
            "build",
            "-q",
            "-o",
            "oci:layout:v1",
            "--sbom",
            "spdx",
            "--provenance",
            "--beside",
        ])
        .success();
    for kind in ["ed25519", "p256"] {
        let made = place.run(&["key", "generate", kind, "--type", kind]).success();
        assert_eq!(made.stdout, format!("{kind}.key\n{kind}.pub\n"));
    }
    place
        .run(&["key", "generate", "ed25519"])
        .exits(2)
        .says(&["there already"]);
    let verify = |key: &str, more: &[&str]| {
        place.run(&[&["verify-signature", "oci:layout:v1", "--key", key][..], more].concat())
    };
    let unsigned = verify("ed25519.pub", &[]).exits(1);
    assert!(unsigned.stdout.contains("no bundle is attached"), "{}", unsigned.stdout);
    for key in ["ed25519", "p256"] {
        let private = format!("{key}.key");
        place.run(&["sign", "oci:layout:v1", "--key", &private]).success();
        let vouched = verify(&format!("{key}.pub"), &[]).success();
        assert!(vouched.line().contains("https://sigstore.dev/cosign/sign/v1"));
        for (file, kind) in [("app.spdx.json", "spdx"), ("app.provenance.json", "provenance")] {
            let refused = verify(&format!("{key}.pub"), &["--type", kind]).exits(1);
            assert!(refused.stdout.contains("it states"), "{}", refused.stdout);
            let sign = ["sign", "oci:layout:v1", "--key", &private, "--predicate", file];
            place.run(&sign).success();
            verify(&format!("{key}.pub"), &["--type", kind, "-o", "statement.json"]).success();
            let statement = parsed(read(&place, "statement.json"));
            let document = parsed(read(&place, file));
            match kind {
                "spdx" => assert_eq!(statement["predicate"], document),
                _ => assert_eq!(statement, document),
            }
        }
        place
            .run(&["sign", "oci:layout:v1", "--key", &private, "-o", &format!("{key}.json")])
            .success();
        let refused = verify("stranger.pub", &[]);
        assert_eq!(refused.status, 2, "there is no such key");
    }
    validate(&place, &["dsse=ed25519.json=ed25519.pub", "dsse=p256.json=p256.pub"]);
    // Signing again with Ed25519 adds nothing: the artifact is the same.
    let index = read(&place, "layout/index.json");
    place.run(&["sign", "oci:layout:v1", "--key", "ed25519.key"]).success();
    assert!(read(&place, "layout/index.json") == index, "the layout changed");
    place.run(&["inspect", "oci:layout"]).success();
    place.run(&["verify", "oci:layout"]).success();
}

#[test]
fn what_no_key_vouches_for_is_refused() {
    let place = with_files();
    place
        .run(&["build", "-q", "-o", "oci:layout:v1", "-o", "app.tar", "--provenance"])
        .success();
    place.write("conf/app.conf", "other\n");
    place.run(&["build", "-q", "-o", "oci:other:v1"]).success();
    for name in ["own", "stranger"] {
        place.run(&["key", "generate", name]).success();
    }
    // An archive holds no artifacts, but a bundle in a file speaks of any image.
    place
        .run(&["sign", "app.tar", "--key", "own.key"])
        .exits(2)
        .says(&["nothing can be attached", "-o FILE"]);
    place
        .run(&["sign", "app.tar", "--key", "own.key", "-o", "bundle.json"])
        .success();
    let verify = |source: &str, key: &str, bundle: &str| {
        let ran = place.run(&["verify-signature", source, "--key", key, "--bundle", bundle]);
        (ran.status, ran.stdout + &ran.stderr)
    };
    assert_eq!(verify("app.tar", "own.pub", "bundle.json").0, 0);
    assert_eq!(
        verify("oci:layout:v1", "own.pub", "bundle.json").0,
        0,
        "the same image elsewhere"
    );
    let tampered = |change: &dyn Fn(&mut Value)| {
        let mut bundle = parsed(read(&place, "bundle.json"));
        change(&mut bundle);
        place.write("tampered.json", &bundle.to_string());
    };
    let expect = |(status, text): (i32, String), reason: &str| {
        assert_eq!(status, 1, "{text}");
        assert!(text.contains(reason), "`{reason}` is missing in {text}");
    };
    expect(
        verify("app.tar", "stranger.pub", "bundle.json"),
        "signed by another key",
    );
    expect(
        verify("oci:other:v1", "own.pub", "bundle.json"),
        "is about another image",
    );
    tampered(&|bundle| bundle["dsseEnvelope"]["payload"] = "e30=".into());
    expect(verify("app.tar", "own.pub", "tampered.json"), "does not match");
    tampered(&|bundle| bundle["dsseEnvelope"]["signatures"][0]["sig"] = "AAAA".into());
    expect(verify("app.tar", "own.pub", "tampered.json"), "does not match");
    place.write("tampered.json", "no JSON");
    expect(verify("app.tar", "own.pub", "tampered.json"), "not a bundle");
    // Provenance of one image is not signed for another.
    place
        .run(&[
            "sign",
            "oci:other:v1",
            "--key",
            "own.key",
            "--predicate",
            "app.provenance.json",
        ])
        .exits(2)
        .says(&["is not about"]);
}
