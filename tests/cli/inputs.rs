//! Kept inputs: pushed beside an image, found again by a rebuild that has nothing else, exported, listed and checked.
//! Packages come from an archive of the tests' own.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::archive::Archive;
use crate::registry::registry;
use crate::served::{Demands, Registry};
use crate::support::{Place, Ran, copy_tree, have, peer};

/// A place whose spec takes packages from an archive and a file from an address, both of which can be taken away.
pub struct Project {
    pub place: Place,
    archive: Archive,
}

pub const LOCAL: &str = "[package.local]\nsource = { path = \"local\" }\n\n";

impl Project {
    pub fn new() -> Option<Self> {
        if !have("apt-get", &["--version"]) {
            return None;
        }
        let place = Place::new();
        let mut archive = Archive::new(&place.path().join("archive"));
        archive.add("libx1", "1.0", "Source: src-x\n");
        archive.add_files(
            "prog",
            "1.0",
            "Depends: libx1\n",
            &[
                ("usr/bin/prog", 0o755, "#!/usr/bin/other\n"),
                ("etc/prog.conf", 0o644, "a = b\n"),
            ],
        );
        archive.add("other", "1.0", "");
        place.write("packed/share/blob", &"blob\n".repeat(1000));
        let mut tar = Command::new("tar");
        peer(tar.args(["-cf", "blob.tar", "packed"]).current_dir(&place.project));
        let project = Self { place, archive };
        project.spec("", "");
        Some(project)
    }

    /// Writes the spec: an image `thing` of Debian packages and a downloaded file, and what else is given.
    pub fn spec(&self, inputs: &str, more: &str) {
        let sources = self.archive.source_line();
        let text = format!(
            "[debian]\nsources = [\"{sources}\"]\narchitecture = \"amd64\"\n\n{inputs}\
             [package.blob]\nversion = \"7\"\nsource = {{ url = \"file:blob.tar\" }}\n\n\
             [image.thing]\nroot = [\"deb:prog\", \"deb:other\"]\nconfigure = false\ncontents = [\"blob\"{}]\nlabels = {{ a = \"b\" }}\n{more}",
            if inputs.contains("package.local") {
                ", \"local\""
            } else {
                ""
            }
        );
        self.place.write("layerize.toml", &text);
    }

    /// Runs `layerize` with downloads of its own: what another test fetched is not to be had.
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Ran {
        self.run_in(&self.place, args, true)
    }

    /// Runs it in another place; without apt, if that is so.
    pub fn run_in<S: AsRef<OsStr>>(&self, place: &Place, args: &[S], apt: bool) -> Ran {
        let mut command = place.command(args);
        command.env("XDG_CACHE_HOME", place.path().join("cache"));
        if !apt {
            command.env("PATH", place.path().join("no-programs"));
        }
        Ran::of(command.output().unwrap())
    }

    /// Everything that the image was built from is gone: the archive, the address, the project, the store and the caches.
    fn nothing_is_left(&self) {
        for dir in ["archive", "cache", "data", "project"] {
            layerize::fsio::remove_tree(&self.place.path().join(dir)).unwrap();
        }
        fs::create_dir(&self.place.project).unwrap();
    }

    /// Rebuilds on an empty machine that has no apt.
    fn rebuild(&self, args: &[&str]) -> Ran {
        let empty = Place::new();
        self.run_in(&empty, &[&["rebuild"], args].concat(), false)
    }
}

/// The last event of a kind.
#[track_caller]
fn event(ran: &Ran, kind: &str) -> Value {
    let events = ran
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut events = events.filter(|event| event["event"] == kind);
    events
        .next_back()
        .unwrap_or_else(|| panic!("no {kind} in {}\n{}", ran.stdout, ran.stderr))
}

/// Where a repository of a registry is on disk.
fn repository(registry: &Registry, name: &str) -> PathBuf {
    registry.storage.join("docker/registry/v2/repositories").join(name)
}

fn tags(registry: &Registry, name: &str) -> Vec<String> {
    let dir = repository(registry, name).join("_manifests/tags");
    let names = layerize::fsio::sorted_names(&dir).unwrap();
    names.into_iter().map(|name| name.into_string().unwrap()).collect()
}

