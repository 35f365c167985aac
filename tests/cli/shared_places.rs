//! Places of shared caches, and whose word what is kept there is: what is not in order is told, and mended by who writes.

use std::fs;

use serde_json::Value;

use crate::shared_builds::{Builder, SPEC, summary};

#[test]
fn what_was_taken_on_nobody_s_word_is_not_signed_later() {
    let builder = Builder::new();
    builder
        .place
        .run(&["build", "app", "-o", "oci:first", "--cache-to", "oci:unsigned"])
        .success();
    let other = builder.place.elsewhere();
    let unsigned = ["--cache-from", "oci:unsigned", "--cache-unsigned"];
    let build = ["build", "--locked", "app", "-o", "oci:image"];
    let taken = other.run(&[&build[..], &unsigned].concat()).success();
    assert!(summary(&taken).starts_with("0 built"), "{}", taken.stderr);
    // Another command, which signs: neither the steps nor the image that is made of them.
    let secret = builder.secret.to_str().unwrap();
    let signing = ["--cache-to", "oci:signed", "--cache-sign-key", secret];
    let signed = other.run(&[&build[..], &signing].concat()).success();
    signed.says(&["cannot be signed and is not kept", "--cache-unsigned"]);
    assert!(!other.project.join("signed").exists(), "something was signed");
    // What is built here, or taken from who signed it, is as good as ever.
    let trusted = builder.place.elsewhere();
    builder.fill(&["build", "app", "-o", "oci:first"], "oci:good");
    let good = builder.place.project.join("good");
    let good = format!("oci:{}", good.display());
    trusted
        .run(&[&builder.reading(&build, &good)[..], &signing].concat())
        .success();
    assert!(trusted.project.join("signed").exists());
}

