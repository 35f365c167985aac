//! `layerize store`: what goes in has the address that real Nix computes, and stays as long as a root needs it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use crate::support::{LAYERIZE, Place, Ran, have, is_root, peer, skipped};

/// A tree with everything that a store path may hold.
fn make_tree(place: &Place) {
    place
        .write("tree/empty-file", "")
        .write("tree/dir/text", "text\n")
        .write("tree/ünïcode", "ü")
        .write("tree/run", "#!/bin/sh\n");
    fs::create_dir(place.project.join("tree/empty-dir")).unwrap();
    fs::set_permissions(place.project.join("tree/run"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink("dir/text", place.project.join("tree/link")).unwrap();
    symlink("/nowhere", place.project.join("tree/dangling")).unwrap();
    fs::write(place.project.join("tree/large"), vec![7; 5_000_001]).unwrap();
}

#[test]
fn added_trees_have_the_paths_that_nix_gives_them() {
    let place = Place::new();
    make_tree(&place);
    let path = place.run(&["store", "add", "tree"]).success().line().to_owned();
    let file = place
        .run(&["store", "add", "--flat", "tree/large"])
        .success()
        .line()
        .to_owned();
    assert!(
        path.starts_with("/layerize/store/") && path.ends_with("-tree"),
        "{path}"
    );
    if !have("nix-store", &["--version"]) {
        return;
    }
    let nix = |args: &[&str]| {
        let root = format!(
            "local?root={}&store=/layerize/store",
            place.path().join("nix").display()
        );
        let mut command = Command::new("nix-store");
        place.prepare(
            command
                .args(["--option", "build-users-group", "", "--store", &root])
                .args(args),
        );
        peer(&mut command).line().to_owned()
    };
    assert_eq!(nix(&["--add", "tree"]), path);
    assert_eq!(nix(&["--add-fixed", "--recursive", "sha256", "tree"]), path);
    assert_eq!(nix(&["--add-fixed", "sha256", "tree/large"]), file);

    let physical = place.store().join("store").join(path.rsplit('/').next().unwrap());
    let sum = |tree: &std::path::Path| {
        let dump = format!("nix-store --dump '{}' | sha256sum", tree.display());
        peer(Command::new("sh").args(["-c", &dump])).stdout[..64].to_owned()
    };
    let info: serde_json::Value =
        serde_json::from_str(&place.run(&["store", "info", "--json", &path]).success().stdout).unwrap();
    assert_eq!(info["narHash"], format!("sha256:{}", sum(&physical)), "{info}");
    assert_eq!(sum(&place.project.join("tree")), sum(&physical));
}

#[test]
fn what_no_root_needs_is_collected() {
    let place = Place::new();
    make_tree(&place);
    place.write("layerize.toml", "[package.kept]\nsource = \"tree/dir\"\n");
    let kept = place.run(&["build", "kept"]).success().line().to_owned();
    let lost = place.run(&["store", "add", "tree"]).success().line().to_owned();
    let listed = place.run(&["store", "ls"]).success().stdout;
    assert!(listed.contains(&kept) && listed.contains(&lost), "{listed}");

    // It was used just now.
    place.run(&["store", "gc"]).success().says(&[
        "kept by package kept in ",
        "kept because it was used in the last 30 days (`--all` deletes it): ",
        "0 paths deleted",
    ]);
    let gc = ["store", "gc", "--all", "--verbose"];
    let dry = place.run(&[&gc[..], &["--dry-run"]].concat()).success().stdout;
    assert!(dry.contains(&lost) && !dry.contains(&kept), "{dry}");
    assert_eq!(
        place.run(&["store", "ls"]).success().stdout,
        listed,
        "a dry run deletes nothing"
    );

    let json = place.run(&["store", "gc", "--all", "--dry-run", "--json"]).success();
    let json: serde_json::Value = serde_json::from_str(json.line()).unwrap();
    let removed: Vec<&str> = json["removed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path["path"].as_str().unwrap())
        .collect();
    assert_eq!(removed, dry.lines().collect::<Vec<_>>());
    assert_eq!(
        (&json["dryRun"], &json["kept"][0]["target"]),
        (&true.into(), &"kept".into())
    );
    let done = place.run(&gc).success().stdout;
    assert_eq!(done, dry);
    let left = place.run(&["store", "ls"]).success().stdout;
    assert!(left.contains(&kept) && !left.contains(&lost), "{left}");
    place.run(&["store", "verify"]).success();
    place.run(&["store", "info", &lost]).exits(2).says(&[&lost]);
}

#[test]
fn roots_tell_for_whom_they_are_and_can_be_removed() {
    let place = Place::new();
    make_tree(&place);
    place.write(
        "layerize.toml",
        "[package.kept]\nsource = \"tree/dir\"\n\n[image.app]\ncontents = [\"kept\"]\n",
    );
    place.run(&["build", "kept"]).success();
    place.run(&["build", "app"]).success();
    let folder = place.project.display().to_string();
    let listed = place.run(&["store", "roots"]).success().stdout;
    assert_eq!(
        listed,
        format!("image app in {folder}: 1 roots\npackage kept in {folder}: 1 roots\n")
    );
    let all = place.run(&["store", "roots", "--verbose"]).success().stdout;
    assert!(
        all.lines().count() == 2 && all.contains("-image-app-0 → /layerize/store/"),
        "{all}"
    );
    let json = place.run(&["store", "roots", "--json"]).success().stdout;
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["folder"], &first["of"]["name"]),
        (&folder.as_str().into(), &"app".into())
    );
    place
        .run(&["store", "roots", "remove", "nothing"])
        .exits(2)
        .says(&["`nothing` is neither", "help: "]);
    let name = first["name"].as_str().unwrap();
    place
        .run(&["store", "roots", "remove", name])
        .success()
        .says(&["1 roots removed"]);
    // From elsewhere, by the folder, which is gone by now.
    fs::remove_dir_all(&place.project).unwrap();
    let run = |args: &[&str]| Ran::of(place.command(args).current_dir(place.path()).output().unwrap());
    let listed = run(&["store", "roots"]).success().stdout;
    assert!(listed.contains(" (the folder is gone): 1 roots"), "{listed}");
    run(&["store", "gc", "--all"]).success().says(&["0 paths deleted"]);
    run(&["store", "roots", "remove", "project"]).success();
    run(&["store", "gc", "--all"]).success().says(&["1 paths deleted"]);
    assert_eq!(run(&["store", "roots"]).success().stdout, "");
}

/// What one had built with stays over a collection: the next edit is as fast as it was.
#[test]
fn a_collection_keeps_what_recent_builds_opened() {
    let place = Place::with_script("mkdir $out; echo one > $out/file");
    place.run(&["build", "thing"]).success();
    let listed = place.run(&["store", "ls"]).success().stdout;
    assert!(listed.contains("-coreutils-"));
    place.run(&["store", "gc"]).success();
    assert_eq!(place.run(&["store", "ls"]).success().stdout, listed);
    place.write(
        "layerize.toml",
        &crate::support::script_spec("mkdir $out; echo two > $out/file"),
    );
    let edited = place.run(&["build", "--offline", "thing"]).success();
    assert!(!edited.stderr.contains("unpacked"), "{}", edited.stderr);
    // What was made first is unused from now on, the tools are not.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    place.run(&["build", "thing"]).success();
    let collected = place.run(&["store", "gc", "--older-than", "1s", "--verbose"]).success();
    assert!(collected.line().ends_with("-thing"), "{}", collected.stdout);
    place.run(&["store", "verify", "--no-contents"]).success();
}

#[test]
fn identical_files_share_their_place_on_the_disk() {
    let place = Place::new();
    make_tree(&place);
    peer(
        Command::new("cp")
            .args(["-r", "tree", "other"])
            .current_dir(&place.project),
    );
    place.write("other/more", "more");
    place.run(&["store", "add", "tree", "other"]).success();
    let shares = |ran: Ran| ran.says(&["4 more files share", "5.00 MB saved"]);
    shares(place.run(&["store", "optimise"]).success());
    place.run(&["store", "verify"]).success();
    let again = place.run(&["store", "optimize", "--json"]).success();
    let again: serde_json::Value = serde_json::from_str(again.line()).unwrap();
    assert_eq!(again, serde_json::json!({ "files": 0, "bytes": 0 }));
}

#[test]
fn verify_names_what_was_changed() {
    let place = Place::new();
    make_tree(&place);
    let path = place.run(&["store", "add", "tree"]).success().line().to_owned();
    place.run(&["store", "verify"]).success();
    let physical = place.store().join("store").join(path.rsplit('/').next().unwrap());
    let text = physical.join("dir/text");
    fs::set_permissions(&text, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&text, "tampered").unwrap();
    let verified = place.run(&["store", "verify"]).exits(1);
    let base = path.rsplit('/').next().unwrap();
    assert!(
        verified.stdout.contains(base) && verified.stdout.contains("dir/text"),
        "{}",
        verified.stdout
    );
}

#[test]
fn what_a_store_cannot_hold_is_refused() {
    let place = Place::new();
    place.write("tree/a", "");
    peer(Command::new("mkfifo").arg(place.project.join("tree/pipe")));
    place.run(&["store", "add", "tree"]).exits(2).says(&["tree/pipe"]);
    place.run(&["store", "add", "missing"]).exits(2).says(&["missing"]);
    assert_eq!(place.run(&["store", "ls"]).success().stdout, "");
}

/// `sudo layerize` in a user's store leaves nothing that the user could not use or remove afterwards.
#[test]
fn the_owner_of_a_store_is_kept_when_root_runs_in_it() {
    if !is_root() {
        return skipped("only root can run in the store of somebody else");
    }
    let place = Place::with_script("mkdir -p $out/dir; echo $out > $out/dir/self; ln -s dir $out/link");
    place.write("tree/dir/file", "text");
    peer(Command::new("chown").args(["-R", "4242:4243"]).arg(place.path()));
    let owners = || {
        let list = ["-printf", "%U:%G %P\\n"];
        peer(Command::new("find").arg(place.store()).args(list)).stdout
    };
    let are_kept = |what: &str| {
        let listed = owners();
        let others: Vec<&str> = listed.lines().filter(|line| !line.starts_with("4242:4243 ")).collect();
        assert!(others.is_empty(), "{what}: {others:#?}");
    };
    for command in [
        &["store", "ls"][..],
        &["store", "add", "tree"],
        &["build", "thing"],
        &["build", "thing", "-o", "oci:out:v1"],
        &["store", "verify"],
        &["check", "thing"],
        &["store", "gc", "--all"],
        &["store", "add", "tree"],
    ] {
        let ran = place.run(command);
        assert_eq!(ran.status, 0, "{command:?}: {}", ran.stderr);
        are_kept(&format!("{command:?}"));
    }
    // What root makes in a project is root's, as with every other program.
    assert_eq!(place.project.join("out/index.json").metadata().unwrap().uid(), 0);
    // The user goes on as before, with a program that everybody can reach.
    let program = place.path().join("layerize");
    fs::copy(LAYERIZE, &program).unwrap();
    let user = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "4242", "--regid", "4243", "--clear-groups"])
            .arg(&program)
            .args(args);
        place.prepare(&mut command);
        command.env("XDG_CACHE_HOME", place.path().join("cache"));
        Ran::of(command.output().unwrap()).success()
    };
    user(&["store", "verify"]);
    user(&["store", "gc"]);
    user(&["store", "add", "tree"]);
    user(&["build", "thing"]);
}
