//! Golden bills of materials and provenance; equal whatever order their facts come in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::attest::*;
use crate::configure::ScriptsOutcome;
use crate::derive::{self, Action, BuildPlan, Derivation, Download, ImageInputs, Input, LeftOut, Script};
use crate::digest::{ContentDigest, Digest, FileHash, GoHash};
use crate::image::{ClosureMember, Configured, ContentRoot, Image, Recipe, RootPackage};
use crate::layer::partition::Origin;
use crate::oci::Compression;
use crate::spec;
use crate::store::Store;
use crate::store_path::StorePath;
use crate::transport::testing;

/// A small image: `hello` built from a Debian source package, the C library beside it, `certs` laid out at `/`.
struct Small {
    dir: tempfile::TempDir,
    spec: spec::Image,
    plan: BuildPlan,
    image: Image,
}

const HELLO: &str = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-hello-2.10";
const LIBC: &str = "1mdqa9w1p6cmli6976v4wi0sw9r4p5pr-libc6-2.36-9_b1";
const CERTS: &str = "2mdqa9w1p6cmli6976v4wi0sw9r4p5pr-certs-2023";
const CONFIGURED: &str = "3mdqa9w1p6cmli6976v4wi0sw9r4p5pr-configured";

fn logical(base: &str) -> String {
    format!("/layerize/store/{base}")
}

fn download(name: &str, origin: derive::Origin) -> Download {
    Download {
        name: name.to_owned(),
        hash: Digest::of(name.as_bytes()).into(),
        size: None,
        origin,
    }
}

fn deb(package: &str, version: &str) -> Derivation {
    let file = format!("{package}_{version}_amd64.deb");
    let origin = derive::Origin::Deb {
        archive: None,
        package: package.to_owned(),
        version: version.to_owned(),
        architecture: "amd64".to_owned(),
        filename: format!("pool/main/{package}/{file}"),
    };
    Derivation {
        label: format!("deb:{package}"),
        name: format!("{package}-{version}"),
        action: Action::UnpackDeb {
            deb: download(&file, origin),
            package: package.to_owned(),
        },
    }
}

fn steps() -> Vec<Derivation> {
    let file = |name: &str| {
        let origin = derive::Origin::DebSource {
            archive: None,
            package: "hello".to_owned(),
            version: "2.10-3".to_owned(),
            filename: format!("pool/main/h/hello/{name}"),
        };
        download(name, origin)
    };
    let patch = derive::Origin::Url("https://me:secret@files.example.org/a%20b.tar.gz?x=1".to_owned());
    vec![
        deb("libc6", "1:2.36-9+b1"),
        deb("certs", "2023"),
        deb("gcc", "4:12"),
        Derivation {
            label: "deb-source:hello".to_owned(),
            name: "hello-2.10-source".to_owned(),
            action: Action::UnpackDebSource {
                files: vec![file("hello_2.10-3.dsc"), file("hello_2.10.orig.tar.gz")],
                package: "hello".to_owned(),
            },
        },
        Derivation {
            label: "patch".to_owned(),
            name: "patch".to_owned(),
            action: Action::Fetch(download("a b.tar.gz", patch)),
        },
        Derivation {
            label: "hello".to_owned(),
            name: "hello-2.10".to_owned(),
            action: Action::Script(Box::new(Script {
                source: Some(Input::Step(3)),
                root: vec![Input::Step(2)],
                tools: vec![Input::Step(4)],
                libraries: vec![Input::Step(0)],
                ..Script::default()
            })),
        },
    ]
}

