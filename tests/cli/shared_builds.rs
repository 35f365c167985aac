//! Shared caches: what one machine has built, another takes, whoever it is, and nobody takes what is not right.

use std::fs;
use std::path::{Path, PathBuf};

use layerize::binary_cache::SecretKey;
use layerize::digest::Digest;
use serde_json::{Value, json};

use crate::registry::registry;
use crate::served::Demands;
use crate::support::{Place, Ran, in_another_world};

/// Two packages, of which the image has both: `app` is built with `tool`, refers to `data`, and says a word of its source.
pub const SPEC: &str = r##"
[package.tool]
script = 'mkdir -p $out/bin; printf "#!/bin/sh\necho made\n" > $out/bin/make-it; chmod +x $out/bin/make-it'

[package.data]
script = 'mkdir $out; echo data of $out > $out/data; ln -s $out/data $out/itself'

[package.app]
source = { path = "src" }
tools = ["tool"]
runtime = ["data"]
script = 'mkdir -p $out/share; { make-it; cat word; echo $out; } > $out/share/app'

[image.app]
contents = ["app"]
"##;

/// A project that is locked, its base tools in the store, and the key of who builds there.
pub struct Builder {
    pub place: Place,
    pub secret: PathBuf,
    pub public: String,
}

impl Builder {
    pub fn new() -> Self {
        let place = Place::new();
        place.write("layerize.toml", SPEC).write("src/word", "word\n");
        place.lock_base();
        let dir = place.path().join("keys");
        fs::create_dir(&dir).unwrap();
        let dir = dir.to_str().unwrap();
        let made = place.run(&["store", "key", "generate", "ci-1", "--dir", dir]).success();
        Self {
            secret: Path::new(dir).join("ci-1.secret"),
            public: made.line().to_owned(),
            place,
        }
    }

    /// Builds with a cache to write to.
    pub fn fill(&self, command: &[&str], cache: &str) -> Ran {
        let secret = self.secret.to_str().unwrap();
        let more = ["--cache-to", cache, "--cache-sign-key", secret];
        self.place.run(&[command, &more].concat()).success()
    }

    /// The flags of who reads a cache.
    pub fn reading<'a>(&'a self, command: &[&'a str], cache: &'a str) -> Vec<&'a str> {
        [command, &["--cache-from", cache, "--cache-trusted-key", &self.public]].concat()
    }
}

/// The last line, which counts.
pub fn summary(ran: &Ran) -> &str {
    ran.stderr.lines().last().unwrap_or_default()
}

#[test]
fn another_machine_builds_nothing_and_pushes_what_is_unchanged_at_once() {
    let builder = Builder::new();
    let Some(registry) = registry(&builder.place, Demands::default()) else {
        return;
    };
    let host = &registry.host;
    let (cache, to) = (format!("docker://{host}/cache"), format!("{host}/app:1"));
    let first = builder.fill(&["push", "app", &to], &cache);
    let digest = first.stdout.split(' ').next().unwrap().to_owned();
    first.says(&["kept tool in", "kept data in", "kept app in"]);
    // Once more nothing is sent.
    let again = builder.fill(&["build", "app", "-o", "oci:again"], &cache);
    assert!(!again.stderr.contains("kept"), "{}", again.stderr);

    // An ordinary user with another store takes both, and neither the tool nor what that is built with.
    let build = builder.reading(&["build", "--locked", "app", "-o", "oci:elsewhere"], &cache);
    let (other, built) = in_another_world(&builder.place, &build);
    assert!(built.stdout.starts_with(&digest), "{}", built.stdout);
    assert!(
        summary(&built).starts_with("0 built, 2 from shared caches"),
        "{}",
        built.stderr
    );
    assert!(!built.stderr.contains("tool"), "{}", built.stderr);
    let paths = layerize::fsio::sorted_names(&other.store().join("store")).unwrap();
    let is_tool = |name: &&std::ffi::OsString| {
        ["bash", "coreutils", "tool"]
            .iter()
            .any(|tool| name.to_string_lossy().contains(tool))
    };
    assert_eq!(paths.iter().find(is_tool), None, "what builds need was fetched");

    // A third pushes the same to another name: no store path is taken, no layer read, nothing fetched.
    let third = builder.place.elsewhere();
    let other_name = format!("{host}/team/other:2");
    let push = builder.reading(&["push", "--locked", "app", &other_name], &cache);
    let pushed = third
        .run(&push)
        .success()
        .says(&[&digest, "nothing is built", "B mounted"]);
    assert!(!pushed.stderr.contains("fetched"), "{}", pushed.stderr);
    let paths = layerize::fsio::sorted_names(&third.store().join("store")).unwrap();
    assert_eq!(paths.len(), 1, "more than the source is there: {paths:?}");
    let name = format!("docker://{other_name}");
    third.run(&["verify", &name]).success();
    // What the image was built from went along with it.
    let inputs = format!("docker://{host}/team/other:{}.inputs", digest.replace(':', "-"));
    third.run(&["inspect", &inputs]).success();
    // What is found in one cache is kept in another.
    let second_cache = format!("docker://{host}/cache2");
    let secret = builder.secret.to_str().unwrap();
    let passing = ["--cache-to", &second_cache, "--cache-sign-key", secret];
    third
        .run(&[&push[..], &passing].concat())
        .success()
        .says(&["nothing is built"]);
    let push_again = builder.reading(&["push", "--locked", "app", &other_name], &second_cache);
    third.run(&push_again).success().says(&["nothing is built"]);
    // So are the steps that lead to it, and what it was built from.
    let inputs = format!("{second_cache}:{}.inputs", digest.replace(':', "-"));
    third.run(&["inspect", &inputs]).success();
    let later = builder.place.elsewhere();
    later.write("src/word", "later\n");
    let build = builder.reading(&["build", "--locked", "app", "-o", "oci:later"], &second_cache);
    let built = later.run(&build).success();
    assert!(summary(&built).contains("2 from shared caches"), "{}", built.stderr);

    // An edit is built, with what the cache has, and pushed.
    third.write("src/word", "other\n");
    let edited = third.run(&push).success();
    assert!(!edited.stdout.contains(&digest));
    assert!(summary(&edited).starts_with("1 built,"), "{}", edited.stderr);
    assert!(summary(&edited).contains("2 from shared caches"), "{}", edited.stderr);
}

