//! `layerize push`, and every other verb that names a registry, against Debian's `docker-registry`.

use std::process::Command;

use serde_json::Value;

use crate::copy::build;
use crate::registry::registry;
use crate::served::{Demands, Registry};
use crate::support::{Place, Ran, have, peer};

/// A registry without accounts.
struct Open(Registry);

impl Open {
    fn start(place: &Place) -> Option<Self> {
        registry(place, Demands::default()).map(Self)
    }

    /// The reference of a name here.
    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.0.host)
    }

    fn at(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.0.host)
    }
}

/// The last event of a kind.
fn event(ran: &Ran, kind: &str) -> Value {
    let events = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut events = events.filter(|event| event["event"] == kind);
    events
        .next_back()
        .unwrap_or_else(|| panic!("no {kind} in {}", ran.stdout))
}

#[test]
fn an_image_is_pushed_once_and_under_many_names() {
    let place = Place::new();
    let Some(registry) = Open::start(&place) else {
        return;
    };
    let digest = build(&place, "text", &["-o", "oci:one:v1"]);
    let push = |args: &[&str]| place.run(&[&["push", "--json", "oci:one:v1"], args].concat());
    let name = registry.name("a/one:v1");
    let dry = push(&["--dry-run", &name]).success();
    assert!(
        event(&dry, "transferred")["written"].as_u64().unwrap() > 0 && dry.stdout.contains("PUT"),
        "{}",
        dry.stdout
    );
    place.run(&["inspect", &registry.at("a/one:v1")]).exits(2);
    let first = push(&[&name, "--tag", "v2", "--digest-file", "digest"]).success();
    assert_eq!(event(&first, "transferred")["digest"], digest.as_str());
    assert_eq!(
        std::fs::read_to_string(place.project.join("digest")).unwrap().trim(),
        digest
    );
    let again = push(&[&name]).success();
    assert_eq!(event(&again, "pushed")["sent"], 0);
    for tag in ["v1", "v2"] {
        place
            .run(&["diff", "oci:one:v1", &registry.at(&format!("a/one:{tag}"))])
            .success();
    }
    // Another image under a name that must not move.
    let path = place.run(&["store", "ls"]).success().stdout;
    let path = path
        .lines()
        .find_map(|line| line.split_whitespace().find(|word| word.contains("-data")))
        .unwrap()
        .to_owned();
    let other = ["push", &path, "--name", "x", "--label", "a=b", &name];
    place
        .run(&[&other[..], &["--immutable"]].concat())
        .exits(2)
        .says(&["v1"]);
    place
        .run(&[&other[..], &["--skip-existing"]].concat())
        .success()
        .says(&["left as it is"]);
    let raw = |tag: &str| {
        place
            .run(&["inspect", "--json", &registry.at(&format!("a/one:{tag}"))])
            .success()
            .stdout
    };
    assert_eq!(
        serde_json::from_str::<Value>(&raw("v1")).unwrap()["digest"],
        digest.as_str()
    );
    place.run(&other).success();
    assert_ne!(
        serde_json::from_str::<Value>(&raw("v1")).unwrap()["digest"],
        digest.as_str()
    );
    place
        .run(&["push", "oci:one:v1", "hello"])
        .exits(2)
        .says(&["which registry"]);
    skopeo_reads(&place, &registry, &digest);
}

fn skopeo_reads(place: &Place, registry: &Open, digest: &str) {
    if have("skopeo", &["--version"]) {
        let mut skopeo = Command::new("skopeo");
        skopeo.args([
            "copy",
            "--src-tls-verify=false",
            &registry.at(&format!("a/one@{digest}")),
            "oci:peer:v1",
        ]);
        peer(skopeo.current_dir(&place.project));
        place.run(&["diff", "oci:one:v1", "oci:peer:v1"]).success();
    }
}

