//! Whatever flags make of an image is told of it: no recorded digest is compared with another image's, its provenance
//! names what was asked for, and `rebuild` follows.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::Place;

/// The flags of the help's image options, without their values.
fn image_flags(place: &Place) -> BTreeSet<String> {
    let help = place.run(&["build", "--help"]).success().stdout;
    let (_, options) = help.split_once("Image options:").unwrap();
    let section = options
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with(' '));
    let flags = section.filter_map(|line| line.trim().strip_prefix("--"));
    flags
        .map(|line| format!("--{}", line.split([' ', '<']).next().unwrap()))
        .collect()
}

/// The provenance of a target, without its subjects.
fn options(place: &Place, arguments: &[&str]) -> Value {
    let ran = place.run(&[&["provenance"], arguments].concat()).success();
    let statement: Value = serde_json::from_str(ran.stdout.trim()).unwrap();
    let parameters = &statement["predicate"]["buildDefinition"]["externalParameters"];
    parameters["options"].clone()
}

/// Flags of an image of the spec, with what its provenance says of them.
fn of_spec() -> Vec<(&'static str, Vec<&'static str>, Value)> {
    vec![
        ("--compression", vec!["none"], json!({ "compression": "none" })),
        ("--max-layers", vec!["2"], json!({ "layers": { "max": 2 } })),
        (
            "--beyond-docker",
            vec![],
            json!({ "layers": { "beyond-docker": true } }),
        ),
        (
            "--strategy",
            vec!["single"],
            json!({ "layers": { "strategy": "single" } }),
        ),
        ("--plan", vec!["plan.json"], json!({ "layers": { "plan": "DIGEST" } })),
        (
            "--previous",
            vec!["plan.json"],
            json!({ "layers": { "previous": "DIGEST" } }),
        ),
        (
            "--tar-profile",
            vec!["dockertools"],
            json!({ "tar-profile": "dockertools" }),
        ),
        (
            "--chmod",
            vec!["/tmp=0700"],
            json!({ "permissions": [{ "paths": { "path": "/tmp" }, "mode": 0o700, "owner": null, "group": null }] }),
        ),
        (
            "--chown",
            vec!["/tmp=5"],
            json!({ "permissions": [{ "paths": { "path": "/tmp" }, "mode": null, "owner": "5", "group": null }] }),
        ),
        ("--single-member", vec![], json!({ "single-member": true })),
    ]
}

/// Flags of an image of store paths, likewise.
fn of_paths() -> Vec<(&'static str, Vec<&'static str>, Value)> {
    vec![
        ("--entrypoint", vec!["tool"], json!({ "entrypoint": ["tool"] })),
        ("--cmd", vec!["tool"], json!({ "cmd": ["tool"] })),
        ("--env", vec!["A=b"], json!({ "env": { "A": "b" } })),
        ("--workdir", vec!["/w"], json!({ "workdir": "/w" })),
        ("--user", vec!["7"], json!({ "user": "7" })),
        ("--label", vec!["a=b"], json!({ "labels": { "a": "b" } })),
        ("--port", vec!["80"], json!({ "ports": ["80/tcp"] })),
        ("--platform", vec!["linux/arm64"], json!({ "platform": "linux/arm64" })),
        ("--base", vec!["oci:base:v1"], json!({ "base": "oci:base:v1" })),
    ]
}

/// Flags that no digest depends on, and one that needs a Nix store (`tests/cli/nix.rs`).
const OTHERS: [&str; 3] = ["--name", "--pack-threads", "--nix-db"];

fn without_digests(mut options: Value) -> Value {
    for key in ["plan", "previous"] {
        if options["layers"][key]
            .as_str()
            .is_some_and(|text| text.starts_with("sha256:"))
        {
            options["layers"][key] = json!("DIGEST");
        }
    }
    options
}