/// The manifest that a tag names, as the registry has it on disk.
fn manifest(registry: &Registry, name: &str, tag: &str) -> Value {
    let link = repository(registry, name)
        .join("_manifests/tags")
        .join(tag)
        .join("current/link");
    let digest = fs::read_to_string(link).unwrap();
    serde_json::from_slice(&fs::read(blob(registry, &digest)).unwrap()).unwrap()
}

fn blob(registry: &Registry, digest: &str) -> PathBuf {
    let hex = digest.trim().strip_prefix("sha256:").unwrap();
    registry
        .storage
        .join("docker/registry/v2/blobs/sha256")
        .join(&hex[..2])
        .join(hex)
        .join("data")
}

fn digest_of(layer: &Value) -> &str {
    layer["digest"].as_str().unwrap()
}

/// The layer of an input, by its name.
#[track_caller]
fn input<'m>(manifest: &'m Value, name: &str) -> &'m Value {
    let layers = manifest["layers"].as_array().unwrap();
    let found = layers
        .iter()
        .find(|layer| layer["annotations"]["dev.layerize.input.name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {manifest:#}"))
}

#[test]
fn an_image_is_rebuilt_from_the_registry_that_holds_it_and_nothing_else() {
    let Some(project) = Project::new() else { return };
    let Some(registry) = registry(&project.place, Demands::default()) else {
        return;
    };
    let name = format!("docker://{}/team/thing:1", registry.host);
    let pushed = project.run(&["push", "--json", "thing", &name]).success();
    let digest = event(&pushed, "transferred")["digest"].as_str().unwrap().to_owned();
    assert_eq!(event(&pushed, "inputs-kept")["inputs"], 4, "{}", pushed.stdout);

    // Under a tag of the image and one of the lock, with the image as its subject.
    let own = format!("sha256-{}.inputs", digest.strip_prefix("sha256:").unwrap());
    let all = tags(&registry, "team/thing");
    let anchor = all.iter().find(|tag| tag.starts_with("inputs-")).unwrap().clone();
    assert_eq!(all, ["1", &anchor, &own]);
    let kept = manifest(&registry, "team/thing", &anchor);
    assert_eq!(kept, manifest(&registry, "team/thing", &own));
    assert_eq!(kept["artifactType"], "application/vnd.layerize.inputs.v1");
    assert_eq!(kept["subject"]["digest"], digest.as_str());
    let prog = input(&kept, "deb:prog");
    assert_eq!(prog["annotations"]["dev.layerize.input.version"], "1.0");
    assert_eq!(
        prog["annotations"]["org.opencontainers.image.title"],
        "prog_1.0_all.deb"
    );
    let deb = fs::read(project.place.path().join("archive/pool/prog_1.0_all.deb")).unwrap();
    assert_eq!(fs::read(blob(&registry, digest_of(prog))).unwrap(), deb);
    assert_eq!(input(&kept, "blob")["annotations"]["dev.layerize.input.version"], "7");

    project.nothing_is_left();
    let rebuilt = project.rebuild(&[&name]).success();
    assert!(
        rebuilt.line().starts_with(&format!("same     image thing {digest}")),
        "{}",
        rebuilt.stdout
    );
    rebuilt.says(&["rebuilding from what is kept in docker://"]);

    // One file that the registry lost is named, with all that was asked.
    let prog = digest_of(prog).strip_prefix("sha256:").unwrap();
    fs::remove_dir_all(repository(&registry, "team/thing").join("_layers/sha256").join(prog)).unwrap();
    let size = deb.len();
    project.rebuild(&[&name]).exits(2).says(&[
        &format!("cannot get `deb:prog` 1.0 (prog_1.0_all.deb, {size} bytes, sha256:{prog})"),
        &format!("{name}: not there"),
        "apt: not on this machine",
        "--inputs-from",
    ]);
}

