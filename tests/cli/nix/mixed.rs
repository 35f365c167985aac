//! Both stores in one image, and the store of the machine.

use super::*;

#[test]
fn nix_works_in_an_image_with_a_database() {
    let Some((place, nix, path)) = built() else { return };
    let mut args = build_args("program", &path, "docker-archive:program.tar");
    args.push("--nix-db");
    let first = digest(&layerize(&place, &nix, &args).success());
    layerize::fsio::remove_tree(&place.store()).unwrap();
    // Another machine registered the same paths at another time.
    peer(Command::new("python3").args([
        "-c",
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); \
         c.execute('update ValidPaths set registrationTime = 7, deriver = null, ultimate = 0, sigs = \"k:x\"'); c.commit()",
        nix.database().to_str().unwrap(),
    ]));
    assert_eq!(digest(&layerize(&place, &nix, &args).success()), first);
    let Some(rootfs) = unpacked(&place, &place.project.join("program.tar")) else {
        return;
    };
    let inside = Nix {
        root: rootfs,
        dir: nix.dir.clone(),
    };
    let verified = peer(inside.command("nix-store").args(["--verify", "--check-contents"]));
    for complaint in ["error", "modified", "disappeared", "not in", "missing"] {
        assert!(!verified.stderr.contains(complaint), "{}", verified.stderr);
    }
    assert_eq!(inside.requisites(&path), nix.requisites(&path));
    let dead = peer(inside.command("nix-store").args(["--gc", "--print-dead"])).stdout;
    assert_eq!(dead, "", "the roots keep everything");
    // The check can fail: it sees what is not as the database says.
    let text = inside.root.join(path.trim_start_matches('/')).join("share/text");
    fs::set_permissions(&text, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&text, "tampered").unwrap();
    let verified = Ran::of(
        inside
            .command("nix-store")
            .args(["--verify", "--check-contents"])
            .output()
            .unwrap(),
    );
    assert!(verified.stderr.contains("modified"), "{}", verified.stderr);
}

#[test]
fn a_spec_mixes_both_stores_and_the_lock_pins_what_a_link_led_to() {
    let Some((place, nix, one)) = built() else { return };
    let link = nix.dir.join("result");
    place
        .write("conf/app.conf", "conf\n")
        .write("config.toml", &format!("nix-store = \"{}\"\n", nix.root.display()))
        .write(
            "layerize.toml",
            &format!(
                "[package.conf]\nsource = \"conf\"\n\n[image.app]\ncontents = [\"conf\", {{ nix = \"{}\" }}]\n\
                 entrypoint = [\"program\"]\nnix-db = true\n\
                 created = \"2024-12-31T23:59:59Z\"\n",
                link.display()
            ),
        );
    let config = place.path().join("config/layerize");
    fs::create_dir_all(&config).unwrap();
    fs::rename(place.project.join("config.toml"), config.join("config.toml")).unwrap();
    place.run(&["build", "--locked"]).exits(2).says(&["missing", "result"]);
    let first = digest(&place.run(&["build", "-o", "oci-archive:app.tar"]).success());
    let lock = fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    assert!(lock.contains("[[nix]]") && lock.contains(&one), "{lock}");
    let text = place.inspect("app.tar").to_string();
    assert!(text.contains(&one) && text.contains("/layerize/store/"), "{text}");
    assert!(text.contains("2024-12-31T23:59:59Z"), "{text}");
    let closure = place.run(&["closure"]).success().stdout;
    assert!(closure.contains("-conf\t") && closure.contains(&one), "{closure}");
    let json: serde_json::Value = serde_json::from_str(&place.run(&["closure", "--json"]).success().stdout).unwrap();
    assert_eq!(json["roots"].as_array().unwrap().len(), 2);
    place.run(&["lock", "--check"]).success();
    place
        .run(&["build", "--locked", "-o", "oci-archive:again.tar"])
        .success();

    // The link leads elsewhere: `--locked` says so, the lock follows otherwise.
    let two = nix.build(&expression("two"), "result");
    place.run(&["lock", "--check"]).exits(1).says(&["leads to", &two, &one]);
    place.run(&["build", "--locked"]).exits(2).says(&["stale", &two]);
    // A machine on which nothing was built has the path and no link.
    let away = nix.dir.join("away");
    fs::rename(&link, &away).unwrap();
    assert_eq!(
        digest(&place.run(&["build", "--locked", "-o", "oci-archive:app.tar"]).success()),
        first
    );
    fs::rename(&away, &link).unwrap();
    let second = digest(&place.run(&["build", "-o", "oci-archive:app.tar"]).success());
    assert_ne!(second, first);
    let lock = fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    assert!(lock.contains(&two) && !lock.contains(&one), "{lock}");

    a_lock_that_pins_other_content_is_refused(&place, &lock, &link);
    // On the command line a link, or a profile, is as good as what it leads to.
    let relative = Command::new("cp")
        .arg("-P")
        .arg(&link)
        .arg(place.project.join("result"))
        .status()
        .unwrap();
    assert!(relative.success());
    let by_link = place.run(&["build", "result", "-o", "oci-archive:x.tar"]).success();
    let by_path = place.run(&["build", &two, "-o", "oci-archive:y.tar"]).success();
    assert_eq!(digest(&by_link), digest(&by_path));
    assert!(by_link.stdout.contains("oci-archive:x.tar"), "{}", by_link.stdout);
}

