//! Binary caches in Nix's format as shared caches: what was built stands beside the narinfos, and nobody takes what is not right.

use std::fs;
use std::path::{Path, PathBuf};

use layerize::binary_cache::SecretKey;
use layerize::digest::Digest;
use serde_json::{Value, json};

use crate::registry::registry;
use crate::served::Demands;
use crate::shared_builds::{Builder, SPEC, summary};
use crate::support::Ran;
use crate::web::{Reply, Server};

/// A web server over a directory.
fn web(dir: &Path) -> Server {
    let dir = dir.to_owned();
    Server::start(move |path| match fs::read(dir.join(path.trim_start_matches('/'))) {
        Ok(bytes) => Reply::ok(bytes),
        Err(_) => Reply::status(404),
    })
}

/// Each kind of place: what one machine keeps there, another takes, and passes on to each kind.
#[test]
fn every_kind_of_place_has_what_was_built() {
    let builder = Builder::new();
    let Some(registry) = registry(&builder.place, Demands::default()) else {
        return;
    };
    let at = |name: &str| builder.place.path().join(name);
    let binary = at("binary");
    let server = web(&binary);
    let written = [
        format!("docker://{}/cache", registry.host),
        format!("oci:{}", at("layout").display()),
        format!("file:{}", binary.display()),
    ];
    let mut image = String::new();
    for cache in &written {
        let filled = builder.fill(&["build", "app"], cache);
        image = filled.line().to_owned();
        filled.says(&["kept tool in", "kept data in", "kept app in"]);
        let again = builder.fill(&["build", "app"], cache);
        assert!(!again.stderr.contains("kept"), "{}", again.stderr);
    }
    let read = written
        .iter()
        .cloned()
        .chain([server.url("").trim_end_matches('/').to_owned()]);
    let secret = builder.secret.to_str().unwrap();
    for (number, from) in read.enumerate() {
        let other = builder.place.elsewhere();
        let taken = other
            .run(&builder.reading(&["build", "--locked", "app"], &from))
            .success();
        assert_eq!(taken.line(), image, "{from}");
        assert!(
            summary(&taken).starts_with("0 built, 2 from shared caches"),
            "{from}: {}",
            taken.stderr
        );
        other.run(&["store", "verify"]).success();
        // What is taken from one kind is passed on to another.
        let kind = if number < 2 { "file" } else { "oci" };
        let to = format!("{kind}:{}", at(&format!("passed-{number}")).display());
        let pass = [
            &builder.reading(&["build", "app"], &from)[..],
            &["--cache-to", &to, "--cache-sign-key", secret],
        ];
        let passed = other.run(&pass.concat()).success();
        passed.says(&["kept app in", "kept data in"]);
        let third = builder.place.elsewhere();
        let taken = third.run(&builder.reading(&["build", "app"], &to)).success();
        assert!(
            summary(&taken).starts_with("0 built, 2 from shared caches"),
            "{from} {to}: {}",
            taken.stderr
        );
    }
    // To other programs it is a binary cache like others: closed, and signed by who built.
    let data = builder.place.run(&["build", "data"]).success();
    let (other, from) = (builder.place.elsewhere(), server.url(""));
    let copy = ["store", "copy", "--from", &from, "--trusted-key", &builder.public];
    other.run(&[&copy[..], &[data.line()]].concat()).success();
    other.run(&["store", "verify"]).success();
}