#[test]
fn an_unchanged_lock_costs_two_requests_and_a_changed_package_one_blob() {
    let Some(mut project) = Project::new() else { return };
    let Some(registry) = registry(&project.place, Demands::default()) else {
        return;
    };
    project.spec(LOCAL, "");
    project.place.write("local/file", "1\n");
    let name = format!("docker://{}/team/thing:1", registry.host);
    let push = |project: &Project, more: &[&str]| {
        project
            .run(&[&["push", "--json", "thing", &name], more].concat())
            .success()
    };
    let kept = |ran: &Ran| event(ran, "inputs-kept");
    let first = push(&project, &[]);
    assert_eq!(kept(&first)["blobs_sent"], 4 + 1 + 2, "files, config, spec and lock");

    // The same again; then another image of the same lock.
    let again = push(&project, &[]);
    assert_eq!(
        (&kept(&again)["requests"], &kept(&again)["blobs_sent"]),
        (&1.into(), &0.into())
    );
    project.place.write("local/file", "2\n");
    let edited = push(&project, &[]);
    assert_ne!(
        event(&edited, "transferred")["digest"],
        event(&first, "transferred")["digest"]
    );
    assert_eq!(
        (&kept(&edited)["requests"], &kept(&edited)["blobs_sent"]),
        (&2.into(), &0.into())
    );
    let again = push(&project, &[]);
    assert!(kept(&again)["requests"].as_u64().unwrap() <= 2, "{}", kept(&again));
    // Without inputs there is nothing more than before, and nothing is said of them.
    let without = push(&project, &["--no-inputs"]);
    assert!(!without.stdout.contains("inputs-kept"), "{}", without.stdout);
    // Each image has its own; both are there to be rebuilt.
    let own = tags(&registry, "team/thing");
    assert_eq!(own.iter().filter(|tag| tag.ends_with(".inputs")).count(), 2, "{own:?}");

    // Another version of one package: its file is sent, and the lock and the artifact's own documents.
    project.archive.drop_from_index("other", "1.0");
    project.archive.add("other", "2.0", "");
    project.run(&["lock", "--update", "other"]).success();
    let updated = push(&project, &[]);
    let sent = kept(&updated)["bytes_sent"].as_u64().unwrap();
    let deb = fs::metadata(project.place.path().join("archive/pool/other_2.0_all.deb"))
        .unwrap()
        .len();
    let lock = fs::metadata(project.place.project.join("layerize.lock")).unwrap().len();
    assert_eq!(kept(&updated)["blobs_sent"], 2, "{}", kept(&updated));
    assert_eq!(sent, deb + lock);
}

#[test]
fn local_files_come_with_all_or_are_given() {
    let Some(project) = Project::new() else { return };
    let Some(registry) = registry(&project.place, Demands::default()) else {
        return;
    };
    let image_files = "files = { \"/etc/motd\" = \"motd\", \"/srv/www\" = \"www\" }\n";
    project.spec(LOCAL, image_files);
    let place = &project.place;
    place
        .write("local/file", "1\n")
        .write("local/sub/.gitignore", "x\n")
        .write("local/sub/x", "ignored\n");
    place.write("motd", "hello\n").write("www/index.html", "<p>\n");
    std::os::unix::fs::symlink("index.html", place.project.join("www/link")).unwrap();
    let name = |tag: &str| format!("docker://{}/team/thing:{tag}", registry.host);
    project.run(&["push", "thing", &name("1")]).success();
    // What is left out is named, and can be given.
    let saved = Place::new();
    copy_tree(&place.project, &saved.project);
    let local = project.rebuild(&[&name("1")]).exits(2);
    local.says(&["lack local files", "`motd`", "--spec DIR", "--inputs=all"]);
    let spec = format!("--spec={}", saved.project.display());
    fs::remove_dir_all(place.path().join("archive")).unwrap();
    fs::remove_file(saved.project.join("blob.tar")).unwrap();
    project.rebuild(&[&name("1"), &spec]).success();
    // With all of it nothing else is needed.
    project.run(&["push", "--inputs=all", "thing", &name("1")]).success();
    project.nothing_is_left();
    let rebuilt = project.rebuild(&[&name("1")]).success();
    assert!(rebuilt.line().starts_with("same     image thing"), "{}", rebuilt.stdout);
}