impl Small {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paragraph = |base: &str, package: &str, text: &str| {
            let status = dir.path().join(base).join("var/lib/dpkg/status.d");
            std::fs::create_dir_all(&status).unwrap();
            std::fs::write(status.join(package), text).unwrap();
        };
        let libc = "Package: libc6\nSource: glibc (1:2.36-9)\nVersion: 1:2.36-9+b1\nArchitecture: amd64\n\
                    Maintainer: GNU Libc (team) <libc@example.org>\nProvides: libc6-abi,\n  libc-any (= 1)\nDepends: \
                    missing (>= 1)\nDescription: a library\n of many words\n";
        paragraph(LIBC, "libc6", libc);
        let certs = "Package: certs\nVersion: 2023\nArchitecture: all\nDepends: openssl | libc-any (>= 1), x\n";
        paragraph(CERTS, "certs", certs);
        let plan = BuildPlan {
            steps: steps(),
            images: BTreeMap::from([(
                "team/hello".to_owned(),
                ImageInputs {
                    contents: vec![Input::Step(5)],
                    declared: BTreeSet::from([Input::Step(0)]),
                    root: vec![Input::Step(1)],
                    laid: Vec::new(),
                    configured: None,
                    utf8: None,
                    zone: None,
                    authorities: None,
                    left_out: BTreeMap::new(),
                    unrun: BTreeMap::new(),
                    debug: None,
                },
            )]),
            ..BuildPlan::default()
        };
        let image = testing::image(&[
            (testing::tar(&[testing::Node::file("a", "1")]), Compression::None),
            (testing::tar(&[testing::Node::file("b", "2")]), Compression::None),
        ]);
        let paths = format!("{} {}", logical(HELLO), logical(LIBC));
        let image = testing::changed_manifest(&image, |manifest| {
            manifest["layers"][0]["annotations"] = json!({ "dev.layerize.store-paths": paths });
            manifest["layers"][1]["annotations"] = json!({ "dev.layerize.packages": "certs=2023 other=1" });
        });
        Self {
            spec: spec::Image::new("team/hello"),
            plan,
            image,
            dir,
        }
    }

    fn physical(&self, base: &str) -> PathBuf {
        self.dir.path().join(base)
    }

    fn recipe(&self) -> Recipe {
        let member = |base: &str, references: &[&str]| ClosureMember {
            name: base[33..].to_owned(),
            logical: logical(base).parse().unwrap(),
            physical: self.physical(base),
            nar_hash: Digest::of(base.as_bytes()),
            nar_size: 1,
            references: references.iter().map(|base| logical(base).parse().unwrap()).collect(),
            is_built: true,
            origin: Origin::Unknown,
        };
        let mut recipe = Recipe::new(self.spec.clone(), "linux/arm64/v8".parse().unwrap(), 1).unwrap();
        recipe.contents = vec![ContentRoot {
            name: "hello".to_owned(),
            logical: logical(HELLO).parse().unwrap(),
        }];
        recipe.closure = vec![member(HELLO, &[LIBC]), member(LIBC, &[])];
        recipe.root = vec![RootPackage {
            name: "certs".to_owned(),
            version: "2023".to_owned(),
            logical: logical(CERTS).parse().unwrap(),
            physical: self.physical(CERTS),
            nar_hash: Digest::of(CERTS.as_bytes()),
            nar_size: 1,
            is_part: false,
            origin: Origin::Distribution,
        }];
        recipe.configured = Some(Configured {
            logical: logical(CONFIGURED).parse().unwrap(),
            physical: self.physical(CONFIGURED),
            nar_hash: Digest::of(CONFIGURED.as_bytes()),
            numbers: BTreeMap::new(),
        });
        recipe
    }

    fn with<T>(&self, use_it: impl FnOnce(&Gathered<'_>) -> T) -> T {
        let path = |base: &str| base.parse::<StorePath>().unwrap();
        let store = Store::open(&self.dir.path().join("store")).unwrap();
        let left_out = ["key", "other-key"].map(|name| (format!("etc/{name}"), "a secret".to_owned()));
        let scripts = ScriptsOutcome::Ran {
            made: BTreeSet::from(["etc/made".to_owned()]),
            left_out: left_out.into(),
        };
        use_it(&Gathered {
            recipe: &self.recipe(),
            image: &self.image,
            store: &store,
            plan: &self.plan,
            steps: BTreeMap::from([(path(HELLO), 5), (path(LIBC), 0), (path(CERTS), 1)]),
            packages: BTreeMap::from([(path(HELLO), ("hello".to_owned(), Some("2.10".to_owned())))]),
            scripts: BTreeMap::from([("certs".to_owned(), scripts)]),
        })
    }

    fn inventory(&self) -> Inventory {
        self.with(|built| gather(built).unwrap())
    }

    fn provenance(&self) -> Vec<u8> {
        self.provenance_tried(BTreeMap::new())
    }

    /// After these tests of the image.
    fn provenance_tried(&self, tests: BTreeMap<String, &'static str>) -> Vec<u8> {
        let facts = BuildFacts {
            tests,
            spec: BTreeMap::from([("layerize.toml".to_owned(), Digest::of(b"spec"))]),
            lock: Some(Digest::of(b"lock")),
            options: [("compression".to_owned(), json!("zstd"))].into_iter().collect(),
        };
        self.with(|built| provenance(built, &gather(built).unwrap(), &facts).unwrap())
    }
}

/// Compares with a file of `fixtures/attest`, laid out for people. Where the file was deleted it is written.
pub(super) fn golden(name: &str, document: &[u8]) {
    let value: Value = serde_json::from_slice(document).unwrap();
    assert_eq!(document, crate::oci::canonical_json(&value), "a document is canonical");
    let mut text = serde_json::to_string_pretty(&value).unwrap();
    text.push('\n');
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/attest").join(name);
    if !path.exists() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{}", path.display());
}