#[test]
fn what_comes_out_as_before_is_found_by_what_it_is_made_of() {
    let builder = Builder::new();
    let cache = "oci:../cache";
    builder.fill(&["build", "app", "-o", "oci:image"], cache);
    // The tool is made in another way and is the same: the plan is another one, the app's build is not.
    let other = builder.place.elsewhere();
    other.write(
        "layerize.toml",
        &SPEC.replace("mkdir -p $out/bin; printf", "mkdir -p $out/bin && printf"),
    );
    other.lock_base();
    let shared = builder.place.path().join("cache");
    let cache = format!("oci:{}", shared.display());
    let build = builder.reading(&["build", "app", "-o", "oci:image"], &cache);
    let built = other.run(&build).success();
    assert!(
        summary(&built).starts_with("1 built, 2 from shared caches"),
        "{}",
        built.stderr
    );
    built.says(&["built tool", "took app from"]);
}

#[test]
fn settings_of_spec_and_machine_count_and_what_cannot_work_is_told() {
    let builder = Builder::new();
    let cache = builder.place.path().join("cache");
    let cache = cache.to_str().unwrap();
    let table = format!("\n[cache]\nto = [\"oci:{cache}\"]\n");
    builder.place.write("layerize.toml", &format!("{SPEC}{table}"));
    let secret = builder.secret.to_str().unwrap();
    let build = ["build", "app", "-o", "oci:image"];
    builder
        .place
        .run(&[&build[..], &["--cache-sign-key", secret]].concat())
        .success()
        .says(&["kept app in"]);

    let other = builder.place.elsewhere();
    let table = format!("\n[cache]\nfrom = [\"oci:{cache}\"]\n");
    other.write("layerize.toml", &format!("{SPEC}{table}"));
    other
        .run(&build)
        .exits(2)
        .says(&["nobody is trusted", "--cache-trusted-key"]);
    let config = format!("[cache]\ntrusted-keys = [\"{}\"]\n", builder.public);
    other.write("../config/layerize/config.toml", &config);
    other.run(&build).success().says(&["0 built, 2 from shared caches"]);
    // What is not to be read is not.
    let third = builder.place.elsewhere();
    third.write(
        "../config/layerize/config.toml",
        &format!("{config}from = [\"oci:{cache}\"]\n"),
    );
    third.lock_base();
    let own = third.run(&[&build[..], &["--no-shared-cache"]].concat()).success();
    assert!(summary(&own).starts_with("3 built"), "{}", own.stderr);

    for (flags, words) in [
        (
            ["--cache-from", "docker://r.example/cache:tag"],
            "entries have tags of their own",
        ),
        (
            ["--cache-to", "docker-archive:x.tar"],
            "neither a registry nor a layout",
        ),
        (["--cache-trusted-key", "no key"], "not a public key"),
        (["--cache-sign-key", "missing"], "missing"),
    ] {
        third.run(&[&build[..], &flags].concat()).exits(2).says(&[words]);
    }
    // A place that cannot be reached is told, and takes nothing away.
    let fourth = builder.place.elsewhere();
    fourth.lock_base();
    let flags = [
        "--cache-from",
        "docker://127.0.0.1:1/cache",
        "--cache-to",
        "docker://127.0.0.1:1/cache",
        "--cache-unsigned",
    ];
    let built = fourth.run(&[&build[..], &flags].concat()).success();
    built.says(&["is built here", "is not kept in"]);
}