#[test]
fn an_export_on_a_directory_serves_a_machine_that_has_never_seen_a_mirror() {
    let Some(project) = Project::new() else { return };
    let place = &project.place;
    let usb = place.path().join("usb");
    let usb = usb.to_str().unwrap();
    let built = project
        .run(&["build", "thing", "-o", "oci:image:1", "-o", "plain.tar"])
        .success();
    let digest = built.stdout.split(' ').next().unwrap().to_owned();
    let exported = project.run(&["inputs", "export", "--json", usb]).success();
    assert_eq!(event(&exported, "inputs-kept")["blobs_sent"], 4 + 2);
    // Nothing is written again.
    let again = project.run(&["inputs", "export", "--json", usb]).success();
    assert_eq!(event(&again, "inputs-kept")["blobs_sent"], 0);

    let air_gapped = Place::new();
    copy_tree(&place.project, &air_gapped.project);
    project.nothing_is_left();
    fs::remove_file(air_gapped.project.join("blob.tar")).unwrap();
    let offline = ["build", "--locked", "--offline", "thing", "-o", "oci:out:1"];
    project.run_in(&air_gapped, &offline, false).exits(2).says(&[
        "files are unavailable",
        "neither in the cache nor in a place on this machine",
    ]);
    let from = format!("--inputs-from=oci:{usb}");
    let built = project
        .run_in(&air_gapped, &[&offline[..], &[&from]].concat(), false)
        .success();
    assert!(built.stdout.starts_with(&digest), "{}", built.stdout);

    // An image rebuilds from there, and from a plain directory with the files under their own names.
    let image = air_gapped.project.join("plain.tar");
    let image = image.to_str().unwrap();
    let rebuilt = project.rebuild(&[image, &from]).success();
    assert!(rebuilt.line().contains(&digest), "{}", rebuilt.stdout);
    project
        .rebuild(&[image])
        .exits(2)
        .says(&["no inputs are kept beside", "--inputs-from"]);
    let plain = Place::new();
    let index: Value = serde_json::from_slice(&fs::read(Path::new(usb).join("index.json")).unwrap()).unwrap();
    let read = |digest: &str| fs::read(Path::new(usb).join("blobs/sha256").join(&digest[7..])).unwrap();
    let kept: Value = serde_json::from_slice(&read(digest_of(&index["manifests"][0]))).unwrap();
    for layer in kept["layers"].as_array().unwrap() {
        if let Some(title) = layer["annotations"]["org.opencontainers.image.title"].as_str() {
            fs::write(plain.project.join(title), read(digest_of(layer))).unwrap();
        }
    }
    let spec = format!("--spec={}", air_gapped.project.display());
    let from = format!("--inputs-from={}", plain.project.display());
    project.rebuild(&[image, &spec, &from]).success();

    // One of them lost.
    let prog = digest_of(input(&kept, "deb:prog")).to_owned();
    fs::remove_file(Path::new(usb).join("blobs/sha256").join(&prog[7..])).unwrap();
    let from = format!("--inputs-from=oci:{usb}");
    project.rebuild(&[image, &from]).exits(2).says(&[
        "cannot get `deb:prog` 1.0 (prog_1.0_all.deb, ",
        &prog,
        &format!("oci:{usb}: not there"),
    ]);
}

#[test]
fn a_layout_keeps_inputs_beside_its_image() {
    let Some(project) = Project::new() else { return };
    project
        .run(&["build", "thing", "--inputs", "-o", "plain.tar"])
        .exits(2)
        .says(&["nothing can be attached to an image in `plain.tar`"]);
    project
        .run(&["build", "thing", "--inputs"])
        .exits(2)
        .says(&["add `-o oci:DIR`"]);
    let built = project.run(&[
        "build",
        "thing",
        "--inputs",
        "-o",
        "oci:out:v1",
        "--compression",
        "gzip:9",
    ]);
    let digest = built.success().stdout.split(' ').next().unwrap().to_owned();
    let elsewhere = Place::new();
    copy_tree(&project.place.project.join("out"), &elsewhere.project.join("out"));
    project.nothing_is_left();
    let layout = format!("oci:{}:v1", elsewhere.project.join("out").display());
    // The level is kept, too.
    let rebuilt = project.rebuild(&[&layout]).success();
    assert!(rebuilt.line().contains(&digest), "{}", rebuilt.stdout);
    project.run_in(&elsewhere, &["verify", "oci:out:v1"], true).success();
    let inspected = elsewhere.inspect("oci:out");
    assert_eq!(
        inspected["digest"],
        digest.as_str(),
        "what is beside it is not an image"
    );
}