#[test]
fn tests_that_were_run_are_told_with_what_was_tested() {
    let small = Small::new();
    let document = small.provenance_tried(BTreeMap::from([("starts".to_owned(), "passed")]));
    let document: serde_json::Value = serde_json::from_slice(&document).unwrap();
    let tests_of = |document: &serde_json::Value| {
        let byproducts = document["predicate"]["runDetails"]["byproducts"].as_array().cloned();
        let mut tests = byproducts
            .unwrap_or_default()
            .into_iter()
            .filter(|made| made["name"] == "tests");
        tests.next()
    };
    let told = tests_of(&document).unwrap();
    assert_eq!(told["annotations"], json!({ "starts": "passed" }));
    assert_eq!(told["digest"], document["subject"][0]["digest"]);
    let untested: serde_json::Value = serde_json::from_slice(&small.provenance()).unwrap();
    assert_eq!(tests_of(&untested), None);
}

#[test]
fn documents_of_a_small_image_never_change() {
    let small = Small::new();
    let inventory = small.inventory();
    golden("small.spdx.json", &sbom(&inventory, SbomFormat::Spdx));
    golden("small.cdx.json", &sbom(&inventory, SbomFormat::CycloneDx));
    golden("small.provenance.json", &small.provenance());
}

/// What an image leaves out is said of the image, but not of what something else in it brings.
#[test]
fn what_is_left_out_is_said() {
    let mut small = Small::new();
    let inputs = small.plan.images.get_mut("team/hello").unwrap();
    let left_out = [
        ("perl", LeftOut::Excluded),
        ("perl-base", LeftOut::NeededByExcluded),
        ("libc6", LeftOut::NeededByExcluded),
    ];
    inputs.left_out = left_out.map(|(name, why)| (name.to_owned(), why)).into();
    small.plan.debs.insert("perl".to_owned(), Input::Step(1));
    let inventory = small.inventory();
    let document = |format| serde_json::from_slice::<Value>(&sbom(&inventory, format)).unwrap();
    let cyclonedx = document(SbomFormat::CycloneDx);
    let properties = cyclonedx["metadata"]["component"]["properties"].as_array().unwrap();
    let properties = properties
        .iter()
        .filter(|property| property["name"] == "dev.layerize:left-out");
    let said: Vec<&str> = properties.filter_map(|property| property["value"].as_str()).collect();
    assert_eq!(
        said,
        [
            "deb:perl-base: needed by nothing but what the spec excludes",
            "deb:perl=2023: excluded by the spec"
        ]
    );
    let spdx = document(SbomFormat::Spdx);
    let comment = spdx["packages"][0]["comment"].as_str().unwrap();
    assert!(comment.contains("deb:perl=2023 (excluded by the spec)"), "{comment}");
}

#[test]
fn an_inventory_holds_what_is_known_and_no_more() {
    let inventory = Small::new().inventory();
    let keys: Vec<&str> = inventory.components.iter().map(|found| found.key.as_str()).collect();
    assert_eq!(keys, [&logical(HELLO), &logical(LIBC), &logical(CERTS)]);
    let [hello, libc, certs] = &inventory.components[..] else {
        panic!("three components");
    };
    assert_eq!(hello.sources.len(), 2, "its own source, not its compiler");
    assert_eq!(libc.purl(), "pkg:deb/debian/libc6@1:2.36-9%2Bb1?arch=amd64");
    assert_eq!(
        certs.references,
        BTreeSet::from([logical(LIBC)]),
        "through a name that the C library provides; what is not in the image is left out"
    );
    assert!(certs.at_root && !libc.at_root);
    assert_eq!(certs.layers, BTreeSet::from([inventory.image.layers[1].digest]));
    assert_eq!(hello.layers, BTreeSet::from([inventory.image.layers[0].digest]));
}

#[test]
fn no_document_publishes_a_password() {
    let small = Small::new();
    let provenance = String::from_utf8(small.provenance()).unwrap();
    assert!(provenance.contains("files.example.org/a%20b.tar.gz?x=1"));
    assert!(!provenance.contains("secret") && !provenance.contains("me@"));
}

