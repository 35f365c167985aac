//! `layerize store copy`, `sign` and `key`: closures go to a binary cache and come from one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{Place, Ran, have, peer};

/// A place whose store holds a tree; its store path.
fn with_tree() -> (Place, String) {
    let place = Place::new();
    place.write("tree/bin/run", "#!/bin/sh\n").write("tree/data", "data\n");
    let path = place.run(&["store", "add", "tree"]).success().line().to_owned();
    (place, path)
}

#[test]
fn a_path_goes_to_a_cache_and_comes_from_it() {
    let (place, path) = with_tree();
    let public = place
        .run(&["store", "key", "generate", "test-1"])
        .success()
        .line()
        .to_owned();
    assert!(public.starts_with("test-1:"), "{public}");
    let secret = place.project.join("test-1.secret");
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        fs::read_to_string(place.project.join("test-1.public")).unwrap(),
        format!("{public}\n")
    );
    assert_eq!(
        place.run(&["store", "key", "public", "test-1.secret"]).success().line(),
        public
    );
    place
        .run(&["store", "key", "generate", "test-1"])
        .exits(2)
        .says(&["test-1.secret` exists already", "help:"]);
    place.run(&["store", "sign", "--key", "test-1.secret", &path]).success();
    for compression in ["xz", "zstd", "none"] {
        let to = format!("file:cache-{compression}");
        let copy = ["store", "copy", "--to", &to, "--compression", compression, &path];
        assert_eq!(place.run(&copy).success().line(), path);
        place.run(&copy).success().says(&["0 store paths copied"]);
        let dir = place.project.join(format!("cache-{compression}"));
        let hash = &path["/layerize/store/".len()..][..32];
        let narinfo = fs::read_to_string(dir.join(format!("{hash}.narinfo"))).unwrap();
        assert!(
            narinfo.contains("Sig: test-1:") && narinfo.contains("CA: fixed:r:sha256:"),
            "{narinfo}"
        );
        assert_eq!(
            fs::read_to_string(dir.join("nix-cache-info")).unwrap().lines().next(),
            Some("StoreDir: /layerize/store")
        );
        // Another store takes it, without a key: its name proves its content.
        let other = place.path().join(format!("other-{compression}"));
        let from = format!("file://{}", dir.display());
        let take = |more: &[&str]| {
            let store = other.to_str().unwrap();
            place.run(
                &[
                    &["--store", store, "store", "copy", "--from", &from][..],
                    more,
                    &[&path],
                ]
                .concat(),
            )
        };
        assert_eq!(take(&[]).success().line(), path);
        assert_eq!(take(&[]).success().stdout, "");
        place
            .run(&["--store", other.to_str().unwrap(), "store", "verify"])
            .success();
    }
}

/// Runs a program of Nix in a place, with its experimental command enabled.
fn nix(place: &Place, program: &str, args: &[&str]) -> Ran {
    let mut command = Command::new(program);
    if program == "nix" {
        command.args(["--extra-experimental-features", "nix-command"]);
    }
    place.prepare(command.args(["--option", "build-users-group", ""]).args(args));
    peer(&mut command)
}

/// A cache that Nix made and signed with the key whose halves are `secret` and `public` in the project: its directory,
/// a path in it, and the path that this one refers to.
fn cache_of_nix(place: &Place) -> (PathBuf, String, String) {
    let root = format!("local?root={}", place.path().join("nix").display());
    nix(
        place,
        "nix-store",
        &["--generate-binary-cache-key", "nix-1", "secret", "public"],
    );
    // A text that refers to another path: its own address is of a kind that needs a signature.
    place.write("dep/data", "data\n");
    let text = "builtins.toFile \"top\" \"refers to ${./dep}\"";
    let eval = ["--store", &root, "--eval", "--read-write-mode", "-E", text];
    let top = nix(place, "nix-instantiate", &eval).line().trim_matches('"').to_owned();
    let dep = nix(place, "nix-store", &["--store", &root, "-q", "--references", &top])
        .line()
        .to_owned();
    let cache = place.path().join("cache");
    let secret = place.project.join("secret");
    let to = format!("file://{}?secret-key={}", cache.display(), secret.display());
    nix(place, "nix", &["copy", "--store", &root, "--to", &to, &top]);
    (cache, top, dep)
}