fn a_lock_that_pins_other_content_is_refused(place: &Place, lock: &str, link: &Path) {
    let wrong = |key: &str| {
        let lines = lock.lines().map(|line| match line.starts_with(key) {
            true => format!("{key} = \"{}\"", "0".repeat(64)),
            false => line.to_owned(),
        });
        let text: String = lines.map(|line| line + "\n").collect();
        fs::write(place.project.join("layerize.lock"), text).unwrap();
        place
            .run(&["build", "--locked"])
            .exits(2)
            .says(&["not what the lock pins", "--update"])
    };
    wrong("nar-sha256").says(&["the content of"]);
    wrong("closure-sha256").says(&["something in the closure"]);
    place.run(&["lock", "--update", link.to_str().unwrap()]).success();
    place.run(&["build", "--locked", "-o", "oci-archive:app.tar"]).success();
}

/// Without `--nix-store` the machine's own store is meant: here in a root of its own that has the chroot store as `/nix`.
#[test]
fn the_store_of_the_machine_needs_no_option() {
    if !is_root() || !have("unshare", &["--mount", "true"]) {
        return;
    }
    let Some((place, nix, path)) = built() else { return };
    let there = layerize(&place, &nix, &build_args("program", &path, "oci-archive:there.tar")).success();
    fs::copy(LAYERIZE, place.project.join("layerize-copy")).unwrap();
    let script = format!(
        "set -e; r={root}/machine; mkdir $r; mount -t tmpfs none $r
         for d in bin usr lib lib64 etc dev proc; do if test -d /$d; then mkdir $r/$d; mount --rbind /$d $r/$d; fi; done
         mkdir -p $r/nix $r/p $r/tmp; mount --bind {nix}/nix $r/nix; mount --bind {project} $r/p
         ln -s {path} $r/nix-profile
         exec chroot $r sh -c 'cd /p; HOME=/p ./layerize-copy build /nix-profile --name program --entrypoint program \
           -o oci-archive:here.tar'",
        root = place.path().display(),
        nix = nix.root.display(),
        project = place.project.display(),
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    place.prepare(&mut command);
    let here = Ran::of(
        command
            .env_remove("XDG_DATA_HOME")
            .env_remove("XDG_CACHE_HOME")
            .output()
            .unwrap(),
    )
    .success();
    assert_eq!(digest(&here), digest(&there));
}