#[test]
fn a_binary_cache_is_asked_by_what_a_step_is_made_of_and_written_in_a_directory() {
    let builder = Builder::new();
    builder.fill(&["build", "app"], "file:../binary");
    let dir = builder.place.path().join("binary");
    let cache = format!("file://{}", dir.display());
    // The tool is made in another way and is the same: the plan is another one, the app's build is not.
    let other = builder.place.elsewhere();
    let spec = SPEC.replace("mkdir -p $out/bin; printf", "mkdir -p $out/bin && printf");
    other.write("layerize.toml", &spec);
    other.lock_base();
    let built = other.run(&builder.reading(&["build", "app"], &cache)).success();
    assert!(
        summary(&built).starts_with("1 built, 2 from shared caches"),
        "{}",
        built.stderr
    );
    built.says(&["built tool", "took app from"]);

    let server = web(&dir);
    let url = server.url("");
    let flags = |flag: &'static str| vec!["build", "app", flag, &url, "--cache-unsigned"];
    other
        .run(&flags("--cache-to"))
        .exits(2)
        .says(&["cannot be written to", "file:DIR"]);
    other
        .run(&["cache", "ls", &url])
        .exits(2)
        .says(&["cannot be written to"]);
    other.write("layerize.toml", &format!("{SPEC}\n[cache]\nto = [\"{url}\"]\n"));
    other
        .run(&["build", "app"])
        .exits(2)
        .says(&["a binary cache is not written over HTTP"]);
    let table = format!(
        "\n[cache]\nfrom = [\"{url}\"]\ntrusted-keys = [\"{}\"]\n",
        builder.public
    );
    let third = builder.place.elsewhere();
    third.write("layerize.toml", &format!("{SPEC}{table}"));
    let asked = server.requests("/nix-cache-info");
    third
        .run(&["build", "app"])
        .success()
        .says(&["0 built, 2 from shared caches"]);
    assert_eq!(server.requests("/nix-cache-info"), asked + 1, "it is opened once");
    // Without a network it is not asked.
    let fourth = third.elsewhere();
    fourth.lock_base();
    let offline = fourth.run(&["build", "--offline", "app"]).success();
    assert!(summary(&offline).starts_with("3 built"), "{}", offline.stderr);
    assert_eq!(server.requests("/nix-cache-info"), asked + 1);

    // What does not answer, is none, or is of another store is told once, and costs only the build.
    let nix = builder.place.path().join("nix");
    fs::create_dir(&nix).unwrap();
    fs::write(nix.join("nix-cache-info"), "StoreDir: /nix/store\n").unwrap();
    let empty = web(&builder.place.path().join("nowhere"));
    // A directory that nobody has written yet is empty.
    let rows = [
        ("http://127.0.0.1:1/cache".to_owned(), Some("127.0.0.1:1")),
        (empty.url(""), Some("is not a binary cache")),
        (format!("file:{}", nix.display()), Some("has paths of /nix/store")),
        ("file:../nothing".to_owned(), None),
    ];
    for (number, (from, words)) in rows.into_iter().enumerate() {
        fourth.write("layerize.toml", &SPEC.replace("data of", &format!("data {number} of")));
        let built = fourth.run(&builder.reading(&["build", "data"], &from)).success();
        assert!(summary(&built).starts_with("1 built"), "{}", built.stderr);
        let told = built.stderr.matches("is built here").count();
        assert_eq!(told, usize::from(words.is_some()), "{}", built.stderr);
        built.says(words.as_slice());
    }
}

#[test]
fn entries_of_a_binary_cache_are_listed_dated_and_pruned() {
    let builder = Builder::new();
    let dir = builder.place.path().join("binary");
    let cache = format!("file:{}", dir.display());
    let secret = builder.secret.to_str().unwrap();
    let fill = |date: &str| {
        let args = ["build", "app", "--cache-to", &cache, "--cache-sign-key", secret];
        let mut command = builder.place.command(&args);
        Ran::of(command.env("SOURCE_DATE_EPOCH", date).output().unwrap()).success()
    };
    let listed = || builder.place.run(&["cache", "ls", &cache]).success().stdout;
    fill("1000000000");
    let first = listed();
    assert_eq!(first.lines().count(), 3, "{first}");
    assert_eq!(first.matches("2001-09-09T01:46:40Z").count(), 3, "{first}");
    // An entry that is in use gets the date of its use, and nothing is sent.
    let again = fill("1100000000");
    assert!(!again.stderr.contains("kept"), "{}", again.stderr);
    assert_eq!(listed().matches("2004-11-09T11:33:20Z").count(), 3, "{}", listed());
    let prune = |more: &[&str]| {
        let args = [&["cache", "prune", "--older-than", "30d", &cache], more].concat();
        builder.place.run(&args).success()
    };
    let shown = prune(&["--dry-run"]);
    assert_eq!((shown.stdout.lines().count(), listed().lines().count()), (3, 3));
    prune(&[]).says(&["3 entries removed"]);
    assert_eq!(listed(), "");
    // The archives stay, as others take them by their paths.
    let names = layerize::fsio::sorted_names(&dir).unwrap();
    assert!(
        names.iter().any(|name| name.to_string_lossy().ends_with(".narinfo")),
        "{names:?}"
    );
    let other = builder.place.elsewhere();
    other.lock_base();
    let built = other.run(&builder.reading(&["build", "app"], &cache)).success();
    assert!(summary(&built).starts_with("3 built"), "{}", built.stderr);
    // What is kept again needs no archive to be written.
    fill("1200000000").says(&["kept app in", "(0 B sent)"]);
}