#[test]
fn what_may_not_be_copied_is_withheld_and_named() {
    let Some(project) = Project::new() else { return };
    let Some(registry) = registry(&project.place, Demands::default()) else {
        return;
    };
    project.spec("[inputs]\nwithhold = [\"deb:other\"]\n\n", "");
    let text = fs::read_to_string(project.place.project.join("layerize.toml")).unwrap();
    project.place.write(
        "layerize.toml",
        &text.replace("file:blob.tar\"", "file:blob.tar\", redistribute = false"),
    );
    let name = format!("docker://{}/team/thing:1", registry.host);
    let pushed = project.run(&["push", "--json", "thing", &name]).success();
    let kept = event(&pushed, "inputs-kept");
    assert_eq!((&kept["inputs"], &kept["withheld"]), (&2.into(), &2.into()));
    let listed = project.run(&["inputs", "list"]).success();
    assert_eq!(
        listed.stdout.matches("(may not be copied)").count(),
        2,
        "{}",
        listed.stdout
    );
    let other = fs::read(project.place.path().join("archive/pool/other_1.0_all.deb")).unwrap();
    let digest = layerize::digest::Digest::of(&other).to_string();
    assert!(!blob(&registry, &digest).exists());
    let other_pool = Place::new();
    fs::write(other_pool.project.join("other_1.0_all.deb"), &other).unwrap();
    fs::copy(
        project.place.project.join("blob.tar"),
        other_pool.project.join("blob.tar"),
    )
    .unwrap();
    project.nothing_is_left();
    project.rebuild(&[&name]).exits(2).says(&[
        "2 files are unavailable",
        "cannot get `blob.tar`",
        "cannot get `deb:other` 1.0 (other_1.0_all.deb, ",
        "withheld, as it may not be copied",
    ]);
    let from = format!("--inputs-from={}", other_pool.project.display());
    project.rebuild(&[&name, &from]).success();

    let misspelt = Project::new().unwrap();
    misspelt.spec("[inputs]\nwithhold = [\"deb:othr\"]\n\n", "");
    misspelt
        .run(&["push", "thing", &name])
        .exits(2)
        .says(&["`deb:othr`, which `[inputs] withhold` names, is not in the lock"]);
}

#[test]
fn files_that_the_cache_no_longer_has_are_fetched_again_or_named() {
    let Some(project) = Project::new() else { return };
    let Some(registry) = registry(&project.place, Demands::default()) else {
        return;
    };
    project.run(&["build", "thing"]).success();
    let cache = project.place.path().join("cache/layerize/fetch");
    fs::remove_dir_all(&cache).unwrap();
    let name = |repository: &str| format!("docker://{}/{repository}:1", registry.host);
    project.run(&["push", "thing", &name("one")]).success();
    fs::remove_dir_all(&cache).unwrap();
    // What is there is not fetched; what the registry has elsewhere is mounted.
    fs::remove_dir_all(project.place.path().join("archive")).unwrap();
    project.run(&["push", "thing", &name("one")]).success();
    let from = format!("--inputs-from={}", name("one"));
    project.run(&["push", "thing", &name("two"), &from]).success();
    let fetched = layerize::fsio::sorted_names(&cache.join("sha256")).unwrap();
    assert!(fetched.is_empty(), "{fetched:?}");
    project.run(&["push", "thing", &name("three")]).exits(2).says(&[
        "the image is at `docker://",
        "lacks cannot be brought there",
        "3 files are unavailable",
        "`deb:prog` 1.0 (prog_1.0_all.deb, ",
        "--no-inputs",
    ]);
    project.run(&["push", "--no-inputs", "thing", &name("three")]).success();
}

