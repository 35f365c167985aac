//! Shared caches lose what nobody has used for long, and keep what is in use.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::registry::{registry, registry_in};
use crate::served::Demands;
use crate::shared_builds::{Builder, SPEC, summary};
use crate::support::Ran;

/// A day of 2023, and days long after it.
const FIRST: i64 = 1_700_000_000;
const SECOND: i64 = FIRST + 40 * 24 * 60 * 60;
const THIRD: i64 = SECOND + 40 * 24 * 60 * 60;

impl Builder {
    /// Runs at a time, and writes to a cache where one is given.
    fn at(&self, now: i64, command: &[&str], cache: Option<&str>) -> Ran {
        let secret = self.secret.to_str().unwrap();
        let more = cache.map(|cache| ["--cache-to", cache, "--cache-sign-key", secret]);
        let command = [command, more.as_ref().map_or(&[][..], |more| &more[..])].concat();
        let mut command = self.place.command(&command);
        Ran::of(command.env("SOURCE_DATE_EPOCH", now.to_string()).output().unwrap())
    }
}

/// The entries of a cache: which tags, and when they were used.
fn entries(builder: &Builder, cache: &str) -> Vec<Value> {
    let listed = builder.place.run(&["cache", "ls", "--json", cache]).success();
    let listed: Value = serde_json::from_str(listed.stdout.lines().last().unwrap()).unwrap();
    listed["entries"].as_array().unwrap().clone()
}

fn count(entries: &[Value], day: &str) -> usize {
    let of_day = |entry: &&Value| entry["used"].as_str().unwrap_or("none").starts_with(day);
    entries.iter().filter(of_day).count()
}