#[test]
fn flags_are_told_and_no_recorded_digest_is_compared_with_what_they_make() {
    let place = Place::with_script("mkdir -p $out/bin; echo '#!' > $out/bin/tool; chmod +x $out/bin/tool");
    place.run(&["lock", "--golden"]).success();
    // A recorded digest that no image has: whatever is compared with it is refused.
    let lock = std::fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    let (at, _) = lock.rmatch_indices("digest = \"sha256:").next().unwrap();
    let hex = at + "digest = \"sha256:".len();
    place.write(
        "layerize.lock",
        &format!("{}{}{}", &lock[..hex], "0".repeat(64), &lock[hex + 64..]),
    );
    place
        .run(&["build", "--locked", "thing"])
        .exits(2)
        .says(&["for the same spec, lock and sources"]);
    let plan = place.run(&["plan", "--json", "thing"]).success().stdout;
    place.write("plan.json", plan.trim().lines().last().unwrap());
    assert_eq!(options(&place, &["thing"]), Value::Null, "nothing was asked for");

    let mut known: BTreeSet<String> = OTHERS.iter().map(ToString::to_string).collect();
    for (flag, values, told) in of_spec() {
        let arguments = [&["thing", flag][..], &values].concat();
        place.run(&[&["build", "--locked"][..], &arguments].concat()).success();
        assert_eq!(without_digests(options(&place, &arguments)), told, "{flag}");
        known.insert(flag.to_owned());
    }

    place
        .run(&[
            "build",
            "--locked",
            "--compression",
            "none",
            "-o",
            "oci:base:v1",
            "thing",
        ])
        .success();
    let path = store_path_of(&place);
    assert_eq!(options(&place, &[&path, "--name", "x:1"]), Value::Null);
    for (flag, values, told) in of_paths() {
        let arguments = [&[path.as_str(), flag][..], &values].concat();
        let base = match flag {
            "--platform" => &["--compression", "gzip"][..],
            _ => &[],
        };
        assert_eq!(options(&place, &[&arguments[..], base].concat()), told, "{flag}");
        known.insert(flag.to_owned());
    }
    assert_eq!(
        image_flags(&place),
        known,
        "a flag that is not tried here, or is none any more"
    );
}

/// The store path of the only package of the image `thing`.
fn store_path_of(place: &Place) -> String {
    let closure = place.run(&["closure", "thing"]).success();
    let (path, _size) = closure.line().split_once('\t').unwrap();
    path.to_owned()
}

/// Of the same date as everybody's image, and of another one.
#[test]
fn another_date_is_another_image() {
    let place = Place::with_script("mkdir $out; echo made > $out/file");
    place.run(&["lock", "--golden"]).success();
    let mut command = place.command(&["build", "--locked", "thing"]);
    let ran = crate::support::Ran::of(command.env("SOURCE_DATE_EPOCH", "5").output().unwrap());
    ran.success();
    let mut command = place.command(&["lock", "--golden"]);
    let ran = crate::support::Ran::of(command.env("SOURCE_DATE_EPOCH", "5").output().unwrap());
    ran.exits(2).says(&[
        "the digest would depend on SOURCE_DATE_EPOCH",
        "unset SOURCE_DATE_EPOCH",
    ]);
}

#[test]
fn an_image_in_another_dialect_is_rebuilt() {
    let place = Place::with_script("mkdir $out; echo made > $out/file");
    for profile in ["nix2container", "dockertools", "layerize"] {
        let file = format!("{profile}.tar");
        place
            .run(&["build", "thing", "--tar-profile", profile, "-o", &file])
            .success();
        let ran = place.run(&["rebuild", &file]).success();
        let format = match profile {
            "layerize" => "(format 1, linux".to_owned(),
            profile => format!("(format 1 {profile}, linux"),
        };
        assert!(ran.line().starts_with("same     image thing sha256:"), "{}", ran.stdout);
        assert!(ran.stdout.contains(&format), "{}", ran.stdout);
    }
    // A spec in such a dialect passes its own check.
    let spec = std::fs::read_to_string(place.project.join("layerize.toml")).unwrap();
    place.write(
        "layerize.toml",
        &format!("{spec}layers = {{ tar-profile = \"dockertools\" }}\n"),
    );
    place.run(&["check", "thing"]).success();
}

#[test]
fn an_inventory_over_a_base_does_not_say_that_it_is_whole() {
    let place = Place::with_script("mkdir $out; echo made > $out/file");
    let cyclonedx = |arguments: &[&str]| -> Value {
        let ran = place
            .run(&[&["sbom", "--format", "cyclonedx"], arguments].concat())
            .success();
        serde_json::from_str(ran.stdout.trim()).unwrap()
    };
    let aggregates = |document: &Value| -> Vec<String> {
        let compositions = document["compositions"].as_array().unwrap().iter();
        compositions
            .map(|one| one["aggregate"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(aggregates(&cyclonedx(&["thing"])), ["complete"]);
    place.run(&["build", "thing", "-o", "oci:base:v1"]).success();
    let path = store_path_of(&place);
    let arguments = [path.as_str(), "--base", "oci:base:v1"];
    assert_eq!(aggregates(&cyclonedx(&arguments)), ["incomplete", "complete"]);
    let spdx = place
        .run(&[&["sbom", "--format", "spdx"], &arguments[..]].concat())
        .success();
    assert!(
        spdx.stdout.contains("lies over the base image sha256:"),
        "{}",
        spdx.stdout
    );
}