/// What is done, what is said of it, and how it is done.
type Attack = (&'static str, &'static str, Box<dyn Fn(&Tampered)>);

/// A binary cache that is changed from outside.
struct Tampered {
    dir: PathBuf,
    key: SecretKey,
}

impl Tampered {
    /// The records of `data`.
    fn records(&self) -> Vec<PathBuf> {
        let folder = self.dir.join("layerize-builds");
        let names = layerize::fsio::sorted_names(&folder).unwrap();
        let all = names.iter().map(|name| folder.join(name));
        let own: Vec<PathBuf> = all
            .filter(|file| {
                let record: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
                record["entry"]["output"].as_str().unwrap().ends_with("-data")
            })
            .collect();
        assert_eq!(own.len(), 2, "{own:?}");
        own
    }

    /// Lets `change` have each record of `data`, and signs its entry again where `signer` is one.
    fn change(&self, signer: Option<&SecretKey>, change: &dyn Fn(&mut Value)) {
        for file in self.records() {
            let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            change(&mut record);
            if let Some(signer) = signer {
                let digest = Digest::of(&serde_json::to_vec(&record["entry"]).unwrap());
                let signature = signer.sign(&format!("layerize-build-1\n{digest}"));
                record["annotations"] = json!({ "dev.layerize.signatures": signature });
            }
            fs::write(&file, record.to_string()).unwrap();
        }
    }

    /// The same, signed by who is trusted.
    fn forge(&self, change: &dyn Fn(&mut Value)) {
        self.change(Some(&self.key), &|record| change(&mut record["entry"]));
    }

    /// The store path of `data`.
    fn path(&self) -> String {
        let record: Value = serde_json::from_slice(&fs::read(&self.records()[0]).unwrap()).unwrap();
        record["entry"]["output"].as_str().unwrap().to_owned()
    }

    /// Its narinfo.
    fn narinfo(&self) -> PathBuf {
        self.dir.join(format!("{}.narinfo", &self.path()[..32]))
    }

    /// A value of its narinfo.
    fn value(&self, key: &str) -> String {
        let text = fs::read_to_string(self.narinfo()).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("{key}: ")));
        value.unwrap().to_owned()
    }

    /// Puts another value into its narinfo.
    fn set(&self, key: &str, value: &str) {
        let text = fs::read_to_string(self.narinfo()).unwrap();
        let old = format!("{key}: {}\n", self.value(key));
        fs::write(self.narinfo(), text.replace(&old, &format!("{key}: {value}\n"))).unwrap();
    }

    fn archive(&self) -> PathBuf {
        self.dir.join(self.value("URL"))
    }
}

/// The member of a closure that is its output.
fn output(entry: &mut Value) -> &mut Value {
    let path = entry["output"].clone();
    let mut members = entry["members"].as_array_mut().unwrap().iter_mut();
    members.find(|member| member["path"] == path).unwrap()
}