/// The files of a layout's blobs, and those that its index leads to.
fn blobs(dir: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let names = layerize::fsio::sorted_names(&dir.join("blobs/sha256")).unwrap();
    let there = names.into_iter().map(|name| name.into_string().unwrap()).collect();
    let read = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    let hex = |digest: &Value| digest.as_str().unwrap().replace("sha256:", "");
    let mut named = BTreeSet::new();
    for entry in read(&dir.join("index.json"))["manifests"].as_array().unwrap() {
        let manifest = hex(&entry["digest"]);
        let document = read(&dir.join("blobs/sha256").join(&manifest));
        named.insert(manifest);
        named.insert(hex(&document["config"]["digest"]));
        named.extend(
            document["layers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|layer| hex(&layer["digest"])),
        );
    }
    (there, named)
}

/// Takes the dates away from all entries of a layout.
fn undate(dir: &Path) {
    let index = dir.join("index.json");
    let mut listed: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    for entry in listed["manifests"].as_array_mut().unwrap() {
        let blob = |digest: &str| dir.join("blobs/sha256").join(digest.replace("sha256:", ""));
        let mut manifest: Value =
            serde_json::from_slice(&fs::read(blob(entry["digest"].as_str().unwrap())).unwrap()).unwrap();
        let annotations = manifest["annotations"].as_object_mut().unwrap();
        annotations.remove("org.opencontainers.image.created").unwrap();
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let digest = layerize::digest::Digest::of(&bytes).to_string();
        fs::write(blob(&digest), &bytes).unwrap();
        entry["digest"] = digest.into();
        entry["size"] = bytes.len().into();
    }
    fs::write(&index, listed.to_string()).unwrap();
}

#[test]
fn a_layout_keeps_what_is_used_and_no_blob_beyond_it() {
    let builder = Builder::new();
    let dir = builder.place.path().join("cache");
    let cache = format!("oci:{}", dir.display());
    let build = ["build", "app", "-o", "oci:image"];
    builder.at(FIRST, &build, Some(&cache)).success();
    assert_eq!(count(&entries(&builder, &cache), "2023-11-14"), 3);
    // Later the app is another one, and what it is built with is in use.
    builder.place.write("src/word", "other\n");
    let built = builder.at(SECOND, &build, Some(&cache)).success();
    assert!(!built.stderr.contains("kept tool"), "{}", built.stderr);
    let found = entries(&builder, &cache);
    assert_eq!(
        (count(&found, "2023-11-14"), count(&found, "2023-12-24")),
        (1, 3),
        "{found:?}"
    );

    let prune = ["cache", "prune", &cache, "--older-than", "30d"];
    let dry = builder
        .at(SECOND, &[&prune[..], &["--dry-run"]].concat(), None)
        .success();
    assert_eq!(entries(&builder, &cache), found, "a dry run changes nothing");
    let pruned = builder.at(SECOND, &prune, None).success();
    assert_eq!(pruned.stdout, dry.stdout);
    let tag = found
        .iter()
        .find(|entry| count(std::slice::from_ref(entry), "2023-11-14") == 1);
    let tag = tag.unwrap()["tags"][1].as_str().unwrap();
    assert!(pruned.line().starts_with(&format!("{tag}  ")), "{}", pruned.stdout);
    let pruned = pruned.says(&["1 entry removed (", "freed), 3 kept"]);
    assert_eq!(pruned.stdout.lines().count(), 1, "{}", pruned.stdout);
    let (there, named) = blobs(&dir);
    assert_eq!(there, named);
    // What stays can be read.
    let reader = builder.place.elsewhere();
    let read = reader.run(&builder.reading(&build, &cache)).success();
    assert!(
        summary(&read).starts_with("0 built, 2 from shared caches"),
        "{}",
        read.stderr
    );

    // As before entries had dates; the cache is the spec's.
    undate(&dir);
    builder
        .place
        .write("layerize.toml", &format!("{SPEC}\n[cache]\nto = [\"{cache}\"]\n"));
    let prune = ["cache", "prune", "--older-than", "8w"];
    builder
        .at(THIRD, &prune, None)
        .success()
        .says(&["0 entries removed, 3 kept, of which 3 without a date (`--undated` removes them)"]);
    let all = builder
        .at(THIRD, &[&prune[..], &["--undated"]].concat(), None)
        .success();
    assert_eq!(all.stdout.lines().count(), 3, "{}", all.stdout);
    assert_eq!(blobs(&dir), (BTreeSet::new(), BTreeSet::new()));
    builder
        .place
        .run(&["cache", "prune", "--older-than", "1y"])
        .exits(2)
        .says(&["30d"]);
}

#[test]
fn a_registry_keeps_what_is_used_or_has_another_name() {
    let builder = Builder::new();
    let Some(registry) = registry(&builder.place, Demands::default()) else {
        return;
    };
    let spec = format!("{SPEC}created = \"2023-01-01T00:00:00Z\"\n");
    builder.place.write("layerize.toml", &spec);
    let (cache, to) = (
        format!("docker://{}/cache", registry.host),
        format!("{}/app:1", registry.host),
    );
    let push = builder.reading(&["push", "app", &to], &cache);
    builder.at(FIRST, &push, Some(&cache)).success();
    assert_eq!(count(&entries(&builder, &cache), "2023-11-14"), 4);
    // Nothing is built, and all of it is in use.
    let again = builder.at(SECOND, &push, Some(&cache)).success();
    again.says(&["nothing is built"]);
    let found = entries(&builder, &cache);
    assert_eq!(count(&found, "2023-12-24"), 4, "{found:?}");
    let prune = ["cache", "prune", &cache, "--older-than", "30d"];
    let none = builder.at(SECOND, &prune, None).success();
    assert_eq!(none.stdout, "");

    // Somebody gives the image a name of their own there; another app is built.
    let is_image = |entry: &&Value| entry["tags"][0].as_str().unwrap().starts_with("i-");
    let image = found.iter().find(is_image).unwrap()["tags"][0]
        .as_str()
        .unwrap()
        .to_owned();
    let mine = format!("{cache}:mine");
    builder
        .place
        .run(&["copy", "--all", &format!("{cache}:{image}"), &mine])
        .success();
    builder.place.write("src/word", "other\n");
    let build = ["build", "app", "-o", "oci:image"];
    builder.at(THIRD, &build, Some(&cache)).success();
    let pruned = builder.at(THIRD, &prune, None).success();
    let pruned = pruned.says(&[
        &format!("{image} stays: it has another name"),
        "1 entry removed, 3 kept",
    ]);
    assert!(pruned.line().starts_with("p-"), "{}", pruned.stdout);
    assert_eq!(entries(&builder, &cache).len(), 4);
    builder.place.run(&["inspect", &mine]).success();
    let reader = builder.place.elsewhere();
    let read = reader.run(&builder.reading(&build, &cache)).success();
    assert!(
        summary(&read).starts_with("0 built, 2 from shared caches"),
        "{}",
        read.stderr
    );

    // A registry that deletes nothing says so.
    let keep = Demands {
        keep: true,
        ..Demands::default()
    };
    let refusing = registry_in(&builder.place, "refusing", keep).unwrap();
    let other = format!("docker://{}/cache", refusing.host);
    builder.at(FIRST, &["build", "data"], Some(&other)).success();
    let prune = ["cache", "prune", &other, "--older-than", "30"];
    let refused = builder.at(SECOND, &prune, None).exits(2);
    assert_eq!(refused.stdout, "");
    refused.says(&["cannot remove what is old from", "405", "lets nobody delete", "storage"]);
    assert_eq!(entries(&builder, &other).len(), 1);
    builder
        .place
        .run(&["cache", "ls", &format!("docker://{}/nothing", refusing.host)])
        .success()
        .says(&["0 entries"]);
}