#[test]
fn a_finished_image_gives_a_partial_inventory() {
    let mut small = Small::new();
    let nix = "/nix/store/3mdqa9w1p6cmli6976v4wi0sw9r4p5pr-glibc-2.38-27";
    let paths = json!({ "dev.layerize.store-paths": format!("{} {nix}", logical(HELLO)) });
    small.image = testing::changed_manifest(&small.image, |manifest| manifest["layers"][0]["annotations"] = paths);
    let inventory = of_source(&small.image).unwrap();
    assert_eq!(inventory.extent, Extent::Annotated);
    let purls: Vec<String> = inventory.components.iter().map(Component::purl).collect();
    assert_eq!(
        purls,
        [
            "pkg:generic/hello@2.10",
            "pkg:nix/glibc@2.38-27",
            "pkg:deb/debian/certs@2023",
            "pkg:deb/debian/other@1"
        ]
    );
    let spdx = String::from_utf8(sbom(&inventory, SbomFormat::Spdx)).unwrap();
    assert!(spdx.contains("Partial: made from the annotations"));
    let cyclonedx = String::from_utf8(sbom(&inventory, SbomFormat::CycloneDx)).unwrap();
    assert!(cyclonedx.contains(r#""aggregate":"incomplete""#));
    assert_eq!(inventory.image.created, "1970-01-01T00:00:01Z");
}

#[test]
fn equal_images_have_equal_names_and_others_have_not() {
    let small = Small::new();
    let one = small.inventory();
    let mut other = one.clone();
    other.image.digest = Digest::of(b"other");
    for format in [SbomFormat::Spdx, SbomFormat::CycloneDx] {
        let id = |inventory: &Inventory| {
            let document: Value = serde_json::from_slice(&sbom(inventory, format)).unwrap();
            let id = document.get("documentNamespace").or(document.get("serialNumber"));
            id.unwrap().as_str().unwrap().to_owned()
        };
        assert_eq!(id(&one), id(&one.clone()));
        assert_ne!(id(&one), id(&other));
        // RFC 9562: version 8 and variant 10.
        let id = id(&one);
        assert!(id.starts_with("urn:uuid:") && id.len() == 45, "{id}");
        assert_eq!(&id[23..24], "8", "{id}");
        assert!("89ab".contains(&id[28..29]), "{id}");
    }
}

proptest! {
    #[test]
    fn the_order_of_facts_changes_nothing(order in Just([0usize, 1, 2, 1, 0]).prop_shuffle()) {
        static INVENTORY: std::sync::LazyLock<Inventory> = std::sync::LazyLock::new(|| Small::new().inventory());
        let inventory = &*INVENTORY;
        let components = order.iter().map(|&index| inventory.components[index].clone());
        let shuffled = Inventory::new(inventory.image.clone(), components, Extent::Whole);
        for format in [SbomFormat::Spdx, SbomFormat::CycloneDx] {
            prop_assert_eq!(sbom(&shuffled, format), sbom(inventory, format));
        }
    }
}

/// Locks of other languages know files by other hashes: each document names them in its own words.
#[test]
fn files_are_told_by_the_hash_that_is_known() {
    let sha512 = ContentDigest::Sha512([0; 64]).same_algorithm(b"abc");
    let go = GoHash::of_go_mod(Digest::of(b"module m\n"));
    let hashes = [sha512.into(), FileHash::GoModule(go)];
    for hash in hashes {
        let mut small = Small::new();
        let Action::UnpackDeb { deb, .. } = &mut small.plan.steps[0].action else {
            panic!("the first step unpacks a package")
        };
        deb.hash = hash;
        let inventory = small.inventory();
        let document = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
        let find = |list: &Value, name: &str| {
            let mut found = list.as_array().unwrap().iter().filter(|one| one["name"] == name);
            found.next().cloned().unwrap_or_else(|| panic!("{name}"))
        };
        let spdx = document(sbom(&inventory, SbomFormat::Spdx));
        let file = find(&spdx["packages"], "libc6_1:2.36-9+b1_amd64.deb");
        let cyclonedx = document(sbom(&inventory, SbomFormat::CycloneDx));
        let component = find(&cyclonedx["components"], "libc6");
        let reference = &component["externalReferences"][0];
        let provenance = document(small.provenance());
        let material = find(
            &provenance["predicate"]["buildDefinition"]["resolvedDependencies"],
            "libc6_1:2.36-9+b1_amd64.deb",
        );
        match hash.content() {
            Some(digest) => {
                let hex = digest.hex();
                assert_eq!(
                    file["checksums"],
                    json!([{ "algorithm": "SHA512", "checksumValue": hex }])
                );
                assert_eq!(reference["hashes"], json!([{ "alg": "SHA-512", "content": hex }]));
                assert_eq!(material["digest"], json!({ "sha512": hex }));
            }
            None => {
                assert!(file["comment"].as_str().unwrap().starts_with(&hash.to_string()));
                assert!(file.get("checksums").is_none() && reference.get("hashes").is_none());
                assert!(reference["comment"].as_str().unwrap().ends_with(&hash.to_string()));
                assert_eq!(material["digest"], json!({ "dirHash": hash.hex() }));
            }
        }
    }
}
