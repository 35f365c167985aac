//! An archive that one reader takes for one image and the next for another: no verb takes it.
//!
//! `verify`, `diff` and `verify-signature` used to see the first of two files of a name, and `docker load` the last.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::Place;

/// A signed archive, and its signature in `b.json`.
fn signed() -> Place {
    let place = Place::new();
    place
        .write("conf", "conf\n")
        .write("layerize.toml", "[image.app]\nfiles = { \"/etc/conf\" = \"conf\" }\n");
    place.run(&["build", "-q"]).success();
    place.run(&["key", "generate", "k"]).success();
    place
        .run(&["sign", "app.tar", "--key", "k.key", "-o", "b.json"])
        .success();
    place
}

/// A file of an archive.
fn file_in(archive: &Path, name: &str) -> Vec<u8> {
    let mut archive = tar::Archive::new(File::open(archive).unwrap());
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entry = entries.find(|entry| entry.path_bytes() == name.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).unwrap();
    bytes
}

/// An archive again, each file as `change` has it, and more of them after it.
fn packed(from: &Path, to: &Path, change: impl Fn(&str, Vec<u8>) -> Vec<u8>, more: &[(&str, &[u8])]) {
    let mut out = tar::Builder::new(File::create(to).unwrap());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        out.append(&header, bytes).unwrap();
    };
    let mut archive = tar::Archive::new(File::open(from).unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            add(&name, &change(&name, bytes));
        }
    }
    for (name, bytes) in more {
        add(name, bytes);
    }
    out.into_inner().unwrap();
}

/// The config of the archive with another entrypoint, and its name.
fn evil_config(place: &Place) -> (String, Vec<u8>) {
    let list: Value = serde_json::from_slice(&file_in(&place.project.join("app.tar"), "manifest.json")).unwrap();
    let name = list[0]["Config"].as_str().unwrap().to_owned();
    let mut config: Value = serde_json::from_slice(&file_in(&place.project.join("app.tar"), &name)).unwrap();
    config["config"]["Entrypoint"] = json!(["/evil"]);
    (name, config.to_string().into_bytes())
}

#[test]
fn no_verb_reads_an_archive_in_which_a_name_stands_twice() {
    let place = signed();
    let (name, evil) = evil_config(&place);
    for second in [name.clone(), format!("./{name}"), "./manifest.json".to_owned()] {
        packed(
            &place.project.join("app.tar"),
            &place.project.join("evil.tar"),
            |_, bytes| bytes,
            &[(&second, &evil)],
        );
        for (args, status) in [
            (&["verify", "evil.tar"][..], 1),
            (
                &["verify-signature", "evil.tar", "--key", "k.pub", "--bundle", "b.json"],
                2,
            ),
            (&["diff", "app.tar", "evil.tar"], 2),
            (&["diff", "evil.tar", "evil.tar"], 2),
            (&["inspect", "evil.tar"], 2),
            (&["explain", "evil.tar", "/etc/conf"], 2),
            (&["sbom", "evil.tar"], 2),
            (&["copy", "evil.tar", "oci:copied:v1"], 2),
            (&["sign", "evil.tar", "--key", "k.key", "-o", "x.json"], 2),
            (&["rebuild", "evil.tar"], 2),
            (&["index", "create", "oci:index:v1", "evil.tar"], 2),
        ] {
            let ran = place.run(args).exits(status);
            let text = ran.stdout + &ran.stderr;
            assert!(text.contains("it appears twice"), "{args:?} with `{second}`: {text}");
        }
    }
    assert!(!place.project.join("copied/index.json").exists());
}

#[test]
fn no_signature_vouches_for_an_archive_that_docker_would_load_as_another_image() {
    let place = signed();
    let (name, evil) = evil_config(&place);
    let (app, other) = (place.project.join("app.tar"), place.project.join("evil.tar"));
    let check = || place.run(&["verify-signature", "evil.tar", "--key", "k.pub", "--bundle", "b.json"]);
    packed(&app, &other, |_, bytes| bytes, &[]);
    check().success();
    let list = |change: &dyn Fn(&mut Value)| {
        let mut list: Value = serde_json::from_slice(&file_in(&app, "manifest.json")).unwrap();
        change(&mut list);
        list.to_string().into_bytes()
    };
    let renamed = list(&|list| list[0]["Config"] = "evil.json".into());
    let second = list(&|list| {
        let mut item = list[0].clone();
        item["Config"] = "evil.json".into();
        list.as_array_mut().unwrap().push(item);
    });
    let layers = list(&|list| list[0]["Layers"] = json!([]));
    for (list, config, reason) in [
        (Some(renamed), None, "does not name the config"),
        (Some(second), None, "gives the name"),
        (Some(layers), None, "names other layers"),
        // By its right name, with other bytes: Docker does not compare them.
        (None, Some(evil.clone()), "does not name the config"),
    ] {
        let change = |path: &str, bytes: Vec<u8>| match (path, &list, &config) {
            ("manifest.json", Some(list), _) => list.clone(),
            (path, _, Some(config)) if path == name => config.clone(),
            _ => bytes,
        };
        packed(&app, &other, change, &[("evil.json", &evil)]);
        let refused = check().exits(1);
        assert!(
            refused.stdout.contains("it can be read as two images"),
            "{}",
            refused.stdout
        );
        assert!(
            refused.stdout.contains(reason),
            "`{reason}` is missing in {}",
            refused.stdout
        );
        let told = place.run(&["verify", "evil.tar"]).exits(1);
        assert!(told.stdout.contains(reason) || config.is_some(), "{}", told.stdout);
    }
    fs::remove_file(other).unwrap();
}