/// What is done, what is said of it, and how it is done.
type Attack = (&'static str, &'static str, Box<dyn Fn(&Tampered)>);

/// An OCI layout that is changed from outside.
struct Tampered {
    dir: PathBuf,
    key: SecretKey,
}

impl Tampered {
    fn blob(&self, digest: &str) -> PathBuf {
        self.dir
            .join("blobs/sha256")
            .join(digest.strip_prefix("sha256:").unwrap())
    }

    fn json(&self, digest: &str) -> Value {
        serde_json::from_slice(&fs::read(self.blob(digest)).unwrap()).unwrap()
    }

    fn add(&self, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes).to_string();
        fs::write(self.blob(&digest), bytes).unwrap();
        digest
    }

    fn index(&self) -> Value {
        serde_json::from_slice(&fs::read(self.dir.join("index.json")).unwrap()).unwrap()
    }

    /// Lets `change` have the config and then the manifest of each entry of `name`, signs again where `signer` is one, and
    /// lists the new ones.
    fn change(&self, name: &str, signer: Option<&SecretKey>, change: &dyn Fn(&mut Value, &mut Value)) {
        let mut index = self.index();
        let mut changed = 0;
        for entry in index["manifests"].as_array_mut().unwrap() {
            let mut manifest = self.json(entry["digest"].as_str().unwrap());
            let mut config = self.json(manifest["config"]["digest"].as_str().unwrap());
            if !config["output"].as_str().is_some_and(|output| output.ends_with(name)) {
                continue;
            }
            change(&mut config, &mut manifest);
            let config = serde_json::to_vec(&config).unwrap();
            let digest = self.add(&config);
            if let Some(signer) = signer {
                let signature = signer.sign(&format!("layerize-build-1\n{digest}"));
                manifest["annotations"] = json!({ "dev.layerize.signatures": signature });
            }
            manifest["config"]["digest"] = json!(digest);
            manifest["config"]["size"] = json!(config.len());
            let manifest = serde_json::to_vec(&manifest).unwrap();
            entry["digest"] = json!(self.add(&manifest));
            entry["size"] = json!(manifest.len());
            changed += 1;
        }
        assert!(changed > 0, "{name} has no entry");
        fs::write(self.dir.join("index.json"), index.to_string()).unwrap();
    }

    /// The same for entries of `data` that are signed by who is trusted.
    fn forge(&self, change: &dyn Fn(&mut Value, &mut Value)) {
        self.change("-data", Some(&self.key), change);
    }

    /// Where the layer of `data` is.
    fn layer(&self) -> PathBuf {
        let mut found = None;
        self.change("-data", Some(&self.key), &|_, _| {});
        for entry in self.index()["manifests"].as_array().unwrap() {
            let manifest = self.json(entry["digest"].as_str().unwrap());
            let config = self.json(manifest["config"]["digest"].as_str().unwrap());
            if config["output"]
                .as_str()
                .is_some_and(|output| output.ends_with("-data"))
            {
                found = Some(self.blob(manifest["layers"][0]["digest"].as_str().unwrap()));
            }
        }
        found.unwrap()
    }
}

/// The tar of a layer with a store path that is a file.
fn layer_of(path: &str, text: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o444);
    tar.append_data(&mut header, format!("layerize/store/{path}"), text.as_bytes())
        .unwrap();
    tar.into_inner().unwrap()
}

/// The member of a closure that is its output.
fn output(config: &mut Value) -> &mut Value {
    let path = config["output"].clone();
    let mut members = config["members"].as_array_mut().unwrap().iter_mut();
    members.find(|member| member["path"] == path).unwrap()
}