/// What records say, and who signed them.
fn wrong_records(stranger: SecretKey) -> Vec<Attack> {
    vec![
        (
            "a signature that is gone",
            "nobody signed it",
            Box::new(|cache| cache.change(None, &|record| record["annotations"] = json!({}))),
        ),
        (
            "a signature of somebody else",
            "its signature by `ci-1` is wrong",
            Box::new(move |cache| cache.change(Some(&stranger), &|_| {})),
        ),
        (
            "what was signed is changed",
            "its signature by `ci-1` is wrong",
            Box::new(|cache| cache.change(None, &|record| output(&mut record["entry"])["narSize"] = json!(1))),
        ),
        (
            "the entry of another step",
            "it is the entry of another step",
            Box::new(|cache| {
                cache.forge(&|entry| {
                    entry["planKey"] = json!(Digest::of(b"other"));
                    output(entry)["built"]["derivation"] = json!("{}");
                });
            }),
        ),
        (
            "a path of another name",
            "not a path of this step",
            Box::new(|cache| {
                cache.forge(&|entry| {
                    let other = entry["output"].as_str().unwrap().replace("-data", "-date");
                    output(entry)["path"] = json!(other);
                    entry["output"] = json!(other);
                });
            }),
        ),
        (
            "other rules",
            "it follows format 99",
            Box::new(|cache| cache.forge(&|entry| entry["format"] = json!(99))),
        ),
        (
            "a key that is unknown",
            "unknown field `more`",
            Box::new(|cache| cache.forge(&|entry| entry["more"] = json!(1))),
        ),
        (
            "no walls",
            "it was built behind `none`, which is less than `traced`",
            Box::new(|cache| cache.forge(&|entry| output(entry)["built"]["walls"] = json!("none"))),
        ),
    ]
}

/// What records say of paths, and records that are not whole.
fn wrong_members() -> Vec<Attack> {
    vec![
        (
            "a closure with a gap",
            "it says nothing of",
            Box::new(|cache| {
                cache.forge(&|entry| {
                    output(entry)["references"] = json!(["0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-gone"]);
                });
            }),
        ),
        (
            "an output that is not held",
            "does not hold its output",
            Box::new(|cache| cache.forge(&|entry| drop(output(entry).as_object_mut().unwrap().remove("built")))),
        ),
        (
            "a layer, where there are none",
            "it names a layer of",
            Box::new(|cache| cache.forge(&|entry| output(entry)["built"]["layer"] = json!(Digest::of(b"")))),
        ),
        (
            "a record that is cut",
            "is refused",
            Box::new(|cache| {
                for file in cache.records() {
                    let bytes = fs::read(&file).unwrap();
                    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
                }
            }),
        ),
        (
            "a record without an end",
            "sent more than",
            Box::new(|cache| {
                for file in cache.records() {
                    let file = fs::File::options().write(true).open(file).unwrap();
                    file.set_len(1 << 36).unwrap();
                }
            }),
        ),
    ]
}

/// What narinfos say, and what archives hold.
fn wrong_archives() -> Vec<Attack> {
    vec![
        (
            "another archive, which its narinfo and the entry announce",
            "not the path that its declared content gives",
            Box::new(|cache| {
                let tree = cache.dir.join("poison");
                fs::write(&tree, "poison").unwrap();
                let mut archive = Vec::new();
                layerize::nar::write(&tree, &mut archive).unwrap();
                fs::write(cache.dir.join("nar/poison.nar"), &archive).unwrap();
                let digest = Digest::of(&archive);
                let hash = layerize::binary_cache::print_hash(&digest);
                for (key, value) in [
                    ("NarHash", hash.as_str()),
                    ("NarSize", &archive.len().to_string()),
                    ("FileHash", hash.as_str()),
                    ("FileSize", &archive.len().to_string()),
                    ("Compression", "none"),
                    ("URL", "nar/poison.nar"),
                ] {
                    cache.set(key, value);
                }
                cache.forge(&|entry| {
                    output(entry)["narHash"] = json!(digest);
                    output(entry)["narSize"] = json!(archive.len());
                });
            }),
        ),
        (
            "other content than the entry has",
            "has other content for",
            Box::new(|cache| cache.set("NarSize", "123")),
        ),
        (
            "an archive outside",
            "which is outside the cache",
            Box::new(|cache| cache.set("URL", "../../etc/passwd")),
        ),
        (
            "a narinfo of another path",
            "is about",
            Box::new(|cache| cache.set("StorePath", "/layerize/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-data")),
        ),
        (
            "a narinfo that is none",
            "is malformed",
            Box::new(|cache| fs::write(cache.narinfo(), "StorePath").unwrap()),
        ),
        (
            "a narinfo that is gone",
            "no cache has",
            Box::new(|cache| fs::remove_file(cache.narinfo()).unwrap()),
        ),
    ]
}