#[test]
fn a_check_tells_where_each_input_is_left() {
    let Some(project) = Project::new() else { return };
    let all = project.run(&["inputs", "check"]).success();
    let counts = "4 inputs: 1 in several places, 3 in one place only, 0 in none";
    assert!(all.stdout.contains(counts), "{}", all.stdout);
    let usb = project.place.path().join("usb");
    let usb = format!("oci:{}", usb.display());
    project.run(&["inputs", "export", &usb]).success();
    let text = fs::read_to_string(project.place.project.join("layerize.toml")).unwrap();
    project
        .place
        .write("layerize.toml", &format!("{text}\n[inputs]\nfrom = [\"{usb}\"]\n"));
    let checked = project.run(&["inputs", "check", "thing"]).success();
    assert!(
        checked.stdout.contains("4 inputs: 4 in several places"),
        "{}",
        checked.stdout
    );
    assert!(
        checked.stdout.contains(&format!("4 of 4 in {usb}\n")),
        "{}",
        checked.stdout
    );
    // The archive drops one, the cache goes, and the stick loses it.
    let mut project = project;
    project.archive.drop_from_index("other", "1.0");
    fs::remove_dir_all(project.place.path().join("cache")).unwrap();
    let checked = project.run(&["inputs", "check"]).success();
    assert!(
        checked.stdout.contains("once     deb:other 1.0  other_1.0_all.deb"),
        "{}",
        checked.stdout
    );
    let listed = project.run(&["inputs", "list", "--json"]).success();
    let listed: Value = serde_json::from_str(listed.stdout.lines().last().unwrap()).unwrap();
    let inputs = listed["inputs"].as_array().unwrap();
    let names: Vec<&str> = inputs.iter().map(|file| file["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["blob", "deb:libx1", "deb:other", "deb:prog"]);
    let other = inputs[2]["digest"].as_str().unwrap();
    fs::remove_file(project.place.path().join("usb/blobs/sha256").join(&other[7..])).unwrap();
    let checked = project.run(&["inputs", "check"]).exits(1);
    assert!(checked.stdout.contains("NOWHERE  deb:other 1.0"), "{}", checked.stdout);
    assert!(
        checked
            .stdout
            .contains("3 in several places, 0 in one place only, 1 in none"),
        "{}",
        checked.stdout
    );
    let json = project.run(&["inputs", "check", "--json"]).exits(1).stdout;
    let report: Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    assert_eq!(report["places"][1], usb.as_str());
    assert_eq!(report["inputs"][2]["places"][1], "not-there");
}

/// Nothing but loopback can be reached: a network of its own, in which the registry is started again.
#[test]
fn a_rebuild_needs_no_network_but_the_registrys() {
    let Some(project) = Project::new() else { return };
    let probe = ["--net", "--", "sh", "-c", "ip link set lo up"];
    if !have("unshare", &probe) {
        return;
    }
    let Some(registry) = registry(&project.place, Demands::default()) else {
        return;
    };
    let name = format!("docker://{}/team/thing:1", registry.host);
    project.run(&["push", "thing", &name]).success();
    let config = project.place.path().join("registry/registry.yml");
    let host = registry.host.clone();
    drop(registry);
    project.nothing_is_left();
    let empty = Place::new();
    let script = format!(
        "ip link set lo up; docker-registry serve {} >/dev/null 2>&1 & registry=$!\n\
         for i in $(seq 100); do (exec 3<>/dev/tcp/{}) 2>/dev/null && break; sleep 0.1; done\n\
         {} rebuild {name}; status=$?\nkill $registry; exit $status",
        config.display(),
        host.replace(':', "/"),
        crate::support::LAYERIZE,
    );
    let mut command = Command::new("unshare");
    command.args(["--net", "--", "bash", "-c", &script]);
    empty.prepare(&mut command);
    command.env("XDG_CACHE_HOME", empty.path().join("cache"));
    let rebuilt = Ran::of(command.output().unwrap()).success();
    assert!(rebuilt.line().starts_with("same     image thing"), "{}", rebuilt.stdout);
}

#[test]
fn a_shared_cache_gives_the_files_of_the_lock_too() {
    let Some(project) = Project::new() else { return };
    let Some(registry) = registry(&project.place, Demands::default()) else {
        return;
    };
    let layout = format!("oci:{}", project.place.path().join("shared").display());
    let caches = [layout, format!("docker://{}/cache", registry.host)];
    let app = format!("{}/app:1", registry.host);
    let to = caches.clone().map(|cache| format!("--cache-to={cache}"));
    project.run(&["push", "thing", &app, &to[0], &to[1]]).success();
    // A cache that keeps none of them is asked once.
    let empty = format!("--cache-from=docker://{}/empty", registry.host);
    for dir in ["archive", "project/blob.tar"] {
        layerize::fsio::remove_tree(&project.place.path().join(dir)).unwrap();
    }
    let spec = project.place.project.join("layerize.toml");
    let edited = fs::read_to_string(&spec).unwrap().replace("a = \"b\"", "a = \"c\"");
    fs::write(&spec, edited).unwrap();
    for cache in &caches {
        let other = Place::new();
        copy_tree(&project.place.project, &other.project);
        let build = ["build", "--locked", "thing", "-o", "oci:two", "--cache-unsigned"];
        let refused = project.run_in(&other, &[&build[..], &[&empty]].concat(), false);
        assert_ne!(refused.status, 0, "{}", refused.stderr);
        let from = format!("--cache-from={cache}");
        let args = [&build[..], &[&empty, &from]].concat();
        project.run_in(&other, &args, false).success();
    }
}