#[test]
fn paths_of_nix_need_a_signature_by_a_trusted_key() {
    if !have("nix-store", &["--version"]) {
        return;
    }
    let place = Place::new();
    let (cache, top, dep) = cache_of_nix(&place);
    let from = format!("file:{}", cache.display());
    place.run(&["store", "copy", "--from", &from, &top]).exits(2).says(&[
        "-top` from `file:",
        "it is signed by nix-1, which is not a trusted key",
        "--trusted-key NAME:BASE64",
    ]);
    assert_eq!(place.run(&["store", "ls"]).success().stdout, "");
    place
        .run(&["store", "copy", &top])
        .exits(2)
        .says(&["there is no binary cache to copy from", "[nix] caches"]);
    // The configuration names the cache and the key.
    let public = fs::read_to_string(place.project.join("public")).unwrap();
    let config = format!(
        "[nix]\ncaches = [\"{from}\"]\ntrusted-keys = [\"{}\"]\n",
        public.trim_end()
    );
    fs::create_dir_all(place.path().join("config/layerize")).unwrap();
    fs::write(place.path().join("config/layerize/config.toml"), config).unwrap();
    let copied = place.run(&["store", "copy", &top]).success();
    assert_eq!(copied.stdout, format!("{dep}\n{top}\n"));
    let mut expected = [dep.as_str(), &top];
    expected.sort_unstable();
    let listed = place.run(&["store", "ls"]).success().stdout;
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
    place
        .run(&["store", "verify"])
        .success()
        .says(&["2 store paths, all as they were recorded"]);
    let ours = fs::read_to_string(place.store().join(&top[1..])).unwrap();
    assert_eq!(ours, format!("refers to {dep}"));
    // And out again: the signature of whoever made it goes along.
    let again = format!("file://{}", place.path().join("again").display());
    place.run(&["store", "copy", "--to", &again, &top]).success();
    let root = format!("local?root={}", place.path().join("nix-2").display());
    let mut args = vec![
        "copy",
        "--from",
        &again,
        "--to",
        &root,
        &top,
        "--option",
        "require-sigs",
        "true",
    ];
    args.extend(["--option", "trusted-public-keys", public.trim_end()]);
    nix(&place, "nix", &args);
    place.run(&["store", "gc", "--all"]).success();
    assert_eq!(place.run(&["store", "ls"]).success().stdout, "");
}

#[test]
fn an_image_of_fetched_paths_needs_no_nix() {
    if !have("nix-store", &["--version"]) {
        return;
    }
    let place = Place::new();
    let (cache, top, dep) = cache_of_nix(&place);
    let key = fs::read_to_string(place.project.join("public")).unwrap();
    let from = format!("file://{}", cache.display());
    let copy = ["store", "copy", "--from", &from, "--trusted-key", key.trim(), &top];
    place.run(&copy).success();
    // What the variable names joins the closure, and what that refers to.
    let (none, real) = (place.path().join("no-nix"), place.path().join("nix"));
    let variable = format!("TOP={top}");
    let build = |root: &PathBuf, sink: &str| {
        let root = root.to_str().unwrap();
        let built = place.run(&[
            "--nix-store",
            root,
            "build",
            &dep,
            "--name",
            "app",
            "--env",
            &variable,
            "-o",
            sink,
        ]);
        built.success().stdout.split(' ').next().unwrap().to_owned()
    };
    assert_eq!(build(&none, "oci:fetched:1"), build(&real, "oci:of-nix:1"));
    let seen = place.run(&["inspect", "--json", "oci:fetched:1"]).success().stdout;
    assert!(seen.contains(&top) && seen.contains(&dep), "{seen}");
    let none = none.to_str().unwrap();
    let closure = place.run(&["--nix-store", none, "closure", &top]).success();
    assert!(closure.stdout.contains(&dep), "{}", closure.stdout);
    place.run(&["--nix-store", none, "store", "info", &top]).success();
}

#[test]
fn wrong_arguments_are_explained() {
    let (place, path) = with_tree();
    let nix = "/nix/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-x";
    for (args, words) in [
        (
            &["copy", "--to", "file:c", "nonsense"][..],
            &["`nonsense` is not a store path"][..],
        ),
        (
            &["copy", "--to", "file:c", &path, nix],
            &["the paths are of two stores"],
        ),
        (
            &["copy", "--to", "http://host/c", &path],
            &["cannot be written to", "`file:DIR`, and serve that"],
        ),
        (&["copy", "--to", "file:c", nix], &["is not valid"]),
        (
            &["copy", "--to", "file:c", "--compression", "bzip2", &path],
            &["`bzip2` is only read"],
        ),
        (
            &["copy", "--from", "file:/nowhere", nix],
            &["is not a binary cache", "help:"],
        ),
        (
            &["copy", "--from", "ftp://x", nix],
            &["only `file:`, `http:` and `https:` are supported"],
        ),
        (
            &["copy", "--to", "file:c", "--sign-key", "tree/data", &path],
            &["cannot use the key in `tree/data`", "store key generate"],
        ),
        (&["sign", "--key", "tree/data", &path], &["cannot use the key"]),
        (&["key", "generate", "a/b"], &["holds a space, a colon, a slash"]),
    ] {
        let args: Vec<&str> = ["store"].iter().chain(args).copied().collect();
        place.run(&args).exits(2).says(words);
    }
    assert!(!place.project.join("c").join("nix-cache-info").exists());
}

#[test]
fn an_image_in_the_dialect_of_another_tool_says_so() {
    let (place, path) = with_tree();
    let build = |more: &[&str], to: &str| {
        let sink = format!("oci:{to}");
        let args = [
            &["build", &path, "--name", "app", "--compression", "none", "-o", &sink][..],
            more,
        ]
        .concat();
        place.run(&args).success();
        place.run(&["verify", &sink]).success();
        let report = place.run(&["--json", "inspect", &sink]).success().stdout;
        report.split_once(",\"digest\"").unwrap().1.to_owned()
    };
    let own = build(&[], "own");
    let theirs = build(&["--tar-profile", "nix2container"], "theirs");
    assert_eq!(build(&["--tar-profile", "nix2container"], "again"), theirs);
    assert!(own.contains("dev.layerize.format\":\"1\""), "{own}");
    assert!(theirs.contains("dev.layerize.format\":\"1 nix2container\""), "{theirs}");
    place
        .run(&["build", &path, "--name", "app", "--tar-profile", "n2c"])
        .exits(2)
        .says(&["is not a tar profile"]);
}