/// Archives that are not what their narinfos say.
fn damaged_archives() -> Vec<Attack> {
    vec![
        (
            "an archive that is gone",
            "nothing was found at",
            Box::new(|cache| fs::remove_file(cache.archive()).unwrap()),
        ),
        (
            "a truncated archive",
            "does not match its narinfo",
            Box::new(|cache| {
                let bytes = fs::read(cache.archive()).unwrap();
                fs::write(cache.archive(), &bytes[..bytes.len() - 10]).unwrap();
            }),
        ),
        (
            "an archive with other bytes",
            "does not match its narinfo",
            Box::new(|cache| {
                let mut bytes = fs::read(cache.archive()).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(cache.archive(), bytes).unwrap();
            }),
        ),
        (
            "an archive of other bytes that its narinfo announces",
            "cannot unpack",
            Box::new(|cache| {
                let bytes = b"no archive";
                fs::write(cache.archive(), bytes).unwrap();
                cache.set("FileSize", &bytes.len().to_string());
                cache.set("FileHash", &layerize::binary_cache::print_hash(&Digest::of(bytes)));
            }),
        ),
    ]
}

#[test]
fn a_record_that_is_not_right_is_refused_and_the_step_is_built() {
    let builder = Builder::new();
    let key = SecretKey::parse(&fs::read_to_string(&builder.secret).unwrap()).unwrap();
    let stranger = SecretKey::generate("ci-1").unwrap();
    let reader = builder.place.elsewhere();
    reader.lock_base();
    let attacks = [
        wrong_records(stranger),
        wrong_members(),
        wrong_archives(),
        damaged_archives(),
    ];
    for (number, (what, words, attack)) in attacks.into_iter().flatten().enumerate() {
        // Another output each time, which the reader does not have.
        let spec = SPEC.replace("data of", &format!("data {number} of"));
        let dir = builder.place.path().join(format!("binary-{number}"));
        let from = format!("file:{}", dir.display());
        builder.place.write("layerize.toml", &spec);
        reader.write("layerize.toml", &spec);
        let path = builder.fill(&["build", "data"], &from).line().to_owned();
        let key = SecretKey::parse(&key.to_text()).unwrap();
        let tampered = Tampered { dir, key };
        attack(&tampered);
        let ran = reader.run(&builder.reading(&["build", "data"], &from)).success();
        assert!(ran.stderr.contains(words), "{what}: {}", ran.stderr);
        assert!(ran.stderr.contains("built data:"), "{what}: {}", ran.stderr);
        assert_eq!(ran.line(), path, "{what}");
        reader.run(&["store", "verify", ran.line()]).success();
    }
}

#[test]
fn what_is_damaged_in_a_binary_cache_is_written_anew() {
    let builder = Builder::new();
    let dir = builder.place.path().join("binary");
    let cache = format!("file:{}", dir.display());
    builder.fill(&["build", "app"], &cache);
    let key = SecretKey::parse(&fs::read_to_string(&builder.secret).unwrap()).unwrap();
    fs::remove_file(Tampered { dir, key }.archive()).unwrap();
    let other = builder.place.elsewhere();
    other.lock_base();
    let secret = builder.secret.to_str().unwrap();
    let read = builder.reading(&["build", "app"], &cache);
    let writing = [&read[..], &["--cache-to", &cache, "--cache-sign-key", secret]].concat();
    other.run(&writing).success().says(&["built app:", "kept app in"]);
    let third = builder.place.elsewhere();
    let taken = third.run(&read).success();
    assert!(
        summary(&taken).starts_with("0 built, 2 from shared caches"),
        "{}",
        taken.stderr
    );
}