/// Who signed it.
fn wrong_signatures(stranger: SecretKey) -> Vec<Attack> {
    vec![
        (
            "a signature that is gone",
            "nobody signed it",
            Box::new(|cache| {
                cache.change("-data", None, &|_, manifest| manifest["annotations"] = json!({}));
            }),
        ),
        (
            "a signature of somebody else",
            "its signature by `ci-1` is wrong",
            Box::new(move |cache| {
                cache.change("-data", Some(&stranger), &|_, _| {});
            }),
        ),
        (
            "what was signed is changed",
            "its signature by `ci-1` is wrong",
            Box::new(|cache| {
                cache.change("-data", None, &|config, _| output(config)["narSize"] = json!(1));
            }),
        ),
    ]
}

/// What the entry says of itself.
fn wrong_statements() -> Vec<Attack> {
    vec![
        (
            "the entry of another step",
            "it is the entry of another step",
            Box::new(|cache| {
                cache.forge(&|config, _| {
                    config["planKey"] = json!(Digest::of(b"other"));
                    output(config)["built"]["derivation"] = json!("{}");
                });
            }),
        ),
        (
            "a path of another name",
            "not a path of this step",
            Box::new(|cache| {
                cache.forge(&|config, _| {
                    let other = config["output"].as_str().unwrap().replace("-data", "-date");
                    output(config)["path"] = json!(other);
                    config["output"] = json!(other);
                });
            }),
        ),
        (
            "other rules",
            "it follows format 3",
            Box::new(|cache| {
                cache.forge(&|config, _| config["format"] = json!(3));
            }),
        ),
        (
            "a key that is unknown",
            "unknown field `more`",
            Box::new(|cache| {
                cache.forge(&|config, _| config["more"] = json!(1));
            }),
        ),
        (
            "no walls",
            "it was built behind `none`, which is less than `traced`",
            Box::new(|cache| {
                cache.forge(&|config, _| output(config)["built"]["walls"] = json!("none"));
            }),
        ),
        (
            "no walls, as older versions said it",
            "it was built behind `none`, which is less than `traced`",
            Box::new(|cache| {
                cache.forge(&|config, _| {
                    let built = output(config)["built"].as_object_mut().unwrap();
                    built.remove("walls");
                    built.insert("sandboxed".to_owned(), json!(false));
                    config["format"] = json!(1);
                });
            }),
        ),
        (
            "walls that nobody knows",
            "`moat` names no walls",
            Box::new(|cache| {
                cache.forge(&|config, _| output(config)["built"]["walls"] = json!("moat"));
            }),
        ),
    ]
}

/// What it says of its paths.
fn wrong_closures() -> Vec<Attack> {
    vec![
        (
            "a closure with a gap",
            "it says nothing of",
            Box::new(|cache| {
                cache.forge(&|config, _| {
                    output(config)["references"] = json!(["0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-gone"]);
                });
            }),
        ),
        (
            "a reference that is not there",
            "does not hold",
            Box::new(|cache| {
                cache.forge(&|config, _| {
                    let member = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-more";
                    let mut more = output(config).clone();
                    more["path"] = json!(member);
                    output(config)["references"] = json!([member]);
                    config["members"].as_array_mut().unwrap().insert(0, more);
                });
            }),
        ),
        (
            "an output that is not held",
            "does not hold its output",
            Box::new(|cache| {
                cache.forge(&|config, _| drop(output(config).as_object_mut().unwrap().remove("built")));
            }),
        ),
    ]
}

/// What its layers hold.
fn wrong_layers() -> Vec<Attack> {
    vec![
        (
            "another archive",
            "not the path that its declared content gives",
            Box::new(|cache| {
                cache.forge(&|config, manifest| {
                    let tar = layer_of(config["output"].as_str().unwrap(), "poison");
                    let digest = cache.add(&tar);
                    output(config)["built"]["layer"] = json!(digest);
                    manifest["layers"][0] = json!({
                        "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": tar.len(),
                    });
                });
            }),
        ),
        (
            "a layer with more than the path",
            "does not hold",
            Box::new(|cache| {
                cache.forge(&|config, manifest| {
                    let mut tar = layer_of(config["output"].as_str().unwrap(), "one");
                    tar.truncate(tar.len() - 1024);
                    tar.extend(layer_of("0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-two", "two"));
                    let digest = cache.add(&tar);
                    output(config)["built"]["layer"] = json!(digest);
                    manifest["layers"][0] = json!({
                        "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": tar.len(),
                    });
                });
            }),
        ),
        (
            "a truncated layer",
            "expected",
            Box::new(|cache| {
                let layer = cache.layer();
                let bytes = fs::read(&layer).unwrap();
                fs::write(&layer, &bytes[..bytes.len() - 10]).unwrap();
            }),
        ),
        (
            "a layer with other bytes",
            "expected sha256",
            Box::new(|cache| {
                let layer = cache.layer();
                let mut bytes = fs::read(&layer).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(&layer, bytes).unwrap();
            }),
        ),
        (
            "a layer that is gone",
            "does not have the blob",
            Box::new(|cache| {
                fs::remove_file(cache.layer()).unwrap();
            }),
        ),
    ]
}