#[test]
fn an_index_goes_to_a_registry_and_back() {
    let place = Place::new();
    let Some(registry) = Open::start(&place) else {
        return;
    };
    for (architecture, tag) in [("amd64", "a"), ("arm64", "b")] {
        let platform = format!("linux/{architecture}");
        build(
            &place,
            architecture,
            &["--platform", &platform, "-o", &format!("oci:parts:{tag}")],
        );
    }
    let all = registry.at("all:v1");
    let created = place
        .run(&["index", "create", &all, "oci:parts:a", "oci:parts:b"])
        .success();
    let digest = created.line().split(' ').next().unwrap().to_owned();
    place.run(&["inspect", "--platform", "linux/arm64", &all]).success();
    let copied = place.run(&["copy", "--all", &all, "oci:back:v1"]).success();
    assert_eq!(copied.line().split(' ').next().unwrap(), digest);
    let moved = place
        .run(&["copy", "--all", "--json", &all, &registry.at("other/all:v2")])
        .success();
    // The blobs lie at the registry: they are mounted, not sent through here.
    let pushed = event(&moved, "pushed");
    assert!(
        pushed["mounted"].as_u64().unwrap() + pushed["skipped"].as_u64().unwrap() > 0,
        "{pushed}"
    );
    assert_eq!(event(&moved, "transferred")["digest"], digest.as_str());
}

/// The base's layers go from one repository to the other at the registry: they are not even there where we build.
#[test]
fn a_base_of_a_registry_is_never_downloaded() {
    let place = Place::new();
    let Some(registry) = Open::start(&place) else {
        return;
    };
    let noise: String = (0..200_000u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_string())
        .collect();
    build(&place, &noise, &["-o", &registry.at("base:v1")]);
    place.write("app/share/own", "own\n");
    place.write(
        "layerize.toml",
        &format!(
            "[package.app]\nsource = \"app\"\n\n[image.web]\nbase = \"{}\"\ncontents = [\"app\"]\n",
            registry.at("base:v1")
        ),
    );
    let pushed = place
        .run(&["push", "--json", "web", &registry.name("web:v1")])
        .success();
    let event = event(&pushed, "pushed");
    assert!(event["sent"].as_u64().unwrap() < 50_000, "{event}");
    assert!(event["mounted"].as_u64().unwrap() > 300_000, "{event}");
    place.run(&["verify", &registry.at("web:v1")]).success();
    let (_, name) = (0, format!("{}/base:v1", registry.0.host));
    let inspected = place
        .run(&["inspect", "--json", &registry.at("web:v1")])
        .success()
        .stdout;
    assert!(inspected.contains(&name), "{inspected}");
    // Away from the registry the documents are kept; its layers are not asked for where nobody wants them.
    drop(registry);
    place
        .run(&["build", "--offline", "-o", "oci:out:v1"])
        .exits(2)
        .says(&["offline"]);
}

/// distribution-spec, "Pushing Manifests": blobs go there once, and of each further tag the manifest alone.
#[test]
fn several_tags_are_one_push_of_the_blobs_and_a_manifest_for_each() {
    let place = Place::new();
    let Some(registry) = Open::start(&place) else {
        return;
    };
    build(&place, "text", &["-o", "oci:one:v1"]);
    let name = registry.name("a/one:v1");
    let ran = place
        .run(&["push", "--json", "oci:one:v1", &name, "--tag", "v2", "--tag", "v3"])
        .success();
    let events = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let pushed: Vec<Value> = events.filter(|event| event["event"] == "pushed").collect();
    let manifest = {
        let seen = place.inspect(&registry.at("a/one:v3"));
        let digest = seen["digest"].as_str().unwrap().to_owned();
        std::fs::read(place.project.join("one/blobs").join(digest.replace(':', "/")))
            .unwrap()
            .len() as u64
    };
    assert_eq!(pushed.len(), 3);
    assert!(pushed[0]["sent"].as_u64().unwrap() > manifest, "{pushed:?}");
    for further in &pushed[1..] {
        assert_eq!(further["sent"], manifest, "{further}");
        assert!(further["requests"].as_u64().unwrap() <= 4, "{further}");
    }
}