#[test]
fn a_layout_that_lost_a_manifest_is_written_anew_and_what_is_no_cache_is_an_error() {
    let builder = Builder::new();
    let place = &builder.place;
    builder.fill(&["build", "app", "-o", "oci:image"], "oci:cache");
    let index: Value = serde_json::from_slice(&fs::read(place.project.join("cache/index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().replace("sha256:", "");
    fs::remove_file(place.project.join("cache/blobs/sha256").join(digest)).unwrap();
    builder.fill(&["build", "app", "-o", "oci:image"], "oci:cache");
    place.run(&["cache", "ls", "oci:cache"]).success();

    let read = builder.reading(&["build", "app", "-o", "oci:image"], "dir:cache");
    place.run(&read).exits(2).says(&["write `docker://HOST/NAME`"]);
    place
        .run(&["cache", "ls", "oci:missing"])
        .exits(2)
        .says(&["there is no shared cache at"]);
}

#[test]
fn one_relative_path_in_two_directories_is_two_places() {
    let builder = Builder::new();
    let place = &builder.place;
    let spec = format!("{SPEC}\n[cache]\nto = [\"oci:rel\"]\n");
    place.write("layerize.toml", &spec).write("src/sub/file", "x");
    let mut build = place.command(&["build", "app", "-o", "oci:image", "--cache-to", "oci:rel"]);
    let ran = build.current_dir(place.project.join("src/sub")).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    assert!(place.project.join("rel/index.json").exists());
    assert!(place.project.join("src/sub/rel/index.json").exists());
}

#[test]
fn who_builds_what_another_signed_signs_beside_it() {
    let first = Builder::new();
    let second = Builder::new();
    let dir = first.place.project.join("of-all");
    for kind in ["oci", "file"] {
        let cache = format!("{kind}:{}-{kind}", dir.display());
        for builder in [&first, &second, &second] {
            builder.fill(&["build", "app", "-o", "oci:image"], &cache);
        }
        for (builder, name) in [(&first, "1"), (&second, "2")] {
            let reader = builder.place.elsewhere();
            let read = builder.reading(&["build", "--locked", "app", "-o", "oci:image"], &cache);
            let taken = reader.run(&read).success();
            assert!(
                summary(&taken).starts_with("0 built"),
                "{name} {kind}: {}",
                taken.stderr
            );
        }
    }
    // The image, too.
    let image = first.place.elsewhere();
    let cache = format!("oci:{}-oci", dir.display());
    let read = first.reading(&["build", "--locked", "app", "-o", "oci:image"], &cache);
    let taken = image.run(&read).success();
    assert!(!taken.stderr.contains("refused"), "{}", taken.stderr);
}

/// Two that write at once, each with a key of its own, lose nothing that the other has signed.
#[test]
fn what_two_write_at_the_same_moment_has_both_signatures() {
    let builders = [Builder::new(), Builder::new()];
    let dir = builders[0].place.project.join("at-once");
    for builder in &builders {
        builder.place.run(&["build", "app", "-o", "oci:image"]).success();
    }
    for kind in ["oci", "file"] {
        for round in 0..3 {
            let cache = format!("{kind}:{}-{kind}-{round}", dir.display());
            std::thread::scope(|scope| {
                for builder in &builders {
                    scope.spawn(|| builder.fill(&["build", "app", "-o", "oci:image"], &cache));
                }
            });
            for builder in &builders {
                let read = builder.reading(&["build", "--locked", "app", "-o", "oci:image"], &cache);
                let taken = builder.place.elsewhere().run(&read).success();
                assert!(summary(&taken).starts_with("0 built"), "{cache}: {}", taken.stderr);
            }
        }
    }
}

/// What was found to be other bytes than were written is written again by who found it.
#[test]
fn what_is_damaged_in_a_place_of_this_machine_is_written_anew() {
    let builder = Builder::new();
    for kind in ["oci", "file"] {
        let dir = builder.place.project.join(format!("damaged-{kind}"));
        let cache = format!("{kind}:{}", dir.display());
        builder.fill(&["build", "app", "-o", "oci:image"], &cache);
        let mut damaged = 0;
        for entry in layerize::fsio::walk(&dir.join(if kind == "oci" { "blobs" } else { "nar" })) {
            let path = entry.unwrap().into_path();
            let bytes = fs::read(&path).unwrap_or_default();
            // Layers and archives alone are no text.
            if std::str::from_utf8(&bytes).is_err() {
                let other: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
                fs::write(&path, other).unwrap();
                damaged += 1;
            }
        }
        assert!(damaged > 0, "{kind}");
        let other = builder.place.elsewhere();
        other.lock_base();
        let read = builder.reading(&["build", "app", "-o", "oci:image"], &cache);
        let secret = builder.secret.to_str().unwrap();
        let writing = [&read[..], &["--cache-to", &cache, "--cache-sign-key", secret]].concat();
        other
            .run(&writing)
            .success()
            .says(&["instead", "built app:", "kept app in"]);
        let taken = builder.place.elsewhere().run(&read).success();
        assert!(summary(&taken).starts_with("0 built"), "{kind}: {}", taken.stderr);
    }
    // Who signs nothing is told that nobody will believe it.
    let unsigned = builder
        .place
        .run(&["build", "app", "-o", "oci:image", "--cache-to", "oci:nobody-s"]);
    unsigned.success().says(&["nobody has signed", "--cache-sign-key FILE"]);
}

#[test]
fn a_cache_that_cannot_be_looked_at_is_not_taken_for_an_empty_one() {
    let builder = Builder::new();
    for cache in ["oci:file/cache", "file:file/cache"] {
        let reader = builder.place.elsewhere();
        // Nobody can look below a file, whoever they are.
        reader.write("file", "x");
        let read = builder.reading(&["build", "--locked", "app", "-o", "oci:image"], cache);
        let built = reader.run(&read).success();
        assert!(
            built.stderr.contains("warning: ") && built.stderr.contains("file/cache"),
            "{cache}: {}",
            built.stderr
        );
    }
}