#[test]
fn an_entry_that_is_not_right_is_refused_and_the_step_is_built() {
    let builder = Builder::new();
    let key = SecretKey::parse(&fs::read_to_string(&builder.secret).unwrap()).unwrap();
    let stranger = SecretKey::generate("ci-1").unwrap();
    let reader = builder.place.elsewhere();
    reader.lock_base();

    let attacks = [
        wrong_signatures(stranger),
        wrong_statements(),
        wrong_closures(),
        wrong_layers(),
    ];
    for (number, (what, words, attack)) in attacks.into_iter().flatten().enumerate() {
        // Another output each time, which the reader does not have.
        let spec = SPEC.replace("data of", &format!("data {number} of"));
        let dir = builder.place.path().join(format!("cache-{number}"));
        let from = format!("oci:{}", dir.display());
        builder.place.write("layerize.toml", &spec);
        reader.write("layerize.toml", &spec);
        let path = builder.fill(&["build", "data"], &from).line().to_owned();
        let key = SecretKey::parse(&key.to_text()).unwrap();
        let tampered = Tampered { dir: dir.clone(), key };
        attack(&tampered);
        let ran = reader.run(&builder.reading(&["build", "data"], &from)).success();
        assert!(ran.stderr.contains(words), "{what}: {}", ran.stderr);
        assert!(ran.stderr.contains("built data:"), "{what}: {}", ran.stderr);
        assert_eq!(ran.line(), path, "{what}");
        reader.run(&["store", "verify", ran.line()]).success();
    }
}

#[test]
fn an_image_is_kept_for_what_it_was_made_of_and_for_nothing_else() {
    let builder = Builder::new();
    let Some(registry) = registry(&builder.place, Demands::default()) else {
        return;
    };
    let host = &registry.host;
    let (cache, to) = (format!("docker://{host}/cache"), format!("{host}/app:1"));
    // While the script runs, the spec is edited: the image is not that of the edited one.
    let hurried = SPEC.replace("cat word;", "cat word; sleep 2;");
    builder.place.write("layerize.toml", &hurried);
    let secret = builder.secret.to_str().unwrap();
    let push = ["push", "app", &to, "--cache-to", &cache, "--cache-sign-key", secret];
    let child = builder.place.command(&push).spawn().unwrap();
    let store = builder.place.store().join("store");
    let is_building = || {
        let names = layerize::fsio::sorted_names(&store).unwrap_or_default();
        names.iter().any(|name| name.to_string_lossy().ends_with("-tool"))
    };
    while !is_building() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let edited = format!("{hurried}env = {{ EDITED = \"yes\" }}\n");
    builder.place.write("layerize.toml", &edited);
    assert!(child.wait_with_output().unwrap().status.success());
    let other = builder.place.elsewhere();
    other.write("layerize.toml", &edited);
    other.lock_base();
    let read = builder.reading(&["push", "app", &to], &cache);
    let pushed = other.run(&read).success();
    assert!(!pushed.stderr.contains("nothing is built"), "{}", pushed.stderr);
    other.write("layerize.toml", &hurried);
    other.run(&read).success().says(&["nothing is built"]);

    // A dry run writes nothing, neither where it finds the image nor where it does not.
    let dry = format!("{host}/dry:1");
    let empty = format!("docker://{host}/empty");
    other
        .run(&builder.reading(&["push", "app", &dry, "--dry-run"], &cache))
        .success();
    let flags = ["--cache-to", &empty, "--cache-sign-key", secret];
    builder
        .place
        .run(&[&["push", "app", &dry, "--dry-run"], &flags[..]].concat())
        .success();
    for name in [format!("docker://{dry}"), empty] {
        other.run(&["inspect", &name]).exits(2);
    }
    // A rebuild compares what it builds.
    let rebuild = builder.reading(&["rebuild", "oci:x"], &cache);
    other.run(&["build", "app", "-o", "oci:x"]).success();
    other
        .run(&rebuild)
        .exits(2)
        .says(&["compare what was built with itself"]);
    // Nobody signs what nobody signed.
    let flags = [
        "--cache-from",
        &cache,
        "--cache-unsigned",
        "--cache-to",
        &cache,
        "--cache-sign-key",
        secret,
    ];
    other
        .run(&[&["build", "app"], &flags[..]].concat())
        .exits(2)
        .says(&["leave out `--cache-unsigned`"]);
}

