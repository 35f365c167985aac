//! A damaged store: builds mend it by themselves, `store verify --repair` does without one, and no advice leads in a
//! circle.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::support::Place;

const SPEC: &str = r#"
[package.lib]
script = "mkdir $out; echo library >$out/lib"

[package.app]
libraries = ["lib"]
script = "mkdir -p $out/bin; echo /layerize/store/*-lib >$out/bin/app"

[package.data]
source = { path = "data" }

[image.app]
contents = ["app", "data"]
"#;

/// What of the store a test damages, by the end of its name.
const PARTS: [&str; 3] = ["-lib", "-app", "-data"];

struct Damaged {
    place: Place,
    digest: String,
}

impl Damaged {
    fn new() -> Self {
        let place = Place::new();
        place.write("layerize.toml", SPEC).write("data/file", "data\n");
        place.lock_base();
        let digest = place.run(&["build", "app"]).success().line().to_owned();
        Self { place, digest }
    }

    /// Where the tree is whose name ends so.
    fn tree(&self, end: &str) -> PathBuf {
        let store = self.place.store().join("store");
        let names = layerize::fsio::sorted_names(&store).unwrap();
        let name = names.iter().find(|name| name.to_string_lossy().ends_with(end));
        store.join(name.unwrap_or_else(|| panic!("nothing ends in {end}")))
    }

    fn remove(&self, end: &str) -> PathBuf {
        let tree = self.tree(end);
        layerize::fsio::remove_tree(&tree).unwrap();
        tree
    }

    /// Changes a file, and has its layer be packed anew.
    fn change(&self, end: &str, file: &str) -> PathBuf {
        let tree = self.tree(end);
        let file = tree.join(file);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&file, "changed\n").unwrap();
        for cache in ["layers", "images"] {
            layerize::fsio::remove_tree(&self.place.store().join("cache").join(cache)).unwrap();
        }
        tree
    }

    #[track_caller]
    fn is_whole(&self) {
        self.place.run(&["store", "verify"]).success();
        let again = self.place.run(&["build", "app"]).success();
        assert_eq!(again.line(), self.digest);
    }
}

#[test]
fn a_build_makes_again_what_is_gone_and_says_so() {
    let damaged = Damaged::new();
    for end in PARTS {
        let tree = damaged.remove(end);
        let built = damaged.place.run(&["build", "app"]).success();
        assert_eq!(built.line(), damaged.digest, "{end}");
        assert!(tree.exists(), "{end}");
        built.says(&[end, "was missing from the store or changed, and has been rebuilt"]);
        damaged.is_whole();
    }
    let tree = damaged.remove("-lib");
    let path = damaged.place.run(&["build", "lib"]).success();
    assert!(path.line().ends_with(tree.file_name().unwrap().to_str().unwrap()));
    assert!(tree.exists(), "the path that is printed is there");
}

#[test]
fn a_tool_that_is_gone_is_fetched_again() {
    let damaged = Damaged::new();
    let tree = damaged.remove_tool();
    damaged
        .place
        .write("layerize.toml", &SPEC.replace("echo library", "echo Library"));
    damaged
        .place
        .run(&["build", "app"])
        .success()
        .says(&["-bash-", "has been rebuilt"]);
    assert!(tree.exists());
    damaged.place.run(&["store", "verify"]).success();
}

impl Damaged {
    fn remove_tool(&self) -> PathBuf {
        let store = self.place.store().join("store");
        let names = layerize::fsio::sorted_names(&store).unwrap();
        let name = names
            .iter()
            .find(|name| name.to_string_lossy().contains("-bash-"))
            .unwrap();
        layerize::fsio::remove_tree(&store.join(name)).unwrap();
        store.join(name)
    }
}

#[test]
fn a_build_makes_again_what_was_changed_when_it_is_packed() {
    let damaged = Damaged::new();
    for (end, file) in [("-lib", "lib"), ("-app", "bin/app"), ("-data", "file")] {
        damaged.change(end, file);
        let built = damaged.place.run(&["build", "app"]).success();
        assert_eq!(built.line(), damaged.digest, "{end}");
        built.says(&[end, "has been rebuilt"]);
        damaged.is_whole();
    }
}

#[test]
fn verify_looks_at_the_paths_that_are_named() {
    let damaged = Damaged::new();
    let lib = damaged.change("-lib", "lib");
    let data = damaged.remove("-data");
    let name = |tree: &PathBuf| tree.file_name().unwrap().to_str().unwrap().to_owned();
    let logical = |tree: &PathBuf| format!("/layerize/store/{}", name(tree));
    let place = &damaged.place;
    let one = place.run(&["store", "verify", &logical(&lib)]).exits(1);
    assert!(one.line().contains("-lib` was modified: `lib`"), "{}", one.stdout);
    let other = place.run(&["store", "verify", &name(&data)]).exits(1);
    assert!(other.line().ends_with("-data` is missing on disk"), "{}", other.stdout);
    place
        .run(&["store", "verify", &logical(&damaged.tree("-app"))])
        .success();
    place
        .run(&["store", "verify", "nonsense"])
        .exits(2)
        .says(&["`nonsense` is not a store path"]);
    place
        .run(&["store", "verify", "00000000000000000000000000000000-x"])
        .exits(2)
        .says(&["is not valid"]);
    place
        .run(&["store", "verify", "--repair", &logical(&lib), &logical(&data)])
        .success()
        .says(&["2 made again, 0 forgotten"]);
    damaged.is_whole();
}

#[test]
fn without_the_project_scripts_are_run_again_and_the_rest_is_forgotten() {
    let damaged = Damaged::new();
    for end in PARTS {
        damaged.remove(end);
    }
    let elsewhere = |args: &[&str]| {
        let mut command = damaged.place.command(args);
        crate::support::Ran::of(command.current_dir(damaged.place.path()).output().unwrap())
    };
    let repaired = elsewhere(&["store", "verify", "--repair"]).success();
    assert!(
        repaired
            .stderr
            .contains("2 made again, 1 forgotten, 0 could not be made"),
        "{}",
        repaired.stderr
    );
    repaired.says(&["-data; the next build that needs it makes it again"]);
    elsewhere(&["store", "verify"]).success();
    damaged.is_whole();
}

#[test]
fn what_cannot_be_made_now_stays_registered() {
    let damaged = Damaged::new();
    damaged.remove_tool();
    // Nowhere to be had: neither kept nor at any mirror.
    let mut command = damaged.place.command(&["store", "verify", "--repair"]);
    let ran = crate::support::Ran::of(
        command
            .env("XDG_CACHE_HOME", damaged.place.path().join("empty"))
            .env("APT_CONFIG", "/dev/null")
            .env("PATH", "/nowhere")
            .output()
            .unwrap(),
    );
    ran.exits(1)
        .says(&["cannot make /layerize/store/", "0 forgotten, 1 could not be made"]);
    damaged
        .place
        .run(&["store", "verify", "--repair"])
        .success()
        .says(&["1 made again"]);
    damaged.is_whole();
}

#[test]
fn a_store_path_that_is_gone_is_named_with_what_to_type() {
    let damaged = Damaged::new();
    let tree = damaged.remove("-lib");
    let path = format!("/layerize/store/{}", tree.file_name().unwrap().to_str().unwrap());
    for verb in ["build", "closure"] {
        damaged
            .place
            .run(&[verb, &path])
            .exits(2)
            .says(&["is missing on disk", "layerize store verify --repair"]);
    }
}
