//! `cache = { dirs = … }`: what scripts find as earlier runs left it, and that nothing depends on it.

use serde_json::{Value, json};

use crate::support::{Place, Ran, copy_tree};

/// A spec with one package, whose script counts its runs in its cache.
fn spec(script: &str) -> String {
    format!(
        "[package.app]\nsource = {{ path = \"src\" }}\ncache = {{ dirs = [\"/build/kept\", \"/build/source/target\"] }}\n\
         script = '''\necho \"found $(ls /build/kept | wc -l) and $(ls target | wc -l)\"\n{script}\n'''\n"
    )
}

/// Leaves a file in each directory.
const LEAVE: &str = "touch /build/kept/run$(ls /build/kept | wc -l) target/object";

fn place(script: &str) -> Place {
    let place = Place::new();
    place.write("layerize.toml", &spec(script)).write("src/a", "a");
    place.lock_base();
    place
}

/// What the last build of the package said.
fn said(place: &Place, args: &[&str]) -> String {
    let built = place.run(args).success();
    built.stderr
}

#[test]
fn a_script_finds_what_earlier_runs_left() {
    let place = place(&format!("{LEAVE}\ncp a $out"));
    let build = ["build", "app", "--verbose"];
    let first = said(&place, &build);
    assert!(first.contains("found 0 and 0"), "{first}");
    // The same script with the same inputs does not run again, whatever its cache holds.
    assert!(!said(&place, &build).contains("found"));
    place.write("src/a", "b");
    let second = said(&place, &build);
    assert!(second.contains("found 1 and 1"), "{second}");
    place.write("src/a", "c");
    let third = said(&place, &["build", "app", "--verbose", "--no-build-cache"]);
    assert!(third.contains("found 0 and 0"), "{third}");
    // A project elsewhere has caches of its own.
    place.write("src/a", "d");
    let elsewhere = place.path().join("elsewhere");
    copy_tree(&place.project, &elsewhere);
    let other = Ran::of(place.command(&build).current_dir(&elsewhere).output().unwrap());
    other.success().says(&["found 0 and 0"]);
    // They go when they were not used.
    place.run(&["store", "gc"]).success();
    place.write("src/a", "e");
    assert!(said(&place, &build).contains("found 2 and 1"));
    // Not the downloads that tests share.
    let mut collect = place.command(&["store", "gc", "--older-than", "0"]);
    collect.env("XDG_CACHE_HOME", place.path().join("cache"));
    let collected = Ran::of(collect.output().unwrap()).success();
    assert!(
        collected.stderr.contains("deleted: 2 build caches"),
        "{}",
        collected.stderr
    );
    place.write("src/a", "f");
    assert!(said(&place, &build).contains("found 0 and 0"));
}

#[test]
fn a_check_compares_what_is_made_with_a_cache_and_without() {
    // Made with an empty cache, with a full one, and with one that leaves a trace in the output.
    let place = place(&format!("{LEAVE}\ncp a $out"));
    for text in ["a", "b"] {
        place.write("src/a", text);
        place.run(&["build", "app"]).success();
        let ran = place.run(&["check", "app"]).success();
        assert!(ran.stdout.starts_with("same     app "), "{}", ran.stdout);
    }
    place.write("layerize.toml", &spec(&format!("{LEAVE}\nls /build/kept | sort >$out")));
    place.run(&["build", "app"]).success();
    let ran = place.run(&["check", "--find-cause", "app"]).exits(1);
    assert!(ran.stdout.starts_with("DIFFERS  app "), "{}", ran.stdout);
    assert!(ran.stdout.contains("depends on: build cache"), "{}", ran.stdout);
}

#[test]
fn the_provenance_names_what_was_kept() {
    let place = place(&format!("{LEAVE}\ncp a $out"));
    let text = spec(&format!("{LEAVE}\ninstall -D a $out/share/a")) + "[image.app]\ncontents = [\"app\"]\n";
    place.write("layerize.toml", &text);
    let provenance = || -> Value {
        let stdout = place.run(&["provenance", "app"]).success().stdout;
        serde_json::from_str(&stdout).unwrap()
    };
    let internal = |document: &Value| document["predicate"]["buildDefinition"]["internalParameters"].clone();
    let expected = json!({ "app": ["/build/kept", "/build/source/target"] });
    assert_eq!(internal(&provenance())["buildCaches"], expected);
    let image = place.run(&["build", "app"]).success().line().to_owned();
    place.write("layerize.toml", &text.replace("\"/build/kept\", ", ""));
    assert_eq!(
        internal(&provenance())["buildCaches"],
        json!({ "app": ["/build/source/target"] })
    );
    assert_eq!(
        place.run(&["build", "app"]).success().line(),
        image,
        "no digest depends on it"
    );
}

#[test]
fn what_goes_wrong_with_a_cache_is_told() {
    let place = place(&format!("{LEAVE}\ntest $(ls target | wc -l) = 1 || exit 7\ncp a $out"));
    place.run(&["build", "app"]).success();
    place.write("layerize.toml", &spec("exit 7"));
    place
        .run(&["build", "app"])
        .exits(2)
        .says(&["what earlier runs left in its `cache`", "`--no-build-cache`"]);
    let alone = place.run(&["build", "app", "--no-build-cache"]).exits(2);
    assert!(!alone.stderr.contains("earlier runs"), "{}", alone.stderr);
    place
        .run(&["build", "app", "--sandbox", "none"])
        .exits(2)
        .says(&["without a sandbox"]);
    place
        .write("src/target/object", "")
        .write("layerize.toml", &spec("cp a $out"));
    place
        .run(&["build", "app"])
        .exits(2)
        .says(&["`/build/source/target`", "the source has something", "`exclude`"]);
}

#[test]
fn places_that_cannot_be_kept_are_refused() {
    let place = Place::new();
    for (dirs, said) in [
        ("[]", "names no directory"),
        ("[\"/tmp/x\"]", "not below `/build`"),
        ("[\"kept\"]", "not below `/build`"),
        ("[\"/build\"]", "not below `/build`"),
        ("[\"/build/\"]", "not a plain path"),
        ("[\"/build/../etc\"]", "not a plain path"),
        ("[\"/build//x\"]", "not a plain path"),
        ("[\"/build/source\"]", "the source itself"),
        ("[\"/build/x\", \"/build/x/y\"]", "cached twice over"),
        ("[\"/build/x/y\", \"/build/x\"]", "cached twice over"),
    ] {
        let text = format!("[package.app]\nscript = \"touch $out\"\ncache = {{ dirs = {dirs} }}\n");
        place.write("layerize.toml", &text);
        place.run(&["lock"]).exits(2).says(&[said, "layerize.toml:3:"]);
    }
    place.write(
        "layerize.toml",
        "[package.app]\nsource = \"src\"\ncache = { dirs = [\"/build/x\"] }\n",
    );
    place
        .write("src/a", "")
        .run(&["lock"])
        .exits(2)
        .says(&["`cache`", "without a `script`"]);
}