#[test]
fn what_is_damaged_or_gone_is_made_and_written_anew() {
    let builder = Builder::new();
    let Some(registry) = registry(&builder.place, Demands::default()) else {
        return;
    };
    let dir = builder.place.path().join("cache");
    let cache = format!("oci:{}", dir.display());
    let to = format!("{}/app:1", registry.host);
    let first = builder.fill(&["push", "app", &to], &cache);
    let digest = first.stdout.split(' ').next().unwrap().to_owned();
    // Every layer is gone.
    let key = SecretKey::parse(&fs::read_to_string(&builder.secret).unwrap()).unwrap();
    let tampered = Tampered { dir: dir.clone(), key };
    for entry in tampered.index()["manifests"].as_array().unwrap() {
        let manifest = tampered.json(entry["digest"].as_str().unwrap());
        for layer in manifest["layers"].as_array().into_iter().flatten() {
            let _ = fs::remove_file(tampered.blob(layer["digest"].as_str().unwrap()));
        }
    }
    let other = builder.place.elsewhere();
    other.lock_base();
    let elsewhere = format!("{}/other:1", registry.host);
    let push = builder.reading(&["push", "app", &elsewhere], &cache);
    let secret = builder.secret.to_str().unwrap();
    let writing = [&push[..], &["--cache-to", &cache, "--cache-sign-key", secret]].concat();
    let pushed = other.run(&writing).success();
    let pushed = pushed.says(&["made here instead", "built app:", "kept app in"]);
    assert!(pushed.stdout.starts_with(&digest), "{}", pushed.stdout);
    let third = builder.place.elsewhere();
    let read = builder.reading(&["build", "app", "-o", "oci:image"], &cache);
    let built = third.run(&read).success();
    assert!(
        summary(&built).starts_with("0 built, 2 from shared caches"),
        "{}",
        built.stderr
    );

    // A dependency that is lost is taken or built again, whoever built it.
    for store in [&other, &third] {
        for flags in [&read[..], &read[..4]] {
            let names = layerize::fsio::sorted_names(&store.store().join("store")).unwrap();
            let data = names
                .iter()
                .find(|name| name.to_string_lossy().ends_with("-data"))
                .unwrap();
            layerize::fsio::remove_tree(&store.store().join("store").join(data)).unwrap();
            let mended = store.run(flags).success();
            assert!(mended.stdout.starts_with(&digest), "{}", mended.stdout);
            store.run(&["store", "verify"]).success();
        }
    }
}

#[test]
fn what_was_built_before_a_failure_is_kept_and_the_failure_is_told() {
    let builder = Builder::new();
    let failing = format!("{SPEC}\n[package.bad]\ntools = [\"tool\"]\nscript = 'echo spoilt; exit 3'\n");
    builder.place.write("layerize.toml", &failing);
    let secret = builder.secret.to_str().unwrap();
    let cache = format!("oci:{}", builder.place.path().join("cache").display());
    let build = ["build", "bad", "--cache-to", &cache, "--cache-sign-key", secret];
    builder.place.run(&build).exits(2).says(&["kept tool in", "spoilt"]);
    let other = builder.place.elsewhere();
    other
        .run(&builder.reading(&["build", "tool"], &cache))
        .success()
        .says(&["0 built"]);
    // A cache that cannot be written hides neither a result nor a failure.
    let blocked = builder.place.path().join("blocked");
    fs::write(&blocked, "").unwrap();
    let cache = format!("oci:{}", blocked.display());
    let flags = ["--cache-to", &cache, "--cache-sign-key", secret];
    builder
        .place
        .run(&[&["build", "tool"], &flags[..]].concat())
        .success()
        .says(&["is not kept in"]);
    builder
        .place
        .run(&[&["build", "bad"], &flags[..]].concat())
        .exits(2)
        .says(&["is not kept in", "spoilt"]);
}
